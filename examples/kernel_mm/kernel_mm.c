/* kernel_mm.c - see kernel_mm.h */
#define MM_FRAME_IMPLEMENTATION
#define MM_BUDDY_IMPLEMENTATION
#define MM_SLAB_IMPLEMENTATION
#define MM_PAGETABLE_IMPLEMENTATION
#define MM_VMA_IMPLEMENTATION
#include "kernel_mm.h"

#define KMM_CHUNK \
    ((uint64_t)1 << (MM_PAGE_SHIFT + MM_FRAME_HUGE_ORDER)) /* what mm_buddy grows by */
#define KMM_MAP_MAX      64
#define KMM_LENT_MAX     64
#define KMM_PAGES(bytes) (((uint64_t)(bytes) + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT)

static struct {
    struct kmm_config config;
    struct mm_frame_range map[3 * KMM_MAP_MAX]; /* cleaned */
    size_t map_count;
    struct mm_frame_pool pool;
    unsigned normal;       /* the zone that most allocations prefer */
    mm_pa_t first, last;   /* lowest and highest frame of the pool */
    struct mm_buddy buddy; /* the normal zone's page runs: takes chunks from the pool as needed */
    mm_pa_t buddy_meta, buddy_low, buddy_high;
    size_t buddy_meta_bytes;
    struct mm_slab_heap heap;
    struct mm_slab_cache space_cache, area_cache, node_cache;
    struct mm_pagetable kernel;
    mm_va_t lent[KMM_LENT_MAX]; /* its top-level entries that user tables get */
    uint64_t lent_bytes;
    unsigned lent_count;
    struct mm_buddy vmap; /* the addresses of kmm_map_device */
    void *vmap_meta;
    struct mm_vma_system vma;
    struct mm_vma_frame *records; /* who maps a frame: by place of its descriptor */
    struct mm_frame_lru lru;
    struct {
        MM_LOCK_T lock;
        mm_pa_t pa;
        uint16_t *count; /* by slot; 0: free */
        uint64_t slots, used, rover;
    } swap;
    uintptr_t use[KMM_USES], evicted, swapped_in, faults, reports, freed, random;
    unsigned debug;
} kmm;

/* What the headers dump, a line at a time. */
static void print_line(void *ctx, const char *line)
{
    (void)ctx;
    kmm.config.print("  %s\n", line);
}

static void print_area(void *ctx, const char *line, size_t length)
{
    (void)length;
    print_line(ctx, line);
}

/* ---- Hooks: frames, pages, objects ------------------------------------------------------------------ */

void *kmm_at(mm_pa_t pa)
{
    return kmm_pointer(kmm.config.direct, pa);
}

mm_pa_t kmm_pa_of(const void *at)
{
    return (mm_pa_t)((uintptr_t)at - kmm.config.direct);
}

static void note_use(enum kmm_use use, uint64_t count, bool more)
{
    (void)mm_fetch_add(&kmm.use[use], more ? (uintptr_t)count : 0 - (uintptr_t)count);
}

static void hook_zero(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx;
    MM_MEMSET(kmm_at(pa), 0, bytes);
}

static void *hook_view(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx, (void)bytes;
    return kmm_at(pa);
}

/* Frames in a row for the kernel's own use. */
static mm_pa_t take_run(enum kmm_use use, uint64_t count, uint64_t align)
{
    struct mm_frame_request request = {0};
    mm_pa_t pa;
    request.count = count;
    request.align = align;
    request.flags = MM_FRAME_ZONE(kmm.normal) | MM_FRAME_NOWAIT;
    pa = mm_frame_alloc_run(&kmm.pool, &request);
    if (pa != MM_PA_NONE)
        note_use(use, count, true);
    return pa;
}

static enum mm_status give_run(enum kmm_use use, mm_pa_t pa, uint64_t count)
{
    enum mm_status status = mm_frame_free_run(&kmm.pool, pa, count);
    if (status == MM_OK)
        note_use(use, count, false);
    return status;
}

/* mm_buddy serves runs of pages; when it has none it takes more of the zone from mm_frame. */
static mm_pa_t buddy_take(uint64_t bytes, uint64_t align)
{
    mm_pa_t pa = mm_buddy_alloc_aligned(&kmm.buddy, bytes, align, MM_BUDDY_UNMOVABLE), chunk;
    uint64_t size = mm_align_up(bytes, KMM_CHUNK);
    if (pa != MM_PA_NONE)
        return pa;
    chunk = take_run(KMM_BUDDY, size >> MM_PAGE_SHIFT, align > KMM_CHUNK ? align : KMM_CHUNK);
    if (chunk == MM_PA_NONE)
        return MM_PA_NONE;
    if (chunk < kmm.buddy_low || chunk + size > kmm.buddy_high ||
        mm_buddy_grow(&kmm.buddy, chunk, size) != MM_OK) { /* of another zone */
        (void)give_run(KMM_BUDDY, chunk, size >> MM_PAGE_SHIFT);
        return MM_PA_NONE;
    }
    return mm_buddy_alloc_aligned(&kmm.buddy, bytes, align, MM_BUDDY_UNMOVABLE);
}

/* Chunks that are wholly free go back to mm_frame. */
static void buddy_trim(void)
{
    mm_pa_t pa;
    mm_buddy_drain(&kmm.buddy);
    for (pa = mm_align_up(kmm.buddy_low, KMM_CHUNK); pa < kmm.buddy_high; pa += KMM_CHUNK)
        if (mm_buddy_shrink(&kmm.buddy, pa, KMM_CHUNK) == MM_OK)
            (void)give_run(KMM_BUDDY, pa, KMM_CHUNK >> MM_PAGE_SHIFT);
}

static void *hook_slab_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    mm_pa_t pa = buddy_take(bytes, align);
    (void)ctx, (void)flags;
    return pa == MM_PA_NONE ? NULL : kmm_at(pa);
}

static void hook_slab_free(void *ctx, void *p, size_t bytes)
{
    (void)ctx, (void)bytes;
    (void)mm_buddy_free(&kmm.buddy, kmm_pa_of(p));
}

static bool hook_slab_reclaim(void *ctx, struct mm_slab_heap *heap, size_t bytes)
{
    (void)ctx, (void)heap;
    return kmm_reclaim(KMM_PAGES(bytes) + 32) != 0;
}

static mm_pa_t hook_table_alloc(void *ctx, uint64_t bytes)
{
    mm_pa_t pa;
    (void)ctx, (void)bytes;
    pa = mm_frame_alloc(&kmm.pool, MM_FRAME_ZONE(kmm.normal) | MM_FRAME_NOWAIT | MM_FRAME_URGENT);
    if (pa != MM_PA_NONE)
        note_use(KMM_TABLES, 1, true);
    return pa;
}

static void hook_table_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx, (void)bytes;
    (void)give_run(KMM_TABLES, table, 1);
}

static void hook_kernel_flush(void *ctx, const struct mm_pagetable_flush *flush)
{
    (void)ctx;
    kmm.config.flush(flush);
}

/* Of user tables mm_vma knows best what to flush and when (hook_pt_flush); no table is freed before the
 * space ends. A processor may have cached that there was nothing, though. */
static void hook_user_flush(void *ctx, const struct mm_pagetable_flush *flush)
{
    (void)ctx;
    if (flush->filled_only)
        kmm.config.flush(flush);
}

static const struct mm_pagetable_hooks kernel_hooks = {
    .alloc = hook_table_alloc, .free = hook_table_free, .flush = hook_kernel_flush};
static const struct mm_pagetable_hooks user_hooks = {
    .alloc = hook_table_alloc, .free = hook_table_free, .flush = hook_user_flush};

/* ---- Hooks: user pages ----------------------------------------------------------------------------------- */

static mm_pa_t hook_frame_alloc(void *ctx, bool zero)
{
    mm_pa_t pa = mm_frame_alloc_ref(
        &kmm.pool, 0, MM_FRAME_ZONE(kmm.normal) | MM_FRAME_NOWAIT | (zero ? MM_FRAME_ZERO : 0u));
    (void)ctx;
    if (pa != MM_PA_NONE)
        note_use(KMM_USER, 1, true);
    return pa;
}

/* Drops a reference to a user frame; the last one frees it, off the LRU lists. */
static void frame_put(mm_pa_t pa)
{
    while (mm_frame_put(&kmm.pool, pa) == MM_ERR_BUSY)
        (void)mm_frame_lru_remove(&kmm.lru, pa);
}

static void hook_frame_free(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    if (kmm.debug >= 2)
        MM_MEMSET(kmm_at(pa), 0x6b, MM_PAGE_SIZE);
    note_use(KMM_USER, 1, false);
    (void)mm_frame_lru_remove(&kmm.lru, pa);
    frame_put(pa);
}

static void hook_frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    (void)ctx;
    MM_MEMCPY(kmm_at(to), kmm_at(from), MM_PAGE_SIZE);
}

static struct mm_vma_frame *hook_frame(void *ctx, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(&kmm.pool, pa);
    (void)ctx;
    if (desc == NULL || mm_load(&desc->refs) == 0)
        return NULL; /* a device, or the zero frame */
    return &kmm.records[desc - mm_frame_desc_of(&kmm.pool, kmm.first)];
}

static void hook_mapped(void *ctx, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(&kmm.pool, pa);
    (void)ctx;
    if (desc != NULL)
        (void)mm_frame_lru_add(&kmm.lru, pa,
                               desc->mapping != NULL ? MM_FRAME_LRU_FILE : MM_FRAME_LRU_ANON);
}

/* Entries of user tables. A page without any right, and a slot of the swap disk, are software entries:
 * frame number * 2 + 1, slot * 2. */
static bool entry_present(const struct mm_pagetable_entry *e)
{
    return (e->attr & MM_PAGETABLE_SWAP) == 0 || (e->pa & 1) != 0;
}

static uint32_t attr_device(const struct mm_pagetable *pt)
{
    const bool typed =
        pt->format->family != MM_PAGETABLE_FAMILY_RISCV || (pt->flags & MM_PAGETABLE_SVPBMT) != 0;
    return MM_PAGETABLE_SOFT0 | (typed ? MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE) : 0u);
}

static uint32_t attr_of(const struct mm_pagetable *pt, unsigned prot)
{
    return MM_PAGETABLE_USER | MM_PAGETABLE_READ |
           ((prot & MM_VMA_WRITE) != 0 ? MM_PAGETABLE_WRITE : 0u) |
           ((prot & MM_VMA_EXEC) != 0 ? MM_PAGETABLE_EXEC : 0u) |
           ((prot & MM_VMA_DEVICE) != 0 ? attr_device(pt) : 0u);
}

static bool page_present(struct kmm_space *space, mm_va_t va)
{
    struct mm_pagetable_entry e;
    return mm_pagetable_query(&space->pt, va, &e) == MM_OK && entry_present(&e);
}

static enum mm_status hook_pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct kmm_space *space = pt;
    const bool counted = page_present(space, va);
    enum mm_status status;
    (void)ctx;
    if (!counted && mm_frame_quota_charge(&space->quota, 1) != MM_OK)
        return MM_ERR_NOMEM;
    status = (prot & MM_VMA_PROT) == 0
                 ? mm_pagetable_swap(&space->pt, va, pa >> MM_PAGE_SHIFT << 1 | 1, NULL)
                 : mm_pagetable_map(&space->pt, va, pa, MM_PAGE_SIZE, attr_of(&space->pt, prot),
                                    MM_PAGETABLE_REPLACE, NULL);
    if (status != MM_OK && !counted)
        (void)mm_frame_quota_uncharge(&space->quota, 1);
    return status;
}

static enum mm_status hook_pt_swap(void *ctx, void *pt, mm_va_t va, uint64_t slot)
{
    struct kmm_space *space = pt;
    const bool counted = page_present(space, va);
    enum mm_status status = mm_pagetable_swap(&space->pt, va, slot << 1, NULL);
    (void)ctx;
    if (status == MM_OK && counted)
        (void)mm_frame_quota_uncharge(&space->quota, 1);
    return status;
}

static bool hook_pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    struct kmm_space *space = pt;
    struct mm_pagetable_entry e;
    (void)ctx;
    if (end == 0 || end > kmm.config.user_top) /* "all": the kernel's half is not its business */
        end = kmm.config.user_top;
    for (; va < end; va = e.va + e.bytes) {
        if (mm_pagetable_query(&space->pt, va, &e) != MM_OK)
            continue;
        entry->va = va;
        entry->pa = MM_PA_NONE;
        entry->prot = 0;
        entry->dirty = true;
        if ((e.attr & MM_PAGETABLE_SWAP) != 0) {
            if ((e.pa & 1) != 0)
                entry->pa = e.pa >> 1 << MM_PAGE_SHIFT;
            else
                entry->slot = e.pa >> 1;
            return true;
        }
        entry->pa = e.pa + (va - e.va);
        entry->prot = MM_VMA_READ | ((e.attr & MM_PAGETABLE_WRITE) != 0 ? MM_VMA_WRITE : 0u) |
                      ((e.attr & MM_PAGETABLE_EXEC) != 0 ? MM_VMA_EXEC : 0u) |
                      ((e.attr & MM_PAGETABLE_SOFT0) != 0 ? MM_VMA_DEVICE : 0u);
        entry->dirty = (e.attr & MM_PAGETABLE_DIRTY) != 0;
        return true;
    }
    return false;
}

static void hook_pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    struct kmm_space *space = pt;
    struct mm_vma_entry e;
    struct mm_pagetable_entry now;
    if (mm_pagetable_query(&space->pt, va, &now) == MM_OK && (now.attr & MM_PAGETABLE_SWAP) == 0 &&
        (prot & MM_VMA_PROT) != 0) /* keeps accessed, dirty */
        (void)mm_pagetable_protect(&space->pt, va, MM_PAGE_SIZE,
                                   attr_of(&space->pt, prot) & MM_PAGETABLE_PERMS,
                                   MM_PAGETABLE_PERMS, NULL);
    else if (hook_pt_next(ctx, pt, va, va + MM_PAGE_SIZE, &e) && e.pa != MM_PA_NONE)
        (void)hook_pt_map(ctx, pt, va, e.pa, prot);
}

static void hook_pt_clear(void *ctx, void *pt, mm_va_t va)
{
    struct kmm_space *space = pt;
    const bool counted = page_present(space, va);
    (void)ctx;
    if (mm_pagetable_unmap(&space->pt, va, MM_PAGE_SIZE, NULL) == MM_OK && counted)
        (void)mm_frame_quota_uncharge(&space->quota, 1);
}

static void hook_pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    struct kmm_space *space = pt;
    struct mm_pagetable_range range = {va, bytes, 0};
    struct mm_pagetable_flush flush = {0};
    (void)ctx;
    flush.pt = &space->pt;
    flush.ranges = &range;
    flush.count = 1;
    flush.all = bytes > 32 * MM_PAGE_SIZE;
    kmm.config.flush(&flush);
}

/* Memory of mm_vma's own; these run under a space's lock, where nothing may be reclaimed. */
static struct mm_vma_node *hook_node_alloc(void *ctx)
{
    (void)ctx;
    return mm_slab_alloc(&kmm.node_cache, MM_SLAB_NOWAIT);
}
static void hook_node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    (void)mm_slab_free(&kmm.node_cache, node);
}
static struct mm_vma *hook_area_alloc(void *ctx)
{
    (void)ctx;
    return mm_slab_alloc(&kmm.area_cache, MM_SLAB_NOWAIT);
}
static void hook_area_free(void *ctx, struct mm_vma *area)
{
    (void)ctx;
    (void)mm_slab_free(&kmm.area_cache, area);
}

/* Where mmap places areas; a kernel that is meant to be attacked takes better numbers. */
static uint64_t hook_random(void *ctx, uint64_t below)
{
    uint64_t x = mm_fetch_add(&kmm.random, 1) * UINT64_C(0x9e3779b97f4a7c15);
    (void)ctx;
    return (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93) % below;
}

/* ---- Hooks: files ------------------------------------------------------------------------------------------ */

enum mm_status kmm_file_open(struct kmm_file *file, const char *name, void *data, uint64_t bytes)
{
    uint64_t i;
    MM_MEMSET(file, 0, sizeof *file);
    file->pages = kmm_alloc((size_t)KMM_PAGES(bytes) * sizeof *file->pages, MM_SLAB_NOWAIT);
    if (file->pages == NULL)
        return MM_ERR_NOMEM;
    for (i = 0; i < KMM_PAGES(bytes); i++) {
        file->pages[i].pa = MM_PA_NONE;
        file->pages[i].maps = 0;
    }
    file->name = name;
    file->data = data;
    file->bytes = bytes;
    file->references = 1;
    MM_LOCK_INIT(&file->lock);
    return MM_OK;
}

void kmm_file_close(struct kmm_file *file)
{
    (void)kmm_free(file->pages);
    file->pages = NULL;
}

static void hook_file_get(void *ctx, void *file)
{
    (void)ctx;
    (void)mm_fetch_add(&((struct kmm_file *)file)->references, 1);
}

static void hook_file_put(void *ctx, void *at)
{
    struct kmm_file *file = at;
    (void)ctx;
    if (mm_fetch_add(&file->references, 0 - (uintptr_t)1) != 1 || !file->shared_memory)
        return;
    kmm_file_close(file);
    (void)kmm_free(file->data);
    (void)kmm_free(file);
}

static const char *hook_file_name(void *ctx, void *file)
{
    (void)ctx;
    return ((struct kmm_file *)file)->name;
}

static uint64_t file_page_bytes(const struct kmm_file *file, uint64_t index)
{
    uint64_t left = file->bytes - (index << MM_PAGE_SHIFT);
    return left < MM_PAGE_SIZE ? left : MM_PAGE_SIZE;
}

static enum mm_status hook_file_page(void *ctx, void *at, uint64_t index, bool write, mm_pa_t *pa)
{
    struct kmm_file *file = at;
    struct kmm_file_page *page;
    MM_LOCK_STATE_T state;
    mm_pa_t fresh;
    (void)write;
    if (index >= KMM_PAGES(file->bytes))
        return MM_ERR_NOENT;
    fresh = hook_frame_alloc(ctx, true); /* before it is known to be needed: not under the lock */
    page = &file->pages[index];
    MM_LOCK(&file->lock, state);
    if (page->maps == 0 && fresh != MM_PA_NONE) {
        MM_MEMCPY(kmm_at(fresh), file->data + (index << MM_PAGE_SHIFT),
                  file_page_bytes(file, index));
        mm_frame_desc_of(&kmm.pool, fresh)->mapping = file;
        page->pa = fresh;
        fresh = MM_PA_NONE;
        file->reads++;
    }
    *pa = page->pa;
    if (*pa != MM_PA_NONE)
        page->maps++;
    MM_UNLOCK(&file->lock, state);
    if (fresh != MM_PA_NONE)
        hook_frame_free(ctx, fresh);
    return *pa == MM_PA_NONE ? MM_ERR_NOMEM : MM_OK;
}

static void hook_file_page_put(void *ctx, void *at, uint64_t index, mm_pa_t pa, bool dirty)
{
    struct kmm_file *file = at;
    struct kmm_file_page *page = &file->pages[index];
    MM_LOCK_STATE_T state;
    bool last;
    MM_LOCK(&file->lock, state);
    if (dirty) {
        MM_MEMCPY(file->data + (index << MM_PAGE_SHIFT), kmm_at(pa), file_page_bytes(file, index));
        file->writes++;
    }
    last = --page->maps == 0;
    if (last)
        page->pa = MM_PA_NONE;
    MM_UNLOCK(&file->lock, state);
    if (last)
        hook_frame_free(ctx, pa);
}

static enum mm_status hook_shared(void *ctx, uint64_t pages, void **at)
{
    struct kmm_file *file = kmm_alloc(sizeof *file, MM_SLAB_NOWAIT);
    void *data = kmm_alloc((size_t)(pages << MM_PAGE_SHIFT), MM_SLAB_NOWAIT | MM_SLAB_ZERO);
    (void)ctx;
    if (file == NULL || data == NULL ||
        kmm_file_open(file, "[shared]", data, pages << MM_PAGE_SHIFT) != MM_OK) {
        (void)kmm_free(file);
        (void)kmm_free(data);
        return MM_ERR_NOMEM;
    }
    file->shared_memory = true;
    *at = file;
    return MM_OK;
}

/* ---- Hooks: swap; reclaim ------------------------------------------------------------------------------------- */

static void *swap_at(uint64_t slot)
{
    return kmm_at(kmm.swap.pa + (slot << MM_PAGE_SHIFT));
}

static enum mm_status hook_swap_out(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    MM_LOCK_STATE_T state;
    uint64_t tries, at;
    (void)ctx;
    MM_LOCK(&kmm.swap.lock, state);
    at = kmm.swap.rover;
    for (tries = kmm.swap.slots; tries != 0 && kmm.swap.count[at] != 0; tries--)
        at = at + 1 == kmm.swap.slots ? 0 : at + 1;
    if (tries != 0) {
        kmm.swap.count[at] = 1;
        kmm.swap.used++;
        kmm.swap.rover = at;
    }
    MM_UNLOCK(&kmm.swap.lock, state);
    if (tries == 0)
        return MM_ERR_NOMEM;
    *slot = at;
    MM_MEMCPY(swap_at(at), kmm_at(pa), MM_PAGE_SIZE);
    return MM_OK;
}

static enum mm_status hook_swap_in(void *ctx, uint64_t slot, mm_pa_t pa)
{
    (void)ctx;
    MM_MEMCPY(kmm_at(pa), swap_at(slot), MM_PAGE_SIZE);
    (void)mm_fetch_add(&kmm.swapped_in, 1);
    return MM_OK;
}

static void hook_swap_dup(void *ctx, uint64_t slot)
{
    MM_LOCK_STATE_T state;
    (void)ctx;
    MM_LOCK(&kmm.swap.lock, state);
    kmm.swap.count[slot]++;
    MM_UNLOCK(&kmm.swap.lock, state);
}

static void hook_swap_free(void *ctx, uint64_t slot)
{
    MM_LOCK_STATE_T state;
    (void)ctx;
    MM_LOCK(&kmm.swap.lock, state);
    if (--kmm.swap.count[slot] == 0)
        kmm.swap.used--;
    MM_UNLOCK(&kmm.swap.lock, state);
}

static bool clear_accessed(void *ctx, struct mm_vma_space *vma, mm_va_t va)
{
    struct kmm_space *space = vma->pt;
    if (mm_pagetable_harvest(&space->pt, va, MM_PAGE_SIZE, MM_PAGETABLE_ACCESSED,
                             MM_PAGETABLE_ACCESSED, NULL, NULL, NULL) == MM_OK)
        *(bool *)ctx = true;
    return true;
}

/* The frame is off its list here. A reference of its own keeps it from becoming another's meanwhile;
 * what stays goes back to the young end of its list, unless its last owner has gone. */
static enum mm_status evict_one(void *gone, struct mm_frame_pool *pool, mm_pa_t pa)
{
    enum mm_status status = MM_ERR_BUSY;
    bool used = false;
    if (mm_frame_get(pool, pa) != MM_OK)
        return MM_OK;
    (void)mm_vma_frame_walk(&kmm.vma, pa, clear_accessed, &used);
    if (!used)
        status = mm_vma_evict(&kmm.vma, pa);
    if (status == MM_OK)
        ++*(uint64_t *)gone;
    else if (status != MM_ERR_NOENT)
        hook_mapped(NULL, pa);
    frame_put(pa);
    return MM_OK;
}

uint64_t kmm_reclaim(uint64_t want)
{
    uint64_t gone = 0, tries = 2 * (uint64_t)mm_load(&kmm.use[KMM_USER]) + want;
    unsigned kind = 0;
    for (; gone < want && tries != 0; kind ^= 1u) {
        uint64_t scan = want - gone < tries ? want - gone : tries;
        (void)mm_frame_lru_shrink(&kmm.lru, (enum mm_frame_lru_kind)kind, (size_t)scan,
                                  (size_t)scan, evict_one, &gone);
        tries -= scan;
    }
    (void)mm_fetch_add(&kmm.evicted, (uintptr_t)gone);
    return gone;
}

/* ---- Set-up ------------------------------------------------------------------------------------------------------ */

static bool is_memory(enum mm_frame_type type)
{
    return type == MM_FRAME_USABLE || type == MM_FRAME_KERNEL || type == MM_FRAME_BOOTLOADER ||
           type == MM_FRAME_ACPI_RECLAIM || type == MM_FRAME_ACPI_NVS;
}

/* Watermarks at 1/256, 1/128 and 1/64 of what each zone has; finds the highest zone with memory. */
static void set_up_zones(void)
{
    unsigned z;
    size_t i;
    for (z = 0; z < kmm.config.zone_count; z++) {
        struct mm_frame_zone_config *zone = &kmm.config.zones[z];
        uint64_t pages = 0;
        for (i = 0; i < kmm.map_count; i++) {
            mm_pa_t from = kmm.map[i].base, to = from + kmm.map[i].size;
            from = from > zone->start ? from : zone->start;
            to = to < zone->end ? to : zone->end;
            if (kmm.map[i].type != MM_FRAME_USABLE || from >= to)
                continue;
            pages += (to - from) >> MM_PAGE_SHIFT;
            if (kmm.normal != z)
                kmm.buddy_low = from;
            kmm.buddy_high = to;
            kmm.normal = z;
            kmm.first = kmm.first < from ? kmm.first : from;
            kmm.last = to - MM_PAGE_SIZE;
        }
        zone->min = pages / 256;
        zone->low = pages / 128;
        zone->high = pages / 64;
    }
}

static enum mm_status set_up_frames(void)
{
    struct mm_frame_config config = {0};
    enum mm_status status;
    kmm.first = MM_PA_NONE;
    kmm.normal = MM_FRAME_ZONE_MAX;
    status = mm_frame_map_clean(kmm.config.map, kmm.config.map_count, kmm.map,
                                sizeof kmm.map / sizeof kmm.map[0], &kmm.map_count);
    if (status != MM_OK)
        return status;
    set_up_zones();
    if (kmm.first == MM_PA_NONE)
        return MM_ERR_NOMEM;
    config.map = kmm.map;
    config.map_count = kmm.map_count;
    config.zones = kmm.config.zones;
    config.zone_count = kmm.config.zone_count;
    config.carve_below = (mm_pa_t)1 << 32;
    config.descriptors = true;
    config.hooks.zero = hook_zero;
    config.hooks.view = hook_view;
    status = mm_frame_init(&kmm.pool, &config);
    while (status == MM_OK && mm_frame_is_free(&kmm.pool, kmm.first) != 1)
        kmm.first += MM_PAGE_SIZE; /* behind the metadata */
    while (status == MM_OK && mm_frame_is_free(&kmm.pool, kmm.last) != 1)
        kmm.last -= MM_PAGE_SIZE;
    return status == MM_OK ? mm_frame_lru_init(&kmm.lru, &kmm.pool) : status;
}

static enum mm_status set_up_heap(void)
{
    static const struct mm_slab_hooks hooks = {
        .alloc = hook_slab_alloc, .free = hook_slab_free, .reclaim = hook_slab_reclaim};
    const struct {
        struct mm_slab_cache *cache;
        const char *name;
        size_t size;
    } caches[] = {{&kmm.space_cache, "space", sizeof(struct kmm_space)},
                  {&kmm.area_cache, "area", sizeof(struct mm_vma)},
                  {&kmm.node_cache, "area_node", sizeof(struct mm_vma_node)}};
    struct mm_slab_cache_config cache = {0};
    struct mm_buddy_config arena;
    struct mm_slab_config heap;
    enum mm_status status;
    size_t meta, i;
    mm_buddy_config_init(&arena, kmm.buddy_low, kmm.buddy_high - kmm.buddy_low, MM_PAGE_SHIFT, 13);
    kmm.buddy_meta_bytes = meta = mm_buddy_meta_bytes(&arena);
    kmm.buddy_meta = take_run(KMM_KERNEL, KMM_PAGES(meta), 0);
    if (meta == 0 || kmm.buddy_meta == MM_PA_NONE)
        return meta == 0 ? MM_ERR_INVALID : MM_ERR_NOMEM;
    status = mm_buddy_init(&kmm.buddy, &arena, kmm_at(kmm.buddy_meta), meta);
    if (status == MM_OK) /* empty at first: see buddy_take */
        status = mm_buddy_shrink(&kmm.buddy, arena.base, arena.bytes);
    if (status != MM_OK)
        return status;
    mm_slab_config_init(&heap, &hooks);
    status = mm_slab_init(&kmm.heap, &heap);
    cache.align = 64;
    for (i = 0; i < 3 && status == MM_OK; i++) {
        cache.name = caches[i].name;
        cache.size = caches[i].size;
        status = mm_slab_cache_init(caches[i].cache, &kmm.heap, &cache);
    }
    return status;
}

static enum mm_status table_init(struct mm_pagetable *pt, const struct mm_pagetable_hooks *hooks)
{
    struct mm_pagetable_config config;
    enum mm_status status =
        mm_pagetable_config_init(&config, kmm.config.format, hooks, kmm.config.direct);
    if (status != MM_OK)
        return status;
    config.flags |= kmm.config.pt_flags | MM_PAGETABLE_W_XOR_X | MM_PAGETABLE_KEEP_EMPTY;
    config.flags &= ~MM_PAGETABLE_PRESET_AD; /* of user pages they tell the truth; see kmm_fault */
    if (kmm.config.pa_bits != 0)
        config.pa_bits = kmm.config.pa_bits;
    return mm_pagetable_init(pt, &config);
}

/* Top-level entries can be lent to user tables only as tables: the largest leaves stay one level below. */
static unsigned largest_leaf(void)
{
    unsigned level = kmm.config.format->levels - 2;
    return MM_PAGETABLE_LEAF_MAX(level < 2 ? level : 2);
}

/* Notes that user tables need the top-level entries of this range. */
static enum mm_status note_lent(mm_va_t va, uint64_t bytes)
{
    mm_va_t at = mm_align_down(va, kmm.lent_bytes);
    for (; at <= va + (bytes - 1) && at >= mm_align_down(va, kmm.lent_bytes);
         at += kmm.lent_bytes) {
        unsigned i = 0;
        while (i < kmm.lent_count && kmm.lent[i] != at)
            i++;
        if (i == KMM_LENT_MAX)
            return MM_ERR_LIMIT;
        if (i == kmm.lent_count)
            kmm.lent[kmm.lent_count++] = at;
    }
    return MM_OK;
}

/* All memory at `direct` (but the kernel's image, which has a mapping of its own, read-only: nothing
 * that is executable is writable through another address), then the image. */
static enum mm_status set_up_kernel_space(void)
{
    enum mm_status status = table_init(&kmm.kernel, &kernel_hooks);
    size_t i;
    kmm.lent_bytes = UINT64_C(1) << (MM_PAGE_SHIFT + 9 * (kmm.config.format->levels - 1));
    if (status == MM_OK)
        status = note_lent(kmm.config.vmap, KMM_VMAP_BYTES);
    for (i = 0; i < kmm.map_count && status == MM_OK; i++) {
        const struct mm_frame_range *r = &kmm.map[i];
        uint32_t attr = MM_PAGETABLE_READ | MM_PAGETABLE_GLOBAL;
        if (r->type != MM_FRAME_KERNEL)
            attr |= MM_PAGETABLE_WRITE;
        if (!is_memory(r->type))
            continue;
        status = kmm_map(kmm.config.direct + r->base, r->base, r->size, attr);
        if (status == MM_OK)
            status = note_lent(kmm.config.direct + r->base, r->size);
    }
    for (i = 0; i < kmm.config.mapping_count && status == MM_OK; i++) {
        const struct kmm_mapping *m = &kmm.config.mappings[i];
        status = kmm_map(m->va, m->pa, m->bytes, m->attr);
        if (status == MM_OK)
            status = note_lent(m->va, m->bytes);
    }
    return status;
}

static enum mm_status set_up_vmap(void)
{
    struct mm_buddy_config arena;
    size_t meta;
    mm_buddy_config_init(&arena, kmm.config.vmap, KMM_VMAP_BYTES, MM_PAGE_SHIFT, 13);
    arena.cpu_lists = false;
    meta = mm_buddy_meta_bytes(&arena);
    kmm.vmap_meta = kmm_alloc(meta, 0);
    return kmm.vmap_meta == NULL ? MM_ERR_NOMEM
                                 : mm_buddy_init(&kmm.vmap, &arena, kmm.vmap_meta, meta);
}

static enum mm_status set_up_swap(void)
{
    const uint64_t slots = kmm.config.swap_bytes >> MM_PAGE_SHIFT;
    MM_LOCK_INIT(&kmm.swap.lock);
    if (slots == 0)
        return MM_OK;
    kmm.swap.pa = take_run(KMM_KERNEL, slots, 0);
    kmm.swap.count = kmm_alloc((size_t)slots * sizeof *kmm.swap.count, MM_SLAB_ZERO);
    if (kmm.swap.pa == MM_PA_NONE || kmm.swap.count == NULL)
        return MM_ERR_NOMEM;
    kmm.swap.slots = slots;
    return MM_OK;
}

/* A record for each descriptor from the first frame's to the last's. */
static size_t records_bytes(void)
{
    const struct mm_frame_desc *first = mm_frame_desc_of(&kmm.pool, kmm.first);
    return ((size_t)(mm_frame_desc_of(&kmm.pool, kmm.last) - first) + 1) * sizeof *kmm.records;
}

static enum mm_status set_up_users(void)
{
    static const struct mm_vma_hooks hooks = {.nodes = {NULL, hook_node_alloc, hook_node_free},
                                              .area_alloc = hook_area_alloc,
                                              .area_free = hook_area_free,
                                              .file_get = hook_file_get,
                                              .file_put = hook_file_put,
                                              .file_name = hook_file_name,
                                              .pt_map = hook_pt_map,
                                              .pt_swap = hook_pt_swap,
                                              .pt_protect = hook_pt_protect,
                                              .pt_clear = hook_pt_clear,
                                              .pt_next = hook_pt_next,
                                              .pt_flush = hook_pt_flush,
                                              .frame_alloc = hook_frame_alloc,
                                              .frame_free = hook_frame_free,
                                              .frame_copy = hook_frame_copy,
                                              .frame = hook_frame,
                                              .file_page = hook_file_page,
                                              .file_page_put = hook_file_page_put,
                                              .shared = hook_shared,
                                              .swap_out = hook_swap_out,
                                              .swap_in = hook_swap_in,
                                              .swap_dup = hook_swap_dup,
                                              .swap_free = hook_swap_free,
                                              .random = hook_random,
                                              .mapped = hook_mapped};
    const size_t bytes = records_bytes();
    mm_pa_t pa = take_run(KMM_KERNEL, KMM_PAGES(bytes), 0);
    enum mm_status status;
    if (pa == MM_PA_NONE)
        return MM_ERR_NOMEM;
    kmm.records = kmm_at(pa);
    MM_MEMSET(kmm.records, 0, bytes);
    status = mm_vma_system_init(&kmm.vma, &hooks);
    if (status != MM_OK)
        return status;
    kmm.vma.zero_frame = take_run(KMM_KERNEL, 1, 0);
    if (kmm.vma.zero_frame == MM_PA_NONE)
        return MM_ERR_NOMEM;
    hook_zero(NULL, kmm.vma.zero_frame, MM_PAGE_SIZE);
    return MM_OK;
}

enum mm_status kmm_init(const struct kmm_config *config)
{
    static enum mm_status (*const steps[])(void) = {set_up_frames, set_up_heap, set_up_kernel_space,
                                                    set_up_vmap,   set_up_swap, set_up_users};
    enum mm_status status = MM_OK;
    size_t i;
    MM_MEMSET(&kmm, 0, sizeof kmm);
    kmm.config = *config;
    kmm.debug = 1;
    if (config->map_count > KMM_MAP_MAX)
        return MM_ERR_LIMIT;
    for (i = 0; i < sizeof steps / sizeof steps[0] && status == MM_OK; i++)
        status = steps[i]();
    return status;
}

uint64_t kmm_kernel_root(void)
{
    return mm_pagetable_root(&kmm.kernel);
}

void kmm_fini(void)
{
    mm_vma_system_fini(&kmm.vma);
    (void)mm_pagetable_destroy(&kmm.kernel, true);
    (void)kmm_free(kmm.vmap_meta);
    (void)kmm_free(kmm.swap.count);
    (void)mm_slab_cache_destroy(&kmm.space_cache, NULL);
    (void)mm_slab_cache_destroy(&kmm.area_cache, NULL);
    (void)mm_slab_cache_destroy(&kmm.node_cache, NULL);
    (void)mm_slab_fini(&kmm.heap);
    buddy_trim();
    if (kmm.swap.slots != 0)
        (void)give_run(KMM_KERNEL, kmm.swap.pa, kmm.swap.slots);
    (void)give_run(KMM_KERNEL, kmm_pa_of(kmm.records), KMM_PAGES(records_bytes()));
    (void)give_run(KMM_KERNEL, kmm.vma.zero_frame, 1);
    (void)give_run(KMM_KERNEL, kmm.buddy_meta, KMM_PAGES(kmm.buddy_meta_bytes));
}

/* ---- Kernel memory --------------------------------------------------------------------------------------------------- */

/* Debug level 3: everything is looked at now and then. */
static void checked(void)
{
    const char *what = NULL;
    if (kmm.debug < 3 || (mm_fetch_add(&kmm.freed, 1) + 1) % KMM_CHECK_EVERY != 0 ||
        kmm_check(&what) == KMM_HEALTHY)
        return;
    (void)mm_fetch_add(&kmm.reports, 1);
    print_line(NULL, what);
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
    checked();
    return status;
}

size_t kmm_size(const void *p)
{
    return mm_slab_ksize(&kmm.heap, p);
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
    const struct mm_buddy *b = &kmm.buddy;
    struct mm_buddy_block block;
    enum mm_status status;
    if (kmm.debug >= 2 && mm_buddy_find(b, pa, &block) == MM_OK && block.pa == pa &&
        block.state == MM_BUDDY_STATE_ALLOCATED)
        MM_MEMSET(kmm_at(pa), 0x6b, block.bytes);
    status = mm_buddy_free_order(&kmm.buddy, pa, order);
    checked();
    return status;
}

mm_pa_t kmm_alloc_dma(uint64_t bytes, uint64_t align, uint64_t boundary, mm_pa_t limit)
{
    struct mm_frame_request request = {0};
    mm_pa_t pa;
    request.count = KMM_PAGES(bytes);
    request.align = align;
    request.boundary = boundary;
    request.max = limit;
    request.flags = MM_FRAME_ZONE(0) | MM_FRAME_ONLY | MM_FRAME_NOWAIT;
    pa = mm_frame_alloc_run(&kmm.pool, &request);
    if (pa != MM_PA_NONE)
        note_use(KMM_DMA, request.count, true);
    return pa;
}

enum mm_status kmm_free_dma(mm_pa_t pa, uint64_t bytes)
{
    return give_run(KMM_DMA, pa, KMM_PAGES(bytes));
}

enum mm_status kmm_map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr)
{
    return mm_pagetable_map(&kmm.kernel, va, pa, bytes,
                            attr | MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY, largest_leaf(),
                            NULL);
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
    const uint64_t size = mm_align_up((pa & (MM_PAGE_SIZE - 1)) + bytes, MM_PAGE_SIZE);
    mm_va_t va = mm_buddy_alloc_exact(&kmm.vmap, size, 0);
    if (va == MM_PA_NONE)
        return NULL;
    if (kmm_map(va, pa & ~(MM_PAGE_SIZE - 1), size,
                MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_GLOBAL |
                    attr_device(&kmm.kernel)) != MM_OK) {
        (void)mm_buddy_free(&kmm.vmap, va);
        return NULL;
    }
    return (void *)(uintptr_t)(va + (pa & (MM_PAGE_SIZE - 1)));
}

enum mm_status kmm_unmap_device(void *at, uint64_t bytes)
{
    const mm_va_t va = (uintptr_t)at & ~(uintptr_t)(MM_PAGE_SIZE - 1);
    enum mm_status status =
        kmm_unmap(va, mm_align_up(((uintptr_t)at & (MM_PAGE_SIZE - 1)) + bytes, MM_PAGE_SIZE));
    return status == MM_OK ? mm_buddy_free(&kmm.vmap, va) : status;
}

/* ---- User spaces ---------------------------------------------------------------------------------------------------------- */

/* The kernel's half: top-level entries of the kernel's table, lent. */
static enum mm_status lend_kernel(struct kmm_space *space)
{
    enum mm_status status = MM_OK;
    unsigned i;
    for (i = 0; i < kmm.lent_count && status == MM_OK; i++)
        status = mm_pagetable_lend(&space->pt, &kmm.kernel, kmm.lent[i], kmm.lent_bytes);
    return status;
}

static void space_drop(struct kmm_space *space)
{
    (void)mm_pagetable_destroy(&space->pt, true);
    (void)mm_slab_free(&kmm.space_cache, space);
}

/* A space with page tables and quota, its mm_vma_space still raw memory. */
static struct kmm_space *space_shell(uint64_t quota)
{
    struct kmm_space *space = mm_slab_alloc(&kmm.space_cache, MM_SLAB_ZERO);
    if (space == NULL)
        return NULL;
    mm_frame_quota_init(&space->quota, NULL, quota != 0 ? quota : UINTPTR_MAX);
    if (table_init(&space->pt, &user_hooks) != MM_OK)
        (void)mm_slab_free(&kmm.space_cache, space);
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
    config.low = kmm.config.user_low;
    config.top = kmm.config.user_top;
    config.mmap_base = mm_align_down(config.top - (config.top - config.low) / 4, MM_PAGE_SIZE);
    config.up_base = config.low;
    config.guard_pages = 16;
    config.limits.stack = (uint64_t)1 << 20;
    config.random_pages = 256;
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

/* No hardware has write or execute without read here, and nothing is both writable and executable. */
static int policy(unsigned *prot)
{
    if ((*prot & MM_VMA_WRITE) != 0 && (*prot & MM_VMA_EXEC) != 0)
        return MM_VMA_EACCES;
    if (*prot != 0)
        *prot |= MM_VMA_READ;
    return 0;
}

int kmm_region_alloc(struct kmm_space *space, enum kmm_kind kind, mm_va_t va, uint64_t bytes,
                     mm_pa_t pa)
{
    static const enum mm_vma_preset presets[] = {MM_VMA_CODE, MM_VMA_DATA, MM_VMA_STACK,
                                                 MM_VMA_HEAP, MM_VMA_IO};
    return mm_vma_install(&space->vma, presets[kind], va, bytes, pa, 0);
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

int kmm_mmap(struct kmm_space *space, mm_va_t hint, uint64_t bytes, unsigned prot, unsigned flags,
             struct kmm_file *file, uint64_t offset, mm_va_t *va)
{
    struct mm_vma_request request = {0};
    int error = policy(&prot);
    if (error != 0)
        return error;
    request.hint = hint;
    request.bytes = bytes;
    request.prot = prot;
    request.flags = flags;
    request.file = file;
    request.offset = offset;
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

const char *kmm_fault_name(enum mm_vma_fault fault)
{
    static const char *const names[] = {
        "ok",           "nothing mapped", "guard gap",           "not readable",
        "not writable", "not executable", "no page in the file", "no memory",
        "retry"};
    return (unsigned)fault < sizeof names / sizeof names[0] ? names[fault] : "?";
}

/* Part of a page. The frame is held meanwhile, so it becomes nobody else's; if it was evicted or copied
 * before the bytes were, once more. */
static bool copy_part(struct kmm_space *space, mm_va_t va, void *kernel, size_t bytes, bool out)
{
    const mm_va_t page = va & ~(MM_PAGE_SIZE - 1);
    bool held, done;
    do {
        mm_pa_t pa;
        char *at;
        done = false;
        if (kmm_fault(space, va, out ? MM_VMA_WRITE : MM_VMA_READ) != MM_VMA_FAULT_OK)
            return false;
        pa = mm_pagetable_translate(&space->pt, page);
        if (pa == MM_PA_NONE)
            continue;
        if (mm_frame_desc_of(&kmm.pool, pa) == NULL)
            return false; /* a device */
        held = mm_frame_get(&kmm.pool, pa) == MM_OK;
        if ((held || pa == kmm.vma.zero_frame) && mm_pagetable_translate(&space->pt, page) == pa) {
            at = (char *)kmm_at(pa) + (va - page);
            MM_MEMCPY(out ? at : kernel, out ? kernel : at, bytes);
            done = mm_pagetable_translate(&space->pt, page) == pa;
        }
        if (held)
            frame_put(pa);
    } while (!done);
    return true;
}

static bool copy_all(struct kmm_space *space, mm_va_t va, char *kernel, uint64_t bytes, bool out)
{
    while (bytes != 0) {
        uint64_t part = MM_PAGE_SIZE - (va & (MM_PAGE_SIZE - 1));
        part = part < bytes ? part : bytes;
        if (!copy_part(space, va, kernel, (size_t)part, out))
            return false;
        va += part;
        kernel += part;
        bytes -= part;
    }
    return true;
}

bool kmm_copy_in(struct kmm_space *space, void *to, mm_va_t from, uint64_t bytes)
{
    return copy_all(space, from, to, bytes, false);
}

bool kmm_copy_out(struct kmm_space *space, mm_va_t to, const void *from, uint64_t bytes)
{
    return copy_all(space, to, (char *)(uintptr_t)from, bytes, true);
}

/* ---- Health ------------------------------------------------------------------------------------------------------------------ */

void kmm_get_stats(struct kmm_stats *stats)
{
    struct mm_frame_stats zone;
    struct mm_slab_stats slab;
    unsigned i;
    MM_MEMSET(stats, 0, sizeof *stats);
    for (i = 0; mm_frame_get_stats(&kmm.pool, i, &zone) == MM_OK; i++) {
        stats->total += zone.managed;
        stats->used += zone.used;
        stats->free += zone.free;
    }
    for (i = 0; i < KMM_USES; i++)
        stats->use[i] = mm_load(&kmm.use[i]);
    stats->percent = stats->total == 0 ? 0 : (unsigned)(stats->used * 100 / stats->total);
    mm_slab_get_stats(&kmm.heap, &slab);
    stats->slab_bytes = slab.bytes;
    stats->swapped = kmm.swap.used;
    stats->swap_slots = kmm.swap.slots;
    stats->evicted = mm_load(&kmm.evicted);
    stats->swapped_in = mm_load(&kmm.swapped_in);
    stats->faults = mm_load(&kmm.faults);
}

uint64_t kmm_free_frames(void)
{
    struct kmm_stats stats;
    unsigned cpu, pass;
    for (pass = 0; pass < 3; pass++) { /* the heap's own memory comes last */
        for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
            (void)mm_slab_drain(&kmm.heap, cpu);
        (void)mm_slab_shrink(&kmm.heap);
    }
    buddy_trim();
    kmm_get_stats(&stats);
    return stats.free + (mm_buddy_free_bytes(&kmm.buddy) >> MM_PAGE_SHIFT);
}

#define MB(frames) /* two numbers for "%u.%u" */ \
    (uint64_t)(frames) >> (20 - MM_PAGE_SHIFT), ((uint64_t)(frames)*10 >> (20 - MM_PAGE_SHIFT)) % 10

static void print_usage(const char *name, uint64_t total, uint64_t used, unsigned percent)
{
    kmm.config.print("  %s: total %u.%u MB, used %u.%u MB, free %u.%u MB, %u%% used\n", name,
                     MB(total), MB(used), MB(total - used), (uint64_t)percent);
}

void kmm_summary(void)
{
    struct mm_frame_stats zone;
    struct kmm_stats s;
    unsigned i;
    for (i = 0; mm_frame_get_stats(&kmm.pool, i, &zone) == MM_OK; i++)
        if (zone.managed != 0)
            print_usage(zone.name, zone.managed, zone.used, zone.percent);
    kmm_get_stats(&s);
    print_usage("all memory", s.total, s.used, s.percent);
    kmm.config.print("  used by the kernel %u.%u MB, page runs %u.%u MB (slabs %u.%u MB), "
                     "tables %u.%u MB, programs %u.%u MB, DMA %u.%u MB\n",
                     MB(s.use[KMM_KERNEL]), MB(s.use[KMM_BUDDY]), MB(s.slab_bytes >> MM_PAGE_SHIFT),
                     MB(s.use[KMM_TABLES]), MB(s.use[KMM_USER]), MB(s.use[KMM_DMA]));
    kmm.config.print("  swap: %u of %u pages, evicted %u, read back %u; faults %u\n", s.swapped,
                     s.swap_slots, s.evicted, s.swapped_in, s.faults);
}

enum kmm_health kmm_check(const char **what)
{
    const char *dummy;
    enum mm_frame_health frames;
    enum mm_buddy_health runs;
    uint64_t expected = 0;
    unsigned i;
    what = what != NULL ? what : &dummy;
    for (i = 0; i < KMM_USES; i++)
        expected += mm_load(&kmm.use[i]);
    *what = NULL;
    frames = mm_frame_check(&kmm.pool, expected, what);
    if (frames == MM_FRAME_LEAK)
        *what = "frames: in use, but nobody's";
    if (frames != MM_FRAME_HEALTHY)
        return frames == MM_FRAME_LEAK ? KMM_LEAK : KMM_CORRUPT;
    *what = "page runs";
    runs = mm_buddy_check(&kmm.buddy);
    if (runs != MM_BUDDY_HEALTHY)
        return runs == MM_BUDDY_LEAK ? KMM_LEAK : KMM_CORRUPT;
    *what = "device windows";
    if (mm_buddy_check(&kmm.vmap) != MM_BUDDY_HEALTHY)
        return KMM_CORRUPT;
    *what = "slabs";
    if (mm_slab_check(&kmm.heap) != MM_OK)
        return KMM_CORRUPT;
    *what = "the kernel's page tables";
    if (mm_pagetable_check(&kmm.kernel, NULL, 0, NULL) == MM_ERR_CORRUPT)
        return KMM_CORRUPT;
    *what = NULL;
    return KMM_HEALTHY;
}

void kmm_dump(void)
{
    mm_frame_dump(&kmm.pool, print_line, NULL);
    mm_slab_dump(&kmm.heap, print_line, NULL);
    kmm_list(NULL);
}

void kmm_list(struct kmm_space *space)
{
    if (space != NULL)
        mm_vma_list(&space->vma, print_area, NULL);
    else
        mm_pagetable_dump(&kmm.kernel, print_line, NULL);
}

void kmm_set_debug(unsigned level)
{
    kmm.debug = level;
}

uintptr_t kmm_reports(void)
{
    return mm_load(&kmm.reports);
}

void kmm_report(const struct mm_report *report)
{
    (void)mm_fetch_add(&kmm.reports, 1);
    if (kmm.debug != 0)
        kmm.config.print("misuse: %s: %s at %x\n", report->where, report->what,
                         (uint64_t)report->address);
}

/* ---- Stress and benchmark -------------------------------------------------------------------------------------------------- */

#define SLOTS 32
struct stress {
    uint64_t random, wrong;
    struct stress_slot {
        void *p;
        mm_pa_t pa;
        struct kmm_space *space;
        size_t bytes;
        unsigned kind, order;
        unsigned char fill;
    } slot[SLOTS];
};
#define STRESS_VA ((mm_va_t)(kmm.config.user_low + 16 * MM_PAGE_SIZE))

static uint64_t stress_random(struct stress *s, uint64_t below)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (s->random >> 11) % below;
}

static bool all_bytes(const unsigned char *p, size_t bytes, unsigned char fill)
{
    return bytes == 0 || (p[0] == fill && p[bytes / 2] == fill && p[bytes - 1] == fill);
}

static void stress_take(struct stress *s, struct stress_slot *slot)
{
    unsigned char text[64];
    slot->kind = (unsigned)stress_random(s, 16);
    slot->fill = (unsigned char)(1 + stress_random(s, 255));
    slot->p = NULL;
    slot->space = NULL;
    if (slot->kind < 10) {
        slot->bytes = 1 + (size_t)stress_random(s, (uint64_t)1 << (3 + stress_random(s, 12)));
        slot->p = kmm_alloc(slot->bytes, 0);
    } else if (slot->kind < 15) {
        slot->order = (unsigned)stress_random(s, 4);
        slot->bytes = (size_t)(MM_PAGE_SIZE << slot->order);
        slot->pa = slot->kind < 13 ? kmm_alloc_pages(slot->order)
                                   : kmm_alloc_dma(slot->bytes, MM_PAGE_SIZE, 65536, 0);
        slot->p = slot->pa == MM_PA_NONE ? NULL : kmm_at(slot->pa);
    } else if ((slot->space = kmm_space_create(0)) != NULL) {
        MM_MEMSET(text, slot->fill, sizeof text);
        s->wrong += kmm_region_alloc(slot->space, KMM_DATA, STRESS_VA, 8 * MM_PAGE_SIZE, 0) != 0;
        s->wrong += !kmm_copy_out(slot->space, STRESS_VA + MM_PAGE_SIZE - 32, text, sizeof text);
    }
    if (slot->p != NULL)
        MM_MEMSET(slot->p, slot->fill, slot->bytes);
}

static void stress_give(struct stress *s, struct stress_slot *slot)
{
    unsigned char text[64];
    if (slot->p != NULL)
        s->wrong += !all_bytes(slot->p, slot->bytes, slot->fill);
    if (slot->space != NULL) {
        struct kmm_space *child = kmm_space_clone(slot->space);
        s->wrong += !kmm_copy_in(child != NULL ? child : slot->space, text,
                                 STRESS_VA + MM_PAGE_SIZE - 32, sizeof text) ||
                    !all_bytes(text, sizeof text, slot->fill);
        kmm_space_destroy(slot->space);
        if (child != NULL)
            kmm_space_destroy(child);
    } else if (slot->p == NULL) {
        return;
    } else if (slot->kind < 10) {
        s->wrong += kmm_free(slot->p) != MM_OK;
    } else if (slot->kind < 13) {
        s->wrong += kmm_free_pages(slot->pa, slot->order) != MM_OK;
    } else {
        s->wrong += kmm_free_dma(slot->pa, slot->bytes) != MM_OK;
    }
    slot->p = NULL;
    slot->space = NULL;
}

uint64_t kmm_stress(uint64_t seed, uint64_t ops)
{
    struct stress *s = kmm_alloc(sizeof *s, MM_SLAB_ZERO);
    uint64_t wrong;
    unsigned i;
    if (s == NULL)
        return 1;
    s->random = seed * 2 + 1;
    while (ops-- != 0) {
        struct stress_slot *slot = &s->slot[stress_random(s, SLOTS)];
        if (slot->p != NULL || slot->space != NULL)
            stress_give(s, slot);
        else
            stress_take(s, slot);
    }
    for (i = 0; i < SLOTS; i++)
        stress_give(s, &s->slot[i]);
    wrong = s->wrong;
    return wrong + (kmm_free(s) != MM_OK);
}

static void bench_line(const char *name, uint64_t start, uint64_t count)
{
    kmm.config.print("  bench: %s: %u ticks\n", name, (kmm.config.clock() - start) / count);
}

void kmm_bench(void)
{
    enum { N = 1000, PAGES = 64 };
    struct kmm_space *space = kmm_space_create(0);
    uint64_t start = kmm.config.clock();
    unsigned i;
    for (i = 0; i < N; i++)
        (void)kmm_free(kmm_alloc(64, 0));
    bench_line("kmm_alloc and kmm_free of 64 bytes", start, N);
    start = kmm.config.clock();
    for (i = 0; i < N; i++)
        (void)kmm_free_pages(kmm_alloc_pages(0), 0);
    bench_line("a page and back", start, N);
    if (space == NULL || kmm_region_alloc(space, KMM_DATA, STRESS_VA, PAGES * MM_PAGE_SIZE, 0) != 0)
        return;
    start = kmm.config.clock();
    for (i = 0; i < PAGES; i++)
        (void)kmm_fault(space, STRESS_VA + i * MM_PAGE_SIZE, MM_VMA_WRITE);
    bench_line("a page fault on untouched memory", start, PAGES);
    start = kmm.config.clock();
    kmm_space_destroy(kmm_space_clone(space));
    bench_line("fork and exit of 64 pages", start, 1);
    kmm_space_destroy(space);
}
