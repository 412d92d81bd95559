/* examples/kernel_mm over memory of this program in the part of physical memory; the page tables
 * are walked by the library itself (the kernels of examples/ have the processor do it). */
#include "mm_test.h"
#include <inttypes.h>
#include <stdarg.h>

unsigned on_cpu; /* not static: inline functions use it */
static void *copy_while_evicting(void *to, const void *from, size_t size);
#define MM_CPU_MAX                2
#define MM_CPU_ID()               on_cpu
#define MM_MEMCPY(to, from, size) copy_while_evicting(to, from, size)
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_SV48
#include "../../examples/kernel_mm/kernel_mm.c"
#include "../../examples/kernel_mm/space.c"
#include "../../examples/kernel_mm/health.c"
#include "../../examples/kernel_common/copy.c"
#include "../../examples/kernel_common/pager.c"

#define RAM_BYTES ((uint64_t)48 << 20)
#define LOW       ((mm_va_t)0x10000)
#define TOP       ((mm_va_t)1 << 38)
#define R         MM_VMA_READ
#define W         MM_VMA_WRITE
#define X         MM_VMA_EXEC
#define PAGE      MM_PAGE_SIZE
#define AT        ((mm_va_t)0x500000)           /* of a program's data */
#define WINDOW    ((mm_va_t)0xffffffffc0000000) /* for what the kernel maps later */
#define DEVICE    MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE)
#define PRIVATE   (MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS)

static unsigned char *ram;
static unsigned flushes, lines;
static char said[1 << 16]; /* what was printed since the last hear() */
static size_t said_length;

static const struct mm_pagetable *flushed; /* whose translations, last */
static bool flushed_filled, flushed_all;

static void test_flush(const struct mm_pagetable_flush *flush)
{
    flushes++;
    flushed = flush->pt;
    flushed_filled = flush->filled_only;
    flushed_all = flush->all;
}

static uint64_t test_clock(void)
{
    static uint64_t now;
    return now += 1000;
}

static void hear(void)
{
    lines = 0;
    said_length = 0;
    said[0] = '\0';
}

/* %s, %u and %x, as kernel_mm.h has them: numbers have 64 bits. */
static void test_print(const char *format, ...)
{
    const size_t from = said_length;
    va_list list;
    va_start(list, format);
    for (; *format != 0; format++) {
        char *at = said + said_length;
        const size_t room = sizeof said - said_length;
        lines += *format == '\n';
        if (*format != '%')
            said_length += (size_t)snprintf(at, room, "%c", *format);
        else if (*++format == '%')
            said_length += (size_t)snprintf(at, room, "%%");
        else if (*format == 's')
            said_length += (size_t)snprintf(at, room, "%s", va_arg(list, const char *));
        else
            said_length += (size_t)snprintf(at, room, *format == 'x' ? "%" PRIx64 : "%" PRIu64,
                                            va_arg(list, uint64_t));
        assert_true(said_length < sizeof said);
    }
    va_end(list);
    printf("# %s", said + from);
}

static enum mm_status start_with(uint64_t ram_bytes, uint64_t swap_bytes,
                                 enum mm_pagetable_id format)
{
    static const struct mm_frame_zone_config zones[] = {
        {"DMA", 0, 16 << 20, KMM_WATERMARKS}, {"Normal", 16 << 20, MM_PA_NONE, KMM_WATERMARKS}};
    const struct mm_frame_range map[] = {{0, ram_bytes, MM_FRAME_USABLE},
                                         {0x9f000, 0x61000, MM_FRAME_RESERVED},
                                         {0x100000, 0x20000, MM_FRAME_KERNEL},
                                         {0xfe000000, 0x1000, MM_FRAME_DEVICE}};
    struct kmm_config config = {0};
    static const struct mm_pagetable_run image = {.va = 0xffffffff80000000,
                                                  .pa = 0x100000,
                                                  .bytes = 0x20000,
                                                  .attr = MM_PAGETABLE_READ | MM_PAGETABLE_EXEC};
    enum mm_status status;

    memset(ram, 0xa5, ram_bytes <= RAM_BYTES ? ram_bytes : 0); /* nothing is zero by itself */
    config.map = map;
    config.map_count = 4;
    config.zones = zones;
    config.zone_count = 2;
    config.format = mm_pagetable_format_of(format);
    config.direct = (uintptr_t)ram;
    config.mappings = &image;
    config.mapping_count = 1;
    mm_vma_config_init(&config.layout);
    config.layout.low = config.layout.up_base = LOW;
    config.layout.top = TOP;
    config.layout.mmap_base = TOP / 2;
    config.layout.guard_pages = 16;
    config.layout.limits.stack = 1 << 20;
    config.pager = pager;
    config.flush = test_flush;
    config.clock = test_clock;
    config.print = test_print;
    status = kmm_init(&config);
    memset(&disk, 0, sizeof disk);
    return status == MM_OK && swap_bytes != 0 ? disk_init(swap_bytes) : status;
}

static int start(void **state)
{
    (void)state;
    return start_with(RAM_BYTES, 4 << 20, MM_PAGETABLE_ID_X86_64) != MM_OK;
}

/* Nothing may be left when the memory manager gives up what it has itself, but what it took for
 * good. */
static int stop(void **state)
{
    const char *what = "";

    (void)state;
    kmm.debug = 1;
    if (kmm_check(&what) != KMM_HEALTHY)
        fail_msg("%s", what);
    for (uintptr_t i = 0; i < disk.slots; i++)
        assert_int_equal(disk.users[i], 0);
    mm_vma_system_fini(&kmm.vma);
    assert_int_equal(mm_pagetable_destroy(&kmm.kernel, true), MM_OK);
    assert_int_equal(mm_slab_fini(&kmm.heap), MM_OK);
    kmm_trim(); /* its page runs are left */
    for (unsigned i = KMM_KERNEL + 1; i < KMM_USES; i++)
        assert_int_equal(kmm.use[i], 0);
    assert_int_equal(mm_frame_check(&kmm.pool, kmm.use[KMM_KERNEL], NULL), MM_FRAME_HEALTHY);
    return 0;
}

/* Frames that nobody uses, after all gave back what they can. */
static uint64_t free_frames(void)
{
    kmm_trim();
    return mm_frame_free_count(&kmm.pool, 0) + mm_frame_free_count(&kmm.pool, 1);
}

static int map(struct kmm_space *space, uint64_t pages, unsigned prot, unsigned flags,
               struct file *file, mm_va_t *va)
{
    const struct mm_vma_request request = {
        .bytes = pages * PAGE, .prot = prot, .flags = flags, .file = file};
    return kmm_mmap(space, &request, va);
}

static void touch(struct kmm_space *space, mm_va_t va, uint64_t pages, unsigned char base)
{
    for (uint64_t i = 0; i < pages; i++) {
        unsigned char byte = (unsigned char)(base + i * 7);
        assert_true(copy_out(space, va + i * PAGE + 100, &byte, 1));
    }
}

static void assert_touched(struct kmm_space *space, mm_va_t va, uint64_t pages, unsigned char base)
{
    for (uint64_t i = 0; i < pages; i++) {
        unsigned char byte = 0;
        assert_true(copy_in(space, &byte, va + i * PAGE + 100, 1));
        assert_int_equal(byte, (unsigned char)(base + i * 7));
    }
}

/* A space with so many pages of data at AT; filled: touched, all of them. */
static struct kmm_space *with_data(uint64_t quota, uint64_t pages)
{
    struct kmm_space *space = kmm_space_create(quota);
    assert_non_null(space);
    assert_int_equal(kmm_region_alloc(space, MM_VMA_DATA, AT, pages * PAGE, 0), 0);
    return space;
}

static struct kmm_space *filled(uint64_t quota, uint64_t pages, unsigned char base)
{
    struct kmm_space *space = with_data(quota, pages);
    touch(space, AT, pages, base);
    return space;
}

static bool is_present(struct kmm_space *space, mm_va_t va)
{
    struct mm_pagetable_entry e;
    return mm_pagetable_query(&space->pt, va, &e) == MM_OK && (e.attr & MM_PAGETABLE_SWAP) == 0;
}

/* Takes all frames, those of page runs too, until memory_back(); and those kept for tables if
 * `flags` say so. */
static struct {
    mm_pa_t pa;
    unsigned order;
} frames_gone[4096], runs_gone[4096];
static size_t frames_count, runs_count;

static void memory_gone(unsigned flags)
{
    for (unsigned order = 9; order <= 9;
         order -= 3) { /* large ones first: that takes fewer calls */
        frames_gone[frames_count].order = order;
        while ((frames_gone[frames_count].pa =
                    mm_frame_alloc_order(&kmm.pool, order, KMM_NORMAL | flags)) != MM_PA_NONE)
            frames_gone[++frames_count].order = order;
    }
    for (unsigned order = 9; order <= 9; order -= 3) {
        runs_gone[runs_count].order = order;
        while ((runs_gone[runs_count].pa =
                    run_alloc(PAGE << order, PAGE << order, MM_SLAB_NOWAIT)) != MM_PA_NONE)
            runs_gone[++runs_count].order = order;
    }
}
static void memory_back(void)
{
    while (frames_count-- != 0)
        assert_int_equal(mm_frame_free_order(&kmm.pool, frames_gone[frames_count].pa,
                                             frames_gone[frames_count].order),
                         MM_OK);
    while (runs_count-- != 0)
        assert_int_equal(kmm_free_pages(runs_gone[runs_count].pa, runs_gone[runs_count].order),
                         MM_OK);
    frames_count = runs_count = 0;
}

/* ---- kernel memory ---- */

static void runs_are_aligned_to_their_size(void **state)
{
    mm_pa_t pa[12];

    (void)state;
    for (unsigned order = 0; order < 12; order++) {
        pa[order] = kmm_alloc_pages(order);
        assert_int_equal(pa[order] & ((PAGE << order) - 1), 0); /* MM_PA_NONE is not aligned */
    }
    assert_int_equal(kmm_alloc_pages(14), MM_PA_NONE); /* all there is */
    assert_int_equal(kmm_alloc_pages(40), MM_PA_NONE);
    for (unsigned order = 0; order < 12; order++)
        assert_int_equal(kmm_free_pages(pa[order], order), MM_OK);
}

/* Pages of programs go to swap for it, although no chunk of 2 MiB comes free. */
static void the_kernel_gets_memory_at_the_expense_of_programs(void **state)
{
    struct kmm_space *s = filled(0, 1000, 1), *child;
    mm_pa_t run, page;
    char *object;

    (void)state;
    memory_gone(0);
    assert_null(kmm_alloc(200000, MM_SLAB_NOWAIT));
    object = kmm_alloc(200000, 0);
    assert_non_null(object);
    memory_gone(0);
    page = kmm_alloc_pages(0);
    assert_int_not_equal(page, MM_PA_NONE);
    memory_gone(0);
    run = kmm_alloc_pages(3);
    assert_int_not_equal(run, MM_PA_NONE);
    memory_gone(0);
    child = kmm_space_clone(s);
    assert_non_null(child);
    memory_gone(0);
    assert_int_equal(kmm_fault(child, AT, W), MM_VMA_FAULT_OK);
    memory_back();
    assert_touched(s, AT, 1000, 1);
    assert_touched(child, AT, 1000, 1);
    kmm_space_destroy(child);
    kmm_space_destroy(s);
    assert_int_equal(kmm_free_pages(page, 0), MM_OK);
    assert_int_equal(kmm_free_pages(run, 3), MM_OK);
    assert_int_equal(kmm_free(object), MM_OK);
}

/* mm_vma's own memory comes under a space's lock, where nothing is reclaimed: kmm_mmap does it and
 * tries again. */
static void many_areas_come_at_the_expense_of_pages(void **state)
{
    struct kmm_space *s = filled(0, 700, 1);
    void **taken = NULL, **more;
    mm_va_t va;

    (void)state;
    memory_gone(0);
    while ((more = kmm_alloc(sizeof(struct mm_vma), MM_SLAB_NOWAIT)) != NULL) {
        *more = taken;
        taken = more;
    }
    for (unsigned i = 0; i < 700; i++) /* areas that do not merge */
        assert_int_equal(map(s, 1, i % 2 != 0 ? R : R | W, PRIVATE, NULL, &va), 0);
    memory_back();
    for (; taken != NULL; taken = more) {
        more = *taken;
        assert_int_equal(kmm_free(taken), MM_OK);
    }
    assert_touched(s, AT, 700, 1);
    kmm_space_destroy(s);
}

/* There is a frame for the clone's first table, and one more: not enough for those below. */
static void a_clone_comes_at_the_expense_of_pages(void **state)
{
    struct kmm_space *s = filled(0, 300, 1), *child;

    (void)state;
    memory_gone(MM_FRAME_URGENT);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(frames_gone[--frames_count].order, 0);
        assert_int_equal(mm_frame_free(&kmm.pool, frames_gone[frames_count].pa), MM_OK);
    }
    child = kmm_space_clone(s);
    assert_non_null(child);
    assert_true(kmm.lru.evicted > 0);
    memory_back();
    assert_touched(child, AT, 300, 1);
    kmm_space_destroy(child);
    kmm_space_destroy(s);
}

static void tables_can_be_made_when_all_else_is_in_use(void **state)
{
    (void)state;
    memory_gone(0);
    assert_int_equal(kmm_map(0xffffff8000000000, 0x200000, PAGE, MM_PAGETABLE_READ), MM_OK);
    memory_back();
    assert_int_equal(kmm_unmap(0xffffff8000000000, PAGE), MM_OK);
}

static void changes_of_tables_are_flushed(void **state)
{
    const mm_va_t va = 0xffffffff90000000;
    struct kmm_space *s = with_data(0, 64);

    (void)state;
    assert_int_equal(kmm_map(va, 0x200000, PAGE, MM_PAGETABLE_READ), MM_OK);
    flushed = NULL;
    assert_int_equal(kmm_unmap(va, PAGE), MM_OK);
    assert_ptr_equal(flushed, &kmm.kernel);
    assert_false(flushed_filled);
    touch(s, AT, 3, 1);
    touch(s, AT + 60 * PAGE, 1, 1);
    assert_int_equal(kmm_region_free(s, AT, 2 * PAGE), 0);
    assert_true(flushed == &s->pt && !flushed_all);
    assert_int_equal(kmm_region_free(s, AT, 64 * PAGE), 0);
    assert_true(flushed == &s->pt && flushed_all); /* rather than 59 times one */
    kmm_space_destroy(s);
}

/* RISC-V: a hart may remember that there was nothing; devices have no type without Svpbmt. */
static void new_translations_are_announced_where_they_must_be(void **state)
{
    struct mm_pagetable_entry e;
    struct kmm_space *s;
    mm_va_t va;

    (void)state;
    assert_int_equal(stop(NULL), 0);
    assert_int_equal(start_with(RAM_BYTES, 0, MM_PAGETABLE_ID_SV48), MM_OK);
    s = kmm_space_create(0);
    assert_int_equal(map(s, 1, R | W, PRIVATE, NULL, &va), 0);
    assert_int_equal(kmm_fault(s, va, W), MM_VMA_FAULT_OK);
    assert_ptr_equal(flushed, &s->pt);
    assert_true(flushed_filled);
    assert_int_equal(kmm_map(WINDOW, 0xfee00000, PAGE, MM_PAGETABLE_READ | DEVICE), MM_OK);
    assert_int_equal(mm_pagetable_query(&kmm.kernel, WINDOW, &e), MM_OK);
    assert_int_equal(MM_PAGETABLE_TYPE_OF(e.attr), 0);
    assert_int_equal(kmm_unmap(WINDOW, PAGE), MM_OK);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_IO, AT, PAGE, 0xfee00000), 0);
    kmm_space_destroy(s);
}

static void objects_of_every_size_are_writable_and_apart(void **state)
{
    unsigned char *p[120];
    size_t size[120];

    (void)state;
    for (unsigned i = 0; i < 120; i++) {
        size[i] = (size_t)1 + i * i * 7;
        p[i] = kmm_alloc(size[i], 0);
        assert_non_null(p[i]);
        assert_true(mm_slab_ksize(&kmm.heap, p[i]) >= size[i]);
        assert_true(p[i] >= ram && p[i] + size[i] <= ram + RAM_BYTES);
        memset(p[i], (int)i, size[i]);
    }
    for (unsigned i = 0; i < 120; i++) {
        for (size_t j = 0; j < size[i]; j++)
            assert_int_equal(p[i][j], i);
        assert_int_equal(kmm_free(p[i]), MM_OK);
    }
}

static void realloc_keeps_the_content(void **state)
{
    unsigned char *p = kmm_realloc(NULL, 10);

    (void)state;
    memset(p, 5, 10);
    p = kmm_realloc(p, 5000);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(p[i], 5);
    assert_int_equal(kmm_free(p), MM_OK);
}

static void a_double_free_is_refused_and_reported(void **state)
{
    mm_pa_t pa = kmm_alloc_pages(1);
    uintptr_t before = kmm.reports;
    void *p = kmm_alloc(40, 0);

    (void)state;
    assert_int_equal(kmm_free_pages(pa, 1), MM_OK);
    assert_int_equal(kmm_free_pages(pa, 1), MM_ERR_INVALID);
    assert_int_equal(kmm_free(p), MM_OK);
    assert_int_equal(kmm_free(p), MM_ERR_INVALID);
    if (MM_DEBUG != 0)
        assert_true(kmm.reports >= before + 2);
    kmm.debug = 0;
    hear();
    assert_int_equal(kmm_free(p), MM_ERR_INVALID);
    assert_int_equal(lines, 0);
}

static void dma_memory_is_low_aligned_and_crosses_no_boundary(void **state)
{
    mm_pa_t pa[20];

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        pa[i] = kmm_alloc_dma(5 * PAGE, 2 * PAGE, 65536, 16 << 20);
        assert_true(pa[i] + 5 * PAGE <= 16 << 20);
        assert_int_equal(pa[i] % (2 * PAGE), 0);
        assert_int_equal(pa[i] / 65536, (pa[i] + 5 * PAGE - 1) / 65536);
    }
    assert_int_equal(kmm_alloc_dma(RAM_BYTES / 2, PAGE, 0, 0),
                     MM_PA_NONE); /* its zone and no other */
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(kmm_free_dma(pa[i], 5 * PAGE), MM_OK);
    assert_int_equal(kmm_free_dma(pa[0], 5 * PAGE), MM_ERR_INVALID);
    for (unsigned i = 0; i < 20; i++) { /* more than the first MiB has */
        pa[i] = kmm_alloc_dma(16 * PAGE, PAGE, 0, 1 << 20);
        assert_true(pa[i] == MM_PA_NONE || pa[i] + 16 * PAGE <= 1 << 20);
    }
    assert_int_equal(pa[19], MM_PA_NONE);
    for (unsigned i = 0; i < 20 && pa[i] != MM_PA_NONE; i++)
        assert_int_equal(kmm_free_dma(pa[i], 16 * PAGE), MM_OK);
}

static void all_memory_can_be_had_and_comes_back(void **state)
{
    static mm_pa_t pa[RAM_BYTES / MM_PAGE_SIZE];
    uint64_t before;
    size_t n = 0;

    (void)state;
    assert_int_equal(stop(NULL), 0);
    assert_int_equal(start_with(20 << 20, 0, MM_PAGETABLE_ID_X86_64), MM_OK);
    before = free_frames();
    while ((pa[n] = kmm_alloc_pages(0)) != MM_PA_NONE)
        n++;
    assert_in_range(n, before - 64, before); /* all but the few that zones keep */
    while (n != 0)
        assert_int_equal(kmm_free_pages(pa[--n], 0), MM_OK);
    assert_int_equal(free_frames(), before);
}

/* Free objects that processors or caches keep at hand. */
static size_t objects_at_hand(void)
{
    struct mm_slab_cache *cache = NULL;
    struct mm_slab_cache_stats stats;
    size_t n = 0;

    while ((cache = mm_slab_next_cache(&kmm.heap, cache)) != NULL) {
        mm_slab_cache_get_stats(cache, &stats);
        n += stats.cached;
    }
    return n;
}

static void caches_give_back_what_nobody_uses(void **state)
{
    static void *p[1000];
    uint64_t before = 0;

    (void)state;
    for (unsigned turn = 0; turn < 2; turn++) { /* the cache itself stays from the first on */
        for (unsigned i = 0; i < 1000; i++)
            assert_non_null(p[i] = kmm_alloc(2000, 0));
        for (unsigned i = 0; i < 1000; i++) {
            on_cpu = i % 2; /* each keeps some at hand */
            assert_int_equal(kmm_free(p[i]), MM_OK);
        }
        on_cpu = 0;
        assert_true(objects_at_hand() != 0 || MM_SLAB_DEBUG >= 1); /* which keeps none */
        kmm_trim();
        assert_int_equal(objects_at_hand(), 0);
        assert_int_equal(mm_slab_shrink(&kmm.heap), 0); /* nothing is left to be given back */
        assert_true(turn == 0 || free_frames() == before);
        before = free_frames();
    }
}

static void the_kernel_space_keeps_write_and_execute_apart(void **state)
{
    mm_va_t va = 0xffffffff90000000;
    mm_pa_t pa = kmm_alloc_pages(9);

    (void)state;
    assert_int_equal(
        kmm_map(va, pa, PAGE, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC),
        MM_ERR_INVALID);
    assert_int_equal(kmm_map(va, pa, PAGE << 9, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE), MM_OK);
    assert_int_equal(kmm_protect(va, PAGE, MM_PAGETABLE_READ | MM_PAGETABLE_EXEC), MM_OK);
    assert_int_equal(mm_pagetable_translate(&kmm.kernel, va + 5), pa + 5);
    assert_int_equal(kmm_unmap(va, PAGE << 9), MM_OK);
    assert_int_equal(mm_pagetable_translate(&kmm.kernel, va), MM_PA_NONE);
    assert_int_equal(kmm_free_pages(pa, 9), MM_OK);
}

/* The direct map: the table says what a processor would do with each access. */
static void the_image_is_not_writable_through_the_direct_map(void **state)
{
    struct mm_pagetable_access access;
    mm_va_t image = (uintptr_t)kmm_at(0x100000), data = (uintptr_t)kmm_at(0x200000);

    (void)state;
    mm_pagetable_predict(&kmm.kernel, image, MM_PAGETABLE_ACCESS_WRITE | MM_PAGETABLE_CPU_WP, 0,
                         &access);
    assert_int_equal(access.fault, MM_PAGETABLE_FAULT_PERMISSION);
    mm_pagetable_predict(&kmm.kernel, data, MM_PAGETABLE_ACCESS_WRITE | MM_PAGETABLE_CPU_WP, 0,
                         &access);
    assert_int_equal(access.fault, MM_PAGETABLE_FAULT_NONE);
    mm_pagetable_predict(&kmm.kernel, data, MM_PAGETABLE_ACCESS_FETCH, 0, &access);
    assert_int_equal(access.fault, MM_PAGETABLE_FAULT_PERMISSION);
}

static void large_leaves_map_all_memory(void **state)
{
    struct mm_pagetable_entry e;
    struct mm_pagetable_stats stats;

    (void)state;
    assert_int_equal(mm_pagetable_query(&kmm.kernel, (uintptr_t)kmm_at(RAM_BYTES / 2), &e), MM_OK);
    assert_true(e.bytes >= PAGE << 9 && (e.attr & MM_PAGETABLE_GLOBAL) != 0);
    assert_true((e.attr & MM_PAGETABLE_ACCESSED) != 0 && (e.attr & MM_PAGETABLE_DIRTY) != 0);
    assert_int_equal(mm_pagetable_translate(&kmm.kernel, (uintptr_t)kmm_at(0xfe000000)),
                     MM_PA_NONE);
    mm_pagetable_get_stats(&kmm.kernel, &stats);
    assert_in_range(stats.leaves[0], 32, 3 * 512); /* the image, and what is next to another kind */
}

static void each_space_has_the_kernels_half(void **state)
{
    const mm_va_t image = 0xffffffff80000000;
    struct kmm_space *s = kmm_space_create(0), *child = kmm_space_clone(s);
    mm_va_t user;

    (void)state;
    assert_int_equal(kmm_map(WINDOW, 0xfee00000, PAGE, MM_PAGETABLE_READ), MM_OK);
    assert_int_equal(mm_pagetable_translate(&s->pt, image + 0x1234), 0x101234);
    assert_int_equal(mm_pagetable_translate(&child->pt, image + 0x1234), 0x101234);
    assert_int_equal(mm_pagetable_translate(&child->pt, WINDOW), 0xfee00000);
    assert_int_equal(map(s, 1, R | W, PRIVATE, NULL, &user), 0);
    touch(s, user, 1, 1);
    assert_int_equal(mm_pagetable_translate(&child->pt, user), MM_PA_NONE);
    assert_int_equal(mm_pagetable_translate(&kmm.kernel, user), MM_PA_NONE);
    kmm_space_destroy(child);
    kmm_space_destroy(s);
    assert_int_equal(mm_pagetable_translate(&kmm.kernel, WINDOW), 0xfee00000);
    assert_int_equal(kmm_unmap(WINDOW, PAGE), MM_OK);
}

static void a_device_is_uncached(void **state)
{
    const uint32_t attr = MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_GLOBAL;
    struct mm_pagetable_entry e;

    (void)state;
    assert_int_equal(kmm_map(WINDOW, 0xfee00000, PAGE, attr | DEVICE), MM_OK);
    assert_int_equal(mm_pagetable_query(&kmm.kernel, WINDOW, &e), MM_OK);
    assert_int_equal(e.pa, 0xfee00000);
    assert_int_equal(MM_PAGETABLE_TYPE_OF(e.attr), MM_PAGETABLE_DEVICE);
    assert_int_equal(e.attr & MM_PAGETABLE_PERMS, attr);
    assert_int_equal(kmm_map(WINDOW + PAGE, (mm_pa_t)1 << 60, PAGE, attr), MM_ERR_INVALID);
    assert_int_equal(kmm_unmap(WINDOW, PAGE), MM_OK);
    assert_int_equal(mm_pagetable_translate(&kmm.kernel, WINDOW), MM_PA_NONE);
}

/* ---- user spaces ---- */

static void regions_by_kind_have_their_rights(void **state)
{
    struct kmm_space *s = kmm_space_create(0), *child;
    struct mm_vma_entry entry;
    struct mm_pagetable_entry e;
    unsigned char byte;

    (void)state;
    assert_int_equal(kmm_region_alloc(s, MM_VMA_CODE, 0x400000, 4 * PAGE, 0), 0);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_DATA, AT, 4 * PAGE, 0), 0);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_STACK, 0x7000000, 4 * PAGE, 0), 0);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_IO, 0x8000000, PAGE, 0xfee00000), 0);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_HEAP, 0x9000000, PAGE, 0), 0);
    assert_int_equal(mm_vma_brk(&s->vma, 0x9004000), 0x9004000);
    assert_int_equal(kmm_fault(s, 0x9003000, W), MM_VMA_FAULT_OK);
    assert_int_equal(kmm_fault(s, 0x9003000, X), MM_VMA_FAULT_EXEC);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_LINEAR, 0xa000000, 2 * PAGE, 0xe0000000), 0);
    assert_int_equal(mm_pagetable_translate(&s->pt, 0xa001000), 0xe0001000);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_FRAMED, 0xb000000, 2 * PAGE, 0), 0);
    assert_true(mm_pagetable_translate(&s->pt, 0xb001000) < RAM_BYTES); /* at once */
    assert_int_equal(kmm_fault(s, 0x400000, X), MM_VMA_FAULT_OK);
    assert_int_equal(kmm_fault(s, 0x400000, W), MM_VMA_FAULT_WRITE);
    assert_int_equal(kmm_fault(s, AT, W), MM_VMA_FAULT_OK);
    assert_int_equal(kmm_fault(s, AT, X), MM_VMA_FAULT_EXEC);
    assert_int_equal(kmm_fault(s, 0x7000000 - PAGE, W), MM_VMA_FAULT_OK);         /* it grows */
    assert_int_equal(kmm_fault(s, 0x7000000 - (2 << 20), W), MM_VMA_FAULT_GUARD); /* not that far */
    assert_int_equal(kmm_fault(s, 0x7100000, R), MM_VMA_FAULT_NONE);
    assert_int_equal(mm_pagetable_query(&s->pt, 0x8000000, &e), MM_OK);
    assert_int_equal(e.pa, 0xfee00000);
    assert_int_equal(MM_PAGETABLE_TYPE_OF(e.attr), MM_PAGETABLE_DEVICE);
    assert_true(pt_next(NULL, s, 0x8000000, 0x8001000, &entry));
    assert_int_equal(entry.prot, R | W | MM_VMA_DEVICE);
    child = kmm_space_clone(s);
    assert_int_equal(mm_vma_check(&child->vma), MM_OK);
    assert_int_equal(kmm_fault(child, 0x8000000, W), MM_VMA_FAULT_OK);
    assert_int_equal(mm_pagetable_translate(&child->pt, 0x8000000), 0xfee00000);
    kmm_space_destroy(child);
    assert_false(copy_in(s, &byte, 0x8000000, 1)); /* the direct map has no devices */
    assert_int_equal(kmm_region_protect(s, AT, PAGE, R), 0);
    assert_int_equal(kmm_fault(s, AT, W), MM_VMA_FAULT_WRITE);
    assert_int_equal(kmm_region_protect(s, AT, PAGE, 0), 0);
    assert_int_equal(kmm_fault(s, AT, R), MM_VMA_FAULT_READ);
    assert_int_equal(kmm_region_protect(s, AT, PAGE, W | X), MM_VMA_EACCES);
    assert_int_equal(kmm_region_free(s, AT, 4 * PAGE), 0);
    assert_int_equal(kmm_fault(s, AT, R), MM_VMA_FAULT_GUARD);
    assert_int_equal(mm_vma_check(&s->vma), MM_OK);
    kmm_space_destroy(s);
}

/* Where a processor leaves accessed and dirty bits to software, the fault is when to set them. */
static void a_fault_marks_what_was_done(void **state)
{
    struct kmm_space *s = kmm_space_create(0);
    struct mm_pagetable_entry e;
    mm_va_t va;

    (void)state;
    assert_int_equal(map(s, 2, R | W, PRIVATE, NULL, &va), 0);
    assert_int_equal(kmm_fault(s, va + 5, R), MM_VMA_FAULT_OK);
    assert_int_equal(mm_pagetable_query(&s->pt, va, &e), MM_OK);
    assert_int_equal(e.attr & (MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY), MM_PAGETABLE_ACCESSED);
    assert_int_equal(kmm_fault(s, va + PAGE + 5, W), MM_VMA_FAULT_OK);
    assert_int_equal(mm_pagetable_query(&s->pt, va + PAGE, &e), MM_OK);
    assert_int_equal(e.attr & (MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY),
                     MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY);
    kmm_space_destroy(s);
}

/* The frame that another CPU, as it were, evicts just before the next copy. */
static mm_pa_t evicted_next = MM_PA_NONE;

static void *copy_while_evicting(void *to, const void *from, size_t size)
{
    const mm_pa_t pa = evicted_next;
    evicted_next = MM_PA_NONE;
    if (pa != MM_PA_NONE)
        assert_int_equal(mm_vma_evict(&kmm.vma, pa), MM_OK);
    return memcpy(to, from, size);
}

static void a_copy_to_a_page_that_goes_is_done_again(void **state)
{
    struct kmm_space *s = filled(0, 1, 5);

    (void)state;
    evicted_next = mm_pagetable_translate(&s->pt, AT);
    touch(s, AT, 1, 9);
    assert_int_equal(evicted_next, MM_PA_NONE);
    assert_touched(s, AT, 1, 9);
    kmm_space_destroy(s);
}

static void copies_cross_pages_and_end_where_memory_does(void **state)
{
    struct kmm_space *s = kmm_space_create(0);
    unsigned char out[3 * 4096], in[3 * 4096];
    mm_va_t va;

    (void)state;
    assert_int_equal(map(s, 3, R | W, PRIVATE, NULL, &va), 0);
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (unsigned char)(i * 31 >> 3);
    assert_true(copy_out(s, va + 100, out, 2 * PAGE));
    assert_true(copy_in(s, in, va + 100, 2 * PAGE));
    assert_memory_equal(in, out, 2 * PAGE);
    assert_true(copy_in(s, in, va, 100) && in[0] == 0 && in[99] == 0);
    assert_true(copy_out(s, va + 2 * PAGE, out, PAGE));
    assert_false(copy_out(s, va + 2 * PAGE, out, PAGE + 1));
    assert_false(copy_in(s, in, va - 1, 2));
    assert_int_equal(kmm_region_protect(s, va, PAGE, R), 0);
    assert_false(copy_out(s, va, out, 1));
    assert_true(copy_in(s, in, va, 1));
    kmm_space_destroy(s);
}

static void a_page_without_rights_keeps_its_content(void **state)
{
    struct kmm_space *s = filled(0, 4, 3);

    (void)state;
    assert_int_equal(kmm_region_protect(s, AT, 4 * PAGE, 0), 0);
    assert_int_equal(mm_vma_check(&s->vma), MM_OK);
    assert_int_equal(kmm_region_protect(s, AT, 4 * PAGE, R | W), 0);
    assert_touched(s, AT, 4, 3);
    kmm_space_destroy(s);
}

static void a_clone_shares_until_somebody_writes(void **state)
{
    struct kmm_space *s = filled(0, 32, 1), *child;

    (void)state;
    child = kmm_space_clone(s);
    assert_int_equal(kmm.use[KMM_USER], 32);
    touch(child, AT, 8, 77);
    assert_int_equal(kmm.use[KMM_USER], 32 + 8);
    assert_touched(s, AT, 32, 1);
    assert_touched(child, AT, 8, 77);
    assert_int_equal(mm_vma_check(&child->vma), MM_OK);
    kmm_space_destroy(s);
    assert_int_equal(mm_vma_check(&child->vma), MM_OK);
    kmm_space_destroy(child);
    assert_int_equal(kmm.use[KMM_USER], 0);
}

static void a_quota_holds_a_space_down(void **state)
{
    struct kmm_space *s = with_data(10, 64), *child;
    unsigned got = 0;

    (void)state;
    while (got < 64 && mm_vma_fault(&s->vma, AT + got * PAGE, W) == MM_VMA_FAULT_OK)
        got++;
    assert_int_equal(got, 10);
    assert_int_equal(kmm_region_free(s, AT, 4 * PAGE), 0);
    assert_int_equal(kmm_fault(s, AT + 20 * PAGE, W), MM_VMA_FAULT_OK);
    assert_int_equal(s->quota.used, 7);
    child = kmm_space_clone(s);
    assert_int_equal(child->quota.used, 7);
    assert_int_equal(child->quota.limit, 10);
    assert_int_equal(kmm_fault(child, AT + 20 * PAGE, W), MM_VMA_FAULT_OK); /* a copy */
    assert_int_equal(child->quota.used, 7);
    kmm_space_destroy(child);
    kmm_space_destroy(s);
}

static void a_quota_counts_what_is_present(void **state)
{
    struct kmm_space *s = filled(100, 64, 1);
    unsigned present = 0;

    (void)state;
    assert_int_equal(s->quota.used, 64);
    assert_int_equal(kmm_reclaim(20), 20);
    assert_int_equal(s->quota.used, 44);
    assert_int_equal(kmm_region_free(s, AT, 32 * PAGE), 0); /* with slots among them */
    for (unsigned i = 32; i < 64; i++)
        present += is_present(s, AT + i * PAGE);
    assert_int_equal(s->quota.used, present);
    memory_gone(MM_FRAME_URGENT);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_DATA, 0x40000000, PAGE, 0), 0);
    assert_int_equal(mm_vma_fault(&s->vma, 0x40000000, R), MM_VMA_FAULT_NOMEM); /* no table */
    assert_int_equal(s->quota.used, present);
    memory_back();
    assert_int_equal(kmm_region_free(s, LOW, TOP - LOW), 0);
    assert_int_equal(s->quota.used, 0);
    kmm_space_destroy(s);
}

static void reads_of_untouched_memory_share_a_page(void **state)
{
    struct kmm_space *s = with_data(0, 64);
    unsigned char byte = 1;

    (void)state;
    for (unsigned i = 0; i < 64; i++)
        assert_true(copy_in(s, &byte, AT + i * PAGE, 1) && byte == 0);
    assert_int_equal(kmm.use[KMM_USER], 0);
    kmm_space_destroy(s);
}

static void pages_are_zero_whatever_was_there_before(void **state)
{
    struct kmm_space *s = kmm_space_create(0);

    (void)state;
    kmm.debug = 2; /* junk */
    for (unsigned turn = 0; turn < 3; turn++) {
        assert_int_equal(kmm_region_alloc(s, MM_VMA_DATA, AT, 600 * PAGE, 0), 0);
        for (unsigned i = 0; i < 600; i++) {
            unsigned char byte = 1;
            assert_int_equal(kmm_fault(s, AT + i * PAGE, W), MM_VMA_FAULT_OK);
            assert_true(copy_in(s, &byte, AT + i * PAGE + i, 1) && byte == 0);
        }
        assert_int_equal(kmm_region_free(s, AT, 600 * PAGE), 0);
    }
    kmm_space_destroy(s);
}

static void a_stack_keeps_its_distance(void **state)
{
    struct kmm_space *s = kmm_space_create(0);

    (void)state;
    assert_int_equal(kmm_region_alloc(s, MM_VMA_STACK, 0x7000000, 4 * PAGE, 0), 0);
    assert_int_equal(kmm_region_alloc(s, MM_VMA_DATA, 0x7000000 - 20 * PAGE, PAGE, 0), 0);
    assert_int_equal(kmm_fault(s, 0x7000000 - 2 * PAGE, W), MM_VMA_FAULT_OK);
    assert_int_equal(kmm_fault(s, 0x7000000 - 5 * PAGE, W), MM_VMA_FAULT_GUARD);
    kmm_space_destroy(s);
}

static void rights_are_those_of_hardware(void **state)
{
    struct kmm_space *s = kmm_space_create(0);
    struct mm_pagetable_stats before, after;
    struct mm_pagetable_entry e;
    mm_va_t va;

    (void)state;
    assert_int_equal(map(s, 1, W, PRIVATE, NULL, &va), 0); /* there is no writing without reading */
    assert_int_equal(kmm_fault(s, va, R), MM_VMA_FAULT_OK);
    assert_int_equal(kmm_region_protect(s, va, PAGE, R | X), 0);
    assert_int_equal(kmm_fault(s, va, X), MM_VMA_FAULT_OK);
    assert_int_equal(map(s, 1, R | W | X, PRIVATE, NULL, &va), MM_VMA_EACCES);
    assert_int_equal(map(s, 4, R | W, PRIVATE | MM_VMA_MAP_POPULATE, NULL, &va), 0);
    assert_int_equal(mm_pagetable_query(&s->pt, va, &e), MM_OK); /* nobody has used it */
    assert_int_equal(e.attr & (MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY), 0);
    mm_pagetable_get_stats(&s->pt, &before);
    assert_int_equal(kmm_region_free(s, LOW, TOP - LOW), 0);
    mm_pagetable_get_stats(&s->pt, &after);
    assert_int_equal(after.tables[0], before.tables[0]); /* tables stay while the space lives */
    kmm_space_destroy(s);
}

/* evict_one may put a frame on its list while its last owner gives it up. */
static void the_last_reference_takes_a_frame_off_its_list(void **state)
{
    const mm_pa_t pa = kmm_frame_alloc(NULL, false);

    (void)state;
    assert_int_equal(mm_frame_get(&kmm.pool, pa), MM_OK);
    kmm_frame_free(NULL, pa);
    frame_mapped(NULL, pa);
    assert_int_equal(mm_frame_is_free(&kmm.pool, pa), 0);
    frame_put(pa);
    assert_int_equal(mm_frame_is_free(&kmm.pool, pa), 1);
}

static void pages_of_files_come_through_the_pager(void **state)
{
    static unsigned char content[3 * MM_PAGE_SIZE - 100];
    struct kmm_space *s = kmm_space_create(0);
    struct file file;
    mm_va_t shared, private;
    unsigned char byte;

    (void)state;
    memset(content, 0x11, sizeof content);
    assert_int_equal(file_open(&file, "disk", content, sizeof content), MM_OK);
    assert_int_equal(map(s, 4, R | W, MM_VMA_MAP_SHARED, &file, &shared), 0);
    assert_int_equal(map(s, 4, R | W, MM_VMA_MAP_PRIVATE, &file, &private), 0);
    assert_int_equal(map(s, 1, W | X, MM_VMA_MAP_PRIVATE, &file, &private), MM_VMA_EACCES);
    assert_true(copy_in(s, &byte, shared + PAGE, 1));
    assert_int_equal(byte, 0x11);
    assert_true(copy_in(s, &byte, shared + 3 * PAGE - 101, 1) && byte == 0x11);
    assert_true(copy_in(s, &byte, shared + 3 * PAGE - 100, 1) && byte == 0); /* its end */
    byte = 0x22;
    assert_true(copy_out(s, private + PAGE, &byte, 1)); /* its own copy */
    byte = 0x33;
    assert_true(copy_out(s, shared, &byte, 1));
    assert_int_equal(kmm_fault(s, shared + 3 * PAGE, R), MM_VMA_FAULT_BUS);
    assert_int_equal(file.reads, 3);
    assert_int_equal(kmm.lru.list[0].count + kmm.lru.list[1].count, 4);
    assert_int_equal(kmm_reclaim(100), 4); /* those of the file go back to it */
    assert_true(copy_in(s, &byte, shared, 1) && byte == 0x33);
    assert_true(file.reads > 3);
    assert_int_equal(kmm_region_free(s, LOW, TOP - LOW), 0);
    assert_int_equal(map(s, 1, R | W, MM_VMA_MAP_SHARED, &file, &shared), 0);
    memory_gone(MM_FRAME_URGENT);
    assert_int_equal(mm_vma_fault(&s->vma, shared, R), MM_VMA_FAULT_NOMEM); /* no frame of before */
    memory_back();
    kmm_space_destroy(s);
    assert_int_equal(content[0], 0x33);
    assert_int_equal(content[PAGE], 0x11);
    assert_int_equal(file.references, 1);
    file_close(&file);
}

static void shared_anonymous_memory_is_seen_by_a_clone(void **state)
{
    struct kmm_space *s = kmm_space_create(0), *child;
    mm_va_t va;

    (void)state;
    assert_int_equal(map(s, 8, R | W, MM_VMA_MAP_SHARED | MM_VMA_MAP_ANONYMOUS, NULL, &va), 0);
    child = kmm_space_clone(s);
    touch(child, va, 8, 9);
    assert_touched(s, va, 8, 9);
    kmm_space_destroy(s);
    assert_touched(child, va, 8, 9);
    kmm_space_destroy(child);
}

static void under_pressure_pages_go_to_swap_and_come_back_intact(void **state)
{
    const uint64_t pages = 600;
    struct kmm_space *s = filled(0, pages, 1), *child;

    (void)state;
    child = kmm_space_clone(s);
    touch(child, AT, 10, 50);
    assert_true(kmm_reclaim(500) >= 500);
    assert_true(disk.used >= 500);
    assert_int_equal(mm_vma_check(&s->vma), MM_OK);
    assert_touched(s, AT, pages, 1);
    assert_touched(child, AT, 10, 50);
    assert_true(disk.reads > 0);
    kmm_space_destroy(s);
    assert_touched(child, AT + 10 * PAGE, pages - 10, 71);
    assert_true(kmm_reclaim(200) >= 200);
    s = kmm_space_clone(child); /* slots have two users then */
    kmm_space_destroy(child);
    child = filled(0, pages, 99);
    assert_true(kmm_reclaim(550) >= 550); /* once round the disk: other slots */
    assert_touched(s, AT + 10 * PAGE, pages - 10, 71);
    kmm_space_destroy(child);
    kmm_space_destroy(s);
    assert_int_equal(disk.used, 0);
}

static void a_page_finds_the_only_slot_that_is_free(void **state)
{
    const mm_pa_t pa = kmm_frame_alloc(NULL, true);
    uint64_t slot = 0;

    (void)state;
    for (uintptr_t i = 0; i < disk.slots; i++)
        disk.users[i] = i != 700;
    assert_int_equal(swap_out(NULL, pa, &slot), MM_OK);
    assert_int_equal(slot, 700);
    assert_int_equal(swap_out(NULL, pa, &slot), MM_ERR_NOMEM);
    memset(disk.users, 0, disk.slots * sizeof *disk.users);
    kmm_frame_free(NULL, pa);
}

static void more_than_all_memory_fits_thanks_to_swap(void **state)
{
    struct kmm_space *s;
    uint64_t pages;

    (void)state;
    assert_int_equal(stop(NULL), 0);
    assert_int_equal(start_with(12 << 20, 4 << 20, MM_PAGETABLE_ID_X86_64), MM_OK);
    pages = free_frames() + 256;
    s = filled(0, pages, 3);
    assert_touched(s, AT, pages, 3);
    kmm_space_destroy(s);
}

static void pages_in_use_are_spared_once(void **state)
{
    struct kmm_space *s = filled(0, 64, 1);
    unsigned kept = 0;

    (void)state;
    /* as if the processor had not seen the younger half lately */
    for (unsigned i = 32; i < 64; i++)
        (void)mm_pagetable_harvest(&s->pt, AT + i * PAGE, PAGE, MM_PAGETABLE_ACCESSED,
                                   MM_PAGETABLE_ACCESSED, NULL, NULL, NULL);
    assert_int_equal(kmm_reclaim(32), 32);
    for (unsigned i = 0; i < 32; i++)
        kept += is_present(s, AT + i * PAGE);
    assert_int_equal(kept, 32);
    assert_int_equal(kmm_reclaim(32), 32); /* but once */
    for (unsigned i = 0; i < 32; i++)
        kept -= is_present(s, AT + i * PAGE);
    assert_int_equal(kept, 32);
    kmm_space_destroy(s);
}

/* ---- health ---- */

static void a_lost_frame_is_a_leak(void **state)
{
    const char *what = NULL;
    mm_pa_t lost = mm_frame_alloc(&kmm.pool, 0);

    (void)state;
    assert_int_equal(kmm_check(&what), KMM_LEAK);
    assert_non_null(what);
    assert_int_equal(mm_frame_free(&kmm.pool, lost), MM_OK);
    assert_int_equal(kmm_check(&what), KMM_HEALTHY);
}

static void a_broken_table_is_corrupt(void **state)
{
    const char *what = NULL;
    uint64_t *root = kmm_at(kmm.kernel.root), old = root[5];

    (void)state;
    root[5] = 0x80 | 1; /* a leaf in the top level does not exist */
    assert_int_equal(kmm_check(&what), KMM_CORRUPT);
    assert_string_equal(what, "the kernel's page tables");
    root[5] = old;
}

static void the_part_that_is_ill_is_named(void **state)
{
    const char *what = NULL;

    (void)state;
    kmm.use[KMM_USER]++; /* one is counted that is not there */
    assert_int_equal(kmm_check(&what), KMM_LEAK);
    assert_string_equal(what, "frames");
    kmm.use[KMM_USER]--;
    kmm.buddy.total++;
    assert_int_not_equal(kmm_check(&what), KMM_HEALTHY);
    assert_string_equal(what, "page runs");
    kmm.buddy.total--;
    kmm.heap.slabs++;
    assert_int_equal(kmm_check(&what), KMM_CORRUPT);
    assert_string_equal(what, "slabs");
    kmm.heap.slabs--;
    assert_int_equal(kmm_check(&what), KMM_HEALTHY);
}

static void debug_levels_are_what_they_say(void **state)
{
    const uintptr_t before = kmm.reports;
    unsigned char *at;
    mm_pa_t pa;
    mm_va_t va;
    struct kmm_space *s = kmm_space_create(0);

    (void)state;
    assert_int_equal(kmm.debug, 1);
    pa = kmm_alloc_pages(0);
    at = kmm_at(pa);
    at[9] = 1;
    assert_int_equal(kmm_free_pages(pa, 0), MM_OK);
    assert_int_equal(at[9], 1);
    kmm.debug = 2;
    pa = kmm_alloc_pages(1);
    at = kmm_at(pa);
    at[9] = at[PAGE + 9] = 1;
    assert_int_equal(kmm_free_pages(pa + PAGE, 0), MM_ERR_ALIGN);
    assert_int_not_equal(kmm_free_pages(pa, 0), MM_OK); /* of another order */
    assert_int_equal(at[9], 1);                         /* nothing is written */
    assert_int_equal(at[PAGE + 9], 1);
    assert_int_equal(kmm_free_pages(pa, 1), MM_OK);
    assert_int_equal(at[9], 0x6b);
    assert_int_equal(at[2 * PAGE - 1], 0x6b);
    assert_int_equal(map(s, 1, R | W, PRIVATE, NULL, &va), 0);
    touch(s, va, 1, 7);
    at = kmm_at(mm_pagetable_translate(&s->pt, va));
    kmm_space_destroy(s);
    assert_int_equal(at[100], 0x6b);
    pa = mm_frame_alloc(&kmm.pool, 0); /* a leak */
    for (kmm.debug = 2; kmm.debug <= 3; kmm.debug++) {
        hear();
        for (unsigned i = 0; i < 1024; i++) {
            assert_int_equal(kmm_free_pages(kmm_alloc_pages(0), 0), MM_OK);
            assert_int_equal(kmm_free(kmm_alloc(8, 0)), MM_OK);
        }
        assert_int_equal(lines, kmm.debug == 3 ? 2 : 0);
    }
    assert_int_equal(kmm.reports, before + (MM_DEBUG != 0 ? 2 : 0) + 2);
    assert_int_equal(mm_frame_free(&kmm.pool, pa), MM_OK);
}

static void the_stress_test_finds_nothing_wrong_and_leaves_nothing(void **state)
{
    uint64_t before;

    (void)state;
    for (size_t bytes = 8; bytes <= 8192; bytes += 8) /* every cache has come to be: with */
        assert_int_equal(kmm_free(kmm_alloc(bytes, 0)), MM_OK); /* MM_DEBUG 3 its last slab stays */
    assert_int_equal(kmm_stress(1, 1000), 0);
    before = free_frames();
    kmm.debug = 3;
    assert_int_equal(kmm_stress(mm_test_seed(), 3000), 0);
    assert_int_equal(free_frames(), before);
    assert_int_equal(free_frames(), before); /* the first call left nothing */
    assert_int_equal(kmm.reports, 0);
}

static void benchmarks_and_lists_print(void **state)
{
    struct kmm_space *s = with_data(0, 1);

    (void)state;
    hear();
    mm_pagetable_dump(&kmm.kernel, print_line, NULL);
    assert_in_range(lines, 4, 20); /* memory in three parts, the image, and no more */
    hear();
    kmm_bench();
    assert_in_range(lines, 4, 4);
    assert_non_null(strstr(said, "a page and back: 1 ticks")); /* 1,000 for a thousand */
    hear();
    kmm_dump(NULL);
    assert_true(lines > 15);
    hear();
    kmm_dump(s);
    assert_int_equal(lines, 1);
    kmm_space_destroy(s);
}

/* "N.M MB" of so many frames, as they are counted here. */
static const char *mb(uint64_t frames)
{
    static char text[4][32];
    static unsigned n;
    const uint64_t tenths = frames * 4096 * 10 / 1048576;
    snprintf(text[++n % 4], 32, "%" PRIu64 ".%" PRIu64 " MB", tenths / 10, tenths % 10);
    return text[n % 4];
}

static void the_summary_is_true(void **state)
{
    struct kmm_space *s = filled(0, 300, 1);
    mm_pa_t dma = kmm_alloc_dma(1 << 20, PAGE, 0, 0);
    uint64_t total[2] = {0, 0}, used[2] = {0, 0};
    char text[200];

    (void)state;
    assert_int_equal(kmm_reclaim(44), 44);
    for (mm_pa_t pa = 0; pa < RAM_BYTES; pa += PAGE) /* frame by frame */
        if (mm_frame_desc_of(&kmm.pool, pa) != NULL) {
            total[pa >= 16 << 20]++;
            used[pa >= 16 << 20] += mm_frame_is_free(&kmm.pool, pa) != 1;
        }
    hear();
    kmm_summary();
    assert_int_equal(lines, 9);
    for (unsigned z = 0; z < 2; z++) {
        snprintf(text, sizeof text, "  %s: total %s, used %s, free %s, %" PRIu64 "%% used\n",
                 z == 0 ? "DMA" : "Normal", mb(total[z]), mb(used[z]), mb(total[z] - used[z]),
                 used[z] * 100 / total[z]);
        if (strstr(said, text) == NULL)
            fail_msg("not said: %s", text);
    }
    snprintf(text, sizeof text, "all memory: total %s, used %s", mb(total[0] + total[1]),
             mb(used[0] + used[1]));
    assert_non_null(strstr(said, text));
    assert_non_null(strstr(said, "programs: 1.0 MB, 2%\n")); /* 256 pages each */
    assert_non_null(strstr(said, "DMA: 1.0 MB, 2%\n"));
    assert_non_null(strstr(said, "evicted: 44 pages; faults: 300\n"));
    assert_true(disk.used == 44 && disk.slots == 1024 && disk.reads == 0);
    kmm_space_destroy(s);
    assert_int_equal(kmm_free_dma(dma, 1 << 20), MM_OK);
}

/* Whatever step of the start lacks memory says so. */
static void a_small_machine_starts_or_is_refused(void **state)
{
    unsigned started = 0;

    (void)state;
    assert_int_equal(stop(NULL), 0);
    for (uint64_t bytes = 64 << 10; bytes <= 3 << 20; bytes += 128 << 10)
        if (start_with(bytes, 64 << 10, MM_PAGETABLE_ID_X86_64) == MM_OK) {
            const char *what = "";
            assert_int_equal(kmm_check(&what), KMM_HEALTHY);
            started++;
        } else {
            assert_int_equal(started, 0); /* more memory never hurts */
        }
    assert_in_range(started, 1, 20);
    assert_int_equal(start(NULL), 0);
}

static void a_machine_without_memory_is_refused(void **state)
{
    (void)state;
    assert_int_equal(stop(NULL), 0);
    assert_int_equal(start_with(0, 0, MM_PAGETABLE_ID_X86_64), MM_ERR_NOMEM);
    {
        static struct mm_frame_range many[KMM_MAP_MAX + 1]; /* neighbours differ */
        const struct kmm_config config = {.map = many, .map_count = KMM_MAP_MAX + 1};
        for (unsigned i = 0; i <= KMM_MAP_MAX; i++)
            many[i] = (struct mm_frame_range){i * PAGE, PAGE,
                                              i % 2 != 0 ? MM_FRAME_USABLE : MM_FRAME_RESERVED};
        assert_int_equal(kmm_init(&config), MM_ERR_LIMIT);
    }
    assert_int_equal(start_with(RAM_BYTES, RAM_BYTES, MM_PAGETABLE_ID_X86_64), MM_ERR_NOMEM);
    assert_int_equal(start(NULL), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        T(objects_of_every_size_are_writable_and_apart),
        T(realloc_keeps_the_content),
        T(a_double_free_is_refused_and_reported),
        T(dma_memory_is_low_aligned_and_crosses_no_boundary),
        T(runs_are_aligned_to_their_size),
        T(the_kernel_gets_memory_at_the_expense_of_programs),
        T(many_areas_come_at_the_expense_of_pages),
        T(a_clone_comes_at_the_expense_of_pages),
        T(all_memory_can_be_had_and_comes_back),
        T(caches_give_back_what_nobody_uses),
        T(tables_can_be_made_when_all_else_is_in_use),
        T(changes_of_tables_are_flushed),
        T(new_translations_are_announced_where_they_must_be),
        T(the_kernel_space_keeps_write_and_execute_apart),
        T(the_image_is_not_writable_through_the_direct_map),
        T(large_leaves_map_all_memory),
        T(each_space_has_the_kernels_half),
        T(a_device_is_uncached),
        T(regions_by_kind_have_their_rights),
        T(a_fault_marks_what_was_done),
        T(copies_cross_pages_and_end_where_memory_does),
        T(a_copy_to_a_page_that_goes_is_done_again),
        T(a_page_without_rights_keeps_its_content),
        T(a_clone_shares_until_somebody_writes),
        T(a_quota_holds_a_space_down),
        T(a_quota_counts_what_is_present),
        T(reads_of_untouched_memory_share_a_page),
        T(pages_are_zero_whatever_was_there_before),
        T(a_stack_keeps_its_distance),
        T(rights_are_those_of_hardware),
        T(the_last_reference_takes_a_frame_off_its_list),
        T(pages_of_files_come_through_the_pager),
        T(shared_anonymous_memory_is_seen_by_a_clone),
        T(under_pressure_pages_go_to_swap_and_come_back_intact),
        T(a_page_finds_the_only_slot_that_is_free),
        T(more_than_all_memory_fits_thanks_to_swap),
        T(pages_in_use_are_spared_once),
        T(a_lost_frame_is_a_leak),
        T(a_broken_table_is_corrupt),
        T(the_part_that_is_ill_is_named),
        T(debug_levels_are_what_they_say),
        T(the_stress_test_finds_nothing_wrong_and_leaves_nothing),
        T(benchmarks_and_lists_print),
        T(the_summary_is_true),
        T(a_small_machine_starts_or_is_refused),
        T(a_machine_without_memory_is_refused),
    };
    ram = aligned_alloc(1 << 21, RAM_BYTES);
    return ram == NULL || cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
