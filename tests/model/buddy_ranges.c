/* Random calls that change blocks in place, take ranges, move blocks, tell of free memory and ask
 * questions, in arenas of many kinds, against a plain picture: exact results, no false failure. */
#include "buddy_model.h"

#define ROUND_OPS 2000u

static struct {
    unsigned moves, refusals, reports, zeroes, pressures; /* calls of the hooks in this call */
    uint32_t from, to;                                    /* page blocks that are being emptied */
    unsigned refuse;                                      /* per cent of the moves */
    uint32_t keep[2];        /* the block that is being moved, and where to */
    bool freed;              /* a hook freed a block */
    bool alone;              /* hooks do nothing else */
    uint64_t moved, told;    /* since the arena was made */
    uint32_t granule;        /* units; 0: reporting is off */
    unsigned report_fail_at; /* the call that fails */
    mm_pa_t zero_pa;
    uint64_t zero_bytes;
} h;

static struct mm_buddy *const b = &m.a.b;

static bool lists_in_use(void)
{
    return b->cpus != 0 && !m.tags;
}

static bool movable_place(uint32_t unit)
{
    const enum mm_buddy_type type = mm_buddy_get_type(b, address_of(unit));
    return type == MM_BUDDY_MOVABLE || type == MM_BUDDY_CMA;
}

static unsigned random_flags(void)
{
    static const unsigned extra[8] = {
        0, 0, 0, 0, MM_BUDDY_NOCACHE, MM_BUDDY_URGENT, MM_BUDDY_KEEP_LOW, MM_BUDDY_ZERO};
    return below(3) | extra[below(8)];
}

/* ---- hooks ---- */

static bool may_free(uint32_t unit)
{
    return unit != h.keep[0] && unit != h.keep[1];
}

static void free_block(uint32_t unit)
{
    assert_int_equal(mm_buddy_free(b, address_of(unit)), MM_OK);
    let_go(unit);
}

/* Hooks may call the arena. */
static void call_back(void)
{
    const unsigned choice = below(16);
    uint32_t unit;
    mm_pa_t pa;

    if (h.alone)
        return;
    if (choice == 0 && some_block(&unit) && may_free(unit)) {
        free_block(unit);
        h.freed = true;
    } else if (choice == 1) {
        pa = mm_buddy_alloc(b, 0, MM_BUDDY_MOVABLE | MM_BUDDY_NOCACHE);
        if (pa != MM_PA_NONE)
            hold(unit_of(pa), 1);
    }
}

static enum mm_status migrate(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes)
{
    const uint32_t old = unit_of(from), new = unit_of(to), units = m.size[old];

    assert_ptr_equal(ctx, &h);
    assert_int_equal(bytes, bytes_of(units));
    assert_true(movable_place(old));
    assert_true(pb_of(new + units - 1) < h.from || pb_of(new) > h.to);
    touch(new, order_that_holds(units));
    hold(new, units);
    h.moves++;
    h.keep[0] = old;
    h.keep[1] = new;
    call_back();
    h.keep[0] = h.keep[1] = UINT32_MAX;
    if (below(100) < h.refuse) {
        h.refusals++;
        let_go(new);
        return below(2) != 0 ? MM_ERR_BUSY : MM_ERR_NOMEM;
    }
    m.tag[new] = m.tag[old];
    let_go(old);
    h.moved++;
    return MM_OK;
}

static bool pressure(void *ctx, struct mm_buddy *arena, unsigned order)
{
    uint32_t unit;

    assert_ptr_equal(ctx, &h);
    assert_ptr_equal(arena, b);
    assert_in_range(order, 0, m.max_order);
    h.pressures++;
    if (below(4) != 0 || !some_block(&unit) || !may_free(unit))
        return false;
    free_block(unit);
    return true;
}

static void zero(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    assert_ptr_equal(ctx, &h);
    h.zeroes++;
    h.zero_pa = pa;
    h.zero_bytes = bytes;
}

/* Granules that are told are free, whole, and untold ones. */
static enum mm_status report(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    const uint32_t unit = unit_of(pa), units = (uint32_t)(bytes >> m.shift);
    uint32_t i, k;

    assert_ptr_equal(ctx, &h);
    assert_true(mm_is_pow2(units) && units >= h.granule && units <= 1u << m.max_order);
    assert_true(is_aligned(unit, order_that_holds(units)));
    assert_true(all_are(unit, units, FREE));
    for (i = unit; i < unit + units; i += h.granule) {
        for (k = 0; k < h.granule && m.told[i + k] == TOLD; k++)
            continue;
        assert_true(k < h.granule || lists_in_use());
    }
    assert_int_equal(mm_buddy_alloc_at(b, pa, 0, 0), MM_ERR_BUSY); /* nobody gets it meanwhile */
    if (++h.reports == h.report_fail_at) {
        for (i = unit; i < unit + units; i++)
            m.told[i] = m.told[i] == NOT_TOLD ? NOT_TOLD : PERHAPS;
        return MM_ERR_BUSY;
    }
    for (i = unit; i < unit + units; i++)
        m.told[i] = TOLD;
    h.told++;
    return MM_OK;
}

/* ---- allocation and release ---- */

/* After a call that asked for a block of `order`, of which it wanted `units`. */
static void got_block(mm_pa_t pa, unsigned order, uint32_t units, unsigned flags)
{
    const bool zeroes = (flags & MM_BUDDY_ZERO) != 0;

    if (pa == MM_PA_NONE) {
        assert_true((zeroes && m.a.hooks.zero == NULL) || !can_have(order, flags));
        return;
    }
    if (!lists_in_use() || (flags & MM_BUDDY_NOCACHE) != 0)
        assert_true(can_have(order, flags));
    assert_true(is_aligned(unit_of(pa), order));
    assert_true(type_allows(unit_of(pa), units, (flags & 3) == MM_BUDDY_MOVABLE));
    touch(unit_of(pa), order);
    hold(unit_of(pa), units);
    assert_int_equal(h.zeroes, zeroes);
    if (zeroes)
        assert_true(h.zero_pa == pa && h.zero_bytes == bytes_of(units));
}

static void random_alloc(void)
{
    const unsigned order = below(3) != 0   ? below(4)
                           : below(2) != 0 ? m.pb_order
                                           : below(m.max_order + 2);
    const unsigned flags = random_flags();

    got_block(mm_buddy_alloc(b, order, flags), order, 1u << order, flags);
}

static void random_exact(void)
{
    const uint32_t units = 1 + below(below(2) != 0 ? 20 : 300);
    const unsigned flags = random_flags();
    got_block(mm_buddy_alloc_exact(b, bytes_of(units) - below(16), flags), order_that_holds(units),
              units, flags);
}

static void random_aligned(void)
{
    const uint32_t units = 1 + below(40);
    const unsigned align = below(8), flags = random_flags(), order = order_that_holds(units);
    const uint64_t bytes = (uint64_t)1 << (m.shift - (align == 0 ? below(m.shift) : 0) + align);

    assert_int_equal(mm_buddy_alloc_aligned(b, bytes_of(units), bytes * 3, flags), MM_PA_NONE);
    got_block(mm_buddy_alloc_aligned(b, bytes_of(units), bytes, flags),
              order > align ? order : align, units, flags);
}

static void random_bulk(void)
{
    mm_pa_t out[40];
    const unsigned order = below(5), flags = random_flags();
    const size_t n = below(40), got = mm_buddy_alloc_bulk(b, order, flags, n, out);

    assert_true(got <= n && (got == 0 || order <= m.max_order));
    for (size_t i = 0; i < got; i++) {
        assert_true(is_aligned(unit_of(out[i]), order));
        assert_true(type_allows(unit_of(out[i]), 1u << order, (flags & 3) == MM_BUDDY_MOVABLE));
        hold(unit_of(out[i]), 1u << order);
    }
    if (got < n)
        assert_true(((flags & MM_BUDDY_ZERO) != 0 && m.a.hooks.zero == NULL) ||
                    !can_have(order, flags));
}

static void random_free(void)
{
    uint32_t unit;

    if (!some_block(&unit))
        return;
    if (below(2) != 0) {
        assert_int_equal(mm_buddy_free_sized(b, address_of(unit), bytes_of(m.size[unit])), MM_OK);
        let_go(unit);
        return;
    }
    if (order_of(unit) < 0) {
        for (unsigned order = 0; order < 12; order++)
            assert_int_equal(mm_buddy_free_order(b, address_of(unit), order), MM_ERR_INVALID);
        free_block(unit);
        return;
    }
    assert_int_equal(mm_buddy_free_order(b, address_of(unit), (unsigned)order_of(unit) + 1),
                     MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free_order(b, address_of(unit), (unsigned)order_of(unit)), MM_OK);
    let_go(unit);
}

/* Frees blocks of one order together, sometimes one of them twice. */
static void random_free_bulk(void)
{
    mm_pa_t list[40];
    const unsigned order = below(4);
    size_t n = 0, i;
    uint32_t unit;

    for (unsigned tries = 0; tries < 60 && n < 39; tries++) {
        if (!some_block(&unit) || order_of(unit) != (int)order)
            continue;
        for (i = 0; i < n && list[i] != address_of(unit); i++)
            continue;
        if (i == n)
            list[n++] = address_of(unit);
    }
    if (n != 0 && below(3) == 0) {
        list[n] = list[below((uint32_t)n)];
        assert_int_equal(mm_buddy_free_bulk(b, order, list, n + 1), MM_ERR_INVALID);
    }
    assert_int_equal(mm_buddy_free_bulk(b, order, list, n), MM_OK);
    for (i = 0; i < n; i++)
        let_go(unit_of(list[i]));
}

/* What a call that wants a block says of an address that is no block's. */
static enum mm_status wild(uint32_t unit)
{
    const int32_t owner = m.owner[unit];
    return owner > 0 ? MM_ERR_ALIGN : owner == RESERVED ? MM_ERR_PERM : MM_ERR_INVALID;
}

static void random_misuse(void)
{
    const uint32_t unit = below(m.units);
    const mm_pa_t pa = address_of(unit);

    assert_int_equal(mm_buddy_free(b, pa + 1 + below(15)), MM_ERR_ALIGN);
    assert_int_equal(mm_buddy_free(b, address_of(m.units + below(9))), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free(b, m.base - bytes_of(1 + below(3))), MM_ERR_INVALID);
    if (m.size[unit] != 0)
        return;
    assert_int_equal(mm_buddy_free(b, pa), wild(unit));
    assert_int_equal(mm_buddy_free_order(b, pa, below(5)), wild(unit));
    assert_int_equal(mm_buddy_free_sized(b, pa, bytes_of(1 + below(5))), wild(unit));
    assert_int_equal(mm_buddy_resize(b, pa, below(m.max_order + 1)), wild(unit));
    assert_int_equal(mm_buddy_resize_exact(b, pa, bytes_of(1 + below(5))), wild(unit));
    if (m.tags)
        assert_int_equal(mm_buddy_set_tag(b, pa, 7), wild(unit));
}

/* ---- resize ---- */

/* Whether the block can have `units` units where it is. */
static enum mm_status can_resize(uint32_t unit, uint64_t units)
{
    const uint32_t size = m.size[unit];

    if (units <= size)
        return MM_OK;
    if (units > m.units - unit || !all_are(unit + size, (uint32_t)units - size, FREE))
        return MM_ERR_BUSY;
    return spare((uint32_t)units - size, 0) ? MM_OK : MM_ERR_NOMEM;
}

static void resized(uint32_t unit, uint32_t units)
{
    const uintptr_t tag = m.tag[unit];
    let_go(unit);
    hold(unit, units);
    m.tag[unit] = tag;
}

static void random_resize(void)
{
    const unsigned order = below(below(2) != 0 ? 4 : m.max_order + 2);
    enum mm_status want = MM_OK;
    uint32_t unit;

    if (!some_block(&unit))
        return;
    if (order_of(unit) < 0 || order > m.max_order)
        want = MM_ERR_INVALID;
    else if (!is_aligned(unit, order))
        want = MM_ERR_ALIGN;
    else
        want = can_resize(unit, (uint64_t)1 << order);
    assert_int_equal(mm_buddy_resize(b, address_of(unit), order), want);
    if (want == MM_OK)
        resized(unit, 1u << order);
}

static void random_resize_exact(void)
{
    const uint32_t units = 1 + below(below(2) != 0 ? 20 : 300);
    enum mm_status want;
    uint32_t unit;

    if (!some_block(&unit))
        return;
    assert_int_equal(mm_buddy_resize_exact(b, address_of(unit), 0), MM_ERR_INVALID);
    want = can_resize(unit, units);
    assert_int_equal(mm_buddy_resize_exact(b, address_of(unit), bytes_of(units) - below(16)), want);
    if (want == MM_OK)
        resized(unit, units);
}

/* ---- ranges ---- */

/* A range that may leave the span, rarely misaligned. */
static uint32_t random_range(uint32_t *unit)
{
    *unit = below(m.units);
    if (below(4) == 0 && m.frees != 0) /* where it is free */
        while (m.owner[*unit] != FREE)
            *unit = below(m.units);
    return 1 + below(below(3) != 0 ? 12 : 400);
}

static void random_at(void)
{
    const unsigned order = below(below(2) != 0 ? 4 : m.max_order + 2),
                   flags = random_flags() & ~MM_BUDDY_ZERO;
    const uint32_t unit = below(m.units), at = below(3) != 0 ? unit & ~((1u << order) - 1) : unit;
    enum mm_status want = MM_OK;

    if (order > m.max_order || at + (1u << order) > m.units)
        want = MM_ERR_INVALID;
    else if (!is_aligned(at, order))
        want = MM_ERR_ALIGN;
    else if (!all_are(at, 1u << order, FREE))
        want = MM_ERR_BUSY;
    else if (!spare(1u << order, flags))
        want = MM_ERR_NOMEM;
    assert_int_equal(mm_buddy_alloc_at(b, address_of(at), order, flags), want);
    if (want == MM_OK)
        hold(at, 1u << order);
}

static void random_reserve(void)
{
    uint32_t unit;
    const uint32_t units = random_range(&unit), in = below(16);
    const bool inside = unit + units <= m.units;
    const enum mm_status want = !inside                      ? MM_ERR_INVALID
                                : all_are(unit, units, FREE) ? MM_OK
                                                             : MM_ERR_BUSY;

    /* rounded outwards */
    assert_int_equal(mm_buddy_reserve(b, address_of(unit) + in,
                                      bytes_of(units) - in - (units > 1 ? below(16) : 0)),
                     want);
    if (want == MM_OK)
        set_units(unit, units, FREE, RESERVED);
}

static void random_release(void)
{
    uint32_t unit;
    const uint32_t units = random_range(&unit);
    uint32_t end = unit;
    enum mm_status want;

    for (; unit < m.units && m.owner[unit] != RESERVED && below(50) != 0; unit++)
        continue;
    if (below(4) != 0) { /* a part of a reserved range */
        for (end = unit; end < m.units && end - unit < units && m.owner[end] == RESERVED; end++)
            continue;
    }
    end = end > unit ? end : unit + units;
    want = end > m.units                         ? MM_ERR_INVALID
           : all_are(unit, end - unit, RESERVED) ? MM_OK
                                                 : MM_ERR_NOENT;
    assert_int_equal(mm_buddy_release(b, address_of(unit), bytes_of(end - unit)), want);
    if (want == MM_OK)
        set_units(unit, end - unit, RESERVED, FREE);
}

static void random_grow(void)
{
    uint32_t unit;
    const uint32_t units = random_range(&unit), in = below(16);
    enum mm_status want = MM_ERR_INVALID;
    uint32_t first;

    while (below(100) != 0 && m.owner[unit] != ABSENT)
        unit = unit + 1 < m.units ? unit + 1 : 0;
    first = unit + (in != 0); /* rounded inwards */
    if (unit + units <= m.units && first < unit + units)
        want = all_are(first, unit + units - first, ABSENT) ? MM_OK : MM_ERR_EXISTS;
    assert_int_equal(mm_buddy_grow(b, address_of(unit) + in, bytes_of(units) - in), want);
    if (want == MM_OK)
        set_units(first, unit + units - first, ABSENT, FREE);
}

static void random_shrink(void)
{
    uint32_t unit;
    const uint32_t units = random_range(&unit);
    enum mm_status want = MM_OK;

    if (unit + units > m.units)
        want = MM_ERR_INVALID;
    else if (any_is(unit, units, ABSENT))
        want = MM_ERR_NOENT;
    else if (!all_are(unit, units, FREE))
        want = MM_ERR_BUSY;
    assert_int_equal(mm_buddy_shrink(b, address_of(unit) + 8, bytes_of(units)), MM_ERR_ALIGN);
    assert_int_equal(mm_buddy_shrink(b, address_of(unit), bytes_of(units)), want);
    if (want == MM_OK)
        set_units(unit, units, FREE, ABSENT);
}

/* ---- moving ---- */

static void empty_begin(uint32_t unit, uint32_t units)
{
    h.moves = h.refusals = 0;
    h.freed = false;
    h.from = pb_of(unit);
    h.to = pb_of(unit + units - 1);
    h.refuse = below(3) == 0 ? 20 : 0;
}

/* Judges the failure of a call that had to empty a range, by what now lies there. */
static void judge_failure(uint32_t unit, uint32_t units, enum mm_status status, unsigned flags)
{
    const uint32_t used = first_other(unit, unit + units, FREE);
    uint32_t head;

    if (h.freed && lists_in_use()) { /* into a list, out of reach */
        assert_true(status == MM_ERR_BUSY || status == MM_ERR_NOMEM);
        return;
    }
    if (used == unit + units) {
        assert_int_equal(status, MM_ERR_NOMEM);
        assert_false(spare(units, flags));
        return;
    }
    head = m.owner[used] > 0 ? (uint32_t)m.owner[used] - 1 : used;
    if (h.refusals != 0 || m.owner[used] == RESERVED || m.a.hooks.migrate == NULL ||
        !movable_place(head)) {
        assert_int_equal(status, MM_ERR_BUSY);
        return;
    }
    assert_int_equal(status, MM_ERR_NOMEM);
    assert_true(order_that_holds(m.size[head]) > m.max_order ||
                !fits_outside(order_that_holds(m.size[head]), true, h.from, h.to));
}

static void random_alloc_range(void)
{
    uint32_t unit;
    const uint32_t units = random_range(&unit);
    const unsigned flags = below(4) == 0 ? MM_BUDDY_URGENT : 0;
    enum mm_status status;

    if (unit + units > m.units) {
        assert_int_equal(mm_buddy_alloc_range(b, address_of(unit), bytes_of(units), flags),
                         MM_ERR_INVALID);
        return;
    }
    empty_begin(unit, units);
    if (any_is(unit, units, ABSENT)) {
        assert_int_equal(mm_buddy_alloc_range(b, address_of(unit), bytes_of(units), flags),
                         MM_ERR_NOENT);
        assert_int_equal(h.moves, 0);
        return;
    }
    assert_int_equal(mm_buddy_alloc_range(b, address_of(unit) + 8, bytes_of(units), flags),
                     MM_ERR_ALIGN);
    status = mm_buddy_alloc_range(b, address_of(unit), bytes_of(units), flags);
    if (status != MM_OK) {
        judge_failure(unit, units, status, flags);
        return;
    }
    assert_int_equal(h.refusals, 0);
    assert_true(spare(units, flags));
    hold(unit, units);
}

static void random_contig(void)
{
    const uint32_t units = 1 + below(below(2) != 0 ? 20 : 600);
    const unsigned align = below(8), flags = below(4) == 0 ? MM_BUDDY_URGENT : 0;
    mm_pa_t pa;
    uint32_t unit;

    h.from = UINT32_MAX; /* whichever the arena tries */
    h.to = 0;
    h.refuse = below(3) == 0 ? 20 : 0;
    pa = mm_buddy_alloc_contig(b, bytes_of(units) - below(16),
                               (uint64_t)1 << (m.shift - (align == 0) + align), flags);
    if (pa != MM_PA_NONE) {
        assert_true(is_aligned(unit_of(pa), align));
        assert_true(spare(units, flags));
        hold(unit_of(pa), units);
        return;
    }
    unit = (uint32_t)(0 - m.number) & ((1u << align) - 1);
    for (; unit + units <= m.units && spare(units, flags); unit += 1u << align)
        assert_false(all_are(unit, units, FREE));
}

static void random_compact(void)
{
    const unsigned order = below(m.max_order + 2);
    const bool was_there = fits(order, true);
    enum mm_status status;

    h.from = UINT32_MAX;
    h.to = 0;
    h.refuse = below(3) == 0 ? 20 : 0;
    h.moves = 0;
    status = mm_buddy_compact(b, order);
    if (order > m.max_order)
        assert_int_equal(status, MM_ERR_INVALID);
    else if (fits(order, true))
        assert_int_equal(status, MM_OK);
    else
        assert_int_equal(status, m.a.hooks.migrate == NULL ? MM_ERR_PERM : MM_ERR_NOMEM);
    if (was_there || order > m.max_order)
        assert_int_equal(h.moves, 0);
}

static void random_set_type(void)
{
    uint32_t unit;
    const uint32_t units = random_range(&unit);
    const unsigned type = below(8) == 0   ? MM_BUDDY_CMA
                          : below(2) != 0 ? MM_BUDDY_MOVABLE
                                          : below(4);
    const bool inside = unit + units <= m.units;

    assert_int_equal(
        mm_buddy_set_type(b, address_of(unit), bytes_of(units), (enum mm_buddy_type)type),
        inside ? MM_OK : MM_ERR_INVALID);
    for (uint32_t pb = pb_of(unit); inside && pb <= pb_of(unit + units - 1); pb++)
        m.cma[pb] = type == MM_BUDDY_CMA;
    for (uint32_t i = unit; inside && i < unit + units; i++)
        assert_int_equal(mm_buddy_get_type(b, address_of(i)), type);
}

/* ---- questions ---- */

/* Linux's index by its formula (mm/vmstat.c), in wide numbers; never below 0. */
static int fragmentation_index(unsigned order)
{
    uintptr_t count[MM_BUDDY_ORDERS];
    uint64_t blocks = 0, index;

    if (fits(order, true))
        return -1000;
    count_free_blocks(count);
    for (unsigned i = 0; i < MM_BUDDY_ORDERS; i++)
        blocks += count[i];
    if (blocks == 0)
        return 0;
    index = (1000 + m.frees * (uint64_t)1000 / (1u << order)) / blocks;
    return index > 1000 ? 0 : 1000 - (int)index;
}

static void ask_fragmentation(void)
{
    const unsigned order = below(m.max_order + 1);

    mm_buddy_drain(b);
    assert_int_equal(mm_buddy_fragmentation(b, order), fragmentation_index(order));
    assert_int_equal(mm_buddy_fragmentation(b, m.max_order + 1), -1000);
}

static void ask_level(void)
{
    const uint64_t low = below(m.units), min = below((uint32_t)low + 1), high = low + below(40);
    const unsigned in = below(15); /* rounded up */
    enum mm_buddy_level want = MM_BUDDY_LEVEL_HIGH;

    assert_int_equal(mm_buddy_set_watermarks(b, low + 1, low, high + 2), MM_ERR_INVALID);
    mm_buddy_drain(b);
    assert_int_equal(mm_buddy_set_watermarks(b, (min << m.shift) - (min != 0) * in, low << m.shift,
                                             high << m.shift),
                     MM_OK);
    if (m.frees < min)
        want = MM_BUDDY_LEVEL_MIN;
    else if (m.frees < low)
        want = MM_BUDDY_LEVEL_LOW;
    else if (m.frees < high)
        want = MM_BUDDY_LEVEL_OK;
    assert_int_equal(mm_buddy_get_level(b), want);
    m.mark[0] = below(2) != 0 ? below(m.units / 8 + 1) : 0;
    m.mark[1] = m.mark[0] + below(m.units / 8 + 1);
    m.mark[2] = m.mark[1] + below(9);
    assert_int_equal(
        mm_buddy_set_watermarks(b, bytes_of(m.mark[0]), bytes_of(m.mark[1]), bytes_of(m.mark[2])),
        MM_OK);
}

/* A block as the arena describes it, against the picture. */
static void judge_block(const struct mm_buddy_block *k)
{
    const uint32_t unit = unit_of(k->pa), units = (uint32_t)(k->bytes >> m.shift);
    const int32_t owner = m.owner[unit];
    uint32_t start;
    unsigned order;

    assert_true(units != 0 && bytes_of(units) == k->bytes && unit + units <= m.units);
    assert_int_equal(k->tag, owner > 0 && m.tags ? m.tag[unit] : 0);
    assert_int_equal(k->type == MM_BUDDY_CMA, m.cma[pb_of(unit)]);
    if (owner > 0) {
        assert_int_equal(k->state, MM_BUDDY_STATE_ALLOCATED);
        assert_int_equal(units, m.size[unit]);
        return;
    }
    assert_true(all_are(unit, units, owner));
    if (owner != FREE) {
        assert_int_equal(k->state,
                         owner == RESERVED ? MM_BUDDY_STATE_RESERVED : MM_BUDDY_STATE_ABSENT);
        return;
    }
    if (k->state == MM_BUDDY_STATE_CACHED) {
        assert_true(lists_in_use());
        return;
    }
    assert_int_equal(k->state, MM_BUDDY_STATE_FREE);
    largest_free(unit, &start, &order);
    assert_true(lists_in_use() || (start == unit && units == 1u << order));
}

static bool visit(void *ctx, const struct mm_buddy_block *block)
{
    uint32_t *next = ctx;

    assert_int_equal(unit_of(block->pa), *next);
    judge_block(block);
    *next += (uint32_t)(block->bytes >> m.shift);
    return true;
}

static void ask_walk_and_find(void)
{
    const uint32_t unit = below(m.units);
    const mm_pa_t pa = address_of(unit) + below(1u << m.shift);
    struct mm_buddy_block block;
    uint32_t next = 0;

    mm_buddy_walk(b, visit, &next);
    assert_int_equal(next, m.units);
    assert_int_equal(mm_buddy_find(b, pa, &block), MM_OK);
    assert_true(block.pa <= pa && pa - block.pa < block.bytes);
    judge_block(&block);
    assert_int_equal(mm_buddy_find(b, m.base - 1, &block), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_find(b, address_of(m.units), &block), MM_ERR_INVALID);
}

static uint32_t count_units(int32_t state)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m.units; i++)
        n += m.owner[i] == state;
    return n;
}

static void ask_stats(void)
{
    struct mm_buddy_stats s;
    uintptr_t count[MM_BUDDY_ORDERS];
    uint64_t cma = 0;

    if (below(2) != 0)
        mm_buddy_drain(b);
    mm_buddy_get_stats(b, &s);
    assert_int_equal(s.total, bytes_of(m.units - count_units(ABSENT)));
    assert_int_equal(s.free + s.cached, bytes_of(m.frees));
    assert_int_equal(s.free, mm_buddy_free_bytes(b));
    assert_int_equal(s.reserved, bytes_of(count_units(RESERVED)));
    assert_int_equal(s.used, s.total - s.free - s.cached - s.reserved);
    assert_int_equal(s.free_by_type[0] + s.free_by_type[1] + s.free_by_type[2] + s.free_by_type[3],
                     s.free);
    assert_int_equal(s.moved, h.moved);
    assert_int_equal(s.reported, h.told);
    if (s.cached != 0) {
        assert_true(lists_in_use());
        return;
    }
    for (uint32_t i = 0; i < m.units; i++)
        cma += m.owner[i] == FREE && m.cma[pb_of(i)];
    assert_int_equal(s.free_by_type[MM_BUDDY_CMA], cma << m.shift);
    count_free_blocks(count);
    assert_memory_equal(s.free_blocks, count, sizeof count);
}

static void random_tag(void)
{
    uint32_t unit;

    if (!some_block(&unit))
        return;
    assert_int_equal(mm_buddy_set_tag(b, address_of(unit), 1 + unit % 5),
                     m.tags ? MM_OK : MM_ERR_PERM);
    if (m.tags)
        m.tag[unit] = 1 + unit % 5;
}

static void ask_leaks(void)
{
    struct mm_buddy_owner line[7];
    uint64_t blocks[6] = {0}, bytes[6] = {0};
    const size_t room = 1 + below(7), n = mm_buddy_leaks(b, line, room);
    size_t kinds = 0;

    for (uint32_t i = 0; i < m.units; i++)
        if (m.size[i] != 0) {
            blocks[m.tags ? m.tag[i] : 0]++;
            bytes[m.tags ? m.tag[i] : 0] += bytes_of(m.size[i]);
        }
    for (unsigned i = 0; i < 6; i++)
        kinds += blocks[i] != 0;
    assert_int_equal(n, kinds < room ? kinds : room);
    for (size_t i = 0; i < n; i++) {
        if (line[i].tag == UINTPTR_MAX) {
            assert_true(kinds > room && i == room - 1);
            continue;
        }
        assert_in_range(line[i].tag, 0, 5);
        assert_int_equal(line[i].blocks, blocks[line[i].tag]);
        assert_int_equal(line[i].bytes, bytes[line[i].tag]);
        blocks[line[i].tag] = bytes[line[i].tag] = 0;
    }
    if (kinds <= room)
        return;
    for (unsigned i = 1; i < 6; i++) {
        blocks[0] += blocks[i];
        bytes[0] += bytes[i];
    }
    assert_int_equal(line[n - 1].tag, UINTPTR_MAX);
    assert_int_equal(line[n - 1].blocks, blocks[0]);
    assert_int_equal(line[n - 1].bytes, bytes[0]);
}

/* ---- reporting ---- */

static void random_report_enable(void)
{
    const unsigned order = below(4) == 0 ? MM_BUDDY_ORDERS : below(m.max_order + 2);
    const bool good = order <= m.max_order || order == MM_BUDDY_ORDERS;

    assert_int_equal(mm_buddy_report_enable(b, order), good ? MM_OK : MM_ERR_INVALID);
    if (!good)
        return;
    h.granule = order == MM_BUDDY_ORDERS ? 0 : 1u << order;
    memset(m.told, 0, sizeof m.told);
}

/* Nothing that is free, and not told of, is forgotten. */
static void judge_told(void)
{
    uint32_t unit = (uint32_t)(0 - m.number) & (h.granule - 1), i;

    for (; unit + h.granule <= m.units; unit += h.granule)
        if (all_are(unit, h.granule, FREE))
            for (i = unit; i < unit + h.granule; i++)
                assert_int_not_equal(m.told[i], NOT_TOLD);
}

static void random_report(void)
{
    const size_t limit = below(2) != 0 ? SIZE_MAX : below(5);
    const bool drained = below(2) != 0;
    size_t n;

    if (drained)
        mm_buddy_drain(b);
    h.reports = 0;
    h.report_fail_at = below(3) == 0 ? 1 + below(4) : 0;
    n = mm_buddy_report(b, limit, report, &h);
    assert_true(n <= limit);
    if (h.granule == 0)
        assert_int_equal(h.reports, 0);
    assert_int_equal(n, h.reports - (h.report_fail_at != 0 && h.reports == h.report_fail_at));
    if (h.granule != 0 && n == h.reports && n < limit && (drained || !lists_in_use()))
        judge_told();
}

/* ---- the run ---- */

static void random_lists(void)
{
    const unsigned high = below(10), batch = below(10);
    const bool good = (batch == 0) == (high == 0) && batch <= high && high <= MM_BUDDY_CPU_SLOTS;

    assert_int_equal(mm_buddy_set_lists(b, batch, high), !good          ? MM_ERR_INVALID
                                                         : b->cpus == 0 ? MM_ERR_PERM
                                                                        : MM_OK);
}

static void random_drain(void)
{
    mm_buddy_drain_cpu(b, below(MM_CPU_MAX + 1));
}

static void (*const calls[])(void) = {
    random_alloc,        random_alloc,       random_alloc,
    random_alloc,        random_alloc,       random_exact,
    random_exact,        random_aligned,     random_bulk,
    random_at,           random_at,          random_free,
    random_free,         random_free,        random_free,
    random_free,         random_free,        random_free,
    random_free,         random_free_bulk,   random_misuse,
    random_resize,       random_resize,      random_resize_exact,
    random_resize_exact, random_reserve,     random_release,
    random_release,      random_grow,        random_grow,
    random_shrink,       random_alloc_range, random_contig,
    random_compact,      random_set_type,    ask_fragmentation,
    ask_level,           ask_walk_and_find,  ask_stats,
    random_tag,          ask_leaks,          random_report_enable,
    random_report,       random_report,      random_report,
    random_lists,        random_drain,
};

static void random_round(uint64_t ops)
{
    struct mm_buddy_hooks hooks = {&h, zero, migrate, pressure};
    uintptr_t *tags;

    memset(&h, 0, sizeof h);
    h.keep[0] = h.keep[1] = UINT32_MAX;
    hooks.zero = below(2) != 0 ? zero : NULL;
    hooks.migrate = below(4) != 0 ? migrate : NULL;
    hooks.pressure = below(4) == 0 ? pressure : NULL;
    model_begin(&hooks);
    tags = malloc(mm_buddy_tag_bytes(b));
    m.tags = below(4) == 0;
    if (m.tags)
        assert_int_equal(mm_buddy_tags(b, tags, mm_buddy_tag_bytes(b)), MM_OK);
    for (uint64_t i = 0; i < ops; i++) {
        cpu_now = below(MM_CPU_MAX + 1); /* the last: no CPU known */
        h.zeroes = 0;
        calls[below(sizeof calls / sizeof calls[0])]();
        if (i % 97 == 0)
            assert_int_equal(mm_buddy_check(b), MM_BUDDY_HEALTHY);
    }
    model_end();
    free(tags);
}

static void random_rounds_agree_with_a_plain_picture(void **state)
{
    uint64_t ops = mm_test_ops();

    (void)state;
    m.rng = mm_test_rng(mm_test_seed(), 0);
    for (; ops > ROUND_OPS; ops -= ROUND_OPS)
        random_round(ROUND_OPS);
    random_round(ops);
}

/* ---- compaction with nothing in its way ---- */

/* Could the single movable blocks of some range of the order go elsewhere? */
static bool could_compact(unsigned order)
{
    const uint32_t size = 1u << order;
    uint32_t unit = (uint32_t)(0 - m.number) & (size - 1), i;

    for (; unit + size <= m.units; unit += size) {
        uint32_t used = 0, elsewhere = 0;
        for (i = 0; i < m.units; i++) {
            used += i >= unit && i < unit + size && m.owner[i] != FREE;
            elsewhere +=
                (pb_of(i) < pb_of(unit) || pb_of(i) > pb_of(unit + size - 1)) && m.owner[i] == FREE;
        }
        if (used <= elsewhere && !any_is(unit, size, ABSENT))
            return true;
    }
    return false;
}

static void compact_round(void)
{
    const struct mm_buddy_hooks hooks = {&h, zero, migrate, NULL};
    uint32_t unit, frees;
    unsigned order;

    do
        model_begin(&hooks);
    while (m.units > 1000 && (model_end(), true));
    memset(&h, 0, sizeof h);
    h.alone = true;
    h.from = UINT32_MAX;
    for (unit = 0; unit < m.units; unit++)
        if (m.owner[unit] == FREE) {
            assert_int_equal(mm_buddy_alloc_at(b, address_of(unit), 0, MM_BUDDY_MOVABLE), MM_OK);
            hold(unit, 1);
        }
    assert_int_equal(mm_buddy_set_type(b, m.base, bytes_of(m.units), MM_BUDDY_MOVABLE), MM_OK);
    for (frees = below(m.units + 1); frees != 0; frees--)
        if (some_block(&unit))
            free_block(unit);
    for (order = 0; order <= m.max_order; order++) {
        const bool could = could_compact(order);
        const enum mm_status status = mm_buddy_compact(b, order);
        assert_int_equal(status == MM_OK, fits(order, true));
        assert_true(status == MM_OK || !could);
    }
    model_end();
}

static void single_movable_blocks_never_stop_a_compaction(void **state)
{
    (void)state;
    m.rng = mm_test_rng(mm_test_seed(), 1);
    for (uint64_t i = 0; i < 100 + mm_test_ops() / 500; i++)
        compact_round();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_movable_blocks_never_stop_a_compaction),
        cmocka_unit_test(random_rounds_agree_with_a_plain_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
