/* Contiguous groups (AArch64's hint, Svnapot) that hardware marks by any of their entries; lent
 * entries and ASIDs; ranges of several levels. */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_SV39
#define MM_PAGETABLE_AARCH64_S1
#include "pagetable_test.h"

#define VA    ((mm_va_t)5 << 30)
#define GROUP (16 * PAGE)
#define AD    (MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY)

static struct space s, to;
static const enum mm_pagetable_id grouped[] = {MM_PAGETABLE_ID_AARCH64_S1, MM_PAGETABLE_ID_SV39};

static void begin(struct space *space, enum mm_pagetable_id id, uint32_t more, uint32_t less)
{
    space_begin(space, space == &to ? s.ram : ram_make(), mm_pagetable_format_of(id));
    space->config.flags = (space->config.flags | more) & ~less;
    space_make(space);
}

static void begin_groups(enum mm_pagetable_id id)
{
    begin(&s, id, MM_PAGETABLE_CONTIGUOUS | MM_PAGETABLE_HW_AD, MM_PAGETABLE_PRESET_AD);
}

/* The entry of level 0 for a page. */
static uint64_t *leaf_entry(mm_va_t va)
{
    struct mmi_pt_iter it;
    uint64_t *table;

    mmi_pt_begin(&it, &s.pt, mmi_pt_offset(&s.pt, va), mmi_pt_offset(&s.pt, va) + 1);
    (void)mmi_pt_bottom(&it);
    assert_int_equal(it.level, 0);
    table = it.table[0];
    mmi_pt_leave(&it);
    return &table[va / PAGE % 512];
}

/* Hardware writes to the page: Arm's clears AP[2] where DBM is set (Arm ARM D8.4.6), RISC-V's sets
 * D (privileged 4.3.1). */
static void hardware_writes(enum mm_pagetable_id id, mm_va_t va)
{
    if (id == MM_PAGETABLE_ID_SV39)
        *leaf_entry(va) |= 0x80;
    else
        *leaf_entry(va) &= ~UINT64_C(0x80);
}

/* A type that is the type already changes what hardware has marked alone: the first such entry is
 * in the midst of its group. */
static void a_mark_in_the_midst_of_a_group_changes_no_neighbour(void **state)
{
    static const mm_va_t at[] = {VA, VA + 2 * MIB - GROUP};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin_groups(MM_PAGETABLE_ID_AARCH64_S1);
        assert_int_equal(map(&s, at[i], 0x40000000, GROUP, RW | MM_PAGETABLE_ACCESSED), MM_OK);
        hardware_writes(MM_PAGETABLE_ID_AARCH64_S1, at[i] + 5 * PAGE);
        assert_int_equal(mm_pagetable_protect(&s.pt, at[i], GROUP,
                                              MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_BACK),
                                              MM_PAGETABLE_TYPES, NULL),
                         MM_OK);
        for (unsigned k = 0; k < 16; k++)
            assert_int_equal(entry_at(&s, at[i] + k * PAGE).pa, 0x40000000 + k * PAGE);
        assert_true((entry_at(&s, at[i] + 5 * PAGE).attr & MM_PAGETABLE_DIRTY) != 0);
        assert_true(nothing_at(&s, at[i] + GROUP));
        space_end(&s);
    }
}

static void a_type_stays_within_its_range(void **state)
{
    (void)state;
    begin_groups(MM_PAGETABLE_ID_AARCH64_S1);
    assert_int_equal(map(&s, VA, 0x40000000, GROUP, RW | MM_PAGETABLE_ACCESSED), MM_OK);
    assert_int_equal(
        map(&s, VA + GROUP, 0x50000000, 5 * PAGE, RW | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE)),
        MM_OK);
    hardware_writes(MM_PAGETABLE_ID_AARCH64_S1, VA + 5 * PAGE);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA, GROUP,
                                          MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_BACK),
                                          MM_PAGETABLE_TYPES, NULL),
                     MM_OK);
    assert_int_equal(MM_PAGETABLE_TYPE_OF(entry_at(&s, VA + GROUP).attr), MM_PAGETABLE_DEVICE);
    space_end(&s);
}

static void a_group_goes_with_the_marks_of_all(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned replaced = 0; replaced < 2; replaced++) {
            begin_groups(grouped[i]);
            assert_int_equal(map(&s, VA, 0x40000000, GROUP, RW | MM_PAGETABLE_ACCESSED), MM_OK);
            hardware_writes(grouped[i], VA + 5 * PAGE);
            if (replaced)
                assert_int_equal(
                    mm_pagetable_map(&s.pt, VA, 0x60000000, GROUP, RO, MM_PAGETABLE_REPLACE, NULL),
                    MM_OK);
            else
                assert_int_equal(mm_pagetable_unmap(&s.pt, VA, GROUP, NULL), MM_OK);
            assert_int_equal(s.release_count, 1);
            assert_int_equal(s.released[0].pa, 0x40000000);
            assert_int_equal(s.released[0].bytes, GROUP);
            assert_int_equal(s.released[0].attr & AD, AD);
            space_end(&s);
        }
    }
}

/* The hook release: while any entry of a group is there, the processor reaches all its frames. */
static unsigned too_early;
static void look_for_group(void *ctx, const struct mm_pagetable_extent *extent)
{
    struct mm_pagetable_entry entry;
    for (unsigned k = 0; extent->pa - 0x40000000 < GROUP && k < 16; k++)
        too_early += mm_pagetable_query(&s.pt, VA + GROUP + k * PAGE, &entry) == MM_OK &&
                     entry.pa - 0x40000000 < GROUP;
    log_release(ctx, extent);
}

static void no_frame_of_a_group_goes_before_its_last_entry(void **state)
{
    struct mm_pagetable_extent extents[2];
    struct mm_pagetable_batch batch;
    mm_pa_t frames[16];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned replaced = 0; replaced < 2; replaced++) {
            begin_groups(grouped[i]);
            s.hooks.release = look_for_group;
            too_early = 0;
            assert_int_equal(map(&s, VA + GROUP, 0x40000000, GROUP, RW | MM_PAGETABLE_ACCESSED),
                             MM_OK);
            for (unsigned k = 13; k < 16; k++) /* frames that are no run */
                assert_int_equal(map(&s, VA + k * PAGE, 0x70000000 - k * 3 * PAGE, PAGE, RW),
                                 MM_OK);
            for (unsigned k = 1; k < 16; k += 2)
                hardware_writes(grouped[i], VA + GROUP + k * PAGE);
            for (unsigned k = 0; k < 16; k++)
                frames[k] = 0x60000000 + k * 2 * PAGE;
            mm_pagetable_batch_init(&batch, &s.pt, extents, 2);
            if (replaced) {
                assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 13 * PAGE, 2 * PAGE, &batch),
                                 MM_OK);
                assert_int_equal(mm_pagetable_map_frames(&s.pt, VA + GROUP, frames, 16, RW,
                                                         MM_PAGETABLE_REPLACE, &batch),
                                 MM_OK);
            } else {
                assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 13 * PAGE, 19 * PAGE, &batch),
                                 MM_OK);
            }
            mm_pagetable_batch_finish(&batch);
            assert_int_equal(too_early, 0);
            assert_int_equal(s.released[s.release_count - 1].bytes, GROUP);
            for (unsigned k = 0; replaced && k < 16; k++)
                assert_int_equal(entry_at(&s, VA + GROUP + k * PAGE).pa, frames[k]);
            space_end(&s);
        }
    }
}

/* Without hardware that does it, AArch64's page gets dirty by getting writable: a TLB may hold it
 * read-only. */
static void a_mark_is_flushed_where_it_gives_leave_to_write(void **state)
{
    (void)state;
    begin(&s, MM_PAGETABLE_ID_AARCH64_S1, 0, MM_PAGETABLE_PRESET_AD);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW | MM_PAGETABLE_ACCESSED), MM_OK);
    assert_int_equal(mm_pagetable_mark(&s.pt, VA, MM_PAGETABLE_ACCESSED), MM_OK);
    assert_int_equal(s.flushes, 0);
    assert_int_equal(mm_pagetable_mark(&s.pt, VA + 5, MM_PAGETABLE_DIRTY), MM_OK);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.last.count, 1);
    assert_true(s.last_ranges[0].va == VA && s.last_ranges[0].bytes == PAGE);
    space_end(&s);
    begin(&s, MM_PAGETABLE_ID_X86_64, 0, MM_PAGETABLE_PRESET_AD);
    assert_int_equal(map(&s, VA, 0x1000, PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_mark(&s.pt, VA, AD), MM_OK);
    assert_int_equal(s.flushes, 0);
    space_end(&s);
}

static void who_lends_is_flushed_under_every_asid(void **state)
{
    (void)state;
    begin(&s, MM_PAGETABLE_ID_X86_64, 0, 0);
    begin(&to, MM_PAGETABLE_ID_X86_64, 0, 0);
    assert_int_equal(map(&s, VA, 0x200000, 4 * PAGE, RW), MM_OK);
    assert_int_equal(map(&to, VA + 512 * GIB, 0x200000, 4 * PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA, PAGE, RO, MM_PAGETABLE_PERMS, NULL), MM_OK);
    assert_false(s.last.every_asid);
    assert_int_equal(mm_pagetable_lend(&to.pt, &s.pt, 0, 512 * GIB), MM_OK);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA, PAGE, NULL), MM_OK);
    assert_true(s.last.every_asid);
    assert_int_equal(mm_pagetable_unmap(&to.pt, VA + 512 * GIB, PAGE, NULL), MM_OK);
    assert_false(to.last.every_asid);
    assert_int_equal(mm_pagetable_give_back(&to.pt, 0, 512 * GIB, NULL), MM_OK);
    assert_false(to.last.every_asid);
    assert_int_equal(mm_pagetable_destroy(&to.pt, false), MM_OK);
    space_end(&s);
}

/* A range is invalidated in steps of its level. */
static void levels_stand_in_ranges_of_their_own(void **state)
{
    (void)state;
    begin(&s, MM_PAGETABLE_ID_X86_64, 0, 0);
    assert_int_equal(map(&s, VA, GIB, GIB + PAGE, RW), MM_OK);
    assert_int_equal(mm_pagetable_protect(&s.pt, VA, GIB + PAGE, RO, MM_PAGETABLE_PERMS, NULL),
                     MM_OK);
    assert_int_equal(s.last.count, 2);
    assert_true(s.last_ranges[0].level == 2 && s.last_ranges[0].bytes == GIB);
    assert_true(s.last_ranges[1].level == 0 && s.last_ranges[1].bytes == PAGE);
    space_end(&s);
}

static void a_fresh_batch_knows_no_attributes(void **state)
{
    struct mm_pagetable_batch batch;
    (void)state;
    begin(&s, MM_PAGETABLE_ID_X86_64, 0, 0);
    memset(&batch, 0x5a, sizeof batch);
    mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
    assert_int_equal(mm_pagetable_map(&s.pt, VA, 0x1000, PAGE, 0xffffffffu, 0, &batch),
                     MM_ERR_INVALID);
    assert_true(nothing_at(&s, VA));
    mm_pagetable_batch_finish(&batch);
    space_end(&s);
}

/* A space that kept its tables when it was emptied takes a copy as a new one does. */
static void a_share_fits_over_empty_tables(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const enum mm_pagetable_id id = i == 0 ? MM_PAGETABLE_ID_X86_64 : grouped[0];
        begin(&s, id, MM_PAGETABLE_KEEP_EMPTY, 0);
        begin(&to, id, MM_PAGETABLE_KEEP_EMPTY, 0);
        assert_int_equal(map(&s, VA, GIB, GIB, RW), MM_OK);
        assert_int_equal(map(&s, VA + GIB, 3 * GIB, 2 * MIB, RW), MM_OK);
        for (mm_va_t va = VA; va <= VA + GIB; va += GIB / 2)
            assert_int_equal(map(&to, va, 0x1000, PAGE, RW), MM_OK);
        assert_int_equal(mm_pagetable_share_cow(&to.pt, &s.pt, VA, GIB + 2 * MIB, NULL),
                         MM_ERR_EXISTS);
        assert_int_equal(mm_pagetable_unmap(&to.pt, VA, 2 * GIB, NULL), MM_OK);
        assert_int_equal(mm_pagetable_share_cow(&to.pt, &s.pt, VA, GIB + 2 * MIB, NULL), MM_OK);
        assert_int_equal(entry_at(&to, VA + 77 * PAGE).level, 2);
        assert_int_equal(entry_at(&to, VA + GIB + 77 * PAGE).level, 1);
        assert_int_equal(entry_at(&to, VA + GIB).pa, 3 * GIB);
        space_check(&to);
        assert_int_equal(mm_pagetable_destroy(&to.pt, false), MM_OK);
        space_end(&s);
    }
}

static void leaf_levels_have_no_gap(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.config.leaf_levels = 5;
    assert_int_equal(mm_pagetable_init(&s.pt, &s.config), MM_ERR_INVALID);
    s.config.leaf_levels = 3;
    assert_int_equal(mm_pagetable_init(&s.pt, &s.config), MM_OK);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mark_in_the_midst_of_a_group_changes_no_neighbour),
        cmocka_unit_test(a_type_stays_within_its_range),
        cmocka_unit_test(a_group_goes_with_the_marks_of_all),
        cmocka_unit_test(no_frame_of_a_group_goes_before_its_last_entry),
        cmocka_unit_test(a_mark_is_flushed_where_it_gives_leave_to_write),
        cmocka_unit_test(who_lends_is_flushed_under_every_asid),
        cmocka_unit_test(levels_stand_in_ranges_of_their_own),
        cmocka_unit_test(a_fresh_batch_knows_no_attributes),
        cmocka_unit_test(a_share_fits_over_empty_tables),
        cmocka_unit_test(leaf_levels_have_no_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
