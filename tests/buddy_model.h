/* buddy_model.h - a plain picture of an arena, by which random tests judge mm_buddy.h. Include it
 * instead of the header. Smallest blocks ("units") are counted from the arena's first one. */
#ifndef BUDDY_MODEL_H
#define BUDDY_MODEL_H

#define MM_BUDDY_CPU_SLOTS 8 /* lists that fit small arenas, and that fill up */
#include "buddy_test.h"

#define MOST_UNITS 49152u /* enough for lists of whole page blocks */
#define MOST_PBS   (MOST_UNITS / 64 + 2)

enum { FREE = 0, ABSENT = -1, RESERVED = -2 };
enum told { NOT_TOLD, TOLD, PERHAPS }; /* PERHAPS: told, and taken for a moment since */

static struct {
    struct arena a;
    struct mm_test_rng rng;
    mm_pa_t base;    /* of unit 0 */
    uint64_t number; /* of unit 0, counted from address 0 */
    unsigned shift, max_order, pb_order;
    uint32_t units;             /* of the span */
    uint32_t frees;             /* units that are FREE */
    int32_t owner[MOST_UNITS];  /* FREE, ABSENT, RESERVED, or the block's first unit + 1 */
    uint32_t size[MOST_UNITS];  /* units of the block that starts here */
    uintptr_t tag[MOST_UNITS];  /* its tag */
    enum told told[MOST_UNITS]; /* was the host told that it is free? */
    bool cma[MOST_PBS];         /* by page block */
    uint32_t mark[3];           /* watermarks in units */
    bool tags;
} m;

static MM_TEST_UNUSED uint32_t below(uint32_t n)
{
    return (uint32_t)mm_test_below(&m.rng, n);
}

static MM_TEST_UNUSED mm_pa_t address_of(uint32_t unit)
{
    return m.base + ((mm_pa_t)unit << m.shift);
}

static MM_TEST_UNUSED uint64_t bytes_of(uint32_t units)
{
    return (uint64_t)units << m.shift;
}

static MM_TEST_UNUSED uint32_t unit_of(mm_pa_t pa)
{
    assert_true(pa >= m.base && (pa - m.base) >> m.shift < m.units);
    assert_int_equal((pa - m.base) & (bytes_of(1) - 1), 0);
    return (uint32_t)((pa - m.base) >> m.shift);
}

static MM_TEST_UNUSED uint32_t pb_of(uint32_t unit)
{
    return (uint32_t)(((m.number + unit) >> m.pb_order) - (m.number >> m.pb_order));
}

static MM_TEST_UNUSED bool is_aligned(uint32_t unit, unsigned order)
{
    return ((m.number + unit) & (((uint64_t)1 << order) - 1)) == 0;
}

static MM_TEST_UNUSED unsigned order_that_holds(uint32_t units)
{
    unsigned order = 0;
    while ((uint64_t)1 << order < units)
        order++;
    return order;
}

/* Order of the block that starts at a unit; -1 for one whose size or place has none. */
static MM_TEST_UNUSED int order_of(uint32_t unit)
{
    const unsigned order = order_that_holds(m.size[unit]);
    return m.size[unit] == 1u << order && is_aligned(unit, order) ? (int)order : -1;
}

/* First unit from `from` to `to` - 1 whose state differs from `state`; `to` if none does. */
static MM_TEST_UNUSED uint32_t first_other(uint32_t from, uint32_t to, int32_t state)
{
    while (from < to && m.owner[from] == state)
        from++;
    return from;
}

static MM_TEST_UNUSED bool all_are(uint32_t from, uint32_t units, int32_t state)
{
    return from + units <= m.units && first_other(from, from + units, state) == from + units;
}

static MM_TEST_UNUSED bool any_is(uint32_t from, uint32_t units, int32_t state)
{
    while (units != 0 && m.owner[from] != state)
        from++, units--;
    return units != 0;
}

/* ---- what happens to units ---- */

static MM_TEST_UNUSED void set_units(uint32_t from, uint32_t units, int32_t from_state,
                                     int32_t to_state)
{
    for (; units != 0; from++, units--) {
        assert_int_equal(m.owner[from], from_state);
        m.owner[from] = to_state;
        m.told[from] = NOT_TOLD;
        m.frees += (to_state == FREE);
        m.frees -= (from_state == FREE);
    }
}

static MM_TEST_UNUSED void hold(uint32_t unit, uint32_t units)
{
    assert_true(unit + units <= m.units);
    set_units(unit, units, FREE, (int32_t)unit + 1);
    m.size[unit] = units;
    m.tag[unit] = 0;
}

static MM_TEST_UNUSED void let_go(uint32_t unit)
{
    set_units(unit, m.size[unit], (int32_t)unit + 1, FREE);
    m.size[unit] = 0;
}

/* A block of `order` was taken at the unit, of which the caller got a part. */
static MM_TEST_UNUSED void touch(uint32_t unit, unsigned order)
{
    for (uint32_t i = unit; i < unit + (1u << order); i++)
        if (m.told[i] == TOLD)
            m.told[i] = PERHAPS;
}

/* Some block; false if the dice found none. */
static MM_TEST_UNUSED bool some_block(uint32_t *unit)
{
    for (unsigned i = 0; i < 10; i++) {
        const int32_t owner = m.owner[below(m.units)];
        if (owner > 0) {
            *unit = (uint32_t)owner - 1;
            return true;
        }
    }
    return false;
}

/* ---- what may be expected ---- */

/* May a block for a type that moves, or not, lie there? */
static MM_TEST_UNUSED bool type_allows(uint32_t unit, uint32_t units, bool movable)
{
    for (uint32_t pb = pb_of(unit); !movable && pb <= pb_of(unit + units - 1); pb++)
        if (m.cma[pb])
            return false;
    return true;
}

/* Is there a free block of the order, outside of the page blocks from `from` to `to`? */
static MM_TEST_UNUSED bool fits_outside(unsigned order, bool movable, uint32_t from, uint32_t to)
{
    const uint32_t size = 1u << order;
    uint32_t unit = (uint32_t)(0 - m.number) & (size - 1);

    for (; unit + size <= m.units; unit += size)
        if (all_are(unit, size, FREE) && type_allows(unit, size, movable) &&
            (pb_of(unit + size - 1) < from || pb_of(unit) > to))
            return true;
    return false;
}

static MM_TEST_UNUSED bool fits(unsigned order, bool movable)
{
    return order <= m.max_order && fits_outside(order, movable, UINT32_MAX, 0);
}

/* Do the watermarks let so many units go? */
static MM_TEST_UNUSED bool spare(uint32_t units, unsigned flags)
{
    const uint32_t mark = m.mark[(flags & MM_BUDDY_KEEP_LOW) != 0 ? 1 : 0];
    return (flags & MM_BUDDY_URGENT) != 0 || mark == 0 || m.frees >= mark + units;
}

static MM_TEST_UNUSED bool can_have(unsigned order, unsigned flags)
{
    return order <= m.max_order && fits(order, (flags & 3) == MM_BUDDY_MOVABLE) &&
           spare(1u << order, flags);
}

/* The largest free block that a free unit is a part of. */
static MM_TEST_UNUSED void largest_free(uint32_t unit, uint32_t *start, unsigned *order)
{
    *start = unit;
    for (*order = 0; *order < m.max_order; ++*order) {
        const uint64_t above = (m.number + unit) & (((uint64_t)2 << *order) - 1);
        if (above > unit || !all_are(unit - (uint32_t)above, 2u << *order, FREE))
            return;
        *start = unit - (uint32_t)above;
    }
}

/* Largest free blocks by order. */
static MM_TEST_UNUSED void count_free_blocks(uintptr_t count[MM_BUDDY_ORDERS])
{
    uint32_t unit = 0, start;
    unsigned order;

    memset(count, 0, MM_BUDDY_ORDERS * sizeof count[0]);
    while (unit < m.units) {
        order = 0;
        if (m.owner[unit] == FREE) {
            largest_free(unit, &start, &order);
            assert_int_equal(start, unit);
            count[order]++;
        }
        unit += 1u << order;
    }
}

/* ---- an arena of any kind ---- */

/* A random arena in which `hooks` is called; all is free but what lies behind its end. */
static MM_TEST_UNUSED void model_begin(const struct mm_buddy_hooks *hooks)
{
    static const unsigned shifts[] = {4, 12, 12, 16, 30};
    struct mm_buddy_config *c = &m.a.config;
    const struct mm_test_rng rng = m.rng;
    uint32_t present, skip;

    memset(&m, 0, sizeof m);
    m.rng = rng;
    m.shift = shifts[below(5)];
    m.max_order = below(13);
    m.pb_order = 6 + below(3);
    m.units = 1 + below(below(2) != 0 ? 4096 : 600);
    if (below(8) == 0) {
        m.units = MOST_UNITS - below(9999);
        m.pb_order = 6;
    }
    present = 1 + below(m.units);
    present = below(2) != 0 ? present : m.units;
    m.number = below(3) != 0 ? below(1u << 20) : 0;
    m.base = m.number << m.shift;
    skip = m.base == 0
               ? 0
               : below(1u << (m.shift < 20 ? m.shift : 20)); /* the first whole unit counts */
    mm_buddy_config_init(c, m.base - skip, bytes_of(present) + skip + below(8), m.shift,
                         m.max_order);
    c->span = bytes_of(m.units) + skip + below(8);
    c->span = c->span < c->bytes ? c->bytes : c->span;
    c->pb_order = m.pb_order;
    c->regions = below(9);
    c->cpu_lists = below(3) != 0;
    m.a.hooks = *hooks;
    c->hooks = &m.a.hooks;
    arena_make(&m.a);
    set_units(0, m.units, FREE, ABSENT);
    set_units(0, present, ABSENT, FREE);
    m.frees = present;
}

static MM_TEST_UNUSED void model_end(void)
{
    for (uint32_t i = 0; i < m.units; i++)
        if (m.size[i] != 0) {
            assert_int_equal(mm_buddy_free(&m.a.b, address_of(i)), MM_OK);
            let_go(i);
        }
    mm_buddy_drain(&m.a.b);
    assert_int_equal(mm_buddy_free_bytes(&m.a.b), bytes_of(m.frees));
    arena_end(&m.a);
}

#endif
