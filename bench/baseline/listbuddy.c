/* listbuddy.c - buddy allocator with doubly linked lists through an array: nine bytes a frame
 *
 * A free block of order k is on list k and its first frame's state byte is k; all other frames'
 * state is HELD. */
#include "../alloc.h"
#include "spin.h"

#include <string.h>

#define ORDERS 11 /* 0 to 10, as in Linux */
#define HELD   0xff

struct link {
    uint32_t next, prev; /* BENCH_NONE at the ends */
};

struct listbuddy {
    uint32_t nframes;
    uint32_t *heads; /* a list for each order */
    struct link *links;
    uint8_t *state;
};

static struct listbuddy buddy;

/* The allocator is passed by value: a store to a byte might change what a pointer leads to, and the
 * compiler would load every field again after it. */
static inline void push(struct listbuddy b, uint32_t frame, unsigned order)
{
    uint32_t next = b.heads[order];
    b.links[frame].next = next;
    b.links[frame].prev = BENCH_NONE;
    if (next != BENCH_NONE)
        b.links[next].prev = frame;
    b.heads[order] = frame;
    b.state[frame] = (uint8_t)order;
}

static inline void unlink_block(struct listbuddy b, uint32_t frame, unsigned order)
{
    uint32_t next = b.links[frame].next;
    uint32_t prev = b.links[frame].prev;
    if (prev != BENCH_NONE)
        b.links[prev].next = next;
    else
        b.heads[order] = next;
    if (next != BENCH_NONE)
        b.links[next].prev = prev;
}

static void *listbuddy_create(uint32_t nframes, unsigned ncpus)
{
    struct listbuddy *b = &buddy;
    (void)ncpus;
    b->nframes = nframes;
    b->heads = bench_meta(ORDERS * sizeof b->heads[0]);
    b->links = bench_meta(nframes * sizeof b->links[0]);
    b->state = bench_meta(nframes);
    memset(b->heads, 0xff, ORDERS * sizeof b->heads[0]);
    memset(b->state, HELD, nframes);
    for (uint32_t frame = 0; frame < nframes;) {
        unsigned order = 0;
        while (order + 1 < ORDERS && frame % (2u << order) == 0 && frame + (2u << order) <= nframes)
            order++;
        push(*b, frame, order);
        frame += 1u << order;
    }
    return b;
}

/* Takes the first block that is large enough and gives back upper halves until it has the right
 * size. */
static uint32_t listbuddy_alloc(void *self, unsigned order)
{
    struct listbuddy b = *(struct listbuddy *)self;
    unsigned k = order;
    while (b.heads[k] == BENCH_NONE)
        if (++k == ORDERS)
            return BENCH_NONE;
    uint32_t frame = b.heads[k];
    unlink_block(b, frame, k);
    b.state[frame] = HELD;
    while (k > order) {
        k--;
        push(b, frame + (1u << k), k);
    }
    return frame;
}

/* Merges with its buddy as long as that is free and whole. */
static int listbuddy_free(void *self, uint32_t frame, unsigned order)
{
    struct listbuddy b = *(struct listbuddy *)self;
    while (order + 1 < ORDERS) {
        uint32_t other = frame ^ 1u << order;
        if (other >= b.nframes || b.state[other] != order)
            break;
        unlink_block(b, other, order);
        b.state[other] = HELD;
        frame &= other;
        order++;
    }
    push(b, frame, order);
    return 0;
}

static size_t listbuddy_meta_bytes(void *self)
{
    (void)self;
    return bench_meta_used();
}

BENCH_LOCKED(listbuddy)

static const struct bench_ops listbuddy_smp = {
    .name = "list-buddy",
    .max_order = 9,
    .create = listbuddy_create,
    .alloc = listbuddy_alloc_locked,
    .free = listbuddy_free_locked,
    .meta_bytes = listbuddy_meta_bytes,
};

const struct bench_ops baseline_listbuddy = {
    .name = "list-buddy",
    .title = "buddy allocator with intrusive lists, 9 bytes a frame",
    .max_order = 9,
    .create = listbuddy_create,
    .alloc = listbuddy_alloc,
    .free = listbuddy_free,
    .meta_bytes = listbuddy_meta_bytes,
    .smp = &listbuddy_smp,
};
