/* adapt_slab.h - mm_slab.h over one reserved range of addresses */
#include "adapt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define OBJ_NAME    "slab"
#define OBJ_TITLE   "mm_slab.h"
#define OBJ_THREADS 1
#define OBJ_REAL    1
#define OBJ_SLOW    1

/* What a kernel has in a register of its own, a program has in a thread's variable. */
struct mm_slab_cpu;
static __thread struct mm_slab_cpu *obj_self;
static __thread unsigned obj_id;
#define MM_CPU_MAX         8
#define MM_CPU_ID()        obj_id
#define MM_SLAB_SELF(heap) obj_self
#define MM_SLAB_STATIC
#include "mm_slab.h"

#define OBJ_ARENA ((size_t)8 << 30)
static struct mm_slab_heap obj_heap;
static uintptr_t obj_arena, obj_arena_end;
static struct obj_free {
    struct obj_free *next;
} *obj_frees;
static uintptr_t obj_lock;

/* Slabs given back wait in a list, without their pages but for the first; large ones are unmapped. */
static void *obj_source(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    void *p = NULL;
    (void)ctx;
    (void)flags;
    mmi_spin_lock(&obj_lock);
    if (bytes == MM_SLAB_BYTES && obj_frees != NULL) {
        p = obj_frees;
        obj_frees = obj_frees->next;
    } else if (obj_arena + bytes + align <= obj_arena_end) {
        obj_arena = (obj_arena + align - 1) & ~(uintptr_t)(align - 1);
        p = (void *)obj_arena;
        obj_arena += bytes;
    }
    mm_store_release(&obj_lock, 0);
    return p;
}

static void obj_sink(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    madvise(p, bytes, MADV_DONTNEED);
    if (bytes != MM_SLAB_BYTES)
        return;
    mmi_spin_lock(&obj_lock);
    ((struct obj_free *)p)->next = obj_frees;
    obj_frees = p;
    mm_store_release(&obj_lock, 0);
}

static void obj_purge(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    madvise(p, bytes, MADV_DONTNEED);
}

static void obj_open(void)
{
    static const struct mm_slab_hooks hooks = {.alloc = obj_source, .free = obj_sink, .purge = obj_purge};
    struct mm_slab_config config;
    void *p = mmap(NULL, OBJ_ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    obj_arena = (uintptr_t)p;
    obj_arena_end = obj_arena + OBJ_ARENA;
    mm_slab_config_init(&config, &hooks);
    if (mm_slab_init(&obj_heap, &config) != MM_OK)
        exit(1);
}

static inline void obj_cpu(int t)
{
    obj_id = (unsigned)t;
    obj_self = &obj_heap.cpu[t];
}

static inline void *obj_alloc(size_t size)
{
    return mm_slab_kmalloc(&obj_heap, size, 0);
}

static inline void *obj_zalloc(size_t size)
{
    return mm_slab_kzalloc(&obj_heap, size, 0);
}

static inline void *obj_realloc(void *p, size_t old, size_t size)
{
    (void)old;
    return mm_slab_krealloc(&obj_heap, p, size, 0);
}

static inline void obj_free(void *p, size_t size)
{
#ifdef OBJ_SLAB_SIZED
    (void)mm_slab_kfree_sized(&obj_heap, p, size);
#else
    (void)size;
    (void)mm_slab_kfree(&obj_heap, p);
#endif
}

static void obj_collect(void)
{
    (void)mm_slab_shrink(&obj_heap);
}
