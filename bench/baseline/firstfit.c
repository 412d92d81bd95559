/* firstfit.c - bitmap that is searched word by word from the lowest word that may have a free frame
 * */
#include "../alloc.h"
#include "bits.h"
#include "spin.h"

struct firstfit {
    uint32_t nwords;
    uint32_t lowest; /* no word below this one has a free frame */
    uint64_t bits[];
};

static void *firstfit_create(uint32_t nframes, unsigned ncpus)
{
    size_t bytes = sizeof(struct firstfit) + nframes / 8;
    struct firstfit *m = bench_meta(bytes);
    (void)ncpus;
    memset(m, 0, bytes);
    m->nwords = nframes / 64;
    return m;
}

static uint32_t alloc_frame(struct firstfit *m)
{
    for (uint32_t w = m->lowest; w < m->nwords; w++) {
        if (m->bits[w] == ~0ull)
            continue;
        uint32_t bit = (uint32_t)__builtin_ctzll(~m->bits[w]);
        m->bits[w] |= 1ull << bit;
        m->lowest = w;
        return w * 64 + bit;
    }
    m->lowest = m->nwords;
    return BENCH_NONE;
}

/* First aligned place inside word w for 2^order < 64 frames, as a bit number; 64 if there is none.
 * */
static uint32_t place_in_word(uint64_t word, unsigned order)
{
    uint64_t mask = bits_mask(0, 1u << order);
    uint32_t bit = 0;
    while (bit < 64 && (word & mask << bit) != 0)
        bit += 1u << order;
    return bit;
}

static bool words_free(const struct firstfit *m, uint32_t w, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (m->bits[w + i] != 0)
            return false;
    return true;
}

/* Blocks of whole words: the search steps from one aligned place to the next. */
static uint32_t alloc_words(struct firstfit *m, uint32_t n)
{
    for (uint32_t w = (m->lowest + n - 1) & ~(n - 1); w + n <= m->nwords; w += n) {
        if (!words_free(m, w, n))
            continue;
        memset(&m->bits[w], 0xff, n * sizeof m->bits[0]);
        return w * 64;
    }
    return BENCH_NONE;
}

static uint32_t firstfit_alloc(void *self, unsigned order)
{
    struct firstfit *m = self;
    if (order == 0)
        return alloc_frame(m);
    if (order >= 6)
        return alloc_words(m, 1u << (order - 6));
    for (uint32_t w = m->lowest; w < m->nwords; w++) {
        uint32_t bit = m->bits[w] == ~0ull ? 64 : place_in_word(m->bits[w], order);
        if (bit == 64)
            continue;
        bits_fill(m->bits, w * 64 + bit, 1u << order, true);
        return w * 64 + bit;
    }
    return BENCH_NONE;
}

static int firstfit_free_run(void *self, uint32_t frame, uint32_t n)
{
    struct firstfit *m = self;
    bits_fill(m->bits, frame, n, false);
    if (frame / 64 < m->lowest)
        m->lowest = frame / 64;
    return 0;
}

static int firstfit_free(void *self, uint32_t frame, unsigned order)
{
    return firstfit_free_run(self, frame, 1u << order);
}

/* First free frame at or after i, or the end. */
static uint32_t next_free(const struct firstfit *m, uint32_t i)
{
    for (uint32_t w = i / 64; w < m->nwords; w++, i = w * 64) {
        uint64_t free = ~m->bits[w] & ~0ull << i % 64;
        if (free != 0)
            return w * 64 + (uint32_t)__builtin_ctzll(free);
    }
    return m->nwords * 64;
}

/* How many frames from i on are free, counted no further than n. */
static uint32_t free_length(const struct firstfit *m, uint32_t i, uint32_t n)
{
    uint32_t length = 0;
    while (length < n && (i + length) / 64 < m->nwords) {
        uint32_t bit = (i + length) % 64;
        uint64_t held = m->bits[(i + length) / 64] >> bit;
        if (held != 0)
            return length + (uint32_t)__builtin_ctzll(held);
        length += 64 - bit;
    }
    return length;
}

static uint32_t firstfit_alloc_run(void *self, uint32_t n)
{
    struct firstfit *m = self;
    uint32_t i = next_free(m, m->lowest * 64);
    while (i + n <= m->nwords * 64) {
        uint32_t length = free_length(m, i, n);
        if (length >= n) {
            bits_fill(m->bits, i, n, true);
            return i;
        }
        i = next_free(m, i + length);
    }
    return BENCH_NONE;
}

static size_t firstfit_meta_bytes(void *self)
{
    (void)self;
    return bench_meta_used();
}

BENCH_LOCKED(firstfit)

static const struct bench_ops firstfit_smp = {
    .name = "first-fit",
    .max_order = 9,
    .create = firstfit_create,
    .alloc = firstfit_alloc_locked,
    .free = firstfit_free_locked,
    .meta_bytes = firstfit_meta_bytes,
};

const struct bench_ops baseline_firstfit = {
    .name = "first-fit",
    .title = "bitmap, first fit with a hint to the lowest free word",
    .max_order = 9,
    .create = firstfit_create,
    .alloc = firstfit_alloc,
    .free = firstfit_free,
    .alloc_run = firstfit_alloc_run,
    .free_run = firstfit_free_run,
    .meta_bytes = firstfit_meta_bytes,
    .smp = &firstfit_smp,
};
