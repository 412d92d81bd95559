/* arch.c - riscv64: firmware, device tree, traps, harts. Sources: RISC-V privileged specification;
 * SBI specification 1.0; Devicetree specification 0.4, chapter 5; QEMU, hw/misc/sifive_test.c. */
#include "../kernel_common/kernel.h"
#include "../bootmaps/bootmaps.h"
#include "asm.h"

#define BASE        UINT64_C(0xffffffff00000000) /* of the image */
#define DIRECT      UINT64_C(0xffffffc000000000) /* of physical memory */
#define TREE_MAX    ((size_t)2 << 20)
#define TEST_DEVICE UINT64_C(0x100000)
#define TEST_VA     UINT64_C(0xffffffffd0000000)

extern const uint64_t boot_addresses[2]; /* physical: of the image and entry, of boot_root48 */
extern unsigned char image_text[], image_rodata[], image_data[], image_end[];
void user_enter(struct frame *frame, uint64_t *stack);
_Noreturn void user_leave(uint64_t *stack);
void arch_main(uint64_t hart, uint64_t argument, uint64_t cpu);
void arch_trap(struct frame *f);

#define csr_read(name)                                      \
    ({                                                      \
        uint64_t value_;                                    \
        __asm__ volatile("csrr %0, " #name : "=r"(value_)); \
        value_;                                             \
    })
#define csr_write(name, value) \
    __asm__ volatile("csrw " #name ", %0" ::"r"((uint64_t)(value)) : "memory")
#define csr_set(name, value) \
    __asm__ volatile("csrs " #name ", %0" ::"r"((uint64_t)(value)) : "memory")
#define csr_clear(name, value) \
    __asm__ volatile("csrc " #name ", %0" ::"r"((uint64_t)(value)) : "memory")

/* ---- Firmware -------------------------------------------------------------------------------- */

enum {
    SBI_PUTCHAR = 1,
    SBI_TIME = 0x54494d45,
    SBI_IPI = 0x735049,
    SBI_RFENCE = 0x52464e43,
    SBI_HSM = 0x48534d
};

static int64_t sbi(uint64_t extension, uint64_t function, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d)
{
    register uint64_t a0 __asm__("a0") = a;
    register uint64_t a1 __asm__("a1") = b;
    register uint64_t a2 __asm__("a2") = c;
    register uint64_t a3 __asm__("a3") = d;
    register uint64_t a6 __asm__("a6") = function;
    register uint64_t a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a3), "r"(a6), "r"(a7) : "memory");
    return (int64_t)a0;
}

void arch_putc(char c)
{
    (void)sbi(SBI_PUTCHAR, 0, (uint64_t)(unsigned char)c, 0, 0, 0);
}

static bool own_tables; /* no longer those of boot.S */

void arch_exit(bool pass)
{
    volatile uint32_t *device = (volatile uint32_t *)(own_tables ? TEST_VA : DIRECT + TEST_DEVICE);
    *device = (pass ? 33u : 35u) << 16 | 0x3333; /* "failed", with a status */
    for (;;)
        __asm__ volatile("wfi");
}

uint64_t arch_clock(void)
{
    return csr_read(time);
}

mm_pa_t arch_device(void)
{
    return 0x101000; /* the clock: nanoseconds, low half */
}

/* ---- Translations ---------------------------------------------------------------------------- */

static struct port_cpu cpu_of[MM_CPU_MAX];
static uintptr_t harts; /* that are up, a bit each */

/* The other harts that a flush concerns. */
static uintptr_t harts_of(const struct mm_pagetable_flush *flush)
{
    uintptr_t mask = 0;
    for (unsigned cpu = 0; cpu < MM_CPU_MAX; cpu++)
        if (cpu != port_cpu() && cpu_of[cpu].number == cpu && kernel_concerns(cpu, flush))
            mask |= mm_bit((unsigned)cpu_of[cpu].hart);
    return mask & mm_load(&harts);
}

void arch_load_root(uint64_t root)
{
    csr_write(satp, root);
    __asm__ volatile("sfence.vma" ::: "memory");
    own_tables = (root << 20 >> 20) != boot_addresses[1] >> 12;
}

/* There are no ASIDs here, and SFENCE.VMA and the firmware's remote one without an ASID take global
 * entries too (privileged specification, 4.2.1); with ASIDs flush->global asks for that form. */
static void flush_here(const struct mm_pagetable_flush *flush)
{
    if (flush->all || flush->tables_unlink)
        __asm__ volatile("sfence.vma" ::: "memory");
    for (unsigned i = 0; !flush->all && i < flush->count; i++) {
        const struct mm_pagetable_range *r = &flush->ranges[i];
        for (mm_va_t va = r->va; va - r->va < r->bytes; va += MM_PAGE_SIZE << (9 * r->level))
            __asm__ volatile("sfence.vma %0" ::"r"(va) : "memory");
    }
}

/* New user mappings concern the hart that faulted; elsewhere a stale "nothing there" only faults
 * again. */
void arch_flush(const struct mm_pagetable_flush *flush)
{
    const uintptr_t others = harts_of(flush);
    const bool user = flush->count != 0 && flush->ranges[0].va >> 63 == 0;
    flush_here(flush);
    if (others == 0 || (flush->filled_only && user))
        return;
    if (flush->all || flush->tables_unlink) {
        (void)sbi(SBI_RFENCE, 1, others, 0, 0, ~(uint64_t)0);
        return;
    }
    for (unsigned i = 0; i < flush->count; i++)
        (void)sbi(SBI_RFENCE, 1, others, 0, flush->ranges[i].va, flush->ranges[i].bytes);
}

/* ---- Harts ----------------------------------------------------------------------------------- */

static bool ticking[MM_CPU_MAX];
#define SIE_SOFTWARE 2u
#define SIE_TIMER    32u

/* Every hart has the first one's entry and asks for its number there: OpenSBI 1.1 marks a hart as
 * starting before it notes where (sbi_hsm_hart_start), and one that looks just then starts with
 * what was noted for the first. */
unsigned arch_start_cpus(void)
{
    unsigned all = 1;
    for (uint64_t hart = 0; hart < MM_CPU_MAX; hart++)
        if (hart != port_self()->hart && sbi(SBI_HSM, 0, hart, boot_addresses[0], 0, 0) == 0)
            all++;
    while (mm_popcount(mm_load_acquire(&harts)) != all)
        MM_CPU_RELAX();
    return all;
}

void arch_wake(void)
{
    const uintptr_t others = mm_load(&harts) & ~mm_bit((unsigned)port_self()->hart);
    if (others != 0)
        (void)sbi(SBI_IPI, 0, others, 0, 0, 0);
}

void arch_wait(const uintptr_t *word, uintptr_t value)
{
    while (mm_load_acquire(word) == value) {
        const unsigned long state = port_irq_save();
        if (mm_load_acquire(word) == value)
            __asm__ volatile("wfi" ::
                                 : "memory"); /* an interrupt ends it, though it is not taken yet */
        port_irq_restore(state);
    }
}

void arch_tick(bool on)
{
    ticking[port_cpu()] = on;
    (void)sbi(SBI_TIME, 0, on ? arch_clock() + arch_milliseconds(1) : ~(uint64_t)0, 0, 0, 0);
    if (on)
        csr_set(sie, SIE_TIMER);
    else
        csr_clear(sie, SIE_TIMER);
}

void arch_enter_user(struct frame *frame)
{
    user_enter(frame, &port_self()->stack);
}

void arch_leave_user(void)
{
    user_leave(&port_self()->stack);
}

/* ---- Traps ----------------------------------------------------------------------------------- */

void arch_trap(struct frame *f)
{
    const uint64_t cause = csr_read(scause), va = csr_read(stval);
    const bool user = (f->status & 0x100) == 0;
    switch (cause) {
    case 8:
        f->x[0] += 4;
        kernel_syscall(f);
        break;
    case 12:
    case 13:
    case 15:
        kernel_page_fault(f, va,
                          cause == 12   ? MM_VMA_EXEC
                          : cause == 13 ? MM_VMA_READ
                                        : MM_VMA_WRITE,
                          user);
        /* the hart may remember that the page was not there (privileged specification, 4.2.1) */
        __asm__ volatile("sfence.vma %0" ::"r"(va) : "memory");
        break;
    case UINT64_C(1) << 63 | 1:
        csr_clear(sip, SIE_SOFTWARE);
        break;
    case UINT64_C(1) << 63 | 5:
        arch_tick(ticking[port_cpu()]);
        kernel_tick();
        break;
    default:
        kernel_trap(f, cause, user);
    }
}

/* ---- Device tree ----------------------------------------------------------------------------- */

static uint32_t big32(const void *at)
{
    const unsigned char *p = at;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool begins(const char *text, const char *with)
{
    while (*with != 0)
        if (*text++ != *with++)
            return false;
    return true;
}

/* The first property of this name, which is a text; "" if there is none. bootmap_fdt has checked
 * the tree. */
static const char *tree_text(const char *tree, const char *name)
{
    const char *at = tree + big32(tree + 8), *strings = tree + big32(tree + 12);
    for (;;) {
        const uint32_t token = big32(at);
        at += 4;
        if (token == 1) { /* a node begins: its name */
            while (*at++ != 0)
                continue;
        } else if (token == 3) { /* a property: bytes, name, value */
            if (begins(strings + big32(at + 4), name))
                return at + 8;
            at += 8 + big32(at);
        } else if (token == 9) {
            return "";
        }
        at = (const char *)mm_align_up((uintptr_t)at, 4);
    }
}

/* ---- Start ----------------------------------------------------------------------------------- */

uint64_t arch_image_pa(uintptr_t va)
{
    return va - BASE;
}

/* Sv48 if the hart has it: a write of satp with an unknown mode has no effect. */
static enum mm_pagetable_id choose_format(const char *options)
{
    const uint64_t root = UINT64_C(9) << 60 | boot_addresses[1] >> 12;
    if (begins(options, "sv39"))
        return MM_PAGETABLE_ID_SV39;
    arch_load_root(root);
    return csr_read(satp) == root ? MM_PAGETABLE_ID_SV48 : MM_PAGETABLE_ID_SV39;
}

static _Noreturn void start_first(mm_pa_t blob)
{
    static struct mm_frame_range map[64];
    static const struct mm_frame_zone_config zones[] = {
        /* say, devices with 24 address lines, memory being from 2 GiB on */
        {"DMA", UINT64_C(0x80000000), UINT64_C(0x81000000), KMM_WATERMARKS},
        {"Normal", UINT64_C(0x81000000), MM_PA_NONE, KMM_WATERMARKS}};
    const struct mm_pagetable_run mappings[] = {
        image_part(image_text, image_rodata, MM_PAGETABLE_EXEC),
        image_part(image_rodata, image_data, 0),
        image_part(image_data, image_end, MM_PAGETABLE_WRITE),
        {.va = TEST_VA,
         .pa = TEST_DEVICE,
         .bytes = MM_PAGE_SIZE,
         .attr = MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_GLOBAL |
                 MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE)}};
    struct kmm_config config = {.map = map,
                                .zones = zones,
                                .zone_count = 2,
                                .direct = DIRECT,
                                .mappings = mappings,
                                .mapping_count = 4};
    const char *tree = (const void *)(DIRECT + blob);
    size_t n = 0;
    enum mm_status status = bootmap_fdt(tree, TREE_MAX, map, 62, &n);
    if (status != MM_OK)
        panic(mm_status_name(status), blob);
    map[n++] = (struct mm_frame_range){blob, big32(tree + 4), MM_FRAME_BOOTLOADER};
    map[n++] = (struct mm_frame_range){boot_addresses[0],
                                       arch_image_pa((uintptr_t)image_end) - boot_addresses[0],
                                       MM_FRAME_KERNEL};
    config.map_count = n;
    config.format = mm_pagetable_format_of(choose_format(tree_text(tree, "bootargs")));
    kernel_main(&config);
}

/* `argument`: the device tree, for the first CPU. */
void arch_main(uint64_t hart, uint64_t argument, uint64_t cpu)
{
    struct port_cpu *self = &cpu_of[cpu];
    self->number = cpu;
    self->hart = hart;
    __asm__ volatile("mv tp, %0" ::"r"(self) : "memory");
    csr_write(sie, SIE_SOFTWARE);
    (void)mm_fetch_or(&harts, mm_bit((unsigned)hart)); /* first, so that no shootdown is missed */
    if (cpu != 0)
        arch_load_root(mm_pagetable_root(&kmm.kernel));
    csr_set(sstatus, 2);
    if (cpu == 0)
        start_first(argument);
    kernel_cpu();
}
