/* Many pages at once, with tables' numbers of entries beside them. */
#define COUNTED
#include "pagetable_bulk.c"
