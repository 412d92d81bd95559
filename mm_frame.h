/* mm_frame.h - v0.1.0 - page frames of physical memory, for kernels and hypervisors - 0BSD
 *
 * Hands out the frames of physical memory: single ones, runs of any length, huge (2 MiB) and giant
 * (1 GiB) ones, from the zones of a boot map, on any number of CPUs. State is one bit a frame and a
 * little above it (0.15 byte a frame); the memory itself is never touched.
 *
 *   In exactly one C or C++ file:
 *       #define MM_FRAME_IMPLEMENTATION
 *       #include "mm_frame.h"
 *   Everywhere else:
 *       #include "mm_frame.h"
 *
 * CONTENTS
 *   1 Quick start    2 Hooks    3 Concepts    4 Guarantees    5 Limits
 *
 * 1 QUICK START
 * =============
 *   --- quick start (quickstart.c) ---
 *   #define MM_FRAME_IMPLEMENTATION
 *   #include "mm_frame.h"
 *   #include <stdio.h>
 *
 *   static unsigned char metadata[1 << 16];
 *
 *   int main(void)
 *   {
 *       // What the firmware reports: overlaps, odd borders and disorder are welcome.
 *       static const struct mm_frame_range map[] = {
 *           {0x100000, 0x7f00000, MM_FRAME_USABLE},
 *           {0x0, 0x9fc00, MM_FRAME_USABLE},
 *           {0x200000, 0x180000, MM_FRAME_KERNEL}, // our own image
 *       };
 *       struct mm_frame_config config = {0};
 *       struct mm_frame_pool pool;
 *       mm_pa_t frame, huge;
 *
 *       config.map = map;
 *       config.map_count = sizeof map / sizeof map[0];
 *       config.meta = metadata;
 *       config.meta_size = sizeof metadata;
 *       if (mm_frame_init(&pool, &config) != MM_OK)
 *           return 1;
 *
 *       frame = mm_frame_alloc(&pool, 0); // MM_PA_NONE if there is none; 0 is a frame like others
 *       huge = mm_frame_alloc_order(&pool, MM_FRAME_HUGE_ORDER, 0);
 *       printf("frame %#llx, 2 MiB at %#llx\n", (unsigned long long)frame,
 *              (unsigned long long)huge);
 *
 *       if (mm_frame_free(&pool, frame) != MM_OK)
 *           return 1;
 *       if (mm_frame_free(&pool, frame) != MM_ERR_INVALID) // a double free is refused
 *           return 1;
 *       return mm_frame_free_order(&pool, huge, MM_FRAME_HUGE_ORDER) == MM_OK ? 0 : 1;
 *   }
 *   --- end ---
 *
 * 2 HOOKS
 * =======
 * Macros, to be defined before the header is included (everywhere alike); each is optional. They
 * stand in functions with locals of their own: what they expand to calls functions whose names have
 * a prefix (not `cpu()`). A lock of your own that waits has to answer MM_FENCE_CPUS meanwhile.
 *
 *   MM_CPU_MAX, MM_CPU_ID()            how many CPUs, and the number of this one. The defaults (1
 *                                      and 0) are for one CPU. MM_CPU_ID() may return MM_CPU_MAX
 *                                      or more where no number is known or per-CPU data must not
 *                                      be touched (early boot of a second CPU, NMI).
 *   MM_CPU_PIN(s), MM_CPU_UNPIN(s),    between them the code neither migrates nor is interrupted by
 *   MM_CPU_STATE_T                     code that uses the same pool. In a kernel: save interrupt
 *                                      state in s and disable, restore. The span is some dozen
 *                                      instructions, or the time stated at a function.
 *   MM_FENCE_CPUS()                    every CPU passes a full memory barrier before it returns: an
 *                                      interrupt to all CPUs; membarrier(2) in a process. With it
 *                                      the hot paths contain no atomic read-modify-write; without
 *                                      it they contain one exchange. Called when a CPU needs what
 *                                      another CPU has for itself, never in the common case, and
 *                                      with the CPU pinned: two CPUs may wait for each other, so
 *                                      while it waits it must answer the other's request.
 *   MM_CPU_RELAX()                     in each turn of a wait (pause, yield). In a kernel that
 *                                      waits with interrupts off let it answer requests of
 *                                      MM_FENCE_CPUS().
 *   MM_FRAME_LOCK_T, MM_FRAME_LOCK ... the lock of slow paths (hotplug, LRU); default MM_LOCK ...,
 *                                      a built-in spinlock. Define the whole group or nothing.
 *   MM_NO_LOCKS                        one CPU only: no fences, no locks.
 *   MM_PAGE_SHIFT                      12
 *   MM_FRAME_HUGE_ORDER                9: 512 frames, 2 MiB
 *   MM_FRAME_ZONE_MAX                  8
 *   MM_DEBUG, MM_REPORT(r), MM_ASSERT  0; 1: refused misuse goes to MM_REPORT; 2: invariants are
 *                                      asserted; 3: mm_frame_check runs after every slow call
 *
 * What these expand to stands in inline functions of external linkage too: a function of yours
 * there is not `static` in C (compilers warn), but a plain one, or extern inline with gnu_inline,
 * or all is MM_FRAME_STATIC.
 *
 * Functions, in struct mm_frame_hooks: zero-fill, view of metadata, pressure; callbacks that are
 * arguments: migrate, evict, print. They are called without a lock held and without the CPU pinned.
 *
 * 3 CONCEPTS
 * ==========
 * Zones. Ranges of addresses named by the caller, tried in a fallback order. Each has watermarks:
 * below `low` the pressure hook is told, and only urgent requests get frames below `min`.
 *
 * Spans and sections. A span is a run of usable frames of one zone. The bitmap is cut into sections
 * of WORD x WORD frames (4,096 frames, 16 MiB, on a 64-bit machine): 64 words of 64 frames and a
 * header of one cache line. Only memory that exists has sections, so holes are free of cost.
 *
 *   owners              1 word a section: the CPU that has it to itself
 *   section headers     some  1 bit a word: may hold a free frame
 *                       full  1 bit a word: all frames free
 *                       huge  1 bit a 2 MiB block: allocated as one, its words are not kept
 *   words               1 bit a frame: free
 *   sets of sections    hierarchical bitmaps, a pair for each CPU and one for nobody's sections:
 *                       sections with free frames, sections with wholly free 2 MiB blocks
 *
 * Per-CPU caches without cached frames. A CPU does not take frames out of the bitmap to keep them
 * in a list: it takes sections, by a compare-and-swap on their owner word. It changes the words of
 * its sections with plain loads and stores. So every bit is true at every moment: any double free
 * is found at once on any CPU, and a freed frame can heal its 2 MiB block at once. A CPU that needs
 * a section of another one (to free a frame there, or because its own are used up) takes it away: a
 * compare-and-swap, MM_FENCE_CPUS(), and a wait until that CPU is outside its few instructions
 * (see "Biased ownership" in the core block). A section that keeps changing hands becomes nobody's:
 * then each access locks it for a moment by compare-and-swap. Therefore an allocation succeeds
 * whenever a fitting free frame exists in the allowed zones, whichever CPU has it.
 *
 * Lowest first. A CPU takes the lowest free frames of its sections, word by word, in sweeps:
 * upward, and from the lowest again after some words or before it would break a word that is wholly
 * free. That compacts: after long random use at half occupancy nearly all free memory is in whole 2
 * MiB blocks again.
 *
 * Why words are not changed by compare-and-swap one by one. A locked instruction costs several
 * times what the rest of a free costs, and random frees seldom share a word, so there is nothing to
 * batch. Here the compare-and-swap is on the owner of a section, and pays for thousands of plain
 * stores.
 *
 * 4 GUARANTEES
 * ============
 * Errors     A refused call changes nothing. Double frees, frees of addresses outside the pool and
 *            misaligned ones are refused in every build.
 * Locking    Every function that takes a pool may be called on any CPU at any time, also from an
 *            interrupt handler when MM_CPU_PIN and MM_FRAME_LOCK disable interrupts, except
 *            mm_frame_init. From an NMI let MM_CPU_ID() return MM_CPU_MAX: such calls wait for
 *            nobody (they pass over a section that is in use, and a free may return MM_ERR_BUSY).
 * Time       mm_frame_alloc and mm_frame_free are some dozen instructions on lines that no other
 *            CPU writes (`make count` prints how many); the rest is O(log sections) where nothing
 *            else is stated.
 * Memory     mm_frame_meta_size() tells: per section (16 MiB) 576 bytes and (CPUs + 1) / 4 bytes,
 *            0.141 byte a frame; a CPU and a span some hundred bytes; nothing for holes.
 * Stack      At most 1.5 KiB (mm_frame_offline, mm_frame_compact), else 700 bytes; no recursion.
 *
 * 5 LIMITS
 * ========
 * Frame numbers fit uintptr_t: on a 32-bit host memory from 2^44 up is ignored. The pool knows
 * whether a frame is in use, not by whom, nor how long a run was: the caller frees a run by address
 * and length, in parts if it likes. Watermarks are exact on one CPU; on several, each other CPU may
 * have one word (64 frames) in hand when the zone reaches `min`. Peaks of use can be 64 frames a
 * CPU too low, or nine huge blocks where a CPU allocates such.
 */

/* mm core begin */
#ifndef MM_CORE_H
#define MM_CORE_H

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
#define MM_STATUS_LIST(X)                               \
    X(OK, 0, 0, "success")                              \
    X(ERR_NOMEM, -1, 12, "out of memory")               \
    X(ERR_INVALID, -2, 22, "invalid argument or state") \
    X(ERR_PERM, -3, 13, "permission denied")            \
    X(ERR_ALIGN, -4, 22, "misaligned address or size")  \
    X(ERR_EXISTS, -5, 17, "exists already")             \
    X(ERR_NOENT, -6, 2, "no such entry")                \
    X(ERR_BUSY, -7, 16, "in use")                       \
    X(ERR_LIMIT, -8, 7, "limit reached")                \
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
#define MMI_STATUS_CASE(name, value, error, text) \
    case (value):                                 \
        return "MM_" #name;
        MM_STATUS_LIST(MMI_STATUS_CASE)
#undef MMI_STATUS_CASE
    default:
        return "MM_?";
    }
}

/* What a system call returns for a status: 0, or a negative error number as on Linux; -EINVAL
 * for a value that is no status. O(1), no locking. */
static inline int mm_status_errno(enum mm_status status)
{
    switch ((int)status) {
#define MMI_STATUS_CASE(name, value, error, text) \
    case (value):                                 \
        return -(error);
        MM_STATUS_LIST(MMI_STATUS_CASE)
#undef MMI_STATUS_CASE
    default:
        return -22;
    }
}

/* ---- Compiler ----------------------------------------------------------------------------- */

#define MM_LIKELY(x)   __builtin_expect(!!(x), 1)
#define MM_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define MM_NOINLINE    __attribute__((noinline))
#define MM_COLD        __attribute__((noinline, cold))

/* The small functions below are expanded where they are used, also in inline functions with
 * external linkage (C99 6.7.4), and never emitted. */
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
#define MM_WORD_BITS  64
#define MM_WORD_SHIFT 6
#else
#define MM_WORD_BITS  32
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

#if !defined(MM_PORTABLE_BITS) && \
    (defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__riscv_zbb))
#if MM_WORD_BITS == 64 /* ^, not -: on x86 it cancels, and bsr alone is left */
#define MMI_CTZ(x) ((unsigned)__builtin_ctzll(x))
#define MMI_FLS(x) (63u ^ (unsigned)__builtin_clzll(x))
#else
#define MMI_CTZ(x) ((unsigned)__builtin_ctz(x))
#define MMI_FLS(x) (31u ^ (unsigned)__builtin_clz(x))
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
#define MM_LOCK_T       unsigned char
#define MM_LOCK_STATE_T unsigned char
#define MM_LOCK_INIT(l) (*(l) = 0)
#define MM_LOCK(l, s)   ((void)(l), (void)((s) = 0))
#define MM_UNLOCK(l, s) ((void)(l), (void)(s))
#endif

#ifdef MM_LOCK
#if !defined(MM_LOCK_T) || !defined(MM_LOCK_STATE_T) || !defined(MM_LOCK_INIT) || \
    !defined(MM_UNLOCK)
#error "define all of MM_LOCK_T, MM_LOCK_STATE_T, MM_LOCK_INIT, MM_LOCK and MM_UNLOCK, or none"
#endif
#else
/* Test-and-test-and-set spinlock: for callers that bring no lock of their own. */
#define MM_LOCK_T       uintptr_t
#define MM_LOCK_STATE_T unsigned char
#define MM_LOCK_INIT(l) mm_store((l), 0)
#define MM_LOCK(l, s)   ((void)((s) = 0), mmi_spin_lock(l))
#define MM_UNLOCK(l, s) ((void)(s), mm_store_release((l), 0))
static inline void mmi_spin_lock(uintptr_t *lock)
{
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0)
        while (mm_load(lock) != 0)
            MM_CPU_RELAX();
}
#endif

#ifdef MM_READ_LOCK
#if !defined(MM_RWLOCK_T) || !defined(MM_RWLOCK_INIT) || !defined(MM_READ_UNLOCK) || \
    !defined(MM_WRITE_LOCK) || !defined(MM_WRITE_UNLOCK)
#error "define all of MM_RWLOCK_T, _INIT, MM_READ_LOCK, _UNLOCK, MM_WRITE_LOCK, _UNLOCK, or none"
#endif
#else
#define MM_RWLOCK_T           MM_LOCK_T
#define MM_RWLOCK_INIT(l)     MM_LOCK_INIT(l)
#define MM_READ_LOCK(l, s)    MM_LOCK(l, s)
#define MM_READ_UNLOCK(l, s)  MM_UNLOCK(l, s)
#define MM_WRITE_LOCK(l, s)   MM_LOCK(l, s)
#define MM_WRITE_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif

/* ---- CPUs ------------------------------------------------------------------------------------ */

#ifndef MM_CPU_MAX
#define MM_CPU_MAX 1 /* CPUs with caches of their own */
#endif
#ifndef MM_CPU_ID
#define MM_CPU_ID() \
    0u /* a number from MM_CPU_MAX up: "no CPU known here", served without a cache */
#endif
#ifndef MM_CPU_STATE_T
#define MM_CPU_STATE_T unsigned char
#endif
#ifdef MM_CPU_PIN
#ifndef MM_CPU_UNPIN
#error "define both of MM_CPU_PIN and MM_CPU_UNPIN, or none"
#endif
#else
#define MM_CPU_PIN(s)   ((void)((s) = 0)) /* from here no migration, no reentry by interrupt */
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

/* Waits until the CPU whose busy word this is cannot be inside any more with what it loaded there
 * before the caller's last change. `spins` bounds the wait (0: no bound): false if it is still
 * inside. */
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

#ifndef MM_FRAME_H
#define MM_FRAME_H

#define MM_FRAME_VERSION_MAJOR 0
#define MM_FRAME_VERSION_MINOR 1
#define MM_FRAME_VERSION_PATCH 0

/* ---- Configuration --------------------------------------------------------------------------- */

#ifndef MM_FRAME_HUGE_ORDER
#define MM_FRAME_HUGE_ORDER 9 /* a huge block is 2^9 frames, 2 MiB */
#endif
#define MM_FRAME_GIANT_ORDER (2 * MM_FRAME_HUGE_ORDER)
#ifndef MM_FRAME_ZONE_MAX
#define MM_FRAME_ZONE_MAX 8 /* at most 16 */
#endif

#ifdef MM_FRAME_LOCK
#if !defined(MM_FRAME_LOCK_T) || !defined(MM_FRAME_LOCK_STATE_T) || \
    !defined(MM_FRAME_LOCK_INIT) || !defined(MM_FRAME_UNLOCK)
#error "define all of MM_FRAME_LOCK_T, _LOCK_STATE_T, _LOCK_INIT, _LOCK and _UNLOCK, or none"
#endif
#else
#define MM_FRAME_LOCK_T       MM_LOCK_T
#define MM_FRAME_LOCK_STATE_T MM_LOCK_STATE_T
#define MM_FRAME_LOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_FRAME_LOCK(l, s)   MM_LOCK(l, s)
#define MM_FRAME_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif

#ifdef MM_FRAME_STATIC
#ifndef MM_FRAME_IMPLEMENTATION
#define MM_FRAME_IMPLEMENTATION /* static functions are of use only where they are defined */
#endif
#define MM_FRAME_API    static __attribute__((unused))
#define MM_FRAME_INLINE static inline
#else
#define MM_FRAME_API    extern
#define MM_FRAME_INLINE inline
#endif

MM_STATIC_ASSERT(MM_PAGE_SHIFT + MM_WORD_SHIFT <= 32, "mmi_frame_first_of");
MM_STATIC_ASSERT(MM_FRAME_HUGE_ORDER >= MM_WORD_SHIFT && MM_FRAME_HUGE_ORDER <= 2 * MM_WORD_SHIFT,
                 "a huge block is made of whole words and fits a section");
MM_STATIC_ASSERT(MM_FRAME_ZONE_MAX >= 1 && MM_FRAME_ZONE_MAX <= 16,
                 "a zone's number has four bits");

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Boot maps ------------------------------------------------------------------------------- */

/* What a range of a boot map holds, from the least to the most restrictive: where entries overlap,
 * the greater value wins, page by page. */
enum mm_frame_type {
    MM_FRAME_USABLE,
    MM_FRAME_BOOTLOADER,   /* free once the boot loader's data are no longer needed */
    MM_FRAME_ACPI_RECLAIM, /* free once the ACPI tables have been read */
    MM_FRAME_KERNEL,
    MM_FRAME_ACPI_NVS,
    MM_FRAME_DEVICE,
    MM_FRAME_RESERVED,
    MM_FRAME_BAD,
    MM_FRAME_TYPES
};

/* A range of a boot map, in bytes; base + size may be 2^64 but not more. Size 0 is allowed and
 * means nothing. */
struct mm_frame_range {
    mm_pa_t base;
    uint64_t size;
    enum mm_frame_type type;
};

/* Makes a boot map orderly: sorted, page-aligned, without overlaps or empty ranges, neighbours of
 * one type merged. A page is usable if every byte of it is; else it has the most restrictive type
 * of its bytes. What could become usable must not grow by a hole: a page that is partly a hole is
 * left out if the rest is usable, and reserved if the most restrictive type of the rest is free
 * later (the boot loader's, ACPI tables).
 *
 *   map, count       the ranges, in any order
 *   out, capacity    where the result goes (may not overlap `map`); needs at most 3 * count
 *   out_count        how many ranges the result has, also on MM_ERR_LIMIT
 *
 * MM_OK; MM_ERR_INVALID for an unknown type or a range that wraps around 2^64, MM_ERR_LIMIT if
 * `capacity` is too small; on an error `out` is untouched.
 * O(count^2); touches only its arguments. Needs no pool. */
MM_FRAME_API enum mm_status mm_frame_map_clean(const struct mm_frame_range *map, size_t count,
                                               struct mm_frame_range *out, size_t capacity,
                                               size_t *out_count);

/* ---- Types of a pool ------------------------------------------------------------------------- */

struct mm_frame_pool;
struct mm_frame_desc;

/* How much a zone lacks when the pressure hook is called. */
enum mm_frame_pressure {
    MM_FRAME_PRESSURE_LOW, /* free frames fell below `low`: time to reclaim in the background */
    MM_FRAME_PRESSURE_FAIL /* an allocation is about to fail: free something now */
};

/* Functions of the caller; each may be NULL. Called without locks and with the CPU not pinned. */
struct mm_frame_hooks {
    void *ctx;
    /* Fill `size` bytes at `pa` with zeros (MM_FRAME_ZERO needs it). */
    void (*zero)(void *ctx, mm_pa_t pa, uint64_t size);
    /* An address for `size` bytes at `pa`, writable for good: metadata that the pool carves out of
     * the map is kept there. NULL if there is none. */
    void *(*view)(void *ctx, mm_pa_t pa, uint64_t size);
    /* Memory is short in `zone`. MM_FRAME_PRESSURE_FAIL: return true to have the allocation tried
     * again (at most 8 times). The return value of the other is ignored. */
    bool (*pressure)(void *ctx, struct mm_frame_pool *pool, unsigned zone,
                     enum mm_frame_pressure level);
};

/* A zone, as the caller describes it. Zones may not overlap. */
struct mm_frame_zone_config {
    const char *name;
    mm_pa_t start,
        end; /* bytes, end exclusive; both multiples of the page size; MM_PA_NONE: no end */
    uint64_t min, low, high; /* watermarks in frames, min <= low <= high; all 0: none */
    uint64_t spare;          /* bytes of memory that may come on-line later; counted in sections */
    bool isolated;           /* never a fallback for another zone (device memory, movable memory) */
};

enum mm_frame_policy {
    MM_FRAME_LOWEST_FIRST, /* lowest address first: keeps large blocks whole */
    MM_FRAME_NEXT_FIT      /* go on behind the last allocation: spreads use over all frames */
};

/* What mm_frame_init needs to know; zero means "default" everywhere. */
struct mm_frame_config {
    const struct mm_frame_range *map; /* boot map in any order */
    size_t map_count;
    const struct mm_frame_zone_config *zones; /* none: one zone "Normal" of all addresses */
    unsigned zone_count;
    void *meta; /* memory for metadata, any alignment; NULL: carved out of the map (hooks.view) */
    size_t meta_size;
    mm_pa_t carve_below; /* carve below this address (0: anywhere): what `view` can reach early */
    unsigned held_types; /* types (1u << type) managed too, but held until mm_frame_release */
    bool descriptors;    /* have a struct mm_frame_desc for each frame */
    enum mm_frame_policy policy;
    struct mm_frame_hooks hooks;
};

/* A section: MM_WORD_BITS words of the bitmap.
 * S1  word w is wholly or partly free  =>  bit w of `some` is set, unless w is in a huge block
 * S2  bit w of `full` set  =>  word w is wholly free. The converse holds for every word but the
 *     current word of the CPU that the section is biased to.
 * S3  bit h of `huge` set  =>  the words of that block are outside `some` and `full`, and stale
 * S4  only who owns the section (see "Biased ownership") changes it or its words
 * S5  `free` is right whenever the section is not biased to a CPU */
struct mm_frame_section {
    uintptr_t some;
    uintptr_t full;
    uintptr_t huge; /* first bit of each huge block that is allocated as one */
    uintptr_t pfn;  /* frame number of the first frame */
    uintptr_t free; /* free frames */
    uintptr_t was;  /* owner before it was locked; the locker's */
    uintptr_t
        wanted; /* another CPU waits for it: set by anybody, cleared by who locks the section */
    uint16_t managed; /* frames that exist: in spans */
    uint8_t zone;
    uint8_t taken; /* how often it was taken away from a CPU since it was wholly free */
} __attribute__((aligned(64)));

/* A run of managed frames. Frame number + delta = index of the frame in the bitmap. */
struct mm_frame_span {
    uintptr_t pfn, end;
    uintptr_t delta;
    unsigned zone;
};

/* Spans sorted by frame number. */
struct mm_frame_span_table {
    uintptr_t count;
    struct mm_frame_span *span;
};

/* Where a CPU allocates in a zone: only this CPU changes it, but for `word`.
 * C1  `word` is of a section of this CPU, or it is the empty dummy: whoever takes the section away
 *     stores that, so that an allocation need not look at the owner. The current word is always
 *     known by `section` and `pa`. */
struct mm_frame_cursor {
    uintptr_t *word; /* current word, or an empty dummy */
    mm_pa_t pa;      /* address of its first frame */
    uintptr_t used;  /* frames this CPU allocated minus frames it freed, modulo 2^word */
    struct mm_frame_section *section;
    uintptr_t room;  /* frames that may be taken before the watermarks are looked at again */
    uintptr_t sweep; /* words found since the search started from the lowest section */
    uintptr_t look;  /* `used` at which to look at the peak again */
    struct mm_frame_section *huge; /* section of the last huge block */
};

/* What a CPU has to itself. */
struct mm_frame_cpu {
    uintptr_t busy;
    mm_pa_t span_pa;                 /* the span of the last free: address of its first frame, */
    uintptr_t span_size, span_index; /* frames, bitmap index of the first */
    struct mm_frame_cursor *span_cursor; /* of its zone */
    uintptr_t freed;                     /* frames freed there, not yet counted by that cursor */
    uintptr_t taken_away;                /* sections it took from other CPUs */
    uintptr_t stolen;                    /* number of the one it took last to allocate there */
    struct mm_frame_cursor cursor[MM_FRAME_ZONE_MAX];
    struct mm_frame_section
        *common[MM_FRAME_ZONE_MAX];        /* nobody's section where it found a frame last */
    uintptr_t noted[MM_FRAME_ZONE_MAX];    /* frames it had in use when the peak was looked at */
    uintptr_t run[MM_FRAME_ZONE_MAX];      /* bitmap index behind the last run */
    uintptr_t failures[MM_FRAME_ZONE_MAX]; /* allocations that found nothing, the zone preferred */
    uintptr_t refused;                     /* calls refused as misuse */
} __attribute__((aligned(512)));           /* 1,024 bytes with 8 zones: its place is a shift away */

/* Where a CPU's searches for less than a word go on, by order; [0]: small blocks since they started
 * from the lowest section. */
struct mm_frame_small {
    uintptr_t at[MM_FRAME_ZONE_MAX][MM_WORD_SHIFT + 1];
} __attribute__((aligned(64)));

struct mm_frame_zone {
    const char *name;
    uintptr_t pfn, end;       /* limits, in frame numbers */
    uintptr_t first, last;    /* its sections: first <= number < last */
    uintptr_t sections;       /* first + those in use; the rest is spare */
    uintptr_t managed;        /* frames */
    uintptr_t min, low, high; /* watermarks in frames */
    uintptr_t used;           /* frames allocated minus freed where no CPU number was known */
    uintptr_t peak;           /* most frames in use */
    uintptr_t failures;       /* allocations that found nothing */
    uintptr_t pressed;        /* below `low` since last above `high` */
    uintptr_t vacant;         /* sections without frames: all went off-line */
    unsigned fallback_count;
    uint8_t fallback[MM_FRAME_ZONE_MAX]; /* zones to try in turn, itself first */
    bool isolated;
};

/* A pool. Its fields are the implementation's; read them through the functions below. */
struct mm_frame_pool {
    struct mm_frame_cpu *cpu;         /* MM_CPU_MAX of them */
    struct mm_frame_small *small;     /* the same */
    struct mm_frame_section *section; /* by section number */
    uintptr_t *owner;           /* by section number: a CPU, MMI_FRAME_NOBODY or MM_BIAS_LOCKED */
    uintptr_t *word;            /* the bitmap, by index / MM_WORD_BITS */
    struct mm_frame_desc *desc; /* by index, or NULL */
    uintptr_t sections;         /* how many, spare ones included */
    uintptr_t *sets;            /* 2 * (MM_CPU_MAX + 1) sets of sections */
    uintptr_t set_words;        /* words of one */
    uintptr_t level_at[12];     /* where each level of a set starts */
    unsigned levels;
    enum mm_frame_policy policy;
    struct mm_frame_span_table table[2]; /* one is current; a change fills the other */
    uintptr_t table_current, span_capacity;
    uintptr_t anonymous; /* calls without a CPU number that look at the spans just now */
    struct mm_frame_section
        *nowhere;      /* behind the last, nobody's, of no frames: for idle cursors */
    uintptr_t nothing; /* its word */
    unsigned zone_count;
    unsigned plain; /* bit z: zone z has no watermarks */
    struct mm_frame_zone zone[MM_FRAME_ZONE_MAX];
    struct mm_frame_hooks hooks;
    size_t meta_bytes;
    mm_pa_t carved, carved_end; /* metadata carved out of the map, or MM_PA_NONE */
    MM_FRAME_LOCK_T lock;       /* spans, hotplug, compaction */
};

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* Bytes of metadata that mm_frame_init needs for `config` (an upper bound, alignment included).
 * The errors of mm_frame_init but MM_ERR_NOMEM. O(map_count^2), no locking. */
MM_FRAME_API enum mm_status mm_frame_meta_size(const struct mm_frame_config *config, size_t *bytes);

/* Makes `pool` manage the usable frames of the boot map. All of them are free then, those of
 * `held_types` allocated. The pool keeps no reference to `config`, its map or its zones' array;
 * names of zones, metadata and hooks must stay.
 *
 * MM_OK; MM_ERR_INVALID: a bad map (see mm_frame_map_clean), zones that overlap, are empty, out of
 * order of their watermarks or more than MM_FRAME_ZONE_MAX, unknown types or policy, or carving
 * without hooks.view; MM_ERR_ALIGN: a zone's limits are not page-aligned; MM_ERR_NOMEM: the
 * metadata do not fit `meta_size`, or no range of the map is large enough to carve them out. On an
 * error *pool is undefined and must be initialised again before use. An empty map is fine: memory
 * may come later. O(map_count^2 + metadata). Not to be called while the pool is in use; needs no
 * destruction. */
MM_FRAME_API enum mm_status mm_frame_init(struct mm_frame_pool *pool,
                                          const struct mm_frame_config *config);

/* ---- Allocation ------------------------------------------------------------------------------ */

/* Flags of an allocation; the low bits are the number of the preferred zone. */
#define MM_FRAME_ZONE(n)   ((unsigned)(n))
#define MM_FRAME_ZONE_MASK 15u
#define MM_FRAME_ONLY      16u  /* this zone and no other */
#define MM_FRAME_URGENT    32u  /* may go below `min` */
#define MM_FRAME_ZERO      64u  /* filled with zeros through hooks.zero */
#define MM_FRAME_NOWAIT    128u /* don't call the pressure hook */
#define MM_FRAME_FLAGS     255u

/* Allocates one frame: the current word's lowest free one.
 *
 *   flags    MM_FRAME_ZONE(n) and others above
 *
 * The frame's address; MM_PA_NONE if no zone allowed has a free frame above its watermark, or for
 * bad flags (unknown bits, no such zone, MM_FRAME_ZERO without hooks.zero).
 * About 20 instructions if the CPU's current word has a free frame; else O(log sections) and one
 * compare-and-swap a section taken. Locking: see GUARANTEES. */
MM_FRAME_INLINE mm_pa_t mm_frame_alloc(struct mm_frame_pool *pool, unsigned flags);

/* Frees the frame at `pa`, which an allocation returned, alone or as part of a run.
 *
 * MM_OK; MM_ERR_ALIGN if `pa` is not page-aligned; MM_ERR_INVALID if it is not a frame of the pool
 * or is free already (a double free); MM_ERR_BUSY only without a CPU number (see GUARANTEES). On an
 * error nothing changed. Its descriptor is not looked at: what has references goes by mm_frame_put,
 * and is on no LRU. About 30 instructions if the frame is in a section of this CPU and its
 * word is neither empty before nor full after it; else as mm_frame_alloc. */
MM_FRAME_INLINE enum mm_status mm_frame_free(struct mm_frame_pool *pool, mm_pa_t pa);

/* Allocates 2^order frames in a row, aligned to their size. Order MM_FRAME_HUGE_ORDER is as fast as
 * a single frame; orders below a word come from few words; others search as mm_frame_alloc_run.
 * The first frame's address, or MM_PA_NONE as mm_frame_alloc, or if 2^order frames exceed any
 * memory. */
MM_FRAME_API mm_pa_t mm_frame_alloc_order(struct mm_frame_pool *pool, unsigned order,
                                          unsigned flags);

/* Frees 2^order frames in a row at `pa`, a multiple of their size; all must be allocated, no matter
 * by how many calls. As mm_frame_free; all or nothing. */
MM_FRAME_API enum mm_status mm_frame_free_order(struct mm_frame_pool *pool, mm_pa_t pa,
                                                unsigned order);

/* What a run must be like; zero means "no demand". */
struct mm_frame_request {
    uint64_t count;    /* frames in a row, at least 1 */
    uint64_t align;    /* in bytes, a power of two */
    uint64_t boundary; /* the run crosses no multiple of it; bytes, a power of two */
    mm_pa_t min;       /* lowest address allowed */
    mm_pa_t max;       /* first byte behind the highest address allowed; 0: no limit */
    unsigned flags;    /* of mm_frame_alloc */
};

/* Allocates `count` frames in a row, anywhere or with alignment, boundary and limits.
 * The first frame's address, or MM_PA_NONE if there is no such run above the watermarks, or if the
 * request contradicts itself (count 0 or beyond any memory, align or boundary no power of two or
 * smaller than a page, a boundary that the run must cross).
 * Runs that fit behind the last one, or into a wholly free huge block: O(log sections); else
 * O(frames / 64) of the zone: it reads the bitmap once. Takes the sections that it changes. */
MM_FRAME_API mm_pa_t mm_frame_alloc_run(struct mm_frame_pool *pool,
                                        const struct mm_frame_request *request);

/* Frees `count` frames in a row at `pa`: all or nothing. As mm_frame_free; MM_ERR_INVALID also for
 * count 0. O(count / 64). */
MM_FRAME_API enum mm_status mm_frame_free_run(struct mm_frame_pool *pool, mm_pa_t pa,
                                              uint64_t count);

/* Allocates just these frames: `count` of them from `pa` on, watermarks disregarded.
 * MM_OK; MM_ERR_BUSY if one is allocated; MM_ERR_NOENT if one is not of the pool; MM_ERR_ALIGN;
 * MM_ERR_INVALID for count 0 or a range that wraps. On an error nothing changed. O(count / 64). */
MM_FRAME_API enum mm_status mm_frame_alloc_at(struct mm_frame_pool *pool, mm_pa_t pa,
                                              uint64_t count);

/* Allocates up to `count` single frames into out[0..]. Returns how many (less only if no more are
 * to be had). About 6 instructions a frame. All flags of mm_frame_alloc. */
MM_FRAME_API size_t mm_frame_alloc_bulk(struct mm_frame_pool *pool, size_t count, unsigned flags,
                                        mm_pa_t *out);

/* Frees pa[0..count), in that order. Returns how many were freed: `count`, or the index of the
 * first that mm_frame_free would refuse, whose error goes to *status (which may be NULL); that one
 * and those behind it are untouched. Frames in one word that follow each other cost one access
 * together. */
MM_FRAME_API size_t mm_frame_free_bulk(struct mm_frame_pool *pool, size_t count, const mm_pa_t *pa,
                                       enum mm_status *status);

/* Takes every frame of the pool between `pa` and `pa` + `size` (bytes, rounded outward to pages)
 * out of use, holes passed over; *count, if not NULL, tells how many. MM_ERR_BUSY if one is
 * allocated, MM_ERR_INVALID for size 0 or a range that wraps. All or nothing. O(size / 64
 * pages). */
MM_FRAME_API enum mm_status mm_frame_reserve(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t size,
                                             uint64_t *count);

/* Gives reserved or held frames to the pool: those wholly inside the range (rounded inward); all
 * must be allocated, else MM_ERR_BUSY. As mm_frame_reserve otherwise. */
MM_FRAME_API enum mm_status mm_frame_release(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t size,
                                             uint64_t *count);

/* Whether the frame at `pa` is free: 1 yes, 0 no, MM_ERR_INVALID if it is not of the pool. A
 * snapshot. */
MM_FRAME_API int mm_frame_is_free(struct mm_frame_pool *pool, mm_pa_t pa);

/* Gives up what `cpu` has to itself (it goes off-line, or idle for long): its sections are nobody's
 * afterwards, but for one in use when the caller has no CPU number. MM_ERR_INVALID for a bad
 * number. O(sections). Any CPU. */
MM_FRAME_API enum mm_status mm_frame_drain(struct mm_frame_pool *pool, unsigned cpu);

/* A frame that is freed when its scope ends, in compilers with the attribute `cleanup`:
 *
 *     MM_FRAME_SCOPED guard = mm_frame_guard_make(&pool, mm_frame_alloc(&pool, 0));
 *     if (guard.pa == MM_PA_NONE) return MM_ERR_NOMEM;
 *     ...
 *     return mm_frame_guard_keep(&guard);      // now the caller's
 */
struct mm_frame_guard {
    struct mm_frame_pool *pool;
    mm_pa_t pa;
};
#define MM_FRAME_SCOPED __attribute__((cleanup(mm_frame_guard_drop))) struct mm_frame_guard
static inline struct mm_frame_guard mm_frame_guard_make(struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct mm_frame_guard guard;
    guard.pool = pool;
    guard.pa = pa;
    return guard;
}
static inline mm_pa_t mm_frame_guard_keep(struct mm_frame_guard *guard)
{
    mm_pa_t pa = guard->pa;
    guard->pa = MM_PA_NONE;
    return pa;
}
static inline void mm_frame_guard_drop(struct mm_frame_guard *guard);

/* ---- Quotas ---------------------------------------------------------------------------------- */

/* A limit on frames, possibly inside another one. Changed by compare-and-swap, any CPU. */
struct mm_frame_quota {
    struct mm_frame_quota *parent;
    uintptr_t limit; /* frames */
    uintptr_t used;
    uintptr_t peak;     /* most frames charged at once */
    uintptr_t failures; /* charges refused here */
};

/* Sets up a quota of `limit` frames below `parent` (NULL: at the top). O(1). */
MM_FRAME_API void mm_frame_quota_init(struct mm_frame_quota *quota, struct mm_frame_quota *parent,
                                      uint64_t limit);
/* Charges `count` frames to the quota and all above it. MM_OK, or MM_ERR_LIMIT if one has no room
 * (its failures count one more) and nothing is charged. O(depth). */
MM_FRAME_API enum mm_status mm_frame_quota_charge(struct mm_frame_quota *quota, uint64_t count);
/* Takes back a charge. MM_ERR_INVALID if less than `count` is charged somewhere; nothing changes
 * then. */
MM_FRAME_API enum mm_status mm_frame_quota_uncharge(struct mm_frame_quota *quota, uint64_t count);
/* As mm_frame_alloc_order and mm_frame_free_order, charged to `quota`. */
MM_FRAME_API mm_pa_t mm_frame_quota_alloc(struct mm_frame_pool *pool, struct mm_frame_quota *quota,
                                          unsigned order, unsigned flags);
MM_FRAME_API enum mm_status mm_frame_quota_free(struct mm_frame_pool *pool,
                                                struct mm_frame_quota *quota, mm_pa_t pa,
                                                unsigned order);

/* ---- Descriptors ----------------------------------------------------------------------------- */

#define MM_FRAME_DESC_LRU        1u   /* on a list of an mm_frame_lru */
#define MM_FRAME_DESC_ACTIVE     2u   /* ... an active one */
#define MM_FRAME_DESC_FILE       4u   /* ... of file pages */
#define MM_FRAME_DESC_REFERENCED 8u   /* used since the LRU looked last */
#define MM_FRAME_DESC_USER       256u /* first flag of the caller's; below are the suite's */

/* What a frame is used for; config.descriptors turns them on. `mapping`, `index`, `priv` and the
 * flags from MM_FRAME_DESC_USER up are the caller's (change flags by mm_fetch_or and
 * mm_fetch_and). */
struct mm_frame_desc {
    uintptr_t refs;  /* references; 0: none, or the frame is not managed through get and put */
    uintptr_t flags; /* MM_FRAME_DESC_* */
    void *mapping;   /* object that the frame belongs to */
    uintptr_t index; /* place in the object */
    uintptr_t priv;
    uintptr_t next, prev; /* LRU links: bitmap index + 1, 0 none */
    uintptr_t order;      /* of the block that the last put frees */
};

/* Descriptor of the frame at `pa`; NULL if it is not of the pool or descriptors are off. O(log
 * spans). */
MM_FRAME_API struct mm_frame_desc *mm_frame_desc_of(struct mm_frame_pool *pool, mm_pa_t pa);
/* Address of the frame that `desc` describes. O(1). */
MM_FRAME_API mm_pa_t mm_frame_desc_pa(const struct mm_frame_pool *pool,
                                      const struct mm_frame_desc *desc);
/* Place of `desc` among the descriptors, below mm_frame_desc_count(pool): for a table of the
 * caller's own, a record a frame. It depends on the frame alone until memory is taken off-line.
 * O(1). */
MM_FRAME_API size_t mm_frame_desc_index(const struct mm_frame_pool *pool,
                                        const struct mm_frame_desc *desc);
/* How many descriptors there are, those of memory that may come later too; 0: they are off.
 * O(1). */
MM_FRAME_API size_t mm_frame_desc_count(const struct mm_frame_pool *pool);
/* Allocates 2^order frames with one reference on the first; its other fields are cleared.
 * MM_PA_NONE as mm_frame_alloc_order, or without descriptors. */
MM_FRAME_API mm_pa_t mm_frame_alloc_ref(struct mm_frame_pool *pool, unsigned order, unsigned flags);
/* Takes one more reference. MM_OK; MM_ERR_NOENT if there is none yet (it may be going away);
 * MM_ERR_INVALID for no frame; MM_ERR_LIMIT at the greatest count. O(1), one compare-and-swap. */
MM_FRAME_API enum mm_status mm_frame_get(struct mm_frame_pool *pool, mm_pa_t pa);
/* Drops a reference; the last one frees the block. MM_OK; MM_ERR_NOENT if there is none (a put too
 * many); MM_ERR_INVALID for no frame; MM_ERR_BUSY if it is the last one and the frame is on an LRU
 * list: take it off first. */
MM_FRAME_API enum mm_status mm_frame_put(struct mm_frame_pool *pool, mm_pa_t pa);

/* ---- LRU ------------------------------------------------------------------------------------- */

enum mm_frame_lru_kind { MM_FRAME_LRU_ANON, MM_FRAME_LRU_FILE, MM_FRAME_LRU_KINDS };

/* Four lists of frames by their descriptors: inactive and active, of anonymous and of file pages.
 * Second chance: a frame at the old end that was used since the last look is spared once. */
struct mm_frame_lru {
    struct mm_frame_pool *pool;
    MM_FRAME_LOCK_T lock;
    struct {
        uintptr_t head, tail; /* newest, oldest: bitmap index + 1, 0 none */
        uintptr_t count;
    } list[4]; /* kind * 2 + active */
    uintptr_t evicted, spared, refused;
};

/* Called by shrink for a frame that was taken off its list: write it away, unmap it and drop its
 * references, or return another status than MM_OK to have it put back as active. Shrink holds a
 * reference of its own meanwhile: the frame becomes nobody else's before the callback is back. */
typedef enum mm_status (*mm_frame_evict_fn)(void *ctx, struct mm_frame_pool *pool, mm_pa_t pa);

/* MM_ERR_INVALID if the pool has no descriptors. */
MM_FRAME_API enum mm_status mm_frame_lru_init(struct mm_frame_lru *lru, struct mm_frame_pool *pool);
/* Puts a frame, of which the caller holds a reference, at the young end of the inactive list.
 * MM_ERR_EXISTS if it is on a list; MM_ERR_NOENT if nobody holds one (see mm_frame_alloc_ref);
 * MM_ERR_INVALID for no frame or kind. O(1), the lock. */
MM_FRAME_API enum mm_status mm_frame_lru_add(struct mm_frame_lru *lru, mm_pa_t pa,
                                             enum mm_frame_lru_kind kind);
/* Takes it off the list of this `lru`, where it has to be if it is on one. MM_ERR_NOENT if it is on
 * none; MM_ERR_INVALID for no frame. O(1), the lock. */
MM_FRAME_API enum mm_status mm_frame_lru_remove(struct mm_frame_lru *lru, mm_pa_t pa);
/* Notes a use: the first sets the referenced mark, a second on the inactive list makes the frame
 * active. As remove; takes the lock only to activate. */
MM_FRAME_API enum mm_status mm_frame_lru_touch(struct mm_frame_lru *lru, mm_pa_t pa);
/* Looks at up to `scan` frames from the old end of the inactive list of `kind`, evicting until
 * `want` frames are gone; refills it from the active list when that is longer. Returns how many
 * were evicted. The callback runs without the lock. O(scan). */
MM_FRAME_API size_t mm_frame_lru_shrink(struct mm_frame_lru *lru, enum mm_frame_lru_kind kind,
                                        size_t want, size_t scan, mm_frame_evict_fn evict,
                                        void *ctx);

/* ---- Hotplug and compaction ------------------------------------------------------------------ */

/* Moves the content of the frame at `from` to `to` (allocated for it), so that nobody uses `from`
 * any more; does not free `from`. Another status than MM_OK: it cannot be moved now. */
typedef enum mm_status (*mm_frame_migrate_fn)(void *ctx, struct mm_frame_pool *pool, mm_pa_t from,
                                              mm_pa_t to);

/* Brings `size` bytes at `pa` on-line as free frames of `zone`, using its spare sections.
 * MM_OK; MM_ERR_ALIGN; MM_ERR_INVALID: no such zone, outside its limits, size 0, wraps;
 * MM_ERR_EXISTS: some of it is on-line; MM_ERR_LIMIT: no spare section or span is left. On an error
 * nothing changed. O(size / 64 pages + spans), the pool's lock. */
MM_FRAME_API enum mm_status mm_frame_online(struct mm_frame_pool *pool, unsigned zone, mm_pa_t pa,
                                            uint64_t size);

/* What mm_frame_offline met. */
struct mm_frame_offline_result {
    uint64_t busy;      /* frames in use that were not moved */
    uint64_t moved;     /* frames that the callback moved */
    mm_pa_t first_busy; /* the lowest of the busy ones, or MM_PA_NONE */
};

/* Takes the frames of a range off-line for good. Frames in use are moved by `migrate` (NULL: none
 * can be) to frames outside the range.
 * MM_OK: they are no longer the pool's. MM_ERR_BUSY: some stay in use (see *result, which may be
 * NULL); what was free is free again, what was moved stays moved. MM_ERR_NOENT: some of it is not
 * of the pool; MM_ERR_ALIGN; MM_ERR_INVALID: size 0, wraps; MM_ERR_LIMIT: no span is left to
 * describe the rest. O(size / pages), the pool's lock except in the callback: one call at a
 * time. */
MM_FRAME_API enum mm_status mm_frame_offline(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t size,
                                             mm_frame_migrate_fn migrate, void *ctx,
                                             struct mm_frame_offline_result *result);

/* Makes one more wholly free huge block in `zone`: picks the block with the fewest frames in use,
 * moves these away and frees it. *block, if not NULL, tells which.
 * MM_OK; MM_ERR_NOENT: no block is partly free; MM_ERR_BUSY: a frame could not be moved;
 * MM_ERR_NOMEM: no frame to move to; MM_ERR_INVALID: no such zone, or no callback. Frames moved
 * before an error stay moved. O(sections), callbacks without a lock. */
MM_FRAME_API enum mm_status mm_frame_compact(struct mm_frame_pool *pool, unsigned zone,
                                             mm_frame_migrate_fn migrate, void *ctx,
                                             mm_pa_t *block);

/* ---- Statistics, check, dump ----------------------------------------------------------------- */

struct mm_frame_stats {
    const char *name;
    uint64_t managed, free, used; /* frames */
    uint64_t peak;                /* most frames in use; see LIMITS */
    uint64_t failures;            /* allocations that failed with this zone preferred */
    uint64_t whole;               /* wholly free huge blocks */
    unsigned percent;             /* used of managed, rounded down */
    uint64_t sections;
    uint64_t biased;     /* sections that a CPU has to itself */
    uint64_t taken_away; /* sections taken from another CPU (whole pool) */
    uint64_t refused;    /* calls refused as misuse (whole pool) */
};

/* Figures of a zone. Exact when nothing else runs. MM_ERR_INVALID for no such zone. O(sections +
 * CPUs). */
MM_FRAME_API enum mm_status mm_frame_get_stats(struct mm_frame_pool *pool, unsigned zone,
                                               struct mm_frame_stats *stats);
/* Free frames of a zone (0 if there is no such zone). O(CPUs). */
MM_FRAME_API uint64_t mm_frame_free_count(struct mm_frame_pool *pool, unsigned zone);
/* Bytes of metadata in use, descriptors included. */
MM_FRAME_API size_t mm_frame_meta_bytes(const struct mm_frame_pool *pool);

enum mm_frame_health { MM_FRAME_HEALTHY, MM_FRAME_LEAK, MM_FRAME_CORRUPT };

/* Checks every invariant of the pool. `expected_used`: how many frames the caller has (UINT64_MAX:
 * don't compare). MM_FRAME_CORRUPT with *what set to the invariant that is broken, MM_FRAME_LEAK if
 * the structure is sound but more or fewer frames are in use than expected; `what` may be NULL.
 * O(frames / 64). Other CPUs must not use the pool meanwhile. */
MM_FRAME_API enum mm_frame_health mm_frame_check(struct mm_frame_pool *pool, uint64_t expected_used,
                                                 const char **what);

/* Prints zones, spans and sections, a line a call without line end. O(sections). A snapshot. */
MM_FRAME_API void mm_frame_dump(struct mm_frame_pool *pool,
                                void (*print)(void *ctx, const char *line), void *ctx);

/* ---- Behind the hot paths -------------------------------------------------------------------- */

MM_FRAME_API mm_pa_t mmi_frame_alloc_slow(struct mm_frame_pool *pool, unsigned flags);
MM_FRAME_API enum mm_status mmi_frame_free_slow(struct mm_frame_pool *pool, mm_pa_t pa);
/* What mm_frame_alloc leaves: the CPU's word is empty. Inside and pinned, which it leaves; `self`
 * NULL: not inside, the CPU or its zone is not known. */
MM_FRAME_API mm_pa_t mmi_frame_alloc_next(struct mm_frame_pool *pool, unsigned flags,
                                          struct mm_frame_cpu *self, MM_CPU_STATE_T state);
/* Inside, which they leave: a free of the frame with this index made its word no longer empty, or
 * full. Return MM_OK. */
MM_FRAME_API enum mm_status mmi_frame_edge_some(struct mm_frame_pool *pool,
                                                struct mm_frame_cpu *self, uintptr_t index);
MM_FRAME_API enum mm_status mmi_frame_edge_full(struct mm_frame_pool *pool,
                                                struct mm_frame_cpu *self, uintptr_t index);

/* How many frames of the span at hand lie before `pa`; more than any span has if it is below the
 * span or misaligned: the bits below the page size are rotated to the top. */
MM_CORE_INLINE uint64_t mmi_frame_span_offset(const struct mm_frame_cpu *self, mm_pa_t pa)
{
    const uint64_t bytes = pa - self->span_pa;
    return bytes >> MM_PAGE_SHIFT | bytes << (64 - MM_PAGE_SHIFT);
}

/* Address of the lowest frame of `bits`, which are of the cursor's word. */
MM_CORE_INLINE mm_pa_t mmi_frame_first_of(const struct mm_frame_cursor *cursor, uintptr_t bits)
{
    return cursor->pa +
           (mm_ctz(bits) << MM_PAGE_SHIFT); /* 32 bits are enough for the sum's right side */
}

#define MMI_FRAME_SECTION_SHIFT (2 * MM_WORD_SHIFT)

/* Sets, or clears, bit n modulo the size of a word; whether it was set. */
#if defined(__x86_64__) && defined(__LP64__) && defined(__GCC_ASM_FLAG_OUTPUTS__)
MM_CORE_INLINE bool mmi_frame_set_bit(uintptr_t *x, uintptr_t n)
{
    bool was; /* one instruction, and a jump on its flag */
    __asm__("bts{q}\t{%2, %0|%0, %2}" : "+r"(*x), "=@ccc"(was) : "r"(n));
    return was;
}
MM_CORE_INLINE bool mmi_frame_clear_bit(uintptr_t *x, uintptr_t n)
{
    bool was;
    __asm__("btr{q}\t{%2, %0|%0, %2}" : "+r"(*x), "=@ccc"(was) : "r"(n));
    return was;
}
#else
MM_CORE_INLINE bool mmi_frame_set_bit(uintptr_t *x, uintptr_t n)
{
    const uintptr_t was = *x >> (n & (MM_WORD_BITS - 1)) & 1;
    *x |= (uintptr_t)1 << (n & (MM_WORD_BITS - 1));
    return was != 0;
}
MM_CORE_INLINE bool mmi_frame_clear_bit(uintptr_t *x, uintptr_t n)
{
    const uintptr_t was = *x >> (n & (MM_WORD_BITS - 1)) & 1;
    *x &= ~((uintptr_t)1 << (n & (MM_WORD_BITS - 1)));
    return was != 0;
}
#endif

/* About 20 instructions; lines: the CPU's, its cursor's, the section's header, the word's. */
MM_FRAME_INLINE mm_pa_t mm_frame_alloc(struct mm_frame_pool *pool, unsigned flags)
{
    struct mm_frame_cpu *self = NULL;
    MM_CPU_STATE_T state;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (MM_LIKELY(cpu < MM_CPU_MAX && (flags & ~MM_FRAME_URGENT) < MM_FRAME_ZONE_MAX)) {
        struct mm_frame_cursor *cursor;
        uintptr_t *word, bits;
        self = &pool->cpu[cpu];
        cursor = &self->cursor[flags & MM_FRAME_ZONE_MASK];
        mm_busy_enter(&self->busy);
        word = __atomic_load_n(&cursor->word, MM_BIAS_ORDER);
        bits = mm_load(word);
        if (MM_LIKELY(bits != 0)) {
            const mm_pa_t pa = mmi_frame_first_of(cursor, bits);
            mm_store(word, bits & (bits - 1));
            mm_count(&cursor->used, 1);
            mm_busy_leave(&self->busy);
            MM_CPU_UNPIN(state);
            return pa;
        }
    }
    return mmi_frame_alloc_next(pool, flags, self, state);
}

/* About 40 instructions; lines: the CPU's, its cursor's, the owner's, the word's. */
MM_FRAME_INLINE enum mm_status mm_frame_free(struct mm_frame_pool *pool, mm_pa_t pa)
{
    enum mm_status status;
    MM_CPU_STATE_T state;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (MM_LIKELY(cpu < MM_CPU_MAX)) {
        struct mm_frame_cpu *self = &pool->cpu[cpu];
        uintptr_t index;
        uint64_t offset;
        mm_busy_enter(&self->busy);
        offset = mmi_frame_span_offset(self, pa);
        index = (uintptr_t)offset + self->span_index;
        if (MM_LIKELY(offset < mm_load(&self->span_size) &&
                      mm_bias_mine(&pool->owner[index >> MMI_FRAME_SECTION_SHIFT], cpu))) {
            uintptr_t *word = &pool->word[index >> MM_WORD_SHIFT];
            const uintptr_t old = mm_load(word);
            uintptr_t now = old;
            /* Its bit is clear: the frame was allocated. Set: it is free, or in a huge block. */
            if (MM_LIKELY(!mmi_frame_set_bit(&now, index))) {
                mm_store(word, now);
                mm_count(&self->freed, 1);
                /* S1 and S2 concern only words that were empty or are full now. */
                if (MM_UNLIKELY(old == 0)) {
                    status = mmi_frame_edge_some(pool, self, index);
                } else if (MM_UNLIKELY(now == ~(uintptr_t)0 &&
                                       word != __atomic_load_n(&self->span_cursor->word,
                                                               __ATOMIC_RELAXED))) {
                    status = mmi_frame_edge_full(pool, self, index);
                } else {
                    mm_busy_leave(&self->busy);
                    status = MM_OK;
                }
                MM_CPU_UNPIN(state);
                return status;
            }
        }
        mm_busy_leave(&self->busy);
    }
    MM_CPU_UNPIN(state);
    return mmi_frame_free_slow(pool, pa);
}

static inline void mm_frame_guard_drop(struct mm_frame_guard *guard)
{
    if (guard->pa != MM_PA_NONE)
        (void)mm_frame_free(guard->pool, guard->pa);
}

#ifdef __cplusplus
}
#endif

#endif /* MM_FRAME_H */

/* ==== Implementation ========================================================================== */

#if defined(MM_FRAME_IMPLEMENTATION) && !defined(MM_FRAME_IMPLEMENTED)
#define MM_FRAME_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(MM_FRAME_STATIC) && !defined(__cplusplus)
extern inline mm_pa_t mm_frame_alloc(struct mm_frame_pool *pool, unsigned flags);
extern inline enum mm_status mm_frame_free(struct mm_frame_pool *pool, mm_pa_t pa);
#elif !defined(MM_FRAME_STATIC)
/* C++ emits an inline function only where it is used: other languages link to these. */
extern mm_pa_t (*const mmi_frame_emit_alloc)(struct mm_frame_pool *, unsigned);
extern enum mm_status (*const mmi_frame_emit_free)(struct mm_frame_pool *, mm_pa_t);
mm_pa_t (*const mmi_frame_emit_alloc)(struct mm_frame_pool *, unsigned) = mm_frame_alloc;
enum mm_status (*const mmi_frame_emit_free)(struct mm_frame_pool *, mm_pa_t) = mm_frame_free;
#endif

#define MMI_FRAME_SECTION    ((uintptr_t)1 << MMI_FRAME_SECTION_SHIFT) /* frames of a section */
#define MMI_FRAME_HUGE       ((uintptr_t)1 << MM_FRAME_HUGE_ORDER)     /* frames of a huge block */
#define MMI_FRAME_GROUP      (1u << (MM_FRAME_HUGE_ORDER - MM_WORD_SHIFT)) /* words, huge block */
#define MMI_FRAME_NONE       (~(uintptr_t)0) /* no frame, index or section */
#define MMI_FRAME_NOBODY     MM_CPU_MAX      /* slot of the sets of nobody's sections */
#define MMI_FRAME_LINE       64u             /* alignment of what CPUs have apart */
#define MMI_FRAME_META_ALIGN 512u            /* of struct mm_frame_cpu */
#define MMI_FRAME_SEARCHES \
    1000                    /* how often a search is repeated while frames are known to be free */
#define MMI_FRAME_RETRIES 8 /* how often the pressure hook may ask for another try */

enum { MMI_FRAME_AVAIL, MMI_FRAME_WHOLE, MMI_FRAME_KINDS }; /* sets of a slot */

/* The first frame number that is too high for this machine's words. */
static uint64_t mmi_frame_pfn_limit(void)
{
    const uint64_t word = MMI_FRAME_NONE - MMI_FRAME_SECTION, all = UINT64_MAX >> MM_PAGE_SHIFT;
    return word < all ? word : all + 1;
}

/* ---- Boot maps ------------------------------------------------------------------------------- */

/* A boot map with one more entry: metadata carved out count as the kernel's. */
struct mmi_frame_map {
    const struct mm_frame_range *range;
    size_t count;
    struct mm_frame_range extra;
};

/* A run of pages of one type, in frame numbers. */
struct mmi_frame_piece {
    uint64_t pfn, end;
    int type; /* MM_FRAME_TYPES: a hole */
};

static const struct mm_frame_range *mmi_frame_map_at(const struct mmi_frame_map *map, size_t i)
{
    return i < map->count ? &map->range[i] : &map->extra;
}

static enum mm_status mmi_frame_map_valid(const struct mm_frame_range *range, size_t count)
{
    size_t i;
    if (range == NULL && count != 0)
        return MM_ERR_INVALID;
    for (i = 0; i < count; i++) {
        if ((unsigned)range[i].type >= MM_FRAME_TYPES)
            return MM_ERR_INVALID;
        if (range[i].size != 0 && range[i].base + (range[i].size - 1) < range[i].base)
            return MM_ERR_INVALID;
    }
    return MM_OK;
}

/* Whether entries of the map cover every byte of the page at `first` together. */
static bool mmi_frame_map_covers(const struct mmi_frame_map *map, mm_pa_t first)
{
    const mm_pa_t last = first + (MM_PAGE_SIZE - 1);
    mm_pa_t at = first; /* the first byte not known to be covered */
    for (;;) {
        mm_pa_t reach = at;
        size_t i;
        for (i = 0; i <= map->count; i++) {
            const struct mm_frame_range *r = mmi_frame_map_at(map, i);
            if (r->size == 0 || r->base > at || r->base + (r->size - 1) < reach)
                continue;
            reach = r->base + (r->size - 1);
            if (reach >= last)
                return true;
            reach++;
        }
        if (reach == at)
            return false;
        at = reach;
    }
}

/* The nearer of two page numbers behind `pfn`. */
static uint64_t mmi_frame_nearer(uint64_t next, uint64_t pfn, uint64_t page)
{
    return page > pfn && page < next ? page : next;
}

/* Type of page `pfn`, and in *change the next page that may be of another. */
static int mmi_frame_map_type(const struct mmi_frame_map *map, uint64_t pfn, uint64_t *change)
{
    int type = -1;
    uint64_t next = UINT64_MAX;
    size_t i;
    for (i = 0; i <= map->count; i++) {
        const struct mm_frame_range *r = mmi_frame_map_at(map, i);
        uint64_t first, last;
        if (r->size == 0)
            continue;
        first = r->base >> MM_PAGE_SHIFT;
        last = (r->base + (r->size - 1)) >> MM_PAGE_SHIFT;
        /* The pages at both ends may be partly covered: they are looked at one by one. */
        next = mmi_frame_nearer(next, pfn, first);
        next = mmi_frame_nearer(next, pfn, first + 1);
        next = mmi_frame_nearer(next, pfn, last);
        next = mmi_frame_nearer(next, pfn, last + 1);
        if (first <= pfn && pfn <= last && (int)r->type > type)
            type = (int)r->type;
    }
    *change = next;
    if (type < 0)
        return MM_FRAME_TYPES;
    if (type > MM_FRAME_ACPI_RECLAIM || mmi_frame_map_covers(map, (mm_pa_t)pfn << MM_PAGE_SHIFT))
        return type;
    return type == MM_FRAME_USABLE ? MM_FRAME_TYPES : MM_FRAME_RESERVED;
}

/* The first run of pages of one type from page `from` on; false if there is none. */
static bool mmi_frame_map_next(const struct mmi_frame_map *map, uint64_t from,
                               struct mmi_frame_piece *piece)
{
    uint64_t at = from, change;
    int type = mmi_frame_map_type(map, at, &change);
    while (type == MM_FRAME_TYPES) {
        if (change == UINT64_MAX)
            return false;
        at = change;
        type = mmi_frame_map_type(map, at, &change);
    }
    piece->pfn = at;
    piece->type = type;
    while (change != UINT64_MAX) {
        at = change;
        if (mmi_frame_map_type(map, at, &change) != type)
            break;
    }
    piece->end = at;
    if (at - piece->pfn > UINT64_MAX >> MM_PAGE_SHIFT)
        piece->end = (UINT64_MAX >> (MM_PAGE_SHIFT + 1)) + 1; /* 2^64 bytes are no size */
    return true;
}

MM_FRAME_API enum mm_status mm_frame_map_clean(const struct mm_frame_range *range, size_t count,
                                               struct mm_frame_range *out, size_t capacity,
                                               size_t *out_count)
{
    struct mmi_frame_map map;
    struct mmi_frame_piece piece;
    size_t n = 0;
    uint64_t from = 0;
    int fill;
    if (mmi_frame_map_valid(range, count) != MM_OK)
        return MM_ERR_INVALID;
    MM_MEMSET(&map, 0, sizeof map);
    map.range = range;
    map.count = count;
    for (fill = 0; fill < 2; fill++) {
        for (n = 0, from = 0; mmi_frame_map_next(&map, from, &piece); n++, from = piece.end) {
            if (!fill)
                continue;
            out[n].base = (mm_pa_t)piece.pfn << MM_PAGE_SHIFT;
            out[n].size = (piece.end - piece.pfn) << MM_PAGE_SHIFT;
            out[n].type = (enum mm_frame_type)piece.type;
        }
        *out_count = n;
        if (n > capacity)
            return MM_ERR_LIMIT;
    }
    return MM_OK;
}

/* ---- Sets of sections ---------------------------------------------------------------------------
 * A set is a hierarchical bitmap: a bit of level l + 1 stands for a word of level l.
 * H1  a word that is not 0 has its bit set in the level above (the converse is repaired on search)
 * A CPU's sets are changed by that CPU alone, pinned, with plain stores; nobody's by whoever holds
 * the section's lock, with read-modify-writes. Anyone may read them: a bit that is set in vain
 * costs a look at the section. A section with free frames is in the set of its owner (or of
 * nobody). */

static uintptr_t *mmi_frame_set(const struct mm_frame_pool *pool, unsigned slot, unsigned kind)
{
    return pool->sets + (slot * MMI_FRAME_KINDS + kind) * pool->set_words;
}

static void mmi_frame_set_add(const struct mm_frame_pool *pool, unsigned slot, unsigned kind,
                              uintptr_t i)
{
    uintptr_t *set = mmi_frame_set(pool, slot, kind);
    unsigned level;
    for (level = 0; level < pool->levels; level++, i >>= MM_WORD_SHIFT) {
        uintptr_t *word = &set[pool->level_at[level] + (i >> MM_WORD_SHIFT)];
        uintptr_t bit = mm_bit((unsigned)(i & (MM_WORD_BITS - 1)));
        uintptr_t old = mm_load(word);
        if (old & bit)
            return;
        if (slot == MMI_FRAME_NOBODY)
            old = mm_fetch_or(word, bit);
        else
            mm_store(word, old | bit);
        if (old != 0)
            return;
    }
}

static void mmi_frame_set_remove(const struct mm_frame_pool *pool, unsigned slot, unsigned kind,
                                 uintptr_t i)
{
    uintptr_t *set = mmi_frame_set(pool, slot, kind);
    unsigned level;
    for (level = 0; level < pool->levels; level++, i >>= MM_WORD_SHIFT) {
        uintptr_t *word = &set[pool->level_at[level] + (i >> MM_WORD_SHIFT)];
        uintptr_t bit = mm_bit((unsigned)(i & (MM_WORD_BITS - 1)));
        uintptr_t old = mm_load(word);
        if ((old & bit) == 0)
            return;
        if (slot == MMI_FRAME_NOBODY)
            old = mm_fetch_and(word, ~bit);
        else
            mm_store(word, old & ~bit);
        if ((old & ~bit) != 0)
            return;
        if (level > 0 && slot == MMI_FRAME_NOBODY) {
            /* Another section of the word below may have come meanwhile: keep H1. */
            uintptr_t below = mm_load(&set[pool->level_at[level - 1] + i]);
            if (below != 0) {
                (void)mm_fetch_or(word, bit);
                return;
            }
        }
    }
}

/* The first section in the set from number `from` on, or MMI_FRAME_NONE. */
static uintptr_t mmi_frame_set_next(const struct mm_frame_pool *pool, unsigned slot, unsigned kind,
                                    uintptr_t from)
{
    const uintptr_t *set = mmi_frame_set(pool, slot, kind);
    unsigned level = 0;
    uintptr_t entries = pool->sections; /* of this level */
    if (mm_load(&set[pool->level_at[pool->levels - 1]]) == 0)
        return MMI_FRAME_NONE;
    while (from < entries) {
        uintptr_t bits = mm_load(&set[pool->level_at[level] + (from >> MM_WORD_SHIFT)]);
        bits &= ~mm_mask((unsigned)(from & (MM_WORD_BITS - 1)));
        if (bits != 0) {
            from = (from & ~(uintptr_t)(MM_WORD_BITS - 1)) | mm_ctz(bits);
            if (level == 0)
                return from;
            level--;
            from <<= MM_WORD_SHIFT;
        } else {
            level++; /* above the top there is one entry, and `from` is behind it */
            from = (from >> MM_WORD_SHIFT) + 1;
        }
        entries = ((pool->sections - 1) >> (level * MM_WORD_SHIFT)) + 1;
    }
    return MMI_FRAME_NONE;
}

/* As mmi_frame_set_next, within the sections of a zone. */
static uintptr_t mmi_frame_set_in(const struct mm_frame_pool *pool, unsigned slot, unsigned kind,
                                  const struct mm_frame_zone *zone, uintptr_t from)
{
    uintptr_t i = mmi_frame_set_next(pool, slot, kind, from);
    return i < zone->last ? i : MMI_FRAME_NONE;
}

/* ---- Sections: what their owner does --------------------------------------------------------- */

static inline uintptr_t mmi_frame_number(const struct mm_frame_pool *pool,
                                         const struct mm_frame_section *section)
{
    return (uintptr_t)(section - pool->section);
}

static inline uintptr_t *mmi_frame_owner(const struct mm_frame_pool *pool,
                                         const struct mm_frame_section *section)
{
    return &pool->owner[mmi_frame_number(pool, section)];
}

static uintptr_t *mmi_frame_words(const struct mm_frame_pool *pool,
                                  const struct mm_frame_section *section)
{
    return pool->word + (mmi_frame_number(pool, section) << MM_WORD_SHIFT);
}

/* The words of the section that this one is of: they lie at a multiple of their size. */
static inline uintptr_t *mmi_frame_words_around(uintptr_t *word)
{
    const size_t mask = MM_WORD_BITS * sizeof *word - 1;
    return (uintptr_t *)(void *)((unsigned char *)word - ((uintptr_t)word & mask));
}

/* Free frames of word w as a mask, by S1 and S3. */
static uintptr_t mmi_frame_bits(const struct mm_frame_section *section, const uintptr_t *words,
                                unsigned w)
{
    return (mm_load(&section->some) & mm_bit(w)) != 0 ? mm_load(&words[w]) : 0;
}

/* The bits of `group` words from word w on. */
static uintptr_t mmi_frame_group(unsigned w)
{
    return mm_mask(MMI_FRAME_GROUP) << (w & ~(MMI_FRAME_GROUP - 1));
}

/* First bits of the groups of `full` that are all ones: the wholly free huge blocks. */
static inline uintptr_t mmi_frame_whole(uintptr_t full)
{
    if (MMI_FRAME_GROUP > 32)
        full &= full >> (MM_WORD_BITS / 2);
    if (MMI_FRAME_GROUP > 16)
        full &= full >> 16;
    if (MMI_FRAME_GROUP > 8)
        full &= full >> 8;
    if (MMI_FRAME_GROUP > 4)
        full &= full >> 4;
    if (MMI_FRAME_GROUP > 2)
        full &= full >> 2;
    if (MMI_FRAME_GROUP > 1)
        full &= full >> 1;
    return full & (~(uintptr_t)0 / mm_mask(MMI_FRAME_GROUP));
}

/* Which bits of word w belong to frames [first, first + count) of the section. */
static uintptr_t mmi_frame_mask(unsigned w, uintptr_t first, uintptr_t count)
{
    const uintptr_t start = (uintptr_t)w << MM_WORD_SHIFT;
    const uintptr_t end = first + count;
    const unsigned lo = first > start ? (unsigned)(first - start) : 0;
    const unsigned hi = end < start + MM_WORD_BITS ? (unsigned)(end - start) : MM_WORD_BITS;
    return mm_mask(hi) & ~mm_mask(lo);
}

/* Makes the words of the huge block that word w is in true again: all allocated. */
static void mmi_frame_unhuge(struct mm_frame_section *section, uintptr_t *words, unsigned w)
{
    const unsigned first = w & ~(MMI_FRAME_GROUP - 1);
    unsigned i;
    for (i = first; i < first + MMI_FRAME_GROUP; i++)
        mm_store(&words[i], 0);
    mm_store(&section->huge, section->huge & ~mm_bit(first));
}

/* Whether all, or none, of the frames [first, first + count) are free. */
static bool mmi_frame_all(const struct mm_frame_pool *pool, const struct mm_frame_section *section,
                          uintptr_t first, uintptr_t count, bool free)
{
    const uintptr_t *words = mmi_frame_words(pool, section);
    const unsigned last = (unsigned)((first + count - 1) >> MM_WORD_SHIFT);
    unsigned w;
    for (w = (unsigned)(first >> MM_WORD_SHIFT); w <= last; w++) {
        const uintptr_t mask = mmi_frame_mask(w, first, count);
        if ((mmi_frame_bits(section, words, w) & mask) != (free ? mask : 0))
            return false;
    }
    return true;
}

/* Allocates [first, first + count), all of which are free. */
static void mmi_frame_take(const struct mm_frame_pool *pool, struct mm_frame_section *section,
                           uintptr_t first, uintptr_t count)
{
    uintptr_t *words = mmi_frame_words(pool, section);
    const unsigned end = (unsigned)((first + count - 1) >> MM_WORD_SHIFT) + 1;
    unsigned w = (unsigned)(first >> MM_WORD_SHIFT);
    mm_store(&section->free, section->free - count);
    while (w < end) {
        const uintptr_t mask = mmi_frame_mask(w, first, count);
        const uintptr_t group = mmi_frame_group(w);
        const bool covered = mask == ~(uintptr_t)0 && w % MMI_FRAME_GROUP == 0 &&
                             end - w >= MMI_FRAME_GROUP &&
                             mmi_frame_mask(w + MMI_FRAME_GROUP - 1, first, count) == mask;
        if (covered && (section->full & group) == group) {
            mm_store(&section->full, section->full & ~group);
            mm_store(&section->some, section->some & ~group);
            mm_store(&section->huge, section->huge | mm_bit(w));
            w += MMI_FRAME_GROUP;
            continue;
        }
        mm_store(&words[w], mm_load(&words[w]) & ~mask);
        mm_store(&section->full, section->full & ~mm_bit(w));
        if (mm_load(&words[w]) == 0)
            mm_store(&section->some, section->some & ~mm_bit(w));
        w++;
    }
}

/* Frees [first, first + count), all of which are allocated. `current` is the current word of the
 * CPU that the section is biased to (see S2), or NULL. */
static void mmi_frame_put(const struct mm_frame_pool *pool, struct mm_frame_section *section,
                          uintptr_t first, uintptr_t count, const uintptr_t *current)
{
    uintptr_t *words = mmi_frame_words(pool, section);
    const unsigned end = (unsigned)((first + count - 1) >> MM_WORD_SHIFT) + 1;
    unsigned w = (unsigned)(first >> MM_WORD_SHIFT);
    mm_store(&section->free, section->free + count);
    while (w < end) {
        const uintptr_t mask = mmi_frame_mask(w, first, count);
        const uintptr_t group = mmi_frame_group(w);
        if ((section->huge & group) != 0) {
            const bool covered = mask == ~(uintptr_t)0 && w % MMI_FRAME_GROUP == 0 &&
                                 end - w >= MMI_FRAME_GROUP &&
                                 mmi_frame_mask(w + MMI_FRAME_GROUP - 1, first, count) == mask;
            if (covered) {
                mm_store(&section->huge, section->huge & ~group);
                mm_store(&section->some, section->some | group);
                mm_store(&section->full, section->full | group);
                w += MMI_FRAME_GROUP;
                continue;
            }
            mmi_frame_unhuge(section, words, w);
        }
        mm_store(&words[w], mm_load(&words[w]) | mask);
        mm_store(&section->some, section->some | mm_bit(w));
        if (mm_load(&words[w]) == ~(uintptr_t)0 && &words[w] != current)
            mm_store(&section->full, section->full | mm_bit(w));
        w++;
    }
}

/* Makes `some`, `full` and `free` exact: S1, S2 without exception, S5. */
static void mmi_frame_normalise(const struct mm_frame_pool *pool, struct mm_frame_section *section)
{
    const uintptr_t *words = mmi_frame_words(pool, section);
    uintptr_t some = 0, full = 0, free = 0;
    unsigned w;
    for (w = 0; w < MM_WORD_BITS; w++) {
        const uintptr_t bits = mm_load(&words[w]);
        if (bits == 0 || (section->huge & mmi_frame_group(w)) != 0)
            continue;
        some |= mm_bit(w);
        full |= bits == ~(uintptr_t)0 ? mm_bit(w) : 0;
        free += mm_popcount(bits);
    }
    mm_store(&section->some, some);
    mm_store(&section->full, full);
    mm_store(&section->free, free);
}

/* Enters the section into the sets of `slot` as its free frames demand. */
static void mmi_frame_note(const struct mm_frame_pool *pool, const struct mm_frame_section *section,
                           unsigned slot)
{
    const uintptr_t number = mmi_frame_number(pool, section);
    if (section->some != 0)
        mmi_frame_set_add(pool, slot, MMI_FRAME_AVAIL, number);
    if (mmi_frame_whole(section->full) != 0)
        mmi_frame_set_add(pool, slot, MMI_FRAME_WHOLE, number);
}

/* ---- Ownership ----------------------------------------------------------------------------------
 * `cpu` is the number of the calling CPU, pinned, or MMI_FRAME_NOBODY where none is known: such
 * callers wait for nobody. */

static struct mm_frame_cursor *mmi_frame_cursor(struct mm_frame_pool *pool, unsigned cpu,
                                                unsigned zone)
{
    return cpu < MM_CPU_MAX ? &pool->cpu[cpu].cursor[zone] : NULL;
}

/* Others look at these two meanwhile, and change `word` (C1). */
static inline uintptr_t *mmi_frame_cursor_peek(const struct mm_frame_cursor *cursor)
{
    return __atomic_load_n(&cursor->word, __ATOMIC_RELAXED);
}

static inline void mmi_frame_cursor_set(struct mm_frame_cursor *cursor,
                                        struct mm_frame_section *section, uintptr_t *word)
{
    __atomic_store_n(&cursor->section, section, __ATOMIC_RELAXED);
    __atomic_store_n(&cursor->word, word, __ATOMIC_RELAXED);
}

/* Lets go of the current word: S2 has no exception any more. In a section of this CPU, inside. */
static void mmi_frame_cursor_reset(struct mm_frame_pool *pool, struct mm_frame_cursor *cursor)
{
    mmi_frame_cursor_set(cursor, pool->nowhere, &pool->nothing);
}

/* Inside: the current word, NULL if it is of no section of this CPU. The cursor gets it back if
 * somebody tried to take the section away meanwhile, in vain (C1). Not cursor->word, which may
 * change at any time. */
static inline uintptr_t *mmi_frame_cursor_word(struct mm_frame_pool *pool,
                                               struct mm_frame_cursor *cursor, unsigned cpu)
{
    struct mm_frame_section *section = cursor->section;
    unsigned w;
    if (!mm_bias_mine(mmi_frame_owner(pool, section), cpu))
        return NULL;
    w = (unsigned)((uintptr_t)(cursor->pa >> MM_PAGE_SHIFT) - section->pfn) >> MM_WORD_SHIFT;
    if (MM_UNLIKELY(mmi_frame_cursor_peek(cursor) == &pool->nothing)) {
        if ((section->some & mm_bit(w)) == 0) { /* used up, or in a huge block by now */
            mmi_frame_cursor_reset(pool, cursor);
            return NULL;
        }
        mm_store(&section->full, section->full & ~mm_bit(w)); /* the exception of S2 */
        mmi_frame_cursor_set(cursor, section, mmi_frame_words(pool, section) + w);
    }
    return mmi_frame_words(pool, section) + w;
}

/* Inside: is the current word wholly free, and so perhaps what hides a whole block (S2)? */
static bool mmi_frame_cursor_hides(struct mm_frame_pool *pool, struct mm_frame_cursor *cursor,
                                   unsigned cpu)
{
    const uintptr_t *word = mmi_frame_cursor_word(pool, cursor, cpu);
    return word != NULL && mm_load(word) == ~(uintptr_t)0;
}

static void mmi_frame_cursor_release(struct mm_frame_pool *pool, struct mm_frame_cursor *cursor,
                                     unsigned cpu)
{
    struct mm_frame_section *section = cursor->section;
    if (mmi_frame_cursor_hides(pool, cursor, cpu)) {
        const unsigned w =
            (unsigned)((uintptr_t)(cursor->pa >> MM_PAGE_SHIFT) - section->pfn) >> MM_WORD_SHIFT;
        mm_store(&section->full, section->full | mm_bit(w));
        mmi_frame_note(pool, section, cpu);
    }
    mmi_frame_cursor_reset(pool, cursor);
}

static bool mmi_frame_in_section(const struct mm_frame_pool *pool, const uintptr_t *word,
                                 const struct mm_frame_section *section)
{
    return (uintptr_t)word - (uintptr_t)mmi_frame_words(pool, section) <
           MM_WORD_BITS * sizeof *word;
}

/* Sends the cursor out of the section, if it is there: C1. */
static bool mmi_frame_cursor_evict(struct mm_frame_pool *pool, struct mm_frame_cursor *cursor,
                                   const struct mm_frame_section *section)
{
    uintptr_t *word = mmi_frame_cursor_peek(cursor);
    if (!mmi_frame_in_section(pool, word, section))
        return false;
    (void)__atomic_compare_exchange_n(&cursor->word, &word, &pool->nothing, false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_RELAXED);
    return true;
}

/* Makes a section that was a CPU's fit for nobody or for another one; counts that it changed
 * hands. */
static void mmi_frame_give_up(struct mm_frame_pool *pool, struct mm_frame_section *section)
{
    mmi_frame_normalise(pool, section);
    section->was = MMI_FRAME_NOBODY;
    if (section->taken < 255)
        __atomic_store_n(&section->taken, section->taken + 1, __ATOMIC_RELAXED);
}

/* Inside: makes a section of this CPU nobody's; false if another CPU is taking it away already. */
static bool mmi_frame_yield(struct mm_frame_pool *pool, unsigned cpu,
                            struct mm_frame_section *section, struct mm_frame_cursor *cursor)
{
    uintptr_t *owner = mmi_frame_owner(pool, section);
    if (!mm_cas(owner, cpu, MM_BIAS_LOCKED))
        return false;
    (void)mmi_frame_cursor_evict(pool, cursor, section);
    mmi_frame_give_up(pool, section);
    mmi_frame_note(pool, section, MMI_FRAME_NOBODY);
    mm_bias_unlock(owner, MMI_FRAME_NOBODY);
    return true;
}

#define MMI_FRAME_PATIENCE 32 /* pauses: less than MM_FENCE_CPUS() costs where CPUs are at work */

/* Asks for a section that its CPU is allocating from, and waits for a moment: it looks at `wanted`
 * with every word. True if the section is not that CPU's any more. */
static bool mmi_frame_ask(struct mm_frame_section *section, const uintptr_t *owner, unsigned victim)
{
    unsigned i;
    mm_store(&section->wanted, 1);
    for (i = 0; i < MMI_FRAME_PATIENCE && mm_load(owner) == victim; i++)
        MM_CPU_RELAX();
    return mm_load(owner) != victim;
}

/* One try to lock a section of CPU `victim`. `spins` as for mm_bias_wait. */
static bool mmi_frame_take_away(struct mm_frame_pool *pool, struct mm_frame_section *section,
                                uintptr_t self, unsigned victim, unsigned long spins)
{
    uintptr_t *owner = mmi_frame_owner(pool, section);
    struct mm_frame_cpu *from = &pool->cpu[victim];
    struct mm_frame_cursor *cursor = &from->cursor[section->zone];
    if (spins == 0 && mmi_frame_in_section(pool, mmi_frame_cursor_peek(cursor), section) &&
        mmi_frame_ask(section, owner, victim))
        return false;
    (void)mmi_frame_cursor_evict(pool, cursor, section);
    if (!mm_bias_trylock(owner, self, victim, &from->busy, spins))
        return false;
    while (
        mmi_frame_cursor_evict(pool, cursor, section)) { /* it came (back) just before the lock */
        if (!mm_bias_wait(&from->busy, spins)) {
            mm_bias_unlock(owner, victim);
            return false;
        }
    }
    mmi_frame_give_up(pool, section);
    return true;
}

/* Locks a section. False only without a CPU number: it is in use just now. */
static bool mmi_frame_lock(struct mm_frame_pool *pool, struct mm_frame_section *section,
                           unsigned cpu)
{
    const bool known = cpu != MMI_FRAME_NOBODY;
    const unsigned long spins = known ? 0 : 100;
    unsigned tries = 4;
    for (;;) {
        const uintptr_t was = mm_load(mmi_frame_owner(pool, section));
        if (was < MM_CPU_MAX && was != cpu) {
            if (mmi_frame_take_away(pool, section, cpu, (unsigned)was, spins)) {
                if (known)
                    mm_count(&pool->cpu[cpu].taken_away, 1);
                mm_store(&section->wanted, 0);
                return true;
            }
        } else if (mm_bias_trylock(mmi_frame_owner(pool, section), cpu, was, NULL, spins)) {
            section->was = was;
            mm_store(&section->wanted, 0);
            return true;
        }
        if (!known && --tries == 0)
            return false;
        MM_CPU_RELAX();
    }
}

/* Unlocks a section: back to this CPU if it was its own, else nobody's. */
static void mmi_frame_unlock(struct mm_frame_pool *pool, struct mm_frame_section *section)
{
    const uintptr_t next = section->was;
    mmi_frame_note(pool, section, (unsigned)next);
    mm_bias_unlock(mmi_frame_owner(pool, section), next);
}

/* Whether a CPU may have the section to itself: each time that it was taken away doubles the free
 * frames that it must offer; a wholly free one starts over. Else CPUs that free into each other's
 * sections would take them back and forth for ever. A snapshot; exact under the lock. */
static bool mmi_frame_may_bias(const struct mm_frame_section *section)
{
    const unsigned taken = __atomic_load_n(&section->taken, __ATOMIC_RELAXED);
    if (mm_load(&section->wanted) != 0)
        return false;
    return taken == 0 ||
           (taken < MM_WORD_SHIFT && mm_load(&section->free) >= (MMI_FRAME_SECTION >> 4) << taken);
}

/* Makes a locked section this CPU's own and unlocks it. */
static void mmi_frame_adopt(struct mm_frame_pool *pool, struct mm_frame_section *section,
                            unsigned cpu)
{
    struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, section->zone);
    const uintptr_t number = mmi_frame_number(pool, section);
    if (section->free == section->managed)
        __atomic_store_n(&section->taken, 0, __ATOMIC_RELAXED);
    if (cursor->section == section) /* from an earlier ownership: S2 has no exception now */
        mmi_frame_cursor_reset(pool, cursor);
    mmi_frame_note(pool, section, cpu);
    if (section->was != cpu) {
        mmi_frame_set_remove(pool, MMI_FRAME_NOBODY, MMI_FRAME_AVAIL, number);
        mmi_frame_set_remove(pool, MMI_FRAME_NOBODY, MMI_FRAME_WHOLE, number);
    }
    mm_bias_unlock(mmi_frame_owner(pool, section), cpu);
}

/* Inside: takes a section that is not this CPU's any more from the CPU's set. But not while another
 * CPU has it locked: that one will enter it in a set when it unlocks it, and until then this set is
 * where those who search see that there is something to wait for. */
static MM_NOINLINE void mmi_frame_lost(const struct mm_frame_pool *pool, unsigned cpu,
                                       unsigned kind, uintptr_t i)
{
    if (mm_load_acquire(&pool->owner[i]) != MM_BIAS_LOCKED)
        mmi_frame_set_remove(pool, cpu, kind, i);
}

/* ---- Counting -------------------------------------------------------------------------------- */

/* Frames of the zone that the CPU allocated minus those that it freed. A snapshot. */
static inline uintptr_t mmi_frame_cpu_used(const struct mm_frame_cpu *self, unsigned zone)
{
    const struct mm_frame_cursor *cursor = &self->cursor[zone];
    const uintptr_t used = mm_load(&cursor->used);
    return __atomic_load_n(&self->span_cursor, __ATOMIC_RELAXED) == cursor
               ? used - mm_load(&self->freed)
               : used;
}

static uintptr_t mmi_frame_used(struct mm_frame_pool *pool, unsigned zone)
{
    uintptr_t used = mm_load(&pool->zone[zone].used);
    unsigned cpu;
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
        used += mmi_frame_cpu_used(&pool->cpu[cpu], zone);
    return used;
}

static uintptr_t mmi_frame_free_now(struct mm_frame_pool *pool, unsigned zone)
{
    const uintptr_t managed = mm_load(&pool->zone[zone].managed);
    const uintptr_t used = mmi_frame_used(pool, zone);
    if (MM_UNLIKELY(used > managed)) /* a CPU worked on while its counts were read: from below 0? */
        return 0 - used < used - managed ? managed : 0;
    if (used > mm_load(&pool->zone[zone].peak))
        mm_store(&pool->zone[zone].peak, used);
    return managed - used;
}

/* Notes the most frames in use, when this CPU uses a word's worth more than when it looked last. */
static MM_NOINLINE void mmi_frame_look(struct mm_frame_pool *pool, unsigned cpu, unsigned number)
{
    struct mm_frame_cpu *self = &pool->cpu[cpu];
    const uintptr_t used = mmi_frame_cpu_used(self, number);
    uintptr_t more = used - self->noted[number];
    if (more >= MM_WORD_BITS) {
        if ((intptr_t)more > 0)
            (void)mmi_frame_free_now(pool, number);
        self->noted[number] = used;
        more = 0;
    }
    self->cursor[number].look = self->cursor[number].used + MM_WORD_BITS - more;
}

/* Frees only lower what the CPU has in use, so that it need not look before so many allocations. */
static inline void mmi_frame_note_peak(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                       uintptr_t slack)
{
    const struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[number];
    if (MM_UNLIKELY((intptr_t)(cursor->used - cursor->look) >= (intptr_t)slack))
        mmi_frame_look(pool, cpu, number);
}

/* Counts `count` frames as allocated (or freed: its negative) on this CPU, pinned. */
static void mmi_frame_count(struct mm_frame_pool *pool, unsigned cpu, unsigned zone,
                            uintptr_t count)
{
    struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, zone);
    if (cursor == NULL) {
        (void)mm_fetch_add(&pool->zone[zone].used, count);
        return;
    }
    mm_count(&cursor->used, count);
    if ((intptr_t)count > 0)
        mmi_frame_note_peak(pool, cpu, zone, 0);
}

/* log2 of how many parts the room above a watermark is cut into, so that CPUs that each use up a
 * part do not pass the mark together. */
#define MMI_FRAME_SHARE (MM_CPU_MAX > 1 ? mm_fls(2 * MM_CPU_MAX - 1) + 1 : 0)

/* May `count` frames of the zone be allocated? Sets the cursor's room (if there is one): how many
 * this CPU may take before it asks again. */
static bool mmi_frame_admit(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                            unsigned flags, uintptr_t count)
{
    struct mm_frame_zone *zone = &pool->zone[number];
    struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, number);
    const uintptr_t floor = (flags & MM_FRAME_URGENT) != 0 ? 0 : zone->min;
    uintptr_t free, slack;
    if (zone->high == 0)
        return true;
    free = mmi_frame_free_now(pool, number);
    if (free > zone->high)
        mm_store(&zone->pressed, 0);
    if (cursor != NULL)
        cursor->room = 0;
    if (free < count || free - count < floor)
        return false;
    slack = free - count;
    slack -= slack >= zone->low ? zone->low : slack >= zone->min ? zone->min : slack;
    if (cursor != NULL)
        cursor->room = slack >> MMI_FRAME_SHARE;
    return true;
}

/* ---- Single frames --------------------------------------------------------------------------- */

#define MMI_FRAME_SWEEP 2048 /* words found before a search starts from the lowest section again */

/* Inside: the lowest word with a free frame of a section of this CPU becomes the cursor's; NULL:
 * none has. */
static inline uintptr_t *mmi_frame_word_of(const struct mm_frame_pool *pool,
                                           struct mm_frame_cursor *cursor,
                                           struct mm_frame_section *section)
{
    uintptr_t *words = mmi_frame_words(pool, section);
    uintptr_t some = section->some;
    for (; some != 0; some &= some - 1) {
        const unsigned w = mm_ctz(some);
        const uintptr_t bits = mm_load(&words[w]);
        if (bits == 0)
            continue;
        mm_store(&section->some, some);
        mm_store(&section->full, section->full & ~mm_bit(w)); /* the exception of S2 */
        mmi_frame_cursor_set(cursor, section, &words[w]);
        cursor->pa = (mm_pa_t)(section->pfn + ((uintptr_t)w << MM_WORD_SHIFT)) << MM_PAGE_SHIFT;
        return &words[w];
    }
    mm_store(&section->some, 0);
    return NULL;
}

/* Whether a search leaves the section out for now: its lowest word with a free frame is wholly
 * free, and would be broken. */
static bool mmi_frame_spares(const struct mm_frame_pool *pool,
                             const struct mm_frame_section *section, bool lowest)
{
    return !lowest && pool->policy != MM_FRAME_NEXT_FIT &&
           (section->full & section->some & (0 - section->some)) != 0;
}

/* Whether a search starts from the lowest section. */
static bool mmi_frame_restarts(const struct mm_frame_pool *pool,
                               const struct mm_frame_cursor *cursor)
{
    return cursor->section == pool->nowhere ||
           (pool->policy != MM_FRAME_NEXT_FIT && cursor->sweep >= MMI_FRAME_SWEEP);
}

/* Inside: as mmi_frame_next_word, from the other sections. Lowest first, in sweeps: a search goes
 * on upward from the section just used up, so that each yields all that was freed there meanwhile;
 * it starts from the lowest again after some words, and before it breaks a word that is wholly
 * free. */
static MM_NOINLINE uintptr_t *mmi_frame_next_section(struct mm_frame_pool *pool, unsigned cpu,
                                                     unsigned number)
{
    const struct mm_frame_zone *zone = &pool->zone[number];
    struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[number];
    bool lowest = mmi_frame_restarts(pool, cursor);
    uintptr_t from = lowest ? zone->first : mmi_frame_number(pool, cursor->section) + 1;
    for (;;) {
        const uintptr_t i = mmi_frame_set_in(pool, cpu, MMI_FRAME_AVAIL, zone, from);
        if (i == MMI_FRAME_NONE && lowest)
            break;
        if (i == MMI_FRAME_NONE) {
            lowest = true;
            from = zone->first;
        } else if (!mm_bias_mine(&pool->owner[i], cpu)) {
            mmi_frame_lost(pool, cpu, MMI_FRAME_AVAIL, i);
            from = i + 1;
        } else if (mmi_frame_spares(pool, &pool->section[i], lowest)) {
            lowest = true;
            from = zone->first;
        } else {
            uintptr_t *word = mmi_frame_word_of(pool, cursor, &pool->section[i]);
            if (word != NULL) {
                cursor->sweep = (lowest ? 0 : cursor->sweep) + mm_popcount(cursor->section->some);
                return word;
            }
            mmi_frame_set_remove(pool, cpu, MMI_FRAME_AVAIL, i);
            from = i + 1;
        }
    }
    mmi_frame_cursor_reset(pool, cursor);
    return NULL;
}

/* Inside: moves the cursor, whose word is used up, to the next word of this CPU's sections that has
 * a free frame, by the pool's policy, and returns it; NULL if there is none. */
static inline uintptr_t *mmi_frame_next_word(struct mm_frame_pool *pool, unsigned cpu,
                                             unsigned number)
{
    struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[number];
    uintptr_t *word;
    mmi_frame_note_peak(pool, cpu, number, 0);
    if (cursor->section == pool->nowhere &&
        mm_load(&mmi_frame_set(pool, cpu, MMI_FRAME_AVAIL)[pool->level_at[pool->levels - 1]]) == 0)
        return NULL; /* by H1: this CPU has nothing of its own */
    word = mmi_frame_cursor_word(pool, cursor, cpu);
    if (word != NULL && MM_UNLIKELY(mm_load(&cursor->section->wanted) != 0) &&
        mmi_frame_yield(pool, cpu, cursor->section, cursor))
        word = NULL;
    if (MM_LIKELY(word != NULL)) {
        if (MM_LIKELY(mm_load(word) == 0)) /* else not used up: see C1 */
            word = mmi_frame_word_of(pool, cursor, cursor->section);
        if (word != NULL)
            return word;
    }
    return mmi_frame_next_section(pool, cpu, number);
}

/* Inside: makes S1 and S2 true for the word of frame `index`, in which a free set bits, and the
 * sets. */
static inline void mmi_frame_freed(struct mm_frame_pool *pool, unsigned cpu, uintptr_t index)
{
    const uintptr_t number = index >> MMI_FRAME_SECTION_SHIFT;
    const uintptr_t *word = &pool->word[index >> MM_WORD_SHIFT];
    const unsigned w = (unsigned)(index >> MM_WORD_SHIFT) & (MM_WORD_BITS - 1);
    struct mm_frame_section *section = &pool->section[number];
    struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[section->zone];
    const uintptr_t some = section->some;
    mm_store(&section->some, some | mm_bit(w));
    if (some == 0)
        mmi_frame_set_add(pool, cpu, MMI_FRAME_AVAIL, number);
    if (mm_load(word) == ~(uintptr_t)0 && word != mmi_frame_cursor_peek(cursor)) {
        const uintptr_t group = mmi_frame_group(w), full = section->full | mm_bit(w);
        mm_store(&section->full, full);
        if ((full & group) == group)
            mmi_frame_set_add(pool, cpu, MMI_FRAME_WHOLE, number);
        /* Wholly free, and another CPU's before: not worth keeping from it. */
        if (full == ~(uintptr_t)0 && section->taken != 0 && cursor->section != section)
            (void)mmi_frame_yield(pool, cpu, section, cursor);
    }
}

/* Inside, which it leaves: as mmi_frame_edge_some, where the section had no free frame. */
static MM_NOINLINE enum mm_status mmi_frame_edge_first(struct mm_frame_pool *pool,
                                                       struct mm_frame_cpu *self, uintptr_t number)
{
    mmi_frame_set_add(pool, (unsigned)(self - pool->cpu), MMI_FRAME_AVAIL, number);
    mm_busy_leave(&self->busy);
    return MM_OK;
}

MM_FRAME_API MM_NOINLINE enum mm_status
mmi_frame_edge_some(struct mm_frame_pool *pool, struct mm_frame_cpu *self, uintptr_t index)
{
    struct mm_frame_section *section = &pool->section[index >> MMI_FRAME_SECTION_SHIFT];
    const uintptr_t some = section->some;
    uintptr_t now = some;
    (void)mmi_frame_set_bit(&now, index >> MM_WORD_SHIFT);
    mm_store(&section->some, now);
    if (MM_UNLIKELY(some == 0))
        return mmi_frame_edge_first(pool, self, index >> MMI_FRAME_SECTION_SHIFT);
    mm_busy_leave(&self->busy);
    return MM_OK;
}

MM_FRAME_API MM_NOINLINE enum mm_status
mmi_frame_edge_full(struct mm_frame_pool *pool, struct mm_frame_cpu *self, uintptr_t index)
{
    mmi_frame_freed(pool, (unsigned)(self - pool->cpu), index);
    mm_busy_leave(&self->busy);
    return MM_OK;
}

/* Inside: takes up to `count` frames from this CPU's sections, one word at a time. */
static size_t mmi_frame_take_own(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                 size_t count, mm_pa_t *out)
{
    struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[number];
    size_t got = 0;
    uintptr_t *word = mmi_frame_cursor_word(pool, cursor, cpu);
    uintptr_t bits;
    if (word == NULL || mm_load(word) == 0)
        word = mmi_frame_next_word(pool, cpu, number);
    if (word == NULL)
        return 0;
    bits = mm_load(word);
    while (bits != 0 && got < count) {
        out[got++] = mmi_frame_first_of(cursor, bits);
        bits &= bits - 1;
    }
    mm_store(word, bits);
    mm_count(&cursor->used, got);
    return got;
}

/* A block of 2^order frames, order 0 or huge, from a locked section that has one. */
static uintptr_t mmi_frame_pick(struct mm_frame_pool *pool, struct mm_frame_section *section,
                                unsigned kind)
{
    uintptr_t at;
    if (kind == MMI_FRAME_WHOLE) {
        at = (uintptr_t)mm_ctz(mmi_frame_whole(section->full)) << MM_WORD_SHIFT;
        mmi_frame_take(pool, section, at, MMI_FRAME_HUGE);
    } else {
        const unsigned w = mm_ctz(section->some);
        uintptr_t *word = mmi_frame_words(pool, section) + w;
        const uintptr_t bits = mm_load(word), rest = bits & (bits - 1);
        at = ((uintptr_t)w << MM_WORD_SHIFT) | mm_ctz(bits);
        mm_store(word, rest);
        mm_store(&section->free, section->free - 1);
        mm_store(&section->full, section->full & ~mm_bit(w));
        if (rest == 0)
            mm_store(&section->some, section->some & ~mm_bit(w));
    }
    return section->pfn + at;
}

/* Which section of a set of `slot` to turn to: the lowest; but rather one that this CPU may have to
 * itself than one that is contended, and of another CPU's rather a wholly free one than one that it
 * is using, if there is one among the next few. */
static uintptr_t mmi_frame_choose(const struct mm_frame_pool *pool,
                                  const struct mm_frame_zone *zone, unsigned slot, unsigned set,
                                  uintptr_t from)
{
    const uintptr_t lowest = mmi_frame_set_in(pool, slot, set, zone, from);
    uintptr_t i = from;
    unsigned tries;
    if (lowest == MMI_FRAME_NONE)
        return lowest;
    if (slot == MMI_FRAME_NOBODY && mmi_frame_may_bias(&pool->section[lowest]))
        return lowest;
    for (tries = 0; tries < (slot == MMI_FRAME_NOBODY ? 8 : 64); tries++, i++) {
        const struct mm_frame_section *section;
        i = mmi_frame_set_in(pool, slot, MMI_FRAME_WHOLE, zone, i);
        if (i == MMI_FRAME_NONE)
            break;
        section = &pool->section[i];
        if (slot == MMI_FRAME_NOBODY ? mmi_frame_may_bias(section)
                                     : mm_load(&section->full) == ~(uintptr_t)0 &&
                                           mm_load(mmi_frame_owner(pool, section)) == slot)
            return i;
    }
    return lowest;
}

enum mmi_frame_outcome { MMI_FRAME_NOTHING, MMI_FRAME_ADOPTED, MMI_FRAME_GOT, MMI_FRAME_CONTENDED };

/* Where to begin the search in the sections of `slot`: in another CPU's behind the one taken last,
 * because that CPU's set still shows those that were taken. */
static uintptr_t mmi_frame_start(const struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                 unsigned slot)
{
    const uintptr_t first = pool->zone[number].first;
    if (slot == MMI_FRAME_NOBODY || cpu >= MM_CPU_MAX || pool->cpu[cpu].stolen < first)
        return first;
    return pool->cpu[cpu].stolen + 1;
}

/* Adopts a section for this CPU, or takes one block (*pfn) of it if it must not. */
static enum mmi_frame_outcome mmi_frame_obtain_in(struct mm_frame_pool *pool, unsigned cpu,
                                                  unsigned number, uintptr_t i, unsigned kind,
                                                  uintptr_t *pfn)
{
    struct mm_frame_section *section = &pool->section[i];
    if (!mmi_frame_lock(pool, section, cpu))
        return MMI_FRAME_CONTENDED;
    if (kind == MMI_FRAME_WHOLE ? mmi_frame_whole(section->full) == 0 : section->some == 0) {
        if (section->was == MMI_FRAME_NOBODY)
            mmi_frame_set_remove(pool, MMI_FRAME_NOBODY, kind, i);
        mmi_frame_unlock(pool, section);
        return MMI_FRAME_NOTHING;
    }
    if (cpu < MM_CPU_MAX && section->was == MMI_FRAME_NOBODY && mmi_frame_may_bias(section)) {
        mmi_frame_adopt(pool, section, cpu);
        return MMI_FRAME_ADOPTED;
    }
    *pfn = mmi_frame_pick(pool, section, kind);
    if (cpu < MM_CPU_MAX)
        pool->cpu[cpu].common[number] = section;
    mmi_frame_unlock(pool, section);
    return MMI_FRAME_GOT;
}

/* Whether a search of the sets of `slot` may turn to section i. A CPU's set may be behind the
 * times: what another one has by now is left to the search of that one's set, and this CPU has
 * looked into its own. MMI_FRAME_GOT: it may; MMI_FRAME_CONTENDED: not while it is locked. */
static enum mmi_frame_outcome mmi_frame_obtainable(const struct mm_frame_pool *pool, unsigned cpu,
                                                   unsigned slot, uintptr_t i)
{
    const uintptr_t owner = mm_load(&pool->owner[i]);
    if (slot == MMI_FRAME_NOBODY || (owner == slot && slot != cpu))
        return MMI_FRAME_GOT;
    return owner == MM_BIAS_LOCKED ? MMI_FRAME_CONTENDED : MMI_FRAME_NOTHING;
}

/* Looks for a block of `kind` in one set of `slot`: one try with the preferred section, then all in
 * turn. MMI_FRAME_CONTENDED: there may be one in a section that is locked just now. */
static enum mmi_frame_outcome mmi_frame_obtain_from(struct mm_frame_pool *pool, unsigned cpu,
                                                    unsigned number, unsigned slot, unsigned set,
                                                    unsigned kind, uintptr_t *pfn)
{
    const struct mm_frame_zone *zone = &pool->zone[number];
    bool contended = false;
    uintptr_t next = zone->first;
    uintptr_t i = mmi_frame_choose(pool, zone, slot, set, mmi_frame_start(pool, cpu, number, slot));
    if (i == MMI_FRAME_NONE)
        i = mmi_frame_set_in(pool, slot, set, zone, next);
    while (i != MMI_FRAME_NONE) {
        enum mmi_frame_outcome outcome = mmi_frame_obtainable(pool, cpu, slot, i);
        if (outcome == MMI_FRAME_GOT)
            outcome = mmi_frame_obtain_in(pool, cpu, number, i, kind, pfn);
        if (outcome == MMI_FRAME_ADOPTED && slot != MMI_FRAME_NOBODY)
            pool->cpu[cpu].stolen = i;
        if (outcome == MMI_FRAME_ADOPTED || outcome == MMI_FRAME_GOT)
            return outcome;
        contended |= outcome == MMI_FRAME_CONTENDED;
        i = mmi_frame_set_in(pool, slot, set, zone, next);
        next = i + 1;
    }
    return contended ? MMI_FRAME_CONTENDED : MMI_FRAME_NOTHING;
}

/* Looks everywhere but in this CPU's own sections: nobody's first, then the CPUs' (in the set of
 * this one for sections that others are taking away). */
static enum mmi_frame_outcome mmi_frame_obtain(struct mm_frame_pool *pool, unsigned cpu,
                                               unsigned number, unsigned kind, uintptr_t *pfn)
{
    bool contended = false;
    unsigned i;
    for (i = 0; i <= MM_CPU_MAX; i++) {
        const unsigned slot = (MMI_FRAME_NOBODY + i) % (MM_CPU_MAX + 1);
        /* From a CPU rather a section with much to give. */
        enum mmi_frame_outcome outcome = mmi_frame_obtain_from(
            pool, cpu, number, slot, slot == MMI_FRAME_NOBODY ? kind : (unsigned)MMI_FRAME_WHOLE,
            kind, pfn);
        if (outcome == MMI_FRAME_NOTHING && kind != MMI_FRAME_WHOLE && slot != MMI_FRAME_NOBODY)
            outcome = mmi_frame_obtain_from(pool, cpu, number, slot, kind, kind, pfn);
        if (outcome == MMI_FRAME_ADOPTED || outcome == MMI_FRAME_GOT)
            return outcome;
        contended |= outcome == MMI_FRAME_CONTENDED;
    }
    return contended ? MMI_FRAME_CONTENDED : MMI_FRAME_NOTHING;
}

/* Up to `count` frames of one zone, the CPU pinned; no watermarks. */
static size_t mmi_frame_get(struct mm_frame_pool *pool, unsigned cpu, unsigned number, size_t count,
                            mm_pa_t *out)
{
    size_t got = 0;
    unsigned tries = 0;
    while (got < count) {
        enum mmi_frame_outcome outcome;
        uintptr_t pfn = 0;
        if (cpu < MM_CPU_MAX) {
            size_t more;
            mm_busy_enter(&pool->cpu[cpu].busy);
            more = mmi_frame_take_own(pool, cpu, number, count - got, out + got);
            mm_busy_leave(&pool->cpu[cpu].busy);
            got += more;
            if (more != 0)
                continue;
        }
        outcome = mmi_frame_obtain(pool, cpu, number, MMI_FRAME_AVAIL, &pfn);
        if (outcome == MMI_FRAME_GOT) {
            mmi_frame_count(pool, cpu, number, 1);
            out[got++] = (mm_pa_t)pfn << MM_PAGE_SHIFT;
        } else if (outcome != MMI_FRAME_ADOPTED) {
            /* Behind the search's back a section may have changed hands: then there are frames
             * left. The count is a snapshot, too: a second search has to agree. */
            if (cpu >= MM_CPU_MAX)
                break;
            if (outcome == MMI_FRAME_NOTHING &&
                ++tries > (mmi_frame_free_now(pool, number) == 0 ? 1 : MMI_FRAME_SEARCHES))
                break;
            MM_CPU_RELAX();
        }
    }
    return got;
}

/* ---- Blocks and runs ------------------------------------------------------------------------- */

/* Bitmap index of the lowest whole huge block in the sections of `slot`, or MMI_FRAME_NONE. Inside,
 * if the slot is this CPU's own: then sections that have none any more leave the set. */
static uintptr_t mmi_frame_lowest_whole(struct mm_frame_pool *pool, unsigned cpu, unsigned slot,
                                        unsigned number)
{
    const struct mm_frame_zone *zone = &pool->zone[number];
    uintptr_t i = zone->first;
    for (; (i = mmi_frame_set_in(pool, slot, MMI_FRAME_WHOLE, zone, i)) != MMI_FRAME_NONE; i++) {
        const struct mm_frame_section *section = &pool->section[i];
        uintptr_t whole;
        if (slot == cpu && !mm_bias_mine(mmi_frame_owner(pool, section), cpu)) {
            mmi_frame_lost(pool, cpu, MMI_FRAME_WHOLE, i);
            continue;
        }
        whole = mmi_frame_whole(mm_load(&section->full));
        if (whole != 0)
            return (i << MMI_FRAME_SECTION_SHIFT) | (uintptr_t)mm_ctz(whole) << MM_WORD_SHIFT;
        if (slot == cpu)
            mmi_frame_set_remove(pool, slot, MMI_FRAME_WHOLE, i);
    }
    return MMI_FRAME_NONE;
}

/* Inside: a huge block of this CPU's sections, or MMI_FRAME_NONE: of the same section as the last
 * one if that has another, else of the lowest. */
static inline uintptr_t mmi_frame_huge_own(struct mm_frame_pool *pool, unsigned cpu,
                                           unsigned number)
{
    struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[number];
    struct mm_frame_section *section = cursor->huge;
    uintptr_t whole = 0, group;
    unsigned w;
    if (mm_bias_mine(mmi_frame_owner(pool, section), cpu))
        whole = mmi_frame_whole(section->full);
    if (MM_UNLIKELY(whole == 0)) {
        const uintptr_t at = mmi_frame_lowest_whole(pool, cpu, cpu, number);
        if (at == MMI_FRAME_NONE)
            return MMI_FRAME_NONE;
        section = cursor->huge = &pool->section[at >> MMI_FRAME_SECTION_SHIFT];
        whole = mmi_frame_whole(section->full);
    }
    w = mm_ctz(whole);
    group = mmi_frame_group(w);
    mm_store(&section->full, section->full & ~group);
    mm_store(&section->some, section->some & ~group);
    mm_store(&section->huge, section->huge | mm_bit(w));
    mm_count(&cursor->used, MMI_FRAME_HUGE);
    mmi_frame_note_peak(pool, cpu, number, 8 * MMI_FRAME_HUGE);
    return section->pfn + ((uintptr_t)w << MM_WORD_SHIFT);
}

/* A huge block of one zone, the CPU pinned; no watermarks. */
static uintptr_t mmi_frame_get_huge(struct mm_frame_pool *pool, unsigned cpu, unsigned number)
{
    unsigned tries = 0;
    for (;;) {
        enum mmi_frame_outcome outcome;
        uintptr_t pfn = MMI_FRAME_NONE;
        if (cpu < MM_CPU_MAX) {
            struct mm_frame_cpu *self = &pool->cpu[cpu];
            mm_busy_enter(&self->busy);
            pfn = mmi_frame_huge_own(pool, cpu, number);
            if (pfn == MMI_FRAME_NONE && mmi_frame_cursor_hides(pool, &self->cursor[number], cpu)) {
                mmi_frame_cursor_release(pool, &self->cursor[number], cpu);
                pfn = mmi_frame_huge_own(pool, cpu, number);
            }
            mm_busy_leave(&self->busy);
            if (pfn != MMI_FRAME_NONE)
                return pfn;
        }
        outcome = mmi_frame_obtain(pool, cpu, number, MMI_FRAME_WHOLE, &pfn);
        if (outcome == MMI_FRAME_GOT)
            mmi_frame_count(pool, cpu, number, MMI_FRAME_HUGE);
        if (outcome == MMI_FRAME_GOT || (outcome == MMI_FRAME_NOTHING && ++tries > 1) ||
            (outcome == MMI_FRAME_CONTENDED && cpu >= MM_CPU_MAX))
            return pfn;
        MM_CPU_RELAX();
    }
}

/* Bits of `bits` at which 2^order free bits begin that are aligned to their number. */
static uintptr_t mmi_frame_aligned_runs(uintptr_t bits, unsigned order)
{
    uintptr_t starts = 1; /* every bit whose number is a multiple of 2^order */
    unsigned k;
    for (k = 0; k < order; k++)
        bits &= bits >> (1u << k);
    for (k = MM_WORD_SHIFT; k > order; k--)
        starts |= starts << (1u << (k - 1));
    return bits & starts;
}

#define MMI_FRAME_SCAN (2 * MM_WORD_BITS) /* words looked at before others may come in between */
#define MMI_FRAME_LAP  1024 /* small blocks before the search starts from the lowest again */

/* Inside: 2^order frames, at most a word, from words [*at, end of its section), where *at is a
 * bitmap index; *at moves to the word in which they were. */
static uintptr_t mmi_frame_small_from(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                      unsigned order, uintptr_t *at)
{
    struct mm_frame_section *section = &pool->section[*at >> MMI_FRAME_SECTION_SHIFT];
    const uintptr_t *words = mmi_frame_words(pool, section);
    uintptr_t some;
    if (!mm_bias_mine(mmi_frame_owner(pool, section), cpu))
        return MMI_FRAME_NONE;
    some = section->some & ~mm_mask((unsigned)(*at >> MM_WORD_SHIFT) & (MM_WORD_BITS - 1));
    for (; some != 0; some &= some - 1) {
        const unsigned w = mm_ctz(some);
        const uintptr_t runs = mmi_frame_aligned_runs(mm_load(&words[w]), order);
        if (runs != 0) {
            const uintptr_t first = ((uintptr_t)w << MM_WORD_SHIFT) | mm_ctz(runs);
            mmi_frame_take(pool, section, first, (uintptr_t)1 << order);
            mmi_frame_count(pool, cpu, number, (uintptr_t)1 << order);
            *at = (*at & ~(MMI_FRAME_SECTION - 1)) | (uintptr_t)w << MM_WORD_SHIFT;
            return section->pfn + first;
        }
    }
    return MMI_FRAME_NONE;
}

/* Inside: looks on from the hint of this order for some sections; the hint is MMI_FRAME_NONE at the
 * end. */
static uintptr_t mmi_frame_small_scan(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                      unsigned order)
{
    const struct mm_frame_zone *zone = &pool->zone[number];
    uintptr_t *hint = &pool->small[cpu].at[number][order];
    unsigned turn;
    for (turn = 0; turn < MMI_FRAME_SCAN / MM_WORD_BITS && *hint != MMI_FRAME_NONE; turn++) {
        const uintptr_t i = *hint >> MMI_FRAME_SECTION_SHIFT;
        uintptr_t next, pfn;
        pfn = mmi_frame_small_from(pool, cpu, number, order, hint);
        if (pfn != MMI_FRAME_NONE)
            return pfn;
        next = mmi_frame_set_in(pool, cpu, MMI_FRAME_AVAIL, zone, i + 1);
        *hint = next == MMI_FRAME_NONE ? MMI_FRAME_NONE : next << MMI_FRAME_SECTION_SHIFT;
    }
    return MMI_FRAME_NONE;
}

/* Takes one of nobody's sections with a whole huge block for this CPU, if it may. */
static bool mmi_frame_adopt_whole(struct mm_frame_pool *pool, unsigned cpu, unsigned number)
{
    const struct mm_frame_zone *zone = &pool->zone[number];
    const uintptr_t i =
        mmi_frame_choose(pool, zone, MMI_FRAME_NOBODY, MMI_FRAME_WHOLE, zone->first);
    struct mm_frame_section *section;
    if (i == MMI_FRAME_NONE)
        return false;
    section = &pool->section[i];
    (void)mmi_frame_lock(pool, section, cpu);
    if (section->was == MMI_FRAME_NOBODY && mmi_frame_whole(section->full) != 0 &&
        mmi_frame_may_bias(section)) {
        mmi_frame_adopt(pool, section, cpu);
        return true;
    }
    mmi_frame_unlock(pool, section);
    return false;
}

/* Where a search from the lowest section of a zone begins. */
static uintptr_t mmi_frame_small_start(const struct mm_frame_zone *zone)
{
    return zone->first < zone->sections ? zone->first << MMI_FRAME_SECTION_SHIFT : MMI_FRAME_NONE;
}

static void mmi_frame_small_restart(const struct mm_frame_pool *pool, struct mm_frame_small *small,
                                    unsigned number)
{
    unsigned k;
    small->at[number][0] = 0;
    for (k = 1; k <= MM_WORD_SHIFT; k++)
        small->at[number][k] = mmi_frame_small_start(&pool->zone[number]);
}

/* 2^order frames, at most a word, from this CPU's sections or an adopted one, the CPU pinned: first
 * from words in use, going on where the last search ended, then by breaking the lowest whole huge
 * block. */
static uintptr_t mmi_frame_get_small(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                     unsigned order)
{
    struct mm_frame_cpu *self = &pool->cpu[cpu];
    uintptr_t *hint = &pool->small[cpu].at[number][order];
    uintptr_t *lap = &pool->small[cpu].at[number][0];
    const uintptr_t start = mmi_frame_small_start(&pool->zone[number]);
    uintptr_t pfn, at;
    bool again = ++*lap < MMI_FRAME_LAP;
    if (!again)
        mmi_frame_small_restart(pool, &pool->small[cpu], number);
    for (;;) {
        do {
            mm_busy_enter(&self->busy);
            pfn = mmi_frame_small_scan(pool, cpu, number, order);
            mm_busy_leave(&self->busy);
        } while (pfn == MMI_FRAME_NONE && *hint != MMI_FRAME_NONE);
        if (pfn != MMI_FRAME_NONE)
            return pfn;
        mm_busy_enter(&self->busy);
        at = mmi_frame_lowest_whole(pool, cpu, cpu, number);
        if (at != MMI_FRAME_NONE)
            pfn = mmi_frame_small_from(pool, cpu, number, order, &at);
        *hint = at;
        mm_busy_leave(&self->busy);
        if (pfn != MMI_FRAME_NONE)
            return pfn;
        if (at != MMI_FRAME_NONE || mmi_frame_adopt_whole(pool, cpu, number))
            continue;
        if (!again)
            return MMI_FRAME_NONE;
        *hint = start; /* what was freed behind the hint meanwhile */
        again = false;
    }
}

/* A run to be found: in frame numbers. */
struct mmi_frame_run {
    uintptr_t count, align, boundary; /* frames; align >= 1; boundary 0: none */
    uintptr_t min, max;               /* first and behind the last frame number allowed */
};

/* The lowest place from `pfn` on that suits alignment and boundary. MMI_FRAME_NONE: beyond the
 * last. */
static uintptr_t mmi_frame_place(const struct mmi_frame_run *run, uintptr_t pfn)
{
    uintptr_t at = (pfn + (run->align - 1)) & ~(run->align - 1);
    if (at < pfn || at > MMI_FRAME_NONE - run->count)
        return MMI_FRAME_NONE;
    if (run->boundary != 0 && ((at ^ (at + run->count - 1)) & ~(run->boundary - 1)) != 0) {
        /* count <= boundary: from the next multiple on it fits, and that is aligned (if less so
         * than `align` demands, the next multiple of align is a multiple of boundary as well) */
        uintptr_t next = (at | (run->boundary - 1)) + 1;
        at = (next + (run->align - 1)) & ~(run->align - 1);
        if (next == 0 || at < next || at > MMI_FRAME_NONE - run->count)
            return MMI_FRAME_NONE;
    }
    return at;
}

/* The last frame of index range [first, first + count) that is in use, or MMI_FRAME_NONE. A
 * snapshot that skips: for a section without free frames it may name any frame of it that is not
 * before the last. */
static uintptr_t mmi_frame_last_used(const struct mm_frame_pool *pool, uintptr_t first,
                                     uintptr_t count)
{
    uintptr_t word = (first + count - 1) >> MM_WORD_SHIFT;
    const uintptr_t start = first >> MM_WORD_SHIFT;
    for (;; word--) {
        const struct mm_frame_section *section = &pool->section[word >> MM_WORD_SHIFT];
        const unsigned w = (unsigned)(word & (MM_WORD_BITS - 1));
        const uintptr_t base = word << MM_WORD_SHIFT;
        uintptr_t mask = ~(uintptr_t)0, used;
        if (mm_load(&section->some) == 0)
            return (base | (MMI_FRAME_SECTION - 1));
        if (base < first)
            mask &= ~mm_mask((unsigned)(first - base));
        if (base + MM_WORD_BITS > first + count)
            mask &= mm_mask((unsigned)(first + count - base));
        used = ~mmi_frame_bits(section, &pool->word[word - w], w) & mask;
        if (used != 0)
            return base + mm_fls(used);
        if (word == start)
            return MMI_FRAME_NONE;
    }
}

/* Locks the sections of index range [first, first + count), in ascending order. All or none. */
static bool mmi_frame_lock_range(struct mm_frame_pool *pool, uintptr_t first, uintptr_t count,
                                 unsigned cpu)
{
    const uintptr_t last = (first + count - 1) >> MMI_FRAME_SECTION_SHIFT;
    uintptr_t i;
    for (i = first >> MMI_FRAME_SECTION_SHIFT; i <= last; i++) {
        if (mmi_frame_lock(pool, &pool->section[i], cpu))
            continue;
        while (i-- > first >> MMI_FRAME_SECTION_SHIFT)
            mmi_frame_unlock(pool, &pool->section[i]);
        return false;
    }
    return true;
}

static void mmi_frame_unlock_range(struct mm_frame_pool *pool, uintptr_t first, uintptr_t count)
{
    const uintptr_t last = (first + count - 1) >> MMI_FRAME_SECTION_SHIFT;
    uintptr_t i;
    for (i = first >> MMI_FRAME_SECTION_SHIFT; i <= last; i++)
        mmi_frame_unlock(pool, &pool->section[i]);
}

/* What to do with each section's part of an index range. */
enum mmi_frame_deed { MMI_FRAME_ALL_FREE, MMI_FRAME_ALL_USED, MMI_FRAME_TAKE, MMI_FRAME_PUT };

/* Does it for [first, first + count), whose sections the caller owns; false when a test fails. */
static bool mmi_frame_each(struct mm_frame_pool *pool, uintptr_t first, uintptr_t count,
                           unsigned cpu, enum mmi_frame_deed deed)
{
    const uintptr_t end = first + count;
    while (first < end) {
        struct mm_frame_section *section = &pool->section[first >> MMI_FRAME_SECTION_SHIFT];
        const struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, section->zone);
        const uintptr_t at = first & (MMI_FRAME_SECTION - 1);
        const uintptr_t part =
            end - first < MMI_FRAME_SECTION - at ? end - first : MMI_FRAME_SECTION - at;
        if (deed <= MMI_FRAME_ALL_USED) {
            if (!mmi_frame_all(pool, section, at, part, deed == MMI_FRAME_ALL_FREE))
                return false;
        } else if (deed == MMI_FRAME_TAKE) {
            mmi_frame_take(pool, section, at, part);
        } else {
            mmi_frame_put(pool, section, at, part,
                          cursor != NULL && section->was == cpu ? mmi_frame_cursor_peek(cursor)
                                                                : NULL);
        }
        first += part;
    }
    return true;
}

/* Allocates (`take`) or frees the frames [first, first + count) of the bitmap, all or nothing, the
 * CPU pinned. MM_ERR_INVALID: not all are in the state before; MM_ERR_BUSY: no CPU number, and in
 * use. */
static enum mm_status mmi_frame_change(struct mm_frame_pool *pool, unsigned cpu, uintptr_t first,
                                       uintptr_t count, bool take)
{
    const unsigned zone = pool->section[first >> MMI_FRAME_SECTION_SHIFT].zone;
    bool fits;
    if (!mmi_frame_lock_range(pool, first, count, cpu))
        return MM_ERR_BUSY;
    fits = mmi_frame_each(pool, first, count, cpu, take ? MMI_FRAME_ALL_FREE : MMI_FRAME_ALL_USED);
    if (fits) {
        (void)mmi_frame_each(pool, first, count, cpu, take ? MMI_FRAME_TAKE : MMI_FRAME_PUT);
        mmi_frame_count(pool, cpu, zone, take ? count : 0 - count);
    }
    mmi_frame_unlock_range(pool, first, count);
    if (fits && take && cpu < MM_CPU_MAX &&
        pool->zone[zone].high != 0) { /* ask the watermarks anew */
        pool->cpu[cpu].cursor[zone].room = 0;
        mm_busy_enter(&pool->cpu[cpu].busy);
        mmi_frame_cursor_release(pool, &pool->cpu[cpu].cursor[zone], cpu);
        mm_busy_leave(&pool->cpu[cpu].busy);
    }
    return fits ? MM_OK : MM_ERR_INVALID;
}

/* Tries index `at` for a run, the CPU pinned: whether it was free and is taken now. */
static bool mmi_frame_try_run(struct mm_frame_pool *pool, unsigned cpu,
                              const struct mm_frame_span *span, const struct mmi_frame_run *run,
                              uintptr_t at)
{
    const uintptr_t pfn = at - span->delta;
    if (pfn < run->min || pfn < span->pfn || pfn != mmi_frame_place(run, pfn))
        return false;
    if (pfn > span->end - run->count || pfn > run->max - run->count)
        return false;
    if (mmi_frame_last_used(pool, at, run->count) != MMI_FRAME_NONE)
        return false;
    return mmi_frame_change(pool, cpu, at, run->count, true) == MM_OK;
}

/* Searches a span for a run, lowest first, the CPU pinned. Returns the frame number taken. */
static uintptr_t mmi_frame_search_span(struct mm_frame_pool *pool, unsigned cpu,
                                       const struct mm_frame_span *span,
                                       const struct mmi_frame_run *run)
{
    const uintptr_t end = run->max < span->end ? run->max : span->end;
    uintptr_t pfn = run->min > span->pfn ? run->min : span->pfn;
    while ((pfn = mmi_frame_place(run, pfn)) != MMI_FRAME_NONE) {
        const uintptr_t at = pfn + span->delta;
        uintptr_t used;
        if (pfn >= end || end - pfn < run->count)
            break;
        used = mmi_frame_last_used(pool, at, run->count);
        if (used == MMI_FRAME_NONE) {
            if (mmi_frame_change(pool, cpu, at, run->count, true) == MM_OK)
                return pfn;
            /* Somebody was quicker; or, without a CPU number, the section is in use: pass over
             * it. */
            used = cpu < MM_CPU_MAX ? at : at | (MMI_FRAME_SECTION - 1);
        }
        pfn = used - span->delta + 1;
    }
    return MMI_FRAME_NONE;
}

/* ---- Spans ----------------------------------------------------------------------------------- */

/* The span that frame `pfn` is in, or NULL. O(log spans). The table stays while the caller is
 * inside (or counted in `anonymous`). */
static const struct mm_frame_span *mmi_frame_span_of(const struct mm_frame_pool *pool, uint64_t pfn)
{
    const struct mm_frame_span_table *table = &pool->table[mm_load_acquire(&pool->table_current)];
    uintptr_t lo = 0, hi = table->count;
    while (lo < hi) {
        const uintptr_t mid = lo + (hi - lo) / 2;
        const struct mm_frame_span *span = &table->span[mid];
        if (pfn < span->pfn)
            hi = mid;
        else if (pfn >= span->end)
            lo = mid + 1;
        else
            return span;
    }
    return NULL;
}

/* Around a look at the spans: whoever replaces them waits until all have left. */
static void mmi_frame_enter(struct mm_frame_pool *pool, unsigned cpu)
{
    if (cpu < MM_CPU_MAX)
        mm_busy_enter(&pool->cpu[cpu].busy);
    else
        (void)mm_fetch_add(&pool->anonymous, 1);
}

static void mmi_frame_leave(struct mm_frame_pool *pool, unsigned cpu)
{
    if (cpu < MM_CPU_MAX)
        mm_busy_leave(&pool->cpu[cpu].busy);
    else
        (void)mm_fetch_add(&pool->anonymous, ~(uintptr_t)0);
}

/* The span that all `count` frames from `pfn` on are in, by value; false if there is none. */
static bool mmi_frame_find_span(struct mm_frame_pool *pool, unsigned cpu, uint64_t pfn,
                                uint64_t count, struct mm_frame_span *found)
{
    const struct mm_frame_span *span;
    bool ok;
    mmi_frame_enter(pool, cpu);
    span = mmi_frame_span_of(pool, pfn);
    ok = span != NULL && count <= span->end - pfn;
    if (ok)
        *found = *span;
    mmi_frame_leave(pool, cpu);
    return ok;
}

#define MMI_FRAME_ANY_ZONE MM_FRAME_ZONE_MAX

/* The lowest span that ends behind `pfn`, of `zone` or of any, by value; false if there is none. */
static bool mmi_frame_next_span(struct mm_frame_pool *pool, unsigned cpu, unsigned zone,
                                uint64_t pfn, struct mm_frame_span *found)
{
    const struct mm_frame_span_table *table;
    uintptr_t i;
    bool ok = false;
    mmi_frame_enter(pool, cpu);
    table = &pool->table[mm_load_acquire(&pool->table_current)];
    for (i = 0; i < table->count && !ok; i++) {
        const struct mm_frame_span *span = &table->span[i];
        ok = (zone == MMI_FRAME_ANY_ZONE || span->zone == zone) && span->end > pfn;
        if (ok)
            *found = *span;
    }
    mmi_frame_leave(pool, cpu);
    return ok;
}

/* Bitmap index at which a run may be found without a search, turn by turn: behind the last one, in
 * the lowest whole huge block of this CPU's or of nobody's sections. MMI_FRAME_NONE: nowhere. The
 * CPU pinned. */
static uintptr_t mmi_frame_hint(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                uintptr_t count, unsigned turn)
{
    uintptr_t at;
    if (turn == 0)
        return cpu < MM_CPU_MAX ? pool->cpu[cpu].run[number] : MMI_FRAME_NONE;
    if (count > MMI_FRAME_HUGE)
        return MMI_FRAME_NONE;
    if (turn == 2)
        return mmi_frame_lowest_whole(pool, cpu, MMI_FRAME_NOBODY, number);
    if (cpu >= MM_CPU_MAX)
        return MMI_FRAME_NONE;
    mm_busy_enter(&pool->cpu[cpu].busy);
    at = mmi_frame_lowest_whole(pool, cpu, cpu, number);
    mm_busy_leave(&pool->cpu[cpu].busy);
    return at;
}

/* A run at one of these places, or MMI_FRAME_NONE. The CPU pinned. */
static uintptr_t mmi_frame_guess_run(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                     const struct mmi_frame_run *run)
{
    unsigned turn;
    for (turn = 0; turn < 3; turn++) {
        const uintptr_t at = mmi_frame_hint(pool, cpu, number, run->count, turn);
        struct mm_frame_span span;
        uintptr_t pfn;
        if (at == MMI_FRAME_NONE)
            continue;
        pfn = pool->section[at >> MMI_FRAME_SECTION_SHIFT].pfn + (at & (MMI_FRAME_SECTION - 1));
        pfn = mmi_frame_place(run, pfn);
        if (pfn == MMI_FRAME_NONE || !mmi_frame_find_span(pool, cpu, pfn, run->count, &span))
            continue;
        if (span.zone == number && mmi_frame_try_run(pool, cpu, &span, run, pfn + span.delta))
            return pfn;
    }
    return MMI_FRAME_NONE;
}

/* A run in one zone, the CPU pinned; no watermarks. */
static uintptr_t mmi_frame_get_run(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                   const struct mmi_frame_run *run)
{
    struct mm_frame_span span;
    /* A single frame is not worth a whole block. */
    uintptr_t pfn = run->count > 1 ? mmi_frame_guess_run(pool, cpu, number, run) : MMI_FRAME_NONE;
    uintptr_t from = run->min;
    if (pfn == MMI_FRAME_NONE && cpu < MM_CPU_MAX) {
        mm_busy_enter(&pool->cpu[cpu].busy);
        mmi_frame_cursor_release(pool, &pool->cpu[cpu].cursor[number], cpu);
        mm_busy_leave(&pool->cpu[cpu].busy);
    }
    while (pfn == MMI_FRAME_NONE && mmi_frame_next_span(pool, cpu, number, from, &span)) {
        pfn = mmi_frame_search_span(pool, cpu, &span, run);
        from = span.end;
        if (from >= run->max)
            break;
    }
    if (pfn != MMI_FRAME_NONE && cpu < MM_CPU_MAX &&
        mmi_frame_find_span(pool, cpu, pfn, run->count, &span)) {
        const uintptr_t end = pfn + run->count + span.delta;
        pool->cpu[cpu].run[number] =
            end >> MMI_FRAME_SECTION_SHIFT < pool->zone[number].sections ? end : MMI_FRAME_NONE;
    }
    return pfn;
}

/* ---- Allocation ------------------------------------------------------------------------------ */

/* Counts and reports a call that was refused as misuse; returns its status. */
static MM_COLD enum mm_status mmi_frame_refuse(struct mm_frame_pool *pool, const char *where,
                                               const char *what, enum mm_status status, mm_pa_t pa)
{
    MM_CPU_STATE_T state;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (cpu < MM_CPU_MAX)
        mm_store(&pool->cpu[cpu].refused, pool->cpu[cpu].refused + 1);
    MM_CPU_UNPIN(state);
#if MM_DEBUG >= 1
    {
        struct mm_report report;
        report.where = where;
        report.what = what;
        report.status = status;
        report.address = pa;
        report.object = pool;
        MM_REPORT(&report);
    }
#else
    (void)where;
    (void)what;
    (void)pa;
#endif
    return status;
}

/* MM_DEBUG 3: the full check after an operation, where no other CPU can be in the way. */
static void mmi_frame_self_check(struct mm_frame_pool *pool)
{
#if MM_DEBUG >= 3 && MM_CPU_MAX == 1
    MM_ASSERT(mm_frame_check(pool, UINT64_MAX, NULL) == MM_FRAME_HEALTHY);
#endif
    (void)pool;
}

static bool mmi_frame_flags_valid(const struct mm_frame_pool *pool, unsigned flags)
{
    if ((flags & ~MM_FRAME_FLAGS) != 0 || (flags & MM_FRAME_ZONE_MASK) >= pool->zone_count)
        return false;
    return (flags & MM_FRAME_ZERO) == 0 || pool->hooks.zero != NULL;
}

/* Takes `count` frames of one zone as the watermarks allow: single ones into out[] (run NULL), a
 * run, or 2^order of them. Returns how many it got (for runs: count or 0), the first frame's
 * address in *out. */
struct mmi_frame_want {
    size_t count;
    unsigned order; /* for blocks: 1 to word and huge; 0: see run */
    const struct mmi_frame_run *run;
};

static size_t mmi_frame_get_block(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                  const struct mmi_frame_want *want, mm_pa_t *out)
{
    uintptr_t pfn = MMI_FRAME_NONE;
    if (want->order == MM_FRAME_HUGE_ORDER) {
        pfn = mmi_frame_get_huge(pool, cpu, number);
    } else if (want->order != 0 && want->order <= MM_WORD_SHIFT && cpu < MM_CPU_MAX) {
        pfn = mmi_frame_get_small(pool, cpu, number, want->order);
    }
    if (pfn == MMI_FRAME_NONE && want->order != MM_FRAME_HUGE_ORDER)
        pfn = mmi_frame_get_run(pool, cpu, number, want->run);
    if (pfn == MMI_FRAME_NONE)
        return 0;
    *out = (mm_pa_t)pfn << MM_PAGE_SHIFT;
    return want->count;
}

/* Lets go of the word in hand, which the fast path could use up. */
static void mmi_frame_let_go(struct mm_frame_pool *pool, unsigned cpu, unsigned number)
{
    if (cpu >= MM_CPU_MAX)
        return;
    mm_busy_enter(&pool->cpu[cpu].busy);
    mmi_frame_cursor_release(pool, &pool->cpu[cpu].cursor[number], cpu);
    mm_busy_leave(&pool->cpu[cpu].busy);
}

/* Up to `count` single frames of a zone with watermarks; near one of them frame by frame. */
static size_t mmi_frame_get_guarded(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                                    unsigned flags, size_t count, mm_pa_t *out)
{
    struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, number);
    size_t got = 0;
    while (got < count) {
        size_t part, more;
        const bool near = cursor == NULL || cursor->room < 2 * MM_WORD_BITS;
        if (near && !mmi_frame_admit(pool, cpu, number, flags, 1))
            break;
        part = 1;
        if (cursor != NULL && cursor->room >= 2 * MM_WORD_BITS)
            part = count - got < MM_WORD_BITS ? count - got : MM_WORD_BITS;
        more = mmi_frame_get(pool, cpu, number, part, out + got);
        got += more;
        if (cursor != NULL && cursor->room >= 2 * MM_WORD_BITS)
            cursor->room -= 2 * MM_WORD_BITS;
        else
            mmi_frame_let_go(pool, cpu, number);
        if (more < part)
            break;
    }
    return got;
}

/* As much of `want` as zone `number` may give now. */
static size_t mmi_frame_get_in(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                               unsigned flags, const struct mmi_frame_want *want, mm_pa_t *out)
{
    const bool guarded = pool->zone[number].high != 0;
    if (want->run == NULL)
        return guarded ? mmi_frame_get_guarded(pool, cpu, number, flags, want->count, out)
                       : mmi_frame_get(pool, cpu, number, want->count, out);
    if (guarded)
        mmi_frame_let_go(pool, cpu, number);
    if (!mmi_frame_admit(pool, cpu, number, flags, want->count))
        return 0;
    return mmi_frame_get_block(pool, cpu, number, want, out);
}

/* Tells the pressure hook when the zone fell below `low`, once until it was above `high` again. */
static void mmi_frame_tell_low(struct mm_frame_pool *pool, unsigned number, unsigned flags)
{
    struct mm_frame_zone *zone = &pool->zone[number];
    if (zone->high == 0 || mm_load(&zone->pressed) != 0 || (flags & MM_FRAME_NOWAIT) != 0)
        return;
    if (mmi_frame_free_now(pool, number) >= zone->low || mm_exchange(&zone->pressed, 1) != 0)
        return;
    if (pool->hooks.pressure != NULL)
        (void)pool->hooks.pressure(pool->hooks.ctx, pool, number, MM_FRAME_PRESSURE_LOW);
}

/* The zones in their fallback order, once. */
static size_t mmi_frame_try_zones(struct mm_frame_pool *pool, unsigned flags,
                                  const struct mmi_frame_want *want, mm_pa_t *out)
{
    const struct mm_frame_zone *preferred = &pool->zone[flags & MM_FRAME_ZONE_MASK];
    const unsigned zones = (flags & MM_FRAME_ONLY) != 0 ? 1 : preferred->fallback_count;
    size_t got = 0;
    unsigned i;
    for (i = 0; i < zones && got < want->count; i++) {
        const unsigned number = preferred->fallback[i];
        struct mmi_frame_want rest = *want;
        MM_CPU_STATE_T state;
        unsigned cpu;
        rest.count = want->count - got;
        MM_CPU_PIN(state);
        cpu = MM_CPU_ID();
        got += mmi_frame_get_in(pool, cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY, number, flags,
                                &rest, out + got);
        MM_CPU_UNPIN(state);
        mmi_frame_tell_low(pool, number, flags);
    }
    return got;
}

static void mmi_frame_count_failure(struct mm_frame_pool *pool, unsigned number)
{
    MM_CPU_STATE_T state;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (cpu < MM_CPU_MAX)
        mm_store(&pool->cpu[cpu].failures[number], pool->cpu[cpu].failures[number] + 1);
    else
        (void)mm_fetch_add(&pool->zone[number].failures, 1);
    MM_CPU_UNPIN(state);
}

/* Memory is short: did the program free some? */
static bool mmi_frame_help(struct mm_frame_pool *pool, unsigned flags)
{
    return (flags & MM_FRAME_NOWAIT) == 0 && pool->hooks.pressure != NULL &&
           pool->hooks.pressure(pool->hooks.ctx, pool, flags & MM_FRAME_ZONE_MASK,
                                MM_FRAME_PRESSURE_FAIL);
}

/* What all allocations end in: zones, pressure, zero-fill. Returns how many frames it got. */
static size_t mmi_frame_allocate(struct mm_frame_pool *pool, unsigned flags,
                                 const struct mmi_frame_want *want, mm_pa_t *out)
{
    const unsigned number = flags & MM_FRAME_ZONE_MASK;
    size_t got = 0, i;
    unsigned tries;
    for (tries = 0; tries <= MMI_FRAME_RETRIES; tries++) {
        struct mmi_frame_want rest = *want;
        rest.count = want->count - got;
        got += mmi_frame_try_zones(pool, flags, &rest, out + got);
        if (got == want->count || tries == MMI_FRAME_RETRIES || !mmi_frame_help(pool, flags))
            break;
    }
    if (got < want->count)
        mmi_frame_count_failure(pool, number);
    if ((flags & MM_FRAME_ZERO) != 0 && got != 0) {
        const uint64_t size = want->run != NULL ? (uint64_t)got << MM_PAGE_SHIFT : MM_PAGE_SIZE;
        for (i = 0; i < (want->run != NULL ? 1 : got); i++)
            pool->hooks.zero(pool->hooks.ctx, out[i], size);
    }
    mmi_frame_self_check(pool);
    return got;
}

/* This CPU's own sections having nothing, pinned: whether nobody else has a block of `kind` either,
 * and no other zone or hook could help. Then the failure is counted. */
static bool mmi_frame_hopeless(struct mm_frame_pool *pool, unsigned cpu, unsigned number,
                               unsigned kind)
{
    const uintptr_t top = pool->level_at[pool->levels - 1];
    unsigned slot;
    if (pool->hooks.pressure != NULL || pool->zone[number].fallback_count != 1)
        return false;
    if (kind == MMI_FRAME_AVAIL && mmi_frame_free_now(pool, number) != 0)
        return false;
    for (slot = 0; slot <= MM_CPU_MAX; slot++)
        if (mm_load(&mmi_frame_set(pool, slot, kind)[top]) != 0)
            return false;
    mm_store(&pool->cpu[cpu].failures[number], pool->cpu[cpu].failures[number] + 1);
    return true;
}

/* What the fast path leaves: all zones, all flags. */
static MM_NOINLINE mm_pa_t mmi_frame_alloc_any(struct mm_frame_pool *pool, unsigned flags)
{
    struct mmi_frame_want want;
    mm_pa_t pa = MM_PA_NONE;
    if (!mmi_frame_flags_valid(pool, flags))
        return MM_PA_NONE;
    want.count = 1;
    want.order = 0;
    want.run = NULL;
    return mmi_frame_allocate(pool, flags, &want, &pa) == 1 ? pa : MM_PA_NONE;
}

/* One frame of the section that is nobody's because several CPUs use it, where this one found a
 * frame last: lock, lowest frame, unlock. MMI_FRAME_NONE if it has none, or is in use. The CPU
 * pinned. */
static uintptr_t mmi_frame_take_common(struct mm_frame_pool *pool, unsigned cpu, unsigned number)
{
    struct mm_frame_section *section = pool->cpu[cpu].common[number];
    uintptr_t pfn = MMI_FRAME_NONE;
    if (mm_load(&section->some) == 0 ||
        mm_load(mmi_frame_owner(pool, section)) != MMI_FRAME_NOBODY ||
        !mm_cas(mmi_frame_owner(pool, section), MMI_FRAME_NOBODY, MM_BIAS_LOCKED))
        return MMI_FRAME_NONE;
    section->was = MMI_FRAME_NOBODY;
    if (section->some != 0) {
        pfn = mmi_frame_pick(pool, section, MMI_FRAME_AVAIL);
        mmi_frame_count(pool, cpu, number, 1);
    }
    mm_bias_unlock(mmi_frame_owner(pool, section),
                   MMI_FRAME_NOBODY); /* what was in the sets stays there */
    return pfn;
}

/* Inside: takes the lowest free frame of the cursor's word, which has one. */
static inline mm_pa_t mmi_frame_take_lowest(struct mm_frame_cursor *cursor, uintptr_t *word)
{
    const uintptr_t bits = mm_load(word);
    mm_store(word, bits & (bits - 1));
    mm_count(&cursor->used, 1);
    return mmi_frame_first_of(cursor, bits);
}

/* Where no watermark is to be looked at, the CPU's own sections and nobody's are asked in a short
 * way. */
MM_FRAME_API MM_NOINLINE mm_pa_t mmi_frame_alloc_slow(struct mm_frame_pool *pool, unsigned flags)
{
    MM_CPU_STATE_T state;
    mm_pa_t pa = MM_PA_NONE;
    bool hopeless = false;
    unsigned cpu;
    if (MM_UNLIKELY(flags >= MM_FRAME_ZONE_MAX || (pool->plain >> flags & 1) == 0))
        return mmi_frame_alloc_any(pool, flags);
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (MM_LIKELY(cpu < MM_CPU_MAX)) {
        uintptr_t *word;
        mm_busy_enter(&pool->cpu[cpu].busy);
        word = mmi_frame_next_word(pool, cpu, flags);
        if (word != NULL)
            pa = mmi_frame_take_lowest(&pool->cpu[cpu].cursor[flags], word);
        mm_busy_leave(&pool->cpu[cpu].busy);
        if (MM_UNLIKELY(pa == MM_PA_NONE)) {
            const uintptr_t pfn = mmi_frame_take_common(pool, cpu, flags);
            if (pfn != MMI_FRAME_NONE)
                pa = (mm_pa_t)pfn << MM_PAGE_SHIFT;
            else
                hopeless = mmi_frame_hopeless(pool, cpu, flags, MMI_FRAME_AVAIL);
        }
    }
    MM_CPU_UNPIN(state);
    if (pa == MM_PA_NONE && !hopeless)
        return mmi_frame_alloc_any(pool, flags);
    mmi_frame_self_check(pool);
    return pa;
}

/* Inside and pinned, which it leaves: a frame of another section than the cursor's, which is used
 * up. */
static MM_NOINLINE mm_pa_t mmi_frame_alloc_onward(struct mm_frame_pool *pool, unsigned flags,
                                                  struct mm_frame_cpu *self, MM_CPU_STATE_T state)
{
    const unsigned number = flags & MM_FRAME_ZONE_MASK;
    uintptr_t *word = mmi_frame_next_section(pool, (unsigned)(self - pool->cpu), number);
    mm_pa_t pa = MM_PA_NONE;
    if (MM_LIKELY(word != NULL))
        pa = mmi_frame_take_lowest(&self->cursor[number], word);
    mm_busy_leave(&self->busy);
    MM_CPU_UNPIN(state);
    return MM_LIKELY(word != NULL) ? pa : mmi_frame_alloc_slow(pool, flags);
}

MM_FRAME_API MM_NOINLINE mm_pa_t mmi_frame_alloc_next(struct mm_frame_pool *pool, unsigned flags,
                                                      struct mm_frame_cpu *self,
                                                      MM_CPU_STATE_T state)
{
    struct mm_frame_cursor *cursor;
    struct mm_frame_section *section;
    uintptr_t *word, some, bits, rest;
    unsigned at;
    if (MM_UNLIKELY(self == NULL))
        goto slow;
    cursor = &self->cursor[flags & MM_FRAME_ZONE_MASK];
    __asm__("" : "+r"(cursor)); /* else compilers work out the address anew for each member */
    word = __atomic_load_n(&cursor->word, MM_BIAS_ORDER); /* if it is one, it is the empty one */
    section = cursor->section;
    if (MM_UNLIKELY(word == &pool->nothing || mm_load(&section->wanted) != 0 ||
                    (pool->plain >> (flags & MM_FRAME_ZONE_MASK) & 1) == 0 ||
                    (intptr_t)(cursor->used - cursor->look) >= 0))
        goto leave;
    some = section->some;
    (void)mmi_frame_clear_bit(&some, (uintptr_t)word / sizeof *word);
    if (MM_UNLIKELY(some == 0)) {
        mm_store(&section->some, 0);
        return mmi_frame_alloc_onward(pool, flags, self, state);
    }
    at = mm_ctz(some);
    word = mmi_frame_words_around(word) + at;
    bits = mm_load(word);
    if (MM_UNLIKELY(bits == 0))
        goto leave;
    rest = bits & (bits - 1);
    mm_store(word, rest);
    mm_count(&cursor->used, 1);
    if (rest == 0) {
        some &= some - 1;
    } else {
        uintptr_t full = section->full;
        (void)mmi_frame_clear_bit(&full, at); /* the exception of S2 */
        mm_store(&section->full, full);
        mmi_frame_cursor_set(cursor, section, word);
        cursor->pa = (mm_pa_t)(section->pfn + (at << MM_WORD_SHIFT)) << MM_PAGE_SHIFT;
    }
    mm_store(&section->some, some);
    mm_busy_leave(&self->busy);
    MM_CPU_UNPIN(state);
    return (mm_pa_t)(section->pfn + ((at << MM_WORD_SHIFT) | mm_ctz(bits))) << MM_PAGE_SHIFT;
leave:
    mm_busy_leave(&self->busy);
slow:
    MM_CPU_UNPIN(state);
    return mmi_frame_alloc_slow(pool, flags);
}

MM_FRAME_API size_t mm_frame_alloc_bulk(struct mm_frame_pool *pool, size_t count, unsigned flags,
                                        mm_pa_t *out)
{
    struct mmi_frame_want want;
    if (count == 0 || !mmi_frame_flags_valid(pool, flags))
        return 0;
    want.count = count;
    want.order = 0;
    want.run = NULL;
    return mmi_frame_allocate(pool, flags, &want, out);
}

/* Whether count, alignment and boundary of a request are such as some run can have. `most`: frame
 * numbers. */
static bool mmi_frame_possible(const struct mm_frame_request *request, uint64_t align,
                               uint64_t most)
{
    const uint64_t boundary = request->boundary;
    if (request->count == 0 || request->count > most / 2)
        return false;
    if (!mm_is_pow2(align) || align < MM_PAGE_SIZE || (align >> MM_PAGE_SHIFT) > most / 2)
        return false;
    return boundary == 0 || (mm_is_pow2(boundary) && boundary >> MM_PAGE_SHIFT >= request->count);
}

/* Translates a request into frame numbers; false if it contradicts itself or can't ever be met. */
static bool mmi_frame_parse(const struct mm_frame_request *request, struct mmi_frame_run *run)
{
    const uint64_t align = request->align != 0 ? request->align : MM_PAGE_SIZE;
    const uint64_t most = mmi_frame_pfn_limit();
    const uint64_t boundary = request->boundary >> MM_PAGE_SHIFT;
    uint64_t min, max;
    if (!mmi_frame_possible(request, align, most))
        return false;
    min = (request->min >> MM_PAGE_SHIFT) + ((request->min & (MM_PAGE_SIZE - 1)) != 0 ? 1 : 0);
    max = request->max == 0 ? most : request->max >> MM_PAGE_SHIFT;
    max = max < most ? max : most;
    if (min >= max || max - min < request->count)
        return false;
    run->count = (uintptr_t)request->count;
    run->align = (uintptr_t)(align >> MM_PAGE_SHIFT);
    run->boundary = boundary <= most ? (uintptr_t)boundary : 0;
    run->min = (uintptr_t)min;
    run->max = (uintptr_t)max;
    return true;
}

static mm_pa_t mmi_frame_allocate_run(struct mm_frame_pool *pool,
                                      const struct mm_frame_request *request, unsigned order)
{
    struct mmi_frame_run run;
    struct mmi_frame_want want;
    mm_pa_t pa = MM_PA_NONE;
    if (!mmi_frame_flags_valid(pool, request->flags) || !mmi_frame_parse(request, &run))
        return MM_PA_NONE;
    want.count = (size_t)run.count;
    want.order = order;
    want.run = &run;
    return mmi_frame_allocate(pool, request->flags, &want, &pa) != 0 ? pa : MM_PA_NONE;
}

MM_FRAME_API mm_pa_t mm_frame_alloc_run(struct mm_frame_pool *pool,
                                        const struct mm_frame_request *request)
{
    return mmi_frame_allocate_run(pool, request, 0);
}

/* Any block by way of a run's search. */
static MM_NOINLINE mm_pa_t mmi_frame_alloc_block(struct mm_frame_pool *pool, unsigned order,
                                                 unsigned flags)
{
    struct mm_frame_request request;
    if (order >= MM_WORD_BITS - 1 || order >= 64 - MM_PAGE_SHIFT)
        return MM_PA_NONE;
    MM_MEMSET(&request, 0, sizeof request);
    request.count = (uintptr_t)1 << order;
    request.align = (uint64_t)((uintptr_t)1 << order) << MM_PAGE_SHIFT;
    request.flags = flags;
    return mmi_frame_allocate_run(pool, &request, order);
}

/* A huge block by a short way: from this CPU's own sections. */
static MM_NOINLINE mm_pa_t mmi_frame_alloc_huge(struct mm_frame_pool *pool, unsigned flags)
{
    MM_CPU_STATE_T state;
    uintptr_t pfn = MMI_FRAME_NONE;
    bool hopeless = false;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (MM_LIKELY(cpu < MM_CPU_MAX)) {
        mm_busy_enter(&pool->cpu[cpu].busy);
        pfn = mmi_frame_huge_own(pool, cpu, flags);
        if (MM_UNLIKELY(pfn == MMI_FRAME_NONE))
            hopeless = !mmi_frame_cursor_hides(pool, &pool->cpu[cpu].cursor[flags], cpu) &&
                       mmi_frame_hopeless(pool, cpu, flags, MMI_FRAME_WHOLE);
        mm_busy_leave(&pool->cpu[cpu].busy);
    }
    MM_CPU_UNPIN(state);
    if (MM_UNLIKELY(pfn == MMI_FRAME_NONE))
        return hopeless ? MM_PA_NONE : mmi_frame_alloc_block(pool, MM_FRAME_HUGE_ORDER, flags);
    mmi_frame_self_check(pool);
    return (mm_pa_t)pfn << MM_PAGE_SHIFT;
}

/* A block of at most a word by a short way. */
static MM_NOINLINE mm_pa_t mmi_frame_alloc_small(struct mm_frame_pool *pool, unsigned order,
                                                 unsigned flags)
{
    MM_CPU_STATE_T state;
    uintptr_t pfn = MMI_FRAME_NONE;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (MM_LIKELY(cpu < MM_CPU_MAX))
        pfn = mmi_frame_get_small(pool, cpu, flags, order);
    MM_CPU_UNPIN(state);
    if (MM_UNLIKELY(pfn == MMI_FRAME_NONE))
        return mmi_frame_alloc_block(pool, order, flags);
    mmi_frame_self_check(pool);
    return (mm_pa_t)pfn << MM_PAGE_SHIFT;
}

MM_FRAME_API mm_pa_t mm_frame_alloc_order(struct mm_frame_pool *pool, unsigned order,
                                          unsigned flags)
{
    if (order == 0)
        return mm_frame_alloc(pool, flags);
    if (MM_LIKELY(flags < MM_FRAME_ZONE_MAX && (pool->plain >> flags & 1) != 0)) {
        if (order == MM_FRAME_HUGE_ORDER)
            return mmi_frame_alloc_huge(pool, flags);
        if (order <= MM_WORD_SHIFT)
            return mmi_frame_alloc_small(pool, order, flags);
    }
    return mmi_frame_alloc_block(pool, order, flags);
}

/* ---- Ranges ---------------------------------------------------------------------------------- */

/* Frame numbers of a byte range; false if it is empty or wraps. */
static bool mmi_frame_pages(mm_pa_t pa, uint64_t size, bool outward, uint64_t *pfn, uint64_t *end)
{
    const mm_pa_t last = pa + (size - 1), odd = MM_PAGE_SIZE - 1;
    if (size == 0 || last < pa)
        return false;
    *pfn = (pa >> MM_PAGE_SHIFT) + (!outward && (pa & odd) != 0 ? 1 : 0);
    *end = (last >> MM_PAGE_SHIFT) + (outward || (last & odd) == odd ? 1 : 0);
    return true;
}

/* The part of [*at, end) that lies in the next span, as an index range; moves *at behind it. */
static bool mmi_frame_next_part(struct mm_frame_pool *pool, unsigned cpu, uint64_t *at,
                                uint64_t end, uintptr_t *first, uintptr_t *count)
{
    struct mm_frame_span span;
    uint64_t pfn, behind;
    if (*at >= end || !mmi_frame_next_span(pool, cpu, MMI_FRAME_ANY_ZONE, *at, &span) ||
        span.pfn >= end)
        return false;
    pfn = *at > span.pfn ? *at : span.pfn;
    behind = end < span.end ? end : span.end;
    *first = (uintptr_t)pfn + span.delta;
    *count = (uintptr_t)(behind - pfn);
    *at = behind;
    return true;
}

/* How many managed frames [pfn, end) has; and whether all of them are free, or in use. A
 * snapshot. */
static uint64_t mmi_frame_survey(struct mm_frame_pool *pool, unsigned cpu, uint64_t pfn,
                                 uint64_t end, bool free, bool *all)
{
    uintptr_t first, count;
    uint64_t total = 0;
    *all = true;
    while (mmi_frame_next_part(pool, cpu, &pfn, end, &first, &count)) {
        *all = *all && mmi_frame_each(pool, first, count, cpu,
                                      free ? MMI_FRAME_ALL_FREE : MMI_FRAME_ALL_USED);
        total += count;
    }
    return total;
}

/* Takes or puts every managed frame of [pfn, end), the CPU pinned: all or nothing, undone span by
 * span. */
static enum mm_status mmi_frame_change_range(struct mm_frame_pool *pool, unsigned cpu, uint64_t pfn,
                                             uint64_t end, bool take)
{
    uint64_t at = pfn, done = pfn;
    uintptr_t first, count;
    while (mmi_frame_next_part(pool, cpu, &at, end, &first, &count)) {
        if (mmi_frame_change(pool, cpu, first, count, take) == MM_OK) {
            done = at;
            continue;
        }
        for (at = pfn; mmi_frame_next_part(pool, cpu, &at, done, &first, &count);)
            (void)mmi_frame_change(pool, cpu, first, count, !take);
        return MM_ERR_BUSY;
    }
    return MM_OK;
}

/* As mmi_frame_change_range, not pinned before. `whole`: holes are not passed over but
 * MM_ERR_NOENT. */
static enum mm_status mmi_frame_range(struct mm_frame_pool *pool, uint64_t pfn, uint64_t end,
                                      bool take, bool whole, uint64_t *count)
{
    enum mm_status status = MM_ERR_BUSY;
    MM_CPU_STATE_T state;
    uint64_t total;
    unsigned cpu;
    bool all;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    cpu = cpu < MM_CPU_MAX ? cpu : (unsigned)MMI_FRAME_NOBODY;
    total = mmi_frame_survey(pool, cpu, pfn, end, take, &all);
    if (whole && total != end - pfn)
        status = MM_ERR_NOENT;
    else if (all)
        status = mmi_frame_change_range(pool, cpu, pfn, end, take);
    MM_CPU_UNPIN(state);
    if (status == MM_OK && count != NULL)
        *count = total;
    mmi_frame_self_check(pool);
    return status;
}

/* ---- Freeing --------------------------------------------------------------------------------- */

/* Remembers the span for the next free on this CPU. Inside. */
static void mmi_frame_remember(struct mm_frame_pool *pool, unsigned cpu,
                               const struct mm_frame_span *span)
{
    struct mm_frame_cpu *self = &pool->cpu[cpu];
    mm_store(&self->span_size, 0);
    mm_count(&self->span_cursor->used, 0 - self->freed);
    mm_store(&self->freed, 0);
    self->span_cursor->look = self->span_cursor->used;
    self->span_pa = (mm_pa_t)span->pfn << MM_PAGE_SHIFT;
    self->span_index = span->pfn + span->delta;
    __atomic_store_n(&self->span_cursor, &self->cursor[span->zone], __ATOMIC_RELAXED);
    mm_store(&self->span_size, span->end - span->pfn);
}

/* Inside: frees `count` frames of one section of this CPU. MM_ERR_BUSY: it is not this CPU's. */
static enum mm_status mmi_frame_put_own(struct mm_frame_pool *pool, unsigned cpu, uintptr_t first,
                                        uintptr_t count)
{
    struct mm_frame_section *section = &pool->section[first >> MMI_FRAME_SECTION_SHIFT];
    struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, section->zone);
    const uintptr_t at = first & (MMI_FRAME_SECTION - 1);
    if (!mm_bias_mine(mmi_frame_owner(pool, section), cpu))
        return MM_ERR_BUSY;
    if (!mmi_frame_all(pool, section, at, count, false))
        return MM_ERR_INVALID;
    mmi_frame_put(pool, section, at, count, mmi_frame_cursor_peek(cursor));
    mmi_frame_note(pool, section, cpu);
    mm_count(&cursor->used, 0 - count);
    return MM_OK;
}

/* Frees frames of one section that is another CPU's or nobody's. A CPU that frees into another's
 * section adopts it, unless it has changed hands too often. */
static enum mm_status mmi_frame_put_locked(struct mm_frame_pool *pool, unsigned cpu,
                                           uintptr_t first, uintptr_t count)
{
    struct mm_frame_section *section = &pool->section[first >> MMI_FRAME_SECTION_SHIFT];
    struct mm_frame_cursor *cursor = mmi_frame_cursor(pool, cpu, section->zone);
    const uintptr_t at = first & (MMI_FRAME_SECTION - 1);
    const bool foreign = mm_load(mmi_frame_owner(pool, section)) != MMI_FRAME_NOBODY;
    bool fits;
    if (!mmi_frame_lock(pool, section, cpu))
        return MM_ERR_BUSY;
    fits = mmi_frame_all(pool, section, at, count, false);
    if (fits) {
        mmi_frame_put(pool, section, at, count, NULL);
        mmi_frame_count(pool, cpu, section->zone, 0 - count);
    }
    if (fits && cursor != NULL && section->was == MMI_FRAME_NOBODY &&
        ((foreign && section->taken <= 2) || section->free == section->managed))
        mmi_frame_adopt(pool, section, cpu);
    else
        mmi_frame_unlock(pool, section);
    return fits ? MM_OK : MM_ERR_INVALID;
}

/* Frees frames that reach over two spans that touch. */
static bool mmi_frame_free_spans(struct mm_frame_pool *pool, uint64_t pfn, uint64_t count)
{
    return count > 1 && count <= (UINT64_MAX >> MM_PAGE_SHIFT) - pfn + 1 &&
           mmi_frame_range(pool, pfn, pfn + count, false, true, NULL) == MM_OK;
}

/* Frees frames of one section of this CPU, which were in the span `was` when that was looked up:
 * they may have gone off-line since. Remembers the span that they are in. */
static enum mm_status mmi_frame_put_here(struct mm_frame_pool *pool, unsigned cpu, uint64_t pfn,
                                         uintptr_t count, const struct mm_frame_span *was)
{
    const struct mm_frame_span *now;
    enum mm_status status = MM_ERR_INVALID;
    mm_busy_enter(&pool->cpu[cpu].busy);
    now = mmi_frame_span_of(pool, pfn);
    if (now != NULL && count <= now->end - pfn && now->delta == was->delta) {
        mmi_frame_remember(pool, cpu, now);
        status = mmi_frame_put_own(pool, cpu, (uintptr_t)pfn + now->delta, count);
    }
    mm_busy_leave(&pool->cpu[cpu].busy);
    return status;
}

/* Frees `count` frames from `pa` on. */
static enum mm_status mmi_frame_free_frames(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t count)
{
    const uint64_t pfn = pa >> MM_PAGE_SHIFT;
    enum mm_status status = MM_ERR_INVALID;
    struct mm_frame_span span;
    MM_CPU_STATE_T state;
    unsigned cpu;
    if ((pa & (MM_PAGE_SIZE - 1)) != 0)
        return MM_ERR_ALIGN;
    if (count == 0)
        return MM_ERR_INVALID;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    cpu = cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY;
    if (mmi_frame_find_span(pool, cpu, pfn, count, &span)) {
        const uintptr_t first = (uintptr_t)pfn + span.delta, number = (uintptr_t)count;
        const bool one = (first & (MMI_FRAME_SECTION - 1)) + number <= MMI_FRAME_SECTION;
        status = MM_ERR_BUSY;
        if (one && cpu < MM_CPU_MAX)
            status = mmi_frame_put_here(pool, cpu, pfn, number, &span);
        if (one && status == MM_ERR_BUSY)
            status = mmi_frame_put_locked(pool, cpu, first, number);
        else if (!one)
            status = mmi_frame_change(pool, cpu, first, number, false);
    }
    MM_CPU_UNPIN(state);
    if (status == MM_ERR_INVALID && mmi_frame_free_spans(pool, pfn, count))
        status = MM_OK;
    return status;
}

/* Frees and reports what is refused. */
static enum mm_status mmi_frame_free_reported(struct mm_frame_pool *pool, mm_pa_t pa,
                                              uint64_t count, const char *where)
{
    const enum mm_status status = mmi_frame_free_frames(pool, pa, count);
    if (status == MM_ERR_ALIGN)
        return mmi_frame_refuse(pool, where, "misaligned free", status, pa);
    if (status == MM_ERR_INVALID)
        return mmi_frame_refuse(
            pool, where, mm_frame_is_free(pool, pa) == 1 ? "double free" : "wild free", status, pa);
    mmi_frame_self_check(pool);
    return status;
}

/* Frees frame `at` of a locked section that stays nobody's, whose sets have it already if it had a
 * free frame. False if it is free, in a huge block, or the last one in use: the long way
 * decides. */
static bool mmi_frame_put_one(const struct mm_frame_pool *pool, struct mm_frame_section *section,
                              uintptr_t at)
{
    const unsigned w = (unsigned)(at >> MM_WORD_SHIFT);
    const uintptr_t old = mmi_frame_bits(section, mmi_frame_words(pool, section), w),
                    now = old | mm_bit((unsigned)(at & (MM_WORD_BITS - 1)));
    const bool first = section->some == 0;
    if (now == old || (section->huge & mmi_frame_group(w)) != 0 ||
        section->free + 1 == section->managed)
        return false;
    mm_store(&mmi_frame_words(pool, section)[w], now);
    mm_store(&section->free, section->free + 1);
    mm_store(&section->some, section->some | mm_bit(w));
    if (now == ~(uintptr_t)0)
        mm_store(&section->full, section->full | mm_bit(w));
    if (first || now == ~(uintptr_t)0)
        mmi_frame_note(pool, section, MMI_FRAME_NOBODY);
    return true;
}

/* Frees frames from the first on, as long as they are of one section that is nobody's and of the
 * span at hand, by a short way: lock, set the bits, unlock. Returns how many; 0 also if the section
 * is in use. The CPU pinned. */
static size_t mmi_frame_put_common(struct mm_frame_pool *pool, unsigned cpu, size_t count,
                                   const mm_pa_t *pa)
{
    const struct mm_frame_cpu *self = &pool->cpu[cpu];
    uint64_t offset = mmi_frame_span_offset(self, pa[0]);
    uintptr_t index = (uintptr_t)offset + self->span_index;
    const uintptr_t number = index >> MMI_FRAME_SECTION_SHIFT;
    struct mm_frame_section *section;
    size_t done = 0;
    if (offset >= mm_load(&self->span_size))
        return 0;
    section = &pool->section[number];
    if (mm_load(mmi_frame_owner(pool, section)) != MMI_FRAME_NOBODY ||
        !mm_cas(mmi_frame_owner(pool, section), MMI_FRAME_NOBODY, MM_BIAS_LOCKED))
        return 0;
    section->was = MMI_FRAME_NOBODY;
    while (mmi_frame_put_one(pool, section, index & (MMI_FRAME_SECTION - 1)) && ++done < count) {
        offset = mmi_frame_span_offset(self, pa[done]);
        index = (uintptr_t)offset + self->span_index;
        if (offset >= mm_load(&self->span_size) || index >> MMI_FRAME_SECTION_SHIFT != number)
            break;
    }
    if (done != 0)
        mmi_frame_count(pool, cpu, section->zone, 0 - (uintptr_t)done);
    mm_bias_unlock(mmi_frame_owner(pool, section), MMI_FRAME_NOBODY);
    return done;
}

MM_FRAME_API MM_NOINLINE enum mm_status mmi_frame_free_slow(struct mm_frame_pool *pool, mm_pa_t pa)
{
    MM_CPU_STATE_T state;
    unsigned cpu;
    size_t done = 0;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    if (cpu < MM_CPU_MAX)
        done = mmi_frame_put_common(pool, cpu, 1, &pa);
    MM_CPU_UNPIN(state);
    if (done != 0) {
        mmi_frame_self_check(pool);
        return MM_OK;
    }
    return mmi_frame_free_reported(pool, pa, 1, "mm_frame_free");
}

/* Whether all `count` frames from `offset` on are of the span at hand. */
static inline bool mmi_frame_in_span(const struct mm_frame_cpu *self, uint64_t offset,
                                     uintptr_t count)
{
    const uintptr_t size = mm_load(&self->span_size);
    return offset < size && size - (uintptr_t)offset >= count;
}

/* Inside: frees a huge block that was allocated as one, if it is of the span and of a section at
 * hand. */
static inline bool mmi_frame_put_huge(const struct mm_frame_pool *pool, struct mm_frame_cpu *self,
                                      unsigned cpu, mm_pa_t pa)
{
    const uint64_t offset = mmi_frame_span_offset(self, pa);
    const uintptr_t index = (uintptr_t)offset + self->span_index,
                    number = index >> MMI_FRAME_SECTION_SHIFT;
    const unsigned w = (unsigned)(index >> MM_WORD_SHIFT) & (MM_WORD_BITS - 1);
    struct mm_frame_section *section = &pool->section[number];
    uintptr_t some, full;
    if (!mmi_frame_in_span(self, offset, MMI_FRAME_HUGE) ||
        !mm_bias_mine(&pool->owner[number], cpu) || (section->huge & mm_bit(w)) == 0)
        return false;
    some = section->some;
    full = section->full;
    mm_count(&self->span_cursor->used,
             0 - MMI_FRAME_HUGE); /* not `freed`: see mmi_frame_note_peak */
    mm_store(&section->huge, section->huge & ~mm_bit(w));
    mm_store(&section->some, some | mmi_frame_group(w));
    mm_store(&section->full, full | mmi_frame_group(w));
    if (some == 0)
        mmi_frame_set_add(pool, cpu, MMI_FRAME_AVAIL, number);
    if (mmi_frame_whole(full) == 0)
        mmi_frame_set_add(pool, cpu, MMI_FRAME_WHOLE, number);
    return true;
}

/* Inside: frees 2^order frames of one word, if they are of the span and of a section at hand. */
static inline bool mmi_frame_put_small(struct mm_frame_pool *pool, struct mm_frame_cpu *self,
                                       unsigned cpu, mm_pa_t pa, unsigned order)
{
    const uint64_t offset = mmi_frame_span_offset(self, pa);
    const uintptr_t index = (uintptr_t)offset + self->span_index, count = (uintptr_t)1 << order;
    const uintptr_t mask = mm_mask((unsigned)count) << (index & (MM_WORD_BITS - 1));
    uintptr_t *word = &pool->word[index >> MM_WORD_SHIFT], old;
    if (!mmi_frame_in_span(self, offset, count) ||
        !mm_bias_mine(&pool->owner[index >> MMI_FRAME_SECTION_SHIFT], cpu))
        return false;
    old = mm_load(word);
    if ((old & mask) != 0) /* not all allocated, or stale: in a huge block */
        return false;
    mm_store(word, old | mask);
    mm_count(&self->freed, count);
    if (old == 0 || (old | mask) == ~(uintptr_t)0)
        mmi_frame_freed(pool, cpu, index);
    return true;
}

MM_FRAME_API enum mm_status mm_frame_free_order(struct mm_frame_pool *pool, mm_pa_t pa,
                                                unsigned order)
{
    if (order >= MM_WORD_BITS - 1 || order >= 64 - MM_PAGE_SHIFT)
        return MM_ERR_INVALID;
    if ((pa & (((mm_pa_t)((uintptr_t)1 << order) << MM_PAGE_SHIFT) - 1)) != 0)
        return mmi_frame_refuse(pool, "mm_frame_free_order", "misaligned free", MM_ERR_ALIGN, pa);
    if (order == MM_FRAME_HUGE_ORDER || order <= MM_WORD_SHIFT) {
        MM_CPU_STATE_T state;
        bool done = false;
        unsigned cpu;
        MM_CPU_PIN(state);
        cpu = MM_CPU_ID();
        if (MM_LIKELY(cpu < MM_CPU_MAX)) {
            struct mm_frame_cpu *self = &pool->cpu[cpu];
            mm_busy_enter(&self->busy);
            done = order == MM_FRAME_HUGE_ORDER ? mmi_frame_put_huge(pool, self, cpu, pa)
                                                : mmi_frame_put_small(pool, self, cpu, pa, order);
            mm_busy_leave(&self->busy);
        }
        MM_CPU_UNPIN(state);
        if (MM_LIKELY(done)) {
            mmi_frame_self_check(pool);
            return MM_OK;
        }
    }
    return mmi_frame_free_reported(pool, pa, (uintptr_t)1 << order, "mm_frame_free_order");
}

MM_FRAME_API enum mm_status mm_frame_free_run(struct mm_frame_pool *pool, mm_pa_t pa,
                                              uint64_t count)
{
    return mmi_frame_free_reported(pool, pa, count, "mm_frame_free_run");
}

/* Inside: frees the frames at the start of pa[] that lie in one word of this CPU's sections;
 * returns how many (0: the first one needs the long way). */
static size_t mmi_frame_put_word(struct mm_frame_pool *pool, unsigned cpu, size_t count,
                                 const mm_pa_t *pa)
{
    struct mm_frame_cpu *self = &pool->cpu[cpu];
    const uint64_t offset = mmi_frame_span_offset(self, pa[0]);
    const uintptr_t index = (uintptr_t)offset + self->span_index;
    const uintptr_t base = self->span_index - (index & ~(uintptr_t)(MM_WORD_BITS - 1));
    uintptr_t mask = 0, old, *word;
    size_t n;
    if (offset >= mm_load(&self->span_size))
        return 0;
    if (!mm_bias_mine(&pool->owner[index >> MMI_FRAME_SECTION_SHIFT], cpu))
        return 0;
    word = &pool->word[index >> MM_WORD_SHIFT];
    old = mm_load(word);
    for (n = 0; n < count; n++) {
        const uint64_t at = mmi_frame_span_offset(self, pa[n]);
        const uintptr_t bit = (uintptr_t)at + base;
        if (at >= self->span_size || bit >= MM_WORD_BITS)
            break;
        if (((old | mask) & mm_bit((unsigned)bit)) != 0)
            break;
        mask |= mm_bit((unsigned)bit);
    }
    if (n == 0)
        return 0;
    mm_store(word, old | mask);
    if (old == 0 || (old | mask) == ~(uintptr_t)0)
        mmi_frame_freed(pool, cpu, index);
    mm_count(&self->freed, n);
    return n;
}

MM_FRAME_API size_t mm_frame_free_bulk(struct mm_frame_pool *pool, size_t count, const mm_pa_t *pa,
                                       enum mm_status *status)
{
    enum mm_status result = MM_OK;
    size_t done = 0;
    while (done < count && result == MM_OK) {
        MM_CPU_STATE_T state;
        unsigned cpu;
        size_t n = 0;
        MM_CPU_PIN(state);
        cpu = MM_CPU_ID();
        if (cpu < MM_CPU_MAX) {
            mm_busy_enter(&pool->cpu[cpu].busy);
            n = mmi_frame_put_word(pool, cpu, count - done, pa + done);
            mm_busy_leave(&pool->cpu[cpu].busy);
            if (n == 0)
                n = mmi_frame_put_common(pool, cpu, count - done, pa + done);
        }
        MM_CPU_UNPIN(state);
        done += n;
        if (n == 0) {
            result = mmi_frame_free_reported(pool, pa[done], 1, "mm_frame_free_bulk");
            done += result == MM_OK ? 1 : 0;
        }
    }
    if (status != NULL)
        *status = result;
    mmi_frame_self_check(pool);
    return done;
}

MM_FRAME_API enum mm_status mm_frame_reserve(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t size,
                                             uint64_t *count)
{
    uint64_t pfn, end;
    if (!mmi_frame_pages(pa, size, true, &pfn, &end))
        return MM_ERR_INVALID;
    return mmi_frame_range(pool, pfn, end, true, false, count);
}

MM_FRAME_API enum mm_status mm_frame_release(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t size,
                                             uint64_t *count)
{
    uint64_t pfn, end;
    if (!mmi_frame_pages(pa, size, false, &pfn, &end))
        return MM_ERR_INVALID;
    return mmi_frame_range(pool, pfn, end, false, false, count);
}

MM_FRAME_API enum mm_status mm_frame_alloc_at(struct mm_frame_pool *pool, mm_pa_t pa,
                                              uint64_t count)
{
    const uint64_t pfn = pa >> MM_PAGE_SHIFT;
    if ((pa & (MM_PAGE_SIZE - 1)) != 0)
        return MM_ERR_ALIGN;
    if (count == 0 || count > (UINT64_MAX >> MM_PAGE_SHIFT) - pfn + 1)
        return MM_ERR_INVALID;
    return mmi_frame_range(pool, pfn, pfn + count, true, true, NULL);
}

MM_FRAME_API int mm_frame_is_free(struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct mm_frame_span span;
    MM_CPU_STATE_T state;
    unsigned cpu;
    int result = MM_ERR_INVALID;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    cpu = cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY;
    if (mmi_frame_find_span(pool, cpu, pa >> MM_PAGE_SHIFT, 1, &span)) {
        const uintptr_t at = (uintptr_t)(pa >> MM_PAGE_SHIFT) + span.delta;
        const struct mm_frame_section *section = &pool->section[at >> MMI_FRAME_SECTION_SHIFT];
        const unsigned w = (unsigned)(at >> MM_WORD_SHIFT) & (MM_WORD_BITS - 1);
        const uintptr_t bits = mmi_frame_bits(section, mmi_frame_words(pool, section), w);
        result = (bits & mm_bit((unsigned)(at & (MM_WORD_BITS - 1)))) != 0;
    }
    MM_CPU_UNPIN(state);
    return result;
}

MM_FRAME_API enum mm_status mm_frame_drain(struct mm_frame_pool *pool, unsigned cpu)
{
    MM_CPU_STATE_T state;
    uintptr_t i;
    unsigned self;
    if (cpu >= MM_CPU_MAX)
        return MM_ERR_INVALID;
    MM_CPU_PIN(state);
    self = MM_CPU_ID();
    self = self < MM_CPU_MAX ? self : MMI_FRAME_NOBODY;
    for (i = 0; i < pool->sections; i++) {
        struct mm_frame_section *section = &pool->section[i];
        if (mm_load(mmi_frame_owner(pool, section)) != cpu || !mmi_frame_lock(pool, section, self))
            continue;
        if (section->was != MMI_FRAME_NOBODY) { /* this CPU's own */
            (void)mmi_frame_cursor_evict(pool, &pool->cpu[cpu].cursor[section->zone],
                                         section); /* C1 */
            mmi_frame_normalise(pool, section);
            section->was = MMI_FRAME_NOBODY;
        }
        __atomic_store_n(&section->taken, 0, __ATOMIC_RELAXED);
        mmi_frame_unlock(pool, section);
    }
    MM_CPU_UNPIN(state);
    return MM_OK;
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* Sizes and places of the metadata for a map. */
struct mmi_frame_plan {
    uintptr_t first[MM_FRAME_ZONE_MAX], used[MM_FRAME_ZONE_MAX], last[MM_FRAME_ZONE_MAX];
    uintptr_t sections, spans, set_words, level_at[12];
    unsigned levels, zones;
    uint64_t small_at, section_at, owner_at, word_at, set_at, span_at, desc_at, total;
};

static void mmi_frame_zone_limits(const struct mm_frame_config *config, unsigned z, uint64_t *pfn,
                                  uint64_t *end)
{
    const uint64_t limit = mmi_frame_pfn_limit();
    *pfn = 0;
    *end = limit;
    if (config->zone_count != 0) {
        *pfn = config->zones[z].start >> MM_PAGE_SHIFT;
        if (config->zones[z].end != MM_PA_NONE)
            *end = config->zones[z].end >> MM_PAGE_SHIFT;
    }
    *end = *end < limit ? *end : limit;
}

static enum mm_status mmi_frame_zone_valid(const struct mm_frame_config *config, unsigned z)
{
    const struct mm_frame_zone_config *zone = &config->zones[z];
    unsigned i;
    if ((zone->start & (MM_PAGE_SIZE - 1)) != 0 ||
        (zone->end != MM_PA_NONE && (zone->end & (MM_PAGE_SIZE - 1)) != 0))
        return MM_ERR_ALIGN;
    if (zone->start >= zone->end || zone->min > zone->low || zone->low > zone->high)
        return MM_ERR_INVALID;
    if (zone->high > MMI_FRAME_NONE / 2 || (zone->spare >> MM_PAGE_SHIFT) > MMI_FRAME_NONE / 2)
        return MM_ERR_INVALID;
    for (i = 0; i < z; i++)
        if (zone->start < config->zones[i].end && config->zones[i].start < zone->end)
            return MM_ERR_INVALID;
    return MM_OK;
}

static enum mm_status mmi_frame_config_valid(const struct mm_frame_config *config)
{
    unsigned z;
    if (config->zone_count > MM_FRAME_ZONE_MAX ||
        (config->zone_count != 0 && config->zones == NULL))
        return MM_ERR_INVALID;
    if (config->held_types >> MM_FRAME_TYPES != 0 || (unsigned)config->policy > MM_FRAME_NEXT_FIT)
        return MM_ERR_INVALID;
    if (config->meta == NULL && config->meta_size != 0)
        return MM_ERR_INVALID;
    for (z = 0; z < config->zone_count; z++) {
        const enum mm_status status = mmi_frame_zone_valid(config, z);
        if (status != MM_OK)
            return status;
    }
    return mmi_frame_map_valid(config->map, config->map_count);
}

/* The next run of managed pages of zone z from *from on; moves *from behind it. */
static bool mmi_frame_zone_piece(const struct mm_frame_config *config,
                                 const struct mmi_frame_map *map, unsigned z, uint64_t *from,
                                 struct mmi_frame_piece *piece)
{
    const unsigned managed = config->held_types | 1u << MM_FRAME_USABLE;
    uint64_t pfn, end;
    mmi_frame_zone_limits(config, z, &pfn, &end);
    if (*from < pfn)
        *from = pfn;
    while (*from < end && mmi_frame_map_next(map, *from, piece) && piece->pfn < end) {
        *from = piece->end;
        if ((managed >> piece->type & 1u) == 0)
            continue;
        piece->end = piece->end < end ? piece->end : end;
        return true;
    }
    return false;
}

/* Where the levels of the sets go. */
static void mmi_frame_plan_sets(struct mmi_frame_plan *plan)
{
    uintptr_t entries = plan->sections, at = 0;
    unsigned level = 0;
    do {
        entries = ((entries - 1) >> MM_WORD_SHIFT) + 1;
        plan->level_at[level++] = at;
        at += entries;
    } while (entries > 1);
    plan->levels = level;
    plan->set_words = (at + 7) & ~(uintptr_t)7; /* no line of one CPU's with another's */
}

static void mmi_frame_plan_make(const struct mm_frame_config *config,
                                const struct mmi_frame_map *map, struct mmi_frame_plan *plan)
{
    const uint64_t line = MMI_FRAME_LINE, word = sizeof(uintptr_t);
    unsigned z;
    MM_MEMSET(plan, 0, sizeof *plan);
    plan->zones = config->zone_count != 0 ? config->zone_count : 1;
    plan->spans = 8; /* for later changes */
    for (z = 0; z < plan->zones; z++) {
        struct mmi_frame_piece piece;
        const uint64_t spare =
            config->zone_count != 0 ? config->zones[z].spare >> MM_PAGE_SHIFT : 0;
        uint64_t from = 0, behind = 0; /* `behind`: first section number not yet counted, + 1 */
        plan->first[z] = plan->sections;
        while (mmi_frame_zone_piece(config, map, z, &from, &piece)) {
            const uint64_t first = piece.pfn >> MMI_FRAME_SECTION_SHIFT;
            const uint64_t last = (piece.end - 1) >> MMI_FRAME_SECTION_SHIFT;
            plan->sections += (uintptr_t)(last - first) + (first + 1 == behind ? 0 : 1);
            behind = last + 1;
            plan->spans++;
        }
        plan->used[z] = plan->sections;
        /* A range that begins or ends within a section touches one more. */
        plan->sections += (uintptr_t)((spare + MMI_FRAME_SECTION - 1) >> MMI_FRAME_SECTION_SHIFT);
        plan->sections += spare != 0 ? 1 : 0;
        plan->last[z] = plan->sections;
    }
    if (plan->sections == 0)
        plan->sections = 1; /* no array is empty */
    mmi_frame_plan_sets(plan);
    plan->small_at = (uint64_t)MM_CPU_MAX * sizeof(struct mm_frame_cpu);
    plan->section_at = plan->small_at + (uint64_t)MM_CPU_MAX * sizeof(struct mm_frame_small);
    plan->owner_at =
        plan->section_at + ((uint64_t)plan->sections + 1) * sizeof(struct mm_frame_section);
    plan->word_at = mm_align_up(plan->owner_at + ((uint64_t)plan->sections + 1) * word,
                                word << MM_WORD_SHIFT); /* see mmi_frame_words_around */
    plan->set_at = plan->word_at + ((uint64_t)plan->sections << MM_WORD_SHIFT) * word;
    plan->span_at = plan->set_at + (uint64_t)plan->set_words * word *
                                       ((MM_CPU_MAX + 1) * (uint64_t)MMI_FRAME_KINDS);
    plan->desc_at = plan->span_at + 2 * (uint64_t)plan->spans * sizeof(struct mm_frame_span);
    plan->desc_at = mm_align_up(plan->desc_at, line);
    plan->total = plan->desc_at;
    if (config->descriptors)
        plan->total += (uint64_t)plan->sections * MMI_FRAME_SECTION * sizeof(struct mm_frame_desc);
}

static void mmi_frame_map_make(const struct mm_frame_config *config, struct mmi_frame_map *map)
{
    MM_MEMSET(map, 0, sizeof *map);
    map->range = config->map;
    map->count = config->map_count;
    map->extra.type = MM_FRAME_KERNEL;
}

MM_FRAME_API enum mm_status mm_frame_meta_size(const struct mm_frame_config *config, size_t *bytes)
{
    const enum mm_status status = mmi_frame_config_valid(config);
    struct mmi_frame_map map;
    struct mmi_frame_plan plan;
    if (status != MM_OK)
        return status;
    mmi_frame_map_make(config, &map);
    mmi_frame_plan_make(config, &map, &plan);
    if (plan.total > SIZE_MAX - MMI_FRAME_META_ALIGN)
        return MM_ERR_INVALID;
    *bytes = (size_t)plan.total + MMI_FRAME_META_ALIGN;
    return MM_OK;
}

/* Finds room for the metadata at the top of the highest usable range that has it, and marks it in
 * the map. Taking the top of a range makes neither more sections nor more spans. */
static enum mm_status mmi_frame_carve(const struct mm_frame_config *config,
                                      struct mmi_frame_map *map, uint64_t size, void **meta)
{
    const uint64_t pages = (size + MM_PAGE_SIZE - 1) >> MM_PAGE_SHIFT;
    const uint64_t below =
        config->carve_below != 0 ? config->carve_below >> MM_PAGE_SHIFT : UINT64_MAX;
    struct mmi_frame_piece piece;
    uint64_t from = 0, best = UINT64_MAX;
    if (config->hooks.view == NULL)
        return MM_ERR_INVALID;
    for (; mmi_frame_map_next(map, from, &piece); from = piece.end) {
        const uint64_t end = piece.end < below ? piece.end : below;
        if (piece.type == MM_FRAME_USABLE && end > piece.pfn && end - piece.pfn >= pages)
            best = end - pages;
    }
    if (best == UINT64_MAX)
        return MM_ERR_NOMEM;
    map->extra.base = (mm_pa_t)best << MM_PAGE_SHIFT;
    map->extra.size = pages << MM_PAGE_SHIFT;
    *meta = config->hooks.view(config->hooks.ctx, map->extra.base, map->extra.size);
    return *meta != NULL ? MM_OK : MM_ERR_NOMEM;
}

static void mmi_frame_init_zone(struct mm_frame_pool *pool, const struct mm_frame_config *config,
                                const struct mmi_frame_plan *plan, unsigned z)
{
    struct mm_frame_zone *zone = &pool->zone[z];
    uint64_t pfn, end;
    mmi_frame_zone_limits(config, z, &pfn, &end);
    zone->name = "Normal";
    zone->pfn = (uintptr_t)pfn;
    zone->end = (uintptr_t)end;
    zone->first = plan->first[z];
    zone->sections = plan->first[z]; /* grows as sections are made */
    zone->last = plan->last[z];
    if (config->zone_count != 0) {
        const struct mm_frame_zone_config *from = &config->zones[z];
        zone->name = from->name != NULL ? from->name : "?";
        zone->min = (uintptr_t)from->min;
        zone->low = (uintptr_t)from->low;
        zone->high = (uintptr_t)from->high;
        zone->isolated = from->isolated;
    }
    pool->plain |= zone->high == 0 ? 1u << z : 0;
}

/* A zone falls back to the zones below it, highest first, and never to an isolated one: so low
 * memory, which some devices cannot do without, lasts longest. */
static void mmi_frame_init_fallback(struct mm_frame_pool *pool, unsigned z)
{
    struct mm_frame_zone *zone = &pool->zone[z];
    uintptr_t below = zone->pfn;
    zone->fallback[zone->fallback_count++] = (uint8_t)z;
    for (;;) {
        unsigned best = MM_FRAME_ZONE_MAX, i;
        for (i = 0; i < pool->zone_count; i++) {
            const struct mm_frame_zone *other = &pool->zone[i];
            if (i == z || other->isolated || other->pfn >= below)
                continue;
            if (best == MM_FRAME_ZONE_MAX || other->pfn > pool->zone[best].pfn)
                best = i;
        }
        if (best == MM_FRAME_ZONE_MAX)
            return;
        zone->fallback[zone->fallback_count++] = (uint8_t)best;
        below = pool->zone[best].pfn;
    }
}

/* Makes the section of `zone` for frames from `pfn` on, which no section covers yet. */
static struct mm_frame_section *mmi_frame_make_section(struct mm_frame_pool *pool, unsigned z,
                                                       uintptr_t pfn)
{
    struct mm_frame_section *section = &pool->section[pool->zone[z].sections++];
    MM_MEMSET(section, 0, sizeof *section);
    section->pfn = pfn & ~(MMI_FRAME_SECTION - 1);
    section->zone = (uint8_t)z;
    return section;
}

/* Adds frames [pfn, pfn + count), which are of one section, to the highest section of a zone or a
 * new one. */
static void mmi_frame_init_part(struct mm_frame_pool *pool, unsigned z, uintptr_t pfn,
                                uintptr_t count, bool free)
{
    struct mm_frame_zone *zone = &pool->zone[z];
    struct mm_frame_section *section =
        zone->sections > zone->first ? &pool->section[zone->sections - 1] : NULL;
    const uintptr_t at = pfn & (MMI_FRAME_SECTION - 1);
    if (section == NULL || section->pfn != pfn - at)
        section = mmi_frame_make_section(pool, z, pfn);
    section->managed = (uint16_t)(section->managed + count);
    if (free && count == MMI_FRAME_SECTION) { /* as mmi_frame_put does, at once */
        MM_MEMSET(mmi_frame_words(pool, section), 0xff, MM_WORD_BITS * sizeof(uintptr_t));
        section->some = section->full = ~(uintptr_t)0;
        section->free = count;
    } else if (free) {
        mmi_frame_put(pool, section, at, count, NULL);
    }
}

/* Adds frames [pfn, end) of a zone, higher than those before, as free or as held ones. */
static void mmi_frame_init_piece(struct mm_frame_pool *pool, unsigned z, uintptr_t pfn,
                                 uintptr_t end, bool free)
{
    struct mm_frame_zone *zone = &pool->zone[z];
    struct mm_frame_span_table *table = &pool->table[0];
    struct mm_frame_span *span = table->count != 0 ? &table->span[table->count - 1] : NULL;
    uintptr_t at = pfn, part;
    for (; at < end; at += part) {
        const uintptr_t rest = MMI_FRAME_SECTION - (at & (MMI_FRAME_SECTION - 1));
        part = end - at < rest ? end - at : rest;
        mmi_frame_init_part(pool, z, at, part, free);
    }
    zone->managed += end - pfn;
    zone->used += free ? 0 : end - pfn;
    if (span != NULL && span->end == pfn && span->zone == z) {
        span->end = end;
        return;
    }
    span = &table->span[table->count++];
    span->pfn = pfn;
    span->end = end;
    span->zone = z;
    span->delta = ((zone->sections - 1) << MMI_FRAME_SECTION_SHIFT) +
                  ((end - 1) & (MMI_FRAME_SECTION - 1)) - (end - 1);
}

/* All frames of a zone, and where the CPUs' searches begin. */
static void mmi_frame_init_frames(struct mm_frame_pool *pool, const struct mm_frame_config *config,
                                  const struct mmi_frame_map *map, unsigned z)
{
    struct mmi_frame_piece piece;
    uint64_t from = 0;
    uintptr_t i;
    unsigned cpu;
    while (mmi_frame_zone_piece(config, map, z, &from, &piece))
        mmi_frame_init_piece(pool, z, (uintptr_t)piece.pfn, (uintptr_t)piece.end,
                             piece.type == MM_FRAME_USABLE);
    for (i = pool->zone[z].first; i < pool->zone[z].sections; i++)
        mmi_frame_note(pool, &pool->section[i], MMI_FRAME_NOBODY);
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
        mmi_frame_small_restart(pool, &pool->small[cpu], z);
}

/* By frame number; zones may come in any order. */
static void mmi_frame_sort_spans(struct mm_frame_span_table *table)
{
    uintptr_t i, j;
    for (i = 1; i < table->count; i++) {
        const struct mm_frame_span span = table->span[i];
        for (j = i; j > 0 && table->span[j - 1].pfn > span.pfn; j--)
            table->span[j] = table->span[j - 1];
        table->span[j] = span;
    }
}

static void mmi_frame_place_metadata(struct mm_frame_pool *pool, const struct mmi_frame_plan *plan,
                                     unsigned char *base, bool descriptors)
{
    uintptr_t i;
    MM_MEMSET(base, 0, (size_t)plan->desc_at);
    pool->cpu = (struct mm_frame_cpu *)(void *)base;
    pool->small = (struct mm_frame_small *)(void *)(base + plan->small_at);
    pool->section = (struct mm_frame_section *)(void *)(base + plan->section_at);
    pool->nowhere = pool->section + plan->sections;
    pool->owner = (uintptr_t *)(void *)(base + plan->owner_at);
    pool->word = (uintptr_t *)(void *)(base + plan->word_at);
    pool->sets = (uintptr_t *)(void *)(base + plan->set_at);
    pool->table[0].span = (struct mm_frame_span *)(void *)(base + plan->span_at);
    pool->table[1].span = pool->table[0].span + plan->spans;
    if (descriptors) {
        pool->desc = (struct mm_frame_desc *)(void *)(base + plan->desc_at);
        MM_MEMSET(base + plan->desc_at, 0, (size_t)(plan->total - plan->desc_at));
    }
    for (i = 0; i <= plan->sections; i++)
        pool->owner[i] = MMI_FRAME_NOBODY;
    pool->sections = plan->sections;
    pool->set_words = plan->set_words;
    pool->levels = plan->levels;
    for (i = 0; i < 12; i++)
        pool->level_at[i] = plan->level_at[i];
    pool->span_capacity = plan->spans;
    pool->meta_bytes = (size_t)plan->total;
}

static void mmi_frame_init_cpus(struct mm_frame_pool *pool)
{
    unsigned cpu, z;
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++) {
        struct mm_frame_cpu *self = &pool->cpu[cpu];
        self->span_cursor = &self->cursor[0];
        for (z = 0; z < MM_FRAME_ZONE_MAX; z++) {
            mmi_frame_cursor_reset(pool, &self->cursor[z]);
            self->run[z] = MMI_FRAME_NONE;
            self->cursor[z].huge = pool->nowhere;
            self->common[z] = pool->nowhere;
        }
    }
}

MM_FRAME_API enum mm_status mm_frame_init(struct mm_frame_pool *pool,
                                          const struct mm_frame_config *config)
{
    enum mm_status status = mmi_frame_config_valid(config);
    struct mmi_frame_map map;
    struct mmi_frame_plan plan;
    void *meta = config->meta;
    uint64_t room = config->meta_size, skip;
    unsigned z;
    if (status != MM_OK)
        return status;
    mmi_frame_map_make(config, &map);
    mmi_frame_plan_make(config, &map, &plan);
    if (plan.total > SIZE_MAX - MMI_FRAME_META_ALIGN)
        return MM_ERR_NOMEM;
    if (meta == NULL) {
        status = mmi_frame_carve(config, &map, plan.total + MMI_FRAME_META_ALIGN, &meta);
        if (status != MM_OK)
            return status;
        room = map.extra.size;
        mmi_frame_plan_make(config, &map, &plan);
    }
    skip = (0 - (uint64_t)(uintptr_t)meta) & (MMI_FRAME_META_ALIGN - 1);
    if (room < skip || room - skip < plan.total)
        return MM_ERR_NOMEM;
    MM_MEMSET(pool, 0, sizeof *pool);
    pool->policy = config->policy;
    pool->hooks = config->hooks;
    pool->zone_count = plan.zones;
    pool->carved = map.extra.size != 0 ? map.extra.base : MM_PA_NONE;
    pool->carved_end = map.extra.size != 0 ? map.extra.base + map.extra.size : MM_PA_NONE;
    MM_FRAME_LOCK_INIT(&pool->lock);
    mmi_frame_place_metadata(pool, &plan, (unsigned char *)meta + skip, config->descriptors);
    mmi_frame_init_cpus(pool);
    for (z = 0; z < plan.zones; z++) {
        mmi_frame_init_zone(pool, config, &plan, z);
        mmi_frame_init_frames(pool, config, &map, z);
    }
    for (z = 0; z < plan.zones; z++)
        mmi_frame_init_fallback(pool, z);
    mmi_frame_sort_spans(&pool->table[0]);
    return MM_OK;
}

/* ---- Quotas ---------------------------------------------------------------------------------- */

MM_FRAME_API void mm_frame_quota_init(struct mm_frame_quota *quota, struct mm_frame_quota *parent,
                                      uint64_t limit)
{
    MM_MEMSET(quota, 0, sizeof *quota);
    quota->parent = parent;
    quota->limit = limit < MMI_FRAME_NONE ? (uintptr_t)limit : MMI_FRAME_NONE;
}

static void mmi_frame_quota_back(struct mm_frame_quota *from, const struct mm_frame_quota *end,
                                 uintptr_t count)
{
    for (; from != end; from = from->parent)
        (void)mm_fetch_add(&from->used, 0 - count);
}

MM_FRAME_API enum mm_status mm_frame_quota_charge(struct mm_frame_quota *quota, uint64_t count)
{
    struct mm_frame_quota *q;
    for (q = quota; q != NULL; q = q->parent) {
        uintptr_t used;
        do {
            used = mm_load(&q->used);
            if (used > q->limit || count > q->limit - used) {
                (void)mm_fetch_add(&q->failures, 1);
                mmi_frame_quota_back(quota, q, (uintptr_t)count);
                return MM_ERR_LIMIT;
            }
        } while (!mm_cas(&q->used, used, used + (uintptr_t)count));
    }
    for (q = quota; q != NULL; q = q->parent) {
        const uintptr_t used = mm_load(&q->used);
        uintptr_t peak;
        do {
            peak = mm_load(&q->peak);
        } while (peak < used && !mm_cas(&q->peak, peak, used));
    }
    return MM_OK;
}

MM_FRAME_API enum mm_status mm_frame_quota_uncharge(struct mm_frame_quota *quota, uint64_t count)
{
    struct mm_frame_quota *q;
    for (q = quota; q != NULL; q = q->parent) {
        uintptr_t used;
        do {
            used = mm_load(&q->used);
            if (count > used) {
                struct mm_frame_quota *done;
                for (done = quota; done != q; done = done->parent)
                    (void)mm_fetch_add(&done->used, (uintptr_t)count);
                return MM_ERR_INVALID;
            }
        } while (!mm_cas(&q->used, used, used - (uintptr_t)count));
    }
    return MM_OK;
}

MM_FRAME_API mm_pa_t mm_frame_quota_alloc(struct mm_frame_pool *pool, struct mm_frame_quota *quota,
                                          unsigned order, unsigned flags)
{
    mm_pa_t pa;
    if (order >= MM_WORD_BITS - 1 || mm_frame_quota_charge(quota, (uintptr_t)1 << order) != MM_OK)
        return MM_PA_NONE;
    pa = mm_frame_alloc_order(pool, order, flags);
    if (pa == MM_PA_NONE)
        (void)mm_frame_quota_uncharge(quota, (uintptr_t)1 << order);
    return pa;
}

MM_FRAME_API enum mm_status mm_frame_quota_free(struct mm_frame_pool *pool,
                                                struct mm_frame_quota *quota, mm_pa_t pa,
                                                unsigned order)
{
    enum mm_status status;
    if (order >= MM_WORD_BITS - 1)
        return MM_ERR_INVALID;
    /* The charge first: what it refuses must not be freed. */
    status = mm_frame_quota_uncharge(quota, (uintptr_t)1 << order);
    if (status != MM_OK)
        return status;
    status = mm_frame_free_order(pool, pa, order);
    if (status != MM_OK)
        for (; quota != NULL; quota = quota->parent)
            (void)mm_fetch_add(&quota->used, (uintptr_t)1 << order);
    return status;
}

/* ---- Descriptors ----------------------------------------------------------------------------- */

MM_FRAME_API struct mm_frame_desc *mm_frame_desc_of(struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct mm_frame_span span;
    MM_CPU_STATE_T state;
    unsigned cpu;
    bool found;
    if (pool->desc == NULL || (pa & (MM_PAGE_SIZE - 1)) != 0)
        return NULL;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    cpu = cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY;
    found = mmi_frame_find_span(pool, cpu, pa >> MM_PAGE_SHIFT, 1, &span);
    MM_CPU_UNPIN(state);
    return found ? &pool->desc[(uintptr_t)(pa >> MM_PAGE_SHIFT) + span.delta] : NULL;
}

static mm_pa_t mmi_frame_index_pa(const struct mm_frame_pool *pool, uintptr_t index)
{
    const uintptr_t pfn = pool->section[index >> MMI_FRAME_SECTION_SHIFT].pfn;
    return (mm_pa_t)(pfn + (index & (MMI_FRAME_SECTION - 1))) << MM_PAGE_SHIFT;
}

MM_FRAME_API mm_pa_t mm_frame_desc_pa(const struct mm_frame_pool *pool,
                                      const struct mm_frame_desc *desc)
{
    return mmi_frame_index_pa(pool, (uintptr_t)(desc - pool->desc));
}

MM_FRAME_API size_t mm_frame_desc_index(const struct mm_frame_pool *pool,
                                        const struct mm_frame_desc *desc)
{
    return (size_t)(desc - pool->desc);
}

MM_FRAME_API size_t mm_frame_desc_count(const struct mm_frame_pool *pool)
{
    return pool->desc == NULL ? 0 : (size_t)pool->sections << MMI_FRAME_SECTION_SHIFT;
}

MM_FRAME_API mm_pa_t mm_frame_alloc_ref(struct mm_frame_pool *pool, unsigned order, unsigned flags)
{
    struct mm_frame_desc *desc;
    mm_pa_t pa;
    if (pool->desc == NULL)
        return MM_PA_NONE;
    pa = mm_frame_alloc_order(pool, order, flags);
    if (pa == MM_PA_NONE)
        return pa;
    desc = mm_frame_desc_of(pool, pa);
    desc->mapping = NULL;
    desc->index = desc->priv = desc->next = desc->prev = 0;
    desc->order = order;
    mm_store(&desc->flags, 0);
    mm_store_release(&desc->refs, 1);
    return pa;
}

MM_FRAME_API enum mm_status mm_frame_get(struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(pool, pa);
    uintptr_t refs;
    if (desc == NULL)
        return MM_ERR_INVALID;
    do {
        refs = mm_load(&desc->refs);
        if (refs == 0)
            return MM_ERR_NOENT;
        if (refs == UINTPTR_MAX)
            return MM_ERR_LIMIT;
    } while (!mm_cas(&desc->refs, refs, refs + 1));
    return MM_OK;
}

MM_FRAME_API enum mm_status mm_frame_put(struct mm_frame_pool *pool, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(pool, pa);
    uintptr_t refs;
    if (desc == NULL)
        return MM_ERR_INVALID;
    do {
        refs = mm_load(&desc->refs);
        if (refs == 0)
            return mmi_frame_refuse(pool, "mm_frame_put", "put without a reference", MM_ERR_NOENT,
                                    pa);
        if (refs == 1 && (mm_load(&desc->flags) & MM_FRAME_DESC_LRU) != 0)
            return MM_ERR_BUSY;
    } while (!mm_cas(&desc->refs, refs, refs - 1));
    if (refs == 1) {
        const enum mm_status status = mm_frame_free_order(pool, pa, (unsigned)desc->order);
        if (status == MM_ERR_BUSY) /* without a CPU number: the reference stays */
            mm_store_release(&desc->refs, 1);
        return status;
    }
    return MM_OK;
}

/* ---- LRU ------------------------------------------------------------------------------------- */

/* The list that flags name. */
static unsigned mmi_frame_lru_list(uintptr_t flags)
{
    return ((flags & MM_FRAME_DESC_FILE) != 0 ? 2u : 0u) +
           ((flags & MM_FRAME_DESC_ACTIVE) != 0 ? 1u : 0u);
}

#define MMI_FRAME_LRU_STATE \
    ((uintptr_t)(MM_FRAME_DESC_ACTIVE | MM_FRAME_DESC_FILE | MM_FRAME_DESC_REFERENCED))

/* Links a descriptor in at the young end of the list that `flags` name, and sets them. Lock
 * held. */
static void mmi_frame_lru_link(struct mm_frame_lru *lru, struct mm_frame_desc *desc,
                               uintptr_t flags)
{
    struct mm_frame_desc *const all = lru->pool->desc;
    const unsigned list = mmi_frame_lru_list(flags);
    const uintptr_t me = (uintptr_t)(desc - all) + 1;
    desc->prev = 0;
    desc->next = lru->list[list].head;
    if (desc->next != 0)
        all[desc->next - 1].prev = me;
    else
        lru->list[list].tail = me;
    lru->list[list].head = me;
    lru->list[list].count++;
    (void)mm_fetch_and(&desc->flags, ~MMI_FRAME_LRU_STATE);
    (void)mm_fetch_or(&desc->flags, flags | MM_FRAME_DESC_LRU);
}

/* Takes a descriptor off its list; the lock held. Its mark stays: a put that does not find it would
 * free the frame while it moves to another list. */
static void mmi_frame_lru_unlink(struct mm_frame_lru *lru, struct mm_frame_desc *desc)
{
    struct mm_frame_desc *const all = lru->pool->desc;
    const unsigned list = mmi_frame_lru_list(mm_load(&desc->flags));
    if (desc->prev != 0)
        all[desc->prev - 1].next = desc->next;
    else
        lru->list[list].head = desc->next;
    if (desc->next != 0)
        all[desc->next - 1].prev = desc->prev;
    else
        lru->list[list].tail = desc->prev;
    desc->next = desc->prev = 0;
    lru->list[list].count--;
}

/* The same for good. */
static void mmi_frame_lru_take(struct mm_frame_lru *lru, struct mm_frame_desc *desc)
{
    mmi_frame_lru_unlink(lru, desc);
    (void)mm_fetch_and(&desc->flags, ~(MMI_FRAME_LRU_STATE | MM_FRAME_DESC_LRU));
}

MM_FRAME_API enum mm_status mm_frame_lru_init(struct mm_frame_lru *lru, struct mm_frame_pool *pool)
{
    if (pool->desc == NULL)
        return MM_ERR_INVALID;
    MM_MEMSET(lru, 0, sizeof *lru);
    lru->pool = pool;
    MM_FRAME_LOCK_INIT(&lru->lock);
    return MM_OK;
}

MM_FRAME_API enum mm_status mm_frame_lru_add(struct mm_frame_lru *lru, mm_pa_t pa,
                                             enum mm_frame_lru_kind kind)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(lru->pool, pa);
    enum mm_status status = MM_OK;
    MM_FRAME_LOCK_STATE_T state;
    if (desc == NULL || (unsigned)kind >= MM_FRAME_LRU_KINDS)
        return MM_ERR_INVALID;
    MM_FRAME_LOCK(&lru->lock, state);
    if ((mm_load(&desc->flags) & MM_FRAME_DESC_LRU) != 0)
        status = MM_ERR_EXISTS;
    else if (mm_load(&desc->refs) == 0)
        status = MM_ERR_NOENT;
    else
        mmi_frame_lru_link(lru, desc, kind == MM_FRAME_LRU_FILE ? MM_FRAME_DESC_FILE : 0);
    MM_FRAME_UNLOCK(&lru->lock, state);
    return status;
}

MM_FRAME_API enum mm_status mm_frame_lru_remove(struct mm_frame_lru *lru, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(lru->pool, pa);
    enum mm_status status = MM_ERR_NOENT;
    MM_FRAME_LOCK_STATE_T state;
    if (desc == NULL)
        return MM_ERR_INVALID;
    MM_FRAME_LOCK(&lru->lock, state);
    if ((mm_load(&desc->flags) & MM_FRAME_DESC_LRU) != 0) {
        mmi_frame_lru_take(lru, desc);
        status = MM_OK;
    }
    MM_FRAME_UNLOCK(&lru->lock, state);
    return status;
}

MM_FRAME_API enum mm_status mm_frame_lru_touch(struct mm_frame_lru *lru, mm_pa_t pa)
{
    struct mm_frame_desc *desc = mm_frame_desc_of(lru->pool, pa);
    MM_FRAME_LOCK_STATE_T state;
    uintptr_t flags;
    if (desc == NULL)
        return MM_ERR_INVALID;
    flags = mm_load(&desc->flags);
    if ((flags & MM_FRAME_DESC_LRU) == 0)
        return MM_ERR_NOENT;
    if ((flags & MM_FRAME_DESC_REFERENCED) == 0) {
        (void)mm_fetch_or(&desc->flags, MM_FRAME_DESC_REFERENCED);
        return MM_OK;
    }
    if ((flags & MM_FRAME_DESC_ACTIVE) != 0)
        return MM_OK;
    MM_FRAME_LOCK(&lru->lock, state);
    flags = mm_load(&desc->flags);
    if ((flags & MM_FRAME_DESC_LRU) != 0 && (flags & MM_FRAME_DESC_ACTIVE) == 0) {
        mmi_frame_lru_unlink(lru, desc);
        mmi_frame_lru_link(lru, desc, (flags & MM_FRAME_DESC_FILE) | MM_FRAME_DESC_ACTIVE);
    }
    MM_FRAME_UNLOCK(&lru->lock, state);
    return MM_OK;
}

/* Moves frames from the old end of the active list to the inactive one while that is the shorter; a
 * frame that was used goes round once more. At most `scan` frames; the lock held. */
static void mmi_frame_lru_age(struct mm_frame_lru *lru, enum mm_frame_lru_kind kind, size_t scan)
{
    const unsigned inactive = (unsigned)kind * 2, active = inactive + 1;
    const uintptr_t file = kind == MM_FRAME_LRU_FILE ? MM_FRAME_DESC_FILE : 0;
    while (scan-- > 0 && lru->list[active].count > lru->list[inactive].count) {
        struct mm_frame_desc *desc = &lru->pool->desc[lru->list[active].tail - 1];
        const bool used = (mm_load(&desc->flags) & MM_FRAME_DESC_REFERENCED) != 0;
        mmi_frame_lru_unlink(lru, desc);
        mmi_frame_lru_link(lru, desc, file | (used ? MM_FRAME_DESC_ACTIVE : 0u));
    }
}

/* The next victim, taken off its list, with a reference more; NULL if there is none or it was
 * spared (*spared). Lock held. */
static struct mm_frame_desc *mmi_frame_lru_victim(struct mm_frame_lru *lru,
                                                  enum mm_frame_lru_kind kind, bool *spared)
{
    const uintptr_t tail = lru->list[(unsigned)kind * 2].tail;
    struct mm_frame_desc *desc;
    *spared = false;
    if (tail == 0)
        return NULL;
    desc = &lru->pool->desc[tail - 1];
    if ((mm_load(&desc->flags) & MM_FRAME_DESC_REFERENCED) == 0) {
        (void)mm_fetch_add(&desc->refs, 1); /* as long as it is marked, the last one stays */
        mmi_frame_lru_take(lru, desc);
        return desc;
    }
    mmi_frame_lru_unlink(lru, desc);
    mmi_frame_lru_link(
        lru, desc, (kind == MM_FRAME_LRU_FILE ? MM_FRAME_DESC_FILE : 0u) | MM_FRAME_DESC_ACTIVE);
    lru->spared++;
    *spared = true;
    return NULL;
}

/* Gives a victim to the callback, and puts it back if that refuses. True if it is gone. */
static bool mmi_frame_lru_evict(struct mm_frame_lru *lru, struct mm_frame_desc *desc,
                                uintptr_t file, mm_frame_evict_fn evict, void *ctx)
{
    const mm_pa_t pa = mm_frame_desc_pa(lru->pool, desc);
    const bool gone = evict(ctx, lru->pool, pa) == MM_OK;
    MM_FRAME_LOCK_STATE_T state;
    if (!gone) {
        MM_FRAME_LOCK(&lru->lock, state);
        if ((mm_load(&desc->flags) & MM_FRAME_DESC_LRU) == 0)
            mmi_frame_lru_link(lru, desc, file | MM_FRAME_DESC_ACTIVE);
        lru->refused++;
        MM_FRAME_UNLOCK(&lru->lock, state);
    }
    while (mm_frame_put(lru->pool, pa) == MM_ERR_BUSY) /* its owners have gone meanwhile */
        (void)mm_frame_lru_remove(lru, pa);
    return gone;
}

MM_FRAME_API size_t mm_frame_lru_shrink(struct mm_frame_lru *lru, enum mm_frame_lru_kind kind,
                                        size_t want, size_t scan, mm_frame_evict_fn evict,
                                        void *ctx)
{
    const uintptr_t file = kind == MM_FRAME_LRU_FILE ? MM_FRAME_DESC_FILE : 0;
    size_t gone = 0;
    if ((unsigned)kind >= MM_FRAME_LRU_KINDS || evict == NULL)
        return 0;
    for (; scan > 0 && gone < want; scan--) {
        struct mm_frame_desc *desc;
        MM_FRAME_LOCK_STATE_T state;
        bool spared;
        MM_FRAME_LOCK(&lru->lock, state);
        mmi_frame_lru_age(lru, kind, scan);
        desc = mmi_frame_lru_victim(lru, kind, &spared);
        MM_FRAME_UNLOCK(&lru->lock, state);
        if (desc == NULL && !spared)
            break;
        if (!spared && mmi_frame_lru_evict(lru, desc, file, evict, ctx))
            gone++;
    }
    (void)mm_fetch_add(&lru->evicted, gone);
    return gone;
}

/* ---- Hotplug and compaction ------------------------------------------------------------------ */

/* As mmi_frame_find_span for one frame, not pinned before. */
static bool mmi_frame_find_span_now(struct mm_frame_pool *pool, uint64_t pfn,
                                    struct mm_frame_span *span)
{
    MM_CPU_STATE_T state;
    unsigned cpu;
    bool found;
    span->pfn = span->end = span->delta = span->zone = 0; /* for compilers that warn */
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    found = mmi_frame_find_span(pool, cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY, pfn, 1, span);
    MM_CPU_UNPIN(state);
    return found;
}

/* Waits until no CPU uses the span table that was current before, nor a span remembered from it.
 * Who uses one says so first, then loads; here stores come first: all in one order. */
static void mmi_frame_quiesce(struct mm_frame_pool *pool)
{
    unsigned cpu, turn;
    for (turn = 0; turn < 2; turn++) {
#if MMI_SMP
#ifdef MM_FENCE_CPUS
        MM_FENCE_CPUS();
#endif
        for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
            while (__atomic_load_n(&pool->cpu[cpu].busy, __ATOMIC_SEQ_CST) != 0)
                MM_CPU_RELAX();
#endif
        while (mm_load_acquire(&pool->anonymous) != 0)
            MM_CPU_RELAX();
        /* From here the new table is looked up. A CPU may have remembered an old span just before:
         * forget it, and wait for who uses it just now. */
        for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
            __atomic_store_n(&pool->cpu[cpu].span_size, 0, __ATOMIC_SEQ_CST);
    }
}

static bool mmi_frame_append_span(const struct mm_frame_pool *pool, struct mm_frame_span_table *to,
                                  const struct mm_frame_span *span, uintptr_t pfn, uintptr_t end)
{
    if (to->count == pool->span_capacity)
        return false;
    to->span[to->count] = *span;
    to->span[to->count].pfn = pfn;
    to->span[to->count++].end = end;
    return true;
}

/* The spare table with a copy of the spans outside [pfn, end); ranges that reach in are cut.
 * Returns false if it has no room. The pool's lock held. */
static bool mmi_frame_copy_spans(struct mm_frame_pool *pool, uintptr_t pfn, uintptr_t end)
{
    const struct mm_frame_span_table *from = &pool->table[pool->table_current];
    struct mm_frame_span_table *to = &pool->table[1 - pool->table_current];
    uintptr_t i;
    to->count = 0;
    for (i = 0; i < from->count; i++) {
        const struct mm_frame_span *part = &from->span[i];
        const bool apart = part->end <= pfn || part->pfn >= end;
        if (apart && !mmi_frame_append_span(pool, to, part, part->pfn, part->end))
            return false;
        if (!apart && part->pfn < pfn && !mmi_frame_append_span(pool, to, part, part->pfn, pfn))
            return false;
        if (!apart && part->end > end && !mmi_frame_append_span(pool, to, part, end, part->end))
            return false;
    }
    return true;
}

/* Adds a span to the spare table, sorted, merged with the neighbours that it continues. */
static bool mmi_frame_insert_span(struct mm_frame_pool *pool, const struct mm_frame_span *span)
{
    struct mm_frame_span_table *to = &pool->table[1 - pool->table_current];
    struct mm_frame_span whole = *span;
    uintptr_t i, kept = 0;
    for (i = 0; i < to->count; i++) {
        const struct mm_frame_span near = to->span[i];
        const bool alike = near.zone == whole.zone && near.delta == whole.delta;
        if (alike && near.end == whole.pfn)
            whole.pfn = near.pfn;
        else if (alike && near.pfn == whole.end)
            whole.end = near.end;
        else
            to->span[kept++] = near;
    }
    if (kept == pool->span_capacity)
        return false;
    for (i = kept; i > 0 && to->span[i - 1].pfn > whole.pfn; i--)
        to->span[i] = to->span[i - 1];
    to->span[i] = whole;
    to->count = kept + 1;
    return true;
}

static void mmi_frame_publish_spans(struct mm_frame_pool *pool)
{
    __atomic_store_n(&pool->table_current, 1 - pool->table_current, __ATOMIC_SEQ_CST);
    mmi_frame_quiesce(pool);
}

/* Number of the section of `zone` for frames from `base` on, if there is one. */
static uintptr_t mmi_frame_section_at(const struct mm_frame_pool *pool, unsigned zone,
                                      uintptr_t base)
{
    const struct mm_frame_span_table *table = &pool->table[pool->table_current];
    const struct mm_frame_zone *z = &pool->zone[zone];
    uintptr_t i;
    for (i = 0; i < table->count; i++) {
        const struct mm_frame_span *span = &table->span[i];
        const uintptr_t first = span->pfn > base ? span->pfn : base;
        if (span->zone == zone && first < span->end && first - base < MMI_FRAME_SECTION)
            return (first + span->delta) >> MMI_FRAME_SECTION_SHIFT;
    }
    for (i = z->vacant != 0 ? z->first : z->sections; i < z->sections; i++)
        if (pool->section[i].pfn == base)
            return i;
    return MMI_FRAME_NONE;
}

/* Prepares sections and spans for frames [pfn, end) of a zone; *made tells how many sections are
 * new. */
static enum mm_status mmi_frame_plan_online(struct mm_frame_pool *pool, unsigned number,
                                            uintptr_t pfn, uintptr_t end, uintptr_t *made)
{
    struct mm_frame_zone *zone = &pool->zone[number];
    *made = 0;
    if (!mmi_frame_copy_spans(pool, 0, 0))
        return MM_ERR_LIMIT;
    while (pfn < end) {
        const uintptr_t at = pfn & (MMI_FRAME_SECTION - 1), base = pfn - at;
        const uintptr_t part =
            end - pfn < MMI_FRAME_SECTION - at ? end - pfn : MMI_FRAME_SECTION - at;
        struct mm_frame_span span;
        uintptr_t i = mmi_frame_section_at(pool, number, base);
        if (i == MMI_FRAME_NONE) {
            i = zone->sections + *made;
            if (i >= zone->last)
                return MM_ERR_LIMIT;
            MM_MEMSET(&pool->section[i], 0, sizeof pool->section[i]);
            MM_MEMSET(mmi_frame_words(pool, &pool->section[i]), 0,
                      MM_WORD_BITS * sizeof(uintptr_t));
            pool->section[i].pfn = base;
            pool->section[i].zone = (uint8_t)number;
            ++*made;
        }
        span.pfn = pfn;
        span.end = pfn + part;
        span.delta = (i << MMI_FRAME_SECTION_SHIFT) - base;
        span.zone = number;
        if (!mmi_frame_insert_span(pool, &span))
            return MM_ERR_LIMIT;
        pfn += part;
    }
    return MM_OK;
}

/* Adds (or takes away: its negative) to the managed frames of a range's sections. The lock held. */
static void mmi_frame_count_managed(struct mm_frame_pool *pool, uintptr_t pfn, uintptr_t end,
                                    bool add)
{
    while (pfn < end) {
        const struct mm_frame_span_table *table = &pool->table[pool->table_current];
        const uintptr_t at = pfn & (MMI_FRAME_SECTION - 1);
        const uintptr_t part =
            end - pfn < MMI_FRAME_SECTION - at ? end - pfn : MMI_FRAME_SECTION - at;
        struct mm_frame_section *section;
        struct mm_frame_zone *zone;
        uintptr_t i;
        for (i = 0; table->span[i].end <= pfn; i++)
            continue;
        zone = &pool->zone[table->span[i].zone];
        section = &pool->section[(pfn + table->span[i].delta) >> MMI_FRAME_SECTION_SHIFT];
        if (add && section->managed == 0)
            zone->vacant--;
        section->managed = (uint16_t)(add ? section->managed + part : section->managed - part);
        if (!add && section->managed == 0)
            zone->vacant++;
        mm_store(&zone->managed, add ? zone->managed + part : zone->managed - part);
        pfn += part;
    }
}

/* Is a frame of the range there already, or does it hold the pool's own metadata? */
static bool mmi_frame_there(const struct mm_frame_pool *pool, uint64_t pfn, uint64_t end)
{
    const struct mm_frame_span_table *table = &pool->table[pool->table_current];
    uintptr_t i;
    if (pool->carved != MM_PA_NONE && pool->carved >> MM_PAGE_SHIFT < end &&
        pfn << MM_PAGE_SHIFT < pool->carved_end)
        return true;
    for (i = 0; i < table->count; i++)
        if (table->span[i].pfn < end && pfn < table->span[i].end)
            return true;
    return false;
}

MM_FRAME_API enum mm_status mm_frame_online(struct mm_frame_pool *pool, unsigned zone, mm_pa_t pa,
                                            uint64_t size)
{
    uint64_t pfn, end;
    enum mm_status status = MM_OK;
    MM_FRAME_LOCK_STATE_T state;
    uintptr_t made;
    if (((pa | size) & (MM_PAGE_SIZE - 1)) != 0)
        return MM_ERR_ALIGN;
    if (zone >= pool->zone_count || !mmi_frame_pages(pa, size, true, &pfn, &end))
        return MM_ERR_INVALID;
    if (pfn < pool->zone[zone].pfn || end > pool->zone[zone].end)
        return MM_ERR_INVALID;
    MM_FRAME_LOCK(&pool->lock, state);
    if (mmi_frame_there(pool, pfn, end))
        status = MM_ERR_EXISTS;
    if (status == MM_OK)
        status = mmi_frame_plan_online(pool, zone, (uintptr_t)pfn, (uintptr_t)end, &made);
    if (status == MM_OK) {
        mm_store_release(&pool->zone[zone].sections, pool->zone[zone].sections + made);
        pool->zone[zone].vacant += made;
        mmi_frame_publish_spans(pool);
        mmi_frame_count_managed(pool, (uintptr_t)pfn, (uintptr_t)end, true);
        /* Allocated until here; then freed like any other frames. */
        (void)mm_fetch_add(&pool->zone[zone].used, (uintptr_t)(end - pfn));
        status = mmi_frame_range(pool, pfn, end, false, false, NULL);
    }
    MM_FRAME_UNLOCK(&pool->lock, state);
    return status;
}

/* Frames in use of the huge block at word w; MMI_FRAME_HUGE + 1 if it is allocated as one. A
 * snapshot. */
static uintptr_t mmi_frame_block_used(const struct mm_frame_pool *pool,
                                      const struct mm_frame_section *section, unsigned w)
{
    const uintptr_t *words = mmi_frame_words(pool, section);
    uintptr_t free = 0;
    unsigned i;
    if ((mm_load(&section->huge) & mm_bit(w)) != 0)
        return MMI_FRAME_HUGE + 1;
    for (i = w; i < w + MMI_FRAME_GROUP; i++)
        free += mm_popcount(mmi_frame_bits(section, words, i));
    return MMI_FRAME_HUGE - free;
}

/* A job that empties a range: what it knows of the section it works on. */
struct mmi_frame_isolation {
    struct mm_frame_pool *pool;
    mm_frame_migrate_fn migrate;
    void *ctx;
    uintptr_t pfn, end;           /* frames are moved to places outside this range */
    uintptr_t ours[MM_WORD_BITS]; /* frames of the section that the job holds */
    struct mm_frame_offline_result *result;
    bool nowhere; /* no frame to move to was found */
};

/* Takes the free ones of frames [first, first + count) of a section; notes them in `ours`. */
static void mmi_frame_isolate(struct mmi_frame_isolation *job, unsigned cpu,
                              struct mm_frame_section *section, uintptr_t first, uintptr_t count)
{
    struct mm_frame_pool *pool = job->pool;
    uintptr_t i, taken = 0;
    MM_MEMSET(job->ours, 0, sizeof job->ours);
    while (!mmi_frame_lock(pool, section, cpu))
        MM_CPU_RELAX();
    for (i = first; i < first + count; i++) {
        if (!mmi_frame_all(pool, section, i, 1, true))
            continue;
        mmi_frame_take(pool, section, i, 1);
        job->ours[i >> MM_WORD_SHIFT] |= mm_bit((unsigned)(i & (MM_WORD_BITS - 1)));
        taken++;
    }
    mmi_frame_count(pool, cpu, section->zone, taken);
    mmi_frame_unlock(pool, section);
}

/* A frame with an address in [min, max) (0: no limit), for a page that is moved. */
static mm_pa_t mmi_frame_refuge_in(struct mm_frame_pool *pool, unsigned zone, uintptr_t min,
                                   uintptr_t max)
{
    struct mm_frame_request request;
    MM_MEMSET(&request, 0, sizeof request);
    request.count = 1;
    request.flags = MM_FRAME_ZONE(zone) | MM_FRAME_URGENT | MM_FRAME_NOWAIT;
    request.min = (mm_pa_t)min << MM_PAGE_SHIFT;
    request.max = (mm_pa_t)max << MM_PAGE_SHIFT;
    return mm_frame_alloc_run(pool, &request);
}

/* A frame outside the job's range: of a huge block of the zone that is in use in part already, else
 * any, of the zone or one that it falls back to. */
static mm_pa_t mmi_frame_refuge(const struct mmi_frame_isolation *job, unsigned number)
{
    const struct mm_frame_zone *zone = &job->pool->zone[number];
    mm_pa_t pa;
    uintptr_t i;
    unsigned w;
    for (i = zone->first; i < zone->sections; i++) {
        const struct mm_frame_section *section = &job->pool->section[i];
        for (w = 0; w < MM_WORD_BITS && mm_load(&section->some) != 0; w += MMI_FRAME_GROUP) {
            const uintptr_t pfn = section->pfn + ((uintptr_t)w << MM_WORD_SHIFT);
            const uintptr_t used = mmi_frame_block_used(job->pool, section, w);
            if (used == 0 || used >= MMI_FRAME_HUGE ||
                (pfn < job->end && job->pfn < pfn + MMI_FRAME_HUGE))
                continue;
            pa = mmi_frame_refuge_in(job->pool, number, pfn, pfn + MMI_FRAME_HUGE);
            if (pa != MM_PA_NONE)
                return pa;
        }
    }
    pa = job->pfn != 0 ? mmi_frame_refuge_in(job->pool, number, 0, job->pfn) : MM_PA_NONE;
    return pa != MM_PA_NONE ? pa : mmi_frame_refuge_in(job->pool, number, job->end, 0);
}

/* Empties frames [first, first + count) of a section: takes the free ones, moves the others.
 * Returns how many stay in use. Not pinned in the callback. */
static uintptr_t mmi_frame_empty(struct mmi_frame_isolation *job, struct mm_frame_section *section,
                                 uintptr_t first, uintptr_t count)
{
    struct mm_frame_pool *pool = job->pool;
    MM_CPU_STATE_T state;
    uintptr_t i, busy = 0;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    mmi_frame_isolate(job, cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY, section, first, count);
    MM_CPU_UNPIN(state);
    for (i = first; i < first + count; i++) {
        const mm_pa_t from = (mm_pa_t)(section->pfn + i) << MM_PAGE_SHIFT;
        uintptr_t *ours = &job->ours[i >> MM_WORD_SHIFT];
        const uintptr_t bit = mm_bit((unsigned)(i & (MM_WORD_BITS - 1)));
        mm_pa_t to = MM_PA_NONE;
        if ((*ours & bit) != 0)
            continue;
        /* Freed since we looked? Then it is ours if we are quick. */
        if (mm_frame_alloc_at(pool, from, 1) == MM_OK) {
            *ours |= bit;
            continue;
        }
        if (job->migrate != NULL)
            to = mmi_frame_refuge(job, section->zone);
        job->nowhere |= job->migrate != NULL && to == MM_PA_NONE;
        if (to != MM_PA_NONE && job->migrate(job->ctx, pool, from, to) == MM_OK) {
            *ours |= bit;
            job->result->moved++;
            continue;
        }
        if (to != MM_PA_NONE)
            (void)mm_frame_free(pool, to);
        if (busy++ == 0 && job->result->first_busy == MM_PA_NONE)
            job->result->first_busy = from;
    }
    job->result->busy += busy;
    return busy;
}

/* Frees what the job holds of the section. */
static void mmi_frame_give_back(const struct mmi_frame_isolation *job,
                                const struct mm_frame_section *section)
{
    unsigned w;
    for (w = 0; w < MM_WORD_BITS; w++) {
        uintptr_t ours = job->ours[w];
        for (; ours != 0; ours &= ours - 1) {
            const uintptr_t i = ((uintptr_t)w << MM_WORD_SHIFT) + mm_ctz(ours);
            (void)mm_frame_free(job->pool, (mm_pa_t)(section->pfn + i) << MM_PAGE_SHIFT);
        }
    }
}

/* Empties the sections of [pfn, end) one after the other; true if nothing stays in use. */
static bool mmi_frame_empty_range(struct mmi_frame_isolation *job)
{
    struct mm_frame_pool *pool = job->pool;
    uintptr_t pfn = job->pfn, kept = job->pfn; /* [job->pfn, kept) is wholly ours */
    bool all = true;
    while (pfn < job->end) {
        struct mm_frame_span span;
        struct mm_frame_section *section;
        uintptr_t at, part;
        (void)mmi_frame_find_span_now(pool, pfn, &span);
        at = pfn & (MMI_FRAME_SECTION - 1);
        part = job->end - pfn < MMI_FRAME_SECTION - at ? job->end - pfn : MMI_FRAME_SECTION - at;
        part = part < span.end - pfn ? part : span.end - pfn;
        section = &pool->section[(pfn + span.delta) >> MMI_FRAME_SECTION_SHIFT];
        if (mmi_frame_empty(job, section, at, part) != 0 || !all) {
            mmi_frame_give_back(job, section);
            all = false;
        } else {
            kept = pfn + part;
        }
        pfn += part;
    }
    if (!all && kept > job->pfn)
        (void)mmi_frame_range(pool, job->pfn, kept, false, false, NULL);
    return all;
}

/* Makes the huge blocks that [pfn, end) touches ordinary frames in use: parts of them may go. */
static void mmi_frame_break_huge(struct mm_frame_pool *pool, uintptr_t pfn, uintptr_t end)
{
    MM_CPU_STATE_T state;
    unsigned cpu;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    cpu = cpu < MM_CPU_MAX ? cpu : (unsigned)MMI_FRAME_NOBODY;
    pfn &= ~(MMI_FRAME_HUGE - 1);
    for (; pfn < end; pfn += MMI_FRAME_HUGE) {
        struct mm_frame_section *section;
        struct mm_frame_span span;
        const unsigned w = (unsigned)(pfn >> MM_WORD_SHIFT) & (MM_WORD_BITS - 1);
        if (!mmi_frame_find_span(pool, cpu, pfn, 1, &span))
            continue;
        section = &pool->section[(pfn + span.delta) >> MMI_FRAME_SECTION_SHIFT];
        while (!mmi_frame_lock(pool, section, cpu))
            MM_CPU_RELAX();
        if ((section->huge & mm_bit(w)) != 0)
            mmi_frame_unhuge(section, mmi_frame_words(pool, section), w);
        mmi_frame_unlock(pool, section);
    }
    MM_CPU_UNPIN(state);
}

MM_FRAME_API enum mm_status mm_frame_offline(struct mm_frame_pool *pool, mm_pa_t pa, uint64_t size,
                                             mm_frame_migrate_fn migrate, void *ctx,
                                             struct mm_frame_offline_result *result)
{
    struct mm_frame_offline_result own;
    struct mmi_frame_isolation job;
    MM_FRAME_LOCK_STATE_T state;
    uint64_t pfn, end, at;
    bool room;
    if (((pa | size) & (MM_PAGE_SIZE - 1)) != 0)
        return MM_ERR_ALIGN;
    if (!mmi_frame_pages(pa, size, true, &pfn, &end))
        return MM_ERR_INVALID;
    for (at = pfn; at < end;) {
        struct mm_frame_span span;
        if (!mmi_frame_find_span_now(pool, at, &span))
            return MM_ERR_NOENT;
        at = span.end;
    }
    MM_FRAME_LOCK(&pool->lock, state);
    room = mmi_frame_copy_spans(pool, (uintptr_t)pfn, (uintptr_t)end);
    MM_FRAME_UNLOCK(&pool->lock, state);
    if (!room)
        return MM_ERR_LIMIT;
    job.pool = pool;
    job.migrate = migrate;
    job.ctx = ctx;
    job.pfn = (uintptr_t)pfn;
    job.end = (uintptr_t)end;
    job.result = result != NULL ? result : &own;
    job.nowhere = false;
    job.result->busy = job.result->moved = 0;
    job.result->first_busy = MM_PA_NONE;
    if (!mmi_frame_empty_range(&job))
        return MM_ERR_BUSY;
    MM_FRAME_LOCK(&pool->lock, state);
    room = mmi_frame_copy_spans(pool, job.pfn, job.end);
    if (!room) { /* other memory came on-line meanwhile */
        MM_FRAME_UNLOCK(&pool->lock, state);
        (void)mmi_frame_range(pool, pfn, end, false, false, NULL);
        return MM_ERR_LIMIT;
    }
    for (at = pfn; at < end;) {
        struct mm_frame_span span;
        uint64_t part;
        (void)mmi_frame_find_span_now(pool, at, &span);
        part = (end < span.end ? end : span.end) - at;
        (void)mm_fetch_add(&pool->zone[span.zone].used, 0 - (uintptr_t)part);
        at += part;
    }
    mmi_frame_break_huge(pool, job.pfn, job.end);
    mmi_frame_count_managed(pool, job.pfn, job.end, false);
    mmi_frame_publish_spans(pool);
    MM_FRAME_UNLOCK(&pool->lock, state);
    mmi_frame_self_check(pool);
    return MM_OK;
}

/* The block of the zone with the fewest frames in use, but some of both: its first frame number. */
static uintptr_t mmi_frame_emptiest(struct mm_frame_pool *pool, const struct mm_frame_zone *zone)
{
    uintptr_t best = MMI_FRAME_NONE, least = MMI_FRAME_HUGE, i;
    unsigned w;
    for (i = zone->first; i < zone->sections; i++) {
        const struct mm_frame_section *section = &pool->section[i];
        for (w = 0; w < MM_WORD_BITS && mm_load(&section->some) != 0; w += MMI_FRAME_GROUP) {
            const uintptr_t pfn = section->pfn + ((uintptr_t)w << MM_WORD_SHIFT);
            const uintptr_t used = mmi_frame_block_used(pool, section, w);
            struct mm_frame_span span;
            if (used == 0 || used >= least || !mmi_frame_find_span_now(pool, pfn, &span) ||
                span.end - pfn < MMI_FRAME_HUGE)
                continue;
            least = used;
            best = pfn;
        }
    }
    return best;
}

MM_FRAME_API enum mm_status mm_frame_compact(struct mm_frame_pool *pool, unsigned zone,
                                             mm_frame_migrate_fn migrate, void *ctx, mm_pa_t *block)
{
    struct mm_frame_offline_result result;
    struct mmi_frame_isolation job;
    struct mm_frame_span span;
    struct mm_frame_section *section;
    uintptr_t pfn;
    if (zone >= pool->zone_count || migrate == NULL)
        return MM_ERR_INVALID;
    pfn = mmi_frame_emptiest(pool, &pool->zone[zone]);
    if (pfn == MMI_FRAME_NONE || !mmi_frame_find_span_now(pool, pfn, &span))
        return MM_ERR_NOENT;
    section = &pool->section[(pfn + span.delta) >> MMI_FRAME_SECTION_SHIFT];
    job.pool = pool;
    job.migrate = migrate;
    job.ctx = ctx;
    job.pfn = pfn;
    job.end = pfn + MMI_FRAME_HUGE;
    job.result = &result;
    job.nowhere = false;
    result.busy = result.moved = 0;
    result.first_busy = MM_PA_NONE;
    if (mmi_frame_empty(&job, section, pfn & (MMI_FRAME_SECTION - 1), MMI_FRAME_HUGE) != 0) {
        mmi_frame_give_back(&job, section);
        return job.nowhere ? MM_ERR_NOMEM : MM_ERR_BUSY;
    }
    if (block != NULL)
        *block = (mm_pa_t)pfn << MM_PAGE_SHIFT;
    return mm_frame_free_order(pool, (mm_pa_t)pfn << MM_PAGE_SHIFT, MM_FRAME_HUGE_ORDER);
}

/* ---- Statistics ------------------------------------------------------------------------------ */

MM_FRAME_API uint64_t mm_frame_free_count(struct mm_frame_pool *pool, unsigned zone)
{
    return zone < pool->zone_count ? mmi_frame_free_now(pool, zone) : 0;
}

MM_FRAME_API size_t mm_frame_meta_bytes(const struct mm_frame_pool *pool)
{
    return pool->meta_bytes;
}

/* Whether the cursor's current word is all that hides a whole block: the exception of S2. A
 * snapshot. */
static bool mmi_frame_cursor_whole(const struct mm_frame_pool *pool,
                                   const struct mm_frame_cursor *cursor, unsigned cpu)
{
    const struct mm_frame_section *section = __atomic_load_n(&cursor->section, __ATOMIC_RELAXED);
    const uintptr_t *word = mmi_frame_cursor_peek(cursor);
    uintptr_t group, w;
    if (section == pool->nowhere || mm_load(mmi_frame_owner(pool, section)) != cpu ||
        mm_load(word) != ~(uintptr_t)0)
        return false;
    w = (uintptr_t)(word - mmi_frame_words(pool, section));
    if (w >= MM_WORD_BITS) /* it moved in between */
        return false;
    group = mmi_frame_group((unsigned)w);
    return ((mm_load(&section->full) | mm_bit((unsigned)w)) & group) == group;
}

/* Free frames of a section. A snapshot. */
static uintptr_t mmi_frame_section_free(const struct mm_frame_pool *pool,
                                        const struct mm_frame_section *section)
{
    const uintptr_t *words = mmi_frame_words(pool, section);
    uintptr_t free = 0;
    unsigned w;
    for (w = 0; w < MM_WORD_BITS; w++)
        free += mm_popcount(mmi_frame_bits(section, words, w));
    return free;
}

MM_FRAME_API enum mm_status mm_frame_get_stats(struct mm_frame_pool *pool, unsigned number,
                                               struct mm_frame_stats *stats)
{
    struct mm_frame_zone *zone;
    uintptr_t managed, used, i;
    unsigned cpu;
    if (number >= pool->zone_count)
        return MM_ERR_INVALID;
    zone = &pool->zone[number];
    MM_MEMSET(stats, 0, sizeof *stats);
    stats->name = zone->name;
    managed = mm_load(&zone->managed);
    used = managed - mmi_frame_free_now(pool, number);
    stats->managed = managed;
    stats->free = managed - used;
    stats->used = used;
    stats->peak = mm_load(&zone->peak);
    stats->failures = mm_load(&zone->failures);
    if (managed != 0)
        stats->percent = (unsigned)(managed > MMI_FRAME_NONE / 100 ? used / (managed / 100)
                                                                   : used * 100 / managed);
    stats->sections = mm_load(&zone->sections) - zone->first;
    for (i = zone->first; i < zone->first + stats->sections; i++) {
        const uintptr_t owner = mm_load(&pool->owner[i]);
        stats->biased += owner < MM_CPU_MAX ? 1 : 0;
        stats->whole += mm_popcount(mmi_frame_whole(mm_load(&pool->section[i].full)));
    }
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++) {
        const struct mm_frame_cursor *cursor = &pool->cpu[cpu].cursor[number];
        /* the exception of S2 */
        stats->whole += mmi_frame_cursor_whole(pool, cursor, cpu) ? 1u : 0u;
        stats->failures += mm_load(&pool->cpu[cpu].failures[number]);
        stats->taken_away += mm_load(&pool->cpu[cpu].taken_away);
        stats->refused += mm_load(&pool->cpu[cpu].refused);
    }
    return MM_OK;
}

/* ---- Check ----------------------------------------------------------------------------------- */

/* The frames of the section that exist, as bits of word w. */
static uintptr_t mmi_frame_managed_bits(const struct mm_frame_pool *pool,
                                        const struct mm_frame_section *section, unsigned w)
{
    const struct mm_frame_span_table *table = &pool->table[pool->table_current];
    const uintptr_t number = mmi_frame_number(pool, section);
    const uintptr_t first = (number << MMI_FRAME_SECTION_SHIFT) + ((uintptr_t)w << MM_WORD_SHIFT);
    uintptr_t bits = 0, i;
    for (i = 0; i < table->count; i++) {
        const struct mm_frame_span *span = &table->span[i];
        const uintptr_t start = span->pfn + span->delta, end = span->end + span->delta;
        if (start >= first + MM_WORD_BITS || end <= first)
            continue;
        bits |= mm_mask(end - first < MM_WORD_BITS ? (unsigned)(end - first) : MM_WORD_BITS) &
                ~mm_mask(start > first ? (unsigned)(start - first) : 0);
    }
    return bits;
}

/* Whether the sections that the span names are those of its zone and place. */
static bool mmi_frame_span_sound(const struct mm_frame_pool *pool, const struct mm_frame_span *span)
{
    const struct mm_frame_zone *zone = &pool->zone[span->zone];
    uintptr_t pfn = span->pfn & ~(MMI_FRAME_SECTION - 1);
    if (span->pfn < zone->pfn || span->end > zone->end)
        return false;
    for (; pfn < span->end; pfn += MMI_FRAME_SECTION) {
        const uintptr_t number = (pfn + span->delta) >> MMI_FRAME_SECTION_SHIFT;
        if (number < zone->first || number >= zone->sections)
            return false;
        if (pool->section[number].pfn != pfn || pool->section[number].zone != span->zone)
            return false;
    }
    return true;
}

static const char *mmi_frame_check_spans(const struct mm_frame_pool *pool)
{
    const struct mm_frame_span_table *table = &pool->table[pool->table_current & 1];
    uintptr_t i;
    if (pool->table_current > 1 || table->count > pool->span_capacity)
        return "span table: more spans than it has room for";
    for (i = 0; i < table->count; i++) {
        const struct mm_frame_span *span = &table->span[i];
        if (span->zone >= pool->zone_count || span->pfn >= span->end)
            return "span: empty or of no zone";
        if (i > 0 && table->span[i - 1].end > span->pfn)
            return "spans: not in order, or overlapping";
        if (!mmi_frame_span_sound(pool, span))
            return "span: outside its zone, or its sections are of another place";
    }
    return NULL;
}

/* A cursor points to nothing, or to a word of the section that it names, which is the CPU's or
 * was. */
static bool mmi_frame_cursor_sound(const struct mm_frame_pool *pool,
                                   const struct mm_frame_cursor *cursor, unsigned cpu,
                                   unsigned zone)
{
    const struct mm_frame_section *section = cursor->section;
    uintptr_t w;
    if (section == pool->nowhere)
        return cursor->word == &pool->nothing;
    if (section < pool->section || section >= pool->section + pool->sections ||
        section->zone != zone)
        return false;
    if (*mmi_frame_owner(pool, section) != cpu)
        return cursor->word == &pool->nothing; /* C1 */
    if (cursor->word == &pool->nothing)
        return true; /* see mmi_frame_cursor_mend */
    w = (uintptr_t)(cursor->word - mmi_frame_words(pool, section));
    return w < MM_WORD_BITS && cursor->pa >> MM_PAGE_SHIFT == section->pfn + (w << MM_WORD_SHIFT);
}

static const char *mmi_frame_check_cursors(const struct mm_frame_pool *pool)
{
    unsigned cpu, z;
    if (*mmi_frame_owner(pool, pool->nowhere) != MMI_FRAME_NOBODY || pool->nothing != 0)
        return "cursor: the place for idle ones is in use";
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
        for (z = 0; z < pool->zone_count; z++)
            if (!mmi_frame_cursor_sound(pool, &pool->cpu[cpu].cursor[z], cpu, z))
                return "cursor: its word is not one of its section";
    return NULL;
}

/* The current word of the CPU that the section is biased to, or NULL. */
static const uintptr_t *mmi_frame_current_word(const struct mm_frame_pool *pool,
                                               const struct mm_frame_section *section)
{
    const struct mm_frame_cursor *cursor;
    if (*mmi_frame_owner(pool, section) >= MM_CPU_MAX)
        return NULL;
    cursor = &pool->cpu[*mmi_frame_owner(pool, section)].cursor[section->zone];
    if (cursor->section != section)
        return NULL;
    return mmi_frame_words(pool, section) +
           (((uintptr_t)(cursor->pa >> MM_PAGE_SHIFT) - section->pfn) >> MM_WORD_SHIFT); /* C1 */
}

static const char *mmi_frame_check_set(const struct mm_frame_pool *pool, uintptr_t number,
                                       unsigned slot, unsigned kind)
{
    const uintptr_t *set = mmi_frame_set(pool, slot, kind);
    unsigned level;
    for (level = 0; level < pool->levels; level++, number >>= MM_WORD_SHIFT)
        if ((set[pool->level_at[level] + (number >> MM_WORD_SHIFT)] &
             mm_bit((unsigned)(number & (MM_WORD_BITS - 1)))) == 0)
            return level == 0 ? "set: a section with free frames is missing"
                              : "H1: a level disagrees";
    return NULL;
}

/* A section with free frames is in its owner's sets. */
static const char *mmi_frame_check_sets(const struct mm_frame_pool *pool, uintptr_t number,
                                        unsigned slot, uintptr_t free)
{
    const char *what = free != 0 ? mmi_frame_check_set(pool, number, slot, MMI_FRAME_AVAIL) : NULL;
    if (what == NULL && mmi_frame_whole(pool->section[number].full) != 0)
        what = mmi_frame_check_set(pool, number, slot, MMI_FRAME_WHOLE);
    return what;
}

/* Free frames of free bits `bits` of the word must have no references. */
static bool mmi_frame_check_refs(const struct mm_frame_pool *pool, uintptr_t index, uintptr_t bits)
{
    for (; pool->desc != NULL && bits != 0; bits &= bits - 1)
        if (pool->desc[index + mm_ctz(bits)].refs != 0)
            return false;
    return true;
}

/* Invariants of word w of a section; `current`: the exception of S2. */
static const char *mmi_frame_check_word(const struct mm_frame_pool *pool,
                                        const struct mm_frame_section *section, unsigned w,
                                        const uintptr_t *current)
{
    const uintptr_t *words = mmi_frame_words(pool, section);
    const uintptr_t exists = mmi_frame_managed_bits(pool, section, w), all = ~(uintptr_t)0;
    const uintptr_t bits = mmi_frame_bits(section, words, w);
    const bool full = (section->full & mm_bit(w)) != 0;
    if ((section->huge & mmi_frame_group(w)) != 0) {
        if (exists != all)
            return "bitmap: a frame that does not exist is in a huge block";
        return ((section->some | section->full) & mm_bit(w)) != 0
                   ? "S3: word of a huge block in `some` or `full`"
                   : NULL;
    }
    if ((bits & ~exists) != 0)
        return "bitmap: a frame that does not exist is free";
    if (words[w] != bits)
        return "S1: free frame in a word that is not in `some`";
    if (full != (bits == all) && &words[w] != current)
        return full ? "S2: word in `full` is not wholly free"
                    : "S2: wholly free word is not in `full`";
    if (full && bits != all)
        return "S2: the current word is in `full`";
    return NULL;
}

/* The words of a section; *managed and *free: how many frames exist and are free. */
static const char *mmi_frame_check_words(const struct mm_frame_pool *pool,
                                         const struct mm_frame_section *section, uintptr_t *managed,
                                         uintptr_t *free)
{
    const uintptr_t first = mmi_frame_number(pool, section) << MMI_FRAME_SECTION_SHIFT;
    const char *what = NULL;
    unsigned w;
    for (w = 0; w < MM_WORD_BITS && what == NULL; w++) {
        const uintptr_t bits = mmi_frame_bits(section, mmi_frame_words(pool, section), w);
        *managed += mm_popcount(mmi_frame_managed_bits(pool, section, w));
        *free += mm_popcount(bits);
        what = mmi_frame_check_word(pool, section, w, mmi_frame_current_word(pool, section));
        if (what == NULL && !mmi_frame_check_refs(pool, first + w * MM_WORD_BITS, bits))
            what = "descriptor: a free frame has references";
    }
    return what;
}

static const char *mmi_frame_check_section(const struct mm_frame_pool *pool,
                                           const struct mm_frame_section *section, uintptr_t *free)
{
    const uintptr_t number = mmi_frame_number(pool, section), owner = pool->owner[number];
    uintptr_t managed = 0, sum = 0;
    const char *what;
    if (owner > MM_CPU_MAX)
        return "section: bad owner, or left locked";
    if ((section->huge & ~(~(uintptr_t)0 / mm_mask(MMI_FRAME_GROUP))) != 0)
        return "S3: huge bit inside a block";
    what = mmi_frame_check_words(pool, section, &managed, &sum);
    if (what != NULL)
        return what;
    *free += sum;
    if (managed != section->managed)
        return "section: wrong count of managed frames";
    if (owner == MMI_FRAME_NOBODY && section->free != sum)
        return "S5: wrong count of free frames";
    return mmi_frame_check_sets(pool, number, (unsigned)owner, sum);
}

static const char *mmi_frame_check_zone(struct mm_frame_pool *pool, unsigned number)
{
    const struct mm_frame_zone *zone = &pool->zone[number];
    uintptr_t free = 0, managed = 0, i;
    if (zone->first > zone->sections || zone->sections > zone->last || zone->last > pool->sections)
        return "zone: bad range of sections";
    for (i = zone->first; i < zone->sections; i++) {
        const char *what = pool->section[i].zone != number
                               ? "section: wrong zone"
                               : mmi_frame_check_section(pool, &pool->section[i], &free);
        if (what != NULL)
            return what;
        managed += pool->section[i].managed;
    }
    if (managed != zone->managed)
        return "zone: wrong count of managed frames";
    if (mmi_frame_used(pool, number) != managed - free)
        return "zone: counters disagree with the bitmap";
    return NULL;
}

/* What is wrong with the structure, or NULL; *used: frames in use. */
static const char *mmi_frame_check_all(struct mm_frame_pool *pool, uint64_t *used)
{
    const char *wrong;
    unsigned z;
    if (pool->zone_count > MM_FRAME_ZONE_MAX)
        return "pool: too many zones";
    wrong = mmi_frame_check_spans(pool);
    if (wrong == NULL)
        wrong = mmi_frame_check_cursors(pool);
    for (z = 0; z < pool->zone_count && wrong == NULL; z++) {
        wrong = mmi_frame_check_zone(pool, z);
        *used += mmi_frame_used(pool, z);
    }
    return wrong;
}

MM_FRAME_API enum mm_frame_health mm_frame_check(struct mm_frame_pool *pool, uint64_t expected_used,
                                                 const char **what)
{
    uint64_t used = 0;
    const char *wrong = mmi_frame_check_all(pool, &used);
    enum mm_frame_health health = wrong == NULL ? MM_FRAME_HEALTHY : MM_FRAME_CORRUPT;
    if (wrong == NULL && expected_used != UINT64_MAX && used != expected_used) {
        health = MM_FRAME_LEAK;
        wrong = used > expected_used ? "more frames in use than expected"
                                     : "fewer frames in use than expected";
    }
    if (what != NULL)
        *what = wrong;
    return health;
}

/* ---- Dump ------------------------------------------------------------------------------------ */

struct mmi_frame_line {
    char text[128];
    unsigned length;
};

static void mmi_frame_text(struct mmi_frame_line *line, const char *text)
{
    while (*text != '\0' && line->length + 1 < sizeof line->text)
        line->text[line->length++] = *text++;
    line->text[line->length] = '\0';
}

static void mmi_frame_digits(struct mmi_frame_line *line, uintptr_t number)
{
    char digits[24];
    unsigned at = sizeof digits - 1;
    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    mmi_frame_text(line, &digits[at]);
}

static void mmi_frame_hex(struct mmi_frame_line *line, mm_pa_t number)
{
    char digits[17];
    unsigned i, skip = 0;
    for (i = 0; i < 16; i++) {
        digits[15 - i] = "0123456789abcdef"[(unsigned)(number & 15)];
        number >>= 4;
    }
    digits[16] = '\0';
    while (skip < 15 && digits[skip] == '0')
        skip++;
    mmi_frame_text(line, "0x");
    mmi_frame_text(line, &digits[skip]);
}

static void mmi_frame_field(struct mmi_frame_line *line, const char *name, uint64_t number)
{
    mmi_frame_text(line, name);
    mmi_frame_digits(line, (uintptr_t)number);
}

static void mmi_frame_dump_zone(struct mm_frame_pool *pool, unsigned z, struct mmi_frame_line *line)
{
    struct mm_frame_stats stats;
    (void)mm_frame_get_stats(pool, z, &stats);
    line->length = 0;
    mmi_frame_text(line, "zone ");
    mmi_frame_text(line, stats.name);
    mmi_frame_field(line, ": frames ", stats.managed);
    mmi_frame_field(line, " free ", stats.free);
    mmi_frame_field(line, " used ", stats.used);
    mmi_frame_field(line, " (", stats.percent);
    mmi_frame_field(line, "%) peak ", stats.peak);
    mmi_frame_field(line, " whole ", stats.whole);
    mmi_frame_field(line, " sections ", stats.sections);
    mmi_frame_field(line, " biased ", stats.biased);
    mmi_frame_field(line, " failures ", stats.failures);
}

/* The lowest span that ends behind `pfn`, not pinned before. */
static bool mmi_frame_next_span_now(struct mm_frame_pool *pool, uint64_t pfn,
                                    struct mm_frame_span *span)
{
    MM_CPU_STATE_T state;
    unsigned cpu;
    bool found;
    MM_CPU_PIN(state);
    cpu = MM_CPU_ID();
    found = mmi_frame_next_span(pool, cpu < MM_CPU_MAX ? cpu : MMI_FRAME_NOBODY, MMI_FRAME_ANY_ZONE,
                                pfn, span);
    MM_CPU_UNPIN(state);
    return found;
}

MM_FRAME_API void mm_frame_dump(struct mm_frame_pool *pool,
                                void (*print)(void *ctx, const char *line), void *ctx)
{
    struct mmi_frame_line line;
    struct mm_frame_span span;
    uint64_t pfn = 0;
    uintptr_t i;
    unsigned z;
    for (z = 0; z < pool->zone_count; z++) {
        mmi_frame_dump_zone(pool, z, &line);
        print(ctx, line.text);
    }
    while (mmi_frame_next_span_now(pool, pfn, &span)) {
        line.length = 0;
        mmi_frame_text(&line, "span ");
        mmi_frame_hex(&line, (mm_pa_t)span.pfn << MM_PAGE_SHIFT);
        mmi_frame_text(&line, " - ");
        mmi_frame_hex(&line, (mm_pa_t)span.end << MM_PAGE_SHIFT);
        mmi_frame_text(&line, " ");
        mmi_frame_text(&line, pool->zone[span.zone].name);
        print(ctx, line.text);
        pfn = span.end;
    }
    for (i = 0; i < pool->sections; i++) {
        const struct mm_frame_section *section = &pool->section[i];
        uintptr_t owner;
        if (section->managed == 0)
            continue;
        line.length = 0;
        mmi_frame_text(&line, "section ");
        mmi_frame_hex(&line, (mm_pa_t)section->pfn << MM_PAGE_SHIFT);
        mmi_frame_field(&line, " frames ", section->managed);
        mmi_frame_field(&line, " free ", mmi_frame_section_free(pool, section));
        owner = mm_load(mmi_frame_owner(pool, section));
        if (owner < MM_CPU_MAX)
            mmi_frame_field(&line, " cpu ", owner);
        else
            mmi_frame_text(&line, owner == MMI_FRAME_NOBODY ? " nobody's" : " locked");
        mmi_frame_field(&line, " whole ", mm_popcount(mmi_frame_whole(mm_load(&section->full))));
        print(ctx, line.text);
    }
}

#ifdef __cplusplus
}
#endif

#endif /* MM_FRAME_IMPLEMENTATION */

/* Zero-Clause BSD (0BSD)
 *
 * Permission to use, copy, modify, and/or distribute this software for any purpose with or without
 * fee is hereby granted.
 *
 * THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS
 * SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE
 * AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
 * WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
 * NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE
 * OF THIS SOFTWARE. */
