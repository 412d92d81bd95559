/* kernel_mm.c - who gets memory from whom; see kernel_mm.h. The page tables of programs, files,
 * reclaim, reports and the self-tests have files of their own. */
#define MM_FRAME_IMPLEMENTATION
#define MM_BUDDY_IMPLEMENTATION
#define MM_SLAB_IMPLEMENTATION
#define MM_PAGETABLE_IMPLEMENTATION
#define MM_VMA_IMPLEMENTATION
#include "parts.h"

#define CHUNK (MM_PAGE_SIZE << MM_FRAME_HUGE_ORDER) /* what mm_buddy grows by */
#define JUNK  0x6b                                  /* freed pages at debug level 2 */

/* What most allocations prefer: where that zone is full, or not there at all, mm_frame goes on to
 * those below. */
#define NORMAL MM_FRAME_ZONE(kmm.config.zone_count - 1)
#define DMA    MM_FRAME_ZONE(0) /* there is none below it */

struct kmm kmm;

/* ---- Frames and page runs -------------------------------------------------------------------- */

void *kmm_at(mm_pa_t pa)
{
    return kmm_pointer(kmm.config.direct, pa);
}

mm_pa_t kmm_pa_of(const void *at)
{
    return (mm_pa_t)((uintptr_t)at - kmm.config.direct);
}

static void *hook_view(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    return kmm_at(pa);
}

/* What `pa` is the start of, or MM_PA_NONE, has this use now. */
static mm_pa_t taken(enum kmm_use use, mm_pa_t pa, uint64_t frames)
{
    if (pa != MM_PA_NONE)
        (void)mm_fetch_add(&kmm.use[use], (uintptr_t)frames);
    return pa;
}

static mm_pa_t take_run(enum kmm_use use, uint64_t frames, uint64_t align)
{
    const struct mm_frame_request request = {
        .count = frames, .align = align, .flags = NORMAL | MM_FRAME_NOWAIT};
    return taken(use, mm_frame_alloc_run(&kmm.pool, &request), frames);
}

static enum mm_status give_run(enum kmm_use use, mm_pa_t pa, uint64_t frames)
{
    enum mm_status status = mm_frame_free_run(&kmm.pool, pa, frames);
    if (status == MM_OK)
        (void)mm_fetch_add(&kmm.use[use], 0 - (uintptr_t)frames);
    return status;
}

void *kmm_own(uint64_t bytes)
{
    const mm_pa_t pa = take_run(KMM_KERNEL, KMM_PAGES(bytes), 0);
    return pa == MM_PA_NONE ? NULL : MM_MEMSET(kmm_at(pa), 0, bytes);
}

static bool buddy_grow(uint64_t bytes, uint64_t align)
{
    const mm_pa_t pa = take_run(KMM_BUDDY, bytes >> MM_PAGE_SHIFT, align);
    return pa != MM_PA_NONE && mm_buddy_grow(&kmm.buddy, pa, bytes) == MM_OK;
}

/* mm_buddy serves runs of pages; when it has none it takes more of the zone from mm_frame: a large
 * chunk, or just the block that is wanted where memory is short. */
static mm_pa_t buddy_take(uint64_t bytes, uint64_t align)
{
    const uint64_t block = MM_PAGE_SIZE << mm_buddy_order(&kmm.buddy, bytes);
    const uint64_t least = align > block ? align : block;
    mm_pa_t pa = mm_buddy_alloc_aligned(&kmm.buddy, bytes, align, MM_BUDDY_UNMOVABLE);
    if (pa == MM_PA_NONE && (buddy_grow(mm_align_up(block, CHUNK), mm_align_up(least, CHUNK)) ||
                             buddy_grow(block, least)))
        pa = mm_buddy_alloc_aligned(&kmm.buddy, bytes, align, MM_BUDDY_UNMOVABLE);
    return pa;
}

void kmm_trim(void)
{
    struct mm_buddy_block block;
    mm_pa_t pa = kmm.low;
    mm_buddy_drain(&kmm.buddy);
    for (; mm_buddy_find(&kmm.buddy, pa, &block) == MM_OK; pa = block.pa + block.bytes)
        if (block.state == MM_BUDDY_STATE_FREE &&
            mm_buddy_shrink(&kmm.buddy, block.pa, block.bytes) == MM_OK)
            (void)give_run(KMM_BUDDY, block.pa, block.bytes >> MM_PAGE_SHIFT);
}

mm_pa_t kmm_alloc_pages(unsigned order)
{
    const uint64_t bytes = MM_PAGE_SIZE << order;
    mm_pa_t pa = buddy_take(bytes, bytes);
    if (pa == MM_PA_NONE && kmm_reclaim((uint64_t)64 << order) != 0)
        pa = buddy_take(bytes, bytes);
    return pa;
}

enum mm_status kmm_free_pages(mm_pa_t pa, unsigned order)
{
    struct mm_buddy_block block;
    enum mm_status status;
    if (kmm.debug >= 2 && mm_buddy_find(&kmm.buddy, pa, &block) == MM_OK && block.pa == pa &&
        block.state == MM_BUDDY_STATE_ALLOCATED)
        MM_MEMSET(kmm_at(pa), JUNK, block.bytes);
    status = mm_buddy_free_order(&kmm.buddy, pa, order);
    kmm_checked();
    return status;
}

mm_pa_t kmm_alloc_dma(uint64_t bytes, uint64_t align, uint64_t boundary, mm_pa_t limit)
{
    const struct mm_frame_request request = {.count = KMM_PAGES(bytes),
                                             .align = align,
                                             .boundary = boundary,
                                             .max = limit,
                                             .flags = DMA | MM_FRAME_NOWAIT};
    return taken(KMM_DMA, mm_frame_alloc_run(&kmm.pool, &request), request.count);
}

enum mm_status kmm_free_dma(mm_pa_t pa, uint64_t bytes)
{
    return give_run(KMM_DMA, pa, KMM_PAGES(bytes));
}

/* ---- Objects --------------------------------------------------------------------------------- */

static void *hook_slab_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    mm_pa_t pa = buddy_take(bytes, align);
    return pa == MM_PA_NONE ? NULL : kmm_at(pa);
}

static void hook_slab_free(void *ctx, void *p, size_t bytes)
{
    (void)mm_buddy_free(&kmm.buddy, kmm_pa_of(p));
}

static bool hook_slab_reclaim(void *ctx, struct mm_slab_heap *heap, size_t bytes)
{
    return kmm_reclaim(4 * KMM_PAGES(bytes) + 32) != 0; /* enough for a run, with some luck */
}

void *kmm_alloc(size_t bytes, unsigned flags)
{
    return mm_slab_kmalloc(&kmm.heap, bytes, flags);
}

void *kmm_realloc(void *p, size_t bytes)
{
    return mm_slab_krealloc(&kmm.heap, p, bytes, 0);
}

enum mm_status kmm_free(void *p)
{
    enum mm_status status = mm_slab_kfree(&kmm.heap, p);
    kmm_checked();
    return status;
}

size_t kmm_size(const void *p)
{
    return mm_slab_ksize(&kmm.heap, p);
}

/* ---- The kernel's space ---------------------------------------------------------------------- */

static mm_pa_t hook_table_alloc(void *ctx, uint64_t bytes)
{
    return taken(KMM_TABLES, mm_frame_alloc(&kmm.pool, NORMAL | MM_FRAME_NOWAIT | MM_FRAME_URGENT),
                 1);
}

static void hook_table_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)give_run(KMM_TABLES, table, 1);
}

/* Of user tables mm_vma knows best what to flush and when (hook_pt_flush); no table is freed before
 * the space ends. A processor may have cached that there was nothing, though. */
static void hook_flush(void *ctx, const struct mm_pagetable_flush *flush)
{
    if (flush->pt == &kmm.kernel || flush->filled_only)
        kmm.config.flush(flush);
}

static enum mm_status table_init(struct mm_pagetable *pt)
{
    static const struct mm_pagetable_hooks hooks = {
        .alloc = hook_table_alloc, .free = hook_table_free, .flush = hook_flush};
    struct mm_pagetable_config config;
    enum mm_status status =
        mm_pagetable_config_init(&config, kmm.config.format, &hooks, kmm.config.direct);
    if (status != MM_OK)
        return status;
    config.flags |= MM_PAGETABLE_W_XOR_X | MM_PAGETABLE_KEEP_EMPTY;
    config.flags &= ~MM_PAGETABLE_PRESET_AD; /* of user pages they tell the truth; see kmm_fault */
    return mm_pagetable_init(pt, &config);
}

/* Devices' memory; RISC-V has types of memory only with Svpbmt, else the machine knows by
 * address. */
uint32_t kmm_attr_device(const struct mm_pagetable *pt)
{
    const bool typed =
        pt->format->family != MM_PAGETABLE_FAMILY_RISCV || (pt->flags & MM_PAGETABLE_SVPBMT) != 0;
    return MM_PAGETABLE_SOFT0 | (typed ? MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE) : 0u);
}

/* Top-level entries can be lent to user tables only as tables: the largest leaves stay one level
 * below. */
enum mm_status kmm_map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr)
{
    const unsigned level = kmm.config.format->levels - 2;
    return mm_pagetable_map(&kmm.kernel, va, pa, bytes,
                            attr | MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY,
                            MM_PAGETABLE_LEAF_MAX(level < 2 ? level : 2), NULL);
}

enum mm_status kmm_unmap(mm_va_t va, uint64_t bytes)
{
    return mm_pagetable_unmap(&kmm.kernel, va, bytes, NULL);
}

enum mm_status kmm_protect(mm_va_t va, uint64_t bytes, uint32_t attr)
{
    return mm_pagetable_protect(&kmm.kernel, va, bytes, attr, MM_PAGETABLE_PERMS, NULL);
}

void *kmm_map_device(mm_pa_t pa, uint64_t bytes)
{
    const uint64_t skew = pa & (MM_PAGE_SIZE - 1), size = mm_align_up(skew + bytes, MM_PAGE_SIZE);
    const uint32_t attr = MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_GLOBAL;
    mm_va_t va = mm_buddy_alloc_exact(&kmm.vmap, size, 0);
    if (va != MM_PA_NONE &&
        kmm_map(va, pa - skew, size, attr | kmm_attr_device(&kmm.kernel)) == MM_OK)
        return (void *)(uintptr_t)(va + skew);
    if (va != MM_PA_NONE)
        (void)mm_buddy_free(&kmm.vmap, va);
    return NULL;
}

enum mm_status kmm_unmap_device(void *at, uint64_t bytes)
{
    const uint64_t skew = (uintptr_t)at & (MM_PAGE_SIZE - 1);
    const mm_va_t va = (uintptr_t)at - skew;
    enum mm_status status = kmm_unmap(va, mm_align_up(skew + bytes, MM_PAGE_SIZE));
    return status == MM_OK ? mm_buddy_free(&kmm.vmap, va) : status;
}

uint64_t kmm_kernel_root(void)
{
    return mm_pagetable_root(&kmm.kernel);
}

/* ---- Hooks of user spaces: frames ------------------------------------------------------------ */

mm_pa_t kmm_frame_alloc(void *ctx, bool zero)
{
    const mm_pa_t pa =
        taken(KMM_USER, mm_frame_alloc_ref(&kmm.pool, 0, NORMAL | MM_FRAME_NOWAIT), 1);
    if (zero && pa != MM_PA_NONE)
        MM_MEMSET(kmm_at(pa), 0, MM_PAGE_SIZE);
    return pa;
}

/* The last reference to a frame takes it off the LRU lists. */
void kmm_frame_put(mm_pa_t pa)
{
    while (mm_frame_put(&kmm.pool, pa) == MM_ERR_BUSY)
        (void)mm_frame_lru_remove(&kmm.lru, pa);
}

void kmm_frame_free(void *ctx, mm_pa_t pa)
{
    if (kmm.debug >= 2)
        MM_MEMSET(kmm_at(pa), JUNK, MM_PAGE_SIZE);
    (void)mm_fetch_add(&kmm.use[KMM_USER], 0 - (uintptr_t)1);
    (void)mm_frame_lru_remove(&kmm.lru, pa);
    kmm_frame_put(pa);
}

static void hook_frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    MM_MEMCPY(kmm_at(to), kmm_at(from), MM_PAGE_SIZE);
}

/* NULL for a device or the zero frame, as mm_vma does not count those. Whether the frame is in use
 * must not matter: who asks has just read its address in a table, and it may have been evicted
 * since. */
static struct mm_vma_frame *hook_frame(void *ctx, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(&kmm.pool, pa);
    if (desc == NULL || pa == kmm.vma.zero_frame)
        return NULL;
    return &kmm.records[mm_frame_desc_index(&kmm.pool, desc)];
}

void kmm_frame_mapped(void *ctx, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(&kmm.pool, pa);
    if (desc != NULL)
        (void)mm_frame_lru_add(&kmm.lru, pa,
                               desc->mapping != NULL ? MM_FRAME_LRU_FILE : MM_FRAME_LRU_ANON);
}

/* ---- Hooks of user spaces: mm_vma's own memory (under a lock: nothing is reclaimed) ------------ */

static struct mm_vma_node *hook_node_alloc(void *ctx)
{
    return mm_slab_alloc(&kmm.cache[KMM_NODE], MM_SLAB_NOWAIT);
}

static void hook_node_free(void *ctx, struct mm_vma_node *node)
{
    (void)mm_slab_free(&kmm.cache[KMM_NODE], node);
}

static struct mm_vma *hook_area_alloc(void *ctx)
{
    return mm_slab_alloc(&kmm.cache[KMM_AREA], MM_SLAB_NOWAIT);
}

static void hook_area_free(void *ctx, struct mm_vma *area)
{
    (void)mm_slab_free(&kmm.cache[KMM_AREA], area);
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

static enum mm_status set_up_frames(void)
{
    struct mm_frame_config config = {.zones = kmm.config.zones,
                                     .zone_count = kmm.config.zone_count,
                                     .carve_below = (mm_pa_t)1 << 32,
                                     .descriptors = true,
                                     .hooks = {.view = hook_view}};
    enum mm_status status = mm_frame_map_clean(kmm.config.map, kmm.config.map_count, kmm.map,
                                               3 * KMM_MAP_MAX, &kmm.map_count);
    size_t i;
    for (i = kmm.map_count; i-- != 0;) /* sorted */
        if (kmm.map[i].type == MM_FRAME_USABLE) {
            kmm.low = kmm.map[i].base;
            kmm.high = kmm.high != 0 ? kmm.high : kmm.low + kmm.map[i].size;
        }
    config.map = kmm.map;
    config.map_count = kmm.map_count;
    if (status == MM_OK)
        status = mm_frame_init(&kmm.pool, &config);
    return status == MM_OK ? mm_frame_lru_init(&kmm.lru, &kmm.pool) : status;
}

static enum mm_status set_up_arena(struct mm_buddy *b, uint64_t base, uint64_t bytes,
                                   bool cpu_lists)
{
    struct mm_buddy_config config;
    size_t meta_bytes;
    void *meta;
    mm_buddy_config_init(&config, base, bytes, MM_PAGE_SHIFT, 13);
    config.cpu_lists = cpu_lists;
    meta_bytes = mm_buddy_meta_bytes(&config);
    meta = kmm_own(meta_bytes);
    return meta == NULL ? MM_ERR_NOMEM : mm_buddy_init(b, &config, meta, meta_bytes);
}

static enum mm_status set_up_heap(void)
{
    static const struct mm_slab_hooks hooks = {
        .alloc = hook_slab_alloc, .free = hook_slab_free, .reclaim = hook_slab_reclaim};
    const uint64_t bytes = kmm.high - kmm.low;
    struct mm_slab_config config;
    enum mm_status status = set_up_arena(&kmm.buddy, kmm.low, bytes, true);
    if (status == MM_OK) /* empty at first: see buddy_take */
        status = mm_buddy_shrink(&kmm.buddy, kmm.low, bytes);
    mm_slab_config_init(&config, &hooks);
    return status == MM_OK ? mm_slab_init(&kmm.heap, &config) : status;
}

/* All memory at `direct`, but the kernel's image only to be read: nothing that is executable is
 * writable through another address. Then the image, as it says. */
static enum mm_status set_up_kernel_space(void)
{
    enum mm_status status = table_init(&kmm.kernel);
    size_t i;
    for (i = 0; i < kmm.map_count && status == MM_OK; i++) {
        const struct mm_frame_range *r = &kmm.map[i];
        const uint32_t write = r->type != MM_FRAME_KERNEL ? MM_PAGETABLE_WRITE : 0;
        if (r->type < MM_FRAME_DEVICE) /* what is memory comes first among the types */
            status = kmm_map(kmm.config.direct + r->base, r->base, r->size,
                             MM_PAGETABLE_READ | MM_PAGETABLE_GLOBAL | write);
    }
    for (i = 0; i < kmm.config.mapping_count && status == MM_OK; i++) {
        const struct kmm_mapping *m = &kmm.config.mappings[i];
        status = kmm_map(m->va, m->pa, m->bytes, m->attr);
    }
    if (status == MM_OK) /* for the tables: they stay, and user spaces get them too */
        status = kmm_map(kmm.config.vmap, 0, MM_PAGE_SIZE, MM_PAGETABLE_READ);
    if (status == MM_OK)
        status = kmm_unmap(kmm.config.vmap, MM_PAGE_SIZE);
    return status == MM_OK ? set_up_arena(&kmm.vmap, kmm.config.vmap, KMM_VMAP_BYTES, false)
                           : status;
}

static enum mm_status set_up_caches(void)
{
    static const struct mm_slab_cache_config configs[KMM_CACHES] = {
        {.name = "space", .size = sizeof(struct kmm_space), .align = 64},
        {.name = "area", .size = sizeof(struct mm_vma), .align = 64},
        {.name = "area_node", .size = sizeof(struct mm_vma_node), .align = 64}};
    enum mm_status status = MM_OK;
    unsigned i;
    for (i = 0; i < KMM_CACHES && status == MM_OK; i++)
        status = mm_slab_cache_init(&kmm.cache[i], &kmm.heap, &configs[i]);
    return status;
}

static enum mm_status set_up_users(void)
{
    struct mm_vma_hooks hooks = {.nodes = {NULL, hook_node_alloc, hook_node_free},
                                 .area_alloc = hook_area_alloc,
                                 .area_free = hook_area_free,
                                 .frame_alloc = kmm_frame_alloc,
                                 .frame_free = kmm_frame_free,
                                 .frame_copy = hook_frame_copy,
                                 .frame = hook_frame,
                                 .mapped = kmm_frame_mapped};
    void *zero = kmm_own(MM_PAGE_SIZE);
    enum mm_status status;
    kmm.records = kmm_own(mm_frame_desc_count(&kmm.pool) * sizeof *kmm.records);
    if (zero == NULL || kmm.records == NULL)
        return MM_ERR_NOMEM;
    kmm_table_hooks(&hooks);
    kmm_file_hooks(&hooks);
    kmm_swap_hooks(&hooks);
    status = mm_vma_system_init(&kmm.vma, &hooks);
    kmm.vma.zero_frame = kmm_pa_of(zero);
    return status == MM_OK ? set_up_caches() : status;
}

enum mm_status kmm_init(const struct kmm_config *config)
{
    static enum mm_status (*const steps[])(void) = {set_up_frames, set_up_heap, set_up_kernel_space,
                                                    kmm_swap_init, set_up_users};
    enum mm_status status = config->map_count > KMM_MAP_MAX ? MM_ERR_LIMIT : MM_OK;
    size_t i;
    MM_MEMSET(&kmm, 0, sizeof kmm);
    kmm.config = *config;
    kmm.debug = 1;
    for (i = 0; i < sizeof steps / sizeof steps[0] && status == MM_OK; i++)
        status = steps[i]();
    return status;
}

void kmm_fini(void)
{
    unsigned i;
    mm_vma_system_fini(&kmm.vma);
    (void)mm_pagetable_destroy(&kmm.kernel, true);
    for (i = 0; i < KMM_CACHES; i++)
        (void)mm_slab_cache_destroy(&kmm.cache[i], NULL);
    (void)mm_slab_fini(&kmm.heap);
    kmm_trim();
}

/* ---- User spaces ----------------------------------------------------------------------------- */

/* The kernel's half, 256 of 512 entries: those that there are. */
static enum mm_status lend_kernel(struct kmm_space *space)
{
    const uint64_t half = mm_pagetable_size(&kmm.kernel, kmm.config.format->levels - 1) * 256;
    return mm_pagetable_lend_present(&space->pt, &kmm.kernel, 0 - half, half);
}

static void space_drop(struct kmm_space *space)
{
    (void)mm_pagetable_destroy(&space->pt, true);
    (void)mm_slab_free(&kmm.cache[KMM_SPACE], space);
}

/* A space with page tables and quota, its mm_vma_space still raw memory. */
static struct kmm_space *space_shell(uint64_t quota)
{
    struct kmm_space *space = mm_slab_alloc(&kmm.cache[KMM_SPACE], MM_SLAB_ZERO);
    if (space == NULL)
        return NULL;
    mm_frame_quota_init(&space->quota, NULL, quota != 0 ? quota : UINTPTR_MAX);
    if (table_init(&space->pt) != MM_OK)
        (void)mm_slab_free(&kmm.cache[KMM_SPACE], space);
    else if (lend_kernel(space) != MM_OK)
        space_drop(space);
    else
        return space;
    return NULL;
}

struct kmm_space *kmm_space_create(uint64_t quota)
{
    struct kmm_space *space = space_shell(quota);
    struct mm_vma_config config;
    if (space == NULL)
        return NULL;
    mm_vma_config_init(&config);
    config.low = config.up_base = kmm.config.user_low;
    config.top = kmm.config.user_top;
    config.mmap_base = mm_align_down(config.top - (config.top - config.low) / 4, MM_PAGE_SIZE);
    config.guard_pages = 16;
    config.limits.stack = (uint64_t)1 << 20;
    config.pt = space;
    if (mm_vma_space_init(&space->vma, &kmm.vma, &config) == MM_OK)
        return space;
    space_drop(space);
    return NULL;
}

struct kmm_space *kmm_space_clone(struct kmm_space *from)
{
    struct kmm_space *space = space_shell(from->quota.limit);
    if (space == NULL)
        return NULL;
    if (mm_vma_fork(&space->vma, &from->vma, space) == 0 ||
        (kmm_reclaim(256) != 0 && mm_vma_fork(&space->vma, &from->vma, space) == 0))
        return space;
    space_drop(space);
    return NULL;
}

void kmm_space_destroy(struct kmm_space *space)
{
    if (mm_vma_leave(&space->vma))
        space_drop(space);
}

uint64_t kmm_space_root(const struct kmm_space *space)
{
    return mm_pagetable_root(&space->pt);
}

/* No hardware has write or execute without read here, and nothing is both writable and
 * executable. */
static int policy(unsigned *prot)
{
    if ((*prot & MM_VMA_WRITE) != 0 && (*prot & MM_VMA_EXEC) != 0)
        return MM_VMA_EACCES;
    if (*prot != 0)
        *prot |= MM_VMA_READ;
    return 0;
}

int kmm_region_alloc(struct kmm_space *space, enum mm_vma_preset kind, mm_va_t va, uint64_t bytes,
                     mm_pa_t pa)
{
    return mm_vma_install(&space->vma, kind, va, bytes, pa, 0);
}

int kmm_region_free(struct kmm_space *space, mm_va_t va, uint64_t bytes)
{
    return mm_vma_munmap(&space->vma, va, bytes);
}

int kmm_region_protect(struct kmm_space *space, mm_va_t va, uint64_t bytes, unsigned prot)
{
    int error = policy(&prot);
    return error != 0 ? error : mm_vma_mprotect(&space->vma, va, bytes, prot);
}

int kmm_mmap(struct kmm_space *space, const struct mm_vma_request *wanted, mm_va_t *va)
{
    struct mm_vma_request request = *wanted;
    int error = policy(&request.prot);
    if (error == 0)
        error = mm_vma_mmap(&space->vma, &request, va);
    if (error == MM_VMA_ENOMEM && kmm_reclaim(256) != 0)
        error = mm_vma_mmap(&space->vma, &request, va);
    return error;
}

enum mm_vma_fault kmm_fault(struct kmm_space *space, mm_va_t va, unsigned access)
{
    enum mm_vma_fault fault = MM_VMA_FAULT_RETRY;
    unsigned tries;
    for (tries = 0; tries < 8 && fault == MM_VMA_FAULT_RETRY; tries++) {
        fault = mm_vma_fault(&space->vma, va, access);
        if (fault == MM_VMA_FAULT_NOMEM && kmm_reclaim(64) != 0)
            fault = MM_VMA_FAULT_RETRY;
    }
    if (fault == MM_VMA_FAULT_OK) /* for processors that leave these bits to software */
        (void)mm_pagetable_mark(&space->pt, va & ~(MM_PAGE_SIZE - 1),
                                MM_PAGETABLE_ACCESSED |
                                    (access == MM_VMA_WRITE ? MM_PAGETABLE_DIRTY : 0u));
    (void)mm_fetch_add(&kmm.faults, 1);
    return fault == MM_VMA_FAULT_RETRY ? MM_VMA_FAULT_NOMEM : fault;
}
