/* copy.c - copies between programs and the kernel; see copy.h */
#include "copy.h"

static bool copy(struct kmm_space *space, mm_va_t va, char *kernel, uint64_t bytes, bool out)
{
    while (bytes != 0) { /* page by page */
        const uint64_t left = MM_PAGE_SIZE - va % MM_PAGE_SIZE, part = left < bytes ? left : bytes;
        if (!kmm_copy(space, va, kernel, part, out))
            return false;
        va += part;
        kernel += part;
        bytes -= part;
    }
    return true;
}

bool copy_in(struct kmm_space *space, void *to, mm_va_t from, uint64_t bytes)
{
    return copy(space, from, to, bytes, false);
}

bool copy_out(struct kmm_space *space, mm_va_t to, const void *from, uint64_t bytes)
{
    return copy(space, to, (char *)(uintptr_t)from, bytes, true);
}
