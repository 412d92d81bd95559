/* trace.c - see trace.h */
#include "trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void die(const char *path, const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", path, what);
    exit(1);
}

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (p == NULL) {
        fprintf(stderr, "bench: out of memory\n");
        exit(1);
    }
    return p;
}

/* "dir/build.trace.gz" is called "build". */
static void name_after(struct trace *t, const char *path)
{
    const char *base = strrchr(path, '/');
    base = base == NULL ? path : base + 1;
    snprintf(t->name, sizeof t->name, "%.*s", (int)strcspn(base, "."), base);
}

/* # ops 276190 allocs 143296 frees 132894 slots 24766 cpus 4 ... */
static void read_header(struct trace *t, const char *line, const char *path)
{
    uint32_t ops, slots, cpus;
    if (sscanf(line, "# ops %" SCNu32 " allocs %*u frees %*u slots %" SCNu32 " cpus %" SCNu32, &ops,
               &slots, &cpus) != 3)
        return;
    if (ops == 0 || ops > 1u << 28 || slots > ops || cpus > 256 || t->ops != NULL)
        die(path, "implausible header");
    t->nslots = slots;
    t->ncpus = cpus;
    t->ops = zeroed(ops, sizeof *t->ops);
    t->nops = ops;
}

/* a ID ORDER CPU FLAGS, or f ID CPU */
static int read_op(const struct trace *t, struct trace_op *op, const char *line)
{
    unsigned slot, order = 0, cpu;
    op->is_free = line[0] == 'f';
    if (op->is_free ? sscanf(line, "f %u %u", &slot, &cpu) != 2
                    : sscanf(line, "a %u %u %u", &slot, &order, &cpu) != 3)
        return 0;
    op->slot = slot;
    op->order = (uint8_t)order;
    op->cpu = (uint8_t)cpu;
    return slot < t->nslots && cpu < t->ncpus && order < 32;
}

/* Gives frees the order of their allocation and checks that slots are used as they should. */
static int resolve_orders(struct trace *t)
{
    uint8_t *order_of = zeroed(t->nslots, 1); /* 1 + order, 0: free */
    uint32_t pages = 0;
    int good = 1;
    for (uint32_t i = 0; i < t->nops && good; i++) {
        struct trace_op *op = &t->ops[i];
        good = (order_of[op->slot] != 0) == (op->is_free != 0);
        if (!good)
            break;
        if (op->is_free) {
            op->order = (uint8_t)(order_of[op->slot] - 1);
            pages -= 1u << op->order;
            order_of[op->slot] = 0;
        } else {
            order_of[op->slot] = (uint8_t)(op->order + 1);
            pages += 1u << op->order;
        }
        if (pages > t->peak_pages)
            t->peak_pages = pages;
    }
    free(order_of);
    return good;
}

/* From the end to the start: a free of a single frame joins the run that begins after it on the
 * same CPU. */
static void count_runs(struct trace *t)
{
    uint8_t run = 0;
    for (uint32_t i = t->nops; i-- > 0;) {
        struct trace_op *op = &t->ops[i];
        int single = op->is_free && op->order == 0;
        int joins = single && i + 1 < t->nops && run > 0 && run < 255 && op[1].cpu == op->cpu;
        run = (uint8_t)(!single ? 0 : joins ? run + 1 : 1);
        op->run = run;
    }
}

void trace_read(struct trace *t, const char *path)
{
    char line[512];
    uint32_t n = 0;
    gzFile file = gzopen(path, "rb");
    if (file == NULL)
        die(path, "cannot be opened");
    memset(t, 0, sizeof *t);
    name_after(t, path);
    while (gzgets(file, line, sizeof line) != NULL) {
        if (line[0] == '#') {
            read_header(t, line, path);
            continue;
        }
        if (n == t->nops || !read_op(t, &t->ops[n], line))
            die(path, "a line is not as it should be");
        n++;
    }
    gzclose(file);
    if (n == 0 || n != t->nops || !resolve_orders(t))
        die(path, "the operations do not fit the header");
    count_runs(t);
}
