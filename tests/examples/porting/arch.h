/* arch.h - the guide's arch.h for a machine made of threads: a CPU is a thread, an interrupt is a
 * call of port_answer() where the thread looks for one, if it has not disabled that. */
#ifndef ARCH_H
#define ARCH_H

#include <sched.h>
#include <stdint.h>

extern _Thread_local unsigned test_cpu;
extern _Thread_local uintptr_t test_irq;               /* interrupts are on */
extern _Thread_local unsigned long test_flushed_pages; /* by this CPU */
extern _Thread_local unsigned long test_flushed_all;

static inline void arch_send_ipi(uintptr_t cpus)
{
    (void)cpus;
}
static inline uintptr_t arch_irq_save(void)
{
    const uintptr_t was = test_irq;
    test_irq = 0;
    return was;
}
static inline void arch_irq_restore(uintptr_t was)
{
    test_irq = was;
}
static inline unsigned arch_cpu(void)
{
    return test_cpu;
}
static inline void arch_pause(void)
{
    sched_yield();
}
static inline void arch_flush_page(uint64_t va)
{
    (void)va;
    test_flushed_pages++;
}
static inline void arch_flush_all(void)
{
    test_flushed_all++;
}

#endif
