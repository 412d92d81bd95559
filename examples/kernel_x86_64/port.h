/* port.h - x86_64: hooks of the headers, and the registers that a trap saves */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "asm.h"

#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_X86_64_LA57

/* Hooks are used by the headers' inline functions, which have external linkage: static ones may not
 * be. */
#define PORT_INLINE extern inline __attribute__((gnu_inline, always_inline))

#define SEL_CODE      0x08
#define SEL_DATA      0x10
#define SEL_USER_DATA 0x1b
#define SEL_USER_CODE 0x23
#define SEL_TSS       0x28 /* + 16 for each CPU */

/* ---- CPUs, interrupts, locks ---- */

#define MM_CPU_MAX CPUS_MAX

/* The task register tells the CPU: each has a TSS. Before it is loaded this is no number below
 * MM_CPU_MAX, which the headers take for "no CPU's caches". */
PORT_INLINE unsigned port_cpu(void)
{
    uint16_t tr;
    __asm__ volatile("str %0" : "=r"(tr));
    return ((unsigned)tr - SEL_TSS) / 16u;
}

PORT_INLINE unsigned long port_irq_save(void)
{
    unsigned long flags;
    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags)::"memory");
    return flags;
}

PORT_INLINE void port_irq_restore(unsigned long flags)
{
    if ((flags & 0x200) != 0)
        __asm__ volatile("sti" ::: "memory");
}

/* Whoever waits with interrupts off must still do its part of a TLB shootdown. */
void port_poll(void);

#define MM_CPU_RELAX() (__builtin_ia32_pause(), port_poll())
#include "../kernel_common/locks.h"

/* ---- Traps ---- */

struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

static inline void frame_start(struct frame *f, uint64_t entry, uint64_t stack, uint64_t a,
                               uint64_t b)
{
    f->rip = entry;
    f->rsp = stack - 8; /* as after a call */
    f->cs = SEL_USER_CODE;
    f->ss = SEL_USER_DATA;
    f->rflags = 0x202;
    f->rdi = a;
    f->rsi = b;
}
static inline uint64_t frame_pc(const struct frame *f)
{
    return f->rip;
}
static inline uint64_t frame_call(const struct frame *f)
{
    return f->rax;
}
static inline uint64_t frame_argument(const struct frame *f, unsigned n)
{
    return n == 0 ? f->rdi : n == 1 ? f->rsi : n == 2 ? f->rdx : f->r10;
}
static inline void frame_result(struct frame *f, uint64_t value)
{
    f->rax = value;
}
/* The function that the kernel is in, which has touched no stack yet, returns `value`. */
static inline void frame_return(struct frame *f, uint64_t value)
{
    f->rip = *(uint64_t *)f->rsp;
    f->rsp += 8;
    f->rax = value;
}

uint64_t arch_image_pa(uintptr_t va); /* of the kernel's image */
static inline uint64_t arch_demo_va(void)
{
    return UINT64_C(0xfffffffff0000000) & ~((UINT64_C(1) << 21) - 1);
}
uint64_t arch_milliseconds(unsigned n); /* in units of arch_clock */

/* Code of a function that returns at once. */
static inline void user_return_code(void *at)
{
    *(volatile unsigned char *)at = 0xc3;
}

#endif /* PORT_H */
