/* Recorded memory calls of real programs, replayed: each call's result and, for mappings that the
 * kernel placed, each address; and each snapshot of a process's map. */
#include "vma_test.h"

#include "../../bench/vma_trace.h"

#define HUGE_BYTES (UINT64_C(2) << 20)

struct process {
    struct mm_vma_space *space;
    bool brk_known;
};

struct replay {
    struct mm_vma_system sys;
    struct vma_source source;
    struct process *process;
    uintptr_t next_shared;
    unsigned
        shared_id[4096]; /* the number that snapshots give to the n-th shared anonymous memory */
    uint64_t calls, failed, placed, elsewhere, snapshots;
    bool print;
};

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    return aligned_alloc(64, sizeof(struct mm_vma));
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    free(vma);
}

static enum mm_status shared_new(void *ctx, uint64_t pages, void **file)
{
    struct replay *r = ctx;

    (void)pages;
    *file = (void *)(0x1000000 + ++r->next_shared);
    return MM_OK;
}

static struct mm_vma_space *space_new(struct replay *r)
{
    struct mm_vma_space *space = aligned_alloc(64, sizeof *space);
    struct mm_vma_config config;

    mm_vma_config_init(&config);
    config.low = 0x10000;
    assert_int_equal(mm_vma_space_init(space, &r->sys, &config), MM_OK);
    return space;
}

static void space_leave(struct process *p)
{
    if (p->space != NULL && mm_vma_leave(p->space))
        free(p->space);
    p->space = NULL;
    p->brk_known = false;
}

/* ---- snapshots ------------------------------------------------------------------------------- */

struct region {
    uint64_t start, end, offset;
    unsigned prot, shared, file;
    bool stack;
};

static bool alike(const struct region *a, const struct region *b)
{
    return a->end == b->start && a->prot == b->prot && a->shared == b->shared &&
           a->file == b->file && a->stack == b->stack &&
           (a->file == 0 || a->offset + (a->end - a->start) == b->offset);
}

static size_t add(struct region *list, size_t n, const struct region *next)
{
    if (n != 0 && alike(&list[n - 1], next)) {
        list[n - 1].end = next->end;
        return n;
    }
    list[n] = *next;
    return n + 1;
}

/* Names that are no file get numbers of their own. */
static unsigned special(const char *what)
{
    return what[0] == '[' && strcmp(what, "[heap]") != 0 && strcmp(what, "[stack]") != 0
               ? 0x2000000u + (unsigned char)what[2] * 256u + (unsigned char)what[strlen(what) - 2]
               : 0;
}

static struct region region_of(const struct vma_op *line)
{
    struct region r = {line->arg[0],
                       line->arg[1],
                       line->arg[4],
                       line->prot,
                       line->flags == 1,
                       line->file != 0 ? line->file : special(line->what),
                       strcmp(line->what, "[stack]") == 0};

    if (r.file == 0)
        r.offset = 0;
    return r;
}

/* Fills a new space from the snapshot after exec. */
static void load(struct replay *r, struct mm_vma_space *space, const struct vma_op *lines, size_t n)
{
    uint64_t base = 0;

    (void)r;
    for (size_t i = 0; i < n; i++) {
        struct region g = region_of(&lines[i]);
        struct mm_vma_request q;
        mm_va_t va;

        if (strcmp(lines[i].what, "[vsyscall]") == 0)
            continue;
        memset(&q, 0, sizeof q);
        q.hint = g.start;
        q.bytes = g.end - g.start;
        q.prot = g.prot;
        q.flags = MM_VMA_MAP_FIXED | (g.shared ? MM_VMA_MAP_SHARED : MM_VMA_MAP_PRIVATE);
        q.file = (void *)(uintptr_t)g.file;
        q.offset = g.offset;
        if (g.file == 0)
            q.flags |= MM_VMA_MAP_ANONYMOUS | (g.stack ? MM_VMA_MAP_GROWSDOWN : 0u);
        assert_int_equal(mm_vma_mmap(space, &q, &va), MM_VMA_OK);
        if (!g.stack)
            base = g.end;
    }
    /* the loader is the first to be placed: it ends where placement starts */
    space->base = base >> MM_PAGE_SHIFT;
}

static size_t own_list(struct replay *r, struct mm_vma_space *space, struct region *list)
{
    struct mm_vma_cursor c;
    size_t n = 0;

    for (struct mm_vma *vma = mm_vma_cursor_seek(&c, &space->map, 0); vma != NULL;
         vma = mm_vma_cursor_next(&c)) {
        uintptr_t file = (uintptr_t)vma->file;
        struct region g = {mm_vma_start(vma),
                           mm_vma_end(vma),
                           vma->offset << MM_PAGE_SHIFT,
                           (unsigned)vma->flags & 7,
                           (vma->flags & MM_VMA_SHARED) != 0,
                           (unsigned)file,
                           (vma->flags & MM_VMA_GROWSDOWN) != 0};

        if (file > 0x1000000 && file < 0x2000000 && r->shared_id[file - 0x1000000] != 0)
            g.file = r->shared_id[file - 0x1000000];
        if (g.file == 0)
            g.offset = 0;
        n = add(list, n, &g);
    }
    return n;
}

static bool equal(const struct region *a, const struct region *b)
{
    return a->start == b->start && a->end == b->end && a->offset == b->offset &&
           a->prot == b->prot && a->shared == b->shared && a->file == b->file &&
           a->stack == b->stack;
}

static bool compare(struct replay *r, struct mm_vma_space *space, const struct vma_op *lines,
                    size_t n)
{
    struct region *theirs = calloc(n + 1, sizeof *theirs);
    struct region *ours = calloc(space->map.count + 1, sizeof *ours);
    size_t a = 0, b;
    bool same;

    for (size_t i = 0; i < n; i++) {
        struct region g = region_of(&lines[i]);
        struct mm_vma *vma = mm_vma_find(space, g.start);

        if (strcmp(lines[i].what, "[vsyscall]") == 0)
            continue;
        if (g.stack) { /* faults grew it */
            vma = mm_vma_cursor_seek(&(struct mm_vma_cursor){0}, &space->map, g.start);
            if (vma != NULL && (vma->flags & MM_VMA_GROWSDOWN) != 0 && mm_vma_start(vma) > g.start)
                (void)mm_vma_fault(space, g.start, MM_VMA_WRITE);
        }
        if (g.file != 0 && vma != NULL && (vma->flags & MM_VMA_SHMEM) != 0 &&
            mm_vma_start(vma) == g.start)
            r->shared_id[(uintptr_t)vma->file - 0x1000000] = g.file;
        a = add(theirs, a, &g);
    }
    b = own_list(r, space, ours);
    same = a == b;
    for (size_t i = 0; same && i < a; i++)
        same = equal(&theirs[i], &ours[i]);
    for (size_t i = 0; !same && i < a && i < b; i++)
        if (!equal(&theirs[i], &ours[i])) {
            printf("# recorded %llx-%llx %u file %u, replayed %llx-%llx %u file %u\n",
                   (unsigned long long)theirs[i].start, (unsigned long long)theirs[i].end,
                   theirs[i].prot, theirs[i].file, (unsigned long long)ours[i].start,
                   (unsigned long long)ours[i].end, ours[i].prot, ours[i].file);
            break;
        }
    free(theirs);
    free(ours);
    return same;
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* Linux's policy for huge pages, which mm_vma leaves to its caller: files and whole huge pages of
 * anonymous memory go where their offset is a multiple of a huge page, if a place with that much
 * room to spare is free (mm/huge_memory.c, thp_get_unmapped_area). 0: no such place, or not for
 * them. */
static mm_va_t huge_place(struct mm_vma_space *space, bool file, uint64_t bytes, uint64_t offset)
{
    uint64_t first = (offset + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
    mm_va_t va, low = (mm_va_t)space->low << MM_PAGE_SHIFT;

    bytes = (bytes + PAGE - 1) & ~(PAGE - 1);
    if (file ? offset + bytes < first + HUGE_BYTES : bytes % HUGE_BYTES != 0)
        return 0;
    if (mm_vma_map_highest(&space->map, low, (mm_va_t)space->base << MM_PAGE_SHIFT,
                           bytes + HUGE_BYTES, 0, &va) != MM_OK)
        return 0;
    return (offset - va) % HUGE_BYTES == 0 ? va + HUGE_BYTES : va + (offset - va) % HUGE_BYTES;
}

static void do_mmap(struct replay *r, struct mm_vma_space *space, const struct vma_op *op)
{
    bool fixed = (op->flags & (MM_VMA_MAP_FIXED | MM_VMA_MAP_FIXED_NOREPLACE)) != 0;
    struct mm_vma_request q;
    mm_va_t va = 0;
    int result;

    memset(&q, 0, sizeof q);
    q.hint = op->arg[0];
    q.bytes = op->arg[1];
    q.prot = op->prot & 7;
    q.flags = op->flags;
    q.file = (void *)(uintptr_t)op->file;
    q.offset = op->arg[4];
    if (q.hint == 0 && (op->file % 4 == 1 || (op->flags & ~MM_VMA_MAP_NORESERVE) ==
                                                 (MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS)))
        q.hint = huge_place(space, op->file != 0, q.bytes, q.offset);
    result = mm_vma_mmap(space, &q, &va);
    if (op->result < 0) {
        r->failed++;
        assert_int_equal(result, op->result);
        return;
    }
    assert_int_equal(result, MM_VMA_OK);
    r->placed += !fixed;
    if (va == (mm_va_t)op->result)
        return;
    assert_false(fixed);
    r->elsewhere++;
    if (r->print)
        printf("# mmap(%llx, %llx, flags %x file %u): recorded %llx, replayed %llx\n",
               (unsigned long long)q.hint, (unsigned long long)q.bytes, q.flags, op->file,
               (unsigned long long)op->result, (unsigned long long)va);
    assert_int_equal(mm_vma_munmap(space, va, q.bytes), MM_VMA_OK);
    q.hint = (mm_va_t)op->result;
    q.flags |= MM_VMA_MAP_FIXED_NOREPLACE;
    assert_int_equal(mm_vma_mmap(space, &q, &va), MM_VMA_OK);
}

static void do_mremap(struct replay *r, struct mm_vma_space *space, const struct vma_op *op)
{
    mm_va_t va = 0;
    const struct mm_vma *vma = mm_vma_find(space, op->arg[0]);
    unsigned flags = (unsigned)op->arg[3];
    mm_va_t target = op->arg[4], huge;
    int result;

    if (op->result > 0 && (mm_va_t)op->result != op->arg[0] && flags == MM_VMA_REMAP_MAYMOVE) {
        huge = huge_place(space, vma->file != NULL, op->arg[2],
                          (vma->offset << MM_PAGE_SHIFT) + op->arg[0] - mm_vma_start(vma));
        flags |= huge != 0 ? MM_VMA_REMAP_FIXED : 0u;
        target = huge != 0 ? huge : target;
    }
    result = mm_vma_mremap(space, op->arg[0], op->arg[1], op->arg[2], flags, target, &va);

    assert_int_equal(result, op->result < 0 ? op->result : MM_VMA_OK);
    if (op->result < 0 || va == (mm_va_t)op->result)
        return;
    r->elsewhere++;
    if (r->print)
        printf("# mremap(%llx, %llx, %llx): recorded %llx, replayed %llx\n",
               (unsigned long long)op->arg[0], (unsigned long long)op->arg[1],
               (unsigned long long)op->arg[2], (unsigned long long)op->result,
               (unsigned long long)va);
    result = mm_vma_mremap(space, va, op->arg[2], op->arg[2], 3, (mm_va_t)op->result, &va);
    assert_int_equal(result, MM_VMA_OK);
}

static void do_brk(struct process *p, const struct vma_op *op)
{
    if (!p->brk_known) {
        p->brk_known = true;
        p->space->brk_start = p->space->brk = (mm_va_t)op->result;
    }
    assert_int_equal(mm_vma_brk(p->space, op->arg[0]), op->result);
}

static void do_shmat(struct mm_vma_space *space, const struct vma_op *op)
{
    struct mm_vma_request q;
    mm_va_t va;

    memset(&q, 0, sizeof q);
    q.hint = (mm_va_t)op->result;
    q.bytes = op->arg[1];
    q.prot = op->prot;
    q.flags = MM_VMA_MAP_SHARED | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    assert_int_equal(mm_vma_mmap(space, &q, &va), MM_VMA_OK);
}

static void do_call(struct replay *r, const struct vma_op *op)
{
    struct process *p = &r->process[op->process];
    struct mm_vma_space *space = p->space;
    struct mm_vma *vma;

    r->calls++;
    switch (op->call) {
    case VMA_MMAP:
        do_mmap(r, space, op);
        return;
    case VMA_MUNMAP:
        assert_int_equal(mm_vma_munmap(space, op->arg[0], op->arg[1]), op->result);
        return;
    case VMA_MPROTECT:
        assert_int_equal(mm_vma_mprotect(space, op->arg[0], op->arg[1], op->prot), op->result);
        return;
    case VMA_MREMAP:
        do_mremap(r, space, op);
        return;
    case VMA_BRK:
        do_brk(p, op);
        return;
    case VMA_MADVISE:
        assert_int_equal(mm_vma_madvise(space, op->arg[0], op->arg[1], (int)op->arg[2]),
                         op->result);
        return;
    case VMA_MLOCK:
        assert_int_equal(mm_vma_mlock(space, op->arg[0], op->arg[1]), op->result);
        return;
    case VMA_MUNLOCK:
        assert_int_equal(mm_vma_munlock(space, op->arg[0], op->arg[1]), op->result);
        return;
    case VMA_SHMAT:
        do_shmat(space, op);
        return;
    case VMA_SHMDT:
        vma = mm_vma_find(space, op->arg[0]);
        assert_non_null(vma);
        assert_int_equal(mm_vma_munmap(space, op->arg[0], mm_vma_bytes(vma)), op->result);
        return;
    default:
        return;
    }
}

static void do_fork(struct replay *r, const struct vma_op *op)
{
    struct process *parent = &r->process[op->process], *child = &r->process[op->child];

    *child = *parent;
    if (op->call == VMA_VFORK) {
        mm_vma_join(parent->space);
        return;
    }
    child->space = aligned_alloc(64, sizeof *child->space);
    assert_int_equal(mm_vma_fork(child->space, parent->space, NULL), MM_VMA_OK);
}

static size_t do_snapshot(struct replay *r, const struct vma_op *op)
{
    struct process *p = &r->process[op->process];
    size_t n = (size_t)op->arg[0];

    if (op->child == 'I') {
        load(r, p->space, op + 1, n);
    } else {
        r->snapshots++;
        assert_true(compare(r, p->space, op + 1, n));
        assert_int_equal(mm_vma_check(p->space), MM_OK);
    }
    return n;
}

static void replay(const char *name)
{
    struct replay *r = calloc(1, sizeof *r);
    struct vma_trace trace;
    struct mm_vma_hooks h;
    char path[256];

    r->print = getenv("VMA_TRACE") != NULL;
    snprintf(path, sizeof path, "bench/traces/vma/%s.trace.gz", name);
    assert_true(vma_trace_read(&trace, path));
    vma_source_init(&r->source);
    memset(&h, 0, sizeof h);
    h.ctx = r;
    h.nodes = r->source.hooks;
    h.area_alloc = area_alloc;
    h.area_free = area_free;
    h.shared = shared_new;
    assert_int_equal(mm_vma_system_init(&r->sys, &h), MM_OK);
    r->process = calloc(trace.processes + 1, sizeof *r->process);
    for (size_t i = 0; i < trace.count; i++) {
        const struct vma_op *op = &trace.ops[i];

        if (op->call == VMA_SNAPSHOT) {
            i += do_snapshot(r, op);
        } else if (op->call == VMA_EXEC) {
            space_leave(&r->process[op->process]);
            r->process[op->process].space = space_new(r);
        } else if (op->call == VMA_EXIT) {
            space_leave(&r->process[op->process]);
        } else if (op->call == VMA_FORK || op->call == VMA_VFORK) {
            do_fork(r, op);
        } else if (op->call != VMA_THREAD) {
            do_call(r, op);
        }
    }
    for (unsigned i = 0; i < trace.processes; i++)
        space_leave(&r->process[i]);
    printf("# %s: %llu calls, %llu refused as recorded, %llu placed (%llu elsewhere), %llu "
           "snapshots\n",
           name, (unsigned long long)r->calls, (unsigned long long)r->failed,
           (unsigned long long)r->placed, (unsigned long long)r->elsewhere,
           (unsigned long long)r->snapshots);
    mm_vma_system_fini(&r->sys);
    assert_int_equal(r->source.live, 0);
    assert_true(r->calls != 0 && r->snapshots != 0);
    assert_int_equal(r->elsewhere, 0);
    free(r->process);
    free(trace.ops);
    free(r);
}

#define PROGRAMS(X) \
    X(gcc) X(go) X(javac) X(make) X(node) X(python3) X(redis) X(rustc) X(sort) X(sqlite3) X(xz)
#define TEST(name)                           \
    static void name##_replays(void **state) \
    {                                        \
        (void)state;                         \
        replay(#name);                       \
    }
PROGRAMS(TEST)
#define ENTRY(name) cmocka_unit_test(name##_replays),

int main(void)
{
    const struct CMUnitTest tests[] = {PROGRAMS(ENTRY)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
