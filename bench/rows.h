/* rows.h - a row of the table: one workload, run with every allocator that can do it */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "driver.h"

enum row_needs {
    NEEDS_ORDERS = 1, /* blocks up to order 9 */
    NEEDS_RUNS = 2,   /* alloc_run() */
    NEEDS_BULK = 4,   /* alloc_bulk() and free_bulk() */
    NEEDS_REAL = 8,   /* frames that mean something: not for the empty driver */
};

struct row {
    const char *name;
    int needs;
    int threads; /* 0: the plain allocator; else the one for several CPUs, with so many threads */
    unsigned ncpus;        /* CPUs the pool is made for, if not as many as threads */
    int manual;            /* run() adds up the time itself: gb_iteration_time() */
    int repetitions;       /* if not as many as asked for */
    int64_t iterations;    /* operations of a run, for each thread */
    void (*prepare)(void); /* starting state; NULL: all frames free */
    void (*run)(gb_state *st, const struct row *row);
    int which;         /* for run(): an order, or which part is timed */
    const char *input; /* for run(): a trace */
};

/* The groups of rows, in the order of the table, each up to a row without a name. */
extern const struct row *const bench_rows[];

/* Rows of byte sizes, for the heaps: see work_heap.c. */
struct heap_row {
    const char *name;
    int64_t iterations;
    void (*run)(gb_state *st, const struct bench_heap_ops *heap);
};
extern const struct heap_row heap_rows[];
const char *heap_failure(void); /* what went wrong in the last run, or NULL */

/* Reads all traces into memory and returns their rows. */
const struct row *trace_rows(void);

/* How the timed part of a row is called, where one run has two parts. */
enum { PART_ALLOC = 0, PART_FREE = 1 };

#endif
