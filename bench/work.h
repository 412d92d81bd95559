/* work.h - shared by the files of workloads */
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include "rows.h"

extern const struct row order0_rows[], order9_rows[], thread_rows[];

/* The allocator's functions, to be kept in a local variable: a call is one indirect call without a
 * load. */
struct calls {
    void *self;
    uint32_t (*alloc)(void *self, unsigned order);
    int (*free)(void *self, uint32_t frame, unsigned order);
};

static inline struct calls pool_calls(void)
{
    return (struct calls){pool.self, pool.ops->alloc, pool.ops->free};
}

/* Allocations of a churn keep the number of held frames between these. */
struct band {
    uint32_t low, high;
};

/* `held` frames of the pool, give or take one per cent of the whole. */
static inline struct band band_around(uint32_t held)
{
    uint32_t slack = pool.nframes / 100;
    return (struct band){held - slack, held + slack};
}

/* One step of a churn of single frames: a coin flip between an allocation and the free of a random
 * held frame, unless the band's edge decides. */
static inline void churn_step(struct calls c, struct worker *w, struct band band)
{
    uint64_t random = next_random(&w->rng);
    bool free_one = coin_of(random) ? w->nheld > band.low : w->nheld >= band.high;
    if (free_one)
        c.free(c.self, pick_held(w, random), 0);
    else
        w->held[w->nheld++] = c.alloc(c.self, 0);
}

/* An allocation and a free of one block of this order, over and over. */
void run_pair(gb_state *st, const struct row *row);

#endif
