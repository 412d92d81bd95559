/* work_threads.c - the same with one and two threads on as many CPUs, through the allocator's
 * SMP-safe face
 *
 * Rows t1.* run the very code of t2.* with one thread. A thread's CPU is the number of the thread.
 * Every thread has a working set of its own, but for xfree, where one allocates what the other
 * frees. */
#include "work.h"

#include <sched.h>

#define RING  4096u
#define PAIRS 512

/* ---- threads wait for each other ---- */

static struct {
    int arrived __attribute__((aligned(128)));
    int round __attribute__((aligned(128)));
} meeting;

static void wait_a_moment(unsigned *spins)
{
    __builtin_ia32_pause();
    if (++*spins % 4096 == 0) /* on a busy machine the other thread may not be running */
        sched_yield();
}

static void meet(int threads)
{
    unsigned spins = 0;
    int round = __atomic_load_n(&meeting.round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&meeting.arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        meeting.arrived = 0;
        __atomic_store_n(&meeting.round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&meeting.round, __ATOMIC_ACQUIRE) == round)
        wait_a_moment(&spins);
}

/* ---- starting states: each thread's frames come through its own CPU ---- */

static void hold_each(uint32_t n)
{
    for (int t = 0; t < BENCH_THREADS_MAX; t++) {
        struct worker *w = &pool.worker[t];
        bench_cpu = t;
        while (w->nheld < n)
            w->held[w->nheld++] = pool.ops->alloc(pool.self, 0);
        pool_check_held(w);
    }
    bench_cpu = 0;
}

static void hold_1000_each(void)
{
    hold_each(1000);
}

static void hold_quarter_each(void)
{
    hold_each(pool.nframes / 4);
}

/* ---- private working sets ---- */

static void run_pair_threads(gb_state *st, const struct row *row)
{
    (void)row;
    while (gb_keep_running_batch(st, 2 * PAIRS)) {
        struct calls c = pool_calls();
        for (int i = 0; i < PAIRS; i++)
            c.free(c.self, c.alloc(c.self, 0), 0);
    }
}

/* Blocks for each of two threads that leave a sixteenth of memory free: what happens when memory
 * ends is not the subject here. */
static int64_t share_of_blocks(unsigned order)
{
    return (bench_nframes() >> order) / 32 * 15;
}

static void run_bulk_threads(gb_state *st, const struct row *row)
{
    unsigned order = (unsigned)row->which / 2;
    int64_t n = share_of_blocks(order);
    int threads = gb_thread_count(st);
    struct worker *w = &pool.worker[gb_thread_index(st)];
    while (gb_keep_running_batch(st, n)) {
        struct calls c = pool_calls();
        meet(threads);
        double start = seconds_now();
        for (int64_t i = 0; i < n; i++)
            w->held[i] = c.alloc(c.self, order);
        double middle = seconds_now();
        meet(threads);
        double again = seconds_now();
        for (int64_t i = 0; i < n; i++)
            c.free(c.self, w->held[i], order);
        double end = seconds_now();
        gb_iteration_time(st, row->which % 2 == PART_ALLOC ? middle - start : end - again);
        w->nheld = (uint32_t)n;
        pool_check_held(w);
    }
}

static void run_mix_threads(gb_state *st, const struct row *row)
{
    struct worker *shared = &pool.worker[gb_thread_index(st)];
    struct worker w = {0};
    (void)row;
    while (gb_keep_running_batch(st, 4096)) {
        struct calls c = pool_calls();
        struct band band = band_around(pool.nframes / 4);
        if (w.held == NULL) /* thread 0 has filled it in before the loop */
            w = *shared;
        for (int i = 0; i < 4096; i++)
            churn_step(c, &w, band);
    }
}

/* ---- one allocates, the other frees ---- */

/* A ring between one producer and one consumer. Each side keeps the other's position as it last saw
 * it, and looks again only when the ring seems full or empty. */
static struct {
    uint32_t produced __attribute__((aligned(128)));
    uint32_t consumed_seen;
    uint32_t consumed __attribute__((aligned(128)));
    uint32_t produced_seen;
    uint32_t frames[RING] __attribute__((aligned(128)));
} ring;

static void empty_ring(void)
{
    ring.produced = ring.consumed_seen = ring.consumed = ring.produced_seen = 0;
}

static void ring_put(uint32_t frame)
{
    unsigned spins = 0;
    uint32_t at = ring.produced;
    while (at - ring.consumed_seen == RING) {
        ring.consumed_seen = __atomic_load_n(&ring.consumed, __ATOMIC_ACQUIRE);
        if (at - ring.consumed_seen == RING)
            wait_a_moment(&spins);
    }
    ring.frames[at % RING] = frame;
    __atomic_store_n(&ring.produced, at + 1, __ATOMIC_RELEASE);
}

static uint32_t ring_get(void)
{
    unsigned spins = 0;
    uint32_t at = ring.consumed;
    while (at == ring.produced_seen) {
        ring.produced_seen = __atomic_load_n(&ring.produced, __ATOMIC_ACQUIRE);
        if (at == ring.produced_seen)
            wait_a_moment(&spins);
    }
    uint32_t frame = ring.frames[at % RING];
    __atomic_store_n(&ring.consumed, at + 1, __ATOMIC_RELEASE);
    return frame;
}

static void produce(struct calls c)
{
    for (uint32_t i = 0; i < RING; i++)
        ring_put(c.alloc(c.self, 0));
}

static void consume(struct calls c)
{
    for (uint32_t i = 0; i < RING; i++)
        c.free(c.self, ring_get(), 0);
}

/* Alone, a thread fills the ring and drains it: two operations a frame, as two threads have one
 * each. */
static void run_xfree(gb_state *st, const struct row *row)
{
    (void)row;
    if (gb_thread_count(st) == 1) {
        while (gb_keep_running_batch(st, 2 * RING)) {
            produce(pool_calls());
            consume(pool_calls());
        }
    } else if (gb_thread_index(st) == 0) {
        while (gb_keep_running_batch(st, RING))
            produce(pool_calls());
    } else {
        while (gb_keep_running_batch(st, RING))
            consume(pool_calls());
    }
}

#define ORDERS                      NEEDS_ORDERS
#define MANUAL                      .manual = 1
#define ORDER_AND_PART(order, part) ((order)*2 + (part))
#define BOTH(work, ...)                                  \
    {"t1." work, .threads = 1, .ncpus = 2, __VA_ARGS__}, \
    {                                                    \
        "t2." work, .threads = 2, __VA_ARGS__            \
    }

const struct row thread_rows[] = {
    BOTH("pair", .iterations = 1 << 21, .prepare = hold_1000_each, .run = run_pair_threads),
    BOTH("bulk.alloc", MANUAL, .iterations = 1 << 20, .run = run_bulk_threads,
         .which = ORDER_AND_PART(0, PART_ALLOC)),
    BOTH("bulk.free", MANUAL, .iterations = 1 << 20, .run = run_bulk_threads,
         .which = ORDER_AND_PART(0, PART_FREE)),
    BOTH("mix", .iterations = 1 << 19, .prepare = hold_quarter_each, .run = run_mix_threads),
    BOTH("o9.alloc", .needs = ORDERS, MANUAL, .iterations = 1 << 18, .run = run_bulk_threads,
         .which = ORDER_AND_PART(9, PART_ALLOC)),
    BOTH("o9.free", .needs = ORDERS, MANUAL, .iterations = 1 << 18, .run = run_bulk_threads,
         .which = ORDER_AND_PART(9, PART_FREE)),
    BOTH("xfree", .iterations = 1 << 20, .prepare = empty_ring, .run = run_xfree),
    {0},
};
