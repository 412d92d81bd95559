/* Every state, with tables' numbers of entries beside them. */
#define COUNTED
#include "pagetable_states.c"
