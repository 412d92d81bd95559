/* Threads that allocate, hand objects to each other and free them anywhere, change their CPU slots
 * and come and go. Each object carries its owner's mark from end to end. */
#include "mm_test.h"

#define MM_CPU_MAX     4
#define MM_SLAB_STATIC /* mm_test_cpu is static too */
#define MM_CPU_ID()    mm_test_cpu
#include "slab_test.h"

#define THREADS 4
#define BOXES   16
#define BATCH   64

static struct mm_slab_cache named;
static void *box[BOXES][BATCH];
static pthread_mutex_t box_lock[BOXES];
static size_t box_full[BOXES];

struct note {
    size_t size;
    uint64_t mark;
};

static uint64_t mark_of(const void *p, size_t size)
{
    return (uintptr_t)p * 0x9e3779b97f4a7c15u + size;
}

/* An object that says in its first and last bytes what it is. */
static void *make_one(struct mm_test_rng *rng)
{
    const bool use_named = mm_test_chance(rng, 20);
    const size_t size = use_named                ? 72
                        : mm_test_chance(rng, 2) ? 20000
                                                 : 24 + mm_test_below(rng, 600);
    struct note *p = use_named ? mm_slab_alloc(&named, 0) : mm_slab_kmalloc(&heap, size, 0);

    if (p == NULL)
        return NULL;
    p->size = size;
    p->mark = mark_of(p, size);
    ((unsigned char *)p)[size - 1] = (unsigned char)p->mark;
    return p;
}

static uint64_t break_one(struct mm_test_rng *rng, struct note *p)
{
    uint64_t errors;
    if (p == NULL)
        return 0;
    errors = p->mark != mark_of(p, p->size);
    errors += ((unsigned char *)p)[p->size - 1] != (unsigned char)p->mark;
    p->mark = 0;
    if (mm_test_chance(rng, 3))
        return errors + (mm_slab_free_rcu(&heap, p) != MM_OK);
    return errors + (mm_slab_kfree(&heap, p) != MM_OK);
}

/* Leaves a batch in a free box, or takes one from a full box. */
static uint64_t exchange(struct mm_test_rng *rng)
{
    const unsigned b = (unsigned)mm_test_below(rng, BOXES);
    void *mine[BATCH];
    uint64_t errors = 0;
    size_t n;

    pthread_mutex_lock(&box_lock[b]);
    n = box_full[b];
    if (n != 0) {
        memcpy(mine, box[b], sizeof mine);
        box_full[b] = 0;
    }
    pthread_mutex_unlock(&box_lock[b]);
    for (size_t i = 0; i < n; i++)
        errors += break_one(rng, mine[i]);
    if (n != 0)
        return errors;
    for (size_t i = 0; i < BATCH; i++)
        mine[i] = make_one(rng);
    pthread_mutex_lock(&box_lock[b]);
    if (box_full[b] == 0) {
        memcpy(box[b], mine, sizeof mine);
        box_full[b] = BATCH;
        pthread_mutex_unlock(&box_lock[b]);
        return 0;
    }
    pthread_mutex_unlock(&box_lock[b]);
    for (size_t i = 0; i < BATCH; i++)
        errors += break_one(rng, mine[i]);
    return errors;
}

static uint64_t worker(unsigned cpu, void *arg)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), cpu + 10);
    const uint64_t ops = *(const uint64_t *)arg;
    struct note *held[100] = {0};
    uint64_t errors = 0;

    for (uint64_t op = 0; op < ops; op++) {
        struct note **slot = &held[mm_test_below(&rng, 100)];
        errors += break_one(&rng, *slot);
        *slot = make_one(&rng);
        if (op % 128 == 0)
            errors += exchange(&rng);
        if (op % 2000 == 0) {
            struct mm_slab_cache_stats stats;
            mm_slab_cache_get_stats(&named, &stats);
            errors += stats.active > stats.objects;
            mm_slab_rcu_poll(&heap);
        }
        if (op % 5000 == 0)
            mm_slab_shrink(&heap);
        if (op % 3000 == 0)
            errors += mm_slab_drain(&heap, cpu) != (cpu < MM_CPU_MAX ? MM_OK : MM_ERR_INVALID);
    }
    for (unsigned i = 0; i < 100; i++)
        errors += break_one(&rng, held[i]);
    mm_slab_drain(&heap, cpu);
    return errors;
}

static void run(unsigned threads, unsigned flags, uint64_t ops)
{
    struct mm_slab_cache_config c = {0};
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 99);

    heap_begin();
    config.flags = flags;
    heap_make();
    c.name = "named";
    c.size = 72;
    grace_over = ~(uintptr_t)0; /* no readers at all */
    assert_int_equal(mm_slab_cache_init(&named, &heap, &c), MM_OK);
    for (unsigned i = 0; i < BOXES; i++)
        pthread_mutex_init(&box_lock[i], NULL);
    for (unsigned round = 0; round < 3; round++) /* threads end, others take their numbers */
        assert_int_equal(mm_test_threads(threads, worker, &ops), 0);
    for (unsigned b = 0; b < BOXES; b++) {
        for (size_t i = 0; i < box_full[b]; i++)
            assert_int_equal(break_one(&rng, box[b][i]), 0);
        box_full[b] = 0;
    }
    assert_int_equal(misuse_total(), 0);
    assert_int_equal(mm_slab_cache_destroy(&named, NULL), MM_OK);
    heap_end();
}

static uint64_t ops(void)
{
    return mm_test_ops() / (MM_TEST_SANITIZED ? 5 : 10);
}

static void objects_travel_between_cpus(void **state)
{
    (void)state;
    run(THREADS, 0, ops());
}

/* The last two threads have no arrays of their own: their numbers are too high. */
static void threads_without_arrays_take_part(void **state)
{
    (void)state;
    run(THREADS + 2, MM_SLAB_SHUFFLE, ops() / 4);
}

static void caches_with_debug_flags_as_well(void **state)
{
    (void)state;
    run(THREADS, MM_SLAB_DEBUG >= 1 ? MM_SLAB_DEBUG_ALL : 0, ops() / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_travel_between_cpus),
        cmocka_unit_test(threads_without_arrays_take_part),
        cmocka_unit_test(caches_with_debug_flags_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
