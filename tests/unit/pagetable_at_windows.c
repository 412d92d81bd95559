/* Steps at an address, with tables that are reached through windows. */
#define MM_PAGETABLE_WINDOWS
#include "pagetable_at.c"
