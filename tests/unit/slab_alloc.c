/* kmalloc and its kin: sizes, alignment, what is refused. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

static void classes_waste_an_eighth_at_most_above_128_bytes(void **state)
{
    (void)state;
    heap_plain();
    for (size_t size = 0; size <= MM_SLAB_MAX; size++) {
        void *p = mm_slab_kmalloc(&heap, size, 0);
        const size_t usable = mm_slab_ksize(&heap, p);
        assert_true(usable >= size && usable >= 8);
        if (size > 128)
            assert_true((usable - size) * 8 <= usable);
        else
            assert_true(usable - size < 16);
        assert_int_equal((uintptr_t)p & ((usable & (0 - usable)) - 1), 0);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    }
    heap_end();
}

/* What the compiler folds for a constant must be what the table says for a variable. */
/* Counted by filling a slab: the rest, header included, is a sixteenth at most but for two
 * classes. */
static void slabs_waste_a_sixteenth_but_for_two_classes(void **state)
{
    static void *p[9000];
    (void)state;
    heap_plain();
    for (unsigned c = 0; c < MM_SLAB_CLASSES; c++) {
        const size_t size = mmi_slab_class_bytes(c);
        size_t n = 0;
        mm_slab_shrink(&heap);
        mm_slab_set_quota(&heap, MM_SLAB_BYTES); /* one slab, and no depot */
        while ((p[n] = mm_slab_kmalloc(&heap, size, 0)) != NULL)
            n++;
        const size_t waste = MM_SLAB_BYTES - n * size;
        assert_true(waste <= MM_SLAB_BYTES / (size == 6656 || size == 8192 ? 8 : 16));
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
    }
    mm_slab_set_quota(&heap, 0);
    heap_end();
}

static void constant_and_variable_sizes_meet_in_one_class(void **state)
{
    volatile size_t eight = 8, nine = 9, hundred = 100, big = 5000;
    (void)state;
    heap_plain();
#define SAME(constant, variable)                                          \
    do {                                                                  \
        void *p = mm_slab_kmalloc(&heap, constant, 0);                    \
        assert_int_equal(mm_slab_kfree_sized(&heap, p, variable), MM_OK); \
        void *q = mm_slab_kmalloc(&heap, variable, 0);                    \
        assert_int_equal(mm_slab_kfree_sized(&heap, q, constant), MM_OK); \
    } while (0)
    SAME(8, eight);
    SAME(9, nine);
    SAME(100, hundred);
    SAME(5000, big);
    SAME(100000, 100000);
    heap_end();
}

static void every_class_fills_whole_slabs_without_overlap(void **state)
{
    (void)state;
    heap_simple();
    for (size_t size = 8; size <= MM_SLAB_MAX; size = size < 128 ? size + 8 : size + size / 8) {
        enum { MAX = 3 * 65536 / 8 };
        static unsigned char *p[MAX];
        size_t n = 0;
        const size_t bytes = size < 1024 ? 65536 : 300000;
        for (; n < bytes / size; n++) {
            p[n] = mm_slab_kmalloc(&heap, size, 0);
            assert_non_null(p[n]);
            memset(p[n], (int)(n & 0xff), size);
        }
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(p[i][0], i & 0xff);
            assert_int_equal(p[i][size - 1], i & 0xff);
            assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
        }
    }
    heap_end();
}

static void large_requests_go_to_the_source_and_back(void **state)
{
    (void)state;
    heap_plain();
    void *p = mm_slab_kmalloc(&heap, 100000, 0x40);
    assert_non_null(p);
    assert_int_equal(source.flags, 0x40);
    assert_int_equal((uintptr_t)p % MM_SLAB_BYTES, 0);
    assert_int_equal(mm_slab_ksize(&heap, p), 102400);
    assert_int_equal(heap_stats().large, 1);
    assert_int_equal(heap_stats().large_bytes, 102400);
    const size_t before = source.bytes;
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(source.bytes, before - 102400);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
    heap_end();
}

/* A source that aligns to slabs, whatever it is asked for. */
static void *slabs_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    char *p = source_alloc(ctx, bytes + MM_SLAB_BYTES, align, flags);
    return p == NULL ? NULL : p + MM_SLAB_BYTES;
}
static void slabs_free(void *ctx, void *p, size_t bytes)
{
    source_free(ctx, (char *)p - MM_SLAB_BYTES, bytes + MM_SLAB_BYTES);
}

static void a_source_that_aligns_too_little_is_refused(void **state)
{
    (void)state;
    heap_begin();
    source.hooks.alloc = slabs_alloc;
    source.hooks.free = slabs_free;
    source.hooks.purge = NULL;
    heap_make();
    void *p = mm_slab_kmalloc_aligned(&heap, 100000, MM_SLAB_BYTES, 0);
    assert_non_null(p);
    assert_null(mm_slab_kmalloc_aligned(&heap, 100000, 4 * MM_SLAB_BYTES, 0));
    assert_int_equal(heap_stats().large, 1);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static size_t zeroed;
static void zero(void *ctx, void *p, size_t bytes)
{
    assert_ptr_equal(ctx, &source);
    zeroed += bytes;
    memset(p, 0, bytes);
}

static void the_source_may_zero_large_requests_itself(void **state)
{
    (void)state;
    heap_begin();
    source.hooks.zero = zero;
    heap_make();
    zeroed = 0;
    unsigned char *p = mm_slab_kzalloc(&heap, 50000, 0);
    assert_int_equal(zeroed, 53248);
    assert_int_equal(p[0] | p[49999], 0);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void cpus_come_on_line_one_by_one(void **state)
{
    (void)state;
    heap_begin();
    config.flags = 0;
    config.offline = true;
    heap_make();
    cpu_now = MM_CPU_MAX;
    void *p = mm_slab_kmalloc(&heap, 64, 0);
    assert_null(heap.cls[4].cpu[1]);
    assert_int_equal(heap.cpu[1].words[100], (uintptr_t)0xa5a5a5a5a5a5a5a5u); /* not touched */
    assert_int_equal(mm_slab_online(&heap, 1), MM_OK);
    cpu_now = 1;
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_online(&heap, 1), MM_OK); /* changes nothing */
    assert_ptr_equal(mm_slab_kmalloc(&heap, 64, 0), p);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_online(&heap, MM_CPU_MAX), MM_ERR_INVALID);
    cpu_now = 0;
    heap_end();
}

static void usable_sizes_of_kmallocs_objects(void **state)
{
    (void)state;
    heap_plain();
    for (size_t size = 1; size < 100000; size = size * 3 / 2 + 1) {
        void *p = mm_slab_kmalloc(&heap, size, 0);
        assert_int_equal(mm_slab_usable(&heap, p), mm_slab_ksize(&heap, p));
        assert_true(mm_slab_usable(&heap, p) >= size);
        cpu_now = MM_CPU_MAX; /* no arrays to ask */
        assert_int_equal(mm_slab_usable(&heap, p), mm_slab_ksize(&heap, p));
        cpu_now = 0;
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    }
    assert_int_equal(mm_slab_usable(&heap, NULL), 0);
    heap_end();
}

/* As the manual has it: few of the large ones, which nobody else can have. */
static void arrays_of_large_classes_are_short(void **state)
{
    static const struct {
        size_t size;
        unsigned slots;
    } expected[] = {{8, 128},  {128, 128}, {129, 64}, {256, 64}, {257, 32},
                    {512, 32}, {513, 8},   {1024, 8}, {1025, 4}, {8192, 4}};
    static void *p[300];
    (void)state;
    heap_plain();
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct mm_slab_cache *cls = &heap.cls[mmi_slab_class(expected[i].size)];
        struct mm_slab_cache_stats stats;
        for (unsigned n = 0; n < 300; n++)
            p[n] = mm_slab_kmalloc(&heap, expected[i].size, 0);
        for (unsigned n = 0; n < 300; n++)
            assert_int_equal(mm_slab_kfree(&heap, p[n]), MM_OK);
        mm_slab_cache_get_stats(cls, &stats);
        assert_int_equal(cls->slots, expected[i].slots);
        if (!SLAB_DEBUGGED) /* two arrays, and what the depot has */
            assert_in_range(stats.cached, 1, (2 + cls->limit) * expected[i].slots);
    }
    heap_end();
}

static void many_large_requests_widen_the_table(void **state)
{
    enum { N = 1200 };
    static void *p[N];
    (void)state;
    heap_plain();
    for (unsigned i = 0; i < N; i++)
        assert_non_null(p[i] = mm_slab_kmalloc(&heap, 9000, 0));
    assert_true(heap.buckets > MMI_SLAB_BUCKETS);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    heap_end();
}

static void zeroed_objects_are_zero_to_their_end(void **state)
{
    (void)state;
    heap_simple();
    for (size_t size = 1; size < 20000; size = size * 5 / 4 + 1) {
        unsigned char *p = mm_slab_kmalloc(&heap, size, 0);
        memset(p, 0xff, size);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        p = mm_slab_kzalloc(&heap, size, 0);
        for (size_t i = 0; i < mm_slab_ksize(&heap, p) && i < size; i++)
            assert_int_equal(p[i], 0);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    }
    heap_end();
}

static void overflowing_arrays_are_refused(void **state)
{
    volatile size_t half = SIZE_MAX / 2 + 1, most = SIZE_MAX;
    (void)state;
    heap_plain();
    assert_null(mm_slab_kcalloc(&heap, half, 2, 0));
    assert_null(mm_slab_kcalloc(&heap, most, most, 0));
    assert_null(mm_slab_kmalloc_array(&heap, half, 4, 0));
    assert_null(mm_slab_kmalloc(&heap, most, 0));
    assert_null(mm_slab_kmalloc(&heap, most - 4096, 0));
    void *p = mm_slab_kmalloc_array(&heap, 10, 10, 0);
    assert_int_equal(mm_slab_ksize(&heap, p), 112);
    assert_null(mm_slab_krealloc(&heap, p, most, 0));
    assert_int_equal(mm_slab_ksize(&heap, p), 112);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void alignment_is_kept_by_realloc(void **state)
{
    (void)state;
    heap_simple();
    for (size_t align = 1; align <= (1u << 20); align *= 2) {
        char *p = mm_slab_kmalloc_aligned(&heap, 100, align, 0);
        assert_int_equal((uintptr_t)p & (align - 1), 0);
        strcpy(p, "kept");
        for (size_t size = 150; size < 100000; size *= 3) {
            p = mm_slab_krealloc_aligned(&heap, p, size, align, 0);
            assert_int_equal((uintptr_t)p & (align - 1), 0);
            assert_string_equal(p, "kept");
        }
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    }
    assert_null(mm_slab_kmalloc_aligned(&heap, 100, 0, 0));
    assert_null(mm_slab_kmalloc_aligned(&heap, 100, 48, 0));
    const size_t calls = source.calls;
    assert_null(mm_slab_kmalloc_aligned(&heap, 100, SIZE_MAX / 2 + 1, 0));
    assert_int_equal(source.calls, calls); /* not even asked */
    heap_end();
}

static void realloc_stays_where_it_fits_and_wastes_little(void **state)
{
    (void)state;
    heap_plain();
    char *p = mm_slab_krealloc(&heap, NULL, 600, 0);
    strcpy(p, "text");
    assert_ptr_equal(mm_slab_krealloc(&heap, p, 640, 0), p);
    assert_ptr_equal(mm_slab_krealloc(&heap, p, 321, 0), p);
    char *q = mm_slab_krealloc(&heap, p, 320, 0);
    assert_ptr_not_equal(q, p);
    assert_string_equal(q, "text");
    p = mm_slab_krealloc(&heap, q, 70000, 0);
    assert_string_equal(p, "text");
    assert_ptr_equal(mm_slab_krealloc(&heap, p, 69000, 0), p);
    q = mm_slab_krealloc(&heap, p, 20000, 0);
    assert_int_equal(mm_slab_ksize(&heap, q), 20480);
    assert_string_equal(q, "text");
    assert_null(mm_slab_krealloc(&heap, q + 16, 10, 0));
    assert_null(mm_slab_krealloc(&heap, &heap, 10, 0));
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
    heap_end();
}

static void zeroing_realloc_shows_no_old_bytes(void **state)
{
    (void)state;
    heap_simple();
    unsigned char *p = mm_slab_kzalloc(&heap, 10, 0);
    for (size_t size = 11, old = 10; size < 30000; size = size * 3 / 2) {
        p = mm_slab_krealloc(&heap, p, size, MM_SLAB_ZERO);
        for (size_t i = old; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xee, size);
        old = size;
    }
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void null_is_nothing(void **state)
{
    (void)state;
    heap_simple();
    assert_int_equal(mm_slab_kfree(&heap, NULL), MM_OK);
    assert_int_equal(mm_slab_kfree_sized(&heap, NULL, 5), MM_OK);
    assert_int_equal(mm_slab_free_rcu(&heap, NULL), MM_OK);
    assert_int_equal(mm_slab_ksize(&heap, NULL), 0);
    assert_int_equal(misuse_total(), 0);
    heap_end();
}

static void bulk_calls_give_distinct_objects(void **state)
{
    static void *p[5000];
    (void)state;
    heap_simple();
    for (size_t size = 8; size < 40000; size *= 9) {
        const size_t n = size < 1000 ? 5000 : 50;
        assert_int_equal(mm_slab_kmalloc_bulk(&heap, size, MM_SLAB_ZERO, p, n), n);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(*(uint64_t *)p[i], 0);
            *(uint64_t *)p[i] = i + 1;
        }
        for (size_t i = 0; i < n; i++)
            assert_int_equal(*(uint64_t *)p[i], i + 1);
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
    }
    heap_end();
}

/* Each goes to the arrays of its own class. */
static void a_bulk_free_of_several_classes_keeps_them_apart(void **state)
{
    void *p[40];
    (void)state;
    heap_plain();
    for (unsigned i = 0; i < 40; i++)
        assert_non_null(p[i] = mm_slab_kmalloc(&heap, i % 4 < 2 ? 64 : 200, 0));
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, 40), MM_OK);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(cache_stats(&heap.cls[mmi_slab_class(64)]).active, 0);
    assert_int_equal(cache_stats(&heap.cls[mmi_slab_class(200)]).active, 0);
    mm_slab_shrink(&heap);
    assert_int_equal(misuse_total(), 0);
    heap_end();
}

static void bulk_free_refuses_only_the_bad_ones(void **state)
{
    void *p[6];
    (void)state;
    heap_simple();
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 64, 0, p, 4), 4);
    p[4] = NULL;
    void *last = p[3];
    p[3] = (char *)p[2] + 8;
    p[5] = (char *)p[2] + 1;
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, 6), MM_ERR_ALIGN);
    assert_int_equal(misuse_total(), 2);
    assert_int_equal(mm_slab_kfree(&heap, last), MM_OK);
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 64, 0, p, 3), 3);
    void *twice[6] = {p[0], p[1], p[1], p[2], p[2], (char *)p[2] + 8};
    assert_int_equal(mm_slab_kfree_bulk(&heap, twice, 6), MM_ERR_INVALID); /* the first of three */
    assert_int_equal(misuse_total(), 5);
    heap_end();
}

static void a_double_free_is_refused(void **state)
{
    (void)state;
    heap_simple();
    for (size_t size = 8; size <= 20000; size = size * 2 + 3) {
        void *p = mm_slab_kmalloc(&heap, size, 0);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
        assert_int_equal(mm_slab_kfree_sized(&heap, p, size), MM_ERR_INVALID);
    }
    heap_end();
}

/* Objects aligned to 8 have marks for each second one where marks are of 16 bytes; the free of the
 * others goes into the CPU's arrays as well, and as well checked. */
/* What was freed last went back to its slab, with all that the CPU had. */
static void a_double_free_after_a_drain_is_refused(void **state)
{
    void *p[2 * MM_SLAB_SLOTS];
    const unsigned last = MM_SLAB_SLOTS - 1;
    (void)state;
    heap_plain();
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 64, 0, p, 2 * MM_SLAB_SLOTS), 2 * MM_SLAB_SLOTS);
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    for (unsigned i = 0; i <= last; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p[last]), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_bulk(&heap, p + last + 1, MM_SLAB_SLOTS), MM_OK);
    heap_end();
}

/* The same where it was not the first to come into an empty array. */
static void a_double_free_after_a_shrink_is_refused(void **state)
{
    (void)state;
    for (size_t size = 8; size <= MM_SLAB_MAX; size = size * 2 + 3) {
        heap_plain();
        void *stays = mm_slab_kmalloc(&heap, size, 0), *p = mm_slab_kmalloc(&heap, size, 0);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        mm_slab_shrink(&heap);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
        assert_int_equal(mm_slab_kfree(&heap, stays), MM_OK);
        heap_end();
    }
}

static void what_gets_smaller_needs_no_memory(void **state)
{
    static const size_t sizes[] = {200000, 7000, 500};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        const size_t size = sizes[i], less = size / 10;
        heap_plain();
        char *p = mm_slab_kmalloc(&heap, size, 0);
        memset(p, 7, size);
        source.fail = (struct mm_test_fail){0, 1};
        source.for_good = true;
        assert_null(mm_slab_krealloc_aligned(&heap, p, less, (size_t)1 << 30, 0));
        assert_non_null(p = mm_slab_krealloc(&heap, p, less, 0));
        for (size_t n = 0; n < less; n++)
            assert_int_equal(p[n], 7);
        source.for_good = false;
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        heap_end();
    }
}

static void objects_between_the_marks_are_freed_alike(void **state)
{
    static struct mm_slab_cache cache;
    struct mm_slab_cache_config c = {0};
    void *p[4], *q[4];
    (void)state;
    heap_plain();
    c.name = "align8";
    c.size = 24;
    c.align = 8;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 8, 0, p, 4), 4);
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, q, 4), 4);
    const size_t eights = cache_stats(&heap.cls[0]).cached, others = cache_stats(&cache).cached;
    unsigned between = 0;
    for (unsigned i = 0; i < 4; i++) {
        between += ((uintptr_t)p[i] & 15) == 8;
        if (i % 2 == 0)
            assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
        else
            assert_int_equal(mm_slab_kfree_sized(&heap, p[i], 5), MM_OK);
        assert_int_equal(cache_stats(&heap.cls[0]).cached, eights + i + 1);
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_ERR_INVALID);
        assert_int_equal(misuse_total(), 2 * i + 1);
        assert_int_equal(mm_slab_free(&cache, q[i]), MM_OK);
        assert_int_equal(cache_stats(&cache).cached, others + i + 1);
        assert_int_equal(mm_slab_free(&cache, q[i]), MM_ERR_INVALID);
    }
    assert_int_equal(between, 2);
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    heap_end();
}

/* Such an object is refused where it is another cache's, or a size's; and what lies 8 bytes inside
 * an object aligned to more is no such one. */
static void between_the_marks_misuse_is_refused(void **state)
{
    static struct mm_slab_cache cache, other;
    struct mm_slab_cache_config c = {0};
    (void)state;
    heap_plain();
    c.name = "align16";
    c.size = 64;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
    c.name = "align8";
    c.size = c.align = 8;
    assert_int_equal(mm_slab_cache_init(&other, &heap, &c), MM_OK);
    char *p = mm_slab_alloc(&cache, 0);
    void *e[2], *o[2];
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 8, 0, e, 2), 2);
    assert_int_equal(mm_slab_alloc_bulk(&other, 0, o, 2), 2);
    assert_int_equal(mm_slab_free(&cache, p + 8), MM_ERR_ALIGN);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(mm_slab_kfree_sized(&heap, e[i], 9), MM_ERR_INVALID);
        assert_int_equal(mm_slab_kfree_sized(&heap, o[i], 8), MM_ERR_INVALID);
        assert_int_equal(mm_slab_free(&other, e[i]), MM_ERR_INVALID);
        assert_int_equal(mm_slab_free(&other, o[i]), MM_OK);
    }
    void *odd = e[(uintptr_t)e[1] % 16 == 8], *even = e[(uintptr_t)e[1] % 16 != 8];
    assert_int_equal(mm_slab_kfree(&heap, odd), MM_OK);
    mm_slab_shrink(&heap);
    if (MM_SLAB_HARDEN || MM_SLAB_DEBUG >= 1) /* free in its slab */
        assert_int_equal(mm_slab_kfree(&heap, odd), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree(&heap, even), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&other, NULL), MM_OK);
    heap_end();
}

/* An interrupt may have filled `out` between the look that found it empty and the refill. */
static void a_late_refill_leaves_a_filled_array_alone(void **state)
{
    void *p[MM_SLAB_SLOTS], *rest[3 * MM_SLAB_SLOTS];
    size_t m = 0;
    (void)state;
    heap_plain();
    struct mm_slab_cache *cache = &heap.cls[mmi_slab_class(64)];
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 64, 0, p, MM_SLAB_SLOTS), MM_SLAB_SLOTS);
    uintptr_t *l = cache->cpu[0], n = 0;
    while (mmi_slab_ready(l) != 0) /* the next is a refill from the slabs */
        assert_non_null(rest[m++] = mm_slab_kmalloc(&heap, 64, 0));
    assert_non_null(rest[m++] = mm_slab_kmalloc(&heap, 64, 0));
    assert_true(mmi_slab_ready(l) != 0);
    for (n = 0; mmi_slab_room(l) > cache->slots / 2; n++)
        assert_int_equal(mm_slab_kfree(&heap, p[n]), MM_OK);
    const uintptr_t ready = mmi_slab_ready(l), room = mmi_slab_room(l);
    assert_true(ready != 0);
    assert_null(mmi_slab_swap(cache));
    assert_int_equal(mmi_slab_ready(l), ready);
    assert_int_equal(mmi_slab_room(l), room);
    while (mmi_slab_ready(l) != 0)
        assert_non_null(rest[m++] = mm_slab_kmalloc(&heap, 64, 0));
    assert_ptr_equal(mmi_slab_swap(cache), p[n - 1]); /* what was freed last comes first */
    assert_int_equal(mm_slab_kfree_bulk(&heap, p + n - 1, MM_SLAB_SLOTS - n + 1), MM_OK);
    assert_int_equal(mm_slab_kfree_bulk(&heap, rest, m), MM_OK);
    heap_end();
}

static void a_double_free_of_an_older_object_is_dropped_in_the_slab(void **state)
{
    (void)state;
    heap_plain();
    void *a = mm_slab_kmalloc(&heap, 64, 0), *b = mm_slab_kmalloc(&heap, 64, 0);
    assert_int_equal(mm_slab_kfree(&heap, a), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, b), MM_OK);
    (void)mm_slab_kfree(&heap, a);
    mm_slab_shrink(&heap);
    assert_int_equal(misuse_total(), 1);
    assert_int_equal(mm_slab_kfree(&heap, a), MM_ERR_INVALID);
    heap_end();
}

static void the_first_eight_of_a_flush_are_reported(void **state)
{
    void *p[12];
    (void)state;
    heap_plain();
    for (unsigned i = 0; i < 12; i++)
        p[i] = mm_slab_kmalloc(&heap, 64, 0);
    for (unsigned n = 3; n <= 12; n += 9) { /* so many of the twelve are freed twice */
        memset(&reports, 0, sizeof reports);
        const uintptr_t before = misuse_total();
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, 12), MM_OK);
        cpu_now = 1;
        assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
        cpu_now = 0;
        assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
        assert_int_equal(mm_slab_drain(&heap, 1), MM_OK);
        assert_int_equal(misuse_total(), before + n);
        if (MM_SLAB_DEBUG >= 1) {
            assert_int_equal(reports.count, n < 8 ? n : 8);
            assert_in_range(reports.address, (uintptr_t)p[0], (uintptr_t)p[11]);
        }
        assert_int_equal(mm_slab_kmalloc_bulk(&heap, 64, 0, p, 12), 12);
    }
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, 12), MM_OK);
    heap_end();
}

/* Freed twice, and its slab went to another class before the second time is noticed. */
static void a_double_free_that_outlives_its_slab_is_dropped(void **state)
{
    static void *q[2 * MM_SLAB_BYTES / 128];
    const size_t n = sizeof q / sizeof *q;
    void *p, *skipped[2] = {NULL, NULL};
    bool live = false;
    (void)state;
    heap_plain();
    for (unsigned i = 0; (uintptr_t)(p = mm_slab_kmalloc(&heap, 64, 0)) % 128 != 0; i++)
        skipped[i] = p;
    assert_int_equal(mm_slab_kfree(&heap, skipped[0]), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    cpu_now = 1;
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK); /* nobody knows yet */
    cpu_now = 0;
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    assert_int_equal(heap_stats().empty, 1);
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 128, 0, q, n), n);
    for (size_t i = 0; i < n; i++)
        live = live || q[i] == p;
    assert_true(live);
    const uintptr_t before = misuse_total();
    assert_int_equal(mm_slab_drain(&heap, 1), MM_OK);
    assert_int_equal(misuse_total(), before + 1);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_kfree_bulk(&heap, q, n), MM_OK);
    heap_end();
}

static void objects_of_slabs_in_reserve_are_refused(void **state)
{
    (void)state;
    heap_plain();
    void *p = mm_slab_kmalloc(&heap, 64, 0);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    assert_int_equal(heap_stats().empty, 1);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
    heap_end();
}

static void misaligned_frees_are_refused(void **state)
{
    (void)state;
    heap_plain();
    for (size_t size = 8; size <= MM_SLAB_MAX; size *= 2) {
        char *p = mm_slab_kmalloc(&heap, size, 0);
        for (size_t off = 1; off < size && off < 64; off++)
            assert_int_equal(mm_slab_kfree(&heap, p + off), MM_ERR_ALIGN);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    }
    char *p = mm_slab_kmalloc(&heap, 48, 0);
    for (size_t off = 1; off < 16; off++) {
        assert_int_equal(mm_slab_kfree(&heap, p + off), MM_ERR_ALIGN);
        assert_int_equal(mm_slab_kfree(&heap, p + 16 + off), MM_ERR_ALIGN);
    }
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    p = mm_slab_kmalloc(&heap, 100000, 0);
    assert_int_equal(mm_slab_kfree(&heap, p + 16), MM_ERR_ALIGN);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

/* Inside an object, but as well aligned as one: refused at once if the build looks for it. */
static void inner_frees_are_refused_by_hardened_builds(void **state)
{
    (void)state;
    if (!MM_SLAB_HARDEN && MM_SLAB_DEBUG == 0)
        skip();
    heap_plain();
    for (size_t size = 24; size <= MM_SLAB_MAX; size = size * 3 / 2) {
        char *p = mm_slab_kmalloc(&heap, size, 0);
        for (size_t off = 8; off < size; off += 8)
            assert_int_equal(mm_slab_kfree(&heap, p + off), MM_ERR_ALIGN);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    }
    heap_end();
}

static void wild_frees_are_refused(void **state)
{
    static _Alignas(65536) char outside[3 * 65536];
    struct mmi_slab *s;
    (void)state;
    heap_plain();
    void *p = mm_slab_kmalloc(&heap, 64, 0);
    s = mmi_slab_of(p);
    for (size_t off = 0; off < 65536; off += 1000)
        assert_int_equal(mm_slab_kfree(&heap, outside + 65536 + off), MM_ERR_INVALID);
    if (MM_SLAB_HARDEN || MM_SLAB_DEBUG >= 1)
        for (size_t off = 0; off < s->first; off += 16) /* a slab's header */
            assert_int_equal(mm_slab_kfree(&heap, (char *)s + off), MM_ERR_INVALID);
    if (MM_SLAB_HARDEN || MM_SLAB_DEBUG >= 1) { /* and where nothing can be read */
        assert_int_equal(mm_slab_kfree(&heap, (void *)(uintptr_t)4096), MM_ERR_INVALID);
        assert_int_equal(mm_slab_kfree(&heap, (void *)(UINTPTR_MAX / 4 * 2)), MM_ERR_INVALID);
    }
    void *large = mm_slab_kmalloc(&heap, 100000, 0); /* the heap's own record of it */
    void *own = mmi_slab_object(heap.inner[MMI_SLAB_ENTRIES].partial.first, 0);
    assert_int_equal(mm_slab_kfree(&heap, own), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree(&heap, large), MM_OK);
    assert_true(misuse_total() > 60);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void no_odd_address_passes_for_a_mark(void **state)
{
    (void)state;
    heap_plain();
    char *p = mm_slab_kmalloc(&heap, 16, 0);
    struct mmi_slab *s = mmi_slab_of(p);
    uintptr_t offset;
    for (size_t at = 0; at < 128; at++)
        if (at % 16 != 0)
            assert_false(mmi_slab_marked((char *)s + 4096 + at, mmi_slab_token(&heap), &offset) ||
                         mmi_slab_marked_at((char *)s + 4096 + at, &heap, heap.cls[1].offset));
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void a_wrong_size_is_refused(void **state)
{
    volatile size_t large = 50000;
    (void)state;
    heap_simple();
    void *p = mm_slab_kmalloc(&heap, 64, 0);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 65), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, large), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 49), MM_OK);
    p = mm_slab_kmalloc(&heap, large, 0);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 64), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 10 * large), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, SIZE_MAX - large / large), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, large), MM_OK);
    heap_end();
}

static void bounds_and_copies(void **state)
{
    void *start = NULL;
    size_t bytes = 0;
    char outside[16];
    (void)state;
    heap_plain();
    char *p = mm_slab_kmalloc(&heap, 100, 0), *q = mm_slab_kmalloc(&heap, 200000, 0);
    assert_int_equal(mm_slab_bounds(&heap, p + 50, &start, &bytes), MM_OK);
    assert_true(start == p && bytes == 112);
    assert_int_equal(mm_slab_bounds(&heap, q + 150000, &start, &bytes), MM_OK);
    assert_true(start == q && bytes == 200704);
    assert_int_equal(mm_slab_bounds(&heap, q + 200704, &start, &bytes), MM_ERR_NOENT);
    char *r = mm_slab_kmalloc(&heap, 20000, 0);
    assert_int_equal(mm_slab_bounds(&heap, r + 20479, &start, &bytes), MM_OK);
    assert_true(start == r && bytes == 20480);
    assert_int_equal(mm_slab_bounds(&heap, r + 30000, &start, &bytes), MM_ERR_NOENT);
    assert_int_equal(mm_slab_kfree(&heap, r), MM_OK);
    assert_int_equal(mm_slab_bounds(&heap, outside, &start, &bytes), MM_ERR_NOENT);
    assert_int_equal(mm_slab_bounds(&heap, mmi_slab_of(p), &start, &bytes), MM_ERR_INVALID);
    assert_int_equal(mm_slab_check_copy(&heap, p + 12, 100), MM_OK);
    assert_int_equal(mm_slab_check_copy(&heap, p + 13, 100), MM_ERR_PERM);
    assert_int_equal(mm_slab_check_copy(&heap, p, SIZE_MAX), MM_ERR_PERM);
    assert_int_equal(mm_slab_check_copy(&heap, q + 200000, 704), MM_OK);
    assert_int_equal(mm_slab_check_copy(&heap, q + 200000, 705), MM_ERR_PERM);
    assert_int_equal(mm_slab_check_copy(&heap, outside, 1), MM_ERR_NOENT);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
    mm_slab_drain(&heap, 0);
    assert_int_equal(mm_slab_check_copy(&heap, q, 1), MM_ERR_NOENT);
    heap_end();
}

static void a_cpu_without_arrays_is_served(void **state)
{
    void *p[200];
    (void)state;
    heap_plain();
    cpu_now = MM_CPU_MAX + 7;
    for (unsigned i = 0; i < 200; i++)
        assert_non_null(p[i] = mm_slab_kmalloc(&heap, 64, 0));
    assert_int_equal(heap.cls[4].free, heap.cls[4].count - 200);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p[0]), MM_ERR_INVALID);
    heap_end();
}

static void a_heap_wants_its_hooks(void **state)
{
    (void)state;
    heap_begin();
    config.hooks = NULL;
    assert_int_equal(mm_slab_init(&heap, &config), MM_ERR_INVALID);
    config.hooks = &source.hooks;
    source.hooks.alloc = NULL;
    assert_int_equal(mm_slab_init(&heap, &config), MM_ERR_INVALID);
    source.hooks.alloc = source_alloc;
    source.hooks.grace_done = NULL;
    assert_int_equal(mm_slab_init(&heap, &config), MM_ERR_INVALID);
    source.hooks.grace_done = grace_done;
    source.hooks.grace_wait = NULL;
    assert_int_equal(mm_slab_init(&heap, &config), MM_ERR_INVALID);
    source.hooks.grace_wait = grace_wait;
    config.flags = 0x80000000u;
    assert_int_equal(mm_slab_init(&heap, &config), MM_ERR_INVALID);
    config.flags = MM_SLAB_TYPE_STABLE;
    assert_int_equal(mm_slab_init(&heap, &config), MM_ERR_INVALID);
    config.flags = MM_SLAB_DEBUG_FREES;
    assert_int_equal(mm_slab_init(&heap, &config), MM_SLAB_DEBUG >= 1 ? MM_OK : MM_ERR_INVALID);
    config.flags = 0;
    assert_int_equal(mm_slab_init(&heap, &config), MM_OK);
    void *p = mm_slab_kmalloc(&heap, 1, 0);
    assert_int_equal(mm_slab_fini(&heap), MM_ERR_BUSY);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    p = mm_slab_kmalloc(&heap, 30000, 0);
    assert_int_equal(mm_slab_fini(&heap), MM_ERR_BUSY);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_waste_an_eighth_at_most_above_128_bytes),
        cmocka_unit_test(slabs_waste_a_sixteenth_but_for_two_classes),
        cmocka_unit_test(constant_and_variable_sizes_meet_in_one_class),
        cmocka_unit_test(every_class_fills_whole_slabs_without_overlap),
        cmocka_unit_test(large_requests_go_to_the_source_and_back),
        cmocka_unit_test(a_source_that_aligns_too_little_is_refused),
        cmocka_unit_test(the_source_may_zero_large_requests_itself),
        cmocka_unit_test(cpus_come_on_line_one_by_one),
        cmocka_unit_test(usable_sizes_of_kmallocs_objects),
        cmocka_unit_test(arrays_of_large_classes_are_short),
        cmocka_unit_test(many_large_requests_widen_the_table),
        cmocka_unit_test(zeroed_objects_are_zero_to_their_end),
        cmocka_unit_test(overflowing_arrays_are_refused),
        cmocka_unit_test(alignment_is_kept_by_realloc),
        cmocka_unit_test(realloc_stays_where_it_fits_and_wastes_little),
        cmocka_unit_test(zeroing_realloc_shows_no_old_bytes),
        cmocka_unit_test(null_is_nothing),
        cmocka_unit_test(bulk_calls_give_distinct_objects),
        cmocka_unit_test(a_bulk_free_of_several_classes_keeps_them_apart),
        cmocka_unit_test(bulk_free_refuses_only_the_bad_ones),
        cmocka_unit_test(a_double_free_is_refused),
        cmocka_unit_test(a_double_free_after_a_drain_is_refused),
        cmocka_unit_test(a_double_free_after_a_shrink_is_refused),
        cmocka_unit_test(what_gets_smaller_needs_no_memory),
        cmocka_unit_test(a_double_free_of_an_older_object_is_dropped_in_the_slab),
        cmocka_unit_test(the_first_eight_of_a_flush_are_reported),
        cmocka_unit_test(a_double_free_that_outlives_its_slab_is_dropped),
        cmocka_unit_test(objects_of_slabs_in_reserve_are_refused),
        cmocka_unit_test(misaligned_frees_are_refused),
        cmocka_unit_test(objects_between_the_marks_are_freed_alike),
        cmocka_unit_test(between_the_marks_misuse_is_refused),
        cmocka_unit_test(a_late_refill_leaves_a_filled_array_alone),
        cmocka_unit_test(inner_frees_are_refused_by_hardened_builds),
        cmocka_unit_test(wild_frees_are_refused),
        cmocka_unit_test(no_odd_address_passes_for_a_mark),
        cmocka_unit_test(a_wrong_size_is_refused),
        cmocka_unit_test(bounds_and_copies),
        cmocka_unit_test(a_cpu_without_arrays_is_served),
        cmocka_unit_test(a_heap_wants_its_hooks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
