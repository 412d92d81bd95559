/* mm_pagetable: many pages in one call of a cursor: each as by a single step, in the order of the
 * list, up to the first that is refused. */
#include <stdint.h>

#ifndef MM_PAGETABLE_WINDOWS
static void *table_at(uintptr_t at);
static unsigned long looks;
#define MM_PAGETABLE_STATIC
#define MM_PAGETABLE_OPEN(pt, pa) table_at((uintptr_t)(pa) + (pt)->direct)
#endif
#include "pagetable_test.h"

#ifndef MM_PAGETABLE_WINDOWS
static void *table_at(uintptr_t at)
{
    looks++;
    return (void *)at;
}
#else
#define looks windows_opened
#endif

static struct space s;
static struct mm_pagetable_cursor c;

#define COUNT 300u
#define BASE  ((mm_va_t)GIB)
static mm_va_t va[COUNT];
static mm_pa_t pa[COUNT];

/* Far from each other, near each other, and both; the order is not theirs. */
static void choose(uint64_t bytes)
{
    for (unsigned i = 0; i < COUNT; i++) {
        uint64_t k = i * 7 % COUNT;
        va[i] = BASE + (k % 3 == 0 ? k * 5 * MIB : k * PAGE) % bytes;
        pa[i] = (0x700 + i) * PAGE;
    }
}

static void begin_cursor(void)
{
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, BASE, 2 * GIB - MIB, NULL), MM_OK);
}

static void begin(enum mm_pagetable_id id)
{
    space_simple(&s, mm_pagetable_format_of(id));
    begin_cursor();
}

static void end(void)
{
    mm_pagetable_cursor_end(&c);
    space_end(&s);
}

/* How many are done, with the status that goes with it. */
static size_t bulk_map(size_t count, enum mm_status expected)
{
    enum mm_status status = MM_ERR_CORRUPT;
    size_t done = mm_pagetable_cursor_map_bulk(&c, va, pa, count, RW, &status);
    assert_int_equal(status, expected);
    return done;
}

static size_t bulk_unmap(size_t count, enum mm_status expected)
{
    enum mm_status status = MM_ERR_CORRUPT;
    size_t done = mm_pagetable_cursor_unmap_bulk(&c, va, count, &status);
    assert_int_equal(status, expected);
    return done;
}

/* Are the first `count` pages of the list there, and no others? */
static void only_the_first(size_t count)
{
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(mm_pagetable_translate(&s.pt, va[i] + 5),
                         i < count ? pa[i] + 5 : MM_PA_NONE);
    assert_int_equal(stats_of(&s).leaves[0], count);
}

static void every_length_in_every_format(void **state)
{
    static const size_t counts[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 24, 25, COUNT};
    (void)state;
    choose(2 * GIB - MIB);
    for (unsigned id = 0; id < MM_PAGETABLE_ID_COUNT; id++)
        for (unsigned k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            begin((enum mm_pagetable_id)id);
            size_t tables = s.ram->in_use;
            assert_int_equal(bulk_map(counts[k], MM_OK), counts[k]);
            only_the_first(counts[k]);
            mm_pagetable_cursor_end(&c);
            space_check(&s);
            begin_cursor();
            assert_int_equal(bulk_unmap(counts[k], MM_OK), counts[k]);
            only_the_first(0);
            mm_pagetable_cursor_end(&c);
            assert_int_equal(s.ram->in_use, tables); /* the empty ones went */
            assert_int_equal(s.release_count != 0, counts[k] != 0);
            space_end(&s);
        }
}

static void holes_are_passed_over(void **state)
{
    (void)state;
    choose(2 * GIB - MIB);
    begin(MM_PAGETABLE_ID_SV48);
    assert_int_equal(bulk_unmap(COUNT, MM_OK), COUNT);
    assert_int_equal(bulk_map(20, MM_OK), 20);
    va[19] = va[3]; /* named twice: the second is a hole by then */
    assert_int_equal(bulk_unmap(COUNT, MM_OK), COUNT);
    assert_int_equal(stats_of(&s).leaves[0], 1); /* the 19th, which the list has no more */
    end();
}

/* The page number `at` is refused: all before it are done, it and those behind it are as before. */
static void refused_at(size_t at, enum mm_status status)
{
    assert_int_equal(bulk_map(COUNT, status), at);
    only_the_first(at);
    assert_int_equal(bulk_unmap(at, MM_OK), at);
    only_the_first(0);
}

static void the_first_refusal_ends_a_map(void **state)
{
    (void)state;
    choose(2 * GIB - MIB);
    for (size_t at = 0; at < 40; at++) {
        mm_va_t right = va[at];
        mm_pa_t frame = pa[at];
        begin(MM_PAGETABLE_ID_X86_64);
        pa[at] = 8;
        refused_at(at, MM_ERR_ALIGN);
        pa[at] = (mm_pa_t)1 << 52;
        refused_at(at, MM_ERR_INVALID);
        pa[at] = frame;
        va[at] = right + 1;
        assert_int_equal(bulk_map(COUNT, MM_ERR_ALIGN), at);
        assert_int_equal(bulk_unmap(COUNT, MM_ERR_ALIGN), at);
        va[at] = BASE - PAGE;
        refused_at(at, MM_ERR_INVALID);
        va[at] = right;
        end();
    }
}

static void what_stands_there_ends_it(void **state)
{
    (void)state;
    choose(2 * GIB - MIB);
    space_simple(&s, mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
    assert_int_equal(map(&s, va[33], 0x5000, PAGE, RO), MM_OK);
    assert_int_equal(map(&s, BASE + 2 * GIB - 2 * MIB, 0x40000000, 2 * MIB, RO), MM_OK);
    assert_int_equal(mm_pagetable_cursor_begin(&c, &s.pt, BASE, 2 * GIB, NULL), MM_OK);
    assert_int_equal(bulk_map(COUNT, MM_ERR_EXISTS), 33);
    va[20] = BASE + 2 * GIB - MIB; /* in a leaf of 2 MiB */
    assert_int_equal(bulk_unmap(33, MM_ERR_BUSY), 20);
    assert_int_equal(mm_pagetable_translate(&s.pt, va[20]), 0x40000000 + MIB);
    assert_int_equal(mm_pagetable_translate(&s.pt, va[19]), MM_PA_NONE);
    assert_int_equal(mm_pagetable_translate(&s.pt, va[21]), pa[21]);
    end();
}

static void no_list(void **state)
{
    enum mm_status status = MM_OK;
    (void)state;
    choose(2 * GIB - MIB);
    begin(MM_PAGETABLE_ID_EPT);
    assert_int_equal(bulk_map(2, MM_OK), 2);
    assert_int_equal(mm_pagetable_cursor_map_bulk(&c, va, NULL, 2, RW, &status), 0);
    assert_int_equal(status, MM_ERR_INVALID);
    status = MM_OK;
    assert_int_equal(mm_pagetable_cursor_map_bulk(&c, NULL, pa, 2, RW, &status), 0);
    assert_int_equal(status, MM_ERR_INVALID);
    status = MM_OK;
    assert_int_equal(mm_pagetable_cursor_unmap_bulk(&c, NULL, 2, &status), 0);
    assert_int_equal(status, MM_ERR_INVALID);
    only_the_first(2);
    assert_int_equal(mm_pagetable_cursor_map_bulk(&c, va, pa, 2, RW, NULL), 0);
    assert_int_equal(mm_pagetable_cursor_map_bulk(&c, va + 2, pa + 2, 2, 0, &status), 0);
    assert_int_equal(status, MM_ERR_INVALID);
    assert_int_equal(mm_pagetable_cursor_unmap_bulk(&c, va, 2, NULL), 2);
    end();
}

/* Beyond the cursor's range another writer may be at work: nothing is looked at there. */
static void nothing_is_looked_at_beyond_the_range(void **state)
{
    unsigned long inside, before;
    (void)state;
    choose(2 * GIB - MIB);
    begin(MM_PAGETABLE_ID_SV39);
    before = looks;
    assert_int_equal(bulk_unmap(17, MM_OK), 17);
    inside = looks - before;
#ifndef MM_PAGETABLE_WINDOWS
    assert_true(inside >= 2 * 17); /* else there are no looks ahead at all */
#endif
    va[17] = BASE + 200 * GIB;
    before = looks;
    assert_int_equal(bulk_unmap(18, MM_ERR_INVALID), 17);
    assert_true(looks - before <= inside);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_in_every_format),
        cmocka_unit_test(holes_are_passed_over),
        cmocka_unit_test(the_first_refusal_ends_a_map),
        cmocka_unit_test(what_stands_there_ends_it),
        cmocka_unit_test(no_list),
        cmocka_unit_test(nothing_is_looked_at_beyond_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
