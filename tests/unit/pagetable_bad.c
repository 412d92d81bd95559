/* mm_pagetable: every bad input has its error and changes nothing. */
#include "pagetable_test.h"

static struct space s;
static const struct mm_pagetable_format *format;
#define BASE ((mm_va_t)0x40000000)

static void begin(enum mm_pagetable_id id)
{
    format = mm_pagetable_format_of(id);
    space_begin(&s, ram_make(), format);
    s.config.pa_bits = id == MM_PAGETABLE_ID_SV32 ? 34 : 40;
    space_make(&s);
    assert_int_equal(map(&s, BASE, 0x200000, 4 * MIB, RW), MM_OK);
}

/* Says what the call returned, after a look that nothing changed. */
#define REFUSED(expected, call)                               \
    do {                                                      \
        uint64_t sum_ = ram_sum(s.ram), flushes_ = s.flushes; \
        assert_int_equal(call, expected);                     \
        assert_true(ram_sum(s.ram) == sum_);                  \
        assert_int_equal(s.flushes, flushes_);                \
    } while (0)

static enum mm_status unmap(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_unmap(&s.pt, va, bytes, NULL);
}

static enum mm_status protect(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_protect(&s.pt, va, bytes, RO, MM_PAGETABLE_PERMS, NULL);
}

static enum mm_status frames(mm_va_t va, uint64_t bytes)
{
    static const mm_pa_t list[4] = {0, 0, 0, 0};
    return mm_pagetable_map_frames(&s.pt, va, list, bytes / PAGE, RO, 0, NULL);
}

static enum mm_status map_one(mm_va_t va, uint64_t bytes)
{
    return map(&s, va, 0x1000000, bytes, RW);
}

static enum mm_status collapse(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_collapse(&s.pt, va, bytes, NULL);
}

static enum mm_status sweep(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_sweep(&s.pt, va, bytes, NULL);
}

static enum mm_status harvest(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_harvest(&s.pt, va, bytes, MM_PAGETABLE_ACCESSED, 0, NULL, NULL, NULL);
}

static enum mm_status cursor(mm_va_t va, uint64_t bytes)
{
    struct mm_pagetable_cursor c;
    return mm_pagetable_cursor_begin(&c, &s.pt, va, bytes, NULL);
}

static bool any_leaf(void *ctx, const struct mm_pagetable_entry *entry)
{
    (void)ctx;
    (void)entry;
    return true;
}

static enum mm_status walk(mm_va_t va, uint64_t bytes)
{
    struct mm_pagetable_visitor visitor = {NULL, any_leaf, NULL, 31};
    return mm_pagetable_walk(&s.pt, va, bytes, &visitor);
}

static enum mm_status give_back(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_give_back(&s.pt, va, bytes, NULL);
}

static enum mm_status (*const ranged[])(mm_va_t va, uint64_t bytes) = {
    map_one, unmap, protect, frames, collapse, sweep, harvest, cursor, walk, give_back};

static void ranges(void **state)
{
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        begin((enum mm_pagetable_id)id);
        uint64_t top = (uint64_t)1 << format->va_bits;
        bool sign = format->canonical == MM_PAGETABLE_SIGN_EXTENDED;
        uint64_t last = sign ? top / 2 : top; /* first address that does not exist */
        for (size_t f = 0; f < sizeof ranged / sizeof ranged[0]; f++) {
            REFUSED(MM_ERR_INVALID, ranged[f](BASE, 0));
            REFUSED(MM_ERR_INVALID, ranged[f](last, PAGE));
            REFUSED(MM_ERR_INVALID, ranged[f](last - PAGE, 2 * PAGE));
            REFUSED(MM_ERR_INVALID, ranged[f](~(uint64_t)0 - 2 * PAGE + 1, 4 * PAGE)); /* wraps */
            REFUSED(MM_ERR_INVALID, ranged[f](top << 1, PAGE));
            if (ranged[f] != frames) {
                REFUSED(MM_ERR_ALIGN, ranged[f](BASE + 1, PAGE));
                REFUSED(MM_ERR_ALIGN, ranged[f](BASE, PAGE + 1));
                REFUSED(MM_ERR_INVALID, ranged[f](BASE, top));
                REFUSED(MM_ERR_INVALID, ranged[f](BASE, ~(uint64_t)0 & ~(PAGE - 1)));
            }
            if (sign)
                REFUSED(MM_ERR_INVALID,
                        ranged[f]((~(uint64_t)0 << (format->va_bits - 1)) - PAGE, PAGE));
        }
        space_end(&s);
    }
}

static void frames_of_a_mapping(void **state)
{
    static mm_pa_t list[2] = {0, 0};
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    REFUSED(MM_ERR_ALIGN, map(&s, 0x1000, 0x1001, PAGE, RW));
    REFUSED(MM_ERR_INVALID, map(&s, 0x1000, (mm_pa_t)1 << 40, PAGE, RW));
    REFUSED(MM_ERR_INVALID, map(&s, 0x1000, ((mm_pa_t)1 << 40) - PAGE, 2 * PAGE, RW));
    REFUSED(MM_ERR_INVALID, map(&s, 0x1000, MM_PA_NONE - PAGE + 1, 2 * PAGE, RW));
    list[1] = 0x800;
    REFUSED(MM_ERR_ALIGN, mm_pagetable_map_frames(&s.pt, 0x1000, list, 2, RW, 0, NULL));
    list[1] = (mm_pa_t)1 << 40;
    REFUSED(MM_ERR_INVALID, mm_pagetable_map_frames(&s.pt, 0x1000, list, 2, RW, 0, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_map_frames(&s.pt, 0x1000, NULL, 1, RW, 0, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_map_frames(&s.pt, 0x1001000, list, 0, RW, 0, NULL));
    list[1] = 0;
    REFUSED(MM_ERR_INVALID, mm_pagetable_map_frames(&s.pt, 0x1000, list, 2, 0, 0, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_map_frames(&s.pt, 0x1000, list, 2, RW, 0x100, NULL));
    assert_int_equal(map(&s, 0x1000, ((mm_pa_t)1 << 40) - PAGE, PAGE, RW), MM_OK);
    space_end(&s);
}

static void what_is_there_already(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV48);
    REFUSED(MM_ERR_EXISTS, map(&s, BASE, 0, PAGE, RW));
    REFUSED(MM_ERR_EXISTS, map(&s, BASE + 4 * MIB - PAGE, 0, 2 * PAGE, RW));
    REFUSED(MM_ERR_EXISTS, map(&s, BASE - PAGE, 0, 2 * PAGE, RW));
    REFUSED(MM_ERR_EXISTS, map(&s, 0, 0, 2 * GIB, RW));
    assert_int_equal(mm_pagetable_swap(&s.pt, BASE + 100 * MIB, 0, NULL), MM_OK);
    REFUSED(MM_ERR_EXISTS, map(&s, BASE + 100 * MIB, 0, PAGE, RW));
    space_end(&s);
}

static void how_to_map(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    mm_va_t va = 0x80000000;
    REFUSED(MM_ERR_INVALID, mm_pagetable_map(&s.pt, va, 0, PAGE, RW, 2, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_map(&s.pt, va, 0, PAGE, RW, 0x1000, NULL));
    REFUSED(MM_ERR_INVALID,
            mm_pagetable_map(&s.pt, va, 0, PAGE, RW, MM_PAGETABLE_LEAF_MIN(4), NULL));
    /* a smallest leaf that does not fit: the size, either address, a level without leaves */
    REFUSED(MM_ERR_ALIGN, mm_pagetable_map(&s.pt, va, 0, PAGE, RW, MM_PAGETABLE_LEAF_MIN(1), NULL));
    REFUSED(MM_ERR_ALIGN,
            mm_pagetable_map(&s.pt, va, PAGE, 2 * MIB, RW, MM_PAGETABLE_LEAF_MIN(1), NULL));
    REFUSED(MM_ERR_ALIGN,
            mm_pagetable_map(&s.pt, va + PAGE, PAGE, 2 * MIB, RW, MM_PAGETABLE_LEAF_MIN(1), NULL));
    REFUSED(MM_ERR_ALIGN,
            mm_pagetable_map(&s.pt, va, 0, 512 * GIB, RW, MM_PAGETABLE_LEAF_MIN(3), NULL));
    REFUSED(MM_ERR_ALIGN,
            mm_pagetable_map(&s.pt, va, 0, 2 * MIB, RW,
                             MM_PAGETABLE_LEAF_MIN(1) | MM_PAGETABLE_LEAF_MAX(0), NULL));
    /* where smaller pages are already */
    assert_int_equal(map(&s, va, 0x1000, PAGE, RW), MM_OK);
    REFUSED(MM_ERR_EXISTS,
            mm_pagetable_map(&s.pt, va, 0, 2 * MIB, RW, MM_PAGETABLE_LEAF_MIN(1), NULL));
    space_end(&s);
}

static void attributes(void **state)
{
    static const uint32_t bad[] = {0,
                                   MM_PAGETABLE_WRITE,
                                   MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC,
                                   MM_PAGETABLE_USER,
                                   RW | MM_PAGETABLE_TYPE(6),
                                   RW | MM_PAGETABLE_TYPE(7),
                                   RW | MM_PAGETABLE_CONTIG,
                                   RW | MM_PAGETABLE_SWAP,
                                   RW | 0x8000,
                                   RW | 0x4000000,
                                   RW | 0x80000000u};
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        begin((enum mm_pagetable_id)id);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
            REFUSED(MM_ERR_INVALID, map(&s, 0x1000, 0, PAGE, bad[i]));
        REFUSED(MM_ERR_INVALID,
                mm_pagetable_protect(&s.pt, BASE, PAGE, RO, MM_PAGETABLE_TYPES, NULL));
        REFUSED(MM_ERR_INVALID, mm_pagetable_protect(&s.pt, BASE, PAGE, RO, 0, NULL));
        REFUSED(MM_ERR_INVALID, mm_pagetable_protect(&s.pt, BASE, PAGE, RO, 1, NULL));
        REFUSED(MM_ERR_INVALID, mm_pagetable_protect(&s.pt, BASE, PAGE, RO, ~0u, NULL));
        REFUSED(MM_ERR_INVALID, mm_pagetable_protect(&s.pt, BASE, PAGE, MM_PAGETABLE_WRITE,
                                                     MM_PAGETABLE_PERMS, NULL));
        space_end(&s);
    }
}

static void w_xor_x(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
    s.config.flags |= MM_PAGETABLE_W_XOR_X;
    space_make(&s);
    assert_int_equal(map(&s, 0, 0, PAGE, RX), MM_OK);
    REFUSED(MM_ERR_INVALID, map(&s, PAGE, 0, PAGE, RW | MM_PAGETABLE_EXEC));
    REFUSED(MM_ERR_INVALID,
            mm_pagetable_protect(&s.pt, 0, PAGE, RW | MM_PAGETABLE_EXEC, MM_PAGETABLE_PERMS, NULL));
    space_end(&s);
}

static void nothing_there(void **state)
{
    struct mm_pagetable_entry entry;
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1);
    mm_va_t hole = BASE + 512 * MIB;
    REFUSED(MM_ERR_NOENT, unmap(hole, PAGE));
    REFUSED(MM_ERR_NOENT, protect(hole, 4 * MIB));
    REFUSED(MM_ERR_NOENT, collapse(hole, 4 * MIB));
    REFUSED(MM_ERR_NOENT, sweep(hole, 4 * MIB));
    REFUSED(MM_ERR_NOENT, harvest(hole, 4 * MIB));
    REFUSED(MM_ERR_NOENT, give_back(hole, 4 * MIB));
    REFUSED(MM_ERR_NOENT, mm_pagetable_split(&s.pt, hole, 0, NULL));
    REFUSED(MM_ERR_NOENT, mm_pagetable_mark(&s.pt, hole, MM_PAGETABLE_DIRTY));
    REFUSED(MM_ERR_NOENT, mm_pagetable_query(&s.pt, hole, &entry));
    assert_int_equal(entry.pa, MM_PA_NONE);
    assert_int_equal(entry.bytes, 2 * MIB);
    space_end(&s);
}

static void single_pages(void **state)
{
    struct mm_pagetable_entry entry;
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    mm_va_t no = (mm_va_t)1 << 38;
    REFUSED(MM_ERR_INVALID, mm_pagetable_swap(&s.pt, no, 0, NULL));
    REFUSED(MM_ERR_ALIGN, mm_pagetable_swap(&s.pt, BASE + 1, 0, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_swap(&s.pt, BASE, (uint64_t)1 << 52, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_split(&s.pt, no, 0, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_split(&s.pt, BASE, 3, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_mark(&s.pt, no, MM_PAGETABLE_DIRTY));
    REFUSED(MM_ERR_INVALID, mm_pagetable_mark(&s.pt, BASE, 0));
    REFUSED(MM_ERR_INVALID, mm_pagetable_mark(&s.pt, BASE, MM_PAGETABLE_WRITE));
    REFUSED(MM_ERR_INVALID, mm_pagetable_query(&s.pt, no, &entry));
    REFUSED(MM_ERR_INVALID, mm_pagetable_harvest(&s.pt, BASE, PAGE, 0, 0, NULL, NULL, NULL));
    REFUSED(MM_ERR_INVALID,
            mm_pagetable_harvest(&s.pt, BASE, PAGE, MM_PAGETABLE_WRITE, 0, NULL, NULL, NULL));
    REFUSED(MM_ERR_INVALID,
            mm_pagetable_harvest(&s.pt, BASE, PAGE, MM_PAGETABLE_DIRTY, 1, NULL, NULL, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_walk(&s.pt, BASE, PAGE, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_runs(&s.pt, BASE, PAGE, NULL, NULL));
    assert_int_equal(mm_pagetable_translate(&s.pt, no), MM_PA_NONE);
    assert_int_equal(mm_pagetable_size(&s.pt, 3), 0);
    assert_int_equal(mm_pagetable_size(&s.pt, 2), GIB);
    space_end(&s);
}

/* A root of 16 KiB lies at a multiple of its size (RISC-V privileged 8.2.10). */
static mm_pa_t misplaced;
static unsigned given_back;
static mm_pa_t alloc_misplaced(void *ctx, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    return misplaced;
}
static void count_back(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx;
    assert_true(table == misplaced && bytes == 4 * PAGE);
    given_back++;
}
static void a_misplaced_root(void **state)
{
    struct mm_pagetable_hooks hooks;
    struct mm_pagetable_config config;
    struct mm_pagetable pt;
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV39X4));
    hooks = s.hooks;
    hooks.alloc = alloc_misplaced;
    hooks.free = count_back;
    config = s.config;
    config.hooks = &hooks;
    for (unsigned i = 1; i < 4; i++) {
        misplaced = 16 * PAGE + i * PAGE;
        given_back = 0;
        assert_int_equal(mm_pagetable_init(&pt, &config), MM_ERR_NOMEM);
        assert_int_equal(given_back, 1);
    }
}

/* It goes where a translation goes, changes nothing, and wants nothing of an address. */
static void announced_pages(void **state)
{
    const mm_va_t va = BASE + 16 * GIB;
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, va, 0x1000, PAGE, RW), MM_OK);
    uint64_t tables = s.ram->in_use;
#ifdef MM_PAGETABLE_WINDOWS
    unsigned long opened = windows_opened;
    mm_pagetable_prefetch(&s.pt, va);
    assert_int_equal(windows_opened - opened, 3);
    assert_int_equal(windows_open, 0);
#endif
    mm_pagetable_prefetch(&s.pt, va + 4095);
    mm_pagetable_prefetch(&s.pt, va + 3 * GIB);
    mm_pagetable_prefetch(&s.pt, (mm_va_t)1 << 38);
    mm_pagetable_prefetch(&s.pt, ~(mm_va_t)0);
    assert_int_equal(s.ram->in_use, tables);
    assert_int_equal(mm_pagetable_translate(&s.pt, va + 5), 0x1005);
    space_end(&s);
}

static void batches_and_cursors(void **state)
{
    static struct mm_pagetable_batch batch;
    static struct space two;
    struct mm_pagetable_cursor c;
    struct mm_pagetable_entry entry;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    space_begin(&two, s.ram, format);
    space_make(&two);
    mm_pagetable_batch_init(&batch, &two.pt, NULL, 0);
    REFUSED(MM_ERR_INVALID, mm_pagetable_unmap(&s.pt, BASE, PAGE, &batch));
    REFUSED(MM_ERR_INVALID, mm_pagetable_give_back(&s.pt, BASE, PAGE, &batch));
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, BASE + 4 * MIB - PAGE, 2 * PAGE, NULL),
                     MM_OK);
    REFUSED(MM_ERR_EXISTS, mm_pagetable_cursor_map(&c, 0, RW));
    REFUSED(MM_ERR_BUSY, mm_pagetable_cursor_unmap(&c));
    REFUSED(MM_ERR_INVALID, mm_pagetable_cursor_seek(&c, BASE));
    REFUSED(MM_ERR_INVALID, mm_pagetable_cursor_seek(&c, BASE + 4 * MIB + PAGE));
    REFUSED(MM_ERR_ALIGN, mm_pagetable_cursor_seek(&c, BASE + 4 * MIB + 8));
    assert_int_equal(mm_pagetable_cursor_seek(&c, BASE + 4 * MIB), MM_OK);
    REFUSED(MM_ERR_ALIGN, mm_pagetable_cursor_map(&c, 8, RW));
    REFUSED(MM_ERR_INVALID, mm_pagetable_cursor_map(&c, (mm_pa_t)1 << 40, RW));
    REFUSED(MM_ERR_INVALID, mm_pagetable_cursor_map(&c, 0, 0));
    REFUSED(MM_ERR_NOENT, mm_pagetable_cursor_unmap(&c));
    REFUSED(MM_ERR_LIMIT, mm_pagetable_cursor_map(&c, 0, RW));
    REFUSED(MM_ERR_LIMIT, mm_pagetable_cursor_unmap(&c));
    REFUSED(MM_ERR_LIMIT, mm_pagetable_cursor_next(&c, &entry));
    mm_pagetable_cursor_end(&c);
    assert_int_equal(mm_pagetable_destroy(&two.pt, false), MM_OK);
    space_end(&s);
}

static void configurations(void **state)
{
    struct mm_pagetable_config good, bad;
    struct mm_pagetable_hooks hooks;
    struct mm_pagetable pt;
    static MM_PAGETABLE_LOCK_T lock;
    (void)state;
    begin(MM_PAGETABLE_ID_EPT);
    good = s.config;
#define BAD(change)                       \
    (bad = good, hooks = s.hooks, change, \
     assert_int_equal(mm_pagetable_init(&pt, &bad), MM_ERR_INVALID))
    BAD(bad.format = NULL);
    BAD(bad.hooks = NULL);
    BAD((hooks.alloc = NULL, bad.hooks = &hooks));
    BAD((hooks.free = NULL, bad.hooks = &hooks));
    BAD(bad.flags |= MM_PAGETABLE_SVPBMT); /* not of this format */
    BAD(bad.flags |= 0x80000000u);
    BAD(bad.leaf_levels = 6);
    BAD(bad.leaf_levels = 15);
    BAD(bad.pa_bits = 53);
    BAD(bad.pa_bits = 12);
    BAD(bad.lock_count = 1);
    BAD((bad.locks = &lock, bad.lock_count = MM_PAGETABLE_LOCKS_MAX + 1));
    assert_int_equal(mm_pagetable_config_init(&bad, NULL, &hooks, 0), MM_ERR_INVALID);
    assert_int_equal(mm_pagetable_config_init(&bad, format, NULL, 0), MM_ERR_INVALID);
    assert_null(mm_pagetable_format_of(MM_PAGETABLE_ID_COUNT));
    space_end(&s);
}

static void sharing(void **state)
{
    static struct space to, other;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    space_begin(&to, s.ram, format);
    to.config.pa_bits = 40;
    space_make(&to);
    space_begin(&other, s.ram, mm_pagetable_format_of(MM_PAGETABLE_ID_SV48));
    space_make(&other);
    uint64_t top = 512 * GIB;
    REFUSED(MM_ERR_INVALID, mm_pagetable_share_cow(&s.pt, &s.pt, BASE, PAGE, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_share_cow(&other.pt, &s.pt, BASE, PAGE, NULL));
    REFUSED(MM_ERR_NOENT, mm_pagetable_share_cow(&to.pt, &s.pt, 0, PAGE, NULL));
    REFUSED(MM_ERR_ALIGN, mm_pagetable_share_cow(&to.pt, &s.pt, BASE + 1, PAGE, NULL));
    assert_int_equal(map(&to, BASE + MIB, 0, PAGE, RW), MM_OK);
    REFUSED(MM_ERR_EXISTS, mm_pagetable_share_cow(&to.pt, &s.pt, BASE, 4 * MIB, NULL));
    REFUSED(MM_ERR_INVALID, mm_pagetable_lend(&other.pt, &s.pt, top, top));
    REFUSED(MM_ERR_ALIGN, mm_pagetable_lend(&to.pt, &s.pt, top + PAGE, top));
    REFUSED(MM_ERR_ALIGN, mm_pagetable_lend(&to.pt, &s.pt, top, top - PAGE));
    REFUSED(MM_ERR_EXISTS, mm_pagetable_lend(&to.pt, &s.pt, 0, top));
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, top, top), MM_OK);
    /* what is borrowed is not the borrower's to change */
    REFUSED(MM_ERR_PERM, map(&to, top + PAGE, 0, PAGE, RW));
    REFUSED(MM_ERR_PERM, mm_pagetable_unmap(&to.pt, top, PAGE, NULL));
    REFUSED(MM_ERR_PERM, mm_pagetable_swap(&to.pt, top, 1, NULL));
    REFUSED(MM_ERR_BUSY, mm_pagetable_destroy(&s.pt, false));
    assert_int_equal(mm_pagetable_destroy(&to.pt, false), MM_OK);
    assert_int_equal(mm_pagetable_destroy(&other.pt, false), MM_OK);
    space_end(&s);
}

static void a_leaf_in_the_root_is_not_lent(void **state)
{
    static struct space to;
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    space_begin(&to, s.ram, format);
    to.config.pa_bits = 40;
    space_make(&to);
    assert_int_equal(map(&s, 2 * GIB, 0, GIB, RW), MM_OK);
    REFUSED(MM_ERR_BUSY, mm_pagetable_lend(&to.pt, &s.pt, 2 * GIB, 2 * GIB));
    assert_int_equal(mm_pagetable_destroy(&to.pt, false), MM_OK);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges),
        cmocka_unit_test(frames_of_a_mapping),
        cmocka_unit_test(what_is_there_already),
        cmocka_unit_test(how_to_map),
        cmocka_unit_test(attributes),
        cmocka_unit_test(w_xor_x),
        cmocka_unit_test(nothing_there),
        cmocka_unit_test(single_pages),
        cmocka_unit_test(a_misplaced_root),
        cmocka_unit_test(announced_pages),
        cmocka_unit_test(batches_and_cursors),
        cmocka_unit_test(configurations),
        cmocka_unit_test(sharing),
        cmocka_unit_test(a_leaf_in_the_root_is_not_lent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
