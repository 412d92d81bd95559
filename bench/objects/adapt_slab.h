/* adapt_slab.h - mm_slab.h over mm_buddy.h over one reserved range of addresses */
#include "adapt.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef OBJ_SLAB_SIZED
#define OBJ_NAME  "slab-sized"
#define OBJ_TITLE "mm_slab.h, the size told at the free"
#else
#define OBJ_NAME  "slab"
#define OBJ_TITLE "mm_slab.h over mm_buddy.h"
#endif
#define OBJ_THREADS 1
#define OBJ_REAL    1
#define OBJ_SLOW    1

/* What a kernel has in a register of its own, a program has in a thread's variable. */
struct mm_slab_cpu;
__thread struct mm_slab_cpu *obj_self; /* not static: inline functions use them */
__thread unsigned obj_id;
#define MM_CPU_MAX         8
#define MM_CPU_ID()        obj_id
#define MM_SLAB_SELF(heap) obj_self
#define MM_SLAB_STATIC
#include "mm_slab.h"

#define MM_BUDDY_STATIC
#include "mm_buddy.h"

#define OBJ_ARENA ((size_t)8 << 30)
#define OBJ_LARGE ((size_t)1 << 20) /* from here up free memory goes back to the system at once */

static struct mm_slab_heap obj_heap;
static struct mm_buddy obj_pages;

static void *obj_source(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    mm_pa_t pa;
    (void)ctx;
    (void)flags;
    pa = align > MM_SLAB_BYTES
             ? mm_buddy_alloc_aligned(&obj_pages, bytes, align, MM_BUDDY_UNMOVABLE)
             : mm_buddy_alloc_exact(&obj_pages, bytes, MM_BUDDY_UNMOVABLE);
    return pa == MM_PA_NONE ? NULL : (void *)(uintptr_t)pa;
}

static void obj_sink(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    if (bytes >= OBJ_LARGE)
        madvise(p, bytes, MADV_DONTNEED);
    (void)mm_buddy_free(&obj_pages, (uintptr_t)p);
}

static void obj_purge(void *ctx, void *p, size_t bytes)
{
    (void)ctx;
    madvise(p, bytes, MADV_DONTNEED);
}

static enum mm_status obj_report(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    (void)ctx;
    return madvise((void *)(uintptr_t)pa, bytes, MADV_DONTNEED) == 0 ? MM_OK : MM_ERR_INVALID;
}

static int obj_open_pages(void)
{
    struct mm_buddy_config config;
    void *meta, *p = mmap(NULL, OBJ_ARENA, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return 0;
    mm_buddy_config_init(&config, ((uintptr_t)p + MM_SLAB_BYTES - 1) & ~(MM_SLAB_BYTES - 1),
                         OBJ_ARENA - MM_SLAB_BYTES, MM_SLAB_SHIFT, 12);
    meta = mmap(NULL, mm_buddy_meta_bytes(&config), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return meta != MAP_FAILED &&
           mm_buddy_init(&obj_pages, &config, meta, mm_buddy_meta_bytes(&config)) == MM_OK &&
           mm_buddy_report_enable(&obj_pages, 0) == MM_OK;
}

static void obj_open(void)
{
    static const struct mm_slab_hooks hooks = {
        .alloc = obj_source, .free = obj_sink, .zero = obj_purge, .purge = obj_purge};
    struct mm_slab_config config;
    mm_slab_config_init(&config, &hooks);
    if (!obj_open_pages() || mm_slab_init(&obj_heap, &config) != MM_OK)
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
    mm_buddy_drain(&obj_pages);
    while (mm_buddy_report(&obj_pages, 1 << 16, obj_report, NULL) != 0)
        continue;
}
