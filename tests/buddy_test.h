/* buddy_test.h - what the tests of mm_buddy.h share. Include it instead of the header. */
#ifndef BUDDY_TEST_H
#define BUDDY_TEST_H

#include "mm_test.h"

#define MM_CPU_MAX 3
unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID() cpu_now
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#define PAGE ((mm_pa_t)4096)
#define BASE ((mm_pa_t)0x40000000)

/* An arena and what it lives in. */
struct arena {
    struct mm_buddy b;
    struct mm_buddy_config config;
    struct mm_buddy_hooks hooks;
    unsigned char *meta;
    size_t meta_bytes;
};

/* `pages` pages from BASE in one region, page blocks of 64, no per-CPU lists: call arena_make
 * next. */
static MM_TEST_UNUSED void arena_begin(struct arena *a, uint64_t pages)
{
    memset(a, 0, sizeof *a);
    cpu_now = 0;
    mm_buddy_config_init(&a->config, BASE, pages * PAGE, 12, 10);
    a->config.pb_order = 6;
    a->config.regions = 1;
    a->config.cpu_lists = false;
    a->config.hooks = &a->hooks;
}

/* Its metadata are full of 0xa5 before. */
static MM_TEST_UNUSED void arena_make(struct arena *a)
{
    a->meta_bytes = mm_buddy_meta_bytes(&a->config);
    assert_true(a->meta_bytes != 0);
    a->meta = malloc(a->meta_bytes);
    memset(a->meta, 0xa5, a->meta_bytes);
    memset(&a->b, 0xa5, sizeof a->b);
    assert_int_equal(mm_buddy_init(&a->b, &a->config, a->meta, a->meta_bytes), MM_OK);
}

static MM_TEST_UNUSED void arena_simple(struct arena *a, uint64_t pages)
{
    arena_begin(a, pages);
    arena_make(a);
}

static MM_TEST_UNUSED void arena_end(struct arena *a)
{
    assert_int_equal(mm_buddy_check(&a->b), MM_BUDDY_HEALTHY);
    free(a->meta);
    a->meta = NULL;
}

static MM_TEST_UNUSED uint64_t free_pages(const struct arena *a)
{
    return mm_buddy_free_bytes(&a->b) / PAGE;
}

static MM_TEST_UNUSED struct mm_buddy_stats stats_of(const struct arena *a)
{
    struct mm_buddy_stats stats;
    mm_buddy_get_stats(&a->b, &stats);
    return stats;
}

static MM_TEST_UNUSED struct mm_buddy_block block_at(const struct arena *a, mm_pa_t pa)
{
    struct mm_buddy_block block;
    assert_int_equal(mm_buddy_find(&a->b, pa, &block), MM_OK);
    return block;
}

/* The arena byte by byte, but for the counters of what was refused. */
struct picture {
    struct mm_buddy b;
    unsigned char *meta;
};

static MM_TEST_UNUSED void picture_take(struct picture *p, const struct arena *a)
{
    p->b = a->b;
    p->meta = malloc(a->meta_bytes);
    memcpy(p->meta, a->meta, a->meta_bytes);
}

static MM_TEST_UNUSED void picture_compare(struct picture *p, const struct arena *a)
{
    p->b.misuse = a->b.misuse;
    p->b.failures = a->b.failures;
    p->b.drains = a->b.drains;
    assert_memory_equal(&p->b, &a->b, sizeof p->b);
    assert_memory_equal(p->meta, a->meta, a->meta_bytes);
    free(p->meta);
}

/* The call has this result and changes nothing. */
#define assert_refused(arena, call, result) \
    do {                                    \
        struct picture before_;             \
        picture_take(&before_, arena);      \
        assert_true((call) == (result));    \
        picture_compare(&before_, arena);   \
    } while (0)

/* Allocates everything left by single pages. Returns how many there were. */
static MM_TEST_UNUSED uint64_t exhaust(struct arena *a, unsigned flags)
{
    uint64_t n = 0;
    while (mm_buddy_alloc(&a->b, 0, flags) != MM_PA_NONE)
        n++;
    return n;
}

#endif
