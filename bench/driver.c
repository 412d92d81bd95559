/* driver.c - see driver.h */
#include "driver.h"

#include "shadow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE       (2u << 20)
#define META_BYTES (192u << 20)

struct pool pool;
bool bench_verify;
const uint32_t *bench_random_order;
__thread unsigned bench_cpu;

static uint32_t nframes = 1u << 21;
uint64_t *bench_addresses;
static uint32_t *held_area; /* nframes entries, divided among the workers */
static uint8_t *held_map;   /* scratch for counting, one byte a frame */
static char *meta_area;
static size_t meta_used;

uint32_t bench_nframes(void)
{
    return nframes;
}

/* Present, zeroed memory in large pages where the system has them, as a kernel maps its own.
 * `offset` is where it starts in its page: arrays that are walked in step must not lie at equal
 * offsets, for a processor takes a load for dependent on an earlier store whose address has the
 * same low twelve bits. */
static void *present_memory(size_t bytes, size_t offset)
{
    bytes = (bytes + offset + HUGE - 1) & ~(size_t)(HUGE - 1);
    char *p = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("bench: mmap");
        exit(1);
    }
    p += -(uintptr_t)p & (HUGE - 1);
    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p + offset;
}

void *bench_meta(size_t bytes)
{
    size_t rounded = (bytes + 4095) & ~(size_t)4095;
    char *p = meta_area + meta_used;
    if (rounded > META_BYTES - meta_used) {
        fprintf(stderr, "bench: %s asks for more than %u bytes of metadata\n", pool.ops->name,
                META_BYTES);
        exit(1);
    }
    meta_used += rounded;
    return p;
}

size_t bench_meta_used(void)
{
    return meta_used;
}

/* Fisher and Yates, with a fixed seed: every allocator and every run sees the same order. */
static const uint32_t *random_order(uint32_t n)
{
    uint32_t *order = present_memory(n * sizeof *order, 2624);
    uint64_t rng = 42;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = below(next_random(&rng), i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    return order;
}

static void read_environment(void)
{
    const char *frames = getenv("BENCH_FRAMES");
    const char *verify = getenv("BENCH_VERIFY");
    bench_verify = verify != NULL && strcmp(verify, "0") != 0 && *verify != 0;
    if (frames != NULL && *frames != 0)
        nframes = (uint32_t)strtoul(frames, NULL, 0);
    if (nframes < 1u << 16 || nframes > 1u << 21 || (nframes & (nframes - 1)) != 0) {
        fprintf(stderr, "bench: BENCH_FRAMES must be a power of two from 2^16 to 2^21\n");
        exit(1);
    }
}

void bench_driver_init(void)
{
    read_environment();
    bench_random_order = random_order(nframes);
    held_area = present_memory(nframes * sizeof *held_area, 1344);
    held_map = present_memory(nframes, 3456);
    bench_addresses = present_memory(nframes * sizeof *bench_addresses, 2176);
    meta_area = present_memory(META_BYTES, 0);
}

void pool_create(const struct bench_ops *ops, unsigned ncpus)
{
    meta_used = 0;
    bench_cpu = 0;
    memset(&pool, 0, sizeof pool);
    for (unsigned i = 0; i < BENCH_THREADS_MAX; i++) {
        pool.worker[i].held = held_area + nframes / BENCH_THREADS_MAX * i;
        pool.worker[i].rng = 1000003u * (i + 1);
    }
    pool.nframes = nframes;
    pool.ops = ops;
    pool.self = ops->create(nframes, ncpus);
    if (pool.self == NULL) {
        fprintf(stderr, "bench: %s cannot make a pool\n", ops->name);
        exit(1);
    }
    if (bench_verify && !ops->ideal) {
        pool.self = shadow_create(ops, pool.self, nframes);
        pool.ops = shadow_ops(ops);
    }
}

void pool_destroy(void)
{
    const char *shadow_failed = shadow_error();
    if (shadow_failed != NULL) {
        fprintf(stderr, "bench: %s: %s\n", pool.ops->name, shadow_failed);
        exit(1);
    }
    if (pool.ops->destroy != NULL)
        pool.ops->destroy(pool.self);
}

void pool_hold(uint32_t n)
{
    struct worker *w = &pool.worker[0];
    for (uint32_t i = 0; i < n; i++)
        w->held[w->nheld++] = pool.ops->alloc(pool.self, 0);
    pool_check_held(w);
}

void pool_hold_half(void)
{
    pool_hold(pool.nframes / 2);
}

void pool_hold_all(void)
{
    pool_hold(pool.nframes);
}

/* All frames are held here, whatever the order in which they were handed out: so the random half is
 * the same for every allocator. */
void pool_worst_start(void)
{
    struct worker *w = &pool.worker[0];
    uint32_t half = pool.nframes / 2;
    pool_hold_all();
    for (uint32_t i = 0; i < half; i++)
        pool.ops->free(pool.self, bench_random_order[i], 0);
    memcpy(w->held, bench_random_order + half, half * sizeof *w->held);
    w->nheld = half;
}

void pool_fragment(void)
{
    struct worker *w = &pool.worker[0];
    pool_hold_all();
    w->nheld = 0;
    for (uint32_t i = 0; i < pool.nframes; i++) {
        uint32_t frame = bench_random_order[i];
        bool whole = frame / BLOCK_FRAMES % FRAG_PERIOD == 0;
        if (whole ||
            i % 2 == 0) /* the order is random, so its every second frame is a random half */
            pool.ops->free(pool.self, frame, 0);
        else
            w->held[w->nheld++] = frame;
    }
}

uint32_t pool_whole_blocks(void)
{
    const struct worker *w = &pool.worker[0];
    uint32_t whole = 0;
    memset(held_map, 0, pool.nframes / BLOCK_FRAMES);
    for (uint32_t i = 0; i < w->nheld; i++)
        held_map[w->held[i] / BLOCK_FRAMES] = 1;
    for (uint32_t b = 0; b < pool.nframes / BLOCK_FRAMES; b++)
        whole += held_map[b] == 0;
    return whole;
}

uint32_t pool_count_blocks(void)
{
    uint32_t *blocks = pool.worker[0].held + pool.worker[0].nheld;
    uint32_t n = 0;
    for (;;) {
        uint32_t frame = pool.ops->alloc(pool.self, BLOCK_ORDER);
        if (frame == BENCH_NONE)
            break;
        blocks[n++] = frame;
    }
    for (uint32_t i = 0; i < n; i++)
        pool.ops->free(pool.self, blocks[i], BLOCK_ORDER);
    return n;
}

void *bench_heap_memory(const struct bench_heap_ops *ops)
{
    size_t bytes = 32u << 20;
    meta_used = bytes; /* what the heap asks for beyond its memory comes after it */
    return ops->create(meta_area, bytes);
}

void pool_check_held(const struct worker *w)
{
    for (uint32_t i = 0; i < w->nheld; i++)
        if (w->held[i] == BENCH_NONE)
            pool.failed = "an allocation failed that must not";
}
