/* kernel_mm.h - the five headers as one memory manager of a kernel, whatever the architecture
 *
 *   boot map -> mm_frame -> mm_buddy -> mm_slab -> kmm_alloc
 *                  |            |
 *               user pages   page runs         kernel space: mm_pagetable
 *                  '--------- mm_vma + mm_pagetable: user spaces
 *
 * A kernel has one memory manager, so this one is global: `kmm`. Its parts answer questions by the
 * calls of their own headers. KMM_PORT names a header of the kernel's that defines the hooks
 * (locks, CPUs); without it there is one CPU. Every function but kmm_init is safe from any CPU.
 * kmm_alloc with MM_SLAB_NOWAIT and kmm_free may be called by interrupt handlers too, if the port's
 * locks and pins keep interrupts away. */
#ifndef KERNEL_MM_H
#define KERNEL_MM_H

#ifdef KMM_PORT
#include KMM_PORT
#endif
#ifndef MM_DEBUG
#define MM_DEBUG 1 /* misuse is reported; kmm.debug says what becomes of it */
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

#define KMM_MAP_MAX      64 /* ranges of a boot map */
#define KMM_CHECK_EVERY  1024
#define KMM_PAGES(bytes) (((uint64_t)(bytes) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT)

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
    uintptr_t direct; /* where the kernel's space has physical address 0, from the boot on */
    const struct kmm_mapping *mappings;
    unsigned mapping_count;
    uint64_t swap_bytes; /* size of the swap disk in memory */
    mm_va_t user_low, user_top;
    struct mm_vma_hooks files; /* file_get ... shared: the kernel's pager; no others */
    void (*flush)(const struct mm_pagetable_flush *flush); /* TLBs of all CPUs */
    uint64_t (*clock)(void);                               /* for kmm_bench; any unit */
    void (*print)(const char *format, ...); /* as printf: %s, %u and %x of 64 bits, %% */
};
/* A zone that keeps a few frames for page tables: they must not be what is missing under
 * pressure. */
#define KMM_ZONE(zone_name, from, to)                                                       \
    {                                                                                       \
        .name = (zone_name), .start = (from), .end = (to), .min = 16, .low = 32, .high = 64 \
    }

enum kmm_use { KMM_KERNEL, KMM_BUDDY, KMM_TABLES, KMM_USER, KMM_DMA, KMM_USES };

extern struct kmm {
    struct kmm_config config;
    struct mm_frame_range map[3 * KMM_MAP_MAX]; /* cleaned */
    size_t map_count;
    mm_pa_t low, high; /* where memory begins and ends */

    struct mm_frame_pool pool;
    struct mm_buddy buddy; /* page runs: takes chunks from the pool as needed */
    struct mm_slab_heap heap;
    struct mm_pagetable kernel;
    struct mm_vma_system vma;
    struct mm_vma_frame *records; /* who maps a frame: a table beside the descriptors */
    struct mm_frame_lru lru;

    unsigned char *swap;   /* the disk, in memory */
    uintptr_t *slot_users; /* of each page of it; 0: free */
    uintptr_t slots, slot_rover;

    uintptr_t use[KMM_USES]; /* frames in use, by what for */
    uintptr_t swapped, evicted, swapped_in, faults, freed;
    uintptr_t reports; /* cases of misuse */
    /* May be set at any time. 0: silent; 1: misuse is reported; 2: and freed pages are filled with
     * junk; 3: and kmm_check runs at every KMM_CHECK_EVERY-th free (one CPU only). */
    unsigned debug;
} kmm;

/* Takes over the memory of the boot map and builds the kernel's space, kmm.kernel, which is the
 * upper half of every space; the caller loads it then. MM_OK, or what failed. */
enum mm_status kmm_init(const struct kmm_config *config);

/* Where the kernel sees physical memory; NULL for MM_PA_NONE. */
static inline void *kmm_at(mm_pa_t pa)
{
    return pa == MM_PA_NONE ? NULL : (void *)(kmm.config.direct + (uintptr_t)pa);
}
static inline mm_pa_t kmm_pa_of(const void *at)
{
    return (mm_pa_t)((uintptr_t)at - kmm.config.direct);
}

/* ---- Kernel memory --------------------------------------------------------------------------- */

/* Any size; NULL if there is no memory, after reclaim unless MM_SLAB_NOWAIT. */
void *kmm_alloc(size_t bytes, unsigned flags);
static inline void *kmm_realloc(void *p, size_t bytes)
{
    return mm_slab_krealloc(&kmm.heap, p, bytes, 0);
}
enum mm_status kmm_free(void *p);

/* A page, or 2^order in a row; MM_PA_NONE if there is none. */
mm_pa_t kmm_alloc_pages(unsigned order);
enum mm_status kmm_free_pages(mm_pa_t pa, unsigned order);
/* Memory for devices: in a row, aligned, crossing no multiple of `boundary` (0: any), below
 * `limit`. */
mm_pa_t kmm_alloc_dma(uint64_t bytes, uint64_t align, uint64_t boundary, mm_pa_t limit);
enum mm_status kmm_free_dma(mm_pa_t pa, uint64_t bytes);

/* The kernel's space. W^X holds: a mapping that is writable and executable is refused. Devices want
 * MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE). A space of before does not see what is the first mapping
 * below its top-level entry: map something there at the start. */
enum mm_status kmm_map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr);
static inline enum mm_status kmm_unmap(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_unmap(&kmm.kernel, va, bytes, NULL);
}
static inline enum mm_status kmm_protect(mm_va_t va, uint64_t bytes, uint32_t attr)
{
    return mm_pagetable_protect(&kmm.kernel, va, bytes, attr, MM_PAGETABLE_PERMS, NULL);
}

/* ---- User spaces ----------------------------------------------------------------------------- */

struct kmm_space {
    struct mm_vma_space vma;
    struct mm_pagetable pt;
    struct mm_frame_quota quota; /* pages present */
};

/* `quota`: pages that may be present at once; 0: no limit. NULL if there is no memory. */
struct kmm_space *kmm_space_create(uint64_t quota);
struct kmm_space *kmm_space_clone(struct kmm_space *from); /* as fork: copy on write */
void kmm_space_destroy(struct kmm_space *space);           /* NULL: nothing happens */

/* A region at a fixed place, by kind: MM_VMA_CODE, DATA, STACK, HEAP, FRAMED, or IO or LINEAR for a
 * device or other memory at `pa` that is not the manager's. 0 or a negative errno, as all below. */
static inline int kmm_region_alloc(struct kmm_space *space, enum mm_vma_preset kind, mm_va_t va,
                                   uint64_t bytes, mm_pa_t pa)
{
    return mm_vma_install(&space->vma, kind, va, bytes, pa, 0);
}
static inline int kmm_region_free(struct kmm_space *space, mm_va_t va, uint64_t bytes)
{
    return mm_vma_munmap(&space->vma, va, bytes);
}
int kmm_region_protect(struct kmm_space *space, mm_va_t va, uint64_t bytes, unsigned prot);
/* mmap; the address goes to *va. */
int kmm_mmap(struct kmm_space *space, const struct mm_vma_request *request, mm_va_t *va);

/* The page fault's entry: `access` is MM_VMA_READ, MM_VMA_WRITE or MM_VMA_EXEC. Reclaims and tries
 * again where memory is short. */
enum mm_vma_fault kmm_fault(struct kmm_space *space, mm_va_t va, unsigned access);

/* Copies between a space and the kernel, by way of the direct map; false where the space has no
 * such memory. */
bool kmm_copy_in(struct kmm_space *space, void *to, mm_va_t from, uint64_t bytes);
bool kmm_copy_out(struct kmm_space *space, mm_va_t to, const void *from, uint64_t bytes);

/* Writes up to `want` user pages away to swap, the longest unused ones first. Returns how many. */
uint64_t kmm_reclaim(uint64_t want);

/* Frames of user pages, for a pager: with one reference, and on the LRU lists once they are
 * mapped. */
mm_pa_t kmm_frame_alloc(void *ctx, bool zero);
void kmm_frame_free(void *ctx, mm_pa_t pa);

/* ---- Health ---------------------------------------------------------------------------------- */

/* Frames that nobody uses, after caches and page runs gave back what they can. Nothing else may
 * run. */
uint64_t kmm_free_frames(void);
void kmm_summary(void); /* prints who has how much, in MB and percent */

enum kmm_health { KMM_HEALTHY, KMM_LEAK, KMM_CORRUPT }; /* numbered as the headers do */
/* Checks all there is; nothing else may run. `what` (may be NULL): the part that is ill. */
enum kmm_health kmm_check(const char **what);
/* Frames, caches, and what the kernel's tables map with which rights; or a space's areas, as
 * /proc/PID/maps has them. */
void kmm_dump(struct kmm_space *space);

/* `ops` random calls of everything that this CPU may do by itself; returns how many went wrong. */
uint64_t kmm_stress(uint64_t seed, uint64_t ops);
/* Prints what one operation of each kind costs, in units of the clock. */
void kmm_bench(void);

/* ---- Between the files here ------------------------------------------------------------------ */

/* What `pa` is the start of, or MM_PA_NONE, has this use now. */
mm_pa_t kmm_taken(enum kmm_use use, mm_pa_t pa, uint64_t frames);
/* Memory that the manager keeps for itself, zeroed; NULL if there is none. */
void *kmm_own(uint64_t bytes);
/* Empty tables of the kernel's kind, and attributes without the types that they cannot tell. */
enum mm_status kmm_table_init(struct mm_pagetable *pt);
uint32_t kmm_typed(uint32_t attr);
enum mm_status kmm_spaces_init(void);
void kmm_checked(void); /* at debug level 3 everything is looked at now and then */
#define KMM_JUNK 0x6b   /* freed pages at debug level 2 */

#endif /* KERNEL_MM_H */
