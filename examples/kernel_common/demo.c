/* demo.c - what the example kernels show; each demonstration returns whether it went as it must */
#include "kernel.h"

#define PAGE       MM_PAGE_SIZE
#define RW         (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE)
#define DEMO_VA(n) ((mm_va_t)(demo_va + (n)*PAGE))
#define EXPECT(x)                                                        \
    do {                                                                 \
        if (!(x)) {                                                      \
            print("    not so: %s (line %u)\n", #x, (uint64_t)__LINE__); \
            return false;                                                \
        }                                                                \
    } while (0)

static mm_va_t demo_va; /* address space of the kernel's that nobody uses */

static uint64_t user_pages(void)
{
    return mm_load(&kmm.use[KMM_USER]);
}

/* Frames that nobody uses, after all gave back what they can. */
static uint64_t free_frames(void)
{
    uint64_t frames = 0;
    kmm_trim();
    for (unsigned zone = 0; zone < kmm.config.zone_count; zone++)
        frames += mm_frame_free_count(&kmm.pool, zone);
    return frames;
}

/* ---- Kernel memory --------------------------------------------------------------------------- */

static bool frames(void)
{
    enum { N = 500 };
    mm_pa_t *pa = kmm_alloc(N * sizeof *pa, 0), huge = kmm_alloc_pages(9);
    EXPECT(pa != NULL && huge != MM_PA_NONE && huge % (PAGE << 9) == 0);
    for (unsigned i = 0; i < N; i++) {
        pa[i] = kmm_alloc_pages(0);
        EXPECT(pa[i] != MM_PA_NONE && (pa[i] < huge || pa[i] >= huge + (PAGE << 9)));
        *(volatile uint64_t *)kmm_at(pa[i]) = i;
    }
    for (unsigned i = 0; i < N; i++) {
        EXPECT(*(volatile uint64_t *)kmm_at(pa[i]) == i);
        EXPECT(kmm_free_pages(pa[i], 0) == MM_OK);
    }
    EXPECT(kmm_free_pages(huge, 9) == MM_OK && kmm_free(pa) == MM_OK);
    return true;
}

static bool dma(void)
{
    const uint64_t bytes = 48 << 10, boundary = 64 << 10;
    mm_pa_t pa[8];
    for (unsigned i = 0; i < 8; i++) {
        pa[i] = kmm_alloc_dma(bytes, 1 << 13, boundary, 0);
        EXPECT(pa[i] != MM_PA_NONE && pa[i] % (1 << 13) == 0);
        EXPECT(pa[i] / boundary == (pa[i] + bytes - 1) / boundary);
        MM_MEMSET(kmm_at(pa[i]), (int)i, bytes);
    }
    for (unsigned i = 0; i < 8; i++)
        EXPECT(((unsigned char *)kmm_at(pa[i]))[bytes - 1] == i &&
               kmm_free_dma(pa[i], bytes) == MM_OK);
    return true;
}

static bool objects(void)
{
    enum { MOST = 128 };
    unsigned char *p[MOST];
    size_t size = 1;
    unsigned n, classes;
    for (classes = 0; size <= 65536;
         classes++, size++) { /* what each class has no room for is the next's */
        EXPECT(classes < MOST && (p[classes] = kmm_alloc(size, 0)) != NULL);
        EXPECT(mm_slab_ksize(&kmm.heap, p[classes]) >= size);
        size = mm_slab_ksize(&kmm.heap, p[classes]);
        MM_MEMSET(p[classes], (int)classes, size);
    }
    print("    %u classes, up to %u bytes\n", (uint64_t)classes, (uint64_t)size - 1);
    for (n = 0; n < classes; n++) {
        size = mm_slab_ksize(&kmm.heap, p[n]);
        EXPECT(p[n][0] == n && p[n][size - 1] == n && p[n][size / 2] == n);
        EXPECT((p[n] = kmm_realloc(p[n], size + 1)) != NULL && p[n][size - 1] == n);
        EXPECT(kmm_free(p[n]) == MM_OK);
    }
    return true;
}

static bool faults_to_write(volatile void *at)
{
    const unsigned cpu = MM_CPU_ID();
    int faulted;
    trying[cpu] = true;
    faulted = arch_try_write(at);
    trying[cpu] = false;
    return faulted != 0;
}

static bool faults_to_execute(void *at)
{
    const unsigned cpu = MM_CPU_ID();
    int faulted;
    user_return_code(at);
    trying[cpu] = true;
    faulted = ((int (*)(void))at)();
    trying[cpu] = false;
    return faulted == 1;
}

static bool mapping(void)
{
    mm_pa_t pa = kmm_alloc_pages(9);
    volatile unsigned char *at = (volatile unsigned char *)DEMO_VA(0);
    EXPECT(pa != MM_PA_NONE && faults_to_write(at));
    EXPECT(kmm_map(DEMO_VA(0), pa, PAGE << 9, RW) == MM_OK); /* one leaf of 2 MiB */
    at[5] = 1;
    at[(PAGE << 9) - 1] = 2;
    EXPECT(((unsigned char *)kmm_at(pa))[5] == 1 &&
           ((unsigned char *)kmm_at(pa))[(PAGE << 9) - 1] == 2);
    EXPECT(kmm_protect(DEMO_VA(3), PAGE, MM_PAGETABLE_READ) == MM_OK); /* splits it */
    EXPECT(faults_to_write(at + 3 * PAGE) && !faults_to_write(at + 4 * PAGE) && at[5] == 1);
    EXPECT(kmm_unmap(DEMO_VA(0), PAGE << 9) == MM_OK && faults_to_write(at));
    return kmm_free_pages(pa, 9) == MM_OK;
}

static bool write_xor_execute(void)
{
    mm_pa_t pa = kmm_alloc_pages(0);
    uintptr_t text = (uintptr_t)&write_xor_execute;
    kmm.debug = 0;
    EXPECT(kmm_map(DEMO_VA(0), pa, PAGE, RW | MM_PAGETABLE_EXEC) == MM_ERR_INVALID);
    kmm.debug = 1;
    EXPECT(faults_to_write((volatile void *)text));
    EXPECT(faults_to_write((volatile void *)(uintptr_t) "a constant"));
    EXPECT(faults_to_write(kmm_at(arch_image_pa(text)))); /* the other way to it */
    EXPECT(faults_to_execute(kmm_at(pa)));
    kmm_dump(NULL);
    return kmm_free_pages(pa, 0) == MM_OK;
}

static bool debug_levels(void)
{
    const uintptr_t before = kmm.reports;
    mm_pa_t pa = kmm_alloc_pages(0);
    unsigned char *at = kmm_at(pa);
    EXPECT(pa != MM_PA_NONE);
    *at = 1;
    kmm.debug = 0; /* misuse is refused and counted */
    EXPECT(kmm_free_pages(pa, 0) == MM_OK && *at == 1);
    EXPECT(kmm_free_pages(pa, 0) == MM_ERR_INVALID && kmm.reports == before + 1);
    kmm.debug = 1; /* and reported */
    EXPECT(kmm_free_pages(pa, 0) == MM_ERR_INVALID && kmm.reports == before + 2);
    kmm.debug = 2; /* and freed pages are junk */
    EXPECT((pa = kmm_alloc_pages(0)) != MM_PA_NONE);
    at = kmm_at(pa);
    *at = 1;
    EXPECT(kmm_free_pages(pa, 0) == MM_OK && *at == 0x6b && at[PAGE - 1] == 0x6b);
    kmm.debug = 3; /* and all is checked, now and then */
    EXPECT(kmm_stress(7, 5000) == 0 && kmm.reports == before + 2);
    kmm.debug = 1;
    return true;
}

static bool device(void)
{
    const mm_pa_t pa = arch_device(), skew = pa % PAGE;
    volatile uint32_t *at = (volatile uint32_t *)(DEMO_VA(0) + skew);
    EXPECT(kmm_map(DEMO_VA(0), pa - skew, PAGE, RW | MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE)) ==
           MM_OK);
    print("    register of a device, uncached: %x\n", (uint64_t)*at);
    return kmm_unmap(DEMO_VA(0), PAGE) == MM_OK;
}

/* ---- Programs -------------------------------------------------------------------------------- */

static const char *fault_name(enum mm_vma_fault fault)
{
    static const char *const names[] = {
        "ok",           "nothing mapped", "guard gap",           "not readable",
        "not writable", "not executable", "no page in the file", "no memory"};
    return names[fault];
}

/* Runs a program; true if it ended with this code. */
static bool exits(unsigned program, uint64_t argument, int code)
{
    struct process *p = process_create(program, argument, 0);
    bool good;
    if (p == NULL)
        return false;
    process_run(p);
    good = p->exited && p->code == code;
    if (!good)
        print("    exited %u code %u fault %s at %x\n", (uint64_t)p->exited, (uint64_t)p->code,
              fault_name(p->fault), p->va);
    process_destroy(p);
    return good;
}

/* True if it was killed for this reason, at an address in [low, high]; MM_VMA_FAULT_OK: no page
 * fault. */
static bool dies(unsigned program, uint64_t argument, enum mm_vma_fault fault, mm_va_t low,
                 mm_va_t high)
{
    struct process *p = process_create(program, argument, 0);
    bool good;
    if (p == NULL)
        return false;
    process_run(p);
    good = !p->exited && p->fault == fault && p->va >= low && p->va <= high;
    print("    killed: %s at %x\n",
          p->fault == MM_VMA_FAULT_OK ? "privileged instruction" : fault_name(p->fault), p->va);
    process_destroy(p);
    return good;
}

static bool demand_paging(void)
{
    struct process *p = process_create(PROGRAM_DEMAND, 50, 0);
    uint64_t before = user_pages(), pages;
    EXPECT(p != NULL);
    process_run(p);
    EXPECT(p->exited && p->code == 43);
    pages = user_pages() - before; /* 50 of heap, 40 of stack and a few more: what was touched */
    print("    %u pages came by touching them\n", pages);
    EXPECT(pages >= 92 && pages <= 100);
    kmm_dump(p->space);
    process_destroy(p);
    return user_pages() <= before;
}

static bool copy_on_write(void)
{
    struct kmm_space *parent = kmm_space_create(0), *child;
    uint64_t before = user_pages();
    unsigned char byte = 1;
    EXPECT(parent != NULL && kmm_region_alloc(parent, MM_VMA_DATA, 0x500000, 200 * PAGE, 0) == 0);
    for (unsigned i = 0; i < 200; i++)
        EXPECT(copy_out(parent, 0x500000 + i * PAGE, &byte, 1));
    EXPECT(user_pages() == before + 200);
    child = kmm_space_clone(parent);
    EXPECT(child != NULL && user_pages() == before + 200); /* all shared */
    byte = 2;
    for (unsigned i = 0; i < 5; i++)
        EXPECT(copy_out(child, 0x500000 + i * PAGE, &byte, 1));
    EXPECT(user_pages() == before + 205); /* five copies */
    EXPECT(copy_in(parent, &byte, 0x500000, 1) && byte == 1);
    kmm_space_destroy(parent);
    EXPECT(user_pages() == before + 200);
    kmm_space_destroy(child);
    EXPECT(user_pages() == before);
    return exits(PROGRAM_CLONE, 0, 0);
}

static bool file_pages(void)
{
    uintptr_t reads = disk_file.reads;
    EXPECT(exits(PROGRAM_FILE, 5 * PAGE, 0));
    EXPECT(disk_file.reads == reads + 5 && disk_file.data[0] == 1 && disk_file.data[PAGE] == 88);
    disk_file.data[PAGE] = 2;
    return true;
}

static bool mprotect_violation(void)
{
    return dies(PROGRAM_MPROTECT, 0, MM_VMA_FAULT_WRITE, 0x30000008, 0x30000008);
}
static bool no_execute(void)
{
    return dies(PROGRAM_EXECUTE, 0, MM_VMA_FAULT_EXEC, 0x30000000, 0x30000000);
}
static bool stack_guard(void)
{
    return dies(PROGRAM_OVERFLOW, 0, MM_VMA_FAULT_GUARD, 0x6fe00000, 0x70000000 - (1 << 20));
}
static bool null_pointer(void)
{
    return dies(PROGRAM_NULL, 0, MM_VMA_FAULT_NONE, 0, 0) ||
           dies(PROGRAM_NULL, 0, MM_VMA_FAULT_GUARD, 0, 0);
}
static bool kernel_memory(void)
{
    mm_pa_t pa = kmm_alloc_pages(0);
    mm_va_t va = (uintptr_t)kmm_at(pa);
    bool good = dies(PROGRAM_KERNEL, va, MM_VMA_FAULT_NONE, va, va);
    return kmm_free_pages(pa, 0) == MM_OK && good;
}
static bool privileged(void)
{
    return dies(PROGRAM_PRIVILEGED, 0, MM_VMA_FAULT_OK, 0x400000, 0x401000);
}
static bool refused_calls(void)
{
    return exits(PROGRAM_WX, 0, 0);
}

static bool reclaim(void)
{
    const uintptr_t evicted = kmm.lru.evicted, swapped_in = disk.reads;
    EXPECT(exits(PROGRAM_HOG, free_frames() + 256, 0));
    print("    %u pages went to swap, %u were read back\n", kmm.lru.evicted - evicted,
          disk.reads - swapped_in);
    return kmm.lru.evicted > evicted && disk.reads > swapped_in && disk.used == 0;
}

static bool quota(void)
{
    struct process *p = process_create(PROGRAM_HOG, 300, 100);
    EXPECT(p != NULL);
    process_run(p);
    EXPECT(p->exited ? p->code == 0 && p->space->quota.peak <= 100
                     : p->fault == MM_VMA_FAULT_NOMEM);
    print("    at most %u pages at once, %u times refused\n", (uint64_t)p->space->quota.peak,
          (uint64_t)p->space->quota.failures);
    EXPECT(p->space->quota.failures > 0);
    process_destroy(p);
    return true;
}

/* ---- Several CPUs ---------------------------------------------------------------------------- */

static uintptr_t wrong;
static uint64_t stress_ops = 300; /* while warming up */

static void stress(unsigned cpu)
{
    arch_tick(true);
    (void)mm_fetch_add(&wrong, (uintptr_t)kmm_stress(cpu + 1, stress_ops));
    arch_tick(false);
}

static bool smp_stress(void)
{
    wrong = 0;
    on_all_cpus(stress);
    return wrong == 0;
}

static void program_here(unsigned cpu)
{
    (void)cpu;
    for (unsigned i = 0; i < 5; i++)
        if (!exits(PROGRAM_CLONE, 0, 0))
            (void)mm_fetch_add(&wrong, 1);
}

static bool smp_programs(void)
{
    wrong = 0;
    on_all_cpus(program_here);
    return wrong == 0;
}

/* The last CPU runs programs that fill memory and look at it again, while this one takes their
 * pages. */
static uintptr_t enough;
static uintptr_t read_back;

static void reclaim_part(unsigned cpu)
{
    if (cpu == kernel_cpus() - 1) {
        do
            (void)mm_fetch_add(&wrong, !exits(PROGRAM_HOG, 300, 0));
        while (mm_load(&enough) == 0);
    } else if (cpu == 0) {
        do { /* until the program has read 50 of them back; it gets on in between */
            uintptr_t faults;
            (void)kmm_reclaim(16);
            faults = mm_load(&kmm.faults) + 8;
            while (mm_load(&kmm.faults) < faults)
                MM_CPU_RELAX();
        } while (mm_load(&disk.reads) < read_back);
        mm_store(&enough, 1);
    }
}

static bool smp_reclaim(void)
{
    const uintptr_t evicted = kmm.lru.evicted, swapped_in = disk.reads;
    wrong = enough = 0;
    read_back = swapped_in + 50;
    on_all_cpus(reclaim_part);
    print("    %u pages went to swap, %u were read back\n", kmm.lru.evicted - evicted,
          disk.reads - swapped_in);
    return wrong == 0 && disk.reads >= read_back && disk.used == 0;
}

/* The last CPU runs a program that reads a page for ever; this one takes the page away: the program
 * dies only if the other CPU's TLB is told. */
static struct process *spinner;
#define SPIN_VA ((mm_va_t)0x20000000)

static void shootdown_part(unsigned cpu)
{
    if (cpu == kernel_cpus() - 1) {
        process_run(spinner);
    } else if (cpu == 0) {
        while (mm_pagetable_translate(&spinner->space->pt, SPIN_VA) == MM_PA_NONE)
            MM_CPU_RELAX(); /* it has not begun */
        for (uint64_t end = arch_clock() + arch_milliseconds(20); arch_clock() < end;)
            MM_CPU_RELAX();
        (void)mm_fetch_add(&wrong, kmm_region_free(spinner->space, SPIN_VA, PAGE) != 0);
    }
}

static bool shootdown(void)
{
    bool good;
    wrong = 0;
    spinner = process_create(PROGRAM_SPIN, SPIN_VA, 0);
    EXPECT(spinner != NULL && kmm_region_alloc(spinner->space, MM_VMA_DATA, SPIN_VA, PAGE, 0) == 0);
    on_all_cpus(shootdown_part);
    good = wrong == 0 && !spinner->exited && spinner->va == SPIN_VA;
    process_destroy(spinner);
    return good;
}

/* Pages of the kernel's that are global, in every CPU's TLB, go, and others come: one, then more
 * than are named one by one. Nobody is interrupted meanwhile but by the shootdown: emulators empty
 * TLBs at many an occasion. */
enum { GLOBALS = 64 };
static mm_pa_t global_run;
static uintptr_t met;

static void meet(uintptr_t *times)
{
    (void)mm_fetch_add(&met, 1);
    for (++*times; mm_load_acquire(&met) < *times * kernel_cpus();)
        MM_CPU_RELAX();
}

static void global_part(unsigned cpu)
{
    uintptr_t times = 0;
    for (unsigned step = 0; step < 4; step++) {
        const uint64_t first = (step & 1) * GLOBALS, count = step < 2 ? 1 : GLOBALS;
        if (cpu == 0)
            (void)kmm_map(DEMO_VA(0), global_run + first * PAGE, count * PAGE,
                          RW | MM_PAGETABLE_GLOBAL);
        meet(&times);
        for (uint64_t i = 0; i < count; i++)
            (void)mm_fetch_add(&wrong, *(volatile uint64_t *)DEMO_VA(i) != first + i);
        meet(&times);
        if (cpu == 0)
            (void)mm_fetch_add(&wrong, kmm_unmap(DEMO_VA(0), count * PAGE) != MM_OK);
        meet(&times);
        for (uint64_t i = 0; i < count; i++)
            (void)mm_fetch_add(&wrong, !faults_to_write((volatile void *)DEMO_VA(i)));
        meet(&times);
    }
}

static bool global_pages(void)
{
    global_run = kmm_alloc_pages(7);
    EXPECT(global_run != MM_PA_NONE);
    for (uint64_t i = 0; i < 2 * GLOBALS; i++)
        *(uint64_t *)kmm_at(global_run + i * PAGE) = i;
    wrong = met = 0;
    on_all_cpus(global_part);
    return kmm_free_pages(global_run, 7) == MM_OK && wrong == 0;
}

/* ---- The list -------------------------------------------------------------------------------- */

struct demo {
    const char *name;
    bool (*run)(void);
    bool several; /* needs more than one CPU */
};
static const struct demo demos[] = {
    {"frames: distinct and writable", frames, false},
    {"contiguous memory for DMA: aligned, within a boundary", dma, false},
    {"kmalloc of every class, and realloc", objects, false},
    {"mapping: a 2 MiB leaf, split, protected, unmapped", mapping, false},
    {"W^X: text, constants and data of the kernel", write_xor_execute, false},
    {"device memory, uncached", device, false},
    {"debug levels: silent, reports, junk in freed pages, checks", debug_levels, false},
    {"a program demand-pages its stack and heap", demand_paging, false},
    {"clone: copy on write, by frame counts", copy_on_write, false},
    {"mmap: pages of a file through the pager", file_pages, false},
    {"mprotect: a violation is caught, with its cause", mprotect_violation, false},
    {"no execution of data", no_execute, false},
    {"the guard below a stack is hit", stack_guard, false},
    {"a null pointer", null_pointer, false},
    {"the kernel's memory is out of reach", kernel_memory, false},
    {"a privileged instruction", privileged, false},
    {"system calls refuse what is not allowed", refused_calls, false},
    {"more memory than there is: reclaim, content intact", reclaim, false},
    {"quota of a space", quota, false},
    {"stress on all CPUs, with timer interrupts", smp_stress, false},
    {"programs on all CPUs", smp_programs, false},
    {"reclaim from a program that runs on another CPU", smp_reclaim, true},
    {"TLB shootdown: a page goes while another CPU reads it", shootdown, true},
    {"TLB shootdown: global pages of the kernel go, others come", global_pages, false},
};

static void every_class(unsigned cpu)
{
    (void)cpu;
    for (size_t bytes = 8; bytes <= 8192; bytes += 8)
        (void)kmm_free(kmm_alloc(bytes, 0));
}

/* Caches come to be, and tables of what there is grow to their size: they stay. */
static void warm_up(void)
{
    enum { N = 2000 };
    void **p = kmm_alloc(N * sizeof *p, 0);
    for (unsigned i = 0; i < N && p != NULL; i++)
        p[i] = kmm_alloc(8192, 0);
    for (unsigned i = 0; i < N && p != NULL; i++)
        (void)kmm_free(p[i]);
    (void)kmm_free(p);
    on_all_cpus(every_class);
    (void)mapping();
    (void)device();
    (void)exits(PROGRAM_HOG, 1, 0);
    (void)copy_on_write();
    (void)smp_stress();
    (void)exits(PROGRAM_CLONE, 0, 0);
    stress_ops = 2000;
}

unsigned demo_run(void)
{
    const unsigned count = sizeof demos / sizeof demos[0];
    const char *what = NULL;
    uint64_t start, end;
    unsigned failed = 0;
    enum kmm_health health;
    demo_va = arch_demo_va();
    warm_up();
    start = free_frames();
    for (unsigned i = 0; i < count; i++) {
        const uint64_t began = arch_clock();
        bool pass;
        print("%u. %s\n", (uint64_t)i + 1, demos[i].name);
        if (demos[i].several && kernel_cpus() == 1) {
            print("SKIP one CPU\n");
            continue;
        }
        pass = demos[i].run();
        print("%s %s [%u ms]\n", pass ? "PASS" : "FAIL", demos[i].name,
              (arch_clock() - began) / arch_milliseconds(1));
        failed += !pass;
    }
    end = free_frames();
    health = kmm_check(&what);
    print("%u. leak check: %u frames free at the start, %u at the end; health: %s\n",
          (uint64_t)count + 1, start, end, health == KMM_HEALTHY ? "healthy" : what);
    failed += health != KMM_HEALTHY || start != end;
    print("%s leak check\n", health == KMM_HEALTHY && start == end ? "PASS" : "FAIL");
    kmm_bench();
    return failed;
}
