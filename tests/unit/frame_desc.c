/* Scoped frames, quotas, descriptors, and the LRU over them. */
#include "frame_test.h"

/* ---- scoped frames --------------------------------------------------------------------------- */

static void a_scoped_frame_is_freed_when_its_scope_ends(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_simple(&lab, 10);
    {
        MM_FRAME_SCOPED guard = mm_frame_guard_make(&lab.pool, mm_frame_alloc(&lab.pool, 0));
        pa = guard.pa;
        assert_int_equal(mm_frame_is_free(&lab.pool, pa), 0);
    }
    assert_int_equal(mm_frame_is_free(&lab.pool, pa), 1);
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

static void a_kept_frame_outlives_its_scope(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_simple(&lab, 10);
    {
        MM_FRAME_SCOPED guard = mm_frame_guard_make(&lab.pool, mm_frame_alloc(&lab.pool, 0));
        pa = mm_frame_guard_keep(&guard);
    }
    assert_int_equal(mm_frame_is_free(&lab.pool, pa), 0);
    assert_healthy(&lab, 1);
    lab_end(&lab);
}

static void a_guard_of_no_frame_does_nothing(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 1);
    (void)lab_exhaust(&lab, 0);
    {
        MM_FRAME_SCOPED guard = mm_frame_guard_make(&lab.pool, mm_frame_alloc(&lab.pool, 0));
        assert_int_equal(guard.pa, MM_PA_NONE);
    }
    assert_int_equal(lab_stats(&lab, 0).refused, 0);
    lab_end(&lab);
}

/* ---- quotas ---------------------------------------------------------------------------------- */

static struct mm_frame_quota top, child, other;

static void quotas_begin(uint64_t top_limit, uint64_t child_limit)
{
    mm_frame_quota_init(&top, NULL, top_limit);
    mm_frame_quota_init(&child, &top, child_limit);
    mm_frame_quota_init(&other, &top, UINT64_MAX);
}

static void a_charge_counts_all_the_way_up(void **state)
{
    (void)state;
    quotas_begin(100, 50);
    assert_int_equal(mm_frame_quota_charge(&child, 30), MM_OK);
    assert_int_equal(mm_frame_quota_charge(&other, 60), MM_OK);
    assert_int_equal(child.used, 30);
    assert_int_equal(other.used, 60);
    assert_int_equal(top.used, 90);
    assert_int_equal(mm_frame_quota_uncharge(&child, 10), MM_OK);
    assert_int_equal(child.used, 20);
    assert_int_equal(top.used, 80);
    assert_int_equal(top.peak, 90);
    assert_int_equal(child.peak, 30);
}

static void a_charge_up_to_the_limit_fits(void **state)
{
    (void)state;
    quotas_begin(100, 50);
    assert_int_equal(mm_frame_quota_charge(&child, 50), MM_OK);
    assert_int_equal(mm_frame_quota_charge(&child, 0), MM_OK);
    assert_int_equal(mm_frame_quota_charge(&child, 1), MM_ERR_LIMIT);
    assert_int_equal(mm_frame_quota_charge(&other, 50), MM_OK);
    assert_int_equal(mm_frame_quota_charge(&other, UINT64_MAX), MM_ERR_LIMIT);
}

static void a_refused_charge_counts_nowhere_but_as_a_failure(void **state)
{
    struct mm_frame_quota before;

    (void)state;
    quotas_begin(100, 200);
    assert_int_equal(mm_frame_quota_charge(&child, 10), MM_OK);
    before = child;
    assert_int_equal(mm_frame_quota_charge(&child, 91), MM_ERR_LIMIT);
    assert_memory_equal(&child, &before, sizeof child);
    assert_int_equal(top.used, 10);
    assert_int_equal(top.failures, 1);
    assert_int_equal(mm_frame_quota_charge(&child, 191), MM_ERR_LIMIT);
    assert_int_equal(child.failures, 1);
    assert_int_equal(top.failures, 1);
}

static void more_cannot_be_taken_back_than_was_charged(void **state)
{
    (void)state;
    quotas_begin(100, 50);
    assert_int_equal(mm_frame_quota_charge(&child, 20), MM_OK);
    assert_int_equal(mm_frame_quota_uncharge(&child, 21), MM_ERR_INVALID);
    assert_int_equal(mm_frame_quota_uncharge(&other, 1), MM_ERR_INVALID);
    assert_int_equal(child.used, 20);
    assert_int_equal(top.used, 20);
    child.used = 30; /* as if the child had more than its parent */
    assert_int_equal(mm_frame_quota_uncharge(&child, 25), MM_ERR_INVALID);
    assert_int_equal(child.used, 30);
    assert_int_equal(top.used, 20);
}

static void a_limit_that_was_lowered_below_use_refuses(void **state)
{
    (void)state;
    quotas_begin(100, 50);
    assert_int_equal(mm_frame_quota_charge(&child, 20), MM_OK);
    child.limit = 10;
    assert_int_equal(mm_frame_quota_charge(&child, 0), MM_ERR_LIMIT);
    assert_int_equal(mm_frame_quota_uncharge(&child, 20), MM_OK);
    assert_int_equal(mm_frame_quota_charge(&child, 10), MM_OK);
}

static void allocations_are_charged_and_frees_taken_back(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_simple(&lab, 100);
    quotas_begin(20, 10);
    pa = mm_frame_quota_alloc(&lab.pool, &child, 3, 0);
    assert_int_not_equal(pa, MM_PA_NONE);
    assert_int_equal(child.used, 8);
    assert_int_equal(mm_frame_quota_alloc(&lab.pool, &child, 2, 0), MM_PA_NONE);
    assert_int_equal(child.failures, 1);
    assert_healthy(&lab, 8);
    assert_int_equal(mm_frame_quota_free(&lab.pool, &child, pa, 3), MM_OK);
    assert_int_equal(child.used, 0);
    assert_int_equal(top.used, 0);
    assert_healthy(&lab, 0);
    lab_end(&lab);
}

static void a_failed_allocation_is_not_charged(void **state)
{
    struct lab lab;

    (void)state;
    lab_simple(&lab, 4);
    quotas_begin(1000, 1000);
    assert_int_equal(mm_frame_quota_alloc(&lab.pool, &child, 3, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_quota_alloc(&lab.pool, &child, 0, 256), MM_PA_NONE);
    assert_int_equal(mm_frame_quota_alloc(&lab.pool, &child, 63, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_quota_alloc(&lab.pool, &child, 64, 0), MM_PA_NONE);
    assert_int_equal(child.used, 0);
    assert_int_equal(top.used, 0);
    assert_int_equal(child.failures, 0);
    lab_end(&lab);
}

static void a_refused_free_stays_charged(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_simple(&lab, 100);
    quotas_begin(100, 100);
    pa = mm_frame_quota_alloc(&lab.pool, &child, 1, 0);
    assert_int_equal(mm_frame_quota_free(&lab.pool, &child, pa + PAGE, 1), MM_ERR_ALIGN);
    assert_int_equal(mm_frame_quota_free(&lab.pool, &child, 50 * PAGE, 1), MM_ERR_INVALID);
    assert_int_equal(mm_frame_quota_free(&lab.pool, &child, pa, 64), MM_ERR_INVALID);
    assert_int_equal(mm_frame_quota_free(&lab.pool, &other, pa, 1), MM_ERR_INVALID);
    assert_int_equal(child.used, 2);
    assert_int_equal(top.used, 2);
    assert_healthy(&lab, 2);
    assert_int_equal(mm_frame_quota_free(&lab.pool, &child, pa, 1), MM_OK);
    lab_end(&lab);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static void descs_begin(struct lab *lab)
{
    lab_begin(lab);
    lab_range(lab, 16 * PAGE, 100 * PAGE, MM_FRAME_USABLE);
    lab_range(lab, 5000 * PAGE, 1024 * PAGE, MM_FRAME_USABLE);
    lab->config.descriptors = true;
    lab_start(lab);
}

static void each_frame_has_a_descriptor_of_its_own(void **state)
{
    unsigned char *own; /* a table beside the descriptors */
    struct lab lab;

    (void)state;
    descs_begin(&lab);
    own = calloc(mm_frame_desc_count(&lab.pool), 1);
    for (uint64_t i = 16; i < 6024; i = i == 115 ? 5000 : i + 1) {
        struct mm_frame_desc *desc = mm_frame_desc_of(&lab.pool, i * PAGE);
        assert_non_null(desc);
        assert_int_equal(desc->refs, 0);
        assert_int_equal(mm_frame_desc_pa(&lab.pool, desc), i * PAGE);
        assert_true(mm_frame_desc_index(&lab.pool, desc) < mm_frame_desc_count(&lab.pool));
        assert_int_equal(own[mm_frame_desc_index(&lab.pool, desc)]++, 0);
    }
    free(own);
    assert_int_equal(mm_frame_desc_pa(&lab.pool, mm_frame_desc_of(&lab.pool, 6023 * PAGE)),
                     6023 * PAGE);
    assert_null(mm_frame_desc_of(&lab.pool, 15 * PAGE));
    assert_null(mm_frame_desc_of(&lab.pool, 200 * PAGE));
    assert_null(mm_frame_desc_of(&lab.pool, 16 * PAGE + 1));
    lab_end(&lab);
}

static void without_descriptors_nothing_is_counted(void **state)
{
    struct mm_frame_lru lru;
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    lab_simple(&lab, 10);
    pa = mm_frame_alloc(&lab.pool, 0);
    assert_null(mm_frame_desc_of(&lab.pool, pa));
    assert_int_equal(mm_frame_desc_count(&lab.pool), 0);
    assert_refused(&lab, mm_frame_alloc_ref(&lab.pool, 0, 0), MM_PA_NONE);
    assert_refused(&lab, mm_frame_get(&lab.pool, pa), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_put(&lab.pool, pa), MM_ERR_INVALID);
    assert_int_equal(mm_frame_lru_init(&lru, &lab.pool), MM_ERR_INVALID);
    lab_end(&lab);
}

static void the_last_put_frees_the_block(void **state)
{
    struct lab lab;

    (void)state;
    for (unsigned order = 0; order <= 9; order++) {
        const uint64_t frames = (uint64_t)1 << order;
        mm_pa_t pa;
        descs_begin(&lab);
        pa = mm_frame_alloc_ref(&lab.pool, order, 0);
        assert_int_equal(mm_frame_desc_of(&lab.pool, pa)->refs, 1);
        assert_int_equal(mm_frame_get(&lab.pool, pa), MM_OK);
        assert_int_equal(mm_frame_get(&lab.pool, pa), MM_OK);
        assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
        assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
        assert_healthy(&lab, frames);
        assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
        assert_int_equal(mm_frame_is_free(&lab.pool, pa + (frames - 1) * PAGE), 1);
        assert_healthy(&lab, 0);
        lab_end(&lab);
    }
}

static void a_put_too_many_is_refused(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    descs_begin(&lab);
    pa = mm_frame_alloc_ref(&lab.pool, 0, 0);
    assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
    assert_refused(&lab, mm_frame_put(&lab.pool, pa), MM_ERR_NOENT);
    assert_refused(&lab, mm_frame_get(&lab.pool, pa), MM_ERR_NOENT);
    assert_int_equal(lab_stats(&lab, 0).refused, 1);
    assert_int_equal(mm_frame_alloc_at(&lab.pool, 20 * PAGE, 1), MM_OK);
    assert_refused(&lab, mm_frame_put(&lab.pool, 20 * PAGE), MM_ERR_NOENT);
    assert_refused(&lab, mm_frame_put(&lab.pool, 200 * PAGE), MM_ERR_INVALID);
    assert_refused(&lab, mm_frame_get(&lab.pool, 20 * PAGE + 4), MM_ERR_INVALID);
    lab_end(&lab);
}

static void references_do_not_overflow(void **state)
{
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    descs_begin(&lab);
    pa = mm_frame_alloc_ref(&lab.pool, 0, 0);
    mm_frame_desc_of(&lab.pool, pa)->refs = UINTPTR_MAX;
    assert_refused(&lab, mm_frame_get(&lab.pool, pa), MM_ERR_LIMIT);
    assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
    assert_int_equal(mm_frame_get(&lab.pool, pa), MM_OK);
    lab_end(&lab);
}

static void a_new_references_descriptor_is_cleared(void **state)
{
    struct mm_frame_desc *desc;
    struct lab lab;
    mm_pa_t pa;

    (void)state;
    descs_begin(&lab);
    pa = mm_frame_alloc_ref(&lab.pool, 0, 0);
    desc = mm_frame_desc_of(&lab.pool, pa);
    desc->mapping = &lab;
    desc->index = desc->priv = 5;
    desc->flags = MM_FRAME_DESC_USER;
    assert_int_equal(mm_frame_put(&lab.pool, pa), MM_OK);
    assert_int_equal(mm_frame_alloc_ref(&lab.pool, 0, 0), pa);
    assert_null(desc->mapping);
    assert_int_equal(desc->index | desc->priv | desc->flags | desc->order, 0);
    assert_int_equal(desc->refs, 1);
    lab_end(&lab);
}

static void no_frame_no_reference(void **state)
{
    struct lab lab;

    (void)state;
    descs_begin(&lab);
    (void)lab_exhaust(&lab, 0);
    assert_int_equal(mm_frame_alloc_ref(&lab.pool, 0, 0), MM_PA_NONE);
    assert_int_equal(mm_frame_alloc_ref(&lab.pool, 64, 0), MM_PA_NONE);
    lab_end(&lab);
}

/* ---- LRU ------------------------------------------------------------------------------------- */

struct lru_lab {
    struct lab lab;
    struct mm_frame_lru lru;
    mm_pa_t pa[8];
    mm_pa_t evicted[16];
    unsigned count, refuse_at; /* the call that is refused; 0: none */
};

static enum mm_status evict(void *ctx, struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct lru_lab *l = ctx;

    assert_int_equal(mm_frame_desc_of(pool, pa)->flags & MM_FRAME_DESC_LRU, 0);
    l->evicted[l->count++] = pa;
    if (l->count == l->refuse_at)
        return MM_ERR_BUSY;
    return mm_frame_put(pool, pa);
}

/* Eight frames with a reference each, added in order. */
static void lru_begin(struct lru_lab *l, enum mm_frame_lru_kind kind)
{
    memset(l, 0, sizeof *l);
    descs_begin(&l->lab);
    assert_int_equal(mm_frame_lru_init(&l->lru, &l->lab.pool), MM_OK);
    for (unsigned i = 0; i < 8; i++) {
        l->pa[i] = mm_frame_alloc_ref(&l->lab.pool, 0, 0);
        assert_int_equal(mm_frame_lru_add(&l->lru, l->pa[i], kind), MM_OK);
    }
}

static size_t lru_shrink(struct lru_lab *l, enum mm_frame_lru_kind kind, size_t want, size_t scan)
{
    l->count = 0;
    return mm_frame_lru_shrink(&l->lru, kind, want, scan, evict, l);
}

static uintptr_t lru_count(const struct lru_lab *l, enum mm_frame_lru_kind kind, bool active)
{
    return l->lru.list[(unsigned)kind * 2 + active].count;
}

static void shrink_evicts_the_oldest_first(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_ANON);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 3, 100), 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(l.evicted[i], l.pa[i]);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 100, 100), 5);
    assert_int_equal(l.lru.evicted, 8);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 100, 100), 0);
    assert_healthy(&l.lab, 0);
    lab_end(&l.lab);
}

static void shrink_looks_at_scan_frames_at_most(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_ANON);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 100, 0), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(mm_frame_lru_touch(&l.lru, l.pa[i]), MM_OK);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 100, 5), 1);
    assert_int_equal(l.evicted[0], l.pa[4]);
    lab_end(&l.lab);
}

static void a_frame_used_once_is_spared_once(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_FILE);
    assert_int_equal(mm_frame_lru_touch(&l.lru, l.pa[0]), MM_OK);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_FILE, 1, 100), 1);
    assert_int_equal(l.evicted[0], l.pa[1]);
    assert_int_equal(l.lru.spared, 1);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_FILE, 100, 100), 7);
    assert_healthy(&l.lab, 0);
    lab_end(&l.lab);
}

static void a_frame_used_twice_becomes_active(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_FILE);
    assert_int_equal(mm_frame_lru_touch(&l.lru, l.pa[0]), MM_OK);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_FILE, true), 0);
    assert_int_equal(mm_frame_lru_touch(&l.lru, l.pa[0]), MM_OK);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_FILE, true), 1);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_FILE, false), 7);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_FILE, 6, 6), 6);
    assert_true(l.evicted[0] == l.pa[1] && l.evicted[5] == l.pa[6]);
    lab_end(&l.lab);
}

static void the_active_list_refills_a_shorter_inactive_one(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_ANON);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(mm_frame_lru_touch(&l.lru, l.pa[i / 2]), MM_OK);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_ANON, true), 8);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 1, 100), 1);
    assert_int_equal(l.evicted[0], l.pa[0]);
    lab_end(&l.lab);
}

static void a_refused_eviction_puts_the_frame_back_as_active(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_FILE);
    l.refuse_at = 1;
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_FILE, 2, 100), 2);
    assert_true(l.evicted[1] == l.pa[1] && l.evicted[2] == l.pa[2]);
    assert_int_equal(l.lru.refused, 1);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_FILE, true), 1);
    assert_int_equal(mm_frame_lru_remove(&l.lru, l.pa[0]), MM_OK);
    assert_int_equal(mm_frame_put(&l.lab.pool, l.pa[0]), MM_OK);
    lab_end(&l.lab);
}

static void the_kinds_have_lists_of_their_own(void **state)
{
    struct lru_lab l;
    mm_pa_t pa;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_FILE);
    pa = mm_frame_alloc_ref(&l.lab.pool, 0, 0);
    assert_int_equal(mm_frame_lru_add(&l.lru, pa, MM_FRAME_LRU_ANON), MM_OK);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_ANON, 100, 100), 1);
    assert_int_equal(l.evicted[0], pa);
    assert_int_equal(lru_shrink(&l, MM_FRAME_LRU_KINDS, 100, 100), 0);
    assert_int_equal(mm_frame_lru_shrink(&l.lru, MM_FRAME_LRU_FILE, 1, 1, NULL, NULL), 0);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_FILE, false), 8);
    lab_end(&l.lab);
}

/* Its owner drops the last reference while reclaim looks at it. */
static enum mm_status refuse_what_has_gone(void *ctx, struct mm_frame_pool *pool, mm_pa_t pa)
{
    (void)ctx;
    assert_int_equal(mm_frame_put(pool, pa), MM_OK);
    assert_int_equal(mm_frame_is_free(pool, pa), 0);
    return MM_ERR_BUSY;
}

static enum mm_status put_back_and_refuse(void *lru, struct mm_frame_pool *pool, mm_pa_t pa)
{
    (void)pool;
    assert_int_equal(mm_frame_lru_add(lru, pa, MM_FRAME_LRU_ANON), MM_OK);
    return MM_ERR_BUSY;
}

static void a_victim_stays_as_long_as_it_is_looked_at(void **state)
{
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_ANON);
    assert_int_equal(
        mm_frame_lru_shrink(&l.lru, MM_FRAME_LRU_ANON, 1, 1, refuse_what_has_gone, NULL), 0);
    assert_int_equal(mm_frame_is_free(&l.lab.pool, l.pa[0]), 1);
    assert_int_equal(
        mm_frame_lru_shrink(&l.lru, MM_FRAME_LRU_ANON, 1, 1, put_back_and_refuse, &l.lru), 0);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_ANON, false), 7);
    assert_int_equal(lru_count(&l, MM_FRAME_LRU_ANON, true), 0);
    assert_int_equal(mm_frame_desc_of(&l.lab.pool, l.pa[1])->refs, 1);
    assert_int_equal(l.lru.refused, 2);
    lab_end(&l.lab);
}

static void lru_calls_refuse_what_they_must(void **state)
{
    struct lru_lab l;
    mm_pa_t pa;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_ANON);
    pa = mm_frame_alloc(&l.lab.pool, 0);
    assert_int_equal(mm_frame_lru_add(&l.lru, l.pa[0], MM_FRAME_LRU_FILE), MM_ERR_EXISTS);
    assert_int_equal(mm_frame_lru_add(&l.lru, pa, MM_FRAME_LRU_ANON), MM_ERR_NOENT);
    assert_int_equal(mm_frame_lru_add(&l.lru, l.pa[0], MM_FRAME_LRU_KINDS), MM_ERR_INVALID);
    assert_int_equal(mm_frame_lru_add(&l.lru, 0, MM_FRAME_LRU_ANON), MM_ERR_INVALID);
    assert_int_equal(mm_frame_lru_remove(&l.lru, pa), MM_ERR_NOENT);
    assert_int_equal(mm_frame_lru_remove(&l.lru, 0), MM_ERR_INVALID);
    assert_int_equal(mm_frame_lru_touch(&l.lru, pa), MM_ERR_NOENT);
    assert_int_equal(mm_frame_lru_touch(&l.lru, 0), MM_ERR_INVALID);
    assert_int_equal(mm_frame_put(&l.lab.pool, l.pa[0]), MM_ERR_BUSY);
    assert_int_equal(mm_frame_desc_of(&l.lab.pool, l.pa[0])->refs, 1);
    lab_end(&l.lab);
}

static void frames_are_taken_off_anywhere_in_a_list(void **state)
{
    static const unsigned order[] = {3, 0, 7, 4, 1, 6, 2, 5};
    struct lru_lab l;

    (void)state;
    lru_begin(&l, MM_FRAME_LRU_ANON);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(mm_frame_lru_remove(&l.lru, l.pa[order[i]]), MM_OK);
        assert_int_equal(mm_frame_lru_remove(&l.lru, l.pa[order[i]]), MM_ERR_NOENT);
        assert_int_equal(lru_count(&l, MM_FRAME_LRU_ANON, false), 7 - i);
        assert_int_equal(mm_frame_put(&l.lab.pool, l.pa[order[i]]), MM_OK);
    }
    assert_int_equal(l.lru.list[0].head | l.lru.list[0].tail, 0);
    lab_end(&l.lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scoped_frame_is_freed_when_its_scope_ends),
        cmocka_unit_test(a_kept_frame_outlives_its_scope),
        cmocka_unit_test(a_guard_of_no_frame_does_nothing),
        cmocka_unit_test(a_charge_counts_all_the_way_up),
        cmocka_unit_test(a_charge_up_to_the_limit_fits),
        cmocka_unit_test(a_refused_charge_counts_nowhere_but_as_a_failure),
        cmocka_unit_test(more_cannot_be_taken_back_than_was_charged),
        cmocka_unit_test(a_limit_that_was_lowered_below_use_refuses),
        cmocka_unit_test(allocations_are_charged_and_frees_taken_back),
        cmocka_unit_test(a_failed_allocation_is_not_charged),
        cmocka_unit_test(a_refused_free_stays_charged),
        cmocka_unit_test(each_frame_has_a_descriptor_of_its_own),
        cmocka_unit_test(without_descriptors_nothing_is_counted),
        cmocka_unit_test(the_last_put_frees_the_block),
        cmocka_unit_test(a_put_too_many_is_refused),
        cmocka_unit_test(references_do_not_overflow),
        cmocka_unit_test(a_new_references_descriptor_is_cleared),
        cmocka_unit_test(no_frame_no_reference),
        cmocka_unit_test(shrink_evicts_the_oldest_first),
        cmocka_unit_test(shrink_looks_at_scan_frames_at_most),
        cmocka_unit_test(a_frame_used_once_is_spared_once),
        cmocka_unit_test(a_frame_used_twice_becomes_active),
        cmocka_unit_test(the_active_list_refills_a_shorter_inactive_one),
        cmocka_unit_test(a_refused_eviction_puts_the_frame_back_as_active),
        cmocka_unit_test(the_kinds_have_lists_of_their_own),
        cmocka_unit_test(a_victim_stays_as_long_as_it_is_looked_at),
        cmocka_unit_test(lru_calls_refuse_what_they_must),
        cmocka_unit_test(frames_are_taken_off_anywhere_in_a_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
