/* copy.c - bytes between a program and the kernel, by way of the direct map: the program's tables
 * are not trusted, and the kernel has no right to its pages */
#include "parts.h"

/* A page that allows the access, held: it becomes nobody else's frame until it is put. MM_PA_NONE:
 * none. */
static mm_pa_t hold(struct kmm_space *space, mm_va_t page, unsigned access)
{
    while (kmm_fault(space, page, access) == MM_VMA_FAULT_OK) {
        const mm_pa_t pa = mm_pagetable_translate(&space->pt, page);
        if (pa == MM_PA_NONE)
            continue;
        if (mm_frame_desc_of(&kmm.pool, pa) == NULL)
            return MM_PA_NONE; /* a device */
        if (pa == kmm.vma.zero_frame)
            return pa;
        if (mm_frame_get(&kmm.pool, pa) != MM_OK)
            continue;
        if (mm_pagetable_translate(&space->pt, page) == pa)
            return pa;
        kmm_frame_put(pa);
    }
    return MM_PA_NONE;
}

static bool copy(struct kmm_space *space, mm_va_t va, char *kernel, uint64_t bytes, bool out)
{
    while (bytes != 0) {
        const uint64_t skew = va & (MM_PAGE_SIZE - 1), left = MM_PAGE_SIZE - skew,
                       part = left < bytes ? left : bytes;
        const mm_pa_t pa = hold(space, va - skew, out ? MM_VMA_WRITE : MM_VMA_READ);
        char *at = (char *)kmm_at(pa) + skew;
        bool still;
        if (pa == MM_PA_NONE)
            return false;
        MM_MEMCPY(out ? at : kernel, out ? kernel : at, part);
        still = mm_pagetable_translate(&space->pt, va - skew) == pa;
        if (pa != kmm.vma.zero_frame)
            kmm_frame_put(pa);
        if (!still) /* evicted, or copied on write, perhaps before the bytes were: once more */
            continue;
        va += part;
        kernel += part;
        bytes -= part;
    }
    return true;
}

bool kmm_copy_in(struct kmm_space *space, void *to, mm_va_t from, uint64_t bytes)
{
    return copy(space, from, to, bytes, false);
}

bool kmm_copy_out(struct kmm_space *space, mm_va_t to, const void *from, uint64_t bytes)
{
    return copy(space, to, (char *)(uintptr_t)from, bytes, true);
}
