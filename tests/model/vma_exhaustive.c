/* Small windows, exhaustively: each state of N pages (hole, read-only, read-write), each call with each range, against
 * an array of pages. Untouched anonymous memory has one list of areas for each state: its runs. */
#include "vma_test.h"

#define MOST 8u
#define LOW  16u

static unsigned pages;
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
    config.low = config.up_base = va_of(0);
    config.top = config.mmap_base = va_of(pages);
    config.guard_pages = 0;
    assert_int_equal(mm_vma_space_init(space, &sys, &config), MM_OK);
}

static int map_fixed(struct mm_vma_space *space, unsigned from, unsigned to, unsigned prot)
{
    struct mm_vma_request r;
    mm_va_t va;

    memset(&r, 0, sizeof r);
    r.hint = va_of(from);
    r.bytes = (to - from) * PAGE;
    r.prot = prot;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    return mm_vma_mmap(space, &r, &va);
}

/* The areas are the runs of equal pages, no more and no fewer. */
static void same(struct mm_vma_space *space, const unsigned char *page)
{
    struct mm_vma_cursor c;
    struct mm_vma *vma = mm_vma_cursor_seek(&c, &space->map, 0);

    for (unsigned i = 0, end; i < pages; i = end) {
        for (end = i + 1; end < pages && page[end] == page[i]; end++)
            continue;
        if (page[i] == 0)
            continue;
        assert_non_null(vma);
        assert_int_equal(mm_vma_start(vma), va_of(i));
        assert_int_equal(mm_vma_end(vma), va_of(end));
        assert_int_equal(vma->flags & 7, page[i]);
        vma = mm_vma_cursor_next(&c);
    }
    assert_null(vma);
    assert_int_equal(mm_vma_check(space), MM_OK);
    tried++;
}

static unsigned run_end(const unsigned char *page, unsigned i)
{
    unsigned end = i;

    while (end < pages && page[end] == page[i])
        end++;
    return end;
}

static void done(struct mm_vma_space *space, const unsigned char *page)
{
    same(space, page);
    assert_true(mm_vma_leave(space));
}

/* munmap, mmap and mprotect of [a, b) */
static void ranges(struct mm_vma_space *from, const unsigned char *page, unsigned a, unsigned b)
{
    struct mm_vma_space space;
    unsigned char now[MOST];
    unsigned i, prot;

    assert_int_equal(mm_vma_fork(&space, from, NULL), MM_VMA_OK);
    memcpy(now, page, MOST);
    memset(now + a, 0, b - a);
    assert_int_equal(mm_vma_munmap(&space, va_of(a), (b - a) * PAGE), MM_VMA_OK);
    done(&space, now);
    for (prot = 1; prot <= 3; prot += 2) {
        assert_int_equal(mm_vma_fork(&space, from, NULL), MM_VMA_OK);
        memcpy(now, page, MOST);
        memset(now + a, (int)prot, b - a);
        assert_int_equal(map_fixed(&space, a, b, prot), MM_VMA_OK);
        done(&space, now);
        assert_int_equal(mm_vma_fork(&space, from, NULL), MM_VMA_OK);
        memcpy(now, page, MOST);
        for (i = a; i < b && page[i] != 0; i++)
            now[i] = (unsigned char)prot;
        assert_int_equal(mm_vma_mprotect(&space, va_of(a), (b - a) * PAGE, prot),
                         i == b ? MM_VMA_OK : MM_VMA_ENOMEM);
        done(&space, now);
    }
}

/* mremap of [a, b) to the length n, in place */
static void resizes(struct mm_vma_space *from, const unsigned char *page, unsigned a, unsigned b,
                    unsigned n)
{
    struct mm_vma_space space;
    unsigned char now[MOST];
    unsigned i = b;
    int want = MM_VMA_OK;
    mm_va_t va;

    assert_int_equal(mm_vma_fork(&space, from, NULL), MM_VMA_OK);
    memcpy(now, page, MOST);
    if (page[a] == 0) {
        want = MM_VMA_EFAULT;
    } else if (a + n < b) {
        memset(now + a + n, 0, b - a - n);
    } else if (a + n > b) {
        while (i < pages && i < a + n && page[i] == 0)
            i++;
        want = run_end(page, a) < b                 ? MM_VMA_EFAULT
               : run_end(page, a) != b || i < a + n ? MM_VMA_ENOMEM
                                                    : MM_VMA_OK;
        if (want == MM_VMA_OK)
            memset(now + b, page[a], a + n - b);
    }
    assert_int_equal(mm_vma_mremap(&space, va_of(a), (b - a) * PAGE, n * PAGE, 0, 0, &va), want);
    done(&space, now);
}

/* mremap of [a, b) to `to`, areas and holes as they are */
static void moves(struct mm_vma_space *from, const unsigned char *page, unsigned a, unsigned b,
                  unsigned to)
{
    struct mm_vma_space space;
    unsigned char now[MOST];
    mm_va_t va;

    assert_int_equal(mm_vma_fork(&space, from, NULL), MM_VMA_OK);
    memcpy(now, page, MOST);
    if (page[a] != 0)
        for (unsigned i = a; i < b; i++)
            if (page[i] != 0) {
                now[to + i - a] = page[i];
                now[i] = 0;
            }
    assert_int_equal(
        mm_vma_mremap(&space, va_of(a), (b - a) * PAGE, (b - a) * PAGE, 3, va_of(to), &va),
        page[a] == 0 ? MM_VMA_EFAULT : MM_VMA_OK);
    done(&space, now);
}

static void each_call(struct mm_vma_space *from, const unsigned char *page)
{
    for (unsigned a = 0; a < pages; a++)
        for (unsigned b = a + 1; b <= pages; b++) {
            ranges(from, page, a, b);
            for (unsigned n = 1; n <= pages; n++)
                resizes(from, page, a, b, n);
            for (unsigned to = 0; to + (b - a) <= pages; to++)
                if (to + (b - a) <= a || to >= b)
                    moves(from, page, a, b, to);
        }
}

/* Every gap search: the lowest and highest hole of n pages within [a, b) */
static void each_gap(struct mm_vma_space *space, const unsigned char *page)
{
    for (unsigned a = 0; a < pages; a++)
        for (unsigned b = a + 1; b <= pages; b++)
            for (unsigned n = 1; n <= pages; n++) {
                unsigned low = MOST, high = MOST;
                mm_va_t va = 0;

                for (unsigned i = a; i + n <= b; i++) {
                    if (page[i] != 0 || run_end(page, i) < i + n)
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

static void every_state(void **state)
{
    static const unsigned char prots[] = {0, 1, 3};
    unsigned states = 1;

    (void)state;
    pages = getenv("VMA_PAGES") != NULL ? (unsigned)atoi(getenv("VMA_PAGES"))
            : MM_TEST_SANITIZED         ? 6
                                        : MOST;
    set_up();
    for (unsigned i = 0; i < pages; i++)
        states *= 3;
    for (unsigned n = 0; n < states; n++) {
        unsigned char page[MOST] = {0};
        struct mm_vma_space space;

        space_of(&space);
        for (unsigned i = 0, rest = n; i < pages; i++, rest /= 3)
            page[i] = prots[rest % 3];
        for (unsigned i = 0; i < pages; i++)
            if (page[i] != 0)
                assert_int_equal(map_fixed(&space, i, i + 1, page[i]), MM_VMA_OK);
        same(&space, page);
        each_gap(&space, page);
        each_call(&space, page);
        done(&space, page);
    }
    mm_vma_system_fini(&sys);
    assert_int_equal(source.live, 0);
    printf("# %u states of %u pages, %llu calls\n", states, pages, (unsigned long long)tried);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_state)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
