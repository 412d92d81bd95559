/* frame_test.h - what the tests of mm_frame.h share: a pool with metadata of its own on a map that
 *   the test writes down, CPUs that the test chooses (mm_test_cpu), the last misuse report, and
 *   pictures of a pool to compare with.
 *
 *   MM_CPU_MAX may be defined before it; 1 is the default. */
#ifndef FRAME_TEST_H
#define FRAME_TEST_H

#include "mm_test.h"

struct mm_report;
static void lab_report(const struct mm_report *report);

#ifndef MM_CPU_ID
#define MM_CPU_ID() mm_test_cpu
#endif
#define MM_REPORT(report) lab_report(report)
#define MM_FRAME_STATIC
#include "mm_frame.h"

#define KIB    ((uint64_t)1 << 10)
#define MIB    ((uint64_t)1 << 20)
#define GIB    ((uint64_t)1 << 30)
#define TIB    ((uint64_t)1 << 40)
#define PAGE   MM_PAGE_SIZE
#define NO_CPU ((unsigned)MM_CPU_MAX)

/* ---- this thread's last misuse that was reported (MM_DEBUG >= 1) ----------------------------- */

static MM_TEST_UNUSED __thread struct mm_report lab_last_report;
static MM_TEST_UNUSED __thread unsigned lab_reports;

static MM_TEST_UNUSED void lab_report(const struct mm_report *report)
{
    lab_last_report = *report;
    lab_reports++;
}

/* ---- a pool ---------------------------------------------------------------------------------- */

struct lab {
    struct mm_frame_pool pool;
    struct mm_frame_config config;
    struct mm_frame_range map[64];
    struct mm_frame_zone_config zone[MM_FRAME_ZONE_MAX];
    unsigned char *meta;
    size_t meta_size;
};

/* Memory for `size` bytes, aligned as metadata are. */
static MM_TEST_UNUSED unsigned char *lab_memory(size_t size)
{
    unsigned char *memory = aligned_alloc(64, (size + 63) / 64 * 64);

    assert_non_null(memory);
    return memory;
}

/* An empty map and one zone. */
static MM_TEST_UNUSED void lab_begin(struct lab *lab)
{
    memset(lab, 0, sizeof *lab);
    lab->config.map = lab->map;
    lab->config.zones = lab->zone;
    mm_test_cpu = 0;
}

static MM_TEST_UNUSED void lab_range(struct lab *lab, mm_pa_t base, uint64_t size,
                                     enum mm_frame_type type)
{
    struct mm_frame_range range = {base, size, type};

    lab->map[lab->config.map_count++] = range;
}

static MM_TEST_UNUSED struct mm_frame_zone_config *lab_zone(struct lab *lab, const char *name,
                                                            mm_pa_t start, mm_pa_t end)
{
    struct mm_frame_zone_config *zone = &lab->zone[lab->config.zone_count++];

    zone->name = name;
    zone->start = start;
    zone->end = end;
    return zone;
}

/* Makes the pool, on memory full of 0xA5. */
static MM_TEST_UNUSED enum mm_status lab_init(struct lab *lab)
{
    enum mm_status status = mm_frame_meta_size(&lab->config, &lab->meta_size);

    if (status != MM_OK)
        return status;
    lab->meta = lab_memory(lab->meta_size);
    memset(lab->meta, 0xa5, lab->meta_size);
    memset(&lab->pool, 0xa5, sizeof lab->pool);
    lab->config.meta = lab->meta;
    lab->config.meta_size = lab->meta_size;
    return mm_frame_init(&lab->pool, &lab->config);
}

static MM_TEST_UNUSED void lab_start(struct lab *lab)
{
    assert_int_equal(lab_init(lab), MM_OK);
}

/* A pool of `frames` frames from address 0 on. */
static MM_TEST_UNUSED void lab_simple(struct lab *lab, uint64_t frames)
{
    lab_begin(lab);
    lab_range(lab, 0, frames * PAGE, MM_FRAME_USABLE);
    lab_start(lab);
}

#define assert_healthy(lab, used)                                                    \
    do {                                                                             \
        const char *what_ = NULL;                                                    \
        enum mm_frame_health health_ = mm_frame_check(&(lab)->pool, (used), &what_); \
        if (health_ != MM_FRAME_HEALTHY)                                             \
            fail_msg("not healthy: %s", what_ != NULL ? what_ : "?");                \
    } while (0)

/* Ends a test: the pool must be sound. */
static MM_TEST_UNUSED void lab_end(struct lab *lab)
{
    assert_healthy(lab, UINT64_MAX);
    free(lab->meta);
    lab->meta = NULL;
}

static MM_TEST_UNUSED struct mm_frame_stats lab_stats(struct lab *lab, unsigned zone)
{
    struct mm_frame_stats stats;

    assert_int_equal(mm_frame_get_stats(&lab->pool, zone, &stats), MM_OK);
    return stats;
}

/* Allocates single frames until none is left; returns how many. */
static MM_TEST_UNUSED uint64_t lab_exhaust(struct lab *lab, unsigned flags)
{
    uint64_t count = 0;

    while (mm_frame_alloc(&lab->pool, flags) != MM_PA_NONE)
        count++;
    return count;
}

static MM_TEST_UNUSED mm_pa_t lab_run(struct lab *lab, uint64_t count, uint64_t align,
                                      uint64_t boundary, mm_pa_t min, mm_pa_t max)
{
    struct mm_frame_request request = {count, align, boundary, min, max, 0};

    return mm_frame_alloc_run(&lab->pool, &request);
}

/* ---- pictures
 * ------------------------------------------------------------------------------------ A refused
 * call changes nothing. Of a pool and its metadata every byte is compared, but for
 *   what a CPU has besides its cursors'     counts of refused calls and of sections taken away, the
 *   words, sections and counters            remembered look-up of the last free, hints for searches
 *   failures of a zone                      counts failed calls
 *   peak                                    taken when figures are read
 *   anonymous, busy                         are 0 outside of calls, and checked to be so
 *   a section's was                         belongs to who holds its lock
 * and with `owners`, for calls that had to take a section away from another CPU to look at it:
 *   a section's owner, taken, some, full, free and the sets: the state stays the same in the sense
 *   of S1 to S5, which mm_frame_check tests; the frames that are free are compared one by one. */

struct lab_picture {
    struct mm_frame_pool pool;
    unsigned char *meta;
    bool *free;
    uint64_t frames;
};

static MM_TEST_UNUSED uint64_t lab_frames(const struct lab *lab)
{
    return (uint64_t)lab->pool.sections << MMI_FRAME_SECTION_SHIFT;
}

static MM_TEST_UNUSED bool lab_frame_free(const struct lab *lab, uint64_t index)
{
    const struct mm_frame_section *section = &lab->pool.section[index >> MMI_FRAME_SECTION_SHIFT];
    const unsigned w = (unsigned)(index >> MM_WORD_SHIFT) & (MM_WORD_BITS - 1);

    if ((section->huge & mmi_frame_group(w)) != 0)
        return false;
    return (lab->pool.word[index >> MM_WORD_SHIFT] >> (index & (MM_WORD_BITS - 1)) & 1) != 0;
}

static MM_TEST_UNUSED void lab_picture(const struct lab *lab, struct lab_picture *picture)
{
    picture->pool = lab->pool;
    picture->meta = lab_memory(lab->meta_size);
    memcpy(picture->meta, lab->meta, lab->meta_size);
    picture->frames = lab_frames(lab);
    picture->free = malloc(picture->frames + 1);
    for (uint64_t i = 0; i < picture->frames; i++)
        picture->free[i] = lab_frame_free(lab, i);
}

/* Where a pointer into the metadata points in the picture's copy of them. */
#define LAB_THEN(lab, picture, pointer) \
    ((__typeof__(pointer))(void *)((picture)->meta + ((unsigned char *)(pointer) - (lab)->meta)))

/* What the CPU at `now` used of a zone, by its counters in `then`: frees are counted apart. */
static MM_TEST_UNUSED uintptr_t lab_cpu_used(const struct mm_frame_cpu *now,
                                             const struct mm_frame_cpu *then, unsigned zone)
{
    const bool at_hand = then->span_cursor == &now->cursor[zone];
    return then->cursor[zone].used - (at_hand ? then->freed : 0);
}

static MM_TEST_UNUSED void lab_forget_cpus(struct lab *lab, struct lab_picture *then)
{
    struct mm_frame_cpu *old = LAB_THEN(lab, then, lab->pool.cpu);

    for (unsigned i = 0; i < MM_CPU_MAX; i++) {
        const struct mm_frame_cpu *now = &lab->pool.cpu[i];
        assert_int_equal(now->busy, old[i].busy);
        for (unsigned z = 0; z < MM_FRAME_ZONE_MAX; z++) {
            if (now->cursor[z].word != &lab->pool.nothing) /* see C1 */
                assert_ptr_equal(now->cursor[z].word, old[i].cursor[z].word);
            assert_ptr_equal(now->cursor[z].section, old[i].cursor[z].section);
            assert_int_equal(now->cursor[z].pa, old[i].cursor[z].pa);
            assert_int_equal(lab_cpu_used(now, now, z), lab_cpu_used(now, &old[i], z));
        }
        memcpy(&old[i], now, sizeof *now);
    }
}

static MM_TEST_UNUSED void lab_forget_sections(struct lab *lab, struct lab_picture *then,
                                               bool owners)
{
    struct mm_frame_section *old = LAB_THEN(lab, then, lab->pool.section);
    uintptr_t *owner = LAB_THEN(lab, then, lab->pool.owner);

    for (uintptr_t i = 0; i < lab->pool.sections; i++) {
        const struct mm_frame_section *now = &lab->pool.section[i];
        old[i].was = now->was;
        if (!owners)
            continue;
        owner[i] = lab->pool.owner[i];
        old[i].taken = now->taken;
        old[i].some = now->some;
        old[i].full = now->full;
        old[i].free = now->free;
    }
    if (owners)
        memcpy(LAB_THEN(lab, then, lab->pool.sets), lab->pool.sets,
               2 * (MM_CPU_MAX + 1) * lab->pool.set_words * sizeof(uintptr_t));
}

/* Asserts that the pool is as it was in the picture, and throws that away. */
static MM_TEST_UNUSED void lab_compare(struct lab *lab, struct lab_picture *then, bool owners)
{
    for (unsigned z = 0; z < MM_FRAME_ZONE_MAX; z++) {
        then->pool.zone[z].failures = lab->pool.zone[z].failures;
        then->pool.zone[z].peak = lab->pool.zone[z].peak;
    }
    lab_forget_cpus(lab, then);
    lab_forget_sections(lab, then, owners);
    for (uint64_t i = 0; i < then->frames; i++)
        assert_int_equal(lab_frame_free(lab, i), then->free[i]);
    assert_memory_equal(&lab->pool, &then->pool, sizeof lab->pool);
    assert_memory_equal(lab->meta, then->meta, lab->meta_size);
    assert_healthy(lab, UINT64_MAX);
    free(then->meta);
    free(then->free);
}

/* Asserts that `call` has the value `expected` and changes nothing. */
#define assert_refused(lab, call, expected)   \
    do {                                      \
        struct lab_picture picture_;          \
        lab_picture((lab), &picture_);        \
        assert_int_equal((call), (expected)); \
        lab_compare((lab), &picture_, false); \
    } while (0)

/* The same where sections may change owners. */
#define assert_refused_by_owner(lab, call, expected) \
    do {                                             \
        struct lab_picture picture_;                 \
        lab_picture((lab), &picture_);               \
        assert_int_equal((call), (expected));        \
        lab_compare((lab), &picture_, true);         \
    } while (0)

#endif /* FRAME_TEST_H */
