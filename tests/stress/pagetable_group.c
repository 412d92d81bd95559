/* A hart that writes to the pages of a Svnapot group while one page of it is unmapped: it may set D
 * in any entry of the group, and then write to every page through the TLB's one entry. What it has
 * written to is dirty afterwards (RISC-V privileged 4.3.1, Svnapot). */
#define MM_PAGETABLE_SV39
#include "pagetable_test.h"

#define VA     ((mm_va_t)0x40010000)
#define GROUP  (16 * PAGE)
#define ROUNDS 40000u
#define VALID  1u
#define WRITES 4u
#define DIRTY  0x80u
#define NAPOT  (UINT64_C(1) << 63)

enum phase { RESTS, RUNS, IS_FLUSHED };
static struct space s;
static uint64_t *leaf; /* the entries of the group */
static unsigned char *wrote;
static unsigned phase, at; /* what the hart is to do, and where it is */
static bool stop, armed;

static bool sets_dirty(uint64_t *entry, uint64_t e)
{
    return (e & DIRTY) != 0 || __atomic_compare_exchange_n(entry, &e, e | DIRTY, false,
                                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Writes to random pages, through the TLB once it has the group, until that is flushed. */
static void write_pages(struct mm_test_rng *rng)
{
    bool cached = false;
    while (__atomic_load_n(&phase, __ATOMIC_ACQUIRE) == RUNS) {
        const unsigned i = (unsigned)(mm_test_rand(rng) & 15);
        const uint64_t e = __atomic_load_n(&leaf[i], __ATOMIC_RELAXED);
        if (i == 7 || (!cached && (e & (VALID | WRITES)) != (VALID | WRITES)))
            continue;
        if (!cached && !sets_dirty(&leaf[i], e))
            continue;
        cached = cached || (e & NAPOT) != 0;
        wrote[i] = 1;
    }
}

static void *hart(void *arg)
{
    struct mm_test_rng rng = mm_test_rng(0, 1);
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        if (__atomic_load_n(&phase, __ATOMIC_ACQUIRE) == RESTS)
            continue;
        __atomic_store_n(&at, RUNS, __ATOMIC_RELEASE);
        for (uint64_t wait = mm_test_rand(&rng) & 255; wait-- > 0;)
            __asm__ volatile("");
        write_pages(&rng);
        __atomic_store_n(&at, IS_FLUSHED, __ATOMIC_RELEASE);
        while (__atomic_load_n(&phase, __ATOMIC_ACQUIRE) == IS_FLUSHED)
            continue;
    }
    return arg;
}

static void flush(void *ctx, const struct mm_pagetable_flush *f)
{
    log_flush(ctx, f);
    if (!armed)
        return;
    armed = false;
    __atomic_store_n(&phase, IS_FLUSHED, __ATOMIC_RELEASE);
    while (__atomic_load_n(&at, __ATOMIC_ACQUIRE) != IS_FLUSHED)
        continue;
}

static void find_leaves(void)
{
    struct mmi_pt_iter it;
    mmi_pt_begin(&it, &s.pt, VA, VA + 1);
    (void)mmi_pt_bottom(&it);
    leaf = (uint64_t *)it.table[0] + VA / PAGE % 512;
    mmi_pt_leave(&it);
}

static void pages_written_through_a_group_are_dirty(void **state)
{
    static unsigned char marks[16];
    unsigned writes = 0;
    pthread_t id;
    (void)state;
    space_begin(&s, ram_make(), mm_pagetable_format_of(MM_PAGETABLE_ID_SV39));
    s.config.flags |= MM_PAGETABLE_CONTIGUOUS | MM_PAGETABLE_HW_AD;
    s.config.flags &= ~MM_PAGETABLE_PRESET_AD;
    s.hooks.flush = flush;
    space_make(&s);
    assert_int_equal(map(&s, VA + GROUP, 0x80000, PAGE, RW), MM_OK); /* the table stays */
    find_leaves();
    wrote = marks;
    assert_int_equal(pthread_create(&id, NULL, hart, NULL), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        assert_int_equal(map(&s, VA, 0x40000000, GROUP, RW | MM_PAGETABLE_ACCESSED), MM_OK);
        memset(marks, 0, sizeof marks);
        __atomic_store_n(&at, RESTS, __ATOMIC_RELAXED);
        __atomic_store_n(&phase, RUNS, __ATOMIC_RELEASE);
        while (__atomic_load_n(&at, __ATOMIC_ACQUIRE) != RUNS)
            continue;
        for (unsigned wait = 0; wait < 100; wait++)
            __asm__ volatile("");
        armed = true;
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA + 7 * PAGE, PAGE, NULL), MM_OK);
        for (unsigned i = 0; i < 16; i++) {
            writes += marks[i];
            assert_true(marks[i] == 0 || (leaf[i] & DIRTY) != 0);
        }
        __atomic_store_n(&phase, RESTS, __ATOMIC_RELEASE);
        assert_int_equal(mm_pagetable_unmap(&s.pt, VA, GROUP, NULL), MM_OK);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    pthread_join(id, NULL);
    assert_true(writes > ROUNDS / 10);
    assert_int_equal(mm_pagetable_unmap(&s.pt, VA + GROUP, PAGE, NULL), MM_OK);
    space_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_written_through_a_group_are_dirty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
