/* mm_buddy.h: every hook that can fail fails at its N-th call, for every N. After each, no block is
 * lost or held twice, and what the call's contract promises holds. */
#include "buddy_test.h"

#define PAGES 512u
#define PB    64u

static uint32_t owner[PAGES]; /* who holds each page; 0: free */
static unsigned calls, fail_at;

static bool fails(void)
{
    return ++calls == fail_at;
}

static enum mm_status migrate(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes)
{
    (void)ctx;
    if (fails())
        return MM_ERR_BUSY;
    for (uint64_t i = 0; i < bytes / PAGE; i++) {
        assert_true(owner[(from - BASE) / PAGE + i] != 0 && owner[(to - BASE) / PAGE + i] == 0);
        owner[(to - BASE) / PAGE + i] = owner[(from - BASE) / PAGE + i];
        owner[(from - BASE) / PAGE + i] = 0;
    }
    return MM_OK;
}

/* Movable blocks of order 0 and 1 on every fourth page of the first half. */
static void build(struct arena *a)
{
    memset(owner, 0, sizeof owner);
    calls = fail_at = 0;
    arena_begin(a, PAGES);
    a->hooks.migrate = migrate;
    arena_make(a);
    assert_int_equal(mm_buddy_set_type(&a->b, BASE, PAGES * PAGE, MM_BUDDY_MOVABLE), MM_OK);
    for (uint32_t i = 0; i < PAGES; i += 4) {
        const unsigned order = i % 8 == 0;
        assert_int_equal(mm_buddy_alloc_at(&a->b, BASE + i * PAGE, order, MM_BUDDY_MOVABLE), MM_OK);
        owner[i] = i + 1;
        if (order == 1)
            owner[i + 1] = i + 1;
    }
}

/* Each owner still has its block, in one piece; the arena agrees. `extra` more pages are
 * allocated. */
static void assert_nothing_lost(struct arena *a, uint64_t extra)
{
    uint32_t pages = 0;

    for (uint32_t i = 0; i < PAGES; i++) {
        if (owner[i] == 0)
            continue;
        pages++;
        assert_int_equal(block_at(a, BASE + i * PAGE).state, MM_BUDDY_STATE_ALLOCATED);
        assert_int_equal(block_at(a, BASE + i * PAGE).bytes,
                         (owner[i] - 1) % 8 == 0 ? 2 * PAGE : PAGE);
    }
    assert_int_equal(pages, PAGES / 4 + PAGES / 8);
    assert_int_equal(stats_of(a).used / PAGE, pages + extra);
    assert_int_equal(mm_buddy_check(&a->b), MM_BUDDY_HEALTHY);
}

static void alloc_range_survives_a_refused_move(void **state)
{
    enum mm_status status = MM_ERR_BUSY;

    (void)state;
    for (unsigned n = 1; status != MM_OK; n++) {
        struct arena a;

        assert_in_range(n, 1, 100);
        build(&a);
        fail_at = n;
        status = mm_buddy_alloc_range(&a.b, BASE + 3 * PB * PAGE, PB * PAGE, 0);
        assert_true(status == MM_OK ? calls < n : status == MM_ERR_BUSY && calls == n);
        assert_nothing_lost(&a, status == MM_OK ? PB : 0);
        fail_at = 0; /* it works the next time */
        if (status != MM_OK)
            assert_int_equal(mm_buddy_alloc_range(&a.b, BASE + 3 * PB * PAGE, PB * PAGE, 0), MM_OK);
        assert_nothing_lost(&a, PB);
        assert_int_equal(mm_buddy_free(&a.b, BASE + 3 * PB * PAGE), MM_OK);
        arena_end(&a);
    }
}

static void alloc_contig_goes_elsewhere_after_a_refused_move(void **state)
{
    bool refused = true;

    (void)state;
    for (unsigned n = 1; refused; n++) {
        struct arena a;
        mm_pa_t pa;

        assert_in_range(n, 1, 200);
        build(&a);
        fail_at = n;
        pa = mm_buddy_alloc_contig(&a.b, PB * PAGE, PB * PAGE, 0);
        refused = calls >= n;
        assert_true(pa != MM_PA_NONE);
        assert_nothing_lost(&a, PB);
        assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
        arena_end(&a);
    }
}

static void compaction_survives_a_refused_move(void **state)
{
    bool refused = true;

    (void)state;
    for (unsigned n = 1; refused; n++) {
        struct arena a;
        enum mm_status status;

        assert_in_range(n, 1, 200);
        build(&a);
        fail_at = n;
        status = mm_buddy_compact(&a.b, 6);
        refused = calls >= n;
        assert_int_equal(status, MM_OK); /* other page blocks do as well */
        assert_true(mm_buddy_fragmentation(&a.b, 6) == -1000);
        assert_nothing_lost(&a, 0);
        arena_end(&a);
    }
}

static enum mm_status always_refuse(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes)
{
    (void)ctx, (void)from, (void)to, (void)bytes;
    calls++;
    return MM_ERR_BUSY;
}

static void a_hook_that_always_refuses_changes_nothing(void **state)
{
    struct arena a;

    (void)state;
    build(&a);
    a.hooks.migrate = always_refuse;
    assert_int_equal(mm_buddy_alloc_range(&a.b, BASE, PB * PAGE, 0), MM_ERR_BUSY);
    assert_int_equal(mm_buddy_alloc_contig(&a.b, PB * PAGE, PB * PAGE, 0), MM_PA_NONE);
    assert_int_equal(mm_buddy_compact(&a.b, 6), MM_ERR_NOMEM);
    assert_in_range(calls, 3, 1000);
    assert_nothing_lost(&a, 0);
    assert_int_equal(stats_of(&a).moved, 0);
    arena_end(&a);
}

static uint8_t told[PAGES];

static enum mm_status tell(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx;
    if (fails())
        return MM_ERR_NOMEM;
    for (uint64_t i = 0; i < bytes / PAGE; i++)
        told[(pa - BASE) / PAGE + i]++;
    return MM_OK;
}

static void a_failed_report_is_told_again(void **state)
{
    bool failed = true;

    (void)state;
    for (unsigned n = 1; failed; n++) {
        struct arena a;
        size_t blocks;

        assert_in_range(n, 1, 1000);
        build(&a);
        memset(told, 0, sizeof told);
        assert_int_equal(mm_buddy_report_enable(&a.b, 1), MM_OK);
        calls = 0;
        fail_at = n;
        blocks = mm_buddy_report(&a.b, PAGES, tell, NULL);
        failed = calls >= n;
        assert_int_equal(blocks, failed ? n - 1 : calls);
        assert_nothing_lost(&a, 0);
        fail_at = 0;
        (void)mm_buddy_report(&a.b, PAGES, tell, NULL);
        for (uint32_t i = 0; i < PAGES; i++)
            assert_int_equal(told[i], block_at(&a, BASE + i * PAGE).state == MM_BUDDY_STATE_FREE &&
                                          block_at(&a, BASE + i * PAGE).bytes > PAGE);
        arena_end(&a);
    }
}

static bool pressure(void *ctx, struct mm_buddy *b, unsigned order)
{
    (void)ctx, (void)order;
    if (fails())
        return false;
    assert_int_equal(mm_buddy_free(b, BASE), MM_OK);
    return true;
}

static void pressure_that_fails_is_an_allocation_that_fails(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        struct arena a;

        calls = fail_at = 0;
        arena_begin(&a, PB);
        arena_make(&a);
        assert_int_equal(exhaust(&a, 0), PB);
        a.hooks.pressure = pressure;
        fail_at = n;
        for (unsigned i = 1; i <= 3; i++)
            assert_int_equal(mm_buddy_alloc(&a.b, 0, 0), i == n ? MM_PA_NONE : BASE);
        assert_int_equal(stats_of(&a).used, PB * PAGE);
        arena_end(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alloc_range_survives_a_refused_move),
        cmocka_unit_test(alloc_contig_goes_elsewhere_after_a_refused_move),
        cmocka_unit_test(compaction_survives_a_refused_move),
        cmocka_unit_test(a_hook_that_always_refuses_changes_nothing),
        cmocka_unit_test(a_failed_report_is_told_again),
        cmocka_unit_test(pressure_that_fails_is_an_allocation_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
