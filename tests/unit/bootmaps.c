/* examples/bootmaps: reports of every format, put together by hand, by dtc, by QEMU and by the
 * kernel of this machine; entries of every type; reports that are cut off or contradict
 * themselves. */
#include "mm_test.h"
#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"
#include "../../examples/bootmaps/bootmaps.c"

#include <dirent.h>
#if defined(__x86_64__)
#include <asm/bootparam.h>
#endif

#define MOST 160

static struct mm_frame_range out[MOST];
static size_t count;

static void assert_range(size_t i, mm_pa_t base, uint64_t size, enum mm_frame_type type)
{
    assert_in_range(i, 0, count - 1);
    assert_int_equal(out[i].base, base);
    assert_int_equal(out[i].size, size);
    assert_int_equal(out[i].type, type);
}

/* ---- reports under construction -------------------------------------------------------------- */

static unsigned char blob[8192];
static size_t length;

static void put(unsigned bytes, uint64_t value)
{
    for (; bytes-- != 0; value >>= 8)
        blob[length++] = (unsigned char)value;
}

static void put_at(size_t at, unsigned bytes, uint64_t value)
{
    const size_t end = length;
    length = at;
    put(bytes, value);
    length = end;
}

static void start(void)
{
    memset(blob, 0, sizeof blob);
    length = 0;
    count = 12345;
    memset(out, 0x5a, sizeof out);
}

static void put_be32_at(size_t at, size_t value)
{
    put_at(at, 4, __builtin_bswap32((uint32_t)value));
}

static uint32_t get_be32(size_t at)
{
    uint32_t value;
    memcpy(&value, blob + at, 4);
    return __builtin_bswap32(value);
}

/* A copy that ends where the sanitizer notices a read behind it; the caller frees it. */
static void *exact(size_t size)
{
    void *copy = malloc(size != 0 ? size : 1);
    memcpy(copy, blob, size);
    return copy;
}

static void assert_untouched(void)
{
    for (size_t i = 0; i < sizeof out; i++)
        assert_int_equal(((unsigned char *)out)[i], 0x5a);
    assert_int_equal(count, 12345);
}

/* ---- memory that reports point into ---------------------------------------------------------- */

#define MEMORY_PA 0x7000u

static unsigned views;

/* `blob` is what stands at MEMORY_PA; nothing else is readable. Each view is a copy of just its
 * size. */
static void *copies[4096];

static const void *view_blob(void *ctx, mm_pa_t pa, size_t size)
{
    (void)ctx;
    assert_true(pa + size >= pa); /* a view need not look out for ranges that wrap */
    if (pa < MEMORY_PA || pa - MEMORY_PA > length || size > length - (pa - MEMORY_PA))
        return NULL;
    assert_in_range(views, 0, 4095);
    copies[views] = malloc(size != 0 ? size : 1);
    memcpy(copies[views], blob + (pa - MEMORY_PA), size);
    return copies[views++];
}

static void forget_views(void)
{
    while (views != 0)
        free(copies[--views]);
}

static const struct bootmap_view view = {view_blob, NULL};

/* ---- E820 ------------------------------------------------------------------------------------ */

static void put_e820(mm_pa_t base, uint64_t size, uint32_t type)
{
    put(8, base);
    put(8, size);
    put(4, type);
}

static enum mm_status e820(size_t number, size_t stride)
{
    void *copy = exact(number * stride);
    const enum mm_status status = bootmap_e820(copy, number, stride, out, MOST, &count);
    free(copy);
    return status;
}

/* ACPI 6.5, table 15.4, and Linux's two */
static const struct {
    uint32_t number;
    enum mm_frame_type type;
} e820_types[] = {
    {1, MM_FRAME_USABLE},           {2, MM_FRAME_RESERVED},  {3, MM_FRAME_ACPI_RECLAIM},
    {4, MM_FRAME_ACPI_NVS},         {5, MM_FRAME_BAD},       {6, MM_FRAME_RESERVED},
    {7, MM_FRAME_DEVICE},           {12, MM_FRAME_DEVICE},   {0, MM_FRAME_RESERVED},
    {8, MM_FRAME_RESERVED},         {13, MM_FRAME_RESERVED}, {0xefffffff, MM_FRAME_RESERVED},
    {0xf0000000, MM_FRAME_RESERVED}};
#define E820_TYPES (sizeof e820_types / sizeof e820_types[0])

static void assert_e820_types(void)
{
    for (size_t i = 0; i < E820_TYPES; i++)
        assert_range(i, i << 40 | 0x123, 0x1001, e820_types[i].type);
}

static void e820_has_a_type_for_every_type(void **state)
{
    (void)state;
    start();
    for (size_t i = 0; i < E820_TYPES; i++)
        put_e820(i << 40 | 0x123, 0x1001, e820_types[i].number);
    assert_int_equal(e820(E820_TYPES, 20), MM_OK);
    assert_int_equal(count, E820_TYPES);
    assert_e820_types();
}

static void e820_leaves_out_what_is_not_enabled(void **state)
{
    (void)state;
    start();
    put_e820(0x1000, 0x1000, 1), put(4, 1);
    put_e820(0x2000, 0x1000, 1), put(4, 0);
    put_e820(0x3000, 0x1000, 1), put(4, 3);
    assert_int_equal(e820(3, 24), MM_OK);
    assert_int_equal(count, 2);
    assert_range(0, 0x1000, 0x1000, MM_FRAME_USABLE);
    assert_range(1, 0x3000, 0x1000, MM_FRAME_USABLE);
}

static void e820_leaves_out_empty_entries(void **state)
{
    (void)state;
    start();
    put_e820(0x1000, 0, 1);
    put_e820(0x2000, 1, 1);
    put_e820(UINT64_MAX, 1, 2);
    assert_int_equal(e820(3, 20), MM_OK);
    assert_int_equal(count, 2);
    assert_range(0, 0x2000, 1, MM_FRAME_USABLE);
    assert_range(1, UINT64_MAX, 1, MM_FRAME_RESERVED); /* ends at 2^64: allowed */
}

static void e820_refuses_ranges_that_wrap(void **state)
{
    (void)state;
    start();
    put_e820(0x1000, 0x1000, 1);
    put_e820(UINT64_MAX, 2, 2);
    assert_int_equal(e820(2, 20), MM_ERR_CORRUPT);
    assert_untouched();
}

static void e820_refuses_bad_arguments(void **state)
{
    (void)state;
    start();
    put_e820(0x1000, 0x1000, 1);
    assert_int_equal(bootmap_e820(NULL, 1, 20, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_e820(blob, 1, 19, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_e820(blob, SIZE_MAX / 20 + 1, 20, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_e820(blob, 1, 20, NULL, 1, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_e820(blob, 1, 20, out, MOST, NULL), MM_ERR_INVALID);
    assert_int_equal(bootmap_e820(blob, 0, 20, out, MOST, &count), MM_ERR_NOENT);
    assert_untouched();
}

static void too_small_an_array_is_told_the_size_it_needs(void **state)
{
    (void)state;
    start();
    for (uint64_t i = 0; i < 3; i++)
        put_e820(i << 20, 0x1000, 1);
    for (size_t capacity = 0; capacity < 3; capacity++) {
        count = 12345;
        assert_int_equal(bootmap_e820(blob, 3, 20, capacity != 0 ? out : NULL, capacity, &count),
                         MM_ERR_LIMIT);
        assert_int_equal(count, 3);
        count = 12345;
        assert_untouched();
    }
    assert_int_equal(bootmap_e820(blob, 3, 20, out, 3, &count), MM_OK);
}

/* ---- UEFI ------------------------------------------------------------------------------------ */

#define EFI_WB 0x8u

static void put_efi(uint32_t type, mm_pa_t base, uint64_t pages, uint64_t attributes, unsigned more)
{
    put(4, type), put(4, 0xdeadbeef);
    put(8, base), put(8, 0xdeadbeefdeadbeef);
    put(8, pages), put(8, attributes);
    while (more-- != 0)
        put(1, 0xee);
}

static enum mm_status uefi(size_t size, size_t stride)
{
    void *copy = exact(size);
    const enum mm_status status = bootmap_uefi(copy, size, stride, out, MOST, &count);
    free(copy);
    return status;
}

/* UEFI 2.10, table 7.10; then the two ranges of OEM's and loaders' types */
static const struct {
    uint32_t number;
    enum mm_frame_type type;
} efi_types[] = {{0, MM_FRAME_RESERVED},
                 {1, MM_FRAME_BOOTLOADER},
                 {2, MM_FRAME_BOOTLOADER},
                 {3, MM_FRAME_BOOTLOADER},
                 {4, MM_FRAME_BOOTLOADER},
                 {5, MM_FRAME_RESERVED},
                 {6, MM_FRAME_RESERVED},
                 {7, MM_FRAME_USABLE},
                 {8, MM_FRAME_BAD},
                 {9, MM_FRAME_ACPI_RECLAIM},
                 {10, MM_FRAME_ACPI_NVS},
                 {11, MM_FRAME_DEVICE},
                 {12, MM_FRAME_DEVICE},
                 {13, MM_FRAME_RESERVED},
                 {14, MM_FRAME_DEVICE},
                 {15, MM_FRAME_RESERVED},
                 {16, MM_FRAME_RESERVED},
                 {0x70000000, MM_FRAME_RESERVED},
                 {0x80000000, MM_FRAME_RESERVED},
                 {0xffffffff, MM_FRAME_RESERVED}};
#define EFI_TYPES (sizeof efi_types / sizeof efi_types[0])

static void uefi_has_a_type_for_every_type(void **state)
{
    (void)state;
    for (unsigned more = 0; more <= 16; more += 8) {
        start();
        for (size_t i = 0; i < EFI_TYPES; i++)
            put_efi(efi_types[i].number, i << 40, 3, EFI_WB, more);
        assert_int_equal(uefi(length, 40 + more), MM_OK);
        assert_int_equal(count, EFI_TYPES);
        for (size_t i = 0; i < EFI_TYPES; i++)
            assert_range(i, i << 40, 0x3000, efi_types[i].type);
    }
}

static void uefi_heeds_the_attributes(void **state)
{
    (void)state;
    start();
    put_efi(7, 0x100000, 1, EFI_WB | 0x7, 0);
    put_efi(7, 0x200000, 1, 0x7, 0);                        /* cannot be written back */
    put_efi(7, 0x300000, 1, EFI_WB | 0x40000, 0);           /* specific purpose */
    put_efi(4, 0x400000, 1, EFI_WB | (uint64_t)1 << 63, 0); /* needed by runtime services */
    put_efi(11, 0x500000, 1, (uint64_t)1 << 63, 0);         /* a device that they use */
    put_efi(12, 0x600000, 1, (uint64_t)1 << 63, 0);         /* its ports */
    assert_int_equal(uefi(length, 40), MM_OK);
    assert_int_equal(count, 6);
    assert_range(5, 0x600000, 0x1000, MM_FRAME_DEVICE);
    assert_range(0, 0x100000, 0x1000, MM_FRAME_USABLE);
    assert_range(1, 0x200000, 0x1000, MM_FRAME_RESERVED);
    assert_range(2, 0x300000, 0x1000, MM_FRAME_DEVICE);
    assert_range(3, 0x400000, 0x1000, MM_FRAME_RESERVED);
    assert_range(4, 0x500000, 0x1000, MM_FRAME_DEVICE);
}

static void uefi_refuses_what_is_broken(void **state)
{
    (void)state;
    start();
    put_efi(7, 0x100000, 1, EFI_WB, 0);
    put_efi(7, 0x200000, 1, EFI_WB, 0);
    assert_int_equal(uefi(80, 39), MM_ERR_CORRUPT);
    assert_int_equal(uefi(80, 0), MM_ERR_CORRUPT);
    for (size_t cut = 41; cut < 80; cut++)
        assert_int_equal(uefi(cut, 40), MM_ERR_CORRUPT);
    assert_int_equal(uefi(0, 40), MM_ERR_NOENT);
    assert_int_equal(bootmap_uefi(NULL, 80, 40, out, MOST, &count), MM_ERR_INVALID);
    put_at(40 + 24, 8, (uint64_t)1 << 52); /* pages: 2^64 bytes */
    assert_int_equal(uefi(80, 40), MM_ERR_CORRUPT);
    put_at(40 + 24, 8, ((uint64_t)1 << 52) - 1); /* fits, but not behind 0x200000 */
    assert_int_equal(uefi(80, 40), MM_ERR_CORRUPT);
    assert_untouched();
}

/* ---- Multiboot2 ------------------------------------------------------------------------------ */

static void mb2_start(void)
{
    start();
    put(4, 0), put(4, 0); /* total size: mb2_end */
}

static void mb2_align(void)
{
    while (length % 8 != 0)
        put(1, 0xcc);
}

static void mb2_module_tag(uint32_t from, uint32_t to, const char *name)
{
    put(4, 3), put(4, 16 + strlen(name) + 1);
    put(4, from), put(4, to);
    for (size_t i = 0; i <= strlen(name); i++)
        put(1, (unsigned char)name[i]);
    mb2_align();
}

static void mb2_map_tag(size_t entries, uint32_t stride)
{
    put(4, 6), put(4, 16 + entries * stride), put(4, stride), put(4, 0);
}

static size_t mb2_end(void)
{
    put(4, 0), put(4, 8);
    put_at(0, 4, length);
    return length;
}

static enum mm_status mb2(size_t limit)
{
    void *copy = exact(limit);
    const enum mm_status status = bootmap_multiboot2(copy, limit, out, MOST, &count);
    free(copy);
    return status;
}

static void multiboot2_has_a_type_for_every_type(void **state)
{
    (void)state;
    mb2_start();
    put(4, 4), put(4, 16), put(4, 639), put(4, 0x1000); /* a tag of no interest: basic memory */
    mb2_map_tag(E820_TYPES, 24);
    for (size_t i = 0; i < E820_TYPES; i++)
        put_e820(i << 40 | 0x123, 0x1001, e820_types[i].number), put(4, 0);
    mb2_end();
    assert_int_equal(mb2(length), MM_OK);
    assert_int_equal(count, E820_TYPES);
    assert_e820_types();
}

static void multiboot2_takes_larger_entries(void **state)
{
    (void)state;
    mb2_start();
    mb2_map_tag(2, 32);
    for (uint64_t i = 1; i <= 2; i++)
        put_e820(i << 20, 0x1000, 1), put(4, 0), put(8, 0xffffffffffffffff);
    mb2_end();
    assert_int_equal(mb2(length), MM_OK);
    assert_int_equal(count, 2);
    assert_range(1, 2 << 20, 0x1000, MM_FRAME_USABLE);
}

static void multiboot2_keeps_the_modules(void **state)
{
    (void)state;
    mb2_start();
    mb2_module_tag(0x200000, 0x234567, "initrd");
    mb2_map_tag(1, 24);
    put_e820(0x100000, 0x1000000, 1), put(4, 0);
    mb2_module_tag(0x300000, 0x300000, ""); /* empty */
    mb2_module_tag(0x400000, 0x400001, "x");
    mb2_end();
    assert_int_equal(mb2(length), MM_OK);
    assert_int_equal(count, 3);
    assert_range(0, 0x100000, 0x1000000, MM_FRAME_USABLE);
    assert_range(1, 0x200000, 0x34567, MM_FRAME_BOOTLOADER);
    assert_range(2, 0x400000, 1, MM_FRAME_BOOTLOADER);
}

static void mb2_efi_tag(void)
{
    put(4, 17), put(4, 16 + 2 * 48), put(4, 48), put(4, 1);
    put_efi(7, 0x100000, 16, EFI_WB, 8);
    put_efi(3, 0x200000, 16, EFI_WB, 8);
}

static void multiboot2_falls_back_on_the_efi_map(void **state)
{
    (void)state;
    mb2_start();
    mb2_efi_tag();
    mb2_end();
    assert_int_equal(mb2(length), MM_OK);
    assert_int_equal(count, 2);
    assert_range(0, 0x100000, 0x10000, MM_FRAME_USABLE);
    assert_range(1, 0x200000, 0x10000, MM_FRAME_BOOTLOADER);
}

static void multiboot2_prefers_its_own_map(void **state)
{
    (void)state;
    mb2_start();
    mb2_efi_tag();
    mb2_map_tag(1, 24);
    put_e820(0x100000, 0x1000, 1), put(4, 0);
    mb2_end();
    assert_int_equal(mb2(length), MM_OK);
    assert_int_equal(count, 1);
    assert_range(0, 0x100000, 0x1000, MM_FRAME_USABLE);
}

static void multiboot2_without_a_map_is_told(void **state)
{
    (void)state;
    mb2_start();
    mb2_module_tag(0x200000, 0x234567, "initrd");
    mb2_end();
    assert_int_equal(mb2(length), MM_ERR_NOENT);
    assert_untouched();
}

static void mb2_sample(void)
{
    mb2_start();
    mb2_module_tag(0x200000, 0x234567, "initrd.img");
    mb2_map_tag(2, 24);
    put_e820(0, 0x9fc00, 1), put(4, 0);
    put_e820(0x100000, 0x1000000, 1), put(4, 0);
    mb2_end();
}

/* Cut off behind each byte: by what may be read, and by what its header says. */
static void multiboot2_refuses_every_truncation(void **state)
{
    (void)state;
    mb2_sample();
    for (size_t cut = 0; cut < length; cut++) {
        assert_int_equal(mb2(cut), MM_ERR_CORRUPT);
        if (cut >= 4) {
            put_at(0, 4, cut);
            assert_int_equal(mb2(cut), MM_ERR_CORRUPT);
            put_at(0, 4, length);
        }
    }
    assert_untouched();
    assert_int_equal(mb2(length), MM_OK);
}

static void mb2_refuses_with(size_t at, uint32_t value)
{
    mb2_sample();
    put_at(at, 4, value);
    assert_int_equal(mb2(length), MM_ERR_CORRUPT);
    assert_untouched();
}

static void multiboot2_refuses_tags_without_contents(void **state)
{
    static const uint32_t types[] = {6, 17, 3};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        mb2_start();
        if (types[i] == 3) { /* a module is looked at when there is a map */
            mb2_map_tag(1, 24);
            put_e820(0, 0x1000, 1), put(4, 0);
        }
        put(4, types[i]), put(4, 12), put(4, 24), put(4, 0);
        mb2_end();
        assert_int_equal(mb2(length), MM_ERR_CORRUPT);
        assert_untouched();
    }
}

static void multiboot2_refuses_entries_of_odd_size(void **state)
{
    (void)state;
    mb2_start();
    mb2_map_tag(1, 28);
    put_e820(0, 0x1000, 1), put(4, 0), put(4, 0);
    mb2_align();
    mb2_end();
    assert_int_equal(mb2(length), MM_ERR_CORRUPT);
    assert_untouched();
}

static void multiboot2_refuses_contradictions(void **state)
{
    const size_t module = 8, map = 8 + 32, end = map + 16 + 48;
    (void)state;
    mb2_refuses_with(module + 4, 7);          /* tag smaller than its header */
    mb2_refuses_with(module + 4, 0);          /* would never end */
    mb2_refuses_with(module + 4, 15);         /* too small for a module */
    mb2_refuses_with(module + 4, 0xffffffff); /* leads out */
    mb2_refuses_with(module + 4, 0xfffffff8); /* the same, aligned */
    mb2_refuses_with(module + 12, 0x1fffff);  /* ends before it starts */
    mb2_refuses_with(map + 4, 8);             /* too small for a map */
    mb2_refuses_with(map + 4, 16 + 47);       /* not whole entries */
    mb2_refuses_with(map + 8, 0);             /* size of an entry */
    mb2_refuses_with(map + 8, 16);
    mb2_refuses_with(map + 8, 28);
    mb2_refuses_with(map + 8, 0xfffffff8);
    mb2_refuses_with(end, 2);        /* no end tag */
    mb2_refuses_with(0, 0xffffffff); /* larger than what may be read */
    mb2_refuses_with(0, 8);
    mb2_start();
    mb2_efi_tag();
    put_at(8 + 8, 4, 32); /* EFI descriptors too small */
    mb2_end();
    assert_int_equal(mb2(length), MM_ERR_CORRUPT);
    assert_int_equal(bootmap_multiboot2(NULL, 100, out, MOST, &count), MM_ERR_INVALID);
}

/* ---- Limine ---------------------------------------------------------------------------------- */

static uint64_t limine_entry[16][3], limine_entries[16], limine_response[3];

static const struct {
    uint64_t number;
    enum mm_frame_type type;
} limine_types[] = {{0, MM_FRAME_USABLE},
                    {1, MM_FRAME_RESERVED},
                    {2, MM_FRAME_ACPI_RECLAIM},
                    {3, MM_FRAME_ACPI_NVS},
                    {4, MM_FRAME_BAD},
                    {5, MM_FRAME_BOOTLOADER},
                    {6, MM_FRAME_KERNEL},
                    {7, MM_FRAME_DEVICE},
                    {8, MM_FRAME_RESERVED},
                    {9, MM_FRAME_RESERVED},
                    {0x100000000, MM_FRAME_RESERVED}};
#define LIMINE_TYPES (sizeof limine_types / sizeof limine_types[0])

static void limine_start(void)
{
    start();
    for (size_t i = 0; i < LIMINE_TYPES; i++) {
        limine_entry[i][0] = i << 32;
        limine_entry[i][1] = 0x5000;
        limine_entry[i][2] = limine_types[i].number;
        limine_entries[i] = (uintptr_t)limine_entry[i];
    }
    limine_response[0] = 0;
    limine_response[1] = LIMINE_TYPES;
    limine_response[2] = (uintptr_t)limine_entries;
}

static void limine_has_a_type_for_every_type(void **state)
{
    (void)state;
    limine_start();
    assert_int_equal(bootmap_limine(limine_response, out, MOST, &count), MM_OK);
    assert_int_equal(count, LIMINE_TYPES);
    for (size_t i = 0; i < LIMINE_TYPES; i++)
        assert_range(i, i << 32, 0x5000, limine_types[i].type);
}

static void limine_refuses_what_is_broken(void **state)
{
    (void)state;
    limine_start();
    assert_int_equal(bootmap_limine(NULL, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_limine(limine_response, out, MOST, NULL), MM_ERR_INVALID);
    limine_response[1] = 0;
    assert_int_equal(bootmap_limine(limine_response, out, MOST, &count), MM_ERR_NOENT);
    limine_response[1] = LIMINE_TYPES;
    limine_entries[3] = 0;
    assert_int_equal(bootmap_limine(limine_response, out, MOST, &count), MM_ERR_CORRUPT);
    limine_start();
    limine_entry[3][1] = 0 - limine_entry[3][0] + 1;
    assert_int_equal(bootmap_limine(limine_response, out, MOST, &count), MM_ERR_CORRUPT);
    limine_start();
    limine_response[2] = 0;
    assert_int_equal(bootmap_limine(limine_response, out, MOST, &count), MM_ERR_CORRUPT);
    assert_untouched();
}

static void limine_does_not_read_more_entries_than_fit(void **state)
{
    (void)state;
    limine_start();
    limine_response[1] = UINT64_MAX;
    assert_int_equal(bootmap_limine(limine_response, out, MOST, &count), MM_ERR_LIMIT);
    assert_int_equal(count, SIZE_MAX);
    limine_response[1] = LIMINE_TYPES;
    assert_int_equal(bootmap_limine(limine_response, out, LIMINE_TYPES - 1, &count), MM_ERR_LIMIT);
    assert_int_equal(count, LIMINE_TYPES);
    count = 12345;
    assert_untouched();
}

/* ---- Linux ----------------------------------------------------------------------------------- */

#if defined(__x86_64__)

static struct boot_params params;

static void linux_start(void)
{
    start();
    memset(&params, 0, sizeof params);
    params.e820_entries = 2;
    params.e820_table[0].addr = 0;
    params.e820_table[0].size = 0x9fc00;
    params.e820_table[0].type = 1;
    params.e820_table[1].addr = 0x100000;
    params.e820_table[1].size = 0x7f00000;
    params.e820_table[1].type = 1;
}

static enum mm_status linux_map(const struct bootmap_view *from)
{
    const enum mm_status status = bootmap_linux(&params, sizeof params, from, out, MOST, &count);
    forget_views();
    return status;
}

static void linux_reads_the_table(void **state)
{
    (void)state;
    linux_start();
    assert_int_equal(linux_map(NULL), MM_OK);
    assert_int_equal(count, 2);
    assert_range(0, 0, 0x9fc00, MM_FRAME_USABLE);
    assert_range(1, 0x100000, 0x7f00000, MM_FRAME_USABLE);
}

static void linux_reads_a_full_table(void **state)
{
    (void)state;
    linux_start();
    params.e820_entries = 128;
    for (uint64_t i = 0; i < 128; i++) {
        params.e820_table[i].addr = i << 32;
        params.e820_table[i].size = 0x1000;
        params.e820_table[i].type = 1 + (uint32_t)(i % 5);
    }
    assert_int_equal(linux_map(NULL), MM_OK);
    assert_int_equal(count, 128);
    for (uint64_t i = 0; i < 128; i++)
        assert_range(i, i << 32, 0x1000, e820_types[i % 5].type);
    params.e820_entries = 129;
    assert_int_equal(linux_map(NULL), MM_ERR_CORRUPT);
}

static void linux_keeps_the_initial_ram_disk(void **state)
{
    (void)state;
    linux_start();
    params.hdr.ramdisk_image = 0x2000000;
    params.hdr.ramdisk_size = 0x123456;
    params.ext_ramdisk_image = 3;
    params.ext_ramdisk_size = 1;
    assert_int_equal(linux_map(NULL), MM_OK);
    assert_int_equal(count, 3);
    assert_range(2, 0x302000000, 0x100123456, MM_FRAME_BOOTLOADER);
}

/* A node of the list of setup data in the view's memory; returns its address. */
static mm_pa_t put_setup_data(mm_pa_t next, uint32_t type, size_t bytes)
{
    const mm_pa_t pa = MEMORY_PA + length;
    put(8, next), put(4, type), put(4, bytes);
    return pa;
}

static void linux_follows_the_setup_data(void **state)
{
    mm_pa_t first, second;
    (void)state;
    linux_start();
    first = put_setup_data(0, SETUP_E820_EXT, 40);
    put_e820(0x1000000000, 0x1000, 1);
    put_e820(0x2000000000, 0x2000, 4);
    second = put_setup_data(first, SETUP_DTB, 5);
    put(5, 0);
    params.hdr.setup_data = second;
    assert_int_equal(linux_map(&view), MM_OK);
    assert_int_equal(count, 6);
    assert_range(2, second, 16 + 5, MM_FRAME_BOOTLOADER);
    assert_range(3, first, 16 + 40, MM_FRAME_BOOTLOADER);
    assert_range(4, 0x1000000000, 0x1000, MM_FRAME_USABLE);
    assert_range(5, 0x2000000000, 0x2000, MM_FRAME_ACPI_NVS);
}

static void linux_refuses_broken_setup_data(void **state)
{
    (void)state;
    linux_start();
    params.hdr.setup_data = put_setup_data(MEMORY_PA, SETUP_DTB, 0); /* a loop */
    assert_int_equal(linux_map(&view), MM_ERR_CORRUPT);
    assert_int_equal(linux_map(NULL), MM_ERR_CORRUPT); /* nothing to read it with */
    put_at(0, 8, 0);
    assert_int_equal(linux_map(&view), MM_OK);
    linux_start();
    params.hdr.setup_data = put_setup_data(0, SETUP_E820_EXT, 40); /* longer than what there is */
    put_e820(0, 0x1000, 1);
    assert_int_equal(linux_map(&view), MM_ERR_CORRUPT);
    put_at(12, 4, 19); /* not whole entries */
    assert_int_equal(linux_map(&view), MM_ERR_CORRUPT);
    put_at(12, 4, 20);
    assert_int_equal(linux_map(&view), MM_OK);
    params.hdr.setup_data = 0x10; /* nothing there */
    count = 12345, memset(out, 0x5a, sizeof out);
    assert_int_equal(linux_map(&view), MM_ERR_CORRUPT);
    params.hdr.setup_data = UINT64_MAX - 8; /* wraps */
    assert_int_equal(linux_map(&view), MM_ERR_CORRUPT);
    assert_untouched();
}

static void linux_refuses_bad_arguments(void **state)
{
    const struct bootmap_view blind = {NULL, NULL};
    (void)state;
    linux_start();
    assert_int_equal(bootmap_linux(NULL, 4096, NULL, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_linux(&params, 4096, &blind, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_linux(&params, 4095, NULL, out, MOST, &count), MM_ERR_CORRUPT);
    params.e820_table[1].size = UINT64_MAX;
    assert_int_equal(linux_map(NULL), MM_ERR_CORRUPT);
    params.e820_entries = 0;
    assert_int_equal(linux_map(NULL), MM_ERR_NOENT);
    assert_untouched();
}

/* ---- the kernel of this machine -------------------------------------------------------------- */

static bool read_text(const char *folder, const char *entry, const char *file, char *text,
                      size_t size)
{
    char path[512];
    FILE *f;
    size_t got;
    snprintf(path, sizeof path, "%s/%s/%s", folder, entry, file);
    if ((f = fopen(path, "r")) == NULL)
        return false;
    got = fread(text, 1, size - 1, f);
    text[got] = '\0';
    fclose(f);
    return got != 0;
}

static enum mm_frame_type type_of_text(const char *text)
{
    static const struct {
        const char *text;
        enum mm_frame_type type;
    } names[] = {{"System RAM", MM_FRAME_USABLE},
                 {"ACPI Tables", MM_FRAME_ACPI_RECLAIM},
                 {"ACPI Non-volatile", MM_FRAME_ACPI_NVS},
                 {"Unusable", MM_FRAME_BAD},
                 {"Persistent", MM_FRAME_DEVICE}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(text, names[i].text, strlen(names[i].text)) == 0)
            return names[i].type;
    return MM_FRAME_RESERVED;
}

/* What Linux itself made of the firmware's map. */
static size_t firmware_memmap(struct mm_frame_range *to)
{
    const char *folder = "/sys/firmware/memmap";
    DIR *d = opendir(folder);
    struct dirent *e;
    size_t n = 0;
    char first[64], last[64], type[64];
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.' || n == MOST || !read_text(folder, e->d_name, "start", first, 64) ||
            !read_text(folder, e->d_name, "end", last, 64) ||
            !read_text(folder, e->d_name, "type", type, 64))
            continue;
        to[n].base = strtoull(first, NULL, 16);
        to[n].size = strtoull(last, NULL, 16) - to[n].base + 1;
        to[n++].type = type_of_text(type);
    }
    if (d != NULL)
        closedir(d);
    return n;
}

static void linux_agrees_with_the_kernel_of_this_machine(void **state)
{
    static struct mm_frame_range theirs[MOST], ours_clean[3 * MOST], theirs_clean[3 * MOST];
    size_t ours_count, theirs_count;
    const size_t n = firmware_memmap(theirs);
    FILE *f = fopen("/sys/kernel/boot_params/data", "rb");
    (void)state;
    start();
    if (f == NULL || fread(&params, 1, sizeof params, f) != sizeof params || n == 0) {
        if (f != NULL)
            fclose(f);
        skip();
    }
    fclose(f);
    params.hdr.setup_data = 0; /* not readable from here */
    params.hdr.ramdisk_size = params.ext_ramdisk_size = 0;
    if (params.e820_entries == 0)
        skip();
    assert_int_equal(linux_map(NULL), MM_OK);
    assert_int_equal(mm_frame_map_clean(out, count, ours_clean, 3 * MOST, &ours_count), MM_OK);
    assert_int_equal(mm_frame_map_clean(theirs, n, theirs_clean, 3 * MOST, &theirs_count), MM_OK);
    assert_int_equal(ours_count, theirs_count);
    for (size_t i = 0; i < ours_count; i++) {
        assert_int_equal(ours_clean[i].base, theirs_clean[i].base);
        assert_int_equal(ours_clean[i].size, theirs_clean[i].size);
        assert_int_equal(ours_clean[i].type, theirs_clean[i].type);
    }
}
#endif

/* ---- PVH ------------------------------------------------------------------------------------- */

/* start_info at the start of the view's memory, the memory map at 0x100, the modules at 0x400 */
static void pvh_start(size_t entries, size_t modules)
{
    start();
    put(4, 0x336ec578), put(4, 1), put(4, 0), put(4, modules);
    put(8, MEMORY_PA + 0x400), put(8, 0), put(8, 0);
    put(8, MEMORY_PA + 0x100), put(4, entries), put(4, 0);
    length = 0x100;
    for (size_t i = 0; i < entries; i++)
        put_e820(i << 40 | 0x123, 0x1001, e820_types[i % E820_TYPES].number), put(4, 0);
    length = 0x400;
    for (size_t i = 0; i < modules; i++)
        put(8, (i + 1) << 24), put(8, 0x777), put(8, 0), put(8, 0);
}

static enum mm_status pvh(void)
{
    const enum mm_status status = bootmap_pvh(MEMORY_PA, &view, out, MOST, &count);
    forget_views();
    return status;
}

static void pvh_has_a_type_for_every_type(void **state)
{
    (void)state;
    pvh_start(E820_TYPES, 2);
    assert_int_equal(pvh(), MM_OK);
    assert_int_equal(count, E820_TYPES + 2);
    assert_e820_types();
    assert_range(E820_TYPES, 1 << 24, 0x777, MM_FRAME_BOOTLOADER);
    assert_range(E820_TYPES + 1, 2 << 24, 0x777, MM_FRAME_BOOTLOADER);
}

static void pvh_without_a_map_is_told(void **state)
{
    (void)state;
    pvh_start(1, 0);
    put_at(4, 4, 0); /* version 0, which ends at byte 40 */
    length = 40;
    assert_int_equal(pvh(), MM_ERR_NOENT);
    pvh_start(0, 1);
    assert_int_equal(pvh(), MM_ERR_NOENT);
    pvh_start(1, 0);
    put_at(0, 4, 0x2badb002);
    assert_int_equal(pvh(), MM_ERR_NOENT);
    assert_untouched();
}

static void pvh_refuses_what_is_broken(void **state)
{
    const struct bootmap_view blind = {NULL, NULL};
    (void)state;
    pvh_start(3, 2);
    for (size_t end = length, cut = 0; cut < end; cut++) {
        length = cut; /* memory ends in the midst of it */
        assert_int_equal(pvh(), MM_ERR_CORRUPT);
        length = end;
    }
    put_at(48, 4, 0xffffffff); /* entries */
    assert_int_equal(pvh(), MM_ERR_CORRUPT);
    pvh_start(3, 2);
    put_at(12, 4, 0xffffffff); /* modules */
    assert_int_equal(pvh(), MM_ERR_CORRUPT);
    pvh_start(3, 2);
    put_at(40, 8, UINT64_MAX - 71); /* the map wraps around */
    assert_int_equal(pvh(), MM_ERR_CORRUPT);
    pvh_start(3, 2);
    put_at(0x400 + 8, 8, UINT64_MAX); /* and so does a module */
    assert_int_equal(pvh(), MM_ERR_CORRUPT);
    assert_int_equal(bootmap_pvh(MEMORY_PA, NULL, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_pvh(MEMORY_PA, &blind, out, MOST, &count), MM_ERR_INVALID);
    assert_int_equal(bootmap_pvh(UINT64_MAX - 3, &view, out, MOST, &count), MM_ERR_CORRUPT);
    assert_untouched();
}

/* ---- device trees, recorded ------------------------------------------------------------------ */

static void read_blob(const char *name)
{
    char path[256];
    FILE *f;
    snprintf(path, sizeof path, "tests/data/bootmap/%s", name);
    if ((f = fopen(path, "rb")) == NULL) {
        snprintf(path, sizeof path, "../data/bootmap/%s", name);
        f = fopen(path, "rb");
    }
    assert_non_null(f);
    start();
    length = fread(blob, 1, sizeof blob, f);
    fclose(f);
    assert_in_range(length, 40, sizeof blob - 1);
}

static enum mm_status fdt(size_t limit)
{
    void *copy = exact(limit);
    const enum mm_status status = bootmap_fdt(copy, limit, out, MOST, &count);
    free(copy);
    return status;
}

/* QEMU's virt machine behind OpenSBI; the ranges as Linux prints them are in
 * rv-virt-numa2-3G.map. */
static void fdt_of_qemu(void **state)
{
    (void)state;
    read_blob("rv-virt-numa2-3G.dtb");
    assert_int_equal(fdt(length), MM_OK);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        if (out[i].type == MM_FRAME_RESERVED)
            assert_range(i, 0x80000000, 0x80000, MM_FRAME_RESERVED);
        else if (out[i].base == 0x80000000)
            assert_range(i, 0x80000000, 0x40000000, MM_FRAME_USABLE);
        else
            assert_range(i, 0xc0000000, 0x80000000, MM_FRAME_USABLE);
    }
}

static void fdt_with_everything(void **state)
{
    (void)state;
    read_blob("everything.dtb");
    assert_int_equal(fdt(length), MM_OK);
    assert_int_equal(count, 7);
    assert_range(0, 0x80700000, 0x4000, MM_FRAME_RESERVED);
    assert_range(1, 0x88000000, 0x345678, MM_FRAME_BOOTLOADER);
    assert_range(2, 0x80000000, 0x10000000, MM_FRAME_USABLE);
    assert_range(3, 0x100000000, 0x40000000, MM_FRAME_USABLE);
    assert_range(4, 0x300000000, 0x10000000, MM_FRAME_USABLE);
    assert_range(5, 0x80000000, 0x80000, MM_FRAME_RESERVED);
    assert_range(6, 0x84000000, 0x800000, MM_FRAME_RESERVED);
}

/* By what may be read, by what the header says of the whole, and by what it says of the tree. */
static void fdt_refuses_every_truncation(void **state)
{
    (void)state;
    read_blob("everything.dtb");
    for (size_t cut = 0; cut < length; cut++) {
        assert_int_equal(fdt(cut), MM_ERR_CORRUPT);
        if (cut >= 40) {
            put_be32_at(4, cut);
            assert_int_not_equal(fdt(cut), MM_OK);
            put_be32_at(4, length);
        }
    }
    for (uint32_t cut = 0, size = get_be32(36); cut < size; cut++) {
        put_be32_at(36, cut);
        assert_int_equal(fdt(length), MM_ERR_CORRUPT);
        put_be32_at(36, size);
    }
    assert_untouched();
    assert_int_equal(fdt(length), MM_OK);
}

/* ---- device trees, by hand ------------------------------------------------------------------- */

static char strings[4096];
static size_t strings_length;

static void fdt_start(void)
{
    start();
    length = 40 + 16; /* header, empty reservations */
    strings_length = 0;
}

static void put_be32(uint32_t value)
{
    put(4, __builtin_bswap32(value));
}

static void fdt_pad(void)
{
    while (length % 4 != 0)
        put(1, 0);
}

static void begin_node(const char *name)
{
    put_be32(1);
    for (size_t i = 0; i <= strlen(name); i++)
        put(1, (unsigned char)name[i]);
    fdt_pad();
}

static void property(const char *name, const void *value, size_t size)
{
    put_be32(3), put_be32((uint32_t)size), put_be32((uint32_t)strings_length);
    strcpy(strings + strings_length, name);
    strings_length += strlen(name) + 1;
    for (size_t i = 0; i < size; i++)
        put(1, ((const unsigned char *)value)[i]);
    fdt_pad();
}

static void text_property(const char *name, const char *text)
{
    property(name, text, strlen(text) + 1);
}

static void cells_property(const char *name, size_t n, const uint32_t *cells)
{
    uint32_t value[8];
    for (size_t i = 0; i < n; i++)
        value[i] = __builtin_bswap32(cells[i]);
    property(name, value, 4 * n);
}

#define cells(name, ...) \
    cells_property(name, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})

static void end_node(void)
{
    put_be32(2);
}

/* The end token, the strings and the header. */
static void fdt_finish(void)
{
    const size_t tree = 40 + 16, tree_end = (put_be32(9), length);
    memcpy(blob + length, strings, strings_length);
    length += strings_length;
    const uint32_t header[] = {0xd00dfeed,
                               (uint32_t)length,
                               tree,
                               (uint32_t)tree_end,
                               40,
                               17,
                               16,
                               0,
                               (uint32_t)strings_length,
                               (uint32_t)(tree_end - tree)};
    for (size_t i = 0; i < 10; i++)
        put_be32_at(4 * i, header[i]);
}

static enum mm_status fdt_done(void)
{
    fdt_finish();
    return fdt(length);
}

static void memory_node(void)
{
    begin_node("memory@0");
    text_property("device_type", "memory");
    cells("reg", 0, 0x1000, 0x2000);
    end_node();
}

static void fdt_defaults_to_two_cells_and_one(void **state)
{
    (void)state;
    fdt_start();
    begin_node(""), memory_node(), end_node();
    assert_int_equal(fdt_done(), MM_OK);
    assert_int_equal(count, 1);
    assert_range(0, 0x1000, 0x2000, MM_FRAME_USABLE);
}

static void fdt_of_32_bits(void **state)
{
    (void)state;
    fdt_start();
    begin_node("");
    cells("#address-cells", 1), cells("#size-cells", 1);
    begin_node("memory");
    text_property("device_type", "memory");
    cells("reg", 0xfff00000, 0x100000, 0x1000, 0x4000);
    end_node(), end_node();
    assert_int_equal(fdt_done(), MM_OK);
    assert_int_equal(count, 2);
    assert_range(0, 0xfff00000, 0x100000, MM_FRAME_USABLE);
    assert_range(1, 0x1000, 0x4000, MM_FRAME_USABLE);
}

static void fdt_of_version_16(void **state)
{
    (void)state;
    fdt_start();
    begin_node(""), memory_node(), end_node();
    fdt_finish();
    put_be32_at(20, 16);
    put_be32_at(36, 0xffffffff); /* the size of the tree is not in that header */
    assert_int_equal(fdt(length), MM_OK);
    put_be32_at(20, 15);
    count = 12345, memset(out, 0x5a, sizeof out);
    assert_int_equal(fdt(length), MM_ERR_NOENT);
    put_be32_at(20, 18),
        put_be32_at(24, 18); /* one that a reader of version 17 does not understand */
    assert_int_equal(fdt(length), MM_ERR_NOENT);
    put_be32_at(0, 0xd00dfeee);
    assert_int_equal(fdt(length), MM_ERR_NOENT);
    assert_int_equal(bootmap_fdt(NULL, 40, out, MOST, &count), MM_ERR_INVALID);
    assert_untouched();
}

static void fdt_without_memory_is_told(void **state)
{
    (void)state;
    fdt_start();
    begin_node("");
    begin_node("memory@0"); /* by name alone it is none */
    cells("reg", 0, 0x1000, 0x2000);
    end_node(), end_node();
    assert_int_equal(fdt_done(), MM_ERR_NOENT);
    assert_untouched();
}

/* A tree of one memory node whose parent has these cells and which has this many cells of reg. */
static enum mm_status fdt_with_cells(uint32_t address_cells, uint32_t size_cells, size_t n)
{
    static const uint32_t reg[8];
    fdt_start();
    begin_node("");
    cells("#address-cells", address_cells), cells("#size-cells", size_cells);
    begin_node("memory");
    text_property("device_type", "memory");
    cells_property("reg", n, reg);
    end_node(), end_node();
    return fdt_done();
}

static void fdt_refuses_cells_that_do_not_fit(void **state)
{
    (void)state;
    for (uint32_t a = 0; a <= 4; a++) {
        for (uint32_t s = 0; s <= 4; s++) {
            for (size_t n = 1; n < 8; n++) {
                const bool fine = a >= 1 && a <= 2 && s >= 1 && s <= 2 && n % (a + s) == 0;
                assert_int_equal(fdt_with_cells(a, s, n), fine ? MM_OK : MM_ERR_CORRUPT);
            }
        }
    }
    assert_int_equal(fdt_with_cells(0xffffffff, 2, 1), MM_ERR_CORRUPT);
}

static void fdt_refuses_a_size_of_cells(void **state)
{
    (void)state;
    fdt_start();
    begin_node(""), property("#address-cells", "", 1), memory_node(), end_node();
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    fdt_start();
    begin_node(""), property("#size-cells", "abcdefg", 8), memory_node(), end_node();
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    assert_untouched();
}

static void fdt_refuses_a_tree_that_is_none(void **state)
{
    (void)state;
    fdt_start();
    begin_node(""), memory_node(); /* not closed */
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    fdt_start();
    begin_node(""), memory_node(), end_node(), end_node(); /* closed twice */
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    fdt_start();
    begin_node(""), memory_node(), end_node(), end_node(), begin_node(""); /* and then opened */
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    fdt_start();
    begin_node(""), memory_node(), put_be32(5), end_node(); /* no such token */
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    fdt_start();
    text_property("a", "b"), begin_node(""), memory_node(), end_node(); /* a property of nobody */
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    fdt_start();
    begin_node(""), memory_node(), cells("#address-cells", 1), end_node(); /* behind a child */
    assert_int_equal(fdt_done(), MM_ERR_CORRUPT);
    assert_untouched();
}

static void fdt_reads_reservations_to_the_end(void **state)
{
    static const uint64_t pairs[] = {0x7000, 0, 0x8000, 0x1000, 0, 0x2000, 0, 0};
    (void)state;
    fdt_start();
    begin_node(""), memory_node(), end_node();
    fdt_finish();
    put_be32_at(16, length); /* behind all else */
    for (size_t i = 0; i < 8; i++)
        put(8, __builtin_bswap64(pairs[i]));
    put_be32_at(4, length);
    assert_int_equal(fdt(length), MM_OK);
    assert_int_equal(count, 3);
    assert_range(0, 0x8000, 0x1000, MM_FRAME_RESERVED);
    assert_range(1, 0, 0x2000, MM_FRAME_RESERVED);
}

static void fdt_skips_what_means_nothing(void **state)
{
    (void)state;
    fdt_start();
    put_be32(4);
    begin_node(""), put_be32(4), memory_node(), put_be32(4);
    for (int i = 0; i < 50; i++)
        begin_node("deep"), cells("reg", 1), cells("#address-cells", 7);
    for (int i = 0; i < 50; i++)
        end_node();
    end_node(), put_be32(4);
    assert_int_equal(fdt_done(), MM_OK);
    assert_int_equal(count, 1);
    fdt_start();
    begin_node(""), memory_node(), begin_node("a"), begin_node("chosen"); /* not the one */
    cells("linux,initrd-start", 0x5000), cells("linux,initrd-end", 0x6000);
    end_node(), end_node(), end_node();
    assert_int_equal(fdt_done(), MM_OK);
    assert_int_equal(count, 1);
}

static void fdt_knows_two_words_for_a_node_in_use(void **state)
{
    static const char *const words[] = {"okay", "ok", "disabled", "okay?"};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        fdt_start();
        begin_node(""), begin_node("memory");
        text_property("device_type", "memory"), text_property("status", words[i]);
        cells("reg", 0, 0x1000, 0x2000), end_node(), end_node();
        assert_int_equal(fdt_done(), i < 2 ? MM_OK : MM_ERR_NOENT);
    }
}

static void fdt_reserves_only_what_is_in_reserved_memory(void **state)
{
    (void)state;
    fdt_start();
    begin_node(""), memory_node();
    begin_node("reserved-memory"), begin_node("a"), cells("reg", 0, 0x1000, 0x800), end_node(),
        end_node();
    begin_node("flash"), cells("reg", 0, 0x8000, 0x800); /* neither this nor what is in it */
    begin_node("part"), cells("reg", 0, 0x8000, 0x100), end_node(), end_node();
    end_node();
    assert_int_equal(fdt_done(), MM_OK);
    assert_int_equal(count, 2);
    assert_range(1, 0x1000, 0x800, MM_FRAME_RESERVED);
}

static enum mm_status fdt_with_initrd(size_t start_size, uint32_t first, size_t end_size,
                                      uint32_t last)
{
    const uint32_t from[] = {0, __builtin_bswap32(first)}, to[] = {0, __builtin_bswap32(last)};
    fdt_start();
    begin_node(""), memory_node(), begin_node("chosen");
    property("linux,initrd-start", (const char *)from + (start_size == 4 ? 4 : 0), start_size);
    property("linux,initrd-end", (const char *)to + (end_size == 4 ? 4 : 0), end_size);
    end_node(), end_node();
    return fdt_done();
}

static void fdt_keeps_the_initial_ram_disk(void **state)
{
    (void)state;
    for (size_t sizes = 0; sizes < 4; sizes++) {
        assert_int_equal(fdt_with_initrd(sizes & 1 ? 4 : 8, 0x5000, sizes & 2 ? 4 : 8, 0x7001),
                         MM_OK);
        assert_int_equal(count, 2);
        assert_range(1, 0x5000, 0x2001, MM_FRAME_BOOTLOADER);
    }
    assert_int_equal(fdt_with_initrd(4, 0x5000, 4, 0x5000), MM_OK);
    assert_int_equal(count, 1);
    assert_int_equal(fdt_with_initrd(4, 0x5000, 4, 0x4fff), MM_ERR_CORRUPT);
    assert_int_equal(fdt_with_initrd(3, 0x5000, 4, 0x6000), MM_ERR_CORRUPT);
    assert_int_equal(fdt_with_initrd(4, 0x5000, 5, 0x6000), MM_ERR_CORRUPT);
    assert_int_equal(fdt_with_initrd(8, 0x5000, 0, 0), MM_ERR_CORRUPT);
    assert_untouched();
}

static void fdt_header_refuses(size_t at, uint32_t value)
{
    fdt_start();
    begin_node(""), memory_node(), end_node();
    fdt_finish();
    put_be32_at(at, value);
    assert_int_equal(fdt(length), MM_ERR_CORRUPT);
    assert_untouched();
}

static void fdt_refuses_a_header_that_leads_out(void **state)
{
    (void)state;
    for (size_t at = 4; at <= 16; at += 4)
        fdt_header_refuses(at, 0xfffffffc);
    fdt_header_refuses(4, 39);          /* total size */
    fdt_header_refuses(16, 0x40);       /* reservations that do not end */
    fdt_header_refuses(32, 0xffffffff); /* size of strings */
    fdt_header_refuses(32, 0);          /* names of properties are outside */
    fdt_header_refuses(36, 0xffffffff); /* size of tree */
}

/* ---- into mm_frame --------------------------------------------------------------------------- */

static void a_pool_takes_what_the_adapters_give(void **state)
{
    static unsigned char metadata[1 << 22];
    struct mm_frame_config config = {0};
    struct mm_frame_pool pool;
    mm_pa_t frame;
    (void)state;
    read_blob("everything.dtb");
    assert_int_equal(fdt(length), MM_OK);
    config.map = out;
    config.map_count = count;
    config.meta = metadata;
    config.meta_size = sizeof metadata;
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    frame = mm_frame_alloc(&pool, 0);
    assert_int_equal(frame, 0x80080000); /* behind the firmware, which is in usable memory */
    assert_int_equal(mm_frame_free(&pool, 0x80700000), MM_ERR_INVALID); /* reserved: not managed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e820_has_a_type_for_every_type),
        cmocka_unit_test(e820_leaves_out_what_is_not_enabled),
        cmocka_unit_test(e820_leaves_out_empty_entries),
        cmocka_unit_test(e820_refuses_ranges_that_wrap),
        cmocka_unit_test(e820_refuses_bad_arguments),
        cmocka_unit_test(too_small_an_array_is_told_the_size_it_needs),
        cmocka_unit_test(uefi_has_a_type_for_every_type),
        cmocka_unit_test(uefi_heeds_the_attributes),
        cmocka_unit_test(uefi_refuses_what_is_broken),
        cmocka_unit_test(multiboot2_has_a_type_for_every_type),
        cmocka_unit_test(multiboot2_takes_larger_entries),
        cmocka_unit_test(multiboot2_keeps_the_modules),
        cmocka_unit_test(multiboot2_falls_back_on_the_efi_map),
        cmocka_unit_test(multiboot2_prefers_its_own_map),
        cmocka_unit_test(multiboot2_without_a_map_is_told),
        cmocka_unit_test(multiboot2_refuses_every_truncation),
        cmocka_unit_test(multiboot2_refuses_tags_without_contents),
        cmocka_unit_test(multiboot2_refuses_entries_of_odd_size),
        cmocka_unit_test(multiboot2_refuses_contradictions),
        cmocka_unit_test(limine_has_a_type_for_every_type),
        cmocka_unit_test(limine_refuses_what_is_broken),
        cmocka_unit_test(limine_does_not_read_more_entries_than_fit),
        cmocka_unit_test(pvh_has_a_type_for_every_type),
        cmocka_unit_test(pvh_without_a_map_is_told),
        cmocka_unit_test(pvh_refuses_what_is_broken),
        cmocka_unit_test(fdt_of_qemu),
        cmocka_unit_test(fdt_with_everything),
        cmocka_unit_test(fdt_refuses_every_truncation),
        cmocka_unit_test(fdt_defaults_to_two_cells_and_one),
        cmocka_unit_test(fdt_of_32_bits),
        cmocka_unit_test(fdt_of_version_16),
        cmocka_unit_test(fdt_without_memory_is_told),
        cmocka_unit_test(fdt_refuses_cells_that_do_not_fit),
        cmocka_unit_test(fdt_refuses_a_size_of_cells),
        cmocka_unit_test(fdt_refuses_a_tree_that_is_none),
        cmocka_unit_test(fdt_reads_reservations_to_the_end),
        cmocka_unit_test(fdt_skips_what_means_nothing),
        cmocka_unit_test(fdt_knows_two_words_for_a_node_in_use),
        cmocka_unit_test(fdt_reserves_only_what_is_in_reserved_memory),
        cmocka_unit_test(fdt_keeps_the_initial_ram_disk),
        cmocka_unit_test(fdt_refuses_a_header_that_leads_out),
        cmocka_unit_test(a_pool_takes_what_the_adapters_give),
#if defined(__x86_64__)
        cmocka_unit_test(linux_reads_the_table),
        cmocka_unit_test(linux_reads_a_full_table),
        cmocka_unit_test(linux_keeps_the_initial_ram_disk),
        cmocka_unit_test(linux_follows_the_setup_data),
        cmocka_unit_test(linux_refuses_broken_setup_data),
        cmocka_unit_test(linux_refuses_bad_arguments),
        cmocka_unit_test(linux_agrees_with_the_kernel_of_this_machine),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
