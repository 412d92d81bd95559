/* The model of the map as a kernel compiles it that has neither vector registers nor instructions
 * for bit counting. */
#define MM_PORTABLE_BITS
#define MMI_VMA_VECTORS 0
#include "vma_map.c"
