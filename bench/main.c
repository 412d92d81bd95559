/* main.c - registers every row with every allocator that can do it, shows progress, and runs them
 *
 * A benchmark is called ROW/ALLOCATOR. BENCH_FILTER is a regular expression for these names,
 * BENCH_REPS the number of repetitions. report.py turns the JSON file of --benchmark_out into the
 * table and the page. */
#include "pagetable.h"
#include "areas.h"
#include "rows.h"
#include "work.h"

#include <regex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct row *const bench_rows[] = {order0_rows, order9_rows, thread_rows};
#define GROUPS (sizeof bench_rows / sizeof bench_rows[0])

/* ---- cells known to be slow ---- */

/* Fewer operations, so that no single cell takes seconds. `less` divides the operations; `once`
 * takes the repetitions away. Patterns: a row's name may end in '*'. */
static const struct slow {
    const char *allocator, *row;
    int64_t less;
    int once;
} slow_cells[] = {
    {"next-fit", "full.fail", 1 << 14, 0}, {"next-fit", "frag9.fail", 1 << 10, 0},
    {"next-fit", "frag9.alloc64", 16, 0},  {"next-fit", "frag9.pair", 16, 0},
    {"next-fit", "bulk9*", 32, 0},         {"next-fit", "pair9", 32, 0},
    {"next-fit", "run37.frag", 1, 1},      {"first-fit", "bulk9*", 32, 0},
    {"first-fit", "mix*", 4, 0},           {"first-fit", "mixo", 4, 0},
    {"first-fit", "full.fail", 1 << 6, 0}, {"first-fit", "frag9.fail", 1 << 9, 0},
    {"first-fit", "frag9.alloc64", 16, 0}, {"first-fit", "run37.frag", 1, 1},
    {"first-fit", "tide*", 4, 0},          {"freelist", "init", 8, 0},
    {"first-fit", "healing", 2, 0},
};

static int matches(const char *pattern, const char *name)
{
    size_t n = strlen(pattern);
    if (pattern[n - 1] == '*')
        return strncmp(pattern, name, n - 1) == 0;
    return strcmp(pattern, name) == 0;
}

static const struct slow *slow_cell(const struct row *row, const struct bench_ops *ops)
{
    for (size_t i = 0; i < sizeof slow_cells / sizeof slow_cells[0]; i++)
        if (strcmp(slow_cells[i].allocator, ops->name) == 0 &&
            matches(slow_cells[i].row, row->name))
            return &slow_cells[i];
    return NULL;
}

/* Operations of `row` that are enough for this allocator. */
static int64_t row_iterations(const struct row *row, const struct bench_ops *ops)
{
    const struct slow *slow = slow_cell(row, ops);
    int64_t n = row->iterations;
    if (row->input == NULL) /* a trace has as many operations as it has */
        n = n * bench_nframes() >> 21;
    if (slow != NULL)
        n /= slow->less;
    if (row->threads > 0 && ops->smp != ops) /* behind a lock */
        n /= row->threads == 2 ? 8 : 2;
    return n > 0 ? n : 1;
}

static int row_repetitions(const struct row *row, const struct bench_ops *ops, int asked)
{
    const struct slow *slow = slow_cell(row, ops);
    int n = row->repetitions > 0 ? row->repetitions : asked;
    return slow != NULL && slow->once ? 1 : n;
}

static int can_do(const struct row *row, const struct bench_ops *ops)
{
    if ((row->needs & NEEDS_ORDERS) && ops->max_order < BLOCK_ORDER)
        return 0;
    if ((row->needs & NEEDS_RUNS) && ops->alloc_run == NULL)
        return 0;
    if ((row->needs & NEEDS_BULK) && ops->alloc_bulk == NULL)
        return 0;
    return !(row->needs & NEEDS_REAL) || !ops->ideal;
}

/* ---- progress ---- */

static struct {
    int total, done;
    double started, shown;
} progress;

/* On a terminal one line that is rewritten, elsewhere a line now and then. */
static void show_progress(const char *row, const char *allocator)
{
    double now = seconds_now();
    int terminal = isatty(STDERR_FILENO);
    int percent = progress.total > 0 ? 100 * progress.done / progress.total : 0;
    if (progress.done == 0)
        progress.started = now;
    progress.done++;
    if (now - progress.shown < (terminal ? 0.1 : 10.0) && progress.done < progress.total)
        return;
    progress.shown = now;
    fprintf(stderr,
            terminal ? "\r[%3d%%] %4.0f s  run %d of %d: %-14s %-12s "
                     : "[%3d%%] %4.0f s  run %d of %d: %s %s\n",
            percent, now - progress.started, progress.done, progress.total, row, allocator);
}

static void end_progress(void)
{
    if (progress.done > 0)
        fprintf(stderr, "%s%d runs in %.0f s\n", isatty(STDERR_FILENO) ? "\n" : "", progress.done,
                seconds_now() - progress.started);
}

/* ---- running one cell ---- */

struct cell {
    const struct row *row;
    const struct bench_ops *ops;
    const struct heap_row *heap_row;
    const struct bench_heap_ops *heap;
    const struct page_row *page_row;
    const struct page_ops *pages;
    const struct area_row *area_row;
    const struct area_ops *areas;
};

/* Threads of one run stay on processors of their own, where the machine has them. */
static void pin(int thread, cpu_set_t *before)
{
    cpu_set_t one;
    sched_getaffinity(0, sizeof *before, before);
    if (CPU_COUNT(before) < 2)
        return;
    CPU_ZERO(&one);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, before) && seen++ == thread)
            CPU_SET(cpu, &one);
    if (CPU_COUNT(&one) == 1)
        sched_setaffinity(0, sizeof one, &one);
}

static void set_up(const struct cell *cell)
{
    const struct row *row = cell->row;
    unsigned ncpus = row->ncpus > 0 ? row->ncpus : 2;
    show_progress(row->name, cell->ops->name);
    pool_create(row->threads > 0 ? cell->ops->smp : cell->ops, ncpus);
    if (row->prepare != NULL)
        row->prepare();
}

static void tear_down(gb_state *st, const struct cell *cell)
{
    gb_counter(st, "meta_bytes_per_frame",
               (double)cell->ops->meta_bytes(pool.self) / pool.nframes * gb_thread_count(st),
               GB_AVG_THREADS);
    if (cell->row->prepare == pool_worst_start)
        gb_counter(st, "free_2m", pool_whole_blocks(), GB_PLAIN);
    if (pool.failed != NULL)
        gb_error(st, pool.failed);
    pool_destroy();
}

/* Thread 0 sets up before the loop and cleans up after it; the loop's ends are barriers. */
static void run_cell(gb_state *st, void *arg)
{
    const struct cell *cell = arg;
    int thread = gb_thread_index(st);
    int several = gb_thread_count(st) > 1;
    cpu_set_t before;
    bench_cpu = thread;
    if (several)
        pin(thread, &before);
    if (thread == 0)
        set_up(cell);
    cell->row->run(st, cell->row);
    if (thread == 0)
        tear_down(st, cell);
    if (several)
        sched_setaffinity(0, sizeof before, &before);
}

static void run_heap_cell(gb_state *st, void *arg)
{
    const struct cell *cell = arg;
    show_progress(cell->heap_row->name, cell->heap->name);
    cell->heap_row->run(st, cell->heap);
    if (heap_failure() != NULL)
        gb_error(st, heap_failure());
}

static void run_page_cell(gb_state *st, void *arg)
{
    const struct cell *cell = arg;
    show_progress(cell->page_row->name, cell->pages->name);
    cell->page_row->run(st, cell->pages, cell->page_row);
    if (page_failure() != NULL)
        gb_error(st, page_failure());
}

static void run_area_cell(gb_state *st, void *arg)
{
    const struct cell *cell = arg;
    show_progress(cell->area_row->name, cell->areas->name);
    cell->area_row->run(st, cell->area_row, cell->areas);
}

/* ---- registration ---- */

static struct {
    regex_t filter;
    int filtered, repetitions;
    struct cell cells[4096];
    int ncells;
} plan;

static void read_plan(void)
{
    const char *filter = getenv("BENCH_FILTER");
    const char *repetitions = getenv("BENCH_REPS");
    plan.repetitions = repetitions != NULL && *repetitions != 0 ? atoi(repetitions) : 3;
    plan.filtered = filter != NULL && *filter != 0;
    if (plan.repetitions < 1) {
        fprintf(stderr, "bench: BENCH_REPS must be a number from 1 on\n");
        exit(1);
    }
    if (plan.filtered && regcomp(&plan.filter, filter, REG_EXTENDED | REG_NOSUB) != 0) {
        fprintf(stderr, "bench: BENCH_FILTER is no regular expression: %s\n", filter);
        exit(1);
    }
}

/* The name of a cell that is wanted, or NULL. */
static const char *wanted(const char *row, const char *allocator)
{
    static char name[128];
    snprintf(name, sizeof name, "%s/%s", row, allocator);
    if (plan.filtered && regexec(&plan.filter, name, 0, NULL, 0) != 0)
        return NULL;
    if (plan.ncells == sizeof plan.cells / sizeof plan.cells[0]) {
        fprintf(stderr, "bench: too many cells\n");
        exit(1);
    }
    return name;
}

static void register_cell(const struct row *row, const struct bench_ops *ops)
{
    const char *name = can_do(row, ops) ? wanted(row->name, ops->name) : NULL;
    if (name == NULL)
        return;
    struct cell *cell = &plan.cells[plan.ncells++];
    *cell = (struct cell){.row = row, .ops = ops};
    gb_bench *b = gb_register(name, run_cell, cell);
    int repetitions = row_repetitions(row, ops, plan.repetitions);
    gb_iterations(b, row_iterations(row, ops));
    gb_repetitions(b, repetitions);
    gb_threads(b, row->threads > 0 ? row->threads : 1);
    if (row->manual)
        gb_use_manual_time(b);
    else
        gb_use_real_time(b);
    progress.total += repetitions;
}

static void register_group(const struct row *rows)
{
    for (const struct row *row = rows; row->name != NULL; row++)
        for (int i = 0; bench_allocators[i] != NULL; i++)
            register_cell(row, bench_allocators[i]);
}

static void register_heaps(void)
{
    for (const struct heap_row *row = heap_rows; row->name != NULL; row++) {
        for (int i = 0; bench_heaps[i] != NULL; i++) {
            const char *name = wanted(row->name, bench_heaps[i]->name);
            if (name == NULL)
                continue;
            struct cell *cell = &plan.cells[plan.ncells++];
            *cell = (struct cell){.heap_row = row, .heap = bench_heaps[i]};
            gb_bench *b = gb_register(name, run_heap_cell, cell);
            gb_use_real_time(gb_repetitions(gb_iterations(b, row->iterations), plan.repetitions));
            progress.total += plan.repetitions;
        }
    }
}

static void register_page_tables(void)
{
    for (const struct page_row *row = page_rows; row->name != NULL; row++) {
        for (int i = 0; bench_page_tables[i] != NULL; i++) {
            const struct page_ops *ops = bench_page_tables[i];
            const char *name =
                row->can == NULL || row->can(ops) ? wanted(row->name, ops->name) : NULL;
            if (name == NULL)
                continue;
            struct cell *cell = &plan.cells[plan.ncells++];
            *cell = (struct cell){.page_row = row, .pages = ops};
            gb_bench *b = gb_register(name, run_page_cell, cell);
            gb_use_manual_time(gb_repetitions(gb_iterations(b, row->iterations), plan.repetitions));
            progress.total += plan.repetitions;
        }
    }
}

/* What a map of areas can do: the small array has no order, the rivals keep no gaps, and the
 * sorted array stops at 65,536. It moves half of itself at each change: the mixes, which change it
 * 400,000 times to warm up, stop before. */
static int can_do_areas(const struct area_row *row, const struct area_ops *ops)
{
    char kind = row->name[0];
    if (row->areas > ops->most || row->areas > bench_nframes() / 2)
        return 0;
    if (row->areas == 0) /* calls and faults */
        return ops->call_create != NULL;
    if (kind == 'e' && row->areas == ops->most)
        return 0;
    if (kind == 'h')
        return ops->bytes != NULL;
    if (strncmp(row->name, "e2", 2) == 0 && ops->call_map != NULL)
        return 1;
    return (kind != 'd' && kind != 'e') || ops->gap_up != NULL;
}

static void register_areas(void)
{
    for (const struct area_row *row = area_rows; row->name != NULL; row++) {
        for (int i = 0; bench_area_maps[i] != NULL; i++) {
            const struct area_ops *ops = bench_area_maps[i];
            const char *name = can_do_areas(row, ops) ? wanted(row->name, ops->name) : NULL;
            int64_t least = strncmp(row->name, "f_", 2) == 0 || strncmp(row->name, "g_", 2) == 0
                                ? (int64_t)row->areas * 2
                                : 1;
            if (name == NULL)
                continue;
            struct cell *cell = &plan.cells[plan.ncells++];
            *cell = (struct cell){.area_row = row, .areas = ops};
            gb_bench *b = gb_register(name, run_area_cell, cell);
            int64_t n =
                row->name[0] == 'h' ? row->iterations : row->iterations * bench_nframes() >> 21;
            if (ops->most == 65536 && row->areas == 65536 && strchr("cde", row->name[0]) != NULL)
                n /= 32; /* the sorted array moves half of itself */
            gb_iterations(b, n < least ? least : n);
            int repetitions = row->name[0] == 'e' && row->areas > 65536 ? 1 : plan.repetitions;
            gb_repetitions(b, repetitions); /* those take ten seconds to warm up */
            if (row->name[0] == 'h')
                gb_use_manual_time(b);
            else
                gb_use_real_time(b);
            progress.total += repetitions;
        }
    }
}

#ifdef __clang__
#define BENCH_COMPILER "clang"
#else
#define BENCH_COMPILER "gcc"
#endif

/* The report's columns and their titles, in order, for report.py. */
static void describe_allocators(void)
{
    char key[64];
    for (int i = 0; bench_allocators[i] != NULL; i++) {
        snprintf(key, sizeof key, "allocator_%02d %s", i, bench_allocators[i]->name);
        gb_context(key, bench_allocators[i]->title);
    }
    for (int i = 0; bench_heaps[i] != NULL; i++) {
        snprintf(key, sizeof key, "heap_%02d %s", i, bench_heaps[i]->name);
        gb_context(key, bench_heaps[i]->title);
    }
    for (int i = 0; bench_page_tables[i] != NULL; i++) {
        snprintf(key, sizeof key, "pagetable_%02d %s", i, bench_page_tables[i]->name);
        gb_context(key, bench_page_tables[i]->title);
    }
    for (int i = 0; bench_area_maps[i] != NULL; i++) {
        snprintf(key, sizeof key, "areas_%02d %s", i, bench_area_maps[i]->name);
        gb_context(key, bench_area_maps[i]->title);
    }
    snprintf(key, sizeof key, "%u", bench_nframes());
    gb_context("frames", key);
    gb_context("compiler", BENCH_COMPILER " " __VERSION__);
}

int main(int argc, char **argv)
{
    gb_init(&argc, argv);
    if (gb_unrecognized(argc, argv))
        return 1;
    read_plan();
    bench_driver_init();
    for (size_t i = 0; i < GROUPS; i++)
        register_group(bench_rows[i]);
    register_group(trace_rows());
    register_heaps();
    register_page_tables();
    register_areas();
    describe_allocators();
    if (plan.ncells == 0) {
        fprintf(stderr, "bench: no benchmark matches BENCH_FILTER\n");
        return 1;
    }
    gb_run_quiet();
    end_progress();
    gb_shutdown();
    return 0;
}
