/* Memory is short, and CPUs take what others have free: by calls on other CPUs while they run, and
 * from idle ones. A running thread serves such calls between its own, an idle one lets others drain
 * its CPU, by the rules of mm_slab_drain. */
#include "mm_test.h"

#define MM_CPU_MAX     4
#define MM_SLAB_STATIC /* mm_test_cpu is static too */
#define MM_CPU_ID()    mm_test_cpu
#include "slab_test.h"

#include <sched.h>

#define HELD 40

enum { RUNNING, IDLE, DRAINED };

struct request {
    void (*fn)(void *arg);
    void *arg;
};

static struct post {
    uintptr_t state;
    struct request *request; /* what the CPU is asked to do */
} __attribute__((aligned(64))) post[MM_CPU_MAX];
static uintptr_t calls, drained, served;

/* Does what others ask this CPU to do. */
static void serve(void)
{
    struct request *r = __atomic_load_n(&post[mm_test_cpu].request, __ATOMIC_ACQUIRE);
    if (r != NULL) {
        r->fn(r->arg);
        __atomic_fetch_add(&served, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&post[mm_test_cpu].request, NULL, __ATOMIC_RELEASE);
    }
}

static bool change(unsigned cpu, uintptr_t from, uintptr_t to)
{
    return __atomic_compare_exchange_n(&post[cpu].state, &from, to, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

/* Runs fn for an idle CPU; false if it is none. */
static bool run_for_idle(unsigned cpu, void (*fn)(void *arg), void *arg)
{
    const unsigned mine = mm_test_cpu;
    if (!change(cpu, IDLE, DRAINED))
        return false;
    mm_test_cpu = cpu;
    fn(arg);
    mm_test_cpu = mine;
    __atomic_store_n(&post[cpu].state, IDLE, __ATOMIC_RELEASE);
    return true;
}

static void each_cpu(void *ctx, void (*fn)(void *arg), void *arg)
{
    struct request request = {fn, arg};
    (void)ctx;
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    for (unsigned cpu = 0; cpu < MM_CPU_MAX; cpu++) {
        bool asked = false;
        while (cpu != mm_test_cpu && !asked && !run_for_idle(cpu, fn, arg)) {
            struct request *none = NULL;
            asked = __atomic_compare_exchange_n(&post[cpu].request, &none, &request, false,
                                                __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
            serve(); /* the other one may wait for this CPU */
            sched_yield();
        }
        while (asked && __atomic_load_n(&post[cpu].request, __ATOMIC_ACQUIRE) == &request) {
            struct request *mine = &request;
            if (change(cpu, IDLE, DRAINED)) { /* it went idle before it saw the request */
                if (__atomic_compare_exchange_n(&post[cpu].request, &mine, NULL, false,
                                                __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
                    const unsigned self = mm_test_cpu;
                    mm_test_cpu = cpu;
                    fn(arg);
                    mm_test_cpu = self;
                }
                __atomic_store_n(&post[cpu].state, IDLE, __ATOMIC_RELEASE);
            }
            serve();
            sched_yield();
        }
    }
}

/* Idle for a moment: others may drain this CPU. */
static void rest(struct mm_test_rng *rng)
{
    const unsigned n = (unsigned)mm_test_below(rng, 20);
    serve();
    __atomic_store_n(&post[mm_test_cpu].state, IDLE, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < n; i++)
        sched_yield();
    while (!change(mm_test_cpu, IDLE, RUNNING))
        sched_yield();
}

static uint64_t drain_an_idle_one(struct mm_test_rng *rng)
{
    const unsigned cpu = (unsigned)mm_test_below(rng, MM_CPU_MAX);
    uint64_t errors;
    if (!change(cpu, IDLE, DRAINED))
        return 0;
    errors = mm_slab_drain(&heap, cpu) != MM_OK;
    __atomic_fetch_add(&drained, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&post[cpu].state, IDLE, __ATOMIC_RELEASE);
    return errors;
}

/* A cache that lives for a moment, while others walk over all caches. */
static uint64_t short_lived_cache(void)
{
    struct mm_slab_cache_config c = {0};
    struct mm_slab_cache cache;
    uint64_t errors;
    void *p;

    c.name = "moment";
    c.size = 48;
    errors = mm_slab_cache_init(&cache, &heap, &c) != MM_OK;
    p = mm_slab_alloc(&cache, 0);
    errors += p != NULL && mm_slab_cache_destroy(&cache, NULL) != MM_ERR_BUSY;
    errors += mm_slab_free(&cache, p) != MM_OK;
    return errors + (mm_slab_cache_destroy(&cache, NULL) != MM_OK);
}

static uint64_t worker(unsigned cpu, void *arg)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), cpu);
    const uint64_t ops = *(const uint64_t *)arg;
    unsigned char *held[HELD] = {0};
    uint64_t errors = 0;

    while (!change(cpu, IDLE, RUNNING))
        sched_yield();
    for (uint64_t op = 0; op < ops; op++) {
        const unsigned i = (unsigned)mm_test_below(&rng, HELD);
        serve();
        if (held[i] != NULL) {
            errors += held[i][0] != (unsigned char)(cpu + i) || held[i][999] != held[i][0];
            errors += mm_slab_kfree(&heap, held[i]) != MM_OK;
            held[i] = NULL;
        } else {
            held[i] = mm_slab_kmalloc(&heap, 1000 + mm_test_below(&rng, 6) * 1000, 0);
            if (held[i] != NULL)
                held[i][0] = held[i][999] = (unsigned char)(cpu + i);
        }
        if (op % 32 == 0)
            sched_yield(); /* running, but others have their turn */
        if (op % 512 == 0)
            rest(&rng);
        if (op % 100 == 0)
            errors += drain_an_idle_one(&rng);
        if (op % 300 == 0)
            errors += short_lived_cache();
    }
    for (unsigned i = 0; i < HELD; i++)
        errors += mm_slab_kfree(&heap, held[i]) != MM_OK;
    serve();
    __atomic_store_n(&post[cpu].state, IDLE, __ATOMIC_RELEASE);
    return errors;
}

static void what_others_have_free_is_taken_when_memory_is_short(void **state)
{
    const uint64_t ops = mm_test_ops() / 2;
    uint64_t arg = ops, seed = mm_test_seed(); /* the first call is not for threads */
    (void)state, (void)seed;
    heap_begin();
    config.flags = 0;
    config.quota = 12 * MM_SLAB_BYTES;
    source.hooks.each_cpu = each_cpu;
    heap_make();
    for (unsigned cpu = 0; cpu < MM_CPU_MAX; cpu++)
        post[cpu].state = IDLE;
    /* threads that the host runs one after the other have memory enough: then again */
    for (unsigned round = 0; round < 20 && !(calls > 0 && drained > 0 && served > 0); round++)
        assert_int_equal(mm_test_threads(MM_CPU_MAX, worker, &arg), 0);
    assert_true(calls > 0);
    assert_true(drained > 0);
    assert_true(served > 0);
    assert_int_equal(misuse_total(), 0);
    heap_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_others_have_free_is_taken_when_memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
