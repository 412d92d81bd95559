/* work_area.c - maps of areas: finding, changing, gaps, mmap/munmap/mprotect mixes, walking,
 * copying
 *
 * Areas of 1 to 16 pages. Layout: half of the neighbours touch, the others have gaps of 1 to 16
 * pages between them, and one gap in 1,024 has 32. Objects of 64 bytes lie in random order in
 * memory. */
#include "areas.h"
#include "driver.h"

#include <stdlib.h>
#include <string.h>

extern const struct area_ops bench_vma, baseline_areas_array, baseline_areas_sorted,
    baseline_areas_rbtree, rival_areas_absl, rival_areas_llvm;

const struct area_ops *const bench_area_maps[] = {&bench_vma,
                                                  &baseline_areas_array,
                                                  &baseline_areas_sorted,
                                                  &baseline_areas_rbtree,
#ifdef BENCH_ABSL
                                                  &rival_areas_absl,
#endif
#ifdef BENCH_LLVM
                                                  &rival_areas_llvm,
#endif
                                                  NULL};

#define BATCH 1024
#define FIRST 64u /* page of the first area */

static volatile uint64_t sink;

/* ---- objects --------------------------------------------------------------------------------- */

static struct area *objects;
static struct area **free_objects;
static size_t nobjects, nfree;

static void objects_make(size_t n)
{
    uint64_t rng = 7;

    nobjects = nfree = n;
    objects = aligned_alloc(64, n * sizeof *objects);
    free_objects = malloc(n * sizeof *free_objects);
    memset(objects, 0, n * sizeof *objects);
    for (size_t i = 0; i < n; i++) {
        size_t j = below(next_random(&rng), (uint32_t)(i + 1));

        free_objects[i] = free_objects[j];
        free_objects[j] = &objects[i];
    }
}

static void objects_drop(void)
{
    free(objects);
    free(free_objects);
}

struct area *area_take(void)
{
    return nfree != 0 ? free_objects[--nfree] : NULL;
}

void area_give(struct area *a)
{
    free_objects[nfree++] = a;
}

/* ---- the layout ------------------------------------------------------------------------------ */

struct layout {
    const struct area_ops *ops;
    void *map;
    size_t n;
    struct area **area; /* in ascending order */
    uint64_t end, rng;
};

static void layout_make(struct layout *l, const struct area_row *row, const struct area_ops *ops)
{
    uint64_t page = FIRST;

    objects_make(row->areas * 2 + 64);
    *l = (struct layout){
        ops, ops->create(row->areas), row->areas, malloc(row->areas * sizeof(void *)), 0, 99};
    for (size_t i = 0; i < l->n; i++) {
        struct area *a = area_take();
        uint64_t random = next_random(&l->rng);

        if (i % 1024 == (l->n < 1024 ? l->n / 2 : 512))
            page += 32;
        else if (coin_of(random))
            page += 1 + below(random, 16);
        a->start = page;
        page += 1 + below(next_random(&l->rng), 16);
        a->end = page;
        a->flags = (uint32_t)below(next_random(&l->rng), 8);
        l->area[i] = a;
    }
    l->end = page;
    /* in random order, as they come in a life */
    size_t *order = malloc(l->n * sizeof *order);
    for (size_t i = 0; i < l->n; i++) {
        size_t j = below(next_random(&l->rng), (uint32_t)(i + 1));

        order[i] = order[j];
        order[j] = i;
    }
    if (l->n > 4096 && ops->most <= 65536) /* the sorted array takes quadratic time otherwise */
        for (size_t i = 0; i < l->n; i++)
            order[i] = i;
    for (size_t i = 0; i < l->n; i++)
        ops->insert(l->map, l->area[order[i]]);
    free(order);
}

static void layout_drop(struct layout *l)
{
    l->ops->destroy(l->map);
    free(l->area);
    objects_drop();
}

/* A random area, at a place of its own in the sequence of random numbers. */
static inline struct area *some(struct layout *l)
{
    return l->area[below(next_random(&l->rng), (uint32_t)l->n)];
}

/* ---- workloads ------------------------------------------------------------------------------- */

#define ASK 4096u

/* Pages to look up, chosen beforehand, so that areas are not touched by the choice. */
static uint64_t *pages_to_ask(struct layout *l, bool runs)
{
    uint64_t *page = malloc(ASK * 64 * sizeof *page);

    for (size_t i = 0; i < ASK * 64; i++) {
        const struct area *a = some(l);

        if (runs && i % 64 != 0)
            page[i] = page[i - 1] + 1;
        else
            page[i] = a->start + below(next_random(&l->rng), (uint32_t)(a->end - a->start));
    }
    return page;
}

static void ask(gb_state *st, const struct area_row *row, const struct area_ops *ops, bool runs)
{
    struct layout l;
    uint64_t *page, sum = 0;
    size_t at = 0;

    layout_make(&l, row, ops);
    page = pages_to_ask(&l, runs);
    for (size_t i = 0; i < 2048; i++)
        sum += (uint64_t)ops->flags(l.map, page[i]);
    while (gb_keep_running_batch(st, BATCH)) {
        for (size_t i = 0; i < BATCH; i++)
            sum += (uint64_t)ops->flags(l.map, page[at + i]);
        at = (at + BATCH) % (ASK * 64);
    }
    sink = sum;
    free(page);
    layout_drop(&l);
}

static void a_find(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    ask(st, row, ops, false);
}

static void b_local(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    ask(st, row, ops, true);
}

/* N of 2N slots of 16 pages are live: one is erased, one inserted; each is an operation. */
static void c_insdel(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    size_t n = row->areas, live = n;
    uint64_t rng = 5;
    void *map;
    uint32_t *slot = malloc(2 * n * sizeof *slot);
    struct area **at = malloc(2 * n * sizeof *at);

    objects_make(n + 1);
    map = ops->create(n);
    for (size_t i = 0; i < 2 * n; i++) {
        size_t j = below(next_random(&rng), (uint32_t)(i + 1));

        slot[i] = slot[j];
        slot[j] = (uint32_t)i;
    }
    if (n > 4096 && ops->most <= 65536) /* see layout_make */
        for (size_t i = 0; i < 2 * n; i++)
            slot[i] = (uint32_t)(i < n ? 2 * i : 2 * (i - n) + 1);
    for (size_t i = 0; i < n; i++) {
        struct area *a = at[i] = area_take();

        a->start = FIRST + 16 * (uint64_t)slot[i];
        a->end = a->start + 1 + slot[i] % 16;
        ops->insert(map, a);
    }
    while (gb_keep_running_batch(st, BATCH))
        for (size_t k = 0; k < BATCH / 2; k++) {
            size_t out = below(next_random(&rng), (uint32_t)live);
            size_t in = live + below(next_random(&rng), (uint32_t)(2 * n - live));
            struct area *a = at[out];
            uint32_t s = slot[out];

            ops->erase(map, a);
            slot[out] = slot[in];
            slot[in] = s;
            a->start = FIRST + 16 * (uint64_t)slot[out];
            a->end = a->start + 1 + slot[out] % 16;
            ops->insert(map, a);
        }
    ops->destroy(map);
    free(slot);
    free(at);
    objects_drop();
}

static void gaps(gb_state *st, const struct area_row *row, const struct area_ops *ops, bool up,
                 bool rare)
{
    struct layout l;
    uint64_t *place = malloc(ASK * sizeof *place), sum = 0;
    uint64_t *pages = malloc(ASK * sizeof *pages);
    size_t at = 0;

    layout_make(&l, row, ops);
    for (size_t i = 0; i < ASK; i++) {
        const struct area *a = some(&l);

        place[i] = up ? a->start : a->end;
        pages[i] = rare ? 32 : 1 + below(next_random(&l.rng), 16);
    }
    while (gb_keep_running_batch(st, BATCH)) {
        for (size_t i = at; i < at + BATCH; i++)
            sum += up ? ops->gap_up(l.map, place[i], pages[i])
                      : ops->gap_down(l.map, place[i], pages[i]);
        at = (at + BATCH) % ASK;
    }
    sink = sum;
    free(place);
    free(pages);
    layout_drop(&l);
}

static void d_near_up(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    gaps(st, row, ops, true, false);
}

static void d_near_down(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    gaps(st, row, ops, false, false);
}

static void d_rare_up(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    gaps(st, row, ops, true, true);
}

static void d_rare_down(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    gaps(st, row, ops, false, true);
}

/* ---- whole calls, for maps that have none of their own --------------------------------------- */

static void plain_unmap(const struct area_ops *ops, void *map, uint64_t start, uint64_t end)
{
    for (struct area *a = ops->from(map, start); a != NULL && a->start < end;) {
        if (a->start < start && a->end > end) {
            struct area *b = area_fresh(end, a->end, a->flags);

            ops->resized(map, a, a->start, start);
            ops->insert(map, b);
            return;
        }
        if (a->start < start) {
            ops->resized(map, a, a->start, start);
        } else if (a->end > end) {
            ops->resized(map, a, end, a->end);
            return;
        } else {
            ops->erase(map, a);
            area_give(a);
        }
        a = ops->from(map, start);
    }
}

static void plain_add(const struct area_ops *ops, void *map, uint64_t start, uint64_t end,
                      uint32_t prot)
{
    struct area *prev = ops->from(map, start - 1), *next = ops->from(map, end);

    if (prev != NULL && (prev->end != start || prev->flags != prot))
        prev = NULL;
    if (next != NULL && (next->start != end || next->flags != prot))
        next = NULL;
    if (prev != NULL && next != NULL) {
        end = next->end;
        ops->erase(map, next);
        area_give(next);
        ops->resized(map, prev, prev->start, end);
    } else if (prev != NULL) {
        ops->resized(map, prev, prev->start, end);
    } else if (next != NULL) {
        ops->resized(map, next, start, next->end);
    } else {
        ops->insert(map, area_fresh(start, end, prot));
    }
}

struct calls_on {
    const struct area_ops *ops;
    void *map;
    uint64_t window;
};

static void call_map(struct calls_on *c, uint64_t start, uint64_t pages, uint32_t prot)
{
    if (c->ops->call_map != NULL) {
        (void)c->ops->call_map(c->map, start, pages, prot, c->window);
        return;
    }
    if (start == AREA_NONE)
        start = c->ops->gap_down(c->map, 1 + c->window, pages);
    else
        plain_unmap(c->ops, c->map, start, start + pages);
    if (start != AREA_NONE && start != 0)
        plain_add(c->ops, c->map, start, start + pages, prot);
}

static void call_unmap(struct calls_on *c, uint64_t start, uint64_t pages)
{
    if (c->ops->call_unmap != NULL)
        c->ops->call_unmap(c->map, start, pages);
    else
        plain_unmap(c->ops, c->map, start, start + pages);
}

/* A random part of the area at or behind the page gets other rights. */
static void call_protect(struct calls_on *c, uint64_t page, uint64_t random, uint32_t prot)
{
    uint64_t start = 0, end = 0, from, to;
    struct area *a;

    if (c->ops->call_from != NULL) {
        a = c->ops->call_from(c->map, page, &start, &end);
    } else {
        a = c->ops->from(c->map, page);
        if (a != NULL) {
            start = a->start;
            end = a->end;
        }
    }
    if (a == NULL)
        return;
    from = start + (random >> 8) % (end - start);
    to = from + 1 + (random >> 40) % (end - from);
    if (c->ops->call_protect != NULL) {
        c->ops->call_protect(c->map, from, to - from, prot);
    } else if (a->flags != prot) {
        plain_unmap(c->ops, c->map, from, to);
        plain_add(c->ops, c->map, from, to, prot);
    }
}

/* 30 % mmap at the highest place, 40 % munmap, 30 % mprotect; or 50 % mmap anywhere over what is
 * there, 20 % munmap, 30 % mprotect. */
static void mix_step(struct calls_on *c, uint64_t *rng, bool fixed)
{
    uint64_t random = next_random(rng), more = next_random(rng);
    unsigned dice = below(random, 100), maps = fixed ? 50 : 30, unmaps = fixed ? 70 : 70;
    uint64_t pages = 1 + (more >> 20) % 16;
    uint64_t page = 1 + (uint64_t)(((more >> 32) * (c->window - 16)) >> 32);
    static const uint32_t prots[] = {1, 3, 5};

    if (dice < maps)
        call_map(c, fixed ? page : AREA_NONE, pages, prots[(more >> 26) % 3]);
    else if (dice < unmaps)
        call_unmap(c, page, pages);
    else
        call_protect(c, page, more, prots[(more >> 26) % 3]);
}

static void mix(gb_state *st, const struct area_row *row, const struct area_ops *ops, bool fixed)
{
    uint64_t rng = 3, window = (uint64_t)((double)row->areas / (fixed ? 0.150 : 0.176));
    struct calls_on c = {ops, NULL, window < 64 ? 64 : window};
    uint64_t warm = row->areas * 6 + 1000; /* the number of areas stands within 3 % then */

    objects_make(row->areas * 4 + 256);
    c.map = ops->call_create != NULL ? ops->call_create(row->areas, c.window)
                                     : ops->create(row->areas * 2);
    for (uint64_t i = 0; i < warm; i++)
        mix_step(&c, &rng, fixed);
    while (gb_keep_running_batch(st, BATCH))
        for (size_t i = 0; i < BATCH; i++)
            mix_step(&c, &rng, fixed);
    gb_counter(st, "areas", (double)(nobjects - nfree), GB_PLAIN);
    if (ops->call_destroy != NULL)
        ops->call_destroy(c.map);
    else
        ops->destroy(c.map);
    objects_drop();
}

static void e1_mix_any(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    mix(st, row, ops, false);
}

static void e2_mix_fixed(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    mix(st, row, ops, true);
}

static void f_iter(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    struct layout l;
    uint64_t sum = 0;

    layout_make(&l, row, ops);
    sum += ops->walk(l.map);
    while (gb_keep_running_batch(st, (int64_t)row->areas))
        sum += ops->walk(l.map);
    sink = sum;
    layout_drop(&l);
}

static void g_dup(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    struct layout l;
    struct area *copies = aligned_alloc(64, row->areas * sizeof *copies);

    memset(copies, 0, row->areas * sizeof *copies);
    layout_make(&l, row, ops);
    ops->dup_destroy(ops->dup(l.map, copies));
    while (gb_keep_running_batch(st, (int64_t)row->areas)) {
        void *copy = ops->dup(l.map, copies);

        if (row->areas > 256)
            gb_pause(st);
        ops->dup_destroy(copy);
        if (row->areas > 256)
            gb_resume(st);
    }
    layout_drop(&l);
    free(copies);
}

/* Bytes an area beside its object, shown as if they were nanoseconds. */
static void h_bytes(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    struct layout l;
    double bytes;

    layout_make(&l, row, ops);
    bytes = (double)ops->bytes(l.map) / (double)row->areas;
    while (gb_keep_running_batch(st, 1))
        gb_iteration_time(st, bytes * 1e-9);
    layout_drop(&l);
}

#define SIZES(workload, ops)                                                      \
    {#workload ".16", 16, ops, workload}, {#workload ".256", 256, ops, workload}, \
        {#workload ".1024", 1024, ops, workload},                                 \
        {#workload ".65536", 65536, (ops) / 2, workload},                         \
    {                                                                             \
#workload ".1048576", 1048576, (ops) / 4, workload                        \
    }

const struct area_row area_rows[] = {SIZES(a_find, 1 << 20),
                                     SIZES(b_local, 1 << 20),
                                     SIZES(c_insdel, 1 << 19),
                                     SIZES(d_near_up, 1 << 19),
                                     SIZES(d_near_down, 1 << 19),
                                     SIZES(d_rare_up, 1 << 19),
                                     SIZES(d_rare_down, 1 << 19),
                                     SIZES(e1_mix_any, 1 << 19),
                                     SIZES(e2_mix_fixed, 1 << 19),
                                     SIZES(f_iter, 1 << 22),
                                     SIZES(g_dup, 1 << 22),
                                     SIZES(h_bytes, 4),
#define CALLS(name)                               \
    {                                             \
        "calls." #name, 0, 1 << 18, run_vma_trace \
    }
                                     CALLS(gcc),
                                     CALLS(go),
                                     CALLS(javac),
                                     CALLS(make),
                                     CALLS(node),
                                     CALLS(python3),
                                     CALLS(redis),
                                     CALLS(rustc),
                                     CALLS(sort),
                                     CALLS(sqlite3),
                                     CALLS(xz),
                                     {"fault.zero", 0, 1 << 18, run_vma_faults},
                                     {"fault.cow", 0, 1 << 18, run_vma_faults},
                                     {NULL, 0, 0, NULL}};
