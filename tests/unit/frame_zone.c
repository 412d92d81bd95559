/* Zones: limits, fallback, watermarks, and the pressure hook. */
#include "frame_test.h"

/* ---- fallback -------------------------------------------------------------------------------- */

/* Zones given out of order: 0 "Normal" 1,000 .. 3,000, 1 "DMA" 0 .. 100, 2 "DMA32" 100 .. 1,000,
 * 3 "Device" 3,000 .. 3,100, isolated. */
static void zones_begin(struct lab *lab)
{
    lab_begin(lab);
    lab_range(lab, 0, 3100 * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(lab, "Normal", 1000 * PAGE, 3000 * PAGE);
    (void)lab_zone(lab, "DMA", 0, 100 * PAGE);
    (void)lab_zone(lab, "DMA32", 100 * PAGE, 1000 * PAGE);
    lab_zone(lab, "Device", 3000 * PAGE, MM_PA_NONE)->isolated = true;
    lab_start(lab);
}

static void assert_takes_from(struct lab *lab, unsigned flags, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++)
        assert_int_equal(mm_frame_alloc(&lab->pool, flags), i * PAGE);
}

static void a_zone_falls_back_to_the_zones_below_highest_first(void **state)
{
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    assert_takes_from(&lab, MM_FRAME_ZONE(0), 1000, 3000);
    assert_takes_from(&lab, MM_FRAME_ZONE(0), 100, 1000);
    assert_takes_from(&lab, MM_FRAME_ZONE(0), 0, 100);
    assert_int_equal(mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(0)), MM_PA_NONE);
    assert_healthy(&lab, 3000);
    lab_end(&lab);
}

static void a_zone_does_not_fall_back_to_zones_above(void **state)
{
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    assert_takes_from(&lab, MM_FRAME_ZONE(1), 0, 100);
    assert_int_equal(mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(1)), MM_PA_NONE);
    assert_takes_from(&lab, MM_FRAME_ZONE(2), 100, 1000);
    assert_int_equal(mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(2)), MM_PA_NONE);
    lab_end(&lab);
}

static void an_isolated_zone_is_used_only_when_asked_for(void **state)
{
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    assert_int_equal(lab_exhaust(&lab, MM_FRAME_ZONE(0)), 3000);
    assert_takes_from(&lab, MM_FRAME_ZONE(3), 3000, 3100);
    assert_int_equal(mm_frame_free(&lab.pool, 1500 * PAGE), MM_OK);
    assert_int_equal(mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(3)), 1500 * PAGE);
    lab_end(&lab);
}

static void an_isolated_zone_below_is_no_fallback(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 300 * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(&lab, "low", 0, 100 * PAGE);
    lab_zone(&lab, "device", 100 * PAGE, 200 * PAGE)->isolated = true;
    (void)lab_zone(&lab, "high", 200 * PAGE, 300 * PAGE);
    lab_start(&lab);
    assert_takes_from(&lab, MM_FRAME_ZONE(2), 200, 300);
    assert_takes_from(&lab, MM_FRAME_ZONE(2), 0, 100);
    assert_int_equal(mm_frame_alloc(&lab.pool, MM_FRAME_ZONE(2)), MM_PA_NONE);
    assert_int_equal(mm_frame_free_count(&lab.pool, 1), 100);
    lab_end(&lab);
}

static void only_keeps_to_one_zone(void **state)
{
    struct mm_frame_request request = {10, 0, 0, 0, 0, MM_FRAME_ZONE(0) | MM_FRAME_ONLY};
    mm_pa_t out[4];
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    assert_int_equal(lab_exhaust(&lab, MM_FRAME_ZONE(0) | MM_FRAME_ONLY), 2000);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 3, MM_FRAME_ONLY), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_run(&lab.pool, &request), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 4, MM_FRAME_ONLY, out), 0);
    request.flags = MM_FRAME_ZONE(0);
    assert_int_equal(mm_frame_alloc_run(&lab.pool, &request), 100 * PAGE);
    lab_end(&lab);
}

static void blocks_and_runs_fall_back_too(void **state)
{
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    for (uint64_t at = 1024; at + 512 <= 3000; at += 512)
        assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, MM_FRAME_ZONE(0)), at * PAGE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, MM_FRAME_ZONE(0)), MM_PA_NONE);
    assert_int_equal(lab_run(&lab, 900, 0, 0, 0, 0), 100 * PAGE);
    assert_int_equal(lab_run(&lab, 100, 0, 0, 0, 0), 2560 * PAGE);
    assert_int_equal(lab_run(&lab, 10, 0, 0, 0, 100 * PAGE), 0);
    lab_end(&lab);
}

static void bulk_goes_on_in_the_next_zone(void **state)
{
    static mm_pa_t out[3100];
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 3100, MM_FRAME_ZONE(0), out), 3000);
    assert_int_equal(out[0], 1000 * PAGE);
    assert_int_equal(out[2000], 100 * PAGE);
    assert_int_equal(out[2900], 0);
    assert_int_equal(mm_frame_free_bulk(&lab.pool, 3000, out, NULL), 3000);
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

static void frames_return_to_their_own_zone(void **state)
{
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    (void)lab_exhaust(&lab, MM_FRAME_ZONE(0));
    assert_int_equal(mm_frame_free(&lab.pool, 50 * PAGE), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, 500 * PAGE), MM_OK);
    assert_int_equal(mm_frame_free(&lab.pool, 2500 * PAGE), MM_OK);
    for (unsigned z = 0; z < 3; z++)
        assert_int_equal(mm_frame_free_count(&lab.pool, z), 1);
    lab_end(&lab);
}

static void a_zone_without_memory_serves_nothing_of_its_own(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 1000 * PAGE, 1000 * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(&lab, "empty", 0, 1000 * PAGE);
    (void)lab_zone(&lab, "full", 1000 * PAGE, 2000 * PAGE);
    (void)lab_zone(&lab, "empty too", 2000 * PAGE, MM_PA_NONE);
    lab_start(&lab);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, MM_FRAME_ZONE(1)), 1024 * PAGE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 3, MM_FRAME_ZONE(1)), 1000 * PAGE);
    for (unsigned order = 0; order < 12; order++) {
        assert_int_equal(mm_frame_alloc_order(&lab.pool, order, MM_FRAME_ZONE(0)), MM_PA_NONE);
        assert_int_equal(mm_frame_alloc_order(&lab.pool, order, MM_FRAME_ZONE(2) | MM_FRAME_ONLY),
                         MM_PA_NONE);
    }
    assert_int_equal(lab_exhaust(&lab, MM_FRAME_ZONE(2)), 1000 - 512 - 8);
    lab_end(&lab);
}

static void small_blocks_come_from_the_zone_asked_for(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned order = 1; order <= 6; order++) {
        zones_begin(&lab);
        assert_in_range(mm_frame_alloc_order(&lab.pool, order, MM_FRAME_ZONE(0)) / PAGE, 1000,
                        2999);
        assert_in_range(mm_frame_alloc_order(&lab.pool, order, MM_FRAME_ZONE(1)) / PAGE, 0, 99);
        assert_in_range(mm_frame_alloc_order(&lab.pool, order, MM_FRAME_ZONE(2)) / PAGE, 100, 999);
        assert_in_range(mm_frame_alloc_order(&lab.pool, order, MM_FRAME_ZONE(3)) / PAGE, 3000,
                        3099);
        lab_end(&lab);
    }
}

/* ---- watermarks ------------------------------------------------------------------------------ */

static void marks_begin(struct lab *lab, uint64_t frames, uint64_t min, uint64_t low, uint64_t high)
{
    struct mm_frame_zone_config *zone;

    lab_begin(lab);
    lab_range(lab, 0, frames * PAGE, MM_FRAME_USABLE);
    zone = lab_zone(lab, "Normal", 0, MM_PA_NONE);
    zone->min = min;
    zone->low = low;
    zone->high = high;
    lab_start(lab);
}

static void exactly_min_frames_stay_for_urgent_requests(void **state)
{
    struct lab lab;

    (void)state;
    for (uint64_t min = 1; min < 300; min += 37) {
        for (uint64_t low = min; low <= min + 200; low += 100) {
            marks_begin(&lab, 1000, min, low, low + 10);
            assert_int_equal(lab_exhaust(&lab, 0), 1000 - min);
            assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
            assert_int_equal(lab_exhaust(&lab, MM_FRAME_URGENT), min);
            lab_end(&lab);
        }
    }
}

static void frames_freed_below_min_stay_reserved(void **state)
{
    struct lab lab;

    (void)state;
    marks_begin(&lab, 1000, 100, 100, 100);
    (void)lab_exhaust(&lab, 0);
    (void)lab_exhaust(&lab, MM_FRAME_URGENT);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(mm_frame_free(&lab.pool, 3 * i * PAGE), MM_OK);
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    }
    assert_int_equal(mm_frame_free(&lab.pool, 999 * PAGE), MM_OK);
    assert_int_not_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    lab_end(&lab);
}

static void runs_and_blocks_stop_at_min(void **state)
{
    struct lab lab;

    (void)state;
    marks_begin(&lab, 1024, 512, 512, 512);
    assert_int_equal(lab_run(&lab, 513, 0, 0, 0, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), 0);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 1, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 1, MM_FRAME_URGENT), 512 * PAGE);
    assert_int_equal(mm_frame_free_order(&lab.pool, 512 * PAGE, 1), MM_OK);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, MM_FRAME_URGENT), 512 * PAGE);
    lab_end(&lab);
}

static void min_holds_when_a_word_is_in_hand_and_a_block_takes_the_rest(void **state)
{
    struct lab lab;

    (void)state;
    marks_begin(&lab, 1024, 500, 500, 500);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 0);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), 512 * PAGE);
    assert_int_equal(lab_exhaust(&lab, 0), 1024 - 512 - 1 - 500);
    lab_end(&lab);
}

static void min_holds_when_an_urgent_request_took_a_word(void **state)
{
    struct lab lab;

    (void)state;
    marks_begin(&lab, 1024, 500, 500, 500);
    assert_int_equal(lab_exhaust(&lab, 0), 524);
    assert_int_not_equal(mm_frame_alloc(&lab.pool, MM_FRAME_URGENT), MM_PA_NONE);
    assert_int_equal(lab_exhaust(&lab, 0), 0);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 1, 0, (mm_pa_t[1]){0}), 0);
    lab_end(&lab);
}

static void min_holds_after_blocks_were_freed(void **state)
{
    struct lab lab;

    (void)state;
    marks_begin(&lab, 16384, 9000, 9000, 9000);
    assert_int_equal(mm_frame_free(&lab.pool, mm_frame_alloc(&lab.pool, 0)), MM_OK);
    for (uint64_t i = 0; i < 24; i++)
        assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, MM_FRAME_URGENT), 512 * i * PAGE);
    for (uint64_t i = 0; i < 24; i++)
        assert_int_equal(mm_frame_free_order(&lab.pool, 512 * i * PAGE, 9), MM_OK);
    assert_int_equal(lab_exhaust(&lab, 0), 16384 - 9000);
    lab_end(&lab);
}

static void bulk_stops_at_min(void **state)
{
    static mm_pa_t out[1000];
    struct lab lab;

    (void)state;
    marks_begin(&lab, 1000, 77, 99, 120);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 1000, 0, out), 923);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 1000, MM_FRAME_URGENT, out), 77);
    lab_end(&lab);
}

static void a_zone_at_min_falls_back(void **state)
{
    struct lab lab;

    (void)state;
    zones_begin(&lab);
    free(lab.meta);
    lab.zone[0].min = lab.zone[0].low = lab.zone[0].high = 1990;
    lab_start(&lab);
    assert_takes_from(&lab, MM_FRAME_ZONE(0), 1000, 1010);
    assert_takes_from(&lab, MM_FRAME_ZONE(0), 100, 110);
    assert_takes_from(&lab, MM_FRAME_ZONE(0) | MM_FRAME_URGENT, 1010, 1020);
    lab_end(&lab);
}

static void alloc_at_and_reserve_disregard_watermarks(void **state)
{
    struct lab lab;

    (void)state;
    marks_begin(&lab, 100, 90, 95, 99);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 0, 50), MM_OK);
    assert_int_equal(mm_frame_reserve(&lab.pool, 50 * PAGE, 50 * PAGE, NULL), MM_OK);
    lab_end(&lab);
}

/* ---- pressure -------------------------------------------------------------------------------- */

struct pressed {
    unsigned low, fail;
    unsigned zone;        /* of the last call */
    uint64_t free_at_low; /* free frames at the last call for LOW */
    unsigned give;        /* frames that each call for FAIL frees */
    bool again;           /* what calls for FAIL return */
    mm_pa_t next;
};

static bool pressure_hook(void *ctx, struct mm_frame_pool *pool, unsigned zone,
                          enum mm_frame_pressure level)
{
    struct pressed *pressed = ctx;

    pressed->zone = zone;
    if (level == MM_FRAME_PRESSURE_LOW) {
        pressed->low++;
        pressed->free_at_low = mm_frame_free_count(pool, zone);
        return true;
    }
    pressed->fail++;
    for (unsigned i = 0; i < pressed->give; i++, pressed->next += PAGE)
        assert_int_equal(mm_frame_free(pool, pressed->next), MM_OK);
    return pressed->again;
}

static void pressed_begin(struct lab *lab, struct pressed *pressed)
{
    memset(pressed, 0, sizeof *pressed);
    lab_begin(lab);
    lab_range(lab, 0, 1000 * PAGE, MM_FRAME_USABLE);
    lab->config.hooks.ctx = pressed;
    lab->config.hooks.pressure = pressure_hook;
    (void)lab_zone(lab, "Normal", 0, MM_PA_NONE);
    lab->zone[0].min = 50;
    lab->zone[0].low = 100;
    lab->zone[0].high = 200;
    lab_start(lab);
}

static void low_is_told_when_free_frames_fall_below_low(void **state)
{
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    for (unsigned i = 0; i < 900; i++)
        assert_int_not_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_int_equal(pressed.low, 0);
    assert_int_not_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_int_equal(pressed.low, 1);
    assert_int_equal(pressed.zone, 0);
    assert_int_equal(pressed.free_at_low, 99);
    lab_end(&lab);
}

static void low_is_told_once_until_free_frames_were_above_high(void **state)
{
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    assert_int_equal(lab_exhaust(&lab, 0), 950);
    assert_int_equal(pressed.low, 1);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, 149), MM_OK); /* 199 free: not above high */
    assert_int_equal(lab_exhaust(&lab, 0), 149);
    assert_int_equal(pressed.low, 1);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, 152), MM_OK); /* 202 free */
    assert_int_equal(lab_exhaust(&lab, 0), 152);
    assert_int_equal(pressed.low, 2);
    lab_end(&lab);
}

static void nowait_calls_no_pressure_hook(void **state)
{
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    pressed.again = true;
    assert_int_equal(lab_exhaust(&lab, MM_FRAME_NOWAIT), 950);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 4, MM_FRAME_NOWAIT), MM_PA_NONE);
    assert_int_equal(pressed.low, 0);
    assert_int_equal(pressed.fail, 0);
    lab_end(&lab);
}

static void a_failing_allocation_is_tried_again_while_the_hook_says_so(void **state)
{
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    assert_int_equal(lab_exhaust(&lab, 0), 950);
    assert_int_equal(pressed.fail, 1);
    pressed.again = true;
    pressed.give = 1;
    pressed.fail = 0;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
    assert_int_equal(pressed.fail, 20);
    assert_int_equal(lab_stats(&lab, 0).failures, 1);
    lab_end(&lab);
}

static void the_hook_is_asked_at_most_eight_times_for_another_try(void **state)
{
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    assert_int_equal(lab_exhaust(&lab, 0), 950);
    pressed.again = true;
    pressed.fail = 0;
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_in_range(pressed.fail, 8, 9);
    assert_int_equal(lab_stats(&lab, 0).failures, 2);
    lab_end(&lab);
}

static void bulk_goes_on_after_the_hook_freed_something(void **state)
{
    static mm_pa_t out[1000];
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    assert_int_equal(lab_exhaust(&lab, 0), 950);
    pressed.again = true;
    pressed.give = 10;
    pressed.fail = 0;
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 35, 0, out), 35);
    assert_int_equal(pressed.fail, 4);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 1000, 0, out), 5 + 8 * 10 + 0);
    lab_end(&lab);
}

static void without_marks_only_failure_is_told(void **state)
{
    struct pressed pressed;
    struct lab lab;

    (void)state;
    pressed_begin(&lab, &pressed);
    free(lab.meta);
    lab.zone[0].min = lab.zone[0].low = lab.zone[0].high = 0;
    lab_start(&lab);
    assert_int_equal(lab_exhaust(&lab, 0), 1000);
    assert_int_equal(pressed.low, 0);
    assert_int_equal(pressed.fail, 1);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_zone_falls_back_to_the_zones_below_highest_first),
        cmocka_unit_test(a_zone_does_not_fall_back_to_zones_above),
        cmocka_unit_test(an_isolated_zone_is_used_only_when_asked_for),
        cmocka_unit_test(an_isolated_zone_below_is_no_fallback),
        cmocka_unit_test(only_keeps_to_one_zone),
        cmocka_unit_test(blocks_and_runs_fall_back_too),
        cmocka_unit_test(bulk_goes_on_in_the_next_zone),
        cmocka_unit_test(frames_return_to_their_own_zone),
        cmocka_unit_test(a_zone_without_memory_serves_nothing_of_its_own),
        cmocka_unit_test(small_blocks_come_from_the_zone_asked_for),
        cmocka_unit_test(exactly_min_frames_stay_for_urgent_requests),
        cmocka_unit_test(frames_freed_below_min_stay_reserved),
        cmocka_unit_test(runs_and_blocks_stop_at_min),
        cmocka_unit_test(min_holds_when_a_word_is_in_hand_and_a_block_takes_the_rest),
        cmocka_unit_test(min_holds_when_an_urgent_request_took_a_word),
        cmocka_unit_test(min_holds_after_blocks_were_freed),
        cmocka_unit_test(bulk_stops_at_min),
        cmocka_unit_test(a_zone_at_min_falls_back),
        cmocka_unit_test(alloc_at_and_reserve_disregard_watermarks),
        cmocka_unit_test(low_is_told_when_free_frames_fall_below_low),
        cmocka_unit_test(low_is_told_once_until_free_frames_were_above_high),
        cmocka_unit_test(nowait_calls_no_pressure_hook),
        cmocka_unit_test(a_failing_allocation_is_tried_again_while_the_hook_says_so),
        cmocka_unit_test(the_hook_is_asked_at_most_eight_times_for_another_try),
        cmocka_unit_test(bulk_goes_on_after_the_hook_freed_something),
        cmocka_unit_test(without_marks_only_failure_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
