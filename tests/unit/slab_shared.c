/* Slabs that classes above 256 bytes share. */
#define MM_SLAB_SHARE 0
#define SLAB_CPU_NOW  cpu_now
#include "slab_test.h"

static struct mm_slab_cache_stats class_stats(size_t size)
{
    struct mm_slab_cache_stats stats;
    mm_slab_cache_get_stats(&heap.cls[mmi_slab_class(size)], &stats);
    return stats;
}

static void one_slab_serves_all_large_classes(void **state)
{
    void *p[MM_SLAB_CLASSES];
    unsigned n = 0;
    (void)state;
    heap_simple();
    for (size_t size = 320; size <= 2048; size += 352)
        p[n++] = mm_slab_kmalloc(&heap, size, 0);
    if (!SLAB_DEBUGGED)
        for (unsigned i = 1; i < n; i++)
            assert_ptr_equal(mmi_slab_of(p[i]), mmi_slab_of(p[0]));
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
    heap_end();
}

/* What one class left another can use: no memory more is taken. */
static void what_one_class_left_serves_another(void **state)
{
    static void *p[1000];
    (void)state;
    if (SLAB_DEBUGGED)
        skip();
    heap_simple();
    for (unsigned i = 0; i < 1000; i++)
        p[i] = mm_slab_kmalloc(&heap, 512, 0);
    for (unsigned i = 0; i < 1000; i++)
        if (i % 16 != 0)
            assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    mm_slab_shrink(&heap);
    const size_t before = heap_stats().slabs;
    for (unsigned i = 0; i < 1000; i++)
        if (i % 16 >= 1 && i % 16 <= 4)
            p[i] = mm_slab_kmalloc(&heap, 1500, 0);
    assert_true(heap_stats().slabs <= before);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    for (unsigned i = 0; i < 1000; i++)
        if (i % 16 <= 4)
            assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    mm_slab_shrink(&heap);
    assert_int_equal(heap.pool.slabs, 0);
    heap_end();
}

/* Two slabs with the same holes: a CPU stays at the one that it took from, the next one takes the
 * other; without holes of their own CPUs take what is left anywhere. */
static void cpus_take_from_slabs_of_their_own(void **state)
{
    static void *p[40];
    struct mmi_slab *slab[2];
    unsigned n = 0;
    (void)state;
    if (SLAB_ASAN)
        skip();
    heap_plain();
    for (; heap.pool.slabs < 3; n++) /* the third one's first is not counted */
        p[n] = mm_slab_kmalloc(&heap, 6000, 0);
    for (unsigned side = 0; side < 2; side++) {
        const unsigned first = side == 0 ? 0 : n / 2;
        slab[side] = mmi_slab_of(p[first]);
        for (unsigned i = first; i < first + 5; i += 2) {
            assert_ptr_equal(mmi_slab_of(p[i]), slab[side]);
            assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
            p[i] = NULL;
        }
    }
    assert_int_equal(mm_slab_kfree(&heap, p[--n]), MM_OK);
    mm_slab_shrink(&heap);
    assert_int_equal(heap.pool.slabs, 2);

    cpu_now = 1;
    p[0] = mm_slab_kmalloc(&heap, 6000, 0);
    cpu_now = 2;
    p[2] = mm_slab_kmalloc(&heap, 6000, 0);
    assert_true(mmi_slab_of(p[0]) != mmi_slab_of(p[2]));
    p[4] = mm_slab_kmalloc(&heap, 6000, 0);
    assert_ptr_equal(mmi_slab_of(p[4]), mmi_slab_of(p[2]));
    cpu_now = 1;
    for (unsigned i = n / 2; i < n / 2 + 5; i += 2) {
        p[i] = mm_slab_kmalloc(&heap, 6000, 0);
        assert_ptr_equal(mmi_slab_of(p[i]), mmi_slab_of(p[i == n / 2 + 4 ? 2 : 0]));
        assert_int_equal(mm_slab_check(&heap), MM_OK);
    }
    assert_int_equal(heap.pool.slabs, 2);
    slab[0] = mmi_slab_of(p[0]);
    assert_int_equal(mm_slab_kfree(&heap, p[0]), MM_OK);
    p[0] = NULL;
    mm_slab_shrink(&heap);
    assert_int_equal(mmi_slab_share_of(slab[0])->side, 1); /* what comes back does not change it */
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
    heap_end();
}

static void every_class_is_aligned_and_known(void **state)
{
    (void)state;
    heap_simple();
    for (unsigned c = 17; c < MM_SLAB_CLASSES; c++) {
        const size_t size = mmi_slab_class_bytes(c);
        char *p[6], *end;
        void *start;
        size_t bytes;
        for (unsigned i = 0; i < 6; i++) {
            p[i] = mm_slab_kmalloc(&heap, size, 0);
            memset(p[i], (int)i, size);
            assert_int_equal((uintptr_t)p[i] & ((size & (0 - size)) - 1), 0);
            assert_int_equal(mm_slab_ksize(&heap, p[i]), size);
            assert_int_equal(mm_slab_usable(&heap, p[i]), size);
            for (size_t at = 0; at < size; at += 31) {
                assert_int_equal(mm_slab_bounds(&heap, p[i] + at, &start, &bytes), MM_OK);
                assert_ptr_equal(start, p[i]);
                assert_int_equal(bytes, size);
            }
            end = p[i] + size;
            if (mm_slab_bounds(&heap, end, &start, &bytes) == MM_OK)
                assert_true((char *)start >= end);
        }
        if (!SLAB_DEBUGGED)
            assert_int_equal(class_stats(size).active, 6);
        assert_int_equal(mm_slab_check(&heap), MM_OK);
        for (unsigned i = 0; i < 6; i++) {
            for (size_t at = 0; at < size; at++)
                assert_int_equal(p[i][at], i);
            assert_int_equal(mm_slab_kfree_sized(&heap, p[i], size - 5), MM_OK);
        }
        assert_true(SLAB_DEBUGGED || class_stats(size).active == 0);
    }
    heap_end();
}

/* Dropped where they are sorted: inside an object, and freed before others of the class. */
static void bad_frees_are_dropped_and_counted(void **state)
{
    (void)state;
    heap_simple();
    char *a = mm_slab_kmalloc(&heap, 1000, 0), *b = mm_slab_kmalloc(&heap, 1000, 0);
    void *c = mm_slab_kmalloc(&heap, 600, 0);
    (void)mm_slab_kfree(&heap, a + 64);
    assert_int_equal(mm_slab_kfree_sized(&heap, c, 1000), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree(&heap, a), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, b), MM_OK);
    (void)mm_slab_kfree(&heap, a);
    mm_slab_shrink(&heap);
    assert_int_equal(misuse_total(), 3);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_kfree_sized(&heap, a, 1000), MM_ERR_INVALID);
    memset(c, 1, 600);
    assert_int_equal(mm_slab_kfree(&heap, c), MM_OK);
    heap_end();
}

static void a_last_free_is_known_after_it_was_sorted(void **state)
{
    void *p[MMI_SLAB_COMMON];
    (void)state;
    heap_simple();
    for (unsigned i = 0; i < MMI_SLAB_COMMON; i++)
        p[i] = mm_slab_kmalloc(&heap, 300 + 400 * (i % 4), 0);
    for (unsigned i = 0; i < MMI_SLAB_COMMON; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p[MMI_SLAB_COMMON - 1]), MM_ERR_INVALID);
    void *q = mm_slab_kmalloc(&heap, 300 + 400 * ((MMI_SLAB_COMMON - 1) % 4), 0);
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK); /* handed out since */
    assert_int_equal(misuse_total(), 1);
    heap_end();
}

/* The bytes of the live object that the byte at p is in; 0: of none. */
static size_t bytes_at(const void *p)
{
    void *start;
    size_t bytes;
    return mm_slab_bounds(&heap, p, &start, &bytes) == MM_OK ? bytes : 0;
}

/* An object that two CPUs freed lies in both arrays; when the second array is emptied, an object of
 * another class has begun at its address. */
static void a_late_free_does_not_take_another_classs_object(void **state)
{
    (void)state;
    if (SLAB_DEBUGGED)
        skip();
    heap_simple();
    void *a = mm_slab_kmalloc(&heap, 1100, 0);
    assert_int_equal(mm_slab_kfree(&heap, a), MM_OK);
    (void)class_stats(1100); /* sorts it into its class */
    cpu_now = 1;
    (void)mm_slab_kfree(&heap, a);
    assert_int_equal(mm_slab_drain(&heap, 1), MM_OK);
    void *b = mm_slab_kmalloc(&heap, 1400, 0);
    assert_ptr_equal(b, a);
    cpu_now = 0;
    assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
    assert_int_equal(misuse_total(), 1);
    assert_int_equal(bytes_at(b), 1408);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, b), MM_OK);
    heap_end();
}

/* A source that uses again what it got back. */
static void free_and_write(void *ctx, void *p, size_t bytes)
{
    struct source *s = ctx;
    s->bytes -= bytes;
    memset(p, 0x41, bytes);
}

/* The same when its slab has gone before the second array is looked through. */
static void a_late_free_into_a_slab_that_went_is_dropped(void **state)
{
    static const size_t sizes[] = {64, 1024};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        heap_begin();
        config.flags = 0;
        config.reserve = 0;
        if (MM_SLAB_DEBUG == 0) /* else it need not even be readable */
            source.hooks.free = free_and_write;
        heap_make();
        void *p = mm_slab_kmalloc(&heap, sizes[i], 0);
        cpu_now = 1;
        void *q = mm_slab_kmalloc(&heap, sizes[i], 0); /* both have arrays */
        assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
        mm_slab_shrink(&heap);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        cpu_now = 0;
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        mm_slab_shrink(&heap);
        assert_int_equal(heap_stats().slabs, 0);
        cpu_now = 1;
        (void)mm_slab_drain(&heap, 1);
        assert_int_equal(misuse_total(), 1);
        q = mm_slab_kmalloc(&heap, sizes[i], 0);
        assert_non_null(q);
        assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
        cpu_now = 0;
        heap_end();
    }
}

/* What was freed on this CPU into the array for all shared classes. */
static void what_was_freed_here_serves_all_calls(void **state)
{
    void *p[12], *rest[64], *bulk[4];
    unsigned n = 0;
    (void)state;
    heap_plain();
    for (unsigned i = 0; i < 12; i++)
        assert_non_null(p[i] = mm_slab_kmalloc(&heap, 4096, 0));
    source.fail = (struct mm_test_fail){0, 1};
    source.for_good = true;
    while (n < 64 && (rest[n] = mm_slab_kmalloc(&heap, 4096, MM_SLAB_NOWAIT)) != NULL)
        n++;
    assert_true(n < 64);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
    for (unsigned i = 0; i < 2; i++) { /* each finds what the CPU has not looked at yet */
        void *q = mm_slab_kmalloc_aligned(&heap, 4096, 4096, MM_SLAB_NOWAIT);
        assert_true(q != NULL && (uintptr_t)q % 4096 == 0);
        assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
        assert_int_equal(mm_slab_drain(&heap, 0), MM_OK);
        assert_int_equal(mm_slab_kmalloc_bulk(&heap, 4096, MM_SLAB_NOWAIT, bulk, 4), 4);
        assert_int_equal(mm_slab_kfree_bulk(&heap, bulk, 4), MM_OK);
        assert_int_equal(mm_slab_kmalloc_bulk(&heap, 4096, MM_SLAB_NOWAIT, bulk, 4), 4);
        assert_int_equal(mm_slab_kfree_bulk(&heap, bulk, 4), MM_OK);
    }
    source.for_good = false;
    assert_int_equal(mm_slab_kfree_bulk(&heap, rest, n), MM_OK);
    heap_end();
}

/* Behind the last object of a slab there is none. */
static void an_object_ends_where_it_ends(void **state)
{
    (void)state;
    if (SLAB_DEBUGGED)
        skip();
    heap_simple();
    char *p = mm_slab_kmalloc(&heap, 2000, 0);
    assert_int_equal(class_stats(2000).cached, 0); /* so behind p nothing is taken */
    assert_int_equal(bytes_at(p + 2047), 2048);
    assert_int_equal(bytes_at(p + 2048), 0);
    assert_int_equal(mm_slab_check_copy(&heap, p + 2048, 1), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void a_class_keeps_to_its_quota(void **state)
{
    void *p[12];
    unsigned n = 0;
    (void)state;
    if (SLAB_DEBUGGED)
        skip();
    heap_simple();
    mm_slab_cache_set_quota(&heap.cls[mmi_slab_class(1024)], 10 * 1024);
    while (n < 12 && (p[n] = mm_slab_kmalloc(&heap, 1024, 0)) != NULL)
        n++;
    assert_int_equal(n, 10);
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
    heap_end();
}

static unsigned told;
static void tell(void *ctx, const struct mm_slab_object *object)
{
    assert_ptr_equal(object->object, *(void **)ctx);
    assert_int_equal(object->size, SLAB_DEBUGGED ? 700 : 704);
    told++;
}

/* While the source is asked, another CPU allocates. */
static void *nested;
static void *alloc_and_ask(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    static bool inside;
    if (!inside) {
        inside = true;
        nested = mm_slab_kmalloc(&heap, 1024, MM_SLAB_NOWAIT);
        inside = false;
    }
    return source_alloc(ctx, bytes, align, flags);
}

static void a_quota_holds_while_the_source_is_asked(void **state)
{
    struct mm_slab_cache *cls;
    (void)state;
    heap_begin();
    config.flags = 0;
    config.reserve = 0;
    source.hooks.alloc = alloc_and_ask;
    heap_make();
    cls = &heap.cls[mmi_slab_class(1024)];
    mm_slab_cache_set_quota(cls, 1024);
    nested = NULL;
    void *p = mm_slab_kmalloc(&heap, 1024, MM_SLAB_NOWAIT);
    assert_non_null(p);
    assert_null(nested);
    assert_int_equal(cache_stats(cls).bytes, 1024);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    source.fail = (struct mm_test_fail){0, 1}; /* what was counted for nothing does not stay */
    mm_slab_shrink(&heap);
    source.hooks.alloc = source_alloc;
    source.for_good = true;
    assert_null(mm_slab_kmalloc(&heap, 1500, MM_SLAB_NOWAIT));
    assert_int_equal(class_stats(1500).bytes, 0);
    heap_end();
}

static void all_shared_classes_have_a_quota(void **state)
{
    static void *p[600];
    unsigned n = 0;
    (void)state;
    heap_plain();
    mm_slab_cache_set_quota(&heap.pool, MM_SLAB_BYTES);
    while (n < 600 && (p[n] = mm_slab_kmalloc(&heap, n % 2 == 0 ? 1500 : 3000, 0)) != NULL)
        n++;
    assert_true(n > 10 && n < 60);
    assert_int_equal(heap.pool.slabs, 1);
    mm_slab_cache_set_quota(&heap.pool, 0);
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, n), MM_OK);
    heap_end();
}

static void leaks_are_told(void **state)
{
    (void)state;
    heap_simple();
    void *p = mm_slab_kmalloc(&heap, 700, 0), *q = mm_slab_kmalloc(&heap, 900, 0);
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
    told = 0;
    assert_int_equal(mm_slab_leaks(&heap, tell, &p), 1);
    assert_int_equal(told, 1);
    assert_int_equal(mm_slab_fini(&heap), MM_ERR_BUSY);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

static void free_pages_are_purged_each_time(void **state)
{
    static void *p[60];
    (void)state;
    if (SLAB_ASAN)
        skip();
    heap_plain();
    void *held = mm_slab_kmalloc(&heap, 600, 0);
    memset(held, 7, 600);
    for (unsigned round = 1; round <= 2; round++) {
        for (unsigned i = 0; i < 60; i++)
            memset(p[i] = mm_slab_kmalloc(&heap, 900, 0), (int)i, 900);
        for (unsigned i = 0; i < 60; i++) {
            assert_int_equal(*(unsigned char *)p[i], i);
            assert_int_equal(mm_slab_kfree(&heap, p[i]), MM_OK);
        }
        mm_slab_shrink(&heap);
        assert_true(source.purged >= round * (MM_SLAB_BYTES * 13 / 16));
    }
    assert_int_equal(((unsigned char *)held)[599], 7);
    assert_int_equal(mm_slab_kfree(&heap, held), MM_OK);
    heap_end();
}

/* S3, S4: each field that is changed is found. */
static void the_check_finds_damage(void **state)
{
    (void)state;
    if (SLAB_DEBUGGED)
        skip();
    heap_simple();
    void *p = mm_slab_kmalloc(&heap, 700, 0);
    struct mmi_slab_share *share = mmi_slab_share_of(mmi_slab_of(p));
    uint16_t *tag = &share->tag[((uintptr_t)p & (MM_SLAB_BYTES - 1)) / MMI_SLAB_WINDOW];
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    *tag = (uint16_t)(*tag + 8);
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    *tag = (uint16_t)(*tag - 8);
    share->tag[200] = 20 * 8;
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    share->tag[200] = 0;
    share->largest--;
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    share->largest++;
    share->side++;
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    share->side += 1000;
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    share->side -= 1001;
    heap.holes[share->list] = NULL;
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    heap.holes[share->list] = mmi_slab_of(p);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    heap_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_slab_serves_all_large_classes),
        cmocka_unit_test(what_one_class_left_serves_another),
        cmocka_unit_test(cpus_take_from_slabs_of_their_own),
        cmocka_unit_test(every_class_is_aligned_and_known),
        cmocka_unit_test(bad_frees_are_dropped_and_counted),
        cmocka_unit_test(a_last_free_is_known_after_it_was_sorted),
        cmocka_unit_test(a_late_free_does_not_take_another_classs_object),
        cmocka_unit_test(a_late_free_into_a_slab_that_went_is_dropped),
        cmocka_unit_test(what_was_freed_here_serves_all_calls),
        cmocka_unit_test(an_object_ends_where_it_ends),
        cmocka_unit_test(a_class_keeps_to_its_quota),
        cmocka_unit_test(a_quota_holds_while_the_source_is_asked),
        cmocka_unit_test(all_shared_classes_have_a_quota),
        cmocka_unit_test(leaks_are_told),
        cmocka_unit_test(free_pages_are_purged_each_time),
        cmocka_unit_test(the_check_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
