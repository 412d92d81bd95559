/* shadow.c - see shadow.h */
#include "shadow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const struct bench_ops *ops;
    uint32_t nframes;
    uint8_t *held; /* 1 while somebody holds the frame */
    char error[160];
} shadow;

static void complain(const char *what, uint32_t frame, uint32_t n)
{
    if (shadow.error[0] == 0)
        snprintf(shadow.error, sizeof shadow.error, "%s: %u frames from %u on", what, n, frame);
}

static void note_alloc(uint32_t frame, uint32_t n)
{
    if (frame == BENCH_NONE)
        return;
    if (frame >= shadow.nframes || n > shadow.nframes - frame) {
        complain("outside the pool", frame, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (__atomic_exchange_n(&shadow.held[frame + i], 1, __ATOMIC_ACQ_REL) != 0)
            complain("handed out twice", frame, n);
}

/* Before the allocator sees the free: afterwards the frames may be somebody else's. */
static void note_free(uint32_t frame, uint32_t n)
{
    if (frame >= shadow.nframes || n > shadow.nframes - frame) {
        complain("the benchmark frees what it does not hold", frame, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (__atomic_exchange_n(&shadow.held[frame + i], 0, __ATOMIC_ACQ_REL) != 1)
            complain("the benchmark frees what it does not hold", frame, n);
}

static int note_result(int refused, uint32_t frame, uint32_t n)
{
    if (refused != 0)
        complain("free refused", frame, n);
    return refused;
}

static uint32_t shadow_alloc(void *self, unsigned order)
{
    uint32_t frame = shadow.ops->alloc(self, order);
    if (frame != BENCH_NONE && frame % (1u << order) != 0)
        complain("misaligned", frame, 1u << order);
    note_alloc(frame, 1u << order);
    return frame;
}

static int shadow_free(void *self, uint32_t frame, unsigned order)
{
    note_free(frame, 1u << order);
    return note_result(shadow.ops->free(self, frame, order), frame, 1u << order);
}

static uint32_t shadow_alloc_run(void *self, uint32_t n)
{
    uint32_t frame = shadow.ops->alloc_run(self, n);
    note_alloc(frame, n);
    return frame;
}

static int shadow_free_run(void *self, uint32_t frame, uint32_t n)
{
    note_free(frame, n);
    return note_result(shadow.ops->free_run(self, frame, n), frame, n);
}

static uint32_t shadow_alloc_bulk(void *self, uint64_t *pas, uint32_t n)
{
    uint32_t got = shadow.ops->alloc_bulk(self, pas, n);
    for (uint32_t i = 0; i < got; i++)
        note_alloc((uint32_t)(pas[i] >> 12), 1);
    return got;
}

static int shadow_free_bulk(void *self, const uint64_t *pas, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        note_free((uint32_t)(pas[i] >> 12), 1);
    return note_result(shadow.ops->free_bulk(self, pas, n), (uint32_t)(pas[0] >> 12), n);
}

void *shadow_create(const struct bench_ops *ops, void *self, uint32_t nframes)
{
    if (shadow.nframes != nframes) {
        free(shadow.held);
        shadow.held = malloc(nframes);
    }
    if (shadow.held == NULL) {
        fprintf(stderr, "bench: no memory for the map of held frames\n");
        exit(1);
    }
    memset(shadow.held, 0, nframes);
    shadow.ops = ops;
    shadow.nframes = nframes;
    return self;
}

const struct bench_ops *shadow_ops(const struct bench_ops *ops)
{
    static struct bench_ops table;
    table = *ops;
    table.alloc = shadow_alloc;
    table.free = shadow_free;
    table.alloc_run = ops->alloc_run == NULL ? NULL : shadow_alloc_run;
    table.free_run = ops->free_run == NULL ? NULL : shadow_free_run;
    table.alloc_bulk = ops->alloc_bulk == NULL ? NULL : shadow_alloc_bulk;
    table.free_bulk = ops->free_bulk == NULL ? NULL : shadow_free_bulk;
    return &table;
}

const char *shadow_error(void)
{
    return shadow.error[0] == 0 ? NULL : shadow.error;
}
