/* adapt_heap.h - the heaps of the page benchmark: mm_buddy's heap face, the first-fit list */
#include "adapt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define OBJ_REAL   1
#define HEAP_BYTES ((size_t)512 << 20)

#ifdef OBJ_BUDDY
#define OBJ_NAME    "buddy"
#define OBJ_TITLE   "mm_buddy.h: its heap face"
#define OBJ_THREADS 1
#define OBJ_SLOW    4

__thread int cpu_of_thread; /* not static: inline functions use it */
#define MM_CPU_MAX  8
#define MM_CPU_ID() cpu_of_thread
#define MM_BUDDY_STATIC
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

static struct mm_buddy heap;

static int heap_open(void *memory)
{
    struct mm_buddy_config config;
    mm_buddy_config_init(&config, (uintptr_t)memory, HEAP_BYTES, 4, 21);
    size_t meta = mm_buddy_meta_bytes(&config);
    void *room = mmap(NULL, meta, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return room != MAP_FAILED && mm_buddy_init(&heap, &config, room, meta) == MM_OK;
}

static inline void obj_cpu(int t)
{
    cpu_of_thread = t;
}

static inline void *obj_alloc(size_t size)
{
    return mm_buddy_malloc(&heap, size);
}

static inline void obj_free(void *p, size_t size)
{
    (void)size;
    (void)mm_buddy_mfree(&heap, p);
}
#else
#define OBJ_NAME    "list-heap"
#define OBJ_TITLE   "heap with a linked list of free blocks, first fit"
#define OBJ_THREADS 0
#define OBJ_SLOW    256

#include "../baseline/heap.c"

static struct heap *heap;

static int heap_open(void *memory)
{
    heap = heap_create(memory, HEAP_BYTES);
    return 1;
}

static inline void obj_cpu(int t)
{
    (void)t;
}

static inline void *obj_alloc(size_t size)
{
    return heap_alloc(heap, size);
}

static inline void obj_free(void *p, size_t size)
{
    (void)size;
    heap_free(heap, p);
}
#endif

static void obj_open(void)
{
    void *memory = mmap(NULL, HEAP_BYTES + (2 << 20), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED ||
        !heap_open((void *)(((uintptr_t)memory + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1)))) {
        fprintf(stderr, "bench: no memory for the heap\n");
        exit(1);
    }
}

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
