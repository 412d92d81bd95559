/* adapt_pagetable.c - mm_pagetable.h with one format alone: x86_64, unless a file that includes
 * this one chose another */
#include "pagetable.h"

#ifndef ADAPT_NAME
#define ADAPT_NAME  "pagetable"
#define ADAPT_TITLE "mm_pagetable.h, x86_64"
#define ADAPT_OPS   page_ops_x86_64
#define MM_PAGETABLE_X86_64
#endif
#define MM_PAGETABLE_STATIC
#include "mm_pagetable.h"

#define RW (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE)

static struct mm_pagetable pt;
static struct mm_pagetable_hooks hooks;
static uint64_t released;

static mm_pa_t take(void *ctx, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    return page_take();
}

static void give(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx;
    (void)bytes;
    page_give(table);
}

/* What a kernel would do there; a call that counts. */
static void flush(void *ctx, const struct mm_pagetable_flush *f)
{
    (void)f;
    ++*(uint64_t *)ctx;
}

static void release(void *ctx, const struct mm_pagetable_extent *extent)
{
    *(uint64_t *)ctx += extent->bytes;
}

static void pt_open(void)
{
    struct mm_pagetable_config config;
    hooks.ctx = &released;
    hooks.alloc = take;
    hooks.free = give;
    hooks.flush = flush;
    hooks.release = release;
    (void)mm_pagetable_config_init(&config, NULL, &hooks, (uintptr_t)page_pool);
    (void)mm_pagetable_init(&pt, &config);
}

static void pt_close(void)
{
    (void)mm_pagetable_destroy(&pt, false);
}

static void pt_map(uint64_t va, uint64_t pa, uint64_t bytes, int level)
{
    (void)mm_pagetable_map(&pt, va, pa, bytes, RW, MM_PAGETABLE_LEAF_MAX(level), NULL);
}

static void pt_protect(uint64_t va, uint64_t bytes)
{
    (void)mm_pagetable_protect(&pt, va, bytes, MM_PAGETABLE_READ, MM_PAGETABLE_PERMS, NULL);
}

static void pt_unmap(uint64_t va, uint64_t bytes)
{
    (void)mm_pagetable_unmap(&pt, va, bytes, NULL);
}

static void pt_unmap_whole(uint64_t va, uint64_t bytes)
{
    hooks.release = NULL;
    (void)mm_pagetable_unmap(&pt, va, bytes, NULL);
    hooks.release = release;
}

__attribute__((flatten)) static uint64_t pt_translate(const uint64_t *va, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += mm_pagetable_translate(&pt, va[i]);
    return sum;
}

__attribute__((flatten)) static uint64_t pt_translate_dep(uint64_t va, size_t n)
{
    for (size_t i = 0; i < n; i++)
        va = PAGE_NEXT(va, mm_pagetable_translate(&pt, va));
    return va;
}

/* A run of single steps: one lock and one batch for all of them, and frames are the caller's. */
static void run_begin(struct mm_pagetable_cursor *cursor, int how)
{
    if ((how & PAGE_KEEP) != 0)
        pt.flags |= MM_PAGETABLE_KEEP_EMPTY;
    else
        pt.flags &= ~(uint32_t)MM_PAGETABLE_KEEP_EMPTY;
    if ((how & PAGE_CALLS) != 0)
        return;
    hooks.release = NULL;
    (void)mm_pagetable_cursor_begin(cursor, &pt, 0, SPARSE_SPACE, NULL);
}

static void run_end(struct mm_pagetable_cursor *cursor, int how)
{
    if ((how & PAGE_CALLS) != 0)
        return;
    mm_pagetable_cursor_end(cursor);
    hooks.release = release;
}

/* The first page that is not announced before: the first at all, or the first of the last ones. */
static size_t announced(size_t n, int how)
{
    return (how & PAGE_LOOK) != 0 && n > PAGE_AHEAD ? n - PAGE_AHEAD : 0;
}

__attribute__((flatten)) static void map_steps(struct mm_pagetable_cursor *cursor,
                                               const uint64_t *va, size_t n, int how)
{
    size_t i = 0;
    for (size_t looks = announced(n, how); i < looks; i++) {
        mm_pagetable_prefetch(&pt, va[i + PAGE_AHEAD]);
        (void)mm_pagetable_cursor_map_at(cursor, va[i], PAGE_PA + i * 4096, RW);
    }
    for (; i < n; i++)
        (void)mm_pagetable_cursor_map_at(cursor, va[i], PAGE_PA + i * 4096, RW);
}

__attribute__((flatten)) static void unmap_steps(struct mm_pagetable_cursor *cursor,
                                                 const uint64_t *va, size_t n, int how)
{
    size_t i = 0;
    for (size_t looks = announced(n, how); i < looks; i++) {
        mm_pagetable_prefetch(&pt, va[i + PAGE_AHEAD]);
        (void)mm_pagetable_cursor_unmap_at(cursor, va[i]);
    }
    for (; i < n; i++)
        (void)mm_pagetable_cursor_unmap_at(cursor, va[i]);
}

static void pt_map_each(const uint64_t *va, size_t n, int how)
{
    struct mm_pagetable_cursor cursor;
    run_begin(&cursor, how);
    if ((how & PAGE_BULK) != 0)
        (void)mm_pagetable_cursor_map_bulk(&cursor, va, page_frames, n, RW, NULL);
    else if ((how & PAGE_CALLS) != 0)
        for (size_t i = 0; i < n; i++)
            (void)mm_pagetable_map(&pt, va[i], PAGE_PA + i * 4096, 4096, RW, 0, NULL);
    else
        map_steps(&cursor, va, n, how);
    run_end(&cursor, how);
}

static void pt_unmap_each(const uint64_t *va, size_t n, int how)
{
    struct mm_pagetable_cursor cursor;
    run_begin(&cursor, how);
    if ((how & PAGE_BULK) != 0)
        (void)mm_pagetable_cursor_unmap_bulk(&cursor, va, n, NULL);
    else if ((how & PAGE_CALLS) != 0)
        for (size_t i = 0; i < n; i++)
            (void)mm_pagetable_unmap(&pt, va[i], 4096, NULL);
    else
        unmap_steps(&cursor, va, n, how);
    run_end(&cursor, how);
}

extern const struct page_ops ADAPT_OPS;
const struct page_ops ADAPT_OPS = {ADAPT_NAME,   ADAPT_TITLE,      pt_open,     pt_close,
                                   pt_map,       pt_protect,       pt_unmap,    pt_unmap_whole,
                                   pt_translate, pt_translate_dep, pt_map_each, pt_unmap_each};
