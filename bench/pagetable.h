/* pagetable.h - what a page table is to the benchmark: whole workloads, so that each implementation
 * has its own loops */
#ifndef BENCH_PAGETABLE_H
#define BENCH_PAGETABLE_H

#include <stddef.h>
#include <stdint.h>

struct gb_state;

struct page_ops {
    const char *name, *title;
    void (*open)(void);  /* an empty table */
    void (*close)(void); /* every table goes back to the pool */
    void (*map)(uint64_t va, uint64_t pa, uint64_t bytes, int level); /* leaves of this level */
    void (*protect)(uint64_t va, uint64_t bytes);                     /* takes write away */
    void (*unmap)(uint64_t va, uint64_t bytes); /* tables kept, or freed with every leaf seen */
    void (*unmap_whole)(uint64_t va, uint64_t bytes);    /* leaves not wanted; NULL: it cannot */
    uint64_t (*translate)(const uint64_t *va, size_t n); /* sum of the results */
    uint64_t (*translate_dep)(uint64_t va, size_t n);    /* each address from the last result */
    void (*map_each)(const uint64_t *va, size_t n, int how);   /* a step for each page of 4 KiB; */
    void (*unmap_each)(const uint64_t *va, size_t n, int how); /* how: PAGE_KEEP and so on */
};

/* Tables stay when they get empty. */
#define PAGE_KEEP    1
/* A call for each page that takes the lock, flushes and gives the frame back; else the lock is held
 * and flushes are gathered, as in kernels whose page tables have no lock of their own. */
#define PAGE_CALLS   2
/* Each page is announced PAGE_AHEAD steps before, where that can be. */
#define PAGE_LOOK    4
#define PAGE_AHEAD   8
/* All pages are known at once: a call for all, where there is one; else looked at twice ahead, by
 * hand. */
#define PAGE_BULK    8
#define SPARSE_SPACE (UINT64_C(128) << 30) /* where the pages of map_each lie */

/* The list of page tables, up to NULL. */
extern const struct page_ops *const bench_page_tables[];

/* The frames of map_each, PAGE_PA and on, as a list. */
extern const uint64_t *page_frames;

/* Tables: pages of 4 KiB that are recycled as they are, not zeroed; the last one freed is first. */
extern unsigned char *page_pool;
uint64_t page_take(void); /* offset in page_pool */
void page_give(uint64_t offset);

/* A row: one workload for every page table that can do it. */
struct page_row {
    const char *name;
    int64_t iterations;
    int (*can)(const struct page_ops *ops);
    void (*run)(struct gb_state *st, const struct page_ops *ops, const struct page_row *row);
    int which;
};
extern const struct page_row page_rows[];
const char *page_failure(void); /* what went wrong in the last run, or NULL */

#define PAGE_VA  UINT64_C(0x2000000000) /* 1 GiB of it, aligned to 1 GiB */
#define PAGE_PA  UINT64_C(0x100000000)
#define PAGE_GIB (UINT64_C(1) << 30)

/* The next address of translate_dep inside the 1 GiB. */
#define PAGE_NEXT(va, pa) \
    (PAGE_VA + (((pa)*UINT64_C(0x9e3779b97f4a7c15) + (va)) >> 20 & (PAGE_GIB - 1)))

#endif
