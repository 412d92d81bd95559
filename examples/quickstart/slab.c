/* slab.c - small objects with mm_slab.h: kmalloc and a named cache
 *
 *     cc -I../.. slab.c && ./a.out
 */
#define MM_SLAB_IMPLEMENTATION
#include "mm_slab.h"

#include <stdio.h>
#include <stdlib.h>

/* In a kernel: pages of the frame allocator, through the direct map. */
static void *pages(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    (void)ctx, (void)flags;
    return aligned_alloc(align, (size_t)mm_align_up(bytes, align));
}

static void unpages(void *ctx, void *memory, size_t bytes)
{
    (void)ctx, (void)bytes;
    free(memory);
}

struct task {
    int number;
    char state[196];
};

static void construct(void *ctx, void *object)
{
    ((struct task *)object)->number = ++*(int *)ctx;
}

static void leak(void *ctx, const struct mm_slab_object *object)
{
    (void)ctx;
    printf("live: %zu bytes\n", object->size);
}

static struct mm_slab_heap heap;
static struct mm_slab_cache tasks;

int main(void)
{
    static const struct mm_slab_hooks hooks = {.alloc = pages, .free = unpages};
    static int constructed;
    const struct mm_slab_cache_config kind = {
        .name = "task", .size = sizeof(struct task), .construct = construct, .ctx = &constructed};
    struct mm_slab_config config;
    struct mm_slab_cache_stats stats;
    struct task *one, *two;
    size_t live;
    void *text;

    mm_slab_config_init(&config, &hooks);
    if (mm_slab_init(&heap, &config) != MM_OK || mm_slab_cache_init(&tasks, &heap, &kind) != MM_OK)
        return 1;

    text = mm_slab_kmalloc(&heap, 100, MM_SLAB_ZERO);
    printf("asked for 100 bytes, may use %zu\n", mm_slab_ksize(&heap, text));
    text = mm_slab_krealloc(&heap, text, 100000, 0); /* too large for a class: whole pages */
    printf("asked for 100000 bytes, may use %zu\n", mm_slab_ksize(&heap, text));
    printf("an array whose size overflows: %s\n",
           mm_slab_kcalloc(&heap, SIZE_MAX / 2, 16, 0) == NULL ? "refused" : "?");

    one = mm_slab_alloc(&tasks, 0);
    two = mm_slab_alloc(&tasks, 0);
    mm_slab_cache_get_stats(&tasks, &stats);
    printf("two tasks of %zu bytes: %s\n", stats.size,
           constructed == (int)stats.objects ? "a slab full was constructed" : "?");
    printf("free: %s", mm_status_name(mm_slab_free(&tasks, one)));
    printf(", again: %s\n", mm_status_name(mm_slab_free(&tasks, one)));
    printf("end of the cache: %s", mm_status_name(mm_slab_cache_destroy(&tasks, &live)));
    printf(", %zu object is live\n", live);

    mm_slab_leaks(&heap, leak, NULL);
    mm_slab_free(&tasks, two);
    mm_slab_kfree(&heap, text);
    return mm_slab_cache_destroy(&tasks, NULL) != MM_OK || mm_slab_fini(&heap) != MM_OK;
}
