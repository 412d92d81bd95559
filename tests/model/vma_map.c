/* The map of mm_vma.h against a plain array of pages: random areas in a window, every question
 * asked of both. The window lies across a 2^32-page border in half of the runs. */
#include <limits.h>

#include "vma_test.h"

#define PAGES 6000u

struct model {
    struct mm_vma *page[PAGES]; /* the area of each page, or NULL */
    uintptr_t base;             /* page number of page[0] */
    struct vma_source source;
    struct mm_vma_map map;
    struct mm_vma *live[PAGES];
    unsigned areas;
};

static mm_va_t va_of(const struct model *m, unsigned page)
{
    return (mm_va_t)(m->base + page) << MM_PAGE_SHIFT;
}

static void model_init(struct model *m, uintptr_t base)
{
    memset(m, 0, sizeof *m);
    m->base = base;
    vma_source_init(&m->source);
    mm_vma_map_init(&m->map, &m->source.hooks);
}

static void model_fini(struct model *m)
{
    for (unsigned i = 0; i < m->areas; i++)
        free(m->live[i]);
    mm_vma_map_fini(&m->map);
    assert_int_equal(m->source.live, 0);
}

static void insert(struct model *m, struct mm_test_rng *rng)
{
    unsigned start = (unsigned)mm_test_below(rng, PAGES),
             pages = 1 + (unsigned)mm_test_below(rng, 16);
    struct mm_vma *vma = aligned_alloc(64, sizeof *vma);
    bool taken = false;

    if (start + pages > PAGES)
        pages = PAGES - start;
    memset(vma, 0, sizeof *vma);
    vma->start = m->base + start;
    vma->end = m->base + start + pages;
    vma->flags = mm_test_below(rng, 64);
    for (unsigned i = 0; i < pages; i++)
        taken |= m->page[start + i] != NULL;
    if (taken) {
        assert_int_equal(mm_vma_map_insert(&m->map, vma), MM_ERR_EXISTS);
        free(vma);
        return;
    }
    assert_int_equal(mm_vma_map_insert(&m->map, vma), MM_OK);
    for (unsigned i = 0; i < pages; i++)
        m->page[start + i] = vma;
    m->live[m->areas++] = vma;
}

static void erase(struct model *m, struct mm_test_rng *rng)
{
    unsigned i;
    struct mm_vma *vma;

    if (m->areas == 0)
        return;
    i = (unsigned)mm_test_below(rng, m->areas);
    vma = m->live[i];
    m->live[i] = m->live[--m->areas];
    assert_int_equal(mm_vma_map_erase(&m->map, vma), MM_OK);
    assert_int_equal(mm_vma_map_erase(&m->map, vma), MM_ERR_NOENT);
    for (uintptr_t p = vma->start; p < vma->end; p++)
        m->page[p - m->base] = NULL;
    free(vma);
}

/* Moves the bounds of a random area, as merges, splits and growing stacks do. */
static void resize(struct model *m, struct mm_test_rng *rng)
{
    struct mm_vma *vma;
    uintptr_t start, end;

    if (m->areas == 0)
        return;
    vma = m->live[mm_test_below(rng, m->areas)];
    start = vma->start;
    end = vma->end;
    if (mm_test_chance(rng, 50)) { /* the start */
        while (start > m->base && m->page[start - 1 - m->base] == NULL && mm_test_chance(rng, 70))
            start--;
        if (start == vma->start)
            start += mm_test_below(rng, end - start);
    } else {
        while (end < m->base + PAGES && m->page[end - m->base] == NULL && mm_test_chance(rng, 70))
            end++;
        if (end == vma->end)
            end -= mm_test_below(rng, end - start);
    }
    for (uintptr_t p = vma->start; p < vma->end; p++)
        m->page[p - m->base] = NULL;
    assert_int_equal(mm_vma_map_reserve(&m->map, 1), MM_OK);
    mmi_vma_write_begin(&m->map);
    if (start != vma->start)
        mmi_vma_set_start(&m->map, vma, start);
    if (end != vma->end)
        mmi_vma_set_end(&m->map, vma, end);
    mmi_vma_write_end(&m->map);
    for (uintptr_t p = start; p < end; p++)
        m->page[p - m->base] = vma;
}

static unsigned low_fit(const struct model *m, unsigned low, unsigned high, unsigned pages,
                        unsigned align)
{
    for (unsigned a = low; a + pages <= high; a++) {
        bool free = (m->base + a) % align == 0;

        for (unsigned i = 0; free && i < pages; i++)
            free = m->page[a + i] == NULL;
        if (free)
            return a;
    }
    return UINT_MAX;
}

static unsigned high_fit(const struct model *m, unsigned low, unsigned high, unsigned pages,
                         unsigned align)
{
    for (unsigned a = high - pages + 1; high >= pages && a-- > low;) {
        bool free = (m->base + a) % align == 0;

        for (unsigned i = 0; free && i < pages; i++)
            free = m->page[a + i] == NULL;
        if (free)
            return a;
    }
    return UINT_MAX;
}

static void ask_gap(struct model *m, struct mm_test_rng *rng)
{
    unsigned low = (unsigned)mm_test_below(rng, PAGES),
             high = (unsigned)mm_test_below(rng, PAGES + 1);
    unsigned pages = 1 + (unsigned)mm_test_below(rng, 1u << mm_test_below(rng, 6));
    unsigned align = mm_test_chance(rng, 70) ? 1 : 1u << mm_test_below(rng, 4);
    mm_va_t va = 1;
    enum mm_status status;
    unsigned fit;

    if (low > high || mm_test_chance(rng, 20)) {
        low = 0;
        high = PAGES;
    }
    fit = low_fit(m, low, high, pages, align);
    status =
        mm_vma_map_lowest(&m->map, va_of(m, low), va_of(m, high), pages * PAGE, align * PAGE, &va);
    assert_int_equal(status, fit == UINT_MAX ? MM_ERR_NOENT : MM_OK);
    assert_int_equal(va, fit == UINT_MAX ? 1 : va_of(m, fit));
    va = 1;
    fit = high_fit(m, low, high, pages, align);
    status =
        mm_vma_map_highest(&m->map, va_of(m, low), va_of(m, high), pages * PAGE, align * PAGE, &va);
    assert_int_equal(status, fit == UINT_MAX ? MM_ERR_NOENT : MM_OK);
    assert_int_equal(va, fit == UINT_MAX ? 1 : va_of(m, fit));
}

static void ask_page(struct model *m, unsigned page)
{
    struct mm_vma *vma = m->page[page];
    mm_va_t va = va_of(m, page) + 123;
    struct mm_vma_view view;

    assert_ptr_equal(mm_vma_map_find(&m->map, va), vma);
    assert_int_equal(mm_vma_map_access(&m->map, va), vma == NULL ? -1 : (int)(vma->flags & 63));
    assert_int_equal(mm_vma_map_read(&m->map, va, &view), vma == NULL ? MM_ERR_NOENT : MM_OK);
    if (vma != NULL) {
        assert_ptr_equal(view.area, vma);
        assert_int_equal(view.start, mm_vma_start(vma));
        assert_int_equal(view.end, mm_vma_end(vma));
    }
}

static void ask_walk(struct model *m)
{
    struct mm_vma_cursor cursor;
    struct mm_vma *vma = mm_vma_cursor_seek(&cursor, &m->map, 0), *last = NULL;
    unsigned seen = 0;

    for (unsigned p = 0; p < PAGES; p++) {
        if (m->page[p] == NULL || (p != 0 && m->page[p] == m->page[p - 1]))
            continue;
        assert_ptr_equal(vma, m->page[p]);
        assert_int_equal(mm_vma_cursor_access(&cursor), vma->flags & 63);
        last = vma;
        vma = mm_vma_cursor_next(&cursor);
        seen++;
    }
    assert_null(vma);
    assert_int_equal(seen, m->areas);
    for (unsigned p = PAGES; last != NULL && p-- != 0;) {
        if (m->page[p] == NULL || m->page[p] == last)
            continue;
        last = m->page[p];
        assert_ptr_equal(mm_vma_cursor_prev(&cursor), last);
    }
    if (m->areas != 0)
        assert_null(mm_vma_cursor_prev(&cursor));
}

static struct mm_vma *copy_some(void *ctx, struct mm_vma *area, bool *failed)
{
    (void)ctx;
    (void)failed;
    return area->flags % 8 == 7 ? NULL : area;
}

static void ask_dup(struct model *m)
{
    struct mm_vma_map twin;
    struct mm_vma_cursor a, b;
    struct mm_vma *x, *y;

    mm_vma_map_init(&twin, &m->source.hooks);
    assert_int_equal(mm_vma_map_dup(&twin, &m->map, copy_some, NULL), MM_OK);
    assert_int_equal(mm_vma_map_check(&twin), MM_OK);
    y = mm_vma_cursor_seek(&b, &twin, 0);
    for (x = mm_vma_cursor_seek(&a, &m->map, 0); x != NULL; x = mm_vma_cursor_next(&a)) {
        if (x->flags % 8 == 7)
            continue;
        assert_ptr_equal(x, y);
        y = mm_vma_cursor_next(&b);
    }
    assert_null(y);
    mm_vma_map_fini(&twin);
}

static void run(struct model *m, struct mm_test_rng *rng, uint64_t ops)
{
    unsigned grow = 60;

    for (uint64_t op = 0; op < ops; op++) {
        unsigned dice = (unsigned)mm_test_below(rng, 100);

        if (op % 5000 == 0)
            grow = 20 + (unsigned)mm_test_below(rng, 60);
        if (dice < 70) {
            if (mm_test_below(rng, 100) < grow)
                insert(m, rng);
            else
                erase(m, rng);
        } else if (dice < 80) {
            resize(m, rng);
        } else {
            ask_page(m, (unsigned)mm_test_below(rng, PAGES));
        }
        if (op % 16 == 0)
            ask_gap(m, rng);
        if (op % 64 == 0)
            assert_int_equal(mm_vma_map_check(&m->map), MM_OK);
        if (op % 4096 == 0) {
            ask_walk(m);
            ask_dup(m);
        }
    }
    while (m->areas != 0) {
        erase(m, rng);
        if (m->areas % 16 == 0)
            assert_int_equal(mm_vma_map_check(&m->map), MM_OK);
    }
    ask_walk(m);
}

static void random_areas(void **state)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 1);
    struct model *m = malloc(sizeof *m);

    (void)state;
    model_init(m, 0x1000);
    run(m, &rng, mm_test_ops() / 4);
    model_fini(m);
    free(m);
}

#if MM_WORD_BITS == 64
static void random_areas_across_a_border(void **state)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 2);
    struct model *m = malloc(sizeof *m);

    (void)state;
    model_init(m, ((uintptr_t)3 << 32) - PAGES / 2);
    run(m, &rng, mm_test_ops() / 4);
    model_fini(m);
    free(m);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_areas),
#if MM_WORD_BITS == 64
        cmocka_unit_test(random_areas_across_a_border),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
