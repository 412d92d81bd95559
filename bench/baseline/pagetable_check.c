/* pagetable_check.c - the same with a look at every entry on the way: a map that finds the page
 * taken and an unmap that finds a hole are refused, and counted */
#define CHECK       1
#define COUNT_NAME  "bare+check"
#define COUNT_TITLE "bare walks that look at each entry, count and free tables"
#define COUNT_OPS   page_ops_check
#include "pagetable_count.c"
