/* vmm.h - a small virtual machine: what lies where in mm_vma.h, frames in mm_buddy.h, the guest's
 * tables in mm_pagetable.h; the processor is /dev/kvm
 *
 * Guest-physical address `gpa` of memory is the host's byte host + gpa. Not one byte of guest
 * memory holds anything of ours: the guest's tables are the guest's. */
#ifndef VMM_H
#define VMM_H

#include "guest.h"

#define MM_PAGETABLE_X86_64
#include "mm_buddy.h"
#include "mm_pagetable.h"
#include "mm_vma.h"

#include <linux/kvm.h>

#define PAGE   UINT64_C(4096)
#define MIB(n) ((uint64_t)(n) << 20)

#define VMM_SPAN      MIB(64) /* guest-physical addresses that may become memory */
#define VMM_RAM       MIB(4)  /* memory at the start, from 0 up */
#define VMM_PLUG_BASE MIB(32) /* where modules are plugged in */
#define VMM_MODULE    MIB(4)  /* bytes of a module */
#define VMM_DEVICE    UINT64_C(0xfe000000)
#define VMM_HOLE      UINT64_C(0xfd000000) /* no area: reads as ones */
#define VMM_FRAMES    (VMM_SPAN / PAGE)
#define VMM_SLOTS     16
#define VMM_SPARES    4 /* frames kept for tables */

/* What areas of the guest-physical map are made of: a "file" to mm_vma.h. */
struct region {
    const char *name;
    bool is_memory; /* else a device: accesses come to vmm_run */
};

/* A memory slot as KVM has it; bytes 0: not in use. */
struct slot {
    uint64_t gpa, bytes;
    uint32_t flags;
};

/* What the guest reads; see guest.h. */
struct mailbox {
    uint64_t command, va, count, value, flush, denied;
};

/* What the machine has seen its guest do. */
struct seen {
    uint64_t faults, mispredicted, paged_in, plugged, mmio, denied, flushes, misfreed;
    uint32_t last_error;            /* error code of the last page fault */
    uint64_t last_mmio;             /* guest-physical address */
    enum mm_vma_fault last_verdict; /* of the map, on that access */
};

struct vmm {
    int kvm, vm, cpu;
    struct kvm_run *run;
    size_t run_bytes;
    unsigned char *host;
    struct mm_buddy frames;
    void *frames_meta;
    struct mm_vma_system system;
    struct mm_vma_space map;
    struct mm_pagetable tables;
    struct slot slots[VMM_SLOTS];
    struct region ram, module, device;
    uint64_t module_gpa;        /* 0: none plugged in */
    mm_pa_t image, stack, mail; /* frames */
    mm_pa_t spares[VMM_SPARES];
    unsigned spare_count;
    volatile struct mailbox *mailbox;
    uint64_t heap_of[VMM_FRAMES]; /* guest-virtual page that a frame of the heap is mapped at */
    uint32_t device_value;
    bool logging;   /* slots keep dirty logs */
    bool flush_due; /* the guest has to forget translations */
    bool moving;    /* frames on the move are not given back */
    struct seen seen;
};

/* Makes a machine on KVM (`device`: /dev/kvm) with VMM_RAM bytes of memory, tables, and the guest
 * in it, not yet started. NULL, or why it cannot be; `missing` tells whether KVM is not there at
 * all. */
const char *vmm_make(struct vmm *v, const char *device, bool *missing);
/* Gives back everything; true if nothing had leaked. */
bool vmm_unmake(struct vmm *v);

/* Runs the guest until it reports; false if it stopped otherwise (seen on stderr). */
bool vmm_run(struct vmm *v, uint32_t *result);
/* Has the guest do one command of guest.h. */
bool vmm_command(struct vmm *v, uint64_t command, uint64_t va, uint64_t count, uint64_t value,
                 uint32_t *result);
/* Runs the guest to its HLT. */
bool vmm_halt(struct vmm *v);

/* Makes KVM's slots what the map says: one for each area of memory. */
bool vmm_sync(struct vmm *v);
/* Changes the rights of guest-physical pages. */
bool vmm_protect(struct vmm *v, uint64_t gpa, uint64_t bytes, unsigned prot);
/* Switches the dirty logs of all slots. */
bool vmm_log(struct vmm *v, bool on);
/* Adds KVM's dirty pages to a byte a frame, and clears the logs. */
bool vmm_harvest_log(struct vmm *v, unsigned char *dirty);

/* Plugs a module of memory in, where the map has room. */
bool vmm_plug(struct vmm *v);
/* Takes it out. MM_ERR_BUSY while frames of it are in use and `evacuate` is false. */
enum mm_status vmm_unplug(struct vmm *v, bool evacuate);

/* Gives up to `limit` blocks of free memory back to the host, those that it does not have yet;
 * returns their bytes. */
uint64_t vmm_balloon(struct vmm *v, size_t limit);

/* Resident pages of guest memory in the host. */
uint64_t vmm_resident(const struct vmm *v, uint64_t gpa, uint64_t bytes);

#endif
