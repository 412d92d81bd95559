/* Uses each feature of the C binding once; gbench.sh reads the JSON that comes out. */
#include "bench/gbench.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int passed_through = 42;

/* Arguments and names. */
static void bench_args(gb_state *st, void *arg)
{
    int64_t seen = 0;
    while (gb_keep_running_batch(st, 10))
        seen += 10;
    gb_counter(st, "first", (double)gb_arg_at(st, 0), GB_PLAIN);
    gb_counter(st, "arg", *(int *)arg, GB_PLAIN);
    gb_counter(st, "seen", (double)seen, GB_PLAIN);
}

static void bench_two_args(gb_state *st, void *arg)
{
    (void)arg;
    while (gb_keep_running(st))
        continue;
    gb_counter(st, "sum", (double)(gb_arg_at(st, 0) + gb_arg_at(st, 1)), GB_PLAIN);
}

/* Every kind of counter, label, items and bytes; 1,000 iterations. */
static void bench_counters(gb_state *st, void *arg)
{
    (void)arg;
    while (gb_keep_running_batch(st, 100))
        GB_USE(arg);
    gb_counter(st, "plain", 5, GB_PLAIN);
    gb_counter(st, "rate", 1e6, GB_RATE);
    gb_counter(st, "per_iteration", 5000, GB_AVG_ITERATIONS);
    gb_counter(st, "times_iterations", 2, GB_ITERATION_INVARIANT);
    gb_counter(st, "inverse", 4, GB_INVERT);
    gb_counter(st, "done", (double)gb_iterations_done(st), GB_PLAIN);
    gb_counter(st, "max", (double)gb_iterations_max(st), GB_PLAIN);
    gb_label(st, "a label");
    gb_items(st, gb_iterations_done(st));
    gb_bytes(st, 8 * gb_iterations_done(st));
}

/* Thread 0 sets up before the loop; the others see it inside. */
static void bench_threads(gb_state *st, void *arg)
{
    static int ready;
    int seen = 0;
    (void)arg;
    if (gb_thread_index(st) == 0)
        ready = 7;
    while (gb_keep_running_batch(st, 50))
        seen = ready;
    gb_counter(st, "ready", seen, GB_AVG_THREADS);
    gb_counter(st, "index", gb_thread_index(st), GB_PLAIN);
    gb_counter(st, "threads_seen", gb_thread_count(st), GB_AVG_THREADS);
}

static void sleep_ms(long ms)
{
    struct timespec t = {0, ms * 1000000};
    nanosleep(&t, NULL);
}

/* One pause of 200 ms in an otherwise empty run: it must not be in the time. */
static void bench_pause(gb_state *st, void *arg)
{
    (void)arg;
    while (gb_keep_running(st)) {
        gb_pause(st);
        sleep_ms(200);
        gb_resume(st);
    }
}

/* Two seconds an iteration, says the program. */
static void bench_manual(gb_state *st, void *arg)
{
    (void)arg;
    while (gb_keep_running(st))
        gb_iteration_time(st, 2.0);
}

static void bench_error(gb_state *st, void *arg)
{
    (void)arg;
    gb_error(st, "went wrong");
    while (gb_keep_running(st))
        puts("the loop must not be entered after an error");
    if (!gb_failed(st))
        puts("the state does not know of its error");
}

static void register_all(void)
{
    static const int64_t pair[] = {3, 4}, left[] = {1, 2}, right[] = {10, 20};
    static const int64_t *const lists[] = {left, right};
    static const size_t lengths[] = {2, 2};
    static const char *const names[] = {"x", "y"};
    char name[32];
    snprintf(name, sizeof name, "made at run time %d", 1);
    gb_iterations(gb_register(name, bench_counters, NULL), 1000);
    gb_iterations(gb_arg(gb_register("arg", bench_args, &passed_through), 9), 100);
    gb_iterations(gb_dense_range(gb_register("dense", bench_args, &passed_through), 1, 3, 1), 10);
    gb_range(gb_range_multiplier(gb_register("range", bench_args, &passed_through), 2), 1, 4);
    gb_arg_names(gb_args(gb_iterations(gb_register("pair", bench_two_args, NULL), 1), pair, 2),
                 names, 2);
    gb_args_product(gb_iterations(gb_register("product", bench_two_args, NULL), 1), lists, lengths,
                    2);
    gb_threads(gb_use_real_time(gb_iterations(gb_register("threads", bench_threads, NULL), 100)),
               2);
    gb_thread_range(gb_iterations(gb_register("thread range", bench_threads, NULL), 100), 1, 2);
    gb_use_real_time(gb_iterations(gb_register("pause", bench_pause, NULL), 1));
    gb_unit_is(gb_use_manual_time(gb_iterations(gb_register("manual", bench_manual, NULL), 3)),
               GB_MS);
    gb_iterations(gb_register("error", bench_error, NULL), 5);
    gb_repetitions(gb_iterations(gb_register("repeated", bench_counters, NULL), 1000), 3);
    gb_aggregates_only(
        gb_repetitions(gb_iterations(gb_register("aggregates", bench_counters, NULL), 1000), 3),
        true);
    gb_min_time(gb_register("timed", bench_counters, NULL), 0.01);
    gb_iterations(gb_name(gb_register("old name", bench_counters, NULL), "new name"), 1000);
}

int main(int argc, char **argv)
{
    int quiet = argc > 1 && strcmp(argv[1], "quiet") == 0;
    if (quiet) {
        argv[1] = argv[0];
        argv++;
        argc--;
    }
    gb_init(&argc, argv);
    if (gb_unrecognized(argc, argv))
        return 2;
    register_all();
    gb_context("a key", "a value");
    size_t ran = quiet ? gb_run_quiet() : gb_run();
    gb_shutdown();
    return ran > 0 ? 0 : 3;
}
