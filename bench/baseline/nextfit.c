/* nextfit.c - linear bitmap that is searched bit by bit from where the last search ended */
#include "../alloc.h"
#include "bits.h"
#include "spin.h"

struct nextfit {
    uint32_t nframes;
    uint32_t next; /* where the next search starts */
    uint64_t bits[];
};

static void *nextfit_create(uint32_t nframes, unsigned ncpus)
{
    size_t bytes = sizeof(struct nextfit) + nframes / 8;
    struct nextfit *m = bench_meta(bytes);
    (void)ncpus;
    memset(m, 0, bytes);
    m->nframes = nframes;
    return m;
}

/* First frame in [from, to) that is free, or `to`; words without a free bit are passed over whole.
 * */
static uint32_t free_bit(const struct nextfit *m, uint32_t from, uint32_t to)
{
    uint32_t i = from;
    while (i < to) {
        if (i % 64 == 0 && m->bits[i / 64] == ~0ull)
            i += 64;
        else if (!bits_test(m->bits, i))
            return i;
        else
            i++;
    }
    return to;
}

/* How many of the n frames from i on are free before the first that is held. */
static uint32_t free_length(const struct nextfit *m, uint32_t i, uint32_t n)
{
    uint32_t length = 0;
    while (length < n && !bits_test(m->bits, i + length))
        length++;
    return length;
}

static uint32_t take(struct nextfit *m, uint32_t frame, uint32_t n)
{
    bits_fill(m->bits, frame, n, true);
    m->next = frame + n < m->nframes ? frame + n : 0;
    return frame;
}

static uint32_t alloc_frame(struct nextfit *m)
{
    uint32_t frame = free_bit(m, m->next, m->nframes);
    if (frame == m->nframes)
        frame = free_bit(m, 0, m->next);
    if (bits_test(m->bits, frame)) /* the second search found none either */
        return BENCH_NONE;
    return take(m, frame, 1);
}

/* Every aligned place in turn, once around. */
static uint32_t nextfit_alloc(void *self, unsigned order)
{
    struct nextfit *m = self;
    uint32_t n = 1u << order;
    if (order == 0)
        return alloc_frame(m);
    uint32_t places = m->nframes >> order;
    uint32_t frame = (m->next + n - 1) & ~(n - 1);
    for (uint32_t tried = 0; tried < places; tried++, frame += n) {
        if (frame >= m->nframes)
            frame = 0;
        if (free_length(m, frame, n) == n)
            return take(m, frame, n);
    }
    return BENCH_NONE;
}

static int nextfit_free(void *self, uint32_t frame, unsigned order)
{
    struct nextfit *m = self;
    bits_fill(m->bits, frame, 1u << order, false);
    return 0;
}

/* First run of n frames that starts in [from, to), or BENCH_NONE. */
static uint32_t run_between(const struct nextfit *m, uint32_t from, uint32_t to, uint32_t n)
{
    uint32_t i = free_bit(m, from, to);
    while (i < to && i + n <= m->nframes) {
        uint32_t length = free_length(m, i, n);
        if (length == n)
            return i;
        i = free_bit(m, i + length, to);
    }
    return BENCH_NONE;
}

static uint32_t nextfit_alloc_run(void *self, uint32_t n)
{
    struct nextfit *m = self;
    uint32_t frame = run_between(m, m->next, m->nframes, n);
    if (frame == BENCH_NONE)
        frame = run_between(m, 0, m->next, n);
    return frame == BENCH_NONE ? frame : take(m, frame, n);
}

static int nextfit_free_run(void *self, uint32_t frame, uint32_t n)
{
    struct nextfit *m = self;
    bits_fill(m->bits, frame, n, false);
    return 0;
}

static size_t nextfit_meta_bytes(void *self)
{
    (void)self;
    return bench_meta_used();
}

BENCH_LOCKED(nextfit)

static const struct bench_ops nextfit_smp = {
    .name = "next-fit",
    .max_order = 9,
    .create = nextfit_create,
    .alloc = nextfit_alloc_locked,
    .free = nextfit_free_locked,
    .meta_bytes = nextfit_meta_bytes,
};

const struct bench_ops baseline_nextfit = {
    .name = "next-fit",
    .title = "linear bitmap, next fit",
    .max_order = 9,
    .create = nextfit_create,
    .alloc = nextfit_alloc,
    .free = nextfit_free,
    .alloc_run = nextfit_alloc_run,
    .free_run = nextfit_free_run,
    .meta_bytes = nextfit_meta_bytes,
    .smp = &nextfit_smp,
};
