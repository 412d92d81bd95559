/* pagetable_test.h - what the tests of mm_pagetable.h share: physical memory for tables, hooks that
 * count and fail. Include it instead of the header; formats are chosen before. */
#ifndef PAGETABLE_TEST_H
#define PAGETABLE_TEST_H

#include "mm_test.h"
#include <sys/mman.h>

/* With COUNTED tables' numbers of entries stand beside them. */
#ifdef COUNTED
static uint16_t *count_beside(uint64_t pa);
#define MM_PAGETABLE_COUNT(pt, pa) (*count_beside(pa))
#endif

#ifndef PAGETABLE_TEST_NO_IMPLEMENTATION
#define MM_PAGETABLE_IMPLEMENTATION
#endif
#include "mm_pagetable.h"

#define PAGE       ((uint64_t)4096)
#define MIB        ((uint64_t)1 << 20)
#define GIB        ((uint64_t)1 << 30)
#define RAM_BASE   ((mm_pa_t)0x10000000)
#define RAM_FRAMES 4096u

#define RW (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE)
#define RX (MM_PAGETABLE_READ | MM_PAGETABLE_EXEC)
#define RO MM_PAGETABLE_READ

/* Physical memory that tables live in: frames from RAM_BASE up. A table of more than a frame takes
 * several. */
struct ram {
    unsigned char *bytes;
    unsigned char used[RAM_FRAMES]; /* 0 free, 1 in use, 2 inside a larger table */
    size_t hint, in_use;
    struct mm_test_fail fail;
    size_t errors;
};

#define LOG_MAX 256u
struct released {
    mm_pa_t pa;
    uint64_t bytes;
    uint32_t attr;
};

/* A table and all that it lives with. */
struct space {
    struct mm_pagetable pt;
    struct mm_pagetable_config config;
    struct mm_pagetable_hooks hooks;
    struct ram *ram;
    /* what the hooks were told */
    uint64_t flushes, flushed_pages, full_flushes, fill_flushes, unlinks, graces;
    struct mm_pagetable_flush last;
    struct mm_pagetable_range last_ranges[MM_PAGETABLE_BATCH_RANGES];
    struct released released[LOG_MAX];
    size_t release_count;
    uint64_t referenced_pages;
    bool late; /* a frame or a table went although a flush was due */
};

static struct ram the_ram;

#ifdef COUNTED
static uint16_t counts[RAM_FRAMES];

static uint16_t *count_beside(uint64_t pa)
{
    size_t at = (pa - RAM_BASE) / PAGE;

    assert_true(pa >= RAM_BASE && at < RAM_FRAMES && pa % PAGE == 0);
    assert_int_equal(the_ram.used[at], 1); /* a table, and no other place */
    return &counts[at];
}
#endif

/* With MM_PAGETABLE_WINDOWS tables are reached through windows alone, each at an address of its own
 * that is a hole in memory while it is closed. */
#ifdef MM_PAGETABLE_WINDOWS
#define WINDOWS      (2 * MM_PAGETABLE_LEVELS_MAX + 2)
#define WINDOW_BYTES (4 * PAGE)
static int window_fd = -1;
static unsigned char *window_base;
static mm_pa_t window_pa[WINDOWS]; /* MM_PA_NONE: closed */
static unsigned windows_open, windows_most;
static unsigned long windows_opened;
#endif

static unsigned char *ram_memory(void)
{
#ifdef MM_PAGETABLE_WINDOWS
    window_fd = memfd_create("ram", 0);
    assert_true(window_fd >= 0 && ftruncate(window_fd, RAM_FRAMES * PAGE) == 0);
    window_base = mmap(NULL, WINDOWS * WINDOW_BYTES, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true((void *)window_base != MAP_FAILED);
    for (unsigned i = 0; i < WINDOWS; i++)
        window_pa[i] = MM_PA_NONE;
    return mmap(NULL, RAM_FRAMES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, window_fd, 0);
#else
    return mmap(NULL, RAM_FRAMES * PAGE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
#endif
}

static MM_TEST_UNUSED struct ram *ram_make(void)
{
    struct ram *ram = &the_ram;
    if (ram->bytes == NULL)
        ram->bytes = ram_memory();
    assert_true((void *)ram->bytes != MAP_FAILED);
    memset(ram->used, 0, sizeof ram->used);
    ram->hint = ram->in_use = ram->errors = 0;
    ram->fail = (struct mm_test_fail){0, 0};
    return ram;
}

static MM_TEST_UNUSED void *ram_at(const struct ram *ram, mm_pa_t pa)
{
    return ram->bytes + (pa - RAM_BASE);
}

static bool ram_fits(const struct ram *ram, size_t at, size_t frames)
{
    for (size_t i = 0; i < frames; i++)
        if (at + i >= RAM_FRAMES || ram->used[at + i] != 0)
            return false;
    return at % frames == 0;
}

static MM_TEST_UNUSED mm_pa_t ram_alloc(void *ctx, uint64_t bytes)
{
    struct space *s = ctx;
    struct ram *ram = s->ram;
    size_t frames = bytes > PAGE ? bytes / PAGE : 1;

    if (mm_test_fails(&ram->fail))
        return MM_PA_NONE;
    for (size_t n = 0; n < RAM_FRAMES; n++) {
        size_t at = (ram->hint + n) % RAM_FRAMES;
        if (!ram_fits(ram, at, frames))
            continue;
        memset(&ram->used[at], 2, frames);
        ram->used[at] = 1;
        ram->hint = at + frames;
        ram->in_use += frames;
        memset(ram->bytes + at * PAGE, 0xa5, frames * PAGE < bytes ? bytes : frames * PAGE);
#ifdef COUNTED
        counts[at] = 0xa5a5;
#endif
        return RAM_BASE + at * PAGE;
    }
    return MM_PA_NONE;
}

static MM_TEST_UNUSED void ram_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    struct space *s = ctx;
    struct ram *ram = s->ram;
    size_t frames = bytes > PAGE ? bytes / PAGE : 1, at = (table - RAM_BASE) / PAGE;

    if (table < RAM_BASE || at >= RAM_FRAMES || table % PAGE != 0 || ram->used[at] != 1) {
        ram->errors++;
        return;
    }
#ifdef MM_PAGETABLE_WINDOWS
    for (unsigned i = 0; i < WINDOWS; i++)
        ram->errors += window_pa[i] == table; /* freed, and still in use */
#endif
    memset(&ram->used[at], 0, frames);
    memset(ram->bytes + at * PAGE, 0x5b, frames * PAGE);
    ram->in_use -= frames;
}

static MM_TEST_UNUSED void log_flush(void *ctx, const struct mm_pagetable_flush *flush)
{
    struct space *s = ctx;
    s->flushes++;
    s->full_flushes += flush->all;
    s->fill_flushes += flush->filled_only;
    s->unlinks += flush->tables_unlink;
    s->last = *flush;
    for (unsigned i = 0; i < flush->count; i++) {
        s->last_ranges[i] = flush->ranges[i];
        s->flushed_pages += flush->ranges[i].bytes / PAGE;
    }
    s->last.ranges = s->last_ranges;
}

static MM_TEST_UNUSED void log_grace(void *ctx)
{
    ((struct space *)ctx)->graces++;
}

static MM_TEST_UNUSED void log_release(void *ctx, const struct mm_pagetable_extent *extent)
{
    struct space *s = ctx;
    struct released *r = &s->released[s->release_count++ % LOG_MAX];
    *r = (struct released){extent->pa, extent->bytes, extent->attr};
}

static MM_TEST_UNUSED void log_reference(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)pa;
    ((struct space *)ctx)->referenced_pages += bytes / PAGE;
}

#ifdef MM_PAGETABLE_WINDOWS
static void *window_open(void *ctx, mm_pa_t pa)
{
    const struct ram *ram = ((struct space *)ctx)->ram;
    size_t at = (pa - RAM_BASE) / PAGE, pages = 1;
    unsigned i = 0;

    assert_true(pa >= RAM_BASE && at < RAM_FRAMES && pa % PAGE == 0);
    assert_int_equal(ram->used[at], 1); /* a table, and no other place */
    while (at + pages < RAM_FRAMES && ram->used[at + pages] == 2)
        pages++;
    while (i < WINDOWS && window_pa[i] != MM_PA_NONE)
        i++;
    assert_true(i < WINDOWS);
    window_pa[i] = pa;
    windows_open++;
    windows_opened++;
    windows_most = windows_open > windows_most ? windows_open : windows_most;
    assert_true(mmap(window_base + i * WINDOW_BYTES, pages * PAGE, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_FIXED, window_fd, (off_t)(at * PAGE)) != MAP_FAILED);
    return window_base + i * WINDOW_BYTES;
}

static void window_close(void *ctx, void *table)
{
    size_t offset = (size_t)((unsigned char *)table - window_base), i = offset / WINDOW_BYTES;

    (void)ctx;
    assert_true(offset % WINDOW_BYTES == 0 && i < WINDOWS && window_pa[i] != MM_PA_NONE);
    window_pa[i] = MM_PA_NONE;
    windows_open--;
    assert_int_equal(mprotect(table, WINDOW_BYTES, PROT_NONE), 0);
}
#endif

/* A configuration with all hooks: change it, then space_make. */
static MM_TEST_UNUSED void space_begin(struct space *s, struct ram *ram,
                                       const struct mm_pagetable_format *format)
{
    memset(s, 0, sizeof *s);
    s->ram = ram;
    s->hooks = (struct mm_pagetable_hooks){.ctx = s,
                                           .alloc = ram_alloc,
                                           .free = ram_free,
                                           .flush = log_flush,
                                           .grace = log_grace,
                                           .release = log_release,
                                           .reference = log_reference};
#ifdef MM_PAGETABLE_WINDOWS
    s->hooks.open = window_open;
    s->hooks.close = window_close;
#endif
    assert_int_equal(mm_pagetable_config_init(&s->config, format, &s->hooks,
                                              (uintptr_t)ram->bytes - (uintptr_t)RAM_BASE),
                     MM_OK);
#ifdef MM_PAGETABLE_WINDOWS
    s->config.direct = 0; /* leads nowhere */
#endif
}

static MM_TEST_UNUSED void space_make(struct space *s)
{
    memset(&s->pt, 0xa5, sizeof s->pt);
    assert_int_equal(mm_pagetable_init(&s->pt, &s->config), MM_OK);
}

static MM_TEST_UNUSED void space_simple(struct space *s, const struct mm_pagetable_format *format)
{
    space_begin(s, ram_make(), format);
    space_make(s);
}

static MM_TEST_UNUSED void space_check(const struct space *s)
{
    static mm_pa_t seen[RAM_FRAMES];
    struct mm_pagetable_flaw flaw = {"", 0, 0, 0};
    enum mm_status status = mm_pagetable_check(&s->pt, seen, RAM_FRAMES, &flaw);

    if (status != MM_OK)
        fprintf(stderr, "# %s at %#llx, level %u: %#llx\n", flaw.what, (unsigned long long)flaw.va,
                flaw.level, (unsigned long long)flaw.raw);
    assert_int_equal(status, MM_OK);
#ifdef MM_PAGETABLE_WINDOWS
    assert_int_equal(windows_open, 0);
#endif
}

/* Checks, destroys, and looks that every table came back. */
static MM_TEST_UNUSED void space_end(struct space *s)
{
    space_check(s);
    assert_int_equal(mm_pagetable_destroy(&s->pt, true), MM_OK);
    assert_int_equal(s->ram->errors, 0);
    assert_int_equal(s->ram->in_use, 0);
}

static MM_TEST_UNUSED struct mm_pagetable_entry entry_at(const struct space *s, mm_va_t va)
{
    struct mm_pagetable_entry entry;
    assert_int_equal(mm_pagetable_query(&s->pt, va, &entry), MM_OK);
    return entry;
}

static MM_TEST_UNUSED bool nothing_at(const struct space *s, mm_va_t va)
{
    struct mm_pagetable_entry entry;
    return mm_pagetable_query(&s->pt, va, &entry) == MM_ERR_NOENT;
}

static MM_TEST_UNUSED struct mm_pagetable_stats stats_of(const struct space *s)
{
    struct mm_pagetable_stats stats;
    mm_pagetable_get_stats(&s->pt, &stats);
    return stats;
}

static MM_TEST_UNUSED enum mm_status map(struct space *s, mm_va_t va, mm_pa_t pa, uint64_t bytes,
                                         uint32_t attr)
{
    return mm_pagetable_map(&s->pt, va, pa, bytes, attr, 0, NULL);
}

/* All memory of tables, to see that a failed call changed nothing. */
static MM_TEST_UNUSED uint64_t ram_sum(const struct ram *ram)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t f = 0; f < RAM_FRAMES; f++) {
        const uint64_t *word = (const uint64_t *)(const void *)(ram->bytes + f * PAGE);
        if (ram->used[f] == 0)
            continue;
        sum = (sum ^ f) * 0x100000001b3u;
        for (size_t i = 0; i < PAGE / 8; i++)
            sum = (sum ^ word[i]) * 0x100000001b3u;
    }
    return sum;
}

#endif
