/* adapt_smp.h - the hooks of the two headers in this program: CPUs are what bench_cpu says, locks
 * and atomics on */
#ifndef BENCH_ADAPT_SMP_H
#define BENCH_ADAPT_SMP_H

#include "alloc.h"

/* A full memory barrier on every CPU that runs a thread of this program: membarrier(2). */
void bench_fence_cpus(void);

#define MM_CPU_MAX      4
#define MM_CPU_ID()     bench_cpu
#define MM_FENCE_CPUS() bench_fence_cpus()

/* Addresses are frame numbers times 4,096. */
#define FRAME_SHIFT 12

static inline uint64_t pa_of(uint32_t frame)
{
    return (uint64_t)frame << FRAME_SHIFT;
}

/* MM_PA_NONE turns into BENCH_NONE by itself. */
static inline uint32_t frame_of(uint64_t pa)
{
    return (uint32_t)(pa >> FRAME_SHIFT);
}

#endif
