/* adapt_slab.c - mm_slab.h as an allocator of the benchmark: objects of a page's size, the column
 * "slab". A slab has its header in the first page, 15 objects in the others. */
#include "adapt_smp.h"

#include <sys/mman.h>

#define MM_SLAB_STATIC
#define MM_SLAB_IMPLEMENTATION
#include "mm_slab.h"

#define PAGES_A_SLAB ((1u << (MM_SLAB_SHIFT - FRAME_SHIFT)) - 1)

static struct mm_slab_heap heap;
static uintptr_t memory, memory_next, memory_end, own_next;
static uint32_t excess, slabs; /* objects of the first slab that are no frames; slabs in all */
static size_t mapped;

static void *slab_source(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    const bool own = (flags & MM_SLAB_NOWAIT) != 0;
    uintptr_t *next = own ? &own_next : &memory_next;
    const uintptr_t end = own ? memory + mapped : memory_end;
    uintptr_t p;
    (void)ctx;
    (void)align;
    do {
        p = mm_load(next);
        if (p + bytes > end)
            return NULL;
    } while (!mm_cas(next, p, p + bytes));
    return (void *)p;
}

static void slab_destroy(void *self)
{
    (void)self;
    munmap((void *)memory, mapped);
}

/* Slabs of page objects are numbered from the start; what the heap needs for itself, it asks for
 * with MM_SLAB_NOWAIT, lies behind them. */
static void *slab_create(uint32_t nframes, unsigned ncpus)
{
    static const struct mm_slab_hooks hooks = {.alloc = slab_source};
    struct mm_slab_config config;
    (void)ncpus; /* MM_CPU_MAX of them */
    slabs = (nframes + PAGES_A_SLAB - 1) / PAGES_A_SLAB;
    excess = slabs * PAGES_A_SLAB - nframes;
    mapped = ((size_t)slabs + 64) << MM_SLAB_SHIFT;
    memory = (uintptr_t)mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if ((void *)memory == MAP_FAILED)
        return NULL;
    memory_next = (memory + MM_SLAB_BYTES - 1) & ~(MM_SLAB_BYTES - 1);
    memory_end = memory_next + ((size_t)slabs << MM_SLAB_SHIFT);
    own_next = memory_end;
    mm_slab_config_init(&config, &hooks);
    if (mm_slab_init(&heap, &config) != MM_OK)
        return NULL;
    if (mmi_slab_inner_alloc(&heap, MMI_SLAB_BATCHES, MM_SLAB_NOWAIT) == NULL)
        return NULL; /* held, so that no slab of page objects ever serves for that */
    for (uint32_t i = 0; i < excess; i++)
        if (mm_slab_kmalloc(&heap, 1u << FRAME_SHIFT, 0) == NULL)
            return NULL;
    return &heap;
}

static inline uintptr_t first_slab(void)
{
    return memory_end - ((size_t)slabs << MM_SLAB_SHIFT);
}

static inline uint32_t number_of(const void *p)
{
    const uint32_t page = (uint32_t)(((uintptr_t)p - first_slab()) >> FRAME_SHIFT);
    return page / (PAGES_A_SLAB + 1) * PAGES_A_SLAB + page % (PAGES_A_SLAB + 1) - 1 - excess;
}

static inline void *object_of(uint32_t frame)
{
    const uint32_t n = frame + excess;
    const uint64_t page = (uint64_t)n + n / PAGES_A_SLAB + 1;
    return (void *)(first_slab() + (page << FRAME_SHIFT));
}

static uint32_t slab_alloc(void *self, unsigned order)
{
    void *p = mm_slab_kmalloc(self, 1u << FRAME_SHIFT, 0);
    (void)order; /* 0 */
    return p == NULL ? BENCH_NONE : number_of(p);
}

static int slab_free(void *self, uint32_t frame, unsigned order)
{
    (void)order;
    return mm_slab_kfree(self, object_of(frame));
}

static size_t slab_meta(void *self)
{
    (void)self;
    return sizeof heap + ((size_t)slabs << FRAME_SHIFT);
}

const struct bench_ops bench_slab = {
    .name = "slab",
    .title = "mm_slab.h: objects of a page's size, 15 to a slab",
    .max_order = 0,
    .create = slab_create,
    .destroy = slab_destroy,
    .alloc = slab_alloc,
    .free = slab_free,
    .meta_bytes = slab_meta,
    .smp = &bench_slab,
};
