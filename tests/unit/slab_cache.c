/* Named caches: set-up, constructors, quotas, memory back, deferred frees, statistics. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

#include <sched.h>

static struct mm_slab_cache cache;
static struct mm_slab_cache_config cc;

static void cache_begin(size_t size)
{
    heap_begin();
    config.flags = 0;
    config.reserve = 0;
    memset(&cc, 0, sizeof cc);
    cc.name = "thing";
    cc.size = size;
}

static void cache_make(void)
{
    heap_make();
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &cc), MM_OK);
}

static void cache_end(void)
{
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    heap_end();
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    cache_begin(40);
    heap_make();
#define REFUSED(change)                                                           \
    do {                                                                          \
        struct mm_slab_cache_config good = cc;                                    \
        change;                                                                   \
        assert_int_equal(mm_slab_cache_init(&cache, &heap, &cc), MM_ERR_INVALID); \
        cc = good;                                                                \
    } while (0)
    REFUSED(cc.name = NULL);
    REFUSED(cc.size = 0);
    REFUSED(cc.size = MM_SLAB_CACHE_MAX + 1);
    REFUSED(cc.size = SIZE_MAX);
    REFUSED(cc.align = 48);
    REFUSED(cc.align = MM_SLAB_CACHE_MAX * 2);
    REFUSED(cc.flags = 0x40000000u);
    REFUSED(cc.without = 0x40000000u);
    REFUSED(cc.copy_offset = 41);
    REFUSED(cc.copy_offset = 8; cc.copy_bytes = 33);
    REFUSED(source.hooks.grace_wait = NULL; cc.flags = MM_SLAB_TYPE_STABLE);
    source.hooks.grace_wait = grace_wait;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &cc), MM_OK);
    cache_end();
}

static void sizes_and_alignments_hold(void **state)
{
    (void)state;
    for (size_t align = 0; align <= MM_SLAB_CACHE_MAX; align = align != 0 ? align * 2 : 1) {
        for (size_t size = 1; size <= MM_SLAB_CACHE_MAX; size = size * 3 + 1) {
            char *p[3];
            cache_begin(size);
            cc.align = align;
            cache_make();
            for (unsigned i = 0; i < 3; i++) {
                assert_non_null(p[i] = mm_slab_alloc(&cache, MM_SLAB_ZERO));
                assert_int_equal((uintptr_t)p[i] % (align > 8 ? align : 8), 0);
                for (size_t n = 0; n < size; n++)
                    assert_int_equal(p[i][n], 0);
                memset(p[i], 0xff, size);
            }
            assert_int_equal(mm_slab_ksize(&heap, p[1]), size);
            for (unsigned i = 0; i < 3; i++)
                assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
            cache_end();
        }
    }
}

static size_t constructed, destructed;
static void construct(void *ctx, void *object)
{
    assert_ptr_equal(ctx, &cache);
    constructed++;
    memset(object, 0x11, 200);
}
static void destruct(void *ctx, void *object)
{
    assert_ptr_equal(ctx, &cache);
    destructed++;
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(((unsigned char *)object)[i], 0x11);
}

static void constructed_objects_stay_so(void **state)
{
    void *p[1000];
    (void)state;
    constructed = destructed = 0;
    cache_begin(200);
    cc.construct = construct;
    cc.destruct = destruct;
    cc.ctx = &cache;
    cache_make();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 1000; i++) {
            unsigned char *o = p[i] = mm_slab_alloc(&cache, 0);
            for (unsigned n = 0; n < 200; n++)
                assert_int_equal(o[n], 0x11);
            o[7] = 3; /* the user leaves it as he found it */
            o[7] = 0x11;
        }
        assert_int_equal(constructed - destructed, cache_stats(&cache).objects);
        assert_int_equal(mm_slab_free_bulk(&cache, p + 1, 999), MM_OK);
        mm_slab_cache_shrink(&cache); /* no page of what stays constructed is given away */
        assert_int_equal(mm_slab_free(&cache, p[0]), MM_OK);
    }
    mm_slab_cache_shrink(&cache);
    assert_int_equal(constructed, destructed);
    assert_true(constructed >= 1000);
    cache_end();
    assert_int_equal(constructed, destructed);
}

static void destroy_counts_the_living(void **state)
{
    void *p[10];
    size_t live = 99;
    (void)state;
    cache_begin(64);
    cache_make();
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 10), 10);
    assert_int_equal(mm_slab_free(&cache, p[3]), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&cache, &live), MM_ERR_BUSY);
    assert_int_equal(live, 9);
    assert_int_equal(mm_slab_fini(&heap), MM_ERR_BUSY);
    p[3] = mm_slab_alloc(&cache, 0); /* it goes on */
    assert_int_equal(mm_slab_free_bulk(&cache, p, 10), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&cache, &live), MM_OK);
    assert_int_equal(live, 0);
    assert_int_equal(cache_stats(&heap.inner[MMI_SLAB_ARRAYS]).active, 0);
    heap_end();
}

static void objects_of_other_caches_are_refused(void **state)
{
    struct mm_slab_cache other;
    (void)state;
    cache_begin(64);
    cache_make();
    assert_int_equal(mm_slab_cache_init(&other, &heap, &cc), MM_OK);
    void *p = mm_slab_alloc(&cache, 0), *q = mm_slab_kmalloc(&heap, 64, 0),
         *o = mm_slab_alloc(&other, 0);
    assert_int_equal(mm_slab_free(&other, p), MM_ERR_INVALID);
    assert_int_equal(mm_slab_free(&cache, q), MM_ERR_INVALID);
    assert_int_equal(mm_slab_free(&cache, o), MM_ERR_INVALID);
    assert_int_equal(mm_slab_free_bulk(&cache, &o, 1), MM_ERR_INVALID);
    assert_null(mm_slab_krealloc(&heap, p, 100, 0));  /* its cache would not get it back */
    assert_int_equal(mm_slab_kfree(&heap, o), MM_OK); /* kfree knows all caches */
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&other, NULL), MM_OK);
    cache_end();
}

static void another_heaps_objects_are_refused(void **state)
{
    static struct mm_slab_heap second;
    (void)state;
    cache_begin(64);
    cache_make();
    assert_int_equal(mm_slab_init(&second, &config), MM_OK);
    void *p = mm_slab_kmalloc(&second, 64, 0);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 64), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&second, p, 64), MM_OK);
    assert_int_equal(mm_slab_fini(&second), MM_OK);
    cache_end();
}

static void objects_of_empty_slabs_are_refused(void **state)
{
    (void)state;
    cache_begin(64);
    config.reserve = 2;
    cache_make();
    void *p = mm_slab_kmalloc(&heap, 64, 0), *own = mm_slab_alloc(&cache, 0);
    assert_int_equal(cache.offset % 32, 24); /* see tests/unit/slab_marks.c */
    assert_int_equal(mm_slab_kfree_sized(&heap, own, 64), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 64), MM_OK);
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    assert_int_equal(heap_stats().empty, 1); /* it can still be read */
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 64), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
    assert_int_equal(mm_slab_free(&cache, own), MM_OK);
    cache_end();
}

static void a_cache_keeps_to_its_quota(void **state)
{
    void *p[5000];
    size_t n;
    (void)state;
    cache_begin(64);
    cc.quota = 2 * MM_SLAB_BYTES;
    cache_make();
    for (n = 0; (p[n] = mm_slab_alloc(&cache, 0)) != NULL; n++)
        continue;
    assert_int_equal(n, 2 * cache.count);
    assert_int_equal(cache_stats(&cache).failures, 1);
    assert_int_equal(cache_stats(&cache).active, n);
    mm_slab_cache_set_quota(&cache, 0);
    assert_non_null(p[n] = mm_slab_alloc(&cache, 0));
    assert_int_equal(mm_slab_free_bulk(&cache, p, n + 1), MM_OK);
    cache_end();
}

static void a_heap_keeps_to_its_quota(void **state)
{
    (void)state;
    cache_begin(64);
    config.quota = 3 * MM_SLAB_BYTES;
    cache_make();
    void *p = mm_slab_kmalloc(&heap, MM_SLAB_BYTES, 0); /* with the slab for its entry */
    assert_non_null(p);
    assert_null(mm_slab_kmalloc(&heap, MM_SLAB_BYTES + 1, 0));
    void *q = mm_slab_alloc(&cache, 0);
    assert_non_null(q);
    assert_null(mm_slab_kmalloc(&heap, 100, 0));
    assert_true(heap_stats().failures >= 2);
    assert_int_equal(heap_stats().bytes, 3 * MM_SLAB_BYTES);
    mm_slab_set_quota(&heap, 0);
    void *r = mm_slab_kmalloc(&heap, 100, 0);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, r), MM_OK);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    cache_end();
}

static void empty_slabs_above_the_reserve_go_back(void **state)
{
    static void *p[20000];
    (void)state;
    for (unsigned n = 0; n < 9; n++) {
        const unsigned reserve = n / 3 * 2, way = n % 3; /* in bulk, one by one, by address alone */
        cache_begin(64);
        config.reserve = reserve;
        cache_make();
        assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 20000), 20000);
        const size_t peak = source.bytes;
        for (unsigned i = 0; i < 20000 && way != 0; i++)
            assert_int_equal(way == 1 ? mm_slab_free(&cache, p[i]) : mm_slab_kfree(&heap, p[i]),
                             MM_OK);
        if (way == 0)
            assert_int_equal(mm_slab_free_bulk(&cache, p, 20000), MM_OK);
        assert_true(source.bytes <= peak / 4 + reserve * MM_SLAB_BYTES);
        assert_in_range(heap_stats().peak, peak, peak + MM_SLAB_BYTES);
        assert_true(heap_stats().empty <= reserve);
        mm_slab_shrink(&heap);
        assert_int_equal(cache_stats(&cache).slabs, 0);
        assert_int_equal(heap_stats().empty, 0);
        cache_end();
    }
}

static struct mm_slab_cache *raced;
static void *other_cpus;

/* While one CPU waits for a slab, another one gets one too. */
static void *racing_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    struct mm_slab_cache *c = raced;
    raced = NULL;
    if (c != NULL) {
        cpu_now = 1;
        other_cpus = mm_slab_alloc(c, 0);
        cpu_now = 0;
    }
    return source_alloc(ctx, bytes, align, flags);
}

static void slabs_of_cpus_that_met_go_back(void **state)
{
    struct mm_slab_cache_config c = {0};
    struct mm_slab_cache cache;
    (void)state;
    heap_begin();
    config.flags = 0;
    config.reserve = 0;
    source.hooks.alloc = racing_alloc;
    heap_make();
    c.name = "met";
    c.size = 64;
    for (unsigned i = 0; i < 2; i++) {
        c.flags = i == 0 ? 0 : MM_SLAB_SHUFFLE;
        assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
        raced = &cache;
        void *own = mm_slab_alloc(&cache, 0);
        assert_true(own != NULL && other_cpus != NULL && own != other_cpus);
        assert_int_equal(cache_stats(&cache).slabs, 2);
        assert_int_equal(mm_slab_check(&heap), MM_OK);
        assert_int_equal(mm_slab_free(&cache, own), MM_OK);
        assert_int_equal(mm_slab_free(&cache, other_cpus), MM_OK);
        mm_slab_cache_shrink(&cache);
        assert_int_equal(cache_stats(&cache).slabs, 0);
        assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    }
    heap_end();
}

/* Also when its array ran over with it, and was emptied since. */
static void what_was_freed_last_is_refused(void **state)
{
    void *p[200];
    (void)state;
    cache_begin(64);
    cache_make();
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 200), 200);
    for (unsigned i = 0; i < MM_SLAB_SLOTS; i++) {
        assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
        assert_int_equal(mm_slab_free(&cache, p[i]), MM_ERR_INVALID);
    }
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p[MM_SLAB_SLOTS - 1]), MM_ERR_INVALID);
    assert_int_equal(mm_slab_free_bulk(&cache, p + MM_SLAB_SLOTS, 200 - MM_SLAB_SLOTS), MM_OK);
    cache_end();
}

static void drain_leaves_nothing_on_a_cpu(void **state)
{
    void *p[60];
    (void)state;
    cache_begin(64);
    cache_make();
    cpu_now = 1;
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 60), 60);
    cpu_now = 2;
    for (unsigned i = 0; i < 60; i++)
        assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    assert_true(cache_stats(&cache).cached >= 60);
    cpu_now = 0;
    assert_int_equal(mm_slab_drain(&heap, 1), MM_OK);
    assert_int_equal(cache_stats(&cache).cached, 60);
    assert_int_equal(mm_slab_drain(&heap, 2), MM_OK);
    assert_int_equal(cache_stats(&cache).cached, 0);
    assert_int_equal(cache_stats(&cache).slabs, 0);
    assert_int_equal(mm_slab_drain(&heap, MM_CPU_MAX), MM_ERR_INVALID);
    cache_end();
}

static void free_pages_of_partial_slabs_are_purged(void **state)
{
    static char *p[60];
    (void)state;
    if (SLAB_ASAN)
        skip();
    cache_begin(1000);
    cache_make();
    for (unsigned i = 0; i < 60; i++)
        memset(p[i] = mm_slab_alloc(&cache, 0), (int)i, 1000);
    for (unsigned i = 0; i < 60; i++)
        if (i % 10 != 0)
            assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    const size_t given = mm_slab_cache_shrink(&cache);
    assert_true(source.purged > 0 && given >= source.purged);
    const size_t purged = source.purged;
    mm_slab_cache_shrink(&cache);
    assert_int_equal(source.purged, purged); /* once is enough */
    for (unsigned i = 0; i < 60; i += 10)
        for (unsigned n = 0; n < 1000; n++)
            assert_int_equal(p[i][n], i);
    for (unsigned i = 0; i < 60; i++)
        if (i % 10 != 0)
            memset(p[i] = mm_slab_alloc(&cache, 0), (int)i, 1000);
    mm_slab_cache_shrink(&cache);
    for (unsigned i = 0; i < 60; i++)
        for (unsigned n = 0; n < 1000; n++)
            assert_int_equal(p[i][n], i);
    for (unsigned i = 0; i < 60; i++)
        if (i % 10 != 0)
            assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    const size_t again = source.purged;
    mm_slab_cache_shrink(&cache);
    assert_true(source.purged >= again + purged / 2); /* they had content again */
    for (unsigned i = 0; i < 60; i += 10)
        assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    cache_end();
}

/* The last page of an object that comes back as well. */
static void pages_with_content_again_are_purged_again(void **state)
{
    char *p[8];
    size_t purged[3];
    (void)state;
    if (SLAB_ASAN)
        skip();
    cache_begin(8000);
    config.flags = 0;
    cache_make();
    const unsigned n = cache.count;
    assert_true(n <= 8);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = round == 0 ? 0 : 1; i < n; i++)
            assert_non_null(p[i] = mm_slab_alloc(&cache, 0));
        for (unsigned i = 1; i < n; i++)
            assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
        source.purged = 0;
        mm_slab_cache_shrink(&cache);
        purged[round] = source.purged;
    }
    assert_true(purged[0] >= (n - 2) * 8000);
    assert_int_equal(purged[1], purged[0]);
    assert_int_equal(purged[2], purged[0]);
    assert_int_equal(mm_slab_free(&cache, p[0]), MM_OK);
    cache_end();
}

/* And those of a slab that left the cache and came back. */
static void pages_of_a_reused_slab_are_purged_again(void **state)
{
    char *p[8];
    size_t purged[2];
    (void)state;
    if (SLAB_ASAN)
        skip();
    cache_begin(8000);
    config.flags = 0;
    config.reserve = 1;
    cache_make();
    const unsigned n = cache.count;
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < n; i++)
            assert_non_null(p[i] = mm_slab_alloc(&cache, 0));
        for (unsigned i = 0; i < n; i++)
            if (mmi_slab_object(mmi_slab_of(p[i]), n - 1) != p[i])
                assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
        source.purged = 0;
        mm_slab_cache_shrink(&cache);
        purged[round] = source.purged;
        assert_int_equal(mm_slab_free(&cache, mmi_slab_object(mmi_slab_of(p[0]), n - 1)), MM_OK);
        assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
        assert_int_equal(heap_stats().empty, 1);
    }
    assert_true(purged[0] >= (n - 2) * 8000);
    assert_int_equal(purged[1], purged[0]);
    cache_end();
}

static void the_depot_serves_long_swings(void **state)
{
    static void *p[1000];
    (void)state;
    cache_begin(64);
    cache_make();
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 1000; i++)
            p[i] = mm_slab_alloc(&cache, 0);
        for (unsigned i = 0; i < 1000; i++)
            assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
        assert_int_equal(mm_slab_check(&heap), MM_OK);
    }
    assert_true(cache.batches >= 4);
    assert_int_equal(cache_stats(&cache).active, 0);
    assert_true(cache_stats(&cache).cached >= 1000 - MM_SLAB_SLOTS);
    cpu_now = 1; /* another CPU finds them there */
    void *q = mm_slab_alloc(&cache, 0);
    assert_true(cache.batches >= 3);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    cpu_now = MM_CPU_MAX; /* and one without arrays, when the slabs have none */
    mm_slab_cache_set_quota(&cache, MM_SLAB_BYTES);
    size_t n = 0;
    while ((q = mm_slab_alloc(&cache, MM_SLAB_NOWAIT)) != NULL)
        p[n++] = q;
    assert_int_equal(cache.batches, 0);
    assert_int_equal(mm_slab_free_bulk(&cache, p, n), MM_OK);
    cpu_now = 0;
    cache_end();
}

static bool reclaim(void *ctx, struct mm_slab_heap *h, size_t bytes)
{
    struct source *s = ctx;
    assert_ptr_equal(h, &heap);
    assert_true(bytes >= 4096);
    s->misalign = false;
    return true;
}

static unsigned asked;

/* A call on every CPU. */
static void each_cpu(void *ctx, void (*fn)(void *arg), void *arg)
{
    const unsigned mine = cpu_now;
    (void)ctx;
    asked++;
    for (cpu_now = 0; cpu_now < MM_CPU_MAX; cpu_now++)
        fn(arg);
    cpu_now = mine;
}

/* However long the swings are, and it forgets them. */
static void the_depot_stays_small(void **state)
{
    static void *p[20000];
    (void)state;
    cache_begin(64);
    config.flags = 0;
    cache_make();
    for (unsigned round = 0; round < 40; round++) {
        assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 20000), 20000);
        assert_int_equal(mm_slab_free_bulk(&cache, p, 20000), MM_OK);
        assert_true(cache_stats(&cache).cached * 64 <= 65536 + 2 * MM_SLAB_SLOTS * 64);
    }
    const uint32_t limit = cache.limit;
    assert_true(limit >= 4);
    for (unsigned round = 0; round < 100; round++) {
        assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 200), 200);
        assert_int_equal(mm_slab_free_bulk(&cache, p, 200), MM_OK);
    }
    assert_true(cache.limit < limit);
    mm_slab_cache_shrink(&cache);
    assert_int_equal(cache.limit, 0);
    cache_end();
}

static void free_objects_of_other_cpus_are_taken_before_failure(void **state)
{
    static void *p[2000];
    void *more;
    (void)state;
    cache_begin(64);
    cc.quota = MM_SLAB_BYTES;
    cache_make();
    cpu_now = 1;
    const size_t n = mm_slab_alloc_bulk(&cache, 0, p, 2000);
    assert_true(n > 500 && n < 1024);
    cpu_now = 2;
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    cpu_now = 0;
    assert_null(mm_slab_alloc(&cache, 0)); /* out of reach */
    source.hooks.each_cpu = each_cpu;
    assert_null(mm_slab_alloc(&cache, MM_SLAB_NOWAIT)); /* not asked */
    assert_int_equal(asked, 0);
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 100), 100);
    assert_int_equal(asked, 1);
    assert_null(mm_slab_alloc(&cache, 0));
    assert_int_equal(mm_slab_free_bulk(&cache, p, n), MM_OK);
    mm_slab_shrink(&heap);

    /* what other classes have free on other CPUs, and in depots, as well */
    mm_slab_set_quota(&heap, heap_stats().bytes + 3 * MM_SLAB_BYTES);
    cpu_now = 1;
    for (size_t i = 0; i < 14; i++) /* two slabs */
        assert_non_null(p[i] = mm_slab_kmalloc(&heap, 8192, 0));
    cpu_now = 2;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    cpu_now = 1;
    for (size_t i = 4; i < 14; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    cpu_now = 0;
    assert_int_equal(heap_stats().bytes, heap_stats().quota - MM_SLAB_BYTES);
    assert_null(mm_slab_kmalloc(&heap, 2 * MM_SLAB_BYTES, MM_SLAB_NOWAIT));
    more = mm_slab_kmalloc(&heap, 2 * MM_SLAB_BYTES, 0);
    assert_non_null(more);
    assert_int_equal(mm_slab_kfree(&heap, more), MM_OK);
    mm_slab_set_quota(&heap, 0);
    cache_end();
}

static void shrink_reaches_all_cpus(void **state)
{
    void *p[3];
    (void)state;
    cache_begin(64);
    cache_make();
    source.hooks.each_cpu = each_cpu;
    for (cpu_now = 0; cpu_now < 3; cpu_now++)
        assert_non_null(p[cpu_now] = mm_slab_alloc(&cache, 0));
    for (cpu_now = 0; cpu_now < 3; cpu_now++)
        assert_int_equal(mm_slab_free(&cache, p[cpu_now]), MM_OK);
    cpu_now = 0;
    assert_true(cache_stats(&cache).cached >= 3);
    assert_true(mm_slab_cache_shrink(&cache) > 0);
    assert_int_equal(cache_stats(&cache).cached, 0);
    assert_int_equal(cache_stats(&cache).slabs, 0);
    cpu_now = 1;
    p[0] = mm_slab_kmalloc(&heap, 100, 0);
    p[1] = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, 2), MM_OK);
    cpu_now = 0;
    mm_slab_shrink(&heap);
    assert_int_equal(cache_stats(&cache).slabs, 0);
    assert_int_equal(cache_stats(&heap.cls[mmi_slab_class(100)]).slabs, 0);
    cache_end();
}

static void reclaim_is_asked_before_failure(void **state)
{
    (void)state;
    cache_begin(64);
    cache_make();
    source.hooks.reclaim = reclaim;
    source.misalign = true; /* such memory is refused, until reclaim helps */
    assert_null(mm_slab_alloc(&cache, MM_SLAB_NOWAIT));
    assert_true(source.misalign);
    assert_int_equal(heap_stats().failures, 1);
    assert_int_equal(cache_stats(&cache).failures, 1);
    void *p = mm_slab_alloc(&cache, 0);
    assert_non_null(p);
    source.misalign = true;
    assert_null(mm_slab_kmalloc(&heap, 100000, MM_SLAB_NOWAIT));
    void *q = mm_slab_kmalloc(&heap, 100000, 0);
    assert_non_null(q);
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

static void deferred_frees_wait_for_readers(void **state)
{
    uint64_t *p[300];
    (void)state;
    cache_begin(64);
    cache_make();
    grace_over = grace_now;
    for (unsigned i = 0; i < 300; i++)
        *(p[i] = mm_slab_alloc(&cache, 0)) = i;
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(mm_slab_free_rcu(&heap, p[i]), MM_OK);
    void *large = mm_slab_kmalloc(&heap, 40000, 0);
    assert_int_equal(mm_slab_free_rcu(&heap, large), MM_OK);
    assert_int_equal(mm_slab_rcu_poll(&heap), 301);
    assert_int_equal(heap_stats().deferred, 301);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(*p[i], i); /* readers still see them */
    assert_int_equal(cache_stats(&cache).active, 300);
    grace_over = grace_now;
    assert_int_equal(mm_slab_rcu_poll(&heap), 0);
    assert_int_equal(cache_stats(&cache).active, 0);
    assert_int_equal(heap_stats().large, 0);
    p[0] = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free_rcu(&heap, p[0]), MM_OK);
    grace_waits = 0;
    mm_slab_rcu_barrier(&heap);
    assert_int_equal(grace_waits, 1);
    assert_int_equal(heap_stats().deferred, 0);
    assert_int_equal(mm_slab_free_rcu(&heap, (char *)p[0] + 1), MM_ERR_INVALID);
    cache_end();
}

static void note_object(void *ctx, const struct mm_slab_object *o)
{
    (void)ctx, (void)o;
}

/* The hooks of a poll may end all that it was about to look at. */
static bool grace_done_barrier(void *ctx, uintptr_t grace)
{
    (void)ctx, (void)grace;
    mm_slab_rcu_barrier(&heap);
    return false;
}

static void a_barrier_finds_what_a_poll_looks_at(void **state)
{
    (void)state;
    heap_begin();
    source.hooks.grace_done = grace_done_barrier;
    heap_make();
    void *p = mm_slab_kmalloc(&heap, 100, 0);
    assert_int_equal(mm_slab_free_rcu(&heap, p), MM_OK);
    grace_waits = 0;
    (void)mm_slab_rcu_poll(&heap); /* closes the batch, then asks the hook */
    assert_int_equal(grace_waits, 1);
    assert_int_equal(heap_stats().deferred, 0);
    assert_int_equal(mm_slab_leaks(&heap, note_object, NULL), 0);
    heap_end();
}

static void deferred_frees_without_memory_wait_on_the_spot(void **state)
{
    (void)state;
    heap_plain();
    void *p = mm_slab_kmalloc(&heap, 100, 0), *q = mm_slab_kmalloc(&heap, 100, 0);
    source.fail.fail_at = source.fail.calls; /* from here on */
    source.for_good = true;
    grace_waits = 0;
    assert_int_equal(mm_slab_free_rcu(&heap, p), MM_OK);
    assert_int_equal(grace_waits, 1);
    assert_int_equal(heap_stats().deferred, 0);
    source.for_good = false;
    source.fail.fail_at = 0;
    assert_int_equal(mm_slab_free_rcu(&heap, q), MM_OK);
    assert_int_equal(heap_stats().deferred, 1);
    (void)mm_slab_shrink(&heap); /* closes what waits, and frees what is over */
    grace_over = grace_now;
    (void)mm_slab_shrink(&heap);
    assert_int_equal(heap_stats().deferred, 0);
    heap_end();
}

static void what_waits_longest_is_freed_first(void **state)
{
    uintptr_t over[3];
    (void)state;
    heap_simple();
    grace_over = 0;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(mm_slab_free_rcu(&heap, mm_slab_kmalloc(&heap, 100, 0)), MM_OK);
        assert_int_equal(mm_slab_rcu_poll(&heap), i + 1); /* a batch each */
        over[i] = grace_now;
    }
    for (unsigned i = 0; i < 3; i++) {
        grace_over = over[i];
        assert_int_equal(mm_slab_rcu_poll(&heap), 2 - i);
    }
    heap_end();
}

/* While a poll asks about one batch, another poll frees it, and a later one begins to wait. */
static void *later;
static bool grace_done_elsewhere(void *ctx, uintptr_t grace)
{
    (void)ctx;
    if (later != NULL) {
        void *p = later;
        later = NULL;
        grace_over = grace;
        assert_int_equal(mm_slab_rcu_poll(&heap), 0);
        assert_int_equal(mm_slab_free_rcu(&heap, p), MM_OK);
        assert_int_equal(mm_slab_rcu_poll(&heap), 1);
    }
    return grace <= grace_over;
}

static void a_poll_frees_only_what_it_asked_about(void **state)
{
    (void)state;
    heap_begin();
    source.hooks.grace_done = grace_done_elsewhere;
    heap_make();
    grace_over = 0;
    void *p = mm_slab_kmalloc(&heap, 100, 0);
    later = mm_slab_kmalloc(&heap, 100, 0);
    assert_int_equal(mm_slab_free_rcu(&heap, p), MM_OK);
    assert_int_equal(mm_slab_rcu_poll(&heap), 1); /* the later one waits */
    grace_over = grace_now;
    assert_int_equal(mm_slab_rcu_poll(&heap), 0);
    heap_end();
}

/* A thread that polls is held up in the midst of a batch, at a destructor. */
static uintptr_t held_up;
static void slow_destructor(void *ctx, void *object)
{
    (void)ctx, (void)object;
    if (__atomic_exchange_n(&held_up, 1, __ATOMIC_SEQ_CST) == 0)
        usleep(200000);
}
static void *poll_thread(void *arg)
{
    (void)mm_slab_rcu_poll(&heap);
    return arg;
}

static void a_barrier_waits_for_polls_elsewhere(void **state)
{
    struct mm_slab_cache_config c = {0};
    struct mm_slab_cache slow;
    pthread_t thread;
    void *p[40];
    (void)state;
    heap_begin();
    config.flags = 0;
    config.reserve = 0;
    heap_make();
    cpu_now = MM_CPU_MAX; /* both threads are served from the slabs */
    c.name = "slow";
    c.size = 8000;
    c.destruct = slow_destructor;
    assert_int_equal(mm_slab_cache_init(&slow, &heap, &c), MM_OK);
    for (unsigned i = 0; i < 40; i++)
        p[i] = mm_slab_alloc(&slow, 0);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(mm_slab_free_rcu(&heap, p[i]), MM_OK);
    grace_over = ~(uintptr_t)0;
    held_up = 0;
    assert_int_equal(pthread_create(&thread, NULL, poll_thread, NULL), 0);
    while (__atomic_load_n(&held_up, __ATOMIC_SEQ_CST) == 0)
        sched_yield();
    mm_slab_rcu_barrier(&heap);
    assert_int_equal(heap_stats().deferred, 0);
    assert_int_equal(cache_stats(&slow).active, 0);
    pthread_join(thread, NULL);
    grace_over = grace_now;
    assert_int_equal(mm_slab_cache_destroy(&slow, NULL), MM_OK);
    cpu_now = 0;
    heap_end();
}

static void without_grace_hooks_nothing_is_deferred(void **state)
{
    (void)state;
    cache_begin(64);
    source.hooks.grace_start = NULL;
    source.hooks.grace_done = NULL;
    source.hooks.grace_wait = NULL;
    cache_make();
    void *p = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free_rcu(&heap, p), MM_ERR_INVALID);
    assert_int_equal(mm_slab_rcu_poll(&heap), 0);
    mm_slab_rcu_barrier(&heap);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

/* Readers may look at pages of a slab without a live object. */
static void type_stable_pages_keep_their_content(void **state)
{
    uint64_t *p[100];
    (void)state;
    cache_begin(1000);
    config.flags = 0;
    cc.flags = MM_SLAB_TYPE_STABLE;
    cache_make();
    for (unsigned i = 0; i < 100; i++)
        *(p[i] = mm_slab_alloc(&cache, 0)) = 555;
    for (unsigned i = 1; i < 100; i++)
        assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    mm_slab_cache_shrink(&cache);
    for (unsigned i = 1; i < cache.count; i++) /* of the slab that stays */
        assert_int_equal(*p[i], 555);
    assert_int_equal(mm_slab_free(&cache, p[0]), MM_OK);
    cache_end();
}

static void type_stable_slabs_wait_for_readers(void **state)
{
    void *p[2000];
    (void)state;
    cache_begin(64);
    cc.flags = MM_SLAB_TYPE_STABLE;
    cache_make();
    grace_over = grace_now;
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 2000), 2000);
    *(uint64_t *)p[5] = 555;
    const size_t before = source.bytes;
    assert_int_equal(mm_slab_free_bulk(&cache, p, 2000), MM_OK);
    mm_slab_cache_shrink(&cache);
    assert_int_equal(cache_stats(&cache).slabs, 0);
    assert_true(source.bytes >= before); /* still there for readers */
    assert_int_equal(*(uint64_t *)p[5], 555);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    mm_slab_rcu_poll(&heap);
    assert_true(source.bytes >= before);
    grace_over = grace_now;
    mm_slab_rcu_poll(&heap);
    assert_true(source.bytes < before);
    cache_end();
}

/* What a destructor does to an object is for nobody to see. */
static unsigned destructs;
static void destruct_and_count(void *ctx, void *object)
{
    (void)ctx;
    destructs++;
    *(uint64_t *)object = 0;
}

static void destructors_of_type_stable_caches_wait_for_readers(void **state)
{
    uint64_t *p;
    (void)state;
    cache_begin(64);
    cc.flags = MM_SLAB_TYPE_STABLE;
    cc.destruct = destruct_and_count;
    destructs = 0;
    cache_make();
    grace_over = grace_now;
    for (unsigned round = 1; round <= 2; round++) {
        *(p = mm_slab_alloc(&cache, 0)) = 555;
        assert_int_equal(mm_slab_free(&cache, p), MM_OK);
        mm_slab_cache_shrink(&cache);
        mm_slab_rcu_poll(&heap);
        assert_int_equal(destructs, (round - 1) * cache.count);
        assert_int_equal(*p, 555);
        assert_int_equal(mm_slab_check(&heap), MM_OK);
        if (round == 2)
            break; /* the cache ends with a slab that waits */
        grace_over = grace_now;
        mm_slab_rcu_poll(&heap);
        assert_int_equal(destructs, cache.count);
    }
    p = mm_slab_alloc(&cache, 0); /* and with one that does not yet */
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    const unsigned count = cache.count;
    cache_end();
    assert_int_equal(destructs, 3 * count);
}

static void copies_keep_to_the_window(void **state)
{
    (void)state;
    cache_begin(100);
    cc.copy_offset = 20;
    cc.copy_bytes = 30;
    cache_make();
    char *p = mm_slab_alloc(&cache, 0);
    void *start;
    size_t bytes;
    assert_int_equal(mm_slab_bounds(&heap, p + 99, &start, &bytes), MM_OK);
    assert_int_equal(mm_slab_bounds(&heap, p + 100, &start, &bytes), MM_ERR_INVALID);
    assert_int_equal(mm_slab_check_copy(&heap, p + 20, 30), MM_OK);
    assert_int_equal(mm_slab_check_copy(&heap, p + 50, 0), MM_OK);
    assert_int_equal(mm_slab_check_copy(&heap, p + 19, 2), MM_ERR_PERM);
    assert_int_equal(mm_slab_check_copy(&heap, p + 20, 31), MM_ERR_PERM);
    assert_int_equal(mm_slab_check_copy(&heap, p + 60, 1), MM_ERR_PERM);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

static void shuffled_caches_hand_out_in_another_order(void **state)
{
    char *p[64];
    unsigned ascending = 0;
    (void)state;
    cache_begin(64);
    cc.flags = MM_SLAB_SHUFFLE;
    cache_make();
    for (unsigned i = 0; i < 64; i++) {
        p[i] = mm_slab_alloc(&cache, 0);
        ascending += i > 0 && p[i] == p[i - 1] + 64;
    }
    assert_true(ascending < 16);
    assert_ptr_not_equal(p[0], mmi_slab_object(mmi_slab_of(p[0]), 0)); /* the first one neither */
    assert_int_equal(mm_slab_free_bulk(&cache, (void *const *)p, 64), MM_OK);
    cache_end();
}

static void colours_shift_the_slabs(void **state)
{
    static char *p[800]; /* of so many slabs that the colours begin anew */
    size_t offsets = 0;
    (void)state;
    cache_begin(5000);
    cc.flags = MM_SLAB_COLOUR;
    cache_make();
    for (unsigned i = 0; i < 800; i++) {
        assert_non_null(p[i] = mm_slab_alloc(&cache, 0));
        assert_true(p[i] + 5000 <= (char *)mmi_slab_of(p[i]) + MM_SLAB_BYTES);
        offsets |= (size_t)1 << (mmi_slab_of(p[i])->first / 64 % 64);
    }
    assert_true(mm_popcount(offsets) > 3);
    assert_int_equal(mm_slab_free_bulk(&cache, (void *const *)p, 800), MM_OK);
    cache_end();
}

static char lines[8][200];
static size_t nlines;
static void note_line(void *ctx, const char *line)
{
    (void)ctx;
    if (nlines < 8)
        snprintf(lines[nlines++], sizeof lines[0], "%s", line);
}

static void statistics_and_dump(void **state)
{
    void *p[100];
    (void)state;
    cache_begin(64);
    cache_make();
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 100), 100);
    struct mm_slab_cache_stats s = cache_stats(&cache);
    assert_int_equal(s.active, 100);
    assert_int_equal(s.cached, 29); /* the first came before there were arrays */
    assert_int_equal(s.slabs, 1);
    assert_int_equal(s.objects, cache.count);
    assert_int_equal(s.bytes, MM_SLAB_BYTES);
    assert_string_equal(s.name, "thing");
    nlines = 0;
    mm_slab_dump(&heap, note_line, NULL);
    char name[32];
    unsigned long active, objects, size, per, slabs;
    assert_int_equal(
        sscanf(lines[1], "%31s %lu %lu %lu %lu %lu", name, &active, &objects, &size, &per, &slabs),
        6);
    assert_string_equal(name, "thing");
    assert_true(active == 100 && objects == s.objects && size == 64 && per == s.objects &&
                slabs == 1);
    assert_int_equal(mm_slab_free_bulk(&cache, p, 100), MM_OK);
    cache_end();
}

static void long_names_are_cut(void **state)
{
    (void)state;
    cache_begin(64);
    cc.name = "a name that is much longer than any cache's name may be";
    cache_make();
    assert_string_equal(cache_stats(&cache).name, "a name that is much lon");
    cache_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(sizes_and_alignments_hold),
        cmocka_unit_test(constructed_objects_stay_so),
        cmocka_unit_test(destroy_counts_the_living),
        cmocka_unit_test(objects_of_other_caches_are_refused),
        cmocka_unit_test(another_heaps_objects_are_refused),
        cmocka_unit_test(objects_of_empty_slabs_are_refused),
        cmocka_unit_test(a_cache_keeps_to_its_quota),
        cmocka_unit_test(a_heap_keeps_to_its_quota),
        cmocka_unit_test(empty_slabs_above_the_reserve_go_back),
        cmocka_unit_test(slabs_of_cpus_that_met_go_back),
        cmocka_unit_test(what_was_freed_last_is_refused),
        cmocka_unit_test(drain_leaves_nothing_on_a_cpu),
        cmocka_unit_test(free_pages_of_partial_slabs_are_purged),
        cmocka_unit_test(pages_with_content_again_are_purged_again),
        cmocka_unit_test(pages_of_a_reused_slab_are_purged_again),
        cmocka_unit_test(the_depot_serves_long_swings),
        cmocka_unit_test(the_depot_stays_small),
        cmocka_unit_test(free_objects_of_other_cpus_are_taken_before_failure),
        cmocka_unit_test(shrink_reaches_all_cpus),
        cmocka_unit_test(reclaim_is_asked_before_failure),
        cmocka_unit_test(deferred_frees_wait_for_readers),
        cmocka_unit_test(a_barrier_finds_what_a_poll_looks_at),
        cmocka_unit_test(a_barrier_waits_for_polls_elsewhere),
        cmocka_unit_test(deferred_frees_without_memory_wait_on_the_spot),
        cmocka_unit_test(what_waits_longest_is_freed_first),
        cmocka_unit_test(a_poll_frees_only_what_it_asked_about),
        cmocka_unit_test(without_grace_hooks_nothing_is_deferred),
        cmocka_unit_test(type_stable_pages_keep_their_content),
        cmocka_unit_test(type_stable_slabs_wait_for_readers),
        cmocka_unit_test(destructors_of_type_stable_caches_wait_for_readers),
        cmocka_unit_test(copies_keep_to_the_window),
        cmocka_unit_test(shuffled_caches_hand_out_in_another_order),
        cmocka_unit_test(colours_shift_the_slabs),
        cmocka_unit_test(statistics_and_dump),
        cmocka_unit_test(long_names_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
