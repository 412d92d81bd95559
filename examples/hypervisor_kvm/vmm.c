/* vmm.c - see vmm.h */
#define MM_BUDDY_IMPLEMENTATION
#define MM_PAGETABLE_IMPLEMENTATION
#define MM_VMA_IMPLEMENTATION
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

extern const unsigned char guest_start[], guest_end[], guest_gdt[], guest_idt[];

#define RO    MM_PAGETABLE_READ
#define RW    (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE)
#define OWNED MM_PAGETABLE_SOFT0 /* the frame goes when the mapping goes */

/* ---- The guest-physical map: mm_vma.h, areas and nothing below them -------------------------- */

static struct mm_vma_node *node_alloc(void *ctx)
{
    (void)ctx;
    return aligned_alloc(MM_VMA_CACHE_LINE, sizeof(struct mm_vma_node));
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    free(node);
}

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    return aligned_alloc(MM_VMA_CACHE_LINE, sizeof(struct mm_vma));
}

static void area_free(void *ctx, struct mm_vma *area)
{
    (void)ctx;
    free(area);
}

static const char *region_name(void *ctx, void *file)
{
    (void)ctx;
    return ((struct region *)file)->name;
}

static bool map_make(struct vmm *v)
{
    static const struct mm_vma_hooks hooks = {.nodes = {NULL, node_alloc, node_free},
                                              .area_alloc = area_alloc,
                                              .area_free = area_free,
                                              .file_name = region_name};
    struct mm_vma_config config;

    mm_vma_config_init(&config);
    config.low = 0;
    config.top = UINT64_C(1) << 36;
    config.mmap_base = config.top;
    config.up_base = VMM_PLUG_BASE;
    config.bottom_up = true;
    return mm_vma_system_init(&v->system, &hooks) == MM_OK &&
           mm_vma_space_init(&v->map, &v->system, &config) == MM_OK;
}

/* Enters a region at *gpa, or where there is room for it if that is 0 and `anywhere`. */
static bool map_region(struct vmm *v, struct region *region, uint64_t bytes, bool anywhere,
                       uint64_t *gpa)
{
    struct mm_vma_request request = {.bytes = bytes,
                                     .prot = MM_VMA_READ | MM_VMA_WRITE,
                                     .flags = MM_VMA_MAP_SHARED,
                                     .file = region};
    request.hint = *gpa;
    if (anywhere)
        request.align = MIB(2);
    else
        request.flags |= MM_VMA_MAP_FIXED_NOREPLACE;
    return mm_vma_mmap(&v->map, &request, gpa) == MM_VMA_OK;
}

/* ---- Memory slots: what KVM knows of the map ------------------------------------------------- */

struct wanted {
    struct vmm *v;
    struct slot slots[VMM_SLOTS];
    unsigned count;
};

static bool wanted_area(void *ctx, const struct mm_vma *area)
{
    struct wanted *w = ctx;
    const struct region *region = area->file;
    struct slot *slot = &w->slots[w->count];

    if (!region->is_memory)
        return true;
    if (++w->count == VMM_SLOTS)
        return false;
    slot->gpa = mm_vma_start(area);
    slot->bytes = mm_vma_bytes(area);
    slot->flags = w->v->logging ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    if ((area->flags & MM_VMA_WRITE) == 0)
        slot->flags |= KVM_MEM_READONLY;
    return true;
}

static bool slot_set(struct vmm *v, unsigned number, const struct slot *slot)
{
    struct kvm_userspace_memory_region region = {.slot = number,
                                                 .flags = slot->flags,
                                                 .guest_phys_addr = slot->gpa,
                                                 .memory_size = slot->bytes,
                                                 .userspace_addr = (uintptr_t)v->host + slot->gpa};
    if (ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return false;
    v->slots[number] = *slot;
    return true;
}

/* Logging can be switched in place; all else about a slot cannot change. */
static bool slot_serves(const struct slot *a, const struct slot *b)
{
    return a->gpa == b->gpa && a->bytes == b->bytes &&
           (a->flags & KVM_MEM_READONLY) == (b->flags & KVM_MEM_READONLY);
}

static const struct slot *slot_wanted(const struct wanted *w, const struct slot *slot)
{
    for (unsigned i = 0; i < w->count; i++)
        if (slot_serves(&w->slots[i], slot))
            return &w->slots[i];
    return NULL;
}

static bool slot_add(struct vmm *v, const struct slot *slot)
{
    unsigned unused = VMM_SLOTS;
    for (unsigned i = VMM_SLOTS; i-- > 0;) {
        if (v->slots[i].bytes == 0)
            unused = i;
        else if (slot_serves(&v->slots[i], slot))
            return true;
    }
    return unused < VMM_SLOTS && slot_set(v, unused, slot);
}

bool vmm_sync(struct vmm *v)
{
    struct wanted w = {.v = v};

    mm_vma_walk(&v->map, 0, UINT64_C(1) << 36, wanted_area, &w);
    if (w.count == VMM_SLOTS)
        return false;
    for (unsigned i = 0; i < VMM_SLOTS; i++) { /* first what goes: slots must not overlap */
        const struct slot gone = {.gpa = v->slots[i].gpa}, *same = slot_wanted(&w, &v->slots[i]);
        if (v->slots[i].bytes == 0 || (same != NULL && same->flags == v->slots[i].flags))
            continue;
        if (!slot_set(v, i, same != NULL ? same : &gone))
            return false;
    }
    for (unsigned i = 0; i < w.count; i++)
        if (!slot_add(v, &w.slots[i]))
            return false;
    return true;
}

bool vmm_protect(struct vmm *v, uint64_t gpa, uint64_t bytes, unsigned prot)
{
    return mm_vma_mprotect(&v->map, gpa, bytes, prot) == MM_VMA_OK && vmm_sync(v);
}

bool vmm_log(struct vmm *v, bool on)
{
    v->logging = on;
    return vmm_sync(v);
}

bool vmm_harvest_log(struct vmm *v, unsigned char *dirty)
{
    static uint64_t bits[VMM_FRAMES / 64];

    for (unsigned i = 0; i < VMM_SLOTS; i++) {
        struct kvm_dirty_log log = {.slot = i, .dirty_bitmap = bits};
        if (v->slots[i].bytes == 0)
            continue;
        if (ioctl(v->vm, KVM_GET_DIRTY_LOG, &log) != 0)
            return false;
        for (uint64_t page = 0; page < v->slots[i].bytes / PAGE; page++)
            if ((bits[page / 64] >> page % 64 & 1) != 0)
                dirty[v->slots[i].gpa / PAGE + page] = 1;
    }
    return true;
}

/* ---- Frames: mm_buddy.h over guest-physical addresses ---------------------------------------- */

static void frame_zero(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    memset(((struct vmm *)ctx)->host + pa, 0, (size_t)bytes);
}

/* Moves a page of the guest's heap: content, then the guest's own table entry. The guest stands
 * still meanwhile, and forgets the old translation before its next command (see guest.S). */
static enum mm_status frame_move(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes)
{
    struct vmm *v = ctx;
    uint64_t va = v->heap_of[from / PAGE];
    struct mm_pagetable_entry entry;
    enum mm_status status;

    if (bytes != PAGE || mm_pagetable_query(&v->tables, va, &entry) != MM_OK)
        return MM_ERR_BUSY;
    memcpy(v->host + to, v->host + from, PAGE);
    v->moving = true;
    status = mm_pagetable_map(&v->tables, va, to, PAGE, entry.attr, MM_PAGETABLE_REPLACE, NULL);
    v->moving = false;
    if (status == MM_OK) {
        v->heap_of[from / PAGE] = 0;
        v->heap_of[to / PAGE] = va;
    }
    return status;
}

static bool frames_make(struct vmm *v)
{
    static struct mm_buddy_hooks hooks = {.zero = frame_zero, .migrate = frame_move};
    struct mm_buddy_config config;
    size_t bytes;

    hooks.ctx = v;
    mm_buddy_config_init(&config, 0, VMM_RAM, MM_PAGE_SHIFT, 10);
    config.span = VMM_SPAN;
    config.cpu_lists = false;
    config.hooks = &hooks;
    bytes = mm_buddy_meta_bytes(&config);
    v->frames_meta = malloc(bytes);
    return v->frames_meta != NULL &&
           mm_buddy_init(&v->frames, &config, v->frames_meta, bytes) == MM_OK &&
           mm_buddy_report_enable(&v->frames, 0) == MM_OK;
}

struct told {
    struct vmm *v;
    uint64_t bytes;
};

static enum mm_status balloon_block(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    struct told *told = ctx;
    if (madvise(told->v->host + pa, (size_t)bytes, MADV_DONTNEED) != 0)
        return MM_ERR_BUSY;
    told->bytes += bytes;
    return MM_OK;
}

uint64_t vmm_balloon(struct vmm *v, size_t limit)
{
    struct told told = {v, 0};
    mm_buddy_report(&v->frames, limit, balloon_block, &told);
    return told.bytes;
}

uint64_t vmm_resident(const struct vmm *v, uint64_t gpa, uint64_t bytes)
{
    static unsigned char present[VMM_FRAMES];
    uint64_t count = 0;

    if (mincore(v->host + gpa, (size_t)bytes, present) != 0)
        return UINT64_MAX;
    for (uint64_t i = 0; i < bytes / PAGE; i++)
        count += present[i] & 1u;
    return count;
}

/* ---- The guest's tables: mm_pagetable.h, written into guest frames --------------------------- */

/* Tables stay where they are, so that they cannot lie in a module. When all other memory is in use,
 * they come from frames that were kept for this. */
static mm_pa_t table_alloc(void *ctx, uint64_t bytes)
{
    struct vmm *v = ctx;
    mm_pa_t pa = mm_buddy_alloc_bytes(&v->frames, bytes, MM_BUDDY_UNMOVABLE);

    if (pa == MM_PA_NONE && v->spare_count != 0)
        pa = v->spares[--v->spare_count];
    return pa;
}

static void table_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    struct vmm *v = ctx;

    (void)bytes;
    if (v->spare_count < VMM_SPARES)
        v->spares[v->spare_count++] = table;
    else
        mm_buddy_free(&v->frames, table);
}

static void table_flush(void *ctx, const struct mm_pagetable_flush *flush)
{
    struct vmm *v = ctx;

    (void)flush; /* the guest reloads CR3, which is enough for every range */
    v->flush_due = true;
    v->seen.flushes++;
}

static void table_release(void *ctx, const struct mm_pagetable_extent *extent)
{
    struct vmm *v = ctx;

    if ((extent->attr & OWNED) == 0 || v->moving)
        return;
    for (mm_pa_t pa = extent->pa; pa < extent->pa + extent->bytes; pa += PAGE) {
        v->heap_of[pa / PAGE] = 0;
        v->seen.misfreed += mm_buddy_free(&v->frames, pa) != MM_OK;
    }
}

static bool tables_make(struct vmm *v)
{
    static struct mm_pagetable_hooks hooks = {
        .alloc = table_alloc, .free = table_free, .flush = table_flush, .release = table_release};
    struct mm_pagetable_config config;

    hooks.ctx = v;
    if (mm_pagetable_config_init(&config, NULL, &hooks, (uintptr_t)v->host) != MM_OK)
        return false;
    while (v->spare_count < VMM_SPARES)
        v->spares[v->spare_count++] = mm_buddy_alloc(&v->frames, 0, MM_BUDDY_UNMOVABLE);
    config.flags &= ~MM_PAGETABLE_PRESET_AD; /* accessed and dirty are the processor's to set */
    config.flags |= MM_PAGETABLE_W_XOR_X;
    return mm_pagetable_init(&v->tables, &config) == MM_OK;
}

static bool tables_map(struct vmm *v, uint64_t va, uint64_t gpa, uint64_t bytes, uint32_t attr)
{
    return mm_pagetable_map(&v->tables, va, gpa, bytes, attr, 0, NULL) == MM_OK;
}

/* ---- Memory modules -------------------------------------------------------------------------- */

static bool host_commit(struct vmm *v, uint64_t gpa, uint64_t bytes)
{
    return mprotect(v->host + gpa, (size_t)bytes, PROT_READ | PROT_WRITE) == 0;
}

/* Back to addresses without memory: whatever touches them now is caught. */
static bool host_decommit(struct vmm *v, uint64_t gpa, uint64_t bytes)
{
    return mmap(v->host + gpa, (size_t)bytes, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

bool vmm_plug(struct vmm *v)
{
    uint64_t gpa = 0;

    if (v->module_gpa != 0 || !map_region(v, &v->module, VMM_MODULE, true, &gpa))
        return false;
    if (gpa + VMM_MODULE > VMM_SPAN || !host_commit(v, gpa, VMM_MODULE) || !vmm_sync(v) ||
        mm_buddy_grow(&v->frames, gpa, VMM_MODULE) != MM_OK)
        return false;
    /* only what can be moved away again goes there */
    mm_buddy_set_type(&v->frames, gpa, VMM_MODULE, MM_BUDDY_CMA);
    v->module_gpa = gpa;
    v->seen.plugged++;
    return tables_map(v, GUEST_DIRECT + gpa, gpa, VMM_MODULE, RW);
}

enum mm_status vmm_unplug(struct vmm *v, bool evacuate)
{
    uint64_t gpa = v->module_gpa;
    enum mm_status status;

    if (gpa == 0)
        return MM_ERR_NOENT;
    if (evacuate) {
        status = mm_buddy_alloc_range(&v->frames, gpa, VMM_MODULE, 0);
        if (status != MM_OK)
            return status;
        mm_buddy_free(&v->frames, gpa);
    }
    status = mm_buddy_shrink(&v->frames, gpa, VMM_MODULE);
    if (status != MM_OK)
        return status;
    v->module_gpa = 0;
    if (mm_pagetable_unmap(&v->tables, GUEST_DIRECT + gpa, VMM_MODULE, NULL) != MM_OK ||
        mm_vma_munmap(&v->map, gpa, VMM_MODULE) != MM_VMA_OK || !vmm_sync(v) ||
        !host_decommit(v, gpa, VMM_MODULE))
        return MM_ERR_CORRUPT;
    return MM_OK;
}

/* ---- The processor --------------------------------------------------------------------------- */

/* A page of the heap that is not there yet gets a frame; if there is none, memory is plugged in. */
static bool page_in(struct vmm *v, uint64_t va)
{
    mm_pa_t pa;

    if (va < GUEST_HEAP || va >= GUEST_HEAP + GUEST_HEAP_PAGES * PAGE)
        return false;
    pa = mm_buddy_alloc(&v->frames, 0, MM_BUDDY_MOVABLE | MM_BUDDY_ZERO);
    if (pa == MM_PA_NONE && vmm_plug(v))
        pa = mm_buddy_alloc(&v->frames, 0, MM_BUDDY_MOVABLE | MM_BUDDY_ZERO);
    if (pa == MM_PA_NONE)
        return false;
    if (!tables_map(v, va & ~(PAGE - 1), pa, PAGE, RW | OWNED)) {
        mm_buddy_free(&v->frames, pa);
        return false;
    }
    v->heap_of[pa / PAGE] = va & ~(PAGE - 1);
    v->seen.paged_in++;
    return true;
}

/* The guest's page-fault handler asks. What the processor said is held against what mm_pagetable.h
 * says that it would. */
static bool guest_faulted(struct vmm *v, uint32_t error)
{
    struct mm_pagetable_access predicted;
    struct kvm_sregs sregs;
    unsigned access = MM_PAGETABLE_CPU_WP | MM_PAGETABLE_CPU_IDENTIFIES;

    if (ioctl(v->cpu, KVM_GET_SREGS, &sregs) != 0)
        return false;
    access |= (error & 2) != 0 ? MM_PAGETABLE_ACCESS_WRITE : 0;
    access |= (error & 16) != 0 ? MM_PAGETABLE_ACCESS_FETCH : 0;
    mm_pagetable_predict(&v->tables, sregs.cr2, access, 0, &predicted);
    v->seen.mispredicted +=
        predicted.fault == MM_PAGETABLE_FAULT_NONE || predicted.error_code != error;
    v->seen.faults++;
    v->seen.last_error = error;
    v->mailbox->denied = (error & 1) != 0 || !page_in(v, sregs.cr2);
    v->seen.denied += v->mailbox->denied;
    return true;
}

/* An access that no slot serves: the map tells whether a device is there, whether it is forbidden,
 * or whether nothing is there at all. */
static void guest_accessed(struct vmm *v)
{
    uint64_t gpa = v->run->mmio.phys_addr;
    bool write = v->run->mmio.is_write != 0;
    const struct mm_vma *area = mm_vma_find(&v->map, gpa);
    uint32_t value = UINT32_MAX; /* what a bus gives that nobody drives */

    v->seen.mmio++;
    v->seen.last_mmio = gpa;
    v->seen.last_verdict = mm_vma_fault(&v->map, gpa, write ? MM_VMA_WRITE : MM_VMA_READ);
    if (v->seen.last_verdict == MM_VMA_FAULT_OK && area->file == &v->device) {
        if (write)
            memcpy(&v->device_value, v->run->mmio.data, sizeof v->device_value);
        value = v->device_value + 1;
    }
    if (!write)
        memcpy(v->run->mmio.data, &value, sizeof value);
}

bool vmm_run(struct vmm *v, uint32_t *result)
{
    uint32_t data;

    while (ioctl(v->cpu, KVM_RUN, 0) == 0 || errno == EINTR) {
        switch (v->run->exit_reason) {
        case KVM_EXIT_IO:
            memcpy(&data, (unsigned char *)v->run + v->run->io.data_offset, sizeof data);
            if (v->run->io.port == GUEST_PORT_REPORT) {
                *result = data;
                return true;
            }
            if (v->run->io.port != GUEST_PORT_FAULT || !guest_faulted(v, data))
                return false;
            break;
        case KVM_EXIT_MMIO:
            guest_accessed(v);
            break;
        case KVM_EXIT_INTR:
            break;
        case KVM_EXIT_HLT:
            *result = GUEST_HALT;
            return true;
        default:
            fprintf(stderr, "the guest stopped: exit reason %u\n", v->run->exit_reason);
            return false;
        }
    }
    perror("KVM_RUN");
    return false;
}

bool vmm_command(struct vmm *v, uint64_t command, uint64_t va, uint64_t count, uint64_t value,
                 uint32_t *result)
{
    volatile struct mailbox *mail = v->mailbox;

    mail->command = command;
    mail->va = va;
    mail->count = count;
    mail->value = value;
    mail->flush = v->flush_due;
    mail->denied = 0;
    v->flush_due = false;
    return vmm_run(v, result) && v->run->exit_reason == KVM_EXIT_IO;
}

bool vmm_halt(struct vmm *v)
{
    uint32_t result;
    v->mailbox->command = GUEST_HALT;
    return vmm_run(v, &result) && v->run->exit_reason == KVM_EXIT_HLT;
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

static const char *kvm_make(struct vmm *v, const char *device, bool *missing)
{
    int bytes;

    *missing = true;
    v->kvm = open(device, O_RDWR | O_CLOEXEC);
    if (v->kvm < 0)
        return strerror(errno);
    if (ioctl(v->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return "another version of the KVM API";
    if (ioctl(v->kvm, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) <= 0)
        return "no read-only memory slots";
    v->vm = ioctl(v->kvm, KVM_CREATE_VM, 0);
    if (v->vm < 0)
        return strerror(errno);
    *missing = false;
    ioctl(v->vm, KVM_SET_TSS_ADDR, 0xfffbd000); /* older processors of Intel want it */
    v->cpu = ioctl(v->vm, KVM_CREATE_VCPU, 0);
    bytes = ioctl(v->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (v->cpu < 0 || bytes <= 0)
        return "no virtual processor";
    v->run_bytes = (size_t)bytes;
    v->run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->cpu, 0);
    return v->run == MAP_FAILED ? "no access to the virtual processor" : NULL;
}

static bool cpu_identify(struct vmm *v)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 256 * sizeof cpuid->entries[0]);
    bool ok;

    if (cpuid == NULL)
        return false;
    cpuid->nent = 256;
    ok = ioctl(v->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0 &&
         ioctl(v->cpu, KVM_SET_CPUID2, cpuid) == 0;
    free(cpuid);
    return ok;
}

/* 64-bit mode with paging (Intel SDM vol. 3, 10.8.5, without the way there). */
static bool cpu_start(struct vmm *v)
{
    struct kvm_segment code = {
        .limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = UINT32_MAX, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = GUEST_CODE, .rsp = GUEST_STACK + PAGE, .rflags = 2};
    struct kvm_sregs sregs;

    if (ioctl(v->cpu, KVM_GET_SREGS, &sregs) != 0)
        return false;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = GUEST_CODE + (uint64_t)(guest_gdt - guest_start);
    sregs.gdt.limit = 3 * 8 - 1;
    sregs.idt.base = GUEST_CODE + (uint64_t)(guest_idt - guest_start);
    sregs.idt.limit = 15 * 16 - 1;
    sregs.cr0 = 0x80010031; /* PG, WP, NE, ET, PE */
    sregs.cr4 = 0x20;       /* PAE */
    sregs.efer = 0xd00;     /* NXE, LMA, LME */
    sregs.cr3 = mm_pagetable_root(&v->tables);
    return ioctl(v->cpu, KVM_SET_SREGS, &sregs) == 0 && ioctl(v->cpu, KVM_SET_REGS, &regs) == 0;
}

static bool guest_load(struct vmm *v)
{
    const size_t bytes = (size_t)(guest_end - guest_start);
    const uint64_t room = (bytes + PAGE - 1) & ~(PAGE - 1);
    const uint32_t device = RW | MM_PAGETABLE_TYPE(MM_PAGETABLE_UNCACHED);

    v->image = mm_buddy_alloc_exact(&v->frames, bytes, MM_BUDDY_UNMOVABLE);
    v->stack = mm_buddy_alloc(&v->frames, 0, MM_BUDDY_UNMOVABLE);
    v->mail = mm_buddy_alloc(&v->frames, 0, MM_BUDDY_UNMOVABLE);
    if (v->image == MM_PA_NONE || v->stack == MM_PA_NONE || v->mail == MM_PA_NONE)
        return false;
    memcpy(v->host + v->image, guest_start, bytes);
    v->mailbox = (volatile struct mailbox *)(void *)(v->host + v->mail);
    return tables_map(v, GUEST_DIRECT, 0, VMM_RAM, RW) &&
           tables_map(v, GUEST_CODE, v->image, room, RO | MM_PAGETABLE_EXEC) &&
           tables_map(v, GUEST_STACK, v->stack, PAGE, RW) &&
           tables_map(v, GUEST_MAILBOX, v->mail, PAGE, RO) &&
           tables_map(v, GUEST_DEVICE, VMM_DEVICE, PAGE, device) &&
           tables_map(v, GUEST_HOLE, VMM_HOLE, PAGE, device);
}

/* Addresses for all memory that there may be, memory for the first of them, and the map. */
static bool memory_make(struct vmm *v)
{
    uint64_t ram_gpa = 0, device_gpa = VMM_DEVICE;

    v->host = mmap(NULL, VMM_SPAN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (v->host == MAP_FAILED)
        return false;
    madvise(v->host, VMM_SPAN, MADV_NOHUGEPAGE); /* resident pages can be counted */
    return host_commit(v, 0, VMM_RAM) && map_make(v) &&
           map_region(v, &v->ram, VMM_RAM, false, &ram_gpa) &&
           map_region(v, &v->device, PAGE, false, &device_gpa) && vmm_sync(v);
}

const char *vmm_make(struct vmm *v, const char *device, bool *missing)
{
    const char *why;

    memset(v, 0, sizeof *v);
    v->ram = (struct region){"ram", true};
    v->module = (struct region){"module", true};
    v->device = (struct region){"device", false};
    why = kvm_make(v, device, missing);
    if (why != NULL)
        return why;
    if (!memory_make(v))
        return "no guest memory";
    if (!frames_make(v) || !tables_make(v) || !guest_load(v))
        return "no guest tables";
    return cpu_identify(v) && cpu_start(v) ? NULL : "the processor cannot be set up";
}

/* The tables, their spares, and what was mapped. */
static bool tables_unmake(struct vmm *v)
{
    bool ok = mm_pagetable_destroy(&v->tables, false) == MM_OK && v->seen.misfreed == 0;

    while (v->spare_count != 0)
        ok = mm_buddy_free(&v->frames, v->spares[--v->spare_count]) == MM_OK && ok;
    for (uint64_t frame = 0; frame < VMM_FRAMES; frame++)
        ok = ok && v->heap_of[frame] == 0;
    return ok;
}

bool vmm_unmake(struct vmm *v)
{
    struct mm_buddy_stats stats;
    bool ok = tables_unmake(v);

    ok = mm_buddy_free(&v->frames, v->image) == MM_OK && ok;
    ok = mm_buddy_free(&v->frames, v->stack) == MM_OK && ok;
    ok = mm_buddy_free(&v->frames, v->mail) == MM_OK && ok;
    ok = mm_buddy_check(&v->frames) == MM_BUDDY_HEALTHY && ok;
    mm_buddy_get_stats(&v->frames, &stats);
    ok = stats.used == 0 && stats.free == stats.total && ok;
    ok = mm_vma_check(&v->map) == MM_OK && ok;
    ok = mm_vma_leave(&v->map) && vmm_sync(v) && ok;
    mm_vma_system_fini(&v->system);
    munmap(v->run, v->run_bytes);
    close(v->cpu);
    close(v->vm);
    close(v->kvm);
    munmap(v->host, VMM_SPAN);
    free(v->frames_meta);
    return ok;
}
