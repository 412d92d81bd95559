/* bootmaps.c - see bootmaps.h */
#include "bootmaps.h"

/* ---- Reading --------------------------------------------------------------------------------- */

/* A piece of memory that may be read. */
struct bytes {
    const unsigned char *at;
    size_t size;
};

/* True if `size` bytes at `offset` are inside. */
static bool within(struct bytes b, uint64_t offset, uint64_t size)
{
    return offset <= b.size && size <= b.size - offset;
}

static struct bytes part(struct bytes b, size_t offset, size_t size)
{
    const struct bytes p = {b.at + offset, size};
    return p;
}

static uint32_t le32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t le64(const unsigned char *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const unsigned char *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* What a report points to, or NULL if it cannot be read. */
static const unsigned char *view_at(const struct bootmap_view *view, mm_pa_t pa, uint64_t size)
{
    if (view == NULL || (size_t)size != size || pa + size < pa)
        return NULL;
    return (const unsigned char *)view->at(view->ctx, pa, (size_t)size);
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Ranges found so far. Those beyond the capacity are only counted: every report is read twice,
 * first with a capacity of 0 to find its faults, so that a refused one leaves no trace. */
struct ranges {
    struct mm_frame_range *at;
    size_t capacity, count;
};

static enum mm_status add(struct ranges *to, mm_pa_t base, uint64_t size, enum mm_frame_type type)
{
    if (size == 0)
        return MM_OK;
    if (base + (size - 1) < base)
        return MM_ERR_CORRUPT;
    if (to->count < to->capacity) {
        to->at[to->count].base = base;
        to->at[to->count].size = size;
        to->at[to->count].type = type;
    }
    to->count++;
    return MM_OK;
}

/* A format's reader gets its report as one pointer and fills `to`. */
typedef enum mm_status reader(const void *report, struct ranges *to);

static enum mm_status read_twice(reader *read, const void *report, struct mm_frame_range *out,
                                 size_t capacity, size_t *count)
{
    struct ranges to = {NULL, 0, 0};
    enum mm_status status;

    if (count == NULL || (out == NULL && capacity != 0))
        return MM_ERR_INVALID;
    status = read(report, &to);
    if (status != MM_OK)
        return status;
    *count = to.count;
    if (to.count > capacity)
        return MM_ERR_LIMIT;
    to.at = out;
    to.capacity = capacity;
    to.count = 0;
    return read(report, &to);
}

/* ---- E820 types, also Multiboot2's and PVH's ------------------------------------------------- */

/* ACPI 6.5, table 15.4; 12 is Linux's for the persistent memory of before ACPI 6. */
static enum mm_frame_type e820_type(uint32_t type)
{
    switch (type) {
    case 1:
        return MM_FRAME_USABLE;
    case 3:
        return MM_FRAME_ACPI_RECLAIM;
    case 4:
        return MM_FRAME_ACPI_NVS;
    case 5:
        return MM_FRAME_BAD;
    case 7:
    case 12:
        return MM_FRAME_DEVICE;
    default:
        return MM_FRAME_RESERVED;
    }
}

/* The entries of a table: base, length and type stand at 0, 8 and 16 in all three formats. */
static enum mm_status add_e820(struct bytes table, size_t stride, struct ranges *to)
{
    size_t at;

    for (at = 0; within(table, at, stride); at += stride) {
        const unsigned char *entry = table.at + at;
        const enum mm_status status =
            add(to, le64(entry), le64(entry + 8), e820_type(le32(entry + 16)));
        if (status != MM_OK)
            return status;
    }
    return at == table.size ? MM_OK : MM_ERR_CORRUPT;
}

struct e820_report {
    struct bytes table;
    size_t stride;
};

static enum mm_status read_e820(const void *report, struct ranges *to)
{
    const struct e820_report *r = (const struct e820_report *)report;
    const bool extended = r->stride >= 24;
    enum mm_status status = MM_OK;
    size_t at;

    for (at = 0; at < r->table.size && status == MM_OK; at += r->stride) {
        const bool enabled = !extended || (le32(r->table.at + at + 20) & 1) != 0;
        if (enabled)
            status = add_e820(part(r->table, at, r->stride), r->stride, to);
    }
    return status;
}

enum mm_status bootmap_e820(const void *entries, size_t number, size_t stride,
                            struct mm_frame_range *out, size_t capacity, size_t *count)
{
    struct e820_report report;

    if (entries == NULL || stride < 20 || number > SIZE_MAX / stride)
        return MM_ERR_INVALID;
    if (number == 0)
        return MM_ERR_NOENT;
    report.table.at = (const unsigned char *)entries;
    report.table.size = number * stride;
    report.stride = stride;
    return read_twice(read_e820, &report, out, capacity, count);
}

/* ---- UEFI ------------------------------------------------------------------------------------ */

#define EFI_PAGE_SHIFT     12 /* whatever the size of a page is elsewhere */
#define EFI_CONVENTIONAL   7
#define EFI_MEMORY_WB      ((uint64_t)0x8)
#define EFI_MEMORY_SP      ((uint64_t)0x40000)
#define EFI_MEMORY_RUNTIME ((uint64_t)1 << 63)

/* UEFI 2.10, table 7.10. */
static enum mm_frame_type efi_type(uint32_t type, uint64_t attributes)
{
    if ((attributes & EFI_MEMORY_RUNTIME) != 0 && type != 11 && type != 12)
        return MM_FRAME_RESERVED; /* firmware calls go on using it */
    switch (type) {
    case 1: /* loader code */
    case 2: /* loader data */
    case 3: /* boot services' code */
    case 4:
        return MM_FRAME_BOOTLOADER;
    case EFI_CONVENTIONAL:
        if ((attributes & EFI_MEMORY_SP) != 0)
            return MM_FRAME_DEVICE;
        return (attributes & EFI_MEMORY_WB) != 0 ? MM_FRAME_USABLE : MM_FRAME_RESERVED;
    case 8:
        return MM_FRAME_BAD;
    case 9:
        return MM_FRAME_ACPI_RECLAIM;
    case 10:
        return MM_FRAME_ACPI_NVS;
    case 11: /* memory-mapped input and output */
    case 12: /* memory-mapped ports */
    case 14:
        return MM_FRAME_DEVICE; /* persistent */
    default:
        return MM_FRAME_RESERVED; /* 15, unaccepted, too: it may not be touched yet */
    }
}

struct efi_report {
    struct bytes map;
    size_t stride;
};

static enum mm_status read_efi(const void *report, struct ranges *to)
{
    const struct efi_report *r = (const struct efi_report *)report;
    size_t at;

    if (r->stride < 40 || r->map.size % r->stride != 0)
        return MM_ERR_CORRUPT;
    for (at = 0; at < r->map.size; at += r->stride) {
        const unsigned char *d = r->map.at + at;
        const uint64_t pages = le64(d + 24);
        enum mm_status status;

        if (pages > UINT64_MAX >> EFI_PAGE_SHIFT)
            return MM_ERR_CORRUPT;
        status = add(to, le64(d + 8), pages << EFI_PAGE_SHIFT, efi_type(le32(d), le64(d + 32)));
        if (status != MM_OK)
            return status;
    }
    return MM_OK;
}

enum mm_status bootmap_uefi(const void *map, size_t size, size_t descriptor_size,
                            struct mm_frame_range *out, size_t capacity, size_t *count)
{
    struct efi_report report;

    if (map == NULL)
        return MM_ERR_INVALID;
    if (size == 0)
        return MM_ERR_NOENT;
    report.map.at = (const unsigned char *)map;
    report.map.size = size;
    report.stride = descriptor_size;
    return read_twice(read_efi, &report, out, capacity, count);
}

/* ---- Multiboot2 ------------------------------------------------------------------------------ */

enum { MB2_END = 0, MB2_MODULE = 3, MB2_MMAP = 6, MB2_EFI_MMAP = 17 };

/* Finds the next tag at *at, moves *at behind it. False at the end tag. A tag is type, size and
 * contents, and starts at a multiple of 8. */
static enum mm_status mb2_next(struct bytes info, size_t *at, uint32_t *type, struct bytes *tag)
{
    size_t size;

    if (!within(info, *at, 8))
        return MM_ERR_CORRUPT; /* no end tag */
    *type = le32(info.at + *at);
    size = le32(info.at + *at + 4);
    if (size < 8 || !within(info, *at, size))
        return MM_ERR_CORRUPT;
    *tag = part(info, *at, size);
    *at += size;
    *at = *at > info.size - info.size % 8 ? info.size : (size_t)mm_align_up(*at, 8);
    return *type == MB2_END ? MM_ERR_NOENT : MM_OK;
}

static enum mm_status mb2_mmap(struct bytes tag, struct ranges *to)
{
    size_t stride;

    if (tag.size < 16)
        return MM_ERR_CORRUPT;
    stride = le32(tag.at + 8);
    if (stride < 24 || stride % 8 != 0)
        return MM_ERR_CORRUPT;
    return add_e820(part(tag, 16, tag.size - 16), stride, to);
}

static enum mm_status mb2_efi(struct bytes tag, struct ranges *to)
{
    struct efi_report efi;

    if (tag.size < 16)
        return MM_ERR_CORRUPT;
    efi.stride = le32(tag.at + 8);
    efi.map = part(tag, 16, tag.size - 16);
    return read_efi(&efi, to);
}

static enum mm_status mb2_module(struct bytes tag, struct ranges *to)
{
    uint32_t start, end;

    if (tag.size < 16)
        return MM_ERR_CORRUPT;
    start = le32(tag.at + 8);
    end = le32(tag.at + 12);
    return end < start ? MM_ERR_CORRUPT : add(to, start, end - start, MM_FRAME_BOOTLOADER);
}

/* All tags of one type. */
static enum mm_status mb2_tags(struct bytes info, uint32_t wanted,
                               enum mm_status (*read)(struct bytes tag, struct ranges *to),
                               struct ranges *to, bool *found)
{
    struct bytes tag;
    uint32_t type;
    size_t at = 8;
    enum mm_status status;

    while ((status = mb2_next(info, &at, &type, &tag)) == MM_OK) {
        if (type != wanted)
            continue;
        *found = true;
        status = read(tag, to);
        if (status != MM_OK)
            return status;
    }
    return status == MM_ERR_NOENT ? MM_OK : status;
}

static enum mm_status read_multiboot2(const void *report, struct ranges *to)
{
    const struct bytes info = *(const struct bytes *)report;
    bool has_map = false, has_module = false;
    enum mm_status status = mb2_tags(info, MB2_MMAP, mb2_mmap, to, &has_map);

    if (status == MM_OK && !has_map)
        status = mb2_tags(info, MB2_EFI_MMAP, mb2_efi, to, &has_map);
    if (status == MM_OK && !has_map)
        status = MM_ERR_NOENT;
    return status == MM_OK ? mb2_tags(info, MB2_MODULE, mb2_module, to, &has_module) : status;
}

enum mm_status bootmap_multiboot2(const void *info, size_t limit, struct mm_frame_range *out,
                                  size_t capacity, size_t *count)
{
    struct bytes b;

    if (info == NULL)
        return MM_ERR_INVALID;
    b.at = (const unsigned char *)info;
    b.size = limit;
    if (b.size < 8)
        return MM_ERR_CORRUPT;
    b.size = le32(b.at); /* total_size */
    if (b.size < 16 || b.size > limit)
        return MM_ERR_CORRUPT;
    return read_twice(read_multiboot2, &b, out, capacity, count);
}

/* ---- Limine ---------------------------------------------------------------------------------- */

static enum mm_frame_type limine_type(uint64_t type)
{
    switch (type) {
    case 0:
        return MM_FRAME_USABLE;
    case 2:
        return MM_FRAME_ACPI_RECLAIM;
    case 3:
        return MM_FRAME_ACPI_NVS;
    case 4:
        return MM_FRAME_BAD;
    case 5:
        return MM_FRAME_BOOTLOADER;
    case 6:
        return MM_FRAME_KERNEL; /* the executable and the modules */
    case 7:
        return MM_FRAME_DEVICE; /* frame buffer */
    default:
        return MM_FRAME_RESERVED;
    }
}

/* A pointer of 8 bytes in the response; NULL if it is none or does not fit. Limine runs on
 * little-endian machines only. */
static const unsigned char *limine_pointer(const unsigned char *p)
{
    const uint64_t value = le64(p);
    return (uintptr_t)value != value ? NULL : (const unsigned char *)(uintptr_t)value;
}

static enum mm_status read_limine(const void *report, struct ranges *to)
{
    const unsigned char *response = (const unsigned char *)report;
    const unsigned char *entries = limine_pointer(response + 16);
    const size_t number = (size_t)le64(response + 8);
    enum mm_status status = entries == NULL ? MM_ERR_CORRUPT : MM_OK;
    size_t i;

    for (i = 0; i < number && status == MM_OK; i++) {
        const unsigned char *entry = limine_pointer(entries + 8 * i);
        status = entry == NULL
                     ? MM_ERR_CORRUPT
                     : add(to, le64(entry), le64(entry + 8), limine_type(le64(entry + 16)));
    }
    return status;
}

enum mm_status bootmap_limine(const void *response, struct mm_frame_range *out, size_t capacity,
                              size_t *count)
{
    uint64_t number;

    if (response == NULL || count == NULL)
        return MM_ERR_INVALID;
    number = le64((const unsigned char *)response + 8);
    if (number == 0)
        return MM_ERR_NOENT;
    if (number > capacity) {
        *count = (size_t)number != number ? SIZE_MAX : (size_t)number;
        return MM_ERR_LIMIT;
    }
    return read_twice(read_limine, response, out, capacity, count);
}

/* ---- Linux's zero page ----------------------------------------------------------------------- */

#define LINUX_E820_MOST 128 /* E820_MAX_ENTRIES_ZEROPAGE */
#define LINUX_LIST_MOST 64  /* setup data behind each other: more is a loop */

enum { SETUP_E820_EXT = 1 };

struct linux_report {
    struct bytes page;
    const struct bootmap_view *view;
};

/* struct setup_data: next, type, len, data. The node stays where it is until the kernel has read
 * all of it, so it is the loader's. */
static enum mm_status linux_setup_data(const struct linux_report *r, struct ranges *to)
{
    mm_pa_t pa = le64(r->page.at + 0x250); /* hdr.setup_data */
    unsigned left = LINUX_LIST_MOST;

    while (pa != 0) {
        const unsigned char *node = view_at(r->view, pa, 16);
        struct bytes data;
        uint32_t type;
        mm_pa_t next;
        enum mm_status status;

        if (node == NULL || left-- == 0)
            return MM_ERR_CORRUPT;
        next = le64(node);
        type = le32(node + 8);
        data.size = le32(node + 12);
        status = add(to, pa, (uint64_t)data.size + 16, MM_FRAME_BOOTLOADER);
        if (status == MM_OK && type == SETUP_E820_EXT) {
            data.at = view_at(r->view, pa + 16, data.size);
            status = data.at == NULL ? MM_ERR_CORRUPT : add_e820(data, 20, to);
        }
        if (status != MM_OK)
            return status;
        pa = next;
    }
    return MM_OK;
}

static enum mm_status read_linux(const void *report, struct ranges *to)
{
    const struct linux_report *r = (const struct linux_report *)report;
    const unsigned char *page = r->page.at;
    const size_t number = page[0x1e8]; /* e820_entries */
    enum mm_status status;

    if (number == 0)
        return MM_ERR_NOENT;
    if (number > LINUX_E820_MOST)
        return MM_ERR_CORRUPT;
    status = add_e820(part(r->page, 0x2d0, number * 20), 20, to);
    if (status == MM_OK) /* ramdisk_image and _size, their upper halves in ext_ramdisk_… */
        status = add(to, le32(page + 0x218) | (uint64_t)le32(page + 0xc0) << 32,
                     le32(page + 0x21c) | (uint64_t)le32(page + 0xc4) << 32, MM_FRAME_BOOTLOADER);
    return status == MM_OK ? linux_setup_data(r, to) : status;
}

enum mm_status bootmap_linux(const void *zero_page, size_t size, const struct bootmap_view *view,
                             struct mm_frame_range *out, size_t capacity, size_t *count)
{
    struct linux_report report;

    if (zero_page == NULL || (view != NULL && view->at == NULL))
        return MM_ERR_INVALID;
    if (size < 4096)
        return MM_ERR_CORRUPT;
    report.page.at = (const unsigned char *)zero_page;
    report.page.size = size;
    report.view = view;
    return read_twice(read_linux, &report, out, capacity, count);
}

/* ---- PVH ------------------------------------------------------------------------------------- */

#define PVH_MAGIC 0x336ec578u

struct pvh_report {
    mm_pa_t start_info;
    const struct bootmap_view *view;
};

static enum mm_status pvh_modules(const struct pvh_report *r, mm_pa_t pa, uint32_t number,
                                  struct ranges *to)
{
    const unsigned char *list = number == 0 ? NULL : view_at(r->view, pa, (uint64_t)number * 32);
    enum mm_status status = number != 0 && list == NULL ? MM_ERR_CORRUPT : MM_OK;
    size_t i;

    for (i = 0; i < number && status == MM_OK; i++)
        status = add(to, le64(list + 32 * i), le64(list + 32 * i + 8), MM_FRAME_BOOTLOADER);
    return status;
}

static enum mm_status read_pvh(const void *report, struct ranges *to)
{
    const struct pvh_report *r = (const struct pvh_report *)report;
    const unsigned char *info = view_at(r->view, r->start_info, 40);
    struct bytes table;
    uint32_t number;
    enum mm_status status;

    if (info == NULL)
        return MM_ERR_CORRUPT;
    if (le32(info) != PVH_MAGIC || le32(info + 4) == 0) /* version 0 ends at byte 40 */
        return MM_ERR_NOENT;
    info = view_at(r->view, r->start_info, 56);
    if (info == NULL)
        return MM_ERR_CORRUPT;
    number = le32(info + 48);
    if (number == 0)
        return MM_ERR_NOENT;
    table.at = view_at(r->view, le64(info + 40), (uint64_t)number * 24);
    table.size = (size_t)number * 24;
    status = table.at == NULL ? MM_ERR_CORRUPT : add_e820(table, 24, to);
    return status == MM_OK ? pvh_modules(r, le64(info + 16), le32(info + 12), to) : status;
}

enum mm_status bootmap_pvh(mm_pa_t start_info, const struct bootmap_view *view,
                           struct mm_frame_range *out, size_t capacity, size_t *count)
{
    struct pvh_report report;

    if (view == NULL || view->at == NULL)
        return MM_ERR_INVALID;
    report.start_info = start_info;
    report.view = view;
    return read_twice(read_pvh, &report, out, capacity, count);
}

/* ---- Flattened device tree ------------------------------------------------------------------- */

#define FDT_MAGIC 0xd00dfeedu

enum { FDT_BEGIN_NODE = 1, FDT_END_NODE = 2, FDT_PROP = 3, FDT_NOP = 4, FDT_END = 9 };

enum fdt_kind { FDT_OTHER, FDT_MEMORY, FDT_CHOSEN, FDT_RESERVED, FDT_RESERVED_CHILD };

#define FDT_DEEPEST 3 /* nodes below this depth are of no interest; the root is at depth 1 */

/* A node whose properties are being read; what it says is taken when it ends. */
struct fdt_node {
    enum fdt_kind kind;
    bool disabled;
    bool has_child; /* properties come before children (Devicetree 0.4, 5.4.2) */
    uint32_t address_cells, size_cells; /* of its children */
    struct bytes reg, initrd_start, initrd_end;
};

struct fdt {
    struct bytes tree, strings, reservations;
    size_t at; /* in the tree */
    unsigned depth;
    bool found;                            /* a memory node */
    struct fdt_node node[FDT_DEEPEST + 1]; /* by depth; [0] is nobody's */
};

/* Does `b` hold this text, with the zero at its end? */
static bool is_text(struct bytes b, const char *text)
{
    size_t i;

    for (i = 0; i < b.size && b.at[i] == (unsigned char)text[i]; i++)
        if (text[i] == '\0')
            return true;
    return false;
}

/* The string at `offset` with its final zero; size 0 if it does not end. */
static struct bytes fdt_string(struct bytes b, size_t offset)
{
    size_t end = offset;

    while (end < b.size && b.at[end] != 0)
        end++;
    return end < b.size ? part(b, offset, end - offset + 1) : part(b, 0, 0);
}

/* Moves behind `size` bytes, which are inside, and the padding to a multiple of 4. */
static void fdt_skip(struct fdt *f, size_t size)
{
    f->at += size;
    while (f->at % 4 != 0 && f->at < f->tree.size)
        f->at++;
}

static bool fdt_word(struct fdt *f, uint32_t *word)
{
    if (!within(f->tree, f->at, 4))
        return false;
    *word = be32(f->tree.at + f->at);
    f->at += 4;
    return true;
}

static enum fdt_kind fdt_kind_of(const struct fdt *f, struct bytes name)
{
    if (f->depth == 3 && f->node[2].kind == FDT_RESERVED)
        return FDT_RESERVED_CHILD;
    if (f->depth == 2 && is_text(name, "reserved-memory"))
        return FDT_RESERVED;
    return f->depth == 2 && is_text(name, "chosen") ? FDT_CHOSEN : FDT_OTHER;
}

static enum mm_status fdt_begin(struct fdt *f)
{
    const struct bytes name = fdt_string(f->tree, f->at);
    const struct bytes nothing = {NULL, 0};
    struct fdt_node *node;

    if (name.size == 0)
        return MM_ERR_CORRUPT;
    fdt_skip(f, name.size);
    if (f->depth <= FDT_DEEPEST)
        f->node[f->depth].has_child = true;
    if (++f->depth > FDT_DEEPEST)
        return MM_OK;
    node = &f->node[f->depth];
    node->kind = fdt_kind_of(f, name);
    node->disabled = node->has_child = false;
    node->address_cells = 2; /* Devicetree 0.4, 2.3.5 */
    node->size_cells = 1;
    node->reg = node->initrd_start = node->initrd_end = nothing;
    return MM_OK;
}

static enum mm_status fdt_cells(struct bytes value, uint32_t *cells)
{
    if (value.size != 4)
        return MM_ERR_CORRUPT;
    *cells = be32(value.at);
    return MM_OK;
}

/* A property of the current node. */
static enum mm_status fdt_keep(struct fdt_node *node, unsigned depth, struct bytes name,
                               struct bytes value)
{
    if (is_text(name, "#address-cells"))
        return fdt_cells(value, &node->address_cells);
    if (is_text(name, "#size-cells"))
        return fdt_cells(value, &node->size_cells);
    if (is_text(name, "reg"))
        node->reg = value;
    else if (is_text(name, "status"))
        node->disabled = !is_text(value, "okay") && !is_text(value, "ok");
    else if (is_text(name, "device_type") && depth == 2 && is_text(value, "memory"))
        node->kind = FDT_MEMORY;
    else if (is_text(name, "linux,initrd-start"))
        node->initrd_start = value;
    else if (is_text(name, "linux,initrd-end"))
        node->initrd_end = value;
    return MM_OK;
}

static enum mm_status fdt_property(struct fdt *f)
{
    uint32_t size, name_at;
    struct bytes name, value;

    if (!fdt_word(f, &size) || !fdt_word(f, &name_at) || !within(f->tree, f->at, size))
        return MM_ERR_CORRUPT;
    value = part(f->tree, f->at, size);
    name = fdt_string(f->strings, name_at);
    if (name.size == 0 || f->depth == 0)
        return MM_ERR_CORRUPT;
    fdt_skip(f, size);
    if (f->depth > FDT_DEEPEST)
        return MM_OK;
    if (f->node[f->depth].has_child)
        return MM_ERR_CORRUPT;
    return fdt_keep(&f->node[f->depth], f->depth, name, value);
}

/* Address and size pairs, in cells of the parent (Devicetree 0.4, 2.3.6). */
static enum mm_status fdt_reg(const struct fdt_node *parent, struct bytes reg,
                              enum mm_frame_type type, struct ranges *to)
{
    const uint32_t a = parent->address_cells, s = parent->size_cells;
    enum mm_status status = MM_OK;
    size_t at, each;

    if (a < 1 || a > 2 || s < 1 || s > 2)
        return MM_ERR_CORRUPT;
    each = 4 * (size_t)(a + s);
    if (reg.size % each != 0)
        return MM_ERR_CORRUPT;
    for (at = 0; at < reg.size && status == MM_OK; at += each) {
        const unsigned char *address = reg.at + at, *size = address + 4 * (size_t)a;
        status =
            add(to, a == 2 ? be64(address) : be32(address), s == 2 ? be64(size) : be32(size), type);
    }
    return status;
}

static enum mm_status fdt_initrd(const struct fdt_node *chosen, struct ranges *to)
{
    const struct bytes b = chosen->initrd_start, e = chosen->initrd_end;
    uint64_t start, end;

    if (b.size == 0 && e.size == 0)
        return MM_OK;
    if ((b.size != 4 && b.size != 8) || (e.size != 4 && e.size != 8))
        return MM_ERR_CORRUPT;
    start = b.size == 8 ? be64(b.at) : be32(b.at);
    end = e.size == 8 ? be64(e.at) : be32(e.at);
    return end < start ? MM_ERR_CORRUPT : add(to, start, end - start, MM_FRAME_BOOTLOADER);
}

/* What a node says, once all of it is known. */
static enum mm_status fdt_take(const struct fdt_node *node, const struct fdt_node *parent,
                               struct ranges *to)
{
    switch (node->kind) {
    case FDT_MEMORY:
        return fdt_reg(parent, node->reg, MM_FRAME_USABLE, to);
    case FDT_RESERVED_CHILD:
        return fdt_reg(parent, node->reg, MM_FRAME_RESERVED, to);
    case FDT_CHOSEN:
        return fdt_initrd(node, to);
    default:
        return MM_OK;
    }
}

static enum mm_status fdt_end(struct fdt *f, struct ranges *to)
{
    const unsigned depth = f->depth;

    if (depth == 0)
        return MM_ERR_CORRUPT;
    f->depth--;
    if (depth > FDT_DEEPEST || f->node[depth].disabled)
        return MM_OK;
    f->found = f->found || f->node[depth].kind == FDT_MEMORY;
    return fdt_take(&f->node[depth], &f->node[depth - 1], to);
}

/* Pairs of address and size up to one of zeros (Devicetree 0.4, 5.3). */
static enum mm_status fdt_reservations(struct bytes b, struct ranges *to)
{
    size_t at;

    for (at = 0; within(b, at, 16); at += 16) {
        const uint64_t base = be64(b.at + at), size = be64(b.at + at + 8);
        const enum mm_status status = add(to, base, size, MM_FRAME_RESERVED);
        if (status != MM_OK || (base == 0 && size == 0))
            return status;
    }
    return MM_ERR_CORRUPT;
}

/* One token of the tree; *ended at the last. */
static enum mm_status fdt_token(struct fdt *f, struct ranges *to, bool *ended)
{
    uint32_t token;

    if (!fdt_word(f, &token))
        return MM_ERR_CORRUPT;
    switch (token) {
    case FDT_BEGIN_NODE:
        return fdt_begin(f);
    case FDT_END_NODE:
        return fdt_end(f, to);
    case FDT_PROP:
        return fdt_property(f);
    case FDT_NOP:
        return MM_OK;
    case FDT_END:
        *ended = true;
        return f->depth == 0 ? MM_OK : MM_ERR_CORRUPT;
    default:
        return MM_ERR_CORRUPT;
    }
}

static enum mm_status read_fdt(const void *report, struct ranges *to)
{
    struct fdt f = *(const struct fdt *)report;
    enum mm_status status = fdt_reservations(f.reservations, to);
    bool ended = false;

    while (status == MM_OK && !ended)
        status = fdt_token(&f, to, &ended);
    return status == MM_OK && !f.found ? MM_ERR_NOENT : status;
}

/* The header: the three blocks are inside the blob (Devicetree 0.4, 5.2). */
static enum mm_status fdt_blocks(struct bytes blob, struct fdt *f)
{
    const unsigned char *p = blob.at;
    const uint64_t tree = be32(p + 8), strings = be32(p + 12), reservations = be32(p + 16);
    uint64_t tree_size;

    if (reservations > blob.size)
        return MM_ERR_CORRUPT;
    tree_size = be32(p + 20) >= 17 ? be32(p + 36) : blob.size - tree; /* version 16 does not tell */
    if (!within(blob, tree, tree_size) || !within(blob, strings, be32(p + 32)))
        return MM_ERR_CORRUPT;
    f->tree = part(blob, (size_t)tree, (size_t)tree_size);
    f->strings = part(blob, (size_t)strings, be32(p + 32));
    f->reservations = part(blob, (size_t)reservations, blob.size - (size_t)reservations);
    f->at = 0;
    f->depth = 0;
    f->found = false;
    return MM_OK;
}

static enum mm_status fdt_open(struct bytes blob, struct fdt *f)
{
    const unsigned char *p = blob.at;

    if (blob.size < 40)
        return MM_ERR_CORRUPT;
    if (be32(p) != FDT_MAGIC || be32(p + 20) < 16 ||
        be32(p + 24) > 17) /* version, last compatible */
        return MM_ERR_NOENT;
    if (be32(p + 4) > blob.size)
        return MM_ERR_CORRUPT;
    blob.size = be32(p + 4);
    return fdt_blocks(blob, f);
}

enum mm_status bootmap_fdt(const void *blob, size_t limit, struct mm_frame_range *out,
                           size_t capacity, size_t *count)
{
    struct bytes b;
    struct fdt f;
    enum mm_status status;

    if (blob == NULL)
        return MM_ERR_INVALID;
    b.at = (const unsigned char *)blob;
    b.size = limit;
    status = fdt_open(b, &f);
    return status == MM_OK ? read_twice(read_fdt, &f, out, capacity, count) : status;
}
