/* The source of memory fails at its N-th call, for every N: the call fails or does without, nothing
 * else changes, and the next try succeeds. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

static struct mm_slab_cache cache;

static void make(unsigned flags)
{
    struct mm_slab_cache_config c = {0};
    heap_begin();
    config.reserve = 0;
    config.flags = flags;
    heap_make();
    c.name = "thing";
    c.size = 200;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
}

static void end(void)
{
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    assert_int_equal(mm_slab_fini(&heap), MM_OK);
    assert_int_equal(source.bytes, 0);
}

static size_t count_live(void *ctx, const struct mm_slab_object *o)
{
    (void)o;
    return ++*(size_t *)ctx;
}
static void note_live(void *ctx, const struct mm_slab_object *o)
{
    count_live(ctx, o);
}
static size_t live_objects(void)
{
    size_t n = 0, m = mm_slab_leaks(&heap, note_live, &n);
    assert_int_equal(n, m);
    return n;
}

/* One operation: its results go to p[]; how many it made. */
typedef size_t (*operation)(void **p);

static size_t op_kmalloc(void **p)
{
    p[0] = mm_slab_kmalloc(&heap, 100, 0);
    return p[0] != NULL;
}
static size_t op_alloc(void **p)
{
    p[0] = mm_slab_alloc(&cache, MM_SLAB_ZERO);
    return p[0] != NULL;
}
static size_t op_large(void **p)
{
    p[0] = mm_slab_kzalloc(&heap, 100000, 0);
    return p[0] != NULL;
}
static size_t op_aligned(void **p)
{
    p[0] = mm_slab_kmalloc_aligned(&heap, 100, 1 << 18, 0);
    return p[0] != NULL;
}
static size_t op_bulk(void **p)
{
    return mm_slab_kmalloc_bulk(&heap, 3000, 0, p, 100);
}
static size_t op_bulk_large(void **p)
{
    return mm_slab_kmalloc_bulk(&heap, 30000, 0, p, 10);
}
static size_t op_cache_bulk(void **p)
{
    return mm_slab_alloc_bulk(&cache, 0, p, 800);
}

static void fail_everywhere(operation op, size_t wanted, unsigned flags, unsigned cpu,
                            bool for_good)
{
    static void *p[1000];
    uint64_t n;

    for (n = 1;; n++) {
        make(flags);
        cpu_now = cpu;
        void *other = mm_slab_kmalloc(&heap, 5000, 0);
        memset(other, 7, 5000);
        source.fail.calls = 0;
        source.fail.fail_at = n;
        source.for_good = for_good;
        size_t got = op(p);
        const bool failed = source.fail.calls >= n;
        assert_true(got == wanted || failed);
        assert_true(n > 1 || !for_good || got < wanted);
        source.for_good = false;
        assert_int_equal(live_objects(), 1 + got);
        for (size_t i = 0; i < 5000; i++)
            assert_int_equal(((char *)other)[i], 7);
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, got), MM_OK);
        got = op(p); /* now there is memory */
        assert_int_equal(got, wanted);
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, got), MM_OK);
        assert_int_equal(mm_slab_kfree(&heap, other), MM_OK);
        assert_int_equal(misuse_total(), 0);
        end();
        if (!failed)
            break;
    }
    assert_true(n > 1); /* something was made to fail */
}

static void every_allocation(void **state)
{
    static const struct {
        operation op;
        size_t wanted;
    } ops[] = {{op_kmalloc, 1}, {op_alloc, 1},       {op_large, 1},       {op_aligned, 1},
               {op_bulk, 100},  {op_bulk_large, 10}, {op_cache_bulk, 800}};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        for (unsigned for_good = 0; for_good < 2; for_good++) {
            fail_everywhere(ops[i].op, ops[i].wanted, 0, 0, for_good != 0);
            fail_everywhere(ops[i].op, ops[i].wanted, MMI_SLAB_FLAGS, 0, for_good != 0);
            fail_everywhere(ops[i].op, ops[i].wanted, 0, MM_CPU_MAX, for_good != 0);
        }
    }
}

static void a_failed_krealloc_leaves_the_object(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        make(MMI_SLAB_FLAGS);
        char *p = mm_slab_kmalloc(&heap, 600, 0);
        memset(p, 'x', 600);
        source.fail.calls = 0;
        source.fail.fail_at = n;
        char *q = mm_slab_krealloc(&heap, p, 50000, 0);
        const bool failed = source.fail.calls >= n;
        assert_true(q != NULL || failed);
        if (q != NULL)
            p = q;
        for (unsigned i = 0; i < 600; i++)
            assert_int_equal(p[i], 'x');
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        end();
        if (!failed)
            break;
    }
}

/* Where there is no memory for the list it waits for readers and frees at once. */
static void a_deferred_free_never_fails(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        void *p[200];
        make(MMI_SLAB_FLAGS);
        grace_over = grace_now;
        for (unsigned i = 0; i < 200; i++)
            p[i] = mm_slab_alloc(&cache, 0);
        source.fail.calls = 0;
        source.fail.fail_at = n;
        for (unsigned i = 0; i < 200; i++)
            assert_int_equal(mm_slab_free_rcu(&heap, p[i]), MM_OK);
        const bool failed = source.fail.calls >= n;
        mm_slab_rcu_barrier(&heap);
        assert_int_equal(live_objects(), 0);
        end();
        if (!failed)
            break;
    }
}

/* The table of memory stays as small as it is if there is no room for a larger one. */
static void the_table_does_without_growth(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 600; n += 7) {
        static void *p[300];
        make(0);
        source.fail.fail_at = n;
        for (unsigned i = 0; i < 300; i++)
            p[i] = mm_slab_kmalloc(&heap, 9000, 0);
        assert_int_equal(mm_slab_check(&heap), MM_OK);
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, 300), MM_OK);
        end();
    }
}

/* What was prepared for a large request that fails is given back. */
static void failed_large_requests_keep_nothing(void **state)
{
    (void)state;
    make(0);
    void *p = mm_slab_kmalloc(&heap, 100000, 0);
    assert_non_null(p);
    source.for_good = true;
    source.fail.fail_at = 1;
    for (unsigned i = 0; i < 100; i++)
        assert_null(mm_slab_kmalloc(&heap, 100000, 0));
    assert_int_equal(cache_stats(&heap.inner[MMI_SLAB_ENTRIES]).active, 1);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    source.for_good = false;
    end();
}

/* A source that gives misaligned memory is as good as none, and gets it back. */
static void misaligned_memory_goes_back(void **state)
{
    (void)state;
    make(0);
    source.misalign = true;
    assert_null(mm_slab_kmalloc(&heap, 100, 0));
    assert_null(mm_slab_kmalloc(&heap, 100000, 0));
    assert_int_equal(source.bytes, 0);
    assert_int_equal(source.calls, source.frees);
    source.misalign = false;
    void *p = mm_slab_kmalloc(&heap, 100, 0);
    assert_non_null(p);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(a_failed_krealloc_leaves_the_object),
        cmocka_unit_test(a_deferred_free_never_fails),
        cmocka_unit_test(the_table_does_without_growth),
        cmocka_unit_test(failed_large_requests_keep_nothing),
        cmocka_unit_test(misaligned_memory_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
