/* What the calls do, with tables that are reached through windows: each is closed again, and none
 * is used after that. */
#define MM_PAGETABLE_WINDOWS
#include "pagetable_share.c"
