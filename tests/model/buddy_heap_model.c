/* Random calls of the heap face over real memory, against a plain picture: contents, alignment, no
 * overlap, no false failure, in place where it is possible. */
#include "buddy_model.h"

#define HEAP_UNITS 12000u
#define UNIT       16u

static unsigned char *memory;
static unsigned char salt[HEAP_UNITS]; /* of the content of the block that starts here */
static size_t filled[HEAP_UNITS];      /* its bytes */
static size_t align_of[HEAP_UNITS];    /* what its owner asked for; 0: nothing */
static struct mm_buddy *const b = &m.a.b;

static void *pointer_to(uint32_t unit)
{
    return memory + (size_t)unit * UNIT;
}

static uint32_t unit_at(const void *p)
{
    return unit_of(m.base + (mm_pa_t)((const unsigned char *)p - memory));
}

static unsigned char byte_of(uint32_t unit, size_t i)
{
    return (unsigned char)(salt[unit] + i * 31 + (i >> 8));
}

static void fill(uint32_t unit, size_t bytes)
{
    unsigned char *p = pointer_to(unit);
    salt[unit] = (unsigned char)below(256);
    filled[unit] = bytes;
    for (size_t i = 0; i < bytes; i++)
        p[i] = byte_of(unit, i);
}

/* The content that the block at `unit` had is at p, as far as `bytes`. */
static void assert_kept(const unsigned char *p, uint32_t unit, size_t bytes)
{
    for (size_t i = 0; i < bytes && i < filled[unit]; i++)
        assert_int_equal(p[i], byte_of(unit, i));
}

static size_t random_size(void)
{
    return 1 + below(2u << below(15));
}

static unsigned order_for(size_t bytes)
{
    return order_that_holds((uint32_t)((bytes + UNIT - 1) / UNIT));
}

static size_t size_of_block(uint32_t unit)
{
    return (size_t)m.size[unit] * UNIT;
}

/* A new block, or none, for `bytes` bytes that a block of `order` holds. */
static void got(void *p, unsigned order, size_t bytes, size_t align)
{
    uint32_t unit;

    if (p == NULL) {
        assert_false(can_have(order, 0));
        return;
    }
    unit = unit_at(p);
    assert_true(is_aligned(unit, order));
    assert_int_equal((uintptr_t)p % (align == 0 ? UNIT : align), 0);
    hold(unit, 1u << order);
    align_of[unit] = align;
    assert_int_equal(mm_buddy_usable_size(b, p), size_of_block(unit));
    fill(unit, bytes);
}

static void random_malloc(void)
{
    const size_t size = random_size();
    got(mm_buddy_malloc(b, size), order_for(size), size, 0);
}

static void random_calloc(void)
{
    const size_t count = 1 + below(20), size = random_size() / count + 1;
    unsigned char *p = mm_buddy_calloc(b, count, size);

    for (size_t i = 0; p != NULL && i < count * size; i++)
        assert_int_equal(p[i], 0);
    got(p, order_for(count * size), count * size, 0);
}

static void random_memalign(void)
{
    const size_t align = (size_t)1 << below(13), size = random_size();

    assert_null(mm_buddy_memalign(b, align * 3, size));
    got(mm_buddy_memalign(b, align, size), order_for(size > align ? size : align), size, align);
}

/* A block whose size is no power of two, by the other face. */
static void random_exact(void)
{
    const uint32_t units = 1 + below(50);
    const mm_pa_t pa = mm_buddy_alloc_exact(b, (uint64_t)units * UNIT, 0);

    if (pa == MM_PA_NONE) {
        assert_false(can_have(order_that_holds(units), 0));
        return;
    }
    hold(unit_of(pa), units);
    align_of[unit_of(pa)] = 0;
    assert_int_equal(mm_buddy_usable_size(b, pointer_to(unit_of(pa))), units * UNIT);
    fill(unit_of(pa), (size_t)units * UNIT);
}

static void random_mfree(void)
{
    uint32_t unit;

    if (!some_block(&unit))
        return;
    assert_kept(pointer_to(unit), unit, SIZE_MAX);
    if (below(4) == 0)
        assert_null(mm_buddy_realloc(b, pointer_to(unit), 0));
    else
        assert_int_equal(mm_buddy_mfree(b, pointer_to(unit)), MM_OK);
    let_go(unit);
    if (m.owner[unit] == FREE)
        assert_int_equal(mm_buddy_mfree(b, pointer_to(unit)), MM_ERR_INVALID);
}

/* After a realloc of a block at `unit`, of `was` bytes, that now lies at p. */
static void moved(void *p, uint32_t unit, unsigned order, size_t size)
{
    const size_t align = align_of[unit], usable = size_of_block(unit);

    assert_kept(p, unit, size < usable ? size : usable);
    if (p != pointer_to(unit))
        hold(unit_at(p), 1u << order); /* while the old one was still held */
    let_go(unit);
    if (p == pointer_to(unit))
        hold(unit, 1u << order);
    unit = unit_at(p);
    align_of[unit] = align;
    assert_int_equal((uintptr_t)p % (align == 0 ? UNIT : align), 0);
    assert_int_equal(mm_buddy_usable_size(b, p), size_of_block(unit));
    fill(unit, size);
}

static void random_realloc(void)
{
    const size_t size = random_size();
    unsigned order = order_for(size);
    bool in_place;
    uint32_t unit;
    void *p;

    if (!some_block(&unit))
        return;
    if (align_of[unit] > UNIT && 1u << order < m.size[unit])
        order = (unsigned)order_of(unit); /* an alignment stays, with the block's size */
    in_place = is_aligned(unit, order) && unit + (1u << order) <= m.units &&
               (1u << order <= m.size[unit] ||
                all_are(unit + m.size[unit], (1u << order) - m.size[unit], FREE));
    if (order_of(unit) < 0)
        in_place = size <= size_of_block(unit);
    p = mm_buddy_realloc(b, pointer_to(unit), size);
    if (p == NULL) {
        assert_false(in_place || can_have(order, 0));
        assert_kept(pointer_to(unit), unit, SIZE_MAX);
        return;
    }
    assert_int_equal(p == pointer_to(unit), in_place);
    if (order_of(unit) < 0 && in_place) {
        assert_kept(p, unit, SIZE_MAX);
        return;
    }
    moved(p, unit, order, size);
}

static void random_misuse(void)
{
    const uint32_t unit = below(m.units);
    const int32_t owner = m.owner[unit];
    unsigned char *p = pointer_to(unit);

    assert_int_equal(mm_buddy_usable_size(b, p), size_of_block(unit));
    assert_int_equal(mm_buddy_usable_size(b, p + 1 + below(UNIT - 1)), 0);
    assert_null(mm_buddy_malloc(b, below(2) != 0 ? 0 : SIZE_MAX - below(99)));
    if (m.size[unit] != 0)
        return;
    assert_int_equal(mm_buddy_mfree(b, p), owner == FREE ? MM_ERR_INVALID : MM_ERR_ALIGN);
    assert_null(mm_buddy_realloc(b, p, random_size()));
    assert_null(mm_buddy_realloc(b, p, 0));
}

static void (*const calls[])(void) = {
    random_malloc,  random_malloc,  random_malloc,  random_calloc, random_memalign, random_exact,
    random_mfree,   random_mfree,   random_mfree,   random_mfree,  random_mfree,    random_mfree,
    random_realloc, random_realloc, random_realloc, random_misuse,
};

static void heap_begin(void)
{
    const size_t misplaced = below(64) * UNIT; /* addresses are not aligned as pointers are */
    struct mm_buddy_config *c = &m.a.config;

    m.rng = mm_test_rng(mm_test_seed(), 0);
    m.shift = 4;
    m.max_order = 12;
    m.pb_order = 9;
    m.units = m.frees = HEAP_UNITS;
    memory = (unsigned char *)aligned_alloc(1 << 20, 1 << 20) + misplaced;
    memset(memory, 0xa5, HEAP_UNITS * UNIT);
    m.base = (uintptr_t)memory;
    m.number = m.base >> m.shift;
    mm_buddy_config_init(c, m.base, HEAP_UNITS * UNIT, m.shift, m.max_order);
    c->regions = 1 + below(5);
    arena_make(&m.a);
    assert_int_equal(b->cpus, MM_CPU_MAX);
}

/* The heap's pointers are its addresses, or lie elsewhere by a multiple of the largest block. */
static void heap_elsewhere(void)
{
    const mm_pa_t shift = (mm_pa_t)UNIT << (m.max_order + below(5));

    free(m.a.meta);
    m.base += shift;
    m.number = m.base >> m.shift;
    m.a.config.base = m.base;
    m.a.config.pointer_offset = (uintptr_t)0 - (uintptr_t)shift;
    arena_make(&m.a);
}

static void a_random_heap_keeps_all_contents(void **state)
{
    const uint64_t ops = mm_test_ops();
    void *mapping;

    (void)state;
    heap_begin();
    mapping = (void *)((uintptr_t)memory & ~(uintptr_t)((1 << 20) - 1));
    if (below(2) != 0)
        heap_elsewhere();
    for (uint64_t i = 0; i < ops; i++) {
        cpu_now = below(MM_CPU_MAX + 1);
        calls[below(sizeof calls / sizeof calls[0])]();
        if (i % 997 == 0)
            assert_int_equal(mm_buddy_check(b), MM_BUDDY_HEALTHY);
    }
    model_end();
    free(mapping);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_heap_keeps_all_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
