/* A processor that sets accessed and dirty at any time, while the table is changed: what it has set
 * is told once, by a harvest or with the frame that goes, and never lost. The processor is a thread
 * with a walk of its own (Intel SDM vol. 3, 4.8). */
#include <sched.h>
#define MM_PAGETABLE_X86_64
#include "pagetable_test.h"

#define PAGES   8u
#define VA      ((mm_va_t)5 << 30)
#define FRAME   ((mm_pa_t)0x40000000)
#define PRESENT 1u
#define WRITES  2u
#define SET_A   0x20u
#define SET_D   0x40u

static struct space s;
static uint64_t *leaf; /* entries of the pages */
static uintptr_t stop;
static uintptr_t set[2]; /* accessed, dirty */
static uint64_t told[2];

/* Each access sets one bit: a load A, the store after it D. */
static uint64_t processor(void)
{
    while (__atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0) {
        for (unsigned i = 0; i < PAGES; i++) {
            uint64_t e = __atomic_load_n(&leaf[i], __ATOMIC_RELAXED), next = e;
            if ((e & PRESENT) == 0)
                continue;
            if ((e & SET_A) == 0)
                next |= SET_A;
            else if ((e & WRITES) != 0)
                next |= SET_D;
            if (next != e && __atomic_compare_exchange_n(&leaf[i], &e, next, false,
                                                         __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
                __atomic_fetch_add(&set[(next & ~e) == SET_D], 1, __ATOMIC_RELAXED);
        }
    }
    return 0;
}

static void tell(uint32_t attr)
{
    told[0] += (attr & MM_PAGETABLE_ACCESSED) != 0;
    told[1] += (attr & MM_PAGETABLE_DIRTY) != 0;
}

static void seen(void *ctx, const struct mm_pagetable_entry *entry)
{
    (void)ctx;
    tell(entry->attr);
}

static void released(void *ctx, const struct mm_pagetable_extent *extent)
{
    (void)ctx;
    for (uint64_t i = 0; i < extent->bytes; i += PAGE)
        tell(extent->attr);
}

static void harvest_all(void)
{
    const uint32_t both = MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY;
    (void)mm_pagetable_harvest(&s.pt, VA, PAGES * PAGE, both, both, seen, NULL, NULL);
}

/* A step of the cursor, for each page of the range. */
static void unmap_by_cursor(mm_va_t va, uint64_t bytes)
{
    struct mm_pagetable_cursor c;
    (void)mm_pagetable_cursor_begin(&c, &s.pt, va, bytes, NULL);
    while (mm_pagetable_cursor_unmap(&c) != MM_ERR_LIMIT)
        continue;
    mm_pagetable_cursor_end(&c);
}

static uint64_t kernel(void)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 0);
    uint64_t ops = mm_test_ops(), errors = 0;

    for (uint64_t i = 0; i < ops || __atomic_load_n(&set[1], __ATOMIC_RELAXED) == 0; i++) {
        uint64_t first = mm_test_below(&rng, PAGES), count = 1 + mm_test_below(&rng, PAGES - first);
        mm_va_t va = VA + first * PAGE;
        switch (mm_test_below(&rng, 6)) {
        case 0:
            (void)mm_pagetable_unmap(&s.pt, va, count * PAGE, NULL);
            break;
        case 1:
            unmap_by_cursor(va, count * PAGE);
            break;
        case 2:
            errors += mm_pagetable_map(&s.pt, va, FRAME + first * PAGE, count * PAGE, RW,
                                       MM_PAGETABLE_REPLACE, NULL) != MM_OK;
            break;
        case 3:
            (void)mm_pagetable_protect(&s.pt, va, count * PAGE, mm_test_chance(&rng, 2) ? RW : RO,
                                       MM_PAGETABLE_PERMS, NULL);
            break;
        case 4:
            errors += mm_pagetable_swap(&s.pt, va, 5, NULL) != MM_OK;
            break;
        default:
            harvest_all();
            break;
        }
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    return errors;
}

static uint64_t either(unsigned cpu, void *arg)
{
    (void)arg;
    return cpu == 0 ? kernel() : processor();
}

/* The table of the pages, found without the header (SDM vol. 3, 4.5.4). */
static uint64_t *leaf_of(mm_va_t va)
{
    mm_pa_t table = mm_pagetable_root(&s.pt) & UINT64_C(0xffffffffff000);
    for (unsigned shift = 39; shift > 12; shift -= 9)
        table = ((uint64_t *)ram_at(s.ram, table))[va >> shift & 511] & UINT64_C(0xffffffffff000);
    return (uint64_t *)ram_at(s.ram, table) + (va >> 12 & 511);
}

static void what_a_processor_sets_is_told_once(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.config.flags &= ~(uint32_t)MM_PAGETABLE_PRESET_AD;
    s.config.flags |= MM_PAGETABLE_KEEP_EMPTY;
    s.hooks.release = released;
    space_make(&s);
    assert_int_equal(map(&s, VA, FRAME, PAGES * PAGE, RW), MM_OK);
    leaf = leaf_of(VA);
    (void)mm_test_seed(); /* before the threads ask for it */
    assert_int_equal(mm_test_threads(2, either, NULL), 0);
    harvest_all();
    assert_true(set[0] != 0 && set[1] != 0);
    assert_int_equal(told[0], set[0]);
    assert_int_equal(told[1], set[1]);
    s.hooks.release = NULL;
    space_end(&s);
}

/* ---- large leaves: split and collapsed while the processor marks them ---- */

static uint64_t *upper; /* the entry of the 2 MiB */
static uintptr_t asked, answered;

/* Marks the large leaf, or pages of the table in its place, and says that it has. */
static uint64_t marking(void)
{
    uintptr_t done = 0, idle = 0;
    while (__atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0) {
        uintptr_t n = __atomic_load_n(&asked, __ATOMIC_ACQUIRE);
        uint64_t e = __atomic_load_n(upper, __ATOMIC_ACQUIRE); /* leads to what was filled */
        uint64_t *at = upper;
        if (n == done) {
            if (++idle % 4096 == 0)
                sched_yield();
            continue;
        }
        if ((e & PRESENT) != 0 && (e & 0x80) == 0) {
            at = (uint64_t *)ram_at(s.ram, e & UINT64_C(0xffffffffff000)) + n % 512;
            e = __atomic_load_n(at, __ATOMIC_RELAXED);
        }
        if ((e & PRESENT) != 0 && __atomic_compare_exchange_n(at, &e, e | SET_A | SET_D, false,
                                                              __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
            done = n;
            __atomic_store_n(&answered, n, __ATOMIC_RELEASE);
        }
    }
    return 0;
}

/* A flush ends when the processor has heard of it: it does not walk through old tables then. */
static void wait_for_processor(void *ctx, const struct mm_pagetable_flush *flush)
{
    (void)ctx;
    (void)flush;
    while (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) !=
           __atomic_load_n(&asked, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void count_dirty(void *ctx, const struct mm_pagetable_entry *entry)
{
    ++*(uint64_t *)ctx;
    (void)entry;
}

/* Each round: clean, the processor is asked to write once, meanwhile the leaf is split or the table
 * collapsed. What it has written is dirty afterwards. */
static uint64_t splitting(void)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 1);
    uint64_t rounds = mm_test_ops() / 250, lost = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t dirty = 0;
        (void)mm_pagetable_harvest(&s.pt, VA, 2 * MIB, 0xc0, 0xc0, NULL, NULL, NULL);
        __atomic_fetch_add(&asked, 1, __ATOMIC_SEQ_CST);
        for (volatile uint64_t wait = mm_test_below(&rng, 1000); wait != 0; wait--)
            continue;
        lost += (i % 2 == 0 ? mm_pagetable_split(&s.pt, VA, 0, NULL)
                            : mm_pagetable_collapse(&s.pt, VA, 2 * MIB, NULL)) != MM_OK;
        wait_for_processor(NULL, NULL);
        (void)mm_pagetable_harvest(&s.pt, VA, 2 * MIB, MM_PAGETABLE_DIRTY, 0, count_dirty, &dirty,
                                   NULL);
        lost += dirty == 0;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    return lost;
}

static uint64_t one_of_two(unsigned cpu, void *arg)
{
    (void)arg;
    return cpu == 0 ? splitting() : marking();
}

static void what_it_sets_survives_splits_and_collapses(void **state)
{
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_X86_64));
    s.config.flags &= ~(uint32_t)MM_PAGETABLE_PRESET_AD;
    s.hooks.flush = wait_for_processor;
    s.hooks.release = NULL;
    space_make(&s);
    assert_int_equal(map(&s, VA, FRAME, 2 * MIB, RW), MM_OK);
    __atomic_store_n(&stop, 0, __ATOMIC_RELEASE);
    mm_pa_t table = mm_pagetable_root(&s.pt) & UINT64_C(0xffffffffff000);
    for (unsigned shift = 39; shift > 21; shift -= 9)
        table = ((uint64_t *)ram_at(s.ram, table))[VA >> shift & 511] & UINT64_C(0xffffffffff000);
    upper = (uint64_t *)ram_at(s.ram, table) + (VA >> 21 & 511);
    assert_int_equal(mm_test_threads(2, one_of_two, NULL), 0);
    s.hooks.flush = NULL;
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_processor_sets_is_told_once),
        cmocka_unit_test(what_it_sets_survives_splits_and_collapses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
