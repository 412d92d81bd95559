/* Small programs that misuse the heap, in a table: kind x size x source. Each tells whether the
 * heap noticed: by an error of the call that did it or of a later one, or by a report. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

/* 1 byte to two large requests; there are 8 bytes behind the last that a write may hit. */
static const size_t sizes[] = {1, 8, 24, 40, 100, 128, 300, 1000, 4096, 8192, 10000, 65528};
#define SIZES (sizeof sizes / sizeof *sizes)

static struct mm_slab_cache named, foreign;
static struct mm_slab_heap other_heap;

/* Memory of both heaps, which stays readable. The last slab's worth is of neither. */
static _Alignas(65536) char arena[(16 << 20) + 65536];
static size_t arena_used;
static void *arena_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    (void)ctx, (void)flags;
    const size_t at = (arena_used + align - 1) & ~(align - 1);
    assert_true(align <= 65536 && at + bytes <= sizeof arena - 65536);
    arena_used = at + bytes;
    return arena + at;
}
static void arena_free(void *ctx, void *p, size_t bytes)
{
    (void)ctx, (void)p, (void)bytes;
}

enum kind {
    OVERFLOW_BY_1,
    OVERFLOW_OF_8,
    UNDERFLOW_BY_1,
    UNDERFLOW_OF_8,
    DOUBLE_AT_ONCE,
    DOUBLE_AFTER_ANOTHER,
    DOUBLE_AFTER_MANY,
    DOUBLE_OF_RCU,
    FREE_INSIDE_BY_1,
    FREE_INSIDE_BY_16,
    FREE_AT_END,
    WILD_FREE,
    FREE_OF_OTHER_HEAP,
    FREE_OF_OTHER_CACHE,
    WRITE_AFTER_FREE,
    WRITE_AFTER_FREE_AT_END,
    REALLOC_AFTER_FREE,
    KINDS
};

struct tally {
    unsigned noticed, programs;
};

/* Writes where a sanitizer would object. */
static MMI_SLAB_UNCHECKED void write_bytes(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile char *)p)[i] = 0x55;
}

static bool is_named; /* the program uses a named cache, not kmalloc */
static char *take(size_t size)
{
    return is_named ? mm_slab_alloc(&named, 0) : mm_slab_kmalloc(&heap, size, 0);
}
static bool give(void *p) /* was it refused? */
{
    return (is_named ? mm_slab_free(&named, p) : mm_slab_kfree(&heap, p)) != MM_OK;
}

/* The misuse itself. `p` is live, and so are its neighbours. True if a call refused. */
static bool misuse(enum kind kind, char *p, size_t size, void **between, size_t n)
{
    switch (kind) {
    case OVERFLOW_BY_1:
        write_bytes(p + size, 1);
        return give(p);
    case OVERFLOW_OF_8:
        write_bytes(p + size, 8);
        return give(p);
    case UNDERFLOW_BY_1:
        write_bytes(p - 1, 1);
        return give(p);
    case UNDERFLOW_OF_8:
        write_bytes(p - 8, 8);
        return give(p);
    case DOUBLE_AT_ONCE:
        return give(p) || give(p);
    case DOUBLE_AFTER_ANOTHER:
        n = 1; /* fall through */
    case DOUBLE_AFTER_MANY: {
        bool refused = give(p);
        for (size_t i = 0; i < n; i++) {
            refused = refused || give(between[i]);
            between[i] = NULL;
        }
        return refused || give(p);
    }
    case DOUBLE_OF_RCU:
        if (mm_slab_free_rcu(&heap, p) != MM_OK || mm_slab_free_rcu(&heap, p) != MM_OK)
            return true;
        mm_slab_rcu_barrier(&heap);
        return false;
    case FREE_INSIDE_BY_1:
        return give(p + 1);
    case FREE_INSIDE_BY_16:
        return give(p + 16);
    case FREE_AT_END:
        return give(p + size);
    case WILD_FREE:
        return give(arena + sizeof arena - 4096);
    case FREE_OF_OTHER_HEAP: {
        char *q = mm_slab_kmalloc(&other_heap, size, 0);
        const bool refused = give(q);
        if (refused)
            mm_slab_kfree(&other_heap, q);
        return refused;
    }
    case FREE_OF_OTHER_CACHE:
        return mm_slab_free(&foreign, p) != MM_OK;
    case WRITE_AFTER_FREE:
        if (give(p))
            return true;
        write_bytes(p, 8);
        return false;
    case WRITE_AFTER_FREE_AT_END:
        if (give(p))
            return true;
        write_bytes(p + size - 1, 1);
        return false;
    case REALLOC_AFTER_FREE:
        return give(p) || mm_slab_krealloc(&heap, p, size + 1, 0) == NULL;
    default:
        return false;
    }
}

/* Is there such a program? Memory of a large request is the source's when it is free, and a byte
 * before one never belongs to it. */
static bool makes_sense(enum kind kind, size_t size)
{
    const bool large = size > MM_SLAB_MAX;
    switch (kind) {
    case UNDERFLOW_BY_1:
    case UNDERFLOW_OF_8:
    case WRITE_AFTER_FREE:
    case WRITE_AFTER_FREE_AT_END:
        return !large;
    case FREE_INSIDE_BY_1:
        return size > 1;
    case FREE_INSIDE_BY_16:
        return size > 16;
    default:
        return true;
    }
}

/* A program with a heap of its own. Everything is allocated anew, freed and given back afterwards,
 * where damage may be noticed late. */
static bool program(enum kind kind, size_t size, bool of_cache)
{
    struct mm_slab_cache_config c = {0};
    void *between[20];
    bool noticed;

    heap_begin();
    MM_SLAB_UNPOISON(arena, arena_used);
    memset(arena, 0xa5, arena_used);
    arena_used = 0;
    source.hooks.alloc = arena_alloc;
    source.hooks.free = arena_free;
    source.hooks.purge = NULL;
    grace_over = grace_now;
    heap_make();
    assert_int_equal(mm_slab_init(&other_heap, &config), MM_OK);
    is_named = of_cache;
    c.name = "named";
    c.size = size <= MM_SLAB_MAX ? size : 64;
    assert_int_equal(mm_slab_cache_init(&named, &heap, &c), MM_OK);
    c.name = "foreign";
    assert_int_equal(mm_slab_cache_init(&foreign, &heap, &c), MM_OK);
    for (unsigned i = 0; i < 10; i++)
        between[i] = take(size);
    char *p = take(size);
    for (unsigned i = 10; i < 20; i++)
        between[i] = take(size);
    noticed = misuse(kind, p, size, between, 20);
    for (unsigned i = 0; i < 20; i++)
        if (between[i] != NULL)
            noticed = give(between[i]) || noticed;
    mm_slab_shrink(&heap);
    noticed = noticed || misuse_total() != 0;
    if (noticed && MM_SLAB_DEBUG >= 1)
        assert_int_not_equal(reports.count, 0); /* what is counted is told, too */
    return noticed;
}

/* Of each kind as many are noticed as this build promises. */
static void run(const struct tally expected[KINDS])
{
    struct tally all = {0, 0};
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct tally tally = {0, 0};
        for (size_t i = 0; i < SIZES; i++) {
            for (unsigned of_cache = 0; of_cache < 2; of_cache++) {
                if (!makes_sense(kind, sizes[i]) || (of_cache && sizes[i] > MM_SLAB_MAX) ||
                    (of_cache && kind == REALLOC_AFTER_FREE))
                    continue;
                tally.programs++;
                tally.noticed += program(kind, sizes[i], of_cache);
            }
        }
        if (tally.noticed != expected[kind].noticed || tally.programs != expected[kind].programs)
            fail_msg("kind %u: %u of %u noticed", kind, tally.noticed, tally.programs);
        all.noticed += tally.noticed;
        all.programs += tally.programs;
    }
    print_message("%u of %u programs noticed\n", all.noticed, all.programs);
}
