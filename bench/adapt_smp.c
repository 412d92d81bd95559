/* adapt_smp.c - see adapt_smp.h */
#include "adapt_smp.h"

#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

void bench_fence_cpus(void)
{
    static int registered;
    if (!registered) {
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
            perror("bench: membarrier");
            exit(1);
        }
        registered = 1;
    }
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}
