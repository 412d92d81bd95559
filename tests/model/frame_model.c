/* Random calls on several CPUs against a plain array: who is free, which zone must serve, whether a
 * failure is true, and the exact error of every refused call. */
#ifndef MM_CPU_MAX
#define MM_CPU_MAX 3
#endif
#include "frame_test.h"

#define FRAMES 14000u
#define ZONES  4u
#define NONE   (~(uint64_t)0)

enum { HOLE, FREE, USED };

static unsigned char frame_state[FRAMES];
static uint64_t zone_free[ZONES];
static struct lab lab;
static struct mm_test_rng rng;

/* Zones share 16 MiB sections and have holes; 0 falls back to 2, then 1; 3 is isolated. */
static const struct {
    uint64_t first, end, min;
} zones[ZONES] = {{5000, 13000, 0}, {0, 1000, 0}, {1000, 5000, 100}, {13000, FRAMES, 0}};

static const uint64_t holes[][2] = {
    {300, 310}, {2000, 2001}, {4095, 4097}, {6000, 6500}, {9999, 10000}};

static const unsigned fallback[ZONES][4] = {
    {0, 2, 1, ZONES}, {1, ZONES}, {2, 1, ZONES}, {3, 0, 2, 1}};

/* Watermarks are exact on one CPU only (see LIMITS). */
static uint64_t min_of(unsigned zone)
{
    return MM_CPU_MAX == 1 ? zones[zone].min : 0;
}

static unsigned zone_of(uint64_t frame)
{
    unsigned zone = 0;

    while (frame < zones[zone].first || frame >= zones[zone].end)
        zone++;
    return zone;
}

static void set_state(uint64_t first, uint64_t count, int was, int now)
{
    for (uint64_t i = first; i < first + count; i++) {
        assert_in_range(i, 0, FRAMES - 1);
        assert_int_equal(frame_state[i], was);
        frame_state[i] = (unsigned char)now;
        if (was == FREE)
            zone_free[zone_of(i)]--;
        else
            zone_free[zone_of(i)]++;
    }
}

/* Whether frames [first, first + count) exist, in one zone. */
static bool exists(uint64_t first, uint64_t count)
{
    if (count == 0 || first >= FRAMES || count > FRAMES - first)
        return false;
    for (uint64_t i = first; i < first + count; i++)
        if (frame_state[i] == HOLE)
            return false;
    return true;
}

static bool all(uint64_t first, uint64_t count, int state)
{
    if (first >= FRAMES || count > FRAMES - first)
        return false;
    for (uint64_t i = first; i < first + count; i++)
        if (frame_state[i] != state)
            return false;
    return true;
}

/* Ranges across two zones are left to the unit tests. */
static bool crosses_zones(uint64_t first, uint64_t count)
{
    for (unsigned z = 0; z < ZONES; z++)
        if (first < zones[z].end && zones[z].end < first + count && zones[z].end < FRAMES)
            return true;
    return false;
}

static uint64_t total_used(void)
{
    uint64_t used = 0;

    for (uint64_t i = 0; i < FRAMES; i++)
        used += frame_state[i] == USED;
    return used;
}

/* ---- what must be found ---------------------------------------------------------------------- */

static bool admitted(unsigned zone, unsigned flags, uint64_t count)
{
    const uint64_t floor = (flags & MM_FRAME_URGENT) != 0 ? 0 : min_of(zone);

    return zone_free[zone] >= count && zone_free[zone] - count >= floor;
}

/* Whether the zone has such a run of free frames. */
static bool has_run(unsigned zone, const struct mm_frame_request *r)
{
    const uint64_t align = r->align > PAGE ? r->align / PAGE : 1;
    const uint64_t boundary = r->boundary / PAGE, limit = r->max == 0 ? NONE : r->max / PAGE;
    uint64_t first = zones[zone].first, end = zones[zone].end < limit ? zones[zone].end : limit;
    uint64_t at, last;

    if (first * PAGE < r->min)
        first = (r->min + PAGE - 1) / PAGE;
    for (at = (first + align - 1) / align * align; at + r->count <= end; at += align) {
        if (boundary != 0 && at / boundary != (at + r->count - 1) / boundary)
            continue;
        for (last = at + r->count; last > at && frame_state[last - 1] == FREE; last--)
            continue;
        if (last == at)
            return true;
        at += (last - 1 - at) / align * align;
    }
    return false;
}

/* The zone that must serve a request, or ZONES if none can. */
static unsigned serving_zone(const struct mm_frame_request *r, bool single)
{
    for (unsigned i = 0; i < 4 && fallback[r->flags & MM_FRAME_ZONE_MASK][i] != ZONES; i++) {
        const unsigned zone = fallback[r->flags & MM_FRAME_ZONE_MASK][i];
        if (i > 0 && (r->flags & MM_FRAME_ONLY) != 0)
            break;
        if (admitted(zone, r->flags, r->count) && (single || has_run(zone, r)))
            return zone;
    }
    return ZONES;
}

static void took(mm_pa_t pa, const struct mm_frame_request *r, bool single)
{
    const unsigned zone = serving_zone(r, single);

    if (pa == MM_PA_NONE) {
        if (zone != ZONES)
            fail_msg("false failure: %u frames, flags %u", (unsigned)r->count, r->flags);
        return;
    }
    assert_in_range(pa / PAGE, 0, FRAMES - 1);
    if (zone_of(pa / PAGE) != zone || zone_of(pa / PAGE + r->count - 1) != zone)
        fail_msg("%u frames, flags %u: from zone %u, not %u", (unsigned)r->count, r->flags,
                 zone_of(pa / PAGE), zone);
    assert_true(r->align == 0 || pa % r->align == 0);
    assert_true(r->boundary == 0 || pa / r->boundary == (pa + r->count * PAGE - 1) / r->boundary);
    assert_true(pa >= r->min && (r->max == 0 || pa + r->count * PAGE <= r->max));
    set_state(pa / PAGE, r->count, FREE, USED);
}

/* ---- operations ------------------------------------------------------------------------------ */

static uint64_t pick(void)
{
    static uint64_t near;

    if (mm_test_chance(&rng, 50))
        near = mm_test_below(&rng, FRAMES + 20);
    return near++;
}

static uint64_t pick_count(void)
{
    switch (mm_test_below(&rng, 8)) {
    case 0:
        return mm_test_below(&rng, 6000);
    case 1:
        return mm_test_below(&rng, 600);
    default:
        return 1 + mm_test_below(&rng, 70);
    }
}

static unsigned pick_flags(void)
{
    unsigned flags = MM_FRAME_ZONE(mm_test_below(&rng, 3) != 0 ? 0 : mm_test_below(&rng, ZONES));

    if (mm_test_chance(&rng, 10))
        flags |= MM_FRAME_ONLY;
    if (mm_test_chance(&rng, 10))
        flags |= MM_FRAME_URGENT;
    if (mm_test_chance(&rng, 10))
        flags |= MM_FRAME_NOWAIT;
    return flags;
}

static void do_alloc(void)
{
    const struct mm_frame_request r = {1, 0, 0, 0, 0, pick_flags()};

    took(mm_frame_alloc(&lab.pool, r.flags), &r, true);
}

static void do_alloc_order(void)
{
    const unsigned order = (unsigned)(mm_test_chance(&rng, 30) ? 9 : mm_test_below(&rng, 13));
    const struct mm_frame_request r = {(uint64_t)1 << order, PAGE << order, 0, 0, 0, pick_flags()};

    took(mm_frame_alloc_order(&lab.pool, order, r.flags), &r, order == 0);
}

static void do_alloc_run(void)
{
    struct mm_frame_request r = {1 + pick_count(), 0, 0, 0, 0, pick_flags()};

    if (mm_test_chance(&rng, 40))
        r.align = PAGE << mm_test_below(&rng, 10);
    if (mm_test_chance(&rng, 20)) {
        r.boundary = PAGE << mm_test_below(&rng, 13);
        r.count = 1 + (r.count - 1) % (r.boundary / PAGE);
    }
    if (mm_test_chance(&rng, 20))
        r.min = pick() * PAGE + mm_test_below(&rng, 2);
    if (mm_test_chance(&rng, 20))
        r.max = r.min + (r.count + mm_test_below(&rng, 3000)) * PAGE + mm_test_below(&rng, 2);
    took(mm_frame_alloc_run(&lab.pool, &r), &r, false);
}

static void do_alloc_at(void)
{
    const uint64_t first = pick(), count = mm_test_below(&rng, 2) ? 1 : pick_count();
    enum mm_status expected = MM_OK;

    if (crosses_zones(first, count))
        return;
    if (count == 0)
        expected = MM_ERR_INVALID;
    else if (!exists(first, count))
        expected = MM_ERR_NOENT;
    else if (!all(first, count, FREE))
        expected = MM_ERR_BUSY;
    assert_int_equal(mm_frame_alloc_at(&lab.pool, first * PAGE, count), expected);
    if (expected == MM_OK)
        set_state(first, count, FREE, USED);
}

static void do_free(void)
{
    const uint64_t first = pick();
    const bool odd = mm_test_chance(&rng, 2);
    enum mm_status expected = odd ? MM_ERR_ALIGN : all(first, 1, USED) ? MM_OK : MM_ERR_INVALID;

    assert_int_equal(mm_frame_free(&lab.pool, first * PAGE + (odd ? 16 : 0)), expected);
    if (expected == MM_OK)
        set_state(first, 1, USED, FREE);
}

static void do_free_order(void)
{
    const unsigned order = (unsigned)(mm_test_chance(&rng, 30) ? 9 : mm_test_below(&rng, 13));
    const uint64_t count = (uint64_t)1 << order;
    const uint64_t first = mm_test_chance(&rng, 95) ? pick() & ~(count - 1) : pick();
    enum mm_status expected = first % count != 0        ? MM_ERR_ALIGN
                              : all(first, count, USED) ? MM_OK
                                                        : MM_ERR_INVALID;
    if (crosses_zones(first, count))
        return;
    assert_int_equal(mm_frame_free_order(&lab.pool, first * PAGE, order), expected);
    if (expected == MM_OK)
        set_state(first, count, USED, FREE);
}

static void do_free_run(void)
{
    const uint64_t first = pick();
    uint64_t count = pick_count();
    enum mm_status expected;

    if (mm_test_chance(&rng, 80)) /* mostly one that fits */
        for (uint64_t i = 0; i < count; i++)
            if (!all(first + i, 1, USED))
                count = i;
    if (crosses_zones(first, count))
        return;
    expected = count != 0 && all(first, count, USED) ? MM_OK : MM_ERR_INVALID;
    assert_int_equal(mm_frame_free_run(&lab.pool, first * PAGE, count), expected);
    if (expected == MM_OK)
        set_state(first, count, USED, FREE);
}

/* Reserve takes every frame of a range, release puts it; holes are passed over. */
static void do_range(void)
{
    const bool take = mm_test_chance(&rng, 50);
    const int was = take ? FREE : USED, now = take ? USED : FREE;
    const uint64_t first = pick() % FRAMES;
    uint64_t count = 1 + pick_count() / 4, found = 0, told = 4711;
    enum mm_status expected = MM_OK, status;

    count = count < FRAMES - first ? count : FRAMES - first;
    for (uint64_t i = first; i < first + count; i++) {
        found += frame_state[i] != HOLE;
        if (frame_state[i] == now)
            expected = MM_ERR_BUSY;
    }
    status = take ? mm_frame_reserve(&lab.pool, first * PAGE, count * PAGE, &told)
                  : mm_frame_release(&lab.pool, first * PAGE, count * PAGE, &told);
    assert_int_equal(status, expected);
    assert_int_equal(told, expected == MM_OK ? found : 4711);
    for (uint64_t i = first; expected == MM_OK && i < first + count; i++)
        if (frame_state[i] == was)
            set_state(i, 1, was, now);
}

/* Frames of a bulk call that zone `zone` must give. */
static uint64_t bulk_share(unsigned zone, unsigned flags, uint64_t want)
{
    const uint64_t floor = (flags & MM_FRAME_URGENT) != 0 ? 0 : min_of(zone);
    const uint64_t room = zone_free[zone] > floor ? zone_free[zone] - floor : 0;

    return want < room ? want : room;
}

static void do_alloc_bulk(void)
{
    static mm_pa_t out[400];
    const unsigned flags = pick_flags();
    const uint64_t count = mm_test_below(&rng, 400);
    uint64_t at = 0, got = mm_frame_alloc_bulk(&lab.pool, count, flags, out);

    for (unsigned i = 0; i < 4 && fallback[flags & MM_FRAME_ZONE_MASK][i] != ZONES; i++) {
        const unsigned zone = fallback[flags & MM_FRAME_ZONE_MASK][i];
        uint64_t share = bulk_share(zone, flags, count - at);
        if (i > 0 && (flags & MM_FRAME_ONLY) != 0)
            break;
        for (; share > 0 && at < got; share--, at++) {
            assert_int_equal(zone_of(out[at] / PAGE), zone);
            set_state(out[at] / PAGE, 1, FREE, USED);
        }
        if (share != 0)
            fail_msg("bulk: %u frames too few", (unsigned)share);
    }
    assert_int_equal(at, got);
}

static void do_free_bulk(void)
{
    static mm_pa_t list[200];
    enum mm_status status, expected = MM_OK;
    uint64_t count = mm_test_below(&rng, 200), good = 0, at = pick();

    for (uint64_t i = 0; i < count; i++, at++) {
        if (mm_test_chance(&rng, 10))
            at = pick();
        while (mm_test_chance(&rng, 99) && at < FRAMES && frame_state[at] != USED)
            at++;
        list[i] = at * PAGE + (mm_test_below(&rng, 1000) == 0 ? 1 : 0);
    }
    for (uint64_t done = mm_frame_free_bulk(&lab.pool, count, list, &status); good < done; good++)
        set_state(list[good] / PAGE, 1, USED, FREE);
    if (good < count)
        expected = list[good] % PAGE != 0 ? MM_ERR_ALIGN : MM_ERR_INVALID;
    assert_int_equal(status, expected);
    assert_false(good < count && list[good] % PAGE == 0 && all(list[good] / PAGE, 1, USED));
}

static void do_look(void)
{
    const uint64_t frame = pick();
    const int expected =
        frame >= FRAMES || frame_state[frame] == HOLE ? MM_ERR_INVALID : frame_state[frame] == FREE;
    assert_int_equal(mm_frame_is_free(&lab.pool, frame * PAGE), expected);
}

static void do_figures(void)
{
    uint64_t whole = 0;
    const unsigned zone = (unsigned)mm_test_below(&rng, ZONES);
    struct mm_frame_stats stats = lab_stats(&lab, zone);

    assert_int_equal(stats.free, zone_free[zone]);
    assert_int_equal(mm_frame_free_count(&lab.pool, zone), zone_free[zone]);
    for (uint64_t i = (zones[zone].first + 511) / 512 * 512; i + 512 <= zones[zone].end; i += 512)
        whole += all(i, 512, FREE);
    assert_int_equal(stats.whole, whole);
}

static void do_drain(void)
{
    const unsigned cpu = (unsigned)mm_test_below(&rng, MM_CPU_MAX + 1);

    assert_int_equal(mm_frame_drain(&lab.pool, cpu), cpu < MM_CPU_MAX ? MM_OK : MM_ERR_INVALID);
}

/* One call; `fill`: the percentage of those that allocate. */
static void do_something(unsigned fill)
{
    static void (*const takers[])(void) = {do_alloc,    do_alloc,       do_alloc,
                                           do_alloc,    do_alloc_order, do_alloc_run,
                                           do_alloc_at, do_alloc_bulk};
    static void (*const givers[])(void) = {do_free,       do_free,     do_free,
                                           do_free_order, do_free_run, do_free_bulk};

    if (mm_test_below(&rng, 64) == 0)
        (mm_test_chance(&rng, 30) ? do_figures : mm_test_chance(&rng, 60) ? do_range : do_drain)();
    else if (mm_test_below(&rng, 20) == 0)
        do_look();
    else if (mm_test_chance(&rng, fill))
        takers[mm_test_below(&rng, sizeof takers / sizeof takers[0])]();
    else
        givers[mm_test_below(&rng, sizeof givers / sizeof givers[0])]();
}

/* ---- the run --------------------------------------------------------------------------------- */

static void model_begin(enum mm_frame_policy policy)
{
    static const char *const names[ZONES] = {"Normal", "DMA", "DMA32", "Device"};

    lab_begin(&lab);
    lab_range(&lab, 0, FRAMES * PAGE, MM_FRAME_USABLE);
    memset(frame_state, FREE, sizeof frame_state);
    for (unsigned i = 0; i < sizeof holes / sizeof holes[0]; i++) {
        lab_range(&lab, holes[i][0] * PAGE, (holes[i][1] - holes[i][0]) * PAGE, MM_FRAME_RESERVED);
        memset(frame_state + holes[i][0], HOLE, holes[i][1] - holes[i][0]);
    }
    for (unsigned z = 0; z < ZONES; z++) {
        struct mm_frame_zone_config *zone =
            lab_zone(&lab, names[z], zones[z].first * PAGE, zones[z].end * PAGE);
        zone->isolated = z == 3;
        zone->min = zone->low = zone->high = min_of(z);
        zone_free[z] = 0;
    }
    for (uint64_t i = 0; i < FRAMES; i++)
        zone_free[zone_of(i)] += frame_state[i] == FREE;
    lab.config.policy = policy;
    lab_start(&lab);
}

static void random_calls(enum mm_frame_policy policy, uint64_t ops)
{
    unsigned fill = 50;

    model_begin(policy);
    for (uint64_t i = 0; i < ops; i++) {
        if (i % 4096 == 0)
            fill = 20 + 15 * (unsigned)mm_test_below(&rng, 5);
        if (MM_CPU_MAX > 1 && mm_test_below(&rng, 8) == 0)
            mm_test_cpu = (unsigned)mm_test_below(&rng, MM_CPU_MAX + 1);
        do_something(fill);
        if (i % 256 == 0)
            assert_healthy(&lab, total_used());
    }
    assert_healthy(&lab, total_used());
    lab_end(&lab);
}

static void lowest_first_is_as_the_model(void **state)
{
    (void)state;
    rng = mm_test_rng(mm_test_seed(), 1);
    random_calls(MM_FRAME_LOWEST_FIRST, mm_test_ops() / 2);
}

static void next_fit_is_as_the_model(void **state)
{
    (void)state;
    rng = mm_test_rng(mm_test_seed(), 2);
    random_calls(MM_FRAME_NEXT_FIT, mm_test_ops() / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_first_is_as_the_model),
        cmocka_unit_test(next_fit_is_as_the_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
