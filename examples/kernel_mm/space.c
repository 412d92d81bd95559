/* space.c - memory of programs: their tables, what mm_vma.h wants of a kernel, reclaim, faults */
#include "kernel_mm.h"
#pragma GCC diagnostic ignored "-Wunused-parameter" /* of hooks */

/* ---- Tables of programs ---------------------------------------------------------------------- */

#define TABLES(space) (&((struct kmm_space *)(space))->pt) /* hooks get a space as `pt` */

/* Rights have the same bits in areas and in tables. A page without any stays in the table, as one
 * that is not for user mode. A software bit tells devices where there are no types of memory. */
static uint32_t attr_of(unsigned prot)
{
    const unsigned rights = prot & MM_VMA_PROT;
    uint32_t attr = MM_PAGETABLE_READ | rights | (rights != 0 ? MM_PAGETABLE_USER : 0u);
    if ((prot & MM_VMA_DEVICE) != 0)
        attr |= MM_PAGETABLE_SOFT0 | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE);
    return attr & kmm.attributes;
}

static unsigned prot_of(uint32_t attr)
{
    return ((attr & MM_PAGETABLE_USER) != 0 ? attr & MM_VMA_PROT : 0u) |
           ((attr & MM_PAGETABLE_SOFT0) != 0 ? MM_VMA_DEVICE : 0u);
}

/* The quota counts pages that are present: 1 if this one is, else 0. */
static uint64_t present(const struct kmm_space *space, mm_va_t va)
{
    return mm_pagetable_translate(&space->pt, va) != MM_PA_NONE;
}

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct kmm_space *space = pt;
    const uint64_t more = 1 - present(space, va);
    if (mm_frame_quota_charge(&space->quota, more) != MM_OK)
        return MM_ERR_NOMEM;
    const enum mm_status status = mm_pagetable_map(&space->pt, va, pa, MM_PAGE_SIZE, attr_of(prot),
                                                   MM_PAGETABLE_REPLACE, NULL);
    if (status != MM_OK)
        (void)mm_frame_quota_uncharge(&space->quota, more);
    return status;
}

static enum mm_status pt_swap(void *ctx, void *pt, mm_va_t va, uint64_t slot)
{
    struct kmm_space *space = pt;
    (void)mm_frame_quota_uncharge(&space->quota, present(space, va)); /* then it cannot fail */
    return mm_pagetable_swap(&space->pt, va, slot, NULL);
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    struct kmm_space *space = pt;
    (void)mm_frame_quota_uncharge(&space->quota, present(space, va));
    (void)mm_pagetable_unmap(&space->pt, va, MM_PAGE_SIZE, NULL);
}

/* Accessed and dirty stay. */
static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    (void)mm_pagetable_protect(TABLES(pt), va, MM_PAGE_SIZE, attr_of(prot) & MM_PAGETABLE_PERMS,
                               MM_PAGETABLE_PERMS, NULL);
}

/* mm_vma may ask for all there is; the kernel's half is not a program's business. */
static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    struct mm_pagetable_entry e;
    const mm_va_t top = end < kmm.config.layout.top ? end : kmm.config.layout.top;
    for (; va < top; va = e.va + e.bytes) {
        if (mm_pagetable_query(TABLES(pt), va, &e) != MM_OK)
            continue;
        entry->va = va;
        entry->pa = (e.attr & MM_PAGETABLE_SWAP) != 0 ? MM_PA_NONE : e.pa;
        entry->slot = e.pa;
        entry->prot = prot_of(e.attr);
        entry->dirty = (e.attr & (MM_PAGETABLE_DIRTY | MM_PAGETABLE_SWAP)) != 0;
        return true;
    }
    return false;
}

static void pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    const struct mm_pagetable_range range = {.va = va, .bytes = bytes};
    const struct mm_pagetable_flush flush = {
        .pt = TABLES(pt), .ranges = &range, .count = 1, .all = bytes > 32 * MM_PAGE_SIZE};
    kmm.config.flush(&flush);
}

/* ---- Frames of programs ---------------------------------------------------------------------- */

mm_pa_t kmm_frame_alloc(void *ctx, bool zero)
{
    const mm_pa_t pa = kmm_taken(KMM_USER, mm_frame_alloc_ref(&kmm.pool, 0, KMM_NORMAL), 1);
    if (zero && pa != MM_PA_NONE)
        MM_MEMSET(kmm_at(pa), 0, MM_PAGE_SIZE);
    return pa;
}

/* Drops a reference; the last one takes the frame off the LRU list and frees it. */
static void frame_put(mm_pa_t pa)
{
    while (mm_frame_put(&kmm.pool, pa) == MM_ERR_BUSY)
        (void)mm_frame_lru_remove(&kmm.lru, pa);
}

void kmm_frame_free(void *ctx, mm_pa_t pa)
{
    if (kmm.debug >= 2)
        MM_MEMSET(kmm_at(pa), KMM_JUNK, MM_PAGE_SIZE);
    (void)mm_fetch_add(&kmm.use[KMM_USER], 0 - (uintptr_t)1);
    frame_put(pa);
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    MM_MEMCPY(kmm_at(to), kmm_at(from), MM_PAGE_SIZE);
}

/* NULL for a device or the zero frame, as mm_vma does not count those. Whether the frame is in use
 * must not matter: who asks has just read its address in a table, and it may have been evicted
 * since. */
static struct mm_vma_frame *frame_record(void *ctx, mm_pa_t pa)
{
    const struct mm_frame_desc *desc = mm_frame_desc_of(&kmm.pool, pa);
    return desc == NULL || pa == kmm.vma.zero_frame
               ? NULL
               : &kmm.records[mm_frame_desc_index(&kmm.pool, desc)];
}

/* One list for all, whatever they hold. */
static void frame_mapped(void *ctx, mm_pa_t pa)
{
    (void)mm_frame_lru_add(&kmm.lru, pa, MM_FRAME_LRU_ANON);
}

/* ---- Reclaim --------------------------------------------------------------------------------- */

static bool clear_accessed(void *used, struct mm_vma_space *vma, mm_va_t va)
{
    *(bool *)used |= mm_pagetable_harvest(TABLES(vma->pt), va, MM_PAGE_SIZE, MM_PAGETABLE_ACCESSED,
                                          MM_PAGETABLE_ACCESSED, NULL, NULL, NULL) == MM_OK;
    return true;
}

static enum mm_status evict_one(void *ctx, struct mm_frame_pool *pool, mm_pa_t pa)
{
    bool used = false;
    (void)mm_vma_frame_walk(&kmm.vma, pa, clear_accessed, &used);
    return used ? MM_ERR_BUSY : mm_vma_evict(&kmm.vma, pa);
}

/* Twice round: those in use are spared once. */
uint64_t kmm_reclaim(uint64_t want)
{
    return mm_frame_lru_shrink(&kmm.lru, MM_FRAME_LRU_ANON, want, 2 * mm_load(&kmm.use[KMM_USER]),
                               evict_one, NULL);
}

/* ---- Areas, and all that mm_vma.h is given --------------------------------------------------- */

/* Under a space's lock: nothing is reclaimed. */
static struct mm_vma_node *node_alloc(void *ctx)
{
    return kmm_alloc(sizeof(struct mm_vma_node), MM_SLAB_NOWAIT);
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)mm_slab_kfree(&kmm.heap, node);
}

static struct mm_vma *area_alloc(void *ctx)
{
    return kmm_alloc(sizeof(struct mm_vma), MM_SLAB_NOWAIT);
}

static void area_free(void *ctx, struct mm_vma *area)
{
    (void)mm_slab_kfree(&kmm.heap, area);
}

enum mm_status kmm_spaces_init(void)
{
    struct mm_vma_hooks hooks = kmm.config.pager;
    const mm_pa_t zero = kmm_taken(KMM_KERNEL, mm_frame_alloc_ref(&kmm.pool, 0, 0), 1);
    kmm.records = kmm_own(mm_frame_desc_count(&kmm.pool) * sizeof *kmm.records);
    if (zero == MM_PA_NONE || kmm.records == NULL)
        return MM_ERR_NOMEM;
    MM_MEMSET(kmm_at(zero), 0, MM_PAGE_SIZE);
    hooks.nodes = (struct mm_vma_node_source){.alloc = node_alloc, .free = node_free};
    hooks.area_alloc = area_alloc;
    hooks.area_free = area_free;
    hooks.pt_map = pt_map;
    hooks.pt_swap = pt_swap;
    hooks.pt_protect = pt_protect;
    hooks.pt_clear = pt_clear;
    hooks.pt_next = pt_next;
    hooks.pt_flush = pt_flush;
    hooks.frame_alloc = kmm_frame_alloc;
    hooks.frame_free = kmm_frame_free;
    hooks.frame_copy = frame_copy;
    hooks.frame = frame_record;
    hooks.mapped = frame_mapped;
    const enum mm_status status = mm_vma_system_init(&kmm.vma, &hooks);
    kmm.vma.zero_frame = zero;
    return status;
}

/* ---- Spaces ---------------------------------------------------------------------------------- */

static void space_drop(struct kmm_space *space)
{
    (void)mm_pagetable_destroy(&space->pt, true);
    (void)kmm_free(space);
}

/* In every space's tables is the kernel's half: those of 256 entries out of 512 that there are. */
struct kmm_space *kmm_space_create(uint64_t quota)
{
    const uint64_t half = mm_pagetable_size(&kmm.kernel, kmm.config.format->levels - 1) * 256;
    struct kmm_space *space = kmm_alloc(sizeof *space, MM_SLAB_ZERO);
    struct mm_vma_config layout = kmm.config.layout;
    if (space == NULL || mm_pagetable_init(&space->pt, &kmm.tables) != MM_OK) {
        (void)kmm_free(space);
        return NULL;
    }
    mm_frame_quota_init(&space->quota, NULL, quota != 0 ? quota : UINTPTR_MAX);
    layout.pt = space;
    if (mm_pagetable_lend_present(&space->pt, &kmm.kernel, 0 - half, half) == MM_OK &&
        mm_vma_space_init(&space->vma, &kmm.vma, &layout) == MM_OK)
        return space;
    space_drop(space);
    return NULL;
}

struct kmm_space *kmm_space_clone(struct kmm_space *from)
{
    struct kmm_space *space = kmm_space_create(from->quota.limit);
    if (space == NULL)
        return NULL;
    (void)mm_vma_leave(&space->vma); /* raw memory again */
    if (mm_vma_fork(&space->vma, &from->vma, space) == 0 ||
        (kmm_reclaim(256) != 0 && mm_vma_fork(&space->vma, &from->vma, space) == 0))
        return space;
    space_drop(space);
    return NULL;
}

void kmm_space_destroy(struct kmm_space *space)
{
    if (space != NULL && mm_vma_leave(&space->vma))
        space_drop(space);
}

/* Nothing is both writable and executable. */
static bool refused(unsigned prot)
{
    return (prot & MM_VMA_WRITE) != 0 && (prot & MM_VMA_EXEC) != 0;
}

int kmm_region_protect(struct kmm_space *space, mm_va_t va, uint64_t bytes, unsigned prot)
{
    return refused(prot) ? MM_VMA_EACCES : mm_vma_mprotect(&space->vma, va, bytes, prot);
}

int kmm_mmap(struct kmm_space *space, const struct mm_vma_request *request, mm_va_t *va)
{
    int error = refused(request->prot) ? MM_VMA_EACCES : mm_vma_mmap(&space->vma, request, va);
    if (error == MM_VMA_ENOMEM && kmm_reclaim(256) != 0)
        error = mm_vma_mmap(&space->vma, request, va);
    return error;
}

/* ---- Accesses -------------------------------------------------------------------------------- */

enum mm_vma_fault kmm_fault(struct kmm_space *space, mm_va_t va, unsigned access)
{
    const uint32_t done =
        MM_PAGETABLE_ACCESSED | (access == MM_VMA_WRITE ? MM_PAGETABLE_DIRTY : 0u);
    enum mm_vma_fault fault;
    unsigned tries = 0;
    do
        fault = mm_vma_fault(&space->vma, va, access);
    while ((fault == MM_VMA_FAULT_RETRY || (fault == MM_VMA_FAULT_NOMEM && kmm_reclaim(64) != 0)) &&
           ++tries < 8);
    if (fault == MM_VMA_FAULT_OK) /* for processors that leave these bits to software */
        (void)mm_pagetable_mark(&space->pt, va & ~(MM_PAGE_SIZE - 1), done);
    (void)mm_fetch_add(&kmm.faults, 1);
    return fault == MM_VMA_FAULT_RETRY ? MM_VMA_FAULT_NOMEM : fault;
}

/* The page's frame is held meanwhile: it becomes nobody else's. But the program's tables are not
 * trusted: if the page was evicted, or copied on write, perhaps before the bytes were, it is all
 * done once more. */
bool kmm_copy(struct kmm_space *space, mm_va_t va, void *kernel, uint64_t bytes, bool out)
{
    const uint64_t skew = va % MM_PAGE_SIZE;
    while (kmm_fault(space, va, out ? MM_VMA_WRITE : MM_VMA_READ) == MM_VMA_FAULT_OK) {
        const mm_pa_t pa = mm_pagetable_translate(&space->pt, va - skew);
        const enum mm_status held = pa == MM_PA_NONE ? MM_ERR_NOENT : mm_frame_get(&kmm.pool, pa);
        if (held == MM_ERR_INVALID) /* a device's */
            return false;
        if (held != MM_OK)
            continue;
        bool still = mm_pagetable_translate(&space->pt, va - skew) == pa;
        if (still) {
            char *at = (char *)kmm_at(pa) + skew;
            MM_MEMCPY(out ? at : kernel, out ? kernel : at, bytes);
            still = mm_pagetable_translate(&space->pt, va - skew) == pa;
        }
        frame_put(pa);
        if (still)
            return true;
    }
    return false;
}
