/* pagetable_bare.c - the floor: loops over leaf tables that were found in advance, one 64-bit store
 * an entry, no check; for single pages a walk by hand. x86_64, four levels. */
#include "../pagetable.h"

#include <string.h>

#define ADDRESS UINT64_C(0x000ffffffffff000)
#define LEAVES  512 /* leaf tables of the 1 GiB */

typedef volatile uint64_t entry; /* one store an entry, as hardware wants it */

static uint64_t root;
static entry *leaf_table[LEAVES];

static entry *at(uint64_t table)
{
    return (entry *)(void *)(page_pool + (table & ADDRESS));
}

static uint64_t fresh(void)
{
    uint64_t table = page_take();
    memset(page_pool + table, 0, 4096);
    return table | 7;
}

/* The entry of this level for va, with tables made on the way. */
static entry *walk(uint64_t va, int level)
{
    entry *e = at(root) + (va >> 39 & 511);
    for (int l = 3; l > level; l--) {
        if (*e == 0)
            *e = fresh();
        e = at(*e) + (va >> (12 + 9 * (l - 1)) & 511);
    }
    return e;
}

static void bare_open(void)
{
    root = page_take();
    memset(page_pool + root, 0, 4096);
    for (int i = 0; i < LEAVES; i++)
        leaf_table[i] = walk(PAGE_VA + (uint64_t)i * 512 * 4096, 0);
}

static void free_below(uint64_t table, int level)
{
    entry *e = at(table);
    for (int i = 0; level > 0 && i < 512; i++)
        if (e[i] != 0 && (e[i] & 0x80) == 0)
            free_below(e[i], level - 1);
    page_give(table & ADDRESS);
}

static void bare_close(void)
{
    for (int i = 0; i < LEAVES; i++) /* large leaves may stand in their place */
        *walk(PAGE_VA + (uint64_t)i * 512 * 4096, 1) =
            (uint64_t)((unsigned char *)(uintptr_t)leaf_table[i] - page_pool) | 7;
    free_below(root, 3);
}

static void bare_map(uint64_t va, uint64_t pa, uint64_t bytes, int level)
{
    uint64_t e = pa | 0x63;
    if (level == 1) {
        entry *t = walk(va, 1);
        for (uint64_t i = 0; i < bytes >> 21; i++, e += 1 << 21)
            t[i] = e | 0x80;
        return;
    }
    for (uint64_t n = 0; n < bytes >> 21; n++) {
        entry *t = leaf_table[n];
        for (int i = 0; i < 512; i++, e += 4096)
            t[i] = e;
    }
}

static void bare_protect(uint64_t va, uint64_t bytes)
{
    (void)va;
    for (uint64_t n = 0; n < bytes >> 21; n++)
        for (int i = 0; i < 512; i++)
            leaf_table[n][i] &= ~UINT64_C(2);
}

static void bare_unmap(uint64_t va, uint64_t bytes)
{
    (void)va;
    for (uint64_t n = 0; n < bytes >> 21; n++)
        for (int i = 0; i < 512; i++)
            leaf_table[n][i] = 0;
}

static inline uint64_t translated(uint64_t va)
{
    uint64_t e = at(root)[va >> 39 & 511];
    e = at(e)[va >> 30 & 511];
    e = at(e)[va >> 21 & 511];
    e = at(e)[va >> 12 & 511];
    return (e & ADDRESS) | (va & 4095);
}

static uint64_t bare_translate(const uint64_t *va, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += translated(va[i]);
    return sum;
}

static uint64_t bare_translate_dep(uint64_t va, size_t n)
{
    for (size_t i = 0; i < n; i++)
        va = PAGE_NEXT(va, translated(va));
    return va;
}

/* Begins to load the entry of this level for va, if its table is there. */
static inline void look(uint64_t va, int level)
{
    entry *e = at(root) + (va >> 39 & 511);
    for (int l = 3; l > level; l--) {
        uint64_t table = *e;
        if (table == 0)
            return;
        e = at(table) + (va >> (12 + 9 * (l - 1)) & 511);
    }
    __builtin_prefetch((const void *)e, 1);
}

/* Before the page number i has its turn. */
static inline void look_ahead(const uint64_t *va, size_t i, size_t n, int how)
{
    if ((how & PAGE_BULK) != 0 && i + 2 * PAGE_AHEAD < n)
        look(va[i + 2 * PAGE_AHEAD], 1);
    if ((how & (PAGE_BULK | PAGE_LOOK)) != 0 && i + PAGE_AHEAD < n)
        look(va[i + PAGE_AHEAD], 0);
}

static void bare_map_each(const uint64_t *va, size_t n, int how)
{
    for (size_t i = 0; i < n; i++) {
        look_ahead(va, i, n, how);
        *walk(va[i], 0) = (PAGE_PA + i * 4096) | 0x63;
    }
}

static void bare_unmap_each(const uint64_t *va, size_t n, int how)
{
    for (size_t i = 0; i < n; i++) {
        look_ahead(va, i, n, how);
        *walk(va[i], 0) = 0;
    }
}

extern const struct page_ops page_ops_bare;
const struct page_ops page_ops_bare = {"bare",         "bare stores into tables found in advance",
                                       bare_open,      bare_close,
                                       bare_map,       bare_protect,
                                       bare_unmap,     NULL,
                                       bare_translate, bare_translate_dep,
                                       bare_map_each,  bare_unmap_each};
