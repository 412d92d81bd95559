/* adapt_pagetable_sv39.c - mm_pagetable.h with Sv39 alone */
#define ADAPT_NAME  "pagetable39"
#define ADAPT_TITLE "mm_pagetable.h, Sv39"
#define ADAPT_OPS   page_ops_sv39
#define MM_PAGETABLE_SV39
/* a field of the records that a kernel has of its frames */
static unsigned short entries_beside[1 << 18];
#define MM_PAGETABLE_COUNT(pt, pa) entries_beside[(pa) >> 12]
#include "adapt_pagetable.c"
