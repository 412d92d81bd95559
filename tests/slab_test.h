/* slab_test.h - what the tests of mm_slab.h share. Include it instead of the header. Before it,
 * SLAB_CPUS and SLAB_NO_REPORT may be defined. */
#ifndef SLAB_TEST_H
#define SLAB_TEST_H

#include "mm_test.h"

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_ASAN 1
#endif
#endif
#ifdef SLAB_ASAN
#include <sanitizer/asan_interface.h>
#define MM_SLAB_POISON(p, bytes)   __asan_poison_memory_region((p), (bytes))
#define MM_SLAB_UNPOISON(p, bytes) __asan_unpoison_memory_region((p), (bytes))
#else
#define SLAB_ASAN 0
#endif

#ifndef MM_CPU_MAX
#define MM_CPU_MAX 3
extern unsigned cpu_now;
unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID() cpu_now
#endif

/* The last report, and how many there were. */
struct reports {
    unsigned count;
    char where[64], what[256];
    int status;
    uint64_t address;
};
extern struct reports reports;
struct reports reports;
struct mm_report;
void note_report(const struct mm_report *r);
#define MM_REPORT(r) note_report(r)

#define MM_SLAB_IMPLEMENTATION
#include "mm_slab.h"

static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;
void note_report(const struct mm_report *r)
{
    pthread_mutex_lock(&report_lock);
    reports.count++;
    snprintf(reports.where, sizeof reports.where, "%s", r->where);
    snprintf(reports.what, sizeof reports.what, "%s", r->what);
    reports.status = r->status;
    reports.address = r->address;
    pthread_mutex_unlock(&report_lock);
}

#define SLAB_DEBUGGED (MM_SLAB_DEBUG >= 2) /* the size classes have debug flags */

/* A source of memory that counts, and fails at its N-th call, or from there on. */
struct source {
    struct mm_slab_hooks hooks;
    struct mm_test_fail fail;
    size_t bytes, calls, frees, purged;
    unsigned flags; /* of the last call */
    bool misalign, for_good;
    pthread_mutex_t lock;
};

static MM_TEST_UNUSED void *source_alloc(void *ctx, size_t bytes, size_t align, unsigned flags)
{
    struct source *s = ctx;
    char *p, *at;

    pthread_mutex_lock(&s->lock);
    s->calls++;
    s->flags = flags;
    if (mm_test_fails(&s->fail) || (s->for_good && s->fail.calls > s->fail.fail_at) ||
        bytes > (size_t)1 << 40 || align > (size_t)1 << 40) {
        pthread_mutex_unlock(&s->lock);
        return NULL;
    }
    s->bytes += bytes;
    pthread_mutex_unlock(&s->lock);
    p = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    at = (char *)(((uintptr_t)p + align - 1) & ~(uintptr_t)(align - 1));
    if (at > p)
        munmap(p, (size_t)(at - p));
    if (at < p + align)
        munmap(at + bytes, (size_t)(p + align - at));
    memset(at, 0xa5, bytes < 65536 ? bytes : 65536);
    return at + (s->misalign ? 16 : 0);
}

static MM_TEST_UNUSED void source_free(void *ctx, void *ptr, size_t bytes)
{
    struct source *s = ctx;
    pthread_mutex_lock(&s->lock);
    s->bytes -= bytes;
    s->frees++;
    pthread_mutex_unlock(&s->lock);
    /* without a table to ask, what was memory of the heap has to stay readable */
    ptr = (void *)((uintptr_t)ptr & ~(uintptr_t)4095);
    if (MM_SLAB_DEBUG >= 1)
        munmap(ptr, bytes);
    else
        madvise(ptr, bytes, MADV_DONTNEED);
}

static MM_TEST_UNUSED void source_purge(void *ctx, void *ptr, size_t bytes)
{
    struct source *s = ctx;
    assert_int_equal((uintptr_t)ptr % 4096, 0);
    __atomic_fetch_add(&s->purged, bytes, __ATOMIC_RELAXED);
    memset(ptr, 0xe7, bytes);
}

/* Readers: a grace period is over when the test says so. */
extern uintptr_t grace_now, grace_over;
extern unsigned grace_waits;
uintptr_t grace_now = 1, grace_over;
unsigned grace_waits;
static MM_TEST_UNUSED uintptr_t grace_start(void *ctx)
{
    (void)ctx;
    return __atomic_add_fetch(&grace_now, 1, __ATOMIC_RELAXED);
}
static MM_TEST_UNUSED bool grace_done(void *ctx, uintptr_t grace)
{
    (void)ctx;
    return grace <= __atomic_load_n(&grace_over, __ATOMIC_RELAXED);
}
static MM_TEST_UNUSED void grace_wait(void *ctx)
{
    (void)ctx;
    grace_waits++;
    __atomic_store_n(&grace_over, grace_now, __ATOMIC_RELAXED);
}

static MM_TEST_UNUSED struct mm_slab_heap heap;
static MM_TEST_UNUSED struct source source;
static MM_TEST_UNUSED struct mm_slab_config config;

/* Defaults, to be changed before heap_make. */
static MM_TEST_UNUSED void heap_begin(void)
{
    memset(&source, 0, sizeof source);
    pthread_mutex_init(&source.lock, NULL);
    source.hooks.ctx = &source;
    source.hooks.alloc = source_alloc;
    source.hooks.free = source_free;
    source.hooks.purge = source_purge;
    source.hooks.grace_start = grace_start;
    source.hooks.grace_done = grace_done;
    source.hooks.grace_wait = grace_wait;
    memset(&reports, 0, sizeof reports);
    memset(&heap, 0xa5, sizeof heap);
#ifdef SLAB_CPU_NOW
    SLAB_CPU_NOW = 0;
#endif
    mm_slab_config_init(&config, &source.hooks);
}

static MM_TEST_UNUSED void heap_make(void)
{
    assert_int_equal(mm_slab_init(&heap, &config), MM_OK);
}

static MM_TEST_UNUSED void heap_simple(void)
{
    heap_begin();
    heap_make();
}

/* A heap whose classes have no debug flags, whatever the build. */
static MM_TEST_UNUSED void heap_plain(void)
{
    heap_begin();
    config.flags = 0;
    heap_make();
}

/* Everything was freed, and everything goes back. */
static MM_TEST_UNUSED void heap_end(void)
{
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_fini(&heap), MM_OK);
    assert_int_equal(source.bytes, 0);
}

static MM_TEST_UNUSED struct mm_slab_cache_stats cache_stats(struct mm_slab_cache *cache)
{
    struct mm_slab_cache_stats stats;
    mm_slab_cache_get_stats(cache, &stats);
    return stats;
}

static MM_TEST_UNUSED struct mm_slab_stats heap_stats(void)
{
    struct mm_slab_stats stats;
    mm_slab_get_stats(&heap, &stats);
    return stats;
}

static MM_TEST_UNUSED uintptr_t misuse_total(void)
{
    uintptr_t n = heap_stats().misuse;
    struct mm_slab_cache *c = NULL;
    while ((c = mm_slab_next_cache(&heap, c)) != NULL)
        n += cache_stats(c).misuse;
    return n;
}

#endif
