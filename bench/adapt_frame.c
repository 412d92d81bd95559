/* adapt_frame.c - mm_frame.h as an allocator of the benchmark: the column "bitmap" */
#include "adapt_smp.h"

#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"

static struct mm_frame_pool frames;

static void *frame_create(uint32_t nframes, unsigned ncpus)
{
    struct mm_frame_range all = {0, pa_of(nframes), MM_FRAME_USABLE};
    struct mm_frame_config config = {0};
    (void)ncpus; /* MM_CPU_MAX of them */
    config.map = &all;
    config.map_count = 1;
    if (mm_frame_meta_size(&config, &config.meta_size) != MM_OK)
        return NULL;
    config.meta = bench_meta(config.meta_size);
    return mm_frame_init(&frames, &config) == MM_OK ? &frames : NULL;
}

static __attribute__((noinline)) uint32_t frame_alloc_order(void *self, unsigned order)
{
    return frame_of(mm_frame_alloc_order(self, order, 0));
}

static uint32_t frame_alloc(void *self, unsigned order)
{
    return order == 0 ? frame_of(mm_frame_alloc(self, 0)) : frame_alloc_order(self, order);
}

static __attribute__((noinline)) int frame_free_order(void *self, uint32_t frame, unsigned order)
{
    return mm_frame_free_order(self, pa_of(frame), order);
}

__attribute__((flatten)) static int frame_free(void *self, uint32_t frame, unsigned order)
{
    return order == 0 ? mm_frame_free(self, pa_of(frame)) : frame_free_order(self, frame, order);
}

static uint32_t frame_alloc_run(void *self, uint32_t n)
{
    struct mm_frame_request request = {0};
    request.count = n;
    return frame_of(mm_frame_alloc_run(self, &request));
}

static int frame_free_run(void *self, uint32_t frame, uint32_t n)
{
    return mm_frame_free_run(self, pa_of(frame), n);
}

static uint32_t frame_alloc_bulk(void *self, uint64_t *pas, uint32_t n)
{
    return (uint32_t)mm_frame_alloc_bulk(self, n, 0, pas);
}

static int frame_free_bulk(void *self, const uint64_t *pas, uint32_t n)
{
    return mm_frame_free_bulk(self, n, pas, NULL) != n;
}

static size_t frame_meta_bytes(void *self)
{
    return sizeof frames + mm_frame_meta_bytes(self);
}

const struct bench_ops bench_frame = {
    .name = "bitmap",
    .title = "mm_frame.h: bitmap with per-CPU ownership of its sections",
    .max_order = 9,
    .create = frame_create,
    .alloc = frame_alloc,
    .free = frame_free,
    .alloc_run = frame_alloc_run,
    .free_run = frame_free_run,
    .alloc_bulk = frame_alloc_bulk,
    .free_bulk = frame_free_bulk,
    .meta_bytes = frame_meta_bytes,
    .smp = &bench_frame,
};
