/* mm_buddy.h - v0.1.0 - power-of-two block allocator over any arena - 0BSD
 *
 *   Hands out blocks of 2^k smallest blocks from a range of addresses: page frames, guest memory,
 *   a device's memory, a heap. It keeps its metadata apart and never touches what it manages.
 *
 *   In exactly one C or C++ file:
 *       #define MM_BUDDY_IMPLEMENTATION
 *       #include "mm_buddy.h"
 *   In every other file include it without the macro. The latest text of the licence (0BSD) stands
 *   at the end of this file.
 *
 * CONTENTS
 *
 *   Quick start . Hooks and options . Concepts . Guarantees . Limits       (this comment)
 *   Core block . Types . Set-up . Allocation . Release . Ranges . Types by page block . Compaction
 *   . Reporting . Watermarks . Per-CPU lists . Zone lists . Heap . Questions . Hot paths
 *   . Implementation . Licence
 *
 * QUICK START
 *
 *   --- quick start (quickstart.c) ---
 *   #define MM_BUDDY_IMPLEMENTATION
 *   #include "mm_buddy.h"
 *
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *
 *   int main(void)
 *   {
 *       struct mm_buddy_config config;
 *       struct mm_buddy frames; // 64 MiB of frames from 1 GiB up: they need not even exist
 *       mm_pa_t page, run, huge;
 *       void *meta;
 *
 *       mm_buddy_config_init(&config, 0x40000000, 64 << 20, 12, 10);
 *       meta = malloc(mm_buddy_meta_bytes(&config));
 *       if (meta == NULL || mm_buddy_init(&frames, &config, meta,
 *                                         mm_buddy_meta_bytes(&config)) != MM_OK)
 *           return 1;
 *
 *       page = mm_buddy_alloc(&frames, 0, MM_BUDDY_MOVABLE);            // 4 KiB
 *       huge = mm_buddy_alloc(&frames, 9, MM_BUDDY_UNMOVABLE);          // 2 MiB, aligned to 2 MiB
 *       run = mm_buddy_alloc_exact(&frames, 5 * 4096, MM_BUDDY_MOVABLE); // five frames, not eight
 *       if (page == MM_PA_NONE || huge == MM_PA_NONE || run == MM_PA_NONE)
 *           return 1;
 *       printf("huge block at %#llx\n", (unsigned long long)huge);
 *
 *       if (mm_buddy_free(&frames, run) != MM_OK || mm_buddy_free(&frames, huge) != MM_OK ||
 *           mm_buddy_free(&frames, page) != MM_OK)
 *           return 1;
 *       if (mm_buddy_free(&frames, page) != MM_ERR_INVALID) // a double free is refused
 *           return 1;
 *       return mm_buddy_check(&frames) == MM_BUDDY_HEALTHY ? 0 : 1;
 *   }
 *   --- end ---
 *
 * HOOKS AND OPTIONS (define before the include; all are optional)
 *
 *   What the hooks expand to stands in functions with locals of their own: it calls functions whose
 *   names have a prefix (not `cpu()`). A lock of your own that waits has to answer MM_FENCE_CPUS.
 *
 *   MM_BUDDY_IMPLEMENTATION   emit the implementation here
 *   MM_BUDDY_STATIC           all functions are static: for use inside one file
 *   MM_BUDDY_LOCK_T, _LOCK_INIT(l), _LOCK(l, s), _UNLOCK(l, s), _LOCK_STATE_T
 *                             this header's locks, in place of MM_LOCK and so on: all or none
 *   MM_BUDDY_CPU_ID()         number of this CPU, in place of MM_CPU_ID()
 *   MM_BUDDY_CPU_STATE_T, _CPU_PIN(s), _CPU_UNPIN(s)
 *                             in place of MM_CPU_PIN and so on: from pin to unpin the thread stays
 *                             on its CPU, and no interrupt there enters the allocator
 *   MM_BUDDY_MEMSET, _MEMCPY, MM_BUDDY_ASSERT(x), MM_BUDDY_DEBUG, MM_BUDDY_REPORT(report)
 *                             in place of MM_MEMSET and so on
 *   MM_BUDDY_CPU_SLOTS        slots of a per-CPU list of order 0 (128)
 *   MM_BUDDY_CACHE_LINE       bytes that two CPUs should not share (64)
 *   MM_FENCE_CPUS()           a barrier on every CPU; with it the hot paths need no locked
 *                             instruction (see "Biased ownership" in the core block). Called with
 *                             the CPU pinned: while it waits it must answer another CPU's request
 *   MM_CPU_RELAX()            in each turn of a wait (pause, yield); in a kernel that waits with
 *                             interrupts off let it answer requests of MM_FENCE_CPUS()
 *
 *   What hooks expand to stands in inline functions of external linkage too: a function of yours
 *   there is not `static` in C (compilers warn), but a plain one, or extern inline with gnu_inline,
 *   or all is MM_BUDDY_STATIC.
 *
 *   Hooks at run time stand in struct mm_buddy_hooks: zero-fill, migration, pressure. They are
 *   called with no lock held, and may call the arena again.
 *
 * CONCEPTS
 *
 *   Smallest block   2^min_shift bytes. All sizes are counted in it. A block of order k is 2^k
 *                    smallest blocks, and its address is a multiple of its size, whatever the
 *                    arena's base.
 *   State byte       one byte for each smallest block. It is set at the head of each allocated
 *                    block and tells its order, so that an address alone can be freed, and that
 *                    what is not a head (free, inside a block, outside) is refused.
 *   Page block       2^pb_order smallest blocks (512 by default). Each has a bitmap of its free
 *                    smallest blocks, a count and a migration type. Buddies merge by themselves: a
 *                    block of order k is free when its 2^k bits, aligned, are all set. For each
 *                    migration type and order an index tells which page blocks may have such a
 *                    block; the lowest address is served first, which heals large blocks. Wholly
 *                    free page blocks leave the bitmaps and stand in one bitmap of their own,
 *                    where orders from pb_order up are runs of bits in the same manner.
 *   Region           a power of two of page blocks with a lock and indices of its own. A CPU takes
 *                    from its home region until that is used up, and claims the next from a place
 *                    on that differs by CPU, so that CPUs seldom meet.
 *   Per-CPU lists    blocks of orders 0 to 3 and of pb_order wait in arrays by CPU. Allocations
 *                    pop from lists that are refilled from the bitmaps; frees of orders 0 to 3 are
 *                    gathered in lists of their own. Those whose page blocks are nearly used up
 *                    are handed out again; the others go back to the bitmaps in batches, sorted
 *                    by region, so that large blocks heal. When memory runs short, every CPU's
 *                    lists are emptied before an allocation fails.
 *   Migration type   unmovable, reclaimable, movable; a page block takes the type of its first
 *                    user and keeps kinds of use apart. When a type has no page block left it
 *                    takes from another's, and takes over the page block when half of it is free.
 *                    CMA page blocks, set by the caller, serve movable requests when nothing else
 *                    is left, and contiguous ranges.
 *   Zone list        arenas in order of preference (say Normal, DMA32, DMA), each with watermarks.
 *
 * GUARANTEES
 *
 *   Errors     A call that fails leaves blocks and free memory as they were (free blocks may have
 *              moved between per-CPU lists and the bitmaps). Misuse is refused in every build:
 *              wild, misaligned and double frees, sizes that overflow. Two CPUs that free the same
 *              block in the same instant may both see success; the second free is then dropped and
 *              counted as soon as it reaches the bitmaps, unless the block was handed out between.
 *   Success    An allocation succeeds whenever a fitting free block exists that its type and the
 *              watermark allow, also one that first has to be merged out of other CPUs' lists.
 *   Time       Hot paths: a few instructions on the CPU's own lines, amortised over batches. Orders
 *              below pb_order: O(regions + page blocks of a region / 64^2) worst case, each lock
 *              held for O(batch). Orders above: O(page blocks / 64). An allocation that fails
 *              because all is in use: O(1).
 *   Memory     about 1.15 bytes for each smallest block with the default page block, and
 *              about 32 * MM_BUDDY_CPU_SLOTS bytes a CPU for the lists, which are off in arenas too
 *              small to pay for them. mm_buddy_meta_bytes tells it exactly.
 *   Stack      below 2 KiB, without recursion; with more than 128 MM_BUDDY_CPU_SLOTS eight bytes
 *              more for each.
 *   Threads    Every function may be called from any CPU at any time, but for set-up functions and
 *              where stated otherwise. Nothing is global.
 *
 * LIMITS
 *
 *   Smallest block 2^4 to 2^30 bytes; 2^32 - 2^27 smallest blocks in an arena's span; 32 orders (0
 *   to 31); MM_WORD_BITS regions; a block is at most 2^63 bytes.
 */
#ifndef MM_BUDDY_H
#define MM_BUDDY_H

#define MM_BUDDY_VERSION_MAJOR 0
#define MM_BUDDY_VERSION_MINOR 1
#define MM_BUDDY_VERSION_PATCH 0

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Configuration ------------------------------------------------------------------------- */

#ifdef MM_BUDDY_LOCK
#if !defined(MM_BUDDY_LOCK_T) || !defined(MM_BUDDY_LOCK_STATE_T) || \
    !defined(MM_BUDDY_LOCK_INIT) || !defined(MM_BUDDY_UNLOCK)
#error "define all of MM_BUDDY_LOCK_T, _LOCK_STATE_T, _LOCK_INIT, _LOCK and _UNLOCK, or none"
#endif
#else
#define MM_BUDDY_LOCK_T       MM_LOCK_T
#define MM_BUDDY_LOCK_STATE_T MM_LOCK_STATE_T
#define MM_BUDDY_LOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_BUDDY_LOCK(l, s)   MM_LOCK(l, s)
#define MM_BUDDY_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif

#ifdef MM_BUDDY_CPU_PIN
#if !defined(MM_BUDDY_CPU_UNPIN) || !defined(MM_BUDDY_CPU_STATE_T)
#error "define all of MM_BUDDY_CPU_STATE_T, MM_BUDDY_CPU_PIN and MM_BUDDY_CPU_UNPIN, or none"
#endif
#else
#define MM_BUDDY_CPU_STATE_T  MM_CPU_STATE_T
#define MM_BUDDY_CPU_PIN(s)   MM_CPU_PIN(s)
#define MM_BUDDY_CPU_UNPIN(s) MM_CPU_UNPIN(s)
#endif
#ifndef MM_BUDDY_CPU_ID
#define MM_BUDDY_CPU_ID() MM_CPU_ID()
#endif
#ifndef MM_BUDDY_MEMSET
#define MM_BUDDY_MEMSET(to, byte, size) MM_MEMSET(to, byte, size)
#endif
#ifndef MM_BUDDY_MEMCPY
#define MM_BUDDY_MEMCPY(to, from, size) MM_MEMCPY(to, from, size)
#endif
#ifndef MM_BUDDY_ASSERT
#define MM_BUDDY_ASSERT(x) MM_ASSERT(x)
#endif
#ifndef MM_BUDDY_DEBUG
#define MM_BUDDY_DEBUG MM_DEBUG
#endif
#ifndef MM_BUDDY_REPORT
#define MM_BUDDY_REPORT(report) MM_REPORT(report)
#endif

#ifndef MM_BUDDY_CPU_SLOTS
#define MM_BUDDY_CPU_SLOTS 128 /* slots of a per-CPU list of order 0: 8 to 1024, a power of two */
#endif
#if MM_BUDDY_CPU_SLOTS < 8 || MM_BUDDY_CPU_SLOTS > 1024 || \
    (MM_BUDDY_CPU_SLOTS & (MM_BUDDY_CPU_SLOTS - 1)) != 0
#error "MM_BUDDY_CPU_SLOTS is a power of two from 8 to 1024"
#endif
#ifndef MM_BUDDY_CACHE_LINE
#define MM_BUDDY_CACHE_LINE 64 /* bytes; a power of two */
#endif

#define MM_BUDDY_ORDERS        32 /* orders 0 to 31 */
#define MM_BUDDY_REGIONS_MAX   64 /* most shards of an arena */
#define MM_BUDDY_CACHED_ORDERS 4u /* orders 0 to 3 have per-CPU lists, and so has pb_order */
#define MM_BUDDY_PB_ORDER      9  /* page block, if the configuration leaves it open */
#define MM_BUDDY_PB_ORDER_MAX  13

#ifdef MM_BUDDY_STATIC
#ifndef MM_BUDDY_IMPLEMENTATION
#define MM_BUDDY_IMPLEMENTATION /* static functions are of use only where they are defined */
#endif
#define MM_BUDDY_API static __attribute__((unused))
#else
#define MM_BUDDY_API
#endif

#ifdef MM_BUDDY_STATIC
#define MM_BUDDY_INLINE  static inline __attribute__((unused))
#define MMI_BUDDY_INLINE static inline __attribute__((always_inline))
#else
#define MM_BUDDY_INLINE  inline /* the implementation has the external definition */
#define MMI_BUDDY_INLINE MM_CORE_INLINE
#endif

/* ---- Types --------------------------------------------------------------------------------- */

/* What a page block is used for. Kinds that are kept apart leave large blocks to be had. */
enum mm_buddy_type {
    MM_BUDDY_UNMOVABLE = 0,   /* stays where it is: kernel objects, tables */
    MM_BUDDY_RECLAIMABLE = 1, /* can be dropped: caches of files and names */
    MM_BUDDY_MOVABLE = 2,     /* can be copied elsewhere: the memory of programs */
    MM_BUDDY_CMA = 3          /* movable blocks only, so that ranges can be carved out */
};
#define MM_BUDDY_TYPES 4u

/* Flags of an allocation: one of the first three types, and any of these. */
#define MM_BUDDY_URGENT   0x04u /* may dip below the min watermark */
#define MM_BUDDY_ZERO     0x08u /* the block is zero-filled through the hook `zero` */
#define MM_BUDDY_NOCACHE  0x10u /* passes by the per-CPU lists */
#define MM_BUDDY_KEEP_LOW 0x20u /* fails rather than go below the low watermark */
#define MM_BUDDY_FLAGS    0x3fu /* all of them; other bits are ignored but where an error is told */

struct mm_buddy;

/* What the caller lends to an arena. Every member may be NULL; all are called without locks. */
struct mm_buddy_hooks {
    void *ctx;
    /* Fills `bytes` bytes from `pa` with zeros, for MM_BUDDY_ZERO. */
    void (*zero)(void *ctx, mm_pa_t pa, uint64_t bytes);
    /* Moves the content of an allocated block to another of the same size and repoints whoever
     * refers to it: from now on `to` is allocated in place of `from`. MM_OK when done; any other
     * status when the block must stay: also where `to` is not aligned as its owner asked for
     * (mm_buddy_alloc_aligned, _contig). The owner must not free `from` meanwhile: where it could,
     * the hook has to arbitrate. */
    enum mm_status (*migrate)(void *ctx, mm_pa_t from, mm_pa_t to, uint64_t bytes);
    /* Memory is short: an allocation of `order` found none above its watermark. True if something
     * was freed, and another try makes sense (each allocation tries again once). */
    bool (*pressure)(void *ctx, struct mm_buddy *b, unsigned order);
};

/* What an arena is made of; mm_buddy_config_init fills it with defaults. */
struct mm_buddy_config {
    mm_pa_t base;       /* first byte; if not aligned, the first whole smallest block counts */
    uint64_t bytes;     /* size at the start, any (a partial smallest block is left out) */
    uint64_t span;      /* bytes from base that the arena may grow over; 0: `bytes` */
    unsigned min_shift; /* log2 of the smallest block's bytes: 4 to 30 */
    unsigned max_order; /* largest order: 0 to 31 */
    unsigned pb_order;  /* page block: 6 to 13; 0: MM_BUDDY_PB_ORDER */
    unsigned regions;   /* shards: 1 to 64, rounded to what the span gives; 0: by CPUs */
    bool cpu_lists;     /* per-CPU lists; false also saves their memory */
    uintptr_t pointer_offset; /* heap face and metadata inside: pointer = address + this */
    const struct mm_buddy_hooks *hooks; /* kept, not copied; NULL: none */
};

/* A block as mm_buddy_find and mm_buddy_walk tell it. */
enum mm_buddy_state {
    MM_BUDDY_STATE_FREE,      /* a largest free block, or a piece of free memory */
    MM_BUDDY_STATE_ALLOCATED, /* a block handed out; exact ones in one piece */
    MM_BUDDY_STATE_RESERVED,  /* taken by mm_buddy_reserve */
    MM_BUDDY_STATE_CACHED,    /* in a per-CPU list, or on its way */
    MM_BUDDY_STATE_ABSENT     /* in the span, but not (any more) part of the arena */
};
struct mm_buddy_block {
    mm_pa_t pa;     /* first byte */
    uint64_t bytes; /* size */
    enum mm_buddy_state state;
    enum mm_buddy_type type; /* of its first page block */
    uintptr_t tag;           /* owner tag; 0 if none or tags are off */
};

/* Result of mm_buddy_check. */
enum mm_buddy_health {
    MM_BUDDY_HEALTHY = 0,
    MM_BUDDY_LEAK = 1,   /* consistent, but smallest blocks are neither free nor in any block, or
                          * out of use without mm_buddy_reserve */
    MM_BUDDY_CORRUPT = 2 /* an invariant is broken */
};

/* Where free memory stands against the watermarks. */
enum mm_buddy_level {
    MM_BUDDY_LEVEL_HIGH = 0, /* at or above high */
    MM_BUDDY_LEVEL_OK = 1,   /* at or above low */
    MM_BUDDY_LEVEL_LOW = 2,  /* below low */
    MM_BUDDY_LEVEL_MIN = 3   /* below min: only urgent requests are served */
};

/* Statistics. Sizes in bytes, and as of no one instant where other CPUs are at work. */
struct mm_buddy_stats {
    uint64_t total;                         /* present in the arena */
    uint64_t free;                          /* in the bitmaps */
    uint64_t cached;                        /* in per-CPU lists */
    uint64_t reserved;                      /* by mm_buddy_reserve */
    uint64_t used;                          /* the rest: handed out */
    uint64_t free_by_type[MM_BUDDY_TYPES];  /* of `free`, by the page block's type */
    uintptr_t free_blocks[MM_BUDDY_ORDERS]; /* largest free blocks by order, merged ones once */
    uintptr_t failures;                     /* allocations refused for want of memory */
    uintptr_t refills;                      /* takes from the bitmaps, single or in batches */
    uintptr_t flushes;                      /* batches given back */
    uintptr_t drains;                       /* times that all lists were emptied for want */
    uintptr_t fallbacks;                    /* takes out of another type's page block */
    uintptr_t steals;                       /* page blocks taken over by another type */
    uintptr_t moved;                        /* blocks migrated */
    uintptr_t reported;                     /* blocks told to mm_buddy_report's callback */
    uintptr_t misuse;                       /* refused frees and the like */
};

/* One line of a leak report: what the blocks with one tag hold. */
struct mm_buddy_owner {
    uintptr_t tag;
    uintptr_t blocks;
    uint64_t bytes;
};

struct mmi_buddy_pb;     /* what is known of a page block; private */
struct mmi_buddy_region; /* a shard; private */

/* Stacks of a per-CPU cache: blocks to hand out by order and type, blocks of a whole page block
 * (handed out and taken in at one end), and freed ones by order. Private. */
#define MMI_BUDDY_STACK_HUGE  (MM_BUDDY_CACHED_ORDERS * 3u)
#define MMI_BUDDY_STACK_FREED (MMI_BUDDY_STACK_HUGE + 1u)
#define MMI_BUDDY_STACKS      (MMI_BUDDY_STACK_FREED + MM_BUDDY_CACHED_ORDERS)
#define MMI_BUDDY_HUGE_SLOTS  32u
#define MMI_BUDDY_SLOTS       (MM_BUDDY_CPU_SLOTS * 15u / 2u + MMI_BUDDY_HUGE_SLOTS)

/* The lists of one CPU. Private.
 *
 * C1  slot[pos[s]] to slot[end[s] - 1] are the blocks in stack s, the next one to hand out first
 * C2  a block in a stack has a clear state byte and clear bits: it belongs to nobody else
 * C3  floor[s] is where stack s is full; end[s] while the cache is not `active`, so that the first
 *     push takes the slow path and says so, and always in stacks that only hand out; end[s] never
 *     changes. A cache that is not `active` is empty
 * C4  all but the first words is touched only by who has locked the owner word, or by its CPU in a
 *     busy section in which the owner word names it */
struct mmi_buddy_cpu {
    uintptr_t busy;
    uintptr_t owner;
    uintptr_t active;
    uintptr_t home; /* region to take from */
    uintptr_t failures;
    uint16_t pos[MMI_BUDDY_STACKS];
    uint16_t end[MMI_BUDDY_STACKS];
    uint16_t floor[MMI_BUDDY_STACKS];
    uint32_t slot[MMI_BUDDY_SLOTS];
} __attribute__((aligned(MM_BUDDY_CACHE_LINE)));

/* An arena. The members are private.
 *
 * Smallest blocks are numbered from `base`, the arena's first address rounded down to a page block.
 *
 * I1  state[n] is a head (kinds 1 to 6) exactly where an allocated or reserved block or piece
 *     starts; one of order k starts at a multiple of 2^k smallest blocks as an address
 * I2  no bit of a bitmap is set inside an allocated, reserved or cached block, nor for an absent
 *     smallest block
 * I3  pb.free is the number of bits set in the page block's bitmap. If the page block is wholly
 *     free and not isolated, pb.hint is WHOLE, no bit is set, and it stands in its region's set of
 *     whole page blocks (one set for type CMA, one for the others)
 * I4  else the orders from pb.hint up have no free block in the bitmap, and the page block stands
 *     in its type's sets of the orders 0 to pb.hint - 1 (in none while isolated)
 * I5  region.free is the number of free smallest blocks, region.whole that of whole page blocks;
 *     where these are not 0 the region's bit is set in `some` and in `wholes`
 * I6  all but state bytes of blocks that somebody holds is changed only under the region's lock
 * I7  the byte MARK at a granule's head means: free ever since it was reported */
struct mm_buddy {
    mm_pa_t base;   /* address of number 0 */
    uint8_t *state; /* a byte for each number */
    struct mmi_buddy_cpu *cpu;
    struct mmi_buddy_pb *pb;
    uint32_t units; /* numbers in the span */
    uint32_t cpus;  /* CPUs with lists: MM_CPU_MAX or 0 */
    uint32_t pb_order;
    uint32_t min_shift;
    uint32_t max_order;
    uint32_t first;   /* lowest number of the span: below it the first page block is filled up */
    uint32_t pbs;     /* page blocks in the span */
    uint32_t skew;    /* number 0's, counted from address 0, modulo 2^32 */
    uint32_t pb_skew; /* page blocks of region 0 that lie below number 0 */
    uint32_t region_shift; /* log2 of page blocks in a region */
    uint32_t regions;
    uint32_t set_words;   /* words of a set, summary and all */
    uint32_t set_summary; /* words of a set's summary */
    uintptr_t *bits;      /* free smallest blocks */
    struct mmi_buddy_region *region;
    const struct mm_buddy_hooks *hooks;
    uintptr_t *tags;
    uintptr_t pointer_offset;
    uintptr_t mark[3];                /* watermarks min, low, high in smallest blocks */
    uintptr_t total, reserved;        /* smallest blocks present, and of them reserved */
    uintptr_t report;                 /* order of a reporting granule + 1; 0: off */
    unsigned report_order;            /* of the smallest blocks reported; MM_BUDDY_ORDERS: off */
    uintptr_t batch, high, huge_high; /* per-CPU lists */
    uintptr_t failures, drains, moved, told, misuse;
    uintptr_t some, wholes; /* I5 */
    uintptr_t active;       /* CPUs whose lists are in use */
    /* Of reserve, release, grow, shrink and set_lists; taken before those of regions. */
    MM_BUDDY_LOCK_T lock;
};

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* Fills a configuration with defaults: `bytes` bytes from `base`, smallest block of 2^min_shift
 * bytes, orders 0 to `max_order`; page blocks of 2^9 smallest blocks, regions by the number of
 * CPUs, per-CPU lists where the arena is large enough, no room to grow, no hooks, pointers equal
 * to addresses. Cannot fail; mm_buddy_init judges the values. O(1), no locking. */
MM_BUDDY_API void mm_buddy_config_init(struct mm_buddy_config *config, mm_pa_t base, uint64_t bytes,
                                       unsigned min_shift, unsigned max_order);

/* Bytes of metadata that an arena of this configuration needs, at any alignment of its memory; 0 if
 * the configuration is not valid (see mm_buddy_init) or needs more than SIZE_MAX. O(1), no
 * locking. */
MM_BUDDY_API size_t mm_buddy_meta_bytes(const struct mm_buddy_config *config);

/* Makes an arena whose metadata lies in memory of the caller.
 *
 *   b            the arena; its content does not matter
 *   config       not needed afterwards (the hooks are)
 *   meta         metadata memory, any content and alignment; the arena's until it is given up
 *   meta_bytes   its size, at least mm_buddy_meta_bytes(config)
 *
 * Returns MM_OK; MM_ERR_INVALID for a NULL pointer, a member of the configuration out of its range,
 * a span below `bytes` or one that wraps around or holds no whole smallest block; MM_ERR_LIMIT for
 * more smallest blocks than the limit; MM_ERR_NOMEM if meta_bytes is too small. On an error nothing
 * was written. Everything is free at first. O(metadata). Set-up: no other call may run. */
MM_BUDDY_API enum mm_status mm_buddy_init(struct mm_buddy *b, const struct mm_buddy_config *config,
                                          void *meta, size_t meta_bytes);

/* Makes an arena that keeps its metadata at its own start. The bytes are written at address +
 * config->pointer_offset; they count as absent from the arena.
 *
 * Returns as mm_buddy_init; MM_ERR_NOMEM if the arena has no room for its metadata and one smallest
 * block. O(metadata). Set-up: no other call may run. */
MM_BUDDY_API enum mm_status mm_buddy_init_inside(struct mm_buddy *b,
                                                 const struct mm_buddy_config *config);

/* Adds memory to the arena: any range within the span that is not yet part of it, at its end or in
 * a gap. Partial smallest blocks at the ends are left out.
 *
 * Returns MM_OK; MM_ERR_INVALID if the range has no whole smallest block or leaves the span;
 * MM_ERR_EXISTS if a part of it belongs to the arena already; nothing changed then.
 * O(bytes / smallest block). Takes the locks of the regions touched; one grow or shrink at a
 * time. */
MM_BUDDY_API enum mm_status mm_buddy_grow(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes);

/* Takes memory out of the arena: any range that is wholly free, at its end or elsewhere. `pa` and
 * `bytes` are multiples of the smallest block. Blocks in per-CPU lists go back first. To empty a
 * range of movable blocks use mm_buddy_alloc_range and mm_buddy_free around it.
 *
 * Returns MM_OK; MM_ERR_ALIGN; MM_ERR_INVALID if the range is empty or leaves the span;
 * MM_ERR_NOENT if a part of it is absent; MM_ERR_BUSY if a part of it is in use. On an error
 * nothing changed. O(bytes / smallest block). Takes the locks of the regions touched; one grow or
 * shrink at a time. */
MM_BUDDY_API enum mm_status mm_buddy_shrink(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes);

/* ---- Allocation ------------------------------------------------------------------------------ */

/* Allocates a block.
 *
 *   order   the block has 2^order smallest blocks and is aligned to its size
 *   flags   a migration type (MM_BUDDY_UNMOVABLE, _RECLAIMABLE or _MOVABLE) | MM_BUDDY_URGENT |
 *           MM_BUDDY_ZERO | MM_BUDDY_NOCACHE | MM_BUDDY_KEEP_LOW
 *
 * Returns its address, or MM_PA_NONE: no such block is free, the watermark (min; with
 * MM_BUDDY_KEEP_LOW low; with MM_BUDDY_URGENT none) forbids it, the order exceeds the arena's
 * largest, the type is MM_BUDDY_CMA, or MM_BUDDY_ZERO was asked without a hook. Blocks in per-CPU
 * lists were taken from the watermark's point of view when they got there.
 * O(1) from the CPU's list (orders 0 to 3 and pb_order), else see "Time" above. Takes no lock from
 * the list, else locks of regions one by one. Safe from any CPU, and from interrupts where
 * MM_BUDDY_CPU_PIN and MM_BUDDY_LOCK keep them out. */
MM_BUDDY_INLINE mm_pa_t mm_buddy_alloc(struct mm_buddy *b, unsigned order, unsigned flags);

/* Order of the smallest block that holds `bytes` bytes; MM_BUDDY_ORDERS if none of this arena does,
 * or bytes is 0. O(1), no locking. */
MM_BUDDY_API unsigned mm_buddy_order(const struct mm_buddy *b, uint64_t bytes);

/* Allocates the smallest block that holds `bytes` bytes: mm_buddy_alloc of mm_buddy_order.
 * Returns, costs and locks as mm_buddy_alloc; MM_PA_NONE too for 0 bytes. */
MM_BUDDY_API mm_pa_t mm_buddy_alloc_bytes(struct mm_buddy *b, uint64_t bytes, unsigned flags);

/* Allocates exactly `bytes` bytes, rounded up to smallest blocks: the tail of the power of two is
 * given back at once. The address is aligned as the whole power of two would be. mm_buddy_free
 * gives it all back; it passes by the per-CPU lists unless the size is a power of two.
 *
 * Returns the address or MM_PA_NONE, as mm_buddy_alloc_bytes. O(order) more; takes one or two
 * locks of regions, for blocks larger than a region all that it covers. */
MM_BUDDY_API mm_pa_t mm_buddy_alloc_exact(struct mm_buddy *b, uint64_t bytes, unsigned flags);

/* As mm_buddy_alloc_exact, at an address that is a multiple of `align` (a power of two, in bytes;
 * up to the size of a block of the arena's largest order). MM_PA_NONE too if align is no power
 * of two. */
MM_BUDDY_API mm_pa_t mm_buddy_alloc_aligned(struct mm_buddy *b, uint64_t bytes, uint64_t align,
                                            unsigned flags);

/* Allocates the block of `order` that starts at `pa`, if it is free.
 *
 * Returns MM_OK; MM_ERR_INVALID if the order or a flag is out of range or the block leaves the
 * span; MM_ERR_ALIGN if `pa` is not a multiple of the block's size; MM_ERR_BUSY if a part of it is
 * in use, or absent; MM_ERR_NOMEM if the watermark forbids it. On an error nothing changed.
 * O(2^order / 64 + regions). Empties the per-CPU lists if need be; takes the locks of the regions
 * it covers. */
MM_BUDDY_API enum mm_status mm_buddy_alloc_at(struct mm_buddy *b, mm_pa_t pa, unsigned order,
                                              unsigned flags);

/* Allocates `count` blocks of one order.
 *
 *   out   receives the addresses
 *
 * Returns how many it got: fewer than `count` only where mm_buddy_alloc would fail for the next.
 * O(count), a lock for each region's share. The blocks come from the bitmaps; the CPU's list gives
 * what they lack. */
MM_BUDDY_API size_t mm_buddy_alloc_bulk(struct mm_buddy *b, unsigned order, unsigned flags,
                                        size_t count, mm_pa_t *out);

/* ---- Release and change of blocks ------------------------------------------------------------ */

/* Frees the block that starts at `pa`, whichever call allocated it; its size is known.
 *
 * Returns MM_OK; MM_ERR_ALIGN if `pa` is not a multiple of the smallest block or lies inside an
 * allocated block; MM_ERR_PERM if it is reserved; MM_ERR_INVALID if it lies outside the arena or is
 * free already (a double free). On an error nothing changed, and from MM_BUDDY_DEBUG 1 up it is
 * reported.
 * O(1) into the CPU's list; with an exact block O(pieces). Takes no lock into the list, else locks
 * of regions one by one. Safe as mm_buddy_alloc. */
MM_BUDDY_INLINE enum mm_status mm_buddy_free(struct mm_buddy *b, mm_pa_t pa);

/* Frees a block of `order` that starts at `pa`. As mm_buddy_free, and MM_ERR_INVALID if the block
 * has another order, or none (see mm_buddy_resize). */
MM_BUDDY_INLINE enum mm_status mm_buddy_free_order(struct mm_buddy *b, mm_pa_t pa, unsigned order);

/* Frees the block of `bytes` bytes (as asked for at its allocation) that starts at `pa`. As
 * mm_buddy_free, and MM_ERR_INVALID if the block that `bytes` asks for, rounded up to smallest
 * blocks or to a power of two of them, is not the one that is there. */
MM_BUDDY_API enum mm_status mm_buddy_free_sized(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes);

/* Frees `count` blocks of one order, all or none.
 *
 * Returns MM_OK, or what mm_buddy_free_order would for the first block that cannot be freed
 * (MM_ERR_INVALID also for one that is named twice): nothing changed then.
 * O(count), a lock for each region's share of every MM_BUDDY_CPU_SLOTS blocks. */
MM_BUDDY_API enum mm_status mm_buddy_free_bulk(struct mm_buddy *b, unsigned order,
                                               const mm_pa_t *pas, size_t count);

/* Makes the block that starts at `pa` one of `order`, in place: its tail is freed, or free memory
 * behind it is taken.
 *
 * Returns MM_OK (also if the order is the same); MM_ERR_BUSY if the memory behind it is not free;
 * MM_ERR_ALIGN if `pa` is not aligned for the larger order, or as mm_buddy_free; MM_ERR_NOMEM if
 * the min watermark forbids it; MM_ERR_INVALID if the order is out of range or the block has none:
 * its size is no power of two, or its address no multiple of it (an exact block's may become one
 * when it migrates); else as mm_buddy_free. On an error nothing changed. O(2^order / 64); takes the
 * locks of the regions it covers. */
MM_BUDDY_API enum mm_status mm_buddy_resize(struct mm_buddy *b, mm_pa_t pa, unsigned order);

/* As mm_buddy_resize, to exactly `bytes` bytes (rounded up to smallest blocks), for any allocated
 * block; `pa` need not be aligned for it. MM_ERR_INVALID for 0 bytes. */
MM_BUDDY_API enum mm_status mm_buddy_resize_exact(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes);

/* ---- Ranges ---------------------------------------------------------------------------------- */

/* Takes a range out of use, so that no call hands it out: firmware, a hole, a device. The range is
 * rounded outwards to smallest blocks.
 *
 * Returns MM_OK; MM_ERR_INVALID if it is empty or leaves the span; MM_ERR_BUSY if a part of it is
 * in use, reserved or absent; nothing changed then. O(bytes / smallest block / 64 + regions).
 * Empties the per-CPU lists if need be; takes the locks of the regions it covers. */
MM_BUDDY_API enum mm_status mm_buddy_reserve(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes);

/* Gives a reserved range, or a part of one, back to use. The range is rounded outwards as for
 * mm_buddy_reserve.
 *
 * Returns MM_OK; MM_ERR_INVALID if it is empty or leaves the span; MM_ERR_NOENT if a part of it is
 * not reserved; nothing changed then. O(bytes / smallest block), locks as mm_buddy_reserve. */
MM_BUDDY_API enum mm_status mm_buddy_release(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes);

/* Allocates the range that starts at `pa`, after moving out of it what can be moved: blocks in page
 * blocks of type movable and CMA go elsewhere through the hook `migrate`. One mm_buddy_free of `pa`
 * frees it.
 *
 *   pa, bytes   multiples of the smallest block
 *   flags       MM_BUDDY_URGENT, MM_BUDDY_ZERO; the type has no influence
 *
 * Returns MM_OK; MM_ERR_ALIGN; MM_ERR_INVALID if it is empty or leaves the span; MM_ERR_NOENT if a
 * part is absent; MM_ERR_BUSY if something in it cannot be moved (no hook, a type that stays, the
 * hook refused, reserved, or another contiguous allocation at work there); MM_ERR_NOMEM if there
 * is no place to move to, or the watermark forbids it. On an error the range is not allocated;
 * blocks that were moved stay moved.
 * O(bytes / smallest block) and the moves. Empties the per-CPU lists; takes locks of regions, none
 * while the hook runs. */
MM_BUDDY_API enum mm_status mm_buddy_alloc_range(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes,
                                                 unsigned flags);

/* Allocates contiguous memory of any size, also beyond the largest order: first where it is free,
 * then out of CMA page blocks, then out of movable ones, by mm_buddy_alloc_range at each place that
 * may do, lowest first.
 *
 *   bytes   rounded up to smallest blocks
 *   align   of the address in bytes, a power of two; less than a smallest block counts as one
 *   flags   as for mm_buddy_alloc_range
 *
 * Returns the address, or MM_PA_NONE if no place does or an argument is not valid.
 * O(span / align * cost of a try) worst case. */
MM_BUDDY_API mm_pa_t mm_buddy_alloc_contig(struct mm_buddy *b, uint64_t bytes, uint64_t align,
                                           unsigned flags);

/* ---- Migration types by page block ----------------------------------------------------------- */

/* Gives all page blocks that the range touches a type, MM_BUDDY_CMA among them; what is allocated
 * there stays. Blocks in per-CPU lists go back first.
 *
 * Returns MM_OK; MM_ERR_INVALID if the type is none or the range is empty or leaves the span.
 * O(page blocks). Takes locks of regions one by one; for MM_BUDDY_CMA nobody may allocate or free
 * blocks of pb_order in the range meanwhile. */
MM_BUDDY_API enum mm_status mm_buddy_set_type(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes,
                                              enum mm_buddy_type type);

/* Type of the page block at `pa`; MM_BUDDY_UNMOVABLE outside the span. Wholly free page blocks
 * keep the type of their last use until the next, and any type but MM_BUDDY_CMA yields then.
 * O(1), no locking. */
MM_BUDDY_API enum mm_buddy_type mm_buddy_get_type(const struct mm_buddy *b, mm_pa_t pa);

/* ---- Compaction ------------------------------------------------------------------------------ */

/* Tries to make a free block of `order`, by moving blocks out of the movable page blocks that have
 * the fewest used ones, into holes of others.
 *
 * Returns MM_OK if such a block is free (now, or all along); MM_ERR_NOMEM if not, although all that
 * can be was tried; MM_ERR_INVALID if the order exceeds the largest; MM_ERR_PERM if there is no
 * hook. O(span) and the moves. Empties the per-CPU lists; locks as mm_buddy_alloc_range. */
MM_BUDDY_API enum mm_status mm_buddy_compact(struct mm_buddy *b, unsigned order);

/* Why an allocation of `order` fails, as in Linux (mm/vmstat.c, fragmentation_index): -1000 if it
 * would not, since such a block is free; else 0 to 1000, near 0 for lack of memory, near 1000 for
 * fragmentation (compaction will help). -1000 too for an order beyond the largest.
 * O(span / 64), no locking. */
MM_BUDDY_API int mm_buddy_fragmentation(const struct mm_buddy *b, unsigned order);

/* ---- Free-page reporting --------------------------------------------------------------------- */

/* Switches reporting on, for free blocks from `order` up, or off with an order of MM_BUDDY_ORDERS.
 * All marks are dropped. While it is on, taking blocks out of the bitmaps costs a little more.
 * Returns MM_OK, or MM_ERR_INVALID for an order between the largest and MM_BUDDY_ORDERS. O(span /
 * 2^order). Takes locks of regions one by one. */
MM_BUDDY_API enum mm_status mm_buddy_report_enable(struct mm_buddy *b, unsigned order);

/* Tells the callback of free memory that it was not told of before, in aligned blocks of at least
 * the order of mm_buddy_report_enable: for a balloon that gives them back to the hypervisor. A
 * block is not handed out while the callback runs. Its mark holds until a part of it is taken;
 * when marked blocks merge with others, only what is new is told.
 *
 *   limit    most blocks to tell of
 *   report   MM_OK: the block is marked; another status: it is not, and the call ends
 *
 * Returns the number of blocks told and marked; 0 while reporting is off. O(span / 64) and the
 * callbacks; takes locks of regions, none while the callback runs. */
MM_BUDDY_API size_t mm_buddy_report(struct mm_buddy *b, size_t limit,
                                    enum mm_status (*report)(void *ctx, mm_pa_t pa, uint64_t bytes),
                                    void *ctx);

/* ---- Watermarks ------------------------------------------------------------------------------ */

/* Sets the watermarks in bytes (0 at first). An allocation that would leave less than min free
 * fails unless it is urgent; zone lists prefer arenas that stay above low; high is where reclaim
 * may rest. All that is free counts, whatever its type: free CMA memory does not help an unmovable
 * request, so give such requests an arena of their own, or marks above the CMA memory. Returns
 * MM_OK, or MM_ERR_INVALID unless min <= low <= high. O(1), no locking. */
MM_BUDDY_API enum mm_status mm_buddy_set_watermarks(struct mm_buddy *b, uint64_t min, uint64_t low,
                                                    uint64_t high);

/* Where free memory stands. O(regions), no locking. */
MM_BUDDY_API enum mm_buddy_level mm_buddy_get_level(const struct mm_buddy *b);

/* Bytes free in the bitmaps; those in per-CPU lists come on top. O(regions), no locking. */
MM_BUDDY_API uint64_t mm_buddy_free_bytes(const struct mm_buddy *b);

/* ---- Per-CPU lists --------------------------------------------------------------------------- */

/* Sets how the lists of every CPU work: `batch` blocks of order 0 are taken at a time, up to `high`
 * are kept in a list; those of larger orders accordingly. All lists are emptied first.
 *
 * Returns MM_OK; MM_ERR_INVALID unless 1 <= batch <= high <= MM_BUDDY_CPU_SLOTS, or both are 0:
 * then nothing is kept; MM_ERR_PERM if the arena was made without lists. Safe from any CPU. */
MM_BUDDY_API enum mm_status mm_buddy_set_lists(struct mm_buddy *b, unsigned batch, unsigned high);

/* Gives all blocks in the lists of every CPU back to the bitmaps. O(CPUs * slots). Takes each CPU's
 * lists in turn (see MM_FENCE_CPUS) and locks of regions. */
MM_BUDDY_API void mm_buddy_drain(struct mm_buddy *b);

/* The same for one CPU, say one that goes off-line. Nothing for a number without lists. */
MM_BUDDY_API void mm_buddy_drain_cpu(struct mm_buddy *b, unsigned cpu);

/* ---- Zone lists ------------------------------------------------------------------------------ */

struct mm_buddy_zone {
    struct mm_buddy *arena;
    const char *name; /* for the dump */
};

/* Arenas in order of preference. The caller fills it and keeps it; several lists may name the same
 * arenas. */
struct mm_buddy_zones {
    struct mm_buddy_zone *zone;
    unsigned count;
};

/* Allocates from the first arena that stays above its low watermark, else calls `pressure` of every
 * arena and tries down to min, with MM_BUDDY_URGENT down to nothing. Flags as for mm_buddy_alloc.
 * Returns the address or MM_PA_NONE. O(arenas) times mm_buddy_alloc. */
MM_BUDDY_API mm_pa_t mm_buddy_zones_alloc(const struct mm_buddy_zones *zones, unsigned order,
                                          unsigned flags);

/* The arena of the list whose span holds `pa`; NULL if none. O(arenas), no locking. */
MM_BUDDY_API struct mm_buddy *mm_buddy_zones_find(const struct mm_buddy_zones *zones, mm_pa_t pa);

/* mm_buddy_free in the arena that `pa` belongs to; MM_ERR_INVALID if none. */
MM_BUDDY_API enum mm_status mm_buddy_zones_free(const struct mm_buddy_zones *zones, mm_pa_t pa);

/* Statistics of the zone number `index` (as mm_buddy_get_stats), or of all together if index is
 * `count`. MM_OK, or MM_ERR_INVALID for a larger index. */
MM_BUDDY_API enum mm_status mm_buddy_zones_stats(const struct mm_buddy_zones *zones, unsigned index,
                                                 struct mm_buddy_stats *stats);

/* ---- Heap face ------------------------------------------------------------------------------- */

/* The C library's calls over an arena whose memory is mapped: a pointer is an address plus
 * config.pointer_offset. Blocks are powers of two; they come as MM_BUDDY_UNMOVABLE, from the
 * per-CPU lists where there are any. All are safe from any CPU; costs as mm_buddy_alloc and
 * _free. */

/* A block of at least `size` bytes, aligned to its own size rounded up to a power of two; NULL if
 * there is none or size is 0. */
MM_BUDDY_API void *mm_buddy_malloc(struct mm_buddy *b, size_t size);

/* `count` elements of `size` bytes, zero-filled with MM_BUDDY_MEMSET; NULL if there is no memory,
 * the product overflows or is 0. */
MM_BUDDY_API void *mm_buddy_calloc(struct mm_buddy *b, size_t count, size_t size);

/* At least `size` bytes at a multiple of `align`, a power of two; NULL if there are none, align is
 * no power of two or size is 0. */
MM_BUDDY_API void *mm_buddy_memalign(struct mm_buddy *b, size_t align, size_t size);

/* Makes a block's size at least `size`, in place where possible, else by a copy of what fits. The
 * alignment that mm_buddy_memalign gave stays. realloc(NULL, size) is malloc; size 0 frees and
 * returns NULL. NULL, and the block stays as it is, if there is no memory or `old` is no block. */
MM_BUDDY_API void *mm_buddy_realloc(struct mm_buddy *b, void *old, size_t size);

/* Frees a block; NULL is allowed. Returns as mm_buddy_free. */
MM_BUDDY_API enum mm_status mm_buddy_mfree(struct mm_buddy *b, void *block);

/* Bytes that may be used at `block`; 0 if it is no block. O(1), no locking. */
MM_BUDDY_API size_t mm_buddy_usable_size(const struct mm_buddy *b, const void *block);

/* ---- Questions ------------------------------------------------------------------------------- */

/* The block that holds the byte at `pa`: an allocated or reserved one with its size (an exact one
 * as a whole), or the largest free, cached or absent piece, aligned to its size, of a state.
 * MM_OK, or MM_ERR_INVALID outside the span. A block that changes meanwhile may be told wrongly.
 * O(max order), for exact blocks times their pieces; no locking. */
MM_BUDDY_API enum mm_status mm_buddy_find(const struct mm_buddy *b, mm_pa_t pa,
                                          struct mm_buddy_block *block);

/* Calls `visit` for every block of the span in order of address until it returns false. Adjacent
 * absent or cached smallest blocks may come in one piece. No locking: other CPUs may change blocks
 * meanwhile, and the callback may call the arena. O(span). */
MM_BUDDY_API void mm_buddy_walk(const struct mm_buddy *b,
                                bool (*visit)(void *ctx, const struct mm_buddy_block *block),
                                void *ctx);

/* Fills in statistics. O(CPUs + span / 64). Takes each CPU's lists in turn. */
MM_BUDDY_API void mm_buddy_get_stats(const struct mm_buddy *b, struct mm_buddy_stats *stats);

/* Judges the whole structure against its invariants, with all locks and all per-CPU lists held.
 * O(span). Calls under way on other CPUs may hold blocks that count as leaked: let them finish. */
MM_BUDDY_API enum mm_buddy_health mm_buddy_check(struct mm_buddy *b);

/* Prints the zones' free blocks by order in the manner of /proc/buddyinfo, their types and
 * watermarks, line by line (without line end) through `print`. No locking. */
MM_BUDDY_API void mm_buddy_dump(const struct mm_buddy_zones *zones,
                                void (*print)(void *ctx, const char *line), void *ctx);

/* Owner tags: lends the arena a word for each smallest block of the span, mm_buddy_tag_bytes(b)
 * bytes in all, or takes them back with NULL. The per-CPU lists are off while tags are on, so that
 * a block's tag is clear when it is handed out. Set-up: no other call may run.
 * Returns MM_OK, or MM_ERR_NOMEM if `bytes` is too small. O(span). */
MM_BUDDY_API enum mm_status mm_buddy_tags(struct mm_buddy *b, uintptr_t *tags, size_t bytes);
MM_BUDDY_API size_t mm_buddy_tag_bytes(const struct mm_buddy *b);

/* Tags the allocated block that starts at `pa`, say with a return address or a process number.
 * MM_OK; MM_ERR_PERM if tags are off; else as mm_buddy_free. O(1), no locking. */
MM_BUDDY_API enum mm_status mm_buddy_set_tag(struct mm_buddy *b, mm_pa_t pa, uintptr_t tag);

/* Leak report: what is allocated now, by tag (0: not tagged), into a table of `count` lines.
 * Returns the number of lines filled; what has no room in the table is added to the last line,
 * whose tag is then UINTPTR_MAX. Works without tags too: one line. O(span * count), no locking. */
MM_BUDDY_API size_t mm_buddy_leaks(const struct mm_buddy *b, struct mm_buddy_owner *table,
                                   size_t count);

/* ---- Hot paths ------------------------------------------------------------------------------- */

/* State bytes: a kind in the upper three bits, the order in the lower five. Kind 0 is no head; its
 * lower bits then tell what is noted of a smallest block that is not handed out. */
#define MMI_BUDDY_NONE        0xffffffffu /* no number */
#define MMI_BUDDY_CLEAR       0x00u       /* free, cached, or inside a block */
#define MMI_BUDDY_MARK        0x01u       /* head of a granule that was reported */
#define MMI_BUDDY_DYING       0x02u       /* mm_buddy_free_bulk: was PLAIN */
#define MMI_BUDDY_DYING_FIXED 0x03u       /* mm_buddy_free_bulk: was FIXED */
#define MMI_BUDDY_SEEN        0x04u       /* mm_buddy_check: found in a list */
#define MMI_BUDDY_PLAIN       0x20u       /* a block of a power of two */
#define MMI_BUDDY_FIRST       0x40u       /* first piece of an exact block */
#define MMI_BUDDY_MIDDLE      0x60u       /* its next pieces */
#define MMI_BUDDY_LAST        0x80u       /* its last piece */
#define MMI_BUDDY_RESERVED    0xa0u /* taken by mm_buddy_reserve, or by the arena for a while */
#define MMI_BUDDY_FIXED       0xc0u /* as PLAIN; never cached, and realloc keeps its order */
#define MMI_BUDDY_ABSENT      0xffu /* not part of the arena */

#define MMI_BUDDY_ISOLATED 0xffu /* pb.hint: no call takes from it, frees gather in its bitmap */
#define MMI_BUDDY_WHOLE    0xfeu /* pb.hint: wholly free */

struct mmi_buddy_pb {
    uint16_t free;
    uint8_t hint;
    uint8_t type;
};

/* Accesses that another CPU may make at the same time without a lock. */
#define MMI_BUDDY_GET(x)        __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define MMI_BUDDY_PUT(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELAXED)

MM_BUDDY_API mm_pa_t mmi_buddy_alloc_slow(struct mm_buddy *b, unsigned order, unsigned flags);
MM_BUDDY_API enum mm_status mmi_buddy_free_slow(struct mm_buddy *b, mm_pa_t pa, unsigned order);
MM_BUDDY_API void mmi_buddy_debug(struct mm_buddy *b);

/* Number of the smallest block that starts at `pa`; MMI_BUDDY_NONE if none of the span does. The
 * rotation moves misaligned low bits to the top, where they fail the comparison; 4 <= shift <=
 * 30. */
MM_CORE_INLINE uint32_t mmi_buddy_number(const struct mm_buddy *b, mm_pa_t pa)
{
    uint64_t offset = pa - b->base;
#if MM_WORD_BITS == 64
    uint64_t n = (offset >> b->min_shift) | (offset << (64 - b->min_shift));
    return n < b->units ? (uint32_t)n : MMI_BUDDY_NONE;
#else
    uint32_t low = (uint32_t)offset, high = (uint32_t)(offset >> 32);
    uint32_t n = (low >> b->min_shift) | (high << (32 - b->min_shift));
    bool fits = ((high >> b->min_shift) | (low & ((1u << b->min_shift) - 1))) == 0;
    return fits && n < b->units ? n : MMI_BUDDY_NONE;
#endif
}

MM_CORE_INLINE mm_pa_t mmi_buddy_pa(const struct mm_buddy *b, uint32_t n)
{
#if MM_WORD_BITS == 64
    return b->base + ((uint64_t)n << b->min_shift);
#else
    return b->base + (((uint64_t)(n >> (32 - b->min_shift)) << 32) | (uint32_t)(n << b->min_shift));
#endif
}

/* Lines touched: the arena's first, two of the CPU's, one of state bytes. About 20 instructions. */
MM_BUDDY_INLINE mm_pa_t mm_buddy_alloc(struct mm_buddy *b, unsigned order, unsigned flags)
{
    const unsigned type = flags & 3;
    unsigned stack = order * 3 + type, cpu;
    MM_BUDDY_CPU_STATE_T pin;

    if (order >= MM_BUDDY_CACHED_ORDERS)
        stack = order == b->pb_order ? MMI_BUDDY_STACK_HUGE : MMI_BUDDY_STACKS;
    if (MM_UNLIKELY(stack == MMI_BUDDY_STACKS || type == MM_BUDDY_CMA ||
                    (flags & (MM_BUDDY_ZERO | MM_BUDDY_NOCACHE)) != 0))
        return mmi_buddy_alloc_slow(b, order, flags);
    MM_BUDDY_CPU_PIN(pin);
    cpu = MM_BUDDY_CPU_ID();
    if (MM_LIKELY(cpu < b->cpus)) {
        struct mmi_buddy_cpu *c = &b->cpu[cpu];
        mm_busy_enter(&c->busy);
        if (MM_LIKELY(mm_bias_mine(&c->owner, (uintptr_t)cpu + 1))) {
            unsigned pos = c->pos[stack];
            if (MM_LIKELY(pos != c->end[stack])) { /* C1 */
                const uint32_t n = c->slot[pos];
                c->pos[stack] = (uint16_t)(pos + 1);
                MMI_BUDDY_PUT(b->state[n], (uint8_t)(MMI_BUDDY_PLAIN | order));
                if (order >= MM_BUDDY_CACHED_ORDERS)
                    MMI_BUDDY_PUT(b->pb[n >> order].type, (uint8_t)type);
                mm_busy_leave(&c->busy);
                MM_BUDDY_CPU_UNPIN(pin);
#if MM_BUDDY_DEBUG >= 3
                mmi_buddy_debug(b);
#endif
                return mmi_buddy_pa(b, n);
            }
        }
        mm_busy_leave(&c->busy);
    }
    MM_BUDDY_CPU_UNPIN(pin);
    return mmi_buddy_alloc_slow(b, order, flags);
}

/* Puts a block whose state byte was found to be `state` into the CPU's list; false if that cannot
 * be: the slow path then does it or tells why. */
MMI_BUDDY_INLINE bool mmi_buddy_push(struct mm_buddy *b, uint32_t n, unsigned state)
{
    const unsigned order = state ^ MMI_BUDDY_PLAIN; /* 32 or more for any other kind */
    unsigned stack = MMI_BUDDY_STACK_FREED + order, cpu;
    MM_BUDDY_CPU_STATE_T pin;
    bool done = false;

    if (order >= MM_BUDDY_CACHED_ORDERS) {
        if (MM_UNLIKELY(order != b->pb_order))
            return false;
        stack = MMI_BUDDY_STACK_HUGE;
    }
    MM_BUDDY_CPU_PIN(pin);
    cpu = MM_BUDDY_CPU_ID();
    if (MM_LIKELY(cpu < b->cpus)) {
        struct mmi_buddy_cpu *c = &b->cpu[cpu];
        mm_busy_enter(&c->busy);
        if (MM_LIKELY(mm_bias_mine(&c->owner, (uintptr_t)cpu + 1))) {
            unsigned pos = c->pos[stack];
            if (MM_LIKELY(pos != c->floor[stack])) { /* C3 */
                MMI_BUDDY_PUT(b->state[n], (uint8_t)MMI_BUDDY_CLEAR);
                c->slot[pos - 1] = n;
                c->pos[stack] = (uint16_t)(pos - 1);
                done = true;
            }
        }
        mm_busy_leave(&c->busy);
    }
    MM_BUDDY_CPU_UNPIN(pin);
    return done;
}

MM_BUDDY_INLINE enum mm_status mm_buddy_free(struct mm_buddy *b, mm_pa_t pa)
{
    const uint32_t n = mmi_buddy_number(b, pa);

    if (MM_UNLIKELY(n == MMI_BUDDY_NONE || !mmi_buddy_push(b, n, MMI_BUDDY_GET(b->state[n]))))
        return mmi_buddy_free_slow(b, pa, MM_BUDDY_ORDERS);
#if MM_BUDDY_DEBUG >= 3
    mmi_buddy_debug(b);
#endif
    return MM_OK;
}

MM_BUDDY_INLINE enum mm_status mm_buddy_free_order(struct mm_buddy *b, mm_pa_t pa, unsigned order)
{
    const uint32_t n = mmi_buddy_number(b, pa);

    if (MM_UNLIKELY(n == MMI_BUDDY_NONE || order >= MM_BUDDY_ORDERS ||
                    MMI_BUDDY_GET(b->state[n]) != (MMI_BUDDY_PLAIN | order) ||
                    !mmi_buddy_push(b, n, MMI_BUDDY_PLAIN | order)))
        return mmi_buddy_free_slow(b, pa, order < MM_BUDDY_ORDERS ? order : MM_BUDDY_ORDERS + 1);
#if MM_BUDDY_DEBUG >= 3
    mmi_buddy_debug(b);
#endif
    return MM_OK;
}

#ifdef __cplusplus
}
#endif

#endif /* MM_BUDDY_H */

/* ==== Implementation ========================================================================== */

#if defined(MM_BUDDY_IMPLEMENTATION) && !defined(MM_BUDDY_IMPLEMENTED)
#define MM_BUDDY_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(MM_BUDDY_STATIC) && !defined(__cplusplus)
extern inline mm_pa_t mm_buddy_alloc(struct mm_buddy *b, unsigned order, unsigned flags);
extern inline enum mm_status mm_buddy_free(struct mm_buddy *b, mm_pa_t pa);
extern inline enum mm_status mm_buddy_free_order(struct mm_buddy *b, mm_pa_t pa, unsigned order);
#elif !defined(MM_BUDDY_STATIC)
/* C++ emits an inline function only where it is used; other languages link to these. */
typedef mm_pa_t (*mmi_buddy_emit_alloc_t)(struct mm_buddy *, unsigned, unsigned);
typedef enum mm_status (*mmi_buddy_emit_free_t)(struct mm_buddy *, mm_pa_t);
typedef enum mm_status (*mmi_buddy_emit_order_t)(struct mm_buddy *, mm_pa_t, unsigned);
extern const mmi_buddy_emit_alloc_t mmi_buddy_emit_alloc;
extern const mmi_buddy_emit_free_t mmi_buddy_emit_free;
extern const mmi_buddy_emit_order_t mmi_buddy_emit_order;
const mmi_buddy_emit_alloc_t mmi_buddy_emit_alloc = mm_buddy_alloc;
const mmi_buddy_emit_free_t mmi_buddy_emit_free = mm_buddy_free;
const mmi_buddy_emit_order_t mmi_buddy_emit_order = mm_buddy_free_order;
#endif

/* A region: its sets are one for each type and order below pb_order, then whole page blocks of
 * types other than CMA, then those of type CMA. A set has a bit for each of the region's page
 * blocks, after a summary bit for each word of them. */
struct mmi_buddy_region {
    MM_BUDDY_LOCK_T lock;
    uintptr_t *sets;
    uintptr_t free;  /* I5 */
    uintptr_t whole; /* I5 */
    uintptr_t owner; /* CPU + 1 whose home this is; 0: nobody's */
    uintptr_t refills, flushes, fallbacks, steals, misuse;
} __attribute__((aligned(MM_BUDDY_CACHE_LINE)));

#define MMI_BUDDY_PATIENCE     8 /* freed blocks that stay for the bitmaps, before recycling ends */
#define MMI_BUDDY_NO_PRESSURE  0x100u /* flag: the hook is not called */
#define MMI_BUDDY_WORD(n)      ((n) >> MM_WORD_SHIFT)
#define MMI_BUDDY_BIT(n)       ((n) & (MM_WORD_BITS - 1u))
#define MMI_BUDDY_KIND(state)  ((state)&0xe0u)
#define MMI_BUDDY_ORDER(state) ((state)&0x1fu)
#define MMI_BUDDY_PREFETCH(p)  __builtin_prefetch(p)

MM_STATIC_ASSERT(sizeof(struct mmi_buddy_pb) == 4, "a page block's descriptor is packed");
MM_STATIC_ASSERT(MMI_BUDDY_SLOTS <= 0xffff, "positions of slots fit 16 bits");
MM_STATIC_ASSERT(MM_BUDDY_REGIONS_MAX >= MM_WORD_BITS, "a word names all regions");

/* ---- Words, sets, numbers -------------------------------------------------------------------- */

static void mmi_buddy_count(uintptr_t *counter, uintptr_t n)
{
#if MMI_SMP
    (void)mm_fetch_add(counter, n);
#else
    mm_store(counter, mm_load(counter) + n);
#endif
}

static uint32_t mmi_buddy_min(uint32_t x, uint32_t y)
{
    return x < y ? x : y;
}

/* Bits at which an aligned run of 2^order set bits starts; order < MM_WORD_SHIFT. */
static inline uintptr_t mmi_buddy_runs(uintptr_t x, unsigned order)
{
    static const uintptr_t aligned[] = {
        ~(uintptr_t)0,
        ~(uintptr_t)0 / 3,
        ~(uintptr_t)0 / 15,
        ~(uintptr_t)0 / 255,
        ~(uintptr_t)0 / 65535,
#if MM_WORD_BITS == 64
        ~(uintptr_t)0 / 0xffffffff,
#endif
    };
    unsigned i;
    for (i = 0; i < order; i++)
        x &= x >> (1u << i);
    return x & aligned[order];
}

/* Bits `from` to `to` - 1 of a word; 0 <= from < to <= MM_WORD_BITS. */
static uintptr_t mmi_buddy_bits(unsigned from, unsigned to)
{
    return mm_mask(to) & ~mm_mask(from);
}

static uintptr_t *mmi_buddy_set(const struct mm_buddy *b, uint32_t region, uint32_t index)
{
    return b->region[region].sets + index * b->set_words;
}
static uintptr_t *mmi_buddy_partial(const struct mm_buddy *b, uint32_t region, unsigned type,
                                    unsigned order)
{
    return mmi_buddy_set(b, region, type * b->pb_order + order);
}
static uintptr_t *mmi_buddy_whole(const struct mm_buddy *b, uint32_t region, unsigned type)
{
    return mmi_buddy_set(b, region,
                         MM_BUDDY_TYPES * b->pb_order + (type == MM_BUDDY_CMA ? 1u : 0u));
}

static void mmi_buddy_set_add(const struct mm_buddy *b, uintptr_t *set, uint32_t i)
{
    uintptr_t *word = set + b->set_summary + MMI_BUDDY_WORD(i);
    uintptr_t *summary = set + (i >> (2 * MM_WORD_SHIFT));

    MM_BUDDY_ASSERT((mm_load(word) & mm_bit(MMI_BUDDY_BIT(i))) == 0);
    mm_store(word, mm_load(word) | mm_bit(MMI_BUDDY_BIT(i)));
    mm_store(summary, mm_load(summary) | mm_bit(MMI_BUDDY_BIT(MMI_BUDDY_WORD(i))));
}

/* Stores what is left of a set's word. */
static void mmi_buddy_set_word(uintptr_t *set, uint32_t summaries, uint32_t word, uintptr_t rest)
{
    uintptr_t *summary = set + (word >> MM_WORD_SHIFT);
    mm_store(set + summaries + word, rest);
    if (rest == 0)
        mm_store(summary, mm_load(summary) & ~mm_bit(MMI_BUDDY_BIT(word)));
}

static void mmi_buddy_set_remove(const struct mm_buddy *b, uintptr_t *set, uint32_t i)
{
    const uintptr_t bits = mm_load(set + b->set_summary + MMI_BUDDY_WORD(i));

    MM_BUDDY_ASSERT((bits & mm_bit(MMI_BUDDY_BIT(i))) != 0);
    mmi_buddy_set_word(set, b->set_summary, MMI_BUDDY_WORD(i), bits & ~mm_bit(MMI_BUDDY_BIT(i)));
}

static bool mmi_buddy_set_has(const struct mm_buddy *b, const uintptr_t *set, uint32_t i)
{
    return (mm_load(set + b->set_summary + MMI_BUDDY_WORD(i)) & mm_bit(MMI_BUDDY_BIT(i))) != 0;
}

static bool mmi_buddy_set_empty(const struct mm_buddy *b, const uintptr_t *set)
{
    uint32_t i;
    for (i = 0; i < b->set_summary; i++)
        if (mm_load(set + i) != 0)
            return false;
    return true;
}

/* The lowest number in a set; MMI_BUDDY_NONE if it is empty. */
static uint32_t mmi_buddy_set_first(const struct mm_buddy *b, const uintptr_t *set)
{
    uint32_t i, word;
    for (i = 0; i < b->set_summary; i++) {
        if (mm_load(set + i) == 0)
            continue;
        word = (i << MM_WORD_SHIFT) + mm_ctz(mm_load(set + i));
        return (word << MM_WORD_SHIFT) + mm_ctz(mm_load(set + b->set_summary + word));
    }
    return MMI_BUDDY_NONE;
}

static unsigned mmi_buddy_state(const struct mm_buddy *b, uint32_t n)
{
    return MMI_BUDDY_GET(b->state[n]);
}
static void mmi_buddy_set_state(struct mm_buddy *b, uint32_t n, unsigned state)
{
    MMI_BUDDY_PUT(b->state[n], (uint8_t)state);
}
static bool mmi_buddy_is_head(unsigned state)
{
    return state >= MMI_BUDDY_PLAIN && state < 0xe0u;
}

static uint32_t mmi_buddy_region_of(const struct mm_buddy *b, uint32_t n)
{
    return ((n >> b->pb_order) + b->pb_skew) >> b->region_shift;
}
/* Its first number, modulo 2^32: region 0 may begin below number 0. And how far the last one is
 * from there. */
static uint32_t mmi_buddy_region_start(const struct mm_buddy *b, uint32_t region)
{
    return ((region << b->region_shift) - b->pb_skew) << b->pb_order;
}
static uint32_t mmi_buddy_region_last(const struct mm_buddy *b)
{
    return (((uint32_t)1 << b->region_shift) << b->pb_order) - 1; /* 2^32 or more wraps to 0 */
}
static uint32_t mmi_buddy_pb_region(const struct mm_buddy *b, uint32_t pb)
{
    return (pb + b->pb_skew) >> b->region_shift;
}
static uint32_t mmi_buddy_pb_local(const struct mm_buddy *b, uint32_t pb)
{
    return (pb + b->pb_skew) & ((1u << b->region_shift) - 1);
}
/* The page block of a local number; wraps below number 0, where no bit is ever set. */
static uint32_t mmi_buddy_pb_global(const struct mm_buddy *b, uint32_t region, uint32_t local)
{
    return (region << b->region_shift) + local - b->pb_skew;
}
static uint32_t mmi_buddy_pb_words(const struct mm_buddy *b)
{
    return 1u << (b->pb_order - MM_WORD_SHIFT);
}
static uint32_t mmi_buddy_pb_size(const struct mm_buddy *b)
{
    return 1u << b->pb_order;
}
static uint32_t mmi_buddy_end_of_pb(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    return mmi_buddy_min(((n >> b->pb_order) + 1) << b->pb_order, end);
}

/* Largest order of a block that starts at n and ends at or before `end`: n < end. */
static unsigned mmi_buddy_piece(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    uint32_t absolute = n + b->skew;
    unsigned size = mm_fls(end - n), align = absolute == 0 ? 31 : mm_ctz(absolute);
    return size < align ? size : align;
}
static bool mmi_buddy_is_aligned(const struct mm_buddy *b, uint32_t n, unsigned order)
{
    return ((n + b->skew) & ((1u << order) - 1)) == 0;
}

static uint64_t mmi_buddy_bytes(const struct mm_buddy *b, uint32_t units)
{
    return mmi_buddy_pa(b, units) - b->base;
}

/* x >> shift for 4 <= shift <= 30, without a 64-bit shift by a variable on a 32-bit machine; the
 * second returns MMI_BUDDY_NONE if the result needs more than 32 bits. */
static uint32_t mmi_buddy_shift_low(uint64_t x, unsigned shift)
{
    return ((uint32_t)x >> shift) | ((uint32_t)(x >> 32) << (32 - shift));
}
static uint32_t mmi_buddy_shift(uint64_t x, unsigned shift)
{
    return (uint32_t)(x >> 32) >> shift != 0 ? MMI_BUDDY_NONE : mmi_buddy_shift_low(x, shift);
}

/* Changes one of a region's two counts, and the region's bit in `bits` where it becomes or was 0
 * (I5). The region's lock is held. */
static void mmi_buddy_region_add(uintptr_t *count, uintptr_t add, uintptr_t *bits, uint32_t region)
{
    const uintptr_t old = mm_load(count), now = old + add;
    mm_store(count, now);
    if (MM_UNLIKELY(old == 0 && now != 0))
        (void)mm_fetch_or(bits, mm_bit(region));
    else if (MM_UNLIKELY(old != 0 && now == 0))
        (void)mm_fetch_and(bits, ~mm_bit(region));
}
static void mmi_buddy_free_add(struct mm_buddy *b, uint32_t region, uintptr_t units)
{
    mmi_buddy_region_add(&b->region[region].free, units, &b->some, region);
}
static void mmi_buddy_whole_count(struct mm_buddy *b, uint32_t region, uintptr_t blocks)
{
    mmi_buddy_region_add(&b->region[region].whole, blocks, &b->wholes, region);
}

/* ---- Page blocks: caller holds the region's lock --------------------------------------------- */

/* Sets the hint of a page block that is neither whole nor isolated (I4). */
static void mmi_buddy_pb_hint(struct mm_buddy *b, uint32_t pb, unsigned hint)
{
    const uint32_t region = mmi_buddy_pb_region(b, pb), local = mmi_buddy_pb_local(b, pb);
    const unsigned type = b->pb[pb].type;
    unsigned old = b->pb[pb].hint;

    MM_BUDDY_ASSERT(old <= b->pb_order && hint <= b->pb_order);
    for (; old < hint; old++)
        mmi_buddy_set_add(b, mmi_buddy_partial(b, region, type, old), local);
    for (; old > hint; old--)
        mmi_buddy_set_remove(b, mmi_buddy_partial(b, region, type, old - 1), local);
    MMI_BUDDY_PUT(b->pb[pb].hint, (uint8_t)hint);
}

static void mmi_buddy_pb_fill(struct mm_buddy *b, uint32_t pb, uintptr_t value)
{
    uintptr_t *word = b->bits + (size_t)pb * mmi_buddy_pb_words(b);
    uint32_t i;
    for (i = 0; i < mmi_buddy_pb_words(b); i++)
        mm_store(word + i, value);
    MMI_BUDDY_PUT(b->pb[pb].free, (uint16_t)(value != 0 ? mmi_buddy_pb_size(b) : 0));
}

/* A page block without free blocks in the bitmap is, or is no more, a whole one (I3). */
static void mmi_buddy_whole_add(struct mm_buddy *b, uint32_t pb)
{
    const uint32_t region = mmi_buddy_pb_region(b, pb);

    MM_BUDDY_ASSERT(b->pb[pb].hint == 0 && b->pb[pb].free == 0);
    mmi_buddy_set_add(b, mmi_buddy_whole(b, region, b->pb[pb].type), mmi_buddy_pb_local(b, pb));
    mmi_buddy_whole_count(b, region, 1);
    MMI_BUDDY_PUT(b->pb[pb].hint, (uint8_t)MMI_BUDDY_WHOLE);
}
static void mmi_buddy_whole_remove(struct mm_buddy *b, uint32_t pb)
{
    const uint32_t region = mmi_buddy_pb_region(b, pb);

    MM_BUDDY_ASSERT(b->pb[pb].hint == MMI_BUDDY_WHOLE);
    mmi_buddy_set_remove(b, mmi_buddy_whole(b, region, b->pb[pb].type), mmi_buddy_pb_local(b, pb));
    mmi_buddy_whole_count(b, region, 0 - (uintptr_t)1);
    MMI_BUDDY_PUT(b->pb[pb].hint, (uint8_t)0);
}

/* Gives a page block with an empty bitmap a type. Those of type CMA keep theirs, and no others get
 * it: the caller may come from a page block of that type. */
static void mmi_buddy_pb_claim(struct mm_buddy *b, uint32_t pb, unsigned type)
{
    if (b->pb[pb].type != MM_BUDDY_CMA && type != MM_BUDDY_CMA)
        MMI_BUDDY_PUT(b->pb[pb].type, (uint8_t)type);
}

/* From whole to bitmap, and back once the bitmap is full. */
static void mmi_buddy_pb_open(struct mm_buddy *b, uint32_t pb, unsigned type)
{
    mmi_buddy_whole_remove(b, pb);
    mmi_buddy_pb_claim(b, pb, type);
    mmi_buddy_pb_fill(b, pb, ~(uintptr_t)0);
    mmi_buddy_pb_hint(b, pb, b->pb_order);
}
static void mmi_buddy_pb_close(struct mm_buddy *b, uint32_t pb)
{
    mmi_buddy_pb_hint(b, pb, 0);
    mmi_buddy_pb_fill(b, pb, 0);
    mmi_buddy_whole_add(b, pb);
}

/* Is there a free block of `order` (below pb_order) in the word, or one that it is a part of? */
static inline bool mmi_buddy_has(const struct mm_buddy *b, uint32_t word, unsigned order)
{
    uint32_t i, words;
    if (MM_LIKELY(order < MM_WORD_SHIFT))
        return mmi_buddy_runs(mm_load(b->bits + word), order) != 0;
    words = 1u << (order - MM_WORD_SHIFT);
    word &= ~(words - 1);
    for (i = 0; i < words; i++)
        if (mm_load(b->bits + word + i) != ~(uintptr_t)0)
            return false;
    return true;
}

/* Order of the largest free block in the bitmap, plus 1; 0 if there is none. */
static unsigned mmi_buddy_pb_scan(const struct mm_buddy *b, uint32_t pb)
{
    const uint32_t words = mmi_buddy_pb_words(b);
    unsigned hint;
    uint32_t i;

    if (b->pb[pb].free == 0)
        return 0;
    for (hint = b->pb_order; hint > 1; hint--)
        for (i = 0; i < words; i++)
            if (mmi_buddy_has(b, pb * words + i, hint - 1))
                return hint;
    return 1;
}

/* Merges what was given to the word, and closes a page block that is wholly free. */
static MM_NOINLINE void mmi_buddy_pb_merge(struct mm_buddy *b, uint32_t word, unsigned hint)
{
    const uint32_t pb = word >> (b->pb_order - MM_WORD_SHIFT);
    const unsigned before = b->pb[pb].hint;

    if (MM_UNLIKELY(before == MMI_BUDDY_ISOLATED))
        return;
    if (MM_UNLIKELY(b->pb[pb].free == mmi_buddy_pb_size(b))) {
        mmi_buddy_pb_close(b, pb);
        return;
    }
    while (hint < b->pb_order && mmi_buddy_has(b, word, hint))
        hint++;
    if (hint > before)
        mmi_buddy_pb_hint(b, pb, hint);
}

/* After blocks of `order`, `units` in all, were given to the word, the first of them at `bit`,
 * which is `bits` now: count, hint, merge. A single new block can complete larger ones only where
 * it lies itself. */
static inline void mmi_buddy_pb_freed(struct mm_buddy *b, uint32_t word, uintptr_t bits,
                                      unsigned bit, uint32_t units, unsigned order)
{
    struct mmi_buddy_pb *const pb = &b->pb[word >> (b->pb_order - MM_WORD_SHIFT)];
    const unsigned before = pb->hint;

    MMI_BUDDY_PUT(pb->free, (uint16_t)(pb->free + units));
    if (MM_LIKELY(before < MM_WORD_SHIFT && before > order && units == 1u << order)) {
        static const uintptr_t run[] = {1, 3, 15, 255, 65535, 0xffffffff};
        const uintptr_t group = run[before] << (bit & (0u - (1u << before)));
        if (MM_LIKELY((bits & group) != group))
            return;
    }
    mmi_buddy_pb_merge(b, word, before > order ? before : order + 1);
}

/* Drops the reporting marks of the granules that n to end - 1, of one page block, touch (I7).
 * Granules do not cross regions. */
static void mmi_buddy_unmark(struct mm_buddy *b, uint32_t n, uint32_t end)
{
    const uint32_t granule = b->report == 0 ? 0 : 1u << (b->report - 1);
    uint32_t head = n - ((n + b->skew) & (granule - 1));

    if (granule == 0)
        return;
    for (; head < end; head += granule) /* one that starts below number 0, and has no mark, wraps */
        if (mmi_buddy_state(b, head) == MMI_BUDDY_MARK)
            mmi_buddy_set_state(b, head, MMI_BUDDY_CLEAR);
}

/* Takes up to `want` blocks of `order` < MM_WORD_SHIFT out of a word; returns how many. */
static inline uint32_t mmi_buddy_word_take(struct mm_buddy *b, uint32_t word, unsigned order,
                                           uint32_t want, uint32_t *out)
{
    const uintptr_t bits = mm_load(b->bits + word), runs = mmi_buddy_runs(bits, order);
    uintptr_t left = runs;
    uint32_t got = 0;

    for (; left != 0 && got < want; left &= left - 1)
        out[got++] = (word << MM_WORD_SHIFT) + mm_ctz(left);
    left ^= runs; /* first bits of what was taken; subtraction makes them blocks */
    if (got != 0)
        mm_store(b->bits + word, bits & ~((left << (1u << order)) - left));
    return got;
}

/* The same for pb_order > order >= MM_WORD_SHIFT: the block starts with the word. */
static uint32_t mmi_buddy_words_take(struct mm_buddy *b, uint32_t word, unsigned order,
                                     uint32_t *out)
{
    uint32_t i;
    if (!mmi_buddy_has(b, word, order))
        return 0;
    for (i = 0; i < 1u << (order - MM_WORD_SHIFT); i++)
        mm_store(b->bits + word + i, 0);
    out[0] = word << MM_WORD_SHIFT;
    return 1;
}

/* Takes up to `want` blocks of `order` < pb_order out of a page block, lowest first. If there are
 * fewer, its hint falls to what is left. */
static uint32_t mmi_buddy_pb_take(struct mm_buddy *b, uint32_t pb, unsigned order, uint32_t want,
                                  uint32_t *out)
{
    const uint32_t words = mmi_buddy_pb_words(b);
    const uint32_t step = order < MM_WORD_SHIFT ? 1 : 1u << (order - MM_WORD_SHIFT);
    uint32_t got = 0, i;

    for (i = 0; i < words && got < want; i += step) {
        if (mm_load(b->bits + pb * words + i) == 0)
            continue;
        got += order < MM_WORD_SHIFT
                   ? mmi_buddy_word_take(b, pb * words + i, order, want - got, out + got)
                   : mmi_buddy_words_take(b, pb * words + i, order, out + got);
    }
    MMI_BUDDY_PUT(b->pb[pb].free, (uint16_t)(b->pb[pb].free - (got << order)));
    mmi_buddy_free_add(b, mmi_buddy_pb_region(b, pb), 0 - ((uintptr_t)got << order));
    if (got < want || b->pb[pb].free == 0)
        mmi_buddy_pb_hint(b, pb, mmi_buddy_pb_scan(b, pb));
    if (MM_UNLIKELY(b->report != 0))
        for (i = 0; i < got; i++)
            mmi_buddy_unmark(b, out[i], out[i] + (1u << order));
    return got;
}

/* Takes a whole page block. */
static void mmi_buddy_whole_take(struct mm_buddy *b, uint32_t pb, unsigned type)
{
    mmi_buddy_whole_remove(b, pb);
    mmi_buddy_pb_claim(b, pb, type);
    mmi_buddy_free_add(b, mmi_buddy_pb_region(b, pb), 0 - (uintptr_t)mmi_buddy_pb_size(b));
    mmi_buddy_unmark(b, pb << b->pb_order, (pb + 1) << b->pb_order);
}

/* ---- Ranges: caller holds the locks of all regions they touch -------------------------------- */

/* Locks of the regions from `first` to `last`. */
struct mmi_buddy_span {
    uint32_t first, last;
    MM_BUDDY_LOCK_STATE_T state[MM_BUDDY_REGIONS_MAX];
};

static void mmi_buddy_span_lock(struct mm_buddy *b, struct mmi_buddy_span *span, uint32_t n,
                                uint32_t end)
{
    uint32_t i;
    span->first = mmi_buddy_region_of(b, n);
    span->last = mmi_buddy_region_of(b, end - 1);
    for (i = span->first; i <= span->last; i++)
        MM_BUDDY_LOCK(&b->region[i].lock, span->state[i]);
}
static void mmi_buddy_span_unlock(struct mm_buddy *b, struct mmi_buddy_span *span)
{
    uint32_t i;
    for (i = span->last + 1; i-- > span->first;)
        MM_BUDDY_UNLOCK(&b->region[i].lock, span->state[i]);
}

/* First number from n to end - 1 that is not free; `end` if all are. Locks are not needed for an
 * answer that may be out of date. */
static uint32_t mmi_buddy_first_used(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    while (n < end) {
        const uint32_t stop = mmi_buddy_end_of_pb(b, n, end);
        uintptr_t used;
        if (MMI_BUDDY_GET(b->pb[n >> b->pb_order].hint) == MMI_BUDDY_WHOLE) {
            n = stop;
            continue;
        }
        used = ~mm_load(b->bits + MMI_BUDDY_WORD(n)) >> MMI_BUDDY_BIT(n);
        if (used != 0) {
            n += mm_ctz(used);
            return n < end ? n : end;
        }
        n = mmi_buddy_min(((n >> MM_WORD_SHIFT) + 1) << MM_WORD_SHIFT, stop);
    }
    return end;
}

/* First number from n to end - 1 that is free; `end` if none is. As mmi_buddy_first_used. */
static uint32_t mmi_buddy_first_free(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    while (n < end) {
        const uint32_t stop = mmi_buddy_end_of_pb(b, n, end);
        uintptr_t free;
        if (MMI_BUDDY_GET(b->pb[n >> b->pb_order].hint) == MMI_BUDDY_WHOLE)
            return n;
        if (MMI_BUDDY_GET(b->pb[n >> b->pb_order].free) == 0) {
            n = stop;
            continue;
        }
        free = mm_load(b->bits + MMI_BUDDY_WORD(n)) >> MMI_BUDDY_BIT(n);
        if (free != 0) {
            n += mm_ctz(free);
            return n < end ? n : end;
        }
        n = mmi_buddy_min(((n >> MM_WORD_SHIFT) + 1) << MM_WORD_SHIFT, stop);
    }
    return end;
}

/* Is the range free, and no part of it isolated (unless by the caller)? */
static bool mmi_buddy_range_is_free(const struct mm_buddy *b, uint32_t n, uint32_t end,
                                    bool isolated)
{
    uint32_t pb;
    if (mmi_buddy_first_used(b, n, end) != end)
        return false;
    for (pb = n >> b->pb_order; !isolated && pb <= (end - 1) >> b->pb_order; pb++)
        if (b->pb[pb].hint == MMI_BUDDY_ISOLATED)
            return false;
    return true;
}

/* Sets or clears the bits of a range within a page block. */
static void mmi_buddy_pb_bits(struct mm_buddy *b, uint32_t n, uint32_t end, bool set)
{
    while (n < end) {
        uintptr_t *word = b->bits + MMI_BUDDY_WORD(n);
        const uint32_t stop = mmi_buddy_min((MMI_BUDDY_WORD(n) + 1) << MM_WORD_SHIFT, end);
        const uintptr_t mask =
            mmi_buddy_bits(MMI_BUDDY_BIT(n), MMI_BUDDY_BIT(n) + (unsigned)(stop - n));
        MM_BUDDY_ASSERT((mm_load(word) & mask) == (set ? 0 : mask)); /* I2 */
        mm_store(word, set ? mm_load(word) | mask : mm_load(word) & ~mask);
        n = stop;
    }
}

/* Takes a free range; page blocks that were whole get the type. */
static void mmi_buddy_range_take(struct mm_buddy *b, uint32_t n, uint32_t end, unsigned type)
{
    while (n < end) {
        const uint32_t pb = n >> b->pb_order, stop = mmi_buddy_end_of_pb(b, n, end);

        if (b->pb[pb].hint == MMI_BUDDY_WHOLE && stop - n == mmi_buddy_pb_size(b)) {
            mmi_buddy_whole_take(b, pb, type);
            n = stop;
            continue;
        }
        if (b->pb[pb].hint == MMI_BUDDY_WHOLE)
            mmi_buddy_pb_open(b, pb, type);
        mmi_buddy_pb_bits(b, n, stop, false);
        mmi_buddy_unmark(b, n, stop);
        MMI_BUDDY_PUT(b->pb[pb].free, (uint16_t)(b->pb[pb].free - (stop - n)));
        mmi_buddy_free_add(b, mmi_buddy_pb_region(b, pb), (uintptr_t)n - stop);
        if (b->pb[pb].free == 0 && b->pb[pb].hint != MMI_BUDDY_ISOLATED)
            mmi_buddy_pb_hint(b, pb, 0);
        n = stop;
    }
}

/* Gives back a range of which no part is free. */
static void mmi_buddy_range_give(struct mm_buddy *b, uint32_t n, uint32_t end)
{
    while (n < end) {
        const uint32_t pb = n >> b->pb_order, stop = mmi_buddy_end_of_pb(b, n, end);

        mmi_buddy_free_add(b, mmi_buddy_pb_region(b, pb), stop - n);
        if (stop - n == mmi_buddy_pb_size(b) && b->pb[pb].hint != MMI_BUDDY_ISOLATED) {
            mmi_buddy_pb_hint(b, pb, 0);
            mmi_buddy_whole_add(b, pb);
            n = stop;
            continue;
        }
        mmi_buddy_pb_bits(b, n, stop, true);
        MMI_BUDDY_PUT(b->pb[pb].free, (uint16_t)(b->pb[pb].free + (stop - n)));
        if (b->pb[pb].hint != MMI_BUDDY_ISOLATED) {
            if (b->pb[pb].free == mmi_buddy_pb_size(b))
                mmi_buddy_pb_close(b, pb);
            else
                mmi_buddy_pb_hint(b, pb, mmi_buddy_pb_scan(b, pb));
        }
        n = stop;
    }
}

/* ---- Heads ----------------------------------------------------------------------------------- */

/* Writes the heads of a range, as few as alignment allows. A kind of PLAIN stands for one block of
 * any size: FIRST, MIDDLE ..., LAST where it takes several pieces. */
static void mmi_buddy_heads(struct mm_buddy *b, uint32_t n, uint32_t end, unsigned kind)
{
    const bool chain = kind == MMI_BUDDY_PLAIN;
    unsigned next = kind;
    while (n < end) {
        const unsigned order = mmi_buddy_piece(b, n, end);
        const bool last = end - n == 1u << order;
        if (chain && !last)
            next = next == MMI_BUDDY_PLAIN ? MMI_BUDDY_FIRST : MMI_BUDDY_MIDDLE;
        else if (chain && next != MMI_BUDDY_PLAIN)
            next = MMI_BUDDY_LAST;
        if (next == MMI_BUDDY_PLAIN && order == b->pb_order &&
            MMI_BUDDY_GET(b->pb[n >> order].type) == MM_BUDDY_CMA)
            next = MMI_BUDDY_FIXED; /* stays out of the lists of whole page blocks */
        mmi_buddy_set_state(b, n, next | order);
        n += 1u << order;
    }
}

static void mmi_buddy_heads_clear(struct mm_buddy *b, uint32_t n, uint32_t end)
{
    while (n < end) {
        const unsigned order = MMI_BUDDY_ORDER(mmi_buddy_state(b, n));
        mmi_buddy_set_state(b, n, MMI_BUDDY_CLEAR);
        n += 1u << order;
    }
}

/* End of the block or piece whose head is n, an exact block with all its pieces; MMI_BUDDY_NONE if
 * pieces are missing. */
static uint32_t mmi_buddy_block_end(const struct mm_buddy *b, uint32_t n)
{
    unsigned state = mmi_buddy_state(b, n), kind = MMI_BUDDY_KIND(state);
    n += 1u << MMI_BUDDY_ORDER(state);
    if (kind != MMI_BUDDY_FIRST)
        return n;
    do {
        if (n >= b->units)
            return MMI_BUDDY_NONE;
        state = mmi_buddy_state(b, n);
        kind = MMI_BUDDY_KIND(state);
        if (kind != MMI_BUDDY_MIDDLE && kind != MMI_BUDDY_LAST)
            return MMI_BUDDY_NONE;
        n += 1u << MMI_BUDDY_ORDER(state);
    } while (kind == MMI_BUDDY_MIDDLE);
    return n;
}

/* Head of the block or piece that n lies in; MMI_BUDDY_NONE if it lies in none. Each order has one
 * place where such a head can be. */
static uint32_t mmi_buddy_piece_of(const struct mm_buddy *b, uint32_t n)
{
    unsigned order;
    for (order = 0; order < MM_BUDDY_ORDERS; order++) {
        const uint32_t head = n - ((n + b->skew) & ((1u << order) - 1));
        unsigned state;
        if (head > n)
            break; /* below number 0 */
        state = mmi_buddy_state(b, head);
        if (mmi_buddy_is_head(state))
            return MMI_BUDDY_ORDER(state) >= order ? head : MMI_BUDDY_NONE;
    }
    return MMI_BUDDY_NONE;
}

/* As mmi_buddy_piece_of, for the first piece of an exact block. */
static uint32_t mmi_buddy_head_of(const struct mm_buddy *b, uint32_t n)
{
    uint32_t head = mmi_buddy_piece_of(b, n);
    while (head != MMI_BUDDY_NONE && head > 0) {
        const unsigned kind = MMI_BUDDY_KIND(mmi_buddy_state(b, head));
        if (kind != MMI_BUDDY_MIDDLE && kind != MMI_BUDDY_LAST)
            break;
        head = mmi_buddy_piece_of(b, head - 1);
    }
    return head;
}

/* ---- Misuse ---------------------------------------------------------------------------------- */

static enum mm_status mmi_buddy_refuse(struct mm_buddy *b, const char *where, const char *what,
                                       mm_pa_t pa, enum mm_status status)
{
    mmi_buddy_count(&b->misuse, 1);
#if MM_BUDDY_DEBUG >= 1
    {
        struct mm_report report;
        report.where = where;
        report.what = what;
        report.status = status;
        report.address = pa;
        report.object = b;
        MM_BUDDY_REPORT(&report);
    }
#else
    (void)where;
    (void)what;
    (void)pa;
#endif
    return status;
}

/* Tells why no block that may be freed starts at `pa`. */
static enum mm_status mmi_buddy_wild(struct mm_buddy *b, const char *where, mm_pa_t pa)
{
    const uint32_t n = mmi_buddy_number(b, pa);
    uint32_t head;
    unsigned state;

    if (pa < mmi_buddy_pa(b, b->first) || pa - b->base >= mmi_buddy_bytes(b, b->units))
        return mmi_buddy_refuse(b, where, "address outside the arena", pa, MM_ERR_INVALID);
    if (n == MMI_BUDDY_NONE)
        return mmi_buddy_refuse(b, where, "misaligned address", pa, MM_ERR_ALIGN);
    state = mmi_buddy_state(b, n);
    head = mmi_buddy_piece_of(b, n);
    if (head != MMI_BUDDY_NONE && MMI_BUDDY_KIND(mmi_buddy_state(b, head)) == MMI_BUDDY_RESERVED)
        return mmi_buddy_refuse(b, where, "reserved memory", pa, MM_ERR_PERM);
    if (MMI_BUDDY_KIND(state) == MMI_BUDDY_MIDDLE || MMI_BUDDY_KIND(state) == MMI_BUDDY_LAST)
        return mmi_buddy_refuse(b, where, "address inside a block", pa, MM_ERR_ALIGN);
    if (mmi_buddy_is_head(state))
        return mmi_buddy_refuse(b, where, "wrong size", pa, MM_ERR_INVALID);
    if (head != MMI_BUDDY_NONE)
        return mmi_buddy_refuse(b, where, "address inside a block", pa, MM_ERR_ALIGN);
    return mmi_buddy_refuse(b, where, "double or wild free", pa, MM_ERR_INVALID);
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

MM_BUDDY_API void mm_buddy_config_init(struct mm_buddy_config *config, mm_pa_t base, uint64_t bytes,
                                       unsigned min_shift, unsigned max_order)
{
    config->base = base;
    config->bytes = bytes;
    config->span = 0;
    config->min_shift = min_shift;
    config->max_order = max_order;
    config->pb_order = 0;
    config->regions = 0;
    config->cpu_lists = true;
    config->pointer_offset = 0;
    config->hooks = NULL;
}

/* Where the parts of the metadata lie, in bytes from its aligned start. */
struct mmi_buddy_layout {
    mm_pa_t base;
    uint32_t first, present_end, units, cpus;
    uint32_t pb_order, region_shift, regions, skew, pb_skew, set_summary, set_words;
    uint64_t pb, state, bits, region, sets, sets_size, cpu, end;
};

static uint64_t mmi_buddy_lines(uint64_t bytes)
{
    return mm_align_up(bytes, MM_BUDDY_CACHE_LINE);
}

/* Regions: as few as asked for, or four a CPU of at least 64 page blocks each; a region has at most
 * 2^26 smallest blocks, so that numbers cannot wrap. */
static void mmi_buddy_layout_regions(struct mmi_buddy_layout *l, unsigned wanted)
{
    unsigned most = wanted, shift = wanted != 0 ? 0 : 6;
    uint32_t pb_end = (l->units - 1) >> l->pb_order;
    uint32_t above = l->skew >> l->pb_order;

    if (wanted == 0)
        most = MMI_SMP ? 4u * MM_CPU_MAX : 1;
    if (most > MM_WORD_BITS)
        most = MM_WORD_BITS;
    for (;; shift++) {
        l->pb_skew = above & ((1u << shift) - 1);
        l->regions = ((pb_end + l->pb_skew) >> shift) + 1;
        if (l->regions <= most || (shift + l->pb_order >= 26 && l->regions <= MM_WORD_BITS))
            break;
    }
    l->region_shift = shift;
    l->set_words = ((1u << shift) + MM_WORD_BITS - 1) >> MM_WORD_SHIFT;
    l->set_summary = (l->set_words + MM_WORD_BITS - 1) >> MM_WORD_SHIFT;
    l->set_words += l->set_summary;
}

static void mmi_buddy_layout_place(struct mmi_buddy_layout *l, bool lists)
{
    const uint32_t pbs = ((l->units - 1) >> l->pb_order) + 1;
    const uint32_t sets = MM_BUDDY_TYPES * l->pb_order + 2;
    uint64_t at = 0;

    l->region = at;
    at += l->regions * sizeof(struct mmi_buddy_region);
    l->sets = at;
    l->sets_size = mmi_buddy_lines((uint64_t)(sets * l->set_words) * sizeof(uintptr_t));
    for (uint32_t i = 0; i < l->regions; i++)
        at += l->sets_size;
    l->cpu = at;
    l->cpus = 0;
    if (lists && (uint64_t)MM_CPU_MAX * sizeof(struct mmi_buddy_cpu) <= l->units - l->units / 4) {
        l->cpus = MM_CPU_MAX;
        at += (uint64_t)MM_CPU_MAX * sizeof(struct mmi_buddy_cpu);
    }
    l->bits = at;
    at += mmi_buddy_lines(pbs << (l->pb_order - 3));
    l->pb = at;
    at += mmi_buddy_lines((uint64_t)pbs * sizeof(struct mmi_buddy_pb));
    l->state = at;
    l->end = at + l->units;
}

static bool mmi_buddy_config_valid(const struct mm_buddy_config *c, unsigned pb_order)
{
    return c->min_shift >= 4 && c->min_shift <= 30 && c->max_order < MM_BUDDY_ORDERS &&
           pb_order >= 6 && pb_order <= MM_BUDDY_PB_ORDER_MAX && c->regions <= MM_BUDDY_REGIONS_MAX;
}

static enum mm_status mmi_buddy_lay_out(const struct mm_buddy_config *c, struct mmi_buddy_layout *l)
{
    const uint64_t span = c->span != 0 ? c->span : c->bytes;
    const unsigned pb_order = c->pb_order != 0 ? c->pb_order : MM_BUDDY_PB_ORDER;
    uint64_t unit, start, end, present;

    if (!mmi_buddy_config_valid(c, pb_order))
        return MM_ERR_INVALID;
    unit = (uint64_t)(1u << c->min_shift);
    if (span < c->bytes || mm_add_overflows(c->base, span, &end) ||
        mm_add_overflows(c->base, unit - 1, &start))
        return MM_ERR_INVALID;
    start = mm_align_down(start, unit);
    present = mm_align_down(c->base + c->bytes, unit);
    end = mm_align_down(end, unit);
    if (present <= start)
        return MM_ERR_INVALID;
    l->pb_order = pb_order;
    l->skew = mmi_buddy_shift_low(start, c->min_shift);
    for (l->base = start; (l->skew & ((1u << pb_order) - 1)) != 0; l->skew--)
        l->base -= unit;
    l->first = mmi_buddy_shift(start - l->base, c->min_shift);
    l->present_end = mmi_buddy_shift(present - l->base, c->min_shift);
    l->units = mmi_buddy_shift(end - l->base, c->min_shift);
    if (l->units > 0xffffffffu - (1u << 27))
        return MM_ERR_LIMIT;
    mmi_buddy_layout_regions(l, c->regions);
    mmi_buddy_layout_place(l, c->cpu_lists);
    return MM_OK;
}

MM_BUDDY_API size_t mm_buddy_meta_bytes(const struct mm_buddy_config *config)
{
    struct mmi_buddy_layout l;
    if (config == NULL || mmi_buddy_lay_out(config, &l) != MM_OK ||
        l.end > SIZE_MAX - MM_BUDDY_CACHE_LINE)
        return 0;
    return (size_t)l.end + MM_BUDDY_CACHE_LINE - 1;
}

/* The arena's parts over cleared metadata; nothing is present yet. */
static void mmi_buddy_build(struct mm_buddy *b, const struct mm_buddy_config *c,
                            const struct mmi_buddy_layout *l, unsigned char *meta)
{
    uint32_t i;

    MM_BUDDY_MEMSET(b, 0, sizeof *b);
    MM_BUDDY_MEMSET(meta, 0, (size_t)l->state);
    MM_BUDDY_MEMSET(meta + l->state, MMI_BUDDY_ABSENT, l->units);
    b->base = l->base;
    b->state = meta + l->state;
    b->cpu = (struct mmi_buddy_cpu *)(void *)(meta + l->cpu);
    b->pb = (struct mmi_buddy_pb *)(void *)(meta + l->pb);
    b->bits = (uintptr_t *)(void *)(meta + l->bits);
    b->region = (struct mmi_buddy_region *)(void *)(meta + l->region);
    b->units = l->units;
    b->cpus = l->cpus;
    b->pb_order = l->pb_order;
    b->min_shift = c->min_shift;
    b->max_order = c->max_order;
    b->first = l->first;
    b->pbs = ((l->units - 1) >> l->pb_order) + 1;
    b->skew = l->skew;
    b->pb_skew = l->pb_skew;
    b->region_shift = l->region_shift;
    b->regions = l->regions;
    b->set_words = l->set_words;
    b->set_summary = l->set_summary;
    b->report_order = MM_BUDDY_ORDERS;
    b->hooks = c->hooks;
    b->pointer_offset = c->pointer_offset;
    MM_BUDDY_LOCK_INIT(&b->lock);
    for (i = 0; i < b->regions; i++) {
        MM_BUDDY_LOCK_INIT(&b->region[i].lock);
        b->region[i].sets =
            (uintptr_t *)(void *)(meta + l->sets + (size_t)i * (size_t)l->sets_size);
    }
}

/* Order of the blocks in a stack. */
static unsigned mmi_buddy_stack_order(const struct mm_buddy *b, unsigned stack)
{
    if (stack == MMI_BUDDY_STACK_HUGE)
        return b->pb_order;
    return stack < MMI_BUDDY_STACK_HUGE ? stack / 3 : stack - MMI_BUDDY_STACK_FREED;
}

static unsigned mmi_buddy_stack_slots(const struct mm_buddy *b, unsigned stack)
{
    return stack == MMI_BUDDY_STACK_HUGE
               ? MMI_BUDDY_HUGE_SLOTS
               : (unsigned)MM_BUDDY_CPU_SLOTS >> mmi_buddy_stack_order(b, stack);
}

static void mmi_buddy_build_lists(struct mm_buddy *b)
{
    uint32_t i;
    unsigned stack, at;

    b->high = MM_BUDDY_CPU_SLOTS;
    b->batch = MM_BUDDY_CPU_SLOTS / 2;
    if (b->max_order >= b->pb_order) /* their list takes in and hands out: no larger than allowed */
        b->huge_high = mmi_buddy_min(MMI_BUDDY_HUGE_SLOTS, b->pbs / (64 * MM_CPU_MAX));
    for (i = 0; i < b->cpus; i++) {
        struct mmi_buddy_cpu *c = &b->cpu[i];
        for (stack = 0, at = 0; stack < MMI_BUDDY_STACKS; stack++) {
            at += mmi_buddy_stack_slots(b, stack);
            c->pos[stack] = c->end[stack] = c->floor[stack] = (uint16_t)at;
        }
        c->owner = (uintptr_t)i + 1;
        c->home = b->regions; /* none yet */
    }
}

static void mmi_buddy_present(struct mm_buddy *b, uint32_t n, uint32_t end)
{
    struct mmi_buddy_span span;
    uint32_t i;

    for (i = n; i < end; i++)
        mmi_buddy_set_state(b, i, MMI_BUDDY_CLEAR);
    mmi_buddy_span_lock(b, &span, n, end);
    mmi_buddy_range_give(b, n, end);
    mmi_buddy_span_unlock(b, &span);
    mm_store(&b->total, mm_load(&b->total) + (end - n));
}

static void mmi_buddy_setup(struct mm_buddy *b, const struct mm_buddy_config *config,
                            const struct mmi_buddy_layout *l, uintptr_t meta, uint32_t first)
{
    meta = (meta + MM_BUDDY_CACHE_LINE - 1) & ~(uintptr_t)(MM_BUDDY_CACHE_LINE - 1);
    mmi_buddy_build(b, config, l, (unsigned char *)meta);
    mmi_buddy_build_lists(b);
    mmi_buddy_present(b, first, l->present_end);
}

MM_BUDDY_API enum mm_status mm_buddy_init(struct mm_buddy *b, const struct mm_buddy_config *config,
                                          void *meta, size_t meta_bytes)
{
    struct mmi_buddy_layout l;
    enum mm_status status;

    if (b == NULL || config == NULL || meta == NULL)
        return MM_ERR_INVALID;
    status = mmi_buddy_lay_out(config, &l);
    if (status != MM_OK)
        return status;
    if (mm_buddy_meta_bytes(config) == 0 || meta_bytes < mm_buddy_meta_bytes(config))
        return MM_ERR_NOMEM;
    mmi_buddy_setup(b, config, &l, (uintptr_t)meta, l.first);
    return MM_OK;
}

MM_BUDDY_API enum mm_status mm_buddy_init_inside(struct mm_buddy *b,
                                                 const struct mm_buddy_config *config)
{
    struct mmi_buddy_layout l;
    enum mm_status status;
    uint32_t used;

    if (b == NULL || config == NULL)
        return MM_ERR_INVALID;
    status = mmi_buddy_lay_out(config, &l);
    if (status != MM_OK)
        return status;
    if (mm_buddy_meta_bytes(config) == 0)
        return MM_ERR_NOMEM;
    used = mmi_buddy_shift(mm_buddy_meta_bytes(config) - 1, config->min_shift);
    if (used >= l.present_end - l.first - 1)
        return MM_ERR_NOMEM;
    /* Rounded up from the first whole smallest block: what lies below it is not the arena's. */
    b->base = l.base;
    b->min_shift = config->min_shift;
    mmi_buddy_setup(b, config, &l, (uintptr_t)mmi_buddy_pa(b, l.first) + config->pointer_offset,
                    l.first + used + 1);
    return MM_OK;
}

/* Rounds [*from, *to) to smallest blocks of `unit` bytes: outwards (1), inwards (-1), or it must be
 * whole (0). */
static enum mm_status mmi_buddy_round(uint64_t unit, int round, uint64_t *from, uint64_t *to)
{
    if (round == 0 && ((*from | *to) & (unit - 1)) != 0)
        return MM_ERR_ALIGN;
    if (mm_add_overflows(*from, round < 0 ? unit - 1 : 0, from) ||
        mm_add_overflows(*to, round > 0 ? unit - 1 : 0, to))
        return MM_ERR_INVALID;
    *from = mm_align_down(*from, unit);
    *to = mm_align_down(*to, unit);
    return MM_OK;
}

/* A range of addresses as numbers; outwards if `round` is positive, inwards if negative, else it
 * has to be aligned. */
static enum mm_status mmi_buddy_range(const struct mm_buddy *b, mm_pa_t pa, uint64_t bytes,
                                      int round, uint32_t *n, uint32_t *end)
{
    uint64_t from = pa - b->base, to;
    enum mm_status status;

    if (pa < b->base || bytes == 0 || mm_add_overflows(from, bytes, &to))
        return MM_ERR_INVALID;
    status = mmi_buddy_round(1u << b->min_shift, round, &from, &to);
    if (status != MM_OK)
        return status;
    if (from >= to || from < mmi_buddy_bytes(b, b->first) || to > mmi_buddy_bytes(b, b->units))
        return MM_ERR_INVALID;
    *n = mmi_buddy_shift(from, b->min_shift);
    *end = mmi_buddy_shift(to, b->min_shift);
    return MM_OK;
}

/* Is every smallest block of the range absent (or: is any)? */
static bool mmi_buddy_all_absent(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    while (n < end && mmi_buddy_state(b, n) == MMI_BUDDY_ABSENT)
        n++;
    return n == end;
}
static bool mmi_buddy_any_absent(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    while (n < end && mmi_buddy_state(b, n) != MMI_BUDDY_ABSENT)
        n++;
    return n != end;
}

MM_BUDDY_API enum mm_status mm_buddy_grow(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes)
{
    MM_BUDDY_LOCK_STATE_T lock;
    uint32_t n, end;
    enum mm_status status = mmi_buddy_range(b, pa, bytes, -1, &n, &end);

    if (status != MM_OK)
        return status;
    MM_BUDDY_LOCK(&b->lock, lock);
    if (mmi_buddy_all_absent(b, n, end))
        mmi_buddy_present(b, n, end);
    else
        status = MM_ERR_EXISTS;
    MM_BUDDY_UNLOCK(&b->lock, lock);
    mmi_buddy_debug(b);
    return status;
}

/* ---- Taking from regions --------------------------------------------------------------------- */

static uintptr_t mmi_buddy_free_units(const struct mm_buddy *b)
{
    uintptr_t free = 0;
    uint32_t i;
    for (i = 0; i < b->regions; i++)
        free += mm_load(&b->region[i].free);
    return free;
}

/* Lowest free block of `order` >= pb_order that lies in one region, as a local page block number;
 * type CMA may mix page blocks of that type with others. */
static uint32_t mmi_buddy_whole_run(const struct mm_buddy *b, uint32_t region, unsigned order,
                                    unsigned type)
{
    const unsigned run = order - b->pb_order;
    const uintptr_t *set = mmi_buddy_whole(b, region, MM_BUDDY_UNMOVABLE) + b->set_summary;
    const uintptr_t *cma = mmi_buddy_whole(b, region, MM_BUDDY_CMA) + b->set_summary;
    const uint32_t words = b->set_words - b->set_summary;
    const uint32_t step = run < MM_WORD_SHIFT ? 1 : 1u << (run - MM_WORD_SHIFT);
    uint32_t i, k;

    for (i = 0; i < words; i += step) {
        uintptr_t all = ~(uintptr_t)0;
        for (k = i; k < i + step && all != 0; k++)
            all &= mm_load(set + k) | (type == MM_BUDDY_CMA ? mm_load(cma + k) : 0);
        if (run < MM_WORD_SHIFT)
            all = mmi_buddy_runs(all, run);
        else if (all != ~(uintptr_t)0)
            continue;
        if (all != 0)
            return (i << MM_WORD_SHIFT) + mm_ctz(all);
    }
    return MMI_BUDDY_NONE;
}

/* Could the region have a block of `order` for the type? Without its lock, for a start. */
static bool mmi_buddy_may(const struct mm_buddy *b, uint32_t region, unsigned order, unsigned type)
{
    if (order > b->pb_order)
        return mm_load(&b->region[region].whole) >> (order - b->pb_order) != 0;
    if (order < b->pb_order && !mmi_buddy_set_empty(b, mmi_buddy_partial(b, region, type, order)))
        return true;
    return !mmi_buddy_set_empty(b, mmi_buddy_whole(b, region, type));
}

/* Fetches the bitmap of the page block that follows in the set, if it stands in the same word. */
static inline void mmi_buddy_fetch_next(const struct mm_buddy *b, uint32_t region,
                                        const uintptr_t *set, uint32_t local)
{
    const uintptr_t next =
        mm_load(set + b->set_summary + MMI_BUDDY_WORD(local)) & ~mm_mask(MMI_BUDDY_BIT(local) + 1);
    if (next != 0) {
        local = (local & ~(MM_WORD_BITS - 1u)) + mm_ctz(next);
        MMI_BUDDY_PREFETCH(b->bits +
                           (size_t)mmi_buddy_pb_global(b, region, local) * mmi_buddy_pb_words(b));
    }
}

/* Takes up to `want` whole page blocks of the type, lowest first; returns how many. The region's
 * lock is held. */
static uint32_t mmi_buddy_wholes_take(struct mm_buddy *b, uint32_t region, unsigned type,
                                      uint32_t want, uint32_t *out)
{
    uintptr_t *set = mmi_buddy_whole(b, region, type), *word, bits;
    const unsigned becomes = type == MM_BUDDY_CMA ? (unsigned)MM_BUDDY_MOVABLE : type;
    uint32_t got = 0, first, pb;

    while (got < want && (first = mmi_buddy_set_first(b, set)) != MMI_BUDDY_NONE) {
        first &= ~(MM_WORD_BITS - 1u);
        word = set + b->set_summary + MMI_BUDDY_WORD(first);
        for (bits = mm_load(word); bits != 0 && got < want; bits &= bits - 1) {
            pb = mmi_buddy_pb_global(b, region, first + mm_ctz(bits));
            MM_BUDDY_ASSERT(b->pb[pb].hint == MMI_BUDDY_WHOLE);
            MMI_BUDDY_PUT(b->pb[pb].hint, (uint8_t)0);
            mmi_buddy_pb_claim(b, pb, becomes);
            out[got++] = pb << b->pb_order;
        }
        mmi_buddy_set_word(set, b->set_summary, MMI_BUDDY_WORD(first), bits);
    }
    if (b->report != 0)
        for (pb = 0; pb < got; pb++)
            mmi_buddy_unmark(b, out[pb], out[pb] + mmi_buddy_pb_size(b));
    mmi_buddy_whole_count(b, region, 0 - (uintptr_t)got);
    mmi_buddy_free_add(b, region, 0 - ((uintptr_t)got << b->pb_order));
    return got;
}

/* Takes up to `want` blocks out of a region: page blocks of the type first, then whole ones.
 * Returns how many. */
static uint32_t mmi_buddy_region_take(struct mm_buddy *b, uint32_t region, unsigned order,
                                      unsigned type, uint32_t want, uint32_t *out)
{
    struct mmi_buddy_region *r = &b->region[region];
    MM_BUDDY_LOCK_STATE_T lock;
    uint32_t got = 0, local, pb, k;

    MM_BUDDY_LOCK(&r->lock, lock);
    while (got < want && order < b->pb_order) {
        local = mmi_buddy_set_first(b, mmi_buddy_partial(b, region, type, order));
        if (local == MMI_BUDDY_NONE) {
            local = mmi_buddy_set_first(b, mmi_buddy_whole(b, region, type));
            if (local == MMI_BUDDY_NONE)
                break;
            mmi_buddy_pb_open(b, mmi_buddy_pb_global(b, region, local), type);
        }
        mmi_buddy_fetch_next(b, region, mmi_buddy_partial(b, region, type, order), local);
        got += mmi_buddy_pb_take(b, mmi_buddy_pb_global(b, region, local), order, want - got,
                                 out + got);
    }
    if (order == b->pb_order)
        got = mmi_buddy_wholes_take(b, region, type, want, out);
    while (got < want && order > b->pb_order) {
        local = mmi_buddy_whole_run(b, region, order, type);
        if (local == MMI_BUDDY_NONE)
            break;
        pb = mmi_buddy_pb_global(b, region, local);
        for (k = 0; k < 1u << (order - b->pb_order); k++)
            mmi_buddy_whole_take(b, pb + k,
                                 type == MM_BUDDY_CMA ? (unsigned)MM_BUDDY_MOVABLE : type);
        out[got++] = pb << b->pb_order;
    }
    mm_store(&r->refills, mm_load(&r->refills) + (got != 0));
    MM_BUDDY_UNLOCK(&r->lock, lock);
    return got;
}

/* Takes one block that is larger than a region. */
static uint32_t mmi_buddy_regions_take(struct mm_buddy *b, unsigned order, unsigned type,
                                       uint32_t *out)
{
    const uint32_t size = 1u << order;
    uint32_t n = (0u - b->skew) & (size - 1);
    struct mmi_buddy_span span;

    for (; n < b->units && size <= b->units - n; n += size) {
        bool found;
        uint32_t i;
        if (mmi_buddy_first_used(b, n, n + size) != n + size)
            continue;
        mmi_buddy_span_lock(b, &span, n, n + size);
        found = mmi_buddy_range_is_free(b, n, n + size, false);
        for (i = n; found && type != MM_BUDDY_MOVABLE && i < n + size; i += 1u << b->pb_order)
            found = b->pb[i >> b->pb_order].type != MM_BUDDY_CMA;
        if (found)
            mmi_buddy_range_take(b, n, n + size, type);
        mmi_buddy_span_unlock(b, &span);
        if (found) {
            out[0] = n;
            return 1;
        }
        if (size > b->units - n - size)
            break;
    }
    return 0;
}

/* Is the region a fit home for the CPU: nobody else's, and a sixteenth of it free? */
static bool mmi_buddy_roomy(const struct mm_buddy *b, uint32_t region, uintptr_t self)
{
    const uintptr_t owner = mm_load(&b->region[region].owner);
    const unsigned shift = b->region_shift + b->pb_order;
    return (owner == 0 || owner == self) &&
           mm_load(&b->region[region].free) >> (shift > 4 ? shift - 4 : 0) != 0;
}

/* Makes the region the CPU's home instead of its old one; false if another CPU was faster. A CPU
 * without lists has no home. */
static bool mmi_buddy_move_home(struct mm_buddy *b, unsigned cpu, uint32_t region)
{
    const uintptr_t self = (uintptr_t)cpu + 1;
    uintptr_t old;
    if (cpu >= b->cpus)
        return true;
    old = mm_load(&b->cpu[cpu].home);
    if (old == region)
        return true;
    if (!mm_cas(&b->region[region].owner, 0, self))
        return false;
    mm_store(&b->cpu[cpu].home, region);
    if (old < b->regions)
        (void)mm_cas(&b->region[old].owner, self, 0);
    return true;
}

/* Takes from one of the regions in `may`; while `strict` from one with room, which becomes the
 * CPU's home. Each CPU begins at a place of its own, so that it comes back to the regions whose
 * lines it has. */
static uint32_t mmi_buddy_take_among(struct mm_buddy *b, unsigned cpu, unsigned order,
                                     unsigned type, uint32_t want, uint32_t *out, uintptr_t may,
                                     bool strict)
{
    const uintptr_t behind = cpu < b->cpus ? ~mm_mask(cpu * b->regions / MM_CPU_MAX) : 0;
    uint32_t i, got = 0;
    for (; may != 0 && got == 0; may &= ~mm_bit(i)) {
        i = mm_ctz((may & behind) != 0 ? may & behind : may);
        if (!strict ||
            (mmi_buddy_roomy(b, i, (uintptr_t)cpu + 1) && mmi_buddy_move_home(b, cpu, i)))
            got = mmi_buddy_region_take(b, i, order, type, want, out);
    }
    return got;
}

/* Takes up to `want` blocks out of page blocks of the type and whole ones: from the CPU's home
 * region, else from the next that is fit for a home, else from any. */
static uint32_t mmi_buddy_take_type(struct mm_buddy *b, unsigned cpu, unsigned order, unsigned type,
                                    uint32_t want, uint32_t *out)
{
    const uintptr_t home = cpu < b->cpus ? mm_load(&b->cpu[cpu].home) : b->regions;
    uintptr_t may = 0;
    uint32_t i, got;

    if (home < b->regions && mmi_buddy_may(b, (uint32_t)home, order, type)) {
        got = mmi_buddy_region_take(b, (uint32_t)home, order, type, want, out);
        if (MM_LIKELY(got != 0))
            return got;
    }
    for (i = 0; i < b->regions; i++)
        if (mmi_buddy_may(b, i, order, type))
            may |= mm_bit(i);
    got = mmi_buddy_take_among(b, cpu, order, type, want, out, may, true);
    return got != 0 ? got : mmi_buddy_take_among(b, cpu, order, type, want, out, may, false);
}

/* Takes over a page block of another type. */
static void mmi_buddy_retype(struct mm_buddy *b, uint32_t pb, unsigned type)
{
    const unsigned hint = b->pb[pb].hint;
    mmi_buddy_pb_hint(b, pb, 0);
    MMI_BUDDY_PUT(b->pb[pb].type, (uint8_t)type);
    mmi_buddy_pb_hint(b, pb, hint);
}

/* Takes blocks out of a region's page blocks of type `other`, those with the largest free blocks
 * first: whole page blocks are gone by now. One that is half free changes its type. */
static uint32_t mmi_buddy_region_steal(struct mm_buddy *b, uint32_t region, unsigned order,
                                       unsigned type, unsigned other, uint32_t want, uint32_t *out)
{
    struct mmi_buddy_region *r = &b->region[region];
    MM_BUDDY_LOCK_STATE_T lock;
    unsigned k = b->pb_order;
    uint32_t got = 0, local, pb;

    MM_BUDDY_LOCK(&r->lock, lock);
    while (got == 0 && k-- > order) {
        while (got == 0) {
            local = mmi_buddy_set_first(b, mmi_buddy_partial(b, region, other, k));
            if (local == MMI_BUDDY_NONE)
                break;
            pb = mmi_buddy_pb_global(b, region, local);
            mmi_buddy_pb_hint(b, pb, mmi_buddy_pb_scan(b, pb)); /* it may be less by now */
            if (b->pb[pb].hint <= k)
                continue;
            if (b->pb[pb].free >= mmi_buddy_pb_size(b) / 2) {
                mmi_buddy_retype(b, pb, type);
                mm_store(&r->steals, mm_load(&r->steals) + 1);
            }
            got = mmi_buddy_pb_take(b, pb, order, b->pb[pb].type == type ? want : 1, out);
            mm_store(&r->fallbacks, mm_load(&r->fallbacks) + 1);
        }
    }
    MM_BUDDY_UNLOCK(&r->lock, lock);
    return got;
}

static uint32_t mmi_buddy_take_other(struct mm_buddy *b, unsigned order, unsigned type,
                                     uint32_t want, uint32_t *out)
{
    static const uint8_t others[3][2] = {{MM_BUDDY_RECLAIMABLE, MM_BUDDY_MOVABLE},
                                         {MM_BUDDY_UNMOVABLE, MM_BUDDY_MOVABLE},
                                         {MM_BUDDY_RECLAIMABLE, MM_BUDDY_UNMOVABLE}};
    uint32_t i, got;
    unsigned k;

    for (k = 0; k < 2; k++) {
        for (i = 0; i < b->regions; i++) {
            if (mmi_buddy_set_empty(b, mmi_buddy_partial(b, i, others[type][k], order)))
                continue;
            got = mmi_buddy_region_steal(b, i, order, type, others[type][k], want, out);
            if (got != 0)
                return got;
        }
    }
    return 0;
}

/* Takes up to `want` blocks from wherever the type may; at least one if there is one. */
static uint32_t mmi_buddy_take(struct mm_buddy *b, unsigned cpu, unsigned order, unsigned type,
                               uint32_t want, uint32_t *out)
{
    uint32_t got;
    if (order > b->pb_order + b->region_shift)
        return mmi_buddy_regions_take(b, order, type, out);
    got = mmi_buddy_take_type(b, cpu, order, type, want, out);
    if (got == 0 && type == MM_BUDDY_MOVABLE)
        got = mmi_buddy_take_type(b, cpu, order, MM_BUDDY_CMA, want, out);
    if (got == 0 && order < b->pb_order)
        got = mmi_buddy_take_other(b, order, type, want, out);
    return got;
}

/* ---- Giving back to regions ------------------------------------------------------------------ */

/* Gives back blocks of one order up to 3, as many from the list's start as lie in the region, whose
 * lock the caller holds; returns how many. Blocks in the same word, next to each other in the list,
 * cost one access. */
static inline __attribute__((always_inline)) uint32_t
mmi_buddy_give_small(struct mm_buddy *b, uint32_t region, const uint32_t *list, uint32_t count,
                     unsigned order)
{
    struct mmi_buddy_region *r = &b->region[region];
    const uintptr_t block = mm_mask(1u << order);
    const unsigned pb_words = b->pb_order - MM_WORD_SHIFT;
    const uint32_t start = mmi_buddy_region_start(b, region), last = mmi_buddy_region_last(b);
    const struct mmi_buddy_pb *const pbs = b->pb;
    uintptr_t *const words = b->bits;
    uintptr_t given = 0;
    uint32_t i = 0;

    while (i < count && list[i] - start <= last) {
        const uint32_t word = MMI_BUDDY_WORD(list[i]);
        const unsigned first = MMI_BUDDY_BIT(list[i]);
        uintptr_t mask = 0, old = mm_load(words + word);
        uint32_t blocks = 0;
        if (MM_UNLIKELY(pbs[word >> pb_words].hint == MMI_BUDDY_WHOLE))
            old = ~(uintptr_t)0;
        do {
            const uintptr_t bit = block << MMI_BUDDY_BIT(list[i]);
            if (MM_UNLIKELY(((old | mask) & bit) != 0)) { /* two CPUs freed it at once */
                mm_store(&r->misuse, mm_load(&r->misuse) + 1);
                continue;
            }
            mask |= bit;
            blocks++;
        } while (++i < count && MMI_BUDDY_WORD(list[i]) == word);
        if (MM_UNLIKELY(blocks == 0))
            continue;
        mm_store(words + word, old | mask);
        mmi_buddy_pb_freed(b, word, old | mask, first, blocks << order, order);
        given += (uintptr_t)blocks << order;
    }
    mmi_buddy_free_add(b, region, given);
    return i;
}

/* Adds bits to a word of a set of whole page blocks. */
static void mmi_buddy_wholes_add(const struct mm_buddy *b, uintptr_t *set, uint32_t word,
                                 uintptr_t bits)
{
    uintptr_t *summary = set + (word >> MM_WORD_SHIFT);
    const uintptr_t old = mm_load(set + b->set_summary + word);
    MM_BUDDY_ASSERT((old & bits) == 0);
    mm_store(set + b->set_summary + word, old | bits);
    if (old == 0)
        mm_store(summary, mm_load(summary) | mm_bit(MMI_BUDDY_BIT(word)));
}

/* The same for blocks of pb_order: those next to each other in the list, of the same word of a set,
 * cost one access to it. */
static uint32_t mmi_buddy_give_huge(struct mm_buddy *b, uint32_t region, const uint32_t *list,
                                    uint32_t count)
{
    struct mmi_buddy_region *r = &b->region[region];
    uintptr_t *const sets[2] = {mmi_buddy_whole(b, region, MM_BUDDY_UNMOVABLE),
                                mmi_buddy_whole(b, region, MM_BUDDY_CMA)};
    const uint32_t start = mmi_buddy_region_start(b, region), last = mmi_buddy_region_last(b);
    const unsigned order = b->pb_order;
    struct mmi_buddy_pb *const pbs = b->pb;
    uintptr_t *set = NULL, *to, bits = 0;
    uint32_t i, local, word = 0, given = 0, whole = 0;

    for (i = 0; i < count && list[i] - start <= last; i++) {
        struct mmi_buddy_pb *const pb = &pbs[list[i] >> order];
        const unsigned hint = pb->hint;
        if (MM_UNLIKELY(pb->free != 0 || hint == MMI_BUDDY_WHOLE)) {
            mm_store(&r->misuse, mm_load(&r->misuse) + 1);
            continue;
        }
        given++;
        if (MM_UNLIKELY(hint == MMI_BUDDY_ISOLATED)) {
            mmi_buddy_pb_fill(b, list[i] >> order, ~(uintptr_t)0);
            continue;
        }
        whole++;
        MMI_BUDDY_PUT(pb->hint, (uint8_t)MMI_BUDDY_WHOLE);
        local = (list[i] - start) >> order;
        to = sets[pb->type == MM_BUDDY_CMA];
        if (bits != 0 && (to != set || MMI_BUDDY_WORD(local) != word)) {
            mmi_buddy_wholes_add(b, set, word, bits);
            bits = 0;
        }
        set = to;
        word = MMI_BUDDY_WORD(local);
        bits |= mm_bit(MMI_BUDDY_BIT(local));
    }
    if (bits != 0)
        mmi_buddy_wholes_add(b, set, word, bits);
    mmi_buddy_whole_count(b, region, whole);
    mmi_buddy_free_add(b, region, (uintptr_t)given << order);
    return i;
}

/* Gives back the blocks at the list's start that lie in the same region as the first. */
static uint32_t mmi_buddy_give_region(struct mm_buddy *b, const uint32_t *list, uint32_t count,
                                      unsigned order)
{
    const uint32_t region = mmi_buddy_region_of(b, list[0]);
    struct mmi_buddy_region *r = &b->region[region];
    MM_BUDDY_LOCK_STATE_T lock;
    uint32_t given;

    MM_BUDDY_LOCK(&r->lock, lock);
    if (MM_LIKELY(order == 0))
        given = mmi_buddy_give_small(b, region, list, count, 0);
    else if (order < MM_BUDDY_CACHED_ORDERS)
        given = mmi_buddy_give_small(b, region, list, count, order);
    else
        given = mmi_buddy_give_huge(b, region, list, count);
    mm_store(&r->flushes, mm_load(&r->flushes) + 1);
    MM_BUDDY_UNLOCK(&r->lock, lock);
    return given;
}

/* Sorts blocks by region, and fetches what giving them back will touch. */
static void mmi_buddy_sort(const struct mm_buddy *b, const uint32_t *list, uint32_t count,
                           uint32_t *sorted)
{
    const unsigned shift = b->pb_order, region_shift = b->region_shift;
    const uint32_t skew = b->pb_skew, regions = b->regions;
    const struct mmi_buddy_pb *const pbs = b->pb;
    const uintptr_t *const words = b->bits;
    uint16_t start[MM_BUDDY_REGIONS_MAX + 1];
    uint32_t i;

    for (i = 0; i <= regions; i++)
        start[i] = 0;
    for (i = 0; i < count; i++) {
        const uint32_t pb = list[i] >> shift;
        MMI_BUDDY_PREFETCH(words + MMI_BUDDY_WORD(list[i]));
        MMI_BUDDY_PREFETCH(pbs + pb);
        start[((pb + skew) >> region_shift) + 1]++;
    }
    for (i = 0; i < regions; i++)
        start[i + 1] = (uint16_t)(start[i + 1] + start[i]);
    for (i = 0; i < count; i++)
        sorted[start[((list[i] >> shift) + skew) >> region_shift]++] = list[i];
}

/* Gives back up to MM_BUDDY_CPU_SLOTS blocks of an order that has lists: what follows a first run
 * in one region is sorted, so that each lock is taken once. */
static void mmi_buddy_give(struct mm_buddy *b, const uint32_t *list, uint32_t count, unsigned order)
{
    uint32_t sorted[MM_BUDDY_CPU_SLOTS > MMI_BUDDY_HUGE_SLOTS ? MM_BUDDY_CPU_SLOTS
                                                              : MMI_BUDDY_HUGE_SLOTS];
    uint32_t given;

    if (count == 0)
        return;
    given = mmi_buddy_give_region(b, list, count, order);
    if (given == count)
        return;
    count -= given;
    mmi_buddy_sort(b, list + given, count, sorted);
    for (given = 0; given < count;)
        given += mmi_buddy_give_region(b, sorted + given, count - given, order);
}

/* ---- Per-CPU lists: caller has locked the owner word, or is inside (C4) ---------------------- */

/* Enters the lists of the CPU that the caller is pinned to; NULL if it has none in use, or another
 * CPU is emptying them. Who wants to lock them waits until the CPU has left them. */
static struct mmi_buddy_cpu *mmi_buddy_enter(struct mm_buddy *b, unsigned cpu)
{
    struct mmi_buddy_cpu *c;
    if (cpu >= b->cpus || mm_load(&b->high) == 0 || b->tags != NULL)
        return NULL;
    c = &b->cpu[cpu];
    mm_busy_enter(&c->busy);
    if (MM_LIKELY(mm_bias_mine(&c->owner, (uintptr_t)cpu + 1)))
        return c;
    mm_busy_leave(&c->busy);
    return NULL;
}

/* Locks any CPU's lists. */
static void mmi_buddy_seize(struct mm_buddy *b, unsigned cpu)
{
    while (!mm_bias_trylock(&b->cpu[cpu].owner, 0, (uintptr_t)cpu + 1, &b->cpu[cpu].busy, 0))
        MM_CPU_RELAX();
}
static void mmi_buddy_disown(struct mm_buddy *b, unsigned cpu)
{
    mm_bias_unlock(&b->cpu[cpu].owner, (uintptr_t)cpu + 1);
}

/* Most blocks that stack may hold, and blocks to move at a time. */
static uint32_t mmi_buddy_high(const struct mm_buddy *b, unsigned stack)
{
    uintptr_t high = mm_load(&b->high);
    if (stack == MMI_BUDDY_STACK_HUGE)
        return (uint32_t)(high == 0 ? 0 : b->huge_high);
    if (high == 0)
        return 0;
    high >>= mmi_buddy_stack_order(b, stack);
    return (uint32_t)(high == 0 ? 1 : high);
}
static uint32_t mmi_buddy_batch(const struct mm_buddy *b, unsigned order)
{
    uintptr_t batch = order == b->pb_order ? b->huge_high / 2 : mm_load(&b->batch) >> order;
    return (uint32_t)(batch == 0 ? 1 : batch);
}

static void mmi_buddy_activate(struct mm_buddy *b, struct mmi_buddy_cpu *c)
{
    unsigned stack;
    if (mm_load(&c->active) != 0)
        return;
    for (stack = MMI_BUDDY_STACK_HUGE; stack < MMI_BUDDY_STACKS; stack++)
        c->floor[stack] = (uint16_t)(c->end[stack] - mmi_buddy_high(b, stack));
    mm_store(&c->active, 1);
    mmi_buddy_count(&b->active, 1);
}

/* Empties all stacks. */
static void mmi_buddy_empty(struct mm_buddy *b, struct mmi_buddy_cpu *c)
{
    unsigned stack;
    for (stack = 0; stack < MMI_BUDDY_STACKS; stack++) {
        mmi_buddy_give(b, c->slot + c->pos[stack], (uint32_t)(c->end[stack] - c->pos[stack]),
                       mmi_buddy_stack_order(b, stack));
        c->pos[stack] = c->floor[stack] = c->end[stack];
    }
    if (mm_load(&c->active) == 0)
        return;
    mm_store(&c->active, 0);
    mmi_buddy_count(&b->active, 0 - (uintptr_t)1);
}

/* Moves freed blocks, the latest first, to the lists that hand out, as long as there is room there.
 * Those whose page blocks are not nearly used up stay for the bitmaps, so that page blocks in which
 * little is used become free as a whole; after some of them it is not worth looking for others.
 * `stack`: the list to expect. Page blocks are looked at without their region's lock: any answer
 * will do. */
static void mmi_buddy_recycle(struct mm_buddy *b, struct mmi_buddy_cpu *c, unsigned order,
                              unsigned stack)
{
    const unsigned freed = MMI_BUDDY_STACK_FREED + order, end = c->end[freed];
    const unsigned room = mmi_buddy_high(b, order * 3), shift = b->pb_order;
    const unsigned few = mmi_buddy_pb_size(b) >> 2;
    const struct mmi_buddy_pb *const pbs = b->pb;
    uint32_t *const slot = c->slot;
    unsigned top = c->pos[freed], from, patience = MMI_BUDDY_PATIENCE;
    unsigned pos = c->pos[stack], floor = c->end[stack] - room;

    for (from = top; from < end; from++) {
        const uint32_t n = slot[from];
        const struct mmi_buddy_pb *const pb = &pbs[n >> shift];
        const unsigned type = MMI_BUDDY_GET(pb->type);
        if (type >= MM_BUDDY_CMA || MMI_BUDDY_GET(pb->free) >= few ||
            MMI_BUDDY_GET(pb->hint) == MMI_BUDDY_ISOLATED) {
            if (patience-- == 0)
                break;
            continue;
        }
        if (MM_UNLIKELY(stack != order * 3 + type)) {
            c->pos[stack] = (uint16_t)pos;
            stack = order * 3 + type;
            pos = c->pos[stack];
            floor = c->end[stack] - room;
        }
        if (pos == floor)
            break;
        slot[--pos] = n;
        slot[from] = slot[top++]; /* one that stays */
    }
    c->pos[stack] = (uint16_t)pos;
    c->pos[freed] = (uint16_t)top;
}

/* Hands out a block of an order that has lists, refilling the list if it is empty. */
static uint32_t mmi_buddy_refill(struct mm_buddy *b, unsigned cpu, struct mmi_buddy_cpu *c,
                                 unsigned order, unsigned type, uintptr_t spare)
{
    const unsigned stack = order == b->pb_order ? MMI_BUDDY_STACK_HUGE : order * 3 + type;
    const unsigned end = c->end[stack];
    uint32_t want = mmi_buddy_batch(b, order), got, i;

    if (c->pos[stack] == end && stack != MMI_BUDDY_STACK_HUGE)
        mmi_buddy_recycle(b, c, order, stack);
    if (c->pos[stack] != end)
        return c->slot[c->pos[stack]++];
    if (want > spare >> order)
        want = (uint32_t)(spare >> order);
    got = stack == MMI_BUDDY_STACK_HUGE /* whole page blocks of type CMA stay out of the list */
              ? mmi_buddy_take_type(b, cpu, order, type, want, &c->slot[end - want])
              : mmi_buddy_take(b, cpu, order, type, want, &c->slot[end - want]);
    if (got == 0)
        return MMI_BUDDY_NONE;
    for (i = got; got != want && i-- > 0;)
        c->slot[end - got + i] = c->slot[end - want + i];
    mmi_buddy_activate(b, c);
    c->pos[stack] = (uint16_t)(end - got + 1);
    return c->slot[end - got];
}

/* Takes in a freed block, after emptying a full list: all of it, or the older half of the list for
 * whole page blocks, which also hands out. */
static void mmi_buddy_take_in(struct mm_buddy *b, struct mmi_buddy_cpu *c, unsigned order,
                              uint32_t n)
{
    const unsigned stack =
        order == b->pb_order ? MMI_BUDDY_STACK_HUGE : MMI_BUDDY_STACK_FREED + order;
    const unsigned end = c->end[stack];
    unsigned pos, out, i;

    mmi_buddy_activate(b, c);
    if (c->pos[stack] == c->floor[stack] && stack != MMI_BUDDY_STACK_HUGE)
        mmi_buddy_recycle(b, c, order, order * 3 + MM_BUDDY_MOVABLE);
    pos = c->pos[stack];
    if (pos <= c->floor[stack] + (end - c->floor[stack]) / 2u) {
        out = stack == MMI_BUDDY_STACK_HUGE ? (end - pos + 1) / 2 : end - pos;
        mmi_buddy_give(b, &c->slot[end - out], out, order);
        for (i = end - out; i-- > pos;)
            c->slot[i + out] = c->slot[i];
        pos += out;
    }
    c->pos[stack] = (uint16_t)(pos - 1);
    c->slot[pos - 1] = n;
}

/* ---- Allocation ------------------------------------------------------------------------------ */

/* Smallest blocks that an allocation may take without going below its watermark. */
static uintptr_t mmi_buddy_spare(const struct mm_buddy *b, unsigned flags)
{
    const uintptr_t mark = (flags & MM_BUDDY_URGENT) != 0
                               ? 0
                               : mm_load(&b->mark[(flags & MM_BUDDY_KEEP_LOW) != 0 ? 1 : 0]);
    uintptr_t free;

    if (mark == 0)
        return ~(uintptr_t)0;
    free = mmi_buddy_free_units(b);
    return free < mark ? 0 : free - mark;
}

/* Writes the head of a new block. */
static void mmi_buddy_head(struct mm_buddy *b, uint32_t n, unsigned order)
{
    mmi_buddy_heads(b, n, n + (1u << order), MMI_BUDDY_PLAIN);
    if (b->tags != NULL)
        mm_store(&b->tags[n], 0);
}

static bool mmi_buddy_has_lists(const struct mm_buddy *b, unsigned order)
{
    return order < MM_BUDDY_CACHED_ORDERS || (order == b->pb_order && b->huge_high != 0);
}

/* Is nothing free that could serve the order? Without locks: a quick no where all is in use. */
static bool mmi_buddy_hopeless(const struct mm_buddy *b, unsigned order)
{
    return mm_load(order < b->pb_order ? &b->some : &b->wholes) == 0;
}

/* One try for a block: from the CPU's list, or past it. */
static uint32_t mmi_buddy_try(struct mm_buddy *b, unsigned order, unsigned flags)
{
    const uintptr_t spare = mmi_buddy_spare(b, flags);
    const unsigned type = flags & 3;
    struct mmi_buddy_cpu *c = NULL;
    MM_BUDDY_CPU_STATE_T pin;
    uint32_t n = MMI_BUDDY_NONE;
    unsigned cpu;

    if (spare >> order == 0)
        return MMI_BUDDY_NONE;
    MM_BUDDY_CPU_PIN(pin);
    cpu = MM_BUDDY_CPU_ID();
    if ((flags & MM_BUDDY_NOCACHE) == 0 && mmi_buddy_has_lists(b, order))
        c = mmi_buddy_enter(b, cpu);
    if (c != NULL) {
        n = mmi_buddy_refill(b, cpu, c, order, type, spare);
        mm_busy_leave(&c->busy);
    }
    MM_BUDDY_CPU_UNPIN(pin);
    if (n == MMI_BUDDY_NONE && (c == NULL || order == b->pb_order) &&
        mmi_buddy_take(b, cpu, order, type, 1, &n) == 0)
        return MMI_BUDDY_NONE;
    if (n == MMI_BUDDY_NONE)
        return n;
    if (order == b->pb_order) /* out of a list, its type may be another */
        mmi_buddy_pb_claim(b, n >> order, type);
    mmi_buddy_head(b, n, order);
    return n;
}

/* Counts an allocation that found nothing. */
static MM_NOINLINE mm_pa_t mmi_buddy_failed(struct mm_buddy *b)
{
    MM_BUDDY_CPU_STATE_T pin;
    unsigned cpu;

    MM_BUDDY_CPU_PIN(pin);
    cpu = MM_BUDDY_CPU_ID();
    if (cpu < b->cpus)
        mm_store(&b->cpu[cpu].failures, mm_load(&b->cpu[cpu].failures) + 1);
    else
        mmi_buddy_count(&b->failures, 1);
    MM_BUDDY_CPU_UNPIN(pin);
    return MM_PA_NONE;
}

/* From the lists and bitmaps; after emptying all lists; after `pressure`. */
static MM_NOINLINE uint32_t mmi_buddy_search(struct mm_buddy *b, unsigned order, unsigned flags)
{
    const struct mm_buddy_hooks *hooks = b->hooks;
    bool again = hooks != NULL && hooks->pressure != NULL && (flags & MMI_BUDDY_NO_PRESSURE) == 0;
    uint32_t n;

    for (;;) {
        n = mmi_buddy_hopeless(b, order) ? MMI_BUDDY_NONE : mmi_buddy_try(b, order, flags);
        if (MM_UNLIKELY(n == MMI_BUDDY_NONE) && mm_load(&b->active) != 0) {
            mm_buddy_drain(b);
            mmi_buddy_count(&b->drains, 1);
            n = mmi_buddy_try(b, order, flags);
        }
        if (n != MMI_BUDDY_NONE || !again || !hooks->pressure(hooks->ctx, b, order))
            return n;
        again = false;
    }
}

/* A block by all means. */
static inline uint32_t mmi_buddy_obtain(struct mm_buddy *b, unsigned order, unsigned flags)
{
    uint32_t n;

    if (MM_UNLIKELY(order > b->max_order || (flags & 3) == MM_BUDDY_CMA))
        return MMI_BUDDY_NONE;
    n = mmi_buddy_search(b, order, flags);
    if (n == MMI_BUDDY_NONE)
        (void)mmi_buddy_failed(b);
    return n;
}

/* Address of a new block, zero-filled if asked. */
static mm_pa_t mmi_buddy_hand_out(struct mm_buddy *b, uint32_t n, uint32_t units, unsigned flags)
{
    const mm_pa_t pa = mmi_buddy_pa(b, n);
    if ((flags & MM_BUDDY_ZERO) != 0)
        b->hooks->zero(b->hooks->ctx, pa, mmi_buddy_bytes(b, units));
    mmi_buddy_debug(b);
    return pa;
}
static bool mmi_buddy_can_zero(const struct mm_buddy *b, unsigned flags)
{
    return (flags & MM_BUDDY_ZERO) == 0 || (b->hooks != NULL && b->hooks->zero != NULL);
}

static MM_NOINLINE mm_pa_t mmi_buddy_alloc_any(struct mm_buddy *b, unsigned order, unsigned flags)
{
    uint32_t n;
    if (!mmi_buddy_can_zero(b, flags))
        return MM_PA_NONE;
    n = mmi_buddy_obtain(b, order, flags);
    return n == MMI_BUDDY_NONE ? MM_PA_NONE : mmi_buddy_hand_out(b, n, 1u << order, flags);
}

MM_BUDDY_API MM_NOINLINE mm_pa_t mmi_buddy_alloc_slow(struct mm_buddy *b, unsigned order,
                                                      unsigned flags)
{
    /* where all is in use and nobody can help, the answer comes after a few loads */
    if (mmi_buddy_hopeless(b, order) && mm_load(&b->active) == 0 && b->hooks == NULL &&
        order <= b->max_order && (flags & (3 | MM_BUDDY_ZERO)) < MM_BUDDY_CMA)
        return mmi_buddy_failed(b);
    return mmi_buddy_alloc_any(b, order, flags);
}

/* Smallest blocks that hold `bytes` bytes; MMI_BUDDY_NONE if too many, 0 for 0. */
static uint32_t mmi_buddy_units(const struct mm_buddy *b, uint64_t bytes)
{
    const uint32_t last = mmi_buddy_shift(bytes - 1, b->min_shift);
    if (bytes == 0)
        return 0;
    return last == MMI_BUDDY_NONE ? last : last + 1;
}

MM_BUDDY_API unsigned mm_buddy_order(const struct mm_buddy *b, uint64_t bytes)
{
    const uint32_t units = mmi_buddy_units(b, bytes);
    unsigned order;
    if (units == 0 || units > 1u << 31)
        return MM_BUDDY_ORDERS;
    order = units == 1 ? 0 : mm_fls(units - 1) + 1;
    return order <= b->max_order ? order : MM_BUDDY_ORDERS;
}

MM_BUDDY_API mm_pa_t mm_buddy_alloc_bytes(struct mm_buddy *b, uint64_t bytes, unsigned flags)
{
    const unsigned order = mm_buddy_order(b, bytes);
    return order == MM_BUDDY_ORDERS ? MM_PA_NONE : mm_buddy_alloc(b, order, flags);
}

/* The first `units` of a new block of `order`; the tail goes back. */
static mm_pa_t mmi_buddy_alloc_trimmed(struct mm_buddy *b, unsigned order, uint32_t units,
                                       unsigned flags)
{
    struct mmi_buddy_span span;
    uint32_t n;

    if (!mmi_buddy_can_zero(b, flags))
        return MM_PA_NONE;
    n = mmi_buddy_obtain(b, order, flags | MM_BUDDY_NOCACHE);
    if (n == MMI_BUDDY_NONE)
        return MM_PA_NONE;
    mmi_buddy_span_lock(b, &span, n, n + (1u << order));
    mmi_buddy_heads(b, n, n + units, MMI_BUDDY_PLAIN);
    mmi_buddy_range_give(b, n + units, n + (1u << order));
    mmi_buddy_span_unlock(b, &span);
    return mmi_buddy_hand_out(b, n, units, flags);
}

MM_BUDDY_API mm_pa_t mm_buddy_alloc_exact(struct mm_buddy *b, uint64_t bytes, unsigned flags)
{
    const unsigned order = mm_buddy_order(b, bytes);
    const uint32_t units = mmi_buddy_units(b, bytes);

    if (order == MM_BUDDY_ORDERS)
        return MM_PA_NONE;
    if (units == 1u << order)
        return mm_buddy_alloc(b, order, flags);
    return mmi_buddy_alloc_trimmed(b, order, units, flags);
}

MM_BUDDY_API mm_pa_t mm_buddy_alloc_aligned(struct mm_buddy *b, uint64_t bytes, uint64_t align,
                                            unsigned flags)
{
    const unsigned order = mm_buddy_order(b, bytes > align ? bytes : align);
    const uint32_t units = mmi_buddy_units(b, bytes);

    if (order == MM_BUDDY_ORDERS || !mm_is_pow2(align) || bytes == 0)
        return MM_PA_NONE;
    if (units == 1u << order)
        return mm_buddy_alloc(b, order, flags);
    return mmi_buddy_alloc_trimmed(b, order, units, flags);
}

/* Writes the heads of a range that was just taken. */
static void mmi_buddy_claim_range(struct mm_buddy *b, uint32_t n, uint32_t end, unsigned kind)
{
    mmi_buddy_heads(b, n, end, kind);
    for (; b->tags != NULL && n < end; n++)
        mm_store(&b->tags[n], 0);
}

/* One try of mmi_buddy_acquire, which leaves the lists alone. */
static enum mm_status mmi_buddy_acquire_once(struct mm_buddy *b, uint32_t n, uint32_t end,
                                             unsigned kind, unsigned flags)
{
    enum mm_status status = MM_ERR_BUSY;
    struct mmi_buddy_span span;

    if (mmi_buddy_first_used(b, n, end) != end)
        return MM_ERR_BUSY;
    mmi_buddy_span_lock(b, &span, n, end);
    if (mmi_buddy_spare(b, flags) < end - n) {
        status = MM_ERR_NOMEM;
    } else if (mmi_buddy_range_is_free(b, n, end, false)) {
        mmi_buddy_range_take(b, n, end, flags & 3);
        if (kind != MMI_BUDDY_CLEAR)
            mmi_buddy_claim_range(b, n, end, kind);
        status = MM_OK;
    }
    mmi_buddy_span_unlock(b, &span);
    return status;
}

/* Takes a range if it is free, emptying the lists where that may help, and writes its heads. */
static enum mm_status mmi_buddy_acquire(struct mm_buddy *b, uint32_t n, uint32_t end, unsigned kind,
                                        unsigned flags)
{
    const enum mm_status status = mmi_buddy_acquire_once(b, n, end, kind, flags);

    if (status == MM_OK || mm_load(&b->active) == 0)
        return status;
    mm_buddy_drain(b);
    return mmi_buddy_acquire_once(b, n, end, kind, flags);
}

MM_BUDDY_API enum mm_status mm_buddy_shrink(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes)
{
    MM_BUDDY_LOCK_STATE_T lock;
    uint32_t n, end, i;
    enum mm_status status = mmi_buddy_range(b, pa, bytes, 0, &n, &end);

    if (status != MM_OK)
        return status;
    MM_BUDDY_LOCK(&b->lock, lock);
    if (mmi_buddy_any_absent(b, n, end))
        status = MM_ERR_NOENT;
    else
        status = mmi_buddy_acquire(b, n, end, MMI_BUDDY_CLEAR, MM_BUDDY_URGENT);
    if (status == MM_OK) {
        for (i = n; i < end; i++)
            mmi_buddy_set_state(b, i, MMI_BUDDY_ABSENT);
        mm_store(&b->total, mm_load(&b->total) - (end - n));
    }
    MM_BUDDY_UNLOCK(&b->lock, lock);
    mmi_buddy_debug(b);
    return status;
}

MM_BUDDY_API enum mm_status mm_buddy_alloc_at(struct mm_buddy *b, mm_pa_t pa, unsigned order,
                                              unsigned flags)
{
    enum mm_status status;
    uint32_t n, end;

    if (order > b->max_order || (flags & ~MM_BUDDY_FLAGS) != 0 || (flags & 3) == MM_BUDDY_CMA ||
        !mmi_buddy_can_zero(b, flags))
        return MM_ERR_INVALID;
    status = mmi_buddy_range(b, pa, mmi_buddy_bytes(b, 1u << order), 0, &n, &end);
    if (status != MM_OK)
        return status;
    if (!mmi_buddy_is_aligned(b, n, order))
        return MM_ERR_ALIGN;
    status = mmi_buddy_acquire(b, n, end, MMI_BUDDY_PLAIN, flags);
    if (status != MM_OK)
        return status;
    (void)mmi_buddy_hand_out(b, n, end - n, flags);
    return MM_OK;
}

MM_BUDDY_API size_t mm_buddy_alloc_bulk(struct mm_buddy *b, unsigned order, unsigned flags,
                                        size_t count, mm_pa_t *out)
{
    uint32_t list[MM_BUDDY_CPU_SLOTS], want, got, i;
    MM_BUDDY_CPU_STATE_T pin;
    uintptr_t spare;
    size_t done = 0;
    unsigned cpu;

    if (order > b->max_order || (flags & 3) == MM_BUDDY_CMA || !mmi_buddy_can_zero(b, flags))
        return 0;
    while (done < count) {
        want = count - done < MM_BUDDY_CPU_SLOTS ? (uint32_t)(count - done) : MM_BUDDY_CPU_SLOTS;
        spare = mmi_buddy_spare(b, flags) >> order;
        want = want > spare ? (uint32_t)spare : want;
        MM_BUDDY_CPU_PIN(pin);
        cpu = MM_BUDDY_CPU_ID();
        MM_BUDDY_CPU_UNPIN(pin);
        got = want == 0 ? 0 : mmi_buddy_take(b, cpu, order, flags & 3, want, list);
        if (got == 0)
            break;
        for (i = 0; i < got; i++) {
            mmi_buddy_head(b, list[i], order);
            out[done++] = mmi_buddy_hand_out(b, list[i], 1u << order, flags);
        }
    }
    for (; done < count; done++) {
        out[done] = mm_buddy_alloc(b, order, flags);
        if (out[done] == MM_PA_NONE)
            break;
    }
    return done;
}

/* ---- Release and change of blocks ------------------------------------------------------------ */

/* Frees a block past the lists. Its head is judged again under the lock: nobody frees it twice. */
static enum mm_status mmi_buddy_release(struct mm_buddy *b, uint32_t n, unsigned state)
{
    struct mmi_buddy_span span;
    const uint32_t end = mmi_buddy_block_end(b, n);
    bool same;

    if (end == MMI_BUDDY_NONE)
        return mmi_buddy_refuse(b, "mm_buddy_free", "pieces of a block are missing",
                                mmi_buddy_pa(b, n), MM_ERR_CORRUPT);
    mmi_buddy_span_lock(b, &span, n, end);
    same = mmi_buddy_state(b, n) == state && mmi_buddy_block_end(b, n) == end;
    if (same) {
        mmi_buddy_heads_clear(b, n, end);
        if (b->tags != NULL)
            mm_store(&b->tags[n], 0);
        mmi_buddy_range_give(b, n, end);
    }
    mmi_buddy_span_unlock(b, &span);
    return same ? MM_OK : mmi_buddy_wild(b, "mm_buddy_free", mmi_buddy_pa(b, n));
}

/* `order`: of the block; MM_BUDDY_ORDERS: any, and exact blocks too. */
MM_BUDDY_API MM_NOINLINE enum mm_status mmi_buddy_free_slow(struct mm_buddy *b, mm_pa_t pa,
                                                            unsigned order)
{
    const uint32_t n = mmi_buddy_number(b, pa);
    const unsigned state = n == MMI_BUDDY_NONE ? 0 : mmi_buddy_state(b, n);
    const unsigned kind = MMI_BUDDY_KIND(state), is = MMI_BUDDY_ORDER(state);
    const bool single = kind == MMI_BUDDY_PLAIN || kind == MMI_BUDDY_FIXED;
    enum mm_status status = MM_OK;
    struct mmi_buddy_cpu *c = NULL;
    MM_BUDDY_CPU_STATE_T pin;
    unsigned cpu;

    if (!(single && (order == is || order == MM_BUDDY_ORDERS)) &&
        !(kind == MMI_BUDDY_FIRST && order == MM_BUDDY_ORDERS))
        return mmi_buddy_wild(b, "mm_buddy_free", pa);
    MM_BUDDY_CPU_PIN(pin);
    cpu = MM_BUDDY_CPU_ID();
    if (kind == MMI_BUDDY_PLAIN && mmi_buddy_has_lists(b, is))
        c = mmi_buddy_enter(b, cpu);
    if (c != NULL) {
        mmi_buddy_set_state(b, n, MMI_BUDDY_CLEAR);
        mmi_buddy_take_in(b, c, is, n);
        mm_busy_leave(&c->busy);
    }
    MM_BUDDY_CPU_UNPIN(pin);
    if (c == NULL)
        status = mmi_buddy_release(b, n, state);
    mmi_buddy_debug(b);
    return status;
}

MM_BUDDY_API enum mm_status mm_buddy_free_sized(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes)
{
    const uint32_t n = mmi_buddy_number(b, pa), units = mmi_buddy_units(b, bytes);
    const unsigned order = mm_buddy_order(b, bytes);
    unsigned state;
    uint32_t end;

    if (n == MMI_BUDDY_NONE)
        return mmi_buddy_wild(b, "mm_buddy_free_sized", pa);
    state = mmi_buddy_state(b, n);
    if (order != MM_BUDDY_ORDERS &&
        (state == (MMI_BUDDY_PLAIN | order) || state == (MMI_BUDDY_FIXED | order)))
        return mm_buddy_free(b, pa);
    end = MMI_BUDDY_KIND(state) == MMI_BUDDY_FIRST || MMI_BUDDY_KIND(state) == MMI_BUDDY_PLAIN ||
                  MMI_BUDDY_KIND(state) == MMI_BUDDY_FIXED
              ? mmi_buddy_block_end(b, n)
              : n;
    if (units != 0 && end - n == units)
        return mm_buddy_free(b, pa);
    return mmi_buddy_wild(b, "mm_buddy_free_sized", pa);
}

/* Marks the heads of the list's blocks as dying, all or none; on failure *bad is the first that is
 * no head of `order`. */
static bool mmi_buddy_mark_dying(struct mm_buddy *b, unsigned order, const mm_pa_t *pas,
                                 size_t count, size_t *bad)
{
    size_t i;
    for (i = 0; i < count; i++) {
        const uint32_t n = mmi_buddy_number(b, pas[i]);
        const unsigned state = n == MMI_BUDDY_NONE ? 0 : mmi_buddy_state(b, n);
        if (state == (MMI_BUDDY_PLAIN | order))
            mmi_buddy_set_state(b, n, MMI_BUDDY_DYING);
        else if (state == (MMI_BUDDY_FIXED | order))
            mmi_buddy_set_state(b, n, MMI_BUDDY_DYING_FIXED);
        else
            break;
    }
    *bad = i;
    if (i == count)
        return true;
    while (i-- > 0) {
        const uint32_t n = mmi_buddy_number(b, pas[i]);
        const bool fixed = mmi_buddy_state(b, n) == MMI_BUDDY_DYING_FIXED;
        mmi_buddy_set_state(b, n, (fixed ? MMI_BUDDY_FIXED : MMI_BUDDY_PLAIN) | order);
    }
    return false;
}

MM_BUDDY_API enum mm_status mm_buddy_free_bulk(struct mm_buddy *b, unsigned order,
                                               const mm_pa_t *pas, size_t count)
{
    uint32_t list[MM_BUDDY_CPU_SLOTS], got = 0;
    struct mmi_buddy_span span;
    size_t i, bad;

    if (order >= MM_BUDDY_ORDERS)
        return MM_ERR_INVALID;
    if (!mmi_buddy_mark_dying(b, order, pas, count, &bad))
        return mmi_buddy_wild(b, "mm_buddy_free_bulk", pas[bad]);
    for (i = 0; i < count; i++) {
        const uint32_t n = mmi_buddy_number(b, pas[i]);
        if (b->tags != NULL)
            mm_store(&b->tags[n], 0);
        if (order < MM_BUDDY_CACHED_ORDERS || order == b->pb_order) {
            mmi_buddy_set_state(b, n, MMI_BUDDY_CLEAR);
            list[got++] = n;
            if (got == MM_BUDDY_CPU_SLOTS) {
                mmi_buddy_give(b, list, got, order);
                got = 0;
            }
            continue;
        }
        mmi_buddy_span_lock(b, &span, n, n + (1u << order));
        mmi_buddy_set_state(b, n, MMI_BUDDY_CLEAR);
        mmi_buddy_range_give(b, n, n + (1u << order));
        mmi_buddy_span_unlock(b, &span);
    }
    mmi_buddy_give(b, list, got, order);
    mmi_buddy_debug(b);
    return MM_OK;
}

/* Moves the end of the block whose head is n from `end` to `to`. */
static enum mm_status mmi_buddy_move_end(struct mm_buddy *b, uint32_t n, uint32_t end, uint32_t to,
                                         unsigned kind)
{
    const unsigned type = b->pb[n >> b->pb_order].type & 3u;
    const unsigned state = mmi_buddy_state(b, n);
    struct mmi_buddy_span span;
    enum mm_status status = MM_OK;

    if (to > end)
        status = mmi_buddy_acquire(b, end, to, MMI_BUDDY_CLEAR, type);
    if (status != MM_OK)
        return status;
    mmi_buddy_span_lock(b, &span, n, to > end ? to : end);
    if (mmi_buddy_state(b, n) == state && mmi_buddy_block_end(b, n) == end) {
        mmi_buddy_heads_clear(b, n, end);
        mmi_buddy_heads(b, n, to, kind);
        if (to < end)
            mmi_buddy_range_give(b, to, end);
    } else { /* freed meanwhile: misuse */
        status = MM_ERR_INVALID;
        if (to > end)
            mmi_buddy_range_give(b, end, to);
    }
    mmi_buddy_span_unlock(b, &span);
    mmi_buddy_debug(b);
    return status;
}

MM_BUDDY_API enum mm_status mm_buddy_resize(struct mm_buddy *b, mm_pa_t pa, unsigned order)
{
    const uint32_t n = mmi_buddy_number(b, pa);
    const unsigned state = n == MMI_BUDDY_NONE ? 0 : mmi_buddy_state(b, n);
    const unsigned kind = MMI_BUDDY_KIND(state);

    if (kind == MMI_BUDDY_FIRST)
        return MM_ERR_INVALID;
    if (kind != MMI_BUDDY_PLAIN && kind != MMI_BUDDY_FIXED)
        return mmi_buddy_wild(b, "mm_buddy_resize", pa);
    if (order > b->max_order)
        return MM_ERR_INVALID;
    if (order == MMI_BUDDY_ORDER(state))
        return MM_OK;
    if (!mmi_buddy_is_aligned(b, n, order))
        return MM_ERR_ALIGN;
    if (1u << order > b->units - n)
        return MM_ERR_BUSY;
    return mmi_buddy_move_end(b, n, n + (1u << MMI_BUDDY_ORDER(state)), n + (1u << order), kind);
}

MM_BUDDY_API enum mm_status mm_buddy_resize_exact(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes)
{
    const uint32_t n = mmi_buddy_number(b, pa), units = mmi_buddy_units(b, bytes);
    const unsigned state = n == MMI_BUDDY_NONE ? 0 : mmi_buddy_state(b, n);
    const unsigned kind = MMI_BUDDY_KIND(state);
    uint32_t end;

    if (kind != MMI_BUDDY_PLAIN && kind != MMI_BUDDY_FIXED && kind != MMI_BUDDY_FIRST)
        return mmi_buddy_wild(b, "mm_buddy_resize_exact", pa);
    end = mmi_buddy_block_end(b, n);
    if (end == MMI_BUDDY_NONE)
        return MM_ERR_CORRUPT;
    if (units == 0)
        return MM_ERR_INVALID;
    if (units == end - n)
        return MM_OK;
    if (units > b->units - n)
        return MM_ERR_BUSY;
    return mmi_buddy_move_end(b, n, end, n + units, MMI_BUDDY_PLAIN);
}

/* ---- Ranges ---------------------------------------------------------------------------------- */

MM_BUDDY_API enum mm_status mm_buddy_reserve(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes)
{
    MM_BUDDY_LOCK_STATE_T lock;
    uint32_t n, end;
    enum mm_status status = mmi_buddy_range(b, pa, bytes, 1, &n, &end);

    if (status != MM_OK)
        return status;
    MM_BUDDY_LOCK(&b->lock, lock);
    status = mmi_buddy_acquire(b, n, end, MMI_BUDDY_RESERVED, MM_BUDDY_URGENT);
    if (status == MM_OK)
        mm_store(&b->reserved, mm_load(&b->reserved) + (end - n));
    MM_BUDDY_UNLOCK(&b->lock, lock);
    mmi_buddy_debug(b);
    return status;
}

/* Widens n to end - 1 to whole reserved pieces; false if a part of it is not reserved. */
static bool mmi_buddy_reserved(const struct mm_buddy *b, uint32_t *n, uint32_t *end)
{
    uint32_t at = mmi_buddy_piece_of(b, *n);
    if (at == MMI_BUDDY_NONE)
        return false;
    *n = at;
    while (at < *end) {
        const unsigned state = mmi_buddy_state(b, at);
        if (MMI_BUDDY_KIND(state) != MMI_BUDDY_RESERVED)
            return false;
        at += 1u << MMI_BUDDY_ORDER(state);
    }
    *end = at;
    return true;
}

MM_BUDDY_API enum mm_status mm_buddy_release(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes)
{
    struct mmi_buddy_span span;
    MM_BUDDY_LOCK_STATE_T lock;
    uint32_t n, end, from, to;
    enum mm_status status = mmi_buddy_range(b, pa, bytes, 1, &n, &end);

    if (status != MM_OK)
        return status;
    MM_BUDDY_LOCK(&b->lock, lock);
    from = n;
    to = end;
    if (mmi_buddy_reserved(b, &from, &to)) {
        mmi_buddy_span_lock(b, &span, from, to);
        mmi_buddy_heads_clear(b, from, to);
        mmi_buddy_heads(b, from, n, MMI_BUDDY_RESERVED);
        mmi_buddy_heads(b, end, to, MMI_BUDDY_RESERVED);
        mmi_buddy_range_give(b, n, end);
        mmi_buddy_span_unlock(b, &span);
        mm_store(&b->reserved, mm_load(&b->reserved) - (end - n));
    } else {
        status = MM_ERR_NOENT;
    }
    MM_BUDDY_UNLOCK(&b->lock, lock);
    mmi_buddy_debug(b);
    return status;
}

/* Puts a page block aside: nobody takes from it, what is freed gathers in its bitmap. False if
 * somebody else did. */
static bool mmi_buddy_isolate(struct mm_buddy *b, uint32_t pb)
{
    struct mmi_buddy_span span;
    bool done = false;

    mmi_buddy_span_lock(b, &span, pb << b->pb_order, (pb << b->pb_order) + 1);
    if (b->pb[pb].hint != MMI_BUDDY_ISOLATED) {
        if (b->pb[pb].hint == MMI_BUDDY_WHOLE) {
            mmi_buddy_whole_remove(b, pb);
            mmi_buddy_pb_fill(b, pb, ~(uintptr_t)0);
        } else {
            mmi_buddy_pb_hint(b, pb, 0);
        }
        MMI_BUDDY_PUT(b->pb[pb].hint, (uint8_t)MMI_BUDDY_ISOLATED);
        done = true;
    }
    mmi_buddy_span_unlock(b, &span);
    return done;
}

static void mmi_buddy_rejoin(struct mm_buddy *b, uint32_t pb)
{
    struct mmi_buddy_span span;

    mmi_buddy_span_lock(b, &span, pb << b->pb_order, (pb << b->pb_order) + 1);
    MMI_BUDDY_PUT(b->pb[pb].hint, (uint8_t)0);
    if (b->pb[pb].free == mmi_buddy_pb_size(b))
        mmi_buddy_pb_close(b, pb);
    else
        mmi_buddy_pb_hint(b, pb, mmi_buddy_pb_scan(b, pb));
    mmi_buddy_span_unlock(b, &span);
}

static bool mmi_buddy_pb_movable(const struct mm_buddy *b, uint32_t n)
{
    const unsigned type = MMI_BUDDY_GET(b->pb[n >> b->pb_order].type);
    return type == MM_BUDDY_MOVABLE || type == MM_BUDDY_CMA;
}

/* Moves the block whose head is n elsewhere. */
static enum mm_status mmi_buddy_move(struct mm_buddy *b, uint32_t n)
{
    const struct mm_buddy_hooks *hooks = b->hooks;
    const unsigned state = mmi_buddy_state(b, n), kind = MMI_BUDDY_KIND(state);
    const unsigned flags =
        MM_BUDDY_MOVABLE | MM_BUDDY_NOCACHE | MM_BUDDY_URGENT | MMI_BUDDY_NO_PRESSURE;
    const uint32_t end = mmi_buddy_block_end(b, n);
    unsigned moved;
    mm_pa_t to;
    uint32_t at;

    if (kind == MMI_BUDDY_RESERVED || end == MMI_BUDDY_NONE || !mmi_buddy_pb_movable(b, n) ||
        hooks == NULL || hooks->migrate == NULL)
        return MM_ERR_BUSY;
    if (kind == MMI_BUDDY_FIRST)
        to = mm_buddy_alloc_exact(b, mmi_buddy_bytes(b, end - n), flags);
    else
        to = mmi_buddy_alloc_slow(b, MMI_BUDDY_ORDER(state), flags);
    if (to == MM_PA_NONE)
        return MM_ERR_NOMEM;
    at = mmi_buddy_number(b, to);
    if (kind == MMI_BUDDY_FIXED)
        mmi_buddy_set_state(b, at, state);
    moved = mmi_buddy_state(b, at);
    if (b->tags != NULL)
        mm_store(&b->tags[at], mm_load(&b->tags[n]));
    if (hooks->migrate(hooks->ctx, mmi_buddy_pa(b, n), to, mmi_buddy_bytes(b, end - n)) != MM_OK) {
        (void)mmi_buddy_release(b, at, moved);
        return MM_ERR_BUSY;
    }
    (void)mmi_buddy_release(b, n, state);
    mmi_buddy_count(&b->moved, 1);
    return MM_OK;
}

/* Moves everything out of a range of isolated page blocks. On an error *stuck is what has to
 * stay. */
static enum mm_status mmi_buddy_evacuate(struct mm_buddy *b, uint32_t n, uint32_t end,
                                         uint32_t *stuck)
{
    for (;;) {
        enum mm_status status;
        uint32_t head;
        n = mmi_buddy_first_used(b, n, end);
        if (n == end)
            return MM_OK;
        *stuck = n;
        head = mmi_buddy_head_of(b, n);
        if (head == MMI_BUDDY_NONE)
            return MM_ERR_BUSY; /* absent, or on its way to a list */
        status = mmi_buddy_move(b, head);
        if (status != MM_OK)
            return status;
    }
}

/* Isolates the page blocks of a range, empties the lists, moves everything out, and takes the range
 * if asked. */
static enum mm_status mmi_buddy_clear_range(struct mm_buddy *b, uint32_t n, uint32_t end, bool take,
                                            unsigned flags, uint32_t *stuck)
{
    const uint32_t first = n >> b->pb_order, last = (end - 1) >> b->pb_order;
    enum mm_status status = MM_OK;
    struct mmi_buddy_span span;
    uint32_t pb, stop = first;

    *stuck = n;
    while (stop <= last && mmi_buddy_isolate(b, stop))
        stop++;
    if (stop <= last)
        status = MM_ERR_BUSY;
    if (status == MM_OK) {
        mm_buddy_drain(b);
        status = mmi_buddy_evacuate(b, n, end, stuck);
    }
    if (status == MM_OK && take) {
        mmi_buddy_span_lock(b, &span, n, end);
        if (mmi_buddy_spare(b, flags) < end - n) {
            status = MM_ERR_NOMEM;
        } else if (mmi_buddy_range_is_free(b, n, end, true)) {
            mmi_buddy_range_take(b, n, end, MM_BUDDY_MOVABLE);
            mmi_buddy_claim_range(b, n, end, MMI_BUDDY_PLAIN);
        } else {
            status = MM_ERR_BUSY;
        }
        mmi_buddy_span_unlock(b, &span);
    }
    for (pb = first; pb < stop; pb++)
        mmi_buddy_rejoin(b, pb);
    return status;
}

MM_BUDDY_API enum mm_status mm_buddy_alloc_range(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes,
                                                 unsigned flags)
{
    uint32_t n, end, stuck;
    enum mm_status status = mmi_buddy_range(b, pa, bytes, 0, &n, &end);

    if (status != MM_OK)
        return status;
    if (!mmi_buddy_can_zero(b, flags))
        return MM_ERR_INVALID;
    if (mmi_buddy_any_absent(b, n, end))
        return MM_ERR_NOENT;
    status = mmi_buddy_clear_range(b, n, end, true, flags, &stuck);
    if (status != MM_OK)
        return status;
    (void)mmi_buddy_hand_out(b, n, end - n, flags);
    return MM_OK;
}

/* First number of the range that is neither free nor in a page block that passes: of type CMA, or
 * (pass 2) movable. `end` if there is none. */
static uint32_t mmi_buddy_obstacle(const struct mm_buddy *b, uint32_t n, uint32_t end, int pass)
{
    for (;;) {
        unsigned type, state;
        n = mmi_buddy_first_used(b, n, end);
        if (n == end)
            return end;
        type = MMI_BUDDY_GET(b->pb[n >> b->pb_order].type);
        state = mmi_buddy_state(b, n);
        if (state == MMI_BUDDY_ABSENT || MMI_BUDDY_KIND(state) == MMI_BUDDY_RESERVED)
            return n;
        if (type != MM_BUDDY_CMA && !(pass == 2 && type == MM_BUDDY_MOVABLE))
            return n;
        n++;
    }
}

/* One pass of mm_buddy_alloc_contig over the span: 1 and 2 move blocks out of CMA and of movable
 * page blocks, the others take only what is free. Number of the range taken, or MMI_BUDDY_NONE. */
static uint32_t mmi_buddy_contig_pass(struct mm_buddy *b, uint32_t units, uint32_t step,
                                      unsigned flags, int pass)
{
    const bool free_only = pass == 0 || pass == 3;
    uint32_t n = b->first;

    for (;;) {
        const uint32_t gap = (0u - (n + b->skew)) & (step - 1);
        uint32_t end, bad;
        if (gap > b->units - n || units > b->units - n - gap)
            return MMI_BUDDY_NONE;
        n += gap;
        end = n + units;
        bad = free_only ? mmi_buddy_first_used(b, n, end) : mmi_buddy_obstacle(b, n, end, pass);
        if (bad == end) {
            enum mm_status status;
            bad = n;
            status = free_only ? mmi_buddy_acquire(b, n, end, MMI_BUDDY_PLAIN,
                                                   MM_BUDDY_MOVABLE | (flags & MM_BUDDY_URGENT))
                               : mmi_buddy_clear_range(b, n, end, true, flags, &bad);
            if (status == MM_OK)
                return n;
        }
        n = bad + 1;
    }
}

MM_BUDDY_API mm_pa_t mm_buddy_alloc_contig(struct mm_buddy *b, uint64_t bytes, uint64_t align,
                                           unsigned flags)
{
    const uint32_t units = mmi_buddy_units(b, bytes), step = mmi_buddy_units(b, align);
    int pass;

    if (units == 0 || units > b->units || !mm_is_pow2(align) || step > 1u << 31 ||
        !mmi_buddy_can_zero(b, flags))
        return MM_PA_NONE;
    for (pass = 0; pass < 4;
         pass++) { /* the last as the first: what was moved may have made room */
        uint32_t n;
        if (mm_load(&b->active) != 0)
            mm_buddy_drain(b);
        n = mmi_buddy_contig_pass(b, units, step, flags, pass);
        if (n != MMI_BUDDY_NONE)
            return mmi_buddy_hand_out(b, n, units, flags);
    }
    return MM_PA_NONE;
}

/* ---- Migration types by page block ----------------------------------------------------------- */

MM_BUDDY_API enum mm_status mm_buddy_set_type(struct mm_buddy *b, mm_pa_t pa, uint64_t bytes,
                                              enum mm_buddy_type type)
{
    struct mmi_buddy_span span;
    uint32_t n, end, pb;
    enum mm_status status = mmi_buddy_range(b, pa, bytes, 1, &n, &end);

    if (status != MM_OK)
        return status;
    if ((unsigned)type >= MM_BUDDY_TYPES)
        return MM_ERR_INVALID;
    mm_buddy_drain(b);
    for (pb = n >> b->pb_order; pb <= (end - 1) >> b->pb_order; pb++) {
        mmi_buddy_span_lock(b, &span, pb << b->pb_order, (pb << b->pb_order) + 1);
        n = pb << b->pb_order;
        if (type == MM_BUDDY_CMA && mmi_buddy_state(b, n) == (MMI_BUDDY_PLAIN | b->pb_order))
            mmi_buddy_set_state(b, n, MMI_BUDDY_FIXED | b->pb_order); /* stays out of the lists */
        if (b->pb[pb].hint == MMI_BUDDY_WHOLE) {
            mmi_buddy_whole_remove(b, pb);
            MMI_BUDDY_PUT(b->pb[pb].type, (uint8_t)type);
            mmi_buddy_whole_add(b, pb);
        } else if (b->pb[pb].hint == MMI_BUDDY_ISOLATED) {
            MMI_BUDDY_PUT(b->pb[pb].type, (uint8_t)type);
        } else {
            mmi_buddy_retype(b, pb, (unsigned)type);
        }
        mmi_buddy_span_unlock(b, &span);
    }
    mmi_buddy_debug(b);
    return MM_OK;
}

MM_BUDDY_API enum mm_buddy_type mm_buddy_get_type(const struct mm_buddy *b, mm_pa_t pa)
{
    const uint64_t offset = pa - b->base;
    uint32_t n;
    if (pa < b->base || offset >= mmi_buddy_bytes(b, b->units))
        return MM_BUDDY_UNMOVABLE;
    n = mmi_buddy_shift(offset, b->min_shift);
    return (enum mm_buddy_type)MMI_BUDDY_GET(b->pb[n >> b->pb_order].type);
}

/* ---- Compaction ------------------------------------------------------------------------------ */

/* Smallest blocks in use in a range; more than its size if something there cannot move. */
static uint32_t mmi_buddy_used(const struct mm_buddy *b, uint32_t n, uint32_t end)
{
    uint32_t used = 0, free;
    while (n < end) {
        n = mmi_buddy_first_used(b, n, end);
        if (n == end)
            break;
        if (!mmi_buddy_pb_movable(b, n) || mmi_buddy_state(b, n) == MMI_BUDDY_ABSENT ||
            MMI_BUDDY_KIND(mmi_buddy_state(b, n)) == MMI_BUDDY_RESERVED)
            return MMI_BUDDY_NONE;
        free = mmi_buddy_min(mmi_buddy_first_free(b, n, end), mmi_buddy_end_of_pb(b, n, end));
        used += free - n;
        n = free;
    }
    return used;
}

/* First free block of an order; MMI_BUDDY_NONE if there is none. */
static uint32_t mmi_buddy_find_free(const struct mm_buddy *b, unsigned order)
{
    const uint32_t size = 1u << order;
    uint32_t n = (0u - b->skew) & (size - 1);
    while (n < b->units && size <= b->units - n) {
        const uint32_t bad = mmi_buddy_first_used(b, n, n + size);
        uint32_t gap;
        if (bad == n + size)
            return n;
        n = mmi_buddy_first_free(b, bad, b->units);
        gap = (0u - (n + b->skew)) & (size - 1);
        if (gap > b->units - n)
            break;
        n += gap;
    }
    return MMI_BUDDY_NONE;
}

/* Is there room for `used` smallest blocks outside the page blocks of a range? A snapshot. */
static bool mmi_buddy_room_elsewhere(const struct mm_buddy *b, uint32_t n, uint32_t end,
                                     uint32_t used)
{
    const uintptr_t free = mmi_buddy_free_units(b);
    uintptr_t own = used;
    uint32_t pb;
    for (pb = n >> b->pb_order; pb <= (end - 1) >> b->pb_order; pb++)
        own += MMI_BUDDY_GET(b->pb[pb].free);
    return own <= free;
}

/* Empties one of the blocks of `order` that have at most `most` smallest blocks in use. `blindly`:
 * also where there is no room for these, as the hook may free some; else moving what fits would
 * only fill the holes that another block needs. */
static bool mmi_buddy_compact_pass(struct mm_buddy *b, unsigned order, uint32_t most, bool blindly)
{
    const uint32_t size = 1u << order;
    uint32_t n = (0u - b->skew) & (size - 1), stuck;

    for (; n < b->units && size <= b->units - n; n += size) {
        const uint32_t used = mmi_buddy_used(b, n, n + size);
        if (used <= most && (blindly || mmi_buddy_room_elsewhere(b, n, n + size, used)) &&
            mmi_buddy_clear_range(b, n, n + size, false, MM_BUDDY_URGENT, &stuck) == MM_OK &&
            mmi_buddy_first_used(b, n, n + size) == n + size)
            return true;
        if (size > b->units - n - size)
            break;
    }
    return false;
}

MM_BUDDY_API enum mm_status mm_buddy_compact(struct mm_buddy *b, unsigned order)
{
    const uint32_t size = 1u << (order & 31);
    unsigned shift;

    if (order > b->max_order)
        return MM_ERR_INVALID;
    if (mm_load(&b->active) != 0)
        mm_buddy_drain(b);
    if (mmi_buddy_find_free(b, order) != MMI_BUDDY_NONE)
        return MM_OK;
    if (b->hooks == NULL || b->hooks->migrate == NULL)
        return MM_ERR_PERM;
    if (mmi_buddy_free_units(b) < size)
        return MM_ERR_NOMEM;
    for (shift = 5;
         shift-- > 0;) { /* sparse blocks first; at last those that nothing has room for */
        const bool blindly = shift == 0;
        if (mmi_buddy_compact_pass(b, order, blindly ? size : size >> (shift - 1), blindly)) {
            mmi_buddy_debug(b);
            return MM_OK;
        }
    }
    mm_buddy_drain(b);
    mmi_buddy_debug(b);
    return mmi_buddy_find_free(b, order) != MMI_BUDDY_NONE
               ? MM_OK
               : MM_ERR_NOMEM; /* the hook may have freed some */
}

/* Adds up the largest free blocks of a page block's bitmap, by order. */
static void mmi_buddy_count_pb(const struct mm_buddy *b, uint32_t pb, uintptr_t *blocks)
{
    const uint32_t first = pb * mmi_buddy_pb_words(b);
    uintptr_t x, merged;
    unsigned order;
    uint32_t i;

    for (i = first; i < first + mmi_buddy_pb_words(b); i++) {
        const uintptr_t word = mm_load(b->bits + i);
        for (x = word, order = 0; x != 0 && order < MM_WORD_SHIFT; order++, x = merged) {
            merged = order + 1 < MM_WORD_SHIFT ? mmi_buddy_runs(word, order + 1)
                                               : (uintptr_t)(word == ~(uintptr_t)0);
            blocks[order] += mm_popcount(x) - 2 * mm_popcount(merged);
        }
        for (; x != 0 && order < b->pb_order; order++) {
            const bool starts = ((i - first) & ((1u << (order - MM_WORD_SHIFT)) - 1)) == 0;
            if (!starts || !mmi_buddy_has(b, i, order))
                break;
            if (order + 1 == b->pb_order || !mmi_buddy_has(b, i, order + 1))
                blocks[order]++;
        }
    }
}

/* Largest free blocks by order, as they merge up to the arena's largest order. */
static void mmi_buddy_count_blocks(const struct mm_buddy *b, uintptr_t *blocks)
{
    const uint32_t size = mmi_buddy_pb_size(b);
    uint32_t n = 0, end;
    unsigned order;

    for (order = 0; order < MM_BUDDY_ORDERS; order++)
        blocks[order] = 0;
    while (n < b->units) {
        for (end = n;
             end < b->units && MMI_BUDDY_GET(b->pb[end >> b->pb_order].hint) == MMI_BUDDY_WHOLE;)
            end += size;
        if (end == n) {
            if (MMI_BUDDY_GET(b->pb[n >> b->pb_order].free) != 0)
                mmi_buddy_count_pb(b, n >> b->pb_order, blocks);
            n += size;
        }
        for (; n < end; n += 1u << order) {
            order = mmi_buddy_piece(b, n, end);
            blocks[order]++;
        }
    }
    for (order = MM_BUDDY_ORDERS - 1; order > b->max_order; order--) {
        blocks[b->max_order] += blocks[order] << (order - b->max_order);
        blocks[order] = 0;
    }
}

MM_BUDDY_API int mm_buddy_fragmentation(const struct mm_buddy *b, unsigned order)
{
    uintptr_t blocks[MM_BUDDY_ORDERS];
    uint32_t free = 0, count = 0, rest, value;
    unsigned k, shift;
    int result = 1000;

    if (order > b->max_order)
        return -1000;
    mmi_buddy_count_blocks(b, blocks);
    for (k = 0; k < MM_BUDDY_ORDERS; k++) {
        free += (uint32_t)(blocks[k] << k);
        count += (uint32_t)blocks[k];
        if (k >= order && blocks[k] != 0)
            return -1000;
    }
    if (count == 0)
        return 0;
    /* 1000 - (1000 + free * 1000 / 2^order) / count. Each block is smaller than 2^order, so that
     * the quotient is at most 2000, and 32 bits do if large operands are scaled down. */
    shift = order > 20 ? order - 20 : 0;
    rest = ((free & ((1u << order) - 1)) >> shift) * 1000 >> (order - shift);
    free >>= order;
    for (; free > 4000000; free >>= 1, count >>= 1)
        rest = 0;
    for (value = 1000 + free * 1000 + rest; value >= count && result > 0; value -= count)
        result--;
    return result;
}

/* ---- Free-page reporting --------------------------------------------------------------------- */

MM_BUDDY_API enum mm_status mm_buddy_report_enable(struct mm_buddy *b, unsigned order)
{
    struct mmi_buddy_span span;
    uint32_t n;
    unsigned granule = mmi_buddy_min(order, b->pb_order + b->region_shift);

    if (order > b->max_order && order != MM_BUDDY_ORDERS)
        return MM_ERR_INVALID;
    mmi_buddy_span_lock(b, &span, 0, b->units);
    for (n = 0; n < b->units; n++)
        if (mmi_buddy_state(b, n) == MMI_BUDDY_MARK)
            mmi_buddy_set_state(b, n, MMI_BUDDY_CLEAR);
    b->report = order == MM_BUDDY_ORDERS ? 0 : granule + 1;
    b->report_order = order;
    mmi_buddy_span_unlock(b, &span);
    return MM_OK;
}

/* Are all granules (or: is any granule) of a free range marked? */
static bool mmi_buddy_marked(const struct mm_buddy *b, uint32_t n, uint32_t end, bool all)
{
    for (; n < end; n += 1u << (b->report - 1))
        if ((mmi_buddy_state(b, n) == MMI_BUDDY_MARK) != all)
            return !all;
    return all;
}

/* Takes a free block that was not reported, calls, and gives it back; 1 if it was reported, 0 if it
 * was in use by now, -1 to end. */
static int mmi_buddy_tell(struct mm_buddy *b, uint32_t n, unsigned order,
                          enum mm_status (*report)(void *ctx, mm_pa_t pa, uint64_t bytes),
                          void *ctx)
{
    const uint32_t end = n + (1u << order);
    struct mmi_buddy_span span;
    enum mm_status status;
    bool taken;

    mmi_buddy_span_lock(b, &span, n, end);
    taken = mmi_buddy_range_is_free(b, n, end, false);
    if (taken) /* without heads: nobody can free or release it */
        mmi_buddy_range_take(b, n, end, MMI_BUDDY_GET(b->pb[n >> b->pb_order].type));
    mmi_buddy_span_unlock(b, &span);
    if (!taken)
        return 0;
    status = report(ctx, mmi_buddy_pa(b, n), mmi_buddy_bytes(b, end - n));
    mmi_buddy_span_lock(b, &span, n, end);
    mmi_buddy_range_give(b, n, end);
    if (status == MM_OK && b->report != 0 && b->report - 1u <= order) {
        uint32_t at;
        for (at = n; at < end; at += 1u << (b->report - 1))
            mmi_buddy_set_state(b, at, MMI_BUDDY_MARK);
    }
    mmi_buddy_span_unlock(b, &span);
    return status == MM_OK ? 1 : -1;
}

/* Order of the largest aligned block at n that is free and, behind its first 2^least, not told of
 * yet. */
static unsigned mmi_buddy_untold_order(const struct mm_buddy *b, uint32_t n, unsigned least)
{
    unsigned order;

    for (order = least; order < b->max_order; order++) {
        const uint32_t size = 1u << order;
        if (!mmi_buddy_is_aligned(b, n, order + 1) || size > b->units - n - size ||
            mmi_buddy_first_used(b, n + size, n + 2 * size) != n + 2 * size ||
            mmi_buddy_marked(b, n + size, n + 2 * size, false))
            break;
    }
    return order;
}

MM_BUDDY_API size_t mm_buddy_report(struct mm_buddy *b, size_t limit,
                                    enum mm_status (*report)(void *ctx, mm_pa_t pa, uint64_t bytes),
                                    void *ctx)
{
    const unsigned least = b->report_order;
    uint32_t n = 0, end;
    size_t told = 0;
    unsigned order;
    int result;

    while (b->report != 0 && told < limit) {
        uint32_t gap;
        n = mmi_buddy_first_free(b, n, b->units);
        gap = (0u - (n + b->skew)) & ((1u << least) - 1);
        if (n == b->units || gap >= b->units - n)
            break;
        n += gap;
        if ((1u << least) > b->units - n)
            break;
        end = n + (1u << least);
        if (mmi_buddy_first_used(b, n, end) != end || mmi_buddy_marked(b, n, end, true)) {
            n = end;
            continue;
        }
        order = mmi_buddy_untold_order(b, n, least);
        result = mmi_buddy_tell(b, n, order, report, ctx);
        if (result < 0)
            break;
        told += (size_t)result;
        n += 1u << order;
    }
    mmi_buddy_count(&b->told, told);
    mmi_buddy_debug(b);
    return told;
}

/* ---- Watermarks ------------------------------------------------------------------------------ */

/* Bytes in smallest blocks, rounded up; more than there can be if they are too many. */
static uintptr_t mmi_buddy_mark_units(const struct mm_buddy *b, uint64_t bytes)
{
    return mmi_buddy_units(b, bytes);
}

MM_BUDDY_API enum mm_status mm_buddy_set_watermarks(struct mm_buddy *b, uint64_t min, uint64_t low,
                                                    uint64_t high)
{
    if (min > low || low > high)
        return MM_ERR_INVALID;
    mm_store(&b->mark[0], mmi_buddy_mark_units(b, min));
    mm_store(&b->mark[1], mmi_buddy_mark_units(b, low));
    mm_store(&b->mark[2], mmi_buddy_mark_units(b, high));
    return MM_OK;
}

MM_BUDDY_API enum mm_buddy_level mm_buddy_get_level(const struct mm_buddy *b)
{
    const uintptr_t free = mmi_buddy_free_units(b);
    if (free < mm_load(&b->mark[0]))
        return MM_BUDDY_LEVEL_MIN;
    if (free < mm_load(&b->mark[1]))
        return MM_BUDDY_LEVEL_LOW;
    return free < mm_load(&b->mark[2]) ? MM_BUDDY_LEVEL_OK : MM_BUDDY_LEVEL_HIGH;
}

MM_BUDDY_API uint64_t mm_buddy_free_bytes(const struct mm_buddy *b)
{
    return mmi_buddy_bytes(b, (uint32_t)mmi_buddy_free_units(b));
}

/* ---- Per-CPU lists --------------------------------------------------------------------------- */

MM_BUDDY_API enum mm_status mm_buddy_set_lists(struct mm_buddy *b, unsigned batch, unsigned high)
{
    MM_BUDDY_LOCK_STATE_T lock;

    if ((batch == 0) != (high == 0) || batch > high || high > MM_BUDDY_CPU_SLOTS)
        return MM_ERR_INVALID;
    if (b->cpus == 0)
        return MM_ERR_PERM;
    MM_BUDDY_LOCK(&b->lock, lock);
    mm_store(&b->batch, batch);
    mm_store(&b->high, high);
    mm_buddy_drain(b);
    MM_BUDDY_UNLOCK(&b->lock, lock);
    return MM_OK;
}

MM_BUDDY_API void mm_buddy_drain_cpu(struct mm_buddy *b, unsigned cpu)
{
    MM_BUDDY_CPU_STATE_T pin;
    if (cpu >= b->cpus)
        return;
    MM_BUDDY_CPU_PIN(pin); /* an interrupt that drains too would wait for ever */
    mmi_buddy_seize(b, cpu);
    mmi_buddy_empty(b, &b->cpu[cpu]);
    mmi_buddy_disown(b, cpu);
    MM_BUDDY_CPU_UNPIN(pin);
}

MM_BUDDY_API void mm_buddy_drain(struct mm_buddy *b)
{
    uint32_t i;
    for (i = 0; i < b->cpus; i++)
        mm_buddy_drain_cpu(b, i);
}

/* ---- Zone lists ------------------------------------------------------------------------------ */

MM_BUDDY_API mm_pa_t mm_buddy_zones_alloc(const struct mm_buddy_zones *zones, unsigned order,
                                          unsigned flags)
{
    const unsigned quiet = flags | MMI_BUDDY_NO_PRESSURE;
    const unsigned tries[3] = {quiet | MM_BUDDY_KEEP_LOW, quiet, quiet | MM_BUDDY_URGENT};
    const unsigned last = (flags & MM_BUDDY_URGENT) != 0 ? 2 : 1;
    unsigned pass, i;

    for (pass = 0; pass <= last; pass++) {
        const unsigned now = pass < 2 ? tries[pass] & ~MM_BUDDY_URGENT : tries[pass];
        for (i = 0; i < zones->count; i++) {
            const mm_pa_t pa = mm_buddy_alloc(zones->zone[i].arena, order, now);
            if (pa != MM_PA_NONE)
                return pa;
        }
        for (i = 0; pass == 0 && i < zones->count; i++) {
            struct mm_buddy *b = zones->zone[i].arena;
            if (b->hooks != NULL && b->hooks->pressure != NULL)
                (void)b->hooks->pressure(b->hooks->ctx, b, order);
        }
    }
    return MM_PA_NONE;
}

MM_BUDDY_API struct mm_buddy *mm_buddy_zones_find(const struct mm_buddy_zones *zones, mm_pa_t pa)
{
    unsigned i;
    for (i = 0; i < zones->count; i++) {
        struct mm_buddy *b = zones->zone[i].arena;
        if (pa >= mmi_buddy_pa(b, b->first) && pa - b->base < mmi_buddy_bytes(b, b->units))
            return b;
    }
    return NULL;
}

MM_BUDDY_API enum mm_status mm_buddy_zones_free(const struct mm_buddy_zones *zones, mm_pa_t pa)
{
    struct mm_buddy *b = mm_buddy_zones_find(zones, pa);
    return b == NULL ? MM_ERR_INVALID : mm_buddy_free(b, pa);
}

static void mmi_buddy_add_stats(struct mm_buddy_stats *sum, const struct mm_buddy_stats *s)
{
    unsigned i;
    sum->total += s->total;
    sum->free += s->free;
    sum->cached += s->cached;
    sum->reserved += s->reserved;
    sum->used += s->used;
    for (i = 0; i < MM_BUDDY_TYPES; i++)
        sum->free_by_type[i] += s->free_by_type[i];
    for (i = 0; i < MM_BUDDY_ORDERS; i++)
        sum->free_blocks[i] += s->free_blocks[i];
    sum->failures += s->failures;
    sum->refills += s->refills;
    sum->flushes += s->flushes;
    sum->drains += s->drains;
    sum->fallbacks += s->fallbacks;
    sum->steals += s->steals;
    sum->moved += s->moved;
    sum->reported += s->reported;
    sum->misuse += s->misuse;
}

MM_BUDDY_API enum mm_status mm_buddy_zones_stats(const struct mm_buddy_zones *zones, unsigned index,
                                                 struct mm_buddy_stats *stats)
{
    struct mm_buddy_stats one;
    unsigned i;

    if (index > zones->count)
        return MM_ERR_INVALID;
    MM_BUDDY_MEMSET(stats, 0, sizeof *stats);
    for (i = 0; i < zones->count; i++) {
        if (index != zones->count && index != i)
            continue;
        mm_buddy_get_stats(zones->zone[i].arena, &one);
        mmi_buddy_add_stats(stats, &one);
    }
    return MM_OK;
}

/* ---- Heap face ------------------------------------------------------------------------------- */

static void *mmi_buddy_pointer(const struct mm_buddy *b, mm_pa_t pa)
{
    return pa == MM_PA_NONE ? NULL : (void *)((uintptr_t)pa + b->pointer_offset);
}
static mm_pa_t mmi_buddy_address(const struct mm_buddy *b, const void *pointer)
{
    return (mm_pa_t)((uintptr_t)pointer - b->pointer_offset);
}

MM_BUDDY_API void *mm_buddy_malloc(struct mm_buddy *b, size_t size)
{
    return mmi_buddy_pointer(b, mm_buddy_alloc_bytes(b, size, MM_BUDDY_UNMOVABLE));
}

MM_BUDDY_API void *mm_buddy_calloc(struct mm_buddy *b, size_t count, size_t size)
{
    void *block;
    if (mm_size_mul_overflows(count, size, &size))
        return NULL;
    block = mm_buddy_malloc(b, size);
    if (block != NULL)
        MM_BUDDY_MEMSET(block, 0, size);
    return block;
}

/* A block whose order realloc keeps, since an alignment was asked for. */
static void *mmi_buddy_malloc_fixed(struct mm_buddy *b, unsigned order)
{
    const mm_pa_t pa = mmi_buddy_alloc_slow(b, order, MM_BUDDY_UNMOVABLE | MM_BUDDY_NOCACHE);
    if (pa != MM_PA_NONE)
        mmi_buddy_set_state(b, mmi_buddy_number(b, pa), MMI_BUDDY_FIXED | order);
    return mmi_buddy_pointer(b, pa);
}

MM_BUDDY_API void *mm_buddy_memalign(struct mm_buddy *b, size_t align, size_t size)
{
    const unsigned order = mm_buddy_order(b, size > align ? size : align);

    if (!mm_is_pow2(align) || size == 0 || order == MM_BUDDY_ORDERS)
        return NULL;
    if (align >> b->min_shift <= 1 && (align & ((1u << b->min_shift) - 1)) == 0)
        return mm_buddy_malloc(b, size); /* every block is aligned to the smallest one's size */
    if (align < (size_t)1 << b->min_shift)
        return mm_buddy_malloc(b, size);
    return mmi_buddy_malloc_fixed(b, order);
}

/* Makes the block at `pa`, pointed to by `old`, fit `size` bytes, which `order` holds: in place or
 * elsewhere. */
static void *mmi_buddy_refit(struct mm_buddy *b, void *old, mm_pa_t pa, size_t usable, size_t size,
                             unsigned order)
{
    const unsigned state = mmi_buddy_state(b, mmi_buddy_number(b, pa));
    const bool fixed = MMI_BUDDY_KIND(state) == MMI_BUDDY_FIXED;
    void *block;

    if (fixed && order < MMI_BUDDY_ORDER(state))
        order = MMI_BUDDY_ORDER(state);
    if (MMI_BUDDY_KIND(state) == MMI_BUDDY_FIRST ? size <= usable
                                                 : mm_buddy_resize(b, pa, order) == MM_OK)
        return old;
    block = fixed ? mmi_buddy_malloc_fixed(b, order)
                  : mmi_buddy_pointer(b, mm_buddy_alloc(b, order, MM_BUDDY_UNMOVABLE));
    if (block == NULL)
        return NULL;
    MM_BUDDY_MEMCPY(block, old, usable < size ? usable : size);
    (void)mm_buddy_free(b, pa);
    return block;
}

MM_BUDDY_API void *mm_buddy_realloc(struct mm_buddy *b, void *old, size_t size)
{
    const mm_pa_t pa = mmi_buddy_address(b, old);
    const size_t usable = old == NULL ? 0 : mm_buddy_usable_size(b, old);
    const unsigned order = mm_buddy_order(b, size);

    if (old == NULL)
        return mm_buddy_malloc(b, size);
    if (usable == 0) {
        (void)mmi_buddy_wild(b, "mm_buddy_realloc", pa);
        return NULL;
    }
    if (size == 0) {
        (void)mm_buddy_free(b, pa);
        return NULL;
    }
    return order == MM_BUDDY_ORDERS ? NULL : mmi_buddy_refit(b, old, pa, usable, size, order);
}

MM_BUDDY_API enum mm_status mm_buddy_mfree(struct mm_buddy *b, void *block)
{
    return block == NULL ? MM_OK : mm_buddy_free(b, mmi_buddy_address(b, block));
}

MM_BUDDY_API size_t mm_buddy_usable_size(const struct mm_buddy *b, const void *block)
{
    const uint32_t n = mmi_buddy_number(b, mmi_buddy_address(b, block));
    unsigned kind;
    uint32_t end;

    if (block == NULL || n == MMI_BUDDY_NONE)
        return 0;
    kind = MMI_BUDDY_KIND(mmi_buddy_state(b, n));
    if (kind != MMI_BUDDY_PLAIN && kind != MMI_BUDDY_FIXED && kind != MMI_BUDDY_FIRST)
        return 0;
    end = mmi_buddy_block_end(b, n);
    return end == MMI_BUDDY_NONE ? 0 : (size_t)mmi_buddy_bytes(b, end - n);
}

/* ---- Questions ------------------------------------------------------------------------------- */

/* Largest free block, up to the arena's largest order, that starts at the free number n. */
static unsigned mmi_buddy_free_order_at(const struct mm_buddy *b, uint32_t n)
{
    unsigned order;
    for (order = 0; order < b->max_order; order++) {
        const uint32_t size = 1u << order;
        if (!mmi_buddy_is_aligned(b, n, order + 1) || size > b->units - n - size ||
            mmi_buddy_first_used(b, n + size, n + 2 * size) != n + 2 * size)
            break;
    }
    return order;
}

static bool mmi_buddy_is_free(const struct mm_buddy *b, uint32_t n)
{
    return mmi_buddy_first_used(b, n, n + 1) != n;
}

/* Where the run of absent or cached smallest blocks that n is in ends. */
static uint32_t mmi_buddy_run_end(const struct mm_buddy *b, uint32_t n, bool absent)
{
    while (++n < b->units) {
        const unsigned state = mmi_buddy_state(b, n);
        if (absent ? state != MMI_BUDDY_ABSENT
                   : state >= MMI_BUDDY_PLAIN || mmi_buddy_is_free(b, n))
            break;
    }
    return n;
}

/* Describes what starts at n, which is no number inside a block; returns its end. */
static uint32_t mmi_buddy_describe(const struct mm_buddy *b, uint32_t n,
                                   struct mm_buddy_block *block)
{
    const unsigned state = mmi_buddy_state(b, n);
    uint32_t end;

    if (mmi_buddy_is_head(state)) {
        end = mmi_buddy_block_end(b, n);
        if (end == MMI_BUDDY_NONE)
            end = n + (1u << MMI_BUDDY_ORDER(state));
        block->state = MMI_BUDDY_KIND(state) == MMI_BUDDY_RESERVED ? MM_BUDDY_STATE_RESERVED
                                                                   : MM_BUDDY_STATE_ALLOCATED;
    } else if (state == MMI_BUDDY_ABSENT) {
        block->state = MM_BUDDY_STATE_ABSENT;
        end = mmi_buddy_run_end(b, n, true);
    } else if (mmi_buddy_is_free(b, n)) {
        block->state = MM_BUDDY_STATE_FREE;
        end = n + (1u << mmi_buddy_free_order_at(b, n));
    } else {
        block->state = MM_BUDDY_STATE_CACHED;
        end = mmi_buddy_run_end(b, n, false);
    }
    block->pa = mmi_buddy_pa(b, n);
    block->bytes = mmi_buddy_bytes(b, end - n);
    block->type = (enum mm_buddy_type)MMI_BUDDY_GET(b->pb[n >> b->pb_order].type);
    block->tag =
        b->tags != NULL && block->state == MM_BUDDY_STATE_ALLOCATED ? mm_load(&b->tags[n]) : 0;
    return end;
}

MM_BUDDY_API enum mm_status mm_buddy_find(const struct mm_buddy *b, mm_pa_t pa,
                                          struct mm_buddy_block *block)
{
    const uint64_t offset = pa - b->base;
    uint32_t n, head, start;
    unsigned order;

    if (pa < mmi_buddy_pa(b, b->first) || offset >= mmi_buddy_bytes(b, b->units))
        return MM_ERR_INVALID;
    n = mmi_buddy_shift(offset, b->min_shift);
    head = mmi_buddy_head_of(b, n);
    if (head != MMI_BUDDY_NONE) {
        (void)mmi_buddy_describe(b, head, block);
        return MM_OK;
    }
    for (order = 1; order <= b->max_order && mmi_buddy_is_free(b, n); order++) {
        start = n - ((n + b->skew) & ((1u << order) - 1));
        if (start > n || 1u << order > b->units - start ||
            mmi_buddy_first_used(b, start, start + (1u << order)) != start + (1u << order))
            break;
        head = start;
    }
    if (head != MMI_BUDDY_NONE)
        n = head;
    (void)mmi_buddy_describe(b, n, block);
    if (block->state == MM_BUDDY_STATE_CACHED || block->state == MM_BUDDY_STATE_ABSENT)
        block->bytes = mmi_buddy_bytes(b, 1);
    return MM_OK;
}

MM_BUDDY_API void mm_buddy_walk(const struct mm_buddy *b,
                                bool (*visit)(void *ctx, const struct mm_buddy_block *block),
                                void *ctx)
{
    struct mm_buddy_block block;
    uint32_t n = b->first;

    while (n < b->units) {
        n = mmi_buddy_describe(b, n, &block);
        if (!visit(ctx, &block))
            return;
    }
}

static uintptr_t mmi_buddy_cached_units(const struct mm_buddy *b, const struct mmi_buddy_cpu *c)
{
    uintptr_t units = 0;
    unsigned stack;
    for (stack = 0; stack < MMI_BUDDY_STACKS; stack++)
        units += (uintptr_t)(unsigned)(c->end[stack] - c->pos[stack])
                 << mmi_buddy_stack_order(b, stack);
    return units;
}

/* Units of one instant each, so that their sum may be off while other CPUs work. */
MM_BUDDY_API void mm_buddy_get_stats(const struct mm_buddy *b, struct mm_buddy_stats *s)
{
    struct mm_buddy *lists = (struct mm_buddy *)(uintptr_t)b; /* their locks are no state */
    uintptr_t total = mm_load(&b->total), free = mmi_buddy_free_units(b), cached = 0;
    const uintptr_t reserved = mm_load(&b->reserved);
    uint32_t i;

    MM_BUDDY_MEMSET(s, 0, sizeof *s);
    for (i = 0; i < b->cpus; i++) {
        MM_BUDDY_CPU_STATE_T pin;
        MM_BUDDY_CPU_PIN(pin);
        mmi_buddy_seize(lists, i);
        cached += mmi_buddy_cached_units(b, &b->cpu[i]);
        mmi_buddy_disown(lists, i);
        MM_BUDDY_CPU_UNPIN(pin);
        s->failures += mm_load(&b->cpu[i].failures);
    }
    s->total = mmi_buddy_bytes(b, (uint32_t)total);
    s->free = mmi_buddy_bytes(b, (uint32_t)free);
    s->cached = mmi_buddy_bytes(b, (uint32_t)cached);
    s->reserved = mmi_buddy_bytes(b, (uint32_t)reserved);
    s->used = total < free + cached + reserved
                  ? 0
                  : mmi_buddy_bytes(b, (uint32_t)(total - free - cached - reserved));
    for (i = 0; i < b->pbs; i++) {
        const unsigned type = MMI_BUDDY_GET(b->pb[i].type) & 3u;
        s->free_by_type[type] += mmi_buddy_bytes(b, MMI_BUDDY_GET(b->pb[i].hint) == MMI_BUDDY_WHOLE
                                                        ? mmi_buddy_pb_size(b)
                                                        : MMI_BUDDY_GET(b->pb[i].free));
    }
    mmi_buddy_count_blocks(b, s->free_blocks);
    for (i = 0; i < b->regions; i++) {
        s->refills += mm_load(&b->region[i].refills);
        s->flushes += mm_load(&b->region[i].flushes);
        s->fallbacks += mm_load(&b->region[i].fallbacks);
        s->steals += mm_load(&b->region[i].steals);
        s->misuse += mm_load(&b->region[i].misuse);
    }
    s->failures += mm_load(&b->failures);
    s->drains = mm_load(&b->drains);
    s->moved = mm_load(&b->moved);
    s->reported = mm_load(&b->told);
    s->misuse += mm_load(&b->misuse);
}

/* ---- Check: the caller holds all locks and lists --------------------------------------------- */

/* Does the page block stand in exactly the sets that its hint and type name (I3, I4)? */
static bool mmi_buddy_check_sets(const struct mm_buddy *b, uint32_t pb)
{
    const uint32_t region = mmi_buddy_pb_region(b, pb), local = mmi_buddy_pb_local(b, pb);
    const unsigned hint = b->pb[pb].hint, type = b->pb[pb].type;
    const bool whole = hint == MMI_BUDDY_WHOLE, cma = type == MM_BUDDY_CMA;
    unsigned t, order;

    for (t = 0; t < MM_BUDDY_TYPES; t++)
        for (order = 0; order < b->pb_order; order++)
            if (mmi_buddy_set_has(b, mmi_buddy_partial(b, region, t, order), local) !=
                (t == type && hint <= b->pb_order && order < hint))
                return false;
    return mmi_buddy_set_has(b, mmi_buddy_whole(b, region, MM_BUDDY_CMA), local) ==
               (whole && cma) &&
           mmi_buddy_set_has(b, mmi_buddy_whole(b, region, MM_BUDDY_MOVABLE), local) ==
               (whole && !cma);
}

static bool mmi_buddy_check_pb(const struct mm_buddy *b, uint32_t pb)
{
    const uint32_t words = mmi_buddy_pb_words(b), size = mmi_buddy_pb_size(b);
    const unsigned hint = b->pb[pb].hint;
    uint32_t free = 0, i;

    for (i = 0; i < words; i++)
        free += mm_popcount(mm_load(b->bits + (size_t)pb * words + i));
    if (free != b->pb[pb].free || b->pb[pb].type >= MM_BUDDY_TYPES)
        return false; /* I3 */
    if (hint == MMI_BUDDY_WHOLE ? free != 0 : hint != MMI_BUDDY_ISOLATED && free == size)
        return false; /* I3 */
    if (hint <= b->pb_order ? mmi_buddy_pb_scan(b, pb) > hint : hint < MMI_BUDDY_WHOLE)
        return false; /* I4 */
    return mmi_buddy_check_sets(b, pb);
}

/* A set's summary, and no bit for what is no page block. */
static bool mmi_buddy_check_set(const struct mm_buddy *b, uint32_t region, const uintptr_t *set)
{
    const uint32_t words = b->set_words - b->set_summary;
    uint32_t i;

    for (i = 0; i < words * MM_WORD_BITS; i++)
        if (mmi_buddy_set_has(b, set, i) &&
            (i >> b->region_shift != 0 || mmi_buddy_pb_global(b, region, i) >= b->pbs))
            return false;
    for (i = 0; i < b->set_summary * MM_WORD_BITS; i++)
        if ((i < words && mm_load(set + b->set_summary + i) != 0) !=
            ((mm_load(set + MMI_BUDDY_WORD(i)) & mm_bit(MMI_BUDDY_BIT(i))) != 0))
            return false;
    return true;
}

/* A region's sums (I5), and its sets. */
static bool mmi_buddy_check_region(const struct mm_buddy *b, uint32_t region)
{
    const uint32_t sets = MM_BUDDY_TYPES * b->pb_order + 2;
    uintptr_t free = 0, whole = 0;
    uint32_t i, pb;

    for (i = 0; i < 1u << b->region_shift; i++) {
        pb = mmi_buddy_pb_global(b, region, i);
        if (pb >= b->pbs)
            continue;
        free += b->pb[pb].hint == MMI_BUDDY_WHOLE ? mmi_buddy_pb_size(b) : b->pb[pb].free;
        whole += b->pb[pb].hint == MMI_BUDDY_WHOLE;
    }
    for (i = 0; i < sets; i++)
        if (!mmi_buddy_check_set(b, region, mmi_buddy_set(b, region, i)))
            return false;
    return free == mm_load(&b->region[region].free) && whole == mm_load(&b->region[region].whole) &&
           (free != 0) == ((mm_load(&b->some) & mm_bit(region)) != 0) &&
           (whole != 0) == ((mm_load(&b->wholes) & mm_bit(region)) != 0) &&
           mm_load(&b->region[region].owner) <= b->cpus;
}

/* What the state bytes and bitmaps add up to. */
struct mmi_buddy_sums {
    uintptr_t present, free, reserved;
    uintptr_t loose;         /* neither free nor in a block */
    uintptr_t dying;         /* heads of blocks that mm_buddy_free_bulk is at */
    uintptr_t seen;          /* bytes SEEN */
    uintptr_t lists, cached; /* blocks in lists, smallest blocks in them */
    uintptr_t active;        /* CPUs whose lists are in use */
};

/* Whether a piece of this kind is followed by another. */
static bool mmi_buddy_has_next(unsigned kind)
{
    return kind == MMI_BUDDY_FIRST || kind == MMI_BUDDY_MIDDLE;
}

/* Is nothing noted inside the block of `order` at n, and nothing free in it (I2, C2)? */
static bool mmi_buddy_check_inside(const struct mm_buddy *b, uint32_t n, unsigned order)
{
    const uint32_t end = n + (1u << order);
    uint32_t i;

    for (i = n + 1; i < end; i++)
        if (mmi_buddy_state(b, i) != MMI_BUDDY_CLEAR)
            return false;
    return mmi_buddy_first_free(b, n, end) == end;
}

/* The block or piece at n: alignment, nothing free or another head inside, chain of pieces (I1,
 * I2). `before` is the kind of the piece that ends at n, or 0. */
static bool mmi_buddy_check_block(const struct mm_buddy *b, uint32_t n, unsigned before)
{
    const unsigned state = mmi_buddy_state(b, n), order = MMI_BUDDY_ORDER(state);
    const unsigned kind = MMI_BUDDY_KIND(state);
    const bool follows = kind == MMI_BUDDY_MIDDLE || kind == MMI_BUDDY_LAST;

    if (!mmi_buddy_is_aligned(b, n, order) || 1u << order > b->units - n)
        return false;
    return mmi_buddy_has_next(before) == follows && mmi_buddy_check_inside(b, n, order);
}

/* What is noted of a smallest block that is in none: a mark at the head of a granule (I7), that a
 * bulk free is under way, or that this check found it in a list. */
static bool mmi_buddy_check_note(const struct mm_buddy *b, uint32_t n, struct mmi_buddy_sums *sums)
{
    const unsigned state = mmi_buddy_state(b, n), order = (unsigned)mm_load(&b->report) - 1;
    const bool free = mmi_buddy_is_free(b, n);

    sums->present++;
    sums->free += free;
    sums->loose += !free;
    sums->seen += state == MMI_BUDDY_SEEN;
    if (state == MMI_BUDDY_MARK) /* of reports that are on: `order` is not too large */
        return order < MM_BUDDY_ORDERS && mmi_buddy_is_aligned(b, n, order) &&
               1u << order <= b->units - n &&
               mmi_buddy_first_used(b, n, n + (1u << order)) == n + (1u << order);
    if (state == MMI_BUDDY_DYING || state == MMI_BUDDY_DYING_FIXED)
        sums->dying++;
    else if (state == MMI_BUDDY_CLEAR)
        return true;
    else if (state != MMI_BUDDY_SEEN)
        return false;
    return !free;
}

static bool mmi_buddy_check_states(const struct mm_buddy *b, struct mmi_buddy_sums *sums)
{
    unsigned state, before = 0;
    uint32_t n = 0, size;

    for (; n < b->units; n += size) {
        state = mmi_buddy_state(b, n);
        size = 1;
        if (mmi_buddy_is_head(state)) {
            if (!mmi_buddy_check_block(b, n, before))
                return false;
            size = 1u << MMI_BUDDY_ORDER(state);
            before = MMI_BUDDY_KIND(state);
            sums->reserved += before == MMI_BUDDY_RESERVED ? size : 0;
            sums->present += size;
            continue;
        }
        if (mmi_buddy_has_next(before))
            return false; /* its next piece is missing */
        before = 0;
        if (state == MMI_BUDDY_ABSENT) {
            if (mmi_buddy_is_free(b, n))
                return false; /* I2 */
            continue;
        }
        if (n < b->first || !mmi_buddy_check_note(b, n, sums))
            return false;
    }
    return !mmi_buddy_has_next(before);
}

/* The block at n in a list: in bounds, clear (C2). It is marked SEEN, so that it shows if it is
 * listed twice, or lies in another block. */
static bool mmi_buddy_check_listed(struct mm_buddy *b, uint32_t n, unsigned order)
{
    if (n >= b->units || 1u << order > b->units - n || !mmi_buddy_is_aligned(b, n, order))
        return false;
    if (mmi_buddy_state(b, n) != MMI_BUDDY_CLEAR)
        return false;
    mmi_buddy_set_state(b, n, MMI_BUDDY_SEEN);
    return true;
}

/* Are a CPU's lists where they have to be (C1, C3)? */
static bool mmi_buddy_check_stacks(const struct mm_buddy *b, const struct mmi_buddy_cpu *c)
{
    unsigned stack, begin, end = 0, room;

    for (stack = 0; stack < MMI_BUDDY_STACKS; stack++) {
        begin = end;
        end += mmi_buddy_stack_slots(b, stack);
        room = c->active == 0 || stack < MMI_BUDDY_STACK_HUGE ? 0 : mmi_buddy_high(b, stack);
        if (c->end[stack] != end || room > end - begin || c->floor[stack] != end - room)
            return false;
        if (c->pos[stack] < (c->active == 0 ? end : begin) || c->pos[stack] > end)
            return false;
    }
    return c->active <= 1 && c->home <= b->regions;
}

/* The blocks in a CPU's lists: each once (C1, C2). */
static bool mmi_buddy_check_lists(struct mm_buddy *b, const struct mmi_buddy_cpu *c,
                                  struct mmi_buddy_sums *sums)
{
    unsigned stack, i;

    if (!mmi_buddy_check_stacks(b, c))
        return false;
    for (stack = 0; stack < MMI_BUDDY_STACKS; stack++)
        for (i = c->pos[stack]; i < c->end[stack]; i++, sums->lists++)
            if (!mmi_buddy_check_listed(b, c->slot[i], mmi_buddy_stack_order(b, stack)))
                return false;
    sums->cached += mmi_buddy_cached_units(b, c);
    sums->active += c->active;
    return true;
}

/* The same blocks once all are marked. */
static bool mmi_buddy_check_marked(const struct mm_buddy *b, const struct mmi_buddy_cpu *c)
{
    unsigned stack, i;

    for (stack = 0; stack < MMI_BUDDY_STACKS; stack++)
        for (i = c->pos[stack]; i < c->end[stack]; i++)
            if (!mmi_buddy_check_inside(b, c->slot[i], mmi_buddy_stack_order(b, stack)))
                return false;
    return true;
}

/* Takes the marks away, wherever mmi_buddy_check_lists ended. */
static void mmi_buddy_check_unmark(struct mm_buddy *b, const struct mmi_buddy_cpu *c)
{
    unsigned stack, i;

    for (stack = 0; stack < MMI_BUDDY_STACKS; stack++)
        for (i = c->pos[stack]; i < c->end[stack] && i < MMI_BUDDY_SLOTS; i++)
            if (c->slot[i] < b->units && mmi_buddy_state(b, c->slot[i]) == MMI_BUDDY_SEEN)
                mmi_buddy_set_state(b, c->slot[i], MMI_BUDDY_CLEAR);
}

/* Lists and state bytes together. */
static bool mmi_buddy_check_blocks(struct mm_buddy *b, struct mmi_buddy_sums *sums)
{
    bool good = true;
    uint32_t i;

    for (i = 0; i < b->cpus && good; i++)
        good = mmi_buddy_check_lists(b, &b->cpu[i], sums);
    for (i = 0; i < b->cpus && good; i++)
        good = mmi_buddy_check_marked(b, &b->cpu[i]);
    good = good && mmi_buddy_check_states(b, sums) && sums->seen == sums->lists;
    for (i = 0; i < b->cpus; i++)
        mmi_buddy_check_unmark(b, &b->cpu[i]);
    return good;
}

/* What belongs to no region: which have anything free (I5), what is reported, how the lists
 * work. */
static bool mmi_buddy_check_rest(const struct mm_buddy *b)
{
    const uintptr_t known = mm_mask(b->regions), order = b->report_order, high = b->high;
    const uint32_t granule = mmi_buddy_min((uint32_t)order, b->pb_order + b->region_shift);

    if (((mm_load(&b->some) | mm_load(&b->wholes)) & ~known) != 0)
        return false;
    if (order > b->max_order ? order != MM_BUDDY_ORDERS || b->report != 0
                             : b->report != granule + 1)
        return false;
    return high <= MM_BUDDY_CPU_SLOTS && b->batch <= high && (b->batch == 0) == (high == 0) &&
           b->huge_high <= MMI_BUDDY_HUGE_SLOTS;
}

/* Are the sums those that the arena knows? */
static enum mm_buddy_health mmi_buddy_check_sums(const struct mm_buddy *b,
                                                 const struct mmi_buddy_sums *sums)
{
    const uintptr_t reserved = mm_load(&b->reserved);

    if (sums->cached > sums->loose || sums->reserved < reserved ||
        sums->free != mmi_buddy_free_units(b) || sums->present != mm_load(&b->total) ||
        sums->active != mm_load(&b->active))
        return MM_BUDDY_CORRUPT;
    return sums->cached < sums->loose || sums->dying != 0 || sums->reserved != reserved
               ? MM_BUDDY_LEAK
               : MM_BUDDY_HEALTHY;
}

static enum mm_buddy_health mmi_buddy_check_all(struct mm_buddy *b)
{
    struct mmi_buddy_sums sums;
    uint32_t i;

    for (i = 0; i < b->pbs; i++)
        if (!mmi_buddy_check_pb(b, i))
            return MM_BUDDY_CORRUPT;
    for (i = 0; i < b->regions; i++)
        if (!mmi_buddy_check_region(b, i))
            return MM_BUDDY_CORRUPT;
    MM_BUDDY_MEMSET(&sums, 0, sizeof sums);
    if (!mmi_buddy_check_rest(b) || !mmi_buddy_check_blocks(b, &sums))
        return MM_BUDDY_CORRUPT;
    return mmi_buddy_check_sums(b, &sums);
}

MM_BUDDY_API enum mm_buddy_health mm_buddy_check(struct mm_buddy *b)
{
    struct mmi_buddy_span span;
    MM_BUDDY_LOCK_STATE_T lock;
    enum mm_buddy_health health;
    uint32_t i;

    MM_BUDDY_LOCK(&b->lock, lock);
    for (i = 0; i < b->cpus; i++)
        mmi_buddy_seize(b, i);
    mmi_buddy_span_lock(b, &span, 0, b->units);
    health = mmi_buddy_check_all(b);
    mmi_buddy_span_unlock(b, &span);
    for (i = b->cpus; i-- > 0;)
        mmi_buddy_disown(b, i);
    MM_BUDDY_UNLOCK(&b->lock, lock);
    if (health == MM_BUDDY_CORRUPT)
        (void)mmi_buddy_refuse(b, "mm_buddy_check", "an invariant is broken", MM_PA_NONE,
                               MM_ERR_CORRUPT);
    return health;
}

/* After each operation, at MM_BUDDY_DEBUG 3. */
MM_BUDDY_API void mmi_buddy_debug(struct mm_buddy *b)
{
#if MM_BUDDY_DEBUG >= 3
    const enum mm_buddy_health health = mm_buddy_check(b);
    (void)health;
    MM_BUDDY_ASSERT(health != MM_BUDDY_CORRUPT);
#else
    (void)b;
#endif
}

/* ---- Dump ------------------------------------------------------------------------------------ */

/* A line of text; what does not fit is cut off. */
struct mmi_buddy_line {
    char text[320];
    unsigned length;
};

static void mmi_buddy_put(struct mmi_buddy_line *line, const char *text)
{
    for (; *text != 0 && line->length + 1 < sizeof line->text; text++)
        line->text[line->length++] = *text;
    line->text[line->length] = 0;
}

/* A number, right-aligned. Division by ten by shifts (Warren, Hacker's Delight, 10-17): 64-bit
 * division is a library call on 32-bit machines. */
static void mmi_buddy_put_number(struct mmi_buddy_line *line, uint64_t value, unsigned width)
{
    char digits[24];
    unsigned at = sizeof digits - 1;

    digits[at] = 0;
    do {
        uint64_t tenth = (value >> 1) + (value >> 2), rest;
        tenth += tenth >> 4;
        tenth += tenth >> 8;
        tenth += tenth >> 16;
        tenth += tenth >> 32;
        tenth >>= 3;
        rest = value - ((tenth << 3) + (tenth << 1));
        if (rest > 9) {
            tenth++;
            rest -= 10;
        }
        digits[--at] = (char)('0' + (int)rest);
        value = tenth;
    } while (value != 0);
    while (at > 0 && sizeof digits - 1 - at < width)
        digits[--at] = ' ';
    mmi_buddy_put(line, digits + at);
}

static void mmi_buddy_put_kib(struct mmi_buddy_line *line, const char *name, uint64_t bytes)
{
    mmi_buddy_put(line, name);
    mmi_buddy_put_number(line, bytes >> 10, 0);
    mmi_buddy_put(line, " KiB");
}

static void mmi_buddy_dump_zone(const struct mm_buddy *b, const char *name,
                                void (*print)(void *ctx, const char *line), void *ctx)
{
    static const char types[][16] = {"  unmovable ", ", reclaimable ", ", movable ", ", CMA "};
    static const char marks[][20] = {"  watermarks: min ", ", low ", ", high "};
    struct mmi_buddy_line line;
    struct mm_buddy_stats s;
    unsigned i;

    mm_buddy_get_stats(b, &s);
    line.length = 0;
    mmi_buddy_put(&line, "Zone ");
    mmi_buddy_put(&line, name != NULL ? name : "?");
    mmi_buddy_put(&line, ", free blocks by order:");
    for (i = 0; i <= b->max_order; i++)
        mmi_buddy_put_number(&line, s.free_blocks[i], 7);
    print(ctx, line.text);
    line.length = 0;
    mmi_buddy_put_kib(&line, "  total ", s.total);
    mmi_buddy_put_kib(&line, ", free ", s.free);
    mmi_buddy_put_kib(&line, ", cached ", s.cached);
    mmi_buddy_put_kib(&line, ", reserved ", s.reserved);
    mmi_buddy_put_kib(&line, ", used ", s.used);
    print(ctx, line.text);
    line.length = 0;
    for (i = 0; i < MM_BUDDY_TYPES; i++)
        mmi_buddy_put_kib(&line, types[i], s.free_by_type[i]);
    mmi_buddy_put(&line, " free");
    print(ctx, line.text);
    line.length = 0;
    for (i = 0; i < 3; i++)
        mmi_buddy_put_kib(&line, marks[i], mmi_buddy_bytes(b, (uint32_t)mm_load(&b->mark[i])));
    print(ctx, line.text);
}

MM_BUDDY_API void mm_buddy_dump(const struct mm_buddy_zones *zones,
                                void (*print)(void *ctx, const char *line), void *ctx)
{
    unsigned i;
    for (i = 0; i < zones->count; i++)
        mmi_buddy_dump_zone(zones->zone[i].arena, zones->zone[i].name, print, ctx);
}

/* ---- Owner tags ------------------------------------------------------------------------------ */

MM_BUDDY_API size_t mm_buddy_tag_bytes(const struct mm_buddy *b)
{
    return (size_t)b->units * sizeof(uintptr_t);
}

MM_BUDDY_API enum mm_status mm_buddy_tags(struct mm_buddy *b, uintptr_t *tags, size_t bytes)
{
    if (tags != NULL && bytes < mm_buddy_tag_bytes(b))
        return MM_ERR_NOMEM;
    mm_buddy_drain(b);
    if (tags != NULL)
        MM_BUDDY_MEMSET(tags, 0, mm_buddy_tag_bytes(b));
    b->tags = tags;
    return MM_OK;
}

MM_BUDDY_API enum mm_status mm_buddy_set_tag(struct mm_buddy *b, mm_pa_t pa, uintptr_t tag)
{
    const uint32_t n = mmi_buddy_number(b, pa);
    const unsigned kind = n == MMI_BUDDY_NONE ? 0 : MMI_BUDDY_KIND(mmi_buddy_state(b, n));

    if (b->tags == NULL)
        return MM_ERR_PERM;
    if (kind != MMI_BUDDY_PLAIN && kind != MMI_BUDDY_FIXED && kind != MMI_BUDDY_FIRST)
        return mmi_buddy_wild(b, "mm_buddy_set_tag", pa);
    mm_store(&b->tags[n], tag);
    return MM_OK;
}

MM_BUDDY_API size_t mm_buddy_leaks(const struct mm_buddy *b, struct mm_buddy_owner *table,
                                   size_t count)
{
    struct mm_buddy_block block;
    uint32_t n = b->first;
    size_t lines = 0, i;

    while (n < b->units && count != 0) {
        n = mmi_buddy_describe(b, n, &block);
        if (block.state != MM_BUDDY_STATE_ALLOCATED)
            continue;
        for (i = 0; i < lines && table[i].tag != block.tag; i++)
            continue;
        if (i == lines && lines < count) {
            table[i].tag = block.tag;
            table[i].blocks = 0;
            table[i].bytes = 0;
            lines++;
        } else if (i == lines) {
            table[--i].tag = UINTPTR_MAX; /* no room: the last line is "others" from now on */
        }
        table[i].blocks++;
        table[i].bytes += block.bytes;
    }
    return lines;
}

#ifdef __cplusplus
}
#endif

#endif /* MM_BUDDY_IMPLEMENTATION */

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
