/* adapt_vma.c - mm_vma.h for the rows of areas: its map by itself, and whole calls on a space */
#include "areas.h"

#include <stdlib.h>
#include <string.h>

#define MM_VMA_IMPLEMENTATION
#include "mm_vma.h"

_Static_assert(sizeof(struct mm_vma) == sizeof(struct area), "an area is an area");

/* ---- nodes: blocks that grow with the map ---------------------------------------------------- */

/* Blocks lie in the list that the next one heads. */
struct block {
    struct block *next;
    _Alignas(64) struct mm_vma_node nodes[];
};

struct pool {
    struct mm_vma_node *free;
    struct block *blocks;
    unsigned count;
};

static struct mm_vma_node *node_alloc(void *ctx)
{
    struct pool *p = ctx;
    struct mm_vma_node *node = p->free;

    if (node == NULL) {
        size_t n = p->count < 8 ? (size_t)2 << p->count++ : 256;
        struct block *block = aligned_alloc(64, sizeof *block + n * sizeof *node);

        block->next = p->blocks;
        p->blocks = block;
        for (size_t i = 0; i < n; i++) {
            block->nodes[i].u.next = p->free;
            p->free = &block->nodes[i];
        }
        node = p->free;
    }
    p->free = node->u.next;
    return node;
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    struct pool *p = ctx;

    node->u.next = p->free;
    p->free = node;
}

static void pool_drop(struct pool *p)
{
    while (p->blocks != NULL) {
        struct block *block = p->blocks;

        p->blocks = block->next;
        free(block);
    }
}

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    return (struct mm_vma *)(void *)area_take();
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    area_give((struct area *)(void *)vma);
}

/* ---- the map --------------------------------------------------------------------------------- */

struct bench_map {
    struct mm_vma_map map;
    struct mm_vma_node_source source;
    struct pool pool;
};

static void *create(size_t areas)
{
    struct bench_map *m = calloc(1, sizeof *m);

    (void)areas;
    m->source.ctx = &m->pool;
    m->source.alloc = node_alloc;
    m->source.free = node_free;
    mm_vma_map_init(&m->map, &m->source);
    return m;
}

static void destroy(void *map)
{
    struct bench_map *m = map;

    pool_drop(&m->pool);
    free(m);
}

static struct mm_vma *vma_of(struct area *a)
{
    return (struct mm_vma *)(void *)a;
}

static void insert(void *map, struct area *a)
{
    if (mm_vma_map_insert(&((struct bench_map *)map)->map, vma_of(a)) != MM_OK)
        abort();
}

static void erase(void *map, struct area *a)
{
    if (mm_vma_map_erase(&((struct bench_map *)map)->map, vma_of(a)) != MM_OK)
        abort();
}

static int flags(void *map, uint64_t page)
{
    return mm_vma_map_access(&((struct bench_map *)map)->map, page << 12);
}

static uint64_t gap_up(void *map, uint64_t from, uint64_t pages)
{
    mm_va_t va = 0;

    if (mm_vma_map_lowest(&((struct bench_map *)map)->map, from << 12, UINT64_MAX, pages << 12, 0,
                          &va) != MM_OK)
        return AREA_NONE;
    return va >> 12;
}

static uint64_t gap_down(void *map, uint64_t below, uint64_t pages)
{
    mm_va_t va = 0;

    if (mm_vma_map_highest(&((struct bench_map *)map)->map, 0, below << 12, pages << 12, 0, &va) !=
        MM_OK)
        return AREA_NONE;
    return va >> 12;
}

static uint64_t walk(void *map)
{
    struct mm_vma_cursor c;
    uint64_t sum = 0;

    for (struct mm_vma *v = mm_vma_cursor_seek(&c, &((struct bench_map *)map)->map, 0); v != NULL;
         v = mm_vma_cursor_next(&c))
        sum += mm_vma_cursor_access(&c);
    return sum;
}

static struct mm_vma *dup_area(void *ctx, struct mm_vma *vma, bool *failed)
{
    struct area **next = ctx;
    struct mm_vma *twin = vma_of((*next)++);

    (void)failed;
    *twin = *vma;
    return twin;
}

static void *dup(void *map, struct area *objects)
{
    struct bench_map *m = map, *d = create(0);

    if (mm_vma_map_dup(&d->map, &m->map, dup_area, &objects) != MM_OK)
        abort();
    return d;
}

static size_t bytes(void *map)
{
    struct bench_map *m = map;

    return (m->map.nodes + m->map.pooled) * sizeof(struct mm_vma_node);
}

/* ---- whole calls ----------------------------------------------------------------------------- */

struct bench_space {
    struct mm_vma_space space;
    struct mm_vma_system sys;
    struct pool pool;
};

static void *call_create(size_t areas, uint64_t window)
{
    struct bench_space *s = aligned_alloc(64, sizeof *s);
    struct mm_vma_config config;
    struct mm_vma_hooks h;

    (void)areas;
    memset(s, 0, sizeof *s);
    memset(&h, 0, sizeof h);
    h.nodes.ctx = &s->pool;
    h.nodes.alloc = node_alloc;
    h.nodes.free = node_free;
    h.area_alloc = area_alloc;
    h.area_free = area_free;
    mm_vma_config_init(&config);
    config.low = config.up_base = 1 << 12;
    config.top = config.mmap_base = (1 + window) << 12;
    config.guard_pages = 0;
    if (mm_vma_system_init(&s->sys, &h) != MM_OK ||
        mm_vma_space_init(&s->space, &s->sys, &config) != MM_OK)
        abort();
    return s;
}

static void call_destroy(void *map)
{
    struct bench_space *s = map;

    mm_vma_leave(&s->space);
    pool_drop(&s->pool);
    free(s);
}

static uint64_t call_map(void *map, uint64_t start, uint64_t pages, unsigned prot, uint64_t window)
{
    struct bench_space *s = map;
    struct mm_vma_request r;
    mm_va_t va;

    (void)window;
    memset(&r, 0, sizeof r);
    r.hint = start == AREA_NONE ? 0 : start << 12;
    r.bytes = pages << 12;
    r.prot = prot;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_NORESERVE |
              (start == AREA_NONE ? 0u : MM_VMA_MAP_FIXED);
    return mm_vma_mmap(&s->space, &r, &va) == MM_VMA_OK ? va >> 12 : AREA_NONE;
}

static void call_unmap(void *map, uint64_t start, uint64_t pages)
{
    if (mm_vma_munmap(&((struct bench_space *)map)->space, start << 12, pages << 12) != MM_VMA_OK)
        abort();
}

static void call_protect(void *map, uint64_t start, uint64_t pages, unsigned prot)
{
    if (mm_vma_mprotect(&((struct bench_space *)map)->space, start << 12, pages << 12, prot) !=
        MM_VMA_OK)
        abort();
}

static struct area *call_from(void *map, uint64_t page, uint64_t *start, uint64_t *end)
{
    struct bench_space *s = map;
    struct mm_vma *vma = mmi_vma_from(&s->space, page);

    if (vma != NULL) {
        *start = vma->start;
        *end = vma->end;
    }
    return (struct area *)(void *)vma;
}

const struct area_ops bench_vma = {.name = "vma",
                                   .title = "mm_vma.h",
                                   .most = SIZE_MAX,
                                   .create = create,
                                   .destroy = destroy,
                                   .insert = insert,
                                   .erase = erase,
                                   .flags = flags,
                                   .gap_up = gap_up,
                                   .gap_down = gap_down,
                                   .walk = walk,
                                   .dup = dup,
                                   .dup_destroy = destroy,
                                   .bytes = bytes,
                                   .call_map = call_map,
                                   .call_unmap = call_unmap,
                                   .call_protect = call_protect,
                                   .call_create = call_create,
                                   .call_destroy = call_destroy,
                                   .call_from = call_from};
