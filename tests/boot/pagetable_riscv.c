/* pagetable_riscv.c - tables of Sv39, Sv48, Sv57 and of the G-stage formats for the guest
 * riscv_guest.S under QEMU.
 *
 *   pagetable_riscv image FILE FORMAT    writes the guest's memory from 0x80010000: records, tables
 *   pagetable_riscv check FILE FORMAT    compares the guest's output with mm_pagetable_predict */
#define MM_PAGETABLE_SV39
#define MM_PAGETABLE_SV48
#define MM_PAGETABLE_SV57
#define MM_PAGETABLE_SV39X4
#define MM_PAGETABLE_SV48X4
#define MM_PAGETABLE_SV57X4
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm_pagetable.h"

#define BASE        UINT64_C(0x80010000)
#define TABLES      UINT64_C(0x80100000)
#define DATA        UINT64_C(0x80400000)
#define IMAGE_END   UINT64_C(0x80600000)
#define MAX_RECORDS 2000

struct record {
    uint64_t va, op, mstatus, satp, hgatp, value, hstatus, unused;
};

#include "pagetable_guest.h"

static bool second;

/* Every access to this address by every mode. */
static void ask(mm_va_t va)
{
    for (unsigned n = 0; n < (second ? 2u : 8u); n++)
        for (unsigned op = LOAD; op <= FETCH; op++) {
            struct record *r = &records[count];
            bool user = (n & 1) != 0, sum = (n & 2) != 0, mxr = (n & 4) != 0;
            must(count < MAX_RECORDS, "records");
            r->va = va + (op == FETCH ? 0 : 16);
            r->op = op;
            r->mstatus = (user ? 0 : UINT64_C(1) << 11) | (op == FETCH ? 0 : UINT64_C(1) << 17) |
                         (sum ? UINT64_C(1) << 18 : 0) | (mxr ? UINT64_C(1) << 19 : 0) |
                         (second ? UINT64_C(1) << 39 : 0);
            r->satp = second ? 0 : mm_pagetable_root(&pt);
            r->hgatp = second ? mm_pagetable_root(&pt) : 0;
            r->hstatus = user ? 0 : UINT64_C(1) << 8;
            r->value = VALUE + (va >> 12 & 0xfff);
            accesses[count++] =
                (user ? MM_PAGETABLE_ACCESS_USER : 0) | (sum ? MM_PAGETABLE_CPU_SUM : 0) |
                (mxr ? MM_PAGETABLE_CPU_MXR : 0) | (op == STORE ? MM_PAGETABLE_ACCESS_WRITE : 0) |
                (op == FETCH ? MM_PAGETABLE_ACCESS_FETCH : 0);
        }
}

/* Pages of every kind: each permission, both modes, three sizes; holes; a swap entry. */
static void build(enum mm_pagetable_id id)
{
    static struct mm_pagetable_hooks hooks = {.alloc = take, .free = give};
    static const uint32_t perms[] = {MM_PAGETABLE_READ, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE,
                                     MM_PAGETABLE_EXEC, MM_PAGETABLE_READ | MM_PAGETABLE_EXEC,
                                     MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC};
    struct mm_pagetable_config config;
    unsigned top;
    mm_va_t va = 0x10000000;

    second = id >= MM_PAGETABLE_ID_SV39X4;
    must(mm_pagetable_config_init(&config, mm_pagetable_format_of(id), &hooks,
                                  (uintptr_t)image - (uintptr_t)BASE) == MM_OK,
         "config");
    config.flags |= MM_PAGETABLE_HW_AD; /* QEMU sets A and D by itself */
    must(mm_pagetable_init(&pt, &config) == MM_OK, "init");
    for (unsigned i = 0; i < 20; i++, va += 4 << 20) {
        uint32_t attr = perms[i % 5] | (i / 5 % 2 != 0 && !second ? MM_PAGETABLE_USER : 0);
        if (i < 10)
            map(va, DATA + i * PAGE, PAGE, attr);
        else
            map(va, DATA, 2 << 20, attr);
        ask(va + (i < 10 ? 0 : i * 5 * PAGE));
    }
    ask(va);
    must(mm_pagetable_swap(&pt, va + PAGE, 0x123456789, NULL) == MM_OK, "swap");
    ask(va + PAGE);
    /* 1 GiB, and the largest leaf of the format, with their whole alignment */
    map((mm_va_t)5 << 30, UINT64_C(0x80000000), UINT64_C(1) << 30,
        MM_PAGETABLE_READ | MM_PAGETABLE_WRITE);
    ask(((mm_va_t)5 << 30) + (DATA - UINT64_C(0x80000000)) + 33 * PAGE);
    top = config.format->levels - 1;
    if (top > 2) {
        uint64_t size = mm_pagetable_size(&pt, top);
        map(3 * size, 0, size, MM_PAGETABLE_READ);
        ask(3 * size + DATA + 34 * PAGE);
    }
    if (second) { /* the root has four times the entries; QEMU 7.2 refuses the upper half of them */
        mm_va_t high = ((mm_va_t)1 << (config.format->va_bits - 2)) + (7 << 20);
        map(high, DATA + 35 * PAGE, PAGE, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE);
        ask(high);
    } else {
        mm_va_t high = ~(mm_va_t)0 << (config.format->va_bits - 1);
        map(high, DATA + 35 * PAGE, PAGE, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE);
        ask(high);
        ask(high - PAGE); /* not canonical */
    }
}

/* What the guest has to see for record i; loads see what was stored last. */
static uint64_t expected_cause(unsigned i, const struct mm_pagetable_access *p)
{
    static const uint64_t faults[2][3] = {{13, 15, 12}, {21, 23, 20}};
    bool user = (accesses[i] & MM_PAGETABLE_ACCESS_USER) != 0;
    if (p->fault != MM_PAGETABLE_FAULT_NONE)
        return faults[second][records[i].op];
    if (records[i].op != FETCH)
        return 0;
    return user ? 8 : second ? 10 : 9;
}

static int check(const char *name)
{
    FILE *f = fopen(name, "r");
    unsigned wrong = 0;
    must(f != NULL, "no output");
    for (unsigned i = 0; i < count; i++) {
        unsigned long long cause, tval, value;
        struct mm_pagetable_access p;
        uint64_t expected, memory_value = 0;
        must(fscanf(f, "%llx %llx %llx", &cause, &tval, &value) == 3,
             "the guest's output ends early");
        mm_pagetable_predict(&pt, records[i].va, accesses[i], 0, &p);
        expected = expected_cause(i, &p);
        if (p.fault == MM_PAGETABLE_FAULT_NONE && records[i].op == STORE)
            memcpy(image + (p.pa - BASE), &records[i].value, 8);
        if (p.fault == MM_PAGETABLE_FAULT_NONE)
            memcpy(&memory_value, image + (p.pa - BASE), 8);
        if (cause != expected || (expected >= 12 && tval != records[i].va) ||
            (expected == 0 && records[i].op == LOAD && value != memory_value)) {
            wrong++;
            fprintf(stderr,
                    "# va %#llx op %llu access %#x: cause %llu, expected %llu; tval %#llx value "
                    "%#llx\n",
                    (unsigned long long)records[i].va, (unsigned long long)records[i].op,
                    accesses[i], cause, (unsigned long long)expected, tval, value);
        }
    }
    fclose(f);
    printf("# %u accesses\n", count);
    return wrong != 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum mm_pagetable_id id;
    } formats[] = {{"sv39", MM_PAGETABLE_ID_SV39},     {"sv48", MM_PAGETABLE_ID_SV48},
                   {"sv57", MM_PAGETABLE_ID_SV57},     {"sv39x4", MM_PAGETABLE_ID_SV39X4},
                   {"sv48x4", MM_PAGETABLE_ID_SV48X4}, {"sv57x4", MM_PAGETABLE_ID_SV57X4}};
    must(argc == 4, "usage: image|check FILE FORMAT");
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, argv[3]) == 0)
            build(formats[i].id);
    must(count != 0, "format");
    const uint64_t head[] = {count, second};
    fill(head, sizeof head, "\x73\0\0\0", 4); /* ecall */
    return strcmp(argv[1], "image") == 0 ? write_image(argv[2]) : check(argv[2]);
}
