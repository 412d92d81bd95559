/* mm_test.h - what the tests share: cmocka, seeds, random numbers, failing hooks, threads.
 *
 *   Include it before the header under test: it gives MM_ASSERT a meaning from MM_DEBUG 2 up,
 *   and its mm_test_cpu can serve as MM_CPU_ID().
 *
 *   MM_SEED=N         repeats a random run; each run prints its seed
 *   MM_TEST_OPS=N     operations of a random run
 *   MM_TEST_FILTER=G  runs only the tests whose names match the glob
 */
#ifndef MM_TEST_H
#define MM_TEST_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MM_TEST_UNUSED __attribute__((unused))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MM_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MM_TEST_SANITIZED 1
#endif
#endif
#ifndef MM_TEST_SANITIZED
#define MM_TEST_SANITIZED 0
#endif

/* A failed invariant ends the program: the runner counts that as a failed test. */
static MM_TEST_UNUSED void mm_test_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: invariant does not hold: %s\n", file, line, what);
    abort();
}

#if !defined(MM_ASSERT) && defined(MM_DEBUG) && MM_DEBUG >= 2
#define MM_ASSERT(x) ((x) ? (void)0 : mm_test_assert_failed(#x, __FILE__, __LINE__))
#endif

/* Lines appear as they are printed, so that a crash loses none. */
static __attribute__((constructor)) void mm_test_start(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (getenv("MM_TEST_FILTER") != NULL)
        cmocka_set_test_filter(getenv("MM_TEST_FILTER"));
}

/* ---- random runs ---------------------------------------------------------------------------- */

struct mm_test_rng {
    uint64_t state;
};

/* The seed of this run, the same at each call: MM_SEED, or one made from the time. Printed once. */
static MM_TEST_UNUSED uint64_t mm_test_seed(void)
{
    static uint64_t seed;
    static bool known;
    const char *given = getenv("MM_SEED");

    if (!known) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        seed = given != NULL ? strtoull(given, NULL, 0) : seed % 1000000007u;
        known = true;
        printf("# seed %llu\n", (unsigned long long)seed);
    }
    return seed;
}

/* 64 random bits (splitmix64: Steele, Lea, Flood, OOPSLA 2014). */
static MM_TEST_UNUSED uint64_t mm_test_rand(struct mm_test_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A generator for one test or one thread: equal seeds and streams give equal sequences, and
 * neighbours have nothing in common: splitmix64's states are multiples of one constant, so that the
 * seed must be mixed before it can be one. */
static MM_TEST_UNUSED struct mm_test_rng mm_test_rng(uint64_t seed, uint64_t stream)
{
    struct mm_test_rng rng = {seed};

    rng.state = mm_test_rand(&rng) + stream;
    rng.state = mm_test_rand(&rng);
    return rng;
}

/* A random number from 0 to n - 1; n is not 0. */
static MM_TEST_UNUSED uint64_t mm_test_below(struct mm_test_rng *rng, uint64_t n)
{
    return mm_test_rand(rng) % n;
}

/* True in `percent` of 100 cases. */
static MM_TEST_UNUSED bool mm_test_chance(struct mm_test_rng *rng, unsigned percent)
{
    return mm_test_below(rng, 100) < percent;
}

/* Operations of a random run: MM_TEST_OPS, or 10^6, or a twentieth of it under a sanitizer. */
static MM_TEST_UNUSED uint64_t mm_test_ops(void)
{
    const char *given = getenv("MM_TEST_OPS");

    if (given != NULL)
        return strtoull(given, NULL, 0);
    return MM_TEST_SANITIZED ? 50000 : 1000000;
}

/* ---- hooks that fail ------------------------------------------------------------------------ */

/* Counts a hook's calls and lets the one numbered `fail_at` fail (1 is the first, 0 is none):
 *
 *     for (uint64_t n = 1;; n++) {
 *         struct mm_test_fail fail = {0, n};
 *         status = operation under test, whose hook returns an error if mm_test_fails(&fail);
 *         if (fail.calls < n)
 *             break;              // the operation made fewer than n calls: every N was tried
 *         check that the status is an error and that nothing changed
 *     }
 */
struct mm_test_fail {
    uint64_t calls;
    uint64_t fail_at;
};

static MM_TEST_UNUSED bool mm_test_fails(struct mm_test_fail *fail)
{
    return ++fail->calls == fail->fail_at;
}

/* ---- threads -------------------------------------------------------------------------------- */

/* The number of the thread that asks: for MM_CPU_ID(). 0 in the main thread. */
static MM_TEST_UNUSED __thread unsigned mm_test_cpu;

/* What a thread runs. Returns the number of errors it saw: cmocka's assertions work only in the
 * main thread. */
typedef uint64_t (*mm_test_thread_fn)(unsigned cpu, void *arg);

struct mm_test_thread {
    pthread_t id;
    pthread_barrier_t *start;
    mm_test_thread_fn fn;
    void *arg;
    unsigned cpu;
    uint64_t errors;
};

static MM_TEST_UNUSED void *mm_test_thread_main(void *arg)
{
    struct mm_test_thread *thread = arg;

    mm_test_cpu = thread->cpu;
    pthread_barrier_wait(thread->start);
    thread->errors = thread->fn(thread->cpu, thread->arg);
    return NULL;
}

/* Runs fn(0, arg) ... fn(count - 1, arg) at the same time, at most 64; returns the sum of their
 * errors. */
static MM_TEST_UNUSED uint64_t mm_test_threads(unsigned count, mm_test_thread_fn fn, void *arg)
{
    struct mm_test_thread threads[64];
    pthread_barrier_t start;
    uint64_t errors = 0;

    assert_in_range(count, 1, 64);
    assert_int_equal(pthread_barrier_init(&start, NULL, count), 0);
    for (unsigned i = 0; i < count; i++) {
        struct mm_test_thread thread = {0, &start, fn, arg, i, 0};
        threads[i] = thread;
        assert_int_equal(pthread_create(&threads[i].id, NULL, mm_test_thread_main, &threads[i]), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i].id, NULL);
        errors += threads[i].errors;
    }
    pthread_barrier_destroy(&start);
    return errors;
}

#endif /* MM_TEST_H */
