/* Tables that lack, with tables' numbers of entries beside them. */
#define COUNTED
#include "pagetable_fault.c"
