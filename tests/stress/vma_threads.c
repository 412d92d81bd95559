/* Threads: one writer beside readers without a lock; and faults, fork, exit and eviction at the
 * same time. */
#include "vma_test.h"

/* ---- one writer, readers without a lock ------------------------------------------------------ */

/* Nodes and areas keep their type for ever, as the contract of mm_vma_map_read asks for: what is
 * given back waits in an array and is never written to by the test. */
#define STABLE 4096u
#define WINDOW 512u
#define LOW    0x1000u

struct stable {
    struct mm_vma_node nodes[STABLE];
    struct mm_vma areas[STABLE];
    struct mm_vma_node *node[STABLE];
    struct mm_vma *area[STABLE];
    unsigned nodes_free, areas_free;
    struct mm_vma_system sys;
    struct mm_vma_space space;
    uintptr_t stop;
    uintptr_t seen, busy, holes;
};

static struct mm_vma_node *stable_node(void *ctx)
{
    struct stable *s = ctx;

    return s->nodes_free == 0 ? NULL : s->node[--s->nodes_free];
}

static void stable_node_free(void *ctx, struct mm_vma_node *node)
{
    struct stable *s = ctx;

    s->node[s->nodes_free++] = node;
}

static struct mm_vma *stable_area(void *ctx)
{
    struct stable *s = ctx;

    return s->areas_free == 0 ? NULL : s->area[--s->areas_free];
}

static void stable_area_free(void *ctx, struct mm_vma *vma)
{
    struct stable *s = ctx;

    s->area[s->areas_free++] = vma;
}

/* Every area maps the file page of its own number: whatever is read must agree with itself. */
static uint64_t writer(struct stable *s)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 100);
    uint64_t ops = mm_test_ops() / 10, errors = 0;
    mm_va_t va;

    /* until the readers have seen enough, within bounds; they get a moment between the changes */
    for (uint64_t op = 0; op < ops || (op < 100 * ops && mm_load(&s->seen) < 1000); op++) {
        uint64_t page = LOW + mm_test_below(&rng, WINDOW - 16), n = 1 + mm_test_below(&rng, 16);
        unsigned dice = (unsigned)mm_test_below(&rng, 100);
        struct mm_vma_request r;

        memset(&r, 0, sizeof r);
        r.hint = page * PAGE;
        r.bytes = n * PAGE;
        r.prot = 1 + 2 * (unsigned)mm_test_below(&rng, 2);
        r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_FIXED;
        r.file = s;
        r.offset = r.hint;
        if (dice < 50)
            errors += mm_vma_mmap(&s->space, &r, &va) != MM_VMA_OK;
        else if (dice < 75)
            errors += mm_vma_munmap(&s->space, r.hint, r.bytes) != MM_VMA_OK;
        else
            (void)mm_vma_mprotect(&s->space, r.hint, r.bytes, r.prot);
        for (unsigned spin = 0; spin < 200; spin++)
            MM_CPU_RELAX();
    }
    mm_store_release(&s->stop, 1);
    return errors;
}

static uint64_t reader(struct stable *s, unsigned cpu)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 200 + cpu);
    uintptr_t busy = 0, holes = 0;
    uint64_t errors = 0;

    while (mm_load_acquire(&s->stop) == 0) {
        uint64_t page = LOW + mm_test_below(&rng, WINDOW);
        struct mm_vma_view view;
        enum mm_status status = mm_vma_map_read(&s->space.map, page * PAGE, &view);

        if (status == MM_OK)
            (void)mm_fetch_add(&s->seen, 1);
        busy += status == MM_ERR_BUSY;
        holes += status == MM_ERR_NOENT;
        if (status == MM_OK)
            errors += view.start > page * PAGE || view.end <= page * PAGE ||
                      view.offset * PAGE != view.start || view.file != s ||
                      (view.flags & MM_VMA_READ) == 0;
        else if (status != MM_ERR_BUSY && status != MM_ERR_NOENT)
            errors++;
    }
    (void)mm_fetch_add(&s->busy, busy);
    (void)mm_fetch_add(&s->holes, holes);
    return errors;
}

static uint64_t read_or_write(unsigned cpu, void *arg)
{
    return cpu == 0 ? writer(arg) : reader(arg, cpu);
}

static void readers_need_no_lock(void **state)
{
    struct stable *s = aligned_alloc(64, sizeof *s);
    struct mm_vma_config config;
    struct mm_vma_hooks h;

    (void)state;
    memset(s, 0, sizeof *s);
    memset(&h, 0, sizeof h);
    for (unsigned i = 0; i < STABLE; i++) {
        stable_node_free(s, &s->nodes[i]);
        stable_area_free(s, &s->areas[i]);
    }
    h.ctx = h.nodes.ctx = s;
    h.nodes.alloc = stable_node;
    h.nodes.free = stable_node_free;
    h.area_alloc = stable_area;
    h.area_free = stable_area_free;
    mm_vma_config_init(&config);
    assert_int_equal(mm_vma_system_init(&s->sys, &h), MM_OK);
    assert_int_equal(mm_vma_space_init(&s->space, &s->sys, &config), MM_OK);
    (void)mm_test_seed(); /* printed before the threads ask for it */
    assert_int_equal(mm_test_threads(4, read_or_write, s), 0);
    assert_int_equal(mm_vma_check(&s->space), MM_OK);
    printf("# %lu found, %lu holes, %lu busy\n", (unsigned long)s->seen, (unsigned long)s->holes,
           (unsigned long)s->busy);
    assert_true(s->seen != 0 && s->holes != 0);
    assert_true(mm_vma_leave(&s->space));
    assert_int_equal(s->areas_free, STABLE);
    assert_int_equal(s->nodes_free, STABLE);
    free(s);
}

/* ---- faults, fork, exit, eviction ------------------------------------------------------------ */

#define PAGES  64u
#define FRAMES 256u
#define SLOTS  4096u
#define BASE   0x100u

struct pte {
    bool present, slot;
    unsigned prot;
    mm_pa_t pa;
    uint64_t at;
};

struct table {
    pthread_mutex_t lock;
    struct pte page[PAGES];
};

struct world {
    struct mm_vma_system sys;
    struct mm_vma_space space;
    struct table table;
    pthread_mutex_t lock; /* of what stands below */
    struct mm_vma_frame record[FRAMES];
    uint64_t content[FRAMES];
    unsigned free[FRAMES], nfree;
    uint64_t slot_value[SLOTS];
    unsigned slot_refs[SLOTS];
    uintptr_t running;
    uintptr_t evicted, forks;
    struct mm_test_rng rng;
};

static struct mm_vma_node *world_node(void *ctx)
{
    (void)ctx;
    return aligned_alloc(64, sizeof(struct mm_vma_node));
}

static void world_node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    free(node);
}

static struct mm_vma *world_area(void *ctx)
{
    (void)ctx;
    return aligned_alloc(64, sizeof(struct mm_vma));
}

static void world_area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    free(vma);
}

static void set_pte(void *pt, mm_va_t va, struct pte e)
{
    struct table *t = pt;

    pthread_mutex_lock(&t->lock);
    t->page[(va >> MM_PAGE_SHIFT) - BASE] = e;
    pthread_mutex_unlock(&t->lock);
}

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    (void)ctx;
    set_pte(pt, va, (struct pte){true, false, prot, pa, 0});
    return MM_OK;
}

static enum mm_status pt_swap(void *ctx, void *pt, mm_va_t va, uint64_t slot)
{
    (void)ctx;
    set_pte(pt, va, (struct pte){false, true, 0, MM_PA_NONE, slot});
    return MM_OK;
}

static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    struct table *t = pt;

    (void)ctx;
    pthread_mutex_lock(&t->lock);
    t->page[(va >> MM_PAGE_SHIFT) - BASE].prot = prot;
    pthread_mutex_unlock(&t->lock);
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    (void)ctx;
    set_pte(pt, va, (struct pte){false, false, 0, 0, 0});
}

static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    struct table *t = pt;
    uint64_t page = va >> MM_PAGE_SHIFT, last = end >> MM_PAGE_SHIFT;
    bool found = false;

    (void)ctx;
    pthread_mutex_lock(&t->lock);
    page = page < BASE ? BASE : page;
    last = last > BASE + PAGES ? BASE + PAGES : last;
    for (; page < last && !found; page++) {
        const struct pte *e = &t->page[page - BASE];

        found = e->present || e->slot;
        entry->va = page << MM_PAGE_SHIFT;
        entry->pa = e->present ? e->pa : MM_PA_NONE;
        entry->slot = e->at;
        entry->prot = e->prot;
        entry->dirty = false;
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

static void pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    (void)ctx, (void)pt, (void)va, (void)bytes; /* accesses go by the table itself */
}

static mm_pa_t frame_alloc(void *ctx, bool zero)
{
    struct world *w = ctx;
    mm_pa_t pa = MM_PA_NONE;

    pthread_mutex_lock(&w->lock);
    if (w->nfree != 0) {
        unsigned f = w->free[--w->nfree];

        __atomic_store_n(&w->content[f], zero ? 0 : 0xbad, __ATOMIC_RELAXED);
        pa = (mm_pa_t)f << MM_PAGE_SHIFT;
    }
    pthread_mutex_unlock(&w->lock);
    return pa;
}

static void frame_free(void *ctx, mm_pa_t pa)
{
    struct world *w = ctx;

    pthread_mutex_lock(&w->lock);
    w->free[w->nfree++] = (unsigned)(pa >> MM_PAGE_SHIFT);
    pthread_mutex_unlock(&w->lock);
}

static uint64_t load_content(struct world *w, mm_pa_t pa)
{
    return __atomic_load_n(&w->content[pa >> MM_PAGE_SHIFT], __ATOMIC_RELAXED);
}

static void store_content(struct world *w, mm_pa_t pa, uint64_t value)
{
    __atomic_store_n(&w->content[pa >> MM_PAGE_SHIFT], value, __ATOMIC_RELAXED);
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    store_content(ctx, to, load_content(ctx, from));
}

static struct mm_vma_frame *frame(void *ctx, mm_pa_t pa)
{
    return &((struct world *)ctx)->record[pa >> MM_PAGE_SHIFT];
}

static enum mm_status swap_out(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    struct world *w = ctx;
    enum mm_status status = MM_ERR_LIMIT;

    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < SLOTS && status != MM_OK; i++)
        if (w->slot_refs[i] == 0) {
            w->slot_refs[i] = 1;
            w->slot_value[i] = load_content(w, pa);
            *slot = i;
            status = MM_OK;
        }
    pthread_mutex_unlock(&w->lock);
    return status;
}

static enum mm_status swap_in(void *ctx, uint64_t slot, mm_pa_t pa)
{
    struct world *w = ctx;

    pthread_mutex_lock(&w->lock);
    store_content(w, pa, w->slot_value[slot]);
    pthread_mutex_unlock(&w->lock);
    return MM_OK;
}

static void count_slot(struct world *w, uint64_t slot, unsigned add)
{
    pthread_mutex_lock(&w->lock);
    w->slot_refs[slot] += add;
    pthread_mutex_unlock(&w->lock);
}

static void swap_dup(void *ctx, uint64_t slot)
{
    count_slot(ctx, slot, 1);
}

static void swap_free(void *ctx, uint64_t slot)
{
    count_slot(ctx, slot, 0u - 1u);
}

/* A program's access, atomic towards changes of the table. False: no luck in many tries. */
static bool access_page(struct world *w, struct mm_vma_space *space, struct table *t, unsigned p,
                        unsigned need, uint64_t *value)
{
    for (unsigned tries = 0; tries < 10000; tries++) {
        const struct pte *e = &t->page[p];
        bool done = false;

        pthread_mutex_lock(&t->lock);
        if (e->present && (e->prot & need) != 0) {
            if (need == MM_VMA_WRITE)
                store_content(w, e->pa, *value);
            else
                *value = load_content(w, e->pa);
            done = true;
        }
        pthread_mutex_unlock(&t->lock);
        if (done)
            return true;
        if (mm_vma_fault(space, (mm_va_t)(BASE + p) << MM_PAGE_SHIFT, need) != MM_VMA_FAULT_OK)
            return false;
    }
    return false;
}

/* Writes and reads pages of its own in the shared space. */
static uint64_t toucher(struct world *w, unsigned cpu)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 300 + cpu);
    uint64_t mine[PAGES] = {0}, ops = mm_test_ops() / 10, errors = 0;

    /* until enough has happened beside it, within bounds */
    for (uint64_t op = 0; op < ops || (op < 1000 * ops && mm_load(&w->evicted) < 20); op++) {
        unsigned p = (unsigned)mm_test_below(&rng, PAGES / 2) * 2 + cpu % 2;
        uint64_t value = mm_test_rand(&rng);

        if (mm_test_chance(&rng, 40)) {
            errors += !access_page(w, &w->space, &w->table, p, MM_VMA_WRITE, &value);
            mine[p] = value;
        } else {
            errors +=
                !access_page(w, &w->space, &w->table, p, MM_VMA_READ, &value) || value != mine[p];
        }
    }
    (void)mm_fetch_add(&w->running, (uintptr_t)0 - 1);
    return errors;
}

/* Forks the space, lets the child write to all its pages, sees them again, and exits. */
static uint64_t forker(struct world *w)
{
    struct mm_vma_space *child = aligned_alloc(64, sizeof *child);
    uint64_t errors = 0;

    while (mm_load_acquire(&w->running) != 0) {
        struct table t;

        memset(&t, 0, sizeof t);
        pthread_mutex_init(&t.lock, NULL);
        if (mm_vma_fork(child, &w->space, &t) != MM_VMA_OK) {
            errors++;
            break;
        }
        for (unsigned p = 0; p < PAGES; p += 3) {
            uint64_t value = p + 1000;

            errors += !access_page(w, child, &t, p, MM_VMA_WRITE, &value);
        }
        for (unsigned p = 0; p < PAGES; p += 3) {
            uint64_t value = 0;

            errors += !access_page(w, child, &t, p, MM_VMA_READ, &value) || value != p + 1000;
        }
        errors += !mm_vma_leave(child);
        pthread_mutex_destroy(&t.lock);
        (void)mm_fetch_add(&w->forks, 1);
    }
    free(child);
    return errors;
}

/* The LRU names frames at random. Only the evictor asks. */
static mm_pa_t victim(void *ctx)
{
    struct world *w = ctx;

    return mm_test_below(&w->rng, FRAMES) << MM_PAGE_SHIFT;
}

static uint64_t evictor(struct world *w)
{
    w->rng = mm_test_rng(mm_test_seed(), 400);
    while (mm_load_acquire(&w->running) != 0)
        (void)mm_fetch_add(&w->evicted, mm_vma_reclaim(&w->sys, 2));
    return 0;
}

static uint64_t touch_fork_evict(unsigned cpu, void *arg)
{
    return cpu < 2 ? toucher(arg, cpu) : cpu == 2 ? forker(arg) : evictor(arg);
}

static void faults_beside_fork_and_eviction(void **state)
{
    struct world *w = aligned_alloc(64, sizeof *w);
    struct mm_vma_config config;
    struct mm_vma_hooks h;
    struct mm_vma_request r;
    mm_va_t va;

    (void)state;
    memset(w, 0, sizeof *w);
    memset(&h, 0, sizeof h);
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->table.lock, NULL);
    for (unsigned f = 0; f < FRAMES; f++)
        w->free[w->nfree++] = f;
    h.ctx = w;
    h.nodes.alloc = world_node;
    h.nodes.free = world_node_free;
    h.area_alloc = world_area;
    h.area_free = world_area_free;
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
    h.swap_out = swap_out;
    h.swap_in = swap_in;
    h.swap_dup = swap_dup;
    h.swap_free = swap_free;
    h.victim = victim;
    mm_vma_config_init(&config);
    config.pt = &w->table;
    assert_int_equal(mm_vma_system_init(&w->sys, &h), MM_OK);
    assert_int_equal(mm_vma_space_init(&w->space, &w->sys, &config), MM_OK);
    memset(&r, 0, sizeof r);
    r.hint = (mm_va_t)BASE << MM_PAGE_SHIFT;
    r.bytes = PAGES * PAGE;
    r.prot = MM_VMA_READ | MM_VMA_WRITE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    assert_int_equal(mm_vma_mmap(&w->space, &r, &va), MM_VMA_OK);
    w->running = 2;
    (void)mm_test_seed();
    assert_int_equal(mm_test_threads(4, touch_fork_evict, w), 0);
    printf("# %lu forks, %lu evictions\n", (unsigned long)w->forks, (unsigned long)w->evicted);
    assert_true(w->forks != 0 && w->evicted != 0);
    assert_int_equal(mm_vma_check(&w->space), MM_OK);
    assert_true(mm_vma_leave(&w->space));
    assert_int_equal(w->nfree, FRAMES);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(w->slot_refs[i], 0);
    mm_vma_system_fini(&w->sys);
    free(w);
}

/* ---- every call at the same time ------------------------------------------------------------- */

#define OWN 64u /* pages of each thread, apart from the others' */

struct crowd {
    struct mm_vma_system sys;
    struct mm_vma_space space;
};

static bool count_area(void *ctx, const struct mm_vma *area)
{
    *(uint64_t *)ctx += area->end - area->start;
    return true;
}

static void count_line(void *ctx, const char *line, size_t length)
{
    (void)line;
    *(uint64_t *)ctx += length;
}

/* What looks at, or changes, the whole space: totals, limits, users, references, a child. */
static uint64_t look(struct crowd *c, unsigned which)
{
    struct mm_vma_limits limits = {MM_VMA_UNLIMITED, MM_VMA_UNLIMITED, MM_VMA_UNLIMITED,
                                   which % 2 == 0 ? MM_VMA_UNLIMITED : 1 << 30, MM_VMA_UNLIMITED};
    struct mm_vma_totals totals;
    struct mm_vma_space *child;
    uint64_t sum = 0, errors = 0;

    switch (which % 6) {
    case 0:
        mm_vma_read_totals(&c->space, &totals);
        return totals.total > 6 * OWN || totals.locked > totals.total || totals.areas > 6 * OWN;
    case 1:
        mm_vma_set_limits(&c->space, &limits);
        return 0;
    case 2:
        (void)mm_vma_walk(&c->space, 0, UINT64_MAX, count_area, &sum);
        return sum > 6 * OWN;
    case 3:
        mm_vma_list(&c->space, count_line, &sum);
        return mm_vma_check(&c->space) != MM_OK;
    case 4:
        mm_vma_join(&c->space);
        mm_vma_get(&c->space);
        errors += mm_vma_leave(&c->space);
        return errors + mm_vma_put(&c->space);
    default:
        child = aligned_alloc(64, sizeof *child);
        errors += mm_vma_fork(child, &c->space, NULL) != MM_VMA_OK;
        errors += mm_vma_check(child) != MM_OK || !mm_vma_leave(child);
        free(child);
        return errors;
    }
}

/* Random calls on pages of its own, whose results nobody else can change. */
static uint64_t crowd_calls(unsigned cpu, void *arg)
{
    struct crowd *c = arg;
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 500 + cpu);
    uint64_t base = (BASE + cpu * 2 * OWN) * PAGE, errors = 0, ops = mm_test_ops() / 20;

    for (uint64_t op = 0; op < ops; op++) {
        uint64_t page = mm_test_below(&rng, OWN - 8), n = 1 + mm_test_below(&rng, 8);
        unsigned dice = (unsigned)mm_test_below(&rng, 100);
        mm_va_t at = base + page * PAGE, va;
        struct mm_vma_request r;

        memset(&r, 0, sizeof r);
        r.hint = at;
        r.bytes = n * PAGE;
        r.prot = MM_VMA_READ | MM_VMA_WRITE;
        r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
        r.flags |= dice % 4 == 0 ? MM_VMA_MAP_LOCKED : 0u;
        if (dice < 40) {
            errors += mm_vma_mmap(&c->space, &r, &va) != MM_VMA_OK || va != at;
            errors += mm_vma_fault(&c->space, at, MM_VMA_WRITE) != MM_VMA_FAULT_OK;
            errors += mm_vma_mprotect(&c->space, at, r.bytes, dice % 8) != MM_VMA_OK;
        } else if (dice < 55) {
            errors += mm_vma_munmap(&c->space, at, r.bytes) != MM_VMA_OK;
            errors += mm_vma_mlock(&c->space, at, r.bytes) != MM_VMA_ENOMEM;
        } else if (dice < 65) {
            (void)mm_vma_munlock(&c->space, at, r.bytes);
            (void)mm_vma_madvise(&c->space, at, r.bytes, MM_VMA_ADV_RANDOM);
        } else if (dice < 75) {
            (void)mm_vma_mremap(&c->space, at, r.bytes, r.bytes, 3, at ^ (OWN / 2 * PAGE), &va);
        } else if (dice < 80 && cpu == 0) {
            errors += mm_vma_brk(&c->space, BASE * PAGE / 2 + page) != BASE * PAGE / 2 + page;
        } else if (dice < 90) {
            errors += look(c, (unsigned)op);
        } else {
            errors += mm_vma_fault(&c->space, base + 2 * OWN * PAGE - PAGE, MM_VMA_READ) !=
                      MM_VMA_FAULT_NONE;
        }
    }
    return errors;
}

static void every_call_at_once(void **state)
{
    struct crowd *c = aligned_alloc(64, sizeof *c);
    struct mm_vma_config config;
    struct mm_vma_hooks h;

    (void)state;
    memset(&h, 0, sizeof h);
    h.nodes.alloc = world_node;
    h.nodes.free = world_node_free;
    h.area_alloc = world_area;
    h.area_free = world_area_free;
    mm_vma_config_init(&config);
    config.low = PAGE;
    config.brk = BASE * PAGE / 2;
    assert_int_equal(mm_vma_system_init(&c->sys, &h), MM_OK);
    assert_int_equal(mm_vma_space_init(&c->space, &c->sys, &config), MM_OK);
    (void)mm_test_seed();
    assert_int_equal(mm_test_threads(4, crowd_calls, c), 0);
    assert_int_equal(mm_vma_check(&c->space), MM_OK);
    assert_true(mm_vma_leave(&c->space));
    mm_vma_system_fini(&c->sys);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_need_no_lock),
        cmocka_unit_test(faults_beside_fork_and_eviction),
        cmocka_unit_test(every_call_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
