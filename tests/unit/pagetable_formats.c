/* mm_pagetable: entries as the manuals draw them. The numbers are put together by hand from the
 * tables named beside them, not from the header. */
#include "pagetable_model.h"

static struct space s;
#define BIT(n) ((uint64_t)1 << (n))
#define VA     ((mm_va_t)0x40000000)

struct golden {
    uint32_t attr;
    uint64_t small; /* leaf of 4 KiB at physical 0x123456000 */
    uint64_t large; /* leaf of 2 MiB at physical 0x140000000 */
};

/* Maps one leaf of each size and compares the raw entries; what is read back is what was put in. */
static void compare(enum mm_pagetable_id id, uint32_t flags, const struct golden *golden,
                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        space_begin(&s, ram_make(), mm_pagetable_format_of(id));
        s.config.flags = flags;
        space_make(&s);
        assert_int_equal(map(&s, VA, 0x123456000, PAGE, golden[i].attr), MM_OK);
        assert_int_equal(map(&s, VA + 4 * MIB, 0x140000000, 2 * MIB, golden[i].attr), MM_OK);
        struct mm_pagetable_entry small = entry_at(&s, VA), large = entry_at(&s, VA + 4 * MIB);
        if (small.raw != golden[i].small || large.raw != golden[i].large)
            fprintf(stderr, "# line %zu: %#llx, %#llx\n", i, (unsigned long long)small.raw,
                    (unsigned long long)large.raw);
        assert_true(small.raw == golden[i].small);
        assert_true(large.raw == golden[i].large);
        assert_int_equal(large.level, 1);
        assert_int_equal(small.attr, golden[i].attr);
        assert_int_equal(large.attr, golden[i].attr);
        space_end(&s);
    }
}

/* Arm ARM D8.3.1 and D8.3.2: table D8-... of attribute fields. AttrIndx [4:2], NS 5, AP [7:6], SH
 * [9:8], AF 10, nG 11, DBM 51, Contiguous 52, PXN 53, UXN 54; page 0b11, block 0b01. */
static void aarch64_stage_1(void **state)
{
    const uint64_t uxn = BIT(54), pxn = BIT(53), dbm = BIT(51), ng = BIT(11), af = BIT(10),
                   ish = 3 << 8;
    const uint64_t ro = BIT(7), el0 = BIT(6), dirty = BIT(55);
    const uint32_t A = MM_PAGETABLE_ACCESSED, D = MM_PAGETABLE_DIRTY;
#define GOLD(attr, bits)                                 \
    {                                                    \
        attr, (bits) | 0x123456003, (bits) | 0x140000001 \
    }
    const struct golden golden[] = {
        GOLD(RO, uxn | pxn | ng | ish | ro),
        GOLD(RO | A, uxn | pxn | ng | ish | ro | af),
        /* writable and clean: read-only with DBM; writable and dirty: AP[2] clear */
        GOLD(RW | A, uxn | pxn | dbm | ng | ish | ro | af),
        GOLD(RW | A | D, uxn | pxn | dbm | ng | ish | af | dirty),
        GOLD(RX | A, uxn | ng | ish | ro | af),
        GOLD(RX | A | MM_PAGETABLE_GLOBAL, uxn | ish | ro | af),
        GOLD(RX | A | MM_PAGETABLE_USER, pxn | ng | ish | ro | af | el0),
        GOLD(RW | A | D | MM_PAGETABLE_USER, uxn | pxn | dbm | ng | ish | af | el0 | dirty),
        /* indices of MAIR 0x0444bbff: write-back 0, write-through 1, normal non-cacheable 2, device
         * 3 */
        GOLD(RO | A | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_THROUGH),
             uxn | pxn | ng | ish | ro | af | 1 << 2),
        GOLD(RO | A | MM_PAGETABLE_TYPE(MM_PAGETABLE_UNCACHED),
             uxn | pxn | ng | ish | ro | af | 2 << 2),
        GOLD(RW | A | D | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE),
             uxn | pxn | dbm | ng | ish | af | dirty | 3 << 2),
        GOLD(RO | A | MM_PAGETABLE_OUTER_SHARED, uxn | pxn | ng | 2 << 8 | ro | af),
        GOLD(RO | A | MM_PAGETABLE_NOT_SHARED, uxn | pxn | ng | ro | af),
    };
    (void)state;
    compare(MM_PAGETABLE_ID_AARCH64_S1, 0, golden, sizeof golden / sizeof golden[0]);
}

/* D8.3.2: MemAttr [5:2], S2AP [7:6] (read 6, write 7), SH [9:8], AF 10, DBM 51, XN [54:53]. */
static void aarch64_stage_2(void **state)
{
    const uint64_t xn = BIT(54), dbm = BIT(51), af = BIT(10), ish = 3 << 8, dirty = BIT(55);
    const uint64_t r = BIT(6), w = BIT(7), wb = 0xf << 2;
    const uint32_t A = MM_PAGETABLE_ACCESSED, D = MM_PAGETABLE_DIRTY;
    const struct golden golden[] = {
        GOLD(RO | A, xn | ish | af | r | wb),
        GOLD(RW | A, xn | dbm | ish | af | r | wb),
        GOLD(RW | A | D, xn | dbm | ish | af | r | w | wb | dirty),
        GOLD(RX | A, ish | af | r | wb),
        GOLD(MM_PAGETABLE_EXEC | A, ish | af | wb),
        GOLD(RO | A | MM_PAGETABLE_TYPE(MM_PAGETABLE_UNCACHED), xn | ish | af | r | 5 << 2),
        GOLD(RO | A | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_THROUGH), xn | ish | af | r | 0xa << 2),
        GOLD(RO | A | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE), xn | ish | af | r | 1 << 2),
    };
    const struct golden by_mode[] = {
        /* FEAT_XNX: 01 only EL0 executes, 11 only EL1, 00 both */
        GOLD(RX | A, 3 * BIT(53) | ish | af | r | wb),
        GOLD(RO | MM_PAGETABLE_EXEC_USER | A, BIT(53) | ish | af | r | wb),
        GOLD(RX | MM_PAGETABLE_EXEC_USER | A, ish | af | r | wb),
        GOLD(RO | A, xn | ish | af | r | wb),
    };
    (void)state;
    compare(MM_PAGETABLE_ID_AARCH64_S2, 0, golden, sizeof golden / sizeof golden[0]);
    compare(MM_PAGETABLE_ID_AARCH64_S2, MM_PAGETABLE_MODE_EXEC, by_mode,
            sizeof by_mode / sizeof by_mode[0]);
}

/* Intel SDM vol. 3, tables 28-3 to 28-6: R 0, W 1, X 2, type [5:3], ignore PAT 6, leaf 7, A 8, D 9,
 * user execute 10. */
static void ept(void **state)
{
    const uint32_t A = MM_PAGETABLE_ACCESSED, D = MM_PAGETABLE_DIRTY;
#define EPT(attr, bits)                                  \
    {                                                    \
        attr, (bits) | 0x123456000, (bits) | 0x140000080 \
    }
    const struct golden golden[] = {
        EPT(RO, 1 | 6 << 3),
        EPT(RW | A | D, 3 | 6 << 3 | 0x300),
        EPT(RX, 5 | 6 << 3 | 0x400), /* bit 10 is ignored without mode-based execute control */
        EPT(MM_PAGETABLE_EXEC, 4 | 6 << 3 | 0x400),
        EPT(RO | MM_PAGETABLE_IGNORE_PAT, 1 | 6 << 3 | 0x40),
        EPT(RO | MM_PAGETABLE_TYPE(MM_PAGETABLE_UNCACHED), 1),
        EPT(RO | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_COMBINING), 1 | 1 << 3),
        EPT(RO | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_THROUGH), 1 | 4 << 3),
        EPT(RO | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_PROTECTED), 1 | 5 << 3),
    };
    const struct golden by_mode[] = {
        EPT(RX, 5 | 6 << 3),
        EPT(RO | MM_PAGETABLE_EXEC_USER, 0x401 | 6 << 3),
        EPT(RX | MM_PAGETABLE_EXEC_USER, 0x405 | 6 << 3),
    };
    (void)state;
    compare(MM_PAGETABLE_ID_EPT, MM_PAGETABLE_EXEC_ONLY, golden, sizeof golden / sizeof golden[0]);
    compare(MM_PAGETABLE_ID_EPT, MM_PAGETABLE_MODE_EXEC, by_mode,
            sizeof by_mode / sizeof by_mode[0]);
}

/* SDM vol. 3, tables 4-17 to 4-20: PAT is bit 7 of a PTE and bit 12 of a PDE. */
static void x86_64(void **state)
{
    const uint32_t A = MM_PAGETABLE_ACCESSED, D = MM_PAGETABLE_DIRTY,
                   flags = MM_PAGETABLE_NX | MM_PAGETABLE_PKEYS;
    const uint64_t nx = BIT(63), ps = BIT(7), small = 0x123456001, large = 0x140000001;
    const struct golden golden[] = {
        {RO, nx | small, nx | large | ps},
        {RW | A | D, nx | small | 0x62, nx | large | ps | 0x62},
        {RX | MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL, small | 0x104, large | ps | 0x104},
        {RO | MM_PAGETABLE_KEY(11), nx | small | 11 * BIT(59), nx | large | ps | 11 * BIT(59)},
        /* PAT 0x0407050600070106: WC is entry 1, UC- 2, UC 3, WP 5, WT 7 */
        {RX | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_COMBINING), small | 8, large | ps | 8},
        {RX | MM_PAGETABLE_TYPE(MM_PAGETABLE_UNCACHED), small | 0x10, large | ps | 0x10},
        {RX | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE), small | 0x18, large | ps | 0x18},
        {RX | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_PROTECTED), small | 0x88, large | ps | 0x1008},
        {RX | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_THROUGH), small | 0x98, large | ps | 0x1018},
    };
    (void)state;
    compare(MM_PAGETABLE_ID_X86_64, flags, golden, sizeof golden / sizeof golden[0]);
}

/* RISC-V privileged figure 4.22; Svpbmt 61 and 62. */
static void riscv(void **state)
{
    const uint32_t A = MM_PAGETABLE_ACCESSED, D = MM_PAGETABLE_DIRTY;
#define RISCV(attr, bits)                                          \
    {                                                              \
        attr, (bits) | 0x123456000 >> 2, (bits) | 0x140000000 >> 2 \
    }
    const struct golden golden[] = {
        RISCV(RO, 3),
        RISCV(RW | A | D, 0xc7),
        RISCV(RX | MM_PAGETABLE_USER, 0x1b),
        RISCV(MM_PAGETABLE_EXEC | MM_PAGETABLE_GLOBAL, 0x29),
        RISCV(RO | MM_PAGETABLE_TYPE(MM_PAGETABLE_UNCACHED), 3 | BIT(61)),
        RISCV(RO | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE), 3 | BIT(62)),
    };
    const struct golden second[] = {RISCV(RO, 0x13), RISCV(RW | A | D, 0xd7)};
    (void)state;
    compare(MM_PAGETABLE_ID_SV39, MM_PAGETABLE_SVPBMT, golden, sizeof golden / sizeof golden[0]);
    compare(MM_PAGETABLE_ID_SV57, MM_PAGETABLE_SVPBMT, golden, sizeof golden / sizeof golden[0]);
    compare(MM_PAGETABLE_ID_SV48X4, 0, second, 2);
}

/* Sixteen pages of 64 KiB: Svnapot writes 1000 into the low frame bits, Arm sets bit 52. */
static void groups(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
    s.config.flags = MM_PAGETABLE_CONTIGUOUS;
    space_make(&s);
    assert_int_equal(map(&s, VA, 0x10000, 16 * PAGE, RO), MM_OK);
    for (unsigned i = 0; i < 16; i++) {
        assert_true(entry_at(&s, VA + i * PAGE).raw == (BIT(63) | (0x18 << 10) | 3));
        assert_int_equal(mm_pagetable_translate(&s.pt, VA + i * PAGE + 5), 0x10005 + i * PAGE);
    }
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 3 * PAGE, PAGE, NULL), MM_OK);
    assert_true(entry_at(&s, VA + 4 * PAGE).raw == ((0x14 << 10) | 3));
    space_end(&s);
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_AARCH64_S1));
    s.config.flags = MM_PAGETABLE_CONTIGUOUS;
    space_make(&s);
    assert_int_equal(map(&s, VA + PAGE, 0x11000, 32 * PAGE, RO), MM_OK);
    assert_int_equal(entry_at(&s, VA + 15 * PAGE).raw >> 52 & 1, 0);
    assert_int_equal(entry_at(&s, VA + 16 * PAGE).raw >> 52 & 1, 1);
    assert_int_equal(entry_at(&s, VA + 31 * PAGE).raw >> 52 & 1, 1);
    assert_int_equal(entry_at(&s, VA + 32 * PAGE).raw >> 52 & 1, 0);
    assert_int_equal(stats_of(&s).contiguous, 16);
    space_end(&s);
}

/* CR3, satp, hgatp, EPTP, TTBR, VTTBR. */
static void root_registers(void **state)
{
    static const struct {
        enum mm_pagetable_id id;
        uint64_t rest, shift;
    } roots[] = {
        {MM_PAGETABLE_ID_X86_64, 5, 0},
        {MM_PAGETABLE_ID_NPT, 0, 0},
        {MM_PAGETABLE_ID_EPT, 0x1e, 0},
        {MM_PAGETABLE_ID_SV39, (uint64_t)8 << 60 | (uint64_t)5 << 44, 12},
        {MM_PAGETABLE_ID_SV48, (uint64_t)9 << 60 | (uint64_t)5 << 44, 12},
        {MM_PAGETABLE_ID_SV57, (uint64_t)10 << 60 | (uint64_t)5 << 44, 12},
        {MM_PAGETABLE_ID_SV39X4, (uint64_t)8 << 60 | (uint64_t)5 << 44, 12},
        {MM_PAGETABLE_ID_SV32, (uint64_t)1 << 31 | 5 << 22, 12},
        {MM_PAGETABLE_ID_AARCH64_S1, (uint64_t)5 << 48, 0},
        {MM_PAGETABLE_ID_AARCH64_S2, (uint64_t)5 << 48, 0},
        {MM_PAGETABLE_ID_X86_64_LA57, 5, 0},
        {MM_PAGETABLE_ID_SV48X4, (uint64_t)9 << 60 | (uint64_t)5 << 44, 12},
        {MM_PAGETABLE_ID_SV57X4, (uint64_t)10 << 60 | (uint64_t)5 << 44, 12},
    };
    (void)state;
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        space_begin(&s, ram_make(), mm_pagetable_format_of(roots[i].id));
        s.config.asid = 5;
        space_make(&s);
        assert_true(mm_pagetable_root(&s.pt) == (roots[i].rest | s.pt.root >> roots[i].shift));
        space_end(&s);
    }
}

/* The widest number that the register has room for, and one bit more. NPT and EPT have none
 * there. */
static void numbers_of_address_spaces(void **state)
{
    static const unsigned bits[MM_PAGETABLE_ID_COUNT] = {
        [MM_PAGETABLE_ID_X86_64] = 12,     [MM_PAGETABLE_ID_X86_64_LA57] = 12,
        [MM_PAGETABLE_ID_SV32] = 9,        [MM_PAGETABLE_ID_SV39] = 16,
        [MM_PAGETABLE_ID_SV48] = 16,       [MM_PAGETABLE_ID_SV57] = 16,
        [MM_PAGETABLE_ID_SV39X4] = 14,     [MM_PAGETABLE_ID_SV48X4] = 14,
        [MM_PAGETABLE_ID_SV57X4] = 14,     [MM_PAGETABLE_ID_AARCH64_S1] = 16,
        [MM_PAGETABLE_ID_AARCH64_S2] = 16, [MM_PAGETABLE_ID_NPT] = 31,
        [MM_PAGETABLE_ID_EPT] = 31};
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        struct mm_pagetable pt;
        space_begin(&s, ram_make(), mm_pagetable_format_of((enum mm_pagetable_id)id));
        s.config.asid = 1u << bits[id];
        assert_int_equal(mm_pagetable_init(&pt, &s.config), MM_ERR_INVALID);
        s.config.asid--;
        space_make(&s);
        space_end(&s);
    }
}

/* The last frame that the format can name, by the walker's word; none behind it. */
static void the_last_frame(void **state)
{
    static struct world w;
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        world_begin(&w, ram_make(), (enum mm_pagetable_id)id, 0);
        w.s.config.pa_bits = w.format.pa_bits;
        world_make(&w);
        mm_pa_t end = (mm_pa_t)1 << w.format.pa_bits;
        struct walk_access a = {.user = true};
        uint32_t attr = RO | (w.format.user != 0 ? MM_PAGETABLE_USER : 0);
        assert_int_equal(map(&w.s, VA, end - PAGE, PAGE, attr), MM_OK);
        assert_int_equal(walk(&w.walker, VA + 5, a).pa, end - PAGE + 5);
        assert_int_equal(map(&w.s, VA + PAGE, end, PAGE, attr), MM_ERR_INVALID);
        assert_int_equal(map(&w.s, VA + PAGE, end - PAGE, 2 * PAGE, attr), MM_ERR_INVALID);
        assert_int_equal(mm_pagetable_unmap(&w.s.pt, VA, PAGE, NULL), MM_OK);
        assert_int_equal(map(&w.s, 4 * VA - 4 * MIB, end - 4 * MIB, 4 * MIB, attr), MM_OK);
        assert_int_equal(walk(&w.walker, 4 * VA - 1, a).pa, end - 1);
        assert_true(entry_at(&w.s, 4 * VA - 1).level == 1);
        space_end(&w.s);
    }
}

/* Frame 0 does not follow the last one, whatever bit stands above the address. */
static void runs_end_with_the_last_frame(void **state)
{
    static struct world w;
    const struct released *r = w.s.released;
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        for (unsigned soft = 0; soft < 8; soft++) {
            world_begin(&w, ram_make(), (enum mm_pagetable_id)id, 0);
            w.s.config.pa_bits = w.format.pa_bits;
            world_make(&w);
            mm_pa_t last = ((mm_pa_t)1 << w.format.pa_bits) - PAGE;
            uint32_t more = soft * MM_PAGETABLE_SOFT0;
            if (map(&w.s, VA + PAGE, 0, PAGE, RO | more) != MM_OK)
                continue; /* some have fewer such bits */
            assert_int_equal(map(&w.s, VA, last, PAGE, RO), MM_OK);
            assert_int_equal(mm_pagetable_unmap(&w.s.pt, VA, 2 * PAGE, NULL), MM_OK);
            assert_int_equal(w.s.release_count, 2);
            assert_true(r[0].pa == last && r[0].bytes == PAGE && r[0].attr == (r[1].attr & ~more));
            assert_true(r[1].pa == 0 && r[1].bytes == PAGE && (r[1].attr & more) == more);
            space_end(&w.s);
        }
}

/* Every combination of attributes, under every set of features that has a say: taken exactly if the
 * manuals have it (attr_legal), and then read back as it was, but for types that share an
 * encoding. */
static void round_trip(void **state)
{
    const uint32_t says = MM_PAGETABLE_NX | MM_PAGETABLE_PKEYS | MM_PAGETABLE_SVPBMT |
                          MM_PAGETABLE_EXEC_ONLY | MM_PAGETABLE_MODE_EXEC;
    static struct world w;
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        for (uint32_t set = 0; set < 256; set++) {
            world_begin(&w, ram_make(), (enum mm_pagetable_id)id, 0);
            uint32_t has = w.format.features & says;
            uint32_t flags = (set & 0x7f) | ((set & 0x80) != 0 ? MM_PAGETABLE_W_XOR_X : 0);
            if ((flags & ~(has | MM_PAGETABLE_W_XOR_X)) != 0)
                continue;
            w.s.config.flags = flags;
            world_make(&w);
            uint32_t accepted = 0, step = flags == has ? 1 : MM_TEST_SANITIZED ? 17 : 7;
            for (uint32_t n = 0; n < 1u << 18; n += step) {
                uint32_t attr = (n & 0x3fff) | (n >> 14 & 3) << 24 | (n >> 16 & 1) << 20 |
                                (n >> 17) * MM_PAGETABLE_KEY(9);
                enum mm_status expected = attr_legal(&w, attr) ? MM_OK : MM_ERR_INVALID;
                assert_int_equal(
                    mm_pagetable_map(&w.s.pt, VA, 0x1000, PAGE, attr, MM_PAGETABLE_REPLACE, NULL),
                    expected);
                if (expected != MM_OK)
                    continue;
                accepted++;
                assert_int_equal(entry_at(&w.s, VA).attr, attr_back(&w, attr));
            }
            assert_true(accepted != 0);
            space_end(&w.s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aarch64_stage_1),
        cmocka_unit_test(aarch64_stage_2),
        cmocka_unit_test(ept),
        cmocka_unit_test(x86_64),
        cmocka_unit_test(riscv),
        cmocka_unit_test(groups),
        cmocka_unit_test(root_registers),
        cmocka_unit_test(numbers_of_address_spaces),
        cmocka_unit_test(the_last_frame),
        cmocka_unit_test(runs_end_with_the_last_frame),
        cmocka_unit_test(round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
