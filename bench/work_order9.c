/* work_order9.c - blocks of 2 MiB, mixed orders and runs of 37 frames, on one CPU */
#include "work.h"

#define RUN_FRAMES 37u

/* ---- blocks of order 9 ---- */

static void run_bulk9(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    struct worker *w = &pool.worker[0];
    uint32_t n = pool.nframes / BLOCK_FRAMES;
    while (gb_keep_running_batch(st, n)) {
        double start = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            w->held[i] = c.alloc(c.self, BLOCK_ORDER);
        double middle = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            c.free(c.self, w->held[i], BLOCK_ORDER);
        double end = seconds_now();
        gb_iteration_time(st, row->which == PART_ALLOC ? middle - start : end - middle);
        w->nheld = n;
        pool_check_held(w);
        w->nheld = 0;
    }
}

static uint32_t whole_in_fragmented(void)
{
    return pool.nframes / BLOCK_FRAMES / FRAG_PERIOD;
}

/* Every whole block of the fragmented pool, time after time. */
static void run_frag9_all(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    uint32_t *blocks = pool.worker[0].held + pool.worker[0].nheld;
    uint32_t n = whole_in_fragmented();
    (void)row;
    while (gb_keep_running_batch(st, n)) {
        double start = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            blocks[i] = c.alloc(c.self, BLOCK_ORDER);
        gb_iteration_time(st, seconds_now() - start);
        for (uint32_t i = 0; i < n; i++) {
            if (blocks[i] != BENCH_NONE)
                c.free(c.self, blocks[i], BLOCK_ORDER);
            else
                pool.failed = "a whole block was not found";
        }
    }
}

static void fragment_and_take(void)
{
    pool_fragment();
    for (uint32_t i = 0; i < whole_in_fragmented(); i++)
        if (pool.ops->alloc(pool.self, BLOCK_ORDER) == BENCH_NONE)
            pool.failed = "a whole block was not found";
}

static void run_frag9_fail(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    uint32_t frame = BENCH_NONE;
    (void)row;
    while (gb_keep_running_batch(st, 16))
        for (int i = 0; i < 16; i++)
            frame &= c.alloc(c.self, BLOCK_ORDER);
    if (frame != BENCH_NONE)
        pool.failed = "a block was handed out where none is whole";
}

/* ---- mixed orders ---- */

/* Held blocks are noted as frame and order in one word. */
#define ORDER_SHIFT 24

/* Orders 0, 1, 2, 3, 9 in shares of 80, 8, 6, 4, 2 per cent; from bits that neither the coin nor
 * the pick of a held block uses, through a table: a chain of comparisons would measure mispredicted
 * branches. */
static const uint8_t *order_table(void)
{
    static const struct {
        uint8_t order, percent;
    } shares[] = {{0, 80}, {1, 8}, {2, 6}, {3, 4}, {9, 2}};
    static uint8_t table[1024];
    unsigned n = 0, percent = 0;
    for (unsigned s = 0; s < sizeof shares / sizeof shares[0]; s++)
        for (percent += shares[s].percent; n < sizeof table * percent / 100; n++)
            table[n] = shares[s].order;
    return table;
}

struct mixo {
    const uint8_t *orders;
    uint64_t rng_order;
    uint32_t frames; /* held at present */
    uint32_t failed; /* allocations that found no block, which fragmentation may bring about */
};

static void mixo_alloc(struct calls c, struct worker *w, struct mixo *m)
{
    unsigned order = m->orders[next_random(&m->rng_order) >> 54];
    uint32_t frame = c.alloc(c.self, order);
    if (frame == BENCH_NONE) {
        m->failed++;
        return;
    }
    w->held[w->nheld++] = frame | order << ORDER_SHIFT;
    m->frames += 1u << order;
}

static void mixo_free(struct calls c, struct worker *w, struct mixo *m, uint64_t random)
{
    uint32_t block = pick_held(w, random);
    unsigned order = block >> ORDER_SHIFT;
    c.free(c.self, block & ((1u << ORDER_SHIFT) - 1), order);
    m->frames -= 1u << order;
}

static void mixo_step(struct calls c, struct worker *w, struct mixo *m, struct band band)
{
    uint64_t random = next_random(&w->rng);
    if (coin_of(random) ? m->frames > band.low : m->frames >= band.high)
        mixo_free(c, w, m, random);
    else
        mixo_alloc(c, w, m);
}

static void run_mixo(gb_state *st, const struct row *row)
{
    struct calls c = pool_calls();
    struct worker w = pool.worker[0];
    struct band band = band_around(pool.nframes / 2);
    struct mixo m = {order_table(), 7, 0, 0};
    (void)row;
    while (m.frames < pool.nframes / 2)
        mixo_alloc(c, &w, &m);
    while (gb_keep_running_batch(st, 4096))
        for (int i = 0; i < 4096; i++)
            mixo_step(c, &w, &m, band);
    gb_counter(st, "failed", m.failed, GB_PLAIN);
}

/* ---- runs of 37 ---- */

/* Allocates n runs, then frees them; the row says what is timed. */
static void run_runs(gb_state *st, const struct row *row, uint32_t n)
{
    uint32_t (*alloc_run)(void *, uint32_t) = pool.ops->alloc_run;
    int (*free_run)(void *, uint32_t, uint32_t) = pool.ops->free_run;
    uint32_t *runs = pool.worker[0].held + pool.worker[0].nheld;
    while (gb_keep_running_batch(st, n)) {
        double start = seconds_now();
        for (uint32_t i = 0; i < n; i++)
            runs[i] = alloc_run(pool.self, RUN_FRAMES);
        double middle = seconds_now();
        for (uint32_t i = 0; i < n && runs[i] != BENCH_NONE; i++)
            free_run(pool.self, runs[i], RUN_FRAMES);
        double end = seconds_now();
        gb_iteration_time(st, row->which == PART_ALLOC ? middle - start : end - middle);
        for (uint32_t i = 0; i < n; i++)
            if (runs[i] == BENCH_NONE)
                pool.failed = "a run was not found";
    }
}

static void run_runs_fresh(gb_state *st, const struct row *row)
{
    run_runs(st, row, pool.nframes / BLOCK_FRAMES);
}

/* Only whole blocks have room for runs: for 13 each, for 8 if runs are aligned to 64 frames. */
static void run_runs_fragmented(gb_state *st, const struct row *row)
{
    run_runs(st, row, whole_in_fragmented() * 8);
}

#define ORDERS NEEDS_ORDERS
#define REAL   NEEDS_REAL
#define MANUAL .manual = 1

const struct row order9_rows[] = {
    {"bulk9.alloc", ORDERS, MANUAL, .iterations = 1 << 19, .run = run_bulk9, .which = PART_ALLOC},
    {"bulk9.free", ORDERS, MANUAL, .iterations = 1 << 19, .run = run_bulk9, .which = PART_FREE},
    {"pair9", ORDERS, .iterations = 1 << 21, .run = run_pair, .which = BLOCK_ORDER},
    {"frag9.pair", ORDERS | REAL, .iterations = 1 << 20, .prepare = pool_fragment, .run = run_pair,
     .which = BLOCK_ORDER},
    {"frag9.alloc64", ORDERS | REAL, MANUAL, .iterations = 1 << 16, .prepare = pool_fragment,
     .run = run_frag9_all},
    {"frag9.fail", ORDERS | REAL, .iterations = 1 << 20, .prepare = fragment_and_take,
     .run = run_frag9_fail},
    {"mixo", ORDERS, .iterations = 1 << 20, .run = run_mixo},
    {"run37.fresh", NEEDS_RUNS, MANUAL, .iterations = 1 << 16, .run = run_runs_fresh,
     .which = PART_ALLOC},
    {"run37.free", NEEDS_RUNS, MANUAL, .iterations = 1 << 16, .run = run_runs_fresh,
     .which = PART_FREE},
    {"run37.frag", NEEDS_RUNS | REAL, MANUAL, .iterations = 512, .prepare = pool_fragment,
     .run = run_runs_fragmented, .which = PART_ALLOC},
    {0},
};
