/* mm_pagetable.h - v0.1.0 - translation tables of x86_64, RISC-V, AArch64, EPT, NPT - 0BSD
 *
 *   Builds and changes the tables that a processor translates addresses with: a kernel's own, a
 *   process's, or a guest's second stage. It allocates nothing itself and knows no processor:
 *   tables come from a hook, TLB invalidations go to a hook, so that it runs wherever C does, also
 *   for another machine than the one it runs on.
 *
 *   In exactly one C or C++ file:
 *       #define MM_PAGETABLE_X86_64          // the format; see FORMATS
 *       #define MM_PAGETABLE_IMPLEMENTATION
 *       #include "mm_pagetable.h"
 *   In every other file include it with the same format, without the implementation. The text of
 *   the licence (0BSD) stands at the end of this file.
 *
 * CONTENTS
 *
 *   Quick start . Formats . Hooks and options . Concepts . Guarantees . Limits   (this comment)
 *   Core block . Configuration . Formats . Types . Set-up . Mapping . Accessed and dirty . Sharing
 *   . Cursor . Questions . Hot paths . Implementation . Licence
 *
 * QUICK START
 *
 *   --- quick start (quickstart.c) ---
 *   #define MM_PAGETABLE_X86_64
 *   #define MM_PAGETABLE_IMPLEMENTATION
 *   #include "mm_pagetable.h"
 *
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *
 *   // In a kernel: a frame from the allocator. Here "physical" addresses are pointers.
 *   static mm_pa_t table_alloc(void *ctx, uint64_t bytes)
 *   {
 *       (void)ctx;
 *       void *page = aligned_alloc((size_t)bytes, (size_t)bytes);
 *       return page != NULL ? (mm_pa_t)(uintptr_t)page : MM_PA_NONE;
 *   }
 *   static void table_free(void *ctx, mm_pa_t table, uint64_t bytes)
 *   {
 *       (void)ctx, (void)bytes;
 *       free((void *)(uintptr_t)table);
 *   }
 *   static void tlb_flush(void *ctx, const struct mm_pagetable_flush *flush)
 *   {
 *       (void)ctx;
 *       for (unsigned i = 0; i < flush->count; i++)
 *           printf("invalidate %#llx\n", (unsigned long long)flush->ranges[i].va);
 *   }
 *
 *   int main(void)
 *   {
 *       static const struct mm_pagetable_hooks hooks = {
 *           .alloc = table_alloc, .free = table_free, .flush = tlb_flush};
 *       struct mm_pagetable_config config;
 *       struct mm_pagetable pt;
 *       mm_va_t va = 0xffff800000200000;
 *
 *       if (mm_pagetable_config_init(&config, NULL, &hooks, 0) != MM_OK ||
 *           mm_pagetable_init(&pt, &config) != MM_OK)
 *           return 1;
 *
 *       // 6 MiB and a page at 1 GiB: three leaves of 2 MiB, one of 4 KiB
 *       if (mm_pagetable_map(&pt, va, 0x40000000, (6 << 20) + 4096,
 *                            MM_PAGETABLE_READ | MM_PAGETABLE_WRITE, 0, NULL) != MM_OK)
 *           return 1;
 *       if (mm_pagetable_translate(&pt, va + 0x1234) != 0x40001234)
 *           return 1;
 *       // one page of it read-only: its 2 MiB leaf is split
 *       if (mm_pagetable_protect(&pt, va + 0x3000, 4096, MM_PAGETABLE_READ, MM_PAGETABLE_PERMS,
 *                                NULL) != MM_OK)
 *           return 1;
 *       printf("cr3 = %#llx\n", (unsigned long long)mm_pagetable_root(&pt));
 *       if (mm_pagetable_unmap(&pt, va, 4096, NULL) != MM_OK ||
 *           mm_pagetable_unmap(&pt, va, 4096, NULL) != MM_ERR_NOENT) // nothing there any more
 *           return 1;
 *       return mm_pagetable_destroy(&pt, false) == MM_OK ? 0 : 1;
 *   }
 *   --- end ---
 *
 * FORMATS (define those wanted before the include, the same ones in every file; none: all)
 *
 *   MM_PAGETABLE_X86_64, MM_PAGETABLE_X86_64_LA57   four and five levels
 *   MM_PAGETABLE_SV32, _SV39, _SV48, _SV57          RISC-V
 *   MM_PAGETABLE_EPT, MM_PAGETABLE_NPT              second stages of Intel and AMD
 *   MM_PAGETABLE_SV39X4, _SV48X4, _SV57X4           RISC-V, the G-stage
 *   MM_PAGETABLE_AARCH64_S1, _S2                    granule of 4 KiB, 48 bits
 *
 *   One: all about it is a constant, and the code is as if written for it. Several: each table has
 *   a pointer to its format's descriptor, chosen at run time (a board that has only Sv39 boots). A
 *   format of one's own is a struct mm_pagetable_format, for a program with several.
 *
 * HOOKS AND OPTIONS (define before the include; all are optional)
 *
 *   MM_PAGETABLE_IMPLEMENTATION  emit the implementation here
 *   MM_PAGETABLE_STATIC          all functions are static: for use inside one file
 *   MM_PAGETABLE_OPEN(pt, pa), MM_PAGETABLE_CLOSE(pt, p)
 *                                pointer to the table at `pa`, and the end of its use; by default
 *                                pa + pt->direct, a direct map
 *   MM_PAGETABLE_WINDOWS         tables are reached through the hooks open and close instead
 *   MM_PAGETABLE_COUNT(pt, pa)   a uint16_t that is yours, beside the table at `pa`: a field of its
 *                                frame's record. How many entries a table has stands there where
 *                                entries that lead to tables lack the free bits (RISC-V, AArch64);
 *                                else it is searched for what is left in it. Set before it is
 *                                read, and used with the table's lock held
 *   MM_PAGETABLE_LOCK_T, _LOCK_INIT(l), _LOCK(l, s), _UNLOCK(l, s), _LOCK_STATE_T
 *                                this header's locks, in place of MM_LOCK and so on: all or none
 *   MM_PAGETABLE_MEMSET, MM_PAGETABLE_ASSERT(x), MM_PAGETABLE_DEBUG, MM_PAGETABLE_REPORT(report)
 *                                in place of MM_MEMSET and so on
 *   MM_PAGETABLE_BATCH_EXTENTS   runs of frames that a batch holds until its flush (32)
 *   MM_PAGETABLE_BATCH_RANGES    ranges of one flush (8)
 *   MM_PAGETABLE_LOCKS_MAX       most locks of one table (32, and no more than 32)
 *
 *   What hooks expand to stands in functions with locals of their own: it calls functions whose
 *   names have a prefix (not `cpu()`). Some of them are inline functions of external linkage: a
 *   function of yours there is not `static` in C (compilers warn), but a plain one, or extern
 *   inline with gnu_inline, or all is MM_PAGETABLE_STATIC.
 *
 *   Hooks at run time stand in struct mm_pagetable_hooks: tables, flush, grace period, frames.
 *   `flush` is called with the table's lock held: where that means interrupts off, MM_CPU_RELAX()
 *   answers the requests of other CPUs that flush, else two of them wait for each other.
 *
 * CONCEPTS
 *
 *   Attributes     permissions, memory type, accessed, dirty, software bits, in one word that means
 *                  the same for every format. What a format cannot express is refused; it is never
 *                  made weaker or stronger. What was put in is what is read back.
 *   Leaves         of 4 KiB (level 0), 2 MiB (1), 1 GiB (2) and so on: a mapping takes the largest
 *                  that fits. A change of a part splits a leaf and keeps all else about it. Svnapot
 *                  and Arm's contiguous hint make groups of 64 KiB at level 0.
 *   Plan, commit   a mapping is walked twice: once to see what stands in the way and how many
 *                  tables are missing; these are reserved; then it is done and cannot fail. A table
 *                  that is filled whole is not zeroed before, and is linked when it is complete.
 *   Batch          what changed waits in a batch until the TLBs are flushed; frames and tables are
 *                  given back after that, and after readers are gone. Each call has its own, or
 *                  several share the caller's.
 *   Accessed, dirty  hardware may set them at any time. An entry where it still can is changed by
 *                  an atomic exchange, so that nothing is lost; others by plain stores. On x86 this
 *                  needs CR0.WP set, as kernels have it. With MM_PAGETABLE_PRESET_AD (the default)
 *                  they are set from the start.
 *   Lent tables    the kernel half: one table lends its top-level entries to the others.
 *
 * GUARANTEES
 *
 *   Errors     A call that fails changed nothing: no entry, no table, no count of frames. The bulk
 *              calls of a cursor are a call for each page, and tell how many were done.
 *   Time       One walk for a range, one access to each upper entry; 4 KiB leaves at a store each.
 *   Memory     The tables, nothing else; struct mm_pagetable.
 *   Stack      below 3 KiB, without recursion (a batch is the most of it).
 *   Threads    Writers take one lock a table, or one for each few top-level entries. Questions take
 *              none and may run beside a writer. Nothing is global.
 *
 * LIMITS
 *
 *   Pages of 4 KiB, whatever MM_PAGE_SHIFT. AArch64: the granule of 4 KiB with 48 bits. Tables of
 *   hosts of big-endian byte order are not supported. A host of 32 bits may build tables of 64-bit
 *   entries, for a guest; entries change there in two halves, the present bits last.
 */
#ifndef MM_PAGETABLE_H
#define MM_PAGETABLE_H

#define MM_PAGETABLE_VERSION_MAJOR 0
#define MM_PAGETABLE_VERSION_MINOR 1
#define MM_PAGETABLE_VERSION_PATCH 0

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

#ifdef MM_PAGETABLE_LOCK
#if !defined(MM_PAGETABLE_LOCK_T) || !defined(MM_PAGETABLE_LOCK_STATE_T) || \
    !defined(MM_PAGETABLE_LOCK_INIT) || !defined(MM_PAGETABLE_UNLOCK)
#error "define all of MM_PAGETABLE_LOCK_T, _LOCK_STATE_T, _LOCK_INIT, _LOCK and _UNLOCK, or none"
#endif
#else
#define MM_PAGETABLE_LOCK_T       MM_LOCK_T
#define MM_PAGETABLE_LOCK_STATE_T MM_LOCK_STATE_T
#define MM_PAGETABLE_LOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_PAGETABLE_LOCK(l, s)   MM_LOCK(l, s)
#define MM_PAGETABLE_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif
#ifndef MM_PAGETABLE_MEMSET
#define MM_PAGETABLE_MEMSET(to, byte, size) MM_MEMSET(to, byte, size)
#endif
#ifndef MM_PAGETABLE_ASSERT
#define MM_PAGETABLE_ASSERT(x) MM_ASSERT(x)
#endif
#ifndef MM_PAGETABLE_DEBUG
#define MM_PAGETABLE_DEBUG MM_DEBUG
#endif
#ifndef MM_PAGETABLE_REPORT
#define MM_PAGETABLE_REPORT(report) MM_REPORT(report)
#endif

/* Pointer to the table at physical address `pa`, and the end of its use. */
#ifdef MM_PAGETABLE_WINDOWS
#define MM_PAGETABLE_OPEN(pt, pa) ((pt)->hooks->open((pt)->hooks->ctx, (pa)))
#define MM_PAGETABLE_CLOSE(pt, p) ((pt)->hooks->close((pt)->hooks->ctx, (p)))
#endif
#ifndef MM_PAGETABLE_OPEN
#define MM_PAGETABLE_OPEN(pt, pa) ((void *)((uintptr_t)(pa) + (pt)->direct))
#endif
#ifndef MM_PAGETABLE_CLOSE
#define MM_PAGETABLE_CLOSE(pt, p) ((void)(p))
#endif

#ifndef MM_PAGETABLE_BATCH_EXTENTS
#define MM_PAGETABLE_BATCH_EXTENTS 32 /* runs of frames that wait for the flush, without own room */
#endif
#ifndef MM_PAGETABLE_BATCH_RANGES
#define MM_PAGETABLE_BATCH_RANGES 8 /* ranges of one flush; more become "all" */
#endif
#ifndef MM_PAGETABLE_LOCKS_MAX
#define MM_PAGETABLE_LOCKS_MAX 32 /* most locks of one table, by top-level entry: at most 32 */
#endif

#define MM_PAGETABLE_LEVELS_MAX 5u
#define MM_PAGETABLE_SHIFT      12u /* log2 of the smallest page: 4 KiB in every format */

#ifdef MM_PAGETABLE_STATIC
#ifndef MM_PAGETABLE_IMPLEMENTATION
#define MM_PAGETABLE_IMPLEMENTATION /* static functions are of use only where they are defined */
#endif
#define MM_PAGETABLE_API    static __attribute__((unused))
#define MM_PAGETABLE_INLINE static inline __attribute__((unused))
#define MMI_PT_INLINE       static inline __attribute__((always_inline, unused))
#else
#define MM_PAGETABLE_API
#define MM_PAGETABLE_INLINE inline         /* the implementation has the external definition */
#define MMI_PT_INLINE       MM_CORE_INLINE /* for what hooks expand into */
#endif

/* ---- Formats -------------------------------------------------------------------------------- */

enum mm_pagetable_id {
    MM_PAGETABLE_ID_X86_64,      /* Intel SDM vol. 3, 4.5; AMD APM vol. 2, 5.3 */
    MM_PAGETABLE_ID_X86_64_LA57, /* the same with five levels */
    MM_PAGETABLE_ID_SV32,        /* RISC-V privileged, 4.3 */
    MM_PAGETABLE_ID_SV39,        /* 4.4 */
    MM_PAGETABLE_ID_SV48,        /* 4.5 */
    MM_PAGETABLE_ID_SV57,        /* 4.6 */
    MM_PAGETABLE_ID_EPT,         /* Intel SDM vol. 3, 28.3 */
    MM_PAGETABLE_ID_NPT,         /* AMD APM vol. 2, 15.25 */
    MM_PAGETABLE_ID_SV39X4,      /* RISC-V privileged, 8.5 */
    MM_PAGETABLE_ID_SV48X4,
    MM_PAGETABLE_ID_SV57X4,
    MM_PAGETABLE_ID_AARCH64_S1, /* Arm ARM D8.3: granule of 4 KiB, 48 bits */
    MM_PAGETABLE_ID_AARCH64_S2,
    MM_PAGETABLE_ID_COUNT
};

/* Attributes of a mapping, in one word, the same for every format. */
#define MM_PAGETABLE_READ  0x1u
#define MM_PAGETABLE_WRITE 0x2u
#define MM_PAGETABLE_EXEC  0x4u
#define MM_PAGETABLE_USER  0x8u /* for user mode (then EXEC means: executable there) */
#define MM_PAGETABLE_EXEC_USER \
    0x10u                               /* second stages with MM_PAGETABLE_MODE_EXEC: EXEC means the
                                        guest's supervisor mode only, this its user mode */
#define MM_PAGETABLE_GLOBAL       0x20u /* in every address space: survives a switch of ASID */
#define MM_PAGETABLE_ACCESSED     0x40u
#define MM_PAGETABLE_DIRTY        0x80u
#define MM_PAGETABLE_TYPE(t)      ((uint32_t)(t) << 8)  /* enum mm_pagetable_type */
#define MM_PAGETABLE_COW          0x800u                /* software: a write gets a copy */
#define MM_PAGETABLE_SOFT0        0x1000u               /* software bits of the caller */
#define MM_PAGETABLE_SOFT1        0x2000u               /* not on RISC-V, which has two in all */
#define MM_PAGETABLE_KEY(k)       ((uint32_t)(k) << 16) /* x86_64: protection key 0 to 15 */
#define MM_PAGETABLE_IGNORE_PAT   0x100000u             /* EPT: the guest's PAT has no say */
#define MM_PAGETABLE_CONTIG       0x200000u             /* told only: Svnapot, or Arm's hint */
#define MM_PAGETABLE_SWAP         0x400000u  /* told only: a software entry, not present */
#define MM_PAGETABLE_OUTER_SHARED 0x1000000u /* AArch64: SH; inner shareable otherwise */
#define MM_PAGETABLE_NOT_SHARED   0x3000000u

/* Groups of attributes, for mm_pagetable_protect. */
#define MM_PAGETABLE_PERMS 0x3fu
#define MM_PAGETABLE_TYPES 0x700u
#define MM_PAGETABLE_SOFTS 0x3800u
#define MM_PAGETABLE_KEYS  0xf0000u

/* Memory types. Where a format has one encoding for two of them, both are taken, and what is read
 * back is the first of the two in this list: UNCACHED for DEVICE on EPT; UNCACHED for
 * WRITE_COMBINING on RISC-V and AArch64. */
enum mm_pagetable_type {
    MM_PAGETABLE_WRITE_BACK = 0,
    MM_PAGETABLE_WRITE_THROUGH = 1,
    MM_PAGETABLE_UNCACHED = 2, /* x86_64 UC-; AArch64 Normal non-cacheable; Svpbmt NC; EPT UC */
    MM_PAGETABLE_WRITE_COMBINING = 3,
    MM_PAGETABLE_WRITE_PROTECTED = 4,
    MM_PAGETABLE_DEVICE = 5 /* x86_64 UC; AArch64 Device-nGnRE; Svpbmt IO */
};
#define MM_PAGETABLE_TYPE_COUNT    6u
#define MM_PAGETABLE_TYPE_OF(attr) ((enum mm_pagetable_type)(((attr) >> 8) & 7u))
#define MM_PAGETABLE_KEY_OF(attr)  (((attr) >> 16) & 15u)

/* What the processor has, and policies: struct mm_pagetable_config.flags. */
#define MM_PAGETABLE_NX         0x1u   /* x86_64, NPT: EFER.NXE; without it every page is EXEC */
#define MM_PAGETABLE_PKEYS      0x2u   /* x86_64: protection keys (CR4.PKE) */
#define MM_PAGETABLE_SVPBMT     0x4u   /* RISC-V: memory types */
#define MM_PAGETABLE_CONTIGUOUS 0x8u   /* RISC-V Svnapot, AArch64 contiguous hint: 64 KiB */
#define MM_PAGETABLE_SVVPTC     0x10u  /* RISC-V: new mappings need no fence */
#define MM_PAGETABLE_EXEC_ONLY  0x20u  /* EPT: execute without read (IA32_VMX_EPT_VPID_CAP[0]) */
#define MM_PAGETABLE_MODE_EXEC  0x40u  /* EPT mode-based execute control, Arm FEAT_XNX */
#define MM_PAGETABLE_HW_AD      0x80u  /* RISC-V Svadu, EPT A/D, Arm FEAT_HAFDBS: set by hardware */
#define MM_PAGETABLE_W_XOR_X    0x100u /* policy: writable and executable at once is refused */
#define MM_PAGETABLE_PRESET_AD  0x200u /* policy: new leaves are accessed, and dirty if writable */
#define MM_PAGETABLE_KEEP_EMPTY 0x400u /* policy: empty tables stay until mm_pagetable_sweep */
#define MM_PAGETABLE_HIGH_HALF  0x800u /* AArch64 stage 1: the table of TTBR1 */

enum mm_pagetable_family {
    MM_PAGETABLE_FAMILY_X86 = 0,
    MM_PAGETABLE_FAMILY_RISCV = 1,
    MM_PAGETABLE_FAMILY_EPT = 2,
    MM_PAGETABLE_FAMILY_AARCH64 = 3
};
enum mm_pagetable_canonical {
    MM_PAGETABLE_ZERO_EXTENDED = 0, /* bits above va_bits are 0 (second stages, Sv32) */
    MM_PAGETABLE_SIGN_EXTENDED = 1, /* they repeat bit va_bits - 1 */
    MM_PAGETABLE_TWO_TABLES = 2     /* all 0, or all 1 with MM_PAGETABLE_HIGH_HALF */
};
enum mm_pagetable_coding {
    MM_PAGETABLE_CODED = 0, /* the type's code stands in the entry */
    MM_PAGETABLE_INDEXED,   /* a 3-bit index of the code in the MAIR register */
    MM_PAGETABLE_PAT        /* an index of the PAT register, in bits 3, 4 and 7 */
};

/* clang-format off */
/* A format: what a new one has to say, and nothing else. U(field, value) are small numbers, Q words
 * of an entry. Permissions are bits that differ from `base` when granted, so that NX, UXN and
 * read-only bits need no rule of their own. Entries are described in the form of the lowest level.
 * Levels count from 0, the 4 KiB leaves. */
#define MM_PAGETABLE_FIELDS(U, Q)                                                                  \
    U(id)          /* enum mm_pagetable_id */                                                      \
    U(family)      /* enum mm_pagetable_family: rules of faults and of reserved bits */            \
    U(levels)                                                                                      \
    U(index_bits)  /* of every level but the top one, which has the rest of va_bits */             \
    U(va_bits)                                                                                     \
    U(canonical)   /* enum mm_pagetable_canonical */                                               \
    U(pa_bits)     /* of the format; the processor may have fewer */                               \
    U(entry_shift) /* log2 of an entry's bytes: 3 or 2 */                                          \
    U(leaf_levels) /* bit l: level l may have leaves */                                            \
    U(ppn_shift)   /* lowest bit of the frame number */                                            \
    U(legal)       /* bit r + 2w + 4x: the combination exists */                                   \
    U(root_mode)   /* mode field of satp and hgatp */                                              \
    U(coding)      /* enum mm_pagetable_coding of memory types */                                  \
    U(type_shift)                                                                                  \
    U(note_shift)  /* bits of a table entry that hardware ignores, */                              \
    U(note_bits)   /* how many: two at least; with ten every count of entries fits */              \
    U(key_shift)   /* protection key, 4 bits; 0: none */                                           \
    U(break_first) /* break-before-make (Arm ARM D8.16.1) */                                       \
    U(attrs)       /* MM_PAGETABLE_ attributes that exist */                                       \
    U(features)    /* MM_PAGETABLE_ flags that mean something */                                   \
    Q(present)     /* present if any of these is set */                                            \
    Q(leaf_mask)   /* above level 0 an entry is a leaf if it differs from leaf_xor here */         \
    Q(leaf_xor)                                                                                    \
    Q(big_xor)     /* a leaf above level 0 differs from one of level 0 by this */                  \
    Q(big_pat)     /* where the PAT bit (7) goes there; 0: stays */                                \
    Q(table)       /* an entry that points to a table, without address */                          \
    Q(pa_mask)                                                                                     \
    Q(base)        /* a leaf without any permission */                                             \
    Q(read)                                                                                        \
    Q(write)                                                                                       \
    Q(exec)                                                                                        \
    Q(user)                                                                                        \
    Q(exec_user)   /* execution in user mode, if it has bits of its own */                         \
    Q(global)                                                                                      \
    Q(accessed)                                                                                    \
    Q(dirty)                                                                                       \
    Q(hw_write)    /* AArch64: differs from base only if writable and dirty; else 0 */             \
    Q(cow)                                                                                         \
    Q(soft0)                                                                                       \
    Q(soft1)                                                                                       \
    Q(contig)                                                                                      \
    Q(contig_ppn)  /* Svnapot: what stands in the lowest four bits of the frame number */          \
    Q(ignore_pat)                                                                                  \
    Q(share)       /* shareability; toggled by attr bits 24 and 25 */                              \
    Q(type_mask)                                                                                   \
    Q(types)       /* a byte for each type: its code; 0xee: none */                                \
    Q(type_reg)    /* the register that the types are looked up in, by default */                  \
    Q(reserved)    /* of a leaf of level 0: must be 0 */                                           \
    Q(reserved_table)

#define MMI_PT_U(field) uint32_t field;
#define MMI_PT_Q(field) uint64_t field;
struct mm_pagetable_format {
    MM_PAGETABLE_FIELDS(MMI_PT_U, MMI_PT_Q)
    char name[16];
};
#undef MMI_PT_U
#undef MMI_PT_Q

#define MMI_PT_BIT(n) (UINT64_C(1) << (n))
#define MMI_PT_COMMON_ATTRS                                                                        \
    (MM_PAGETABLE_READ | MM_PAGETABLE_WRITE | MM_PAGETABLE_EXEC | MM_PAGETABLE_ACCESSED |          \
     MM_PAGETABLE_DIRTY | MM_PAGETABLE_TYPES | MM_PAGETABLE_COW | MM_PAGETABLE_SOFT0)

/* x86_64: P 0, RW 1, US 2, PWT 3, PCD 4, A 5, D 6, PAT 7 (PS in upper levels, PAT then 12), G 8,
 * ignored 9 to 11 and 52 to 58, key 59 to 62, XD 63. Entries that point to tables grant everything,
 * so that the leaf alone decides. The PAT is as Linux programs it. */
#define MMI_PT_X86(U, Q, id_, levels_, va_, canonical_, leaves_, base_, user_, global_, key_,      \
                   attrs_, features_)                                                              \
    U(id, id_) U(family, MM_PAGETABLE_FAMILY_X86) U(levels, levels_) U(index_bits, 9)              \
    U(va_bits, va_) U(canonical, canonical_) U(pa_bits, 52) U(entry_shift, 3)                      \
    U(leaf_levels, leaves_) U(ppn_shift, 12) U(legal, 0xaa) U(root_mode, 0)                        \
    U(coding, MM_PAGETABLE_PAT) U(type_shift, 3) U(note_shift, 52) U(note_bits, 10)                \
    U(key_shift, key_) U(break_first, 0)                                                           \
    U(attrs, MMI_PT_COMMON_ATTRS | MM_PAGETABLE_SOFT1 | (attrs_))                                  \
    U(features, MM_PAGETABLE_NX | MM_PAGETABLE_HW_AD | (features_))                                \
    Q(present, 1) Q(leaf_mask, 0x80) Q(leaf_xor, 0) Q(big_xor, 0x80) Q(big_pat, 0x1000)            \
    Q(table, 0x27) Q(pa_mask, UINT64_C(0x000ffffffffff000)) Q(base, base_) Q(read, 0)              \
    Q(write, 2) Q(exec, MMI_PT_BIT(63)) Q(user, user_) Q(exec_user, 0) Q(global, global_)          \
    Q(accessed, 0x20) Q(dirty, 0x40) Q(hw_write, 0) Q(cow, 0x200) Q(soft0, 0x400)                  \
    Q(soft1, 0x800) Q(contig, 0) Q(contig_ppn, 0) Q(ignore_pat, 0) Q(share, 0)                     \
    Q(type_mask, 0x98) Q(types, UINT64_C(0x000501070406))                                          \
    Q(type_reg, UINT64_C(0x0407050600070106)) Q(reserved, 0) Q(reserved_table, 0x80)
#define MMI_PT_X86_S1_ATTRS (MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL | MM_PAGETABLE_KEYS)
#define MMI_PT_X86_64(U, Q)                                                                        \
    MMI_PT_X86(U, Q, MM_PAGETABLE_ID_X86_64, 4, 48, MM_PAGETABLE_SIGN_EXTENDED, 7,                 \
               MMI_PT_BIT(63) | 1, 4, 0x100, 59, MMI_PT_X86_S1_ATTRS, MM_PAGETABLE_PKEYS)
#define MMI_PT_X86_64_LA57(U, Q)                                                                   \
    MMI_PT_X86(U, Q, MM_PAGETABLE_ID_X86_64_LA57, 5, 57, MM_PAGETABLE_SIGN_EXTENDED, 7,            \
               MMI_PT_BIT(63) | 1, 4, 0x100, 59, MMI_PT_X86_S1_ATTRS, MM_PAGETABLE_PKEYS)
/* NPT: the walker's own accesses count as user accesses, so US is always set. */
#define MMI_PT_NPT(U, Q)                                                                           \
    MMI_PT_X86(U, Q, MM_PAGETABLE_ID_NPT, 4, 48, MM_PAGETABLE_ZERO_EXTENDED, 7,                    \
               MMI_PT_BIT(63) | 5, 0, 0, 0, 0, 0)

/* RISC-V: V 0, R 1, W 2, X 3, U 4, G 5, A 6, D 7, software 8 and 9, PPN from 10, PBMT 61 and 62,
 * N 63. A G-stage treats every access as a user access: U is always set, and G must be clear. */
#define MMI_PT_RISCV(U, Q, id_, levels_, index_, va_, canonical_, pa_, shift_, leaves_, mode_,     \
                     base_, user_, global_, attrs_, features_, contig_, pbmt_, resv_, resv_table_) \
    U(id, id_) U(family, MM_PAGETABLE_FAMILY_RISCV) U(levels, levels_) U(index_bits, index_)       \
    U(va_bits, va_) U(canonical, canonical_) U(pa_bits, pa_) U(entry_shift, shift_)                \
    U(leaf_levels, leaves_) U(ppn_shift, 10) U(legal, 0xba) U(root_mode, mode_)                    \
    U(coding, MM_PAGETABLE_CODED) U(type_shift, 61) U(note_shift, 8) U(note_bits, 2)               \
    U(key_shift, 0) U(break_first, 0) U(attrs, MMI_PT_COMMON_ATTRS | (attrs_))                     \
    U(features, MM_PAGETABLE_SVVPTC | MM_PAGETABLE_HW_AD | (features_))                            \
    Q(present, 1) Q(leaf_mask, 0xe) Q(leaf_xor, 0) Q(big_xor, 0) Q(big_pat, 0) Q(table, 1)         \
    Q(pa_mask, (MMI_PT_BIT((pa_) - 2) - 0x400)) Q(base, base_) Q(read, 2) Q(write, 4) Q(exec, 8)   \
    Q(user, user_) Q(exec_user, 0) Q(global, global_) Q(accessed, 0x40) Q(dirty, 0x80)             \
    Q(hw_write, 0) Q(cow, 0x100) Q(soft0, 0x200) Q(soft1, 0) Q(contig, contig_)                    \
    Q(contig_ppn, 8) Q(ignore_pat, 0) Q(share, 0) Q(type_mask, pbmt_)                              \
    Q(types, UINT64_C(0x02ee0101ee00)) Q(type_reg, 0) Q(reserved, resv_)                           \
    Q(reserved_table, (resv_) | (contig_) | (pbmt_) | (resv_table_))
#define MMI_PT_RISCV64(U, Q, id_, levels_, va_, canonical_, leaves_, mode_, base_, user_, global_, \
                       attrs_)                                                                     \
    MMI_PT_RISCV(U, Q, id_, levels_, 9, va_, canonical_, 56, 3, leaves_, mode_, base_, user_,      \
                 global_, attrs_, MM_PAGETABLE_SVPBMT | MM_PAGETABLE_CONTIGUOUS, MMI_PT_BIT(63),   \
                 UINT64_C(3) << 61, UINT64_C(0x7f) << 54, 0xd0)
#define MMI_PT_RISCV_S1(U, Q, id_, levels_, va_, leaves_, mode_)                                   \
    MMI_PT_RISCV64(U, Q, id_, levels_, va_, MM_PAGETABLE_SIGN_EXTENDED, leaves_, mode_, 1, 0x10,   \
                   0x20, MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL)
#define MMI_PT_RISCV_X4(U, Q, id_, levels_, va_, leaves_, mode_)                                   \
    MMI_PT_RISCV64(U, Q, id_, levels_, va_, MM_PAGETABLE_ZERO_EXTENDED, leaves_, mode_, 0x11, 0,   \
                   0, 0)
#define MMI_PT_SV32(U, Q)                                                                          \
    MMI_PT_RISCV(U, Q, MM_PAGETABLE_ID_SV32, 2, 10, 32, MM_PAGETABLE_ZERO_EXTENDED, 34, 2, 3, 1,   \
                 1, 0x10, 0x20, MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL, 0, 0, 0, 0, 0xd0)
#define MMI_PT_SV39(U, Q) MMI_PT_RISCV_S1(U, Q, MM_PAGETABLE_ID_SV39, 3, 39, 7, 8)
#define MMI_PT_SV48(U, Q) MMI_PT_RISCV_S1(U, Q, MM_PAGETABLE_ID_SV48, 4, 48, 15, 9)
#define MMI_PT_SV57(U, Q) MMI_PT_RISCV_S1(U, Q, MM_PAGETABLE_ID_SV57, 5, 57, 31, 10)
#define MMI_PT_SV39X4(U, Q) MMI_PT_RISCV_X4(U, Q, MM_PAGETABLE_ID_SV39X4, 3, 41, 7, 8)
#define MMI_PT_SV48X4(U, Q) MMI_PT_RISCV_X4(U, Q, MM_PAGETABLE_ID_SV48X4, 4, 50, 15, 9)
#define MMI_PT_SV57X4(U, Q) MMI_PT_RISCV_X4(U, Q, MM_PAGETABLE_ID_SV57X4, 5, 59, 31, 10)

/* EPT: R 0, W 1, X 2 (XU 10 apart), type 3 to 5, ignore-PAT 6, leaf 7, A 8, D 9, ignored 11 and 52
 * to 56. */
#define MMI_PT_EPT(U, Q)                                                                           \
    U(id, MM_PAGETABLE_ID_EPT) U(family, MM_PAGETABLE_FAMILY_EPT) U(levels, 4) U(index_bits, 9)    \
    U(va_bits, 48) U(canonical, MM_PAGETABLE_ZERO_EXTENDED) U(pa_bits, 52) U(entry_shift, 3)       \
    U(leaf_levels, 7) U(ppn_shift, 12) U(legal, 0xba) U(root_mode, 0)                              \
    U(coding, MM_PAGETABLE_CODED) U(type_shift, 3) U(note_shift, 52) U(note_bits, 10)              \
    U(key_shift, 0) U(break_first, 0) U(attrs, MMI_PT_COMMON_ATTRS | MM_PAGETABLE_SOFT1 |          \
                        MM_PAGETABLE_EXEC_USER | MM_PAGETABLE_IGNORE_PAT)                          \
    U(features, MM_PAGETABLE_EXEC_ONLY | MM_PAGETABLE_MODE_EXEC | MM_PAGETABLE_HW_AD)              \
    Q(present, 0x407) Q(leaf_mask, 0x80) Q(leaf_xor, 0) Q(big_xor, 0x80) Q(big_pat, 0)             \
    Q(table, 0x507) Q(pa_mask, UINT64_C(0x000ffffffffff000)) Q(base, 0) Q(read, 1) Q(write, 2)     \
    Q(exec, 4) Q(user, 0) Q(exec_user, 0x400) Q(global, 0) Q(accessed, 0x100) Q(dirty, 0x200)      \
    Q(hw_write, 0) Q(cow, 0x800) Q(soft0, MMI_PT_BIT(52)) Q(soft1, MMI_PT_BIT(53)) Q(contig, 0)    \
    Q(contig_ppn, 0) Q(ignore_pat, 0x40) Q(share, 0) Q(type_mask, 0x38)                            \
    Q(types, UINT64_C(0x000501000406)) Q(type_reg, 0) Q(reserved, 0) Q(reserved_table, 0xf8)

/* AArch64: valid 0, table or page 1, AttrIndx or MemAttr from 2, AP or S2AP 6 and 7, SH 8 and 9, AF
 * 10, nG 11, DBM 51, contiguous 52, PXN 53, UXN or XN 54, software 55 to 58. DBM stands for "may be
 * written" and bit 55 for "dirty"; hardware is let to write when both are set. */
#define MMI_PT_AARCH64(U, Q, id_, canonical_, legal_, coding_, attrs_, features_, base_, read_,    \
                       exec_, user_, exec_user_, global_, type_mask_, types_, reg_)                \
    U(id, id_) U(family, MM_PAGETABLE_FAMILY_AARCH64) U(levels, 4) U(index_bits, 9)                \
    U(va_bits, 48) U(canonical, canonical_) U(pa_bits, 48) U(entry_shift, 3) U(leaf_levels, 7)     \
    U(ppn_shift, 12) U(legal, legal_) U(root_mode, 0) U(coding, coding_) U(type_shift, 2)          \
    U(note_shift, 2) U(note_bits, 8) U(key_shift, 0) U(break_first, 1)                             \
    U(attrs, MMI_PT_COMMON_ATTRS | MM_PAGETABLE_SOFT1 | MM_PAGETABLE_NOT_SHARED | (attrs_))        \
    U(features, MM_PAGETABLE_CONTIGUOUS | MM_PAGETABLE_HW_AD | (features_))                        \
    Q(present, 1) Q(leaf_mask, 2) Q(leaf_xor, 2) Q(big_xor, 2) Q(big_pat, 0) Q(table, 3)           \
    Q(pa_mask, UINT64_C(0x0000fffffffff000)) Q(base, base_) Q(read, read_)                         \
    Q(write, MMI_PT_BIT(51)) Q(exec, exec_) Q(user, user_) Q(exec_user, exec_user_)                \
    Q(global, global_) Q(accessed, 0x400) Q(dirty, MMI_PT_BIT(55)) Q(hw_write, 0x80)               \
    Q(cow, MMI_PT_BIT(56)) Q(soft0, MMI_PT_BIT(57)) Q(soft1, MMI_PT_BIT(58))                       \
    Q(contig, MMI_PT_BIT(52)) Q(contig_ppn, 0) Q(ignore_pat, 0) Q(share, 0x300)                    \
    Q(type_mask, type_mask_) Q(types, types_) Q(type_reg, reg_)                                    \
    Q(reserved, UINT64_C(3) << 48) Q(reserved_table, UINT64_C(7) << 48)
#define MMI_PT_AARCH64_S1(U, Q)                                                                    \
    MMI_PT_AARCH64(U, Q, MM_PAGETABLE_ID_AARCH64_S1, MM_PAGETABLE_TWO_TABLES, 0xaa,                \
                   MM_PAGETABLE_INDEXED, MM_PAGETABLE_USER | MM_PAGETABLE_GLOBAL,                  \
                   MM_PAGETABLE_HIGH_HALF, (UINT64_C(3) << 53) | 0xb83, 0, MMI_PT_BIT(53), 0x40,   \
                   MMI_PT_BIT(54), 0x800, 0x1c, UINT64_C(0x04ee4444bbff), UINT64_C(0x0444bbff))
#define MMI_PT_AARCH64_S2(U, Q)                                                                    \
    MMI_PT_AARCH64(U, Q, MM_PAGETABLE_ID_AARCH64_S2, MM_PAGETABLE_ZERO_EXTENDED, 0xba,             \
                   MM_PAGETABLE_CODED, MM_PAGETABLE_EXEC_USER, MM_PAGETABLE_MODE_EXEC,             \
                   MMI_PT_BIT(54) | 0x303, 0x40, MMI_PT_BIT(53), 0, UINT64_C(3) << 53, 0, 0x3c,    \
                   UINT64_C(0x01ee05050a0f), 0)
/* clang-format on */

/* Which formats are in: those asked for, or all. With one alone MMI_PT_ONE describes it. */
#if defined(MM_PAGETABLE_X86_64) + defined(MM_PAGETABLE_X86_64_LA57) +                         \
        defined(MM_PAGETABLE_SV32) + defined(MM_PAGETABLE_SV39) + defined(MM_PAGETABLE_SV48) + \
        defined(MM_PAGETABLE_SV57) + defined(MM_PAGETABLE_EPT) + defined(MM_PAGETABLE_NPT) +   \
        defined(MM_PAGETABLE_SV39X4) + defined(MM_PAGETABLE_SV48X4) +                          \
        defined(MM_PAGETABLE_SV57X4) + defined(MM_PAGETABLE_AARCH64_S1) +                      \
        defined(MM_PAGETABLE_AARCH64_S2) ==                                                    \
    0
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_X86_64_LA57
#define MM_PAGETABLE_SV32
#define MM_PAGETABLE_SV39
#define MM_PAGETABLE_SV48
#define MM_PAGETABLE_SV57
#define MM_PAGETABLE_EPT
#define MM_PAGETABLE_NPT
#define MM_PAGETABLE_SV39X4
#define MM_PAGETABLE_SV48X4
#define MM_PAGETABLE_SV57X4
#define MM_PAGETABLE_AARCH64_S1
#define MM_PAGETABLE_AARCH64_S2
#endif
#if defined(MM_PAGETABLE_X86_64) + defined(MM_PAGETABLE_X86_64_LA57) +                         \
        defined(MM_PAGETABLE_SV32) + defined(MM_PAGETABLE_SV39) + defined(MM_PAGETABLE_SV48) + \
        defined(MM_PAGETABLE_SV57) + defined(MM_PAGETABLE_EPT) + defined(MM_PAGETABLE_NPT) +   \
        defined(MM_PAGETABLE_SV39X4) + defined(MM_PAGETABLE_SV48X4) +                          \
        defined(MM_PAGETABLE_SV57X4) + defined(MM_PAGETABLE_AARCH64_S1) +                      \
        defined(MM_PAGETABLE_AARCH64_S2) ==                                                    \
    1
#if defined(MM_PAGETABLE_X86_64)
#define MMI_PT_ONE(U, Q) MMI_PT_X86_64(U, Q)
#elif defined(MM_PAGETABLE_X86_64_LA57)
#define MMI_PT_ONE(U, Q) MMI_PT_X86_64_LA57(U, Q)
#elif defined(MM_PAGETABLE_SV32)
#define MMI_PT_ONE(U, Q) MMI_PT_SV32(U, Q)
#elif defined(MM_PAGETABLE_SV39)
#define MMI_PT_ONE(U, Q) MMI_PT_SV39(U, Q)
#elif defined(MM_PAGETABLE_SV48)
#define MMI_PT_ONE(U, Q) MMI_PT_SV48(U, Q)
#elif defined(MM_PAGETABLE_SV57)
#define MMI_PT_ONE(U, Q) MMI_PT_SV57(U, Q)
#elif defined(MM_PAGETABLE_EPT)
#define MMI_PT_ONE(U, Q) MMI_PT_EPT(U, Q)
#elif defined(MM_PAGETABLE_NPT)
#define MMI_PT_ONE(U, Q) MMI_PT_NPT(U, Q)
#elif defined(MM_PAGETABLE_SV39X4)
#define MMI_PT_ONE(U, Q) MMI_PT_SV39X4(U, Q)
#elif defined(MM_PAGETABLE_SV48X4)
#define MMI_PT_ONE(U, Q) MMI_PT_SV48X4(U, Q)
#elif defined(MM_PAGETABLE_SV57X4)
#define MMI_PT_ONE(U, Q) MMI_PT_SV57X4(U, Q)
#elif defined(MM_PAGETABLE_AARCH64_S1)
#define MMI_PT_ONE(U, Q) MMI_PT_AARCH64_S1(U, Q)
#elif defined(MM_PAGETABLE_AARCH64_S2)
#define MMI_PT_ONE(U, Q) MMI_PT_AARCH64_S2(U, Q)
#endif
#endif

/* ---- Types --------------------------------------------------------------------------------- */

struct mm_pagetable;

/* A range of addresses whose translations changed. */
struct mm_pagetable_range {
    mm_va_t va;
    uint64_t bytes;
    unsigned level; /* of the leaves in it: one invalidation every mm_pagetable_size(level) */
};

/* What the hook `flush` is asked to do. */
struct mm_pagetable_flush {
    const struct mm_pagetable *pt;
    const struct mm_pagetable_range *ranges;
    unsigned count;     /* ranges; 0 when `all` */
    unsigned asid;      /* ASID, PCID or VMID of the table */
    bool all;           /* too much for ranges: everything of this ASID (and global entries) */
    bool filled_only;   /* entries were only added: RISC-V without Svvptc needs a fence */
    bool tables_unlink; /* tables left (RISC-V: or came): the entries that lead to them may sit in
                           walk caches too; an address below each that left is among the ranges, but
                           sfence.vma for an address does not reach those */
    bool global;        /* leaves with MM_PAGETABLE_GLOBAL may be among them: an invalidation for an
                           ASID (sfence.vma, INVPCID of an address or a context) leaves those, and
                           such a fence does not order new ones */
    bool every_asid;    /* the table has lent entries: those who borrowed them have what is below in
                           TLBs and walk caches under their own ASIDs */
};

/* A run of frames that left the table, with what was known of it. */
struct mm_pagetable_extent {
    mm_pa_t pa; /* for a swap entry: its value */
    uint64_t bytes;
    uint32_t attr;
};

/* What the caller lends to a table. Only alloc and free must be there. They are called with the
 * table's lock held, by mm_pagetable_batch_finish without, open and close by questions too; none
 * may change the table. */
struct mm_pagetable_hooks {
    void *ctx;
    /* A new table of `bytes` bytes (a power of two), aligned to its size, content of no matter.
     * MM_PA_NONE if there is none. */
    mm_pa_t (*alloc)(void *ctx, uint64_t bytes);
    void (*free)(void *ctx, mm_pa_t table, uint64_t bytes);
    /* Invalidates what the TLBs of all CPUs hold of this. */
    void (*flush)(void *ctx, const struct mm_pagetable_flush *flush);
    /* Waits until no lock-free reader that came before is inside: after the flush, before frames
     * and tables go. NULL: there are none, or `free` and `release` wait themselves. */
    void (*grace)(void *ctx);
    /* Frames that a mapping no longer holds, after the flush. NULL: whole tables are dropped
     * without a look at their leaves. */
    void (*release)(void *ctx, const struct mm_pagetable_extent *extent);
    /* Frames that mm_pagetable_share_cow mapped once more. */
    void (*reference)(void *ctx, mm_pa_t pa, uint64_t bytes);
    /* With MM_PAGETABLE_WINDOWS: a pointer to the table at `pa`; must not fail while fewer than
     * 2 * MM_PAGETABLE_LEVELS_MAX + 2 are open for each caller. */
    void *(*open)(void *ctx, mm_pa_t pa);
    void (*close)(void *ctx, void *table);
};

/* What a table is made of; mm_pagetable_config_init fills it with defaults. */
struct mm_pagetable_config {
    const struct mm_pagetable_format *format;
    const struct mm_pagetable_hooks *hooks; /* kept, not copied */
    uintptr_t direct;                       /* pointer to a table = its physical address + this */
    uint32_t flags;                         /* MM_PAGETABLE_NX ... */
    unsigned leaf_levels;       /* bit l: leaves of level l may be used; from 0 up without a gap */
    unsigned pa_bits;           /* physical address width of the processor */
    unsigned asid;              /* ASID, PCID, VMID: told to flush, and in the root register; not
                                   wider than there: 12 bits on x86_64, 16 on AArch64 and RISC-V,
                                   14 in its G-stage, 9 in Sv32 */
    uint64_t type_register;     /* IA32_PAT, or MAIR_EL1 */
    uint64_t flush_pages;       /* more pages than this in a batch become "all" */
    MM_PAGETABLE_LOCK_T *locks; /* one for each few top-level entries, lent; NULL: one in all */
    unsigned lock_count;        /* 0 to MM_PAGETABLE_LOCKS_MAX */
};

/* A translation table.
 *
 * I1  every table but the root is reached from one entry, except through lent entries
 * I2  a table entry carries a note. In the root: borrowed (0), own or lent. Borrowed: the table
 *     belongs to another, and this one never writes to it. Lent: others point to it, it is never
 *     freed. Below the root: how many entries of the table are not 0; the highest value of the
 *     note's bits makes no claim. With MM_PAGETABLE_KEEP_EMPTY it always stands there. Where
 *     MM_PAGETABLE_COUNT has the number, it has it below the root's entries, too, and 2^16 - 1
 *     makes no claim, as it always does of lent tables. The note of such a format is own, or below
 *     the root its highest value, which says that the number is not to be looked at.
 * I3  without MM_PAGETABLE_KEEP_EMPTY no table but the root and lent ones is empty
 * I4  a table that is linked has only valid entries: it is filled first, linked by one store
 * I5  until the TLBs are flushed and the grace hook has returned, nothing is written to a dead
 *     table but what is not present: one of them, that has no tables below, lists others
 * I6  a leaf that hardware may still change (clean and writable, or not accessed) is changed by an
 *     atomic exchange, any other by a plain store */
struct mm_pagetable {
    const struct mm_pagetable_format *format;
    const struct mm_pagetable_hooks *hooks;
    uintptr_t direct;
    mm_pa_t root;
    uint32_t flags;
    uint32_t leaf_levels;
    unsigned pa_bits;
    unsigned asid;
    bool borrows; /* some top-level entry is another table's */
    bool lends;   /* some was lent to another one, once */
    uint64_t type_register;
    uint64_t flush_pages;
    uint64_t type_bits[MM_PAGETABLE_TYPE_COUNT]; /* of a level-0 leaf; all ones: no such type */
    MM_PAGETABLE_LOCK_T *locks;
    unsigned lock_count;
    MM_PAGETABLE_LOCK_T lock;
};

/* Changes that wait for one flush. The caller makes one to let several calls share it, and must
 * finish it before it relies on the changes; without one each call flushes before it returns. */
struct mm_pagetable_batch {
    struct mm_pagetable *pt;
    struct mm_pagetable_range ranges[MM_PAGETABLE_BATCH_RANGES];
    struct mm_pagetable_extent *extents;
    struct mm_pagetable_extent own[MM_PAGETABLE_BATCH_EXTENTS];
    size_t extent_count, extent_room;
    uint64_t pages; /* entries in the ranges */
    unsigned range_count;
    uint64_t dead;                  /* link to the last directory of dead subtrees */
    uint32_t dead_room, dead_count; /* entries that are free in it; dead subtrees in all */
    bool all, changed, filled, unlinked, linked, global;
    bool settled;         /* all and changed: one more leaf that goes adds nothing */
    uint64_t fill_untold; /* a page that comes adds something if its leaf has one of these bits */
    uint64_t quiet_pages; /* of a cursor's own: its near pages, if no count changes either */
    uint64_t made_attr, made_leaf; /* what was encoded and decoded last, so that a run of equal */
    uint64_t told_attr, told_leaf; /* pages does it once; of level 0, without address */
};

/* What stands at an address. */
struct mm_pagetable_entry {
    mm_va_t va;     /* first byte of the leaf, or of the hole's piece */
    uint64_t bytes; /* of the leaf, or of the piece that one empty entry covers */
    mm_pa_t pa;     /* of the leaf's first byte; a swap entry's value; MM_PA_NONE in a hole */
    uint32_t attr;  /* 0 in a hole */
    unsigned level;
    uint64_t raw; /* the entry itself */
};

/* How mm_pagetable_predict is asked: one access, and the state of the processor. */
#define MM_PAGETABLE_ACCESS_WRITE   0x1u
#define MM_PAGETABLE_ACCESS_FETCH   0x2u
#define MM_PAGETABLE_ACCESS_USER    0x4u   /* by user mode (EL0, U, CPL 3) */
#define MM_PAGETABLE_CPU_WP         0x10u  /* x86: CR0.WP */
#define MM_PAGETABLE_CPU_SMEP       0x20u  /* x86: CR4.SMEP */
#define MM_PAGETABLE_CPU_SMAP       0x40u  /* x86: CR4.SMAP with EFLAGS.AC clear; Arm: PSTATE.PAN */
#define MM_PAGETABLE_CPU_SUM        0x80u  /* RISC-V: sstatus.SUM */
#define MM_PAGETABLE_CPU_MXR        0x100u /* RISC-V: sstatus.MXR */
#define MM_PAGETABLE_CPU_IDENTIFIES 0x200u /* x86: the error code tells fetches (NXE or SMEP) */

enum mm_pagetable_fault {
    MM_PAGETABLE_FAULT_NONE = 0,
    MM_PAGETABLE_FAULT_CANONICAL, /* the address does not exist: x86 #GP, page fault elsewhere */
    MM_PAGETABLE_FAULT_NOT_PRESENT,
    MM_PAGETABLE_FAULT_PERMISSION,
    MM_PAGETABLE_FAULT_RESERVED,   /* reserved bits: x86 RSVD, EPT misconfiguration */
    MM_PAGETABLE_FAULT_KEY,        /* x86 protection key */
    MM_PAGETABLE_FAULT_ACCESS_FLAG /* A or D is clear and hardware does not set it */
};
struct mm_pagetable_access {
    enum mm_pagetable_fault fault;
    unsigned level;      /* of the entry that decided */
    mm_pa_t pa;          /* MM_PA_NONE on a fault */
    uint32_t error_code; /* x86: of the page fault */
};

/* Tables and leaves, counted by mm_pagetable_get_stats. */
struct mm_pagetable_stats {
    uint64_t tables[MM_PAGETABLE_LEVELS_MAX]; /* by level, the root included, borrowed ones not */
    uint64_t leaves[MM_PAGETABLE_LEVELS_MAX]; /* by level */
    uint64_t contiguous;                      /* level-0 leaves in contiguous groups */
    uint64_t swapped;
    uint64_t table_bytes, mapped_bytes;
};

/* What is wrong with an entry: mm_pagetable_check. */
struct mm_pagetable_flaw {
    const char *what;
    mm_va_t va;
    unsigned level;
    uint64_t raw;
};

/* What mm_pagetable_walk calls: by level, either for tables or for leaves, or both. A callback that
 * returns false ends the walk. */
struct mm_pagetable_visitor {
    void *ctx;
    bool (*leaf)(void *ctx, const struct mm_pagetable_entry *entry);
    bool (*table)(void *ctx, const struct mm_pagetable_entry *entry); /* pa: the table; before it */
    unsigned levels; /* bit l: entries of level l are wanted */
};

/* Equal neighbours in one: mm_pagetable_runs. */
struct mm_pagetable_run {
    mm_va_t va;
    uint64_t bytes;
    mm_pa_t pa;
    uint32_t attr;
    unsigned level;
};

/* How mm_pagetable_map goes about it. */
#define MM_PAGETABLE_REPLACE         0x1u                            /* what stands there goes */
#define MM_PAGETABLE_LEAF_MAX(level) (((unsigned)(level) + 1u) << 4) /* no leaf of a higher level */
#define MM_PAGETABLE_LEAF_MIN(level) (((unsigned)(level) + 1u) << 8) /* none of a lower one */

/* What calls keep while they run; nothing in here is for the caller. */
struct mmi_pt_iter {
    struct mm_pagetable *pt;
    uint64_t off, end; /* addresses without their extension: below 2^va_bits */
    unsigned level, top;
    void *table[MM_PAGETABLE_LEVELS_MAX]; /* open from top down to level; NULL: not there yet */
};
struct mmi_pt_held {
    uint32_t which; /* bit i: lock i */
    MM_PAGETABLE_LOCK_STATE_T state[MM_PAGETABLE_LOCKS_MAX];
};
struct
    mmi_pt_spare { /* tables reserved before anything changes, chained through their first words */
    struct mm_pagetable *pt;
    mm_pa_t head;
};
struct mmi_pt_call {
    struct mm_pagetable *pt;
    uint64_t off, end;
    struct mm_pagetable_batch *batch, *given, own;
    struct mmi_pt_held held;
    struct mmi_pt_spare spare;
};

#define MMI_PT_OTHERS 128u

/* A position in a table, from mm_pagetable_cursor_begin to _end. Its range is locked meanwhile. */
struct mm_pagetable_cursor {
    struct mmi_pt_call call;
    mm_va_t va; /* where its range begins, and how long it is */
    uint64_t bytes;
    struct mmi_pt_iter it; /* `off` may be ahead of its tables: */
    uint64_t at;         /* they lead to this address, level 0; all ones: less far, or elsewhere */
    mm_va_t near;        /* the pages of its range below its table of level 2, where that is the */
    uint64_t near_pages; /* last one that is open and all is settled; else 0 */
    uint64_t plain;      /* a leaf without address, as most are: see mmi_pt_cursor_unmap_other */
    uint64_t leaf, attr; /* the last leaf that was encoded; attr: all ones before */
    mm_pa_t pa_end;      /* behind the last frame */
    uint32_t taken;      /* entries out of the table of level 0 that it stands in, */
    uint32_t counts;     /* counted in steps of 1, or of 0 with MM_PAGETABLE_KEEP_EMPTY */
    uint16_t others[MMI_PT_OTHERS]; /* where notes do not count a table's entries: one that is
                                       there, perhaps; of tables of level 1, by address */
};

/* ---- Set-up -------------------------------------------------------------------------------- */

/* The descriptor of a format; NULL if this program was compiled without it. O(1), no locking. */
MM_PAGETABLE_API const struct mm_pagetable_format *mm_pagetable_format_of(enum mm_pagetable_id id);

/* Fills a configuration with defaults: all leaf levels of the format, its whole physical width,
 * NX and hardware-set accessed bits where every processor has them, PRESET_AD, flush all above 32
 * pages.
 *
 *   format  from mm_pagetable_format_of; NULL where one format alone is compiled in
 *   hooks   kept
 *   direct  pointer to a table = its physical address + this (0: identity)
 *
 * Returns MM_OK; MM_ERR_INVALID for a format that is not compiled in, or without hooks. O(1). */
MM_PAGETABLE_API enum mm_status mm_pagetable_config_init(struct mm_pagetable_config *config,
                                                         const struct mm_pagetable_format *format,
                                                         const struct mm_pagetable_hooks *hooks,
                                                         uintptr_t direct);

/* Makes an empty table; its root comes from the hook alloc.
 * Returns MM_OK; MM_ERR_INVALID for a configuration that makes no sense; MM_ERR_NOMEM.
 * O(root's entries). Set-up: nobody else may use `pt` meanwhile. */
MM_PAGETABLE_API enum mm_status mm_pagetable_init(struct mm_pagetable *pt,
                                                  const struct mm_pagetable_config *config);

/* Unmaps everything, frees every table but borrowed ones; frames go to the hook release.
 * Returns MM_OK; MM_ERR_BUSY, and nothing changed, if entries were ever lent to other tables and
 * `lent_too` is false. O(tables), O(leaves) with release. Nobody else may use `pt` any more. */
MM_PAGETABLE_API enum mm_status mm_pagetable_destroy(struct mm_pagetable *pt, bool lent_too);

/* What goes into the processor's register: CR3 (with PCID), satp, hgatp, EPTP (write-back, A/D with
 * MM_PAGETABLE_HW_AD), nCR3, TTBR with ASID, VTTBR with VMID. O(1), no locking. */
MM_PAGETABLE_API uint64_t mm_pagetable_root(const struct mm_pagetable *pt);

/* Bytes of a leaf of this level; 0 for a level that the format has not. O(1), no locking. */
MM_PAGETABLE_API uint64_t mm_pagetable_size(const struct mm_pagetable *pt, unsigned level);

/* Prepares a batch of changes of one table. `extents`: room for `count` runs of frames that wait
 * for the flush; NULL: the batch's own. O(1). One CPU at a time uses a batch. */
MM_PAGETABLE_API void mm_pagetable_batch_init(struct mm_pagetable_batch *batch,
                                              struct mm_pagetable *pt,
                                              struct mm_pagetable_extent *extents, size_t count);

/* Flushes what the batch gathered, waits for readers, then releases frames and frees tables; the
 * batch is empty and ready afterwards. Nothing is called for an empty batch. The caller keeps
 * others from mapping the same addresses anew before; its own mappings under this batch flush first
 * where the format wants break-before-make. O(what was gathered). Takes no lock. */
MM_PAGETABLE_API void mm_pagetable_batch_finish(struct mm_pagetable_batch *batch);

/* ---- Mapping --------------------------------------------------------------------------------
 *
 * All of them check the whole request first and reserve the tables that it needs, so that a call
 * that fails has changed nothing. They take the lock of the table, or those of the top-level
 * entries concerned. `batch` NULL: flushed before the return. A leaf is stored without a barrier:
 * where a processor may see stores in another order (Arm, RISC-V), who filled a frame puts a
 * release fence between that and the call. Errors that all share:
 *
 *   MM_ERR_INVALID  zero bytes, a wrap, an address that is not canonical, beyond the physical
 *                   width, an attribute that the format does not have, a batch of another table
 *   MM_ERR_ALIGN    an address or a size that is no multiple of 4 KiB
 *   MM_ERR_PERM     the range touches borrowed entries
 *   MM_ERR_NOMEM    the hook alloc gave none, at whichever table */

/* Maps [va, va + bytes) to [pa, pa + bytes) with the largest leaves that alignment, `how` and the
 * processor allow.
 *
 *   attr   MM_PAGETABLE_READ ...
 *   how    MM_PAGETABLE_REPLACE, MM_PAGETABLE_LEAF_MAX(l), MM_PAGETABLE_LEAF_MIN(l), or 0
 *
 * Returns MM_OK; the shared errors; MM_ERR_ALIGN too when LEAF_MIN does not fit; MM_ERR_EXISTS if
 * something is mapped there and REPLACE was not asked for, or LEAF_MIN meets a table that has to
 * stay (an empty one that MM_PAGETABLE_KEEP_EMPTY kept: mm_pagetable_sweep takes it).
 * O(bytes / leaf size), one walk, one access to each upper entry. */
MM_PAGETABLE_API enum mm_status mm_pagetable_map(struct mm_pagetable *pt, mm_va_t va, mm_pa_t pa,
                                                 uint64_t bytes, uint32_t attr, unsigned how,
                                                 struct mm_pagetable_batch *batch);

/* Maps `count` pages of 4 KiB from va up, each to a frame of the list; `how`: REPLACE and
 * LEAF_MAX at most. Else as mm_pagetable_map; MM_ERR_INVALID too without a list. O(count). */
MM_PAGETABLE_API enum mm_status mm_pagetable_map_frames(struct mm_pagetable *pt, mm_va_t va,
                                                        const mm_pa_t *frames, size_t count,
                                                        uint32_t attr, unsigned how,
                                                        struct mm_pagetable_batch *batch);

/* Maps physical memory at its own address plus `offset` (0: identity). As mm_pagetable_map. */
MM_PAGETABLE_API enum mm_status mm_pagetable_map_linear(struct mm_pagetable *pt, mm_pa_t pa,
                                                        uint64_t bytes, uint64_t offset,
                                                        uint32_t attr, unsigned how,
                                                        struct mm_pagetable_batch *batch);

/* Removes every mapping and swap entry of the range; leaves that reach over its ends are split.
 * Returns MM_OK; MM_ERR_NOENT if nothing was there; the shared errors.
 * O(leaves); O(tables) where whole tables go and there is no hook release. */
MM_PAGETABLE_API enum mm_status mm_pagetable_unmap(struct mm_pagetable *pt, mm_va_t va,
                                                   uint64_t bytes,
                                                   struct mm_pagetable_batch *batch);

/* Gives every leaf of the range the attributes `attr` of the groups in `mask` (MM_PAGETABLE_PERMS,
 * _TYPES, _SOFTS, _KEYS); the rest stays: accessed, dirty, frames. Holes are skipped. With
 * MM_PAGETABLE_PRESET_AD what is given WRITE is dirty too.
 * Returns MM_OK; MM_ERR_NOENT if nothing was mapped there; MM_ERR_INVALID too for a mask that is no
 * sum of groups; the shared errors. O(leaves). */
MM_PAGETABLE_API enum mm_status mm_pagetable_protect(struct mm_pagetable *pt, mm_va_t va,
                                                     uint64_t bytes, uint32_t attr, uint32_t mask,
                                                     struct mm_pagetable_batch *batch);

/* Puts a software entry in the place of the 4 KiB page at `va` (mapped, swapped or not there at
 * all): not present, `value` is read back by mm_pagetable_query. The frame goes to release.
 * Returns MM_OK; MM_ERR_INVALID too for a value of more than 52 (Sv32: 20) bits; the shared
 * errors. O(levels). */
MM_PAGETABLE_API enum mm_status mm_pagetable_swap(struct mm_pagetable *pt, mm_va_t va,
                                                  uint64_t value, struct mm_pagetable_batch *batch);

/* Brings the leaf at `va`, any address in it, down to `level` by splits, keeping accessed, dirty,
 * software bits and type. Returns MM_OK, also if it is small already; MM_ERR_NOENT in a hole;
 * MM_ERR_INVALID too for a level that the format has not; the shared errors. O(entries of the new
 * tables). */
MM_PAGETABLE_API enum mm_status mm_pagetable_split(struct mm_pagetable *pt, mm_va_t va,
                                                   unsigned level,
                                                   struct mm_pagetable_batch *batch);

/* Replaces every full table of the range whose leaves fit together (one run of frames, aligned,
 * equal but for accessed and dirty, which are joined) by one leaf, from small to large. Processors
 * set accessed and dirty in the old leaves until they are flushed, so the call flushes by itself:
 * once for each level, or oftener when there are more tables than the batch has extents.
 * Returns MM_OK; MM_ERR_NOENT if there was none; the shared errors. O(leaves). */
MM_PAGETABLE_API enum mm_status mm_pagetable_collapse(struct mm_pagetable *pt, mm_va_t va,
                                                      uint64_t bytes,
                                                      struct mm_pagetable_batch *batch);

/* Frees the empty tables of the range, for MM_PAGETABLE_KEEP_EMPTY.
 * Returns MM_OK, MM_ERR_NOENT if there was none, or the shared errors. O(tables' entries). */
MM_PAGETABLE_API enum mm_status mm_pagetable_sweep(struct mm_pagetable *pt, mm_va_t va,
                                                   uint64_t bytes,
                                                   struct mm_pagetable_batch *batch);

/* ---- Accessed and dirty ---------------------------------------------------------------------
 *
 * Locks and errors are those of the section above. */

/* Calls `seen` for each leaf of the range that has one of the bits in `which`
 * (MM_PAGETABLE_ACCESSED, MM_PAGETABLE_DIRTY), with the bits as they were, and clears those in
 * `clear`. The pages of a contiguous group have their bits in common: they are told for each page
 * of the range, and cleared in the whole group. `seen` may be NULL; it has the lock held, and must
 * not change the table.
 * Returns MM_OK; MM_ERR_NOENT if no leaf had one; MM_ERR_INVALID too for other bits. O(leaves). */
MM_PAGETABLE_API enum mm_status
mm_pagetable_harvest(struct mm_pagetable *pt, mm_va_t va, uint64_t bytes, uint32_t which,
                     uint32_t clear,
                     void (*seen)(void *ctx, const struct mm_pagetable_entry *entry), void *ctx,
                     struct mm_pagetable_batch *batch);

/* Sets the bits in `set` in the leaf at `va`, any address in it, or in its contiguous group: for a
 * fault handler where hardware does not.
 * Returns MM_OK; MM_ERR_NOENT in a hole; MM_ERR_INVALID for other bits. O(levels). Needs no flush,
 * but the fence that RISC-V wants before the access is tried again; on AArch64 a page gets dirty by
 * getting writable, and what TLBs may hold of it is flushed. */
MM_PAGETABLE_API enum mm_status mm_pagetable_mark(struct mm_pagetable *pt, mm_va_t va,
                                                  uint32_t set);

/* ---- Sharing -------------------------------------------------------------------------------- */

/* Maps the range of `from` into `to` as well, at the same addresses, for copy-on-write: both sides
 * lose write, and what was writable gets MM_PAGETABLE_COW. Swap entries are copied; release tells
 * of each copy when it goes, reference does not when it comes. The hook reference of `to` sees each
 * run of frames. Empty tables of `to` are no obstacle.
 * Returns MM_OK; MM_ERR_NOENT if nothing is mapped there; MM_ERR_EXISTS if `to` has something where
 * `from` has; MM_ERR_INVALID too for tables of different formats, or a table and itself; the shared
 * errors, of both. O(leaves). Takes the locks of both. `batch` is one of `from`. */
MM_PAGETABLE_API enum mm_status mm_pagetable_share_cow(struct mm_pagetable *to,
                                                       struct mm_pagetable *from, mm_va_t va,
                                                       uint64_t bytes,
                                                       struct mm_pagetable_batch *batch);

/* Lends the top-level entries of the range, whole ones, from `from` to `to`: a kernel half, or the
 * entry of a trampoline page. What `from` maps there later is seen through `to` at once; `to`
 * itself cannot change it. Missing tables are made, and lent tables stay, even empty.
 * Returns MM_OK; MM_ERR_ALIGN if the range is not one of whole entries; MM_ERR_EXISTS if `to` has
 * entries there; MM_ERR_BUSY if a leaf stands there in `from`; MM_ERR_INVALID too for different
 * formats; the shared errors. O(entries). Takes the locks of both. */
MM_PAGETABLE_API enum mm_status
mm_pagetable_lend(struct mm_pagetable *to, struct mm_pagetable *from, mm_va_t va, uint64_t bytes);
/* The same for those entries of the range that `from` has: all that a kernel's space has so far,
 * without a table for each gigabyte in between. Errors but MM_ERR_NOMEM as above. */
MM_PAGETABLE_API enum mm_status mm_pagetable_lend_present(struct mm_pagetable *to,
                                                          struct mm_pagetable *from, mm_va_t va,
                                                          uint64_t bytes);

/* Takes the borrowed entries that the range touches out of `to` again, each whole.
 * Returns MM_OK; MM_ERR_NOENT if there was none; the shared errors. O(entries). */
MM_PAGETABLE_API enum mm_status mm_pagetable_give_back(struct mm_pagetable *to, mm_va_t va,
                                                       uint64_t bytes,
                                                       struct mm_pagetable_batch *batch);

/* ---- Cursor ---------------------------------------------------------------------------------
 *
 * One CPU uses a cursor, from its begin to its end, and calls nothing else meanwhile that takes the
 * locks of its range. The steps take none. */

/* Begins a run of single steps over [va, va + bytes): the tables on the way are walked once, not
 * once a page. The locks of the range are held until mm_pagetable_cursor_end.
 * Returns MM_OK, or the shared errors (then there is nothing to end). O(levels). */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_begin(struct mm_pagetable_cursor *cursor,
                                                          struct mm_pagetable *pt, mm_va_t va,
                                                          uint64_t bytes,
                                                          struct mm_pagetable_batch *batch);

/* Maps the 4 KiB page at the cursor and goes on to the next.
 * Returns MM_OK; MM_ERR_EXISTS; MM_ERR_NOMEM; MM_ERR_INVALID; MM_ERR_ALIGN; MM_ERR_LIMIT at the end
 * of the range. On an error the cursor stays. O(1) but where a table begins. */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_map(struct mm_pagetable_cursor *cursor,
                                                        mm_pa_t pa, uint32_t attr);

/* Tells what stands at the cursor, and goes on behind it (behind a leaf, or the piece of a hole).
 * Returns MM_OK; MM_ERR_NOENT for a hole, and goes on too; MM_ERR_LIMIT at the end. O(levels). */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_next(struct mm_pagetable_cursor *cursor,
                                                         struct mm_pagetable_entry *entry);

/* Unmaps the 4 KiB page at the cursor and goes on to the next.
 * Returns MM_OK; MM_ERR_NOENT for a hole, and goes on too; MM_ERR_BUSY at a larger leaf or
 * in a contiguous group, and stays;
 * MM_ERR_LIMIT at the end. O(1) but where a table begins. */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_unmap(struct mm_pagetable_cursor *cursor);

/* Moves to the page at `va`, inside the range it began with; the next step goes down to it.
 * Returns MM_OK; MM_ERR_INVALID outside, MM_ERR_ALIGN in the midst of a page, and stays. O(1). */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_seek(struct mm_pagetable_cursor *cursor,
                                                         mm_va_t va);

/* Maps the 4 KiB page at `va`, anywhere in the cursor's range: mm_pagetable_cursor_seek and _map in
 * one, for pages that are no neighbours. The cursor is moved: seek before a step without an
 * address. Returns as those two. O(1) but where a table begins. */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_map_at(struct mm_pagetable_cursor *cursor,
                                                           mm_va_t va, mm_pa_t pa, uint32_t attr);

/* Unmaps the 4 KiB page at `va` in the same manner.
 * Returns as mm_pagetable_cursor_seek and _unmap. O(1) but where a table ends. */
MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_unmap_at(struct mm_pagetable_cursor *cursor,
                                                             mm_va_t va);

/* Maps the 4 KiB pages at va[0], va[1] ... to the frames pa[0], pa[1] ..., in this order, wherever
 * in the cursor's range they lie: mm_pagetable_cursor_map_at for each, whose entries are loaded
 * ahead, so that pages far from each other do not wait for memory one after the other.
 *
 *   status   MM_OK, or why a step was refused; may be NULL
 *
 * Returns how many were mapped: `count`, or the index of the first that is refused; that one and
 * those behind it are untouched. MM_ERR_INVALID too without a list. O(count). */
MM_PAGETABLE_API size_t mm_pagetable_cursor_map_bulk(struct mm_pagetable_cursor *cursor,
                                                     const mm_va_t *va, const mm_pa_t *pa,
                                                     size_t count, uint32_t attr,
                                                     enum mm_status *status);

/* Unmaps the 4 KiB pages at va[0], va[1] ... in the same manner: pages that reclaim has chosen, or
 * those of a guest that a balloon takes. Holes are passed over.
 * Returns how many were done: `count`, or the index of the first that is refused. As
 * mm_pagetable_cursor_map_bulk. */
MM_PAGETABLE_API size_t mm_pagetable_cursor_unmap_bulk(struct mm_pagetable_cursor *cursor,
                                                       const mm_va_t *va, size_t count,
                                                       enum mm_status *status);

/* Flushes, if the batch is the cursor's own, and gives back the locks. O(what was gathered). */
MM_PAGETABLE_API void mm_pagetable_cursor_end(struct mm_pagetable_cursor *cursor);

/* ---- Questions ------------------------------------------------------------------------------
 *
 * They take no lock and may run on any CPU while a writer changes the table: they see each entry
 * before or after; perhaps a hole in between where a leaf replaces a table of others, on AArch64
 * where it replaces anything, is split, gathered or gets another type, and in a table with groups
 * of pages where it replaces one. On a host of 32 bits a reader reads an entry of 64 in two halves
 * until they fit. Of a group's accessed and dirty bits they tell those of the entry, while hardware
 * sets any one's for all: mm_pagetable_harvest knows. */

/* Physical address that `va` translates to, whatever the permissions; MM_PA_NONE if it is not
 * mapped or not canonical. O(levels). No locking. */
MM_PAGETABLE_INLINE mm_pa_t mm_pagetable_translate(const struct mm_pagetable *pt, mm_va_t va);

/* Begins to load the entry for `va`, and does not wait for it: for single pages here and there that
 * are known in advance. Some eight pages ahead of the calls that use them it hides their misses.
 * Any `va`; changes nothing. O(levels). No locking. */
MM_PAGETABLE_INLINE void mm_pagetable_prefetch(const struct mm_pagetable *pt, mm_va_t va);

/* What stands at `va`. Returns MM_OK (a leaf, or a swap entry), MM_ERR_NOENT for a hole (and how
 * large its piece is), MM_ERR_INVALID if not canonical. O(levels). No locking. */
MM_PAGETABLE_API enum mm_status mm_pagetable_query(const struct mm_pagetable *pt, mm_va_t va,
                                                   struct mm_pagetable_entry *entry);

/* What the processor would do with this access: where it goes, or which fault it takes and why.
 *
 *   access   MM_PAGETABLE_ACCESS_ and MM_PAGETABLE_CPU_ bits
 *   keys     x86: PKRU (0: none); bit 2k forbids key k, bit 2k + 1 forbids writes
 *
 * O(levels). No locking. Sources: Intel SDM vol. 3, 4.6, 4.7 and 28.3.3; RISC-V privileged 4.3.2;
 * Arm ARM D8.4. */
MM_PAGETABLE_API void mm_pagetable_predict(const struct mm_pagetable *pt, mm_va_t va,
                                           unsigned access, uint32_t keys,
                                           struct mm_pagetable_access *result);

/* Visits the entries of the range in order of address, tables before what they hold; holes and
 * swap entries are not visited, borrowed tables are. Stops when a callback returns false.
 * Returns MM_OK, or MM_ERR_INVALID for a bad range or no visitor. O(entries). No locking. */
MM_PAGETABLE_API enum mm_status mm_pagetable_walk(const struct mm_pagetable *pt, mm_va_t va,
                                                  uint64_t bytes,
                                                  const struct mm_pagetable_visitor *visitor);

/* Tells the leaves of the range with equal neighbours (same attributes and level, next frames)
 * joined. `each` returning false ends it.
 * Returns MM_OK, or MM_ERR_INVALID for a bad range or without `each`. O(leaves). No locking. */
MM_PAGETABLE_API enum mm_status
mm_pagetable_runs(const struct mm_pagetable *pt, mm_va_t va, uint64_t bytes,
                  bool (*each)(void *ctx, const struct mm_pagetable_run *run), void *ctx);

/* Prints the whole table, a line for each run: range, size, frame, permissions, type, level;
 * without line ends, through `print`, which must be there. O(leaves). No locking. */
MM_PAGETABLE_API void mm_pagetable_dump(const struct mm_pagetable *pt,
                                        void (*print)(void *ctx, const char *line), void *ctx);

/* Counts tables and leaves. O(entries). No locking. */
MM_PAGETABLE_API void mm_pagetable_get_stats(const struct mm_pagetable *pt,
                                             struct mm_pagetable_stats *stats);

/* Looks for reserved bits that are set, reserved encodings, misaligned leaves, addresses beyond the
 * physical width, broken contiguous groups, tables that are their own parents, notes that lie, and,
 * with `seen`, tables that are reached twice. Borrowed tables are left to their owner.
 *
 *   seen, room  memory for a word for each table; NULL, 0: without that part
 *   flaw        the first one found; may be NULL
 *
 * Returns MM_OK; MM_ERR_CORRUPT; MM_ERR_LIMIT if there are more than `room` tables (and nothing
 * else is wrong). O(entries + tables * log tables). No writer may run. */
MM_PAGETABLE_API enum mm_status mm_pagetable_check(const struct mm_pagetable *pt, mm_pa_t *seen,
                                                   size_t room, struct mm_pagetable_flaw *flaw);

/* ---- Hot paths ------------------------------------------------------------------------------ */

/* mmi_ptf_FIELD(pt): what the format says, a constant where there is one format. */
#ifdef MMI_PT_ONE
#define MMI_PT_U(field, value)                                             \
    MM_CORE_INLINE uint32_t mmi_ptf_##field(const struct mm_pagetable *pt) \
    {                                                                      \
        (void)pt;                                                          \
        return value;                                                      \
    }
#define MMI_PT_Q(field, value)                                             \
    MM_CORE_INLINE uint64_t mmi_ptf_##field(const struct mm_pagetable *pt) \
    {                                                                      \
        (void)pt;                                                          \
        return value;                                                      \
    }
MMI_PT_ONE(MMI_PT_U, MMI_PT_Q)
#else
#define MMI_PT_U(field)                                                    \
    MM_CORE_INLINE uint32_t mmi_ptf_##field(const struct mm_pagetable *pt) \
    {                                                                      \
        return pt->format->field;                                          \
    }
#define MMI_PT_Q(field)                                                    \
    MM_CORE_INLINE uint64_t mmi_ptf_##field(const struct mm_pagetable *pt) \
    {                                                                      \
        return pt->format->field;                                          \
    }
MM_PAGETABLE_FIELDS(MMI_PT_U, MMI_PT_Q)
#endif
#undef MMI_PT_U
#undef MMI_PT_Q

/* Table memory is the caller's and has no declared type. */
typedef uint64_t __attribute__((may_alias)) mmi_pt_u64;
typedef uint32_t __attribute__((may_alias)) mmi_pt_u32;

/* Shifts by numbers that are no constants: on machines of 32 bits compilers would call a
 * library. */
MM_CORE_INLINE uint64_t mmi_pt_shl(uint64_t x, unsigned n)
{
#if MM_WORD_BITS == 64
    return x << n;
#else
    uint32_t low = (uint32_t)x, high = (uint32_t)(x >> 32);
    if (n >= 32)
        return (uint64_t)(low << (n - 32)) << 32;
    if (n == 0)
        return x;
    return (uint64_t)(high << n | low >> (32 - n)) << 32 | low << n;
#endif
}
MM_CORE_INLINE uint64_t mmi_pt_shr(uint64_t x, unsigned n)
{
#if MM_WORD_BITS == 64
    return x >> n;
#else
    uint32_t low = (uint32_t)x, high = (uint32_t)(x >> 32);
    if (n >= 32)
        return high >> (n - 32);
    if (n == 0)
        return x;
    return (uint64_t)(high >> n) << 32 | (high << (32 - n) | low >> n);
#endif
}

/* How entries are loaded: whole, once, and without a fence. What a table's entry points to was
 * written before it (mmi_pt_link); the loads through it depend on its value, and every supported
 * processor keeps such loads in order. The thread sanitizer knows nothing of dependencies. On
 * x86_64 it is one instruction written out, because gcc gives neither atomic nor volatile loads an
 * indexed address. */
#if defined(__SANITIZE_THREAD__)
#define MMI_PT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MMI_PT_TSAN 1
#endif
#endif
#ifdef MMI_PT_TSAN
#define MMI_PT_READ(type, p) __atomic_load_n((const type *)(p), __ATOMIC_ACQUIRE)
#else
#define MMI_PT_READ(type, p) (*(const volatile type *)(p))
#endif

/* One entry, whole. */
MM_CORE_INLINE uint64_t mmi_pt_load(const struct mm_pagetable *pt, const void *table,
                                    uint64_t index)
{
    if (mmi_ptf_entry_shift(pt) == 2)
        return MMI_PT_READ(mmi_pt_u32, (const mmi_pt_u32 *)table + index);
#if defined(__x86_64__) && defined(__LP64__) && !defined(MMI_PT_TSAN)
    {
        uint64_t e;
        __asm__ __volatile__("mov{q}\t{%1, %0|%0, %1}"
                             : "=r"(e)
                             : "m"(((const mmi_pt_u64 *)table)[index]));
        return e;
    }
#elif MM_WORD_BITS == 64
    return MMI_PT_READ(mmi_pt_u64, (const mmi_pt_u64 *)table + index);
#else
    {
        const mmi_pt_u32 *half = (const mmi_pt_u32 *)table + 2 * (size_t)index;
        uint32_t low, high;
        do { /* writers clear the low half, which has the present bits, and write it last */
            low = __atomic_load_n(half, __ATOMIC_ACQUIRE);
            high = __atomic_load_n(half + 1, __ATOMIC_ACQUIRE);
        } while (__atomic_load_n(half, __ATOMIC_RELAXED) != low);
        return (uint64_t)high << 32 | low;
    }
#endif
}

/* Bytes of the address space. */
MM_CORE_INLINE uint64_t mmi_pt_space(const struct mm_pagetable *pt)
{
    return mmi_pt_shl(1, mmi_ptf_va_bits(pt));
}

/* log2 of the bytes that an entry of this level covers. */
MM_CORE_INLINE unsigned mmi_pt_shift(const struct mm_pagetable *pt, unsigned level)
{
    return MM_PAGETABLE_SHIFT + level * mmi_ptf_index_bits(pt);
}

MM_CORE_INLINE uint64_t mmi_pt_size(const struct mm_pagetable *pt, unsigned level)
{
    return mmi_pt_shl(1, mmi_pt_shift(pt, level));
}

/* Entries of a table of this level; only the top one may have more or fewer than the others. */
MM_CORE_INLINE uint64_t mmi_pt_entries(const struct mm_pagetable *pt, unsigned level)
{
    if (level + 1 == mmi_ptf_levels(pt))
        return mmi_pt_shl(1, mmi_ptf_va_bits(pt) - mmi_pt_shift(pt, level));
    return mmi_pt_shl(1, mmi_ptf_index_bits(pt));
}

MM_CORE_INLINE uint64_t mmi_pt_index(const struct mm_pagetable *pt, uint64_t off, unsigned level)
{
    return mmi_pt_shr(off, mmi_pt_shift(pt, level)) & (mmi_pt_entries(pt, level) - 1);
}

MM_CORE_INLINE bool mmi_pt_present(const struct mm_pagetable *pt, uint64_t e)
{
    uint64_t tell = mmi_ptf_present(pt);
    /* EPT: user execute is a permission only with mode-based execute control (SDM vol. 3,
     * 28.3.2) */
    if (mmi_ptf_family(pt) == MM_PAGETABLE_FAMILY_EPT && (pt->flags & MM_PAGETABLE_MODE_EXEC) == 0)
        tell &= ~mmi_ptf_exec_user(pt);
    return (e & tell) != 0;
}

/* Does this entry of this level point to a table? */
MM_CORE_INLINE bool mmi_pt_is_table(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    if (level == 0 || !mmi_pt_present(pt, e))
        return false;
    return ((e ^ mmi_ptf_leaf_xor(pt)) & mmi_ptf_leaf_mask(pt)) == 0;
}

MM_CORE_INLINE mm_pa_t mmi_pt_table_pa(const struct mm_pagetable *pt, uint64_t e)
{
    return mmi_pt_shl(e & mmi_ptf_pa_mask(pt), MM_PAGETABLE_SHIFT - mmi_ptf_ppn_shift(pt));
}

/* Physical address of `off` in a leaf. Svnapot: the lowest four bits of the frame number come from
 * the address (RISC-V privileged, chapter Svnapot). */
MM_CORE_INLINE mm_pa_t mmi_pt_leaf_pa(const struct mm_pagetable *pt, uint64_t e, unsigned level,
                                      uint64_t off)
{
    uint64_t inside = mmi_pt_size(pt, level) - 1;
    if (mmi_ptf_contig_ppn(pt) != 0 && (e & mmi_ptf_contig(pt)) != 0 && level == 0)
        inside = (UINT64_C(16) << MM_PAGETABLE_SHIFT) - 1;
    return (mmi_pt_table_pa(pt, e) & ~inside) | (off & inside);
}

/* The address without its extension, and with it. */
MM_CORE_INLINE uint64_t mmi_pt_offset(const struct mm_pagetable *pt, mm_va_t va)
{
    return va & (mmi_pt_space(pt) - 1);
}
MM_CORE_INLINE mm_va_t mmi_pt_va(const struct mm_pagetable *pt, uint64_t off)
{
    if (mmi_ptf_canonical(pt) == MM_PAGETABLE_SIGN_EXTENDED)
        return (off ^ (mmi_pt_space(pt) >> 1)) - (mmi_pt_space(pt) >> 1);
    if (mmi_ptf_canonical(pt) == MM_PAGETABLE_TWO_TABLES &&
        (pt->flags & MM_PAGETABLE_HIGH_HALF) != 0)
        return off | ~(mmi_pt_space(pt) - 1);
    return off;
}

/* Is this an address at all? */
MM_CORE_INLINE bool mmi_pt_exists(const struct mm_pagetable *pt, mm_va_t va)
{
    unsigned bits = mmi_ptf_va_bits(pt);
    if (mmi_ptf_canonical(pt) == MM_PAGETABLE_SIGN_EXTENDED)
        return mmi_pt_shr(va + (mmi_pt_space(pt) >> 1), bits) == 0;
    if (mmi_ptf_canonical(pt) == MM_PAGETABLE_TWO_TABLES &&
        (pt->flags & MM_PAGETABLE_HIGH_HALF) != 0)
        return mmi_pt_shr(~va, bits) == 0;
    return mmi_pt_shr(va, bits) == 0;
}

/* Index of the root's entry for `va`. Is `va` an address at all? */
MM_CORE_INLINE bool mmi_pt_top_index(const struct mm_pagetable *pt, mm_va_t va, uint64_t *index)
{
    unsigned root = mmi_ptf_levels(pt) - 1;
    uint64_t half = mmi_pt_entries(pt, root) / 2;

    if (mmi_ptf_canonical(pt) == MM_PAGETABLE_SIGN_EXTENDED) { /* both in one shift */
        *index = mmi_pt_shr(va + (mmi_pt_space(pt) >> 1), mmi_pt_shift(pt, root));
        if (MM_UNLIKELY(*index >= 2 * half))
            return false;
        *index ^= half;
        return true;
    }
    *index = mmi_pt_index(pt, va, root);
    return mmi_pt_exists(pt, va);
}

/* The same for an entry above level 0, in one test where there is one: x86's P and PS, RISC-V's V
 * without R, W and X. */
MM_CORE_INLINE bool mmi_pt_leads_on(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    if (mmi_ptf_present(pt) == 1 && mmi_ptf_leaf_mask(pt) == 0x80)
        return (int8_t)((uint8_t)e & 0x81) > 0;
#ifdef MMI_PT_ONE
    if (mmi_ptf_present(pt) == 1 && mmi_ptf_leaf_mask(pt) == 0xe)
        return ((e - 1) & 0xf) == 0;
#endif
    return mmi_pt_is_table(pt, e, level);
}

/* One level of a walk: loads the entry `index` from the table at *pa. True if the walk ends with
 * it: a leaf, or nothing; else *pa is the next table. */
MMI_PT_INLINE bool mmi_pt_step(const struct mm_pagetable *pt, uint64_t index, unsigned level,
                               mm_pa_t *pa, uint64_t *e)
{
    void *table = MM_PAGETABLE_OPEN(pt, *pa);
    *e = mmi_pt_load(pt, table, index);
    MM_PAGETABLE_CLOSE(pt, table);
    if (level == 0 || MM_UNLIKELY(!mmi_pt_leads_on(pt, *e, level)))
        return true;
#if defined(__x86_64__) && defined(__LP64__)
    if (mmi_ptf_ppn_shift(pt) == MM_PAGETABLE_SHIFT) { /* in place: gcc would copy it before */
        uint64_t next = *e;
        __asm__("and{q}\t{%1, %0|%0, %1}" : "+r"(next) : "r"(mmi_ptf_pa_mask(pt)) : "cc");
        *pa = next;
        return false;
    }
#endif
    *pa = mmi_pt_table_pa(pt, *e);
    return false;
}

MM_CORE_INLINE mm_pa_t mmi_pt_translated(const struct mm_pagetable *pt, uint64_t e, unsigned level,
                                         mm_va_t va)
{
    if (MM_UNLIKELY(!mmi_pt_present(pt, e) || (mmi_ptf_leaf_levels(pt) >> level & 1u) == 0)) {
        __asm__ __volatile__(""); /* else gcc makes a conditional move of it, for all to wait for */
        return MM_PA_NONE;
    }
    return mmi_pt_leaf_pa(pt, e, level, va);
}

/* x86_64, four levels: four loads, forty instructions in all. */
MM_PAGETABLE_INLINE mm_pa_t mm_pagetable_translate(const struct mm_pagetable *pt, mm_va_t va)
{
    mm_pa_t pa = pt->root;
    uint64_t e, top;

    if (MM_UNLIKELY(!mmi_pt_top_index(pt, va, &top)))
        return MM_PA_NONE;
#define MMI_PT_LEVEL(level)                                                                        \
    if (mmi_ptf_levels(pt) > (level) &&                                                            \
        MM_UNLIKELY(                                                                               \
            mmi_pt_step(pt, mmi_ptf_levels(pt) == (level) + 1 ? top : mmi_pt_index(pt, va, level), \
                        (level), &pa, &e)))                                                        \
        return mmi_pt_translated(pt, e, (level), va);
    MMI_PT_LEVEL(4)
    MMI_PT_LEVEL(3)
    MMI_PT_LEVEL(2)
    MMI_PT_LEVEL(1)
#undef MMI_PT_LEVEL
    (void)mmi_pt_step(pt, mmi_pt_index(pt, va, 0), 0, &pa, &e);
    return mmi_pt_translated(pt, e, 0, va);
}

/* Begins to load the entry of level `to`, a constant, for `va`, if its table is there. */
MMI_PT_INLINE void mmi_pt_prefetch_to(const struct mm_pagetable *pt, mm_va_t va, unsigned to)
{
    mm_pa_t pa = pt->root;
    uint64_t e;
    char *table;

#define MMI_PT_LEVEL(level)                                                            \
    if (mmi_ptf_levels(pt) > (level) && to < (level) &&                                \
        MM_UNLIKELY(mmi_pt_step(pt, mmi_pt_index(pt, va, (level)), (level), &pa, &e))) \
        return;
    MMI_PT_LEVEL(4)
    MMI_PT_LEVEL(3)
    MMI_PT_LEVEL(2)
    MMI_PT_LEVEL(1)
#undef MMI_PT_LEVEL
    table = (char *)MM_PAGETABLE_OPEN(pt, pa);
    __builtin_prefetch(
        table + (size_t)mmi_pt_shl(mmi_pt_index(pt, va, to), mmi_ptf_entry_shift(pt)), 1);
    MM_PAGETABLE_CLOSE(pt, table);
}

/* The walk of mm_pagetable_translate, but for the last load. */
MM_PAGETABLE_INLINE void mm_pagetable_prefetch(const struct mm_pagetable *pt, mm_va_t va)
{
    mmi_pt_prefetch_to(pt, va, 0);
}

#ifdef __cplusplus
}
#endif

#endif /* MM_PAGETABLE_H */

/* ============================================================================================ */

#if defined(MM_PAGETABLE_IMPLEMENTATION) && !defined(MM_PAGETABLE_IMPLEMENTED)
#define MM_PAGETABLE_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(MM_PAGETABLE_STATIC) && !defined(__cplusplus)
extern inline mm_pa_t mm_pagetable_translate(const struct mm_pagetable *pt, mm_va_t va);
extern inline void mm_pagetable_prefetch(const struct mm_pagetable *pt, mm_va_t va);
#elif !defined(MM_PAGETABLE_STATIC)
/* C++ emits an inline function only where it is used; other languages link to it. */
typedef mm_pa_t (*mmi_pt_emit_t)(const struct mm_pagetable *, mm_va_t);
typedef void (*mmi_pt_emit_prefetch_t)(const struct mm_pagetable *, mm_va_t);
extern const mmi_pt_emit_t mmi_pt_emit;
extern const mmi_pt_emit_prefetch_t mmi_pt_emit_prefetch;
const mmi_pt_emit_t mmi_pt_emit = mm_pagetable_translate;
const mmi_pt_emit_prefetch_t mmi_pt_emit_prefetch = mm_pagetable_prefetch;
#endif

/* For what is to fold where an argument is a constant. */
#define MMI_PT_FOLDED static inline __attribute__((always_inline))

/* ---- Formats: descriptors ------------------------------------------------------------------- */

#define MMI_PT_VALUE(field, value) value,
#define MMI_PT_DESCRIBE(name, list)                                  \
    static const struct mm_pagetable_format mmi_pt_format_##list = { \
        MMI_PT_##list(MMI_PT_VALUE, MMI_PT_VALUE) name}
#ifdef MM_PAGETABLE_X86_64
MMI_PT_DESCRIBE("x86_64", X86_64);
#endif
#ifdef MM_PAGETABLE_X86_64_LA57
MMI_PT_DESCRIBE("x86_64-la57", X86_64_LA57);
#endif
#ifdef MM_PAGETABLE_SV32
MMI_PT_DESCRIBE("sv32", SV32);
#endif
#ifdef MM_PAGETABLE_SV39
MMI_PT_DESCRIBE("sv39", SV39);
#endif
#ifdef MM_PAGETABLE_SV48
MMI_PT_DESCRIBE("sv48", SV48);
#endif
#ifdef MM_PAGETABLE_SV57
MMI_PT_DESCRIBE("sv57", SV57);
#endif
#ifdef MM_PAGETABLE_EPT
MMI_PT_DESCRIBE("ept", EPT);
#endif
#ifdef MM_PAGETABLE_NPT
MMI_PT_DESCRIBE("npt", NPT);
#endif
#ifdef MM_PAGETABLE_SV39X4
MMI_PT_DESCRIBE("sv39x4", SV39X4);
#endif
#ifdef MM_PAGETABLE_SV48X4
MMI_PT_DESCRIBE("sv48x4", SV48X4);
#endif
#ifdef MM_PAGETABLE_SV57X4
MMI_PT_DESCRIBE("sv57x4", SV57X4);
#endif
#ifdef MM_PAGETABLE_AARCH64_S1
MMI_PT_DESCRIBE("aarch64-s1", AARCH64_S1);
#endif
#ifdef MM_PAGETABLE_AARCH64_S2
MMI_PT_DESCRIBE("aarch64-s2", AARCH64_S2);
#endif
#undef MMI_PT_DESCRIBE
#undef MMI_PT_VALUE

MM_PAGETABLE_API const struct mm_pagetable_format *mm_pagetable_format_of(enum mm_pagetable_id id)
{
    switch ((int)id) {
#ifdef MM_PAGETABLE_X86_64
    case MM_PAGETABLE_ID_X86_64:
        return &mmi_pt_format_X86_64;
#endif
#ifdef MM_PAGETABLE_X86_64_LA57
    case MM_PAGETABLE_ID_X86_64_LA57:
        return &mmi_pt_format_X86_64_LA57;
#endif
#ifdef MM_PAGETABLE_SV32
    case MM_PAGETABLE_ID_SV32:
        return &mmi_pt_format_SV32;
#endif
#ifdef MM_PAGETABLE_SV39
    case MM_PAGETABLE_ID_SV39:
        return &mmi_pt_format_SV39;
#endif
#ifdef MM_PAGETABLE_SV48
    case MM_PAGETABLE_ID_SV48:
        return &mmi_pt_format_SV48;
#endif
#ifdef MM_PAGETABLE_SV57
    case MM_PAGETABLE_ID_SV57:
        return &mmi_pt_format_SV57;
#endif
#ifdef MM_PAGETABLE_EPT
    case MM_PAGETABLE_ID_EPT:
        return &mmi_pt_format_EPT;
#endif
#ifdef MM_PAGETABLE_NPT
    case MM_PAGETABLE_ID_NPT:
        return &mmi_pt_format_NPT;
#endif
#ifdef MM_PAGETABLE_SV39X4
    case MM_PAGETABLE_ID_SV39X4:
        return &mmi_pt_format_SV39X4;
#endif
#ifdef MM_PAGETABLE_SV48X4
    case MM_PAGETABLE_ID_SV48X4:
        return &mmi_pt_format_SV48X4;
#endif
#ifdef MM_PAGETABLE_SV57X4
    case MM_PAGETABLE_ID_SV57X4:
        return &mmi_pt_format_SV57X4;
#endif
#ifdef MM_PAGETABLE_AARCH64_S1
    case MM_PAGETABLE_ID_AARCH64_S1:
        return &mmi_pt_format_AARCH64_S1;
#endif
#ifdef MM_PAGETABLE_AARCH64_S2
    case MM_PAGETABLE_ID_AARCH64_S2:
        return &mmi_pt_format_AARCH64_S2;
#endif
    default:
        return NULL;
    }
}

/* ---- Entries -------------------------------------------------------------------------------- */

/* A software entry is not present and has bit 6; its value stands from bit 12 up. */
#define MMI_PT_SWAP_MARK  UINT64_C(0x40)
#define MMI_PT_SWAP_SHIFT 12

/* Notes of the root's entries (I2). */
#define MMI_PT_BORROWED 0u
#define MMI_PT_OWN      1u
#define MMI_PT_LENT     2u

#define MMI_PT_EXECS (MM_PAGETABLE_EXEC | MM_PAGETABLE_EXEC_USER)
#define MMI_PT_AD    (MM_PAGETABLE_ACCESSED | MM_PAGETABLE_DIRTY)

static inline unsigned mmi_pt_note(const struct mm_pagetable *pt, uint64_t e)
{
    return (unsigned)mmi_pt_shr(e, mmi_ptf_note_shift(pt)) & ((1u << mmi_ptf_note_bits(pt)) - 1);
}

/* Byte n of a word. */
static inline unsigned mmi_pt_byte(uint64_t word, unsigned n)
{
    return (unsigned)mmi_pt_shr(word, 8 * n) & 0xffu;
}

static inline uint64_t mmi_pt_with_note(const struct mm_pagetable *pt, uint64_t e, unsigned note)
{
    unsigned shift = mmi_ptf_note_shift(pt);
    return (e & ~mmi_pt_shl((1u << mmi_ptf_note_bits(pt)) - 1, shift)) | mmi_pt_shl(note, shift);
}

static inline uint64_t mmi_pt_pa_field(const struct mm_pagetable *pt, mm_pa_t pa)
{
    return mmi_pt_shl(pa >> MM_PAGETABLE_SHIFT, mmi_ptf_ppn_shift(pt));
}

static inline uint64_t mmi_pt_table_entry(const struct mm_pagetable *pt, mm_pa_t pa, unsigned note)
{
    return mmi_pt_with_note(pt, mmi_pt_pa_field(pt, pa) | mmi_ptf_table(pt), note);
}

static inline unsigned mmi_pt_root_level(const struct mm_pagetable *pt)
{
    return mmi_ptf_levels(pt) - 1;
}

/* Does a table's number of entries stand beside it? Every number fits into ten bits of a note. */
static inline bool mmi_pt_apart(const struct mm_pagetable *pt)
{
#ifdef MM_PAGETABLE_COUNT
    return mmi_ptf_note_bits(pt) < 10;
#else
    (void)pt;
    return false;
#endif
}

/* Where it stands there. */
static inline uint16_t *mmi_pt_beside(const struct mm_pagetable *pt, mm_pa_t pa)
{
    (void)pt;
#ifdef MM_PAGETABLE_COUNT
    return &MM_PAGETABLE_COUNT(pt, pa);
#else
    (void)pa;
    return NULL;
#endif
}

/* The number of entries that makes no claim. */
static inline unsigned mmi_pt_no_claim(const struct mm_pagetable *pt)
{
    return mmi_pt_apart(pt) ? UINT16_MAX : (1u << mmi_ptf_note_bits(pt)) - 1;
}

/* Says the note of an entry below the root that the number beside the table makes no claim? Then
 * its line is left alone. */
static inline bool mmi_pt_unclaimed(const struct mm_pagetable *pt, uint64_t e)
{
    return mmi_pt_note(pt, e) == (1u << mmi_ptf_note_bits(pt)) - 1;
}

/* Do tables below entries of this level have a number? */
static inline bool mmi_pt_counted(const struct mm_pagetable *pt, unsigned level)
{
    return mmi_pt_apart(pt) || level != mmi_pt_root_level(pt);
}

/* How many entries the table has that `e`, of such a level, leads to. */
static inline unsigned mmi_pt_count(const struct mm_pagetable *pt, uint64_t e)
{
    if (!mmi_pt_apart(pt))
        return mmi_pt_note(pt, e);
    return mmi_pt_unclaimed(pt, e) ? UINT16_MAX : *mmi_pt_beside(pt, mmi_pt_table_pa(pt, e));
}

/* An entry of this level for a new table that has `count` entries. */
static inline uint64_t mmi_pt_entry_of(const struct mm_pagetable *pt, unsigned level, mm_pa_t pa,
                                       uint64_t count)
{
    unsigned most = mmi_pt_no_claim(pt), note = MMI_PT_OWN;
    bool claims = (pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0 && count < most;

    if (mmi_pt_apart(pt) && (claims || level == mmi_pt_root_level(pt)))
        *mmi_pt_beside(pt, pa) = (uint16_t)(claims ? count : most);
    else if (level != mmi_pt_root_level(pt))
        note = claims ? (unsigned)count : (1u << mmi_ptf_note_bits(pt)) - 1;
    return mmi_pt_table_entry(pt, pa, note);
}

/* Is the table of this entry lent to others? */
static inline bool mmi_pt_lent(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    return level == mmi_pt_root_level(pt) && mmi_pt_note(pt, e) == MMI_PT_LENT;
}

static inline uint64_t mmi_pt_step_of(const struct mm_pagetable *pt, unsigned level)
{
    return mmi_pt_pa_field(pt, mmi_pt_size(pt, level));
}

static inline bool mmi_pt_is_leaf(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    return mmi_pt_present(pt, e) && !mmi_pt_is_table(pt, e, level);
}

static inline uint64_t mmi_pt_table_bytes(const struct mm_pagetable *pt, unsigned level)
{
    return mmi_pt_shl(mmi_pt_entries(pt, level), mmi_ptf_entry_shift(pt));
}

/* A store that readers and hardware may see. Neighbours in one table are stored with relaxed order;
 * mmi_pt_link publishes a table. */
static inline void mmi_pt_store_order(const struct mm_pagetable *pt, void *table, uint64_t index,
                                      uint64_t e, bool release)
{
    if (mmi_ptf_entry_shift(pt) == 2) {
        if (release)
            __atomic_store_n((mmi_pt_u32 *)table + index, (uint32_t)e, __ATOMIC_RELEASE);
        else
            __atomic_store_n((mmi_pt_u32 *)table + index, (uint32_t)e, __ATOMIC_RELAXED);
        return;
    }
#if MM_WORD_BITS == 64
    if (release)
        __atomic_store_n((mmi_pt_u64 *)table + index, e, __ATOMIC_RELEASE);
    else
        __atomic_store_n((mmi_pt_u64 *)table + index, e, __ATOMIC_RELAXED);
#else
    {
        mmi_pt_u32 *half = (mmi_pt_u32 *)table + 2 * (size_t)index;
        __atomic_store_n(half, 0, __ATOMIC_RELAXED);
        __atomic_store_n(half + 1, (uint32_t)(e >> 32), __ATOMIC_RELEASE);
        __atomic_store_n(half, (uint32_t)e, __ATOMIC_RELEASE);
    }
#endif
}

static inline void mmi_pt_store(const struct mm_pagetable *pt, void *table, uint64_t index,
                                uint64_t e)
{
    mmi_pt_store_order(pt, table, index, e, false);
}

static inline void mmi_pt_link(const struct mm_pagetable *pt, void *table, uint64_t index,
                               uint64_t e)
{
    mmi_pt_store_order(pt, table, index, e, true);
}

/* Stores a table entry that differs from the one that stands there by its note. It stays present
 * meanwhile: hosts of 32 bits store the half that has the note. */
static inline void mmi_pt_replace_note(const struct mm_pagetable *pt, void *table, uint64_t index,
                                       uint64_t e)
{
#if MM_WORD_BITS == 64
    mmi_pt_store(pt, table, index, e);
#else
    if (mmi_ptf_entry_shift(pt) == 2)
        mmi_pt_store(pt, table, index, e);
    else if (mmi_ptf_note_shift(pt) >= 32)
        __atomic_store_n((mmi_pt_u32 *)table + 2 * (size_t)index + 1, (uint32_t)(e >> 32),
                         __ATOMIC_RELAXED);
    else
        __atomic_store_n((mmi_pt_u32 *)table + 2 * (size_t)index, (uint32_t)e, __ATOMIC_RELAXED);
#endif
}

static inline void mmi_pt_set_note(const struct mm_pagetable *pt, void *table, uint64_t index,
                                   uint64_t e, unsigned note)
{
    mmi_pt_replace_note(pt, table, index, mmi_pt_with_note(pt, e, note));
}

/* The table that `e` leads to, entry `index` of `table`, has `count` entries now. */
static inline void mmi_pt_set_count(const struct mm_pagetable *pt, void *table, uint64_t index,
                                    uint64_t e, unsigned count)
{
    unsigned note = count;

    if (mmi_pt_apart(pt)) {
        *mmi_pt_beside(pt, mmi_pt_table_pa(pt, e)) = (uint16_t)count;
        if (MM_LIKELY(!mmi_pt_unclaimed(pt, e)))
            return;
        note = MMI_PT_OWN;
    }
    mmi_pt_set_note(pt, table, index, e, note);
}

/* A store into a table that nobody else sees yet. */
static inline void mmi_pt_fill(const struct mm_pagetable *pt, void *table, uint64_t index,
                               uint64_t e)
{
    if (mmi_ptf_entry_shift(pt) == 2)
        ((mmi_pt_u32 *)table)[index] = (uint32_t)e;
    else
        ((mmi_pt_u64 *)table)[index] = e;
}

/* Puts `next` in the place of `old`; false if the entry is another one by now. On hosts of 32 bits
 * the bits that hardware sets are all in the low half. */
static bool mmi_pt_cas(const struct mm_pagetable *pt, void *table, uint64_t index, uint64_t old,
                       uint64_t next)
{
    if (mmi_ptf_entry_shift(pt) == 2) {
        uint32_t expected = (uint32_t)old;
        return __atomic_compare_exchange_n((mmi_pt_u32 *)table + index, &expected, (uint32_t)next,
                                           false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
#if MM_WORD_BITS == 64
    return __atomic_compare_exchange_n((mmi_pt_u64 *)table + index, &old, next, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
#else
    {
        mmi_pt_u32 *half = (mmi_pt_u32 *)table + 2 * (size_t)index;
        uint32_t expected = (uint32_t)old;
        if (!__atomic_compare_exchange_n(half, &expected,
                                         (uint32_t)(old >> 32 == next >> 32 ? next : 0), false,
                                         __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return false;
        if (old >> 32 != next >> 32)
            mmi_pt_store(pt, table, index, next);
        return true;
    }
#endif
}

/* May hardware change this leaf by itself (I6)? */
static inline bool mmi_pt_unsteady(const struct mm_pagetable *pt, uint64_t e)
{
    if ((e & mmi_ptf_accessed(pt)) == 0)
        return true;
    if (((e ^ mmi_ptf_base(pt)) & mmi_ptf_write(pt)) == 0)
        return false;
    if (mmi_ptf_hw_write(pt) == 0)
        return (e & mmi_ptf_dirty(pt)) == 0;
    /* AArch64: a clean entry that DBM lets hardware make dirty */
    return ((e ^ mmi_ptf_base(pt)) & mmi_ptf_hw_write(pt)) == 0;
}

/* The entry in the form of level 0 (where PAT is bit 7), and back. */
static inline uint64_t mmi_pt_flat(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    if (level == 0)
        return e;
    e ^= mmi_ptf_big_xor(pt);
    if ((e & mmi_ptf_big_pat(pt)) != 0)
        e = (e & ~mmi_ptf_big_pat(pt)) | 0x80;
    return e;
}

static inline uint64_t mmi_pt_raised(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    if (level == 0)
        return e;
    if (mmi_ptf_big_pat(pt) != 0 && (e & 0x80) != 0)
        e = (e & ~UINT64_C(0x80)) | mmi_ptf_big_pat(pt);
    return e ^ mmi_ptf_big_xor(pt);
}

/* ---- Attributes ----------------------------------------------------------------------------- */

static uint64_t mmi_pt_toggle(uint64_t bits, uint32_t attr, uint32_t flag, uint64_t with)
{
    return (attr & flag) != 0 ? bits ^ with : bits;
}

/* Bits that differ from the base for these execute permissions; false if they do not exist. */
static bool mmi_pt_encode_exec(const struct mm_pagetable *pt, uint32_t attr, uint64_t *bits)
{
    uint64_t user = mmi_ptf_exec_user(pt);

    if ((pt->flags & MM_PAGETABLE_NX) == 0 && (mmi_ptf_features(pt) & MM_PAGETABLE_NX) != 0 &&
        (attr & MM_PAGETABLE_EXEC) == 0)
        return false;
    if ((mmi_ptf_features(pt) & MM_PAGETABLE_MODE_EXEC) != 0) {
        if ((pt->flags & MM_PAGETABLE_MODE_EXEC) == 0) {
            if ((attr & MM_PAGETABLE_EXEC_USER) != 0)
                return false;
            *bits = mmi_pt_toggle(*bits, attr, MM_PAGETABLE_EXEC, mmi_ptf_exec(pt) ^ user);
            return true;
        }
        *bits = mmi_pt_toggle(*bits, attr, MM_PAGETABLE_EXEC_USER, user);
        *bits = mmi_pt_toggle(*bits, attr, MM_PAGETABLE_EXEC, mmi_ptf_exec(pt));
        return true;
    }
    /* AArch64 stage 1: UXN of a user's page, PXN of the kernel's */
    if (user != 0 && (attr & MM_PAGETABLE_USER) != 0)
        *bits = mmi_pt_toggle(*bits, attr, MM_PAGETABLE_EXEC, user);
    else
        *bits = mmi_pt_toggle(*bits, attr, MM_PAGETABLE_EXEC, mmi_ptf_exec(pt));
    return true;
}

/* Is this combination of read, write and execute one that the format and the policy have? */
static bool mmi_pt_legal(const struct mm_pagetable *pt, uint32_t attr)
{
    unsigned rwx = (attr & 3u) | ((attr & MMI_PT_EXECS) != 0 ? 4u : 0u);

    if ((mmi_ptf_legal(pt) >> rwx & 1u) == 0)
        return false;
    if (rwx == 4 && (mmi_ptf_features(pt) & ~pt->flags & MM_PAGETABLE_EXEC_ONLY) != 0)
        return false;
    return (pt->flags & MM_PAGETABLE_W_XOR_X) == 0 || (rwx & 6u) != 6;
}

/* Do type, key and shareability exist? */
static bool mmi_pt_typed(const struct mm_pagetable *pt, uint32_t attr)
{
    unsigned type = (attr >> 8) & 7u;

    if (type >= MM_PAGETABLE_TYPE_COUNT || pt->type_bits[type] == ~UINT64_C(0))
        return false;
    if ((attr & MM_PAGETABLE_KEYS) != 0 && (pt->flags & MM_PAGETABLE_PKEYS) == 0)
        return false;
    return (attr & MM_PAGETABLE_NOT_SHARED) != (2u << 24);
}

/* AArch64: hardware may write when the page is writable and dirty. */
static uint64_t mmi_pt_sealed(const struct mm_pagetable *pt, uint64_t e)
{
    uint64_t both = mmi_ptf_write(pt) | mmi_ptf_dirty(pt), hw = mmi_ptf_hw_write(pt);
    if (hw == 0)
        return e;
    e = (e & ~hw) | (mmi_ptf_base(pt) & hw);
    return (e & both) == both ? e ^ hw : e;
}

/* What hardware has made dirty stands in its own bit: then it goes to the dirty bit. */
static uint64_t mmi_pt_settled(const struct mm_pagetable *pt, uint64_t e)
{
    uint64_t hw = mmi_ptf_hw_write(pt);
    if (hw != 0 && (e & mmi_ptf_write(pt)) != 0 && ((e ^ mmi_ptf_base(pt)) & hw) != 0)
        e |= mmi_ptf_dirty(pt);
    return e;
}

/* The leaf of level 0 with these attributes, without an address. */
static enum mm_status mmi_pt_encode(const struct mm_pagetable *pt, uint32_t attr, uint64_t *leaf)
{
    uint64_t e = mmi_ptf_base(pt);

    if ((attr & ~mmi_ptf_attrs(pt)) != 0 || !mmi_pt_legal(pt, attr) || !mmi_pt_typed(pt, attr) ||
        !mmi_pt_encode_exec(pt, attr, &e))
        return MM_ERR_INVALID;
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_READ, mmi_ptf_read(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_WRITE, mmi_ptf_write(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_USER, mmi_ptf_user(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_GLOBAL, mmi_ptf_global(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_ACCESSED, mmi_ptf_accessed(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_DIRTY, mmi_ptf_dirty(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_COW, mmi_ptf_cow(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_SOFT0, mmi_ptf_soft0(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_SOFT1, mmi_ptf_soft1(pt));
    e = mmi_pt_toggle(e, attr, MM_PAGETABLE_IGNORE_PAT, mmi_ptf_ignore_pat(pt));
    e ^= (uint64_t)(attr >> 24 & 3u) << 8 & mmi_ptf_share(pt);
    e |= pt->type_bits[(attr >> 8) & 7u];
    if (mmi_ptf_key_shift(pt) != 0)
        e |= mmi_pt_shl(MM_PAGETABLE_KEY_OF(attr), mmi_ptf_key_shift(pt));
    if (mmi_ptf_family(pt) != MM_PAGETABLE_FAMILY_X86 || (pt->flags & MM_PAGETABLE_NX) != 0)
        MM_PAGETABLE_ASSERT(mmi_pt_present(pt, e));
    *leaf = mmi_pt_sealed(pt, e);
    return MM_OK;
}

static uint32_t mmi_pt_decode_exec(const struct mm_pagetable *pt, uint64_t toggled, bool user_page)
{
    uint64_t exec = mmi_ptf_exec(pt), user = mmi_ptf_exec_user(pt), t = toggled & (exec | user);

    if ((mmi_ptf_features(pt) & MM_PAGETABLE_MODE_EXEC) != 0) {
        if ((pt->flags & MM_PAGETABLE_MODE_EXEC) == 0)
            return t == (exec ^ user) || t == exec ? MM_PAGETABLE_EXEC : 0;
        if (t == (exec ^ user))
            return MMI_PT_EXECS;
        return t == exec ? MM_PAGETABLE_EXEC : t == user ? MM_PAGETABLE_EXEC_USER : 0;
    }
    if (user != 0 && user_page)
        return (t & user) != 0 ? MM_PAGETABLE_EXEC : 0;
    return (t & exec) != 0 ? MM_PAGETABLE_EXEC : 0;
}

static uint32_t mmi_pt_decode_type(const struct mm_pagetable *pt, uint64_t e)
{
    uint64_t bits = e & mmi_ptf_type_mask(pt);
    unsigned type;
    for (type = 0; type < MM_PAGETABLE_TYPE_COUNT; type++)
        if (pt->type_bits[type] == bits)
            return MM_PAGETABLE_TYPE(type);
    if (mmi_ptf_coding(pt) == MM_PAGETABLE_PAT) /* another index of the same type */
        for (type = 0; type < MM_PAGETABLE_TYPE_COUNT; type++) {
            unsigned index = (unsigned)((bits >> 3 & 3) | (bits >> 5 & 4));
            if (mmi_pt_byte(pt->type_register, index) == mmi_pt_byte(mmi_ptf_types(pt), type))
                return MM_PAGETABLE_TYPE(type);
        }
    return MM_PAGETABLE_TYPE(MM_PAGETABLE_DEVICE);
}

static uint32_t mmi_pt_flag(uint64_t toggled, uint64_t bits, uint32_t flag)
{
    return (toggled & bits) != 0 ? flag : 0;
}

/* The attributes of a leaf. */
static uint32_t mmi_pt_decode(const struct mm_pagetable *pt, uint64_t leaf, unsigned level)
{
    uint64_t e = mmi_pt_settled(pt, mmi_pt_flat(pt, leaf, level)), t = e ^ mmi_ptf_base(pt);
    uint32_t attr = mmi_pt_flag(t, mmi_ptf_user(pt), MM_PAGETABLE_USER);

    attr |= mmi_pt_decode_exec(pt, t, attr != 0) | mmi_pt_decode_type(pt, e);
    if (mmi_ptf_read(pt) == 0 || (t & mmi_ptf_read(pt)) != 0)
        attr |= MM_PAGETABLE_READ;
    attr |= mmi_pt_flag(t, mmi_ptf_write(pt), MM_PAGETABLE_WRITE);
    attr |= mmi_pt_flag(t, mmi_ptf_global(pt), MM_PAGETABLE_GLOBAL);
    attr |= mmi_pt_flag(t, mmi_ptf_accessed(pt), MM_PAGETABLE_ACCESSED);
    attr |= mmi_pt_flag(t, mmi_ptf_dirty(pt), MM_PAGETABLE_DIRTY);
    attr |= mmi_pt_flag(t, mmi_ptf_cow(pt), MM_PAGETABLE_COW);
    attr |= mmi_pt_flag(t, mmi_ptf_soft0(pt), MM_PAGETABLE_SOFT0);
    attr |= mmi_pt_flag(t, mmi_ptf_soft1(pt), MM_PAGETABLE_SOFT1);
    attr |= mmi_pt_flag(t, mmi_ptf_contig(pt), MM_PAGETABLE_CONTIG);
    attr |= mmi_pt_flag(t, mmi_ptf_ignore_pat(pt), MM_PAGETABLE_IGNORE_PAT);
    attr |= (uint32_t)((t & mmi_ptf_share(pt)) >> 8) << 24;
    if (mmi_ptf_key_shift(pt) != 0)
        attr |= MM_PAGETABLE_KEY(mmi_pt_shr(e, mmi_ptf_key_shift(pt)) & 15);
    return attr;
}

/* Bits of a level-0 leaf that a group of attributes occupies. */
static uint64_t mmi_pt_group_bits(const struct mm_pagetable *pt, uint32_t mask)
{
    uint64_t bits = 0;
    if ((mask & MM_PAGETABLE_PERMS) != 0)
        bits |= mmi_ptf_read(pt) | mmi_ptf_write(pt) | mmi_ptf_exec(pt) | mmi_ptf_user(pt) |
                mmi_ptf_exec_user(pt) | mmi_ptf_global(pt);
    if ((mask & MM_PAGETABLE_TYPES) != 0)
        bits |= mmi_ptf_type_mask(pt);
    if ((mask & MM_PAGETABLE_SOFTS) != 0)
        bits |= mmi_ptf_cow(pt) | mmi_ptf_soft0(pt) | mmi_ptf_soft1(pt);
    if ((mask & MM_PAGETABLE_KEYS) != 0 && mmi_ptf_key_shift(pt) != 0)
        bits |= mmi_pt_shl(15, mmi_ptf_key_shift(pt));
    return bits;
}

/* ---- Refusals, ranges, locks ----------------------------------------------------------------- */

static enum mm_status mmi_pt_refuse(const struct mm_pagetable *pt, const char *where,
                                    const char *what, enum mm_status status, mm_va_t va)
{
#if MM_PAGETABLE_DEBUG >= 1
    struct mm_report report;
    report.where = where;
    report.what = what;
    report.status = status;
    report.address = va;
    report.object = pt;
    MM_PAGETABLE_REPORT(&report);
#else
    (void)pt;
    (void)where;
    (void)what;
    (void)va;
#endif
    return status;
}

/* Is this a range of whole pages that exist? Gives it without its extension. */
static inline enum mm_status mmi_pt_range(const struct mm_pagetable *pt, const char *where,
                                          mm_va_t va, uint64_t bytes, uint64_t *off, uint64_t *end)
{
    uint64_t first = mmi_pt_offset(pt, va), size = mmi_pt_space(pt);

    if (bytes == mmi_pt_size(pt, 0) && (va & (bytes - 1)) == 0 && mmi_pt_exists(pt, va)) {
        *off = first;
        *end = first + bytes;
        return MM_OK;
    }
    if (bytes == 0 || mmi_pt_va(pt, first) != va)
        return mmi_pt_refuse(pt, where, "no such address", MM_ERR_INVALID, va);
    if (((va | bytes) & (mmi_pt_size(pt, 0) - 1)) != 0)
        return mmi_pt_refuse(pt, where, "misaligned", MM_ERR_ALIGN, va);
    /* a range may not wrap, nor reach from one half over the hole into the other */
    if (bytes > size - first || mmi_pt_va(pt, first + bytes - 1) != va + (bytes - 1))
        return mmi_pt_refuse(pt, where, "beyond the address space", MM_ERR_INVALID, va);
    *off = first;
    *end = first + bytes;
    return MM_OK;
}

static void mmi_pt_lock_some(struct mm_pagetable *pt, uint64_t off, uint64_t end,
                             struct mmi_pt_held *held)
{
    unsigned shift = mmi_pt_shift(pt, mmi_pt_root_level(pt)), i;
    uint64_t first = mmi_pt_shr(off, shift), count = mmi_pt_shr(end - 1, shift) - first + 1, k;

    held->which = 0;
    for (k = 0; k < count && k < pt->lock_count; k++)
        held->which |= (uint32_t)1 << ((uint32_t)(first + k) % pt->lock_count);
    for (i = 0; i < pt->lock_count; i++)
        if ((held->which >> i & 1u) != 0)
            MM_PAGETABLE_LOCK(&pt->locks[i], held->state[i]);
}

/* Locks the table, or the top-level entries of [off, end), from low to high. */
static inline void mmi_pt_lock(struct mm_pagetable *pt, uint64_t off, uint64_t end,
                               struct mmi_pt_held *held)
{
    if (pt->lock_count == 0)
        MM_PAGETABLE_LOCK(&pt->lock, held->state[0]);
    else
        mmi_pt_lock_some(pt, off, end, held);
}

static void mmi_pt_unlock_some(struct mm_pagetable *pt, struct mmi_pt_held *held)
{
    unsigned i;

    for (i = pt->lock_count; i-- > 0;)
        if ((held->which >> i & 1u) != 0)
            MM_PAGETABLE_UNLOCK(&pt->locks[i], held->state[i]);
}

static inline void mmi_pt_unlock(struct mm_pagetable *pt, struct mmi_pt_held *held)
{
    if (pt->lock_count == 0)
        MM_PAGETABLE_UNLOCK(&pt->lock, held->state[0]);
    else
        mmi_pt_unlock_some(pt, held);
}

/* ---- Iterator ------------------------------------------------------------------------------- */

static void *mmi_pt_open(const struct mm_pagetable *pt, mm_pa_t table)
{
    (void)pt;
    return MM_PAGETABLE_OPEN(pt, table);
}

static void mmi_pt_close(const struct mm_pagetable *pt, void *table)
{
    (void)pt;
    if (table != NULL)
        MM_PAGETABLE_CLOSE(pt, table);
}

/* Stands at `off` in a table of level `top` at physical address `table`. */
static void mmi_pt_begin_at(struct mmi_pt_iter *it, struct mm_pagetable *pt, mm_pa_t table,
                            unsigned top, uint64_t off, uint64_t end)
{
    it->pt = pt;
    it->off = off;
    it->end = end;
    it->level = top;
    it->top = top;
    it->table[0] = NULL; /* for compilers that warn */
    it->table[top] = mmi_pt_open(pt, table);
}

static void mmi_pt_begin(struct mmi_pt_iter *it, struct mm_pagetable *pt, uint64_t off,
                         uint64_t end)
{
    mmi_pt_begin_at(it, pt, pt->root, mmi_pt_root_level(pt), off, end);
}

/* For those who only read. */
static void mmi_pt_begin_reading(struct mmi_pt_iter *it, const struct mm_pagetable *pt,
                                 uint64_t off, uint64_t end)
{
    mmi_pt_begin(it, (struct mm_pagetable *)(uintptr_t)pt, off, end);
}

static void mmi_pt_down(struct mmi_pt_iter *it, mm_pa_t table)
{
    it->table[--it->level] = mmi_pt_open(it->pt, table);
}

/* Goes down into a table that is not there yet. */
static void mmi_pt_down_nowhere(struct mmi_pt_iter *it)
{
    it->table[--it->level] = NULL;
}

static void mmi_pt_up(struct mmi_pt_iter *it)
{
    mmi_pt_close(it->pt, it->table[it->level]);
    it->level++;
}

/* Closes what is open below this level. */
static inline void mmi_pt_close_below(const struct mmi_pt_iter *it, unsigned top)
{
    unsigned level;
    for (level = it->level; level < top; level++)
        mmi_pt_close(it->pt, it->table[level]);
}

/* Closes what is open. */
static inline void mmi_pt_leave(struct mmi_pt_iter *it)
{
    mmi_pt_close_below(it, it->top + 1);
}

/* First offset behind the table that the iterator stands in, or the end of the range. */
static uint64_t mmi_pt_table_end(const struct mmi_pt_iter *it)
{
    uint64_t end;
    if (it->level == mmi_pt_root_level(it->pt))
        return it->end;
    end = (it->off | (mmi_pt_size(it->pt, it->level + 1) - 1)) + 1;
    return end < it->end ? end : it->end;
}

/* Has the iterator, moved to `off`, left its table? */
static bool mmi_pt_outside(const struct mmi_pt_iter *it, uint64_t was)
{
    return it->level < it->top &&
           (it->off >= it->end || (it->off ^ was) >= mmi_pt_size(it->pt, it->level + 1));
}

/* Moves to `off`, and up out of the tables that end before it. */
static void mmi_pt_move(struct mmi_pt_iter *it, uint64_t off)
{
    uint64_t was = it->off;
    it->off = off;
    while (mmi_pt_outside(it, was))
        mmi_pt_up(it);
}

static uint64_t mmi_pt_here(const struct mmi_pt_iter *it)
{
    return mmi_pt_load(it->pt, it->table[it->level], mmi_pt_index(it->pt, it->off, it->level));
}

/* First offset behind the entry that the iterator stands at, or the end of the range. */
static uint64_t mmi_pt_entry_end(const struct mmi_pt_iter *it)
{
    uint64_t end = (it->off | (mmi_pt_size(it->pt, it->level) - 1)) + 1;
    return end < it->end ? end : it->end;
}

/* Goes down from the table of level `from`, a constant, to the entry that `off` ends with, which it
 * returns; *table: that of level 0. The same as mmi_pt_next_leaf, for those who want one page:
 * about nine instructions a level. */
MMI_PT_FOLDED uint64_t mmi_pt_descend_to(struct mmi_pt_iter *it, uint64_t off, unsigned from,
                                         void **table)
{
    const struct mm_pagetable *pt = it->pt;
    void *p = it->table[from];
    uint64_t e;

#define MMI_PT_LEVEL(l)                                     \
    if ((l) <= from) {                                      \
        e = mmi_pt_load(pt, p, mmi_pt_index(pt, off, (l))); \
        if (MM_UNLIKELY(!mmi_pt_leads_on(pt, e, (l)))) {    \
            it->level = (l);                                \
            return e;                                       \
        }                                                   \
        p = MM_PAGETABLE_OPEN(pt, mmi_pt_table_pa(pt, e));  \
        it->table[(l)-1] = p;                               \
    }
    MMI_PT_LEVEL(4)
    MMI_PT_LEVEL(3)
    MMI_PT_LEVEL(2)
    MMI_PT_LEVEL(1)
#undef MMI_PT_LEVEL
    it->level = 0;
    *table = p;
    return mmi_pt_load(pt, p, mmi_pt_index(pt, off, 0));
}

static inline uint64_t mmi_pt_descend(struct mmi_pt_iter *it)
{
    void *table;
    return mmi_pt_descend_to(it, it->off, mmi_pt_root_level(it->pt), &table);
}

/* Begins to load the first quarter of a table that is wanted soon: a processor's own looks ahead
 * end with a page, which a table is. */
static void mmi_pt_look_at(const struct mm_pagetable *pt, mm_pa_t pa)
{
#ifdef MM_PAGETABLE_WINDOWS /* a window costs more than what a look would save */
    (void)pt;
    (void)pa;
#else
    char *table = (char *)MM_PAGETABLE_OPEN(pt, pa);
    size_t at;

    (void)pt;
    for (at = 0; at < 1024; at += 64)
        __builtin_prefetch(table + at, 1);
    MM_PAGETABLE_CLOSE(pt, table);
#endif
}

/* The iterator came down to a table of leaves: the one behind it is next. */
static void mmi_pt_look_on(const struct mmi_pt_iter *it)
{
    const struct mm_pagetable *pt = it->pt;
    uint64_t next = it->off + mmi_pt_size(pt, 1), index = mmi_pt_index(pt, next, 1), e;

    if (it->level != 0 || next >= it->end || index == 0)
        return;
    e = mmi_pt_load(pt, it->table[1], index);
    if (mmi_pt_is_table(pt, e, 1))
        mmi_pt_look_at(pt, mmi_pt_table_pa(pt, e));
}

/* Goes down while there is a table at the iterator; returns the entry that is none. */
static uint64_t mmi_pt_bottom(struct mmi_pt_iter *it)
{
    uint64_t e = mmi_pt_here(it);

    while (mmi_pt_is_table(it->pt, e, it->level)) {
        mmi_pt_down(it, mmi_pt_table_pa(it->pt, e));
        e = mmi_pt_here(it);
    }
    return e;
}

/* The same, for those who go on from entry to entry. False at the end of the range. */
static bool mmi_pt_next_leaf(struct mmi_pt_iter *it, uint64_t *e)
{
    unsigned was = it->level;

    if (it->off >= it->end)
        return false;
    *e = mmi_pt_bottom(it);
    if (was != 0)
        mmi_pt_look_on(it);
    return true;
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* The only format that is in, or NULL. */
static const struct mm_pagetable_format *mmi_pt_only_format(void)
{
#ifdef MMI_PT_ONE
    unsigned id;
    const struct mm_pagetable_format *format = NULL;
    for (id = 0; id < MM_PAGETABLE_ID_COUNT && format == NULL; id++)
        format = mm_pagetable_format_of((enum mm_pagetable_id)id);
    return format;
#else
    return NULL;
#endif
}

MM_PAGETABLE_API enum mm_status mm_pagetable_config_init(struct mm_pagetable_config *config,
                                                         const struct mm_pagetable_format *format,
                                                         const struct mm_pagetable_hooks *hooks,
                                                         uintptr_t direct)
{
    if (format == NULL)
        format = mmi_pt_only_format();
    if (format == NULL || hooks == NULL)
        return MM_ERR_INVALID;
    config->format = format;
    config->hooks = hooks;
    config->direct = direct;
    config->flags = MM_PAGETABLE_PRESET_AD | (format->features & MM_PAGETABLE_NX);
    if (format->family == MM_PAGETABLE_FAMILY_X86)
        config->flags |= MM_PAGETABLE_HW_AD;
    config->leaf_levels = format->leaf_levels;
    config->pa_bits = format->pa_bits;
    config->asid = 0;
    config->type_register = format->type_reg;
    config->flush_pages = 32;
    config->locks = NULL;
    config->lock_count = 0;
    return MM_OK;
}

/* Where the PAT or MAIR register has this code: the bits of the entry, all ones if nowhere. */
static uint64_t mmi_pt_type_by_register(const struct mm_pagetable *pt, unsigned code)
{
    unsigned i;
    for (i = 0; i < 8; i++) {
        if (mmi_pt_byte(pt->type_register, i) != code)
            continue;
        if (mmi_ptf_coding(pt) == MM_PAGETABLE_PAT)
            return (uint64_t)((i & 3u) << 3 | (i & 4u) << 5);
        return mmi_pt_shl(i, mmi_ptf_type_shift(pt));
    }
    return ~UINT64_C(0);
}

static void mmi_pt_init_types(struct mm_pagetable *pt)
{
    bool coded = mmi_ptf_coding(pt) == MM_PAGETABLE_CODED;
    bool off = (mmi_ptf_features(pt) & ~pt->flags & MM_PAGETABLE_SVPBMT) != 0 ||
               mmi_ptf_type_mask(pt) == 0;
    unsigned type;

    for (type = 0; type < MM_PAGETABLE_TYPE_COUNT; type++) {
        unsigned code = mmi_pt_byte(mmi_ptf_types(pt), type);
        if (code == 0xee || (off && type != 0))
            pt->type_bits[type] = ~UINT64_C(0);
        else if (coded)
            pt->type_bits[type] = mmi_pt_shl(code, mmi_ptf_type_shift(pt));
        else
            pt->type_bits[type] = mmi_pt_type_by_register(pt, code);
    }
}

/* Are the hooks there that must be? */
static bool mmi_pt_hooks_ok(const struct mm_pagetable_hooks *hooks)
{
    if (hooks == NULL || hooks->alloc == NULL || hooks->free == NULL)
        return false;
#ifdef MM_PAGETABLE_WINDOWS
    return hooks->open != NULL && hooks->close != NULL;
#else
    return true;
#endif
}

/* Bits of the ASID, PCID or VMID in the root register; where that has none, it is only told. */
static unsigned mmi_pt_asid_bits(const struct mm_pagetable_format *format)
{
    switch (format->family) {
    case MM_PAGETABLE_FAMILY_X86:
        return format->id == MM_PAGETABLE_ID_NPT ? 31 : 12;
    case MM_PAGETABLE_FAMILY_RISCV:
        if (format->entry_shift == 2)
            return 9;
        return format->user == 0 ? 14 : 16; /* hgatp has two bits fewer than satp */
    default:
        return format->family == MM_PAGETABLE_FAMILY_EPT ? 31 : 16;
    }
}

static bool mmi_pt_locks_ok(const struct mm_pagetable_config *c)
{
    return c->lock_count <= MM_PAGETABLE_LOCKS_MAX && (c->lock_count == 0 || c->locks != NULL);
}

/* Does the configuration ask for what its format has? */
static bool mmi_pt_config_ok(const struct mm_pagetable_config *c)
{
    const struct mm_pagetable_format *format = c->format;
    uint32_t flags;

    if (format == NULL || !mmi_pt_hooks_ok(c->hooks))
        return false;
    flags =
        format->features | MM_PAGETABLE_W_XOR_X | MM_PAGETABLE_PRESET_AD | MM_PAGETABLE_KEEP_EMPTY;
    if ((c->flags & ~flags) != 0 || (c->leaf_levels & ~format->leaf_levels) != 0)
        return false;
    if ((c->leaf_levels & 1u) == 0 || (c->leaf_levels & (c->leaf_levels + 1)) != 0 ||
        c->pa_bits < 20 || c->pa_bits > format->pa_bits)
        return false;
    if (!mmi_pt_locks_ok(c) || c->asid >> mmi_pt_asid_bits(format) != 0)
        return false;
    return mmi_pt_only_format() == NULL || format == mmi_pt_only_format();
}

/* Is this a place where the format can have a table? */
static bool mmi_pt_good_table(const struct mm_pagetable *pt, mm_pa_t pa, uint64_t bytes)
{
    uint64_t page = mmi_pt_size(pt, 0), align = bytes > page ? bytes : page;
    return (pa & (align - 1)) == 0 && pa < mmi_pt_shl(1, pt->pa_bits);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_init(struct mm_pagetable *pt,
                                                  const struct mm_pagetable_config *config)
{
    uint64_t bytes;
    unsigned i;
    void *root;

    if (!mmi_pt_config_ok(config))
        return MM_ERR_INVALID;
    pt->format = config->format;
    pt->hooks = config->hooks;
    pt->direct = config->direct;
    pt->flags = config->flags;
    pt->leaf_levels = config->leaf_levels;
    pt->pa_bits = config->pa_bits;
    pt->asid = config->asid;
    pt->borrows = pt->lends = false;
    pt->type_register = config->type_register;
    pt->flush_pages = config->flush_pages;
    pt->locks = config->locks;
    pt->lock_count = config->lock_count;
    MM_PAGETABLE_LOCK_INIT(&pt->lock);
    for (i = 0; i < pt->lock_count; i++)
        MM_PAGETABLE_LOCK_INIT(&pt->locks[i]);
    mmi_pt_init_types(pt);
    bytes = mmi_pt_table_bytes(pt, mmi_pt_root_level(pt));
    pt->root = pt->hooks->alloc(pt->hooks->ctx, bytes);
    if (pt->root == MM_PA_NONE)
        return MM_ERR_NOMEM;
    if (!mmi_pt_good_table(pt, pt->root, bytes)) {
        pt->hooks->free(pt->hooks->ctx, pt->root, bytes);
        return MM_ERR_NOMEM;
    }
    root = mmi_pt_open(pt, pt->root);
    MM_PAGETABLE_MEMSET(root, 0, (size_t)bytes);
    mmi_pt_close(pt, root);
    return MM_OK;
}

MM_PAGETABLE_API uint64_t mm_pagetable_root(const struct mm_pagetable *pt)
{
    uint64_t asid = pt->asid, mode = mmi_ptf_root_mode(pt);

    switch (mmi_ptf_family(pt)) {
    case MM_PAGETABLE_FAMILY_X86: /* CR3 with CR4.PCIDE; nCR3 has no PCID */
        return pt->root | (mmi_ptf_id(pt) == MM_PAGETABLE_ID_NPT ? 0 : asid);
    case MM_PAGETABLE_FAMILY_EPT: /* EPTP: write-back walks, length, A/D (SDM vol. 3, 25.6.11) */
        return pt->root | 6 | (uint64_t)(mmi_ptf_levels(pt) - 1) << 3 |
               ((pt->flags & MM_PAGETABLE_HW_AD) != 0 ? 0x40u : 0u);
    case MM_PAGETABLE_FAMILY_RISCV: /* satp, hgatp (privileged 4.1.11, 8.2.10) */
        if (mmi_ptf_entry_shift(pt) == 2)
            return mode << 31 | asid << 22 | pt->root >> MM_PAGETABLE_SHIFT;
        return mode << 60 | asid << 44 | pt->root >> MM_PAGETABLE_SHIFT;
    default: /* TTBR, VTTBR (Arm ARM D17.2.144 and .170) */
        return pt->root | asid << 48;
    }
}

MM_PAGETABLE_API uint64_t mm_pagetable_size(const struct mm_pagetable *pt, unsigned level)
{
    return level < mmi_ptf_levels(pt) ? mmi_pt_size(pt, level) : 0;
}

/* ---- Batches: what waits for the flush ------------------------------------------------------- */

/* A link to a dead table (I5): where it is, and its level in bits 3 to 5. Not present in any
 * format, and no software entry. */
#define MMI_PT_LINK_LEVEL 3
#define MMI_PT_LINK_END   (UINT64_C(7) << MMI_PT_LINK_LEVEL)

/* The flush knows of all changes so far. */
static void mmi_pt_batch_told(struct mm_pagetable_batch *b)
{
    b->pages = b->quiet_pages = 0;
    b->range_count = 0;
    b->all = b->changed = b->filled = false;
    b->unlinked = b->linked = b->global = b->settled = false;
    b->fill_untold = ~UINT64_C(0);
}

static void mmi_pt_batch_empty(struct mm_pagetable_batch *b)
{
    mmi_pt_batch_told(b);
    b->extent_count = 0;
    b->dead = MMI_PT_LINK_END;
    b->dead_room = b->dead_count = 0;
}

MM_PAGETABLE_API void mm_pagetable_batch_init(struct mm_pagetable_batch *batch,
                                              struct mm_pagetable *pt,
                                              struct mm_pagetable_extent *extents, size_t count)
{
    batch->pt = pt;
    batch->extents = extents != NULL && count != 0 ? extents : batch->own;
    batch->extent_room = extents != NULL && count != 0 ? count : MM_PAGETABLE_BATCH_EXTENTS;
    batch->made_attr = ~(uint64_t)0; /* neither attributes nor a leaf without address */
    batch->told_leaf = ~(uint64_t)0;
    mmi_pt_batch_empty(batch);
}

/* The batch of a call: the caller's, or an own one. */
static struct mm_pagetable_batch *mmi_pt_batch(struct mm_pagetable *pt,
                                               struct mm_pagetable_batch *given,
                                               struct mm_pagetable_batch *own)
{
    if (given != NULL)
        return given;
    mm_pagetable_batch_init(own, pt, NULL, 0);
    return own;
}

/* Frees the tables of a subtree that nobody can reach any more, children first. */
static void mmi_pt_free_subtree(struct mm_pagetable *pt, mm_pa_t table, unsigned top)
{
    mm_pa_t pa[MM_PAGETABLE_LEVELS_MAX];
    void *open[MM_PAGETABLE_LEVELS_MAX];
    uint64_t next[MM_PAGETABLE_LEVELS_MAX], bytes = mmi_pt_table_bytes(pt, 0), e;
    unsigned level = top;

    pa[level] = table;
    open[level] = mmi_pt_open(pt, table);
    next[level] = 0;
    for (;;) {
        if (level == 0 || next[level] == mmi_pt_entries(pt, level)) {
            mmi_pt_close(pt, open[level]);
            pt->hooks->free(pt->hooks->ctx, pa[level], bytes);
            if (level++ == top)
                return;
            continue;
        }
        e = mmi_pt_load(pt, open[level], next[level]++);
        if (!mmi_pt_is_table(pt, e, level))
            continue;
        if (level == 1) { /* a table of leaves goes without a look */
            pt->hooks->free(pt->hooks->ctx, mmi_pt_table_pa(pt, e), bytes);
            continue;
        }
        level--;
        pa[level] = mmi_pt_table_pa(pt, e);
        open[level] = mmi_pt_open(pt, pa[level]);
        next[level] = 0;
    }
}

/* Flushes what was noted until now; what changes from here on is noted anew. */
static void mmi_pt_batch_flush(struct mm_pagetable_batch *b)
{
    struct mm_pagetable_flush flush;

    if (!b->changed && !b->filled && !b->unlinked)
        return;
    flush.pt = b->pt;
    flush.ranges = b->ranges;
    flush.count = b->all ? 0 : b->range_count;
    flush.asid = b->pt->asid;
    flush.all = b->all;
    flush.filled_only = !b->changed && !b->unlinked;
    flush.tables_unlink = b->unlinked || b->linked;
    flush.global = b->global;
    flush.every_asid = __atomic_load_n(&b->pt->lends, __ATOMIC_RELAXED);
    if (b->pt->hooks->flush != NULL)
        b->pt->hooks->flush(b->pt->hooks->ctx, &flush);
    mmi_pt_batch_told(b);
}

/* Frees the dead subtrees that a directory lists in its entries above `room`, then itself, then
 * those of the full directory before it, and so on. */
static void mmi_pt_free_dead(struct mm_pagetable *pt, uint64_t link, uint64_t room)
{
    uint64_t bytes = mmi_pt_table_bytes(pt, 0), i, e;

    for (; link != MMI_PT_LINK_END; room = 0) {
        mm_pa_t directory = mmi_pt_table_pa(pt, link);
        void *p = mmi_pt_open(pt, directory);
        for (i = mmi_pt_entries(pt, 0) - 1; i > room; i--) {
            e = mmi_pt_load(pt, p, i);
            if ((e >> MMI_PT_LINK_LEVEL & 7u) == 0)
                pt->hooks->free(pt->hooks->ctx, mmi_pt_table_pa(pt, e), bytes);
            else
                mmi_pt_free_subtree(pt, mmi_pt_table_pa(pt, e),
                                    (unsigned)(e >> MMI_PT_LINK_LEVEL) & 7u);
        }
        link = mmi_pt_load(pt, p, 0);
        mmi_pt_close(pt, p);
        pt->hooks->free(pt->hooks->ctx, directory, bytes);
    }
}

MM_PAGETABLE_API void mm_pagetable_batch_finish(struct mm_pagetable_batch *batch)
{
    struct mm_pagetable *pt = batch->pt;
    size_t i;

    mmi_pt_batch_flush(batch);
    if (pt->hooks->grace != NULL && (batch->dead != MMI_PT_LINK_END || batch->extent_count != 0))
        pt->hooks->grace(pt->hooks->ctx);
    for (i = 0; i < batch->extent_count; i++)
        pt->hooks->release(pt->hooks->ctx, &batch->extents[i]);
    mmi_pt_free_dead(pt, batch->dead, batch->dead_room);
    mmi_pt_batch_empty(batch);
}

/* Adds a range to what the flush has to cover. */
static void mmi_pt_add_range(struct mm_pagetable_batch *b, uint64_t off, uint64_t bytes,
                             unsigned level)
{
    struct mm_pagetable *pt = b->pt;
    struct mm_pagetable_range *range = &b->ranges[b->range_count];
    mm_va_t va;

    b->pages += mmi_pt_shr(bytes, mmi_pt_shift(pt, level));
    if (b->pages > pt->flush_pages) {
        b->all = true;
        return;
    }
    va = mmi_pt_va(pt, off);
    if (b->range_count != 0 && va != 0 && range[-1].va + range[-1].bytes == va &&
        range[-1].level == level) {
        range[-1].bytes += bytes;
        return;
    }
    if (b->range_count == MM_PAGETABLE_BATCH_RANGES) {
        b->all = true;
        return;
    }
    range->va = va;
    range->bytes = bytes;
    range->level = level;
    b->range_count++;
}

static inline void mmi_pt_note_range(struct mm_pagetable_batch *b, uint64_t off, uint64_t bytes,
                                     unsigned level)
{
    if (!b->all) /* else there is nothing to add */
        mmi_pt_add_range(b, off, bytes, level);
}

/* The same for a plain leaf at `va` that went, apart from the code that takes many of them. */
static MM_NOINLINE void mmi_pt_note_page(struct mm_pagetable_batch *b, mm_va_t va)
{
    b->changed = true;
    mmi_pt_note_range(b, mmi_pt_offset(b->pt, va), mmi_pt_size(b->pt, 0), 0);
    b->settled = b->all;
}

/* A table that led to `off` goes. Walk caches forget it when an address below it is invalidated;
 * the ranges that its entries left may have been flushed while it was still linked. */
static inline void mmi_pt_note_table(struct mm_pagetable_batch *b, uint64_t off)
{
    const struct mm_pagetable_range *last = &b->ranges[b->range_count];
    uint64_t page = mmi_pt_size(b->pt, 0);

    if (b->all || (b->range_count != 0 && mmi_pt_va(b->pt, off) - last[-1].va < last[-1].bytes))
        return;
    mmi_pt_add_range(b, off & ~(page - 1), page, 0);
}

/* A leaf that may be global, where the leaves are not known. */
static inline uint64_t mmi_pt_any_leaf(const struct mm_pagetable *pt)
{
    return mmi_ptf_base(pt) ^ mmi_ptf_global(pt);
}

/* Is this leaf of level 0 global? */
static inline bool mmi_pt_is_global(const struct mm_pagetable *pt, uint64_t leaf)
{
    return ((leaf ^ mmi_ptf_base(pt)) & mmi_ptf_global(pt)) != 0;
}

/* `leaf`: what stood there. */
static inline void mmi_pt_note_change(struct mm_pagetable_batch *b, uint64_t off, uint64_t bytes,
                                      unsigned level, uint64_t leaf)
{
    if (mmi_pt_is_global(b->pt, leaf))
        b->global = true;
    b->changed = true;
    mmi_pt_note_range(b, off, bytes, level);
}

/* Before something new is stored: what left the tables under this batch may have stood there, and
 * must be out of the TLBs by then where the format wants that. */
static inline void mmi_pt_before_new(struct mm_pagetable_batch *b)
{
    if (mmi_ptf_break_first(b->pt) != 0 && (b->changed || b->unlinked))
        mmi_pt_batch_flush(b);
}

/* New mappings: RISC-V lets a processor remember that there was none (privileged 4.2.1), unless it
 * has Svvptc; the others do not. */
static void mmi_pt_note_filled(struct mm_pagetable_batch *b, uint64_t off, uint64_t bytes,
                               unsigned level, uint64_t leaf)
{
    struct mm_pagetable *pt = b->pt;
    if ((mmi_ptf_features(pt) & ~pt->flags & MM_PAGETABLE_SVVPTC) == 0)
        return;
    if (mmi_pt_is_global(pt, leaf)) /* a fence for an ASID does not order these (10.2.1) */
        b->global = true;
    b->filled = true;
    mmi_pt_note_range(b, off, bytes, level);
}

/* The same for a page at `va`, apart from the code that maps many of them. */
static MM_NOINLINE void mmi_pt_note_new_page(struct mm_pagetable_batch *b, mm_va_t va,
                                             uint64_t leaf)
{
    mmi_pt_note_filled(b, mmi_pt_offset(b->pt, va), mmi_pt_size(b->pt, 0), 0, leaf);
    if (!b->filled)
        b->fill_untold = 0;
    else if (b->all)
        b->fill_untold = b->global ? 0 : mmi_ptf_global(b->pt);
}

/* An entry leads to a table now. RISC-V orders such entries by a fence without an address alone
 * (privileged 10.2.1). */
static inline void mmi_pt_note_linked(struct mm_pagetable_batch *b)
{
    if (mmi_ptf_family(b->pt) == MM_PAGETABLE_FAMILY_RISCV)
        b->linked = true;
}

/* Frames that go once the flush is done. */
static void mmi_pt_let_go(struct mm_pagetable_batch *b, mm_pa_t pa, uint64_t bytes, uint32_t attr)
{
    struct mm_pagetable_extent *last;

    if (b->pt->hooks->release == NULL)
        return;
    if (b->extent_count != 0) {
        last = &b->extents[b->extent_count - 1];
        if (last->pa + last->bytes == pa && last->attr == attr && (attr & MM_PAGETABLE_SWAP) == 0) {
            last->bytes += bytes;
            return;
        }
    }
    if (b->extent_count == b->extent_room)
        mm_pagetable_batch_finish(b);
    last = &b->extents[b->extent_count++];
    last->pa = pa;
    last->bytes = bytes;
    last->attr = attr;
}

/* The attributes of a leaf that goes. */
static uint32_t mmi_pt_tell(struct mm_pagetable_batch *b, uint64_t e, unsigned level)
{
    uint64_t leaf = e & ~mmi_ptf_pa_mask(b->pt);

    if (level != 0)
        return mmi_pt_decode(b->pt, e, level);
    if (leaf != b->told_leaf) {
        b->told_leaf = leaf;
        b->told_attr = mmi_pt_decode(b->pt, e, 0) & ~MM_PAGETABLE_CONTIG;
    }
    return (uint32_t)b->told_attr;
}

/* Lists a dead subtree, whose root is open at `p`: in the directory, or as the next one, which has
 * no tables below it. */
static inline void mmi_pt_bury_at(struct mm_pagetable_batch *b, mm_pa_t table, void *p,
                                  unsigned level)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t link = mmi_pt_pa_field(pt, table) | (uint64_t)level << MMI_PT_LINK_LEVEL;

    b->unlinked = true;
    b->dead_count++;
    if (MM_UNLIKELY(b->dead_room == 0)) {
        mmi_pt_store(pt, p, 0, b->dead);
        b->dead = link;
        b->dead_room = (uint32_t)mmi_pt_entries(pt, 0) - 1;
    } else {
        void *directory = MM_PAGETABLE_OPEN(pt, mmi_pt_table_pa(pt, b->dead));
        mmi_pt_store(pt, directory, b->dead_room--, link);
        MM_PAGETABLE_CLOSE(pt, directory);
    }
}

/* Takes the first table out of a dead one of this level; MM_PA_NONE if it has none. */
static mm_pa_t mmi_pt_take_child(const struct mm_pagetable *pt, mm_pa_t table, unsigned level)
{
    void *p = mmi_pt_open(pt, table);
    mm_pa_t child = MM_PA_NONE;
    uint64_t i, e;

    for (i = 0; i < mmi_pt_entries(pt, level) && child == MM_PA_NONE; i++) {
        e = mmi_pt_load(pt, p, i);
        if (mmi_pt_is_table(pt, e, level)) {
            child = mmi_pt_table_pa(pt, e);
            mmi_pt_store(pt, p, i, 0);
        }
    }
    mmi_pt_close(pt, p);
    return child;
}

/* The same for any subtree. Where a directory is wanted, the first table that has none below it
 * becomes it: that one and those above it are subtrees of their own then. */
static void mmi_pt_bury(struct mm_pagetable_batch *b, mm_pa_t table, unsigned top)
{
    struct mm_pagetable *pt = b->pt;
    mm_pa_t path[MM_PAGETABLE_LEVELS_MAX];
    unsigned level = top;

    path[top] = table;
    while (b->dead_room == 0 && level != 0) {
        mm_pa_t child = mmi_pt_take_child(pt, path[level], level);
        if (child == MM_PA_NONE)
            break;
        path[--level] = child;
    }
    for (; level <= top; level++) {
        void *p = mmi_pt_open(pt, path[level]);
        mmi_pt_bury_at(b, path[level], p, level);
        mmi_pt_close(pt, p);
    }
}

/* ---- Spare tables: reserved before anything changes ------------------------------------------ */

static mm_pa_t mmi_pt_spare_take(struct mmi_pt_spare *spare, void **table)
{
    mm_pa_t pa = spare->head;
    MM_PAGETABLE_ASSERT(pa != MM_PA_NONE);
    *table = mmi_pt_open(spare->pt, pa);
    spare->head = *(mmi_pt_u64 *)*table;
    if (spare->head != MM_PA_NONE)
        mmi_pt_look_at(spare->pt, spare->head);
    return pa;
}

static void mmi_pt_spare_free(struct mmi_pt_spare *spare)
{
    struct mm_pagetable *pt = spare->pt;
    while (spare->head != MM_PA_NONE) {
        void *table;
        mm_pa_t pa = mmi_pt_spare_take(spare, &table);
        mmi_pt_close(pt, table);
        pt->hooks->free(pt->hooks->ctx, pa, mmi_pt_table_bytes(pt, 0));
    }
}

/* Reserves `count` tables more, or none. */
static enum mm_status mmi_pt_reserve(struct mmi_pt_spare *spare, uint64_t count)
{
    struct mm_pagetable *pt = spare->pt;
    uint64_t bytes = mmi_pt_table_bytes(pt, 0);

    for (; count != 0; count--) {
        mm_pa_t pa = pt->hooks->alloc(pt->hooks->ctx, bytes);
        void *table;
        if (pa == MM_PA_NONE || !mmi_pt_good_table(pt, pa, bytes)) {
            if (pa != MM_PA_NONE)
                pt->hooks->free(pt->hooks->ctx, pa, bytes);
            mmi_pt_spare_free(spare);
            return MM_ERR_NOMEM;
        }
        table = mmi_pt_open(pt, pa);
        *(mmi_pt_u64 *)table = spare->head;
        mmi_pt_close(pt, table);
        spare->head = pa;
    }
    return MM_OK;
}

/* Does the range stay clear of borrowed entries? */
static bool mmi_pt_owned(const struct mm_pagetable *pt, uint64_t off, uint64_t end)
{
    unsigned root = mmi_pt_root_level(pt);
    uint64_t i, last, e;
    bool owned = true;
    void *table;

    if (!__atomic_load_n(&pt->borrows, __ATOMIC_RELAXED)) /* other entries may be lent meanwhile */
        return true;
    table = mmi_pt_open(pt, pt->root);
    last = mmi_pt_index(pt, end - 1, root);
    for (i = mmi_pt_index(pt, off, root); owned && i <= last; i++) {
        e = mmi_pt_load(pt, table, i);
        owned = !mmi_pt_is_table(pt, e, root) || mmi_pt_note(pt, e) != MMI_PT_BORROWED;
    }
    mmi_pt_close(pt, table);
    return owned;
}

/* ---- Splits ---------------------------------------------------------------------------------- */

/* Replaces the leaf that the iterator stands at, above level 0, by a table of smaller ones.
 * Hardware may set A and D until the exchange, then it is done again. */
static void mmi_pt_split_here(struct mmi_pt_iter *it, struct mmi_pt_spare *spare,
                              struct mm_pagetable_batch *b)
{
    struct mm_pagetable *pt = it->pt;
    void *parent = it->table[it->level], *table;
    unsigned level = it->level;
    uint64_t index = mmi_pt_index(pt, it->off, level), size = mmi_pt_size(pt, level);
    uint64_t step = mmi_pt_step_of(pt, level - 1), leaf, part, i;
    mm_pa_t pa = mmi_pt_spare_take(spare, &table);
    uint64_t entry = mmi_pt_entry_of(pt, level, pa, mmi_pt_entries(pt, level - 1));
    bool first_break = mmi_ptf_break_first(pt) != 0;

    do {
        leaf = mmi_pt_load(pt, parent, index);
        part = mmi_pt_raised(pt, mmi_pt_flat(pt, leaf, level), level - 1);
        for (i = 0; i < mmi_pt_entries(pt, level - 1); i++)
            mmi_pt_fill(pt, table, i, part + i * step);
    } while (!mmi_pt_cas(pt, parent, index, leaf, first_break ? 0 : entry));
    mmi_pt_note_change(b, it->off & ~(size - 1), size, level, leaf);
    mmi_pt_note_linked(b);
    if (first_break) {
        mmi_pt_batch_flush(b);
        mmi_pt_link(pt, parent, index, entry);
    }
    mmi_pt_close(pt, table);
}

/* Is this entry of that level one of a contiguous group? */
static inline bool mmi_pt_of_group(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    return mmi_ptf_contig(pt) != 0 && level == 0 && mmi_pt_present(pt, e) &&
           (e & mmi_ptf_contig(pt)) != 0;
}
static bool mmi_pt_in_group(const struct mmi_pt_iter *it, uint64_t e)
{
    return mmi_pt_of_group(it->pt, e, it->level);
}

/* Makes sixteen single pages of the group that the iterator stands in. What hardware did to any of
 * them was done to all. */
static void mmi_pt_ungroup(struct mmi_pt_iter *it, struct mm_pagetable_batch *b)
{
    struct mm_pagetable *pt = it->pt;
    void *table = it->table[0];
    uint64_t page = mmi_pt_size(pt, 0), start = it->off & ~(16 * page - 1), e, plain;
    uint64_t index = mmi_pt_index(pt, start, 0), i, marks = 0, late = 0, leaf = 0;
    uint64_t ad = mmi_ptf_accessed(pt) | mmi_ptf_dirty(pt);

    for (i = 0; i < 16; i++) {
        do {
            e = mmi_pt_load(pt, table, index + i);
        } while (mmi_ptf_break_first(pt) != 0 && !mmi_pt_cas(pt, table, index + i, e, 0));
        marks |= mmi_pt_settled(pt, e) & ad;
        leaf = i == 0 ? e : leaf;
    }
    mmi_pt_note_change(b, start, 16 * page, 0, leaf);
    if (mmi_ptf_break_first(pt) != 0)
        mmi_pt_batch_flush(b);
    for (i = 0; i < 16; i++) {
        plain = (leaf | marks) & ~(mmi_ptf_contig(pt) | mmi_ptf_pa_mask(pt));
        plain |= mmi_pt_pa_field(pt, mmi_pt_leaf_pa(pt, leaf, 0, start) + i * page);
        plain = mmi_pt_sealed(pt, plain);
        do {
            e = mmi_pt_load(pt, table, index + i);
        } while (!mmi_pt_cas(pt, table, index + i, e, plain | (mmi_pt_settled(pt, e) & ad)));
        late |= mmi_pt_settled(pt, e) & ad & ~marks;
    }
    for (i = 0; late != 0 && i < 16; i++) /* while it was still a group */
        do {
            e = mmi_pt_load(pt, table, index + i);
        } while (
            !mmi_pt_cas(pt, table, index + i, e, mmi_pt_sealed(pt, mmi_pt_settled(pt, e) | late)));
}

/* Makes `off` a border between pages that are not of one group. */
static void mmi_pt_part_group(struct mm_pagetable *pt, uint64_t off, struct mm_pagetable_batch *b)
{
    struct mmi_pt_iter it;
    uint64_t e;

    if (mmi_ptf_contig(pt) == 0 || (off >> MM_PAGETABLE_SHIFT & 15) == 0)
        return;
    mmi_pt_begin(&it, pt, off, off + 1);
    e = mmi_pt_bottom(&it);
    if (mmi_pt_in_group(&it, e))
        mmi_pt_ungroup(&it, b);
    mmi_pt_leave(&it);
}

/* Makes `off` a border between leaves; mmi_pt_count_cut told how many tables that takes. */
static void mmi_pt_cut(struct mm_pagetable *pt, uint64_t off, struct mmi_pt_spare *spare,
                       struct mm_pagetable_batch *b)
{
    struct mmi_pt_iter it;
    uint64_t e;

    if ((off & (mmi_pt_size(pt, mmi_pt_root_level(pt)) - 1)) == 0)
        return; /* also the end of the address space */
    mmi_pt_begin(&it, pt, off, off + 1);
    for (;;) {
        e = mmi_pt_here(&it);
        if (mmi_pt_is_table(pt, e, it.level)) {
            mmi_pt_down(&it, mmi_pt_table_pa(pt, e));
        } else if (mmi_pt_present(pt, e) && (off & (mmi_pt_size(pt, it.level) - 1)) != 0) {
            mmi_pt_split_here(&it, spare, b);
        } else {
            break;
        }
    }
    mmi_pt_leave(&it);
    mmi_pt_part_group(pt, off, b);
}

/* Tables that mmi_pt_cut at `off` takes, when a cut at `other` came before (0: none did). */
static uint64_t mmi_pt_count_cut(struct mm_pagetable *pt, uint64_t off, uint64_t other)
{
    struct mmi_pt_iter it;
    unsigned level;
    uint64_t e, count = 0;

    if ((off & (mmi_pt_size(pt, mmi_pt_root_level(pt)) - 1)) == 0)
        return 0;
    mmi_pt_begin(&it, pt, off, off + 1);
    e = mmi_pt_bottom(&it);
    level = it.level;
    mmi_pt_leave(&it);
    if (!mmi_pt_present(pt, e))
        return 0;
    for (; (off & (mmi_pt_size(pt, level) - 1)) != 0; level--) {
        bool shared = (off ^ other) < mmi_pt_size(pt, level);
        if (!shared || (other & (mmi_pt_size(pt, level) - 1)) == 0)
            count++;
    }
    return count;
}

/* Reserves the tables for borders at both ends of a range. */
static enum mm_status mmi_pt_reserve_cuts(struct mmi_pt_spare *spare, struct mm_pagetable *pt,
                                          uint64_t off, uint64_t end)
{
    spare->pt = pt;
    spare->head = MM_PA_NONE;
    return mmi_pt_reserve(spare, mmi_pt_count_cut(pt, off, 0) + mmi_pt_count_cut(pt, end, off));
}

static void mmi_pt_cut_both(struct mmi_pt_spare *spare, uint64_t off, uint64_t end,
                            struct mm_pagetable_batch *b)
{
    mmi_pt_cut(spare->pt, off, spare, b);
    mmi_pt_cut(spare->pt, end, spare, b);
    MM_PAGETABLE_ASSERT(spare->head == MM_PA_NONE);
}

/* ---- Calls: what all changes have in common -------------------------------------------------- */

/* Checks the range and takes the locks. On an error nothing is held. */
static enum mm_status mmi_pt_enter(struct mmi_pt_call *call, struct mm_pagetable *pt,
                                   const char *where, mm_va_t va, uint64_t bytes,
                                   struct mm_pagetable_batch *batch)
{
    enum mm_status status = mmi_pt_range(pt, where, va, bytes, &call->off, &call->end);

    if (status != MM_OK)
        return status;
    if (batch != NULL && batch->pt != pt)
        return mmi_pt_refuse(pt, where, "another table's batch", MM_ERR_INVALID, va);
    call->pt = pt;
    call->given = batch;
    call->batch = mmi_pt_batch(pt, batch, &call->own);
    call->spare.pt = pt;
    call->spare.head = MM_PA_NONE;
    mmi_pt_lock(pt, call->off, call->end, &call->held);
    if (mmi_pt_owned(pt, call->off, call->end))
        return MM_OK;
    mmi_pt_unlock(pt, &call->held);
    return mmi_pt_refuse(pt, where, "borrowed", MM_ERR_PERM, va);
}

/* Flushes, unless the caller does, and gives back the locks. */
static enum mm_status mmi_pt_exit(struct mmi_pt_call *call, enum mm_status status)
{
    if (call->given == NULL)
        mm_pagetable_batch_finish(call->batch);
#if MM_PAGETABLE_DEBUG >= 3
    if (call->pt->lock_count == 0)
        MM_PAGETABLE_ASSERT(mm_pagetable_check(call->pt, NULL, 0, NULL) == MM_OK);
#endif
    mmi_pt_unlock(call->pt, &call->held);
    return status;
}

/* Makes borders at both ends of the range. On an error nothing changed, and the call is still
 * in. */
static enum mm_status mmi_pt_cut_ends(struct mmi_pt_call *call)
{
    struct mm_pagetable *pt = call->pt;
    enum mm_status status = mmi_pt_reserve_cuts(&call->spare, pt, call->off, call->end);

    if (status == MM_OK &&
        (call->spare.head != MM_PA_NONE || (pt->flags & MM_PAGETABLE_CONTIGUOUS) != 0))
        mmi_pt_cut_both(&call->spare, call->off, call->end, call->batch);
    return status;
}

/* ---- Unmap ----------------------------------------------------------------------------------- */

/* A run of entries in one table. */
struct mmi_pt_span {
    void *table;
    unsigned level;
    uint64_t index, count, off;
};

/* Entries from where the iterator stands to the end of its table, or of the range. */
static struct mmi_pt_span mmi_pt_span_here(const struct mmi_pt_iter *it)
{
    struct mmi_pt_span span;
    span.table = it->table[it->level];
    span.level = it->level;
    span.index = mmi_pt_index(it->pt, it->off, it->level);
    span.count = 1;
    if (it->level == 0)
        span.count = (mmi_pt_table_end(it) - it->off) >> MM_PAGETABLE_SHIFT;
    span.off = it->off;
    return span;
}

static uint64_t mmi_pt_span_end(const struct mm_pagetable *pt, const struct mmi_pt_span *span)
{
    return span->off + mmi_pt_shl(span->count, mmi_pt_shift(pt, span->level));
}

/* Does entry `i` hold `e`? A look that need not be atomic: its result decides nothing but whether
 * the run goes on, and hardware does not change such an entry (I6). */
static inline bool mmi_pt_holds(const struct mm_pagetable *pt, const void *table, uint64_t i,
                                uint64_t e)
{
#ifdef MMI_PT_TSAN
    return mmi_pt_load(pt, table, i) == e; /* it sees other threads, not what they change */
#else
    if (mmi_ptf_entry_shift(pt) == 2)
        return ((const mmi_pt_u32 *)table)[i] == (uint32_t)e;
    return ((const mmi_pt_u64 *)table)[i] == e;
#endif
}

enum mmi_pt_treatment { MMI_PT_LEAVE, MMI_PT_CLEAR, MMI_PT_CHANGE };

/* Follows the run of leaves that entry `i`, which holds `e`, begins: the next frames, the same
 * bits. Each is left, cleared, or becomes `next` with its frame. Returns the run's length. About
 * three instructions an entry; `e4` beside `e`, that they do not wait for each other. */
MMI_PT_FOLDED uint64_t mmi_pt_follow(const struct mm_pagetable *pt, const struct mmi_pt_span *span,
                                     uint64_t i, uint64_t e, uint64_t next,
                                     enum mmi_pt_treatment how)
{
    const unsigned shift = mmi_ptf_entry_shift(pt);
    const uint64_t step = mmi_pt_step_of(pt, span->level);
    uint64_t all = span->index + span->count - i;
    char *at = (char *)span->table + (size_t)mmi_pt_shl(i, shift);
    uint64_t left, e4 = e + 4 * step;

    if (MM_UNLIKELY(all - 1 > mmi_pt_shr(mmi_ptf_pa_mask(pt) & ~e, mmi_ptf_ppn_shift(pt))))
        all = 1; /* it would go on beyond the last frame */
    left = all;
#define MMI_PT_ENTRY(k, e)                                                        \
    do {                                                                          \
        if (!mmi_pt_holds(pt, at, (k), (e)))                                      \
            return all - left + (k);                                              \
        if (how != MMI_PT_LEAVE)                                                  \
            mmi_pt_store(pt, at, (k), how == MMI_PT_CLEAR ? 0 : next + (k)*step); \
    } while (0)
    for (; left >= 8; left -= 8, at += (size_t)8 << shift) {
        MMI_PT_ENTRY(0, e);
        MMI_PT_ENTRY(1, e + step);
        MMI_PT_ENTRY(2, e + 2 * step);
        MMI_PT_ENTRY(3, e + 3 * step);
        MMI_PT_ENTRY(4, e4);
        MMI_PT_ENTRY(5, e4 + step);
        MMI_PT_ENTRY(6, e4 + 2 * step);
        MMI_PT_ENTRY(7, e4 + 3 * step);
        e += 8 * step, e4 += 8 * step, next += 8 * step;
    }
    for (; left != 0; left--, at += (size_t)1 << shift, e += step, next += step)
        MMI_PT_ENTRY(0, e);
#undef MMI_PT_ENTRY
    return all;
}

static uint64_t mmi_pt_same(const struct mm_pagetable *pt, const struct mmi_pt_span *span,
                            uint64_t i, uint64_t e)
{
    return mmi_pt_follow(pt, span, i, e, 0, MMI_PT_LEAVE);
}

static uint64_t mmi_pt_same_cleared(const struct mm_pagetable *pt, const struct mmi_pt_span *span,
                                    uint64_t i, uint64_t e)
{
    return mmi_pt_follow(pt, span, i, e, 0, MMI_PT_CLEAR);
}

/* Takes one run of equal leaves out, from entry i on. Leaves of a dead table need not be cleared,
 * but for those that hardware still writes to. Returns their number. */
static uint64_t mmi_pt_take_run(struct mm_pagetable_batch *b, const struct mmi_pt_span *span,
                                uint64_t i, uint64_t e, bool clear)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t size = mmi_pt_size(pt, span->level), off = span->off + (i - span->index) * size;
    uint64_t n = 1;

    if (mmi_pt_unsteady(pt, e)) {
        while (!mmi_pt_cas(pt, span->table, i, e, 0))
            e = mmi_pt_load(pt, span->table, i);
    } else {
        n = clear ? mmi_pt_same_cleared(pt, span, i, e) : mmi_pt_same(pt, span, i, e);
    }
    mmi_pt_note_change(b, off, n * size, span->level, e);
    if (pt->hooks->release != NULL)
        mmi_pt_let_go(b, mmi_pt_leaf_pa(pt, e, span->level, off), n * size,
                      mmi_pt_tell(b, e, span->level));
    return n;
}

/* Takes out the group that begins at entry i. Hardware marks any of its entries for all of them,
 * and reaches all by any: none is left when the first frame goes. */
static uint64_t mmi_pt_take_group(struct mm_pagetable_batch *b, const struct mmi_pt_span *span,
                                  uint64_t i)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t page = mmi_pt_size(pt, 0), off = span->off + (i - span->index) * page;
    uint64_t leaf = mmi_pt_load(pt, span->table, i), marks = 0, e, k;

    for (k = 0; k < 16; k++) {
        do {
            e = mmi_pt_load(pt, span->table, i + k);
        } while (!mmi_pt_cas(pt, span->table, i + k, e, 0));
        marks |= mmi_pt_settled(pt, e) & (mmi_ptf_accessed(pt) | mmi_ptf_dirty(pt));
    }
    mmi_pt_note_change(b, off, 16 * page, 0, leaf);
    if (pt->hooks->release != NULL)
        mmi_pt_let_go(b, mmi_pt_leaf_pa(pt, leaf, 0, off), 16 * page,
                      mmi_pt_tell(b, leaf | marks, 0));
    return 16;
}

/* Takes out the leaves and swap entries of a span. Returns how many there were. */
static uint64_t mmi_pt_take(struct mm_pagetable_batch *b, const struct mmi_pt_span *span,
                            bool clear)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t i = span->index, last = i + span->count, taken = 0, n, e;

    while (i < last) {
        e = mmi_pt_load(pt, span->table, i);
        n = 1;
        if (e == 0) {
            i++;
            continue;
        }
        if (mmi_pt_of_group(pt, e, span->level)) {
            n = mmi_pt_take_group(b, span, i);
        } else if (mmi_pt_present(pt, e)) {
            n = mmi_pt_take_run(b, span, i, e, clear);
        } else {
            if (clear)
                mmi_pt_store(pt, span->table, i, 0);
            /* no TLB has it, but walk caches have its table, which may go */
            mmi_pt_note_range(
                b, span->off + mmi_pt_shl(i - span->index, mmi_pt_shift(pt, span->level)),
                mmi_pt_size(pt, span->level), span->level);
            mmi_pt_let_go(b, e >> MMI_PT_SWAP_SHIFT, mmi_pt_size(pt, span->level),
                          MM_PAGETABLE_SWAP);
        }
        i += n;
        taken += n;
    }
    return taken;
}

/* Sees off the leaves of an unlinked table of this level, and what is below, then buries it. */
static void mmi_pt_reap(struct mm_pagetable_batch *b, mm_pa_t table, unsigned level, uint64_t off)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t bytes = mmi_pt_size(pt, level + 1), e;
    struct mmi_pt_iter it;

    /* nor do tables tell of themselves that may be empty */
    if (pt->hooks->release == NULL || (pt->flags & MM_PAGETABLE_KEEP_EMPTY) != 0)
        mmi_pt_note_change(b, off, bytes, 0, mmi_pt_any_leaf(pt));
    if (pt->hooks->release != NULL) {
        mmi_pt_begin_at(&it, pt, table, level, off, off + bytes);
        while (mmi_pt_next_leaf(&it, &e)) {
            struct mmi_pt_span span = mmi_pt_span_here(&it);
            b->unlinked = true; /* a flush may come before it is buried */
            (void)mmi_pt_take(b, &span, false);
            mmi_pt_move(&it, mmi_pt_span_end(pt, &span));
        }
        mmi_pt_leave(&it);
    }
    mmi_pt_bury(b, table, level);
}

/* Four entries in one, which is 0 if all are. As in mmi_pt_holds. */
static inline uint64_t mmi_pt_four(const struct mm_pagetable *pt, const void *table, uint64_t i)
{
#ifdef MMI_PT_TSAN
    return mmi_pt_load(pt, table, i) | mmi_pt_load(pt, table, i + 1) |
           mmi_pt_load(pt, table, i + 2) | mmi_pt_load(pt, table, i + 3);
#else
    const mmi_pt_u64 *wide = (const mmi_pt_u64 *)table + i;
    const mmi_pt_u32 *narrow = (const mmi_pt_u32 *)table + i;

    if (mmi_ptf_entry_shift(pt) == 2)
        return narrow[0] | narrow[1] | narrow[2] | narrow[3];
    return wide[0] | wide[1] | wide[2] | wide[3];
#endif
}

/* Is a piece of a table without entries? */
static inline bool mmi_pt_blank(const struct mm_pagetable *pt, const void *table, uint64_t first,
                                uint64_t count)
{
    return (mmi_pt_four(pt, table, first) | mmi_pt_four(pt, table, first + count - 4)) == 0;
}

/* Entries of a piece of a table that are not 0; 1 if only one is asked for. */
static inline unsigned mmi_pt_tally_line(const struct mm_pagetable *pt, const void *table,
                                         uint64_t first, uint64_t count, unsigned most)
{
    unsigned live = 0;
    uint64_t i;

    if (MM_LIKELY(mmi_pt_blank(pt, table, first, count)))
        return 0;
    if (most == 1)
        return 1;
    for (i = first; i < first + count; i++)
        live += mmi_pt_load(pt, table, i) != 0;
    return live;
}

/* Entries of a table that are not 0, counted until there are `most` or some more: from `index`
 * on, a line at a time up and one down, and round; what is left of a run that goes page by page is
 * next to it. */
static unsigned mmi_pt_tally(const struct mm_pagetable *pt, const void *table, unsigned level,
                             uint64_t index, unsigned most)
{
    const uint64_t line = mmi_ptf_index_bits(pt) < 3 ? 4 : 8;
    uint64_t mask = mmi_pt_entries(pt, level) - 1, up = index & ~(line - 1), down = up, n;
    unsigned live = 0;

    for (n = 0; n <= mask && live < most; n += 2 * line) {
        live += mmi_pt_tally_line(pt, table, up, line, most);
        up = (up + line) & mask;
        if (live >= most || mask < line)
            break;
        down = (down - line) & mask;
        live += mmi_pt_tally_line(pt, table, down, line, most);
    }
    return live;
}

/* How many entries the iterator's table of this level has, where no note tells. More than can be
 * noted is some number too high to be noted. */
static MM_NOINLINE unsigned mmi_pt_left(const struct mmi_pt_iter *it, unsigned level, uint64_t off)
{
    struct mm_pagetable *pt = it->pt;
    const void *table = it->table[level];
    uint64_t index = mmi_pt_index(pt, off, level);
    /* a number would not be noted */
    bool any = !mmi_pt_counted(pt, level + 1) || (pt->flags & MM_PAGETABLE_KEEP_EMPTY) != 0;

    return mmi_pt_tally(pt, table, level, index, any ? 1 : mmi_pt_no_claim(pt));
}

/* After `taken` entries left the iterator's table of this level: notes how many there are now, or
 * unlinks the table if it is empty (I2, I3). True if it did. */
MMI_PT_FOLDED bool mmi_pt_settle(const struct mmi_pt_iter *it, unsigned level, uint64_t off,
                                 uint32_t taken, struct mm_pagetable_batch *b)
{
    struct mm_pagetable *pt = it->pt;
    unsigned most = mmi_pt_no_claim(pt), left;
    uint64_t index = mmi_pt_index(pt, off, level + 1);
    void *parent = it->table[level + 1];
    uint64_t e = mmi_pt_load(pt, parent, index);
    bool counted = mmi_pt_counted(pt, level + 1);

    if (mmi_pt_lent(pt, e, level + 1))
        return false;
    left = mmi_pt_count(pt, e);
    if (counted && MM_LIKELY(left != most))
        left -= taken;
    else
        left = mmi_pt_left(it, level, off);
    if (left == 0) {
        mmi_pt_store(pt, parent, index, 0);
        mmi_pt_note_table(b, off);
        /* as if of level 0: nothing is below */
        mmi_pt_bury_at(b, mmi_pt_table_pa(pt, e), it->table[level], 0);
        return true;
    }
    if (counted && (pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0)
        mmi_pt_set_count(pt, parent, index, e, left < most ? left : most);
    return false;
}

/* So many entries left the iterator's table of level 0: settles it, and those above it that get
 * empty. The first two levels are spelt out for the constants' sake. */
MMI_PT_FOLDED void mmi_pt_shrunk(struct mmi_pt_iter *it, uint64_t off, uint32_t taken,
                                 struct mm_pagetable_batch *b)
{
    unsigned root = mmi_pt_root_level(it->pt);

    if ((it->pt->flags & MM_PAGETABLE_KEEP_EMPTY) != 0 || !mmi_pt_settle(it, 0, off, taken, b))
        return;
    mmi_pt_up(it);
    if (root == 1 || !mmi_pt_settle(it, 1, off, 1, b))
        return;
    mmi_pt_up(it);
    while (root > 2 && it->level != root && mmi_pt_settle(it, it->level, off, 1, b))
        mmi_pt_up(it);
}

/* Leaves the iterator's table for the one above, and settles it if entries were taken out of it:
 * taken[level] of them. Returns how many tables went. */
static unsigned mmi_pt_up_settling(struct mmi_pt_iter *it, uint64_t off, uint32_t *taken,
                                   struct mm_pagetable_batch *b)
{
    bool gone = taken[it->level] != 0 && mmi_pt_settle(it, it->level, off, taken[it->level], b);

    taken[it->level] = 0;
    mmi_pt_up(it);
    taken[it->level] += gone;
    return gone;
}

/* Moves on, and settles each table that is left. */
static unsigned mmi_pt_move_settling(struct mmi_pt_iter *it, uint64_t to, uint32_t *taken,
                                     struct mm_pagetable_batch *b)
{
    uint64_t was = it->off;
    unsigned gone = 0;

    it->off = to;
    while (mmi_pt_outside(it, was))
        gone += mmi_pt_up_settling(it, was, taken, b);
    return gone;
}

static void mmi_pt_none_taken(uint32_t *taken)
{
    unsigned level;
    for (level = 0; level < MM_PAGETABLE_LEVELS_MAX; level++)
        taken[level] = 0;
}

/* May the whole table of this entry be dropped with all that it holds? */
static bool mmi_pt_droppable(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    return (pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0 &&
           (level != mmi_pt_root_level(pt) || mmi_pt_note(pt, e) == MMI_PT_OWN);
}

/* Does the range cover all of the entry that the iterator stands at? */
static bool mmi_pt_covered(const struct mmi_pt_iter *it)
{
    uint64_t size = mmi_pt_size(it->pt, it->level);
    return (it->off & (size - 1)) == 0 && it->end - it->off >= size;
}

/* Unmaps a range whose ends are borders of leaves. Returns how many entries went. */
static uint64_t mmi_pt_clear(struct mm_pagetable *pt, uint64_t off, uint64_t end,
                             struct mm_pagetable_batch *b)
{
    struct mmi_pt_iter it;
    uint64_t e, n, gone = 0;
    uint32_t taken[MM_PAGETABLE_LEVELS_MAX];

    mmi_pt_none_taken(taken);
    mmi_pt_begin(&it, pt, off, end);
    while (it.off < end) {
        struct mmi_pt_span span = mmi_pt_span_here(&it);
        e = mmi_pt_here(&it);
        if (!mmi_pt_is_table(pt, e, it.level)) {
            n = mmi_pt_take(b, &span, true);
        } else if (mmi_pt_covered(&it) && mmi_pt_droppable(pt, e, it.level)) {
            mmi_pt_store(pt, span.table, span.index, 0);
            mmi_pt_reap(b, mmi_pt_table_pa(pt, e), it.level - 1, it.off);
            n = 1;
        } else {
            mmi_pt_down(&it, mmi_pt_table_pa(pt, e));
            mmi_pt_look_on(&it);
            continue;
        }
        gone += n;
        if ((pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0)
            taken[it.level] += (uint32_t)n;
        (void)mmi_pt_move_settling(
            &it, it.level == 0 ? mmi_pt_span_end(pt, &span) : mmi_pt_entry_end(&it), taken, b);
    }
    mmi_pt_leave(&it);
    return gone;
}

/* Takes out the leaf or swap entry of one page, which is in no group. */
static MM_NOINLINE void mmi_pt_take_unusual(struct mm_pagetable_batch *b,
                                            const struct mmi_pt_iter *it)
{
    struct mm_pagetable *pt = it->pt;
    struct mmi_pt_span span;

    span.table = it->table[0];
    span.level = 0;
    span.index = mmi_pt_index(pt, it->off, 0);
    span.count = 1;
    span.off = it->off;
    (void)mmi_pt_take(b, &span, true);
}

/* The same; most are leaves that hardware leaves alone. */
static inline void mmi_pt_take_page(struct mm_pagetable_batch *b, const struct mmi_pt_iter *it,
                                    uint64_t e)
{
    struct mm_pagetable *pt = it->pt;

    if (MM_UNLIKELY(!mmi_pt_present(pt, e) || mmi_pt_unsteady(pt, e))) {
        mmi_pt_take_unusual(b, it);
        return;
    }
    mmi_pt_store(pt, it->table[0], mmi_pt_index(pt, it->off, 0), 0);
    mmi_pt_note_change(b, it->off, mmi_pt_size(pt, 0), 0, e);
    if (pt->hooks->release != NULL)
        mmi_pt_let_go(b, mmi_pt_table_pa(pt, e), mmi_pt_size(pt, 0), mmi_pt_tell(b, e, 0));
}

/* A single page, where it is one: one walk, then up again as far as tables are empty. False if a
 * larger leaf or a group is in the way. */
static bool mmi_pt_unmap_page(struct mmi_pt_call *call, enum mm_status *status)
{
    struct mm_pagetable *pt = call->pt;
    struct mmi_pt_iter it;
    uint64_t e;
    bool single;

    mmi_pt_begin(&it, pt, call->off, call->end);
    e = mmi_pt_descend(&it);
    single = e == 0 || (it.level == 0 && !mmi_pt_in_group(&it, e));
    *status = e == 0 ? MM_ERR_NOENT : MM_OK;
    if (single && e != 0) {
        mmi_pt_take_page(call->batch, &it, e);
        mmi_pt_shrunk(&it, it.off, 1, call->batch);
    }
    mmi_pt_leave(&it);
    return single;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_unmap(struct mm_pagetable *pt, mm_va_t va,
                                                   uint64_t bytes, struct mm_pagetable_batch *batch)
{
    struct mmi_pt_call call;
    enum mm_status status = mmi_pt_enter(&call, pt, "mm_pagetable_unmap", va, bytes, batch);

    if (status != MM_OK)
        return status;
    if (bytes == mmi_pt_size(pt, 0) && mmi_pt_unmap_page(&call, &status))
        return mmi_pt_exit(&call, status);
    status = mmi_pt_cut_ends(&call);
    if (status != MM_OK)
        return mmi_pt_exit(&call, status);
    if (mmi_pt_clear(pt, call.off, call.end, call.batch) == 0)
        status = MM_ERR_NOENT;
    return mmi_pt_exit(&call, status);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_destroy(struct mm_pagetable *pt, bool lent_too)
{
    uint64_t all = mmi_pt_space(pt), e;
    unsigned root = mmi_pt_root_level(pt);
    struct mm_pagetable_batch batch;
    struct mmi_pt_iter it;
    bool lent = false;

    mmi_pt_begin(&it, pt, 0, all);
    for (; it.off < all; mmi_pt_move(&it, mmi_pt_entry_end(&it))) {
        e = mmi_pt_here(&it);
        lent = lent || (mmi_pt_is_table(pt, e, root) && mmi_pt_lent(pt, e, root));
    }
    mmi_pt_leave(&it);
    if (lent && !lent_too)
        return mmi_pt_refuse(pt, "mm_pagetable_destroy", "entries are lent", MM_ERR_BUSY, 0);
    mm_pagetable_batch_init(&batch, pt, NULL, 0);
    mmi_pt_begin(&it, pt, 0, all);
    for (; it.off < all; mmi_pt_move(&it, mmi_pt_entry_end(&it))) {
        struct mmi_pt_span span = mmi_pt_span_here(&it);
        e = mmi_pt_here(&it);
        span.count = 1;
        if (!mmi_pt_is_table(pt, e, root)) {
            (void)mmi_pt_take(&batch, &span, true);
            continue;
        }
        mmi_pt_store(pt, span.table, span.index, 0);
        if (mmi_pt_note(pt, e) != MMI_PT_BORROWED) {
            mmi_pt_reap(&batch, mmi_pt_table_pa(pt, e), root - 1, it.off);
            mmi_pt_note_table(&batch, it.off); /* a lent one may be empty */
        } else {
            batch.unlinked = true;
            mmi_pt_note_change(&batch, it.off, mmi_pt_size(pt, root), 0, mmi_pt_any_leaf(pt));
        }
    }
    mmi_pt_leave(&it);
    mm_pagetable_batch_finish(&batch);
    pt->hooks->free(pt->hooks->ctx, pt->root, mmi_pt_table_bytes(pt, root));
    pt->root = MM_PA_NONE;
    return MM_OK;
}

/* ---- Map ------------------------------------------------------------------------------------- */

/* One walk plans: it finds what stands in the way, and counts the tables that are missing. They are
 * reserved, then the same walk is done again, and cannot fail. */
struct mmi_pt_map {
    struct mmi_pt_call call;
    mm_pa_t pa;            /* of call.off */
    const mm_pa_t *frames; /* of single pages, in place of pa */
    uint64_t leaf;         /* form of level 0, without address */
    uint64_t needed;       /* tables */
    uint32_t levels;       /* bit l: leaves of level l fit */
    bool replace, contig, commit;
};

static inline bool mmi_pt_places(const struct mmi_pt_map *m, const struct mmi_pt_iter *it,
                                 unsigned level, uint64_t end)
{
    uint64_t size = mmi_pt_size(it->pt, level);
    return (m->levels >> level & 1u) != 0 && (it->off & (size - 1)) == 0 && end - it->off >= size;
}

static inline mm_pa_t mmi_pt_map_pa(const struct mmi_pt_map *m, uint64_t off)
{
    return m->pa + (off - m->call.off);
}

/* Stores a run of leaves, each with the next frame. */
static inline void mmi_pt_write_run(struct mm_pagetable *pt, const struct mmi_pt_span *span,
                                    uint64_t e, bool linked)
{
    uint64_t step = mmi_pt_step_of(pt, span->level), last = span->index + span->count, i;

    if (linked)
        for (i = span->index; i < last; i++, e += step)
            mmi_pt_store(pt, span->table, i, e);
    else
        for (i = span->index; i < last; i++, e += step)
            mmi_pt_fill(pt, span->table, i, e);
}

static void mmi_pt_write_frames(const struct mmi_pt_map *m, const struct mmi_pt_span *span,
                                bool linked)
{
    struct mm_pagetable *pt = m->call.pt;
    uint64_t first = (span->off - m->call.off) >> MM_PAGETABLE_SHIFT, i;

    for (i = 0; i < span->count; i++) {
        uint64_t e = m->leaf | mmi_pt_pa_field(pt, m->frames[first + i]);
        if (linked)
            mmi_pt_store(pt, span->table, span->index + i, e);
        else
            mmi_pt_fill(pt, span->table, span->index + i, e);
    }
}

/* A run of level 0 with its aligned sixteens as groups. */
static void mmi_pt_write_groups(const struct mmi_pt_map *m, const struct mmi_pt_span *span,
                                bool linked)
{
    struct mm_pagetable *pt = m->call.pt;
    uint64_t i = 0, page = mmi_pt_size(pt, 0);

    while (i < span->count) {
        uint64_t off = span->off + i * page, in = off >> MM_PAGETABLE_SHIFT & 15, k;
        mm_pa_t pa = mmi_pt_map_pa(m, off);
        struct mmi_pt_span part = *span;
        part.index += i;
        part.off = off;
        part.count = 16 - in < span->count - i ? 16 - in : span->count - i;
        i += part.count;
        if (part.count != 16) {
            mmi_pt_write_run(pt, &part, m->leaf | mmi_pt_pa_field(pt, pa), linked);
            continue;
        }
        for (k = 0; k < 16; k++) {
            struct mmi_pt_span one = part;
            uint64_t e = m->leaf | mmi_ptf_contig(pt);
            one.index += k;
            one.count = 1;
            e |= mmi_ptf_contig_ppn(pt) != 0
                     ? mmi_pt_pa_field(pt, pa) |
                           mmi_pt_shl(mmi_ptf_contig_ppn(pt), mmi_ptf_ppn_shift(pt))
                     : mmi_pt_pa_field(pt, pa + k * page);
            mmi_pt_write_run(pt, &one, e, linked);
        }
    }
}

static inline void mmi_pt_write(const struct mmi_pt_map *m, const struct mmi_pt_span *span,
                                bool linked)
{
    struct mm_pagetable *pt = m->call.pt;

    if (m->frames != NULL)
        mmi_pt_write_frames(m, span, linked);
    else if (m->contig && span->level == 0)
        mmi_pt_write_groups(m, span, linked);
    else
        mmi_pt_write_run(pt, span,
                         mmi_pt_raised(pt, m->leaf, span->level) |
                             mmi_pt_pa_field(pt, mmi_pt_map_pa(m, span->off)),
                         linked);
}

/* Must what is replaced be out before the new leaf is stored? */
static bool mmi_pt_leaves_hole(const struct mmi_pt_map *m)
{
    return mmi_ptf_break_first(m->call.pt) != 0 || (m->call.pt->flags & MM_PAGETABLE_CONTIGUOUS);
}

/* Puts a new leaf in the place of one old entry, so that nobody sees a hole. What hardware does to
 * the old leaf counts until the exchange. */
static void mmi_pt_exchange(const struct mmi_pt_map *m, const struct mmi_pt_span *one)
{
    struct mm_pagetable *pt = m->call.pt;
    struct mm_pagetable_batch *b = m->call.batch;
    uint64_t size = mmi_pt_size(pt, one->level), e, next;
    mm_pa_t pa = m->frames != NULL ? m->frames[(one->off - m->call.off) >> MM_PAGETABLE_SHIFT]
                                   : mmi_pt_map_pa(m, one->off);

    next = mmi_pt_raised(pt, m->leaf, one->level) | mmi_pt_pa_field(pt, pa);
    do {
        e = mmi_pt_load(pt, one->table, one->index);
    } while (!mmi_pt_cas(pt, one->table, one->index, e, next));
    if (mmi_pt_is_table(pt, e, one->level)) {
        mmi_pt_reap(b, mmi_pt_table_pa(pt, e), one->level - 1, one->off);
    } else if (mmi_pt_present(pt, e)) {
        mmi_pt_note_change(b, one->off, size, one->level, e);
        mmi_pt_let_go(b, mmi_pt_leaf_pa(pt, e, one->level, one->off), size,
                      mmi_pt_decode(pt, e, one->level) & ~MM_PAGETABLE_CONTIG);
    } else if (e != 0) {
        mmi_pt_let_go(b, e >> MMI_PT_SWAP_SHIFT, size, MM_PAGETABLE_SWAP);
    }
}

/* Replaces what stands in a span, or takes it out where there has to be a hole first. Returns how
 * many entries stood there. */
static uint64_t mmi_pt_displace(const struct mmi_pt_map *m, const struct mmi_pt_span *span)
{
    struct mm_pagetable *pt = m->call.pt;
    uint64_t i, size = mmi_pt_size(pt, span->level), stood = 0;
    struct mmi_pt_span one = *span;

    for (i = 0; i < span->count; i += one.count) {
        uint64_t e = mmi_pt_load(pt, span->table, span->index + i);
        one.index = span->index + i;
        one.off = span->off + i * size;
        one.count = 1;
        if (!mmi_pt_leaves_hole(m)) {
            stood += e != 0;
            mmi_pt_exchange(m, &one);
        } else if (mmi_pt_is_table(pt, e, span->level)) {
            stood++;
            mmi_pt_store(pt, span->table, one.index, 0);
            mmi_pt_reap(m->call.batch, mmi_pt_table_pa(pt, e), span->level - 1, one.off);
        } else {
            one.count = span->level == 0 ? span->count : 1;
            stood += mmi_pt_take(m->call.batch, &one, true);
        }
    }
    if (mmi_ptf_break_first(pt) != 0)
        mmi_pt_batch_flush(m->call.batch);
    return stood;
}

/* The iterator's table of this level has `more` entries than before (I2). */
MMI_PT_FOLDED void mmi_pt_grown(const struct mmi_pt_iter *it, unsigned level, uint64_t off,
                                uint64_t more)
{
    struct mm_pagetable *pt = it->pt;
    unsigned above = level + 1, most = mmi_pt_no_claim(pt);
    uint64_t index, e, count;

    if (above > mmi_pt_root_level(pt) || !mmi_pt_counted(pt, above) ||
        (pt->flags & MM_PAGETABLE_KEEP_EMPTY) != 0)
        return;
    index = mmi_pt_index(pt, off, above);
    e = mmi_pt_load(pt, it->table[above], index);
    count = mmi_pt_count(pt, e);
    if (count == most)
        return;
    count += more;
    mmi_pt_set_count(pt, it->table[above], index, e, (unsigned)(count < most ? count : most));
}

/* How many leaves fit from where the iterator stands: cut short before a table that stays; 0 if the
 * walk has to go down. */
static enum mm_status mmi_pt_fit(const struct mmi_pt_map *m, const struct mmi_pt_iter *it,
                                 struct mmi_pt_span *span)
{
    struct mm_pagetable *pt = it->pt;
    uint64_t end = mmi_pt_table_end(it), i;

    span->table = it->table[it->level];
    span->level = it->level;
    span->index = mmi_pt_index(pt, it->off, it->level);
    span->off = it->off;
    span->count = 0;
    if (!mmi_pt_places(m, it, it->level, end))
        return MM_OK;
    span->count = mmi_pt_shr(end - it->off, mmi_pt_shift(pt, it->level));
    if (span->table == NULL || (it->level == 0 && (m->commit || m->replace)))
        return MM_OK;
    for (i = 0; i < span->count; i++) {
        uint64_t e = mmi_pt_load(pt, span->table, span->index + i);
        if (e == 0)
            continue;
        if (mmi_pt_is_table(pt, e, it->level)) {
            if (m->replace && mmi_pt_droppable(pt, e, it->level))
                continue;
            span->count = i;
            return MM_OK;
        }
        if (!m->replace)
            return MM_ERR_EXISTS;
    }
    return MM_OK;
}

/* Puts leaves into a table that exists. */
static void mmi_pt_put(const struct mmi_pt_map *m, struct mmi_pt_iter *it,
                       const struct mmi_pt_span *span)
{
    uint64_t stood = m->replace ? mmi_pt_displace(m, span) : 0;

    if (!m->replace || mmi_pt_leaves_hole(m))
        mmi_pt_write(m, span, true);
    mmi_pt_grown(it, it->level, span->off, span->count - stood);
    mmi_pt_note_filled(m->call.batch, span->off, mmi_pt_span_end(it->pt, span) - span->off,
                       span->level, m->leaf);
}

/* Would a table below this entry hold nothing but leaves of the level below? */
static inline bool mmi_pt_all_leaves(const struct mmi_pt_map *m, const struct mmi_pt_iter *it,
                                     uint64_t end)
{
    return mmi_pt_places(m, it, it->level - 1, end) &&
           (end & (mmi_pt_size(it->pt, it->level - 1) - 1)) == 0;
}

/* Makes the table that is missing below this entry. One that holds nothing but leaves is filled,
 * then linked, and is done; another is linked empty, and the walk goes down. */
static void mmi_pt_grow(struct mmi_pt_map *m, struct mmi_pt_iter *it)
{
    struct mm_pagetable *pt = it->pt;
    void *parent = it->table[it->level], *table;
    uint64_t index = mmi_pt_index(pt, it->off, it->level), end = mmi_pt_entry_end(it);
    mm_pa_t pa = mmi_pt_spare_take(&m->call.spare, &table);
    unsigned below = it->level - 1;
    uint64_t bytes = mmi_pt_table_bytes(pt, below);
    struct mmi_pt_span span;

    mmi_pt_grown(it, it->level, it->off, 1);
    mmi_pt_note_linked(m->call.batch);
    if (!mmi_pt_all_leaves(m, it, end)) {
        MM_PAGETABLE_MEMSET(table, 0, (size_t)bytes);
        mmi_pt_link(pt, parent, index, mmi_pt_entry_of(pt, it->level, pa, 0));
        it->table[--it->level] = table;
        return;
    }
    span.table = table;
    span.level = below;
    span.index = mmi_pt_index(pt, it->off, below);
    span.count = mmi_pt_shr(end - it->off, mmi_pt_shift(pt, below));
    span.off = it->off;
    if (span.count != mmi_pt_entries(pt, below))
        MM_PAGETABLE_MEMSET(table, 0, (size_t)bytes);
    mmi_pt_write(m, &span, false);
    mmi_pt_link(pt, parent, index, mmi_pt_entry_of(pt, it->level, pa, span.count));
    mmi_pt_close(pt, table);
    mmi_pt_note_filled(m->call.batch, it->off, end - it->off, below, m->leaf);
    mmi_pt_move(it, end);
}

/* The same, planned: one table, and the walk goes down only if there is more to count. */
static void mmi_pt_plan_table(struct mmi_pt_map *m, struct mmi_pt_iter *it)
{
    uint64_t end = mmi_pt_entry_end(it);

    m->needed++;
    if (mmi_pt_all_leaves(m, it, end))
        mmi_pt_move(it, end);
    else
        mmi_pt_down_nowhere(it);
}

/* Goes a level down, where no leaf fits. */
static enum mm_status mmi_pt_map_down(struct mmi_pt_map *m, struct mmi_pt_iter *it)
{
    struct mm_pagetable *pt = it->pt;
    uint64_t e = it->table[it->level] != NULL ? mmi_pt_here(it) : 0;

    if ((m->levels & ((1u << it->level) - 1)) == 0)
        return MM_ERR_EXISTS; /* a table of smaller pages than asked for */
    if (mmi_pt_is_table(pt, e, it->level)) {
        mmi_pt_down(it, mmi_pt_table_pa(pt, e));
        return MM_OK;
    }
    if (e != 0 && !m->replace)
        return MM_ERR_EXISTS;
    if (!m->commit)
        mmi_pt_plan_table(m, it);
    else if (e == 0)
        mmi_pt_grow(m, it);
    else
        mmi_pt_split_here(it, &m->call.spare, m->call.batch);
    return MM_OK;
}

static enum mm_status mmi_pt_map_pass(struct mmi_pt_map *m)
{
    struct mmi_pt_iter it;
    struct mmi_pt_span span;
    enum mm_status status = MM_OK;

    mmi_pt_begin(&it, m->call.pt, m->call.off, m->call.end);
    while (it.off < it.end && status == MM_OK) {
        status = mmi_pt_fit(m, &it, &span);
        if (status != MM_OK)
            break;
        if (span.count == 0) {
            status = mmi_pt_map_down(m, &it);
            continue;
        }
        if (m->commit)
            mmi_pt_put(m, &it, &span);
        mmi_pt_move(&it, mmi_pt_span_end(it.pt, &span));
    }
    mmi_pt_leave(&it);
    return status;
}

/* One page into what is empty: one walk, at whose end the missing tables are known. */
static enum mm_status mmi_pt_map_page(struct mmi_pt_map *m)
{
    struct mm_pagetable *pt = m->call.pt;
    struct mmi_pt_iter it;
    enum mm_status status = MM_OK;

    mmi_pt_begin(&it, pt, m->call.off, m->call.end);
    if (mmi_pt_descend(&it) != 0) {
        status = MM_ERR_EXISTS;
    } else if (it.level == 0) {
        mmi_pt_store(pt, it.table[0], mmi_pt_index(pt, it.off, 0),
                     m->leaf | mmi_pt_pa_field(pt, m->frames != NULL ? m->frames[0] : m->pa));
        mmi_pt_grown(&it, 0, it.off, 1);
        mmi_pt_note_filled(m->call.batch, it.off, mmi_pt_size(pt, 0), 0, m->leaf);
    } else {
        status = mmi_pt_reserve(&m->call.spare, it.level);
        m->commit = true;
        while (status == MM_OK && it.off < it.end)
            mmi_pt_grow(m, &it);
    }
    mmi_pt_leave(&it);
    return status;
}

/* Plans, reserves, commits. */
static enum mm_status mmi_pt_map_run(struct mmi_pt_map *m)
{
    struct mm_pagetable *pt = m->call.pt;
    enum mm_status status;

    mmi_pt_before_new(m->call.batch);
    if (m->call.end - m->call.off == mmi_pt_size(pt, 0) && !m->replace)
        return mmi_pt_map_page(m);
    m->needed = 0;
    m->commit = false;
    status = mmi_pt_map_pass(m);
    if (status == MM_OK)
        status = mmi_pt_reserve(&m->call.spare, m->needed);
    if (status != MM_OK)
        return status;
    if (m->replace) {
        mmi_pt_part_group(pt, m->call.off, m->call.batch);
        mmi_pt_part_group(pt, m->call.end, m->call.batch);
    }
    m->commit = true;
    status = mmi_pt_map_pass(m);
    MM_PAGETABLE_ASSERT(status == MM_OK && m->call.spare.head == MM_PA_NONE);
    return status;
}

/* Leaf levels that fit: what policy, `how` and the distance of addresses allow. */
static uint32_t mmi_pt_map_levels(const struct mm_pagetable *pt, unsigned how, mm_va_t va,
                                  mm_pa_t pa)
{
    unsigned max = (how >> 4) & 15u, min = (how >> 8) & 15u, level;
    uint32_t levels = pt->leaf_levels;

    for (level = 0; level < mmi_ptf_levels(pt); level++) {
        bool fits = ((va ^ pa) & (mmi_pt_size(pt, level) - 1)) == 0;
        if (!fits || (max != 0 && level >= max) || (min != 0 && level + 1 < min))
            levels &= ~(1u << level);
    }
    return levels;
}

/* What concerns one mapping call before the lock: attributes, and the leaf they make. */
static enum mm_status mmi_pt_new_leaf(const struct mm_pagetable *pt, uint32_t attr, uint64_t *leaf)
{
    if ((pt->flags & MM_PAGETABLE_PRESET_AD) != 0)
        attr |=
            MM_PAGETABLE_ACCESSED | ((attr & MM_PAGETABLE_WRITE) != 0 ? MM_PAGETABLE_DIRTY : 0u);
    return mmi_pt_encode(pt, attr, leaf);
}

/* The same; a batch knows the last one. */
static enum mm_status mmi_pt_make_leaf(const struct mm_pagetable *pt, uint32_t attr,
                                       struct mm_pagetable_batch *batch, uint64_t *leaf)
{
    enum mm_status status;

    if (batch != NULL && batch->made_attr == attr && batch->pt == pt) {
        *leaf = batch->made_leaf;
        return MM_OK;
    }
    status = mmi_pt_new_leaf(pt, attr, leaf);
    if (batch != NULL && status == MM_OK && batch->pt == pt) {
        batch->made_attr = attr;
        batch->made_leaf = *leaf;
    }
    return status;
}

/* Is this a physical range that the processor has? */
static bool mmi_pt_good_pa(const struct mm_pagetable *pt, mm_pa_t pa, uint64_t bytes)
{
    uint64_t last;
    return !mm_add_overflows(pa, bytes - 1, &last) && last < mmi_pt_shl(1, pt->pa_bits);
}

/* Do the smallest leaves that are allowed fit the request? */
static bool mmi_pt_min_fits(const struct mm_pagetable *pt, uint32_t levels, unsigned how,
                            uint64_t borders)
{
    unsigned min = (how >> 8) & 15u;
    if (min == 0)
        return levels != 0;
    return (levels >> (min - 1) & 1u) != 0 && (borders & (mmi_pt_size(pt, min - 1) - 1)) == 0;
}

/* What can be said of a mapping before the lock is taken. */
static enum mm_status mmi_pt_map_args(struct mmi_pt_map *m, struct mm_pagetable *pt, mm_va_t va,
                                      mm_pa_t pa, uint64_t bytes, uint32_t attr, unsigned how,
                                      struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_map";

    if ((how & ~0xff1u) != 0 || (how >> 8) > mmi_ptf_levels(pt))
        return mmi_pt_refuse(pt, where, "how", MM_ERR_INVALID, va);
    if (mmi_pt_make_leaf(pt, attr, batch, &m->leaf) != MM_OK)
        return mmi_pt_refuse(pt, where, "attributes", MM_ERR_INVALID, va);
    if ((pa & (mmi_pt_size(pt, 0) - 1)) != 0)
        return mmi_pt_refuse(pt, where, "misaligned frame", MM_ERR_ALIGN, va);
    if (bytes == 0 || !mmi_pt_good_pa(pt, pa, bytes))
        return mmi_pt_refuse(pt, where, "frame beyond the width", MM_ERR_INVALID, va);
    if (bytes == mmi_pt_size(pt, 0) && (how & ~MM_PAGETABLE_REPLACE) == 0)
        m->levels = 1;
    else
        m->levels = mmi_pt_map_levels(pt, how, va, pa);
    if (!mmi_pt_min_fits(pt, m->levels, how, va | bytes))
        return mmi_pt_refuse(pt, where, "no leaf fits", MM_ERR_ALIGN, va);
    m->pa = pa;
    m->frames = NULL;
    m->replace = (how & MM_PAGETABLE_REPLACE) != 0;
    m->contig = (pt->flags & MM_PAGETABLE_CONTIGUOUS) != 0 && mmi_ptf_contig(pt) != 0 &&
                ((va ^ pa) >> MM_PAGETABLE_SHIFT & 15) == 0;
    return MM_OK;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_map(struct mm_pagetable *pt, mm_va_t va, mm_pa_t pa,
                                                 uint64_t bytes, uint32_t attr, unsigned how,
                                                 struct mm_pagetable_batch *batch)
{
    struct mmi_pt_map m;
    enum mm_status status = mmi_pt_map_args(&m, pt, va, pa, bytes, attr, how, batch);

    if (status == MM_OK)
        status = mmi_pt_enter(&m.call, pt, "mm_pagetable_map", va, bytes, batch);
    if (status != MM_OK)
        return status;
    return mmi_pt_exit(&m.call, mmi_pt_map_run(&m));
}

MM_PAGETABLE_API enum mm_status mm_pagetable_map_frames(struct mm_pagetable *pt, mm_va_t va,
                                                        const mm_pa_t *frames, size_t count,
                                                        uint32_t attr, unsigned how,
                                                        struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_map_frames";
    uint64_t bytes = (uint64_t)count << MM_PAGETABLE_SHIFT;
    struct mmi_pt_map m;
    enum mm_status status;
    size_t i;

    if ((how & ~0xf1u) != 0 || mmi_pt_make_leaf(pt, attr, batch, &m.leaf) != MM_OK)
        return mmi_pt_refuse(pt, where, "attributes", MM_ERR_INVALID, va);
    if (frames == NULL || bytes >> MM_PAGETABLE_SHIFT != count)
        return mmi_pt_refuse(pt, where, "no frames", MM_ERR_INVALID, va);
    for (i = 0; i < count; i++) {
        if ((frames[i] & (mmi_pt_size(pt, 0) - 1)) != 0)
            return mmi_pt_refuse(pt, where, "misaligned frame", MM_ERR_ALIGN, va);
        if (!mmi_pt_good_pa(pt, frames[i], mmi_pt_size(pt, 0)))
            return mmi_pt_refuse(pt, where, "frame beyond the width", MM_ERR_INVALID, va);
    }
    status = mmi_pt_enter(&m.call, pt, where, va, bytes, batch);
    if (status != MM_OK)
        return status;
    m.pa = 0;
    m.frames = frames;
    m.levels = 1;
    m.replace = (how & MM_PAGETABLE_REPLACE) != 0;
    m.contig = false;
    return mmi_pt_exit(&m.call, mmi_pt_map_run(&m));
}

MM_PAGETABLE_API enum mm_status mm_pagetable_map_linear(struct mm_pagetable *pt, mm_pa_t pa,
                                                        uint64_t bytes, uint64_t offset,
                                                        uint32_t attr, unsigned how,
                                                        struct mm_pagetable_batch *batch)
{
    return mm_pagetable_map(pt, pa + offset, pa, bytes, attr, how, batch);
}

/* ---- Protect --------------------------------------------------------------------------------- */

/* How a leaf changes, in the form of level 0. */
struct mmi_pt_change {
    uint64_t clear, set;
    bool breaks; /* break-before-make */
};

static uint64_t mmi_pt_changed(const struct mm_pagetable *pt, const struct mmi_pt_change *change,
                               uint64_t e, unsigned level)
{
    e = mmi_pt_settled(pt, mmi_pt_flat(pt, e, level));
    return mmi_pt_raised(pt, mmi_pt_sealed(pt, (e & ~change->clear) | change->set), level);
}

/* Break-before-make: takes out the leaf of entry `i`, or its whole group, flushes, and puts in what
 * it becomes. Returns how many entries from `i` on. */
static uint64_t mmi_pt_remake(struct mm_pagetable_batch *b, const struct mmi_pt_span *span,
                              uint64_t i, const struct mmi_pt_change *change)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t old[16], e = mmi_pt_load(pt, span->table, i), size = mmi_pt_size(pt, span->level), k;
    uint64_t count = span->level == 0 && (e & mmi_ptf_contig(pt)) != 0 ? 16 : 1, from = i;

    i &= ~(count - 1); /* hardware may have marked one in the midst of a group */
    for (k = 0; k < count; k++)
        do {
            old[k] = mmi_pt_load(pt, span->table, i + k);
        } while (!mmi_pt_cas(pt, span->table, i + k, old[k], 0));
    mmi_pt_note_change(b, span->off + (i - span->index) * size, count * size, span->level, e);
    mmi_pt_batch_flush(b);
    for (k = 0; k < count; k++)
        mmi_pt_store(pt, span->table, i + k, mmi_pt_changed(pt, change, old[k], span->level));
    return i + count - from;
}

/* Changes one run of equal leaves; returns its length. */
static uint64_t mmi_pt_recolor_run(struct mm_pagetable_batch *b, const struct mmi_pt_span *span,
                                   uint64_t i, uint64_t e, const struct mmi_pt_change *change)
{
    struct mm_pagetable *pt = b->pt;
    uint64_t from = i, next = mmi_pt_changed(pt, change, e, span->level);

    if (next == e)
        return mmi_pt_same(pt, span, i, e);
    /* memory types, and a global entry must not meet one that is not (Arm ARM D8.16.1) */
    if (change->breaks || (mmi_ptf_break_first(pt) != 0 && ((next ^ e) & mmi_ptf_global(pt)) != 0))
        return mmi_pt_remake(b, span, i, change);
    if (mmi_pt_unsteady(pt, e)) {
        while (!mmi_pt_cas(pt, span->table, i, e, next)) {
            e = mmi_pt_load(pt, span->table, i);
            next = mmi_pt_changed(pt, change, e, span->level);
        }
        i++;
    } else {
        i += mmi_pt_follow(pt, span, i, e, next, MMI_PT_CHANGE);
    }
    mmi_pt_note_change(b, span->off + (from - span->index) * mmi_pt_size(pt, span->level),
                       (i - from) * mmi_pt_size(pt, span->level), span->level, e);
    if (mmi_ptf_family(pt) == MM_PAGETABLE_FAMILY_RISCV && mmi_pt_is_global(pt, next))
        b->global = true;
    return i - from;
}

/* Changes the leaves of a span; returns how many there were. */
static uint64_t mmi_pt_recolor(struct mm_pagetable_batch *b, const struct mmi_pt_span *span,
                               const struct mmi_pt_change *change)
{
    uint64_t i = span->index, last = i + span->count, seen = 0, n;

    while (i < last) {
        uint64_t e = mmi_pt_load(b->pt, span->table, i);
        n = 1;
        if (mmi_pt_present(b->pt, e)) {
            n = mmi_pt_recolor_run(b, span, i, e, change);
            seen += n;
        }
        i += n;
    }
    return seen;
}

/* Is this a sum of groups, and does it hold all attributes given? */
static bool mmi_pt_good_mask(uint32_t attr, uint32_t mask)
{
    const uint32_t groups[] = {MM_PAGETABLE_PERMS, MM_PAGETABLE_TYPES, MM_PAGETABLE_SOFTS,
                               MM_PAGETABLE_KEYS};
    uint32_t rest = mask, i;

    for (i = 0; i < 4; i++)
        if ((mask & groups[i]) == groups[i])
            rest &= ~groups[i];
    return mask != 0 && rest == 0 && (attr & ~mask) == 0;
}

/* The change that gives a leaf the attributes `attr` of the groups in `mask`. */
static enum mm_status mmi_pt_make_change(const struct mm_pagetable *pt, uint32_t attr,
                                         uint32_t mask, struct mm_pagetable_batch *batch,
                                         struct mmi_pt_change *change)
{
    bool writable = (attr & MM_PAGETABLE_WRITE) != 0;

    if (!mmi_pt_good_mask(attr, mask))
        return MM_ERR_INVALID;
    if ((mask & MM_PAGETABLE_PERMS) == 0)
        attr |= MM_PAGETABLE_READ | MM_PAGETABLE_EXEC; /* every format and policy has this */
    if (mmi_pt_make_leaf(pt, attr, batch, &change->set) != MM_OK)
        return MM_ERR_INVALID;
    change->clear = mmi_pt_group_bits(pt, mask);
    change->set &= change->clear | (writable ? mmi_ptf_dirty(pt) : 0);
    change->breaks = mmi_ptf_break_first(pt) != 0 && (mask & MM_PAGETABLE_TYPES) != 0;
    return MM_OK;
}

/* A single page, where it is one. False if a larger leaf or a group is in the way. */
static bool mmi_pt_protect_page(struct mmi_pt_call *call, const struct mmi_pt_change *change,
                                enum mm_status *status)
{
    struct mm_pagetable *pt = call->pt;
    struct mmi_pt_iter it;
    struct mmi_pt_span span;
    uint64_t e;
    bool single;

    mmi_pt_begin(&it, pt, call->off, call->end);
    e = mmi_pt_descend(&it);
    single = !mmi_pt_present(pt, e) || (it.level == 0 && !mmi_pt_in_group(&it, e));
    *status = mmi_pt_present(pt, e) ? MM_OK : MM_ERR_NOENT;
    if (single && *status == MM_OK) {
        span.table = it.table[0];
        span.level = 0;
        span.index = mmi_pt_index(pt, it.off, 0);
        span.count = 1;
        span.off = it.off;
        (void)mmi_pt_recolor_run(call->batch, &span, span.index, e, change);
    }
    mmi_pt_leave(&it);
    return single;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_protect(struct mm_pagetable *pt, mm_va_t va,
                                                     uint64_t bytes, uint32_t attr, uint32_t mask,
                                                     struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_protect";
    struct mmi_pt_change change;
    struct mmi_pt_call call;
    struct mmi_pt_iter it;
    enum mm_status status;
    uint64_t e, seen = 0;

    if (mmi_pt_make_change(pt, attr, mask, batch, &change) != MM_OK)
        return mmi_pt_refuse(pt, where, "attributes", MM_ERR_INVALID, va);
    status = mmi_pt_enter(&call, pt, where, va, bytes, batch);
    if (status != MM_OK)
        return status;
    if (bytes == mmi_pt_size(pt, 0) && mmi_pt_protect_page(&call, &change, &status))
        return mmi_pt_exit(&call, status);
    status = mmi_pt_cut_ends(&call);
    if (status != MM_OK)
        return mmi_pt_exit(&call, status);
    mmi_pt_begin(&it, pt, call.off, call.end);
    while (mmi_pt_next_leaf(&it, &e)) {
        struct mmi_pt_span span = mmi_pt_span_here(&it);
        seen += mmi_pt_recolor(call.batch, &span, &change);
        mmi_pt_move(&it, it.level == 0 ? mmi_pt_span_end(pt, &span) : mmi_pt_entry_end(&it));
    }
    mmi_pt_leave(&it);
    return mmi_pt_exit(&call, seen != 0 ? MM_OK : MM_ERR_NOENT);
}

/* ---- Swap entries, marks --------------------------------------------------------------------- */

MM_PAGETABLE_API enum mm_status mm_pagetable_swap(struct mm_pagetable *pt, mm_va_t va,
                                                  uint64_t value, struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_swap";
    unsigned bits = (8u << mmi_ptf_entry_shift(pt)) - MMI_PT_SWAP_SHIFT;
    struct mmi_pt_map m;
    enum mm_status status;

    if (mmi_pt_shr(value, bits) != 0)
        return mmi_pt_refuse(pt, where, "value", MM_ERR_INVALID, va);
    status = mmi_pt_enter(&m.call, pt, where, va, mmi_pt_size(pt, 0), batch);
    if (status != MM_OK)
        return status;
    /* planned as a mapping of one page: the same tables are missing */
    m.pa = 0;
    m.frames = &m.pa;
    m.levels = 1;
    m.replace = true;
    m.contig = false;
    m.leaf = value << MMI_PT_SWAP_SHIFT | MMI_PT_SWAP_MARK;
    return mmi_pt_exit(&m.call, mmi_pt_map_run(&m));
}

/* Accessed and dirty bits of the leaf `e` that the iterator stands at: of a group those of all its
 * entries, because hardware may use any of them for any of its pages. With `change` the leaf, or
 * all of the group, is changed too. */
static uint64_t mmi_pt_touch_leaf(const struct mmi_pt_iter *it, uint64_t e,
                                  const struct mmi_pt_change *change)
{
    struct mm_pagetable *pt = it->pt;
    void *table = it->table[it->level];
    uint64_t first = mmi_pt_index(pt, it->off, it->level), last = first, i, marks = 0;

    if (mmi_pt_in_group(it, e)) {
        first &= ~UINT64_C(15);
        last = first + 15;
    }
    for (i = first; i <= last; i++) {
        do {
            e = mmi_pt_load(pt, table, i);
        } while (change != NULL &&
                 !mmi_pt_cas(pt, table, i, e, mmi_pt_changed(pt, change, e, it->level)));
        marks |= mmi_pt_settled(pt, e);
    }
    return marks & (mmi_ptf_accessed(pt) | mmi_ptf_dirty(pt));
}

/* Bits of a level-0 leaf for these of accessed and dirty. */
static uint64_t mmi_pt_ad_bits(const struct mm_pagetable *pt, uint32_t attr)
{
    return mmi_pt_toggle(0, attr, MM_PAGETABLE_ACCESSED, mmi_ptf_accessed(pt)) |
           mmi_pt_toggle(0, attr, MM_PAGETABLE_DIRTY, mmi_ptf_dirty(pt));
}

/* The same the other way. */
static uint32_t mmi_pt_told_marks(const struct mm_pagetable *pt, uint64_t marks)
{
    return ((marks & mmi_ptf_accessed(pt)) != 0 ? MM_PAGETABLE_ACCESSED : 0u) |
           ((marks & mmi_ptf_dirty(pt)) != 0 ? MM_PAGETABLE_DIRTY : 0u);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_mark(struct mm_pagetable *pt, mm_va_t va, uint32_t set)
{
    static const char where[] = "mm_pagetable_mark";
    mm_va_t page = va & ~(mmi_pt_size(pt, 0) - 1);
    struct mmi_pt_call call;
    struct mmi_pt_change change;
    struct mmi_pt_iter it;
    enum mm_status status;
    uint64_t e, size;

    if (set == 0 || (set & ~MMI_PT_AD) != 0)
        return mmi_pt_refuse(pt, where, "bits", MM_ERR_INVALID, va);
    status = mmi_pt_enter(&call, pt, where, page, mmi_pt_size(pt, 0), NULL);
    if (status != MM_OK)
        return status;
    change.clear = 0;
    change.set = mmi_pt_ad_bits(pt, set);
    mmi_pt_begin(&it, pt, call.off, call.end);
    e = mmi_pt_bottom(&it);
    status = mmi_pt_present(pt, e) ? MM_OK : MM_ERR_NOENT;
    if (status == MM_OK) {
        (void)mmi_pt_touch_leaf(&it, e, &change);
        size = mmi_pt_in_group(&it, e) ? 16 * mmi_pt_size(pt, 0) : mmi_pt_size(pt, it.level);
        /* a TLB may hold the leaf as it was, read-only */
        if (mmi_ptf_hw_write(pt) != 0 && (set & MM_PAGETABLE_DIRTY) != 0)
            mmi_pt_note_change(call.batch, it.off & ~(size - 1), size, it.level, e);
    }
    mmi_pt_leave(&it);
    return mmi_pt_exit(&call, status);
}

/* ---- Split, collapse, sweep ------------------------------------------------------------------ */

MM_PAGETABLE_API enum mm_status mm_pagetable_split(struct mm_pagetable *pt, mm_va_t va,
                                                   unsigned level, struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_split";
    mm_va_t page = va & ~(mmi_pt_size(pt, 0) - 1);
    struct mmi_pt_call call;
    struct mmi_pt_iter it;
    enum mm_status status;
    uint64_t e;

    if (level >= mmi_ptf_levels(pt))
        return mmi_pt_refuse(pt, where, "no such level", MM_ERR_INVALID, va);
    status = mmi_pt_enter(&call, pt, where, page, mmi_pt_size(pt, 0), batch);
    if (status != MM_OK)
        return status;
    mmi_pt_begin(&it, pt, call.off, call.end);
    e = mmi_pt_bottom(&it);
    status = mmi_pt_present(pt, e) ? MM_OK : MM_ERR_NOENT;
    if (status == MM_OK && it.level > level)
        status = mmi_pt_reserve(&call.spare, it.level - level);
    while (status == MM_OK && it.level > level) {
        mmi_pt_split_here(&it, &call.spare, call.batch);
        mmi_pt_down(&it, mmi_pt_table_pa(pt, mmi_pt_here(&it)));
    }
    mmi_pt_leave(&it);
    return mmi_pt_exit(&call, status);
}

/* A leaf without what may differ between leaves that fit together, in the form of level 0. */
static uint64_t mmi_pt_essence(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    uint64_t differ = mmi_ptf_accessed(pt) | mmi_ptf_dirty(pt) | mmi_ptf_hw_write(pt) |
                      mmi_ptf_contig(pt) | mmi_ptf_pa_mask(pt);
    e = mmi_pt_flat(pt, e, level);
    return e & ~differ;
}

/* Accessed and dirty bits of all leaves of a table, in the form of level 0. */
static uint64_t mmi_pt_marks(const struct mm_pagetable *pt, const void *table, unsigned level)
{
    uint64_t marks = 0, i;
    for (i = 0; i < mmi_pt_entries(pt, level); i++)
        marks |= mmi_pt_settled(pt, mmi_pt_flat(pt, mmi_pt_load(pt, table, i), level));
    return marks & (mmi_ptf_accessed(pt) | mmi_ptf_dirty(pt));
}

/* Do the entries of this table make one leaf? */
static bool mmi_pt_uniform(const struct mm_pagetable *pt, const void *table, unsigned level)
{
    uint64_t first = mmi_pt_load(pt, table, 0), i, size = mmi_pt_size(pt, level);
    uint64_t essence = mmi_pt_essence(pt, first, level);
    mm_pa_t pa = mmi_pt_leaf_pa(pt, first, level, 0);

    if ((pa & (mmi_pt_size(pt, level + 1) - 1)) != 0)
        return false;
    for (i = 0; i < mmi_pt_entries(pt, level); i++) {
        uint64_t e = mmi_pt_load(pt, table, i);
        if (!mmi_pt_is_leaf(pt, e, level) || mmi_pt_essence(pt, e, level) != essence ||
            mmi_pt_leaf_pa(pt, e, level, i * size) != pa + i * size)
            return false;
    }
    return true;
}

/* The leaf of this level that the entries of a uniform table make. */
static uint64_t mmi_pt_joined(const struct mm_pagetable *pt, const void *table, unsigned level)
{
    unsigned below = level - 1;
    uint64_t first = mmi_pt_load(pt, table, 0), leaf;

    leaf = mmi_pt_essence(pt, first, below) | mmi_pt_marks(pt, table, below) |
           mmi_pt_pa_field(pt, mmi_pt_leaf_pa(pt, first, below, 0)) |
           (mmi_ptf_base(pt) & mmi_ptf_hw_write(pt));
    return mmi_pt_raised(pt, mmi_pt_sealed(pt, leaf), level);
}

/* Puts one leaf in the place of the table that the iterator's entry points to, if it makes one, and
 * remembers the table. Until the flush, processors still go through it, and set A and D there: it
 * stays as it is. */
static bool mmi_pt_collapse_here(struct mmi_pt_iter *it, uint64_t e, struct mm_pagetable_batch *b)
{
    struct mm_pagetable *pt = it->pt;
    unsigned level = it->level;
    struct mm_pagetable_extent *old = &b->extents[b->extent_count];
    void *table;
    bool uniform;

    old->pa = mmi_pt_table_pa(pt, e);
    old->bytes = it->off;
    table = mmi_pt_open(pt, old->pa);
    uniform = mmi_pt_uniform(pt, table, level - 1);
    if (uniform) {
        uint64_t leaf = mmi_pt_joined(pt, table, level);
        mmi_pt_store(pt, it->table[level], mmi_pt_index(pt, it->off, level),
                     mmi_ptf_break_first(pt) != 0 ? 0 : leaf);
        mmi_pt_note_change(b, it->off, mmi_pt_size(pt, level), level - 1, leaf);
        b->unlinked = true;
        b->extent_count++;
    }
    mmi_pt_close(pt, table);
    return uniform;
}

/* Flushes, tells the new leaves what hardware did to the old ones until then, and frees the tables
 * that were remembered. */
static void mmi_pt_collapse_finish(struct mm_pagetable_batch *b, unsigned level)
{
    struct mm_pagetable *pt = b->pt;
    struct mmi_pt_iter it;
    struct mmi_pt_change change;
    uint64_t e;

    if (b->extent_count == 0)
        return;
    mmi_pt_batch_flush(b);
    if (pt->hooks->grace != NULL)
        pt->hooks->grace(pt->hooks->ctx);
    change.clear = 0;
    while (b->extent_count != 0) {
        const struct mm_pagetable_extent *old = &b->extents[--b->extent_count];
        void *table = mmi_pt_open(pt, old->pa);
        mmi_pt_begin(&it, pt, old->bytes, old->bytes + 1);
        e = mmi_pt_bottom(&it);
        if (mmi_ptf_break_first(pt) != 0) {
            e = mmi_pt_joined(pt, table, level);
            mmi_pt_store(pt, it.table[level], mmi_pt_index(pt, it.off, level), e);
        }
        change.set = mmi_pt_marks(pt, table, level - 1);
        while (!mmi_pt_cas(pt, it.table[level], mmi_pt_index(pt, it.off, level), e,
                           mmi_pt_changed(pt, &change, e, level)))
            e = mmi_pt_here(&it);
        mmi_pt_leave(&it);
        mmi_pt_close(pt, table);
        pt->hooks->free(pt->hooks->ctx, old->pa, mmi_pt_table_bytes(pt, 0));
    }
}

/* Collapses the tables below entries of this level. Returns how many. */
static uint64_t mmi_pt_collapse_level(struct mmi_pt_call *call, unsigned level)
{
    struct mm_pagetable *pt = call->pt;
    struct mm_pagetable_batch *b = call->batch;
    struct mmi_pt_iter it;
    uint64_t done = 0;

    mmi_pt_begin(&it, pt, call->off, call->end);
    while (it.off < it.end) {
        uint64_t e = mmi_pt_here(&it);
        bool table = mmi_pt_is_table(pt, e, it.level);
        if (table && it.level > level) {
            mmi_pt_down(&it, mmi_pt_table_pa(pt, e));
            continue;
        }
        if (table && mmi_pt_covered(&it) && !mmi_pt_lent(pt, e, it.level)) {
            done += mmi_pt_collapse_here(&it, e, b);
            if (b->extent_count == b->extent_room)
                mmi_pt_collapse_finish(b, level);
        }
        mmi_pt_move(&it, mmi_pt_entry_end(&it));
    }
    mmi_pt_leave(&it);
    mmi_pt_collapse_finish(b, level);
    return done;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_collapse(struct mm_pagetable *pt, mm_va_t va,
                                                      uint64_t bytes,
                                                      struct mm_pagetable_batch *batch)
{
    struct mmi_pt_call call;
    enum mm_status status = mmi_pt_enter(&call, pt, "mm_pagetable_collapse", va, bytes, batch);
    unsigned level;
    uint64_t done = 0;

    if (status != MM_OK)
        return status;
    if (call.batch->extent_count != 0)
        mm_pagetable_batch_finish(call.batch); /* its extents are needed */
    for (level = 1; level < mmi_ptf_levels(pt); level++)
        if ((pt->leaf_levels >> level & 1u) != 0)
            done += mmi_pt_collapse_level(&call, level);
    return mmi_pt_exit(&call, done != 0 ? MM_OK : MM_ERR_NOENT);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_sweep(struct mm_pagetable *pt, mm_va_t va,
                                                   uint64_t bytes, struct mm_pagetable_batch *batch)
{
    struct mmi_pt_call call;
    struct mmi_pt_iter it;
    enum mm_status status = mmi_pt_enter(&call, pt, "mm_pagetable_sweep", va, bytes, batch);
    uint32_t taken[MM_PAGETABLE_LEVELS_MAX];
    uint64_t e, gone = 0;

    if (status != MM_OK)
        return status;
    if ((pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0)
        return mmi_pt_exit(&call, MM_ERR_NOENT); /* I3 */
    mmi_pt_none_taken(taken);
    mmi_pt_begin(&it, pt, call.off, call.end);
    while (it.off < it.end) {
        e = mmi_pt_here(&it);
        if (mmi_pt_is_table(pt, e, it.level)) {
            mmi_pt_down(&it, mmi_pt_table_pa(pt, e));
            taken[it.level] = 1; /* perhaps: no note makes a claim, so it is looked at */
        } else {
            gone += mmi_pt_move_settling(
                &it, it.level == 0 ? mmi_pt_table_end(&it) : mmi_pt_entry_end(&it), taken,
                call.batch);
        }
    }
    mmi_pt_leave(&it);
    return mmi_pt_exit(&call, gone != 0 ? MM_OK : MM_ERR_NOENT);
}

/* ---- Accessed and dirty ---------------------------------------------------------------------- */

/* What an entry says, as the caller is told. */
static void mmi_pt_describe(const struct mm_pagetable *pt, uint64_t e, unsigned level, uint64_t off,
                            struct mm_pagetable_entry *entry)
{
    uint64_t size = mmi_pt_size(pt, level), start = off & ~(size - 1);

    entry->va = mmi_pt_va(pt, start);
    entry->bytes = size;
    entry->level = level;
    entry->raw = e;
    entry->pa = MM_PA_NONE;
    entry->attr = 0;
    if (mmi_pt_present(pt, e)) {
        entry->pa = mmi_pt_leaf_pa(pt, e, level, start);
        entry->attr = mmi_pt_decode(pt, e, level);
    } else if ((e & MMI_PT_SWAP_MARK) != 0) {
        entry->pa = e >> MMI_PT_SWAP_SHIFT;
        entry->attr = MM_PAGETABLE_SWAP;
    }
}

struct mmi_pt_crop {
    uint32_t which, clear;
    struct mmi_pt_change change;
    void (*seen)(void *ctx, const struct mm_pagetable_entry *entry);
    void *ctx;
};

/* Harvests the leaf `e` that the iterator stands at, or those of its group in the range; moves on.
 * Returns how many had one of the bits. */
static uint64_t mmi_pt_harvest_here(const struct mmi_pt_crop *crop, struct mmi_pt_iter *it,
                                    uint64_t e, struct mm_pagetable_batch *b)
{
    struct mm_pagetable *pt = it->pt;
    uint64_t size = mmi_pt_size(pt, it->level), end = mmi_pt_entry_end(it), found = 0;
    uint64_t whole = mmi_pt_in_group(it, e) ? 16 * size : size, marks = 0, at;
    struct mm_pagetable_entry entry;

    if (mmi_pt_present(pt, e))
        marks = mmi_pt_touch_leaf(it, e, NULL);
    if ((mmi_pt_told_marks(pt, marks) & crop->which) != 0) {
        if (whole != size)
            end = (it->off | (whole - 1)) + 1 < it->end ? (it->off | (whole - 1)) + 1 : it->end;
        if (crop->clear != 0)
            marks |= mmi_pt_touch_leaf(it, e, &crop->change);
        if ((mmi_pt_told_marks(pt, marks) & crop->clear) != 0)
            mmi_pt_note_change(b, it->off & ~(whole - 1), whole, it->level, e);
        for (at = it->off; at < end; at = (at | (size - 1)) + 1) {
            /* as it was before: hardware may have set what was cleared again */
            e = mmi_pt_load(pt, it->table[it->level], mmi_pt_index(pt, at, it->level));
            e = mmi_pt_changed(pt, &crop->change, e, it->level) | marks;
            mmi_pt_describe(pt, e, it->level, at, &entry);
            if (crop->seen != NULL)
                crop->seen(crop->ctx, &entry);
            found++;
        }
    }
    mmi_pt_move(it, end);
    return found;
}

MM_PAGETABLE_API enum mm_status
mm_pagetable_harvest(struct mm_pagetable *pt, mm_va_t va, uint64_t bytes, uint32_t which,
                     uint32_t clear,
                     void (*seen)(void *ctx, const struct mm_pagetable_entry *entry), void *ctx,
                     struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_harvest";
    struct mmi_pt_crop crop;
    struct mmi_pt_call call;
    struct mmi_pt_iter it;
    enum mm_status status;
    uint64_t e, found = 0;

    if (which == 0 || ((which | clear) & ~MMI_PT_AD) != 0)
        return mmi_pt_refuse(pt, where, "bits", MM_ERR_INVALID, va);
    status = mmi_pt_enter(&call, pt, where, va, bytes, batch);
    if (status != MM_OK)
        return status;
    crop.which = which;
    crop.clear = clear;
    crop.change.clear = mmi_pt_ad_bits(pt, clear);
    crop.change.set = 0;
    crop.change.breaks = false;
    crop.seen = seen;
    crop.ctx = ctx;
    mmi_pt_begin(&it, pt, call.off, call.end);
    while (mmi_pt_next_leaf(&it, &e)) {
        found += mmi_pt_harvest_here(&crop, &it, e, call.batch);
    }
    mmi_pt_leave(&it);
    return mmi_pt_exit(&call, found != 0 ? MM_OK : MM_ERR_NOENT);
}

/* ---- Sharing --------------------------------------------------------------------------------- */

struct mmi_pt_share {
    struct mmi_pt_call from, to;
    uint64_t needed, pieces;
    mm_pa_t run_pa; /* frames not yet told to the hook reference */
    uint64_t run_bytes;
    bool commit;
};

/* Do two tables speak of entries in the same way? */
static bool mmi_pt_alike(const struct mm_pagetable *a, const struct mm_pagetable *b)
{
    return a != b && a->format == b->format && a->type_register == b->type_register &&
           a->flags == b->flags && a->leaf_levels == b->leaf_levels && a->pa_bits == b->pa_bits;
}

/* Enters both, the one with the lower address first, so that two such calls never wait for each
 * other. */
static enum mm_status mmi_pt_enter_both(struct mmi_pt_share *s, const char *where,
                                        struct mm_pagetable *to, struct mm_pagetable *from,
                                        mm_va_t va, uint64_t bytes,
                                        struct mm_pagetable_batch *batch)
{
    bool to_first = (uintptr_t)to < (uintptr_t)from;
    enum mm_status status;

    if (!mmi_pt_alike(to, from))
        return mmi_pt_refuse(to, where, "tables of different kinds", MM_ERR_INVALID, va);
    if (to_first)
        status = mmi_pt_enter(&s->to, to, where, va, bytes, NULL);
    else
        status = mmi_pt_enter(&s->from, from, where, va, bytes, batch);
    if (status != MM_OK)
        return status;
    if (to_first)
        status = mmi_pt_enter(&s->from, from, where, va, bytes, batch);
    else
        status = mmi_pt_enter(&s->to, to, where, va, bytes, NULL);
    if (status != MM_OK)
        (void)mmi_pt_exit(to_first ? &s->to : &s->from, status);
    return status;
}

static enum mm_status mmi_pt_exit_both(struct mmi_pt_share *s, enum mm_status status)
{
    (void)mmi_pt_exit(&s->to, status);
    return mmi_pt_exit(&s->from, status);
}

/* Brings the iterator down to `level`: through tables that are there, that are planned, or that are
 * made now. */
static enum mm_status mmi_pt_reach(struct mmi_pt_iter *it, unsigned level, bool commit,
                                   struct mmi_pt_call *call, uint64_t *needed)
{
    struct mm_pagetable *pt = it->pt;

    while (it->level > level) {
        uint64_t e = it->table[it->level] != NULL ? mmi_pt_here(it) : 0;
        void *table;
        if (mmi_pt_is_table(pt, e, it->level)) {
            mmi_pt_down(it, mmi_pt_table_pa(pt, e));
        } else if (e != 0) {
            return MM_ERR_EXISTS;
        } else if (!commit) {
            ++*needed;
            mmi_pt_down_nowhere(it);
        } else {
            mm_pa_t pa = mmi_pt_spare_take(&call->spare, &table);
            MM_PAGETABLE_MEMSET(table, 0, (size_t)mmi_pt_table_bytes(pt, it->level - 1));
            mmi_pt_note_linked(call->batch);
            mmi_pt_link(pt, it->table[it->level], mmi_pt_index(pt, it->off, it->level),
                        mmi_pt_entry_of(pt, it->level, pa, 0));
            mmi_pt_grown(it, it->level, it->off, 1);
            it->table[--it->level] = table;
        }
    }
    return MM_OK;
}

static void mmi_pt_reference(struct mmi_pt_share *s, mm_pa_t pa, uint64_t bytes)
{
    struct mm_pagetable *to = s->to.pt;

    if (to->hooks->reference == NULL)
        return;
    if (s->run_bytes != 0 && s->run_pa + s->run_bytes != pa) {
        to->hooks->reference(to->hooks->ctx, s->run_pa, s->run_bytes);
        s->run_bytes = 0;
    }
    if (s->run_bytes == 0)
        s->run_pa = pa;
    s->run_bytes += bytes;
}

/* Gives the leaf or swap entry at `from` to `to` too. */
static void mmi_pt_share_entry(struct mmi_pt_share *s, struct mmi_pt_iter *from,
                               struct mmi_pt_iter *to, uint64_t e)
{
    struct mm_pagetable *pt = from->pt;
    uint64_t index = mmi_pt_index(pt, from->off, from->level);
    uint64_t size = mmi_pt_size(pt, from->level), next = e;
    struct mmi_pt_change change;

    if (mmi_pt_present(pt, e)) {
        change.clear = 0;
        change.set = 0;
        if ((mmi_pt_decode(pt, e, from->level) & MM_PAGETABLE_WRITE) != 0) {
            change.clear = mmi_ptf_write(pt);
            change.set = mmi_ptf_cow(pt);
        }
        next = mmi_pt_changed(pt, &change, e, from->level);
        while (change.set != 0 && !mmi_pt_cas(pt, from->table[from->level], index, e, next)) {
            e = mmi_pt_here(from);
            next = mmi_pt_changed(pt, &change, e, from->level);
        }
        if (change.set != 0)
            mmi_pt_note_change(s->from.batch, from->off, size, from->level, e);
        mmi_pt_reference(s, mmi_pt_leaf_pa(pt, e, from->level, from->off), size);
    }
    mmi_pt_store(pt, to->table[to->level], mmi_pt_index(pt, to->off, to->level), next);
    mmi_pt_grown(to, to->level, to->off, 1);
    mmi_pt_note_filled(s->to.batch, to->off, size, to->level, mmi_pt_flat(pt, next, to->level));
}

/* Does the entry that the iterator stands at lead to nothing but empty tables (I3)? */
static bool mmi_pt_vacant(const struct mmi_pt_iter *it, uint64_t e)
{
    struct mm_pagetable *pt = it->pt;
    uint64_t off = it->off & ~(mmi_pt_size(pt, it->level) - 1), leaf = 0;
    struct mmi_pt_iter below;

    if ((pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0 || !mmi_pt_is_table(pt, e, it->level) ||
        mmi_pt_lent(pt, e, it->level))
        return false;
    mmi_pt_begin_at(&below, pt, mmi_pt_table_pa(pt, e), it->level - 1, off,
                    off + mmi_pt_size(pt, it->level));
    while (leaf == 0 && mmi_pt_next_leaf(&below, &leaf))
        mmi_pt_move(&below, mmi_pt_entry_end(&below));
    mmi_pt_leave(&below);
    return leaf == 0;
}

/* Is there room for a leaf where the iterator stands? With `commit` room is made. */
static bool mmi_pt_make_room(const struct mmi_pt_iter *it, struct mm_pagetable_batch *b,
                             bool commit)
{
    struct mm_pagetable *pt = it->pt;
    void *table = it->table[it->level];
    uint64_t e = table != NULL ? mmi_pt_here(it) : 0;

    if (e == 0)
        return true;
    if (!mmi_pt_vacant(it, e))
        return false;
    if (commit) {
        mmi_pt_store(pt, table, mmi_pt_index(pt, it->off, it->level), 0);
        mmi_pt_reap(b, mmi_pt_table_pa(pt, e), it->level - 1, it->off);
        mmi_pt_note_table(b, it->off);
        mmi_pt_before_new(b);
    }
    return true;
}

/* Level of the largest leaf that is, or will be after the cuts, at the iterator. */
static unsigned mmi_pt_piece_level(const struct mmi_pt_iter *it)
{
    unsigned level = it->level;
    while ((it->off & (mmi_pt_size(it->pt, level) - 1)) != 0 ||
           it->end - it->off < mmi_pt_size(it->pt, level))
        level--;
    return level;
}

/* One walk over both tables, planned and then done, as for a mapping. */
static enum mm_status mmi_pt_share_pass(struct mmi_pt_share *s)
{
    struct mmi_pt_iter from, to;
    enum mm_status status = MM_OK;
    uint64_t e;

    mmi_pt_begin(&from, s->from.pt, s->from.off, s->from.end);
    mmi_pt_begin(&to, s->to.pt, s->to.off, s->to.end);
    while (mmi_pt_next_leaf(&from, &e)) {
        unsigned level;
        if (e == 0) {
            mmi_pt_move(&from, mmi_pt_entry_end(&from));
            continue;
        }
        s->pieces++;
        level = mmi_pt_piece_level(&from);
        mmi_pt_move(&to, from.off);
        status = mmi_pt_reach(&to, level, s->commit, &s->to, &s->needed);
        if (status == MM_OK && !mmi_pt_make_room(&to, s->to.batch, s->commit))
            status = MM_ERR_EXISTS;
        if (status != MM_OK)
            break;
        if (s->commit)
            mmi_pt_share_entry(s, &from, &to, e);
        mmi_pt_move(&from, from.off + mmi_pt_size(from.pt, level));
    }
    mmi_pt_leave(&to);
    mmi_pt_leave(&from);
    return status;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_share_cow(struct mm_pagetable *to,
                                                       struct mm_pagetable *from, mm_va_t va,
                                                       uint64_t bytes,
                                                       struct mm_pagetable_batch *batch)
{
    struct mmi_pt_share s;
    enum mm_status status =
        mmi_pt_enter_both(&s, "mm_pagetable_share_cow", to, from, va, bytes, batch);

    if (status != MM_OK)
        return status;
    s.needed = s.pieces = s.run_bytes = 0;
    s.run_pa = 0;
    s.commit = false;
    status = mmi_pt_share_pass(&s);
    if (status == MM_OK && s.pieces == 0)
        status = MM_ERR_NOENT;
    if (status == MM_OK)
        status = mmi_pt_reserve(&s.to.spare, s.needed);
    if (status == MM_OK) {
        status = mmi_pt_reserve_cuts(&s.from.spare, from, s.from.off, s.from.end);
        if (status != MM_OK)
            mmi_pt_spare_free(&s.to.spare);
    }
    if (status == MM_OK) {
        mmi_pt_cut_both(&s.from.spare, s.from.off, s.from.end, s.from.batch);
        s.commit = true;
        status = mmi_pt_share_pass(&s);
        MM_PAGETABLE_ASSERT(status == MM_OK && s.to.spare.head == MM_PA_NONE);
    }
    if (s.run_bytes != 0)
        to->hooks->reference(to->hooks->ctx, s.run_pa, s.run_bytes);
    return mmi_pt_exit_both(&s, status);
}

/* What stands in the way of lending the range, and how many tables `from` lacks for it; `present`:
 * where it lacks one, nothing is lent. */
static enum mm_status mmi_pt_plan_lend(struct mmi_pt_share *s, bool present)
{
    struct mmi_pt_iter from, to;
    enum mm_status status = MM_OK;

    mmi_pt_begin(&from, s->from.pt, s->from.off, s->from.end);
    mmi_pt_begin(&to, s->to.pt, s->to.off, s->to.end);
    while (status == MM_OK && from.off < from.end) {
        uint64_t e = mmi_pt_here(&from);
        if (e != 0 || !present) {
            if (mmi_pt_here(&to) != 0)
                status = MM_ERR_EXISTS;
            else if (e != 0 && !mmi_pt_is_table(from.pt, e, from.level))
                status = MM_ERR_BUSY;
            s->needed += e == 0;
        }
        mmi_pt_move(&from, mmi_pt_entry_end(&from));
        mmi_pt_move(&to, from.off);
    }
    mmi_pt_leave(&to);
    mmi_pt_leave(&from);
    return status;
}

static void mmi_pt_lend_entry(struct mmi_pt_share *s, struct mmi_pt_iter *from,
                              struct mmi_pt_iter *to)
{
    struct mm_pagetable *pt = from->pt;
    uint64_t index = mmi_pt_index(pt, from->off, from->level), e = mmi_pt_here(from);
    bool missing = e == 0;
    void *table;

    if (missing) {
        mm_pa_t pa = mmi_pt_spare_take(&s->from.spare, &table);
        MM_PAGETABLE_MEMSET(table, 0, (size_t)mmi_pt_table_bytes(pt, from->level - 1));
        mmi_pt_close(pt, table);
        e = mmi_pt_table_entry(pt, pa, MMI_PT_LENT);
        mmi_pt_note_filled(s->from.batch, from->off, mmi_pt_size(pt, from->level), 0,
                           mmi_ptf_base(pt));
        mmi_pt_note_linked(s->from.batch);
    }
    if (mmi_pt_apart(pt))
        mmi_pt_set_count(pt, NULL, 0, e, mmi_pt_no_claim(pt));
    if (missing)
        mmi_pt_link(pt, from->table[from->level], index, e);
    else
        mmi_pt_set_note(pt, from->table[from->level], index, e, MMI_PT_LENT);
    mmi_pt_link(pt, to->table[to->level], index, mmi_pt_with_note(pt, e, MMI_PT_BORROWED));
    mmi_pt_note_filled(s->to.batch, from->off, mmi_pt_size(pt, from->level), 0,
                       mmi_pt_any_leaf(pt));
    mmi_pt_note_linked(s->to.batch);
}

static enum mm_status mmi_pt_lend(struct mm_pagetable *to, struct mm_pagetable *from, mm_va_t va,
                                  uint64_t bytes, bool present)
{
    static const char where[] = "mm_pagetable_lend";
    uint64_t size = mmi_pt_size(from, mmi_pt_root_level(from));
    struct mmi_pt_share s;
    struct mmi_pt_iter from_it, to_it;
    enum mm_status status;

    if (((mmi_pt_offset(from, va) | bytes) & (size - 1)) != 0)
        return mmi_pt_refuse(from, where, "not whole entries", MM_ERR_ALIGN, va);
    status = mmi_pt_enter_both(&s, where, to, from, va, bytes, NULL);
    if (status != MM_OK)
        return status;
    s.needed = 0;
    status = mmi_pt_plan_lend(&s, present);
    if (status == MM_OK)
        status = mmi_pt_reserve(&s.from.spare, s.needed);
    if (status != MM_OK)
        return mmi_pt_exit_both(&s, status);
    __atomic_store_n(&to->borrows, true, __ATOMIC_RELAXED);
    __atomic_store_n(&from->lends, true, __ATOMIC_RELAXED);
    mmi_pt_begin(&from_it, from, s.from.off, s.from.end);
    mmi_pt_begin(&to_it, to, s.to.off, s.to.end);
    while (from_it.off < from_it.end) {
        if (!present || mmi_pt_here(&from_it) != 0)
            mmi_pt_lend_entry(&s, &from_it, &to_it);
        mmi_pt_move(&from_it, mmi_pt_entry_end(&from_it));
        mmi_pt_move(&to_it, from_it.off);
    }
    mmi_pt_leave(&to_it);
    mmi_pt_leave(&from_it);
    return mmi_pt_exit_both(&s, MM_OK);
}

MM_PAGETABLE_API enum mm_status
mm_pagetable_lend(struct mm_pagetable *to, struct mm_pagetable *from, mm_va_t va, uint64_t bytes)
{
    return mmi_pt_lend(to, from, va, bytes, false);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_lend_present(struct mm_pagetable *to,
                                                          struct mm_pagetable *from, mm_va_t va,
                                                          uint64_t bytes)
{
    return mmi_pt_lend(to, from, va, bytes, true);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_give_back(struct mm_pagetable *to, mm_va_t va,
                                                       uint64_t bytes,
                                                       struct mm_pagetable_batch *batch)
{
    static const char where[] = "mm_pagetable_give_back";
    struct mmi_pt_call call;
    struct mmi_pt_iter it;
    enum mm_status status = mmi_pt_range(to, where, va, bytes, &call.off, &call.end);
    uint64_t found = 0;

    if (status != MM_OK)
        return status;
    if (batch != NULL && batch->pt != to)
        return mmi_pt_refuse(to, where, "another table's batch", MM_ERR_INVALID, va);
    call.pt = to;
    call.given = batch;
    call.batch = mmi_pt_batch(to, batch, &call.own);
    mmi_pt_lock(to, call.off, call.end, &call.held);
    mmi_pt_begin(&it, to, call.off, call.end);
    while (it.off < it.end) {
        uint64_t e = mmi_pt_here(&it);
        if (mmi_pt_is_table(to, e, it.level) && mmi_pt_note(to, e) == MMI_PT_BORROWED) {
            mmi_pt_store(to, it.table[it.level], mmi_pt_index(to, it.off, it.level), 0);
            mmi_pt_note_change(call.batch, it.off & ~(mmi_pt_size(to, it.level) - 1),
                               mmi_pt_size(to, it.level), 0, mmi_pt_any_leaf(to));
            call.batch->unlinked = true;
            found++;
        }
        mmi_pt_move(&it, mmi_pt_entry_end(&it));
    }
    mmi_pt_leave(&it);
    return mmi_pt_exit(&call, found != 0 ? MM_OK : MM_ERR_NOENT);
}

/* ---- Cursor ---------------------------------------------------------------------------------- */

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_begin(struct mm_pagetable_cursor *cursor,
                                                          struct mm_pagetable *pt, mm_va_t va,
                                                          uint64_t bytes,
                                                          struct mm_pagetable_batch *batch)
{
    enum mm_status status =
        mmi_pt_enter(&cursor->call, pt, "mm_pagetable_cursor_begin", va, bytes, batch);

    if (status != MM_OK)
        return status;
    mmi_pt_begin(&cursor->it, pt, cursor->call.off, cursor->call.end);
    cursor->va = va;
    cursor->bytes = bytes;
    cursor->at = cursor->plain = cursor->attr = ~UINT64_C(0);
    cursor->pa_end = mmi_pt_shl(1, pt->pa_bits);
    cursor->near_pages = cursor->call.own.quiet_pages = 0;
    cursor->taken = 0;
    cursor->counts = (pt->flags & MM_PAGETABLE_KEEP_EMPTY) == 0;
    if (mmi_pt_root_level(pt) == 2)
        MM_PAGETABLE_MEMSET(cursor->others, 0, sizeof cursor->others);
    return MM_OK;
}

/* Dead tables that a cursor gathers: they are recycled while they are still in the cache. */
#define MMI_PT_DEAD_MAX 256u

/* The level that it goes up to, and then down again, while it stays below one entry of the level
 * above; the root where there are no more levels. */
MMI_PT_FOLDED unsigned mmi_pt_cursor_top(const struct mm_pagetable *pt)
{
    return mmi_pt_root_level(pt) < 2 ? mmi_pt_root_level(pt) : 2;
}

/* Settles the table of level 0 that it has taken entries out of, before it leaves it. */
static MM_NOINLINE void mmi_pt_cursor_settle(struct mm_pagetable_cursor *cursor)
{
    struct mmi_pt_iter *it = &cursor->it;
    struct mm_pagetable_batch *b = cursor->call.batch;

    if (MM_UNLIKELY(b->dead_count >= MMI_PT_DEAD_MAX))
        mm_pagetable_batch_finish(b);
    mmi_pt_shrunk(it, cursor->at, cursor->taken, b);
    cursor->taken = 0;
    if (it->level > mmi_pt_cursor_top(it->pt))
        cursor->at = ~UINT64_C(0);
}

/* Where a cursor stands. */
struct mmi_pt_place {
    void *table; /* of level 0 */
    uint64_t index, e;
    unsigned level;
};

/* Goes down from the root. */
static MM_NOINLINE uint64_t mmi_pt_cursor_far(struct mm_pagetable_cursor *cursor)
{
    struct mmi_pt_iter *it = &cursor->it;

    mmi_pt_close_below(it, it->top);
    return mmi_pt_descend(it);
}

/* The entry at the cursor, of level 0 or where tables end. False at the end of the range. */
MMI_PT_FOLDED bool mmi_pt_cursor_here(struct mm_pagetable_cursor *cursor, uint64_t off,
                                      struct mmi_pt_place *place)
{
    struct mmi_pt_iter *it = &cursor->it;
    const struct mm_pagetable *pt = it->pt;
    unsigned top = mmi_pt_cursor_top(pt);

    place->level = 0;
    place->table = NULL;
    place->index = mmi_pt_index(pt, off, 0);
    if (MM_UNLIKELY(off >= it->end))
        return false;
    if ((off ^ cursor->at) < mmi_pt_size(pt, 1)) {
        place->table = it->table[0];
        place->e = mmi_pt_load(pt, place->table, place->index);
        return true;
    }
    if (cursor->taken != 0)
        mmi_pt_cursor_settle(cursor);
    cursor->near_pages = cursor->call.own.quiet_pages = 0;
    if (MM_LIKELY((off ^ cursor->at) < mmi_pt_size(pt, top + 1))) {
        mmi_pt_close_below(it, top);
        place->e = mmi_pt_descend_to(it, off, top, &place->table);
    } else {
        place->e = mmi_pt_cursor_far(cursor);
        place->table = it->table[0];
    }
    cursor->at = off;
    if (MM_UNLIKELY(it->level != 0)) {
        cursor->at = ~UINT64_C(0);
        place->level = it->level;
    }
    return true;
}

/* The missing tables down to level 0, all or none. */
static enum mm_status mmi_pt_cursor_grow(struct mm_pagetable_cursor *cursor)
{
    uint64_t needed = 0;
    enum mm_status status = mmi_pt_reserve(&cursor->call.spare, cursor->it.level);

    if (status != MM_OK)
        return status;
    cursor->at = cursor->it.off;
    return mmi_pt_reach(&cursor->it, 0, true, &cursor->call, &needed);
}

/* What stands in the way of a mapping at the cursor, whose entry is `e`; missing tables are made,
 * and attributes encoded. */
static MM_NOINLINE enum mm_status mmi_pt_cursor_prepare(struct mm_pagetable_cursor *cursor,
                                                        mm_pa_t pa, uint32_t attr, uint64_t e)
{
    struct mm_pagetable *pt = cursor->it.pt;
    uint64_t page = mmi_pt_size(pt, 0);

    if ((pa & (page - 1)) != 0)
        return MM_ERR_ALIGN;
    if (!mmi_pt_good_pa(pt, pa, page))
        return MM_ERR_INVALID;
    if (cursor->attr != attr) {
        if (mmi_pt_new_leaf(pt, attr, &cursor->leaf) != MM_OK)
            return MM_ERR_INVALID;
        cursor->attr = attr;
    }
    if (e != 0)
        return MM_ERR_EXISTS;
    return cursor->it.level != 0 ? mmi_pt_cursor_grow(cursor) : MM_OK;
}

/* About seventy instructions where the table is there. */
MMI_PT_FOLDED enum mm_status mmi_pt_cursor_map_here(struct mm_pagetable_cursor *cursor, mm_pa_t pa,
                                                    uint32_t attr)
{
    struct mmi_pt_iter *it = &cursor->it;
    struct mm_pagetable *pt = it->pt;
    uint64_t page = mmi_pt_size(pt, 0), off = it->off;
    struct mmi_pt_place place;
    bool usual;

    if (!mmi_pt_cursor_here(cursor, off, &place))
        return MM_ERR_LIMIT;
    mmi_pt_before_new(cursor->call.batch);
    usual = place.level == 0 && place.e == 0 && cursor->attr == attr;
    if (MM_UNLIKELY(!usual || (pa & (page - 1)) != 0 || pa >= cursor->pa_end)) {
        enum mm_status status = mmi_pt_cursor_prepare(cursor, pa, attr, place.e);
        if (status != MM_OK)
            return status;
        place.table = it->table[0];
    }
    it->off = off + page;
    mmi_pt_store(pt, place.table, place.index, cursor->leaf | mmi_pt_pa_field(pt, pa));
    mmi_pt_grown(it, 0, off, 1);
    mmi_pt_note_filled(cursor->call.batch, off, page, 0, cursor->leaf);
    return MM_OK;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_map(struct mm_pagetable_cursor *cursor,
                                                        mm_pa_t pa, uint32_t attr)
{
    return mmi_pt_cursor_map_here(cursor, pa, attr);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_next(struct mm_pagetable_cursor *cursor,
                                                         struct mm_pagetable_entry *entry)
{
    struct mmi_pt_iter *it = &cursor->it;
    struct mmi_pt_place place;

    if (!mmi_pt_cursor_here(cursor, it->off, &place))
        return MM_ERR_LIMIT;
    mmi_pt_describe(it->pt, place.e, it->level, it->off, entry);
    it->off = mmi_pt_entry_end(it);
    return entry->attr != 0 ? MM_OK : MM_ERR_NOENT;
}

/* An entry that is not the plain leaf known. Plain are leaves that hardware does not change, that
 * are in no group, not global, and whose frames nobody asks for: all that is to be done for those
 * is to clear the entry. */
static MM_NOINLINE enum mm_status mmi_pt_cursor_unmap_other(struct mm_pagetable_cursor *cursor,
                                                            uint64_t e)
{
    struct mmi_pt_iter *it = &cursor->it;
    struct mm_pagetable *pt = it->pt;

    if (e != 0) {
        if (it->level != 0 || mmi_pt_in_group(it, e))
            return MM_ERR_BUSY;
        if (mmi_pt_present(pt, e) && !mmi_pt_unsteady(pt, e) && !mmi_pt_is_global(pt, e) &&
            pt->hooks->release == NULL)
            cursor->plain = e & ~mmi_ptf_pa_mask(pt);
        mmi_pt_take_page(cursor->call.batch, it, e);
        cursor->taken += cursor->counts;
    }
    it->off += mmi_pt_size(pt, 0);
    return e != 0 ? MM_OK : MM_ERR_NOENT;
}

/* About seventy instructions for a plain leaf. */
MMI_PT_FOLDED enum mm_status mmi_pt_cursor_unmap_here(struct mm_pagetable_cursor *cursor)
{
    struct mmi_pt_iter *it = &cursor->it;
    struct mm_pagetable *pt = it->pt;
    struct mm_pagetable_batch *b = cursor->call.batch;
    uint64_t page = mmi_pt_size(pt, 0), off = it->off;
    struct mmi_pt_place place;

    if (!mmi_pt_cursor_here(cursor, off, &place))
        return MM_ERR_LIMIT;
    if (MM_UNLIKELY(place.level != 0 || (place.e & ~mmi_ptf_pa_mask(pt)) != cursor->plain))
        return mmi_pt_cursor_unmap_other(cursor, place.e);
    mmi_pt_store(pt, place.table, place.index, 0);
    it->off = off + page;
    cursor->taken += cursor->counts;
    b->changed = true;
    mmi_pt_note_range(b, off, page, 0);
    return MM_OK;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_unmap(struct mm_pagetable_cursor *cursor)
{
    return mmi_pt_cursor_unmap_here(cursor);
}

MMI_PT_FOLDED enum mm_status mmi_pt_cursor_seek_to(struct mm_pagetable_cursor *cursor, mm_va_t va)
{
    if (MM_UNLIKELY(va - cursor->va >= cursor->bytes))
        return MM_ERR_INVALID;
    if (MM_UNLIKELY((va & (mmi_pt_size(cursor->it.pt, 0) - 1)) != 0))
        return MM_ERR_ALIGN;
    cursor->it.off = mmi_pt_offset(cursor->it.pt, va); /* the next step goes there */
    return MM_OK;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_seek(struct mm_pagetable_cursor *cursor,
                                                         mm_va_t va)
{
    return mmi_pt_cursor_seek_to(cursor, va);
}

/* ---- Cursor: pages here and there ---- */

/* Where the walk for a page below the cursor's table of level 2 leads. */
struct mmi_pt_path {
    void *table1, *table0;
    uint64_t index1, index0, e2, e1, e0;
};

/* Once the flush is of all and no table has a count, a plain leaf that goes is a store and nothing
 * else, up to the batch's next flush: so the batch knows, the cursor's own, which nobody else can
 * flush. */
static void mmi_pt_cursor_quiet(struct mm_pagetable_cursor *cursor)
{
    struct mm_pagetable_batch *own = &cursor->call.own;
    bool quiet = cursor->call.batch == own && own->settled && cursor->counts == 0;

    own->quiet_pages = quiet ? cursor->near_pages : 0;
}

/* After a walk from the root: the next pages need none, if they lie below the same table of level
 * 2. */
static void mmi_pt_cursor_come_near(struct mm_pagetable_cursor *cursor, mm_va_t va)
{
    struct mmi_pt_iter *it = &cursor->it;
    uint64_t size = mmi_pt_size(it->pt, 3);
    mm_va_t first = va & ~(size - 1), last = va | (size - 1),
            end = cursor->va + (cursor->bytes - 1);

    if (mmi_pt_root_level(it->pt) < 2 || cursor->at == ~UINT64_C(0))
        return;
    if (cursor->taken != 0)
        mmi_pt_cursor_settle(cursor);
    if (it->level > 2)
        return;
    mmi_pt_close_below(it, 2);
    it->level = 2;
    cursor->at = ~UINT64_C(0);
    cursor->near = first < cursor->va ? cursor->va : first;
    cursor->near_pages = (((last < end ? last : end) - cursor->near) >> MM_PAGETABLE_SHIFT) + 1;
    mmi_pt_cursor_quiet(cursor);
}

/* Number of a page among those that are near. An address in the midst of one has one too high. */
MMI_PT_FOLDED uint64_t mmi_pt_cursor_number(const struct mm_pagetable_cursor *cursor, mm_va_t va)
{
    uint64_t from = va - cursor->near;
    return from >> MM_PAGETABLE_SHIFT | from << (64 - MM_PAGETABLE_SHIFT);
}

MMI_PT_FOLDED bool mmi_pt_cursor_is_near(const struct mm_pagetable_cursor *cursor, mm_va_t va)
{
    return mmi_pt_cursor_number(cursor, va) < cursor->near_pages;
}

/* Goes down to a page that is near. False if there is no table of leaves. */
MMI_PT_FOLDED bool mmi_pt_cursor_path(const struct mm_pagetable_cursor *cursor, mm_va_t va,
                                      struct mmi_pt_path *path)
{
    const struct mm_pagetable *pt = cursor->it.pt;

    path->table1 = path->table0 = NULL; /* for compilers that warn */
    path->index1 = path->index0 = path->e1 = path->e0 = 0;
    path->e2 = mmi_pt_load(pt, cursor->it.table[2], mmi_pt_index(pt, va, 2));
    if (MM_UNLIKELY(!mmi_pt_leads_on(pt, path->e2, 2)))
        return false;
    path->table1 = MM_PAGETABLE_OPEN(pt, mmi_pt_table_pa(pt, path->e2));
    path->index1 = mmi_pt_index(pt, va, 1);
    path->e1 = mmi_pt_load(pt, path->table1, path->index1);
    if (MM_UNLIKELY(!mmi_pt_leads_on(pt, path->e1, 1))) {
        MM_PAGETABLE_CLOSE(pt, path->table1);
        return false;
    }
    path->table0 = MM_PAGETABLE_OPEN(pt, mmi_pt_table_pa(pt, path->e1));
    path->index0 = mmi_pt_index(pt, va, 0);
    path->e0 = mmi_pt_load(pt, path->table0, path->index0);
    return true;
}

MMI_PT_FOLDED void mmi_pt_cursor_path_close(const struct mm_pagetable *pt,
                                            const struct mmi_pt_path *path)
{
    (void)pt;
    (void)path;
    MM_PAGETABLE_CLOSE(pt, path->table0);
    MM_PAGETABLE_CLOSE(pt, path->table1);
}

/* The table below entry `index` of `table`, which is `e` and makes a claim, has `by` entries
 * more. */
MMI_PT_FOLDED void mmi_pt_count_by(const struct mm_pagetable *pt, void *table, uint64_t index,
                                   uint64_t e, int by)
{
    uint64_t one = mmi_pt_shl(1, mmi_ptf_note_shift(pt));

    if (mmi_pt_apart(pt))
        *mmi_pt_beside(pt, mmi_pt_table_pa(pt, e)) += (uint16_t)by;
    else
        mmi_pt_replace_note(pt, table, index, by > 0 ? e + one : e - one);
}

/* About fifty instructions. False: something is unusual, and nothing is done. */
MMI_PT_FOLDED bool mmi_pt_cursor_map_near(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                          mm_pa_t pa, uint32_t attr)
{
    struct mm_pagetable *pt = cursor->it.pt;
    uint64_t page = mmi_pt_size(pt, 0);
    struct mmi_pt_path path;
    bool usual;

    mmi_pt_before_new(cursor->call.batch);
    if (MM_UNLIKELY(!mmi_pt_cursor_is_near(cursor, va) || !mmi_pt_cursor_path(cursor, va, &path)))
        return false;
    usual = path.e0 == 0 && cursor->attr == attr;
    usual = usual && (pa & (page - 1)) == 0 && pa < cursor->pa_end;
    if (MM_LIKELY(usual)) {
        mmi_pt_store(pt, path.table0, path.index0, cursor->leaf | mmi_pt_pa_field(pt, pa));
        if (mmi_pt_count(pt, path.e1) != mmi_pt_no_claim(pt)) /* one more may be no claim */
            mmi_pt_count_by(pt, path.table1, path.index1, path.e1, 1);
        if ((mmi_ptf_features(pt) & MM_PAGETABLE_SVVPTC) != 0 &&
            (cursor->leaf & cursor->call.batch->fill_untold) != 0)
            mmi_pt_note_new_page(cursor->call.batch, va, cursor->leaf);
    }
    mmi_pt_cursor_path_close(pt, &path);
    return usual;
}

static MM_NOINLINE enum mm_status mmi_pt_cursor_map_far(struct mm_pagetable_cursor *cursor,
                                                        mm_va_t va, mm_pa_t pa, uint32_t attr)
{
    enum mm_status status = mmi_pt_cursor_seek_to(cursor, va);

    if (status == MM_OK) {
        status = mmi_pt_cursor_map_here(cursor, pa, attr);
        mmi_pt_cursor_come_near(cursor, va);
    }
    return status;
}

MMI_PT_FOLDED enum mm_status mmi_pt_cursor_map_there(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                                     mm_pa_t pa, uint32_t attr)
{
    if (MM_LIKELY(mmi_pt_cursor_map_near(cursor, va, pa, attr)))
        return MM_OK;
    return mmi_pt_cursor_map_far(cursor, va, pa, attr);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_map_at(struct mm_pagetable_cursor *cursor,
                                                           mm_va_t va, mm_pa_t pa, uint32_t attr)
{
    return mmi_pt_cursor_map_there(cursor, va, pa, attr);
}

/* Which entry of the table of level 1 that leads to `va` is remembered: one that was there. */
MMI_PT_FOLDED uint16_t *mmi_pt_cursor_known(struct mm_pagetable_cursor *cursor, mm_va_t va)
{
    return &cursor->others[mmi_pt_shr(va, mmi_pt_shift(cursor->it.pt, 2)) % MMI_PT_OTHERS];
}

/* When that one goes too, the next is looked for behind it, and round: what is in front has been
 * found empty, so that a table is read once while it gets empty. False: there is none but `i`. */
static MM_NOINLINE bool mmi_pt_cursor_next_other(const struct mm_pagetable *pt, const void *table,
                                                 uint64_t i, uint16_t *known)
{
    uint64_t entries = mmi_pt_entries(pt, 1), first = *known & (entries - 1) & ~UINT64_C(3), n, k;

    for (n = 0; n < entries; n += 4, first = (first + 4) & (entries - 1)) {
        if (MM_LIKELY(mmi_pt_four(pt, table, first) == 0))
            continue;
        for (k = first; k < first + 4; k++)
            if (k != i && mmi_pt_load(pt, table, k) != 0) {
                *known = (uint16_t)k;
                return true;
            }
    }
    return false;
}

/* Does the table of level 1 keep an entry when this one goes? By its note, where it has one that
 * counts; else there is one that is remembered. */
MMI_PT_FOLDED bool mmi_pt_cursor_stays(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                       const struct mmi_pt_path *path)
{
    const struct mm_pagetable *pt = cursor->it.pt;
    unsigned count;

    if (!mmi_pt_counted(pt, 2)) {
        uint16_t *known = mmi_pt_cursor_known(cursor, va);
        uint64_t other = *known & (mmi_pt_entries(pt, 1) - 1);
        if (MM_LIKELY(other != path->index1 && mmi_pt_load(pt, path->table1, other) != 0))
            return true;
        return mmi_pt_cursor_next_other(pt, path->table1, path->index1, known);
    }
    count = mmi_pt_count(pt, path->e2);
    return count > 1 && count != mmi_pt_no_claim(pt);
}

/* An entry left a table of level 0, and what that means for the tables is to be found out. */
static MM_NOINLINE void mmi_pt_cursor_settle_path(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                                  void *table1, void *table0)
{
    struct mmi_pt_iter *it = &cursor->it;

    it->table[1] = table1;
    it->table[0] = table0;
    it->level = 0;
    cursor->at = mmi_pt_offset(it->pt, va);
    cursor->taken = cursor->counts;
    cursor->near_pages = 0;
    mmi_pt_cursor_come_near(cursor, va);
}

/* A table of level 0 is empty, but others stay beside it. */
MMI_PT_FOLDED void mmi_pt_cursor_drop(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                      const struct mmi_pt_path *path)
{
    struct mm_pagetable *pt = cursor->it.pt;
    struct mm_pagetable_batch *b = cursor->call.batch;

    if (MM_UNLIKELY(b->dead_count >= MMI_PT_DEAD_MAX))
        mm_pagetable_batch_finish(b);
    mmi_pt_store(pt, path->table1, path->index1, 0);
    mmi_pt_note_table(b, mmi_pt_offset(pt, va));
    mmi_pt_bury_at(b, mmi_pt_table_pa(pt, path->e1), path->table0, 0);
    if (mmi_pt_counted(pt, 2))
        mmi_pt_count_by(pt, cursor->it.table[2], mmi_pt_index(pt, va, 2), path->e2, -1);
}

/* An entry left a table of level 0: its note, the table if it is empty; all at once. */
MMI_PT_FOLDED void mmi_pt_cursor_shrunk(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                        const struct mmi_pt_path *path)
{
    struct mm_pagetable *pt = cursor->it.pt;
    unsigned count = mmi_pt_count(pt, path->e1), most = mmi_pt_no_claim(pt);

    if (count - 2 < most - 2) {
        mmi_pt_count_by(pt, path->table1, path->index1, path->e1, -1);
        mmi_pt_cursor_path_close(pt, path);
    } else if (count == 1 && mmi_pt_cursor_stays(cursor, va, path)) {
        mmi_pt_cursor_drop(cursor, va, path);
        mmi_pt_cursor_path_close(pt, path);
    } else if (cursor->counts == 0) { /* no table makes a claim, and none goes */
        mmi_pt_cursor_path_close(pt, path);
    } else {
        mmi_pt_cursor_settle_path(cursor, va, path->table1, path->table0);
    }
}

/* Clears the entry of a page that is near. False if it is no plain leaf: then nothing is done. */
MMI_PT_FOLDED bool mmi_pt_cursor_clear(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                       struct mmi_pt_path *path)
{
    struct mm_pagetable *pt = cursor->it.pt;

    if (MM_UNLIKELY(!mmi_pt_cursor_path(cursor, va, path)))
        return false;
    if (MM_UNLIKELY((path->e0 & ~mmi_ptf_pa_mask(pt)) != cursor->plain)) {
        mmi_pt_cursor_path_close(pt, path);
        return false;
    }
    mmi_pt_store(pt, path->table0, path->index0, 0);
    return true;
}

/* About forty instructions for a plain leaf where nothing else changes, some ten more where a count
 * does, and thirty where its table goes. */
MMI_PT_FOLDED bool mmi_pt_cursor_unmap_near(struct mm_pagetable_cursor *cursor, mm_va_t va)
{
    struct mmi_pt_path path;

    if (mmi_pt_cursor_number(cursor, va) < cursor->call.own.quiet_pages) {
        if (MM_UNLIKELY(!mmi_pt_cursor_clear(cursor, va, &path)))
            return false;
        mmi_pt_cursor_path_close(cursor->it.pt, &path);
        return true;
    }
    if (MM_UNLIKELY(!mmi_pt_cursor_is_near(cursor, va) || !mmi_pt_cursor_clear(cursor, va, &path)))
        return false;
    if (MM_UNLIKELY(!cursor->call.batch->settled)) {
        mmi_pt_note_page(cursor->call.batch, va);
        mmi_pt_cursor_quiet(cursor);
    }
    mmi_pt_cursor_shrunk(cursor, va, &path);
    return true;
}

static MM_NOINLINE enum mm_status mmi_pt_cursor_unmap_far(struct mm_pagetable_cursor *cursor,
                                                          mm_va_t va)
{
    enum mm_status status = mmi_pt_cursor_seek_to(cursor, va);

    if (status == MM_OK) {
        status = mmi_pt_cursor_unmap_here(cursor);
        mmi_pt_cursor_come_near(cursor, va);
    }
    return status;
}

MMI_PT_FOLDED enum mm_status mmi_pt_cursor_unmap_there(struct mm_pagetable_cursor *cursor,
                                                       mm_va_t va)
{
    if (MM_LIKELY(mmi_pt_cursor_unmap_near(cursor, va)))
        return MM_OK;
    return mmi_pt_cursor_unmap_far(cursor, va);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_cursor_unmap_at(struct mm_pagetable_cursor *cursor,
                                                             mm_va_t va)
{
    return mmi_pt_cursor_unmap_there(cursor, va);
}

/* How far scattered pages are looked at ahead: the entry of level 1, and as many pages later, when
 * that has come, the one of level 0. */
#define MMI_PT_AHEAD 8u

/* Not beyond the range: there the table has other writers. A window costs more than what a look
 * would save. */
MMI_PT_FOLDED void mmi_pt_cursor_look(const struct mm_pagetable_cursor *cursor, mm_va_t va,
                                      unsigned level)
{
#ifdef MM_PAGETABLE_WINDOWS
    (void)cursor;
    (void)va;
    (void)level;
#else
    if (MM_LIKELY(va - cursor->va < cursor->bytes))
        mmi_pt_prefetch_to(cursor->it.pt, va, level);
#endif
}

/* Maps the page at `va` to *pa; `pa` NULL: unmaps it, if it is there. */
MMI_PT_FOLDED enum mm_status mmi_pt_cursor_step(struct mm_pagetable_cursor *cursor, mm_va_t va,
                                                const mm_pa_t *pa, uint32_t attr)
{
    enum mm_status status;

    if (pa != NULL)
        return mmi_pt_cursor_map_there(cursor, va, *pa, attr);
    status = mmi_pt_cursor_unmap_there(cursor, va);
    return status == MM_ERR_NOENT ? MM_OK : status;
}

/* One step after the other, with looks ahead. */
MMI_PT_FOLDED size_t mmi_pt_cursor_bulk(struct mm_pagetable_cursor *cursor, const mm_va_t *va,
                                        const mm_pa_t *pa, size_t count, uint32_t attr,
                                        enum mm_status *status)
{
    enum mm_status result = va != NULL ? MM_OK : MM_ERR_INVALID;
    size_t i, done = 0;

    for (i = 0; result == MM_OK && done < count; i++) {
        if (i < count)
            mmi_pt_cursor_look(cursor, va[i], 1);
        if (i - MMI_PT_AHEAD < count)
            mmi_pt_cursor_look(cursor, va[i - MMI_PT_AHEAD], 0);
        if (i < 2 * (size_t)MMI_PT_AHEAD)
            continue;
        result = mmi_pt_cursor_step(cursor, va[done], pa != NULL ? &pa[done] : NULL, attr);
        done += result == MM_OK;
    }
    if (status != NULL)
        *status = result;
    return done;
}

/* About a hundred and thirty instructions a page, few of which wait. */
MM_PAGETABLE_API size_t mm_pagetable_cursor_map_bulk(struct mm_pagetable_cursor *cursor,
                                                     const mm_va_t *va, const mm_pa_t *pa,
                                                     size_t count, uint32_t attr,
                                                     enum mm_status *status)
{
    return mmi_pt_cursor_bulk(cursor, pa != NULL ? va : NULL, pa, count, attr, status);
}

MM_PAGETABLE_API size_t mm_pagetable_cursor_unmap_bulk(struct mm_pagetable_cursor *cursor,
                                                       const mm_va_t *va, size_t count,
                                                       enum mm_status *status)
{
    return mmi_pt_cursor_bulk(cursor, va, NULL, count, 0, status);
}

MM_PAGETABLE_API void mm_pagetable_cursor_end(struct mm_pagetable_cursor *cursor)
{
    if (cursor->taken != 0)
        mmi_pt_cursor_settle(cursor);
    mmi_pt_leave(&cursor->it);
    (void)mmi_pt_exit(&cursor->call, MM_OK);
}

/* ---- Questions ------------------------------------------------------------------------------- */

/* The entry that a walk for `off` ends with, and its level. */
static uint64_t mmi_pt_lookup(const struct mm_pagetable *pt, uint64_t off, unsigned *level)
{
    mm_pa_t table = pt->root;
    uint64_t e;

    *level = mmi_pt_root_level(pt);
    while (!mmi_pt_step(pt, mmi_pt_index(pt, off, *level), *level, &table, &e))
        --*level;
    return e;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_query(const struct mm_pagetable *pt, mm_va_t va,
                                                   struct mm_pagetable_entry *entry)
{
    uint64_t off = mmi_pt_offset(pt, va), e;
    unsigned level;

    if (mmi_pt_va(pt, off) != va)
        return MM_ERR_INVALID;
    e = mmi_pt_lookup(pt, off, &level);
    mmi_pt_describe(pt, e, level, off, entry);
    return entry->attr != 0 ? MM_OK : MM_ERR_NOENT;
}

/* ---- What a processor would do --------------------------------------------------------------- */

/* Why an entry that is present has no meaning; NULL if it has one. Address bits beyond the physical
 * width, and below a leaf's size, are reserved everywhere. */
static const char *mmi_pt_flaw_of_address(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    uint64_t field = e & mmi_ptf_pa_mask(pt), low;

    if (mmi_pt_table_pa(pt, e) >= mmi_pt_shl(1, pt->pa_bits))
        return "address beyond the physical width";
    if (mmi_pt_is_table(pt, e, level))
        return NULL;
    low = mmi_pt_pa_field(pt, mmi_pt_size(pt, level) - 1) & ~mmi_ptf_big_pat(pt);
    if (level != 0 && (field & low) != 0)
        return "misaligned leaf";
    return NULL;
}

static const char *mmi_pt_flaw_of_riscv(const struct mm_pagetable *pt, uint64_t e, unsigned level,
                                        bool table)
{
    uint64_t n = MMI_PT_BIT(63), pbmt = UINT64_C(3) << 61, group;

    if (!table && ((e & 0xe) == 0 || (e & 6) == 4))
        return "reserved permissions";
    if (table || mmi_ptf_entry_shift(pt) == 2)
        return NULL;
    if ((pt->flags & MM_PAGETABLE_SVPBMT) == 0 ? (e & pbmt) != 0 : (e & pbmt) == pbmt)
        return "reserved memory type";
    if ((e & n) == 0)
        return NULL;
    group = mmi_pt_shr(e, mmi_ptf_ppn_shift(pt)) & 15;
    return (pt->flags & MM_PAGETABLE_CONTIGUOUS) == 0 || level != 0 || group != 8
               ? "reserved size of a group"
               : NULL;
}

static const char *mmi_pt_flaw_of_ept(const struct mm_pagetable *pt, uint64_t e, bool table)
{
    unsigned type = (unsigned)(e >> 3) & 7u;
    bool exec = (e & 4) != 0 || ((pt->flags & MM_PAGETABLE_MODE_EXEC) != 0 && (e & 0x400) != 0);

    if ((e & 3) == 2)
        return "write without read";
    if ((e & 1) == 0 && exec && (pt->flags & MM_PAGETABLE_EXEC_ONLY) == 0)
        return "execute without read";
    return !table && (type == 2 || type == 3 || type == 7) ? "reserved memory type" : NULL;
}

/* Rules of one family; NULL if the entry keeps them. */
static const char *mmi_pt_flaw_of_family(const struct mm_pagetable *pt, uint64_t e, unsigned level,
                                         bool table)
{
    switch (mmi_ptf_family(pt)) {
    case MM_PAGETABLE_FAMILY_X86:
        return (pt->flags & MM_PAGETABLE_NX) == 0 && (e & MMI_PT_BIT(63)) != 0 ? "reserved bits"
                                                                               : NULL;
    case MM_PAGETABLE_FAMILY_RISCV:
        return mmi_pt_flaw_of_riscv(pt, e, level, table);
    case MM_PAGETABLE_FAMILY_EPT:
        return mmi_pt_flaw_of_ept(pt, e, table);
    default:
        return level == 0 && (e & 2) == 0 ? "block at the lowest level" : NULL;
    }
}

/* Why this present entry is malformed; NULL if it is not. */
static const char *mmi_pt_flaw(const struct mm_pagetable *pt, uint64_t e, unsigned level)
{
    bool table = mmi_pt_is_table(pt, e, level);
    uint64_t reserved = table ? mmi_ptf_reserved_table(pt) : mmi_ptf_reserved(pt);
    const char *flaw;

    if (!table && (mmi_ptf_leaf_levels(pt) >> level & 1u) == 0)
        return "leaf at a level that has none";
    if ((e & reserved) != 0)
        return "reserved bits";
    flaw = mmi_pt_flaw_of_family(pt, e, level, table);
    return flaw != NULL ? flaw : mmi_pt_flaw_of_address(pt, e, level);
}

/* What all entries on the way grant together (Intel SDM vol. 3, 4.6.1). */
struct mmi_pt_rights {
    bool read, write, exec, user;
};

/* Does this condition forbid the access? */
static enum mm_pagetable_fault mmi_pt_unless(bool allowed)
{
    return allowed ? MM_PAGETABLE_FAULT_NONE : MM_PAGETABLE_FAULT_PERMISSION;
}

/* May this mode touch a page of user mode, or of the supervisor, at all? (SMEP, SMAP) */
static bool mmi_pt_x86_mode(const struct mmi_pt_rights *r, unsigned access)
{
    unsigned guard =
        (access & MM_PAGETABLE_ACCESS_FETCH) != 0 ? MM_PAGETABLE_CPU_SMEP : MM_PAGETABLE_CPU_SMAP;
    if ((access & MM_PAGETABLE_ACCESS_USER) != 0)
        return r->user;
    return !r->user || (access & guard) == 0;
}

/* x86_64: SDM vol. 3, 4.6.1 and 4.6.2. */
static enum mm_pagetable_fault mmi_pt_judge_x86(const struct mm_pagetable *pt,
                                                const struct mmi_pt_rights *r, uint64_t leaf,
                                                unsigned access, uint32_t keys)
{
    bool strict = (access & (MM_PAGETABLE_ACCESS_USER | MM_PAGETABLE_CPU_WP)) != 0;
    bool write = (access & MM_PAGETABLE_ACCESS_WRITE) != 0 && strict;
    uint32_t key = (uint32_t)(leaf >> 59) & 15u;

    if (!mmi_pt_x86_mode(r, access))
        return MM_PAGETABLE_FAULT_PERMISSION;
    if ((access & MM_PAGETABLE_ACCESS_FETCH) != 0)
        return mmi_pt_unless(r->exec);
    if (r->user && (pt->flags & MM_PAGETABLE_PKEYS) != 0 &&
        (keys >> 2 * key & (write ? 3u : 1u)) != 0)
        return MM_PAGETABLE_FAULT_KEY;
    return mmi_pt_unless(!write || r->write);
}

/* Does the U bit let this mode in? A second stage sees user accesses only. */
static bool mmi_pt_riscv_mode(const struct mm_pagetable *pt, uint64_t e, unsigned access)
{
    bool user_page = (e & 0x10) != 0;

    if (mmi_ptf_user(pt) == 0 || (access & MM_PAGETABLE_ACCESS_USER) != 0)
        return user_page;
    return !user_page ||
           ((access & MM_PAGETABLE_ACCESS_FETCH) == 0 && (access & MM_PAGETABLE_CPU_SUM) != 0);
}

/* RISC-V: privileged 4.3.2, 8.5.1. */
static enum mm_pagetable_fault mmi_pt_judge_riscv(const struct mm_pagetable *pt, uint64_t e,
                                                  unsigned access)
{
    bool write = (access & MM_PAGETABLE_ACCESS_WRITE) != 0;
    uint64_t need = 2, used = write ? 0xc0u : 0x40u;

    if ((access & MM_PAGETABLE_ACCESS_FETCH) != 0)
        need = 8;
    else if (write)
        need = 4;
    else if ((access & MM_PAGETABLE_CPU_MXR) != 0)
        need = 0xa;
    if (!mmi_pt_riscv_mode(pt, e, access) || (e & need) == 0)
        return MM_PAGETABLE_FAULT_PERMISSION;
    return (e & used) != used && (pt->flags & MM_PAGETABLE_HW_AD) == 0
               ? MM_PAGETABLE_FAULT_ACCESS_FLAG
               : MM_PAGETABLE_FAULT_NONE;
}

static enum mm_pagetable_fault mmi_pt_judge_ept(const struct mmi_pt_rights *r, unsigned access)
{
    if ((access & MM_PAGETABLE_ACCESS_FETCH) != 0)
        return mmi_pt_unless(r->exec);
    return mmi_pt_unless((access & MM_PAGETABLE_ACCESS_WRITE) != 0 ? r->write : r->read);
}

/* AArch64: may it be written, by DBM too? AP[2] forbids writes, S2AP[1] allows them. */
static bool mmi_pt_arm_writable(const struct mm_pagetable *pt, uint64_t e)
{
    bool bit = (e & 0x80) != 0, first = mmi_ptf_user(pt) != 0;
    return bit != first || ((pt->flags & MM_PAGETABLE_HW_AD) != 0 && (e & mmi_ptf_write(pt)) != 0);
}

/* AArch64 stage 1: Arm ARM D8.4.1. What user mode may write, the kernel never executes. */
static bool mmi_pt_arm_first(const struct mm_pagetable *pt, uint64_t e, unsigned access)
{
    bool by_user = (access & MM_PAGETABLE_ACCESS_USER) != 0, open = (e & 0x40) != 0;
    bool writable = mmi_pt_arm_writable(pt, e);

    if ((access & MM_PAGETABLE_ACCESS_FETCH) != 0)
        return by_user ? open && (e & MMI_PT_BIT(54)) == 0
                       : (e & MMI_PT_BIT(53)) == 0 && !(open && writable);
    if (by_user ? !open : open && (access & MM_PAGETABLE_CPU_SMAP) != 0)
        return false;
    return writable || (access & MM_PAGETABLE_ACCESS_WRITE) == 0;
}

/* AArch64 stage 2: D8.4.2. */
static bool mmi_pt_arm_second(const struct mm_pagetable *pt, uint64_t e, unsigned access)
{
    unsigned xn = (unsigned)(e >> 53) & 3u;

    if ((access & MM_PAGETABLE_ACCESS_FETCH) != 0)
        return xn == 0 || xn == ((access & MM_PAGETABLE_ACCESS_USER) != 0 ? 1u : 3u);
    return (access & MM_PAGETABLE_ACCESS_WRITE) != 0 ? mmi_pt_arm_writable(pt, e) : (e & 0x40) != 0;
}

static enum mm_pagetable_fault mmi_pt_judge_aarch64(const struct mm_pagetable *pt, uint64_t e,
                                                    unsigned access)
{
    if ((e & 0x400) == 0 && (pt->flags & MM_PAGETABLE_HW_AD) == 0)
        return MM_PAGETABLE_FAULT_ACCESS_FLAG;
    return mmi_pt_unless(mmi_ptf_user(pt) != 0 ? mmi_pt_arm_first(pt, e, access)
                                               : mmi_pt_arm_second(pt, e, access));
}

/* Takes the rights that one entry leaves. */
static void mmi_pt_restrict(const struct mm_pagetable *pt, uint64_t e, unsigned access,
                            struct mmi_pt_rights *r)
{
    bool by_user = (access & MM_PAGETABLE_ACCESS_USER) != 0;
    uint64_t exec = (pt->flags & MM_PAGETABLE_MODE_EXEC) != 0 && by_user ? 0x400u : 4u;

    if (mmi_ptf_family(pt) == MM_PAGETABLE_FAMILY_X86) {
        r->write = r->write && (e & 2) != 0;
        r->user = r->user && (e & 4) != 0;
        r->exec = r->exec && (e & MMI_PT_BIT(63)) == 0;
    } else if (mmi_ptf_family(pt) == MM_PAGETABLE_FAMILY_EPT) {
        r->read = r->read && (e & 1) != 0;
        r->write = r->write && (e & 2) != 0;
        r->exec = r->exec && (e & exec) != 0;
    }
}

/* The error code of an x86 page fault (SDM vol. 3, 4.7). */
static uint32_t mmi_pt_error_code(enum mm_pagetable_fault fault, unsigned access)
{
    uint32_t code = fault != MM_PAGETABLE_FAULT_NOT_PRESENT;

    code |= (access & MM_PAGETABLE_ACCESS_WRITE) != 0 ? 2u : 0;
    code |= (access & MM_PAGETABLE_ACCESS_USER) != 0 ? 4u : 0;
    code |= fault == MM_PAGETABLE_FAULT_RESERVED ? 8u : 0;
    if ((access & MM_PAGETABLE_ACCESS_FETCH) != 0 && (access & MM_PAGETABLE_CPU_IDENTIFIES) != 0)
        code |= 16u;
    return code | (fault == MM_PAGETABLE_FAULT_KEY ? 32u : 0);
}

static enum mm_pagetable_fault mmi_pt_judge(const struct mm_pagetable *pt,
                                            const struct mmi_pt_rights *r, uint64_t e,
                                            unsigned access, uint32_t keys)
{
    switch (mmi_ptf_family(pt)) {
    case MM_PAGETABLE_FAMILY_X86:
        return mmi_pt_judge_x86(pt, r, e, access, keys);
    case MM_PAGETABLE_FAMILY_RISCV:
        return mmi_pt_judge_riscv(pt, e, access);
    case MM_PAGETABLE_FAMILY_EPT:
        return mmi_pt_judge_ept(r, access);
    default:
        return mmi_pt_judge_aarch64(pt, e, access);
    }
}

MM_PAGETABLE_API void mm_pagetable_predict(const struct mm_pagetable *pt, mm_va_t va,
                                           unsigned access, uint32_t keys,
                                           struct mm_pagetable_access *result)
{
    struct mmi_pt_rights rights = {true, true, true, true};
    uint64_t off = mmi_pt_offset(pt, va), e = 0;
    mm_pa_t table = pt->root;
    bool last = false;

    result->level = mmi_pt_root_level(pt);
    result->pa = MM_PA_NONE;
    result->error_code = 0;
    result->fault = MM_PAGETABLE_FAULT_CANONICAL;
    if (mmi_pt_va(pt, off) != va)
        return;
    if (mmi_ptf_id(pt) == MM_PAGETABLE_ID_NPT) /* all walks count as user's (APM vol. 2, 15.25.5) */
        access |= MM_PAGETABLE_ACCESS_USER;
    result->fault = MM_PAGETABLE_FAULT_NONE;
    while (!last) {
        last = mmi_pt_step(pt, mmi_pt_index(pt, off, result->level), result->level, &table, &e);
        if (!mmi_pt_present(pt, e))
            result->fault = MM_PAGETABLE_FAULT_NOT_PRESENT;
        else if (mmi_pt_flaw(pt, e, result->level) != NULL)
            result->fault = MM_PAGETABLE_FAULT_RESERVED;
        mmi_pt_restrict(pt, e, access, &rights);
        last = last || result->fault != MM_PAGETABLE_FAULT_NONE;
        result->level -= !last;
    }
    if (result->fault == MM_PAGETABLE_FAULT_NONE)
        result->fault = mmi_pt_judge(pt, &rights, e, access, keys);
    if (result->fault == MM_PAGETABLE_FAULT_NONE)
        result->pa = mmi_pt_leaf_pa(pt, e, result->level, off);
    else if (mmi_ptf_family(pt) == MM_PAGETABLE_FAMILY_X86)
        result->error_code = mmi_pt_error_code(result->fault, access);
}

/* ---- Walks ----------------------------------------------------------------------------------- */

/* Shows one entry to the visitor; false if it has seen enough. */
static bool mmi_pt_visit(const struct mm_pagetable_visitor *visitor, const struct mmi_pt_iter *it,
                         uint64_t e, bool table)
{
    struct mm_pagetable_entry entry;

    if ((visitor->levels >> it->level & 1u) == 0 || !mmi_pt_present(it->pt, e))
        return true;
    mmi_pt_describe(it->pt, e, it->level, it->off, &entry);
    if (!table)
        return visitor->leaf == NULL || visitor->leaf(visitor->ctx, &entry);
    entry.pa = mmi_pt_table_pa(it->pt, e);
    entry.attr = 0;
    return visitor->table == NULL || visitor->table(visitor->ctx, &entry);
}

MM_PAGETABLE_API enum mm_status mm_pagetable_walk(const struct mm_pagetable *pt, mm_va_t va,
                                                  uint64_t bytes,
                                                  const struct mm_pagetable_visitor *visitor)
{
    static const char where[] = "mm_pagetable_walk";
    struct mmi_pt_iter it;
    uint64_t off, end, e;
    enum mm_status status = mmi_pt_range(pt, where, va, bytes, &off, &end);
    bool more = true, table;

    if (status != MM_OK)
        return status;
    if (visitor == NULL || (visitor->leaf == NULL && visitor->table == NULL))
        return mmi_pt_refuse(pt, where, "no visitor", MM_ERR_INVALID, va);
    mmi_pt_begin_reading(&it, pt, off, end);
    while (more && it.off < end) {
        e = mmi_pt_here(&it);
        table = mmi_pt_is_table(pt, e, it.level);
        more = mmi_pt_visit(visitor, &it, e, table);
        if (table)
            mmi_pt_down(&it, mmi_pt_table_pa(pt, e));
        else
            mmi_pt_move(&it, mmi_pt_entry_end(&it));
    }
    mmi_pt_leave(&it);
    return MM_OK;
}

struct mmi_pt_join {
    const struct mm_pagetable *pt;
    struct mm_pagetable_run run; /* bytes 0: none yet */
    bool (*each)(void *ctx, const struct mm_pagetable_run *run);
    void *ctx;
};

static bool mmi_pt_join_leaf(void *ctx, const struct mm_pagetable_entry *entry)
{
    struct mmi_pt_join *join = (struct mmi_pt_join *)ctx;
    struct mm_pagetable_run *run = &join->run;

    if (run->bytes != 0 && run->va + run->bytes == entry->va && run->pa + run->bytes == entry->pa &&
        run->attr == entry->attr && run->level == entry->level) {
        run->bytes += entry->bytes;
        return true;
    }
    if (run->bytes != 0 && !join->each(join->ctx, run)) {
        run->bytes = 0;
        return false;
    }
    run->va = entry->va;
    run->bytes = entry->bytes;
    run->pa = entry->pa;
    run->attr = entry->attr;
    run->level = entry->level;
    return true;
}

MM_PAGETABLE_API enum mm_status
mm_pagetable_runs(const struct mm_pagetable *pt, mm_va_t va, uint64_t bytes,
                  bool (*each)(void *ctx, const struct mm_pagetable_run *run), void *ctx)
{
    struct mm_pagetable_visitor visitor;
    struct mmi_pt_join join;
    enum mm_status status;

    join.pt = pt;
    join.run.bytes = 0;
    join.each = each;
    join.ctx = ctx;
    visitor.ctx = &join;
    visitor.leaf = mmi_pt_join_leaf;
    visitor.table = NULL;
    visitor.levels = (1u << MM_PAGETABLE_LEVELS_MAX) - 1;
    if (each == NULL)
        return MM_ERR_INVALID;
    status = mm_pagetable_walk(pt, va, bytes, &visitor);
    if (status == MM_OK && join.run.bytes != 0)
        (void)each(ctx, &join.run);
    return status;
}

/* ---- Dump ------------------------------------------------------------------------------------ */

struct mmi_pt_dump {
    const struct mm_pagetable *pt;
    void (*print)(void *ctx, const char *line);
    void *ctx;
};

static char *mmi_pt_put_text(char *p, const char *text)
{
    while (*text != '\0')
        *p++ = *text++;
    return p;
}

static char *mmi_pt_put_hex(char *p, uint64_t value)
{
    unsigned shift;
    for (shift = 64; shift != 0; shift -= 4)
        *p++ = "0123456789abcdef"[mmi_pt_shr(value, shift - 4) & 15];
    return p;
}

/* A number of bytes in the largest unit that holds it whole: "4K", "2M". */
static char *mmi_pt_put_size(char *p, uint64_t bytes)
{
    char digits[20];
    unsigned unit = 0, n = 0;
    uint32_t value;

    while (unit < 6 && bytes >= 1024 && (bytes & 1023) == 0) {
        bytes >>= 10;
        unit++;
    }
    while (unit < 6 && bytes > UINT32_MAX) { /* no 64-bit division */
        bytes >>= 10;
        unit++;
    }
    value = (uint32_t)bytes;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n != 0)
        *p++ = digits[--n];
    *p++ = "BKMGTPE"[unit];
    return p;
}

static char *mmi_pt_put_attr(char *p, uint32_t attr)
{
    static const char flags[] = "rwxuXgad";
    static const char types[MM_PAGETABLE_TYPE_COUNT][4] = {"wb", "wt", "uc", "wc", "wp", "dev"};
    unsigned i, type = attr >> 8 & 7u;

    for (i = 0; i < 8; i++)
        *p++ = (char)((attr >> i & 1u) != 0 ? flags[i] : '-');
    *p++ = ' ';
    p = mmi_pt_put_text(p, type < MM_PAGETABLE_TYPE_COUNT ? types[type] : "?");
    if ((attr & MM_PAGETABLE_COW) != 0)
        p = mmi_pt_put_text(p, " cow");
    if ((attr & MM_PAGETABLE_CONTIG) != 0)
        p = mmi_pt_put_text(p, " contig");
    return p;
}

static bool mmi_pt_dump_run(void *ctx, const struct mm_pagetable_run *run)
{
    struct mmi_pt_dump *dump = (struct mmi_pt_dump *)ctx;
    char line[128], *p = line;

    p = mmi_pt_put_text(p, "0x");
    p = mmi_pt_put_hex(p, run->va);
    p = mmi_pt_put_text(p, "-0x");
    p = mmi_pt_put_hex(p, run->va + (run->bytes - 1));
    p = mmi_pt_put_text(p, " 0x");
    p = mmi_pt_put_hex(p, run->pa);
    *p++ = ' ';
    p = mmi_pt_put_size(p, run->bytes);
    *p++ = '/';
    p = mmi_pt_put_size(p, mmi_pt_size(dump->pt, run->level));
    *p++ = ' ';
    p = mmi_pt_put_attr(p, run->attr);
    *p = '\0';
    dump->print(dump->ctx, line);
    return true;
}

MM_PAGETABLE_API void mm_pagetable_dump(const struct mm_pagetable *pt,
                                        void (*print)(void *ctx, const char *line), void *ctx)
{
    uint64_t half = mmi_pt_space(pt) >> 1;
    struct mmi_pt_dump dump;

    dump.pt = pt;
    dump.print = print;
    dump.ctx = ctx;
    (void)mm_pagetable_runs(pt, mmi_pt_va(pt, 0), half, mmi_pt_dump_run, &dump);
    (void)mm_pagetable_runs(pt, mmi_pt_va(pt, half), half, mmi_pt_dump_run, &dump);
}

/* ---- Statistics, check ----------------------------------------------------------------------- */

MM_PAGETABLE_API void mm_pagetable_get_stats(const struct mm_pagetable *pt,
                                             struct mm_pagetable_stats *stats)
{
    uint64_t all = mmi_pt_space(pt), e;
    unsigned root = mmi_pt_root_level(pt);
    struct mmi_pt_iter it;

    MM_PAGETABLE_MEMSET(stats, 0, sizeof *stats);
    stats->tables[root] = 1;
    stats->table_bytes = mmi_pt_table_bytes(pt, root);
    mmi_pt_begin_reading(&it, pt, 0, all);
    while (it.off < all) {
        e = mmi_pt_here(&it);
        if (mmi_pt_is_table(pt, e, it.level)) {
            if (it.level != root || mmi_pt_note(pt, e) != MMI_PT_BORROWED) {
                mmi_pt_down(&it, mmi_pt_table_pa(pt, e));
                stats->tables[it.level]++;
                stats->table_bytes += mmi_pt_table_bytes(pt, it.level);
                continue;
            }
        } else if (mmi_pt_present(pt, e)) {
            stats->leaves[it.level]++;
            stats->mapped_bytes += mmi_pt_size(pt, it.level);
            stats->contiguous += mmi_pt_in_group(&it, e);
        } else if ((e & MMI_PT_SWAP_MARK) != 0) {
            stats->swapped++;
        }
        mmi_pt_move(&it, mmi_pt_entry_end(&it));
    }
    mmi_pt_leave(&it);
}

struct mmi_pt_checking {
    mm_pa_t *seen;
    size_t room;
    uint64_t tables;
    struct mm_pagetable_flaw *flaw;
    mm_pa_t path[MM_PAGETABLE_LEVELS_MAX]; /* tables from the root down */
};

static enum mm_status mmi_pt_found(struct mmi_pt_checking *c, const struct mmi_pt_iter *it,
                                   const char *what, uint64_t e)
{
    if (c->flaw != NULL) {
        c->flaw->what = what;
        c->flaw->va = mmi_pt_va(it->pt, it->off);
        c->flaw->level = it->level;
        c->flaw->raw = e;
    }
    return MM_ERR_CORRUPT;
}

/* Do the sixteen entries of a contiguous group fit together? */
static bool mmi_pt_good_group(const struct mmi_pt_iter *it, uint64_t e)
{
    struct mm_pagetable *pt = it->pt;
    uint64_t page = mmi_pt_size(pt, 0), start = it->off & ~(16 * page - 1), i;
    uint64_t index = mmi_pt_index(pt, start, 0), essence = mmi_pt_essence(pt, e, 0);
    mm_pa_t pa = mmi_pt_leaf_pa(pt, e, 0, it->off) & ~(16 * page - 1);

    for (i = 0; i < 16; i++) {
        uint64_t other = mmi_pt_load(pt, it->table[0], index + i);
        if (!mmi_pt_in_group(it, other) || mmi_pt_essence(pt, other, 0) != essence ||
            mmi_pt_leaf_pa(pt, other, 0, start + i * page) != pa + i * page)
            return false;
    }
    return true;
}

/* Is the table below this entry one of those above it, and does its note hold? */
static const char *mmi_pt_flaw_of_table(struct mmi_pt_checking *c, const struct mmi_pt_iter *it,
                                        uint64_t e)
{
    struct mm_pagetable *pt = it->pt;
    mm_pa_t pa = mmi_pt_table_pa(pt, e);
    unsigned level, note = mmi_pt_note(pt, e), count, live, most = mmi_pt_no_claim(pt);
    bool root = it->level == mmi_pt_root_level(pt), keep;
    void *table;

    for (level = it->level; level <= it->top; level++)
        if (c->path[level] == pa)
            return "a table above itself";
    keep = (pt->flags & MM_PAGETABLE_KEEP_EMPTY) != 0 || mmi_pt_lent(pt, e, it->level);
    if (root && note != MMI_PT_OWN && note != MMI_PT_LENT)
        return "note of a table";
    table = mmi_pt_open(pt, pa);
    live = mmi_pt_tally(pt, table, it->level - 1, 0, most);
    mmi_pt_close(pt, table);
    count = mmi_pt_counted(pt, it->level) ? mmi_pt_count(pt, e) : most;
    if (count != most && count != live)
        return "note of a table";
    return live == 0 && !keep ? "empty table" : NULL;
}

/* Restores the heap order of seen[0..count) below `i`. */
static void mmi_pt_sift(mm_pa_t *seen, size_t i, size_t count)
{
    mm_pa_t value = seen[i];
    size_t child;

    while ((child = 2 * i + 1) < count) {
        if (child + 1 < count && seen[child + 1] > seen[child])
            child++;
        if (seen[child] <= value)
            break;
        seen[i] = seen[child];
        i = child;
    }
    seen[i] = value;
}

/* Sorts the tables that were seen (heapsort), and looks for equal ones. */
static bool mmi_pt_twice(mm_pa_t *seen, size_t count)
{
    size_t i;

    for (i = count / 2; i-- > 0;)
        mmi_pt_sift(seen, i, count);
    for (i = count; i-- > 1;) {
        mm_pa_t largest = seen[0];
        seen[0] = seen[i];
        seen[i] = largest;
        mmi_pt_sift(seen, 0, i);
    }
    for (i = 1; i < count; i++)
        if (seen[i] == seen[i - 1])
            return true;
    return false;
}

static void mmi_pt_seen(struct mmi_pt_checking *c, mm_pa_t table)
{
    if (c->tables < c->room)
        c->seen[c->tables] = table;
    c->tables++;
}

/* What is wrong with the entry itself; NULL if nothing is. */
static const char *mmi_pt_flaw_here(const struct mmi_pt_iter *it, uint64_t e)
{
    const char *flaw;

    if (!mmi_pt_present(it->pt, e))
        return e != 0 && (it->level != 0 || (e & MMI_PT_SWAP_MARK) == 0)
                   ? "not present, and not a swap entry"
                   : NULL;
    flaw = mmi_pt_flaw(it->pt, e, it->level);
    if (flaw == NULL && mmi_pt_in_group(it, e) && !mmi_pt_good_group(it, e))
        return "broken contiguous group";
    return flaw;
}

/* One entry: goes down into a table, or on. Borrowed tables are not entered. */
static enum mm_status mmi_pt_check_entry(struct mmi_pt_checking *c, struct mmi_pt_iter *it)
{
    struct mm_pagetable *pt = it->pt;
    uint64_t e = mmi_pt_here(it);
    const char *flaw = mmi_pt_flaw_here(it, e);
    bool table = mmi_pt_is_table(pt, e, it->level);

    if (table && pt->borrows && it->level == it->top && mmi_pt_note(pt, e) == MMI_PT_BORROWED)
        table = false;
    if (flaw == NULL && table)
        flaw = mmi_pt_flaw_of_table(c, it, e);
    if (flaw != NULL)
        return mmi_pt_found(c, it, flaw, e);
    if (table) {
        mmi_pt_down(it, mmi_pt_table_pa(pt, e));
        c->path[it->level] = mmi_pt_table_pa(pt, e);
        mmi_pt_seen(c, c->path[it->level]);
    } else {
        mmi_pt_move(it, mmi_pt_entry_end(it));
    }
    return MM_OK;
}

MM_PAGETABLE_API enum mm_status mm_pagetable_check(const struct mm_pagetable *pt, mm_pa_t *seen,
                                                   size_t room, struct mm_pagetable_flaw *flaw)
{
    uint64_t all = mmi_pt_space(pt);
    struct mmi_pt_checking c;
    struct mmi_pt_iter it;
    enum mm_status status = MM_OK;

    c.seen = seen;
    c.room = seen != NULL ? room : 0;
    c.tables = 0;
    c.flaw = flaw;
    mmi_pt_begin_reading(&it, pt, 0, all);
    c.path[it.top] = pt->root;
    mmi_pt_seen(&c, pt->root);
    while (status == MM_OK && it.off < all)
        status = mmi_pt_check_entry(&c, &it);
    mmi_pt_leave(&it);
    if (status != MM_OK || seen == NULL)
        return status;
    if (c.tables > room)
        return MM_ERR_LIMIT;
    if (!mmi_pt_twice(seen, (size_t)c.tables))
        return MM_OK;
    it.off = 0;
    return mmi_pt_found(&c, &it, "a table reached twice", 0);
}

#ifdef __cplusplus
}
#endif

#endif /* MM_PAGETABLE_IMPLEMENTATION */

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
