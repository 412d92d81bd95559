/* pagetable_x86.c - tables of x86_64 with four and with five levels for the guest x86_guest.S under
 * QEMU.
 *
 *   pagetable_x86 image FILE FORMAT    writes the guest's memory from 2 MiB: records, tables, data
 *   pagetable_x86 check FILE FORMAT    compares the guest's output with mm_pagetable_predict */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_X86_64_LA57
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm_pagetable.h"

#define BASE        UINT64_C(0x200000)
#define TABLES      UINT64_C(0x300000)
#define DATA        UINT64_C(0x400000)
#define IMAGE_END   UINT64_C(0x600000)
#define STUBS       UINT64_C(0x101000)
#define USER_STUBS  UINT64_C(0x7f0000000000)
#define MAX_RECORDS 4000
#define RWX         (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC)

enum { VECTOR_DONE = 0x80, VECTOR_GENERAL = 13, VECTOR_FAULT = 14 };

struct record {
    uint64_t va, op, cr0, cr4, pkru, value, entry, unused;
};

#include "pagetable_guest.h"

static bool five_levels;

/* Physical address of the leaf's entry, by a walk of our own; 0 if there is none. */
static uint64_t entry_of(mm_va_t va)
{
    uint64_t table = mm_pagetable_root(&pt), at, e;
    for (int level = five_levels ? 4 : 3; level >= 0; level--) {
        at = table + 8 * (va >> (12 + 9 * level) & 511);
        memcpy(&e, image + (at - BASE), 8);
        if ((e & 1) == 0)
            return 0;
        if (level == 0 || (e & 0x80) != 0)
            return at;
        table = e & UINT64_C(0xffffffffff000);
    }
    return 0;
}

static uint64_t control4(void)
{
    return 0x20 | UINT64_C(1) << 22 | (five_levels ? 0x1000u : 0); /* PAE, PKE, LA57 */
}

/* One access in one state of the processor: bit 0 ring 3, 1 CR0.WP, 2 SMEP, 3 SMAP. */
static void ask_once(mm_va_t va, unsigned state, unsigned op, uint32_t pkru)
{
    struct record *r = &records[count];
    bool user = (state & 1) != 0, wp = (state & 2) != 0;
    bool smep = (state & 4) != 0, smap = (state & 8) != 0;

    must(count < MAX_RECORDS, "records");
    r->va = va + (op == FETCH ? 0 : 16);
    r->op = op | (user ? 4u : 0);
    r->cr0 = 0x80000011 | (wp ? 0x10000u : 0);
    r->cr4 = control4() | (smep ? 1u << 20 : 0) | (smap ? 1u << 21 : 0);
    r->pkru = pkru;
    r->value = VALUE + (count & 0xfff);
    accesses[count++] = MM_PAGETABLE_CPU_IDENTIFIES | (user ? MM_PAGETABLE_ACCESS_USER : 0) |
                        (wp ? MM_PAGETABLE_CPU_WP : 0) | (smep ? MM_PAGETABLE_CPU_SMEP : 0) |
                        (smap ? MM_PAGETABLE_CPU_SMAP : 0) |
                        (op == STORE ? MM_PAGETABLE_ACCESS_WRITE : 0) |
                        (op == FETCH ? MM_PAGETABLE_ACCESS_FETCH : 0);
}

static void ask(mm_va_t va)
{
    for (unsigned state = 0; state < 16; state++)
        for (unsigned op = LOAD; op <= FETCH; op++)
            ask_once(va, state, op, 0);
}

/* Pages of every kind: each permission, both rings, three sizes. */
static void build_permissions(void)
{
    static const uint32_t perms[] = {MM_PAGETABLE_READ, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE,
                                     MM_PAGETABLE_READ | MM_PAGETABLE_EXEC, RWX};
    mm_va_t va = 0x10000000;
    for (unsigned i = 0; i < 16; i++, va += 4 * MIB) {
        uint32_t attr = perms[i & 3] | ((i & 4) != 0 ? MM_PAGETABLE_USER : 0);
        if ((i & 8) == 0)
            map(va, DATA + i * PAGE, PAGE, attr);
        else
            map(va, DATA, 2 * MIB, attr);
        ask(va + ((i & 8) != 0 ? i * 5 * PAGE : 0));
    }
    ask(va); /* a hole */
    must(mm_pagetable_swap(&pt, va + PAGE, 0x123456789, NULL) == MM_OK, "swap");
    ask(va + PAGE);
    map((mm_va_t)5 << 30, 0, UINT64_C(1) << 30, RWX | MM_PAGETABLE_USER);
    ask(((mm_va_t)5 << 30) + DATA + 200 * PAGE);
}

/* The far ends of the address space, and beyond. */
static void build_far(void)
{
    mm_va_t high = ~(mm_va_t)0 << (five_levels ? 56 : 47), low = ~high;
    map(low - (2 * MIB - 1), DATA, 2 * MIB, RWX);
    ask(low - (2 * MIB - 1) + 201 * PAGE);
    ask(low + 1); /* not canonical */
    map(high, DATA + 41 * PAGE, PAGE, RWX);
    ask(high);
    ask(high - PAGE);
    if (five_levels) { /* what four levels do not have */
        map(UINT64_C(0x0055000000000000), DATA + 42 * PAGE, PAGE, RWX | MM_PAGETABLE_USER);
        ask(UINT64_C(0x0055000000000000));
        map(UINT64_C(0xff55000000000000), DATA + 43 * PAGE, PAGE, RWX);
        ask(UINT64_C(0xff55000000000000));
    }
}

/* Memory types that need the PAT bit, which stands at 12 in a large leaf: no reserved bit may be
 * set; global pages; leaves after a split and a change. */
static void build_types(void)
{
    mm_va_t va = 0x30000000;
    for (unsigned type = 0; type < MM_PAGETABLE_TYPE_COUNT; type++, va += 4 * MIB) {
        map(va, DATA, 2 * MIB, RWX | MM_PAGETABLE_TYPE(type) | MM_PAGETABLE_GLOBAL);
        ask_once(va + (210 + type) * PAGE, 2, LOAD, 0);
        ask_once(va + (210 + type) * PAGE, 2, STORE, 0);
        map(va + 2 * MIB, DATA + (50 + type) * PAGE, PAGE, RWX | MM_PAGETABLE_TYPE(type));
        ask_once(va + 2 * MIB, 2, STORE, 0);
    }
    map(va, DATA, 2 * MIB, RWX | MM_PAGETABLE_TYPE(MM_PAGETABLE_WRITE_THROUGH));
    must(mm_pagetable_protect(&pt, va + 70 * PAGE, PAGE, MM_PAGETABLE_READ, MM_PAGETABLE_PERMS,
                              NULL) == MM_OK,
         "protect");
    must(mm_pagetable_unmap(&pt, va + 72 * PAGE, PAGE, NULL) == MM_OK, "unmap");
    for (unsigned i = 69; i < 74; i++)
        ask(va + i * PAGE);
}

/* Protection keys: two pages of ring 3, one of ring 0, with each right. */
static void build_keys(void)
{
    mm_va_t va = 0x50000000;
    for (unsigned key = 0; key < 16; key += 5) {
        uint32_t attr = RWX | MM_PAGETABLE_KEY(key);
        map(va + key * MIB, DATA + (80 + key) * PAGE, PAGE, attr | MM_PAGETABLE_USER);
        map(va + key * MIB + PAGE, DATA + (81 + key) * PAGE, PAGE, attr);
        for (uint32_t rights = 0; rights < 4; rights++)
            for (unsigned state = 0; state < 4; state++)
                for (unsigned op = LOAD; op <= FETCH; op++) {
                    ask_once(va + key * MIB, state, op, rights << 2 * key);
                    ask_once(va + key * MIB + PAGE, state, op, rights << 2 * key);
                }
    }
}

static void build(bool five)
{
    static struct mm_pagetable_hooks hooks = {.alloc = take, .free = give};
    struct mm_pagetable_config config;

    five_levels = five;
    must(mm_pagetable_config_init(
             &config,
             mm_pagetable_format_of(five ? MM_PAGETABLE_ID_X86_64_LA57 : MM_PAGETABLE_ID_X86_64),
             &hooks, (uintptr_t)image - (uintptr_t)BASE) == MM_OK,
         "config");
    config.flags &= ~(uint32_t)MM_PAGETABLE_PRESET_AD; /* the processor sets A and D */
    config.flags |= MM_PAGETABLE_PKEYS;
    config.pa_bits = 39;
    must(mm_pagetable_init(&pt, &config) == MM_OK, "init");
    map(MIB, MIB, DATA - MIB, RWX | MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY);
    map(USER_STUBS, STUBS, PAGE, MM_PAGETABLE_READ | MM_PAGETABLE_EXEC | MM_PAGETABLE_USER);
    build_permissions();
    build_far();
    build_types();
    build_keys();
    for (unsigned i = 0; i < count; i++) /* splits move entries: when all is built */
        records[i].entry = entry_of(records[i].va);
}

struct outcome {
    unsigned long long vector, error, cr2, value, entry;
};

/* Does the outcome of access i match? Memory and entries in the image are kept as the guest's
 * are. */
static bool matches(unsigned i, const struct mm_pagetable_access *p, const struct outcome *o)
{
    const struct record *r = &records[i];
    unsigned op = (unsigned)r->op & 3;
    uint64_t entry = 0, loaded;

    if (p->fault == MM_PAGETABLE_FAULT_CANONICAL)
        return o->vector == VECTOR_GENERAL && o->error == 0;
    if (r->entry != 0)
        memcpy(&entry, image + (r->entry - BASE), 8);
    if (p->fault == MM_PAGETABLE_FAULT_NONE) {
        entry |= op == STORE ? 0x60 : 0x20;
        memcpy(image + (r->entry - BASE), &entry, 8);
        if (op == STORE)
            memcpy(image + (p->pa - BASE), &r->value, 8);
        memcpy(&loaded, image + (p->pa - BASE), 8);
        return o->vector == VECTOR_DONE && o->entry == entry && (op != LOAD || o->value == loaded);
    }
    return o->vector == VECTOR_FAULT && o->error == p->error_code && o->cr2 == r->va &&
           o->entry == entry;
}

static int check(const char *name)
{
    FILE *f = fopen(name, "r");
    unsigned wrong = 0;

    must(f != NULL, "no output");
    for (unsigned i = 0; i < count; i++) {
        struct mm_pagetable_access p;
        struct outcome o;
        must(fscanf(f, "%llx %llx %llx %llx %llx", &o.vector, &o.error, &o.cr2, &o.value,
                    &o.entry) == 5,
             "the guest's output ends early");
        mm_pagetable_predict(&pt, records[i].va, accesses[i], (uint32_t)records[i].pkru, &p);
        if (!matches(i, &p, &o) && wrong++ < 20)
            fprintf(stderr,
                    "# va %#llx op %llu access %#x pkru %#llx: vector %#llx error %#llx cr2 %#llx "
                    "value %#llx entry %#llx; expected fault %d error %#x\n",
                    (unsigned long long)records[i].va, (unsigned long long)records[i].op,
                    accesses[i], (unsigned long long)records[i].pkru, o.vector, o.error, o.cr2,
                    o.value, o.entry, (int)p.fault, p.error_code);
    }
    fclose(f);
    printf("# %u accesses\n", count);
    return wrong != 0;
}

int main(int argc, char **argv)
{
    must(argc == 4, "usage: image|check FILE FORMAT");
    build(strcmp(argv[3], "la57") == 0);
    const uint64_t head[] = {count, mm_pagetable_root(&pt), control4()};
    fill(head, sizeof head, "\xcd\x80", 2); /* int $0x80 */
    return strcmp(argv[1], "image") == 0 ? write_image(argv[2]) : check(argv[2]);
}
