/* count.c - the hot paths under callgrind: count.py runs it and turns the dumps into instructions
 * an operation
 *
 * Every call goes through count_alloc() or count_free(), whose inclusive cost callgrind knows
 * apart. What they add themselves is what they cost with the `empty` allocator, less its own two
 * instructions. Only stretches are instrumented; between them the program runs at valgrind's plain
 * speed, so that the states are those of the benchmark: 2^21 frames. */
#include "count.h"
#include "work.h"

#include <stdio.h>
#include <string.h>
#include <valgrind/callgrind.h>

#define STRETCHES 8
#define STRETCH   4096
#define PAIR_LOOP 4096

__attribute__((noinline)) static uint32_t count_alloc(const struct calls *c, unsigned order)
{
    uint32_t frame = c->alloc(c->self, order);
    __asm__ volatile(""); /* no tail call: the callee's cost shall be in here */
    return frame;
}

__attribute__((noinline)) static void count_free(const struct calls *c, uint32_t frame,
                                                 unsigned order)
{
    c->free(c->self, frame, order);
    __asm__ volatile("");
}

/* ---- starting states ---- */

static void hold_1000(void)
{
    pool_hold(1000);
}

static void fragment_and_take(void)
{
    pool_fragment();
    while (pool.ops->alloc(pool.self, BLOCK_ORDER) != BENCH_NONE)
        continue;
}

/* ---- workloads: the same as those of the benchmark ---- */

static void instrument(int on)
{
    if (on)
        CALLGRIND_START_INSTRUMENTATION;
    else
        CALLGRIND_STOP_INSTRUMENTATION;
}

static void pairs(const struct calls *c, unsigned order)
{
    instrument(1);
    for (int i = 0; i < PAIR_LOOP; i++)
        count_free(c, count_alloc(c, order), order);
    instrument(0);
}

static void pairs0(const struct calls *c)
{
    pairs(c, 0);
}

static void pairs9(const struct calls *c)
{
    pairs(c, BLOCK_ORDER);
}

static void batches(const struct calls *c)
{
    static uint32_t batch[64];
    instrument(1);
    for (int round = 0; round < 64; round++) {
        for (int i = 0; i < 64; i++)
            batch[i] = count_alloc(c, 0);
        for (int i = 0; i < 64; i++)
            count_free(c, batch[i], 0);
    }
    instrument(0);
}

/* Whether operation i of n lies in a stretch: the first STRETCH of each of STRETCHES equal parts.
 * */
static int in_stretch(uint32_t i, uint32_t n)
{
    return i % (n / STRETCHES) < STRETCH;
}

static void begin_or_end_stretch(uint32_t i, uint32_t n)
{
    if (i % (n / STRETCHES) == 0)
        instrument(1);
    else if (i % (n / STRETCHES) == STRETCH)
        instrument(0);
}

static void alloc_all(const struct calls *c)
{
    uint32_t *held = pool.worker[0].held;
    for (uint32_t i = 0; i < pool.nframes; i++) {
        begin_or_end_stretch(i, pool.nframes);
        held[i] = in_stretch(i, pool.nframes) ? count_alloc(c, 0) : c->alloc(c->self, 0);
    }
}

static void free_all(const struct calls *c, const uint32_t *order)
{
    for (uint32_t i = 0; i < pool.nframes; i++) {
        begin_or_end_stretch(i, pool.nframes);
        if (in_stretch(i, pool.nframes))
            count_free(c, order[i], 0);
        else
            c->free(c->self, order[i], 0);
    }
}

static void bulk(const struct calls *c)
{
    alloc_all(c);
    free_all(c, pool.worker[0].held);
}

static void random_order(const struct calls *c)
{
    free_all(c, bench_random_order);
    alloc_all(c);
}

static void mix(const struct calls *c)
{
    struct worker *w = &pool.worker[0];
    struct band band = band_around(pool.nframes / 2);
    for (uint32_t i = 0; i < pool.nframes / 2; i++) {
        uint64_t random = next_random(&w->rng);
        begin_or_end_stretch(i, pool.nframes / 2);
        if (coin_of(random) ? w->nheld > band.low : w->nheld >= band.high)
            count_free(c, pick_held(w, random), 0);
        else
            w->held[w->nheld++] = count_alloc(c, 0);
    }
}

static void tide(const struct calls *c)
{
    static uint32_t wave[STRETCH];
    struct worker *w = &pool.worker[0];
    for (int round = 0; round < STRETCHES; round++) {
        for (int i = 0; i < STRETCH; i++)
            wave[i] = pick_held(w, next_random(&w->rng));
        instrument(1);
        for (int i = 0; i < STRETCH; i++)
            count_free(c, wave[i], 0);
        for (int i = 0; i < STRETCH; i++)
            wave[i] = count_alloc(c, 0);
        instrument(0);
        memcpy(w->held + w->nheld, wave, sizeof wave);
        w->nheld += STRETCH;
    }
}

static void fail(const struct calls *c, unsigned order)
{
    instrument(1);
    for (int i = 0; i < 64; i++)
        count_alloc(c, order);
    instrument(0);
}

static void fail0(const struct calls *c)
{
    fail(c, 0);
}

static void fail9(const struct calls *c)
{
    fail(c, BLOCK_ORDER);
}

static const struct count_row {
    const char *name;
    void (*prepare)(void);
    void (*run)(const struct calls *c);
    unsigned max_order;
} count_rows[] = {
    {"pair0", hold_1000, pairs0, 0},
    {"pair0half", pool_hold_half, pairs0, 0},
    {"batch64", NULL, batches, 0},
    {"bulk0", NULL, bulk, 0},
    {"rnd0", pool_hold_all, random_order, 0},
    {"mix0", pool_hold_half, mix, 0},
    {"tide0", pool_hold_half, tide, 0},
    {"full.fail", pool_hold_all, fail0, 0},
    {"pair9", NULL, pairs9, BLOCK_ORDER},
    {"frag9.fail", fragment_and_take, fail9, BLOCK_ORDER},
};

/* One dump for each cell; its name is the reason of the dump. */
static void count_cell(const struct count_row *row, const struct bench_ops *ops)
{
    char name[64];
    pool_create(ops, 2);
    if (row->prepare != NULL && !ops->ideal)
        row->prepare();
    struct calls c = pool_calls();
    row->run(&c);
    snprintf(name, sizeof name, "%s/%s", row->name, ops->name);
    CALLGRIND_DUMP_STATS_AT(name);
    pool_destroy();
}

static const struct bench_ops *allocator(const char *name)
{
    for (int i = 0; bench_allocators[i] != NULL; i++)
        if (strcmp(bench_allocators[i]->name, name) == 0)
            return bench_allocators[i];
    return NULL;
}

static void list_allocators(void)
{
    for (int i = 0; bench_allocators[i] != NULL; i++)
        puts(bench_allocators[i]->name);
    puts("pagetable");
    puts("vma");
}

/* count --list, or count NAME... under callgrind */
int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list_allocators();
        return 0;
    }
    bench_driver_init();
    count_cell(&count_rows[0], allocator("empty")); /* what the counting itself costs */
    for (int i = 1; i < argc; i++) {
        const struct bench_ops *ops = allocator(argv[i]);
        if (strcmp(argv[i], "pagetable") == 0) {
            count_pagetable();
            continue;
        }
        if (strcmp(argv[i], "vma") == 0) {
            count_vma();
            continue;
        }
        if (ops == NULL) {
            fprintf(stderr, "count: no allocator is called %s\n", argv[i]);
            return 1;
        }
        for (size_t r = 0; r < sizeof count_rows / sizeof count_rows[0]; r++)
            if (count_rows[r].max_order <= ops->max_order)
                count_cell(&count_rows[r], ops);
    }
    return 0;
}
