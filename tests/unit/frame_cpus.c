/* Several CPUs, simulated in one thread: who has which sections, and that nobody's frames are lost
 * to the others; calls without a CPU number. */
#define MM_CPU_MAX 3
static void relax(void);
#define MM_CPU_RELAX() relax()
#include "frame_test.h"

#define SECTION_FRAMES ((uint64_t)4096)

/* What another CPU does while this one waits: in the turn of waiting after which `turns` is 0. */
static struct {
    unsigned turns;
    void (*deed)(struct lab *lab);
    struct lab *lab;
} meanwhile;

static void relax(void)
{
    if (meanwhile.turns != 0 && --meanwhile.turns == 0)
        meanwhile.deed(meanwhile.lab);
}

static void in_turn(unsigned turns, void (*deed)(struct lab *lab), struct lab *lab)
{
    meanwhile.deed = deed;
    meanwhile.lab = lab;
    meanwhile.turns = turns;
}

static mm_pa_t alloc_on(struct lab *lab, unsigned cpu)
{
    mm_test_cpu = cpu;
    return mm_frame_alloc(&lab->pool, 0);
}

static enum mm_status free_on(struct lab *lab, unsigned cpu, mm_pa_t pa)
{
    mm_test_cpu = cpu;
    return mm_frame_free(&lab->pool, pa);
}

/* ---- every free frame can be had ------------------------------------------------------------- */

static void cpus_in_turn_get_every_frame(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned cpus = 1; cpus <= 4; cpus++) {
        lab_simple(&lab, 3 * SECTION_FRAMES + 100);
        for (uint64_t i = 0; i < 3 * SECTION_FRAMES + 100; i++)
            assert_int_not_equal(alloc_on(&lab, (unsigned)(i % cpus)), MM_PA_NONE);
        for (unsigned cpu = 0; cpu <= 3; cpu++)
            assert_int_equal(alloc_on(&lab, cpu), MM_PA_NONE);
        assert_healthy(&lab, 3 * SECTION_FRAMES + 100);
        lab_end(&lab);
    }
}

static void one_cpu_gets_what_the_others_hold(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned taker = 0; taker <= 3; taker++) {
        lab_simple(&lab, 3 * SECTION_FRAMES);
        for (unsigned cpu = 0; cpu < 3; cpu++)
            assert_int_not_equal(alloc_on(&lab, cpu), MM_PA_NONE);
        mm_test_cpu = taker;
        assert_int_equal(lab_exhaust(&lab, 0), 3 * SECTION_FRAMES - 3);
        assert_healthy(&lab, 3 * SECTION_FRAMES);
        lab_end(&lab);
    }
}

static void one_cpu_gets_huge_blocks_that_the_others_hold(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned taker = 0; taker <= 3; taker++) {
        unsigned blocks = 0;
        lab_simple(&lab, 3 * SECTION_FRAMES);
        for (unsigned cpu = 0; cpu < 3; cpu++)
            assert_int_not_equal(alloc_on(&lab, cpu), MM_PA_NONE);
        mm_test_cpu = taker;
        while (mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0) != MM_PA_NONE)
            blocks++;
        assert_int_equal(blocks, 21);
        lab_end(&lab);
    }
}

static void one_cpu_gets_runs_across_sections_of_others(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned taker = 0; taker <= 3; taker++) {
        lab_simple(&lab, 3 * SECTION_FRAMES);
        for (unsigned cpu = 0; cpu < 3; cpu++)
            assert_int_equal(free_on(&lab, cpu, alloc_on(&lab, cpu)), MM_OK);
        mm_test_cpu = taker;
        assert_int_equal(lab_run(&lab, 3 * SECTION_FRAMES, 0, 0, 0, 0), 0);
        assert_int_equal(mm_frame_free_run(&lab.pool, 0, 3 * SECTION_FRAMES), MM_OK);
        assert_healthy(&lab, 0);
        lab_end(&lab);
    }
}

static void the_last_frame_is_found_though_its_section_changed_hands(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    /* the second section is used up by calls without a CPU, the first changes hands */
    mm_test_cpu = 1;
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 1, 0, (mm_pa_t[1]){0}), 1);
    mm_test_cpu = NO_CPU;
    for (uint64_t i = 0; i < SECTION_FRAMES; i++)
        assert_true(mm_frame_alloc(&lab.pool, 0) >= SECTION_FRAMES * PAGE);
    mm_test_cpu = 1;
    for (uint64_t i = 1; i < SECTION_FRAMES; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), i * PAGE);
    assert_int_equal(free_on(&lab, NO_CPU, 5 * PAGE), MM_OK);
    assert_int_equal(alloc_on(&lab, 0), 5 * PAGE);
    lab_end(&lab);
}

static void every_last_frame_is_found_after_any_history(void **state)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 1);
    struct lab lab;

    (void)state;
    for (unsigned turn = 0; turn < 12; turn++) {
        const uint64_t frames = 4 * SECTION_FRAMES;
        lab_simple(&lab, frames);
        for (uint64_t i = 0; i < frames; i++)
            assert_int_not_equal(alloc_on(&lab, (unsigned)mm_test_below(&rng, 4)), MM_PA_NONE);
        for (unsigned i = 0; i < 2000; i++) {
            const mm_pa_t pa = mm_test_below(&rng, frames) * PAGE;
            assert_int_equal(free_on(&lab, (unsigned)mm_test_below(&rng, 4), pa), MM_OK);
            assert_int_equal(alloc_on(&lab, (unsigned)mm_test_below(&rng, 4)), pa);
        }
        lab_end(&lab);
    }
}

static void the_only_free_frame_is_found_in_any_of_many_sections(void **state)
{
    const uint64_t sections = 64 * 64 + 70; /* sets of three levels */
    struct lab lab;

    (void)state;
    lab_simple(&lab, sections * SECTION_FRAMES);
    assert_int_equal(mm_frame_reserve(&lab.pool, 0, sections * SECTION_FRAMES * PAGE, NULL), MM_OK);
    for (uint64_t i = 0; i < sections; i++) {
        const uint64_t at = i * 2311 % sections; /* prime to it: each once */
        const mm_pa_t pa = (at * SECTION_FRAMES + i % SECTION_FRAMES) * PAGE;
        assert_int_equal(free_on(&lab, i % 4, pa), MM_OK);
        assert_int_equal(alloc_on(&lab, i / 4 % 4), pa);
        assert_int_equal(alloc_on(&lab, i / 16 % 4), MM_PA_NONE);
    }
    assert_healthy(&lab, sections * SECTION_FRAMES);
    lab_end(&lab);
}

static void the_only_whole_block_is_found_in_any_of_many_sections(void **state)
{
    const uint64_t sections = 64 * 64 + 70;
    struct lab lab;

    (void)state;
    lab_simple(&lab, sections * SECTION_FRAMES);
    assert_int_equal(mm_frame_reserve(&lab.pool, 0, sections * SECTION_FRAMES * PAGE, NULL), MM_OK);
    for (uint64_t i = 0; i < sections; i++) {
        const mm_pa_t pa = (i * 2311 % sections * SECTION_FRAMES + i % 8 * 512) * PAGE;
        mm_test_cpu = i % 4;
        assert_int_equal(mm_frame_free_order(&lab.pool, pa, MM_FRAME_HUGE_ORDER), MM_OK);
        mm_test_cpu = i / 4 % 4;
        assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), pa);
    }
    lab_end(&lab);
}

/* ---- misuse is found on any CPU -------------------------------------------------------------- */

/* CPU 0 has the first section with half of it allocated, CPU 1 the second. */
static void two_owners(struct lab *lab)
{
    lab_simple(lab, 2 * SECTION_FRAMES);
    for (unsigned i = 0; i < SECTION_FRAMES / 2; i++)
        assert_int_equal(alloc_on(lab, 0), i * PAGE);
    assert_int_equal(alloc_on(lab, 1), SECTION_FRAMES * PAGE);
    assert_int_equal(lab_stats(lab, 0).biased, 2);
}

static void a_double_free_is_refused_on_every_cpu(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned cpu = 0; cpu <= 3; cpu++) {
        const mm_pa_t pa[2] = {100 * PAGE, 101 * PAGE};
        two_owners(&lab);
        mm_test_cpu = 0;
        assert_int_equal(mm_frame_free_run(&lab.pool, pa[0], 2), MM_OK);
        mm_test_cpu = cpu;
        assert_refused_by_owner(&lab, mm_frame_free(&lab.pool, pa[0]), MM_ERR_INVALID);
        assert_refused_by_owner(&lab, mm_frame_free_run(&lab.pool, pa[0], 2), MM_ERR_INVALID);
        assert_refused_by_owner(&lab, mm_frame_free_order(&lab.pool, pa[0], 1), MM_ERR_INVALID);
        assert_refused_by_owner(&lab, mm_frame_free_bulk(&lab.pool, 2, pa, NULL), 0);
        assert_refused_by_owner(&lab, mm_frame_free(&lab.pool, 4 * GIB), MM_ERR_INVALID);
        assert_refused_by_owner(&lab, mm_frame_free(&lab.pool, pa[0] + 1), MM_ERR_ALIGN);
        lab_end(&lab);
    }
}

static void a_busy_frame_is_refused_on_every_cpu(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned cpu = 0; cpu <= 3; cpu++) {
        two_owners(&lab);
        mm_test_cpu = cpu;
        assert_refused_by_owner(&lab, mm_frame_alloc_at(&lab.pool, 2000 * PAGE, 2200), MM_ERR_BUSY);
        assert_refused_by_owner(&lab, mm_frame_reserve(&lab.pool, 4000 * PAGE, 100 * PAGE, NULL),
                                MM_ERR_BUSY);
        assert_refused_by_owner(&lab, mm_frame_release(&lab.pool, 0, 2049 * PAGE, NULL),
                                MM_ERR_BUSY);
        lab_end(&lab);
    }
}

static void a_frame_may_be_freed_on_another_cpu(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned cpu = 1; cpu <= 3; cpu++) {
        two_owners(&lab);
        for (unsigned i = 0; i < SECTION_FRAMES / 2; i++) {
            assert_int_equal(free_on(&lab, cpu, i * PAGE), MM_OK);
            assert_int_equal(mm_frame_is_free(&lab.pool, i * PAGE), 1);
        }
        assert_healthy(&lab, 1);
        lab_end(&lab);
    }
}

/* ---- ownership ------------------------------------------------------------------------------- */

static void each_cpu_has_sections_of_its_own(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 8 * SECTION_FRAMES);
    for (unsigned i = 0; i < 500; i++) {
        mm_pa_t pa[3];
        for (unsigned cpu = 0; cpu < 3; cpu++)
            pa[cpu] = alloc_on(&lab, cpu) / PAGE / SECTION_FRAMES;
        assert_true(pa[0] != pa[1] && pa[1] != pa[2] && pa[0] != pa[2]);
    }
    assert_int_equal(lab_stats(&lab, 0).biased, 3);
    assert_int_equal(lab_stats(&lab, 0).taken_away, 0);
    lab_end(&lab);
}

static void drain_makes_a_cpus_sections_nobodys(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned by = 0; by <= 3; by++) {
        two_owners(&lab);
        mm_test_cpu = by;
        assert_int_equal(mm_frame_drain(&lab.pool, 0), MM_OK);
        assert_int_equal(lab.pool.owner[0], MM_CPU_MAX);
        assert_int_equal(lab.pool.owner[1], 1);
        assert_int_equal(lab_stats(&lab, 0).biased, 1);
        assert_healthy(&lab, SECTION_FRAMES / 2 + 1);
        assert_int_equal(alloc_on(&lab, 0), SECTION_FRAMES / 2 * PAGE);
        lab_end(&lab);
    }
}

static void a_drained_cpus_word_is_nothing_special_any_more(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    assert_int_equal(alloc_on(&lab, 0), 0);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, PAGE, 2 * SECTION_FRAMES - 1), MM_OK);
    assert_int_equal(mm_frame_drain(&lab.pool, 0), MM_OK);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, 2 * SECTION_FRAMES), MM_OK);
    assert_healthy(&lab, 0);
    assert_int_equal(lab_stats(&lab, 0).whole, 16);
    lab_end(&lab);
}

static void drain_refuses_a_bad_cpu_number(void **state)
{
    struct lab lab;

    (void)state;
    two_owners(&lab);
    assert_refused(&lab, mm_frame_drain(&lab.pool, 3), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_drain(&lab.pool, ~0u), MM_ERR_INVALID);
    lab_end(&lab);
}

static void sections_taken_away_are_counted(void **state)
{
    struct lab lab;

    (void)state;
    two_owners(&lab);
    assert_int_equal(free_on(&lab, 1, 0), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).taken_away, 1);
    lab_end(&lab);
}

static void figures_count_frames_of_all_cpus(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 4 * SECTION_FRAMES);
    for (unsigned i = 0; i < 400; i++)
        assert_int_not_equal(alloc_on(&lab, i % 4), MM_PA_NONE);
    assert_int_equal(lab_stats(&lab, 0).used, 400);
    assert_int_equal(mm_frame_free_count(&lab.pool, 0), 4 * SECTION_FRAMES - 400);
    assert_int_equal(free_on(&lab, 3, 0), MM_OK);
    assert_int_equal(free_on(&lab, 1, SECTION_FRAMES * PAGE), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).used, 398);
    assert_healthy(&lab, 398);
    lab_end(&lab);
}

static void whole_blocks_count_the_one_whose_word_is_in_hand(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, SECTION_FRAMES);
    assert_int_equal(free_on(&lab, 0, alloc_on(&lab, 0)), MM_OK);
    assert_int_equal(lab_stats(&lab, 0).whole, 8);
    assert_int_equal(alloc_on(&lab, 0), 0);
    assert_int_equal(lab_stats(&lab, 0).whole, 7);
    lab_end(&lab);
}

static void watermarks_hold_over_cpus_but_for_a_word_each(void **state)
{
    struct lab lab;
    uint64_t count = 0;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 4 * SECTION_FRAMES * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(&lab, "Normal", 0, MM_PA_NONE);
    lab.zone[0].min = lab.zone[0].low = lab.zone[0].high = 1000;
    lab_start(&lab);
    for (unsigned failed = 0; failed < 4;) {
        failed = 0;
        for (unsigned cpu = 0; cpu < 4; cpu++) {
            const bool got = alloc_on(&lab, cpu) != MM_PA_NONE;
            count += got;
            failed += !got;
        }
    }
    assert_in_range(4 * SECTION_FRAMES - count, 1000 - 2 * 64, 1000);
    lab_end(&lab);
}

/* ---- without a CPU number -------------------------------------------------------------------- */

static void calls_without_a_cpu_number_do_all_the_same(void **state)
{
    struct lab lab;
    mm_pa_t pa, out[100];

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    for (unsigned cpu = NO_CPU; cpu < NO_CPU + 2; cpu++) {
        mm_test_cpu = cpu == NO_CPU ? cpu : ~0u;
        pa = mm_frame_alloc(&lab.pool, 0);
        assert_int_equal(mm_frame_free(&lab.pool, pa), MM_OK);
        pa = mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0);
        assert_int_equal(mm_frame_free_order(&lab.pool, pa, MM_FRAME_HUGE_ORDER), MM_OK);
        pa = lab_run(&lab, 5000, 0, 0, 0, 0);
        assert_int_equal(mm_frame_free_run(&lab.pool, pa, 5000), MM_OK);
        assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 100, 0, out), 100);
        assert_int_equal(mm_frame_free_bulk(&lab.pool, 100, out, NULL), 100);
        assert_int_equal(mm_frame_alloc_at(&lab.pool, 7 * PAGE, 1), MM_OK);
        assert_int_equal(mm_frame_release(&lab.pool, 7 * PAGE, PAGE, NULL), MM_OK);
        assert_healthy(&lab, 0);
    }
    assert_int_equal(lab_stats(&lab, 0).biased, 0);
    lab_end(&lab);
}

/* As if the caller had interrupted CPU 0 inside its few instructions. */
static void interrupt_cpu_0(struct lab *lab)
{
    lab->pool.cpu[0].busy = 1;
    mm_test_cpu = NO_CPU;
}

static void a_free_into_a_busy_section_is_put_off(void **state)
{
    const mm_pa_t pa[2] = {2 * PAGE, 3 * PAGE};
    enum mm_status status = MM_OK;
    struct lab lab;

    (void)state;
    two_owners(&lab);
    interrupt_cpu_0(&lab);
    assert_int_equal(mm_frame_free(&lab.pool, pa[0]), MM_ERR_BUSY);
    assert_int_equal(mm_frame_free_order(&lab.pool, pa[0], 1), MM_ERR_BUSY);
    assert_int_equal(mm_frame_free_run(&lab.pool, pa[0], 2), MM_ERR_BUSY);
    assert_int_equal(mm_frame_free_bulk(&lab.pool, 2, pa, &status), 0);
    assert_int_equal(status, MM_ERR_BUSY);
    assert_int_equal(lab_stats(&lab, 0).refused, 0);
    lab.pool.cpu[0].busy = 0;
    assert_int_equal(lab.pool.owner[0], 0);
    assert_int_equal(mm_frame_is_free(&lab.pool, pa[0]), 0);
    assert_healthy(&lab, SECTION_FRAMES / 2 + 1);
    assert_int_equal(mm_frame_free(&lab.pool, pa[0]), MM_OK);
    lab_end(&lab);
}

static void an_allocation_passes_over_a_busy_section(void **state)
{
    struct lab lab;

    (void)state;
    two_owners(&lab);
    interrupt_cpu_0(&lab);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), (SECTION_FRAMES + 1) * PAGE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0),
                     (SECTION_FRAMES + 512) * PAGE);
    lab.pool.cpu[0].busy = 0;
    assert_int_equal(lab.pool.owner[0], 0);
    lab_end(&lab);
}

static void an_allocation_fails_while_all_that_is_free_is_busy(void **state)
{
    mm_pa_t out[2];
    struct lab lab;

    (void)state;
    lab_simple(&lab, SECTION_FRAMES);
    assert_int_equal(alloc_on(&lab, 0), 0);
    interrupt_cpu_0(&lab);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_bulk(&lab.pool, 2, 0, out), 0);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 9 * PAGE, 1), MM_ERR_BUSY);
    assert_int_equal(mm_frame_reserve(&lab.pool, 9 * PAGE, PAGE, NULL), MM_ERR_BUSY);
    assert_int_equal(mm_frame_release(&lab.pool, 0, PAGE, NULL), MM_ERR_BUSY);
    lab.pool.cpu[0].busy = 0;
    assert_healthy(&lab, 1);
    assert_int_equal(alloc_on(&lab, 0), PAGE); /* CPU 0 goes on where it was */
    assert_int_equal(lab.pool.owner[0], 0);
    mm_test_cpu = NO_CPU;
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 2 * PAGE);
    lab_end(&lab);
}

/* A CPU that another one waits for ends its word, and then lets the section go. */
static void a_wanted_section_is_given_up_at_the_next_word(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 2 * SECTION_FRAMES);
    assert_int_equal(alloc_on(&lab, 0), 0);
    lab.pool.section[0].wanted = 1;
    for (unsigned i = 1; i < MM_WORD_BITS; i++)
        assert_int_equal(alloc_on(&lab, 0), i * PAGE);
    assert_int_equal(lab.pool.owner[0], 0);
    assert_int_not_equal(alloc_on(&lab, 0), MM_PA_NONE);
    assert_int_not_equal(lab.pool.owner[0], 0);
    assert_healthy(&lab, MM_WORD_BITS + 1);
    assert_int_equal(mm_frame_free_run(&lab.pool, 0, MM_WORD_BITS), MM_OK);
    assert_healthy(&lab, 1);
    lab_end(&lab);
}

static void a_search_for_a_run_passes_over_a_busy_section_soon(void **state)
{
    struct timespec start, end;
    struct lab lab;

    (void)state;
    two_owners(&lab);
    interrupt_cpu_0(&lab);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    alarm(20);
    assert_true(mm_frame_alloc_order(&lab.pool, 2, 0) >= SECTION_FRAMES * PAGE);
    assert_true(lab_run(&lab, 37, 0, 0, 0, 0) >= SECTION_FRAMES * PAGE);
    assert_int_equal(lab_run(&lab, SECTION_FRAMES + 37, 0, 0, 0, 0), MM_PA_NONE);
    alarm(0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    assert_in_range(end.tv_sec - start.tv_sec, 0, 2);
    lab.pool.cpu[0].busy = 0;
    lab_end(&lab);
}

static void a_locked_section_is_passed_over(void **state)
{
    struct lab lab;

    (void)state;
    two_owners(&lab);
    lab.pool.owner[0] = MM_BIAS_LOCKED; /* by whom the caller interrupted */
    mm_test_cpu = NO_CPU;
    assert_int_equal(mm_frame_free(&lab.pool, 0), MM_ERR_BUSY);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), (SECTION_FRAMES + 1) * PAGE);
    lab.pool.owner[0] = 0;
    lab_end(&lab);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void unlock_section_0(struct lab *lab)
{
    mmi_frame_unlock(&lab->pool, &lab->pool.section[0]);
}

static mm_pa_t one_of_a_bulk(struct mm_frame_pool *pool)
{
    mm_pa_t pa = MM_PA_NONE;

    (void)mm_frame_alloc_bulk(pool, 1, 0, &pa);
    return pa;
}

/* CPU 1 is taking away CPU 0's section, which has all that is free: whoever allocates waits, CPU 0
 * and a third one, however long it takes. */
static void an_allocation_waits_for_the_only_section(void **state)
{
    (void)state;
    for (unsigned cpu = 0; cpu <= 2; cpu += 2)
        for (unsigned call = 0; call < 4; call++) {
            mm_pa_t pa;
            struct lab lab;
            lab_simple(&lab, SECTION_FRAMES);
            assert_int_equal(alloc_on(&lab, 0), 0);
            assert_true(mmi_frame_lock(&lab.pool, &lab.pool.section[0], 1));
            in_turn(100000, unlock_section_0, &lab);
            mm_test_cpu = cpu;
            pa = call == 0   ? mm_frame_alloc(&lab.pool, 0)
                 : call == 1 ? mm_frame_alloc_order(&lab.pool, 2, 0)
                 : call == 2 ? mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0)
                             : one_of_a_bulk(&lab.pool);
            assert_int_equal(meanwhile.turns, 0);
            assert_int_not_equal(pa, MM_PA_NONE);
            lab_end(&lab);
        }
}

static void free_frame_5_on_cpu_0(struct lab *lab)
{
    const unsigned caller = mm_test_cpu;

    assert_int_equal(free_on(lab, 0, 5 * PAGE), MM_OK);
    mm_test_cpu = caller;
}

static void free_the_second_block_on_cpu_0(struct lab *lab)
{
    const unsigned caller = mm_test_cpu;

    mm_test_cpu = 0;
    assert_int_equal(mm_frame_free_order(&lab->pool, 512 * PAGE, MM_FRAME_HUGE_ORDER), MM_OK);
    mm_test_cpu = caller;
}

/* What a search passed may have changed behind it. */
static void a_search_in_vain_is_repeated_once(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, SECTION_FRAMES);
    for (uint64_t i = 0; i < SECTION_FRAMES; i++)
        assert_int_equal(alloc_on(&lab, 0), i * PAGE);
    in_turn(MMI_FRAME_PATIENCE + 1, free_frame_5_on_cpu_0, &lab);
    assert_int_equal(alloc_on(&lab, 2), 5 * PAGE);
    lab_end(&lab);

    lab_simple(&lab, SECTION_FRAMES);
    mm_test_cpu = 0;
    for (uint64_t i = 0; i < SECTION_FRAMES / 512; i++)
        assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), i * 512 * PAGE);
    mm_test_cpu = 2;
    in_turn(1, free_the_second_block_on_cpu_0, &lab);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), 512 * PAGE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), MM_PA_NONE);
    lab_end(&lab);
}

/* A CPU's allocations and frees are read one after the other; what it does between shows. */
static void a_count_of_frames_that_went_by_is_kept_in_bounds(void **state)
{
    uintptr_t *freed;
    struct lab lab;

    (void)state;
    lab_simple(&lab, SECTION_FRAMES);
    assert_int_equal(free_on(&lab, 1, alloc_on(&lab, 1)), MM_OK);
    freed = &lab.pool.cpu[1].freed;
    *freed += 10;
    assert_int_equal(mm_frame_free_count(&lab.pool, 0), SECTION_FRAMES);
    *freed -= SECTION_FRAMES + 20;
    assert_int_equal(mm_frame_free_count(&lab.pool, 0), 0);
    *freed += SECTION_FRAMES + 10;
    lab_end(&lab);
}

static void a_put_that_cannot_free_now_keeps_its_reference(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 100 * PAGE, MM_FRAME_USABLE);
    lab.config.descriptors = true;
    lab_start(&lab);
    pa = mm_frame_alloc_ref(&lab.pool, 0, 0);
    interrupt_cpu_0(&lab);
    assert_int_equal(mm_frame_put(&lab.pool, pa), MM_ERR_BUSY);
    lab.pool.cpu[0].busy = 0;
    assert_int_equal(mm_frame_desc_of(&lab.pool, pa)->refs, 1);
    assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
    assert_int_equal(mm_frame_is_free(&lab.pool, pa), 1);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_in_turn_get_every_frame),
        cmocka_unit_test(one_cpu_gets_what_the_others_hold),
        cmocka_unit_test(one_cpu_gets_huge_blocks_that_the_others_hold),
        cmocka_unit_test(one_cpu_gets_runs_across_sections_of_others),
        cmocka_unit_test(the_last_frame_is_found_though_its_section_changed_hands),
        cmocka_unit_test(every_last_frame_is_found_after_any_history),
        cmocka_unit_test(the_only_free_frame_is_found_in_any_of_many_sections),
        cmocka_unit_test(the_only_whole_block_is_found_in_any_of_many_sections),
        cmocka_unit_test(a_double_free_is_refused_on_every_cpu),
        cmocka_unit_test(a_busy_frame_is_refused_on_every_cpu),
        cmocka_unit_test(a_frame_may_be_freed_on_another_cpu),
        cmocka_unit_test(each_cpu_has_sections_of_its_own),
        cmocka_unit_test(drain_makes_a_cpus_sections_nobodys),
        cmocka_unit_test(a_drained_cpus_word_is_nothing_special_any_more),
        cmocka_unit_test(drain_refuses_a_bad_cpu_number),
        cmocka_unit_test(sections_taken_away_are_counted),
        cmocka_unit_test(figures_count_frames_of_all_cpus),
        cmocka_unit_test(whole_blocks_count_the_one_whose_word_is_in_hand),
        cmocka_unit_test(watermarks_hold_over_cpus_but_for_a_word_each),
        cmocka_unit_test(calls_without_a_cpu_number_do_all_the_same),
        cmocka_unit_test(a_free_into_a_busy_section_is_put_off),
        cmocka_unit_test(an_allocation_passes_over_a_busy_section),
        cmocka_unit_test(an_allocation_fails_while_all_that_is_free_is_busy),
        cmocka_unit_test(a_wanted_section_is_given_up_at_the_next_word),
        cmocka_unit_test(a_search_for_a_run_passes_over_a_busy_section_soon),
        cmocka_unit_test(a_locked_section_is_passed_over),
        cmocka_unit_test(a_put_that_cannot_free_now_keeps_its_reference),
        cmocka_unit_test(an_allocation_waits_for_the_only_section),
        cmocka_unit_test(a_search_in_vain_is_repeated_once),
        cmocka_unit_test(a_count_of_frames_that_went_by_is_kept_in_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
