/* Steps at an address, with tables' numbers of entries beside them. */
#define COUNTED
#include "pagetable_at.c"
