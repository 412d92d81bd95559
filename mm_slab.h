/* mm_slab.h - v0.1.0 - small objects: named caches and kmalloc - 0BSD
 *
 *   Hands out small objects from slabs, naturally aligned pieces of memory that a hook provides.
 *   What is free is noted beside the objects, in the slab's header and in arrays by CPU, so that a
 *   free object is never written to: constructed objects stay constructed, and a stray write to a
 *   freed object cannot lead the allocator astray.
 *
 *   In exactly one C or C++ file:
 *       #define MM_SLAB_IMPLEMENTATION
 *       #include "mm_slab.h"
 *   In every other file include it without the macro. The latest text of the licence (0BSD) stands
 *   at the end of this file.
 *
 * CONTENTS
 *
 *   Quick start . Hooks and options . Concepts . Guarantees . Limits       (this comment)
 *   Core block . Types . Heaps . General objects . Caches . Readers without locks . Memory back
 *   . Questions . Hot paths . Implementation . Licence
 *
 * QUICK START
 *
 *   --- quick start (quickstart.c) ---
 *   #define MM_SLAB_IMPLEMENTATION
 *   #include "mm_slab.h"
 *
 *   #include <stdlib.h>
 *
 *   static void *pages(void *ctx, size_t bytes, size_t align, unsigned flags)
 *   {
 *       (void)ctx, (void)flags;
 *       return aligned_alloc(align, (bytes + align - 1) & ~(align - 1));
 *   }
 *
 *   static void unpages(void *ctx, void *ptr, size_t bytes)
 *   {
 *       (void)ctx, (void)bytes;
 *       free(ptr);
 *   }
 *
 *   static struct mm_slab_heap heap;
 *   static struct mm_slab_cache tasks;
 *
 *   int main(void)
 *   {
 *       struct mm_slab_hooks hooks = {0};
 *       struct mm_slab_config config;
 *       struct mm_slab_cache_config task = {0};
 *       void *any, *one;
 *
 *       hooks.alloc = pages;
 *       hooks.free = unpages;
 *       mm_slab_config_init(&config, &hooks);
 *       task.name = "task";
 *       task.size = 200;
 *       if (mm_slab_init(&heap, &config) != MM_OK ||
 *           mm_slab_cache_init(&tasks, &heap, &task) != MM_OK)
 *           return 1;
 *
 *       any = mm_slab_kmalloc(&heap, 100, MM_SLAB_ZERO); // the least class that fits: 112 bytes
 *       one = mm_slab_alloc(&tasks, 0);
 *       if (any == NULL || one == NULL)
 *           return 1;
 *       if (mm_slab_kfree(&heap, any) != MM_OK || mm_slab_free(&tasks, one) != MM_OK)
 *           return 1;
 *       if (mm_slab_free(&tasks, one) != MM_ERR_INVALID) // a double free is refused
 *           return 1;
 *       if (mm_slab_cache_destroy(&tasks, NULL) != MM_OK)
 *           return 1;
 *       return mm_slab_fini(&heap) == MM_OK ? 0 : 1;
 *   }
 *   --- end ---
 *
 * HOOKS AND OPTIONS (define before the include; all are optional)
 *
 *   MM_SLAB_IMPLEMENTATION    emit the implementation here
 *   MM_SLAB_STATIC            all functions are static: for use inside one file
 *   MM_SLAB_SHIFT             log2 of a slab's bytes, 12 to 17 (16)
 *   MM_SLAB_SLOTS             slots of a CPU's array for the classes up to 128 bytes: 8 to 128, a
 *                             power of two (128); half as many for each doubling above, eight at
 *                             least; eight above 512 bytes and four above 1 KiB: what arrays hold
 *                             of large classes is memory that nobody has
 *   MM_SLAB_SHARE             slabs of a heap from which on classes above 256 bytes share new ones
 *                             (192)
 *   MM_SLAB_HARDEN            1: the inlined free also tells addresses inside an object from its
 *                             start, and objects that are free in their slab, and reads nothing
 *                             below or above all that the hook gave (0)
 *   MM_SLAB_SELF(heap)        pointer to this CPU's struct mm_slab_cpu of the heap, where the
 *                             program has it at hand: &heap->cpu[n], never NULL
 *   MM_SLAB_POISON(p, bytes), MM_SLAB_UNPOISON(p, bytes)
 *                             told of each piece of memory that becomes free, or is handed out: for
 *                             a sanitizer. Both or none
 *   MM_SLAB_LOCK_T, _LOCK_INIT(l), _LOCK(l, s), _UNLOCK(l, s), _LOCK_STATE_T
 *                             this header's locks, in place of MM_LOCK and so on: all or none
 *   MM_SLAB_CPU_ID()          number of this CPU, in place of MM_CPU_ID()
 *   MM_SLAB_CPU_STATE_T, _CPU_PIN(s), _CPU_UNPIN(s)
 *                             in place of MM_CPU_PIN and so on: from pin to unpin the thread stays
 *                             on its CPU, and no interrupt there enters the heap
 *   MM_SLAB_MEMSET, _MEMCPY, MM_SLAB_ASSERT(x), MM_SLAB_DEBUG, MM_SLAB_REPORT(report)
 *                             in place of MM_MEMSET and so on
 *
 *   What hooks expand to stands in functions with locals of their own: it calls functions whose
 *   names have a prefix (not `cpu()`). Some of them are inline functions of external linkage: a
 *   function of yours there is not `static` in C (compilers warn), but a plain one, or extern
 *   inline with gnu_inline, or all is MM_SLAB_STATIC. A lock of your own that waits has to answer
 *   MM_FENCE_CPUS.
 *
 *   Hooks at run time stand in struct mm_slab_hooks: the source of memory, reclaim, calls on other
 *   CPUs, grace periods. They may use the heap, but for `purge`.
 *
 * CONCEPTS
 *
 *   Slab             2^MM_SLAB_SHIFT bytes at a multiple of that, all for one cache: a header, then
 *                    objects side by side. The header has a bit for each object, set where it is
 *                    free in the slab. Clearing an address's low bits leads to its header.
 *   Shared slab      In a heap of more than MM_SLAB_SHARE slabs the classes above 256 bytes that
 *                    are multiples of 64, without debug flags, take what their own slabs do not
 *                    have out of slabs that they share: an object is a run of units of 64 bytes
 *                    there, and what one class left another can use. A run is cut from a slab
 *                    whose largest hole is as small as can be, and there from the smallest hole.
 *                    The header tells where objects begin and their classes. What is freed there
 *                    goes into one small array of the CPU first; when that is full, or one of the
 *                    classes wants something, it is sorted into the arrays of the classes.
 *   Cache            objects of one size, with a name; slabs in two lists (some free, none free).
 *   Heap             what caches have in common: the source of memory, and one cache for each size
 *                    class of kmalloc: 8, then multiples of 16 to 128, then eight to each doubling
 *                    up to 8192. An object is aligned to the largest power of two that divides
 *                    its class, so powers of two are naturally aligned. Larger requests go to the
 *                    source; a table by address knows their sizes.
 *   CPU's arrays     each CPU has two arrays of object addresses for each cache: `out`, which
 *                    allocations pop, and `in`, where frees push, whichever CPU the object came
 *                    from. When `out` is empty it takes over what is in `in`; only when that is
 *                    little too, or both are full, is the cache's lock taken, once for the lot.
 *                    What was freed last stays on its CPU. Pops and pushes are apart so that one
 *                    seldom waits for the other's store.
 *   Depot            full arrays on their way from one CPU to another, or to a later time: it
 *                    grows where emptying and filling alternate in long runs, and shrinks else.
 *                    A CPU takes first what it put there itself; of what another CPU put there it
 *                    prefetches the objects' lines.
 *   Shortage         Before an allocation without NOWAIT fails, all arrays and depots are emptied,
 *                    those of other CPUs by the hook each_cpu, and empty slabs go back; then the
 *                    reclaim hook is asked. With NOWAIT: this CPU's arrays, the depot, the slabs
 *                    and the source.
 *   Debug flags      MM_SLAB_DEBUG_… of a cache. Such a cache has no arrays by CPU: each call takes
 *                    the cache's lock and sees the state of each object. Default flags by
 *                    MM_SLAB_DEBUG: 0 and 1 none; 2 FREES, ZONES, POISON, USER; 3 also QUARANTINE.
 *                    With MM_SLAB_DEBUG 0 the code for them does not exist. Large requests of a
 *                    heap with ZONES have a red zone behind them. A write to a free object is found
 *                    when the object is allocated or its slab leaves the cache.
 *
 * GUARANTEES
 *
 *   Errors     A call that fails changes nothing; free objects may have moved between the arrays
 *              and the slabs. Refused in every build: addresses outside the heap's slabs and large
 *              requests, objects of other caches and heaps, misaligned addresses (less aligned than
 *              the largest power of two that divides the class, or 64), and what was freed last on
 *              this CPU. Other double frees and other addresses that are no object's first are
 *              dropped and counted when they reach the slab, where all is exact, unless they were
 *              handed out before. With MM_SLAB_HARDEN every address but an object's first and every
 *              object that is free in its slab are refused on the spot; with debug flags every
 *              misuse is.
 *   Wild frees The first 64 bytes at the address with its low MM_SLAB_SHIFT bits cleared must be
 *              readable, as they are in a kernel's map of all memory. With MM_SLAB_HARDEN that is
 *              asked only between the lowest and the highest address that the hook gave, with
 *              MM_SLAB_DEBUG from 1 up nowhere: a table is looked up first. An object that two CPUs
 *              freed is looked for in its slab after that may have gone back: the same holds there
 *              for the slab's header.
 *   Time       Hot paths: see there. The rest is O(slots) under the cache's lock; for an object out
 *              of a shared slab a few slabs are looked through, however many there are: first those
 *              that CPUs of the same number modulo 4 took objects out of last.
 *   Memory     a slab's header is 184 bytes and a bit an object, a shared slab's 896 bytes. Waste
 *              by rounding is at most 12.5 % above 128 bytes. Free objects in arrays: see
 *              MM_SLAB_SLOTS; in the depot at most 64 KiB a class. Empty slabs above `reserve` go
 *              back at once.
 *              A slab's rest behind its last object, header included, is a sixteenth of it at most,
 *              but for the classes of 6656 and 8192 bytes (8.6 and 12.5 %; with MM_SLAB_SHIFT 17
 *              for none): `make count-build && build/bench/count-objects --waste` prints it. All
 *              slabs have one size for that: a free finds the header by one AND with a constant.
 *              Sizes by class would cost each free a lookup, or a header in the midst of a slab.
 *   Stack      below 2 KiB, without recursion.
 *   Threads    Every function may be called from any CPU at any time, but for set-up functions and
 *              where stated otherwise. Order of locks: cache, then heap. Nothing is global.
 *
 * LIMITS
 *
 *   Classes up to 8192 bytes, or an eighth of a slab if that is less. Objects of a named cache: at
 *   most a quarter of a slab. MM_CPU_MAX CPUs; a CPU with another number is served from the slabs.
 */
#ifndef MM_SLAB_H
#define MM_SLAB_H

#define MM_SLAB_VERSION_MAJOR 0
#define MM_SLAB_VERSION_MINOR 1
#define MM_SLAB_VERSION_PATCH 0

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

#ifdef MM_SLAB_LOCK
#if !defined(MM_SLAB_LOCK_T) || !defined(MM_SLAB_LOCK_STATE_T) || !defined(MM_SLAB_LOCK_INIT) || \
    !defined(MM_SLAB_UNLOCK)
#error "define all of MM_SLAB_LOCK_T, _LOCK_STATE_T, _LOCK_INIT, _LOCK and _UNLOCK, or none"
#endif
#else
#define MM_SLAB_LOCK_T       MM_LOCK_T
#define MM_SLAB_LOCK_STATE_T MM_LOCK_STATE_T
#define MM_SLAB_LOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_SLAB_LOCK(l, s)   MM_LOCK(l, s)
#define MM_SLAB_UNLOCK(l, s) MM_UNLOCK(l, s)
#endif

#ifdef MM_SLAB_CPU_PIN
#if !defined(MM_SLAB_CPU_UNPIN) || !defined(MM_SLAB_CPU_STATE_T)
#error "define all of MM_SLAB_CPU_STATE_T, MM_SLAB_CPU_PIN and MM_SLAB_CPU_UNPIN, or none"
#endif
#else
#define MM_SLAB_CPU_STATE_T  MM_CPU_STATE_T
#define MM_SLAB_CPU_PIN(s)   MM_CPU_PIN(s)
#define MM_SLAB_CPU_UNPIN(s) MM_CPU_UNPIN(s)
#endif
#ifndef MM_SLAB_CPU_ID
#define MM_SLAB_CPU_ID() MM_CPU_ID()
#endif
#ifndef MM_SLAB_MEMSET
#define MM_SLAB_MEMSET(to, byte, size) MM_MEMSET(to, byte, size)
#endif
#ifndef MM_SLAB_MEMCPY
#define MM_SLAB_MEMCPY(to, from, size) MM_MEMCPY(to, from, size)
#endif
#ifndef MM_SLAB_ASSERT
#define MM_SLAB_ASSERT(x) MM_ASSERT(x)
#endif
#ifndef MM_SLAB_DEBUG
#define MM_SLAB_DEBUG MM_DEBUG
#endif
#ifndef MM_SLAB_REPORT
#define MM_SLAB_REPORT(report) MM_REPORT(report)
#endif

#ifdef MM_SLAB_POISON
#ifndef MM_SLAB_UNPOISON
#error "define both of MM_SLAB_POISON and MM_SLAB_UNPOISON, or none"
#endif
#define MMI_SLAB_SANITIZE 1
#else
#define MM_SLAB_POISON(p, bytes)   ((void)(p), (void)(bytes))
#define MM_SLAB_UNPOISON(p, bytes) ((void)(p), (void)(bytes))
#define MMI_SLAB_SANITIZE          0
#endif

#ifndef MM_SLAB_SHIFT
#define MM_SLAB_SHIFT 16
#endif
#if MM_SLAB_SHIFT < 12 || MM_SLAB_SHIFT > 17
#error "MM_SLAB_SHIFT is from 12 to 17"
#endif
#ifndef MM_SLAB_SLOTS
#define MM_SLAB_SLOTS 128
#endif
#if MM_SLAB_SLOTS < 8 || MM_SLAB_SLOTS > 128 || (MM_SLAB_SLOTS & (MM_SLAB_SLOTS - 1)) != 0
#error "MM_SLAB_SLOTS is a power of two from 8 to 128"
#endif
#ifndef MM_SLAB_HARDEN
#define MM_SLAB_HARDEN 0
#endif
#ifndef MM_SLAB_SHARE
#define MM_SLAB_SHARE 192
#endif

#define MM_SLAB_BYTES     ((size_t)1 << MM_SLAB_SHIFT)
#define MM_SLAB_MAX_SHIFT (MM_SLAB_SHIFT < 16 ? MM_SLAB_SHIFT - 3 : 13)
#define MM_SLAB_MAX       ((size_t)1 << MM_SLAB_MAX_SHIFT)     /* the largest class */
#define MM_SLAB_CLASSES   (9u + 8u * (MM_SLAB_MAX_SHIFT - 7u)) /* classes of kmalloc */
#define MM_SLAB_CACHE_MAX (MM_SLAB_BYTES / 4)                  /* largest object of a named cache */

#ifdef MM_SLAB_STATIC
#ifndef MM_SLAB_IMPLEMENTATION
#define MM_SLAB_IMPLEMENTATION /* static functions are of use only where they are defined */
#endif
#define MM_SLAB_API      static __attribute__((unused))
#define MM_SLAB_INLINE   static inline __attribute__((unused))
#define MMI_SLAB_PRIVATE static inline __attribute__((always_inline, unused))
#else
#define MM_SLAB_API
#define MMI_SLAB_PRIVATE MM_CORE_INLINE
#define MM_SLAB_INLINE   inline /* the implementation has the external definition */
#endif

/* ---- Types --------------------------------------------------------------------------------- */

/* Flags of an allocation; all but NOWAIT and ZERO are handed to the source as they are. */
#define MM_SLAB_NOWAIT 0x01u /* the source and the heap must not wait: no reclaim */
#define MM_SLAB_ZERO   0x02u /* filled with zeros */

/* Flags of a cache. The caller of a free that waited for readers is the library. */
#define MM_SLAB_TYPE_STABLE \
    0x0001u /* a slab goes back to the source only after a grace period: a
                                       reader may look at an object that was freed meanwhile */
#define MM_SLAB_SHUFFLE          0x0002u /* objects are handed out in random order */
#define MM_SLAB_COLOUR           0x0004u /* objects begin at changing offsets, in what is left */
#define MM_SLAB_DEBUG_FREES      0x0100u /* every free is checked exactly (F of slub_debug) */
#define MM_SLAB_DEBUG_ZONES      0x0200u /* red zones before and behind each object (Z) */
#define MM_SLAB_DEBUG_POISON     0x0400u /* freed objects are filled and checked for writes (P) */
#define MM_SLAB_DEBUG_USER       0x0800u /* callers and CPUs of alloc and free are kept (U) */
#define MM_SLAB_DEBUG_QUARANTINE 0x1000u /* freed objects rest before they are used again */
#define MM_SLAB_DEBUG_ALL        0x1f00u

#define MM_SLAB_NAME_MAX 24 /* bytes of a cache's name with its end */

#define MMI_SLAB_CLASS 0u /* kinds of caches */
#define MMI_SLAB_NAMED 1u
#define MMI_SLAB_INNER 2u
#define MMI_SLAB_POOL  3u

/* Slabs that classes share: an object is a run of units, and longer than a window, so that never
 * two begin in one. Units are as long as the marks reach: a free tells all other addresses. */
#define MMI_SLAB_UNIT   64u
#define MMI_SLAB_WINDOW 256u
#define MMI_SLAB_COMMON 16u /* entries of a CPU's array for all of them */
#define MMI_SLAB_BINS   ((MM_SLAB_MAX_SHIFT - 8) * 8 + 1) /* of holes by length */
#define MMI_SLAB_SIDES  (MM_CPU_MAX < 4 ? MM_CPU_MAX : 4) /* of CPUs, each with bins of its own */

struct mm_slab_heap;
struct mm_slab_cache;
struct mmi_slab;

/* Addresses of objects on their way. */
struct mmi_slab_batch {
    struct mmi_slab_batch *next;
    uintptr_t n;
    uintptr_t grace; /* deferred frees: the grace period; quarantine: where the oldest is; depot
                        and spares: the CPU that filled it last */
    uintptr_t slot[MM_SLAB_SLOTS];
};

/* What the caller lends to a heap. Only `alloc` is a must; all but `purge` are called without
 * locks and not pinned. */
struct mm_slab_hooks {
    void *ctx;
    /* `bytes` bytes at a multiple of `align`, a power of two from a slab's size up; `bytes` is a
     * multiple of MM_PAGE_SIZE (or a slab's size, if that is less). `flags` are those of the
     * request. NULL if there are none. */
    void *(*alloc)(void *ctx, size_t bytes, size_t align, unsigned flags);
    /* Takes back what `alloc` gave, whole. NULL: nothing ever goes back; a large request that is
     * freed is lost then, and counted no longer. */
    void (*free)(void *ctx, void *ptr, size_t bytes);
    /* Fills a large request with zeros, where the source has a better way than writing. NULL:
     * MM_SLAB_MEMSET. */
    void (*zero)(void *ctx, void *ptr, size_t bytes);
    /* The content of these pages of a slab is no longer needed, and they may have any content from
     * now on: a program tells its kernel so (madvise). It is called with a cache's lock held, and
     * must not use the heap. NULL: they stay as they are. */
    void (*purge)(void *ctx, void *ptr, size_t bytes);
    /* Memory is short: `bytes` are wanted. True if something was freed and another try makes sense
     * (each allocation tries again once). */
    bool (*reclaim)(void *ctx, struct mm_slab_heap *heap, size_t bytes);
    /* Calls fn(arg) on every CPU that uses the heap (on the caller's or not), one after another or
     * at once, and returns when all calls have returned: free objects in other CPUs' arrays come
     * back this way before an allocation fails, and by mm_slab_shrink. When fn runs, its CPU must
     * not be between pin and unpin, nor hold a lock of the heap; so where it is an interrupt, both
     * turn interrupts off. It takes locks, waits for nothing else, and its time is O(caches *
     * slots). Two CPUs may ask at once: a CPU that waits must serve the other meanwhile. For an
     * idle CPU mm_slab_drain does the same from elsewhere. NULL: other CPUs' arrays are out of
     * reach. */
    void (*each_cpu)(void *ctx, void (*fn)(void *arg), void *arg);
    /* Grace periods: `grace_start` names a time from which on no new reader can see what was freed
     * before, `grace_done` tells whether all readers of before are through, `grace_wait` returns
     * when they are. All three or none. */
    uintptr_t (*grace_start)(void *ctx);
    bool (*grace_done)(void *ctx, uintptr_t grace);
    void (*grace_wait)(void *ctx);
};

/* What a heap is made of; mm_slab_config_init fills it with defaults. */
struct mm_slab_config {
    const struct mm_slab_hooks *hooks; /* kept, not copied */
    size_t quota;                      /* most bytes from the source; 0: no limit */
    unsigned reserve;                  /* empty slabs kept for the next need (4) */
    unsigned flags;                    /* of the size classes: SHUFFLE, COLOUR, DEBUG_… */
    bool offline;                      /* no CPU has arrays before mm_slab_online */
    uintptr_t seed;                    /* for SHUFFLE */
};

/* What a named cache is made of. All zero but `name` and `size` is a valid choice. */
struct mm_slab_cache_config {
    const char *name;   /* copied, cut to MM_SLAB_NAME_MAX */
    size_t size;        /* bytes of an object: 1 to MM_SLAB_CACHE_MAX */
    size_t align;       /* power of two up to MM_SLAB_CACHE_MAX; 0: 16, or 8 if size <= 8 */
    unsigned flags;     /* MM_SLAB_TYPE_STABLE and so on, besides the default debug flags */
    unsigned without;   /* debug flags of the default that this cache does not want */
    size_t quota;       /* most bytes of slabs; 0: no limit */
    size_t copy_offset; /* the part of an object that mm_slab_check_copy allows; */
    size_t copy_bytes;  /* 0: all of it */
    /* Run once for each object when its slab is made, and when the slab goes back: an object is
     * handed out in the state that the last user left, or the constructor. Of a type-stable cache
     * destructors run after the grace period, and mm_slab_cache_destroy waits for it. */
    void (*construct)(void *ctx, void *object);
    void (*destruct)(void *ctx, void *object);
    void *ctx;
};

/* Statistics of a cache, of no one instant where other CPUs are at work. */
struct mm_slab_cache_stats {
    const char *name;
    size_t size;        /* bytes of an object as asked for */
    size_t stride;      /* bytes from one object to the next */
    size_t slabs;       /* slabs of the cache */
    size_t objects;     /* objects in them, and those out of shared slabs that are not free there */
    size_t active;      /* objects handed out (and in quarantine, waiting for readers, or in the
                           array for all shared classes of another CPU) */
    size_t cached;      /* objects in CPUs' arrays and in the depot */
    size_t bytes;       /* memory of the slabs, and of objects out of shared ones */
    size_t quota;       /* in bytes, 0: none */
    uintptr_t refills;  /* times that the lock was taken to allocate */
    uintptr_t flushes;  /* times that the lock was taken to free */
    uintptr_t failures; /* allocations refused for want of memory */
    uintptr_t misuse;   /* frees refused or dropped */
};

/* Statistics of a heap. */
struct mm_slab_stats {
    size_t bytes; /* taken from the source: slabs and large requests */
    size_t peak;  /* the most of it ever */
    size_t quota;
    size_t slabs;       /* slabs in use */
    size_t empty;       /* empty slabs in reserve */
    size_t large;       /* large requests live */
    size_t large_bytes; /* their bytes */
    size_t deferred;    /* objects that wait for a grace period */
    uintptr_t failures; /* the source or the quota refused */
    uintptr_t misuse;   /* frees refused or dropped by no cache: wild ones */
};

/* A live object, as the leak report tells it. */
struct mm_slab_object {
    const struct mm_slab_cache *cache; /* NULL: a large request */
    void *object;
    size_t size;      /* bytes asked for if known (debug flag USER), else usable bytes */
    uintptr_t caller; /* address of the code that allocated it; 0 if not kept */
    unsigned cpu;     /* CPU that allocated it; 0 if not kept */
};

/* An address of memory that the table of a heap knows: slabs and large requests. */
struct mmi_slab_entry {
    struct mmi_slab_entry *next; /* in the same bucket */
    uintptr_t base;
    size_t bytes; /* of a large request; 0: a slab */
    size_t size;  /* what may be used of it: all, or with red zones what was asked for */
    uintptr_t caller;
    unsigned cpu;
};

struct mmi_slab_list {
    struct mmi_slab *first;
    struct mmi_slab *last;
};

/* A cache. Its members are private.
 *
 * C1  an object is in exactly one place: free in its slab (bit set), in one array or batch, in
 *     quarantine, or handed out; in all but the first its bit is clear
 * C2  `partial` holds the slabs with a bit set, `full` those without; wholly free slabs have left
 *     the cache, but for the last one with debug flags, so that it still knows a double free until
 *     a shrink
 * C3  `free` is the number of bits set in the slabs of both lists, `slabs` the number of slabs
 * C4  `depot` batches hold 1 to slots addresses each, `batches` is their number, `spares` that of
 *     the batches in `spare`                                                                    */
struct mm_slab_cache {
    uintptr_t *cpu[MM_CPU_MAX]; /* the arrays of each CPU; NULL: none (yet) */
    struct mm_slab_heap *heap;
    struct mm_slab_cache *pool; /* whose slabs and lock a class shares; NULL: it has its own */
    uint32_t size;              /* bytes of an object */
    uint32_t stride;            /* bytes from one to the next */
    uint32_t first;             /* offset of the first object in its slab, without colour */
    uint32_t count;             /* objects in a slab */
    uint32_t inverse;           /* 2^32 / stride, rounded up */
    uint32_t align;
    uint32_t left;  /* bytes of red zone before an object */
    uint32_t slots; /* entries of an array */
    uint32_t flags;
    uint32_t colours; /* bytes to spare for colours */
    uint32_t kind;    /* MMI_SLAB_CLASS, MMI_SLAB_NAMED, MMI_SLAB_INNER */
    uintptr_t token;  /* mark of its slabs for the inlined free */
    uintptr_t offset; /* of a class: from a struct mm_slab_cpu to its arrays */
    char apart[64];   /* what CPUs only read stands before this, what they write behind */
    MM_SLAB_LOCK_T lock;
    struct mmi_slab_batch *depot;
    struct mmi_slab_batch *spare; /* batches without content */
    uint32_t batches, limit, spares;
    uint32_t run, last_run; /* of flushes or refills in a row, and of the other kind before */
    bool flushing;          /* what `run` counts */
    uintptr_t want;         /* not 0: the depot wants more batches */
    uintptr_t refills, flushes, failures, misuse;
    uint32_t colour; /* next slab's, in bytes */
    struct mmi_slab_list partial;
    struct mmi_slab_list full;
    size_t slabs;
    uintptr_t free; /* changed by mmi_slab_add_free */
    size_t runs;    /* objects that a class has out of its pool's slabs */
    size_t quota;
    uintptr_t random;
    size_t copy_offset, copy_bytes;
    void (*construct)(void *ctx, void *object);
    void (*destruct)(void *ctx, void *object);
    void *ctx;
    struct mm_slab_cache *next;  /* in the heap's list */
    struct mmi_slab_batch *rest; /* quarantine: a ring */
    size_t finishing;            /* slabs on their way back; the heap's lock */
    size_t walkers; /* CPUs that are at it on their way through the list; the heap's lock */
    char name[MM_SLAB_NAME_MAX];
};

/* Slots and words of a CPU's arrays for classes of a group; see Hot paths. */
#define MMI_SLAB_ARRAY_WORDS(s) (2u * (s) + 16u)
#define MMI_SLAB_ARRAY_AT(s)    ((s) + 7u) /* in the line of the words below them */
#define MMI_SLAB_HALVED(group) \
    (MM_SLAB_SLOTS >> (group) < 8 ? 8u : (unsigned)MM_SLAB_SLOTS >> (group))
#define MMI_SLAB_SLOTS_OF(group) ((group) > 3 ? 4u : (group) == 3 ? 8u : MMI_SLAB_HALVED(group))
#define MMI_SLAB_GROUP_WORDS(group, classes) \
    ((classes)*MMI_SLAB_ARRAY_WORDS(MMI_SLAB_SLOTS_OF(group)))
#define MMI_SLAB_WORDS_BEFORE(group) /* group 0: classes 0 to 8; then eight each */ \
    (((group) > 0 ? MMI_SLAB_GROUP_WORDS(0, 9u) : 0u) +                             \
     ((group) > 1 ? MMI_SLAB_GROUP_WORDS(1, 8u) : 0u) +                             \
     ((group) > 2 ? MMI_SLAB_GROUP_WORDS(2, 8u) : 0u) +                             \
     ((group) > 3 ? MMI_SLAB_GROUP_WORDS(3, 8u) : 0u) +                             \
     ((group) > 4 ? MMI_SLAB_GROUP_WORDS(4, 8u) : 0u) +                             \
     ((group) > 5 ? MMI_SLAB_GROUP_WORDS(5, 8u) : 0u) +                             \
     ((group) > 6 ? MMI_SLAB_GROUP_WORDS(6, 8u) : 0u))
#define MMI_SLAB_CLASS_WORDS MMI_SLAB_WORDS_BEFORE(MM_SLAB_MAX_SHIFT - 7 + 1)
#define MMI_SLAB_CPU_WORDS   (MMI_SLAB_CLASS_WORDS + MMI_SLAB_ARRAY_WORDS(MMI_SLAB_COMMON))

/* The arrays of one CPU for the size classes. */
struct mm_slab_cpu {
    uintptr_t words[MMI_SLAB_CPU_WORDS];
} __attribute__((aligned(64)));

#define MMI_SLAB_BUCKETS 64u
#define MMI_SLAB_INNERS  3u /* caches for the heap's own use: entries, batches, arrays by CPU */

/* A heap. Its members are private, but for `cpu` and what MM_SLAB_SELF does with it.
 *
 * H1  `table` has an entry for each slab and each large request, by base address
 * H2  `bytes` is what the source gave and has not got back
 * H3  `empty` holds `empties` slabs of no cache, whose token is 0                               */
struct mm_slab_heap {
    struct mm_slab_cpu cpu[MM_CPU_MAX];
    uint16_t offset[MM_SLAB_MAX / 8 + 1]; /* of (size + 7) / 8: words to the class's arrays */
    uint16_t class_bytes[MMI_SLAB_CPU_WORDS / 16 + 1]; /* of words / 16 to arrays; 0: shared */
    const struct mm_slab_hooks *hooks;
    MM_SLAB_LOCK_T lock;
    struct mmi_slab_entry **table;
    size_t buckets; /* a power of two */
    size_t entries;
    struct mmi_slab_entry *inline_table[MMI_SLAB_BUCKETS];
    uintptr_t low, high; /* all that the source gave lies between */
    struct mmi_slab *empty;
    struct mmi_slab *retired; /* left their caches, not yet destructed */
    size_t empties, reserve;
    size_t bytes, peak, quota;
    size_t slabs, large, large_bytes;
    struct mmi_slab_batch *waiting, *waiting_last; /* for readers, oldest first */
    struct mmi_slab_batch *open;                   /* of deferred frees, not yet full */
    struct mmi_slab *stable, *stable_last;         /* slabs that wait for readers */
    size_t deferred;
    size_t releasing; /* CPUs that have something in hand that is in none of these lists */
    uintptr_t failures, misuse, random;
    size_t table_bytes; /* of `table` if it is the source's */
    uint32_t flags;
    struct mm_slab_cache *caches; /* all, the newest first */
    struct mm_slab_cache cls[MM_SLAB_CLASSES];
    struct mm_slab_cache pool; /* of slabs that classes share */
    /* those slabs by the CPUs that use them and by the bin of their largest hole */
    struct mmi_slab *holes[MMI_SLAB_SIDES * MMI_SLAB_BINS];
    struct mm_slab_cache inner[MMI_SLAB_INNERS];
};

/* ---- Heaps ----------------------------------------------------------------------------------- */

/* Fills *config with defaults: no quota, a reserve of 4 slabs, the debug flags of MM_SLAB_DEBUG. */
MM_SLAB_API void mm_slab_config_init(struct mm_slab_config *config,
                                     const struct mm_slab_hooks *hooks);

/* Makes a heap; takes no memory yet. MM_OK; MM_ERR_INVALID without an alloc hook, with some but not
 * all grace hooks, with an unknown flag, or debug flags where MM_SLAB_DEBUG is 0. O(CPUs *
 * classes). No other CPU may use the heap before it returns. */
MM_SLAB_API enum mm_status mm_slab_init(struct mm_slab_heap *heap,
                                        const struct mm_slab_config *config);

/* Prepares the arrays of a CPU of a heap whose configuration said `offline`: before it, that CPU's
 * number must not be told to the heap (MM_SLAB_CPU_ID tells MM_CPU_MAX or more), and its memory in
 * the heap is not touched. Nothing if it was called already. Its counterpart is mm_slab_drain,
 * after which it need not be called again. MM_OK; MM_ERR_INVALID for a number that is no CPU's.
 * O(classes). */
MM_SLAB_API enum mm_status mm_slab_online(struct mm_slab_heap *heap, unsigned cpu);

/* Ends a heap: everything goes back to the source, whatever waits for readers too. MM_OK;
 * MM_ERR_BUSY, and the heap goes on, if there are named caches or live objects. No other CPU may be
 * in the heap. */
MM_SLAB_API enum mm_status mm_slab_fini(struct mm_slab_heap *heap);

/* Sets the most bytes that the heap may have from its source, 0 for no limit. What is over it
 * stays. O(1), takes the heap's lock. */
MM_SLAB_API void mm_slab_set_quota(struct mm_slab_heap *heap, size_t bytes);

/* ---- General objects ------------------------------------------------------------------------- */

/* At least `size` bytes, aligned to the largest power of two that divides the class (16 at least
 * above 8 bytes); 0 bytes give an object of the least class. Above MM_SLAB_MAX: whole pages from
 * the source, aligned to a slab's size.
 *
 *   flags   MM_SLAB_NOWAIT, MM_SLAB_ZERO, and any the source knows
 *
 * Returns NULL if memory or a quota is exhausted, after the reclaim hook had its chance.
 * Hot path: 7 instructions if `size` is a constant. Safe from any CPU. */
MM_SLAB_INLINE void *mm_slab_kmalloc(struct mm_slab_heap *heap, size_t size, unsigned flags);

/* The same filled with zeros. */
MM_SLAB_INLINE void *mm_slab_kzalloc(struct mm_slab_heap *heap, size_t size, unsigned flags);

/* An array of n times `size` bytes, filled with zeros; NULL also if that overflows. */
MM_SLAB_INLINE void *mm_slab_kcalloc(struct mm_slab_heap *heap, size_t n, size_t size,
                                     unsigned flags);

/* An array of n times `size` bytes with any content; NULL also if that overflows. */
MM_SLAB_INLINE void *mm_slab_kmalloc_array(struct mm_slab_heap *heap, size_t n, size_t size,
                                           unsigned flags);

/* As mm_slab_kmalloc, at a multiple of `align`, a power of two; NULL also for any other `align`.
 * Above the class sizes it is a large request. */
MM_SLAB_API void *mm_slab_kmalloc_aligned(struct mm_slab_heap *heap, size_t size, size_t align,
                                          unsigned flags);

/* Changes the size of an object: in place where it fits and does not waste more than half, else by
 * a copy, of the smaller of both sizes. p == NULL: mm_slab_kmalloc. With MM_SLAB_ZERO, all above
 * the old usable size (mm_slab_ksize) is zero: zeroed from birth, an object stays zero above what
 * was written. The alignment that p has, up to a page, is kept if it came from
 * mm_slab_kmalloc_aligned of the same `align`; 1 asks for none.
 * Returns NULL if it fails, and then p is as it was; also if p is no object of the heap, or one
 * whose red zone is damaged. Where memory is short, what gets smaller stays where it is. */
MM_SLAB_API void *mm_slab_krealloc_aligned(struct mm_slab_heap *heap, void *p, size_t size,
                                           size_t align, unsigned flags);

/* The same without a wish for the alignment. */
MM_SLAB_API void *mm_slab_krealloc(struct mm_slab_heap *heap, void *p, size_t size, unsigned flags);

/* Bytes that may be used from p, the start of a live object of the heap, whichever its cache; 0 for
 * NULL and for anything else. O(1) expected; takes the heap's lock. */
MM_SLAB_API size_t mm_slab_ksize(struct mm_slab_heap *heap, const void *p);

/* The same for a p that is known to be the start of a live object of kmalloc; wrong for any other
 * small one. O(1), no locking for what is not large. */
MM_SLAB_API size_t mm_slab_usable(struct mm_slab_heap *heap, const void *p);

/* Frees an object of the heap: of kmalloc, of a named cache, or large. NULL is nothing.
 *
 * Returns MM_OK; MM_ERR_INVALID for a double free, for what is no object of the heap;
 * MM_ERR_ALIGN for an address inside one; MM_ERR_CORRUPT if the red zone of an object with debug
 * flags is damaged (the object is then withdrawn for good; a large one goes back all the same). See
 * "Errors" in the manual.
 * Hot path: 13 instructions. Safe from any CPU. */
MM_SLAB_INLINE enum mm_status mm_slab_kfree(struct mm_slab_heap *heap, void *p);

/* The same where the caller knows the size that was asked for: a wrong class is refused with
 * MM_ERR_INVALID. Not for objects of mm_slab_kmalloc_aligned, nor after a krealloc in
 * place. */
MM_SLAB_INLINE enum mm_status mm_slab_kfree_sized(struct mm_slab_heap *heap, void *p, size_t size);

/* n objects of `size` bytes into p[]. Returns how many there were memory for. O(n), about one store
 * an object; otherwise as mm_slab_kmalloc. */
MM_SLAB_API size_t mm_slab_kmalloc_bulk(struct mm_slab_heap *heap, size_t size, unsigned flags,
                                        void **p, size_t n);

/* Frees p[0] to p[n - 1], of any caches; NULLs are skipped. Each is refused or freed by itself.
 * Returns MM_OK or the first error. */
MM_SLAB_API enum mm_status mm_slab_kfree_bulk(struct mm_slab_heap *heap, void *const *p, size_t n);

/* ---- Caches ---------------------------------------------------------------------------------- */

/* Makes a named cache in the heap; `cache` is the caller's memory until it is destroyed. MM_OK;
 * MM_ERR_INVALID for a bad size, alignment or flag, without a name, for a copy window outside the
 * object, and for TYPE_STABLE without grace hooks. Takes no memory. Takes the heap's lock. */
MM_SLAB_API enum mm_status mm_slab_cache_init(struct mm_slab_cache *cache,
                                              struct mm_slab_heap *heap,
                                              const struct mm_slab_cache_config *config);

/* Ends a cache: its slabs go back, destructors run. MM_OK; MM_ERR_BUSY, and the cache goes on, if
 * objects are live; their number is in *live (which may be NULL). Frees that wait for readers are
 * waited for, and CPUs that are at this cache in mm_slab_shrink, _drain or _dump. No other CPU may
 * be in the cache otherwise. */
MM_SLAB_API enum mm_status mm_slab_cache_destroy(struct mm_slab_cache *cache, size_t *live);

/* An object; NULL if memory or a quota is exhausted. MM_SLAB_ZERO is for caches without a
 * constructor. Hot path: 10 instructions. Safe from any CPU. */
MM_SLAB_INLINE void *mm_slab_alloc(struct mm_slab_cache *cache, unsigned flags);

/* Frees an object of this cache; NULL is nothing. Results as for mm_slab_kfree; MM_ERR_INVALID also
 * for an object of another cache. Hot path: 15 instructions. Safe from any CPU. */
MM_SLAB_INLINE enum mm_status mm_slab_free(struct mm_slab_cache *cache, void *p);

/* n objects into p[], and back; see mm_slab_kmalloc_bulk and mm_slab_kfree_bulk. */
MM_SLAB_API size_t mm_slab_alloc_bulk(struct mm_slab_cache *cache, unsigned flags, void **p,
                                      size_t n);
/* Frees p[0] to p[n - 1] of this cache. Returns MM_OK or the first error. */
MM_SLAB_API enum mm_status mm_slab_free_bulk(struct mm_slab_cache *cache, void *const *p, size_t n);

/* Sets the most bytes of slabs that a cache may have; 0: no limit. O(1), takes its lock. */
MM_SLAB_API void mm_slab_cache_set_quota(struct mm_slab_cache *cache, size_t bytes);

/* ---- Readers without locks ------------------------------------------------------------------- */

/* Frees p after a grace period: readers that may still look at it see it unchanged. Objects are
 * gathered; one grace period serves many. MM_OK; MM_ERR_INVALID without grace hooks, or if p is no
 * object's start (a double free is refused later, when the free takes place). Where memory for the
 * list is short it waits for readers itself. O(1) amortised; takes the heap's lock. */
MM_SLAB_API enum mm_status mm_slab_free_rcu(struct mm_slab_heap *heap, void *p);

/* Frees all whose grace period is over, and starts one for the rest. Returns how many objects still
 * wait. Call it now and then: at ticks, say. */
MM_SLAB_API size_t mm_slab_rcu_poll(struct mm_slab_heap *heap);

/* Waits for readers and frees all that mm_slab_free_rcu was given before; waits for other CPUs that
 * are at that, too. Not for the hooks `free` and grace_…, nor for destructors. */
MM_SLAB_API void mm_slab_rcu_barrier(struct mm_slab_heap *heap);

/* ---- Memory back ----------------------------------------------------------------------------- */

/* Gives back all that the CPUs' arrays (without the hook each_cpu: this CPU's) and the depots hold
 * and all empty slabs, and purges free pages of the others. Returns bytes given back and purged.
 * Locks each cache in turn. */
MM_SLAB_API size_t mm_slab_shrink(struct mm_slab_heap *heap);

/* The same for one cache. */
MM_SLAB_API size_t mm_slab_cache_shrink(struct mm_slab_cache *cache);

/* Empties the arrays of `cpu` of every cache into the slabs, so that nothing is stranded there: for
 * a CPU that goes off-line or idle. The caller runs there; or it keeps that CPU out of the heap:
 *
 *   - what the CPU did in the heap happened before the call: it said that it is idle by a store
 *     with release, and the caller saw that by a load with acquire;
 *   - until the call returns the CPU does not enter the heap, by an interrupt's handler neither;
 *     when it wakes it waits until the caller said, again by release and acquire, that it is done;
 *   - one caller at a time drains a CPU.
 *
 * A word that goes from RUNNING to IDLE by its CPU's store, and from IDLE to DRAINED (the caller)
 * or to RUNNING (the CPU) by compare-and-swap, does all of that. Other CPUs may use the heap
 * meanwhile. MM_OK; MM_ERR_INVALID for a number that is no CPU's. O(caches * slots); locks each in
 * turn. */
MM_SLAB_API enum mm_status mm_slab_drain(struct mm_slab_heap *heap, unsigned cpu);

/* ---- Questions ------------------------------------------------------------------------------- */

/* The object that holds the byte at p: its start and its usable bytes. MM_OK; MM_ERR_NOENT if p is
 * in no slab and no large request, MM_ERR_INVALID in a slab but in no object that is handed out.
 * (An object in a CPU's array counts as handed out, unless its cache has debug flags.)
 * O(1) expected, O(large requests) inside a large one. Takes the heap's lock. */
MM_SLAB_API enum mm_status mm_slab_bounds(struct mm_slab_heap *heap, const void *p, void **start,
                                          size_t *bytes);

/* May `bytes` from p be copied to or from a program? MM_OK if they lie in one object, and there in
 * the window of its cache; MM_ERR_PERM if not; MM_ERR_NOENT if p is not in the heap's memory at
 * all, MM_ERR_INVALID if it is in no live object. Costs as mm_slab_bounds. */
MM_SLAB_API enum mm_status mm_slab_check_copy(struct mm_slab_heap *heap, const void *p,
                                              size_t bytes);

/* Fills *stats. O(1), takes the heap's lock. */
MM_SLAB_API void mm_slab_get_stats(struct mm_slab_heap *heap, struct mm_slab_stats *stats);

/* Fills *stats. O(CPUs), takes the cache's lock. */
MM_SLAB_API void mm_slab_cache_get_stats(struct mm_slab_cache *cache,
                                         struct mm_slab_cache_stats *stats);

/* The cache after `cache` in the heap's list, the first after NULL; NULL at the end. Caches of the
 * heap's own use are included. No cache may come or go meanwhile. */
MM_SLAB_API struct mm_slab_cache *mm_slab_next_cache(struct mm_slab_heap *heap,
                                                     const struct mm_slab_cache *cache);

/* Prints a line of text for each cache that has slabs, in the manner of slabinfo:
 * name, active and all objects, size, objects a slab, slabs. */
MM_SLAB_API void mm_slab_dump(struct mm_slab_heap *heap, void (*print)(void *ctx, const char *line),
                              void *ctx);

/* Tells every live object of the cache to fn. Returns their number. No CPU may be in the heap:
 * all arrays are emptied first. */
MM_SLAB_API size_t mm_slab_cache_leaks(struct mm_slab_cache *cache,
                                       void (*fn)(void *ctx, const struct mm_slab_object *object),
                                       void *ctx);

/* The same for the whole heap, large requests included. */
MM_SLAB_API size_t mm_slab_leaks(struct mm_slab_heap *heap,
                                 void (*fn)(void *ctx, const struct mm_slab_object *object),
                                 void *ctx);

/* Checks the cache: C1 to C4, slabs' headers, red zones and poison. MM_OK or MM_ERR_CORRUPT.
 * O(objects). No CPU may be in the cache. */
MM_SLAB_API enum mm_status mm_slab_cache_check(struct mm_slab_cache *cache);

/* Checks the heap, H1 to H3, and all caches. No CPU may be in the heap. */
MM_SLAB_API enum mm_status mm_slab_check(struct mm_slab_heap *heap);

/* ---- Hot paths ------------------------------------------------------------------------------- */

/* A slab's first line tells a free what it needs to know, and which addresses are none:
 *
 *   +0          +16         +32         +48            +64    (64-bit machine)
 *   token,place token,place token,place token,place    0      objects aligned to 16
 *   token,place 0,0         token,place 0,0            0      objects aligned to 32, and so on
 *
 * The free clears all bits of an address but the lowest six and those of the slab, and compares
 * what it finds there: another slab, another cache and a misaligned address all fail at once. A
 * free that is told the size knows the place, and compares no more than that.
 *
 * A word that a misaligned address leads to equals neither. A token is the owner's address, a
 * multiple of 8, and 1; a place that address 16 bits higher, exclusive or MMI_SLAB_PLACE, and
 * below it an offset, which ends in the bits 11000. For each of the 15 ways to read beside a mark
 * equality would ask for bits that contradict each other; tests/unit/slab_marks.c tries all. */
struct mmi_slab_mark {
    uintptr_t token;
    uintptr_t place;
};
#define MMI_SLAB_PLACE ((uintptr_t)(intptr_t)INT32_C(-0x7feb0000))
#define MMI_SLAB_MARKS (64u / sizeof(struct mmi_slab_mark))

/* Arrays of a CPU and a cache: `in` from l up, below it four words, and below them `out`.
 *
 *   l[ROOM]        free entries of `in`, 1 to slots; what was freed last is there
 *   l[slots]       the end of `in`: what was freed last before it became empty, or 0
 *   l[POP]         index of what the next allocation takes, from END - slots to END (negative)
 *   l[END]         0: `out` is empty
 *   l[SLOTS]       entries of each
 *   l[CACHE]       the cache's address */
#define MMI_SLAB_ROOM  (-1)
#define MMI_SLAB_POP   (-2)
#define MMI_SLAB_SLOTS (-3)
#define MMI_SLAB_CACHE (-4)
#define MMI_SLAB_END   (-5)

MM_SLAB_API MM_NOINLINE void *mmi_slab_kmalloc_slow(struct mm_slab_heap *heap, size_t size,
                                                    unsigned flags);
MM_SLAB_API MM_NOINLINE enum mm_status mmi_slab_kfree_slow(struct mm_slab_heap *heap, void *p);
MM_SLAB_API MM_NOINLINE void *mmi_slab_alloc_slow(struct mm_slab_cache *cache, unsigned flags);
MM_SLAB_API MM_NOINLINE enum mm_status mmi_slab_free_slow(struct mm_slab_cache *cache, void *p);
MM_SLAB_API MM_NOINLINE enum mm_status mmi_slab_kfree_sized_slow(struct mm_slab_heap *heap, void *p,
                                                                 size_t size);
MM_SLAB_API MM_NOINLINE enum mm_status mmi_slab_twice(struct mm_slab_heap *heap, void *p);
MM_SLAB_API MM_NOINLINE bool mmi_slab_flush(uintptr_t *l);
MM_SLAB_API MM_NOINLINE bool mmi_slab_again(uintptr_t *l, void *p);
MM_SLAB_API MM_NOINLINE void mmi_slab_trim(struct mm_slab_heap *heap);
MM_SLAB_API MM_NOINLINE bool mmi_slab_knows(struct mm_slab_heap *heap, const void *p);
MM_SLAB_API MM_NOINLINE size_t mmi_slab_usable(const void *p);

/* Class of a size up to MM_SLAB_MAX, and a class's size. */
MMI_SLAB_PRIVATE unsigned mmi_slab_class(size_t size)
{
    unsigned high;
    if (size <= 128)
        return size <= 8 ? 0 : (unsigned)((size + 15) / 16);
    high = mm_fls((uintptr_t)(size - 1));
    return 1 + (high - 7) * 8 + (unsigned)((size - 1) >> (high - 3));
}
MMI_SLAB_PRIVATE size_t mmi_slab_class_bytes(unsigned c)
{
    if (c <= 8)
        return c == 0 ? 8 : (size_t)c * 16;
    return (size_t)(9 + ((c - 9) & 7)) << (4 + ((c - 9) >> 3));
}

/* Words from a struct mm_slab_cpu to the arrays of class c. */
MMI_SLAB_PRIVATE size_t mmi_slab_class_words(unsigned c)
{
    const unsigned group = c <= 8 ? 0 : 1 + ((c - 9) >> 3);
    const unsigned index = c <= 8 ? c : (c - 9) & 7;
    const unsigned slots = MMI_SLAB_SLOTS_OF(group);
    return MMI_SLAB_WORDS_BEFORE(group) + index * MMI_SLAB_ARRAY_WORDS(slots) +
           MMI_SLAB_ARRAY_AT(slots);
}
MMI_SLAB_PRIVATE size_t mmi_slab_words(const struct mm_slab_heap *heap, size_t size)
{
    if (__builtin_constant_p(size))
        return mmi_slab_class_words(mmi_slab_class(size));
    return heap->offset[(size + 7) >> 3];
}

#ifndef MM_SLAB_SELF
MMI_SLAB_PRIVATE struct mm_slab_cpu *mmi_slab_self(struct mm_slab_heap *heap)
{
    const unsigned cpu = MM_SLAB_CPU_ID();
    return MM_LIKELY(cpu < MM_CPU_MAX) ? &heap->cpu[cpu] : NULL;
}
#define MM_SLAB_SELF(heap)        mmi_slab_self(heap)
#define MMI_SLAB_SELF_KNOWN(self) MM_LIKELY((self) != NULL)
#else
#define MMI_SLAB_SELF_KNOWN(self) true
#endif

/* Tokens are odd: no program stores one by chance where it stores pointers. */
MMI_SLAB_PRIVATE uintptr_t mmi_slab_token(const void *owner)
{
    return (uintptr_t)owner + 1;
}

/* Here and in mmi_slab_push: load, add and store apart. A processor hands a stored word to the next
 * plain load at once, but lets a read-modify-write wait for it. */
MMI_SLAB_PRIVATE void *mmi_slab_pop(uintptr_t *l)
{
    const uintptr_t pop = l[MMI_SLAB_POP], p = l[(intptr_t)pop];
    if (MM_LIKELY(p != 0))
        mm_store(&l[MMI_SLAB_POP], pop + 1);
    return (void *)p;
}

/* Objects in `out`. */
MMI_SLAB_PRIVATE uintptr_t mmi_slab_ready(const uintptr_t *l)
{
    return (uintptr_t)MMI_SLAB_END - mm_load(&l[MMI_SLAB_POP]);
}
MMI_SLAB_PRIVATE void mmi_slab_set_ready(uintptr_t *l, uintptr_t n)
{
    mm_store(&l[MMI_SLAB_POP], (uintptr_t)MMI_SLAB_END - n);
}

/* Free entries of `in`. */
MMI_SLAB_PRIVATE uintptr_t mmi_slab_room(const uintptr_t *l)
{
    return mm_load(&l[MMI_SLAB_ROOM]);
}
MMI_SLAB_PRIVATE void mmi_slab_set_room(uintptr_t *l, uintptr_t n)
{
    mm_store(&l[MMI_SLAB_ROOM], n);
}

/* Puts p into `in`. 1 if it was the last that fits, -1 if it is on top already, else 0. */
MMI_SLAB_PRIVATE int mmi_slab_push(uintptr_t *l, void *p)
{
    uintptr_t room = l[MMI_SLAB_ROOM];

    if (MM_UNLIKELY(l[room] == (uintptr_t)p))
        return -1;
    room--;
    l[room] = (uintptr_t)p;
    mm_store(&l[MMI_SLAB_ROOM], room);
    return room == 0;
}

/* A mark's second word: bytes from a struct mm_slab_cpu to the owner's arrays, and whose they are.
 * Machines of 32 bits have no room for the latter. */
MMI_SLAB_PRIVATE uintptr_t mmi_slab_place(const void *owner, uintptr_t offset)
{
    return (uintptr_t)((uint64_t)(uintptr_t)owner << 16) ^ MMI_SLAB_PLACE ^ offset;
}
MMI_SLAB_PRIVATE uintptr_t mmi_slab_place_offset(uintptr_t place)
{
    return (uint16_t)place;
}

/* The words of the mark that an object at p would have. Where words of 64 bits may be loaded from
 * any address the lowest bits stay in, and a misaligned one finds what is beside a mark. */
#if (defined(__x86_64__) || defined(__AARCH64EL__)) && !MMI_SLAB_SANITIZE
struct mmi_slab_mark_any {
    uintptr_t token;
    uintptr_t place;
} __attribute__((packed, may_alias));
#define MMI_SLAB_MARK_WORD(p, word) \
    (((const struct mmi_slab_mark_any *)((uintptr_t)(p) & ~(uintptr_t)(MM_SLAB_BYTES - 64)))->word)
#else
#define MMI_SLAB_MARK_WORD(p, word)                                                    \
    (((uintptr_t)(p) & (sizeof(struct mmi_slab_mark) - 1)) != 0                        \
         ? 0                                                                           \
         : mm_load(&((const struct mmi_slab_mark *)((uintptr_t)(p) &                   \
                                                    ~(uintptr_t)(MM_SLAB_BYTES - 64))) \
                        ->word))
#endif

/* Has p a mark with this token? Then *offset is that of its arrays. */
MMI_SLAB_PRIVATE bool mmi_slab_marked(const void *p, uintptr_t token, uintptr_t *offset)
{
    if (MMI_SLAB_MARK_WORD(p, token) != token)
        return false;
    *offset = mmi_slab_place_offset(MMI_SLAB_MARK_WORD(p, place));
    return true;
}

/* Has p a mark of the heap with this offset? */
MMI_SLAB_PRIVATE bool mmi_slab_marked_at(const void *p, const struct mm_slab_heap *heap,
                                         uintptr_t offset)
{
    return (MM_WORD_BITS == 64 || MMI_SLAB_MARK_WORD(p, token) == mmi_slab_token(heap)) &&
           MMI_SLAB_MARK_WORD(p, place) == mmi_slab_place(heap, offset);
}

/* A slab's header. What a free needs is in the first line, what a flush needs in the second; behind
 * it stand a bit for each object that is free in the slab and, in caches with debug flags, a bit
 * for each that rests in quarantine or was withdrawn.
 *
 * S1  `free` is the number of bits set; no bit is set from `count` up
 * S2  mark[i] has the cache's token and place where an object may begin at 64 n + i * sizeof mark,
 *     and is 0 elsewhere; so is `none` */
struct mmi_slab {
    struct mmi_slab_mark mark[MMI_SLAB_MARKS];
    uintptr_t none;              /* what is read beside the last mark */
    struct mm_slab_cache *cache; /* NULL: an empty slab of the heap */
    struct mmi_slab *next;
    struct mmi_slab *prev;
    uint32_t first; /* offset of object 0 */
    uint32_t stride;
    uint32_t inverse;
    uint32_t count;
    uint32_t free;
    uint32_t hint; /* no bit is set in words before it */
    struct mmi_slab_entry entry;
    uintptr_t grace;  /* a type-stable slab waits for it */
    uintptr_t purged; /* a bit for each page of the slab whose content was given away */
};

/* What a shared slab's header has behind the bits, one for each unit.
 *
 * S3  tag[w] is not 0 where an object begins in window w: its class * 8 + its first unit there; all
 *     units of the object are taken, and no others are
 * S4  `largest` is the length of the largest hole, and the slab is in its side's list of its bin */
struct mmi_slab_share {
    struct mmi_slab *next, *prev;
    uint32_t largest;
    uint32_t list; /* in the heap's holes; 0: in none */
    uint32_t side; /* of the CPU that took objects out of it last */
    uint16_t tag[MM_SLAB_BYTES / MMI_SLAB_WINDOW];
};

MMI_SLAB_PRIVATE struct mmi_slab *mmi_slab_of(const void *p)
{
    return (struct mmi_slab *)((uintptr_t)p & ~(uintptr_t)(MM_SLAB_BYTES - 1));
}

/* Number of the object that the byte at p is in, and where in it; the number is too large for what
 * lies before the first and behind the last. */
MMI_SLAB_PRIVATE uint32_t mmi_slab_index(const struct mmi_slab *s, const void *p, uint32_t *inside)
{
    const uint32_t at = (uint32_t)((uintptr_t)p - (uintptr_t)s) - s->first;
    const uint32_t n = (uint32_t)(((uint64_t)at * s->inverse) >> 32);
    *inside = at - n * s->stride;
    return at < MM_SLAB_BYTES ? n : UINT32_MAX;
}

/* Each free looks at more than the mark. */
#define MMI_SLAB_EXACT (MM_SLAB_HARDEN || MM_SLAB_DEBUG >= 1)

/* Is what kfree found by the mark alone good enough? */
MMI_SLAB_PRIVATE bool mmi_slab_trusted(struct mm_slab_heap *heap, const void *p)
{
#if MM_SLAB_DEBUG >= 1
    return mmi_slab_knows(heap, p);
#elif MM_SLAB_HARDEN
    const uintptr_t low = mm_load(&heap->low);
    return (uintptr_t)p - low < mm_load(&heap->high) - low;
#else
    (void)heap;
    (void)p;
    return true;
#endif
}
/* Is p the start of an object that is not free in its slab? */
MMI_SLAB_PRIVATE bool mmi_slab_starts(const void *p)
{
#if MMI_SLAB_EXACT
    const struct mmi_slab *s = mmi_slab_of(p);
    const uintptr_t *bits = (const uintptr_t *)(s + 1);
    uint32_t inside;
    const uint32_t n = mmi_slab_index(s, p, &inside);
    if (n >= s->count || inside != 0 ||
        (s->cache->kind == MMI_SLAB_POOL && mmi_slab_usable(p) == 0))
        return false;
    return (mm_load(&bits[n >> MM_WORD_SHIFT]) >> (n & (MM_WORD_BITS - 1)) & 1) == 0;
#else
    (void)p;
    return true;
#endif
}

/* Sanitizers tell eight bytes apart: an object's last ones take the padding behind them along. */
MMI_SLAB_PRIVATE size_t mmi_slab_extent(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* Nobody may look at the `bytes` at p, a free object, from now on. */
MMI_SLAB_PRIVATE void mmi_slab_hide(const struct mm_slab_cache *cache, void *p, size_t bytes)
{
    if ((cache->flags & MM_SLAB_TYPE_STABLE) == 0)
        MM_SLAB_POISON(p, mmi_slab_extent(bytes));
}

/* The same where it goes into the arrays l. */
MMI_SLAB_PRIVATE void mmi_slab_hide_in(const uintptr_t *l, void *p)
{
    if (MMI_SLAB_SANITIZE)
        mmi_slab_hide((const struct mm_slab_cache *)l[MMI_SLAB_CACHE], p, mmi_slab_usable(p));
}

/* What every allocation ends with: `size` bytes of an object of `usable` bytes are handed out. */
MMI_SLAB_PRIVATE void mmi_slab_hand_out(void *p, size_t size, size_t usable, unsigned flags)
{
#if MMI_SLAB_SANITIZE
    MM_SLAB_UNPOISON(p, usable);
#endif
    if (flags & MM_SLAB_ZERO)
        (void)MM_SLAB_MEMSET(p, 0, usable);
#if MMI_SLAB_SANITIZE
    MM_SLAB_POISON((char *)p + size, usable - size);
#else
    (void)size;
#endif
}

/* Lines touched: one of the CPU's arrays (two at times). 7 instructions for a constant size: CPU,
 * index, entry, test, branch, count (2). */
MM_SLAB_INLINE void *mm_slab_kmalloc(struct mm_slab_heap *heap, size_t size, unsigned flags)
{
    struct mm_slab_cpu *self;
    MM_SLAB_CPU_STATE_T pin;
    void *p = NULL;

    if (MM_UNLIKELY(size > MM_SLAB_MAX))
        return mmi_slab_kmalloc_slow(heap, size, flags);
    MM_SLAB_CPU_PIN(pin);
    self = MM_SLAB_SELF(heap);
    if (MMI_SLAB_SELF_KNOWN(self))
        p = mmi_slab_pop(self->words + mmi_slab_words(heap, size));
    MM_SLAB_CPU_UNPIN(pin);
    if (MM_UNLIKELY(p == NULL))
        return mmi_slab_kmalloc_slow(heap, size, flags);
    mmi_slab_hand_out(p, size, mmi_slab_class_bytes(mmi_slab_class(size)), flags);
    return p;
}

MM_SLAB_INLINE void *mm_slab_kzalloc(struct mm_slab_heap *heap, size_t size, unsigned flags)
{
    return mm_slab_kmalloc(heap, size, flags | MM_SLAB_ZERO);
}

MM_SLAB_INLINE void *mm_slab_kmalloc_array(struct mm_slab_heap *heap, size_t n, size_t size,
                                           unsigned flags)
{
    size_t bytes;
    return mm_size_mul_overflows(n, size, &bytes) ? NULL : mm_slab_kmalloc(heap, bytes, flags);
}

MM_SLAB_INLINE void *mm_slab_kcalloc(struct mm_slab_heap *heap, size_t n, size_t size,
                                     unsigned flags)
{
    return mm_slab_kmalloc_array(heap, n, size, flags | MM_SLAB_ZERO);
}

/* The end of every inlined free: p goes into the arrays l. Called pinned, and unpins. */
MMI_SLAB_PRIVATE enum mm_status mmi_slab_free_into(struct mm_slab_heap *heap, uintptr_t *l, void *p,
                                                   MM_SLAB_CPU_STATE_T pin)
{
    bool trim = false, again = false;
    int pushed;
    mmi_slab_hide_in(l, p);
    pushed = mmi_slab_push(l, p);
    if (MM_UNLIKELY(pushed > 0))
        trim = mmi_slab_flush(l);
    if (MM_UNLIKELY(pushed < 0))
        again = mmi_slab_again(l, p);
    MM_SLAB_CPU_UNPIN(pin);
    if (MM_UNLIKELY(again))
        return mmi_slab_twice(heap, p);
    if (MM_UNLIKELY(trim))
        mmi_slab_trim(heap);
    return MM_OK;
}

/* Lines touched: the slab's first, one of the CPU's arrays (two at times). 13 instructions: slab's
 * line (2), mark (2), arrays (2), room, top (2), store, count (3). */
MM_SLAB_INLINE enum mm_status mm_slab_kfree(struct mm_slab_heap *heap, void *p)
{
    struct mm_slab_cpu *self;
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t offset = 0;

    if (p == NULL)
        return MM_OK;
    if (MM_UNLIKELY(!mmi_slab_trusted(heap, p) ||
                    !mmi_slab_marked(p, mmi_slab_token(heap), &offset) || !mmi_slab_starts(p)))
        return mmi_slab_kfree_slow(heap, p);
    MM_SLAB_CPU_PIN(pin);
    self = MM_SLAB_SELF(heap);
    if (!MMI_SLAB_SELF_KNOWN(self)) {
        MM_SLAB_CPU_UNPIN(pin);
        return mmi_slab_kfree_slow(heap, p);
    }
    return mmi_slab_free_into(heap, (uintptr_t *)(void *)((char *)self + offset), p, pin);
}

/* As kfree, with one comparison and no load of the offset: what follows does not wait for the
 * slab's line. */
MM_SLAB_INLINE enum mm_status mm_slab_kfree_sized(struct mm_slab_heap *heap, void *p, size_t size)
{
    struct mm_slab_cpu *self;
    MM_SLAB_CPU_STATE_T pin;
    size_t words;

    if (p == NULL)
        return MM_OK;
    if (MM_UNLIKELY(size > MM_SLAB_MAX))
        return mmi_slab_kfree_sized_slow(heap, p, size);
    words = mmi_slab_words(heap, size);
    if (MM_UNLIKELY(!mmi_slab_trusted(heap, p) ||
                    !mmi_slab_marked_at(p, heap, words * sizeof(uintptr_t)) || !mmi_slab_starts(p)))
        return mmi_slab_kfree_sized_slow(heap, p, size);
    MM_SLAB_CPU_PIN(pin);
    self = MM_SLAB_SELF(heap);
    if (!MMI_SLAB_SELF_KNOWN(self)) {
        MM_SLAB_CPU_UNPIN(pin);
        return mmi_slab_kfree_slow(heap, p);
    }
    return mmi_slab_free_into(heap, self->words + words, p, pin);
}

/* The arrays of this CPU; NULL: none. */
MMI_SLAB_PRIVATE uintptr_t *mmi_slab_arrays(struct mm_slab_cache *cache)
{
    const unsigned cpu = MM_SLAB_CPU_ID();
    return MM_LIKELY(cpu < MM_CPU_MAX) ? cache->cpu[cpu] : NULL;
}

/* As kmalloc, with one more line: the cache's. */
MM_SLAB_INLINE void *mm_slab_alloc(struct mm_slab_cache *cache, unsigned flags)
{
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t *l;
    void *p = NULL;

    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (MM_LIKELY(l != NULL))
        p = mmi_slab_pop(l);
    MM_SLAB_CPU_UNPIN(pin);
    if (MM_UNLIKELY(p == NULL))
        return mmi_slab_alloc_slow(cache, flags);
    mmi_slab_hand_out(p, cache->size, cache->size, flags);
    return p;
}

MM_SLAB_INLINE enum mm_status mm_slab_free(struct mm_slab_cache *cache, void *p)
{
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t offset, *l;

    if (p == NULL)
        return MM_OK;
    if (MM_UNLIKELY(!mmi_slab_trusted(cache->heap, p) ||
                    !mmi_slab_marked(p, mmi_slab_token(cache), &offset) || !mmi_slab_starts(p)))
        return mmi_slab_free_slow(cache, p);
    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (MM_UNLIKELY(l == NULL)) {
        MM_SLAB_CPU_UNPIN(pin);
        return mmi_slab_free_slow(cache, p);
    }
    return mmi_slab_free_into(cache->heap, l, p, pin);
}

#ifdef __cplusplus
}
#endif

#endif /* MM_SLAB_H */

/* ==== Implementation ========================================================================== */

#if defined(MM_SLAB_IMPLEMENTATION) && !defined(MM_SLAB_IMPLEMENTED)
#define MM_SLAB_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(MM_SLAB_STATIC) && !defined(__cplusplus)
extern inline void *mm_slab_kmalloc(struct mm_slab_heap *heap, size_t size, unsigned flags);
extern inline void *mm_slab_kzalloc(struct mm_slab_heap *heap, size_t size, unsigned flags);
extern inline void *mm_slab_kmalloc_array(struct mm_slab_heap *heap, size_t n, size_t size,
                                          unsigned flags);
extern inline void *mm_slab_kcalloc(struct mm_slab_heap *heap, size_t n, size_t size,
                                    unsigned flags);
extern inline enum mm_status mm_slab_kfree(struct mm_slab_heap *heap, void *p);
extern inline enum mm_status mm_slab_kfree_sized(struct mm_slab_heap *heap, void *p, size_t size);
extern inline void *mm_slab_alloc(struct mm_slab_cache *cache, unsigned flags);
extern inline enum mm_status mm_slab_free(struct mm_slab_cache *cache, void *p);
#elif !defined(MM_SLAB_STATIC)
/* C++ emits an inline function only where it is used; other languages link to these. */
struct mmi_slab_emit_t {
    void *(*kmalloc)(struct mm_slab_heap *, size_t, unsigned);
    void *(*kzalloc)(struct mm_slab_heap *, size_t, unsigned);
    void *(*kmalloc_array)(struct mm_slab_heap *, size_t, size_t, unsigned);
    void *(*kcalloc)(struct mm_slab_heap *, size_t, size_t, unsigned);
    enum mm_status (*kfree)(struct mm_slab_heap *, void *);
    enum mm_status (*kfree_sized)(struct mm_slab_heap *, void *, size_t);
    void *(*alloc)(struct mm_slab_cache *, unsigned);
    enum mm_status (*free)(struct mm_slab_cache *, void *);
};
extern const struct mmi_slab_emit_t mmi_slab_emit;
const struct mmi_slab_emit_t mmi_slab_emit = {
    mm_slab_kmalloc, mm_slab_kzalloc,     mm_slab_kmalloc_array, mm_slab_kcalloc,
    mm_slab_kfree,   mm_slab_kfree_sized, mm_slab_alloc,         mm_slab_free};
#endif

MM_STATIC_ASSERT((sizeof(struct mmi_slab_mark) & (sizeof(struct mmi_slab_mark) - 1)) == 0,
                 "marks are found by masking");
MM_STATIC_ASSERT(sizeof(struct mm_slab_cpu) <= 65536, "an offset of a mark has 16 bits");
MM_STATIC_ASSERT(offsetof(struct mmi_slab, none) == 64, "see struct mmi_slab_mark");

#define MMI_SLAB_ENTRIES     0u /* inner caches */
#define MMI_SLAB_BATCHES     1u
#define MMI_SLAB_ARRAYS      2u
#define MMI_SLAB_DEPOT_BYTES 65536u /* of free objects of a cache, at most, in its depot */
#define MMI_SLAB_LONG_RUN    16u
#define MMI_SLAB_LIST_BYTES  32768u /* in an array, at most */
#define MMI_SLAB_GRANULE            /* at least 2^12 bytes, and so at most 32 in a slab */ \
    ((size_t)1 << (MM_PAGE_SHIFT < MM_SLAB_SHIFT ? MM_PAGE_SHIFT : MM_SLAB_SHIFT))
#define MMI_SLAB_CALLER ((uintptr_t)__builtin_return_address(0))

#define MMI_SLAB_ZONE_BYTE   0xbb /* red zones */
#define MMI_SLAB_FREED_BYTE  0x6b /* content of freed objects */
#define MMI_SLAB_ZONE_BEHIND 16u  /* bytes of it at least */

/* What is kept of an object in a cache with debug flags, behind its red zone. */
struct mmi_slab_track {
    uintptr_t alloc_by, free_by;
    size_t size; /* asked for */
    uint32_t alloc_cpu, free_cpu;
};

/* ---- Reports --------------------------------------------------------------------------------- */

#if MM_SLAB_DEBUG >= 1
struct mmi_slab_text {
    char *at, *end;
};

static void mmi_slab_put(struct mmi_slab_text *t, const char *text)
{
    while (*text != 0 && t->at < t->end)
        *t->at++ = *text++;
    *t->at = 0;
}
#endif

/* A number; base 16 with 0x before it. */
static char *mmi_slab_digits(char *end, uintptr_t n, unsigned base)
{
    *end = 0;
    do {
        *--end = "0123456789abcdef"[n % base];
        n /= base;
    } while (n != 0);
    if (base == 16) {
        *--end = 'x';
        *--end = '0';
    }
    return end;
}

#if MM_SLAB_DEBUG >= 1
static void mmi_slab_put_number(struct mmi_slab_text *t, const char *before, uintptr_t n,
                                unsigned base)
{
    char digits[24];
    mmi_slab_put(t, before);
    mmi_slab_put(t, mmi_slab_digits(digits + 23, n, base));
}
#endif

static struct mmi_slab_track *mmi_slab_track_of(const struct mm_slab_cache *cache,
                                                const char *object)
{
    const uintptr_t end = (uintptr_t)object - cache->left + cache->stride;
    return (struct mmi_slab_track *)((end - sizeof(struct mmi_slab_track)) &
                                     ~(uintptr_t)(sizeof(uintptr_t) - 1));
}

/* Tells MM_SLAB_REPORT: what, which cache, which object, where in it, who had it last. `cache` and
 * `object` are NULL if unknown. Returns `status`. */
static enum mm_status mmi_slab_report(struct mm_slab_heap *heap, const char *where,
                                      const char *what, enum mm_status status,
                                      const struct mm_slab_cache *cache, const char *object,
                                      const void *p)
{
#if MM_SLAB_DEBUG >= 1
    char buffer[256];
    struct mmi_slab_text t;
    struct mm_report report;

    t.at = buffer;
    t.end = buffer + sizeof buffer - 1;
    mmi_slab_put(&t, what);
    if (cache != NULL) {
        mmi_slab_put(&t, ": cache ");
        mmi_slab_put(&t, cache->name);
    }
    if (object != NULL) {
        mmi_slab_put_number(&t, ", object ", (uintptr_t)object, 16);
        if ((uintptr_t)p >= (uintptr_t)object)
            mmi_slab_put_number(&t, ", byte ", (uintptr_t)p - (uintptr_t)object, 10);
        else
            mmi_slab_put_number(&t, ", byte -", (uintptr_t)object - (uintptr_t)p, 10);
    }
    if (object != NULL && cache != NULL && (cache->flags & MM_SLAB_DEBUG_USER)) {
        const struct mmi_slab_track *track = mmi_slab_track_of(cache, object);
        mmi_slab_put_number(&t, "; allocated by ", track->alloc_by, 16);
        mmi_slab_put_number(&t, " on CPU ", track->alloc_cpu, 10);
        if (track->free_by != 0) {
            mmi_slab_put_number(&t, ", freed by ", track->free_by, 16);
            mmi_slab_put_number(&t, " on CPU ", track->free_cpu, 10);
        }
    }
    report.where = where;
    report.what = buffer;
    report.status = status;
    report.address = (uintptr_t)p;
    report.object = heap;
    MM_SLAB_REPORT(&report);
#else
    (void)heap, (void)where, (void)what, (void)cache, (void)object, (void)p;
#endif
    return status;
}

/* A refused free is counted by its cache, a wild one by the heap. */
static enum mm_status mmi_slab_refuse(struct mm_slab_heap *heap, const char *where,
                                      const char *what, enum mm_status status,
                                      struct mm_slab_cache *cache, const char *object,
                                      const void *p)
{
    (void)__atomic_fetch_add(cache != NULL ? &cache->misuse : &heap->misuse, 1, __ATOMIC_RELAXED);
    return mmi_slab_report(heap, where, what, status, cache, object, p);
}

/* ---- Table of memory ------------------------------------------------------------------------- */

static size_t mmi_slab_hash(uintptr_t base)
{
    const uintptr_t n = base >> MM_SLAB_SHIFT;
    return n ^ (n >> 7) ^ (n >> 13);
}

static struct mmi_slab_entry **mmi_slab_bucket(struct mm_slab_heap *heap, uintptr_t base)
{
    return &heap->table[mmi_slab_hash(base) & (heap->buckets - 1)];
}

/* The entry with this base, or NULL. The heap's lock is held. */
static struct mmi_slab_entry *mmi_slab_lookup(struct mm_slab_heap *heap, uintptr_t base)
{
    struct mmi_slab_entry *e = *mmi_slab_bucket(heap, base);
    while (e != NULL && e->base != base)
        e = e->next;
    return e;
}

/* Enters e. Returns how many buckets the table should have now, 0 if it has enough. */
static size_t mmi_slab_enter(struct mm_slab_heap *heap, struct mmi_slab_entry *e, size_t bytes)
{
    struct mmi_slab_entry **bucket = mmi_slab_bucket(heap, e->base);
    e->next = *bucket;
    *bucket = e;
    heap->entries++;
    if (e->base < heap->low)
        mm_store(&heap->low, e->base);
    if (e->base + bytes > heap->high)
        mm_store(&heap->high, e->base + bytes);
    return heap->entries < heap->buckets * 4 ? 0 : heap->buckets * 4;
}

static void mmi_slab_leave(struct mm_slab_heap *heap, const struct mmi_slab_entry *e)
{
    struct mmi_slab_entry **at = mmi_slab_bucket(heap, e->base);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    heap->entries--;
}

/* The slab that holds p, or NULL; by the table, so that p may be anything. */
static struct mmi_slab *mmi_slab_find(struct mm_slab_heap *heap, const void *p)
{
    MM_SLAB_LOCK_STATE_T state;
    const struct mmi_slab_entry *e;
    struct mmi_slab *s = mmi_slab_of(p);

    MM_SLAB_LOCK(&heap->lock, state);
    e = mmi_slab_lookup(heap, (uintptr_t)s);
    if (e == NULL || e->bytes != 0 || s->cache == NULL)
        s = NULL;
    MM_SLAB_UNLOCK(&heap->lock, state);
    return s;
}

MM_SLAB_API bool mmi_slab_knows(struct mm_slab_heap *heap, const void *p)
{
    return mmi_slab_find(heap, p) != NULL;
}

static uint32_t mmi_slab_bit_words(uint32_t count)
{
    return (count + MM_WORD_BITS - 1) >> MM_WORD_SHIFT;
}

MMI_SLAB_PRIVATE struct mmi_slab_share *mmi_slab_share_of(const struct mmi_slab *s)
{
    return (struct mmi_slab_share *)((uintptr_t)(s + 1) + MM_SLAB_BYTES / MMI_SLAB_UNIT / 8);
}

/* The class of the object that begins at p in a slab that is shared for sure; NULL: none does. */
MMI_SLAB_PRIVATE struct mm_slab_cache *mmi_slab_tagged(struct mm_slab_heap *heap, const void *p)
{
    const struct mmi_slab *s = mmi_slab_of(p);
    const uintptr_t at = (uintptr_t)p - (uintptr_t)s;
    const uint16_t *tags = mmi_slab_share_of(s)->tag;
    const unsigned tag = __atomic_load_n(&tags[at / MMI_SLAB_WINDOW], __ATOMIC_RELAXED);

    if (tag == 0 || at % MMI_SLAB_WINDOW != tag % 8 * MMI_SLAB_UNIT)
        return NULL;
    return &heap->cls[tag / 8];
}

/* The class of the object that begins at p, which was freed into the array of all shared classes;
 * NULL: none does. After a double free the slab may have gone back, and hold anything. */
MMI_SLAB_PRIVATE struct mm_slab_cache *mmi_slab_class_in(const struct mm_slab_cache *pool,
                                                         const void *p)
{
    return mmi_slab_trusted(pool->heap, p) && mmi_slab_of(p)->cache == pool
               ? mmi_slab_tagged(pool->heap, p)
               : NULL;
}

/* The same of an address in any slab of a heap. Without a lock for an object that nobody else
 * frees. */
MMI_SLAB_PRIVATE struct mm_slab_cache *mmi_slab_class_at(const void *p)
{
    const struct mm_slab_cache *cache = mmi_slab_of(p)->cache;

    return cache != NULL && cache->kind == MMI_SLAB_POOL ? mmi_slab_tagged(cache->heap, p) : NULL;
}

/* The cache of an object, or what it would be. */
static struct mm_slab_cache *mmi_slab_cache_of(const void *p)
{
    struct mm_slab_cache *cls = mmi_slab_class_at(p);
    return cls != NULL ? cls : mmi_slab_of(p)->cache;
}

MM_SLAB_API size_t mmi_slab_usable(const void *p)
{
    const struct mm_slab_cache *cache = mmi_slab_cache_of(p);
    return cache->kind != MMI_SLAB_POOL ? cache->size : 0;
}

/* ---- Memory of the source -------------------------------------------------------------------- */

static size_t mmi_slab_page(void)
{
    return MM_PAGE_SIZE < MM_SLAB_BYTES ? (size_t)MM_PAGE_SIZE : MM_SLAB_BYTES;
}

/* Counts `bytes` of the source as taken, within the quota. */
static bool mmi_slab_charge(struct mm_slab_heap *heap, size_t bytes)
{
    MM_SLAB_LOCK_STATE_T state;
    bool fits;

    MM_SLAB_LOCK(&heap->lock, state);
    fits = heap->quota == 0 || (bytes <= heap->quota && heap->bytes <= heap->quota - bytes);
    if (fits) {
        heap->bytes += bytes;
        if (heap->bytes > heap->peak)
            heap->peak = heap->bytes;
    } else {
        heap->failures++;
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    return fits;
}

static void mmi_slab_uncharge(struct mm_slab_heap *heap, size_t bytes, bool failed)
{
    MM_SLAB_LOCK_STATE_T state;
    MM_SLAB_LOCK(&heap->lock, state);
    heap->bytes -= bytes;
    heap->failures += failed;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

/* Memory of the source, within the quota; NULL if there is none. */
static void *mmi_slab_source(struct mm_slab_heap *heap, size_t bytes, size_t align, unsigned flags)
{
    void *p;

    if (!mmi_slab_charge(heap, bytes))
        return NULL;
    p = heap->hooks->alloc(heap->hooks->ctx, bytes, align, flags);
    if (p != NULL && ((uintptr_t)p & (align - 1)) != 0) { /* a source that breaks its word */
        if (heap->hooks->free != NULL)
            heap->hooks->free(heap->hooks->ctx, p, bytes);
        p = NULL;
    }
    if (p == NULL)
        mmi_slab_uncharge(heap, bytes, true);
    return p;
}

static void mmi_slab_sink(struct mm_slab_heap *heap, void *p, size_t bytes)
{
    MM_SLAB_UNPOISON(p, bytes);
    if (heap->hooks->free != NULL)
        heap->hooks->free(heap->hooks->ctx, p, bytes);
    mmi_slab_uncharge(heap, bytes, false);
}

/* Gives the table so many buckets, four times of what it had, if the source agrees. */
static void mmi_slab_widen(struct mm_slab_heap *heap, size_t buckets)
{
    const size_t bytes =
        (size_t)mm_align_up(buckets * sizeof(struct mmi_slab_entry *), mmi_slab_page());
    struct mmi_slab_entry **table, **old;
    size_t i, old_bytes, n;
    MM_SLAB_LOCK_STATE_T state;

    if (buckets == 0 || heap->hooks->free == NULL)
        return;
    table = (struct mmi_slab_entry **)mmi_slab_source(heap, bytes, MM_SLAB_BYTES, MM_SLAB_NOWAIT);
    if (table == NULL)
        return;
    for (i = 0; i < buckets; i++)
        table[i] = NULL;
    MM_SLAB_LOCK(&heap->lock, state);
    old = heap->table;
    old_bytes = heap->table_bytes;
    n = heap->buckets;
    if (n == buckets / 4) {
        heap->table = table;
        heap->buckets = buckets;
        heap->table_bytes = bytes;
        for (i = 0; i < n; i++) {
            while (old[i] != NULL) {
                struct mmi_slab_entry *e = old[i];
                struct mmi_slab_entry **bucket = mmi_slab_bucket(heap, e->base);
                old[i] = e->next;
                e->next = *bucket;
                *bucket = e;
            }
        }
    } else { /* another CPU was faster */
        old = table;
        old_bytes = bytes;
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (old_bytes != 0)
        mmi_slab_sink(heap, old, old_bytes);
}

/* The lock of a cache. */
MMI_SLAB_PRIVATE MM_SLAB_LOCK_T *mmi_slab_guard(struct mm_slab_cache *cache)
{
    return cache->pool != NULL ? &cache->pool->lock : &cache->lock;
}

/* ---- Slabs: all with the cache's lock held --------------------------------------------------- */

static uintptr_t *mmi_slab_bits(struct mmi_slab *s)
{
    return (uintptr_t *)(s + 1);
}

/* Bits of the objects that rest or were withdrawn; only with debug flags. */
static uintptr_t *mmi_slab_held(struct mmi_slab *s)
{
    return mmi_slab_bits(s) + mmi_slab_bit_words(s->count);
}

static bool mmi_slab_test(const uintptr_t *bits, uint32_t n)
{
    return (mm_load(&bits[n >> MM_WORD_SHIFT]) >> (n & (MM_WORD_BITS - 1)) & 1) != 0;
}

static char *mmi_slab_object(const struct mmi_slab *s, uint32_t n)
{
    return (char *)(uintptr_t)s + s->first + (size_t)n * s->stride;
}

static void mmi_slab_link(struct mmi_slab_list *list, struct mmi_slab *s, bool front)
{
    s->next = front ? list->first : NULL;
    s->prev = front ? NULL : list->last;
    *(s->prev != NULL ? &s->prev->next : &list->first) = s;
    *(s->next != NULL ? &s->next->prev : &list->last) = s;
}

static void mmi_slab_unlink(struct mmi_slab_list *list, struct mmi_slab *s)
{
    *(s->prev != NULL ? &s->prev->next : &list->first) = s->next;
    *(s->next != NULL ? &s->next->prev : &list->last) = s->prev;
}

/* The pages of objects that leave the slab have content again. */
static void mmi_slab_unpurge(struct mmi_slab *s, const char *from, size_t bytes)
{
    const uintptr_t at = (uintptr_t)from - (uintptr_t)s;
    const unsigned a = (unsigned)(at / MMI_SLAB_GRANULE);
    const unsigned z = (unsigned)((at + bytes - 1) / MMI_SLAB_GRANULE);
    s->purged &= ~(mm_mask(z + 1) & ~mm_mask(a));
}

/* Takes up to n objects of one slab, the lowest addresses first. */
static uintptr_t mmi_slab_take_from(struct mmi_slab *s, uintptr_t *to, uintptr_t n)
{
    uintptr_t *bits = mmi_slab_bits(s), got = 0;
    uint32_t w = s->hint;

    if (n > s->free)
        n = s->free;
    while (got < n) {
        uintptr_t word = bits[w];
        const char *base = mmi_slab_object(s, w << MM_WORD_SHIFT);
        while (word != 0 && got < n) {
            const char *object = base + (size_t)mm_ctz(word) * s->stride;
            word &= word - 1;
            to[got++] = (uintptr_t)object;
            if (MM_UNLIKELY(s->purged != 0))
                mmi_slab_unpurge(s, object, s->stride);
        }
        mm_store(&bits[w], word);
        if (word == 0)
            w++;
    }
    s->hint = w;
    s->free -= (uint32_t)got;
    return got;
}

/* A random number below n. */
static uint32_t mmi_slab_random(struct mm_slab_cache *cache, uint32_t n)
{
    uint32_t x = (uint32_t)cache->random; /* xorshift: Marsaglia, 2003 */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    cache->random = x;
    return x % n;
}

static void mmi_slab_shuffle(struct mm_slab_cache *cache, uintptr_t *slot, uintptr_t n)
{
    while (n > 1) {
        const uintptr_t other = mmi_slab_random(cache, (uint32_t)n--), swap = slot[n];
        slot[n] = slot[other];
        slot[other] = swap;
    }
}

/* More objects (n may be negative) are free in the cache's slabs. A refill looks without the
 * lock. */
MMI_SLAB_PRIVATE void mmi_slab_add_free(struct mm_slab_cache *cache, uintptr_t n)
{
    mm_store(&cache->free, cache->free + n);
}

/* May the cache have so many bytes more? */
static bool mmi_slab_within_quota(const struct mm_slab_cache *cache, size_t more)
{
    return cache->quota == 0 ||
           cache->slabs * MM_SLAB_BYTES + cache->runs * cache->size + more <= cache->quota;
}

/* ---- Shared slabs: runs of units, with the pool's lock held ---------------------------------- */

/* The first bit from `at` up that is set (or clear); `end` if there is none before. */
static uint32_t mmi_slab_next_bit(const uintptr_t *bits, uint32_t at, uint32_t end, bool set)
{
    uintptr_t word;

    if (at >= end)
        return end;
    word = (set ? bits[at >> MM_WORD_SHIFT] : ~bits[at >> MM_WORD_SHIFT]) &
           ~mm_mask(at & (MM_WORD_BITS - 1));
    at &= ~(uint32_t)(MM_WORD_BITS - 1);
    while (word == 0) {
        at += MM_WORD_BITS;
        if (at >= end)
            return end;
        word = set ? bits[at >> MM_WORD_SHIFT] : ~bits[at >> MM_WORD_SHIFT];
    }
    at += mm_ctz(word);
    return at < end ? at : end;
}

/* Where the hole begins that unit `at` is in, or that ends before it. */
static uint32_t mmi_slab_hole_start(const uintptr_t *bits, uint32_t at)
{
    while (at > 0) {
        const uint32_t w = (at - 1) >> MM_WORD_SHIFT;
        const uintptr_t taken = ~bits[w] & (mm_mask(((at - 1) & (MM_WORD_BITS - 1)) + 1));
        if (taken != 0)
            return (w << MM_WORD_SHIFT) + mm_fls(taken) + 1;
        at = w << MM_WORD_SHIFT;
    }
    return 0;
}

/* Sets (or clears) the bits of the units from `at` to `end`. */
static void mmi_slab_set_bits(uintptr_t *bits, uint32_t at, uint32_t end, bool set)
{
    while (at < end) {
        const uint32_t w = at >> MM_WORD_SHIFT, low = at & (MM_WORD_BITS - 1);
        const uint32_t n = end - at < MM_WORD_BITS - low ? end - at : MM_WORD_BITS - low;
        const uintptr_t mask = mm_mask(n) << low;
        mm_store(&bits[w], set ? bits[w] | mask : bits[w] & ~mask);
        at += n;
    }
}

/* Bins of holes: eight to each doubling, as classes. 0: too small for any. */
static uint32_t mmi_slab_bin(uint32_t units)
{
    const uint32_t most = (uint32_t)(MM_SLAB_MAX / MMI_SLAB_UNIT);
    const uint32_t n = (units < most ? units : most) * (8 * MMI_SLAB_UNIT / MMI_SLAB_WINDOW);
    const unsigned high = n < 8 ? 3 : mm_fls(n);
    return n < 8 ? 0 : (high - 3) * 8 + ((n >> (high - 3)) & 7);
}

/* The list of a side's slabs with such a hole. */
static uint32_t mmi_slab_holes_list(uint32_t side, uint32_t largest)
{
    const uint32_t bin = mmi_slab_bin(largest);
    return bin != 0 ? side * MMI_SLAB_BINS + bin : 0;
}

/* CPUs take objects out of slabs of their own side first, so that they do not write to each other's
 * lines. */
static uint32_t mmi_slab_side(void)
{
    return MM_SLAB_CPU_ID() % MMI_SLAB_SIDES;
}

/* Notes the length of the slab's largest hole, and the side that the slab belongs to. */
static void mmi_slab_rank(struct mm_slab_cache *pool, struct mmi_slab *s, uint32_t side,
                          uint32_t largest)
{
    struct mmi_slab_share *share = mmi_slab_share_of(s);
    struct mmi_slab **first;
    const uint32_t list = mmi_slab_holes_list(side, largest);

    share->side = side;
    share->largest = largest;
    if (list == share->list)
        return;
    if (share->list != 0) {
        *(share->prev != NULL ? &mmi_slab_share_of(share->prev)->next
                              : &pool->heap->holes[share->list]) = share->next;
        if (share->next != NULL)
            mmi_slab_share_of(share->next)->prev = share->prev;
    }
    share->list = list;
    if (list == 0)
        return;
    first = &pool->heap->holes[list];
    share->prev = NULL;
    share->next = *first;
    if (*first != NULL)
        mmi_slab_share_of(*first)->prev = s;
    *first = s;
}

/* The holes of a slab: the smallest that has room for an object, as its length << 16 | where it
 * begins (UINT32_MAX: none has), and the lengths of the two largest. */
struct mmi_slab_holes {
    uint32_t best, largest, second;
};

/* Where the first object of class cls in a hole that begins at unit `at` of slab s may begin. */
static uint32_t mmi_slab_hole_place(const struct mm_slab_cache *cls, const struct mmi_slab *s,
                                    uint32_t at)
{
    const uint32_t align = cls->align / MMI_SLAB_UNIT, shift = s->first / MMI_SLAB_UNIT;
    return ((at + shift + align - 1) & ~(align - 1)) - shift;
}

/* No branches: which holes come nobody can guess. */
static void mmi_slab_see_hole(struct mmi_slab_holes *h, uint32_t n, uint32_t at, bool fits)
{
    const uint32_t hole = fits ? n << 16 | at : UINT32_MAX, less = n < h->largest ? n : h->largest;

    h->best = hole < h->best ? hole : h->best;
    h->largest = n > h->largest ? n : h->largest;
    h->second = less > h->second ? less : h->second;
}

static struct mmi_slab_holes mmi_slab_look(const struct mm_slab_cache *cls, struct mmi_slab *s)
{
    const uint32_t units = cls->size / MMI_SLAB_UNIT, words = mmi_slab_bit_words(s->count);
    const uintptr_t *bits = mmi_slab_bits(s);
    struct mmi_slab_holes h = {UINT32_MAX, 0, 0};
    uint32_t w, at = 0;
    bool inside = false;

    for (w = 0; w <= words; w++) {
        const uintptr_t word = w < words ? bits[w] : 0;
        uintptr_t edges = word ^ (word << 1 | inside); /* where holes begin and end */
        for (; edges != 0; edges &= edges - 1) {
            const uint32_t here = (w << MM_WORD_SHIFT) + mm_ctz(edges);
            if (inside)
                mmi_slab_see_hole(&h, here - at, at,
                                  mmi_slab_hole_place(cls, s, at) + units <= here);
            at = here;
            inside = !inside;
        }
    }
    return h;
}

/* Takes up to n objects of the class out of the smallest hole of slab s that has room; 0: none
 * has. */
static uintptr_t mmi_slab_cut(struct mm_slab_cache *cls, struct mmi_slab *s, uintptr_t *to,
                              uintptr_t n)
{
    const uint32_t units = cls->size / MMI_SLAB_UNIT;
    const struct mmi_slab_holes h = mmi_slab_look(cls, s);
    const uint32_t hole = h.best & 0xffff, hole_end = hole + (h.best >> 16);
    const uint32_t start = mmi_slab_hole_place(cls, s, hole);
    uint16_t *tag = mmi_slab_share_of(s)->tag;
    uint32_t largest = h.largest, end = start;
    uintptr_t got;

    if (h.best == UINT32_MAX)
        return 0;
    for (got = 0; got < n && end + units <= hole_end; got++) {
        const uint32_t at = s->first + end * MMI_SLAB_UNIT;
        __atomic_store_n(
            &tag[at / MMI_SLAB_WINDOW],
            (uint16_t)((unsigned)(cls - cls->heap->cls) * 8 + at % MMI_SLAB_WINDOW / MMI_SLAB_UNIT),
            __ATOMIC_RELAXED);
        to[got] = (uintptr_t)s + at;
        end += units;
    }
    mmi_slab_set_bits(mmi_slab_bits(s), start, end, false);
    if (MM_UNLIKELY(s->purged != 0))
        mmi_slab_unpurge(s, (const char *)to[0], got * cls->size);
    if (hole_end - hole == largest) {
        largest = h.second > start - hole ? h.second : start - hole;
        largest = largest > hole_end - end ? largest : hole_end - end;
    }
    mmi_slab_rank(cls->pool, s, mmi_slab_side(), largest);
    mmi_slab_add_free(cls->pool, 0 - (uintptr_t)(end - start));
    s->free -= end - start;
    if (s->free == 0) {
        mmi_slab_unlink(&cls->pool->partial, s);
        mmi_slab_link(&cls->pool->full, s, true);
    }
    cls->runs += got;
    return got;
}

/* The same out of that slab of a side whose largest hole is as small as can be. Only in the lowest
 * bins may alignment be in the way. */
static uintptr_t mmi_slab_cut_side(struct mm_slab_cache *cls, struct mmi_slab *const *holes,
                                   uintptr_t *to, uintptr_t n)
{
    uint32_t bin = mmi_slab_bin(cls->size / MMI_SLAB_UNIT), looks;
    struct mmi_slab *s;
    uintptr_t got = 0;

    for (; bin < MMI_SLAB_BINS && got == 0; bin++) {
        s = holes[bin];
        for (looks = 4; s != NULL && got == 0 && looks != 0; looks--) {
            got = mmi_slab_cut(cls, s, to, n);
            s = mmi_slab_share_of(s)->next;
        }
    }
    return got;
}

/* The same: of this CPU's side if it has one, else of any. */
static uintptr_t mmi_slab_cut_any(struct mm_slab_cache *cls, uintptr_t *to, uintptr_t n)
{
    const uint32_t own = mmi_slab_side();
    uint32_t i, side;
    uintptr_t got = 0;

    for (i = 0; i < MMI_SLAB_SIDES && got == 0; i++) {
        side = (own + i) % MMI_SLAB_SIDES;
        got = mmi_slab_cut_side(cls, &cls->heap->holes[side * MMI_SLAB_BINS], to, n);
    }
    return got;
}

/* Up to n objects of a class out of shared slabs, but not many more than are needed. */
static uintptr_t mmi_slab_take_runs(struct mm_slab_cache *cls, uintptr_t *to, uintptr_t n)
{
    const uintptr_t few = (cls->slots + 3) / 4;
    uintptr_t got = 0, more = 1;

    n = n < few ? n : few;
    while (got < n && more != 0 && mmi_slab_within_quota(cls, cls->size)) {
        more = mmi_slab_cut_any(cls, to + got, cls->quota != 0 ? 1 : n - got);
        got += more;
    }
    return got;
}

/* ---- Slabs: taking and putting back ---------------------------------------------------------- */

/* Takes up to n objects out of the cache's slabs. */
static uintptr_t mmi_slab_take(struct mm_slab_cache *cache, uintptr_t *to, uintptr_t n)
{
    uintptr_t got = 0;

    while (got < n && cache->partial.first != NULL) {
        struct mmi_slab *s = cache->partial.first;
        got += mmi_slab_take_from(s, to + got, n - got);
        if (s->free == 0) {
            mmi_slab_unlink(&cache->partial, s);
            mmi_slab_link(&cache->full, s, true);
        }
    }
    mmi_slab_add_free(cache, 0 - got);
    if (got == 0 && cache->pool != NULL)
        got = mmi_slab_take_runs(cache, to, n);
    if (cache->flags & MM_SLAB_SHUFFLE)
        mmi_slab_shuffle(cache, to, got);
    return got;
}

/* What a flush leaves to be done without the lock. */
struct mmi_slab_after {
    struct mmi_slab *retired; /* slabs that became empty */
    uintptr_t twice[8];       /* double frees, to be reported */
    uintptr_t misuse;
};

/* May an object of the cache begin where mark i stands for? */
static bool mmi_slab_marks(const struct mm_slab_cache *cache, const struct mmi_slab *s, unsigned i)
{
    const size_t at = i * sizeof(struct mmi_slab_mark) - s->first;

    return cache->token != 0 && !(cache->flags & MM_SLAB_DEBUG_ALL) &&
           (at & (cache->align - 1) & 63) == 0;
}

/* The slab's marks tell of the cache, or (NULL) of nothing. */
static void mmi_slab_set_marks(struct mmi_slab *s, const struct mm_slab_cache *cache)
{
    const void *owner = cache != NULL ? (const void *)(cache->token - 1) : NULL;
    unsigned i;

    for (i = 0; i < MMI_SLAB_MARKS; i++) {
        const bool legal = cache != NULL && mmi_slab_marks(cache, s, i);
        mm_store(&s->mark[i].place, legal ? mmi_slab_place(owner, cache->offset) : 0);
        mm_store(&s->mark[i].token, legal ? cache->token : 0);
    }
    s->none = 0;
}

static void mmi_slab_retire(struct mm_slab_cache *cache, struct mmi_slab *s,
                            struct mmi_slab_after *after)
{
    mmi_slab_unlink(&cache->partial, s);
    if (cache->kind == MMI_SLAB_POOL)
        mmi_slab_rank(cache, s, 0, 0);
    cache->slabs--;
    mmi_slab_add_free(cache, 0 - (uintptr_t)s->count);
    mmi_slab_set_marks(s, NULL);
    s->next = after->retired;
    after->retired = s;
}

static void mmi_slab_put_refused(struct mm_slab_cache *cache, uintptr_t object,
                                 struct mmi_slab_after *after)
{
    if (after->misuse < 8)
        after->twice[after->misuse] = object;
    after->misuse++;
    (void)__atomic_fetch_add(&cache->misuse, 1, __ATOMIC_RELAXED);
}

/* A slab has a free object more. Its bit is set. */
static void mmi_slab_came_back(struct mm_slab_cache *cache, struct mmi_slab *s, uint32_t n,
                               struct mmi_slab_after *after)
{
    mmi_slab_add_free(cache, n);
    s->free += n;
    if (s->free == n) {
        mmi_slab_unlink(&cache->full, s);
        mmi_slab_link(&cache->partial, s, true);
    }
    if (s->free == s->count && (cache->slabs > 1 || !(cache->flags & MM_SLAB_DEBUG_ALL)))
        mmi_slab_retire(cache, s, after);
}

/* The same for a shared slab: `cache` is the class, or the pool for any. */
static void mmi_slab_put_run(struct mm_slab_cache *cache, uintptr_t object,
                             struct mmi_slab_after *after)
{
    struct mmi_slab *s = mmi_slab_of((const void *)object);
    struct mm_slab_cache *cls = mmi_slab_class_at((const void *)object);
    struct mmi_slab_share *share = mmi_slab_share_of(s);
    uintptr_t *bits = mmi_slab_bits(s);
    uint32_t n, units, at, end;

    if (MM_UNLIKELY(cls == NULL || (cls != cache && cache->kind != MMI_SLAB_POOL))) {
        mmi_slab_put_refused(cache, object, after);
        return;
    }
    n = (uint32_t)(object - (uintptr_t)s - s->first) / MMI_SLAB_UNIT;
    units = cls->size / MMI_SLAB_UNIT;
    __atomic_store_n(&share->tag[(object - (uintptr_t)s) / MMI_SLAB_WINDOW], 0, __ATOMIC_RELAXED);
    mmi_slab_set_bits(bits, n, n + units, true);
    at = mmi_slab_hole_start(bits, n);
    end = mmi_slab_next_bit(bits, n + units, s->count, false);
    if (end - at > share->largest)
        mmi_slab_rank(cls->pool, s, share->side, end - at);
    cls->runs--;
    mmi_slab_came_back(cls->pool, s, units, after);
}

/* Puts an object back into its slab. */
static void mmi_slab_put_back(struct mm_slab_cache *cache, uintptr_t object,
                              struct mmi_slab_after *after)
{
    struct mmi_slab *s = mmi_slab_of((const void *)object);
    uintptr_t *bits = mmi_slab_bits(s);
    uint32_t n, w, inside;

    if (MM_UNLIKELY(!mmi_slab_trusted(cache->heap, s))) {
        mmi_slab_put_refused(cache, object, after); /* freed twice, and its slab has gone */
        return;
    }
    if (s->cache != NULL && s->cache == (cache->kind == MMI_SLAB_POOL ? cache : cache->pool)) {
        mmi_slab_put_run(cache, object, after);
        return;
    }
    n = mmi_slab_index(s, (const void *)object, &inside);
    w = n >> MM_WORD_SHIFT;
    if (MM_UNLIKELY(s->cache != cache || n >= s->count || inside != 0 || mmi_slab_test(bits, n))) {
        mmi_slab_put_refused(cache, object, after);
        return;
    }
    mm_store(&bits[w], bits[w] | mm_bit(n & (MM_WORD_BITS - 1)));
    if (w < s->hint)
        s->hint = w;
    mmi_slab_came_back(cache, s, 1, after);
}

/* After the lock: hands retired slabs to the heap, reports misuse. True if the heap has work left
 * for mmi_slab_trim. */
static bool mmi_slab_finish(struct mm_slab_cache *cache, struct mmi_slab_after *after)
{
    struct mm_slab_heap *heap = cache->heap;
    MM_SLAB_LOCK_STATE_T state;
    uintptr_t i;
    const bool work = after->retired != NULL;

    if (work) {
        MM_SLAB_LOCK(&heap->lock, state);
        while (after->retired != NULL) {
            struct mmi_slab *s = after->retired;
            after->retired = s->next;
            s->next = heap->retired;
            heap->retired = s;
            heap->slabs--;
            s->cache->finishing++;
        }
        MM_SLAB_UNLOCK(&heap->lock, state);
    }
    for (i = 0; i < after->misuse && i < 8; i++)
        (void)mmi_slab_report(heap, "mm_slab_kfree", "double free, found later", MM_ERR_INVALID,
                              cache, (const char *)after->twice[i], (const void *)after->twice[i]);
    return work;
}

/* ---- Slabs: their making and end ------------------------------------------------------------- */

static void mmi_slab_zero(void *p, size_t bytes)
{
    (void)MM_SLAB_MEMSET(p, 0, bytes);
}

static void mmi_slab_format(struct mm_slab_cache *cache, struct mmi_slab *s)
{
    uintptr_t *bits = mmi_slab_bits(s);
    const uint32_t words = mmi_slab_bit_words(cache->count);
    uint32_t i;

    s->first = cache->first;
    if (cache->flags & MM_SLAB_COLOUR) {
        s->first += cache->colour;
        cache->colour += cache->align < 64 ? 64 : cache->align;
        if (cache->colour > cache->colours)
            cache->colour = 0;
    }
    s->stride = cache->stride;
    s->inverse = cache->inverse;
    s->count = cache->count;
    s->free = cache->count;
    s->hint = 0;
    s->grace = 0;
    if (cache->kind == MMI_SLAB_POOL)
        mmi_slab_zero(mmi_slab_share_of(s), sizeof(struct mmi_slab_share));
    for (i = 0; i < words; i++)
        bits[i] = ~(uintptr_t)0;
    if ((s->count & (MM_WORD_BITS - 1)) != 0)
        bits[words - 1] = mm_mask(s->count & (MM_WORD_BITS - 1));
    for (i = 0; (cache->flags & MM_SLAB_DEBUG_ALL) && i < words; i++)
        mmi_slab_held(s)[i] = 0;
    mmi_slab_set_marks(s, cache);
}

/* An empty slab of the heap, or a new one of the source. NULL if there is none. */
static struct mmi_slab *mmi_slab_new(struct mm_slab_heap *heap, unsigned flags)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab *s;
    size_t buckets;

    MM_SLAB_LOCK(&heap->lock, state);
    s = heap->empty;
    if (s != NULL) {
        heap->empty = s->next;
        heap->empties--;
        heap->slabs++;
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (s != NULL)
        return s;
    s = (struct mmi_slab *)mmi_slab_source(heap, MM_SLAB_BYTES, MM_SLAB_BYTES, flags);
    if (s == NULL)
        return NULL;
    mmi_slab_set_marks(s, NULL);
    s->cache = NULL;
    s->purged = 0;
    s->entry.base = (uintptr_t)s;
    s->entry.bytes = 0;
    MM_SLAB_LOCK(&heap->lock, state);
    buckets = mmi_slab_enter(heap, &s->entry, MM_SLAB_BYTES);
    heap->slabs++;
    MM_SLAB_UNLOCK(&heap->lock, state);
    mmi_slab_widen(heap, buckets);
    return s;
}

static void mmi_slab_dress(struct mm_slab_cache *cache, struct mmi_slab *s);
#if MM_SLAB_DEBUG >= 1
static bool mmi_slab_sound_objects(struct mm_slab_cache *cache, struct mmi_slab *s,
                                   const char *where);
#else
#define mmi_slab_sound_objects(cache, s, where) true
#endif

/* The first object, or any one, of a new slab. */
static char *mmi_slab_take_first(struct mm_slab_cache *cache, struct mmi_slab *s)
{
    const uint32_t n = cache->flags & MM_SLAB_SHUFFLE ? mmi_slab_random(cache, s->count) : 0;
    char *object = mmi_slab_object(s, n);

    mmi_slab_bits(s)[n >> MM_WORD_SHIFT] &= ~mm_bit(n & (MM_WORD_BITS - 1));
    mmi_slab_unpurge(s, object, s->stride);
    mmi_slab_add_free(cache, 0 - (uintptr_t)1);
    s->free--;
    if (s->free == 0) {
        mmi_slab_unlink(&cache->partial, s);
        mmi_slab_link(&cache->full, s, false);
    }
    return object;
}

/* Has the heap so many slabs that classes share? */
static bool mmi_slab_many(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    bool many;

    MM_SLAB_LOCK(&heap->lock, state);
    many = heap->slabs + 1 > MM_SLAB_SHARE;
    MM_SLAB_UNLOCK(&heap->lock, state);
    return many;
}

/* Gives the cache a slab more and takes one object of it. It is taken before other CPUs see the
 * slab: one that nobody needs any more would otherwise stay, wholly free, among the partial ones
 * (C2). NULL if there is no memory or no quota. */
static void *mmi_slab_grow(struct mm_slab_cache *cache, unsigned flags)
{
    struct mm_slab_heap *heap = cache->heap;
    const bool share = cache->pool != NULL && mmi_slab_many(heap);
    struct mm_slab_cache *owner = share ? cache->pool : cache;
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab *s;
    uintptr_t object = 0;
    bool fits;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    fits = mmi_slab_within_quota(cache, share ? cache->size : MM_SLAB_BYTES) &&
           mmi_slab_within_quota(owner, MM_SLAB_BYTES);
    owner->slabs += fits;
    cache->runs += share && fits; /* what is cut below counts from now on */
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (!fits)
        return NULL;
    s = mmi_slab_new(heap, flags);
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    if (s == NULL) {
        owner->slabs--;
        cache->runs -= share;
    } else {
        mmi_slab_format(owner, s);
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (s == NULL)
        return NULL;
    mmi_slab_dress(owner, s);
    MM_SLAB_LOCK(&heap->lock, state);
    s->cache = owner;
    MM_SLAB_UNLOCK(&heap->lock, state);
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    mmi_slab_add_free(owner, s->count);
    mmi_slab_link(&owner->partial, s, false);
    if (share) {
        cache->runs--;
        (void)mmi_slab_cut(cache, s, &object, 1);
    } else {
        object = (uintptr_t)mmi_slab_take_first(cache, s);
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    return (void *)object;
}

/* Destructors, then into the reserve. */
static void mmi_slab_undress(struct mm_slab_heap *heap, struct mmi_slab *s)
{
    struct mm_slab_cache *cache = s->cache;
    MM_SLAB_LOCK_STATE_T state;
    uint32_t n;

    for (n = 0; cache->destruct != NULL && n < s->count; n++)
        cache->destruct(cache->ctx, mmi_slab_object(s, n));
    MM_SLAB_LOCK(&heap->lock, state);
    s->cache = NULL;
    cache->finishing--;
    s->next = heap->empty;
    heap->empty = s;
    heap->empties++;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

/* A slab that left its cache: one of a type-stable cache waits for readers first. */
static void mmi_slab_retired(struct mm_slab_heap *heap, struct mmi_slab *s)
{
    struct mm_slab_cache *cache = s->cache;
    MM_SLAB_LOCK_STATE_T state;

    MM_SLAB_UNPOISON((char *)s + s->first, (size_t)s->count * s->stride);
    (void)mmi_slab_sound_objects(cache, s, "mm_slab_shrink");
    if (!(cache->flags & MM_SLAB_TYPE_STABLE)) {
        mmi_slab_undress(heap, s);
        return;
    }
    s->next = NULL;
    s->grace = heap->hooks->grace_start(heap->hooks->ctx);
    MM_SLAB_LOCK(&heap->lock, state);
    *(heap->stable != NULL ? &heap->stable_last->next : &heap->stable) = s;
    heap->stable_last = s;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

/* Finishes retired slabs and gives what is above the reserve to the source. Returns bytes given. */
static size_t mmi_slab_trim_to(struct mm_slab_heap *heap, size_t reserve)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab *s;
    size_t given = 0;

    for (;;) {
        bool retired = true;
        MM_SLAB_LOCK(&heap->lock, state);
        s = heap->retired;
        if (s != NULL) {
            heap->retired = s->next;
        } else if (heap->empties > reserve && heap->hooks->free != NULL) {
            retired = false;
            s = heap->empty;
            heap->empty = s->next;
            heap->empties--;
            mmi_slab_leave(heap, &s->entry);
        }
        MM_SLAB_UNLOCK(&heap->lock, state);
        if (s == NULL)
            return given;
        if (retired) {
            mmi_slab_retired(heap, s);
        } else {
            mmi_slab_sink(heap, s, MM_SLAB_BYTES);
            given += MM_SLAB_BYTES;
        }
    }
}

MM_SLAB_API void mmi_slab_trim(struct mm_slab_heap *heap)
{
    (void)mmi_slab_trim_to(heap, heap->reserve);
}

/* ---- Debug: red zones, poison, quarantine ---------------------------------------------------- */

/* Reads and fills memory that a sanitizer may hold to be poisoned. */
#define MMI_SLAB_UNCHECKED __attribute__((noinline, no_sanitize_address))

static unsigned mmi_slab_cpu_now(void)
{
    MM_SLAB_CPU_STATE_T pin;
    unsigned cpu;
    MM_SLAB_CPU_PIN(pin);
    cpu = MM_SLAB_CPU_ID();
    MM_SLAB_CPU_UNPIN(pin);
    return cpu;
}

#if MM_SLAB_DEBUG >= 1
static MMI_SLAB_UNCHECKED void mmi_slab_fill(char *from, const char *end, int byte)
{
    volatile char *p = from;
    while (p < (volatile const char *)end)
        *p++ = (char)byte;
}

/* The first byte of a range that is not `byte`, or NULL. */
static MMI_SLAB_UNCHECKED const char *mmi_slab_other(const char *from, const char *end, int byte)
{
    const volatile char *p = from;
    while (p < (const volatile char *)end && *p == (char)byte)
        p++;
    return p < (const volatile char *)end ? (const char *)(uintptr_t)p : NULL;
}

static bool mmi_slab_poisons(const struct mm_slab_cache *cache)
{
    return (cache->flags & MM_SLAB_DEBUG_POISON) != 0 && cache->construct == NULL &&
           !(cache->flags & MM_SLAB_TYPE_STABLE);
}

/* The zones around an object of `size` bytes; nothing without ZONES. */
static void mmi_slab_zones(const struct mm_slab_cache *cache, char *object, size_t size)
{
    if (!(cache->flags & MM_SLAB_DEBUG_ZONES))
        return;
    mmi_slab_fill(object - cache->left, object, MMI_SLAB_ZONE_BYTE);
    mmi_slab_fill(object + size, (const char *)mmi_slab_track_of(cache, object),
                  MMI_SLAB_ZONE_BYTE);
}

static bool mmi_slab_zones_whole(struct mm_slab_cache *cache, const char *object, const char *where)
{
    const struct mmi_slab_track *track = mmi_slab_track_of(cache, object);
    const char *bad;

    if (!(cache->flags & MM_SLAB_DEBUG_ZONES))
        return true;
    bad = mmi_slab_other(object - cache->left, object, MMI_SLAB_ZONE_BYTE);
    if (bad == NULL && track->size <= cache->size)
        bad = mmi_slab_other(object + track->size, (const char *)track, MMI_SLAB_ZONE_BYTE);
    if (bad == NULL)
        return true;
    (void)mmi_slab_refuse(cache->heap, where,
                          bad < object ? "red zone before object overwritten"
                                       : "red zone behind object overwritten",
                          MM_ERR_CORRUPT, cache, object, bad);
    return false;
}

/* Large requests have a red zone behind them, from there to the end of the last page. */
static void mmi_slab_large_zone(const struct mmi_slab_entry *e)
{
    mmi_slab_fill((char *)e->base + e->size, (const char *)e->base + e->bytes, MMI_SLAB_ZONE_BYTE);
}

static bool mmi_slab_large_whole(struct mm_slab_heap *heap, const struct mmi_slab_entry *e,
                                 const char *where)
{
    const char *object = (const char *)e->base;
    const char *bad = NULL;
    if (e->bytes != 0) /* else it is a slab's */
        bad = mmi_slab_other(object + e->size, object + e->bytes, MMI_SLAB_ZONE_BYTE);
    if (bad == NULL)
        return true;
    (void)mmi_slab_refuse(heap, where, "red zone behind large object overwritten", MM_ERR_CORRUPT,
                          NULL, object, bad);
    return false;
}

static bool mmi_slab_poison_whole(struct mm_slab_cache *cache, const char *object,
                                  const char *where)
{
    const char *bad = NULL;

    if (mmi_slab_poisons(cache))
        bad = mmi_slab_other(object, object + cache->size, MMI_SLAB_FREED_BYTE);
    if (bad != NULL)
        (void)mmi_slab_refuse(cache->heap, where, "object written after free", MM_ERR_CORRUPT,
                              cache, object, bad);
    return bad == NULL;
}

/* An object as it is from now on free: in a new slab, or freed. */
static void mmi_slab_freed_state(const struct mm_slab_cache *cache, char *object)
{
    if (mmi_slab_poisons(cache))
        mmi_slab_fill(object, object + cache->size, MMI_SLAB_FREED_BYTE);
    mmi_slab_track_of(cache, object)->size = cache->size;
    mmi_slab_zones(cache, object, cache->size);
}

/* Sets or clears the bit of an object that rests or is withdrawn. The cache's lock is held. */
static void mmi_slab_hold(struct mmi_slab *s, uint32_t n, bool hold)
{
    uintptr_t *word = mmi_slab_held(s) + (n >> MM_WORD_SHIFT);
    const uintptr_t bit = mm_bit(n & (MM_WORD_BITS - 1));
    mm_store(word, hold ? *word | bit : *word & ~bit);
}

/* Checks an object that was just taken and makes it ready; false if it is damaged and withdrawn. */
static bool mmi_slab_debug_alloc(struct mm_slab_cache *cache, char *object, size_t size,
                                 uintptr_t caller)
{
    struct mmi_slab_track *track = mmi_slab_track_of(cache, object);

    if (!mmi_slab_zones_whole(cache, object, "mm_slab_alloc") ||
        !mmi_slab_poison_whole(cache, object, "mm_slab_alloc")) {
        struct mmi_slab *s = mmi_slab_of(object);
        MM_SLAB_LOCK_STATE_T state;
        uint32_t inside, n = mmi_slab_index(s, object, &inside);
        MM_SLAB_LOCK(mmi_slab_guard(cache), state);
        mmi_slab_hold(s, n, true);
        MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
        return false;
    }
    track->size = size;
    track->alloc_by = caller;
    track->alloc_cpu = mmi_slab_cpu_now();
    track->free_by = 0;
    mmi_slab_zones(cache, object, size);
    return true;
}

/* Frees an object that rested: its bit is set again. The cache's lock is held. */
static void mmi_slab_wake(struct mm_slab_cache *cache, uintptr_t object,
                          struct mmi_slab_after *after)
{
    struct mmi_slab *s = mmi_slab_of((const void *)object);
    uint32_t inside, n = mmi_slab_index(s, (const void *)object, &inside);
    mmi_slab_hold(s, n, false);
    mmi_slab_put_back(cache, object, after);
}

/* Puts an object into quarantine and wakes the one that left for it; without quarantine, itself. */
static void mmi_slab_rest(struct mm_slab_cache *cache, uintptr_t object,
                          struct mmi_slab_after *after)
{
    struct mmi_slab_batch *ring = cache->rest;

    if (ring == NULL) {
        mmi_slab_wake(cache, object, after);
        return;
    }
    if (ring->n == MM_SLAB_SLOTS) {
        const uintptr_t oldest = ring->slot[ring->grace];
        ring->slot[ring->grace] = object;
        ring->grace = (ring->grace + 1) % MM_SLAB_SLOTS;
        mmi_slab_wake(cache, oldest, after);
        return;
    }
    ring->slot[(ring->grace + ring->n) % MM_SLAB_SLOTS] = object;
    ring->n++;
}

/* Wakes all that rests. True if there was anything. */
static bool mmi_slab_wake_all(struct mm_slab_cache *cache)
{
    struct mmi_slab_after after = {NULL, {0}, 0};
    struct mmi_slab_batch *ring;
    MM_SLAB_LOCK_STATE_T state;
    bool any;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    ring = cache->rest;
    any = ring != NULL && ring->n != 0;
    for (; any && ring->n != 0; ring->n--) {
        mmi_slab_wake(cache, ring->slot[ring->grace], &after);
        ring->grace = (ring->grace + 1) % MM_SLAB_SLOTS;
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (mmi_slab_finish(cache, &after))
        mmi_slab_trim(cache->heap);
    return any;
}

/* The red zones of all objects of a slab, and the poison of those that are free. What rests, or was
 * withdrawn, is left out. */
static bool mmi_slab_sound_objects(struct mm_slab_cache *cache, struct mmi_slab *s,
                                   const char *where)
{
    uint32_t n;
    bool sound = true;

    for (n = 0; (cache->flags & MM_SLAB_DEBUG_ALL) && n < s->count; n++) {
        const bool free = mmi_slab_test(mmi_slab_bits(s), n);
        const char *object = mmi_slab_object(s, n);
        if (!free && mmi_slab_test(mmi_slab_held(s), n))
            continue;
        if (!mmi_slab_zones_whole(cache, object, where) ||
            (free && !mmi_slab_poison_whole(cache, object, where)))
            sound = false;
    }
    return sound;
}

/* Frees object n of slab s of a cache with debug flags. */
static enum mm_status mmi_slab_debug_free(struct mm_slab_cache *cache, struct mmi_slab *s,
                                          uint32_t n, const char *where, uintptr_t caller)
{
    struct mmi_slab_after after = {NULL, {0}, 0};
    char *object = mmi_slab_object(s, n);
    struct mmi_slab_track *track = mmi_slab_track_of(cache, object);
    MM_SLAB_LOCK_STATE_T state;
    bool twice;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    twice = mmi_slab_test(mmi_slab_bits(s), n) || mmi_slab_test(mmi_slab_held(s), n);
    if (!twice)
        mmi_slab_hold(s, n, true);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (twice)
        return mmi_slab_refuse(cache->heap, where, "double free", MM_ERR_INVALID, cache, object,
                               object);
    if (!mmi_slab_zones_whole(cache, object, where))
        return MM_ERR_CORRUPT; /* its bit stays: it is withdrawn */
    track->free_by = caller;
    track->free_cpu = mmi_slab_cpu_now();
    mmi_slab_freed_state(cache, object);
    mmi_slab_hide(cache, object, cache->size);
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    mmi_slab_rest(cache, (uintptr_t)object, &after);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (mmi_slab_finish(cache, &after))
        mmi_slab_trim(cache->heap);
    return MM_OK;
}

/* An object keeps its place and changes its size. */
static void mmi_slab_debug_resize(const struct mm_slab_cache *cache, char *object, size_t size)
{
    if (!(cache->flags & MM_SLAB_DEBUG_ALL))
        return;
    mmi_slab_track_of(cache, object)->size = size;
    mmi_slab_zones(cache, object, size);
}
#else
#define mmi_slab_freed_state(cache, object)               ((void)(cache), (void)(object))
#define mmi_slab_debug_alloc(cache, object, size, caller) ((void)(size), (void)(caller), true)
#define mmi_slab_debug_free(cache, s, n, where, caller)   ((void)(n), (void)(caller), MM_OK)
#define mmi_slab_debug_resize(cache, p, size)             ((void)(cache), (void)(p), (void)(size))
#define mmi_slab_wake_all(cache)                          false
#define mmi_slab_zones_whole(cache, object, where)        ((void)(where), true)
#define mmi_slab_large_zone(e)                            ((void)(e))
#define mmi_slab_large_whole(heap, e, where)              ((void)(where), true)
#endif

/* Every object of a new slab: constructed, or as after a free. */
static void mmi_slab_dress(struct mm_slab_cache *cache, struct mmi_slab *s)
{
    uint32_t n;

    if (cache->construct != NULL || (cache->flags & MM_SLAB_DEBUG_ALL) != 0) {
        s->purged = 0;
        for (n = 0; n < s->count; n++) {
            if (cache->construct != NULL)
                cache->construct(cache->ctx, mmi_slab_object(s, n));
            if (cache->flags & MM_SLAB_DEBUG_ALL)
                mmi_slab_freed_state(cache, mmi_slab_object(s, n));
        }
    }
    for (n = 0; MMI_SLAB_SANITIZE && n < s->count; n++)
        mmi_slab_hide(cache, mmi_slab_object(s, n), cache->size);
}

/* ---- CPU's arrays, depot --------------------------------------------------------------------- */

/* Entries of an array for objects of `size` bytes. */
static uint32_t mmi_slab_slots_for(size_t size)
{
    size_t slots = MM_SLAB_SLOTS, limit;
    for (limit = 128; limit < size && slots > 8; limit *= 2)
        slots /= 2;
    while (slots > 2 && slots * size > MMI_SLAB_LIST_BYTES)
        slots /= 2;
    return (uint32_t)slots;
}

static void mmi_slab_prepare(struct mm_slab_cache *cache, uintptr_t *l)
{
    l[MMI_SLAB_END] = 0;
    mmi_slab_set_ready(l, 0);
    mmi_slab_set_room(l, cache->slots);
    l[MMI_SLAB_SLOTS] = cache->slots;
    l[MMI_SLAB_CACHE] = (uintptr_t)cache;
    l[cache->slots] = 0;
}

/* Notes a flush or a refill. Where long runs of both take turns, what one puts into the depot the
 * other takes out again: the depot may hold as many batches as the shorter run has. */
static void mmi_slab_turn(struct mm_slab_cache *cache, bool flushing)
{
    const uint32_t most = MMI_SLAB_DEPOT_BYTES / (cache->slots * cache->stride);
    uint32_t swing;

    *(flushing ? &cache->flushes : &cache->refills) += 1;
    mm_store(&cache->want, cache->batches + cache->spares < cache->limit);
    if (cache->flushing == flushing) {
        cache->run++;
        return;
    }
    swing = cache->run < cache->last_run ? cache->run : cache->last_run;
    if (cache->pool != NULL && swing < MMI_SLAB_LONG_RUN) /* large objects lie there for more */
        swing = 0;
    cache->last_run = cache->run;
    cache->run = 1;
    cache->flushing = flushing;
    if (swing > cache->limit)
        cache->limit = swing < most ? swing : most;
    else if (swing < cache->limit / 2)
        cache->limit -= (cache->limit + 7) / 8;
}

/* Asks for the lines of n objects that another CPU freed, to be written. All travel at once; else
 * the first write to each object would wait for its line. */
static void mmi_slab_fetch(const uintptr_t *object, uintptr_t n)
{
    for (; n > 0; n--, object++) {
#ifdef __x86_64__
        __asm__ __volatile__("prefetchw\t(%0)" : : "r"(*object)); /* nothing, where it is unknown */
#else
        __builtin_prefetch((const void *)*object, 1);
#endif
    }
}

/* Where a list of batches has, near its start, one that this CPU filled: its lines, and its
 * objects' lines, may still be in the CPU's own cache. Else the list's start. */
static struct mmi_slab_batch **mmi_slab_nearest(struct mmi_slab_batch **list, unsigned cpu)
{
    struct mmi_slab_batch **at = list;
    unsigned looks = 8;
    while (*at != NULL && (*at)->grace != cpu && --looks != 0)
        at = &(*at)->next;
    return *at != NULL && looks != 0 ? at : list;
}

/* Objects for the empty `out` of the arrays l, up to `n`, out of the depot or the slabs: they end
 * at `end`. Returns how many. */
static uintptr_t mmi_slab_load(struct mm_slab_cache *cache, uintptr_t *end, uintptr_t n)
{
    const unsigned cpu = MM_SLAB_CPU_ID();
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_batch **at, *b;
    uintptr_t more, i;
    bool foreign = false;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    mmi_slab_turn(cache, false);
    at = mmi_slab_nearest(&cache->depot, cpu);
    b = *at;
    if (b != NULL && b->n <= n) {
        foreign = b->grace != cpu;
        *at = b->next;
        cache->batches--;
        n = b->n;
        (void)MM_SLAB_MEMCPY(end - n, b->slot, n * sizeof *end);
        b->next = cache->spare;
        cache->spare = b;
        cache->spares++;
    } else {
        if (cache->free < n && (cache->free != 0 || cache->pool == NULL))
            n = cache->free;
        more = mmi_slab_take(cache, end - n, n);
        for (i = more; more != n && i-- > 0;)
            *(end - (more - i)) = *(end - (n - i));
        n = more;
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (foreign)
        mmi_slab_fetch(end - n, n);
    return n;
}

/* What is in `in` goes into `out`, before the `more` objects that are there. */
static void mmi_slab_turn_over(uintptr_t *l, uintptr_t slots, uintptr_t room, uintptr_t more)
{
    const uintptr_t n = slots - room;
    (void)MM_SLAB_MEMCPY(l + MMI_SLAB_END - more - n, l + room, n * sizeof *l);
    mmi_slab_set_room(l, slots);
    mmi_slab_set_ready(l, n + more);
}

/* Fills the empty `out` of the arrays l. What is in `in` comes first; where that is little, more is
 * added behind it, or a few objects that go round would come here each time. False if the cache has
 * nothing. Pinned. */
static bool mmi_slab_refill(struct mm_slab_cache *cache, uintptr_t *l)
{
    const uintptr_t slots = l[MMI_SLAB_SLOTS], room = mmi_slab_room(l), n = slots - room;
    uintptr_t more = 0;

    if (n == 0 || (n < slots / 2 && mm_load(&cache->free) != 0))
        more = mmi_slab_load(cache, l + MMI_SLAB_END, room);
    mmi_slab_turn_over(l, slots, room, more);
    return n + more != 0;
}

/* Takes the n objects at `from` out of a CPU's arrays, into the depot or their slabs. */
static bool mmi_slab_unload_run(struct mm_slab_cache *cache, const uintptr_t *from, uintptr_t n)
{
    struct mmi_slab_after after;
    const unsigned cpu = MM_SLAB_CPU_ID();
    struct mmi_slab_batch **at, *b;
    MM_SLAB_LOCK_STATE_T state;
    uintptr_t i;

    after.retired = NULL;
    after.misuse = 0;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    mmi_slab_turn(cache, true);
    at = mmi_slab_nearest(&cache->spare, cpu);
    b = cache->batches < cache->limit ? *at : NULL;
    if (b != NULL) {
        *at = b->next;
        cache->spares--;
        (void)MM_SLAB_MEMCPY(b->slot, from, n * sizeof *from);
        b->n = n;
        b->grace = cpu;
        b->next = cache->depot;
        cache->depot = b;
        cache->batches++;
    } else {
        for (i = 0; i < n; i++)
            mmi_slab_put_back(cache, from[i], &after);
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    return mmi_slab_finish(cache, &after);
}

/* Empties the full `in` of the arrays l. Pinned. True if there is work left for mmi_slab_trim. What
 * was freed last stays here, to be handed out first: all of `in` where `out` is empty, the later
 * half before what `out` has where that is little, else all in the place of what `out` has. So at
 * least half of an array stays for what comes next, whether that frees or allocates. */
static bool mmi_slab_flush_own(uintptr_t *l)
{
    struct mm_slab_cache *cache = (struct mm_slab_cache *)l[MMI_SLAB_CACHE];
    const uintptr_t slots = l[MMI_SLAB_SLOTS];
    uintptr_t ready = mmi_slab_ready(l), keep = slots;
    bool work = false;

    if (ready >= slots / 2) {
        work = mmi_slab_unload_run(cache, l + MMI_SLAB_END - ready, ready);
        ready = 0;
    } else if (ready != 0) {
        keep = slots / 2;
        work = mmi_slab_unload_run(cache, l + keep, slots - keep);
    }
    (void)MM_SLAB_MEMCPY(l + MMI_SLAB_END - ready - keep, l, keep * sizeof *l);
    mmi_slab_set_ready(l, ready + keep);
    mmi_slab_set_room(l, slots);
    l[slots] = l[0];
    return work;
}

/* Where the array for all shared classes is l: the same CPU's arrays of one of them. */
static uintptr_t *mmi_slab_sorted(const uintptr_t *l, const struct mm_slab_cache *cls)
{
    return (uintptr_t *)((uintptr_t)l - cls->pool->offset + cls->offset);
}

/* Is p, which was freed last here or long ago, at an end of the arrays l, or free in its slab? */
static bool mmi_slab_rests(const uintptr_t *l, const void *p)
{
    const struct mmi_slab *s = mmi_slab_of(p);
    uint32_t inside;
    const uint32_t n = mmi_slab_index(s, p, &inside);
    const uintptr_t room = mmi_slab_room(l);

    return (room != l[MMI_SLAB_SLOTS] && l[room] == (uintptr_t)p) ||
           l[(intptr_t)l[MMI_SLAB_POP]] == (uintptr_t)p ||
           (n < s->count && mmi_slab_test((const uintptr_t *)(s + 1), n));
}

/* Sorts what is in the array l for all shared classes into the arrays of each, the oldest first.
 * What no object begins at, or is free already, is dropped and counted. */
static bool mmi_slab_sort(struct mm_slab_cache *pool, uintptr_t *l)
{
    const uintptr_t room = mmi_slab_room(l);
    struct mmi_slab_after after = {NULL, {0}, 0};
    uintptr_t i = l[MMI_SLAB_SLOTS];
    bool work = false;

    while (i-- > room) {
        void *p = (void *)l[i];
        struct mm_slab_cache *cls = mmi_slab_class_in(pool, p);
        uintptr_t *to = cls != NULL ? mmi_slab_sorted(l, cls) : NULL;
        int pushed = to == NULL ? -1 : mmi_slab_push(to, p);
        if (MM_UNLIKELY(pushed < 0 && to != NULL && !mmi_slab_rests(to, p))) {
            to[to[MMI_SLAB_SLOTS]] = 0; /* it was handed out since it was freed last */
            pushed = mmi_slab_push(to, p);
        }
        if (pushed > 0)
            work = mmi_slab_flush_own(to) || work;
        if (MM_UNLIKELY(pushed < 0))
            mmi_slab_put_refused(pool, (uintptr_t)p, &after);
    }
    l[l[MMI_SLAB_SLOTS]] = l[room];
    mmi_slab_set_room(l, l[MMI_SLAB_SLOTS]);
    (void)mmi_slab_finish(pool, &after);
    return work;
}

/* The same for this CPU's. Pinned. */
static bool mmi_slab_sort_own(struct mm_slab_cache *pool)
{
    uintptr_t *l = mmi_slab_arrays(pool);
    return l != NULL && mmi_slab_room(l) != l[MMI_SLAB_SLOTS] && mmi_slab_sort(pool, l);
}

MM_SLAB_API bool mmi_slab_flush(uintptr_t *l)
{
    struct mm_slab_cache *cache = (struct mm_slab_cache *)l[MMI_SLAB_CACHE];
    return cache->kind == MMI_SLAB_POOL ? mmi_slab_sort(cache, l) : mmi_slab_flush_own(l);
}

/* p is on top of `in`: is it free already? If `in` is empty, p was the last to be freed before, and
 * then first in `out` (mmi_slab_flush); if it is there no more, nor free in its slab, it was handed
 * out again and is now freed, which is done here. Pinned. */
MM_SLAB_API bool mmi_slab_again(uintptr_t *l, void *p)
{
    const struct mm_slab_cache *cache = (const struct mm_slab_cache *)l[MMI_SLAB_CACHE], *cls;
    const bool empty = mmi_slab_room(l) == l[MMI_SLAB_SLOTS];

    if (cache->kind == MMI_SLAB_POOL && empty) {
        cls = mmi_slab_class_in(cache, p);
        if (cls == NULL || mmi_slab_rests(mmi_slab_sorted(l, cls), p))
            return true;
    } else if (mmi_slab_rests(l, p)) {
        return true;
    }
    l[l[MMI_SLAB_SLOTS]] = 0;
    (void)mmi_slab_push(l, p); /* not the last that fits: there are two slots at least */
    return false;
}

/* One object of a cache without arrays on this CPU; NULL if it has none. */
static void *mmi_slab_take_one(struct mm_slab_cache *cache)
{
    MM_SLAB_LOCK_STATE_T state;
    uintptr_t p = 0;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    if (mmi_slab_take(cache, &p, 1) == 0 && cache->depot != NULL) {
        struct mmi_slab_batch *b = cache->depot;
        p = b->slot[--b->n];
        if (b->n == 0) {
            cache->depot = b->next;
            cache->batches--;
            b->next = cache->spare;
            cache->spare = b;
            cache->spares++;
        }
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    return (void *)p;
}

/* Gives one object back to its slab; false if it was free there already. */
static bool mmi_slab_put_one(struct mm_slab_cache *cache, void *p)
{
    struct mmi_slab_after after = {NULL, {0}, 0};
    MM_SLAB_LOCK_STATE_T state;
    bool twice;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    mmi_slab_put_back(cache, (uintptr_t)p, &after);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    twice = after.misuse != 0;
    after.misuse = 0;
    if (mmi_slab_finish(cache, &after))
        mmi_slab_trim(cache->heap);
    return !twice;
}

static void *mmi_slab_inner_alloc(struct mm_slab_heap *heap, unsigned which, unsigned flags)
{
    struct mm_slab_cache *cache = &heap->inner[which];
    void *p = mmi_slab_take_one(cache);

    if (p == NULL)
        p = mmi_slab_grow(cache, flags);
    if (p != NULL)
        MM_SLAB_UNPOISON(p, cache->size);
    return p;
}

static void mmi_slab_inner_free(struct mm_slab_heap *heap, unsigned which, void *p)
{
    MM_SLAB_POISON(p, heap->inner[which].size);
    (void)mmi_slab_put_one(&heap->inner[which], p);
}

/* Arrays for this CPU, and batches for the depot, as far as there is memory. */
static void mmi_slab_equip(struct mm_slab_cache *cache)
{
    struct mm_slab_heap *heap = cache->heap;
    const unsigned cpu = mmi_slab_cpu_now();
    MM_SLAB_LOCK_STATE_T state;
    MM_SLAB_CPU_STATE_T pin;
    bool placed = false;
    uintptr_t *words;
    struct mmi_slab_batch *b;

    if (cache->flags & MM_SLAB_DEBUG_ALL)
        return;
    if (cache->kind == MMI_SLAB_NAMED && cpu < MM_CPU_MAX && cache->cpu[cpu] == NULL) {
        words = (uintptr_t *)mmi_slab_inner_alloc(heap, MMI_SLAB_ARRAYS, MM_SLAB_NOWAIT);
        if (words == NULL)
            return;
        MM_SLAB_CPU_PIN(pin);
        if (MM_SLAB_CPU_ID() == cpu && cache->cpu[cpu] == NULL) {
            mmi_slab_prepare(cache, words + MMI_SLAB_ARRAY_AT(MM_SLAB_SLOTS));
            __atomic_store_n(&cache->cpu[cpu], words + MMI_SLAB_ARRAY_AT(MM_SLAB_SLOTS),
                             __ATOMIC_RELEASE);
            placed = true;
        }
        MM_SLAB_CPU_UNPIN(pin);
        if (!placed)
            mmi_slab_inner_free(heap, MMI_SLAB_ARRAYS, words);
    }
    while (mm_load(&cache->want) != 0) {
        b = (struct mmi_slab_batch *)mmi_slab_inner_alloc(heap, MMI_SLAB_BATCHES, MM_SLAB_NOWAIT);
        if (b == NULL)
            return;
        MM_SLAB_LOCK(mmi_slab_guard(cache), state);
        b->grace = cpu;
        b->next = cache->spare;
        cache->spare = b;
        cache->spares++;
        mm_store(&cache->want, cache->batches + cache->spares < cache->limit);
        MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    }
}

/* The quarantine's ring, made at the first allocation. */
static void mmi_slab_equip_rest(struct mm_slab_cache *cache)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_batch *b;

    if (!(cache->flags & MM_SLAB_DEBUG_QUARANTINE) ||
        __atomic_load_n(&cache->rest, __ATOMIC_RELAXED) != NULL)
        return;
    b = (struct mmi_slab_batch *)mmi_slab_inner_alloc(cache->heap, MMI_SLAB_BATCHES,
                                                      MM_SLAB_NOWAIT);
    if (b == NULL)
        return;
    b->n = 0;
    b->grace = 0;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    if (cache->rest == NULL) {
        __atomic_store_n(&cache->rest, b, __ATOMIC_RELAXED);
        b = NULL;
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    if (b != NULL)
        mmi_slab_inner_free(cache->heap, MMI_SLAB_BATCHES, b);
}

/* Most refills: `out` is empty, `in` is half full at least, and takes its place. NULL if not so. */
static void *mmi_slab_swap(struct mm_slab_cache *cache)
{
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t *l, slots, room;
    void *p = NULL;
    bool work = false;

    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (l != NULL && cache->pool != NULL) {
        work = mmi_slab_sort_own(cache->pool);
        p = mmi_slab_pop(l);
    }
    if (l != NULL && p == NULL) {
        slots = l[MMI_SLAB_SLOTS];
        room = mmi_slab_room(l);
        if (mmi_slab_ready(l) == 0 && room <= slots / 2) {
            mmi_slab_turn_over(l, slots, room, 0);
            p = mmi_slab_pop(l);
        }
    }
    MM_SLAB_CPU_UNPIN(pin);
    if (work)
        mmi_slab_trim(cache->heap);
    return p;
}

/* An object of the cache out of the CPU's arrays or the slabs; NULL if it has none. */
static void *mmi_slab_try(struct mm_slab_cache *cache)
{
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t *l;
    void *p = NULL;

    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (l != NULL) {
        p = mmi_slab_pop(l);
        if (p == NULL && mmi_slab_refill(cache, l))
            p = mmi_slab_pop(l);
    }
    MM_SLAB_CPU_UNPIN(pin);
    return l != NULL ? p : mmi_slab_take_one(cache);
}

static bool mmi_slab_quota_met(struct mm_slab_cache *cache)
{
    MM_SLAB_LOCK_STATE_T state;
    bool met;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    met = !mmi_slab_within_quota(cache, cache->pool != NULL ? cache->size : MM_SLAB_BYTES);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    return met;
}

/* After neither the cache (NULL: none) nor the source had anything: what else may help, one thing
 * after another for each allocation. First what CPUs' arrays and depots hold, of this cache if it
 * is its quota that is met; then what waits for readers, and the program's caches. */
static bool mmi_slab_reclaim(struct mm_slab_heap *heap, struct mm_slab_cache *cache, size_t bytes,
                             unsigned flags, unsigned *tried)
{
    bool helped = false;

    if (flags & MM_SLAB_NOWAIT)
        return false;
    if ((*tried)++ == 0) {
        if (cache != NULL && mmi_slab_quota_met(cache))
            (void)mm_slab_cache_shrink(cache);
        else
            (void)mm_slab_shrink(heap);
        return true;
    }
    if (*tried > 2)
        return false;
    if (heap->hooks->grace_done != NULL)
        helped = mm_slab_rcu_poll(heap) == 0;
    if (heap->hooks->reclaim != NULL)
        helped = heap->hooks->reclaim(heap->hooks->ctx, heap, bytes) || helped;
    return helped;
}

/* An object for a request of `size` bytes, by all means that there are. */
static void *mmi_slab_get(struct mm_slab_cache *cache, size_t size, unsigned flags,
                          uintptr_t caller)
{
    MM_SLAB_LOCK_STATE_T state;
    unsigned tried = 0;
    void *p;

    for (;;) {
        p = mmi_slab_try(cache);
        if (p == NULL)
            p = mmi_slab_grow(cache, flags);
        if (p == NULL) {
            if (mmi_slab_wake_all(cache) ||
                mmi_slab_reclaim(cache->heap, cache, MM_SLAB_BYTES, flags, &tried))
                continue;
            MM_SLAB_LOCK(mmi_slab_guard(cache), state);
            cache->failures++;
            MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
            return NULL;
        }
        if (cache->flags & MM_SLAB_DEBUG_ALL) {
            MM_SLAB_UNPOISON(p, cache->size);
            if (!mmi_slab_debug_alloc(cache, (char *)p, size, caller))
                continue;
        }
        mmi_slab_equip(cache);
        mmi_slab_equip_rest(cache);
        mmi_slab_hand_out(p, size, cache->size, flags & MM_SLAB_ZERO);
        if (cache->flags & MM_SLAB_DEBUG_ZONES)
            mmi_slab_debug_resize(cache, (char *)p, size);
        return p;
    }
}

/* The same, after a look at what is nearest. */
static void *mmi_slab_get_soon(struct mm_slab_cache *cache, size_t size, unsigned flags,
                               uintptr_t caller)
{
    void *p = mmi_slab_swap(cache);
    if (p == NULL)
        return mmi_slab_get(cache, size, flags, caller);
    mmi_slab_hand_out(p, size, cache->size, flags);
    return p;
}

/* Frees p, an address in slab s of the cache, whatever it is. */
static enum mm_status mmi_slab_give(struct mm_slab_cache *cache, struct mmi_slab *s, void *p,
                                    const char *where, uintptr_t caller)
{
    struct mm_slab_heap *heap = cache->heap;
    MM_SLAB_CPU_STATE_T pin;
    uint32_t inside, n = mmi_slab_index(s, p, &inside);
    uintptr_t *l;

    if (n >= s->count || cache->kind == MMI_SLAB_INNER)
        return mmi_slab_refuse(heap, where, "free of no object", MM_ERR_INVALID, cache, NULL, p);
    if (s->cache != cache && mmi_slab_class_at(p) == NULL)
        return mmi_slab_refuse(heap, where, "free inside an object", MM_ERR_ALIGN, cache, NULL, p);
    if (s->cache == cache && inside != 0)
        return mmi_slab_refuse(heap, where, "free inside an object", MM_ERR_ALIGN, cache,
                               mmi_slab_object(s, n), p);
    if (cache->flags & MM_SLAB_DEBUG_ALL)
        return mmi_slab_debug_free(cache, s, n, where, caller);
    if (cache->kind == MMI_SLAB_POOL || mmi_slab_test(mmi_slab_bits(s), n))
        return mmi_slab_refuse(heap, where, "double free", MM_ERR_INVALID, cache, (char *)p, p);
    mmi_slab_equip(cache);
    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (l != NULL)
        return mmi_slab_free_into(heap, l, p, pin);
    MM_SLAB_CPU_UNPIN(pin);
    mmi_slab_hide(cache, p, cache->size);
    if (!mmi_slab_put_one(cache, p))
        return mmi_slab_report(heap, where, "double free", MM_ERR_INVALID, cache, (char *)p, p);
    return MM_OK;
}

/* ---- Heaps ----------------------------------------------------------------------------------- */

#if MM_SLAB_DEBUG >= 3
#define MMI_SLAB_FLAGS MM_SLAB_DEBUG_ALL
#elif MM_SLAB_DEBUG == 2
#define MMI_SLAB_FLAGS (MM_SLAB_DEBUG_ALL & ~MM_SLAB_DEBUG_QUARANTINE)
#else
#define MMI_SLAB_FLAGS 0u
#endif

static bool mmi_slab_flags_known(unsigned flags)
{
    const unsigned known = MM_SLAB_TYPE_STABLE | MM_SLAB_SHUFFLE | MM_SLAB_COLOUR |
                           (MM_SLAB_DEBUG >= 1 ? MM_SLAB_DEBUG_ALL : 0u);
    return (flags & ~known) == 0;
}

MM_SLAB_API void mm_slab_config_init(struct mm_slab_config *config,
                                     const struct mm_slab_hooks *hooks)
{
    config->hooks = hooks;
    config->quota = 0;
    config->reserve = 4;
    config->flags = MMI_SLAB_FLAGS;
    config->offline = false;
    config->seed = 0x9e3779b9u;
}

/* Lays a cache out: `size` and `align` of an object. False if a slab has no room for one. */
static bool mmi_slab_lay_out(struct mm_slab_cache *cache, size_t size, size_t align)
{
    size_t stride = size, header = sizeof(struct mmi_slab), count;
    const bool debug = (cache->flags & MM_SLAB_DEBUG_ALL) != 0;

    if (cache->kind == MMI_SLAB_POOL)
        header += sizeof(struct mmi_slab_share) + sizeof(uintptr_t); /* bits for all units */
    cache->left = 0;
    if (cache->flags & MM_SLAB_DEBUG_ZONES) {
        cache->left = (uint32_t)(align > 16 ? align : 16);
        stride += cache->left + MMI_SLAB_ZONE_BEHIND;
    }
    if (debug)
        stride += sizeof(struct mmi_slab_track) + sizeof(uintptr_t);
    stride = (size_t)mm_align_up(stride, align);
    for (count = MM_SLAB_BYTES / stride; count > 0; count--) {
        const size_t bits = mmi_slab_bit_words((uint32_t)count) * sizeof(uintptr_t) * (1u + debug);
        const size_t first = (size_t)mm_align_up(header + bits + cache->left, align);
        if (first - cache->left + count * stride <= MM_SLAB_BYTES) {
            cache->first = (uint32_t)first;
            cache->colours = (uint32_t)(MM_SLAB_BYTES - (first - cache->left + count * stride));
            break;
        }
    }
    cache->size = (uint32_t)size;
    cache->stride = (uint32_t)stride;
    cache->count = (uint32_t)count;
    cache->align = (uint32_t)align;
    cache->inverse = (uint32_t)(0xffffffffu / (uint32_t)stride + 1);
    cache->slots = mmi_slab_slots_for(size);
    return count > 0;
}

static void mmi_slab_set_name(struct mm_slab_cache *cache, const char *name, size_t number)
{
    char digits[24];
    const char *from = name;
    size_t i = 0;

    while (*from != 0 && i < MM_SLAB_NAME_MAX - 1)
        cache->name[i++] = *from++;
    from = number != 0 ? mmi_slab_digits(digits + 23, number, 10) : "";
    while (*from != 0 && i < MM_SLAB_NAME_MAX - 1)
        cache->name[i++] = *from++;
    cache->name[i] = 0;
}

/* Makes a cache of the heap's own. */
static void mmi_slab_own_cache(struct mm_slab_heap *heap, struct mm_slab_cache *cache, size_t size,
                               unsigned kind, unsigned flags)
{
    cache->heap = heap;
    cache->kind = kind;
    cache->flags = flags;
    cache->random = heap->random | 1;
    MM_SLAB_LOCK_INIT(&cache->lock);
    (void)mmi_slab_lay_out(cache, size, size & (0 - size));
    cache->token = kind != MMI_SLAB_INNER ? mmi_slab_token(heap) : 0;
    cache->next = heap->caches;
    heap->caches = cache;
}

static void mmi_slab_own_class(struct mm_slab_heap *heap, unsigned c, unsigned flags)
{
    struct mm_slab_cache *cache = &heap->cls[c];
    const size_t words = mmi_slab_class_words(c);

    mmi_slab_own_cache(heap, cache, mmi_slab_class_bytes(c), MMI_SLAB_CLASS, flags);
    cache->slots = MMI_SLAB_SLOTS_OF(c <= 8 ? 0 : 1 + ((c - 9) >> 3));
    if (cache->size > MMI_SLAB_WINDOW && cache->size % MMI_SLAB_UNIT == 0 &&
        !(flags & MM_SLAB_DEBUG_ALL))
        cache->pool = &heap->pool;
    mmi_slab_set_name(cache, "kmalloc-", cache->size);
    cache->offset = words * sizeof(uintptr_t);
    heap->class_bytes[words / 16] = (uint16_t)cache->size; /* arrays have 24 words at least */
}

/* The cache whose slabs classes share: of units. */
static void mmi_slab_own_pool(struct mm_slab_heap *heap)
{
    struct mm_slab_cache *pool = &heap->pool;

    mmi_slab_own_cache(heap, pool, MMI_SLAB_UNIT, MMI_SLAB_POOL, 0);
    mmi_slab_set_name(pool, "kmalloc-shared", 0);
    pool->slots = MMI_SLAB_COMMON;
    pool->offset = (MMI_SLAB_CLASS_WORDS + MMI_SLAB_ARRAY_AT(MMI_SLAB_COMMON)) * sizeof(uintptr_t);
}

MM_SLAB_API enum mm_status mm_slab_online(struct mm_slab_heap *heap, unsigned cpu)
{
    unsigned c;

    if (cpu >= MM_CPU_MAX)
        return MM_ERR_INVALID;
    for (c = 0; c < MM_SLAB_CLASSES && heap->cls[c].cpu[cpu] == NULL; c++) {
        struct mm_slab_cache *cache = &heap->cls[c];
        uintptr_t *l = heap->cpu[cpu].words + mmi_slab_class_words(c);
        mmi_slab_prepare(cache, l);
        if (!(cache->flags & MM_SLAB_DEBUG_ALL)) /* else they only have to be empty */
            __atomic_store_n(&cache->cpu[cpu], l, __ATOMIC_RELEASE);
    }
    if (heap->pool.cpu[cpu] == NULL) {
        uintptr_t *l = (uintptr_t *)((uintptr_t)&heap->cpu[cpu] + heap->pool.offset);
        mmi_slab_prepare(&heap->pool, l);
        __atomic_store_n(&heap->pool.cpu[cpu], l, __ATOMIC_RELEASE);
    }
    return MM_OK;
}

MM_SLAB_API enum mm_status mm_slab_init(struct mm_slab_heap *heap,
                                        const struct mm_slab_config *config)
{
    const size_t sizes[MMI_SLAB_INNERS] = {sizeof(struct mmi_slab_entry),
                                           sizeof(struct mmi_slab_batch),
                                           MMI_SLAB_ARRAY_WORDS(MM_SLAB_SLOTS) * sizeof(uintptr_t)};
    const struct mm_slab_hooks *hooks = config->hooks;
    size_t i;
    unsigned c;

    if (hooks == NULL || hooks->alloc == NULL || !mmi_slab_flags_known(config->flags) ||
        (config->flags & MM_SLAB_TYPE_STABLE) != 0 ||
        (hooks->grace_start == NULL) != (hooks->grace_done == NULL) ||
        (hooks->grace_start == NULL) != (hooks->grace_wait == NULL))
        return MM_ERR_INVALID;
    mmi_slab_zero(&heap->offset, sizeof *heap - offsetof(struct mm_slab_heap, offset));
    heap->hooks = hooks;
    MM_SLAB_LOCK_INIT(&heap->lock);
    heap->table = heap->inline_table;
    heap->buckets = MMI_SLAB_BUCKETS;
    heap->low = ~(uintptr_t)0;
    heap->reserve = config->reserve;
    heap->quota = config->quota;
    heap->flags = config->flags;
    heap->random = config->seed;
    for (i = 0; i < MMI_SLAB_INNERS; i++) {
        mmi_slab_own_cache(heap, &heap->inner[i], (size_t)mm_align_up(sizes[i], 16), MMI_SLAB_INNER,
                           0);
        mmi_slab_set_name(&heap->inner[i], "heap-own-", sizes[i]);
    }
    mmi_slab_own_pool(heap);
    for (c = MM_SLAB_CLASSES; c-- > 0;)
        mmi_slab_own_class(heap, c, config->flags);
    for (c = 0; c < MM_CPU_MAX && !config->offline; c++)
        (void)mm_slab_online(heap, c);
    for (i = 0; i <= MM_SLAB_MAX / 8; i++)
        heap->offset[i] = (uint16_t)mmi_slab_class_words(mmi_slab_class(i * 8));
    return MM_OK;
}

MM_SLAB_API void mm_slab_set_quota(struct mm_slab_heap *heap, size_t bytes)
{
    MM_SLAB_LOCK_STATE_T state;
    MM_SLAB_LOCK(&heap->lock, state);
    heap->quota = bytes;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

/* Empties the arrays l into the slabs. Pinned, or their CPU is not in the heap. */
static void mmi_slab_unload(struct mm_slab_cache *cache, uintptr_t *l)
{
    const uintptr_t slots = l[MMI_SLAB_SLOTS], room = mmi_slab_room(l);
    uintptr_t i, n = mmi_slab_ready(l);
    struct mmi_slab_after after;
    MM_SLAB_LOCK_STATE_T state;

    if (room == slots && n == 0)
        return;
    after.retired = NULL;
    after.misuse = 0;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    for (i = room; i < slots; i++)
        mmi_slab_put_back(cache, l[i], &after);
    for (; n > 0; n--)
        mmi_slab_put_back(cache, *(l + MMI_SLAB_END - n), &after);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    l[slots] = l[room];
    mmi_slab_set_room(l, slots);
    mmi_slab_set_ready(l, 0);
    (void)mmi_slab_finish(cache, &after);
}

/* Empties the depot into the slabs and gives its batches back. */
static void mmi_slab_unload_depot(struct mm_slab_cache *cache)
{
    struct mmi_slab_after after;
    struct mmi_slab_batch *b, *spare;
    MM_SLAB_LOCK_STATE_T state;
    uintptr_t i;

    after.retired = NULL;
    after.misuse = 0;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    while ((b = cache->depot) != NULL) {
        cache->depot = b->next;
        for (i = 0; i < b->n; i++)
            mmi_slab_put_back(cache, b->slot[i], &after);
        b->next = cache->spare;
        cache->spare = b;
    }
    spare = cache->spare;
    cache->spare = NULL;
    cache->batches = 0;
    cache->spares = 0;
    cache->limit = 0;
    mm_store(&cache->want, 0);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    (void)mmi_slab_finish(cache, &after);
    while ((b = spare) != NULL) {
        spare = b->next;
        mmi_slab_inner_free(cache->heap, MMI_SLAB_BATCHES, b);
    }
}

/* Empties all that is kept ready anywhere. No CPU is in the cache. */
static void mmi_slab_unload_all(struct mm_slab_cache *cache)
{
    unsigned cpu;
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++) {
        if (cache->pool != NULL && cache->pool->cpu[cpu] != NULL)
            mmi_slab_unload(cache->pool, cache->pool->cpu[cpu]);
        if (cache->cpu[cpu] != NULL)
            mmi_slab_unload(cache, cache->cpu[cpu]);
    }
    mmi_slab_unload_depot(cache);
    (void)mmi_slab_wake_all(cache);
    mmi_slab_trim(cache->heap);
}

/* Objects of a slab that are handed out. */
static uint32_t mmi_slab_live_in(const struct mm_slab_cache *cache, struct mmi_slab *s)
{
    uint32_t live = s->count - s->free, i;
    for (i = 0; (cache->flags & MM_SLAB_DEBUG_ALL) && i < mmi_slab_bit_words(s->count); i++)
        live -= mm_popcount(mmi_slab_held(s)[i]);
    return live;
}

static size_t mmi_slab_live(const struct mm_slab_cache *cache)
{
    struct mmi_slab *s;
    size_t live = cache->runs;
    for (s = cache->partial.first; s != NULL; s = s->next)
        live += mmi_slab_live_in(cache, s);
    for (s = cache->full.first; s != NULL; s = s->next)
        live += mmi_slab_live_in(cache, s);
    return live;
}

/* Gives all slabs back, though withdrawn objects may be in them; no object is live. */
static void mmi_slab_dissolve(struct mm_slab_cache *cache)
{
    struct mmi_slab_after after;
    struct mmi_slab *s;
    MM_SLAB_LOCK_STATE_T state;

    after.retired = NULL;
    after.misuse = 0;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    while ((s = cache->full.first) != NULL) {
        mmi_slab_unlink(&cache->full, s);
        mmi_slab_link(&cache->partial, s, true);
    }
    while ((s = cache->partial.first) != NULL) {
        mmi_slab_add_free(cache, s->count - s->free);
        mmi_slab_retire(cache, s, &after);
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    (void)mmi_slab_finish(cache, &after);
    mmi_slab_trim(cache->heap);
    if (cache->rest != NULL)
        mmi_slab_inner_free(cache->heap, MMI_SLAB_BATCHES, cache->rest);
    cache->rest = NULL;
}

/* Slabs that waited for readers become empty ones. */
static void mmi_slab_settle(struct mm_slab_heap *heap, struct mmi_slab *s)
{
    while (s != NULL) {
        struct mmi_slab *next = s->next;
        mmi_slab_undress(heap, s);
        s = next;
    }
    mmi_slab_trim(heap);
}

MM_SLAB_API enum mm_status mm_slab_fini(struct mm_slab_heap *heap)
{
    unsigned c;

    if (heap->hooks->grace_wait != NULL)
        mm_slab_rcu_barrier(heap);
    if (heap->caches != heap->cls || heap->large != 0)
        return MM_ERR_BUSY;
    for (c = 0; c < MM_SLAB_CLASSES; c++) {
        mmi_slab_unload_all(&heap->cls[c]);
        if (mmi_slab_live(&heap->cls[c]) != 0)
            return MM_ERR_BUSY;
    }
    for (c = 0; c < MM_SLAB_CLASSES; c++)
        mmi_slab_dissolve(&heap->cls[c]);
    mmi_slab_dissolve(&heap->pool);
    for (c = 0; c < MMI_SLAB_INNERS; c++)
        mmi_slab_dissolve(&heap->inner[c]);
    (void)mmi_slab_trim_to(heap, 0);
    if (heap->table_bytes != 0)
        mmi_slab_sink(heap, heap->table, heap->table_bytes);
    heap->table = heap->inline_table;
    heap->buckets = MMI_SLAB_BUCKETS;
    heap->table_bytes = 0;
    return MM_OK;
}

/* ---- General objects ------------------------------------------------------------------------- */

static void mmi_slab_clear(struct mm_slab_heap *heap, void *p, size_t bytes)
{
    if (heap->hooks->zero != NULL)
        heap->hooks->zero(heap->hooks->ctx, p, bytes);
    else
        (void)MM_SLAB_MEMSET(p, 0, bytes);
}

/* Bytes of the source for a large request of `size` bytes. */
static size_t mmi_slab_large_bytes(const struct mm_slab_heap *heap, size_t size)
{
    const size_t page = mmi_slab_page();
    const size_t zone = heap->flags & MM_SLAB_DEBUG_ZONES ? MMI_SLAB_ZONE_BEHIND : 0;
    return (size + zone + page - 1) & ~(page - 1);
}

/* Whole pages of the source. */
static void *mmi_slab_large(struct mm_slab_heap *heap, size_t size, size_t align, unsigned flags,
                            uintptr_t caller)
{
    const size_t bytes = mmi_slab_large_bytes(heap, size);
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_entry *e;
    unsigned tried = 0;
    void *p = NULL;
    size_t buckets;

    if (size > PTRDIFF_MAX - MM_SLAB_BYTES ||
        align > PTRDIFF_MAX) /* no pointers' difference were larger */
        return NULL;
    do {
        e = (struct mmi_slab_entry *)mmi_slab_inner_alloc(heap, MMI_SLAB_ENTRIES, flags);
        if (e != NULL)
            p = mmi_slab_source(heap, bytes, align > MM_SLAB_BYTES ? align : MM_SLAB_BYTES, flags);
        if (e != NULL && p == NULL)
            mmi_slab_inner_free(heap, MMI_SLAB_ENTRIES, e);
    } while (p == NULL && mmi_slab_reclaim(heap, NULL, bytes, flags, &tried));
    if (p == NULL)
        return NULL;
    if (flags & MM_SLAB_ZERO)
        mmi_slab_clear(heap, p, bytes);
    e->base = (uintptr_t)p;
    e->bytes = bytes;
    e->size = heap->flags & MM_SLAB_DEBUG_ZONES ? size : bytes;
    mmi_slab_large_zone(e);
    MM_SLAB_POISON((char *)p + size, bytes - size);
    e->caller = caller;
    e->cpu = mmi_slab_cpu_now();
    MM_SLAB_LOCK(&heap->lock, state);
    buckets = mmi_slab_enter(heap, e, bytes);
    heap->large++;
    heap->large_bytes += bytes;
    MM_SLAB_UNLOCK(&heap->lock, state);
    mmi_slab_widen(heap, buckets);
    return p;
}

MM_SLAB_API void *mmi_slab_kmalloc_slow(struct mm_slab_heap *heap, size_t size, unsigned flags)
{
    if (size > MM_SLAB_MAX)
        return mmi_slab_large(heap, size, MM_SLAB_BYTES, flags, MMI_SLAB_CALLER);
    return mmi_slab_get_soon(&heap->cls[mmi_slab_class(size)], size, flags, MMI_SLAB_CALLER);
}

static void *mmi_slab_aligned(struct mm_slab_heap *heap, size_t size, size_t align, unsigned flags,
                              uintptr_t caller)
{
    unsigned c;

    if (!mm_is_pow2(align))
        return NULL;
    for (c = size <= MM_SLAB_MAX ? mmi_slab_class(size) : MM_SLAB_CLASSES; c < MM_SLAB_CLASSES; c++)
        if ((mmi_slab_class_bytes(c) & (align - 1)) == 0)
            return mmi_slab_get_soon(&heap->cls[c], size, flags, caller);
    return mmi_slab_large(heap, size != 0 ? size : 1, align, flags, caller);
}

MM_SLAB_API void *mm_slab_kmalloc_aligned(struct mm_slab_heap *heap, size_t size, size_t align,
                                          unsigned flags)
{
    return mmi_slab_aligned(heap, size, align, flags, MMI_SLAB_CALLER);
}

/* What the heap knows of the address p. */
struct mmi_slab_place {
    struct mm_slab_cache *cache; /* NULL: a large request, or none */
    struct mmi_slab *slab;
    char *start;  /* NULL: in no object */
    size_t bytes; /* usable */
    bool live;    /* handed out, as far as the slab knows */
};

/* A large request that p is inside of. The heap's lock is held. */
static const struct mmi_slab_entry *mmi_slab_around(const struct mm_slab_heap *heap, uintptr_t p)
{
    const struct mmi_slab_entry *e;
    size_t i;

    for (i = 0; i < heap->buckets && heap->large != 0 && p - heap->low < heap->high - heap->low;
         i++)
        for (e = heap->table[i]; e != NULL; e = e->next)
            if (p - e->base < e->bytes)
                return e;
    return NULL;
}

/* The object of place->slab that holds the byte at p. */
static void mmi_slab_locate_object(const void *p, struct mmi_slab_place *place)
{
    uint32_t inside;
    const uint32_t n = mmi_slab_index(place->slab, p, &inside);

    if (n >= place->slab->count)
        return;
    place->start = mmi_slab_object(place->slab, n);
    place->bytes = place->cache->size;
    place->live = !mmi_slab_test(mmi_slab_bits(place->slab), n);
    if (place->cache->flags & MM_SLAB_DEBUG_ALL) {
        place->live = place->live && !mmi_slab_test(mmi_slab_held(place->slab), n);
        if (place->live)
            place->bytes = mmi_slab_track_of(place->cache, place->start)->size;
    }
}

/* The same in a shared slab: the object begins in p's window or one before. */
static void mmi_slab_locate_run(const void *p, struct mmi_slab_place *place)
{
    const uint16_t *tag = mmi_slab_share_of(place->slab)->tag;
    const size_t at = (uintptr_t)p - (uintptr_t)place->slab;
    size_t w = at / MMI_SLAB_WINDOW, back;

    for (back = 0; back <= MM_SLAB_MAX / MMI_SLAB_WINDOW && back <= w; back++) {
        const unsigned t = __atomic_load_n(&tag[w - back], __ATOMIC_RELAXED);
        const size_t start = (w - back) * MMI_SLAB_WINDOW + t % 8 * MMI_SLAB_UNIT;
        if (t == 0 || start > at)
            continue;
        if (at - start < place->cache->heap->cls[t / 8].size) {
            place->cache = &place->cache->heap->cls[t / 8];
            place->start = (char *)place->slab + start;
            place->bytes = place->cache->size;
            place->live = true;
        }
        return;
    }
}

static void mmi_slab_locate(struct mm_slab_heap *heap, const void *p, struct mmi_slab_place *place)
{
    const uintptr_t base = (uintptr_t)mmi_slab_of(p);
    const struct mmi_slab_entry *e;
    MM_SLAB_LOCK_STATE_T state;

    mmi_slab_zero(place, sizeof *place);
    MM_SLAB_LOCK(&heap->lock, state);
    e = mmi_slab_lookup(heap, base);
    if (e == NULL || (e->bytes != 0 && (uintptr_t)p - base >= e->bytes))
        e = mmi_slab_around(heap, (uintptr_t)p);
    if (e != NULL && e->bytes != 0) {
        place->start = (char *)e->base;
        place->bytes = e->size;
        place->live = true;
    } else if (e != NULL) {
        place->slab = mmi_slab_of(p);
        place->cache = place->slab->cache;
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (place->cache == NULL)
        return;
    if (place->cache->kind == MMI_SLAB_POOL)
        mmi_slab_locate_run(p, place);
    else
        mmi_slab_locate_object(p, place);
}

/* A large request ends, if p is the start of one (and it has `bytes`, if that is not 0); else
 * MM_ERR_NOENT. */
static enum mm_status mmi_slab_large_free(struct mm_slab_heap *heap, void *p, size_t bytes,
                                          const char *where)
{
    enum mm_status status;
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_entry *e;

    MM_SLAB_LOCK(&heap->lock, state);
    e = mmi_slab_lookup(heap, (uintptr_t)p);
    if (e != NULL && (e->bytes == 0 || (bytes != 0 && e->bytes != bytes)))
        e = NULL;
    if (e != NULL) {
        mmi_slab_leave(heap, e);
        heap->large--;
        heap->large_bytes -= e->bytes;
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (e == NULL)
        return MM_ERR_NOENT;
    bytes = e->bytes;
    status = mmi_slab_large_whole(heap, e, where) ? MM_OK : MM_ERR_CORRUPT;
    mmi_slab_inner_free(heap, MMI_SLAB_ENTRIES, e);
    mmi_slab_sink(heap, p, bytes);
    return status;
}

static enum mm_status mmi_slab_kfree_any(struct mm_slab_heap *heap, void *p, const char *where,
                                         uintptr_t caller)
{
    struct mmi_slab_place place;
    const enum mm_status status = mmi_slab_large_free(heap, p, 0, where);

    if (status != MM_ERR_NOENT)
        return status;
    mmi_slab_locate(heap, p, &place);
    if (place.cache != NULL)
        return mmi_slab_give(place.cache, place.slab, p, where, caller);
    if (place.start != NULL)
        return mmi_slab_refuse(heap, where, "free inside a large object", MM_ERR_ALIGN, NULL, NULL,
                               p);
    return mmi_slab_refuse(heap, where, "wild free", MM_ERR_INVALID, NULL, NULL, p);
}

/* Objects aligned to 8 lie between the marks where these are of 16 bytes: then the mark of the
 * place before tells. Frees p of this cache into the CPU's arrays if it is such a one. */
static bool mmi_slab_free_between(struct mm_slab_cache *cache, char *p, enum mm_status *status)
{
    struct mm_slab_heap *heap = cache->heap;
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t offset = 0, *l;

    if ((uintptr_t)p % sizeof(struct mmi_slab_mark) != 8 || cache->align != 8 ||
        !mmi_slab_trusted(heap, p) || !mmi_slab_marked(p - 8, cache->token, &offset) ||
        offset != cache->offset || !mmi_slab_starts(p))
        return false;
    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (l == NULL) {
        MM_SLAB_CPU_UNPIN(pin);
        return false;
    }
    *status = mmi_slab_free_into(heap, l, p, pin);
    return true;
}

/* Frees p, if it is an object of class c in a shared slab, into the CPU's array for those. The mark
 * says that the slab is shared: its own line, which CPUs write to, is left alone. */
static bool mmi_slab_free_run_of(struct mm_slab_heap *heap, void *p, unsigned c,
                                 enum mm_status *status)
{
    struct mm_slab_cache *cache = &heap->cls[c];
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t offset = 0, *l;

    if (cache->pool == NULL || !mmi_slab_trusted(heap, p) ||
        !mmi_slab_marked(p, mmi_slab_token(heap), &offset) || offset != cache->pool->offset ||
        !mmi_slab_starts(p) || mmi_slab_tagged(heap, p) != cache)
        return false;
    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache->pool);
    if (l == NULL) {
        MM_SLAB_CPU_UNPIN(pin);
        return false;
    }
    *status = mmi_slab_free_into(heap, l, p, pin);
    return true;
}

static enum mm_status mmi_slab_kfree_by(struct mm_slab_heap *heap, void *p, uintptr_t caller)
{
    enum mm_status status;
    if (mmi_slab_free_between(&heap->cls[0], (char *)p, &status))
        return status;
    return mmi_slab_kfree_any(heap, p, "mm_slab_kfree", caller);
}

MM_SLAB_API enum mm_status mmi_slab_kfree_slow(struct mm_slab_heap *heap, void *p)
{
    return mmi_slab_kfree_by(heap, p, MMI_SLAB_CALLER);
}

/* The same for an object of this named cache. */
static enum mm_status mmi_slab_free_by(struct mm_slab_cache *cache, void *p, uintptr_t caller)
{
    struct mmi_slab_place place;
    enum mm_status status;

    if (mmi_slab_free_between(cache, (char *)p, &status))
        return status;
    mmi_slab_locate(cache->heap, p, &place);
    if (place.cache == cache)
        return mmi_slab_give(cache, place.slab, p, "mm_slab_free", caller);
    return mmi_slab_refuse(cache->heap, "mm_slab_free",
                           place.start != NULL ? "free of another cache's object" : "wild free",
                           MM_ERR_INVALID, place.cache, place.start, p);
}

MM_SLAB_API enum mm_status mmi_slab_free_slow(struct mm_slab_cache *cache, void *p)
{
    return mmi_slab_free_by(cache, p, MMI_SLAB_CALLER);
}

MM_SLAB_API enum mm_status mmi_slab_kfree_sized_slow(struct mm_slab_heap *heap, void *p,
                                                     size_t size)
{
    struct mmi_slab_place place;
    enum mm_status status = MM_ERR_NOENT;

    if (size <= 8 && mmi_slab_free_between(&heap->cls[0], (char *)p, &status))
        return status;
    if (size <= MM_SLAB_MAX && mmi_slab_free_run_of(heap, p, mmi_slab_class(size), &status))
        return status;
    if (size > MM_SLAB_MAX && size <= PTRDIFF_MAX)
        status =
            mmi_slab_large_free(heap, p, mmi_slab_large_bytes(heap, size), "mm_slab_kfree_sized");
    if (status != MM_ERR_NOENT)
        return status;
    mmi_slab_locate(heap, p, &place);
    if (size <= MM_SLAB_MAX && place.cache == &heap->cls[mmi_slab_class(size)])
        return mmi_slab_give(place.cache, place.slab, p, "mm_slab_kfree_sized", MMI_SLAB_CALLER);
    return mmi_slab_refuse(heap, "mm_slab_kfree_sized",
                           place.start != NULL ? "free with a wrong size" : "wild free",
                           MM_ERR_INVALID, place.cache, place.start, p);
}

MM_SLAB_API enum mm_status mmi_slab_twice(struct mm_slab_heap *heap, void *p)
{
    return mmi_slab_refuse(heap, "mm_slab_kfree", "double free", MM_ERR_INVALID,
                           mmi_slab_cache_of(p), (char *)p, p);
}

static bool mmi_slab_wastes(size_t usable, size_t size)
{
    return usable > 128 && size <= usable / 2;
}

/* A change of size in place, if that wastes no more than half or `anyway`; false if the object has
 * to move, as a large one with a red zone. */
static bool mmi_slab_resize(const struct mm_slab_heap *heap, const struct mmi_slab_place *place,
                            char *p, size_t size, unsigned flags, bool anyway)
{
    const struct mm_slab_cache *cache = place->cache;
    const size_t usable = cache != NULL ? cache->size : place->bytes;

    if (cache == NULL && (heap->flags & MM_SLAB_DEBUG_ZONES))
        return false;
    if (size > usable || (!anyway && mmi_slab_wastes(usable, size)))
        return false;
    MM_SLAB_UNPOISON(p, usable);
    if (cache != NULL && (flags & MM_SLAB_ZERO) && (cache->flags & MM_SLAB_DEBUG_ALL) &&
        size > place->bytes)
        (void)MM_SLAB_MEMSET(p + place->bytes, 0, size - place->bytes);
    MM_SLAB_POISON(p + size, usable - size);
    if (cache != NULL)
        mmi_slab_debug_resize(cache, p, size);
    return true;
}

/* What p is, an object that may change its size; a red zone is looked at before it moves. */
static bool mmi_slab_resizable(struct mm_slab_heap *heap, void *p, struct mmi_slab_place *place)
{
    mmi_slab_locate(heap, p, place);
    if (!place->live || place->start != p ||
        (place->cache != NULL && place->cache->kind != MMI_SLAB_CLASS)) {
        (void)mmi_slab_refuse(heap, "mm_slab_krealloc", "krealloc of no object", MM_ERR_INVALID,
                              place->cache, place->start, p);
        return false;
    }
    return place->cache == NULL || !(place->cache->flags & MM_SLAB_DEBUG_ALL) ||
           mmi_slab_zones_whole(place->cache, place->start, "mm_slab_krealloc");
}

static void *mmi_slab_krealloc(struct mm_slab_heap *heap, void *p, size_t size, size_t align,
                               unsigned flags, uintptr_t caller)
{
    struct mmi_slab_place place;
    bool stays;
    void *q;

    if (p == NULL)
        return mmi_slab_aligned(heap, size, align, flags, caller);
    if (!mm_is_pow2(align) || !mmi_slab_resizable(heap, p, &place))
        return NULL;
    stays = ((uintptr_t)p & (align - 1)) == 0;
    if (stays && mmi_slab_resize(heap, &place, (char *)p, size, flags, false))
        return p;
    q = mmi_slab_aligned(heap, size, align, flags, caller);
    if (q == NULL)
        return stays && mmi_slab_resize(heap, &place, (char *)p, size, flags, true) ? p : NULL;
    MM_SLAB_UNPOISON(p, place.bytes);
    (void)MM_SLAB_MEMCPY(q, p, size < place.bytes ? size : place.bytes);
    (void)mmi_slab_kfree_any(heap, p, "mm_slab_krealloc", caller);
    return q;
}

MM_SLAB_API void *mm_slab_krealloc_aligned(struct mm_slab_heap *heap, void *p, size_t size,
                                           size_t align, unsigned flags)
{
    return mmi_slab_krealloc(heap, p, size, align, flags, MMI_SLAB_CALLER);
}

MM_SLAB_API void *mm_slab_krealloc(struct mm_slab_heap *heap, void *p, size_t size, unsigned flags)
{
    return mmi_slab_krealloc(heap, p, size, 1, flags, MMI_SLAB_CALLER);
}

MM_SLAB_API size_t mm_slab_ksize(struct mm_slab_heap *heap, const void *p)
{
    struct mmi_slab_place place;

    if (p == NULL)
        return 0;
    mmi_slab_locate(heap, p, &place);
    return place.live && place.start == p ? place.bytes : 0;
}

static MM_NOINLINE size_t mmi_slab_usable_slow(struct mm_slab_heap *heap, const void *p)
{
    const struct mm_slab_cache *cls;
    uintptr_t offset;

    if (p == NULL)
        return 0;
    if (!mmi_slab_trusted(heap, p) || !mmi_slab_marked(p, mmi_slab_token(heap), &offset))
        return mm_slab_ksize(heap, p);
    cls = mmi_slab_tagged(heap, p); /* only shared slabs have marks without a class's size */
    return cls != NULL ? cls->size : 0;
}

/* Of the slab it reads the first line and, if the slab is shared, a tag. */
MM_SLAB_API size_t mm_slab_usable(struct mm_slab_heap *heap, const void *p)
{
    uintptr_t offset = 0;
    size_t bytes = 0;
    if (MM_LIKELY(p != NULL && mmi_slab_trusted(heap, p) &&
                  mmi_slab_marked(p, mmi_slab_token(heap), &offset)))
        bytes = heap->class_bytes[offset / (16 * sizeof(uintptr_t))];
    return MM_LIKELY(bytes != 0) ? bytes : mmi_slab_usable_slow(heap, p);
}

/* Up to n objects out of the CPU's arrays, refilled as often as it takes. Fewer: the cache has no
 * more, or no arrays here. */
static size_t mmi_slab_take_run(struct mm_slab_cache *cache, void **p, size_t n)
{
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t *l;
    size_t got = 0;

    while (got < n) {
        size_t have = 0;
        MM_SLAB_CPU_PIN(pin);
        l = mmi_slab_arrays(cache);
        if (l != NULL && (mmi_slab_ready(l) != 0 || mmi_slab_refill(cache, l))) {
            have = (size_t)mmi_slab_ready(l);
            if (have > n - got)
                have = n - got;
            (void)MM_SLAB_MEMCPY(p + got, l + (intptr_t)l[MMI_SLAB_POP], have * sizeof *p);
            mm_store(&l[MMI_SLAB_POP], l[MMI_SLAB_POP] + have);
        }
        MM_SLAB_CPU_UNPIN(pin);
        if (have == 0)
            break;
        got += have;
    }
    return got;
}

static size_t mmi_slab_bulk(struct mm_slab_cache *cache, size_t size, unsigned flags, void **p,
                            size_t n, uintptr_t caller)
{
    size_t got = 0, i;

    while (got < n) {
        const size_t more = mmi_slab_take_run(cache, p + got, n - got);
        if (MMI_SLAB_SANITIZE || (flags & MM_SLAB_ZERO))
            for (i = got; i < got + more; i++)
                mmi_slab_hand_out(p[i], size, cache->size, flags);
        got += more;
        if (got == n)
            break;
        p[got] = mmi_slab_get_soon(cache, size, flags, caller);
        if (p[got] == NULL)
            break;
        got++;
    }
    return got;
}

MM_SLAB_API size_t mm_slab_kmalloc_bulk(struct mm_slab_heap *heap, size_t size, unsigned flags,
                                        void **p, size_t n)
{
    size_t i;

    if (size <= MM_SLAB_MAX)
        return mmi_slab_bulk(&heap->cls[mmi_slab_class(size)], size, flags, p, n, MMI_SLAB_CALLER);
    for (i = 0; i < n; i++) {
        p[i] = mmi_slab_large(heap, size, MM_SLAB_BYTES, flags, MMI_SLAB_CALLER);
        if (p[i] == NULL)
            break;
    }
    return i;
}

/* May p be freed into the CPU's arrays, as far as its mark tells? */
static bool mmi_slab_plain(struct mm_slab_heap *heap, const void *p, uintptr_t token,
                           uintptr_t *offset)
{
    return p != NULL && mmi_slab_trusted(heap, p) && mmi_slab_marked(p, token, offset) &&
           mmi_slab_starts(p);
}

/* Do two objects share a mark, and is that all that is asked? */
static bool mmi_slab_alike(uintptr_t a, uintptr_t b)
{
    return !MMI_SLAB_EXACT && ((a ^ b) & ~(uintptr_t)(MM_SLAB_BYTES - 64)) == 0;
}

/* Frees p[0], which is plain, and on into the arrays l, while they have room and the objects have
 * its mark. Returns how many. */
static size_t mmi_slab_push_run(struct mm_slab_heap *heap, uintptr_t *l, uintptr_t token,
                                uintptr_t offset, void *const *p, size_t n)
{
    const uintptr_t room = mmi_slab_room(l);
    uintptr_t *top = l + room, object = (uintptr_t)p[0], last, at = offset;
    size_t i = 0;

    if (n > room)
        n = room;
    if (object == *top)
        return 0;
    do {
        mmi_slab_hide_in(l, p[i]);
        *--top = object;
        last = object;
        if (++i == n)
            break;
        object = (uintptr_t)p[i];
    } while (object != last && (mmi_slab_alike(object, last) ||
                                (mmi_slab_plain(heap, p[i], token, &at) && at == offset)));
    mmi_slab_set_room(l, room - i);
    return i;
}

/* The arrays for an object whose mark has this offset; NULL: none on this CPU. Pinned. */
MMI_SLAB_PRIVATE uintptr_t *mmi_slab_arrays_for(struct mm_slab_heap *heap,
                                                struct mm_slab_cache *cache, uintptr_t offset)
{
    struct mm_slab_cpu *self;
    (void)heap; /* where MM_SLAB_SELF does not look at it */
    if (cache != NULL)
        return mmi_slab_arrays(cache);
    self = MM_SLAB_SELF(heap);
    return self != NULL ? (uintptr_t *)(void *)((char *)self + offset) : NULL;
}

/* Frees p[0] and on into the CPU's arrays, of one cache or (NULL) of the classes. Stops after a
 * full array, and before what needs more thought. Returns how many. */
static size_t mmi_slab_give_run(struct mm_slab_heap *heap, struct mm_slab_cache *cache,
                                void *const *p, size_t n)
{
    const uintptr_t token =
        mmi_slab_token(cache != NULL ? (const void *)cache : (const void *)heap);
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t offset = 0, *l;
    bool trim = false, full = false;
    size_t i = 0, done = 1;

    MM_SLAB_CPU_PIN(pin);
    while (done != 0 && !full && i < n && mmi_slab_plain(heap, p[i], token, &offset)) {
        l = mmi_slab_arrays_for(heap, cache, offset);
        done = l != NULL ? mmi_slab_push_run(heap, l, token, offset, p + i, n - i) : 0;
        i += done;
        full = l != NULL && mmi_slab_room(l) == 0;
        if (full)
            trim = mmi_slab_flush(l);
    }
    MM_SLAB_CPU_UNPIN(pin);
    if (trim)
        mmi_slab_trim(heap);
    return i;
}

/* Frees p, which needs more thought. */
static enum mm_status mmi_slab_free_one(struct mm_slab_heap *heap, struct mm_slab_cache *cache,
                                        void *p, uintptr_t caller)
{
    const uintptr_t token =
        mmi_slab_token(cache != NULL ? (const void *)cache : (const void *)heap);
    uintptr_t offset;

    if (p == NULL)
        return MM_OK;
    if (mmi_slab_plain(heap, p, token, &offset))
        return cache != NULL ? mm_slab_free(cache, p) : mm_slab_kfree(heap, p);
    return cache != NULL ? mmi_slab_free_by(cache, p, caller) : mmi_slab_kfree_by(heap, p, caller);
}

static enum mm_status mmi_slab_free_run(struct mm_slab_heap *heap, struct mm_slab_cache *cache,
                                        void *const *p, size_t n, uintptr_t caller)
{
    enum mm_status first = MM_OK, status;
    size_t i = 0;

    while (i < n) {
        const size_t done = mmi_slab_give_run(heap, cache, p + i, n - i);
        i += done;
        if (done == 0) {
            status = mmi_slab_free_one(heap, cache, p[i], caller);
            first = first == MM_OK ? status : first;
            i++;
        }
    }
    return first;
}

MM_SLAB_API enum mm_status mm_slab_kfree_bulk(struct mm_slab_heap *heap, void *const *p, size_t n)
{
    return mmi_slab_free_run(heap, NULL, p, n, MMI_SLAB_CALLER);
}

/* ---- Caches ---------------------------------------------------------------------------------- */

static bool mmi_slab_cache_config_good(const struct mm_slab_heap *heap,
                                       const struct mm_slab_cache_config *config)
{
    if (config->name == NULL || config->size == 0 || config->size > MM_SLAB_CACHE_MAX)
        return false;
    if (config->align > MM_SLAB_CACHE_MAX || (config->align & (config->align - 1)) != 0)
        return false;
    if (!mmi_slab_flags_known(config->flags) || !mmi_slab_flags_known(config->without))
        return false;
    if ((config->flags & MM_SLAB_TYPE_STABLE) && heap->hooks->grace_wait == NULL)
        return false;
    return config->copy_offset <= config->size &&
           config->copy_bytes <= config->size - config->copy_offset;
}

static void mmi_slab_enlist(struct mm_slab_cache *cache)
{
    struct mm_slab_heap *heap = cache->heap;
    MM_SLAB_LOCK_STATE_T state;

    MM_SLAB_LOCK(&heap->lock, state);
    cache->next = heap->caches;
    heap->caches = cache;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

/* Takes the cache out of the heap's list, when nobody walks over it. */
static void mmi_slab_unlist(struct mm_slab_cache *cache)
{
    struct mm_slab_heap *heap = cache->heap;
    MM_SLAB_LOCK_STATE_T state;
    bool walked;

    do {
        struct mm_slab_cache **at = &heap->caches;
        MM_SLAB_LOCK(&heap->lock, state);
        walked = cache->walkers != 0;
        while (!walked && *at != cache)
            at = &(*at)->next;
        if (!walked)
            *at = cache->next;
        MM_SLAB_UNLOCK(&heap->lock, state);
    } while (walked);
}

MM_SLAB_API enum mm_status mm_slab_cache_init(struct mm_slab_cache *cache,
                                              struct mm_slab_heap *heap,
                                              const struct mm_slab_cache_config *config)
{
    size_t align;

    if (!mmi_slab_cache_config_good(heap, config))
        return MM_ERR_INVALID;
    mmi_slab_zero(cache, sizeof *cache);
    cache->flags = config->flags | (heap->flags & ~config->without);
    align = config->align > 8 ? config->align : config->size <= 8 ? 8 : 16;
    if (config->align != 0 && config->align <= 8)
        align = 8;
    if (!mmi_slab_lay_out(cache, mmi_slab_extent(config->size), align))
        return MM_ERR_INVALID;
    cache->size = (uint32_t)config->size;
    cache->heap = heap;
    cache->kind = MMI_SLAB_NAMED;
    cache->token = mmi_slab_token(cache);
    cache->offset = 24; /* not the heap's arrays: a mark like any other */
    cache->random = heap->random | 1;
    cache->quota = config->quota;
    cache->copy_offset = config->copy_offset;
    cache->copy_bytes = config->copy_bytes;
    cache->construct = config->construct;
    cache->destruct = config->destruct;
    cache->ctx = config->ctx;
    MM_SLAB_LOCK_INIT(&cache->lock);
    mmi_slab_set_name(cache, config->name, 0);
    mmi_slab_enlist(cache);
    return MM_OK;
}

MM_SLAB_API enum mm_status mm_slab_cache_destroy(struct mm_slab_cache *cache, size_t *live)
{
    struct mm_slab_heap *heap = cache->heap;
    MM_SLAB_LOCK_STATE_T state;
    size_t n, finishing;
    unsigned cpu;

    if (heap->hooks->grace_wait != NULL)
        mm_slab_rcu_barrier(heap);
    mmi_slab_unlist(cache); /* first: a CPU that walks empties its arrays, here all are emptied */
    mmi_slab_unload_all(cache);
    n = mmi_slab_live(cache);
    if (live != NULL)
        *live = n;
    if (n != 0) {
        mmi_slab_enlist(cache);
        return MM_ERR_BUSY;
    }
    mmi_slab_dissolve(cache);
    do { /* the last slabs may wait for readers, and another CPU be at their destructors */
        if (cache->flags & MM_SLAB_TYPE_STABLE)
            mm_slab_rcu_barrier(heap);
        MM_SLAB_LOCK(&heap->lock, state);
        finishing = cache->finishing;
        MM_SLAB_UNLOCK(&heap->lock, state);
    } while (finishing != 0);
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++)
        if (cache->cpu[cpu] != NULL)
            mmi_slab_inner_free(heap, MMI_SLAB_ARRAYS,
                                cache->cpu[cpu] - MMI_SLAB_ARRAY_AT(MM_SLAB_SLOTS));
    return MM_OK;
}

MM_SLAB_API void *mmi_slab_alloc_slow(struct mm_slab_cache *cache, unsigned flags)
{
    return mmi_slab_get_soon(cache, cache->size, flags, MMI_SLAB_CALLER);
}

MM_SLAB_API size_t mm_slab_alloc_bulk(struct mm_slab_cache *cache, unsigned flags, void **p,
                                      size_t n)
{
    return mmi_slab_bulk(cache, cache->size, flags, p, n, MMI_SLAB_CALLER);
}

MM_SLAB_API enum mm_status mm_slab_free_bulk(struct mm_slab_cache *cache, void *const *p, size_t n)
{
    return mmi_slab_free_run(cache->heap, cache, p, n, MMI_SLAB_CALLER);
}

MM_SLAB_API void mm_slab_cache_set_quota(struct mm_slab_cache *cache, size_t bytes)
{
    MM_SLAB_LOCK_STATE_T state;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    cache->quota = bytes;
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
}

/* ---- Readers without locks ------------------------------------------------------------------- */

/* Adds p to the open batch; false if there is none with room. */
static bool mmi_slab_defer(struct mm_slab_heap *heap, void *p, struct mmi_slab_batch **full)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_batch *b;
    bool done = false;

    MM_SLAB_LOCK(&heap->lock, state);
    b = heap->open;
    if (b != NULL) {
        b->slot[b->n++] = (uintptr_t)p;
        heap->deferred++;
        done = true;
        if (b->n == MM_SLAB_SLOTS) {
            heap->open = NULL;
            heap->releasing++;
            *full = b;
        }
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    return done;
}

/* A batch that is closed, and counted in `releasing`, begins to wait. */
static void mmi_slab_await(struct mm_slab_heap *heap, struct mmi_slab_batch *b)
{
    MM_SLAB_LOCK_STATE_T state;

    b->grace = heap->hooks->grace_start(heap->hooks->ctx);
    b->next = NULL;
    MM_SLAB_LOCK(&heap->lock, state);
    *(heap->waiting != NULL ? &heap->waiting_last->next : &heap->waiting) = b;
    heap->waiting_last = b;
    heap->releasing--;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

MM_SLAB_API enum mm_status mm_slab_free_rcu(struct mm_slab_heap *heap, void *p)
{
    struct mmi_slab_batch *b, *full = NULL;
    struct mmi_slab_place place;
    MM_SLAB_LOCK_STATE_T state;

    if (p == NULL)
        return MM_OK;
    if (heap->hooks->grace_wait == NULL)
        return MM_ERR_INVALID;
    mmi_slab_locate(heap, p, &place);
    if (!place.live || place.start != p)
        return mmi_slab_refuse(heap, "mm_slab_free_rcu", "free of no object", MM_ERR_INVALID,
                               place.cache, place.start, p);
    while (!mmi_slab_defer(heap, p, &full)) {
        b = (struct mmi_slab_batch *)mmi_slab_inner_alloc(heap, MMI_SLAB_BATCHES, MM_SLAB_NOWAIT);
        if (b == NULL) {
            heap->hooks->grace_wait(heap->hooks->ctx);
            return mm_slab_kfree(heap, p);
        }
        b->n = 0;
        MM_SLAB_LOCK(&heap->lock, state);
        if (heap->open == NULL) {
            heap->open = b;
            b = NULL;
        }
        MM_SLAB_UNLOCK(&heap->lock, state);
        if (b != NULL)
            mmi_slab_inner_free(heap, MMI_SLAB_BATCHES, b);
    }
    if (full != NULL)
        mmi_slab_await(heap, full);
    return MM_OK;
}

/* Frees what a batch holds, and the batch. */
static void mmi_slab_release(struct mm_slab_heap *heap, struct mmi_slab_batch *b)
{
    MM_SLAB_LOCK_STATE_T state;
    uintptr_t i;

    for (i = 0; i < b->n; i++)
        (void)mm_slab_kfree(heap, (void *)b->slot[i]);
    MM_SLAB_LOCK(&heap->lock, state);
    heap->deferred -= b->n;
    MM_SLAB_UNLOCK(&heap->lock, state);
    mmi_slab_inner_free(heap, MMI_SLAB_BATCHES, b);
}

static void mmi_slab_released(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    MM_SLAB_LOCK(&heap->lock, state);
    heap->releasing--;
    MM_SLAB_UNLOCK(&heap->lock, state);
}

/* The open batch, if it holds anything, begins to wait. */
static void mmi_slab_close(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_batch *b;

    MM_SLAB_LOCK(&heap->lock, state);
    b = heap->open;
    heap->open = NULL;
    heap->releasing += b != NULL;
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (b != NULL)
        mmi_slab_await(heap, b);
}

static bool mmi_slab_over(const struct mm_slab_heap *heap, uintptr_t grace)
{
    return heap->hooks->grace_done(heap->hooks->ctx, grace);
}

/* Frees the oldest batch if its time is over. What waits stays in its list while the hook is asked,
 * where a barrier finds it. */
static bool mmi_slab_release_next(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_batch *b;
    uintptr_t grace = 0;

    MM_SLAB_LOCK(&heap->lock, state);
    b = heap->waiting;
    if (b != NULL)
        grace = b->grace;
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (b == NULL || !mmi_slab_over(heap, grace))
        return false;
    MM_SLAB_LOCK(&heap->lock, state);
    b = heap->waiting;
    if (b != NULL && b->grace == grace) {
        heap->waiting = b->next;
        heap->releasing++;
    } else {
        b = NULL; /* another CPU was faster */
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (b != NULL) {
        mmi_slab_release(heap, b);
        mmi_slab_released(heap);
    }
    return true;
}

/* The same for the slabs of type-stable caches. */
static bool mmi_slab_settle_next(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab *s;
    uintptr_t grace = 0;

    MM_SLAB_LOCK(&heap->lock, state);
    s = heap->stable;
    if (s != NULL)
        grace = s->grace;
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (s == NULL || !mmi_slab_over(heap, grace))
        return false;
    MM_SLAB_LOCK(&heap->lock, state);
    s = heap->stable;
    if (s != NULL && s->grace == grace) {
        heap->stable = s->next;
        heap->releasing++;
    } else {
        s = NULL;
    }
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (s != NULL) {
        s->next = NULL;
        mmi_slab_settle(heap, s);
        mmi_slab_released(heap);
    }
    return true;
}

MM_SLAB_API size_t mm_slab_rcu_poll(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    size_t left;

    if (heap->hooks->grace_done == NULL)
        return 0;
    mmi_slab_close(heap);
    while (mmi_slab_release_next(heap))
        continue;
    while (mmi_slab_settle_next(heap))
        continue;
    MM_SLAB_LOCK(&heap->lock, state);
    left = heap->deferred;
    MM_SLAB_UNLOCK(&heap->lock, state);
    return left;
}

MM_SLAB_API void mm_slab_rcu_barrier(struct mm_slab_heap *heap)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mmi_slab_batch *b;
    struct mmi_slab *s;

    if (heap->hooks->grace_wait == NULL)
        return;
    mmi_slab_close(heap);
    for (;;) {
        MM_SLAB_LOCK(&heap->lock, state);
        if (heap->releasing == 0)
            break;
        MM_SLAB_UNLOCK(&heap->lock, state);
        MM_CPU_RELAX();
    }
    b = heap->waiting;
    s = heap->stable;
    heap->waiting = NULL;
    heap->stable = NULL;
    heap->releasing++;
    MM_SLAB_UNLOCK(&heap->lock, state);
    if (b != NULL || s != NULL)
        heap->hooks->grace_wait(heap->hooks->ctx);
    while (b != NULL) {
        struct mmi_slab_batch *next = b->next;
        mmi_slab_release(heap, b);
        b = next;
    }
    mmi_slab_settle(heap, s);
    mmi_slab_released(heap);
}

/* ---- Memory back ----------------------------------------------------------------------------- */

/* The cache after `cache` in the heap's list, as mm_slab_next_cache, while caches come and go: the
 * one that is returned stays until the next step. */
static struct mm_slab_cache *mmi_slab_walk(struct mm_slab_heap *heap, struct mm_slab_cache *cache)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mm_slab_cache *next;

    MM_SLAB_LOCK(&heap->lock, state);
    next = cache != NULL ? cache->next : heap->caches;
    if (cache != NULL)
        cache->walkers--;
    if (next != NULL)
        next->walkers++;
    MM_SLAB_UNLOCK(&heap->lock, state);
    return next;
}

/* Empties this CPU's arrays of the cache. */
static void mmi_slab_unload_own(struct mm_slab_cache *cache)
{
    MM_SLAB_CPU_STATE_T pin;
    uintptr_t *l;

    MM_SLAB_CPU_PIN(pin);
    l = mmi_slab_arrays(cache);
    if (l != NULL)
        mmi_slab_unload(cache, l);
    MM_SLAB_CPU_UNPIN(pin);
}

/* Bytes of the pages of a slab that hold no live object and whose content is not given away yet;
 * they are marked as such, and as *pages. */
static size_t mmi_slab_purgeable(struct mmi_slab *s, uintptr_t *pages)
{
    const size_t header = sizeof *s + mmi_slab_bit_words(s->count) * sizeof(uintptr_t) * 2;
    uintptr_t busy = mm_mask((unsigned)((header + MMI_SLAB_GRANULE - 1) / MMI_SLAB_GRANULE));
    uint32_t n;

    for (n = 0; n < s->count; n++) {
        if (!mmi_slab_test(mmi_slab_bits(s), n)) {
            const size_t at = s->first + (size_t)n * s->stride;
            const unsigned a = (unsigned)(at / MMI_SLAB_GRANULE);
            const unsigned z = (unsigned)((at + s->stride - 1) / MMI_SLAB_GRANULE);
            busy |= mm_mask(z + 1) & ~mm_mask(a);
        }
    }
    *pages = ~busy & ~s->purged & mm_mask((unsigned)(MM_SLAB_BYTES / MMI_SLAB_GRANULE));
    s->purged |= *pages;
    return mm_popcount(*pages) * MMI_SLAB_GRANULE;
}

/* Purges free pages of slabs that have live objects. */
static size_t mmi_slab_purge(struct mm_slab_cache *cache)
{
    const struct mm_slab_hooks *hooks = cache->heap->hooks;
    MM_SLAB_LOCK_STATE_T state;
    size_t given = 0, left;
    struct mmi_slab *s;

    if (hooks->purge == NULL || cache->construct != NULL || MMI_SLAB_SANITIZE ||
        (cache->flags & (MM_SLAB_DEBUG_ALL | MM_SLAB_TYPE_STABLE)) != 0)
        return 0;
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    for (left = cache->slabs; left > 0 && (s = cache->partial.first) != NULL; left--) {
        uintptr_t pages;
        mmi_slab_unlink(&cache->partial, s);
        mmi_slab_link(&cache->partial, s, false);
        given += mmi_slab_purgeable(s, &pages);
        while (pages != 0) { /* with the lock, or the pages might be handed out meanwhile */
            const unsigned a = mm_ctz(pages);
            const unsigned n = ~(pages >> a) != 0 ? mm_ctz(~(pages >> a)) : MM_WORD_BITS;
            hooks->purge(hooks->ctx, (char *)s + a * MMI_SLAB_GRANULE, n * MMI_SLAB_GRANULE);
            pages &= ~(mm_mask(n) << a);
        }
    }
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    return given;
}

/* What each CPU is asked to do. */
static void mmi_slab_unload_here(void *cache)
{
    mmi_slab_unload_own((struct mm_slab_cache *)cache);
}

static void mmi_slab_unload_here_all(void *arg)
{
    struct mm_slab_heap *heap = (struct mm_slab_heap *)arg;
    struct mm_slab_cache *cache = NULL;

    while ((cache = mmi_slab_walk(heap, cache)) != NULL)
        mmi_slab_unload_own(cache);
}

/* A cache with debug flags parts with the free slab that it kept (C2). */
static void mmi_slab_part(struct mm_slab_cache *cache)
{
    struct mmi_slab_after after = {NULL, {0}, 0};
    struct mmi_slab *s;
    MM_SLAB_LOCK_STATE_T state;

    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    for (s = cache->partial.first; s != NULL && s->free != s->count;)
        s = s->next;
    if (s != NULL)
        mmi_slab_retire(cache, s, &after);
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
    (void)mmi_slab_finish(cache, &after);
}

/* All that a cache can give when the CPUs' arrays are empty. */
static size_t mmi_slab_shrink_rest(struct mm_slab_cache *cache)
{
    size_t given;

    mmi_slab_unload_depot(cache);
    (void)mmi_slab_wake_all(cache);
    if (cache->flags & MM_SLAB_DEBUG_ALL)
        mmi_slab_part(cache);
    given = mmi_slab_trim_to(cache->heap, 0);
    return given + mmi_slab_purge(cache);
}

MM_SLAB_API size_t mm_slab_cache_shrink(struct mm_slab_cache *cache)
{
    const struct mm_slab_hooks *hooks = cache->heap->hooks;
    size_t given = 0;

    for (; cache != NULL; cache = cache->pool) {
        if (hooks->each_cpu != NULL)
            hooks->each_cpu(hooks->ctx, mmi_slab_unload_here, cache);
        mmi_slab_unload_own(cache);
        given += mmi_slab_shrink_rest(cache);
    }
    return given;
}

MM_SLAB_API size_t mm_slab_shrink(struct mm_slab_heap *heap)
{
    struct mm_slab_cache *cache = NULL;
    size_t given = 0;

    if (heap->hooks->grace_done != NULL)
        (void)mm_slab_rcu_poll(heap);
    if (heap->hooks->each_cpu != NULL)
        heap->hooks->each_cpu(heap->hooks->ctx, mmi_slab_unload_here_all, heap);
    mmi_slab_unload_here_all(heap);
    while ((cache = mmi_slab_walk(heap, cache)) != NULL)
        given += mmi_slab_shrink_rest(cache);
    return given + mmi_slab_trim_to(heap, 0); /* what the caches of its own had for the others */
}

MM_SLAB_API enum mm_status mm_slab_drain(struct mm_slab_heap *heap, unsigned cpu)
{
    struct mm_slab_cache *cache = NULL;
    MM_SLAB_CPU_STATE_T pin;

    if (cpu >= MM_CPU_MAX)
        return MM_ERR_INVALID;
    while ((cache = mmi_slab_walk(heap, cache)) != NULL) {
        uintptr_t *l = __atomic_load_n(&cache->cpu[cpu], __ATOMIC_ACQUIRE);
        MM_SLAB_CPU_PIN(pin);
        if (l != NULL)
            mmi_slab_unload(cache, l);
        MM_SLAB_CPU_UNPIN(pin);
    }
    mmi_slab_trim(heap);
    return MM_OK;
}

/* ---- Questions ------------------------------------------------------------------------------- */

MM_SLAB_API enum mm_status mm_slab_bounds(struct mm_slab_heap *heap, const void *p, void **start,
                                          size_t *bytes)
{
    struct mmi_slab_place place;

    mmi_slab_locate(heap, p, &place);
    if (place.start == NULL && place.cache == NULL)
        return MM_ERR_NOENT;
    if (!place.live || (size_t)((const char *)p - place.start) >= place.bytes)
        return MM_ERR_INVALID;
    *start = place.start;
    *bytes = place.bytes;
    return MM_OK;
}

MM_SLAB_API enum mm_status mm_slab_check_copy(struct mm_slab_heap *heap, const void *p,
                                              size_t bytes)
{
    struct mmi_slab_place place;
    size_t at, from = 0, to;

    mmi_slab_locate(heap, p, &place);
    if (place.start == NULL && place.cache == NULL)
        return MM_ERR_NOENT;
    if (!place.live)
        return MM_ERR_INVALID;
    to = place.bytes;
    if (place.cache != NULL && place.cache->copy_bytes != 0) {
        from = place.cache->copy_offset;
        to = from + place.cache->copy_bytes;
    }
    at = (size_t)((const char *)p - place.start);
    return at >= from && at <= to && bytes <= to - at ? MM_OK : MM_ERR_PERM;
}

MM_SLAB_API void mm_slab_get_stats(struct mm_slab_heap *heap, struct mm_slab_stats *stats)
{
    MM_SLAB_LOCK_STATE_T state;

    MM_SLAB_LOCK(&heap->lock, state);
    stats->bytes = heap->bytes;
    stats->peak = heap->peak;
    stats->quota = heap->quota;
    stats->slabs = heap->slabs;
    stats->empty = heap->empties;
    stats->large = heap->large;
    stats->large_bytes = heap->large_bytes;
    stats->deferred = heap->deferred;
    stats->failures = heap->failures;
    stats->misuse = __atomic_load_n(&heap->misuse, __ATOMIC_RELAXED);
    MM_SLAB_UNLOCK(&heap->lock, state);
}

MM_SLAB_API void mm_slab_cache_get_stats(struct mm_slab_cache *cache,
                                         struct mm_slab_cache_stats *stats)
{
    const struct mmi_slab_batch *b;
    MM_SLAB_LOCK_STATE_T state;
    MM_SLAB_CPU_STATE_T pin;
    unsigned cpu;
    bool work;

    MM_SLAB_CPU_PIN(pin);
    work = cache->pool != NULL && mmi_slab_sort_own(cache->pool);
    MM_SLAB_CPU_UNPIN(pin);
    if (work)
        mmi_slab_trim(cache->heap);
    MM_SLAB_LOCK(mmi_slab_guard(cache), state);
    stats->name = cache->name;
    stats->size = cache->size;
    stats->stride = cache->stride;
    stats->slabs = cache->slabs;
    stats->objects = cache->slabs * cache->count + cache->runs;
    stats->bytes = cache->slabs * MM_SLAB_BYTES + cache->runs * cache->size;
    stats->quota = cache->quota;
    stats->refills = cache->refills;
    stats->flushes = cache->flushes;
    stats->failures = cache->failures;
    stats->misuse = __atomic_load_n(&cache->misuse, __ATOMIC_RELAXED);
    stats->cached = 0;
    for (b = cache->depot; b != NULL; b = b->next)
        stats->cached += b->n;
    for (cpu = 0; cpu < MM_CPU_MAX; cpu++) {
        const uintptr_t *l = __atomic_load_n(&cache->cpu[cpu], __ATOMIC_ACQUIRE);
        if (l != NULL)
            stats->cached += mmi_slab_ready(l) + cache->slots - mmi_slab_room(l);
    }
    stats->active = stats->objects - cache->free;
    stats->active -= stats->cached < stats->active ? stats->cached : stats->active;
    MM_SLAB_UNLOCK(mmi_slab_guard(cache), state);
}

MM_SLAB_API struct mm_slab_cache *mm_slab_next_cache(struct mm_slab_heap *heap,
                                                     const struct mm_slab_cache *cache)
{
    MM_SLAB_LOCK_STATE_T state;
    struct mm_slab_cache *next;

    MM_SLAB_LOCK(&heap->lock, state);
    next = cache != NULL ? cache->next : heap->caches;
    MM_SLAB_UNLOCK(&heap->lock, state);
    return next;
}

/* Appends text to a line, right-aligned in `width`. */
static size_t mmi_slab_column(char *line, size_t at, const char *text, size_t width, bool right)
{
    size_t n = 0, pad;

    while (text[n] != 0)
        n++;
    pad = n < width ? width - n : 0;
    for (; right && pad > 0; pad--)
        line[at++] = ' ';
    for (n = 0; text[n] != 0; n++)
        line[at++] = text[n];
    for (; !right && pad > 0; pad--)
        line[at++] = ' ';
    line[at] = 0;
    return at;
}

MM_SLAB_API void mm_slab_dump(struct mm_slab_heap *heap, void (*print)(void *ctx, const char *line),
                              void *ctx)
{
    struct mm_slab_cache *cache = NULL;
    struct mm_slab_cache_stats stats;
    char line[160], digits[24];
    size_t i, at;

    print(ctx, "name                       active    objects     size per-slab    slabs");
    while ((cache = mmi_slab_walk(heap, cache)) != NULL) {
        uintptr_t column[5];
        mm_slab_cache_get_stats(cache, &stats);
        if (stats.objects == 0)
            continue;
        column[0] = stats.active;
        column[1] = stats.objects;
        column[2] = stats.size;
        column[3] = cache->count;
        column[4] = stats.slabs;
        at = mmi_slab_column(line, 0, stats.name, MM_SLAB_NAME_MAX - 1, false);
        for (i = 0; i < 5; i++)
            at = mmi_slab_column(line, at, mmi_slab_digits(digits + 23, column[i], 10),
                                 i < 2 ? 10 : 9, true);
        print(ctx, line);
    }
}

/* ---- Leaks and checks ------------------------------------------------------------------------ */

static void mmi_slab_tell_slab(struct mm_slab_cache *cache, struct mmi_slab *s,
                               void (*fn)(void *ctx, const struct mm_slab_object *object),
                               void *ctx)
{
    const bool debug = (cache->flags & MM_SLAB_DEBUG_ALL) != 0;
    struct mm_slab_object object;
    uint32_t n;

    for (n = 0; n < s->count; n++) {
        if (mmi_slab_test(mmi_slab_bits(s), n) || (debug && mmi_slab_test(mmi_slab_held(s), n)))
            continue;
        if (s->cache != cache && mmi_slab_class_at(mmi_slab_object(s, n)) != cache)
            continue;
        object.cache = cache;
        object.object = mmi_slab_object(s, n);
        object.size = cache->size;
        object.caller = 0;
        object.cpu = 0;
        if (debug)
            object.size = mmi_slab_track_of(cache, mmi_slab_object(s, n))->size;
        if (cache->flags & MM_SLAB_DEBUG_USER) {
            object.caller = mmi_slab_track_of(cache, mmi_slab_object(s, n))->alloc_by;
            object.cpu = mmi_slab_track_of(cache, mmi_slab_object(s, n))->alloc_cpu;
        }
        fn(ctx, &object);
    }
}

MM_SLAB_API size_t mm_slab_cache_leaks(struct mm_slab_cache *cache,
                                       void (*fn)(void *ctx, const struct mm_slab_object *object),
                                       void *ctx)
{
    const struct mm_slab_cache *owner;
    struct mmi_slab *s;

    mmi_slab_unload_all(cache);
    for (owner = cache; owner != NULL; owner = owner->pool) {
        for (s = owner->partial.first; s != NULL; s = s->next)
            mmi_slab_tell_slab(cache, s, fn, ctx);
        for (s = owner->full.first; s != NULL; s = s->next)
            mmi_slab_tell_slab(cache, s, fn, ctx);
    }
    return mmi_slab_live(cache);
}

MM_SLAB_API size_t mm_slab_leaks(struct mm_slab_heap *heap,
                                 void (*fn)(void *ctx, const struct mm_slab_object *object),
                                 void *ctx)
{
    struct mm_slab_cache *cache = NULL;
    const struct mmi_slab_entry *e;
    struct mm_slab_object object;
    size_t n = 0, i;

    while ((cache = mm_slab_next_cache(heap, cache)) != NULL)
        if (cache->kind < MMI_SLAB_INNER)
            n += mm_slab_cache_leaks(cache, fn, ctx);
    for (i = 0; i < heap->buckets; i++) {
        for (e = heap->table[i]; e != NULL; e = e->next) {
            if (e->bytes == 0)
                continue;
            object.cache = NULL;
            object.object = (void *)e->base;
            object.size = e->size;
            object.caller = e->caller;
            object.cpu = e->cpu;
            fn(ctx, &object);
            n++;
        }
    }
    return n;
}

/* The entry of the table for a slab; NULL if there is none. */
static bool mmi_slab_registered(struct mm_slab_heap *heap, const struct mmi_slab *s)
{
    return mmi_slab_find(heap, s) == s;
}

/* S1 and S2. */
static bool mmi_slab_sound_header(const struct mm_slab_cache *cache, struct mmi_slab *s)
{
    const uintptr_t place = mmi_slab_place((const void *)(cache->token - 1), cache->offset);
    const uintptr_t *bits = mmi_slab_bits(s);
    const uint32_t words = mmi_slab_bit_words(s->count), last = s->count & (MM_WORD_BITS - 1);
    uint32_t n, set = 0;

    for (n = 0; n < MMI_SLAB_MARKS; n++) {
        const bool legal = mmi_slab_marks(cache, s, n);
        if (s->mark[n].token != (legal ? cache->token : 0) ||
            s->mark[n].place != (legal ? place : 0))
            return false;
    }
    for (n = 0; n < words; n++) {
        set += mm_popcount(bits[n]);
        if (n < s->hint && bits[n] != 0)
            return false;
    }
    return set == s->free && (last == 0 || (bits[words - 1] & ~mm_mask(last)) == 0);
}

/* S3. */
static bool mmi_slab_sound_tags(const struct mm_slab_cache *pool, struct mmi_slab *s)
{
    const uint16_t *tag = mmi_slab_share_of(s)->tag;
    uint32_t w, at, end, taken = 0;

    for (w = 0; w < MM_SLAB_BYTES / MMI_SLAB_WINDOW; w++) {
        const struct mm_slab_cache *cls = &pool->heap->cls[tag[w] / 8u % MM_SLAB_CLASSES];
        if (tag[w] == 0)
            continue;
        if (tag[w] / 8u >= MM_SLAB_CLASSES || cls->pool != pool)
            return false;
        at = (w * MMI_SLAB_WINDOW + tag[w] % 8u * MMI_SLAB_UNIT - s->first) / MMI_SLAB_UNIT;
        end = at + cls->size / MMI_SLAB_UNIT;
        if (end > s->count || mmi_slab_next_bit(mmi_slab_bits(s), at, end, true) != end)
            return false;
        taken += end - at;
    }
    return taken == s->count - s->free;
}

/* S4. */
static bool mmi_slab_sound_rank(const struct mm_slab_cache *pool, struct mmi_slab *s)
{
    const struct mmi_slab_share *share = mmi_slab_share_of(s);
    const uintptr_t *bits = mmi_slab_bits(s);
    const struct mmi_slab *other;
    uint32_t at, end, largest = 0;

    for (at = mmi_slab_next_bit(bits, 0, s->count, true); at < s->count;
         at = mmi_slab_next_bit(bits, end, s->count, true)) {
        end = mmi_slab_next_bit(bits, at, s->count, false);
        largest = end - at > largest ? end - at : largest;
    }
    if (share->side >= MMI_SLAB_SIDES || share->largest != largest ||
        share->list != mmi_slab_holes_list(share->side, largest))
        return false;
    other = pool->heap->holes[share->list];
    while (other != NULL && other != s)
        other = mmi_slab_share_of(other)->next;
    return share->list == 0 || other == s;
}

static bool mmi_slab_sound(struct mm_slab_cache *cache, struct mmi_slab *s)
{
    return ((uintptr_t)s & (MM_SLAB_BYTES - 1)) == 0 && mmi_slab_registered(cache->heap, s) &&
           s->cache == cache && s->count == cache->count && s->stride == cache->stride &&
           mmi_slab_sound_header(cache, s) &&
           (cache->kind != MMI_SLAB_POOL ||
            (mmi_slab_sound_tags(cache, s) && mmi_slab_sound_rank(cache, s))) &&
           mmi_slab_sound_objects(cache, s, "mm_slab_check");
}

/* C2: a list and the slabs in it. Adds up their number and their free objects. */
static bool mmi_slab_sound_list(struct mm_slab_cache *cache, const struct mmi_slab_list *list,
                                bool full, size_t *slabs, size_t *free)
{
    const struct mmi_slab *before = NULL;
    struct mmi_slab *s;

    for (s = list->first; s != NULL; before = s, s = s->next) {
        if (!mmi_slab_sound(cache, s) || s->prev != before || (s->free == 0) != full)
            return false;
        if (s->free == s->count && (cache->slabs > 1 || !(cache->flags & MM_SLAB_DEBUG_ALL)))
            return false;
        *slabs += 1;
        *free += s->free;
        if (*slabs > cache->slabs)
            return false;
    }
    return list->first == NULL || list->last == before;
}

/* Sets (or clears) the bit of a cached object; false if that is no change, or no object. */
static bool mmi_slab_flip(struct mm_slab_cache *cache, uintptr_t object, bool set)
{
    struct mmi_slab *s = mmi_slab_of((const void *)object);
    uint32_t inside, n;
    uintptr_t *word, bit;

    if (!mmi_slab_registered(cache->heap, s) || (s->cache != cache && s->cache != cache->pool))
        return false;
    if (s->cache->kind == MMI_SLAB_POOL) {
        const struct mm_slab_cache *cls = mmi_slab_class_at((const void *)object);
        if (cls == NULL || (cls != cache && s->cache != cache))
            return false;
    }
    n = mmi_slab_index(s, (const void *)object, &inside);
    if (n >= s->count || inside != 0)
        return false;
    word = mmi_slab_bits(s) + (n >> MM_WORD_SHIFT);
    bit = mm_bit(n & (MM_WORD_BITS - 1));
    if (((*word & bit) != 0) == set)
        return false;
    *word ^= bit;
    return true;
}

/* Flips all objects in one CPU's arrays; returns how many could be. */
static size_t mmi_slab_flip_arrays(struct mm_slab_cache *cache, const uintptr_t *l, bool set)
{
    uintptr_t i, n = mmi_slab_ready(l);
    size_t done = 0;

    for (i = mmi_slab_room(l); i < l[MMI_SLAB_SLOTS]; i++)
        done += mmi_slab_flip(cache, l[i], set);
    for (; n > 0; n--)
        done += mmi_slab_flip(cache, *(l + MMI_SLAB_END - n), set);
    return done;
}

/* C1: no cached object is free in its slab, or cached twice. All are marked as free for a
 * moment. */
static bool mmi_slab_cached_once(struct mm_slab_cache *cache)
{
    const struct mmi_slab_batch *b;
    unsigned cpu, set;
    uintptr_t i;
    size_t cached[2] = {0, 0}, done[2] = {0, 0};

    for (set = 2; set-- > 0;) {
        for (cpu = 0; cpu < MM_CPU_MAX; cpu++) {
            const uintptr_t *l = cache->cpu[cpu];
            if (l == NULL)
                continue;
            cached[set] += (size_t)(mmi_slab_ready(l) + l[MMI_SLAB_SLOTS] - mmi_slab_room(l));
            done[set] += mmi_slab_flip_arrays(cache, l, set != 0);
        }
        for (b = cache->depot; b != NULL; b = b->next) {
            cached[set] += b->n;
            for (i = 0; i < b->n; i++)
                done[set] += mmi_slab_flip(cache, b->slot[i], set != 0);
        }
    }
    return cached[1] == done[1] && cached[0] == done[0];
}

/* Has the list n batches? */
static bool mmi_slab_so_many(const struct mmi_slab_batch *b, size_t n)
{
    for (; b != NULL && n != 0; b = b->next)
        n--;
    return b == NULL && n == 0;
}

MM_SLAB_API enum mm_status mm_slab_cache_check(struct mm_slab_cache *cache)
{
    const struct mmi_slab_batch *b;
    size_t free = 0, slabs = 0, batches = 0;

    if (!mmi_slab_sound_list(cache, &cache->partial, false, &slabs, &free) ||
        !mmi_slab_sound_list(cache, &cache->full, true, &slabs, &free))
        return MM_ERR_CORRUPT;
    for (b = cache->depot; b != NULL; b = b->next, batches++)
        if (b->n == 0 || b->n > cache->slots || batches == cache->batches)
            return MM_ERR_CORRUPT;
    if (free != cache->free || slabs != cache->slabs || batches != cache->batches ||
        !mmi_slab_so_many(cache->spare, cache->spares))
        return MM_ERR_CORRUPT;
    return mmi_slab_cached_once(cache) ? MM_OK : MM_ERR_CORRUPT;
}

static size_t mmi_slab_length(const struct mmi_slab *s)
{
    size_t n = 0;
    for (; s != NULL; s = s->next)
        n++;
    return n;
}

/* H1 to H3. */
static bool mmi_slab_heap_sound(struct mm_slab_heap *heap)
{
    const struct mmi_slab_entry *e;
    size_t i, entries = 0, large = 0, large_bytes = 0, slabs, empties;

    for (i = 0; i < heap->buckets; i++) {
        for (e = heap->table[i]; e != NULL; e = e->next) {
            entries++;
            large += e->bytes != 0;
            large_bytes += e->bytes;
            if (mmi_slab_bucket(heap, e->base) != &heap->table[i] || entries > heap->entries ||
                !mmi_slab_large_whole(heap, e, "mm_slab_check"))
                return false;
        }
    }
    slabs = entries - large;
    empties = mmi_slab_length(heap->empty);
    return entries == heap->entries && large == heap->large && large_bytes == heap->large_bytes &&
           heap->bytes == heap->table_bytes + large_bytes + slabs * MM_SLAB_BYTES &&
           empties == heap->empties &&
           slabs == heap->slabs + empties + mmi_slab_length(heap->stable) +
                        mmi_slab_length(heap->retired);
}

MM_SLAB_API enum mm_status mm_slab_check(struct mm_slab_heap *heap)
{
    struct mm_slab_cache *cache = NULL;

    if (!mmi_slab_heap_sound(heap))
        return MM_ERR_CORRUPT;
    while ((cache = mm_slab_next_cache(heap, cache)) != NULL)
        if (mm_slab_cache_check(cache) != MM_OK)
            return MM_ERR_CORRUPT;
    return MM_OK;
}

#ifdef __cplusplus
}
#endif

#endif /* MM_SLAB_IMPLEMENTATION */

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
