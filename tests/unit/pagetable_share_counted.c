/* Sharing, with tables' numbers of entries beside them. */
#define COUNTED
#include "pagetable_share.c"
