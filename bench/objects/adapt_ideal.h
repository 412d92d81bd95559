/* adapt_ideal.h - the least that an allocator of small objects can do, and the empty driver
 *
 * A free list for each class and thread, never given back. With the size known at the free that is
 * all (`ideal`). Where a pointer alone is freed (`ideal-owner`), 64 KiB of one class begin with its
 * owner and its list there; what another thread frees is gathered and goes to the owner's list in
 * batches, by one exchange. No checks of any kind. */
#include "adapt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define OBJ_SLOW 1

#ifdef OBJ_EMPTY
#define OBJ_NAME    "empty"
#define OBJ_TITLE   "no allocator: the driver's own cost"
#define OBJ_THREADS 1
#define OBJ_REAL    0

/* One line for each thread, handed out again and again. */
static __thread char empty_object[1 << 16] __attribute__((aligned(64)));

static void obj_open(void)
{
}

static inline void obj_cpu(int t)
{
    (void)t;
}

static inline void *obj_alloc(size_t size)
{
    void *p = empty_object;
    (void)size;
    __asm__ volatile("" : "+r"(p));
    return p;
}

static inline void obj_free(void *p, size_t size)
{
    (void)size;
    __asm__ volatile("" : : "r"(p));
}
#else

#define CHUNK_BYTES ((size_t)1 << 16)
#define ARENA_BYTES ((size_t)4 << 30)
#define CLASSES     48
#define THREADS     8
#define BATCH       64

struct object {
    struct object *next;
};

struct thread_lists {
    struct object *list[CLASSES];
    struct object *away[CLASSES], *away_last[CLASSES]; /* another's, not yet handed over */
    struct thread_lists *away_owner[CLASSES];
    int away_count[CLASSES];
    struct object *returned[CLASSES] __attribute__((aligned(128))); /* others push */
} __attribute__((aligned(128)));

struct chunk {
    struct thread_lists *owner;
    struct object **list; /* of its class, there */
    unsigned class;
};

static struct thread_lists lists[THREADS];
static char *arena, *arena_end;
static __thread struct thread_lists *me;

#define OBJ_REAL 1
#ifdef OBJ_IDEAL_OWNER
#define OBJ_NAME    "ideal-owner"
#define OBJ_TITLE   "a free list a class, the owner looked up at the free: a yardstick"
#define OBJ_THREADS 1
#else
#define OBJ_NAME    "ideal"
#define OBJ_TITLE   "a free list a class, the size known at the free: a yardstick"
#define OBJ_THREADS 0
#endif

static void obj_open(void)
{
    arena = mmap(NULL, ARENA_BYTES + CHUNK_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        exit(1);
    arena_end = arena + ARENA_BYTES;
    arena = (char *)(((uintptr_t)arena + CHUNK_BYTES - 1) & ~(CHUNK_BYTES - 1));
}

static inline void obj_cpu(int t)
{
    me = &lists[t];
}

/* 16, 32, ... 128, then four classes a doubling up to 32 KiB. */
static inline unsigned class_of(size_t size)
{
    if (size <= 128)
        return size <= 16 ? 0 : (unsigned)((size - 1) / 16);
    unsigned high = 63u - (unsigned)__builtin_clzl(size - 1);
    return 8 + (high - 7) * 4 + (unsigned)((size - 1) >> (high - 2) & 3);
}

static inline size_t class_bytes(unsigned class)
{
    return class < 8 ? (class + 1) * 16 : (size_t)(5 + (class - 8) % 4) << (5 + (class - 8) / 4);
}

__attribute__((noinline)) static void *refill(unsigned class)
{
    struct thread_lists *l = me;
    size_t bytes = class_bytes(class);
    l->list[class] = __atomic_exchange_n(&l->returned[class], NULL, __ATOMIC_ACQUIRE);
    if (l->list[class] == NULL) {
        char *chunk = __atomic_fetch_add(&arena, CHUNK_BYTES, __ATOMIC_RELAXED);
        if (chunk + CHUNK_BYTES > arena_end) {
            fprintf(stderr, "bench: the ideal allocator's arena is used up\n");
            exit(1);
        }
        ((struct chunk *)chunk)->owner = l;
        ((struct chunk *)chunk)->list = &l->list[class];
        ((struct chunk *)chunk)->class = class;
        for (size_t at = 64; at + bytes <= CHUNK_BYTES; at += bytes) {
            struct object *o = (struct object *)(chunk + at);
            o->next = l->list[class];
            l->list[class] = o;
        }
    }
    struct object *o = l->list[class];
    l->list[class] = o->next;
    return o;
}

/* Sizes beyond the classes: fresh pages, as the large requests of any allocator. */
__attribute__((noinline)) static void *large(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static inline void *obj_alloc(size_t size)
{
    if (size > 32768)
        return large(size);
    unsigned class = class_of(size);
    struct thread_lists *l = me;
    struct object *o = l->list[class];
    if (__builtin_expect(o == NULL, 0))
        return refill(class);
    l->list[class] = o->next;
    return o;
}

#ifdef OBJ_IDEAL_OWNER
/* The batch of this class goes to its owner. */
__attribute__((noinline)) static void hand_over(struct thread_lists *l, unsigned class)
{
    struct object **to = &l->away_owner[class]->returned[class];
    struct object *first = __atomic_load_n(to, __ATOMIC_RELAXED);
    do
        l->away_last[class]->next = first;
    while (!__atomic_compare_exchange_n(to, &first, l->away[class], 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
    l->away[class] = NULL;
    l->away_count[class] = 0;
}

__attribute__((noinline)) static void free_away(struct object *o, const struct chunk *c)
{
    struct thread_lists *l = me;
    unsigned class = c->class;
    if (l->away_count[class] > 0 && l->away_owner[class] != c->owner)
        hand_over(l, class);
    if (l->away_count[class] == 0)
        l->away_last[class] = o;
    o->next = l->away[class];
    l->away[class] = o;
    l->away_owner[class] = c->owner;
    if (++l->away_count[class] == BATCH)
        hand_over(l, class);
}
#endif

static inline void obj_free(void *p, size_t size)
{
    struct object *o = p;
    if (size > 32768) {
        munmap(p, size);
        return;
    }
#ifdef OBJ_IDEAL_OWNER
    const struct chunk *c = (struct chunk *)((uintptr_t)p & ~(CHUNK_BYTES - 1));
    if (__builtin_expect(c->owner != me, 0)) {
        free_away(o, c);
        return;
    }
    struct object **list = c->list;
#else
    struct object **list = &me->list[class_of(size)];
#endif
    o->next = *list;
    *list = o;
}
#endif

static inline void *obj_zalloc(size_t size)
{
    void *p = obj_alloc(size);
    return p == NULL ? NULL : memset(p, 0, size);
}

static inline void *obj_realloc(void *p, size_t old, size_t size)
{
    void *to = obj_alloc(size);
    if (to != NULL) {
        memcpy(to, p, old < size ? old : size);
        obj_free(p, old);
    }
    return to;
}

static void obj_collect(void)
{
}
