/* work_heap.c - byte sizes: the heap face of mm_buddy beside a first-fit list, in nanoseconds for
 * alloc and free
 *
 * Each object's first word is written after the allocation and compared before the free. */
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>

#define OBJECTS 1000
#define LIVE    2000
#define SIZES   4096

/* ---- sizes as in kernels: few large ones, most below 256 bytes ---- */

static uint16_t sizes[SIZES];

static void make_sizes(void)
{
    static const struct {
        uint16_t low, high, percent;
    } shares[] = {{7, 16, 10},   {17, 32, 22},   {33, 64, 26},    {65, 128, 18},  {129, 256, 12},
                  {257, 512, 5}, {513, 1024, 4}, {1025, 2048, 2}, {2049, 4096, 1}};
    uint64_t rng = 5;
    unsigned n = 0, percent = 0;
    for (unsigned s = 0; s < sizeof shares / sizeof shares[0]; s++) {
        uint32_t span = shares[s].high - shares[s].low + 1u;
        for (percent += shares[s].percent; n < SIZES * percent / 100; n++)
            sizes[n] = (uint16_t)(shares[s].low + below(next_random(&rng), span));
    }
    for (unsigned i = 0; i < SIZES; i++) {
        unsigned j = below(next_random(&rng), i + 1);
        uint16_t size = sizes[i];
        sizes[i] = sizes[j];
        sizes[j] = size;
    }
}

/* ---- one allocation, one free ---- */

/* Not 0 if an object's first word did not stay as it was written. */
static uint32_t damage;

struct heap_run {
    const struct bench_heap_ops *ops;
    void *self;
};

static struct heap_run heap_open(const struct bench_heap_ops *ops)
{
    if (sizes[0] == 0)
        make_sizes();
    struct heap_run h = {ops, bench_heap_memory(ops)};
    damage = 0;
    return h;
}

static inline void *take(struct heap_run h, size_t bytes)
{
    uint32_t *p = h.ops->alloc(h.self, bytes);
    if (p == NULL) {
        fprintf(stderr, "bench: %s has no %zu bytes left\n", h.ops->name, bytes);
        exit(1);
    }
    *p = (uint32_t)(uintptr_t)p;
    return p;
}

static inline void give(struct heap_run h, void *p)
{
    damage |= *(uint32_t *)p ^ (uint32_t)(uintptr_t)p;
    h.ops->free(h.self, p);
}

/* ---- workloads ---- */

static void run_pair64(gb_state *st, const struct bench_heap_ops *ops)
{
    struct heap_run h = heap_open(ops);
    while (gb_keep_running_batch(st, 512))
        for (int i = 0; i < 512; i++)
            give(h, take(h, 64));
}

static void run_pairmix(gb_state *st, const struct bench_heap_ops *ops)
{
    struct heap_run h = heap_open(ops);
    while (gb_keep_running_batch(st, SIZES))
        for (int i = 0; i < SIZES; i++)
            give(h, take(h, sizes[i]));
}

/* 1,000 objects of 64 bytes, then freed in the order that `order` gives. */
static void run_ordered(gb_state *st, const struct bench_heap_ops *ops, const uint16_t *order)
{
    static void *objects[OBJECTS];
    struct heap_run h = heap_open(ops);
    while (gb_keep_running_batch(st, OBJECTS)) {
        for (int i = 0; i < OBJECTS; i++)
            objects[i] = take(h, 64);
        for (int i = 0; i < OBJECTS; i++)
            give(h, objects[order[i]]);
    }
}

static void run_fifo(gb_state *st, const struct bench_heap_ops *ops)
{
    uint16_t order[OBJECTS];
    for (uint16_t i = 0; i < OBJECTS; i++)
        order[i] = i;
    run_ordered(st, ops, order);
}

static void run_lifo(gb_state *st, const struct bench_heap_ops *ops)
{
    uint16_t order[OBJECTS];
    for (uint16_t i = 0; i < OBJECTS; i++)
        order[i] = (uint16_t)(OBJECTS - 1 - i);
    run_ordered(st, ops, order);
}

static void run_rand(gb_state *st, const struct bench_heap_ops *ops)
{
    uint16_t order[OBJECTS];
    uint64_t rng = 9;
    for (uint16_t i = 0; i < OBJECTS; i++) {
        uint32_t j = below(next_random(&rng), i + 1u);
        order[i] = order[j];
        order[j] = i;
    }
    run_ordered(st, ops, order);
}

/* 2,000 live objects; each step frees a random one and allocates another in its place. */
static void run_mixed2k(gb_state *st, const struct bench_heap_ops *ops)
{
    static void *live[LIVE];
    struct heap_run h = heap_open(ops);
    uint64_t rng = 3;
    for (int i = 0; i < LIVE; i++)
        live[i] = take(h, sizes[i]);
    while (gb_keep_running_batch(st, 512)) {
        for (int i = 0; i < 512; i++) {
            uint64_t random = next_random(&rng);
            void **slot = &live[below(random, LIVE)];
            give(h, *slot);
            *slot = take(h, sizes[(random >> 19) % SIZES]);
        }
    }
}

const char *heap_failure(void)
{
    return damage == 0 ? NULL : "an object was damaged while it was held";
}

const struct heap_row heap_rows[] = {
    {"heap.pair64", 1 << 19, run_pair64},
    {"heap.pairmix", 1 << 18, run_pairmix},
    {"heap.lifo", 200000, run_lifo},
    {"heap.fifo", 200000, run_fifo},
    {"heap.rand", 50000, run_rand},
    {"heap.mixed2k", 1 << 16, run_mixed2k},
    {0},
};
