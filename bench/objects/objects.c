/* objects.c - workloads of small objects, built once for each allocator
 *
 * OBJ_ADAPTER names the adapter (adapt.h). Every object's first word is written after the
 * allocation and read before the free. BENCH_FILTER, BENCH_REPS as in main.c; BENCH_OPS=N divides
 * the operations by N, for a quick look. */
#include OBJ_ADAPTER
#include "../gbench.h"

#include <inttypes.h>
#include <regex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#define SIZES 4096
#define LIVE  100000
#define RING  1000
#define MAIL  256
#define BOXES 16

static uint16_t sizes[SIZES];
static uint16_t order[RING];
static const char *broken; /* what went wrong */

static uint64_t next_random(uint64_t *state) /* xorshift64: Marsaglia, 2003 */
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* Sizes as kernels and programs ask for them. */
static void make_sizes(void)
{
    static const struct {
        unsigned percent, low, high;
    } share[] = {{10, 7, 16},   {22, 17, 32},   {26, 33, 64},    {18, 65, 128},  {12, 129, 256},
                 {5, 257, 512}, {4, 513, 1024}, {2, 1025, 2048}, {1, 2049, 4096}};
    uint64_t rng = 88172645463325252u;
    for (unsigned i = 0; i < SIZES; i++) {
        unsigned at = (unsigned)(next_random(&rng) % 100), k = 0;
        while (at >= share[k].percent)
            at -= share[k++].percent;
        sizes[i] =
            (uint16_t)(share[k].low + next_random(&rng) % (share[k].high - share[k].low + 1));
    }
    for (unsigned i = 0; i < RING; i++)
        order[i] = (uint16_t)i;
    for (unsigned i = RING; i > 1; i--) {
        const unsigned j = (unsigned)(next_random(&rng) % i);
        const uint16_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

/* A program does something between its calls: no allocator's state stays in registers. */
#define CALLER_GOES_ON() __asm__ volatile("" : : : "memory")

static inline void *take(size_t size, uintptr_t mark)
{
    uintptr_t *p = obj_alloc(size);
    *(volatile uintptr_t *)p = mark;
    CALLER_GOES_ON();
    return p;
}

static inline void give(void *p, size_t size)
{
    (void)*(volatile uintptr_t *)p;
    obj_free(p, size);
    CALLER_GOES_ON();
}

/* ---- one thread ---- */

static void pair64(int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        give(take(64, (uintptr_t)i), 64);
}

static void pairmix(int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const size_t size = sizes[i % SIZES];
        give(take(size, (uintptr_t)i), size);
    }
}

static void *ring[RING];

static void fill_ring(void)
{
    for (unsigned i = 0; i < RING; i++)
        ring[i] = take(64, i);
}

static void lifo(int64_t n)
{
    for (; n > 0; n -= RING) {
        fill_ring();
        for (unsigned i = RING; i-- > 0;)
            give(ring[i], 64);
    }
}

static void fifo(int64_t n)
{
    for (; n > 0; n -= RING) {
        fill_ring();
        for (unsigned i = 0; i < RING; i++)
            give(ring[i], 64);
    }
}

static void randomly(int64_t n)
{
    for (; n > 0; n -= RING) {
        fill_ring();
        for (unsigned i = 0; i < RING; i++)
            give(ring[order[i]], 64);
    }
}

/* Slots for the mixed rows, for each thread. */
struct slots {
    void *p[LIVE];
    uint16_t size[LIVE];
    uint64_t rng;
};
static struct slots slots[2];

static void fill_slots(struct slots *s, unsigned live)
{
    s->rng = 0x2545f4914f6cdd1du + (uint64_t)(s - slots);
    for (unsigned i = 0; i < live; i++) {
        s->size[i] = sizes[i % SIZES];
        s->p[i] = take(s->size[i], i);
    }
}

static void empty_slots(struct slots *s, unsigned live)
{
    for (unsigned i = 0; i < live; i++)
        if (s->p[i] != NULL)
            give(s->p[i], s->size[i]);
}

static inline void churn(struct slots *s, unsigned live, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint64_t r = next_random(&s->rng);
        const unsigned at = (unsigned)((uint32_t)r * (uint64_t)live >> 32);
        const uint16_t size = sizes[r >> 32 & (SIZES - 1)];
        give(s->p[at], s->size[at]);
        s->size[at] = size;
        s->p[at] = take(size, (uintptr_t)i);
    }
}

/* ---- two threads: batches through mailboxes ---- */

struct box {
    uintptr_t full;
    void *p[MAIL];
    uint16_t size[MAIL];
} __attribute__((aligned(128)));
static struct box boxes[2][BOXES];

static inline void send_batch(struct box *b, int mixed, uint64_t *rng)
{
    for (unsigned i = 0; i < MAIL; i++) {
        if (mixed) {
            b->size[i] = sizes[next_random(rng) & (SIZES - 1)];
            b->p[i] = take(b->size[i], i);
        } else {
            b->p[i] = take(64, i);
        }
    }
    __atomic_store_n(&b->full, 1, __ATOMIC_RELEASE);
}

static inline void receive_batch(struct box *b, int mixed)
{
    for (unsigned i = 0; i < MAIL; i++)
        give(b->p[i], mixed ? b->size[i] : 64);
    __atomic_store_n(&b->full, 0, __ATOMIC_RELEASE);
}

static inline int is_full(struct box *b)
{
    return __atomic_load_n(&b->full, __ATOMIC_ACQUIRE) != 0;
}

/* Thread 0 allocates, thread 1 frees. */
static void one_way(int thread, int64_t n, int mixed)
{
    uint64_t rng = 77;
    for (int64_t k = 0; k < n / MAIL; k++) {
        struct box *b = &boxes[0][k % BOXES];
        while (is_full(b) == (thread == 0))
            __builtin_ia32_pause();
        if (thread == 0)
            send_batch(b, mixed, &rng);
        else
            receive_batch(b, mixed);
    }
}

/* Both do both; half of the operations are sends. */
static void both_ways(int thread, int64_t n)
{
    uint64_t rng = 78;
    int64_t sent = 0, got = 0;
    while (sent < n / MAIL || got < n / MAIL) {
        struct box *to = &boxes[thread][sent % BOXES], *from = &boxes[!thread][got % BOXES];
        if (got < n / MAIL && is_full(from)) {
            receive_batch(from, 0);
            got++;
        }
        if (sent < n / MAIL && !is_full(to)) {
            send_batch(to, 0, &rng);
            sent++;
        }
    }
}

/* ---- traces ---- */

struct op {
    uint32_t slot, size;
    uint8_t kind; /* 0 alloc, 1 free, 2 realloc, 3 zeroed alloc */
};
struct trace {
    char name[48], path[128];
    struct op *op;
    int64_t n;
    uint32_t slots;
    void **p;
    uint32_t *size;
};
static struct trace traces[16];
static unsigned ntraces;

static uint64_t varint(const unsigned char **at)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        const unsigned char c = *(*at)++;
        value |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return value;
    }
}

/* Memory that is no allocator's under test. */
static void *room(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

/* A packed trace: see pack.py. The age of a freed object counts the allocations since its own. */
static int read_trace(struct trace *t)
{
    gzFile f = gzopen(t->path, "rb");
    char head[128];
    long long n, nslots, cpus, allocs, ages, bytes;
    uint32_t *free_slots, *slot_of, nfree = 0, made = 0, fresh = 0;
    unsigned char *data;

    if (f == NULL || gzgets(f, head, sizeof head) == NULL ||
        sscanf(head, "objects 1 %lld %lld %lld %lld %lld %lld", &n, &nslots, &cpus, &allocs, &ages,
               &bytes) != 6)
        return 0;
    data = room((size_t)(n + ages + bytes + 16));
    if (gzread(f, data, (unsigned)(n + ages + bytes)) != n + ages + bytes)
        return 0;
    gzclose(f);
    t->n = n;
    t->slots = (uint32_t)nslots;
    t->op = room((size_t)n * sizeof *t->op);
    t->p = room((size_t)nslots * sizeof *t->p);
    t->size = room((size_t)nslots * sizeof *t->size);
    free_slots = room((size_t)nslots * sizeof *free_slots);
    slot_of = room((size_t)(allocs + 1) * sizeof *slot_of);
    const unsigned char *age = data + n, *size = data + n + ages;
    for (int64_t i = 0; i < n; i++) {
        struct op *o = &t->op[i];
        o->kind = data[i] & 3;
        if (o->kind == 0 || o->kind == 3) {
            o->slot = nfree > 0 ? free_slots[--nfree] : fresh++;
            slot_of[++made] = o->slot;
        } else {
            o->slot = slot_of[made - varint(&age)];
        }
        if (o->kind == 1)
            free_slots[nfree++] = o->slot;
        else
            o->size = (uint32_t)varint(&size);
    }
    return 1;
}

static void replay(struct trace *t, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const struct op o = t->op[i];
        const size_t size = o.size < 8 ? 8 : o.size;
        if (o.kind == 1) {
            give(t->p[o.slot], t->size[o.slot]);
            t->p[o.slot] = NULL;
            continue;
        }
        if (o.kind == 2)
            t->p[o.slot] = obj_realloc(t->p[o.slot], t->size[o.slot], size);
        else
            t->p[o.slot] = o.kind == 3 ? obj_zalloc(size) : obj_alloc(size);
        *(volatile uintptr_t *)t->p[o.slot] = o.slot;
        t->size[o.slot] = (uint32_t)size;
    }
}

/* ---- rows ---- */

enum what { ONE, MIXED, MIXED2K, MIXED2T, XTHR64, XTHRMIX, XSYM64, MEMORY, TRACE };

struct row {
    const char *name;
    enum what what;
    int threads;
    int64_t n;
    void (*run)(int64_t n);
    struct trace *trace;
};

static struct row rows[64] = {
    {"memory", MEMORY, 1, 2000000, NULL, NULL}, /* first: nothing else was held yet */
    {"pair64", ONE, 1, 10000000, pair64, NULL},
    {"pairmix", ONE, 1, 5000000, pairmix, NULL},
    {"lifo", ONE, 1, 5000000, lifo, NULL},
    {"fifo", ONE, 1, 5000000, fifo, NULL},
    {"rand", ONE, 1, 5000000, randomly, NULL},
    {"mixed2k", MIXED2K, 1, 3000000, NULL, NULL},
    {"mixed", MIXED, 1, 2000000, NULL, NULL},
    {"xthr64", XTHR64, 2, 1500000 / MAIL *MAIL, NULL, NULL},
    {"xthrmix", XTHRMIX, 2, 1000000 / MAIL *MAIL, NULL, NULL},
    {"xsym64", XSYM64, 2, 1000000 / MAIL *MAIL, NULL, NULL},
    {"mixed2t", MIXED2T, 2, 1000000, NULL, NULL},
};

static size_t resident(void)
{
    unsigned long total, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%lu %lu", &total, &pages) != 2)
        broken = "no /proc/self/statm";
    fclose(f);
    return pages * 4096;
}

/* Memory held over what is live: after a long time, after 90 % were freed, after the allocator was
 * told to give back. */
static void memory(gb_state *st, int64_t n)
{
    struct slots *s = &slots[0];
    size_t live = 0, before = resident();
    fill_slots(s, LIVE);
    churn(s, LIVE, n > 1000000 ? n : 1000000);
    for (unsigned i = 0; i < LIVE; i++)
        live += s->size[i];
    gb_counter(st, "rss_steady", (double)(resident() - before) / (double)live, GB_PLAIN);
    for (unsigned i = 0; i < LIVE; i++) {
        if (next_random(&s->rng) % 10 == 0)
            continue;
        live -= s->size[i];
        give(s->p[i], s->size[i]);
        s->p[i] = NULL;
    }
    gb_counter(st, "rss_after", (double)(resident() - before) / (double)live, GB_PLAIN);
    obj_collect();
    gb_counter(st, "rss_collected", (double)(resident() - before) / (double)live, GB_PLAIN);
    empty_slots(s, LIVE);
    obj_collect();
    gb_counter(st, "rss_empty_kib", ((double)resident() - (double)before) / 1024, GB_PLAIN);
}

static cpu_set_t all; /* processors of the program */

static void pin(int thread)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && seen++ == thread)
            CPU_SET(cpu, &one);
    if (CPU_COUNT(&one) == 1)
        sched_setaffinity(0, sizeof one, &one);
}

static void timed(const struct row *row, int thread, int64_t n)
{
    switch (row->what) {
    case ONE:
        row->run(n);
        break;
    case MIXED2K:
        churn(&slots[0], 2000, n);
        break;
    case MIXED:
    case MIXED2T:
        churn(&slots[thread], LIVE, n);
        break;
    case XTHR64:
        one_way(thread, n, 0);
        break;
    case XTHRMIX:
        one_way(thread, n, 1);
        break;
    case XSYM64:
        both_ways(thread, n);
        break;
    case TRACE:
        replay(row->trace, n);
        break;
    case MEMORY:
        break;
    }
}

static void run_row(gb_state *st, void *arg)
{
    const struct row *row = arg;
    const int thread = gb_thread_index(st);
    const unsigned live = row->what == MIXED2K ? 2000 : LIVE;
    const int filled = row->what == MIXED || row->what == MIXED2K || row->what == MIXED2T;
    const int64_t n = gb_iterations_max(st);

    if (row->threads > 1)
        pin(thread);
    obj_cpu(thread);
    if (filled)
        fill_slots(&slots[thread], live);
    if (row->what != MEMORY) /* warm up, as far as nobody else is needed */
        if (row->threads == 1 && row->what != TRACE)
            timed(row, thread, n / 10 / RING * RING);
    while (gb_keep_running_batch(st, n))
        timed(row, thread, n);
    if (row->what == MEMORY)
        memory(st, n);
    if (filled)
        empty_slots(&slots[thread], live);
    if (row->what == TRACE)
        for (uint32_t i = 0; i < row->trace->slots; i++)
            if (row->trace->p[i] != NULL) {
                give(row->trace->p[i], row->trace->size[i]);
                row->trace->p[i] = NULL;
            }
    sched_setaffinity(0, sizeof all, &all);
    if (broken != NULL)
        gb_error(st, broken);
}

static void add_traces(void)
{
    static const char *const names[] = {
        "kmem/build",     "kmem/fork",     "kmem/git",       "kmem/redis",
        "malloc/gcc-cc1", "malloc/node",   "malloc/python3", "malloc/python3-pymalloc",
        "malloc/redis",   "malloc/sqlite3"};
    struct row *row = rows;
    while (row->name != NULL)
        row++;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        struct trace *t = &traces[ntraces];
        snprintf(t->name, sizeof t->name, "trace.%s", names[i]);
        *strchr(t->name, '/') = '.';
        snprintf(t->path, sizeof t->path, "bench/traces/%s.objects.gz", names[i]);
        if (!read_trace(t)) {
            fprintf(stderr, "bench: %s cannot be read\n", t->path);
            exit(1);
        }
        *row++ = (struct row){t->name, TRACE, 1, t->n, NULL, t};
        ntraces++;
    }
}

static int wanted(const struct row *row, const char *filter, char *name, size_t room)
{
    regex_t regex;
    int found;
    snprintf(name, room, "%s/%s", row->name, OBJ_NAME);
    const int big = row->what == MEMORY || row->what == TRACE || row->what == MIXED;
    if ((row->threads > 1 && !OBJ_THREADS) || (big && OBJ_SLOW > 16) ||
        (!OBJ_REAL && (row->what == MEMORY || row->what == TRACE)))
        return 0;
    if (filter == NULL || *filter == 0)
        return 1;
    if (regcomp(&regex, filter, REG_EXTENDED | REG_NOSUB) != 0)
        return 0;
    found = regexec(&regex, name, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

int main(int argc, char **argv)
{
    const char *less = getenv("BENCH_OPS");
    const int64_t divide = (less != NULL && atoi(less) > 0 ? atoi(less) : 1) * (int64_t)OBJ_SLOW;
    char name[128];
    int found = 0;

    sched_getaffinity(0, sizeof all, &all);
    obj_open();
    obj_cpu(0);
    make_sizes();
    memset(slots, 1, sizeof slots);
    gb_init(&argc, argv);
    if (gb_unrecognized(argc, argv))
        return 1;
    add_traces();
    for (struct row *row = rows; row->name != NULL; row++) {
        if (!wanted(row, getenv("BENCH_FILTER"), name, sizeof name))
            continue;
        int64_t n =
            row->what == TRACE ? row->n / (less != NULL ? divide / OBJ_SLOW : 1) : row->n / divide;
        n = n / (MAIL * RING) * (MAIL * RING) > 0 && row->what != TRACE
                ? n / (MAIL * RING) * (MAIL * RING)
                : n;
        if (row->what != TRACE && n < MAIL * RING)
            n = MAIL * RING;
        gb_bench *b = gb_register(name, run_row, row);
        gb_use_real_time(gb_threads(gb_iterations(b, n), row->threads));
        found = 1;
    }
    if (!found) /* BENCH_FILTER asks for others */
        return 0;
    gb_context("object_00 " OBJ_NAME, OBJ_TITLE);
    gb_run_quiet();
    gb_shutdown();
    return 0;
}
