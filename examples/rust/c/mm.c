/* mm.c - the headers for Rust: their implementation with this program's hooks, and their set-up, so
 * that Rust need not know the layout of a single struct. All else Rust calls directly. */
#define MM_CPU_MAX  16
#define MM_CPU_ID() mm_rust_cpu
extern _Thread_local unsigned mm_rust_cpu;

#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"
#define MM_SLAB_IMPLEMENTATION
#include "mm_slab.h"

/* ---- CPUs ------------------------------------------------------------------------------------ */

/* What a kernel reads from its per-CPU area. A thread that has claimed no number (see cpu.rs) is
 * served without caches. A number belongs to one thread at a time, so there is nothing to pin. */
_Thread_local unsigned mm_rust_cpu = MM_CPU_MAX;

unsigned mm_rust_cpu_max(void)
{
    return MM_CPU_MAX;
}

void mm_rust_cpu_set(unsigned cpu)
{
    mm_rust_cpu = cpu;
}

/* ---- Buddy ----------------------------------------------------------------------------------- */

size_t mm_rust_buddy_bytes(void)
{
    return sizeof(struct mm_buddy);
}

/* An arena over `bytes` bytes at `memory`, with its metadata inside. */
enum mm_status mm_rust_buddy_init(struct mm_buddy *b, void *memory, size_t bytes,
                                  unsigned min_shift)
{
    struct mm_buddy_config config;
    unsigned order = 0;

    while (order < 31 && (uint64_t)1 << (order + 1 + min_shift) <= bytes)
        order++;
    mm_buddy_config_init(&config, (mm_pa_t)(uintptr_t)memory, bytes, min_shift, order);
    return mm_buddy_init_inside(b, &config);
}

/* Bytes in use. */
uint64_t mm_rust_buddy_used(const struct mm_buddy *b)
{
    struct mm_buddy_stats stats;
    mm_buddy_get_stats(b, &stats);
    return stats.used;
}

/* ---- Slab ------------------------------------------------------------------------------------ */

struct mm_rust_slab {
    struct mm_slab_heap heap; /* first: Rust's pointer is a heap's too */
    struct mm_slab_hooks hooks;
};

/* Slabs come from an arena of pages. */
static void *slab_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    const mm_pa_t pa =
        mm_buddy_alloc_aligned((struct mm_buddy *)ctx, bytes, align, MM_BUDDY_UNMOVABLE);
    (void)flags;
    return pa == MM_PA_NONE ? NULL : (void *)(uintptr_t)pa;
}

static void slab_free(void *ctx, void *memory, size_t bytes)
{
    (void)bytes;
    (void)mm_buddy_free((struct mm_buddy *)ctx, (mm_pa_t)(uintptr_t)memory);
}

size_t mm_rust_slab_bytes(void)
{
    return sizeof(struct mm_rust_slab);
}

enum mm_status mm_rust_slab_init(struct mm_rust_slab *slab, struct mm_buddy *pages)
{
    static const struct mm_slab_hooks none;
    struct mm_slab_config config;

    slab->hooks = none;
    slab->hooks.ctx = pages;
    slab->hooks.alloc = slab_alloc;
    slab->hooks.free = slab_free;
    mm_slab_config_init(&config, &slab->hooks);
    return mm_slab_init(&slab->heap, &config);
}

/* Bytes taken from the arena, after all that is cached was given back. */
uint64_t mm_rust_slab_used(struct mm_rust_slab *slab)
{
    struct mm_slab_stats stats;
    unsigned cpu;

    for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
        (void)mm_slab_drain(&slab->heap, cpu);
    (void)mm_slab_shrink(&slab->heap);
    mm_slab_get_stats(&slab->heap, &stats);
    return stats.bytes;
}

/* ---- Frames ---------------------------------------------------------------------------------- */

size_t mm_rust_frame_bytes(void)
{
    return sizeof(struct mm_frame_pool);
}

/* One zone over [base, base + bytes). */
static struct mm_frame_config frame_config(const struct mm_frame_range *range)
{
    static const struct mm_frame_config none;
    struct mm_frame_config config = none;

    config.map = range;
    config.map_count = 1;
    return config;
}

size_t mm_rust_frame_meta(uint64_t base, uint64_t bytes)
{
    const struct mm_frame_range range = {base, bytes, MM_FRAME_USABLE};
    const struct mm_frame_config config = frame_config(&range);
    size_t size;
    return mm_frame_meta_size(&config, &size) == MM_OK ? size : 0;
}

enum mm_status mm_rust_frame_init(struct mm_frame_pool *pool, uint64_t base, uint64_t bytes,
                                  void *meta, size_t meta_bytes)
{
    const struct mm_frame_range range = {base, bytes, MM_FRAME_USABLE};
    struct mm_frame_config config = frame_config(&range);

    config.meta = meta;
    config.meta_size = meta_bytes;
    return mm_frame_init(pool, &config);
}
