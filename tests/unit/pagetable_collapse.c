/* Collapsing: how often it flushes, what hardware does to the old leaves meanwhile, what stays */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_AARCH64_S1
#include "pagetable_test.h"

#define VA ((mm_va_t)5 << 30)

static struct space s;
static unsigned holes; /* large entries that were not there at a flush */
static mm_va_t touched;

static void begin(enum mm_pagetable_id id, uint32_t off, uint32_t on)
{
    space_begin(&s, ram_make(), mm_pagetable_format_of(id));
    s.config.flags = (s.config.flags & ~off) | on;
    s.config.pa_bits = 40;
}

static void fill(uint64_t bytes)
{
    assert_int_equal(
        mm_pagetable_map(&s.pt, VA, 4 * GIB, bytes, RW, MM_PAGETABLE_LEAF_MAX(0), NULL), MM_OK);
    s.flushes = s.full_flushes = s.unlinks = s.graces = 0;
}

static void as_many_tables_as_a_batch_has_extents_take_one_flush(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, 0, 0);
    space_make(&s);
    fill(MM_PAGETABLE_BATCH_EXTENTS * 2 * MIB);
    assert_int_equal(mm_pagetable_collapse(&s.pt, VA, MM_PAGETABLE_BATCH_EXTENTS * 2 * MIB, NULL),
                     MM_OK);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.unlinks, 1);
    assert_int_equal(stats_of(&s).leaves[1], MM_PAGETABLE_BATCH_EXTENTS);
    space_end(&s);
}

/* More of them: as often as the extents are full. */
static void more_tables_than_a_batch_has_extents_take_more_flushes(void **state)
{
    const uint64_t bytes = (2 * MM_PAGETABLE_BATCH_EXTENTS + 1) * 2 * MIB;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, 0, 0);
    space_make(&s);
    fill(bytes);
    assert_int_equal(mm_pagetable_collapse(&s.pt, VA, bytes, NULL), MM_OK);
    assert_int_equal(s.flushes, 3);
    assert_int_equal(stats_of(&s).leaves[1], 2 * MM_PAGETABLE_BATCH_EXTENTS + 1);
    assert_int_equal(stats_of(&s).tables[0], 0);
    space_end(&s);
}

static void with_room_a_gigabyte_takes_one_flush_a_level(void **state)
{
    static struct mm_pagetable_extent extents[513];
    struct mm_pagetable_batch batch;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, 0, 0);
    space_make(&s);
    fill(GIB);
    mm_pagetable_batch_init(&batch, &s.pt, extents, 513);
    assert_int_equal(mm_pagetable_collapse(&s.pt, VA, GIB, &batch), MM_OK);
    assert_int_equal(s.flushes, 2);
    assert_int_equal(s.graces, 2);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.flushes, 2); /* nothing was left to flush */
    assert_int_equal(entry_at(&s, VA).bytes, GIB);
    assert_int_equal(stats_of(&s).tables[1] + stats_of(&s).tables[0], 0);
    space_end(&s);
}

/* What waits in the caller's batch is flushed and given back before. */
static void frames_that_wait_in_the_batch_are_not_lost(void **state)
{
    struct mm_pagetable_batch batch;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, 0, 0);
    space_make(&s);
    fill(4 * MIB);
    mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 2 * MIB, PAGE, &batch), MM_OK);
    assert_int_equal(s.release_count, 0);
    assert_int_equal(mm_pagetable_collapse(&s.pt, VA, 4 * MIB, &batch), MM_OK);
    assert_int_equal(s.release_count, 1);
    assert_int_equal(s.released[0].pa, 4 * GIB + 2 * MIB);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.release_count, 1);
    space_end(&s);
}

/* A processor that still has the old table in its caches and writes through it, until it is
 * told. */
static uint64_t *old_entry;
static void flush_late(void *ctx, const struct mm_pagetable_flush *flush)
{
    struct mm_pagetable_entry entry;
    if (old_entry != NULL && flush->tables_unlink)
        *old_entry |= 0x60;
    old_entry = NULL;
    holes += mm_pagetable_query(&s.pt, touched, &entry) != MM_OK;
    log_flush(ctx, flush);
}

static uint64_t *leaf_of(mm_va_t va)
{
    mm_pa_t table = s.pt.root;
    for (unsigned level = 3; level > 0; level--) {
        uint64_t e = ((uint64_t *)ram_at(s.ram, table))[va >> (12 + 9 * level) & 511];
        table = e & UINT64_C(0xfffffffff000);
    }
    return (uint64_t *)ram_at(s.ram, table) + (va >> 12 & 511);
}

static void what_hardware_marks_until_the_flush_is_kept(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, MM_PAGETABLE_PRESET_AD, 0);
    s.hooks.flush = flush_late;
    space_make(&s);
    for (unsigned page = 0; page < 512; page += 511) {
        fill(2 * MIB);
        assert_int_equal(entry_at(&s, VA).attr & 0xc0, 0);
        touched = VA;
        holes = 0;
        old_entry = leaf_of(VA + page * PAGE);
        assert_int_equal(mm_pagetable_collapse(&s.pt, VA, 2 * MIB, NULL), MM_OK);
        assert_int_equal(entry_at(&s, VA).attr & 0xc0, 0xc0);
        assert_int_equal(entry_at(&s, VA).level, 1);
        assert_int_equal(holes, 0); /* it is mapped all the time */
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA, 2 * MIB, NULL), MM_OK);
    }
    space_end(&s);
}

static void aarch64_breaks_before_it_makes(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1, 0, 0);
    s.hooks.flush = flush_late;
    space_make(&s);
    fill(4 * MIB);
    touched = VA;
    holes = 0;
    assert_int_equal(mm_pagetable_collapse(&s.pt, VA, 4 * MIB, NULL), MM_OK);
    assert_int_equal(holes, 1);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(entry_at(&s, VA).level, 1);
    assert_int_equal(entry_at(&s, VA + 2 * MIB).pa, 4 * GIB + 2 * MIB);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_tables_as_a_batch_has_extents_take_one_flush),
        cmocka_unit_test(more_tables_than_a_batch_has_extents_take_more_flushes),
        cmocka_unit_test(with_room_a_gigabyte_takes_one_flush_a_level),
        cmocka_unit_test(frames_that_wait_in_the_batch_are_not_lost),
        cmocka_unit_test(what_hardware_marks_until_the_flush_is_kept),
        cmocka_unit_test(aarch64_breaks_before_it_makes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
