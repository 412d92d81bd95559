/* One writer that maps, protects, splits, collapses and unmaps, while readers translate and query
 * without a lock; then several writers in their own parts of the address space, a lock for each. A
 * reader sees each page as it was or as it is, never anything else. */
#include <sched.h>
#define MM_PAGETABLE_X86_64
#include "pagetable_test.h"

#define READERS 3u
#define AREA    (4 * MIB)
#define OFFSET  ((uint64_t)0x100000000)

static struct space s;
static uintptr_t reading[READERS + 1], stop, mapped_once;

/* Waits until every reader that is inside has been outside. */
static void wait_for_readers(void *ctx)
{
    uintptr_t seen[READERS + 1];
    (void)ctx;
    /* a write, so that a reader that comes after it sees what was unlinked before */
    for (unsigned i = 1; i <= READERS; i++)
        seen[i] = __atomic_fetch_add(&reading[i], 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 1; i <= READERS; i++)
        while ((seen[i] & 1) != 0 && __atomic_load_n(&reading[i], __ATOMIC_SEQ_CST) == seen[i] &&
               __atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0)
            sched_yield();
}

/* Tables come from a stack of pages that is the caller's. */
static unsigned char pages[64][4096] __attribute__((aligned(4096)));
static unsigned free_pages[64], free_count;
static pthread_mutex_t pool = PTHREAD_MUTEX_INITIALIZER;

static mm_pa_t take_page(void *ctx, uint64_t bytes)
{
    mm_pa_t pa = MM_PA_NONE;
    (void)ctx;
    (void)bytes;
    pthread_mutex_lock(&pool);
    if (free_count != 0)
        pa = (mm_pa_t)free_pages[--free_count] * PAGE + RAM_BASE;
    pthread_mutex_unlock(&pool);
    return pa;
}

static void give_page(void *ctx, mm_pa_t table, uint64_t bytes)
{
    unsigned n = (unsigned)((table - RAM_BASE) / PAGE);
    (void)ctx;
    memset(pages[n], 0xff,
           bytes); /* a reader that is still inside would see junk, and tsan the write */
    pthread_mutex_lock(&pool);
    free_pages[free_count++] = n;
    pthread_mutex_unlock(&pool);
}

static void begin(MM_PAGETABLE_LOCK_T *locks, unsigned count)
{
    memset(&s, 0, sizeof s);
    s.hooks.ctx = &s;
    s.hooks.alloc = take_page;
    s.hooks.free = give_page;
    s.hooks.grace = wait_for_readers;
    free_count = 0;
    for (unsigned i = 0; i < 64; i++)
        free_pages[free_count++] = i;
    assert_int_equal(
        mm_pagetable_config_init(&s.config, NULL, &s.hooks, (uintptr_t)pages - (uintptr_t)RAM_BASE),
        MM_OK);
    s.config.locks = locks;
    s.config.lock_count = count;
    assert_int_equal(mm_pagetable_init(&s.pt, &s.config), MM_OK);
    __atomic_store_n(&stop, 0, __ATOMIC_RELEASE);
    memset(reading, 0, sizeof reading);
    (void)mm_test_seed(); /* before the threads ask for it */
}

/* Pages here and there, out and in again. */
static uint64_t write_many(struct mm_test_rng *rng)
{
    struct mm_pagetable_cursor c;
    enum mm_status status;
    mm_va_t va[24];
    mm_pa_t pa[24];
    uint64_t errors = mm_pagetable_cursor_begin(&c, &s.pt, 0, AREA, NULL) != MM_OK;

    for (unsigned i = 0; i < 24; i++) {
        va[i] = mm_test_below(rng, AREA / PAGE) * PAGE;
        pa[i] = va[i] + OFFSET;
    }
    (void)mm_pagetable_cursor_unmap_bulk(&c, va, 24, &status);
    errors += status != MM_OK && status != MM_ERR_BUSY;
    (void)mm_pagetable_cursor_map_bulk(&c, va, pa, 24, RW, &status);
    errors += status != MM_OK && status != MM_ERR_EXISTS;
    mm_pagetable_cursor_end(&c);
    return errors;
}

static uint64_t writer(void)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 0);
    uint64_t ops = mm_test_ops() / 100, errors = 0;

    for (uint64_t i = 0; i < ops || __atomic_load_n(&mapped_once, __ATOMIC_RELAXED) == 0; i++) {
        mm_va_t va = mm_test_below(&rng, AREA / PAGE) * PAGE;
        uint64_t bytes = (1 + mm_test_below(&rng, 16)) * PAGE;
        if (mm_test_chance(&rng, 10)) {
            va = 0;
            bytes = AREA;
        }
        if (bytes > AREA - va)
            bytes = AREA - va;
        switch (mm_test_below(&rng, 7)) {
        case 0:
        case 1:
            errors += mm_pagetable_map(&s.pt, va, va + OFFSET, bytes, RW, MM_PAGETABLE_REPLACE,
                                       NULL) != MM_OK;
            break;
        case 2:
            (void)mm_pagetable_unmap(&s.pt, va, bytes, NULL);
            break;
        case 3:
            (void)mm_pagetable_protect(&s.pt, va, bytes, RO, MM_PAGETABLE_PERMS, NULL);
            break;
        case 4:
            errors += write_many(&rng);
            break;
        case 5:
            (void)mm_pagetable_split(&s.pt, va, 0, NULL);
            break;
        default:
            (void)mm_pagetable_collapse(&s.pt, 0, AREA, NULL);
            break;
        }
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    return errors;
}

static uint64_t reader(unsigned cpu)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), cpu);
    uint64_t errors = 0;

    while (__atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0) {
        __atomic_fetch_add(&reading[cpu], 1, __ATOMIC_SEQ_CST);
        for (unsigned i = 0; i < 16; i++) {
            mm_va_t va = mm_test_below(&rng, AREA);
            struct mm_pagetable_entry entry;
            mm_pagetable_prefetch(&s.pt, mm_test_below(&rng, AREA));
            mm_pa_t pa = mm_pagetable_translate(&s.pt, va);
            errors += pa != MM_PA_NONE && pa != va + OFFSET;
            if (mm_pagetable_query(&s.pt, va, &entry) == MM_OK) {
                errors += entry.pa - entry.va != OFFSET;
                errors += (entry.attr & ~(RW | MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY)) != 0;
                __atomic_store_n(&mapped_once, 1, __ATOMIC_RELAXED);
            }
        }
        __atomic_fetch_add(&reading[cpu], 1, __ATOMIC_SEQ_CST);
    }
    return errors;
}

static uint64_t one_writer(unsigned cpu, void *arg)
{
    (void)arg;
    return cpu == 0 ? writer() : reader(cpu);
}

static void readers_need_no_lock(void **state)
{
    (void)state;
    begin(NULL, 0);
    assert_int_equal(mm_test_threads(READERS + 1, one_writer, NULL), 0);
    assert_int_equal(mapped_once, 1);
    assert_int_equal(mm_pagetable_check(&s.pt, NULL, 0, NULL), MM_OK);
    assert_int_equal(mm_pagetable_destroy(&s.pt, false), MM_OK);
    assert_int_equal(free_count, 64);
}

/* Each in a top-level entry of its own; now and then one over all of them. */
static uint64_t own_part(unsigned cpu, void *arg)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), cpu);
    uint64_t ops = mm_test_ops() / 200, errors = 0;
    mm_va_t mine = (mm_va_t)cpu * 512 * GIB;
    (void)arg;

    for (uint64_t i = 0; i < ops; i++) {
        mm_va_t va = mine + mm_test_below(&rng, 64) * PAGE;
        enum mm_status status = mm_pagetable_map(&s.pt, va, va + OFFSET, PAGE, RW, 0, NULL);
        errors += status != MM_OK;
        errors += mm_pagetable_translate(&s.pt, va) != va + OFFSET;
        if (i % 64 == 0)
            (void)mm_pagetable_protect(&s.pt, 0, 4 * 512 * GIB, RW, MM_PAGETABLE_PERMS, NULL);
        errors += mm_pagetable_unmap(&s.pt, va, PAGE, NULL) != MM_OK;
    }
    return errors;
}

static void writers_with_a_lock_each(void **state)
{
    static MM_PAGETABLE_LOCK_T locks[4];
    (void)state;
    begin(locks, 4);
    assert_int_equal(mm_test_threads(4, own_part, NULL), 0);
    assert_int_equal(mm_pagetable_check(&s.pt, NULL, 0, NULL), MM_OK);
    assert_int_equal(mm_pagetable_destroy(&s.pt, false), MM_OK);
    assert_int_equal(free_count, 64);
}

static void writers_with_one_lock(void **state)
{
    (void)state;
    begin(NULL, 0);
    assert_int_equal(mm_test_threads(4, own_part, NULL), 0);
    assert_int_equal(mm_pagetable_destroy(&s.pt, false), MM_OK);
    assert_int_equal(free_count, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_need_no_lock),
        cmocka_unit_test(writers_with_a_lock_each),
        cmocka_unit_test(writers_with_one_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
