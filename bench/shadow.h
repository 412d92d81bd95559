/* shadow.h - checks an allocator from outside: BENCH_VERIFY=1
 *
 * A table of functions around another one, with a byte for each frame: it notes frames that are
 * handed out twice, lie outside, start at the wrong multiple, and frees that are refused. Safe from
 * several threads. */
#ifndef BENCH_SHADOW_H
#define BENCH_SHADOW_H

#include "alloc.h"

/* Returns the `self` to be used with shadow_ops(ops). */
void *shadow_create(const struct bench_ops *ops, void *self, uint32_t nframes);
const struct bench_ops *shadow_ops(const struct bench_ops *ops);

/* What went wrong first, or NULL. */
const char *shadow_error(void);

#endif
