/* Boot maps of any kind: the cleaned map against a table that has the type of every 512 bytes, and
 * a pool made from the map: it hands out just the usable pages. */
#include "fuzz.h"
#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"

#define GRANULE  512u
#define GRANULES 8192u /* 1,024 pages */
#define PAGES    (GRANULES * GRANULE / MM_PAGE_SIZE)
#define MOST     24u

enum { HOLE = -1 };

static int type_at[GRANULES];
static struct mm_frame_range map[MOST], cleaned[3 * MOST];

/* Three of four ranges are whole granules of the table; the others may be anything, broken ones
 * too. */
static size_t read_map(struct fuzz_input *in)
{
    size_t count = 0;
    while (in->at < in->end && count < MOST) {
        const unsigned type = fuzz_byte(in);
        struct mm_frame_range *r = &map[count++];
        r->type = (enum mm_frame_type)(type % 16 == 15 ? MM_FRAME_TYPES : type % MM_FRAME_TYPES);
        r->base = (mm_pa_t)(fuzz_pair(in) % GRANULES) * GRANULE;
        r->size = (uint64_t)(fuzz_pair(in) % 512) * GRANULE;
        if (type >= 0xfe)
            r->base = 0 - (mm_pa_t)fuzz_pair(in);
    }
    return count;
}

static bool is_valid(const struct mm_frame_range *r)
{
    return (unsigned)r->type < MM_FRAME_TYPES &&
           (r->size == 0 || r->base + (r->size - 1) >= r->base);
}

static void fill_table(size_t count)
{
    for (size_t g = 0; g < GRANULES; g++)
        type_at[g] = HOLE;
    for (size_t i = 0; i < count; i++)
        for (uint64_t g = map[i].base / GRANULE;
             g < (map[i].base + map[i].size) / GRANULE && g < GRANULES; g++)
            if ((int)map[i].type > type_at[g])
                type_at[g] = (int)map[i].type;
}

/* What the manual says of a page: the greatest type of its bytes; with a hole in it, left out if
 * that is usable, and reserved if that is free later. */
static int type_of_page(size_t page)
{
    const size_t each = MM_PAGE_SIZE / GRANULE;
    int type = HOLE;
    bool hole = false;
    for (size_t g = page * each; g < (page + 1) * each; g++) {
        hole = hole || type_at[g] == HOLE;
        type = type_at[g] > type ? type_at[g] : type;
    }
    if (hole && type == MM_FRAME_USABLE)
        return HOLE;
    return hole && (type == MM_FRAME_BOOTLOADER || type == MM_FRAME_ACPI_RECLAIM)
               ? MM_FRAME_RESERVED
               : type;
}

static void compare_cleaned(size_t got)
{
    size_t page = 0;
    for (size_t i = 0; i < got; i++) {
        const struct mm_frame_range *r = &cleaned[i];
        fuzz_require(r->size != 0 && (r->base | r->size) % MM_PAGE_SIZE == 0);
        fuzz_require(i == 0 || r->base > cleaned[i - 1].base + (cleaned[i - 1].size - 1));
        fuzz_require(i == 0 || r->type != cleaned[i - 1].type ||
                     r->base != cleaned[i - 1].base + cleaned[i - 1].size);
        if (r->base / MM_PAGE_SIZE >= PAGES)
            break;
        for (; page < r->base / MM_PAGE_SIZE; page++)
            fuzz_require(type_of_page(page) == HOLE);
        for (; page < PAGES && page < (r->base + r->size) / MM_PAGE_SIZE; page++)
            fuzz_require(type_of_page(page) == (int)r->type);
    }
    for (; page < PAGES; page++)
        fuzz_require(type_of_page(page) == HOLE);
}

/* Every usable page once, and no other. */
static void compare_pool(size_t count)
{
    static struct mm_frame_pool pool;
    static bool taken[PAGES];
    struct mm_frame_config config = {0};
    size_t size = 0;
    mm_pa_t pa;
    config.map = map;
    config.map_count = count;
    fuzz_require(mm_frame_meta_size(&config, &size) == MM_OK);
    config.meta = malloc(size);
    config.meta_size = size;
    memset(config.meta, 0xa5, size);
    fuzz_require(mm_frame_init(&pool, &config) == MM_OK);
    memset(taken, 0, sizeof taken);
    while ((pa = mm_frame_alloc(&pool, 0)) != MM_PA_NONE) {
        fuzz_require(pa % MM_PAGE_SIZE == 0);
        if (pa / MM_PAGE_SIZE >= PAGES)
            continue; /* a range at the top of memory */
        fuzz_require(!taken[pa / MM_PAGE_SIZE]);
        taken[pa / MM_PAGE_SIZE] = true;
    }
    for (size_t page = 0; page < PAGES; page++)
        fuzz_require(taken[page] == (type_of_page(page) == MM_FRAME_USABLE));
    free(config.meta);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    const size_t count = read_map(&in);
    size_t got = 0;
    bool valid = true;
    for (size_t i = 0; i < count; i++)
        valid = valid && is_valid(&map[i]);
    if (!valid) {
        fuzz_require(mm_frame_map_clean(map, count, cleaned, 3 * MOST, &got) == MM_ERR_INVALID);
        return 0;
    }
    fill_table(count);
    fuzz_require(mm_frame_map_clean(map, count, cleaned, 3 * MOST, &got) == MM_OK);
    compare_cleaned(got);
    compare_pool(count);
    return 0;
}
