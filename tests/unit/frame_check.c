/* mm_frame_check and mm_frame_dump: each field that is damaged on purpose is found and named. */
#define MM_CPU_MAX 3
#include "frame_test.h"

#define SECTION_FRAMES ((uint64_t)4096)

static struct lab lab;

/* Zone 0: section 0, CPU 0's, with a word in hand and a huge block; section 1, nobody's, half used.
 * Zone 1: 100 frames of section 2, nobody's. */
static int start(void **state)
{
    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, (2 * SECTION_FRAMES + 100) * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(&lab, "low", 0, 2 * SECTION_FRAMES * PAGE);
    (void)lab_zone(&lab, "high", 2 * SECTION_FRAMES * PAGE, 4 * SECTION_FRAMES * PAGE);
    lab.zone[1].spare = SECTION_FRAMES * PAGE;
    lab.config.descriptors = true;
    lab_start(&lab);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), 0);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, 9, 0), 512 * PAGE);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, SECTION_FRAMES * PAGE, 2000), MM_OK);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, (2 * SECTION_FRAMES + 10) * PAGE, 1), MM_OK);
    assert_healthy(&lab, 2514);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    free(lab.meta);
    return 0;
}

static void assert_corrupt(const char *named)
{
    const char *what = NULL;

    assert_int_equal(mm_frame_check(&lab.pool, UINT64_MAX, NULL), MM_FRAME_CORRUPT);
    assert_int_equal(mm_frame_check(&lab.pool, 2514, &what), MM_FRAME_CORRUPT);
    assert_non_null(what);
    if (strncmp(what, named, strlen(named)) != 0)
        fail_msg("named \"%s\", not \"%s\"", what, named);
}

/* Asserts that the check finds `field` when it has this value, and nothing once it has the old
 * one. */
#define corrupt(field, value, named)          \
    do {                                      \
        __typeof__(field) old_ = (field);     \
        (field) = (__typeof__(field))(value); \
        assert_corrupt(named);                \
        (field) = old_;                       \
        assert_healthy(&lab, 2514);           \
    } while (0)

#define SECTION(n)       (lab.pool.section[n])
#define WORD(section, w) (lab.pool.word[(section)*64 + (w)])
#define CURSOR           (lab.pool.cpu[0].cursor[0])
#define SPANS            (lab.pool.table[lab.pool.table_current])

static void a_sound_pool_is_healthy_or_leaks(void **state)
{
    const char *what = "?";

    (void)state;
    assert_int_equal(mm_frame_check(&lab.pool, 2514, &what), MM_FRAME_HEALTHY);
    assert_null(what);
    assert_int_equal(mm_frame_check(&lab.pool, UINT64_MAX, NULL), MM_FRAME_HEALTHY);
    assert_int_equal(mm_frame_check(&lab.pool, 2513, &what), MM_FRAME_LEAK);
    assert_string_equal(what, "more frames in use than expected");
    assert_int_equal(mm_frame_check(&lab.pool, 2515, &what), MM_FRAME_LEAK);
    assert_string_equal(what, "fewer frames in use than expected");
    assert_int_equal(mm_frame_check(&lab.pool, 0, NULL), MM_FRAME_LEAK);
}

static void a_damaged_some_is_found(void **state)
{
    (void)state;
    corrupt(SECTION(0).some, SECTION(0).some & ~(uintptr_t)1, "S1");
    corrupt(SECTION(1).some, SECTION(1).some & ~((uintptr_t)1 << 31), "S1");
    corrupt(SECTION(0).some, SECTION(0).some | (uintptr_t)1 << 8, "S3");
}

static void a_damaged_full_is_found(void **state)
{
    (void)state;
    corrupt(SECTION(0).full, SECTION(0).full | 1, "S2");
    corrupt(SECTION(0).full, SECTION(0).full & ~(uintptr_t)2, "S2");
    corrupt(SECTION(0).full, SECTION(0).full | (uintptr_t)1 << 9, "S3");
    corrupt(SECTION(1).full, SECTION(1).full & ~((uintptr_t)1 << 63), "S2");
    corrupt(SECTION(1).full, SECTION(1).full | (uintptr_t)1 << 25, "S2");
}

static void a_damaged_huge_is_found(void **state)
{
    (void)state;
    corrupt(SECTION(0).huge, SECTION(0).huge | 2, "S3");
    corrupt(SECTION(0).huge, SECTION(0).huge | (uintptr_t)1 << 16, "S3");
    corrupt(SECTION(0).huge, 0, "S1");
    corrupt(SECTION(2).huge, (uintptr_t)1 << 8, "bitmap");
}

static void a_damaged_bitmap_is_found(void **state)
{
    (void)state;
    corrupt(WORD(2, 1), ~(uintptr_t)0, "bitmap");
    corrupt(WORD(2, 3), 1, "S1");
    corrupt(WORD(0, 0), WORD(0, 0) | 1, "zone: counters");
    corrupt(WORD(0, 0), WORD(0, 0) & ~(uintptr_t)2, "zone: counters");
    corrupt(WORD(0, 1), WORD(0, 1) & ~(uintptr_t)2, "S2");
    corrupt(WORD(1, 40), 0, "S2");
    corrupt(WORD(1, 31), WORD(1, 31) & (WORD(1, 31) - 1), "S5");
}

static void damaged_section_counts_are_found(void **state)
{
    (void)state;
    corrupt(SECTION(1).free, SECTION(1).free + 1, "S5");
    corrupt(SECTION(2).free, 0, "S5");
    corrupt(SECTION(0).managed, SECTION_FRAMES - 1, "section: wrong count of managed");
    corrupt(SECTION(2).managed, 101, "section: wrong count of managed");
}

static void a_damaged_owner_is_found(void **state)
{
    (void)state;
    corrupt(lab.pool.owner[1], MM_CPU_MAX + 1, "section: bad owner");
    corrupt(lab.pool.owner[1], MM_BIAS_LOCKED, "section: bad owner");
    corrupt(lab.pool.owner[1], 0, "set");
    corrupt(lab.pool.owner[0], 2, "cursor");
}

static void a_damaged_place_of_a_section_is_found(void **state)
{
    (void)state;
    corrupt(SECTION(0).zone, 1, "span");
    corrupt(SECTION(1).pfn, 0, "span");
    corrupt(SECTION(2).zone, 0, "span");
}

static void damaged_spans_are_found(void **state)
{
    (void)state;
    assert_int_equal(SPANS.count, 2);
    corrupt(SPANS.span[0].pfn, 1, "section: wrong count of managed");
    corrupt(SPANS.span[0].pfn, 2 * SECTION_FRAMES, "span");
    corrupt(SPANS.span[0].end, 2 * SECTION_FRAMES - 1, "bitmap");
    corrupt(SPANS.span[0].end, 2 * SECTION_FRAMES + 1, "span");
    corrupt(SPANS.span[1].pfn, 5, "span");
    corrupt(SPANS.span[1].end, 2 * SECTION_FRAMES + 99, "bitmap");
    corrupt(SPANS.span[1].end, 5 * SECTION_FRAMES, "span");
    corrupt(SPANS.span[0].delta, SECTION_FRAMES, "span");
    corrupt(SPANS.span[1].delta, 0 - SECTION_FRAMES, "span");
    corrupt(SPANS.span[0].zone, 1, "span");
    corrupt(SPANS.span[0].zone, 2, "span");
    corrupt(SPANS.span[0].zone, 1000, "span");
    corrupt(SPANS.count, 1, "");
    corrupt(SPANS.count, 1000, "span table");
    corrupt(lab.pool.table_current, 2, "span table");
}

static void damaged_zones_are_found(void **state)
{
    (void)state;
    corrupt(lab.pool.zone_count, MM_FRAME_ZONE_MAX + 1, "pool");
    corrupt(lab.pool.zone[0].managed, 5, "zone: wrong count of managed");
    corrupt(lab.pool.zone[0].used, lab.pool.zone[0].used + 1, "zone: counters");
    corrupt(lab.pool.zone[0].sections, 1, "span");
    corrupt(lab.pool.zone[1].sections, lab.pool.sections + 1, "zone: bad range");
    corrupt(lab.pool.zone[1].last, lab.pool.sections + 1, "zone: bad range");
    corrupt(lab.pool.zone[0].first, 1, "span");
    corrupt(lab.pool.zone[0].end, SECTION_FRAMES, "span: outside");
    corrupt(lab.pool.zone[1].pfn, 2 * SECTION_FRAMES + 1, "span: outside");
}

static void damaged_counters_are_found(void **state)
{
    (void)state;
    corrupt(CURSOR.used, CURSOR.used - 1, "zone: counters");
    corrupt(lab.pool.cpu[2].cursor[1].used, 1, "zone: counters");
}

static void damaged_cursors_are_found(void **state)
{
    (void)state;
    assert_ptr_equal(CURSOR.section, &SECTION(0));
    corrupt(CURSOR.pa, CURSOR.pa + 64 * PAGE, "cursor");
    corrupt(CURSOR.word, &WORD(0, 1), "cursor");
    corrupt(CURSOR.word, &WORD(1, 1), "cursor");
    corrupt(lab.pool.cpu[1].cursor[1].word, &WORD(2, 1), "cursor");
    corrupt(*mmi_frame_owner(&lab.pool, lab.pool.nowhere), 1, "cursor");
}

static void damaged_sets_are_found(void **state)
{
    (void)state;
    for (unsigned kind = MMI_FRAME_AVAIL; kind <= MMI_FRAME_WHOLE; kind++) {
        uintptr_t *nobodys = mmi_frame_set(&lab.pool, MMI_FRAME_NOBODY, kind);
        uintptr_t *cpu_0s = mmi_frame_set(&lab.pool, 0, kind);
        corrupt(nobodys[0], nobodys[0] & ~(uintptr_t)2, "set");
        corrupt(cpu_0s[0], cpu_0s[0] & ~(uintptr_t)1, "set");
    }
}

static void a_damaged_level_of_a_set_is_found(void **state)
{
    struct lab big;
    const char *what = NULL;

    (void)state;
    lab_simple(&big, 65 * SECTION_FRAMES);
    assert_int_equal(big.pool.levels, 2);
    mmi_frame_set(&big.pool, MMI_FRAME_NOBODY, MMI_FRAME_AVAIL)[big.pool.level_at[1]] &=
        ~(uintptr_t)2;
    assert_int_equal(mm_frame_check(&big.pool, 0, &what), MM_FRAME_CORRUPT);
    assert_string_equal(what, "H1: a level disagrees");
    free(big.meta);
}

static void a_reference_to_a_free_frame_is_found(void **state)
{
    (void)state;
    corrupt(mm_frame_desc_of(&lab.pool, 5 * PAGE)->refs, 1, "descriptor");
    corrupt(mm_frame_desc_of(&lab.pool, (2 * SECTION_FRAMES + 99) * PAGE)->refs, 7, "descriptor");
    mm_frame_desc_of(&lab.pool, 600 * PAGE)->refs = 1;
    assert_healthy(&lab, 2514);
}

/* ---- dump ------------------------------------------------------------------------------------ */

static char lines[16][160];
static unsigned line_count;

static void print(void *ctx, const char *line)
{
    assert_ptr_equal(ctx, lines);
    assert_in_range(line_count, 0, 15);
    assert_true(strlen(line) < sizeof lines[0]);
    strcpy(lines[line_count++], line);
}

static void dump_prints_zones_spans_and_sections(void **state)
{
    static const char *const expected[] = {
        "zone low: frames 8192 free 5679 used 2513 (30%)",
        "zone high: frames 100 free 99 used 1 (1%)",
        "span 0x0 - 0x2000000 low",
        "span 0x2000000 - 0x2064000 high",
        "section 0x0 frames 4096 free 3583 cpu 0 whole 6",
        "section 0x1000000 frames 4096 free 2096 nobody's whole 4",
        "section 0x2000000 frames 100 free 99 nobody's whole 0",
    };

    (void)state;
    line_count = 0;
    mm_frame_dump(&lab.pool, print, lines);
    assert_int_equal(line_count, 7);
    for (unsigned i = 0; i < 7; i++) {
        assert_null(strchr(lines[i], '\n'));
        if (strncmp(lines[i], expected[i], strlen(expected[i])) != 0)
            fail_msg("\"%s\", not \"%s\"", lines[i], expected[i]);
    }
}

static void dump_shortens_names_that_are_too_long(void **state)
{
    static char name[500];

    (void)state;
    memset(name, 'n', sizeof name - 1);
    lab.pool.zone[0].name = name;
    line_count = 0;
    mm_frame_dump(&lab.pool, print, lines);
    assert_int_equal(line_count, 7);
    assert_in_range(strlen(lines[0]), 100, 158);
}

int main(void)
{
#define check_test(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        check_test(a_sound_pool_is_healthy_or_leaks),
        check_test(a_damaged_some_is_found),
        check_test(a_damaged_full_is_found),
        check_test(a_damaged_huge_is_found),
        check_test(a_damaged_bitmap_is_found),
        check_test(damaged_section_counts_are_found),
        check_test(a_damaged_owner_is_found),
        check_test(a_damaged_place_of_a_section_is_found),
        check_test(damaged_spans_are_found),
        check_test(damaged_zones_are_found),
        check_test(damaged_counters_are_found),
        check_test(damaged_cursors_are_found),
        check_test(damaged_sets_are_found),
        check_test(a_damaged_level_of_a_set_is_found),
        check_test(a_reference_to_a_free_frame_is_found),
        check_test(dump_prints_zones_spans_and_sections),
        check_test(dump_shortens_names_that_are_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
