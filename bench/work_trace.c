/* work_trace.c - replay of recorded page traces: trace.NAME call by call, trace.NAME.b with frees
 * in bulk
 *
 * One thread replays all CPUs of the recording: before each operation it becomes the CPU that the
 * recording names. The pool has 2^21 fresh frames; the recorded machine had 2^20. */
#include "trace.h"
#include "work.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACES_MAX 16

static struct trace traces[TRACES_MAX];
static struct row rows[2 * TRACES_MAX + 1];

static const struct trace *trace_named(const char *name)
{
    for (int i = 0; i < TRACES_MAX; i++)
        if (strcmp(traces[i].name, name) == 0)
            return &traces[i];
    return NULL;
}

/* The frame of each slot; what is live at the end stays so. */
static uint32_t *frames;

static void replay(const struct trace *t, struct calls c)
{
    for (uint32_t i = 0; i < t->nops; i++) {
        struct trace_op op = t->ops[i];
        bench_cpu = op.cpu;
        if (op.is_free)
            c.free(c.self, frames[op.slot], op.order);
        else
            frames[op.slot] = c.alloc(c.self, op.order);
    }
}

static void free_in_bulk(const struct trace_op *op)
{
    uint64_t list[255];
    for (uint32_t i = 0; i < op->run; i++)
        list[i] = (uint64_t)frames[op[i].slot] << 12;
    pool.ops->free_bulk(pool.self, list, op->run);
}

/* As a kernel does that frees in batches: successive frees of single frames on one CPU are one
 * call. */
static void replay_bulk(const struct trace *t, struct calls c)
{
    for (uint32_t i = 0; i < t->nops; i++) {
        const struct trace_op *op = &t->ops[i];
        bench_cpu = op->cpu;
        if (!op->is_free) {
            frames[op->slot] = c.alloc(c.self, op->order);
        } else if (op->run > 1) {
            free_in_bulk(op);
            i += op->run - 1u;
        } else {
            c.free(c.self, frames[op->slot], op->order);
        }
    }
}

/* One round is one run: what is live at the end of the trace is not freed. */
static void run_trace(gb_state *st, const struct row *row)
{
    const struct trace *t = trace_named(row->input);
    while (gb_keep_running_batch(st, t->nops)) {
        struct calls c = pool_calls();
        for (uint32_t i = 0; i < t->nslots; i++)
            frames[i] = 0;
        double start = seconds_now();
        if (row->which)
            replay_bulk(t, c);
        else
            replay(t, c);
        gb_iteration_time(st, seconds_now() - start);
        for (uint32_t i = 0; i < t->nslots; i++)
            if (frames[i] == BENCH_NONE)
                pool.failed = "an allocation failed that must not";
    }
    bench_cpu = 0;
}

static void add_rows(struct row *row, const struct trace *t)
{
    static char names[2 * TRACES_MAX][48];
    size_t at = (size_t)(row - rows);
    snprintf(names[at], sizeof names[at], "trace.%.31s", t->name);
    snprintf(names[at + 1], sizeof names[at + 1], "trace.%.31s.b", t->name);
    row[0] = (struct row){names[at],   .needs = NEEDS_ORDERS, .ncpus = t->ncpus,
                          .manual = 1, .iterations = t->nops, .run = run_trace,
                          .which = 0,  .input = t->name};
    row[1] = row[0];
    row[1].name = names[at + 1];
    row[1].needs = NEEDS_ORDERS | NEEDS_BULK;
    row[1].which = 1;
}

const struct row *trace_rows(void)
{
    const char *folder = getenv("BENCH_TRACES");
    char pattern[512];
    glob_t found;
    uint32_t slots = 0;
    snprintf(pattern, sizeof pattern, "%s/*.trace.gz",
             folder == NULL ? "bench/traces/page" : folder);
    if (glob(pattern, 0, NULL, &found) != 0) {
        fprintf(stderr, "bench: no traces at %s; run from the top of the repository\n", pattern);
        exit(1);
    }
    for (size_t i = 0; i < found.gl_pathc && i < TRACES_MAX; i++) {
        trace_read(&traces[i], found.gl_pathv[i]);
        add_rows(&rows[2 * i], &traces[i]);
        if (traces[i].nslots > slots)
            slots = traces[i].nslots;
    }
    globfree(&found);
    frames = calloc(slots, sizeof *frames);
    if (frames == NULL) {
        fprintf(stderr, "bench: out of memory\n");
        exit(1);
    }
    return rows;
}
