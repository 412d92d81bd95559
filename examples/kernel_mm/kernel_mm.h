/* kernel_mm.h - the five headers as one memory manager of a kernel, whatever the architecture
 *
 *   boot map -> mm_frame -> mm_buddy -> mm_slab -> kmm_alloc
 *                  |            |
 *               user pages   page runs         kernel space: mm_pagetable
 *                  '--------- mm_vma + mm_pagetable: user spaces
 *
 * A kernel has one memory manager, so this one is global. KMM_PORT names a header of the kernel's
 * that defines the hooks (locks, CPUs); without it there is one CPU. Every function but kmm_init
 * and kmm_fini is safe from any CPU. kmm_alloc with MM_SLAB_NOWAIT and kmm_free may be called by
 * interrupt handlers too, if the port's locks and pins keep interrupts away.
 */
#ifndef KERNEL_MM_H
#define KERNEL_MM_H

#ifdef KMM_PORT
#include KMM_PORT
#endif
#ifndef MM_DEBUG
#define MM_DEBUG 1 /* misuse is reported; kmm_set_debug says what becomes of it */
#endif
#define MM_REPORT(report) kmm_report(report)
struct mm_report;
void kmm_report(const struct mm_report *report);

#include "mm_frame.h"
#include "mm_buddy.h"
#include "mm_slab.h"
#include "mm_pagetable.h"
#include "mm_vma.h"

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* A part of the kernel's image, or a device: mapped as it says. */
struct kmm_mapping {
    mm_va_t va;
    mm_pa_t pa;
    uint64_t bytes;
    uint32_t attr; /* MM_PAGETABLE_READ ... */
};

struct kmm_config {
    const struct mm_frame_range *map; /* what the firmware told, and the kernel's own image */
    size_t map_count;
    const struct mm_frame_zone_config *zones; /* of KMM_ZONE, ascending; the first is for DMA */
    unsigned zone_count;
    const struct mm_pagetable_format *format;
    uintptr_t
        direct;   /* where physical address 0 is, in the kernel's space; already there at boot */
    mm_va_t vmap; /* KMM_VMAP_BYTES of address space for kmm_map_device and the like */
    const struct kmm_mapping *mappings;
    unsigned mapping_count;
    uint64_t swap_bytes; /* size of the swap disk in memory */
    mm_va_t user_low, user_top;
    void (*flush)(const struct mm_pagetable_flush *flush); /* TLBs of all CPUs */
    uint64_t (*clock)(void);                               /* for kmm_bench; any unit */
    void (*print)(const char *format, ...); /* as printf: %s, %u and %x of 64 bits, %% */
};
#define KMM_VMAP_BYTES ((uint64_t)64 << 20)
/* A zone that keeps a few frames for page tables: they must not be what is missing under
 * pressure. */
#define KMM_ZONE(zone_name, from, to)                                                       \
    {                                                                                       \
        .name = (zone_name), .start = (from), .end = (to), .min = 16, .low = 32, .high = 64 \
    }

/* Takes over the memory of the boot map and builds the kernel's space, which is the upper half of
 * every space; the caller loads kmm_kernel_root() then. MM_OK, or what failed. */
enum mm_status kmm_init(const struct kmm_config *config);
uint64_t kmm_kernel_root(void);
/* Gives back the kernel's tables and what the caches hold; what kmm_init took for good (KMM_KERNEL)
 * stays. */
void kmm_fini(void);

static inline void *kmm_pointer(uintptr_t direct, mm_pa_t pa)
{
    return (void *)(direct + (uintptr_t)pa);
}
void *kmm_at(mm_pa_t pa); /* where the kernel sees physical memory */
mm_pa_t kmm_pa_of(const void *at);

/* ---- Kernel memory --------------------------------------------------------------------------- */

/* Any size; NULL if there is no memory, after reclaim unless MM_SLAB_NOWAIT. */
void *kmm_alloc(size_t bytes, unsigned flags);
void *kmm_realloc(void *p, size_t bytes);
enum mm_status kmm_free(void *p);
size_t kmm_size(const void *p);

/* A page, or 2^order in a row; MM_PA_NONE if there is none. */
mm_pa_t kmm_alloc_pages(unsigned order);
enum mm_status kmm_free_pages(mm_pa_t pa, unsigned order);
/* Memory for devices: in a row, aligned, crossing no multiple of `boundary` (0: any), below
 * `limit`. */
mm_pa_t kmm_alloc_dma(uint64_t bytes, uint64_t align, uint64_t boundary, mm_pa_t limit);
enum mm_status kmm_free_dma(mm_pa_t pa, uint64_t bytes);

/* The kernel's space. W^X holds: a mapping that is writable and executable is refused. */
enum mm_status kmm_map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr);
enum mm_status kmm_unmap(mm_va_t va, uint64_t bytes);
enum mm_status kmm_protect(mm_va_t va, uint64_t bytes, uint32_t attr);
/* A window on device memory, uncached, at an address of its own; NULL if there is no room. */
void *kmm_map_device(mm_pa_t pa, uint64_t bytes);
enum mm_status kmm_unmap_device(void *at, uint64_t bytes);

/* ---- User spaces ----------------------------------------------------------------------------- */

struct kmm_space {
    struct mm_vma_space vma;
    struct mm_pagetable pt;
    struct mm_frame_quota quota; /* pages present */
};

/* A file: content in memory, pages in a cache of frames while somebody maps them. */
struct kmm_file {
    const char *name;
    unsigned char *data;
    uint64_t bytes;
    struct kmm_file_page {
        mm_pa_t pa;     /* MM_PA_NONE: not cached */
        uintptr_t maps; /* a frame stays in the cache while somebody maps it */
    } * pages;
    uintptr_t reads, writes, references;
    bool shared_memory; /* made for shared anonymous memory: goes with its last reference */
    MM_LOCK_T lock;
};
enum mm_status kmm_file_open(struct kmm_file *file, const char *name, void *data, uint64_t bytes);
void kmm_file_close(struct kmm_file *file);

/* `quota`: pages that may be present at once; 0: no limit. NULL if there is no memory. */
struct kmm_space *kmm_space_create(uint64_t quota);
struct kmm_space *kmm_space_clone(struct kmm_space *from); /* as fork: copy on write */
void kmm_space_destroy(struct kmm_space *space);
uint64_t kmm_space_root(const struct kmm_space *space);

/* A region at a fixed place, by kind: MM_VMA_CODE, DATA, STACK, HEAP, FRAMED, or IO or LINEAR for a
 * device or other memory at `pa` that is not the manager's. 0 or a negative errno, as all below. */
int kmm_region_alloc(struct kmm_space *space, enum mm_vma_preset kind, mm_va_t va, uint64_t bytes,
                     mm_pa_t pa);
int kmm_region_free(struct kmm_space *space, mm_va_t va, uint64_t bytes);
int kmm_region_protect(struct kmm_space *space, mm_va_t va, uint64_t bytes, unsigned prot);
/* mmap: a request's file is a struct kmm_file. The address goes to *va. */
int kmm_mmap(struct kmm_space *space, const struct mm_vma_request *request, mm_va_t *va);

/* The page fault's entry: `access` is MM_VMA_READ, MM_VMA_WRITE or MM_VMA_EXEC. Reclaims and tries
 * again where memory is short. */
enum mm_vma_fault kmm_fault(struct kmm_space *space, mm_va_t va, unsigned access);
const char *kmm_fault_name(enum mm_vma_fault fault);

/* Copies between a space and the kernel, by way of the direct map; false where the space has no
 * such memory. */
bool kmm_copy_in(struct kmm_space *space, void *to, mm_va_t from, uint64_t bytes);
bool kmm_copy_out(struct kmm_space *space, mm_va_t to, const void *from, uint64_t bytes);

/* Writes up to `want` user pages away to swap, the longest unused ones first. Returns how many. */
uint64_t kmm_reclaim(uint64_t want);

/* ---- Health ---------------------------------------------------------------------------------- */

/* What frames are used for. */
enum kmm_use { KMM_KERNEL, KMM_BUDDY, KMM_TABLES, KMM_USER, KMM_DMA, KMM_USES };

struct kmm_stats {
    uint64_t total, used, free; /* frames */
    unsigned percent;
    uint64_t use[KMM_USES];
    uint64_t slab_bytes, swapped, swap_slots, evicted, swapped_in, faults;
};
void kmm_get_stats(struct kmm_stats *stats);
/* Frames that nobody uses, after caches and page runs gave back what they can. Nothing else may
 * run. */
uint64_t kmm_free_frames(void);
void kmm_summary(void); /* prints the above in MB and percent */

enum kmm_health { KMM_HEALTHY, KMM_LEAK, KMM_CORRUPT }; /* numbered as the headers do */
/* Checks all there is; nothing else may run. `what` (may be NULL): the part that is ill. */
enum kmm_health kmm_check(const char **what);
void kmm_dump(void); /* frames, caches and the kernel's space */
/* A space's areas, as /proc/PID/maps has them; NULL: what the kernel's tables map, with which
 * rights. */
void kmm_list(struct kmm_space *space);

/* 0: silent; 1: misuse is reported; 2: and freed pages are filled with junk; 3: and kmm_check runs
 * after every KMM_CHECK_EVERY-th page is freed (one CPU only). */
void kmm_set_debug(unsigned level);
uintptr_t kmm_reports(void); /* cases of misuse reported since the start */
#define KMM_CHECK_EVERY 1024

/* `ops` random calls of everything that this CPU may do by itself; returns how many went wrong. */
uint64_t kmm_stress(uint64_t seed, uint64_t ops);
/* Prints what one operation of each kind costs, in units of the clock. */
void kmm_bench(void);

#endif /* KERNEL_MM_H */
