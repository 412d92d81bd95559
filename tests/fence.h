/* fence.h - the hook MM_FENCE_CPUS() in a process: membarrier(2). Include it before the header
 * under test and call mm_test_prepare_fence() once; with MM_TEST_NO_FENCE the hook stays
 * undefined. */
#ifndef MM_TEST_FENCE_H
#define MM_TEST_FENCE_H

#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef MM_TEST_NO_FENCE
static inline void mm_test_prepare_fence(void)
{
}
#else
void mm_test_fence_cpus(void);
void mm_test_fence_cpus(void)
{
    if (syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        abort();
}
#define MM_FENCE_CPUS() mm_test_fence_cpus()

static inline void mm_test_prepare_fence(void)
{
    if (syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0)
        abort();
}
#endif

#endif
