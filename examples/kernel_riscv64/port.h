/* port.h - riscv64: hooks of the headers, and the registers that a trap saves */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MM_PAGETABLE_SV39
#define MM_PAGETABLE_SV48

/* Hooks are used by the headers' inline functions, which have external linkage: static ones may not
 * be. */
#define PORT_INLINE extern inline __attribute__((gnu_inline, always_inline))

/* ---- CPUs, interrupts, locks ---- */

#define MM_CPU_MAX 4

struct port_cpu { /* register tp points to it while in the kernel */
    uint64_t number, hart;
    uint64_t stack; /* of the innermost user_enter */
};

PORT_INLINE struct port_cpu *port_self(void)
{
    struct port_cpu *self;
    __asm__ volatile("mv %0, tp" : "=r"(self));
    return self;
}
PORT_INLINE unsigned port_cpu(void)
{
    return (unsigned)port_self()->number;
}
PORT_INLINE unsigned long port_irq_save(void)
{
    unsigned long status;
    __asm__ volatile("csrrci %0, sstatus, 2" : "=r"(status)::"memory");
    return status & 2;
}
PORT_INLINE void port_irq_restore(unsigned long state)
{
    __asm__ volatile("csrs sstatus, %0" ::"r"(state) : "memory");
}

#define MM_CPU_RELAX() __asm__ volatile(".insn i 0x0f, 0, x0, x0, 0x010" ::: "memory") /* pause */
#include "../kernel_common/locks.h"

/* ---- Traps ---- */

struct frame {
    uint64_t x[32]; /* x[0]: pc */
    uint64_t status;
};
enum { RA = 1, SP = 2, A0 = 10, A1 = 11, A7 = 17 };

static inline void frame_start(struct frame *f, uint64_t entry, uint64_t stack, uint64_t a,
                               uint64_t b)
{
    f->x[0] = entry;
    f->x[SP] = stack;
    f->x[A0] = a;
    f->x[A1] = b;
    f->status = 0x20; /* user mode, with interrupts */
}
static inline uint64_t frame_pc(const struct frame *f)
{
    return f->x[0];
}
static inline uint64_t frame_call(const struct frame *f)
{
    return f->x[A7];
}
static inline uint64_t frame_argument(const struct frame *f, unsigned n)
{
    return f->x[A0 + n];
}
static inline void frame_result(struct frame *f, uint64_t value)
{
    f->x[A0] = value;
}
/* The function that the kernel is in, which has touched no stack yet, returns `value`. */
static inline void frame_return(struct frame *f, uint64_t value)
{
    f->x[0] = f->x[RA];
    f->x[A0] = value;
}

uint64_t arch_image_pa(uintptr_t va); /* of the kernel's image */
static inline uint64_t arch_demo_va(void)
{
    return UINT64_C(0xffffffffe0000000);
}
static inline uint64_t arch_milliseconds(unsigned n) /* in units of arch_clock */
{
    return n * UINT64_C(10000); /* QEMU's timer runs at 10 MHz */
}

/* Code of a function that returns at once. */
static inline void user_return_code(void *at)
{
    *(volatile uint32_t *)at = 0x00008067;
    __asm__ volatile("fence.i" ::: "memory");
}

#endif /* PORT_H */
