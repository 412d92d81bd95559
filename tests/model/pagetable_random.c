/* Random calls of mm_pagetable.h for every format, with its own index bits and with fewer, so that
 * all levels are reached, against a plain map and a walker of its own; the processor sets accessed
 * and dirty bits in between; table allocations fail at random, and then nothing has changed. */
#include "pagetable_model.h"
#ifdef TLB
#include "pagetable_tlb.h"
#endif

#ifndef LESS
#define LESS 1u /* one of so many operations, where they take long */
#endif

static struct world w;
static struct mm_test_rng rng;
static struct cell before[CELLS];
static struct space to;                  /* what is shared with */
static struct mm_pagetable_batch *batch; /* of several calls; NULL: each flushes */

static uint64_t below(uint64_t n)
{
    return mm_test_below(&rng, n);
}

static uint32_t random_attr(const struct world *x)
{
    static const uint32_t perms[] = {1, 3, 5, 7, 4, 1, 3, 2, 6, 0};
    uint32_t attr = perms[below(below(8) == 0 ? 10 : 4)];

    if (below(2) == 0 &&
        (x->walker.kind == WALK_X86 || x->walker.kind == WALK_RISCV || x->walker.kind == WALK_ARM1))
        attr |= MM_PAGETABLE_USER;
    if (below(3) == 0)
        attr |= MM_PAGETABLE_TYPE(below(7));
    if (below(3) == 0)
        attr |= (uint32_t)below(8) << 11;
    if (below(8) == 0)
        attr |= MM_PAGETABLE_GLOBAL;
    if (below(8) == 0)
        attr |= MM_PAGETABLE_EXEC_USER;
    if (below(8) == 0)
        attr |= MM_PAGETABLE_KEY(below(16));
    if (below(8) == 0)
        attr |= (uint32_t)below(4) << 24;
    if (below(8) == 0)
        attr |= MM_PAGETABLE_IGNORE_PAT;
    return attr;
}

/* A random piece of the window: often aligned, often small. */
static void random_range(uint64_t *p, uint64_t *n)
{
    uint64_t size = level_pages(&w, (unsigned)below(3));
    *p = below(w.count);
    if (below(2) == 0)
        *p -= absolute(&w, *p) % size < *p ? absolute(&w, *p) % size : *p;
    *n = below(3) == 0 ? size * (1 + below(3)) : 1 + below(below(2) == 0 ? 4 : w.count);
    if (*n > w.count - *p)
        *n = w.count - *p;
}

/* The first of n frames, and room to move it by less than `align`. A processor's caches tell frames
 * apart by their numbers alone: there each mapping has frames of its own. */
static uint64_t random_frame(uint64_t n, uint64_t align, uint64_t most)
{
#ifdef TLB
    static uint64_t next;
    uint64_t first = (next + align - 1) & ~(align - 1);
    (void)most;
    if (first + n + align > (uint64_t)1 << (w.walker.max_pa - 13))
        first = 0;
    next = first + n + align;
    return first;
#else
    (void)n;
    (void)align;
    return below(most);
#endif
}

/* Does the range lie in one piece of the address space? */
static bool in_one_half(uint64_t p, uint64_t n)
{
    return page_va(&w, p) + (n - 1) * PAGE == page_va(&w, p + n - 1);
}

static void prepare_failure(void)
{
    w.s.ram->fail = (struct mm_test_fail){0, below(3) == 0 ? 1 + below(5) : 0};
}

/* An error came back: which is right, and did nothing change? */
static bool refused(enum mm_status status, enum mm_status expected)
{
    bool failed = w.s.ram->fail.fail_at != 0 && w.s.ram->fail.calls >= w.s.ram->fail.fail_at;
    w.s.ram->fail = (struct mm_test_fail){0, 0};
    if (expected == MM_OK && failed) {
        assert_int_equal(status, MM_ERR_NOMEM);
        return true;
    }
    assert_int_equal(status, expected);
    return status != MM_OK;
}

static void do_map(uint64_t p, uint64_t n)
{
    uint32_t attr = random_attr(&w);
    bool replace = below(2) == 0;
    unsigned max = below(4) == 0 ? (unsigned)below((unsigned)w.walker.levels) : 7, levels, l;
    unsigned how =
        (replace ? MM_PAGETABLE_REPLACE : 0) | (max != 7 ? MM_PAGETABLE_LEAF_MAX(max) : 0);
    uint64_t align = level_pages(&w, (unsigned)below(4));
    uint64_t frame = random_frame(n, align, (uint64_t)1 << (w.walker.max_pa - 13));
    enum mm_status expected = MM_OK, status;

    frame = frame - frame % align + absolute(&w, p) % align;
    if (!attr_legal(&w, attr) || !in_one_half(p, n))
        expected = MM_ERR_INVALID;
    else if (!replace && model_any(&w, p, n, false))
        expected = MM_ERR_EXISTS;
    status = mm_pagetable_map(&w.s.pt, page_va(&w, p), frame * PAGE, n * PAGE, attr, how, batch);
    if (refused(status, expected))
        return;
    levels = w.s.config.leaf_levels;
    for (l = 0; l < 8; l++)
        if (l > max)
            levels &= ~(1u << l);
    if (replace) {
        model_cut(&w, p);
        model_cut(&w, p + n);
    }
    model_map(&w, p, n, frame * PAGE, attr, levels,
              (w.s.config.flags & MM_PAGETABLE_CONTIGUOUS) != 0);
}

static void do_map_frames(uint64_t p, uint64_t n)
{
    mm_pa_t frames[64];
    uint32_t attr = random_attr(&w);
    bool replace = below(2) == 0;
    enum mm_status expected = MM_OK, status;

    n = n > 64 ? 64 : n;
    for (uint64_t i = 0; i < n; i++)
        frames[i] = random_frame(1, 1, 1000) * PAGE;
    if (!attr_legal(&w, attr) || !in_one_half(p, n))
        expected = MM_ERR_INVALID;
    else if (!replace && model_any(&w, p, n, false))
        expected = MM_ERR_EXISTS;
    status = mm_pagetable_map_frames(&w.s.pt, page_va(&w, p), frames, n, attr, replace, batch);
    if (refused(status, expected))
        return;
    if (replace) {
        model_cut(&w, p);
        model_cut(&w, p + n);
    }
    for (uint64_t i = 0; i < n; i++)
        model_map(&w, p + i, 1, frames[i], attr, 1, false);
}

static void do_unmap(uint64_t p, uint64_t n)
{
    enum mm_status expected = !in_one_half(p, n)           ? MM_ERR_INVALID
                              : model_any(&w, p, n, false) ? MM_OK
                                                           : MM_ERR_NOENT;
    enum mm_status status = mm_pagetable_unmap(&w.s.pt, page_va(&w, p), n * PAGE, batch);

    if (refused(status, expected))
        return;
    model_cut(&w, p);
    model_cut(&w, p + n);
    memset(&w.cell[p], 0, n * sizeof w.cell[0]);
}

static void do_protect(uint64_t p, uint64_t n)
{
    static const uint32_t groups[] = {MM_PAGETABLE_PERMS, MM_PAGETABLE_TYPES, MM_PAGETABLE_SOFTS,
                                      MM_PAGETABLE_KEYS};
    uint32_t mask = groups[below(2) == 0 ? 0 : below(4)], attr, check;
    enum mm_status expected = MM_OK, status;

    if (below(4) == 0)
        mask |= groups[below(4)];
    attr = random_attr(&w) & mask;
    check = (mask & MM_PAGETABLE_PERMS) != 0 ? attr : attr | RX;
    if (!attr_legal(&w, check) || !in_one_half(p, n))
        expected = MM_ERR_INVALID;
    else if (!model_any(&w, p, n, true))
        expected = MM_ERR_NOENT;
    status = mm_pagetable_protect(&w.s.pt, page_va(&w, p), n * PAGE, attr, mask, batch);
    if (refused(status, expected))
        return;
    model_cut(&w, p);
    model_cut(&w, p + n);
    for (uint64_t i = p; i < p + n; i++) {
        struct cell *c = &w.cell[i];
        if (c->kind != CELL_MAPPED)
            continue;
        c->attr = (c->attr & ~mask) | (attr_back(&w, attr) & mask);
        if ((attr & MM_PAGETABLE_WRITE) != 0 && (w.s.config.flags & MM_PAGETABLE_PRESET_AD) != 0)
            c->attr |= MM_PAGETABLE_DIRTY;
    }
}

static void do_swap(uint64_t p)
{
    uint64_t value = mm_test_rand(&rng) >> (w.walker.entry_bytes == 4 ? 44 : 12);
    enum mm_status status = mm_pagetable_swap(&w.s.pt, page_va(&w, p), value, batch);

    if (refused(status, MM_OK))
        return;
    model_cut(&w, p);
    model_cut(&w, p + 1);
    w.cell[p] = (struct cell){CELL_SWAP, 0, false, value, 0};
}

static void do_split(uint64_t p)
{
    unsigned level = (unsigned)below((unsigned)w.walker.levels);
    struct cell *c = &w.cell[p];
    uint64_t size, start, q;
    enum mm_status expected = c->kind == CELL_MAPPED ? MM_OK : MM_ERR_NOENT;
    enum mm_status status = mm_pagetable_split(&w.s.pt, page_va(&w, p) + below(PAGE), level, batch);

    if (refused(status, expected))
        return;
    for (unsigned l = c->level; l > level; l--) { /* the sub-leaf around p splits once more */
        size = level_pages(&w, l);
        start = p - absolute(&w, p) % size;
        for (q = start; q < start + size; q++)
            w.cell[q].level = l - 1;
    }
}

/* Do the pages of a leaf of level l from p on make one? */
static bool fit_together(uint64_t p, unsigned l)
{
    const uint32_t marks = MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY;
    uint64_t size = level_pages(&w, l);
    if (w.cell[p].pa / PAGE % size != 0)
        return false;
    for (uint64_t i = p; i < p + size; i++)
        if (w.cell[i].kind != CELL_MAPPED || w.cell[i].level != l - 1 ||
            w.cell[i].pa != w.cell[p].pa + (i - p) * PAGE ||
            ((w.cell[i].attr ^ w.cell[p].attr) & ~marks) != 0)
            return false;
    return true;
}

static void do_collapse(uint64_t p, uint64_t n)
{
    const uint32_t marks = MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY;
    bool any = false;
    enum mm_status status;

    if (!in_one_half(p, n)) {
        refused(mm_pagetable_collapse(&w.s.pt, page_va(&w, p), n * PAGE, batch), MM_ERR_INVALID);
        return;
    }
    memcpy(before, w.cell, sizeof before);
    for (unsigned l = 1; l < (unsigned)w.walker.levels; l++)
        for (uint64_t q = p; (w.s.config.leaf_levels >> l & 1) != 0 && q < p + n; q++) {
            uint64_t size = level_pages(&w, l), i;
            uint32_t seen = 0;
            if (absolute(&w, q) % size != 0 || q + size > p + n || !fit_together(q, l))
                continue;
            any = true;
            for (i = q; i < q + size; i++)
                seen |= w.cell[i].attr & marks;
            for (i = q; i < q + size; i++) {
                w.cell[i].attr |= seen;
                w.cell[i].level = l;
                w.cell[i].group = false;
            }
        }
    status = mm_pagetable_collapse(&w.s.pt, page_va(&w, p), n * PAGE, batch);
    refused(status, any ? MM_OK : MM_ERR_NOENT);
}

static void count_leaf(void *ctx, const struct mm_pagetable_entry *entry)
{
    (void)entry;
    ++*(uint64_t *)ctx;
}

static void do_harvest(uint64_t p, uint64_t n)
{
    uint32_t which = (uint32_t)(1 + below(3)) << 6, clear = (uint32_t)below(4) << 6;
    uint64_t found = 0, expected = 0, i, size;
    enum mm_status status;

    if (!in_one_half(p, n))
        return;
    for (i = p; i < p + n; i += size) { /* whole leaves, also those that reach over the ends */
        struct cell *c = &w.cell[i];
        uint64_t start, q;
        size = c->kind == CELL_MAPPED ? level_pages(&w, c->level) : 1;
        start = i - absolute(&w, i) % size;
        if (c->kind == CELL_MAPPED && c->group) {
            uint32_t marks = 0;
            size = 16;
            start = i - absolute(&w, i) % size;
            for (q = start; q < start + size; q++)
                marks |= w.cell[q].attr;
            for (q = start; q < start + size && (marks & which) != 0; q++) {
                expected += q >= i && q < p + n;
                w.cell[q].attr &= ~clear;
            }
        } else if (c->kind == CELL_MAPPED && (c->attr & which) != 0) {
            expected++;
            for (q = start; q < start + size; q++)
                w.cell[q].attr &= ~clear;
        }
        size -= i - start;
    }
    status = mm_pagetable_harvest(&w.s.pt, page_va(&w, p), n * PAGE, which, clear, count_leaf,
                                  &found, batch);
    refused(status, expected != 0 ? MM_OK : MM_ERR_NOENT);
    assert_int_equal(found, expected);
}

/* Sets bits in the leaf at p in the model. */
static void model_mark(uint64_t p, uint32_t set)
{
    uint64_t size = level_pages(&w, w.cell[p].level), start = p - absolute(&w, p) % size;
    for (uint64_t q = start; q < start + size; q++)
        w.cell[q].attr |= set;
}

static void do_mark(uint64_t p)
{
    uint32_t set = (uint32_t)(1 + below(3)) << 6;
    enum mm_status status = mm_pagetable_mark(&w.s.pt, page_va(&w, p) + below(PAGE), set);

    if (!refused(status, w.cell[p].kind == CELL_MAPPED ? MM_OK : MM_ERR_NOENT))
        for (uint64_t q = p - (w.cell[p].group ? absolute(&w, p) & 15 : 0), k = 0;
             k < (w.cell[p].group ? 16u : 1u); k++)
            model_mark(q + k, set);
}

/* The processor reads or writes a page. */
static void do_touch(uint64_t p)
{
    struct walk_access a = {
        .write = below(2) == 0, .user = (w.cell[p].attr & MM_PAGETABLE_USER) != 0, .wp = true};
    struct walked walked = walk(&w.walker, page_va(&w, p), a);

    if (walked.result != WALK_OK || !w.walker.sets_ad)
        return;
    walk_touch(&w.walker, &walked, a.write);
    model_mark(p, MM_PAGETABLE_ACCESSED | (a.write ? MM_PAGETABLE_DIRTY : 0));
}

/* A step at a page, with or without a way of its own to it. */
static enum mm_status cursor_map(struct mm_pagetable_cursor *cursor, uint64_t p, mm_pa_t pa,
                                 uint32_t attr)
{
    if (below(2) == 0)
        return mm_pagetable_cursor_map_at(cursor, page_va(&w, p), pa, attr);
    assert_int_equal(mm_pagetable_cursor_seek(cursor, page_va(&w, p)), MM_OK);
    return mm_pagetable_cursor_map(cursor, pa, attr);
}
static enum mm_status cursor_unmap(struct mm_pagetable_cursor *cursor, uint64_t p)
{
    if (below(2) == 0)
        return mm_pagetable_cursor_unmap_at(cursor, page_va(&w, p));
    assert_int_equal(mm_pagetable_cursor_seek(cursor, page_va(&w, p)), MM_OK);
    return mm_pagetable_cursor_unmap(cursor);
}

/* Single steps with a cursor: a run, or here and there. */
static void do_cursor(uint64_t p, uint64_t n)
{
    struct mm_pagetable_cursor cursor;
    struct mm_pagetable_entry entry;
    uint32_t attr = random_attr(&w);
    enum mm_status status, expected;
    const bool run = below(2) == 0;

    n = run && n > 64 ? 64 : n;
    if (!in_one_half(p, n))
        return;
    w.s.ram->fail = (struct mm_test_fail){0, 0};
    assert_int_equal(mm_pagetable_cursor_begin(&cursor, &w.s.pt, page_va(&w, p), n * PAGE, batch),
                     MM_OK);
    for (uint64_t step = 0; step < 64 && step < n; step++) {
        uint64_t i = run ? p + step : p + below(n);
        struct cell *c = &w.cell[i];
        uint64_t kind = below(4), frame = random_frame(1, 1, 1000);
        if (kind == 0) {
            expected = !attr_legal(&w, attr)  ? MM_ERR_INVALID
                       : c->kind != CELL_NONE ? MM_ERR_EXISTS
                                              : MM_OK;
            assert_int_equal(cursor_map(&cursor, i, frame * PAGE, attr), expected);
            if (expected == MM_OK)
                model_map(&w, i, 1, frame * PAGE, attr, 1, false);
        } else if (kind == 1) {
            expected = c->kind == CELL_NONE        ? MM_ERR_NOENT
                       : c->level != 0 || c->group ? MM_ERR_BUSY
                                                   : MM_OK;
            assert_int_equal(cursor_unmap(&cursor, i), expected);
            if (expected == MM_OK)
                memset(c, 0, sizeof *c);
            if (expected == MM_OK && attr_legal(&w, attr) && below(2) == 0) { /* and back again */
                assert_int_equal(cursor_map(&cursor, i, frame * PAGE, attr), MM_OK);
                model_map(&w, i, 1, frame * PAGE, attr, 1, false);
            }
        } else {
            assert_int_equal(mm_pagetable_cursor_seek(&cursor, page_va(&w, i)), MM_OK);
            status = mm_pagetable_cursor_next(&cursor, &entry);
            assert_int_equal(status, c->kind == CELL_NONE ? MM_ERR_NOENT : MM_OK);
            if (c->kind == CELL_MAPPED)
                assert_int_equal(entry.pa + (page_va(&w, i) - entry.va), c->pa);
        }
    }
    mm_pagetable_cursor_end(&cursor);
}

/* Which page of the list a call for many refuses, and why; those before are done in the model. */
static size_t model_bulk(const uint64_t *page, const mm_pa_t *pa, size_t count, uint32_t attr,
                         enum mm_status *status)
{
    for (size_t i = 0; i < count; i++) {
        struct cell *c = &w.cell[page[i]];
        if (pa != NULL && (!attr_legal(&w, attr) || c->kind != CELL_NONE)) {
            *status = attr_legal(&w, attr) ? MM_ERR_EXISTS : MM_ERR_INVALID;
            return i;
        }
        if (pa != NULL) {
            model_map(&w, page[i], 1, pa[i], attr, 1, false);
        } else if (c->kind != CELL_NONE && (c->level != 0 || c->group)) {
            *status = MM_ERR_BUSY;
            return i;
        } else {
            memset(c, 0, sizeof *c);
        }
    }
    *status = MM_OK;
    return count;
}

/* Pages here and there, one or the other of them twice, in a call for all. */
static void do_bulk(uint64_t p, uint64_t n)
{
    struct mm_pagetable_cursor cursor;
    uint64_t page[64];
    mm_va_t va[64];
    mm_pa_t pa[64];
    size_t count = below(64), expected;
    uint32_t attr = random_attr(&w);
    enum mm_status right, status;
    const bool maps = below(2) == 0;

    if (!in_one_half(p, n))
        return;
    for (size_t i = 0; i < count; i++) {
        page[i] = p + below(n);
        for (unsigned k = 0; k < 8 && (w.cell[page[i]].kind == CELL_NONE) != maps; k++)
            page[i] = p + below(n);
        va[i] = page_va(&w, page[i]);
        pa[i] = random_frame(1, 1, 1000) * PAGE;
    }
    w.s.ram->fail = (struct mm_test_fail){0, 0};
    assert_int_equal(mm_pagetable_cursor_begin(&cursor, &w.s.pt, page_va(&w, p), n * PAGE, batch),
                     MM_OK);
    expected = model_bulk(page, maps ? pa : NULL, count, attr, &right);
    assert_int_equal(maps ? mm_pagetable_cursor_map_bulk(&cursor, va, pa, count, attr, &status)
                          : mm_pagetable_cursor_unmap_bulk(&cursor, va, count, &status),
                     expected);
    assert_int_equal(status, right);
    mm_pagetable_cursor_end(&cursor);
}

/* Is this page in `to` what it is in the first table? */
static void compare_shared(uint64_t p, bool inside)
{
    const struct cell *c = &w.cell[p];
    struct mm_pagetable_entry entry;
    enum mm_status status = mm_pagetable_query(&to.pt, page_va(&w, p), &entry);

    assert_int_equal(status, inside && c->kind != CELL_NONE ? MM_OK : MM_ERR_NOENT);
    if (status != MM_OK)
        return;
    assert_int_equal(entry.attr, c->kind == CELL_SWAP
                                     ? MM_PAGETABLE_SWAP
                                     : c->attr | (c->group ? MM_PAGETABLE_CONTIG : 0));
    assert_int_equal(entry.pa + (page_va(&w, p) - entry.va), c->pa);
    assert_int_equal(entry.level, c->level);
}

/* A copy for copy-on-write, into an empty table, which is thrown away again. */
static void do_share(uint64_t p, uint64_t n)
{
    uint64_t mapped = 0, in_use, i;
    enum mm_status expected = !in_one_half(p, n)           ? MM_ERR_INVALID
                              : model_any(&w, p, n, false) ? MM_OK
                                                           : MM_ERR_NOENT;
    enum mm_status status;
    struct mm_test_fail fail = w.s.ram->fail;

    w.s.ram->fail = (struct mm_test_fail){0, 0};
    space_begin(&to, w.s.ram, &w.format);
    to.config = w.s.config;
    to.config.hooks = &to.hooks;
    space_make(&to);
    in_use = w.s.ram->in_use;
    w.s.ram->fail = fail;
    status = mm_pagetable_share_cow(&to.pt, &w.s.pt, page_va(&w, p), n * PAGE, batch);
    if (refused(status, expected)) {
        assert_int_equal(w.s.ram->in_use, in_use);
    } else {
        model_cut(&w, p);
        model_cut(&w, p + n);
        for (i = p; i < p + n; i++) {
            struct cell *c = &w.cell[i];
            mapped += c->kind == CELL_MAPPED;
            if (c->kind == CELL_MAPPED && (c->attr & MM_PAGETABLE_WRITE) != 0)
                c->attr = (c->attr & ~MM_PAGETABLE_WRITE) | MM_PAGETABLE_COW;
        }
        for (i = 0; i < w.count; i++)
            compare_shared(i, i >= p && i < p + n);
    }
    assert_int_equal(to.referenced_pages, mapped);
    space_check(&to);
    assert_int_equal(mm_pagetable_destroy(&to.pt, false), MM_OK);
}

/* Empty tables, which the model does not know. */
static void do_sweep(uint64_t p, uint64_t n)
{
    enum mm_status status = mm_pagetable_sweep(&w.s.pt, page_va(&w, p), n * PAGE, batch);
    if (!in_one_half(p, n))
        assert_int_equal(status, MM_ERR_INVALID);
    else if ((w.s.config.flags & MM_PAGETABLE_KEEP_EMPTY) == 0)
        assert_int_equal(status, MM_ERR_NOENT);
    else
        assert_true(status == MM_OK || status == MM_ERR_NOENT);
}

static void operate(void)
{
    uint64_t p, n;

    random_range(&p, &n);
    prepare_failure();
    switch (below(19)) {
    case 0:
    case 1:
    case 2:
        do_map(p, n);
        break;
    case 3:
        do_map_frames(p, n);
        break;
    case 4:
    case 5:
        do_unmap(p, n);
        break;
    case 6:
    case 7:
        do_protect(p, n);
        break;
    case 8:
        do_swap(p);
        break;
    case 9:
        do_split(p);
        break;
    case 10:
        do_collapse(p, n);
        break;
    case 11:
        do_harvest(p, n);
        break;
    case 12:
        do_mark(p);
        break;
    case 13:
        do_cursor(p, n);
        break;
    case 14:
        do_share(p, n);
        break;
    case 15:
        do_sweep(p, n);
        break;
    case 16:
        do_bulk(p, n);
        break;
    default:
        do_touch(p);
        break;
    }
    w.s.ram->fail = (struct mm_test_fail){0, 0};
}

#ifdef TLB
static void flush_tlb(void *ctx, const struct mm_pagetable_flush *flush)
{
    (void)ctx;
    tlb_flush(&the_tlb, flush);
}

static void release_frames(void *ctx, const struct mm_pagetable_extent *extent)
{
    (void)ctx;
    if ((extent->attr & MM_PAGETABLE_SWAP) == 0)
        tlb_release(&the_tlb, extent->pa, extent->bytes);
}

static void free_table(void *ctx, mm_pa_t table, uint64_t bytes)
{
    tlb_free(&the_tlb, table);
    ram_free(ctx, table, bytes);
}

/* One call, or some under one batch; what the processor keeps is looked at whenever it is told to
 * forget something, when something goes, and at the end. */
static void step(void)
{
    static struct mm_pagetable_batch shared;
    struct mm_pagetable_extent extents[3];
    uint64_t calls = below(3) == 0 ? 2 + below(4) : 1;

    batch = NULL;
    if (calls > 1 || below(4) == 0) {
        batch = &shared;
        if (below(2) == 0)
            mm_pagetable_batch_init(batch, &w.s.pt, extents, 1 + below(3));
        else
            mm_pagetable_batch_init(batch, &w.s.pt, NULL, 0);
    }
    for (; calls != 0; calls--) {
        tlb_fill(&the_tlb);
        tlb_touch(&the_tlb);
        operate();
    }
    if (batch != NULL)
        mm_pagetable_batch_finish(batch);
    tlb_settled(&the_tlb);
}
#else
static void step(void)
{
    operate();
    for (unsigned i = 0; i < 4; i++)
        compare_page(&w, below(w.count), (unsigned)mm_test_rand(&rng));
}
#endif

/* Flags of the processor at random, where the format has them. */
static void random_flags(void)
{
    uint32_t policies = MM_PAGETABLE_W_XOR_X, has = w.format.features;
    w.s.config.flags ^= (uint32_t)mm_test_rand(&rng) & (has | MM_PAGETABLE_PRESET_AD);
    if (below(8) == 0)
        w.s.config.flags |= policies;
    if (w.walker.kind == WALK_X86 || w.walker.kind == WALK_NPT)
        w.s.config.flags |= MM_PAGETABLE_HW_AD; /* every processor does */
    if (w.walker.index_bits < 4)
        w.s.config.flags &= ~MM_PAGETABLE_CONTIGUOUS;
    if (below(4) == 0)
        w.s.config.leaf_levels &= 3;
    if (below(8) == 0) { /* which tables stay the model does not know, so that leaves are small */
        w.s.config.flags |= MM_PAGETABLE_KEEP_EMPTY;
        w.s.config.leaf_levels = 1;
    }
    if (below(4) == 0)
        w.s.config.flush_pages = below(2000);
}

static void run(enum mm_pagetable_id id, unsigned index_bits, uint64_t ops)
{
    uint64_t pages, i;

    world_begin(&w, ram_make(), id, index_bits);
    random_flags();
#ifdef TLB
    w.s.hooks.flush = flush_tlb;
    w.s.hooks.free = free_table;
    w.s.hooks.release = release_frames;
#endif
    if (below(4) == 0)
        w.s.hooks.release = NULL;
    world_make(&w);
    pages = (uint64_t)1 << (walk_va_bits(&w.walker) - 12);
    w.count = pages < 1024 ? (unsigned)pages : index_bits == 0 ? 2048 : 1024;
    if (LESS > 1 && w.count > 128)
        w.count = 128;
    w.first = pages <= w.count ? 0 : pages / 2 - w.count / 2; /* around the hole in the middle */
#ifdef TLB
    tlb_begin(&the_tlb, &w);
#endif
    for (i = 0; i < ops; i++) {
        step();
        if (i % 256 == 255)
            compare_all(&w, (unsigned)mm_test_rand(&rng));
    }
    compare_all(&w, 0);
#ifdef TLB
    assert_true(the_tlb.drops != 0);
    w.s.hooks.flush = NULL; /* all goes */
    w.s.hooks.free = ram_free;
    w.s.hooks.release = NULL;
#endif
    space_end(&w.s);
}

static void all_formats(unsigned index_bits)
{
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        for (unsigned round = 0; round < (LESS > 1 ? 1 : 4); round++) {
            rng = mm_test_rng(mm_test_seed(), id * 4 + round + 100 * index_bits);
            run((enum mm_pagetable_id)id, index_bits, mm_test_ops() / 100 / LESS);
        }
}

static void tables_of_four_entries(void **state)
{
    (void)state;
    all_formats(2);
}

static void tables_of_sixteen_entries(void **state)
{
    (void)state;
    all_formats(4);
}

#ifndef TLB
static void real_tables(void **state)
{
    (void)state;
    all_formats(0);
}

/* Entries that this header would not write: single bits of leaves turned over. Header and walker
 * must still agree. */
static void foreign_entries(void **state)
{
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        rng = mm_test_rng(mm_test_seed(), 1000 + id);
        world_begin(&w, ram_make(), (enum mm_pagetable_id)id, 4);
        random_flags();
        w.s.config.flags &= ~MM_PAGETABLE_CONTIGUOUS;
        world_make(&w);
        w.count = 16;
        for (unsigned i = 0; i < mm_test_ops() / 20 / LESS; i++) {
            struct walked at;
            uint64_t e, flipped;
            do_map(below(16), 1);
            at = walk(&w.walker, page_va(&w, below(16)), access_of(0));
            if (at.entry == NULL || at.level != 1)
                continue;
            e = walk_read(&w.walker, at.entry);
            flipped = e ^ (uint64_t)1 << below(8u * (unsigned)w.walker.entry_bytes) ^
                      (uint64_t)1 << below(12);
            if ((w.walker.kind == WALK_RISCV || w.walker.kind == WALK_GSTAGE) &&
                (flipped & 0xe) == 0)
                continue; /* a pointer below the lowest level */
            if ((w.walker.kind == WALK_ARM1 || w.walker.kind == WALK_ARM2) &&
                walk_field(flipped, 50, 48) != 0)
                continue; /* RES0: the check reports it, what processors do is their own affair */
            memcpy(at.entry, &flipped, (size_t)w.walker.entry_bytes);
            bool malformed = false;
            for (uint64_t p = 0; p < 16; p++) {
                unsigned how = (unsigned)mm_test_rand(&rng);
                struct walked found = walk(&w.walker, page_va(&w, p), access_of(how));
                compare_access(&w, page_va(&w, p), access_of(how));
                malformed = malformed || found.result == WALK_RESERVED;
                if (found.result == WALK_OK)
                    assert_int_equal(mm_pagetable_translate(&w.s.pt, page_va(&w, p)), found.pa);
            }
            if (malformed)
                assert_int_equal(mm_pagetable_check(&w.s.pt, NULL, 0, NULL), MM_ERR_CORRUPT);
            memcpy(at.entry, &e, (size_t)w.walker.entry_bytes);
        }
        space_end(&w.s);
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_of_four_entries),
        cmocka_unit_test(tables_of_sixteen_entries),
#ifndef TLB
        cmocka_unit_test(real_tables),
        cmocka_unit_test(foreign_entries),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
