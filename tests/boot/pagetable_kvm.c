/* pagetable_kvm.c - the processor against the header: a virtual machine gets the tables that the
 * header built, runs loads, stores and fetches in ring 0 and ring 3 with CR0.WP, SMEP, SMAP and NX
 * on and off, and what it does is what mm_pagetable_predict says: value, fault address, error code,
 * accessed and dirty bits. Prints TAP; skips without /dev/kvm. */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm_pagetable.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY    ((size_t)16 << 20)
#define PAGE      UINT64_C(4096)
#define SYSTEM    UINT64_C(0xffffffff80000000) /* physical 0 to 64 KiB, for the supervisor */
#define USER_CODE UINT64_C(0x7f0000000000)     /* the stubs once more, for user mode */
enum { GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, HANDLER = 0x4000, STACK = 0x6000, STUBS = 0x7000 };
#define DATA   UINT64_C(0x400000) /* 2 MiB: what the test's addresses lead to */
#define TABLES UINT64_C(0x100000) /* 1 MiB of tables */
#define VALUE  UINT64_C(0x1122334455660000)

enum { PORT_DONE = 0x10, PORT_FAULT, PORT_GENERAL, PORT_OTHER };
enum { LOAD, STORE, FETCH };

static unsigned char *memory;
static int vm, vcpu;
static struct kvm_run *run;
static struct mm_pagetable pt;
static uint64_t next_table = TABLES;
static unsigned long checks, failures;

static mm_pa_t take(void *ctx, uint64_t bytes)
{
    mm_pa_t table = next_table;
    (void)ctx;
    next_table += bytes;
    return next_table <= TABLES + (1 << 20) ? table : MM_PA_NONE;
}

static void give(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx;
    (void)table;
    (void)bytes;
}

static void skip(const char *why)
{
    printf("1..0 # SKIP %s\n", why);
    exit(0);
}

static void need(int ok, const char *what)
{
    if (ok)
        return;
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Gives the machine its memory, or takes it and gives it again: a hypervisor below may have cached
 * what the tables said. */
static void set_memory(void)
{
    struct kvm_userspace_memory_region region = {0, 0, 0, 0, (uint64_t)(uintptr_t)memory};
    (void)ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
    region.memory_size = MEMORY;
    need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0, "memory");
}

static void create_machine(void)
{
    static struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entry[128];
    } cpuid;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        skip("no /dev/kvm");
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        skip("/dev/kvm makes no machine");
    memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    set_memory();
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    need(vcpu >= 0, "vcpu");
    cpuid.head.nent = 128;
    need(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) == 0, "cpuid");
    need(ioctl(vcpu, KVM_SET_CPUID2, &cpuid) == 0, "cpuid");
    run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE,
               MAP_SHARED, vcpu, 0);
    need(run != MAP_FAILED, "run");
}

static void put(uint64_t at, uint64_t value)
{
    memcpy(memory + at, &value, 8);
}

static void put_code(uint64_t at, const char *code, size_t bytes)
{
    memcpy(memory + at, code, bytes);
}

/* Interrupt gate to handler number n, of 16 bytes each. */
static void put_gate(unsigned vector, unsigned n)
{
    uint64_t to = SYSTEM + HANDLER + 16 * n;
    put(IDT + 16 * vector,
        (to & 0xffff) | 8 << 16 | UINT64_C(0x8e00) << 32 | (to >> 16 & 0xffff) << 48);
    put(IDT + 16 * vector + 8, to >> 32);
}

/* Everything that does not change: descriptors, handlers that only leave through a port, stubs. */
static void fill_memory(void)
{
    put(GDT + 8, UINT64_C(0x00af9b000000ffff));
    put(GDT + 16, UINT64_C(0x00cf93000000ffff));
    put(GDT + 24, UINT64_C(0x00cff3000000ffff));
    put(GDT + 32, UINT64_C(0x00affb000000ffff));
    put(TSS + 4, SYSTEM + STACK);
    for (unsigned v = 0; v < 32; v++)
        put_gate(v, 2);
    put_gate(14, 0);
    put_gate(13, 1);
    put_code(HANDLER, "\xe6\x11", 2);                /* out %al, $PORT_FAULT */
    put_code(HANDLER + 16, "\xe6\x12", 2);           /* $PORT_GENERAL */
    put_code(HANDLER + 32, "\xe6\x13", 2);           /* $PORT_OTHER */
    put_code(STUBS, "\x48\x8b\x18\xe6\x10", 5);      /* mov (%rax), %rbx; out %al, $PORT_DONE */
    put_code(STUBS + 16, "\x48\x89\x18\xe6\x10", 5); /* mov %rbx, (%rax) */
    put_code(STUBS + 32, "\xff\xe0", 2);             /* jmp *%rax */
}

struct machine_state {
    unsigned flags; /* MM_PAGETABLE_CPU_ */
    bool nxe, user;
};

static struct kvm_segment segment(unsigned selector, unsigned type, bool code, unsigned dpl)
{
    return (struct kvm_segment){.base = 0,
                                .limit = 0xffffffff,
                                .selector = (uint16_t)(selector | dpl),
                                .type = (uint8_t)type,
                                .present = 1,
                                .dpl = (uint8_t)dpl,
                                .db = !code,
                                .s = 1,
                                .l = code,
                                .g = 1};
}

static void set_registers(const struct machine_state *m, int op, mm_va_t va)
{
    static uint64_t turn;
    struct kvm_sregs s;
    struct kvm_regs r = {.rax = va, .rbx = VALUE + 1, .rflags = 0x3002, .rsp = SYSTEM + STACK};
    unsigned dpl = m->user ? 3 : 0;

    need(ioctl(vcpu, KVM_GET_SREGS, &s) == 0, "sregs");
    s.cs = segment(m->user ? 0x20 : 8, 11, true, dpl);
    s.ss = s.ds = s.es = s.fs = s.gs = segment(m->user ? 0x18 : 0x10, 3, false, dpl);
    s.tr = (struct kvm_segment){
        .base = SYSTEM + TSS, .limit = 0x67, .selector = 0x28, .type = 11, .present = 1};
    s.gdt = (struct kvm_dtable){.base = SYSTEM + GDT, .limit = 0x37};
    s.idt = (struct kvm_dtable){.base = SYSTEM + IDT, .limit = 0x1ff};
    s.cr0 = 0x80000033 | ((m->flags & MM_PAGETABLE_CPU_WP) != 0 ? 0x10000u : 0);
    s.cr4 = 0x20 | ((m->flags & MM_PAGETABLE_CPU_SMEP) != 0 ? 1u << 20 : 0) |
            ((m->flags & MM_PAGETABLE_CPU_SMAP) != 0 ? 1u << 21 : 0);
    s.cr3 = mm_pagetable_root(&pt) | (turn++ & 1)
                                         << 3; /* another value each time: the TLB is flushed */
    s.efer = 0x500 | (m->nxe ? 0x800u : 0);
    need(ioctl(vcpu, KVM_SET_SREGS, &s) == 0, "sregs");
    r.rip = (m->user ? USER_CODE : SYSTEM) + STUBS + 16 * (unsigned)op;
    need(ioctl(vcpu, KVM_SET_REGS, &r) == 0, "regs");
}

struct outcome {
    unsigned port;
    uint64_t value, cr2, error;
};

/* Runs one access on the processor. */
static struct outcome perform(const struct machine_state *m, int op, mm_va_t va)
{
    struct outcome out = {0, 0, 0, 0};
    struct kvm_regs r;
    struct kvm_sregs s;

    set_registers(m, op, va);
    need(ioctl(vcpu, KVM_RUN, 0) == 0, "run");
    if (run->exit_reason != KVM_EXIT_IO) {
        out.port = 1000 + run->exit_reason;
        return out;
    }
    out.port = run->io.port;
    need(ioctl(vcpu, KVM_GET_REGS, &r) == 0 && ioctl(vcpu, KVM_GET_SREGS, &s) == 0, "regs");
    out.value = r.rbx;
    out.cr2 = s.cr2;
    if (out.port == PORT_FAULT)
        memcpy(&out.error, memory + (r.rsp - SYSTEM), 8);
    return out;
}

static bool is(bool ok, const char *what, const struct machine_state *m, int op, mm_va_t va,
               uint64_t got, uint64_t expected)
{
    checks++;
    if (!ok && failures++ < 20)
        printf("# %s: va %#llx op %d flags %#x nxe %d user %d: %#llx, expected %#llx\n", what,
               (unsigned long long)va, op, m->flags, m->nxe, m->user, (unsigned long long)got,
               (unsigned long long)expected);
    return ok;
}

/* One access: the header's word, then the processor's. */
static void compare(const struct machine_state *m, int op, mm_va_t va)
{
    unsigned access = m->flags | (op == STORE ? MM_PAGETABLE_ACCESS_WRITE : 0) |
                      (op == FETCH ? MM_PAGETABLE_ACCESS_FETCH : 0) |
                      (m->user ? MM_PAGETABLE_ACCESS_USER : 0);
    struct mm_pagetable_access predicted;
    struct mm_pagetable_entry before, after;
    struct outcome out;
    const uint32_t AD = MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY;

    if (m->nxe || (m->flags & MM_PAGETABLE_CPU_SMEP) != 0)
        access |= MM_PAGETABLE_CPU_IDENTIFIES;
    pt.flags = m->nxe ? pt.flags | MM_PAGETABLE_NX : pt.flags & ~MM_PAGETABLE_NX;
    mm_pagetable_predict(&pt, va, access, 0, &predicted);
    pt.flags |= MM_PAGETABLE_NX;
    if (mm_pagetable_query(&pt, va, &before) != MM_OK)
        before.attr = 0;
    out = perform(m, op, va);
    if (predicted.fault == MM_PAGETABLE_FAULT_CANONICAL) {
        is(out.port == PORT_GENERAL, "general protection", m, op, va, out.port, PORT_GENERAL);
        return;
    }
    if (predicted.fault != MM_PAGETABLE_FAULT_NONE) {
        if (is(out.port == PORT_FAULT, "fault", m, op, va, out.port, PORT_FAULT)) {
            is(out.cr2 == va, "fault address", m, op, va, out.cr2, va);
            is(out.error == predicted.error_code, "error code", m, op, va, out.error,
               predicted.error_code);
        }
        return;
    }
    if (!is(out.port == PORT_DONE, "access", m, op, va, out.port, PORT_DONE))
        return;
    if (op == LOAD) {
        uint64_t value;
        memcpy(&value, memory + predicted.pa, 8);
        is(out.value == value, "value", m, op, va, out.value, value);
    } else if (op == STORE) {
        uint64_t value;
        memcpy(&value, memory + predicted.pa, 8);
        is(value == VALUE + 1, "stored value", m, op, va, value, VALUE + 1);
    }
    (void)mm_pagetable_query(&pt, va, &after);
    is((after.attr & AD) ==
           ((before.attr & AD) | MM_PAGETABLE_ACCESSED | (op == STORE ? MM_PAGETABLE_DIRTY : 0)),
       "accessed and dirty", m, op, va, after.attr & AD, before.attr & AD);
}

static void map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr)
{
    need(mm_pagetable_map(&pt, va, pa, bytes, attr, 0, NULL) == MM_OK, "map");
}

/* Each frame of DATA begins with code that says "done", and has its number at 16. */
static void fill_data(void)
{
    for (uint64_t at = DATA; at < DATA + (2 << 20); at += PAGE) {
        put_code(at, "\xe6\x10", 2);
        put(at + 16, VALUE + (at >> 12));
    }
}

static mm_va_t addresses[64];
static unsigned address_count;

static void map_test_pages(void)
{
    static const uint32_t perms[] = {MM_PAGETABLE_READ, MM_PAGETABLE_READ | MM_PAGETABLE_WRITE,
                                     MM_PAGETABLE_READ | MM_PAGETABLE_EXEC,
                                     MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC};
    mm_va_t va = 0x10000000;
    for (unsigned i = 0; i < 16; i++, va += 4 << 20) {
        uint32_t attr = perms[i & 3] | ((i & 4) != 0 ? MM_PAGETABLE_USER : 0);
        if ((i & 8) == 0)
            map(va, DATA + i * PAGE, PAGE, attr);
        else
            map(va, DATA, 2 << 20, attr);
        addresses[address_count++] = va;
        if ((i & 8) != 0)
            addresses[address_count++] = va + 0x12f000;
    }
    addresses[address_count++] = va; /* nothing there */
    need(mm_pagetable_swap(&pt, va + PAGE, 0x123456789, NULL) == MM_OK, "swap");
    addresses[address_count++] = va + PAGE;
    addresses[address_count++] = UINT64_C(0x0000800000000000); /* not canonical */
    addresses[address_count++] = UINT64_C(0xffff7ffffffff000);
    map(UINT64_C(0xffffffffc0000000), DATA + 40 * PAGE, 3 * PAGE,
        MM_PAGETABLE_READ | MM_PAGETABLE_WRITE);
    addresses[address_count++] = UINT64_C(0xffffffffc0002000);
}

/* Every state of the processor, both rings, all three accesses, at every address. */
static void try_everything(void)
{
    for (unsigned n = 0; n < 32; n++) {
        struct machine_state m = {(n & 1 ? MM_PAGETABLE_CPU_WP : 0) |
                                      (n & 2 ? MM_PAGETABLE_CPU_SMEP : 0) |
                                      (n & 4 ? MM_PAGETABLE_CPU_SMAP : 0),
                                  (n & 8) != 0, (n & 16) != 0};
        fill_data();
        (void)mm_pagetable_harvest(&pt, 0x10000000, UINT64_C(1) << 30, 0xc0, 0xc0, NULL, NULL,
                                   NULL);
        (void)mm_pagetable_harvest(&pt, UINT64_C(0xffffffffc0000000), UINT64_C(1) << 20, 0xc0, 0xc0,
                                   NULL, NULL, NULL);
        set_memory(); /* the tables changed */
        for (unsigned a = 0; a < address_count; a++)
            for (int op = LOAD; op <= FETCH; op++) {
                mm_va_t va = addresses[a] + (op == FETCH ? 0 : 16);
                compare(&m, op, va);
            }
    }
}

static void report(int number, const char *what)
{
    printf("%s %d - %s (%lu comparisons)\n", failures == 0 ? "ok" : "not ok", number, what, checks);
    checks = failures = 0;
}

static void count_entry(void *ctx, const struct mm_pagetable_entry *entry)
{
    ++*(unsigned *)ctx;
    (void)entry;
}

/* What the processor touched, and nothing else, is harvested; after a split and a change the
 * same. */
static void harvest(void)
{
    struct machine_state m = {MM_PAGETABLE_CPU_WP, true, false};
    unsigned dirty = 0, accessed = 0;
    mm_va_t large = 0x10000000 + 9 * (UINT64_C(4) << 20); /* read and write, 2 MiB */

    (void)mm_pagetable_harvest(&pt, 0x10000000, UINT64_C(64) << 20, 0xc0, 0xc0, NULL, NULL, NULL);
    need(mm_pagetable_protect(&pt, large + 8 * PAGE, PAGE, MM_PAGETABLE_READ, MM_PAGETABLE_PERMS,
                              NULL) == MM_OK,
         "protect");
    set_memory();
    (void)mm_pagetable_harvest(&pt, 0x10000000, UINT64_C(64) << 20, 0xc0, 0xc0, NULL, NULL, NULL);
    compare(&m, LOAD, large + 3 * PAGE + 16);
    compare(&m, STORE, large + 4 * PAGE + 16);
    compare(&m, STORE, large + 8 * PAGE + 16); /* faults */
    compare(&m, STORE, large + 511 * PAGE + 16);
    (void)mm_pagetable_harvest(&pt, large, UINT64_C(2) << 20, MM_PAGETABLE_DIRTY, 0, count_entry,
                               &dirty, NULL);
    (void)mm_pagetable_harvest(&pt, large, UINT64_C(2) << 20, MM_PAGETABLE_ACCESSED, 0, count_entry,
                               &accessed, NULL);
    is(dirty == 2, "dirty pages", &m, 0, large, dirty, 2);
    is(accessed == 3, "accessed pages", &m, 0, large, accessed, 3);
}

int main(void)
{
    struct mm_pagetable_hooks hooks = {.alloc = take, .free = give};
    struct mm_pagetable_config config;
    const uint32_t rwx = MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC;

    setvbuf(stdout, NULL, _IOLBF, 0);
    create_machine();
    need(mm_pagetable_config_init(&config, NULL, &hooks, (uintptr_t)memory) == MM_OK, "config");
    config.flags &= ~MM_PAGETABLE_PRESET_AD;
    config.pa_bits = 39; /* any processor has as many */
    need(mm_pagetable_init(&pt, &config) == MM_OK, "init");
    fill_memory();
    map(SYSTEM, 0, 0x10000, rwx | 0xc0);
    map(USER_CODE + STUBS, STUBS, PAGE, rwx | 0xc0 | MM_PAGETABLE_USER);
    map_test_pages();
    set_memory();
    printf("1..2\n");
    try_everything();
    report(1, "rings 0 and 3, CR0.WP, SMEP, SMAP, NX: the processor does what was predicted");
    harvest();
    report(2, "accessed and dirty bits that the processor set are harvested, after a split too");
    return 0;
}
