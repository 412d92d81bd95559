/* malloc.c - a complete malloc for programs: mm_slab.h for objects, mm_buddy.h for pages and all
 * that is larger. See README.md. */
#define _GNU_SOURCE
#define MM_CPU_MAX 64 /* thread slots; more threads share the slabs without arrays of their own */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* ---- Threads and locks ----------------------------------------------------------------------- */

/* A thread's slot, and its arrays in the heap while it has one. All starts with no arrays: what is
 * rare is behind that one test. */
#define SLOT_NONE  MM_CPU_MAX       /* this thread has no slot, or none any more */
#define SLOT_FRESH (MM_CPU_MAX + 1) /* it has not asked yet */

static __thread unsigned slot_of_thread = SLOT_FRESH;
static __thread struct mm_slab_cpu *arrays_of_thread;
#define MM_CPU_ID()        slot_of_thread
#define MM_SLAB_SELF(heap) ((void)(heap), arrays_of_thread)

/* A lock waits while a fork is under way, so that no lock is held, and nothing that a lock guards
 * is half done, in the memory that the child gets. */
static uintptr_t forking, inside;
static __thread unsigned depth; /* locks that this thread holds, or is about to take or give back */
static __thread bool counted; /* among `inside`; where `depth` goes from or to 0 perhaps not yet */

static void gate_enter(void)
{
    if (depth++ != 0)
        return;
    for (;;) {
        __atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
        if (__builtin_expect(__atomic_load_n(&forking, __ATOMIC_SEQ_CST) == 0, 1))
            break;
        __atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&forking, __ATOMIC_RELAXED) != 0)
            sched_yield();
    }
    counted = true;
}

static void gate_leave(void)
{
    if (depth == 1) {
        counted = false;
        __atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
    }
    depth--;
}

static void lock_word(uintptr_t *lock)
{
    unsigned spins = 0;
    gate_enter();
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE) != 0) {
        while (__atomic_load_n(lock, __ATOMIC_RELAXED) != 0) {
            if (++spins % 64 == 0)
                sched_yield();
            __asm__ __volatile__("" ::: "memory");
        }
    }
}

static void unlock_word(uintptr_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
    gate_leave();
}

#define MM_LOCK_T       uintptr_t
#define MM_LOCK_STATE_T unsigned char
#define MM_LOCK_INIT(l) (*(l) = 0)
#define MM_LOCK(l, s)   ((void)((s) = 0), lock_word(l))
#define MM_UNLOCK(l, s) ((void)(s), unlock_word(l))

#define MM_SLAB_SHARE 16 /* soon: what a program uses at once shall lie close together */
#define MM_BUDDY_STATIC
#define MM_SLAB_STATIC
#include "mm_buddy.h"
#include "mm_slab.h"

#define EXPORT __attribute__((visibility("default")))
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define UNIT MM_SLAB_BYTES /* a smallest block of the buddy arena: a slab */

static struct mm_slab_heap heap;
static struct mm_buddy arena;
static uintptr_t arena_base, arena_end;

/* ---- Pages ----------------------------------------------------------------------------------- */

/* A unit of the arena that is free and has a bit in `stale` still has its pages, with any content;
 * all others that are free read as zeros and cost nothing. Only who holds a unit, by an allocation
 * or a reservation, changes its bit. Giving pages back and faulting new ones in costs more than
 * most of what a program does with them, so some stay: few of them while the program asks for
 * pages that it has not got, for they add to its peak; more while it only frees. */
#define STALE_LEAST ((size_t)2 << 20 >> MM_SLAB_SHIFT) /* units, while the program grows */
#define STALE_MOST  ((size_t)32 << 20 >> MM_SLAB_SHIFT)
#define FULL_FROM   ((size_t)8 << 20 >> MM_SLAB_SHIFT) /* from here a slab's pages come together */
#define OPEN_STEP   ((uintptr_t)32 << 20)
#define MOVE_LEAST  ((size_t)1 << 20)
#define FIRST_STEP  ((uintptr_t)1 << 30) /* what the arena has at first: it takes time to enter */

static uintptr_t *stale;
static uintptr_t stale_units, used_units;
static uintptr_t peak_units; /* the most that both were together, about */
static uintptr_t opened;     /* end of what is mapped: the rest of the arena's addresses is not even
                              reserved, so that no limit and no mlockall meets it */
static uintptr_t entered;    /* end of what the arena has so far */
static uintptr_t opening;    /* lock of both */
static uintptr_t trimming;   /* not 0: a thread is at it */

static inline size_t unit_of(uintptr_t pa)
{
    return (pa - arena_base) >> MM_SLAB_SHIFT;
}

/* Maps memory at the end of what is mapped. */
static int pages_map(uintptr_t to)
{
    void *const at = (void *)opened;
    void *got = mmap(at, to - opened, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == at) {
        __atomic_store_n(&opened, to, __ATOMIC_RELEASE);
        return 1;
    }
    if (got != MAP_FAILED) /* a system that does not know the flag */
        munmap(got, to - opened);
    return 0;
}

static int pages_open(uintptr_t end)
{
    int done = 1;
    if (end <= __atomic_load_n(&opened, __ATOMIC_ACQUIRE))
        return 1;
    lock_word(&opening);
    if (end > opened) {
        const uintptr_t to = (end + OPEN_STEP - 1) & ~(OPEN_STEP - 1);
        done = pages_map(to < arena_end ? to : arena_end);
    }
    unlock_word(&opening);
    return done;
}

/* How many of the units up to `end` have their bits in one word with the first. */
static inline unsigned word_rest(size_t unit, size_t end)
{
    const size_t rest = MM_WORD_BITS - unit % MM_WORD_BITS;
    return (unsigned)(end - unit < rest ? end - unit : rest);
}

/* Clears the bits of units that the caller holds, and with `zero` their content; how many were
 * set. */
static size_t pages_renew(size_t unit, size_t end, int zero)
{
    size_t had = 0;
    while (unit < end) {
        uintptr_t *const word = &stale[unit / MM_WORD_BITS];
        const unsigned at = unit % MM_WORD_BITS;
        const unsigned n = word_rest(unit, end);
        uintptr_t bits = __atomic_load_n(word, __ATOMIC_RELAXED) & mm_mask(n) << at;
        if (bits != 0)
            __atomic_fetch_and(word, ~bits, __ATOMIC_RELAXED);
        had += mm_popcount(bits);
        for (; zero && bits != 0; bits &= bits - 1)
            memset((char *)arena_base + ((unit - at + mm_ctz(bits)) << MM_SLAB_SHIFT), 0, UNIT);
        unit += n;
    }
    return had;
}

/* Gives the pages of stale units back; false if the system does not take them: they are locked. */
static int pages_trim_run(size_t unit, unsigned n)
{
    const uintptr_t pa = arena_base + (unit << MM_SLAB_SHIFT);
    const size_t bytes = (size_t)n << MM_SLAB_SHIFT;
    int done;
    if (mm_buddy_reserve(&arena, pa, bytes) != MM_OK)
        return 1; /* somebody took one meanwhile */
    done = madvise((void *)pa, bytes, MADV_DONTNEED) == 0;
    if (done)
        __atomic_fetch_sub(&stale_units, pages_renew(unit, unit + n, 0), __ATOMIC_RELAXED);
    (void)mm_buddy_release(&arena, pa, bytes);
    return done;
}

/* Gives pages back, from the top down, until `keep` units are left that are free and have some. */
static void pages_trim(size_t keep)
{
    const int before = errno; /* free leaves it alone */
    uintptr_t bits;
    size_t word;
    if (__atomic_exchange_n(&trimming, 1, __ATOMIC_ACQUIRE) != 0)
        return;
    word = unit_of(__atomic_load_n(&opened, __ATOMIC_RELAXED)) / MM_WORD_BITS + 1;
    while (word-- > 0) {
        bits = __atomic_load_n(&stale[word], __ATOMIC_RELAXED);
        while (bits != 0 && __atomic_load_n(&stale_units, __ATOMIC_RELAXED) > keep) {
            const unsigned last = mm_fls(bits);
            const uintptr_t gaps = ~bits & mm_mask(last);
            const unsigned first = gaps != 0 ? mm_fls(gaps) + 1 : 0;
            if (!pages_trim_run(word * MM_WORD_BITS + first, last + 1 - first)) {
                errno = before;
                return; /* and never again */
            }
            bits &= mm_mask(first);
        }
    }
    __atomic_store_n(&trimming, 0, __ATOMIC_RELEASE);
}

/* The program has got new pages, and `used` units: where that makes a new peak, what is stale is
 * not to add to it. */
static void pages_rise(size_t used)
{
    const size_t keep = STALE_LEAST + used / 16;
    size_t all = used + __atomic_load_n(&stale_units, __ATOMIC_RELAXED);

    if (all <= __atomic_load_n(&peak_units, __ATOMIC_RELAXED))
        return;
    if (all > used + keep) {
        pages_trim(keep / 2);
        all = used + __atomic_load_n(&stale_units, __ATOMIC_RELAXED);
    }
    if (all > __atomic_load_n(&peak_units, __ATOMIC_RELAXED))
        __atomic_store_n(&peak_units, all, __ATOMIC_RELAXED);
}

/* What a caller wants of its pages. */
#define PAGES_ZERO 1u /* that they hold zeros */
#define PAGES_FULL 2u /* all of them, soon */

/* The caller holds these bytes from now on. False if the system has no memory for them. */
static int pages_hold(uintptr_t pa, size_t bytes, unsigned how)
{
    const size_t unit = unit_of(pa), n = bytes >> MM_SLAB_SHIFT;
    size_t had, used;

    if (!pages_open(pa + bytes))
        return 0;
    had = pages_renew(unit, unit + n, (how & PAGES_ZERO) != 0);
    __atomic_fetch_sub(&stale_units, had, __ATOMIC_RELAXED);
    if ((how & PAGES_FULL) && had == 0 &&
        __atomic_load_n(&used_units, __ATOMIC_RELAXED) > FULL_FROM)
        (void)madvise((void *)pa, bytes, MADV_POPULATE_WRITE); /* Linux 5.14: one fault for 16 */
    used = __atomic_add_fetch(&used_units, n, __ATOMIC_RELAXED);
    if (had < n)
        pages_rise(used);
    return 1;
}

/* The caller is about to free these bytes, which have pages. */
static void pages_spoil(uintptr_t pa, size_t bytes)
{
    size_t unit = unit_of(pa);
    const size_t end = unit + (bytes >> MM_SLAB_SHIFT);

    __atomic_fetch_add(&stale_units, end - unit, __ATOMIC_RELAXED);
    while (unit < end) {
        const unsigned at = unit % MM_WORD_BITS;
        const unsigned n = word_rest(unit, end);
        __atomic_fetch_or(&stale[unit / MM_WORD_BITS], mm_mask(n) << at, __ATOMIC_RELAXED);
        unit += n;
    }
}

/* The caller has freed these bytes. */
static void pages_drop(size_t bytes)
{
    const size_t n = bytes >> MM_SLAB_SHIFT;
    size_t keep = __atomic_sub_fetch(&used_units, n, __ATOMIC_RELAXED) / 4;
    keep = keep > STALE_MOST ? keep : STALE_MOST;
    if (__atomic_load_n(&stale_units, __ATOMIC_RELAXED) > keep)
        pages_trim(keep / 2);
}

/* Doubles the arena. False if it has all addresses, or would have none for so many bytes. */
static int pages_enter(size_t bytes, uintptr_t seen)
{
    int done = 1;
    if (bytes > arena_end - arena_base)
        return 0;
    lock_word(&opening);
    if (entered == seen) { /* else another thread was faster */
        done = entered < arena_end && mm_buddy_grow(&arena, entered, entered - arena_base) == MM_OK;
        if (done)
            __atomic_store_n(&entered, entered + (entered - arena_base), __ATOMIC_RELEASE);
    }
    unlock_word(&opening);
    return done;
}

/* `bytes` is a multiple of UNIT in the functions below. */
static void *pages_take(size_t bytes, size_t align, unsigned how)
{
    mm_pa_t pa;
    uintptr_t seen;
    gate_enter(); /* a fork must not come between the arena's and the bits' change */
    do {
        seen = __atomic_load_n(&entered, __ATOMIC_ACQUIRE);
        pa = align <= UNIT ? mm_buddy_alloc_exact(&arena, bytes, MM_BUDDY_UNMOVABLE)
                           : mm_buddy_alloc_aligned(&arena, bytes, align, MM_BUDDY_UNMOVABLE);
    } while (pa == MM_PA_NONE && pages_enter(bytes, seen));
    if (pa != MM_PA_NONE && !pages_hold(pa, bytes, how)) {
        (void)mm_buddy_free(&arena, pa);
        pa = MM_PA_NONE;
    }
    gate_leave();
    return pa == MM_PA_NONE ? NULL : (void *)(uintptr_t)pa;
}

static void pages_give(void *p, size_t bytes)
{
    gate_enter();
    pages_spoil((uintptr_t)p, bytes);
    (void)mm_buddy_free(&arena, (uintptr_t)p);
    pages_drop(bytes);
    gate_leave();
}

/* True if the block has `want` bytes now, where it is. */
static int pages_resize(void *p, size_t had, size_t want)
{
    const uintptr_t pa = (uintptr_t)p;
    int done;

    gate_enter();
    if (want < had)
        pages_spoil(pa + want, had - want);
    done = mm_buddy_resize_exact(&arena, pa, want) == MM_OK;
    if (want < had) {
        if (done)
            pages_drop(had - want);
        else
            __atomic_fetch_sub(&stale_units, pages_renew(unit_of(pa + want), unit_of(pa + had), 0),
                               __ATOMIC_RELAXED);
    } else if (done && !pages_hold(pa + had, want - had, 0)) {
        (void)mm_buddy_resize_exact(&arena, pa, had);
        done = 0;
    }
    gate_leave();
    return done;
}

static size_t pages_bytes(const void *p)
{
    struct mm_buddy_block block;
    if (mm_buddy_find(&arena, (uintptr_t)p, &block) != MM_OK || block.pa != (uintptr_t)p ||
        block.state != MM_BUDDY_STATE_ALLOCATED)
        return 0;
    return (size_t)block.bytes;
}

static void *slab_take(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    const int before = errno; /* free comes here, too */
    void *p;
    (void)ctx;
    (void)flags;
    p = pages_take(bytes, align, PAGES_FULL);
    errno = before;
    return p;
}

static void slab_give(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    pages_give(p, bytes);
}

static void slab_purge(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    (void)madvise(p, bytes, MADV_DONTNEED);
}

static const struct mm_slab_hooks hooks = {
    .alloc = slab_take,
    .free = slab_give,
    .purge = slab_purge,
};

/* ---- Start, threads, forks ------------------------------------------------------------------- */

static pthread_key_t exit_key;
static uintptr_t slots_used[MM_CPU_MAX / MM_WORD_BITS];
static uintptr_t started; /* 0 not yet, 1 under way, 2 done */

/* The slots' arrays of threads that do not exist in the child may be half changed: they are given
 * up, with the objects in them. */
static void fork_before(void)
{
    uintptr_t others;
    unsigned patience = 1000;

    while (__atomic_exchange_n(&forking, 1, __ATOMIC_SEQ_CST) != 0)
        sched_yield();
    /* A signal's handler may fork while this thread is inside, or (depth, but not counted) at the
     * gate, where it has no lock: then one that stays inside for long is taken to be itself. */
    while ((others = __atomic_load_n(&inside, __ATOMIC_SEQ_CST) - counted) != 0) {
        if (depth != 0 && !counted && others == 1 && --patience == 0)
            break;
        sched_yield();
    }
    depth++; /* this thread may still lock */
}

static void fork_after(void)
{
    depth--;
    __atomic_store_n(&forking, 0, __ATOMIC_SEQ_CST);
}

static void fork_child(void)
{
    unsigned c, slot;
    for (slot = 0; slot < MM_CPU_MAX; slot++) {
        if (slot == slot_of_thread)
            continue;
        for (c = 0; c < MM_SLAB_CLASSES; c++)
            if (heap.cls[c].cpu[slot] != NULL)
                mmi_slab_prepare(&heap.cls[c], heap.cls[c].cpu[slot]);
        if (heap.pool.cpu[slot] != NULL)
            mmi_slab_prepare(&heap.pool, heap.pool.cpu[slot]);
        slots_used[slot / MM_WORD_BITS] &= ~mm_bit(slot % MM_WORD_BITS);
    }
    fork_after();
}

/* A thread ends: its slot serves another. What it still frees goes to the slabs. */
static void thread_exit(void *value)
{
    const unsigned slot = slot_of_thread;
    (void)value;
    slot_of_thread = SLOT_NONE;
    arrays_of_thread = NULL;
    if (slot >= MM_CPU_MAX)
        return;
    (void)mm_slab_drain(&heap, slot);
    __atomic_fetch_and(&slots_used[slot / MM_WORD_BITS], ~mm_bit(slot % MM_WORD_BITS),
                       __ATOMIC_RELEASE);
}

static int start_arena(void)
{
    struct mm_buddy_config config;
    struct sysinfo info;
    uint64_t bytes = (uint64_t)4 << 30;
    size_t meta_bytes, stale_bytes;
    char *at, *meta;

    if (sysinfo(&info) != 0)
        return 0;
    while (bytes < (uint64_t)info.totalram * info.mem_unit)
        bytes *= 2;
    /* Half way down from where the system maps things: nothing is near, and it is as random. */
    at = mmap(NULL, UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return 0;
    arena_base = (uintptr_t)at / 2 & ~(OPEN_STEP - 1);
    munmap(at, UNIT);
    arena_end = arena_base + bytes;
    opened = arena_base;
    entered = arena_base + FIRST_STEP;
    mm_buddy_config_init(&config, arena_base, FIRST_STEP, MM_SLAB_SHIFT, 31);
    config.span = bytes;
    config.cpu_lists = false; /* their owners' marks would not survive a fork */
    config.regions = 1;
    while (mm_buddy_meta_bytes(&config) == 0 && config.max_order > 0)
        config.max_order--;
    meta_bytes = (mm_buddy_meta_bytes(&config) + 63) & ~(size_t)63;
    stale_bytes = (unit_of(arena_end) / MM_WORD_BITS + 1) * sizeof *stale;
    meta = mmap(NULL, meta_bytes + stale_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    if (meta == MAP_FAILED)
        return 0;
    (void)madvise(meta, meta_bytes, MADV_POPULATE_WRITE); /* all of it is written now */
    stale = (uintptr_t *)(meta + meta_bytes);
    return mm_buddy_init(&arena, &config, meta, meta_bytes) == MM_OK;
}

static void start(void)
{
    struct mm_slab_config config;
    uintptr_t expected = 0;

    if (!__atomic_compare_exchange_n(&started, &expected, 1, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(&started, __ATOMIC_ACQUIRE) != 2)
            sched_yield();
        return;
    }
    mm_slab_config_init(&config, &hooks);
    config.reserve = 8;
    config.offline = true;
    if (!start_arena() || mm_slab_init(&heap, &config) != MM_OK)
        _exit(127);
    __atomic_store_n(&started, 2, __ATOMIC_RELEASE);
    (void)pthread_key_create(&exit_key, thread_exit);
    (void)pthread_atfork(fork_before, fork_after, fork_child);
}

/* A thread's first call: it gets a slot, if there is one. */
static __attribute__((noinline)) void thread_start(void)
{
    unsigned slot;

    slot_of_thread = SLOT_NONE; /* what is called here may allocate */
    if (__atomic_load_n(&started, __ATOMIC_ACQUIRE) != 2)
        start();
    for (slot = 0; slot < MM_CPU_MAX; slot++) {
        const uintptr_t bit = mm_bit(slot % MM_WORD_BITS);
        if ((__atomic_fetch_or(&slots_used[slot / MM_WORD_BITS], bit, __ATOMIC_ACQUIRE) & bit) == 0)
            break;
    }
    if (slot == MM_CPU_MAX)
        return;
    gate_enter(); /* a fork must not come in the midst of it */
    (void)mm_slab_online(&heap, slot);
    gate_leave();
    (void)pthread_setspecific(exit_key, &heap);
    slot_of_thread = slot;
    arrays_of_thread = &heap.cpu[slot];
}

static void thread_ready(void)
{
    if (slot_of_thread == SLOT_FRESH)
        thread_start();
}

/* ---- Large blocks ---------------------------------------------------------------------------- */

/* Slabs' objects never begin at a slab's start, large blocks always do. */
static inline int is_large(const void *p)
{
    return ((uintptr_t)p & (UNIT - 1)) == 0;
}

static __attribute__((noinline)) void *large_take(size_t size, size_t align, unsigned how)
{
    if (size > (size_t)PTRDIFF_MAX - UNIT)
        return NULL;
    return pages_take((size + UNIT - 1) & ~(UNIT - 1), align, how);
}

static __attribute__((noinline)) void large_give(void *p)
{
    const size_t bytes = pages_bytes(p);
    if (bytes != 0)
        pages_give(p, bytes);
}

/* The pages of p, `bytes` of them, move to q instead of being copied; none stay behind. False, and
 * p is as it was, if that fails: what is mapped at q is unknown then.
 *
 * Linux unmaps q before it may refuse: up to 6.16 what lies in more than one of its mappings, as p
 * does after an earlier move. Later ones move as many of those as they can. */
static int pages_move(char *q, char *p, size_t bytes)
{
    unsigned char present[UNIT / 4096];
    size_t moved = 0;

    if (mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, q) != MAP_FAILED)
        return 1;
    while (moved < bytes && mincore(q + moved, UNIT, present) == 0)
        moved += UNIT;
    if (moved == bytes) { /* nothing was done */
        moved = 0;
    } else if (mmap(q + moved, bytes - moved, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        memcpy(p, q, moved);
        return 0;
    }
    memcpy(q + moved, p + moved, bytes - moved);
    return 1;
}

static void *large_resize(void *p, size_t size)
{
    const size_t had = pages_bytes(p);
    size_t want;
    void *q;

    if (had == 0 || size > (size_t)PTRDIFF_MAX - UNIT)
        return NULL;
    want = (size + UNIT - 1) & ~(UNIT - 1);
    if (want == had || pages_resize(p, had, want))
        return p;
    q = pages_take(want, UNIT, 0);
    if (q == NULL)
        return NULL;
    if (want < MOVE_LEAST || want < had)
        memcpy(q, p, had < want ? had : want);
    else if (!pages_move(q, p, had))
        return NULL; /* q stays taken: nobody may get it */
    pages_give(p, had);
    return q;
}

/* ---- The calls ------------------------------------------------------------------------------- */

static __attribute__((noinline, cold)) void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static inline void *failed(void *p)
{
    return __builtin_expect(p != NULL, 1) ? p : out_of_memory();
}

/* An object for a thread that may have no arrays. */
static __attribute__((noinline)) void *small_take(size_t size, unsigned flags)
{
    thread_ready();
    return failed(arrays_of_thread != NULL ? mm_slab_kmalloc(&heap, size, flags)
                                           : mmi_slab_kmalloc_slow(&heap, size, flags));
}

static __attribute__((noinline)) void free_rarely(void *p)
{
    if (p == NULL)
        return;
    thread_ready();
    if (is_large(p))
        large_give(p);
    else if (arrays_of_thread != NULL)
        (void)mm_slab_kfree(&heap, p);
    else
        (void)mmi_slab_kfree_slow(&heap, p);
}

static __attribute__((noinline)) void *large_malloc(size_t size, unsigned how)
{
    thread_ready();
    return failed(large_take(size, UNIT, how));
}

EXPORT void *malloc(size_t size)
{
    if (__builtin_expect(size > MM_SLAB_MAX, 0))
        return large_malloc(size, 0);
    size = size > 8 ? size : 16; /* C wants alignment to 16 */
    if (__builtin_expect(arrays_of_thread == NULL, 0))
        return small_take(size, 0);
    return failed(mm_slab_kmalloc(&heap, size, 0));
}

EXPORT void free(void *p)
{
    if (__builtin_expect(is_large(p) || arrays_of_thread == NULL, 0)) /* NULL is large, too */
        free_rarely(p);
    else
        (void)mm_slab_kfree(&heap, p);
}

EXPORT void *calloc(size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes))
        return out_of_memory();
    if (bytes > MM_SLAB_MAX)
        return large_malloc(bytes, PAGES_ZERO);
    bytes = bytes > 8 ? bytes : 16;
    if (arrays_of_thread == NULL)
        return small_take(bytes, MM_SLAB_ZERO);
    return failed(mm_slab_kzalloc(&heap, bytes, 0));
}

static __attribute__((noinline)) size_t large_usable(void *p)
{
    thread_ready();
    return p != NULL ? pages_bytes(p) : 0;
}

EXPORT size_t malloc_usable_size(void *p)
{
    if (__builtin_expect(is_large(p), 0)) /* NULL is large, too */
        return large_usable(p);
    return mm_slab_usable(&heap, p); /* takes no arrays: the thread need not be ready */
}

EXPORT void *realloc(void *p, size_t size)
{
    size_t had;
    void *q;

    if (p == NULL)
        return malloc(size);
    if (size == 0) {
        free(p);
        return NULL;
    }
    thread_ready();
    if (is_large(p) && size > MM_SLAB_MAX)
        return failed(large_resize(p, size));
    had = malloc_usable_size(p);
    if (size <= had && (size > had / 2 || had <= 128))
        return p;
    q = malloc(size);
    if (q == NULL)
        return NULL;
    memcpy(q, p, size < had ? size : had);
    free(p);
    return q;
}

EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(n, size, &bytes) ? out_of_memory() : realloc(p, bytes);
}

static void *aligned(size_t align, size_t size)
{
    thread_ready();
    if (align <= 16)
        return malloc(size);
    if (size <= MM_SLAB_MAX && align <= MM_SLAB_MAX)
        return failed(mm_slab_kmalloc_aligned(&heap, size, align, 0));
    return failed(large_take(size != 0 ? size : 1, align, 0));
}

EXPORT int posix_memalign(void **result, size_t align, size_t size)
{
    const int before = errno;
    void *p;

    if (!mm_is_pow2(align) || align % sizeof(void *) != 0)
        return EINVAL;
    p = aligned(align, size);
    errno = before;
    if (p == NULL)
        return ENOMEM;
    *result = p;
    return 0;
}

EXPORT void *memalign(size_t align, size_t size)
{
    if (!mm_is_pow2(align)) {
        errno = EINVAL;
        return NULL;
    }
    return aligned(align, size);
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
    return memalign(align, size);
}

EXPORT void *valloc(size_t size)
{
    return aligned(4096, size);
}

EXPORT void *pvalloc(size_t size)
{
    return size > PTRDIFF_MAX ? out_of_memory() : aligned(4096, (size + 4095) & ~(size_t)4095);
}

/* Gives free memory back to the system; 1 if there was any. */
EXPORT int malloc_trim(size_t pad)
{
    size_t given;

    thread_ready();
    given = mm_slab_shrink(&heap);
    gate_enter();
    given += __atomic_load_n(&stale_units, __ATOMIC_RELAXED);
    pages_trim(pad >> MM_SLAB_SHIFT);
    gate_leave();
    return given != 0;
}
