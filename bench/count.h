/* count.h - the parts of the program count beside its own allocators */
#ifndef BENCH_COUNT_H
#define BENCH_COUNT_H

void count_pagetable(void); /* dumps ROW/pagetable, one for each operation of the page table */
void count_vma(void);       /* ROW/vma, one for each kind of call */

#endif
