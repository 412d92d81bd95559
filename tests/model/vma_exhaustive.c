/* Small windows, exhaustively: each state of N pages, each call with each range and length, against
 * an array of pages. A page is a hole, anonymous (read-only, read-write, read-write and not to be
 * dumped), or a shared page of a file. Untouched memory has one list of areas for each state: its
 * runs. */
#include "vma_test.h"

#define MOST 8u
#define LOW  16u

/* A page: 0, or rights, MM_VMA_SHARED, NODUMP, and for files FILED and the page in the file above
 * bit 8. */
#define NODUMP 0x40u
#define FILED  0x80u
typedef uint16_t page_t;

static unsigned pages;
static char file;
static struct mm_vma_system sys;
static struct vma_source source;
static uint64_t tried;

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

static mm_va_t va_of(unsigned page)
{
    return (mm_va_t)(LOW + page) * PAGE;
}

static void set_up(void)
{
    struct mm_vma_hooks h;

    memset(&h, 0, sizeof h);
    vma_source_init(&source);
    h.nodes = source.hooks;
    h.area_alloc = area_alloc;
    h.area_free = area_free;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_OK);
}

static void space_of(struct mm_vma_space *space)
{
    struct mm_vma_config config;

    mm_vma_config_init(&config);
    config.low = config.up_base = config.brk = va_of(0);
    config.top = config.mmap_base = va_of(pages);
    config.guard_pages = 0;
    assert_int_equal(mm_vma_space_init(space, &sys, &config), MM_OK);
}

/* mmap; the page that it is placed at, or a result below 0. */
static int map(struct mm_vma_space *space, unsigned from, unsigned n, page_t kind, unsigned flags)
{
    struct mm_vma_request r;
    mm_va_t va;
    int result;

    memset(&r, 0, sizeof r);
    r.hint = flags == 0 && from == 0 ? 0 : va_of(from);
    r.bytes = n * PAGE;
    r.prot = kind & MM_VMA_PROT;
    r.flags = flags | MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS;
    if ((kind & FILED) != 0) {
        r.flags = flags | MM_VMA_MAP_SHARED;
        r.file = &file;
        r.offset = (kind >> 8) * PAGE;
    }
    result = mm_vma_mmap(space, &r, &va);
    return result == MM_VMA_OK ? (int)(va / PAGE - LOW) : result;
}

/* Whether page i and the one after it belong to one area. */
static bool alike(const page_t *page, unsigned i)
{
    return page[i + 1] == ((page[i] & FILED) != 0 ? page[i] + 0x100 : page[i]);
}

static unsigned run_end(const page_t *page, unsigned i)
{
    while (i + 1 < pages && alike(page, i))
        i++;
    return i + 1;
}

/* Flags of an area in the form of a page. */
static unsigned kind_of(const struct mm_vma *vma)
{
    unsigned kind = (unsigned)vma->flags & (MM_VMA_PROT | MM_VMA_SHARED);

    kind |= (vma->flags & MM_VMA_DONTDUMP) != 0 ? NODUMP : 0u;
    return vma->file != NULL ? kind | FILED | (unsigned)vma->offset << 8 : kind;
}

/* The areas are the runs of pages that are alike, no more and no fewer. */
static void same(struct mm_vma_space *space, const page_t *page)
{
    struct mm_vma_cursor c;
    struct mm_vma *vma = mm_vma_cursor_seek(&c, &space->map, 0);

    for (unsigned i = 0, end; i < pages; i = end) {
        end = run_end(page, i);
        if (page[i] == 0)
            continue;
        assert_non_null(vma);
        assert_int_equal(mm_vma_start(vma), va_of(i));
        assert_int_equal(mm_vma_end(vma), va_of(end));
        assert_int_equal(kind_of(vma), page[i]);
        vma = mm_vma_cursor_next(&c);
    }
    assert_null(vma);
    assert_int_equal(mm_vma_check(space), MM_OK);
    tried++;
}

static void done(struct mm_vma_space *space, const page_t *page)
{
    same(space, page);
    assert_true(mm_vma_leave(space));
}

/* A copy to try a call on: untouched memory has nothing that fork would change. */
static void copy_of(struct mm_vma_space *space, struct mm_vma_space *from, page_t *now,
                    const page_t *page)
{
    assert_int_equal(mm_vma_fork(space, from, NULL), MM_VMA_OK);
    memcpy(now, page, MOST * sizeof *now);
}

static void put(page_t *page, unsigned from, unsigned n, page_t kind)
{
    for (unsigned i = 0; i < n; i++, kind = (page_t)(kind + ((kind & FILED) != 0 ? 0x100 : 0)))
        page[from + i] = kind;
}

static bool free_at(const page_t *page, unsigned from, unsigned n)
{
    for (unsigned i = from; i < from + n; i++)
        if (i >= pages || page[i] != 0)
            return false;
    return true;
}

/* The highest free place, or -12. */
static int highest(const page_t *page, unsigned n)
{
    for (unsigned i = pages - n + 1; n <= pages && i-- != 0;)
        if (free_at(page, i, n))
            return (int)i;
    return MM_VMA_ENOMEM;
}

/* munmap, mmap, mprotect and madvise of [a, b) */
static void ranges(struct mm_vma_space *from, const page_t *page, unsigned a, unsigned b)
{
    struct mm_vma_space space;
    page_t now[MOST];
    unsigned i;
    int want;

    copy_of(&space, from, now, page);
    put(now, a, b - a, 0);
    assert_int_equal(mm_vma_munmap(&space, va_of(a), (b - a) * PAGE), MM_VMA_OK);
    done(&space, now);
    for (unsigned prot = 1; prot <= 3; prot += 2) {
        copy_of(&space, from, now, page);
        put(now, a, b - a, (page_t)prot);
        assert_int_equal(map(&space, a, b - a, (page_t)prot, MM_VMA_MAP_FIXED), (int)a);
        done(&space, now);
        copy_of(&space, from, now, page);
        for (i = a; i < b && page[i] != 0; i++)
            now[i] = (page_t)((page[i] & ~MM_VMA_PROT) | prot);
        assert_int_equal(mm_vma_mprotect(&space, va_of(a), (b - a) * PAGE, prot),
                         i == b ? MM_VMA_OK : MM_VMA_ENOMEM);
        done(&space, now);
        copy_of(&space, from, now, page);
        want = MM_VMA_OK;
        for (i = a; i < b; i++)
            if (page[i] == 0)
                want = MM_VMA_ENOMEM;
            else
                now[i] = (page_t)(prot == 1 ? page[i] | NODUMP : page[i] & ~NODUMP);
        assert_int_equal(mm_vma_madvise(&space, va_of(a), (b - a) * PAGE,
                                        prot == 1 ? MM_VMA_ADV_DONTDUMP : MM_VMA_ADV_DODUMP),
                         want);
        done(&space, now);
    }
    copy_of(&space, from, now, page);
    if (free_at(page, a, b - a))
        put(now, a, b - a, 3);
    assert_int_equal(map(&space, a, b - a, 3, MM_VMA_MAP_FIXED_NOREPLACE),
                     free_at(page, a, b - a) ? (int)a : MM_VMA_EEXIST);
    done(&space, now);
    copy_of(&space, from, now, page); /* a hint; at a = 0 there is none */
    want = a != 0 && free_at(page, a, b - a) ? (int)a : highest(page, b - a);
    if (want >= 0)
        put(now, (unsigned)want, b - a, 3);
    assert_int_equal(map(&space, a, b - a, 3, 0), want);
    done(&space, now);
}

/* mlock and munlock of [a, b): locked memory gets its pages, and with them identities, so that only
 * pages are compared. */
static void locks(struct mm_vma_space *from, const page_t *page, unsigned a, unsigned b)
{
    struct mm_vma_space space;
    struct mm_vma_totals t;
    page_t now[MOST];
    unsigned hole = a;

    while (hole < b && page[hole] != 0)
        hole++;
    copy_of(&space, from, now, page);
    for (unsigned lock = 1; lock + 1 != 0; lock--) {
        int result = lock != 0 ? mm_vma_mlock(&space, va_of(a), (b - a) * PAGE)
                               : mm_vma_munlock(&space, va_of(a), (b - a) * PAGE);

        assert_int_equal(result, hole == b ? MM_VMA_OK : MM_VMA_ENOMEM);
        for (unsigned i = 0; i < pages; i++) {
            int access = mm_vma_map_access(&space.map, va_of(i));
            bool locked = lock != 0 && i >= a && i < hole;

            assert_int_equal(access < 0 ? 0 : (unsigned)access & 0x1f,
                             (page[i] & 0xfu) | (locked ? MM_VMA_LOCKED : 0u));
        }
        mm_vma_read_totals(&space, &t);
        assert_int_equal(t.locked, lock != 0 ? hole - a : 0);
        assert_int_equal(mm_vma_check(&space), MM_OK);
        tried++;
    }
    assert_true(mm_vma_leave(&space));
}

/* mremap of [a, b) to the length n: in place, or where it may move */
static void resizes(struct mm_vma_space *from, const page_t *page, unsigned a, unsigned b,
                    unsigned n)
{
    for (unsigned move = 0; move <= 1; move++) {
        struct mm_vma_space space;
        page_t now[MOST];
        int want = (int)a;
        mm_va_t va = 0;
        int result;

        copy_of(&space, from, now, page);
        if (page[a] == 0) {
            want = MM_VMA_EFAULT;
        } else if (a + n <= b) {
            put(now, a + n, b - a - n, 0);
        } else if (run_end(page, a) < b) {
            want = MM_VMA_EFAULT;
        } else {
            if (run_end(page, a) != b || !free_at(page, b, a + n - b))
                want = move != 0 ? highest(page, n) : MM_VMA_ENOMEM;
            if (want >= 0 && want != (int)a)
                put(now, a, b - a, 0);
            if (want >= 0)
                put(now, (unsigned)want, n, page[a]);
        }
        result = mm_vma_mremap(&space, va_of(a), (b - a) * PAGE, n * PAGE, move, 0, &va);
        assert_int_equal(result == MM_VMA_OK ? (int)(va / PAGE - LOW) : result, want);
        done(&space, now);
    }
}

/* mremap of [a, b) to `to` with n pages: with an equal size areas and holes as they are */
static void moves(struct mm_vma_space *from, const page_t *page, unsigned a, unsigned b,
                  unsigned to, unsigned n)
{
    struct mm_vma_space space;
    unsigned old = b - a, kept = n < old ? n : old;
    page_t now[MOST];
    int want = MM_VMA_OK;
    mm_va_t va;

    copy_of(&space, from, now, page);
    if (page[a] == 0 || (n != old && run_end(page, a) < a + kept)) {
        want = MM_VMA_EFAULT;
    } else if (n != old) {
        put(now, a, old, 0);
        put(now, to, n, page[a]);
    } else {
        for (unsigned i = a; i < b; i++)
            if (page[i] != 0) {
                now[to + i - a] = page[i];
                now[i] = 0;
            }
    }
    assert_int_equal(mm_vma_mremap(&space, va_of(a), old * PAGE, n * PAGE, 3, va_of(to), &va),
                     want);
    done(&space, now);
}

/* mremap of [a, b) with DONTUNMAP: the old range stays */
static void keeps(struct mm_vma_space *from, const page_t *page, unsigned a, unsigned b)
{
    struct mm_vma_space space;
    page_t now[MOST];
    int want = page[a] == 0 || run_end(page, a) < b ? MM_VMA_EFAULT : highest(page, b - a);
    int result;
    mm_va_t va = 0;

    copy_of(&space, from, now, page);
    if (want >= 0)
        put(now, (unsigned)want, b - a, page[a]);
    result = mm_vma_mremap(&space, va_of(a), (b - a) * PAGE, (b - a) * PAGE, 5, 0, &va);
    assert_int_equal(result == MM_VMA_OK ? (int)(va / PAGE - LOW) : result, want);
    done(&space, now);
}

/* brk from page `was` to page `is` */
static void breaks(struct mm_vma_space *from, const page_t *page, unsigned was, unsigned is)
{
    struct mm_vma_space space;
    page_t now[MOST];
    bool moved = is == was;

    copy_of(&space, from, now, page);
    space.brk = va_of(was);
    if (is > was) { /* a page stays free between it and what follows */
        moved = free_at(page, was, is - was) && (is == pages || page[is] == 0);
        if (moved)
            put(now, was, is - was, 3);
    } else if (is < was) { /* something is left of it */
        moved = !free_at(page, is, was - is);
        put(now, is, was - is, 0);
    }
    assert_int_equal(mm_vma_brk(&space, va_of(is)), va_of(moved ? is : was));
    done(&space, now);
}

/* Each kind of access to each page: what it says, and that no area changes. */
static void faults(struct mm_vma_space *from, const page_t *page)
{
    static const enum mm_vma_fault refused[] = {0, MM_VMA_FAULT_READ, MM_VMA_FAULT_WRITE, 0,
                                                MM_VMA_FAULT_EXEC};

    for (unsigned i = 0; i < pages; i++)
        for (unsigned need = 1; need <= 4; need *= 2) {
            struct mm_vma_space space;
            page_t now[MOST];

            copy_of(&space, from, now, page);
            assert_int_equal(mm_vma_fault(&space, va_of(i), need), page[i] == 0 ? MM_VMA_FAULT_NONE
                                                                   : (page[i] & need) == need
                                                                       ? MM_VMA_FAULT_OK
                                                                       : refused[need]);
            done(&space, now);
        }
}

static void each_call(struct mm_vma_space *from, const page_t *page)
{
    faults(from, page);
    for (unsigned a = 0; a <= pages; a++)
        for (unsigned b = 0; b <= pages; b++)
            breaks(from, page, a, b);
    for (unsigned a = 0; a < pages; a++)
        for (unsigned b = a + 1; b <= pages; b++) {
            ranges(from, page, a, b);
            locks(from, page, a, b);
            keeps(from, page, a, b);
            for (unsigned n = 1; n <= pages; n++) {
                resizes(from, page, a, b, n);
                for (unsigned to = 0; to + n <= pages; to++)
                    if (to + n <= a || to >= b)
                        moves(from, page, a, b, to, n);
            }
        }
}

/* Every gap search: the lowest and highest hole of n pages within [a, b) */
static void each_gap(struct mm_vma_space *space, const page_t *page)
{
    for (unsigned a = 0; a < pages; a++)
        for (unsigned b = a + 1; b <= pages; b++)
            for (unsigned n = 1; n <= pages; n++) {
                unsigned low = MOST, high = MOST;
                mm_va_t va = 0;

                for (unsigned i = a; i + n <= b; i++) {
                    if (!free_at(page, i, n))
                        continue;
                    low = low == MOST ? i : low;
                    high = i;
                }
                assert_int_equal(
                    mm_vma_map_lowest(&space->map, va_of(a), va_of(b), n * PAGE, 0, &va),
                    low == MOST ? MM_ERR_NOENT : MM_OK);
                assert_int_equal(va, low == MOST ? 0 : va_of(low));
                va = 0;
                assert_int_equal(
                    mm_vma_map_highest(&space->map, va_of(a), va_of(b), n * PAGE, 0, &va),
                    low == MOST ? MM_ERR_NOENT : MM_OK);
                assert_int_equal(va, low == MOST ? 0 : va_of(high));
            }
}

/* Every state of `n` pages of the first `kinds` kinds. */
static void every_state_of(unsigned n, unsigned kinds)
{
    static const page_t kind[] = {0, 1, 3, 3 | NODUMP, 3 | MM_VMA_SHARED | FILED};
    unsigned states = 1;

    pages = n;
    tried = 0;
    set_up();
    for (unsigned i = 0; i < pages; i++)
        states *= kinds;
    for (n = 0; n < states; n++) {
        struct mm_vma_space space;
        page_t page[MOST] = {0};

        space_of(&space);
        for (unsigned i = 0, rest = n; i < pages; i++, rest /= kinds) {
            page[i] = kind[rest % kinds];
            page[i] = (page_t)(page[i] + ((page[i] & FILED) != 0 ? i << 8 : 0));
            if (page[i] == 0)
                continue;
            assert_int_equal(map(&space, i, 1, page[i], MM_VMA_MAP_FIXED), (int)i);
            if ((page[i] & NODUMP) != 0)
                assert_int_equal(mm_vma_madvise(&space, va_of(i), PAGE, MM_VMA_ADV_DONTDUMP),
                                 MM_VMA_OK);
        }
        same(&space, page);
        each_gap(&space, page);
        each_call(&space, page);
        done(&space, page);
    }
    mm_vma_system_fini(&sys);
    assert_int_equal(source.live, 0);
    printf("# %u states of %u pages, %llu calls\n", states, pages, (unsigned long long)tried);
}

static void every_state_of_anonymous_memory(void **state)
{
    (void)state;
    every_state_of(getenv("VMA_PAGES") != NULL ? (unsigned)atoi(getenv("VMA_PAGES"))
                   : MM_TEST_SANITIZED         ? 5
                                               : MOST,
                   3);
}

static void every_state_with_flags_and_files(void **state)
{
    (void)state;
    every_state_of(MM_TEST_SANITIZED ? 4 : 5, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_of_anonymous_memory),
        cmocka_unit_test(every_state_with_flags_and_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
