/* The random model, with tables' numbers of entries beside them. */
#define COUNTED
#define LESS 4u /* the rest is the same as without */
#include "pagetable_random.c"
