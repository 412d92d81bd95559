/* work_vma.c - rows that only mm_vma.h has: recorded memory calls of programs, and faults over a
 * plain frame source */
#include "areas.h"
#include "vma_trace.h"

#include "mm_vma.h"

#include <stdlib.h>
#include <string.h>

/* ---- what spaces need: nodes and areas from free lists --------------------------------------- */

struct list {
    void *free;
    size_t size;
};

static void *list_take(struct list *l)
{
    void *p = l->free;

    if (p == NULL)
        return aligned_alloc(64, l->size);
    memcpy(&l->free, p, sizeof p);
    return p;
}

static void list_give(struct list *l, void *p)
{
    memcpy(p, &l->free, sizeof p);
    l->free = p;
}

static struct list nodes = {NULL, sizeof(struct mm_vma_node)},
                   areas = {NULL, sizeof(struct mm_vma)};

static struct mm_vma_node *node_alloc(void *ctx)
{
    (void)ctx;
    return list_take(&nodes);
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    list_give(&nodes, node);
}

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    return list_take(&areas);
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    list_give(&areas, vma);
}

static enum mm_status shared_new(void *ctx, uint64_t pages, void **file)
{
    static uintptr_t next = 0x1000000;

    (void)ctx;
    (void)pages;
    *file = (void *)next++;
    return MM_OK;
}

static void base_hooks(struct mm_vma_hooks *h)
{
    memset(h, 0, sizeof *h);
    h->nodes.alloc = node_alloc;
    h->nodes.free = node_free;
    h->area_alloc = area_alloc;
    h->area_free = area_free;
    h->shared = shared_new;
}

/* ---- recorded calls -------------------------------------------------------------------------- */

struct replay {
    struct mm_vma_system sys;
    struct mm_vma_space **space; /* of each process */
    bool *brk_known;
};

static struct mm_vma_space *space_new(struct replay *r)
{
    struct mm_vma_space *space = aligned_alloc(64, sizeof *space);
    struct mm_vma_config config;

    mm_vma_config_init(&config);
    if (mm_vma_space_init(space, &r->sys, &config) != MM_OK)
        abort();
    return space;
}

static void space_leave(struct replay *r, unsigned p)
{
    if (r->space[p] != NULL && mm_vma_leave(r->space[p]))
        free(r->space[p]);
    r->space[p] = NULL;
    r->brk_known[p] = false;
}

/* Places that the kernel chose are hints here. */
static void replay_mmap(struct mm_vma_space *space, const struct vma_op *op, uint64_t at,
                        uint64_t bytes, unsigned flags)
{
    struct mm_vma_request q;
    mm_va_t va;

    memset(&q, 0, sizeof q);
    q.hint = at;
    q.bytes = bytes;
    q.prot = op->prot & 7;
    q.flags = flags;
    q.file = (void *)(uintptr_t)op->file;
    q.offset = op->arg[4];
    (void)mm_vma_mmap(space, &q, &va);
}

static void replay_fork(struct replay *r, const struct vma_op *op)
{
    struct mm_vma_space *parent = r->space[op->process];

    r->brk_known[op->child] = r->brk_known[op->process];
    r->space[op->child] = parent;
    if (op->call == VMA_VFORK) {
        mm_vma_join(parent);
        return;
    }
    r->space[op->child] = aligned_alloc(64, sizeof *parent);
    if (mm_vma_fork(r->space[op->child], parent, NULL) != MM_VMA_OK)
        abort();
}

static void replay_brk(struct replay *r, const struct vma_op *op)
{
    struct mm_vma_space *space = r->space[op->process];

    if (!r->brk_known[op->process])
        space->brk_start = space->brk = (mm_va_t)op->result;
    r->brk_known[op->process] = true;
    (void)mm_vma_brk(space, op->arg[0]);
}

static void replay_one(struct replay *r, const struct vma_op *op)
{
    struct mm_vma_space *space = r->space[op->process];
    mm_va_t va;

    switch (op->call) {
    case VMA_MMAP:
        replay_mmap(space, op, op->result > 0 ? (uint64_t)op->result : op->arg[0], op->arg[1],
                    op->flags);
        return;
    case VMA_SHMAT:
        replay_mmap(space, op, (uint64_t)op->result, op->arg[1], 0x31);
        return;
    case VMA_MUNMAP:
        (void)mm_vma_munmap(space, op->arg[0], op->arg[1]);
        return;
    case VMA_MPROTECT:
        (void)mm_vma_mprotect(space, op->arg[0], op->arg[1], op->prot);
        return;
    case VMA_MREMAP:
        (void)mm_vma_mremap(space, op->arg[0], op->arg[1], op->arg[2],
                            (uint64_t)op->result == op->arg[0] ? 1 : 3, (mm_va_t)op->result, &va);
        return;
    case VMA_BRK:
        replay_brk(r, op);
        return;
    case VMA_MADVISE:
        (void)mm_vma_madvise(space, op->arg[0], op->arg[1], (int)op->arg[2]);
        return;
    case VMA_MLOCK:
        (void)mm_vma_mlock(space, op->arg[0], op->arg[1]);
        return;
    case VMA_MUNLOCK:
        (void)mm_vma_munlock(space, op->arg[0], op->arg[1]);
        return;
    case VMA_FORK:
    case VMA_VFORK:
        replay_fork(r, op);
        return;
    case VMA_EXEC:
        space_leave(r, op->process);
        r->space[op->process] = space_new(r);
        return;
    case VMA_EXIT:
        space_leave(r, op->process);
        return;
    default:
        return;
    }
}

static void replay_all(struct replay *r, const struct vma_trace *t)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct vma_op *op = &t->ops[i];

        if (op->call != VMA_SNAPSHOT) {
            replay_one(r, op);
            continue;
        }
        for (size_t k = 1; op->child == 'I' && k <= op->arg[0]; k++) {
            const struct vma_op *line = op + k;

            if (line->arg[0] < UINT64_C(0x7ffffffff000))
                replay_mmap(r->space[op->process], line, line->arg[0], line->arg[1] - line->arg[0],
                            0x10 | line->flags | (line->file == 0 ? 0x20u : 0u));
        }
        i += op->arg[0];
    }
    for (unsigned p = 0; p < t->processes; p++)
        space_leave(r, p);
}

void run_vma_trace(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    struct vma_trace t;
    struct replay r;
    struct mm_vma_hooks h;
    char path[256];
    int64_t calls = 0;

    (void)ops;
    snprintf(path, sizeof path, "%s/vma/%s.trace.gz",
             getenv("BENCH_TRACES") != NULL ? getenv("BENCH_TRACES") : "bench/traces",
             row->name + strlen("calls."));
    if (!vma_trace_read(&t, path)) {
        gb_error(st, "the trace cannot be read");
        return;
    }
    base_hooks(&h);
    if (mm_vma_system_init(&r.sys, &h) != MM_OK)
        abort();
    r.space = calloc(t.processes, sizeof *r.space);
    r.brk_known = calloc(t.processes, sizeof *r.brk_known);
    for (size_t i = 0; i < t.count; i++)
        calls += t.ops[i].call < VMA_SNAPSHOT;
    replay_all(&r, &t);
    while (gb_keep_running_batch(st, calls))
        replay_all(&r, &t);
    mm_vma_system_fini(&r.sys);
    free(r.space);
    free(r.brk_known);
    free(t.ops);
}

/* ---- faults ---------------------------------------------------------------------------------- */

#define PAGES 4096u
#define BASE  0x100u /* page of the first */

/* A page table is an array, frames come from a stack; their content is not touched. */
struct table {
    struct {
        mm_pa_t pa;
        unsigned prot;
        bool present;
    } page[PAGES];
};

static struct {
    struct mm_vma_frame record[4 * PAGES];
    uint32_t free[4 * PAGES];
    uint32_t nfree;
} frames;

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct table *t = pt;
    size_t i = (va >> MM_PAGE_SHIFT) - BASE;

    (void)ctx;
    t->page[i].pa = pa;
    t->page[i].prot = prot;
    t->page[i].present = true;
    return MM_OK;
}

static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    (void)ctx;
    ((struct table *)pt)->page[(va >> MM_PAGE_SHIFT) - BASE].prot = prot;
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    (void)ctx;
    ((struct table *)pt)->page[(va >> MM_PAGE_SHIFT) - BASE].present = false;
}

static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    struct table *t = pt;
    uint64_t page = va >> MM_PAGE_SHIFT, last = end >> MM_PAGE_SHIFT;

    (void)ctx;
    page = page < BASE ? BASE : page;
    last = last > BASE + PAGES ? BASE + PAGES : last;
    for (; page < last; page++) {
        if (!t->page[page - BASE].present)
            continue;
        entry->va = page << MM_PAGE_SHIFT;
        entry->pa = t->page[page - BASE].pa;
        entry->slot = 0;
        entry->prot = t->page[page - BASE].prot;
        entry->dirty = false;
        return true;
    }
    return false;
}

static void pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    (void)ctx, (void)pt, (void)va, (void)bytes;
}

static mm_pa_t frame_alloc(void *ctx, bool zero)
{
    (void)ctx, (void)zero;
    return frames.nfree == 0 ? MM_PA_NONE : (mm_pa_t)frames.free[--frames.nfree] << MM_PAGE_SHIFT;
}

static void frame_free(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    frames.free[frames.nfree++] = (uint32_t)(pa >> MM_PAGE_SHIFT);
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    (void)ctx, (void)to, (void)from;
}

static struct mm_vma_frame *frame(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    return &frames.record[pa >> MM_PAGE_SHIFT];
}

static void touch_all(struct mm_vma_space *space)
{
    for (uint64_t p = 0; p < PAGES; p++)
        if (mm_vma_fault(space, (BASE + p) << MM_PAGE_SHIFT, MM_VMA_WRITE) != MM_VMA_FAULT_OK)
            abort();
}

/* Demand zero: 4,096 pages of one area touched for the first time. Copy on write: touched again
 * after a fork. Only the faults are timed. */
void run_vma_faults(gb_state *st, const struct area_row *row, const struct area_ops *ops)
{
    struct mm_vma_space *space = aligned_alloc(64, sizeof *space),
                        *child = aligned_alloc(64, sizeof *child);
    struct table *tables = calloc(2, sizeof *tables);
    bool cow = strcmp(row->name, "fault.cow") == 0;
    struct mm_vma_system sys;
    struct mm_vma_config config;
    struct mm_vma_hooks h;
    struct mm_vma_request r;
    mm_va_t va;

    (void)ops;
    base_hooks(&h);
    h.pt_map = pt_map;
    h.pt_protect = pt_protect;
    h.pt_clear = pt_clear;
    h.pt_next = pt_next;
    h.pt_flush = pt_flush;
    h.frame_alloc = frame_alloc;
    h.frame_free = frame_free;
    h.frame_copy = frame_copy;
    h.frame = frame;
    memset(frames.record, 0, sizeof frames.record);
    for (frames.nfree = 0; frames.nfree < 4 * PAGES; frames.nfree++)
        frames.free[frames.nfree] = frames.nfree;
    mm_vma_config_init(&config);
    config.pt = &tables[0];
    if (mm_vma_system_init(&sys, &h) != MM_OK || mm_vma_space_init(space, &sys, &config) != MM_OK)
        abort();
    memset(&r, 0, sizeof r);
    r.hint = (mm_va_t)BASE << MM_PAGE_SHIFT;
    r.bytes = (uint64_t)PAGES << MM_PAGE_SHIFT;
    r.prot = MM_VMA_READ | MM_VMA_WRITE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    while (gb_keep_running_batch(st, PAGES)) {
        gb_pause(st);
        if (mm_vma_mmap(space, &r, &va) != MM_VMA_OK)
            abort();
        if (cow) {
            touch_all(space);
            if (mm_vma_fork(child, space, &tables[1]) != MM_VMA_OK)
                abort();
        }
        gb_resume(st);
        touch_all(space);
        gb_pause(st);
        if (cow)
            (void)mm_vma_leave(child);
        gb_resume(st);
    }
    (void)mm_vma_leave(space);
    mm_vma_system_fini(&sys);
    free(space);
    free(child);
    free(tables);
}
