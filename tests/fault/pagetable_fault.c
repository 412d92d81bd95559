/* mm_pagetable: the table source fails at its N-th call, for every N: an error, and every byte of
 * every table, the number of tables, the flushes, the frames are as before. */
#include "pagetable_test.h"

static struct space s, to;
static enum mm_pagetable_id format_id;
#define BASE ((mm_va_t)0x40000000)

/* Does the call fail at each of its allocations, with nothing changed, and then succeed? Returns
 * how many allocations it makes. */
static uint64_t fails_cleanly(enum mm_status (*call)(void))
{
    for (uint64_t n = 1;; n++) {
        uint64_t sum = ram_sum(s.ram), in_use = s.ram->in_use;
        enum mm_status status;
        assert_in_range(n, 1, 5000);
        s.release_count = s.flushes = s.referenced_pages = to.referenced_pages = 0;
        s.ram->fail = (struct mm_test_fail){0, n};
        status = call();
        if (s.ram->fail.calls < n) {
            assert_int_equal(status, MM_OK);
            s.ram->fail = (struct mm_test_fail){0, 0};
            space_check(&s);
            return n - 1;
        }
        s.ram->fail = (struct mm_test_fail){0, 0};
        assert_int_equal(status, MM_ERR_NOMEM);
        assert_int_equal(s.ram->in_use, in_use);
        assert_int_equal(s.ram->errors, 0);
        assert_true(ram_sum(s.ram) == sum);
        assert_int_equal(s.release_count, 0);
        assert_int_equal(s.flushes, 0);
        assert_int_equal(s.referenced_pages + to.referenced_pages, 0);
    }
}

static enum mm_status map_pages(void)
{
    return mm_pagetable_map(&s.pt, BASE + 4096, 0x200000, 8 * MIB, RW, MM_PAGETABLE_LEAF_MAX(0),
                            NULL);
}

static enum mm_status map_over(void)
{
    return mm_pagetable_map(&s.pt, BASE + 3 * PAGE, 0x1000, 10 * MIB, RO, MM_PAGETABLE_REPLACE,
                            NULL);
}

static enum mm_status map_list(void)
{
    static mm_pa_t frames[700];
    for (unsigned i = 0; i < 700; i++)
        frames[i] = (mm_pa_t)(700 - i) * PAGE;
    return mm_pagetable_map_frames(&s.pt, BASE + 16 * MIB - 8 * PAGE, frames, 700, RW, 0, NULL);
}

static enum mm_status unmap_inside(void)
{
    return mm_pagetable_unmap(&s.pt, BASE + 513 * PAGE, 600 * PAGE, NULL);
}

static enum mm_status protect_inside(void)
{
    return mm_pagetable_protect(&s.pt, BASE + 5 * PAGE, PAGE, RO, MM_PAGETABLE_PERMS, NULL);
}

static enum mm_status swap_inside(void)
{
    return mm_pagetable_swap(&s.pt, BASE + 5 * PAGE, 77, NULL);
}

static enum mm_status swap_nowhere(void)
{
    return mm_pagetable_swap(&s.pt, BASE + 500 * MIB, 78, NULL);
}

static enum mm_status split_to_pages(void)
{
    return mm_pagetable_split(&s.pt, BASE, 0, NULL);
}

static enum mm_status share_inside(void)
{
    return mm_pagetable_share_cow(&to.pt, &s.pt, BASE + PAGE, 5 * MIB, NULL);
}

static enum mm_status lend_half(void)
{
    unsigned root = s.pt.format->levels - 1;
    uint64_t size = mm_pagetable_size(&s.pt, root);
    return mm_pagetable_lend(&to.pt, &s.pt, 8 * size, 4 * size);
}

static enum mm_status step_cursor(void)
{
    struct mm_pagetable_cursor cursor;
    enum mm_status status =
        mm_pagetable_cursor_begin(&cursor, &s.pt, BASE + 300 * MIB, 2 * PAGE, NULL);
    assert_int_equal(status, MM_OK);
    status = mm_pagetable_cursor_map(&cursor, 0x1000, RW);
    mm_pagetable_cursor_end(&cursor);
    return status;
}

/* The same by the call for many. */
static enum mm_status step_bulk(void)
{
    static const mm_va_t va[] = {BASE + 400 * MIB};
    static const mm_pa_t pa[] = {0x3000};
    struct mm_pagetable_cursor cursor;
    enum mm_status status = mm_pagetable_cursor_begin(&cursor, &s.pt, BASE, GIB, NULL);
    assert_int_equal(status, MM_OK);
    size_t done = mm_pagetable_cursor_map_bulk(&cursor, va, pa, 1, RW, &status);
    assert_int_equal(done, status == MM_OK);
    mm_pagetable_cursor_end(&cursor);
    return status;
}

static void begin(void)
{
    space_simple(&s, mm_pagetable_format_of(format_id));
}

/* A huge leaf that the calls cut: of the largest size up to 1 GiB, of 2 MiB, or of pages. */
static void begin_with_leaf(uint64_t bytes)
{
    begin();
    assert_int_equal(map(&s, BASE, 0x40000000, bytes, RW), MM_OK);
}

static void end(void)
{
    space_end(&s);
}

static void one_format(enum mm_pagetable_id id)
{
    format_id = id;
    begin();
    assert_true(fails_cleanly(map_pages) >= (id == MM_PAGETABLE_ID_SV32 ? 3 : 5));
    assert_true(fails_cleanly(map_list) >= 1);
    end();
    begin_with_leaf(GIB);
    assert_true(fails_cleanly(map_over) >= 2);
    end();
    begin_with_leaf(GIB);
    assert_int_equal(fails_cleanly(unmap_inside), id == MM_PAGETABLE_ID_SV32 ? 2 : 3);
    end();
    begin_with_leaf(GIB);
    assert_int_equal(fails_cleanly(protect_inside), id == MM_PAGETABLE_ID_SV32 ? 1 : 2);
    end();
    begin_with_leaf(GIB);
    assert_true(fails_cleanly(swap_inside) >= 1);
    assert_true(fails_cleanly(swap_nowhere) >= 1);
    end();
    begin_with_leaf(GIB);
    assert_true(fails_cleanly(split_to_pages) >= 1);
    end();
}

static void changes(void **state)
{
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        one_format((enum mm_pagetable_id)id);
}

static void begin_two(void)
{
    begin_with_leaf(GIB);
    space_begin(&to, s.ram, mm_pagetable_format_of(format_id));
    to.config.flags = s.config.flags;
    space_make(&to);
}

static void end_two(void)
{
    space_check(&to);
    assert_int_equal(mm_pagetable_destroy(&to.pt, true), MM_OK);
    end();
}

static void sharing(void **state)
{
    (void)state;
    format_id = MM_PAGETABLE_ID_SV39;
    begin_two();
    assert_true(fails_cleanly(share_inside) >= 6);
    assert_int_equal(fails_cleanly(lend_half), 4);
    end_two();
    format_id = MM_PAGETABLE_ID_X86_64;
    begin_two();
    assert_true(fails_cleanly(share_inside) >= 6);
    end_two();
}

static void a_cursor(void **state)
{
    (void)state;
    format_id = MM_PAGETABLE_ID_X86_64_LA57;
    begin();
    assert_int_equal(fails_cleanly(step_cursor), 4);
    end();
    begin();
    assert_int_equal(fails_cleanly(step_bulk), 4);
    end();
}

/* Of many pages those are there whose tables could be had, in the order of the list. */
static void many_pages_up_to_the_first_failure(void **state)
{
    static mm_va_t va[20];
    static mm_pa_t pa[20];
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        va[i] = BASE + (i * 7 % 20) * 2 * MIB; /* a table of leaves each */
        pa[i] = i * PAGE;
    }
    for (unsigned fails = 1; fails <= 20 + 2; fails++) {
        struct mm_pagetable_cursor cursor;
        enum mm_status status;
        format_id = MM_PAGETABLE_ID_SV48;
        begin();
        assert_int_equal(mm_pagetable_cursor_begin(&cursor, &s.pt, BASE, GIB, NULL), MM_OK);
        s.ram->fail = (struct mm_test_fail){0, fails};
        size_t done = mm_pagetable_cursor_map_bulk(&cursor, va, pa, 20, RW, &status);
        s.ram->fail = (struct mm_test_fail){0, 0};
        mm_pagetable_cursor_end(&cursor);
        assert_int_equal(status, MM_ERR_NOMEM);
        assert_int_equal(done, fails < 4 ? 0 : fails - 3); /* the first needs three */
        assert_int_equal(s.ram->in_use, done == 0 ? 1 : 3 + done);
        for (size_t i = 0; i < 20; i++)
            assert_int_equal(mm_pagetable_translate(&s.pt, va[i]), i < done ? pa[i] : MM_PA_NONE);
        end();
    }
}

static void the_root(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV48));
    s.ram->fail = (struct mm_test_fail){0, 1};
    assert_int_equal(mm_pagetable_init(&s.pt, &s.config), MM_ERR_NOMEM);
    assert_int_equal(s.ram->in_use, 0);
}

static mm_pa_t bad_table;
static unsigned bad_frees;

static mm_pa_t alloc_bad(void *ctx, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    return bad_table;
}

static void free_bad(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    bad_frees += table == bad_table;
}

static void tables_at_impossible_places_are_given_back(void **state)
{
    (void)state;
    space_simple(&s, mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.hooks.alloc = alloc_bad;
    s.hooks.free = free_bad;
    bad_table = 0x1234;
    assert_int_equal(map_pages(), MM_ERR_NOMEM);
    bad_table = (mm_pa_t)1 << 52;
    assert_int_equal(map_pages(), MM_ERR_NOMEM);
    assert_int_equal(bad_frees, 2);
    s.hooks.alloc = ram_alloc;
    s.hooks.free = ram_free;
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes),  cmocka_unit_test(sharing),
        cmocka_unit_test(a_cursor), cmocka_unit_test(many_pages_up_to_the_first_failure),
        cmocka_unit_test(the_root), cmocka_unit_test(tables_at_impossible_places_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
