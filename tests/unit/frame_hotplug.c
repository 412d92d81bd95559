/* Memory that comes and goes, and compaction. */
#include "frame_test.h"

#define SECTION_FRAMES ((uint64_t)4096)
#define SECTION_SIZE   (SECTION_FRAMES * PAGE)

/* One section of memory at 16 MiB, and room for two sections more. */
static void plug_begin(struct lab *lab)
{
    lab_begin(lab);
    lab_range(lab, SECTION_SIZE, SECTION_SIZE, MM_FRAME_USABLE);
    lab_zone(lab, "Normal", 0, 64 * SECTION_SIZE)->spare = SECTION_SIZE;
    lab->config.descriptors = true;
    lab_start(lab);
}

/* Online prepares spare sections and the spare span table before it knows that it succeeds: what is
 * compared is what the pool uses. */
static void assert_online_refused(struct lab *lab, unsigned zone, mm_pa_t pa, uint64_t size,
                                  enum mm_status expected)
{
    const struct mm_frame_span_table *table = &lab->pool.table[lab->pool.table_current];
    const struct mm_frame_span_table before = *table;
    const uintptr_t sections = lab->pool.zone[0].sections;
    struct mm_frame_span spans[16];
    const struct mm_frame_stats figures = lab_stats(lab, 0);
    struct mm_frame_stats now;

    assert_in_range(before.count, 0, 16);
    memcpy(spans, before.span, before.count * sizeof spans[0]);
    assert_int_equal(mm_frame_online(&lab->pool, zone, pa, size), expected);
    now = lab_stats(lab, 0);
    assert_memory_equal(&now, &figures, sizeof now);
    assert_int_equal(lab->pool.zone[0].sections, sections);
    assert_memory_equal(&lab->pool.table[lab->pool.table_current], &before, sizeof before);
    assert_memory_equal(before.span, spans, before.count * sizeof spans[0]);
    assert_healthy(lab, UINT64_MAX);
}

/* ---- on-line --------------------------------------------------------------------------------- */

static void memory_that_comes_online_is_free(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 8 * SECTION_SIZE, SECTION_SIZE), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).managed, 2 * SECTION_FRAMES);
    assert_int_equal(lab_stats(&lab, 0).free, 2 * SECTION_FRAMES);
    assert_int_equal(mm_frame_is_free(&lab.pool, 8 * SECTION_SIZE), 1);
    assert_int_equal(lab_exhaust(&lab, 0), 2 * SECTION_FRAMES);
    assert_int_equal(mm_frame_free(&lab.pool, 9 * SECTION_SIZE - PAGE), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, 9 * SECTION_SIZE), MM_ERR_INVALID);
    lab_end(&lab);
}

static void a_pool_may_start_without_memory(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_zone(&lab, "Normal", 0, MM_PA_NONE)->spare = 2 * SECTION_SIZE;
    lab_start(&lab);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 3 * SECTION_SIZE + PAGE, 2 * SECTION_SIZE),
                     MM_OK);
    assert_int_equal(lab_run(&lab, 2 * SECTION_FRAMES, 0, 0, 0, 0), 3 * SECTION_SIZE + PAGE);
    lab_end(&lab);
}

static void part_of_a_section_comes_online(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 9 * SECTION_SIZE + 100 * PAGE, 50 * PAGE),
                     MM_OK);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 9 * SECTION_SIZE + 10 * PAGE, 50 * PAGE), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).sections, 2);
    assert_int_equal(lab_stats(&lab, 0).managed, SECTION_FRAMES + 100);
    assert_int_equal(mm_frame_is_free(&lab.pool, 9 * SECTION_SIZE + 99 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 9 * SECTION_SIZE + 60 * PAGE, 40 * PAGE), MM_OK);
    assert_int_equal(lab_run(&lab, 140, 0, 0, 9 * SECTION_SIZE, 0), 9 * SECTION_SIZE + 10 * PAGE);
    lab_end(&lab);
}

static void online_refuses_what_is_there_already(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_online_refused(&lab, 0, SECTION_SIZE, SECTION_SIZE, MM_ERR_EXISTS);
    assert_online_refused(&lab, 0, 2 * SECTION_SIZE - PAGE, 2 * PAGE, MM_ERR_EXISTS);
    assert_online_refused(&lab, 0, 0, SECTION_SIZE + PAGE, MM_ERR_EXISTS);
    lab_end(&lab);
}

static void online_refuses_bad_ranges(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_online_refused(&lab, 0, 8 * SECTION_SIZE + 1, PAGE, MM_ERR_ALIGN);
    assert_online_refused(&lab, 0, 8 * SECTION_SIZE, PAGE + 1, MM_ERR_ALIGN);
    assert_online_refused(&lab, 0, 8 * SECTION_SIZE, 0, MM_ERR_INVALID);
    assert_online_refused(&lab, 1, 8 * SECTION_SIZE, PAGE, MM_ERR_INVALID);
    assert_online_refused(&lab, 0, 64 * SECTION_SIZE, PAGE, MM_ERR_INVALID);
    assert_online_refused(&lab, 0, 63 * SECTION_SIZE, SECTION_SIZE + PAGE, MM_ERR_INVALID);
    assert_online_refused(&lab, 0, 0 - PAGE, 2 * PAGE, MM_ERR_INVALID);
    lab_end(&lab);
}

static void online_stops_when_no_spare_section_is_left(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_online_refused(&lab, 0, 8 * SECTION_SIZE, 3 * SECTION_SIZE, MM_ERR_LIMIT);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 8 * SECTION_SIZE, 2 * SECTION_SIZE), MM_OK);
    assert_online_refused(&lab, 0, 4 * SECTION_SIZE, PAGE, MM_ERR_LIMIT);
    lab_end(&lab);
}

static void online_stops_when_no_span_is_left(void **state)
{
    struct lab lab;
    unsigned pieces = 0;
    enum mm_status status;

    (void)state;
    plug_begin(&lab);
    do {
        status = mm_frame_online(&lab.pool, 0, 8 * SECTION_SIZE + 2 * pieces * PAGE, PAGE);
    } while (status == MM_OK && ++pieces < 1000);
    assert_int_equal(status, MM_ERR_LIMIT);
    assert_in_range(pieces, 5, 16);
    assert_online_refused(&lab, 0, 8 * SECTION_SIZE + 2 * pieces * PAGE, PAGE, MM_ERR_LIMIT);
    assert_int_equal(lab_stats(&lab, 0).managed, SECTION_FRAMES + pieces);
    lab_end(&lab);
}

/* ---- off-line -------------------------------------------------------------------------------- */

struct mover {
    unsigned calls;
    unsigned refuse_at; /* the call that is refused; 0: none; ~0: all */
    mm_pa_t first, end; /* `to` must be outside */
    mm_pa_t from[8], to[8];
};

static enum mm_status migrate(void *ctx, struct mm_frame_pool *pool, mm_pa_t from, mm_pa_t to)
{
    struct mover *mover = ctx;

    assert_int_equal(mm_frame_is_free(pool, from), 0);
    assert_int_equal(mm_frame_is_free(pool, to), 0);
    assert_true(to < mover->first || to >= mover->end);
    if (mover->calls < 8) {
        mover->from[mover->calls] = from;
        mover->to[mover->calls] = to;
    }
    mover->calls++;
    return mover->calls == mover->refuse_at || mover->refuse_at == ~0u ? MM_ERR_BUSY : MM_OK;
}

static void mover_begin(struct mover *mover, mm_pa_t first, mm_pa_t end)
{
    memset(mover, 0, sizeof *mover);
    mover->first = first;
    mover->end = end;
}

static void free_memory_goes_offline(void **state)
{
    struct mm_frame_offline_result result;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(
        mm_frame_offline(&lab.pool, SECTION_SIZE + 100 * PAGE, 200 * PAGE, NULL, NULL, &result),
        MM_OK);
    assert_int_equal(result.busy, 0);
    assert_int_equal(result.moved, 0);
    assert_int_equal(result.first_busy, MM_PA_NONE);
    assert_int_equal(lab_stats(&lab, 0).managed, SECTION_FRAMES - 200);
    assert_int_equal(mm_frame_is_free(&lab.pool, SECTION_SIZE + 99 * PAGE), 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, SECTION_SIZE + 100 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free(&lab.pool, SECTION_SIZE + 100 * PAGE), MM_ERR_INVALID);
    assert_int_equal(lab_exhaust(&lab, 0), SECTION_FRAMES - 200);
    lab_end(&lab);
}

static void frames_in_use_keep_a_range_online(void **state)
{
    struct mm_frame_offline_result result;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 2 * SECTION_SIZE, 2 * SECTION_SIZE), MM_OK);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 3 * SECTION_SIZE + 7 * PAGE, 2), MM_OK);
    assert_int_equal(
        mm_frame_offline(&lab.pool, SECTION_SIZE, 3 * SECTION_SIZE, NULL, NULL, &result),
        MM_ERR_BUSY);
    assert_int_equal(result.busy, 2);
    assert_int_equal(result.moved, 0);
    assert_int_equal(result.first_busy, 3 * SECTION_SIZE + 7 * PAGE);
    assert_int_equal(mm_frame_offline(&lab.pool, 3 * SECTION_SIZE, PAGE * 8, NULL, NULL, NULL),
                     MM_ERR_BUSY);
    assert_healthy(&lab, 2);
    assert_int_equal(lab_stats(&lab, 0).managed, 3 * SECTION_FRAMES);
    assert_int_equal(lab_exhaust(&lab, 0), 3 * SECTION_FRAMES - 2);
    lab_end(&lab);
}

static void frames_in_use_are_moved_out_of_the_range(void **state)
{
    struct mm_frame_offline_result result;
    struct mover mover;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    mover_begin(&mover, SECTION_SIZE, SECTION_SIZE + 2048 * PAGE);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, SECTION_SIZE + 5 * PAGE, 3), MM_OK);
    assert_int_equal(
        mm_frame_offline(&lab.pool, mover.first, 2048 * PAGE, migrate, &mover, &result), MM_OK);
    assert_int_equal(mover.calls, 3);
    assert_int_equal(result.moved, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(mover.from[i], SECTION_SIZE + (5 + i) * PAGE);
        assert_int_equal(mm_frame_free(&lab.pool, mover.to[i]), MM_OK);
    }
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

static void a_huge_block_in_use_is_moved_frame_by_frame(void **state)
{
    struct mm_frame_offline_result result;
    struct mover mover;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), SECTION_SIZE);
    mover_begin(&mover, SECTION_SIZE, SECTION_SIZE + 512 * PAGE);
    assert_int_equal(mm_frame_offline(&lab.pool, mover.first, 512 * PAGE, migrate, &mover, &result),
                     MM_OK);
    assert_int_equal(result.moved, 512);
    assert_healthy(&lab, 512);
    assert_int_equal(mm_frame_online(&lab.pool, 0, SECTION_SIZE, 512 * PAGE), MM_OK);
    assert_healthy(&lab, 512);
    assert_int_equal(mm_frame_is_free(&lab.pool, SECTION_SIZE), 1);
    lab_end(&lab);
}

static void part_of_a_huge_block_goes_offline(void **state)
{
    struct mover mover;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), SECTION_SIZE);
    mover_begin(&mover, SECTION_SIZE, SECTION_SIZE + PAGE);
    assert_int_equal(mm_frame_offline(&lab.pool, mover.first, PAGE, migrate, &mover, NULL), MM_OK);
    assert_healthy(&lab, 512);
    assert_int_equal(mm_frame_free_order(&lab.pool, SECTION_SIZE, 9), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free_run(&lab.pool, SECTION_SIZE + PAGE, 511), MM_OK);
    assert_healthy(&lab, 1);
    lab_end(&lab);
}

static void what_moved_before_a_refusal_stays_moved(void **state)
{
    struct mm_frame_offline_result result;
    struct mover mover;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    mover_begin(&mover, SECTION_SIZE, SECTION_SIZE + 100 * PAGE);
    mover.refuse_at = 2;
    assert_int_equal(mm_frame_alloc_at(&lab.pool, SECTION_SIZE + 5 * PAGE, 3), MM_OK);
    assert_int_equal(mm_frame_offline(&lab.pool, mover.first, 100 * PAGE, migrate, &mover, &result),
                     MM_ERR_BUSY);
    assert_int_equal(result.moved, 2);
    assert_int_equal(result.busy, 1);
    assert_int_equal(result.first_busy, SECTION_SIZE + 6 * PAGE);
    assert_int_equal(mm_frame_is_free(&lab.pool, SECTION_SIZE + 5 * PAGE), 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, SECTION_SIZE + 6 * PAGE), 0);
    /* what was meant for it serves the next one, or is free */
    assert_true(mover.to[1] == mover.to[2] || mm_frame_is_free(&lab.pool, mover.to[1]) == 1);
    assert_healthy(&lab, 3);
    lab_end(&lab);
}

static void with_nowhere_to_move_a_range_stays_online(void **state)
{
    struct mm_frame_offline_result result;
    struct mover mover;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    mover_begin(&mover, SECTION_SIZE, SECTION_SIZE + 100 * PAGE);
    (void)lab_exhaust(&lab, 0);
    assert_int_equal(mm_frame_offline(&lab.pool, mover.first, 100 * PAGE, migrate, &mover, &result),
                     MM_ERR_BUSY);
    assert_int_equal(mover.calls, 0);
    assert_int_equal(result.busy, 100);
    assert_healthy(&lab, SECTION_FRAMES);
    lab_end(&lab);
}

static void offline_refuses_bad_ranges(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
#define offline(pa, size) mm_frame_offline(&lab.pool, pa, size, NULL, NULL, NULL)
    assert_refused(&lab, offline(SECTION_SIZE + 1, PAGE), MM_ERR_ALIGN);
    assert_refused(&lab, offline(SECTION_SIZE, PAGE + 1), MM_ERR_ALIGN);
    assert_refused(&lab, offline(SECTION_SIZE, 0), MM_ERR_INVALID);
    assert_refused(&lab, offline(0 - PAGE, 2 * PAGE), MM_ERR_INVALID);
    assert_refused(&lab, offline(SECTION_SIZE - PAGE, 2 * PAGE), MM_ERR_NOENT);
    assert_refused(&lab, offline(2 * SECTION_SIZE - PAGE, 2 * PAGE), MM_ERR_NOENT);
#undef offline
    lab_end(&lab);
}

static void offline_stops_when_no_span_is_left(void **state)
{
    enum mm_status status;
    unsigned holes = 0;
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    do {
        status = mm_frame_offline(&lab.pool, SECTION_SIZE + (2 * holes + 1) * PAGE, PAGE, NULL,
                                  NULL, NULL);
    } while (status == MM_OK && ++holes < 1000);
    assert_int_equal(status, MM_ERR_LIMIT);
    assert_in_range(holes, 5, 16);
    assert_int_equal(lab_stats(&lab, 0).managed, SECTION_FRAMES - holes);
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

static void a_section_that_went_offline_comes_back(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(mm_frame_offline(&lab.pool, SECTION_SIZE, SECTION_SIZE, NULL, NULL, NULL),
                         MM_OK);
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
        assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), MM_PA_NONE);
        assert_int_equal(mm_frame_online(&lab.pool, 0, SECTION_SIZE, SECTION_SIZE), MM_OK);
        assert_int_equal(lab_run(&lab, SECTION_FRAMES, 0, 0, 0, 0), SECTION_SIZE);
        assert_int_equal(mm_frame_free_run(&lab.pool, SECTION_SIZE, SECTION_FRAMES), MM_OK);
    }
    assert_int_equal(lab_stats(&lab, 0).sections, 1);
    lab_end(&lab);
}

static void a_vacant_section_is_found_again_after_others_came(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_offline(&lab.pool, SECTION_SIZE, SECTION_SIZE, NULL, NULL, NULL),
                     MM_OK);
    assert_int_equal(mm_frame_online(&lab.pool, 0, 8 * SECTION_SIZE, 2 * SECTION_SIZE), MM_OK);
    assert_int_equal(mm_frame_online(&lab.pool, 0, SECTION_SIZE, SECTION_SIZE), MM_OK);
    assert_int_equal(lab_exhaust(&lab, 0), 3 * SECTION_FRAMES);
    lab_end(&lab);
}

static void the_remembered_span_is_forgotten_when_it_goes(void **state)
{
    struct lab lab;

    (void)state;
    plug_begin(&lab);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, SECTION_SIZE, 20), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, SECTION_SIZE + 3 * PAGE), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, SECTION_SIZE + 4 * PAGE), MM_OK);
    assert_int_equal(mm_frame_offline(&lab.pool, SECTION_SIZE + 3 * PAGE, PAGE, NULL, NULL, NULL),
                     MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, SECTION_SIZE + 3 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free(&lab.pool, SECTION_SIZE + 5 * PAGE), MM_OK);
    lab_end(&lab);
}

/* ---- compaction ------------------------------------------------------------------------------ */

/* Eight huge blocks with 9, 2, 300, 0, 512, 40, 512, 3 frames in use. */
static void compact_begin(struct lab *lab)
{
    static const uint64_t used[8] = {9, 2, 300, 0, 512, 40, 512, 3};

    lab_simple(lab, 8 * 512);
    for (uint64_t i = 0; i < 8; i++)
        if (used[i] != 0)
            assert_int_equal(mm_frame_alloc_at(&lab->pool, i * 512 * PAGE, used[i]), MM_OK);
}

static void compact_empties_the_block_with_the_fewest_frames(void **state)
{
    struct mover mover;
    struct lab lab;
    mm_pa_t block;

    (void)state;
    compact_begin(&lab);
    mover_begin(&mover, 512 * PAGE, 1024 * PAGE);
    assert_int_equal(mm_frame_compact(&lab.pool, 0, migrate, &mover, &block), MM_OK);
    assert_int_equal(block, 512 * PAGE);
    assert_int_equal(mover.calls, 2);
    assert_healthy(&lab, 9 + 2 + 300 + 512 + 40 + 512 + 3);
    assert_int_equal(mm_frame_is_free(&lab.pool, 512 * PAGE), 1);
    lab_end(&lab);
}

static void each_compaction_makes_one_more_whole_block(void **state)
{
    struct mover mover;
    struct lab lab;

    (void)state;
    compact_begin(&lab);
    mover_begin(&mover, MM_PA_NONE, MM_PA_NONE);
    for (uint64_t whole = 2; whole <= 5; whole++) {
        assert_int_equal(mm_frame_compact(&lab.pool, 0, migrate, &mover, NULL), MM_OK);
        assert_int_equal(lab_stats(&lab, 0).whole, whole);
    }
    lab_end(&lab);
}

static void compact_tells_why_it_cannot(void **state)
{
    struct mover mover;
    struct lab lab;

    (void)state;
    mover_begin(&mover, MM_PA_NONE, MM_PA_NONE);
    lab_simple(&lab, 1024);
    assert_int_equal(mm_frame_compact(&lab.pool, 1, migrate, &mover, NULL), MM_ERR_INVALID);
    assert_int_equal(mm_frame_compact(&lab.pool, 0, NULL, NULL, NULL), MM_ERR_INVALID);
    assert_int_equal(mm_frame_compact(&lab.pool, 0, migrate, &mover, NULL), MM_ERR_NOENT);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), 0);
    assert_int_equal(mm_frame_compact(&lab.pool, 0, migrate, &mover, NULL), MM_ERR_NOENT);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 512 * PAGE, 500), MM_OK);
    assert_int_equal(mm_frame_compact(&lab.pool, 0, migrate, &mover, NULL), MM_ERR_NOMEM);
    assert_int_equal(mover.calls, 0);
    assert_healthy(&lab, 1012);
    lab_end(&lab);
}

static void a_frame_that_cannot_move_ends_compaction(void **state)
{
    struct mover mover;
    struct lab lab;

    (void)state;
    compact_begin(&lab);
    mover_begin(&mover, 512 * PAGE, 1024 * PAGE);
    mover.refuse_at = 2;
    assert_int_equal(mm_frame_compact(&lab.pool, 0, migrate, &mover, NULL), MM_ERR_BUSY);
    assert_healthy(&lab, 9 + 2 + 300 + 512 + 40 + 512 + 3);
    assert_int_equal(mm_frame_is_free(&lab.pool, 512 * PAGE), 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, 513 * PAGE), 0);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_comes_online_is_free),
        cmocka_unit_test(a_pool_may_start_without_memory),
        cmocka_unit_test(part_of_a_section_comes_online),
        cmocka_unit_test(online_refuses_what_is_there_already),
        cmocka_unit_test(online_refuses_bad_ranges),
        cmocka_unit_test(online_stops_when_no_spare_section_is_left),
        cmocka_unit_test(online_stops_when_no_span_is_left),
        cmocka_unit_test(free_memory_goes_offline),
        cmocka_unit_test(frames_in_use_keep_a_range_online),
        cmocka_unit_test(frames_in_use_are_moved_out_of_the_range),
        cmocka_unit_test(a_huge_block_in_use_is_moved_frame_by_frame),
        cmocka_unit_test(part_of_a_huge_block_goes_offline),
        cmocka_unit_test(what_moved_before_a_refusal_stays_moved),
        cmocka_unit_test(with_nowhere_to_move_a_range_stays_online),
        cmocka_unit_test(offline_refuses_bad_ranges),
        cmocka_unit_test(offline_stops_when_no_span_is_left),
        cmocka_unit_test(a_section_that_went_offline_comes_back),
        cmocka_unit_test(a_vacant_section_is_found_again_after_others_came),
        cmocka_unit_test(the_remembered_span_is_forgotten_when_it_goes),
        cmocka_unit_test(compact_empties_the_block_with_the_fewest_frames),
        cmocka_unit_test(each_compaction_makes_one_more_whole_block),
        cmocka_unit_test(compact_tells_why_it_cannot),
        cmocka_unit_test(a_frame_that_cannot_move_ends_compaction),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
