/* The host kernel as the oracle: random calls inside a window of a child process whose other addresses are
 * all taken, by real system calls and by mm_vma side by side. After each call the result code, the address
 * and the whole list of areas must agree. The window begins where the child's heap ends, so that the break
 * moves within it; it never goes below the window, because the heap there is libc's. */
#include "vma_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
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

#define AREAS 4096u
#define FILES 64u
#define PS    4096ul
#define HUGE  (PS * 512)

struct line {
    uintptr_t start, end;
    char perm[5];
    unsigned long offset;
    bool file, heap;
};

/* Everything is allocated before the window is closed: malloc has no address left after that. */
struct run {
    struct mm_vma areas[AREAS];
    struct mm_vma_node nodes[AREAS];
    struct mm_vma_system sys;
    struct mm_vma_space space;
    struct mm_test_rng rng;
    char text[1 << 20];
    struct line lines[AREAS];
    struct mm_vma *free_areas;
    struct mm_vma_node *free_nodes;
    char files[FILES];
    uint64_t shared_pages[1 << 20];
    unsigned next_file, pages, longest, limit;
    uintptr_t window, low; /* low: where the heap before the window begins */
    int memfd, pipe[2];
    bool stacks, huge; /* huge: the kernel knows MADV_HUGEPAGE */
    char what[256];
    uint64_t fails, brks; /* calls that were refused; breaks that moved */
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

/* Each shared anonymous mapping is a file of its own; a number does for it. */
static enum mm_status shared_new(void *ctx, uint64_t pages, void **file)
{
    struct run *r = ctx;

    r->shared_pages[++r->next_file] = pages;
    *file = (void *)(uintptr_t)(0x10000 + r->next_file);
    return MM_OK;
}

/* Reads /proc/self/maps into r->lines, as far as it lies in the window. No libc call that allocates. */
static unsigned read_maps(struct run *r)
{
    int fd = open("/proc/self/maps", O_RDONLY);
    size_t length = 0;
    unsigned count = 0;
    ssize_t got;

    while ((got = read(fd, r->text + length, sizeof r->text - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    r->text[length] = 0;
    for (char *p = r->text; *p != 0; p = strchr(p, '\n') + 1) {
        struct line *l = &r->lines[count];
        char *q;

        l->start = strtoul(p, &q, 16);
        l->end = strtoul(q + 1, &q, 16);
        memcpy(l->perm, q + 1, 4);
        l->perm[4] = 0;
        l->offset = strtoul(q + 6, &q, 16);
        strtoul(q + 1, &q, 16);
        strtoul(q + 1, &q, 16);
        l->file = strtoul(q, &q, 10) != 0;
        l->heap = strncmp(q + strspn(q, " "), "[heap]", 6) == 0;
        if (l->start >= r->low && l->end <= r->window + r->pages * PS && count + 1 < AREAS)
            count++;
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

    for (struct mm_vma *vma = mm_vma_cursor_seek(&c, &r->space.map, 0); vma != NULL;
         vma = mm_vma_cursor_next(&c))
        printf("#   %llx-%llx flags %lx anon %lu page offset %lx\n",
               (unsigned long long)mm_vma_start(vma), (unsigned long long)mm_vma_end(vma),
               (unsigned long)vma->flags, (unsigned long)vma->anon, (unsigned long)vma->offset);
}

static bool same_list(struct run *r)
{
    unsigned count = read_maps(r), i = 0;
    struct mm_vma_cursor c;
    bool same = true;

    for (struct mm_vma *vma = mm_vma_cursor_seek(&c, &r->space.map, 0); vma != NULL;
         vma = mm_vma_cursor_next(&c), i++) {
        struct line mine = {mm_vma_start(vma), mm_vma_end(vma),   "----",
                            vma->offset * PS,  vma->file != NULL, false};
        char text[128];

        mm_vma_format(&r->space, vma, text, sizeof text);
        mine.heap = strstr(text, "[heap]") != NULL;
        mine.perm[0] = vma->flags & MM_VMA_READ ? 'r' : '-';
        mine.perm[1] = vma->flags & MM_VMA_WRITE ? 'w' : '-';
        mine.perm[2] = vma->flags & MM_VMA_EXEC ? 'x' : '-';
        mine.perm[3] = vma->flags & MM_VMA_SHARED ? 's' : 'p';
        if (!mine.file)
            mine.offset = 0;
        if (i < count && mine.start == r->lines[i].start && mine.end == r->lines[i].end &&
            mine.file == r->lines[i].file && mine.heap == r->lines[i].heap &&
            mine.offset == r->lines[i].offset && strcmp(mine.perm, r->lines[i].perm) == 0)
            continue;
        if (same) {
            printf("# lists differ after %s\n", r->what);
            describe(&mine, "mm_vma");
            printf("#   flags %lx anon %lu page offset %lx\n", vma->flags, vma->anon, vma->offset);
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

/* ---- random arguments ------------------------------------------------------------------------- */

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
        vma = mmi_vma_from(&r->space, page >> 12);
        if (vma != NULL && mm_vma_start(vma) > r->window)
            page = mm_vma_start(vma);
    }
    return page;
}

static size_t some_length(struct run *r, uintptr_t va)
{
    size_t room = r->window + r->pages * PS - va, length = (1 + below(r, r->longest)) * PS;
    struct mm_vma *vma = mmi_vma_from(&r->space, va >> 12);

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

/* ---- calls, on both sides ------------------------------------------------------------------------ */

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
    return same_list(r);
}

static long result(long raw)
{
    return raw == -1 ? -(long)errno : raw;
}

/* A deliberate difference: a fixed mapping that the limit refuses leaves the areas in its way split in
 * Linux. The model is put into that state, so that later calls can be compared. */
static void split_as_linux(struct run *r, uintptr_t va, size_t length)
{
    uintptr_t borders[2] = {va >> 12, (va + length) >> 12};

    for (unsigned i = 0; i < 2; i++) {
        struct mm_vma *vma = mmi_vma_from(&r->space, borders[i]);

        if (vma == NULL || vma->start >= borders[i] ||
            mmi_vma_reserve(&r->space, 0, r->space.top, 1) != MM_VMA_OK)
            continue;
        mmi_vma_write_begin(&r->space.map);
        mmi_vma_split(&r->space, vma, borders[i]);
        mmi_vma_write_end(&r->space.map);
    }
}

static bool do_mmap(struct run *r)
{
    uintptr_t hint = some_page(r);
    size_t length = some_length(r, hint);
    int prot = some_prot(r), flags = chance(r, 75) ? MAP_PRIVATE : MAP_SHARED, fd = -1;
    unsigned how = below(r, 100);
    struct mm_vma_request q;
    mm_va_t va = 0;
    off_t offset = 0;
    long real, mine;

    if (how < 40)
        hint = 0;
    else if (how < 60)
        flags |= MAP_FIXED;
    else if (how < 75)
        flags |= MAP_FIXED_NOREPLACE;
    if (chance(r, 3))
        hint += 1 + below(r, PS - 1);
    if (chance(r, 2))
        length = 0;
    if (chance(r, 2))
        flags &= ~(MAP_PRIVATE | MAP_SHARED);
    if (chance(r, 35)) {
        fd = r->memfd;
        offset = (off_t)(chance(r, 50) ? (hint - r->window) & ~(PS - 1) : below(r, 40) * PS);
        if (hint == 0)
            offset = (off_t)(below(r, 40) * PS);
    } else {
        flags |= MAP_ANONYMOUS;
        if (r->stacks && chance(r, 15))
            flags |= MAP_GROWSDOWN;
    }
    if (chance(r, 10))
        flags |= MAP_NORESERVE;
    if (chance(r, 8))
        flags |= MAP_POPULATE;
    if (chance(r, 5))
        flags |= MAP_LOCKED;
    if (chance(r, 5))
        flags |= MAP_STACK;
    if (hint + ((length + PS - 1) & ~(PS - 1)) > r->window + r->pages * PS)
        hint &= ~(PS - 1); /* the model's addresses end there, the kernel's do not */
    snprintf(r->what, sizeof r->what, "mmap(%lx, %zx, %d, %x, fd %d, %lx)", hint, length, prot,
             (unsigned)flags, fd, (unsigned long)offset);
    memset(&q, 0, sizeof q);
    q.hint = hint;
    q.bytes = length;
    q.prot = (unsigned)prot;
    q.flags = (unsigned)flags;
    q.file = fd < 0 ? NULL : &r->files[0];
    q.offset = (uint64_t)offset;
    real = result(syscall(SYS_mmap, hint, length, prot, flags, fd, offset));
    mine = mm_vma_mmap(&r->space, &q, &va);
    if (real == -ENOMEM && mine == -ENOMEM && (flags & MAP_FIXED) != 0)
        split_as_linux(r, hint, (length + PS - 1) & ~(PS - 1));
    return agree(r, real, mine < 0 ? mine : (long)va);
}

static bool do_munmap(struct run *r)
{
    uintptr_t va = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));

    snprintf(r->what, sizeof r->what, "munmap(%lx, %zx)", va, length);
    return agree(r, result(syscall(SYS_munmap, va, length)), mm_vma_munmap(&r->space, va, length));
}

static bool do_mprotect(struct run *r)
{
    uintptr_t va = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));
    int prot = some_prot(r) | (r->stacks && chance(r, 5) ? PROT_GROWSDOWN : 0);

    if (chance(r, 2))
        prot |= 0x40;
    snprintf(r->what, sizeof r->what, "mprotect(%lx, %zx, %x)", va, length, (unsigned)prot);
    return agree(r, result(syscall(SYS_mprotect, va, length, prot)),
                 mm_vma_mprotect(&r->space, va, length, (unsigned)prot));
}

static bool do_mremap(struct run *r)
{
    uintptr_t old = some_page(r) + (chance(r, 2) ? 1 + below(r, PS - 1) : 0), target = some_page(r);
    size_t old_length = chance(r, 3) ? 0 : some_length(r, old & ~(PS - 1));
    size_t length = chance(r, 2) ? 0 : chance(r, 30) ? old_length : some_length(r, target);
    unsigned flags = below(r, 4) == 0 ? 0 : MREMAP_MAYMOVE;
    mm_va_t va = 0;
    long real, mine;

    if (chance(r, 40))
        flags |= MREMAP_FIXED;
    if (chance(r, 15))
        flags |= MREMAP_DONTUNMAP;
    if (chance(r, 3))
        target += 1 + below(r, PS - 1);
    /* a range that reaches out of the window would change what lies there */
    if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0 &&
        target + length > r->window + r->pages * PS)
        target = r->window;
    if (target < r->window)
        target = r->window;
    if ((flags & MREMAP_FIXED) != 0 && target + length > r->window + r->pages * PS)
        return true;
    snprintf(r->what, sizeof r->what, "mremap(%lx, %zx, %zx, %x, %lx)", old, old_length, length,
             flags, target);
    real = result(syscall(SYS_mremap, old, old_length, length, flags, target));
    mine = mm_vma_mremap(&r->space, old, old_length, length, flags, target, &va);
    if (real == mine && (flags & MREMAP_FIXED) != 0 &&
        (real == -ENOMEM || (real == -EFAULT && old_length == 0 && old == target))) {
        /* deliberate: a refused move has not unmapped its target; Linux finds out after that */
        syscall(SYS_munmap, target, length);
        mm_vma_munmap(&r->space, target, length);
    }
    return agree(r, real, mine < 0 ? mine : (long)va);
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

    snprintf(r->what, sizeof r->what, "madvise(%lx, %zx, %d)", va, length, advice);
    return agree(r, result(syscall(SYS_madvise, va, length, advice)),
                 mm_vma_madvise(&r->space, va, length, advice));
}

/* Whether [va, va + length) reaches behind the end of shared memory that mremap made an area of: the pager,
 * which this test has none of, would refuse to give pages. */
static bool beyond_shared(struct run *r, uintptr_t va, size_t length)
{
    uintptr_t page = va >> 12, end = (va + length + PS - 1) >> 12;
    struct mm_vma *vma = mmi_vma_from(&r->space, page);

    for (; vma != NULL && vma->start < end; vma = mmi_vma_from(&r->space, vma->end))
        if ((vma->flags & MM_VMA_SHMEM) != 0 &&
            vma->offset + (vma->end < end ? vma->end : end) - vma->start >
                r->shared_pages[(uintptr_t)vma->file - 0x10000])
            return true;
    return false;
}

static bool do_mlock(struct run *r)
{
    uintptr_t va = some_page(r) + (chance(r, 5) ? 1 + below(r, PS - 1) : 0);
    size_t length = chance(r, 2) ? 0 : some_length(r, va & ~(PS - 1));
    bool lock = chance(r, 50);

    if (va + length > r->window + r->pages * PS)
        length = 0;
    if (beyond_shared(r, va, length))
        return true;
    snprintf(r->what, sizeof r->what, "m%slock(%lx, %zx)", lock ? "" : "un", va, length);
    return agree(r, result(syscall(lock ? SYS_mlock : SYS_munlock, va, length)),
                 lock ? mm_vma_mlock(&r->space, va, length)
                      : mm_vma_munlock(&r->space, va, length));
}

/* The break goes to any byte of the window but its last page, above which mm_vma has nothing to keep a page
 * free from; mostly a few pages up or down. */
static bool do_brk(struct run *r)
{
    uintptr_t now = (uintptr_t)syscall(SYS_brk, 0), last = r->window + (r->pages - 1) * PS, brk;

    brk = chance(r, 60) ? now + below(r, 12 * PS) - 6 * PS
                        : r->window + mm_test_below(&r->rng, last - r->window + 1);
    if (chance(r, 50))
        brk &= ~(PS - 1);
    if (brk < r->window || brk > last)
        brk = below(r, 2) == 0 ? PS : r->window + r->pages * PS + below(r, 2 * PS);
    snprintf(r->what, sizeof r->what, "brk(%lx) at %lx", brk, now);
    r->brks += brk != now && syscall(SYS_brk, brk) == (long)brk;
    return agree(r, syscall(SYS_brk, 0), (long)mm_vma_brk(&r->space, brk));
}

/* An access by the kernel on the child's behalf: a byte read into, or written from, the address. */
static bool do_touch(struct run *r)
{
    uintptr_t va = some_page(r) - (r->stacks && chance(r, 30) ? below(r, 8) * PS : 0);
    bool write = chance(r, 60);
    enum mm_vma_fault fault;
    char byte = 0;
    long real;

    if (va < r->window)
        va = r->window;
    if (beyond_shared(r, va, 1))
        return true;
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
    fault = mm_vma_fault(&r->space, va, write ? MM_VMA_WRITE : MM_VMA_READ);
    /* x86 lets any area with rights be read */
    if (fault == MM_VMA_FAULT_READ && real == 1)
        fault = MM_VMA_FAULT_OK;
    return agree(r, real == 1 ? 0 : real, fault == MM_VMA_FAULT_OK ? 0 : -EFAULT);
}

static bool step(struct run *r)
{
    unsigned dice = below(r, 100);

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
    return do_touch(r);
}

/* ---- the window ------------------------------------------------------------------------------------ */

/* Takes every address that is free: shared, so that nothing of it merges with what the window has. */
static bool fill_gaps(struct run *r, uintptr_t low, uintptr_t high)
{
    int fd = open("/proc/self/maps", O_RDONLY);
    uintptr_t at = low, start, end;
    size_t length = 0;
    ssize_t got;
    char *p, *q;

    while ((got = read(fd, r->text + length, sizeof r->text - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    r->text[length] = 0;
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
    count = read_maps(r);
    r->low = count != 0 ? r->lines[count - 1].start : 0;
    return count != 0 && r->lines[count - 1].end == r->window;
}

/* The area before the window, as mm_vma has to know it: written to, and inherited by fork. */
static bool enter_heap(struct run *r)
{
    if (mm_vma_install(&r->space, MM_VMA_HEAP, r->low, r->window - r->low, 0, 0) != MM_VMA_OK)
        return false;
    mm_vma_find(&r->space, r->low)->anon = ++r->space.next_anon * 2 + 1;
    return same_list(r);
}

/* Pages that the process has now, for RLIMIT_AS. */
static unsigned long statm(struct run *r)
{
    int fd = open("/proc/self/statm", O_RDONLY);
    ssize_t got = read(fd, r->text, 100);

    close(fd);
    r->text[got < 0 ? 0 : got] = 0;
    return strtoul(r->text, NULL, 10);
}

static bool set_up(struct run *r)
{
    struct mm_vma_hooks hooks;
    struct mm_vma_config config;
    struct rlimit limit;

    memset(&hooks, 0, sizeof hooks);
    hooks.ctx = r;
    hooks.nodes.ctx = r;
    hooks.nodes.alloc = node_alloc;
    hooks.nodes.free = node_free;
    hooks.area_alloc = area_alloc;
    hooks.area_free = area_free;
    hooks.shared = shared_new;
    for (unsigned i = 0; i < AREAS; i++) {
        area_free(r, &r->areas[i]);
        node_free(r, &r->nodes[i]);
    }
    r->memfd = memfd_create("vma", 0);
    if (r->memfd < 0 || ftruncate(r->memfd, 4096 * (off_t)PS) != 0 || pipe(r->pipe) != 0)
        return false;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0 || !place_window(r))
        return false;
    mm_vma_config_init(&config);
    config.low = config.up_base = config.brk = r->low;
    config.top = config.mmap_base = r->window + r->pages * PS;
    if (r->limit != 0) {
        limit.rlim_cur = limit.rlim_max = (statm(r) + r->limit) * PS;
        if (setrlimit(RLIMIT_AS, &limit) != 0)
            return false;
        config.limits.total = r->limit * PS + r->window - r->low;
    }
    return mm_vma_system_init(&r->sys, &hooks) == MM_OK &&
           mm_vma_space_init(&r->space, &r->sys, &config) == MM_OK && enter_heap(r);
}

static int child(struct run *r, uint64_t ops)
{
    trace = getenv("VMA_TRACE") != NULL;
    if (!set_up(r))
        return 2;
    for (uint64_t op = 0; op < ops; op++) {
        if (!step(r)) {
            printf("# at call %llu\n", (unsigned long long)op);
            return 1;
        }
        if (op % 256 == 0 && mm_vma_check(&r->space) != MM_OK) {
            printf("# the check finds damage after %s\n", r->what);
            return 1;
        }
    }
    printf("# %llu of %llu calls were refused, the break moved %llu times\n",
           (unsigned long long)r->fails, (unsigned long long)ops, (unsigned long long)r->brks);
    /* both belong to what is compared; a stack that has grown down to the break can hold it for long */
    return r->fails * 20 > ops && (r->brks != 0 || r->stacks || ops < 10000) ? 0 : 3;
}

static void window_of(unsigned pages, unsigned longest, bool stacks, unsigned limit,
                      uint64_t stream)
{
    struct run *r =
        mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t seed = mm_test_seed();
    int status;
    pid_t pid;

    assert_ptr_not_equal(r, MAP_FAILED);
    r->rng = mm_test_rng(seed, stream);
    r->pages = pages;
    r->longest = longest;
    r->stacks = stacks;
    r->limit = limit;
    *(volatile char *)sbrk((intptr_t)PS) = 1; /* there is a heap, and it has an identity */
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(child(r, mm_test_ops() / 40));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    munmap(r, sizeof *r);
}

static void calls_in_a_narrow_window(void **state)
{
    (void)state;
    window_of(40, 12, false, 0, 1);
}

static void calls_in_a_wide_window(void **state)
{
    (void)state;
    window_of(400, 24, false, 0, 2);
}

static void growing_stacks(void **state)
{
    (void)state;
    window_of(3000, 300, true, 0, 3);
}

static void under_a_limit(void **state)
{
    (void)state;
    window_of(200, 40, false, 100, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_in_a_narrow_window),
        cmocka_unit_test(calls_in_a_wide_window),
        cmocka_unit_test(growing_stacks),
        cmocka_unit_test(under_a_limit),
    };

    if (access("/proc/self/maps", R_OK) != 0 || sysconf(_SC_PAGESIZE) != (long)PS ||
        sizeof(long) != 8) {
        printf("1..0 # SKIP no /proc/self/maps with pages of 4 KiB\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
