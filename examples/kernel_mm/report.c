/* report.c - what the memory manager tells: statistics, health, lists, cases of misuse */
#include "parts.h"

/* A line of what the headers dump. */
static void print_line(void *ctx, const char *line)
{
    kmm.config.print("  %s\n", line);
}

static void print_area(void *ctx, const char *line, size_t length)
{
    print_line(ctx, line);
}

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
    kmm_trim();
    kmm_get_stats(&stats);
    return stats.free;
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
    enum kmm_health health;
    uint64_t expected = 0;
    unsigned i;
    what = what != NULL ? what : &dummy;
    for (i = 0; i < KMM_USES; i++)
        expected += mm_load(&kmm.use[i]);
    health = (enum kmm_health)mm_frame_check(&kmm.pool, expected, what);
    if (health != KMM_HEALTHY)
        return health;
    *what = "page runs";
    health = (enum kmm_health)mm_buddy_check(&kmm.buddy);
    if (health != KMM_HEALTHY)
        return health;
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

void kmm_checked(void)
{
    const char *what = NULL;
    if (kmm.debug < 3 || (mm_fetch_add(&kmm.freed, 1) + 1) % KMM_CHECK_EVERY != 0 ||
        kmm_check(&what) == KMM_HEALTHY)
        return;
    (void)mm_fetch_add(&kmm.reports, 1);
    print_line(NULL, what);
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

const char *kmm_fault_name(enum mm_vma_fault fault)
{
    static const char *const names[] = {
        "ok",           "nothing mapped", "guard gap",           "not readable",
        "not writable", "not executable", "no page in the file", "no memory",
        "retry"};
    return (unsigned)fault < sizeof names / sizeof names[0] ? names[fault] : "?";
}
