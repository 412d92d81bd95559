/* Any sequence of calls of mm_pagetable against a plain map of page -> (frame, attributes), for
 * formats with tables of four or sixteen entries. Tables run out when the input says so. */
#include "fuzz.h"
#define MM_PAGETABLE_STATIC
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm_pagetable.h"

#define PAGE   UINT64_C(4096)
#define PAGES  256u /* looked at, from address 0 up */
#define TABLES 600u
#define KEPT   (~(uint32_t)(MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY | MM_PAGETABLE_CONTIG))

enum kind { HOLE, LEAF, SWAPPED };
struct page {
    enum kind kind;
    uint64_t pa;
    uint32_t attr;
};

static _Alignas(4096) unsigned char room[TABLES][4096];
static bool used[TABLES];
static unsigned in_use, fail_after; /* so many allocations succeed */
static struct page model[PAGES];
static struct mm_pagetable_format format;
static struct mm_pagetable pt;
static uint64_t gone, expected_gone; /* sums over the frames that left */
static uint64_t pages;               /* of the whole address space */

static mm_pa_t take(void *ctx, uint64_t bytes)
{
    (void)ctx;
    fuzz_require(bytes <= PAGE);
    if (fail_after == 0)
        return MM_PA_NONE;
    fail_after--;
    for (size_t i = 0; i < TABLES; i++)
        if (!used[i]) {
            used[i] = true;
            in_use++;
            memset(room[i], 0xa5, (size_t)bytes);
            return (i + 256) * PAGE;
        }
    return MM_PA_NONE;
}

static void give(void *ctx, mm_pa_t table, uint64_t bytes)
{
    const size_t i = (size_t)(table / PAGE - 256);
    (void)ctx;
    fuzz_require(i < TABLES && used[i] && table % PAGE == 0);
    used[i] = false;
    in_use--;
    memset(room[i], 0x5b, (size_t)bytes);
}

static uint64_t mixed(uint64_t pa, bool swapped)
{
    pa = (pa ^ (swapped ? 0x8000000000000001u : 0)) * UINT64_C(0x9e3779b97f4a7c15);
    return pa ^ pa >> 29;
}

static void release(void *ctx, const struct mm_pagetable_extent *extent)
{
    const bool swapped = (extent->attr & MM_PAGETABLE_SWAP) != 0;
    (void)ctx;
    for (uint64_t at = 0; at < extent->bytes; at += PAGE)
        gone += mixed(swapped ? extent->pa : extent->pa + at, swapped);
}

static const struct mm_pagetable_hooks hooks = {.alloc = take, .free = give, .release = release};

static mm_va_t va_of(uint64_t p)
{
    uint64_t off = p * PAGE, space = pages * PAGE;
    if (format.canonical == MM_PAGETABLE_SIGN_EXTENDED && off >= space / 2)
        off -= space;
    return off;
}

/* Is [p, p + n) a range that the format has? */
static bool exists(uint64_t p, uint64_t n)
{
    if (n == 0 || p + n > pages)
        return false;
    return format.canonical != MM_PAGETABLE_SIGN_EXTENDED || p >= pages / 2 || p + n <= pages / 2;
}

static void compare(uint64_t p, uint64_t n)
{
    struct mm_pagetable_entry entry;
    for (; n > 0 && p < PAGES && p < pages; p++, n--) {
        const struct page *m = &model[p];
        const enum mm_status status = mm_pagetable_query(&pt, va_of(p), &entry);
        const mm_pa_t pa = mm_pagetable_translate(&pt, va_of(p) + 77);
        fuzz_require(status == (m->kind == HOLE ? MM_ERR_NOENT : MM_OK));
        fuzz_require(pa == (m->kind == LEAF ? m->pa + 77 : MM_PA_NONE));
        if (m->kind == LEAF)
            fuzz_require((entry.attr & KEPT) == m->attr);
        else if (m->kind == SWAPPED)
            fuzz_require(entry.attr == MM_PAGETABLE_SWAP && entry.pa == m->pa);
    }
}

static unsigned occupied(uint64_t p, uint64_t n, bool leaves_only)
{
    unsigned count = 0;
    for (; n > 0 && p < PAGES; p++, n--)
        count += leaves_only ? model[p].kind == LEAF : model[p].kind != HOLE;
    return count;
}

static void leave(uint64_t p, uint64_t n)
{
    for (; n > 0; p++, n--) {
        if (model[p].kind != HOLE)
            expected_gone += mixed(model[p].pa, model[p].kind == SWAPPED);
        model[p].kind = HOLE;
    }
}

/* A call whose tables may run out, and which must do nothing then. */
static bool done(enum mm_status status, enum mm_status expected)
{
    if (status == MM_ERR_NOMEM && expected == MM_OK && fail_after == 0)
        return false;
    fuzz_require(status == expected);
    return status == MM_OK;
}

static uint32_t attr_of(unsigned choice)
{
    static const uint32_t some[] = {MM_PAGETABLE_READ, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE,
                                    MM_PAGETABLE_READ | MM_PAGETABLE_EXEC,
                                    MM_PAGETABLE_READ | MM_PAGETABLE_EXEC | MM_PAGETABLE_SOFT0};
    return some[choice & 3];
}

static void do_map(uint64_t p, uint64_t n, unsigned arg)
{
    /* same alignment as the address, or off by some pages */
    const uint64_t pa = (uint64_t)(0x10000 + p + (arg >> 4 & 3) * (arg >> 6 & 7)) * PAGE;
    const unsigned how = (arg & 8) != 0 ? MM_PAGETABLE_REPLACE : 0;
    const unsigned most = arg >> 9 & 3;
    enum mm_status expected = MM_OK, status;

    if (!exists(p, n))
        expected = MM_ERR_INVALID;
    else if (how == 0 && occupied(p, n, false) != 0)
        expected = MM_ERR_EXISTS;
    status = mm_pagetable_map(&pt, va_of(p), pa, n * PAGE, attr_of(arg),
                              how | (most != 0 ? MM_PAGETABLE_LEAF_MAX(most - 1) : 0), NULL);
    if (!done(status, expected))
        return;
    leave(p, n);
    for (uint64_t i = 0; i < n; i++)
        model[p + i] = (struct page){LEAF, pa + i * PAGE, attr_of(arg)};
}

static void do_frames(uint64_t p, uint64_t n, unsigned arg)
{
    mm_pa_t frames[8];
    enum mm_status expected = MM_OK;
    n &= 7;
    for (uint64_t i = 0; i < n; i++)
        frames[i] = (0x20000 + (p * 7 + i * (arg & 3)) % 999) * PAGE;
    if (!exists(p, n))
        expected = MM_ERR_INVALID;
    else if (occupied(p, n, false) != 0)
        expected = MM_ERR_EXISTS;
    if (!done(mm_pagetable_map_frames(&pt, va_of(p), frames, (size_t)n, attr_of(arg), 0, NULL),
              expected))
        return;
    for (uint64_t i = 0; i < n; i++)
        model[p + i] = (struct page){LEAF, frames[i], attr_of(arg)};
}

static void do_unmap(uint64_t p, uint64_t n)
{
    enum mm_status expected = MM_OK;
    if (!exists(p, n))
        expected = MM_ERR_INVALID;
    else if (occupied(p, n, false) == 0)
        expected = MM_ERR_NOENT;
    if (done(mm_pagetable_unmap(&pt, va_of(p), n * PAGE, NULL), expected))
        leave(p, n);
}

static void do_protect(uint64_t p, uint64_t n, unsigned arg)
{
    const uint32_t attr = attr_of(arg) & MM_PAGETABLE_PERMS;
    enum mm_status expected = MM_OK;
    if (!exists(p, n))
        expected = MM_ERR_INVALID;
    else if (occupied(p, n, true) == 0)
        expected = MM_ERR_NOENT;
    if (!done(mm_pagetable_protect(&pt, va_of(p), n * PAGE, attr, MM_PAGETABLE_PERMS, NULL),
              expected))
        return;
    for (uint64_t i = p; i < p + n; i++)
        model[i].attr = (model[i].attr & ~MM_PAGETABLE_PERMS) | attr;
}

static void do_swap(uint64_t p, unsigned value)
{
    if (!done(mm_pagetable_swap(&pt, va_of(p), value, NULL), MM_OK))
        return;
    leave(p, 1);
    model[p] = (struct page){SWAPPED, value, 0};
}

/* Calls that change no page: what they say is not modelled, only that they may say it. */
static void do_shape(uint64_t p, uint64_t n, unsigned arg)
{
    enum mm_status status;
    if (!exists(p, n))
        return;
    if ((arg & 3) == 0)
        status = mm_pagetable_split(&pt, va_of(p), 0, NULL);
    else if ((arg & 3) == 1)
        status = mm_pagetable_sweep(&pt, va_of(p), n * PAGE, NULL);
    else
        status = mm_pagetable_collapse(&pt, va_of(p), n * PAGE, NULL);
    fuzz_require(status == MM_OK || status == MM_ERR_NOENT ||
                 (status == MM_ERR_NOMEM && fail_after == 0));
}

/* Single steps here and there, under one lock and with one flush. */
static void do_cursor(struct fuzz_input *in, uint64_t p, unsigned steps)
{
    struct mm_pagetable_cursor c;
    const uint64_t end = pages < PAGES ? pages : PAGES, half = pages / 2;
    const bool two = format.canonical == MM_PAGETABLE_SIGN_EXTENDED && half < end;
    const uint64_t first = two && p >= half ? half : 0, last = two && p < half ? half : end;

    if (mm_pagetable_cursor_begin(&c, &pt, va_of(first), (last - first) * PAGE, NULL) != MM_OK)
        abort();
    for (; steps > 0; steps--) {
        const unsigned arg = fuzz_byte(in);
        struct page *m = &model[p];
        const bool there = (arg & 4) != 0;
        enum mm_status status;
        if (!there)
            fuzz_require(mm_pagetable_cursor_seek(&c, va_of(p)) == MM_OK);
        if ((arg & 1) != 0) {
            const mm_pa_t pa = (0x30000 + p * 3) * PAGE;
            status = there ? mm_pagetable_cursor_map_at(&c, va_of(p), pa, attr_of(arg >> 1))
                           : mm_pagetable_cursor_map(&c, pa, attr_of(arg >> 1));
            if (done(status, m->kind == HOLE ? MM_OK : MM_ERR_EXISTS))
                *m = (struct page){LEAF, pa, attr_of(arg >> 1)};
        } else {
            status =
                there ? mm_pagetable_cursor_unmap_at(&c, va_of(p)) : mm_pagetable_cursor_unmap(&c);
            if (status != MM_ERR_BUSY) { /* inside a larger leaf */
                fuzz_require(status == (m->kind == HOLE ? MM_ERR_NOENT : MM_OK));
                leave(p, 1);
            } else {
                fuzz_require(m->kind == LEAF);
            }
        }
        p = (arg & 2) != 0 && p + 1 < last ? p + 1 : first + (arg * 5 + p) % (last - first);
    }
    mm_pagetable_cursor_end(&c);
}

static void call(struct fuzz_input *in)
{
    const unsigned what = fuzz_byte(in), arg = fuzz_pair(in);
    const uint64_t limit = pages < PAGES ? pages : PAGES, p = fuzz_byte(in) % limit;
    uint64_t n = fuzz_byte(in) % 70;

    if (p + n > PAGES)
        n = PAGES - p;
    fail_after = (what & 0x80) != 0 ? what >> 4 & 7 : TABLES;
    switch (what & 7) {
    case 0:
    case 1:
        do_map(p, n, arg);
        break;
    case 2:
        do_unmap(p, n);
        break;
    case 3:
        do_protect(p, n, arg);
        break;
    case 4:
        do_frames(p, n, arg);
        break;
    case 5:
        do_swap(p, arg);
        break;
    case 6:
        do_shape(p, n, arg);
        break;
    default:
        do_cursor(in, p, arg & 31);
    }
    fuzz_require(gone == expected_gone);
    compare(p > 2 ? p - 2 : 0, n + 4);
}

static void make(unsigned choice)
{
    static const enum mm_pagetable_id ids[] = {MM_PAGETABLE_ID_X86_64, MM_PAGETABLE_ID_SV39,
                                               MM_PAGETABLE_ID_EPT,    MM_PAGETABLE_ID_AARCH64_S1,
                                               MM_PAGETABLE_ID_SV32,   MM_PAGETABLE_ID_X86_64_LA57,
                                               MM_PAGETABLE_ID_SV57,   MM_PAGETABLE_ID_AARCH64_S2};
    struct mm_pagetable_config config;

    format = *mm_pagetable_format_of(ids[choice & 7]);
    format.index_bits = (choice & 8) != 0 ? 4 : 2;
    format.va_bits = 12 + format.levels * format.index_bits;
    pages = UINT64_C(1) << (format.va_bits - 12);
    fail_after = TABLES;
    fuzz_require(mm_pagetable_config_init(&config, &format, &hooks, (uintptr_t)room - 256 * PAGE) ==
                 MM_OK);
    if ((choice & 16) != 0)
        config.flags |= MM_PAGETABLE_KEEP_EMPTY;
    if ((choice & 32) != 0)
        config.flags |= format.features & (MM_PAGETABLE_CONTIGUOUS | MM_PAGETABLE_HW_AD);
    if (format.index_bits < 4) /* groups have sixteen entries */
        config.flags &= ~(uint32_t)MM_PAGETABLE_CONTIGUOUS;
    if ((choice & 64) != 0)
        config.flags &= ~(uint32_t)MM_PAGETABLE_PRESET_AD;
    fuzz_require(mm_pagetable_init(&pt, &config) == MM_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    static mm_pa_t seen[TABLES];

    memset(model, 0, sizeof model);
    memset(used, 0, sizeof used);
    in_use = 0;
    gone = expected_gone = 0;
    make(fuzz_byte(&in));
    while (in.at < in.end)
        call(&in);
    compare(0, PAGES);
    fuzz_require(mm_pagetable_check(&pt, seen, TABLES, NULL) == MM_OK);
    leave(0, PAGES);
    fuzz_require(mm_pagetable_destroy(&pt, false) == MM_OK);
    fuzz_require(in_use == 0 && gone == expected_gone);
    return 0;
}
