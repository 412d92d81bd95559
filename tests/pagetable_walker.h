/* pagetable_walker.h - a walker of translation tables, from the specifications alone: it shares
 * nothing with mm_pagetable.h, not even names of bits. The tests compare the two.
 *
 *   x86_64   Intel SDM vol. 3, 4.5 to 4.7      EPT      Intel SDM vol. 3, 28.3
 *   NPT      AMD APM vol. 2, 15.25             RISC-V   privileged architecture 4.3.2, 4.4 to 4.6,
 *   AArch64  Arm ARM D8.3 to D8.5                       8.5.1, Svnapot, Svpbmt
 */
#ifndef PAGETABLE_WALKER_H
#define PAGETABLE_WALKER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum walker_kind { WALK_X86, WALK_NPT, WALK_RISCV, WALK_GSTAGE, WALK_EPT, WALK_ARM1, WALK_ARM2 };
enum walk_result {
    WALK_OK,
    WALK_CANONICAL,
    WALK_ABSENT,
    WALK_RESERVED,
    WALK_DENIED,
    WALK_KEY,
    WALK_ACCESS_FLAG
};

struct walker {
    enum walker_kind kind;
    int levels, index_bits, root_bits, entry_bytes;
    int max_pa;
    uint64_t root;
    unsigned char *memory; /* byte of physical address 0 */
    bool nxe, pke, exec_only, mode_exec, sets_ad, pbmt, napot, upper_half;
};

struct walk_access {
    bool write, fetch, user; /* what, and by whom */
    bool wp, smep, smap, sum, mxr;
    uint32_t pkru;
};

struct walked {
    enum walk_result result;
    uint64_t pa;
    int level; /* 1: the lowest */
    unsigned char *entry;
};

static inline bool walk_bit(uint64_t e, int n)
{
    return (e >> n & 1) != 0;
}

static inline uint64_t walk_field(uint64_t e, int high, int low)
{
    return high < low ? 0 : e << (63 - high) >> (63 - high + low);
}

static inline uint64_t walk_read(const struct walker *w, const unsigned char *at)
{
    uint64_t e = 0;
    memcpy(&e, at, (size_t)w->entry_bytes);
    return e;
}

/* Lowest address bit that an entry of this level translates. */
static inline int walk_shift(const struct walker *w, int level)
{
    return 12 + (level - 1) * w->index_bits;
}

static inline int walk_va_bits(const struct walker *w)
{
    return walk_shift(w, w->levels) + w->root_bits;
}

static inline bool walk_exists(const struct walker *w, uint64_t va)
{
    int n = walk_va_bits(w);
    uint64_t above = va >> n;
    switch (w->kind) {
    case WALK_X86:
        if (walk_bit(va, n - 1))
            return above == UINT64_MAX >> n;
        return above == 0;
    case WALK_RISCV: /* RV32 has no bits above */
        if (w->entry_bytes == 8 && walk_bit(va, n - 1))
            return above == UINT64_MAX >> n;
        return above == 0;
    case WALK_ARM1:
        return above == (w->upper_half ? UINT64_MAX >> n : 0);
    default:
        return above == 0;
    }
}

struct walk_grants {
    bool r, w, x, u;
};

/* x86 entries grant together what each of them grants. */
static inline enum walk_result walk_x86_decide(const struct walker *w, struct walk_grants g,
                                               uint64_t leaf, struct walk_access a)
{
    bool supervisor = !a.user;
    if (a.user && !g.u)
        return WALK_DENIED;
    if (a.fetch) {
        if (supervisor && g.u && a.smep)
            return WALK_DENIED;
        return w->nxe && !g.x ? WALK_DENIED : WALK_OK;
    }
    if (supervisor && g.u && a.smap)
        return WALK_DENIED;
    if (w->pke && g.u) {
        int key = (int)walk_field(leaf, 62, 59);
        if (walk_bit(a.pkru, 2 * key))
            return WALK_KEY;
        if (walk_bit(a.pkru, 2 * key + 1) && a.write && (a.user || a.wp))
            return WALK_KEY;
    }
    if (a.write && !g.w && (a.user || a.wp))
        return WALK_DENIED;
    return WALK_OK;
}

static inline struct walked walk_x86(const struct walker *w, uint64_t va, struct walk_access a)
{
    struct walk_grants g = {true, true, true, true};
    struct walked out = {WALK_OK, 0, w->levels, NULL};
    uint64_t table = w->root;

    for (;; out.level--) {
        int shift = walk_shift(w, out.level);
        int bits = out.level == w->levels ? w->root_bits : w->index_bits;
        uint64_t e;
        out.entry = w->memory + table + walk_field(va, shift + bits - 1, shift) * 8;
        e = walk_read(w, out.entry);
        if (!walk_bit(e, 0)) {
            out.result = WALK_ABSENT;
            return out;
        }
        bool large = out.level > 1 && walk_bit(e, 7);
        bool reserved = walk_field(e, 51, w->max_pa) != 0;
        reserved = reserved || (walk_bit(e, 63) && !w->nxe);
        reserved = reserved || (large && out.level > 3);
        reserved = reserved || (large && walk_field(e, shift - 1, 13) != 0);
        if (reserved) {
            out.result = WALK_RESERVED;
            return out;
        }
        g.w = g.w && walk_bit(e, 1);
        g.u = g.u && walk_bit(e, 2);
        g.x = g.x && !walk_bit(e, 63);
        if (large || out.level == 1) {
            out.pa = walk_field(e, 51, shift) << shift | walk_field(va, shift - 1, 0);
            a.user = a.user || w->kind == WALK_NPT;
            out.result = walk_x86_decide(w, g, e, a);
            return out;
        }
        table = walk_field(e, 51, 12) << 12;
    }
}

static inline enum walk_result walk_riscv_decide(const struct walker *w, uint64_t e,
                                                 struct walk_access a)
{
    bool user = a.user || w->kind == WALK_GSTAGE;
    bool r = walk_bit(e, 1) || (a.mxr && walk_bit(e, 3));
    if (a.fetch ? !walk_bit(e, 3) : a.write ? !walk_bit(e, 2) : !r)
        return WALK_DENIED;
    if (user && !walk_bit(e, 4))
        return WALK_DENIED;
    if (!user && walk_bit(e, 4) && (a.fetch || !a.sum))
        return WALK_DENIED;
    if (!w->sets_ad && (!walk_bit(e, 6) || (a.write && !walk_bit(e, 7))))
        return WALK_ACCESS_FLAG;
    return WALK_OK;
}

/* The numbered steps of 4.3.2. */
static inline struct walked walk_riscv(const struct walker *w, uint64_t va, struct walk_access a)
{
    struct walked out = {WALK_OK, 0, w->levels, NULL};
    uint64_t table = w->root;
    int top = w->entry_bytes == 8 ? 53 : 31;

    for (;; out.level--) {
        int shift = walk_shift(w, out.level);
        int bits = out.level == w->levels ? w->root_bits : w->index_bits;
        uint64_t e, ppn;
        out.result = WALK_RESERVED;
        if (out.level == 0)
            return out;
        out.entry =
            w->memory + table + walk_field(va, shift + bits - 1, shift) * (uint64_t)w->entry_bytes;
        e = walk_read(w, out.entry);
        if (!walk_bit(e, 0)) {
            out.result = WALK_ABSENT;
            return out;
        }
        if (walk_bit(e, 2) && !walk_bit(e, 1))
            return out;
        ppn = walk_field(e, top, 10);
        if ((top == 53 && walk_field(e, 60, 54) != 0) || ppn >> (w->max_pa - 12) != 0)
            return out;
        if (!walk_bit(e, 1) && !walk_bit(e, 3)) { /* points to a table */
            if (walk_bit(e, 4) || walk_bit(e, 6) || walk_bit(e, 7) ||
                (top == 53 && walk_field(e, 63, 61) != 0))
                return out;
            table = ppn << 12;
            continue;
        }
        if (top == 53 && walk_field(e, 62, 61) != 0 && (!w->pbmt || walk_field(e, 62, 61) == 3))
            return out;
        if ((ppn << 12 & ((UINT64_C(1) << shift) - 1)) != 0)
            return out;
        if (top == 53 && walk_bit(e, 63)) {
            if (!w->napot || out.level != 1 || (ppn & 15) != 8)
                return out;
            ppn = (ppn & ~UINT64_C(15)) | walk_field(va, 15, 12);
        }
        out.pa = ppn << 12 | walk_field(va, shift - 1, 0);
        out.result = walk_riscv_decide(w, e, a);
        return out;
    }
}

static inline bool walk_ept_misconfigured(const struct walker *w, uint64_t e, int level, bool leaf)
{
    int shift = walk_shift(w, level);
    bool r = walk_bit(e, 0), x = walk_bit(e, 2) || (w->mode_exec && walk_bit(e, 10));
    uint64_t type = walk_field(e, 5, 3);
    if (walk_bit(e, 1) && !r)
        return true;
    if (x && !r && !w->exec_only)
        return true;
    if (walk_field(e, 51, w->max_pa) != 0)
        return true;
    if (!leaf)
        return walk_field(e, 6, 3) != 0 || walk_bit(e, 7);
    if (level > 3 || type == 2 || type == 3 || type == 7)
        return true;
    return level > 1 && walk_field(e, shift - 1, 12) != 0;
}

static inline struct walked walk_ept(const struct walker *w, uint64_t va, struct walk_access a)
{
    struct walk_grants g = {true, true, true, true};
    struct walked out = {WALK_OK, 0, w->levels, NULL};
    uint64_t table = w->root;

    for (;; out.level--) {
        int shift = walk_shift(w, out.level);
        int bits = out.level == w->levels ? w->root_bits : w->index_bits;
        uint64_t e;
        out.entry = w->memory + table + walk_field(va, shift + bits - 1, shift) * 8;
        e = walk_read(w, out.entry);
        if (walk_field(e, 2, 0) == 0 && !(w->mode_exec && walk_bit(e, 10))) {
            out.result = WALK_ABSENT;
            return out;
        }
        bool leaf = out.level == 1 || walk_bit(e, 7);
        if (walk_ept_misconfigured(w, e, out.level, leaf)) {
            out.result = WALK_RESERVED;
            return out;
        }
        g.r = g.r && walk_bit(e, 0);
        g.w = g.w && walk_bit(e, 1);
        g.x = g.x && walk_bit(e, w->mode_exec && a.user ? 10 : 2);
        if (leaf) {
            out.pa = walk_field(e, 51, shift) << shift | walk_field(va, shift - 1, 0);
            out.result = (a.fetch ? g.x : a.write ? g.w : g.r) ? WALK_OK : WALK_DENIED;
            return out;
        }
        table = walk_field(e, 51, 12) << 12;
    }
}

static inline bool walk_arm1_allows(const struct walker *w, uint64_t e, struct walk_access a)
{
    uint64_t ap = walk_field(e, 7, 6);
    bool dbm = walk_bit(e, 51) && w->sets_ad;
    bool writable = !(ap & 2) || dbm, el0 = (ap & 1) != 0;
    if (a.user) {
        if (!el0)
            return false;
        return a.fetch ? !walk_bit(e, 54) : !a.write || writable;
    }
    if (a.fetch)
        return !walk_bit(e, 53) && !(el0 && writable);
    if (el0 && a.smap) /* PAN */
        return false;
    return !a.write || writable;
}

static inline bool walk_arm2_allows(const struct walker *w, uint64_t e, struct walk_access a)
{
    uint64_t xn = walk_field(e, 54, 53);
    if (a.fetch)
        return xn == 0 || (xn == 1 && a.user) || (xn == 3 && !a.user);
    if (a.write)
        return walk_bit(e, 7) || (walk_bit(e, 51) && w->sets_ad);
    return walk_bit(e, 6);
}

static inline struct walked walk_arm(const struct walker *w, uint64_t va, struct walk_access a)
{
    struct walked out = {WALK_OK, 0, w->levels, NULL};
    uint64_t table = w->root;

    for (;; out.level--) {
        int shift = walk_shift(w, out.level);
        int bits = out.level == w->levels ? w->root_bits : w->index_bits;
        uint64_t e;
        out.entry = w->memory + table + walk_field(va, shift + bits - 1, shift) * 8;
        e = walk_read(w, out.entry);
        out.result = WALK_ABSENT;
        if (!walk_bit(e, 0))
            return out;
        out.result = WALK_RESERVED; /* a translation fault as well */
        if (!walk_bit(e, 1) && (out.level == 1 || out.level > 3))
            return out;
        if (walk_field(e, 47, 0) >> 12 << 12 >> w->max_pa != 0)
            return out;
        if (out.level == 1 || !walk_bit(e, 1)) {
            bool ok = w->kind == WALK_ARM1 ? walk_arm1_allows(w, e, a) : walk_arm2_allows(w, e, a);
            out.pa = walk_field(e, 47, shift) << shift | walk_field(va, shift - 1, 0);
            out.result = ok ? WALK_OK : WALK_DENIED;
            if (!walk_bit(e, 10) && !w->sets_ad)
                out.result = WALK_ACCESS_FLAG;
            return out;
        }
        table = walk_field(e, 47, 12) << 12;
    }
}

/* What the processor that the walker describes does with one access. */
static inline struct walked walk(const struct walker *w, uint64_t va, struct walk_access a)
{
    struct walked none = {WALK_CANONICAL, 0, 0, NULL};
    if (!walk_exists(w, va))
        return none;
    switch (w->kind) {
    case WALK_X86:
    case WALK_NPT:
        return walk_x86(w, va, a);
    case WALK_RISCV:
    case WALK_GSTAGE:
        return walk_riscv(w, va, a);
    case WALK_EPT:
        return walk_ept(w, va, a);
    default:
        return walk_arm(w, va, a);
    }
}

/* Sets accessed, and dirty for a write, in the leaf as the processor would. */
static inline void walk_touch(const struct walker *w, const struct walked *found, bool write)
{
    uint64_t e = walk_read(w, found->entry);
    switch (w->kind) {
    case WALK_X86:
    case WALK_NPT:
        e |= write ? 0x60u : 0x20u;
        break;
    case WALK_RISCV:
    case WALK_GSTAGE:
        e |= write ? 0xc0u : 0x40u;
        break;
    case WALK_EPT:
        e |= write ? 0x300u : 0x100u;
        break;
    case WALK_ARM1:
        e = (e | 0x400u) & ~(uint64_t)(write ? 0x80u : 0);
        break;
    case WALK_ARM2:
        e |= write ? 0x480u : 0x400u;
        break;
    }
    memcpy(found->entry, &e, (size_t)w->entry_bytes);
}

#endif
