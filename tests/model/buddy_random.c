/* Random calls on several CPUs against a plain array of smallest blocks: no overlap, no false
 * failure, absolute alignment, the exact error of every refused free, and a healthy structure. */
#define MM_CPU_MAX         3
#define MM_BUDDY_CPU_SLOTS 8 /* lists that fit so small an arena */
#include "mm_test.h"
unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID() cpu_now
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#define UNITS     3000u
#define MAX_ORDER 10u
#define SHIFT     12

enum { FREE = 0 }; /* else block number + 1 */

struct block {
    mm_pa_t pa;
    uint32_t units;
    int order; /* -1: not a power of two */
    bool live;
};

static struct mm_buddy buddy;
static struct block block[UNITS];
static uint32_t owner[UNITS];
static mm_pa_t base;
static struct mm_test_rng rng;

static uint32_t below(uint32_t n)
{
    return (uint32_t)mm_test_below(&rng, n);
}

static uint32_t unit_of(mm_pa_t pa)
{
    return (uint32_t)((pa - base) >> SHIFT);
}

static void hold(mm_pa_t pa, uint32_t units, int order)
{
    uint32_t i, id = 0;

    assert_true(pa >= base && unit_of(pa) + units <= UNITS);
    while (block[id].live)
        id++;
    block[id] = (struct block){pa, units, order, true};
    for (i = 0; i < units; i++) {
        assert_int_equal(owner[unit_of(pa) + i], FREE);
        owner[unit_of(pa) + i] = id + 1;
    }
}

static void let_go(uint32_t id)
{
    memset(&owner[unit_of(block[id].pa)], 0, block[id].units * sizeof owner[0]);
    block[id].live = false;
}

static bool fits(unsigned order)
{
    const mm_pa_t size = (mm_pa_t)1 << (order + SHIFT);
    mm_pa_t pa = (base + size - 1) & ~(size - 1);

    for (; pa + size <= base + ((mm_pa_t)UNITS << SHIFT); pa += size) {
        uint32_t i = 0;
        while (i < 1u << order && owner[unit_of(pa) + i] == FREE)
            i++;
        if (i == 1u << order)
            return true;
    }
    return false;
}

static void random_alloc(void)
{
    const unsigned order = below(3) != 0 ? below(4) : below(MAX_ORDER + 2);
    const unsigned flags = below(3) | (below(4) != 0 ? 0 : MM_BUDDY_NOCACHE);
    const mm_pa_t pa = mm_buddy_alloc(&buddy, order, flags);

    if (pa == MM_PA_NONE) {
        assert_true(order > MAX_ORDER || !fits(order));
        return;
    }
    assert_int_equal(pa & (((mm_pa_t)1 << (order + SHIFT)) - 1), 0);
    hold(pa, 1u << order, (int)order);
}

static void random_exact(void)
{
    const uint32_t units = 1 + below(200);
    const mm_pa_t pa =
        mm_buddy_alloc_exact(&buddy, ((uint64_t)units << SHIFT) - below(1u << SHIFT), 0);

    if (pa != MM_PA_NONE)
        hold(pa, units, mm_is_pow2(units) ? __builtin_ctz(units) : -1);
}

static void random_free(void)
{
    const uint32_t id = below(UNITS);
    struct block *b = &block[id];

    if (!b->live)
        return;
    if (b->order >= 0 && below(2) == 0) {
        assert_int_equal(mm_buddy_free_order(&buddy, b->pa, (unsigned)b->order + 1),
                         MM_ERR_INVALID);
        assert_int_equal(mm_buddy_free_order(&buddy, b->pa, (unsigned)b->order), MM_OK);
    } else {
        assert_int_equal(mm_buddy_free_sized(&buddy, b->pa, (uint64_t)b->units << SHIFT), MM_OK);
    }
    assert_int_equal(mm_buddy_free(&buddy, b->pa), MM_ERR_INVALID); /* a double free */
    let_go(id);
}

static void random_misuse(void)
{
    const uint32_t i = below(UNITS);
    const mm_pa_t pa = base + ((mm_pa_t)i << SHIFT);

    assert_int_equal(mm_buddy_free(&buddy, pa + 1 + below(4094)), MM_ERR_ALIGN);
    assert_int_equal(mm_buddy_free(&buddy, base + ((mm_pa_t)(UNITS + i) << SHIFT)), MM_ERR_INVALID);
    if (owner[i] == FREE)
        assert_int_equal(mm_buddy_free(&buddy, pa), MM_ERR_INVALID);
    else if (block[owner[i] - 1].pa != pa)
        assert_int_equal(mm_buddy_free(&buddy, pa), MM_ERR_ALIGN);
}

static void random_at(void)
{
    const unsigned order = below(5);
    const uint32_t i = below(UNITS);
    const mm_pa_t size = (mm_pa_t)1 << (order + SHIFT),
                  pa = (base + ((mm_pa_t)i << SHIFT)) & ~(size - 1);
    bool free = pa >= base && unit_of(pa) + (1u << order) <= UNITS;
    enum mm_status want = free ? MM_OK : MM_ERR_INVALID;
    uint32_t k;

    for (k = 0; free && k < 1u << order; k++)
        if (owner[unit_of(pa) + k] != FREE)
            want = MM_ERR_BUSY;
    assert_int_equal(mm_buddy_alloc_at(&buddy, pa, order, 0), want);
    if (want == MM_OK)
        hold(pa, 1u << order, (int)order);
}

static void random_bulk(void)
{
    mm_pa_t out[64];
    const unsigned order = below(3);
    const size_t n = below(64), got = mm_buddy_alloc_bulk(&buddy, order, 0, n, out);
    size_t i;

    assert_true(got <= n);
    for (i = 0; i < got; i++)
        hold(out[i], 1u << order, (int)order);
    if (got < n)
        assert_false(fits(order));
    if (below(2) == 0 || got == 0)
        return;
    out[got] = out[0];
    assert_int_not_equal(mm_buddy_free_bulk(&buddy, order, out, got + 1),
                         MM_OK); /* one of them twice */
    assert_int_equal(mm_buddy_free_bulk(&buddy, order, out, got), MM_OK);
    for (i = 0; i < got; i++)
        let_go(owner[unit_of(out[i])] - 1);
}

static void random_call(uint32_t choice)
{
    if (choice < 35)
        random_alloc();
    else if (choice < 40)
        random_exact();
    else if (choice < 85)
        random_free();
    else if (choice < 92)
        random_misuse();
    else if (choice < 96)
        random_at();
    else if (choice < 99)
        random_bulk();
    else
        mm_buddy_drain_cpu(&buddy, below(MM_CPU_MAX));
}

static void a_random_run_agrees_with_a_plain_array(void **state)
{
    const unsigned long ops = mm_test_ops();
    struct mm_buddy_config config;
    unsigned long i;
    size_t size;
    void *meta;

    (void)state;
    rng = mm_test_rng(mm_test_seed(), 0);
    base = (mm_pa_t)(1000 + below(100000)) << SHIFT;
    memset(block, 0, sizeof block);
    memset(owner, 0, sizeof owner);
    mm_buddy_config_init(&config, base, (uint64_t)UNITS << SHIFT, SHIFT, MAX_ORDER);
    config.cpu_lists = true;
    config.regions = 1 + below(8);
    size = mm_buddy_meta_bytes(&config);
    meta = malloc(size);
    memset(meta, 0xa5, size);
    assert_int_equal(mm_buddy_init(&buddy, &config, meta, size), MM_OK);
    assert_int_equal(buddy.cpus, MM_CPU_MAX);
    for (i = 0; i < ops; i++) {
        cpu_now = below(MM_CPU_MAX + 1); /* the last: no CPU known */
        random_call(below(100));
        if (i % 499 == 0)
            assert_int_equal(mm_buddy_check(&buddy), MM_BUDDY_HEALTHY);
    }
    for (i = 0; i < UNITS; i++)
        if (block[i].live)
            assert_int_equal(mm_buddy_free(&buddy, block[i].pa), MM_OK);
    mm_buddy_drain(&buddy);
    assert_int_equal(mm_buddy_free_bytes(&buddy), (uint64_t)UNITS << SHIFT);
    assert_int_equal(mm_buddy_check(&buddy), MM_BUDDY_HEALTHY);
    free(meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_run_agrees_with_a_plain_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
