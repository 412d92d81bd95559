/* pagetable_model.h - a plain map of page -> (frame, attributes, size of leaf), changed by the
 * rules of mm_pagetable.h's contracts, and compared with the tables through the walker. */
#ifndef PAGETABLE_MODEL_H
#define PAGETABLE_MODEL_H

#include "pagetable_test.h"
#include "pagetable_walker.h"

#define CELLS 2048u

enum cell_kind { CELL_NONE, CELL_MAPPED, CELL_SWAP };

struct cell {
    enum cell_kind kind;
    unsigned level;
    bool group;
    uint64_t pa; /* of this page; a swap entry's value */
    uint32_t attr;
};

/* A space with its model: pages [first, first + count) of the address space, counted without sign
 * extension. */
struct world {
    struct space s;
    struct mm_pagetable_format format; /* the descriptor, perhaps with fewer index bits */
    struct walker walker;
    uint64_t first;
    unsigned count;
    struct cell cell[CELLS];
};

static MM_TEST_UNUSED const struct {
    enum walker_kind kind;
    int levels, root_extra;
} world_kinds[MM_PAGETABLE_ID_COUNT] = {
    [MM_PAGETABLE_ID_X86_64] = {WALK_X86, 4, 0},
    [MM_PAGETABLE_ID_X86_64_LA57] = {WALK_X86, 5, 0},
    [MM_PAGETABLE_ID_SV32] = {WALK_RISCV, 2, 0},
    [MM_PAGETABLE_ID_SV39] = {WALK_RISCV, 3, 0},
    [MM_PAGETABLE_ID_SV48] = {WALK_RISCV, 4, 0},
    [MM_PAGETABLE_ID_SV57] = {WALK_RISCV, 5, 0},
    [MM_PAGETABLE_ID_EPT] = {WALK_EPT, 4, 0},
    [MM_PAGETABLE_ID_NPT] = {WALK_NPT, 4, 0},
    [MM_PAGETABLE_ID_SV39X4] = {WALK_GSTAGE, 3, 2},
    [MM_PAGETABLE_ID_SV48X4] = {WALK_GSTAGE, 4, 2},
    [MM_PAGETABLE_ID_SV57X4] = {WALK_GSTAGE, 5, 2},
    [MM_PAGETABLE_ID_AARCH64_S1] = {WALK_ARM1, 4, 0},
    [MM_PAGETABLE_ID_AARCH64_S2] = {WALK_ARM2, 4, 0},
};

/* Address of a page of the window. */
static MM_TEST_UNUSED mm_va_t page_va(const struct world *w, uint64_t page)
{
    uint64_t off = (w->first + page) * PAGE;
    unsigned bits = (unsigned)walk_va_bits(&w->walker);
    bool sign =
        w->walker.kind == WALK_X86 || (w->walker.kind == WALK_RISCV && w->walker.entry_bytes == 8);
    if ((sign && (off >> (bits - 1) & 1) != 0) ||
        (w->walker.kind == WALK_ARM1 && w->walker.upper_half))
        off |= ~(uint64_t)0 << bits;
    return off;
}

/* Prepares a world of this format; index_bits 0: the format's own. Then set flags, then
 * world_make. */
static MM_TEST_UNUSED void world_begin(struct world *w, struct ram *ram, enum mm_pagetable_id id,
                                       unsigned index_bits)
{
    struct walker *k = &w->walker;
    memset(w, 0, sizeof *w);
    w->format = *mm_pagetable_format_of(id);
    k->kind = world_kinds[id].kind;
    k->levels = world_kinds[id].levels;
    k->index_bits = index_bits != 0 ? (int)index_bits : id == MM_PAGETABLE_ID_SV32 ? 10 : 9;
    k->root_bits = k->index_bits + world_kinds[id].root_extra;
    k->entry_bytes = id == MM_PAGETABLE_ID_SV32 ? 4 : 8;
    w->format.index_bits = (uint32_t)k->index_bits;
    w->format.va_bits = (uint32_t)walk_va_bits(k);
    space_begin(&w->s, ram, &w->format);
    w->s.config.pa_bits = id == MM_PAGETABLE_ID_SV32 ? 34 : 44;
}

static MM_TEST_UNUSED void world_make(struct world *w)
{
    struct walker *k = &w->walker;
    uint32_t flags = w->s.config.flags;
    k->max_pa = (int)w->s.config.pa_bits;
    k->nxe = (flags & MM_PAGETABLE_NX) != 0;
    k->pke = (flags & MM_PAGETABLE_PKEYS) != 0;
    k->exec_only = (flags & MM_PAGETABLE_EXEC_ONLY) != 0;
    k->mode_exec = (flags & MM_PAGETABLE_MODE_EXEC) != 0;
    k->sets_ad = (flags & MM_PAGETABLE_HW_AD) != 0;
    k->pbmt = (flags & MM_PAGETABLE_SVPBMT) != 0;
    k->napot = (flags & MM_PAGETABLE_CONTIGUOUS) != 0;
    k->upper_half = (flags & MM_PAGETABLE_HIGH_HALF) != 0;
    space_make(&w->s);
    k->root = w->s.pt.root;
    k->memory = w->s.ram->bytes - RAM_BASE;
}

static MM_TEST_UNUSED uint64_t level_pages(const struct world *w, unsigned level)
{
    return (uint64_t)1 << (level * (unsigned)w->walker.index_bits);
}

/* ---- attributes: what each format can express, from the manuals ------------------------------ */

static MM_TEST_UNUSED bool attr_legal(const struct world *w, uint32_t attr)
{
    uint32_t flags = w->s.config.flags, rwx = attr & 7, type = attr >> 8 & 7;
    uint32_t extra = attr & (MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL | MM_PAGETABLE_EXEC_USER |
                             MM_PAGETABLE_SOFT1 | MM_PAGETABLE_KEYS | MM_PAGETABLE_IGNORE_PAT |
                             MM_PAGETABLE_NOT_SHARED);
    bool x = (attr & (MM_PAGETABLE_EXEC | MM_PAGETABLE_EXEC_USER)) != 0, riscv_types = false;
    uint32_t may = 0;

    if ((attr & (MM_PAGETABLE_CONTIG | MM_PAGETABLE_SWAP | 0xfc808000u)) != 0)
        return false;
    if ((attr & MM_PAGETABLE_WRITE) != 0 && (attr & MM_PAGETABLE_READ) == 0)
        return false;
    if ((flags & MM_PAGETABLE_W_XOR_X) != 0 && x && (attr & MM_PAGETABLE_WRITE) != 0)
        return false;
    if (rwx == 0 && !x)
        return false;
    switch (w->walker.kind) {
    case WALK_X86:
    case WALK_NPT:
        may = MM_PAGETABLE_SOFT1;
        if (w->walker.kind == WALK_X86)
            may |= MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL |
                   ((flags & MM_PAGETABLE_PKEYS) != 0 ? MM_PAGETABLE_KEYS : 0);
        if ((attr & MM_PAGETABLE_READ) == 0 || ((flags & MM_PAGETABLE_NX) == 0 && !x) || type > 5)
            return false;
        break;
    case WALK_RISCV:
    case WALK_GSTAGE:
        if (w->walker.kind == WALK_RISCV)
            may = MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL;
        riscv_types = (flags & MM_PAGETABLE_SVPBMT) != 0;
        if (type != 0 && !(riscv_types && (type == 2 || type == 3 || type == 5)))
            return false;
        break;
    case WALK_EPT:
        may = MM_PAGETABLE_SOFT1 | MM_PAGETABLE_IGNORE_PAT |
              ((flags & MM_PAGETABLE_MODE_EXEC) != 0 ? MM_PAGETABLE_EXEC_USER : 0);
        if (type > 5 || ((attr & MM_PAGETABLE_READ) == 0 && (flags & MM_PAGETABLE_EXEC_ONLY) == 0))
            return false;
        break;
    case WALK_ARM1:
    case WALK_ARM2:
        may = MM_PAGETABLE_SOFT1 | MM_PAGETABLE_NOT_SHARED;
        if (w->walker.kind == WALK_ARM1)
            may |= MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL;
        else if ((flags & MM_PAGETABLE_MODE_EXEC) != 0)
            may |= MM_PAGETABLE_EXEC_USER;
        if (type > 5 || type == MM_PAGETABLE_WRITE_PROTECTED || (attr >> 24 & 3) == 2)
            return false;
        if (w->walker.kind == WALK_ARM1 && (attr & MM_PAGETABLE_READ) == 0)
            return false;
        break;
    }
    return (extra & ~may) == 0;
}

/* What is read back for it. */
static MM_TEST_UNUSED uint32_t attr_back(const struct world *w, uint32_t attr)
{
    uint32_t type = attr >> 8 & 7;
    if (w->walker.kind == WALK_EPT && type == MM_PAGETABLE_DEVICE)
        type = MM_PAGETABLE_UNCACHED;
    if (w->walker.kind != WALK_EPT && w->walker.kind != WALK_X86 && w->walker.kind != WALK_NPT &&
        type == MM_PAGETABLE_WRITE_COMBINING)
        type = MM_PAGETABLE_UNCACHED;
    return (attr & ~MM_PAGETABLE_TYPES) | MM_PAGETABLE_TYPE(type);
}

static MM_TEST_UNUSED uint32_t attr_preset(const struct world *w, uint32_t attr)
{
    if ((w->s.config.flags & MM_PAGETABLE_PRESET_AD) != 0)
        attr |= MM_PAGETABLE_ACCESSED | ((attr & MM_PAGETABLE_WRITE) != 0 ? MM_PAGETABLE_DIRTY : 0);
    return attr;
}

/* ---- the model's rules ----------------------------------------------------------------------- */

/* Page `p` of the window, counted in the whole address space. */
static inline uint64_t absolute(const struct world *w, uint64_t p)
{
    return w->first + p;
}

/* The group of sixteen around a page becomes single pages. */
static MM_TEST_UNUSED void model_ungroup(struct world *w, uint64_t p)
{
    uint64_t start = p - (absolute(w, p) & 15), i;
    uint32_t marks = 0;
    for (i = start; i < start + 16; i++)
        marks |= w->cell[i].attr & (MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY);
    for (i = start; i < start + 16; i++) {
        w->cell[i].group = false;
        w->cell[i].attr |= marks;
    }
}

static MM_TEST_UNUSED void model_part_group(struct world *w, uint64_t p)
{
    if (p < w->count && w->cell[p].group && (absolute(w, p) & 15) != 0)
        model_ungroup(w, p);
}

/* Makes a border before page `p`: the leaf around it falls apart into the largest that do not reach
 * over the border. */
static MM_TEST_UNUSED void model_cut(struct world *w, uint64_t p)
{
    uint64_t at = absolute(w, p), q, size;
    unsigned level;
    if (p >= w->count || w->cell[p].kind != CELL_MAPPED)
        return;
    level = w->cell[p].level;
    size = level_pages(w, level);
    if ((at & (size - 1)) != 0)
        for (q = p - (at & (size - 1)); q < p - (at & (size - 1)) + size; q++) {
            unsigned l = level;
            while (l > 0 && (at & (level_pages(w, l) - 1)) != 0 &&
                   absolute(w, q) / level_pages(w, l) == at / level_pages(w, l))
                l--;
            w->cell[q].level = l;
        }
    model_part_group(w, p);
}

static MM_TEST_UNUSED bool model_any(const struct world *w, uint64_t p, uint64_t n,
                                     bool mapped_only)
{
    for (uint64_t i = p; i < p + n; i++)
        if (w->cell[i].kind == CELL_MAPPED || (!mapped_only && w->cell[i].kind != CELL_NONE))
            return true;
    return false;
}

/* Pages [p, p + n) to frames from `pa` up, with the largest leaves of `levels`. */
static MM_TEST_UNUSED void model_map(struct world *w, uint64_t p, uint64_t n, uint64_t pa,
                                     uint32_t attr, unsigned levels, bool grouped)
{
    uint64_t i = 0, frame = pa / PAGE;
    while (i < n) {
        uint64_t at = absolute(w, p + i), size, k;
        unsigned l = (unsigned)w->walker.levels - 1;
        for (;; l--) {
            size = level_pages(w, l);
            if ((levels >> l & 1) != 0 && ((at | (frame + i)) & (size - 1)) == 0 && n - i >= size)
                break;
            assert_true(l > 0);
        }
        for (k = i; k < i + size; k++) {
            struct cell *c = &w->cell[p + k];
            uint64_t a = absolute(w, p + k), start = a & ~(uint64_t)15;
            c->kind = CELL_MAPPED;
            c->level = l;
            c->pa = pa + k * PAGE;
            c->attr = attr_back(w, attr_preset(w, attr));
            c->group = grouped && l == 0 && ((a ^ (frame + k)) & 15) == 0 &&
                       start >= absolute(w, p) && start + 16 <= absolute(w, p) + n;
        }
        i += size;
    }
}

/* ---- comparing ------------------------------------------------------------------------------- */

static struct walk_access access_of(unsigned n)
{
    struct walk_access a = {(n & 1) != 0,  (n & 2) != 0,   (n & 4) != 0,
                            (n & 8) != 0,  (n & 16) != 0,  (n & 32) != 0,
                            (n & 64) != 0, (n & 128) != 0, n * 0x9e3779b9u};
    a.write = a.write && !a.fetch;
    return a;
}

static unsigned access_bits(struct walk_access a)
{
    return (a.write ? MM_PAGETABLE_ACCESS_WRITE : 0) | (a.fetch ? MM_PAGETABLE_ACCESS_FETCH : 0) |
           (a.user ? MM_PAGETABLE_ACCESS_USER : 0) | (a.wp ? MM_PAGETABLE_CPU_WP : 0) |
           (a.smep ? MM_PAGETABLE_CPU_SMEP : 0) | (a.smap ? MM_PAGETABLE_CPU_SMAP : 0) |
           (a.sum ? MM_PAGETABLE_CPU_SUM : 0) | (a.mxr ? MM_PAGETABLE_CPU_MXR : 0);
}

/* The header's prediction of one access, and the walker's. */
static MM_TEST_UNUSED void compare_access(const struct world *w, mm_va_t va, struct walk_access a)
{
    static const enum mm_pagetable_fault faults[] = {
        MM_PAGETABLE_FAULT_NONE,        MM_PAGETABLE_FAULT_CANONICAL,
        MM_PAGETABLE_FAULT_NOT_PRESENT, MM_PAGETABLE_FAULT_RESERVED,
        MM_PAGETABLE_FAULT_PERMISSION,  MM_PAGETABLE_FAULT_KEY,
        MM_PAGETABLE_FAULT_ACCESS_FLAG};
    struct walked walked = walk(&w->walker, va, a);
    struct mm_pagetable_access got;

    mm_pagetable_predict(&w->s.pt, va, access_bits(a), a.pkru, &got);
    if (got.fault != faults[walked.result])
        fprintf(stderr, "# %s va %#llx: fault %d, walker %d at level %d, entry %#llx\n",
                w->format.name, (unsigned long long)va, got.fault, walked.result, walked.level - 1,
                walked.entry != NULL ? (unsigned long long)walk_read(&w->walker, walked.entry) : 0);
    assert_int_equal(got.fault, faults[walked.result]);
    assert_int_equal(got.pa, walked.result == WALK_OK ? walked.pa : MM_PA_NONE);
    if (walked.result != WALK_CANONICAL)
        assert_int_equal(got.level, walked.level - 1);
}

/* Does the processor grant what the attributes say, and no more? From the meaning of the words. */
static void compare_rights(const struct world *w, mm_va_t va, const struct cell *c)
{
    struct walker k = w->walker;
    bool user_page = (c->attr & MM_PAGETABLE_USER) != 0;
    bool second =
        k.kind == WALK_NPT || k.kind == WALK_GSTAGE || k.kind == WALK_EPT || k.kind == WALK_ARM2;
    struct walk_access a = {.user = user_page, .wp = true};
    uint32_t x = MM_PAGETABLE_EXEC;

    if ((c->attr & MM_PAGETABLE_ACCESSED) == 0)
        return; /* faults on the access flag or sets it: compare_access has it */
    assert_int_equal(walk(&k, va, a).result == WALK_OK, (c->attr & MM_PAGETABLE_READ) != 0);
    a.fetch = true;
    assert_int_equal(walk(&k, va, a).result == WALK_OK, (c->attr & x) != 0);
    if (k.mode_exec)
        x = MM_PAGETABLE_EXEC_USER;
    a.user = true;
    if (second)
        assert_int_equal(walk(&k, va, a).result == WALK_OK, (c->attr & x) != 0);
    else if (!user_page)
        assert_true(walk(&k, va, a).result != WALK_OK);
    a = (struct walk_access){.user = user_page, .wp = true, .write = true};
    if ((c->attr & MM_PAGETABLE_DIRTY) != 0 || (c->attr & MM_PAGETABLE_WRITE) == 0)
        assert_int_equal(walk(&k, va, a).result == WALK_OK, (c->attr & MM_PAGETABLE_WRITE) != 0);
}

/* One page: query, translation, and the walker, against the model. */
static MM_TEST_UNUSED void compare_page(const struct world *w, uint64_t p, unsigned how)
{
    const struct cell *c = &w->cell[p];
    mm_va_t va = page_va(w, p);
    struct mm_pagetable_entry entry;
    enum mm_status status = mm_pagetable_query(&w->s.pt, va, &entry);
    mm_pa_t pa = mm_pagetable_translate(&w->s.pt, va + (how & 0xfff));

    if (c->kind == CELL_NONE) {
        assert_int_equal(status, MM_ERR_NOENT);
        assert_int_equal(pa, MM_PA_NONE);
    } else if (c->kind == CELL_SWAP) {
        assert_int_equal(status, MM_OK);
        assert_int_equal(entry.attr, MM_PAGETABLE_SWAP);
        assert_int_equal(entry.pa, c->pa);
        assert_int_equal(pa, MM_PA_NONE);
    } else {
        assert_int_equal(status, MM_OK);
        assert_int_equal(pa, c->pa + (how & 0xfff));
        assert_int_equal(entry.level, c->level);
        assert_int_equal(entry.bytes, level_pages(w, c->level) * PAGE);
        assert_int_equal(entry.pa + (va - entry.va), c->pa);
        assert_int_equal(entry.attr, c->attr | (c->group ? MM_PAGETABLE_CONTIG : 0));
        compare_rights(w, va, c);
    }
    compare_access(w, va + (how & 0xfff), access_of(how >> 12));
}

static MM_TEST_UNUSED void compare_all(const struct world *w, unsigned how)
{
    for (uint64_t p = 0; p < w->count; p++)
        compare_page(w, p, how);
    space_check(&w->s);
    assert_int_equal(w->s.ram->errors, 0);
}

#endif
