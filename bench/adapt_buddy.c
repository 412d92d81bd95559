/* adapt_buddy.c - mm_buddy.h as an allocator of the benchmark: the column "buddy", and its heap
 * face */
#include "adapt_smp.h"

#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#define MAX_ORDER 10

/* ---- frames ---- */

static struct mm_buddy frames;
static size_t frames_meta;

static void *buddy_create(uint32_t nframes, unsigned ncpus)
{
    struct mm_buddy_config config;
    (void)ncpus; /* MM_CPU_MAX of them */
    mm_buddy_config_init(&config, 0, pa_of(nframes), FRAME_SHIFT, MAX_ORDER);
    frames_meta = mm_buddy_meta_bytes(&config);
    if (mm_buddy_init(&frames, &config, bench_meta(frames_meta), frames_meta) != MM_OK)
        return NULL;
    return &frames;
}

__attribute__((flatten)) static uint32_t buddy_alloc(void *self, unsigned order)
{
    struct mm_buddy *b = self;
    return frame_of(mm_buddy_alloc(b, order, MM_BUDDY_MOVABLE));
}

__attribute__((flatten)) static int buddy_free(void *self, uint32_t frame, unsigned order)
{
    struct mm_buddy *b = self;
    (void)order; /* known from the address */
    return mm_buddy_free(b, pa_of(frame));
}

static uint32_t buddy_alloc_run(void *self, uint32_t n)
{
    return frame_of(mm_buddy_alloc_exact(self, pa_of(n), MM_BUDDY_MOVABLE));
}

static int buddy_free_run(void *self, uint32_t frame, uint32_t n)
{
    return buddy_free(self, frame, n);
}

static uint32_t buddy_alloc_bulk(void *self, uint64_t *pas, uint32_t n)
{
    return (uint32_t)mm_buddy_alloc_bulk(self, 0, MM_BUDDY_MOVABLE, n, pas);
}

static int buddy_free_bulk(void *self, const uint64_t *pas, uint32_t n)
{
    return mm_buddy_free_bulk(self, 0, pas, n);
}

static size_t buddy_meta(void *self)
{
    (void)self;
    return sizeof frames + frames_meta;
}

const struct bench_ops bench_buddy = {
    .name = "buddy",
    .title = "mm_buddy.h: buddy allocator over bitmaps, with per-CPU lists",
    .max_order = MAX_ORDER,
    .create = buddy_create,
    .alloc = buddy_alloc,
    .free = buddy_free,
    .alloc_run = buddy_alloc_run,
    .free_run = buddy_free_run,
    .alloc_bulk = buddy_alloc_bulk,
    .free_bulk = buddy_free_bulk,
    .meta_bytes = buddy_meta,
    .smp = &bench_buddy,
};

/* ---- bytes ---- */

#define HEAP_SHIFT 4
#define HEAP_ORDER 17 /* up to 2 MiB */

static struct mm_buddy heap;

static void *heap_create(void *memory, size_t bytes)
{
    struct mm_buddy_config config;
    mm_buddy_config_init(&config, (uintptr_t)memory, bytes, HEAP_SHIFT, HEAP_ORDER);
    size_t meta = mm_buddy_meta_bytes(&config);
    return mm_buddy_init(&heap, &config, bench_meta(meta), meta) == MM_OK ? &heap : NULL;
}

static void *heap_alloc(void *self, size_t bytes)
{
    return mm_buddy_malloc(self, bytes);
}

static void heap_free(void *self, void *p)
{
    (void)mm_buddy_mfree(self, p);
}

const struct bench_heap_ops bench_buddy_heap = {
    .name = "buddy",
    .title = "mm_buddy.h: its heap face",
    .create = heap_create,
    .alloc = heap_alloc,
    .free = heap_free,
};
