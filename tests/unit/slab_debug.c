/* Every report of a build with debug code, provoked, with its exact text. */
#define SLAB_CPU_NOW  cpu_now
#define MM_SLAB_DEBUG 2 /* in every build */
#include "slab_test.h"

static struct mm_slab_cache cache;
static char expected[256];

/* One report came, with this text; PRINTF arguments as usual. */
#define assert_report(function, code, ...)                \
    do {                                                  \
        snprintf(expected, sizeof expected, __VA_ARGS__); \
        assert_int_equal(reports.count, 1);               \
        assert_string_equal(reports.what, expected);      \
        assert_string_equal(reports.where, function);     \
        assert_int_equal(reports.status, code);           \
        reports.count = 0;                                \
    } while (0)

static void cache_make(unsigned flags)
{
    struct mm_slab_cache_config c = {0};
    heap_begin();
    config.flags = flags;
    heap_make();
    c.name = "thing";
    c.size = 40;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
}

static void cache_end(void)
{
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    assert_int_equal(mm_slab_fini(&heap), MM_OK);
    assert_int_equal(source.bytes, 0);
}

/* Writes where a sanitizer would object. */
static MMI_SLAB_UNCHECKED void scribble(char *p, char byte)
{
    *(volatile char *)p = byte;
}

#define FLAGS_FZPU (MM_SLAB_DEBUG_ALL & ~MM_SLAB_DEBUG_QUARANTINE)

static struct mmi_slab_track *track(const char *p)
{
    return mmi_slab_track_of(&cache, p);
}

static void double_free(void **state)
{
    (void)state;
    cache_make(MM_SLAB_DEBUG_FREES);
    char *p = mm_slab_alloc(&cache, 0), *q = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p), MM_ERR_INVALID);
    assert_report("mm_slab_free", MM_ERR_INVALID, "double free: cache thing, object %p, byte 0",
                  (void *)p);
    cache_end();
}

/* The program's function, not one of the library that goes through the objects. */
static MM_NOINLINE enum mm_status frees_in_bulk(void *const *p, size_t n)
{
    const enum mm_status status = mm_slab_free_bulk(&cache, p, n);
    __asm__ volatile(""); /* no tail call */
    return status;
}

static void a_bulk_free_knows_its_caller(void **state)
{
    void *p[3];
    (void)state;
    cache_make(FLAGS_FZPU);
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, p, 2), 2);
    p[2] = NULL;
    assert_int_equal(frees_in_bulk(p, 3), MM_OK);
    for (unsigned i = 0; i < 2; i++)
        assert_in_range(track(p[i])->free_by, (uintptr_t)frees_in_bulk,
                        (uintptr_t)frees_in_bulk + 500);
    cache_end();
}

static void double_free_with_last_owner(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU);
    char *p = mm_slab_alloc(&cache, 0);
    cpu_now = 2;
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
    assert_report("mm_slab_kfree", MM_ERR_INVALID,
                  "double free: cache thing, object %p, byte 0; allocated by %p on CPU 0, freed by "
                  "%p on CPU 2",
                  (void *)p, (void *)track(p)->alloc_by, (void *)track(p)->free_by);
    /* both callers are in this program's code, near each other */
    assert_true(track(p)->alloc_by != 0 && track(p)->free_by != 0);
    assert_true(track(p)->free_by - track(p)->alloc_by < 65536 ||
                track(p)->alloc_by - track(p)->free_by < 65536);
    cpu_now = 0;
    cache_end();
}

static void free_in_quarantine_is_a_double_free(void **state)
{
    (void)state;
    cache_make(MM_SLAB_DEBUG_FREES | MM_SLAB_DEBUG_QUARANTINE);
    char *p = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    for (unsigned i = 0; i < MM_SLAB_SLOTS - 1; i++) {
        char *q = mm_slab_alloc(&cache, 0);
        assert_ptr_not_equal(q, p); /* it rests */
        assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    }
    assert_int_equal(mm_slab_free(&cache, p), MM_ERR_INVALID);
    assert_report("mm_slab_free", MM_ERR_INVALID, "double free: cache thing, object %p, byte 0",
                  (void *)p);
    assert_int_equal(mm_slab_cache_check(&cache), MM_OK);
    cache_end();
}

static void objects_rest_in_turn(void **state)
{
    char *freed[4 * MM_SLAB_SLOTS];
    (void)state;
    cache_make(MM_SLAB_DEBUG_FREES | MM_SLAB_DEBUG_QUARANTINE);
    for (unsigned i = 0; i < 4 * MM_SLAB_SLOTS; i++) {
        freed[i] = mm_slab_alloc(&cache, 0);
        for (unsigned k = i < MM_SLAB_SLOTS ? 0 : i - MM_SLAB_SLOTS; k < i; k++)
            assert_ptr_not_equal(freed[i], freed[k]);
        assert_int_equal(mm_slab_free(&cache, freed[i]), MM_OK);
    }
    cache_end();
}

static void free_inside_an_object(void **state)
{
    (void)state;
    cache_make(MM_SLAB_DEBUG_FREES);
    char *p = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, p + 16), MM_ERR_ALIGN);
    assert_report("mm_slab_free", MM_ERR_ALIGN,
                  "free inside an object: cache thing, object %p, byte 16", (void *)p);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

static void free_of_no_object(void **state)
{
    (void)state;
    cache_make(MM_SLAB_DEBUG_FREES);
    char *p = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, mmi_slab_of(p)), MM_ERR_INVALID);
    assert_report("mm_slab_free", MM_ERR_INVALID, "free of no object: cache thing");
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

static void free_of_another_caches_object(void **state)
{
    (void)state;
    cache_make(MM_SLAB_DEBUG_FREES);
    char *p = mm_slab_kmalloc(&heap, 100, 0);
    assert_int_equal(mm_slab_free(&cache, p + 3), MM_ERR_INVALID);
    assert_report("mm_slab_free", MM_ERR_INVALID,
                  "free of another cache's object: cache kmalloc-112, object %p, byte 3",
                  (void *)p);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    p = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_kfree_sized(&heap, p, 40), MM_ERR_INVALID);
    assert_report("mm_slab_kfree_sized", MM_ERR_INVALID,
                  "free with a wrong size: cache thing, object %p, byte 0", (void *)p);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

static void wild_frees(void **state)
{
    char outside[64];
    void *volatile unmapped = (void *)(uintptr_t)0x1234;
    (void)state;
    cache_make(0);
    assert_int_equal(mm_slab_kfree(&heap, outside), MM_ERR_INVALID);
    assert_report("mm_slab_kfree", MM_ERR_INVALID, "wild free");
    assert_int_equal(mm_slab_kfree(&heap, unmapped), MM_ERR_INVALID);
    assert_report("mm_slab_kfree", MM_ERR_INVALID, "wild free");
    assert_int_equal(mm_slab_free(&cache, outside), MM_ERR_INVALID);
    assert_report("mm_slab_free", MM_ERR_INVALID, "wild free");
    assert_int_equal(mm_slab_kfree_sized(&heap, outside, 16), MM_ERR_INVALID);
    assert_report("mm_slab_kfree_sized", MM_ERR_INVALID, "wild free");
    assert_int_equal(mm_slab_free_rcu(&heap, outside), MM_ERR_INVALID);
    assert_report("mm_slab_free_rcu", MM_ERR_INVALID, "free of no object");
    assert_null(mm_slab_krealloc(&heap, outside, 10, 0));
    assert_report("mm_slab_krealloc", MM_ERR_INVALID, "krealloc of no object");
    char *p = mm_slab_kmalloc(&heap, 50000, 0);
    assert_int_equal(mm_slab_kfree(&heap, p + 4096), MM_ERR_ALIGN);
    assert_report("mm_slab_kfree", MM_ERR_ALIGN, "free inside a large object");
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID);
    assert_report("mm_slab_kfree", MM_ERR_INVALID, "wild free");
    cache_end();
}

static void double_free_without_flags(void **state)
{
    (void)state;
    cache_make(0);
    char *p = mm_slab_alloc(&cache, 0), *q = mm_slab_alloc(&cache, 0);
    p = p != NULL ? p : q;
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p), MM_ERR_INVALID);
    assert_report("mm_slab_kfree", MM_ERR_INVALID, "double free: cache thing, object %p, byte 0",
                  (void *)p);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p),
                     MM_OK); /* not on top: found when it reaches the slab */
    mm_slab_cache_shrink(&cache);
    assert_report("mm_slab_kfree", MM_ERR_INVALID,
                  "double free, found later: cache thing, object %p, byte 0", (void *)p);
    cache_end();
}

/* With debug flags the last slab stays for its double frees, but a shrink gives it back too. */
static void shrink_returns_the_last_slab(void **state)
{
    static const unsigned flags[] = {MM_SLAB_DEBUG_FREES, FLAGS_FZPU, MM_SLAB_DEBUG_ALL};
    (void)state;
    for (unsigned i = 0; i < 3 * 2; i++) {
        void *p[2], *kept;
        cache_make(flags[i / 2]);
        const bool quarantine = (flags[i / 2] & MM_SLAB_DEBUG_QUARANTINE) != 0;
        p[0] = mm_slab_alloc(&cache, 0);
        p[1] = mm_slab_kmalloc(&heap, 500, 0);
        kept = mm_slab_kmalloc(&heap, 1000, 0);
        assert_int_equal(mm_slab_kfree(&heap, p[0]), MM_OK);
        assert_int_equal(mm_slab_kfree(&heap, p[1]), MM_OK);
        assert_int_equal(cache_stats(&cache).slabs, 1);
        if (i % 2 == 0) {
            assert_true(mm_slab_shrink(&heap) >= 2 * MM_SLAB_BYTES);
            assert_int_equal(cache_stats(&heap.cls[mmi_slab_class(500)]).slabs, 0);
            /* what is live, and the rings of three quarantines */
            assert_int_equal(source.bytes, (1 + quarantine) * MM_SLAB_BYTES);
        } else {
            assert_int_equal(mm_slab_cache_shrink(&cache), MM_SLAB_BYTES);
        }
        assert_int_equal(cache_stats(&cache).slabs, 0);
        assert_int_equal(mm_slab_kfree(&heap, p[0]), MM_ERR_INVALID);
        assert_report("mm_slab_kfree", MM_ERR_INVALID, "wild free");
        assert_int_equal(mm_slab_check(&heap), MM_OK);
        p[0] = mm_slab_alloc(&cache, 0);
        assert_non_null(p[0]);
        assert_int_equal(mm_slab_kfree(&heap, p[0]), MM_OK);
        assert_int_equal(mm_slab_kfree(&heap, kept), MM_OK);
        cache_end();
    }
}

static void overflow_of_one_byte(void **state)
{
    (void)state;
    for (size_t size = 1; size < 300; size += 7) {
        cache_make(FLAGS_FZPU & ~MM_SLAB_DEBUG_USER);
        char *p = mm_slab_kmalloc(&heap, size, 0);
        memset(p, 0, size);
        scribble(p + size, 1);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_CORRUPT);
        assert_report("mm_slab_kfree", MM_ERR_CORRUPT,
                      "red zone behind object overwritten: cache kmalloc-%zu, object %p, byte %zu",
                      mmi_slab_class_bytes(mmi_slab_class(size)), (void *)p, size);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_ERR_INVALID); /* it was withdrawn */
        cache_end();
    }
}

static void underflow_of_one_byte(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU);
    char *p = mm_slab_alloc(&cache, 0);
    scribble(p - 1, 1);
    assert_int_equal(mm_slab_free(&cache, p), MM_ERR_CORRUPT);
    assert_report("mm_slab_free", MM_ERR_CORRUPT,
                  "red zone before object overwritten: cache thing, object %p, byte -1; allocated "
                  "by %p on CPU 0",
                  (void *)p, (void *)track(p)->alloc_by);
    assert_int_equal(mm_slab_cache_check(&cache), MM_OK);
    cache_end();
}

static void write_after_free(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU);
    char *p = mm_slab_alloc(&cache, 0), *other = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    scribble(p + 39, 1);
    char *q = mm_slab_alloc(&cache, 0); /* the damaged one is withdrawn */
    assert_ptr_not_equal(q, p);
    assert_report("mm_slab_alloc", MM_ERR_CORRUPT,
                  "object written after free: cache thing, object %p, byte 39; allocated by %p on "
                  "CPU 0, freed by %p on CPU 0",
                  (void *)p, (void *)track(p)->alloc_by, (void *)track(p)->free_by);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    assert_int_equal(mm_slab_free(&cache, other), MM_OK);
    cache_end();
}

static void write_after_free_found_when_the_slab_leaves(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU & ~MM_SLAB_DEBUG_USER);
    char *p = mm_slab_alloc(&cache, 0);
    char *q = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    scribble(p + 5, 1);
    scribble(p - 1, 1); /* told once an object: the red zone comes first */
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    assert_int_equal(reports.count, 0);
    (void)mm_slab_cache_shrink(&cache);
    assert_int_equal(cache_stats(&cache).slabs, 0);
    assert_report("mm_slab_shrink", MM_ERR_CORRUPT,
                  "red zone before object overwritten: cache thing, object %p, byte -1", (void *)p);
    p = mm_slab_alloc(&cache, 0);
    q = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    scribble(p + 5, 1);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    assert_int_equal(reports.count, 0);
    (void)mm_slab_cache_shrink(&cache);
    assert_int_equal(cache_stats(&cache).slabs, 0);
    assert_report("mm_slab_shrink", MM_ERR_CORRUPT,
                  "object written after free: cache thing, object %p, byte 5", (void *)p);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    cache_end();
}

static void overflow_of_large_objects(void **state)
{
    static const size_t sizes[] = {8193, 12287, 12288, 50000, 65535, 65536, 100000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t size = sizes[i];
        cache_make(MM_SLAB_DEBUG_ZONES);
        for (unsigned sized = 0; sized < 3; sized++) {
            char *p = mm_slab_kmalloc(&heap, size, sized == 2 ? MM_SLAB_ZERO : 0);
            assert_int_equal(mm_slab_ksize(&heap, p), size);
            assert_int_equal(mm_slab_check_copy(&heap, p, size + 1), MM_ERR_PERM);
            memset(p, 1, size);
            assert_int_equal(mm_slab_check(&heap), MM_OK);
            scribble(p + size, 1);
            assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
            assert_report("mm_slab_check", MM_ERR_CORRUPT,
                          "red zone behind large object overwritten, object %p, byte %zu",
                          (void *)p, size);
            assert_int_equal(sized == 1 ? mm_slab_kfree_sized(&heap, p, size)
                                        : mm_slab_kfree(&heap, p),
                             MM_ERR_CORRUPT);
            assert_report(sized == 1 ? "mm_slab_kfree_sized" : "mm_slab_kfree", MM_ERR_CORRUPT,
                          "red zone behind large object overwritten, object %p, byte %zu",
                          (void *)p, size);
        }
        char *p = mm_slab_kmalloc(&heap, size, 0); /* a resize keeps the zone where it belongs */
        memset(p, 7, size);
        char *q = mm_slab_krealloc(&heap, p, size + 1, 0);
        assert_true(q != NULL && q[0] == 7 && q[size - 1] == 7);
        assert_int_equal(mm_slab_ksize(&heap, q), size + 1);
        scribble(q + size, 7);
        q = mm_slab_krealloc(&heap, q, size, 0); /* a byte less */
        assert_true(q != NULL && q[0] == 7 && q[size - 1] == 7);
        assert_int_equal(mm_slab_ksize(&heap, q), size);
        assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
        cache_end();
    }
}

static void krealloc_finds_damage_before_it_moves_the_zone(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU & ~MM_SLAB_DEBUG_USER);
    char *p = mm_slab_kmalloc(&heap, 100, 0);
    memset(p, 3, 100);
    scribble(p + 100, 1);
    assert_null(mm_slab_krealloc(&heap, p, 110, 0)); /* in place */
    assert_report("mm_slab_krealloc", MM_ERR_CORRUPT,
                  "red zone behind object overwritten: cache kmalloc-112, object %p, byte 100",
                  (void *)p);
    assert_null(mm_slab_krealloc(&heap, p, 1000, 0)); /* by a copy */
    assert_int_equal(reports.count, 1);
    reports.count = 0;
    assert_true(p[0] == 3 && p[99] == 3);
    scribble(p + 100, (char)MMI_SLAB_ZONE_BYTE);
    p = mm_slab_krealloc(&heap, p, 110, 0);
    assert_true(p != NULL && p[99] == 3);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    cache_end();
}

static void damage_is_found_by_the_check(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU & ~MM_SLAB_DEBUG_USER);
    char *p = mm_slab_alloc(&cache, 0), *q = mm_slab_alloc(&cache, 0);
    assert_int_equal(mm_slab_cache_check(&cache), MM_OK);
    scribble(p + 40, 7);
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    assert_report("mm_slab_check", MM_ERR_CORRUPT,
                  "red zone behind object overwritten: cache thing, object %p, byte 40", (void *)p);
    scribble(p + 40, (char)MMI_SLAB_ZONE_BYTE);
    assert_int_equal(mm_slab_free(&cache, q), MM_OK);
    scribble(q, 7);
    assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT);
    assert_report("mm_slab_check", MM_ERR_CORRUPT,
                  "object written after free: cache thing, object %p, byte 0", (void *)q);
    scribble(q, MMI_SLAB_FREED_BYTE);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    cache_end();
}

static size_t told;
static void tell(void *ctx, const struct mm_slab_object *o)
{
    told++;
    memcpy(ctx, o, sizeof *o);
}

static void leaks_name_their_allocator(void **state)
{
    struct mm_slab_object o;
    size_t live = 0;
    (void)state;
    cache_make(FLAGS_FZPU);
    char *p = mm_slab_alloc(&cache, 0);
    cpu_now = 1;
    char *q = mm_slab_kmalloc(&heap, 77, 0);
    told = 0;
    assert_int_equal(mm_slab_cache_leaks(&cache, tell, &o), 1);
    assert_int_equal(told, 1);
    assert_true(o.object == p && o.cache == &cache && o.size == 40 && o.cpu == 0);
    assert_true(o.caller == track(p)->alloc_by && o.caller != 0);
    assert_int_equal(mm_slab_cache_destroy(&cache, &live), MM_ERR_BUSY);
    assert_int_equal(live, 1);
    assert_int_equal(mm_slab_free(&cache, p), MM_OK);
    assert_int_equal(mm_slab_leaks(&heap, tell, &o), 1);
    assert_true(o.object == q && o.size == 77 && o.cpu == 1);
    assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
    p = mm_slab_kmalloc(&heap, 77777, 0);
    assert_int_equal(mm_slab_leaks(&heap, tell, &o), 1);
    assert_true(o.object == p && o.cache == NULL && o.size == 77777 && o.cpu == 1 && o.caller != 0);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    cpu_now = 0;
    cache_end();
}

static void a_cache_may_do_without_the_flags(void **state)
{
    struct mm_slab_cache_config c = {0};
    struct mm_slab_cache bare;
    (void)state;
    cache_make(FLAGS_FZPU);
    c.name = "bare";
    c.size = 40;
    c.without = MM_SLAB_DEBUG_ALL;
    assert_int_equal(mm_slab_cache_init(&bare, &heap, &c), MM_OK);
    assert_int_equal(cache_stats(&bare).stride, 48);
    assert_true(cache_stats(&cache).stride > 96);
    char *p = mm_slab_alloc(&bare, 0);
    assert_non_null(bare.cpu[0]);
    assert_int_equal(mm_slab_free(&bare, p), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&bare, NULL), MM_OK);
    cache_end();
}

static void bounds_are_what_was_asked_for(void **state)
{
    (void)state;
    cache_make(FLAGS_FZPU);
    char *p = mm_slab_kmalloc(&heap, 77, 0), *other = mm_slab_kmalloc(&heap, 77, 0);
    assert_int_equal(mm_slab_ksize(&heap, p), 77);
    assert_int_equal(mm_slab_check_copy(&heap, p, 77), MM_OK);
    assert_int_equal(mm_slab_check_copy(&heap, p, 78), MM_ERR_PERM);
    assert_int_not_equal(mm_slab_check_copy(&heap, p - 1, 2), MM_OK);
    assert_ptr_equal(mm_slab_krealloc(&heap, p, 80, 0), p);
    assert_int_equal(mm_slab_ksize(&heap, p), 80);
    memset(p, 1, 80);
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_int_equal(mm_slab_check_copy(&heap, p, 1), MM_ERR_INVALID);
    assert_int_equal(mm_slab_kfree(&heap, other), MM_OK);
    cache_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(double_free),
        cmocka_unit_test(a_bulk_free_knows_its_caller),
        cmocka_unit_test(double_free_with_last_owner),
        cmocka_unit_test(free_in_quarantine_is_a_double_free),
        cmocka_unit_test(objects_rest_in_turn),
        cmocka_unit_test(free_inside_an_object),
        cmocka_unit_test(free_of_no_object),
        cmocka_unit_test(free_of_another_caches_object),
        cmocka_unit_test(wild_frees),
        cmocka_unit_test(double_free_without_flags),
        cmocka_unit_test(shrink_returns_the_last_slab),
        cmocka_unit_test(overflow_of_one_byte),
        cmocka_unit_test(underflow_of_one_byte),
        cmocka_unit_test(write_after_free),
        cmocka_unit_test(write_after_free_found_when_the_slab_leaves),
        cmocka_unit_test(overflow_of_large_objects),
        cmocka_unit_test(krealloc_finds_damage_before_it_moves_the_zone),
        cmocka_unit_test(damage_is_found_by_the_check),
        cmocka_unit_test(leaks_name_their_allocator),
        cmocka_unit_test(a_cache_may_do_without_the_flags),
        cmocka_unit_test(bounds_are_what_was_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
