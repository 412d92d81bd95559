/* bootmaps.h - what boot loaders and firmware report as memory, as ranges for mm_frame.h - 0BSD
 *
 * One function a format. Each reads the report byte by byte, so that neither alignment nor the
 * host's byte order matters, and checks every length and offset in it against its end. It needs no
 * libc and allocates nothing. The result goes into struct mm_frame_config as it is: mm_frame.h
 * sorts it, resolves overlaps and cuts it to pages.
 *
 *     struct mm_frame_range range[128];
 *     size_t count;
 *
 *     if (bootmap_fdt(blob, 1 << 20, range, 128, &count) != MM_OK)
 *         panic("no memory map");
 *     range[count++] = (struct mm_frame_range){kernel_pa, kernel_size, MM_FRAME_KERNEL};
 *     config.map = range;
 *     config.map_count = count;
 *     config.held_types = 1u << MM_FRAME_BOOTLOADER | 1u << MM_FRAME_ACPI_RECLAIM;
 *     mm_frame_init(&pool, &config);
 *     ...
 *     once the modules, the initial RAM disk, the loader's page tables and the ACPI tables have
 *     been read or moved: mm_frame_release() for the ranges of those two types
 *
 * WHAT BECOMES WHAT
 *
 *   usable memory, nothing in it                          MM_FRAME_USABLE
 *   the loader's: its code, tables and stack, modules,    MM_FRAME_BOOTLOADER
 *   initial RAM disks, EFI boot services
 *   ACPI tables                                           MM_FRAME_ACPI_RECLAIM
 *   ACPI non-volatile                                     MM_FRAME_ACPI_NVS
 *   memory-mapped devices, frame buffers, persistent      MM_FRAME_DEVICE
 *   and specific-purpose memory
 *   known to be bad                                       MM_FRAME_BAD
 *   the kernel's image, where the format tells            MM_FRAME_KERNEL
 *   all else, types that nobody has defined yet too       MM_FRAME_RESERVED
 *
 * No format tells everything. What the caller has to add: its own image (all but Limine), the
 * report itself, the command line, and on x86 the first page and the area from 0xa0000 to 0xfffff
 * if BIOS data or real-mode code is of interest.
 *
 * RESULTS, the same for all
 *
 *   MM_OK           the ranges are in out[0] to out[*count - 1], in the order of the report
 *   MM_ERR_INVALID  an argument is NULL (out may be, if capacity is 0)
 *   MM_ERR_NOENT    it is not such a report (wrong signature), or it has no memory map in it
 *   MM_ERR_CORRUPT  it contradicts itself: a length leads out of it, an entry is too small, a range
 *                   wraps around 2^64, a pointer leads nowhere
 *   MM_ERR_LIMIT    more ranges than `capacity`; *count is the number that is needed
 *
 * On an error `out` is untouched, and so is *count, but for MM_ERR_LIMIT. Call with capacity 0 to
 * learn how many ranges there are. Each is O(size of the report); no locks; the functions only
 * read.
 */
#ifndef BOOTMAPS_H
#define BOOTMAPS_H

#include "mm_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the functions reach what a report points to by physical address: Linux's list of setup data,
 * PVH's tables. `at` returns where `size` bytes at `pa` can be read, or NULL if they cannot. */
struct bootmap_view {
    const void *(*at)(void *ctx, mm_pa_t pa, size_t size);
    void *ctx;
};

/* Multiboot2: the memory map tag, else the EFI memory map tag, and the modules.
 *
 *   info     the boot information (EBX on entry)
 *   limit    most bytes of it that may be read
 *
 * Source: Multiboot2 Specification 2.0, 3.4 (boot information), 3.6.6 (modules), 3.6.8 (memory
 * map), 3.6.17 (EFI memory map). */
enum mm_status bootmap_multiboot2(const void *info, size_t limit, struct mm_frame_range *out,
                                  size_t capacity, size_t *count);

/* UEFI: what GetMemoryMap() returned before ExitBootServices().
 *
 *   map, size          the descriptors, bytes
 *   descriptor_size    bytes from one to the next: at least 40
 *
 * Boot services' memory becomes MM_FRAME_BOOTLOADER: it is free by the specification, but the page
 * tables and the stack that the kernel starts on are in it. Ordinary memory that cannot be cached
 * is reserved. Source: UEFI Specification 2.10, 7.2.3 (descriptors, attributes), table 7.10
 * (types). */
enum mm_status bootmap_uefi(const void *map, size_t size, size_t descriptor_size,
                            struct mm_frame_range *out, size_t capacity, size_t *count);

/* Limine: the response to the memory map request.
 *
 * The response holds an array of pointers in the kernel's own address space, which have no bounds
 * to check: an entry count above `capacity` is refused (MM_ERR_LIMIT, *count the number) before the
 * array is touched, NULL pointers and pointers beyond uintptr_t are MM_ERR_CORRUPT. Source: The
 * Limine Boot Protocol, "Memory Map Feature". */
enum mm_status bootmap_limine(const void *response, struct mm_frame_range *out, size_t capacity,
                              size_t *count);

/* The PC BIOS's map: entries as INT 15h, function E820h stores them, one behind the other.
 *
 *   entries    base, length, type; and in the last 4 of 24 bytes, the extended attributes
 *   number     how many
 *   stride     bytes from one to the next: 20, or 24 with extended attributes
 *
 * An entry whose extended attributes say "not enabled" is left out.
 * Source: ACPI Specification 6.5, 15.1 and table 15.4. */
enum mm_status bootmap_e820(const void *entries, size_t number, size_t stride,
                            struct mm_frame_range *out, size_t capacity, size_t *count);

/* Linux on x86: the E820 table of the zero page, its continuation in the list of setup data, the
 * list itself and the initial RAM disk.
 *
 *   zero_page   struct boot_params
 *   size        4096; less is refused
 *   view        for the list of setup data; NULL: a list is MM_ERR_CORRUPT
 *
 * Source: Linux, Documentation/arch/x86/zero-page.rst and boot.rst (setup_data, ramdisk_image). */
enum mm_status bootmap_linux(const void *zero_page, size_t size, const struct bootmap_view *view,
                             struct mm_frame_range *out, size_t capacity, size_t *count);

/* PVH (Xen, QEMU, Firecracker, cloud-hypervisor): the memory map and the modules.
 *
 *   start_info   physical address that EBX holds on entry
 *   view         how to read it, and what it points to
 *
 * Version 0 has no memory map: MM_ERR_NOENT.
 * Source: Xen, docs/misc/pvh.pandoc; public/arch-x86/hvm/start_info.h. */
enum mm_status bootmap_pvh(mm_pa_t start_info, const struct bootmap_view *view,
                           struct mm_frame_range *out, size_t capacity, size_t *count);

/* Flattened device tree: the nodes of type "memory", the memory reservation block, the children of
 * /reserved-memory that have an address (also the reusable ones: give those to a pool for
 * contiguous allocation yourself) and the initial RAM disk of /chosen.
 *
 *   blob     the tree
 *   limit    most bytes of it that may be read
 *
 * Nodes that are not "okay" are left out. Addresses and sizes have one or two cells.
 * Source: Devicetree Specification 0.4, 2.3 (status, reg, cells), 3.4 (memory), 3.5
 * (reserved-memory), 3.6 (chosen), 5.2 to 5.4 (format). */
enum mm_status bootmap_fdt(const void *blob, size_t limit, struct mm_frame_range *out,
                           size_t capacity, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
