/* driver.h - what all workloads share: the pool under test, its starting states, random numbers,
 * the clock */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

#include "alloc.h"
#include "gbench.h"

#include <stdbool.h>
#include <time.h>

#define BENCH_THREADS_MAX 2
#define BLOCK_ORDER       9u /* 2 MiB of 4 KiB frames */
#define BLOCK_FRAMES      (1u << BLOCK_ORDER)
#define FRAG_PERIOD       64u /* in the fragmented start every 64th block is whole */

/* What a thread works on: frames it holds, in an array of its own, and its random numbers. */
struct worker {
    uint32_t *held;
    uint32_t nheld;
    uint64_t rng;
} __attribute__((aligned(128)));

/* The one instance under test. Thread 0 fills it in before the loop, other threads read it inside.
 * */
struct pool {
    const struct bench_ops *ops;
    void *self;
    uint32_t nframes;
    struct worker worker[BENCH_THREADS_MAX];
    const char *failed; /* what went wrong, for the report */
};

extern struct pool pool;
extern bool bench_verify; /* BENCH_VERIFY=1: every call is checked against a map of held frames */

/* All frames once, in a fixed random order. */
extern const uint32_t *bench_random_order;

/* Room for one address of each frame, for bulk calls. */
extern uint64_t *bench_addresses;

/* Reads the environment and sets up all memory; once, before the first run. */
void bench_driver_init(void);

/* Frames in the pool: 2^21, or BENCH_FRAMES for a quick look (a power of two, at least 2^16). */
uint32_t bench_nframes(void);

/* Creates the pool with all frames free, and destroys it. */
void pool_create(const struct bench_ops *ops, unsigned ncpus);
void pool_destroy(void);

/* Starting states; what is held is in worker 0. */
void pool_hold(uint32_t n); /* n more frames, one by one */
void pool_hold_half(void);  /* fresh, the first half held */
void pool_hold_all(void);
void pool_worst_start(void); /* all held, then a random half freed in random order */
void pool_fragment(
    void); /* every 64th block wholly free, of all others a random half of the frames */

/* Blocks of 512 frames none of which is held by worker 0: a count that no allocator can flatter. */
uint32_t pool_whole_blocks(void);

/* How many blocks of order 9 the allocator really hands out; they are freed again. */
uint32_t pool_count_blocks(void);

/* A new heap over 32 MiB. */
void *bench_heap_memory(const struct bench_heap_ops *ops);

/* Notes that an allocation failed which must not fail: the run is reported as an error. */
void pool_check_held(const struct worker *w);

static inline double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A linear congruential generator: one multiplication, and its high bits are good enough here. */
static inline uint64_t next_random(uint64_t *rng)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return *rng;
}

/* Bit 63 of a random number is the coin, bits 31 to 62 choose below n. */
static inline bool coin_of(uint64_t random)
{
    return random >> 63 != 0;
}

static inline uint32_t below(uint64_t random, uint32_t n)
{
    return (uint32_t)(((random >> 31 & UINT32_MAX) * n) >> 32);
}

/* Takes a random entry out of the worker's array. */
static inline uint32_t pick_held(struct worker *w, uint64_t random)
{
    uint32_t i = below(random, w->nheld);
    uint32_t frame = w->held[i];
    w->held[i] = w->held[--w->nheld];
    return frame;
}

#endif
