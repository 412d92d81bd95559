/* One format in the program: everything about it is a constant. The descriptor lies where nobody
 * may read, and all goes on. What a range call looks at: each table, once for the plan and once for
 * the change. */
#define MM_PAGETABLE_SV48
#define MM_PAGETABLE_WINDOWS
#include "pagetable_test.h"

static struct space s, to;
#define VA ((mm_va_t)5 << 30)

static bool any_run(void *ctx, const struct mm_pagetable_run *run)
{
    ++*(unsigned *)ctx;
    return run->bytes != 0;
}

static void any_entry(void *ctx, const struct mm_pagetable_entry *entry)
{
    (void)ctx;
    (void)entry;
}

static void any_line(void *ctx, const char *line)
{
    *(unsigned *)ctx += line[0] == '0';
}

/* Every kind of change. */
static void change_all(void)
{
    struct mm_pagetable_cursor c;
    assert_int_equal(map(&s, VA, 0x40000000, 4 * MIB + 3 * PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA + PAGE, PAGE, RO, MM_PAGETABLE_PERMS, NULL),
                     MM_OK);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA + PAGE, PAGE, RW, MM_PAGETABLE_PERMS, NULL),
                     MM_OK);
    assert_int_equal(mm_pagetable_collapse(&s.pt, VA, 2 * MIB, NULL), MM_OK);
    assert_int_equal(mm_pagetable_split(&s.pt, VA, 0, NULL), MM_OK);
    assert_int_equal(mm_pagetable_swap(&s.pt, VA + 9 * PAGE, 5, NULL), MM_OK);
    assert_int_equal(mm_pagetable_mark(&s.pt, VA, MM_PAGETABLE_DIRTY), MM_OK);
    assert_int_equal(mm_pagetable_harvest(&s.pt, VA, 4 * MIB, MM_PAGETABLE_DIRTY,
                                          MM_PAGETABLE_DIRTY, any_entry, NULL, NULL),
                     MM_OK);
    assert_int_equal(mm_pagetable_share_cow(&to.pt, &s.pt, VA, 4 * MIB, NULL), MM_OK);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, 512 * GIB, 512 * GIB), MM_OK);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA + 8 * MIB, GIB, NULL), MM_OK);
    assert_int_equal(mm_pagetable_cursor_map(&c, 0x1000, RW), MM_OK);
    assert_int_equal(mm_pagetable_cursor_seek(&c, VA + 8 * MIB), MM_OK);
    assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
    mm_pagetable_cursor_end(&c);
    assert_int_equal(mm_pagetable_sweep(&s.pt, VA, GIB, NULL), MM_ERR_NOENT);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA + PAGE, MIB, NULL), MM_OK);
}

static void ask_all(void)
{
    struct mm_pagetable_access access;
    unsigned runs = 0, lines = 0;
    assert_int_equal(mm_pagetable_translate(&s.pt, VA + 5), 0x40000005);
    mm_pagetable_prefetch(&s.pt, VA);
    mm_pagetable_predict(&s.pt, VA, 0, 0, &access);
    assert_int_equal(access.fault, MM_PAGETABLE_FAULT_NONE);
    assert_int_equal(entry_at(&s, VA).pa, 0x40000000);
    assert_int_equal(mm_pagetable_runs(&s.pt, VA, GIB, any_run, &runs), MM_OK);
    mm_pagetable_dump(&s.pt, any_line, &lines);
    assert_true(runs == 4 && lines == 4);
    assert_int_equal(stats_of(&s).leaves[1], 1);
    assert_int_equal(mm_pagetable_root(&s.pt), (uint64_t)9 << 60 | s.pt.root >> 12);
    assert_int_equal(mm_pagetable_size(&s.pt, 1), 2 * MIB);
}

static void all_about_one_format_is_constant(void **state)
{
    const struct mm_pagetable_format *nowhere =
        mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)state;
    space_simple(&s, NULL);
    space_begin(&to, s.ram, NULL);
    space_make(&to);
    s.pt.format = to.pt.format = nowhere;
    change_all();
    ask_all();
    space_check(&to);
    assert_int_equal(mm_pagetable_destroy(&to.pt, true), MM_OK);
    space_end(&s);
}

/* Opens a call's windows are counted. */
static unsigned long opens(enum mm_status status, unsigned long before)
{
    assert_int_equal(status, MM_OK);
    return windows_opened - before;
}

static void a_range_call_looks_at_each_table_once(void **state)
{
    const uint64_t bytes = 64 * MIB; /* 32 tables of leaves, three above */
    const unsigned tables = 35;
    (void)state;
    space_simple(&s, NULL);
    s.hooks.release = NULL;
    /* a table's memory when it is reserved, and when it is filled; the plan and the change go down
     * to the tables that are there */
    assert_true(
        opens(mm_pagetable_map(&s.pt, VA, 4 * GIB, bytes, RO, MM_PAGETABLE_LEAF_MAX(0), NULL),
              windows_opened) <= 2 * tables + 4);
    assert_true(opens(mm_pagetable_protect(&s.pt, VA, bytes, RW, MM_PAGETABLE_PERMS, NULL),
                      windows_opened) <= tables + 8); /* the ends of the range are looked at */
    assert_true(opens(mm_pagetable_map(&s.pt, VA, 8 * GIB, bytes, RO,
                                       MM_PAGETABLE_LEAF_MAX(0) | MM_PAGETABLE_REPLACE, NULL),
                      windows_opened) <= 2 * tables + 8);
    assert_true(opens(mm_pagetable_harvest(&s.pt, VA, bytes, MM_PAGETABLE_ACCESSED,
                                           MM_PAGETABLE_ACCESSED, NULL, NULL, NULL),
                      windows_opened) <= tables);
    /* unmapped with its tables: each is opened for its link in the chain, and when that is
     * followed */
    assert_true(opens(mm_pagetable_unmap(&s.pt, VA, bytes, NULL), windows_opened) <=
                3 * tables + 8);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* Whatever it grants, also execution alone. */
static void a_large_leaf_is_no_table(void **state)
{
    static const uint32_t grants[] = {RO, RW, MM_PAGETABLE_EXEC, RX, RW | MM_PAGETABLE_EXEC};

    (void)state;
    space_simple(&s, NULL);
    for (size_t i = 0; i < sizeof grants / sizeof grants[0]; i++) {
        assert_int_equal(map(&s, VA, 2 * MIB, 2 * MIB, grants[i]), MM_OK);
        assert_int_equal(mm_pagetable_translate(&s.pt, VA + 0x12345), 2 * MIB + 0x12345);
        assert_int_equal(entry_at(&s, VA).attr & MM_PAGETABLE_PERMS, grants[i]);
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 2 * MIB, NULL), MM_OK);
        assert_int_equal(s.ram->in_use, 1);
    }
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_about_one_format_is_constant),
        cmocka_unit_test(a_range_call_looks_at_each_table_once),
        cmocka_unit_test(a_large_leaf_is_no_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
