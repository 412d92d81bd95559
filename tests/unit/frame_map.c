/* Boot maps and set-up: which frames a pool manages, and where it keeps its metadata. */
#include "frame_test.h"

#include <glob.h>

/* ---- mm_frame_map_clean ---------------------------------------------------------------------- */

static struct mm_frame_range out[64];
static size_t out_count;

#define clean(map) mm_frame_map_clean(map, sizeof(map) / sizeof((map)[0]), out, 64, &out_count)

static void assert_range(size_t i, mm_pa_t base, uint64_t size, enum mm_frame_type type)
{
    assert_in_range(i, 0, out_count - 1);
    assert_int_equal(out[i].base, base);
    assert_int_equal(out[i].size, size);
    assert_int_equal(out[i].type, type);
}

static void clean_sorts(void **state)
{
    const struct mm_frame_range map[] = {{0x8000, 0x1000, MM_FRAME_USABLE},
                                         {0x2000, 0x1000, MM_FRAME_RESERVED},
                                         {0x5000, 0x1000, MM_FRAME_BAD}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 3);
    assert_range(0, 0x2000, 0x1000, MM_FRAME_RESERVED);
    assert_range(1, 0x5000, 0x1000, MM_FRAME_BAD);
    assert_range(2, 0x8000, 0x1000, MM_FRAME_USABLE);
}

static void clean_merges_neighbours_of_one_type(void **state)
{
    const struct mm_frame_range map[] = {{0x3000, 0x2000, MM_FRAME_USABLE},
                                         {0x1000, 0x2000, MM_FRAME_USABLE},
                                         {0x5000, 0x1000, MM_FRAME_KERNEL}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 2);
    assert_range(0, 0x1000, 0x4000, MM_FRAME_USABLE);
    assert_range(1, 0x5000, 0x1000, MM_FRAME_KERNEL);
}

static void clean_lets_the_more_restrictive_type_win(void **state)
{
    for (int less = 0; less < MM_FRAME_TYPES; less++) {
        for (int more = less + 1; more < MM_FRAME_TYPES; more++) {
            const struct mm_frame_range map[] = {{0x1000, 0x3000, (enum mm_frame_type)less},
                                                 {0x2000, 0x1000, (enum mm_frame_type)more}};
            assert_int_equal(clean(map), MM_OK);
            assert_int_equal(out_count, 3);
            assert_range(0, 0x1000, 0x1000, (enum mm_frame_type)less);
            assert_range(1, 0x2000, 0x1000, (enum mm_frame_type)more);
            assert_range(2, 0x3000, 0x1000, (enum mm_frame_type)less);
        }
    }
    (void)state;
}

static void clean_joins_what_meets_inside_a_page(void **state)
{
    const struct mm_frame_range map[] = {{0x1000, 0x1234, MM_FRAME_USABLE},
                                         {0x2234, 0x1dcc, MM_FRAME_USABLE}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 1);
    assert_range(0, 0x1000, 0x3000, MM_FRAME_USABLE);
}

static void clean_leaves_out_pages_that_are_partly_a_hole(void **state)
{
    const struct mm_frame_range map[] = {{0x1001, 0x3000, MM_FRAME_USABLE}};

    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 1);
    assert_range(0, 0x2000, 0x2000, MM_FRAME_USABLE);
}

static void clean_gives_a_page_the_most_restrictive_type_of_its_bytes(void **state)
{
    const struct mm_frame_range map[] = {{0, 0x9fc00, MM_FRAME_USABLE},
                                         {0x9fc00, 0x400, MM_FRAME_RESERVED}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 2);
    assert_range(0, 0, 0x9f000, MM_FRAME_USABLE);
    assert_range(1, 0x9f000, 0x1000, MM_FRAME_RESERVED);
}

static void clean_widens_restricted_ranges_to_whole_pages(void **state)
{
    const struct mm_frame_range map[] = {{0x1ff0, 0x20, MM_FRAME_RESERVED}};

    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 1);
    assert_range(0, 0x1000, 0x2000, MM_FRAME_RESERVED);
}

static void clean_drops_what_is_smaller_than_a_page(void **state)
{
    const struct mm_frame_range map[] = {{0x1100, 0xe00, MM_FRAME_USABLE},
                                         {0x2fff, 0x1000, MM_FRAME_USABLE}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 0);
}

static void clean_never_calls_a_partly_missing_page_usable_later(void **state)
{
    const struct mm_frame_range map[] = {{0x1000, 0x1800, MM_FRAME_BOOTLOADER},
                                         {0x5800, 0x1800, MM_FRAME_ACPI_RECLAIM}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    for (size_t i = 0; i < out_count; i++)
        if (out[i].type <= MM_FRAME_ACPI_RECLAIM)
            assert_true(out[i].base == 0x1000 || out[i].base == 0x6000);
    assert_range(0, 0x1000, 0x1000, MM_FRAME_BOOTLOADER);
    assert_range(out_count - 1, 0x6000, 0x1000, MM_FRAME_ACPI_RECLAIM);
}

static void clean_ignores_ranges_of_length_zero(void **state)
{
    const struct mm_frame_range map[] = {{0x1000, 0x2000, MM_FRAME_USABLE},
                                         {0x1800, 0, MM_FRAME_BAD},
                                         {UINT64_MAX, 0, MM_FRAME_RESERVED},
                                         {0, 0, MM_FRAME_USABLE}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 1);
    assert_range(0, 0x1000, 0x2000, MM_FRAME_USABLE);
}

static void clean_accepts_an_empty_map(void **state)
{
    (void)state;
    assert_int_equal(mm_frame_map_clean(NULL, 0, out, 0, &out_count), MM_OK);
    assert_int_equal(out_count, 0);
}

static void clean_accepts_a_range_that_ends_at_the_top_of_memory(void **state)
{
    const struct mm_frame_range map[] = {{0 - (uint64_t)0x2000, 0x2000, MM_FRAME_USABLE},
                                         {0, 0x1000, MM_FRAME_USABLE}};
    (void)state;
    assert_int_equal(clean(map), MM_OK);
    assert_int_equal(out_count, 2);
    assert_range(0, 0, 0x1000, MM_FRAME_USABLE);
    assert_range(1, 0 - (uint64_t)0x2000, 0x2000, MM_FRAME_USABLE);
}

static void clean_refuses_a_range_that_wraps(void **state)
{
    const struct mm_frame_range map[] = {{0x1000, 0x1000, MM_FRAME_USABLE},
                                         {0 - (uint64_t)0x1000, 0x1001, MM_FRAME_USABLE}};
    (void)state;
    memset(out, 0x5a, sizeof out);
    assert_int_equal(clean(map), MM_ERR_INVALID);
    assert_int_equal(out[0].base, 0x5a5a5a5a5a5a5a5a);
}

static void clean_refuses_an_unknown_type(void **state)
{
    const struct mm_frame_range over[] = {{0x1000, 0x1000, MM_FRAME_TYPES}};
    const struct mm_frame_range under[] = {{0x1000, 0x1000, (enum mm_frame_type) - 1}};

    (void)state;
    assert_int_equal(clean(over), MM_ERR_INVALID);
    assert_int_equal(clean(under), MM_ERR_INVALID);
}

static void clean_tells_the_capacity_it_needs_and_leaves_the_output_alone(void **state)
{
    const struct mm_frame_range map[] = {{0, 0x9000, MM_FRAME_USABLE},
                                         {0x2000, 0x1000, MM_FRAME_BAD},
                                         {0x4000, 0x1000, MM_FRAME_KERNEL}};
    unsigned char before[sizeof out];

    (void)state;
    memset(out, 0x5a, sizeof out);
    memcpy(before, out, sizeof out);
    assert_int_equal(mm_frame_map_clean(map, 3, out, 4, &out_count), MM_ERR_LIMIT);
    assert_int_equal(out_count, 5);
    assert_memory_equal(out, before, sizeof out);
    assert_int_equal(mm_frame_map_clean(map, 3, out, 5, &out_count), MM_OK);
}

/* Each of them has two pages that are partly a hole. */
static void clean_gives_at_most_three_ranges_for_each(void **state)
{
    static const struct mm_frame_range map[] = {{0x1800, 0x2000, MM_FRAME_BOOTLOADER},
                                                {0x5800, 0x2000, MM_FRAME_ACPI_RECLAIM},
                                                {0x9800, 0x2000, MM_FRAME_BOOTLOADER}};
    (void)state;
    assert_int_equal(mm_frame_map_clean(map, 3, out, 8, &out_count), MM_ERR_LIMIT);
    assert_int_equal(out_count, 9);
    assert_int_equal(mm_frame_map_clean(map, 3, out, 9, &out_count), MM_OK);
    assert_range(3, 0x5000, 0x1000, MM_FRAME_RESERVED);
    assert_range(4, 0x6000, 0x1000, MM_FRAME_ACPI_RECLAIM);
    assert_range(5, 0x7000, 0x1000, MM_FRAME_RESERVED);
}

static void clean_of_a_clean_map_is_the_same_map(void **state)
{
    const struct mm_frame_range map[] = {{0x1800, 0x9000, MM_FRAME_USABLE},
                                         {0x2001, 0x1000, MM_FRAME_BAD},
                                         {0x14000, 0x1000, MM_FRAME_KERNEL}};
    struct mm_frame_range first[16], second[16];
    size_t count, again;

    (void)state;
    assert_int_equal(mm_frame_map_clean(map, 3, first, 16, &count), MM_OK);
    assert_int_equal(mm_frame_map_clean(first, count, second, 16, &again), MM_OK);
    assert_int_equal(again, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(first[i].base, second[i].base);
        assert_int_equal(first[i].size, second[i].size);
        assert_int_equal(first[i].type, second[i].type);
    }
}

/* ---- a plain reference
 * ------------------------------------------------------------------------------ Cuts the address
 * space at every border of the map, gives each piece the greatest type that covers it, joins the
 * usable pieces that touch and rounds them inward to pages: bytes first, pages last. */

typedef unsigned __int128 wide;

struct reference {
    uint64_t first[512], end[512]; /* usable runs, in frame numbers */
    size_t count;
};

static int compare_wide(const void *a, const void *b)
{
    const wide x = *(const wide *)a, y = *(const wide *)b;

    return x < y ? -1 : x > y;
}

static int type_of_bytes(const struct mm_frame_range *map, size_t count, wide from, wide to)
{
    int type = -1;

    for (size_t i = 0; i < count; i++)
        if (map[i].size != 0 && map[i].base <= from && to <= (wide)map[i].base + map[i].size &&
            (int)map[i].type > type)
            type = (int)map[i].type;
    return type;
}

static void reference_add(struct reference *reference, wide from, wide to)
{
    const uint64_t first = (uint64_t)((from + PAGE - 1) / PAGE), end = (uint64_t)(to / PAGE);

    if (first >= end)
        return;
    reference->first[reference->count] = first;
    reference->end[reference->count++] = end;
}

static void reference_make(struct reference *reference, const struct mm_frame_range *map,
                           size_t count)
{
    wide border[1024];
    size_t n = 0, kept = 0;
    wide from = 0, to = 0;

    reference->count = 0;
    for (size_t i = 0; i < count; i++) {
        border[n++] = map[i].base;
        border[n++] = (wide)map[i].base + map[i].size;
    }
    qsort(border, n, sizeof border[0], compare_wide);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || border[kept - 1] != border[i])
            border[kept++] = border[i];
    for (size_t i = 0; i + 1 < kept; i++) {
        if (type_of_bytes(map, count, border[i], border[i + 1]) != MM_FRAME_USABLE)
            continue;
        if (to != border[i] || from == to) {
            reference_add(reference, from, to);
            from = border[i];
        }
        to = border[i + 1];
    }
    reference_add(reference, from, to);
}

/* Asserts that the cleaned map and a pool have just the reference's usable frames. */
static void assert_frames_of(const struct mm_frame_range *map, size_t count)
{
    static struct mm_frame_range cleaned[3 * 512];
    struct reference reference;
    size_t got, at = 0;

    reference_make(&reference, map, count);
    assert_int_equal(mm_frame_map_clean(map, count, cleaned, 3 * count, &got), MM_OK);
    for (size_t i = 0; i < got; i++) {
        assert_true(cleaned[i].size != 0 && cleaned[i].size % PAGE == 0);
        assert_true(i == 0 || cleaned[i - 1].base + cleaned[i - 1].size <= cleaned[i].base);
        if (cleaned[i].type != MM_FRAME_USABLE)
            continue;
        assert_true(at < reference.count);
        assert_int_equal(cleaned[i].base / PAGE, reference.first[at]);
        assert_int_equal((cleaned[i].base + (cleaned[i].size - 1)) / PAGE + 1, reference.end[at]);
        at++;
    }
    assert_int_equal(at, reference.count);
}

static void assert_pool_of(struct lab *lab)
{
    struct reference reference;
    uint64_t total = 0;

    reference_make(&reference, lab->config.map, lab->config.map_count);
    for (size_t i = 0; i < reference.count; i++) {
        const mm_pa_t first = reference.first[i] * PAGE, last = (reference.end[i] - 1) * PAGE;
        total += reference.end[i] - reference.first[i];
        assert_int_equal(mm_frame_is_free(&lab->pool, first), 1);
        assert_int_equal(mm_frame_is_free(&lab->pool, last), 1);
        if (i == 0 ? first != 0 : reference.end[i - 1] != reference.first[i])
            assert_int_equal(mm_frame_is_free(&lab->pool, first - PAGE), MM_ERR_INVALID);
        if (i + 1 == reference.count || reference.first[i + 1] != reference.end[i])
            assert_int_equal(mm_frame_is_free(&lab->pool, last + PAGE), MM_ERR_INVALID);
    }
    assert_int_equal(mm_frame_free_count(&lab->pool, 0), total);
    assert_int_equal(lab_stats(lab, 0).managed, total);
}

static void every_frame_of_small_random_maps_is_as_in_the_reference(void **state)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 0);
    const uint64_t turns = mm_test_ops() / 500;

    (void)state;
    for (uint64_t turn = 0; turn < turns; turn++) {
        struct mm_frame_range map[12];
        const size_t count = mm_test_below(&rng, 13);
        for (size_t i = 0; i < count; i++) {
            const unsigned step = mm_test_chance(&rng, 50) ? 4096 : 512;
            map[i].base = mm_test_below(&rng, 32 * 4096 / step) * step;
            map[i].size = mm_test_below(&rng, 12 * 4096 / step) * step;
            map[i].type = (enum mm_frame_type)(
                mm_test_chance(&rng, 60) ? MM_FRAME_USABLE : mm_test_below(&rng, MM_FRAME_TYPES));
        }
        assert_frames_of(map, count);
    }
}

/* ---- recorded maps --------------------------------------------------------------------------- */

struct section {
    char name[16];
    struct mm_frame_range range[300];
    size_t count;
};

/* What a firmware's name for a type means to an allocator. */
static enum mm_frame_type type_named(const char *name, const char *section)
{
    static const struct {
        const char *name;
        enum mm_frame_type type;
    } types[] = {
        {"usable", MM_FRAME_USABLE},
        {"conventional", MM_FRAME_USABLE},
        {"node", MM_FRAME_USABLE},
        {"boot-code", MM_FRAME_BOOTLOADER},
        {"boot-data", MM_FRAME_BOOTLOADER},
        {"loader-code", MM_FRAME_BOOTLOADER},
        {"loader-data", MM_FRAME_KERNEL},
        {"acpi-data", MM_FRAME_ACPI_RECLAIM},
        {"acpi-reclaim", MM_FRAME_ACPI_RECLAIM},
        {"acpi-nvs", MM_FRAME_ACPI_NVS},
        {"mmio", MM_FRAME_DEVICE},
        {"unusable", MM_FRAME_BAD},
        {"runtime", MM_FRAME_RESERVED},
        {"reserved", MM_FRAME_RESERVED},
        {"type", MM_FRAME_RESERVED},
        {"pmem", MM_FRAME_DEVICE},
    };

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strncmp(name, types[i].name, strlen(types[i].name)) == 0)
            return types[i].type;
    fail_msg("section %s: unknown type %s", section, name);
    return MM_FRAME_TYPES;
}

static size_t read_sections(const char *path, struct section *sections)
{
    FILE *file = fopen(path, "r");
    char line[512], name[64];
    unsigned long long start, end;
    size_t count = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "[%15[^]]]", name) == 1) {
            memset(&sections[count], 0, sizeof sections[count]);
            strcpy(sections[count++].name, name);
        } else if (line[0] != '#' && sscanf(line, "%llx %llx %63s", &start, &end, name) == 3) {
            struct section *section = &sections[count - 1];
            struct mm_frame_range *range = &section->range[section->count++];
            assert_in_range(section->count, 1, 300);
            range->base = start;
            range->size = end - start;
            range->type = type_named(name, section->name);
        }
    }
    fclose(file);
    return count;
}

static void recorded_map(const struct section *section)
{
    struct lab lab;

    assert_frames_of(section->range, section->count);
    lab_begin(&lab);
    lab.config.map = section->range;
    lab.config.map_count = section->count;
    lab_start(&lab);
    assert_pool_of(&lab);
    assert_true(lab.pool.meta_bytes <= lab.meta_size);
    lab_end(&lab);
}

static const char *data_folder(void)
{
    return access("tests/data/bootmap", R_OK) == 0 ? "tests/data/bootmap" : "../data/bootmap";
}

static void recorded_maps_give_the_frames_of_the_reference(void **state)
{
    static struct section sections[8];
    char pattern[256];
    size_t maps = 0;
    glob_t found;

    (void)state;
    snprintf(pattern, sizeof pattern, "%s/*.map", data_folder());
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const size_t count = read_sections(found.gl_pathv[i], sections);
        assert_in_range(count, 1, 8);
        for (size_t j = 0; j < count; j++, maps++)
            recorded_map(&sections[j]);
    }
    globfree(&found);
    assert_true(maps >= 26);
}

/* ---- mm_frame_init --------------------------------------------------------------------------- */

static void a_hole_of_a_tebibyte_costs_no_metadata(void **state)
{
    size_t near_size, far_size;
    struct lab near, far;

    (void)state;
    lab_begin(&near);
    lab_range(&near, 0, 64 * MIB, MM_FRAME_USABLE);
    lab_range(&near, 128 * MIB, 64 * MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_meta_size(&near.config, &near_size), MM_OK);
    lab_begin(&far);
    lab_range(&far, 0, 64 * MIB, MM_FRAME_USABLE);
    lab_range(&far, TIB + 64 * MIB, 64 * MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_meta_size(&far.config, &far_size), MM_OK);
    assert_int_equal(near_size, far_size);
    lab_start(&far);
    assert_int_equal(lab_exhaust(&far, 0), 128 * MIB / PAGE);
    lab_end(&far);
}

static void metadata_take_at_most_0_16_byte_a_frame(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 8 * GIB / PAGE);
    assert_in_range(lab.meta_size, 1, 8 * GIB / PAGE * 16 / 100);
    assert_in_range(mm_frame_meta_bytes(&lab.pool), 1, lab.meta_size);
    lab_end(&lab);
}

static void metadata_may_start_at_any_address(void **state)
{
    struct lab lab;
    size_t size = 0;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_meta_size(&lab.config, &size), MM_OK);
    lab.meta = malloc(size + 64);
    for (size_t skip = 0; skip < 64; skip++) {
        memset(lab.meta, 0xa5, size + 64);
        lab.config.meta = lab.meta + skip;
        lab.config.meta_size = size;
        assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_OK);
        assert_int_equal(lab_exhaust(&lab, 0), MIB / PAGE);
        assert_healthy(&lab, MIB / PAGE);
        for (size_t i = 0; i < skip; i++)
            assert_int_equal(lab.meta[i], 0xa5);
        for (size_t i = size + skip; i < size + 64; i++)
            assert_int_equal(lab.meta[i], 0xa5);
    }
    free(lab.meta);
}

static void too_little_room_for_metadata_is_nomem(void **state)
{
    struct lab lab;
    size_t size = 0;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_meta_size(&lab.config, &size), MM_OK);
    lab.config.meta = lab.meta = malloc(size);
    for (size_t room = 0; room < size - MMI_FRAME_META_ALIGN; room += 61) {
        lab.config.meta_size = room;
        assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_ERR_NOMEM);
    }
    free(lab.meta);
}

static void an_empty_map_makes_a_pool_without_frames(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_start(&lab);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_order(&lab.pool, MM_FRAME_HUGE_ORDER, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_free(&lab.pool, 0), MM_ERR_INVALID);
    assert_int_equal(lab_stats(&lab, 0).managed, 0);
    lab_end(&lab);
}

static void a_map_full_of_holes_gives_every_second_frame(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    for (unsigned i = 0; i < 60; i++)
        lab_range(&lab, 2 * i * PAGE, PAGE, MM_FRAME_USABLE);
    lab_start(&lab);
    for (unsigned i = 0; i < 60; i++)
        assert_int_equal(mm_frame_alloc(&lab.pool, 0), 2 * i * PAGE);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), MM_PA_NONE);
    for (unsigned i = 0; i < 60; i++)
        assert_int_equal(mm_frame_free(&lab.pool, (2 * i + 1) * PAGE), MM_ERR_INVALID);
    lab_end(&lab);
}

static void frames_up_to_the_top_of_memory_are_managed(void **state)
{
    const mm_pa_t top = 0 - PAGE;
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0 - 2 * PAGE, 2 * PAGE, MM_FRAME_USABLE);
    lab_start(&lab);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), top - PAGE);
    assert_int_equal(mm_frame_alloc(&lab.pool, 0), top);
    assert_int_equal(mm_frame_free(&lab.pool, top), MM_OK);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, top, 1), MM_OK);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, top, 2), MM_ERR_INVALID);
    assert_int_equal(mm_frame_release(&lab.pool, top - PAGE, 2 * PAGE, NULL), MM_OK);
    assert_int_equal(lab_run(&lab, 2, 0, 0, 0, 0), top - PAGE);
    lab_end(&lab);
}

static void held_types_are_managed_but_not_free(void **state)
{
    uint64_t count;
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 100 * PAGE, MM_FRAME_USABLE);
    lab_range(&lab, 100 * PAGE, 50 * PAGE, MM_FRAME_BOOTLOADER);
    lab_range(&lab, 150 * PAGE, 50 * PAGE, MM_FRAME_RESERVED);
    lab.config.held_types = 1u << MM_FRAME_BOOTLOADER;
    lab_start(&lab);
    assert_int_equal(lab_stats(&lab, 0).managed, 150);
    assert_int_equal(lab_exhaust(&lab, 0), 100);
    assert_int_equal(mm_frame_is_free(&lab.pool, 120 * PAGE), 0);
    assert_int_equal(mm_frame_is_free(&lab.pool, 160 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_release(&lab.pool, 100 * PAGE, 50 * PAGE, &count), MM_OK);
    assert_int_equal(count, 50);
    assert_int_equal(lab_exhaust(&lab, 0), 50);
    lab_end(&lab);
}

/* ---- carving --------------------------------------------------------------------------------- */

struct carve {
    unsigned char *memory; /* stands for the physical memory from address 0 on */
    uint64_t size;
    mm_pa_t pa;
    uint64_t bytes;
    unsigned calls;
};

static void *carve_view(void *ctx, mm_pa_t pa, uint64_t size)
{
    struct carve *carve = ctx;

    carve->pa = pa;
    carve->bytes = size;
    carve->calls++;
    return pa + size <= carve->size ? carve->memory + pa : NULL;
}

static void carve_begin(struct carve *carve, struct lab *lab)
{
    memset(carve, 0, sizeof *carve);
    carve->size = MIB;
    carve->memory = lab_memory(MIB);
    memset(carve->memory, 0xa5, MIB);
    lab_begin(lab);
    lab->config.hooks.ctx = carve;
    lab->config.hooks.view = carve_view;
}

static void carved_metadata_come_out_of_the_map(void **state)
{
    struct carve carve;
    struct lab lab;

    (void)state;
    carve_begin(&carve, &lab);
    lab_range(&lab, 0, MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_OK);
    assert_int_equal(carve.calls, 1);
    assert_int_equal(carve.pa + carve.bytes, MIB);
    assert_int_equal(lab_stats(&lab, 0).managed, (MIB - carve.bytes) / PAGE);
    for (mm_pa_t pa; (pa = mm_frame_alloc(&lab.pool, 0)) != MM_PA_NONE;)
        assert_true(pa < carve.pa);
    assert_int_equal(mm_frame_is_free(&lab.pool, carve.pa), MM_ERR_INVALID);
    assert_int_equal(mm_frame_free(&lab.pool, carve.pa), MM_ERR_INVALID);
    assert_healthy(&lab, (MIB - carve.bytes) / PAGE);
    for (mm_pa_t pa = 0; pa < carve.pa; pa++)
        assert_int_equal(carve.memory[pa], 0xa5);
    free(carve.memory);
}

static void carving_stays_below_the_limit(void **state)
{
    struct carve carve;
    struct lab lab;

    (void)state;
    carve_begin(&carve, &lab);
    lab_range(&lab, 64 * KIB, 4 * GIB, MM_FRAME_USABLE);
    lab.config.carve_below = MIB;
    assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_OK);
    assert_int_equal(carve.pa + carve.bytes, MIB);
    assert_int_equal(mm_frame_is_free(&lab.pool, carve.pa - PAGE), 1);
    assert_int_equal(mm_frame_is_free(&lab.pool, carve.pa), MM_ERR_INVALID);
    assert_int_equal(mm_frame_is_free(&lab.pool, MIB - PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_is_free(&lab.pool, MIB), 1);
    assert_healthy(&lab, 0);
    free(carve.memory);
}

static void carving_out_of_odd_ranges_uses_whole_pages(void **state)
{
    struct carve carve;
    struct lab lab;

    (void)state;
    carve_begin(&carve, &lab);
    lab_range(&lab, 0x123, 0x80000, MM_FRAME_USABLE);
    lab_range(&lab, 0x60000, 0x1001, MM_FRAME_RESERVED);
    assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_OK);
    assert_int_equal(carve.pa % PAGE, 0);
    assert_int_equal(carve.pa + carve.bytes, 0x80000);
    assert_int_equal(lab_stats(&lab, 0).managed, 0x7f - 2 - carve.bytes / PAGE);
    assert_healthy(&lab, 0);
    free(carve.memory);
}

static void carving_without_a_view_is_invalid(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_ERR_INVALID);
}

static void carving_from_memory_that_is_too_small_is_nomem(void **state)
{
    struct carve carve;
    struct lab lab;

    (void)state;
    carve_begin(&carve, &lab);
    lab_range(&lab, 0, PAGE, MM_FRAME_USABLE);
    lab_range(&lab, MIB, GIB, MM_FRAME_RESERVED);
    lab.zone[0].spare = 64 * MIB;
    (void)lab_zone(&lab, "Normal", 0, MM_PA_NONE);
    lab.zone[0].spare = 64 * MIB;
    assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_ERR_NOMEM);
    assert_int_equal(carve.calls, 0);
    free(carve.memory);
}

static void carving_that_cannot_be_viewed_is_nomem(void **state)
{
    struct carve carve;
    struct lab lab;

    (void)state;
    carve_begin(&carve, &lab);
    carve.size = 0;
    lab_range(&lab, 0, MIB, MM_FRAME_USABLE);
    assert_int_equal(mm_frame_init(&lab.pool, &lab.config), MM_ERR_NOMEM);
    assert_int_equal(carve.calls, 1);
    free(carve.memory);
}

/* ---- bad configurations ---------------------------------------------------------------------- */

static void assert_bad(struct lab *lab, enum mm_status status)
{
    size_t size = 4711;

    lab->config.meta = lab->meta = lab_memory(MIB);
    lab->config.meta_size = MIB;
    assert_int_equal(mm_frame_meta_size(&lab->config, &size), status);
    assert_int_equal(size, 4711);
    assert_int_equal(mm_frame_init(&lab->pool, &lab->config), status);
    free(lab->meta);
}

static void bad_begin(struct lab *lab)
{
    lab_begin(lab);
    lab_range(lab, 0, MIB, MM_FRAME_USABLE);
}

static void a_bad_map_is_invalid(void **state)
{
    struct lab lab;

    (void)state;
    bad_begin(&lab);
    lab_range(&lab, PAGE, 0 - PAGE + 1, MM_FRAME_USABLE);
    assert_bad(&lab, MM_ERR_INVALID);
    bad_begin(&lab);
    lab_range(&lab, 0, PAGE, MM_FRAME_TYPES);
    assert_bad(&lab, MM_ERR_INVALID);
    bad_begin(&lab);
    lab.config.map = NULL;
    assert_bad(&lab, MM_ERR_INVALID);
}

static void overlapping_zones_are_invalid(void **state)
{
    struct lab lab;

    (void)state;
    bad_begin(&lab);
    (void)lab_zone(&lab, "a", 0, 0x4000);
    (void)lab_zone(&lab, "b", 0x3000, MM_PA_NONE);
    assert_bad(&lab, MM_ERR_INVALID);
}

static void an_empty_zone_is_invalid(void **state)
{
    struct lab lab;

    (void)state;
    bad_begin(&lab);
    (void)lab_zone(&lab, "a", 0x4000, 0x4000);
    assert_bad(&lab, MM_ERR_INVALID);
}

static void watermarks_out_of_order_are_invalid(void **state)
{
    static const uint64_t marks[][3] = {{2, 1, 3}, {1, 3, 2}, {1, 0, 0}, {0, 1, 0}};
    struct lab lab;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct mm_frame_zone_config *zone;
        bad_begin(&lab);
        zone = lab_zone(&lab, "a", 0, MM_PA_NONE);
        zone->min = marks[i][0];
        zone->low = marks[i][1];
        zone->high = marks[i][2];
        assert_bad(&lab, MM_ERR_INVALID);
    }
}

static void misaligned_zone_limits_are_refused(void **state)
{
    struct lab lab;

    (void)state;
    bad_begin(&lab);
    (void)lab_zone(&lab, "a", 0x800, MM_PA_NONE);
    assert_bad(&lab, MM_ERR_ALIGN);
    bad_begin(&lab);
    (void)lab_zone(&lab, "a", 0, 0x1001);
    assert_bad(&lab, MM_ERR_ALIGN);
}

static void too_many_zones_are_invalid(void **state)
{
    struct mm_frame_zone_config zones[MM_FRAME_ZONE_MAX + 1];
    struct lab lab;

    (void)state;
    bad_begin(&lab);
    memset(zones, 0, sizeof zones);
    for (unsigned i = 0; i <= MM_FRAME_ZONE_MAX; i++) {
        zones[i].start = i * PAGE;
        zones[i].end = (i + 1) * PAGE;
    }
    lab.config.zones = zones;
    lab.config.zone_count = MM_FRAME_ZONE_MAX + 1;
    assert_bad(&lab, MM_ERR_INVALID);
    lab.config.zones = NULL;
    lab.config.zone_count = 1;
    assert_bad(&lab, MM_ERR_INVALID);
}

static void unknown_held_types_and_policies_are_invalid(void **state)
{
    struct lab lab;

    (void)state;
    bad_begin(&lab);
    lab.config.held_types = 1u << MM_FRAME_TYPES;
    assert_bad(&lab, MM_ERR_INVALID);
    bad_begin(&lab);
    lab.config.policy = (enum mm_frame_policy)(MM_FRAME_NEXT_FIT + 1);
    assert_bad(&lab, MM_ERR_INVALID);
}

static void usable_memory_outside_all_zones_is_left_alone(void **state)
{
    struct lab lab;

    (void)state;
    lab_begin(&lab);
    lab_range(&lab, 0, 64 * PAGE, MM_FRAME_USABLE);
    (void)lab_zone(&lab, "a", 8 * PAGE, 16 * PAGE);
    (void)lab_zone(&lab, "b", 32 * PAGE, 40 * PAGE);
    lab_start(&lab);
    assert_int_equal(lab_stats(&lab, 0).managed, 8);
    assert_int_equal(lab_stats(&lab, 1).managed, 8);
    assert_int_equal(mm_frame_is_free(&lab.pool, 7 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_is_free(&lab.pool, 16 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_frame_is_free(&lab.pool, 32 * PAGE), 1);
    lab_end(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clean_sorts),
        cmocka_unit_test(clean_merges_neighbours_of_one_type),
        cmocka_unit_test(clean_lets_the_more_restrictive_type_win),
        cmocka_unit_test(clean_joins_what_meets_inside_a_page),
        cmocka_unit_test(clean_leaves_out_pages_that_are_partly_a_hole),
        cmocka_unit_test(clean_gives_a_page_the_most_restrictive_type_of_its_bytes),
        cmocka_unit_test(clean_widens_restricted_ranges_to_whole_pages),
        cmocka_unit_test(clean_drops_what_is_smaller_than_a_page),
        cmocka_unit_test(clean_never_calls_a_partly_missing_page_usable_later),
        cmocka_unit_test(clean_ignores_ranges_of_length_zero),
        cmocka_unit_test(clean_accepts_an_empty_map),
        cmocka_unit_test(clean_accepts_a_range_that_ends_at_the_top_of_memory),
        cmocka_unit_test(clean_refuses_a_range_that_wraps),
        cmocka_unit_test(clean_refuses_an_unknown_type),
        cmocka_unit_test(clean_tells_the_capacity_it_needs_and_leaves_the_output_alone),
        cmocka_unit_test(clean_gives_at_most_three_ranges_for_each),
        cmocka_unit_test(clean_of_a_clean_map_is_the_same_map),
        cmocka_unit_test(every_frame_of_small_random_maps_is_as_in_the_reference),
        cmocka_unit_test(recorded_maps_give_the_frames_of_the_reference),
        cmocka_unit_test(a_hole_of_a_tebibyte_costs_no_metadata),
        cmocka_unit_test(metadata_take_at_most_0_16_byte_a_frame),
        cmocka_unit_test(metadata_may_start_at_any_address),
        cmocka_unit_test(too_little_room_for_metadata_is_nomem),
        cmocka_unit_test(an_empty_map_makes_a_pool_without_frames),
        cmocka_unit_test(a_map_full_of_holes_gives_every_second_frame),
        cmocka_unit_test(frames_up_to_the_top_of_memory_are_managed),
        cmocka_unit_test(held_types_are_managed_but_not_free),
        cmocka_unit_test(carved_metadata_come_out_of_the_map),
        cmocka_unit_test(carving_stays_below_the_limit),
        cmocka_unit_test(carving_out_of_odd_ranges_uses_whole_pages),
        cmocka_unit_test(carving_without_a_view_is_invalid),
        cmocka_unit_test(carving_from_memory_that_is_too_small_is_nomem),
        cmocka_unit_test(carving_that_cannot_be_viewed_is_nomem),
        cmocka_unit_test(a_bad_map_is_invalid),
        cmocka_unit_test(overlapping_zones_are_invalid),
        cmocka_unit_test(an_empty_zone_is_invalid),
        cmocka_unit_test(watermarks_out_of_order_are_invalid),
        cmocka_unit_test(misaligned_zone_limits_are_refused),
        cmocka_unit_test(too_many_zones_are_invalid),
        cmocka_unit_test(unknown_held_types_and_policies_are_invalid),
        cmocka_unit_test(usable_memory_outside_all_zones_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
