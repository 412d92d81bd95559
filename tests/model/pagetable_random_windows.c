/* The random model, with tables that are reached through windows: each is closed again, and none is
 * used after that. */
#define MM_PAGETABLE_WINDOWS
#define LESS 40u /* two system calls for each window */
#include "pagetable_random.c"
