/* second_stage.c - the tables between a guest and the host, EPT and Sv39x4 in one program, on any
 * host
 *
 *     cc -I../.. -I../../tests second_stage.c && ./a.out
 *
 * second_stage.txt is what it prints.
 *
 * What the tables do is asked of the tests' walker, which knows the specifications and nothing of
 * mm_pagetable.h, and held against a list of what the guest shall have. */
#define MM_PAGETABLE_EPT
#define MM_PAGETABLE_SV39X4
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm_pagetable.h"

#include "pagetable_walker.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE    UINT64_C(4096)
#define KIB(n)  ((uint64_t)(n) << 10)
#define MIB(n)  ((uint64_t)(n) << 20)
#define GIB(n)  ((uint64_t)(n) << 30)
#define SHOW(n) ((unsigned long long)(n))

#define R      MM_PAGETABLE_READ
#define W      MM_PAGETABLE_WRITE
#define X      MM_PAGETABLE_EXEC
#define DEVICE MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE)

/* Host frames for tables, "physical" from 256 MiB up. */
#define TABLES    64u
#define TABLES_PA MIB(256)
static _Alignas(16384) unsigned char memory[TABLES][4096];
static bool used[TABLES];

/* What the guest shall have: later pieces stand over earlier ones; pa MM_PA_NONE: nothing. */
struct piece {
    uint64_t gpa, bytes, pa;
    uint32_t attr;
};
struct stage {
    const char *title;
    enum mm_pagetable_id id;
    struct walker walker;
    struct mm_pagetable pt;
    struct piece pieces[16];
    unsigned count;
};

static unsigned failed;

static void step(const char *name, bool passed)
{
    printf("%s  %s\n", passed ? "PASS" : "FAIL", name);
    failed += !passed;
}

/* ---- Hooks ----------------------------------------------------------------------------------- */

/* The root of Sv39x4 has 16 KiB, and is aligned to them. */
static mm_pa_t table_alloc(void *ctx, uint64_t bytes)
{
    unsigned frames = (unsigned)(bytes / PAGE);

    (void)ctx;
    for (unsigned i = 0; i + frames <= TABLES; i += frames) {
        unsigned taken = 0;
        for (unsigned k = 0; k < frames; k++)
            taken += used[i + k];
        if (taken != 0)
            continue;
        for (unsigned k = 0; k < frames; k++)
            used[i + k] = true;
        return TABLES_PA + i * PAGE;
    }
    return MM_PA_NONE;
}

static void table_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx;
    for (uint64_t i = 0; i < bytes / PAGE; i++)
        used[(table - TABLES_PA) / PAGE + i] = false;
}

static unsigned tables_used(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < TABLES; i++)
        count += used[i];
    return count;
}

/* INVEPT on Intel, HFENCE.GVMA on RISC-V; there also for new entries, where Svvptc is missing. */
static void flush(void *ctx, const struct mm_pagetable_flush *what)
{
    (void)ctx;
    if (what->all)
        puts("      flush: all of the guest");
    for (unsigned i = 0; i < what->count; i++)
        printf("      %s: %u KiB at %#llx\n", what->filled_only ? "fence" : "flush",
               (unsigned)(what->ranges[i].bytes >> 10), SHOW(what->ranges[i].va));
}

static void line(void *ctx, const char *text)
{
    (void)ctx;
    printf("      %s\n", text);
}

/* ---- What the guest shall have, and what it gets --------------------------------------------- */

static void shall(struct stage *s, uint64_t gpa, uint64_t bytes, uint64_t pa, uint32_t attr)
{
    if (s->count == sizeof s->pieces / sizeof s->pieces[0])
        abort();
    s->pieces[s->count++] = (struct piece){gpa, bytes, pa, attr};
}

static struct piece wanted(const struct stage *s, uint64_t gpa)
{
    for (unsigned i = s->count; i-- > 0;)
        if (gpa - s->pieces[i].gpa < s->pieces[i].bytes)
            return s->pieces[i];
    return (struct piece){gpa, 0, MM_PA_NONE, 0};
}

static bool type_is(const struct stage *s, const unsigned char *entry, bool device)
{
    uint64_t e = walk_read(&s->walker, entry);
    if (s->walker.kind == WALK_EPT)
        return walk_field(e, 5, 3) == (device ? 0u : 6u); /* UC, WB: Intel SDM vol. 3, 28.3.7 */
    return walk_field(e, 62, 61) == (device ? 2u : 0u);   /* IO, PMA: Svpbmt */
}

/* A read, a write and a fetch at one address. */
static bool agrees_at(const struct stage *s, uint64_t gpa)
{
    const struct piece p = wanted(s, gpa);
    const uint64_t pa = p.pa == MM_PA_NONE ? MM_PA_NONE : p.pa + (gpa - p.gpa);
    const uint32_t rights[3] = {R, W, X};

    for (unsigned i = 0; i < 3; i++) {
        struct walk_access access = {.write = i == 1, .fetch = i == 2};
        struct walked got = walk(&s->walker, gpa, access);
        bool may = (p.attr & rights[i]) != 0;
        if (pa == MM_PA_NONE ? got.result != WALK_ABSENT
                             : got.result != (may ? WALK_OK : WALK_DENIED))
            return false;
        if (pa != MM_PA_NONE &&
            (got.pa != pa || !type_is(s, got.entry, (p.attr & MM_PAGETABLE_TYPES) != 0)))
            return false;
    }
    return mm_pagetable_translate(&s->pt, gpa) == pa;
}

/* At both ends of each piece, and at addresses spread over all memory. */
static void agrees(const struct stage *s, const char *name)
{
    static mm_pa_t seen[TABLES];
    unsigned asked = 0, wrong = 0;
    uint64_t random = 1;

    for (unsigned i = 0; i < s->count; i++) {
        const uint64_t ends[2] = {s->pieces[i].gpa, s->pieces[i].gpa + s->pieces[i].bytes};
        for (unsigned k = 0; k < 2; k++)
            for (uint64_t gpa = ends[k] - 2 * PAGE; gpa != ends[k] + 2 * PAGE; gpa += 512)
                if (gpa < GIB(5)) {
                    asked++;
                    wrong += !agrees_at(s, gpa);
                }
    }
    for (unsigned i = 0; i < 20000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        asked++;
        wrong += !agrees_at(s, (random >> 20) % GIB(5));
    }
    printf("      %u addresses, %u wrong\n", asked, wrong);
    step(name, wrong == 0 && mm_pagetable_check(&s->pt, seen, TABLES, NULL) == MM_OK);
}

/* ---- A guest --------------------------------------------------------------------------------- */

static bool stage_make(struct stage *s)
{
    static const struct mm_pagetable_hooks hooks = {
        .alloc = table_alloc, .free = table_free, .flush = flush};
    const uintptr_t direct = (uintptr_t)memory - (uintptr_t)TABLES_PA;
    struct mm_pagetable_config config;

    if (mm_pagetable_config_init(&config, mm_pagetable_format_of(s->id), &hooks, direct) != MM_OK)
        return false;
    config.pa_bits = 46;
    config.flags &= ~MM_PAGETABLE_PRESET_AD;
    config.flags |= MM_PAGETABLE_HW_AD; /* accessed and dirty are the processor's */
    if (s->id == MM_PAGETABLE_ID_SV39X4)
        config.flags |= MM_PAGETABLE_SVPBMT;
    config.asid = 1; /* the VMID */
    if (mm_pagetable_init(&s->pt, &config) != MM_OK)
        return false;
    s->walker.index_bits = 9;
    s->walker.entry_bytes = 8;
    s->walker.max_pa = 46;
    s->walker.root = TABLES_PA;
    s->walker.memory = (unsigned char *)direct;
    s->walker.sets_ad = s->walker.pbmt = true;
    return true;
}

/* 1 GiB of memory, 6 MiB and 64 KiB above it, firmware that is not writable, a device of the
 * host. */
static void stage_map(struct stage *s)
{
    static const struct piece guest[] = {{0, GIB(1), GIB(4), R | W | X},
                                         {GIB(1), MIB(6) + KIB(64), GIB(6), R | W | X},
                                         {GIB(4) - KIB(64), KIB(64), GIB(5), R | X},
                                         {UINT64_C(0xfe000000), KIB(64), GIB(7), R | W | DEVICE}};
    const uint64_t beyond = UINT64_C(1) << walk_va_bits(&s->walker);
    bool ok = true;

    for (unsigned i = 0; i < sizeof guest / sizeof guest[0]; i++) {
        const struct piece *p = &guest[i];
        ok = ok && mm_pagetable_map(&s->pt, p->gpa, p->pa, p->bytes, p->attr, 0, NULL) == MM_OK;
        shall(s, p->gpa, p->bytes, p->pa, p->attr);
    }
    printf("      root register %#llx\n", SHOW(mm_pagetable_root(&s->pt)));
    mm_pagetable_dump(&s->pt, line, NULL);
    step("the guest is mapped", ok);
    agrees(s, "the walker finds it so");
    step("beyond the format's addresses nothing can be mapped",
         mm_pagetable_map(&s->pt, beyond, 0, PAGE, R, 0, NULL) == MM_ERR_INVALID &&
             mm_pagetable_map(&s->pt, beyond - PAGE, 0, PAGE, R, 0, NULL) == MM_OK &&
             walk(&s->walker, beyond - PAGE, (struct walk_access){0}).result == WALK_OK &&
             walk(&s->walker, beyond, (struct walk_access){0}).result == WALK_CANONICAL &&
             mm_pagetable_unmap(&s->pt, beyond - PAGE, PAGE, NULL) == MM_OK);
}

/* Four pages lose their write right, which splits two kinds of large leaves, and get it again. */
static void stage_protect(struct stage *s)
{
    const uint64_t gpa = MIB(2) - 2 * PAGE, bytes = 4 * PAGE;
    unsigned tables = tables_used(), count = s->count;
    bool ok;

    ok = mm_pagetable_protect(&s->pt, gpa, bytes, R | X, MM_PAGETABLE_PERMS, NULL) == MM_OK;
    shall(s, gpa, bytes, GIB(4) + gpa, R | X);
    mm_pagetable_dump(&s->pt, line, NULL);
    printf("      %u frames of tables, %u before\n", tables_used(), tables);
    step("four pages are write-protected", ok && tables_used() == tables + 3);
    agrees(s, "the walker finds it so");
    s->count = count;
}

static void note(void *ctx, const struct mm_pagetable_entry *entry)
{
    uint64_t *sum = ctx;
    printf("      dirty: %u KiB at %#llx\n", (unsigned)(entry->bytes >> 10), SHOW(entry->va));
    *sum += entry->va;
}

/* The processor marks what is written; the harvest finds that and nothing else. */
static void stage_dirty(struct stage *s)
{
    static const uint64_t writes[] = {MIB(2) + 5 * PAGE + 8, MIB(2) + 7 * PAGE,
                                      GIB(1) + MIB(4) + 16};
    const uint64_t expected = MIB(2) + 5 * PAGE + MIB(2) + 7 * PAGE + GIB(1) + MIB(4);
    uint64_t sum = 0, again = 0;
    bool ok = true;

    for (unsigned i = 0; i < 3; i++) {
        struct walked to = walk(&s->walker, writes[i], (struct walk_access){.write = true});
        ok = ok && to.result == WALK_OK;
        walk_touch(&s->walker, &to, true);
    }
    ok = ok && mm_pagetable_harvest(&s->pt, 0, GIB(2), MM_PAGETABLE_DIRTY,
                                    MM_PAGETABLE_DIRTY | MM_PAGETABLE_ACCESSED, note, &sum,
                                    NULL) == MM_OK;
    step("the harvest has what was written", ok && sum == expected);
    step("once", mm_pagetable_harvest(&s->pt, 0, GIB(2), MM_PAGETABLE_DIRTY, MM_PAGETABLE_DIRTY,
                                      note, &again, NULL) == MM_ERR_NOENT);
}

static void stage_collapse(struct stage *s, unsigned tables)
{
    bool ok = mm_pagetable_protect(&s->pt, MIB(2) - 2 * PAGE, 4 * PAGE, R | W | X,
                                   MM_PAGETABLE_PERMS, NULL) == MM_OK &&
              mm_pagetable_collapse(&s->pt, 0, GIB(1), NULL) == MM_OK;
    struct mm_pagetable_entry entry;

    step("unprotected and collapsed, 1 GiB is one leaf again",
         ok && mm_pagetable_query(&s->pt, MIB(2), &entry) == MM_OK && entry.bytes == GIB(1) &&
             tables_used() == tables);
    agrees(s, "the walker finds it so");
}

/* 2 MiB go to the host, and come back as another frame. */
static void stage_balloon(struct stage *s)
{
    struct mm_pagetable_access access;
    bool ok = mm_pagetable_unmap(&s->pt, MIB(512), MIB(2), NULL) == MM_OK;

    shall(s, MIB(512), MIB(2), MM_PA_NONE, 0);
    mm_pagetable_predict(&s->pt, MIB(513), MM_PAGETABLE_ACCESS_WRITE, 0, &access);
    step("2 MiB are taken away", ok && access.fault == MM_PAGETABLE_FAULT_NOT_PRESENT);
    agrees(s, "the walker finds it so");
    ok = mm_pagetable_map(&s->pt, MIB(512), GIB(8), MIB(2), R | W | X, 0, NULL) == MM_OK;
    shall(s, MIB(512), MIB(2), GIB(8), R | W | X);
    mm_pagetable_dump(&s->pt, line, NULL);
    step("and replaced by others", ok);
    agrees(s, "the walker finds it so");
}

int main(void)
{
    static struct stage stages[] = {
        {.title = "EPT", .id = MM_PAGETABLE_ID_EPT, .walker = {.kind = WALK_EPT, .levels = 4}},
        {.title = "Sv39x4",
         .id = MM_PAGETABLE_ID_SV39X4,
         .walker = {.kind = WALK_GSTAGE, .levels = 3}}};

    stages[0].walker.root_bits = 9;
    stages[1].walker.root_bits = 11;
    for (unsigned i = 0; i < 2; i++) {
        struct stage *s = &stages[i];
        unsigned tables;
        printf("%s\n", s->title);
        if (!stage_make(s))
            return 1;
        stage_map(s);
        tables = tables_used();
        stage_protect(s);
        stage_dirty(s);
        stage_collapse(s, tables);
        stage_balloon(s);
        step("destroyed, no table is left",
             mm_pagetable_destroy(&s->pt, false) == MM_OK && tables_used() == 0);
    }
    return failed != 0;
}
