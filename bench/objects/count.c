/* count.c - instructions of mm_slab.h's hot paths under callgrind: count.py runs it and divides
 * each dump by its number of operations. An operation is an allocation and a free, with the first
 * word written and read between, as in objects.c. With --waste it prints what the classes' slabs
 * waste. */
#include "adapt_slab.h"

#include <valgrind/callgrind.h>

#define OPS  40960
#define RING 1024

static struct mm_slab_cache cache;
static void *ring[RING];

static void use(void *p)
{
    *(volatile uintptr_t *)p = 1;
    (void)*(volatile uintptr_t *)p;
}

/* What a program without the inlined functions calls. */
__attribute__((noinline)) static void *called_alloc(size_t size)
{
    return mm_slab_kmalloc(&obj_heap, size, 0);
}
__attribute__((noinline)) static enum mm_status called_free(void *p)
{
    return mm_slab_kfree(&obj_heap, p);
}

static void pair64(void)
{
    for (int i = 0; i < OPS; i++) {
        void *p = mm_slab_kmalloc(&obj_heap, 64, 0);
        use(p);
        (void)mm_slab_kfree(&obj_heap, p);
    }
}

static void pair64_sized(void)
{
    for (int i = 0; i < OPS; i++) {
        void *p = mm_slab_kmalloc(&obj_heap, 64, 0);
        use(p);
        (void)mm_slab_kfree_sized(&obj_heap, p, 64);
    }
}

static void pair64_called(void)
{
    for (int i = 0; i < OPS; i++) {
        void *p = called_alloc(64);
        use(p);
        (void)called_free(p);
    }
}

static void pair_cache(void)
{
    for (int i = 0; i < OPS; i++) {
        void *p = mm_slab_alloc(&cache, 0);
        use(p);
        (void)mm_slab_free(&cache, p);
    }
}

static void runs(int length)
{
    for (int round = 0; round < OPS / length; round++) {
        for (int i = 0; i < length; i++)
            use(ring[i] = mm_slab_kmalloc(&obj_heap, 64, 0));
        for (int i = length; i-- > 0;)
            (void)mm_slab_kfree(&obj_heap, ring[i]);
    }
}

static void run64(void) /* what bulk64 does, one by one */
{
    runs(64);
}

static void run1024(void) /* through the depot */
{
    runs(RING);
}

static void bulk64(void)
{
    for (int round = 0; round < OPS / 64; round++) {
        (void)mm_slab_kmalloc_bulk(&obj_heap, 64, 0, ring, 64);
        for (int i = 0; i < 64; i++)
            use(ring[i]);
        (void)mm_slab_kfree_bulk(&obj_heap, ring, 64);
    }
}

static void bulk_cache(void)
{
    for (int round = 0; round < OPS / 64; round++) {
        (void)mm_slab_alloc_bulk(&cache, 0, ring, 64);
        for (int i = 0; i < 64; i++)
            use(ring[i]);
        (void)mm_slab_free_bulk(&cache, ring, 64);
    }
}

static const struct row {
    const char *name;
    void (*run)(void);
} rows[] = {
    {"pair64", pair64},
    {"pair64.sized", pair64_sized},
    {"pair64.called", pair64_called},
    {"pair.cache", pair_cache},
    {"run64", run64},
    {"run1024", run1024},
    {"bulk64", bulk64},
    {"bulk.cache", bulk_cache},
};

/* What is left of a slab behind its last object, with the header, for each class. */
static void print_waste(void)
{
    puts("class  objects  waste of a slab, %");
    for (unsigned c = 0; c < MM_SLAB_CLASSES; c++) {
        const struct mm_slab_cache *k = &obj_heap.cls[c];
        const size_t rest = MM_SLAB_BYTES - (size_t)k->count * k->stride;
        printf("%5u %8u %8.2f\n", (unsigned)k->size, (unsigned)k->count,
               100 * (double)rest / (double)MM_SLAB_BYTES);
    }
}

int main(int argc, char **argv)
{
    const struct mm_slab_cache_config config = {.name = "thing", .size = 64};
    char name[64];

    obj_open();
    obj_cpu(0);
    if (argc > 1 && strcmp(argv[1], "--waste") == 0) {
        print_waste();
        return 0;
    }
    if (mm_slab_cache_init(&cache, &obj_heap, &config) != MM_OK)
        return 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rows[i].run(); /* up to the steady state */
        CALLGRIND_START_INSTRUMENTATION;
        rows[i].run();
        CALLGRIND_STOP_INSTRUMENTATION;
        snprintf(name, sizeof name, "%s/%d", rows[i].name, OPS);
        CALLGRIND_DUMP_STATS_AT(name);
    }
    obj_collect();
    return 0;
}
