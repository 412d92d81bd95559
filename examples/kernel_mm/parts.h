/* parts.h - what the files of kernel_mm share among each other */
#ifndef KMM_PARTS_H
#define KMM_PARTS_H

#include "kernel_mm.h"

/* Hooks get a context. A kernel has one memory manager, so they look into `kmm` instead. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define KMM_MAP_MAX      64
#define KMM_PAGES(bytes) (((uint64_t)(bytes) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT)

enum { KMM_SPACE, KMM_AREA, KMM_NODE, KMM_CACHES };

struct kmm {
    struct kmm_config config;
    struct mm_frame_range map[3 * KMM_MAP_MAX]; /* cleaned */
    size_t map_count;
    struct mm_frame_pool pool;
    mm_pa_t low, high;     /* where memory begins and ends */
    struct mm_buddy buddy; /* page runs: takes chunks from the pool as needed */
    struct mm_slab_heap heap;
    struct mm_slab_cache cache[KMM_CACHES];
    struct mm_pagetable kernel;
    struct mm_buddy vmap; /* the addresses of kmm_map_device */
    struct mm_vma_system vma;
    struct mm_vma_frame *records; /* who maps a frame: a table beside the descriptors */
    struct mm_frame_lru lru;
    struct {
        MM_LOCK_T lock;
        unsigned char *at;
        uint16_t *count; /* by slot; 0: free */
        uint64_t slots, used, rover;
    } swap;
    uintptr_t use[KMM_USES], evicted, swapped_in, faults, reports, freed;
    unsigned debug;
};
extern struct kmm kmm;

/* Memory that the manager keeps for itself, zeroed; NULL if there is none. */
void *kmm_own(uint64_t bytes);
/* Free page runs go back to mm_frame. */
void kmm_trim(void);

/* Frames of user pages. */
mm_pa_t kmm_frame_alloc(void *ctx, bool zero);
void kmm_frame_free(void *ctx, mm_pa_t pa);
void kmm_frame_put(mm_pa_t pa); /* drops a reference; the last one frees it */
void kmm_frame_mapped(void *ctx, mm_pa_t pa);

/* Attributes that make a mapping one of a device's memory. */
uint32_t kmm_attr_device(const struct mm_pagetable *pt);
void kmm_table_hooks(struct mm_vma_hooks *hooks); /* table.c */
void kmm_file_hooks(struct mm_vma_hooks *hooks);  /* file.c */
void kmm_swap_hooks(struct mm_vma_hooks *hooks);  /* reclaim.c */
enum mm_status kmm_swap_init(void);
void kmm_checked(void); /* report.c: at debug level 3 everything is looked at now and then */

#endif /* KMM_PARTS_H */
