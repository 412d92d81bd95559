/* kernel.h - what the two example kernels have in common, and what each architecture provides for
 * it.
 *
 * There is no scheduler: a process runs on the CPU that calls process_run, until it exits or is
 * killed; a clone runs when its parent waits for it. */
#ifndef KERNEL_H
#define KERNEL_H

#include "../kernel_mm/kernel_mm.h"
#include "copy.h"
#include "pager.h"
#include "syscall.h"

/* ---- Of the architecture (port.h has struct frame, locks and CPU numbers) -----------------------
 *
 * Traps run with interrupts off, on the kernel stack of their CPU. A CPU that waits for a lock
 * meanwhile still answers TLB shootdowns: by MM_CPU_RELAX on x86_64, through its firmware on
 * riscv64. */

void arch_putc(char c);
_Noreturn void arch_exit(bool pass); /* ends the machine: QEMU's exit status is 33 or 35 */
uint64_t arch_clock(void);
void arch_flush(const struct mm_pagetable_flush *flush);
void arch_load_root(uint64_t root); /* switches this CPU to these tables */
/* Starts the other CPUs: each calls kernel_cpu(). Returns how many CPUs run now. */
unsigned arch_start_cpus(void);
void arch_wake(void); /* all other CPUs come out of arch_wait to look again */
void arch_wait(const uintptr_t *word, uintptr_t value); /* until *word is another */
void arch_tick(bool on);   /* timer interrupts on this CPU: kernel_tick is called */
mm_pa_t arch_device(void); /* a device register that may be read by 32 bits */

/* Enters user mode with these registers, until arch_leave_user on this CPU returns from it. */
void arch_enter_user(struct frame *frame);
_Noreturn void arch_leave_user(void);
/* Copies the byte at `at` to itself; 1 if that faulted, else 0. */
int arch_try_write(volatile void *at);

/* ---- Of the common part ---------------------------------------------------------------------- */

struct process {
    struct kmm_space *space;
    struct frame frame; /* to start with */
    struct process *child;
    bool exited;
    int code;
    enum mm_vma_fault fault; /* why it was killed, if not: MM_VMA_FAULT_OK is another trap */
    mm_va_t va;              /* what it accessed, or the instruction that trapped */
};

/* A part of the kernel's image, mapped where it was linked to be. */
static inline struct mm_pagetable_run image_part(unsigned char *from, unsigned char *to,
                                                 uint32_t attr)
{
    return (struct mm_pagetable_run){.va = (uintptr_t)from,
                                     .pa = arch_image_pa((uintptr_t)from),
                                     .bytes = (uint64_t)(to - from),
                                     .attr = attr | MM_PAGETABLE_READ | MM_PAGETABLE_GLOBAL};
}

void print(const char *format, ...); /* %s, %u, %x: 64 bits, %% */
_Noreturn void panic(const char *why, uint64_t at);

/* Called by each CPU when it is up; the first one calls kernel_main with the memory map. */
_Noreturn void kernel_main(struct kmm_config *config);
_Noreturn void kernel_cpu(void);
unsigned kernel_cpus(void);
/* Runs f on every CPU, and returns when all are done. */
void on_all_cpus(void (*f)(unsigned cpu));

/* Traps. `user`: it came from user mode; `access` as kmm_fault. */
void kernel_page_fault(struct frame *frame, mm_va_t va, unsigned access, bool user);
void kernel_syscall(struct frame *frame);
void kernel_tick(void);
/* May this CPU's TLB hold what the flush is about? Changing tables empties it of programs'
 * pages. */
bool kernel_concerns(unsigned cpu, const struct mm_pagetable_flush *flush);
/* Another trap: the process is killed, or the kernel ends. */
void kernel_trap(struct frame *frame, uint64_t cause, bool user);

/* A process of the user programs' image that runs program `number`; NULL if there is no memory. */
struct process *process_create(unsigned number, uint64_t argument, uint64_t quota);
void process_run(struct process *process);
void process_destroy(struct process *process);
extern struct file disk_file;   /* what MAP_FILE maps */
extern bool trying[MM_CPU_MAX]; /* a fault in the kernel is expected on this CPU */

/* The list of demonstrations; returns how many failed. */
unsigned demo_run(void);

#endif /* KERNEL_H */
