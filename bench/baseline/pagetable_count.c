/* pagetable_count.c - the floor of single pages whose tables are freed when they get empty: a walk
 * by hand without checks, the number of a table's entries in the ignored bits 52 to 62 of the entry
 * that leads to it. x86_64, four levels. */
#include "../pagetable.h"

#include <string.h>

#define ADDRESS UINT64_C(0x000ffffffffff000)
#define ONE     (UINT64_C(1) << 52)
#define COUNT   (UINT64_C(0x7ff) << 52)

typedef volatile uint64_t entry;

static uint64_t root;

static entry *at(uint64_t table, uint64_t va, int level)
{
    return (entry *)(void *)(page_pool + (table & ADDRESS)) + (va >> (12 + 9 * level) & 511);
}

/* A table for `e`, which is one more entry of the table that `above` leads to. */
static inline void make(entry *above, entry *e)
{
    uint64_t table = page_take();
    memset(page_pool + table, 0, 4096);
    *above += ONE;
    *e = table | 7;
}

static void map_one(uint64_t va, uint64_t pa)
{
    entry top = root, *e3 = at(root, va, 3), *e2, *e1;
    if (*e3 == 0)
        make(&top, e3);
    e2 = at(*e3, va, 2);
    if (*e2 == 0)
        make(e3, e2);
    e1 = at(*e2, va, 1);
    if (*e1 == 0)
        make(e2, e1);
    *at(*e1, va, 0) = pa | 0x63;
    *e1 += ONE;
}

/* An entry went out of the table that `above` leads to. True if the table went too. */
static inline int shrink(entry *above)
{
    uint64_t e = *above - ONE;
    if ((e & COUNT) != 0) {
        *above = e;
        return 0;
    }
    *above = 0;
    page_give(e & ADDRESS);
    return 1;
}

static void unmap_one(uint64_t va)
{
    entry *e3 = at(root, va, 3), *e2 = at(*e3, va, 2), *e1 = at(*e2, va, 1);
    *at(*e1, va, 0) = 0;
    if (shrink(e1) && shrink(e2))
        shrink(e3);
}

static void count_open(void)
{
    root = page_take();
    memset(page_pool + root, 0, 4096);
}

static void count_close(void)
{
    page_give(root);
}

static uint64_t count_translate(const uint64_t *va, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t e = *at(*at(*at(*at(root, va[i], 3), va[i], 2), va[i], 1), va[i], 0);
        sum += (e & ADDRESS) | (va[i] & 4095);
    }
    return sum;
}

static void count_map_each(const uint64_t *va, size_t n, int how)
{
    (void)how;
    for (size_t i = 0; i < n; i++)
        map_one(va[i], PAGE_PA + i * 4096);
}

static void count_unmap_each(const uint64_t *va, size_t n, int how)
{
    (void)how;
    for (size_t i = 0; i < n; i++)
        unmap_one(va[i]);
}

extern const struct page_ops page_ops_count;
const struct page_ops page_ops_count = {.name = "bare+count",
                                        .title = "bare walks that count entries and free tables",
                                        .open = count_open,
                                        .close = count_close,
                                        .translate = count_translate,
                                        .map_each = count_map_each,
                                        .unmap_each = count_unmap_each};
