/* Many pages in one call, with tables that are reached through windows. */
#define MM_PAGETABLE_WINDOWS
#include "pagetable_bulk.c"
