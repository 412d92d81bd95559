/* mm_buddy_check: every single-bit change of the metadata is found, but for what is harmless:
 *
 *   the type of a page block without free blocks   where freed blocks go: any type will do
 *   the type of a wholly free page block           (other than CMA) is set anew by its next user
 *   a mark of a free granule, while reports are on it is told once more, or once less
 *   a CPU's home, a region's owner                 hints where to look first; out of range is found
 *   slots outside of the lists                     never read
 *   watermarks, sizes of lists                     settings: each value can be meant; out of range
 *                                                  is found
 *   counters of events, room between the parts     never judged, never read
 *
 * Locks, owner words and the arena's shape (pointers, sizes) are what the check itself works
 * with. */
#define MM_BUDDY_CPU_SLOTS 8
#include "buddy_test.h"

#define PB 64u

static struct arena a, lists;

/* Blocks of every kind: allocated, exact, reserved, absent, free in all sizes, CMA, a leak is
 * none. */
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

/* Blocks in the lists of two of three CPUs, regions that begin amid a page block, page blocks that
 * are wholly free. */
static void build_lists(void)
{
    mm_pa_t block[62];
    unsigned i = 0;

    arena_begin(&lists, 200 * PB);
    lists.config.base += 5 * PAGE;
    lists.config.cpu_lists = true;
    lists.config.regions = 4;
    arena_make(&lists);
    for (cpu_now = 0; cpu_now < 2; cpu_now++)
        for (i = 0; i < 62; i++) /* some lists have blocks left */
            block[i] = mm_buddy_alloc(&lists.b, i % 5 < 4 ? i % 5 : 6, i % 3);
    for (cpu_now = 1; i-- > 36;)
        assert_int_equal(mm_buddy_free(&lists.b, block[i]), MM_OK);
    assert_int_equal(mm_load(&lists.b.active), 2);
    assert_in_range(stats_of(&lists).cached, 70 * PAGE, 1000 * PAGE);
    assert_int_equal(mm_buddy_check(&lists.b), MM_BUDDY_HEALTHY);
}

/* Flips each bit of `bytes` bytes at `at` in turn; how many flips leave the arena healthy. */
static unsigned unseen_in(struct arena *arena, void *at, size_t bytes)
{
    unsigned char *p = at;
    unsigned n = 0;

    for (size_t i = 0; i < bytes * 8; i++) {
        const unsigned char before = p[i / 8];
        p[i / 8] ^= (unsigned char)(1u << i % 8);
        n += mm_buddy_check(&arena->b) == MM_BUDDY_HEALTHY;
        p[i / 8] = before;
    }
    assert_int_equal(mm_buddy_check(&arena->b), MM_BUDDY_HEALTHY);
    return n;
}
static unsigned unseen(void *at, size_t bytes)
{
    return unseen_in(&a, at, bytes);
}

static void every_bit_of_the_bitmap_is_checked(void **state)
{
    (void)state;
    assert_int_equal(unseen(a.b.bits, a.b.pbs * PB / 8), 0);
}

/* How many other types a page block could as well have, at a distance of one bit. */
static unsigned other_types(const struct mmi_buddy_pb *pb)
{
    if (pb->hint == MMI_BUDDY_WHOLE && pb->type != MM_BUDDY_CMA)
        return pb->type == MM_BUDDY_UNMOVABLE ? 2 : 1;
    return pb->hint == 0 ? 2 : 0;
}

static void every_bit_of_a_page_block_is_checked(void **state)
{
    unsigned whole = 0;

    (void)state;
    for (uint32_t i = 0; i < a.b.pbs; i++) {
        assert_int_equal(unseen(&a.b.pb[i].free, sizeof a.b.pb[i].free), 0);
        assert_int_equal(unseen(&a.b.pb[i].hint, sizeof a.b.pb[i].hint), 0);
        assert_int_equal(unseen(&a.b.pb[i].type, sizeof a.b.pb[i].type), other_types(&a.b.pb[i]));
    }
    for (uint32_t i = 0; i < lists.b.pbs; i += 5) {
        struct mmi_buddy_pb *pb = &lists.b.pb[i];
        whole += pb->hint == MMI_BUDDY_WHOLE;
        assert_int_equal(unseen_in(&lists, pb, sizeof *pb), other_types(pb));
    }
    assert_in_range(whole, 1, lists.b.pbs);
}

static void every_state_byte_is_checked(void **state)
{
    (void)state;
    assert_int_equal(unseen(a.b.state, a.b.units), 0);
    assert_int_equal(unseen_in(&lists, lists.b.state, 2 * PB), 0); /* from below the base on */
}

static void a_mark_is_right_only_at_a_free_granule(void **state)
{
    (void)state;
    assert_int_equal(mm_buddy_report_enable(&a.b, 2), MM_OK);
    for (uint32_t n = 0; n < a.b.units; n++) {
        const uint8_t before = a.b.state[n];
        const bool head = n % 4 == 0 &&
                          block_at(&a, a.b.base + n * PAGE).state == MM_BUDDY_STATE_FREE &&
                          block_at(&a, a.b.base + n * PAGE).bytes >= 4 * PAGE;
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
    for (uint32_t i = 0; i < lists.b.regions; i++) {
        assert_int_equal(unseen_in(&lists, &lists.b.region[i].free, sizeof(uintptr_t)), 0);
        assert_int_equal(unseen_in(&lists, &lists.b.region[i].whole, sizeof(uintptr_t)), 0);
    }
    assert_int_equal(unseen_in(&lists, &lists.b.some, sizeof(uintptr_t)), 0);
    assert_int_equal(unseen_in(&lists, &lists.b.wholes, sizeof(uintptr_t)), 0);
    assert_int_equal(unseen_in(&lists, &lists.b.active, sizeof(uintptr_t)), 0);
    assert_int_equal(unseen_in(&lists, &lists.b.total, sizeof(uintptr_t)), 0);
    assert_int_equal(a.b.reserved, 5);
    assert_int_equal(unseen(&a.b.reserved, sizeof(uintptr_t)), 0);
}

static void what_is_reported_is_checked(void **state)
{
    (void)state;
    for (unsigned order = 4; order <= MM_BUDDY_ORDERS; order += MM_BUDDY_ORDERS - 4) {
        assert_int_equal(mm_buddy_report_enable(&a.b, order), MM_OK);
        assert_int_equal(unseen(&a.b.report, sizeof a.b.report), 0);
        assert_int_equal(unseen(&a.b.report_order, sizeof a.b.report_order), 0);
    }
}

static void every_bit_of_the_sets_is_checked(void **state)
{
    const size_t sets = MM_BUDDY_TYPES * lists.b.pb_order + 2;

    (void)state;
    for (uint32_t i = 0; i < lists.b.regions; i += lists.b.regions - 1)
        assert_int_equal(
            unseen_in(&lists, lists.b.region[i].sets, sets * lists.b.set_words * sizeof(uintptr_t)),
            0);
    assert_int_equal(unseen(a.b.region[0].sets, sets * a.b.set_words * sizeof(uintptr_t)), 0);
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

/* Bits of a word whose change leaves it at most `most`. */
static unsigned in_range(uintptr_t word, uintptr_t most)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MM_WORD_BITS; i++)
        n += (word ^ mm_bit(i)) <= most;
    return n;
}

static void where_lists_begin_and_end_is_checked(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < lists.b.cpus; i++) {
        struct mmi_buddy_cpu *c = &lists.b.cpu[i];
        assert_int_equal(unseen_in(&lists, c->pos, sizeof c->pos), 0);
        assert_int_equal(unseen_in(&lists, c->end, sizeof c->end), 0);
        assert_int_equal(unseen_in(&lists, c->floor, sizeof c->floor), 0);
        assert_int_equal(unseen_in(&lists, &c->active, sizeof c->active), 0);
        assert_int_equal(unseen_in(&lists, &c->home, sizeof c->home),
                         in_range(c->home, lists.b.regions));
    }
    for (uint32_t i = 0; i < lists.b.regions; i++) {
        uintptr_t *owner = &lists.b.region[i].owner;
        assert_int_equal(unseen_in(&lists, owner, sizeof *owner), in_range(*owner, lists.b.cpus));
    }
    assert_in_range(unseen_in(&lists, &lists.b.high, sizeof(uintptr_t)), 0, 3);
    assert_in_range(unseen_in(&lists, &lists.b.batch, sizeof(uintptr_t)), 0, 3);
    assert_int_equal(unseen_in(&lists, &lists.b.huge_high, sizeof(uintptr_t)), 0);
}

static void every_bit_of_a_listed_block_is_checked(void **state)
{
    unsigned orders = 0;

    (void)state;
    for (uint32_t i = 0; i < lists.b.cpus; i++) {
        struct mmi_buddy_cpu *c = &lists.b.cpu[i];
        for (unsigned stack = 0; stack < MMI_BUDDY_STACKS; stack++) {
            const unsigned order = mmi_buddy_stack_order(&lists.b, stack);
            for (unsigned k = c->pos[stack]; k < c->end[stack]; k++) {
                assert_int_equal(unseen_in(&lists, &c->slot[k], sizeof c->slot[k]), 0);
                assert_int_equal(unseen_in(&lists, &lists.b.state[c->slot[k]], (size_t)1 << order),
                                 0);
                orders |= 1u << order;
            }
        }
    }
    assert_int_equal(orders, 0x4f);
}

static void a_block_that_is_in_no_list_any_more_is_a_leak(void **state)
{
    struct mmi_buddy_cpu *c = &lists.b.cpu[0];
    unsigned stack = 0;

    (void)state;
    while (stack < MMI_BUDDY_STACKS && c->pos[stack] == c->end[stack])
        stack++;
    assert_true(stack < MMI_BUDDY_STACKS);
    c->pos[stack]++;
    assert_int_equal(mm_buddy_check(&lists.b), MM_BUDDY_LEAK);
    c->pos[stack]--;
    assert_int_equal(mm_buddy_check(&lists.b), MM_BUDDY_HEALTHY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_the_bitmap_is_checked),
        cmocka_unit_test(every_bit_of_a_page_block_is_checked),
        cmocka_unit_test(every_state_byte_is_checked),
        cmocka_unit_test(a_mark_is_right_only_at_a_free_granule),
        cmocka_unit_test(the_counters_are_checked),
        cmocka_unit_test(what_is_reported_is_checked),
        cmocka_unit_test(every_bit_of_the_sets_is_checked),
        cmocka_unit_test(memory_in_no_block_and_not_free_is_a_leak),
        cmocka_unit_test(where_lists_begin_and_end_is_checked),
        cmocka_unit_test(every_bit_of_a_listed_block_is_checked),
        cmocka_unit_test(a_block_that_is_in_no_list_any_more_is_a_leak),
    };
    build();
    build_lists();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
