/* Threads on one arena: private blocks, blocks that another thread frees, lists drained by others.
 * A byte a smallest block tells who holds it: a block handed out twice is seen at once. */
#ifndef MM_CPU_MAX
#define MM_CPU_MAX 4
#endif
#include "fence.h"
#include "mm_test.h"
__thread unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID() cpu_now
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#define UNITS   16384u
#define SHIFT   12
#define BASE    ((mm_pa_t)3 << 30)
#define THREADS 6u /* more than CPUs with lists: the others have none */
#define SLOTS   256u

static struct mm_buddy buddy;
static unsigned char held[UNITS];
static uintptr_t mailbox[64]; /* blocks that any thread may free: unit number << 4 | order, + 1 */

static uint64_t mark(mm_pa_t pa, unsigned order, unsigned char from, unsigned char to)
{
    const uint32_t first = (uint32_t)((pa - BASE) >> SHIFT);
    uint64_t errors = 0;
    uint32_t i;

    for (i = first; i < first + (1u << order); i++) {
        unsigned char expected = from;
        errors += !__atomic_compare_exchange_n(&held[i], &expected, to, false, __ATOMIC_RELAXED,
                                               __ATOMIC_RELAXED);
    }
    return errors;
}

static uint64_t give_back(mm_pa_t pa, unsigned order)
{
    return mark(pa, order, 1, 0) + (mm_buddy_free(&buddy, pa) != MM_OK);
}

/* Leaves a block for others and frees the one that lay there. */
static uint64_t post(struct mm_test_rng *rng, mm_pa_t pa, unsigned order)
{
    const uintptr_t letter = ((uintptr_t)((pa - BASE) >> SHIFT) << 4 | order) + 1;
    const uintptr_t old = mm_exchange(&mailbox[mm_test_below(rng, 64)], letter);

    return old == 0
               ? 0
               : give_back(BASE + ((mm_pa_t)((old - 1) >> 4) << SHIFT), (unsigned)(old - 1) & 15);
}

static uint64_t work(unsigned cpu, void *arg)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), cpu + 1);
    struct {
        mm_pa_t pa;
        unsigned order;
    } slot[SLOTS] = {{0, 0}};
    uint64_t errors = 0, i, ops = mm_test_ops() / 4;

    (void)arg;
    cpu_now = cpu;
    for (i = 0; i < ops; i++) {
        const size_t k = mm_test_below(&rng, SLOTS);
        if (slot[k].pa != 0) {
            errors += mm_test_chance(&rng, 25) ? post(&rng, slot[k].pa, slot[k].order)
                                               : give_back(slot[k].pa, slot[k].order);
            slot[k].pa = 0;
            continue;
        }
        slot[k].order = mm_test_chance(&rng, 2) ? 9 : (unsigned)mm_test_below(&rng, 4);
        slot[k].pa = mm_buddy_alloc(&buddy, slot[k].order, (unsigned)mm_test_below(&rng, 3));
        if (slot[k].pa == MM_PA_NONE)
            slot[k].pa = 0;
        else
            errors += mark(slot[k].pa, slot[k].order, 0, 1);
        if (mm_test_chance(&rng, 1) && i % 16 == 0)
            mm_buddy_drain_cpu(&buddy, (unsigned)mm_test_below(&rng, MM_CPU_MAX));
    }
    for (i = 0; i < SLOTS; i++)
        if (slot[i].pa != 0)
            errors += give_back(slot[i].pa, slot[i].order);
    return errors;
}

static void no_block_is_handed_out_twice_and_none_is_lost(void **state)
{
    struct mm_buddy_config config;
    size_t size, i;
    void *meta;

    (void)state;
    mm_test_prepare_fence();
    (void)mm_test_seed();
    mm_buddy_config_init(&config, BASE, (uint64_t)UNITS << SHIFT, SHIFT, 10);
    config.cpu_lists = true;
    size = mm_buddy_meta_bytes(&config);
    meta = malloc(size);
    assert_int_equal(mm_buddy_init(&buddy, &config, meta, size), MM_OK);
    assert_int_equal(mm_test_threads(THREADS, work, NULL), 0);
    for (i = 0; i < 64; i++)
        if (mailbox[i] != 0)
            assert_int_equal(give_back(BASE + ((mm_pa_t)((mailbox[i] - 1) >> 4) << SHIFT),
                                       (unsigned)(mailbox[i] - 1) & 15),
                             0);
    mm_buddy_drain(&buddy);
    assert_int_equal(mm_buddy_free_bytes(&buddy), (uint64_t)UNITS << SHIFT);
    assert_int_equal(mm_buddy_check(&buddy), MM_BUDDY_HEALTHY);
    free(meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_block_is_handed_out_twice_and_none_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
