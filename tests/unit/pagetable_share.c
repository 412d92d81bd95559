/* mm_pagetable: batches and flushes, sharing, walks, the dump, the check. */
#include "pagetable_test.h"

static struct space s, to;
#define VA  ((mm_va_t)0x40000000)
#define TOP (512 * GIB)

static void begin(enum mm_pagetable_id id)
{
    space_simple(&s, mm_pagetable_format_of(id));
}

/* A second table of the same kind in the same memory. */
static void begin_two(enum mm_pagetable_id id)
{
    begin(id);
    space_begin(&to, s.ram, mm_pagetable_format_of(id));
    space_make(&to);
}

static void end_two(void)
{
    space_check(&to);
    assert_int_equal(mm_pagetable_destroy(&to.pt, true), MM_OK);
    space_end(&s);
}

/* ---- flushes ---- */

static void a_change_is_flushed_as_ranges_with_level_and_asid(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.config.asid = 77;
    space_make(&s);
    assert_int_equal(map(&s, VA, 0x200000, 2 * MIB + 8 * PAGE, RW), MM_OK);
    assert_int_equal(s.flushes, 0); /* x86: what was absent is in no TLB */
    assert_int_equal(
        mm_pagetable_protect(&s.pt, VA + 2 * MIB, 3 * PAGE, RO, MM_PAGETABLE_PERMS, NULL), MM_OK);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.last.asid, 77);
    assert_int_equal(s.last.count, 1);
    assert_int_equal(s.last_ranges[0].va, VA + 2 * MIB);
    assert_int_equal(s.last_ranges[0].bytes, 3 * PAGE);
    assert_int_equal(s.last_ranges[0].level, 0);
    assert_false(s.last.all || s.last.filled_only || s.last.tables_unlink);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 2 * MIB, NULL), MM_OK);
    assert_int_equal(s.last_ranges[0].level, 1);
    assert_int_equal(s.graces, 1);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 2 * MIB, 8 * PAGE, NULL), MM_OK);
    assert_true(s.last.tables_unlink); /* three tables went */
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

static void above_the_threshold_all_is_flushed(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(map(&s, VA + PAGE, 0x1000, 33 * PAGE, RW), MM_OK);
    assert_int_equal(
        mm_pagetable_protect(&s.pt, VA + PAGE, 32 * PAGE, RO, MM_PAGETABLE_PERMS, NULL), MM_OK);
    assert_int_equal(s.full_flushes, 0);
    assert_int_equal(
        mm_pagetable_protect(&s.pt, VA + PAGE, 33 * PAGE, RX, MM_PAGETABLE_PERMS, NULL), MM_OK);
    assert_int_equal(s.full_flushes, 1);
    assert_int_equal(s.last.count, 0);
    space_end(&s);
}

static void new_mappings_are_told_to_riscv_only(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, VA, 0, PAGE, RW), MM_OK);
    assert_int_equal(s.fill_flushes, 1);
    space_end(&s);
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
    s.config.flags |= MM_PAGETABLE_SVVPTC;
    space_make(&s);
    assert_int_equal(map(&s, VA, 0, PAGE, RW), MM_OK);
    assert_int_equal(s.flushes, 0);
    space_end(&s);
}

static void a_batch_flushes_once_and_frees_after_it(void **state)
{
    struct mm_pagetable_extent extents[100];
    struct mm_pagetable_batch batch;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(map(&s, VA + i * 4 * MIB, i * 2 * PAGE, PAGE, RW), MM_OK);
    size_t tables = s.ram->in_use;
    mm_pagetable_batch_init(&batch, &s.pt, extents, 100);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA + i * 4 * MIB, PAGE, &batch), MM_OK);
    assert_int_equal(s.flushes + s.release_count + s.graces, 0);
    assert_int_equal(s.ram->in_use, tables); /* nothing was freed yet */
    assert_int_equal(mm_pagetable_translate(&s.pt, VA), MM_PA_NONE);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.graces, 1);
    assert_int_equal(s.release_count, 50);
    assert_int_equal(s.ram->in_use, 1);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.flushes, 1); /* an empty batch does nothing */
    space_end(&s);
}

static size_t used_at_flush;
static uint64_t entry_at_flush[4];
static unsigned flushes_seen;

static void look_while_flushing(void *ctx, const struct mm_pagetable_flush *flush)
{
    struct mm_pagetable_entry entry;
    (void)flush;
    used_at_flush = ((struct space *)ctx)->ram->in_use;
    assert_int_equal(((struct space *)ctx)->release_count, 0);
    (void)mm_pagetable_query(&s.pt, VA, &entry);
    entry_at_flush[flushes_seen++ % 4] = entry.raw;
}

static void tables_and_frames_wait_for_the_flush(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_SV48);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    s.hooks.flush = look_while_flushing;
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, PAGE, NULL), MM_OK);
    assert_int_equal(used_at_flush, 4);
    assert_int_equal(s.ram->in_use, 1);
    s.hooks.flush = log_flush;
    space_end(&s);
}

static void aarch64_breaks_before_it_makes(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1);
    assert_int_equal(map(&s, VA, 0x200000, 2 * MIB, RW), MM_OK);
    s.hooks.flush = look_while_flushing;
    flushes_seen = 0;
    assert_int_equal(mm_pagetable_split(&s.pt, VA, 0, NULL), MM_OK);
    assert_true(entry_at_flush[0] == 0);
    flushes_seen = 0;
    assert_int_equal(mm_pagetable_map(&s.pt, VA, 0x5000, PAGE, RW, MM_PAGETABLE_REPLACE, NULL),
                     MM_OK);
    assert_true(entry_at_flush[0] == 0);
    assert_int_equal(mm_pagetable_translate(&s.pt, VA), 0x5000);
    s.release_count = 0;
    flushes_seen = 0;
    assert_int_equal(mm_pagetable_protect(&s.pt, VA, PAGE, MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE),
                                          MM_PAGETABLE_TYPES, NULL),
                     MM_OK);
    assert_true(entry_at_flush[0] == 0);
    s.hooks.flush = log_flush;
    space_end(&s);
}

/* ---- sharing ---- */

static void copy_on_write_takes_write_from_both(void **state)
{
    (void)state;
    begin_two(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, VA, 0x200000, 4 * MIB, RW | MM_PAGETABLE_USER), MM_OK);
    assert_int_equal(map(&s, VA + 4 * MIB, 0x1000, PAGE, RO), MM_OK);
    assert_int_equal(mm_pagetable_swap(&s.pt, VA + 4 * MIB + PAGE, 9, NULL), MM_OK);
    assert_int_equal(mm_pagetable_share_cow(&to.pt, &s.pt, VA + PAGE, 4 * MIB + PAGE, NULL), MM_OK);
    for (unsigned i = 0; i < 2; i++) {
        struct space *one = i == 0 ? &s : &to;
        struct mm_pagetable_entry e = entry_at(one, VA + PAGE);
        assert_int_equal(e.attr & (RW | MM_PAGETABLE_COW), RO | MM_PAGETABLE_COW);
        assert_int_equal(e.pa, 0x201000);
        assert_int_equal(entry_at(one, VA + 3 * MIB).level, 1);
        assert_int_equal(entry_at(one, VA + 4 * MIB).attr & MM_PAGETABLE_COW, 0);
        assert_int_equal(entry_at(one, VA + 4 * MIB + PAGE).pa, 9);
    }
    assert_int_equal(entry_at(&s, VA).attr & RW, RW); /* outside the range */
    assert_true(nothing_at(&to, VA));
    assert_int_equal(to.referenced_pages, 1024);
    assert_int_equal(s.fill_flushes, 3);
    assert_true(s.flushes > s.fill_flushes); /* write was taken away in the first table */
    end_two();
}

static void a_lent_half_is_seen_by_the_borrower(void **state)
{
    const mm_va_t half = ~(mm_va_t)0 << 47;
    (void)state;
    begin_two(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(map(&s, half, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, half, 256 * TOP), MM_OK);
    assert_int_equal(mm_pagetable_translate(&to.pt, half), 0x1000);
    assert_int_equal(map(&s, half + 77 * GIB, 0x5000, PAGE, RW), MM_OK); /* later */
    assert_int_equal(mm_pagetable_translate(&to.pt, half + 77 * GIB), 0x5000);
    assert_int_equal(mm_pagetable_unmap(&s.pt, half, 200 * TOP, NULL), MM_OK);
    assert_int_equal(mm_pagetable_translate(&to.pt, half), MM_PA_NONE);
    assert_int_equal(stats_of(&s).tables[2], 256); /* lent tables stay */
    assert_int_equal(stats_of(&to).tables[2], 0);
    assert_int_equal(map(&to, VA, 0x1000, PAGE, RW), MM_OK); /* its own half is its own */
    assert_int_equal(mm_pagetable_give_back(&to.pt, half, 256 * TOP, NULL), MM_OK);
    assert_int_equal(mm_pagetable_give_back(&to.pt, half, 256 * TOP, NULL), MM_ERR_NOENT);
    assert_int_equal(map(&to, half, 0x7000, PAGE, RW), MM_OK);
    assert_true(nothing_at(&s, half));
    end_two();
}

static void what_is_present_of_a_half_is_lent(void **state)
{
    const mm_va_t half = ~(mm_va_t)0 << 47, image = half + 255 * TOP;
    (void)state;
    begin_two(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(mm_pagetable_lend_present(&to.pt, &s.pt, half, 256 * TOP), MM_OK);
    assert_true(nothing_at(&to, half)); /* there was nothing */
    assert_int_equal(map(&s, half + TOP, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(map(&s, image, 0x3000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_lend_present(&to.pt, &s.pt, half, 256 * TOP), MM_OK);
    assert_int_equal(mm_pagetable_translate(&to.pt, half + TOP), 0x1000);
    assert_int_equal(map(&s, image + GIB, 0x5000, PAGE, RW), MM_OK); /* later */
    assert_int_equal(mm_pagetable_translate(&to.pt, image + GIB), 0x5000);
    assert_int_equal(stats_of(&s).tables[2], 2); /* and no more were made */
    assert_int_equal(mm_pagetable_lend_present(&to.pt, &s.pt, half, 256 * TOP), MM_ERR_PERM);
    assert_int_equal(map(&to, half, 0x7000, PAGE, RW), MM_OK); /* what was not lent is its own */
    assert_true(nothing_at(&s, half));
    end_two();
}

/* One page at the top of the address space, the same in every one (xv6's trampoline). */
static void a_trampoline_page_is_in_every_space(void **state)
{
    static struct space many[8];
    const mm_va_t page = ~(mm_va_t)0 - PAGE + 1, entry = ~(mm_va_t)0 << 30;
    (void)state;
    begin(MM_PAGETABLE_ID_SV39);
    assert_int_equal(map(&s, page, 0x80007000, PAGE, RX | MM_PAGETABLE_GLOBAL), MM_OK);
    for (unsigned i = 0; i < 8; i++) {
        space_begin(&many[i], s.ram, mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
        space_make(&many[i]);
        assert_int_equal(mm_pagetable_lend(&many[i].pt, &s.pt, entry, GIB), MM_OK);
        assert_int_equal(map(&many[i], VA, i * PAGE, PAGE, RW | MM_PAGETABLE_USER), MM_OK);
        assert_int_equal(mm_pagetable_translate(&many[i].pt, page + 5), 0x80007005);
        assert_int_equal(mm_pagetable_unmap(&many[i].pt, page, PAGE, NULL), MM_ERR_PERM);
    }
    assert_int_equal(
        mm_pagetable_map(&s.pt, page, 0x80009000, PAGE, RX, MM_PAGETABLE_REPLACE, NULL), MM_OK);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(mm_pagetable_translate(&many[i].pt, page), 0x80009000);
        assert_int_equal(mm_pagetable_destroy(&many[i].pt, false), MM_OK);
        assert_int_equal(mm_pagetable_translate(&s.pt, page), 0x80009000);
    }
    space_end(&s);
}

/* Both sides may have known that there was nothing (RISC-V privileged 4.2.1). */
static void riscv_is_told_on_both_sides_of_a_new_table_that_is_lent(void **state)
{
    (void)state;
    begin_two(MM_PAGETABLE_ID_SV39);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, 5 * GIB, GIB), MM_OK);
    assert_true(s.fill_flushes == 1 && s.last.tables_unlink);
    assert_true(to.fill_flushes == 1 && to.last.tables_unlink);
    s.fill_flushes = 0;
    assert_int_equal(mm_pagetable_give_back(&to.pt, 5 * GIB, GIB, NULL), MM_OK);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, 5 * GIB, GIB), MM_OK);
    assert_int_equal(s.fill_flushes, 0); /* it was there */
    end_two();
}

/* A full table below the root that others point to stays a table. */
static void a_lent_table_is_not_collapsed(void **state)
{
    (void)state;
    begin_two(MM_PAGETABLE_ID_SV39);
    assert_int_equal(
        mm_pagetable_map(&s.pt, 5 * GIB, 4 * GIB, GIB, RW, MM_PAGETABLE_LEAF_MAX(1), NULL), MM_OK);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, 5 * GIB, GIB), MM_OK);
    assert_int_equal(mm_pagetable_collapse(&s.pt, 5 * GIB, GIB, NULL), MM_ERR_NOENT);
    assert_int_equal(mm_pagetable_collapse(&to.pt, 5 * GIB, GIB, NULL), MM_ERR_PERM);
    assert_int_equal(entry_at(&s, 5 * GIB).level, 1);
    assert_int_equal(mm_pagetable_translate(&to.pt, 5 * GIB + 7), 4 * GIB + 7);
    assert_int_equal(mm_pagetable_map(&s.pt, 5 * GIB, 8 * GIB, GIB, RW, MM_PAGETABLE_REPLACE, NULL),
                     MM_OK);
    assert_int_equal(entry_at(&s, 5 * GIB).level, 1); /* nor replaced by a leaf */
    assert_int_equal(mm_pagetable_translate(&to.pt, 5 * GIB + 7), 8 * GIB + 7);
    end_two();
}

/* Is an address of [va, va + size) among what the last flush named? */
static bool told(const struct space *of, mm_va_t va, uint64_t size)
{
    for (unsigned i = 0; i < of->last.count; i++)
        if (of->last_ranges[i].va < va + size &&
            va < of->last_ranges[i].va + of->last_ranges[i].bytes)
            return true;
    return of->last.all;
}

/* Tables that stay empty, of a format with leaves in the root. */
static void begin_kept(struct space *of, enum mm_pagetable_id id)
{
    space_begin(of, s.ram, mm_pagetable_format_of(id));
    of->config.flags |= MM_PAGETABLE_KEEP_EMPTY;
    space_make(of);
}

/* An empty table that somebody has borrowed is no room for a leaf (I2). */
static void a_lent_table_does_not_give_way_to_a_shared_leaf(void **state)
{
    static struct space borrower;
    size_t tables;

    (void)state;
    s.ram = ram_make();
    begin_kept(&s, MM_PAGETABLE_ID_SV39);
    begin_kept(&to, MM_PAGETABLE_ID_SV39);
    begin_kept(&borrower, MM_PAGETABLE_ID_SV39);
    assert_int_equal(mm_pagetable_lend(&borrower.pt, &to.pt, VA, GIB), MM_OK);
    assert_int_equal(map(&s, VA, GIB, GIB, RW), MM_OK);
    tables = s.ram->in_use;
    assert_int_equal(mm_pagetable_share_cow(&to.pt, &s.pt, VA, GIB, NULL), MM_ERR_EXISTS);
    assert_int_equal(s.ram->in_use, tables);
    assert_true(nothing_at(&borrower, VA));
    assert_int_equal(mm_pagetable_destroy(&borrower.pt, true), MM_OK);
    end_two();
}

/* Each table that goes has an address among the ranges: its walk-cache entries go by that. */
static void a_flush_names_each_empty_table_that_goes(void **state)
{
    (void)state;
    s.ram = ram_make();
    begin_kept(&s, MM_PAGETABLE_ID_AARCH64_S1);
    begin_kept(&to, MM_PAGETABLE_ID_AARCH64_S1);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(map(&to, VA, 0x1000, PAGE, RW), MM_OK);
        assert_int_equal(map(&to, VA + 8 * MIB, 0x1000, PAGE, RW), MM_OK);
        assert_int_equal(mm_pagetable_unmap(&to.pt, VA, 9 * MIB, NULL), MM_OK);
        to.last.count = 0;
        if (i == 0) {
            assert_int_equal(map(&s, VA, GIB, GIB, RW), MM_OK);
            assert_int_equal(mm_pagetable_share_cow(&to.pt, &s.pt, VA, GIB, NULL), MM_OK);
        } else {
            assert_int_equal(mm_pagetable_destroy(&to.pt, true), MM_OK);
        }
        assert_true(to.last.tables_unlink);
        assert_true(told(&to, VA, 2 * MIB) && told(&to, VA + 8 * MIB, 2 * MIB));
        if (i == 0)
            assert_int_equal(mm_pagetable_unmap(&to.pt, VA, GIB, NULL), MM_OK);
    }
    space_end(&s);
}

/* The same of a table that was lent, by who lent it and by who borrowed it. */
static void the_end_of_a_table_tells_of_lent_ones(void **state)
{
    (void)state;
    begin_two(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, 0, TOP), MM_OK);
    to.last.tables_unlink = false;
    assert_int_equal(mm_pagetable_destroy(&to.pt, false), MM_OK);
    assert_true(to.last.tables_unlink && told(&to, 0, TOP));
    s.last.count = 0;
    assert_int_equal(mm_pagetable_destroy(&s.pt, true), MM_OK);
    assert_true(s.last.tables_unlink && told(&s, 0, TOP));
}

static void identity_and_linear_mappings(void **state)
{
    const uint64_t offset = UINT64_C(0xffff800000000000), pa = 6 * GIB;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(mm_pagetable_map_linear(&s.pt, pa, 2 * GIB, offset, RW, 0, NULL), MM_OK);
    assert_int_equal(mm_pagetable_map_linear(&s.pt, pa, 4 * MIB, 0, RX, 0, NULL), MM_OK);
    assert_int_equal(mm_pagetable_translate(&s.pt, offset + pa + 123), pa + 123);
    assert_int_equal(mm_pagetable_translate(&s.pt, pa + 4 * MIB - 1), pa + 4 * MIB - 1);
    assert_int_equal(entry_at(&s, offset + pa).level, 2);
    assert_int_equal(entry_at(&s, pa).level, 1);
    /* into the hole, over the end, beyond the width */
    assert_int_equal(mm_pagetable_map_linear(&s.pt, pa, PAGE, (uint64_t)1 << 47, RW, 0, NULL),
                     MM_ERR_INVALID);
    assert_int_equal(mm_pagetable_map_linear(&s.pt, pa, 2 * PAGE, 0 - pa - PAGE, RW, 0, NULL),
                     MM_ERR_INVALID);
    assert_int_equal(mm_pagetable_map_linear(&s.pt, (mm_pa_t)1 << 52, PAGE, 0 - ((uint64_t)1 << 52),
                                             RW, 0, NULL),
                     MM_ERR_INVALID);
    space_end(&s);
}

/* ---- cursor, keeping empty tables, harvest ---- */

static void a_cursor_maps_reads_and_unmaps(void **state)
{
    struct mm_pagetable_cursor c;
    struct mm_pagetable_entry entry;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, VA - 2 * PAGE, 4 * PAGE, NULL), MM_OK);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(mm_pagetable_cursor_map(&c, (9 - i) * PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_cursor_map(&c, 0, RW), MM_ERR_LIMIT);
    assert_int_equal(mm_pagetable_cursor_seek(&c, VA - 2 * PAGE), MM_OK);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(mm_pagetable_cursor_next(&c, &entry), MM_OK);
        assert_int_equal(entry.pa, (9 - i) * PAGE);
    }
    assert_int_equal(mm_pagetable_cursor_seek(&c, VA - 2 * PAGE), MM_OK);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
    mm_pagetable_cursor_end(&c);
    assert_int_equal(s.release_count, 4);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

static void a_harvest_that_clears_is_flushed(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_harvest(&s.pt, VA, PAGE, MM_PAGETABLE_DIRTY, 0, NULL, NULL, NULL),
                     MM_OK);
    assert_int_equal(s.flushes, 0);
    assert_int_equal(mm_pagetable_harvest(&s.pt, VA, PAGE, MM_PAGETABLE_DIRTY, MM_PAGETABLE_DIRTY,
                                          NULL, NULL, NULL),
                     MM_OK);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.last_ranges[0].va, VA);
    space_end(&s);
}

static void empty_tables_stay_until_they_are_swept(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.config.flags |= MM_PAGETABLE_KEEP_EMPTY;
    space_make(&s);
    assert_int_equal(map(&s, VA, 0x1000, 3 * MIB, RW), MM_OK);
    size_t tables = s.ram->in_use;
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 3 * MIB, NULL), MM_OK);
    assert_int_equal(s.ram->in_use, tables);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 3 * MIB, NULL), MM_ERR_NOENT);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_sweep(&s.pt, 0, 8 * GIB, NULL), MM_OK);
    assert_int_equal(s.ram->in_use, 4);
    assert_int_equal(mm_pagetable_sweep(&s.pt, 0, 8 * GIB, NULL), MM_ERR_NOENT);
    space_end(&s);
}

static void without_release_whole_tables_go_unseen(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    s.hooks.release = NULL;
    assert_int_equal(map(&s, VA, 0x1000, GIB, RW), MM_OK);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, GIB, NULL), MM_OK);
    assert_int_equal(s.full_flushes, 1);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* ---- walks, dump, check ---- */

static bool count_visit(void *ctx, const struct mm_pagetable_entry *entry)
{
    ((unsigned *)ctx)[entry->level]++;
    return true;
}

static bool first_only(void *ctx, const struct mm_pagetable_entry *entry)
{
    (void)entry;
    return ++*(unsigned *)ctx < 1;
}

static void a_walk_visits_the_levels_asked_for(void **state)
{
    unsigned counts[5] = {0}, one = 0;
    struct mm_pagetable_visitor leaves = {counts, count_visit, NULL, 3};
    struct mm_pagetable_visitor tables = {counts, NULL, count_visit, 14};
    struct mm_pagetable_visitor stop = {&one, first_only, NULL, 31};
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(map(&s, VA, 0x200000, 2 * MIB + 3 * PAGE, RW), MM_OK);
    assert_int_equal(map(&s, 4 * GIB, 4 * GIB, GIB, RW), MM_OK);
    assert_int_equal(mm_pagetable_walk(&s.pt, 0, 64 * GIB, &leaves), MM_OK);
    assert_true(counts[0] == 3 && counts[1] == 1 && counts[2] == 0);
    memset(counts, 0, sizeof counts);
    assert_int_equal(mm_pagetable_walk(&s.pt, 0, 64 * GIB, &tables), MM_OK);
    assert_true(counts[1] == 1 && counts[2] == 1 && counts[3] == 1);
    assert_int_equal(mm_pagetable_walk(&s.pt, 0, 64 * GIB, &stop), MM_OK);
    assert_int_equal(one, 1);
    space_end(&s);
}

static char lines[8][128];
static unsigned line_count;

static void keep_line(void *ctx, const char *line)
{
    (void)ctx;
    snprintf(lines[line_count++ % 8], sizeof lines[0], "%s", line);
}

static void the_dump_joins_equal_neighbours(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64);
    assert_int_equal(map(&s, 0x1000, 0x5000, 3 * PAGE, RX | MM_PAGETABLE_USER), MM_OK);
    assert_int_equal(map(&s, 0xffff800000000000, 0, 4 * MIB, RW | MM_PAGETABLE_GLOBAL), MM_OK);
    assert_int_equal(mm_pagetable_protect(&s.pt, 0x2000, PAGE, RO, MM_PAGETABLE_PERMS, NULL),
                     MM_OK);
    line_count = 0;
    mm_pagetable_dump(&s.pt, keep_line, NULL);
    assert_int_equal(line_count, 4);
    assert_string_equal(
        lines[0], "0x0000000000001000-0x0000000000001fff 0x0000000000005000 4K/4K r-xu--a- wb");
    assert_string_equal(
        lines[1], "0x0000000000002000-0x0000000000002fff 0x0000000000006000 4K/4K r-----a- wb");
    assert_string_equal(
        lines[3], "0xffff800000000000-0xffff8000003fffff 0x0000000000000000 4M/2M rw---gad wb");
    space_end(&s);
}

static uint64_t *slot(struct space *x, mm_va_t va, unsigned level)
{
    mm_pa_t table = x->pt.root;
    for (unsigned l = 3;; l--) {
        uint64_t *e = (uint64_t *)ram_at(x->ram, table) + (va >> (12 + 9 * l) & 511);
        if (l == level)
            return e;
        table = *e & 0xffffffffff000;
    }
}

/* The check after one word of a healthy table was changed. */
static void spoilt(uint64_t *word, uint64_t value, const char *what)
{
    static mm_pa_t seen[64];
    struct mm_pagetable_flaw flaw;
    uint64_t before = *word;
    assert_int_equal(mm_pagetable_check(&s.pt, seen, 64, NULL), MM_OK);
    *word = value;
    assert_int_equal(mm_pagetable_check(&s.pt, seen, 64, &flaw), MM_ERR_CORRUPT);
    assert_string_equal(flaw.what, what);
    *word = before;
}

static void the_check_finds_damage(void **state)
{
    static mm_pa_t seen[2];
    const uint64_t one = (uint64_t)1 << 52, notes = (uint64_t)1023 << 52;
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.config.pa_bits = 40;
    space_make(&s);
    assert_int_equal(map(&s, VA, 0x1000, 2 * PAGE, RW), MM_OK);
    assert_int_equal(map(&s, VA + 2 * MIB, 0x200000, 2 * MIB, RW), MM_OK);
    assert_int_equal(map(&s, VA + 8 * MIB, 0x5000, PAGE, RW), MM_OK);
    uint64_t *leaf = slot(&s, VA, 0), *large = slot(&s, VA + 2 * MIB, 1), *pd = slot(&s, VA, 1);
    uint64_t *other = slot(&s, VA + 8 * MIB, 1), *pml4 = slot(&s, VA, 3);
    spoilt(leaf, *leaf | (uint64_t)1 << 40, "address beyond the physical width");
    spoilt(large, *large | 0x8000, "misaligned leaf");
    spoilt(pml4, *pml4 | 0x80, "leaf at a level that has none");
    spoilt(leaf, 0x1230, "not present, and not a swap entry");
    spoilt(pd, (*pd & ~(uint64_t)0xfffffffffff000) | s.pt.root, "a table above itself");
    spoilt(pd, *other, "a table reached twice");
    spoilt(pd, (*pd & ~notes) | one, "note of a table");
    spoilt(pd, (*pd & ~notes) | 3 * one, "note of a table");
    spoilt(pd, *pd & ~notes, "note of a table");
    spoilt(slot(&s, VA + 8 * MIB, 0), 0, "note of a table");
    spoilt(other, *other & ~notes, "note of a table");
    spoilt(pml4, *pml4 & ~notes, "note of a table");
    spoilt(pml4, (*pml4 & ~notes) | 3 * one, "note of a table");
    assert_int_equal(mm_pagetable_check(&s.pt, seen, 2, NULL), MM_ERR_LIMIT);
    space_end(&s);
}

static void reserved_encodings(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV48));
    space_make(&s);
    uint64_t *root = ram_at(s.ram, s.pt.root);
    static const uint64_t bad[] = {
        1 | 4,                 /* write without read */
        3 | (uint64_t)1 << 54, /* a reserved bit */
        3 | (uint64_t)1 << 61, /* a memory type without Svpbmt */
        3 | (uint64_t)1 << 63, /* a group without Svnapot */
        1 | 0x40,              /* accessed in a pointer */
        3 | 1 << 10,           /* a leaf of 512 GiB at 4 KiB */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        root[1] = bad[i];
        assert_int_equal(mm_pagetable_check(&s.pt, NULL, 0, NULL), MM_ERR_CORRUPT);
    }
    root[1] = 0;
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_is_flushed_as_ranges_with_level_and_asid),
        cmocka_unit_test(above_the_threshold_all_is_flushed),
        cmocka_unit_test(new_mappings_are_told_to_riscv_only),
        cmocka_unit_test(a_batch_flushes_once_and_frees_after_it),
        cmocka_unit_test(tables_and_frames_wait_for_the_flush),
        cmocka_unit_test(aarch64_breaks_before_it_makes),
        cmocka_unit_test(copy_on_write_takes_write_from_both),
        cmocka_unit_test(a_lent_half_is_seen_by_the_borrower),
        cmocka_unit_test(what_is_present_of_a_half_is_lent),
        cmocka_unit_test(a_trampoline_page_is_in_every_space),
        cmocka_unit_test(riscv_is_told_on_both_sides_of_a_new_table_that_is_lent),
        cmocka_unit_test(a_lent_table_is_not_collapsed),
        cmocka_unit_test(a_lent_table_does_not_give_way_to_a_shared_leaf),
        cmocka_unit_test(a_flush_names_each_empty_table_that_goes),
        cmocka_unit_test(the_end_of_a_table_tells_of_lent_ones),
        cmocka_unit_test(identity_and_linear_mappings),
        cmocka_unit_test(a_cursor_maps_reads_and_unmaps),
        cmocka_unit_test(a_harvest_that_clears_is_flushed),
        cmocka_unit_test(empty_tables_stay_until_they_are_swept),
        cmocka_unit_test(without_release_whole_tables_go_unseen),
        cmocka_unit_test(a_walk_visits_the_levels_asked_for),
        cmocka_unit_test(the_dump_joins_equal_neighbours),
        cmocka_unit_test(the_check_finds_damage),
        cmocka_unit_test(reserved_encodings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
