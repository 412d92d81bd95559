/* The host kernel as the oracle: random calls inside a window of a child process whose other
 * addresses are all taken, by real system calls and by mm_vma side by side. After each call the
 * result code, the address, the whole list of areas and the totals must agree; every byte that is
 * read must be the same; now and then the areas' flags (smaps), which pages are private ones of the
 * process (pagemap) and every page's content. mm_vma has page tables, frames and a pager of arrays.
 * The child forks in the midst of it, and both sides go on. The window begins where the child's
 * heap ends, so that the break moves within it; it never goes below the window, because the heap
 * there is libc's. */
#include "vma_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define AREAS  4096u
#define PS     4096ul
#define HUGE   (PS * 512)
#define TABLE  8192u      /* pages from the heap's start to the window's end */
#define FRAMES 16384u     /* of private memory; 0 is the zero frame */
#define SHARED (1u << 20) /* pages of the file and of shared memory, numbered behind the frames */
#define FILED  4096u      /* pages of the file */
#define DEPTH  4u         /* generations of processes */

struct line {
    uintptr_t start, end;
    char perm[5];
    unsigned long offset;
    bool file, heap;
    uintptr_t flags; /* as mm_vma has them; only from smaps */
};

/* Each test: a window, and what happens in it. */
struct plan {
    unsigned pages, longest;
    bool stacks, limits, forks;
    unsigned stream;
    unsigned room; /* areas left of those that a process may have; 0: they do not run out */
};

/* What all processes see. */
struct common {
    unsigned next_page;
    unsigned char content[SHARED];
};

struct table {
    struct mm_vma_entry page[TABLE]; /* va 0: no entry */
};

/* Everything is allocated before the window is closed: malloc has no address left after that. */
struct run {
    struct mm_vma areas[AREAS];
    struct mm_vma_node nodes[AREAS];
    struct mm_vma_system sys;
    struct mm_vma_space
        spaces[DEPTH + 1]; /* this process's and its ancestors'; one more for its child's */
    struct table tables[DEPTH + 1];
    struct mm_vma_space *space;
    unsigned depth;
    struct mm_vma_frame record[FRAMES + SHARED];
    unsigned char content[FRAMES];
    struct common *common;
    unsigned frames[FRAMES], free_frames;
    struct mm_test_rng rng;
    char text[1 << 20];
    struct line lines[AREAS];
    struct mm_vma *free_areas;
    struct mm_vma_node *free_nodes;
    struct {
        unsigned first, pages;
    } object[1 << 16]; /* 0: the file */
    unsigned objects;
    struct plan plan;
    unsigned pages;
    uintptr_t window, low; /* low: where the heap before the window begins */
    int fd[2], pipe[2];    /* the file, open for all and for reading */
    bool huge;             /* the kernel knows MADV_HUGEPAGE */
    char what[256];
    struct mm_vma_limits limits;
    uint64_t base[5]; /* what the process has beside what mm_vma knows: see totals */
    size_t enough;    /* bytes of a file to read */
    uint64_t most;    /* areas that mm_vma may have for the process to have all it may */
    uint64_t fails, brks, reads,
        forks; /* calls that were refused; breaks that moved; bytes compared */
};

static struct mm_vma *area_alloc(void *ctx)
{
    struct run *r = ctx;
    struct mm_vma *vma = r->free_areas;

    if (vma != NULL)
        r->free_areas = vma->link;
    return vma;
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    struct run *r = ctx;

    vma->link = r->free_areas;
    r->free_areas = vma;
}

static struct mm_vma_node *node_alloc(void *ctx)
{
    struct run *r = ctx;
    struct mm_vma_node *node = r->free_nodes;

    if (node != NULL)
        r->free_nodes = node->u.next;
    return node;
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    struct run *r = ctx;

    node->u.next = r->free_nodes;
    r->free_nodes = node;
}

/* ---- page tables, frames, pager: arrays ------------------------------------------------------ */

static struct run *run; /* of this process, for the hooks that are given a table */

static struct mm_vma_entry *entry_of(void *pt, mm_va_t va)
{
    return &((struct table *)pt)->page[(va - run->low) / PS];
}

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct mm_vma_entry e = {va, pa, 0, prot, false};

    (void)ctx;
    *entry_of(pt, va) = e;
    return MM_OK;
}

static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    (void)ctx;
    entry_of(pt, va)->prot = prot;
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    (void)ctx;
    entry_of(pt, va)->va = 0;
}

static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry)
{
    struct run *r = ctx;
    mm_va_t top = r->window + r->pages * PS;

    for (va = va < r->low ? r->low : va; va < end && va < top; va += PS)
        if (entry_of(pt, va)->va != 0) {
            *entry = *entry_of(pt, va);
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
    struct run *r = ctx;
    unsigned f;

    if (r->free_frames == 0)
        return MM_PA_NONE;
    f = r->frames[--r->free_frames];
    r->content[f] = zero ? 0 : 0xbb;
    return f * PS;
}

static void frame_free(void *ctx, mm_pa_t pa)
{
    struct run *r = ctx;

    r->content[pa / PS] = 0xdd;
    r->frames[r->free_frames++] = (unsigned)(pa / PS);
}

static unsigned char *content_of(struct run *r, mm_pa_t pa)
{
    return pa < FRAMES * PS ? &r->content[pa / PS] : &r->common->content[pa / PS - FRAMES];
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    *content_of(ctx, to) = *content_of(ctx, from);
}

static struct mm_vma_frame *frame(void *ctx, mm_pa_t pa)
{
    return pa == 0 ? NULL : &((struct run *)ctx)->record[pa / PS];
}

static void *file_of(unsigned object, bool read_only)
{
    return (void *)(uintptr_t)(16 + 2 * object + read_only);
}

static enum mm_status file_page(void *ctx, void *file, uint64_t index, bool write, mm_pa_t *pa)
{
    struct run *r = ctx;
    unsigned o = (unsigned)((uintptr_t)file - 16) / 2;

    (void)write;
    if (index >= r->object[o].pages)
        return MM_ERR_NOENT;
    *pa = (FRAMES + r->object[o].first + index) * PS;
    return MM_OK;
}

static void file_page_put(void *ctx, void *file, uint64_t index, mm_pa_t pa, bool dirty)
{
    (void)ctx, (void)file, (void)index, (void)pa, (void)dirty;
}

static enum mm_status shared_new(void *ctx, uint64_t pages, void **file)
{
    struct run *r = ctx;

    if (r->objects == 1 << 16 || pages > SHARED - r->common->next_page)
        return MM_ERR_NOMEM;
    r->object[r->objects].first = r->common->next_page;
    r->object[r->objects].pages = (unsigned)pages;
    r->common->next_page += (unsigned)pages;
    *file = file_of(r->objects++, false);
    return MM_OK;
}

/* ---- what the kernel has --------------------------------------------------------------------- */

static void read_file(struct run *r, const char *path)
{
    int fd = open(path, O_RDONLY);
    size_t length = 0;
    ssize_t got;

    while (length < r->enough && (got = read(fd, r->text + length, r->enough - length)) > 0)
        length += (size_t)got;
    close(fd);
    r->text[length] = 0;
}

/* The letters of smaps and mm_vma's flags. */
static uintptr_t flags_of(const char *p)
{
    static const struct {
        char name[3];
        uintptr_t flag;
    } known[] = {{"mr", MM_VMA_MAYREAD},     {"mw", MM_VMA_MAYWRITE},  {"me", MM_VMA_MAYEXEC},
                 {"gd", MM_VMA_GROWSDOWN},   {"lo", MM_VMA_LOCKED},    {"sr", MM_VMA_SEQUENTIAL},
                 {"rr", MM_VMA_RANDOM},      {"dc", MM_VMA_DONTFORK},  {"ac", MM_VMA_ACCOUNT},
                 {"lf", MM_VMA_LOCKONFAULT}, {"nr", MM_VMA_NORESERVE}, {"wf", MM_VMA_WIPEONFORK},
                 {"dd", MM_VMA_DONTDUMP},    {"hg", MM_VMA_HUGEPAGE},  {"nh", MM_VMA_NOHUGEPAGE}};
    uintptr_t flags = 0;

    for (; *p != 0 && *p != '\n'; p++)
        for (unsigned i = 0; p[0] != ' ' && i < sizeof known / sizeof known[0]; i++)
            if (p[-1] == ' ' && strncmp(p, known[i].name, 2) == 0)
                flags |= known[i].flag;
    return flags;
}

/* Reads /proc/self/maps, or smaps, into r->lines, as far as it lies in the window. No libc call
 * that allocates. */
static unsigned read_maps(struct run *r, bool flags)
{
    unsigned count = 0;
    bool inside = false;
    char *p, *end;

    if (r->plan.room != 0)
        r->enough = flags ? 1 << 18 : 1 << 14;
    read_file(r, flags ? "/proc/self/smaps" : "/proc/self/maps");
    r->enough = sizeof r->text - 1;
    for (p = r->text; (end = strchr(p, '\n')) != NULL; p = end + 1) {
        struct line *l = &r->lines[count];
        char *q;

        if (inside && strncmp(p, "VmFlags:", 8) == 0)
            r->lines[count - 1].flags = flags_of(p + 9);
        if (*p >= 'A' && *p <= 'Z')
            continue;
        l->start = strtoul(p, &q, 16);
        l->end = strtoul(q + 1, &q, 16);
        memcpy(l->perm, q + 1, 4);
        l->perm[4] = 0;
        l->offset = strtoul(q + 6, &q, 16);
        strtoul(q + 1, &q, 16);
        strtoul(q + 1, &q, 16);
        l->file = strtoul(q, &q, 10) != 0;
        l->heap = strncmp(q + strspn(q, " "), "[heap]", 6) == 0;
        inside = l->start >= r->low && l->end <= r->window + r->pages * PS && count + 1 < AREAS;
        count += inside;
    }
    return count;
}

static void describe(const struct line *l, const char *who)
{
    printf("#   %s %lx-%lx %s %lx %s\n", who, l->start, l->end, l->perm, l->offset,
           l->file   ? "file"
           : l->heap ? "heap"
                     : "anon");
}

static void print_model(struct run *r)
{
    struct mm_vma_cursor c;

    for (struct mm_vma *vma = mm_vma_cursor_seek(&c, &r->space->map, 0); vma != NULL;
         vma = mm_vma_cursor_next(&c))
        printf("#   %llx-%llx flags %lx anon %lu page offset %lx\n",
               (unsigned long long)mm_vma_start(vma), (unsigned long long)mm_vma_end(vma),
               (unsigned long)vma->flags, (unsigned long)vma->anon, (unsigned long)vma->offset);
}

static bool same_list(struct run *r, bool flags)
{
    const uintptr_t shown = flags ? ~(uintptr_t)(MM_VMA_PROT | MM_VMA_SHARED | MM_VMA_SHMEM) : 0;
    unsigned count = read_maps(r, flags), i = 0;
    struct mm_vma_cursor c;
    bool same = true;

    for (struct mm_vma *vma = mm_vma_cursor_seek(&c, &r->space->map, 0); vma != NULL;
         vma = mm_vma_cursor_next(&c), i++) {
        struct line mine = {mm_vma_start(vma), mm_vma_end(vma),   "----",
                            vma->offset * PS,  vma->file != NULL, false,
                            vma->flags & shown};
        char text[128];

        mm_vma_format(r->space, vma, text, sizeof text);
        mine.heap = strstr(text, "[heap]") != NULL;
        mine.perm[0] = vma->flags & MM_VMA_READ ? 'r' : '-';
        mine.perm[1] = vma->flags & MM_VMA_WRITE ? 'w' : '-';
        mine.perm[2] = vma->flags & MM_VMA_EXEC ? 'x' : '-';
        mine.perm[3] = vma->flags & MM_VMA_SHARED ? 's' : 'p';
        if (!mine.file)
            mine.offset = 0;
        if (i < count && mine.start == r->lines[i].start && mine.end == r->lines[i].end &&
            mine.file == r->lines[i].file && mine.heap == r->lines[i].heap &&
            mine.offset == r->lines[i].offset && (!flags || mine.flags == r->lines[i].flags) &&
            strcmp(mine.perm, r->lines[i].perm) == 0)
            continue;
        if (same) {
            printf("# lists differ after %s\n", r->what);
            describe(&mine, "mm_vma");
            printf("#   flags %lx (the kernel's %lx) anon %lu page offset %lx\n", vma->flags,
                   flags && i < count ? r->lines[i].flags : 0, vma->anon, vma->offset);
            if (i < count)
                describe(&r->lines[i], "kernel");
        }
        same = false;
    }
    if (same && i != count) {
        printf("# lists differ after %s: the kernel has %u areas, mm_vma %u\n", r->what, count, i);
        describe(&r->lines[i < count ? i : 0], "kernel");
        same = false;
    }
    if (!same)
        print_model(r);
    return same;
}

/* The kernel's totals in pages, in the order of mm_vma's: all, locked, data, stack, code (VmExe and
 * VmLib). */
static void kernel_totals(struct run *r, uint64_t *totals)
{
    static const struct {
        const char *name;
        unsigned at;
    } rows[] = {{"\nVmSize:", 0}, {"\nVmLck:", 1}, {"\nVmData:", 2},
                {"\nVmStk:", 3},  {"\nVmExe:", 4}, {"\nVmLib:", 4}};

    read_file(r, "/proc/self/status");
    memset(totals, 0, 5 * sizeof *totals);
    for (unsigned i = 0; i < 6; i++)
        totals[rows[i].at] +=
            strtoul(strstr(r->text, rows[i].name) + strlen(rows[i].name), NULL, 10) / 4;
}

static bool same_totals(struct run *r)
{
    static const char *const name[5] = {"total", "locked", "data", "stack", "exec"};
    struct mm_vma_totals t;
    uint64_t theirs[5];
    bool same = true;

    mm_vma_read_totals(r->space, &t);
    kernel_totals(r, theirs);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t mine[5] = {t.total, t.locked, t.data, t.stack, t.exec};

        if (theirs[i] - r->base[i] == mine[i])
            continue;
        printf("# %s: the kernel has %lld pages %s, mm_vma %llu\n", r->what,
               (long long)(theirs[i] - r->base[i]), name[i], (unsigned long long)mine[i]);
        same = false;
    }
    return same;
}

/* Which pages of the window are private ones, and whether others have them too. The zero frame,
 * which comes again by itself, does not move with mm_vma's mremap: it may lack. */
static bool same_pages(struct run *r)
{
    uint64_t *map = (uint64_t *)(void *)r->text;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    bool same =
        pread(fd, map, r->pages * 8, (off_t)(r->window / PS * 8)) == (ssize_t)(r->pages * 8);

    close(fd);
    for (unsigned i = 0; same && i < r->pages; i++) {
        const uintptr_t va = r->window + i * PS;
        const struct mm_vma_entry *e = entry_of(r->space->pt, va);
        const struct mm_vma *vma = mm_vma_find(r->space, va);
        bool theirs = map[i] >> 61 == 4,
             mine = e->va != 0 && e->pa < FRAMES * PS; /* there, no file's */

        if (theirs && mine && e->pa != 0 && r->depth != 0)
            continue; /* the ancestors have made calls meanwhile */
        if (theirs && mine && e->pa != 0)
            same = (map[i] >> 56 & 1) == (mm_vma_frame_maps(&r->sys, e->pa) == 1);
        else
            same = theirs == mine || (vma != NULL && vma->file == NULL && (!mine || e->pa == 0));
        if (!same)
            printf("# after %s: page %lx is %llx for the kernel; frame %llx of %lu in mm_vma\n",
                   r->what, va, (unsigned long long)map[i],
                   (unsigned long long)(e->va != 0 ? e->pa : 1),
                   (unsigned long)mm_vma_frame_maps(&r->sys, e->pa));
    }
    return same;
}

/* Each page that may be read reads the same. */
static bool same_contents(struct run *r)
{
    struct mm_vma_cursor c;
    uintptr_t va;

    for (struct mm_vma *vma = mm_vma_cursor_seek(&c, &r->space->map, r->window); vma != NULL;
         vma = mm_vma_cursor_next(&c))
        for (va = vma->start * PS; va < vma->end * PS; va += PS) {
            unsigned char mine, theirs;

            if (va < r->window || (vma->flags & (MM_VMA_READ | MM_VMA_WRITE)) == 0 ||
                mm_vma_fault(r->space, va, MM_VMA_READ) != MM_VMA_FAULT_OK)
                continue; /* beyond a file's end */
            mine = *content_of(r, entry_of(r->space->pt, va)->pa);
            theirs = *(volatile unsigned char *)va;
            r->reads++;
            if (mine == theirs)
                continue;
            printf("# after %s: %lx reads %u in the kernel, %u in mm_vma\n", r->what, va, theirs,
                   mine);
            return false;
        }
    return true;
}

static bool same_all(struct run *r)
{
    if (mm_vma_check(r->space) != MM_OK)
        printf("# the check finds damage after %s\n", r->what);
    else
        return same_list(r, true) && same_pages(r) && same_contents(r);
    return false;
}

/* ---- random arguments ------------------------------------------------------------------------ */

static unsigned below(struct run *r, unsigned n)
{
    return (unsigned)mm_test_below(&r->rng, n);
}

static bool chance(struct run *r, unsigned percent)
{
    return mm_test_chance(&r->rng, percent);
}

/* A page of the window, and a length in pages that stays within it; borders of areas more often. */
static uintptr_t some_page(struct run *r)
{
    struct mm_vma *vma;
    uintptr_t page = r->window + below(r, r->pages) * PS;

    if (chance(r, 50)) {
        vma = mmi_vma_from(r->space, page >> 12);
        if (vma != NULL && mm_vma_start(vma) > r->window)
            page = mm_vma_start(vma);
    }
    return page;
}

static size_t some_length(struct run *r, uintptr_t va)
{
    size_t room = r->window + r->pages * PS - va, length = (1 + below(r, r->plan.longest)) * PS;
    struct mm_vma *vma = mmi_vma_from(r->space, va >> 12);

    if (vma != NULL && chance(r, 30) && mm_vma_end(vma) > va)
        length = mm_vma_end(vma) - va;
    if (length > room)
        length = room;
    if ((length & (HUGE - 1)) == 0)
        length -= PS; /* deliberate: Linux aligns whole huge pages, mm_vma on request only */
    return chance(r, 5) && length != 0 ? length - below(r, PS) : length;
}

static int some_prot(struct run *r)
{
    static const int prots[] = {
        PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
        PROT_WRITE};
    return prots[below(r, 6)];
}

/* ---- calls, on both sides -------------------------------------------------------------------- */

static bool trace; /* VMA_TRACE is set: every call is printed */

static bool agree(struct run *r, long real, long mine)
{
    if (trace)
        printf("# %s = %lx\n", r->what, (unsigned long)real);
    if (real != mine) {
        printf("# %s: the kernel says %lx, mm_vma %lx (%ld, %ld)\n", r->what, (unsigned long)real,
               (unsigned long)mine, real, mine);
        print_model(r);
        return false;
    }
    r->fails += real < 0;
    return same_list(r, false) && same_totals(r);
}

static long result(long raw)
{
    return raw == -1 ? -(long)errno : raw;
}

/* A deliberate difference: a fixed mapping that the limit refuses leaves the areas in its way split
 * in Linux. The model is put into that state, so that later calls can be compared. */
static void split_as_linux(struct run *r, uintptr_t va, size_t length)
{
    uintptr_t borders[2] = {va >> 12, (va + length) >> 12};

    for (unsigned i = 0; i < 2; i++) {
        struct mm_vma *vma = mmi_vma_from(r->space, borders[i]);

        if (vma == NULL || vma->start >= borders[i] ||
            mmi_vma_reserve(r->space, 0, r->space->top, 1) != MM_VMA_OK)
            continue;
        mmi_vma_write_begin(&r->space->map);
        mmi_vma_split(r->space, vma, borders[i]);
        mmi_vma_write_end(&r->space->map);
    }
}

/* The number of areas from which on the kernel refuses a call, as mm_vma's limit: for most calls
 * that of all that it lets a process have, `more` for others. */
static void limit_areas(struct run *r, int more)
{
    if (r->plan.room == 0)
        return;
    r->limits.areas = r->most + (uint64_t)(int64_t)more;
    mm_vma_set_limits(r->space, &r->limits);
}

/* A deliberate difference: where one area is left and a change of flags takes two, Linux makes the
 * first cut and then refuses. The model follows, once the kernel is seen to have done it. */
static void cut_as_linux(struct run *r, uintptr_t va, size_t length)
{
    const struct mm_vma *vma = mm_vma_find(r->space, va);
    unsigned lines;

    if (r->plan.room == 0 || r->space->map.count + 1 != r->most || vma == NULL ||
        mm_vma_start(vma) == va || mm_vma_end(vma) <= va + length)
        return;
    lines = read_maps(r, false);
    for (unsigned i = 0; i < lines; i++)
        if (r->lines[i].start == va)
            split_as_linux(r, va, 0);
}

static bool do_mmap(struct run *r)
{
    uintptr_t hint = some_page(r);
    size_t length = some_length(r, hint);
    int prot = some_prot(r), flags = chance(r, 75) ? MAP_PRIVATE : MAP_SHARED, fd = -1;
    unsigned how = below(r, 100);
    struct mm_vma_request q;
    mm_va_t va = 0;
    bool read_only = false;
    off_t offset = 0;
    long real, mine;

    if (how < 40)
        hint = 0;
    else if (how < 60)
        flags |= MAP_FIXED;
    else if (how < 73)
        flags |= MAP_FIXED_NOREPLACE;
    if (chance(r, 3))
        hint += 1 + below(r, PS - 1);
    if (chance(r, 2))
        length = 0;
    if (chance(r, 2))
        flags &= ~(MAP_PRIVATE | MAP_SHARED);
    if (flags == MAP_SHARED && chance(r, 10))
        flags = MAP_SHARED_VALIDATE;
    if (chance(r, 35)) {
        read_only = chance(r, 20);
        fd = r->fd[read_only];
        offset = (off_t)(chance(r, 50) ? (hint - r->window) & ~(PS - 1) : below(r, 40) * PS);
        if (hint == 0)
            offset = (off_t)(below(r, 40) * PS);
    } else {
        flags |= MAP_ANONYMOUS;
    }
    if (r->plan.stacks && chance(r, 10))
        flags |= MAP_GROWSDOWN;
    if (chance(r, 10))
        flags |= MAP_NORESERVE;
    if (chance(r, 8))
        flags |= MAP_POPULATE;
    if (chance(r, 5))
        flags |= MAP_LOCKED;
    if (chance(r, 5))
        flags |= MAP_STACK;
    if (chance(r, 2))
        flags |= MAP_32BIT; /* nothing is free there */
    if (chance(r, 2))
        flags |= MAP_NONBLOCK;
    if (chance(r, 4)) /* bits without a meaning */
        prot |= 1 << (3 + below(r, 22));
    if (chance(r, 4) && (flags & MAP_TYPE) != MAP_SHARED_VALIDATE)
        flags |= chance(r, 50) ? MAP_DENYWRITE : MAP_EXECUTABLE;
    if (hint + ((length + PS - 1) & ~(PS - 1)) > r->window + r->pages * PS)
        hint &= ~(PS - 1); /* the model's addresses end there, the kernel's do not */
    snprintf(r->what, sizeof r->what, "mmap(%lx, %zx, %d, %x, fd %d, %lx)", hint, length, prot,
             (unsigned)flags, fd, (unsigned long)offset);
    memset(&q, 0, sizeof q);
    q.hint = hint;
    q.bytes = length;
    q.prot = (unsigned)prot;
    q.flags = (unsigned)flags;
    q.file = fd < 0 ? NULL : file_of(0, read_only);
    q.may = read_only ? MM_VMA_READ | MM_VMA_EXEC : 0;
    q.offset = (uint64_t)offset;
    limit_areas(r, 1);
    real = result(syscall(SYS_mmap, hint, length, prot, flags, fd, offset));
    mine = mm_vma_mmap(r->space, &q, &va);
    if (real == -ENOMEM && mine == -ENOMEM && (flags & MAP_FIXED) != 0 && r->plan.room == 0)
        split_as_linux(r, hint, (length + PS - 1) & ~(PS - 1));
    return agree(r, real, mine < 0 ? mine : (long)va);
}

static bool do_munmap(struct run *r)
{
    uintptr_t va = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));

    limit_areas(r, 0);
    snprintf(r->what, sizeof r->what, "munmap(%lx, %zx)", va, length);
    return agree(r, result(syscall(SYS_munmap, va, length)), mm_vma_munmap(r->space, va, length));
}

static bool protect(struct run *r, uintptr_t va, size_t length, int prot)
{
    long real, mine;

    limit_areas(r, 0);
    snprintf(r->what, sizeof r->what, "mprotect(%lx, %zx, %x)", va, length, (unsigned)prot);
    real = result(syscall(SYS_mprotect, va, length, prot));
    mine = mm_vma_mprotect(r->space, va, length, (unsigned)prot);
    if (real == -ENOMEM && mine == -ENOMEM)
        cut_as_linux(r, va, length);
    return agree(r, real, mine);
}

static bool do_mprotect(struct run *r)
{
    uintptr_t va = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));
    int prot = some_prot(r) | (r->plan.stacks && chance(r, 5) ? PROT_GROWSDOWN : 0);

    if (chance(r, 4))
        prot |= MM_VMA_PROT_SEM; /* the kernel's PROT_SEM, which libc does not name */
    if (chance(r, 2))
        prot |= 0x40;
    return protect(r, va, length, prot);
}

static void take_limits(struct run *r);

/* A deliberate difference: Linux goes on counting as locked what DONTUNMAP has unlocked. */
static void forgive_locked(struct run *r)
{
    struct rlimit limit;
    struct mm_vma_totals t;
    uint64_t theirs[5], more;

    mm_vma_read_totals(r->space, &t);
    kernel_totals(r, theirs);
    more = theirs[1] - r->base[1] - t.locked;
    if (more == 0 || more > r->pages)
        return; /* fewer: that is no such difference */
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur != RLIM_INFINITY) {
        /* a limit of 0 is EPERM, which would be mm_vma's alone: it becomes a page */
        limit.rlim_cur += (limit.rlim_cur == 0 ? more + 1 : more) * PS;
        if (limit.rlim_cur > limit.rlim_max)
            limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_MEMLOCK, &limit);
    }
    r->base[1] += more;
    take_limits(r);
}

static bool do_mremap(struct run *r)
{
    uintptr_t old = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0), target = some_page(r);
    size_t old_length = chance(r, 3) ? 0 : some_length(r, old & ~(PS - 1));
    size_t length = chance(r, 2) ? 0 : chance(r, 30) ? old_length : some_length(r, target);
    unsigned flags = below(r, 4) == 0 ? 0 : MREMAP_MAYMOVE;
    mm_va_t va = 0;
    long real, mine;
    bool locked, placed, crowded;
    unsigned areas, runs;

    if (chance(r, 40))
        flags |= MREMAP_FIXED;
    if (chance(r, 15))
        flags |= MREMAP_DONTUNMAP;
    if (chance(r, 3))
        flags |= 8u << below(r, 28);
    placed = (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0;
    if (chance(r, 3))
        target += 1 + below(r, PS - 1);
    /* a range that reaches out of the window would change what lies there */
    if (placed && target + length > r->window + r->pages * PS)
        target = r->window;
    if (target < r->window)
        target = r->window;
    if ((flags & MREMAP_FIXED) != 0 && target + length > r->window + r->pages * PS)
        return true;
    if ((flags & MREMAP_DONTUNMAP) != 0 && r->base[1] > 1000)
        return true; /* see forgive_locked: the limit has room for so many */
    areas = mmi_vma_areas_in(r->space, old >> 12, (old + old_length + PS - 1) >> 12, &runs);
    if (r->plan.room != 0 && areas > 1 && r->space->map.count + 5 + areas + runs >= r->most)
        return true; /* deliberate: where not all may be added, Linux adds the first ones */
    snprintf(r->what, sizeof r->what, "mremap(%lx, %zx, %zx, %x, %lx)", old, old_length, length,
             flags, target);
    locked = (flags & MREMAP_DONTUNMAP) != 0 &&
             mmi_vma_locked_in(r->space, old >> 12, (old + old_length + PS - 1) >> 12) != 0;
    /* the kernel wants room for what a move may add, and at a new place for what it may cut */
    limit_areas(r, placed ? -3 : length > old_length ? -1 : 0);
    crowded = r->plan.room != 0 && placed && r->space->map.count + 5 >= r->most;
    real = result(syscall(SYS_mremap, old, old_length, length, flags, target));
    mine = mm_vma_mremap(r->space, old, old_length, length, flags, target, &va);
    if (crowded && real == -ENOMEM && mine < 0)
        mine = real; /* it looks at this before other things */
    limit_areas(r, 0);
    if (real == mine && (flags & MREMAP_FIXED) != 0 &&
        (real == -ENOMEM || (real == -EFAULT && old_length == 0 && old == target))) {
        /* deliberate: a refused move has not unmapped its target; Linux finds out after that */
        syscall(SYS_munmap, target, length);
        mm_vma_munmap(r->space, target, length);
    }
    if (locked)
        forgive_locked(r);
    return agree(r, real, mine < 0 ? mine : (long)va);
}

/* A deliberate difference: mm_vma frees at once what Linux frees when memory runs short. Up to
 * where the advice stops, the kernel is made to as well. */
static void free_now(struct run *r, uintptr_t va, size_t length)
{
    uintptr_t end = va + length;
    struct mm_vma *vma;

    for (vma = mmi_vma_from(r->space, va >> 12); vma != NULL && mm_vma_start(vma) < end;
         vma = mmi_vma_from(r->space, vma->end))
        if (vma->file != NULL || (vma->flags & (MM_VMA_SHARED | MM_VMA_LOCKED)) != 0)
            end = mm_vma_start(vma);
    if (end > va)
        syscall(SYS_madvise, va, end - va, MADV_DONTNEED);
}

static bool do_madvise(struct run *r)
{
    static const int advices[] = {MADV_NORMAL, MADV_RANDOM,     MADV_SEQUENTIAL, MADV_DONTNEED,
                                  MADV_FREE,   MADV_DONTFORK,   MADV_DOFORK,     MADV_DONTDUMP,
                                  MADV_DODUMP, MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_WILLNEED,
                                  77,          MADV_HUGEPAGE,   MADV_NOHUGEPAGE};
    uintptr_t va = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));
    int advice = advices[below(r, r->huge ? 15 : 13)];
    long real, mine;

    limit_areas(r, 0);
    snprintf(r->what, sizeof r->what, "madvise(%lx, %zx, %d)", va, length, advice);
    if (advice == MADV_FREE && (va & (PS - 1)) == 0)
        free_now(r, va, length);
    real = result(syscall(SYS_madvise, va, length, advice));
    mine = mm_vma_madvise(r->space, va, length, advice);
    if (real == -EAGAIN && mine == -EAGAIN)
        cut_as_linux(r, va, length);
    return agree(r, real, mine);
}

static bool do_mlock(struct run *r)
{
    uintptr_t va = some_page(r) + (chance(r, 5) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));
    unsigned how =
        below(r, 20); /* mlock, mlock2 with and without ONFAULT, one with a wrong flag, munlock */
    long real, mine;

    if (va + length > r->window + r->pages * PS)
        length = 0;
    limit_areas(r, 0);
    snprintf(r->what, sizeof r->what, "%s(%lx, %zx) %u", how < 10 ? "mlock" : "munlock", va, length,
             how);
    real = result(how >= 10  ? syscall(SYS_munlock, va, length)
                  : how >= 5 ? syscall(SYS_mlock, va, length)
                             : syscall(SYS_mlock2, va, length, how % 3));
    mine = how >= 10  ? mm_vma_munlock(r->space, va, length)
           : how >= 5 ? mm_vma_mlock(r->space, va, length)
                      : mm_vma_mlock2(r->space, va, length, how % 3);
    if (real == -ENOMEM && mine == -ENOMEM) {
        length += va & (PS - 1);
        cut_as_linux(r, va & ~(PS - 1), length);
    }
    return agree(r, real, mine);
}

/* The break goes to any byte of the window but its last page, above which mm_vma has nothing to
 * keep a page free from; mostly a few pages up or down. */
static bool do_brk(struct run *r)
{
    static const uintptr_t odd[] = {1, PS, 0x7ffffffff000, 1ul << 63, 0 - 1ul, 0 - 2 * PS};
    uintptr_t now = (uintptr_t)syscall(SYS_brk, 0), last = r->window + (r->pages - 1) * PS, brk;

    brk = chance(r, 60) ? now + below(r, 12 * PS) - 6 * PS
                        : r->window + mm_test_below(&r->rng, last - r->window + 1);
    if (chance(r, 50))
        brk &= ~(PS - 1);
    if (brk < r->window || brk > last)
        brk = below(r, 2) == 0 ? odd[below(r, 6)] : r->window + r->pages * PS + below(r, 2 * PS);
    if (brk > r->low && brk < 0x7ffffffff000 && brk - r->low > r->limits.data)
        return true; /* the limit of the break alone: the kernel's counts the program's data too */
    snprintf(r->what, sizeof r->what, "brk(%lx) at %lx", brk, now);
    limit_areas(r, brk > now);
    r->brks += brk != now && syscall(SYS_brk, brk) == (long)brk;
    return agree(r, syscall(SYS_brk, 0), (long)mm_vma_brk(r->space, brk));
}

/* An access by the kernel on the child's behalf: a byte read into, or written from, the address. */
static bool touch(struct run *r, uintptr_t va, bool write)
{
    unsigned char byte = (unsigned char)(1 + below(r, 255)), value = byte;
    enum mm_vma_fault fault;
    long real;

    snprintf(r->what, sizeof r->what, "%s at %lx", write ? "write" : "read", va);
    if (write) {
        if (syscall(SYS_write, r->pipe[1], &byte, 1) != 1)
            return false;
        real = result(syscall(SYS_read, r->pipe[0], va, 1));
        if (real != 1 && syscall(SYS_read, r->pipe[0], &byte, 1) != 1)
            return false;
    } else {
        real = result(syscall(SYS_write, r->pipe[1], va, 1));
        if (real == 1 && syscall(SYS_read, r->pipe[0], &byte, 1) != 1)
            return false;
    }
    fault = mm_vma_fault(r->space, va, write ? MM_VMA_WRITE : MM_VMA_READ);
    if (fault == MM_VMA_FAULT_OK) {
        unsigned char *mine = content_of(r, entry_of(r->space->pt, va)->pa);

        r->reads += !write;
        if (write)
            *mine = value;
        else if (real == 1 && *mine != byte)
            return printf("# %s: the kernel reads %u, mm_vma %u\n", r->what, byte, *mine) < 0;
    }
    return agree(r, real == 1 ? 0 : real, fault == MM_VMA_FAULT_OK ? 0 : -EFAULT);
}

static bool do_touch(struct run *r)
{
    uintptr_t va = some_page(r) - (r->plan.stacks && chance(r, 30) ? below(r, 8) * PS : 0);

    return touch(r, va < r->window ? r->window : va, chance(r, 60));
}

/* A hole between two areas is filled exactly, by a new area like the one below it, or by that one's
 * growth: often both join, and often they have identities of their own. */
static bool do_fill(struct run *r)
{
    struct mm_vma *vma = mmi_vma_from(r->space, some_page(r) >> 12), *next;
    unsigned long start, end, above, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    struct mm_vma_request q;
    mm_va_t va = 0;
    long real, mine;

    next = vma == NULL ? NULL : mmi_vma_from(r->space, vma->end);
    if (next == NULL || next->start == vma->end || next->start - vma->end >= HUGE / PS ||
        vma->file != NULL)
        return true;
    start = mm_vma_start(vma);
    end = mm_vma_end(vma);
    above = mm_vma_start(next);
    memset(&q, 0, sizeof q);
    q.prot = vma->flags & MM_VMA_PROT;
    flags |= (vma->flags & MM_VMA_NORESERVE) != 0 ? MAP_NORESERVE : 0;
    if (chance(r, 40) && !touch(r, end - PS, true))
        return false;
    if (chance(r, 40) && !touch(r, above, true))
        return false;
    snprintf(r->what, sizeof r->what, "fill %lx-%lx", end, above);
    if (chance(r, 50)) {
        q.hint = end;
        q.bytes = above - end;
        q.flags = (unsigned)flags;
        limit_areas(r, 1);
        real = result(syscall(SYS_mmap, end, above - end, q.prot, flags, -1, 0));
        mine = mm_vma_mmap(r->space, &q, &va);
        if (real == -ENOMEM && mine == -ENOMEM && r->plan.room == 0)
            split_as_linux(r, end, above - end);
    } else {
        real = result(syscall(SYS_mremap, start, end - start, above - start, 0));
        mine = mm_vma_mremap(r->space, start, end - start, above - start, 0, 0, &va);
    }
    if (!agree(r, real, mine < 0 ? mine : (long)va))
        return false;
    return real < 0 || chance(r, 50) ||
           (protect(r, above - PS, PS, PROT_NONE) && protect(r, above - PS, PS, (int)q.prot));
}

/* ---- limits ---------------------------------------------------------------------------------- */

static const struct {
    int resource;
    unsigned base; /* of what the process has beside: totals */
} limited[] = {{RLIMIT_AS, 0}, {RLIMIT_MEMLOCK, 1}, {RLIMIT_DATA, 2}, {RLIMIT_STACK, 5}};

/* The kernel's limits, without what the process has beside, become mm_vma's. */
static void take_limits(struct run *r)
{
    uint64_t *mine[] = {&r->limits.total, &r->limits.locked, &r->limits.data, &r->limits.stack};
    struct rlimit limit;

    for (unsigned i = 0; i < 4; i++) {
        getrlimit(limited[i].resource, &limit);
        *mine[i] = MM_VMA_UNLIMITED;
        if (limit.rlim_cur != RLIM_INFINITY)
            *mine[i] = limit.rlim_cur - (limited[i].base < 5 ? r->base[limited[i].base] * PS : 0);
    }
    mm_vma_set_limits(r->space, &r->limits);
}

static bool do_limit(struct run *r)
{
    unsigned i = below(r, 4), base = limited[i].base;
    struct rlimit limit;
    rlim_t wanted;

    getrlimit(limited[i].resource, &limit);
    wanted = (base < 5 ? r->base[base] * PS : 0) + below(r, r->pages) * PS;
    wanted += base == 0 || base == 2 ? r->window - r->low : 0;
    if (base == 1)
        wanted = r->base[1] == 0 ? below(r, 12) * PS : (r->base[1] + 1 + below(r, 11)) * PS;
    limit.rlim_cur = chance(r, 30) || wanted > limit.rlim_max ? limit.rlim_max : wanted;
    if (setrlimit(limited[i].resource, &limit) != 0)
        return false;
    take_limits(r);
    return true;
}

/* ---- fork ------------------------------------------------------------------------------------ */

static bool some_calls(struct run *r, unsigned calls);

/* The child has its mother's memory as it was, and then a life of its own, which may bear children
 * too. */
static bool childhood(struct run *r, int gate)
{
    char byte;

    r->depth++;
    r->space = &r->spaces[r->depth];
    r->rng.state ^= r->depth;
    r->base[1] = 0; /* nothing is locked */
    take_limits(r);
    return read(gate, &byte, 1) == 1 && same_totals(r) && same_all(r) && some_calls(r, 150) &&
           same_all(r);
}

/* While the child waits, the parent makes calls and writes to what they share. */
static bool do_fork(struct run *r)
{
    struct mm_vma_space *child = &r->spaces[r->depth + 1];
    int gate[2], status = 0;
    bool same;
    pid_t pid;

    if (r->depth + 1 > DEPTH - 1 || child->users != 0)
        return true;
    snprintf(r->what, sizeof r->what, "fork of generation %u", r->depth);
    memset(&r->tables[r->depth + 1], 0, sizeof r->tables[0]);
    if (pipe(gate) != 0 || (pid = fork()) < 0 ||
        mm_vma_fork(child, r->space, &r->tables[r->depth + 1]) != MM_VMA_OK)
        return false;
    if (pid == 0)
        _exit(childhood(r, gate[0]) ? 0 : 1);
    same = same_all(r) && some_calls(r, 20) && same_all(r);
    same = write(gate[1], "", 1) == 1 && waitpid(pid, &status, 0) == pid && status == 0 && same;
    close(gate[0]);
    close(gate[1]);
    r->forks++;
    return mm_vma_leave(child) && same;
}

static bool step(struct run *r)
{
    unsigned dice = below(r, 1000);

    if (dice < 4 && r->plan.forks)
        return do_fork(r);
    if (dice < 20 && r->plan.limits)
        return do_limit(r);
    dice /= 10;
    if (dice < 32)
        return do_mmap(r);
    if (dice < 50)
        return do_munmap(r);
    if (dice < 66)
        return do_mprotect(r);
    if (dice < 80)
        return do_mremap(r);
    if (dice < 88)
        return do_madvise(r);
    if (dice < 91)
        return do_mlock(r);
    if (dice < 94)
        return do_brk(r);
    if (dice < 96)
        return do_fill(r);
    return do_touch(r);
}

static bool some_calls(struct run *r, unsigned calls)
{
    for (unsigned i = 0; i < calls; i++)
        if (!step(r) || (i % 128 == 127 && !same_all(r)))
            return printf("# at call %u of generation %u\n", i, r->depth) < 0;
    return true;
}

/* ---- the window ------------------------------------------------------------------------------ */

/* Takes every address that is free: shared, so that nothing of it merges with what the window
 * has. */
static bool fill_gaps(struct run *r, uintptr_t low, uintptr_t high)
{
    uintptr_t at = low, start, end;
    char *p, *q;

    read_file(r, "/proc/self/maps");
    for (p = r->text;; p = strchr(p, '\n') + 1) {
        start = *p == 0 ? high : strtoul(p, &q, 16);
        end = *p == 0 ? high : strtoul(q + 1, &q, 16);
        start = start > high ? high : start;
        if (start > at && syscall(SYS_mmap, at, start - at, PROT_NONE,
                                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                                  -1, 0) == -1) {
            printf("# cannot take %lx-%lx: %s\n", at, start, strerror(errno));
            return false;
        }
        at = end > at ? end : at;
        if (*p == 0 || at >= high)
            return true;
    }
}

/* Puts the window behind the heap, and notes where the area begins that ends there. */
static bool place_window(struct run *r)
{
    uintptr_t brk = ((uintptr_t)syscall(SYS_brk, 0) + PS - 1) & ~(PS - 1);
    unsigned count;

    if ((uintptr_t)syscall(SYS_brk, brk) != brk ||
        syscall(SYS_mmap, brk, r->pages * PS, PROT_NONE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                0) != (long)brk ||
        !fill_gaps(r, 0x10000, 0x7ffffffff000))
        return false;
    r->huge = madvise((void *)brk, PS, MADV_HUGEPAGE) == 0;
    munmap((void *)brk, r->pages * PS);
    r->window = r->low = brk;
    r->low = 0;
    count = read_maps(r, false);
    r->low = count != 0 ? r->lines[count - 1].start : 0;
    return count != 0 && r->lines[count - 1].end == r->window &&
           r->window - r->low <= (TABLE - r->pages) * PS;
}

/* Cuts what lies above the window into as many areas as a process may have, but for a few. */
static bool crowd(struct run *r)
{
    uintptr_t at = r->window + (r->pages + 1) * PS;
    uint64_t most, count = 0;

    read_file(r, "/proc/sys/vm/max_map_count");
    most = strtoul(r->text, NULL, 10);
    read_file(r, "/proc/self/maps");
    for (char *p = r->text; *p != 0; p = strchr(p, '\n') + 1)
        count += strncmp(strchr(p, '\n') - 10, "[vsyscall]", 10) != 0; /* it is no area */
    r->most = most - count + 1; /* the heap is one of mm_vma's, too */
    for (; count + r->plan.room < most; count += 2, r->most -= 2, at += 2 * PS)
        if (mprotect((void *)at, PS, PROT_READ) != 0)
            return printf("# area %llu: %s\n", (unsigned long long)count, strerror(errno)) < 0;
    return true;
}

/* The area before the window, as mm_vma has to know it: written to, and inherited by fork. */
static bool enter_heap(struct run *r)
{
    struct mm_vma_totals t;

    if (mm_vma_install(r->space, MM_VMA_HEAP, r->low, r->window - r->low, 0, 0) != MM_VMA_OK)
        return false;
    mm_vma_find(r->space, r->low)->anon = ++r->space->next_anon * 2 + 1;
    mm_vma_read_totals(r->space, &t);
    kernel_totals(r, r->base);
    r->base[0] -= t.total;
    r->base[2] -= t.data;
    r->limits.areas = MM_VMA_UNLIMITED;
    take_limits(r);
    return same_list(r, true);
}

/* Locking is limited, and the lowest addresses are out of reach, for all but those who may do
 * anything. */
static void drop_capability(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data) != 0)
        return;
    data[0].effective &= ~(1u << CAP_IPC_LOCK | 1u << CAP_SYS_RAWIO);
    (void)syscall(SYS_capset, &header, data);
}

/* The file can be read through one descriptor, and written to through the other. */
static bool open_files(struct run *r)
{
    char path[64];

    r->fd[0] = memfd_create("vma", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", r->fd[0]);
    r->fd[1] = open(path, O_RDONLY);
    r->object[0].pages = r->common->next_page = FILED;
    r->objects = 1;
    return r->fd[1] >= 0 && ftruncate(r->fd[0], FILED * (off_t)PS) == 0 && pipe(r->pipe) == 0;
}

static void hooks_of(struct run *r, struct mm_vma_hooks *h)
{
    memset(h, 0, sizeof *h);
    h->ctx = r;
    h->nodes.ctx = r;
    h->nodes.alloc = node_alloc;
    h->nodes.free = node_free;
    h->area_alloc = area_alloc;
    h->area_free = area_free;
    h->pt_map = pt_map;
    h->pt_protect = pt_protect;
    h->pt_clear = pt_clear;
    h->pt_next = pt_next;
    h->pt_flush = pt_flush;
    h->frame_alloc = frame_alloc;
    h->frame_free = frame_free;
    h->frame_copy = frame_copy;
    h->frame = frame;
    h->file_page = file_page;
    h->file_page_put = file_page_put;
    h->shared = shared_new;
}

/* This process's own stack finds no room any more when the gaps are filled. */
static __attribute__((noinline)) void grow_stack(void)
{
    volatile char bytes[1 << 19];

    for (size_t i = sizeof bytes; i != 0; i -= 1024)
        bytes[i - 1024] = 1;
}

static bool set_up(struct run *r)
{
    struct mm_vma_config config;
    struct mm_vma_hooks hooks;

    run = r;
    grow_stack();
    hooks_of(r, &hooks);
    for (unsigned i = 0; i < AREAS; i++) {
        area_free(r, &r->areas[i]);
        node_free(r, &r->nodes[i]);
    }
    for (unsigned i = FRAMES - 1; i != 0; i--)
        r->frames[r->free_frames++] = i;
    drop_capability();
    if (!open_files(r) || prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0 || !place_window(r))
        return false;
    mm_vma_config_init(&config);
    config.low = config.up_base = config.brk = r->low;
    config.top = config.mmap_base = r->window + r->pages * PS;
    config.pt = &r->tables[0];
    r->space = &r->spaces[0];
    if (r->plan.room != 0 && !crowd(r))
        return false;
    if (mm_vma_system_init(&r->sys, &hooks) != MM_OK)
        return false;
    r->sys.zero_frame = 0;
    return mm_vma_space_init(r->space, &r->sys, &config) == MM_OK && enter_heap(r);
}

static int child(struct run *r, uint64_t ops)
{
    trace = getenv("VMA_TRACE") != NULL;
    if (!set_up(r))
        return 2;
    if (!some_calls(r, (unsigned)ops) || !same_all(r))
        return 1;
    printf("# %llu of %llu calls were refused, the break moved %llu times, %llu bytes read, %llu "
           "forks\n",
           (unsigned long long)r->fails, (unsigned long long)ops, (unsigned long long)r->brks,
           (unsigned long long)r->reads, (unsigned long long)r->forks);
    /* all belongs to what is compared; a stack that has grown down to the break can hold it for
     * long */
    return ops < 10000 || (r->fails * 20 > ops && (r->brks != 0 || r->plan.stacks) &&
                           (r->forks != 0) == r->plan.forks)
               ? 0
               : 3;
}

/* ---- extreme arguments ----------------------------------------------------------------------- */

#define TOP 0x7ffffffff000ul
#define ISLAND \
    0x300000000000ul /* four pages, with terabytes of nothing around, also under a sanitizer */
#define FAR 0x400000000000ul

/* A space that has a map and nothing else, of a process's usual shape. */
static bool plain_space(struct run *r)
{
    struct mm_vma_config config;
    struct mm_vma_hooks all, hooks;

    hooks_of(r, &all);
    memset(&hooks, 0, sizeof hooks);
    hooks.ctx = r;
    hooks.nodes = all.nodes;
    hooks.area_alloc = all.area_alloc;
    hooks.area_free = all.area_free;
    hooks.shared = all.shared;
    for (unsigned i = 0; i < AREAS; i++) {
        area_free(r, &r->areas[i]);
        node_free(r, &r->nodes[i]);
    }
    mm_vma_config_init(&config);
    r->space = &r->spaces[0];
    return mm_vma_system_init(&r->sys, &hooks) == MM_OK &&
           mm_vma_space_init(r->space, &r->sys, &config) == MM_OK;
}

static bool as_the_kernel(const char *what, int number, long real, long mine)
{
    if (mine != real)
        printf("# %s %d: the kernel says %ld, mm_vma %ld\n", what, number, real, mine);
    return mine == real;
}

enum { MUNMAP, MPROTECT, MADVISE, MLOCK, MUNLOCK, CALLS };

/* The island as at first, on both sides. */
static bool make_island(struct run *r)
{
    struct mm_vma_request q;
    mm_va_t va;

    memset(&q, 0, sizeof q);
    q.hint = ISLAND;
    q.bytes = 4 * PS;
    q.prot = MM_VMA_READ | MM_VMA_WRITE;
    q.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    mm_vma_clear(r->space);
    syscall(SYS_munmap, FAR, 64 * PS);
    syscall(SYS_munmap, ISLAND + 4 * PS, 64 * PS);
    return mm_vma_mmap(r->space, &q, &va) == MM_VMA_OK &&
           syscall(SYS_mmap, ISLAND, 4 * PS, 3, q.flags, -1, 0) == (long)ISLAND;
}

static bool range_call(struct run *r, unsigned call, uintptr_t va, size_t length)
{
    static const long number[CALLS] = {SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mlock,
                                       SYS_munlock};
    long mine, real;

    mine = call == MUNMAP     ? mm_vma_munmap(r->space, va, length)
           : call == MPROTECT ? mm_vma_mprotect(r->space, va, length, 1)
           : call == MADVISE  ? mm_vma_madvise(r->space, va, length, MADV_RANDOM)
           : call == MLOCK    ? mm_vma_mlock(r->space, va, length)
                              : mm_vma_munlock(r->space, va, length);
    if (mine == 0 && length > 64 * PS && call == MUNMAP)
        return make_island(r); /* it would take this program's memory away */
    real = result(syscall(number[call], va, length, 1, 0, 0)); /* 1: PROT_READ, MADV_RANDOM */
    if (mine != real)
        printf("# call %u of (%lx, %zx): the kernel says %ld, mm_vma %ld\n", call, va, length, real,
               mine);
    return mine == real && (mine == -EINVAL || make_island(r));
}

static bool remap_call(struct run *r, uintptr_t va, size_t old, size_t length, unsigned flags,
                       uintptr_t target)
{
    mm_va_t at = 0;
    long mine = mm_vma_mremap(r->space, va, old, length, flags, target, &at), real;

    if (mine == 0 &&
        (((flags & MREMAP_FIXED) == 0 && at != va) || old > 64 * PS || length > 64 * PS))
        return make_island(
            r); /* where each side has room, and what this program needs, are other things */
    real = result(syscall(SYS_mremap, va, old, length, flags, target));
    mine = mine == 0 ? (long)at : mine;
    if (mine != real)
        printf("# mremap(%lx, %zx, %zx, %u, %lx): the kernel says %lx, mm_vma %lx\n", va, old,
               length, flags, target, (unsigned long)real, (unsigned long)mine);
    return mine == real && (mine == -EINVAL || make_island(r));
}

/* mmap of nothing that costs anything, or of the file. What either side chooses by itself is not
 * compared, but whether it takes the hint; nothing of this program is replaced. */
static bool map_call(struct run *r, uintptr_t hint, size_t length, unsigned flags, uint64_t offset)
{
    const bool file = (flags & MAP_ANONYMOUS) == 0, fixed = (flags & MAP_FIXED) != 0;
    const bool free = hint >= ISLAND - (1ul << 30) && hint < FAR && length <= 1ul << 30;
    struct mm_vma_request q;
    mm_va_t at = 0;
    long mine, real;

    memset(&q, 0, sizeof q);
    q.hint = hint;
    q.bytes = length;
    q.flags = flags;
    q.file = file ? file_of(0, false) : NULL;
    q.offset = offset;
    mine = mm_vma_mmap(r->space, &q, &at);
    if (mine == -EPERM && hint != 0)
        return true; /* the kernel has two lowest addresses, for hints and for what is fixed */
    if (hint > 0 - PS && (fixed || (flags & MAP_FIXED_NOREPLACE) != 0))
        return mine < 0; /* and here it takes the address for an error number */
    if (mine == 0 && !free && ((flags & MAP_FIXED_NOREPLACE) != 0 || fixed || length > 1ul << 30))
        return make_island(r); /* what this program has there counts for the kernel only */
    real = result(syscall(SYS_mmap, hint, length, PROT_NONE, flags, file ? r->fd[0] : -1, offset));
    if (real > 0)
        syscall(SYS_munmap, real, length);
    if (mine == 0 && real > 0 && !fixed && (uintptr_t)real != hint && at != hint)
        real = (long)at;
    mine = mine == 0 ? (long)at : mine;
    if (mine != real)
        printf("# mmap(%lx, %zx, %x, %llx): the kernel says %lx, mm_vma %lx\n", hint, length, flags,
               (unsigned long long)offset, (unsigned long)real, (unsigned long)mine);
    return mine == real && (mine < 0 || make_island(r));
}

/* Does this program itself have a page there? Its stack ends at TOP where nothing is randomised. */
static bool is_taken(uintptr_t va)
{
    unsigned char resident;

    return va - ISLAND >= 4 * PS && mincore((void *)(va & ~(PS - 1)), PS, &resident) == 0;
}

/* Every call with ends of address spaces, of words, of areas, and what wraps. */
static int extremes(struct run *r, uint64_t ops)
{
    static const uintptr_t at[] = {0,
                                   1,
                                   PS,
                                   ISLAND - PS,
                                   ISLAND,
                                   ISLAND + 1,
                                   ISLAND + PS,
                                   ISLAND + 4 * PS,
                                   TOP - 2 * PS,
                                   TOP - PS,
                                   TOP,
                                   TOP + PS,
                                   1ul << 63,
                                   0 - 2 * PS,
                                   0 - PS,
                                   0 - 1ul};
    static const size_t lengths[] = {
        0,          1,        PS,        PS + 1,          4 * PS,     5 * PS,     TOP - ISLAND,
        TOP,        TOP + PS, 1ul << 63, 0 - ISLAND - PS, 0 - ISLAND, 0 - 2 * PS, 0 - PS,
        0 - PS + 1, 0 - 1ul};
    static const uintptr_t targets[] = {FAR, ISLAND + 2 * PS, TOP - PS, TOP, 0 - PS, FAR + 1};
    static const unsigned kinds[] = {MAP_ANONYMOUS, 0, MAP_ANONYMOUS | MAP_FIXED, MAP_FIXED,
                                     MAP_ANONYMOUS | MAP_FIXED_NOREPLACE};
    static const uint64_t offsets[] = {0, 1, PS, 1ull << 62, (1ull << 63) - PS, 0 - (uint64_t)PS};
    uint64_t calls = 0;
    bool same = true;

    (void)ops;
    if (!open_files(r) || !plain_space(r) || !make_island(r))
        return 2;
    drop_capability();
    r->limits.areas = MM_VMA_UNLIMITED;
    take_limits(r);
    for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++)
        for (unsigned j = 0; j < sizeof lengths / sizeof lengths[0] && !is_taken(at[i]); j++) {
            for (unsigned call = 0; call < CALLS; call++, calls++)
                same = range_call(r, call, at[i], lengths[j]) && same;
            for (unsigned k = 0; k < 5 * 6; k++, calls++)
                same = map_call(r, at[i], lengths[j], MAP_PRIVATE | MAP_NORESERVE | kinds[k % 5],
                                offsets[k / 5]) &&
                       same;
            for (unsigned k = 0; k < sizeof lengths / sizeof lengths[0]; k++)
                for (unsigned flags = 0; flags <= 8; flags++, calls++)
                    same = remap_call(r, at[i], lengths[j], lengths[k], flags,
                                      targets[(i + j + k + flags) % 6]) &&
                           same;
        }
    printf("# %llu calls\n", (unsigned long long)calls);
    return same ? 0 : 1;
}

/* ---- a linear area --------------------------------------------------------------------------- */

/* The pages from which the kernel tells the time ([vvar]) are frames of its own in each process: a
 * linear area, if private and in one piece. What is done to all of it has the same result. */
static int linear_calls(struct run *r, uint64_t ops)
{
    static const int advices[] = {MADV_NORMAL,   MADV_RANDOM,     MADV_SEQUENTIAL, MADV_WILLNEED,
                                  MADV_DONTNEED, MADV_FREE,       MADV_DOFORK,     MADV_DONTFORK,
                                  MADV_DOFORK,   MADV_KEEPONFORK, MADV_DONTDUMP,   MADV_DODUMP};
    static const struct {
        int pages; /* more than there are */
        unsigned flags;
        bool away; /* to FAR, else back */
    } moves[] = {{0, 0, false},
                 {0, MREMAP_MAYMOVE, false},
                 {1, 0, false},
                 {1, MREMAP_MAYMOVE, false},
                 {0, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, true},
                 {0, MREMAP_MAYMOVE | MREMAP_DONTUNMAP | MREMAP_FIXED, true},
                 {1, MREMAP_MAYMOVE | MREMAP_FIXED, true},
                 {0, MREMAP_MAYMOVE | MREMAP_FIXED, true},
                 {0, MREMAP_MAYMOVE | MREMAP_FIXED, false}};
    const char *line;
    uintptr_t va, at;
    size_t length;
    bool same = true;
    long real, mine;

    (void)ops;
    if (!plain_space(r))
        return 2;
    read_file(r, "/proc/self/maps");
    line = strstr(r->text, "[vvar]\n");
    if (line == NULL)
        return printf("# the kernel has none\n") < 0;
    while (line != r->text && line[-1] != '\n')
        line--;
    at = va = strtoul(line, (char **)&line, 16);
    length = strtoul(line + 1, NULL, 16) - va;
    if (mm_vma_install(r->space, MM_VMA_LINEAR, va, length, 1 << 30, MM_VMA_READ) != MM_VMA_OK)
        return 2;
    for (unsigned i = 0; i < sizeof advices / sizeof advices[0]; i++) {
        real = result(syscall(SYS_madvise, va, length, advices[i]));
        mine = mm_vma_madvise(r->space, va, length, advices[i]);
        same = as_the_kernel("madvise", advices[i], real, mine) && same;
    }
    same = as_the_kernel("mlock", 0, result(syscall(SYS_mlock, va, length)),
                         mm_vma_mlock(r->space, va, length)) &&
           r->space->locked == 0 && same;
    same = as_the_kernel("munlock", 0, result(syscall(SYS_munlock, va, length)),
                         mm_vma_munlock(r->space, va, length)) &&
           same;
    same = as_the_kernel("mprotect", 0, result(syscall(SYS_mprotect, va, length, PROT_NONE)),
                         mm_vma_mprotect(r->space, va, length, 0)) &&
           same;
    for (unsigned i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        const size_t wanted = length + (size_t)moves[i].pages * PS;
        const uintptr_t to = moves[i].away ? FAR : va;
        mm_va_t there = 0;

        real = result(syscall(SYS_mremap, at, length, wanted, moves[i].flags, to));
        mine = mm_vma_mremap(r->space, at, length, wanted, moves[i].flags, to, &there);
        at = real > 0 ? (uintptr_t)real : at;
        same = as_the_kernel("mremap", (int)i, real, mine == 0 ? (long)there : mine) && same;
    }
    same = as_the_kernel("munmap", 0, result(syscall(SYS_munmap, at, length)),
                         mm_vma_munmap(r->space, at, length)) &&
           same;
    return same && r->space->map.count == 0 ? 0 : 1;
}

static void in_child(int (*call)(struct run *, uint64_t), const struct plan *plan)
{
    struct run *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t seed = mm_test_seed();
    int status;
    pid_t pid;

    assert_ptr_not_equal(r, MAP_FAILED);
    r->common =
        mmap(NULL, sizeof *r->common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(r->common, MAP_FAILED);
    r->rng = mm_test_rng(seed, plan->stream);
    r->plan = *plan;
    r->pages = plan->pages;
    r->enough = sizeof r->text - 1;
    *(volatile char *)sbrk((intptr_t)PS) = 1; /* there is a heap, and it has an identity */
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(call(r, mm_test_ops() / 50));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        fail_msg("the child was ended by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    munmap(r->common, sizeof *r->common);
    munmap(r, sizeof *r);
}

static void calls_in_a_narrow_window(void **state)
{
    static const struct plan plan = {40, 12, false, false, false, 1, 0};

    (void)state;
    in_child(child, &plan);
}

static void calls_in_a_wide_window(void **state)
{
    static const struct plan plan = {400, 24, false, false, false, 2, 0};

    (void)state;
    in_child(child, &plan);
}

static void growing_stacks(void **state)
{
    static const struct plan plan = {3000, 300, true, false, false, 3, 0};

    (void)state;
    in_child(child, &plan);
}

static void under_changing_limits(void **state)
{
    static const struct plan plan = {200, 40, true, true, false, 4, 0};

    (void)state;
    in_child(child, &plan);
}

static void as_many_areas_as_there_may_be(void **state)
{
    static const struct plan plan = {100, 10, false, false, false, 7, 24};

    (void)state;
    in_child(child, &plan);
}

static void extreme_arguments(void **state)
{
    static const struct plan plan = {0, 0, false, false, false, 6, 0};

    (void)state;
    in_child(extremes, &plan);
}

static void linear_areas(void **state)
{
    static const struct plan plan = {0, 0, false, false, false, 8, 0};

    (void)state;
    in_child(linear_calls, &plan);
}

static void forks_and_their_forks(void **state)
{
    static const struct plan plan = {64, 16, false, false, true, 5, 0};

    (void)state;
    in_child(child, &plan);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_in_a_narrow_window), cmocka_unit_test(calls_in_a_wide_window),
        cmocka_unit_test(growing_stacks),           cmocka_unit_test(under_changing_limits),
        cmocka_unit_test(forks_and_their_forks),    cmocka_unit_test(as_many_areas_as_there_may_be),
        cmocka_unit_test(extreme_arguments),        cmocka_unit_test(linear_areas),
    };

    if (access("/proc/self/maps", R_OK) != 0 || sysconf(_SC_PAGESIZE) != (long)PS ||
        sizeof(long) != 8) {
        printf("1..0 # SKIP no /proc/self/maps with pages of 4 KiB\n");
        return 0;
    }
    (void)argc;
    if (!MM_TEST_SANITIZED && (personality(0xffffffff) & ADDR_NO_RANDOMIZE) != 0 &&
        personality(personality(0xffffffff) & ~(unsigned long)ADDR_NO_RANDOMIZE) != -1)
        execv("/proc/self/exe", argv); /* with a stack that does not end at TOP */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
