/* Random calls against a plain list of what is live: no two objects overlap, contents stay, sizes
 * and alignments hold, and in the end all memory is back. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

#define LIVE_MAX 3000

struct live {
    unsigned char *p;
    size_t size;
    struct mm_slab_cache *cache; /* NULL: of kmalloc */
    unsigned char fill;
};

static struct live live[LIVE_MAX];
static size_t nlive;
static struct mm_slab_cache named[3];
static struct mm_test_rng rng;

static size_t random_size(void)
{
    switch (mm_test_below(&rng, 20)) {
    case 0:
        return mm_test_below(&rng, 9);
    case 1:
        return 1 + mm_test_below(&rng, 60000);
    case 2:
        return MM_SLAB_MAX - 2 + mm_test_below(&rng, 5);
    case 3:
    case 4:
        return 1 + mm_test_below(&rng, 8192);
    default:
        return 1 + mm_test_below(&rng, 256);
    }
}

static void fill(struct live *o)
{
    o->fill = (unsigned char)mm_test_rand(&rng);
    memset(o->p, o->fill, o->size);
}

static void verify(const struct live *o)
{
    for (size_t i = 0; i < o->size; i++)
        if (o->p[i] != o->fill)
            fail_msg("byte %zu of %zu at %p: %#x, not %#x", i, o->size, (void *)o->p, o->p[i],
                     o->fill);
}

static void add(unsigned char *p, size_t size, struct mm_slab_cache *cache)
{
    assert_non_null(p);
    live[nlive].p = p;
    live[nlive].size = size;
    live[nlive].cache = cache;
    fill(&live[nlive++]);
}

static void alloc_one(void)
{
    const size_t size = random_size();
    struct mm_slab_cache *cache;
    unsigned char *p;

    switch (mm_test_below(&rng, 6)) {
    case 0:
        cache = &named[mm_test_below(&rng, 3)];
        add(mm_slab_alloc(cache, 0), cache->size, cache);
        break;
    case 1: {
        const size_t align = (size_t)1 << mm_test_below(&rng, 18);
        p = mm_slab_kmalloc_aligned(&heap, size, align, 0);
        assert_int_equal((uintptr_t)p & (align - 1), 0);
        add(p, size, NULL);
        break;
    }
    case 2:
        p = mm_slab_kcalloc(&heap, size, 1, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        add(p, size, NULL);
        break;
    default:
        p = mm_slab_kmalloc(&heap, size, 0);
        add(p, size, NULL);
        if (size > 0 && size <= MM_SLAB_MAX && mm_is_pow2(size))
            assert_int_equal((uintptr_t)p & (size - 1), 0);
    }
    assert_true(mm_slab_ksize(&heap, live[nlive - 1].p) >= live[nlive - 1].size);
}

static void free_one(size_t i)
{
    const struct live o = live[i];

    verify(&o);
    live[i] = live[--nlive];
    if (o.cache != NULL && mm_test_chance(&rng, 80))
        assert_int_equal(mm_slab_free(o.cache, o.p), MM_OK);
    else if (mm_test_chance(&rng, 5))
        assert_int_equal(mm_slab_free_rcu(&heap, o.p), MM_OK);
    else
        assert_int_equal(mm_slab_kfree(&heap, o.p), MM_OK);
}

static void realloc_one(size_t i)
{
    struct live *o = &live[i];
    const size_t size = random_size(), least = size < o->size ? size : o->size;
    unsigned char *p;

    if (o->cache != NULL)
        return;
    p = mm_slab_krealloc(&heap, o->p, size, 0);
    assert_non_null(p);
    for (size_t n = 0; n < least; n++)
        assert_int_equal(p[n], o->fill);
    o->p = p;
    o->size = size;
    fill(o);
}

static void bulk(void)
{
    void *p[100];
    const size_t n = 1 + mm_test_below(&rng, 100), size = 1 + mm_test_below(&rng, 300);

    if (nlive + n > LIVE_MAX || mm_test_chance(&rng, 50)) {
        size_t m = n < nlive ? n : nlive;
        for (size_t i = 0; i < m; i++) {
            verify(&live[nlive - 1]);
            p[i] = live[--nlive].p;
        }
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, m), MM_OK);
        return;
    }
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, size, 0, p, n), n);
    for (size_t i = 0; i < n; i++)
        add(p[i], size, NULL);
}

static int by_address(const void *a, const void *b)
{
    const struct live *x = a, *y = b;
    return x->p < y->p ? -1 : x->p > y->p;
}

/* No two live objects overlap, and the heap's own bounds hold each of them. */
static void overlook(void)
{
    static struct live sorted[LIVE_MAX];
    void *start;
    size_t bytes;

    memcpy(sorted, live, nlive * sizeof *live);
    qsort(sorted, nlive, sizeof *sorted, by_address);
    for (size_t i = 1; i < nlive; i++)
        assert_true(sorted[i - 1].p + sorted[i - 1].size <= sorted[i].p);
    for (size_t i = 0; i < nlive; i++) {
        verify(&sorted[i]);
        if (sorted[i].size == 0)
            continue;
        assert_int_equal(mm_slab_bounds(&heap, sorted[i].p + sorted[i].size / 2, &start, &bytes),
                         MM_OK);
        assert_ptr_equal(start, sorted[i].p);
        assert_true(bytes >= sorted[i].size);
        assert_int_equal(mm_slab_check_copy(&heap, sorted[i].p, sorted[i].size), MM_OK);
    }
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(misuse_total(), 0);
}

static void step(void)
{
    cpu_now = (unsigned)mm_test_below(&rng, MM_CPU_MAX + 1); /* at times a CPU without arrays */
    switch (mm_test_below(&rng, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (nlive < LIVE_MAX)
            alloc_one();
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        if (nlive > 0)
            free_one(mm_test_below(&rng, nlive));
        break;
    case 8:
    case 9:
        if (nlive > 0)
            realloc_one(mm_test_below(&rng, nlive));
        break;
    case 10:
        bulk();
        break;
    default:
        if (mm_test_chance(&rng, 3))
            mm_slab_shrink(&heap);
        else if (mm_test_chance(&rng, 3))
            assert_int_equal(mm_slab_drain(&heap, cpu_now % MM_CPU_MAX), MM_OK);
        else if (mm_test_chance(&rng, 10))
            mm_slab_rcu_poll(&heap);
        grace_over = grace_now - mm_test_below(&rng, 2);
    }
}

static void run(unsigned flags, unsigned stream, uint64_t ops)
{
    static const struct {
        size_t size, align;
    } kinds[3] = {{24, 8}, {200, 64}, {5000, 0}};

    rng = mm_test_rng(mm_test_seed(), stream);
    heap_begin();
    config.flags = flags;
    heap_make();
    nlive = 0;
    for (unsigned i = 0; i < 3; i++) {
        struct mm_slab_cache_config c = {0};
        c.name = "named";
        c.size = kinds[i].size;
        c.align = kinds[i].align;
        assert_int_equal(mm_slab_cache_init(&named[i], &heap, &c), MM_OK);
    }
    for (uint64_t op = 0; op < ops; op++) {
        step();
        if (op % 5000 == 0)
            overlook();
    }
    while (nlive > 0)
        free_one(nlive - 1);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(mm_slab_cache_destroy(&named[i], NULL), MM_OK);
    heap_end();
}

static void any_calls_keep_objects_apart_and_whole(void **state)
{
    (void)state;
    run(0, 1, mm_test_ops() / 2);
}

static void shuffled_and_coloured_as_well(void **state)
{
    (void)state;
    run(MM_SLAB_SHUFFLE | MM_SLAB_COLOUR, 2, mm_test_ops() / 8);
}

static void with_the_debug_flags_of_the_build_as_well(void **state)
{
    (void)state;
    run(MMI_SLAB_FLAGS, 3, mm_test_ops() / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_calls_keep_objects_apart_and_whole),
        cmocka_unit_test(shuffled_and_coloured_as_well),
        cmocka_unit_test(with_the_debug_flags_of_the_build_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
