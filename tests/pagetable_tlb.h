/* pagetable_tlb.h - a processor that keeps every translation that it may keep, until it is told
 * otherwise: leaves, pointers to tables, and on RISC-V also that there was nothing. It walks by the
 * specifications, as pagetable_walker.h does. The hooks of a world tell it what to forget; it
 * objects
 *
 *   when a frame or a table goes that it can still reach,
 *   when a new leaf meets an old one that differs (AArch64: break before make),
 *   when, after a call and its flush, it still knows something that the tables do not say.
 */
#ifndef PAGETABLE_TLB_H
#define PAGETABLE_TLB_H

#include "pagetable_model.h"

#define TLB_LEVELS 6

struct tlb_page {
    uint64_t leaf;  /* the entry, as it was last seen; 0: not cached */
    int leaf_level; /* as of the walker: 1 the lowest */
    uint64_t pa;    /* of this page */
    int absent;     /* level at which nothing was found; 0: not cached */
    uint64_t
        tables[TLB_LEVELS]; /* [l]: the table of level l, by an entry of level l + 1; 0: none */
};

struct tlb {
    const struct world *w;
    struct tlb_page page[CELLS];
    bool riscv, negative; /* without Svvptc */
    unsigned long stale_frames, stale_tables, conflicts, left, drops;
};
static struct tlb the_tlb;

static bool tlb_is_leaf(const struct walker *k, uint64_t e, int level)
{
    if (level == 1)
        return true;
    switch (k->kind) {
    case WALK_RISCV:
    case WALK_GSTAGE:
        return walk_field(e, 3, 1) != 0;
    case WALK_ARM1:
    case WALK_ARM2:
        return !walk_bit(e, 1);
    default:
        return walk_bit(e, 7);
    }
}

static bool tlb_present(const struct walker *k, uint64_t e)
{
    if (k->kind == WALK_EPT)
        return walk_field(e, 2, 0) != 0 || (k->mode_exec && walk_bit(e, 10));
    return walk_bit(e, 0);
}

static uint64_t tlb_address(const struct walker *k, uint64_t e)
{
    if (k->kind == WALK_RISCV || k->kind == WALK_GSTAGE)
        return walk_field(e, k->entry_bytes == 8 ? 53 : 31, 10) << 12;
    return walk_field(e, k->kind == WALK_ARM1 || k->kind == WALK_ARM2 ? 47 : 51, 12) << 12;
}

/* Accessed and dirty as two bits. */
static unsigned tlb_marks(const struct walker *k, uint64_t e)
{
    switch (k->kind) {
    case WALK_RISCV:
    case WALK_GSTAGE:
        return (unsigned)walk_field(e, 7, 6);
    case WALK_EPT:
        return (unsigned)walk_field(e, 9, 8);
    case WALK_ARM1:
        return walk_bit(e, 10) | (unsigned)!walk_bit(e, 7) << 1;
    case WALK_ARM2:
        return walk_bit(e, 10) | (unsigned)walk_bit(e, 7) << 1;
    default:
        return (unsigned)walk_field(e, 6, 5);
    }
}

/* What a translation says, without accessed, dirty, and bits that only software reads. */
static uint64_t tlb_meaning(const struct walker *k, uint64_t e)
{
    uint64_t drop = 0;
    switch (k->kind) {
    case WALK_RISCV:
    case WALK_GSTAGE:
        drop = 0xc0 | 0x300;
        break;
    case WALK_EPT:
        drop = 0x300 | 0x800 | UINT64_C(0xfff) << 52;
        break;
    case WALK_ARM1:
    case WALK_ARM2:
        drop = 0x480 | UINT64_C(0xf) << 55;
        break;
    default:
        drop = 0x60 | 0xe00;
        if (!k->nxe)
            drop |= UINT64_C(1) << 63;
        break;
    }
    return e & ~drop;
}

static bool tlb_global(const struct walker *k, uint64_t e)
{
    if (k->kind == WALK_X86)
        return walk_bit(e, 8);
    if (k->kind == WALK_RISCV)
        return walk_bit(e, 5);
    return k->kind == WALK_ARM1 && !walk_bit(e, 11);
}

/* Walks for one page, from the lowest table that it still knows if `cached`, and says what it
 * finds; the tables on the way go into `out`. */
static void tlb_walk(const struct walker *k, uint64_t off, const struct tlb_page *known,
                     struct tlb_page *out)
{
    int level = k->levels;
    uint64_t table = k->root;

    memset(out, 0, sizeof *out);
    if (known != NULL)
        for (int l = 1; l < k->levels; l++) {
            out->tables[l] = known->tables[l];
            if (known->tables[l] != 0 && level == k->levels) {
                level = l;
                table = known->tables[l];
            }
        }
    for (;; level--) {
        int shift = walk_shift(k, level);
        int bits = level == k->levels ? k->root_bits : k->index_bits;
        uint64_t e =
            walk_read(k, k->memory + table +
                             walk_field(off, shift + bits - 1, shift) * (uint64_t)k->entry_bytes);
        if (!tlb_present(k, e)) {
            out->absent = level;
            return;
        }
        if (tlb_is_leaf(k, e, level)) {
            out->leaf = e;
            out->leaf_level = level;
            out->pa = tlb_address(k, e) >> shift << shift | walk_field(off, shift - 1, 0);
            if (level == 1 && k->napot && walk_bit(e, 63) &&
                (k->kind == WALK_RISCV || k->kind == WALK_GSTAGE))
                out->pa = (tlb_address(k, e) >> 16 << 16) | (off & 0xffff);
            return;
        }
        table = tlb_address(k, e);
        out->tables[level - 1] = table;
    }
}

static uint64_t tlb_off(const struct tlb *t, uint64_t p)
{
    return (t->w->first + p) * PAGE;
}

/* Does a new leaf differ from an old one in what must not change while both may be in use? Size,
 * output, memory type, global (Arm ARM D8.16.1). */
static bool tlb_conflict(const struct walker *k, const struct tlb_page *a, const struct tlb_page *b)
{
    uint64_t type = k->kind == WALK_ARM1 ? 0x1c | 0x800 : 0x3c;
    return a->leaf_level != b->leaf_level || a->pa != b->pa || ((a->leaf ^ b->leaf) & type) != 0 ||
           walk_bit(a->leaf, 52) != walk_bit(b->leaf, 52);
}

/* Loads whatever is not cached, as a processor may at any time. */
static void tlb_fill(struct tlb *t)
{
    const struct walker *k = &t->w->walker;
    struct tlb_page now;

    for (uint64_t p = 0; p < t->w->count; p++) {
        struct tlb_page *c = &t->page[p];
        tlb_walk(k, tlb_off(t, p), c, &now);
        if (c->leaf != 0) {
            struct tlb_page fresh;
            tlb_walk(k, tlb_off(t, p), NULL, &fresh);
            if ((k->kind == WALK_ARM1 || k->kind == WALK_ARM2) && fresh.leaf != 0 &&
                tlb_conflict(k, c, &fresh))
                t->conflicts++;
            continue;
        }
        if (c->absent != 0)
            continue;
        memcpy(c->tables, now.tables, sizeof c->tables);
        c->leaf = now.leaf;
        c->leaf_level = now.leaf_level;
        c->pa = now.pa;
        c->absent = t->negative ? now.absent : 0;
    }
}

/* What the processor itself sets in the tables it has in its caches too. */
static void tlb_touch(struct tlb *t)
{
    const struct walker *k = &t->w->walker;
    struct tlb_page now;

    for (uint64_t p = 0; p < t->w->count; p++) {
        struct tlb_page *c = &t->page[p];
        if (c->leaf == 0)
            continue;
        tlb_walk(k, tlb_off(t, p), NULL, &now);
        if (now.leaf != 0 && now.pa == c->pa &&
            tlb_meaning(k, now.leaf) == tlb_meaning(k, c->leaf) &&
            (tlb_marks(k, c->leaf) & ~tlb_marks(k, now.leaf)) == 0)
            c->leaf = now.leaf;
    }
}

/* Is one of the addresses that are invalidated, one every `stride`, inside the leaf around `va`? */
static bool tlb_hit(const struct mm_pagetable_range *r, uint64_t stride, mm_va_t va, uint64_t size)
{
    mm_va_t start = va & ~(size - 1), first;
    if (start + (size - 1) < r->va || start > r->va + (r->bytes - 1))
        return false;
    if (start <= r->va)
        return true;
    first = r->va + (start - r->va + stride - 1) / stride * stride;
    return first - start < size && first - r->va < r->bytes;
}

/* Pointers to tables: on RISC-V a fence without an address reaches them; elsewhere an invalidation
 * of any address that is translated through them. */
static void tlb_forget_tables(const struct tlb *t, struct tlb_page *c, mm_va_t va,
                              const struct mm_pagetable_flush *flush)
{
    const struct walker *k = &t->w->walker;
    bool everything = flush->all || (flush->tables_unlink && t->riscv);

    for (int l = 1; l < k->levels; l++) {
        bool hit = everything;
        for (unsigned i = 0; flush->tables_unlink && i < flush->count; i++) {
            const struct mm_pagetable_range *r = &flush->ranges[i];
            mm_va_t start = va >> walk_shift(k, l + 1) << walk_shift(k, l + 1);
            mm_va_t last = start + (((mm_va_t)1 << walk_shift(k, l + 1)) - 1);
            hit = hit || (start <= r->va + (r->bytes - 1) && last >= r->va);
        }
        if (hit)
            c->tables[l] = 0;
    }
}

/* That there was nothing at page p: a fence with an address does not reach what leads to a table,
 * and one for an ASID does not order accesses to global pages. */
static void tlb_forget_absent(struct tlb *t, uint64_t p, bool hit,
                              const struct mm_pagetable_flush *flush)
{
    const struct walker *k = &t->w->walker;
    struct tlb_page *c = &t->page[p], now;

    tlb_walk(k, tlb_off(t, p), NULL, &now);
    if (now.leaf != 0 && tlb_global(k, now.leaf) && !flush->global)
        return;
    if (flush->tables_unlink || flush->all ||
        (hit && (c->absent == 1 || now.tables[c->absent - 1] == 0)))
        c->absent = 0;
}

static void tlb_flush(struct tlb *t, const struct mm_pagetable_flush *flush)
{
    const struct walker *k = &t->w->walker;

    for (unsigned i = 0; i < flush->count; i++) /* a loop over addresses must come to its end */
        assert_true(flush->ranges[i].va + (flush->ranges[i].bytes - 1) >= flush->ranges[i].va);
    tlb_fill(t); /* a last look before it forgets */
    for (uint64_t p = 0; p < t->w->count; p++) {
        struct tlb_page *c = &t->page[p];
        mm_va_t va = page_va(t->w, p);
        int level = c->leaf != 0 ? c->leaf_level : c->absent != 0 ? c->absent : 1;
        uint64_t size = (uint64_t)1 << walk_shift(k, level);
        bool hit = flush->all;
        for (unsigned i = 0; i < flush->count; i++)
            hit = hit || tlb_hit(&flush->ranges[i],
                                 mm_pagetable_size(&t->w->s.pt, flush->ranges[i].level), va, size);
        if (hit && c->leaf != 0 && !flush->filled_only &&
            (!tlb_global(k, c->leaf) || flush->global)) {
            c->leaf = 0;
            t->drops++;
        }
        tlb_forget_tables(t, c, va, flush);
        if (c->absent != 0)
            tlb_forget_absent(t, p, hit, flush);
    }
    tlb_fill(t); /* and may load again what it still finds */
}

/* A frame goes: can it still be reached, though the tables do not say so? */
static void tlb_release(struct tlb *t, mm_pa_t pa, uint64_t bytes)
{
    struct tlb_page now;
    for (uint64_t p = 0; p < t->w->count; p++) {
        const struct tlb_page *c = &t->page[p];
        if (c->leaf == 0 || c->pa - pa >= bytes)
            continue;
        tlb_walk(&t->w->walker, tlb_off(t, p), NULL, &now);
        if (now.leaf == 0 || now.pa != c->pa)
            t->stale_frames++;
    }
}

static void tlb_free(struct tlb *t, mm_pa_t table)
{
    for (uint64_t p = 0; p < t->w->count; p++)
        for (int l = 1; l < t->w->walker.levels; l++)
            t->stale_tables += t->page[p].tables[l] == table;
}

/* After all flushes: what it still knows is what the tables say. */
static void tlb_settled(struct tlb *t)
{
    const struct walker *k = &t->w->walker;
    struct tlb_page now;

    tlb_fill(t);
    for (uint64_t p = 0; p < t->w->count; p++) {
        const struct tlb_page *c = &t->page[p];
        bool good = true;
        tlb_walk(k, tlb_off(t, p), NULL, &now);
        for (int l = 1; l < k->levels; l++)
            good = good && (c->tables[l] == 0 || c->tables[l] == now.tables[l]);
        if (c->leaf != 0)
            good = good && now.leaf != 0 && now.pa == c->pa && now.leaf_level == c->leaf_level &&
                   tlb_meaning(k, now.leaf) == tlb_meaning(k, c->leaf) &&
                   (tlb_marks(k, c->leaf) & ~tlb_marks(k, now.leaf)) == 0;
        if (c->absent != 0)
            good = good && now.leaf == 0;
        if (!good && t->left++ == 0)
            fprintf(stderr, "# %s %#llx: cached %#llx level %d absent %d, now %#llx level %d\n",
                    t->w->format.name, (unsigned long long)page_va(t->w, p),
                    (unsigned long long)c->leaf, c->leaf_level, c->absent,
                    (unsigned long long)now.leaf, now.leaf_level);
    }
    assert_int_equal(t->stale_frames, 0);
    assert_int_equal(t->stale_tables, 0);
    assert_int_equal(t->conflicts, 0);
    assert_int_equal(t->left, 0);
}

static MM_TEST_UNUSED void tlb_begin(struct tlb *t, const struct world *w)
{
    memset(t, 0, sizeof *t);
    t->w = w;
    t->riscv = w->walker.kind == WALK_RISCV || w->walker.kind == WALK_GSTAGE;
    t->negative = t->riscv && (w->s.config.flags & MM_PAGETABLE_SVVPTC) == 0;
}

#endif
