/* Every state of a buddy of 2^k smallest blocks that calls can reach, and every call from each. A
 * state is how the arena is cut into free and allocated blocks: free buddies merge, so there are
 * a(0) = 2, a(k + 1) = a(k)^2 + 1 of them; 458,330 for 16 blocks. */
#define MM_CPU_MAX 1
#include "mm_test.h"
#define MM_CPU_ID() 1u /* no CPU known: no lists, so that the state is in the bitmaps alone */
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#define SHIFT 12
#define BASE  ((mm_pa_t)1 << 20)
#define MOST  458330u

/* A state: for each smallest block 1 + order at an allocated block's head, 0 elsewhere; 4 bits
 * each. */
typedef uint64_t state_t;

static struct mm_buddy buddy;
static unsigned char meta[1 << 14];
static unsigned order_max, units;
static state_t *queue;
static uint32_t queued, *table, table_size;

static unsigned head_at(state_t s, unsigned i)
{
    return (unsigned)(s >> (4 * i)) & 15;
}

/* Enters a state once. */
static void visit(state_t s)
{
    uint32_t at = (uint32_t)((s * 0x9e3779b97f4a7c15u) >> 40) & (table_size - 1);

    while (table[at] != 0) {
        if (queue[table[at] - 1] == s)
            return;
        at = (at + 1) & (table_size - 1);
    }
    assert_true(queued < MOST);
    queue[queued++] = s;
    table[at] = queued;
}

static mm_pa_t pa_of(unsigned i)
{
    return BASE + ((mm_pa_t)i << SHIFT);
}

/* Puts the arena into state s, from empty. */
static void enter(state_t s, const struct mm_buddy *fresh, const unsigned char *fresh_meta)
{
    unsigned i;

    buddy = *fresh;
    memcpy(meta, fresh_meta, sizeof meta);
    for (i = 0; i < units; i++)
        if (head_at(s, i) != 0)
            assert_int_equal(mm_buddy_alloc_at(&buddy, pa_of(i), head_at(s, i) - 1, 0), MM_OK);
}

/* The block that unit i lies in: its head, or `units` if it is free. */
static unsigned head_of(state_t s, unsigned i)
{
    unsigned h;

    for (h = 0; h <= i; h++)
        if (head_at(s, h) != 0 && i < h + (1u << (head_at(s, h) - 1)))
            return h;
    return units;
}

static bool is_free(state_t s, unsigned i, unsigned order)
{
    unsigned k;

    for (k = i; k < i + (1u << order); k++)
        if (head_of(s, k) != units)
            return false;
    return true;
}

static bool has_free(state_t s, unsigned order)
{
    unsigned i;

    for (i = 0; i < units; i += 1u << order)
        if (is_free(s, i, order))
            return true;
    return false;
}

static struct mm_buddy before;
static unsigned char before_meta[sizeof meta];

static void remember(void)
{
    before = buddy;
    memcpy(before_meta, meta, sizeof meta);
}

static void go_back(void)
{
    buddy = before;
    memcpy(meta, before_meta, sizeof meta);
}

/* Statistics count refused calls; all else is as it was. */
static void assert_unchanged(void)
{
    assert_int_equal(memcmp(meta, before_meta, sizeof meta), 0);
    buddy.misuse = before.misuse;
    assert_int_equal(memcmp(&buddy, &before, sizeof buddy), 0);
}

static void try_allocs(state_t s)
{
    unsigned order, i;

    for (order = 0; order <= order_max; order++) {
        const mm_pa_t pa = mm_buddy_alloc(&buddy, order, 0);
        assert_int_equal(pa != MM_PA_NONE, has_free(s, order));
        if (pa != MM_PA_NONE) {
            i = (unsigned)((pa - BASE) >> SHIFT);
            assert_int_equal(i & ((1u << order) - 1), 0);
            assert_true(is_free(s, i, order));
        }
        go_back();
        for (i = 0; i < units; i++) {
            const bool aligned = (i & ((1u << order) - 1)) == 0;
            const enum mm_status want = !aligned && i + (1u << order) <= units ? MM_ERR_ALIGN
                                        : i + (1u << order) > units            ? MM_ERR_INVALID
                                        : is_free(s, i, order)                 ? MM_OK
                                                                               : MM_ERR_BUSY;
            const enum mm_status got = mm_buddy_alloc_at(&buddy, pa_of(i), order, 0);
            assert_int_equal(got, want);
            if (got == MM_OK) {
                visit(s | (state_t)(order + 1) << (4 * i));
                go_back();
            } else {
                assert_unchanged();
            }
        }
    }
}

static void try_frees(state_t s)
{
    unsigned i;

    for (i = 0; i < units; i++) {
        const unsigned head = head_of(s, i);
        const enum mm_status got = mm_buddy_free(&buddy, pa_of(i));
        assert_int_equal(got, head == units ? MM_ERR_INVALID : head == i ? MM_OK : MM_ERR_ALIGN);
        if (got == MM_OK) {
            visit(s & ~((state_t)15 << (4 * i)));
            assert_int_equal(mm_buddy_free(&buddy, pa_of(i)), MM_ERR_INVALID);
            go_back();
        } else {
            assert_unchanged();
        }
    }
    assert_int_equal(mm_buddy_free(&buddy, pa_of(units)), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free(&buddy, BASE - 4096), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free(&buddy, BASE + 1), MM_ERR_ALIGN);
    assert_unchanged();
}

static void visit_all(unsigned k, uint32_t expected)
{
    static struct mm_buddy fresh;
    static unsigned char fresh_meta[sizeof meta];
    struct mm_buddy_config config;
    uint32_t done;

    order_max = k;
    units = 1u << k;
    mm_buddy_config_init(&config, BASE, (uint64_t)units << SHIFT, SHIFT, k);
    config.pb_order = 6;
    memset(meta, 0xa5, sizeof meta);
    assert_true(mm_buddy_meta_bytes(&config) <= sizeof meta);
    assert_int_equal(mm_buddy_init(&buddy, &config, meta, sizeof meta), MM_OK);
    fresh = buddy;
    memcpy(fresh_meta, meta, sizeof meta);
    for (table_size = 16; table_size < 3 * expected; table_size *= 2)
        continue;
    queue = malloc(MOST * sizeof *queue);
    table = calloc(table_size, sizeof *table);
    queued = 0;
    visit(0);
    for (done = 0; done < queued; done++) {
        enter(queue[done], &fresh, fresh_meta);
        assert_int_equal(mm_buddy_check(&buddy), MM_BUDDY_HEALTHY);
        remember();
        try_allocs(queue[done]);
        try_frees(queue[done]);
    }
    assert_int_equal(queued, expected);
    free(queue);
    free(table);
}

static void every_state_of_8_blocks_and_every_call(void **state)
{
    (void)state;
    visit_all(3, 677);
}

static void every_state_of_16_blocks_and_every_call(void **state)
{
    (void)state;
    if (MM_TEST_SANITIZED)
        skip(); /* minutes under a sanitizer; the smaller arena has the same calls */
    visit_all(4, MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_of_8_blocks_and_every_call),
        cmocka_unit_test(every_state_of_16_blocks_and_every_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
