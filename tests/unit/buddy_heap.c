/* mm_buddy.h: the heap face, owner tags, the leak report. */
#include "buddy_test.h"

#define HEAP_BYTES ((size_t)1 << 20)

static struct arena heap;
static unsigned char *memory;

/* A heap whose addresses are not its pointers, with smallest blocks of 16 bytes. */
static int begin(void **state)
{
    (void)state;
    memset(&heap, 0, sizeof heap);
    memory = aligned_alloc(HEAP_BYTES, HEAP_BYTES);
    memset(memory, 0xa5, HEAP_BYTES);
    mm_buddy_config_init(&heap.config, BASE, HEAP_BYTES, 4, 16);
    heap.config.pointer_offset = (uintptr_t)memory - (uintptr_t)BASE;
    heap.config.cpu_lists = false;
    heap.config.hooks = &heap.hooks;
    arena_make(&heap);
    return 0;
}

static int end(void **state)
{
    (void)state;
    arena_end(&heap);
    free(memory);
    return 0;
}

static void malloc_gives_aligned_memory_of_the_arena(void **state)
{
    (void)state;
    for (size_t size = 1; size <= HEAP_BYTES; size += size / 3 + 1) {
        unsigned char *p = mm_buddy_malloc(&heap.b, size);
        size_t block = 16;
        while (block < size)
            block *= 2;
        assert_non_null(p);
        assert_true(p >= memory && p + size <= memory + HEAP_BYTES);
        assert_int_equal((uintptr_t)p % block, 0);
        assert_int_equal(mm_buddy_usable_size(&heap.b, p), block);
        memset(p, 0x11, block);
        assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
        assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_ERR_INVALID);
    }
    assert_null(mm_buddy_malloc(&heap.b, 0));
    assert_null(mm_buddy_malloc(&heap.b, HEAP_BYTES + 1));
    assert_null(mm_buddy_malloc(&heap.b, SIZE_MAX));
}

static void calloc_clears_and_refuses_overflow(void **state)
{
    unsigned char *p = mm_buddy_calloc(&heap.b, 7, 33);

    (void)state;
    for (size_t i = 0; i < 7 * 33; i++)
        assert_int_equal(p[i], 0);
    assert_null(mm_buddy_calloc(&heap.b, SIZE_MAX / 2 + 1, 2));
    assert_null(mm_buddy_calloc(&heap.b, 2, SIZE_MAX / 2 + 1));
    assert_null(mm_buddy_calloc(&heap.b, SIZE_MAX, SIZE_MAX));
    assert_null(mm_buddy_calloc(&heap.b, 0, 5));
    assert_null(mm_buddy_calloc(&heap.b, 5, 0));
    assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
}

static void memalign_aligns_beyond_the_size(void **state)
{
    (void)state;
    for (size_t align = 1; align <= HEAP_BYTES; align *= 2) {
        unsigned char *p = mm_buddy_memalign(&heap.b, align, 24);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        assert_in_range(mm_buddy_usable_size(&heap.b, p), 24, HEAP_BYTES);
        memset(p, 0x22, mm_buddy_usable_size(&heap.b, p));
        assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
    }
    assert_null(mm_buddy_memalign(&heap.b, 0, 16));
    assert_null(mm_buddy_memalign(&heap.b, 24, 16));
    assert_null(mm_buddy_memalign(&heap.b, 16, 0));
    assert_null(mm_buddy_memalign(&heap.b, 2 * HEAP_BYTES, 16));
}

static void fill(unsigned char *p, size_t size, unsigned salt)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (unsigned char)(i * 7 + salt);
}

static void assert_filled(const unsigned char *p, size_t size, unsigned salt)
{
    for (size_t i = 0; i < size; i++)
        assert_int_equal(p[i], (unsigned char)(i * 7 + salt));
}

static void realloc_keeps_the_content(void **state)
{
    unsigned char *p = mm_buddy_realloc(&heap.b, NULL, 10), *wall;
    size_t held = 10;

    (void)state;
    fill(p, 10, 1);
    for (size_t size = 16; size <= HEAP_BYTES / 4; size = size * 3 / 2) {
        wall = mm_buddy_malloc(&heap.b, 16); /* sometimes right behind it */
        p = mm_buddy_realloc(&heap.b, p, size);
        assert_non_null(p);
        assert_filled(p, held, 1);
        fill(p, size, 1);
        held = size;
        assert_int_equal(mm_buddy_mfree(&heap.b, wall), MM_OK);
    }
    while (held > 1) {
        held = held / 5 + 1 < held ? held / 5 + 1 : 1;
        p = mm_buddy_realloc(&heap.b, p, held);
        assert_filled(p, held, 1);
    }
    assert_null(mm_buddy_realloc(&heap.b, p, 0)); /* frees */
    assert_int_equal(mm_buddy_free_bytes(&heap.b), HEAP_BYTES);
}

static void a_realloc_that_fails_leaves_the_block(void **state)
{
    unsigned char *p = mm_buddy_malloc(&heap.b, 1000);
    unsigned char inside[8];
    void *wall;

    (void)state;
    fill(p, 1000, 3);
    assert_null(mm_buddy_realloc(&heap.b, p, HEAP_BYTES + 1));
    assert_null(mm_buddy_realloc(&heap.b, p, SIZE_MAX));
    wall = mm_buddy_malloc(&heap.b, 16);
    assert_null(mm_buddy_realloc(&heap.b, p, HEAP_BYTES));
    assert_int_equal(mm_buddy_mfree(&heap.b, wall), MM_OK);
    assert_null(mm_buddy_realloc(&heap.b, p + 16, 10));
    assert_null(mm_buddy_realloc(&heap.b, inside, 10));
    assert_filled(p, 1000, 3);
    assert_int_equal(mm_buddy_usable_size(&heap.b, p), 1024);
    assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
}

static void realloc_keeps_an_alignment(void **state)
{
    unsigned char *p = mm_buddy_memalign(&heap.b, 4096, 100);

    (void)state;
    fill(p, 100, 5);
    for (size_t size = 50; size < 20000; size += 777) {
        p = mm_buddy_realloc(&heap.b, p, size);
        assert_int_equal((uintptr_t)p % 4096, 0);
        assert_filled(p, size < 100 ? size : 50, 5);
        fill(p, size < 100 ? size : 100, 5);
    }
    assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
}

static void wrong_frees_are_refused(void **state)
{
    unsigned char *p = mm_buddy_malloc(&heap.b, 64);
    unsigned char elsewhere[32];

    (void)state;
    assert_int_equal(mm_buddy_mfree(&heap.b, NULL), MM_OK);
    assert_refused(&heap, mm_buddy_mfree(&heap.b, p + 16), MM_ERR_ALIGN);
    assert_refused(&heap, mm_buddy_mfree(&heap.b, p + 1), MM_ERR_ALIGN);
    assert_refused(
        &heap, mm_buddy_mfree(&heap.b, (unsigned char *)((uintptr_t)elsewhere & ~(uintptr_t)15)),
        MM_ERR_INVALID);
    assert_int_equal(mm_buddy_usable_size(&heap.b, p + 16), 0);
    assert_int_equal(mm_buddy_usable_size(&heap.b, elsewhere), 0);
    assert_int_equal(mm_buddy_usable_size(&heap.b, NULL), 0);
    assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
}

static void no_byte_outside_a_held_block_is_written(void **state)
{
    unsigned char *p = mm_buddy_calloc(&heap.b, 1, 100);

    (void)state;
    assert_non_null(p);
    for (size_t i = 0; i < HEAP_BYTES; i++)
        if (memory + i < p || memory + i >= p + 128)
            assert_int_equal(memory[i], 0xa5);
    assert_int_equal(mm_buddy_mfree(&heap.b, p), MM_OK);
}

/* ---- tags ---- */

static void the_leak_report_sums_up_by_tag(void **state)
{
    uintptr_t *tags = malloc(mm_buddy_tag_bytes(&heap.b));
    struct mm_buddy_owner table[4];
    void *p[6];

    (void)state;
    assert_int_equal(mm_buddy_set_tag(&heap.b, BASE, 1), MM_ERR_PERM);
    assert_int_equal(mm_buddy_tags(&heap.b, tags, mm_buddy_tag_bytes(&heap.b) - 1), MM_ERR_NOMEM);
    memset(tags, 0xa5, mm_buddy_tag_bytes(&heap.b));
    assert_int_equal(mm_buddy_tags(&heap.b, tags, mm_buddy_tag_bytes(&heap.b)), MM_OK);
    for (unsigned i = 0; i < 6; i++)
        p[i] = mm_buddy_malloc(&heap.b, (size_t)16 << i);
#define address(i) ((mm_pa_t)((uintptr_t)p[i] - (uintptr_t)memory) + BASE)
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(mm_buddy_set_tag(&heap.b, address(i), 100 + i % 2), MM_OK);
    assert_int_equal(mm_buddy_set_tag(&heap.b, address(5) + 16, 1), MM_ERR_ALIGN);
    assert_int_equal(block_at(&heap, address(3) + 20).tag, 101);
    assert_int_equal(mm_buddy_leaks(&heap.b, table, 4), 3);
    for (unsigned i = 0; i < 3; i++) {
        if (table[i].tag == 100) {
            assert_int_equal(table[i].blocks, 3);
            assert_int_equal(table[i].bytes, 16 + 64 + 256);
        } else if (table[i].tag == 101) {
            assert_int_equal(table[i].blocks, 2);
            assert_int_equal(table[i].bytes, 32 + 128);
        } else {
            assert_int_equal(table[i].tag, 0);
            assert_int_equal(table[i].bytes, 512);
        }
    }
    assert_int_equal(mm_buddy_leaks(&heap.b, table, 1), 1); /* what has no room of its own */
    assert_int_equal(table[0].tag, UINTPTR_MAX);
    assert_int_equal(table[0].blocks, 6);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(mm_buddy_mfree(&heap.b, p[i]), MM_OK);
    assert_int_equal(mm_buddy_set_tag(&heap.b, address(0), 1), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_leaks(&heap.b, table, 4), 0);
    p[0] = mm_buddy_malloc(&heap.b, 16);
    assert_int_equal(block_at(&heap, address(0)).tag, 0); /* not the one before */
    assert_int_equal(mm_buddy_tags(&heap.b, NULL, 0), MM_OK);
    assert_int_equal(mm_buddy_leaks(&heap.b, table, 4), 1); /* works without tags */
    assert_int_equal(table[0].bytes, 16);
    assert_int_equal(mm_buddy_mfree(&heap.b, p[0]), MM_OK);
    free(tags);
}

int main(void)
{
#define heap_test(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        heap_test(malloc_gives_aligned_memory_of_the_arena),
        heap_test(calloc_clears_and_refuses_overflow),
        heap_test(memalign_aligns_beyond_the_size),
        heap_test(realloc_keeps_the_content),
        heap_test(a_realloc_that_fails_leaves_the_block),
        heap_test(realloc_keeps_an_alignment),
        heap_test(wrong_frees_are_refused),
        heap_test(no_byte_outside_a_held_block_is_written),
        heap_test(the_leak_report_sums_up_by_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
