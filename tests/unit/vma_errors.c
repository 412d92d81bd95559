/* Each result that mm_vma.h's calls document, provoked; whatever is refused as a whole leaves
 * areas, totals, page tables and contents as they were. */
#include "vma_world.h"

#define FIXED_ANON (MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED)

static const unsigned RW = MM_VMA_READ | MM_VMA_WRITE;

/* Where things are. */
enum {
    DATA = 10,    /* 6 pages, the middle two locked and touched */
    OPEN = 20,    /* 2 pages of a shared file, for reading only; beside DATA's like that follow */
    BEYOND = 30,  /* 4 pages of a private file, all behind its end */
    NONE = 40,    /* 2 pages without rights */
    STACK = 60,   /* grows */
    DEVICE = 70,  /* 2 pages */
    ISLANDS = 100 /* 3 single pages, a hole between each two */
};

static struct mm_vma_request request(unsigned page, unsigned pages, unsigned prot, unsigned flags)
{
    struct mm_vma_request r;

    memset(&r, 0, sizeof r);
    r.hint = va_of(page);
    r.bytes = pages * PAGE;
    r.prot = prot;
    r.flags = flags;
    return r;
}

static int map(struct mm_vma_request r)
{
    mm_va_t va;

    return mm_vma_mmap(&w->space[0], &r, &va);
}

static int map_file(unsigned page, unsigned pages, unsigned prot, unsigned flags, unsigned may,
                    unsigned first)
{
    struct mm_vma_request r = request(page, pages, prot, flags | MM_VMA_MAP_FIXED);

    r.file = file_of(1);
    r.may = may;
    r.offset = first * PAGE;
    return map(r);
}

static int build(void **state)
{
    uint64_t value = 5;

    (void)state;
    set_up(false, PAGES, NULL);
    assert_int_equal(map(request(DATA, 6, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_mlock(&w->space[0], va_of(DATA + 2), 2 * PAGE), MM_VMA_OK);
    assert_int_equal(map_file(OPEN, 2, MM_VMA_READ, MM_VMA_MAP_SHARED, MM_VMA_READ, 0), MM_VMA_OK);
    assert_int_equal(map(request(OPEN + 2, 2, MM_VMA_READ, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(map_file(BEYOND, 4, RW, MM_VMA_MAP_PRIVATE, 0, FILE_PAGES), MM_VMA_OK);
    assert_int_equal(map(request(NONE, 2, 0, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(map(request(STACK, 2, RW, FIXED_ANON | MM_VMA_MAP_GROWSDOWN)), MM_VMA_OK);
    assert_int_equal(
        mm_vma_install(&w->space[0], MM_VMA_IO, va_of(DEVICE), 2 * PAGE, (mm_pa_t)FRAMES * PAGE, 0),
        MM_VMA_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(map(request(ISLANDS + 2 * i, 1, RW, FIXED_ANON)), MM_VMA_OK);
    for (unsigned p = DATA; p < DATA + 6; p++) {
        w->model[0][p].kind = ANON; /* for accesses */
        w->model[0][p].prot = RW;
    }
    assert_int_equal(access_page(0, DATA, MM_VMA_WRITE, &value), MM_VMA_FAULT_OK);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    assert_int_equal(mm_vma_check(&w->space[0]), MM_OK);
    tear_down();
    return 0;
}

/* ---- as it was ------------------------------------------------------------------------------- */

struct snapshot {
    char list[4096];
    struct mm_vma_totals totals;
    struct pte page[PAGES];
    uint64_t content[FRAMES];
    mm_va_t brk;
};

static void add_line(void *ctx, const char *line, size_t length)
{
    char *list = ctx;

    assert_true(strlen(list) + length + 2 < sizeof((struct snapshot *)0)->list);
    strcat(list, line);
    strcat(list, "\n");
}

static void take(struct snapshot *shot)
{
    memset(shot, 0, sizeof *shot);
    mm_vma_list(&w->space[0], add_line, shot->list);
    mm_vma_read_totals(&w->space[0], &shot->totals);
    memcpy(shot->page, w->table[0].page, sizeof shot->page);
    for (unsigned i = 0; i < FRAMES; i++)
        shot->content[i] = w->used[i] ? w->content[i] : 0;
    shot->brk = mm_vma_brk(&w->space[0], 0);
}

static struct snapshot before;

/* `result` is `want`, and nothing has changed since `before` was taken. */
static void refused(int line, int result, int want)
{
    static struct snapshot after;

    take(&after);
    if (result != want)
        fail_msg("line %d: the result is %d, not %d", line, result, want);
    assert_string_equal(before.list, after.list);
    if (memcmp(&before, &after, sizeof after) != 0)
        fail_msg("line %d: something has changed", line);
}
#define REFUSED(call, want) refused(__LINE__, call, MM_VMA_##want)

static void limit(uint64_t *which, uint64_t value, struct mm_vma_limits *all)
{
    const struct mm_vma_limits none = {MM_VMA_UNLIMITED, MM_VMA_UNLIMITED, MM_VMA_UNLIMITED,
                                       MM_VMA_UNLIMITED, MM_VMA_UNLIMITED};

    *all = none;
    if (which != NULL)
        *which = value;
    mm_vma_set_limits(&w->space[0], all);
}

/* ---- the calls ------------------------------------------------------------------------------- */

static void mmap_is_refused(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_request r = request(80, 2, RW, FIXED_ANON);
    struct mm_vma_limits l;

    (void)state;
    take(&before);
    r.bytes = 0;
    REFUSED(map(r), EINVAL);
    r.bytes = UINT64_MAX;
    REFUSED(map(r), ENOMEM);
    r = request(80, 2, RW, MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED);
    REFUSED(map(r), EINVAL);
    r = request(80, 2, RW, MM_VMA_MAP_PRIVATE);
    REFUSED(map(r), EBADF);
    r = request(DATA + 1, 2, RW,
                MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED_NOREPLACE);
    REFUSED(map(r), EEXIST);
    r = request(DATA, PAGES, RW, MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS);
    REFUSED(map(r), ENOMEM); /* no range */
    REFUSED(map_file(DATA, 2, RW, MM_VMA_MAP_SHARED, MM_VMA_READ, 0), EACCES);
    REFUSED(map_file(DATA, 2, 5, MM_VMA_MAP_PRIVATE, MM_VMA_READ, 0), EPERM);
    REFUSED(map_file(DATA, 2, 1, MM_VMA_MAP_SHARED_VALIDATE | MM_VMA_MAP_FIXED_NOREPLACE, 0, 80),
            EEXIST); /* the place comes first */
    REFUSED(map_file(80, 2, 1, MM_VMA_MAP_SHARED_VALIDATE | MM_VMA_MAP_FIXED_NOREPLACE, 0, 80),
            EOPNOTSUPP);
    r = request(DATA, 2, RW, FIXED_ANON);
    r.hint = va_of(0) - PAGE;
    REFUSED(map(r), EPERM); /* below what calls may use */
    r = request(DATA, 2, RW, FIXED_ANON | MM_VMA_MAP_LOCKED);
    limit(&l.locked, 0, &l);
    REFUSED(map(r), EPERM);
    limit(&l.locked, 3 * PAGE, &l);
    REFUSED(map(r), EAGAIN);
    r.flags = FIXED_ANON;
    limit(&l.areas, before.totals.areas, &l);
    REFUSED(map(r), ENOMEM);
    limit(&l.areas, before.totals.areas + 1, &l);
    REFUSED(map(request(BEYOND + 1, 1, MM_VMA_READ, FIXED_ANON)), ENOMEM); /* one would be three */
    limit(&l.total, before.totals.total * PAGE, &l);
    r = request(DATA + 5, 2, RW, FIXED_ANON); /* one page of it is there already */
    REFUSED(map(r), ENOMEM);
    limit(&l.data, before.totals.data * PAGE, &l);
    REFUSED(map(r), ENOMEM);
    limit(NULL, 0, &l);
    space->sys->hooks.shared = NULL;
    REFUSED(map(request(DATA, 2, RW, MM_VMA_MAP_SHARED | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED)),
            EINVAL);
    space->sys->hooks.shared = shared;
}

static void munmap_and_brk_are_refused(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_limits l;

    (void)state;
    take(&before);
    REFUSED(mm_vma_munmap(space, va_of(DATA) + 1, PAGE), EINVAL);
    REFUSED(mm_vma_munmap(space, va_of(DATA), 0), EINVAL);
    REFUSED(mm_vma_munmap(space, va_of(DATA), w->config.top), EINVAL);
    limit(&l.areas, before.totals.areas, &l);
    REFUSED(mm_vma_munmap(space, va_of(BEYOND + 1), PAGE), ENOMEM);
    limit(NULL, 0, &l);
    assert_int_equal(mm_vma_install(space, MM_VMA_HEAP, va_of(120), 2 * PAGE, 0, 0), MM_VMA_OK);
    assert_int_equal(map(request(122, 2, RW, FIXED_ANON)), MM_VMA_OK); /* joins it */
    take(&before);
    limit(&l.areas, before.totals.areas, &l);
    REFUSED(mm_vma_brk(space, va_of(121)) == va_of(122) ? 0 : 1, OK); /* would split */
    limit(&l.data, before.totals.data * PAGE, &l);
    limit(NULL, 0, &l);
    assert_int_equal(mm_vma_munmap(space, va_of(122), 2 * PAGE), MM_VMA_OK);
    assert_int_equal(mm_vma_brk(space, va_of(160)), va_of(160));
    assert_int_equal(mm_vma_mprotect(space, va_of(120), 40 * PAGE, MM_VMA_READ), MM_VMA_OK);
    take(&before);
    limit(&l.data, 30 * PAGE, &l); /* the break's own length counts, whatever its rights are */
    assert_true(before.totals.data + 2 < 30);
    REFUSED(mm_vma_brk(space, va_of(162)) == va_of(160) ? 0 : 1, OK);
    limit(NULL, 0, &l);
}

static void mprotect_is_refused(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_limits l;

    (void)state;
    take(&before);
    REFUSED(mm_vma_mprotect(space, va_of(DATA) + 1, PAGE, 1), EINVAL);
    REFUSED(mm_vma_mprotect(space, va_of(DATA), PAGE, 16), EINVAL);
    REFUSED(mm_vma_mprotect(space, va_of(DATA), PAGE, 1 | MM_VMA_PROT_GROWSDOWN), EINVAL);
    REFUSED(mm_vma_mprotect(space, va_of(DATA - 2), 3 * PAGE, 1), ENOMEM);
    REFUSED(mm_vma_mprotect(space, va_of(STACK - 9), PAGE, 1 | MM_VMA_PROT_GROWSDOWN), ENOMEM);
    REFUSED(mm_vma_mprotect(space, va_of(OPEN), PAGE, RW), EACCES);
    limit(&l.areas, before.totals.areas + 1, &l);
    REFUSED(mm_vma_mprotect(space, va_of(BEYOND + 1), PAGE, 1), ENOMEM);
    limit(&l.data, before.totals.data * PAGE, &l);
    REFUSED(mm_vma_mprotect(space, va_of(NONE), PAGE, RW), ENOMEM);
    limit(NULL, 0, &l);
    /* what stands before the area that refuses has changed */
    assert_int_equal(map(request(OPEN - 2, 2, MM_VMA_READ, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_mprotect(space, va_of(OPEN - 2), 4 * PAGE, RW), MM_VMA_EACCES);
    assert_int_equal(mm_vma_map_access(&space->map, va_of(OPEN - 1)), RW);
    assert_int_equal(mm_vma_map_access(&space->map, va_of(OPEN)), MM_VMA_READ | MM_VMA_SHARED);
    /* a stack's whole rest follows */
    assert_int_equal(mm_vma_mprotect(space, va_of(STACK + 1), PAGE, 1 | MM_VMA_PROT_GROWSDOWN),
                     MM_VMA_OK);
    assert_int_equal(mm_vma_map_access(&space->map, va_of(STACK)), 1 | MM_VMA_GROWSDOWN);
}

static int remap(unsigned old, unsigned n, unsigned pages, unsigned flags, mm_va_t target)
{
    mm_va_t va = 0;
    int result =
        mm_vma_mremap(&w->space[0], va_of(old), n * PAGE, pages * PAGE, flags, target, &va);

    assert_true(result == MM_VMA_OK || va == 0);
    return result;
}

static void mremap_is_refused(void **state)
{
    struct mm_vma_limits l;
    mm_va_t va;

    (void)state;
    take(&before);
    REFUSED(remap(DATA, 1, 0, 1, 0), EINVAL);
    REFUSED(remap(DATA, 0, 1, 1, 0), EINVAL); /* private memory has no twin */
    REFUSED(remap(DATA, 1, 1, 8, 0), EINVAL);
    REFUSED(remap(DATA, 1, 1, 2, va_of(80)), EINVAL);
    REFUSED(remap(DATA, 1, 1, 3, va_of(80) + 1), EINVAL);
    REFUSED(remap(DATA, 1, 1, 3, w->config.top), EINVAL);
    REFUSED(remap(DATA, 2, 2, 3, va_of(DATA + 1)), EINVAL);
    REFUSED(remap(DATA, 1, 2, 5, va_of(80)), EINVAL);
    REFUSED(remap(DEVICE, 1, 1, 5, va_of(80)), EINVAL);
    REFUSED(mm_vma_mremap(&w->space[0], va_of(DATA), UINT64_MAX - 2 * PAGE, PAGE, 1, 0, &va),
            EINVAL);
    REFUSED(mm_vma_mremap(&w->space[0], va_of(DATA), w->config.top, PAGE, 3, va_of(80), &va),
            EINVAL); /* a tail that no space has */
    REFUSED(remap(80, 1, 1, 1, 0), EFAULT);
    REFUSED(remap(DATA, 7, 8, 1, 0), EFAULT);
    REFUSED(remap(DEVICE, 2, 3, 1, 0), EFAULT); /* frames that are given do not become more */
    REFUSED(remap(OPEN, 0, 1, 3, va_of(OPEN)), EFAULT);
    REFUSED(remap(80, 2, 2, 3, va_of(90)), EFAULT);
    REFUSED(remap(ISLANDS, 1, 3, 0, 0), ENOMEM); /* the next one is in the way */
    REFUSED(remap(ISLANDS, 1, PAGES - 4, 1, 0), ENOMEM);
    limit(&l.areas, before.totals.areas + 2, &l); /* room for three is asked for */
    REFUSED(remap(ISLANDS, 1, 3, 1, 0), ENOMEM);
    REFUSED(remap(ISLANDS, 1, 1, 3, va_of(ISLANDS + 4)), ENOMEM);
    limit(&l.total, before.totals.total * PAGE, &l);
    REFUSED(remap(DATA + 4, 2, 3, 1, 0), ENOMEM);
    REFUSED(remap(DATA + 4, 2, 2, 5, 0), ENOMEM);
    limit(&l.locked, 2 * PAGE, &l);
    assert_int_equal(remap(DATA + 2, 1, 1, 1, 0), MM_VMA_OK);
    REFUSED(remap(DATA + 2, 2, 3, 1, 0), EAGAIN);
    limit(&l.areas, before.totals.areas + 3, &l);
    assert_int_equal(remap(ISLANDS, 1, 3, 1, 0), MM_VMA_OK);
    limit(NULL, 0, &l);
}

/* What three single pages make of an area over which they move, with and without DONTUNMAP; an
 * area's middle moves into another's. */
static void mremap_has_room_for_all_that_it_adds(void **state)
{
    static const struct {
        unsigned page, pages, flags, more, added;
    } cases[] = {
        {ISLANDS, 5, 7, 6, 6}, {ISLANDS, 5, 3, 5, 3}, {DATA + 4, 1, 7, 3, 2}, {140, 1, 3, 3, 3}};
    struct mm_vma_totals totals;
    struct mm_vma_limits l;

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        leave(state);
        build(state);
        assert_int_equal(map(request(ISLANDS + 8, 7, MM_VMA_READ, FIXED_ANON)), MM_VMA_OK);
        assert_int_equal(map(request(139, 3, RW, FIXED_ANON)), MM_VMA_OK);
        take(&before);
        limit(&l.areas, before.totals.areas + cases[i].more - 1, &l);
        REFUSED(remap(cases[i].page, cases[i].pages, cases[i].pages, cases[i].flags,
                      va_of(ISLANDS + 9)),
                ENOMEM);
        limit(&l.areas, before.totals.areas + cases[i].more, &l);
        assert_int_equal(remap(cases[i].page, cases[i].pages, cases[i].pages, cases[i].flags,
                               va_of(ISLANDS + 9)),
                         MM_VMA_OK);
        mm_vma_read_totals(&w->space[0], &totals);
        assert_int_equal(totals.areas, before.totals.areas + cases[i].added);
        limit(NULL, 0, &l);
    }
}

/* A range of several areas moves up to the first that may not. */
static void mremap_stops_at_a_linear_area(void **state)
{
    struct mm_vma_space *space = &w->space[0];

    (void)state;
    assert_int_equal(map(request(DEVICE - 1, 1, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(remap(DEVICE - 1, 3, 3, 3, va_of(80)), MM_VMA_EFAULT);
    assert_int_equal(mm_vma_map_access(&space->map, va_of(80)), RW);
    assert_int_equal(mm_vma_map_access(&space->map, va_of(DEVICE - 1)), -1);
    assert_int_equal(mm_vma_map_access(&space->map, va_of(81)), -1);
    assert_true(mm_vma_map_access(&space->map, va_of(DEVICE + 1)) != -1);
    /* by itself it may */
    assert_int_equal(remap(DEVICE, 2, 2, 3, va_of(82)), MM_VMA_OK);
    assert_true(mm_vma_map_access(&space->map, va_of(83)) != -1);
}

static void madvise_is_refused(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_limits l;

    (void)state;
    take(&before);
    REFUSED(mm_vma_madvise(space, va_of(DATA), PAGE, 12), EINVAL);
    REFUSED(mm_vma_madvise(space, va_of(DATA) + 1, PAGE, 0), EINVAL);
    REFUSED(mm_vma_madvise(space, va_of(DATA), UINT64_MAX, 0), EINVAL);
    REFUSED(mm_vma_madvise(space, va_of(80), 4 * PAGE, MM_VMA_ADV_RANDOM), ENOMEM);
    REFUSED(mm_vma_madvise(space, va_of(DATA + 2), PAGE, MM_VMA_ADV_DONTNEED), EINVAL); /* locked */
    REFUSED(mm_vma_madvise(space, va_of(BEYOND), PAGE, MM_VMA_ADV_FREE), EINVAL);
    REFUSED(mm_vma_madvise(space, va_of(OPEN), PAGE, MM_VMA_ADV_WIPEONFORK), EINVAL);
    REFUSED(mm_vma_madvise(space, va_of(DEVICE), PAGE, MM_VMA_ADV_DOFORK), EINVAL);
    limit(&l.areas, before.totals.areas + 1, &l);
    REFUSED(mm_vma_madvise(space, va_of(BEYOND + 1), PAGE, MM_VMA_ADV_RANDOM), EAGAIN);
    limit(NULL, 0, &l);
    /* over a hole, with a late ENOMEM; then up to the area that refuses */
    assert_int_equal(mm_vma_madvise(space, va_of(ISLANDS), 5 * PAGE, MM_VMA_ADV_RANDOM),
                     MM_VMA_ENOMEM);
    for (unsigned i = 0; i < 3; i++)
        assert_true((mm_vma_find(space, va_of(ISLANDS + 2 * i))->flags & MM_VMA_RANDOM) != 0);
    assert_int_equal(map(request(OPEN - 2, 2, MM_VMA_READ, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_madvise(space, va_of(OPEN - 2), 6 * PAGE, MM_VMA_ADV_WIPEONFORK),
                     MM_VMA_EINVAL);
    assert_true((mm_vma_find(space, va_of(OPEN - 2))->flags & MM_VMA_WIPEONFORK) != 0);
    assert_true((mm_vma_find(space, va_of(OPEN + 2))->flags & MM_VMA_WIPEONFORK) == 0);
}

static void advice_brings_in_what_a_file_has(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_totals totals;

    (void)state;
    assert_int_equal(
        map_file(80, 4, MM_VMA_READ, MM_VMA_MAP_SHARED, MM_VMA_READ, w->object_pages[1] - 2),
        MM_VMA_OK);
    assert_int_equal(mm_vma_madvise(space, va_of(80), 4 * PAGE, MM_VMA_ADV_WILLNEED), MM_VMA_OK);
    mm_vma_read_totals(space, &totals);
    assert_int_equal(totals.rss[MM_VMA_RSS_FILE], 2); /* two lie beyond its end */
}

static void locking_is_refused(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_limits l;

    (void)state;
    take(&before);
    REFUSED(mm_vma_mlock(space, va_of(80), PAGE), ENOMEM);
    REFUSED(mm_vma_munlock(space, va_of(80), PAGE), ENOMEM);
    REFUSED(mm_vma_mlock(space, UINT64_MAX - PAGE, PAGE), EINVAL);
    REFUSED(mm_vma_munlock(space, UINT64_MAX - PAGE, PAGE), EINVAL);
    REFUSED(mm_vma_mlock(space, w->config.top, PAGE), ENOMEM);
    limit(&l.locked, 0, &l);
    REFUSED(mm_vma_mlock(space, va_of(DATA), PAGE), EPERM);
    limit(&l.locked, 3 * PAGE + 5, &l);
    REFUSED(mm_vma_mlock(space, va_of(DATA), 3 * PAGE + 1), ENOMEM);
    assert_int_equal(mm_vma_mlock(space, va_of(DATA + 1), 3 * PAGE),
                     MM_VMA_OK); /* two are locked */
    limit(&l.areas, before.totals.areas, &l);
    assert_int_equal(mm_vma_mlock(space, va_of(BEYOND + 1), PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(space, va_of(BEYOND + 1))->flags & MM_VMA_LOCKED) == 0);
    limit(NULL, 0, &l);
    /* pages that cannot be had: the area is locked all the same */
    assert_int_equal(mm_vma_mlock(space, va_of(BEYOND), PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(space, va_of(BEYOND))->flags & MM_VMA_LOCKED) != 0);
    assert_int_equal(mm_vma_mlock(space, va_of(NONE), PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(space, va_of(NONE))->flags & MM_VMA_LOCKED) != 0);
    w->retries = 1;
    assert_int_equal(mm_vma_mlock(space, va_of(OPEN), PAGE), MM_VMA_EAGAIN);
    assert_true((mm_vma_find(space, va_of(OPEN))->flags & MM_VMA_LOCKED) != 0);
    /* what ends above the space is locked up to there */
    assert_int_equal(map(request(PAGES - 1, 1, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_mlock(space, va_of(PAGES - 1), 2 * PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(space, va_of(PAGES - 1))->flags & MM_VMA_LOCKED) != 0);
    assert_int_equal(mm_vma_munlock(space, va_of(PAGES - 1), 2 * PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(space, va_of(PAGES - 1))->flags & MM_VMA_LOCKED) == 0);
}

static void populate_and_install_are_refused(void **state)
{
    struct mm_vma_space *space = &w->space[0];

    (void)state;
    take(&before);
    REFUSED(mm_vma_populate(space, va_of(80), PAGE), ENOMEM);
    REFUSED(mm_vma_populate(space, va_of(DATA) + 1, PAGE), EINVAL);
    REFUSED(mm_vma_populate(space, w->config.top, PAGE), EINVAL);
    REFUSED(mm_vma_populate(space, va_of(NONE), PAGE), EFAULT);
    REFUSED(mm_vma_populate(space, va_of(BEYOND), PAGE), EFAULT);
    w->retries = 1;
    REFUSED(mm_vma_populate(space, va_of(OPEN), PAGE), EAGAIN);
    REFUSED(mm_vma_install(space, MM_VMA_DATA, va_of(DATA + 5), 2 * PAGE, 0, 0), EEXIST);
    REFUSED(mm_vma_install(space, MM_VMA_LINEAR, va_of(80), PAGE, 1, 0), EINVAL);
    w->fail = (struct mm_test_fail){0, 1};
    REFUSED(mm_vma_populate(space, va_of(DATA + 1), PAGE), ENOMEM);
    w->fail.fail_at = 0;
}

/* Each outcome of a fault, and what it leaves. */
static void faults_are_told_apart(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_limits l;

    (void)state;
    take(&before);
#define FAULT(page, access, want) \
    refused(__LINE__, (int)mm_vma_fault(space, va_of(page), access), (int)MM_VMA_FAULT_##want)
    FAULT(80, MM_VMA_READ, NONE);
    FAULT(PAGES, MM_VMA_READ, NONE);
    FAULT(NONE, MM_VMA_READ, READ);
    FAULT(OPEN, MM_VMA_WRITE, WRITE);
    FAULT(DATA, MM_VMA_EXEC, EXEC);
    FAULT(BEYOND, MM_VMA_READ, BUS);
    FAULT(BEYOND, MM_VMA_WRITE, BUS);
    w->sys.hooks.file_page = NULL; /* without a pager no file has a page */
    FAULT(OPEN, MM_VMA_READ, BUS);
    w->sys.hooks.file_page = file_page;
    FAULT(DATA, MM_VMA_READ, OK); /* spurious */
    FAULT(DATA, MM_VMA_WRITE, OK);
    w->retries = 1;
    FAULT(OPEN, MM_VMA_READ, RETRY);
    w->fail = (struct mm_test_fail){0, 1};
    FAULT(DATA + 1, MM_VMA_WRITE, NOMEM);
    w->fail.fail_at = 0;
    limit(&l.stack, 4 * PAGE, &l);
    FAULT(STACK - 3, MM_VMA_WRITE, GUARD);
    limit(&l.total, before.totals.total * PAGE, &l);
    FAULT(STACK - 1, MM_VMA_WRITE, GUARD);
    limit(NULL, 0, &l);
    /* its neighbour below has no rights: it may come near; one with rights keeps the guard */
    assert_int_equal(mm_vma_fault(space, va_of(NONE + 3), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_mprotect(space, va_of(NONE), 2 * PAGE, MM_VMA_READ), MM_VMA_OK);
    take(&before);
    FAULT(NONE + 2, MM_VMA_WRITE, GUARD);
}

static void a_pager_comes_whole(void **state)
{
    struct mm_vma_system sys;
    struct mm_vma_hooks h = w->sys.hooks;

    (void)state;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_OK);
    mm_vma_system_fini(&sys);
    h.file_page_put = NULL;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_ERR_INVALID);
    h.file_page = NULL;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_OK);
    mm_vma_system_fini(&sys);
}

static void neighbours_join_only_if_alike(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma_request r = request(120, 1, RW, FIXED_ANON);
    uint64_t areas = space->map.count;

    (void)state;
    assert_int_equal(map(r), MM_VMA_OK);
    r = request(121, 1, RW, FIXED_ANON);
    r.area_user = w; /* another owner */
    assert_int_equal(map(r), MM_VMA_OK);
    r = request(122, 1, RW, FIXED_ANON);
    r.area_user = w;
    r.user = 0x01000000; /* another flag of the caller's */
    assert_int_equal(map(r), MM_VMA_OK);
    assert_int_equal(space->map.count, areas + 3);
    r.hint = va_of(123);
    assert_int_equal(map(r), MM_VMA_OK); /* alike */
    assert_int_equal(space->map.count, areas + 3);
    /* what is split off has the owner, and joins again */
    assert_int_equal(mm_vma_mprotect(space, va_of(123), PAGE, MM_VMA_READ), MM_VMA_OK);
    assert_ptr_equal(mm_vma_find(space, va_of(123))->user, w);
    assert_int_equal(space->map.count, areas + 4);
    assert_int_equal(mm_vma_mprotect(space, va_of(123), PAGE, RW), MM_VMA_OK);
    assert_int_equal(space->map.count, areas + 3);
    /* between two identities: the left one takes it */
    assert_int_equal(map(request(130, 1, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(map(request(132, 1, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_fault(space, va_of(130), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_fault(space, va_of(132), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(map(request(131, 1, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_bytes(mm_vma_find(space, va_of(130))), 2 * PAGE);
    assert_int_equal(mm_vma_bytes(mm_vma_find(space, va_of(132))), PAGE);
}

/* ---- locked memory --------------------------------------------------------------------------- */

static void locked_memory_is_there(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    mm_va_t va;

    (void)state;
    assert_int_equal(map_file(120, 3, RW, MM_VMA_MAP_SHARED, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_mlock(space, va_of(120), 3 * PAGE), MM_VMA_OK);
    for (unsigned p = 120; p < 123; p++)
        assert_true(w->table[0].page[p].present);
    /* where it moves to, and what it grows by */
    assert_int_equal(mm_vma_mremap(space, va_of(120), 3 * PAGE, 5 * PAGE, 3, va_of(130), &va),
                     MM_VMA_OK);
    for (unsigned p = 130; p < 135; p++)
        assert_true(w->table[0].page[p].present);
    /* ONFAULT: as it comes; then it stays */
    assert_int_equal(map(request(140, 2, RW, FIXED_ANON)), MM_VMA_OK);
    assert_int_equal(mm_vma_mlock2(space, va_of(140), 2 * PAGE, 2), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mlock2(space, va_of(140), 2 * PAGE, MM_VMA_MLOCK_ONFAULT), MM_VMA_OK);
    assert_false(w->table[0].page[140].present);
    assert_int_equal(mm_vma_populate(space, va_of(140), 2 * PAGE), MM_VMA_OK);
    assert_false(w->table[0].page[140].present);
    assert_int_equal(mm_vma_fault(space, va_of(140), MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_evict(&w->sys, w->table[0].page[140].pa), MM_ERR_PERM);
    assert_int_equal(mm_vma_mlock(space, va_of(140), 2 * PAGE), MM_VMA_OK);
    assert_true(w->table[0].page[141].present);
    /* DONTUNMAP unlocks the whole area, also for eviction */
    assert_int_equal(mm_vma_mremap(space, va_of(140), PAGE, PAGE, 5, 0, &va), MM_VMA_OK);
    assert_true((mm_vma_find(space, va_of(141))->flags & MM_VMA_LOCKED) == 0);
    assert_int_equal(mm_vma_evict(&w->sys, w->table[0].page[141].pa), MM_OK);
    assert_int_equal(mm_vma_evict(&w->sys, w->table[0].page[va / PAGE - BASE].pa), MM_ERR_PERM);
    assert_int_equal(mm_vma_munlock(space, va, PAGE), MM_VMA_OK);
    assert_int_equal(mm_vma_evict(&w->sys, w->table[0].page[va / PAGE - BASE].pa), MM_OK);
}

/* ---- the check ------------------------------------------------------------------------------- */

/* Adds to a word, sees that the check minds it, and takes it back. */
static void minds_word(int line, uintptr_t *word, uintptr_t add)
{
    *word += add;
    if (mm_vma_check(&w->space[0]) != MM_ERR_CORRUPT)
        fail_msg("line %d: the damage is not found", line);
    *word -= add;
    assert_int_equal(mm_vma_check(&w->space[0]), MM_OK);
}
#define MINDS(word, add) minds_word(__LINE__, &(word), (uintptr_t)(add))

static void minds_entry(int line, unsigned page, struct pte entry)
{
    struct pte was = w->table[0].page[page];

    w->table[0].page[page] = entry;
    if (mm_vma_check(&w->space[0]) != MM_ERR_CORRUPT)
        fail_msg("line %d: the damage is not found", line);
    w->table[0].page[page] = was;
    assert_int_equal(mm_vma_check(&w->space[0]), MM_OK);
}

static void the_check_finds_damage(void **state)
{
    struct mm_vma_space *space = &w->space[0];
    struct mm_vma *data = mm_vma_find(space, va_of(DATA));
    struct pte entry = w->table[0].page[DATA], empty = {false, false, 0, false, 0, 0};
    struct mm_vma_frame *record = &w->record[entry.pa >> MM_PAGE_SHIFT];

    (void)state;
    for (unsigned i = 0; i < 4; i++) /* totals: S1 */
        MINDS(space->pages[i], 1);
    MINDS(space->locked, 1);
    MINDS(space->stack, 1);
    for (unsigned kind = 0; kind < MM_VMA_KINDS; kind++)
        MINDS(space->rss[kind], 1);
    assert_int_equal(mmi_vma_spares(space, 2), MM_OK);
    space->spare_count++; /* S3 */
    assert_int_equal(mm_vma_check(space), MM_ERR_CORRUPT);
    space->spare_count -= 2;
    assert_int_equal(mm_vma_check(space), MM_ERR_CORRUPT);
    space->spare_count++;
    MINDS(data->start, 1); /* the map and its areas: A1, M1 to M6 */
    MINDS(data->end, 1);
    MINDS(data->flags, MM_VMA_EXEC);
    MINDS(space->map.count, 1);
    MINDS(space->map.nodes, 1);
    MINDS(space->map.pooled, 1);
    if (space->map.pooled > 0)
        MINDS(space->map.pooled, -1);
    minds_entry(__LINE__, DATA, empty);     /* a page that the resident count has */
    minds_entry(__LINE__, DATA + 7, entry); /* one where no area is */
    minds_entry(__LINE__, DATA + 1, entry); /* one that the reverse map does not know */
    entry.prot |= MM_VMA_EXEC;
    minds_entry(__LINE__, DATA, entry); /* more rights than the area's */
    MINDS(record->first.page, 1);       /* F2 */
    MINDS(record->kind, MM_VMA_RSS_FILE);
    MINDS(record->maps, (uintptr_t)0 - 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, build, leave)
    const struct CMUnitTest tests[] = {
        T(mmap_is_refused),
        T(munmap_and_brk_are_refused),
        T(mprotect_is_refused),
        T(mremap_is_refused),
        T(mremap_has_room_for_all_that_it_adds),
        T(mremap_stops_at_a_linear_area),
        T(madvise_is_refused),
        T(advice_brings_in_what_a_file_has),
        T(locking_is_refused),
        T(populate_and_install_are_refused),
        T(faults_are_told_apart),
        T(a_pager_comes_whole),
        T(neighbours_join_only_if_alike),
        T(locked_memory_is_there),
        T(the_check_finds_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
