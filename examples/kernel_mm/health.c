/* health.c - what the memory manager tells of itself, and how it is tried out in the kernel */
#include "kernel_mm.h"
#pragma GCC diagnostic ignored "-Wunused-parameter" /* of hooks */

/* ---- Reports --------------------------------------------------------------------------------- */

void kmm_report(const struct mm_report *report)
{
    (void)mm_fetch_add(&kmm.reports, 1);
    if (kmm.debug != 0)
        kmm.config.print("report: %s: %s at %x\n", report->where, report->what,
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
    static const char *const uses[] = {"the kernel", "page runs", "tables", "programs", "DMA"};
    struct mm_frame_stats zone;
    uint64_t total = 0, used = 0;
    for (unsigned i = 0; mm_frame_get_stats(&kmm.pool, i, &zone) == MM_OK; i++) {
        print_usage(zone.name, zone.managed, zone.used);
        total += zone.managed;
        used += zone.used;
    }
    print_usage("all memory", total, used);
    for (unsigned i = 0; i < KMM_USES; i++)
        kmm.config.print("    %s: %u.%u MB, %u%%\n", uses[i], MB(kmm.use[i]),
                         (uint64_t)kmm.use[i] * 100 / total);
    kmm.config.print("  evicted: %u pages; faults: %u\n", kmm.lru.evicted, kmm.faults);
}

/* ---- Check and dump -------------------------------------------------------------------------- */

enum kmm_health kmm_check(const char **what)
{
    static const char *const parts[] = {"frames", "page runs", "slabs", "the kernel's page tables"};
    uint64_t used = 0;
    for (unsigned i = 0; i < KMM_USES; i++)
        used += mm_load(&kmm.use[i]);
    const unsigned health[] = {
        mm_frame_check(&kmm.pool, used, NULL), mm_buddy_check(&kmm.buddy),
        mm_slab_check(&kmm.heap) == MM_OK ? KMM_HEALTHY : KMM_CORRUPT,
        mm_pagetable_check(&kmm.kernel, NULL, 0, NULL) == MM_OK ? KMM_HEALTHY : KMM_CORRUPT};
    for (unsigned i = 0; i < 4; i++)
        if (health[i] != KMM_HEALTHY) {
            *what = parts[i];
            return (enum kmm_health)health[i];
        }
    return KMM_HEALTHY;
}

void kmm_checked(void)
{
    struct mm_report ill = {.where = "kmm_check", .address = MM_PA_NONE};
    if (kmm.debug >= 3 && mm_fetch_add(&kmm.freed, 1) % 1024 == 0 &&
        kmm_check(&ill.what) != KMM_HEALTHY)
        kmm_report(&ill);
}

static void print_line(void *ctx, const char *line)
{
    kmm.config.print("  %s\n", line);
}

static void print_area(void *ctx, const char *line, size_t length)
{
    print_line(ctx, line);
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
#define TRIAL ((mm_va_t)(kmm.config.layout.low + 16 * MM_PAGE_SIZE)) /* address in a program */

/* Memory of one of three kinds, filled with a byte. */
struct held {
    unsigned char *at; /* NULL: none */
    size_t bytes;
    enum { OBJECT, RUN, DMA_RUN, KINDS } kind;
    unsigned char fill;
};

static unsigned below(uint64_t *random, unsigned limit)
{
    *random = *random * 6364136223846793005 + 1442695040888963407;
    return (unsigned)(*random >> 33) % limit;
}

static void take(struct held *h, uint64_t *random)
{
    const unsigned order = below(random, 4);
    h->kind = below(random, KINDS);
    h->fill = (unsigned char)below(random, 256);
    h->bytes = h->kind == OBJECT ? 1 + below(random, 8u << 4 * order) : MM_PAGE_SIZE << order;
    h->at = h->kind == OBJECT ? kmm_alloc(h->bytes, 0)
            : h->kind == RUN  ? kmm_at(kmm_alloc_pages(order))
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

/* What a program wrote its clone reads when it has gone. */
static bool clone_reads(uint64_t written)
{
    struct kmm_space *parent = kmm_space_create(0), *child = NULL;
    uint64_t read;
    if (parent != NULL && kmm_region_alloc(parent, MM_VMA_DATA, TRIAL, 8 * MM_PAGE_SIZE, 0) == 0 &&
        kmm_copy(parent, TRIAL, &written, sizeof written, true))
        child = kmm_space_clone(parent);
    kmm_space_destroy(parent);
    const bool same =
        child != NULL && kmm_copy(child, TRIAL, &read, sizeof read, false) && read == written;
    kmm_space_destroy(child);
    return same;
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
            wrong += !clone_reads(random);
    }
    for (unsigned i = 0; i < HELD; i++)
        wrong += held[i].at != NULL && !give(&held[i]);
    return wrong;
}

/* ---- The benchmark --------------------------------------------------------------------------- */

#define BENCH(name, times, work) /* what one of so many takes; `i` counts them */                \
    do {                                                                                         \
        const uint64_t start = kmm.config.clock();                                               \
        for (uint64_t i = 0; i < (times); i++)                                                   \
            work;                                                                                \
        kmm.config.print("  bench: %s: %u ticks\n", name, (kmm.config.clock() - start) / times); \
    } while (0)

void kmm_bench(void)
{
    struct kmm_space *space = kmm_space_create(0);
    BENCH("kmm_alloc and kmm_free of 64 bytes", 1000, (void)kmm_free(kmm_alloc(64, 0)));
    BENCH("a page and back", 1000, (void)kmm_free_pages(kmm_alloc_pages(0), 0));
    if (space != NULL && kmm_region_alloc(space, MM_VMA_DATA, TRIAL, 64 * MM_PAGE_SIZE, 0) == 0) {
        BENCH("a page fault on untouched memory", 64,
              (void)kmm_fault(space, TRIAL + i * MM_PAGE_SIZE, MM_VMA_WRITE));
        BENCH("fork and exit of 64 pages", 1, kmm_space_destroy(kmm_space_clone(space)));
    }
    kmm_space_destroy(space);
}
