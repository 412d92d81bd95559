/* mm_vma.h - v0.1.0 - address spaces: areas, mmap and its kin, faults, reverse map - 0BSD
 *
 *   Keeps what is mapped where, answers the memory calls of a program as Linux does, resolves
 *   faults, and knows for each frame who maps it. Frames, page tables, files and swap are the
 *   caller's, by hooks.
 *
 *   In exactly one C or C++ file:
 *       #define MM_VMA_IMPLEMENTATION
 *       #include "mm_vma.h"
 *   In every other file include it without the macro. The text of the licence (0BSD) stands at the
 *   end of this file.
 *
 * CONTENTS
 *
 *   Quick start . Hooks and options . Concepts . What Linux does . Guarantees . Limits (this
 *   comment) . Core block . Areas . The map . Results and hooks . Set-up and life . Calls . Faults
 *   and the reverse map . Listing and check . Hot paths . Implementation . Licence
 *
 * QUICK START
 *
 *   --- quick start (quickstart.c) ---
 *   #define MM_VMA_IMPLEMENTATION
 *   #include "mm_vma.h"
 *
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *   #include <string.h>
 *
 *   static struct mm_vma_node *node_alloc(void *ctx)
 *   {
 *       (void)ctx;
 *       return (struct mm_vma_node *)aligned_alloc(64, sizeof(struct mm_vma_node));
 *   }
 *   static void node_free(void *ctx, struct mm_vma_node *node)
 *   {
 *       (void)ctx;
 *       free(node);
 *   }
 *   static struct mm_vma *area_alloc(void *ctx)
 *   {
 *       (void)ctx;
 *       return (struct mm_vma *)aligned_alloc(64, sizeof(struct mm_vma));
 *   }
 *   static void area_free(void *ctx, struct mm_vma *area)
 *   {
 *       (void)ctx;
 *       free(area);
 *   }
 *   static void print(void *ctx, const char *line, size_t length)
 *   {
 *       (void)ctx;
 *       (void)length;
 *       puts(line);
 *   }
 *
 *   int main(void)
 *   {
 *       struct mm_vma_system sys;
 *       struct mm_vma_space space;
 *       struct mm_vma_hooks hooks; // only the map here: no page tables, no frames
 *       struct mm_vma_config config;
 *       struct mm_vma_request request;
 *       mm_va_t va;
 *
 *       memset(&hooks, 0, sizeof hooks);
 *       hooks.nodes.alloc = node_alloc;
 *       hooks.nodes.free = node_free;
 *       hooks.area_alloc = area_alloc;
 *       hooks.area_free = area_free;
 *       mm_vma_config_init(&config);
 *       if (mm_vma_system_init(&sys, &hooks) != MM_OK ||
 *           mm_vma_space_init(&space, &sys, &config) != MM_OK)
 *           return 1;
 *
 *       memset(&request, 0, sizeof request);
 *       request.bytes = 64 * 4096;
 *       request.prot = MM_VMA_READ | MM_VMA_WRITE;
 *       request.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS;
 *       if (mm_vma_mmap(&space, &request, &va) != MM_VMA_OK)
 *           return 1;
 *       if (mm_vma_mprotect(&space, va + 16 * 4096, 4096, MM_VMA_READ) != MM_VMA_OK)
 *           return 1; // three areas now
 *       mm_vma_list(&space, print, NULL);
 *       if (mm_vma_fault(&space, va + 16 * 4096, MM_VMA_WRITE) != MM_VMA_FAULT_WRITE)
 *           return 1;
 *       if (mm_vma_check(&space) != MM_OK)
 *           return 1;
 *       return mm_vma_leave(&space) ? 0 : 1; // the last user: all is given back
 *   }
 *   --- end ---
 *
 * HOOKS AND OPTIONS (define before the include; all are optional)
 *
 *   MM_VMA_IMPLEMENTATION     emit the implementation here
 *   MM_VMA_STATIC             all functions are static: for use inside one file
 *   MM_VMA_RWLOCK_T, _RWLOCK_STATE_T, _RWLOCK_INIT(l), _READ_LOCK(l, s), _READ_UNLOCK(l, s),
 *   _WRITE_LOCK(l, s), _WRITE_UNLOCK(l, s)
 *                             the spaces' lock, in place of MM_RWLOCK_T and so on: all or none. It
 *                             is held over the hooks: if those sleep, it has to be a lock that may
 *   MM_VMA_LOCK_T, _LOCK_STATE_T, _LOCK_INIT(l), _LOCK(l, s), _UNLOCK(l, s)
 *                             the frames' locks, in place of MM_LOCK and so on: all or none
 *   MM_VMA_MEMSET, MM_VMA_ASSERT(x), MM_VMA_DEBUG, MM_VMA_REPORT(report)
 *                             in place of MM_MEMSET and so on
 *   MM_VMA_FRAME_LOCKS        locks that frames share (64)
 *   MM_VMA_GUARD_PAGES        default of the guard below growing areas (256)
 *
 *   What hooks expand to stands in functions with locals of their own: it calls functions whose
 *   names have a prefix (not `cpu()`). Some of them are inline functions of external linkage: a
 *   function of yours there is not `static` in C (compilers warn), but a plain one, or extern
 *   inline with gnu_inline, or all is MM_VMA_STATIC.
 *
 *   Hooks at run time stand in struct mm_vma_hooks: nodes and areas (needed), page tables with
 *   frames, files, swap, policy. With nodes and areas alone a space keeps its map and nothing else.
 *
 * CONCEPTS
 *
 *   Area       a range of pages with the same rights, flags and file: struct mm_vma. 64 bytes; a
 *              kernel embeds it in a struct of its own.
 *   Map        the areas in order: a B+-tree in nodes of 384 bytes, keys apart from values, that
 *              knows the longest gap below each node. A leaf's pages share the bits from 2^32 up,
 *              so that 32 bits are a key, and a leaf of 23 areas has its keys on two cache lines.
 *              The lowest six flags stand in the leaf.
 *   Space      a map with limits, totals, layout, a page table.
 *   System     what spaces that share frames have in common: hooks, the reverse map.
 *   Identity   a number that anonymous memory gets with its first page (Linux's anon_vma). Areas
 *              whose memory has different histories do not merge.
 *   Reverse    each counted frame has a record (hook `frame`) of the spaces and addresses that map
 *   map        it: one in the record, more in notes that are cut from nodes. Fork, mremap and
 *              eviction keep it true page by page; splitting and merging areas do not touch it.
 *   Faults     come back as OK when the access may be repeated. A private page that several map is
 *              copied on the first write; who maps it alone takes it over.
 *   Eviction   from a frame to all who map it: their write rights go, the content goes to swap, and
 *              if nobody wrote meanwhile their entries become the slot, and the frame is free.
 *
 * WHAT LINUX DOES, and this header with it (6.18; found by comparing call by call with the kernel)
 *
 *   1  Areas merge if they touch and agree in rights, sharing, file and consecutive offsets, all
 *      flags, `user`, and identity. The accounting flag is one of them: private memory has it once
 *      it was writable, untouched anonymous memory loses it when it becomes read-only. Of two
 *      identities one may be missing, unless the other was inherited by fork; an area that mremap
 *      grows takes in even then what has none. A new mapping that fits both sides of different
 *      identity joins the left.
 *   2  A hint is taken if the range is free and clear of the guard of what follows; else the place
 *      is the highest below mmap_base, and if there is none the lowest from up_base. FIXED and
 *      FIXED_NOREPLACE ignore guards.
 *   3  A growing area wants guard_pages free below it. A place found within that guard sends the
 *      search on below it, past what is free elsewhere above. It grows by faults down to the area
 *      before it, unless that has rights, does not grow itself and would be nearer than the guard;
 *      a growing area without rights grows before it faults.
 *   4  munmap of what is not mapped is fine.
 *   5  mprotect, mlock and munlock stop at the first hole with ENOMEM and keep what they did;
 *      madvise goes over holes and says ENOMEM at the end. Locked memory that becomes writable gets
 *      its pages at once.
 *   6  mremap: shrinking never looks at borders of areas; growth needs the range to end where the
 *      area ends, else it moves or fails; growth in place joins only the area behind. FIXED with
 *      equal sizes moves several areas with the holes between them, up to the first that may not.
 *      DONTUNMAP leaves the old range empty, without locks. An old length of 0 maps shared memory
 *      once more.
 *   7  brk returns the break, moved or not; a page stays free between it and the next area.
 *   8  fork leaves out DONTFORK areas and locks; WIPEONFORK areas come empty.
 *
 *   Deliberate differences. Of failures: a FIXED mmap that a limit refuses leaves the areas in its
 *   way whole (Linux has split them then), as does a change of flags that the limit of areas
 *   refuses, and a refused mremap its target mapped; memory for a call is there before its first
 *   change. Of limits: that of areas is exact (Linux lets mmap and brk go one beyond it), but that
 *   mremap wants room for three more (in Linux six, at a given place), and before it begins for
 *   all that several areas may add (Linux stops in their midst); committed memory has none.
 *   Of rights: reading needs MM_VMA_READ or MM_VMA_WRITE (x86 lets any right read). Of totals: what
 *   DONTUNMAP unlocks no longer counts as locked (Linux goes on counting it). Of pages: ADV_FREE
 *   frees at once; mremap leaves behind what faults bring again: pages of files, the zero frame; a
 *   file that gets shorter has its pages evicted by the pager, and private copies stay. Of places:
 *   alignment to huge pages is by request only. HUGEPAGE is a flag whatever the machine can do.
 *   Lists call every growing area [stack].
 *   Not there: other advice, DROPPABLE, PROT_GROWSUP (EINVAL all); HUGETLB and SYNC (no effect, but
 *   EOPNOTSUPP with SHARED_VALIDATE); mlockall, protection keys.
 *
 * GUARANTEES
 *
 *   Errors     A call that fails has changed nothing, but where rules 5 and 6 say so, and where
 *              page tables lack memory in the middle of a FIXED mremap, whose target has gone then.
 *   Time       Calls O((areas touched + 1) * log areas) and O(pages present) where pages go: never
 *              the length of a range. Lookup, insert, erase and search for a gap O(log areas).
 *   Memory     16 bytes a slot of a leaf beside struct mm_vma, and what is unused (`make bench
 *              FILTER=^h_` prints bytes an area); 56 bytes for a frame's record, 24 for each
 *              further mapping of it, on a 64-bit host.
 *   Threads    Calls and faults take the space's lock; lookups by mm_vma_map_read take none.
 *              Eviction takes locks of frames only. Order: space (parent before child), frame, pool
 *              of notes.
 *   Stack      below 2 KiB, without recursion.
 *
 * LIMITS
 *
 *   Page numbers are machine words: 2^64 bytes on a 64-bit host, 16 TiB on a 32-bit one, each less
 *   the last page. 2^40 areas. 4 global ranges. Anonymous shared memory needs the hook `shared`.
 *   Faults of one space are resolved one at a time.
 */
#ifndef MM_VMA_H
#define MM_VMA_H

#define MM_VMA_VERSION_MAJOR 0
#define MM_VMA_VERSION_MINOR 1
#define MM_VMA_VERSION_PATCH 0

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

#ifdef MM_VMA_READ_LOCK
#if !defined(MM_VMA_RWLOCK_T) || !defined(MM_VMA_RWLOCK_INIT) || !defined(MM_VMA_READ_UNLOCK) || \
    !defined(MM_VMA_WRITE_LOCK) || !defined(MM_VMA_WRITE_UNLOCK) ||                              \
    !defined(MM_VMA_RWLOCK_STATE_T)
#error "define all of MM_VMA_RWLOCK_T, _RWLOCK_STATE_T, _RWLOCK_INIT, _READ_LOCK, ... or none"
#endif
#else
#define MM_VMA_RWLOCK_T           MM_RWLOCK_T
#define MM_VMA_RWLOCK_STATE_T     MM_LOCK_STATE_T
#define MM_VMA_RWLOCK_INIT(l)     MM_RWLOCK_INIT(l)
#define MM_VMA_READ_LOCK(l, s)    MM_READ_LOCK(l, s)
#define MM_VMA_READ_UNLOCK(l, s)  MM_READ_UNLOCK(l, s)
#define MM_VMA_WRITE_LOCK(l, s)   MM_WRITE_LOCK(l, s)
#define MM_VMA_WRITE_UNLOCK(l, s) MM_WRITE_UNLOCK(l, s)
#endif

#ifdef MM_VMA_LOCK
#if !defined(MM_VMA_LOCK_T) || !defined(MM_VMA_LOCK_STATE_T) || !defined(MM_VMA_LOCK_INIT) || \
    !defined(MM_VMA_UNLOCK)
#error "define all of MM_VMA_LOCK_T, _LOCK_STATE_T, _LOCK_INIT, _LOCK and _UNLOCK, or none"
#endif
#else
#define MM_VMA_LOCK_T       MM_LOCK_T
#define MM_VMA_LOCK_STATE_T MM_LOCK_STATE_T
#define MM_VMA_LOCK_INIT(l) MM_LOCK_INIT(l)
#define MM_VMA_LOCK(l, s)   MM_LOCK(l, s)
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

#define MM_VMA_CACHE_LINE     64  /* nodes and areas start at multiples of it */
#define MM_VMA_LEAF_AREAS     23u /* areas of a leaf */
#define MM_VMA_INNER_CHILDREN 19u /* children of an inner node */
#define MM_VMA_LEVELS         16u /* levels of a map at most: far more than memory can fill */

#ifdef MM_VMA_STATIC
#ifndef MM_VMA_IMPLEMENTATION
#define MM_VMA_IMPLEMENTATION /* static functions are of use only where they are defined */
#endif
#define MM_VMA_API    static __attribute__((unused))
#define MM_VMA_INLINE static inline __attribute__((unused))
#else
#define MM_VMA_API
#define MM_VMA_INLINE inline /* the implementation has the external definition */
#endif

/* ---- Areas --------------------------------------------------------------------------------- */

/* Flags of an area. The lowest six stand in the map's leaves too: mm_vma_map_access reads them
 * without touching the area. */
#define MM_VMA_READ       0x1u
#define MM_VMA_WRITE      0x2u
#define MM_VMA_EXEC       0x4u
#define MM_VMA_SHARED     0x8u
#define MM_VMA_LOCKED     0x10u /* its pages are not reclaimed */
#define MM_VMA_GROWSDOWN  0x20u /* a stack: faults below it extend it */
#define MM_VMA_MAYREAD    0x40u /* mprotect may grant it: at MM_VMA_MAY_SHIFT above the right */
#define MM_VMA_MAYWRITE   0x80u
#define MM_VMA_MAYEXEC    0x100u
#define MM_VMA_ACCOUNT    0x200u /* counted as committed memory: part of what must agree to merge */
#define MM_VMA_NORESERVE  0x400u /* never accounted */
#define MM_VMA_DONTFORK   0x800u /* fork leaves it out */
#define MM_VMA_WIPEONFORK 0x1000u
#define MM_VMA_HUGEPAGE   0x2000u
#define MM_VMA_NOHUGEPAGE 0x4000u
#define MM_VMA_SEQUENTIAL 0x8000u
#define MM_VMA_RANDOM     0x10000u
#define MM_VMA_DONTDUMP   0x20000u
#define MM_VMA_PFN        0x40000u /* linear: page n is frame `offset` + n; never merged */
#define MM_VMA_DEVICE     0x80000u /* linear, with the device memory type */
#define MM_VMA_GLOBAL \
    0x100000u /* the system's own page, in every space; calls refuse to touch it */
#define MM_VMA_SHMEM       0x200000u   /* shared anonymous memory: `file` came from hook `shared` */
#define MM_VMA_LOCKONFAULT 0x400000u   /* beside LOCKED: pages come by faults only */
#define MM_VMA_USER_FLAGS  0xff000000u /* eight flags for the caller; neighbours merge if equal */

#define MM_VMA_PROT         (MM_VMA_READ | MM_VMA_WRITE | MM_VMA_EXEC)
#define MM_VMA_MAY_SHIFT    6
#define MM_VMA_MAY          (MM_VMA_PROT << MM_VMA_MAY_SHIFT)
#define MM_VMA_INLINE_FLAGS 0x3fu

/* One area: pages start to end - 1, alike in all respects. A kernel embeds it as the first member
 * of a struct of its own, at a multiple of 64 bytes, and hands that out by the hook `area_alloc`.
 * Readable under the space's lock; changed only by this header, but for `user`.
 *
 * A1  start < end, and no two areas of a space overlap
 * A2  anonymous private memory has offset == start until it was moved with pages in it
 * A3  `anon` is 0 until the first page of anonymous memory is there, or a stack has grown */
struct mm_vma {
    uintptr_t start;     /* first page: address >> MM_PAGE_SHIFT */
    uintptr_t end;       /* first page behind it */
    uintptr_t flags;     /* MM_VMA_READ ... */
    uintptr_t offset;    /* file: page in the file; linear: first frame; anonymous: see A2 */
    void *file;          /* the caller's, or NULL: anonymous or linear */
    uintptr_t anon;      /* anonymous identity * 2, + 1 if inherited by fork; 0: none */
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
 *   leaf   | count, start 0..22 | high, last 0..22 | spare, area 0..22 |       96 + 96 + 192 bytes
 *   inner  | key 0..18 | child 0..18 | gap 0..18, count |                     152 + 152 + 80
 *
 * M1  starts ascend; unused ones are 2^32 - 1, unused keys UINTPTR_MAX
 * M2  last[i] is the area's last page, or 2^32 - 1 if that lies beyond the leaf's stretch
 * M3  key[i] is the start of the first area below child i, exactly
 * M4  gap[i] is the longest gap behind an area below child i, up to the next area wherever that
 *     is, in pages; 2^32 - 1 stands for itself and all that is longer
 * M5  all leaves are at level 0; no node but the root of an empty map is empty
 * M6  an area word is the area's address + its lowest six flags */
struct mmi_vma_leaf {
    uint32_t count;
    uint32_t start[MM_VMA_LEAF_AREAS];
    uint32_t high; /* bits 32 and up of the areas' start pages */
    uint32_t last[MM_VMA_LEAF_AREAS];
    uintptr_t spare;
    uintptr_t area[MM_VMA_LEAF_AREAS];
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

/* The area that covers `va`, or NULL. O(log n): one node of 6 cache lines a level. Needs the
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
 * source has none: what it gave so far stays in the pool, the map is as it was. O(count * log
 * n). */
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
 * of two, 0 for any page). MM_ERR_NOENT if there is none, MM_ERR_INVALID for a bad align or 0
 * bytes; *va is untouched then. O(log n) where align is at most a page; above that, gaps that are
 * long enough but wrongly aligned are tried one by one. Lock for reading. */
MM_VMA_API enum mm_status mm_vma_map_lowest(const struct mm_vma_map *map, mm_va_t low, mm_va_t high,
                                            uint64_t bytes, uint64_t align, mm_va_t *va);
MM_VMA_API enum mm_status mm_vma_map_highest(const struct mm_vma_map *map, mm_va_t low,
                                             mm_va_t high, uint64_t bytes, uint64_t align,
                                             mm_va_t *va);

/* Sets the cursor to the first area that ends behind `va` (0: the first of all) and returns it, or
 * NULL. O(log n); then each step O(1) amortised. Lock for reading. */
MM_VMA_API struct mm_vma *mm_vma_cursor_seek(struct mm_vma_cursor *cursor, struct mm_vma_map *map,
                                             mm_va_t va);
/* The next (previous) area, or NULL at the end; the cursor stays there then. Touches no area. */
MM_VMA_INLINE struct mm_vma *mm_vma_cursor_next(struct mm_vma_cursor *cursor);
MM_VMA_API struct mm_vma *mm_vma_cursor_prev(struct mm_vma_cursor *cursor);
/* The lowest six flags of the area at the cursor, without touching the area. O(1). */
MM_VMA_INLINE unsigned mm_vma_cursor_access(const struct mm_vma_cursor *cursor);

/* Makes `to`, an initialised and empty map, a copy of `from`. For each area in ascending order
 * `copy` returns the area to put into `to` (with the same start and end), NULL to leave it out, and
 * sets *failed to stop. MM_ERR_NOMEM if a node lacks or `copy` failed: `to` then holds what was
 * copied so far, for mm_vma_map_fini. O(n), without search. Lock `from` for reading. */
MM_VMA_API enum mm_status
mm_vma_map_dup(struct mm_vma_map *to, struct mm_vma_map *from,
               struct mm_vma *(*copy)(void *ctx, struct mm_vma *area, bool *failed), void *ctx);

/* MM_OK if M1 to M6 and A1 hold and the pool's count is right, else MM_ERR_CORRUPT. O(n). Lock for
 * reading. */
MM_VMA_API enum mm_status mm_vma_map_check(const struct mm_vma_map *map);

/* ---- Results and hooks --------------------------------------------------------------------- */

/* What the calls return: 0, or what the Linux system call returns. X(name, value, meaning) */
#define MM_VMA_RESULT_LIST(X)                                                      \
    X(OK, 0, "done")                                                               \
    X(EPERM, -1, "locking, code from this file, or this address is not allowed")   \
    X(EBADF, -9, "a file mapping without a file")                                  \
    X(EAGAIN, -11, "the limit of locked memory, or no memory for an advice")       \
    X(ENOMEM, -12, "no memory, no address range, a limit, or a hole in the range") \
    X(EACCES, -13, "the file does not allow these rights")                         \
    X(EFAULT, -14, "the range is not one area")                                    \
    X(EEXIST, -17, "something is mapped there")                                    \
    X(EINVAL, -22, "invalid argument")                                             \
    X(EOVERFLOW, -75, "offset and length beyond the last page of any file")        \
    X(EOPNOTSUPP, -95, "SHARED_VALIDATE with a flag that is not known")

enum mm_vma_result {
#define MMI_VMA_RESULT_ENUM(name, value, text) MM_VMA_##name = (value),
    MM_VMA_RESULT_LIST(MMI_VMA_RESULT_ENUM)
#undef MMI_VMA_RESULT_ENUM
};

/* What became of a fault. */
enum mm_vma_fault {
    MM_VMA_FAULT_OK = 0, /* the access may be repeated; also for spurious faults */
    MM_VMA_FAULT_NONE,   /* nothing is mapped there */
    MM_VMA_FAULT_GUARD,  /* below a stack that must not grow: the guard gap, or a limit */
    MM_VMA_FAULT_READ,   /* the area does not allow this access */
    MM_VMA_FAULT_WRITE,
    MM_VMA_FAULT_EXEC,
    MM_VMA_FAULT_BUS, /* beyond the file's end, or its page cannot be had */
    MM_VMA_FAULT_NOMEM,
    MM_VMA_FAULT_RETRY /* the pager is at work: wait outside, and access again */
};

struct mm_vma_space;

/* A page of a space as the page table has it. */
struct mm_vma_entry {
    mm_va_t va;
    mm_pa_t pa;    /* frame, if present; else MM_PA_NONE */
    uint64_t slot; /* swap slot, if not present */
    unsigned prot; /* MM_VMA_READ ... that the entry grants, with MM_VMA_DEVICE */
    bool dirty;    /* written since it was mapped, where the table can tell */
};

/* Who maps a frame: kept by this header for each frame that hook `frame` knows, zero-filled at
 * first. Changed under the frame's lock only.
 *
 * F1  `maps` mappings are noted: `first`, and the rest in `more`
 * F2  each names a space and a page at which its page table has the frame */
struct mmi_vma_rmap {
    uintptr_t space; /* struct mm_vma_space * + 1 if the area is locked */
    uintptr_t page;
    struct mmi_vma_rmap *next;
};

struct mm_vma_frame {
    uintptr_t maps;
    uintptr_t kind; /* enum mm_vma_kind, + 4 while a copy is being written out */
    void *file; /* pages of files: whom to give the frame back to; else who writes the copy out */
    uintptr_t index;
    struct mmi_vma_rmap first;
};

/* What resident pages are. */
enum mm_vma_kind {
    MM_VMA_RSS_ANON = 0,
    MM_VMA_RSS_FILE = 1,
    MM_VMA_RSS_SHMEM = 2, /* pages of what hook `shared` made */
    MM_VMA_RSS_SWAP = 3   /* not resident: in swap slots */
};
#define MM_VMA_KINDS 4u

/* What the caller lends to a system. Areas and nodes are needed; page tables need frames, and files
 * need the pager: a group of hooks is there as a whole or not at all. All are called with the
 * space's lock held; those marked (frame) with a frame's lock too: they must neither block nor call
 * back. */
struct mm_vma_hooks {
    void *ctx;
    struct mm_vma_node_source nodes; /* thread-safe: spaces share it */

    /* Areas. `copy` (may be NULL) copies the caller's own fields on split and fork. */
    struct mm_vma *(*area_alloc)(void *ctx);
    void (*area_free)(void *ctx, struct mm_vma *area);
    void (*area_copy)(void *ctx, struct mm_vma *to, const struct mm_vma *from);

    /* Files. Each area holds a reference of its own. Both may be NULL, as may `file_name`, which
     * gives the name for listings. */
    void (*file_get)(void *ctx, void *file);
    void (*file_put)(void *ctx, void *file);
    const char *(*file_name)(void *ctx, void *file);

    /* Page tables; `pt` is the space's. All may be NULL together: then only the map is kept.
     * map      enters a page; MM_ERR_NOMEM: nothing changed. (frame) where it replaces one:
     *          cannot fail
     * swap     enters a slot; MM_ERR_NOMEM. (frame) where it replaces a page: cannot fail
     * protect  (frame) sets the rights of a present page, which stays as dirty as it was; without
     *          any it stays known to `next`
     * clear    (frame) empties an entry
     * next     (frame) the first entry, present or slot, within [va, end); false: none
     * flush    (frame) makes all CPUs forget translations of [va, va + bytes)
     * map may be called for one space by the CPU that has its lock, the others beside it by any. */
    enum mm_status (*pt_map)(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot);
    enum mm_status (*pt_swap)(void *ctx, void *pt, mm_va_t va, uint64_t slot);
    void (*pt_protect)(void *ctx, void *pt, mm_va_t va, unsigned prot);
    void (*pt_clear)(void *ctx, void *pt, mm_va_t va);
    bool (*pt_next)(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *entry);
    void (*pt_flush)(void *ctx, void *pt, mm_va_t va, uint64_t bytes);

    /* Frames. `frame_alloc` returns MM_PA_NONE when there is none; `frame` the record of a frame
     * (NULL: not counted, as device memory and the zero frame). What `frame` answers depends on the
     * address alone, never on references: the frame may just have been evicted. */
    mm_pa_t (*frame_alloc)(void *ctx, bool zero);
    void (*frame_free)(void *ctx, mm_pa_t pa);
    void (*frame_copy)(void *ctx, mm_pa_t to, mm_pa_t from);
    struct mm_vma_frame *(*frame)(void *ctx, mm_pa_t pa);

    /* Pager: pages of files; without it every page is beyond a file's end. `file_page` gives a
     * frame that hook `frame` counts, with a reference of its own; MM_ERR_NOENT beyond the file's
     * end, MM_ERR_BUSY to have the access repeated. `write`: a shared mapping is about to get the
     * right to write to it; it is asked again for pages that came by reads. `file_page_put` takes
     * the reference back. `shared` makes a file of `pages` zero pages for shared anonymous memory,
     * with one reference. */
    enum mm_status (*file_page)(void *ctx, void *file, uint64_t index, bool write, mm_pa_t *pa);
    void (*file_page_put)(void *ctx, void *file, uint64_t index, mm_pa_t pa, bool dirty);
    enum mm_status (*shared)(void *ctx, uint64_t pages, void **file);

    /* Pager: swap. Slots are counted: `swap_out` makes one with a count of 1 and copies the frame
     * to it; `swap_dup` (frame) and `swap_free` change the count; `swap_in` fills a frame, or
     * MM_ERR_BUSY. */
    enum mm_status (*swap_out)(void *ctx, mm_pa_t pa, uint64_t *slot);
    enum mm_status (*swap_in)(void *ctx, uint64_t slot, mm_pa_t pa);
    void (*swap_dup)(void *ctx, uint64_t slot);
    void (*swap_free)(void *ctx, uint64_t slot);

    /* Policy; may be NULL. `random`: a number below `below`. `victim`: the LRU's next frame to
     * reclaim, or MM_PA_NONE; `mapped` tells the LRU of a new frame, which may be evicted by
     * then. */
    uint64_t (*random)(void *ctx, uint64_t below);
    mm_pa_t (*victim)(void *ctx);
    void (*mapped)(void *ctx, mm_pa_t pa);
};

/* A page, or a few, that each space of a system has above its own range: a trampoline. */
struct mm_vma_global {
    mm_va_t va;
    mm_pa_t pa;
    uint64_t bytes;
    unsigned prot;
};
#define MM_VMA_GLOBALS 4u

/* What spaces share that share frames: hooks, the frames' locks, the pool of reverse-map notes. */
struct mm_vma_system {
    struct mm_vma_hooks hooks;
    mm_pa_t zero_frame; /* mapped for reads of untouched memory; MM_PA_NONE: none */
    struct mm_vma_global globals[MM_VMA_GLOBALS];
    unsigned global_count;
    MM_VMA_LOCK_T pool_lock;
    struct mmi_vma_rmap *pool;   /* free notes */
    struct mmi_vma_rmap *chunks; /* nodes that notes were cut from */
    struct {
        MM_VMA_LOCK_T lock;
    } __attribute__((aligned(MM_VMA_CACHE_LINE))) frames[MM_VMA_FRAME_LOCKS];
};

/* Limits of a space; MM_VMA_UNLIMITED for none. */
#define MM_VMA_UNLIMITED UINT64_MAX
struct mm_vma_limits {
    uint64_t total;  /* bytes of all areas (RLIMIT_AS) */
    uint64_t data;   /* bytes of private writable areas, and of the break (RLIMIT_DATA) */
    uint64_t stack;  /* bytes of a growing stack (RLIMIT_STACK) */
    uint64_t locked; /* bytes of locked areas (RLIMIT_MEMLOCK); 0: mlock gives EPERM */
    uint64_t areas;  /* number of areas */
};

/* Totals of a space, in pages. */
struct mm_vma_totals {
    uint64_t areas;
    uint64_t total;
    uint64_t locked;
    uint64_t data;              /* private, writable, no stack */
    uint64_t stack;             /* areas that grow down */
    uint64_t exec;              /* executable, not writable, no stack */
    uint64_t rss[MM_VMA_KINDS]; /* by enum mm_vma_kind; MM_VMA_RSS_SWAP counts slots */
};

/* How a space is laid out. mm_vma_config_init fills in a 47-bit process without limits. */
struct mm_vma_config {
    mm_va_t low;       /* lowest address that calls choose or accept as a hint */
    mm_va_t top;       /* the space ends before it */
    mm_va_t mmap_base; /* top-down placement starts below it */
    mm_va_t up_base;   /* bottom-up placement starts at it: also what top-down falls back to */
    bool bottom_up;
    mm_va_t brk;           /* start of the break; 0: none */
    uint64_t guard_pages;  /* free pages kept below growing areas */
    uint64_t random_pages; /* the bases and brk move by random numbers below it (hook) */
    struct mm_vma_limits limits;
    void *pt; /* for the page table hooks */
};

/* An address space. Its fields are for this header; take `map` for walking, under the lock.
 *
 * S1  the totals are the sums over the areas, but for globals
 * S2  no two neighbours stand apart that a call has seen together and may merge
 * S3  spare_count areas wait in `spare` */
struct mm_vma_space {
    struct mm_vma_map map;
    MM_VMA_RWLOCK_T lock;
    struct mm_vma_system *sys;
    void *pt;
    uintptr_t users;                   /* threads */
    uintptr_t references;              /* users together count one */
    uintptr_t low, top, base, up_base; /* pages */
    uintptr_t guard;
    bool bottom_up;
    mm_va_t brk_start, brk;
    struct mm_vma_limits limits;
    uintptr_t pages[4];      /* by what they count as: MMI_VMA_COUNTS */
    uintptr_t locked, stack; /* pages too, which are among those */
    uintptr_t rss[MM_VMA_KINDS];
    uintptr_t next_anon;
    struct mm_vma *spare;
    unsigned spare_count;
    void *user; /* the caller's own */
} __attribute__((aligned(MM_VMA_CACHE_LINE)));

/* ---- Set-up and life ------------------------------------------------------------------------- */

/* Prepares what spaces share. `hooks` is copied. MM_ERR_INVALID if a hook group is incomplete.
 * O(1), no locking: no space is there yet. */
MM_VMA_API enum mm_status mm_vma_system_init(struct mm_vma_system *sys,
                                             const struct mm_vma_hooks *hooks);
/* Gives back the memory of the reverse map, O(its chunks). No locking: all spaces have exited. */
MM_VMA_API void mm_vma_system_fini(struct mm_vma_system *sys);
/* Adds pages that every space made later has, mapped to the same frames, out of its calls' reach:
 * at or above its top. MM_ERR_LIMIT: MM_VMA_GLOBALS are there; MM_ERR_ALIGN: not whole pages;
 * MM_ERR_EXISTS: one of them is there in part; MM_ERR_INVALID: empty, beyond the last address or
 * frame, other rights than READ, WRITE, EXEC. O(globals), no locking: no space may be made
 * meanwhile. */
MM_VMA_API enum mm_status mm_vma_system_global(struct mm_vma_system *sys,
                                               const struct mm_vma_global *global);

/* Fills in: addresses from 64 KiB up to 2^47 - one page, placement top-down from 136 MiB below that
 * (on a 32-bit host half of what it reaches), 256 guard pages, no limits, no break, no page
 * table. O(1), no locking. */
MM_VMA_API void mm_vma_config_init(struct mm_vma_config *config);

/* Makes a space with one user and one reference. MM_ERR_INVALID: borders out of order or not whole
 * pages, or a global below its top; MM_ERR_NOMEM: no memory for the globals. O(globals' pages), no
 * locking: nobody knows the space yet. */
MM_VMA_API enum mm_status mm_vma_space_init(struct mm_vma_space *space, struct mm_vma_system *sys,
                                            const struct mm_vma_config *config);

/* A thread joins (vfork, clone) or leaves a space. When the last one leaves, all is unmapped in one
 * pass, and the users' reference goes; who has another one may still ask, but map nothing more.
 * mm_vma_leave returns whether that was the last reference: the caller then frees the struct.
 * O(areas + pages). Any CPU. */
MM_VMA_API void mm_vma_join(struct mm_vma_space *space);
MM_VMA_API bool mm_vma_leave(struct mm_vma_space *space);
/* References keep the struct, not what is mapped. mm_vma_put: true when the last one went. O(1).
 * Any CPU, with or without the lock. */
MM_VMA_API void mm_vma_get(struct mm_vma_space *space);
MM_VMA_API bool mm_vma_put(struct mm_vma_space *space);

/* Unmaps everything (exec, or exit by hand); the space can be used on. O(areas + pages).
 * Takes the lock. */
MM_VMA_API void mm_vma_clear(struct mm_vma_space *space);

/* Makes `child` (raw memory) a copy of `parent` with page table `pt`: private pages are shared copy
 * on write, areas with MM_VMA_DONTFORK left out, locks not inherited, MM_VMA_WIPEONFORK areas
 * empty.
 * MM_VMA_ENOMEM: `child` is raw memory again, `parent` as it was but for write rights that the next
 * fault gives back. O(areas + private pages). Takes the parent's lock. */
MM_VMA_API int mm_vma_fork(struct mm_vma_space *child, struct mm_vma_space *parent, void *pt);

/* ---- Calls ----------------------------------------------------------------------------------- */

/* All calls take the space's lock for writing; they are O((areas touched + 1) * log areas), and on
 * top of that O(pages present) where pages go. A call that fails has changed nothing but where
 * Linux changes part of the range and its contract says so. */

/* Flags for mmap, with Linux's values. */
#define MM_VMA_MAP_SHARED          0x1u
#define MM_VMA_MAP_PRIVATE         0x2u
#define MM_VMA_MAP_SHARED_VALIDATE 0x3u
#define MM_VMA_MAP_TYPE            0xfu
#define MM_VMA_MAP_FIXED           0x10u
#define MM_VMA_MAP_ANONYMOUS       0x20u
#define MM_VMA_MAP_32BIT           0x40u /* between 1 and 2 GiB, bottom-up */
#define MM_VMA_MAP_GROWSDOWN       0x100u
#define MM_VMA_MAP_LOCKED          0x2000u
#define MM_VMA_MAP_NORESERVE       0x4000u
#define MM_VMA_MAP_POPULATE        0x8000u
#define MM_VMA_MAP_NONBLOCK        0x10000u
#define MM_VMA_MAP_STACK           0x20000u
#define MM_VMA_MAP_FIXED_NOREPLACE 0x100000u

struct mm_vma_request {
    mm_va_t hint;    /* address wanted; with FIXED the address */
    uint64_t bytes;  /* rounded up to pages */
    unsigned prot;   /* MM_VMA_READ | MM_VMA_WRITE | MM_VMA_EXEC */
    unsigned flags;  /* MM_VMA_MAP_... */
    unsigned may;    /* rights that the file grants, 0: all; a private copy may be written anyway */
    void *file;      /* not for ANONYMOUS */
    uint64_t offset; /* bytes into the file: whole pages */
    uint64_t align;  /* 0, or a power of two that a chosen address is a multiple of */
    unsigned user;   /* MM_VMA_USER_FLAGS of the area */
    void *area_user; /* `user` of the area: neighbours merge only if it is equal */
};

/* mmap(2). *va is the address. EINVAL: no length, neither shared nor private, misaligned fixed
 * address or offset, `align` no power of two, a growing area that is not private and anonymous, no
 * hook `shared`; EBADF: no file; EOVERFLOW: beyond what a file can have; ENOMEM: no range, a limit,
 * no memory; EEXIST: NOREPLACE; EPERM: locking with a limit of 0, a fixed address below `low`, code
 * of a file that does not grant it; EAGAIN: the limit of locked memory; EACCES: a file that cannot
 * be read, or written through a shared mapping; EOPNOTSUPP: SHARED_VALIDATE with a flag not listed
 * above, or FIXED_NOREPLACE. POPULATE and LOCKED bring in what they can; faults do the rest. */
MM_VMA_API int mm_vma_mmap(struct mm_vma_space *space, const struct mm_vma_request *request,
                           mm_va_t *va);

/* munmap(2): whatever is mapped within the range goes. EINVAL: misaligned, no length, beyond the
 * top; ENOMEM: an area would fall in two and the limit of areas is reached, or there is no
 * memory. */
MM_VMA_API int mm_vma_munmap(struct mm_vma_space *space, mm_va_t va, uint64_t bytes);

/* mprotect(2). Works up to the first hole, keeps what it did, and returns ENOMEM there. EINVAL:
 * misaligned, unknown rights; EACCES: rights that the file does not grant, after what stands before
 * it changed. ENOMEM also: the limits of areas and of data (what stands before changed), no memory
 * (nothing changed). MM_VMA_PROT_GROWSDOWN extends the range to the start of the growing area that
 * it begins in. */
#define MM_VMA_PROT_SEM       0x8u /* without effect */
#define MM_VMA_PROT_GROWSDOWN 0x1000000u
MM_VMA_API int mm_vma_mprotect(struct mm_vma_space *space, mm_va_t va, uint64_t bytes,
                               unsigned prot);

/* mremap(2); *va is the new address. EINVAL: misaligned, no length, a target beyond the top, ranges
 * that overlap, DONTUNMAP with another size or of a linear area, an old length of 0 of private
 * memory, a tail beyond the top; EFAULT: the old range is no single area where it must be, or a
 * linear one that would grow; ENOMEM: no place (without MAYMOVE: it cannot grow where it is), a
 * limit, no memory; EAGAIN: locked memory. Of several areas, what stands before the refused one has
 * moved; when page tables lack memory, the target of FIXED has gone already. */
#define MM_VMA_REMAP_MAYMOVE   1u
#define MM_VMA_REMAP_FIXED     2u
#define MM_VMA_REMAP_DONTUNMAP 4u
MM_VMA_API int mm_vma_mremap(struct mm_vma_space *space, mm_va_t old, uint64_t old_bytes,
                             uint64_t bytes, unsigned flags, mm_va_t target, mm_va_t *va);

/* madvise(2), with Linux's numbers. Goes over holes and returns ENOMEM at the end. EINVAL:
 * misaligned, it wraps, other advice; and, at the first area that it does not fit (what stands
 * before is done): DONTNEED and FREE of locked or linear areas, FREE and WIPEONFORK of other
 * than private anonymous ones, DOFORK and DODUMP of linear ones. EAGAIN: no memory, the limit of
 * areas. */
enum mm_vma_advice {
    MM_VMA_ADV_NORMAL = 0,
    MM_VMA_ADV_RANDOM = 1,
    MM_VMA_ADV_SEQUENTIAL = 2,
    MM_VMA_ADV_WILLNEED = 3, /* pages of files come in now, as far as the pager has them */
    MM_VMA_ADV_DONTNEED = 4, /* pages go; private memory reads as zeros, or as the file, again */
    MM_VMA_ADV_FREE = 8,     /* as DONTNEED, for anonymous private memory */
    MM_VMA_ADV_DONTFORK = 10,
    MM_VMA_ADV_DOFORK = 11,
    MM_VMA_ADV_HUGEPAGE = 14,
    MM_VMA_ADV_NOHUGEPAGE = 15,
    MM_VMA_ADV_DONTDUMP = 16,
    MM_VMA_ADV_DODUMP = 17,
    MM_VMA_ADV_WIPEONFORK = 18,
    MM_VMA_ADV_KEEPONFORK = 19
};
MM_VMA_API int mm_vma_madvise(struct mm_vma_space *space, mm_va_t va, uint64_t bytes, int advice);

/* mlock(2), mlock2(2), munlock(2): the range is widened to pages, and changes up to the first hole.
 * EPERM: limit 0; ENOMEM: the limit, a hole, no memory for the change, the limit of areas, pages
 * beyond a file's end or without any right; EAGAIN: no memory for pages, or the pager wants it
 * repeated (in both cases the range stays locked); EINVAL: it wraps, unknown flags. */
#define MM_VMA_MLOCK_ONFAULT 1u /* pages come by faults, and stay then */
MM_VMA_API int mm_vma_mlock(struct mm_vma_space *space, mm_va_t va, uint64_t bytes);
MM_VMA_API int mm_vma_mlock2(struct mm_vma_space *space, mm_va_t va, uint64_t bytes,
                             unsigned flags);
MM_VMA_API int mm_vma_munlock(struct mm_vma_space *space, mm_va_t va, uint64_t bytes);

/* brk(2) as the kernel has it: moves the break to `brk` and returns it, or the old one when refused
 * (0 asks for it). */
MM_VMA_API mm_va_t mm_vma_brk(struct mm_vma_space *space, mm_va_t brk);

/* Areas with preset rights, at a fixed free place. */
enum mm_vma_preset {
    MM_VMA_CODE,     /* read, execute; anonymous */
    MM_VMA_DATA,     /* read, write */
    MM_VMA_STACK,    /* read, write, grows down */
    MM_VMA_HEAP,     /* the break starts at `va`; `bytes` of it are there at once */
    MM_VMA_FRAMED,   /* read, write; every page gets a frame at once */
    MM_VMA_IDENTITY, /* frames at the same addresses; mapped at once */
    MM_VMA_LINEAR,   /* frames from `pa` on; mapped at once */
    MM_VMA_IO        /* linear, device memory; mapped at once */
};
/* EINVAL, EEXIST, ENOMEM as mmap with FIXED_NOREPLACE; on failure nothing is mapped. `prot`: 0 for
 * the preset's. */
MM_VMA_API int mm_vma_install(struct mm_vma_space *space, enum mm_vma_preset preset, mm_va_t va,
                              uint64_t bytes, mm_pa_t pa, unsigned prot);

/* Changes the limits; nothing that is there is taken away. O(1). */
MM_VMA_API void mm_vma_set_limits(struct mm_vma_space *space, const struct mm_vma_limits *limits);
/* O(1); the resident counts may move meanwhile. Takes the lock for reading. */
MM_VMA_API void mm_vma_read_totals(struct mm_vma_space *space, struct mm_vma_totals *totals);

/* ---- Faults and the reverse map -------------------------------------------------------------- */

/* Resolves an access of kind MM_VMA_READ, MM_VMA_WRITE or MM_VMA_EXEC (one of them) to `va`. On all
 * but MM_VMA_FAULT_OK nothing changed, but that a stack may have grown. O(log areas + maps of the
 * page). Takes the space's lock. */
MM_VMA_API enum mm_vma_fault mm_vma_fault(struct mm_vma_space *space, mm_va_t va, unsigned access);

/* Has all pages of the range mapped, for writing where private memory is writable; not those that
 * MM_VMA_MLOCK_ONFAULT leaves to faults. ENOMEM at a hole or without memory; EFAULT at areas
 * without any right and where the pager has no page; EAGAIN to repeat; EINVAL: misaligned, beyond
 * the top; `bytes` is rounded up. What came in stays. O(pages). Takes the lock. */
MM_VMA_API int mm_vma_populate(struct mm_vma_space *space, mm_va_t va, uint64_t bytes);

/* Number of places that map the frame; 0 also for frames that are not counted. More than 1: it is
 * shared. O(1). Takes the frame's lock. */
MM_VMA_API uintptr_t mm_vma_frame_maps(struct mm_vma_system *sys, mm_pa_t pa);

/* Calls `visit` for each place that maps the frame, until it returns false; it must not call back.
 * Returns the number of calls. O(maps). Under the frame's lock. */
MM_VMA_API uintptr_t mm_vma_frame_walk(struct mm_vma_system *sys, mm_pa_t pa,
                                       bool (*visit)(void *ctx, struct mm_vma_space *space,
                                                     mm_va_t va),
                                       void *ctx);

/* Takes a frame away from all who map it. Pages of files go back to the pager; anonymous ones are
 * copied to swap first, and the frame is freed. MM_ERR_NOENT: nobody maps it; MM_ERR_PERM: an area
 * is locked; MM_ERR_BUSY: it was written meanwhile; what `swap_out` returned; MM_ERR_INVALID: there
 * is no swap. It stays mapped then. O(maps). Any CPU, without any space's lock. */
MM_VMA_API enum mm_status mm_vma_evict(struct mm_vma_system *sys, mm_pa_t pa);

/* Evicts frames that hook `victim` names until `want` went or it has no more, at most 4 * want + 16
 * tries. Returns how many went. O(tries * maps). Any CPU, without any space's lock. */
MM_VMA_API uintptr_t mm_vma_reclaim(struct mm_vma_system *sys, uintptr_t want);

/* ---- Listing and check ----------------------------------------------------------------------- */

/* The area that covers `va`, or NULL. Needs the space's lock, for reading (MM_VMA_READ_LOCK of
 * &space->lock), as long as the area is looked at. O(log areas). */
static inline struct mm_vma *mm_vma_find(struct mm_vma_space *space, mm_va_t va)
{
    return mm_vma_map_find(&space->map, va);
}

/* Calls `visit` for each area that touches [low, high), in order, until it returns false. Takes the
 * lock for reading, so `visit` must not call what takes it. Returns the number of calls, and is
 * O(log areas) on top of them. */
MM_VMA_API uintptr_t mm_vma_walk(struct mm_vma_space *space, mm_va_t low, mm_va_t high,
                                 bool (*visit)(void *ctx, const struct mm_vma *area), void *ctx);

/* Writes the area's line as /proc/PID/maps shows it ("start-end rwxp offset 00:00 0 name"), with a
 * 0 behind it, cut to `size` bytes; returns its full length without the 0. Device and inode are
 * shown as 0: the name hook tells files apart. O(1). Needs the lock, for reading. */
MM_VMA_API size_t mm_vma_format(const struct mm_vma_space *space, const struct mm_vma *area,
                                char *text, size_t size);

/* Prints all areas, a call of `print` a line. O(areas). Takes the lock for reading. */
MM_VMA_API void mm_vma_list(struct mm_vma_space *space,
                            void (*print)(void *ctx, const char *line, size_t length), void *ctx);

/* MM_OK if the map is sound (M1 to M6, A1), S1 and S3 hold and, where there are page tables, each
 * page of the space stands in an area with rights that cover it, and in the reverse map (F2), and
 * the resident counts are true; else MM_ERR_CORRUPT. O(areas + pages * maps). Takes the lock; no
 * eviction may go on beside it, which changes those counts without it. */
MM_VMA_API enum mm_status mm_vma_check(struct mm_vma_space *space);
/* ---- Hot paths ------------------------------------------------------------------------------- */

#define MMI_VMA_HIGH(page)  ((uint32_t)((uint64_t)(page) >> 32))
#define MMI_VMA_PREFETCH(p) __builtin_prefetch(p)

/* Page numbers end here, so that the address behind any page has 64 bits: on a 32-bit host at 2^32
 * - 1 pages, 16 TiB of guest addresses. */
#if MM_WORD_BITS == 64
#define MMI_VMA_TOP (UINTPTR_MAX >> MM_PAGE_SHIFT)
#else
#define MMI_VMA_TOP UINTPTR_MAX
#endif
#define MMI_VMA_BEYOND(va) ((va) >> MM_PAGE_SHIFT >= MMI_VMA_TOP)

MM_CORE_INLINE uint32_t mmi_vma_get32(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

MM_CORE_INLINE struct mm_vma_node *mmi_vma_child(const struct mm_vma_node *node, unsigned i)
{
    return __atomic_load_n(&node->u.inner.child[i], __ATOMIC_RELAXED);
}

/* Whether `key` is up to `x`. Only beside a writer is the key read as an atomic: compilers do not
 * compare with memory then, but load it first. */
MM_CORE_INLINE unsigned mmi_vma_key32_upto(const uint32_t *key, uint32_t x, bool beside)
{
    return (unsigned)((beside ? mmi_vma_get32(key) : *key) <= x);
}

MM_CORE_INLINE unsigned mmi_vma_key_upto(const uintptr_t *key, uintptr_t x, bool beside)
{
    return (unsigned)((beside ? mm_load(key) : *key) <= x);
}

/* Number of the leaf's starts up to `low`: 23 slots are three pivots and four fives. No branch
 * depends on data, and only one load on another. */
MM_CORE_INLINE unsigned mmi_vma_leaf_rank(const struct mm_vma_node *node, uint32_t low, bool beside)
{
    const uint32_t *start = node->u.leaf.start;
    unsigned i, count = beside ? mmi_vma_get32(&node->u.leaf.count) : node->u.leaf.count;

    i = mmi_vma_key32_upto(&start[5], low, beside);
    i += mmi_vma_key32_upto(&start[11], low, beside);
    i += mmi_vma_key32_upto(&start[17], low, beside);
    i *= 6;
    start += i;
    i += mmi_vma_key32_upto(&start[0], low, beside);
    i += mmi_vma_key32_upto(&start[1], low, beside);
    i += mmi_vma_key32_upto(&start[2], low, beside);
    i += mmi_vma_key32_upto(&start[3], low, beside);
    i += mmi_vma_key32_upto(&start[4], low, beside);
    return i < count ? i : count; /* for low = 2^32 - 1: M1 */
}

/* The child of an inner node below which `page` belongs: the last whose key is not above it. 19
 * keys are three pivots and four fours. */
MM_CORE_INLINE unsigned mmi_vma_inner_rank(const struct mm_vma_node *node, uintptr_t page,
                                           bool beside)
{
    const uintptr_t *key = node->u.inner.key;
    unsigned i;

    i = mmi_vma_key_upto(&key[4], page, beside);
    i += mmi_vma_key_upto(&key[9], page, beside);
    i += mmi_vma_key_upto(&key[14], page, beside);
    i *= 5;
    key += i;
    i += mmi_vma_key_upto(&key[0], page, beside);
    i += mmi_vma_key_upto(&key[1], page, beside);
    i += mmi_vma_key_upto(&key[2], page, beside);
    i += mmi_vma_key_upto(&key[3], page, beside);
    return i - (unsigned)(i != 0);
}

#define MMI_VMA_NEAR_LEVELS 2u /* maps of so many inner levels stay in the nearer caches */

/* Starts on the lines that a search will touch before it knows which: memory latency once a
 * level. */
MM_CORE_INLINE void mmi_vma_fetch(const struct mm_vma_node *node)
{
    const char *line = (const char *)node;

    MMI_VMA_PREFETCH(line);
    MMI_VMA_PREFETCH(line + 64);
    MMI_VMA_PREFETCH(line + 128);
    MMI_VMA_PREFETCH(line + 192);
    MMI_VMA_PREFETCH(line + 256);
    MMI_VMA_PREFETCH(line + 320);
}

/* The leaf where `page` belongs; the map is not empty. */
MM_CORE_INLINE const struct mm_vma_node *mmi_vma_leaf_of(const struct mm_vma_map *map,
                                                         uintptr_t page)
{
    const struct mm_vma_node *node = map->root;
    uintptr_t level = map->height;

    for (; level != 0; level--) {
        node = mmi_vma_child(node, mmi_vma_inner_rank(node, page, false));
        if (map->height > MMI_VMA_NEAR_LEVELS)
            mmi_vma_fetch(node);
    }
    return node;
}

/* The area word of what covers `page`, or 0. */
MM_CORE_INLINE uintptr_t mmi_vma_word(const struct mm_vma_map *map, uintptr_t page)
{
    const struct mm_vma_node *node;
    const struct mm_vma *vma;
    uint32_t high = MMI_VMA_HIGH(page);
    unsigned i;

    if (MM_UNLIKELY(map->root == NULL))
        return 0;
    node = mmi_vma_leaf_of(map, page);
    if (MM_LIKELY(node->u.leaf.high == high)) {
        i = mmi_vma_leaf_rank(node, (uint32_t)page, false);
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

/* ==== Implementation ========================================================================== */

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

#define MMI_VMA_NO_START       UINT32_MAX
#define MMI_VMA_MERGE_AREAS    19u /* two leaves become one when that holds both */
#define MMI_VMA_FEW_AREAS      8u  /* when a leaf has fewer, a merge is tried */
#define MMI_VMA_MERGE_CHILDREN 14u
#define MMI_VMA_FEW_CHILDREN   6u
#define MMI_VMA_SPARE_AREAS    3u /* a sibling with so many free takes over from a full leaf */

MM_STATIC_ASSERT(sizeof(struct mm_vma) <= 64, "an area fits a cache line");
MM_STATIC_ASSERT(sizeof(struct mm_vma_node) % 64 == 0, "a node is whole cache lines");
MM_STATIC_ASSERT(MM_VMA_LEAF_AREAS == 23 && MM_VMA_INNER_CHILDREN == 19,
                 "the searches know the number of keys");

/* ---- Map: what a node holds ------------------------------------------------------------------ */

#if defined(__SANITIZE_THREAD__)
#define MMI_VMA_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MMI_VMA_TSAN
#endif
#endif

/* Compilers make vector registers of these where the target has them, else words. */
#define MMI_VMA_HERE static inline __attribute__((always_inline))

/* Whether the compiler has vector registers: most kernels do without (-mgeneral-regs-only).
 * Vectors that are compared would be taken to pieces there, lane by lane. */
#ifndef MMI_VMA_VECTORS
#if defined(__SSE2__) || defined(__ARM_NEON)
#define MMI_VMA_VECTORS 1
#else
#define MMI_VMA_VECTORS 0
#endif
#endif

typedef uint32_t mmi_vma_v32 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t mmi_vma_i32 __attribute__((vector_size(16)));
typedef uint64_t mmi_vma_v64 __attribute__((vector_size(16)));
typedef uintptr_t mmi_vma_pair
    __attribute__((vector_size(2 * sizeof(uintptr_t)), aligned(sizeof(uintptr_t)), may_alias));

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

static uintptr_t mmi_vma_min(uintptr_t a, uintptr_t b)
{
    return a < b ? a : b;
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

static void mmi_vma_leaf_move(struct mm_vma_node *to, uintptr_t i, const struct mm_vma_node *from,
                              uintptr_t j)
{
    mmi_vma_put32(&to->u.leaf.start[i], from->u.leaf.start[j]);
    mmi_vma_put32(&to->u.leaf.last[i], from->u.leaf.last[j]);
    mm_store(&to->u.leaf.area[i], from->u.leaf.area[j]);
}

/* mmi_vma_leaf_put for an area that lies within the leaf's stretch. */
MMI_VMA_HERE void mmi_vma_leaf_put_within(struct mm_vma_node *leaf, uintptr_t i,
                                          const struct mm_vma *vma)
{
    mmi_vma_put32(&leaf->u.leaf.start[i], (uint32_t)vma->start);
    mmi_vma_put32(&leaf->u.leaf.last[i], (uint32_t)(vma->end - 1));
    mm_store(&leaf->u.leaf.area[i], (uintptr_t)vma | (vma->flags & MM_VMA_INLINE_FLAGS));
}

/* Four neighbouring slots at once. Plain stores: a reader beside the writer takes nothing from them
 * that it has not seen to be valid since (mmi_vma_read_valid). ThreadSanitizer sees them one by
 * one. */
struct mmi_vma_four {
    mmi_vma_v32 start, last;
    mmi_vma_pair area, more; /* pairs: gcc lets vectors that no register holds go through memory */
};

MMI_VMA_HERE void mmi_vma_four_load(struct mmi_vma_four *four, const struct mm_vma_node *leaf,
                                    uintptr_t i)
{
    four->start = *(const mmi_vma_v32 *)(const void *)&leaf->u.leaf.start[i];
    four->last = *(const mmi_vma_v32 *)(const void *)&leaf->u.leaf.last[i];
    four->area = *(const mmi_vma_pair *)(const void *)&leaf->u.leaf.area[i];
    four->more = *(const mmi_vma_pair *)(const void *)&leaf->u.leaf.area[i + 2];
}

MMI_VMA_HERE void mmi_vma_four_store(const struct mmi_vma_four *four, struct mm_vma_node *leaf,
                                     uintptr_t i)
{
#ifdef MMI_VMA_TSAN
    unsigned k;

    for (k = 0; k < 4; k++) {
        mmi_vma_put32(&leaf->u.leaf.start[i + k], four->start[k]);
        mmi_vma_put32(&leaf->u.leaf.last[i + k], four->last[k]);
        mm_store(&leaf->u.leaf.area[i + k], k < 2 ? four->area[k] : four->more[k - 2]);
    }
#else
    *(mmi_vma_v32 *)(void *)&leaf->u.leaf.start[i] = four->start;
    *(mmi_vma_v32 *)(void *)&leaf->u.leaf.last[i] = four->last;
    *(mmi_vma_pair *)(void *)&leaf->u.leaf.area[i] = four->area;
    *(mmi_vma_pair *)(void *)&leaf->u.leaf.area[i + 2] = four->more;
#endif
}

static void mmi_vma_leaf_copy(struct mm_vma_node *to, const struct mm_vma_node *from)
{
    struct mmi_vma_four four;
    unsigned i;

    for (i = 0; i + 4 <= MM_VMA_LEAF_AREAS; i += 4) {
        mmi_vma_four_load(&four, from, i);
        mmi_vma_four_store(&four, to, i);
    }
    mmi_vma_four_load(&four, from, MM_VMA_LEAF_AREAS - 4);
    mmi_vma_four_store(&four, to, MM_VMA_LEAF_AREAS - 4);
    mmi_vma_put32(&to->u.leaf.count, from->u.leaf.count);
    mmi_vma_put32(&to->u.leaf.high, from->u.leaf.high);
}

/* Slots from `from` on become unused, in fours as far as they go. */
MMI_VMA_HERE void mmi_vma_leaf_cut(struct mm_vma_node *leaf, uintptr_t from)
{
    uintptr_t i = from;

#ifndef MMI_VMA_TSAN
    static const mmi_vma_v32 unused = {MMI_VMA_NO_START, MMI_VMA_NO_START, MMI_VMA_NO_START,
                                       MMI_VMA_NO_START};

    for (; i < leaf->u.leaf.count && i + 4 <= MM_VMA_LEAF_AREAS; i += 4)
        *(mmi_vma_v32 *)(void *)&leaf->u.leaf.start[i] = unused;
#endif
    for (; i < leaf->u.leaf.count; i++)
        mmi_vma_put32(&leaf->u.leaf.start[i], MMI_VMA_NO_START);
    mmi_vma_put32(&leaf->u.leaf.count, (uint32_t)from);
}

/* Opens `n` slots at i, from the top down in fours; the lowest four overlap. */
MMI_VMA_HERE void mmi_vma_leaf_open(struct mm_vma_node *leaf, uintptr_t i, uintptr_t n)
{
    struct mmi_vma_four low, four;
    uintptr_t k = leaf->u.leaf.count;

    mmi_vma_put32(&leaf->u.leaf.count, (uint32_t)(k + n));
    if (i + n + 4 > MM_VMA_LEAF_AREAS) {
        for (; k > i; k--)
            mmi_vma_leaf_move(leaf, k - 1 + n, leaf, k - 1);
        return;
    }
    mmi_vma_four_load(&low, leaf, i);
    /* slots 3, 7, ... 19 begin at a multiple of 16 bytes; what is moved from beyond the count was
     * unused and stays so (M1) */
    for (k = (k + n) & ~(uintptr_t)3; k > i + n + 1; k -= 4) {
        mmi_vma_four_load(&four, leaf, k - 1 - n);
        mmi_vma_four_store(&four, leaf, k - 1);
    }
    mmi_vma_four_store(&low, leaf, i + n);
}

/* Closes `n` slots from i on. */
MMI_VMA_HERE void mmi_vma_leaf_close(struct mm_vma_node *leaf, uintptr_t i, uintptr_t n)
{
    struct mmi_vma_four four;
    uintptr_t count = leaf->u.leaf.count - n;

    for (; i < count && i + n + 4 <= MM_VMA_LEAF_AREAS; i += 4) {
        mmi_vma_four_load(&four, leaf, i + n);
        mmi_vma_four_store(&four, leaf, i);
    }
    for (; i < count; i++)
        mmi_vma_leaf_move(leaf, i, leaf, i + n);
    if (n != 1) { /* an erase closes one, and folds to that */
        mmi_vma_leaf_cut(leaf, count);
        return;
    }
    mmi_vma_put32(&leaf->u.leaf.start[count], MMI_VMA_NO_START);
    mmi_vma_put32(&leaf->u.leaf.count, (uint32_t)count);
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

/* The longer of gaps and those before slots i to i + 3, all less 2^31, so that any processor can
 * compare them. No vector is a result: a kernel's compiler may have no registers for them. */
MMI_VMA_HERE void mmi_vma_four_gaps(mmi_vma_i32 *most, const struct mmi_vma_leaf *l, unsigned i)
{
    mmi_vma_i32 gaps =
        (mmi_vma_i32)(*(const mmi_vma_v32 *)(const void *)&l->start[i] -
                      *(const mmi_vma_v32 *)(const void *)&l->last[i - 1] + 0x7fffffffu);
    mmi_vma_i32 more = gaps > *most;

    *most = (gaps & more) | (*most & ~more);
}

/* Longest gap between a leaf's areas: in fours, the last of which may lie over the one before. */
static uint32_t mmi_vma_gap_between(const struct mmi_vma_leaf *l)
{
    mmi_vma_i32 most = {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    uint32_t gap, max = 0;
    unsigned i;

    if (!MMI_VMA_VECTORS || l->count < 5) {
        for (i = 1; i < l->count; i++) {
            gap = l->start[i] - l->last[i - 1] - 1;
            max = gap > max ? gap : max;
        }
        return max;
    }
    for (i = 1; i + 4 < l->count; i += 4)
        mmi_vma_four_gaps(&most, l, i);
    mmi_vma_four_gaps(&most, l, l->count - 4);
    for (i = 1; i < 4; i++)
        most[0] = most[i] > most[0] ? most[i] : most[0];
    return (uint32_t)most[0] + 0x80000000u;
}

/* `next` is the start of the first area behind the leaf, or MMI_VMA_TOP. */
static uint32_t mmi_vma_leaf_gap(const struct mm_vma_node *leaf, uintptr_t next)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    uint32_t behind = mmi_vma_sat(next - mmi_vma_leaf_end(leaf, l->count - 1));
    uint32_t between = mmi_vma_gap_between(l);

    return behind > between ? behind : between;
}

static uintptr_t mmi_vma_first(const struct mm_vma_node *node, uintptr_t level)
{
    return level == 0 ? mmi_vma_leaf_start(node, 0) : node->u.inner.key[0];
}

/* ---- Map: nodes ------------------------------------------------------------------------------ */

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
static struct mm_vma_node *mmi_vma_node_take(struct mm_vma_map *map)
{
    struct mm_vma_node *node = map->pool;

    MM_VMA_ASSERT(node != NULL);
    map->pool = node->u.next;
    map->pooled--;
    map->nodes++;
    return node;
}

static struct mm_vma_node *mmi_vma_leaf_take(struct mm_vma_map *map, uint32_t high)
{
    static const struct mmi_vma_four unused = {
        {MMI_VMA_NO_START, MMI_VMA_NO_START, MMI_VMA_NO_START, MMI_VMA_NO_START},
        {0, 0, 0, 0},
        {0, 0},
        {0, 0}};
    struct mm_vma_node *leaf = mmi_vma_node_take(map);
    unsigned i;

    for (i = 0; i + 4 <= MM_VMA_LEAF_AREAS; i += 4)
        mmi_vma_four_store(&unused, leaf, i);
    mmi_vma_four_store(&unused, leaf, MM_VMA_LEAF_AREAS - 4);
    mmi_vma_put32(&leaf->u.leaf.count, 0);
    mmi_vma_put32(&leaf->u.leaf.high, high);
    return leaf;
}

static struct mm_vma_node *mmi_vma_inner_take(struct mm_vma_map *map)
{
    struct mm_vma_node *node = mmi_vma_node_take(map);
    unsigned i;

    for (i = 0; i < MM_VMA_INNER_CHILDREN; i++)
        mm_store(&node->u.inner.key[i], UINTPTR_MAX);
    mmi_vma_put32(&node->u.inner.count, 0);
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

/* Number of the leaf's areas that start up to `page`. */
MMI_VMA_HERE unsigned mmi_vma_leaf_upto(const struct mm_vma_node *leaf, uintptr_t page)
{
    uint32_t high = MMI_VMA_HIGH(page);

    if (MM_LIKELY(leaf->u.leaf.high == high))
        return mmi_vma_leaf_rank(leaf, (uint32_t)page, false);
    return leaf->u.leaf.high < high ? leaf->u.leaf.count : 0;
}

/* Goes down to where `page` belongs: at[0] is the number of the leaf's areas that start up to
 * it. */
MMI_VMA_HERE void mmi_vma_seek_here(struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                    uintptr_t page)
{
    struct mm_vma_node *node = map->root;
    uintptr_t level;
    bool tall = map->height > MMI_VMA_NEAR_LEVELS;

    for (level = map->height; level != 0; level--) {
        unsigned at = mmi_vma_inner_rank(node, page, false);

        c->node[level] = node;
        c->at[level] = at;
        node = node->u.inner.child[at];
        if (tall)
            mmi_vma_fetch(node);
    }
    c->node[0] = node;
    c->at[0] = mmi_vma_leaf_upto(node, page);
}

static void mmi_vma_seek(struct mm_vma_cursor *c, const struct mm_vma_map *map, uintptr_t page)
{
    mmi_vma_seek_here(c, map, page);
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

/* Moves the path to the leaf after (before) it, at[0] to its first (last) area; false at the end,
 * where the path stays. */
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
        c->at[level - 1] =
            level == 1 ? c->node[0]->u.leaf.count - 1 : c->node[level - 1]->u.inner.count - 1;
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

/* The leaf before the path's, or NULL. */
static const struct mm_vma_node *mmi_vma_leaf_below(const struct mm_vma_cursor *c,
                                                    const struct mm_vma_map *map)
{
    const struct mm_vma_node *node;
    uintptr_t level = 1;

    while (level <= map->height && c->at[level] == 0)
        level++;
    if (level > map->height)
        return NULL;
    node = c->node[level]->u.inner.child[c->at[level] - 1];
    while (--level != 0)
        node = node->u.inner.child[node->u.inner.count - 1];
    return node;
}

/* The area in slot at[0] - 1, or the last of the leaf before, or NULL. */
static struct mm_vma *mmi_vma_pred(const struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    const struct mm_vma_node *leaf;

    if (c->at[0] != 0)
        return mmi_vma_leaf_area(c->node[0], c->at[0] - 1);
    leaf = mmi_vma_leaf_below(c, map);
    return leaf != NULL ? mmi_vma_leaf_area(leaf, leaf->u.leaf.count - 1) : NULL;
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

/* ---- Map: keeping keys and gaps true (M3, M4) ------------------------------------------------ */

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
        uint32_t *noted = &c->node[level]->u.inner.gap[c->at[level]], was = *noted;

        if (was == gap && !all)
            return;
        mmi_vma_put32(noted, gap);
        if (!all && level < map->height && was < c->node[level + 1]->u.inner.gap[c->at[level + 1]])
            return; /* another child has the longest */
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

/* ---- Map: insert ----------------------------------------------------------------------------- */

/* A new root above the old one and `child`. */
static void mmi_vma_grow(struct mm_vma_map *map, struct mm_vma_node *child, uintptr_t key,
                         uint32_t gap_left, uint32_t gap)
{
    struct mm_vma_node *root = mmi_vma_inner_take(map);

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
        right = mmi_vma_inner_take(map);
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
    right = mmi_vma_leaf_take(map, leaf->u.leaf.high);
    mmi_vma_shift_right(leaf, right, MM_VMA_LEAF_AREAS - keep);
    first = mmi_vma_leaf_start(right, 0);
    mmi_vma_add_child(c, map, 1, right, first, mmi_vma_leaf_gap(leaf, first),
                      mmi_vma_leaf_gap(right, behind));
}

/* A leaf of its own for an area that no leaf's stretch fits, behind the path's leaf, or before it
 * where that is the first. */
static void mmi_vma_insert_leaf(struct mm_vma_cursor *c, struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_node *leaf = c->node[0], *added, *own;
    uint32_t high = MMI_VMA_HIGH(vma->start);
    uintptr_t behind = mmi_vma_behind(c, map, 0);
    bool first = c->at[0] == 0;

    added = mmi_vma_leaf_take(map, first ? leaf->u.leaf.high : high);
    own = first ? leaf : added;
    if (first) { /* swap roles: the leaf's areas move to the new one */
        mmi_vma_shift_left(added, leaf, leaf->u.leaf.count);
        mmi_vma_put32(&leaf->u.leaf.high, high);
    }
    mmi_vma_leaf_put(own, 0, vma);
    mmi_vma_put32(&own->u.leaf.count, 1);
    if (first)
        mmi_vma_fix_first(c, map);
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

/* Between two areas of the path's leaf, which has room: the most frequent insert. */
MMI_VMA_HERE void mmi_vma_insert_between(struct mm_vma_cursor *c, struct mm_vma_map *map,
                                         struct mm_vma *vma)
{
    struct mm_vma_node *leaf = c->node[0];
    unsigned i = c->at[0];
    uint32_t was = leaf->u.leaf.start[i] - leaf->u.leaf.last[i - 1] - 1;

    mmi_vma_leaf_open(leaf, i, 1);
    mmi_vma_leaf_put_within(leaf, i, vma);
    map->count++;
    if (map->height != 0 && was >= c->node[1]->u.inner.gap[c->at[1]])
        mmi_vma_fix_gaps(c, map, false);
}

/* Inserts at the path, which mmi_vma_seek(vma->start) made. Nodes are reserved; nothing
 * overlaps. */
static void mmi_vma_insert_at(struct mm_vma_cursor *c, struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_node *leaf;
    uintptr_t end, next;
    unsigned i;

    vma->link = NULL;
    if (map->root == NULL) {
        leaf = mmi_vma_leaf_take(map, MMI_VMA_HIGH(vma->start));
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
    if (MM_LIKELY(i != 0 && i != leaf->u.leaf.count)) {
        mmi_vma_insert_between(c, map, vma);
        return;
    }
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

/* ---- Map: erase ------------------------------------------------------------------------------ */

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
    /* to the gap's owner; or, where the leaf's key still stands above, to what is first below
     * that */
    mmi_vma_seek(c, map, page);
    mmi_vma_fix_first(c, map);
    mmi_vma_fix_gaps(c, map, true);
    if (c->at[0] == 0 && mmi_vma_leaf_before(c, map))
        mmi_vma_fix_gaps(c, map, true);
}

/* Takes out the area in slot at[0] of the path. True: the path stands, and its slot is what
 * followed. */
static bool mmi_vma_erase_at(struct mm_vma_cursor *c, struct mm_vma_map *map)
{
    struct mm_vma_cursor before;
    struct mm_vma_node *leaf = c->node[0];
    unsigned i = c->at[0];
    uintptr_t start, end, next;

    if (MM_LIKELY(i != 0 && i + 1 < leaf->u.leaf.count)) {
        mmi_vma_leaf_close(leaf, i, 1);
        map->count--;
        if (map->height == 0)
            return true;
        mmi_vma_raise(c, map, leaf->u.leaf.start[i] - leaf->u.leaf.last[i - 1] - 1);
        if (leaf->u.leaf.count >= MMI_VMA_FEW_AREAS)
            return true;
        mmi_vma_shrink(c, map, 0);
        return false;
    }
    start = mmi_vma_leaf_start(leaf, i);
    end = mmi_vma_leaf_end(leaf, i);
    next = mmi_vma_follower(c, map, i);
    mmi_vma_leaf_close(leaf, i, 1);
    map->count--;
    if (MM_UNLIKELY(leaf->u.leaf.count == 0)) {
        mmi_vma_drop_leaf(c, map, start);
        return false;
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
    if (leaf->u.leaf.count >= MMI_VMA_FEW_AREAS)
        return true;
    mmi_vma_shrink(c, map, 0);
    return false;
}

/* ---- Map: moving an area's bounds ------------------------------------------------------------ */

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

static void mmi_vma_find_slot(struct mm_vma_cursor *c, const struct mm_vma_map *map, uintptr_t page)
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
    (void)mmi_vma_erase_at(&c, map);
    mm_store(&vma->start, start);
    if (map->root != NULL)
        mmi_vma_seek(&c, map, start);
    mmi_vma_insert_at(&c, map, vma);
}

static void mmi_vma_erase(struct mm_vma_map *map, const struct mm_vma *vma)
{
    struct mm_vma_cursor c;

    mmi_vma_find_slot(&c, map, vma->start);
    (void)mmi_vma_erase_at(&c, map);
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
    mm_store(&c.node[0]->u.leaf.area[c.at[0]], (uintptr_t)vma | (flags & MM_VMA_INLINE_FLAGS));
}

/* ---- Map: several slots at once -------------------------------------------------------------- */

/* Slots [i, j) of the path's leaf, which are all that overlap a range. What touches the range from
 * below is in the leaf too; what touches it from above may begin the next leaf. */
struct mmi_vma_patch {
    struct mm_vma_cursor c;
    unsigned i, j;
    bool beyond;     /* it does */
    bool first;      /* the leaf's first start may change, which stands in keys above */
    bool full;       /* the leaf lacks room */
    bool wide;       /* there are areas of the range in the next leaf too */
    uintptr_t head;  /* that start */
    uintptr_t floor; /* where the area before that ends, or 0 */
    uintptr_t next;  /* start of what follows the slots, or MMI_VMA_TOP */
    uint32_t was;    /* the longest of the leaf's gaps (M4) that change, 0: none does */
    uint32_t now;    /* the longest that they become */
};

/* Whether all slots end within the leaf's stretch, and the patch's can become `more` and what is
 * left of the first and the last of them. */
static bool mmi_vma_patch_fits(struct mmi_vma_patch *p, uintptr_t start, uintptr_t end,
                               unsigned more)
{
    const struct mmi_vma_leaf *l = &p->c.node[0]->u.leaf;
    unsigned gone = p->j - p->i;

    if (l->last[l->count - 1] == UINT32_MAX)
        return false;
    if (gone != 0)
        more += (unsigned)(l->start[p->i] < (uint32_t)start) +
                (unsigned)(l->last[p->j - 1] >= (uint32_t)end);
    if (gone == l->count)
        return false;
    p->full = l->count + more > gone + MM_VMA_LEAF_AREAS;
    return !p->full;
}

/* Starts on the areas of slot i and the next three, which a patch mostly is; where a slot that is
 * not used leads to does no harm. */
static void mmi_vma_fetch_areas(const struct mm_vma_node *leaf, unsigned i)
{
    const uintptr_t *area =
        &leaf->u.leaf.area[i < MM_VMA_LEAF_AREAS - 4 ? i : MM_VMA_LEAF_AREAS - 4];

    MMI_VMA_PREFETCH(mmi_vma_of_word(area[0]));
    MMI_VMA_PREFETCH(mmi_vma_of_word(area[1]));
    MMI_VMA_PREFETCH(mmi_vma_of_word(area[2]));
    MMI_VMA_PREFETCH(mmi_vma_of_word(area[3]));
}

/* The patch begins at or before the first slot. False: there is another leaf, and the patch has no
 * slot, or a new area might join what lies before it there. */
static bool mmi_vma_patch_first(struct mmi_vma_patch *p, const struct mm_vma_map *map,
                                uintptr_t start, unsigned more)
{
    const struct mm_vma_node *below = mmi_vma_leaf_below(&p->c, map);

    p->head = mmi_vma_leaf_start(p->c.node[0], 0);
    p->floor = below != NULL ? mmi_vma_leaf_end(below, below->u.leaf.count - 1) : 0;
    return map->height == 0 || (p->j != 0 && (more == 0 || p->floor != start));
}

/* Number of the leaf's starts up to `low`, the first `from` of which are: few follow. No unused
 * slot's is (M1): `low` is less than 2^32 - 1. */
MMI_VMA_HERE unsigned mmi_vma_leaf_rank_from(const struct mm_vma_node *leaf, unsigned from,
                                             uint32_t low)
{
    unsigned i = from < MM_VMA_LEAF_AREAS - 4 ? from : MM_VMA_LEAF_AREAS - 4;
    const uint32_t *start = &leaf->u.leaf.start[i];
    unsigned n = i;

    n += (unsigned)(start[0] <= low);
    n += (unsigned)(start[1] <= low);
    n += (unsigned)(start[2] <= low);
    n += (unsigned)(start[3] <= low);
    return MM_LIKELY(n < i + 4) ? n : mmi_vma_leaf_rank(leaf, low, false);
}

/* Finds [start, end), which `more` areas are to take. False: it is not so, or there is no room, or
 * no slot would be left. */
static bool mmi_vma_patch_find(struct mmi_vma_patch *p, const struct mm_vma_map *map,
                               uintptr_t start, uintptr_t end, unsigned more)
{
    const struct mmi_vma_leaf *l;
    unsigned i, j;
    bool last;

    p->full = p->wide = false;
    p->was = p->now = 0;
    if (MM_UNLIKELY(map->root == NULL || MMI_VMA_HIGH(start) != MMI_VMA_HIGH(end)))
        return false;
    mmi_vma_seek_here(&p->c, map, start);
    l = &p->c.node[0]->u.leaf;
    if (l->high != MMI_VMA_HIGH(start))
        return false;
    i = p->c.at[0];
    j = mmi_vma_leaf_rank_from(p->c.node[0], i, (uint32_t)(end - 1));
    /* no branch: whether it begins within an area nobody can guess; slot 0 may begin behind it */
    i -= (unsigned)(i != 0);
    i += (unsigned)(l->last[i] < (uint32_t)start);
    p->i = i;
    p->j = j;
    if (map->height > MMI_VMA_NEAR_LEVELS)
        mmi_vma_fetch_areas(p->c.node[0], i - (unsigned)(i != 0));
    p->first = i == 0 && l->start[0] >= (uint32_t)start;
    if (p->first && !mmi_vma_patch_first(p, map, start, more))
        return false;
    last = j == l->count;
    p->next = last ? mmi_vma_behind(&p->c, map, 0) : mmi_vma_page_at(l->high, l->start[j]);
    p->beyond = last && p->next == end;
    p->wide = p->next < end;
    return mmi_vma_patch_fits(p, start, end, more) && !p->wide;
}

/* Where the leaf's first start changed, keys above and the gap before follow. */
static void mmi_vma_patch_head(struct mmi_vma_patch *p, struct mm_vma_map *map)
{
    uintptr_t now = mmi_vma_leaf_start(p->c.node[0], 0);

    if (now == p->head)
        return;
    mmi_vma_fix_first(&p->c, map);
    p->c.at[0] = 0;
    mmi_vma_gap_before_changed(&p->c, map, p->head - p->floor, now - p->floor);
}

/* Puts those of three areas that are not NULL into the slots before `to`. */
MMI_VMA_HERE void mmi_vma_leaf_put_some(struct mm_vma_node *leaf, uintptr_t to,
                                        const struct mm_vma *a, const struct mm_vma *b,
                                        const struct mm_vma *c)
{
    if (c != NULL)
        mmi_vma_leaf_put_within(leaf, --to, c);
    if (b != NULL)
        mmi_vma_leaf_put_within(leaf, --to, b);
    if (a != NULL)
        mmi_vma_leaf_put_within(leaf, --to, a);
}

/* Puts those of three areas that are not NULL into the place of the patch's slots, and does with
 * the path what that asks for. At least one slot of the leaf is left. */
static void mmi_vma_patch_put(struct mmi_vma_patch *p, struct mm_vma_map *map,
                              const struct mm_vma *a, const struct mm_vma *b,
                              const struct mm_vma *c)
{
    struct mm_vma_node *leaf = p->c.node[0];
    uintptr_t j = p->j, to = p->i;
    uint32_t noted;

    to += (uintptr_t)(a != NULL) + (uintptr_t)(b != NULL) + (uintptr_t)(c != NULL);
    if (to > j)
        mmi_vma_leaf_open(leaf, j, to - j);
    else if (to < j)
        mmi_vma_leaf_close(leaf, to, j - to);
    mmi_vma_leaf_put_some(leaf, to, a, b, c);
    map->count += to;
    map->count -= j;
    if (map->height == 0)
        return;
    noted = p->c.node[1]->u.inner.gap[p->c.at[1]];
    if (p->now > noted)
        mmi_vma_raise(&p->c, map, p->now);
    else if (p->now < p->was && p->was == noted)
        mmi_vma_fix_gaps(&p->c, map, false);
    if (MM_UNLIKELY(p->first))
        mmi_vma_patch_head(p, map);
    if (to < j && leaf->u.leaf.count < MMI_VMA_FEW_AREAS)
        mmi_vma_shrink(&p->c, map, 0);
}

/* ---- Map: the calls -------------------------------------------------------------------------- */

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

/* Nothing of the map overlaps `vma`, whose place the path is. */
static bool mmi_vma_vacant(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                           const struct mm_vma *vma)
{
    const struct mm_vma_node *leaf = c->node[0];
    unsigned i = c->at[0];

    if (i != 0 && mmi_vma_leaf_end(leaf, i - 1) > vma->start)
        return false;
    return vma->end <=
           (i < leaf->u.leaf.count ? mmi_vma_leaf_start(leaf, i) : mmi_vma_behind(c, map, 0));
}

MM_VMA_API enum mm_status mm_vma_map_insert(struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_cursor c;
    bool between = false;
    unsigned count;

    if (vma == NULL || ((uintptr_t)vma & MM_VMA_INLINE_FLAGS) != 0 || vma->start >= vma->end ||
        vma->end > MMI_VMA_TOP)
        return MM_ERR_INVALID;
    if (map->root != NULL) {
        mmi_vma_seek_here(&c, map, vma->start);
        if (!mmi_vma_vacant(&c, map, vma))
            return MM_ERR_EXISTS;
        count = c.node[0]->u.leaf.count;
        between = c.at[0] != 0 && c.at[0] < count && count < MM_VMA_LEAF_AREAS;
    }
    if (!between && mmi_vma_reserve_at(&c, map, vma) != MM_OK)
        return MM_ERR_NOMEM;
    mmi_vma_write_begin(map);
    if (MM_LIKELY(between))
        mmi_vma_insert_between(&c, map, vma);
    else
        mmi_vma_insert_at(&c, map, vma);
    vma->link = NULL;
    mmi_vma_write_end(map);
    return MM_OK;
}

MM_VMA_API enum mm_status mm_vma_map_erase(struct mm_vma_map *map, struct mm_vma *vma)
{
    struct mm_vma_cursor c;

    if (vma == NULL || map->root == NULL)
        return MM_ERR_NOENT;
    mmi_vma_seek_here(&c, map, vma->start);
    if (c.at[0] == 0 || mmi_vma_leaf_area(c.node[0], c.at[0] - 1) != vma)
        return MM_ERR_NOENT;
    c.at[0]--;
    mmi_vma_write_begin(map);
    (void)mmi_vma_erase_at(&c, map);
    mmi_vma_write_end(map);
    return MM_OK;
}

/* Nothing has changed since the even sequence `seq` was read. */
static bool mmi_vma_read_valid(const struct mm_vma_map *map, uintptr_t seq)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return (seq & 1) == 0 && mm_load(&map->seq) == seq;
}

/* The word of the area that starts last up to `page`, beside a writer: what is read is followed
 * only once it is known to belong together. False: a writer was there. */
static bool mmi_vma_read_word(const struct mm_vma_map *map, uintptr_t seq, uintptr_t page,
                              uintptr_t *word)
{
    uintptr_t level = mm_load(&map->height);
    const struct mm_vma_node *node = __atomic_load_n(&map->root, __ATOMIC_RELAXED);
    uint32_t high;
    unsigned i;

    *word = 0;
    for (;; level--) {
        if (!mmi_vma_read_valid(map, seq))
            return false;
        if (level == 0 || node == NULL)
            break;
        node = mmi_vma_child(node, mmi_vma_inner_rank(node, page, true));
    }
    if (node == NULL)
        return true;
    high = mmi_vma_get32(&node->u.leaf.high);
    i = high == MMI_VMA_HIGH(page) ? mmi_vma_leaf_rank(node, (uint32_t)page, true) : 0;
    if (high < MMI_VMA_HIGH(page))
        i = mmi_vma_get32(&node->u.leaf.count);
    if (i != 0 && i <= MM_VMA_LEAF_AREAS)
        *word = mm_load(&node->u.leaf.area[i - 1]);
    return mmi_vma_read_valid(map, seq);
}

MM_VMA_API enum mm_status mm_vma_map_read(const struct mm_vma_map *map, mm_va_t va,
                                          struct mm_vma_view *view)
{
    uintptr_t seq = mm_load_acquire(&map->seq), word;
    const struct mm_vma *vma;

    if (MMI_VMA_BEYOND(va))
        return MM_ERR_NOENT;
    if (!mmi_vma_read_word(map, seq, (uintptr_t)(va >> MM_PAGE_SHIFT), &word))
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
    if (!mmi_vma_read_valid(map, seq))
        return MM_ERR_BUSY;
    return va < view->end ? MM_OK : MM_ERR_NOENT;
}

/* ---- Map: gaps ------------------------------------------------------------------------------- */

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

/* Adds to *bits those of the gaps behind slots i to i + 3 that are longer than `limit` + 2^31 - 1
 * pages, each in its lane with its weight. */
MMI_VMA_HERE void mmi_vma_four_fits(mmi_vma_i32 *bits, const struct mmi_vma_leaf *l, unsigned i,
                                    int32_t limit, int32_t weight)
{
    const mmi_vma_i32 limits = {limit, limit, limit, limit};
    const mmi_vma_i32 weights = {weight, weight << 1, weight << 2, weight << 3};
    mmi_vma_i32 gaps = (mmi_vma_i32)(*(const mmi_vma_v32 *)(const void *)&l->start[i + 1] -
                                     *(const mmi_vma_v32 *)(const void *)&l->last[i] + 0x80000000u);

    *bits |= (gaps > limits) & weights;
}

MMI_VMA_HERE unsigned mmi_vma_fits_in_fours(const struct mmi_vma_leaf *l, uint32_t least)
{
    const int32_t limit = (int32_t)(least ^ 0x80000000u); /* signed, as in mmi_vma_four_gaps */
    mmi_vma_i32 bits = {0, 0, 0, 0};
    mmi_vma_v64 pair;
    uint64_t both;

    mmi_vma_four_fits(&bits, l, 0, limit, 1);
    mmi_vma_four_fits(&bits, l, 4, limit, 1 << 4);
    mmi_vma_four_fits(&bits, l, 8, limit, 1 << 8);
    mmi_vma_four_fits(&bits, l, 12, limit, 1 << 12);
    mmi_vma_four_fits(&bits, l, 16, limit, 1 << 16);
    mmi_vma_four_fits(&bits, l, MM_VMA_LEAF_AREAS - 5, limit, 1 << (MM_VMA_LEAF_AREAS - 5));
    pair = (mmi_vma_v64)bits;
    both = pair[0] | pair[1];
    return (unsigned)(both | both >> 32);
}

MMI_VMA_HERE unsigned mmi_vma_fits_one_by_one(const struct mmi_vma_leaf *l, uint32_t least)
{
    unsigned k, bits = 0;

#pragma GCC unroll 22
    for (k = MM_VMA_LEAF_AREAS - 1; k-- != 0;)
        bits = bits * 2 + (unsigned)(l->start[k + 1] - l->last[k] > least);
    return bits;
}

/* Which of the gaps behind slots from to to - 1 have `least` pages or more: bit k stands for that
 * behind slot k; slot `to` is used. All of the leaf's are looked at, before it is known which of
 * them count: a branch for each could not be foreseen and would mostly be waited for. */
MMI_VMA_HERE unsigned mmi_vma_fits(const struct mmi_vma_leaf *l, unsigned from, unsigned to,
                                   uint32_t least)
{
    unsigned bits =
        MMI_VMA_VECTORS ? mmi_vma_fits_in_fours(l, least) : mmi_vma_fits_one_by_one(l, least);

    return bits & ((1u << to) - 1) & (0u - (1u << from));
}

/* Start of what follows the last area of `leaf`, to which the path leads; no path: it is the
 * root. */
MMI_VMA_HERE uintptr_t mmi_vma_leaf_behind(const struct mm_vma_cursor *c,
                                           const struct mm_vma_map *map)
{
    return c == NULL ? MMI_VMA_TOP : mmi_vma_behind(c, map, 0);
}

/* Fits behind the areas of a leaf (see mmi_vma_leaf_behind) from slot i upwards. */
MMI_VMA_HERE uintptr_t mmi_vma_scan_low(const struct mm_vma_node *leaf,
                                        const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                                        const struct mmi_vma_want *want, unsigned i)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    uint32_t least = mmi_vma_sat(want->pages);
    unsigned k, count = l->count, bits = mmi_vma_fits(l, i, count - 1, least);
    uintptr_t page;

    for (; bits != 0; bits &= bits - 1) {
        k = mm_ctz(bits);
        page = mmi_vma_fit_low(want, mmi_vma_page_at(l->high, l->last[k]) + 1,
                               mmi_vma_leaf_start(leaf, k + 1));
        if (MM_LIKELY(page != MMI_VMA_NONE))
            return page;
    }
    return mmi_vma_fit_low(want, mmi_vma_leaf_end(leaf, count - 1), mmi_vma_leaf_behind(c, map));
}

/* The same below slot i downwards. */
MMI_VMA_HERE uintptr_t mmi_vma_scan_high(const struct mm_vma_node *leaf,
                                         const struct mm_vma_cursor *c,
                                         const struct mm_vma_map *map,
                                         const struct mmi_vma_want *want, unsigned i)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page;
    unsigned bits, k, covered;

    /* what begins below want->high and ends beyond has no gap behind it that counts */
    covered = (unsigned)(i != 0 && mmi_vma_leaf_end(leaf, i - 1) >= want->high);
    if (i == l->count) {
        i--;
        page = mmi_vma_fit_high(want, mmi_vma_leaf_end(leaf, i), mmi_vma_leaf_behind(c, map));
        if (page != MMI_VMA_NONE)
            return page;
        covered = 0;
    }
    bits = mmi_vma_fits(l, 0, i - covered, least);
    for (; bits != 0; bits ^= 1u << k) {
        k = mm_fls(bits);
        page = mmi_vma_fit_high(want, mmi_vma_page_at(l->high, l->last[k]) + 1,
                                mmi_vma_leaf_start(leaf, k + 1));
        if (MM_LIKELY(page != MMI_VMA_NONE))
            return page;
    }
    return MMI_VMA_NONE;
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
static bool mmi_vma_leaf_may(const struct mm_vma_cursor *c, uint32_t least)
{
    return c->node[1]->u.inner.gap[c->at[1]] >= least;
}

static MM_NOINLINE uintptr_t mmi_vma_tree_lowest(const struct mm_vma_map *map,
                                                 const struct mmi_vma_want *want)
{
    struct mm_vma_cursor c;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page;
    unsigned i;
    bool may;

    mmi_vma_seek_here(&c, map, want->low);
    i = c.at[0];
    if (i == 0) { /* before the first area of all */
        page = mmi_vma_fit_low(want, 0, mmi_vma_leaf_start(c.node[0], 0));
        if (page != MMI_VMA_NONE)
            return page;
    }
    i -= (unsigned)(i != 0);
    may = mmi_vma_leaf_may(&c, least);
    for (;;) {
        page = may ? mmi_vma_scan_low(c.node[0], &c, map, want, i) : MMI_VMA_NONE;
        if (page != MMI_VMA_NONE || !mmi_vma_gap_above(&c, map, least) ||
            mmi_vma_leaf_start(c.node[0], 0) >= want->high)
            return page;
        i = 0;
        may = true;
    }
}

static MM_NOINLINE uintptr_t mmi_vma_tree_highest(const struct mm_vma_map *map,
                                                  const struct mmi_vma_want *want)
{
    struct mm_vma_cursor c;
    uint32_t least = mmi_vma_sat(want->pages);
    uintptr_t page;
    unsigned i;
    bool may;

    mmi_vma_seek_here(&c, map, want->high - 1);
    i = c.at[0];
    may = mmi_vma_leaf_may(&c, least);
    for (;; may = true) {
        page = may ? mmi_vma_scan_high(c.node[0], &c, map, want, i) : MMI_VMA_NONE;
        if (page != MMI_VMA_NONE)
            return page;
        if (!mmi_vma_gap_below(&c, map, least))
            return mmi_vma_fit_high(want, 0, mmi_vma_first(map->root, map->height));
        if (mmi_vma_behind(&c, map, 0) <= want->low)
            return MMI_VMA_NONE;
        i = c.node[0]->u.leaf.count;
    }
}

/* A map of one leaf is searched without a path: that is half of the work there. */
static uintptr_t mmi_vma_lowest(const struct mm_vma_map *map, const struct mmi_vma_want *want)
{
    const struct mm_vma_node *leaf = map->root;
    uintptr_t page = MMI_VMA_NONE;
    unsigned i;

    if (leaf == NULL)
        return mmi_vma_fit_low(want, 0, MMI_VMA_TOP);
    if (map->height != 0)
        return mmi_vma_tree_lowest(map, want);
    i = mmi_vma_leaf_upto(leaf, want->low);
    if (i == 0)
        page = mmi_vma_fit_low(want, 0, mmi_vma_leaf_start(leaf, 0));
    return page != MMI_VMA_NONE ? page
                                : mmi_vma_scan_low(leaf, NULL, map, want, i - (unsigned)(i != 0));
}

static uintptr_t mmi_vma_highest(const struct mm_vma_map *map, const struct mmi_vma_want *want)
{
    const struct mm_vma_node *leaf = map->root;
    uintptr_t page;

    if (leaf == NULL)
        return mmi_vma_fit_high(want, 0, MMI_VMA_TOP);
    if (map->height != 0)
        return mmi_vma_tree_highest(map, want);
    page = mmi_vma_scan_high(leaf, NULL, map, want, mmi_vma_leaf_upto(leaf, want->high - 1));
    return page != MMI_VMA_NONE ? page : mmi_vma_fit_high(want, 0, mmi_vma_leaf_start(leaf, 0));
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

/* ---- Map: walking ---------------------------------------------------------------------------- */

/* The path to the first leaf. */
static void mmi_vma_leftmost(struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    uintptr_t level;

    c->node[map->height] = map->root;
    c->at[map->height] = 0;
    for (level = map->height; level != 0; level--) {
        c->node[level - 1] = c->node[level]->u.inner.child[0];
        c->at[level - 1] = 0;
    }
}

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

/* A walk has come to a leaf: starts on the leaves behind it, unless the map is small. Areas are not
 * fetched: their addresses come from the leaf, so that their latencies overlap by themselves. */
static void mmi_vma_ahead(const struct mm_vma_cursor *c, const struct mm_vma_map *map)
{
    const struct mmi_vma_inner *n;
    unsigned at;

    if (map->height < 2)
        return;
    n = &c->node[1]->u.inner;
    at = c->at[1];
    if (at == 0 && n->count > 1)
        mmi_vma_fetch(n->child[1]);
    if (at + 2 < n->count)
        mmi_vma_fetch(n->child[at + 2]);
}

MM_VMA_API struct mm_vma *mmi_vma_cursor_leaf_next(struct mm_vma_cursor *cursor)
{
    if (cursor->node[0] == NULL || !mmi_vma_leaf_after(cursor, cursor->map))
        return NULL;
    mmi_vma_ahead(cursor, cursor->map);
    return mmi_vma_leaf_area(cursor->node[0], 0);
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

/* ---- Map: duplicate -------------------------------------------------------------------------- */

/* Nodes that are being filled, one a level; the highest is the root to be. */
struct mmi_vma_build {
    struct mm_vma_map *map;
    struct mm_vma_node *open[MM_VMA_LEVELS];
    uintptr_t top;
    struct mm_vma *(*copy)(void *ctx, struct mm_vma *area, bool *failed);
    void *ctx;
    bool failed;
};

/* Hangs the open node of `level` below the open one above it, which has room. */
static void mmi_vma_build_hang(struct mmi_vma_build *b, uintptr_t level, uint32_t gap)
{
    struct mm_vma_node *parent = b->open[level + 1];

    if (parent == NULL) {
        parent = mmi_vma_inner_take(b->map);
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

    while (b->open[level + 1] != NULL && b->open[level + 1]->u.inner.count == MM_VMA_INNER_CHILDREN)
        level++;
    for (; level != 0; level--) {
        mmi_vma_build_hang(b, level, mmi_vma_inner_gap(b->open[level]));
        b->open[level] = mmi_vma_inner_take(b->map);
    }
    mmi_vma_build_hang(b, 0, mmi_vma_leaf_gap(b->open[0], next));
    b->open[0] = NULL;
}

/* A copy of a leaf, with the areas that `copy` returns in the place of its own: bounds are the
 * same, so that only addresses and flags are new. NULL if there is none. */
static struct mm_vma_node *mmi_vma_build_copy(struct mmi_vma_build *b,
                                              const struct mm_vma_node *from)
{
    struct mm_vma_node *leaf = mmi_vma_node_take(b->map);
    unsigned i, n = 0, count = from->u.leaf.count;
    struct mm_vma *twin;

    mmi_vma_leaf_copy(leaf, from);
    for (i = 0; i < count; i++) {
        twin = b->copy(b->ctx, mmi_vma_leaf_area(from, i), &b->failed);
        if (MM_UNLIKELY(b->failed))
            break;
        if (MM_UNLIKELY(twin == NULL))
            continue;
        if (MM_UNLIKELY(n != i))
            mmi_vma_leaf_move(leaf, n, from, i);
        mm_store(&leaf->u.leaf.area[n], (uintptr_t)twin | (twin->flags & MM_VMA_INLINE_FLAGS));
        n++;
    }
    mmi_vma_leaf_cut(leaf, n);
    b->map->count += n;
    if (n != 0)
        return leaf;
    mmi_vma_node_drop(b->map, leaf);
    return NULL;
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

/* A copy has at most as many nodes as the map that it is made from. */
MM_VMA_API enum mm_status
mm_vma_map_dup(struct mm_vma_map *to, struct mm_vma_map *from,
               struct mm_vma *(*copy)(void *ctx, struct mm_vma *area, bool *failed), void *ctx)
{
    struct mmi_vma_build build;
    struct mm_vma_cursor c;
    struct mm_vma_node *leaf;
    bool more = from->root != NULL;
    unsigned level;

    if (to->root != NULL)
        return MM_ERR_INVALID;
    if (mmi_vma_pool_fill(to, from->nodes) != MM_OK)
        return MM_ERR_NOMEM;
    build.map = to;
    build.top = 0;
    build.copy = copy;
    build.ctx = ctx;
    build.failed = false;
    for (level = 0; level < MM_VMA_LEVELS; level++)
        build.open[level] = NULL;
    if (more)
        mmi_vma_leftmost(&c, from);
    for (; more && !build.failed; more = mmi_vma_leaf_after(&c, from)) {
        mmi_vma_ahead(&c, from);
        leaf = mmi_vma_build_copy(&build, c.node[0]);
        if (leaf == NULL)
            continue;
        if (build.open[0] != NULL)
            mmi_vma_build_leaf(&build, mmi_vma_leaf_start(leaf, 0));
        build.open[0] = leaf;
    }
    mmi_vma_write_begin(to);
    mmi_vma_build_end(&build);
    mmi_vma_write_end(to);
    return build.failed ? MM_ERR_NOMEM : MM_OK;
}

/* ---- Map: check ------------------------------------------------------------------------------ */

/* M2, M6 and A1 of one slot, and that it starts at or behind *end, which moves on. */
static bool mmi_vma_slot_sound(const struct mm_vma_node *leaf, unsigned i, uintptr_t *end)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    const struct mm_vma *vma = mmi_vma_leaf_area(leaf, i);
    uint32_t last;

    if (vma == NULL || vma->start >= vma->end || vma->start < *end || vma->end > MMI_VMA_TOP)
        return false;
    last = MMI_VMA_HIGH(vma->end - 1) == l->high ? (uint32_t)(vma->end - 1) : UINT32_MAX;
    *end = vma->end;
    return vma->start == mmi_vma_leaf_start(leaf, i) && l->last[i] == last &&
           ((l->area[i] ^ vma->flags) & MM_VMA_INLINE_FLAGS) == 0;
}

/* M1 of a leaf, and its slots. */
static bool mmi_vma_leaf_sound(const struct mm_vma_node *leaf, uintptr_t *end)
{
    const struct mmi_vma_leaf *l = &leaf->u.leaf;
    unsigned i;

    if (l->count == 0 || l->count > MM_VMA_LEAF_AREAS)
        return false;
    for (i = 0; i < l->count; i++)
        if (!mmi_vma_slot_sound(leaf, i, end))
            return false;
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

/* The inner nodes that the walk enters with this leaf, and the leaf's gaps. Counts nodes. */
static bool mmi_vma_path_sound(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                               uintptr_t *nodes)
{
    uintptr_t level;

    for (level = 1; level <= map->height && c->at[level - 1] == 0; level++) {
        if (c->at[level] != 0)
            continue;
        *nodes += 1;
        if (!mmi_vma_inner_sound(c->node[level], level))
            return false;
    }
    return map->height == 0 || c->node[1]->u.inner.gap[c->at[1]] ==
                                   mmi_vma_leaf_gap(c->node[0], mmi_vma_behind(c, map, 0));
}

/* The pool holds as many nodes as it says, and ends. */
static bool mmi_vma_pool_sound(const struct mm_vma_map *map)
{
    const struct mm_vma_node *node = map->pool;
    uintptr_t left;

    for (left = map->pooled; left > 0 && node != NULL; left--)
        node = node->u.next;
    return left == 0 && node == NULL;
}

MM_VMA_API enum mm_status mm_vma_map_check(const struct mm_vma_map *map)
{
    struct mm_vma_cursor c;
    uintptr_t end = 0, areas = 0, nodes = 0;

    if (map->height + 1 >= MM_VMA_LEVELS)
        return MM_ERR_CORRUPT;
    if (map->root != NULL) {
        mmi_vma_leftmost(&c, map);
        do {
            nodes++;
            if (!mmi_vma_leaf_sound(c.node[0], &end) || !mmi_vma_path_sound(&c, map, &nodes))
                return MM_ERR_CORRUPT;
            areas += c.node[0]->u.leaf.count;
        } while (mmi_vma_leaf_after(&c, map));
    }
    return areas == map->count && nodes == map->nodes && mmi_vma_pool_sound(map) ? MM_OK
                                                                                 : MM_ERR_CORRUPT;
}

/* ---- Space: areas and their accounts --------------------------------------------------------- */

#define MMI_VMA_LOCKS       (MM_VMA_LOCKED | MM_VMA_LOCKONFAULT)
#define MMI_VMA_UNMERGEABLE (MM_VMA_PFN | MM_VMA_DEVICE | MM_VMA_GLOBAL)
#define MMI_VMA_PAGE_MASK   (MM_PAGE_SIZE - 1)

static void mmi_vma_report(const char *where, const char *what, enum mm_status status, mm_va_t va,
                           const void *object)
{
#if MM_VMA_DEBUG >= 1
    struct mm_report report;

    report.where = where;
    report.what = what;
    report.status = status;
    report.address = va;
    report.object = object;
    MM_VMA_REPORT(&report);
#else
    (void)where, (void)what, (void)status, (void)va, (void)object;
#endif
}

/* Bytes to whole pages, rounding up. */
static uint64_t mmi_vma_pages(uint64_t bytes)
{
    return (bytes >> MM_PAGE_SHIFT) + ((bytes & MMI_VMA_PAGE_MASK) != 0);
}

static mm_va_t mmi_vma_va(uintptr_t page)
{
    return (mm_va_t)page << MM_PAGE_SHIFT;
}

static uint64_t mmi_vma_min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uintptr_t mmi_vma_max(uintptr_t a, uintptr_t b)
{
    return a > b ? a : b;
}

static uintptr_t mmi_vma_count(const struct mm_vma *vma)
{
    return vma->end - vma->start;
}

static enum mm_status mmi_vma_spares(struct mm_vma_space *space, unsigned count)
{
    const struct mm_vma_hooks *hooks = &space->sys->hooks;
    struct mm_vma *vma;

    while (space->spare_count < count) {
        vma = hooks->area_alloc(hooks->ctx);
        if (vma == NULL)
            return MM_ERR_NOMEM;
        vma->link = space->spare;
        space->spare = vma;
        space->spare_count++;
    }
    return MM_OK;
}

/* Only after mmi_vma_spares. */
static struct mm_vma *mmi_vma_spare(struct mm_vma_space *space)
{
    struct mm_vma *vma = space->spare;

    MM_VMA_ASSERT(vma != NULL);
    space->spare = vma->link;
    space->spare_count--;
    return vma;
}

static void mmi_vma_area_free(struct mm_vma_space *space, struct mm_vma *vma)
{
    const struct mm_vma_hooks *hooks = &space->sys->hooks;

    if (vma->file != NULL && hooks->file_put != NULL)
        hooks->file_put(hooks->ctx, vma->file);
    hooks->area_free(hooks->ctx, vma);
}

static void mmi_vma_free_list(struct mm_vma_space *space, struct mm_vma *list)
{
    struct mm_vma *vma;

    while (list != NULL) {
        vma = list;
        list = vma->link;
        mmi_vma_area_free(space, vma);
    }
}

MMI_VMA_HERE void mmi_vma_area_set(struct mm_vma *vma, uintptr_t start, uintptr_t end,
                                   uintptr_t flags, uintptr_t offset, void *file)
{
    mm_store(&vma->start, start);
    mm_store(&vma->end, end);
    mm_store(&vma->flags, flags);
    mm_store(&vma->offset, offset);
    __atomic_store_n(&vma->file, file, __ATOMIC_RELAXED);
    vma->anon = 0;
    vma->link = NULL;
    vma->user = NULL;
}

/* A spare area like the part of `vma` from `start` on, with its own reference to the file. */
static struct mm_vma *mmi_vma_twin(struct mm_vma_space *space, const struct mm_vma *vma,
                                   uintptr_t start)
{
    const struct mm_vma_hooks *hooks = &space->sys->hooks;
    struct mm_vma *twin = mmi_vma_spare(space);

    mmi_vma_area_set(twin, start, vma->end, vma->flags, vma->offset + (start - vma->start),
                     vma->file);
    twin->anon = vma->anon;
    twin->user = vma->user;
    if (vma->file != NULL && hooks->file_get != NULL)
        hooks->file_get(hooks->ctx, vma->file);
    if (hooks->area_copy != NULL)
        hooks->area_copy(hooks->ctx, twin, vma);
    return twin;
}

/* The rights that pages of an area have: no machine has pages that can only be written. */
static unsigned mmi_vma_rights(uintptr_t flags)
{
    unsigned rights = (unsigned)flags & MM_VMA_PROT;

    return (rights & MM_VMA_WRITE) != 0 ? rights | MM_VMA_READ : rights;
}

static bool mmi_vma_is_exec(uintptr_t flags)
{
    return (flags & (MM_VMA_EXEC | MM_VMA_WRITE | MM_VMA_GROWSDOWN)) == MM_VMA_EXEC;
}

static bool mmi_vma_is_data(uintptr_t flags)
{
    return (flags & (MM_VMA_WRITE | MM_VMA_SHARED | MM_VMA_GROWSDOWN)) == MM_VMA_WRITE;
}

/* Pages count by WRITE and EXEC: as data if they can be written, else as code if they can run.
 * Those of stacks count as neither, nor do shared ones that are not code. */
#define MMI_VMA_COUNTS(flags) (((flags) & (MM_VMA_WRITE | MM_VMA_EXEC)) / MM_VMA_WRITE)

static uintptr_t mmi_vma_data(const struct mm_vma_space *space)
{
    return space->pages[MMI_VMA_COUNTS(MM_VMA_WRITE)] +
           space->pages[MMI_VMA_COUNTS(MM_VMA_WRITE | MM_VMA_EXEC)];
}

static uintptr_t mmi_vma_code(const struct mm_vma_space *space)
{
    return space->pages[MMI_VMA_COUNTS(MM_VMA_EXEC)];
}

static uintptr_t mmi_vma_total(const struct mm_vma_space *space)
{
    return mmi_vma_data(space) + mmi_vma_code(space) + space->pages[0];
}

/* S1: `pages` of an area with these flags come (or go: 0 - pages). Common flags take no branch:
 * which come next nobody can guess. */
MMI_VMA_HERE void mmi_vma_account(struct mm_vma_space *space, uintptr_t flags, uintptr_t pages)
{
    if (MM_UNLIKELY((flags & (MM_VMA_SHARED | MM_VMA_LOCKED | MM_VMA_GROWSDOWN)) != 0)) {
        if ((flags & MM_VMA_GLOBAL) != 0) /* shared as well */
            return;
        if ((flags & MM_VMA_LOCKED) != 0)
            space->locked += pages;
        if ((flags & MM_VMA_GROWSDOWN) != 0)
            space->stack += pages;
        if ((flags & MM_VMA_GROWSDOWN) != 0 ||
            ((flags & MM_VMA_SHARED) != 0 && !mmi_vma_is_exec(flags)))
            flags = 0;
    }
    space->pages[MMI_VMA_COUNTS(flags)] += pages;
}

/* Whether `pages` more fit the limits of all and of data. */
static bool mmi_vma_may_expand(const struct mm_vma_space *space, uintptr_t flags, uint64_t pages)
{
    bool data = mmi_vma_is_data(flags);
    bool over = mmi_vma_data(space) + pages > space->limits.data >> MM_PAGE_SHIFT;

    if (mmi_vma_total(space) + pages > space->limits.total >> MM_PAGE_SHIFT)
        return false;
    return !(data & over); /* no branch: which come next nobody can guess */
}

static bool mmi_vma_may_lock(const struct mm_vma_space *space, uintptr_t flags, uint64_t pages)
{
    return (flags & MM_VMA_LOCKED) == 0 ||
           space->locked + pages <= space->limits.locked >> MM_PAGE_SHIFT;
}

/* One of `areas` inserts behind an area that stays in the path's leaf needs no more than that
 * leaf's chain. What else may happen is covered by a chain for each. */
static bool mmi_vma_local(const struct mm_vma_cursor *c, const struct mm_vma_map *map,
                          uintptr_t start, uintptr_t end)
{
    const struct mm_vma_node *leaf = c->node[0];
    uintptr_t pred_end;
    unsigned i = c->at[0];

    if (leaf->u.leaf.high != MMI_VMA_HIGH(start) || MMI_VMA_HIGH(end) != MMI_VMA_HIGH(start) ||
        i == 0 || (i == 1 && mmi_vma_leaf_start(leaf, 0) == start))
        return false;
    pred_end = mmi_vma_leaf_end(leaf, i - 1);
    return pred_end >= end || (pred_end <= start && mmi_vma_follower(c, map, i - 1) >= end);
}

/* Areas, and nodes for as many inserts or more, for a call that changes [start, end). Changes
 * nothing. */
static int mmi_vma_reserve_of(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                              unsigned areas, unsigned inserts)
{
    struct mm_vma_map *map = &space->map;
    uintptr_t need = inserts * (map->height + 2);
    struct mm_vma_cursor c;

    if (mmi_vma_spares(space, areas) != MM_OK)
        return MM_VMA_ENOMEM;
    if (map->pooled >= need)
        return MM_VMA_OK;
    if (map->root != NULL && map->height < 2) { /* a small map has no nodes to spare */
        mmi_vma_seek(&c, map, start);
        if (mmi_vma_local(&c, map, start, end))
            need = mmi_vma_splits(&c, map, inserts);
    }
    return mmi_vma_pool_fill(map, need) == MM_OK ? MM_VMA_OK : MM_VMA_ENOMEM;
}

static int mmi_vma_reserve(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                           unsigned areas)
{
    return mmi_vma_reserve_of(space, start, end, areas, areas);
}

/* ---- Space: split, merge, cut ---------------------------------------------------------------- */

/* Which identities may become one (rule 1 of the manual). */
static bool mmi_vma_anon_fits(uintptr_t target, uintptr_t source)
{
    if (target == source)
        return true;
    return (target == 0 || source == 0) && ((target | source) & 1) == 0;
}

/* Whether `left` and `right`, which touch, are alike but for their identities. */
MMI_VMA_HERE bool mmi_vma_alike(const struct mm_vma *left, const struct mm_vma *right)
{
    return left->flags == right->flags && left->file == right->file && left->user == right->user &&
           (left->flags & MMI_VMA_UNMERGEABLE) == 0 && left->end == right->start &&
           left->offset + mmi_vma_count(left) == right->offset;
}

/* What may join a new or changed range `mid`. */
MMI_VMA_HERE void mmi_vma_joins(struct mm_vma *prev, const struct mm_vma *mid, struct mm_vma *next,
                                bool *left, bool *right)
{
    *left = prev != NULL && mmi_vma_alike(prev, mid) && mmi_vma_anon_fits(prev->anon, mid->anon);
    *right = next != NULL && mmi_vma_alike(mid, next) && mmi_vma_anon_fits(next->anon, mid->anon);
    if (*left && *right && prev->anon != 0 && next->anon != 0 && prev->anon != next->anon)
        *right = false;
}

/* Moves an area's start, and its offset with it. */
static void mmi_vma_move_start(struct mm_vma_map *map, struct mm_vma *vma, uintptr_t start)
{
    mm_store(&vma->offset, vma->offset + (start - vma->start));
    mmi_vma_set_start(map, vma, start);
}

/* Splits an area at `page`; returns the new upper part. One area and one insert are reserved. */
static struct mm_vma *mmi_vma_split(struct mm_vma_space *space, struct mm_vma *vma, uintptr_t page)
{
    struct mm_vma *twin = mmi_vma_twin(space, vma, page);
    struct mm_vma_cursor c;

    mmi_vma_find_slot(&c, &space->map, vma->start);
    mmi_vma_set_end_at(&c, &space->map, vma, page);
    c.at[0]++;
    mmi_vma_insert_at(&c, &space->map, twin);
    return twin;
}

static void mmi_vma_detach(struct mm_vma_space *space, struct mm_vma *vma, struct mm_vma **gone)
{
    mmi_vma_erase(&space->map, vma);
    vma->link = *gone;
    *gone = vma;
}

/* The first area that ends behind `page`, or NULL. */
static struct mm_vma *mmi_vma_from(const struct mm_vma_space *space, uintptr_t page)
{
    const struct mm_vma_node *leaf;
    struct mm_vma_cursor c;
    unsigned i;

    if (space->map.root == NULL)
        return NULL;
    leaf = mmi_vma_leaf_of(&space->map, page);
    i = mmi_vma_leaf_upto(leaf, page);
    i -= (unsigned)(i != 0 && mmi_vma_leaf_end(leaf, i - 1) > page);
    if (MM_LIKELY(i < leaf->u.leaf.count))
        return mmi_vma_leaf_area(leaf, i);
    return mmi_vma_seek_area(&c, &space->map, page) ? mmi_vma_leaf_area(c.node[0], c.at[0]) : NULL;
}

/* The area that ends highest up to `page` or across it, or NULL. */
static struct mm_vma *mmi_vma_upto(const struct mm_vma_space *space, uintptr_t page)
{
    struct mm_vma_cursor c;

    if (space->map.root == NULL || page == 0)
        return NULL;
    mmi_vma_seek(&c, &space->map, page - 1);
    return mmi_vma_pred(&c, &space->map);
}

/* Takes [start, end) out of the map. Areas that go whole are put in front of *gone. One area and
 * one insert are reserved. */
static void mmi_vma_cut(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                        struct mm_vma **gone)
{
    struct mm_vma_map *map = &space->map;
    struct mm_vma_cursor c;
    struct mm_vma *vma;
    bool there = mmi_vma_seek_area(&c, map, start), stands = true;
    uintptr_t to;

    while (there) {
        vma = mmi_vma_leaf_area(c.node[0], c.at[0]);
        if (vma->start >= end)
            return;
        to = mmi_vma_min(vma->end, end);
        mmi_vma_account(space, vma->flags, mmi_vma_max(vma->start, start) - to);
        if (vma->start < start) {
            if (vma->end > end)
                mmi_vma_move_start(map, mmi_vma_split(space, vma, start), end);
            else
                mmi_vma_set_end_at(&c, map, vma, start);
            c.at[0]++;
        } else if (vma->end > end) {
            mmi_vma_move_start(map, vma, end);
            return;
        } else {
            stands = mmi_vma_erase_at(&c, map);
            vma->link = *gone;
            *gone = vma;
        }
        if (to == end)
            return;
        there = (stands && c.at[0] < c.node[0]->u.leaf.count) || mmi_vma_seek_area(&c, map, start);
    }
}

/* Puts `fresh` into the free place that it names, joining neighbours as Linux does. Returns the
 * area that holds that place: another one if `fresh` was not needed. */
static struct mm_vma *mmi_vma_add(struct mm_vma_space *space, struct mm_vma *fresh,
                                  struct mm_vma **gone)
{
    struct mm_vma_map *map = &space->map;
    struct mm_vma *prev = NULL, *next = NULL, *target = fresh;
    struct mm_vma_cursor c;
    bool left, right;

    if (map->root != NULL) {
        mmi_vma_seek(&c, map, fresh->start);
        prev = mmi_vma_pred(&c, map);
        next = mmi_vma_succ(&c, map);
    }
    mmi_vma_joins(prev, fresh, next, &left, &right);
    mmi_vma_account(space, fresh->flags, mmi_vma_count(fresh));
    if (left) {
        uintptr_t end = right ? next->end : fresh->end;

        target = prev;
        if (right) {
            target->anon = target->anon != 0 ? target->anon : next->anon;
            mmi_vma_detach(space, next, gone);
        }
        if (right || c.at[0] == 0) {
            mmi_vma_set_end(map, prev, end);
        } else {
            c.at[0]--;
            mmi_vma_set_end_at(&c, map, prev, end);
        }
    } else if (right) {
        target = next;
        mmi_vma_move_start(map, next, fresh->start);
    } else {
        mmi_vma_insert_at(&c, map, fresh);
    }
    if (target->anon == 0)
        target->anon = fresh->anon;
    return target;
}

/* A joined area has the identity of the part that has one. */
static void mmi_vma_inherit(struct mm_vma *vma, uintptr_t anon)
{
    if (vma->anon == 0)
        vma->anon = anon;
}

static void mmi_vma_gone(struct mm_vma *vma, struct mm_vma **gone)
{
    vma->link = *gone;
    *gone = vma;
}

/* New bounds of an area whose slot the caller writes. */
static void mmi_vma_start_is(struct mm_vma *vma, uintptr_t start)
{
    mm_store(&vma->offset, vma->offset + (start - vma->start));
    mm_store(&vma->start, start);
}

/* Where what stands before the range ends: `prev`, which is left of the first slot, or the slot
 * before that; what stands in the leaf before does not count. */
static uintptr_t mmi_vma_patch_edge(const struct mmi_vma_patch *p, const struct mm_vma *prev,
                                    uintptr_t start)
{
    const struct mmi_vma_leaf *l = &p->c.node[0]->u.leaf;

    return prev != NULL || p->i == 0 ? start : mmi_vma_page_at(l->high, l->last[p->i - 1]) + 1;
}

/* Takes [start, end) out of the patch's areas: *prev and *next are what is left of the first and
 * the last, and untouched if nothing is. Bounds are the leaf's: areas are written, but nothing
 * waits for them to be read. */
MMI_VMA_HERE void mmi_vma_patch_cut(struct mm_vma_space *space, struct mmi_vma_patch *p,
                                    uintptr_t start, uintptr_t end, struct mm_vma **prev,
                                    struct mm_vma **next, struct mm_vma **gone)
{
    const struct mmi_vma_leaf *l = &p->c.node[0]->u.leaf;
    uintptr_t edge = mmi_vma_patch_edge(p, NULL, mmi_vma_page_at(l->high, l->start[0]));
    uintptr_t base = mmi_vma_page_at(l->high, 0), lost = 0, k, j = p->j;

    for (k = p->i; k < j; k++) {
        uintptr_t from = base | l->start[k], to = (base | l->last[k]) + 1, word = l->area[k];
        struct mm_vma *vma = mmi_vma_of_word(word);

        mmi_vma_account(space, word & MM_VMA_INLINE_FLAGS, /* no global is cut */
                        mmi_vma_max(from, start) - mmi_vma_min(to, end));
        if (from < start) {
            if (to > end)
                *next = mmi_vma_twin(space, vma, end);
            mm_store(&vma->end, start);
            *prev = vma;
        } else {
            lost = mmi_vma_max(lost, from - edge);
            if (to > end) {
                mm_store(&vma->offset, vma->offset + (end - from));
                mm_store(&vma->start, end);
                *next = vma;
            } else {
                mmi_vma_gone(vma, gone);
            }
        }
        edge = to;
    }
    if (*next == NULL)
        lost = mmi_vma_max(lost, p->next - edge);
    p->was = mmi_vma_sat(lost);
}

/* An area of a leaf that may be alike one with `flags`, so far as its word tells; else NULL. */
static struct mm_vma *mmi_vma_leaf_like(const struct mm_vma_node *leaf, unsigned i, uintptr_t flags)
{
    uintptr_t word = leaf->u.leaf.area[i];

    return ((word ^ flags) & MM_VMA_INLINE_FLAGS) == 0 ? mmi_vma_of_word(word) : NULL;
}

/* The areas that end at `start` and begin at `end`, around the patch, or NULL: also where their
 * flags differ from these, which saves touching them. */
static struct mm_vma *mmi_vma_patch_left(const struct mmi_vma_patch *p, uintptr_t start,
                                         uintptr_t flags)
{
    const struct mm_vma_node *leaf = p->c.node[0];

    return p->i != 0 && leaf->u.leaf.last[p->i - 1] == (uint32_t)(start - 1)
               ? mmi_vma_leaf_like(leaf, p->i - 1, flags)
               : NULL;
}

static struct mm_vma *mmi_vma_patch_right(const struct mmi_vma_patch *p,
                                          const struct mm_vma_map *map, uintptr_t end,
                                          uintptr_t flags)
{
    const struct mm_vma_node *leaf = p->c.node[0];
    struct mm_vma_cursor behind;

    if (MM_UNLIKELY(p->beyond)) {
        behind = p->c;
        (void)mmi_vma_leaf_after(&behind, map);
        return mmi_vma_leaf_like(behind.node[0], 0, flags);
    }
    return p->j < leaf->u.leaf.count && leaf->u.leaf.start[p->j] == (uint32_t)end
               ? mmi_vma_leaf_like(leaf, p->j, flags)
               : NULL;
}

/* What begins the next leaf joins: `left` takes it over, or it begins at `start` from now on. The
 * patch is done. */
static void mmi_vma_patch_beyond(struct mm_vma_map *map, struct mm_vma *left, struct mm_vma *next,
                                 uintptr_t start, struct mm_vma **gone)
{
    if (left == NULL) {
        mmi_vma_move_start(map, next, start);
        return;
    }
    mmi_vma_erase(map, next);
    mmi_vma_gone(next, gone);
    mmi_vma_set_end(map, left, next->end);
    mmi_vma_inherit(left, next->anon);
}

/* What touches the range from above joins: `left` takes it over, or it begins at `start` from now
 * on. Returns what has a slot then. */
static struct mm_vma *mmi_vma_patch_next(struct mm_vma *left, struct mm_vma *next, uintptr_t start,
                                         struct mm_vma **gone)
{
    if (left == NULL) {
        mmi_vma_start_is(next, start);
        return next;
    }
    mm_store(&left->end, next->end);
    mmi_vma_inherit(left, next->anon);
    mmi_vma_gone(next, gone);
    return NULL;
}

/* mmi_vma_cut where the range is one leaf's. One area is reserved. */
static void mmi_vma_patch_free(struct mm_vma_space *space, struct mmi_vma_patch *p, uintptr_t start,
                               uintptr_t end, struct mm_vma **gone)
{
    struct mm_vma *prev = NULL, *next = NULL;

    if (p->i == p->j)
        return;
    mmi_vma_patch_cut(space, p, start, end, &prev, &next, gone);
    if (prev != NULL || p->i != 0)
        p->now = mmi_vma_sat((next != NULL ? end : p->next) - mmi_vma_patch_edge(p, prev, start));
    mmi_vma_patch_put(p, &space->map, prev, NULL, next);
}

/* What begins at `end` and may be alike one with `flags`: `next`, which is left of the last slot,
 * or what stands behind the patch. */
static struct mm_vma *mmi_vma_patch_behind(const struct mmi_vma_patch *p,
                                           const struct mm_vma_map *map, struct mm_vma *next,
                                           uintptr_t end, uintptr_t flags)
{
    if (next == NULL)
        return mmi_vma_patch_right(p, map, end, flags);
    return mmi_vma_leaf_like(p->c.node[0], p->j - 1, flags) != NULL ? next : NULL;
}

/* mmi_vma_cut and mmi_vma_add where the range of `fresh` is one leaf's. One area is reserved. */
static struct mm_vma *mmi_vma_patch_add(struct mm_vma_space *space, struct mmi_vma_patch *p,
                                        struct mm_vma *fresh, struct mm_vma **gone)
{
    struct mm_vma *prev = NULL, *next = NULL, *before, *behind, *target = fresh;
    bool left, right;

    mmi_vma_patch_cut(space, p, fresh->start, fresh->end, &prev, &next, gone);
    mmi_vma_account(space, fresh->flags, mmi_vma_count(fresh));
    p->now = mmi_vma_sat(mmi_vma_max(fresh->start - mmi_vma_patch_edge(p, prev, fresh->start),
                                     next != NULL ? 0 : p->next - fresh->end));
    before = prev != NULL ? mmi_vma_leaf_like(p->c.node[0], p->i, fresh->flags)
                          : mmi_vma_patch_left(p, fresh->start, fresh->flags);
    behind = mmi_vma_patch_behind(p, &space->map, next, fresh->end, fresh->flags);
    mmi_vma_joins(before, fresh, behind, &left, &right);
    if (right)
        target = behind;
    if (left) {
        target = before;
        p->i -= prev == NULL;
        prev = before;
        mm_store(&prev->end, fresh->end);
    }
    mmi_vma_inherit(target, fresh->anon);
    if (right && !p->beyond) {
        p->j += next == NULL;
        next = mmi_vma_patch_next(left ? prev : NULL, behind, fresh->start, gone);
    }
    mmi_vma_patch_put(p, &space->map, prev, target == fresh ? fresh : NULL, next);
    if (MM_UNLIKELY(right && p->beyond))
        mmi_vma_patch_beyond(&space->map, left ? prev : NULL, behind, fresh->start, gone);
    return target;
}

/* Where a patch was not found for that: makes room in a full leaf, cuts off what the range has of
 * the leaves behind, and looks again. Nodes for an insert are reserved, and one area. */
static bool mmi_vma_patch_again(struct mm_vma_space *space, struct mmi_vma_patch *p,
                                uintptr_t start, uintptr_t end, unsigned more, struct mm_vma **gone)
{
    struct mm_vma_map *map = &space->map;
    struct mmi_vma_patch tail;
    uintptr_t behind;

    if (!p->full && !p->wide)
        return false;
    if (p->full) {
        mmi_vma_make_room(&p->c, map);
        mmi_vma_seek(&p->c, map, start);
    }
    behind = mmi_vma_behind(&p->c, map, 0);
    if (behind < end) {
        if (mmi_vma_patch_find(&tail, map, behind, end, 0))
            mmi_vma_patch_free(space, &tail, behind, end, gone);
        else
            mmi_vma_cut(space, behind, end, gone);
    }
    return map->root != NULL && mmi_vma_patch_find(p, map, start, end, more);
}

/* An area, and nodes for `inserts` where they are not found to need none. */
MMI_VMA_HERE int mmi_vma_patch_reserve(struct mm_vma_space *space, const struct mmi_vma_patch *p,
                                       uintptr_t start, uintptr_t end, unsigned inserts, bool found)
{
    struct mm_vma_map *map = &space->map;
    int result;

    if (MM_LIKELY(found))
        return mmi_vma_spares(space, 1) == MM_OK ? MM_VMA_OK : MM_VMA_ENOMEM;
    result = mmi_vma_reserve_of(space, start, end, 1, inserts);
    if (result == MM_VMA_OK && p->full &&
        mmi_vma_pool_fill(map, (inserts + 1) * (map->height + 2)) != MM_OK)
        return MM_VMA_ENOMEM;
    return result;
}

/* `prev` takes over `vma` up to `to`, and with it all of `next` if that is not NULL. */
static struct mm_vma *mmi_vma_join_left(struct mm_vma_space *space, struct mm_vma *prev,
                                        struct mm_vma *vma, uintptr_t to, struct mm_vma *next,
                                        struct mm_vma **gone)
{
    uintptr_t anon = vma->anon;

    if (to == vma->end)
        mmi_vma_detach(space, vma, gone);
    else
        mmi_vma_move_start(&space->map, vma, to);
    if (next != NULL) {
        mmi_vma_inherit(prev, next->anon);
        to = next->end;
        mmi_vma_detach(space, next, gone);
    }
    mmi_vma_set_end(&space->map, prev, to);
    mmi_vma_inherit(prev, anon);
    return prev;
}

/* Gives [from, to), all within `vma`, new flags, joining or splitting as Linux does. Returns the
 * area that covers it now. Two areas and two inserts are reserved. */
static struct mm_vma *mmi_vma_modify(struct mm_vma_space *space, struct mm_vma *vma, uintptr_t from,
                                     uintptr_t to, uintptr_t flags, struct mm_vma **gone)
{
    struct mm_vma_map *map = &space->map;
    struct mm_vma *prev, *next, mid = *vma;
    struct mm_vma_cursor c;
    bool left, right;

    mid.start = from;
    mid.end = to;
    mid.flags = flags;
    mid.offset += from - vma->start;
    mmi_vma_account(space, vma->flags, from - to);
    mmi_vma_account(space, flags, to - from);
    mmi_vma_find_slot(&c, map, vma->start);
    prev = from == vma->start ? mmi_vma_pred(&c, map) : NULL;
    c.at[0]++;
    next = to == vma->end ? mmi_vma_succ(&c, map) : NULL;
    mmi_vma_joins(prev, &mid, next, &left, &right);
    if (left)
        return mmi_vma_join_left(space, prev, vma, to, right ? next : NULL, gone);
    if (right) {
        if (from == vma->start)
            mmi_vma_detach(space, vma, gone);
        else
            mmi_vma_set_end(map, vma, from);
        mmi_vma_move_start(map, next, from);
        mmi_vma_inherit(next, mid.anon);
        return next;
    }
    if (from > vma->start)
        vma = mmi_vma_split(space, vma, from);
    if (to < vma->end)
        (void)mmi_vma_split(space, vma, to);
    mmi_vma_set_flags(map, vma, flags);
    return vma;
}

/* Gives [from, to), all within the patch's only area, new flags where nothing joins. */
static struct mm_vma *mmi_vma_patch_split(struct mm_vma_space *space, struct mmi_vma_patch *p,
                                          uintptr_t from, uintptr_t to, uintptr_t flags)
{
    struct mm_vma *vma = mmi_vma_leaf_area(p->c.node[0], p->i), *mid = vma, *upper = NULL;

    if (to < vma->end)
        upper = mmi_vma_twin(space, vma, to);
    if (from > vma->start) {
        mid = mmi_vma_twin(space, vma, from);
        mm_store(&vma->end, from);
    }
    mm_store(&mid->end, to);
    mm_store(&mid->flags, flags);
    mmi_vma_patch_put(p, &space->map, mid != vma ? vma : NULL, mid, upper);
    return mid;
}

/* The same where it joins `prev`, `next` or both. */
static struct mm_vma *mmi_vma_patch_join(struct mm_vma_space *space, struct mmi_vma_patch *p,
                                         uintptr_t from, uintptr_t to, struct mm_vma *prev,
                                         struct mm_vma *next, struct mm_vma **gone)
{
    struct mm_vma *vma = mmi_vma_leaf_area(p->c.node[0], p->i), *target = next, *joined = NULL;
    uintptr_t anon = vma->anon;
    bool right = next != NULL;

    if (from == vma->start && to == vma->end) {
        mmi_vma_gone(vma, gone);
        vma = NULL;
    } else if (prev != NULL) {
        mmi_vma_start_is(vma, to);
    } else {
        mm_store(&vma->end, from);
    }
    if (prev != NULL) {
        target = prev;
        mm_store(&prev->end, to);
    }
    mmi_vma_inherit(target, anon);
    if (right && !p->beyond)
        joined = mmi_vma_patch_next(prev, next, from, gone);
    p->i -= prev != NULL;
    p->j += right && !p->beyond;
    mmi_vma_patch_put(p, &space->map, prev, vma, joined);
    if (MM_UNLIKELY(right && p->beyond))
        mmi_vma_patch_beyond(&space->map, prev, next, from, gone);
    return target;
}

/* mmi_vma_modify where all is one leaf's. */
static struct mm_vma *mmi_vma_patch_modify(struct mm_vma_space *space, struct mmi_vma_patch *p,
                                           uintptr_t from, uintptr_t to, uintptr_t flags,
                                           struct mm_vma **gone)
{
    struct mm_vma *vma = mmi_vma_leaf_area(p->c.node[0], p->i), mid;
    struct mm_vma *prev = from == vma->start ? mmi_vma_patch_left(p, from, flags) : NULL;
    struct mm_vma *next = to == vma->end ? mmi_vma_patch_right(p, &space->map, to, flags) : NULL;
    bool left = false, right = false;

    mmi_vma_account(space, vma->flags, from - to);
    mmi_vma_account(space, flags, to - from);
    if (prev != NULL || next != NULL) {
        mid = *vma;
        mid.start = from;
        mid.end = to;
        mid.flags = flags;
        mid.offset += from - vma->start;
        mmi_vma_joins(prev, &mid, next, &left, &right);
    }
    if (!left && !right)
        return mmi_vma_patch_split(space, p, from, to, flags);
    return mmi_vma_patch_join(space, p, from, to, left ? prev : NULL, right ? next : NULL, gone);
}

/* Number of areas that modifying [from, to) of `vma` adds at most. */
static unsigned mmi_vma_parts(const struct mm_vma *vma, uintptr_t from, uintptr_t to)
{
    return (unsigned)(from > vma->start) + (unsigned)(to < vma->end);
}

/* ---- Space: pages, as far as the calls need them --------------------------------------------- */

static void mmi_vma_zap_pages(struct mm_vma_space *space, uintptr_t start, uintptr_t end);
static void mmi_vma_reprotect_pages(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                                    uintptr_t flags);
static void mmi_vma_relock(struct mm_vma_space *space, uintptr_t start, uintptr_t end, bool locked);
static enum mm_status mmi_vma_share(struct mm_vma_space *to, uintptr_t to_page,
                                    struct mm_vma_space *from, uintptr_t start, uintptr_t end,
                                    bool cow);
static enum mm_vma_fault mmi_vma_touch(struct mm_vma_space *space, struct mm_vma *vma,
                                       uintptr_t page, unsigned access);
static int mmi_vma_fill(struct mm_vma_space *space, uintptr_t start, uintptr_t end, bool own);
static bool mmi_vma_share_needed(const struct mm_vma *vma);

MMI_VMA_HERE void mmi_vma_zap(struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    if (space->sys->hooks.pt_next != NULL)
        mmi_vma_zap_pages(space, start, end);
}

MMI_VMA_HERE void mmi_vma_reprotect(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                                    uintptr_t flags)
{
    if (space->sys->hooks.pt_next != NULL)
        mmi_vma_reprotect_pages(space, start, end, flags);
}

/* ---- Space: where a mapping goes ------------------------------------------------------------- */

/* Lowest page that stays free below an area: its start, or the guard's below a growing one. */
static uintptr_t mmi_vma_floor(const struct mm_vma_space *space, const struct mm_vma *vma)
{
    if ((vma->flags & MM_VMA_GROWSDOWN) == 0)
        return vma->start;
    return vma->start > space->guard ? vma->start - space->guard : 0;
}

/* Linux's search: where the place found ends in a growing area's guard, the search goes on below
 * that (above it, bottom-up); what lies higher is not looked at again. */
static uintptr_t mmi_vma_place_down(const struct mm_vma_space *space, uintptr_t low, uintptr_t high,
                                    uintptr_t pages, uintptr_t mask)
{
    struct mmi_vma_want want = {low, high, pages, mask};
    const struct mm_vma *next;
    uintptr_t page, end;

    for (;;) {
        if (want.high < want.low || want.high - want.low < pages)
            return MMI_VMA_NONE;
        page = mmi_vma_highest(&space->map, &want);
        if (page == MMI_VMA_NONE || space->stack == 0)
            return page;
        next = mmi_vma_from(space, page);
        if (next == NULL || (next->flags & MM_VMA_GROWSDOWN) == 0)
            return page;
        end = next->start < want.high ? next->start : want.high;
        if (mmi_vma_floor(space, next) >= end)
            return page;
        want.high = mmi_vma_floor(space, next);
    }
}

static uintptr_t mmi_vma_place_up(const struct mm_vma_space *space, uintptr_t low, uintptr_t high,
                                  uintptr_t pages, uintptr_t mask)
{
    struct mmi_vma_want want = {low, high, pages, mask};
    const struct mm_vma *next;
    uintptr_t page;

    for (;;) {
        if (want.high < want.low || want.high - want.low < pages)
            return MMI_VMA_NONE;
        page = mmi_vma_lowest(&space->map, &want);
        if (page == MMI_VMA_NONE || space->stack == 0)
            return page;
        next = mmi_vma_from(space, page);
        if (next == NULL || (next->flags & MM_VMA_GROWSDOWN) == 0 ||
            mmi_vma_floor(space, next) >= page + pages)
            return page;
        want.low = next->end;
    }
}

/* A free place for `pages`: at the hint if that is free, else where the layout says. */
static uintptr_t mmi_vma_place_any(const struct mm_vma_space *space, uintptr_t hint,
                                   uintptr_t pages, uintptr_t mask, unsigned flags)
{
    bool first2g = (flags & MM_VMA_MAP_32BIT) != 0;
    uintptr_t low = (uintptr_t)(UINT64_C(0x40000000) >> MM_PAGE_SHIFT);
    uintptr_t high = first2g ? mmi_vma_min(low * 2, space->top) : space->top;
    const struct mm_vma *next;
    uintptr_t page = MMI_VMA_NONE;

    if (hint != 0 && pages <= high && hint <= high - pages && (hint & mask) == 0) {
        next = mmi_vma_from(space, hint);
        if (next == NULL || hint + pages <= mmi_vma_floor(space, next))
            return hint;
    }
    if (first2g)
        return mmi_vma_place_up(space, mmi_vma_max(low, space->low), high, pages, mask);
    if (!space->bottom_up)
        page = mmi_vma_place_down(space, space->low, space->base, pages, mask);
    return page != MMI_VMA_NONE ? page
                                : mmi_vma_place_up(space, space->up_base, space->top, pages, mask);
}

/* ---- mmap ------------------------------------------------------------------------------------ */

/* A fixed range's place. */
static int mmi_vma_range_fixed(const struct mm_vma_space *space, const struct mm_vma_request *r,
                               uintptr_t *start, uint64_t pages)
{
    if (r->hint > mmi_vma_va(space->top) - (pages << MM_PAGE_SHIFT))
        return MM_VMA_ENOMEM;
    if ((r->hint & MMI_VMA_PAGE_MASK) != 0)
        return MM_VMA_EINVAL;
    *start = (uintptr_t)(r->hint >> MM_PAGE_SHIFT);
    return *start < space->low ? MM_VMA_EPERM : MM_VMA_OK;
}

/* mmap's range in pages, or a result; *start is the place if it is fixed, else the hint. */
static int mmi_vma_range(const struct mm_vma_space *space, const struct mm_vma_request *r,
                         uintptr_t *start, uint64_t *pages)
{
    uint64_t hint = r->hint >> MM_PAGE_SHIFT;

    if ((r->offset & MMI_VMA_PAGE_MASK) != 0 || (r->align & (r->align - 1)) != 0)
        return MM_VMA_EINVAL;
    if ((r->flags & MM_VMA_MAP_ANONYMOUS) == 0 && r->file == NULL)
        return MM_VMA_EBADF;
    if (r->bytes == 0)
        return MM_VMA_EINVAL;
    *pages = mmi_vma_pages(r->bytes);
    if (space->map.count >= space->limits.areas || *pages > space->top)
        return MM_VMA_ENOMEM;
    if ((r->flags & (MM_VMA_MAP_FIXED | MM_VMA_MAP_FIXED_NOREPLACE)) != 0)
        return mmi_vma_range_fixed(space, r, start, *pages);
    *start = hint < space->top ? (uintptr_t)hint : 0;
    if (*start != 0)
        *start = mmi_vma_max(*start, space->low);
    return MM_VMA_OK;
}

/* What SHARED_VALIDATE knows: FIXED_NOREPLACE is not among it (include/linux/mman.h). */
#define MMI_VMA_MAP_VALID                                                                   \
    (MM_VMA_MAP_TYPE | MM_VMA_MAP_FIXED | MM_VMA_MAP_32BIT | MM_VMA_MAP_GROWSDOWN |         \
     MM_VMA_MAP_LOCKED | MM_VMA_MAP_NORESERVE | MM_VMA_MAP_POPULATE | MM_VMA_MAP_NONBLOCK | \
     MM_VMA_MAP_STACK)

/* Whether mmap's flags name a kind of mapping that there is; a file's pages have numbers below 2^63
 * bytes. */
static int mmi_vma_kind_of(const struct mm_vma_request *r)
{
    bool anonymous = (r->flags & MM_VMA_MAP_ANONYMOUS) != 0;
    unsigned type = r->flags & MM_VMA_MAP_TYPE;

    if (!anonymous &&
        (r->offset >> MM_PAGE_SHIFT) + mmi_vma_pages(r->bytes) > INT64_MAX >> MM_PAGE_SHIFT)
        return MM_VMA_EOVERFLOW;
    if (type == 0 || type > (anonymous ? MM_VMA_MAP_PRIVATE : MM_VMA_MAP_SHARED_VALIDATE))
        return MM_VMA_EINVAL;
    if (type == MM_VMA_MAP_SHARED_VALIDATE && (r->flags & ~MMI_VMA_MAP_VALID) != 0)
        return MM_VMA_EOPNOTSUPP;
    return MM_VMA_OK;
}

/* Whether the memory may be mapped in this way; Linux's order of results. */
static int mmi_vma_granted(const struct mm_vma_request *r, bool anonymous, bool shared,
                           uintptr_t may)
{
    if ((may & MM_VMA_READ) == 0 || (shared && (r->prot & MM_VMA_WRITE & ~may) != 0))
        return MM_VMA_EACCES;
    if ((r->prot & MM_VMA_EXEC & ~may) != 0)
        return MM_VMA_EPERM;
    return (r->flags & MM_VMA_MAP_GROWSDOWN) != 0 && (shared || !anonymous) ? MM_VMA_EINVAL
                                                                            : MM_VMA_OK;
}

/* mmap's flag `from` as the area's flag `to`, a smaller number. */
#define MMI_VMA_FLAG(flags, from, to) ((flags) / ((from) / (to)) & (to))

/* The area's flags, or a result. */
static int mmi_vma_flags_of(const struct mm_vma_request *r, uintptr_t *flags)
{
    bool anonymous = (r->flags & MM_VMA_MAP_ANONYMOUS) != 0;
    bool shared = (r->flags & MM_VMA_MAP_TYPE) != MM_VMA_MAP_PRIVATE;
    uintptr_t may = r->may == 0 || anonymous ? MM_VMA_PROT : r->may & MM_VMA_PROT;
    uintptr_t f = (r->prot & MM_VMA_PROT) | (r->user & MM_VMA_USER_FLAGS);
    int result = mmi_vma_kind_of(r);

    if (result == MM_VMA_OK)
        result = mmi_vma_granted(r, anonymous, shared, may);
    if (result != MM_VMA_OK)
        return result;
    if (!shared)
        may |= MM_VMA_WRITE; /* writes go to a copy */
    f |= MMI_VMA_FLAG(r->flags, MM_VMA_MAP_LOCKED, MM_VMA_LOCKED) |
         MMI_VMA_FLAG(r->flags, MM_VMA_MAP_NORESERVE, MM_VMA_NORESERVE) |
         MMI_VMA_FLAG(r->flags, MM_VMA_MAP_STACK, MM_VMA_NOHUGEPAGE) |
         MMI_VMA_FLAG(r->flags, MM_VMA_MAP_GROWSDOWN, MM_VMA_GROWSDOWN);
    f |= may << MM_VMA_MAY_SHIFT;
    if (shared)
        f |= anonymous ? MM_VMA_SHARED | MM_VMA_SHMEM : MM_VMA_SHARED;
    *flags = f;
    return MM_VMA_OK;
}

/* A private writable area counts as committed memory. */
static uintptr_t mmi_vma_accountable(uintptr_t flags)
{
    return (flags & (MM_VMA_NORESERVE | MM_VMA_SHARED | MM_VMA_WRITE)) == MM_VMA_WRITE
               ? MM_VMA_ACCOUNT
               : 0;
}

/* Pages of areas within [start, end): all, or those that count as data. */
static uint64_t mmi_vma_mapped(const struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                               bool data)
{
    struct mm_vma_cursor c;
    const struct mm_vma *vma;
    uint64_t pages = 0;
    bool more = mmi_vma_seek_area(&c, &space->map, start);

    c.map = NULL;
    while (more) {
        vma = mmi_vma_leaf_area(c.node[0], c.at[0]);
        if (vma->start >= end)
            break;
        if (!data || mmi_vma_is_data(vma->flags))
            pages += mmi_vma_min(vma->end, end) - mmi_vma_max(vma->start, start);
        more = ++c.at[0] < c.node[0]->u.leaf.count || mmi_vma_leaf_after(&c, &space->map);
    }
    return pages;
}

/* Takes [start, end) out of the map and, once that is done for readers too, out of the page
 * table. */
static void mmi_vma_drop(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                         struct mmi_vma_patch *p, bool local)
{
    struct mm_vma *gone = NULL;

    mmi_vma_write_begin(&space->map);
    if (local || (p != NULL && mmi_vma_patch_again(space, p, start, end, 0, &gone)))
        mmi_vma_patch_free(space, p, start, end, &gone);
    else
        mmi_vma_cut(space, start, end, &gone);
    mmi_vma_write_end(&space->map);
    mmi_vma_zap(space, start, end);
    mmi_vma_free_list(space, gone);
}

static void mmi_vma_file_get(struct mm_vma_space *space, void *file)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if (file != NULL && h->file_get != NULL)
        h->file_get(h->ctx, file);
}

/* An area that was not needed after all waits for the next call. */
static void mmi_vma_unspare(struct mm_vma_space *space, struct mm_vma *vma)
{
    vma->link = space->spare;
    space->spare = vma;
    space->spare_count++;
}

/* A reference to the file for a range to come; for shared anonymous memory a new file. */
static int mmi_vma_enter_reference(struct mm_vma_space *space, struct mm_vma *fresh)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if ((fresh->flags & MM_VMA_SHMEM) == 0) {
        mmi_vma_file_get(space, fresh->file);
        return MM_VMA_OK;
    }
    if (h->shared == NULL)
        return MM_VMA_EINVAL;
    return h->shared(h->ctx, mmi_vma_count(fresh), &fresh->file) == MM_OK ? MM_VMA_OK
                                                                          : MM_VMA_ENOMEM;
}

/* Maps `fresh`, a spare area whose place is chosen and whose limits are checked: what is there
 * goes. If it was not needed, or this fails, it is spare again. */
static int mmi_vma_enter(struct mm_vma_space *space, struct mm_vma *fresh, bool fixed)
{
    const struct mm_vma_hooks *hooks = &space->sys->hooks;
    uintptr_t start = fresh->start, end = fresh->end;
    struct mm_vma *gone = NULL, *area;
    struct mmi_vma_patch patch;
    bool local = mmi_vma_patch_find(&patch, &space->map, start, end, 1);
    int result = mmi_vma_patch_reserve(space, &patch, start, end, 2, local);

    if (result == MM_VMA_OK)
        result = mmi_vma_enter_reference(space, fresh);
    if (result != MM_VMA_OK) {
        mmi_vma_unspare(space, fresh);
        return result;
    }
    mmi_vma_write_begin(&space->map);
    if (!local)
        local = mmi_vma_patch_again(space, &patch, start, end, 1, &gone);
    if (local) {
        area = mmi_vma_patch_add(space, &patch, fresh, &gone);
    } else {
        if (fixed)
            mmi_vma_cut(space, start, end, &gone);
        area = mmi_vma_add(space, fresh, &gone);
    }
    mmi_vma_write_end(&space->map);
    if (area != fresh) { /* it joined a neighbour, which has a reference to the file already */
        if (fresh->file != NULL && hooks->file_put != NULL)
            hooks->file_put(hooks->ctx, fresh->file);
        mmi_vma_unspare(space, fresh);
    }
    if (fixed)
        mmi_vma_zap(space, start, end);
    mmi_vma_free_list(space, gone);
    return MM_VMA_OK;
}

/* Whether a fixed range lies in the midst of an area, which makes three of it, and the limit of
 * areas has no room for two more. */
static bool mmi_vma_crowded(const struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    const struct mm_vma *there;

    if (MM_LIKELY(space->map.count + 2 <= space->limits.areas))
        return false;
    there = mmi_vma_from(space, start);
    return there != NULL && there->start < start && there->end > end;
}

/* Whether what a fixed range replaces makes the room that the limits lack. */
static MM_COLD bool mmi_vma_may_replace(const struct mm_vma_space *space, uintptr_t flags,
                                        uintptr_t start, uintptr_t pages)
{
    uint64_t there = mmi_vma_mapped(space, start, start + pages, false);

    return mmi_vma_may_expand(space, flags, pages - there);
}

/* Limits of locked pages, of all and of areas, and the rights: mmap's checks behind the choice of a
 * place. */
static int mmi_vma_admit(const struct mm_vma_space *space, const struct mm_vma_request *r,
                         uintptr_t start, uintptr_t pages, uintptr_t *flags)
{
    bool fixed = (r->flags & MM_VMA_MAP_FIXED) != 0;
    int result;

    if ((r->flags & MM_VMA_MAP_LOCKED) != 0) {
        if (space->limits.locked == 0)
            return MM_VMA_EPERM;
        if (!mmi_vma_may_lock(space, MM_VMA_LOCKED, pages))
            return MM_VMA_EAGAIN;
    }
    result = mmi_vma_flags_of(r, flags);
    if (result != MM_VMA_OK)
        return result;
    if (MM_UNLIKELY(!mmi_vma_may_expand(space, *flags, pages)) &&
        (!fixed || !mmi_vma_may_replace(space, *flags, start, pages)))
        return MM_VMA_ENOMEM;
    if (fixed && mmi_vma_crowded(space, start, start + pages))
        return MM_VMA_ENOMEM;
    *flags |= mmi_vma_accountable(*flags);
    return MM_VMA_OK;
}

/* The place: the fixed one if it may be used, else a free one. */
static int mmi_vma_choose(const struct mm_vma_space *space, const struct mm_vma_request *r,
                          uintptr_t *start, uintptr_t pages)
{
    uint64_t align = r->align >> MM_PAGE_SHIFT;
    const struct mm_vma *there;

    if ((r->flags & MM_VMA_MAP_FIXED_NOREPLACE) != 0) {
        there = mmi_vma_from(space, *start);
        return there != NULL && there->start < *start + pages ? MM_VMA_EEXIST : MM_VMA_OK;
    }
    if ((r->flags & MM_VMA_MAP_FIXED) != 0)
        return MM_VMA_OK;
    *start =
        mmi_vma_place_any(space, *start, pages, align < 2 ? 0 : (uintptr_t)align - 1, r->flags);
    return *start == MMI_VMA_NONE ? MM_VMA_ENOMEM : MM_VMA_OK;
}

static int mmi_vma_mmap(struct mm_vma_space *space, const struct mm_vma_request *r, mm_va_t *va)
{
    bool anonymous = (r->flags & MM_VMA_MAP_ANONYMOUS) != 0;
    uintptr_t start = 0, flags = 0, offset;
    struct mm_vma *fresh;
    uint64_t pages = 0;
    int result = mmi_vma_range(space, r, &start, &pages);

    if (result == MM_VMA_OK)
        result = mmi_vma_choose(space, r, &start, (uintptr_t)pages);
    if (result == MM_VMA_OK)
        result = mmi_vma_admit(space, r, start, (uintptr_t)pages, &flags);
    if (result != MM_VMA_OK)
        return result;
    if (mmi_vma_spares(space, 2) != MM_OK) /* one for mmi_vma_enter, which might split another */
        return MM_VMA_ENOMEM;
    offset = (flags & MM_VMA_SHARED) != 0 ? 0 : start; /* A2 */
    if (!anonymous)
        offset = (uintptr_t)(r->offset >> MM_PAGE_SHIFT);
    fresh = mmi_vma_spare(space);
    mmi_vma_area_set(fresh, start, start + (uintptr_t)pages, flags, offset,
                     anonymous ? NULL : r->file);
    fresh->user = r->area_user;
    result = mmi_vma_enter(space, fresh, (r->flags & MM_VMA_MAP_FIXED) != 0);
    if (result == MM_VMA_OK)
        *va = mmi_vma_va(start);
    return result;
}

#define MMI_VMA_LOCK(space, s)   MM_VMA_WRITE_LOCK(&(space)->lock, s)
#define MMI_VMA_UNLOCK(space, s) MM_VMA_WRITE_UNLOCK(&(space)->lock, s)

/* MM_DEBUG 3: the whole check after each call. */
static void mmi_vma_after(struct mm_vma_space *space)
{
#if MM_VMA_DEBUG >= 3
    MM_VMA_ASSERT(mm_vma_map_check(&space->map) == MM_OK);
#endif
    (void)space;
}

/* The pages that LOCKED or POPULATE ask for; what cannot come now, comes by faults. */
static MM_COLD void mmi_vma_populate(struct mm_vma_space *space, const struct mm_vma_request *r,
                                     mm_va_t va)
{
    uintptr_t start = (uintptr_t)(va >> MM_PAGE_SHIFT);

    if ((r->flags & (MM_VMA_MAP_LOCKED | MM_VMA_MAP_NONBLOCK)) != MM_VMA_MAP_NONBLOCK)
        (void)mmi_vma_fill(space, start, start + (uintptr_t)mmi_vma_pages(r->bytes), true);
}

MM_VMA_API int mm_vma_mmap(struct mm_vma_space *space, const struct mm_vma_request *request,
                           mm_va_t *va)
{
    MM_VMA_RWLOCK_STATE_T state;
    int result;

    MMI_VMA_LOCK(space, state);
    result = mmi_vma_mmap(space, request, va);
    if (MM_UNLIKELY((request->flags & (MM_VMA_MAP_LOCKED | MM_VMA_MAP_POPULATE)) != 0) &&
        result == MM_VMA_OK)
        mmi_vma_populate(space, request, *va);
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* ---- munmap ---------------------------------------------------------------------------------- */

static int mmi_vma_munmap(struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    struct mmi_vma_patch patch;
    bool local = mmi_vma_patch_find(&patch, &space->map, start, end, 0);
    bool ready = mmi_vma_patch_reserve(space, &patch, start, end, 1, local) == MM_VMA_OK;
    const struct mm_vma *vma;

    if (!ready || space->map.count >= space->limits.areas) {
        vma = mmi_vma_from(space, start);
        if (vma == NULL || vma->start >= end)
            return MM_VMA_OK;
        if (!ready || (vma->start < start && vma->end > end))
            return MM_VMA_ENOMEM;
    }
    mmi_vma_drop(space, start, end, &patch, local);
    return MM_VMA_OK;
}

/* [va, va + bytes) within the space, in pages; false: misaligned or beyond its top. */
static bool mmi_vma_span(const struct mm_vma_space *space, mm_va_t va, uint64_t bytes,
                         uintptr_t *start, uintptr_t *end)
{
    uint64_t pages = mmi_vma_pages(bytes), first = va >> MM_PAGE_SHIFT;

    if ((va & MMI_VMA_PAGE_MASK) != 0 || first > space->top || pages > space->top - first)
        return false;
    *start = (uintptr_t)first;
    *end = (uintptr_t)(first + pages);
    return true;
}

MM_VMA_API int mm_vma_munmap(struct mm_vma_space *space, mm_va_t va, uint64_t bytes)
{
    MM_VMA_RWLOCK_STATE_T state;
    uintptr_t start, end;
    int result;

    if (!mmi_vma_span(space, va, bytes, &start, &end) || start == end)
        return MM_VMA_EINVAL;
    MMI_VMA_LOCK(space, state);
    result = mmi_vma_munmap(space, start, end);
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* ---- mprotect, madvise, mlock: a walk over areas that changes flags -------------------------- */

/* The flags that mprotect gives an area, or a result. Source of the accounting rule: the manual's
 * rule 1. */
static int mmi_vma_protected(const struct mm_vma_space *space, const struct mm_vma *vma,
                             unsigned prot, uintptr_t pages, uintptr_t *flags)
{
    uintptr_t f = (vma->flags & ~(uintptr_t)MM_VMA_PROT) | prot;

    if ((prot & ~(f >> MM_VMA_MAY_SHIFT) & MM_VMA_PROT) != 0)
        return MM_VMA_EACCES;
    if (f != vma->flags && (f & MM_VMA_WRITE) != 0) {
        if (!mmi_vma_may_expand(space, f, pages) && mmi_vma_may_expand(space, vma->flags, pages))
            return MM_VMA_ENOMEM;
        if ((vma->flags & (MM_VMA_ACCOUNT | MM_VMA_WRITE | MM_VMA_SHARED | MM_VMA_NORESERVE)) == 0)
            f |= MM_VMA_ACCOUNT;
    } else if (f != vma->flags && vma->file == NULL && vma->anon == 0) {
        f &= ~(uintptr_t)MM_VMA_ACCOUNT;
    }
    *flags = f;
    return MM_VMA_OK;
}

/* Whether the part [from, to) of `vma` would join a neighbour if it had `flags`. */
static MM_COLD bool mmi_vma_part_joins(const struct mm_vma_space *space, const struct mm_vma *vma,
                                       uintptr_t from, uintptr_t to, uintptr_t flags)
{
    struct mm_vma mid = *vma;
    bool left, right;

    mid.start = from;
    mid.end = to;
    mid.flags = flags;
    mid.offset += from - vma->start;
    mmi_vma_joins(from == vma->start ? mmi_vma_upto(space, from) : NULL, &mid,
                  to == vma->end ? mmi_vma_from(space, to) : NULL, &left, &right);
    return left || right;
}

/* Whether the limit of areas lets the part [from, to) of `vma` have `flags`: what joins a neighbour
 * adds none. */
static bool mmi_vma_may_part(const struct mm_vma_space *space, const struct mm_vma *vma,
                             uintptr_t from, uintptr_t to, uintptr_t flags)
{
    unsigned parts = mmi_vma_parts(vma, from, to);

    return MM_LIKELY(parts == 0 || space->map.count + parts <= space->limits.areas) ||
           mmi_vma_part_joins(space, vma, from, to, flags);
}

/* Changes the part [from, to) of `vma` to `flags`, in the map only; `p`, if it is not NULL, found
 * that part. */
static int mmi_vma_change(struct mm_vma_space *space, struct mmi_vma_patch *p, struct mm_vma **vma,
                          uintptr_t from, uintptr_t to, uintptr_t flags)
{
    struct mm_vma *gone = NULL;

    if (flags == (*vma)->flags)
        return MM_VMA_OK;
    if (!mmi_vma_may_part(space, *vma, from, to, flags))
        return MM_VMA_ENOMEM;
    mmi_vma_write_begin(&space->map);
    *vma = p != NULL ? mmi_vma_patch_modify(space, p, from, to, flags, &gone)
                     : mmi_vma_modify(space, *vma, from, to, flags, &gone);
    mmi_vma_write_end(&space->map);
    mmi_vma_free_list(space, gone);
    return MM_VMA_OK;
}

/* mprotect for the part [from, to) of *vma, which becomes the area that has it then. */
static int mmi_vma_protect(struct mm_vma_space *space, struct mmi_vma_patch *p, struct mm_vma **vma,
                           uintptr_t from, uintptr_t to, unsigned prot)
{
    uintptr_t flags, was = (*vma)->flags;
    int result = mmi_vma_protected(space, *vma, prot, to - from, &flags);

    if (result != MM_VMA_OK || flags == was)
        return result;
    result = mmi_vma_change(space, p, vma, from, to, flags);
    if (result != MM_VMA_OK)
        return result;
    mmi_vma_reprotect(space, from, to, flags);
    if ((was & (MM_VMA_WRITE | MM_VMA_SHARED | MM_VMA_LOCKED)) == MM_VMA_LOCKED &&
        (flags & MM_VMA_WRITE) != 0)
        (void)mmi_vma_fill(space, from, to, true); /* locked pages get their copies now */
    return MM_VMA_OK;
}

/* mprotect of a single area, in one leaf with all that it takes, as nearly always. False: it is not
 * so. */
MMI_VMA_HERE bool mmi_vma_mprotect_one(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                                       unsigned prot, int *result)
{
    struct mmi_vma_patch patch;
    struct mm_vma *vma;
    bool local;

    if ((prot & MM_VMA_PROT_GROWSDOWN) != 0)
        return false;
    local = mmi_vma_patch_find(&patch, &space->map, start, end, 1);
    if (!local && patch.full) {
        *result = mmi_vma_reserve(space, start, end, 2);
        if (*result != MM_VMA_OK)
            return true;
        mmi_vma_write_begin(&space->map);
        mmi_vma_make_room(&patch.c, &space->map);
        mmi_vma_write_end(&space->map);
        local = mmi_vma_patch_find(&patch, &space->map, start, end, 1);
    }
    if (!local || patch.j != patch.i + 1)
        return false;
    vma = mmi_vma_leaf_area(patch.c.node[0], patch.i);
    if (vma->start > start || vma->end < end)
        return false;
    *result = mmi_vma_spares(space, 2) == MM_OK
                  ? mmi_vma_protect(space, &patch, &vma, start, end, prot & MM_VMA_PROT)
                  : MM_VMA_ENOMEM;
    return true;
}

static int mmi_vma_mprotect(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                            unsigned prot)
{
    struct mm_vma *vma;
    uintptr_t to;
    int result;

    vma = mmi_vma_from(space, start);
    if ((prot & MM_VMA_PROT_GROWSDOWN) != 0) {
        if (vma == NULL || vma->start >= end)
            return MM_VMA_ENOMEM;
        if ((vma->flags & MM_VMA_GROWSDOWN) == 0)
            return MM_VMA_EINVAL;
        start = vma->start;
    }
    if (mmi_vma_reserve(space, start, end, 2) != MM_VMA_OK)
        return MM_VMA_ENOMEM;
    if (vma == NULL || vma->start > start)
        return MM_VMA_ENOMEM;
    do {
        to = mmi_vma_min(vma->end, end);
        result = mmi_vma_protect(space, NULL, &vma, start, to, prot & MM_VMA_PROT);
        start = mmi_vma_max(vma->end, to); /* what joined needs no change */
        if (result != MM_VMA_OK || start >= end)
            return result;
        vma = mmi_vma_from(space, start);
    } while (vma != NULL && vma->start <= start);
    return MM_VMA_ENOMEM;
}

MM_VMA_API int mm_vma_mprotect(struct mm_vma_space *space, mm_va_t va, uint64_t bytes,
                               unsigned prot)
{
    MM_VMA_RWLOCK_STATE_T state;
    uint64_t last = space->top, end = (va >> MM_PAGE_SHIFT) + mmi_vma_pages(bytes);
    uintptr_t start;
    int result;

    if ((va & MMI_VMA_PAGE_MASK) != 0)
        return MM_VMA_EINVAL;
    if (bytes == 0)
        return MM_VMA_OK;
    if (end > UINT64_MAX >> MM_PAGE_SHIFT)
        return MM_VMA_ENOMEM; /* it wraps */
    if ((prot & ~(MM_VMA_PROT | MM_VMA_PROT_SEM | MM_VMA_PROT_GROWSDOWN)) != 0)
        return MM_VMA_EINVAL;
    if (va >> MM_PAGE_SHIFT >= last)
        return MM_VMA_ENOMEM;
    MMI_VMA_LOCK(space, state);
    start = (uintptr_t)(va >> MM_PAGE_SHIFT);
    if (!mmi_vma_mprotect_one(space, start, (uintptr_t)(end < last ? end : last), prot, &result))
        result = mmi_vma_mprotect(space, start, (uintptr_t)(end < last ? end : last), prot);
    if (result == MM_VMA_OK && end > last)
        result = MM_VMA_ENOMEM; /* a hole up there */
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* The flags that an advice gives an area; *pages: it is about pages instead. */
static int mmi_vma_advised(const struct mm_vma *vma, int advice, uintptr_t *flags, bool *pages)
{
    const uintptr_t order = MM_VMA_RANDOM | MM_VMA_SEQUENTIAL;
    const uintptr_t huge = MM_VMA_HUGEPAGE | MM_VMA_NOHUGEPAGE;
    uintptr_t f = vma->flags;

    *pages = false;
    switch (advice) {
    case MM_VMA_ADV_NORMAL:
        f &= ~order;
        break;
    case MM_VMA_ADV_RANDOM:
        f = (f & ~order) | MM_VMA_RANDOM;
        break;
    case MM_VMA_ADV_SEQUENTIAL:
        f = (f & ~order) | MM_VMA_SEQUENTIAL;
        break;
    case MM_VMA_ADV_DONTFORK:
        f |= MM_VMA_DONTFORK;
        break;
    case MM_VMA_ADV_DOFORK:
        f &= ~(uintptr_t)MM_VMA_DONTFORK;
        break;
    case MM_VMA_ADV_HUGEPAGE:
        f = (f & ~huge) | MM_VMA_HUGEPAGE;
        break;
    case MM_VMA_ADV_NOHUGEPAGE:
        f = (f & ~huge) | MM_VMA_NOHUGEPAGE;
        break;
    case MM_VMA_ADV_DONTDUMP:
        f |= MM_VMA_DONTDUMP;
        break;
    case MM_VMA_ADV_DODUMP:
        f &= ~(uintptr_t)MM_VMA_DONTDUMP;
        break;
    case MM_VMA_ADV_WIPEONFORK:
        f |= MM_VMA_WIPEONFORK;
        break;
    case MM_VMA_ADV_KEEPONFORK:
        f &= ~(uintptr_t)MM_VMA_WIPEONFORK;
        break;
    default:
        *pages = true;
    }
    *flags = f;
    return (advice == MM_VMA_ADV_WIPEONFORK && (vma->file != NULL || (f & MM_VMA_SHARED) != 0)) ||
                   ((f & MMI_VMA_UNMERGEABLE) != 0 &&
                    (advice == MM_VMA_ADV_DOFORK || advice == MM_VMA_ADV_DODUMP))
               ? MM_VMA_EINVAL
               : MM_VMA_OK;
}

/* Advice about pages, for the part [from, to) of an area. */
static int mmi_vma_advise_pages(struct mm_vma_space *space, const struct mm_vma *vma, int advice,
                                uintptr_t from, uintptr_t to)
{
    uintptr_t refused = MM_VMA_LOCKED | MMI_VMA_UNMERGEABLE;

    if (advice == MM_VMA_ADV_WILLNEED) {
        if (vma->file != NULL)
            (void)mmi_vma_fill(space, from, to, false);
        return MM_VMA_OK;
    }
    if (advice == MM_VMA_ADV_FREE && (vma->file != NULL || (vma->flags & MM_VMA_SHARED) != 0))
        return MM_VMA_EINVAL;
    if ((vma->flags & refused) != 0)
        return MM_VMA_EINVAL;
    mmi_vma_zap(space, from, to);
    return MM_VMA_OK;
}

static bool mmi_vma_advice_known(int advice)
{
    switch (advice) {
    case MM_VMA_ADV_NORMAL:
    case MM_VMA_ADV_RANDOM:
    case MM_VMA_ADV_SEQUENTIAL:
    case MM_VMA_ADV_WILLNEED:
    case MM_VMA_ADV_DONTNEED:
    case MM_VMA_ADV_FREE:
    case MM_VMA_ADV_DONTFORK:
    case MM_VMA_ADV_DOFORK:
    case MM_VMA_ADV_HUGEPAGE:
    case MM_VMA_ADV_NOHUGEPAGE:
    case MM_VMA_ADV_DONTDUMP:
    case MM_VMA_ADV_DODUMP:
    case MM_VMA_ADV_WIPEONFORK:
    case MM_VMA_ADV_KEEPONFORK:
        return true;
    default:
        return false;
    }
}

static int mmi_vma_madvise(struct mm_vma_space *space, uintptr_t start, uintptr_t end, int advice)
{
    struct mm_vma *vma = mmi_vma_from(space, start);
    int result, holes = MM_VMA_OK;
    uintptr_t to, flags;
    bool pages;

    if (mmi_vma_reserve(space, start, end, 2) != MM_VMA_OK)
        return MM_VMA_EAGAIN;
    while (start < end) {
        if (vma == NULL || vma->start >= end)
            return MM_VMA_ENOMEM;
        if (start < vma->start) {
            holes = MM_VMA_ENOMEM;
            start = vma->start;
        }
        to = mmi_vma_min(vma->end, end);
        result = mmi_vma_advised(vma, advice, &flags, &pages);
        if (result == MM_VMA_OK)
            result = pages ? mmi_vma_advise_pages(space, vma, advice, start, to)
                           : mmi_vma_change(space, NULL, &vma, start, to, flags);
        if (result != MM_VMA_OK)
            return result == MM_VMA_ENOMEM ? MM_VMA_EAGAIN : result; /* ENOMEM is for holes */
        start = mmi_vma_max(vma->end, to);
        vma = mmi_vma_from(space, start);
    }
    return holes;
}

MM_VMA_API int mm_vma_madvise(struct mm_vma_space *space, mm_va_t va, uint64_t bytes, int advice)
{
    MM_VMA_RWLOCK_STATE_T state;
    uint64_t end = (va >> MM_PAGE_SHIFT) + mmi_vma_pages(bytes), top = space->top;
    int result;

    if (!mmi_vma_advice_known(advice) || (va & MMI_VMA_PAGE_MASK) != 0 ||
        end > UINT64_MAX >> MM_PAGE_SHIFT)
        return MM_VMA_EINVAL;
    if (bytes == 0)
        return MM_VMA_OK;
    if (va >> MM_PAGE_SHIFT >= top)
        return MM_VMA_ENOMEM;
    MMI_VMA_LOCK(space, state);
    result = mmi_vma_madvise(space, (uintptr_t)(va >> MM_PAGE_SHIFT),
                             (uintptr_t)(end < top ? end : top), advice);
    if (result == MM_VMA_OK && end > top)
        result = MM_VMA_ENOMEM;
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* Gives areas up to the first hole these of the two lock flags. */
static int mmi_vma_lock_range(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                              uintptr_t locks)
{
    struct mm_vma *vma = mmi_vma_from(space, start);
    uintptr_t to, flags;
    int result;

    if (vma == NULL || vma->start > start)
        return MM_VMA_ENOMEM;
    if (mmi_vma_reserve(space, start, end, 2) != MM_VMA_OK)
        return MM_VMA_ENOMEM;
    while (start < end) {
        if (vma == NULL || vma->start > start)
            return MM_VMA_ENOMEM;
        to = mmi_vma_min(vma->end, end);
        flags = (vma->flags & ~(uintptr_t)MMI_VMA_LOCKS) | locks;
        if ((vma->flags & MMI_VMA_UNMERGEABLE) == 0 && flags != vma->flags) {
            result = mmi_vma_change(space, NULL, &vma, start, to, flags);
            if (result != MM_VMA_OK)
                return result;
            mmi_vma_relock(space, start, to, locks != 0);
        }
        start = mmi_vma_max(vma->end, to);
        vma = mmi_vma_from(space, start);
    }
    return MM_VMA_OK;
}

/* Pages of locked areas within [start, end). */
static uint64_t mmi_vma_locked_in(const struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    const struct mm_vma *vma = mmi_vma_from(space, start);
    uint64_t pages = 0;

    while (vma != NULL && vma->start < end) {
        if ((vma->flags & MM_VMA_LOCKED) != 0)
            pages += mmi_vma_min(vma->end, end) - mmi_vma_max(vma->start, start);
        vma = mmi_vma_from(space, vma->end);
    }
    return pages;
}

/* Whether `pages` more locked ones fit the limit; those that are locked already do not count. */
static bool mmi_vma_mlock_fits(const struct mm_vma_space *space, uint64_t first, uint64_t pages)
{
    uint64_t limit = space->limits.locked >> MM_PAGE_SHIFT, top = space->top;

    if (space->locked + pages <= limit)
        return true;
    if (first >= top)
        return false;
    pages -= mmi_vma_locked_in(space, (uintptr_t)first,
                               (uintptr_t)(pages < top - first ? first + pages : top));
    return space->locked + pages <= limit;
}

/* The pages of a range that is locked now come in; Linux's results where they cannot. */
static int mmi_vma_mlock_pages(struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    int result = mmi_vma_fill(space, start, end, true);

    return result == MM_VMA_EFAULT   ? MM_VMA_ENOMEM
           : result == MM_VMA_ENOMEM ? MM_VMA_EAGAIN
                                     : result;
}

/* What mlock and munlock refuse before they look at areas. */
static int mmi_vma_lock_admit(const struct mm_vma_space *space, uint64_t first, uint64_t pages,
                              uintptr_t locks)
{
    if (locks != 0 && space->limits.locked == 0)
        return MM_VMA_EPERM;
    if (locks != 0 && !mmi_vma_mlock_fits(space, first, pages))
        return MM_VMA_ENOMEM;
    if (pages > (UINT64_MAX >> MM_PAGE_SHIFT) - first)
        return MM_VMA_EINVAL; /* it wraps */
    return pages != 0 && first >= space->top ? MM_VMA_ENOMEM : MM_VMA_OK;
}

/* mlock and munlock: the range is widened to pages, in the arithmetic of 64 bits as Linux does. */
static int mmi_vma_lock_call(struct mm_vma_space *space, mm_va_t va, uint64_t bytes,
                             uintptr_t locks)
{
    uint64_t first = va >> MM_PAGE_SHIFT, top = space->top, end;
    uint64_t pages = (bytes + (va & MMI_VMA_PAGE_MASK) + MMI_VMA_PAGE_MASK) >> MM_PAGE_SHIFT;
    MM_VMA_RWLOCK_STATE_T state;
    int result;

    MMI_VMA_LOCK(space, state);
    result = mmi_vma_lock_admit(space, first, pages, locks);
    if (result == MM_VMA_OK && pages != 0) {
        end = mmi_vma_min64(first + pages, top);
        result = mmi_vma_lock_range(space, (uintptr_t)first, (uintptr_t)end, locks);
        if (result == MM_VMA_OK && first + pages > top)
            result = MM_VMA_ENOMEM; /* a hole up there */
        if (result == MM_VMA_OK && locks != 0)
            result = mmi_vma_mlock_pages(space, (uintptr_t)first, (uintptr_t)end);
    }
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

MM_VMA_API int mm_vma_mlock(struct mm_vma_space *space, mm_va_t va, uint64_t bytes)
{
    return mmi_vma_lock_call(space, va, bytes, MM_VMA_LOCKED);
}

MM_VMA_API int mm_vma_mlock2(struct mm_vma_space *space, mm_va_t va, uint64_t bytes, unsigned flags)
{
    if ((flags & ~MM_VMA_MLOCK_ONFAULT) != 0)
        return MM_VMA_EINVAL;
    return mmi_vma_lock_call(space, va, bytes, flags == 0 ? MM_VMA_LOCKED : MMI_VMA_LOCKS);
}

MM_VMA_API int mm_vma_munlock(struct mm_vma_space *space, mm_va_t va, uint64_t bytes)
{
    return mmi_vma_lock_call(space, va, bytes, 0);
}

/* ---- mremap ---------------------------------------------------------------------------------- */

/* One call in progress; all in pages. */
struct mmi_vma_remap {
    struct mm_vma_space *space;
    uintptr_t old, old_pages, pages, target;
    unsigned flags;
    bool beyond; /* the old range ends above the space: no tail of it can be unmapped */
};

/* Whether the area may have `grow` more pages. */
static int mmi_vma_remap_growth(const struct mmi_vma_remap *r, const struct mm_vma *vma,
                                uintptr_t grow)
{
    if (vma->offset + (r->old - vma->start) > UINTPTR_MAX - r->pages)
        return MM_VMA_EINVAL;
    if ((vma->flags & MMI_VMA_UNMERGEABLE) != 0)
        return MM_VMA_EFAULT;
    if (!mmi_vma_may_lock(r->space, vma->flags, grow))
        return MM_VMA_EAGAIN;
    return mmi_vma_may_expand(r->space, vma->flags, grow) ? MM_VMA_OK : MM_VMA_ENOMEM;
}

/* What mremap checks of an area that grows or moves. Rule 6 of the manual. */
static int mmi_vma_remap_admit(const struct mmi_vma_remap *r, const struct mm_vma *vma)
{
    uintptr_t checked = r->pages < r->old_pages ? r->pages : r->old_pages;
    uintptr_t grow = r->pages > r->old_pages ? r->pages - r->old_pages : 0;
    bool fixed = (vma->flags & MMI_VMA_UNMERGEABLE) != 0;

    if (r->old_pages == 0 && (vma->flags & MM_VMA_SHARED) == 0)
        return MM_VMA_EINVAL;
    if (fixed && (r->flags & MM_VMA_REMAP_DONTUNMAP) != 0)
        return MM_VMA_EINVAL;
    if (checked > vma->end - r->old)
        return MM_VMA_EFAULT;
    if (grow == 0)
        return r->beyond ? MM_VMA_EINVAL : MM_VMA_OK;
    return mmi_vma_remap_growth(r, vma, grow);
}

/* Grows the area's end in place, joining only what follows. */
static int mmi_vma_remap_extend(const struct mmi_vma_remap *r, struct mm_vma *vma)
{
    struct mm_vma_space *space = r->space;
    struct mm_vma mid = *vma, *next, *gone = NULL;
    uintptr_t was = vma->end, end = r->old + r->pages;
    bool left, right;

    if (mmi_vma_reserve(space, was, end, 1) != MM_VMA_OK)
        return MM_VMA_ENOMEM;
    mid.start = was;
    mid.end = end;
    mid.offset += was - vma->start;
    next = mmi_vma_from(space, end);
    if (next != NULL && next->anon == 0)
        mid.anon = 0; /* an inherited identity, too, grows over what has none */
    mmi_vma_joins(NULL, &mid, next, &left, &right);
    mmi_vma_write_begin(&space->map);
    mmi_vma_account(space, vma->flags, end - was);
    if (right) {
        vma->anon = vma->anon != 0 ? vma->anon : next->anon;
        end = next->end;
        mmi_vma_detach(space, next, &gone);
    }
    mmi_vma_set_end(&space->map, vma, end);
    mmi_vma_write_end(&space->map);
    mmi_vma_free_list(space, gone);
    if ((vma->flags & MM_VMA_LOCKED) != 0)
        (void)mmi_vma_fill(space, was, r->old + r->pages, true);
    return MM_VMA_OK;
}

/* The old range after its pages moved: gone, or (DONTUNMAP) empty and unlocked. */
static void mmi_vma_remap_source(const struct mmi_vma_remap *r, struct mm_vma *copy,
                                 struct mm_vma **gone)
{
    struct mm_vma_space *space = r->space;
    uintptr_t end = r->old + r->old_pages, flags;
    struct mm_vma *vma;

    if (r->old_pages == 0) /* shared memory is mapped once more */
        return;
    if ((r->flags & MM_VMA_REMAP_DONTUNMAP) == 0) {
        mmi_vma_cut(space, r->old, end, gone);
        return;
    }
    vma = mmi_vma_from(space, r->old);
    flags = vma->flags & ~(uintptr_t)MMI_VMA_LOCKS;
    if (flags != vma->flags) { /* the whole area, as Linux does */
        space->locked -= mmi_vma_count(vma);
        mmi_vma_set_flags(&space->map, vma, flags);
        mmi_vma_relock(space, vma->start, vma->end, false);
    }
    if (vma != copy && vma->start == r->old && vma->end == end)
        vma->anon = 0;
}

/* Moves one area's part [old, old + old_pages) to [target, target + pages), where the map is free.
 * Three areas and inserts are reserved. */
static int mmi_vma_remap_move(const struct mmi_vma_remap *r, struct mm_vma *vma)
{
    struct mm_vma_space *space = r->space;
    struct mm_vma range = *vma, *gone = NULL, *fresh, *area;
    uintptr_t old_end = r->old + r->old_pages;
    bool share = mmi_vma_share_needed(vma);

    if (share && mmi_vma_share(space, r->target, space, r->old, old_end, false) != MM_OK) {
        mmi_vma_zap(space, r->target, r->target + r->old_pages);
        return MM_VMA_ENOMEM;
    }
    range.start = r->target;
    range.end = r->target + r->pages;
    range.offset += r->old - vma->start;
    if (vma->file == NULL && vma->anon == 0)
        range.offset = r->target; /* A2 */
    fresh = mmi_vma_twin(space, &range, range.start);
    mmi_vma_write_begin(&space->map);
    area = mmi_vma_add(space, fresh, &gone);
    mmi_vma_remap_source(r, area, &gone);
    mmi_vma_write_end(&space->map);
    if (area != fresh) {
        fresh->link = gone;
        gone = fresh;
    }
    mmi_vma_zap(space, r->old, old_end);
    mmi_vma_free_list(space, gone);
    if ((range.flags & MM_VMA_LOCKED) == 0)
        return MM_VMA_OK;
    if (range.file != NULL &&
        (range.flags & MM_VMA_LOCKONFAULT) == 0) /* these did not move with it */
        (void)mmi_vma_fill(space, range.start, range.start + r->old_pages, false);
    (void)mmi_vma_fill(space, range.start + r->old_pages, range.end, true);
    return MM_VMA_OK;
}

/* Whether the limits have room for the pages that DONTUNMAP adds, once `freed` of the target's are
 * free. */
static bool mmi_vma_remap_room(const struct mmi_vma_remap *r, uintptr_t flags, uintptr_t freed)
{
    const struct mm_vma_space *space = r->space;
    uint64_t all = mmi_vma_mapped(space, r->target, r->target + freed, false);
    uint64_t data = mmi_vma_mapped(space, r->target, r->target + freed, true);

    if (mmi_vma_total(space) + r->pages - all > space->limits.total >> MM_PAGE_SHIFT)
        return false;
    return !mmi_vma_is_data(flags) ||
           mmi_vma_data(space) + r->pages - data <= space->limits.data >> MM_PAGE_SHIFT;
}

/* Whether a call that moves memory might go beyond the limit of areas by `more`: three if an area
 * or several without holes move, because both ranges may be cut out of the midst of areas. */
static bool mmi_vma_remap_crowded(const struct mm_vma_space *space, uintptr_t more)
{
    return space->map.count + more > space->limits.areas;
}

/* Chooses the place, frees it and moves there: FIXED, DONTUNMAP, or because growth in place
 * failed. */
static int mmi_vma_remap_to(struct mmi_vma_remap *r)
{
    struct mm_vma_space *space = r->space;
    struct mm_vma *vma = mmi_vma_from(space, r->old);
    bool fixed = (r->flags & MM_VMA_REMAP_FIXED) != 0;

    if (fixed && r->old_pages == 0 && r->target == r->old)
        return MM_VMA_EFAULT; /* the target would take the source away */
    if (mmi_vma_reserve(space, 0, space->top, 5) != MM_VMA_OK)
        return MM_VMA_ENOMEM;
    if ((r->flags & MM_VMA_REMAP_DONTUNMAP) != 0 &&
        !mmi_vma_remap_room(r, vma->flags, fixed ? r->pages : 0))
        return MM_VMA_ENOMEM;
    if (!fixed) {
        r->target = mmi_vma_place_any(space, r->target, r->pages, 0, 0);
        if (r->target == MMI_VMA_NONE)
            return MM_VMA_ENOMEM;
    } else {
        mmi_vma_drop(space, r->target, r->target + r->pages, NULL, false);
    }
    if (r->pages < r->old_pages) {
        mmi_vma_drop(space, r->old + r->pages, r->old + r->old_pages, NULL, false);
        r->old_pages = r->pages;
    }
    return mmi_vma_remap_move(r, mmi_vma_from(space, r->old));
}

/* Areas within [start, end); *runs of them have a hole or a border of the range on both sides. */
static unsigned mmi_vma_areas_in(const struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                                 unsigned *runs)
{
    const struct mm_vma *vma = mmi_vma_from(space, start);
    uintptr_t behind = end;
    unsigned areas = 0;

    for (*runs = 0; vma != NULL && vma->start < end; vma = mmi_vma_from(space, behind)) {
        *runs += vma->start != behind;
        behind = vma->end;
        areas++;
    }
    return areas;
}

/* Whether the limit of areas and memory allow a move of several: over holes the target stays, so
 * each run may cut the target's areas once more; the range's ends cut two areas, or DONTUNMAP
 * leaves all that move. */
static bool mmi_vma_remap_prepare(const struct mmi_vma_remap *r, bool *several)
{
    struct mm_vma_space *space = r->space;
    unsigned runs, areas = mmi_vma_areas_in(space, r->old, r->old + r->old_pages, &runs);

    *several = areas > 1;
    if (mmi_vma_remap_crowded(space, runs + ((r->flags & MM_VMA_REMAP_DONTUNMAP) != 0 ? areas : 2)))
        return false;
    return mmi_vma_reserve(space, 0, space->top, areas * 2 + 3) == MM_VMA_OK;
}

/* FIXED with equal sizes: each area of the range moves, and holes stay holes. */
static int mmi_vma_remap_each(struct mmi_vma_remap *all)
{
    uintptr_t start = all->old, end = all->old + all->old_pages, from = start;
    struct mm_vma *vma = mmi_vma_from(all->space, start);
    struct mmi_vma_remap one = *all;
    int result = MM_VMA_OK;
    bool several;

    if (vma == NULL || vma->start > start)
        return MM_VMA_EFAULT;
    if (!mmi_vma_remap_prepare(all, &several))
        return MM_VMA_ENOMEM;
    while (result == MM_VMA_OK && from < end && vma != NULL && vma->start < end) {
        one.old = mmi_vma_max(vma->start, start);
        from = mmi_vma_min(vma->end, end);
        one.pages = one.old_pages = from - one.old;
        one.target = all->target + (one.old - start);
        result = mmi_vma_remap_admit(&one, vma);
        if (several && (vma->flags & MMI_VMA_UNMERGEABLE) != 0)
            result = MM_VMA_EFAULT;
        if (result == MM_VMA_OK)
            result = mmi_vma_remap_to(&one);
        vma = mmi_vma_from(all->space, from);
    }
    return result;
}

/* Whether the range ends where the area does, and what it grows by is free. */
static bool mmi_vma_remap_fits(const struct mmi_vma_remap *r, const struct mm_vma *vma)
{
    const struct mm_vma *next = mmi_vma_from(r->space, vma->end);
    uintptr_t end = r->old + r->pages;

    return r->old + r->old_pages == vma->end && end > vma->end && end <= r->space->top &&
           (next == NULL || next->start >= end);
}

/* Without a new address: the same size, smaller, or larger. */
static int mmi_vma_remap_at(struct mmi_vma_remap *r)
{
    struct mm_vma_space *space = r->space;
    struct mm_vma *vma = mmi_vma_from(space, r->old);
    uintptr_t end = r->old + r->pages;
    int result;

    if (vma == NULL || vma->start > r->old)
        return MM_VMA_EFAULT;
    r->target = r->old;
    if (r->pages == r->old_pages)
        return MM_VMA_OK;
    if (r->pages < r->old_pages)
        return r->beyond ? MM_VMA_EINVAL : mmi_vma_munmap(space, end, r->old + r->old_pages);
    result = mmi_vma_remap_admit(r, vma);
    if (result != MM_VMA_OK)
        return result;
    if (mmi_vma_remap_fits(r, vma))
        return mmi_vma_remap_extend(r, vma);
    if ((r->flags & MM_VMA_REMAP_MAYMOVE) == 0 || mmi_vma_remap_crowded(space, 3))
        return MM_VMA_ENOMEM;
    r->target = 0;
    return mmi_vma_remap_to(r);
}

/* The arguments that say where to: only with FIXED or DONTUNMAP. All in pages. */
static int mmi_vma_remap_target(const struct mm_vma_space *space, uint64_t from, uint64_t old_pages,
                                uint64_t pages, unsigned flags, mm_va_t target)
{
    uint64_t to = target >> MM_PAGE_SHIFT, words = UINT64_MAX >> MM_PAGE_SHIFT;

    if (to > space->top - pages || (target & MMI_VMA_PAGE_MASK) != 0 ||
        (flags & MM_VMA_REMAP_MAYMOVE) == 0)
        return MM_VMA_EINVAL;
    if ((flags & MM_VMA_REMAP_DONTUNMAP) != 0 && old_pages != pages)
        return MM_VMA_EINVAL;
    if (((from + old_pages) & words) > to &&
        to + pages > from) /* the end of the old range may wrap */
        return MM_VMA_EINVAL;
    return MM_VMA_OK;
}

/* The arguments alone, in Linux's order. */
static int mmi_vma_remap_args(struct mmi_vma_remap *r, mm_va_t old, uint64_t old_bytes,
                              uint64_t bytes, unsigned flags, mm_va_t target)
{
    uint64_t top = r->space->top, pages = mmi_vma_pages(bytes);
    uint64_t old_pages = mmi_vma_pages(old_bytes) & (UINT64_MAX >> MM_PAGE_SHIFT); /* as a word */
    bool placed = (flags & (MM_VMA_REMAP_FIXED | MM_VMA_REMAP_DONTUNMAP)) != 0;
    uint64_t from = old >> MM_PAGE_SHIFT;
    int result = MM_VMA_OK;

    if ((flags & ~7u) != 0 || (old & MMI_VMA_PAGE_MASK) != 0 || pages - 1 >= top)
        return MM_VMA_EINVAL; /* pages: 0 too */
    if (placed)
        result = mmi_vma_remap_target(r->space, from, old_pages, pages, flags, target);
    if (result != MM_VMA_OK)
        return result;
    if (from >= top || (old_pages > top - from && pages >= old_pages + !placed))
        return MM_VMA_EFAULT;
    r->old = (uintptr_t)from;
    r->pages = (uintptr_t)pages;
    r->flags = flags;
    r->target = placed ? (uintptr_t)(target >> MM_PAGE_SHIFT) : 0;
    r->beyond = old_pages > top - from && pages != old_pages;
    r->old_pages = r->beyond ? UINTPTR_MAX : (uintptr_t)old_pages; /* longer than any area */
    return MM_VMA_OK;
}

MM_VMA_API int mm_vma_mremap(struct mm_vma_space *space, mm_va_t old, uint64_t old_bytes,
                             uint64_t bytes, unsigned flags, mm_va_t target, mm_va_t *va)
{
    MM_VMA_RWLOCK_STATE_T state;
    struct mmi_vma_remap r;
    const struct mm_vma *vma;
    int result;

    r.space = space;
    result = mmi_vma_remap_args(&r, old, old_bytes, bytes, flags, target);
    if (result != MM_VMA_OK)
        return result;
    MMI_VMA_LOCK(space, state);
    if ((flags & (MM_VMA_REMAP_FIXED | MM_VMA_REMAP_DONTUNMAP)) != 0 &&
        mmi_vma_remap_crowded(space, 3)) {
        result = MM_VMA_ENOMEM;
    } else if ((flags & MM_VMA_REMAP_FIXED) != 0 && r.pages == r.old_pages) {
        result = mmi_vma_remap_each(&r);
    } else if ((flags & (MM_VMA_REMAP_FIXED | MM_VMA_REMAP_DONTUNMAP)) != 0) {
        vma = mmi_vma_from(space, r.old);
        result = vma == NULL || vma->start > r.old ? MM_VMA_EFAULT : mmi_vma_remap_admit(&r, vma);
        if (result == MM_VMA_OK)
            result = mmi_vma_remap_to(&r);
    } else {
        result = mmi_vma_remap_at(&r);
    }
    if (result == MM_VMA_OK)
        *va = mmi_vma_va(r.target);
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* ---- brk ------------------------------------------------------------------------------------- */

static bool mmi_vma_brk_grow(struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    uintptr_t flags = MM_VMA_READ | MM_VMA_WRITE | MM_VMA_MAY | MM_VMA_ACCOUNT;
    const struct mm_vma *next = mmi_vma_from(space, start);
    struct mm_vma *fresh, *gone = NULL;

    if (end > space->top || (next != NULL && end + 1 > mmi_vma_floor(space, next)))
        return false;
    if (!mmi_vma_may_expand(space, flags, end - start) || space->map.count >= space->limits.areas ||
        mmi_vma_reserve(space, start, end, 1) != MM_VMA_OK)
        return false;
    fresh = mmi_vma_spare(space);
    mmi_vma_area_set(fresh, start, end, flags, start, NULL);
    mmi_vma_write_begin(&space->map);
    if (mmi_vma_add(space, fresh, &gone) != fresh)
        mmi_vma_unspare(space, fresh);
    mmi_vma_write_end(&space->map);
    return true;
}

static bool mmi_vma_brk_shrink(struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    const struct mm_vma *vma = mmi_vma_from(space, start);

    return vma != NULL && vma->start < end && mmi_vma_munmap(space, start, end) == MM_VMA_OK;
}

MM_VMA_API mm_va_t mm_vma_brk(struct mm_vma_space *space, mm_va_t brk)
{
    MM_VMA_RWLOCK_STATE_T state;
    uintptr_t was, now;
    mm_va_t result;
    bool done;

    MMI_VMA_LOCK(space, state);
    if (brk >= space->brk_start && brk <= mmi_vma_va(space->top) &&
        brk - space->brk_start <= space->limits.data) {
        was = (uintptr_t)mmi_vma_pages(space->brk);
        now = (uintptr_t)mmi_vma_pages(brk);
        done = was == now || (now > was ? mmi_vma_brk_grow(space, was, now)
                                        : mmi_vma_brk_shrink(space, now, was));
        if (done)
            space->brk = brk;
    }
    result = space->brk;
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* ---- Presets --------------------------------------------------------------------------------- */

/* Enters an area with given flags at a fixed free place, its pages at once where asked for. */
static int mmi_vma_install(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                           uintptr_t flags, uintptr_t offset, bool now)
{
    const struct mm_vma *there = mmi_vma_from(space, start);
    struct mm_vma *fresh;
    int result;

    if (there != NULL && there->start < end)
        return MM_VMA_EEXIST;
    if (!mmi_vma_may_expand(space, flags, end - start) || space->map.count >= space->limits.areas)
        return MM_VMA_ENOMEM;
    flags |= MM_VMA_MAY | mmi_vma_accountable(flags);
    if (mmi_vma_spares(space, 1) != MM_OK)
        return MM_VMA_ENOMEM;
    fresh = mmi_vma_spare(space);
    mmi_vma_area_set(fresh, start, end, flags, offset, NULL);
    result = mmi_vma_enter(space, fresh, false);
    if (result == MM_VMA_OK && now && space->sys->hooks.pt_map != NULL) {
        result = mmi_vma_fill(space, start, end, true);
        if (result != MM_VMA_OK) /* what was reserved for two inserts does for a split too */
            mmi_vma_drop(space, start, end, NULL, false);
    }
    return result;
}

static bool mmi_vma_frames_fit(bool linear, mm_pa_t pa, uint64_t bytes)
{
    if (!linear)
        return true;
    return (pa & MMI_VMA_PAGE_MASK) == 0 && pa <= MM_PA_NONE - bytes &&
           (pa >> MM_PAGE_SHIFT) <= UINTPTR_MAX - (bytes >> MM_PAGE_SHIFT);
}

MM_VMA_API int mm_vma_install(struct mm_vma_space *space, enum mm_vma_preset preset, mm_va_t va,
                              uint64_t bytes, mm_pa_t pa, unsigned prot)
{
    /* rights and flags, whether the pages come at once, whether frames are given */
    static const struct {
        unsigned flags;
        bool now, linear;
    } kinds[] = {
        {MM_VMA_READ | MM_VMA_EXEC, false, false},
        {MM_VMA_READ | MM_VMA_WRITE, false, false},
        {MM_VMA_READ | MM_VMA_WRITE | MM_VMA_GROWSDOWN, false, false},
        {MM_VMA_READ | MM_VMA_WRITE, false, false},
        {MM_VMA_READ | MM_VMA_WRITE, true, false},
        {MM_VMA_READ | MM_VMA_WRITE | MM_VMA_PFN | MM_VMA_SHARED, true, true},
        {MM_VMA_READ | MM_VMA_WRITE | MM_VMA_PFN | MM_VMA_SHARED, true, true},
        {MM_VMA_READ | MM_VMA_WRITE | MM_VMA_PFN | MM_VMA_SHARED | MM_VMA_DEVICE, true, true}};
    MM_VMA_RWLOCK_STATE_T state;
    uintptr_t start, end, flags;
    int result;

    if ((unsigned)preset > MM_VMA_IO || (prot & ~MM_VMA_PROT) != 0 || bytes == 0 ||
        !mmi_vma_span(space, va, bytes, &start, &end) || start < space->low)
        return MM_VMA_EINVAL;
    flags = kinds[preset].flags & ~(prot != 0 ? MM_VMA_PROT : 0u);
    flags |= prot;
    pa = preset == MM_VMA_IDENTITY ? va : pa;
    if (!mmi_vma_frames_fit(kinds[preset].linear, pa, bytes))
        return MM_VMA_EINVAL;
    MMI_VMA_LOCK(space, state);
    result = mmi_vma_install(space, start, end, flags,
                             kinds[preset].linear ? (uintptr_t)(pa >> MM_PAGE_SHIFT) : start,
                             kinds[preset].now);
    if (result == MM_VMA_OK && preset == MM_VMA_HEAP) {
        space->brk_start = va;
        space->brk = va + bytes;
    }
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* ---- Limits, totals -------------------------------------------------------------------------- */

MM_VMA_API void mm_vma_set_limits(struct mm_vma_space *space, const struct mm_vma_limits *limits)
{
    MM_VMA_RWLOCK_STATE_T state;

    MMI_VMA_LOCK(space, state);
    space->limits = *limits;
    MMI_VMA_UNLOCK(space, state);
}

MM_VMA_API void mm_vma_read_totals(struct mm_vma_space *space, struct mm_vma_totals *totals)
{
    MM_VMA_RWLOCK_STATE_T state;
    unsigned i;

    MM_VMA_READ_LOCK(&space->lock, state);
    totals->areas = space->map.count;
    totals->total = mmi_vma_total(space);
    totals->locked = space->locked;
    totals->data = mmi_vma_data(space);
    totals->stack = space->stack;
    totals->exec = mmi_vma_code(space);
    for (i = 0; i < MM_VMA_KINDS; i++)
        totals->rss[i] = mm_load(&space->rss[i]);
    MM_VMA_READ_UNLOCK(&space->lock, state);
}

/* ---- Reverse map ----------------------------------------------------------------------------- */

#define MMI_VMA_WRITEBACK 4u /* a copy goes to swap: cleared by whoever may change the page */
#define MMI_VMA_NOTES     (sizeof(struct mm_vma_node) / sizeof(struct mmi_vma_rmap))

/* A note for a further mapping of a frame, or NULL. */
static struct mmi_vma_rmap *mmi_vma_note_get(struct mm_vma_system *sys)
{
    MM_VMA_LOCK_STATE_T state;
    struct mmi_vma_rmap *note, *cut;
    struct mm_vma_node *node;
    unsigned i;

    MM_VMA_LOCK(&sys->pool_lock, state);
    note = sys->pool;
    if (note != NULL)
        sys->pool = note->next;
    MM_VMA_UNLOCK(&sys->pool_lock, state);
    if (note != NULL)
        return note;
    node = sys->hooks.nodes.alloc(sys->hooks.nodes.ctx);
    if (node == NULL)
        return NULL;
    cut = (struct mmi_vma_rmap *)(void *)node; /* [0] chains the chunks, [1] is the caller's */
    MM_VMA_LOCK(&sys->pool_lock, state);
    cut[0].next = sys->chunks;
    sys->chunks = cut;
    for (i = 2; i < MMI_VMA_NOTES; i++) {
        cut[i].next = sys->pool;
        sys->pool = &cut[i];
    }
    MM_VMA_UNLOCK(&sys->pool_lock, state);
    return &cut[1];
}

static void mmi_vma_note_put(struct mm_vma_system *sys, struct mmi_vma_rmap *notes)
{
    MM_VMA_LOCK_STATE_T state;
    struct mmi_vma_rmap *note;

    if (notes == NULL)
        return;
    MM_VMA_LOCK(&sys->pool_lock, state);
    while (notes != NULL) {
        note = notes;
        notes = note->next;
        note->next = sys->pool;
        sys->pool = note;
    }
    MM_VMA_UNLOCK(&sys->pool_lock, state);
}

static MM_VMA_LOCK_T *mmi_vma_frame_lock(struct mm_vma_system *sys, mm_pa_t pa)
{
    return &sys->frames[(pa >> MM_PAGE_SHIFT) & (MM_VMA_FRAME_LOCKS - 1)].lock;
}

/* Notes a mapping (F1). *note is taken if the frame had one already. */
static void mmi_vma_frame_add(struct mm_vma_frame *frame, uintptr_t space, uintptr_t page,
                              struct mmi_vma_rmap **note)
{
    struct mmi_vma_rmap *added = &frame->first;

    if (frame->maps != 0) {
        added = *note;
        *note = NULL;
        added->next = frame->first.next;
        frame->first.next = added;
    } else {
        added->next = NULL;
    }
    added->space = space;
    added->page = page;
    frame->maps++;
}

static struct mmi_vma_rmap *mmi_vma_frame_find(struct mm_vma_frame *frame,
                                               const struct mm_vma_space *space, uintptr_t page)
{
    struct mmi_vma_rmap *note;

    if (frame->maps == 0)
        return NULL;
    for (note = &frame->first; note != NULL; note = note->next)
        if ((note->space & ~(uintptr_t)1) == (uintptr_t)space && note->page == page)
            return note;
    return NULL;
}

/* Forgets a mapping; returns the note that is free now, if one is. */
static struct mmi_vma_rmap *mmi_vma_frame_remove(struct mm_vma_frame *frame,
                                                 struct mmi_vma_rmap *note)
{
    struct mmi_vma_rmap *next, **link;

    MM_VMA_ASSERT(note != NULL);
    frame->maps--;
    if (frame->maps == 0) {
        frame->kind = MM_VMA_RSS_ANON;
        return NULL;
    }
    if (note == &frame->first) { /* the next one moves in */
        next = note->next;
        *note = *next;
        next->next = NULL;
        return next;
    }
    for (link = &frame->first.next; *link != note; link = &(*link)->next)
        continue;
    *link = note->next;
    note->next = NULL;
    return note;
}

/* ---- Pages: entries, locked ------------------------------------------------------------------ */

/* An entry of a space, with its frame locked where that is counted. */
struct mmi_vma_spot {
    struct mm_vma_entry e;
    struct mm_vma_frame *frame; /* NULL: a slot, or not counted */
    MM_VMA_LOCK_STATE_T state;
};

/* The first entry within [page, end); false if there is none. The caller has the space's lock, so
 * that only eviction can change the entry beside it, and not while the frame is locked. */
static bool mmi_vma_spot_lock(struct mm_vma_space *space, uintptr_t page, uintptr_t end,
                              struct mmi_vma_spot *spot)
{
    struct mm_vma_system *sys = space->sys;
    const struct mm_vma_hooks *h = &sys->hooks;
    struct mm_vma_entry again;

    while (h->pt_next(h->ctx, space->pt, mmi_vma_va(page), mmi_vma_va(end), &spot->e)) {
        spot->frame = spot->e.pa == MM_PA_NONE ? NULL : h->frame(h->ctx, spot->e.pa);
        if (spot->frame == NULL)
            return true;
        MM_VMA_LOCK(mmi_vma_frame_lock(sys, spot->e.pa), spot->state);
        if (h->pt_next(h->ctx, space->pt, spot->e.va, spot->e.va + MM_PAGE_SIZE, &again) &&
            again.pa == spot->e.pa) {
            spot->e = again;
            return true;
        }
        MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, spot->e.pa), spot->state);
    }
    return false;
}

static void mmi_vma_spot_unlock(struct mm_vma_space *space, struct mmi_vma_spot *spot)
{
    if (spot->frame != NULL)
        MM_VMA_UNLOCK(mmi_vma_frame_lock(space->sys, spot->e.pa), spot->state);
}

static uintptr_t mmi_vma_spot_page(const struct mmi_vma_spot *spot)
{
    return (uintptr_t)(spot->e.va >> MM_PAGE_SHIFT);
}

/* A frame that a space no longer maps: what must wait until all CPUs have forgotten it. */
struct mmi_vma_released {
    mm_pa_t pa;
    uintptr_t kind;
    void *file;
    uintptr_t index, page;
    bool dirty, noted; /* noted: in the reverse map until then */
};

#define MMI_VMA_BATCH 32u

struct mmi_vma_gather {
    struct mm_vma_space *space;
    mm_va_t from, to; /* to be flushed; from == to: nothing */
    unsigned count;
    struct mmi_vma_released item[MMI_VMA_BATCH];
};

/* Takes the note of a page out. True if nobody maps the frame any more. */
static bool mmi_vma_forget(struct mm_vma_space *space, mm_pa_t pa, uintptr_t page)
{
    struct mm_vma_system *sys = space->sys;
    struct mm_vma_frame *frame = sys->hooks.frame(sys->hooks.ctx, pa);
    struct mmi_vma_rmap *note;
    MM_VMA_LOCK_STATE_T state;
    bool last;

    MM_VMA_LOCK(mmi_vma_frame_lock(sys, pa), state);
    note = mmi_vma_frame_remove(frame, mmi_vma_frame_find(frame, space, page));
    last = frame->maps == 0;
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    mmi_vma_note_put(sys, note);
    return last;
}

static void mmi_vma_release(struct mm_vma_space *space, const struct mmi_vma_released *item)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if (item->kind != MM_VMA_RSS_ANON)
        h->file_page_put(h->ctx, item->file, item->index, item->pa, item->dirty);
    else if (!item->noted || mmi_vma_forget(space, item->pa, item->page))
        h->frame_free(h->ctx, item->pa);
}

static void mmi_vma_gather_flush(struct mmi_vma_gather *g)
{
    const struct mm_vma_hooks *h = &g->space->sys->hooks;
    unsigned i;

    if (g->from != g->to)
        h->pt_flush(h->ctx, g->space->pt, g->from, g->to - g->from);
    for (i = 0; i < g->count; i++)
        mmi_vma_release(g->space, &g->item[i]);
    g->count = 0;
    g->from = g->to = 0;
}

static void mmi_vma_gather_init(struct mmi_vma_gather *g, struct mm_vma_space *space)
{
    g->space = space;
    g->count = 0;
    g->from = g->to = 0;
}

static void mmi_vma_gather_va(struct mmi_vma_gather *g, mm_va_t va)
{
    if (g->from == g->to)
        g->from = va;
    g->to = va + MM_PAGE_SIZE;
}

static void mmi_vma_rss(struct mm_vma_space *space, uintptr_t kind, uintptr_t add)
{
    (void)mm_fetch_add(&space->rss[kind & 3], add);
}

/* Adds what is to be released to the batch. The entry is the caller's; unlocks. Linear areas map
 * frames without a note: those are not theirs. The note of an anonymous page that others map too
 * stays until the flush: without it they would take the frame over, or free it, while a CPU still
 * reads it by its TLB. A page of a file has a reference of its own for that. */
static void mmi_vma_unmap_spot(struct mmi_vma_gather *gather, struct mmi_vma_spot *spot)
{
    struct mm_vma_space *space = gather->space;
    struct mmi_vma_released *item = &gather->item[gather->count];
    struct mmi_vma_rmap *note = mmi_vma_frame_find(spot->frame, space, mmi_vma_spot_page(spot));

    if (note != NULL) {
        item->pa = spot->e.pa;
        item->kind = spot->frame->kind & 3;
        item->file = spot->frame->file;
        item->index = spot->frame->index;
        item->page = note->page;
        item->dirty = spot->e.dirty;
        item->noted = item->kind == MM_VMA_RSS_ANON && spot->frame->maps > 1;
        note = item->noted ? NULL : mmi_vma_frame_remove(spot->frame, note);
        mmi_vma_rss(space, item->kind, (uintptr_t)0 - 1);
        gather->count++;
    }
    mmi_vma_spot_unlock(space, spot);
    mmi_vma_note_put(space->sys, note);
}

/* Settles whether the page of a file was written to: a CPU that is about to say so in the entry
 * looks at its rights first (Intel SDM vol. 3 section 4.8), so that these go before the entry. */
static void mmi_vma_settle(struct mm_vma_space *space, struct mmi_vma_spot *spot)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if (spot->e.dirty || (spot->e.prot & MM_VMA_WRITE) == 0 ||
        (spot->frame->kind & 3) == MM_VMA_RSS_ANON)
        return;
    h->pt_protect(h->ctx, space->pt, spot->e.va, spot->e.prot & ~MM_VMA_WRITE);
    (void)h->pt_next(h->ctx, space->pt, spot->e.va, spot->e.va + MM_PAGE_SIZE, &spot->e);
}

/* Empties all entries of a range: as many steps as there are entries, however long it is. */
static void mmi_vma_zap_pages(struct mm_vma_space *space, uintptr_t start, uintptr_t end)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    struct mmi_vma_gather gather;
    struct mmi_vma_spot spot;

    if (start >= end || !mmi_vma_spot_lock(space, start, end, &spot))
        return;
    mmi_vma_gather_init(&gather, space);
    do {
        if (spot.frame != NULL)
            mmi_vma_settle(space, &spot);
        h->pt_clear(h->ctx, space->pt, spot.e.va);
        start = mmi_vma_spot_page(&spot) + 1;
        if (spot.e.pa == MM_PA_NONE) {
            h->swap_free(h->ctx, spot.e.slot);
            mmi_vma_rss(space, MM_VMA_RSS_SWAP, (uintptr_t)0 - 1);
            continue;
        }
        mmi_vma_gather_va(&gather, spot.e.va);
        if (spot.frame != NULL)
            mmi_vma_unmap_spot(&gather, &spot);
        if (gather.count == MMI_VMA_BATCH)
            mmi_vma_gather_flush(&gather);
    } while (start < end && mmi_vma_spot_lock(space, start, end, &spot));
    mmi_vma_gather_flush(&gather);
}

/* Present pages get the rights that the area has now; write rights come back by faults, which know
 * who else has the page. */
static void mmi_vma_reprotect_pages(struct mm_vma_space *space, uintptr_t start, uintptr_t end,
                                    uintptr_t flags)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    struct mmi_vma_gather gather;
    struct mmi_vma_spot spot;
    unsigned prot;

    mmi_vma_gather_init(&gather, space);
    while (start < end && mmi_vma_spot_lock(space, start, end, &spot)) {
        start = mmi_vma_spot_page(&spot) + 1;
        if (spot.e.pa != MM_PA_NONE) {
            prot = mmi_vma_rights(flags) & ~(MM_VMA_WRITE & ~spot.e.prot);
            prot |= spot.e.prot & MM_VMA_DEVICE;
            if ((spot.e.prot & ~prot) != 0)
                mmi_vma_gather_va(&gather, spot.e.va);
            h->pt_protect(h->ctx, space->pt, spot.e.va, prot);
        }
        mmi_vma_spot_unlock(space, &spot);
    }
    mmi_vma_gather_flush(&gather);
}

/* Marks the reverse map's notes of present pages: eviction passes by locked ones. */
static void mmi_vma_relock(struct mm_vma_space *space, uintptr_t start, uintptr_t end, bool locked)
{
    struct mmi_vma_rmap *note;
    struct mmi_vma_spot spot;

    if (space->sys->hooks.pt_next == NULL)
        return;
    while (start < end && mmi_vma_spot_lock(space, start, end, &spot)) {
        start = mmi_vma_spot_page(&spot) + 1;
        note = spot.frame == NULL ? NULL
                                  : mmi_vma_frame_find(spot.frame, space, mmi_vma_spot_page(&spot));
        if (note != NULL)
            note->space = (uintptr_t)space | (uintptr_t)locked;
        mmi_vma_spot_unlock(space, &spot);
    }
}

/* ---- Pages: entering ------------------------------------------------------------------------- */

/* A page to be mapped. */
struct mmi_vma_page {
    uintptr_t page;
    mm_pa_t pa;
    uintptr_t kind;
    void *file;
    uintptr_t index;
    unsigned prot;
};

static uintptr_t mmi_vma_tag(const struct mm_vma_space *space, const struct mm_vma *vma)
{
    return (uintptr_t)space | (uintptr_t)((vma->flags & MM_VMA_LOCKED) != 0);
}

/* Notes the mapping in the frame's record. False: no memory for the note. */
static bool mmi_vma_page_note(struct mm_vma_space *space, const struct mm_vma *vma,
                              const struct mmi_vma_page *p)
{
    struct mm_vma_system *sys = space->sys;
    struct mm_vma_frame *frame = sys->hooks.frame(sys->hooks.ctx, p->pa);
    struct mmi_vma_rmap *note = NULL;
    MM_VMA_LOCK_STATE_T state;

    if (frame == NULL)
        return true;
    if (p->kind != MM_VMA_RSS_ANON) { /* others may map it too */
        note = mmi_vma_note_get(sys);
        if (note == NULL)
            return false;
        note->next = NULL;
    }
    MM_VMA_LOCK(mmi_vma_frame_lock(sys, p->pa), state);
    if (frame->maps == 0) {
        frame->kind = p->kind;
        frame->file = p->file;
        frame->index = p->index;
    }
    mmi_vma_frame_add(frame, mmi_vma_tag(space, vma), p->page, &note);
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, p->pa), state);
    mmi_vma_rss(space, p->kind, 1);
    mmi_vma_note_put(sys, note);
    return true;
}

/* Undoes it. */
static void mmi_vma_page_unnote(struct mm_vma_space *space, const struct mmi_vma_page *p)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if (h->frame(h->ctx, p->pa) == NULL)
        return;
    (void)mmi_vma_forget(space, p->pa, p->page);
    mmi_vma_rss(space, p->kind, (uintptr_t)0 - 1);
}

/* Enters a page where none is. On MM_ERR_NOMEM the frame stays the caller's. */
static enum mm_status mmi_vma_page_enter(struct mm_vma_space *space, const struct mm_vma *vma,
                                         const struct mmi_vma_page *p)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if (!mmi_vma_page_note(space, vma, p))
        return MM_ERR_NOMEM;
    if (h->pt_map(h->ctx, space->pt, mmi_vma_va(p->page), p->pa, p->prot) != MM_OK) {
        mmi_vma_page_unnote(space, p);
        return MM_ERR_NOMEM;
    }
    if (h->mapped != NULL)
        h->mapped(h->ctx, p->pa);
    return MM_OK;
}

static void mmi_vma_page_init(struct mmi_vma_page *p, uintptr_t page, mm_pa_t pa, unsigned prot)
{
    p->page = page;
    p->pa = pa;
    p->kind = MM_VMA_RSS_ANON;
    p->file = NULL;
    p->index = 0;
    p->prot = prot;
}

/* A new anonymous page for `page`, which has no entry. */
static enum mm_vma_fault mmi_vma_enter_anon(struct mm_vma_space *space, const struct mm_vma *vma,
                                            uintptr_t page, mm_pa_t pa)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    struct mmi_vma_page p;

    mmi_vma_page_init(&p, page, pa, mmi_vma_rights(vma->flags));
    if (mmi_vma_page_enter(space, vma, &p) == MM_OK)
        return MM_VMA_FAULT_OK;
    h->frame_free(h->ctx, pa);
    return MM_VMA_FAULT_NOMEM;
}

static enum mm_vma_fault mmi_vma_pager_fault(enum mm_status status)
{
    switch (status) {
    case MM_OK:
        return MM_VMA_FAULT_OK;
    case MM_ERR_NOMEM:
        return MM_VMA_FAULT_NOMEM;
    case MM_ERR_BUSY:
        return MM_VMA_FAULT_RETRY;
    default:
        return MM_VMA_FAULT_BUS;
    }
}

/* A page of a file: itself, or for a write to private memory a copy. */
static enum mm_vma_fault mmi_vma_enter_file(struct mm_vma_space *space, const struct mm_vma *vma,
                                            uintptr_t page, bool write)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    bool shared = (vma->flags & MM_VMA_SHARED) != 0;
    struct mmi_vma_page p;
    enum mm_vma_fault fault;
    mm_pa_t copy = MM_PA_NONE;

    if (h->file_page == NULL)
        return MM_VMA_FAULT_BUS;
    mmi_vma_page_init(&p, page, MM_PA_NONE, mmi_vma_rights(vma->flags));
    p.index = vma->offset + (page - vma->start);
    p.file = vma->file;
    p.kind = (vma->flags & MM_VMA_SHMEM) != 0 ? MM_VMA_RSS_SHMEM : MM_VMA_RSS_FILE;
    if (write && !shared) {
        copy = h->frame_alloc(h->ctx, false);
        if (copy == MM_PA_NONE)
            return MM_VMA_FAULT_NOMEM;
    }
    fault = mmi_vma_pager_fault(h->file_page(h->ctx, p.file, p.index, write && shared, &p.pa));
    if (fault != MM_VMA_FAULT_OK) {
        if (copy != MM_PA_NONE)
            h->frame_free(h->ctx, copy);
        return fault;
    }
    if (copy != MM_PA_NONE) {
        h->frame_copy(h->ctx, copy, p.pa);
        h->file_page_put(h->ctx, p.file, p.index, p.pa, false);
        return mmi_vma_enter_anon(space, vma, page, copy);
    }
    if (!write)
        p.prot &= ~MM_VMA_WRITE; /* the first write is told to the pager, or breaks the sharing */
    if (mmi_vma_page_enter(space, vma, &p) == MM_OK)
        return MM_VMA_FAULT_OK;
    h->file_page_put(h->ctx, p.file, p.index, p.pa, false);
    return MM_VMA_FAULT_NOMEM;
}

/* The page has no entry. */
static enum mm_vma_fault mmi_vma_absent(struct mm_vma_space *space, const struct mm_vma *vma,
                                        uintptr_t page, bool write)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    unsigned prot = mmi_vma_rights(vma->flags);
    mm_va_t va = mmi_vma_va(page);
    mm_pa_t pa = MM_PA_NONE;

    if ((vma->flags & MM_VMA_PFN) != 0) {
        pa = (mm_pa_t)(vma->offset + (page - vma->start)) << MM_PAGE_SHIFT;
        prot |= (unsigned)vma->flags & MM_VMA_DEVICE;
    } else if (vma->file != NULL) {
        return mmi_vma_enter_file(space, vma, page, write);
    } else if (!write && space->sys->zero_frame != MM_PA_NONE) {
        pa = space->sys->zero_frame;
        prot &= ~MM_VMA_WRITE;
    }
    if (pa != MM_PA_NONE)
        return h->pt_map(h->ctx, space->pt, va, pa, prot) == MM_OK ? MM_VMA_FAULT_OK
                                                                   : MM_VMA_FAULT_NOMEM;
    pa = h->frame_alloc(h->ctx, true);
    return pa == MM_PA_NONE ? MM_VMA_FAULT_NOMEM : mmi_vma_enter_anon(space, vma, page, pa);
}

/* The page is in a swap slot. */
static enum mm_vma_fault mmi_vma_swapped(struct mm_vma_space *space, const struct mm_vma *vma,
                                         uintptr_t page, uint64_t slot)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    mm_pa_t pa = h->frame_alloc(h->ctx, false);
    enum mm_vma_fault fault;

    if (pa == MM_PA_NONE)
        return MM_VMA_FAULT_NOMEM;
    fault = mmi_vma_pager_fault(h->swap_in(h->ctx, slot, pa));
    if (fault != MM_VMA_FAULT_OK) {
        h->frame_free(h->ctx, pa);
        return fault;
    }
    fault = mmi_vma_enter_anon(space, vma, page, pa);
    if (fault == MM_VMA_FAULT_OK) {
        h->swap_free(h->ctx, slot);
        mmi_vma_rss(space, MM_VMA_RSS_SWAP, (uintptr_t)0 - 1);
    }
    return fault;
}

/* Gives the writer a copy of a private page that others have too. `spot` is not locked any more. */
static enum mm_vma_fault mmi_vma_copy(struct mm_vma_space *space, const struct mm_vma *vma,
                                      uintptr_t page)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    unsigned prot = mmi_vma_rights(vma->flags);
    mm_pa_t copy = h->frame_alloc(h->ctx, false);
    struct mmi_vma_gather gather;
    struct mmi_vma_spot spot;
    struct mmi_vma_page p;

    if (copy == MM_PA_NONE)
        return MM_VMA_FAULT_NOMEM;
    mmi_vma_page_init(&p, page, copy, prot);
    if (!mmi_vma_spot_lock(space, page, page + 1, &spot) || spot.e.pa == MM_PA_NONE) {
        h->frame_free(h->ctx, copy); /* evicted meanwhile: the access is repeated */
        return MM_VMA_FAULT_OK;
    }
    h->frame_copy(h->ctx, copy, spot.e.pa);
    (void)h->pt_map(h->ctx, space->pt, spot.e.va, copy, prot); /* replaces: cannot fail */
    mmi_vma_gather_init(&gather, space);
    mmi_vma_gather_va(&gather, spot.e.va);
    if (spot.frame != NULL)
        mmi_vma_unmap_spot(&gather, &spot);
    (void)mmi_vma_page_note(space, vma, &p); /* the frame's first: needs no memory */
    mmi_vma_gather_flush(&gather);
    if (h->mapped != NULL)
        h->mapped(h->ctx, copy);
    return MM_VMA_FAULT_OK;
}

/* The page at the locked spot gets the rights of its area, for writing if that is meant.
 * Unlocks. */
static enum mm_vma_fault mmi_vma_grant(struct mm_vma_space *space, const struct mm_vma *vma,
                                       struct mmi_vma_spot *spot, bool write)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    unsigned prot = mmi_vma_rights(vma->flags) | (spot->e.prot & MM_VMA_DEVICE);

    if (write && spot->frame != NULL)
        spot->frame->kind &= ~(uintptr_t)MMI_VMA_WRITEBACK;
    if (!write)
        prot &= ~(MM_VMA_WRITE & ~spot->e.prot);
    if (prot != spot->e.prot)
        h->pt_protect(h->ctx, space->pt, spot->e.va, prot);
    mmi_vma_spot_unlock(space, spot);
    h->pt_flush(h->ctx, space->pt, spot->e.va, MM_PAGE_SIZE); /* this CPU's old entry, at least */
    return MM_VMA_FAULT_OK;
}

/* Tells the pager of the first write to a shared page of a file that only reads have mapped so far:
 * it may refuse. The reference that comes with the page goes back. A page that was evicted
 * meanwhile is accessed again. */
static enum mm_vma_fault mmi_vma_tell(struct mm_vma_space *space, const struct mm_vma *vma,
                                      struct mmi_vma_spot *spot)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    uintptr_t page = mmi_vma_spot_page(spot);
    uint64_t index = vma->offset + (page - vma->start);
    enum mm_vma_fault fault;
    mm_pa_t pa = MM_PA_NONE;

    mmi_vma_spot_unlock(space, spot);
    fault = mmi_vma_pager_fault(h->file_page(h->ctx, vma->file, index, true, &pa));
    if (fault != MM_VMA_FAULT_OK)
        return fault;
    h->file_page_put(h->ctx, vma->file, index, pa, false);
    if (!mmi_vma_spot_lock(space, page, page + 1, spot))
        return MM_VMA_FAULT_OK;
    return mmi_vma_grant(space, vma, spot, true);
}

/* The page is there; `spot` is locked. */
static enum mm_vma_fault mmi_vma_present(struct mm_vma_space *space, const struct mm_vma *vma,
                                         struct mmi_vma_spot *spot, bool write)
{
    bool shared = (vma->flags & MM_VMA_SHARED) != 0;
    bool sole =
        spot->frame != NULL && (spot->frame->kind & 3) == MM_VMA_RSS_ANON && spot->frame->maps == 1;

    if (!write || sole || (spot->e.prot & MM_VMA_WRITE) != 0)
        return mmi_vma_grant(space, vma, spot, write);
    if (shared)
        return vma->file != NULL ? mmi_vma_tell(space, vma, spot)
                                 : mmi_vma_grant(space, vma, spot, write);
    mmi_vma_spot_unlock(space, spot);
    return mmi_vma_copy(space, vma, mmi_vma_spot_page(spot));
}

/* ---- Faults ---------------------------------------------------------------------------------- */

/* Whether an area may lend its identity to `vma`, which touches it at `page`: they would merge but
 * for rights. */
static bool mmi_vma_anon_lends(const struct mm_vma *left, const struct mm_vma *right,
                               const struct mm_vma *lender)
{
    return left != NULL && right != NULL && left->end == right->start && lender->anon != 0 &&
           (lender->anon & 1) == 0 && left->file == right->file &&
           ((left->flags ^ right->flags) & ~(uintptr_t)MM_VMA_PROT) == 0 &&
           left->offset + mmi_vma_count(left) == right->offset;
}

/* The first page of anonymous memory is about to come (A3): its neighbour's identity, or a new
 * one. */
static void mmi_vma_identify(struct mm_vma_space *space, struct mm_vma *vma)
{
    const struct mm_vma *next, *prev;

    if (vma->anon != 0 || (vma->flags & (MM_VMA_SHARED | MMI_VMA_UNMERGEABLE)) != 0)
        return;
    next = mmi_vma_from(space, vma->end);
    prev = mmi_vma_upto(space, vma->start);
    if (mmi_vma_anon_lends(vma, next, next))
        vma->anon = next->anon;
    else if (mmi_vma_anon_lends(prev, vma, prev))
        vma->anon = prev->anon;
    else
        vma->anon = ++space->next_anon * 2;
}

/* An access of a kind that the area allows. */
static enum mm_vma_fault mmi_vma_touch(struct mm_vma_space *space, struct mm_vma *vma,
                                       uintptr_t page, unsigned access)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    bool write = (access & MM_VMA_WRITE) != 0;
    struct mmi_vma_spot spot;

    if (write || (vma->file == NULL && h->pt_map != NULL && space->sys->zero_frame == MM_PA_NONE))
        mmi_vma_identify(space, vma);
    if (h->pt_map == NULL)
        return MM_VMA_FAULT_OK;
    if (!mmi_vma_spot_lock(space, page, page + 1, &spot))
        return mmi_vma_absent(space, vma, page, write);
    if (spot.e.pa == MM_PA_NONE)
        return mmi_vma_swapped(space, vma, page, spot.e.slot);
    return mmi_vma_present(space, vma, &spot, write);
}

/* Extends a growing area down to `page`. Rule 3 of the manual. */
static enum mm_vma_fault mmi_vma_stack_grow(struct mm_vma_space *space, struct mm_vma *vma,
                                            uintptr_t page)
{
    const struct mm_vma *prev = mmi_vma_upto(space, vma->start);
    uintptr_t grow = vma->start - page;

    if (page < space->low)
        return MM_VMA_FAULT_GUARD;
    if (prev != NULL && (prev->flags & MM_VMA_GROWSDOWN) == 0 && (prev->flags & MM_VMA_PROT) != 0 &&
        page - prev->end < space->guard)
        return MM_VMA_FAULT_GUARD;
    mmi_vma_identify(space, vma);
    if (!mmi_vma_may_expand(space, vma->flags, grow) ||
        vma->end - page > space->limits.stack >> MM_PAGE_SHIFT ||
        !mmi_vma_may_lock(space, vma->flags, grow) || grow > vma->offset)
        return MM_VMA_FAULT_GUARD;
    if (mmi_vma_reserve(space, page, vma->end, 1) != MM_VMA_OK)
        return MM_VMA_FAULT_NOMEM;
    mmi_vma_write_begin(&space->map);
    mmi_vma_account(space, vma->flags, grow);
    mmi_vma_move_start(&space->map, vma, page);
    mmi_vma_write_end(&space->map);
    return MM_VMA_FAULT_OK;
}

static enum mm_vma_fault mmi_vma_fault(struct mm_vma_space *space, uintptr_t page, unsigned access)
{
    struct mm_vma *vma = mmi_vma_from(space, page);
    enum mm_vma_fault fault = MM_VMA_FAULT_OK;

    if (vma == NULL || (vma->start > page && (vma->flags & MM_VMA_GROWSDOWN) == 0))
        return MM_VMA_FAULT_NONE;
    if (vma->start > page)
        fault = mmi_vma_stack_grow(space, vma, page);
    if (fault != MM_VMA_FAULT_OK)
        return fault;
    if ((access & ~mmi_vma_rights(vma->flags)) != 0)
        return access == MM_VMA_READ    ? MM_VMA_FAULT_READ
               : access == MM_VMA_WRITE ? MM_VMA_FAULT_WRITE
                                        : MM_VMA_FAULT_EXEC;
    return mmi_vma_touch(space, vma, page, access);
}

MM_VMA_API enum mm_vma_fault mm_vma_fault(struct mm_vma_space *space, mm_va_t va, unsigned access)
{
    MM_VMA_RWLOCK_STATE_T state;
    enum mm_vma_fault fault;

    if (MMI_VMA_BEYOND(va))
        return MM_VMA_FAULT_NONE;
    access = (access & MM_VMA_WRITE) != 0  ? MM_VMA_WRITE
             : (access & MM_VMA_EXEC) != 0 ? MM_VMA_EXEC
                                           : MM_VMA_READ;
    MMI_VMA_LOCK(space, state);
    fault = mmi_vma_fault(space, (uintptr_t)(va >> MM_PAGE_SHIFT), access);
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return fault;
}

/* The access that brings an area's pages in; 0 if it allows none. `own`: private memory gets its
 * copies now. */
static unsigned mmi_vma_fill_access(const struct mm_vma *vma, bool own)
{
    unsigned rights = (unsigned)vma->flags & MM_VMA_PROT;

    if (own && (rights & MM_VMA_WRITE) != 0 &&
        (vma->flags & (MM_VMA_SHARED | MM_VMA_PFN)) != MM_VMA_SHARED)
        return MM_VMA_WRITE;
    if ((rights & (MM_VMA_READ | MM_VMA_WRITE)) != 0)
        return MM_VMA_READ;
    return rights;
}

static int mmi_vma_fill_result(enum mm_vma_fault fault)
{
    return fault == MM_VMA_FAULT_NOMEM   ? MM_VMA_ENOMEM
           : fault == MM_VMA_FAULT_RETRY ? MM_VMA_EAGAIN
                                         : MM_VMA_EFAULT;
}

/* Brings in all pages of a range, but (where it would be the program's own) those that are to come
 * by faults. */
static int mmi_vma_fill(struct mm_vma_space *space, uintptr_t start, uintptr_t end, bool own)
{
    bool pages = space->sys->hooks.pt_map != NULL;
    enum mm_vma_fault fault = MM_VMA_FAULT_OK;
    struct mm_vma *vma;
    unsigned access;
    uintptr_t to;

    while (start < end) {
        vma = mmi_vma_from(space, start);
        if (vma == NULL || vma->start > start)
            return MM_VMA_ENOMEM;
        to = mmi_vma_min(vma->end, end);
        if (own && (vma->flags & MM_VMA_LOCKONFAULT) != 0) {
            start = to;
            continue;
        }
        access = mmi_vma_fill_access(vma, own);
        if (access == 0)
            return MM_VMA_EFAULT;
        for (; start < to && fault == MM_VMA_FAULT_OK; start = pages ? start + 1 : to)
            fault = mmi_vma_touch(space, vma, start, access);
        if (fault != MM_VMA_FAULT_OK)
            return mmi_vma_fill_result(fault);
    }
    return MM_VMA_OK;
}

MM_VMA_API int mm_vma_populate(struct mm_vma_space *space, mm_va_t va, uint64_t bytes)
{
    MM_VMA_RWLOCK_STATE_T state;
    uintptr_t start, end;
    int result;

    if (!mmi_vma_span(space, va, bytes, &start, &end))
        return MM_VMA_EINVAL;
    MMI_VMA_LOCK(space, state);
    result = mmi_vma_fill(space, start, end, true);
    mmi_vma_after(space);
    MMI_VMA_UNLOCK(space, state);
    return result;
}

/* ---- Fork ------------------------------------------------------------------------------------ */

/* Only pages of private memory stand nowhere but in the page table. */
static bool mmi_vma_share_needed(const struct mm_vma *vma)
{
    return vma->anon != 0;
}

/* Maps one page of `from` at `page` of `to` as well. */
static enum mm_status mmi_vma_share_spot(struct mm_vma_space *to, uintptr_t page,
                                         struct mm_vma_space *from, struct mmi_vma_spot *spot,
                                         struct mmi_vma_rmap **note, unsigned prot, bool locked)
{
    const struct mm_vma_hooks *h = &to->sys->hooks;
    struct mmi_vma_page p;

    mmi_vma_page_init(&p, page, spot->e.pa, prot);
    if (spot->e.pa == MM_PA_NONE) {
        if (h->pt_swap(h->ctx, to->pt, mmi_vma_va(page), spot->e.slot) != MM_OK)
            return MM_ERR_NOMEM;
        h->swap_dup(h->ctx, spot->e.slot);
        mmi_vma_rss(to, MM_VMA_RSS_SWAP, 1);
        return MM_OK;
    }
    if (spot->frame == NULL)
        return h->pt_map(h->ctx, to->pt, mmi_vma_va(page), p.pa, prot);
    if ((spot->frame->kind & 3) != MM_VMA_RSS_ANON) { /* the pager has it: a fault brings it */
        mmi_vma_spot_unlock(from, spot);
        return MM_OK;
    }
    if ((spot->e.prot & ~prot) != 0)
        h->pt_protect(h->ctx, from->pt, spot->e.va, prot);
    mmi_vma_frame_add(spot->frame, (uintptr_t)to | (uintptr_t)locked, page, note);
    mmi_vma_spot_unlock(from, spot);
    mmi_vma_rss(to, MM_VMA_RSS_ANON, 1);
    if (h->pt_map(h->ctx, to->pt, mmi_vma_va(page), p.pa, prot) == MM_OK)
        return MM_OK;
    mmi_vma_page_unnote(to, &p);
    return MM_ERR_NOMEM;
}

/* Whether the spot's page belongs to a locked area. */
static bool mmi_vma_spot_locked(const struct mm_vma_space *space, const struct mmi_vma_spot *spot)
{
    const struct mmi_vma_rmap *note =
        spot->frame == NULL ? NULL
                            : mmi_vma_frame_find(spot->frame, space, mmi_vma_spot_page(spot));

    return note != NULL && (note->space & 1) != 0;
}

/* Maps the pages of [start, end) of `from` at to_page of `to` as well; `cow`: neither may write
 * to them now. MM_ERR_NOMEM: some are mapped there, which the caller zaps. */
static enum mm_status mmi_vma_share(struct mm_vma_space *to, uintptr_t to_page,
                                    struct mm_vma_space *from, uintptr_t start, uintptr_t end,
                                    bool cow)
{
    struct mmi_vma_rmap *note = NULL;
    uintptr_t page = start, first = start;
    enum mm_status status = MM_OK;
    struct mmi_vma_gather gather;
    struct mmi_vma_spot spot;
    bool locked = false;
    unsigned prot;

    if (from->sys->hooks.pt_next == NULL)
        return MM_OK;
    mmi_vma_gather_init(&gather, from);
    while (page < end && status == MM_OK) {
        note = note != NULL ? note : mmi_vma_note_get(to->sys);
        if (note == NULL) {
            status = MM_ERR_NOMEM;
            break;
        }
        if (!mmi_vma_spot_lock(from, page, end, &spot))
            break;
        page = mmi_vma_spot_page(&spot);
        prot = spot.e.prot & ~(cow || spot.frame == NULL ? MM_VMA_WRITE : 0u);
        locked = !cow && mmi_vma_spot_locked(from, &spot);
        if ((spot.e.prot & ~prot) != 0)
            mmi_vma_gather_va(&gather, spot.e.va);
        status = mmi_vma_share_spot(to, to_page + (page - first), from, &spot, &note, prot, locked);
        page++;
    }
    if (note != NULL)
        note->next = NULL;
    mmi_vma_note_put(to->sys, note);
    mmi_vma_gather_flush(&gather);
    return status;
}

/* What mm_vma_map_dup needs to know. */
struct mmi_vma_fork {
    struct mm_vma_space *child, *parent;
};

static struct mm_vma *mmi_vma_fork_area(void *ctx, struct mm_vma *area, bool *failed)
{
    struct mmi_vma_fork *fork = (struct mmi_vma_fork *)ctx;
    struct mm_vma_space *child = fork->child;
    struct mm_vma *twin;

    if ((area->flags & MM_VMA_DONTFORK) != 0)
        return NULL;
    if (mmi_vma_spares(child, 1) != MM_OK) {
        *failed = true;
        return NULL;
    }
    twin = mmi_vma_twin(child, area, area->start);
    mm_store(&twin->flags, area->flags & ~(uintptr_t)MMI_VMA_LOCKS);
    twin->anon = 0;
    if (area->anon != 0 && (area->flags & MM_VMA_WIPEONFORK) == 0)
        twin->anon = ++child->next_anon * 2 + 1;
    mmi_vma_account(child, twin->flags, mmi_vma_count(twin));
    return twin;
}

/* Frees a space's areas, nodes and spares, in one walk. Its pages are gone already. */
static void mmi_vma_teardown(struct mm_vma_space *space)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    struct mm_vma_cursor c;
    struct mm_vma *vma;

    mmi_vma_write_begin(&space->map);
    for (vma = mm_vma_cursor_seek(&c, &space->map, 0); vma != NULL; vma = mm_vma_cursor_next(&c)) {
        mmi_vma_account(space, vma->flags, 0 - mmi_vma_count(vma));
        mmi_vma_area_free(space, vma);
    }
    mm_vma_map_fini(&space->map);
    while (space->spare != NULL) {
        vma = mmi_vma_spare(space);
        h->area_free(h->ctx, vma);
    }
}

static void mmi_vma_space_raw(struct mm_vma_space *space, struct mm_vma_system *sys, void *pt)
{
    MM_VMA_MEMSET(space, 0, sizeof *space);
    mm_vma_map_init(&space->map, &sys->hooks.nodes);
    MM_VMA_RWLOCK_INIT(&space->lock);
    space->sys = sys;
    space->pt = pt;
    space->users = 1;
    space->references = 1;
}

static enum mm_status mmi_vma_fork_pages(struct mm_vma_space *child, struct mm_vma_space *parent)
{
    const struct mm_vma_hooks *h = &child->sys->hooks;
    enum mm_status status = MM_OK;
    struct mm_vma_cursor c;
    struct mm_vma *vma;
    uintptr_t page;

    if (h->pt_map == NULL)
        return MM_OK;
    for (vma = mm_vma_cursor_seek(&c, &child->map, 0); vma != NULL && status == MM_OK;
         vma = mm_vma_cursor_next(&c)) {
        if (mmi_vma_share_needed(vma))
            status = mmi_vma_share(child, vma->start, parent, vma->start, vma->end, true);
        for (page = vma->start;
             (vma->flags & MM_VMA_GLOBAL) != 0 && status == MM_OK && page < vma->end; page++)
            status =
                mmi_vma_absent(child, vma, page, false) == MM_VMA_FAULT_OK ? MM_OK : MM_ERR_NOMEM;
    }
    return status;
}

MM_VMA_API int mm_vma_fork(struct mm_vma_space *child, struct mm_vma_space *parent, void *pt)
{
    MM_VMA_RWLOCK_STATE_T state;
    struct mmi_vma_fork fork;
    enum mm_status status;

    mmi_vma_space_raw(child, parent->sys, pt);
    fork.child = child;
    fork.parent = parent;
    MMI_VMA_LOCK(parent, state);
    child->low = parent->low;
    child->top = parent->top;
    child->base = parent->base;
    child->up_base = parent->up_base;
    child->guard = parent->guard;
    child->bottom_up = parent->bottom_up;
    child->brk_start = parent->brk_start;
    child->brk = parent->brk;
    child->limits = parent->limits;
    child->next_anon = parent->next_anon;
    child->user = parent->user;
    status = mm_vma_map_dup(&child->map, &parent->map, mmi_vma_fork_area, &fork);
    if (status == MM_OK)
        status = mmi_vma_fork_pages(child, parent);
    mm_vma_map_trim(&child->map);
    if (status != MM_OK) {
        mmi_vma_zap(child, 0, MMI_VMA_TOP);
        mmi_vma_teardown(child);
    }
    MMI_VMA_UNLOCK(parent, state);
    return status == MM_OK ? MM_VMA_OK : MM_VMA_ENOMEM;
}

/* ---- Set-up and life ------------------------------------------------------------------------- */

/* Hook groups that are there only in part; a count of a group's members is compared with 0 and
 * all. */
static bool mmi_vma_hooks_whole(const struct mm_vma_hooks *h)
{
    unsigned needed = (unsigned)(h->nodes.alloc != NULL) + (unsigned)(h->nodes.free != NULL) +
                      (unsigned)(h->area_alloc != NULL) + (unsigned)(h->area_free != NULL);
    unsigned tables = (unsigned)(h->pt_map != NULL) + (unsigned)(h->pt_protect != NULL) +
                      (unsigned)(h->pt_clear != NULL) + (unsigned)(h->pt_next != NULL) +
                      (unsigned)(h->pt_flush != NULL);
    unsigned frames = (unsigned)(h->frame_alloc != NULL) + (unsigned)(h->frame_free != NULL) +
                      (unsigned)(h->frame_copy != NULL) + (unsigned)(h->frame != NULL);
    unsigned files = (unsigned)(h->file_page != NULL) + (unsigned)(h->file_page_put != NULL);
    unsigned swap = (unsigned)(h->swap_out != NULL) + (unsigned)(h->swap_in != NULL) +
                    (unsigned)(h->swap_dup != NULL) + (unsigned)(h->swap_free != NULL) +
                    (unsigned)(h->pt_swap != NULL);

    if (needed != 4 || (h->file_get == NULL) != (h->file_put == NULL) || files == 1)
        return false;
    if (tables == 0)
        return frames + files + swap == 0;
    return tables == 5 && frames == 4 && (swap == 0 || swap == 5);
}

MM_VMA_API enum mm_status mm_vma_system_init(struct mm_vma_system *sys,
                                             const struct mm_vma_hooks *hooks)
{
    unsigned i;

    if (sys == NULL || hooks == NULL || !mmi_vma_hooks_whole(hooks))
        return MM_ERR_INVALID;
    MM_VMA_MEMSET(sys, 0, sizeof *sys);
    sys->hooks = *hooks;
    sys->zero_frame = MM_PA_NONE;
    MM_VMA_LOCK_INIT(&sys->pool_lock);
    for (i = 0; i < MM_VMA_FRAME_LOCKS; i++)
        MM_VMA_LOCK_INIT(&sys->frames[i].lock);
    return MM_OK;
}

MM_VMA_API void mm_vma_system_fini(struct mm_vma_system *sys)
{
    struct mmi_vma_rmap *chunk;

    while (sys->chunks != NULL) {
        chunk = sys->chunks;
        sys->chunks = chunk->next;
        sys->hooks.nodes.free(sys->hooks.nodes.ctx, (struct mm_vma_node *)(void *)chunk);
    }
    sys->pool = NULL;
}

MM_VMA_API enum mm_status mm_vma_system_global(struct mm_vma_system *sys,
                                               const struct mm_vma_global *global)
{
    unsigned i;

    if (sys->global_count == MM_VMA_GLOBALS)
        return MM_ERR_LIMIT;
    if (((global->va | global->pa | global->bytes) & MMI_VMA_PAGE_MASK) != 0)
        return MM_ERR_ALIGN;
    if (global->bytes == 0 || MMI_VMA_BEYOND(global->va) ||
        global->va > MM_PA_NONE - global->bytes || (global->prot & ~MM_VMA_PROT) != 0 ||
        !mmi_vma_frames_fit(true, global->pa, global->bytes))
        return MM_ERR_INVALID;
    for (i = 0; i < sys->global_count; i++)
        if (global->va < sys->globals[i].va + sys->globals[i].bytes &&
            sys->globals[i].va < global->va + global->bytes)
            return MM_ERR_EXISTS;
    sys->globals[sys->global_count++] = *global;
    return MM_OK;
}

MM_VMA_API void mm_vma_config_init(struct mm_vma_config *config)
{
    MM_VMA_MEMSET(config, 0, sizeof *config);
    config->low = UINT64_C(0x10000);
    config->top = UINT64_C(0x7ffffffff000);
    if (config->top >> MM_PAGE_SHIFT >= MMI_VMA_TOP)
        config->top = (mm_va_t)(MMI_VMA_TOP >> 1) << MM_PAGE_SHIFT;
    config->top &= ~MMI_VMA_PAGE_MASK;
    config->mmap_base = (config->top - (UINT64_C(136) << 20)) & ~MMI_VMA_PAGE_MASK;
    config->up_base = (mm_va_t)((uintptr_t)(config->top >> MM_PAGE_SHIFT) / 3) << MM_PAGE_SHIFT;
    config->guard_pages = MM_VMA_GUARD_PAGES;
    config->limits.total = MM_VMA_UNLIMITED;
    config->limits.data = MM_VMA_UNLIMITED;
    config->limits.stack = MM_VMA_UNLIMITED;
    config->limits.locked = MM_VMA_UNLIMITED;
    config->limits.areas = MM_VMA_UNLIMITED;
}

/* The system's global pages. */
static enum mm_status mmi_vma_add_globals(struct mm_vma_space *space)
{
    const struct mm_vma_system *sys = space->sys;
    const struct mm_vma_global *g;
    struct mm_vma *vma;
    uintptr_t page;
    unsigned i;

    for (i = 0; i < sys->global_count; i++) {
        g = &sys->globals[i];
        if (g->va >> MM_PAGE_SHIFT < space->top)
            return MM_ERR_INVALID;
        if (mmi_vma_spares(space, 1) != MM_OK)
            return MM_ERR_NOMEM;
        vma = mmi_vma_spare(space);
        mmi_vma_area_set(vma, (uintptr_t)(g->va >> MM_PAGE_SHIFT),
                         (uintptr_t)((g->va + g->bytes) >> MM_PAGE_SHIFT),
                         g->prot | MM_VMA_PFN | MM_VMA_GLOBAL | MM_VMA_SHARED | MM_VMA_MAY,
                         (uintptr_t)(g->pa >> MM_PAGE_SHIFT), NULL);
        if (mm_vma_map_insert(&space->map, vma) != MM_OK) {
            mmi_vma_area_free(space, vma);
            return MM_ERR_NOMEM;
        }
        for (page = vma->start; sys->hooks.pt_map != NULL && page < vma->end; page++)
            if (mmi_vma_absent(space, vma, page, false) != MM_VMA_FAULT_OK)
                return MM_ERR_NOMEM;
    }
    return MM_OK;
}

static bool mmi_vma_config_fits(const struct mm_vma_config *c)
{
    mm_va_t all = c->low | c->top | c->mmap_base | c->up_base | c->brk;

    return (all & MMI_VMA_PAGE_MASK) == 0 && c->low < c->top &&
           c->top >> MM_PAGE_SHIFT <= MMI_VMA_TOP && c->mmap_base >= c->low &&
           c->mmap_base <= c->top && c->up_base >= c->low && c->up_base <= c->top &&
           c->brk <= c->top && c->guard_pages <= c->top >> MM_PAGE_SHIFT;
}

/* Moves the bases and the break, each by a number of its own, where there is room for it. */
static void mmi_vma_randomise(struct mm_vma_space *space, const struct mm_vma_config *config)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;
    uint64_t random;

    if (h->random == NULL || config->random_pages == 0)
        return;
    random = h->random(h->ctx, config->random_pages);
    space->base -= (uintptr_t)(random < space->base - space->low ? random : 0);
    random = h->random(h->ctx, config->random_pages);
    space->up_base += (uintptr_t)(random < space->top - space->up_base ? random : 0);
    random = h->random(h->ctx, config->random_pages);
    if (config->brk != 0 && random < (config->top - config->brk) >> MM_PAGE_SHIFT)
        space->brk_start += random << MM_PAGE_SHIFT;
}

MM_VMA_API enum mm_status mm_vma_space_init(struct mm_vma_space *space, struct mm_vma_system *sys,
                                            const struct mm_vma_config *config)
{
    enum mm_status status;

    if (!mmi_vma_config_fits(config))
        return MM_ERR_INVALID;
    mmi_vma_space_raw(space, sys, config->pt);
    space->low = (uintptr_t)(config->low >> MM_PAGE_SHIFT);
    space->top = (uintptr_t)(config->top >> MM_PAGE_SHIFT);
    space->base = (uintptr_t)(config->mmap_base >> MM_PAGE_SHIFT);
    space->up_base = (uintptr_t)(config->up_base >> MM_PAGE_SHIFT);
    space->guard = (uintptr_t)config->guard_pages;
    space->bottom_up = config->bottom_up;
    space->brk_start = config->brk;
    space->limits = config->limits;
    mmi_vma_randomise(space, config);
    space->brk = space->brk_start;
    status = mmi_vma_add_globals(space);
    if (status != MM_OK) {
        mmi_vma_zap(space, 0, MMI_VMA_TOP);
        mmi_vma_teardown(space);
    }
    return status;
}

MM_VMA_API void mm_vma_get(struct mm_vma_space *space)
{
    (void)mm_fetch_add(&space->references, 1);
}

MM_VMA_API bool mm_vma_put(struct mm_vma_space *space)
{
    uintptr_t before = mm_fetch_add(&space->references, (uintptr_t)0 - 1);

    if (before == 0) {
        (void)mm_fetch_add(&space->references, 1);
        mmi_vma_report("mm_vma_put", "more puts than references", MM_ERR_INVALID, 0, space);
    }
    return before == 1;
}

MM_VMA_API void mm_vma_join(struct mm_vma_space *space)
{
    (void)mm_fetch_add(&space->users, 1);
}

MM_VMA_API bool mm_vma_leave(struct mm_vma_space *space)
{
    uintptr_t before = mm_fetch_add(&space->users, (uintptr_t)0 - 1);
    MM_VMA_RWLOCK_STATE_T state;

    if (before == 0) {
        (void)mm_fetch_add(&space->users, 1);
        mmi_vma_report("mm_vma_leave", "more leaves than users", MM_ERR_INVALID, 0, space);
    }
    if (before != 1)
        return false;
    MMI_VMA_LOCK(space, state);
    mmi_vma_zap(space, 0, MMI_VMA_TOP);
    mmi_vma_teardown(space);
    MMI_VMA_UNLOCK(space, state);
    return mm_vma_put(space);
}

MM_VMA_API void mm_vma_clear(struct mm_vma_space *space)
{
    MM_VMA_RWLOCK_STATE_T state;

    MMI_VMA_LOCK(space, state);
    mmi_vma_drop(space, 0, space->top, NULL, false);
    space->brk = space->brk_start;
    MMI_VMA_UNLOCK(space, state);
}

/* ---- Reverse map: questions, eviction -------------------------------------------------------- */

MM_VMA_API uintptr_t mm_vma_frame_maps(struct mm_vma_system *sys, mm_pa_t pa)
{
    struct mm_vma_frame *frame =
        sys->hooks.frame == NULL ? NULL : sys->hooks.frame(sys->hooks.ctx, pa);
    MM_VMA_LOCK_STATE_T state;
    uintptr_t maps;

    if (frame == NULL)
        return 0;
    MM_VMA_LOCK(mmi_vma_frame_lock(sys, pa), state);
    maps = frame->maps;
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    return maps;
}

MM_VMA_API uintptr_t mm_vma_frame_walk(struct mm_vma_system *sys, mm_pa_t pa,
                                       bool (*visit)(void *ctx, struct mm_vma_space *space,
                                                     mm_va_t va),
                                       void *ctx)
{
    struct mm_vma_frame *frame =
        sys->hooks.frame == NULL ? NULL : sys->hooks.frame(sys->hooks.ctx, pa);
    const struct mmi_vma_rmap *note;
    MM_VMA_LOCK_STATE_T state;
    uintptr_t calls = 0;

    if (frame == NULL)
        return 0;
    MM_VMA_LOCK(mmi_vma_frame_lock(sys, pa), state);
    for (note = frame->maps == 0 ? NULL : &frame->first; note != NULL; note = note->next) {
        calls++;
        if (!visit(ctx, (struct mm_vma_space *)(note->space & ~(uintptr_t)1),
                   mmi_vma_va(note->page)))
            break;
    }
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    return calls;
}

/* Whether all who map the locked frame have it in their tables and none has it locked; *dirty: one
 * wrote. */
static enum mm_status mmi_vma_evictable(struct mm_vma_system *sys, const struct mm_vma_frame *frame,
                                        mm_pa_t pa, bool *dirty)
{
    const struct mm_vma_hooks *h = &sys->hooks;
    const struct mmi_vma_rmap *note;
    struct mm_vma_entry e;

    if (frame->maps == 0)
        return MM_ERR_NOENT;
    *dirty = false;
    for (note = &frame->first; note != NULL; note = note->next) {
        const struct mm_vma_space *space = (struct mm_vma_space *)(note->space & ~(uintptr_t)1);
        mm_va_t va = mmi_vma_va(note->page);

        if ((note->space & 1) != 0)
            return MM_ERR_PERM;
        if (!h->pt_next(h->ctx, space->pt, va, va + MM_PAGE_SIZE, &e) || e.pa != pa)
            return MM_ERR_BUSY; /* on its way into a table, or out of it */
        *dirty = *dirty || e.dirty;
    }
    return MM_OK;
}

/* Every CPU that maps the locked frame loses the right to write to it. An entry may have lost it
 * already, to a fork or mprotect whose flush is still to come. */
static void mmi_vma_freeze(struct mm_vma_system *sys, const struct mm_vma_frame *frame)
{
    const struct mm_vma_hooks *h = &sys->hooks;
    const struct mmi_vma_rmap *note;
    struct mm_vma_entry e;

    for (note = &frame->first; note != NULL; note = note->next) {
        const struct mm_vma_space *space = (struct mm_vma_space *)(note->space & ~(uintptr_t)1);
        mm_va_t va = mmi_vma_va(note->page);

        if (h->pt_next(h->ctx, space->pt, va, va + MM_PAGE_SIZE, &e) &&
            (e.prot & MM_VMA_WRITE) != 0)
            h->pt_protect(h->ctx, space->pt, va, e.prot & ~MM_VMA_WRITE);
        h->pt_flush(h->ctx, space->pt, va, MM_PAGE_SIZE);
    }
}

/* Takes the locked frame out of all tables, leaving `slot` there (or nothing, for pages of files).
 * Returns the notes that are free now. */
static struct mmi_vma_rmap *mmi_vma_unmap_all(struct mm_vma_system *sys, struct mm_vma_frame *frame,
                                              bool swap, uint64_t slot)
{
    const struct mm_vma_hooks *h = &sys->hooks;
    struct mmi_vma_rmap *note, *notes = frame->first.next;
    uintptr_t kind = frame->kind & 3;

    for (note = &frame->first; note != NULL; note = note->next) {
        struct mm_vma_space *space = (struct mm_vma_space *)(note->space & ~(uintptr_t)1);
        mm_va_t va = mmi_vma_va(note->page);

        if (swap) {
            (void)h->pt_swap(h->ctx, space->pt, va, slot); /* replaces: cannot fail */
            if (note != &frame->first)
                h->swap_dup(h->ctx, slot);
            mmi_vma_rss(space, MM_VMA_RSS_SWAP, 1);
        } else {
            h->pt_clear(h->ctx, space->pt, va);
        }
        h->pt_flush(h->ctx, space->pt, va, MM_PAGE_SIZE);
        mmi_vma_rss(space, kind, (uintptr_t)0 - 1);
    }
    frame->maps = 0;
    frame->kind = MM_VMA_RSS_ANON;
    frame->first.next = NULL;
    return notes;
}

static enum mm_status mmi_vma_evict_file(struct mm_vma_system *sys, struct mm_vma_frame *frame,
                                         mm_pa_t pa, MM_VMA_LOCK_STATE_T state)
{
    const struct mm_vma_hooks *h = &sys->hooks;
    uintptr_t maps = frame->maps, index = frame->index;
    void *file = frame->file;
    struct mmi_vma_rmap *notes;
    bool dirty = false;

    mmi_vma_freeze(sys, frame);
    (void)mmi_vma_evictable(sys, frame, pa, &dirty); /* only now can nobody make it dirty */
    notes = mmi_vma_unmap_all(sys, frame, false, 0);
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    mmi_vma_note_put(sys, notes);
    for (; maps != 0; maps--) {
        h->file_page_put(h->ctx, file, index, pa, dirty);
        dirty = false;
    }
    return MM_OK;
}

/* The content goes to swap while all can still read the page; a write meanwhile keeps it. Nothing
 * fails once the first table has changed. */
static enum mm_status mmi_vma_evict_anon(struct mm_vma_system *sys, struct mm_vma_frame *frame,
                                         mm_pa_t pa, MM_VMA_LOCK_STATE_T state)
{
    const struct mm_vma_hooks *h = &sys->hooks;
    struct mmi_vma_rmap *notes = NULL;
    enum mm_status status;
    uint64_t slot;
    bool ours, dirty;

    mmi_vma_freeze(sys, frame);
    frame->kind |= MMI_VMA_WRITEBACK;
    frame->file =
        &slot; /* this eviction's: meanwhile the frame may go, come, and be evicted again */
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    status = h->swap_out(h->ctx, pa, &slot);
    MM_VMA_LOCK(mmi_vma_frame_lock(sys, pa), state);
    ours = (frame->kind & MMI_VMA_WRITEBACK) != 0 && frame->file == &slot;
    if (status == MM_OK) {
        status = ours ? mmi_vma_evictable(sys, frame, pa, &dirty) : MM_ERR_BUSY;
        if (status == MM_OK)
            notes = mmi_vma_unmap_all(sys, frame, true, slot);
        else
            h->swap_free(h->ctx, slot);
    }
    if (ours)
        frame->kind &= ~(uintptr_t)MMI_VMA_WRITEBACK;
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    mmi_vma_note_put(sys, notes);
    if (status == MM_OK)
        h->frame_free(h->ctx, pa);
    return status;
}

MM_VMA_API enum mm_status mm_vma_evict(struct mm_vma_system *sys, mm_pa_t pa)
{
    struct mm_vma_frame *frame =
        sys->hooks.frame == NULL ? NULL : sys->hooks.frame(sys->hooks.ctx, pa);
    MM_VMA_LOCK_STATE_T state;
    enum mm_status status;
    bool dirty = false;

    if (frame == NULL)
        return MM_ERR_NOENT;
    MM_VMA_LOCK(mmi_vma_frame_lock(sys, pa), state);
    status = mmi_vma_evictable(sys, frame, pa, &dirty);
    if (status == MM_OK && (frame->kind & MMI_VMA_WRITEBACK) != 0)
        status = MM_ERR_BUSY;
    if (status == MM_OK && frame->kind != MM_VMA_RSS_ANON)
        return mmi_vma_evict_file(sys, frame, pa, state);
    if (status == MM_OK && sys->hooks.swap_out != NULL)
        return mmi_vma_evict_anon(sys, frame, pa, state);
    MM_VMA_UNLOCK(mmi_vma_frame_lock(sys, pa), state);
    return status == MM_OK ? MM_ERR_INVALID : status;
}

MM_VMA_API uintptr_t mm_vma_reclaim(struct mm_vma_system *sys, uintptr_t want)
{
    uintptr_t went = 0, tries = want < UINTPTR_MAX / 4 - 16 ? 4 * want + 16 : UINTPTR_MAX;
    mm_pa_t pa;

    if (sys->hooks.victim == NULL)
        return 0;
    while (went < want && tries-- != 0) {
        pa = sys->hooks.victim(sys->hooks.ctx);
        if (pa == MM_PA_NONE)
            break;
        went += mm_vma_evict(sys, pa) == MM_OK;
    }
    return went;
}

/* ---- Listing --------------------------------------------------------------------------------- */

MM_VMA_API uintptr_t mm_vma_walk(struct mm_vma_space *space, mm_va_t low, mm_va_t high,
                                 bool (*visit)(void *ctx, const struct mm_vma *area), void *ctx)
{
    MM_VMA_RWLOCK_STATE_T state;
    struct mm_vma_cursor c;
    struct mm_vma *vma;
    uintptr_t calls = 0;

    MM_VMA_READ_LOCK(&space->lock, state);
    for (vma = mm_vma_cursor_seek(&c, &space->map, low); vma != NULL && mm_vma_start(vma) < high;
         vma = mm_vma_cursor_next(&c)) {
        calls++;
        if (!visit(ctx, vma))
            break;
    }
    MM_VMA_READ_UNLOCK(&space->lock, state);
    return calls;
}

/* A line under construction, cut at `size` - 1. */
struct mmi_vma_line {
    char *text;
    size_t size, length;
};

static void mmi_vma_put_char(struct mmi_vma_line *line, char c)
{
    if (line->length + 1 < line->size)
        line->text[line->length] = c;
    line->length++;
}

static void mmi_vma_put_text(struct mmi_vma_line *line, const char *text)
{
    while (*text != 0)
        mmi_vma_put_char(line, *text++);
}

/* At least eight digits. The halves apart: 32-bit machines shift 64 bits by a library call. */
static void mmi_vma_put_hex(struct mmi_vma_line *line, uint64_t value)
{
    uint32_t half[2];
    unsigned digit = 16;

    half[0] = (uint32_t)value;
    half[1] = (uint32_t)(value >> 32);
    while (digit > 8 && half[1] >> (4 * (digit - 9)) == 0)
        digit--;
    while (digit-- != 0)
        mmi_vma_put_char(line, "0123456789abcdef"[half[digit / 8] >> (4 * (digit % 8)) & 15]);
}

static const char *mmi_vma_name(const struct mm_vma_space *space, const struct mm_vma *vma)
{
    const struct mm_vma_hooks *h = &space->sys->hooks;

    if (vma->file != NULL)
        return h->file_name != NULL ? h->file_name(h->ctx, vma->file) : "";
    if (mm_vma_start(vma) < space->brk && mm_vma_end(vma) > space->brk_start)
        return "[heap]";
    return (vma->flags & MM_VMA_GROWSDOWN) != 0 ? "[stack]" : "";
}

MM_VMA_API size_t mm_vma_format(const struct mm_vma_space *space, const struct mm_vma *area,
                                char *text, size_t size)
{
    bool linear = (area->flags & MM_VMA_PFN) != 0;
    const char *name = mmi_vma_name(space, area);
    struct mmi_vma_line line;

    line.text = text;
    line.size = size;
    line.length = 0;
    mmi_vma_put_hex(&line, mm_vma_start(area));
    mmi_vma_put_char(&line, '-');
    mmi_vma_put_hex(&line, mm_vma_end(area));
    mmi_vma_put_char(&line, ' ');
    mmi_vma_put_char(&line, (area->flags & MM_VMA_READ) != 0 ? 'r' : '-');
    mmi_vma_put_char(&line, (area->flags & MM_VMA_WRITE) != 0 ? 'w' : '-');
    mmi_vma_put_char(&line, (area->flags & MM_VMA_EXEC) != 0 ? 'x' : '-');
    mmi_vma_put_char(&line, (area->flags & MM_VMA_SHARED) != 0 ? 's' : 'p');
    mmi_vma_put_char(&line, ' ');
    mmi_vma_put_hex(&line, area->file != NULL || linear ? mmi_vma_va(area->offset) : 0);
    mmi_vma_put_text(&line, " 00:00 0 ");
    while (*name != 0 && line.length < 73)
        mmi_vma_put_char(&line, ' ');
    mmi_vma_put_text(&line, name);
    if (size != 0)
        text[line.length < size ? line.length : size - 1] = 0;
    return line.length;
}

MM_VMA_API void mm_vma_list(struct mm_vma_space *space,
                            void (*print)(void *ctx, const char *line, size_t length), void *ctx)
{
    MM_VMA_RWLOCK_STATE_T state;
    struct mm_vma_cursor c;
    struct mm_vma *vma;
    char text[256];
    size_t length;

    MM_VMA_READ_LOCK(&space->lock, state);
    for (vma = mm_vma_cursor_seek(&c, &space->map, 0); vma != NULL; vma = mm_vma_cursor_next(&c)) {
        length = mm_vma_format(space, vma, text, sizeof text);
        print(ctx, text, length < sizeof text ? length : sizeof text - 1);
    }
    MM_VMA_READ_UNLOCK(&space->lock, state);
}

/* ---- Check ----------------------------------------------------------------------------------- */

/* One entry against its area and the reverse map; counts it in rss. */
static bool mmi_vma_entry_sound(struct mm_vma_space *space, uintptr_t page, uintptr_t *next,
                                uintptr_t *rss)
{
    struct mmi_vma_spot spot;
    const struct mm_vma *vma;
    unsigned prot;
    bool sound;

    if (!mmi_vma_spot_lock(space, page, MMI_VMA_TOP, &spot)) {
        *next = MMI_VMA_TOP;
        return true;
    }
    page = mmi_vma_spot_page(&spot);
    *next = page + 1;
    vma = mmi_vma_from(space, page);
    sound = vma != NULL && vma->start <= page;
    if (spot.e.pa == MM_PA_NONE) {
        rss[MM_VMA_RSS_SWAP]++;
    } else if (sound) {
        prot = spot.e.prot & MM_VMA_PROT;
        sound = (prot & ~mmi_vma_rights(vma->flags)) == 0;
    }
    if (spot.frame != NULL && sound && (vma->flags & MM_VMA_PFN) == 0) {
        rss[spot.frame->kind & 3]++;
        sound = mmi_vma_frame_find(spot.frame, space, page) != NULL;
    }
    mmi_vma_spot_unlock(space, &spot);
    return sound;
}

static bool mmi_vma_pages_sound(struct mm_vma_space *space)
{
    uintptr_t page, rss[MM_VMA_KINDS] = {0, 0, 0, 0};
    bool sound = true;
    unsigned i;

    if (space->sys->hooks.pt_next == NULL)
        return true;
    for (page = 0; sound && page < MMI_VMA_TOP;)
        sound = mmi_vma_entry_sound(space, page, &page, rss);
    for (i = 0; i < MM_VMA_KINDS; i++)
        sound = sound && rss[i] == mm_load(&space->rss[i]);
    return sound;
}

/* S1 and S3. */
static bool mmi_vma_sums_sound(struct mm_vma_space *space)
{
    struct mm_vma_space sums;
    struct mm_vma_cursor c;
    const struct mm_vma *vma;
    unsigned spares = 0, i;

    sums.locked = sums.stack = 0;
    for (i = 0; i < 4; i++)
        sums.pages[i] = 0;
    for (vma = mm_vma_cursor_seek(&c, &space->map, 0); vma != NULL; vma = mm_vma_cursor_next(&c))
        mmi_vma_account(&sums, vma->flags, mmi_vma_count(vma));
    for (vma = space->spare; vma != NULL && spares <= space->spare_count; vma = vma->link)
        spares++;
    for (i = 0; i < 4; i++)
        if (sums.pages[i] != space->pages[i])
            return false;
    return sums.locked == space->locked && sums.stack == space->stack &&
           spares == space->spare_count;
}

MM_VMA_API enum mm_status mm_vma_check(struct mm_vma_space *space)
{
    MM_VMA_RWLOCK_STATE_T state;
    bool sound;

    MMI_VMA_LOCK(space, state);
    sound = mm_vma_map_check(&space->map) == MM_OK && mmi_vma_sums_sound(space) &&
            mmi_vma_pages_sound(space);
    MMI_VMA_UNLOCK(space, state);
    return sound ? MM_OK : MM_ERR_CORRUPT;
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
