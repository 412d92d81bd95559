/* Every state of a small table, every call on it, every failing allocation: eight pages under a
 * root of two entries and tables of four. A state is built leaf by leaf, so that all of them are
 * reached: each half is one large leaf, or four pages each of which is there or not. */
#include "pagetable_model.h"

static struct world w;
static const uint32_t perms[2] = {RW, RO};
#define HALVES      83u /* 3^4 ways for four pages, and two large leaves */
#define ZERO_STATES 17u
#define FRAME       0x40000000u

/* Puts half `half` into its state; the model too. Frames follow each other over the whole window,
 * so that pages can be collapsed. */
static void build_half(unsigned half, unsigned state)
{
    uint64_t p = 4 * half;
    if (state >= 81) {
        assert_int_equal(mm_pagetable_map(&w.s.pt, page_va(&w, p), FRAME + p * PAGE, 4 * PAGE,
                                          perms[state - 81], 0, NULL),
                         MM_OK);
        model_map(&w, p, 4, FRAME + p * PAGE, perms[state - 81], 3, false);
        return;
    }
    for (unsigned i = 0; i < 4; i++, p++, state /= 3) {
        if (state % 3 == 0)
            continue;
        assert_int_equal(mm_pagetable_map(&w.s.pt, page_va(&w, p), FRAME + p * PAGE, PAGE,
                                          perms[state % 3 - 1], 0, NULL),
                         MM_OK);
        model_map(&w, p, 1, FRAME + p * PAGE, perms[state % 3 - 1], 1, false);
    }
}

static void build(enum mm_pagetable_id id, unsigned low, unsigned high, uint32_t policy)
{
    world_begin(&w, &the_ram, id, 2);
    w.walker.root_bits = 1;
    w.walker.levels = 2;
    w.format.levels = 2;
    w.format.va_bits = (uint32_t)walk_va_bits(&w.walker);
    w.s.config.flags |= policy;
    world_make(&w);
    w.count = 8;
    build_half(0, low);
    build_half(1, high);
}

enum { UNMAP, READ_ONLY, WRITABLE, MAP, MAP_OVER, MAP_OVER_ODD, COLLAPSE, SWAP, SPLIT, CALLS };

static enum mm_status call(unsigned which, uint64_t p, uint64_t n)
{
    struct mm_pagetable *pt = &w.s.pt;
    mm_va_t va = page_va(&w, p);
    switch (which) {
    case UNMAP:
        return mm_pagetable_unmap(pt, va, n * PAGE, NULL);
    case READ_ONLY:
        return mm_pagetable_protect(pt, va, n * PAGE, RO, MM_PAGETABLE_PERMS, NULL);
    case WRITABLE:
        return mm_pagetable_protect(pt, va, n * PAGE, RW, MM_PAGETABLE_PERMS, NULL);
    case MAP:
        return mm_pagetable_map(pt, va, FRAME + p * PAGE, n * PAGE, RW, 0, NULL);
    case MAP_OVER:
        return mm_pagetable_map(pt, va, FRAME + p * PAGE, n * PAGE, RO, 1, NULL);
    case MAP_OVER_ODD:
        return mm_pagetable_map(pt, va, PAGE, n * PAGE, RX, 1, NULL);
    case COLLAPSE:
        return mm_pagetable_collapse(pt, va, n * PAGE, NULL);
    case SWAP:
        return mm_pagetable_swap(pt, va, 5, NULL);
    default:
        return mm_pagetable_split(pt, va, 0, NULL);
    }
}

static void cut_both(uint64_t p, uint64_t n)
{
    model_cut(&w, p);
    model_cut(&w, p + n);
}

static enum mm_status model_protect(uint64_t p, uint64_t n, uint32_t attr)
{
    if (!model_any(&w, p, n, true))
        return MM_ERR_NOENT;
    cut_both(p, n);
    for (uint64_t i = p; i < p + n; i++)
        if (w.cell[i].kind == CELL_MAPPED)
            w.cell[i].attr = (w.cell[i].attr & ~MM_PAGETABLE_PERMS) | attr |
                             ((attr & MM_PAGETABLE_WRITE) != 0 ? MM_PAGETABLE_DIRTY : 0);
    return MM_OK;
}

static enum mm_status model_collapse(uint64_t p, uint64_t n)
{
    enum mm_status status = MM_ERR_NOENT;
    for (uint64_t h = 0; h < 8; h += 4) {
        bool fits = h >= p && h + 4 <= p + n;
        uint32_t marks = 0;
        for (uint64_t i = h; i < h + 4; i++) {
            const uint32_t ad = MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY;
            fits = fits && w.cell[i].kind == CELL_MAPPED && w.cell[i].level == 0 &&
                   w.cell[i].pa == FRAME + i * PAGE &&
                   ((w.cell[i].attr ^ w.cell[h].attr) & ~ad) == 0;
            marks |= w.cell[i].attr & ad;
        }
        for (uint64_t i = h; fits && i < h + 4; i++) {
            w.cell[i].level = 1;
            w.cell[i].attr |= marks;
            status = MM_OK;
        }
    }
    return status;
}

/* The model's answer to the same call. */
static enum mm_status model_call(unsigned which, uint64_t p, uint64_t n)
{
    switch (which) {
    case UNMAP:
        if (!model_any(&w, p, n, false))
            return MM_ERR_NOENT;
        cut_both(p, n);
        memset(&w.cell[p], 0, n * sizeof w.cell[0]);
        return MM_OK;
    case READ_ONLY:
        return model_protect(p, n, RO);
    case WRITABLE:
        return model_protect(p, n, RW);
    case MAP:
        if (model_any(&w, p, n, false))
            return MM_ERR_EXISTS;
        model_map(&w, p, n, FRAME + p * PAGE, RW, 3, false);
        return MM_OK;
    case MAP_OVER:
        cut_both(p, n);
        model_map(&w, p, n, FRAME + p * PAGE, RO, 3, false);
        return MM_OK;
    case MAP_OVER_ODD:
        cut_both(p, n);
        model_map(&w, p, n, PAGE, RX, 3, false);
        return MM_OK;
    case COLLAPSE:
        return model_collapse(p, n);
    case SWAP:
        cut_both(p, 1);
        w.cell[p] = (struct cell){CELL_SWAP, 0, false, 5, 0};
        return MM_OK;
    default:
        if (w.cell[p].kind != CELL_MAPPED)
            return MM_ERR_NOENT;
        for (uint64_t i = p & ~3u; w.cell[p].level != 0 && i < (p & ~3u) + 4; i++)
            if (i != p)
                w.cell[i].level = 0;
        w.cell[p].level = 0;
        return MM_OK;
    }
}

static void compare_small(void)
{
    for (unsigned p = 0; p < 8; p++)
        compare_page(&w, p, p * 4096 * 5);
    assert_int_equal(mm_pagetable_check(&w.s.pt, NULL, 0, NULL), MM_OK);
}

/* One call on one state: it fails at each allocation and changes nothing, then does what it
 * should. */
static void try(unsigned which, uint64_t p, uint64_t n)
{
    enum mm_status status;
    for (uint64_t fail = 1;; fail++) {
        size_t in_use = w.s.ram->in_use;
        w.s.ram->fail = (struct mm_test_fail){0, fail};
        status = call(which, p, n);
        if (w.s.ram->fail.calls < fail)
            break;
        assert_int_equal(status, MM_ERR_NOMEM);
        assert_int_equal(w.s.ram->in_use, in_use);
        compare_small();
    }
    w.s.ram->fail = (struct mm_test_fail){0, 0};
    assert_int_equal(status, model_call(which, p, n));
    compare_small();
}

static void every_state(enum mm_pagetable_id id, uint32_t policy)
{
    ram_make();
    for (unsigned low = 0; low < HALVES; low++)
        for (unsigned high = 0; high < ZERO_STATES; high++)
            for (unsigned which = 0; which < CALLS; which++)
                for (uint64_t p = 0; p < 8; p++)
                    for (uint64_t n = 1; n <= (which >= SWAP ? 1 : 8 - p); n++) {
                        /* a range over the hole in the middle does not exist */
                        if (id == MM_PAGETABLE_ID_X86_64 && p < 4 && p + n > 4)
                            continue;
                        if ((low * 31 + high * 17 + which * 7 + p * 3 + n) %
                                (MM_TEST_SANITIZED ? 9 : 1) !=
                            0)
                            continue;
                        build(id, low,
                              high == 16 ? 81
                                         : (high & 1) + (high >> 1 & 1) * 3 + (high >> 2 & 1) * 9 +
                                               (high >> 3) * 27,
                              policy);
                        try(which, p, n);
                        assert_int_equal(mm_pagetable_destroy(&w.s.pt, false), MM_OK);
                        assert_int_equal(w.s.ram->in_use, 0);
                        assert_int_equal(w.s.ram->errors, 0);
                    }
}

static void x86_64(void **state)
{
    (void)state;
    every_state(MM_PAGETABLE_ID_X86_64, 0);
}

static void sv39x4(void **state)
{
    (void)state;
    every_state(MM_PAGETABLE_ID_SV39X4, MM_PAGETABLE_HW_AD);
}

static void aarch64(void **state)
{
    (void)state;
    every_state(MM_PAGETABLE_ID_AARCH64_S2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(x86_64),
        cmocka_unit_test(sv39x4),
        cmocka_unit_test(aarch64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
