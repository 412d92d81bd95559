/* kernel_mm.c - memory of the kernel's own: who gets it from whom; see kernel_mm.h. The chapters
 * are in the order in which the parts come up. */
#define MM_FRAME_IMPLEMENTATION
#define MM_BUDDY_IMPLEMENTATION
#define MM_SLAB_IMPLEMENTATION
#define MM_PAGETABLE_IMPLEMENTATION
#define MM_VMA_IMPLEMENTATION
#include "kernel_mm.h"
#pragma GCC diagnostic ignored "-Wunused-parameter" /* of hooks: contexts are not needed */

#define CHUNK (MM_PAGE_SIZE << MM_FRAME_HUGE_ORDER) /* what mm_buddy grows by */

struct kmm kmm;

/* ---- Frames ---------------------------------------------------------------------------------- */

static void *frame_view(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    return kmm_at(pa);
}

static enum mm_status frames_init(void)
{
    enum mm_status status = mm_frame_map_clean(kmm.config.map, kmm.config.map_count, kmm.map,
                                               KMM_MAP_MAX, &kmm.map_count);
    const struct mm_frame_config config = {.map = kmm.map,
                                           .map_count = kmm.map_count,
                                           .zones = kmm.config.zones,
                                           .zone_count = kmm.config.zone_count,
                                           .carve_below = (mm_pa_t)1 << 32,
                                           .descriptors = true,
                                           .hooks = {.view = frame_view}};
    for (size_t i = kmm.map_count; status == MM_OK && i-- != 0;) /* sorted */
        if (kmm.map[i].type == MM_FRAME_USABLE) {
            kmm.low = kmm.map[i].base;
            kmm.high = kmm.high != 0 ? kmm.high : kmm.low + kmm.map[i].size;
        }
    if (status == MM_OK)
        status = mm_frame_init(&kmm.pool, &config);
    return status == MM_OK ? mm_frame_lru_init(&kmm.lru, &kmm.pool) : status;
}

mm_pa_t kmm_taken(enum kmm_use use, mm_pa_t pa, uint64_t frames)
{
    if (pa != MM_PA_NONE)
        (void)mm_fetch_add(&kmm.use[use], (uintptr_t)frames);
    return pa;
}

static mm_pa_t take_run(enum kmm_use use, uint64_t frames, uint64_t align)
{
    const struct mm_frame_request request = {.count = frames, .align = align, .flags = KMM_NORMAL};
    return kmm_taken(use, mm_frame_alloc_run(&kmm.pool, &request), frames);
}

static enum mm_status give_run(enum kmm_use use, mm_pa_t pa, uint64_t frames)
{
    const enum mm_status status = mm_frame_free_run(&kmm.pool, pa, frames);
    if (status == MM_OK)
        (void)mm_fetch_add(&kmm.use[use], 0 - (uintptr_t)frames);
    return status;
}

void *kmm_own(uint64_t bytes)
{
    void *at = kmm_at(take_run(KMM_KERNEL, KMM_PAGES(bytes), 0));
    return at == NULL ? NULL : MM_MEMSET(at, 0, bytes);
}

/* From zone 0: there is none below it. */
mm_pa_t kmm_alloc_dma(uint64_t bytes, uint64_t align, uint64_t boundary, mm_pa_t limit)
{
    const struct mm_frame_request request = {
        .count = KMM_PAGES(bytes), .align = align, .boundary = boundary, .max = limit};
    return kmm_taken(KMM_DMA, mm_frame_alloc_run(&kmm.pool, &request), request.count);
}

enum mm_status kmm_free_dma(mm_pa_t pa, uint64_t bytes)
{
    return give_run(KMM_DMA, pa, KMM_PAGES(bytes));
}

/* ---- Page runs: mm_buddy, which has what it took of the zone from mm_frame ------------------- */

static enum mm_status runs_init(void)
{
    const uint64_t bytes = kmm.high - kmm.low;
    struct mm_buddy_config config;
    mm_buddy_config_init(&config, kmm.low, bytes, MM_PAGE_SHIFT, 13);
    config.cpu_lists = true;
    const size_t meta_bytes = mm_buddy_meta_bytes(&config);
    void *meta = kmm_own(meta_bytes);
    if (meta == NULL || mm_buddy_init(&kmm.buddy, &config, meta, meta_bytes) != MM_OK)
        return MM_ERR_NOMEM;
    return mm_buddy_shrink(&kmm.buddy, kmm.low, bytes); /* empty */
}

static bool runs_grow(uint64_t bytes, uint64_t align)
{
    const mm_pa_t pa = take_run(KMM_BUDDY, bytes >> MM_PAGE_SHIFT, align);
    return pa != MM_PA_NONE && mm_buddy_grow(&kmm.buddy, pa, bytes) == MM_OK;
}

/* Where there is none it takes more: a large chunk, or just the block that is wanted; and where
 * there is no more, programs lose pages. */
static mm_pa_t run_alloc(uint64_t bytes, uint64_t align, unsigned flags)
{
    const uint64_t block = MM_PAGE_SIZE << mm_buddy_order(&kmm.buddy, bytes);
    const uint64_t least = align > block ? align : block;
    mm_pa_t pa = MM_PA_NONE;
    for (unsigned tries = 0; pa == MM_PA_NONE && tries < 3; tries++) {
        if (tries != 0 && !runs_grow(mm_align_up(block, CHUNK), mm_align_up(least, CHUNK)) &&
            !runs_grow(block, least) &&
            ((flags & MM_SLAB_NOWAIT) != 0 || kmm_reclaim(16 * KMM_PAGES(least) + 64) == 0))
            break;
        pa = mm_buddy_alloc_aligned(&kmm.buddy, bytes, align, MM_BUDDY_UNMOVABLE);
    }
    return pa;
}

mm_pa_t kmm_alloc_pages(unsigned order)
{
    return run_alloc(MM_PAGE_SIZE << order, MM_PAGE_SIZE << order, 0);
}

enum mm_status kmm_free_pages(mm_pa_t pa, unsigned order)
{
    struct mm_buddy_block block;
    kmm_checked();
    if (kmm.debug >= 2 && mm_buddy_find(&kmm.buddy, pa, &block) == MM_OK && block.pa == pa &&
        block.bytes == MM_PAGE_SIZE << order && block.state == MM_BUDDY_STATE_ALLOCATED)
        MM_MEMSET(kmm_at(pa), KMM_JUNK, block.bytes);
    return mm_buddy_free_order(&kmm.buddy, pa, order);
}

/* ---- Objects: mm_slab over page runs --------------------------------------------------------- */

static void *slab_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    return kmm_at(run_alloc(bytes, align, flags));
}

static void slab_free(void *ctx, void *p, size_t bytes)
{
    (void)mm_buddy_free(&kmm.buddy, kmm_pa_of(p));
}

static enum mm_status objects_init(void)
{
    static const struct mm_slab_hooks hooks = {.alloc = slab_alloc, .free = slab_free};
    struct mm_slab_config config;
    mm_slab_config_init(&config, &hooks);
    return mm_slab_init(&kmm.heap, &config);
}

void *kmm_alloc(size_t bytes, unsigned flags)
{
    return mm_slab_kmalloc(&kmm.heap, bytes, flags);
}

enum mm_status kmm_free(void *p)
{
    kmm_checked();
    return mm_slab_kfree(&kmm.heap, p);
}

void kmm_trim(void)
{
    struct mm_buddy_block block;
    mm_pa_t pa = kmm.low;
    for (unsigned cpu = 0; cpu < MM_CPU_MAX; cpu++)
        (void)mm_slab_drain(&kmm.heap, cpu);
    (void)mm_slab_shrink(&kmm.heap);
    mm_buddy_drain(&kmm.buddy);
    for (; mm_buddy_find(&kmm.buddy, pa, &block) == MM_OK; pa = block.pa + block.bytes)
        if (block.state == MM_BUDDY_STATE_FREE &&
            mm_buddy_shrink(&kmm.buddy, block.pa, block.bytes) == MM_OK)
            (void)give_run(KMM_BUDDY, block.pa, block.bytes >> MM_PAGE_SHIFT);
}

/* ---- The kernel's space ---------------------------------------------------------------------- */

static mm_pa_t table_alloc(void *ctx, uint64_t bytes)
{
    return kmm_taken(KMM_TABLES, mm_frame_alloc(&kmm.pool, KMM_NORMAL | MM_FRAME_URGENT), 1);
}

static void table_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)give_run(KMM_TABLES, table, 1);
}

/* Of user tables mm_vma knows best what to flush and when (space.c); no table is freed before the
 * space ends. A processor may have cached that there was nothing, though. */
static void table_flush(void *ctx, const struct mm_pagetable_flush *flush)
{
    if (flush->pt == &kmm.kernel || flush->filled_only)
        kmm.config.flush(flush);
}

/* Top-level entries can be lent to user tables only as tables: the largest leaves stay one level
 * below. */
enum mm_status kmm_map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr)
{
    const unsigned level = kmm.config.format->levels - 2;
    return mm_pagetable_map(&kmm.kernel, va, pa, bytes,
                            (attr & kmm.attributes) | MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY,
                            MM_PAGETABLE_LEAF_MAX(level < 2 ? level : 2), NULL);
}

/* All memory at `direct`, but the kernel's image only to be read: nothing that is executable is
 * writable through another address. Then the image, as it says. */
static enum mm_status kernel_space_init(void)
{
    static const struct mm_pagetable_hooks hooks = {
        .alloc = table_alloc, .free = table_free, .flush = table_flush};
    enum mm_status status =
        mm_pagetable_config_init(&kmm.tables, kmm.config.format, &hooks, kmm.config.direct);
    kmm.tables.flags |= MM_PAGETABLE_W_XOR_X | MM_PAGETABLE_KEEP_EMPTY;
    kmm.tables.flags &= ~MM_PAGETABLE_PRESET_AD; /* the bits tell the truth; see kmm_fault */
    if (status == MM_OK)
        status = mm_pagetable_init(&kmm.kernel, &kmm.tables);
    const bool types = kmm.kernel.type_bits[MM_PAGETABLE_DEVICE] != UINT64_MAX;
    kmm.attributes = types ? ~0u : ~MM_PAGETABLE_TYPES;
    for (size_t i = 0; i < kmm.map_count && status == MM_OK; i++) {
        const struct mm_frame_range *r = &kmm.map[i];
        const uint32_t write = r->type != MM_FRAME_KERNEL ? MM_PAGETABLE_WRITE : 0;
        if (r->type < MM_FRAME_DEVICE) /* what is memory comes first among the types */
            status = kmm_map(kmm.config.direct + r->base, r->base, r->size,
                             MM_PAGETABLE_READ | MM_PAGETABLE_GLOBAL | write);
    }
    for (unsigned i = 0; i < kmm.config.mapping_count && status == MM_OK; i++) {
        const struct mm_pagetable_run *m = &kmm.config.mappings[i];
        status = kmm_map(m->va, m->pa, m->bytes, m->attr);
    }
    return status;
}

/* ---- Start ----------------------------------------------------------------------------------- */

enum mm_status kmm_init(const struct kmm_config *config)
{
    static enum mm_status (*const steps[])(void) = {frames_init, runs_init, objects_init,
                                                    kernel_space_init, kmm_spaces_init};
    enum mm_status status = MM_OK;
    MM_MEMSET(&kmm, 0, sizeof kmm);
    kmm.config = *config;
    kmm.debug = 1;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == MM_OK; i++)
        status = steps[i]();
    return status;
}
