/* mm_pagetable: mapping, leaf sizes, unmapping, protection, refusals. Format: x86_64. */
#define MM_PAGETABLE_X86_64
#include "pagetable_test.h"

static struct space s;
#define VA ((mm_va_t)0xffff800040000000)

static void map_uses_the_largest_leaf_that_fits(void **state)
{
    (void)state;
    space_simple(&s, NULL);
    assert_int_equal(map(&s, VA, 0x40000000, 2 * GIB + 4 * MIB + 3 * PAGE, RW), MM_OK);
    struct mm_pagetable_stats stats = stats_of(&s);
    assert_int_equal(stats.leaves[2], 2);
    assert_int_equal(stats.leaves[1], 2);
    assert_int_equal(stats.leaves[0], 3);
    assert_int_equal(stats.tables[3], 1);
    assert_int_equal(stats.tables[2], 1);
    assert_int_equal(stats.tables[1], 1);
    assert_int_equal(stats.tables[0], 1);
    assert_int_equal(stats.mapped_bytes, 2 * GIB + 4 * MIB + 3 * PAGE);
    assert_int_equal(mm_pagetable_translate(&s.pt, VA + 2 * GIB + 4 * MIB + 3 * PAGE - 1),
                     0x40000000 + 2 * GIB + 4 * MIB + 3 * PAGE - 1);
    assert_int_equal(mm_pagetable_translate(&s.pt, VA + 2 * GIB + 4 * MIB + 3 * PAGE), MM_PA_NONE);
    assert_int_equal(mm_pagetable_translate(&s.pt, VA - 1), MM_PA_NONE);
    space_end(&s);
}

static void a_partial_unmap_splits_a_leaf(void **state)
{
    (void)state;
    space_simple(&s, NULL);
    assert_int_equal(map(&s, VA, 0x40000000, GIB, RW), MM_OK);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 5 * MIB, PAGE, NULL), MM_OK);
    struct mm_pagetable_stats stats = stats_of(&s);
    assert_int_equal(stats.leaves[2], 0);
    assert_int_equal(stats.leaves[1], 511);
    assert_int_equal(stats.leaves[0], 511);
    assert_true(nothing_at(&s, VA + 5 * MIB));
    assert_int_equal(mm_pagetable_translate(&s.pt, VA + 5 * MIB + PAGE),
                     0x40000000 + 5 * MIB + PAGE);
    assert_int_equal(s.release_count, 1);
    assert_int_equal(s.released[0].pa, 0x40000000 + 5 * MIB);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_uses_the_largest_leaf_that_fits),
        cmocka_unit_test(a_partial_unmap_splits_a_leaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
