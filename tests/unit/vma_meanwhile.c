/* mm_vma: what other CPUs do while a call waits for a flush. The hook that flushes a space lets
 * another space's call, or an eviction, come in before: TLBs still have what was there. */
#include "vma_world.h"

#define RW (MM_VMA_READ | MM_VMA_WRITE)
#define AT 3u

static void (*meanwhile)(void);
static mm_pa_t frame_seen;
static enum mm_status evicted;

static void flush_late(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    void (*call)(void) = meanwhile;

    if (call != NULL && pt == &w->table[0]) {
        meanwhile = NULL;
        call();
    }
    pt_flush(ctx, pt, va, bytes);
}

/* A page of space 0 that was written to. */
static void page_with(unsigned page, uint64_t value)
{
    struct mm_vma_request r = {0};
    struct model_page *m = &w->model[0][page];
    mm_va_t va;

    r.hint = va_of(page);
    r.bytes = PAGE;
    r.prot = RW;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    assert_int_equal(mm_vma_mmap(&w->space[0], &r, &va), MM_VMA_OK);
    *m = (struct model_page){.kind = ANON, .prot = RW, .value = value};
    assert_int_equal(access_page(0, page, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
}

static void begin(void (*call)(void))
{
    set_up(false, PAGES, NULL);
    page_with(AT, 7);
    frame_seen = w->table[0].page[AT].pa;
    w->sys.hooks.pt_flush = flush_late;
    evicted = MM_ERR_NOENT;
    meanwhile = call;
}

/* The call came, and all is as the model has it. */
static void end(void)
{
    assert_null(meanwhile);
    check_world();
    tear_down();
}

static void fork_it(void)
{
    assert_int_equal(mm_vma_fork(&w->space[1], &w->space[0], &w->table[1]), MM_VMA_OK);
    w->alive[1] = true;
    memcpy(w->model[1], w->model[0], sizeof w->model[0]);
}

static void begin_forked(void (*call)(void))
{
    uint64_t value;

    begin(NULL);
    fork_it();
    for (unsigned s = 0; s < 2; s++) {
        assert_int_equal(access_page(s, AT, MM_VMA_READ, &value), MM_VMA_FAULT_OK);
        assert_int_equal(value, 7);
    }
    meanwhile = call;
}

static void assert_reads(unsigned s, unsigned page, uint64_t wanted)
{
    uint64_t value = 0;

    assert_int_equal(access_page(s, page, MM_VMA_READ, &value), MM_VMA_FAULT_OK);
    assert_int_equal(value, wanted);
}

static void unmap(unsigned s)
{
    memset(&w->model[s][AT], 0, sizeof(struct model_page));
    assert_int_equal(mm_vma_munmap(&w->space[s], va_of(AT), PAGE), MM_VMA_OK);
}

static void other_unmaps(void)
{
    unmap(1);
}

static void evict(void)
{
    evicted = mm_vma_evict(&w->sys, frame_seen);
}

/* The hook frame_free finds out if a TLB still has a frame that goes. */
static void the_last_to_flush_frees_the_frame(void **state)
{
    (void)state;
    begin_forked(other_unmaps);
    unmap(0);
    assert_false(w->used[frame_seen >> MM_PAGE_SHIFT]);
    end();
}

static void no_eviction_before_the_flush(void **state)
{
    (void)state;
    begin_forked(evict);
    unmap(0);
    assert_int_equal(evicted, MM_ERR_BUSY);
    assert_reads(1, AT, 7);
    end();
}

/* Another thread of space 0 reads what its TLB has. */
static uint64_t thread_reads;

static void other_writes(void)
{
    const struct pte *tlb = &w->table[0].tlb[AT];
    uint64_t value = 99;

    assert_int_equal(access_page(1, AT, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
    w->model[1][AT].value = value;
    assert_true(tlb->present);
    thread_reads = w->content[tlb->pa >> MM_PAGE_SHIFT];
}

static void nobody_takes_a_page_over_before_the_flush(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 2; how++) {
        uint64_t value = 8;

        begin_forked(other_writes);
        if (how == 0) {
            unmap(0);
        } else {
            assert_int_equal(access_page(0, AT, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
            w->model[0][AT].value = value;
            assert_reads(0, AT, 8);
        }
        assert_int_equal(thread_reads, 7);
        assert_reads(1, AT, 99);
        end();
    }
}

static void a_moved_page_is_evicted_after_the_flush(void **state)
{
    mm_va_t va;

    (void)state;
    begin(evict);
    w->model[0][10] = w->model[0][AT];
    memset(&w->model[0][AT], 0, sizeof(struct model_page));
    assert_int_equal(mm_vma_mremap(&w->space[0], va_of(AT), PAGE, PAGE,
                                   MM_VMA_REMAP_MAYMOVE | MM_VMA_REMAP_FIXED, va_of(10), &va),
                     MM_VMA_OK);
    assert_int_equal(evicted, MM_ERR_BUSY);
    assert_reads(0, 10, 7);
    end();
}

/* A thread of space 0 writes to the page by its TLB, if that lets it, when the copy is made. */
static enum mm_status swap_out_beside(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    const struct pte *tlb = &w->table[0].tlb[AT];

    (void)ctx;
    for (*slot = 0; w->slot_refs[*slot] != 0;)
        ++*slot;
    w->slot_refs[*slot] = 1;
    w->slot_value[*slot] = w->content[pa >> MM_PAGE_SHIFT];
    if (tlb->present && (tlb->prot & MM_VMA_WRITE) != 0)
        w->content[tlb->pa >> MM_PAGE_SHIFT] = w->model[0][AT].value = 8;
    return MM_OK;
}

static void a_right_that_went_without_a_flush_writes_nothing(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 2; how++) {
        begin(evict);
        w->sys.hooks.swap_out = swap_out_beside;
        if (how == 0) {
            fork_it();
        } else {
            w->model[0][AT].prot = MM_VMA_READ;
            assert_int_equal(mm_vma_mprotect(&w->space[0], va_of(AT), PAGE, MM_VMA_READ),
                             MM_VMA_OK);
        }
        assert_int_equal(evicted, MM_OK);
        assert_reads(0, AT, w->model[0][AT].value);
        end();
    }
}

/* ---- and beside the end of a space ---- */

static struct mm_vma *recycled;
static bool strange;

/* Another space has the area at once; a reader without a lock still looks. */
static void area_recycle(void *ctx, struct mm_vma *area)
{
    struct mm_vma_view view;

    if (recycled != NULL) { /* a spare one */
        area_free(ctx, area);
        return;
    }
    recycled = area;
    area->start = BASE;
    area->end = BASE + PAGES;
    area->file = file_of(1);
    strange |= mm_vma_map_read(&w->space[0].map, va_of(AT), &view) == MM_OK;
}

static void readers_of_a_space_that_ends_see_no_other(void **state)
{
    (void)state;
    begin(NULL);
    mm_vma_get(&w->space[0]);
    recycled = NULL;
    strange = false;
    w->sys.hooks.area_free = area_recycle;
    assert_false(mm_vma_leave(&w->space[0]));
    w->sys.hooks.area_free = area_free;
    assert_non_null(recycled);
    assert_false(strange);
    area_free(NULL, recycled);
    assert_true(mm_vma_put(&w->space[0]));
    w->alive[0] = false;
    memset(w->model, 0, sizeof w->model);
    end();
}

/* ---- reclaim ---- */

static unsigned named;

static mm_pa_t victim(void *ctx)
{
    (void)ctx;
    return named < 30 ? (mm_pa_t)++named * PAGE : MM_PA_NONE;
}

static void all_can_be_reclaimed(void **state)
{
    (void)state;
    begin(NULL);
    for (unsigned i = 0; i < 8; i++) {
        w->next_frame = 20 + i;
        page_with(20 + i, i);
    }
    w->next_frame = 0;
    w->sys.hooks.victim = victim;
    named = frame_seen >> MM_PAGE_SHIFT < 20 ? 19 : 0;
    assert_int_equal(mm_vma_reclaim(&w->sys, UINTPTR_MAX), 8);
    assert_int_equal(named, 30);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_to_flush_frees_the_frame),
        cmocka_unit_test(no_eviction_before_the_flush),
        cmocka_unit_test(nobody_takes_a_page_over_before_the_flush),
        cmocka_unit_test(a_moved_page_is_evicted_after_the_flush),
        cmocka_unit_test(a_right_that_went_without_a_flush_writes_nothing),
        cmocka_unit_test(readers_of_a_space_that_ends_see_no_other),
        cmocka_unit_test(all_can_be_reclaimed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
