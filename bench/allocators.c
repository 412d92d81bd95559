/* allocators.c - the allocators of the benchmark, in the order of the report's columns
 *
 * A new one is a file that defines a struct bench_ops, and a line here. An adapter is left out by
 * -DBENCH_NO_FRAME or -DBENCH_NO_BUDDY where its header is not at hand. */
#include "alloc.h"

extern const struct bench_ops bench_slab;
extern const struct bench_ops bench_frame, bench_buddy;
extern const struct bench_ops baseline_empty, baseline_stack, baseline_freelist, baseline_nextfit,
    baseline_firstfit, baseline_listbuddy;
extern const struct bench_heap_ops bench_buddy_heap, baseline_heap;

const struct bench_ops *const bench_allocators[] = {
#ifndef BENCH_NO_FRAME
    &bench_frame,
#endif
#ifndef BENCH_NO_BUDDY
    &bench_buddy,
#endif
    &bench_slab,       &baseline_empty,    &baseline_stack,     &baseline_freelist,
    &baseline_nextfit, &baseline_firstfit, &baseline_listbuddy, NULL,
};

const struct bench_heap_ops *const bench_heaps[] = {
#ifndef BENCH_NO_BUDDY
    &bench_buddy_heap,
#endif
    &baseline_heap,
    NULL,
};
