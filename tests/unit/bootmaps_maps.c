/* examples/bootmaps: one awkward map, and each recorded one of tests/data/bootmap, told in every
 * format. What an adapter says is held against the map, and what mm_frame.h makes of it against a
 * plain list of pages. */
#include "mm_test.h"
#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"
#include "../../examples/bootmaps/bootmaps.c"

#include <dirent.h>

#define MOST 320u
#define PAGE MM_PAGE_SIZE

static struct mm_frame_range map[MOST],
    out[MOST]; /* what is to be told, and what an adapter says */
static size_t map_count, count;

/* ---- a report -------------------------------------------------------------------------------- */

static unsigned char report[65536];
static size_t length;

static void put(unsigned bytes, uint64_t value)
{
    for (; bytes-- != 0; value >>= 8)
        report[length++] = (unsigned char)value;
}

static void put_big(unsigned bytes, uint64_t value)
{
    while (bytes-- != 0)
        report[length++] = (unsigned char)(value >> 8 * bytes);
}

static void put_text(const char *text)
{
    do
        put(1, (unsigned char)*text);
    while (*text++ != '\0');
    while (length % 4 != 0)
        put(1, 0);
}

/* A copy in the heap that ends with the report: the sanitizer sees what is read behind it. */
static unsigned char *exact(void)
{
    unsigned char *copy = malloc(length);
    memcpy(copy, report, length);
    return copy;
}

/* ACPI 6.5, table 15.4; no number is for what boot loaders and kernels hold */
static unsigned e820_number(enum mm_frame_type type)
{
    return type == MM_FRAME_USABLE         ? 1
           : type == MM_FRAME_ACPI_RECLAIM ? 3
           : type == MM_FRAME_ACPI_NVS     ? 4
           : type == MM_FRAME_BAD          ? 5
           : type == MM_FRAME_DEVICE       ? 7
                                           : 2;
}

static void put_e820(size_t from, size_t to, unsigned stride)
{
    for (; from < to; from++) {
        put(8, map[from].base), put(8, map[from].size), put(4, e820_number(map[from].type));
        put(stride - 20, 1); /* "enabled"; in the other formats nobody reads it */
    }
}

/* ---- formats: each tells `map` and has its adapter read that --------------------------------- */

static enum mm_status with(enum mm_status (*adapt)(const unsigned char *copy))
{
    unsigned char *copy = exact();
    const enum mm_status status = adapt(copy);
    free(copy);
    return status;
}

static enum mm_status adapt_e820(const unsigned char *copy)
{
    return bootmap_e820(copy, map_count, 24, out, MOST, &count);
}
static enum mm_status tell_e820(void)
{
    put_e820(0, map_count, 24);
    return with(adapt_e820);
}

static enum mm_status adapt_multiboot2(const unsigned char *copy)
{
    return bootmap_multiboot2(copy, length, out, MOST, &count);
}
static enum mm_status tell_multiboot2(void)
{
    put(8, 0); /* the size, later */
    put(4, 6), put(4, 16 + 24 * map_count), put(4, 24), put(4, 0);
    put_e820(0, map_count, 24);
    put(4, 0), put(4, 8);
    memcpy(report, &length, 4);
    return with(adapt_multiboot2);
}

static enum mm_status tell_limine(void)
{
    /* executable, loader's: where the others have "reserved" */
    static const uint64_t number[MM_FRAME_TYPES] = {0, 5, 2, 6, 3, 7, 1, 4};
    uint64_t(*entry)[3] = malloc(map_count * sizeof *entry), response[3];
    uintptr_t *entries = malloc(map_count * sizeof *entries);
    enum mm_status status;
    for (size_t i = 0; i < map_count; i++) {
        entry[i][0] = map[i].base;
        entry[i][1] = map[i].size;
        entry[i][2] = number[map[i].type];
        entries[i] = (uintptr_t)entry[i];
    }
    response[0] = 0;
    response[1] = map_count;
    response[2] = (uintptr_t)entries;
    status = bootmap_limine(response, out, MOST, &count);
    free(entries);
    free(entry);
    return status;
}

#define MEMORY_PA 0x7000u
static const unsigned char *memory; /* what stands there */

static const void *view_memory(void *ctx, mm_pa_t pa, size_t size)
{
    (void)ctx;
    return pa >= MEMORY_PA && pa + size <= MEMORY_PA + length ? memory + (pa - MEMORY_PA) : NULL;
}
static const struct bootmap_view view = {view_memory, NULL};

static enum mm_status adapt_pvh(const unsigned char *copy)
{
    memory = copy;
    return bootmap_pvh(MEMORY_PA, &view, out, MOST, &count);
}
static enum mm_status tell_pvh(void)
{
    put(4, 0x336ec578), put(4, 1), put(8, 0), put(8, 0), put(8, 0), put(8, 0);
    put(8, MEMORY_PA + 56), put(4, map_count), put(4, 0);
    put_e820(0, map_count, 24);
    return with(adapt_pvh);
}

/* The first entries in the zero page, the others in its continuation (offsets: Linux,
 * zero-page.rst). */
enum { IN_ZERO_PAGE = 5 };

static enum mm_status adapt_linux(const unsigned char *copy)
{
    enum mm_status status;
    size_t at = 0;
    memory = copy;
    status = bootmap_linux(copy, 4096, &view, out, MOST, &count);
    for (size_t i = 0; i < IN_ZERO_PAGE && i < map_count; i++)
        at += map[i].size != 0;
    if (status == MM_OK && map_count > IN_ZERO_PAGE) { /* the continuation itself is the loader's */
        assert_int_equal(out[at].base, MEMORY_PA + 4096);
        assert_int_equal(out[at].size, length - 4096);
        assert_int_equal(out[at].type, MM_FRAME_BOOTLOADER);
        memmove(&out[at], &out[at + 1], (--count - at) * sizeof *out);
    }
    return status;
}
static enum mm_status tell_linux(void)
{
    const size_t first = map_count < IN_ZERO_PAGE ? map_count : IN_ZERO_PAGE;
    report[0x1e8] = (unsigned char)first;
    length = 0x250, put(8, map_count > first ? MEMORY_PA + 4096 : 0);
    length = 0x2d0, put_e820(0, first, 20);
    length = 4096;
    if (map_count > first) {
        put(8, 0), put(4, 1), put(4, 20 * (map_count - first));
        put_e820(first, map_count, 20);
    }
    return with(adapt_linux);
}

static const unsigned efi_number[MM_FRAME_TYPES] = {7, 4, 9, 0, 10, 11, 0, 8};

static void put_efi(void)
{
    for (size_t i = 0; i < map_count; i++) {
        put(8, efi_number[map[i].type]), put(8, map[i].base), put(8, 0);
        put(8, map[i].size >> 12), put(8, 0xf), put(8, 0xee);
    }
}
static enum mm_status adapt_uefi(const unsigned char *copy)
{
    return bootmap_uefi(copy, length, 48, out, MOST, &count);
}
static enum mm_status tell_uefi(void)
{
    put_efi();
    return with(adapt_uefi);
}
static enum mm_status tell_multiboot2_efi(void)
{
    put(8, 0);
    put(4, 17), put(4, 16 + 48 * map_count), put(4, 48), put(4, 1);
    put_efi();
    put(4, 0), put(4, 8);
    memcpy(report, &length, 4);
    return with(adapt_multiboot2);
}

/* A node for each range: of memory, or below /reserved-memory. */
static void put_property(uint32_t name_at, const char *text, size_t i)
{
    put_big(4, 3);
    put_big(4, text != NULL ? strlen(text) + 1 : 16), put_big(4, name_at);
    if (text != NULL)
        put_text(text);
    else
        put_big(8, map[i].base), put_big(8, map[i].size);
}
static void put_cells(void)
{
    put_big(4, 3), put_big(4, 4), put_big(4, 0), put_big(4, 2);
    put_big(4, 3), put_big(4, 4), put_big(4, 15), put_big(4, 2);
}
static void put_nodes(bool usable)
{
    for (size_t i = 0; i < map_count; i++)
        if ((map[i].type == MM_FRAME_USABLE) == usable) {
            put_big(4, 1), put_text("node");
            if (usable)
                put_property(31, "memory", 0);
            put_property(27, NULL, i);
            put_big(4, 2);
        }
}
static enum mm_status adapt_fdt(const unsigned char *copy)
{
    return bootmap_fdt(copy, length, out, MOST, &count);
}
static enum mm_status tell_fdt(void)
{
    static const char names[] = "#address-cells\0#size-cells\0reg\0device_type";
    uint32_t head[10] = {0xd00dfeed, 0, 56, 0, 40, 17, 16, 0, sizeof names, 0};
    length = 56; /* header, no reservations */
    put_big(4, 1), put_text(""), put_cells();
    put_nodes(true);
    put_big(4, 1), put_text("reserved-memory"), put_cells();
    put_nodes(false);
    put_big(4, 2), put_big(4, 2), put_big(4, 9);
    head[9] = (uint32_t)length - 56;
    head[3] = (uint32_t)length;
    memcpy(report + length, names, sizeof names);
    length += sizeof names;
    head[1] = (uint32_t)length;
    for (unsigned i = 0; i < 10; i++) {
        const size_t end = length;
        length = 4 * (size_t)i, put_big(4, head[i]);
        length = end;
    }
    return with(adapt_fdt);
}

/* ---- what it must be ------------------------------------------------------------------------- */

enum { TYPED = 1, PAGES = 2, GROUPED = 4 }; /* all types; whole pages only; usable ones first */
static const struct format {
    const char *name;
    enum mm_status (*tell)(void);
    unsigned traits;
} formats[] = {{"e820", tell_e820, TYPED},
               {"multiboot2", tell_multiboot2, TYPED},
               {"limine", tell_limine, TYPED},
               {"pvh", tell_pvh, TYPED},
               {"linux", tell_linux, TYPED},
               {"uefi", tell_uefi, TYPED | PAGES},
               {"multiboot2 with UEFI's map", tell_multiboot2_efi, TYPED | PAGES},
               {"device tree", tell_fdt, GROUPED}};

static void told(const struct format *format)
{
    memset(report, 0, sizeof report);
    memset(out, 0x5a, sizeof out);
    length = 0;
    count = 12345;
    if (format->tell() != MM_OK)
        fail_msg("%s is refused", format->name);
}

/* The ranges of `map` that are not empty, in its order. */
static void assert_told(const struct format *format, bool usable, bool others, size_t *n)
{
    for (size_t i = 0; i < map_count; i++) {
        const bool is_usable = map[i].type == MM_FRAME_USABLE;
        const uint64_t size =
            (format->traits & PAGES) != 0 ? map[i].size & ~(uint64_t)4095 : map[i].size;
        if (size == 0 || !(is_usable ? usable : others))
            continue;
        if (*n >= count || out[*n].base != map[i].base || out[*n].size != size ||
            out[*n].type !=
                ((format->traits & TYPED) != 0 || is_usable ? map[i].type : MM_FRAME_RESERVED))
            fail_msg("%s: range %zu is not entry %zu", format->name, *n, i);
        ++*n;
    }
}

static void assert_all_told(const struct format *format)
{
    size_t n = 0;
    told(format);
    if ((format->traits & GROUPED) != 0) {
        assert_told(format, true, false, &n);
        assert_told(format, false, true, &n);
    } else {
        assert_told(format, true, true, &n);
    }
    assert_int_equal(n, count);
}

/* ---- an awkward map -------------------------------------------------------------------------- */

#define END (UINT64_C(4) << 20)

static bool inside(uint64_t at, bool usable)
{
    for (size_t i = 0; i < count; i++)
        if ((out[i].type == MM_FRAME_USABLE) == usable && at - out[i].base < out[i].size)
            return true;
    return false;
}

/* A page is the pool's if each 256 bytes of it are usable, and nothing else. */
static void assert_pool(const char *name)
{
    static unsigned char metadata[1 << 20];
    const struct mm_frame_config config = {
        .map = out, .map_count = count, .meta = metadata, .meta_size = sizeof metadata};
    struct mm_frame_pool pool;
    unsigned pages = 0;
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    for (uint64_t pa = 0; pa < END; pa += PAGE) {
        bool whole = true;
        for (uint64_t at = pa; at < pa + PAGE; at += 256)
            whole = whole && inside(at, true) && !inside(at, false);
        if ((mm_frame_is_free(&pool, pa) == 1) != whole)
            fail_msg("%s: the page at %#llx", name, (unsigned long long)pa);
        pages += whole;
    }
    assert_in_range(pages, 300, 700);
    assert_int_equal(mm_frame_free_count(&pool, 0), pages);
}

/* Neither sorted nor apart nor aligned, and with entries of no bytes: first, in the midst and
 * last. */
static void an_awkward_map_is_told_and_cleaned(void **state)
{
    static const struct mm_frame_range awkward[] = {
        {0x5000, 0, MM_FRAME_BAD},                 /* empty */
        {0x200000, 0x100000, MM_FRAME_USABLE},     /* not sorted */
        {0x1100, 0x4f000, MM_FRAME_USABLE},        /* no border is a page's */
        {0x280000, 0x2000, MM_FRAME_ACPI_NVS},     /* inside usable memory */
        {0x2f0800, 0x20000, MM_FRAME_RESERVED},    /* over its end */
        {0x100000, 0, MM_FRAME_USABLE},            /* empty */
        {0x100000, 0x80000, MM_FRAME_USABLE},      /* these two overlap */
        {0x160000, 0x80000, MM_FRAME_USABLE},      /* and are usable both */
        {0x1f0000, 0x11000, MM_FRAME_DEVICE},      /* over the start of what came first */
        {0x170300, 0x3000, MM_FRAME_ACPI_RECLAIM}, /* three pages spoil four */
        {0x170300, 0x3000, MM_FRAME_ACPI_RECLAIM}, /* twice */
        {0x171000, 0x1000, MM_FRAME_BAD},          /* in reserved memory */
        {0x380000, 0x1000, MM_FRAME_USABLE},
        {0x380000, 0x1000, MM_FRAME_RESERVED}, /* just as large */
        {0x3ff000, 0, MM_FRAME_RESERVED}};     /* empty */
    (void)state;
    map_count = sizeof awkward / sizeof awkward[0];
    memcpy(map, awkward, sizeof awkward);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        assert_all_told(&formats[i]);
        assert_pool(formats[i].name);
    }
}

/* ---- recorded maps --------------------------------------------------------------------------- */

static enum mm_frame_type type_named(const char *name)
{
    static const struct {
        const char *name;
        enum mm_frame_type type;
    } types[] = {{"usable", MM_FRAME_USABLE},          {"conventional", MM_FRAME_USABLE},
                 {"acpi-data", MM_FRAME_ACPI_RECLAIM}, {"acpi-reclaim", MM_FRAME_ACPI_RECLAIM},
                 {"acpi-nvs", MM_FRAME_ACPI_NVS},      {"mmio", MM_FRAME_DEVICE},
                 {"boot-code", MM_FRAME_BOOTLOADER},   {"boot-data", MM_FRAME_BOOTLOADER},
                 {"loader-code", MM_FRAME_BOOTLOADER}, {"loader-data", MM_FRAME_BOOTLOADER}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(name, types[i].name) == 0)
            return types[i].type;
    return MM_FRAME_RESERVED;
}

/* Reads a section of a file into `map`; the bytes that the file's comment counts as usable. */
static uint64_t read_section(const char *name, const char *section)
{
    char path[300], text[600], type[40];
    unsigned long long from, to, usable = 0;
    bool in = false;
    FILE *f;
    snprintf(path, sizeof path, "tests/data/bootmap/%s", name);
    f = fopen(path, "r");
    assert_non_null(f);
    map_count = 0;
    while (fgets(text, sizeof text, f) != NULL) {
        (void)sscanf(text, "# e820 entries %*u usable_ranges %*u usable_bytes %llu", &usable);
        if (text[0] == '[')
            in = strncmp(text, section, strlen(section)) == 0;
        else if (in && sscanf(text, "%llx %llx %39s", &from, &to, type) == 3)
            map[map_count++] = (struct mm_frame_range){from, to - from, type_named(type)};
        assert_in_range(map_count, 0, MOST - 8);
    }
    fclose(f);
    return usable;
}

static void each_recorded_map_is_told(void **state)
{
    DIR *folder = opendir("tests/data/bootmap");
    unsigned maps = 0, efi = 0;
    assert_non_null(folder);
    (void)state;
    for (struct dirent *d; (d = readdir(folder)) != NULL;) {
        uint64_t usable;
        if (strstr(d->d_name, ".map") == NULL)
            continue;
        usable = read_section(d->d_name, strncmp(d->d_name, "rv-", 3) == 0 ? "[fdt]" : "[e820]");
        maps++;
        assert_in_range(map_count, 2, MOST);
        for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
            uint64_t bytes = 0;
            if ((formats[i].traits & PAGES) != 0)
                continue;
            assert_all_told(&formats[i]);
            for (size_t k = 0; k < count; k++)
                bytes += out[k].type == MM_FRAME_USABLE ? out[k].size : 0;
            if (usable != 0)
                assert_int_equal(bytes, usable);
        }
        (void)read_section(d->d_name, "[efi]");
        efi += map_count != 0;
        for (size_t i = 0; map_count != 0 && i < sizeof formats / sizeof formats[0]; i++)
            if ((formats[i].traits & PAGES) != 0)
                assert_all_told(&formats[i]);
    }
    closedir(folder);
    assert_int_equal(maps, 26);
    assert_int_equal(efi, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_awkward_map_is_told_and_cleaned),
                                       cmocka_unit_test(each_recorded_map_is_told)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
