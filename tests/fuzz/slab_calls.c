/* Any sequence of calls of mm_slab against a plain list of what is live, with a source that fails
 * at times: contents stay, nothing overlaps, what is no live object is refused, all memory comes
 * back. */
#include "fuzz.h"
#define MM_CPU_MAX 2
unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID()   cpu_now
#define MM_SLAB_SHIFT 14
#define MM_SLAB_SLOTS 8
#define MM_SLAB_STATIC
#define MM_SLAB_IMPLEMENTATION
#include "mm_slab.h"

#define SLABS 48u
#define LIVE  128u

static struct mm_slab_heap heap;
static struct mm_slab_cache named[2];
static _Alignas(MM_SLAB_BYTES) unsigned char arena[SLABS][MM_SLAB_BYTES];
static bool used[SLABS], failing;
static uintptr_t grace;

static struct live {
    unsigned char *p, fill;
    size_t size;
    struct mm_slab_cache *cache; /* NULL: of kmalloc */
    bool moved;                  /* its class is not that of its size */
} live[LIVE];
static size_t nlive;

static void *source_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    const size_t n = (bytes + MM_SLAB_BYTES - 1) / MM_SLAB_BYTES;
    (void)ctx, (void)flags;
    for (size_t i = 0, run = 0; i < SLABS && !failing && bytes <= sizeof arena; i++) {
        const bool start = ((uintptr_t)arena[i] & (align - 1)) == 0;
        run = used[i] ? 0 : run > 0 || start ? run + 1 : 0;
        if (run != 0 && run == n) {
            memset(used + i + 1 - n, 1, n);
            return arena[i + 1 - n];
        }
    }
    return NULL;
}

static void source_free(void *ctx, void *p, size_t bytes)
{
    const size_t first = (size_t)((unsigned char *)p - arena[0]) / MM_SLAB_BYTES;
    (void)ctx;
    for (size_t i = 0; i < (bytes + MM_SLAB_BYTES - 1) / MM_SLAB_BYTES; i++) {
        fuzz_require(first + i < SLABS && used[first + i]);
        used[first + i] = false;
    }
}

static void each_cpu(void *ctx, void (*fn)(void *arg), void *arg)
{
    const unsigned mine = cpu_now;
    (void)ctx;
    for (cpu_now = 0; cpu_now < MM_CPU_MAX; cpu_now++)
        fn(arg);
    cpu_now = mine;
}

static uintptr_t grace_start(void *ctx)
{
    (void)ctx;
    return grace;
}
static bool grace_done(void *ctx, uintptr_t g)
{
    (void)ctx;
    return g < grace;
}
static void grace_wait(void *ctx)
{
    (void)ctx;
    grace++;
}

static const struct mm_slab_hooks hooks = {
    .alloc = source_alloc,
    .free = source_free,
    .each_cpu = each_cpu,
    .grace_start = grace_start,
    .grace_done = grace_done,
    .grace_wait = grace_wait,
};

static void whole(const struct live *o)
{
    for (size_t i = 0; i < o->size; i++)
        fuzz_require(o->p[i] == o->fill);
}

static void got(void *p, size_t size, size_t align, struct mm_slab_cache *cache, bool moved)
{
    static unsigned char next;
    struct live *o = &live[nlive];

    if (p == NULL)
        return;
    o->p = p;
    o->size = size;
    o->cache = cache;
    o->moved = moved;
    o->fill = ++next;
    fuzz_require(((uintptr_t)p & (align - 1)) == 0);
    for (size_t i = 0; i < nlive; i++)
        fuzz_require(live[i].p + live[i].size <= o->p || o->p + size <= live[i].p);
    fuzz_require(mm_slab_ksize(&heap, p) >= size);
    memset(p, o->fill, size);
    nlive++;
}

static void free_one(size_t i, unsigned how)
{
    const struct live o = live[i];
    enum mm_status status;

    whole(&o);
    live[i] = live[--nlive];
    if (how == 0 && o.cache != NULL)
        status = mm_slab_free(o.cache, o.p);
    else if (how == 1 && o.cache == NULL && !o.moved)
        status = mm_slab_kfree_sized(&heap, o.p, o.size);
    else if (how == 2)
        status = mm_slab_free_rcu(&heap, o.p);
    else
        status = mm_slab_kfree(&heap, o.p);
    fuzz_require(status == MM_OK);
    if (how != 2) /* what was freed last is refused in every heap */
        fuzz_require(mm_slab_kfree(&heap, o.p) == MM_ERR_INVALID);
}

/* An address that is no live object's start, nor a freed one's that may still be in an array. */
static void free_none(unsigned arg)
{
    const bool exact = (heap.flags & MM_SLAB_DEBUG_ALL) != 0;
    unsigned char *p = (unsigned char *)((uintptr_t)arena + (uintptr_t)arg * 16);
    void *start;
    size_t bytes;

    for (size_t i = 0; i < nlive; i++)
        if (live[i].p == p)
            return;
    fuzz_require(mm_slab_kfree(&heap, p + 3) != MM_OK);
    if (mm_slab_bounds(&heap, p, &start, &bytes) == MM_OK && start == p && !exact)
        return;
    fuzz_require(mm_slab_kfree(&heap, p) != MM_OK);
    fuzz_require(mm_slab_free(&named[arg & 1], p) != MM_OK);
}

static void resize(size_t i, size_t size)
{
    struct live *o = &live[i], old = *o;
    unsigned char *p;

    if (o->cache != NULL) {
        fuzz_require(mm_slab_krealloc(&heap, o->p, size, 0) == NULL);
        return;
    }
    whole(o);
    p = mm_slab_krealloc(&heap, o->p, size, 0);
    if (p == NULL)
        return;
    old.p = p;
    old.size = size < old.size ? size : old.size;
    whole(&old);
    *o = live[--nlive];
    got(p, size, 1, NULL, true);
}

static void many(size_t size, size_t n)
{
    void *p[16];
    const size_t k = mm_slab_kmalloc_bulk(&heap, size, 0, p, n);
    for (size_t i = 0; i < k; i++)
        got(p[i], size, 8, NULL, false);
}

static void few(size_t n)
{
    void *p[16];
    n = n < nlive ? n : nlive;
    for (size_t i = 0; i < n; i++) {
        whole(&live[nlive - 1]);
        p[i] = live[--nlive].p;
    }
    fuzz_require(mm_slab_kfree_bulk(&heap, p, n) == MM_OK);
}

static void care(unsigned arg)
{
    switch (arg & 7) {
    case 0:
        mm_slab_shrink(&heap);
        break;
    case 1:
        fuzz_require(mm_slab_drain(&heap, arg >> 3 & 1) == MM_OK);
        break;
    case 2:
        grace++;
        mm_slab_rcu_poll(&heap);
        break;
    case 3:
        failing = (arg & 8) != 0;
        break;
    case 4:
        mm_slab_set_quota(&heap, (size_t)(arg >> 3) * MM_SLAB_BYTES);
        break;
    case 5:
        mm_slab_cache_set_quota(&named[arg >> 3 & 1], (size_t)(arg >> 4) * MM_SLAB_BYTES);
        break;
    case 6:
        mm_slab_rcu_barrier(&heap);
        break;
    default:
        fuzz_require(mm_slab_check(&heap) == MM_OK);
    }
}

static void call(struct fuzz_input *in)
{
    const unsigned what = fuzz_byte(in), arg = fuzz_pair(in);
    const size_t size = (arg & 0x1000) ? arg & 0xfff : arg & 0xff, n = what >> 5;
    struct mm_slab_cache *cache = &named[arg & 1];

    cpu_now = (what >> 3 & 3) % 3; /* 2: no arrays */
    switch (what & 7) {
    case 0:
        if (nlive < LIVE)
            got(mm_slab_kmalloc(&heap, (arg & 0xe000) == 0xe000 ? size * 9 : size, 0), size, 8,
                NULL, (arg & 0xe000) == 0xe000);
        break;
    case 1:
        if (nlive < LIVE)
            got(mm_slab_alloc(cache, 0), cache->size, cache->align, cache, false);
        break;
    case 2:
        if (nlive < LIVE)
            got(mm_slab_kmalloc_aligned(&heap, size, (size_t)1 << (n * 2), 0), size,
                (size_t)1 << (n * 2), NULL, true);
        break;
    case 3:
        if (nlive > 0)
            free_one(arg % nlive, n);
        break;
    case 4:
        if (nlive > 0)
            resize(arg % nlive, (size_t)(arg >> 3));
        break;
    case 5:
        free_none(arg);
        break;
    case 6:
        if ((arg & 0x8000) != 0 || nlive + 16 > LIVE)
            few(n * 2);
        else
            many(size, n * 2);
        break;
    default:
        care(arg);
    }
}

static void begin(unsigned kind)
{
    struct mm_slab_cache_config c = {0};
    struct mm_slab_config config;

    memset(used, 0, sizeof used);
    failing = false;
    nlive = 0;
    cpu_now = 0;
    mm_slab_config_init(&config, &hooks);
    config.reserve = kind & 3;
    config.flags = kind & 4 ? MM_SLAB_DEBUG_ALL & (kind << 5) : 0;
    config.flags |= kind & 8 ? MM_SLAB_SHUFFLE | MM_SLAB_COLOUR : 0;
    fuzz_require(mm_slab_init(&heap, &config) == MM_OK);
    for (unsigned i = 0; i < 2; i++) {
        c.name = "named";
        c.size = i == 0 ? 40 : 700;
        c.align = i == 0 ? 0 : 64;
        c.flags = i == 0 ? 0 : MM_SLAB_TYPE_STABLE;
        fuzz_require(mm_slab_cache_init(&named[i], &heap, &c) == MM_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};

    begin(fuzz_byte(&in));
    while (in.at < in.end)
        call(&in);
    fuzz_require(mm_slab_check(&heap) == MM_OK);
    while (nlive > 0)
        free_one(nlive - 1, 3);
    fuzz_require(mm_slab_cache_destroy(&named[0], NULL) == MM_OK);
    fuzz_require(mm_slab_cache_destroy(&named[1], NULL) == MM_OK);
    fuzz_require(mm_slab_fini(&heap) == MM_OK);
    for (size_t i = 0; i < SLABS; i++)
        fuzz_require(!used[i]);
    return 0;
}
