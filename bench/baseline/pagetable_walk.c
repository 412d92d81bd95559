/* pagetable_walk.c - a table in the manner of small kernels: each page by a walk of its own from
 * the root, with the checks that such a walk has; tables are zeroed, and freed only at the end.
 * Sv39's three levels. */
#include "../pagetable.h"

#include <string.h>

typedef uint64_t entry;
static uint64_t root;

static entry *at(uint64_t table)
{
    return (entry *)(void *)(page_pool + (table >> 10 << 12));
}

static entry *walk(uint64_t va, int make)
{
    uint64_t table = root;
    if (va >= UINT64_C(1) << 38)
        va &= (UINT64_C(1) << 38) - 1;
    for (int level = 2; level > 0; level--) {
        entry *e = &at(table)[va >> (12 + 9 * level) & 511];
        if ((*e & 1) == 0) {
            uint64_t page;
            if (!make)
                return NULL;
            page = page_take();
            memset(page_pool + page, 0, 4096);
            *e = page >> 12 << 10 | 1;
        }
        table = *e;
    }
    return &at(table)[va >> 12 & 511];
}

static void walk_open(void)
{
    uint64_t page = page_take();
    memset(page_pool + page, 0, 4096);
    root = page >> 12 << 10;
}

static void free_below(uint64_t table, int level)
{
    for (int i = 0; level > 0 && i < 512; i++)
        if ((at(table)[i] & 1) != 0)
            free_below(at(table)[i], level - 1);
    page_give(table >> 10 << 12);
}

static void walk_close(void)
{
    free_below(root, 2);
}

static void walk_map(uint64_t va, uint64_t pa, uint64_t bytes, int level)
{
    (void)level;
    for (uint64_t i = 0; i < bytes; i += 4096) {
        entry *e = walk(va + i, 1);
        if ((*e & 1) == 0)
            *e = (pa + i) >> 12 << 10 | 0xc7;
    }
}

static void walk_protect(uint64_t va, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 4096) {
        entry *e = walk(va + i, 0);
        if (e != NULL && (*e & 1) != 0)
            *e &= ~UINT64_C(4);
    }
}

static void walk_unmap(uint64_t va, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 4096) {
        entry *e = walk(va + i, 0);
        if (e != NULL && (*e & 1) != 0)
            *e = 0;
    }
}

static uint64_t translated(uint64_t va)
{
    entry *e = walk(va, 0);
    if (e == NULL || (*e & 1) == 0)
        return UINT64_MAX;
    return *e >> 10 << 12 | (va & 4095);
}

static uint64_t walk_translate(const uint64_t *va, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += translated(va[i]);
    return sum;
}

static uint64_t walk_translate_dep(uint64_t va, size_t n)
{
    for (size_t i = 0; i < n; i++)
        va = PAGE_NEXT(va, translated(va));
    return va;
}

static void walk_map_each(const uint64_t *va, size_t n, int how)
{
    (void)how;
    for (size_t i = 0; i < n; i++)
        walk_map(va[i], PAGE_PA + i * 4096, 4096, 0);
}

static void walk_unmap_each(const uint64_t *va, size_t n, int how)
{
    (void)how;
    for (size_t i = 0; i < n; i++)
        walk_unmap(va[i], 4096);
}

extern const struct page_ops page_ops_walk;
const struct page_ops page_ops_walk = {"walk",         "a walk for each page, three levels",
                                       walk_open,      walk_close,
                                       walk_map,       walk_protect,
                                       walk_unmap,     NULL,
                                       walk_translate, walk_translate_dep,
                                       walk_map_each,  walk_unmap_each};
