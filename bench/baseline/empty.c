/* empty.c - no allocator at all: what the benchmark's own loop and the call through the table cost
 * */
#include "../alloc.h"

static int nothing;

static void *empty_create(uint32_t nframes, unsigned ncpus)
{
    (void)nframes;
    (void)ncpus;
    return &nothing;
}

static uint32_t empty_alloc(void *self, unsigned order)
{
    (void)self;
    return order;
}

static int empty_free(void *self, uint32_t frame, unsigned order)
{
    (void)self;
    (void)frame;
    (void)order;
    return 0;
}

static size_t empty_meta_bytes(void *self)
{
    (void)self;
    return 0;
}

const struct bench_ops baseline_empty = {
    .name = "empty",
    .title = "empty driver: the measuring loop without an allocator",
    .max_order = 9,
    .ideal = 1,
    .create = empty_create,
    .alloc = empty_alloc,
    .free = empty_free,
    .meta_bytes = empty_meta_bytes,
    .smp = &baseline_empty,
};
