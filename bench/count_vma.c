/* count_vma.c - the hot paths of mm_vma.h under callgrind, for count.c: each row is one kind of
 * call, through count_op(), whose own cost the row `empty` tells */
#define MM_VMA_STATIC
#include "mm_vma.h"

#include "count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#define AREAS  1024u
#define CALLS  512u  /* each makes valgrind translate the program anew */
#define PAGES  4096u /* of the space whose pages are faulted in */
#define STRIDE 16u   /* pages from one area's start to the next one's */

static struct {
    struct mm_vma_map map;
    struct mm_vma_node_source source;
    struct mm_vma areas[AREAS];
    struct mm_vma_system sys;
    struct mm_vma_space space;
    mm_pa_t table[PAGES];
    struct mm_vma_frame frames[PAGES + 1];
    mm_pa_t next_frame;
    uint32_t order[CALLS];
} world;

/* ---- hooks: as little as does ---------------------------------------------------------------- */

static struct mm_vma_node *node_alloc(void *ctx)
{
    (void)ctx;
    return aligned_alloc(64, sizeof(struct mm_vma_node));
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    free(node);
}

static struct mm_vma *free_areas;

static struct mm_vma *area_alloc(void *ctx)
{
    struct mm_vma *vma = free_areas;

    (void)ctx;
    if (vma == NULL)
        return aligned_alloc(64, sizeof *vma);
    free_areas = vma->link;
    return vma;
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    vma->link = free_areas;
    free_areas = vma;
}

static uintptr_t page_of(mm_va_t va)
{
    return (uintptr_t)(va >> MM_PAGE_SHIFT) - STRIDE;
}

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    (void)ctx, (void)pt, (void)prot;
    world.table[page_of(va)] = pa;
    return MM_OK;
}

static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    (void)ctx, (void)pt, (void)va, (void)prot;
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    (void)ctx, (void)pt;
    world.table[page_of(va)] = 0;
}

static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    uintptr_t page = page_of(va < STRIDE << MM_PAGE_SHIFT ? (mm_va_t)STRIDE << MM_PAGE_SHIFT : va);

    (void)ctx, (void)pt;
    for (; page < PAGES && page < page_of(end); page++)
        if (world.table[page] != 0) {
            entry->va = (mm_va_t)(page + STRIDE) << MM_PAGE_SHIFT;
            entry->pa = world.table[page];
            entry->prot = MM_VMA_READ | MM_VMA_WRITE;
            entry->dirty = false;
            return true;
        }
    return false;
}

static void pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    (void)ctx, (void)pt, (void)va, (void)bytes;
}

static mm_pa_t frame_alloc(void *ctx, bool zero)
{
    (void)ctx, (void)zero;
    return ++world.next_frame << MM_PAGE_SHIFT;
}

static void frame_free(void *ctx, mm_pa_t pa)
{
    (void)ctx, (void)pa;
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    (void)ctx, (void)to, (void)from;
}

static struct mm_vma_frame *frame(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    return &world.frames[pa >> MM_PAGE_SHIFT];
}

/* ---- what is counted: call i of a row -------------------------------------------------------- */

static void require(bool done)
{
    if (!done)
        abort();
}

static void nothing(uint32_t i)
{
    (void)i;
}

static mm_va_t area_va(uint32_t i)
{
    return (mm_va_t)(STRIDE * (world.order[i] % AREAS + 1)) << MM_PAGE_SHIFT;
}

static void find(uint32_t i)
{
    require(mm_vma_map_find(&world.map, area_va(i)) != NULL);
}

static void insert(uint32_t i)
{
    require(mm_vma_map_insert(&world.map, &world.areas[world.order[i] % AREAS]) == MM_OK);
}

static void erase(uint32_t i)
{
    require(mm_vma_map_erase(&world.map, &world.areas[world.order[i] % AREAS]) == MM_OK);
}

static void fault_zero(uint32_t i)
{
    require(mm_vma_fault(&world.space, (mm_va_t)(STRIDE + i) << MM_PAGE_SHIFT, MM_VMA_WRITE) ==
            MM_VMA_FAULT_OK);
}

static mm_va_t mapped;

static void map_one(uint32_t i)
{
    struct mm_vma_request r;

    memset(&r, 0, sizeof r);
    r.bytes = (1 + i % STRIDE) << MM_PAGE_SHIFT;
    r.prot = (i & 1) != 0 ? MM_VMA_READ : MM_VMA_READ | MM_VMA_WRITE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS;
    require(mm_vma_mmap(&world.space, &r, &mapped) == MM_VMA_OK);
}

static void unmap_one(uint32_t i)
{
    require(mm_vma_munmap(&world.space, mapped, (1 + i % STRIDE) << MM_PAGE_SHIFT) == MM_VMA_OK);
}

__attribute__((noinline)) static void count_op(void (*call)(uint32_t), uint32_t i)
{
    call(i);
    __asm__ volatile(""); /* no tail call: the callee's cost shall be in here */
}

/* One dump a row: `counted` is instrumented, `undo` restores what it changed. */
static void row(const char *name, void (*counted)(uint32_t), void (*undo)(uint32_t))
{
    char text[64];

    for (uint32_t i = 0; i < CALLS; i++) {
        CALLGRIND_START_INSTRUMENTATION;
        count_op(counted, i);
        CALLGRIND_STOP_INSTRUMENTATION;
        if (undo != NULL)
            undo(i);
    }
    snprintf(text, sizeof text, "%s/vma", name);
    CALLGRIND_DUMP_STATS_AT(text);
}

/* The same, counting what undoes. */
static void row_after(const char *name, void (*before)(uint32_t), void (*counted)(uint32_t))
{
    char text[64];

    for (uint32_t i = 0; i < CALLS; i++) {
        before(i);
        CALLGRIND_START_INSTRUMENTATION;
        count_op(counted, i);
        CALLGRIND_STOP_INSTRUMENTATION;
    }
    snprintf(text, sizeof text, "%s/vma", name);
    CALLGRIND_DUMP_STATS_AT(text);
}

/* A map of AREAS areas with gaps between them, entered in a random order. */
static void map_up(void)
{
    uint64_t random = 1;
    bool there[AREAS] = {false};

    world.source.alloc = node_alloc;
    world.source.free = node_free;
    mm_vma_map_init(&world.map, &world.source);
    for (uint32_t i = 0; i < CALLS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        world.order[i] = (uint32_t)(random >> 33);
    }
    for (uint32_t i = 0; i < CALLS + AREAS; i++) {
        uint32_t n = i < CALLS ? world.order[i] % AREAS : i - CALLS;

        world.areas[n].start = STRIDE * (n + 1);
        world.areas[n].end = world.areas[n].start + STRIDE - n % 8;
        world.areas[n].flags = MM_VMA_READ;
        if (!there[n])
            require(mm_vma_map_insert(&world.map, &world.areas[n]) == MM_OK);
        there[n] = true;
    }
}

/* A space with pages: one area that faults fill, and AREAS others below which calls find places. */
static void space_up(void)
{
    struct mm_vma_config config;
    struct mm_vma_request r;
    struct mm_vma_hooks h;
    mm_va_t va;

    memset(&h, 0, sizeof h);
    h.nodes = world.source;
    h.area_alloc = area_alloc;
    h.area_free = area_free;
    h.pt_map = pt_map;
    h.pt_protect = pt_protect;
    h.pt_clear = pt_clear;
    h.pt_next = pt_next;
    h.pt_flush = pt_flush;
    h.frame_alloc = frame_alloc;
    h.frame_free = frame_free;
    h.frame_copy = frame_copy;
    h.frame = frame;
    mm_vma_config_init(&config);
    config.low = config.up_base = (mm_va_t)STRIDE << MM_PAGE_SHIFT;
    require(mm_vma_system_init(&world.sys, &h) == MM_OK);
    require(mm_vma_space_init(&world.space, &world.sys, &config) == MM_OK);
    memset(&r, 0, sizeof r);
    r.prot = MM_VMA_READ | MM_VMA_WRITE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    r.hint = config.low;
    r.bytes = (uint64_t)PAGES << MM_PAGE_SHIFT;
    require(mm_vma_mmap(&world.space, &r, &va) == MM_VMA_OK);
    for (uint32_t i = 0; i < AREAS; i++) {
        r.hint = config.mmap_base - ((mm_va_t)STRIDE * (i + 1) << MM_PAGE_SHIFT);
        r.bytes = (STRIDE / 2 + i % 5) << MM_PAGE_SHIFT;
        require(mm_vma_mmap(&world.space, &r, &va) == MM_VMA_OK);
    }
}

void count_vma(void)
{
    map_up();
    row("empty", nothing, NULL);
    row("find1024", find, NULL);
    row_after("insert1024", erase, insert);
    row("erase1024", erase, insert);
    space_up();
    row("fault.zero", fault_zero, NULL);
    row("mmap1024", map_one, unmap_one);
    row_after("munmap1024", map_one, unmap_one);
}
