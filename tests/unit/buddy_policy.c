/* mm_buddy.h: migration types, contiguous ranges, compaction, reporting, watermarks, zone lists. */
#include "buddy_test.h"

#define PB 64u /* pages of a page block */

/* A migrate hook that keeps a table of who holds which page: it moves whole blocks. */
static struct {
    uint32_t owner[1024]; /* 0: free */
    unsigned calls, refuse_from, refuse_count;
} mover;

static enum mm_status migrate(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes)
{
    assert_ptr_equal(ctx, &mover);
    if (++mover.calls >= mover.refuse_from && mover.calls < mover.refuse_from + mover.refuse_count)
        return MM_ERR_BUSY;
    for (uint64_t i = 0; i < bytes / PAGE; i++) {
        assert_true(mover.owner[(from - BASE) / PAGE + i] != 0);
        assert_int_equal(mover.owner[(to - BASE) / PAGE + i], 0);
        mover.owner[(to - BASE) / PAGE + i] = mover.owner[(from - BASE) / PAGE + i];
        mover.owner[(from - BASE) / PAGE + i] = 0;
    }
    return MM_OK;
}

static void arena_with_mover(struct arena *a, uint64_t pages)
{
    memset(&mover, 0, sizeof mover);
    arena_begin(a, pages);
    a->hooks.migrate = migrate;
    a->hooks.ctx = &mover;
    arena_make(a);
}

static void own(mm_pa_t pa, uint64_t pages, uint32_t id)
{
    for (uint64_t i = 0; i < pages; i++) {
        assert_int_equal(mover.owner[(pa - BASE) / PAGE + i], 0);
        mover.owner[(pa - BASE) / PAGE + i] = id;
    }
}

/* What the table holds is what the arena holds, and each block is in one piece. */
static void assert_owned(const struct arena *a, uint32_t ids, uint64_t pages_each)
{
    uint32_t seen[1025] = {0};
    for (unsigned i = 0; i < 1024; i++) {
        if (mover.owner[i] == 0)
            continue;
        assert_int_equal(block_at(a, BASE + i * PAGE).state, MM_BUDDY_STATE_ALLOCATED);
        assert_int_equal(block_at(a, BASE + i * PAGE).bytes, pages_each * PAGE);
        seen[mover.owner[i]]++;
    }
    for (uint32_t id = 1; id <= ids; id++)
        assert_int_equal(seen[id], pages_each);
}

/* ---- migration types ---- */

static void types_keep_to_page_blocks_of_their_own(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 16 * PB);
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned type = 0; type < 3; type++) {
            const mm_pa_t pa = mm_buddy_alloc(&a.b, 0, type);
            assert_int_equal(mm_buddy_get_type(&a.b, pa), type);
        }
    }
    assert_int_equal(stats_of(&a).fallbacks, 0);
    arena_end(&a);
}

static void a_type_that_has_run_out_takes_from_another(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 8 * PB);
    for (unsigned i = 0; i < 8; i++) /* one page of each page block is movable */
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PB * PAGE, 0, MM_BUDDY_MOVABLE), MM_OK);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE, 8 * PB * PAGE, MM_BUDDY_MOVABLE), MM_OK);
    assert_int_equal(exhaust(&a, MM_BUDDY_UNMOVABLE), 8 * (PB - 1));
    assert_in_range(stats_of(&a).fallbacks, 1, 8 * PB);
    assert_in_range(stats_of(&a).steals, 1, 8);
    arena_end(&a);
}

static void unmovable_blocks_never_enter_cma(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 8 * PB);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE + 2 * PB * PAGE, 2 * PB * PAGE, MM_BUDDY_CMA),
                     MM_OK);
    assert_int_equal(mm_buddy_get_type(&a.b, BASE + 2 * PB * PAGE), MM_BUDDY_CMA);
    assert_int_equal(mm_buddy_get_type(&a.b, BASE + 4 * PB * PAGE - 1), MM_BUDDY_CMA);
    assert_int_equal(exhaust(&a, MM_BUDDY_UNMOVABLE), 6 * PB);
    assert_int_equal(exhaust(&a, MM_BUDDY_RECLAIMABLE), 0);
    assert_int_equal(exhaust(&a, MM_BUDDY_MOVABLE), 2 * PB);
    arena_end(&a);
}

/* A page block is larger than the largest order here: the range has no order, but a size. */
static void a_range_that_becomes_cma_is_freed_by_its_size(void **state)
{
    struct arena a;

    (void)state;
    arena_begin(&a, 8 * PB);
    a.config.max_order = 4;
    arena_make(&a);
    assert_int_equal(mm_buddy_alloc_range(&a.b, BASE + PB * PAGE, PB * PAGE, 0), MM_OK);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE + PB * PAGE, PB * PAGE, MM_BUDDY_CMA), MM_OK);
    assert_refused(&a, mm_buddy_free_sized(&a.b, BASE + PB * PAGE, (PB - 1) * PAGE),
                   MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free_sized(&a.b, BASE + PB * PAGE, PB * PAGE), MM_OK);
    arena_end(&a);
}

static void wrong_types_are_refused(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * PB);
    assert_refused(&a, mm_buddy_set_type(&a.b, BASE, PAGE, (enum mm_buddy_type)4), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_set_type(&a.b, BASE, 0, MM_BUDDY_CMA), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_set_type(&a.b, BASE - PAGE, 2 * PAGE, MM_BUDDY_CMA),
                   MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_set_type(&a.b, BASE, (4 * PB + 1) * PAGE, MM_BUDDY_CMA),
                   MM_ERR_INVALID);
    assert_int_equal(mm_buddy_get_type(&a.b, BASE + 4 * PB * PAGE), MM_BUDDY_UNMOVABLE);
    arena_end(&a);
}

/* ---- contiguous ranges ---- */

/* Fills page blocks [first, first + n) with movable blocks of 2^order pages, numbered from 1. */
static uint32_t fill_movable(struct arena *a, unsigned first, unsigned n, unsigned order)
{
    const uint64_t step = (uint64_t)1 << order;
    uint32_t id = 0;
    assert_int_equal(
        mm_buddy_set_type(&a->b, BASE + first * PB * PAGE, n * PB * PAGE, MM_BUDDY_MOVABLE), MM_OK);
    for (uint64_t p = first * PB; p < (uint64_t)(first + n) * PB; p += step) {
        assert_int_equal(mm_buddy_alloc_at(&a->b, BASE + p * PAGE, order, MM_BUDDY_MOVABLE), MM_OK);
        own(BASE + p * PAGE, step, ++id);
    }
    return id;
}

static void a_range_is_carved_out_of_movable_memory(void **state)
{
    struct arena a;
    uint32_t ids;

    (void)state;
    arena_with_mover(&a, 8 * PB);
    ids = fill_movable(&a, 0, 4, 1);
    assert_int_equal(mm_buddy_alloc_range(&a.b, BASE + 100 * PAGE, 90 * PAGE, 0), MM_OK);
    assert_int_equal(mover.calls, 45);
    assert_int_equal(stats_of(&a).moved, 45);
    assert_owned(&a, ids, 2);
    for (unsigned i = 100; i < 190; i++)
        assert_int_equal(mover.owner[i], 0);
    assert_int_equal(block_at(&a, BASE + 150 * PAGE).pa, BASE + 100 * PAGE);
    assert_int_equal(block_at(&a, BASE + 150 * PAGE).bytes, 90 * PAGE);
    assert_int_equal(mm_buddy_free(&a.b, BASE + 100 * PAGE), MM_OK);
    arena_end(&a);
}

static void a_range_that_cannot_be_emptied_is_not_taken(void **state)
{
    struct arena a;

    (void)state;
    arena_with_mover(&a, 8 * PB);
    (void)fill_movable(&a, 0, 2, 0);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 300 * PAGE, 0, MM_BUDDY_UNMOVABLE), MM_OK);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE + 400 * PAGE, PAGE), MM_OK);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE + 290 * PAGE, 20 * PAGE, 0), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE + 395 * PAGE, 10 * PAGE, 0), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE, 0, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE + 1, PAGE, 0), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE, 1, 0), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE, (8 * PB + 1) * PAGE, 0), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_shrink(&a.b, BASE + 500 * PAGE, 12 * PAGE), MM_OK);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE + 490 * PAGE, 20 * PAGE, 0), MM_ERR_NOENT);
    a.hooks.migrate = NULL;
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE, PAGE, 0), MM_ERR_BUSY);
    assert_int_equal(mover.calls, 0);
    arena_end(&a);
}

static void without_room_to_move_to_a_range_is_nomem(void **state)
{
    struct arena a;
    uint32_t ids;

    (void)state;
    arena_with_mover(&a, 4 * PB);
    ids = fill_movable(&a, 0, 4, 0);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE, 10 * PAGE, 0), MM_ERR_NOMEM);
    assert_owned(&a, ids, 1);
    arena_end(&a);
}

/* Eight pages at an address that is no multiple of eight are no block of order 3; elsewhere they
 * are. */
static void an_exact_block_may_get_an_order_when_it_moves(void **state)
{
    const mm_pa_t at = BASE + (PB + 4) * PAGE;
    struct arena a;

    (void)state;
    arena_with_mover(&a, 4 * PB);
    assert_int_equal(mm_buddy_alloc_range(&a.b, at, 8 * PAGE, 0), MM_OK);
    assert_int_equal(mm_buddy_set_type(&a.b, at, PAGE, MM_BUDDY_MOVABLE), MM_OK);
    own(at, 8, 1);
    assert_refused(&a, mm_buddy_resize(&a.b, at, 3), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_resize(&a.b, at, 2), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free_order(&a.b, at, 3), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_alloc_range(&a.b, at + PAGE, PAGE, 0), MM_OK);
    assert_owned(&a, 1, 8);
    for (unsigned i = 0; i < 4 * PB; i += 8)
        if (mover.owner[i] == 1) {
            assert_int_equal(mm_buddy_resize(&a.b, BASE + i * PAGE, 3), MM_OK);
            assert_int_equal(mm_buddy_resize(&a.b, BASE + i * PAGE, 2), MM_OK);
            assert_int_equal(mm_buddy_free_order(&a.b, BASE + i * PAGE, 2), MM_OK);
        }
    assert_int_equal(free_pages(&a), 4 * PB - 1);
    arena_end(&a);
}

static void contiguous_memory_may_exceed_the_largest_order(void **state)
{
    struct arena a;
    uint32_t ids;
    mm_pa_t pa;

    (void)state;
    arena_begin(&a, 16 * PB);
    memset(&mover, 0, sizeof mover);
    a.config.max_order = 6;
    a.hooks.migrate = migrate;
    a.hooks.ctx = &mover;
    arena_make(&a);
    ids = fill_movable(&a, 0, 8, 0);
    pa = mm_buddy_alloc_contig(&a.b, 5 * PB * PAGE - 1, 4 * PAGE, 0); /* fits what is free */
    assert_int_equal(pa, BASE + 8 * PB * PAGE);
    assert_int_equal(mover.calls, 0);
    assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 12 * PB * PAGE, 0, MM_BUDDY_UNMOVABLE), MM_OK);
    pa = mm_buddy_alloc_contig(&a.b, 5 * PB * PAGE, PAGE, 0); /* only by moving */
    assert_true(pa != MM_PA_NONE);
    assert_in_range(mover.calls, 1, 5 * PB);
    assert_owned(&a, ids, 1);
    assert_int_equal(block_at(&a, pa).bytes, 5 * PB * PAGE);
    assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    assert_refused(&a, mm_buddy_alloc_contig(&a.b, 0, PAGE, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_contig(&a.b, PAGE, 3, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_contig(&a.b, 17 * PB * PAGE, PAGE, 0), MM_PA_NONE);
    arena_end(&a);
}

static void contiguous_memory_comes_out_of_cma_first(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    arena_with_mover(&a, 12 * PB);
    (void)fill_movable(&a, 0, 2, 0);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE + 4 * PB * PAGE, 2 * PB * PAGE, MM_BUDDY_CMA),
                     MM_OK);
    for (unsigned i = 4 * PB; i < 6 * PB; i++) {
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PAGE, 0, MM_BUDDY_MOVABLE), MM_OK);
        own(BASE + i * PAGE, 1, i);
    }
    for (unsigned i = 2; i < 12; i++) /* else no two page blocks in a row are to be had */
        if (i != 4 && i != 5)
            assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PB * PAGE, 0, MM_BUDDY_UNMOVABLE),
                             MM_OK);
    pa = mm_buddy_alloc_contig(&a.b, 2 * PB * PAGE, PB * PAGE, 0);
    assert_int_equal(pa, BASE + 4 * PB * PAGE);
    assert_int_equal(mover.calls, 2 * PB);
    arena_end(&a);
}

/* ---- compaction ---- */

static void compaction_makes_a_large_block(void **state)
{
    struct arena a;
    uint32_t ids;

    (void)state;
    arena_with_mover(&a, 8 * PB);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE, 8 * PB * PAGE, MM_BUDDY_MOVABLE), MM_OK);
    for (ids = 0; ids < 8 * PB / 4; ids++) { /* one page in four */
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 4 * ids * PAGE, 0, MM_BUDDY_MOVABLE),
                         MM_OK);
        own(BASE + 4 * ids * PAGE, 1, ids + 1);
    }
    assert_int_equal(mm_buddy_alloc(&a.b, 6, MM_BUDDY_MOVABLE), MM_PA_NONE);
    assert_in_range(mm_buddy_fragmentation(&a.b, 6), 500, 1000);
    assert_int_equal(mm_buddy_compact(&a.b, 6), MM_OK);
    assert_owned(&a, ids, 1);
    assert_int_equal(mm_buddy_fragmentation(&a.b, 6), -1000);
    assert_true(mm_buddy_alloc(&a.b, 6, MM_BUDDY_MOVABLE) != MM_PA_NONE);
    arena_end(&a);
}

static void compaction_tells_why_it_does_nothing(void **state)
{
    struct arena a;

    (void)state;
    arena_with_mover(&a, 4 * PB);
    assert_refused(&a, mm_buddy_compact(&a.b, 11), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_compact(&a.b, 6), MM_OK); /* free all along */
    for (unsigned i = 0; i < 4 * PB; i += 8)
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PAGE, 0, MM_BUDDY_UNMOVABLE), MM_OK);
    assert_int_equal(mm_buddy_compact(&a.b, 6), MM_ERR_NOMEM);
    assert_int_equal(mover.calls, 0);
    a.hooks.migrate = NULL;
    assert_refused(&a, mm_buddy_compact(&a.b, 6), MM_ERR_PERM);
    arena_end(&a);
}

static void compaction_empties_a_sparse_block_first(void **state)
{
    static const unsigned used[] = {40, 4, 20};
    struct arena a;

    (void)state;
    arena_with_mover(&a, 3 * PB);
    for (unsigned pb = 0; pb < 3; pb++) {
        for (unsigned i = 0; i < used[pb]; i++) {
            const mm_pa_t pa = BASE + (pb * PB + i) * PAGE;
            assert_int_equal(mm_buddy_alloc_at(&a.b, pa, 0, MM_BUDDY_MOVABLE), MM_OK);
            own(pa, 1, pb * PB + i + 1);
        }
    }
    assert_int_equal(mm_buddy_compact(&a.b, 6), MM_OK);
    assert_int_equal(mover.calls, 4);
    arena_end(&a);
}

static void compaction_moves_nothing_when_memory_is_short(void **state)
{
    struct arena a;

    (void)state;
    arena_with_mover(&a, 4 * PB);
    for (unsigned i = 0; i < 4 * PB; i++)
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PAGE, 0, MM_BUDDY_MOVABLE), MM_OK);
    for (unsigned i = 0; i < PB - 1; i++) /* one page less than asked for, far apart */
        assert_int_equal(mm_buddy_free(&a.b, BASE + 4 * i * PAGE), MM_OK);
    assert_refused(&a, mm_buddy_compact(&a.b, 6), MM_ERR_NOMEM);
    assert_int_equal(mover.calls, 0);
    arena_end(&a);
}

/* Lets go of the second page block at the first move, as a hook that reclaims does. */
static struct mm_buddy *reclaimed;

static enum mm_status migrate_and_reclaim(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes)
{
    for (unsigned i = 1; reclaimed != NULL && i < PB; i++)
        assert_int_equal(mm_buddy_free(reclaimed, BASE + (PB + i) * PAGE), MM_OK);
    reclaimed = NULL;
    return migrate(ctx, from, to, bytes);
}

static void compaction_counts_on_a_hook_that_reclaims(void **state)
{
    struct arena a;

    (void)state;
    arena_with_mover(&a, 2 * PB);
    for (unsigned i = 0; i < 2 * PB; i++) {
        const unsigned type = i < PB ? MM_BUDDY_MOVABLE : MM_BUDDY_UNMOVABLE;
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PAGE, 0, type), MM_OK);
    }
    assert_int_equal(mm_buddy_free(&a.b, BASE + PB * PAGE), MM_OK);
    for (unsigned i = 0; i < PB; i++) { /* of the movable ones, one in four is free */
        if (i % 4 == 0)
            assert_int_equal(mm_buddy_free(&a.b, BASE + i * PAGE), MM_OK);
        else
            own(BASE + i * PAGE, 1, i);
    }
    reclaimed = &a.b;
    a.hooks.migrate = migrate_and_reclaim;
    assert_int_equal(mm_buddy_compact(&a.b, 4), MM_OK); /* one hole was no room for twelve */
    assert_null(reclaimed);
    assert_true(mm_buddy_alloc(&a.b, 4, MM_BUDDY_MOVABLE) != MM_PA_NONE);
    arena_end(&a);
}

static void the_fragmentation_index_tells_lack_from_fragmentation(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * PB);
    assert_int_equal(mm_buddy_fragmentation(&a.b, 0), -1000);
    assert_int_equal(mm_buddy_fragmentation(&a.b, 8), -1000);
    assert_int_equal(mm_buddy_fragmentation(&a.b, 11), -1000);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 7, 0), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 2 * PB * PAGE, 6, 0), MM_OK);
    /* 64 of 256 pages, one block: 1000 - (1000 + 64 * 1000 / 256) / 1 = -250, shown as 0 */
    assert_int_equal(mm_buddy_fragmentation(&a.b, 8), 0);
    assert_int_equal(mm_buddy_free(&a.b, BASE), MM_OK);
    for (unsigned i = 0; i < 2 * PB; i += 2)
        assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + i * PAGE, 0, 0), MM_OK);
    /* 64 single pages and one block of 64: 1000 - (1000 + 128 * 1000 / 256) / 65 = 977 */
    assert_int_equal(mm_buddy_fragmentation(&a.b, 8), 977);
    arena_end(&a);
}

/* ---- free-page reporting ---- */

static struct {
    uint8_t told[1024];
    unsigned calls, fail_at;
    const struct arena *arena;
} host;

static enum mm_status tell(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    assert_ptr_equal(ctx, &host);
    if (++host.calls == host.fail_at)
        return MM_ERR_NOMEM;
    assert_int_equal((pa | bytes) & (16 * PAGE - 1), 0);
    assert_int_equal(mm_buddy_alloc_at((struct mm_buddy *)&host.arena->b, pa, 0, MM_BUDDY_URGENT),
                     MM_ERR_BUSY);
    for (uint64_t i = 0; i < bytes / PAGE; i++)
        host.told[(pa - BASE) / PAGE + i]++;
    return MM_OK;
}

static void told_all_but(unsigned first, unsigned pages, unsigned times)
{
    for (unsigned i = 0; i < 4 * PB; i++)
        assert_int_equal(host.told[i], i >= first && i < first + pages ? times : 1);
}

static void free_memory_is_reported_once(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * PB);
    memset(&host, 0, sizeof host);
    host.arena = &a;
    assert_int_equal(mm_buddy_report(&a.b, 1000, tell, &host), 0); /* off */
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 70 * PAGE, 0, 0), MM_OK);
    assert_int_equal(mm_buddy_report_enable(&a.b, 4), MM_OK);
    assert_in_range(mm_buddy_report(&a.b, 1000, tell, &host), 1, 16);
    told_all_but(64, 16, 0);
    assert_int_equal(mm_buddy_report(&a.b, 1000, tell, &host), 0);
    assert_int_equal(mm_buddy_free(&a.b, BASE + 70 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_report(&a.b, 1000, tell, &host), 1); /* only what is new */
    told_all_but(0, 0, 1);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 130 * PAGE, 0, 0), MM_OK); /* its mark goes */
    assert_int_equal(mm_buddy_free(&a.b, BASE + 130 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_report(&a.b, 1000, tell, &host), 1);
    told_all_but(128, 16, 2);
    assert_int_equal(stats_of(&a).reported, host.calls);
    arena_end(&a);
}

static void reporting_has_a_limit_and_an_end(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * PB);
    memset(&host, 0, sizeof host);
    host.arena = &a;
    assert_refused(&a, mm_buddy_report_enable(&a.b, 11), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_report_enable(&a.b, 4), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 20 * PAGE, 0, 0), MM_OK);
    assert_int_equal(mm_buddy_report(&a.b, 0, tell, &host), 0);
    assert_int_equal(host.calls, 0);
    assert_int_equal(mm_buddy_report(&a.b, 2, tell, &host), 2);
    assert_int_equal(host.calls, 2);
    host.fail_at = 4;
    assert_int_equal(mm_buddy_report(&a.b, 1000, tell, &host), 1);
    assert_int_equal(host.calls, 4);
    host.fail_at = 0;
    (void)mm_buddy_report(&a.b, 1000, tell, &host);
    told_all_but(16, 16, 0);
    assert_int_equal(mm_buddy_report_enable(&a.b, MM_BUDDY_ORDERS), MM_OK);
    assert_int_equal(mm_buddy_report(&a.b, 1000, tell, &host), 0);
    arena_end(&a);
}

static void cma_does_not_spread(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 8 * PB);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE, PB * PAGE, MM_BUDDY_CMA), MM_OK);
    assert_int_equal(mm_buddy_report_enable(&a.b, 6), MM_OK);
    memset(&host, 0, sizeof host);
    host.arena = &a;
    assert_in_range(mm_buddy_report(&a.b, 10, tell, &host), 1,
                    4); /* in blocks of several page blocks */
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 6, MM_BUDDY_MOVABLE), MM_OK);
    assert_int_equal(mm_buddy_resize(&a.b, BASE, 8), MM_OK);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(mm_buddy_get_type(&a.b, BASE + i * PB * PAGE) == MM_BUDDY_CMA, i == 0);
    assert_int_equal(exhaust(&a, MM_BUDDY_UNMOVABLE), 4 * PB);
    arena_end(&a);
}

/* ---- watermarks and pressure ---- */

static void watermarks_hold_memory_back(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * PB);
    assert_refused(&a, mm_buddy_set_watermarks(&a.b, 2 * PAGE, PAGE, 3 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_set_watermarks(&a.b, PAGE, 3 * PAGE, 2 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_set_watermarks(&a.b, 10 * PAGE, 20 * PAGE, 30 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_get_level(&a.b), MM_BUDDY_LEVEL_HIGH);
    assert_int_equal(exhaust(&a, MM_BUDDY_KEEP_LOW), 4 * PB - 20);
    assert_int_equal(mm_buddy_get_level(&a.b), MM_BUDDY_LEVEL_OK);
    assert_int_equal(exhaust(&a, 0), 10);
    assert_int_equal(mm_buddy_get_level(&a.b), MM_BUDDY_LEVEL_LOW);
    assert_int_equal(exhaust(&a, MM_BUDDY_URGENT), 10);
    assert_int_equal(mm_buddy_get_level(&a.b), MM_BUDDY_LEVEL_MIN);
    arena_end(&a);
}

static void every_kind_of_request_heeds_the_watermark(void **state)
{
    struct arena a;
    mm_pa_t pa[64];

    (void)state;
    arena_simple(&a, 2 * PB);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 2, 0), MM_OK);
    assert_int_equal(mm_buddy_set_watermarks(&a.b, 120 * PAGE, 120 * PAGE, 120 * PAGE), MM_OK);
    assert_refused(&a, mm_buddy_alloc_exact(&a.b, 5 * PAGE, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE + 64 * PAGE, 3, 0), MM_ERR_NOMEM);
    assert_refused(&a, mm_buddy_alloc_range(&a.b, BASE + 64 * PAGE, 5 * PAGE, 0), MM_ERR_NOMEM);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE, 4), MM_ERR_NOMEM);
    assert_refused(&a, mm_buddy_resize_exact(&a.b, BASE, 9 * PAGE), MM_ERR_NOMEM);
    assert_int_equal(mm_buddy_alloc_bulk(&a.b, 0, 0, 64, pa), 4);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 64 * PAGE, 3, MM_BUDDY_URGENT), MM_OK);
    arena_end(&a);
}

static struct {
    struct mm_buddy *b;
    mm_pa_t spare;
    unsigned calls, order;
    bool gives;
} reclaim;

static bool pressure(void *ctx, struct mm_buddy *b, unsigned order)
{
    assert_ptr_equal(ctx, &mover);
    reclaim.b = b;
    reclaim.calls++;
    reclaim.order = order;
    if (reclaim.gives)
        assert_int_equal(mm_buddy_free(b, reclaim.spare), MM_OK);
    return reclaim.gives;
}

static void pressure_gets_one_chance_to_free_something(void **state)
{
    struct arena a;

    (void)state;
    arena_begin(&a, PB);
    a.hooks.pressure = pressure;
    a.hooks.ctx = &mover;
    arena_make(&a);
    memset(&reclaim, 0, sizeof reclaim);
    reclaim.spare = mm_buddy_alloc(&a.b, 3, 0);
    assert_int_equal(exhaust(&a, 0), PB - 8);
    assert_int_equal(reclaim.calls, 1);
    assert_int_equal(reclaim.order, 0);
    assert_ptr_equal(reclaim.b, &a.b);
    reclaim.gives = true;
    assert_int_equal(mm_buddy_alloc(&a.b, 3, 0), reclaim.spare);
    assert_int_equal(reclaim.calls, 2);
    assert_int_equal(reclaim.order, 3);
    arena_end(&a);
}

/* ---- zone lists ---- */

static void zones_are_used_in_order_of_preference(void **state)
{
    struct arena low, high;
    struct mm_buddy_zone zone[2] = {{&high.b, "high"}, {&low.b, "low"}};
    const struct mm_buddy_zones zones = {zone, 2};
    struct mm_buddy_stats s = {0};
    uint64_t n = 0;

    (void)state;
    arena_simple(&low, PB);
    arena_begin(&high, 2 * PB);
    high.config.base = BASE + 1000 * PAGE;
    arena_make(&high);
    assert_int_equal(mm_buddy_set_watermarks(&low.b, 2 * PAGE, 5 * PAGE, 5 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_set_watermarks(&high.b, 3 * PAGE, 7 * PAGE, 7 * PAGE), MM_OK);
    for (; free_pages(&high) > 7; n++)
        assert_ptr_equal(mm_buddy_zones_find(&zones, mm_buddy_zones_alloc(&zones, 0, 0)), &high.b);
    for (; free_pages(&low) > 5; n++)
        assert_ptr_equal(mm_buddy_zones_find(&zones, mm_buddy_zones_alloc(&zones, 0, 0)), &low.b);
    while (mm_buddy_zones_alloc(&zones, 0, 0) != MM_PA_NONE)
        n++;
    assert_int_equal(n, 3 * PB - 5);
    while (mm_buddy_zones_alloc(&zones, 0, MM_BUDDY_URGENT) != MM_PA_NONE)
        n++;
    assert_int_equal(n, 3 * PB);
    assert_int_equal(mm_buddy_zones_stats(&zones, 2, &s), MM_OK);
    assert_int_equal(s.used, 3 * PB * PAGE);
    assert_int_equal(mm_buddy_zones_stats(&zones, 1, &s), MM_OK);
    assert_int_equal(s.used, PB * PAGE);
    assert_int_equal(mm_buddy_zones_stats(&zones, 3, &s), MM_ERR_INVALID);
    assert_null(mm_buddy_zones_find(&zones, BASE + 500 * PAGE));
    assert_int_equal(mm_buddy_zones_free(&zones, BASE + 500 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_zones_free(&zones, BASE + 1000 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_zones_free(&zones, BASE + 1000 * PAGE), MM_ERR_INVALID);
    arena_end(&low);
    arena_end(&high);
}

static void zones_that_keep_low_try_again_after_pressure(void **state)
{
    struct arena a;
    struct mm_buddy_zone zone = {&a.b, "only"};
    const struct mm_buddy_zones zones = {&zone, 1};

    (void)state;
    arena_begin(&a, PB);
    a.hooks.pressure = pressure;
    a.hooks.ctx = &mover;
    arena_make(&a);
    memset(&reclaim, 0, sizeof reclaim);
    reclaim.spare = mm_buddy_alloc(&a.b, 3, 0);
    assert_int_equal(mm_buddy_set_watermarks(&a.b, 0, (PB - 8) * PAGE, (PB - 8) * PAGE), MM_OK);
    assert_int_equal(mm_buddy_zones_alloc(&zones, 0, MM_BUDDY_KEEP_LOW), MM_PA_NONE);
    assert_int_equal(reclaim.calls, 1);
    assert_int_equal(free_pages(&a), PB - 8);
    reclaim.gives = true;
    assert_true(mm_buddy_zones_alloc(&zones, 0, MM_BUDDY_KEEP_LOW) != MM_PA_NONE);
    assert_int_equal(reclaim.calls, 2);
    assert_int_equal(free_pages(&a), PB - 1);
    arena_end(&a);
}

static char lines[40][160];
static unsigned line_count;

static void print(void *ctx, const char *line)
{
    assert_ptr_equal(ctx, lines);
    assert_true(strlen(line) < sizeof lines[0]);
    strcpy(lines[line_count++], line);
}

static void a_dump_shows_free_blocks_by_zone_and_order(void **state)
{
    static const char *const expected[] = {
        "Zone normal, free blocks by order:      1      1      0      0      0      0      0      "
        "1      0      0      0",
        "  total 524 KiB, free 524 KiB, cached 0 KiB, reserved 0 KiB, used 0 KiB",
        "  unmovable 524 KiB, reclaimable 0 KiB, movable 0 KiB, CMA 0 KiB free",
        "  watermarks: min 0 KiB, low 0 KiB, high 0 KiB",
        "Zone other, free blocks by order:      0      0      0      1      1      1      1      0 "
        "     0      0      0",
        "  total 512 KiB, free 480 KiB, cached 0 KiB, reserved 16 KiB, used 16 KiB",
        "  unmovable 480 KiB, reclaimable 0 KiB, movable 0 KiB, CMA 0 KiB free",
        "  watermarks: min 4 KiB, low 8 KiB, high 12 KiB",
    };
    struct arena a, other;
    struct mm_buddy_zone zone[2] = {{&a.b, "normal"}, {&other.b, "other"}};
    const struct mm_buddy_zones zones = {zone, 2};

    (void)state;
    arena_simple(&a, 2 * PB + 3);
    arena_simple(&other, 2 * PB);
    assert_int_equal(mm_buddy_alloc_at(&other.b, BASE, 2, 0), MM_OK);
    assert_int_equal(mm_buddy_reserve(&other.b, BASE + 4 * PAGE, 4 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_set_watermarks(&other.b, PAGE, 2 * PAGE, 3 * PAGE), MM_OK);
    line_count = 0;
    mm_buddy_dump(&zones, print, lines);
    assert_int_equal(line_count, 8);
    for (unsigned i = 0; i < 8; i++)
        assert_string_equal(lines[i], expected[i]);
    arena_end(&a);
    arena_end(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_keep_to_page_blocks_of_their_own),
        cmocka_unit_test(a_type_that_has_run_out_takes_from_another),
        cmocka_unit_test(unmovable_blocks_never_enter_cma),
        cmocka_unit_test(a_range_that_becomes_cma_is_freed_by_its_size),
        cmocka_unit_test(wrong_types_are_refused),
        cmocka_unit_test(a_range_is_carved_out_of_movable_memory),
        cmocka_unit_test(a_range_that_cannot_be_emptied_is_not_taken),
        cmocka_unit_test(without_room_to_move_to_a_range_is_nomem),
        cmocka_unit_test(an_exact_block_may_get_an_order_when_it_moves),
        cmocka_unit_test(contiguous_memory_may_exceed_the_largest_order),
        cmocka_unit_test(contiguous_memory_comes_out_of_cma_first),
        cmocka_unit_test(compaction_makes_a_large_block),
        cmocka_unit_test(compaction_tells_why_it_does_nothing),
        cmocka_unit_test(compaction_empties_a_sparse_block_first),
        cmocka_unit_test(compaction_moves_nothing_when_memory_is_short),
        cmocka_unit_test(compaction_counts_on_a_hook_that_reclaims),
        cmocka_unit_test(the_fragmentation_index_tells_lack_from_fragmentation),
        cmocka_unit_test(free_memory_is_reported_once),
        cmocka_unit_test(reporting_has_a_limit_and_an_end),
        cmocka_unit_test(cma_does_not_spread),
        cmocka_unit_test(watermarks_hold_memory_back),
        cmocka_unit_test(every_kind_of_request_heeds_the_watermark),
        cmocka_unit_test(pressure_gets_one_chance_to_free_something),
        cmocka_unit_test(zones_are_used_in_order_of_preference),
        cmocka_unit_test(zones_that_keep_low_try_again_after_pressure),
        cmocka_unit_test(a_dump_shows_free_blocks_by_zone_and_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
