/* mm_buddy_check: every single-bit change of the metadata that matters is found. */
#include "buddy_test.h"

#define PB 64u

static struct arena a;

/* Blocks of every kind: allocated, exact, reserved, absent, free in all sizes, CMA, a leak is none. */
static void build(void)
{
    arena_begin(&a, 5 * PB - 3);
    a.config.span = 6 * PB * PAGE;
    arena_make(&a);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 3 * PAGE, 0, MM_BUDDY_MOVABLE), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 8 * PAGE, 3, MM_BUDDY_MOVABLE), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + PB * PAGE, 5, MM_BUDDY_UNMOVABLE), MM_OK);
    assert_int_equal(mm_buddy_resize_exact(&a.b, BASE + PB * PAGE, 23 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE + 2 * PB * PAGE + 7 * PAGE, 5 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_set_type(&a.b, BASE + 3 * PB * PAGE, PAGE, MM_BUDDY_CMA), MM_OK);
    assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_HEALTHY);
}

/* Flips each bit of `bytes` bytes at `at` in turn; how many flips leave the arena healthy. */
static unsigned unseen(void *at, size_t bytes)
{
    unsigned char *p = at;
    unsigned n = 0;

    for (size_t i = 0; i < bytes * 8; i++) {
        p[i / 8] ^= (unsigned char)(1u << i % 8);
        n += mm_buddy_check(&a.b) == MM_BUDDY_HEALTHY;
        p[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_HEALTHY);
    return n;
}

static void every_bit_of_the_bitmap_is_checked(void **state)
{
    (void)state;
    assert_int_equal(unseen(a.b.bits, a.b.pbs * PB / 8), 0);
}

static void every_bit_of_a_page_block_is_checked(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < a.b.pbs; i++) {
        assert_int_equal(unseen(&a.b.pb[i].free, sizeof a.b.pb[i].free), 0);
        assert_int_equal(unseen(&a.b.pb[i].hint, sizeof a.b.pb[i].hint), 0);
        /* The last one is wholly absent: any of the four types will do. */
        assert_int_equal(unseen(&a.b.pb[i].type, sizeof a.b.pb[i].type), i == 5 ? 2 : 0);
    }
}

/* Only that a block is reserved cannot be told from one that the arena holds for a while. */
static void every_state_byte_is_checked(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < a.b.units; n++)
        assert_int_equal(unseen(&a.b.state[n], 1), (a.b.state[n] & 0xe0) == MMI_BUDDY_PLAIN ? 1 : 0);
}

static void a_mark_is_right_only_at_a_free_granule(void **state)
{
    (void)state;
    assert_int_equal(mm_buddy_report_enable(&a.b, 2), MM_OK);
    for (uint32_t n = 0; n < a.b.units; n++) {
        const uint8_t before = a.b.state[n];
        const bool head = n % 4 == 0 && block_at(&a, a.b.base + n * PAGE).state == MM_BUDDY_STATE_FREE;
        if (before != MMI_BUDDY_CLEAR)
            continue;
        a.b.state[n] = MMI_BUDDY_MARK;
        assert_int_equal(mm_buddy_check(&a.b), head ? MM_BUDDY_HEALTHY : MM_BUDDY_CORRUPT);
        a.b.state[n] = before;
    }
    assert_int_equal(mm_buddy_report_enable(&a.b, MM_BUDDY_ORDERS), MM_OK);
}

static void the_counters_are_checked(void **state)
{
    (void)state;
    assert_int_equal(unseen(&a.b.region[0].free, sizeof(uintptr_t)), 0);
    assert_int_equal(unseen(&a.b.region[0].whole, sizeof(uintptr_t)), 0);
    assert_int_equal(unseen(&a.b.total, sizeof(uintptr_t)), 0);
    assert_int_equal(a.b.reserved, 5);
    assert_int_equal(unseen(&a.b.reserved, sizeof(uintptr_t)), 2); /* lower: see above */
}

/* A bit too many costs a look, one too few loses memory. */
static void a_page_block_that_misses_in_a_set_is_found(void **state)
{
    uintptr_t *sets = a.b.region[0].sets;
    unsigned set_bits = 0;

    (void)state;
    for (size_t i = 0; i < (size_t)((unsigned char *)a.b.bits - (unsigned char *)sets) / sizeof *sets; i++) {
        for (uintptr_t bits = sets[i]; bits != 0; bits &= bits - 1) {
            sets[i] ^= bits & (0 - bits);
            assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_CORRUPT);
            sets[i] ^= bits & (0 - bits);
            set_bits++;
        }
    }
    assert_in_range(set_bits, 10, 200);
    assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_HEALTHY);
}

static void memory_in_no_block_and_not_free_is_a_leak(void **state)
{
    const uint32_t n = 3; /* the head of a single page */

    (void)state;
    assert_int_equal(a.b.state[n], MMI_BUDDY_PLAIN);
    a.b.state[n] = MMI_BUDDY_CLEAR;
    assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_LEAK);
    a.b.state[n] = MMI_BUDDY_PLAIN;
    assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_HEALTHY);
}

/* ---- per-CPU lists ---- */

#define corrupt(place, value)                                                                      \
    do {                                                                                           \
        const __typeof__(place) before_ = (place);                                                 \
        (place) = (value);                                                                         \
        assert_int_equal(mm_buddy_check(&lists.b), MM_BUDDY_CORRUPT);                              \
        (place) = before_;                                                                         \
        memcpy(lists.meta, copy, lists.meta_bytes); /* the check's own marks */                    \
        assert_int_equal(mm_buddy_check(&lists.b), MM_BUDDY_HEALTHY);                              \
    } while (0)

static void damaged_lists_are_found(void **state)
{
    struct arena lists;
    struct mmi_buddy_cpu *c;
    unsigned char *copy;
    mm_pa_t held;
    unsigned s = 0;

    (void)state;
    arena_begin(&lists, 32768);
    lists.config.cpu_lists = true;
    arena_make(&lists);
    held = mm_buddy_alloc(&lists.b, 0, 0);
    copy = malloc(lists.meta_bytes);
    memcpy(copy, lists.meta, lists.meta_bytes);
    c = &lists.b.cpu[0];
    while (c->end[s] - c->pos[s] < 2)
        s++;
    corrupt(c->slot[c->pos[s]], c->slot[c->pos[s] + 1]);                      /* twice */
    corrupt(c->slot[c->pos[s]], lists.b.units);                               /* outside */
    corrupt(c->slot[c->pos[s]], (uint32_t)((held - lists.b.base) / PAGE));    /* somebody's */
    corrupt(c->slot[c->pos[s]], (uint32_t)((held - lists.b.base) / PAGE) + 9999); /* free */
    corrupt(c->pos[s], (uint16_t)(c->end[s] + 1));
    corrupt(c->floor[s], (uint16_t)(c->end[s] + 1));
    corrupt(lists.b.state[c->slot[c->pos[s]]], MMI_BUDDY_PLAIN);
    c->pos[s]++; /* one less: nobody has it */
    assert_int_equal(mm_buddy_check(&lists.b), MM_BUDDY_LEAK);
    c->pos[s]--;
    free(copy);
    arena_end(&lists);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_the_bitmap_is_checked),
        cmocka_unit_test(every_bit_of_a_page_block_is_checked),
        cmocka_unit_test(every_state_byte_is_checked),
        cmocka_unit_test(a_mark_is_right_only_at_a_free_granule),
        cmocka_unit_test(the_counters_are_checked),
        cmocka_unit_test(a_page_block_that_misses_in_a_set_is_found),
        cmocka_unit_test(memory_in_no_block_and_not_free_is_a_leak),
        cmocka_unit_test(damaged_lists_are_found),
    };
    build();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
