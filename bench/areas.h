/* areas.h - the table of functions that a map of areas fills in, for the rows a_ to h_ */
#ifndef BENCH_AREAS_H
#define BENCH_AREAS_H

#include "gbench.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An area as the workloads know it: 64 bytes, its place in memory random, in pages. What comes
 * behind `flags` is the map's own; mm_vma's areas begin alike. */
struct area {
    uint64_t start, end;
    uint32_t flags, gap, longest, unused;
    uint64_t own[4];
} __attribute__((aligned(64)));

#define AREA_NONE UINT64_MAX

struct area_ops {
    const char *name, *title;
    size_t most; /* areas at most */
    void *(*create)(size_t areas);
    void (*destroy)(void *map);
    /* the map */
    void (*insert)(void *map, struct area *a); /* into free pages */
    void (*erase)(void *map, struct area *a);
    int (*flags)(void *map, uint64_t page);         /* of the area there, or -1 */
    struct area *(*from)(void *map, uint64_t page); /* first that ends behind the page, or NULL */
    uint64_t (*gap_up)(void *map, uint64_t from, uint64_t pages); /* lowest place from there on */
    uint64_t (*gap_down)(void *map, uint64_t below, uint64_t pages); /* highest place below */
    uint64_t (*walk)(void *map);                                     /* sum of all areas' flags */
    void *(*dup)(void *map, struct area *objects); /* a copy, its areas taken from `objects` */
    void (*dup_destroy)(void *map);
    size_t (*bytes)(void *map); /* of the map beside the areas */
    /* bounds moved, order unchanged */
    void (*resized)(void *map, struct area *a, uint64_t start, uint64_t end);
    /* whole calls, where the map has its own; else they are built from the functions above */
    uint64_t (*call_map)(void *map, uint64_t start, uint64_t pages, unsigned prot, uint64_t window);
    void (*call_unmap)(void *map, uint64_t start, uint64_t pages);
    void (*call_protect)(void *map, uint64_t start, uint64_t pages, unsigned prot);
    void *(*call_create)(size_t areas, uint64_t window);
    void (*call_destroy)(void *map);
    struct area *(*call_from)(void *map, uint64_t page, uint64_t *start, uint64_t *end);
};

extern const struct area_ops *const bench_area_maps[];

struct area_row {
    const char *name;
    size_t areas;
    int64_t iterations;
    void (*run)(gb_state *st, const struct area_row *row, const struct area_ops *ops);
};
extern const struct area_row area_rows[];

/* Rows that are mm_vma's alone: see work_vma.c. */
void run_vma_trace(gb_state *st, const struct area_row *row, const struct area_ops *ops);
void run_vma_faults(gb_state *st, const struct area_row *row, const struct area_ops *ops);

/* Objects in random memory order, for the maps that split areas; never more than twice the
 * areas. */
struct area *area_take(void);
void area_give(struct area *a);

static inline struct area *area_fresh(uint64_t start, uint64_t end, uint32_t flags)
{
    struct area *a = area_take();

    a->start = start;
    a->end = end;
    a->flags = flags;
    return a;
}

/* An object and its flags in a word: objects are aligned, flags are below 8. */
#define AREA_WORD_FLAGS ((uintptr_t)sizeof(struct area) - 1)

static inline uintptr_t area_word(const struct area *a)
{
    return (uintptr_t)a | a->flags;
}

static inline struct area *area_of_word(uintptr_t word)
{
    return (struct area *)(word & ~AREA_WORD_FLAGS);
}

#ifdef __cplusplus
}
#endif

#endif
