/* Every hook that can fail is made to fail at its N-th call, for every N: view, migrate, evict and
 * pressure. What it leaves behind must be sound and as documented. */
#define MM_CPU_MAX 2
#include "frame_test.h"

#define SECTION_FRAMES ((uint64_t)4096)

struct fault {
    struct mm_test_fail fail;
    unsigned char *memory;
    uint64_t moved, evicted;
    mm_pa_t next; /* what the pressure hook frees next */
};

/* ---- view ------------------------------------------------------------------------------------ */

static void *view(void *ctx, mm_pa_t pa, uint64_t size)
{
    struct fault *fault = ctx;

    (void)size;
    return mm_test_fails(&fault->fail) ? NULL : fault->memory + pa;
}

static void init_without_a_view_of_its_metadata_is_nomem(void **state)
{
    unsigned char *memory = lab_memory(MIB);
    struct fault fault;
    struct lab lab;
    uint64_t n;

    (void)state;
    for (n = 1;; n++) {
        enum mm_status status;
        memset(&fault, 0, sizeof fault);
        memset(memory, 0xa5, MIB);
        fault.fail.fail_at = n;
        fault.memory = memory;
        lab_begin(&lab);
        lab_range(&lab, 0, MIB, MM_FRAME_USABLE);
        lab.config.hooks.view = view;
        lab.config.hooks.ctx = &fault;
        status = mm_frame_init(&lab.pool, &lab.config);
        if (fault.fail.calls < n)
            break;
        assert_int_equal(status, MM_ERR_NOMEM);
        for (unsigned i = 0; i < MIB; i++)
            assert_int_equal(memory[i], 0xa5);
    }
    assert_true(n > 1);
    assert_healthy(&lab, 0);
    free(memory);
}

/* ---- migrate --------------------------------------------------------------------------------- */

static unsigned char owned[3 * 4096]; /* frames that the test holds */

static enum mm_status migrate(void *ctx, struct mm_frame_pool *pool, mm_pa_t from, mm_pa_t to)
{
    struct fault *fault = ctx;

    (void)pool;
    assert_int_equal(owned[from / PAGE], 1);
    assert_int_equal(owned[to / PAGE], 0);
    if (mm_test_fails(&fault->fail))
        return MM_ERR_BUSY;
    owned[from / PAGE] = 0;
    owned[to / PAGE] = 1;
    fault->moved++;
    return MM_OK;
}

static void take(struct lab *lab, uint64_t first, uint64_t count)
{
    assert_int_equal(mm_frame_alloc_at(&lab->pool, first * PAGE, count), MM_OK);
    memset(owned + first, 1, count);
}

/* Three sections, the last one CPU 1's; 24 frames of the second and the third are in use. */
static void move_begin(struct lab *lab, struct fault *fault, uint64_t n)
{
    memset(fault, 0, sizeof *fault);
    memset(owned, 0, sizeof owned);
    fault->fail.fail_at = n;
    lab_simple(lab, 3 * SECTION_FRAMES);
    take(lab, SECTION_FRAMES + 100, 10);
    take(lab, SECTION_FRAMES + 1000, 4);
    take(lab, 2 * SECTION_FRAMES + 60, 8);
    mm_test_cpu = 1;
    take(lab, 2 * SECTION_FRAMES, 1);
    mm_test_cpu = 0;
    take(lab, 3 * SECTION_FRAMES - 1, 1);
}

/* Just the frames that the test holds are in use. */
static void assert_owned(struct lab *lab)
{
    for (uint64_t i = 0; i < 3 * SECTION_FRAMES; i++)
        if (mm_frame_is_free(&lab->pool, i * PAGE) != MM_ERR_INVALID)
            assert_int_equal(mm_frame_is_free(&lab->pool, i * PAGE), !owned[i]);
        else
            assert_int_equal(owned[i], 0);
    assert_healthy(lab, 24);
}

static void offline_survives_a_migration_that_fails(void **state)
{
    struct mm_frame_offline_result result;
    struct fault fault;
    struct lab lab;
    uint64_t n;

    (void)state;
    for (n = 1;; n++) {
        enum mm_status status;
        move_begin(&lab, &fault, n);
        status = mm_frame_offline(&lab.pool, SECTION_FRAMES * PAGE, 2 * SECTION_FRAMES * PAGE,
                                  migrate, &fault, &result);
        assert_owned(&lab);
        assert_int_equal(result.moved, fault.moved);
        if (fault.fail.calls < n)
            break;
        assert_int_equal(status, MM_ERR_BUSY);
        assert_int_equal(result.busy, 1);
        assert_int_equal(owned[result.first_busy / PAGE], 1);
        assert_int_equal(lab_stats(&lab, 0).managed, 3 * SECTION_FRAMES);
        lab_end(&lab);
    }
    assert_int_equal(n, 25);
    assert_int_equal(lab_stats(&lab, 0).managed, SECTION_FRAMES);
    lab_end(&lab);
}

static void compaction_survives_a_migration_that_fails(void **state)
{
    struct fault fault;
    struct lab lab;
    uint64_t n;

    (void)state;
    for (n = 1;; n++) {
        enum mm_status status = MM_OK;
        move_begin(&lab, &fault, n);
        for (unsigned turn = 0; status == MM_OK && turn < 3; turn++) {
            status = mm_frame_compact(&lab.pool, 0, migrate, &fault, NULL);
            assert_owned(&lab);
        }
        if (fault.fail.calls < n)
            break;
        assert_int_equal(status, MM_ERR_BUSY);
        lab_end(&lab);
    }
    assert_true(n > 3);
    lab_end(&lab);
}

/* ---- evict ----------------------------------------------------------------------------------- */

static enum mm_status evict(void *ctx, struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct fault *fault = ctx;

    if (mm_test_fails(&fault->fail))
        return MM_ERR_BUSY;
    fault->evicted++;
    return mm_frame_put(pool, pa);
}

static void shrink_survives_an_eviction_that_fails(void **state)
{
    struct fault fault;
    struct lab lab;
    uint64_t n;

    (void)state;
    for (n = 1;; n++) {
        struct mm_frame_lru lru;
        size_t gone;
        memset(&fault, 0, sizeof fault);
        fault.fail.fail_at = n;
        lab_begin(&lab);
        lab_range(&lab, 0, 100 * PAGE, MM_FRAME_USABLE);
        lab.config.descriptors = true;
        lab_start(&lab);
        assert_int_equal(mm_frame_lru_init(&lru, &lab.pool), MM_OK);
        for (unsigned i = 0; i < 20; i++) {
            const mm_pa_t pa = mm_frame_alloc_ref(&lab.pool, i % 3, 0);
            assert_int_equal(mm_frame_lru_add(&lru, pa, MM_FRAME_LRU_FILE), MM_OK);
        }
        gone = mm_frame_lru_shrink(&lru, MM_FRAME_LRU_FILE, 20, 20, evict, &fault);
        assert_int_equal(gone, fault.evicted);
        assert_int_equal(lru.list[2].count + lru.list[3].count, 20 - gone);
        assert_healthy(&lab, UINT64_MAX);
        if (fault.fail.calls < n)
            break;
        assert_int_equal(gone, 19);
        assert_int_equal(lru.refused, 1);
        assert_int_equal(mm_frame_lru_shrink(&lru, MM_FRAME_LRU_FILE, 20, 20, evict, &fault), 1);
        assert_healthy(&lab, 0);
        lab_end(&lab);
    }
    assert_int_equal(n, 21);
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

/* ---- pressure -------------------------------------------------------------------------------- */

/* Frees two frames a call, from 64 on: the tries of an allocation of eight fail until the
 * fourth. */
static bool pressure(void *ctx, struct mm_frame_pool *pool, unsigned zone,
                     enum mm_frame_pressure level)
{
    struct fault *fault = ctx;

    assert_int_equal(zone, 0);
    if (level != MM_FRAME_PRESSURE_FAIL || mm_test_fails(&fault->fail))
        return false;
    assert_int_equal(mm_frame_free_run(pool, fault->next, 2), MM_OK);
    fault->next += 2 * PAGE;
    return true;
}

static uint64_t pressed(struct lab *lab, unsigned how)
{
    static mm_pa_t out[8];

    switch (how) {
    case 0:
        return mm_frame_alloc_order(&lab->pool, 3, 0) == MM_PA_NONE ? 0 : 8;
    case 1:
        return lab_run(lab, 7, 0, 0, 0, 0) == MM_PA_NONE ? 0 : 7;
    default:
        return mm_frame_alloc_bulk(&lab->pool, 8, 0, out);
    }
}

static void an_allocation_survives_a_pressure_hook_that_gives_up(void **state)
{
    struct fault fault;
    struct lab lab;
    uint64_t n;

    (void)state;
    for (unsigned how = 0; how < 3; how++) {
        for (n = 1;; n++) {
            uint64_t freed, got;
            memset(&fault, 0, sizeof fault);
            fault.fail.fail_at = n;
            fault.next = 64 * PAGE;
            lab_begin(&lab);
            lab_range(&lab, 0, 200 * PAGE, MM_FRAME_USABLE);
            lab.config.hooks.pressure = pressure;
            lab.config.hooks.ctx = &fault;
            lab_start(&lab);
            assert_int_equal(mm_frame_reserve(&lab.pool, 0, 200 * PAGE, NULL), MM_OK);
            got = pressed(&lab, how);
            freed = (fault.next - 64 * PAGE) / PAGE;
            assert_healthy(&lab, 200 - freed + got);
            assert_int_equal(lab_stats(&lab, 0).failures, fault.fail.calls < n ? 0 : 1);
            lab_end(&lab);
            if (fault.fail.calls < n)
                break;
            assert_int_equal(got, how == 2 ? freed : 0);
        }
        assert_int_equal(n, 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_without_a_view_of_its_metadata_is_nomem),
        cmocka_unit_test(offline_survives_a_migration_that_fails),
        cmocka_unit_test(compaction_survives_a_migration_that_fails),
        cmocka_unit_test(shrink_survives_an_eviction_that_fails),
        cmocka_unit_test(an_allocation_survives_a_pressure_hook_that_gives_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
