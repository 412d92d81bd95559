/* What the hook flush is told: global leaves, tables that come and go, break-before-make */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_EPT
#define MM_PAGETABLE_SV39
#define MM_PAGETABLE_SV48
#define MM_PAGETABLE_AARCH64_S1
#include "pagetable_test.h"

#define VA     ((mm_va_t)5 << 30)
#define GLOBAL MM_PAGETABLE_GLOBAL

static struct space s;
static bool there_at_flush;
static unsigned pages_at_flush; /* of the first sixteen */

static void see_entry(void *ctx, const struct mm_pagetable_flush *flush)
{
    struct mm_pagetable_entry entry;
    there_at_flush = mm_pagetable_query(&s.pt, VA, &entry) == MM_OK;
    pages_at_flush = 0;
    for (unsigned i = 0; i < 16; i++)
        pages_at_flush += mm_pagetable_query(&s.pt, VA + i * PAGE, &entry) == MM_OK;
    log_flush(ctx, flush);
}

static void begin(enum mm_pagetable_id id)
{
    space_begin(&s, ram_make(), mm_pagetable_format_of(id));
    s.hooks.flush = see_entry;
    space_make(&s);
}

static enum mm_status protect(mm_va_t va, uint64_t bytes, uint32_t attr)
{
    return mm_pagetable_protect(&s.pt, va, bytes, attr, MM_PAGETABLE_PERMS, NULL);
}

static void global_leaves_are_told(void **state)
{
    static const enum mm_pagetable_id ids[] = {MM_PAGETABLE_ID_X86_64, MM_PAGETABLE_ID_SV39,
                                               MM_PAGETABLE_ID_AARCH64_S1};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        begin(ids[i]);
        assert_int_equal(map(&s, VA, 0x200000, 4 * PAGE, RW), MM_OK);
        assert_int_equal(map(&s, VA + 4 * PAGE, 0x204000, 4 * PAGE, RW | GLOBAL), MM_OK);
        assert_int_equal(protect(VA, 4 * PAGE, RO), MM_OK);
        assert_false(s.last.global);
        assert_int_equal(protect(VA, 8 * PAGE, RX), MM_OK);
        assert_true(s.last.global); /* they were */
        assert_int_equal(protect(VA, 8 * PAGE, RO), MM_OK);
        assert_false(s.last.global); /* and are not now */
        assert_int_equal(map(&s, VA + 8 * PAGE, 0x208000, PAGE, RO | GLOBAL), MM_OK);
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 7 * PAGE, PAGE, NULL), MM_OK);
        assert_false(s.last.global);
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 8 * PAGE, PAGE, NULL), MM_OK);
        assert_true(s.last.global);
        space_end(&s);
    }
}

/* sfence.vma with an ASID does not order accesses to global mappings (privileged 10.2.1). */
static void riscv_is_told_of_new_global_leaves(void **state)
{
    struct mm_pagetable_cursor c;

    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW | GLOBAL), MM_OK);
    assert_true(s.last.filled_only && s.last.global);
    assert_int_equal(map(&s, VA + PAGE, 0x1000, PAGE, RW), MM_OK);
    assert_true(s.last.filled_only && !s.last.global);
    assert_int_equal(map(&s, VA + 2 * MIB, 2 * MIB, 4 * MIB + PAGE, RW | GLOBAL), MM_OK);
    assert_true(s.last.filled_only && s.last.global);
    assert_int_equal(protect(VA + PAGE, PAGE, RO | GLOBAL), MM_OK);
    assert_true(s.last.global);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, 16 * PAGE, NULL), MM_OK);
    assert_int_equal(mm_pagetable_cursor_map_at(&c, VA + 9 * PAGE, 0x1000, RW), MM_OK);
    mm_pagetable_cursor_end(&c);
    assert_true(s.last.filled_only && !s.last.global);
    space_end(&s);
}

/* A cursor goes on telling of them when pages need no further note: beyond the threshold. */
static void riscv_is_told_of_global_leaves_among_many(void **state)
{
    struct mm_pagetable_cursor c;

    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, 256 * PAGE, NULL), MM_OK);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(
            mm_pagetable_cursor_map_at(&c, VA + i * PAGE, 0x1000, i == 190 ? RW | GLOBAL : RW),
            MM_OK);
    mm_pagetable_cursor_end(&c);
    assert_true(s.last.all && s.last.global);
    space_end(&s);
}

static void a_table_dropped_unseen_may_have_held_them(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    s.hooks.release = NULL;
    assert_int_equal(map(&s, VA, 0x1000, 2 * MIB, RW), MM_OK);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 2 * MIB, NULL), MM_OK);
    assert_true(s.last.global);
    space_end(&s);
    begin(MM_PAGETABLE_ID_EPT);
    s.hooks.release = NULL;
    assert_int_equal(map(&s, VA, 0x1000, 2 * MIB, RW), MM_OK);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 2 * MIB, NULL), MM_OK);
    assert_false(s.last.global); /* there are none */
    space_end(&s);
}

/* RISC-V privileged, SFENCE.VMA: with an address it orders leaf entries alone. */
static void riscv_is_told_of_tables_that_come(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    assert_true(s.last.filled_only && s.last.tables_unlink);
    assert_int_equal(map(&s, VA + PAGE, 0x2000, PAGE, RW), MM_OK);
    assert_true(s.last.filled_only && !s.last.tables_unlink);
    assert_int_equal(map(&s, VA + 2 * MIB, 0x200000, 2 * MIB, RW), MM_OK);
    assert_true(s.last.filled_only && !s.last.tables_unlink);
    assert_int_equal(mm_pagetable_split(&s.pt, VA + 2 * MIB, 0, NULL), MM_OK);
    assert_true(!s.last.filled_only && s.last.tables_unlink);
    space_end(&s);
}

/* Arm ARM D8.16.1: a global entry must not meet one that is not. */
static void aarch64_breaks_before_a_page_gets_global(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(protect(VA, PAGE, RO), MM_OK);
    assert_true(there_at_flush);
    assert_int_equal(protect(VA, PAGE, RO | GLOBAL), MM_OK);
    assert_false(there_at_flush);
    assert_int_equal(entry_at(&s, VA).attr & MM_PAGETABLE_PERMS, RO | GLOBAL);
    assert_int_equal(protect(VA, PAGE, RX | GLOBAL), MM_OK);
    assert_true(there_at_flush);
    space_end(&s);
}

/* Arm ARM D8.7.1: the entries of a group always agree. */
static void aarch64_breaks_a_group_whole(void **state)
{
    const uint32_t type = MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE);
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_AARCH64_S1));
    s.hooks.flush = see_entry;
    s.config.flags |= MM_PAGETABLE_CONTIGUOUS;
    space_make(&s);
    assert_int_equal(map(&s, VA, 16 * PAGE, 32 * PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA, 32 * PAGE, type, MM_PAGETABLE_TYPES, NULL),
                     MM_OK);
    assert_int_equal(s.flushes, 2);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA, 16 * PAGE, 0, MM_PAGETABLE_TYPES, NULL),
                     MM_OK);
    assert_int_equal(pages_at_flush, 0);
    assert_int_equal(s.last_ranges[0].bytes, 16 * PAGE);
    for (unsigned i = 0; i < 32; i++) {
        struct mm_pagetable_entry entry = entry_at(&s, VA + i * PAGE);
        assert_int_equal(entry.pa, (16 + i) * PAGE);
        assert_int_equal(entry.attr & MM_PAGETABLE_TYPES, i < 16 ? 0 : type);
        assert_true((entry.attr & MM_PAGETABLE_CONTIG) != 0);
    }
    space_end(&s);
}

/* Once a call has flushed by itself, nothing is left for the end. */
static void what_was_flushed_is_not_flushed_again(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1);
    assert_int_equal(map(&s, VA, 2 * MIB, 2 * MIB, RW), MM_OK);
    assert_int_equal(s.flushes, 0);
    assert_int_equal(mm_pagetable_split(&s.pt, VA, 0, NULL), MM_OK);
    assert_int_equal(s.flushes, 1);
    assert_false(there_at_flush);
    space_end(&s);
}

/* The usual step of a cursor is a short one; the second step is usual. */
static void a_cursor_looks_at_what_each_step_says(void **state)
{
    struct mm_pagetable_cursor c;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, 8 * PAGE, NULL), MM_OK);
    assert_int_equal(mm_pagetable_cursor_map(&c, 0x1000, RW), MM_OK);
    assert_int_equal(mm_pagetable_cursor_map(&c, 0x2001, RW), MM_ERR_ALIGN);
    assert_int_equal(mm_pagetable_cursor_map(&c, (mm_pa_t)1 << 60, RW), MM_ERR_INVALID);
    assert_int_equal(mm_pagetable_cursor_map(&c, 0x2000, RX), MM_OK);
    mm_pagetable_cursor_end(&c);
    assert_int_equal(entry_at(&s, VA).attr & MM_PAGETABLE_PERMS, RW);
    assert_int_equal(entry_at(&s, VA + PAGE).attr & MM_PAGETABLE_PERMS, RX);
    assert_true(nothing_at(&s, VA + 2 * PAGE));
    space_end(&s);
}

/* What a batch remembers of the last leaf holds for equal ones alone. */
static void a_batch_tells_kinds_of_pages_apart(void **state)
{
    struct mm_pagetable_batch batch;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
    assert_int_equal(mm_pagetable_map(&s.pt, VA, 0x1000, PAGE, RW, 0, &batch), MM_OK);
    assert_int_equal(mm_pagetable_map(&s.pt, VA + PAGE, 0x8000, PAGE, RX, 0, &batch), MM_OK);
    assert_int_equal(entry_at(&s, VA).attr & MM_PAGETABLE_PERMS, RW);
    assert_int_equal(entry_at(&s, VA + PAGE).attr & MM_PAGETABLE_PERMS, RX);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 2 * PAGE, &batch), MM_OK);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.release_count, 2);
    assert_int_equal(s.released[0].attr & MM_PAGETABLE_PERMS, RW);
    assert_int_equal(s.released[1].attr & MM_PAGETABLE_PERMS, RX);
    space_end(&s);
}

static void each_place_that_changed_is_a_range_until_there_are_too_many(void **state)
{
    struct mm_pagetable_batch batch;
    (void)state;
    for (unsigned n = 1; n <= MM_PAGETABLE_BATCH_RANGES + 1; n++) {
        begin(MM_PAGETABLE_ID_X86_64);
        assert_int_equal(map(&s, VA, 0x200000, 2 * MIB, RW), MM_OK);
        assert_int_equal(mm_pagetable_split(&s.pt, VA, 0, NULL), MM_OK);
        mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 2 * i * PAGE, PAGE, &batch), MM_OK);
        mm_pagetable_batch_finish(&batch);
        assert_int_equal(s.last.all, n > MM_PAGETABLE_BATCH_RANGES);
        assert_int_equal(s.last.count, s.last.all ? 0 : n);
        for (unsigned i = 0; i < s.last.count; i++)
            assert_true(s.last_ranges[i].va == VA + 2 * i * PAGE && s.last_ranges[i].bytes == PAGE);
        space_end(&s);
    }
}

/* Without a hook release equal leaves take the short way. */
static void a_cursor_tells_kinds_of_leaves_apart(void **state)
{
    struct mm_pagetable_cursor c;
    struct mm_pagetable_batch batch;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    s.hooks.release = NULL;
    assert_int_equal(map(&s, VA, 0x1000, 4 * PAGE, RW), MM_OK);
    assert_int_equal(map(&s, VA + 4 * PAGE, 0x8000, 2 * PAGE, RW | GLOBAL), MM_OK);
    assert_int_equal(map(&s, VA + 7 * PAGE, 0x9000, PAGE, RW), MM_OK);
    mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, 4 * MIB, &batch), MM_OK);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
    mm_pagetable_batch_finish(&batch);
    assert_false(s.last.global);
    assert_int_equal(s.last_ranges[0].bytes, 4 * PAGE);
    for (unsigned i = 4; i < 6; i++) {
        assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
        mm_pagetable_batch_finish(&batch);
        assert_true(s.last.global);
    }
    assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_ERR_NOENT);
    assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.last_ranges[0].va, VA + 7 * PAGE);
    mm_pagetable_cursor_end(&c);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* AArch64 flushes before a page comes where others went: what goes later is told by itself, however
 * much was to be flushed before. */
static void a_cursor_tells_what_goes_after_a_flush(void **state)
{
    struct mm_pagetable_cursor c;
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1);
    s.hooks.release = NULL;
    assert_int_equal(map(&s, VA, 0x200000, 64 * PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, 64 * PAGE, NULL), MM_OK);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(mm_pagetable_cursor_unmap_at(&c, VA + i * PAGE), MM_OK);
    assert_int_equal(mm_pagetable_cursor_map_at(&c, VA, 0x1000, RW), MM_OK);
    assert_int_equal(s.flushes, 1);
    assert_true(s.last.all);
    assert_int_equal(mm_pagetable_cursor_unmap_at(&c, VA + 50 * PAGE), MM_OK);
    mm_pagetable_cursor_end(&c);
    assert_int_equal(s.flushes, 2);
    assert_int_equal(s.last.count, 1);
    assert_int_equal(s.last_ranges[0].va, VA + 50 * PAGE);
    assert_int_equal(s.last_ranges[0].bytes, PAGE);
    space_end(&s);
}

/* It may stand ahead of its tables, and go back. */
static void a_cursor_that_jumps_frees_what_it_empties(void **state)
{
    static const uint64_t at[] = {0, 3 * MIB, GIB, 600 * GIB, 2 * GIB, 5 * PAGE, 700 * GIB};
    const unsigned count = sizeof at / sizeof at[0];
    (void)state;
    for (unsigned id = 0; id < 2; id++)
        for (unsigned kept = 0; kept < 2; kept++) {
            struct mm_pagetable_cursor c;
            unsigned n = id == 0 ? count : 3; /* Sv39 has 256 GiB */
            begin(id == 0 ? MM_PAGETABLE_ID_X86_64 : MM_PAGETABLE_ID_SV39);
            s.hooks.release = NULL;
            if (kept)
                assert_int_equal(map(&s, VA + 9 * PAGE, 0x1000, PAGE, RW), MM_OK);
            size_t tables = s.ram->in_use;
            assert_int_equal(
                mm_pagetable_cursor_begin(&c, &s.pt, VA, id == 0 ? 800 * GIB : 4 * GIB, NULL),
                MM_OK);
            for (unsigned round = 0; round < 3; round++) {
                for (unsigned i = 0; i < n; i++) {
                    assert_int_equal(mm_pagetable_cursor_seek(&c, VA + at[i]), MM_OK);
                    assert_int_equal(mm_pagetable_cursor_map(&c, 0x2000, RW), MM_OK);
                }
                for (unsigned i = n; i-- > 0;) {
                    assert_int_equal(mm_pagetable_cursor_seek(&c, VA + at[i]), MM_OK);
                    assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
                }
            }
            mm_pagetable_cursor_end(&c);
            assert_int_equal(s.ram->in_use, tables);
            assert_int_equal(mm_pagetable_check(&s.pt, NULL, 0, NULL), MM_OK);
            space_end(&s);
        }
}

/* The tables above go too; the next step is near, but makes them anew. */
static void a_cursor_leaves_what_it_freed(void **state)
{
    struct mm_pagetable_cursor c;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, 8 * GIB, NULL), MM_OK);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(mm_pagetable_cursor_seek(&c, VA + i * GIB), MM_OK);
        assert_int_equal(mm_pagetable_cursor_map(&c, 0x2000, RW), MM_OK);
        assert_int_equal(mm_pagetable_translate(&s.pt, VA + i * GIB), 0x2000);
        assert_int_equal(mm_pagetable_cursor_seek(&c, VA + i * GIB), MM_OK);
        assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
    }
    mm_pagetable_cursor_end(&c);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* Two bits of a RISC-V entry count to two; more are no claim. */
static void a_cursor_knows_when_nothing_is_counted(void **state)
{
    struct mm_pagetable_cursor c;
    (void)state;
    begin(MM_PAGETABLE_ID_SV48);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(map(&s, VA + i * 2 * MIB, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA, GIB, NULL), MM_OK);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(mm_pagetable_cursor_seek(&c, VA + i * 2 * MIB), MM_OK);
        assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
        for (unsigned k = i + 1; k < 6; k++)
            assert_int_equal(mm_pagetable_translate(&s.pt, VA + k * 2 * MIB), 0x1000);
    }
    mm_pagetable_cursor_end(&c);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* A table right below the root has no count: it is looked at, wherever its last entry is. */
static void a_table_stays_while_any_entry_is_left(void **state)
{
    static const unsigned first[] = {0, 3, 4, 255, 509, 511};
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    for (unsigned i = 0; i < sizeof first / sizeof first[0]; i++)
        for (unsigned other = 0; other < 512; other++) {
            if (other == first[i])
                continue;
            assert_int_equal(map(&s, VA + first[i] * 2 * MIB, 0, 2 * MIB, RW), MM_OK);
            assert_int_equal(map(&s, VA + other * 2 * MIB, 2 * MIB, 2 * MIB, RW), MM_OK);
            assert_int_equal(mm_pagetable_unmap(&s.pt, VA + first[i] * 2 * MIB, 2 * MIB, NULL),
                             MM_OK);
            assert_int_equal(mm_pagetable_translate(&s.pt, VA + other * 2 * MIB), 2 * MIB);
            assert_int_equal(mm_pagetable_unmap(&s.pt, VA + other * 2 * MIB, 2 * MIB, NULL), MM_OK);
            assert_int_equal(s.ram->in_use, 1);
        }
    space_end(&s);
}

/* A change inside a group makes single pages of it. */
static void a_page_of_a_group_is_protected_alone(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_AARCH64_S1));
    s.config.flags |= MM_PAGETABLE_CONTIGUOUS;
    space_make(&s);
    assert_int_equal(map(&s, VA, 16 * PAGE, 16 * PAGE, RW), MM_OK);
    assert_true((entry_at(&s, VA).attr & MM_PAGETABLE_CONTIG) != 0);
    assert_int_equal(protect(VA + 3 * PAGE, PAGE, RO), MM_OK);
    for (unsigned i = 0; i < 16; i++) {
        struct mm_pagetable_entry entry = entry_at(&s, VA + i * PAGE);
        assert_int_equal(entry.attr & MM_PAGETABLE_CONTIG, 0);
        assert_int_equal(entry.attr & MM_PAGETABLE_PERMS, i == 3 ? RO : RW);
        assert_int_equal(entry.pa, (16 + i) * PAGE);
    }
    space_end(&s);
}

static unsigned told;
static void count_told(void *ctx, const struct mm_pagetable_entry *entry)
{
    (void)ctx;
    assert_true(entry->va >= VA + 2 * PAGE && entry->va < VA + 5 * PAGE);
    told++;
}

static void of_a_group_a_harvest_tells_the_pages_asked_for(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_AARCH64_S1));
    s.config.flags |= MM_PAGETABLE_CONTIGUOUS;
    space_make(&s);
    assert_int_equal(map(&s, VA, 16 * PAGE, 16 * PAGE, RW), MM_OK);
    told = 0;
    assert_int_equal(mm_pagetable_harvest(&s.pt, VA + 2 * PAGE, 3 * PAGE, MM_PAGETABLE_DIRTY, 0,
                                          count_told, NULL, NULL),
                     MM_OK);
    assert_int_equal(told, 3);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(global_leaves_are_told),
        cmocka_unit_test(riscv_is_told_of_new_global_leaves),
        cmocka_unit_test(riscv_is_told_of_global_leaves_among_many),
        cmocka_unit_test(a_table_dropped_unseen_may_have_held_them),
        cmocka_unit_test(riscv_is_told_of_tables_that_come),
        cmocka_unit_test(aarch64_breaks_before_a_page_gets_global),
        cmocka_unit_test(aarch64_breaks_a_group_whole),
        cmocka_unit_test(what_was_flushed_is_not_flushed_again),
        cmocka_unit_test(a_cursor_looks_at_what_each_step_says),
        cmocka_unit_test(a_batch_tells_kinds_of_pages_apart),
        cmocka_unit_test(each_place_that_changed_is_a_range_until_there_are_too_many),
        cmocka_unit_test(a_cursor_tells_kinds_of_leaves_apart),
        cmocka_unit_test(a_cursor_tells_what_goes_after_a_flush),
        cmocka_unit_test(a_cursor_that_jumps_frees_what_it_empties),
        cmocka_unit_test(a_cursor_leaves_what_it_freed),
        cmocka_unit_test(a_cursor_knows_when_nothing_is_counted),
        cmocka_unit_test(a_table_stays_while_any_entry_is_left),
        cmocka_unit_test(a_page_of_a_group_is_protected_alone),
        cmocka_unit_test(of_a_group_a_harvest_tells_the_pages_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
