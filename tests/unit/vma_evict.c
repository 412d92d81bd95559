/* Eviction and reclaim of mm_vma.h: each result, and what may happen to a page while its copy is on
 * the way to swap. */
#include "vma_world.h"

#include <semaphore.h>

static const unsigned RW = MM_VMA_READ | MM_VMA_WRITE;

static int build(void **state)
{
    (void)state;
    set_up(false, PAGES, NULL);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    check_world();
    tear_down();
    return 0;
}

/* A page of private memory with a value. */
static void page_with(unsigned page, uint64_t value)
{
    struct mm_vma_request r;
    mm_va_t va;

    memset(&r, 0, sizeof r);
    r.hint = va_of(page);
    r.bytes = PAGE;
    r.prot = RW;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    assert_int_equal(mm_vma_mmap(&w->space[0], &r, &va), MM_VMA_OK);
    w->model[0][page].kind = ANON;
    w->model[0][page].prot = RW;
    w->model[0][page].value = value;
    assert_int_equal(access_page(0, page, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
}

static void reads(unsigned page, uint64_t want)
{
    uint64_t value = 0;

    assert_int_equal(access_page(0, page, MM_VMA_READ, &value), MM_VMA_FAULT_OK);
    assert_int_equal(value, want);
}

static mm_pa_t frame_of(unsigned page)
{
    assert_true(w->table[0].page[page].present);
    return w->table[0].page[page].pa;
}

static void unmap(unsigned page)
{
    assert_int_equal(mm_vma_munmap(&w->space[0], va_of(page), PAGE), MM_VMA_OK);
    memset(&w->model[0][page], 0, sizeof(struct model_page));
}

static void eviction_says_why_not(void **state)
{
    struct mm_vma_hooks h;
    mm_pa_t pa;

    (void)state;
    assert_int_equal(mm_vma_evict(&w->sys, 5 * PAGE), MM_ERR_NOENT);      /* nobody maps it */
    assert_int_equal(mm_vma_evict(&w->sys, FRAMES * PAGE), MM_ERR_NOENT); /* not counted */
    page_with(3, 7);
    pa = frame_of(3);
    assert_int_equal(mm_vma_mlock(&w->space[0], va_of(3), PAGE), MM_VMA_OK);
    w->model[0][3].locked = true;
    assert_int_equal(mm_vma_evict(&w->sys, pa), MM_ERR_PERM);
    assert_int_equal(mm_vma_munlock(&w->space[0], va_of(3), PAGE), MM_VMA_OK);
    w->model[0][3].locked = false;
    for (unsigned i = 0; i < SLOTS; i++)
        w->slot_refs[i]++;
    assert_int_equal(mm_vma_evict(&w->sys, pa), MM_ERR_LIMIT); /* what swap_out said */
    for (unsigned i = 0; i < SLOTS; i++)
        w->slot_refs[i]--;
    h = w->sys.hooks;
    w->sys.hooks.swap_out = NULL;
    assert_int_equal(mm_vma_evict(&w->sys, pa), MM_ERR_INVALID); /* there is no swap */
    w->sys.hooks = h;
    assert_int_equal(frame_of(3), pa);
    reads(3, 7);
    assert_int_equal(mm_vma_evict(&w->sys, pa), MM_OK);
    assert_false(w->table[0].page[3].present);
    reads(3, 7);
}

static mm_pa_t seen;
static enum mm_status nested;

static void evict_again(void)
{
    nested = mm_vma_evict(&w->sys, seen);
}

static void a_page_is_evicted_once_at_a_time(void **state)
{
    (void)state;
    page_with(3, 7);
    seen = frame_of(3);
    w->swapping = evict_again;
    assert_int_equal(mm_vma_evict(&w->sys, seen), MM_OK);
    w->swapping = NULL;
    assert_int_equal(nested, MM_ERR_BUSY);
    reads(3, 7);
}

static void write_again(void)
{
    uint64_t value = 8;

    assert_int_equal(access_page(0, 3, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
}

static void a_write_keeps_the_page(void **state)
{
    (void)state;
    page_with(3, 7);
    w->swapping = write_again;
    assert_int_equal(mm_vma_evict(&w->sys, frame_of(3)), MM_ERR_BUSY);
    w->swapping = NULL;
    w->model[0][3].value = 8;
    reads(3, 8);
}

/* Two evictions overlap: while the first one's copy is on its way, the page goes, its frame becomes
 * another's, and the second one begins with that. The first must not take its stale copy for the
 * new page's. */
static pthread_t other;
static sem_t begun, go_on;
static enum mm_status second;
static unsigned swaps;

static void *evict_other(void *arg)
{
    second = mm_vma_evict(&w->sys, seen);
    return arg;
}

static void overlap(void)
{
    if (swaps++ != 0) { /* the second one's: it waits */
        sem_post(&begun);
        sem_wait(&go_on);
        return;
    }
    unmap(3);
    w->next_frame = (unsigned)(seen >> MM_PAGE_SHIFT);
    page_with(9, 99);
    assert_int_equal(frame_of(9), seen);
    assert_int_equal(pthread_create(&other, NULL, evict_other, NULL), 0);
    sem_wait(&begun);
}

static void a_stale_copy_is_not_taken_for_a_new_page(void **state)
{
    (void)state;
    sem_init(&begun, 0, 0);
    sem_init(&go_on, 0, 0);
    swaps = 0;
    page_with(3, 7);
    seen = frame_of(3);
    w->swapping = overlap;
    assert_int_equal(mm_vma_evict(&w->sys, seen), MM_ERR_BUSY);
    sem_post(&go_on);
    pthread_join(other, NULL);
    w->swapping = NULL;
    w->next_frame = 0;
    assert_int_equal(second, MM_OK); /* nobody has written since */
    reads(9, 99);
}

/* A CPU writes to a file's page just before it loses the right: the file has what it wrote. */
static void a_write_before_eviction_is_kept(void **state)
{
    struct mm_vma_request r;
    mm_va_t va;

    (void)state;
    memset(&r, 0, sizeof r);
    r.hint = va_of(3);
    r.bytes = PAGE;
    r.prot = RW;
    r.flags = MM_VMA_MAP_SHARED | MM_VMA_MAP_FIXED;
    r.file = file_of(1);
    assert_int_equal(mm_vma_mmap(&w->space[0], &r, &va), MM_VMA_OK);
    w->model[0][3].kind = SHARED_FILE;
    w->model[0][3].prot = RW;
    w->model[0][3].object = 1;
    w->racing = true;
    for (unsigned i = 0; i < 40; i++) { /* file_page_put() compares */
        assert_int_equal(mm_vma_fault(&w->space[0], va_of(3), MM_VMA_WRITE), MM_VMA_FAULT_OK);
        assert_int_equal(mm_vma_evict(&w->sys, frame_of(3)), MM_OK);
    }
    w->racing = false;
}

/* The page goes while a writer waits for a frame for its copy. */
static mm_pa_t evict_and_alloc(void *ctx, bool zero)
{
    if (seen != MM_PA_NONE) {
        nested = mm_vma_evict(&w->sys, seen);
        seen = MM_PA_NONE;
    }
    return frame_alloc(ctx, zero);
}

static void a_page_that_goes_before_it_is_copied_comes_back(void **state)
{
    uint64_t value = 8;

    (void)state;
    page_with(3, 7);
    assert_int_equal(mm_vma_fork(&w->space[1], &w->space[0], &w->table[1]), MM_VMA_OK);
    w->alive[1] = true;
    memcpy(w->model[1], w->model[0], sizeof w->model[0]);
    seen = frame_of(3);
    w->sys.hooks.frame_alloc = evict_and_alloc;
    assert_int_equal(mm_vma_fault(&w->space[0], va_of(3), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    w->sys.hooks.frame_alloc = frame_alloc;
    assert_int_equal(nested, MM_OK);
    assert_false(w->table[0].page[3].present);
    assert_int_equal(access_page(0, 3, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
    w->model[0][3].value = 8;
    reads(3, 8);
    assert_int_equal(access_page(1, 3, MM_VMA_READ, &value), MM_VMA_FAULT_OK);
    assert_int_equal(value, 7);
}

static unsigned named;

static mm_pa_t victim(void *ctx)
{
    (void)ctx;
    return named < 30 ? (mm_pa_t)++named * PAGE : MM_PA_NONE;
}

static void reclaim_goes_on_until_enough_or_no_more(void **state)
{
    (void)state;
    assert_int_equal(mm_vma_reclaim(&w->sys, 5), 0); /* no hook names victims */
    w->sys.hooks.victim = victim;
    for (unsigned i = 0; i < 8; i++) {
        w->next_frame = 10 + 2 * i;
        page_with(i, i);
    }
    w->next_frame = 0;
    named = 0;
    assert_int_equal(mm_vma_reclaim(&w->sys, 3), 3);
    assert_int_equal(named, 14); /* frames 10, 12, 14 went */
    assert_int_equal(mm_vma_reclaim(&w->sys, 30), 5);
    assert_int_equal(named, 30);
    named = 0;
    assert_int_equal(mm_vma_reclaim(&w->sys, 1), 0);
    assert_int_equal(named, 20); /* 4 * want + 16 tries */
    for (unsigned i = 0; i < 8; i++)
        reads(i, i);
}

static bool stop_at_once(void *ctx, struct mm_vma_space *space, mm_va_t va)
{
    (void)space, (void)va;
    ++*(unsigned *)ctx;
    return false;
}

static void a_walk_over_maps_stops_when_told(void **state)
{
    unsigned calls = 0;

    (void)state;
    page_with(3, 7);
    w->space[0].user = w;
    for (unsigned s = 1; s < 4; s++) {
        assert_int_equal(mm_vma_fork(&w->space[s], &w->space[0], &w->table[s]), MM_VMA_OK);
        assert_ptr_equal(w->space[s].user, w);
        w->alive[s] = true;
        memcpy(w->model[s], w->model[0], sizeof w->model[0]);
    }
    assert_int_equal(mm_vma_frame_maps(&w->sys, frame_of(3)), 4);
    assert_int_equal(mm_vma_frame_walk(&w->sys, frame_of(3), stop_at_once, &calls), 1);
    assert_int_equal(calls, 1);
    assert_int_equal(mm_vma_frame_walk(&w->sys, FRAMES * PAGE, stop_at_once, &calls), 0);
    assert_int_equal(mm_vma_evict(&w->sys, frame_of(3)),
                     MM_OK); /* out of four tables, into one slot */
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(w->slot_refs[i], i == 0 ? 4 : 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, build, leave)
    const struct CMUnitTest tests[] = {
        T(eviction_says_why_not),
        T(a_page_is_evicted_once_at_a_time),
        T(a_write_keeps_the_page),
        T(a_stale_copy_is_not_taken_for_a_new_page),
        T(a_write_before_eviction_is_kept),
        T(a_page_that_goes_before_it_is_copied_comes_back),
        T(reclaim_goes_on_until_enough_or_no_more),
        T(a_walk_over_maps_stops_when_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
