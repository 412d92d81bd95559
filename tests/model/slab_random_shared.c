/* The same with the large classes in shared slabs from the start. */
#define MM_SLAB_SHARE 0
#include "slab_random.c"
