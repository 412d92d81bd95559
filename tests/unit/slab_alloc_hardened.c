/* The same with the checks of a hardened build. */
#define MM_SLAB_HARDEN 1
#include "slab_alloc.c"
