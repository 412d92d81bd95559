/* Allocation and freeing on one CPU: single frames, blocks, runs, ranges, bulk, and what is
 * refused. */
#include "frame_test.h"

#define HUGE_FRAMES    ((uint64_t)512)
#define HUGE_SIZE      (HUGE_FRAMES * PAGE)
#define SECTION_FRAMES ((uint64_t)4096)

/* ---- single frames --------------------------------------------------------------------------- */

static void every_frame_is_handed_out_once(void **state)
{
    static bool seen[10000];
    struct lab lab;

    (void)state;
    lab_simple(&lab, 10000);
    memset(seen, 0, sizeof seen);
    for (unsigned i = 0; i < 10000; i++) {
        const mm_pa_t pa = mm_frame_alloc(&lab.pool, 0);
        assert_int_equal(pa % PAGE, 0);
        assert_true(pa / PAGE < 10000 && !seen[pa / PAGE]);
        seen[pa / PAGE] = true;
    }
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_healthy(&lab, 10000);
    lab_end(&lab);
}

static void a_freed_frame_can_be_allocated_again(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 5000);
    assert_int_equal(lab_exhaust(&lab, 0), 5000);
    for (uint64_t i = 0; i < 5000; i += 7) {
        assert_int_equal(mm_frame_free(&lab.pool, i * PAGE), MM_OK);
        assert_int_equal(mm_frame_is_free(&lab.pool, i * PAGE), 1);
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
        assert_int_equal(mm_frame_is_free(&lab.pool, i * PAGE), 0);
    }
    lab_end(&lab);
}

static void lowest_first_takes_the_lowest_free_frame_of_a_word(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 1000);
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
    assert_int_equal(mm_frame_free(&lab.pool, 900 * PAGE), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, 70 * PAGE), MM_OK);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 70 * PAGE);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 900 * PAGE);
    lab_end(&lab);
}

static void next_fit_goes_on_in_the_section_of_the_last_allocation(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 3 * SECTION_FRAMES * PAGE, MM_FRAME_USABLE);
    lab.config.policy = MM_FRAME_NEXT_FIT;
    lab_start(&lab);
    for (uint64_t i = 0; i < SECTION_FRAMES + 64; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, 128), MM_OK);
    for (uint64_t i = SECTION_FRAMES + 64; i < 2 * SECTION_FRAMES; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
    assert_int_equal(lab_exhaust(&lab, 0), SECTION_FRAMES + 128);
    lab_end(&lab);
}

static void bad_flags_allocate_nothing(void **state)
{
    static const unsigned bad[] = {
        MM_FRAME_ZONE(1), MM_FRAME_ZONE(7), MM_FRAME_ZONE(8), MM_FRAME_ZONE(15), 256u,
        1u << 31,         MM_FRAME_ZERO};
    const struct mm_frame_request plain = {1, 0, 0, 0, 0, 0};
    struct mm_frame_request request = plain;
    mm_pa_t out[2];
    struct lab lab;

    (void)state;
    lab_simple(&lab, 1000);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        request.flags = bad[i];
        assert_refused(&lab, mm_frame_alloc(&lab.pool, bad[i]), MM_PA_NONE);
        assert_refused(&lab, mm_frame_alloc_order(&lab.pool, 3, bad[i]), MM_PA_NONE);
        assert_refused(&lab, mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, bad[i]),
                       MM_PA_NONE);
        assert_refused(&lab, mm_frame_alloc_run(&lab.pool, &request), MM_PA_NONE);
        assert_refused(&lab, mm_frame_alloc_bulk(&lab.pool, 2, bad[i], out), 0);
    }
    lab_end(&lab);
}

/* ---- what free refuses ----------------------------------------------------------------------- */

/* 100 frames from 16 on, a hole, 100 from 300 on; the first half of each is allocated. */
static void refuse_begin(struct lab *lab)
{
    lab_begin(lab);
    lab_range(lab, 16 * PAGE, 100 * PAGE, MM_FRAME_USABLE);
    lab_range(lab, 300 * PAGE, 100 * PAGE, MM_FRAME_USABLE);
    lab_start(lab);
    assert_int_equal(mm_frame_alloc_at(&lab->pool, 16 * PAGE, 50), MM_OK);
    assert_int_equal(mm_frame_alloc_at(&lab->pool, 300 * PAGE, 50), MM_OK);
    (void)mm_frame_free(&lab->pool, mm_frame_alloc(&lab->pool, 0)); /* the section is this CPU's */
}

static void a_double_free_is_refused(void **state)
{
    struct lab lab;

    (void)state;
    refuse_begin(&lab);
    assert_int_equal(mm_frame_free(&lab.pool, 20 * PAGE), MM_OK);
    assert_refused(&lab, mm_frame_free(&lab.pool, 20 * PAGE), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free(&lab.pool, 70 * PAGE), MM_ERR_INVALID);
    assert_int_equal(lab_stats(&lab, 0).refused, 2);
    lab_end(&lab);
}

static void a_free_outside_the_pool_is_refused(void **state)
{
    static const uint64_t wild[] = {0, 15, 116, 299, 400, 4096, 1 << 20, UINT64_MAX / 4096};
    struct lab lab;

    (void)state;
    refuse_begin(&lab);
    for (unsigned i = 0; i < sizeof wild / sizeof wild[0]; i++) {
        const mm_pa_t pa = wild[i] * PAGE;
        assert_refused(&lab, mm_frame_free(&lab.pool, pa), MM_ERR_INVALID);
        assert_refused(&lab, mm_frame_free_run(&lab.pool, pa, 1), MM_ERR_INVALID);
        assert_refused(&lab, mm_frame_free_order(&lab.pool, pa, 0), MM_ERR_INVALID);
        assert_refused(&lab, mm_frame_free_bulk(&lab.pool, 1, &pa, NULL), 0);
        assert_int_equal(mm_frame_is_free(&lab.pool, pa), MM_ERR_INVALID);
    }
    lab_end(&lab);
}

static void a_misaligned_free_is_refused(void **state)
{
    const mm_pa_t odd = 20 * PAGE + 8;
    enum mm_status status;
    struct lab lab;

    (void)state;
    refuse_begin(&lab);
    assert_refused(&lab, mm_frame_free(&lab.pool, odd), MM_ERR_ALIGN);
    assert_refused(&lab, mm_frame_free(&lab.pool, MM_PA_NONE), MM_ERR_ALIGN);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, odd, 2), MM_ERR_ALIGN);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, odd, 0), MM_ERR_ALIGN);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 17 * PAGE, 1), MM_ERR_ALIGN);
    assert_refused(&lab, mm_frame_free_bulk(&lab.pool, 1, &odd, &status), 0);
    assert_int_equal(status, MM_ERR_ALIGN);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, odd, 1), MM_ERR_ALIGN);
    lab_end(&lab);
}

static void free_run_is_all_or_nothing(void **state)
{
    struct lab lab;

    (void)state;
    refuse_begin(&lab);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 16 * PAGE, 51), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 15 * PAGE, 2), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 16 * PAGE, 0), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 16 * PAGE, UINT64_MAX), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 16 * PAGE, UINT64_MAX / 4096 - 15),
                   MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 60 * PAGE, 20), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free_run(&lab.pool, 16 * PAGE, 50), MM_OK);
    assert_refused(&lab, mm_frame_free_run(&lab.pool, 16 * PAGE, 50), MM_ERR_INVALID);
    lab_end(&lab);
}

static void free_order_is_all_or_nothing(void **state)
{
    struct lab lab;

    (void)state;
    refuse_begin(&lab);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 64 * PAGE, 4), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 0, 40), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 0, 52), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 0, 63), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 0, 64), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 0, ~0u), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free_order(&lab.pool, 32 * PAGE, 5), MM_OK);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 32 * PAGE, 5), MM_ERR_INVALID);
    lab_end(&lab);
}

static void refused_frees_are_counted_and_reported(void **state)
{
    struct lab lab;

    (void)state;
    refuse_begin(&lab);
    lab_reports = 0;
    assert_int_equal(mm_frame_free(&lab.pool, 70 * PAGE), MM_ERR_INVALID);
#if MM_DEBUG >= 1
    assert_int_equal(lab_reports, 1);
    assert_string_equal(lab_last_report.where, "mm_frame_free");
    assert_string_equal(lab_last_report.what, "double free");
    assert_int_equal(lab_last_report.status, MM_ERR_INVALID);
    assert_int_equal(lab_last_report.address, 70 * PAGE);
    assert_ptr_equal(lab_last_report.object, &lab.pool);
    assert_int_equal(mm_frame_free_order(&lab.pool, 200 * PAGE, 3), MM_ERR_INVALID);
    assert_string_equal(lab_last_report.where, "mm_frame_free_order");
    assert_string_equal(lab_last_report.what, "wild free");
    assert_int_equal(mm_frame_free_run(&lab.pool, 20 * PAGE + 1, 3), MM_ERR_ALIGN);
    assert_string_equal(lab_last_report.what, "misaligned free");
    assert_int_equal(lab_stats(&lab, 0).refused, 3);
#else
    assert_int_equal(lab_reports, 0);
    assert_int_equal(lab_stats(&lab, 0).refused, 1);
#endif
    lab_end(&lab);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void a_block_is_aligned_to_its_size(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned order = 0; order <= 13; order++) {
        const uint64_t frames = (uint64_t)1 << order;
        mm_pa_t pa;
        lab_begin(&lab);
        lab_range(&lab, 3 * PAGE, 40000 * PAGE, MM_FRAME_USABLE);
        lab_start(&lab);
        for (unsigned i = 0; (pa = mm_frame_alloc_order(&lab.pool, order, 0)) != MM_PA_NONE; i++) {
            assert_int_equal(pa % (frames * PAGE), 0);
            assert_int_equal(lab_stats(&lab, 0).used, (i + 1) * frames);
        }
        /* as many as fit between frames 3 and 40,003 */
        assert_int_equal(lab_stats(&lab, 0).used / frames,
                         40003 / frames - (3 + frames - 1) / frames);
        lab_end(&lab);
    }
}

static void a_block_can_be_freed_in_parts(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * HUGE_FRAMES);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), 0);
    assert_int_equal(mm_frame_free(&lab.pool, 100 * PAGE), MM_OK);
    assert_refused(&lab, mm_frame_free_order(&lab.pool, 0, MM_FRAME_HUGE_ORDER), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_free(&lab.pool, 100 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, 100), MM_OK);
    assert_int_equal(mm_frame_free_run(&lab.pool, 101 * PAGE, HUGE_FRAMES - 101), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).whole, 2);
    lab_end(&lab);
}

static void frames_freed_one_by_one_heal_their_huge_block(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * HUGE_FRAMES);
    assert_int_equal(lab_exhaust(&lab, 0), 2 * HUGE_FRAMES);
    assert_int_equal(lab_stats(&lab, 0).whole, 0);
    for (uint64_t i = 0; i < HUGE_FRAMES; i++) {
        assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), MM_PA_NONE);
        assert_int_equal(mm_frame_free(&lab.pool, (HUGE_FRAMES + (i * 37) % HUGE_FRAMES) * PAGE),
                         MM_OK);
    }
    assert_int_equal(lab_stats(&lab, 0).whole, 1);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), HUGE_SIZE);
    lab_end(&lab);
}

static void a_huge_block_is_found_whose_word_is_in_hand(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, HUGE_FRAMES);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), 0);
        assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), MM_PA_NONE);
        assert_int_equal(mm_frame_free(&lab.pool, 0), MM_OK);
        assert_int_equal(lab_stats(&lab, 0).whole, 1);
        assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), 0);
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
        assert_int_equal(mm_frame_free_order(&lab.pool, 0, MM_FRAME_HUGE_ORDER), MM_OK);
    }
    lab_end(&lab);
}

static void a_frame_inside_a_huge_block_is_not_free(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, HUGE_FRAMES);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), 0);
    for (uint64_t i = 0; i < HUGE_FRAMES; i += 63) {
        assert_int_equal(mm_frame_is_free(&lab.pool, i * PAGE), 0);
        assert_int_equal(mm_frame_alloc_at(&lab.pool, i * PAGE, 1), MM_ERR_BUSY);
    }
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 0, 0), MM_PA_NONE);
    lab_end(&lab);
}

static void a_giant_block_is_aligned_and_freed_at_once(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 5 * MIB, 3 * GIB, MM_FRAME_USABLE);
    lab_start(&lab);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 5 * MIB);
    pa = mm_frame_alloc_order(&lab.pool, MM_FRAME_GIANT_ORDER, 0);
    assert_true(pa == GIB || pa == 2 * GIB);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_GIANT_ORDER, 0), 3 * GIB - pa);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_GIANT_ORDER, 0), MM_PA_NONE);
    assert_healthy(&lab, 1 + 2 * GIB / PAGE);
    assert_int_equal(mm_frame_free_order(&lab.pool, pa, MM_FRAME_GIANT_ORDER), MM_OK);
    assert_int_equal(mm_frame_free_order(&lab.pool, pa, MM_FRAME_GIANT_ORDER), MM_ERR_INVALID);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_GIANT_ORDER, 0), pa);
    lab_end(&lab);
}

static void orders_beyond_any_memory_fail(void **state)
{
    static const unsigned orders[] = {19, 40, 51, 52, 62, 63, 64, 65, ~0u};
    struct lab lab;

    (void)state;
    lab_simple(&lab, 1000);
    for (unsigned i = 0; i < sizeof orders / sizeof orders[0]; i++)
        assert_refused(&lab, mm_frame_alloc_order(&lab.pool, orders[i], 0), MM_PA_NONE);
    lab_end(&lab);
}

static void small_blocks_fill_gaps_of_every_word(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, SECTION_FRAMES);
    assert_int_equal(lab_exhaust(&lab, 0), SECTION_FRAMES);
    for (uint64_t i = 0; i < SECTION_FRAMES; i += 64)
        assert_int_equal(mm_frame_free_run(&lab.pool, (i + 24) * PAGE, 9), MM_OK);
    for (uint64_t i = 0; i < SECTION_FRAMES; i += 64) {
        const mm_pa_t pa = mm_frame_alloc_order(&lab.pool, 3, 0);
        assert_int_not_equal(pa, MM_PA_NONE);
        assert_int_equal(pa / PAGE % 64, 24);
    }
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 1, 0), MM_PA_NONE);
    assert_int_equal(lab_exhaust(&lab, 0), SECTION_FRAMES / 64);
    lab_end(&lab);
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void a_run_may_cross_words_blocks_and_sections(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 3 * SECTION_FRAMES);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 0, 100), MM_OK);
    assert_int_equal(lab_run(&lab, 2 * SECTION_FRAMES + 77, 0, 0, 0, 0), 100 * PAGE);
    assert_healthy(&lab, 2 * SECTION_FRAMES + 177);
    assert_int_equal(mm_frame_free_run(&lab.pool, 100 * PAGE, 2 * SECTION_FRAMES + 77), MM_OK);
    assert_healthy(&lab, 100);
    lab_end(&lab);
}

static void a_run_keeps_to_its_alignment(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 3 * SECTION_FRAMES);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 0);
    for (uint64_t align = PAGE; align <= SECTION_FRAMES * PAGE; align *= 2) {
        const mm_pa_t pa = lab_run(&lab, 5, align, 0, 0, 0);
        assert_int_not_equal(pa, MM_PA_NONE);
        assert_int_equal(pa % align, 0);
    }
    lab_end(&lab);
}

static void a_run_does_not_cross_its_boundary(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, SECTION_FRAMES);
    for (unsigned i = 0; i < 200; i++) {
        const mm_pa_t pa = lab_run(&lab, 5, 0, 16 * PAGE, 0, 0);
        assert_int_not_equal(pa, MM_PA_NONE);
        assert_int_equal(pa / (16 * PAGE), (pa + 5 * PAGE - 1) / (16 * PAGE));
    }
    assert_int_not_equal(lab_run(&lab, 16, 0, 16 * PAGE, 0, 0), MM_PA_NONE);
    lab_end(&lab);
}

static void a_run_that_fits_only_across_its_boundary_fails(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 12 * PAGE, 8 * PAGE, MM_FRAME_USABLE);
    lab_start(&lab);
    assert_int_equal(lab_run(&lab, 5, 0, 16 * PAGE, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 4, 0, 16 * PAGE, 0, 0), 12 * PAGE);
    assert_int_equal(lab_run(&lab, 4, 0, 16 * PAGE, 0, 0), 16 * PAGE);
    lab_end(&lab);
}

static void a_run_stays_within_its_limits(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    assert_int_equal(lab_run(&lab, 10, 0, 0, 1000 * PAGE, 1010 * PAGE), 1000 * PAGE);
    assert_int_equal(lab_run(&lab, 10, 0, 0, 1000 * PAGE, 1010 * PAGE), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 10, 0, 0, 999 * PAGE + 1, 1020 * PAGE + 4095), 1010 * PAGE);
    assert_int_equal(lab_run(&lab, 1, 0, 0, 2 * SECTION_FRAMES * PAGE, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 1, 0, 0, (2 * SECTION_FRAMES - 1) * PAGE, 0),
                     (2 * SECTION_FRAMES - 1) * PAGE);
    assert_int_equal(lab_run(&lab, 3, 0, 0, 0, 3 * PAGE), 0);
    lab_end(&lab);
}

static void a_run_that_contradicts_itself_fails(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    assert_refused(&lab, lab_run(&lab, 0, 0, 0, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, UINT64_MAX, 0, 0, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, (uint64_t)1 << 52, 0, 0, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, 1, 3 * PAGE, 0, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, 1, 0, 3 * PAGE, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, 1, 0, PAGE / 2, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, 3, 0, 2 * PAGE, 0, 0), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, 3, 0, 0, 5 * PAGE, 7 * PAGE), MM_PA_NONE);
    assert_refused(&lab, lab_run(&lab, 1, 0, 0, 5 * PAGE, 5 * PAGE), MM_PA_NONE);
    lab_end(&lab);
}

static void an_alignment_below_a_page_or_no_power_of_two_fails(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 100);
    assert_int_equal(lab_run(&lab, 1, 3, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 1, PAGE / 2, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 1, PAGE + 8, 0, 0, 0), MM_PA_NONE);
    lab_end(&lab);
}

static void the_greatest_alignments_and_boundaries_are_met(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 100);
    assert_int_equal(lab_run(&lab, 1, (uint64_t)1 << 62, 0, 0, 0), 0);
    assert_int_equal(lab_run(&lab, 1, (uint64_t)1 << 62, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 1, (uint64_t)1 << 63, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 9, 0, (uint64_t)1 << 63, 0, 0), PAGE);
    assert_int_equal(lab_run(&lab, 1, 0, 0, 0, UINT64_MAX), 10 * PAGE);
    lab_end(&lab);
}

static void the_only_gap_is_found_wherever_it_is(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    assert_int_equal(lab_exhaust(&lab, 0), 2 * SECTION_FRAMES);
    for (uint64_t at = 0; at + 90 <= 2 * SECTION_FRAMES; at += 89) {
        assert_int_equal(mm_frame_free_run(&lab.pool, at * PAGE, 90), MM_OK);
        assert_int_equal(lab_run(&lab, 91, 0, 0, 0, 0), MM_PA_NONE);
        assert_int_equal(lab_run(&lab, 90, 0, 0, 0, 0), at * PAGE);
    }
    assert_healthy(&lab, 2 * SECTION_FRAMES);
    lab_end(&lab);
}

static void a_run_does_not_span_a_hole(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 100 * PAGE, MM_FRAME_USABLE);
    lab_range(&lab, 101 * PAGE, 100 * PAGE, MM_FRAME_USABLE);
    lab_start(&lab);
    assert_int_equal(lab_run(&lab, 101, 0, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 100, 0, 0, 0, 0), 0);
    assert_int_equal(lab_run(&lab, 100, 0, 0, 0, 0), 101 * PAGE);
    lab_end(&lab);
}

/* ---- frames at an address, ranges ------------------------------------------------------------ */

static void alloc_at_takes_just_these_frames(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 4000 * PAGE, 200), MM_OK);
    assert_healthy(&lab, 200);
    assert_int_equal(mm_frame_is_free(&lab.pool, 3999 * PAGE), 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, 4000 * PAGE), 0);
    assert_int_equal(mm_frame_is_free(&lab.pool, 4199 * PAGE), 0);
    assert_int_equal(mm_frame_is_free(&lab.pool, 4200 * PAGE), 1);
    lab_end(&lab);
}

static void alloc_at_is_all_or_nothing(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 5000 * PAGE, MM_FRAME_USABLE);
    lab_range(&lab, 6000 * PAGE, 100 * PAGE, MM_FRAME_USABLE);
    lab_start(&lab);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 4500 * PAGE, 1), MM_OK);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, 4000 * PAGE, 501), MM_ERR_BUSY);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, 4501 * PAGE, 500), MM_ERR_NOENT);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, 5500 * PAGE, 1), MM_ERR_NOENT);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, 0, 0), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, PAGE, UINT64_MAX), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_alloc_at(&lab.pool, PAGE, UINT64_MAX / PAGE + 1), MM_ERR_INVALID);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 4000 * PAGE, 500), MM_OK);
    lab_end(&lab);
}

/* Two zones that meet at frame 100, a hole at 200, frames up to 300. */
static void zones_meet(struct lab *lab)
{
    lab_begin(lab);
    lab_range(lab, 0, 200 * PAGE, MM_FRAME_USABLE);
    lab_range(lab, 210 * PAGE, 90 * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(lab, "low", 0, 100 * PAGE);
    (void)lab_zone(lab, "high", 100 * PAGE, MM_PA_NONE);
    lab_start(lab);
}

static void alloc_at_and_free_run_may_cross_zones(void **state)
{
    struct lab lab;

    (void)state;
    zones_meet(&lab);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 90 * PAGE, 20), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).used, 10);
    assert_int_equal(lab_stats(&lab, 1).used, 10);
    assert_int_equal(mm_frame_free_run(&lab.pool, 90 * PAGE, 20), MM_OK);
    lab_end(&lab);
}

static void reserve_takes_every_frame_of_a_range_and_passes_over_holes(void **state)
{
    uint64_t count = 4711;
    struct lab lab;

    (void)state;
    zones_meet(&lab);
    assert_int_equal(mm_frame_reserve(&lab.pool, 50 * PAGE + 1, 200 * PAGE, &count), MM_OK);
    assert_int_equal(count, 150 + 41);
    assert_int_equal(mm_frame_is_free(&lab.pool, 49 * PAGE), 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, 50 * PAGE), 0);
    assert_int_equal(mm_frame_is_free(&lab.pool, 250 * PAGE), 0);
    assert_int_equal(mm_frame_is_free(&lab.pool, 251 * PAGE), 1);
    assert_healthy(&lab, 191);
    assert_int_equal(mm_frame_release(&lab.pool, 50 * PAGE, 201 * PAGE, &count), MM_OK);
    assert_int_equal(count, 191);
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

static void reserve_is_all_or_nothing_over_spans(void **state)
{
    uint64_t count = 4711;
    struct lab lab;

    (void)state;
    zones_meet(&lab);
    (void)mm_frame_free(&lab.pool, mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(0)));
    (void)mm_frame_free(&lab.pool, mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(1)));
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 299 * PAGE, 1), MM_OK);
    assert_refused(&lab, mm_frame_reserve(&lab.pool, 0, 300 * PAGE, &count), MM_ERR_BUSY);
    assert_refused(&lab, mm_frame_reserve(&lab.pool, 299 * PAGE, 1, &count), MM_ERR_BUSY);
    assert_int_equal(count, 4711);
    assert_int_equal(mm_frame_reserve(&lab.pool, 0, 299 * PAGE, NULL), MM_OK);
    lab_end(&lab);
}

static void release_is_all_or_nothing_over_spans(void **state)
{
    uint64_t count = 4711;
    struct lab lab;

    (void)state;
    zones_meet(&lab);
    assert_int_equal(mm_frame_reserve(&lab.pool, 0, 300 * PAGE, NULL), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, 299 * PAGE), MM_OK);
    assert_refused_by_owner(&lab, mm_frame_release(&lab.pool, 0, 300 * PAGE, &count), MM_ERR_BUSY);
    assert_int_equal(count, 4711);
    assert_healthy(&lab, 289);
    assert_int_equal(mm_frame_release(&lab.pool, 0, 299 * PAGE, &count), MM_OK);
    assert_int_equal(count, 289);
    lab_end(&lab);
}

static void release_rounds_inward(void **state)
{
    uint64_t count;
    struct lab lab;

    (void)state;
    lab_simple(&lab, 100);
    assert_int_equal(mm_frame_reserve(&lab.pool, 0, 100 * PAGE, NULL), MM_OK);
    assert_int_equal(mm_frame_release(&lab.pool, 10 * PAGE + 1, 2 * PAGE, &count), MM_OK);
    assert_int_equal(count, 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, 11 * PAGE), 1);
    assert_int_equal(mm_frame_release(&lab.pool, 20 * PAGE + 1, PAGE, &count), MM_OK);
    assert_int_equal(count, 0);
    assert_healthy(&lab, 99);
    lab_end(&lab);
}

static void ranges_that_are_empty_or_wrap_are_invalid(void **state)
{
    uint64_t count = 4711;
    struct lab lab;

    (void)state;
    lab_simple(&lab, 100);
    assert_refused(&lab, mm_frame_reserve(&lab.pool, 0, 0, &count), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_release(&lab.pool, 0, 0, &count), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_reserve(&lab.pool, 2, UINT64_MAX, &count), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_release(&lab.pool, PAGE, UINT64_MAX, &count), MM_ERR_INVALID);
    assert_int_equal(count, 4711);
    assert_int_equal(mm_frame_reserve(&lab.pool, 1, UINT64_MAX, &count), MM_OK);
    assert_int_equal(count, 100);
    lab_end(&lab);
}

/* ---- bulk ------------------------------------------------------------------------------------ */

static void bulk_gives_as_many_as_there_are(void **state)
{
    static mm_pa_t out[6000];
    static bool seen[5000];
    struct lab lab;

    (void)state;
    lab_simple(&lab, 5000);
    memset(seen, 0, sizeof seen);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 6000, 0, out), 5000);
    for (unsigned i = 0; i < 5000; i++) {
        assert_true(out[i] / PAGE < 5000 && !seen[out[i] / PAGE]);
        seen[out[i] / PAGE] = true;
    }
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 1, 0, out), 0);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 0, 0, out), 0);
    lab_end(&lab);
}

static void bulk_free_takes_frames_in_any_order(void **state)
{
    static mm_pa_t out[5000];
    enum mm_status status = MM_ERR_CORRUPT;
    struct lab lab;

    (void)state;
    lab_simple(&lab, 5000);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 5000, 0, out), 5000);
    for (unsigned i = 0; i < 5000; i++)
        out[i] = (i * 1009 % 5000) * PAGE;
    assert_int_equal(mm_frame_free_bulk(&lab.pool, 5000, out, &status), 5000);
    assert_int_equal(status, MM_OK);
    assert_healthy(&lab, 0);
    assert_int_equal(lab_stats(&lab, 0).whole, 5000 / HUGE_FRAMES);
    assert_int_equal(mm_frame_free_bulk(&lab.pool, 0, out, &status), 0);
    lab_end(&lab);
}

static void bulk_free_stops_at_the_first_refused_frame(void **state)
{
    static const struct {
        mm_pa_t pa;
        enum mm_status status;
    } bad[] = {{10 * PAGE, MM_ERR_INVALID},  /* the same twice */
               {500 * PAGE, MM_ERR_INVALID}, /* never allocated */
               {5000 * PAGE, MM_ERR_INVALID},
               {20 * PAGE + 1, MM_ERR_ALIGN}};
    struct lab lab;

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (unsigned at = 0; at < 5; at++) {
            mm_pa_t frames[6] = {10 * PAGE, 11 * PAGE, 12 * PAGE, 200 * PAGE, 13 * PAGE, 14 * PAGE};
            enum mm_status status = MM_OK;
            lab_simple(&lab, 1000);
            assert_int_equal(mm_frame_alloc_at(&lab.pool, 0, 300), MM_OK);
            frames[at + 1] = bad[i].pa;
            assert_int_equal(mm_frame_free_bulk(&lab.pool, 6, frames, &status), at + 1);
            assert_int_equal(status, bad[i].status);
            assert_healthy(&lab, 300 - (at + 1));
            for (unsigned j = at + 2; j < 6; j++)
                assert_int_equal(mm_frame_is_free(&lab.pool, frames[j]), 0);
            lab_end(&lab);
        }
    }
}

static void bulk_free_of_a_huge_blocks_frames_heals_it(void **state)
{
    static mm_pa_t frames[512];
    struct lab lab;

    (void)state;
    lab_simple(&lab, HUGE_FRAMES);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), 0);
    for (unsigned i = 0; i < HUGE_FRAMES; i++)
        frames[i] = i * PAGE;
    assert_int_equal(mm_frame_free_bulk(&lab.pool, HUGE_FRAMES, frames, NULL), HUGE_FRAMES);
    assert_int_equal(mm_frame_free_bulk(&lab.pool, HUGE_FRAMES, frames, NULL), 0);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), 0);
    lab_end(&lab);
}

/* ---- zero-fill ------------------------------------------------------------------------------- */

struct zeroed {
    mm_pa_t pa[256];
    uint64_t size[256];
    unsigned count;
};

static void zero_hook(void *ctx, mm_pa_t pa, uint64_t size)
{
    struct zeroed *zeroed = ctx;

    zeroed->pa[zeroed->count] = pa;
    zeroed->size[zeroed->count++] = size;
}

static void zero_begin(struct zeroed *zeroed, struct lab *lab)
{
    memset(zeroed, 0, sizeof *zeroed);
    lab_begin(lab);
    lab_range(lab, 0, 4096 * PAGE, MM_FRAME_USABLE);
    lab->config.hooks.ctx = zeroed;
    lab->config.hooks.zero = zero_hook;
    lab_start(lab);
}

static void zero_fills_just_what_was_allocated(void **state)
{
    const struct mm_frame_request run = {37, 0, 0, 0, 0, MM_FRAME_ZERO};
    struct zeroed zeroed;
    struct lab lab;
    mm_pa_t pa[4], bulk[100];

    (void)state;
    zero_begin(&zeroed, &lab);
    pa[0] = mm_frame_alloc(&lab.pool, MM_FRAME_ZERO);
    pa[1] = mm_frame_alloc_order(&lab.pool, 3, MM_FRAME_ZERO);
    pa[2] = mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, MM_FRAME_ZERO);
    pa[3] = mm_frame_alloc_run(&lab.pool, &run);
    assert_int_equal(zeroed.count, 4);
    for (unsigned i = 0; i < 4; i++) {
        static const uint64_t frames[] = {1, 8, 512, 37};
        assert_int_equal(zeroed.pa[i], pa[i]);
        assert_int_equal(zeroed.size[i], frames[i] * PAGE);
    }
    zeroed.count = 0;
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 100, MM_FRAME_ZERO, bulk), 100);
    assert_int_equal(zeroed.count, 100);
    for (unsigned i = 0; i < 100; i++)
        assert_true(zeroed.pa[i] == bulk[i] && zeroed.size[i] == PAGE);
    lab_end(&lab);
}

static void nothing_is_zeroed_without_the_flag_or_without_a_frame(void **state)
{
    struct zeroed zeroed;
    struct lab lab;

    (void)state;
    zero_begin(&zeroed, &lab);
    assert_int_not_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_int_not_equal(mm_frame_alloc_order(&lab.pool, 4, 0), MM_PA_NONE);
    (void)lab_exhaust(&lab, 0);
    assert_int_equal(mm_frame_alloc(&lab.pool, MM_FRAME_ZERO), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 2, MM_FRAME_ZERO), MM_PA_NONE);
    assert_int_equal(zeroed.count, 0);
    lab_end(&lab);
}

/* ---- figures --------------------------------------------------------------------------------- */

static void statistics_tell_use_in_frames_and_percent(void **state)
{
    struct mm_frame_stats stats;
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2048);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 0, 700), MM_OK);
    stats = lab_stats(&lab, 0);
    assert_string_equal(stats.name, "Normal");
    assert_int_equal(stats.managed, 2048);
    assert_int_equal(stats.used, 700);
    assert_int_equal(stats.free, 1348);
    assert_int_equal(stats.percent, 34);
    assert_int_equal(stats.whole, 2);
    assert_int_equal(stats.sections, 1);
    assert_int_equal(mm_frame_free_count(&lab.pool, 0), 1348);
    assert_int_equal(mm_frame_free_count(&lab.pool, 1), 0);
    assert_int_equal(mm_frame_get_stats(&lab.pool, 1, &stats), MM_ERR_INVALID);
    lab_end(&lab);
}

static void failures_are_counted_in_the_preferred_zone(void **state)
{
    struct lab lab;

    (void)state;
    zones_meet(&lab);
    (void)lab_exhaust(&lab, MM_FRAME_ZONE(1));
    assert_int_equal(lab_stats(&lab, 1).failures, 1);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 2, MM_FRAME_ZONE(0)), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, MM_FRAME_ZONE(1)), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 5, 0, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(lab_stats(&lab, 0).failures, 2);
    assert_int_equal(lab_stats(&lab, 1).failures, 2);
    lab_end(&lab);
}

static void the_peak_is_right_but_for_a_word(void **state)
{
    struct lab lab;
    uint64_t peak;

    (void)state;
    lab_simple(&lab, 4096);
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, 1000), MM_OK);
    peak = lab_stats(&lab, 0).peak;
    assert_in_range(peak, 1000 - 64, 1000);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_is_handed_out_once),
        cmocka_unit_test(a_freed_frame_can_be_allocated_again),
        cmocka_unit_test(lowest_first_takes_the_lowest_free_frame_of_a_word),
        cmocka_unit_test(next_fit_goes_on_in_the_section_of_the_last_allocation),
        cmocka_unit_test(bad_flags_allocate_nothing),
        cmocka_unit_test(a_double_free_is_refused),
        cmocka_unit_test(a_free_outside_the_pool_is_refused),
        cmocka_unit_test(a_misaligned_free_is_refused),
        cmocka_unit_test(free_run_is_all_or_nothing),
        cmocka_unit_test(free_order_is_all_or_nothing),
        cmocka_unit_test(refused_frees_are_counted_and_reported),
        cmocka_unit_test(a_block_is_aligned_to_its_size),
        cmocka_unit_test(a_block_can_be_freed_in_parts),
        cmocka_unit_test(frames_freed_one_by_one_heal_their_huge_block),
        cmocka_unit_test(a_huge_block_is_found_whose_word_is_in_hand),
        cmocka_unit_test(a_frame_inside_a_huge_block_is_not_free),
        cmocka_unit_test(a_giant_block_is_aligned_and_freed_at_once),
        cmocka_unit_test(orders_beyond_any_memory_fail),
        cmocka_unit_test(small_blocks_fill_gaps_of_every_word),
        cmocka_unit_test(a_run_may_cross_words_blocks_and_sections),
        cmocka_unit_test(a_run_keeps_to_its_alignment),
        cmocka_unit_test(a_run_does_not_cross_its_boundary),
        cmocka_unit_test(a_run_that_fits_only_across_its_boundary_fails),
        cmocka_unit_test(a_run_stays_within_its_limits),
        cmocka_unit_test(a_run_that_contradicts_itself_fails),
        cmocka_unit_test(an_alignment_below_a_page_or_no_power_of_two_fails),
        cmocka_unit_test(the_greatest_alignments_and_boundaries_are_met),
        cmocka_unit_test(the_only_gap_is_found_wherever_it_is),
        cmocka_unit_test(a_run_does_not_span_a_hole),
        cmocka_unit_test(alloc_at_takes_just_these_frames),
        cmocka_unit_test(alloc_at_is_all_or_nothing),
        cmocka_unit_test(alloc_at_and_free_run_may_cross_zones),
        cmocka_unit_test(reserve_takes_every_frame_of_a_range_and_passes_over_holes),
        cmocka_unit_test(reserve_is_all_or_nothing_over_spans),
        cmocka_unit_test(release_is_all_or_nothing_over_spans),
        cmocka_unit_test(release_rounds_inward),
        cmocka_unit_test(ranges_that_are_empty_or_wrap_are_invalid),
        cmocka_unit_test(bulk_gives_as_many_as_there_are),
        cmocka_unit_test(bulk_free_takes_frames_in_any_order),
        cmocka_unit_test(bulk_free_stops_at_the_first_refused_frame),
        cmocka_unit_test(bulk_free_of_a_huge_blocks_frames_heals_it),
        cmocka_unit_test(zero_fills_just_what_was_allocated),
        cmocka_unit_test(nothing_is_zeroed_without_the_flag_or_without_a_frame),
        cmocka_unit_test(statistics_tell_use_in_frames_and_percent),
        cmocka_unit_test(failures_are_counted_in_the_preferred_zone),
        cmocka_unit_test(the_peak_is_right_but_for_a_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
