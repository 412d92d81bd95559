/* selftest.c - the stress test and the benchmark that run in the kernel itself */
#include "parts.h"

#define SLOTS 32
struct stress {
    uint64_t random, wrong;
    struct stress_slot {
        void *p;
        mm_pa_t pa;
        struct kmm_space *space;
        size_t bytes;
        unsigned kind, order;
        unsigned char fill;
    } slot[SLOTS];
};
#define STRESS_VA ((mm_va_t)(kmm.config.user_low + 16 * MM_PAGE_SIZE))

static uint64_t stress_random(struct stress *s, uint64_t below)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (s->random >> 11) % below;
}

static bool all_bytes(const unsigned char *p, size_t bytes, unsigned char fill)
{
    return bytes == 0 || (p[0] == fill && p[bytes / 2] == fill && p[bytes - 1] == fill);
}

static void stress_take(struct stress *s, struct stress_slot *slot)
{
    unsigned char text[64];
    slot->kind = (unsigned)stress_random(s, 16);
    slot->fill = (unsigned char)(1 + stress_random(s, 255));
    slot->p = NULL;
    slot->space = NULL;
    if (slot->kind < 10) {
        slot->bytes = 1 + (size_t)stress_random(s, (uint64_t)1 << (3 + stress_random(s, 12)));
        slot->p = kmm_alloc(slot->bytes, 0);
    } else if (slot->kind < 15) {
        slot->order = (unsigned)stress_random(s, 4);
        slot->bytes = (size_t)(MM_PAGE_SIZE << slot->order);
        slot->pa = slot->kind < 13 ? kmm_alloc_pages(slot->order)
                                   : kmm_alloc_dma(slot->bytes, MM_PAGE_SIZE, 65536, 0);
        slot->p = slot->pa == MM_PA_NONE ? NULL : kmm_at(slot->pa);
    } else if ((slot->space = kmm_space_create(0)) != NULL) {
        MM_MEMSET(text, slot->fill, sizeof text);
        s->wrong += kmm_region_alloc(slot->space, MM_VMA_DATA, STRESS_VA, 8 * MM_PAGE_SIZE, 0) != 0;
        s->wrong += !kmm_copy_out(slot->space, STRESS_VA + MM_PAGE_SIZE - 32, text, sizeof text);
    }
    if (slot->p != NULL)
        MM_MEMSET(slot->p, slot->fill, slot->bytes);
}

static void stress_give(struct stress *s, struct stress_slot *slot)
{
    unsigned char text[64];
    if (slot->p != NULL)
        s->wrong += !all_bytes(slot->p, slot->bytes, slot->fill);
    if (slot->space != NULL) {
        struct kmm_space *child = kmm_space_clone(slot->space);
        s->wrong += !kmm_copy_in(child != NULL ? child : slot->space, text,
                                 STRESS_VA + MM_PAGE_SIZE - 32, sizeof text) ||
                    !all_bytes(text, sizeof text, slot->fill);
        kmm_space_destroy(slot->space);
        if (child != NULL)
            kmm_space_destroy(child);
    } else if (slot->p == NULL) {
        return;
    } else if (slot->kind < 10) {
        s->wrong += kmm_free(slot->p) != MM_OK;
    } else if (slot->kind < 13) {
        s->wrong += kmm_free_pages(slot->pa, slot->order) != MM_OK;
    } else {
        s->wrong += kmm_free_dma(slot->pa, slot->bytes) != MM_OK;
    }
    slot->p = NULL;
    slot->space = NULL;
}

uint64_t kmm_stress(uint64_t seed, uint64_t ops)
{
    struct stress *s = kmm_alloc(sizeof *s, MM_SLAB_ZERO);
    uint64_t wrong;
    unsigned i;
    if (s == NULL)
        return 1;
    s->random = seed * 2 + 1;
    while (ops-- != 0) {
        struct stress_slot *slot = &s->slot[stress_random(s, SLOTS)];
        if (slot->p != NULL || slot->space != NULL)
            stress_give(s, slot);
        else
            stress_take(s, slot);
    }
    for (i = 0; i < SLOTS; i++)
        stress_give(s, &s->slot[i]);
    wrong = s->wrong;
    return wrong + (kmm_free(s) != MM_OK);
}

static void bench_line(const char *name, uint64_t start, uint64_t count)
{
    kmm.config.print("  bench: %s: %u ticks\n", name, (kmm.config.clock() - start) / count);
}

void kmm_bench(void)
{
    enum { N = 1000, PAGES = 64 };
    struct kmm_space *space = kmm_space_create(0);
    uint64_t start = kmm.config.clock();
    unsigned i;
    for (i = 0; i < N; i++)
        (void)kmm_free(kmm_alloc(64, 0));
    bench_line("kmm_alloc and kmm_free of 64 bytes", start, N);
    start = kmm.config.clock();
    for (i = 0; i < N; i++)
        (void)kmm_free_pages(kmm_alloc_pages(0), 0);
    bench_line("a page and back", start, N);
    if (space == NULL ||
        kmm_region_alloc(space, MM_VMA_DATA, STRESS_VA, PAGES * MM_PAGE_SIZE, 0) != 0)
        return;
    start = kmm.config.clock();
    for (i = 0; i < PAGES; i++)
        (void)kmm_fault(space, STRESS_VA + i * MM_PAGE_SIZE, MM_VMA_WRITE);
    bench_line("a page fault on untouched memory", start, PAGES);
    start = kmm.config.clock();
    kmm_space_destroy(kmm_space_clone(space));
    bench_line("fork and exit of 64 pages", start, 1);
    kmm_space_destroy(space);
}
