/* stack.c - array stack of frame numbers: the least that an order-0 allocator can do, and the
 * report's yardstick
 *
 * Four bytes a frame, no larger blocks, no check of any kind. */
#include "../alloc.h"
#include "spin.h"

struct stack {
    uint32_t count; /* free frames: frames[0 .. count - 1] */
    uint32_t *frames;
};

static struct stack stack;

static void *stack_create(uint32_t nframes, unsigned ncpus)
{
    struct stack *s = &stack;
    (void)ncpus;
    s->frames = bench_meta(nframes * sizeof s->frames[0]);
    s->count = nframes;
    for (uint32_t i = 0; i < nframes; i++)
        s->frames[i] = nframes - 1 - i; /* the lowest frame on top */
    return s;
}

static uint32_t stack_alloc(void *self, unsigned order)
{
    struct stack *s = self;
    (void)order;
    if (s->count == 0)
        return BENCH_NONE;
    return s->frames[--s->count];
}

static int stack_free(void *self, uint32_t frame, unsigned order)
{
    struct stack *s = self;
    (void)order;
    s->frames[s->count++] = frame;
    return 0;
}

static size_t stack_meta_bytes(void *self)
{
    (void)self;
    return bench_meta_used();
}

BENCH_LOCKED(stack)

static const struct bench_ops stack_smp = {
    .name = "stack",
    .create = stack_create,
    .alloc = stack_alloc_locked,
    .free = stack_free_locked,
    .meta_bytes = stack_meta_bytes,
};

const struct bench_ops baseline_stack = {
    .name = "stack",
    .title = "array stack of frame numbers, 4 bytes a frame",
    .create = stack_create,
    .alloc = stack_alloc,
    .free = stack_free,
    .meta_bytes = stack_meta_bytes,
    .smp = &stack_smp,
};
