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

#define KMM_MAP_MAX      192 /* ranges of a boot map without overlaps: up to three for one */
#define KMM_PAGES(bytes) (((uint64_t)(bytes) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT)

struct kmm_config {
    const struct mm_frame_range *map; /* what the firmware told, and the kernel's own image */
    size_t map_count;
    const struct mm_frame_zone_config *zones; /* ascending; the first is for DMA */
    unsigned zone_count;
    const struct mm_pagetable_format *format;
    uintptr_t direct; /* where the kernel's space has physical address 0, from the boot on */
    const struct mm_pagetable_run *mappings; /* parts of the kernel's image, devices */
    unsigned mapping_count;
    struct mm_vma_config layout; /* of programs' spaces */
    struct mm_vma_hooks pager;   /* the kernel's files and swap disk: file_get ... swap_free */
    void (*flush)(const struct mm_pagetable_flush *flush); /* TLBs of all CPUs */
    uint64_t (*clock)(void);                               /* for kmm_bench; any unit */
    void (*print)(const char *format, ...); /* as printf: %s, %u and %x of 64 bits, %% */
};
/* Of each zone, for page tables: they must not be what is missing under pressure. */
#define KMM_WATERMARKS .min = 16, .low = 32, .high = 64

enum kmm_use { KMM_KERNEL, KMM_BUDDY, KMM_TABLES, KMM_USER, KMM_DMA, KMM_USES };

extern struct kmm {
    struct kmm_config config;
    struct mm_frame_range map[KMM_MAP_MAX]; /* cleaned */
    size_t map_count;
    mm_pa_t low, high; /* where memory begins and ends */

    struct mm_frame_pool pool;
    struct mm_buddy buddy; /* page runs: takes chunks from the pool as needed */
    struct mm_slab_heap heap;
    struct mm_pagetable_config tables;
    uint32_t attributes; /* that tables can tell: RISC-V has types of memory only with Svpbmt */
    struct mm_pagetable kernel;
    struct mm_vma_system vma;
    struct mm_vma_frame *records; /* who maps a frame: a table beside the descriptors */
    struct mm_frame_lru lru;

    uintptr_t use[KMM_USES];          /* frames in use, by what for */
    uintptr_t faults, freed, reports; /* `reports`: cases of misuse */
    /* May be set at any time. 0: silent; 1: misuse is reported; 2: and freed pages are filled with
     * junk; 3: and kmm_check runs at every 1,024th free (one CPU only). */
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

/* Memory that is never given back, of any size, zeroed; NULL if there is none. */
void *kmm_own(uint64_t bytes);
/* Caches of objects and page runs give back what they can; no other CPU uses them meanwhile. */
void kmm_trim(void);

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
/* W^X holds here, too: EACCES. */
int kmm_region_protect(struct kmm_space *space, mm_va_t va, uint64_t bytes, unsigned prot);
/* mmap; the address goes to *va. */
int kmm_mmap(struct kmm_space *space, const struct mm_vma_request *request, mm_va_t *va);

/* The page fault's entry: `access` is MM_VMA_READ, MM_VMA_WRITE or MM_VMA_EXEC. Reclaims and tries
 * again where memory is short. */
enum mm_vma_fault kmm_fault(struct kmm_space *space, mm_va_t va, unsigned access);

/* Copies `bytes`, all in one page, between a program (to it if `out`) and the kernel, by way of the
 * direct map. False if the program may not access its memory so, or it is a device's. */
bool kmm_copy(struct kmm_space *space, mm_va_t va, void *kernel, uint64_t bytes, bool out);

/* Takes up to `want` pages from programs, the longest unused ones first: they go to the swap disk
 * or back to their files. Returns how many. */
uint64_t kmm_reclaim(uint64_t want);

/* Frames of user pages, for a pager: with one reference, and on the LRU list once they are
 * mapped. */
mm_pa_t kmm_frame_alloc(void *ctx, bool zero);
void kmm_frame_free(void *ctx, mm_pa_t pa);

/* ---- Health ---------------------------------------------------------------------------------- */

void kmm_summary(void); /* prints who has how much, in MB and percent */

enum kmm_health { KMM_HEALTHY, KMM_LEAK, KMM_CORRUPT }; /* numbered as the headers do */
/* Checks all there is; nothing else may run. `what`: the part that is ill. */
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
enum mm_status kmm_spaces_init(void);
void kmm_checked(void); /* at debug level 3 everything is looked at now and then */
#define KMM_JUNK   0x6b /* freed pages at debug level 2 */
/* What most allocations prefer: where that zone is full, or not there at all, mm_frame goes on to
 * those below. */
#define KMM_NORMAL MM_FRAME_ZONE(kmm.config.zone_count - 1)

#endif /* KERNEL_MM_H */
