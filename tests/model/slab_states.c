/* Every state that a cache of a few objects can reach, and every call from each of them, valid and
 * invalid, against a plain model: which objects a slab has free, what each CPU's two arrays hold
 * and in which order, which slabs stand in which list. Without arrays the number of states is a sum
 * that can be written down.
 *
 * The memory for batches is refused, so that the depot stays empty. */
#ifndef STATES_SHIFT
#define STATES_SHIFT 15 /* slabs of 32 KiB, three objects of 8 KiB each, arrays of four */
#define STATES_SIZE  8192
#define STATES_SLOTS 4
#define STATES_SLABS 2
#define STATES_CPUS  1
#endif
#define MM_SLAB_SHIFT  STATES_SHIFT
#define MM_SLAB_SLOTS  8
#define MM_SLAB_HARDEN 1
#define MM_SLAB_DEBUG  0
#define SLAB_CPU_NOW   cpu_now
#include "slab_test.h"

#define PER_SLAB 3u
#define OBJECTS  (PER_SLAB * STATES_SLABS)
#define NOWHERE  MM_CPU_MAX /* a CPU without arrays */
#define ALL_FREE ((1u << PER_SLAB) - 1)

/* ---- the model ------------------------------------------------------------------------------- */

/* Objects are numbered by the place of their slab; a slab is absent if its place is in no list. */
struct stack {
    uint8_t n, at[8]; /* the first is next */
};
struct model {
    uint8_t live, free[STATES_SLABS]; /* a bit for each object */
    struct stack partial, full;       /* places of slabs */
    struct stack out[STATES_CPUS], in[STATES_CPUS];
};

static void insert(struct stack *s, unsigned i, unsigned what)
{
    memmove(s->at + i + 1, s->at + i, s->n++ - i);
    s->at[i] = (uint8_t)what;
}

static unsigned take_out(struct stack *s, unsigned i)
{
    const unsigned what = s->at[i];
    memmove(s->at + i, s->at + i + 1, --s->n - i);
    s->at[s->n] = 0;
    return what;
}

static void drop(struct stack *s, unsigned what)
{
    unsigned i = 0;
    while (s->at[i] != what)
        i++;
    take_out(s, i);
}

static bool has(const struct stack *s, unsigned what)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->at[i] == what)
            return true;
    return false;
}

static void model_put_back(struct model *m, unsigned object)
{
    const unsigned s = object / PER_SLAB;
    m->free[s] |= (uint8_t)(1u << object % PER_SLAB);
    if (has(&m->full, s)) {
        drop(&m->full, s);
        insert(&m->partial, 0, s);
    }
    if (m->free[s] == ALL_FREE) {
        drop(&m->partial, s);
        m->free[s] = 0;
    }
}

/* The lowest free object of the first slab that has one; OBJECTS if there is none. */
static unsigned model_take(struct model *m)
{
    unsigned i = 0, s;
    if (m->partial.n == 0)
        return OBJECTS;
    s = m->partial.at[0];
    while (!(m->free[s] >> i & 1))
        i++;
    m->free[s] &= (uint8_t) ~(1u << i);
    if (m->free[s] == 0)
        insert(&m->full, 0, take_out(&m->partial, 0));
    return s * PER_SLAB + i;
}

static unsigned model_grow(struct model *m)
{
    for (unsigned s = 0; s < STATES_SLABS; s++) {
        if (!has(&m->partial, s) && !has(&m->full, s)) {
            m->free[s] = ALL_FREE & ~1u;
            insert(&m->partial, m->partial.n, s);
            return s * PER_SLAB;
        }
    }
    return OBJECTS;
}

static void model_unload(struct model *m, unsigned cpu)
{
    while (m->in[cpu].n > 0)
        model_put_back(m, take_out(&m->in[cpu], 0));
    while (m->out[cpu].n > 0)
        model_put_back(m, take_out(&m->out[cpu], 0));
}

/* What was freed last comes out first; below half an array of it more comes from the slabs. */
static void model_refill(struct model *m, unsigned cpu)
{
    struct stack *out = &m->out[cpu];
    const bool more = m->in[cpu].n == 0 || m->in[cpu].n < STATES_SLOTS / 2;
    while (m->in[cpu].n > 0)
        insert(out, out->n, take_out(&m->in[cpu], 0));
    while (more && out->n < STATES_SLOTS) {
        const unsigned object = model_take(m);
        if (object == OBJECTS)
            return;
        insert(out, out->n, object);
    }
}

static unsigned model_try(struct model *m, unsigned cpu)
{
    if (cpu == NOWHERE)
        return model_take(m);
    if (m->out[cpu].n == 0)
        model_refill(m, cpu);
    return m->out[cpu].n > 0 ? take_out(&m->out[cpu], 0) : OBJECTS;
}

/* An object, or OBJECTS. Before it fails, what all CPUs' arrays hold goes to the slabs. */
static unsigned model_alloc(struct model *m, unsigned cpu)
{
    unsigned object = model_try(m, cpu);
    if (object == OBJECTS)
        object = model_grow(m);
    if (object == OBJECTS) {
        for (unsigned c = 0; c < STATES_CPUS; c++)
            model_unload(m, c);
        object = model_try(m, cpu);
    }
    if (object == OBJECTS)
        object = model_grow(m);
    if (object != OBJECTS)
        m->live |= (uint8_t)(1u << object);
    return object;
}

static void model_free(struct model *m, unsigned cpu, unsigned object)
{
    struct stack *in, *out;
    unsigned keep;

    m->live &= (uint8_t) ~(1u << object);
    if (cpu == NOWHERE) {
        model_put_back(m, object);
        return;
    }
    in = &m->in[cpu];
    out = &m->out[cpu];
    insert(in, 0, object);
    if (in->n < STATES_SLOTS)
        return;
    keep = out->n == 0 || out->n >= STATES_SLOTS / 2 ? STATES_SLOTS : STATES_SLOTS / 2;
    while (keep == STATES_SLOTS && out->n > 0)
        model_put_back(m, take_out(out, 0));
    for (unsigned i = keep; i > 0; i--)
        insert(out, 0, take_out(in, i - 1));
    while (in->n > 0)
        model_put_back(m, take_out(in, 0));
}

/* ---- the cache ------------------------------------------------------------------------------- */

static struct mm_slab_cache cache, other;
static _Alignas(MM_SLAB_BYTES) char arena[STATES_SLABS + 2][MM_SLAB_BYTES];
static bool used[STATES_SLABS + 2];
static bool ready;

/* The lowest place; the two above are for the arrays and for another cache's object. */
static void *place_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    (void)ctx, (void)align;
    if (bytes != MM_SLAB_BYTES || (ready && (flags & MM_SLAB_NOWAIT)))
        return NULL;
    for (unsigned i = 0; i < STATES_SLABS + 2; i++) {
        const unsigned at = ready ? i : STATES_SLABS + 1 - i;
        if (!used[at]) {
            used[at] = true;
            return arena[at];
        }
    }
    return NULL;
}

static void place_free(void *ctx, void *ptr, size_t bytes)
{
    (void)ctx, (void)bytes;
    used[(size_t)((char *)ptr - arena[0]) / MM_SLAB_BYTES] = false;
}

static void every_cpu(void *ctx, void (*fn)(void *arg), void *arg)
{
    const unsigned mine = cpu_now;
    (void)ctx;
    for (cpu_now = 0; cpu_now < STATES_CPUS; cpu_now++)
        fn(arg);
    cpu_now = mine;
}

static void *foreign;

/* Arrays for all CPUs, and no objects. */
static void begin(void)
{
    static struct mm_slab_hooks hooks;
    struct mm_slab_cache_config c = {0};

    ready = false;
    hooks.alloc = place_alloc;
    hooks.free = place_free;
    hooks.each_cpu = every_cpu;
    mm_slab_config_init(&config, &hooks);
    config.reserve = 0;
    cpu_now = NOWHERE;
    assert_int_equal(mm_slab_init(&heap, &config), MM_OK);
    c.name = "few";
    c.size = STATES_SIZE;
    c.quota = STATES_SLABS * MM_SLAB_BYTES;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
    assert_int_equal(cache.count, PER_SLAB);
    assert_int_equal(cache.slots, STATES_SLOTS);
    c.name = "other";
    c.size = 100;
    assert_int_equal(mm_slab_cache_init(&other, &heap, &c), MM_OK);
    assert_non_null(foreign = mm_slab_alloc(&other, 0));
    cpu_now = 0; /* a slab of arrays */
    assert_int_equal(mm_slab_free(&other, mm_slab_alloc(&other, 0)), MM_OK);
    ready = true;
    for (cpu_now = 0; cpu_now < STATES_CPUS; cpu_now++) {
        assert_int_equal(mm_slab_free(&cache, mm_slab_alloc(&cache, 0)), MM_OK);
        assert_int_equal(mm_slab_drain(&heap, cpu_now), MM_OK);
        assert_non_null(cache.cpu[cpu_now]);
    }
}

static char *address(unsigned object)
{
    return arena[object / PER_SLAB] + cache.first + object % PER_SLAB * cache.stride;
}

static unsigned number(const void *p)
{
    for (unsigned i = 0; i < OBJECTS; i++)
        if (address(i) == p)
            return i;
    return OBJECTS;
}

static void read_list(struct stack *to, const struct mmi_slab *s)
{
    for (; s != NULL; s = s->next)
        insert(to, to->n, (unsigned)((size_t)((const char *)s - arena[0]) / MM_SLAB_BYTES));
}

/* The cache's state in the model's terms. */
static struct model look(void)
{
    struct model m;
    memset(&m, 0, sizeof m);
    read_list(&m.partial, cache.partial.first);
    read_list(&m.full, cache.full.first);
    m.live = (uint8_t)((1u << OBJECTS) - 1);
    for (unsigned s = 0; s < STATES_SLABS; s++) {
        const bool present = has(&m.partial, s) || has(&m.full, s);
        if (present)
            m.free[s] = (uint8_t)*mmi_slab_bits((struct mmi_slab *)(void *)arena[s]);
        m.live &= (uint8_t) ~((present ? m.free[s] : ALL_FREE) << s * PER_SLAB);
    }
    for (unsigned c = 0; c < STATES_CPUS; c++) {
        const uintptr_t *l = cache.cpu[c];
        for (uintptr_t i = mmi_slab_ready(l); i > 0; i--)
            insert(&m.out[c], m.out[c].n, number((void *)*(l + MMI_SLAB_END - i)));
        for (uintptr_t i = mmi_slab_room(l); i < STATES_SLOTS; i++)
            insert(&m.in[c], m.in[c].n, number((void *)l[i]));
        for (unsigned i = 0; i < m.out[c].n; i++)
            m.live &= (uint8_t) ~(1u << m.out[c].at[i]);
        for (unsigned i = 0; i < m.in[c].n; i++)
            m.live &= (uint8_t) ~(1u << m.in[c].at[i]);
    }
    return m;
}

/* Everything back: the state at the start. */
static void reset(void)
{
    const struct model m = look();
    cpu_now = NOWHERE;
    for (unsigned i = 0; i < OBJECTS; i++)
        if (m.live >> i & 1)
            assert_int_equal(mm_slab_free(&cache, address(i)), MM_OK);
    for (unsigned c = 0; c < STATES_CPUS; c++)
        assert_int_equal(mm_slab_drain(&heap, c), MM_OK);
    for (unsigned s = 0; s < STATES_SLABS; s++)
        assert_false(used[s]);
}

/* ---- calls ----------------------------------------------------------------------------------- */

enum { ALLOC, ALLOC_TWO, DRAIN, SHRINK, FREE_TWO, FREE /* of object 0, and so on */ };
#define CALLS (FREE + OBJECTS)

static unsigned two_live(const struct model *m, void **p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < OBJECTS && n < 2; i++)
        if (m->live >> i & 1)
            p[n++] = address(i);
    return n;
}

/* One valid call in the model and in the cache; false if the state has no such call. */
static bool call(struct model *m, unsigned cpu, unsigned what)
{
    void *p[2];
    unsigned n;

    cpu_now = cpu;
    switch (what) {
    case ALLOC:
        n = model_alloc(m, cpu);
        assert_ptr_equal(mm_slab_alloc(&cache, 0), n < OBJECTS ? address(n) : NULL);
        return true;
    case ALLOC_TWO:
        n = (unsigned)mm_slab_alloc_bulk(&cache, 0, p, 2);
        for (unsigned i = 0; i < 2; i++) {
            const unsigned object = model_alloc(m, cpu);
            assert_int_equal(object < OBJECTS, i < n);
            if (i < n)
                assert_ptr_equal(p[i], address(object));
        }
        return true;
    case DRAIN:
        if (cpu == NOWHERE)
            return false;
        model_unload(m, cpu);
        assert_int_equal(mm_slab_drain(&heap, cpu), MM_OK);
        return true;
    case SHRINK:
        for (unsigned c = 0; c < STATES_CPUS; c++)
            model_unload(m, c);
        mm_slab_cache_shrink(&cache);
        return true;
    case FREE_TWO:
        n = two_live(m, p);
        for (unsigned i = 0; i < n; i++)
            model_free(m, cpu, number(p[i]));
        assert_int_equal(mm_slab_free_bulk(&cache, p, n), MM_OK);
        return true;
    default:
        if (!(m->live >> (what - FREE) & 1))
            return false;
        model_free(m, cpu, what - FREE);
        if (what & 1)
            assert_int_equal(mm_slab_free(&cache, address(what - FREE)), MM_OK);
        else
            assert_int_equal(mm_slab_kfree(&heap, address(what - FREE)), MM_OK);
        assert_int_equal(mm_slab_kfree(&heap, address(what - FREE)), MM_ERR_INVALID);
        return true;
    }
}

static void assert_state(const struct model *m)
{
    const struct model now = look();
    assert_memory_equal(&now, m, sizeof now);
    assert_int_equal(mm_slab_cache_check(&cache), MM_OK);
}

static void refused(void *p, enum mm_status status)
{
    assert_int_equal(mm_slab_free(&cache, p), status);
    assert_int_equal(mm_slab_kfree(&heap, p), status);
}

static void invalid_frees_of(const struct model *m, unsigned cpu, unsigned object)
{
    const unsigned s = object / PER_SLAB;
    const bool present = has(&m->partial, s) || has(&m->full, s);
    const bool top = cpu != NOWHERE && m->in[cpu].n > 0 && m->in[cpu].at[0] == object;
    const bool live = m->live >> object & 1;
    char *p = address(object);
    void *start = NULL;
    size_t bytes = 0;

    refused(p + 1, present ? MM_ERR_ALIGN : MM_ERR_INVALID);
    refused(p + 64, present ? MM_ERR_ALIGN : MM_ERR_INVALID);
    refused(p + STATES_SIZE - 16, present ? MM_ERR_ALIGN : MM_ERR_INVALID);
    if (!present || top || (m->free[s] >> object % PER_SLAB & 1)) {
        refused(p, MM_ERR_INVALID);
        assert_int_equal(mm_slab_kfree_sized(&heap, p, STATES_SIZE), MM_ERR_INVALID);
    }
    if (live) {
        assert_int_equal(mm_slab_free(&other, p), MM_ERR_INVALID);
        assert_int_equal(mm_slab_ksize(&heap, p), STATES_SIZE);
        assert_int_equal(mm_slab_bounds(&heap, p + 9, &start, &bytes), MM_OK);
        assert_true(start == p && bytes == STATES_SIZE);
    } else if (!present || (m->free[s] >> object % PER_SLAB & 1)) {
        assert_int_equal(mm_slab_ksize(&heap, p), 0);
        assert_int_not_equal(mm_slab_bounds(&heap, p, &start, &bytes), MM_OK);
    }
}

/* What is refused, or only asks; nothing changes. */
static void invalid_calls(const struct model *m, unsigned cpu)
{
    cpu_now = cpu;
    for (unsigned i = 0; i < OBJECTS; i++)
        invalid_frees_of(m, cpu, i);
    for (unsigned s = 0; s < STATES_SLABS; s++) {
        refused(arena[s], MM_ERR_INVALID);
        refused(arena[s] + 64, MM_ERR_INVALID);
        refused(arena[s] + cache.first + PER_SLAB * cache.stride, MM_ERR_INVALID);
    }
    refused(&cache, MM_ERR_INVALID);
    assert_int_equal(mm_slab_free(&cache, foreign), MM_ERR_INVALID);
    assert_int_equal(mm_slab_drain(&heap, MM_CPU_MAX), MM_ERR_INVALID);
    assert_int_equal(mm_slab_free_rcu(&heap, address(0)), MM_ERR_INVALID);
    refused(NULL, MM_OK);
    if (m->live == 0)
        return;
    struct mm_slab_cache_stats stats = cache_stats(&cache);
    assert_int_equal(stats.active, mm_popcount(m->live));
}

/* ---- the search ------------------------------------------------------------------------------ */

#define STATES_MAX (1u << 18)
struct node {
    struct model m;
    uint32_t parent, next; /* of the same hash */
    uint8_t cpu, what;     /* the call that led here */
};
static struct node *node;
static uint32_t nodes, bucket[STATES_MAX];

static uint32_t hash(const struct model *m)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *m; i++)
        h = (h ^ ((const uint8_t *)m)[i]) * 16777619u;
    return h % STATES_MAX;
}

static void meet(const struct model *m, uint32_t parent, unsigned cpu, unsigned what)
{
    const uint32_t h = hash(m);
    for (uint32_t i = bucket[h]; i != 0; i = node[i].next)
        if (memcmp(&node[i].m, m, sizeof *m) == 0)
            return;
    assert_true(nodes < STATES_MAX - 1);
    node[++nodes] = (struct node){*m, parent, bucket[h], (uint8_t)cpu, (uint8_t)what};
    bucket[h] = nodes;
}

/* From the start to state i by the calls that were found. */
static void go_to(uint32_t i)
{
    uint32_t path[64], n = 0;
    struct model m;

    reset();
    memset(&m, 0, sizeof m);
    for (; node[i].parent != 0; i = node[i].parent)
        path[n++] = i;
    while (n-- > 0)
        assert_true(call(&m, node[path[n]].cpu, node[path[n]].what));
}

/* All states that calls on CPUs from `first` on can reach. */
static uint32_t search(unsigned first)
{
    const unsigned cpus[] = {0, STATES_CPUS == 2 ? 1 : 0, NOWHERE};
    struct model m;

    nodes = 0;
    memset(bucket, 0, sizeof bucket);
    node = malloc(STATES_MAX * sizeof *node);
    memset(&m, 0, sizeof m);
    meet(&m, 0, 0, 0);
    begin();
    for (uint32_t i = 1; i <= nodes; i++) {
        go_to(i);
        assert_state(&node[i].m);
        for (unsigned c = first; c < 3; c++)
            invalid_calls(&node[i].m, cpus[c]);
        assert_state(&node[i].m);
        for (unsigned c = first; c < 3; c++) {
            for (unsigned what = 0; what < CALLS; what++) {
                m = node[i].m;
                if (what >= FREE && !(m.live >> (what - FREE) & 1))
                    continue;
                go_to(i);
                if (!call(&m, cpus[c], what))
                    continue;
                assert_state(&m);
                meet(&m, i, cpus[c], what);
            }
        }
    }
    reset();
    assert_int_equal(mm_slab_free(&other, foreign), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&other, NULL), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    assert_int_equal(mm_slab_fini(&heap), MM_OK);
    free(node);
    return nodes;
}

static uint32_t power(uint32_t base, unsigned n)
{
    return n == 0 ? 1 : base * power(base, n - 1);
}

static uint32_t factorial(unsigned n)
{
    return n == 0 ? 1 : n * factorial(n - 1);
}

/* Each slab is absent, full, or partial in 2^n - 2 ways; the slabs of a list stand in any order. */
static void without_arrays_every_subset_of_objects_may_be_live(void **state)
{
    uint32_t expected = 0;
    (void)state;
    for (unsigned partial = 0; partial <= STATES_SLABS; partial++)
        for (unsigned full = 0; partial + full <= STATES_SLABS; full++)
            expected += factorial(STATES_SLABS) / factorial(STATES_SLABS - partial - full) *
                        power(ALL_FREE - 1, partial);
    assert_int_equal(search(2), expected);
}

static void with_arrays_every_state_is_as_in_the_model(void **state)
{
    (void)state;
    print_message("# %u states\n", search(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_arrays_every_subset_of_objects_may_be_live),
        cmocka_unit_test(with_arrays_every_state_is_as_in_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
