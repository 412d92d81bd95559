/* Faults, copy on write, reverse map, swap and resident counts of mm_vma.h against a plain array of pages.
 * Page tables, frames, files and swap are arrays here, and programs access their memory through a TLB
 * that forgets only what it is told to: a flush too few shows as wrong content. Hooks fail at random; what a
 * failed call must not change is compared afterwards. */
#include "vma_test.h"

#define SPACES     5u
#define PAGES      192u
#define FRAMES     2048u
#define FILES      4u
#define FILE_PAGES 64u
#define SLOTS      4096u
#define OBJECTS    4096u
#define BASE       0x10000u /* page number of a window's first page */
#define NONE_VALUE UINT64_MAX

enum kind { HOLE, ANON, PRIVATE_FILE, SHARED_FILE };

/* What the model says about a page of a space. */
struct model_page {
    enum kind kind;
    unsigned prot, object, index; /* object: of a file or of shared anonymous memory */
    uint64_t value;               /* private: what stands there; NONE_VALUE: the file's */
    bool locked, dontfork, wipe;
};

struct pte {
    bool present, slot;
    unsigned prot;
    bool dirty;
    mm_pa_t pa;
    uint64_t at;
};

struct table {
    struct pte page[PAGES];
    struct pte tlb[PAGES];
};

struct world {
    struct mm_vma_system sys;
    struct mm_vma_space space[SPACES];
    bool alive[SPACES];
    struct table table[SPACES];
    struct model_page model[SPACES][PAGES];
    struct mm_vma_frame record[FRAMES];
    uint64_t content[FRAMES];
    bool used[FRAMES];
    unsigned in_use;
    /* files and shared anonymous memory: frames of their pages, once there; references by frame */
    uint64_t object_value[OBJECTS][FILE_PAGES];
    int object_frame[OBJECTS][FILE_PAGES];
    unsigned object_pages[OBJECTS], objects;
    unsigned page_refs[FRAMES];
    uint64_t slot_value[SLOTS];
    unsigned slot_refs[SLOTS];
    struct mm_test_rng rng;
    struct mm_test_fail fail; /* of every hook that can fail */
    bool meddle, meddled;     /* a page is written to while it goes to swap */
    unsigned retries;         /* the pager says "repeat" so many times more */
    uint64_t counts[16];
    long nodes, areas;
};

static struct world *w;

static unsigned below(unsigned n)
{
    return (unsigned)mm_test_below(&w->rng, n);
}

static bool chance(unsigned percent)
{
    return mm_test_chance(&w->rng, percent);
}

/* ---- hooks ------------------------------------------------------------------------------------ */

static struct mm_vma_node *node_alloc(void *ctx)
{
    (void)ctx;
    if (mm_test_fails(&w->fail))
        return NULL;
    w->nodes++;
    return aligned_alloc(64, sizeof(struct mm_vma_node));
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    w->nodes--;
    free(node);
}

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    if (mm_test_fails(&w->fail))
        return NULL;
    w->areas++;
    return aligned_alloc(64, sizeof(struct mm_vma));
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    w->areas--;
    free(vma);
}

static struct pte *pte_of(void *pt, mm_va_t va)
{
    return &((struct table *)pt)->page[(va >> MM_PAGE_SHIFT) - BASE];
}

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct pte *e = pte_of(pt, va), fresh = {true, false, prot, false, pa, 0};

    (void)ctx;
    if (!e->present && mm_test_fails(&w->fail))
        return MM_ERR_NOMEM;
    *e = fresh;
    return MM_OK;
}

static enum mm_status pt_swap(void *ctx, void *pt, mm_va_t va, uint64_t slot)
{
    struct pte *e = pte_of(pt, va), fresh = {false, true, 0, false, MM_PA_NONE, slot};

    (void)ctx;
    if (!e->present && mm_test_fails(&w->fail))
        return MM_ERR_NOMEM;
    *e = fresh;
    return MM_OK;
}

static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    (void)ctx;
    assert_true(pte_of(pt, va)->present);
    pte_of(pt, va)->prot = prot;
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    (void)ctx;
    memset(pte_of(pt, va), 0, sizeof(struct pte));
}

static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    uint64_t page = va >> MM_PAGE_SHIFT, last = end >> MM_PAGE_SHIFT;

    (void)ctx;
    page = page < BASE ? BASE : page;
    last = last > BASE + PAGES ? BASE + PAGES : last;
    for (; page < last; page++) {
        const struct pte *e = pte_of(pt, page << MM_PAGE_SHIFT);

        if (!e->present && !e->slot)
            continue;
        entry->va = page << MM_PAGE_SHIFT;
        entry->pa = e->present ? e->pa : MM_PA_NONE;
        entry->slot = e->at;
        entry->prot = e->prot;
        entry->dirty = e->dirty;
        return true;
    }
    return false;
}

static void pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    (void)ctx;
    for (uint64_t p = va >> MM_PAGE_SHIFT; p < (va + bytes) >> MM_PAGE_SHIFT; p++)
        memset(&((struct table *)pt)->tlb[p - BASE], 0, sizeof(struct pte));
}

/* No TLB may still know a frame that is given back. */
static void assert_forgotten(mm_pa_t pa)
{
    for (unsigned s = 0; s < SPACES; s++)
        for (unsigned p = 0; w->alive[s] && p < PAGES; p++)
            assert_false(w->table[s].tlb[p].present && w->table[s].tlb[p].pa == pa);
}

static int frame_take(void)
{
    for (unsigned tries = 0; tries < 8 * FRAMES; tries++) {
        unsigned f = 1 + below(FRAMES - 1);

        if (!w->used[f]) {
            w->used[f] = true;
            w->in_use++;
            assert_int_equal(w->record[f].maps, 0);
            return (int)f;
        }
    }
    return -1;
}

static void frame_give(unsigned f)
{
    assert_true(w->used[f]);
    assert_int_equal(w->record[f].maps, 0);
    assert_forgotten((mm_pa_t)f << MM_PAGE_SHIFT);
    w->used[f] = false;
    w->in_use--;
    w->content[f] = 0xdeadbeef;
}

static mm_pa_t frame_alloc(void *ctx, bool zero)
{
    int f;

    (void)ctx;
    if (mm_test_fails(&w->fail))
        return MM_PA_NONE;
    f = frame_take();
    if (f < 0)
        return MM_PA_NONE;
    w->content[f] = zero ? 0 : 0xbad;
    return (mm_pa_t)f << MM_PAGE_SHIFT;
}

static void frame_free(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    frame_give((unsigned)(pa >> MM_PAGE_SHIFT));
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    (void)ctx;
    w->content[to >> MM_PAGE_SHIFT] = w->content[from >> MM_PAGE_SHIFT];
}

static struct mm_vma_frame *frame(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    return pa >> MM_PAGE_SHIFT == 0 ? NULL
                                    : &w->record[pa >> MM_PAGE_SHIFT]; /* 0: the zero frame */
}

static unsigned object_of(void *file)
{
    return (unsigned)((uintptr_t)file / 64 - 1);
}

static void *file_of(unsigned object)
{
    return (void *)(uintptr_t)((object + 1) * 64);
}

static enum mm_status file_page(void *ctx, void *file, uint64_t index, bool write, mm_pa_t *pa)
{
    unsigned o = object_of(file);
    int f;

    (void)ctx;
    (void)write;
    if (mm_test_fails(&w->fail))
        return MM_ERR_NOMEM;
    if (w->retries != 0) {
        w->retries--;
        return MM_ERR_BUSY;
    }
    if (index >= w->object_pages[o])
        return MM_ERR_NOENT;
    f = w->object_frame[o][index];
    if (f == 0) {
        f = frame_take();
        if (f < 0)
            return MM_ERR_NOMEM;
        w->content[f] = w->object_value[o][index];
        w->object_frame[o][index] = f;
    }
    w->page_refs[f]++;
    *pa = (mm_pa_t)f << MM_PAGE_SHIFT;
    return MM_OK;
}

/* The pager drops a page from its cache when nobody maps it. */
static void file_page_put(void *ctx, void *file, uint64_t index, mm_pa_t pa, bool dirty)
{
    unsigned f = (unsigned)(pa >> MM_PAGE_SHIFT), o = object_of(file);

    (void)ctx;
    assert_int_equal(w->object_frame[o][index], f);
    assert_true(w->page_refs[f] > 0);
    if (dirty)
        w->object_value[o][index] = w->content[f];
    if (--w->page_refs[f] == 0) {
        assert_int_equal(w->content[f], w->object_value[o][index]); /* no write was lost */
        w->object_frame[o][index] = 0;
        frame_give(f);
    }
}

static enum mm_status shared(void *ctx, uint64_t pages, void **file)
{
    (void)ctx;
    if (mm_test_fails(&w->fail) || w->objects == OBJECTS)
        return MM_ERR_NOMEM;
    w->object_pages[w->objects] = pages < FILE_PAGES ? (unsigned)pages : FILE_PAGES;
    *file = file_of(w->objects++);
    return MM_OK;
}

static void meddle(mm_pa_t pa);

static enum mm_status swap_out(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    (void)ctx;
    for (unsigned s = 0; s < SPACES; s++) /* nobody can write while the page goes out */
        for (unsigned p = 0; w->alive[s] && p < PAGES; p++) {
            const struct pte *tlb = &w->table[s].tlb[p], *e = &w->table[s].page[p];

            assert_false(tlb->present && tlb->pa == pa && (tlb->prot & MM_VMA_WRITE) != 0);
            assert_false(e->present && e->pa == pa && (e->prot & MM_VMA_WRITE) != 0);
        }
    if (mm_test_fails(&w->fail))
        return MM_ERR_NOMEM;
    for (unsigned i = 0; i < SLOTS; i++)
        if (w->slot_refs[i] == 0) {
            w->slot_refs[i] = 1;
            w->slot_value[i] = w->content[pa >> MM_PAGE_SHIFT];
            *slot = i;
            if (w->meddle)
                meddle(pa);
            return MM_OK;
        }
    return MM_ERR_LIMIT;
}

static enum mm_status swap_in(void *ctx, uint64_t slot, mm_pa_t pa)
{
    (void)ctx;
    assert_true(w->slot_refs[slot] > 0);
    if (mm_test_fails(&w->fail))
        return MM_ERR_NOMEM;
    if (w->retries != 0) {
        w->retries--;
        return MM_ERR_BUSY;
    }
    w->content[pa >> MM_PAGE_SHIFT] = w->slot_value[slot];
    return MM_OK;
}

static void swap_dup(void *ctx, uint64_t slot)
{
    (void)ctx;
    w->slot_refs[slot]++;
}

static void swap_free(void *ctx, uint64_t slot)
{
    (void)ctx;
    assert_true(w->slot_refs[slot] > 0);
    w->slot_refs[slot]--;
}

/* ---- the model ------------------------------------------------------------------------------------ */

static mm_va_t va_of(unsigned page)
{
    return (mm_va_t)(BASE + page) << MM_PAGE_SHIFT;
}

static uint64_t expected(const struct model_page *m)
{
    if (m->kind == SHARED_FILE || m->value == NONE_VALUE) {
        int f = w->object_frame[m->object][m->index];
        return f != 0 ? w->content[f] : w->object_value[m->object][m->index];
    }
    return m->value;
}

/* No machine has pages that can only be written. */
static unsigned rights_of(const struct model_page *m)
{
    return m->prot | ((m->prot & MM_VMA_WRITE) != 0 ? MM_VMA_READ : 0u);
}

/* A program's access: by the TLB, else by the table, else by a fault. */
static enum mm_vma_fault access_page(unsigned s, unsigned p, unsigned need, uint64_t *value)
{
    struct table *t = &w->table[s];
    enum mm_vma_fault fault = MM_VMA_FAULT_OK;

    for (unsigned tries = 0; tries < 8; tries++) {
        struct pte *tlb = &t->tlb[p], *e = &t->page[p];

        if (!(tlb->present && (tlb->prot & need) != 0) && e->present && (e->prot & need) != 0)
            *tlb = *e;
        if (tlb->present && (tlb->prot & need) != 0) {
            unsigned f = (unsigned)(tlb->pa >> MM_PAGE_SHIFT);

            if (need == MM_VMA_WRITE) {
                assert_int_not_equal(f, 0); /* never the zero frame */
                assert_true(e->present && e->pa == tlb->pa && (e->prot & MM_VMA_WRITE) != 0);
                e->dirty = true;
                w->content[f] = *value;
            } else {
                *value = w->content[f];
            }
            return MM_VMA_FAULT_OK;
        }
        fault = mm_vma_fault(&w->space[s], va_of(p) + below(4096), need);
        if (fault == MM_VMA_FAULT_RETRY)
            continue;
        if (fault != MM_VMA_FAULT_OK)
            return fault;
    }
    return fault == MM_VMA_FAULT_OK ? MM_VMA_FAULT_NOMEM : fault;
}

static void step_access(unsigned s)
{
    static const unsigned needs[] = {MM_VMA_READ, MM_VMA_WRITE, MM_VMA_WRITE, MM_VMA_EXEC};
    unsigned p = below(PAGES), need = needs[below(4)];
    struct model_page *m = &w->model[s][p];
    uint64_t value = mm_test_rand(&w->rng) >> 8, wrote = value;
    unsigned rights = rights_of(m);
    enum mm_vma_fault fault = access_page(s, p, need, &value), want = MM_VMA_FAULT_OK;

    if (m->kind == HOLE)
        want = MM_VMA_FAULT_NONE;
    else if ((rights & need) == 0)
        want = need == MM_VMA_READ    ? MM_VMA_FAULT_READ
               : need == MM_VMA_WRITE ? MM_VMA_FAULT_WRITE
                                      : MM_VMA_FAULT_EXEC;
    else if ((m->kind == SHARED_FILE || m->value == NONE_VALUE) &&
             m->index >= w->object_pages[m->object])
        want = MM_VMA_FAULT_BUS;
    w->counts[fault]++;
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

/* Another CPU's program writes to a page that is on its way to swap, if it alone has it. */
static void meddle(mm_pa_t pa)
{
    for (unsigned s = 0; s < SPACES; s++)
        for (unsigned p = 0; w->alive[s] && p < PAGES; p++) {
            struct model_page *m = &w->model[s][p];
            uint64_t value = mm_test_rand(&w->rng) >> 8;

            if (!w->table[s].page[p].present || w->table[s].page[p].pa != pa || w->meddled ||
                w->record[pa >> MM_PAGE_SHIFT].maps != 1 || (m->prot & MM_VMA_WRITE) == 0)
                continue;
            w->meddled = true;
            assert_int_equal(access_page(s, p, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
            m->value = value;
        }
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
    }
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
    int result;

    n = mapped_run(s, p, p + n > PAGES ? PAGES - p : n);
    for (unsigned i = 0; i < n; i++)
        if (w->model[s][p + i].locked)
            n = i;
    if (n == 0)
        return;
    result = mm_vma_madvise(&w->space[s], va_of(p), n * PAGE, MM_VMA_ADV_DONTNEED);
    if (result == MM_VMA_ENOMEM && w->fail.fail_at != 0)
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
        if (which >= 2 && w->model[s][p + i].kind != ANON)
            n = i;
    if (n == 0)
        return;
    result = mm_vma_madvise(&w->space[s], va_of(p), n * PAGE, advices[which]);
    if (result == MM_VMA_ENOMEM && w->fail.fail_at != 0)
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

        clean = clean && m->prot != 0 && (m->kind == ANON || m->index < w->object_pages[m->object]);
    }
    result = lock ? mm_vma_mlock(&w->space[s], va_of(p), n * PAGE)
                  : mm_vma_munlock(&w->space[s], va_of(p), n * PAGE);
    if (w->fail.fail_at != 0 && result == MM_VMA_ENOMEM) {
        struct mm_vma *vma = mm_vma_find(&w->space[s], va_of(p));

        if (((vma->flags & MM_VMA_LOCKED) != 0) != lock || !lock)
            return;
    } else if (clean || !lock) {
        if (!(result == MM_VMA_EAGAIN && retries != 0 && lock) &&
            !(result == MM_VMA_ENOMEM && w->in_use > FRAMES - 16))
            assert_int_equal(result, MM_VMA_OK);
    }
    for (unsigned i = 0; i < n; i++) /* the flag stays, whatever became of the pages */
        w->model[s][p + i].locked = lock;
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

/* ---- what must hold after each step --------------------------------------------------------------- */

static bool count_map(void *ctx, struct mm_vma_space *space, mm_va_t va)
{
    unsigned s = (unsigned)(space - w->space);
    const struct pte *e = pte_of(&w->table[s], va);

    assert_true(w->alive[s]);
    assert_true(e->present && e->pa == *(mm_pa_t *)ctx);
    return true;
}

static void check_world(void)
{
    static unsigned maps[FRAMES], slots[SLOTS];
    uint64_t used = 0;

    memset(maps, 0, sizeof maps);
    memset(slots, 0, sizeof slots);
    for (unsigned s = 0; s < SPACES; s++) {
        struct mm_vma_totals totals;
        uint64_t rss[4] = {0, 0, 0, 0}, total = 0, locked = 0;

        if (!w->alive[s])
            continue;
        assert_int_equal(mm_vma_check(&w->space[s]), MM_OK);
        for (unsigned p = 0; p < PAGES; p++) {
            const struct pte *e = &w->table[s].page[p], *tlb = &w->table[s].tlb[p];
            const struct model_page *m = &w->model[s][p];
            unsigned f = (unsigned)(e->pa >> MM_PAGE_SHIFT);

            total += m->kind != HOLE;
            locked += m->locked;
            if (tlb->present) /* what the TLB knows is still so */
                assert_true(e->present && e->pa == tlb->pa && (tlb->prot & ~e->prot) == 0);
            if (e->slot) {
                slots[e->at]++;
                rss[MM_VMA_RSS_SWAP]++;
            }
            if (!e->present)
                continue;
            assert_int_equal(e->prot & ~rights_of(m), 0);
            if (f == 0)
                continue;
            maps[f]++;
            rss[w->page_refs[f] == 0                           ? MM_VMA_RSS_ANON
                : m->kind == SHARED_FILE && m->object >= FILES ? MM_VMA_RSS_SHMEM
                                                               : MM_VMA_RSS_FILE]++;
        }
        mm_vma_read_totals(&w->space[s], &totals);
        assert_int_equal(totals.total, total);
        assert_int_equal(totals.locked, locked);
        for (unsigned k = 0; k < 4; k++)
            assert_int_equal(totals.rss[k], rss[k]);
    }
    for (unsigned f = 1; f < FRAMES; f++) {
        mm_pa_t pa = (mm_pa_t)f << MM_PAGE_SHIFT;

        assert_int_equal(mm_vma_frame_maps(&w->sys, pa), maps[f]);
        assert_int_equal(mm_vma_frame_walk(&w->sys, pa, count_map, &pa), maps[f]);
        used += w->used[f];
        if (w->used[f])
            assert_true(maps[f] != 0); /* no frame is lost */
        if (w->page_refs[f] != 0)
            assert_int_equal(w->page_refs[f], maps[f]);
    }
    assert_int_equal(used, w->in_use);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(w->slot_refs[i], slots[i]);
}

static void set_up(bool zero_frame)
{
    struct mm_vma_config config;
    struct mm_vma_hooks h;

    w = calloc(1, sizeof *w);
    w->rng = mm_test_rng(mm_test_seed(), zero_frame);
    memset(&h, 0, sizeof h);
    h.nodes.alloc = node_alloc;
    h.nodes.free = node_free;
    h.area_alloc = area_alloc;
    h.area_free = area_free;
    h.pt_map = pt_map;
    h.pt_swap = pt_swap;
    h.pt_protect = pt_protect;
    h.pt_clear = pt_clear;
    h.pt_next = pt_next;
    h.pt_flush = pt_flush;
    h.frame_alloc = frame_alloc;
    h.frame_free = frame_free;
    h.frame_copy = frame_copy;
    h.frame = frame;
    h.file_page = file_page;
    h.file_page_put = file_page_put;
    h.shared = shared;
    h.swap_out = swap_out;
    h.swap_in = swap_in;
    h.swap_dup = swap_dup;
    h.swap_free = swap_free;
    assert_int_equal(mm_vma_system_init(&w->sys, &h), MM_OK);
    if (zero_frame)
        w->sys.zero_frame = 0;
    for (w->objects = 0; w->objects < FILES; w->objects++) {
        w->object_pages[w->objects] = FILE_PAGES - 8;
        for (unsigned i = 0; i < FILE_PAGES; i++)
            w->object_value[w->objects][i] = 1000 * w->objects + i;
    }
    mm_vma_config_init(&config);
    config.low = va_of(0);
    config.top = config.mmap_base = config.up_base = va_of(PAGES);
    config.up_base = config.low;
    config.guard_pages = 4;
    config.pt = &w->table[0];
    assert_int_equal(mm_vma_space_init(&w->space[0], &w->sys, &config), MM_OK);
    w->alive[0] = true;
}

static void tear_down(void)
{
    for (unsigned s = 0; s < SPACES; s++)
        if (w->alive[s])
            assert_true(mm_vma_leave(&w->space[s]));
    assert_int_equal(w->in_use, 0);
    assert_int_equal(w->areas, 0);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(w->slot_refs[i], 0);
    mm_vma_system_fini(&w->sys);
    assert_int_equal(w->nodes, 0);
    free(w);
}

/* Populating and locking give private writable memory of files copies of its own at once, as Linux does: what the
 * file had then stands there from now on. */
static void note_copies(unsigned s)
{
    for (unsigned p = 0; p < PAGES; p++) {
        struct model_page *m = &w->model[s][p];
        const struct pte *e = &w->table[s].page[p];

        if (m->kind != PRIVATE_FILE || m->value != NONE_VALUE || !e->present ||
            w->page_refs[e->pa >> MM_PAGE_SHIFT] != 0)
            continue;
        assert_int_equal(w->content[e->pa >> MM_PAGE_SHIFT], expected(m));
        m->value = expected(m);
    }
}

static void step(void)
{
    unsigned s = below(SPACES), dice = below(100);

    while (!w->alive[s])
        s = below(SPACES);
    w->fail.calls = 0;
    w->fail.fail_at = chance(15) ? 1 + below(6) : 0;
    w->retries = chance(10) ? below(3) : 0;
    if (dice < 50)
        step_access(s);
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

    set_up(zero_frame);
    for (uint64_t op = 0; op < ops; op++) {
        step();
        if (op % 16 == 0)
            check_world();
    }
    check_world();
    for (unsigned k = MM_VMA_FAULT_OK; k <= MM_VMA_FAULT_NOMEM; k++)
        if (k != MM_VMA_FAULT_GUARD)
            assert_true(w->counts[k] != 0 || ops < 1000); /* each kind was seen */
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
