/* reclaim.c - user pages that nobody used lately go to a disk in memory */
#include "parts.h"

/* ---- The disk: slots of a page, counted ------------------------------------------------------ */

enum mm_status kmm_swap_init(void)
{
    kmm.swap.slots = kmm.config.swap_bytes >> MM_PAGE_SHIFT;
    MM_LOCK_INIT(&kmm.swap.lock);
    if (kmm.swap.slots == 0)
        return MM_OK;
    kmm.swap.at = kmm_own(kmm.swap.slots << MM_PAGE_SHIFT);
    kmm.swap.count = kmm_own(kmm.swap.slots * sizeof *kmm.swap.count);
    return kmm.swap.at == NULL || kmm.swap.count == NULL ? MM_ERR_NOMEM : MM_OK;
}

static void *slot_at(uint64_t slot)
{
    return kmm.swap.at + (slot << MM_PAGE_SHIFT);
}

static enum mm_status hook_out(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    MM_LOCK_STATE_T state;
    uint64_t tries, at;
    MM_LOCK(&kmm.swap.lock, state);
    at = kmm.swap.rover;
    for (tries = kmm.swap.slots; tries != 0 && kmm.swap.count[at] != 0; tries--)
        at = at + 1 == kmm.swap.slots ? 0 : at + 1;
    if (tries != 0) {
        kmm.swap.count[at] = 1;
        kmm.swap.used++;
        kmm.swap.rover = at;
    }
    MM_UNLOCK(&kmm.swap.lock, state);
    if (tries == 0)
        return MM_ERR_NOMEM;
    *slot = at;
    MM_MEMCPY(slot_at(at), kmm_at(pa), MM_PAGE_SIZE);
    return MM_OK;
}

static enum mm_status hook_in(void *ctx, uint64_t slot, mm_pa_t pa)
{
    MM_MEMCPY(kmm_at(pa), slot_at(slot), MM_PAGE_SIZE);
    (void)mm_fetch_add(&kmm.swapped_in, 1);
    return MM_OK;
}

static void hook_dup(void *ctx, uint64_t slot)
{
    MM_LOCK_STATE_T state;
    MM_LOCK(&kmm.swap.lock, state);
    kmm.swap.count[slot]++;
    MM_UNLOCK(&kmm.swap.lock, state);
}

static void hook_free(void *ctx, uint64_t slot)
{
    MM_LOCK_STATE_T state;
    MM_LOCK(&kmm.swap.lock, state);
    if (--kmm.swap.count[slot] == 0)
        kmm.swap.used--;
    MM_UNLOCK(&kmm.swap.lock, state);
}

void kmm_swap_hooks(struct mm_vma_hooks *hooks)
{
    hooks->swap_out = hook_out;
    hooks->swap_in = hook_in;
    hooks->swap_dup = hook_dup;
    hooks->swap_free = hook_free;
}

/* ---- Who goes -------------------------------------------------------------------------------- */

static bool clear_accessed(void *used, struct mm_vma_space *vma, mm_va_t va)
{
    struct kmm_space *space = vma->pt;
    if (mm_pagetable_harvest(&space->pt, va, MM_PAGE_SIZE, MM_PAGETABLE_ACCESSED,
                             MM_PAGETABLE_ACCESSED, NULL, NULL, NULL) == MM_OK)
        *(bool *)used = true;
    return true;
}

/* The frame is off its list here. A reference of its own keeps it from becoming another's
 * meanwhile; what stays goes back to the young end of its list, unless its last owner has gone. */
static enum mm_status evict_one(void *gone, struct mm_frame_pool *pool, mm_pa_t pa)
{
    enum mm_status status = MM_ERR_BUSY;
    bool used = false;
    if (mm_frame_get(pool, pa) != MM_OK)
        return MM_OK;
    (void)mm_vma_frame_walk(&kmm.vma, pa, clear_accessed, &used);
    if (!used)
        status = mm_vma_evict(&kmm.vma, pa);
    if (status == MM_OK)
        ++*(uint64_t *)gone;
    else if (status != MM_ERR_NOENT)
        kmm_frame_mapped(NULL, pa);
    kmm_frame_put(pa);
    return MM_OK;
}

uint64_t kmm_reclaim(uint64_t want)
{
    uint64_t gone = 0, tries = 2 * (uint64_t)mm_load(&kmm.use[KMM_USER]) + want;
    unsigned kind = 0;
    for (; gone < want && tries != 0; kind ^= 1u) {
        const size_t scan = (size_t)(want - gone < tries ? want - gone : tries);
        (void)mm_frame_lru_shrink(&kmm.lru, (enum mm_frame_lru_kind)kind, scan, scan, evict_one,
                                  &gone);
        tries -= scan;
    }
    (void)mm_fetch_add(&kmm.evicted, (uintptr_t)gone);
    return gone;
}
