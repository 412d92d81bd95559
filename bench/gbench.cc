// gbench.cc - C binding of Google Benchmark - 0BSD
//
// One function for one call; the contracts are in gbench.h. The C types are never defined: a
// gb_bench is a benchmark::internal::Benchmark and a gb_state is a benchmark::State under another
// name.
#include "gbench.h"

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

using benchmark::Counter;
using benchmark::State;
using benchmark::internal::Benchmark;

namespace
{

Benchmark *cxx(gb_bench *b)
{
    return reinterpret_cast<Benchmark *>(b);
}
gb_bench *c(Benchmark *b)
{
    return reinterpret_cast<gb_bench *>(b);
}
State *cxx(gb_state *st)
{
    return reinterpret_cast<State *>(st);
}
const State *cxx(const gb_state *st)
{
    return reinterpret_cast<const State *>(st);
}

std::vector<int64_t> list(const int64_t *values, size_t n)
{
    return std::vector<int64_t>(values, values + n);
}

// A display reporter that shows nothing.
class Silent : public benchmark::BenchmarkReporter
{
  public:
    bool ReportContext(const Context &) override
    {
        return true;
    }
    void ReportRuns(const std::vector<Run> &) override
    {
    }
};

} // namespace

// ---- registration ----

gb_bench *gb_register(const char *name, gb_fn *fn, void *arg)
{
    return c(benchmark::RegisterBenchmark(
        name, [fn, arg](State &st) { fn(reinterpret_cast<gb_state *>(&st), arg); }));
}

gb_bench *gb_name(gb_bench *b, const char *name)
{
    return c(cxx(b)->Name(name));
}

gb_bench *gb_unit_is(gb_bench *b, enum gb_unit unit)
{
    static const benchmark::TimeUnit units[] = {benchmark::kNanosecond, benchmark::kMicrosecond,
                                                benchmark::kMillisecond, benchmark::kSecond};
    return c(cxx(b)->Unit(units[unit]));
}

gb_bench *gb_arg(gb_bench *b, int64_t value)
{
    return c(cxx(b)->Arg(value));
}

gb_bench *gb_args(gb_bench *b, const int64_t *values, size_t n)
{
    return c(cxx(b)->Args(list(values, n)));
}

gb_bench *gb_range(gb_bench *b, int64_t lo, int64_t hi)
{
    return c(cxx(b)->Range(lo, hi));
}

gb_bench *gb_range_multiplier(gb_bench *b, int multiplier)
{
    return c(cxx(b)->RangeMultiplier(multiplier));
}

gb_bench *gb_dense_range(gb_bench *b, int64_t lo, int64_t hi, int step)
{
    return c(cxx(b)->DenseRange(lo, hi, step));
}

gb_bench *gb_args_product(gb_bench *b, const int64_t *const *lists, const size_t *lengths, size_t n)
{
    std::vector<std::vector<int64_t>> all;
    for (size_t i = 0; i < n; i++)
        all.push_back(list(lists[i], lengths[i]));
    return c(cxx(b)->ArgsProduct(all));
}

gb_bench *gb_arg_names(gb_bench *b, const char *const *names, size_t n)
{
    return c(cxx(b)->ArgNames(std::vector<std::string>(names, names + n)));
}

gb_bench *gb_threads(gb_bench *b, int threads)
{
    return c(cxx(b)->Threads(threads));
}
gb_bench *gb_thread_range(gb_bench *b, int lo, int hi)
{
    return c(cxx(b)->ThreadRange(lo, hi));
}
gb_bench *gb_iterations(gb_bench *b, int64_t n)
{
    return c(cxx(b)->Iterations(n));
}
gb_bench *gb_repetitions(gb_bench *b, int n)
{
    return c(cxx(b)->Repetitions(n));
}
gb_bench *gb_min_time(gb_bench *b, double seconds)
{
    return c(cxx(b)->MinTime(seconds));
}

gb_bench *gb_aggregates_only(gb_bench *b, bool only)
{
    return c(cxx(b)->ReportAggregatesOnly(only));
}

gb_bench *gb_use_real_time(gb_bench *b)
{
    return c(cxx(b)->UseRealTime());
}
gb_bench *gb_use_manual_time(gb_bench *b)
{
    return c(cxx(b)->UseManualTime());
}

// ---- inside a benchmark ----

bool gb_keep_running(gb_state *st)
{
    return cxx(st)->KeepRunning();
}
bool gb_keep_running_batch(gb_state *st, int64_t n)
{
    return cxx(st)->KeepRunningBatch(n);
}
void gb_pause(gb_state *st)
{
    cxx(st)->PauseTiming();
}
void gb_resume(gb_state *st)
{
    cxx(st)->ResumeTiming();
}
void gb_iteration_time(gb_state *st, double seconds)
{
    cxx(st)->SetIterationTime(seconds);
}
int64_t gb_arg_at(const gb_state *st, size_t i)
{
    return cxx(st)->range(i);
}
int gb_thread_index(const gb_state *st)
{
    return cxx(st)->thread_index();
}
int gb_thread_count(const gb_state *st)
{
    return cxx(st)->threads();
}
int64_t gb_iterations_done(const gb_state *st)
{
    return cxx(st)->iterations();
}
int64_t gb_iterations_max(const gb_state *st)
{
    return cxx(st)->max_iterations;
}

void gb_counter(gb_state *st, const char *name, double value, int flags)
{
    // GB_INVERT has a bit of its own: Google Benchmark's is the sign bit, which a C enumeration
    // cannot name.
    int bits = flags & ~GB_INVERT;
    auto f = static_cast<Counter::Flags>(bits);
    if (flags & GB_INVERT)
        f = f | Counter::kInvert;
    cxx(st)->counters[name] = Counter(value, f);
}

void gb_label(gb_state *st, const char *text)
{
    cxx(st)->SetLabel(text);
}
void gb_items(gb_state *st, int64_t items)
{
    cxx(st)->SetItemsProcessed(items);
}
void gb_bytes(gb_state *st, int64_t bytes)
{
    cxx(st)->SetBytesProcessed(bytes);
}
void gb_error(gb_state *st, const char *message)
{
    cxx(st)->SkipWithError(message);
}
bool gb_failed(const gb_state *st)
{
    return cxx(st)->error_occurred();
}

// ---- main ----

void gb_init(int *argc, char **argv)
{
    benchmark::Initialize(argc, argv);
}

bool gb_unrecognized(int argc, char **argv)
{
    return benchmark::ReportUnrecognizedArguments(argc, argv);
}

void gb_context(const char *key, const char *value)
{
    benchmark::AddCustomContext(key, value);
}
size_t gb_run(void)
{
    return benchmark::RunSpecifiedBenchmarks();
}

size_t gb_run_quiet(void)
{
    Silent silent;
    return benchmark::RunSpecifiedBenchmarks(&silent);
}

void gb_shutdown(void)
{
    benchmark::Shutdown();
}
