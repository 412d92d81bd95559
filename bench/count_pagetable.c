/* count_pagetable.c - single pages of mm_pagetable.h under callgrind: x86_64, four levels, with the
 * default lock
 *
 * Each operation is a function of the page's number; every call goes through count_op(), whose
 * inclusive cost callgrind knows. The pages lie scattered in 128 GiB, so that nearly each has a
 * leaf table of its own; PER_TABLE of them are neighbours. */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_STATIC
#include "mm_pagetable.h"

#include "count.h"
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#define TABLES    64u
#define PER_TABLE 16u
#define COUNT     (TABLES * PER_TABLE)
#define POOL      512u
#define LOOP      64u /* translations, or pages, in a call */
#define RW        (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE)

static struct mm_pagetable pt;
static struct mm_pagetable_batch batch;
static struct mm_pagetable_cursor cursor;
static unsigned char *room;
static uint32_t pool_free[POOL], pool_count;
static mm_va_t page[COUNT];
static mm_pa_t frame[COUNT];
static uint64_t sum;
static uint32_t wrong;

static mm_pa_t take(void *ctx, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    return (mm_pa_t)pool_free[--pool_count] * 4096;
}

static void give(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    pool_free[pool_count++] = (uint32_t)(table / 4096);
}

static void flush(void *ctx, const struct mm_pagetable_flush *f)
{
    (void)ctx;
    (void)f;
}

static void release(void *ctx, const struct mm_pagetable_extent *extent)
{
    *(uint64_t *)ctx += extent->bytes;
}

static const struct mm_pagetable_hooks hooks = {
    .ctx = &sum, .alloc = take, .free = give, .flush = flush, .release = release};
/* Frames are the caller's matter: for the cursor, as in the benchmark. */
static const struct mm_pagetable_hooks hooks_bare = {
    .ctx = &sum, .alloc = take, .free = give, .flush = flush};

/* ---- operations ---- */

/* What counting and finding the page's address cost. */
static void op_empty(uint32_t i)
{
    sum += page[i];
}

/* In a loop, as it is meant to be used: the table's fields stay in registers. */
static void op_translate(uint32_t i)
{
    uint64_t all = 0;
    for (uint32_t k = i & ~(LOOP - 1); k < (i | (LOOP - 1)) + 1; k++)
        all += mm_pagetable_translate(&pt, page[k]);
    sum += all;
}

/* The same loop without it: an address is read and added. */
static void op_loop(uint32_t i)
{
    uint64_t all = 0;
    for (uint32_t k = i & ~(LOOP - 1); k < (i | (LOOP - 1)) + 1; k++) {
        uint64_t va = page[k];
        __asm__("" : "+r"(va)); /* one at a time */
        all += va;
    }
    sum += all;
}

static void op_translate_alone(uint32_t i)
{
    sum += mm_pagetable_translate(&pt, page[i]);
}

static void op_map(uint32_t i)
{
    wrong += mm_pagetable_map(&pt, page[i], i * 4096ull, 4096, RW, 0, &batch) != MM_OK;
}

static void op_map_alone(uint32_t i)
{
    wrong += mm_pagetable_map(&pt, page[i], i * 4096ull, 4096, RW, 0, NULL) != MM_OK;
}

static void op_protect(uint32_t i)
{
    wrong += mm_pagetable_protect(&pt, page[i], 4096, MM_PAGETABLE_READ, MM_PAGETABLE_PERMS,
                                  &batch) != MM_OK;
}

static void op_unmap(uint32_t i)
{
    wrong += mm_pagetable_unmap(&pt, page[i], 4096, &batch) != MM_OK;
}

static void op_unmap_alone(uint32_t i)
{
    wrong += mm_pagetable_unmap(&pt, page[i], 4096, NULL) != MM_OK;
}

static void op_cursor_map(uint32_t i)
{
    wrong += mm_pagetable_cursor_seek(&cursor, page[i]) != MM_OK;
    wrong += mm_pagetable_cursor_map(&cursor, i * 4096ull, RW) != MM_OK;
}

static void op_cursor_unmap(uint32_t i)
{
    wrong += mm_pagetable_cursor_seek(&cursor, page[i]) != MM_OK;
    wrong += mm_pagetable_cursor_unmap(&cursor) != MM_OK;
}

static void op_map_at(uint32_t i)
{
    wrong += mm_pagetable_cursor_map_at(&cursor, page[i], i * 4096ull, RW) != MM_OK;
}

static void op_unmap_at(uint32_t i)
{
    wrong += mm_pagetable_cursor_unmap_at(&cursor, page[i]) != MM_OK;
}

/* The first of LOOP pages stands for all of them. */
static void op_map_bulk(uint32_t i)
{
    if (i % LOOP == 0)
        wrong += mm_pagetable_cursor_map_bulk(&cursor, &page[i], &frame[i], LOOP, RW, NULL) != LOOP;
}

static void op_unmap_bulk(uint32_t i)
{
    if (i % LOOP == 0)
        wrong += mm_pagetable_cursor_unmap_bulk(&cursor, &page[i], LOOP, NULL) != LOOP;
}

/* ---- rows ---- */

/* Which tables stand before: with those of pages above them, each leaf table has one entry more
 * than are counted, and stays. */
static const struct table_row {
    const char *name;
    void (*op)(uint32_t i);
    int mapped, kept, cursor;
} rows[] = {
    {"empty", op_empty, 0, 0, 0},
    {"loop", op_loop, 0, 0, 0},
    {"translate", op_translate, 1, 0, 0},
    {"translate.alone", op_translate_alone, 1, 0, 0},
    {"map", op_map, 0, 1, 0},
    {"map.alone", op_map_alone, 0, 1, 0},
    {"map.cursor", op_cursor_map, 0, 1, 1},
    {"map.at", op_map_at, 0, 1, 1},
    {"map.bulk", op_map_bulk, 0, 1, 1},
    {"map.tables", op_map, 0, 0, 0},
    {"protect", op_protect, 1, 0, 0},
    {"unmap", op_unmap, 1, 1, 0},
    {"unmap.alone", op_unmap_alone, 1, 1, 0},
    {"unmap.cursor", op_cursor_unmap, 1, 1, 1},
    {"unmap.at", op_unmap_at, 1, 1, 1},
    {"unmap.bulk", op_unmap_bulk, 1, 1, 1},
    {"unmap.tables", op_unmap, 1, 0, 0},
    {"unmap.at.tables", op_unmap_at, 1, 0, 1},
    {"unmap.bulk.tables", op_unmap_bulk, 1, 0, 1},
};

__attribute__((noinline)) static void count_op(void (*op)(uint32_t), uint32_t i)
{
    op(i);
    __asm__ volatile(""); /* no tail call: the callee's cost shall be in here */
}

static void choose_pages(void)
{
    uint64_t rng = 11;
    for (uint32_t i = 0; i < TABLES; i++)
        for (uint32_t k = 0; k < PER_TABLE; k++) /* the neighbours do not follow each other */
            page[k * TABLES + i] =
                k == 0 ? (next_random(&rng) % (UINT64_C(128) << 30) & ~UINT64_C(0x1fffff)) + 0x8000
                       : page[i] + k * 0x2000;
}

static void prepare(const struct table_row *row)
{
    struct mm_pagetable_config config;

    pool_count = 0;
    for (uint32_t i = POOL; i > 0; i--)
        pool_free[pool_count++] = i - 1;
    (void)mm_pagetable_config_init(&config, NULL, row->cursor ? &hooks_bare : &hooks,
                                   (uintptr_t)room);
    (void)mm_pagetable_init(&pt, &config);
    mm_pagetable_batch_init(&batch, &pt, NULL, 0);
    for (uint32_t i = 0; row->kept && i < TABLES; i++) {
        (void)mm_pagetable_map(&pt, page[i] - 0x8000, 0, 4096, RW, 0, NULL);
        (void)mm_pagetable_map(&pt, page[i] - 0x6000, 0, 4096, RW, 0, NULL);
    }
    for (uint32_t i = 0; row->mapped && i < COUNT; i++)
        op_map_alone(i);
}

void count_pagetable(void)
{
    char name[64];

    room = aligned_alloc(4096, POOL * 4096ul);
    choose_pages();
    for (uint32_t i = 0; i < COUNT; i++)
        frame[i] = i * 4096ull;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        /* where tables come and go, only the first page of each */
        uint32_t n = strstr(rows[r].name, ".tables") != NULL ? TABLES : COUNT;
        prepare(&rows[r]);
        for (uint32_t i = n; rows[r].mapped && i < COUNT && n == TABLES; i++)
            op_unmap_alone(i);
        if (rows[r].cursor)
            (void)mm_pagetable_cursor_begin(&cursor, &pt, 0, UINT64_C(1) << 40, &batch);
        CALLGRIND_START_INSTRUMENTATION;
        for (uint32_t i = 0; i < n; i++)
            count_op(rows[r].op, i);
        CALLGRIND_STOP_INSTRUMENTATION;
        snprintf(name, sizeof name, "%s/pagetable", rows[r].name);
        CALLGRIND_DUMP_STATS_AT(name);
        if (rows[r].cursor)
            mm_pagetable_cursor_end(&cursor);
        mm_pagetable_batch_finish(&batch);
        (void)mm_pagetable_destroy(&pt, false);
    }
    if (wrong != 0) {
        fprintf(stderr, "count: %u calls of mm_pagetable.h failed\n", wrong);
        exit(1);
    }
    free(room);
}
