/* The same threads without MM_FENCE_CPUS(): each entry is an exchange. */
#define MM_TEST_NO_FENCE
#include "buddy_threads.c"
