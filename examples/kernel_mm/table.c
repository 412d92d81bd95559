/* table.c - the page tables of programs, as mm_vma.h wants them */
#include "parts.h"

/* Rights have the same bits in areas and in tables. A page without any stays in the table, as one
 * that is not for user mode. */
static uint32_t attr_of(const struct mm_pagetable *pt, unsigned prot)
{
    return MM_PAGETABLE_READ | (prot & MM_VMA_PROT) |
           ((prot & MM_VMA_PROT) != 0 ? MM_PAGETABLE_USER : 0u) |
           ((prot & MM_VMA_DEVICE) != 0 ? kmm_attr_device(pt) : 0u);
}

static unsigned prot_of(uint32_t attr)
{
    return ((attr & MM_PAGETABLE_USER) != 0 ? attr & MM_VMA_PROT : 0u) |
           ((attr & MM_PAGETABLE_SOFT0) != 0 ? MM_VMA_DEVICE : 0u);
}

/* Is a page present? The quota counts those. */
static uint64_t present(const struct kmm_space *space, mm_va_t va)
{
    struct mm_pagetable_entry e;
    return mm_pagetable_query(&space->pt, va, &e) == MM_OK && (e.attr & MM_PAGETABLE_SWAP) == 0;
}

static enum mm_status hook_pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct kmm_space *space = pt;
    const uint64_t more = 1 - present(space, va);
    enum mm_status status;
    if (mm_frame_quota_charge(&space->quota, more) != MM_OK)
        return MM_ERR_NOMEM;
    status = mm_pagetable_map(&space->pt, va, pa, MM_PAGE_SIZE, attr_of(&space->pt, prot),
                              MM_PAGETABLE_REPLACE, NULL);
    if (status != MM_OK)
        (void)mm_frame_quota_uncharge(&space->quota, more);
    return status;
}

static enum mm_status hook_pt_swap(void *ctx, void *pt, mm_va_t va, uint64_t slot)
{
    struct kmm_space *space = pt;
    const uint64_t less = present(space, va);
    enum mm_status status = mm_pagetable_swap(&space->pt, va, slot, NULL);
    if (status == MM_OK)
        (void)mm_frame_quota_uncharge(&space->quota, less);
    return status;
}

static void hook_pt_clear(void *ctx, void *pt, mm_va_t va)
{
    struct kmm_space *space = pt;
    const uint64_t less = present(space, va);
    if (mm_pagetable_unmap(&space->pt, va, MM_PAGE_SIZE, NULL) == MM_OK)
        (void)mm_frame_quota_uncharge(&space->quota, less);
}

static void hook_pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    struct kmm_space *space = pt;
    (void)mm_pagetable_protect(&space->pt, va, MM_PAGE_SIZE,
                               attr_of(&space->pt, prot) & MM_PAGETABLE_PERMS, MM_PAGETABLE_PERMS,
                               NULL); /* accessed and dirty stay */
}

static bool hook_pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    struct kmm_space *space = pt;
    struct mm_pagetable_entry e;
    if (end == 0 || end > kmm.config.user_top) /* "all": the kernel's half is not its business */
        end = kmm.config.user_top;
    for (; va < end; va = e.va + e.bytes) {
        if (mm_pagetable_query(&space->pt, va, &e) != MM_OK)
            continue;
        entry->va = va;
        entry->prot = prot_of(e.attr);
        entry->dirty = (e.attr & (MM_PAGETABLE_DIRTY | MM_PAGETABLE_SWAP)) != 0;
        entry->slot = e.pa;
        entry->pa = (e.attr & MM_PAGETABLE_SWAP) != 0 ? MM_PA_NONE : e.pa;
        return true;
    }
    return false;
}

static void hook_pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    struct kmm_space *space = pt;
    struct mm_pagetable_range range = {va, bytes, 0};
    struct mm_pagetable_flush flush = {0};
    flush.pt = &space->pt;
    flush.ranges = &range;
    flush.count = 1;
    flush.all = bytes > 32 * MM_PAGE_SIZE;
    kmm.config.flush(&flush);
}

void kmm_table_hooks(struct mm_vma_hooks *hooks)
{
    hooks->pt_map = hook_pt_map;
    hooks->pt_swap = hook_pt_swap;
    hooks->pt_protect = hook_pt_protect;
    hooks->pt_clear = hook_pt_clear;
    hooks->pt_next = hook_pt_next;
    hooks->pt_flush = hook_pt_flush;
}
