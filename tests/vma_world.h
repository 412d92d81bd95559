/* vma_world.h - a machine of arrays for the tests of mm_vma.h's pages: page tables, frames, files
 * and swap, programs that access their memory through a TLB that forgets only what it is told to (a
 * flush too few shows as wrong content), and a plain array of pages that says what each of them
 * must read. Every hook that can fail does so at the call that w->fail names. */
#ifndef VMA_WORLD_H
#define VMA_WORLD_H

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

enum kind { HOLE, ANON, PRIVATE_FILE, SHARED_FILE, LINEAR };

/* What the model says about a page of a space. */
struct model_page {
    enum kind kind;
    unsigned prot, object,
        index;      /* object: of a file or of shared anonymous memory; linear: the frame */
    uint64_t value; /* private: what stands there; NONE_VALUE: the file's */
    bool locked, dontfork, wipe, grows;
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
    struct mm_vma_config config;
    struct mm_vma_space space[SPACES];
    bool alive[SPACES];
    struct table table[SPACES];
    struct model_page model[SPACES][PAGES];
    struct mm_vma_frame record[FRAMES];
    uint64_t content[FRAMES];
    bool used[FRAMES], told[FRAMES]; /* told: the LRU knows it since it was handed out */
    unsigned in_use, next_frame;     /* the one to be handed out next, if it is free */
    void (*swapping)(void);          /* called while a page is on its way to swap */
    /* files and shared anonymous memory: frames of their pages, once there; references by frame */
    uint64_t object_value[OBJECTS][FILE_PAGES];
    int object_frame[OBJECTS][FILE_PAGES];
    unsigned object_pages[OBJECTS], objects;
    unsigned object_refs[OBJECTS];         /* those of areas */
    bool object_told[OBJECTS][FILE_PAGES]; /* the pager knows that it may be written to */
    unsigned page_refs[FRAMES];
    uint64_t slot_value[SLOTS];
    unsigned slot_refs[SLOTS];
    struct mm_test_rng rng;
    struct mm_test_fail fail; /* of every hook that can fail */
    bool meddle, meddled;     /* a page is written to while it goes to swap */
    bool racing;              /* and a file's page before it loses the right */
    unsigned retries;         /* the pager says "repeat" so many times more */
    uint64_t counts[16];
    long nodes, areas;
};

static struct world *w;

static unsigned below(unsigned n)
{
    return (unsigned)mm_test_below(&w->rng, n);
}

static MM_TEST_UNUSED bool chance(unsigned percent)
{
    return mm_test_chance(&w->rng, percent);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

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

/* Whether a page is a window on a frame that others have, who do not hear of writes through it. */
static bool linear(void *pt, mm_va_t va)
{
    return w->model[(struct table *)pt - w->table][(va >> MM_PAGE_SHIFT) - BASE].kind == LINEAR;
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
    struct pte *e = pte_of(pt, va);
    unsigned f = (unsigned)(e->pa >> MM_PAGE_SHIFT);

    (void)ctx;
    assert_true(e->present);
    if (w->racing && (e->prot & ~prot & MM_VMA_WRITE) != 0 && f < FRAMES && w->page_refs[f] != 0 &&
        !linear(pt, va) && chance(30)) {
        w->content[f] = mm_test_rand(&w->rng) >> 8;
        e->dirty = true;
    }
    e->prot = prot;
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    struct pte *e = pte_of(pt, va);

    (void)ctx;
    if (e->present && (e->prot & MM_VMA_WRITE) != 0 && e->pa < FRAMES * PAGE && !linear(pt, va))
        assert_true(e->dirty ||
                    w->page_refs[e->pa >> MM_PAGE_SHIFT] == 0); /* a write may be lost */
    memset(e, 0, sizeof *e);
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
            assert_false(w->table[s].tlb[p].present && w->table[s].tlb[p].pa == pa &&
                         w->model[s][p].kind != LINEAR);
}

static int frame_take(void)
{
    if (w->next_frame != 0 && !w->used[w->next_frame]) {
        w->used[w->next_frame] = true;
        w->in_use++;
        return (int)w->next_frame;
    }
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
    w->told[f] = false;
    w->content[f] = 0xdeadbeef;
}

static void mapped(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    if (pa >> MM_PAGE_SHIFT < FRAMES)
        w->told[pa >> MM_PAGE_SHIFT] = true;
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
    pa >>= MM_PAGE_SHIFT; /* 0: the zero frame; beyond FRAMES: devices */
    return pa == 0 || pa >= FRAMES ? NULL : &w->record[pa];
}

static unsigned object_of(void *file)
{
    return (unsigned)((uintptr_t)file / 64 - 1);
}

static void *file_of(unsigned object)
{
    return (void *)(uintptr_t)((object + 1) * 64);
}

static void file_get(void *ctx, void *file)
{
    (void)ctx;
    w->object_refs[object_of(file)]++;
}

static void file_put(void *ctx, void *file)
{
    (void)ctx;
    assert_true(w->object_refs[object_of(file)] > 0);
    w->object_refs[object_of(file)]--;
}

static enum mm_status file_page(void *ctx, void *file, uint64_t index, bool write, mm_pa_t *pa)
{
    unsigned o = object_of(file);
    int f;

    (void)ctx;
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
    w->object_told[o][index] |= write;
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
        w->object_told[o][index] = false;
        frame_give(f);
    }
}

static enum mm_status shared(void *ctx, uint64_t pages, void **file)
{
    (void)ctx;
    if (mm_test_fails(&w->fail) || w->objects == OBJECTS)
        return MM_ERR_NOMEM;
    w->object_pages[w->objects] = pages < FILE_PAGES ? (unsigned)pages : FILE_PAGES;
    w->object_refs[w->objects] = 1;
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

            if (w->model[s][p].kind == LINEAR)
                continue;
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
            if (w->swapping != NULL)
                w->swapping();
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

/* ---- the model ------------------------------------------------------------------------------- */

static mm_va_t va_of(unsigned page)
{
    return (mm_va_t)(BASE + page) << MM_PAGE_SHIFT;
}

static uint64_t expected(const struct model_page *m)
{
    if (m->kind == LINEAR)
        return w->content[m->index];
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
                assert_true(w->model[s][p].kind != SHARED_FILE ||
                            w->object_told[w->model[s][p].object][w->model[s][p].index]);
                e->dirty = true;
                w->content[f] = *value;
            } else {
                *value = w->content[f];
            }
            return MM_VMA_FAULT_OK;
        }
        fault = mm_vma_fault(&w->space[s], va_of(p) + below(4096), need);
        w->counts[fault]++;
        if (fault == MM_VMA_FAULT_RETRY)
            continue;
        if (fault != MM_VMA_FAULT_OK)
            return fault;
    }
    return fault == MM_VMA_FAULT_OK ? MM_VMA_FAULT_NOMEM : fault;
}

/* Another CPU's program writes to a page that is on its way to swap, if it alone has it. */
static void meddle(mm_pa_t pa)
{
    for (unsigned s = 0; s < SPACES; s++)
        for (unsigned p = 0; w->alive[s] && p < PAGES; p++) {
            struct model_page *m = &w->model[s][p];
            uint64_t value = mm_test_rand(&w->rng) >> 8;

            if (!w->table[s].page[p].present || w->table[s].page[p].pa != pa || w->meddled ||
                w->record[pa >> MM_PAGE_SHIFT].maps != 1 || (m->prot & MM_VMA_WRITE) == 0 ||
                m->kind == LINEAR) /* a window: the frame's owner does not hear of it */
                continue;
            w->meddled = true;
            assert_int_equal(access_page(s, p, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
            m->value = value;
        }
}

/* ---- what must hold after each step ---------------------------------------------------------- */

static bool count_map(void *ctx, struct mm_vma_space *space, mm_va_t va)
{
    unsigned s = (unsigned)(space - w->space);
    const struct pte *e = pte_of(&w->table[s], va);

    assert_true(w->alive[s]);
    assert_true(e->present && e->pa == *(mm_pa_t *)ctx);
    return true;
}

/* Each area has a reference to its file, and nothing else has. */
static void check_references(void)
{
    static unsigned refs[OBJECTS];
    struct mm_vma_cursor c;

    memset(refs, 0, sizeof refs);
    for (unsigned s = 0; s < SPACES; s++) {
        if (!w->alive[s])
            continue;
        for (const struct mm_vma *vma = mm_vma_cursor_seek(&c, &w->space[s].map, 0); vma != NULL;
             vma = mm_vma_cursor_next(&c))
            if (vma->file != NULL)
                refs[object_of(vma->file)]++;
    }
    for (unsigned o = 0; o < w->objects; o++)
        assert_int_equal(w->object_refs[o], refs[o]);
}

static MM_TEST_UNUSED void check_world(void)
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
        for (unsigned p = 0; va_of(p) < w->config.top; p++) {
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
            assert_int_equal(e->prot & MM_VMA_PROT & ~rights_of(m), 0);
            if (f == 0 || f >= FRAMES || m->kind == LINEAR)
                continue;
            maps[f]++;
            assert_true(w->told[f]);
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
    check_references();
}

/* A world of one empty space with `pages` pages, in a range of PAGES; a trampoline, if it has one,
 * lies behind them. */
static MM_TEST_UNUSED void set_up(bool zero_frame, unsigned pages,
                                  const struct mm_vma_global *global)
{
    struct mm_vma_config *config;
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
    h.mapped = mapped;
    h.file_get = file_get;
    h.file_put = file_put;
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
    if (global != NULL)
        assert_int_equal(mm_vma_system_global(&w->sys, global), MM_OK);
    config = &w->config;
    mm_vma_config_init(config);
    config->low = config->up_base = va_of(0);
    config->top = config->mmap_base = va_of(pages);
    config->guard_pages = 4;
    config->pt = &w->table[0];
    assert_int_equal(mm_vma_space_init(&w->space[0], &w->sys, config), MM_OK);
    w->alive[0] = true;
}

static MM_TEST_UNUSED void tear_down(void)
{
    for (unsigned s = 0; s < SPACES; s++)
        if (w->alive[s])
            assert_true(mm_vma_leave(&w->space[s]));
    assert_int_equal(w->in_use, 0);
    assert_int_equal(w->areas, 0);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(w->slot_refs[i], 0);
    for (unsigned o = 0; o < w->objects; o++)
        assert_int_equal(w->object_refs[o], 0);
    mm_vma_system_fini(&w->sys);
    assert_int_equal(w->nodes, 0);
    free(w);
}

/* Populating and locking give private writable memory of files copies of its own at once, as Linux
 * does: what the file had then stands there from now on. */
static MM_TEST_UNUSED void note_copies(unsigned s)
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

#endif /* VMA_WORLD_H */
