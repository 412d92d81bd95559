/* locks.h - spinlocks with interrupts off, of what port.h has defined before: PORT_INLINE,
 * port_cpu, port_irq_save and port_irq_restore, MM_CPU_RELAX */
#define MM_CPU_ID()     port_cpu()
#define MM_CPU_STATE_T  unsigned long
#define MM_CPU_PIN(s)   ((s) = port_irq_save())
#define MM_CPU_UNPIN(s) port_irq_restore(s)

PORT_INLINE void port_lock(uintptr_t *lock)
{
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0)
        while (__atomic_load_n(lock, __ATOMIC_RELAXED) != 0)
            MM_CPU_RELAX();
}

#define MM_LOCK_T       uintptr_t
#define MM_LOCK_STATE_T unsigned long
#define MM_LOCK_INIT(l) (*(l) = 0)
#define MM_LOCK(l, s)   ((s) = port_irq_save(), port_lock(l))
#define MM_UNLOCK(l, s) (__atomic_store_n((l), 0, __ATOMIC_RELEASE), port_irq_restore(s))
