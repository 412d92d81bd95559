/* What happens at the edges of mm_buddy.h: short lists of a CPU, reports whose callback calls back,
 * an interrupt in the midst of a drain. */
#include <stdbool.h>

/* An interrupt comes as soon as the program's hooks let it. */
void interrupts_on(void);
extern unsigned interrupts_off;
unsigned interrupts_off;
#define MM_CPU_STATE_T  unsigned
#define MM_CPU_PIN(s)   ((s) = interrupts_off++)
#define MM_CPU_UNPIN(s) ((void)(s), interrupts_off--, interrupts_on())
#define MM_LOCK_T       bool
#define MM_LOCK_STATE_T unsigned
#define MM_LOCK_INIT(l) (*(l) = false)
#define MM_LOCK(l, s)   ((s) = interrupts_off++, MM_ASSERT(!*(l)), *(l) = true)
#define MM_UNLOCK(l, s) ((void)(s), *(l) = false, interrupts_off--, interrupts_on())
void waits(void);
#define MM_CPU_RELAX()     waits()
#define MM_BUDDY_CPU_SLOTS 8
#include "buddy_test.h"

static struct mm_buddy b;
static void *meta;

static void begin(uint64_t bytes, unsigned regions, bool cpu_lists)
{
    struct mm_buddy_config config;
    size_t n;
    mm_buddy_config_init(&config, 0, bytes, 12, 10);
    config.regions = regions;
    config.cpu_lists = cpu_lists;
    n = mm_buddy_meta_bytes(&config);
    meta = malloc(n);
    assert_non_null(meta);
    assert_int_equal(mm_buddy_init(&b, &config, meta, n), MM_OK);
}

static void end(void)
{
    assert_int_equal(mm_buddy_check(&b), MM_OK);
    free(meta);
}

/* With one processor, who waits in an interrupt waits for ever. */
void waits(void)
{
    MM_ASSERT(false);
}

static bool pending;
static mm_pa_t got;
void interrupts_on(void)
{
    if (interrupts_off != 0 || !pending)
        return;
    pending = false;
    interrupts_off = 1;
    got = mm_buddy_alloc(&b, 9, MM_BUDDY_UNMOVABLE | MM_BUDDY_URGENT);
    interrupts_off = 0;
}

/* Lists hold more page blocks than others. */
static void short_lists_give_all_they_hold(void **state)
{
    mm_pa_t block[32];
    (void)state;
    begin((uint64_t)8 << 30, 8, true);
    for (unsigned i = 0; i < 32; i++) { /* out of all regions in turn */
        block[i] = (mm_pa_t)(i % 8) << 30 | (mm_pa_t)(i / 8) << 21;
        assert_int_equal(mm_buddy_alloc_at(&b, block[i], 9, MM_BUDDY_MOVABLE), MM_OK);
    }
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(mm_buddy_free(&b, block[i]), MM_OK);
    mm_buddy_drain(&b);
    end();
}

static void an_interrupt_in_a_drain_may_drain(void **state)
{
    struct mm_buddy_stats stats;
    mm_pa_t page[10];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin((uint64_t)64 << 20, 1, true);
        while (mm_buddy_alloc(&b, 9, MM_BUDDY_UNMOVABLE) != MM_PA_NONE)
            continue;
        assert_int_equal(mm_buddy_free(&b, 0), MM_OK);
        for (unsigned k = 0; k < 10; k++)
            page[k] = mm_buddy_alloc(&b, 0, MM_BUDDY_UNMOVABLE);
        for (unsigned k = 0; k < 10; k++)
            assert_int_equal(mm_buddy_free(&b, page[k]), MM_OK);
        got = MM_PA_NONE;
        pending = true;
        if (i == 0)
            mm_buddy_drain(&b);
        else
            mm_buddy_get_stats(&b, &stats);
        assert_false(pending);
        assert_true(got == 0); /* the block that was whole again */
        end();
    }
}

static enum mm_status release_it(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx;
    assert_int_equal(mm_buddy_release(&b, pa, bytes), MM_ERR_NOENT);
    assert_int_equal(mm_buddy_free(&b, pa), MM_ERR_INVALID);
    return MM_OK;
}

static void what_is_told_cannot_be_released(void **state)
{
    struct mm_buddy_stats stats;
    (void)state;
    begin((uint64_t)64 << 20, 1, false);
    assert_int_equal(mm_buddy_report_enable(&b, 9), MM_OK);
    assert_true(mm_buddy_report(&b, 1, release_it, NULL) > 0);
    mm_buddy_get_stats(&b, &stats);
    assert_true(stats.free == stats.total && stats.reserved == 0);
    end();
}

static enum mm_status widen(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx;
    (void)pa;
    (void)bytes;
    (void)mm_buddy_report_enable(&b, 9);
    return MM_OK;
}

static void a_larger_granule_meanwhile_is_not_marked(void **state)
{
    (void)state;
    begin((uint64_t)64 << 20, 1, false);
    assert_true(mm_buddy_alloc(&b, 0, MM_BUDDY_MOVABLE) != MM_PA_NONE);
    assert_int_equal(mm_buddy_report_enable(&b, 0), MM_OK);
    assert_true(mm_buddy_report(&b, 1, widen, NULL) > 0);
    end();
}

static void lists_keep_no_block_above_the_largest_order(void **state)
{
    struct mm_buddy_config config;
    const mm_pa_t pa = (mm_pa_t)2 << 20;
    size_t n;

    (void)state;
    mm_buddy_config_init(&config, 0, (uint64_t)4 << 30, 12, 4);
    config.cpu_lists = true;
    n = mm_buddy_meta_bytes(&config);
    meta = malloc(n);
    assert_non_null(meta);
    assert_int_equal(mm_buddy_init(&b, &config, meta, n), MM_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(mm_buddy_alloc_range(&b, pa, (uint64_t)2 << 20, 0), MM_OK);
        assert_int_equal(mm_buddy_free(&b, pa), MM_OK);
        assert_int_equal(mm_buddy_alloc(&b, 9, MM_BUDDY_MOVABLE), MM_PA_NONE);
    }
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_lists_give_all_they_hold),
        cmocka_unit_test(an_interrupt_in_a_drain_may_drain),
        cmocka_unit_test(what_is_told_cannot_be_released),
        cmocka_unit_test(a_larger_granule_meanwhile_is_not_marked),
        cmocka_unit_test(lists_keep_no_block_above_the_largest_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
