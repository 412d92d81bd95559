/* mm_vma.h */
#ifndef MM_VMA_H
#define MM_VMA_H

/* mm core begin */
#ifndef MM_CORE_H
#define MM_CORE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Addresses and results --------------------------------------------------------------- */

typedef uint64_t mm_pa_t; /* physical address; 64 bits on every host, so that a 32-bit one can */
typedef uint64_t mm_va_t; /* virtual address;  serve a 64-bit guest                            */

#define MM_PA_NONE (~(mm_pa_t)0) /* "no address": never a frame's or a block's address */

#ifndef MM_PAGE_SHIFT
#define MM_PAGE_SHIFT 12 /* log2 of the size of a page in bytes */
#endif
#define MM_PAGE_SIZE ((mm_pa_t)1 << MM_PAGE_SHIFT)

/* X(name, value, errno of Linux, meaning) */
#define MM_STATUS_LIST(X)                                                                         \
    X(OK, 0, 0, "success")                                                                         \
    X(ERR_NOMEM, -1, 12, "out of memory")                                                          \
    X(ERR_INVALID, -2, 22, "invalid argument or state")                                            \
    X(ERR_PERM, -3, 13, "permission denied")                                                       \
    X(ERR_ALIGN, -4, 22, "misaligned address or size")                                             \
    X(ERR_EXISTS, -5, 17, "exists already")                                                        \
    X(ERR_NOENT, -6, 2, "no such entry")                                                           \
    X(ERR_BUSY, -7, 16, "in use")                                                                  \
    X(ERR_LIMIT, -8, 7, "limit reached")                                                           \
    X(ERR_CORRUPT, -9, 117, "structure damaged")

enum mm_status {
#define MMI_STATUS_ENUM(name, value, error, text) MM_##name = (value),
    MM_STATUS_LIST(MMI_STATUS_ENUM)
#undef MMI_STATUS_ENUM
};

/* Name of a status ("MM_ERR_NOMEM"); "MM_?" for a value that is none. O(1), no locking. */
static inline const char *mm_status_name(enum mm_status status)
{
    switch ((int)status) {
#define MMI_STATUS_CASE(name, value, error, text)                                                  \
    case (value): return "MM_" #name;
        MM_STATUS_LIST(MMI_STATUS_CASE)
#undef MMI_STATUS_CASE
    default: return "MM_?";
    }
}

/* What a system call returns for a status: 0, or a negative error number as on Linux; -EINVAL
 * for a value that is no status. O(1), no locking. */
static inline int mm_status_errno(enum mm_status status)
{
    switch ((int)status) {
#define MMI_STATUS_CASE(name, value, error, text)                                                  \
    case (value): return -(error);
        MM_STATUS_LIST(MMI_STATUS_CASE)
#undef MMI_STATUS_CASE
    default: return -22;
    }
}

/* ---- Compiler ----------------------------------------------------------------------------- */

#define MM_LIKELY(x) __builtin_expect(!!(x), 1)
#define MM_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define MM_NOINLINE __attribute__((noinline))
#define MM_COLD __attribute__((noinline, cold))

/* The small functions below are expanded where they are used, also in inline functions with external
 * linkage (C99 6.7.4), and never emitted. */
#ifdef __cplusplus
#define MM_CORE_INLINE static inline __attribute__((always_inline))
#else
#define MM_CORE_INLINE extern inline __attribute__((gnu_inline, always_inline))
#endif

#ifdef __cplusplus
#define MM_STATIC_ASSERT(x, text) static_assert(x, text)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MM_STATIC_ASSERT(x, text) _Static_assert(x, text)
#else
#define MM_STATIC_ASSERT(x, text) struct mmi_static_assert
#endif

#ifndef MM_MEMSET
#define MM_MEMSET(to, byte, size) __builtin_memset(to, byte, size)
#endif
#ifndef MM_MEMCPY
#define MM_MEMCPY(to, from, size) __builtin_memcpy(to, from, size)
#endif

/* ---- Debugging ------------------------------------------------------------------------------ */

#ifndef MM_DEBUG
#define MM_DEBUG 0 /* 0 off, 1 misuse is reported, 2 invariants asserted, 3 full checks */
#endif
#ifndef MM_ASSERT
#define MM_ASSERT(x) ((void)0)
#endif

/* What MM_REPORT(const struct mm_report *) is given: misuse or corruption that a call refused. */
struct mm_report {
    const char *where;     /* the function that refused */
    const char *what;      /* "double free", "wild free", ... */
    enum mm_status status; /* what the function returns for it */
    mm_pa_t address;       /* the address in question, or MM_PA_NONE */
    const void *object;    /* the pool, arena, heap or space */
};
#ifndef MM_REPORT
#define MM_REPORT(report) ((void)(report))
#endif

/* ---- Machine words: atomics, bits, arithmetic ---------------------------------------------- */

#if UINTPTR_MAX > 0xffffffffu
#define MM_WORD_BITS 64
#define MM_WORD_SHIFT 6
#else
#define MM_WORD_BITS 32
#define MM_WORD_SHIFT 5
#endif

/* Atomics on machine words only: 32-bit targets have no 64-bit ones. */
MM_CORE_INLINE uintptr_t mm_load(const uintptr_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
MM_CORE_INLINE uintptr_t mm_load_acquire(const uintptr_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
MM_CORE_INLINE void mm_store(uintptr_t *p, uintptr_t value)
{
    __atomic_store_n(p, value, __ATOMIC_RELAXED);
}
MM_CORE_INLINE void mm_store_release(uintptr_t *p, uintptr_t value)
{
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}
/* Sequentially consistent read-modify-writes; each returns the value before it. */
MM_CORE_INLINE bool mm_cas(uintptr_t *p, uintptr_t expected, uintptr_t desired)
{
    return __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}
MM_CORE_INLINE uintptr_t mm_exchange(uintptr_t *p, uintptr_t value)
{
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);
}
MM_CORE_INLINE uintptr_t mm_fetch_add(uintptr_t *p, uintptr_t value)
{
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
MM_CORE_INLINE uintptr_t mm_fetch_or(uintptr_t *p, uintptr_t value)
{
    return __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);
}
MM_CORE_INLINE uintptr_t mm_fetch_and(uintptr_t *p, uintptr_t value)
{
    return __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);
}
/* Adds to a counter that only this CPU changes, and that others may read meanwhile. */
MM_CORE_INLINE void mm_count(uintptr_t *counter, uintptr_t add)
{
#if defined(__x86_64__) && defined(__LP64__)
    __asm__("add{q}\t{%1, %0|%0, %1}" : "+m"(*counter) : "er"(add) : "cc"); /* one instruction */
#else
    mm_store(counter, mm_load(counter) + add);
#endif
}

#ifndef MM_CPU_RELAX
#if defined(__x86_64__) || defined(__i386__)
#define MM_CPU_RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define MM_CPU_RELAX() __asm__ __volatile__("yield" ::: "memory")
#else
#define MM_CPU_RELAX() __asm__ __volatile__("" ::: "memory")
#endif
#endif

/* Bit counting. Where the machine has no instruction for it the compiler's builtin would call a
 * library function, which a freestanding program lacks: there the portable forms are used.
 * MM_PORTABLE_BITS forces them (the tests do). Source of the forms: H. S. Warren, Hacker's
 * Delight, 5-1 and 5-4. */
MM_CORE_INLINE unsigned mm_popcount_portable(uintptr_t x)
{
    const uintptr_t ones = ~(uintptr_t)0;
    x -= (x >> 1) & (ones / 3);
    x = (x & (ones / 5)) + ((x >> 2) & (ones / 5));
    x = (x + (x >> 4)) & (ones / 17);
    return (unsigned)((x * (ones / 255)) >> (MM_WORD_BITS - 8));
}
MM_CORE_INLINE unsigned mm_ctz_portable(uintptr_t x)
{
    return mm_popcount_portable((x & (0 - x)) - 1);
}
MM_CORE_INLINE unsigned mm_fls_portable(uintptr_t x)
{
    unsigned shift;
    for (shift = 1; shift < MM_WORD_BITS; shift *= 2)
        x |= x >> shift;
    return mm_popcount_portable(x) - 1;
}

#if !defined(MM_PORTABLE_BITS) && (defined(__x86_64__) || defined(__i386__) ||                     \
                                   defined(__aarch64__) || defined(__riscv_zbb))
#if MM_WORD_BITS == 64
#define MMI_CTZ(x) ((unsigned)__builtin_ctzll(x))
#define MMI_FLS(x) (63u - (unsigned)__builtin_clzll(x))
#else
#define MMI_CTZ(x) ((unsigned)__builtin_ctz(x))
#define MMI_FLS(x) (31u - (unsigned)__builtin_clz(x))
#endif
#else
#define MMI_CTZ(x) mm_ctz_portable(x)
#define MMI_FLS(x) mm_fls_portable(x)
#endif
#if !defined(MM_PORTABLE_BITS) && (defined(__POPCNT__) || defined(__riscv_zbb))
#define MMI_POPCOUNT(x) ((unsigned)__builtin_popcountll(x))
#else
#define MMI_POPCOUNT(x) mm_popcount_portable(x)
#endif

/* Index of the lowest, and of the highest, bit set in x; x must not be 0. */
MM_CORE_INLINE unsigned mm_ctz(uintptr_t x)
{
    return MMI_CTZ(x);
}
MM_CORE_INLINE unsigned mm_fls(uintptr_t x)
{
    return MMI_FLS(x);
}
MM_CORE_INLINE unsigned mm_popcount(uintptr_t x)
{
    return MMI_POPCOUNT(x);
}
MM_CORE_INLINE uintptr_t mm_bit(unsigned n)
{
    return (uintptr_t)1 << n;
}
/* The n lowest bits set; n from 0 to MM_WORD_BITS. */
MM_CORE_INLINE uintptr_t mm_mask(unsigned n)
{
    return n >= MM_WORD_BITS ? ~(uintptr_t)0 : mm_bit(n) - 1;
}

/* Alignment; `align` is a power of two. mm_align_up wraps to 0 beyond the last multiple. */
MM_CORE_INLINE bool mm_is_pow2(uint64_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}
MM_CORE_INLINE uint64_t mm_align_down(uint64_t x, uint64_t align)
{
    return x & ~(align - 1);
}
MM_CORE_INLINE uint64_t mm_align_up(uint64_t x, uint64_t align)
{
    return (x + (align - 1)) & ~(align - 1);
}

/* Checked arithmetic: true, and *result untouched, when the true result does not fit. */
MM_CORE_INLINE bool mm_add_overflows(uint64_t a, uint64_t b, uint64_t *result)
{
    if (a > UINT64_MAX - b)
        return true;
    *result = a + b;
    return false;
}
MM_CORE_INLINE bool mm_size_mul_overflows(size_t a, size_t b, size_t *result)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return true;
    *result = product;
    return false;
}
MM_CORE_INLINE uint64_t mm_add_saturated(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* ---- Locks ----------------------------------------------------------------------------------- */

#if defined(MM_NO_LOCKS) && !defined(MM_LOCK)
#define MM_LOCK_T unsigned char
#define MM_LOCK_STATE_T unsigned char
#define MM_LOCK_INIT(l) (*(l) = 0)
#define MM_LOCK(l, s) ((void)(l), (void)((s) = 0))
#define MM_UNLOCK(l, s) ((void)(l), (void)(s))
#endif

#ifdef MM_LOCK
#if !defined(MM_LOCK_T) || !defined(MM_LOCK_STATE_T) || !defined(MM_LOCK_INIT) ||                  \
    !defined(MM_UNLOCK)
#error "define all of MM_LOCK_T, MM_LOCK_STATE_T, MM_LOCK_INIT, MM_LOCK and MM_UNLOCK, or none"
#endif
#else
/* Test-and-test-and-set spinlock: for callers that bring no lock of their own. */
#define MM_LOCK_T uintptr_t
#define MM_LOCK_STATE_T unsigned char
#define MM_LOCK_INIT(l) mm_store((l), 0)
#define MM_LOCK(l, s) ((void)((s) = 0), mmi_spin_lock(l))
#define MM_UNLOCK(l, s) ((void)(s), mm_store_release((l), 0))
static inline void mmi_spin_lock(uintptr_t *lock)
{
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0)
        while (mm_load(lock) != 0)
            MM_CPU_RELAX();
}
#endif

#ifdef MM_READ_LOCK
#if !defined(MM_RWLOCK_T) || !defined(MM_RWLOCK_INIT) || !defined(MM_READ_UNLOCK) ||               \
    !defined(MM_WRITE_LOCK) || !defined(MM_WRITE_UNLOCK)
#error "define all of MM_RWLOCK_T, _INIT, MM_READ_LOCK, _UNLOCK, MM_WRITE_LOCK, _UNLOCK, or none"
#endif
#else
#define MM_RWLOCK_T MM_LOCK_T
#define MM_RWLOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_READ_LOCK(l, s) MM_LOCK(l, s)
#define MM_READ_UNLOCK(l, s) MM_UNLOCK(l, s)
#define MM_WRITE_LOCK(l, s) MM_LOCK(l, s)
#define MM_WRITE_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif

/* ---- CPUs ------------------------------------------------------------------------------------ */

#ifndef MM_CPU_MAX
#define MM_CPU_MAX 1 /* CPUs with caches of their own */
#endif
#ifndef MM_CPU_ID
#define MM_CPU_ID() 0u /* a number from MM_CPU_MAX up: "no CPU known here", served without a cache */
#endif
#ifndef MM_CPU_STATE_T
#define MM_CPU_STATE_T unsigned char
#endif
#ifdef MM_CPU_PIN
#ifndef MM_CPU_UNPIN
#error "define both of MM_CPU_PIN and MM_CPU_UNPIN, or none"
#endif
#else
#define MM_CPU_PIN(s) ((void)((s) = 0)) /* from here no migration, no reentry by interrupt */
#define MM_CPU_UNPIN(s) ((void)(s))
#endif

#if MM_CPU_MAX > 1 && !defined(MM_NO_LOCKS)
#define MMI_SMP 1
#else
#define MMI_SMP 0
#endif

/* Biased ownership. Data that one CPU uses nearly always (its cache, its part of a bitmap) is
 * *biased* to it: that CPU enters and leaves with plain stores, and whoever else needs the data
 * takes it away at a price. It is Dekker's algorithm with the cost on the rare side (D. Dice,
 * M. Moir, W. Scherer, "Quickly reacquirable locks", 2003):
 *
 *   the biased CPU                        another CPU
 *     busy = 1                              owner: CPU -> MM_BIAS_LOCKED   (compare-and-swap)
 *     light fence                           heavy fence
 *     owner == me ?  use the data           wait while busy
 *     busy = 0                              use the data, store the next owner
 *
 * One fence must order the store before the load on both sides. MM_FENCE_CPUS(), where the
 * program has it, makes every CPU pass a full barrier (an interrupt to each CPU; membarrier(2) in
 * a Linux process), and the light fence costs nothing. Without it `busy` is set by an exchange.
 *
 * An owner word is a number that stands for a CPU (biased) or for nobody, as the header chooses, or
 * MM_BIAS_LOCKED. Rules: nobody waits for anything while `busy` is set; several owner words are
 * locked in ascending order of address. */
#define MM_BIAS_LOCKED (~(uintptr_t)0)

MM_CORE_INLINE void mm_busy_enter(uintptr_t *busy)
{
#if MMI_SMP && !defined(MM_FENCE_CPUS)
    (void)mm_exchange(busy, 1);
#elif MMI_SMP
    mm_store(busy, 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
    (void)busy;
#endif
}

MM_CORE_INLINE void mm_busy_leave(uintptr_t *busy)
{
#if MMI_SMP
    mm_store_release(busy, 0);
#else
    (void)busy;
#endif
}

/* How words that others change to keep this CPU out are loaded between mm_busy_enter and _leave. */
#if MMI_SMP && !defined(MM_FENCE_CPUS)
#define MM_BIAS_ORDER __ATOMIC_SEQ_CST
#else
#define MM_BIAS_ORDER __ATOMIC_ACQUIRE
#endif

/* Between mm_busy_enter and _leave of the CPU whose owner value is `self`: may it use the data? */
MM_CORE_INLINE bool mm_bias_mine(const uintptr_t *owner, uintptr_t self)
{
    return __atomic_load_n(owner, MM_BIAS_ORDER) == self;
}

/* Waits until the CPU whose busy word this is cannot be inside any more with what it loaded there before the
 * caller's last change. `spins` bounds the wait (0: no bound): false if it is still inside. */
static inline bool mm_bias_wait(const uintptr_t *busy, unsigned long spins)
{
#if MMI_SMP
#ifdef MM_FENCE_CPUS
    MM_FENCE_CPUS();
#endif
    while (__atomic_load_n(busy, __ATOMIC_SEQ_CST) != 0) {
        if (spins != 0 && --spins == 0)
            return false;
        MM_CPU_RELAX();
    }
#else
    (void)busy;
    (void)spins;
#endif
    return true;
}

/* One try to lock: true, and the owner before in *was, when the caller now holds the lock and no
 * CPU is inside. `busy` is the busy word of the CPU that `was` stands for, NULL if for nobody;
 * `spins` bounds the wait for it (0: no bound). On false nothing changed. */
static inline bool mm_bias_trylock(uintptr_t *owner, uintptr_t self, uintptr_t was,
                                   const uintptr_t *busy, unsigned long spins)
{
    if (was == MM_BIAS_LOCKED || !mm_cas(owner, was, MM_BIAS_LOCKED))
        return false;
    if (was == self || busy == NULL || mm_bias_wait(busy, spins))
        return true;
    mm_store_release(owner, was);
    return false;
}

MM_CORE_INLINE void mm_bias_unlock(uintptr_t *owner, uintptr_t next)
{
    mm_store_release(owner, next);
}

#endif /* MM_CORE_H */
/* mm core end */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Configuration ------------------------------------------------------------------------- */

#ifdef MM_VMA_READ_LOCK
#if !defined(MM_VMA_RWLOCK_T) || !defined(MM_VMA_RWLOCK_INIT) || !defined(MM_VMA_READ_UNLOCK) ||   \
    !defined(MM_VMA_WRITE_LOCK) || !defined(MM_VMA_WRITE_UNLOCK) ||                                \
    !defined(MM_VMA_RWLOCK_STATE_T)
#error "define all of MM_VMA_RWLOCK_T, _RWLOCK_STATE_T, _RWLOCK_INIT, _READ_LOCK, ... or none"
#endif
#else
#define MM_VMA_RWLOCK_T MM_RWLOCK_T
#define MM_VMA_RWLOCK_STATE_T MM_LOCK_STATE_T
#define MM_VMA_RWLOCK_INIT(l) MM_RWLOCK_INIT(l)
#define MM_VMA_READ_LOCK(l, s) MM_READ_LOCK(l, s)
#define MM_VMA_READ_UNLOCK(l, s) MM_READ_UNLOCK(l, s)
#define MM_VMA_WRITE_LOCK(l, s) MM_WRITE_LOCK(l, s)
#define MM_VMA_WRITE_UNLOCK(l, s) MM_WRITE_UNLOCK(l, s)
#endif

#ifdef MM_VMA_LOCK
#if !defined(MM_VMA_LOCK_T) || !defined(MM_VMA_LOCK_STATE_T) || !defined(MM_VMA_LOCK_INIT) ||      \
    !defined(MM_VMA_UNLOCK)
#error "define all of MM_VMA_LOCK_T, _LOCK_STATE_T, _LOCK_INIT, _LOCK and _UNLOCK, or none"
#endif
#else
#define MM_VMA_LOCK_T MM_LOCK_T
#define MM_VMA_LOCK_STATE_T MM_LOCK_STATE_T
#define MM_VMA_LOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_VMA_LOCK(l, s) MM_LOCK(l, s)
#define MM_VMA_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif

#ifndef MM_VMA_MEMSET
#define MM_VMA_MEMSET(to, byte, size) MM_MEMSET(to, byte, size)
#endif
#ifndef MM_VMA_ASSERT
#define MM_VMA_ASSERT(x) MM_ASSERT(x)
#endif
#ifndef MM_VMA_DEBUG
#define MM_VMA_DEBUG MM_DEBUG
#endif
#ifndef MM_VMA_REPORT
#define MM_VMA_REPORT(report) MM_REPORT(report)
#endif
#ifndef MM_VMA_FRAME_LOCKS
#define MM_VMA_FRAME_LOCKS 64 /* locks that the frames of a system share: a power of two */
#endif
#if MM_VMA_FRAME_LOCKS < 1 || (MM_VMA_FRAME_LOCKS & (MM_VMA_FRAME_LOCKS - 1)) != 0
#error "MM_VMA_FRAME_LOCKS is a power of two"
#endif
#ifndef MM_VMA_GUARD_PAGES
#define MM_VMA_GUARD_PAGES 256 /* pages kept free below a growing area, unless the space says */
#endif

#define MM_VMA_CACHE_LINE 64       /* nodes and areas start at multiples of it */
#define MM_VMA_LEAF_AREAS 31u      /* areas of a leaf */
#define MM_VMA_INNER_CHILDREN 24u  /* children of an inner node */
#define MM_VMA_LEVELS 16u          /* levels of a map at most: far more than memory can fill */

#ifdef MM_VMA_STATIC
#ifndef MM_VMA_IMPLEMENTATION
#define MM_VMA_IMPLEMENTATION /* static functions are of use only where they are defined */
#endif
#define MM_VMA_API static __attribute__((unused))
#define MM_VMA_INLINE static inline __attribute__((unused))
#else
#define MM_VMA_API
#define MM_VMA_INLINE inline /* the implementation has the external definition */
#endif

/* ---- Areas --------------------------------------------------------------------------------- */

/* Flags of an area. The lowest six stand in the map's leaves too: mm_vma_map_access reads them
 * without touching the area. */
#define MM_VMA_READ 0x1u
#define MM_VMA_WRITE 0x2u
#define MM_VMA_EXEC 0x4u
#define MM_VMA_SHARED 0x8u
#define MM_VMA_LOCKED 0x10u    /* its pages are not reclaimed */
#define MM_VMA_GROWSDOWN 0x20u /* a stack: faults below it extend it */
#define MM_VMA_MAYREAD 0x40u   /* mprotect may grant it: at MM_VMA_MAY_SHIFT above the right */
#define MM_VMA_MAYWRITE 0x80u
#define MM_VMA_MAYEXEC 0x100u
#define MM_VMA_ACCOUNT 0x200u    /* counted as committed memory: part of what must agree to merge */
#define MM_VMA_NORESERVE 0x400u  /* never accounted */
#define MM_VMA_DONTFORK 0x800u   /* fork leaves it out */
#define MM_VMA_WIPEONFORK 0x1000u
#define MM_VMA_HUGEPAGE 0x2000u
#define MM_VMA_NOHUGEPAGE 0x4000u
#define MM_VMA_SEQUENTIAL 0x8000u
#define MM_VMA_RANDOM 0x10000u
#define MM_VMA_DONTDUMP 0x20000u
#define MM_VMA_PFN 0x40000u      /* linear: page n of the area is frame `offset` + n; never merged */
#define MM_VMA_DEVICE 0x80000u   /* linear, with the device memory type */
#define MM_VMA_GLOBAL 0x100000u  /* the system's own page, in every space; calls refuse to touch it */
#define MM_VMA_USER_FLAGS 0xff000000u /* eight flags for the caller; neighbours merge if equal */

#define MM_VMA_PROT (MM_VMA_READ | MM_VMA_WRITE | MM_VMA_EXEC)
#define MM_VMA_MAY_SHIFT 6
#define MM_VMA_MAY (MM_VMA_PROT << MM_VMA_MAY_SHIFT)
#define MM_VMA_INLINE_FLAGS 0x3fu

/* One area: pages start to end - 1, alike in all respects. A kernel embeds it as the first member
 * of a struct of its own, at a multiple of 64 bytes, and hands that out by the hook `area_alloc`.
 * Readable under the space's lock; changed only by this header, but for `user`.
 *
 * A1  start < end, and no two areas of a space overlap
 * A2  anonymous private memory has offset == start until it was moved with pages in it
 * A3  `anon` is 0 until the first page of anonymous memory is there */
struct mm_vma {
    uintptr_t start;  /* first page: address >> MM_PAGE_SHIFT */
    uintptr_t end;    /* first page behind it */
    uintptr_t flags;  /* MM_VMA_READ ... */
    uintptr_t offset; /* file: page in the file; linear: first frame; anonymous: see A2 */
    void *file;       /* the caller's, or NULL: anonymous or linear */
    uintptr_t anon;   /* anonymous identity * 2, + 1 if inherited by fork; 0: none */
    struct mm_vma *link; /* used by calls in progress */
    void *user;          /* the caller's own; kept by split (both parts) and fork */
} __attribute__((aligned(MM_VMA_CACHE_LINE)));

/* First byte, byte behind the end, and bytes of an area. O(1). */
static inline mm_va_t mm_vma_start(const struct mm_vma *vma)
{
    return (mm_va_t)mm_load(&vma->start) << MM_PAGE_SHIFT;
}
static inline mm_va_t mm_vma_end(const struct mm_vma *vma)
{
    return (mm_va_t)mm_load(&vma->end) << MM_PAGE_SHIFT;
}
static inline uint64_t mm_vma_bytes(const struct mm_vma *vma)
{
    return mm_vma_end(vma) - mm_vma_start(vma);
}

/* ---- The map ------------------------------------------------------------------------------- */

/* A leaf holds areas of one 2^32-page stretch of the address space in ascending order, so that 32
 * bits tell a page. An inner node holds its children's first pages, the children, and the longest
 * gap that lies between areas below each child or right behind its last one.
 *
 *   leaf   | start 0..30, count | last 0..30, high | area 0..30, spare |     2 + 2 + 4 lines
 *   inner  | key 0..23 | child 0..23 | gap 0..23, count |                    3 + 3 + 2 lines
 *
 * M1  starts ascend; unused ones are 2^32 - 1, unused keys UINTPTR_MAX
 * M2  last[i] is the area's last page, or 2^32 - 1 if that lies beyond the leaf's stretch
 * M3  key[i] is the start of the first area below child i, exactly
 * M4  gap[i] is the longest gap behind an area below child i, up to the next area wherever that
 *     is, in pages; 2^32 - 1 stands for itself and all that is longer
 * M5  all leaves are at level 0; no node but the root of an empty map is empty
 * M6  an area word is the area's address + its lowest six flags */
struct mmi_vma_leaf {
    uint32_t start[MM_VMA_LEAF_AREAS];
    uint32_t count;
    uint32_t last[MM_VMA_LEAF_AREAS];
    uint32_t high; /* bits 32 and up of the areas' start pages */
    uintptr_t area[MM_VMA_LEAF_AREAS];
    uintptr_t spare;
};

struct mm_vma_node;

struct mmi_vma_inner {
    uintptr_t key[MM_VMA_INNER_CHILDREN];
    struct mm_vma_node *child[MM_VMA_INNER_CHILDREN];
    uint32_t gap[MM_VMA_INNER_CHILDREN];
    uint32_t count;
};

/* What the node source hands out: sizeof(struct mm_vma_node) bytes at a multiple of 64. */
struct mm_vma_node {
    union {
        struct mmi_vma_leaf leaf;
        struct mmi_vma_inner inner;
        struct mm_vma_node *next; /* in a pool */
    } u;
} __attribute__((aligned(MM_VMA_CACHE_LINE)));

/* Memory for nodes. `alloc` may fail with NULL. Where threads read without the lock, `free` must
 * leave the node readable until they are through (a grace period, or memory of a fixed type). */
struct mm_vma_node_source {
    void *ctx;
    struct mm_vma_node *(*alloc)(void *ctx);
    void (*free)(void *ctx, struct mm_vma_node *node);
};

/* An ordered map of areas. Use it by itself, or within struct mm_vma_space. Its functions take no
 * lock: one writer at a time; mm_vma_map_read beside it without any. */
struct mm_vma_map {
    struct mm_vma_node *root; /* NULL: empty */
    uintptr_t height;         /* levels above the leaves */
    uintptr_t seq;            /* odd while a writer changes the map */
    uintptr_t count;          /* areas */
    uintptr_t nodes;          /* nodes in the tree */
    uintptr_t pooled;         /* nodes in the pool */
    struct mm_vma_node *pool;
    const struct mm_vma_node_source *source;
};

/* A place in a map, for walking. Valid until the map changes, but where a function says so. */
struct mm_vma_cursor {
    struct mm_vma_map *map;
    struct mm_vma_node *node[MM_VMA_LEVELS]; /* [0] is the leaf */
    unsigned at[MM_VMA_LEVELS];
};

/* What a reader without a lock gets: a copy that was true at one instant during the call. */
struct mm_vma_view {
    mm_va_t start; /* first byte */
    mm_va_t end;   /* byte behind the last */
    uintptr_t flags;
    uint64_t offset; /* pages: in the file, or first frame */
    void *file;
    const struct mm_vma *area; /* for comparison only: it may be gone */
};

/* Makes an empty map. `source` is kept, and must outlive the map. O(1). */
MM_VMA_API void mm_vma_map_init(struct mm_vma_map *map, const struct mm_vma_node_source *source);

/* Gives all nodes back to the source; the areas are left to the caller. O(areas). */
MM_VMA_API void mm_vma_map_fini(struct mm_vma_map *map);

/* The area that covers `va`, or NULL. O(log n): one node of 8 cache lines a level. Needs the
 * caller's lock, for reading. */
MM_VMA_INLINE struct mm_vma *mm_vma_map_find(const struct mm_vma_map *map, mm_va_t va);

/* The lowest six flags (MM_VMA_READ ... MM_VMA_GROWSDOWN) of the area that covers `va`, read
 * without touching the area, or -1 where there is none. O(log n). Lock for reading. */
MM_VMA_INLINE int mm_vma_map_access(const struct mm_vma_map *map, mm_va_t va);

/* Copies what covers `va` to *view, beside a writer, without a lock. MM_OK; MM_ERR_NOENT if nothing
 * covers it; MM_ERR_BUSY if a writer was in the way: try again, or take the lock.
 * O(log n). Nodes and areas that the writer gives back must stay readable meanwhile. */
MM_VMA_API enum mm_status mm_vma_map_read(const struct mm_vma_map *map, mm_va_t va,
                                          struct mm_vma_view *view);

/* Makes sure that the next `count` inserts, wherever they go, need no memory. MM_ERR_NOMEM if the
 * source has none: what it gave so far stays in the pool, the map is as it was. O(count * log n). */
MM_VMA_API enum mm_status mm_vma_map_reserve(struct mm_vma_map *map, unsigned count);

/* Gives the pool's nodes back to the source. O(nodes in the pool). Writer. */
MM_VMA_API void mm_vma_map_trim(struct mm_vma_map *map);

/* Adds an area whose start, end and flags are set; the map never copies it.
 * MM_ERR_INVALID: not start < end, misaligned object, or beyond the addresses that a machine word's
 * page numbers reach; MM_ERR_EXISTS: it overlaps another; MM_ERR_NOMEM: no node; nothing changed.
 * O(log n). Writer. */
MM_VMA_API enum mm_status mm_vma_map_insert(struct mm_vma_map *map, struct mm_vma *vma);

/* Takes an area out. MM_ERR_NOENT if it is not in the map. O(log n). Writer. */
MM_VMA_API enum mm_status mm_vma_map_erase(struct mm_vma_map *map, struct mm_vma *vma);

/* Lowest (highest) address of `bytes` free bytes within [low, high), a multiple of `align` (a power
 * of two, 0 for any page). MM_ERR_NOENT if there is none, MM_ERR_INVALID for a bad align or 0 bytes;
 * *va is untouched then. O(log n) where align is at most a page; above that, gaps that are long enough but
 * wrongly aligned are tried one by one. Lock for reading. */
MM_VMA_API enum mm_status mm_vma_map_lowest(const struct mm_vma_map *map, mm_va_t low, mm_va_t high,
                                            uint64_t bytes, uint64_t align, mm_va_t *va);
MM_VMA_API enum mm_status mm_vma_map_highest(const struct mm_vma_map *map, mm_va_t low,
                                             mm_va_t high, uint64_t bytes, uint64_t align,
                                             mm_va_t *va);

/* Sets the cursor to the first area that ends behind `va` (0: the first of all) and returns it, or
 * NULL. O(log n); then each step O(1) amortised. Lock for reading. */
MM_VMA_API struct mm_vma *mm_vma_cursor_seek(struct mm_vma_cursor *cursor, struct mm_vma_map *map,
                                             mm_va_t va);
/* The next (previous) area, or NULL at the end; the cursor stays there then. */
MM_VMA_INLINE struct mm_vma *mm_vma_cursor_next(struct mm_vma_cursor *cursor);
MM_VMA_API struct mm_vma *mm_vma_cursor_prev(struct mm_vma_cursor *cursor);
/* The lowest six flags of the area at the cursor, without touching the area. O(1). */
MM_VMA_INLINE unsigned mm_vma_cursor_access(const struct mm_vma_cursor *cursor);

/* Makes `to`, an initialised and empty map, a copy of `from`. For each area in ascending order
 * `copy` returns the area to put into `to` (with the same start and end), NULL to leave it out, and
 * sets *failed to stop. MM_ERR_NOMEM if a node lacks or `copy` failed: `to` then holds what was copied
 * so far, for mm_vma_map_fini. O(n), without search. Lock `from` for reading. */
MM_VMA_API enum mm_status mm_vma_map_dup(struct mm_vma_map *to, struct mm_vma_map *from,
                                         struct mm_vma *(*copy)(void *ctx, struct mm_vma *area,
                                                                bool *failed),
                                         void *ctx);

/* MM_OK if M1 to M6 and A1 hold, else MM_ERR_CORRUPT. O(n). Lock for reading. */
MM_VMA_API enum mm_status mm_vma_map_check(const struct mm_vma_map *map);
/* ---- Hot paths ------------------------------------------------------------------------------- */

#define MMI_VMA_HIGH(page) ((uint32_t)((uint64_t)(page) >> 32))
#define MMI_VMA_PREFETCH(p) __builtin_prefetch(p)

/* Page numbers end here. On a 32-bit host that is 2^32 - 1 pages: 16 TiB of guest addresses. */
#if MM_WORD_BITS == 64
#define MMI_VMA_TOP ((uintptr_t)1 << (64 - MM_PAGE_SHIFT))
#define MMI_VMA_BEYOND(va) false
#else
#define MMI_VMA_TOP UINTPTR_MAX
#define MMI_VMA_BEYOND(va) ((va) >> MM_PAGE_SHIFT >= MMI_VMA_TOP)
#endif

MM_CORE_INLINE uint32_t mmi_vma_get32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

MM_CORE_INLINE struct mm_vma_node *mmi_vma_child(const struct mm_vma_node *node, unsigned i)
{
    return __atomic_load_n(&node->u.inner.child[i], __ATOMIC_RELAXED);
}

/* Five steps without a branch that depends on data: number of the leaf's starts up to `low`. */
MM_CORE_INLINE unsigned mmi_vma_leaf_rank(const struct mm_vma_node *node, uint32_t low)
{
    const uint32_t *start = node->u.leaf.start;
    unsigned i, count = mmi_vma_get32(&node->u.leaf.count);

    i = (unsigned)(mmi_vma_get32(&start[15]) <= low) << 4;
    i += (unsigned)(mmi_vma_get32(&start[i + 7]) <= low) << 3;
    i += (unsigned)(mmi_vma_get32(&start[i + 3]) <= low) << 2;
    i += (unsigned)(mmi_vma_get32(&start[i + 1]) <= low) << 1;
    i += (unsigned)(mmi_vma_get32(&start[i]) <= low);
    return i < count ? i : count; /* for low = 2^32 - 1: M1 */
}

/* The child of an inner node below which `page` belongs: the last whose key is not above it. */
MM_CORE_INLINE unsigned mmi_vma_inner_rank(const struct mm_vma_node *node, uintptr_t page)
{
    const uintptr_t *key = node->u.inner.key;
    unsigned i;

    i = mm_load(&key[11]) <= page ? 12 : 0;
    i += mm_load(&key[i + 5]) <= page ? 6 : 0;
    i += mm_load(&key[i + 2]) <= page ? 3 : 0;
    i += (unsigned)(mm_load(&key[i + 1]) <= page) << 1;
    i += (unsigned)(mm_load(&key[i]) <= page);
    return i - (unsigned)(i != 0);
}

/* Starts on the lines that a search will touch before it knows which: memory latency once a level. */
MM_CORE_INLINE void mmi_vma_fetch(const struct mm_vma_node *node)
{
    const char *line = (const char *)node;

    MMI_VMA_PREFETCH(line);
    MMI_VMA_PREFETCH(line + 64);
    MMI_VMA_PREFETCH(line + 128);
    MMI_VMA_PREFETCH(line + 192);
    MMI_VMA_PREFETCH(line + 256);
    MMI_VMA_PREFETCH(line + 320);
    MMI_VMA_PREFETCH(line + 384);
    MMI_VMA_PREFETCH(line + 448);
}

/* The area word of what covers `page`, or 0. */
MM_CORE_INLINE uintptr_t mmi_vma_word(const struct mm_vma_map *map, uintptr_t page)
{
    const struct mm_vma_node *node = map->root;
    uintptr_t level = map->height;
    const struct mm_vma *vma;
    uint32_t high = MMI_VMA_HIGH(page);
    unsigned i;

    if (MM_UNLIKELY(node == NULL))
        return 0;
    for (; level != 0; level--) {
        node = mmi_vma_child(node, mmi_vma_inner_rank(node, page));
        mmi_vma_fetch(node);
    }
    if (MM_LIKELY(node->u.leaf.high == high)) {
        i = mmi_vma_leaf_rank(node, (uint32_t)page);
        if (MM_UNLIKELY(i == 0))
            return 0;
        return node->u.leaf.last[i - 1] >= (uint32_t)page ? node->u.leaf.area[i - 1] : 0;
    }
    if (node->u.leaf.high > high)
        return 0;
    i = node->u.leaf.count - 1; /* only the last area can reach out of the leaf's stretch */
    vma = (const struct mm_vma *)(node->u.leaf.area[i] & ~(uintptr_t)MM_VMA_INLINE_FLAGS);
    return vma->end > page ? node->u.leaf.area[i] : 0;
}

MM_CORE_INLINE struct mm_vma *mmi_vma_of_word(uintptr_t word)
{
    return (struct mm_vma *)(word & ~(uintptr_t)MM_VMA_INLINE_FLAGS);
}

MM_VMA_INLINE struct mm_vma *mm_vma_map_find(const struct mm_vma_map *map, mm_va_t va)
{
    if (MMI_VMA_BEYOND(va))
        return NULL;
    return mmi_vma_of_word(mmi_vma_word(map, (uintptr_t)(va >> MM_PAGE_SHIFT)));
}

MM_VMA_INLINE int mm_vma_map_access(const struct mm_vma_map *map, mm_va_t va)
{
    uintptr_t word = MMI_VMA_BEYOND(va) ? 0 : mmi_vma_word(map, (uintptr_t)(va >> MM_PAGE_SHIFT));

    return word == 0 ? -1 : (int)(word & MM_VMA_INLINE_FLAGS);
}

MM_VMA_API struct mm_vma *mmi_vma_cursor_leaf_next(struct mm_vma_cursor *cursor);

MM_VMA_INLINE struct mm_vma *mm_vma_cursor_next(struct mm_vma_cursor *cursor)
{
    const struct mm_vma_node *leaf = cursor->node[0];

    if (MM_UNLIKELY(leaf == NULL || cursor->at[0] + 1 >= leaf->u.leaf.count))
        return mmi_vma_cursor_leaf_next(cursor);
    return mmi_vma_of_word(leaf->u.leaf.area[++cursor->at[0]]);
}

MM_VMA_INLINE unsigned mm_vma_cursor_access(const struct mm_vma_cursor *cursor)
{
    return (unsigned)(cursor->node[0]->u.leaf.area[cursor->at[0]] & MM_VMA_INLINE_FLAGS);
}

#ifdef __cplusplus
}
#endif


#endif /* MM_VMA_H */

/* ==== Implementation ============================================================================ */

#if defined(MM_VMA_IMPLEMENTATION) && !defined(MM_VMA_IMPLEMENTED)
#define MM_VMA_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(MM_VMA_STATIC) && !defined(__cplusplus)
extern inline struct mm_vma *mm_vma_map_find(const struct mm_vma_map *map, mm_va_t va);
extern inline int mm_vma_map_access(const struct mm_vma_map *map, mm_va_t va);
extern inline struct mm_vma *mm_vma_cursor_next(struct mm_vma_cursor *cursor);
extern inline unsigned mm_vma_cursor_access(const struct mm_vma_cursor *cursor);
#elif !defined(MM_VMA_STATIC)
/* C++ emits an inline function only where it is used; other languages link to these. */
typedef struct mm_vma *(*mmi_vma_emit_find_t)(const struct mm_vma_map *, mm_va_t);
typedef int (*mmi_vma_emit_access_t)(const struct mm_vma_map *, mm_va_t);
typedef struct mm_vma *(*mmi_vma_emit_next_t)(struct mm_vma_cursor *);
typedef unsigned (*mmi_vma_emit_flags_t)(const struct mm_vma_cursor *);
extern const mmi_vma_emit_find_t mmi_vma_emit_find;
extern const mmi_vma_emit_access_t mmi_vma_emit_access;
extern const mmi_vma_emit_next_t mmi_vma_emit_next;
extern const mmi_vma_emit_flags_t mmi_vma_emit_flags;
const mmi_vma_emit_find_t mmi_vma_emit_find = mm_vma_map_find;
const mmi_vma_emit_access_t mmi_vma_emit_access = mm_vma_map_access;
const mmi_vma_emit_next_t mmi_vma_emit_next = mm_vma_cursor_next;
const mmi_vma_emit_flags_t mmi_vma_emit_flags = mm_vma_cursor_access;
#endif

#define MMI_VMA_NO_START UINT32_MAX
#define MMI_VMA_MERGE_AREAS 26u   /* two leaves become one when that holds both */
#define MMI_VMA_FEW_AREAS 10u     /* when a leaf has fewer, a merge is tried */
#define MMI_VMA_MERGE_CHILDREN 18u
#define MMI_VMA_FEW_CHILDREN 8u
#define MMI_VMA_SPARE_AREAS 6u    /* a sibling with so many free slots takes over from a full leaf */

MM_STATIC_ASSERT(sizeof(struct mm_vma) <= 64, "an area fits a cache line");
MM_STATIC_ASSERT(sizeof(struct mm_vma_node) % 64 == 0, "a node is whole cache lines");
MM_STATIC_ASSERT(MM_VMA_LEAF_AREAS == 31 && MM_VMA_INNER_CHILDREN == 24,
                 "the searches know the number of keys");

/* ---- Map: what a node holds -------------------------------------------------------------------- */

/* Readers without a lock see these words: they are stored one by one, whole. */
static void mmi_vma_put32(uint32_t *p, uint32_t value)
{
    __atomic_store_n(p, value, __ATOMIC_RELAXED);
}

static void mmi_vma_put_child(struct mm_vma_node **p, struct mm_vma_node *child)
{
    __atomic_store_n(p, child, __ATOMIC_RELAXED);
}

static uintptr_t mmi_vma_page_at(uint32_t high, uint32_t low)
{
    return (uintptr_t)((uint64_t)high << 32 | low);
}

/* A length as the nodes note it (M4). */
static uint32_t mmi_vma_sat(uintptr_t pages)
{
    return pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
}

static struct mm_vma *mmi_vma_leaf_area(const struct mm_vma_node *leaf, unsigned i)
{
    return mmi_vma_of_word(leaf->u.leaf.area[i]);
}

static uintptr_t mmi_vma_leaf_start(const struct mm_vma_node *leaf, unsigned i)
{
    return mmi_vma_page_at(leaf->u.leaf.high, leaf->u.leaf.start[i]);
}

static uintptr_t mmi_vma_leaf_end(const struct mm_vma_node *leaf, unsigned i)
{
    if (MM_UNLIKELY(leaf->u.leaf.last[i] == UINT32_MAX))
        return mmi_vma_leaf_area(leaf, i)->end; /* M2 */
    return mmi_vma_page_at(leaf->u.leaf.high, leaf->u.leaf.last[i]) + 1;
}

static void mmi_vma_leaf_put_last(struct mm_vma_node *leaf, unsigned i, uintptr_t end)
{
    bool within = MMI_VMA_HIGH(end - 1) == leaf->u.leaf.high;

    mmi_vma_put32(&leaf->u.leaf.last[i], within ? (uint32_t)(end - 1) : UINT32_MAX);
}

static void mmi_vma_leaf_put(struct mm_vma_node *leaf, unsigned i, const struct mm_vma *vma)
{
    mmi_vma_put32(&leaf->u.leaf.start[i], (uint32_t)vma->start);
    mmi_vma_leaf_put_last(leaf, i, vma->end);
    mm_store(&leaf->u.leaf.area[i], (uintptr_t)vma | (vma->flags & MM_VMA_INLINE_FLAGS));
}

static void mmi_vma_leaf_move(struct mm_vma_node *to, unsigned i, const struct mm_vma_node *from,
                              unsigned j)
{
    mmi_vma_put32(&to->u.leaf.start[i], from->u.leaf.start[j]);
    mmi_vma_put32(&to->u.leaf.last[i], from->u.leaf.last[j]);
    mm_store(&to->u.leaf.area[i], from->u.leaf.area[j]);
}

/* Slots from `from` on become unused. */
static void mmi_vma_leaf_cut(struct mm_vma_node *leaf, unsigned from)
{
    unsigned i;

    for (i = from; i < leaf->u.leaf.count; i++)
        mmi_vma_put32(&leaf->u.leaf.start[i], MMI_VMA_NO_START);
    mmi_vma_put32(&leaf->u.leaf.count, from);
}

/* Opens `n` slots at i. */
static void mmi_vma_leaf_open(struct mm_vma_node *leaf, unsigned i, unsigned n)
{
    unsigned k;

    for (k = leaf->u.leaf.count; k > i; k--)
        mmi_vma_put32(&leaf->u.leaf.start[k - 1 + n], leaf->u.leaf.start[k - 1]);
    for (k = leaf->u.leaf.count; k > i; k--)
        mmi_vma_put32(&leaf->u.leaf.last[k - 1 + n], leaf->u.leaf.last[k - 1]);
    for (k = leaf->u.leaf.count; k > i; k--)
        mm_store(&leaf->u.leaf.area[k - 1 + n], leaf->u.leaf.area[k - 1]);
    mmi_vma_put32(&leaf->u.leaf.count, leaf->u.leaf.count + n);
}

/* Closes `n` slots from i on. */
static void mmi_vma_leaf_close(struct mm_vma_node *leaf, unsigned i, unsigned n)
{
    unsigned k, count = leaf->u.leaf.count - n;

    for (k = i; k < count; k++)
        mmi_vma_put32(&leaf->u.leaf.start[k], leaf->u.leaf.start[k + n]);
    for (k = i; k < count; k++)
        mmi_vma_put32(&leaf->u.leaf.last[k], leaf->u.leaf.last[k + n]);
    for (k = i; k < count; k++)
        mm_store(&leaf->u.leaf.area[k], leaf->u.leaf.area[k + n]);
    mmi_vma_leaf_cut(leaf, count);
}

static void mmi_vma_inner_put(struct mm_vma_node *node, unsigned i, uintptr_t key,
                              struct mm_vma_node *child, uint32_t gap)
{
    mm_store(&node->u.inner.key[i], key);
    mmi_vma_put_child(&node->u.inner.child[i], child);
    mmi_vma_put32(&node->u.inner.gap[i], gap);
}

static void mmi_vma_inner_move(struct mm_vma_node *to, unsigned i, const struct mm_vma_node *from,
                               unsigned j)
{
    mmi_vma_inner_put(to, i, from->u.inner.key[j], from->u.inner.child[j], from->u.inner.gap[j]);
}

static void mmi_vma_inner_cut(struct mm_vma_node *node, unsigned from)
{
    unsigned i;

    for (i = from; i < node->u.inner.count; i++)
        mm_store(&node->u.inner.key[i], UINTPTR_MAX);
    mmi_vma_put32(&node->u.inner.count, from);
}

static void mmi_vma_inner_open(struct mm_vma_node *node, unsigned i)
{
    unsigned k;

    for (k = node->u.inner.count; k > i; k--)
        mmi_vma_inner_move(node, k, node, k - 1);
    mmi_vma_put32(&node->u.inner.count, node->u.inner.count + 1);
}

static void mmi_vma_inner_close(struct mm_vma_node *node, unsigned i)
{
    unsigned k;

    for (k = i; k + 1 < node->u.inner.count; k++)
        mmi_vma_inner_move(node, k, node, k + 1);
    mmi_vma_inner_cut(node, node->u.inner.count - 1);
}

static uint32_t mmi_vma_inner_gap(const struct mm_vma_node *node)
{
    uint32_t max = 0;
    unsigned i;

    for (i = 0; i < node->u.inner.count; i++)
        max = node->u.inner.gap[i] > max ? node->u.inner.gap[i] : max;
    return max;
}

/* `next` is the start of the first area behind the leaf, or MMI_VMA_TOP. */
static uint32_t mmi_vma_leaf_gap(const struct mm_vma_node *leaf, uintptr_t next)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    uint32_t gap, max = mmi_vma_sat(next - mmi_vma_leaf_end(leaf, l->count - 1));
    unsigned i;

    for (i = 1; i < l->count; i++) {
        gap = l->start[i] - l->last[i - 1] - 1;
        max = gap > max ? gap : max;
    }
    return max;
}

static uintptr_t mmi_vma_first(const struct mm_vma_node *node, uintptr_t level)
{
    return level == 0 ? mmi_vma_leaf_start(node, 0) : node->u.inner.key[0];
}

/* ---- Map: nodes -------------------------------------------------------------------------------- */

static enum mm_status mmi_vma_pool_fill(struct mm_vma_map *map, uintptr_t nodes)
{
    struct mm_vma_node *node;

    while (map->pooled < nodes) {
        node = map->source->alloc(map->source->ctx);
        if (node == NULL)
            return MM_ERR_NOMEM;
        mmi_vma_put_child(&node->u.next, map->pool);
        map->pool = node;
        map->pooled++;
    }
    return MM_OK;
}

/* Only after a reservation: the pool is not empty. */
static struct mm_vma_node *mmi_vma_node_take(struct mm_vma_map *map, bool leaf)
{
    struct mm_vma_node *node = map->pool;
    unsigned i;

    MM_VMA_ASSERT(node != NULL);
    map->pool = node->u.next;
    map->pooled--;
    map->nodes++;
    if (leaf) {
        for (i = 0; i < MM_VMA_LEAF_AREAS; i++) {
            mmi_vma_put32(&node->u.leaf.start[i], MMI_VMA_NO_START);
            mm_store(&node->u.leaf.area[i], 0);
        }
        mmi_vma_put32(&node->u.leaf.count, 0);
    } else {
        for (i = 0; i < MM_VMA_INNER_CHILDREN; i++)
            mm_store(&node->u.inner.key[i], UINTPTR_MAX);
        mmi_vma_put32(&node->u.inner.count, 0);
    }
    return node;
}

/* A node beyond what the next calls may need goes back to the source. */
static void mmi_vma_node_drop(struct mm_vma_map *map, struct mm_vma_node *node)
{
    map->nodes--;
    if (map->pooled >= 4 * (map->height + 2)) {
        map->source->free(map->source->ctx, node);
        return;
    }
    mmi_vma_put_child(&node->u.next, map->pool);
    map->pool = node;
    map->pooled++;
}

/* Between these two, readers without a lock see that they must try again. */
static void mmi_vma_write_begin(struct mm_vma_map *map)
{
    mm_store(&map->seq, map->seq + 1);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void mmi_vma_write_end(struct mm_vma_map *map)
{
    mm_store_release(&map->seq, map->seq + 1);
}

/* ---- Map: paths ------------------------------------------------------------------------------ */

/* Goes down to where `page` belongs: at[0] is the number of the leaf's areas that start up to it. */
static void mmi_vma_seek(struct mm_vma_cursor *c, const struct mm_vma_map *map, uintptr_t page)
{
    struct mm_vma_node *node = map->root;
    uintptr_t level;
    uint32_t high = MMI_VMA_HIGH(page);

    for (level = map->height; level != 0; level--) {
        c->node[level] = node;
        c->at[level] = mmi_vma_inner_rank(node, page);
        node = node->u.inner.child[c->at[level]];
        mmi_vma_fetch(node);
    }
    c->node[0] = node;
    if (MM_LIKELY(node->u.leaf.high == high))
        c->at[0] = mmi_vma_leaf_rank(node, (uint32_t)page);
    else
        c->at[0] = node->u.leaf.high < high ? node->u.leaf.count : 0;
}

/* Start of the first area behind node[level] of the path, or MMI_VMA_TOP. */
static uintptr_t mmi_vma_behind(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                uintptr_t level)
{
    for (level++; level <= map->height; level++)
        if (c->at[level] + 1 < c->node[level]->u.inner.count)
            return c->node[level]->u.inner.key[c->at[level] + 1];
    return MMI_VMA_TOP;
}

/* Moves the path to the leaf after (before) it, at[0] to its first (last) area; false at the end, where
 * the path stays. */
static bool mmi_vma_leaf_after(struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    uintptr_t level = 1;

    while (level <= map->height && c->at[level] + 1 >= c->node[level]->u.inner.count)
        level++;
    if (level > map->height)
        return false;
    c->at[level]++;
    for (; level != 0; level--) {
        c->node[level - 1] = c->node[level]->u.inner.child[c->at[level]];
        c->at[level - 1] = 0;
    }
    return true;
}

static bool mmi_vma_leaf_before(struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    uintptr_t level = 1;

    while (level <= map->height && c->at[level] == 0)
        level++;
    if (level > map->height)
        return false;
    c->at[level]--;
    for (; level != 0; level--) {
        c->node[level - 1] = c->node[level]->u.inner.child[c->at[level]];
        c->at[level - 1] = level == 1 ? c->node[0]->u.leaf.count - 1
                                      : c->node[level - 1]->u.inner.count - 1;
    }
    return true;
}

/* Start of what follows slot `i` of the path's leaf. */
static uintptr_t mmi_vma_follower(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                  unsigned i)
{
    if (i + 1 < c->node[0]->u.leaf.count)
        return mmi_vma_leaf_start(c->node[0], i + 1);
    return mmi_vma_behind(c, map, 0);
}

/* The area in slot at[0] - 1, or the last of the leaf before, or NULL. */
static struct mm_vma *mmi_vma_pred(const struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    struct mm_vma_cursor before;

    if (c->at[0] != 0)
        return mmi_vma_leaf_area(c->node[0], c->at[0] - 1);
    if (map->height == 0)
        return NULL;
    before = *c;
    return mmi_vma_leaf_before(&before, map) ? mmi_vma_leaf_area(before.node[0], before.at[0])
                                             : NULL;
}

/* The area in slot at[0], or the first of the leaf after, or NULL. */
static struct mm_vma *mmi_vma_succ(const struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    const struct mm_vma_node *node;
    uintptr_t level;

    if (c->at[0] < c->node[0]->u.leaf.count)
        return mmi_vma_leaf_area(c->node[0], c->at[0]);
    for (level = 1; level <= map->height; level++)
        if (c->at[level] + 1 < c->node[level]->u.inner.count)
            break;
    if (level > map->height)
        return NULL;
    node = c->node[level]->u.inner.child[c->at[level] + 1];
    while (--level != 0)
        node = node->u.inner.child[0];
    return mmi_vma_leaf_area(node, 0);
}

/* ---- Map: keeping keys and gaps true (M3, M4) -------------------------------------------------- */

/* The leaf's first start changed. */
static void mmi_vma_fix_first(struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    uintptr_t level, first = mmi_vma_leaf_start(c->node[0], 0);

    for (level = 1; level <= map->height; level++) {
        mm_store(&c->node[level]->u.inner.key[c->at[level]], first);
        if (c->at[level] != 0)
            return;
    }
}

/* Gaps of the path's leaf may have become shorter, or are not known. */
static void mmi_vma_fix_gaps(struct mm_vma_cursor *c, const struct mm_vma_map *map, bool all)
{
    uintptr_t level;
    uint32_t gap;

    if (map->height == 0)
        return;
    gap = mmi_vma_leaf_gap(c->node[0], mmi_vma_behind(c, map, 0));
    for (level = 1; level <= map->height; level++) {
        uint32_t *noted = &c->node[level]->u.inner.gap[c->at[level]];

        if (*noted == gap && !all)
            return;
        mmi_vma_put32(noted, gap);
        gap = mmi_vma_inner_gap(c->node[level]);
    }
}

/* A gap below the path's leaf became `gap` pages long. */
static void mmi_vma_raise(struct mm_vma_cursor *c, const struct mm_vma_map *map, uint32_t gap)
{
    uintptr_t level;

    for (level = 1; level <= map->height; level++) {
        uint32_t *noted = &c->node[level]->u.inner.gap[c->at[level]];

        if (*noted >= gap)
            return;
        mmi_vma_put32(noted, gap);
    }
}

/* The gap behind an area of the path's leaf went from `was` to `now` pages. */
static void mmi_vma_gap_changed(struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                uintptr_t was, uintptr_t now)
{
    if (map->height == 0)
        return;
    if (now > was)
        mmi_vma_raise(c, map, mmi_vma_sat(now));
    else if (mmi_vma_sat(was) >= c->node[1]->u.inner.gap[c->at[1]])
        mmi_vma_fix_gaps(c, map, false);
}

/* The same for the gap before the path's slot at[0], whose owner may stand in the leaf before. */
static void mmi_vma_gap_before_changed(struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                       uintptr_t was, uintptr_t now)
{
    struct mm_vma_cursor before;

    if (map->height == 0)
        return;
    if (c->at[0] != 0) {
        mmi_vma_gap_changed(c, map, was, now);
        return;
    }
    before = *c;
    if (mmi_vma_leaf_before(&before, map))
        mmi_vma_gap_changed(&before, map, was, now);
}

/* ---- Map: insert ------------------------------------------------------------------------------- */

/* A new root above the old one and `child`. */
static void mmi_vma_grow(struct mm_vma_map *map, struct mm_vma_node *child, uintptr_t key,
                         uint32_t gap_left, uint32_t gap)
{
    struct mm_vma_node *root = mmi_vma_node_take(map, false);

    mmi_vma_inner_put(root, 0, mmi_vma_first(map->root, map->height), map->root, gap_left);
    mmi_vma_inner_put(root, 1, key, child, gap);
    mmi_vma_put32(&root->u.inner.count, 2);
    mmi_vma_put_child(&map->root, root);
    mm_store(&map->height, map->height + 1);
}

/* Puts `child` right behind the path's node at level - 1, splitting what is full. The path is of no
 * use afterwards. `gap_left` and `gap` are the longest gaps below the two. */
static void mmi_vma_add_child(struct mm_vma_cursor *c, struct mm_vma_map *map, uintptr_t level,
                              struct mm_vma_node *child, uintptr_t key, uint32_t gap_left,
                              uint32_t gap)
{
    for (; level <= map->height; level++) {
        struct mm_vma_node *left = c->node[level], *right, *into;
        unsigned at = c->at[level] + 1, keep, i;

        mmi_vma_put32(&left->u.inner.gap[at - 1], gap_left);
        if (left->u.inner.count < MM_VMA_INNER_CHILDREN) {
            mmi_vma_inner_open(left, at);
            mmi_vma_inner_put(left, at, key, child, gap);
            return;
        }
        right = mmi_vma_node_take(map, false);
        /* nodes that are filled in order stay full */
        keep = at == MM_VMA_INNER_CHILDREN ? at - 2 : at == 1 ? 2 : MM_VMA_INNER_CHILDREN / 2;
        for (i = keep; i < MM_VMA_INNER_CHILDREN; i++)
            mmi_vma_inner_move(right, i - keep, left, i);
        mmi_vma_put32(&right->u.inner.count, MM_VMA_INNER_CHILDREN - keep);
        mmi_vma_inner_cut(left, keep);
        into = at > keep ? right : left;
        at = at > keep ? at - keep : at;
        mmi_vma_inner_open(into, at);
        mmi_vma_inner_put(into, at, key, child, gap);
        gap_left = mmi_vma_inner_gap(left);
        gap = mmi_vma_inner_gap(right);
        key = right->u.inner.key[0];
        child = right;
    }
    mmi_vma_grow(map, child, key, gap_left, gap);
}

/* Moves the last `n` areas of `left` before those of `right`. */
static void mmi_vma_shift_right(struct mm_vma_node *left, struct mm_vma_node *right, unsigned n)
{
    unsigned i, keep = left->u.leaf.count - n;

    mmi_vma_leaf_open(right, 0, n);
    for (i = 0; i < n; i++)
        mmi_vma_leaf_move(right, i, left, keep + i);
    mmi_vma_leaf_cut(left, keep);
}

/* Moves the first `n` areas of `right` behind those of `left`. */
static void mmi_vma_shift_left(struct mm_vma_node *left, struct mm_vma_node *right, unsigned n)
{
    unsigned i, count = left->u.leaf.count;

    for (i = 0; i < n; i++)
        mmi_vma_leaf_move(left, count + i, right, i);
    mmi_vma_put32(&left->u.leaf.count, count + n);
    mmi_vma_leaf_close(right, 0, n);
}

/* Whether the two leaves hold pages of the same stretch and `areas` more fit in the one at i. */
static bool mmi_vma_takes(const struct mm_vma_node *parent, unsigned i,
                          const struct mm_vma_node *leaf)
{
    const struct mm_vma_node *sibling;

    if (i >= parent->u.inner.count)
        return false;
    sibling = parent->u.inner.child[i];
    return sibling->u.leaf.high == leaf->u.leaf.high &&
           sibling->u.leaf.count + MMI_VMA_SPARE_AREAS <= MM_VMA_LEAF_AREAS;
}

/* Lets a sibling take areas from the path's full leaf. False if neither can. */
static bool mmi_vma_spill(struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    struct mm_vma_node *parent, *leaf = c->node[0], *sibling;
    unsigned at, n;

    if (map->height == 0)
        return false;
    parent = c->node[1];
    at = c->at[1];
    if (mmi_vma_takes(parent, at + 1, leaf)) {
        sibling = parent->u.inner.child[at + 1];
        n = (MM_VMA_LEAF_AREAS - sibling->u.leaf.count + 1) / 2;
        mmi_vma_shift_right(leaf, sibling, n);
        mm_store(&parent->u.inner.key[at + 1], mmi_vma_leaf_start(sibling, 0));
        c->at[1] = at + 1;
        mmi_vma_put32(&parent->u.inner.gap[at + 1],
                      mmi_vma_leaf_gap(sibling, mmi_vma_behind(c, map, 0)));
        mmi_vma_put32(&parent->u.inner.gap[at],
                      mmi_vma_leaf_gap(leaf, mmi_vma_leaf_start(sibling, 0)));
        return true;
    }
    if (at == 0 || !mmi_vma_takes(parent, at - 1, leaf))
        return false;
    sibling = parent->u.inner.child[at - 1];
    n = (MM_VMA_LEAF_AREAS - sibling->u.leaf.count + 1) / 2;
    mmi_vma_shift_left(sibling, leaf, n);
    mm_store(&parent->u.inner.key[at], mmi_vma_leaf_start(leaf, 0));
    mmi_vma_put32(&parent->u.inner.gap[at], mmi_vma_leaf_gap(leaf, mmi_vma_behind(c, map, 0)));
    mmi_vma_put32(&parent->u.inner.gap[at - 1],
                  mmi_vma_leaf_gap(sibling, mmi_vma_leaf_start(leaf, 0)));
    return true;
}

/* Makes room in the path's full leaf; the path is of no use afterwards. */
static void mmi_vma_make_room(struct mm_vma_cursor *c, struct mm_vma_map *map)
{
    struct mm_vma_node *leaf = c->node[0], *right;
    uintptr_t behind = mmi_vma_behind(c, map, 0), first;
    unsigned keep = MM_VMA_LEAF_AREAS / 2 + 1;

    /* leaves that are filled in order stay full */
    if (c->at[0] == MM_VMA_LEAF_AREAS && behind == MMI_VMA_TOP)
        keep = MM_VMA_LEAF_AREAS - 1;
    else if (c->at[0] == 0)
        keep = 1;
    else if (mmi_vma_spill(c, map))
        return;
    right = mmi_vma_node_take(map, true);
    mmi_vma_put32(&right->u.leaf.high, leaf->u.leaf.high);
    mmi_vma_shift_right(leaf, right, MM_VMA_LEAF_AREAS - keep);
    first = mmi_vma_leaf_start(right, 0);
    mmi_vma_add_child(c, map, 1, right, first, mmi_vma_leaf_gap(leaf, first),
                      mmi_vma_leaf_gap(right, behind));
}

/* A leaf of its own for an area that no leaf's stretch fits, behind the path's leaf, or before it where
 * that is the first. */
static void mmi_vma_insert_leaf(struct mm_vma_cursor *c, struct mm_vma_map *map,
                                struct mm_vma *vma)
{
    struct mm_vma_node *leaf = c->node[0], *added = mmi_vma_node_take(map, true);
    uintptr_t behind = mmi_vma_behind(c, map, 0);

    if (c->at[0] == 0) { /* swap roles: the leaf's areas move to the new one */
        mmi_vma_put32(&added->u.leaf.high, leaf->u.leaf.high);
        mmi_vma_shift_left(added, leaf, leaf->u.leaf.count);
        mmi_vma_put32(&leaf->u.leaf.high, MMI_VMA_HIGH(vma->start));
        mmi_vma_leaf_put(leaf, 0, vma);
        mmi_vma_put32(&leaf->u.leaf.count, 1);
        mmi_vma_fix_first(c, map);
    } else {
        mmi_vma_put32(&added->u.leaf.high, MMI_VMA_HIGH(vma->start));
        mmi_vma_leaf_put(added, 0, vma);
        mmi_vma_put32(&added->u.leaf.count, 1);
    }
    mmi_vma_add_child(c, map, 1, added, mmi_vma_leaf_start(added, 0),
                      mmi_vma_leaf_gap(leaf, mmi_vma_leaf_start(added, 0)),
                      mmi_vma_leaf_gap(added, behind));
    map->count++;
    mmi_vma_seek(c, map, vma->start);
    mmi_vma_fix_gaps(c, map, true);
}

/* Brings the path to a leaf with room where `vma` belongs; false if it needs a leaf of its own. */
static bool mmi_vma_place(struct mm_vma_cursor *c, struct mm_vma_map *map, const struct mm_vma *vma)
{
    struct mm_vma_cursor after;

    for (;;) {
        if (c->node[0]->u.leaf.high != MMI_VMA_HIGH(vma->start)) {
            after = *c;
            if (c->at[0] == 0 || !mmi_vma_leaf_after(&after, map) ||
                after.node[0]->u.leaf.high != MMI_VMA_HIGH(vma->start))
                return false;
            *c = after;
        }
        if (c->node[0]->u.leaf.count < MM_VMA_LEAF_AREAS)
            return true;
        mmi_vma_make_room(c, map);
        mmi_vma_seek(c, map, vma->start);
    }
}

/* Inserts at the path, which mmi_vma_seek(vma->start) made. Nodes are reserved; nothing overlaps. */
static void mmi_vma_insert_at(struct mm_vma_cursor *c, struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_node *leaf;
    uintptr_t end, next;
    unsigned i;

    vma->link = NULL;
    if (map->root == NULL) {
        leaf = mmi_vma_node_take(map, true);
        mmi_vma_put32(&leaf->u.leaf.high, MMI_VMA_HIGH(vma->start));
        mmi_vma_leaf_put(leaf, 0, vma);
        mmi_vma_put32(&leaf->u.leaf.count, 1);
        mmi_vma_put_child(&map->root, leaf);
        map->count = 1;
        return;
    }
    if (MM_UNLIKELY((c->node[0]->u.leaf.high != MMI_VMA_HIGH(vma->start) ||
                     c->node[0]->u.leaf.count == MM_VMA_LEAF_AREAS)) &&
        !mmi_vma_place(c, map, vma)) {
        mmi_vma_insert_leaf(c, map, vma);
        return;
    }
    leaf = c->node[0];
    i = c->at[0];
    mmi_vma_leaf_open(leaf, i, 1);
    mmi_vma_leaf_put(leaf, i, vma);
    map->count++;
    next = mmi_vma_follower(c, map, i);
    if (i != 0) {
        end = mmi_vma_leaf_end(leaf, i - 1);
        mmi_vma_gap_changed(c, map, next - end, 0);
    } else {
        mmi_vma_fix_first(c, map);
        mmi_vma_raise(c, map, mmi_vma_sat(next - vma->end));
        /* the gap before is shorter than what its owner's leaf knew */
        mmi_vma_gap_before_changed(c, map, UINTPTR_MAX, 0);
    }
}

/* Nodes that an insert at the path takes at most: a leaf of its own, or one for each full level. */
static uintptr_t mmi_vma_splits(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                unsigned areas)
{
    uintptr_t level;

    if (c->node[0]->u.leaf.count + areas <= MM_VMA_LEAF_AREAS)
        return 0;
    for (level = 1; level <= map->height; level++)
        if (c->node[level]->u.inner.count + areas <= MM_VMA_INNER_CHILDREN)
            break;
    return level + (level > map->height);
}

/* ---- Map: erase -------------------------------------------------------------------------------- */

/* Merges child i of `parent` with child i + 1 when both fit in one. Their gaps stay known. */
static bool mmi_vma_merge_children(struct mm_vma_map *map, struct mm_vma_node *parent, unsigned i,
                                   uintptr_t level)
{
    struct mm_vma_node *left, *right;
    uint32_t gap;
    unsigned k, count;

    if (i + 1 >= parent->u.inner.count)
        return false;
    left = parent->u.inner.child[i];
    right = parent->u.inner.child[i + 1];
    if (level == 0) {
        if (left->u.leaf.high != right->u.leaf.high ||
            left->u.leaf.count + right->u.leaf.count > MMI_VMA_MERGE_AREAS)
            return false;
        mmi_vma_shift_left(left, right, right->u.leaf.count);
    } else {
        count = left->u.inner.count;
        if (count + right->u.inner.count > MMI_VMA_MERGE_CHILDREN)
            return false;
        for (k = 0; k < right->u.inner.count; k++)
            mmi_vma_inner_move(left, count + k, right, k);
        mmi_vma_put32(&left->u.inner.count, count + right->u.inner.count);
    }
    gap = parent->u.inner.gap[i] > parent->u.inner.gap[i + 1] ? parent->u.inner.gap[i]
                                                              : parent->u.inner.gap[i + 1];
    mmi_vma_put32(&parent->u.inner.gap[i], gap);
    mmi_vma_inner_close(parent, i + 1);
    mmi_vma_node_drop(map, right);
    return true;
}

/* Node node[level] of the path has become small: merges it, and what that makes small above it. */
static void mmi_vma_shrink(struct mm_vma_cursor *c, struct mm_vma_map *map, uintptr_t level)
{
    struct mm_vma_node *root;

    for (; level < map->height; level++) {
        struct mm_vma_node *parent = c->node[level + 1];
        unsigned at = c->at[level + 1];

        if (!mmi_vma_merge_children(map, parent, at, level) &&
            (at == 0 || !mmi_vma_merge_children(map, parent, at - 1, level)))
            return;
        if (parent->u.inner.count >= MMI_VMA_FEW_CHILDREN)
            return;
    }
    while (map->height != 0 && map->root->u.inner.count == 1) {
        root = map->root;
        mmi_vma_put_child(&map->root, root->u.inner.child[0]);
        mm_store(&map->height, map->height - 1);
        mmi_vma_node_drop(map, root);
    }
}

/* The path's leaf is empty: takes it out, with what that leaves empty above it. */
static void mmi_vma_drop_leaf(struct mm_vma_cursor *c, struct mm_vma_map *map, uintptr_t page)
{
    struct mm_vma_node *node = c->node[0];
    uintptr_t level;

    for (level = 1; level <= map->height; level++) {
        mmi_vma_node_drop(map, node);
        node = c->node[level];
        mmi_vma_inner_close(node, c->at[level]);
        if (node->u.inner.count != 0)
            break;
    }
    if (level > map->height) { /* nothing is left */
        mmi_vma_node_drop(map, node);
        mmi_vma_put_child(&map->root, NULL);
        mm_store(&map->height, 0);
        return;
    }
    mmi_vma_shrink(c, map, level);
    mmi_vma_seek(c, map, page); /* the gap's owner, or the first area of all */
    mmi_vma_fix_first(c, map);
    mmi_vma_fix_gaps(c, map, true);
}

/* Takes out the area in slot at[0] of the path. */
static void mmi_vma_erase_at(struct mm_vma_cursor *c, struct mm_vma_map *map)
{
    struct mm_vma_cursor before;
    struct mm_vma_node *leaf = c->node[0];
    unsigned i = c->at[0];
    uintptr_t start = mmi_vma_leaf_start(leaf, i), end = mmi_vma_leaf_end(leaf, i);
    uintptr_t next = mmi_vma_follower(c, map, i);

    mmi_vma_leaf_close(leaf, i, 1);
    map->count--;
    if (MM_UNLIKELY(leaf->u.leaf.count == 0)) {
        mmi_vma_drop_leaf(c, map, start);
        return;
    }
    if (i != 0) {
        mmi_vma_raise(c, map, mmi_vma_sat(next - mmi_vma_leaf_end(leaf, i - 1)));
    } else {
        mmi_vma_fix_first(c, map);
        mmi_vma_gap_changed(c, map, next - end, 0);
        before = *c; /* the owner of the gap before it now has the whole */
        if (mmi_vma_leaf_before(&before, map))
            mmi_vma_raise(&before, map,
                          mmi_vma_sat(next - mmi_vma_leaf_end(before.node[0], before.at[0])));
    }
    if (leaf->u.leaf.count < MMI_VMA_FEW_AREAS)
        mmi_vma_shrink(c, map, 0);
}

/* ---- Map: moving an area's bounds --------------------------------------------------------------- */

/* Slot at[0] holds `vma`: gives it a new end. */
static void mmi_vma_set_end_at(struct mm_vma_cursor *c, const struct mm_vma_map *map,
                               struct mm_vma *vma, uintptr_t end)
{
    uintptr_t was = vma->end, next = mmi_vma_follower(c, map, c->at[0]);

    mm_store(&vma->end, end);
    mmi_vma_leaf_put_last(c->node[0], c->at[0], end);
    mmi_vma_gap_changed(c, map, next - was, next - end);
}

/* Gives it a new start, within the leaf's stretch. The caller keeps `offset` true. */
static void mmi_vma_set_start_at(struct mm_vma_cursor *c, struct mm_vma_map *map,
                                 struct mm_vma *vma, uintptr_t start)
{
    const struct mm_vma *pred = mmi_vma_pred(c, map);
    uintptr_t was = vma->start, floor = pred == NULL ? 0 : pred->end;

    MM_VMA_ASSERT(MMI_VMA_HIGH(start) == c->node[0]->u.leaf.high);
    mm_store(&vma->start, start);
    mmi_vma_put32(&c->node[0]->u.leaf.start[c->at[0]], (uint32_t)start);
    if (c->at[0] == 0)
        mmi_vma_fix_first(c, map);
    if (pred != NULL)
        mmi_vma_gap_before_changed(c, map, was - floor, start - floor);
}

static void mmi_vma_find_slot(struct mm_vma_cursor *c, const struct mm_vma_map *map,
                              uintptr_t page)
{
    mmi_vma_seek(c, map, page);
    MM_VMA_ASSERT(c->at[0] != 0);
    c->at[0]--;
}

/* The same by search. A start that leaves the stretch needs one reserved insert. */
static void mmi_vma_set_end(struct mm_vma_map *map, struct mm_vma *vma, uintptr_t end)
{
    struct mm_vma_cursor c;

    mmi_vma_find_slot(&c, map, vma->start);
    mmi_vma_set_end_at(&c, map, vma, end);
}

static void mmi_vma_set_start(struct mm_vma_map *map, struct mm_vma *vma, uintptr_t start)
{
    struct mm_vma_cursor c;

    mmi_vma_find_slot(&c, map, vma->start);
    if (MM_LIKELY(MMI_VMA_HIGH(start) == MMI_VMA_HIGH(vma->start))) {
        mmi_vma_set_start_at(&c, map, vma, start);
        return;
    }
    mmi_vma_erase_at(&c, map);
    mm_store(&vma->start, start);
    if (map->root != NULL)
        mmi_vma_seek(&c, map, start);
    mmi_vma_insert_at(&c, map, vma);
}

static void mmi_vma_erase(struct mm_vma_map *map, const struct mm_vma *vma)
{
    struct mm_vma_cursor c;

    mmi_vma_find_slot(&c, map, vma->start);
    mmi_vma_erase_at(&c, map);
}

static void mmi_vma_insert(struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_cursor c;

    if (map->root != NULL)
        mmi_vma_seek(&c, map, vma->start);
    mmi_vma_insert_at(&c, map, vma);
}

/* The area's lowest six flags changed: its word in the leaf follows (M6). */
static void mmi_vma_set_flags(struct mm_vma_map *map, struct mm_vma *vma, uintptr_t flags)
{
    struct mm_vma_cursor c;
    bool same = ((vma->flags ^ flags) & MM_VMA_INLINE_FLAGS) == 0;

    mm_store(&vma->flags, flags);
    if (same)
        return;
    mmi_vma_find_slot(&c, map, vma->start);
    mm_store(&c.node[0]->u.leaf.area[c.at[0]],
             (uintptr_t)vma | (flags & MM_VMA_INLINE_FLAGS));
}

/* ---- Map: the calls ------------------------------------------------------------------------------ */

MM_VMA_API void mm_vma_map_init(struct mm_vma_map *map, const struct mm_vma_node_source *source)
{
    map->root = NULL;
    map->height = 0;
    map->seq = 0;
    map->count = 0;
    map->nodes = 0;
    map->pooled = 0;
    map->pool = NULL;
    map->source = source;
}

MM_VMA_API void mm_vma_map_trim(struct mm_vma_map *map)
{
    struct mm_vma_node *node;

    while (map->pool != NULL) {
        node = map->pool;
        map->pool = node->u.next;
        map->pooled--;
        map->source->free(map->source->ctx, node);
    }
}

MM_VMA_API void mm_vma_map_fini(struct mm_vma_map *map)
{
    struct mm_vma_node *path[MM_VMA_LEVELS], *node;
    unsigned at[MM_VMA_LEVELS];
    uintptr_t level;

    mm_vma_map_trim(map);
    level = map->height;
    path[level] = map->root;
    at[level] = 0;
    while (map->root != NULL) {
        node = path[level];
        if (level != 0 && at[level] < node->u.inner.count) {
            path[level - 1] = node->u.inner.child[at[level]++];
            at[--level] = 0;
            continue;
        }
        if (level == map->height)
            map->root = NULL;
        map->source->free(map->source->ctx, node);
        level++;
    }
    mm_vma_map_init(map, map->source);
}

MM_VMA_API enum mm_status mm_vma_map_reserve(struct mm_vma_map *map, unsigned count)
{
    return mmi_vma_pool_fill(map, count * (map->height + 2));
}

/* What an insert of `vma` at the path takes. */
static enum mm_status mmi_vma_reserve_at(const struct mm_vma_cursor *c, struct mm_vma_map *map,
                                         const struct mm_vma *vma)
{
    if (map->root == NULL)
        return mmi_vma_pool_fill(map, 1);
    if (c->node[0]->u.leaf.high != MMI_VMA_HIGH(vma->start))
        return mmi_vma_pool_fill(map, map->height + 2);
    return mmi_vma_pool_fill(map, mmi_vma_splits(c, map, 1));
}

MM_VMA_API enum mm_status mm_vma_map_insert(struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_cursor c;

    if (vma == NULL || ((uintptr_t)vma & MM_VMA_INLINE_FLAGS) != 0 || vma->start >= vma->end ||
        vma->end > MMI_VMA_TOP)
        return MM_ERR_INVALID;
    if (map->root != NULL) {
        mmi_vma_seek(&c, map, vma->start);
        if (c.at[0] != 0 && mmi_vma_leaf_end(c.node[0], c.at[0] - 1) > vma->start)
            return MM_ERR_EXISTS;
        if (c.at[0] < c.node[0]->u.leaf.count
                ? mmi_vma_leaf_start(c.node[0], c.at[0]) < vma->end
                : mmi_vma_behind(&c, map, 0) < vma->end)
            return MM_ERR_EXISTS;
    }
    if (mmi_vma_reserve_at(&c, map, vma) != MM_OK)
        return MM_ERR_NOMEM;
    mmi_vma_write_begin(map);
    mmi_vma_insert_at(&c, map, vma);
    mmi_vma_write_end(map);
    return MM_OK;
}

MM_VMA_API enum mm_status mm_vma_map_erase(struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_cursor c;

    if (vma == NULL || map->root == NULL)
        return MM_ERR_NOENT;
    mmi_vma_seek(&c, map, vma->start);
    if (c.at[0] == 0 || mmi_vma_leaf_area(c.node[0], c.at[0] - 1) != vma)
        return MM_ERR_NOENT;
    c.at[0]--;
    mmi_vma_write_begin(map);
    mmi_vma_erase_at(&c, map);
    mmi_vma_write_end(map);
    return MM_OK;
}

MM_VMA_API enum mm_status mm_vma_map_read(const struct mm_vma_map *map, mm_va_t va,
                                          struct mm_vma_view *view)
{
    uintptr_t seq = mm_load_acquire(&map->seq), page = (uintptr_t)(va >> MM_PAGE_SHIFT), level, word;
    const struct mm_vma_node *node;
    const struct mm_vma *vma;
    uint32_t high;
    unsigned i, count;

    if (MMI_VMA_BEYOND(va))
        return MM_ERR_NOENT;
    level = mm_load(&map->height);
    node = __atomic_load_n(&map->root, __ATOMIC_RELAXED);
    /* what was read is followed only once it is known to belong together */
    for (;; node = mmi_vma_child(node, i), level--) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if ((seq & 1) != 0 || mm_load(&map->seq) != seq)
            return MM_ERR_BUSY;
        if (level == 0 || node == NULL)
            break;
        i = mmi_vma_inner_rank(node, page);
    }
    if (node == NULL)
        return MM_ERR_NOENT;
    high = mmi_vma_get32(&node->u.leaf.high);
    count = mmi_vma_get32(&node->u.leaf.count);
    i = high == MMI_VMA_HIGH(page) ? mmi_vma_leaf_rank(node, (uint32_t)page)
                                   : high < MMI_VMA_HIGH(page) ? count : 0;
    word = i == 0 || i > MM_VMA_LEAF_AREAS ? 0 : mm_load(&node->u.leaf.area[i - 1]);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (mm_load(&map->seq) != seq)
        return MM_ERR_BUSY;
    if (word == 0)
        return MM_ERR_NOENT;
    vma = mmi_vma_of_word(word);
    view->start = mm_vma_start(vma);
    view->end = mm_vma_end(vma);
    view->flags = mm_load(&vma->flags);
    view->offset = mm_load(&vma->offset);
    view->file = __atomic_load_n(&vma->file, __ATOMIC_RELAXED);
    view->area = vma;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (mm_load(&map->seq) != seq)
        return MM_ERR_BUSY;
    return va < view->end ? MM_OK : MM_ERR_NOENT;
}

/* ---- Map: gaps ----------------------------------------------------------------------------------- */

#define MMI_VMA_NONE UINTPTR_MAX

/* `pages` within [low, high), at a multiple of mask + 1. */
struct mmi_vma_want {
    uintptr_t low, high, pages, mask;
};

/* The lowest (highest) fit within the gap [from, to), or MMI_VMA_NONE. */
static uintptr_t mmi_vma_fit_low(const struct mmi_vma_want *want, uintptr_t from, uintptr_t to)
{
    uintptr_t page;

    from = from > want->low ? from : want->low;
    to = to < want->high ? to : want->high;
    page = (from + want->mask) & ~want->mask;
    if (page < from || page > to || to - page < want->pages)
        return MMI_VMA_NONE;
    return page;
}

static uintptr_t mmi_vma_fit_high(const struct mmi_vma_want *want, uintptr_t from, uintptr_t to)
{
    uintptr_t page;

    from = from > want->low ? from : want->low;
    to = to < want->high ? to : want->high;
    if (to < from || to - from < want->pages)
        return MMI_VMA_NONE;
    page = (to - want->pages) & ~want->mask;
    return page >= from ? page : MMI_VMA_NONE;
}

/* Fits behind the areas of the path's leaf from slot i upwards. */
static uintptr_t mmi_vma_scan_low(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                  const struct mmi_vma_want *want, unsigned i)
{
    const struct mm_vma_node *leaf = c->node[0];
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page;

    for (; i + 1 < l->count; i++) {
        if (l->start[i + 1] - l->last[i] - 1 < least)
            continue;
        page = mmi_vma_fit_low(want, mmi_vma_leaf_end(leaf, i), mmi_vma_leaf_start(leaf, i + 1));
        if (page != MMI_VMA_NONE)
            return page;
    }
    return mmi_vma_fit_low(want, mmi_vma_leaf_end(leaf, i), mmi_vma_behind(c, map, 0));
}

/* Fits behind the areas of the path's leaf from slot i downwards. */
static uintptr_t mmi_vma_scan_high(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                   const struct mmi_vma_want *want, unsigned i)
{
    const struct mm_vma_node *leaf = c->node[0];
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page;

    page = mmi_vma_fit_high(want, mmi_vma_leaf_end(leaf, i), mmi_vma_follower(c, map, i));
    while (page == MMI_VMA_NONE && i-- != 0)
        if (l->start[i + 1] - l->last[i] - 1 >= least)
            page = mmi_vma_fit_high(want, mmi_vma_leaf_end(leaf, i),
                                    mmi_vma_leaf_start(leaf, i + 1));
    return page;
}

/* Moves the path to the next leaf upwards with a gap of `least` pages; false if there is none. */
static bool mmi_vma_gap_above(struct mm_vma_cursor *c, const struct mm_vma_map *map, uint32_t least)
{
    uintptr_t level;
    unsigned i = 0;

    for (level = 1; level <= map->height; level++) {
        const struct mmi_vma_inner *n = &c->node[level]->u.inner;

        for (i = c->at[level] + 1; i < n->count && n->gap[i] < least; i++)
            continue;
        if (i < n->count)
            break;
    }
    if (level > map->height)
        return false;
    for (c->at[level] = i; level > 1; level--) {
        struct mm_vma_node *node = c->node[level]->u.inner.child[c->at[level]];

        for (i = 0; node->u.inner.gap[i] < least; i++)
            continue;
        c->node[level - 1] = node;
        c->at[level - 1] = i;
    }
    c->node[0] = c->node[1]->u.inner.child[c->at[1]];
    return true;
}

static bool mmi_vma_gap_below(struct mm_vma_cursor *c, const struct mm_vma_map *map, uint32_t least)
{
    uintptr_t level;
    unsigned i = 0;

    for (level = 1; level <= map->height; level++) {
        const struct mmi_vma_inner *n = &c->node[level]->u.inner;

        for (i = c->at[level]; i != 0 && n->gap[i - 1] < least; i--)
            continue;
        if (i != 0)
            break;
    }
    if (level > map->height)
        return false;
    for (c->at[level] = i - 1; level > 1; level--) {
        struct mm_vma_node *node = c->node[level]->u.inner.child[c->at[level]];

        for (i = node->u.inner.count - 1; node->u.inner.gap[i] < least; i--)
            continue;
        c->node[level - 1] = node;
        c->at[level - 1] = i;
    }
    c->node[0] = c->node[1]->u.inner.child[c->at[1]];
    return true;
}

/* Whether M4 lets the path's leaf have a gap of `least` pages. */
static bool mmi_vma_leaf_may(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                             uint32_t least)
{
    return map->height == 0 || c->node[1]->u.inner.gap[c->at[1]] >= least;
}

static uintptr_t mmi_vma_lowest(const struct mm_vma_map *map, const struct mmi_vma_want *want)
{
    struct mm_vma_cursor c;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page = MMI_VMA_NONE;

    if (map->root == NULL)
        return mmi_vma_fit_low(want, 0, MMI_VMA_TOP);
    mmi_vma_seek(&c, map, want->low);
    if (c.at[0] == 0) /* before the first area of all */
        page = mmi_vma_fit_low(want, 0, mmi_vma_leaf_start(c.node[0], 0));
    if (page == MMI_VMA_NONE && mmi_vma_leaf_may(&c, map, least))
        page = mmi_vma_scan_low(&c, map, want, c.at[0] == 0 ? 0 : c.at[0] - 1);
    while (page == MMI_VMA_NONE && mmi_vma_gap_above(&c, map, least) &&
           mmi_vma_leaf_start(c.node[0], 0) < want->high)
        page = mmi_vma_scan_low(&c, map, want, 0);
    return page;
}

static uintptr_t mmi_vma_highest(const struct mm_vma_map *map, const struct mmi_vma_want *want)
{
    struct mm_vma_cursor c;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page = MMI_VMA_NONE;

    if (map->root == NULL)
        return mmi_vma_fit_high(want, 0, MMI_VMA_TOP);
    mmi_vma_seek(&c, map, want->high - 1);
    if (c.at[0] != 0 && mmi_vma_leaf_may(&c, map, least))
        page = mmi_vma_scan_high(&c, map, want, c.at[0] - 1);
    while (page == MMI_VMA_NONE && mmi_vma_gap_below(&c, map, least)) {
        if (mmi_vma_behind(&c, map, 0) <= want->low)
            return MMI_VMA_NONE;
        page = mmi_vma_scan_high(&c, map, want, c.node[0]->u.leaf.count - 1);
    }
    if (page == MMI_VMA_NONE)
        page = mmi_vma_fit_high(want, 0, mmi_vma_first(map->root, map->height));
    return page;
}

static enum mm_status mmi_vma_want_of(struct mmi_vma_want *want, mm_va_t low, mm_va_t high,
                                      uint64_t bytes, uint64_t align)
{
    uint64_t pages = (bytes >> MM_PAGE_SHIFT) + ((bytes & (MM_PAGE_SIZE - 1)) != 0);

    if (bytes == 0 || (align != 0 && !mm_is_pow2(align)))
        return MM_ERR_INVALID;
    low = (low >> MM_PAGE_SHIFT) + ((low & (MM_PAGE_SIZE - 1)) != 0);
    high >>= MM_PAGE_SHIFT;
    if (high > MMI_VMA_TOP)
        high = MMI_VMA_TOP;
    if (low >= high || pages > high - low)
        return MM_ERR_NOENT;
    want->low = (uintptr_t)low;
    want->high = (uintptr_t)high;
    want->pages = (uintptr_t)pages;
    want->mask = (align >> MM_PAGE_SHIFT) < 2 ? 0 : (uintptr_t)(align >> MM_PAGE_SHIFT) - 1;
    return MM_OK;
}

MM_VMA_API enum mm_status mm_vma_map_lowest(const struct mm_vma_map *map, mm_va_t low, mm_va_t high,
                                            uint64_t bytes, uint64_t align, mm_va_t *va)
{
    struct mmi_vma_want want;
    enum mm_status status = mmi_vma_want_of(&want, low, high, bytes, align);
    uintptr_t page;

    if (status != MM_OK)
        return status;
    page = mmi_vma_lowest(map, &want);
    if (page == MMI_VMA_NONE)
        return MM_ERR_NOENT;
    *va = (mm_va_t)page << MM_PAGE_SHIFT;
    return MM_OK;
}

MM_VMA_API enum mm_status mm_vma_map_highest(const struct mm_vma_map *map, mm_va_t low,
                                             mm_va_t high, uint64_t bytes, uint64_t align,
                                             mm_va_t *va)
{
    struct mmi_vma_want want;
    enum mm_status status = mmi_vma_want_of(&want, low, high, bytes, align);
    uintptr_t page;

    if (status != MM_OK)
        return status;
    page = mmi_vma_highest(map, &want);
    if (page == MMI_VMA_NONE)
        return MM_ERR_NOENT;
    *va = (mm_va_t)page << MM_PAGE_SHIFT;
    return MM_OK;
}

/* ---- Map: walking -------------------------------------------------------------------------------- */

/* Slot of the first area that ends behind `page`, or false. */
static bool mmi_vma_seek_area(struct mm_vma_cursor *c, const struct mm_vma_map *map, uintptr_t page)
{
    c->node[0] = NULL;
    if (map->root == NULL)
        return false;
    mmi_vma_seek(c, map, page);
    if (c->at[0] != 0 && mmi_vma_leaf_end(c->node[0], c->at[0] - 1) > page)
        c->at[0]--;
    if (c->at[0] < c->node[0]->u.leaf.count)
        return true;
    if (mmi_vma_leaf_after(c, map))
        return true;
    c->at[0] = c->node[0]->u.leaf.count - 1;
    return false;
}

MM_VMA_API struct mm_vma *mm_vma_cursor_seek(struct mm_vma_cursor *cursor, struct mm_vma_map *map,
                                             mm_va_t va)
{
    cursor->map = map;
    if (!mmi_vma_seek_area(cursor, map,
                           MMI_VMA_BEYOND(va) ? MMI_VMA_TOP : (uintptr_t)(va >> MM_PAGE_SHIFT)))
        return NULL;
    return mmi_vma_leaf_area(cursor->node[0], cursor->at[0]);
}

MM_VMA_API struct mm_vma *mmi_vma_cursor_leaf_next(struct mm_vma_cursor *cursor)
{
    const struct mm_vma_node *leaf;
    unsigned i;

    if (cursor->node[0] == NULL || !mmi_vma_leaf_after(cursor, cursor->map))
        return NULL;
    leaf = cursor->node[0];
    if (cursor->map->height > 1) /* areas lie anywhere: their latencies overlap */
        for (i = 0; i < leaf->u.leaf.count; i++)
            MMI_VMA_PREFETCH(mmi_vma_leaf_area(leaf, i));
    return mmi_vma_leaf_area(leaf, 0);
}

MM_VMA_API struct mm_vma *mm_vma_cursor_prev(struct mm_vma_cursor *cursor)
{
    if (cursor->node[0] == NULL)
        return NULL;
    if (cursor->at[0] != 0)
        cursor->at[0]--;
    else if (!mmi_vma_leaf_before(cursor, cursor->map))
        return NULL;
    return mmi_vma_leaf_area(cursor->node[0], cursor->at[0]);
}

/* ---- Map: duplicate -------------------------------------------------------------------------------- */

/* Nodes that are being filled, one a level; the highest is the root to be. */
struct mmi_vma_build {
    struct mm_vma_map *map;
    struct mm_vma_node *open[MM_VMA_LEVELS];
    uintptr_t top;
};

/* Hangs the open node of `level` below the open one above it, which has room. */
static void mmi_vma_build_hang(struct mmi_vma_build *b, uintptr_t level, uint32_t gap)
{
    struct mm_vma_node *parent = b->open[level + 1];

    if (parent == NULL) {
        parent = mmi_vma_node_take(b->map, false);
        b->open[level + 1] = parent;
        b->top = level + 1;
    }
    mmi_vma_inner_put(parent, parent->u.inner.count, mmi_vma_first(b->open[level], level),
                      b->open[level], gap);
    mmi_vma_put32(&parent->u.inner.count, parent->u.inner.count + 1);
}

/* The open leaf is complete, and `next` starts behind it: full nodes above it make way first. */
static void mmi_vma_build_leaf(struct mmi_vma_build *b, uintptr_t next)
{
    uintptr_t level = 0;

    while (b->open[level + 1] != NULL &&
           b->open[level + 1]->u.inner.count == MM_VMA_INNER_CHILDREN)
        level++;
    for (; level != 0; level--) {
        mmi_vma_build_hang(b, level, mmi_vma_inner_gap(b->open[level]));
        b->open[level] = mmi_vma_node_take(b->map, false);
    }
    mmi_vma_build_hang(b, 0, mmi_vma_leaf_gap(b->open[0], next));
    b->open[0] = NULL;
}

/* Adds an area behind all others. */
static void mmi_vma_build_push(struct mmi_vma_build *b, struct mm_vma *vma)
{
    struct mm_vma_node *leaf = b->open[0];

    if (leaf != NULL && (leaf->u.leaf.count == MM_VMA_LEAF_AREAS ||
                         leaf->u.leaf.high != MMI_VMA_HIGH(vma->start))) {
        mmi_vma_build_leaf(b, vma->start);
        leaf = NULL;
    }
    if (leaf == NULL) {
        leaf = mmi_vma_node_take(b->map, true);
        mmi_vma_put32(&leaf->u.leaf.high, MMI_VMA_HIGH(vma->start));
        b->open[0] = leaf;
    }
    mmi_vma_leaf_put(leaf, leaf->u.leaf.count, vma);
    mmi_vma_put32(&leaf->u.leaf.count, leaf->u.leaf.count + 1);
    b->map->count++;
}

static void mmi_vma_build_end(struct mmi_vma_build *b)
{
    uintptr_t level;

    if (b->open[0] == NULL)
        return;
    if (b->top != 0)
        mmi_vma_build_leaf(b, MMI_VMA_TOP);
    for (level = 1; level < b->top; level++)
        mmi_vma_build_hang(b, level, mmi_vma_inner_gap(b->open[level]));
    mmi_vma_put_child(&b->map->root, b->open[b->top]);
    mm_store(&b->map->height, b->top);
}

/* A packed copy has at most as many nodes as the map that it is made from. */
MM_VMA_API enum mm_status mm_vma_map_dup(struct mm_vma_map *to, struct mm_vma_map *from,
                                         struct mm_vma *(*copy)(void *ctx, struct mm_vma *area,
                                                                bool *failed),
                                         void *ctx)
{
    struct mmi_vma_build build;
    struct mm_vma_cursor c;
    struct mm_vma *vma, *twin;
    bool failed = false;
    unsigned level;

    if (to->root != NULL)
        return MM_ERR_INVALID;
    if (mmi_vma_pool_fill(to, from->nodes) != MM_OK)
        return MM_ERR_NOMEM;
    build.map = to;
    build.top = 0;
    for (level = 0; level < MM_VMA_LEVELS; level++)
        build.open[level] = NULL;
    for (vma = mm_vma_cursor_seek(&c, from, 0); vma != NULL; vma = mm_vma_cursor_next(&c)) {
        twin = copy(ctx, vma, &failed);
        if (failed)
            break;
        if (twin != NULL)
            mmi_vma_build_push(&build, twin);
    }
    mmi_vma_write_begin(to);
    mmi_vma_build_end(&build);
    mmi_vma_write_end(to);
    return failed ? MM_ERR_NOMEM : MM_OK;
}

/* ---- Map: check ---------------------------------------------------------------------------------- */

/* M1, M2, M6 and A1 of one leaf, and that it starts at or behind *end, which moves on. */
static bool mmi_vma_leaf_sound(const struct mm_vma_node *leaf, uintptr_t *end)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    const struct mm_vma *vma;
    uint32_t last;
    unsigned i;

    if (l->count == 0 || l->count > MM_VMA_LEAF_AREAS)
        return false;
    for (i = 0; i < l->count; i++) {
        vma = mmi_vma_leaf_area(leaf, i);
        if (vma == NULL || vma->start >= vma->end || vma->start < *end || vma->end > MMI_VMA_TOP)
            return false;
        last = MMI_VMA_HIGH(vma->end - 1) == l->high ? (uint32_t)(vma->end - 1) : UINT32_MAX;
        if (vma->start != mmi_vma_leaf_start(leaf, i) || l->last[i] != last ||
            ((l->area[i] ^ vma->flags) & MM_VMA_INLINE_FLAGS) != 0)
            return false;
        *end = vma->end;
    }
    for (; i < MM_VMA_LEAF_AREAS; i++)
        if (l->start[i] != MMI_VMA_NO_START)
            return false;
    return true;
}

/* M1, M3, M4 of an inner node, as far as its children tell. */
static bool mmi_vma_inner_sound(const struct mm_vma_node *node, uintptr_t level)
{
    const struct mmi_vma_inner *n = &node->u.inner;
    unsigned i;

    if (n->count == 0 || n->count > MM_VMA_INNER_CHILDREN)
        return false;
    for (i = 0; i < n->count; i++) {
        if (n->child[i] == NULL || n->key[i] != mmi_vma_first(n->child[i], level - 1))
            return false;
        if (level > 1 && n->gap[i] != mmi_vma_inner_gap(n->child[i]))
            return false;
    }
    for (; i < MM_VMA_INNER_CHILDREN; i++)
        if (n->key[i] != UINTPTR_MAX)
            return false;
    return true;
}

MM_VMA_API enum mm_status mm_vma_map_check(const struct mm_vma_map *map)
{
    struct mm_vma_cursor c;
    uintptr_t level, end = 0, areas = 0, nodes = 0;
    bool more = map->root != NULL, sound = map->height + 1 < MM_VMA_LEVELS;

    if (more && sound) { /* the leftmost path */
        c.node[map->height] = map->root;
        c.at[map->height] = 0;
        for (level = map->height; level != 0; level--) {
            c.at[level] = 0;
            c.node[level - 1] = c.node[level]->u.inner.child[0];
        }
        c.at[0] = 0;
    }
    while (more && sound) {
        for (level = 1; level <= map->height && c.at[level - 1] == 0; level++) {
            if (c.at[level] == 0 && sound) { /* a node is judged when the walk enters it */
                nodes++;
                sound = mmi_vma_inner_sound(c.node[level], level);
            }
        }
        nodes++;
        sound = sound && mmi_vma_leaf_sound(c.node[0], &end);
        areas += c.node[0]->u.leaf.count;
        if (sound && map->height != 0)
            sound = c.node[1]->u.inner.gap[c.at[1]] ==
                    mmi_vma_leaf_gap(c.node[0], mmi_vma_behind(&c, map, 0));
        more = mmi_vma_leaf_after(&c, map);
    }
    return sound && areas == map->count && nodes == map->nodes ? MM_OK : MM_ERR_CORRUPT;
}

#ifdef __cplusplus
}
#endif

#endif /* MM_VMA_IMPLEMENTATION */

/*
 * Permission to use, copy, modify, and/or distribute this software for any purpose with or without
 * fee is hereby granted.
 *
 * THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS
 * SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE
 * AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
 * WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
 * NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE
 * OF THIS SOFTWARE.
 */
