/* work_order0.c - workloads of single frames on one CPU */
#include "work.h"

#include <string.h>

#define PAIRS     512
#define BATCH     64
#define TIDE      4096
#define CHURN     4096
#define TURNOVERS 16

/* ---- starting states ---- */

static void hold_1000(void)
{
    pool_hold(1000);
}

/* ---- pairs and batches ---- */

void run_pair(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    unsigned order = (unsigned)row->which;
    uint32_t frame = 0;
    while (gb_keep_running_batch(st, 2 * PAIRS)) {
        for (int i = 0; i < PAIRS; i++) {
            frame = c.alloc(c.self, order);
            c.free(c.self, frame, order);
        }
    }
    if (frame == BENCH_NONE)
        pool.failed = "an allocation failed that must not";
}

static void run_batch64(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    struct worker batch = {.held = pool.worker[0].held + pool.worker[0].nheld, .nheld = BATCH};
    (void)row;
    while (gb_keep_running_batch(st, 16 * BATCH)) {
        for (int round = 0; round < 8; round++) {
            for (int i = 0; i < BATCH; i++)
                batch.held[i] = c.alloc(c.self, 0);
            for (int i = 0; i < BATCH; i++)
                c.free(c.self, batch.held[i], 0);
        }
    }
    pool_check_held(&batch);
}

static void run_batch64_bulk(gb_state *st, const struct row *row)
{
    uint32_t got = 0;
    (void)row;
    while (gb_keep_running_batch(st, 16 * BATCH)) {
        for (int round = 0; round < 8; round++) {
            got = pool.ops->alloc_bulk(pool.self, bench_addresses, BATCH);
            pool.ops->free_bulk(pool.self, bench_addresses, BATCH);
        }
    }
    if (got != BATCH)
        pool.failed = "a bulk allocation came short";
}

/* ---- all frames ---- */

/* Adds the time of the part that the row asks for. */
static void note_parts(gb_state *st, const struct row *row, double start, double middle, double end)
{
    gb_iteration_time(st, row->which == PART_ALLOC ? middle - start : end - middle);
}

static void run_bulk0(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    uint32_t n = pool.nframes;
    uint32_t *held = pool.worker[0].held;
    while (gb_keep_running_batch(st, n)) {
        double start = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            held[i] = c.alloc(c.self, 0);
        double middle = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            c.free(c.self, held[i], 0);
        note_parts(st, row, start, middle, seconds_now());
    }
    pool.worker[0].nheld = n;
    pool_check_held(&pool.worker[0]);
    pool.worker[0].nheld = 0;
}

static void run_bulk0_bulk(gb_state *st, const struct row *row)
{
    uint32_t n = pool.nframes;
    uint32_t got = 0;
    while (gb_keep_running_batch(st, n)) {
        double start = seconds_now();
        for (uint32_t i = 0; i < n; i += BATCH)
            got += pool.ops->alloc_bulk(pool.self, bench_addresses + i, BATCH);
        double middle = seconds_now();
        for (uint32_t i = 0; i < n; i += BATCH)
            pool.ops->free_bulk(pool.self, bench_addresses + i, BATCH);
        note_parts(st, row, start, middle, seconds_now());
    }
    if (got % n != 0)
        pool.failed = "a bulk allocation came short";
}

/* All held: freed in random order, then all allocated again. */
static void run_rnd0(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    struct worker *w = &pool.worker[0];
    uint32_t n = pool.nframes;
    while (gb_keep_running_batch(st, n)) {
        double start = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            c.free(c.self, bench_random_order[i], 0);
        double middle = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            w->held[i] = c.alloc(c.self, 0);
        double end = seconds_now();
        gb_iteration_time(st, row->which == PART_FREE ? middle - start : end - middle);
    }
    pool_check_held(w);
}

/* ---- churn ---- */

static void run_mix(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    struct worker w = pool.worker[0];
    struct band band = band_around(pool.nframes / 2);
    (void)row;
    while (gb_keep_running_batch(st, CHURN))
        for (int i = 0; i < CHURN; i++)
            churn_step(c, &w, band);
    pool.worker[0] = w;
    pool_check_held(&pool.worker[0]);
}

/* Rounds of freeing random held frames and allocating as many again; which ones is decided before
 * the clock runs. */
static void run_tide(gb_state *st, const struct row *row)
{
    static uint32_t wave[TIDE];
    struct calls c = pool_calls();
    struct worker *w = &pool.worker[0];
    while (gb_keep_running_batch(st, TIDE)) {
        for (int i = 0; i < TIDE; i++)
            wave[i] = pick_held(w, next_random(&w->rng));
        double start = seconds_now();
        for (int i = 0; i < TIDE; i++)
            c.free(c.self, wave[i], 0);
        double middle = seconds_now();
        for (int i = 0; i < TIDE; i++)
            wave[i] = c.alloc(c.self, 0);
        double end = seconds_now();
        memcpy(w->held + w->nheld, wave, sizeof wave);
        w->nheld += TIDE;
        gb_iteration_time(st, row->which == PART_FREE ? middle - start : end - middle);
    }
    pool_check_held(w);
}

/* ---- healing ---- */

static void note_whole_blocks(gb_state *st, int turnover)
{
    char name[] = "whole_00";
    name[6] = (char)('0' + turnover / 10);
    name[7] = (char)('0' + turnover % 10);
    gb_counter(st, name, pool_whole_blocks(), GB_PLAIN);
}

/* Churn for 16 turnovers of one operation for each frame; after each turnover the whole blocks are
 * counted. */
static void run_healing(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    struct worker w = pool.worker[0];
    struct band band = band_around(pool.nframes / 2);
    int turnover = 0;
    (void)row;
    note_whole_blocks(st, 0);
    while (gb_keep_running_batch(st, pool.nframes)) {
        for (uint32_t i = 0; i < pool.nframes; i++)
            churn_step(c, &w, band);
        gb_pause(st);
        pool.worker[0] = w;
        note_whole_blocks(st, ++turnover);
        gb_resume(st);
    }
    pool_check_held(&pool.worker[0]);
    if (pool.ops->max_order >= BLOCK_ORDER)
        gb_counter(st, "handed_out", pool_count_blocks(), GB_PLAIN);
}

/* ---- no memory ---- */

static void run_full(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    uint32_t frame = BENCH_NONE;
    (void)row;
    while (gb_keep_running_batch(st, 16))
        for (int i = 0; i < 16; i++)
            frame &= c.alloc(c.self, 0);
    if (frame != BENCH_NONE)
        pool.failed = "an allocation succeeded where no frame is free";
}

/* ---- initialisation ---- */

static void run_init(gb_state *st, const struct row *row)
{
    const struct bench_ops *ops = pool.ops;
    (void)row;
    while (gb_keep_running(st)) {
        double start = seconds_now();
        pool_create(ops, 2);
        gb_iteration_time(st, seconds_now() - start);
    }
}

#define ALL    (1 << 21)
#define REAL   NEEDS_REAL
#define MANUAL .manual = 1

const struct row order0_rows[] = {
    {"pair0", .iterations = 1 << 21, .prepare = hold_1000, .run = run_pair},
    {"pair0half", .iterations = 1 << 21, .prepare = pool_hold_half, .run = run_pair},
    {"batch64", .iterations = 1 << 21, .run = run_batch64},
    {"batch64b", NEEDS_BULK, .iterations = 1 << 21, .run = run_batch64_bulk},
    {"bulk0.alloc", MANUAL, .iterations = ALL, .run = run_bulk0, .which = PART_ALLOC},
    {"bulk0.free", MANUAL, .iterations = ALL, .run = run_bulk0, .which = PART_FREE},
    {"bulk0b.alloc", NEEDS_BULK, MANUAL, .iterations = ALL, .run = run_bulk0_bulk,
     .which = PART_ALLOC},
    {"bulk0b.free", NEEDS_BULK, MANUAL, .iterations = ALL, .run = run_bulk0_bulk,
     .which = PART_FREE},
    {"rnd0.free", MANUAL, .iterations = ALL, .prepare = pool_hold_all, .run = run_rnd0,
     .which = PART_FREE},
    {"rnd0.refill", MANUAL, .iterations = ALL, .prepare = pool_hold_all, .run = run_rnd0,
     .which = PART_ALLOC},
    {"mix0", .iterations = 1 << 20, .prepare = pool_hold_half, .run = run_mix},
    {"mixw", .iterations = 1 << 20, .prepare = pool_worst_start, .run = run_mix},
    {"tide0.alloc", MANUAL, .iterations = 1 << 19, .prepare = pool_hold_half, .run = run_tide,
     .which = PART_ALLOC},
    {"tide0.free", MANUAL, .iterations = 1 << 19, .prepare = pool_hold_half, .run = run_tide,
     .which = PART_FREE},
    {"tidew.alloc", MANUAL, .iterations = 1 << 19, .prepare = pool_worst_start, .run = run_tide,
     .which = PART_ALLOC},
    {"tidew.free", MANUAL, .iterations = 1 << 19, .prepare = pool_worst_start, .run = run_tide,
     .which = PART_FREE},
    {"full.fail", REAL, .iterations = 1 << 20, .prepare = pool_hold_all, .run = run_full},
    {"healing", REAL, .repetitions = 1, .iterations = ALL * TURNOVERS, .prepare = pool_worst_start,
     .run = run_healing},
    {"init", REAL, MANUAL, .iterations = 16, .run = run_init},
    {0},
};
