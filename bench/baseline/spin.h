/* spin.h - the lock around the baselines where several CPUs use them
 *
 * A test-and-test-and-set spinlock. BENCH_LOCKED(prefix) defines prefix_alloc_locked() and
 * prefix_free_locked() around prefix_alloc() and prefix_free(), in the same file, so that the lock
 * costs no second indirect call. */
#ifndef BENCH_SPIN_H
#define BENCH_SPIN_H

#include <sched.h>

struct spin {
    int held;
    char pad[124]; /* nothing else in the lock's line, nor in the one fetched with it */
};

static inline void spin_lock(struct spin *l)
{
    while (__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE) != 0) {
        int spins = 0;
        while (__atomic_load_n(&l->held, __ATOMIC_RELAXED) != 0) {
            __builtin_ia32_pause();
            if (++spins == 10000) { /* the holder may have lost its processor to another program */
                sched_yield();
                spins = 0;
            }
        }
    }
}

static inline void spin_unlock(struct spin *l)
{
    __atomic_store_n(&l->held, 0, __ATOMIC_RELEASE);
}

#define BENCH_LOCKED(prefix)                                                    \
    static struct spin prefix##_lock __attribute__((aligned(128)));             \
    static uint32_t prefix##_alloc_locked(void *self, unsigned order)           \
    {                                                                           \
        spin_lock(&prefix##_lock);                                              \
        uint32_t frame = prefix##_alloc(self, order);                           \
        spin_unlock(&prefix##_lock);                                            \
        return frame;                                                           \
    }                                                                           \
    static int prefix##_free_locked(void *self, uint32_t frame, unsigned order) \
    {                                                                           \
        spin_lock(&prefix##_lock);                                              \
        int refused = prefix##_free(self, frame, order);                        \
        spin_unlock(&prefix##_lock);                                            \
        return refused;                                                         \
    }

#endif
