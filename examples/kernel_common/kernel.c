/* kernel.c - processes, system calls, page faults, start */
#include "kernel.h"

bool trying[MM_CPU_MAX];
struct file disk_file;
static struct file image_file;
static struct process *current[MM_CPU_MAX];
static uintptr_t loaded[MM_CPU_MAX]; /* the program's tables that each CPU has loaded; 0: none */
extern unsigned char user_image[], user_image_end[];

/* ---- Processes ------------------------------------------------------------------------------- */

#define STACK_TOP ((mm_va_t)0x70000000)
#define HEAP      ((mm_va_t)0x10000000)

/* What is read of an ELF64 file (System V ABI, "Object Files"). */
struct elf {
    unsigned char id[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum;
};
struct elf_segment {
    uint32_t type, flags;
    uint64_t offset, va, pa, file_bytes, bytes, align;
};

static int map(struct kmm_space *space, mm_va_t from, mm_va_t end, unsigned prot, struct file *file,
               uint64_t offset)
{
    const struct mm_vma_request request = {.hint = from,
                                           .bytes = end - from,
                                           .prot = prot,
                                           .flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_FIXED |
                                                    (file == NULL ? MM_VMA_MAP_ANONYMOUS : 0),
                                           .file = file,
                                           .offset = offset};
    mm_va_t va;
    return end > from ? kmm_mmap(space, &request, &va) : 0;
}

/* Maps a segment: the file's pages, private; what lies behind them is zero. */
static int load_segment(struct kmm_space *space, const struct elf_segment *s)
{
    static const unsigned char zeros[MM_PAGE_SIZE];
    const unsigned prot =
        PROT_R | ((s->flags & 2) != 0 ? PROT_W : 0) | ((s->flags & 1) != 0 ? PROT_X : 0);
    const uint64_t skew = s->va & (MM_PAGE_SIZE - 1);
    const mm_va_t file_end = s->va + s->file_bytes, middle = mm_align_up(file_end, MM_PAGE_SIZE);
    int error = map(space, s->va - skew, middle, prot, &image_file, s->offset - skew);
    if (error == 0 && (prot & PROT_W) != 0 && !copy_out(space, file_end, zeros, middle - file_end))
        error = -12;
    if (error == 0)
        error = map(space, middle, mm_align_up(s->va + s->bytes, MM_PAGE_SIZE), prot, NULL, 0);
    return error;
}

static int load_image(struct kmm_space *space)
{
    const struct elf *elf = (const void *)user_image;
    int error = 0;
    for (unsigned i = 0; i < elf->phnum && error == 0; i++) {
        const struct elf_segment *s = (const void *)(user_image + elf->phoff + i * elf->phentsize);
        if (s->type == 1)
            error = load_segment(space, s);
    }
    if (error == 0)
        error = kmm_region_alloc(space, MM_VMA_STACK, STACK_TOP - 4 * MM_PAGE_SIZE,
                                 4 * MM_PAGE_SIZE, 0);
    return error == 0 ? kmm_region_alloc(space, MM_VMA_HEAP, HEAP, MM_PAGE_SIZE, 0) : error;
}

struct process *process_create(unsigned number, uint64_t argument, uint64_t quota)
{
    struct process *p = kmm_alloc(sizeof *p, MM_SLAB_ZERO);
    if (p == NULL)
        return NULL;
    p->space = kmm_space_create(quota);
    if (p->space != NULL && load_image(p->space) == 0) {
        frame_start(&p->frame, ((const struct elf *)(const void *)user_image)->entry,
                    STACK_TOP - 64, number, argument);
        return p;
    }
    process_destroy(p);
    return NULL;
}

/* First the note, then the tables: a flush that does not see the note came before this CPU can read
 * them. */
static void run_next(struct process *p)
{
    const unsigned cpu = MM_CPU_ID();
    current[cpu] = p;
    mm_store(&loaded[cpu], p != NULL ? (uintptr_t)&p->space->pt : 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    arch_load_root(p != NULL ? mm_pagetable_root(&p->space->pt) : mm_pagetable_root(&kmm.kernel));
}

bool kernel_concerns(unsigned cpu, const struct mm_pagetable_flush *flush)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* after the change of the table */
    return mm_load(&loaded[cpu]) == (uintptr_t)flush->pt ||
           mm_pagetable_root(flush->pt) == mm_pagetable_root(&kmm.kernel);
}

void process_run(struct process *p)
{
    struct process *before = current[MM_CPU_ID()];
    run_next(p);
    arch_enter_user(&p->frame);
    run_next(before);
}

void process_destroy(struct process *p)
{
    if (p->child != NULL)
        process_destroy(p->child);
    if (p->space != NULL)
        kmm_space_destroy(p->space);
    (void)kmm_free(p);
}

static int64_t sys_clone(struct process *p, struct frame *frame)
{
    struct process *child;
    if (p->child != NULL)
        return -11;
    child = kmm_alloc(sizeof *child, MM_SLAB_ZERO);
    if (child == NULL)
        return -12;
    child->space = kmm_space_clone(p->space);
    if (child->space == NULL) {
        (void)kmm_free(child);
        return -12;
    }
    child->frame = *frame;
    frame_result(&child->frame, 0);
    p->child = child;
    return 1;
}

static int64_t sys_wait(struct process *p)
{
    struct process *child = p->child;
    int64_t code;
    if (child == NULL)
        return -10;
    process_run(child);
    code = child->exited ? child->code : -1;
    p->child = NULL;
    process_destroy(child);
    return code;
}

static int64_t sys_write(struct process *p, mm_va_t text, uint64_t bytes)
{
    char part[65];
    if (bytes >= sizeof part)
        return -22;
    if (!copy_in(p->space, part, text, bytes))
        return -14;
    part[bytes] = 0;
    print("%s", part);
    return (int64_t)bytes;
}

/* No hardware has write or execute without read here. */
static unsigned readable(unsigned prot)
{
    return prot != 0 ? prot | PROT_R : 0;
}

static int64_t sys_mmap(struct process *p, mm_va_t hint, uint64_t bytes, unsigned prot,
                        unsigned flags)
{
    const struct mm_vma_request request = {.hint = hint,
                                           .bytes = bytes,
                                           .prot = readable(prot),
                                           .flags = flags,
                                           .file = (flags & MAP_ANON_) != 0 ? NULL : &disk_file};
    mm_va_t va = 0;
    int error = kmm_mmap(p->space, &request, &va);
    return error != 0 ? error : (int64_t)va;
}

static int64_t call(struct process *p, struct frame *frame)
{
    const uint64_t a = frame_argument(frame, 0), b = frame_argument(frame, 1),
                   c = frame_argument(frame, 2), d = frame_argument(frame, 3);
    switch (frame_call(frame)) {
    case SYS_EXIT:
        p->exited = true;
        p->code = (int)a;
        arch_leave_user();
    case SYS_WRITE:
        return sys_write(p, a, b);
    case SYS_MMAP:
        return sys_mmap(p, a, b, (unsigned)c, (unsigned)d);
    case SYS_MUNMAP:
        return kmm_region_free(p->space, a, b);
    case SYS_MPROTECT:
        return kmm_region_protect(p->space, a, b, readable((unsigned)c));
    case SYS_BRK:
        return (int64_t)mm_vma_brk(&p->space->vma, a);
    case SYS_CLONE:
        return sys_clone(p, frame);
    case SYS_WAIT:
        return sys_wait(p);
    default:
        return -38;
    }
}

void kernel_syscall(struct frame *frame)
{
    frame_result(frame, (uint64_t)call(current[MM_CPU_ID()], frame));
}

static _Noreturn void process_kill(struct process *p, enum mm_vma_fault fault, mm_va_t va)
{
    p->fault = fault;
    p->va = va;
    arch_leave_user();
}

void kernel_page_fault(struct frame *frame, mm_va_t va, unsigned access, bool user)
{
    const unsigned cpu = MM_CPU_ID();
    enum mm_vma_fault fault;
    if (user) {
        fault = kmm_fault(current[cpu]->space, va, access);
        if (fault != MM_VMA_FAULT_OK)
            process_kill(current[cpu], fault, va);
    } else if (trying[cpu]) {
        frame_return(frame, 1);
    } else {
        print("kernel: access %u to %x\n", (uint64_t)access, va);
        panic("page fault in the kernel", frame_pc(frame));
    }
}

void kernel_trap(struct frame *frame, uint64_t cause, bool user)
{
    if (user)
        process_kill(current[MM_CPU_ID()], MM_VMA_FAULT_OK, frame_pc(frame));
    print("kernel: trap %u\n", cause);
    panic("trap in the kernel", frame_pc(frame));
}

/* ---- CPUs ------------------------------------------------------------------------------------ */

static unsigned cpus = 1;
static void (*job)(unsigned cpu);
static uintptr_t job_number, job_done;

void on_all_cpus(void (*f)(unsigned cpu))
{
    job = f;
    mm_store(&job_done, 0);
    (void)mm_fetch_add(&job_number, 1);
    arch_wake();
    f(MM_CPU_ID());
    while (mm_load_acquire(&job_done) != cpus - 1)
        MM_CPU_RELAX();
}

void kernel_cpu(void)
{
    uintptr_t seen = 0;
    for (;;) {
        arch_wait(&job_number, seen);
        seen++;
        job(MM_CPU_ID());
        (void)mm_fetch_add(&job_done, 1);
    }
}

unsigned kernel_cpus(void)
{
    return cpus;
}

/* Interrupts use the memory manager too. */
void kernel_tick(void)
{
    void *p = kmm_alloc(100, MM_SLAB_NOWAIT);
    if (p != NULL)
        (void)kmm_free(p);
}

/* ---- Start ----------------------------------------------------------------------------------- */

static void print_map(const struct kmm_config *config)
{
    static const char *const types[] = {"usable",   "boot loader", "ACPI tables", "kernel",
                                        "ACPI NVS", "device",      "reserved",    "bad"};
    print("memory map:\n");
    for (size_t i = 0; i < config->map_count; i++)
        print("  %x + %x %s\n", config->map[i].base, config->map[i].size,
              types[config->map[i].type]);
}

/* Of programs' spaces; the stack lies at STACK_TOP. */
static void lay_out(struct mm_vma_config *layout)
{
    mm_vma_config_init(layout);
    layout->low = layout->up_base = 0x10000;
    layout->top = (mm_va_t)1 << 37;
    layout->mmap_base = layout->top / 4 * 3;
    layout->guard_pages = 16;
    layout->limits.stack = (uint64_t)1 << 20;
}

static void print_memory(void)
{
    kmm_summary();
    print("  swap: %u of %u pages, %u read back\n", disk.used, disk.slots, disk.reads);
}

void kernel_main(struct kmm_config *config)
{
    static unsigned char content[5 * MM_PAGE_SIZE];
    enum mm_status status;
    unsigned failed;
    print("mm example kernel, %s tables\n", config->format->name);
    print_map(config);
    lay_out(&config->layout);
    config->pager = pager;
    config->flush = arch_flush;
    config->clock = arch_clock;
    config->print = print;
    status = kmm_init(config);
    if (status != MM_OK)
        panic(mm_status_name(status), 0);
    arch_load_root(mm_pagetable_root(&kmm.kernel));
    for (unsigned i = 0; i < 5; i++)
        content[i * MM_PAGE_SIZE] = (unsigned char)(i + 1);
    if (file_open(&image_file, "programs", user_image, (uint64_t)(user_image_end - user_image)) !=
            MM_OK ||
        file_open(&disk_file, "disk", content, sizeof content) != MM_OK ||
        disk_init((uint64_t)8 << 20) != MM_OK)
        panic("no memory for files and swap", 0);
    print_memory();
    cpus = arch_start_cpus();
    print("%u CPUs\n", (uint64_t)cpus);
    failed = demo_run();
    print_memory();
    print("%s\n", failed == 0 ? "ALL PASSED" : "SOME FAILED");
    arch_exit(failed == 0);
}
