/* Per-CPU lists of whole page blocks: only arenas of many page blocks have them. */
#include "buddy_test.h"

#define ORDER  6u /* of a page block here */
#define UNITS  (1u << ORDER)
#define BLOCKS 768u
#define SIZE   (UNITS * PAGE)

static mm_pa_t taken[BLOCKS];

static mm_pa_t block_address(unsigned i)
{
    return BASE + i * SIZE;
}

static void many_begin(struct arena *a)
{
    arena_begin(a, BLOCKS * UNITS);
    a->config.regions = 4;
    a->config.cpu_lists = true;
    a->hooks.zero = NULL;
}

static void many(struct arena *a)
{
    many_begin(a);
    arena_make(a);
    assert_true(a->b.huge_high >= 4);
}

/* Allocates until nothing is left: each block once, all of them. */
static void take_all(struct arena *a)
{
    static bool seen[BLOCKS];
    unsigned n = 0;
    mm_pa_t pa;

    memset(seen, 0, sizeof seen);
    while ((pa = mm_buddy_alloc(&a->b, ORDER, MM_BUDDY_MOVABLE)) != MM_PA_NONE) {
        const uint64_t i = (pa - BASE) / SIZE;
        assert_true((pa - BASE) % SIZE == 0 && i < BLOCKS && !seen[i]);
        seen[i] = true;
        taken[n++] = pa;
    }
    assert_int_equal(n, BLOCKS);
}

static void blocks_come_back_from_the_lists(void **state)
{
    struct arena a;

    (void)state;
    many(&a);
    for (unsigned round = 0; round < 3; round++) {
        take_all(&a);
        for (unsigned i = 0; i < BLOCKS; i++) {
            cpu_now = i / 7 % MM_CPU_MAX;
            assert_int_equal(mm_buddy_free(&a.b, taken[(i * 37 + round) % BLOCKS]), MM_OK);
        }
        assert_int_not_equal(stats_of(&a).cached, 0);
        assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_HEALTHY);
        if (round == 1)
            mm_buddy_drain(&a.b);
    }
    take_all(&a);
    assert_int_equal(mm_buddy_free_bulk(&a.b, ORDER, taken, BLOCKS), MM_OK);
    mm_buddy_drain(&a.b);
    assert_int_equal(free_pages(&a), BLOCKS * UNITS);
    assert_int_equal(mm_buddy_fragmentation(&a.b, 10), -1000);
    arena_end(&a);
}

static void zero(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx, (void)pa, (void)bytes;
}

/* The list was filled for another type: by the short way and by the long one, which MM_BUDDY_ZERO
 * takes. */
static void a_block_of_the_list_gets_the_type_asked_for(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    many_begin(&a);
    a.hooks.zero = zero;
    arena_make(&a);
    pa = mm_buddy_alloc(&a.b, ORDER, MM_BUDDY_UNMOVABLE);
    assert_int_equal(mm_buddy_get_type(&a.b, pa), MM_BUDDY_UNMOVABLE);
    pa = mm_buddy_alloc(&a.b, ORDER, MM_BUDDY_RECLAIMABLE | MM_BUDDY_ZERO);
    assert_int_equal(mm_buddy_get_type(&a.b, pa), MM_BUDDY_RECLAIMABLE);
    pa = mm_buddy_alloc(&a.b, ORDER, MM_BUDDY_RECLAIMABLE);
    pa = mm_buddy_alloc(&a.b, ORDER, MM_BUDDY_MOVABLE);
    assert_int_equal(mm_buddy_get_type(&a.b, pa), MM_BUDDY_MOVABLE);
    arena_end(&a);
}

/* A range is emptied while a block of it waits in a list. */
static void a_range_is_found_below_a_listed_block(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    many(&a);
    pa = mm_buddy_alloc(&a.b, ORDER, MM_BUDDY_MOVABLE);
    assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    assert_int_equal(mm_buddy_alloc_range(&a.b, pa, SIZE / 2, 0), MM_OK);
    assert_int_equal(free_pages(&a) + stats_of(&a).cached / PAGE, BLOCKS * UNITS - UNITS / 2);
    assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    mm_buddy_drain(&a.b);
    assert_int_equal(free_pages(&a), BLOCKS * UNITS);
    arena_end(&a);
}

/* Blocks of CMA page blocks stay out of the lists, which know no types. */
static void cma_blocks_are_for_movable_requests_only(void **state)
{
    struct arena a;
    unsigned n = 0;
    mm_pa_t pa;

    (void)state;
    many(&a);
    assert_int_equal(mm_buddy_set_type(&a.b, block_address(8), 4 * SIZE, MM_BUDDY_CMA), MM_OK);
    take_all(&a);
    for (unsigned i = 0; i < BLOCKS; i++)
        if (taken[i] >= block_address(8) && taken[i] < block_address(12))
            taken[n++] = taken[i];
    assert_int_equal(n, 4);
    taken[4] = taken[1];
    assert_refused(&a, mm_buddy_free_bulk(&a.b, ORDER, taken, 5), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free(&a.b, taken[0]), MM_OK);
    assert_int_equal(mm_buddy_free_bulk(&a.b, ORDER, taken + 1, 3), MM_OK);
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER, MM_BUDDY_UNMOVABLE), MM_PA_NONE);
    assert_int_equal(mm_buddy_alloc(&a.b, 0, MM_BUDDY_UNMOVABLE), MM_PA_NONE);
    pa = mm_buddy_alloc(&a.b, ORDER + 2, MM_BUDDY_MOVABLE);
    assert_int_equal(pa, block_address(8));
    assert_int_equal(mm_buddy_get_type(&a.b, pa), MM_BUDDY_CMA);
    assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    mm_buddy_drain(&a.b);
    assert_int_equal(free_pages(&a), 4 * UNITS);
    arena_end(&a);
}

/* A movable block larger than a page block may mix CMA page blocks and others. */
static void a_large_movable_block_may_mix_types(void **state)
{
    struct arena a;

    (void)state;
    arena_begin(&a, 4 * UNITS);
    arena_make(&a);
    assert_int_equal(mm_buddy_set_type(&a.b, block_address(1), SIZE, MM_BUDDY_CMA), MM_OK);
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 2, MM_BUDDY_UNMOVABLE), MM_PA_NONE);
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 2, MM_BUDDY_MOVABLE), BASE);
    assert_int_equal(mm_buddy_free(&a.b, BASE), MM_OK);
    assert_int_equal(mm_buddy_get_type(&a.b, block_address(1)), MM_BUDDY_CMA);
    arena_end(&a);
}

/* The same for blocks larger than a region. */
static void a_block_larger_than_a_region_keeps_off_cma(void **state)
{
    struct arena a;

    (void)state;
    arena_begin(&a, 64 * UNITS);
    a.config.regions = 4;
    a.config.max_order = ORDER + 5;
    arena_make(&a);
    assert_int_equal(mm_buddy_set_type(&a.b, block_address(20), SIZE, MM_BUDDY_CMA), MM_OK);
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 5, MM_BUDDY_UNMOVABLE), block_address(32));
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 5, MM_BUDDY_UNMOVABLE), MM_PA_NONE);
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 5, MM_BUDDY_MOVABLE), BASE);
    arena_end(&a);
}

/* Blocks that take several words of a region's set. */
static void blocks_of_many_page_blocks_are_found(void **state)
{
    struct arena a;

    (void)state;
    arena_begin(&a, BLOCKS * UNITS);
    a.config.max_order = ORDER + 7;
    arena_make(&a);
    assert_int_equal(mm_buddy_alloc(&a.b, 0, 0), BASE);
    for (unsigned i = 1; i < BLOCKS / 128; i++)
        assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 7, 0), block_address(128 * i));
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 7, 0), MM_PA_NONE);
    assert_int_equal(mm_buddy_alloc(&a.b, ORDER + 6, 0), block_address(64));
    arena_end(&a);
}

/* Lists are not filled with what the watermark keeps. */
static void a_list_gets_no_more_than_the_watermark_allows(void **state)
{
    struct arena a;

    (void)state;
    many(&a);
    assert_int_equal(
        mm_buddy_set_watermarks(&a.b, BLOCKS * SIZE - 3 * PAGE, BLOCKS * SIZE, BLOCKS * SIZE),
        MM_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_int_not_equal(mm_buddy_alloc(&a.b, 0, 0), MM_PA_NONE);
    assert_int_equal(mm_buddy_alloc(&a.b, 0, 0), MM_PA_NONE);
    assert_int_not_equal(mm_buddy_alloc(&a.b, 0, MM_BUDDY_URGENT), MM_PA_NONE);
    arena_end(&a);
}

/* The whole arena is a contiguous range too. */
static void a_contiguous_range_may_be_all_of_it(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * UNITS);
    assert_int_equal(mm_buddy_alloc_contig(&a.b, 4 * SIZE, PAGE, 0), BASE);
    assert_int_equal(free_pages(&a), 0);
    assert_int_equal(mm_buddy_free(&a.b, BASE), MM_OK);
    arena_end(&a);
}

/* The watermark leaves just so much: a block at an address is refused by one page. */
static void a_block_at_an_address_may_take_all_above_the_watermark(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 4 * UNITS);
    assert_int_equal(mm_buddy_set_watermarks(&a.b, 4 * SIZE - 8 * PAGE, 4 * SIZE, 4 * SIZE), MM_OK);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE, 4, 0), MM_ERR_NOMEM);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 3, 0), MM_OK);
    arena_end(&a);
}

/* A page block of another type changes it only if half of it or more is free. */
static void only_a_page_block_half_free_is_taken_over(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    for (unsigned used = UNITS / 2; used <= UNITS / 2 + 1; used++) {
        arena_simple(&a, UNITS);
        for (unsigned i = 0; i < used; i++)
            assert_int_not_equal(mm_buddy_alloc(&a.b, 0, MM_BUDDY_MOVABLE), MM_PA_NONE);
        pa = mm_buddy_alloc(&a.b, 0, MM_BUDDY_UNMOVABLE);
        assert_int_not_equal(pa, MM_PA_NONE);
        assert_int_equal(mm_buddy_get_type(&a.b, pa),
                         used == UNITS / 2 ? MM_BUDDY_UNMOVABLE : MM_BUDDY_MOVABLE);
        arena_end(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_come_back_from_the_lists),
        cmocka_unit_test(a_block_of_the_list_gets_the_type_asked_for),
        cmocka_unit_test(a_range_is_found_below_a_listed_block),
        cmocka_unit_test(cma_blocks_are_for_movable_requests_only),
        cmocka_unit_test(a_large_movable_block_may_mix_types),
        cmocka_unit_test(a_block_larger_than_a_region_keeps_off_cma),
        cmocka_unit_test(blocks_of_many_page_blocks_are_found),
        cmocka_unit_test(a_list_gets_no_more_than_the_watermark_allows),
        cmocka_unit_test(a_contiguous_range_may_be_all_of_it),
        cmocka_unit_test(a_block_at_an_address_may_take_all_above_the_watermark),
        cmocka_unit_test(only_a_page_block_half_free_is_taken_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
