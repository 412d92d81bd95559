/* mm_vma.h: each hook that can fail does so at its N-th call, for every N, under every call and
 * every kind of fault: areas, nodes, page tables, frames, pager, swap. The call says that memory
 * lacked and has changed nothing, or what its contract says; each page of each space still reads as
 * the plain array of pages has it. */
#include "vma_world.h"

/* What the pages of the world are. Both spaces have them; the parent wrote what the child reads. */
enum {
    TOUCHED = 0,   /* 8 pages, written to, shared by fork */
    SWAPPED = 8,   /* 2 pages, in swap slots */
    FRESH = 10,    /* 14 pages, never touched */
    COPIED = 30,   /* 4 pages of a file, written to */
    FILED = 34,    /* 8 pages of a file, read */
    COMMON = 46,   /* 4 pages of a file, shared */
    OBJECT = 52,   /* 4 pages of shared anonymous memory */
    STACK = 90,    /* 2 pages that grow down */
    STRIPES = 100, /* single pages with holes between: more than a leaf of them */
    FREE = 180
};

static const unsigned RW = MM_VMA_READ | MM_VMA_WRITE;

static int map(unsigned s, unsigned page, unsigned pages, unsigned flags, unsigned object)
{
    bool anonymous = (flags & MM_VMA_MAP_ANONYMOUS) != 0,
         shared_map = (flags & MM_VMA_MAP_SHARED) != 0;
    struct mm_vma_request r;
    mm_va_t va;
    int result;

    memset(&r, 0, sizeof r);
    r.hint = va_of(page);
    r.bytes = pages * PAGE;
    r.prot = RW;
    r.flags = flags | MM_VMA_MAP_FIXED;
    r.file = anonymous ? NULL : file_of(object);
    result = mm_vma_mmap(&w->space[s], &r, &va);
    for (unsigned i = 0; i < pages && result == MM_VMA_OK; i++) {
        struct model_page *m = &w->model[s][page + i];

        memset(m, 0, sizeof *m);
        m->kind = shared_map ? SHARED_FILE : anonymous ? ANON : PRIVATE_FILE;
        m->prot = RW;
        m->object = anonymous ? w->objects - 1 : object;
        m->index = i;
        m->value = m->kind == ANON ? 0 : NONE_VALUE;
        m->locked = (flags & MM_VMA_MAP_LOCKED) != 0;
    }
    return result;
}

static enum mm_vma_fault touch(unsigned s, unsigned page, unsigned need)
{
    struct model_page *m = &w->model[s][page];
    uint64_t value = 7000 + page;
    enum mm_vma_fault fault = access_page(s, page, need, &value);

    if (fault == MM_VMA_FAULT_OK && need == MM_VMA_WRITE && m->kind != SHARED_FILE)
        m->value = value;
    return fault;
}

static void touch_all(unsigned s, unsigned page, unsigned pages, unsigned need)
{
    for (unsigned i = 0; i < pages; i++)
        assert_int_equal(touch(s, page + i, need), MM_VMA_FAULT_OK);
}

static mm_pa_t frame_at(unsigned s, unsigned page)
{
    assert_true(w->table[s].page[page].present);
    return w->table[s].page[page].pa;
}

/* Nothing is left over that a call could use instead of asking. */
static void drain(void)
{
    for (unsigned s = 0; s < SPACES; s++) {
        struct mm_vma_space *space = &w->space[s];

        if (!w->alive[s])
            continue;
        mm_vma_map_trim(&space->map);
        while (space->spare != NULL)
            area_free(NULL, mmi_vma_spare(space));
    }
    w->sys.pool = NULL; /* the nodes they were cut from are chained elsewhere */
}

static void build(void)
{
    static const unsigned anonymous = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS;

    set_up(false, PAGES, NULL);
    assert_int_equal(map(0, TOUCHED, 24, anonymous, 0), MM_VMA_OK);
    assert_int_equal(map(0, COPIED, 12, MM_VMA_MAP_PRIVATE, 1), MM_VMA_OK);
    assert_int_equal(map(0, COMMON, 4, MM_VMA_MAP_SHARED, 2), MM_VMA_OK);
    assert_int_equal(map(0, OBJECT, 4, MM_VMA_MAP_SHARED | MM_VMA_MAP_ANONYMOUS, 0), MM_VMA_OK);
    assert_int_equal(map(0, STACK, 2, anonymous | MM_VMA_MAP_GROWSDOWN, 0), MM_VMA_OK);
    for (unsigned i = 0; i < 36; i++)
        assert_int_equal(map(0, STRIPES + 2 * i, 1, anonymous, 0), MM_VMA_OK);
    touch_all(0, TOUCHED, 10, MM_VMA_WRITE);
    touch_all(0, COPIED, 4, MM_VMA_WRITE);
    touch_all(0, FILED, 4, MM_VMA_READ);
    touch_all(0, COMMON, 2, MM_VMA_WRITE);
    touch_all(0, OBJECT, 2, MM_VMA_WRITE);
    touch_all(0, STACK, 2, MM_VMA_WRITE);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(mm_vma_evict(&w->sys, frame_at(0, SWAPPED + i)), MM_OK);
    assert_int_equal(mm_vma_fork(&w->space[1], &w->space[0], &w->table[1]), MM_VMA_OK);
    w->alive[1] = true;
    memcpy(w->model[1], w->model[0], sizeof w->model[0]);
    drain();
    check_world();
}

/* ---- the calls: MM_VMA_OK, or that memory lacked --------------------------------------------- */

static int of_fault(enum mm_vma_fault fault)
{
    return fault == MM_VMA_FAULT_OK ? MM_VMA_OK : fault == MM_VMA_FAULT_NOMEM ? MM_VMA_ENOMEM : 1;
}

static int of_status(enum mm_status status)
{
    return status == MM_OK ? MM_VMA_OK : status == MM_ERR_NOMEM ? MM_VMA_ENOMEM : 1;
}

static int read_fresh(void)
{
    return of_fault(touch(0, FRESH, MM_VMA_READ));
}

static int write_fresh(void)
{
    return of_fault(touch(1, FRESH + 1, MM_VMA_WRITE));
}

static int write_shared_by_fork(void)
{
    return of_fault(touch(1, TOUCHED, MM_VMA_WRITE));
}

static int read_file(void)
{
    return of_fault(touch(1, FILED + 6, MM_VMA_READ));
}

static int write_file_copy(void)
{
    return of_fault(touch(1, FILED + 7, MM_VMA_WRITE));
}

static int write_file_page_that_was_read(void)
{
    return of_fault(touch(0, FILED, MM_VMA_WRITE));
}

static int write_shared_file(void)
{
    return of_fault(touch(1, COMMON + 3, MM_VMA_WRITE));
}

static int write_shared_memory(void)
{
    return of_fault(touch(1, OBJECT + 3, MM_VMA_WRITE));
}

static int read_swapped(void)
{
    return of_fault(touch(0, SWAPPED, MM_VMA_READ));
}

static int write_swapped(void)
{
    return of_fault(touch(1, SWAPPED + 1, MM_VMA_WRITE));
}

/* When only the page lacks, the stack has grown. */
static int grow_stack(void)
{
    int result = of_fault(mm_vma_fault(&w->space[0], va_of(STACK - 3), MM_VMA_WRITE));

    if (mm_vma_find(&w->space[0], va_of(STACK - 3)) != NULL)
        for (unsigned p = STACK - 3; p < STACK; p++) {
            w->model[0][p].kind = ANON;
            w->model[0][p].prot = RW;
        }
    return result;
}

static int map_fixed(void)
{
    return map(0, COPIED + 1, 6, MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS, 0);
}

static int map_file(void)
{
    return map(0, FREE, 4, MM_VMA_MAP_PRIVATE, 3);
}

static int map_shared(void)
{
    return map(0, FREE, 4, MM_VMA_MAP_SHARED | MM_VMA_MAP_ANONYMOUS, 0);
}

/* What cannot come at once, comes by faults: once the area is there, the call succeeds. */
static int map_populated(void)
{
    return map(0, FREE, 4, MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_POPULATE, 0);
}

static int map_locked(void)
{
    return map(0, FREE, 4, MM_VMA_MAP_PRIVATE | MM_VMA_MAP_LOCKED, 3);
}

static int unmap_inside(void)
{
    int result = mm_vma_munmap(&w->space[0], va_of(TOUCHED + 2), 2 * PAGE);

    if (result == MM_VMA_OK)
        memset(&w->model[0][TOUCHED + 2], 0, 2 * sizeof(struct model_page));
    return result;
}

static int protect(void)
{
    int result = mm_vma_mprotect(&w->space[0], va_of(TOUCHED + 2), 3 * PAGE, MM_VMA_READ);

    for (unsigned i = 0; i < 3 && result == MM_VMA_OK; i++)
        w->model[0][TOUCHED + 2 + i].prot = MM_VMA_READ;
    return result;
}

static int advise(void)
{
    int result = mm_vma_madvise(&w->space[0], va_of(TOUCHED + 2), 3 * PAGE, MM_VMA_ADV_DONTFORK);

    for (unsigned i = 0; i < 3 && result == MM_VMA_OK; i++)
        w->model[0][TOUCHED + 2 + i].dontfork = true;
    return result == MM_VMA_EAGAIN ? MM_VMA_ENOMEM : result;
}

static int discard(void)
{
    int result = mm_vma_madvise(&w->space[0], va_of(TOUCHED + 2), 3 * PAGE, MM_VMA_ADV_DONTNEED);

    for (unsigned i = 0; i < 3 && result == MM_VMA_OK; i++)
        w->model[0][TOUCHED + 2 + i].value = 0;
    return result == MM_VMA_EAGAIN ? MM_VMA_ENOMEM : result;
}

/* Pages that do not come now, come by faults. */
static int will_need(void)
{
    int result = mm_vma_madvise(&w->space[0], va_of(FILED), 8 * PAGE, MM_VMA_ADV_WILLNEED);

    return result == MM_VMA_EAGAIN ? MM_VMA_ENOMEM : result;
}

/* Rule 5: the flag stays when only pages lack, and the result says so. */
static int lock_pages(void)
{
    int result = mm_vma_mlock(&w->space[0], va_of(SWAPPED), 5 * PAGE);

    for (unsigned i = 0; i < 5; i++) {
        struct model_page *m = &w->model[0][SWAPPED + i];

        m->locked = (mm_vma_find(&w->space[0], va_of(SWAPPED + i))->flags & MM_VMA_LOCKED) != 0;
        assert_int_equal(m->locked, result != MM_VMA_ENOMEM);
    }
    return result == MM_VMA_EAGAIN ? MM_VMA_ENOMEM : result;
}

static int unlock_pages(void)
{
    return mm_vma_munlock(&w->space[0], va_of(SWAPPED), 5 * PAGE);
}

static int populate(void)
{
    return mm_vma_populate(&w->space[1], va_of(SWAPPED), 6 * PAGE);
}

static void model_moves(unsigned from, unsigned to, unsigned pages)
{
    memcpy(&w->model[0][to], &w->model[0][from], pages * sizeof(struct model_page));
    memset(&w->model[0][from], 0, pages * sizeof(struct model_page));
}

/* The middle of the memory that has pages and slots, to where the map is free. */
static int move(void)
{
    mm_va_t va;
    int result = mm_vma_mremap(&w->space[0], va_of(TOUCHED + 6), 6 * PAGE, 7 * PAGE,
                               MM_VMA_REMAP_MAYMOVE, 0, &va);

    if (result == MM_VMA_OK) {
        unsigned to = (unsigned)((va >> MM_PAGE_SHIFT) - BASE);

        model_moves(TOUCHED + 6, to, 6);
        w->model[0][to + 6].kind = ANON;
        w->model[0][to + 6].prot = RW;
    }
    return result;
}

/* What fails for want of page tables has unmapped its target. */
static int move_fixed(void)
{
    mm_va_t va;
    int result = mm_vma_mremap(&w->space[0], va_of(TOUCHED + 6), 6 * PAGE, 6 * PAGE, 3,
                               va_of(COMMON - 2), &va);

    if (result == MM_VMA_OK)
        model_moves(TOUCHED + 6, COMMON - 2, 6);
    else if (mm_vma_find(&w->space[0], va_of(COMMON)) == NULL)
        memset(&w->model[0][COMMON - 2], 0, 6 * sizeof(struct model_page));
    return result;
}

static int move_and_keep(void)
{
    mm_va_t va;
    int result = mm_vma_mremap(&w->space[0], va_of(TOUCHED + 6), 6 * PAGE, 6 * PAGE, 5, 0, &va);

    if (result == MM_VMA_OK) {
        model_moves(TOUCHED + 6, (unsigned)((va >> MM_PAGE_SHIFT) - BASE), 6);
        for (unsigned i = 0; i < 6; i++) {
            w->model[0][TOUCHED + 6 + i].kind = ANON;
            w->model[0][TOUCHED + 6 + i].prot = RW;
        }
    }
    return result;
}

static int grow_in_place(void)
{
    mm_va_t va;
    int result = mm_vma_mremap(&w->space[0], va_of(OBJECT), 4 * PAGE, 8 * PAGE, 0, 0, &va);

    for (unsigned i = 4; i < 8 && result == MM_VMA_OK; i++) {
        w->model[0][OBJECT + i] = w->model[0][OBJECT];
        w->model[0][OBJECT + i].index = i;
    }
    return result;
}

static int shrink(void)
{
    mm_va_t va;
    int result = mm_vma_mremap(&w->space[0], va_of(TOUCHED), 6 * PAGE, 2 * PAGE, 0, 0, &va);

    if (result == MM_VMA_OK)
        memset(&w->model[0][TOUCHED + 2], 0, 4 * sizeof(struct model_page));
    return result;
}

static int fork_again(void)
{
    int result = mm_vma_fork(&w->space[2], &w->space[1], &w->table[2]);

    w->alive[2] = result == MM_VMA_OK;
    if (w->alive[2])
        memcpy(w->model[2], w->model[1], sizeof w->model[1]);
    return result;
}

static int evict_shared_by_fork(void)
{
    return of_status(mm_vma_evict(&w->sys, frame_at(0, TOUCHED + 3)));
}

static int evict_file(void)
{
    return of_status(mm_vma_evict(&w->sys, frame_at(0, FILED)));
}

static int move_break(void)
{
    mm_va_t brk = va_of(FREE) + 5;

    w->space[0].brk_start = w->space[0].brk = va_of(FREE - 4);
    if (mm_vma_brk(&w->space[0], brk) != brk)
        return MM_VMA_ENOMEM;
    for (unsigned p = FREE - 4; p <= FREE; p++) {
        w->model[0][p].kind = ANON;
        w->model[0][p].prot = RW;
    }
    return MM_VMA_OK;
}

static int install(enum mm_vma_preset preset, enum kind kind)
{
    int result =
        mm_vma_install(&w->space[0], preset, va_of(FREE), 4 * PAGE, (mm_pa_t)FRAMES * PAGE, 0);

    for (unsigned i = 0; i < 4 && result == MM_VMA_OK; i++) {
        w->model[0][FREE + i].kind = kind;
        w->model[0][FREE + i].prot = RW;
    }
    return result;
}

static int install_framed(void)
{
    return install(MM_VMA_FRAMED, ANON);
}

static int install_linear(void)
{
    return install(MM_VMA_LINEAR, LINEAR);
}

static int install_data(void)
{
    return install(MM_VMA_DATA, ANON);
}

struct tried {
    const char *name;
    int (*call)(void);
    bool late;  /* it may succeed in spite of the failure */
    bool comes; /* pages that came before it stay */
};

#define TRIED(call, late, comes) \
    {                            \
#call, call, late, comes \
    }

static const struct tried calls[] = {
    TRIED(read_fresh, false, false),
    TRIED(write_fresh, false, false),
    TRIED(write_shared_by_fork, false, false),
    TRIED(read_file, false, false),
    TRIED(write_file_copy, false, false),
    TRIED(write_file_page_that_was_read, false, false),
    TRIED(write_shared_file, false, false),
    TRIED(write_shared_memory, false, false),
    TRIED(read_swapped, false, false),
    TRIED(write_swapped, false, false),
    TRIED(grow_stack, false, false),
    TRIED(map_fixed, false, false),
    TRIED(map_file, false, false),
    TRIED(map_shared, false, false),
    TRIED(map_populated, true, false),
    TRIED(map_locked, true, false),
    TRIED(unmap_inside, false, false),
    TRIED(protect, false, false),
    TRIED(advise, false, false),
    TRIED(discard, false, false),
    TRIED(will_need, true, false),
    TRIED(lock_pages, false, true),
    TRIED(unlock_pages, false, false),
    TRIED(populate, false, true),
    TRIED(move, false, false),
    TRIED(move_fixed, false, false),
    TRIED(move_and_keep, false, false),
    TRIED(grow_in_place, false, false),
    TRIED(shrink, false, false),
    TRIED(fork_again, false, false),
    TRIED(evict_shared_by_fork, false, false),
    TRIED(evict_file, false, false),
    TRIED(move_break, false, false),
    TRIED(install_framed, false, false),
    TRIED(install_linear, false, false),
    TRIED(install_data, false, false),
};

/* ---- what a failure leaves ------------------------------------------------------------------- */

/* The areas are the model's pages, and every page that may be read reads as the model says. */
static void same_as_model(const char *name, uint64_t n)
{
    for (unsigned s = 0; s < SPACES; s++)
        for (unsigned p = 0; w->alive[s] && p < PAGES; p++) {
            const struct model_page *m = &w->model[s][p];
            const struct mm_vma *vma = mm_vma_find(&w->space[s], va_of(p));
            uint64_t value = 0;

            if ((vma == NULL) != (m->kind == HOLE) ||
                (vma != NULL && (vma->flags & MM_VMA_PROT) != m->prot))
                fail_msg("%s, failure %d: page %u of space %u is another", name, (int)n, p, s);
            if (m->kind == HOLE || m->kind == LINEAR)
                continue;
            if (m->value == NONE_VALUE && m->index >= w->object_pages[m->object]) {
                assert_int_equal(access_page(s, p, MM_VMA_READ, &value), MM_VMA_FAULT_BUS);
                continue;
            }
            assert_int_equal(access_page(s, p, MM_VMA_READ, &value), MM_VMA_FAULT_OK);
            if (value != expected(m))
                fail_msg("%s, failure %d: page %u of space %u reads otherwise", name, (int)n, p, s);
        }
    check_world();
}

/* Entries that were there still are, at worst without the right to write, which a fault gives
 * back. */
static void same_entries(const struct table *before, unsigned s)
{
    for (unsigned p = 0; p < PAGES; p++) {
        const struct pte *was = &before->page[p], *is = &w->table[s].page[p];

        if (was->present)
            assert_true(is->present && is->pa == was->pa && (is->prot & ~was->prot) == 0);
        if (was->slot)
            assert_true(is->slot && is->at == was->at);
    }
}

static void fails_at_every_call(const struct tried *t)
{
    for (uint64_t n = 1;; n++) {
        static struct table before[2];
        static struct model_page model[2][PAGES];
        int result;

        build();
        memcpy(before, w->table, sizeof before);
        memcpy(model, w->model, sizeof model);
        w->fail = (struct mm_test_fail){0, n};
        result = t->call();
        w->fail.fail_at = 0;
        if (w->fail.calls < n) {
            if (result != MM_VMA_OK)
                fail_msg("%s fails by itself: %d", t->name, result);
            note_copies(0);
            note_copies(1);
            same_as_model(t->name, 0);
            tear_down();
            assert_true(n > 1 || t->call == evict_file); /* some hook was asked */
            return;
        }
        if (result != MM_VMA_ENOMEM && !(t->late && result == MM_VMA_OK))
            fail_msg("%s, failure %d: the result is %d", t->name, (int)n, result);
        if (!t->comes && memcmp(model, w->model, sizeof model) == 0) {
            same_entries(&before[0], 0);
            same_entries(&before[1], 1);
        }
        note_copies(0);
        note_copies(1);
        same_as_model(t->name, n);
        tear_down(); /* nothing was lost */
    }
}

static void a_failure_changes_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++)
        fails_at_every_call(&calls[i]);
}

/* A space whose trampoline cannot be mapped is raw memory again. */
static void a_space_is_made_whole_or_not_at_all(void **state)
{
    const struct mm_vma_global global = {va_of(PAGES - 2), (mm_pa_t)FRAMES * PAGE, 2 * PAGE,
                                         MM_VMA_READ | MM_VMA_EXEC};
    uint64_t n;

    (void)state;
    for (n = 1;; n++) {
        struct mm_vma_config config;
        enum mm_status status;
        long nodes, areas;

        set_up(false, PAGES - 2, &global);
        config = w->config;
        config.pt = &w->table[1];
        nodes = w->nodes;
        areas = w->areas;
        w->fail = (struct mm_test_fail){0, n};
        status = mm_vma_space_init(&w->space[1], &w->sys, &config);
        w->fail.fail_at = 0;
        if (w->fail.calls < n) {
            assert_int_equal(status, MM_OK);
            w->alive[1] = true;
            tear_down();
            break;
        }
        assert_int_equal(status, MM_ERR_NOMEM);
        assert_int_equal(w->nodes, nodes);
        assert_int_equal(w->areas, areas);
        for (unsigned p = 0; p < PAGES; p++)
            assert_false(w->table[1].page[p].present);
        tear_down();
    }
    assert_true(n > 4); /* an area, a node, two entries */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_changes_nothing),
        cmocka_unit_test(a_space_is_made_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
