/* main.c - runs a guest on /dev/kvm whose memory the headers manage, a step a line
 *
 *     cc -I../.. main.c vmm.c guest.S && ./a.out [/dev/kvm]
 *
 * Each step prints PASS or FAIL. Exit status 0: all passed; 1: not so; 77: no KVM here. */
#include "vmm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define HEAP_PAGES 1500u /* more than VMM_RAM has */
#define KEPT_FROM  900u  /* the guest gives all of them up but these: some in memory that was */
#define KEPT_PAGES 400u  /* there from the start, some in the module */
#define HEAP(page) (GUEST_HEAP + (uint64_t)(page)*PAGE)

static struct vmm vm;
static unsigned failed;

static bool step(const char *name, bool passed)
{
    printf("%s  %s\n", passed ? "PASS" : "FAIL", name);
    fflush(stdout);
    failed += !passed;
    return passed;
}

static void line(void *ctx, const char *text, size_t length)
{
    (void)ctx;
    printf("      %.*s\n", (int)length, text);
}

static void too_long(int signal)
{
    static const char text[] = "FAIL  still running after 30 s of processor time\n";
    (void)signal;
    _exit(write(STDOUT_FILENO, text, sizeof text - 1) >= 0 ? 1 : 2);
}

static bool does(uint64_t command, uint64_t va, uint64_t count, uint64_t value, uint32_t expected)
{
    uint32_t result;
    return vmm_command(&vm, command, va, count, value, &result) && result == expected;
}

/* What GUEST_SUM says of `count` pages that GUEST_FILL left with `first` and so on. */
static uint32_t sum_of(uint32_t first, uint32_t count)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += first + i;
    return sum;
}

static uint64_t used_bytes(void)
{
    struct mm_buddy_stats stats;
    mm_buddy_get_stats(&vm.frames, &stats);
    return stats.used;
}

static unsigned slots_used(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < VMM_SLOTS; i++)
        count += vm.slots[i].bytes != 0;
    return count;
}

/* ---- The steps ------------------------------------------------------------------------------- */

/* Thousands of blocks come and go, and no page of guest memory becomes resident for it. */
static void step_metadata(void)
{
    const uint64_t before = vmm_resident(&vm, 0, VMM_RAM), used = used_bytes();
    static mm_pa_t held[256];
    uint32_t random = 1;
    bool ok = true;

    for (unsigned i = 0; i < 256; i++)
        held[i] = MM_PA_NONE;
    for (unsigned i = 0; i < 20000; i++) {
        mm_pa_t *at;
        random = random * 1664525u + 1013904223u;
        at = &held[random >> 24];
        if (*at == MM_PA_NONE)
            *at = mm_buddy_alloc(&vm.frames, random >> 20 & 3, MM_BUDDY_MOVABLE);
        else {
            ok = mm_buddy_free(&vm.frames, *at) == MM_OK && ok;
            *at = MM_PA_NONE;
        }
    }
    for (unsigned i = 0; i < 256; i++)
        ok = (held[i] == MM_PA_NONE || mm_buddy_free(&vm.frames, held[i]) == MM_OK) && ok;
    printf("      %u KiB of guest memory resident, before and after\n", (unsigned)before * 4);
    step("20,000 allocations and frees touch no guest memory",
         ok && vmm_resident(&vm, 0, VMM_RAM) == before && used_bytes() == used &&
             mm_buddy_check(&vm.frames) == MM_BUDDY_HEALTHY);
}

static void step_map(void)
{
    const struct mm_vma_request overlap = {.hint = VMM_RAM - PAGE,
                                           .bytes = 2 * PAGE,
                                           .prot = MM_VMA_READ,
                                           .flags = MM_VMA_MAP_SHARED | MM_VMA_MAP_FIXED_NOREPLACE,
                                           .file = &vm.device};
    mm_va_t va;

    mm_vma_list(&vm.map, line, NULL);
    step("the map refuses a region that overlaps memory",
         mm_vma_mmap(&vm.map, &overlap, &va) == MM_VMA_EEXIST && mm_vma_check(&vm.map) == MM_OK);
}

static void dump_line(void *ctx, const char *text)
{
    (void)ctx;
    printf("      %s\n", text);
}

static void step_tables(void)
{
    static mm_pa_t seen[64];
    struct mm_pagetable_stats stats;

    mm_pagetable_dump(&vm.tables, dump_line, NULL);
    mm_pagetable_get_stats(&vm.tables, &stats);
    step("the guest's tables are sound and lie in frames of the arena",
         mm_pagetable_check(&vm.tables, seen, 64, NULL) == MM_OK &&
             used_bytes() == stats.table_bytes + (3 + VMM_SPARES) * PAGE);
    step("a page both writable and executable is refused",
         mm_pagetable_map(&vm.tables, GUEST_HEAP, 0, PAGE,
                          MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC, 0,
                          NULL) == MM_ERR_INVALID);
}

static bool step_boot(void)
{
    uint32_t result;
    return step("the guest runs and reports", vmm_run(&vm, &result) && result == GUEST_HELLO);
}

/* Frames that the guest writes through its direct map are the bytes that the host sees. */
static void step_direct(void)
{
    mm_pa_t block = mm_buddy_alloc(&vm.frames, 5, MM_BUDDY_MOVABLE);
    bool ok = block != MM_PA_NONE && does(GUEST_FILL, GUEST_DIRECT + block, 32, 1000, 32);

    for (unsigned i = 0; ok && i < 32; i++) {
        uint64_t value;
        memcpy(&value, vm.host + block + i * PAGE, sizeof value);
        ok = value == 1000 + i;
    }
    ok = mm_buddy_free(&vm.frames, block) == MM_OK && ok;
    step("the guest writes a block of the arena through its direct map", ok);
}

static void step_demand(void)
{
    bool ok = does(GUEST_FILL, HEAP(0), 200, 7, 200);

    ok = ok && vm.seen.faults == 200 && vm.seen.paged_in == 200 && vm.seen.denied == 0;
    ok = ok && vm.seen.last_error == 2; /* a write to a page that is not present */
    step("its heap is paged in on demand, 200 faults for 200 pages", ok);
    step("and reads back as written",
         does(GUEST_SUM, HEAP(0), 200, 0, sum_of(7, 200)) && vm.seen.faults == 200);
}

static void step_violations(void)
{
    step("a write to its code faults: error code 3",
         does(GUEST_STORE, GUEST_CODE, 0, 0, GUEST_GAVE_UP) && vm.seen.last_error == 3);
    step("a call into its heap faults: error code 17",
         does(GUEST_CALL, HEAP(0), 0, 0, GUEST_GAVE_UP) && vm.seen.last_error == 17);
    step("a read of what is not mapped faults: error code 0",
         does(GUEST_LOAD, 0x1000, 0, 0, GUEST_GAVE_UP) && vm.seen.last_error == 0);
}

static void step_device(void)
{
    uint64_t before = vm.seen.mmio;

    step("a device answers, found in the map",
         does(GUEST_STORE, GUEST_DEVICE + 8, 0, 41, 1) && vm.device_value == 41 &&
             vm.seen.last_mmio == VMM_DEVICE + 8 && does(GUEST_LOAD, GUEST_DEVICE, 0, 0, 42) &&
             vm.seen.last_verdict == MM_VMA_FAULT_OK && vm.seen.mmio == before + 2);
    step("where the map has nothing, reads give ones",
         does(GUEST_LOAD, GUEST_HOLE, 0, 0, UINT32_MAX) &&
             vm.seen.last_verdict == MM_VMA_FAULT_NONE);
}

/* Write protection of guest-physical memory: the area falls in three, and so does the slot. */
static void step_protect(void)
{
    unsigned char before[64];
    bool ok;

    memcpy(before, vm.host + vm.image, sizeof before);
    ok = vmm_protect(&vm, vm.image, PAGE, MM_VMA_READ);
    mm_vma_list(&vm.map, line, NULL);
    printf("      %u slots\n", slots_used());
    ok = ok && slots_used() == (vm.image == 0 ? 2 : 3);
    ok = ok && does(GUEST_STORE, GUEST_DIRECT + vm.image, 0, 0xcccccccc, 1);
    step("a write to protected memory is caught, whatever the guest's tables say",
         ok && vm.seen.last_verdict == MM_VMA_FAULT_WRITE && vm.seen.last_mmio == vm.image &&
             memcmp(before, vm.host + vm.image, sizeof before) == 0);
    step("unprotected, it is one slot again",
         vmm_protect(&vm, vm.image, PAGE, MM_VMA_READ | MM_VMA_WRITE) && slots_used() == 1 &&
             does(GUEST_SUM, HEAP(0), 200, 0, sum_of(7, 200)));
}

/* The guest uses more than there is: the machine plugs a module in, and the guest never notices. */
static void step_plug(void)
{
    bool ok = does(GUEST_FILL, HEAP(0), HEAP_PAGES, 7, HEAP_PAGES);

    mm_vma_list(&vm.map, line, NULL);
    step("memory runs out, a module is plugged in, the guest goes on",
         ok && vm.seen.plugged == 1 && vm.module_gpa == VMM_PLUG_BASE && slots_used() == 2 &&
             vm.seen.paged_in == HEAP_PAGES);
    step("all of it reads back", does(GUEST_SUM, HEAP(0), HEAP_PAGES, 0, sum_of(7, HEAP_PAGES)));
    step("a module in use is not let go, and there is no second one",
         vmm_unplug(&vm, false) == MM_ERR_BUSY && !vmm_plug(&vm));
    step("a whole slot is protected and unprotected",
         vmm_protect(&vm, vm.module_gpa, VMM_MODULE, MM_VMA_READ) && slots_used() == 2 &&
             vmm_protect(&vm, vm.module_gpa, VMM_MODULE, MM_VMA_READ | MM_VMA_WRITE) &&
             does(GUEST_FILL, HEAP(0), HEAP_PAGES, 7, HEAP_PAGES));
}

/* ---- Dirty pages ----------------------------------------------------------------------------- */

struct harvested {
    unsigned char accessed[HEAP_PAGES], dirty[HEAP_PAGES];
};

static void harvest_leaf(void *ctx, const struct mm_pagetable_entry *entry)
{
    struct harvested *h = ctx;
    uint64_t page = (entry->va - GUEST_HEAP) / PAGE;
    h->accessed[page] = (entry->attr & MM_PAGETABLE_ACCESSED) != 0;
    h->dirty[page] = (entry->attr & MM_PAGETABLE_DIRTY) != 0;
}

static enum mm_status harvest(struct harvested *h)
{
    const uint32_t bits = MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY;

    memset(h, 0, sizeof *h);
    return mm_pagetable_harvest(&vm.tables, HEAP(0), HEAP_PAGES * PAGE, bits, bits, harvest_leaf, h,
                                NULL);
}

/* The log has no page of the heap but those written; all else in it is in use: tables that the
 * processor marked, the stack. */
static bool log_is_true(const unsigned char *dirty, const unsigned char *written, unsigned writes)
{
    for (uint64_t frame = 0; frame < VMM_FRAMES; frame++) {
        uint64_t va = vm.heap_of[frame];
        struct mm_buddy_block block;
        if (va != 0 && dirty[frame] != written[(va - GUEST_HEAP) / PAGE])
            return false;
        writes -= va != 0 && dirty[frame];
        if (dirty[frame] && (mm_buddy_find(&vm.frames, frame * PAGE, &block) != MM_OK ||
                             block.state != MM_BUDDY_STATE_ALLOCATED))
            return false;
    }
    return writes == 0;
}

/* The guest writes some pages of its heap, and reads some. */
static bool touch(unsigned char *written, unsigned char *read, unsigned *writes)
{
    bool ok = true;

    for (unsigned page = 0; ok && page < HEAP_PAGES; page += 7) {
        written[page] = page % 3 == 0;
        read[page] = 1;
        *writes += written[page];
        ok = written[page] ? does(GUEST_FILL, HEAP(page), 1, 7 + page, 1)
                           : does(GUEST_LOAD, HEAP(page), 1, 0, 7 + page);
    }
    return ok;
}

static void step_dirty(void)
{
    static unsigned char log[VMM_FRAMES], read[HEAP_PAGES], written[HEAP_PAGES];
    static struct harvested h;
    uint64_t flushes = vm.seen.flushes;
    unsigned writes = 0;
    bool ok = vmm_log(&vm, true) && vmm_harvest_log(&vm, log) && harvest(&h) == MM_OK;

    step("a harvest makes the guest forget translations", ok && vm.seen.flushes == flushes + 1);
    step("and leaves nothing dirty", harvest(&h) == MM_ERR_NOENT && vm.seen.flushes == flushes + 1);
    memset(log, 0, sizeof log);
    ok = touch(written, read, &writes) && harvest(&h) == MM_OK;
    printf("      %u pages written\n", writes);
    step("the harvest of the guest's tables has just the pages it wrote, and read",
         ok && memcmp(h.dirty, written, sizeof written) == 0 &&
             memcmp(h.accessed, read, sizeof read) == 0);
    step("KVM's dirty log agrees",
         ok && vmm_harvest_log(&vm, log) && log_is_true(log, written, writes));
    step("it goes on where a part is protected",
         vmm_protect(&vm, vm.image, PAGE, MM_VMA_READ) && vmm_harvest_log(&vm, log) &&
             vmm_protect(&vm, vm.image, PAGE, MM_VMA_READ | MM_VMA_WRITE));
    step("it is off again", vmm_log(&vm, false));
}

/* ---- Giving memory back ---------------------------------------------------------------------- */

/* Pages of guest memory that the kernel charges this process for: Rss of its mappings. */
static uint64_t rss_pages(void)
{
    unsigned long long start, end, kib, sum = 0;
    const uintptr_t host = (uintptr_t)vm.host;
    bool inside = false;
    char text[512];
    FILE *file = fopen("/proc/self/smaps", "r");

    while (file != NULL && fgets(text, sizeof text, file) != NULL) {
        if (sscanf(text, "%llx-%llx ", &start, &end) == 2)
            inside = start >= host && end <= host + VMM_SPAN;
        else if (inside && sscanf(text, "Rss: %llu kB", &kib) == 1)
            sum += kib;
    }
    if (file != NULL)
        fclose(file);
    return sum / 4;
}

/* No free page is resident. */
static bool free_is_absent(void)
{
    for (uint64_t frame = 0; frame < VMM_FRAMES; frame++) {
        struct mm_buddy_block block;
        if (mm_buddy_find(&vm.frames, frame * PAGE, &block) == MM_OK &&
            block.state == MM_BUDDY_STATE_FREE && vmm_resident(&vm, frame * PAGE, PAGE) != 0)
            return false;
    }
    return true;
}

/* The guest gives up pages of its heap; it has to forget their translations. */
static bool drop(uint64_t page, uint64_t count)
{
    uint64_t flushes = vm.seen.flushes;
    return mm_pagetable_unmap(&vm.tables, HEAP(page), count * PAGE, NULL) == MM_OK &&
           vm.seen.flushes == flushes + 1;
}

static void step_balloon(void)
{
    const uint64_t kept_end = KEPT_FROM + KEPT_PAGES;
    uint64_t rss, resident, given, gone, used;
    bool ok;

    ok = drop(0, KEPT_FROM) && drop(kept_end, HEAP_PAGES - kept_end);
    resident = vmm_resident(&vm, 0, VMM_SPAN);
    rss = rss_pages();
    given = vmm_balloon(&vm, SIZE_MAX);
    gone = resident - vmm_resident(&vm, 0, VMM_SPAN);
    printf("      %u KiB told; resident %u KiB before, %u KiB less after\n",
           (unsigned)(given >> 10), (unsigned)resident * 4, (unsigned)gone * 4);
    step("what the guest gave up goes back to the host",
         ok && gone >= HEAP_PAGES - KEPT_PAGES && given >= gone * PAGE && free_is_absent());
    step("and the host's own count agrees", rss == resident && rss - rss_pages() == gone);
    step("nothing is told twice", vmm_balloon(&vm, SIZE_MAX) == 0);
    step("what the guest kept is untouched",
         does(GUEST_SUM, HEAP(KEPT_FROM), KEPT_PAGES, 0, sum_of(7 + KEPT_FROM, KEPT_PAGES)));
    step("what it gave up comes again when touched, as zeros, and is not dirty",
         does(GUEST_SUM, HEAP(0), 16, 0, 0) &&
             mm_pagetable_harvest(&vm.tables, HEAP(0), 16 * PAGE, MM_PAGETABLE_DIRTY, 0, NULL, NULL,
                                  NULL) == MM_ERR_NOENT);
    ok = does(GUEST_FILL, HEAP(0), 16, 1, 16) && drop(0, 16);
    step("also where another use left its traces", ok && does(GUEST_SUM, HEAP(0), 16, 0, 0));
    vmm_balloon(&vm, SIZE_MAX);
    used = used_bytes();
    ok = drop(0, 16);
    step("freed again, just that is told", ok && used - used_bytes() >= 16 * PAGE &&
                                               vmm_balloon(&vm, SIZE_MAX) == used - used_bytes());
}

/* What is left in the module moves to other frames, under the guest's feet. */
static void step_unplug(void)
{
    uint64_t gpa = vm.module_gpa, moved = 0;
    enum mm_status status;

    for (uint64_t frame = gpa / PAGE; frame < (gpa + VMM_MODULE) / PAGE; frame++)
        moved += vm.heap_of[frame] != 0;
    status = vmm_unplug(&vm, true);
    printf("      %u pages moved\n", (unsigned)moved);
    mm_vma_list(&vm.map, line, NULL);
    step("the module is emptied and unplugged",
         moved != 0 && status == MM_OK && slots_used() == 1 && vm.module_gpa == 0);
    step("the guest finds all pages where it had them",
         does(GUEST_SUM, HEAP(KEPT_FROM), KEPT_PAGES, 0, sum_of(7 + KEPT_FROM, KEPT_PAGES)));
    step("the module's addresses are gone from its tables",
         does(GUEST_LOAD, GUEST_DIRECT + gpa, 0, 0, GUEST_GAVE_UP) && vm.seen.last_error == 0);
    step("it can be plugged in again",
         vmm_plug(&vm) && does(GUEST_FILL, GUEST_DIRECT + vm.module_gpa, 100, 1, 100) &&
             vmm_unplug(&vm, false) == MM_OK);
}

static void step_end(void)
{
    printf("      %u page faults, %u paged in, %u denied\n", (unsigned)vm.seen.faults,
           (unsigned)vm.seen.paged_in, (unsigned)vm.seen.denied);
    step("each fault was what mm_pagetable_predict says", vm.seen.mispredicted == 0);
    step("the guest halts", vmm_halt(&vm));
    step("no frame and no area is left behind", vmm_unmake(&vm));
}

int main(int argc, char **argv)
{
    static const struct itimerval limit = {.it_value = {.tv_sec = 30}};
    const char *device = argc > 1 ? argv[1] : "/dev/kvm", *why;
    bool missing;

    signal(SIGPROF, too_long);
    setitimer(ITIMER_PROF, &limit, NULL);
    why = vmm_make(&vm, device, &missing);
    if (why != NULL) {
        printf("%s  %s: %s\n", missing ? "SKIP" : "FAIL", device, why);
        return missing ? 77 : 1;
    }
    step_metadata();
    step_map();
    step_tables();
    if (!step_boot())
        return 1;
    step_direct();
    step_demand();
    step_violations();
    step_device();
    step_protect();
    step_plug();
    step_dirty();
    step_balloon();
    step_unplug();
    step_end();
    return failed != 0;
}
