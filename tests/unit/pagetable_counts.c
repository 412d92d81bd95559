/* mm_pagetable: numbers of entries that stand beside the tables (MM_PAGETABLE_COUNT). */
#define COUNTED
#include "pagetable_test.h"

#define VA       ((mm_va_t)0x40000000)
#define NO_CLAIM 0xffffu

static struct space s, to;

static void begin(enum mm_pagetable_id id)
{
    space_simple(&s, mm_pagetable_format_of(id));
}

/* The number beside the table of this level that leads to `va`. */
static uint16_t *beside(mm_va_t va, unsigned level)
{
    mm_pa_t table = s.pt.root;

    for (unsigned l = mmi_pt_root_level(&s.pt); l > level; l--) {
        uint64_t e = mmi_pt_load(&s.pt, ram_at(s.ram, table), mmi_pt_index(&s.pt, va, l));
        assert_true(mmi_pt_is_table(&s.pt, e, l));
        table = mmi_pt_table_pa(&s.pt, e);
    }
    return count_beside(table);
}

static void unmap(mm_va_t va, uint64_t bytes)
{
    assert_int_equal(mm_pagetable_unmap(&s.pt, va, bytes, NULL), MM_OK);
}

static void pages_come_and_go_one_by_one(void **state)
{
    static const unsigned page[] = {0, 77, 300, 511};

    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(map(&s, VA + page[i] * PAGE, 0x1000, PAGE, RW), MM_OK);
        assert_int_equal(*beside(VA, 0), i + 1);
    }
    assert_int_equal(*beside(VA, 1), 1);
    assert_int_equal(map(&s, VA + 2 * MIB, 0x400000, 4 * MIB, RW), MM_OK);
    assert_int_equal(*beside(VA, 1), 3);
    for (unsigned i = 4; i-- > 1;) {
        unmap(VA + page[i] * PAGE, PAGE);
        assert_int_equal(*beside(VA, 0), i);
    }
    unmap(VA, PAGE);
    assert_int_equal(*beside(VA, 1), 2);
    assert_int_equal(s.ram->in_use, 2);
    unmap(VA + 2 * MIB, 4 * MIB);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* More than fit into a note of AArch64's eight bits. */
static void a_table_may_be_full(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1);
    assert_int_equal(map(&s, VA, 0x200000, 2 * MIB, RW), MM_OK);
    assert_int_equal(mm_pagetable_split(&s.pt, VA, 0, NULL), MM_OK);
    assert_int_equal(*beside(VA, 0), 512);
    unmap(VA + 5 * PAGE, 212 * PAGE);
    assert_int_equal(*beside(VA, 0), 300);
    unmap(VA, 5 * PAGE);
    unmap(VA + 217 * PAGE, 295 * PAGE);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* Sv32's tables of leaves hang from the root. */
static void the_roots_tables_are_counted(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV32);
    assert_int_equal(map(&s, VA, 0x1000, 3 * PAGE, RW), MM_OK);
    assert_int_equal(*beside(VA, 0), 3);
    unmap(VA + PAGE, PAGE);
    assert_int_equal(*beside(VA, 0), 2);
    space_end(&s);
}

/* A number without a claim is found out when something goes. */
static void what_is_not_known_is_counted(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    s.pt.flags |= MM_PAGETABLE_KEEP_EMPTY;
    assert_int_equal(map(&s, VA, 0x1000, 6 * PAGE, RW), MM_OK);
    *beside(VA, 0) = 4711; /* nobody looks at it */
    assert_int_equal(map(&s, VA + 6 * PAGE, 0x7000, 2 * PAGE, RW), MM_OK);
    unmap(VA + 7 * PAGE, PAGE);
    assert_int_equal(mm_pagetable_check(&s.pt, NULL, 0, NULL), MM_OK);
    assert_int_equal(*beside(VA, 0), 4711);
    assert_int_equal(*beside(VA, 1), NO_CLAIM);
    s.pt.flags &= ~(uint32_t)MM_PAGETABLE_KEEP_EMPTY;
    unmap(VA + PAGE, PAGE);
    assert_int_equal(*beside(VA, 0), 6);
    assert_int_equal(*beside(VA, 1), NO_CLAIM);
    unmap(VA, PAGE);
    unmap(VA + 2 * PAGE, 5 * PAGE);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

static void lent_tables_are_not_counted(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    space_begin(&to, s.ram, mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
    space_make(&to);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, VA, GIB), MM_OK);
    assert_int_equal(*beside(VA, 1), NO_CLAIM);
    assert_int_equal(map(&s, VA + 2 * MIB, 0x1000, PAGE, RW), MM_OK);
    unmap(VA, PAGE);
    unmap(VA + 2 * MIB, PAGE);
    assert_int_equal(*beside(VA, 1), NO_CLAIM);
    assert_int_equal(s.ram->in_use, 3);
    space_check(&to);
    assert_int_equal(mm_pagetable_destroy(&to.pt, true), MM_OK);
    space_end(&s);
}

static void the_check_finds_wrong_numbers(void **state)
{
    struct mm_pagetable_flaw flaw;

    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, VA, 0x1000, 3 * PAGE, RW), MM_OK);
    for (unsigned level = 0; level < 2; level++)
        for (int by = -1; by <= 1; by += 2) {
            *beside(VA, level) += (uint16_t)by;
            assert_int_equal(mm_pagetable_check(&s.pt, NULL, 0, &flaw), MM_ERR_CORRUPT);
            assert_string_equal(flaw.what, "note of a table");
            *beside(VA, level) -= (uint16_t)by;
        }
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_come_and_go_one_by_one),
        cmocka_unit_test(a_table_may_be_full),
        cmocka_unit_test(the_roots_tables_are_counted),
        cmocka_unit_test(what_is_not_known_is_counted),
        cmocka_unit_test(lent_tables_are_not_counted),
        cmocka_unit_test(the_check_finds_wrong_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
