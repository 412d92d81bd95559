/* health.c - what the memory manager tells of itself, and how it is tried out in the kernel */
#include "kernel_mm.h"
#pragma GCC diagnostic ignored "-Wunused-parameter" /* of hooks */

/* ---- Misuse ---------------------------------------------------------------------------------- */

void kmm_report(const struct mm_report *report)
{
    (void)mm_fetch_add(&kmm.reports, 1);
    if (kmm.debug != 0)
        kmm.config.print("misuse: %s: %s at %x\n", report->where, report->what,
                         (uint64_t)report->address);
}

/* ---- Statistics ------------------------------------------------------------------------------ */

#define MB(frames) /* two numbers for "%u.%u" */ \
    (uint64_t)(frames) >> (20 - MM_PAGE_SHIFT), ((uint64_t)(frames)*10 >> (20 - MM_PAGE_SHIFT)) % 10

static void print_usage(const char *name, uint64_t total, uint64_t used)
{
    kmm.config.print("  %s: total %u.%u MB, used %u.%u MB, free %u.%u MB, %u%% used\n", name,
                     MB(total), MB(used), MB(total - used), total == 0 ? 0 : used * 100 / total);
}

void kmm_summary(void)
{
    struct mm_slab_stats slab;
    struct mm_frame_stats zone;
    uint64_t total = 0, used = 0;
    for (unsigned i = 0; mm_frame_get_stats(&kmm.pool, i, &zone) == MM_OK; i++) {
        print_usage(zone.name, zone.managed, zone.used);
        total += zone.managed;
        used += zone.used;
    }
    print_usage("all memory", total, used);
    mm_slab_get_stats(&kmm.heap, &slab);
    kmm.config.print("  used by the kernel %u.%u MB, page runs %u.%u MB (slabs %u.%u MB), "
                     "tables %u.%u MB, programs %u.%u MB, DMA %u.%u MB\n",
                     MB(kmm.use[KMM_KERNEL]), MB(kmm.use[KMM_BUDDY]),
                     MB(slab.bytes >> MM_PAGE_SHIFT), MB(kmm.use[KMM_TABLES]),
                     MB(kmm.use[KMM_USER]), MB(kmm.use[KMM_DMA]));
    kmm.config.print("  swap: %u of %u pages, evicted %u, read back %u; faults %u\n", kmm.swapped,
                     kmm.slots, kmm.evicted, kmm.swapped_in, kmm.faults);
}

/* ---- Check and dump -------------------------------------------------------------------------- */

enum kmm_health kmm_check(const char **what)
{
    uint64_t used = 0;
    for (unsigned i = 0; i < KMM_USES; i++)
        used += mm_load(&kmm.use[i]);
    const struct {
        const char *name;
        unsigned health;
    } parts[] = {{"frames", mm_frame_check(&kmm.pool, used, NULL)},
                 {"page runs", mm_buddy_check(&kmm.buddy)},
                 {"slabs", mm_slab_check(&kmm.heap) == MM_OK ? KMM_HEALTHY : KMM_CORRUPT},
                 {"the kernel's page tables",
                  mm_pagetable_check(&kmm.kernel, NULL, 0, NULL) == MM_ERR_CORRUPT ? KMM_CORRUPT
                                                                                   : KMM_HEALTHY}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i].health != KMM_HEALTHY) {
            if (what != NULL)
                *what = parts[i].name;
            return (enum kmm_health)parts[i].health;
        }
    return KMM_HEALTHY;
}

static void print_line(void *ctx, const char *line)
{
    kmm.config.print("  %s\n", line);
}

static void print_area(void *ctx, const char *line, size_t length)
{
    print_line(ctx, line);
}

void kmm_checked(void)
{
    const char *what;
    if (kmm.debug < 3 || (mm_fetch_add(&kmm.freed, 1) + 1) % KMM_CHECK_EVERY != 0 ||
        kmm_check(&what) == KMM_HEALTHY)
        return;
    (void)mm_fetch_add(&kmm.reports, 1);
    print_line(NULL, what);
}

void kmm_dump(struct kmm_space *space)
{
    if (space != NULL) {
        mm_vma_list(&space->vma, print_area, NULL);
        return;
    }
    mm_frame_dump(&kmm.pool, print_line, NULL);
    mm_slab_dump(&kmm.heap, print_line, NULL);
    mm_pagetable_dump(&kmm.kernel, print_line, NULL);
}

/* ---- The stress test ------------------------------------------------------------------------- */

#define HELD  32
#define TRIAL ((mm_va_t)(kmm.config.user_low + 16 * MM_PAGE_SIZE)) /* address in a program */

/* Memory of one of three kinds, filled with a byte. */
struct held {
    unsigned char *at; /* NULL: none */
    size_t bytes;
    enum { OBJECT, RUN, DMA_RUN, KINDS } kind;
    unsigned char fill;
};

static unsigned below(uint64_t *random, unsigned limit)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return (unsigned)((*random >> 11) % limit);
}

static void take(struct held *h, uint64_t *random)
{
    h->kind = below(random, KINDS);
    h->fill = (unsigned char)below(random, 256);
    h->bytes = h->kind == OBJECT ? 1 + below(random, 1u << (3 + below(random, 12)))
                                 : (size_t)(MM_PAGE_SIZE << below(random, 4));
    h->at = h->kind == OBJECT ? kmm_alloc(h->bytes, 0)
            : h->kind == RUN  ? kmm_at(kmm_alloc_pages(mm_ctz(h->bytes >> MM_PAGE_SHIFT)))
                              : kmm_at(kmm_alloc_dma(h->bytes, MM_PAGE_SIZE, 65536, 0));
    if (h->at != NULL)
        MM_MEMSET(h->at, h->fill, h->bytes);
}

/* True if it was intact, and could be freed. */
static bool give(struct held *h)
{
    const bool intact =
        h->at[0] == h->fill && h->at[h->bytes / 2] == h->fill && h->at[h->bytes - 1] == h->fill;
    const enum mm_status status =
        h->kind == OBJECT ? kmm_free(h->at)
        : h->kind == RUN  ? kmm_free_pages(kmm_pa_of(h->at), mm_ctz(h->bytes >> MM_PAGE_SHIFT))
                          : kmm_free_dma(kmm_pa_of(h->at), h->bytes);
    h->at = NULL;
    return intact && status == MM_OK;
}

/* What a program wrote, across two pages, its clone reads when it has gone. */
static bool clone_reads(unsigned char fill)
{
    const mm_va_t at = TRIAL + MM_PAGE_SIZE - 32;
    struct kmm_space *parent = kmm_space_create(0), *child = NULL;
    unsigned char text[64];
    MM_MEMSET(text, fill, sizeof text);
    if (parent != NULL && kmm_region_alloc(parent, MM_VMA_DATA, TRIAL, 8 * MM_PAGE_SIZE, 0) == 0 &&
        kmm_copy_out(parent, at, text, sizeof text))
        child = kmm_space_clone(parent);
    kmm_space_destroy(parent);
    MM_MEMSET(text, ~fill, sizeof text);
    const bool good = child != NULL && kmm_copy_in(child, text, at, sizeof text) &&
                      text[0] == fill && text[63] == fill;
    kmm_space_destroy(child);
    return good;
}

uint64_t kmm_stress(uint64_t seed, uint64_t ops)
{
    struct held held[HELD] = {0};
    uint64_t random = seed * 2 + 1, wrong = 0;
    for (; ops != 0; ops--) {
        struct held *h = &held[below(&random, HELD)];
        if (h->at != NULL)
            wrong += !give(h);
        else if (below(&random, 16) != 0)
            take(h, &random);
        else
            wrong += !clone_reads((unsigned char)ops);
    }
    for (unsigned i = 0; i < HELD; i++)
        wrong += held[i].at != NULL && !give(&held[i]);
    return wrong;
}

/* ---- The benchmark --------------------------------------------------------------------------- */

static uint64_t lap(const char *name, uint64_t start, uint64_t count)
{
    kmm.config.print("  bench: %s: %u ticks\n", name, (kmm.config.clock() - start) / count);
    return kmm.config.clock();
}

void kmm_bench(void)
{
    enum { N = 1000, PAGES = 64 };
    struct kmm_space *space = kmm_space_create(0);
    if (space != NULL &&
        kmm_region_alloc(space, MM_VMA_DATA, TRIAL, PAGES * MM_PAGE_SIZE, 0) == 0) {
        uint64_t start = kmm.config.clock();
        for (unsigned i = 0; i < N; i++)
            (void)kmm_free(kmm_alloc(64, 0));
        start = lap("kmm_alloc and kmm_free of 64 bytes", start, N);
        for (unsigned i = 0; i < N; i++)
            (void)kmm_free_pages(kmm_alloc_pages(0), 0);
        start = lap("a page and back", start, N);
        for (unsigned i = 0; i < PAGES; i++)
            (void)kmm_fault(space, TRIAL + i * MM_PAGE_SIZE, MM_VMA_WRITE);
        start = lap("a page fault on untouched memory", start, PAGES);
        kmm_space_destroy(kmm_space_clone(space));
        (void)lap("fork and exit of 64 pages", start, 1);
    }
    kmm_space_destroy(space);
}
