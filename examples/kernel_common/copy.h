/* copy.h - copies between programs and the kernel, as system calls need them */
#ifndef COPY_H
#define COPY_H

#include "../kernel_mm/kernel_mm.h"

/* False where the space has no such memory; what lies before it has been copied. */
bool copy_in(struct kmm_space *space, void *to, mm_va_t from, uint64_t bytes);
bool copy_out(struct kmm_space *space, mm_va_t to, const void *from, uint64_t bytes);

#endif /* COPY_H */
