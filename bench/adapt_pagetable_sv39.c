/* adapt_pagetable_sv39.c - mm_pagetable.h with Sv39 alone */
#define ADAPT_NAME  "pagetable39"
#define ADAPT_TITLE "mm_pagetable.h, Sv39"
#define ADAPT_OPS   page_ops_sv39
#define MM_PAGETABLE_SV39
#include "adapt_pagetable.c"
