/* What is not handed out is poisoned under AddressSanitizer, and an access to it ends the
 * program. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

#include <fcntl.h>
#include <sys/wait.h>

#if SLAB_ASAN
/* Exactly the bytes from p to p + size may be touched, of those to p + usable. */
static void assert_open(char *p, size_t size, size_t usable)
{
    assert_null(__asan_region_is_poisoned(p, size));
    for (size_t i = size; i < usable; i++)
        assert_true(__asan_address_is_poisoned(p + i));
}

static void assert_shut(char *p, size_t usable)
{
    for (size_t i = 0; i < usable; i++)
        assert_true(__asan_address_is_poisoned(p + i));
}

static void only_what_was_asked_for_is_open(void **state)
{
    (void)state;
    for (unsigned debug = 0; debug < 2; debug++) {
        heap_begin();
        config.flags = debug ? MM_SLAB_DEBUG_ALL : 0;
        heap_make();
        void *other = mm_slab_kmalloc(&heap, 96, 0);
        char *p = mm_slab_kmalloc(&heap, 90, 0), *q;
        assert_open(p, 90, 96);
        p = mm_slab_krealloc(&heap, p, 93, 0);
        assert_open(p, 93, 96);
        p = mm_slab_krealloc(&heap, p, 81, 0);
        assert_open(p, 81, 96);
        assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
        assert_shut(p, 96);
        q = mm_slab_kzalloc(&heap, 83, 0);
        assert_open(q, 83, 96);
        assert_int_equal(mm_slab_kfree_sized(&heap, q, 83), MM_OK);
        assert_shut(q, 96);
        q = mm_slab_kmalloc_aligned(&heap, 70, 64, 0);
        assert_open(q, 70, 128);
        assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
        assert_shut(q, 128);
        q = mm_slab_kmalloc(&heap, 20000, 0);
        assert_open(q, 20000, 20480);
        assert_int_equal(mm_slab_kfree(&heap, q), MM_OK);
        assert_int_equal(mm_slab_kfree(&heap, other), MM_OK);
        heap_end();
    }
}

static void caches_and_bulk_calls_as_well(void **state)
{
    struct mm_slab_cache_config c = {0};
    struct mm_slab_cache cache;
    char *p[300];
    (void)state;
    heap_plain();
    c.name = "thing";
    c.size = 44;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
    assert_int_equal(mm_slab_alloc_bulk(&cache, 0, (void **)p, 300), 300);
    for (unsigned i = 0; i < 300; i++)
        assert_open(p[i], 44, 44);
    assert_int_equal(mm_slab_free_bulk(&cache, (void *const *)p, 299), MM_OK);
    for (unsigned i = 0; i < 299; i++)
        assert_shut(p[i], 44);
    assert_int_equal(mm_slab_free(&cache, p[299]), MM_OK);
    assert_int_equal(mm_slab_kmalloc_bulk(&heap, 50, 0, (void **)p, 300), 300);
    for (unsigned i = 0; i < 300; i++)
        assert_open(p[i], 50, 64);
    assert_int_equal(mm_slab_kfree_bulk(&heap, (void *const *)p, 300), MM_OK);
    assert_shut(p[7], 64);
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    heap_end();
}

/* Does a child that touches this byte end? */
static bool traps(volatile char *p)
{
    int status;
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY), 2);
        p[0] = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status != 0;
}

static void accesses_trap(void **state)
{
    (void)state;
    heap_plain();
    char *p = mm_slab_kmalloc(&heap, 90, 0);
    assert_false(traps(p + 89));
    assert_true(traps(p + 90));
    assert_int_equal(mm_slab_kfree(&heap, p), MM_OK);
    assert_true(traps(p));
    heap_end();
}
#else
static void only_what_was_asked_for_is_open(void **state)
{
    (void)state;
    skip(); /* there is no sanitizer here */
}
#define caches_and_bulk_calls_as_well only_what_was_asked_for_is_open
#define accesses_trap                 only_what_was_asked_for_is_open
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_was_asked_for_is_open),
        cmocka_unit_test(caches_and_bulk_calls_as_well),
        cmocka_unit_test(accesses_trap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
