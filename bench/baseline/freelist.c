/* freelist.c - intrusive LIFO list: each free frame holds the number of the next, as in many
 * teaching kernels
 *
 * No metadata, but every operation touches the frame. Eight gigabytes of frames are not at hand: a
 * cache line stands for each, so that a touch costs what it costs in a kernel that maps all memory
 * with large pages. */
#include "../alloc.h"
#include "spin.h"

union frame {
    uint32_t next;
    char line[64];
};

struct freelist {
    uint32_t head;
    union frame *frames;
};

static struct freelist list;

static void *freelist_create(uint32_t nframes, unsigned ncpus)
{
    struct freelist *l = &list;
    (void)ncpus;
    l->frames = bench_meta(nframes * sizeof l->frames[0]);
    for (uint32_t i = 0; i < nframes; i++)
        l->frames[i].next = i + 1 < nframes ? i + 1 : BENCH_NONE;
    l->head = 0;
    return l;
}

static uint32_t freelist_alloc(void *self, unsigned order)
{
    struct freelist *l = self;
    uint32_t frame = l->head;
    (void)order;
    if (frame != BENCH_NONE)
        l->head = l->frames[frame].next;
    return frame;
}

static int freelist_free(void *self, uint32_t frame, unsigned order)
{
    struct freelist *l = self;
    (void)order;
    l->frames[frame].next = l->head;
    l->head = frame;
    return 0;
}

static size_t freelist_meta_bytes(void *self)
{
    (void)self;
    return sizeof(uint32_t); /* the head; the links are in the free frames */
}

BENCH_LOCKED(freelist)

static const struct bench_ops freelist_smp = {
    .name = "freelist",
    .create = freelist_create,
    .alloc = freelist_alloc_locked,
    .free = freelist_free_locked,
    .meta_bytes = freelist_meta_bytes,
};

const struct bench_ops baseline_freelist = {
    .name = "freelist",
    .title = "intrusive LIFO list through the free frames, as in xv6",
    .create = freelist_create,
    .alloc = freelist_alloc,
    .free = freelist_free,
    .meta_bytes = freelist_meta_bytes,
    .smp = &freelist_smp,
};
