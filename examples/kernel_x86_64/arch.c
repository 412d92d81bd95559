/* arch.c - x86_64: devices, descriptor tables, traps, CPUs. Sources: Intel SDM vol. 3; the PVH boot
 * protocol (Xen, docs/misc/pvh.pandoc); QEMU, hw/misc/debugexit.c and docs/specs/fw_cfg. */
#include "../kernel_common/kernel.h"
#include "../bootmaps/bootmaps.h"
#include "asm.h"

#define BASE         UINT64_C(0xffffffff80000000) /* of the image */
#define DIRECT       UINT64_C(0xffff888000000000) /* of physical memory */
#define LAPIC        UINT64_C(0xffffffffc0000000) /* of the local APIC, a device */
#define VECTOR_TIMER 32
#define VECTOR_IPI   33
#define EXIT_PORT    0xf4
#define CONFIG_PORT  0x510 /* of QEMU's "fw_cfg": a key goes in, bytes come out of the next port */
#define CONFIG_CPUS  5

extern unsigned char image_pa[], image_text[], image_rodata[], image_data[], image_end[];
extern unsigned char trap_stubs[], trap_syscall[], trampoline[], trampoline_end[];
extern uint64_t boot_info, boot_la57;
extern uint32_t cpus_entered;
void user_enter(struct frame *frame, uint64_t *rsp0);
_Noreturn void user_leave(uint64_t *rsp0);
void arch_main(unsigned cpu);
void arch_trap(struct frame *f);

/* ---- Instructions ---------------------------------------------------------------------------- */

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint64_t read_cr2(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}
static inline uint64_t read_cr4(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}
static inline void write_cr4(uint64_t value)
{
    __asm__ volatile("mov %0, %%cr4" ::"r"(value) : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}

/* ---- Serial port, end, clock ----------------------------------------------------------------- */

void arch_putc(char c)
{
    while ((in8(0x3fd) & 0x20) == 0)
        continue;
    out8(0x3f8, (uint8_t)c);
}

/* QEMU ends with status 2 * value + 1. */
void arch_exit(bool pass)
{
    out8(EXIT_PORT, pass ? 0x10 : 0x11);
    for (;;)
        __asm__ volatile("cli\n\thlt");
}

uint64_t arch_clock(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

uint64_t arch_milliseconds(unsigned n)
{
    return n * UINT64_C(2000000); /* at 2 GHz; nothing depends on it */
}

/* ---- Descriptor tables ----------------------------------------------------------------------- */

struct tss {
    uint32_t reserved;
    uint64_t rsp0;
    uint8_t unused[90];
    uint16_t io_map; /* behind the limit: no port for user mode (SDM vol. 1, 19.5.2) */
} __attribute__((packed, aligned(4)));

static struct {
    uint16_t pad[3];
    uint16_t limit;
    uint64_t base;
} gdt_pointer, idt_pointer;
static uint64_t gdt[5 + 2 * MM_CPU_MAX];
static struct {
    uint64_t low, high;
} idt[256];
static struct tss tss[MM_CPU_MAX];

static void idt_set(unsigned vector, const unsigned char *at, unsigned privilege)
{
    const uint64_t va = (uintptr_t)at;
    idt[vector].low = (va & 0xffff) | (uint64_t)SEL_CODE << 16 |
                      (uint64_t)(0x8e | privilege << 5) << 40 | (va >> 16 & 0xffff) << 48;
    idt[vector].high = va >> 32;
}

static void tables_make(void)
{
    gdt[SEL_CODE / 8] = UINT64_C(0x00af9a000000ffff);
    gdt[SEL_DATA / 8] = UINT64_C(0x00cf92000000ffff);
    gdt[SEL_USER_DATA / 8] = UINT64_C(0x00cff2000000ffff);
    gdt[SEL_USER_CODE / 8] = UINT64_C(0x00affa000000ffff);
    for (unsigned i = 0; i < 48; i++)
        idt_set(i, trap_stubs + 16 * i, 0);
    idt_set(0x80, trap_syscall, 3);
}

static void tables_load(unsigned cpu)
{
    const uint64_t base = (uintptr_t)&tss[cpu];
    tss[cpu].io_map = sizeof tss[cpu];
    gdt[5 + 2 * cpu] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 | UINT64_C(0x89) << 40 |
                       (base >> 24 & 0xff) << 56;
    gdt[6 + 2 * cpu] = base >> 32;
    gdt_pointer.limit = sizeof gdt - 1;
    gdt_pointer.base = (uintptr_t)gdt;
    idt_pointer.limit = sizeof idt - 1;
    idt_pointer.base = (uintptr_t)idt;
    __asm__ volatile("lgdt %0\n\tlidt %1" ::"m"(gdt_pointer.limit), "m"(idt_pointer.limit)
                     : "memory");
    __asm__ volatile("pushq $0x08\n\tleaq 1f(%%rip), %%rax\n\tpushq %%rax\n\tlretq\n1:" ::
                         : "rax", "memory");
    __asm__ volatile(
        "mov %w0, %%ds\n\tmov %w0, %%es\n\tmov %w0, %%ss\n\tmov %w1, %%fs\n\tmov %w1, %%gs\n\t"
        "ltr %w2" ::"r"(SEL_DATA),
        "r"(0), "r"(SEL_TSS + 16 * cpu));
}

/* PGE; SMEP and SMAP where there are: the kernel reaches user memory by the direct map only. */
static void features_on(void)
{
    uint32_t r[4];
    uint64_t cr4 = read_cr4() | 0x80;
    cpuid(0, r);
    if (r[0] >= 7) {
        cpuid(7, r);
        cr4 |= (r[1] & 1u << 7) != 0 ? 1u << 20 : 0;
        cr4 |= (r[1] & 1u << 20) != 0 ? 1u << 21 : 0;
    }
    write_cr4(cr4);
}

/* ---- Local APIC ------------------------------------------------------------------------------ */

static volatile uint32_t *const lapic = (volatile uint32_t *)LAPIC;
enum {
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_COMMAND = 0x300,
    APIC_TIMER = 0x320,
    APIC_COUNT = 0x380,
    APIC_DIVIDE = 0x3e0
};
enum { IPI_INIT = 0xc4500, IPI_START = 0xc4600, IPI_OTHERS = 0xc4000 };

/* With interrupts off: a handler may send one too. */
static void lapic_command(uint32_t command)
{
    const unsigned long state = port_irq_save();
    while ((lapic[APIC_COMMAND / 4] & 1u << 12) != 0)
        __builtin_ia32_pause();
    lapic[APIC_COMMAND / 4] = command;
    port_irq_restore(state);
}

static void lapic_on(void)
{
    lapic[APIC_SPURIOUS / 4] = 0x100 | 47;
}

void arch_tick(bool on)
{
    lapic[APIC_DIVIDE / 4] = 0xb;
    lapic[APIC_TIMER / 4] = on ? 1u << 17 | VECTOR_TIMER : 1u << 16;
    lapic[APIC_COUNT / 4] = on ? 2000000 : 0;
}

mm_pa_t arch_device(void)
{
    return 0xfee00030; /* the local APIC's version */
}

/* ---- TLB shootdown --------------------------------------------------------------------------- */

static uintptr_t online = 1; /* CPUs that count, a bit each */
static struct {
    uintptr_t lock;
    const struct mm_pagetable_flush *what;
    uintptr_t pending[MM_CPU_MAX];
} shootdown;

/* There are no PCIDs here, so nothing hides from these: INVLPG takes global entries too, and so
 * does CR4.PGE (SDM vol. 3, 4.10.4.1). With PCIDs, INVPCID would spare them: then flush->global
 * asks for more. */
static void flush_here(const struct mm_pagetable_flush *flush)
{
    const uint64_t cr4 = read_cr4();
    if (flush->all || flush->tables_unlink) {
        write_cr4(cr4 & ~(uint64_t)0x80);
        write_cr4(cr4);
        return;
    }
    for (unsigned i = 0; i < flush->count; i++) {
        const struct mm_pagetable_range *r = &flush->ranges[i];
        for (mm_va_t va = r->va; va - r->va < r->bytes; va += MM_PAGE_SIZE << (9 * r->level))
            __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
    }
}

void port_poll(void)
{
    uintptr_t *mine = &shootdown.pending[port_cpu()];
    unsigned long state;
    if (mm_load_acquire(mine) == 0)
        return;
    state = port_irq_save(); /* the interrupt asks for the same */
    if (mm_load_acquire(mine) != 0) {
        flush_here(shootdown.what);
        mm_store_release(mine, 0);
    }
    port_irq_restore(state);
}

void arch_flush(const struct mm_pagetable_flush *flush)
{
    const unsigned long state = port_irq_save();
    const unsigned me = port_cpu();
    bool others = false;
    if (!flush->filled_only) {
        port_lock(&shootdown.lock);
        shootdown.what = flush;
        for (unsigned i = 0; i < MM_CPU_MAX; i++)
            if (i != me && (mm_load(&online) >> i & 1) != 0 && kernel_concerns(i, flush)) {
                mm_store_release(&shootdown.pending[i], 1);
                others = true;
            }
        if (others)
            lapic_command(IPI_OTHERS | VECTOR_IPI);
        flush_here(flush);
        for (unsigned i = 0; i < MM_CPU_MAX; i++)
            while (i != me && mm_load_acquire(&shootdown.pending[i]) != 0)
                __builtin_ia32_pause();
        mm_store_release(&shootdown.lock, 0);
    }
    port_irq_restore(state);
}

void arch_load_root(uint64_t root)
{
    __asm__ volatile("mov %0, %%cr3" ::"r"(root) : "memory");
}

/* ---- CPUs ------------------------------------------------------------------------------------ */

static void pause_for(unsigned milliseconds)
{
    for (uint64_t end = arch_clock() + arch_milliseconds(milliseconds); arch_clock() < end;)
        __builtin_ia32_pause();
}

unsigned arch_start_cpus(void)
{
    unsigned all;
    lapic_on();
    lapic_command(IPI_INIT);
    pause_for(10);
    lapic_command(IPI_START | TRAMPOLINE >> 12);
    pause_for(1);
    lapic_command(IPI_START | TRAMPOLINE >> 12);
    out16(CONFIG_PORT, CONFIG_CPUS);
    all = in8(CONFIG_PORT + 1);
    all |= (unsigned)in8(CONFIG_PORT + 1) << 8;
    all = all < MM_CPU_MAX ? all : MM_CPU_MAX;
    while (mm_popcount(mm_load_acquire(&online)) != all)
        __builtin_ia32_pause();
    __asm__ volatile("sti");
    return all;
}

void arch_wake(void)
{
    if (mm_load(&online) != 1)
        lapic_command(IPI_OTHERS | VECTOR_IPI);
}

void arch_wait(const uintptr_t *word, uintptr_t value)
{
    for (;;) {
        __asm__ volatile("cli" ::: "memory");
        if (mm_load_acquire(word) != value)
            break;
        __asm__ volatile("sti\n\thlt" ::: "memory"); /* no interrupt gets in between */
    }
    __asm__ volatile("sti" ::: "memory");
}

void arch_enter_user(struct frame *frame)
{
    uint64_t *rsp0 = (uint64_t *)(void *)((char *)&tss[port_cpu()] + 4);
    user_enter(frame, rsp0);
}

void arch_leave_user(void)
{
    user_leave((uint64_t *)(void *)((char *)&tss[port_cpu()] + 4));
}

/* ---- Traps ----------------------------------------------------------------------------------- */

static void page_fault(struct frame *f, mm_va_t va)
{
    const unsigned access = (f->error & 16) != 0  ? MM_VMA_EXEC
                            : (f->error & 2) != 0 ? MM_VMA_WRITE
                                                  : MM_VMA_READ;
    kernel_page_fault(f, va, access, (f->cs & 3) != 0);
}

void arch_trap(struct frame *f)
{
    switch (f->vector) {
    case 14:
        page_fault(f, read_cr2());
        break;
    case 0x80:
        kernel_syscall(f);
        break;
    case VECTOR_IPI:
        lapic[APIC_EOI / 4] = 0;
        port_poll();
        break;
    case VECTOR_TIMER:
        lapic[APIC_EOI / 4] = 0;
        kernel_tick();
        break;
    case 47:
        break; /* spurious */
    default:
        kernel_trap(f, f->vector, (f->cs & 3) != 0);
    }
}

/* ---- Start ----------------------------------------------------------------------------------- */

uint64_t arch_image_pa(uintptr_t va)
{
    return va - BASE;
}

/* boot.S mapped the first 4 GiB. */
static const void *boot_view(void *ctx, mm_pa_t pa, size_t bytes)
{
    (void)ctx;
    return pa >> 32 == 0 && (pa + bytes) >> 32 == 0 ? (void *)(DIRECT + pa) : NULL;
}

static size_t read_map(struct mm_frame_range *map, size_t room)
{
    const struct bootmap_view view = {boot_view, NULL};
    size_t n = 0;
    enum mm_status status = bootmap_pvh(boot_info, &view, map, room - 3, &n);
    if (status != MM_OK)
        panic(mm_status_name(status), boot_info);
    map[n++] = (struct mm_frame_range){0, MM_PAGE_SIZE, MM_FRAME_RESERVED}; /* the BIOS's data */
    map[n++] = (struct mm_frame_range){TRAMPOLINE, MM_PAGE_SIZE, MM_FRAME_KERNEL};
    map[n++] = (struct mm_frame_range){(uintptr_t)image_pa,
                                       arch_image_pa((uintptr_t)image_end) - (uintptr_t)image_pa,
                                       MM_FRAME_KERNEL};
    return n;
}

static _Noreturn void start_first(void)
{
    static struct mm_frame_range map[64];
    static const struct mm_frame_zone_config zones[] = {
        {"DMA", 0, 16 << 20, KMM_WATERMARKS},
        {"DMA32", 16 << 20, UINT64_C(1) << 32, KMM_WATERMARKS},
        {"Normal", UINT64_C(1) << 32, MM_PA_NONE, KMM_WATERMARKS}};
    const struct mm_pagetable_run mappings[] = {
        image_part(image_text, image_rodata, MM_PAGETABLE_EXEC),
        image_part(image_rodata, image_data, 0),
        image_part(image_data, image_end, MM_PAGETABLE_WRITE),
        {.va = LAPIC,
         .pa = 0xfee00000,
         .bytes = MM_PAGE_SIZE,
         .attr = MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_GLOBAL |
                 MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE)}};
    struct kmm_config config = {.map = map,
                                .zones = zones,
                                .zone_count = 3,
                                .format = mm_pagetable_format_of(boot_la57 != 0
                                                                     ? MM_PAGETABLE_ID_X86_64_LA57
                                                                     : MM_PAGETABLE_ID_X86_64),
                                .direct = DIRECT,
                                .mappings = mappings,
                                .mapping_count = 4};
    out8(0x3f9, 0);
    out8(0x21, 0xff); /* no interrupts from the old controllers */
    out8(0xa1, 0xff);
    MM_MEMCPY((void *)(DIRECT + TRAMPOLINE), trampoline, (size_t)(trampoline_end - trampoline));
    config.map_count = read_map(map, 64);
    kernel_main(&config);
}

void arch_main(unsigned cpu)
{
    if (cpu == 0)
        tables_make();
    tables_load(cpu);
    if (cpu == 0) {
        features_on();
        start_first();
    }
    arch_load_root(mm_pagetable_root(&kmm.kernel));
    lapic_on();
    (void)mm_fetch_or(&online, mm_bit(cpu));
    features_on(); /* CR4.PGE turned on empties the TLB: no shootdown of before is missed */
    __asm__ volatile("sti");
    kernel_cpu();
}
