/* work_pagetable.c - page tables: 1 GiB mapped, translated, protected, unmapped; single pages here
 * and there in 128 GiB */
#include "pagetable.h"
#include "rows.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES      (PAGE_GIB / 4096)
#define POOL_PAGES 18000u
#define SPARSE     16384u
#define LOOKUPS    65536u

extern const struct page_ops page_ops_bare, page_ops_walk, page_ops_count, page_ops_check,
    page_ops_x86_64, page_ops_sv39;
const struct page_ops *const bench_page_tables[] = {
#ifndef BENCH_NO_PAGETABLE
    &page_ops_x86_64, &page_ops_sv39,
#endif
    &page_ops_bare,   &page_ops_count, &page_ops_check, &page_ops_walk, NULL};

/* ---- the pool of tables ---- */

unsigned char *page_pool;
static uint32_t pool_free[POOL_PAGES], pool_count;
static uint64_t sparse[SPARSE], frames[SPARSE], lookup[LOOKUPS];
const uint64_t *page_frames = frames;
static const char *failure;

uint64_t page_take(void)
{
    return (uint64_t)pool_free[--pool_count] * 4096;
}

void page_give(uint64_t offset)
{
    pool_free[pool_count++] = (uint32_t)(offset / 4096);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Distinct random pages of 128 GiB, in random order. */
static void choose_sparse(uint64_t *rng)
{
    uint32_t n = 0;
    while (n < SPARSE) {
        while (n < SPARSE)
            sparse[n++] = next_random(rng) % (SPARSE_SPACE / 4096) * 4096;
        qsort(sparse, SPARSE, sizeof sparse[0], compare);
        n = 1;
        for (uint32_t i = 1; i < SPARSE; i++)
            if (sparse[i] != sparse[n - 1])
                sparse[n++] = sparse[i];
    }
    for (uint32_t i = SPARSE; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(rng) % i);
        uint64_t t = sparse[i - 1];
        sparse[i - 1] = sparse[j];
        sparse[j] = t;
    }
}

static void prepare(void)
{
    uint64_t rng = 11;
    if (page_pool == NULL) {
        page_pool = mmap(NULL, POOL_PAGES * 4096ul, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(page_pool, 0xa5, POOL_PAGES * 4096ul);
        choose_sparse(&rng);
        for (uint32_t i = 0; i < SPARSE; i++)
            frames[i] = PAGE_PA + i * UINT64_C(4096);
        for (uint32_t i = 0; i < LOOKUPS; i++)
            lookup[i] = PAGE_VA + next_random(&rng) % PAGE_GIB;
    }
    failure = NULL;
}

/* An empty table of a pool in which nothing was taken yet: where tables lie is the same for all. */
static void begin(const struct page_ops *ops)
{
    pool_count = 0;
    for (uint32_t i = POOL_PAGES; i > 0; i--)
        pool_free[pool_count++] = i - 1;
    ops->open();
}

const char *page_failure(void)
{
    return failure;
}

static void expect(int ok, const char *what)
{
    if (!ok)
        failure = what;
}

static uint64_t where(const struct page_ops *ops, uint64_t va)
{
    return ops->translate(&va, 1);
}

/* ---- workloads ---- */

enum { MAP, PROTECT, UNMAP, UNMAP_WHOLE };

static void timed_range(gb_state *st, const struct page_ops *ops, int level, int which)
{
    double start[5];
    begin(ops);
    start[0] = seconds_now();
    ops->map(PAGE_VA, PAGE_PA, PAGE_GIB, level);
    start[1] = seconds_now();
    expect(level != 0 || where(ops, PAGE_VA + PAGE_GIB - 5) == PAGE_PA + PAGE_GIB - 5,
           "not mapped");
    start[1] = which == PROTECT ? seconds_now() : start[1];
    if (which == PROTECT)
        ops->protect(PAGE_VA, PAGE_GIB);
    start[2] = seconds_now();
    start[3] = seconds_now();
    (which == UNMAP_WHOLE ? ops->unmap_whole : ops->unmap)(PAGE_VA, PAGE_GIB);
    start[4] = seconds_now();
    if (which == MAP)
        gb_iteration_time(st, start[1] - start[0]);
    else if (which == PROTECT)
        gb_iteration_time(st, start[2] - start[1]);
    else
        gb_iteration_time(st, start[4] - start[3]);
    ops->close();
}

static void run_range(gb_state *st, const struct page_ops *ops, const struct page_row *row)
{
    while (gb_keep_running_batch(st, PAGES))
        timed_range(st, ops, 0, row->which);
}

static void run_map2m(gb_state *st, const struct page_ops *ops, const struct page_row *row)
{
    (void)row;
    while (gb_keep_running_batch(st, PAGES / 512))
        timed_range(st, ops, 1, MAP);
}

static void run_translate(gb_state *st, const struct page_ops *ops, const struct page_row *row)
{
    uint64_t result = 0;
    begin(ops);
    ops->map(PAGE_VA, PAGE_PA, PAGE_GIB, 0);
    while (gb_keep_running_batch(st, LOOKUPS)) {
        double start = seconds_now();
        result += row->which ? ops->translate_dep(PAGE_VA + result % 2, LOOKUPS)
                             : ops->translate(lookup, LOOKUPS);
        gb_iteration_time(st, seconds_now() - start);
    }
    GB_USE(result);
    ops->unmap(PAGE_VA, PAGE_GIB);
    ops->close();
}

enum { SPMAP = 0, SPUNMAP = 16 }; /* more than PAGE_KEEP, PAGE_CALLS, PAGE_LOOK, PAGE_BULK */

/* PAGE_KEEP: all tables are there before, and stay. */
static void run_sparse(gb_state *st, const struct page_ops *ops, const struct page_row *row)
{
    int how = row->which & (SPUNMAP - 1);
    while (gb_keep_running_batch(st, SPARSE)) {
        double start, middle, end;
        begin(ops);
        if ((how & PAGE_KEEP) != 0 && row->which < SPUNMAP) {
            ops->map_each(sparse, SPARSE, how);
            ops->unmap_each(sparse, SPARSE, how);
        }
        start = seconds_now();
        ops->map_each(sparse, SPARSE, how);
        middle = seconds_now();
        expect(where(ops, sparse[77]) == PAGE_PA + 77 * 4096, "not mapped");
        end = seconds_now();
        ops->unmap_each(sparse, SPARSE, how);
        gb_iteration_time(st, row->which < SPUNMAP ? middle - start : seconds_now() - end);
        ops->close();
    }
}

static int can_range(const struct page_ops *ops)
{
    return ops->map != NULL;
}

static int can_large(const struct page_ops *ops)
{
    return ops->map != NULL && strcmp(ops->name, "walk") != 0;
}

/* Those whose tables may stay. */
static int can_keep(const struct page_ops *ops)
{
    return strcmp(ops->name, "bare+count") != 0;
}

/* Those that look ahead. */
static int can_look(const struct page_ops *ops)
{
    return strcmp(ops->name, "walk") != 0;
}

static int can_whole(const struct page_ops *ops)
{
    return ops->unmap_whole != NULL;
}

static void run_prepared(gb_state *st, const struct page_ops *ops, const struct page_row *row)
{
    static void (*const runs[])(gb_state *, const struct page_ops *, const struct page_row *) = {
        run_range, run_map2m, run_translate, run_sparse};
    prepare();
    runs[row->which >> 8](st, ops, &(struct page_row){.which = row->which & 255});
}

#define ROW(name, n, can, run, which)                    \
    {                                                    \
        name, n, can, run_prepared, (run) << 8 | (which) \
    }
const struct page_row page_rows[] = {
    ROW("map4k", 8 * PAGES, can_range, 0, MAP),
    ROW("map2m", 256 * 512, can_large, 1, MAP),
    ROW("translate", 16 * LOOKUPS, can_range, 2, 0),
    ROW("translate_dep", 16 * LOOKUPS, can_range, 2, 1),
    ROW("protect", 8 * PAGES, can_range, 0, PROTECT),
    ROW("unmap", 8 * PAGES, can_range, 0, UNMAP),
    ROW("unmap.whole", 8 * PAGES, can_whole, 0, UNMAP_WHOLE),
    ROW("spmap", 8 * SPARSE, NULL, 3, SPMAP),
    ROW("spmap.kept", 8 * SPARSE, can_keep, 3, SPMAP | PAGE_KEEP),
    ROW("spmap.bulk", 8 * SPARSE, can_look, 3, SPMAP | PAGE_BULK),
    ROW("spmap.kept.bulk", 8 * SPARSE, can_look, 3, SPMAP | PAGE_KEEP | PAGE_BULK),
    ROW("spmap.calls", 8 * SPARSE, can_whole, 3, SPMAP | PAGE_CALLS),
    ROW("spunmap", 8 * SPARSE, NULL, 3, SPUNMAP),
    ROW("spunmap.ahead", 8 * SPARSE, can_look, 3, SPUNMAP | PAGE_LOOK),
    ROW("spunmap.bulk", 8 * SPARSE, can_look, 3, SPUNMAP | PAGE_BULK),
    ROW("spunmap.kept", 8 * SPARSE, can_keep, 3, SPUNMAP | PAGE_KEEP),
    ROW("spunmap.kept.bulk", 8 * SPARSE, can_look, 3, SPUNMAP | PAGE_KEEP | PAGE_BULK),
    ROW("spunmap.calls", 8 * SPARSE, can_whole, 3, SPUNMAP | PAGE_CALLS),
    {0},
};
