/* parts.h - what the files of kernel_mm share among each other */
#ifndef KMM_PARTS_H
#define KMM_PARTS_H

#include "kernel_mm.h"

/* Hooks get a context. A kernel has one memory manager, so they look into `kmm` instead. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define KMM_MAP_MAX      64
#define KMM_LENT_MAX     64
#define KMM_OWN_MAX      6
#define KMM_RESERVE      16 /* frames that a zone keeps for tables: its lowest watermark */
#define KMM_PAGES(bytes) (((uint64_t)(bytes) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT)

struct kmm {
    struct kmm_config config;
    struct mm_frame_range map[3 * KMM_MAP_MAX]; /* cleaned */
    size_t map_count;
    struct mm_frame_pool pool;
    unsigned normal;       /* the zone that most allocations prefer */
    mm_pa_t low, high;     /* where the pool's frames begin and end */
    struct mm_buddy buddy; /* page runs: takes chunks from the pool as needed */
    struct mm_slab_heap heap;
    struct mm_slab_cache space_cache, area_cache, node_cache;
    struct mm_pagetable kernel;
    mm_va_t lent[KMM_LENT_MAX]; /* its top-level entries that user tables get */
    uint64_t lent_bytes;
    unsigned lent_count;
    struct mm_buddy vmap; /* the addresses of kmm_map_device */
    struct mm_vma_system vma;
    struct mm_vma_frame *records; /* who maps a frame: by place of its descriptor */
    struct mm_frame_lru lru;
    struct {
        MM_LOCK_T lock;
        unsigned char *at;
        uint16_t *count; /* by slot; 0: free */
        uint64_t slots, used, rover;
    } swap;
    struct kmm_run {
        mm_pa_t pa;
        uint64_t frames;
    } own[KMM_OWN_MAX]; /* what the manager itself needs until kmm_fini */
    unsigned own_count;
    uintptr_t use[KMM_USES], evicted, swapped_in, faults, reports, freed;
    unsigned debug;
};
extern struct kmm kmm;

/* Memory for the manager's own use, zeroed; NULL if there is none. */
void *kmm_own(uint64_t bytes);
/* Free chunks of page runs go back to mm_frame. */
void kmm_trim(void);

/* Frames of user pages. */
mm_pa_t kmm_frame_alloc(void *ctx, bool zero);
void kmm_frame_free(void *ctx, mm_pa_t pa);
void kmm_frame_put(mm_pa_t pa); /* drops a reference; the last one frees it */
void kmm_frame_mapped(void *ctx, mm_pa_t pa);

void kmm_file_hooks(struct mm_vma_hooks *hooks); /* file.c */
void kmm_swap_hooks(struct mm_vma_hooks *hooks); /* reclaim.c */
enum mm_status kmm_swap_init(void);
void kmm_checked(void); /* report.c: at debug level 3 everything is looked at now and then */

#endif /* KMM_PARTS_H */
