/* pagetable_count.c - the floor of single pages whose tables are freed when they get empty: a walk
 * by hand, the number of a table's entries in the ignored bits 52 to 62 of the entry that leads to
 * it. x86_64, four levels. It stores without a look at what was there; pagetable_check.c looks. */
#include "../pagetable.h"

#include <string.h>

#ifndef CHECK
#define CHECK       0
#define COUNT_NAME  "bare+count"
#define COUNT_TITLE "bare walks that count entries and free tables"
#define COUNT_OPS   page_ops_count
#endif

#define ADDRESS UINT64_C(0x000ffffffffff000)
#define ONE     (UINT64_C(1) << 52)
#define COUNT   (UINT64_C(0x7ff) << 52)

typedef volatile uint64_t entry;

static uint64_t root, refused;

static entry *at(uint64_t table, uint64_t va, int level)
{
    return (entry *)(void *)(page_pool + (table & ADDRESS)) + (va >> (12 + 9 * level) & 511);
}

/* A table for `e`, which is one more entry of the table that `above` leads to. */
static inline uint64_t make(entry *above, entry *e)
{
    uint64_t table = page_take();
    memset(page_pool + table, 0, 4096);
    *above += ONE;
    return *e = table | 7;
}

static inline void map_one(uint64_t va, uint64_t pa, int how)
{
    entry top = root, *e3 = at(root, va, 3), *e2, *e1, *e0;
    uint64_t v = *e3;
    e2 = at(v != 0 ? v : make(&top, e3), va, 2);
    v = *e2;
    e1 = at(v != 0 ? v : make(e3, e2), va, 1);
    v = *e1;
    v = v != 0 ? v : make(e2, e1);
    e0 = at(v, va, 0);
    if (CHECK && *e0 != 0) {
        refused++;
        return;
    }
    *e0 = pa | 0x63;
    if ((how & PAGE_KEEP) == 0)
        *e1 = v + ONE;
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

static inline void unmap_one(uint64_t va, int how)
{
    entry *e3 = at(root, va, 3), *e2, *e1, *e0;
    uint64_t v = *e3;
    if (CHECK && v == 0)
        goto hole;
    e2 = at(v, va, 2);
    v = *e2;
    if (CHECK && v == 0)
        goto hole;
    e1 = at(v, va, 1);
    v = *e1;
    if (CHECK && v == 0)
        goto hole;
    e0 = at(v, va, 0);
    if (CHECK && *e0 == 0)
        goto hole;
    *e0 = 0;
    if ((how & PAGE_KEEP) == 0 && shrink(e1) && shrink(e2))
        shrink(e3);
    return;
hole:
    refused++;
}

static void count_open(void)
{
    root = page_take();
    memset(page_pool + root, 0, 4096);
}

static void free_below(uint64_t table, int level)
{
    entry *e = at(table, 0, 0);
    for (int i = 0; level > 0 && i < 512; i++)
        if (e[i] != 0)
            free_below(e[i], level - 1);
    page_give(table & ADDRESS);
}

static void count_close(void)
{
    free_below(root, 3);
}

static uint64_t count_translate(const uint64_t *va, size_t n)
{
    uint64_t sum = refused; /* none, so that it is known */
    for (size_t i = 0; i < n; i++) {
        uint64_t e = *at(*at(*at(*at(root, va[i], 3), va[i], 2), va[i], 1), va[i], 0);
        sum += (e & ADDRESS) | (va[i] & 4095);
    }
    return sum;
}

/* Begins to load the entry of this level for va, if its table is there. */
static inline void look(uint64_t va, int level)
{
    uint64_t e = root;
    for (int l = 3; l > level; l--) {
        e = *at(e, va, l);
        if (e == 0)
            return;
    }
    __builtin_prefetch((const void *)at(e, va, level), 1);
}

/* Before the page number i has its turn. */
static inline void look_ahead(const uint64_t *va, size_t i, size_t n, int how)
{
    if ((how & PAGE_BULK) != 0 && i + 2 * PAGE_AHEAD < n)
        look(va[i + 2 * PAGE_AHEAD], 1);
    if ((how & (PAGE_BULK | PAGE_LOOK)) != 0 && i + PAGE_AHEAD < n)
        look(va[i + PAGE_AHEAD], 0);
}

static void count_map_each(const uint64_t *va, size_t n, int how)
{
    for (size_t i = 0; i < n; i++) {
        look_ahead(va, i, n, how);
        map_one(va[i], PAGE_PA + i * 4096, how);
    }
}

static void count_unmap_each(const uint64_t *va, size_t n, int how)
{
    for (size_t i = 0; i < n; i++) {
        look_ahead(va, i, n, how);
        unmap_one(va[i], how);
    }
}

extern const struct page_ops COUNT_OPS;
const struct page_ops COUNT_OPS = {.name = COUNT_NAME,
                                   .title = COUNT_TITLE,
                                   .open = count_open,
                                   .close = count_close,
                                   .translate = count_translate,
                                   .map_each = count_map_each,
                                   .unmap_each = count_unmap_each};
