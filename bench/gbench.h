/* gbench.h - C binding of Google Benchmark - 0BSD
 *
 * Google Benchmark is a C++ library; the benchmarks of this repository are C. This binding hands
 * over what they use, one C function for one C++ call, and adds nothing of its own but a `void
 * *arg` for each benchmark, so that one C function can serve many registrations.
 *
 *     static void bench_copy(gb_state *st, void *arg)
 *     {
 *         struct buffers *b = arg;                        // set-up: thread 0, before the loop
 *         while (gb_keep_running_batch(st, 1000))         // the clock runs in here only
 *             for (int i = 0; i < 1000; i++)
 *                 copy(b);
 *         gb_items(st, gb_iterations_done(st));
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         gb_init(&argc, argv);
 *         gb_use_real_time(gb_register("copy", bench_copy, &buffers));
 *         gb_run();
 *         gb_shutdown();
 *     }
 *
 * Batch the loop: an iteration by itself costs more than a nanosecond through this binding.
 * Threads: every thread runs the function. The first gb_keep_running_batch() of each waits for all
 * others and so does the last; what thread 0 does before its loop is done when the others' loops
 * start. The header compiles as C99 and as C++; its implementation is gbench.cc. */
#ifndef GBENCH_H
#define GBENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gb_bench gb_bench; /* a registered benchmark: benchmark::internal::Benchmark */
typedef struct gb_state gb_state; /* a run in progress, one for each thread: benchmark::State */
typedef void gb_fn(gb_state *st, void *arg);

/* ---- registration; every setter returns its argument, so that calls nest ---- */

enum gb_unit { GB_NS, GB_US, GB_MS, GB_S };

/* Registers `fn` under a name made at run time. The name is copied; `arg` is passed through. */
gb_bench *gb_register(const char *name, gb_fn *fn, void *arg);

gb_bench *gb_name(gb_bench *b, const char *name); /* renames */
gb_bench *gb_unit_is(gb_bench *b, enum gb_unit unit);

/* Arguments: each of these adds runs of the benchmark; the function reads them with gb_arg_at(). */
gb_bench *gb_arg(gb_bench *b, int64_t value);                    /* one run, one argument */
gb_bench *gb_args(gb_bench *b, const int64_t *values, size_t n); /* one run, n arguments */
gb_bench *gb_range(gb_bench *b, int64_t lo, int64_t hi);    /* lo, powers of the multiplier, hi */
gb_bench *gb_range_multiplier(gb_bench *b, int multiplier); /* 8 unless set; before gb_range() */
gb_bench *gb_dense_range(gb_bench *b, int64_t lo, int64_t hi, int step); /* lo, lo + step, ... */
gb_bench *gb_args_product(gb_bench *b, const int64_t *const *lists, const size_t *lengths,
                          size_t n);
gb_bench *gb_arg_names(gb_bench *b, const char *const *names, size_t n); /* shown as name:value */

gb_bench *gb_threads(gb_bench *b, int threads); /* adds a run with this many threads */
gb_bench *gb_thread_range(gb_bench *b, int lo, int hi);

gb_bench *gb_iterations(gb_bench *b,
                        int64_t n); /* fixed, instead of growing until the time is long enough */
gb_bench *gb_repetitions(gb_bench *b, int n);
gb_bench *gb_min_time(gb_bench *b, double seconds);
gb_bench *gb_aggregates_only(gb_bench *b, bool only);
gb_bench *gb_use_real_time(gb_bench *b);   /* wall clock; CPU time of the thread otherwise */
gb_bench *gb_use_manual_time(gb_bench *b); /* what gb_iteration_time() adds up */

/* ---- inside a benchmark ---- */

/* True while n more iterations are to be done, which the caller then does. */
bool gb_keep_running(gb_state *st);
bool gb_keep_running_batch(gb_state *st, int64_t n);

void gb_pause(
    gb_state *st); /* stops this thread's clock; hundreds of nanoseconds, so not in short loops */
void gb_resume(gb_state *st);
void gb_iteration_time(gb_state *st,
                       double seconds); /* adds to the time, with gb_use_manual_time() */

int64_t gb_arg_at(const gb_state *st, size_t i);
int gb_thread_index(const gb_state *st);
int gb_thread_count(const gb_state *st);
int64_t gb_iterations_done(const gb_state *st); /* by this thread */
int64_t gb_iterations_max(const gb_state *st);  /* how many this run asks of this thread */

/* Counters are summed over the threads; flags as in Google Benchmark, to be combined. */
enum gb_counter_flags {
    GB_PLAIN = 0,
    GB_RATE = 1,                /* divided by the seconds of the run */
    GB_AVG_THREADS = 2,         /* divided by the number of threads */
    GB_ITERATION_INVARIANT = 4, /* multiplied by the iterations */
    GB_AVG_ITERATIONS = 8,      /* divided by the iterations */
    GB_INVERT = 16              /* one divided by the result */
};
void gb_counter(gb_state *st, const char *name, double value, int flags);

void gb_label(gb_state *st, const char *text);
void gb_items(gb_state *st, int64_t items); /* items_per_second */
void gb_bytes(gb_state *st, int64_t bytes); /* bytes_per_second */

/* Ends the run as failed: the loop's condition turns false, the report shows the message. */
void gb_error(gb_state *st, const char *message);
bool gb_failed(const gb_state *st);

/* The compiler must have computed `value`, and memory, at this point. */
#define GB_USE(value) __asm__ volatile("" : : "r"(value) : "memory")

/* ---- main ---- */

/* Takes the flags it knows (--benchmark_...) out of argv. */
void gb_init(int *argc, char **argv);

/* Prints the arguments that are left, if any, and returns whether there were any. */
bool gb_unrecognized(int argc, char **argv);

/* Adds a line to the report's context. */
void gb_context(const char *key, const char *value);

/* Runs what matches --benchmark_filter; returns how many benchmarks that were. gb_run_quiet()
 * prints nothing itself: for programs that show progress in their own way and read the file of
 * --benchmark_out. */
size_t gb_run(void);
size_t gb_run_quiet(void);

void gb_shutdown(void);

#ifdef __cplusplus
}
#endif

#endif
