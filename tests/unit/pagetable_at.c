/* mm_pagetable: a cursor's steps at an address: each as by a seek and a step, wherever the one
 * before was; and the list of dead tables that they leave. */
#include "pagetable_test.h"

static struct space s;
static struct mm_pagetable_cursor c;

#define BASE ((mm_va_t)GIB)
#define MOST 1200u

static void begin(enum mm_pagetable_id id, bool release)
{
    space_simple(&s, mm_pagetable_format_of(id));
    if (!release)
        s.hooks.release = NULL;
}

static void begin_cursor(mm_va_t va, uint64_t bytes)
{
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, va, bytes, NULL), MM_OK);
}

static enum mm_status map_at(mm_va_t va, mm_pa_t pa)
{
    return mm_pagetable_cursor_map_at(&c, va, pa, RW);
}

static enum mm_status unmap_at(mm_va_t va)
{
    return mm_pagetable_cursor_unmap_at(&c, va);
}

/* Pages in, three in a table, and out in another order: after each step all others are as they
 * were, and at the end every table went, each once. */
static void tables_come_and_go(void **state)
{
    enum { N = 24 };
    mm_va_t va[N];
    (void)state;
    for (unsigned i = 0; i < N; i++)
        va[i] = BASE + i / 12 * GIB + i / 3 * 6 * MIB + i % 3 * 5 * PAGE;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        for (unsigned how = 0; how < 4; how++) {
            begin((enum mm_pagetable_id)id, (how & 1) != 0);
            size_t tables = s.ram->in_use;
            begin_cursor(BASE, 2 * GIB - MIB);
            for (unsigned i = 0; i < N; i++)
                assert_int_equal(map_at(va[i * 7 % N], i * PAGE), MM_OK);
            mm_pagetable_cursor_end(&c);
            space_check(&s);
            if ((how & 2) != 0)
                begin_cursor(BASE, 2 * GIB - MIB);
            for (unsigned i = 0; i < N; i++) {
                if ((how & 2) == 0)
                    begin_cursor(BASE, 2 * GIB - MIB);
                assert_int_equal(mm_pagetable_translate(&s.pt, va[i * 7 % N]), i * PAGE);
                assert_int_equal(unmap_at(va[i * 7 % N]), MM_OK);
                for (unsigned k = 0; k < N; k++)
                    assert_int_equal(mm_pagetable_translate(&s.pt, va[k * 7 % N]),
                                     k > i ? k * PAGE : MM_PA_NONE);
                assert_int_equal(unmap_at(va[i * 7 % N]), MM_ERR_NOENT);
                if ((how & 2) == 0) {
                    mm_pagetable_cursor_end(&c);
                    space_check(&s);
                }
            }
            if ((how & 2) != 0)
                mm_pagetable_cursor_end(&c);
            assert_int_equal(s.ram->in_use, tables);
            space_end(&s);
        }
}

/* What cannot be done changes nothing, on the long way and on the short one. */
static void errors_leave_all_as_it_was(void **state)
{
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        begin((enum mm_pagetable_id)id, false);
        assert_int_equal(map(&s, BASE, 0x3000, PAGE, RW), MM_OK);
        assert_int_equal(map(&s, BASE + 300 * PAGE, 0x3000, PAGE, RW), MM_OK);
        begin_cursor(BASE + PAGE, 200 * PAGE);
        for (unsigned round = 0; round < 2; round++) {
            uint64_t before = ram_sum(s.ram);
            size_t flushes = s.flushes;
            assert_int_equal(map_at(BASE + 9 * PAGE, 0x5008), MM_ERR_ALIGN);
            assert_int_equal(map_at(BASE + 9 * PAGE, (mm_pa_t)1 << s.pt.pa_bits), MM_ERR_INVALID);
            assert_int_equal(mm_pagetable_cursor_map_at(&c, BASE + 9 * PAGE, 0x5000, 0),
                             MM_ERR_INVALID);
            assert_int_equal(map_at(BASE + 9 * PAGE + 8, 0x5000), MM_ERR_ALIGN);
            assert_int_equal(map_at(BASE, 0x5000), MM_ERR_INVALID);
            assert_int_equal(map_at(BASE + 201 * PAGE, 0x5000), MM_ERR_INVALID);
            assert_int_equal(map_at(BASE + 64 * GIB, 0x5000), MM_ERR_INVALID);
            assert_int_equal(unmap_at(BASE + 7 * PAGE + 1), MM_ERR_ALIGN);
            assert_int_equal(unmap_at(BASE), MM_ERR_INVALID);
            assert_int_equal(unmap_at(BASE + 201 * PAGE), MM_ERR_INVALID);
            assert_int_equal(unmap_at(BASE + 300 * PAGE), MM_ERR_INVALID);
            assert_int_equal(unmap_at(BASE + 9 * PAGE), MM_ERR_NOENT);
            if (round == 1)
                assert_int_equal(map_at(BASE + 7 * PAGE, 0x9000), MM_ERR_EXISTS);
            assert_int_equal(ram_sum(s.ram), before);
            assert_int_equal(s.flushes, flushes);
            if (round == 0)
                assert_int_equal(map_at(BASE + 7 * PAGE, 0x7000), MM_OK);
        }
        /* the first and the last page of the range, now that both ways are known */
        assert_int_equal(map_at(BASE + PAGE, 0x1000), MM_OK);
        assert_int_equal(map_at(BASE + 200 * PAGE, 0x2000), MM_OK);
        assert_int_equal(unmap_at(BASE + 200 * PAGE), MM_OK);
        assert_int_equal(unmap_at(BASE + PAGE), MM_OK);
        assert_int_equal(unmap_at(BASE + 7 * PAGE), MM_OK);
        mm_pagetable_cursor_end(&c);
        assert_int_equal(mm_pagetable_translate(&s.pt, BASE), 0x3000);
        assert_int_equal(mm_pagetable_translate(&s.pt, BASE + 300 * PAGE), 0x3000);
        assert_int_equal(stats_of(&s).leaves[0], 2);
        space_end(&s);
    }
}

/* Steps with and without an address take turns, near and far, until a table goes between them. */
static void steps_of_both_kinds_take_turns(void **state)
{
    static const uint64_t at[] = {0, 3 * MIB, GIB, 600 * GIB, 2 * GIB, 5 * PAGE, 700 * GIB, MIB};
    const unsigned count = sizeof at / sizeof at[0];
    (void)state;
    for (unsigned id = 0; id < 2; id++)
        for (unsigned how = 0; how < 256; how++) {
            unsigned n = id == 0 ? count : 3; /* Sv39 has 256 GiB */
            begin(id == 0 ? MM_PAGETABLE_ID_X86_64 : MM_PAGETABLE_ID_SV39, false);
            begin_cursor(BASE, id == 0 ? 800 * GIB : 4 * GIB);
            for (unsigned i = 0; i < n; i++) {
                if ((how >> (i & 3) & 1) != 0) {
                    assert_int_equal(map_at(BASE + at[i], at[i]), MM_OK);
                } else {
                    assert_int_equal(mm_pagetable_cursor_seek(&c, BASE + at[i]), MM_OK);
                    assert_int_equal(mm_pagetable_cursor_map(&c, at[i], RW), MM_OK);
                }
            }
            for (unsigned i = n; i-- > 0;) {
                if ((how >> (4 + (i & 3)) & 1) != 0) {
                    assert_int_equal(unmap_at(BASE + at[i]), MM_OK);
                } else {
                    assert_int_equal(mm_pagetable_cursor_seek(&c, BASE + at[i]), MM_OK);
                    assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
                }
                for (unsigned k = 0; k < n; k++)
                    assert_int_equal(mm_pagetable_translate(&s.pt, BASE + at[k]),
                                     k < i ? at[k] : MM_PA_NONE);
            }
            mm_pagetable_cursor_end(&c);
            assert_int_equal(s.ram->in_use, 1);
            space_end(&s);
        }
}

/* The upper half, whose addresses begin with ones; and a range up to the last page of all. */
static void the_upper_half(void **state)
{
    static const enum mm_pagetable_id ids[] = {MM_PAGETABLE_ID_X86_64, MM_PAGETABLE_ID_SV39,
                                               MM_PAGETABLE_ID_SV57};
    (void)state;
    for (unsigned i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        const mm_va_t last = (mm_va_t)0 - PAGE, first = (mm_va_t)0 - 3 * GIB;
        begin(ids[i], false);
        begin_cursor(first, 3 * GIB);
        for (unsigned round = 0; round < 3; round++) {
            assert_int_equal(map_at(last, 0x8000), MM_OK);
            assert_int_equal(map_at(first, 0x9000), MM_OK);
            assert_int_equal(map_at(first + GIB, 0xa000), MM_OK);
            assert_int_equal(map_at(0, 0xa000), MM_ERR_INVALID);
            assert_int_equal(map_at(first - PAGE, 0xa000), MM_ERR_INVALID);
            assert_int_equal(mm_pagetable_translate(&s.pt, last), 0x8000);
            assert_int_equal(unmap_at(first), MM_OK);
            assert_int_equal(unmap_at(last), MM_OK);
            assert_int_equal(mm_pagetable_translate(&s.pt, first + GIB), 0xa000);
            assert_int_equal(unmap_at(first + GIB), MM_OK);
        }
        mm_pagetable_cursor_end(&c);
        assert_int_equal(s.ram->in_use, 1);
        space_end(&s);
    }
}

/* Each flush covers what left, global pages are told, and a table that goes is told too. */
static void the_flush_is_told(void **state)
{
    struct mm_pagetable_batch batch;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, false);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(map(&s, BASE + i * 2 * MIB, 0x1000, 2 * PAGE, RW), MM_OK);
    assert_int_equal(map(&s, BASE + 6 * MIB, 0x8000, PAGE, RW | MM_PAGETABLE_GLOBAL), MM_OK);
    mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, BASE, GIB, &batch), MM_OK);
    for (unsigned i = 0; i < 6; i++) {
        mm_va_t va = BASE + i / 2 * 2 * MIB + i % 2 * PAGE;
        assert_int_equal(unmap_at(va), MM_OK);
        mm_pagetable_batch_finish(&batch);
        assert_int_equal(s.last.count, 1);
        assert_int_equal(s.last_ranges[0].va, va);
        assert_int_equal(s.last_ranges[0].bytes, PAGE);
        assert_false(s.last.filled_only);
        assert_false(s.last.global);
        assert_int_equal(s.last.tables_unlink, i % 2);
    }
    assert_int_equal(unmap_at(BASE + 6 * MIB), MM_OK);
    mm_pagetable_batch_finish(&batch);
    assert_true(s.last.global);
    mm_pagetable_cursor_end(&c);
    mm_pagetable_batch_finish(&batch);
    space_end(&s);
}

/* RISC-V is told of new pages too, unless it has Svvptc. */
static void new_pages_are_told(void **state)
{
    struct mm_pagetable_batch batch;
    (void)state;
    for (unsigned has = 0; has < 2; has++) {
        space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
        s.config.flags |= has ? MM_PAGETABLE_SVVPTC : 0;
        space_make(&s);
        mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
        assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, BASE, GIB, &batch), MM_OK);
        for (unsigned i = 0; i < 40; i++) /* more than are flushed one by one */
            assert_int_equal(map_at(BASE + (5 + i) * PAGE, 0x1000), MM_OK);
        mm_pagetable_batch_finish(&batch);
        assert_true(has || s.last.filled_only);
        assert_int_equal(s.full_flushes, has ? 0 : 1);
        size_t flushes = s.flushes;
        assert_int_equal(map_at(BASE + 3 * PAGE, 0x2000), MM_OK);
        mm_pagetable_batch_finish(&batch);
        assert_int_equal(s.flushes, flushes + (has ? 0 : 1));
        if (!has) {
            assert_true(s.last.filled_only);
            assert_int_equal(s.last_ranges[0].va, BASE + 3 * PAGE);
        }
        mm_pagetable_cursor_end(&c);
        mm_pagetable_batch_finish(&batch);
        space_end(&s);
    }
}

static void begin_kept(enum mm_pagetable_id id)
{
    space_begin(&s, ram_make(), mm_pagetable_format_of(id));
    s.config.flags |= MM_PAGETABLE_KEEP_EMPTY;
    s.hooks.release = NULL;
    space_make(&s);
}

static void empty_tables_stay_where_asked(void **state)
{
    static const enum mm_pagetable_id ids[] = {MM_PAGETABLE_ID_X86_64, MM_PAGETABLE_ID_SV39};
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        begin_kept(ids[k]);
        begin_cursor(BASE, GIB);
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(map_at(BASE + i * 4 * MIB, 0), MM_OK);
        size_t tables = s.ram->in_use;
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(unmap_at(BASE + i * 4 * MIB), MM_OK);
        mm_pagetable_cursor_end(&c);
        assert_int_equal(s.ram->in_use, tables);
        assert_int_equal(stats_of(&s).leaves[0], 0);
        space_end(&s);
    }
}

/* Where nothing but entries changes any more, steps are short; each is flushed all the same, and
 * one that comes after a flush in the midst too. */
static void short_steps_are_flushed(void **state)
{
    enum { N = 60 };
    struct mm_pagetable_batch batch;
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        for (unsigned given = 0; given < 2; given++) {
            begin_kept((enum mm_pagetable_id)id);
            for (unsigned i = 0; i < N; i++)
                assert_int_equal(map(&s, BASE + i * 3 * PAGE, i * PAGE, PAGE, RW), MM_OK);
            assert_int_equal(map(&s, BASE + GIB, 0, PAGE, RW), MM_OK);
            mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
            memset(&c, 1, sizeof c); /* whatever stood there */
            c.near = 0;
            assert_int_equal(
                mm_pagetable_cursor_begin(&c, &s.pt, BASE, GIB, given != 0 ? &batch : NULL), MM_OK);
            assert_int_equal(map_at(BASE + GIB / 2, 0), MM_OK);
            for (unsigned i = 0; i < N - 2; i++)
                assert_int_equal(unmap_at(BASE + i * 3 * PAGE), MM_OK);
            assert_int_equal(unmap_at(BASE + GIB), MM_ERR_INVALID);
            assert_int_equal(map_at(BASE, 0x1000), MM_OK); /* Arm wants a flush before */
            uint64_t flushes = s.flushes;
            assert_int_equal(unmap_at(BASE + (N - 1) * 3 * PAGE), MM_OK);
            mm_pagetable_cursor_end(&c);
            mm_pagetable_batch_finish(&batch);
            assert_true(s.flushes == flushes + 1 && !s.last.filled_only);
            assert_true(s.last.all || s.last_ranges[0].va == BASE + (N - 1) * 3 * PAGE);
            assert_int_equal(stats_of(&s).leaves[0], 4);
            space_end(&s);
        }
}

/* A step that goes on from where the last one was leads the next one back. */
static void short_steps_follow_a_step_elsewhere(void **state)
{
    enum { N = 50 };
    const mm_va_t far = BASE + 512 * GIB;
    (void)state;
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++) {
        if (mm_pagetable_format_of((enum mm_pagetable_id)id)->levels < 4)
            continue;
        begin_kept((enum mm_pagetable_id)id);
        for (unsigned i = 0; i < N; i++) {
            assert_int_equal(map(&s, BASE + i * 3 * PAGE, i * PAGE, PAGE, RW), MM_OK);
            assert_int_equal(map(&s, far + i * 3 * PAGE, (N + i) * PAGE, PAGE, RW), MM_OK);
        }
        begin_cursor(BASE, 513 * GIB);
        for (unsigned i = 0; i < N - 2; i++)
            assert_int_equal(unmap_at(BASE + i * 3 * PAGE), MM_OK);
        assert_int_equal(mm_pagetable_cursor_seek(&c, far), MM_OK);
        assert_int_equal(mm_pagetable_cursor_unmap(&c), MM_OK);
        assert_int_equal(unmap_at(BASE + (N - 1) * 3 * PAGE), MM_OK);
        mm_pagetable_cursor_end(&c);
        assert_int_equal(mm_pagetable_translate(&s.pt, BASE + (N - 1) * 3 * PAGE), MM_PA_NONE);
        assert_int_equal(mm_pagetable_translate(&s.pt, far), MM_PA_NONE);
        assert_int_equal(stats_of(&s).leaves[0], N);
        space_end(&s);
    }
}

/* Of two entries of a table right below the root either may go first, wherever they are, and what
 * the cursor remembers of it from before. */
static void a_table_stays_while_any_entry_is_left(void **state)
{
    static const unsigned first[] = {0, 1, 4, 255, 509, 511};
    (void)state;
    begin(MM_PAGETABLE_ID_SV39, false);
    begin_cursor(BASE, GIB);
    for (unsigned i = 0; i < sizeof first / sizeof first[0]; i++)
        for (unsigned other = 0; other < 512; other += 3) {
            if (other == first[i])
                continue;
            assert_int_equal(map_at(BASE + first[i] * 2 * MIB, PAGE), MM_OK);
            assert_int_equal(map_at(BASE + other * 2 * MIB, 2 * PAGE), MM_OK);
            assert_int_equal(unmap_at(BASE + first[i] * 2 * MIB), MM_OK);
            assert_int_equal(mm_pagetable_translate(&s.pt, BASE + other * 2 * MIB), 2 * PAGE);
            assert_int_equal(unmap_at(BASE + other * 2 * MIB), MM_OK);
            assert_int_equal(mm_pagetable_translate(&s.pt, BASE + other * 2 * MIB), MM_PA_NONE);
        }
    mm_pagetable_cursor_end(&c);
    assert_int_equal(s.ram->in_use, 1);
    space_end(&s);
}

/* `count` tables with a page each, up to 511 in a GiB, whose first table stays. */
static void make_tables(unsigned count)
{
    begin_cursor(BASE, 8 * GIB);
    for (unsigned i = 0; i < count; i++) {
        mm_va_t va = BASE + i / 511 * GIB;
        if (i % 511 == 0)
            assert_int_equal(map_at(va, 0), MM_OK);
        assert_int_equal(map_at(va + (1 + i % 511) * 2 * MIB, 0x1000), MM_OK);
    }
    mm_pagetable_cursor_end(&c);
}

/* They die one by one. */
static void drop_tables(unsigned count, struct mm_pagetable_batch *batch)
{
    for (unsigned i = 0; i < count; i += 511) {
        unsigned n = count - i < 511 ? count - i : 511;
        assert_int_equal(
            mm_pagetable_unmap(&s.pt, BASE + i / 511 * GIB + 2 * MIB, n * 2 * MIB, batch), MM_OK);
    }
}

static void drop_rest(unsigned count)
{
    for (unsigned i = 0; i < count; i += 511)
        assert_int_equal(mm_pagetable_unmap(&s.pt, BASE + i / 511 * GIB, PAGE, NULL), MM_OK);
    assert_int_equal(s.ram->in_use, 1);
}

/* More dead tables than one of them can list, in one batch; each comes back once. */
static void more_dead_tables_than_one_lists(void **state)
{
    static const unsigned counts[] = {1, 2, 511, 512, 513, 514, MOST};
    struct mm_pagetable_batch batch;
    (void)state;
    for (unsigned k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        begin(MM_PAGETABLE_ID_X86_64, false);
        make_tables(counts[k]);
        mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
        size_t tables = s.ram->in_use;
        drop_tables(counts[k], &batch);
        assert_int_equal(s.ram->in_use, tables); /* until the flush */
        mm_pagetable_batch_finish(&batch);
        assert_int_equal(s.ram->in_use, tables - counts[k]);
        drop_rest(counts[k]);
        space_end(&s);
    }
}

/* The same of whole subtrees, which find a list or none; and of such that hold no table. */
static void dead_subtrees(void **state)
{
    static const unsigned counts[] = {0, 509, 510, 511, 512, 513};
    struct mm_pagetable_batch batch;
    (void)state;
    for (unsigned k = 0; k < 2 * sizeof counts / sizeof counts[0]; k++) {
        const unsigned before = counts[k / 2];
        begin(MM_PAGETABLE_ID_X86_64, false);
        make_tables(before);
        for (unsigned i = 0; i < 6; i++) {
            mm_va_t va = BASE + (8 + i) * GIB;
            if (k % 2 != 0)
                assert_int_equal(map(&s, va, 0, 4 * MIB, RW), MM_OK);
            for (unsigned j = 0; k % 2 == 0 && j <= i; j++)
                assert_int_equal(map(&s, va + j * 8 * MIB + 4 * MIB, 0, PAGE, RW), MM_OK);
        }
        mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
        size_t tables = s.ram->in_use;
        drop_tables(before, &batch);
        assert_int_equal(mm_pagetable_unmap(&s.pt, BASE + 8 * GIB, 6 * GIB, &batch), MM_OK);
        assert_int_equal(s.ram->in_use, tables);
        mm_pagetable_batch_finish(&batch);
        drop_rest(before);
        space_end(&s);
    }
}

/* So many that the cursor does not wait with them until its end. */
static void tables_go_on_the_way(void **state)
{
    static const enum mm_pagetable_id ids[] = {MM_PAGETABLE_ID_X86_64, MM_PAGETABLE_ID_SV39};
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        begin(ids[k], false);
        begin_cursor(BASE, 4 * GIB);
        for (unsigned i = 0; i < MOST; i++)
            assert_int_equal(map_at(BASE + i * 2 * MIB, i * PAGE), MM_OK);
        size_t tables = s.ram->in_use;
        for (unsigned i = 0; i < MOST; i++) {
            assert_int_equal(unmap_at(BASE + i * 2 * MIB), MM_OK);
            assert_in_range(tables - s.ram->in_use, i < 300 ? 0 : i - 299, i + 3);
        }
        mm_pagetable_cursor_end(&c);
        assert_int_equal(s.ram->in_use, 1);
        space_end(&s);
    }
}

/* Just before the range lies a hole, then a page like those that it has: neither is touched. */
static void nothing_happens_before_the_range(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, false);
    assert_int_equal(map(&s, BASE, 0x3000, PAGE, RW), MM_OK);
    begin_cursor(BASE + 2 * PAGE, GIB);
    for (unsigned i = 2; i < 6; i++)
        assert_int_equal(map_at(BASE + i * PAGE, i * PAGE), MM_OK);
    assert_int_equal(map_at(BASE + PAGE, 0x1000), MM_ERR_INVALID);
    assert_int_equal(unmap_at(BASE + 3 * PAGE), MM_OK);
    assert_int_equal(unmap_at(BASE + 4 * PAGE), MM_OK);
    assert_int_equal(unmap_at(BASE), MM_ERR_INVALID);
    mm_pagetable_cursor_end(&c);
    assert_int_equal(mm_pagetable_translate(&s.pt, BASE), 0x3000);
    assert_int_equal(mm_pagetable_translate(&s.pt, BASE + PAGE), MM_PA_NONE);
    space_end(&s);
}

/* Pages of equal indexes below another entry of the level above are not near. */
static void another_region_has_tables_of_its_own(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, false);
    begin_cursor(BASE, 600 * GIB);
    assert_int_equal(map_at(BASE, 0x1000), MM_OK);
    assert_int_equal(map_at(BASE + 512 * GIB + PAGE, 0x2000), MM_OK);
    assert_int_equal(map_at(BASE + 2 * PAGE, 0x3000), MM_OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(mm_pagetable_translate(&s.pt, BASE + i * PAGE),
                         i == 1 ? MM_PA_NONE : (i + 1) * PAGE);
        assert_int_equal(mm_pagetable_translate(&s.pt, BASE + 512 * GIB + i * PAGE),
                         i == 1 ? (i + 1) * PAGE : MM_PA_NONE);
    }
    mm_pagetable_cursor_end(&c);
    space_end(&s);
}

/* AArch64: what left a place is out of the TLBs before something new comes there. */
static void the_old_page_is_flushed_before_the_new_one(void **state)
{
    (void)state;
    begin(MM_PAGETABLE_ID_AARCH64_S1, false);
    begin_cursor(BASE, GIB);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(map_at(BASE + i * PAGE, i * PAGE), MM_OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(unmap_at(BASE + i * PAGE), MM_OK);
        uint64_t flushes = s.flushes;
        assert_int_equal(map_at(BASE + i * PAGE, 0x9000), MM_OK);
        assert_int_equal(s.flushes, flushes + 1);
        assert_int_equal(s.last_ranges[0].va, BASE + i * PAGE);
    }
    mm_pagetable_cursor_end(&c);
    space_end(&s);
}

/* The flush that comes when many tables are dead covers those, not the one that goes after it. */
static void a_table_after_the_flush_is_told_by_the_next(void **state)
{
    struct mm_pagetable_batch batch;
    unsigned i = 0;
    (void)state;
    begin(MM_PAGETABLE_ID_X86_64, false);
    make_tables(500);
    mm_pagetable_batch_init(&batch, &s.pt, NULL, 0);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, BASE, GIB, &batch), MM_OK);
    while (s.flushes == 0 && i++ < 400)
        assert_int_equal(unmap_at(BASE + i * 2 * MIB), MM_OK);
    assert_in_range(i, 200, 300);
    mm_pagetable_batch_finish(&batch);
    assert_int_equal(s.last.count, 1);
    assert_int_equal(s.last_ranges[0].va, BASE + i * 2 * MIB);
    assert_true(s.last.tables_unlink);
    mm_pagetable_cursor_end(&c);
    mm_pagetable_batch_finish(&batch);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_come_and_go),
        cmocka_unit_test(errors_leave_all_as_it_was),
        cmocka_unit_test(steps_of_both_kinds_take_turns),
        cmocka_unit_test(the_upper_half),
        cmocka_unit_test(the_flush_is_told),
        cmocka_unit_test(new_pages_are_told),
        cmocka_unit_test(empty_tables_stay_where_asked),
        cmocka_unit_test(short_steps_are_flushed),
        cmocka_unit_test(short_steps_follow_a_step_elsewhere),
        cmocka_unit_test(a_table_stays_while_any_entry_is_left),
        cmocka_unit_test(more_dead_tables_than_one_lists),
        cmocka_unit_test(dead_subtrees),
        cmocka_unit_test(tables_go_on_the_way),
        cmocka_unit_test(nothing_happens_before_the_range),
        cmocka_unit_test(another_region_has_tables_of_its_own),
        cmocka_unit_test(the_old_page_is_flushed_before_the_new_one),
        cmocka_unit_test(a_table_after_the_flush_is_told_by_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
