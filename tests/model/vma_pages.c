/* Faults, copy on write, reverse map, swap and resident counts of mm_vma.h against a plain array of
 * pages, in a machine of arrays. Hooks fail at random; what a failed call must not change is
 * compared afterwards. */
#include "vma_world.h"

/* The first page above p that is mapped, and the one below; PAGES and -1 if there is none. */
static unsigned next_page(unsigned s, unsigned p)
{
    while (p < PAGES && w->model[s][p].kind == HOLE)
        p++;
    return p;
}

static int page_before(unsigned s, int p)
{
    while (p >= 0 && w->model[s][p].kind == HOLE)
        p--;
    return p;
}

/* What an access to a hole finds: a stack above that may grow, or must not, or nothing. */
static enum mm_vma_fault hole_fault(unsigned s, unsigned p)
{
    unsigned above = next_page(s, p);
    int below = page_before(s, (int)p);
    const struct model_page *b = below < 0 ? NULL : &w->model[s][below];

    if (above == PAGES || !w->model[s][above].grows)
        return MM_VMA_FAULT_NONE;
    return b != NULL && !b->grows && b->prot != 0 && (int)p - below - 1 < (int)w->config.guard_pages
               ? MM_VMA_FAULT_GUARD
               : MM_VMA_FAULT_OK;
}

static void grow(unsigned s, unsigned p)
{
    unsigned above = next_page(s, p);

    for (; p < above; p++) {
        w->model[s][p] = w->model[s][above];
        w->model[s][p].value = 0;
    }
}

static void step_access(unsigned s)
{
    static const unsigned needs[] = {MM_VMA_READ, MM_VMA_WRITE, MM_VMA_WRITE, MM_VMA_EXEC};
    unsigned p = below(PAGES), need = needs[below(4)];
    struct model_page *m = &w->model[s][p];
    uint64_t value = mm_test_rand(&w->rng) >> 8, wrote = value;
    enum mm_vma_fault fault, want = MM_VMA_FAULT_OK;
    unsigned rights;

    if (m->kind == LINEAR && need == MM_VMA_WRITE && (rights_of(m) & need) != 0)
        return; /* the frame may be others' too, who would not hear of it */
    fault = access_page(s, p, need, &value);
    if (m->kind == HOLE) {
        want = hole_fault(s, p);
        if (want == MM_VMA_FAULT_OK && mm_vma_find(&w->space[s], va_of(p)) != NULL)
            grow(s, p); /* before whatever else the access finds */
    }
    rights = rights_of(m);
    if (want == MM_VMA_FAULT_OK && (rights & need) == 0)
        want = need == MM_VMA_READ    ? MM_VMA_FAULT_READ
               : need == MM_VMA_WRITE ? MM_VMA_FAULT_WRITE
                                      : MM_VMA_FAULT_EXEC;
    else if ((m->kind == SHARED_FILE || m->value == NONE_VALUE) && m->kind != LINEAR &&
             m->index >= w->object_pages[m->object])
        want = MM_VMA_FAULT_BUS;
    if (fault == MM_VMA_FAULT_NOMEM && (w->fail.fail_at != 0 || w->in_use > FRAMES - 8))
        return; /* nothing changed: the next accesses tell */
    assert_int_equal(fault, want);
    if (fault != MM_VMA_FAULT_OK)
        return;
    if (need != MM_VMA_WRITE)
        assert_int_equal(value, expected(m));
    else if (m->kind != SHARED_FILE)
        m->value = wrote;
}

static void step_mmap(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(12), object = below(FILES), index = below(FILE_PAGES);
    static const unsigned prots[] = {0, 1, 3, 3, 3, 7, 5, 2};
    struct mm_vma_request r;
    unsigned what = below(10);
    mm_va_t va;
    int result;

    n = p + n > PAGES ? PAGES - p : n;
    memset(&r, 0, sizeof r);
    r.hint = va_of(p);
    r.bytes = n * PAGE;
    r.prot = prots[below(8)];
    r.flags = MM_VMA_MAP_FIXED | (what < 7 ? MM_VMA_MAP_PRIVATE : MM_VMA_MAP_SHARED);
    if (what < 5 || what == 9) {
        r.flags |= MM_VMA_MAP_ANONYMOUS;
    } else {
        r.file = file_of(object);
        r.offset = index * PAGE;
    }
    if (chance(10))
        r.flags |= MM_VMA_MAP_POPULATE;
    if (what < 5 && chance(15))
        r.flags |= MM_VMA_MAP_GROWSDOWN;
    result = mm_vma_mmap(&w->space[s], &r, &va);
    if (result == MM_VMA_ENOMEM && (w->fail.fail_at != 0 || w->objects == OBJECTS))
        return;
    assert_int_equal(result, MM_VMA_OK);
    assert_int_equal(va, va_of(p));
    for (unsigned i = 0; i < n; i++) {
        struct model_page *m = &w->model[s][p + i];

        memset(m, 0, sizeof *m);
        m->kind = what < 5 ? ANON : what < 7 ? PRIVATE_FILE : SHARED_FILE;
        m->prot = r.prot;
        m->object = what == 9 ? w->objects - 1 : object;
        m->index = what == 9 ? i : index + i;
        m->value = what < 5 ? 0 : NONE_VALUE;
        m->grows = (r.flags & MM_VMA_MAP_GROWSDOWN) != 0;
    }
}

/* Frames that others use, seen through a window that may only read. */
static void step_linear(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(6), f = 1 + below(FRAMES - 8);
    int result;

    n = p + n > PAGES ? PAGES - p : n;
    result = mm_vma_install(&w->space[s], MM_VMA_LINEAR, va_of(p), n * PAGE, f * PAGE, MM_VMA_READ);
    if (result == MM_VMA_ENOMEM && w->fail.fail_at != 0)
        return;
    assert_int_equal(result, next_page(s, p) < p + n ? MM_VMA_EEXIST : MM_VMA_OK);
    for (unsigned i = 0; i < n && result == MM_VMA_OK; i++) {
        struct model_page *m = &w->model[s][p + i];

        memset(m, 0, sizeof *m);
        m->kind = LINEAR;
        m->prot = MM_VMA_READ;
        m->index = f + i;
    }
}

/* The file gets shorter or longer: the pages that go are unmapped everywhere, or the pager gives
 * up. Copies stay. */
static void step_truncate(void)
{
    unsigned o = below(FILES), pages = below(FILE_PAGES);

    for (unsigned i = pages; i < FILE_PAGES; i++) {
        mm_pa_t pa = (mm_pa_t)w->object_frame[o][i] << MM_PAGE_SHIFT;

        if (pa != 0 && mm_vma_evict(&w->sys, pa) != MM_OK)
            return; /* locked */
        assert_int_equal(w->object_frame[o][i], 0);
    }
    for (unsigned i = pages; i < FILE_PAGES; i++)
        w->object_value[o][i] = 0;
    w->object_pages[o] = pages;
}

static void step_munmap(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(12);
    int result;

    n = p + n > PAGES ? PAGES - p : n;
    result = mm_vma_munmap(&w->space[s], va_of(p), n * PAGE);
    if (result == MM_VMA_ENOMEM && w->fail.fail_at != 0)
        return;
    assert_int_equal(result, MM_VMA_OK);
    memset(&w->model[s][p], 0, n * sizeof(struct model_page));
}

/* Pages from p on up to the first hole, at most n. */
static unsigned mapped_run(unsigned s, unsigned p, unsigned n)
{
    unsigned i = 0;

    while (i < n && p + i < PAGES && w->model[s][p + i].kind != HOLE)
        i++;
    return i;
}

static void step_mprotect(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(12), prot = below(8), run;
    int result;

    n = p + n > PAGES ? PAGES - p : n;
    run = mapped_run(s, p, n);
    result = mm_vma_mprotect(&w->space[s], va_of(p), n * PAGE, prot);
    if (result == MM_VMA_ENOMEM && run == n && w->fail.fail_at != 0)
        return;
    if (result == MM_VMA_ENOMEM && run != 0 && w->fail.fail_at != 0) {
        bool changed = true; /* a hole, or no memory: all before the hole changed, or nothing */

        for (unsigned i = 0; i < run; i++)
            changed &= (mm_vma_find(&w->space[s], va_of(p + i))->flags & 7) == prot;
        if (!changed)
            return;
    }
    assert_int_equal(result, run == n ? MM_VMA_OK : MM_VMA_ENOMEM);
    for (unsigned i = 0; i < run; i++)
        w->model[s][p + i].prot = prot;
}

static void step_dontneed(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(12);
    bool anonymous = true;
    int result;

    n = mapped_run(s, p, p + n > PAGES ? PAGES - p : n);
    for (unsigned i = 0; i < n; i++) {
        if (w->model[s][p + i].locked || w->model[s][p + i].kind == LINEAR)
            n = i;
        anonymous = anonymous && (i >= n || w->model[s][p + i].kind == ANON);
    }
    if (n == 0)
        return;
    result = mm_vma_madvise(&w->space[s], va_of(p), n * PAGE,
                            anonymous && chance(50) ? MM_VMA_ADV_FREE : MM_VMA_ADV_DONTNEED);
    if (result == MM_VMA_EAGAIN && w->fail.fail_at != 0)
        return;
    assert_int_equal(result, MM_VMA_OK);
    for (unsigned i = 0; i < n; i++) {
        struct model_page *m = &w->model[s][p + i];

        m->value = m->kind == ANON ? 0 : NONE_VALUE;
    }
}

static void step_advise(unsigned s)
{
    static const int advices[] = {MM_VMA_ADV_DONTFORK, MM_VMA_ADV_DOFORK, MM_VMA_ADV_WIPEONFORK,
                                  MM_VMA_ADV_KEEPONFORK};
    unsigned p = below(PAGES), n = 1 + below(12), which = below(4);
    int result;

    n = mapped_run(s, p, p + n > PAGES ? PAGES - p : n);
    for (unsigned i = 0; i < n; i++)
        if (w->model[s][p + i].kind == LINEAR || (which >= 2 && w->model[s][p + i].kind != ANON))
            n = i;
    if (n == 0)
        return;
    result = mm_vma_madvise(&w->space[s], va_of(p), n * PAGE, advices[which]);
    if (result == MM_VMA_EAGAIN && w->fail.fail_at != 0)
        return;
    assert_int_equal(result, MM_VMA_OK);
    for (unsigned i = 0; i < n; i++) {
        if (which < 2)
            w->model[s][p + i].dontfork = which == 0;
        else
            w->model[s][p + i].wipe = which == 2;
    }
}

static void step_mlock(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(6), retries = w->retries;
    bool lock = chance(40), clean = true;
    int result;

    n = mapped_run(s, p, p + n > PAGES ? PAGES - p : n);
    if (n == 0)
        return;
    for (unsigned i = 0; i < n; i++) {
        const struct model_page *m = &w->model[s][p + i];

        clean = clean && m->prot != 0 &&
                (m->kind == ANON || m->kind == LINEAR || m->index < w->object_pages[m->object] ||
                 (m->kind == PRIVATE_FILE && m->value != NONE_VALUE));
    }
    result = lock ? mm_vma_mlock(&w->space[s], va_of(p), n * PAGE)
                  : mm_vma_munlock(&w->space[s], va_of(p), n * PAGE);
    if (w->fail.fail_at != 0 && result == MM_VMA_ENOMEM) { /* some areas may have changed before */
        for (unsigned i = 0; i < n; i++) {
            const struct mm_vma *vma = mm_vma_find(&w->space[s], va_of(p + i));
            const bool now = (vma->flags & MM_VMA_LOCKED) != 0;

            assert_true(now == w->model[s][p + i].locked || now == lock);
            w->model[s][p + i].locked = now;
        }
        return;
    } else if (result == MM_VMA_EAGAIN) { /* pages lack, or the pager is at work */
        assert_true(lock && (retries != 0 || w->fail.fail_at != 0 || w->in_use > FRAMES - 16));
    } else {
        assert_int_equal(result, clean || !lock ? MM_VMA_OK : MM_VMA_ENOMEM);
    }
    for (unsigned i = 0; i < n; i++) /* the flag stays, whatever became of the pages */
        w->model[s][p + i].locked = lock && w->model[s][p + i].kind != LINEAR;
}

/* What comes in meanwhile changes nothing that a program sees. */
static void step_will_need(unsigned s)
{
    unsigned p = below(PAGES), n = 1 + below(12);

    n = p + n > PAGES ? PAGES - p : n;
    if (chance(40) && w->model[s][p].kind != HOLE) /* for a write that does not come (yet) */
        (void)mm_vma_fault(&w->space[s], va_of(p), MM_VMA_WRITE);
    else if (chance(50))
        (void)mm_vma_madvise(&w->space[s], va_of(p), n * PAGE, MM_VMA_ADV_WILLNEED);
    else
        (void)mm_vma_populate(&w->space[s], va_of(p), n * PAGE);
}

/* n pages of one area get another length, in place or elsewhere, or a twin elsewhere that takes
 * their pages. */
static void step_resize(unsigned s)
{
    unsigned old = below(PAGES), n = 1 + below(10), size = 1 + below(12), to;
    bool keep = chance(30);
    const struct mm_vma *vma = mm_vma_find(&w->space[s], va_of(old));
    struct model_page moved[24];
    mm_va_t va;
    int result;

    if (vma == NULL || w->model[s][old].kind == LINEAR)
        return;
    if (n > (mm_vma_end(vma) - va_of(old)) / PAGE)
        n = (unsigned)((mm_vma_end(vma) - va_of(old)) / PAGE);
    size = keep ? n : size;
    result = mm_vma_mremap(&w->space[s], va_of(old), n * PAGE, size * PAGE, keep ? 5 : 1, 0, &va);
    if (result == MM_VMA_ENOMEM) /* no place, or a hook failed: nothing changed */
        return;
    assert_int_equal(result, MM_VMA_OK);
    to = (unsigned)(va / PAGE - BASE);
    memcpy(moved, &w->model[s][old], n * sizeof *moved);
    for (unsigned i = n; i < size; i++) {
        moved[i] = moved[n - 1];
        moved[i].index += i - n + 1;
        moved[i].value = moved[i].kind == ANON ? 0 : NONE_VALUE;
    }
    if (!keep)
        memset(&w->model[s][old], 0, n * sizeof *moved);
    for (unsigned i = 0; i < size; i++) {
        assert_int_equal(w->model[s][to + i].kind, HOLE);
        w->model[s][to + i] = moved[i];
    }
    if (!keep)
        return;
    for (unsigned i = 0; i < n; i++)
        w->model[s][old + i].value = moved[i].kind == ANON ? 0 : NONE_VALUE;
    vma = mm_vma_find(&w->space[s], va_of(old)); /* the whole area is unlocked */
    for (va = mm_vma_start(vma); va < mm_vma_end(vma); va += PAGE)
        w->model[s][va / PAGE - BASE].locked = (vma->flags & MM_VMA_LOCKED) != 0;
}

static void step_mremap(unsigned s)
{
    unsigned old = below(PAGES), n = 1 + below(10), to = below(PAGES);
    struct model_page moved[16];
    mm_va_t va;
    int result;

    if (old + n > PAGES || to + n > PAGES || (to < old + n && old < to + n) ||
        w->model[s][old].kind == HOLE)
        return;
    for (unsigned i = 0; i < n; i++)
        if (w->model[s][old + i].kind == LINEAR)
            return;
    result = mm_vma_mremap(&w->space[s], va_of(old), n * PAGE, n * PAGE,
                           MM_VMA_REMAP_MAYMOVE | MM_VMA_REMAP_FIXED, va_of(to), &va);
    if (result != MM_VMA_OK) {
        assert_int_equal(result, MM_VMA_ENOMEM);
        assert_true(w->fail.fail_at != 0);
        /* the target of an area that could not be moved has gone; those before it moved */
        for (unsigned i = 0; i < n; i++) {
            const struct mm_vma *there = mm_vma_find(&w->space[s], va_of(to + i));
            const struct mm_vma *here = mm_vma_find(&w->space[s], va_of(old + i));

            if (w->model[s][old + i].kind != HOLE && here == NULL) {
                w->model[s][to + i] = w->model[s][old + i];
                memset(&w->model[s][old + i], 0, sizeof(struct model_page));
            } else if (there == NULL) {
                memset(&w->model[s][to + i], 0, sizeof(struct model_page));
            }
        }
        return;
    }
    memcpy(moved, &w->model[s][old], n * sizeof *moved);
    memset(&w->model[s][old], 0, n * sizeof *moved);
    for (unsigned i = 0; i < n; i++)
        if (moved[i].kind != HOLE)
            w->model[s][to + i] = moved[i];
}

static void step_fork(unsigned s)
{
    unsigned child = below(SPACES);
    int result;

    if (w->alive[child]) {
        if (child != s && chance(30)) {
            assert_true(mm_vma_leave(&w->space[child]));
            w->alive[child] = false;
            for (unsigned p = 0; p < PAGES; p++)
                assert_false(w->table[child].page[p].present || w->table[child].page[p].slot);
        } else if (child != s && chance(10)) { /* exec */
            mm_vma_clear(&w->space[child]);
            memset(w->model[child], 0, sizeof w->model[child]);
        }
        return;
    }
    memset(&w->table[child], 0, sizeof w->table[child]);
    result = mm_vma_fork(&w->space[child], &w->space[s], &w->table[child]);
    if (result == MM_VMA_ENOMEM && w->fail.fail_at != 0) {
        for (unsigned p = 0; p < PAGES; p++)
            assert_false(w->table[child].page[p].present || w->table[child].page[p].slot);
        return;
    }
    assert_int_equal(result, MM_VMA_OK);
    w->alive[child] = true;
    memcpy(w->model[child], w->model[s], sizeof w->model[s]);
    for (unsigned p = 0; p < PAGES; p++) {
        struct model_page *m = &w->model[child][p];

        m->locked = false;
        if (m->dontfork)
            memset(m, 0, sizeof *m);
        else if (m->wipe)
            m->value = 0;
    }
}

static void step_evict(void)
{
    unsigned f = 1 + below(FRAMES - 1), maps = (unsigned)w->record[f].maps;
    mm_pa_t pa = (mm_pa_t)f << MM_PAGE_SHIFT;
    bool locked = false;
    enum mm_status status;

    for (unsigned s = 0; s < SPACES; s++)
        for (unsigned p = 0; w->alive[s] && p < PAGES; p++)
            locked |= w->table[s].page[p].present && w->table[s].page[p].pa == pa &&
                      w->model[s][p].locked;
    w->meddle = w->fail.fail_at == 0 && chance(20);
    w->meddled = false;
    status = mm_vma_evict(&w->sys, pa);
    w->meddle = false;
    if (w->meddled) {
        assert_int_equal(status, MM_ERR_BUSY);
        return;
    }
    if (status == MM_ERR_NOMEM && w->fail.fail_at != 0)
        return;
    assert_int_equal(status, maps == 0 ? MM_ERR_NOENT : locked ? MM_ERR_PERM : MM_OK);
    if (status == MM_OK)
        assert_int_equal(w->record[f].maps, 0);
}

static void step(void)
{
    unsigned s = below(SPACES), dice = below(100);

    while (!w->alive[s])
        s = below(SPACES);
    w->fail.calls = 0;
    w->fail.fail_at = chance(15) ? 1 + below(6) : 0;
    w->retries = chance(10) ? below(3) : 0;
    if (dice < 45)
        step_access(s);
    else if (dice < 46)
        step_truncate();
    else if (dice < 48)
        step_will_need(s);
    else if (dice < 50)
        step_resize(s);
    else if (dice < 51)
        step_linear(s);
    else if (dice < 60)
        step_mmap(s);
    else if (dice < 66)
        step_munmap(s);
    else if (dice < 73)
        step_mprotect(s);
    else if (dice < 76)
        step_dontneed(s);
    else if (dice < 79)
        step_advise(s);
    else if (dice < 82)
        step_mlock(s);
    else if (dice < 87)
        step_mremap(s);
    else if (dice < 90)
        step_fork(s);
    else
        step_evict();
    w->fail.fail_at = 0;
    w->retries = 0;
    if (w->alive[s])
        note_copies(s);
}

static void random_worlds(bool zero_frame)
{
    uint64_t ops = mm_test_ops() / 10;

    set_up(zero_frame, PAGES, NULL);
    w->racing = true;
    for (uint64_t op = 0; op < ops; op++) {
        step();
        if (op % 16 == 0)
            check_world();
    }
    check_world();
    for (unsigned k = MM_VMA_FAULT_OK; k <= MM_VMA_FAULT_RETRY; k++)
        assert_true(w->counts[k] != 0 || ops < 5000); /* each kind was seen */
    tear_down();
}

static void random_world(void **state)
{
    (void)state;
    random_worlds(false);
}

static void random_world_with_a_zero_frame(void **state)
{
    (void)state;
    random_worlds(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_world),
        cmocka_unit_test(random_world_with_a_zero_frame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
