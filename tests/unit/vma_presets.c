/* Presets and pages that every space has, with page tables below them: which frames stand where,
 * with which rights, and what each kind of access then says. */
#include "vma_world.h"

#define DEVICES ((mm_pa_t)FRAMES * PAGE) /* frames from here on are not counted */

static const unsigned RW = MM_VMA_READ | MM_VMA_WRITE, RX = MM_VMA_READ | MM_VMA_EXEC;
static const struct mm_vma_global trampoline = {(mm_va_t)(BASE + PAGES - 2) << MM_PAGE_SHIFT,
                                                DEVICES + 40 * PAGE, 2 * PAGE,
                                                MM_VMA_READ | MM_VMA_EXEC};

static int build(void **state)
{
    (void)state;
    set_up(false, PAGES - 2, &trampoline);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    check_world();
    tear_down();
    return 0;
}

/* Installs, and tells the model. */
static int install(enum mm_vma_preset preset, unsigned page, unsigned pages, mm_pa_t pa,
                   unsigned prot)
{
    bool linear = preset >= MM_VMA_IDENTITY;
    int result = mm_vma_install(&w->space[0], preset, va_of(page), pages * PAGE, pa, prot);

    for (unsigned i = 0; i < pages && result == MM_VMA_OK; i++) {
        w->model[0][page + i].kind = linear ? LINEAR : ANON;
        w->model[0][page + i].prot = prot != 0 ? prot : preset == MM_VMA_CODE ? RX : RW;
    }
    return result;
}

static enum mm_vma_fault access_at(unsigned s, unsigned page, unsigned need)
{
    uint64_t value = 5;
    enum mm_vma_fault fault = access_page(s, page, need, &value);

    if (fault == MM_VMA_FAULT_OK && need == MM_VMA_WRITE)
        w->model[s][page].value = value;
    return fault;
}

static void entry_is(unsigned s, unsigned page, mm_pa_t pa, unsigned prot)
{
    const struct pte *e = &w->table[s].page[page];

    assert_true(e->present);
    assert_int_equal(e->pa, pa);
    assert_int_equal(e->prot, prot);
}

static void identity_maps_frames_at_their_own_addresses(void **state)
{
    (void)state;
    assert_int_equal(install(MM_VMA_IDENTITY, 10, 3, 12345, 0), MM_VMA_OK);
    for (unsigned p = 10; p < 13; p++)
        entry_is(0, p, va_of(p), RW);
    assert_int_equal(mm_vma_frame_maps(&w->sys, va_of(10)), 0); /* not counted */
    assert_int_equal(mm_vma_fault(&w->space[0], va_of(11), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_fault(&w->space[0], va_of(11), MM_VMA_EXEC), MM_VMA_FAULT_EXEC);
    entry_is(0, 11, va_of(11), RW);
}

static void linear_maps_consecutive_frames(void **state)
{
    (void)state;
    assert_int_equal(install(MM_VMA_LINEAR, 20, 4, DEVICES + 7 * PAGE, MM_VMA_READ), MM_VMA_OK);
    for (unsigned i = 0; i < 4; i++)
        entry_is(0, 20 + i, DEVICES + (7 + i) * PAGE, MM_VMA_READ);
    assert_int_equal(mm_vma_fault(&w->space[0], va_of(20), MM_VMA_WRITE), MM_VMA_FAULT_WRITE);
    /* a part of it goes, the rest keeps its frames */
    assert_int_equal(mm_vma_munmap(&w->space[0], va_of(21), PAGE), MM_VMA_OK);
    memset(&w->model[0][21], 0, sizeof(struct model_page));
    assert_false(w->table[0].page[21].present);
    entry_is(0, 22, DEVICES + 9 * PAGE, MM_VMA_READ);
    assert_int_equal(mm_vma_find(&w->space[0], va_of(22))->offset, FRAMES + 9);
    pt_clear(NULL, &w->table[0], va_of(23)); /* a fault enters what a table has lost */
    assert_int_equal(mm_vma_fault(&w->space[0], va_of(23), MM_VMA_READ), MM_VMA_FAULT_OK);
    entry_is(0, 23, DEVICES + 10 * PAGE, MM_VMA_READ);
}

static void devices_keep_their_memory_type(void **state)
{
    (void)state;
    assert_int_equal(install(MM_VMA_IO, 30, 2, DEVICES, 0), MM_VMA_OK);
    entry_is(0, 31, DEVICES + PAGE, RW | MM_VMA_DEVICE);
    assert_int_equal(mm_vma_mprotect(&w->space[0], va_of(30), 2 * PAGE, MM_VMA_READ), MM_VMA_OK);
    w->model[0][30].prot = w->model[0][31].prot = MM_VMA_READ;
    entry_is(0, 31, DEVICES + PAGE, MM_VMA_READ | MM_VMA_DEVICE);
    assert_int_equal(mm_vma_mprotect(&w->space[0], va_of(30), 2 * PAGE, RW), MM_VMA_OK);
    w->model[0][30].prot = w->model[0][31].prot = RW;
    assert_int_equal(mm_vma_fault(&w->space[0], va_of(31), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    entry_is(0, 31, DEVICES + PAGE, RW | MM_VMA_DEVICE);
    assert_int_equal(mm_vma_mlock(&w->space[0], va_of(30), PAGE), MM_VMA_OK); /* no flag */
    assert_int_equal(mm_vma_find(&w->space[0], va_of(30))->flags & MM_VMA_LOCKED, 0);
}

static void framed_memory_has_all_its_pages_at_once(void **state)
{
    (void)state;
    assert_int_equal(install(MM_VMA_FRAMED, 40, 5, 0, 0), MM_VMA_OK);
    assert_int_equal(w->in_use, 5);
    for (unsigned p = 40; p < 45; p++) {
        mm_pa_t pa = w->table[0].page[p].pa;

        entry_is(0, p, pa, RW);
        assert_int_equal(mm_vma_frame_maps(&w->sys, pa), 1);
        assert_int_equal(w->content[pa >> MM_PAGE_SHIFT], 0);
        for (unsigned q = 40; q < p; q++)
            assert_int_not_equal(w->table[0].page[q].pa, pa);
    }
    assert_int_equal(install(MM_VMA_FRAMED, 42, 1, 0, 0), MM_VMA_EEXIST);
    assert_int_equal(w->in_use, 5);
}

static void code_data_stack_and_heap_come_by_faults(void **state)
{
    (void)state;
    assert_int_equal(install(MM_VMA_CODE, 50, 2, 0, 0), MM_VMA_OK);
    assert_int_equal(install(MM_VMA_DATA, 52, 2, 0, 0), MM_VMA_OK);
    assert_int_equal(install(MM_VMA_STACK, 70, 2, 0, 0), MM_VMA_OK);
    assert_int_equal(install(MM_VMA_HEAP, 80, 2, 0, 0), MM_VMA_OK);
    assert_int_equal(w->in_use, 0);
    assert_int_equal(access_at(0, 50, MM_VMA_EXEC), MM_VMA_FAULT_OK);
    assert_int_equal(access_at(0, 50, MM_VMA_WRITE), MM_VMA_FAULT_WRITE);
    assert_int_equal(access_at(0, 52, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(access_at(0, 52, MM_VMA_EXEC), MM_VMA_FAULT_EXEC);
    assert_int_equal(access_at(0, 68, MM_VMA_WRITE), MM_VMA_FAULT_OK); /* it grew */
    w->model[0][68] = w->model[0][70];
    w->model[0][69] = w->model[0][70];
    w->model[0][68].value = 5;
    assert_int_equal(mm_vma_brk(&w->space[0], va_of(85)), va_of(85));
    for (unsigned p = 82; p < 85; p++)
        w->model[0][p] = w->model[0][80];
    assert_int_equal(access_at(0, 84, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(w->in_use, 4);
}

static void every_space_has_the_trampoline(void **state)
{
    unsigned last = PAGES - 1;
    struct mm_vma_totals t;

    (void)state;
    assert_int_equal(install(MM_VMA_DATA, 10, 4, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_fork(&w->space[1], &w->space[0], &w->table[1]), MM_VMA_OK);
    w->alive[1] = true;
    memcpy(w->model[1], w->model[0], sizeof w->model[0]);
    for (unsigned s = 0; s < 2; s++) {
        entry_is(s, last - 1, trampoline.pa, RX);
        entry_is(s, last, trampoline.pa + PAGE, RX);
        assert_int_equal(mm_vma_fault(&w->space[s], va_of(last), MM_VMA_EXEC), MM_VMA_FAULT_OK);
        assert_int_equal(mm_vma_fault(&w->space[s], va_of(last), MM_VMA_WRITE), MM_VMA_FAULT_WRITE);
        assert_int_equal(mm_vma_munmap(&w->space[s], va_of(last), PAGE), MM_VMA_EINVAL);
        assert_int_equal(mm_vma_mprotect(&w->space[s], va_of(last), PAGE, 1), MM_VMA_ENOMEM);
        assert_int_equal(mm_vma_madvise(&w->space[s], va_of(last), PAGE, MM_VMA_ADV_DONTNEED),
                         MM_VMA_ENOMEM);
        assert_int_equal(mm_vma_mlock(&w->space[s], va_of(last), PAGE), MM_VMA_ENOMEM);
        mm_vma_read_totals(&w->space[s], &t);
        assert_int_equal(t.total, 4); /* it is nobody's memory */
        assert_int_equal(t.areas, 2);
    }
    mm_vma_clear(&w->space[0]);
    memset(w->model[0], 0, sizeof w->model[0]);
    entry_is(0, last, trampoline.pa + PAGE, RX);
    assert_true(mm_vma_leave(&w->space[1]));
    w->alive[1] = false;
    assert_false(w->table[1].page[last].present);
    entry_is(0, last, trampoline.pa + PAGE, RX);
}

static void fork_gives_linear_areas_the_same_frames(void **state)
{
    (void)state;
    assert_int_equal(install(MM_VMA_IO, 30, 2, DEVICES, 0), MM_VMA_OK);
    assert_int_equal(install(MM_VMA_FRAMED, 40, 1, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_fork(&w->space[1], &w->space[0], &w->table[1]), MM_VMA_OK);
    w->alive[1] = true;
    memcpy(w->model[1], w->model[0], sizeof w->model[0]);
    assert_int_equal(mm_vma_fault(&w->space[1], va_of(31), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    entry_is(1, 31, DEVICES + PAGE, RW | MM_VMA_DEVICE);
    entry_is(0, 31, DEVICES + PAGE, RW | MM_VMA_DEVICE); /* no copy on write of devices */
    assert_int_equal(access_at(1, 40, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_not_equal(w->table[0].page[40].pa, w->table[1].page[40].pa);
}

static void presets_have_limits_too(void **state)
{
    struct mm_vma_limits l = {4 * PAGE, 3 * PAGE, 2 * PAGE, PAGE, 3};

    (void)state;
    mm_vma_set_limits(&w->space[0], &l);
    assert_int_equal(install(MM_VMA_DATA, 10, 4, 0, 0), MM_VMA_ENOMEM);
    assert_int_equal(install(MM_VMA_CODE, 10, 5, 0, 0), MM_VMA_ENOMEM);
    assert_int_equal(install(MM_VMA_DATA, 10, 3, 0, 0), MM_VMA_OK);
    assert_int_equal(install(MM_VMA_CODE, 20, 1, 0, 0), MM_VMA_OK);
    l.total = UINT64_MAX;
    mm_vma_set_limits(&w->space[0], &l);
    assert_int_equal(install(MM_VMA_CODE, 30, 1, 0, 0),
                     MM_VMA_ENOMEM); /* areas: the trampoline counts */
    assert_int_equal(install(MM_VMA_DATA, PAGES - 2, 1, 0, 0), MM_VMA_EINVAL); /* at the top */
    assert_int_equal(mm_vma_install(&w->space[0], MM_VMA_DATA, va_of(0) - PAGE, PAGE, 0, 0),
                     MM_VMA_EINVAL);
    assert_int_equal(install(MM_VMA_LINEAR, 40, 2, MM_PA_NONE - PAGE + 1, 0), MM_VMA_EINVAL);
    assert_int_equal(install(MM_VMA_DATA, 40, 1, 0, 8), MM_VMA_EINVAL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, build, leave)
    const struct CMUnitTest tests[] = {
        T(identity_maps_frames_at_their_own_addresses),
        T(linear_maps_consecutive_frames),
        T(devices_keep_their_memory_type),
        T(framed_memory_has_all_its_pages_at_once),
        T(code_data_stack_and_heap_come_by_faults),
        T(every_space_has_the_trampoline),
        T(fork_gives_linear_areas_the_same_frames),
        T(presets_have_limits_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
