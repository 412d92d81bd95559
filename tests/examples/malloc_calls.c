/* Run with examples/malloc preloaded: every call that it offers, threads that come and go,
 * forks. */
#define _GNU_SOURCE
#include "malloc_check.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

static void calls(void)
{
    volatile size_t most = SIZE_MAX, half = SIZE_MAX / 2 + 2;
    void *p = NULL;

    for (size_t size = 0; size < 300000; size = size * 9 / 8 + 1) {
        char *a = malloc(size), *c = calloc(1, size);
        CHECK(a != NULL && c != NULL && (uintptr_t)a % 16 == 0 && (uintptr_t)c % 16 == 0);
        CHECK(malloc_usable_size(a) >= size);
        for (size_t i = 0; i < size; i++)
            CHECK(c[i] == 0);
        memset(a, 1, size);
        memset(c, 2, size);
        a = realloc(a, size * 3 / 2 + 1);
        for (size_t i = 0; i < size; i++)
            CHECK(a[i] == 1);
        a = realloc(a, size / 2 + 1);
        for (size_t i = 0; i < size / 2; i++)
            CHECK(a[i] == 1);
        free(a);
        free(c);
    }
    for (size_t align = sizeof(void *); align <= 1 << 20; align *= 2) {
        for (size_t size = 1; size < 200000; size *= 7) {
            CHECK(posix_memalign(&p, align, size) == 0 && (uintptr_t)p % align == 0);
            memset(p, 3, size);
            free(p);
            p = aligned_alloc(align, size);
            CHECK(p != NULL && (uintptr_t)p % align == 0);
            free(p);
        }
    }
    p = &p;
    CHECK(posix_memalign(&p, 24, 8) == EINVAL && p == &p);
    CHECK(posix_memalign(&p, 16, most) == ENOMEM && p == &p);
    errno = 0;
    CHECK(malloc(most) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(half, 2) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(reallocarray(NULL, half, 4) == NULL && errno == ENOMEM);
    CHECK(memalign(48, 8) == NULL && errno == EINVAL);
    p = valloc(100);
    CHECK((uintptr_t)p % 4096 == 0);
    free(p);
    p = pvalloc(100);
    CHECK((uintptr_t)p % 4096 == 0 && malloc_usable_size(p) >= 4096);
    free(p);
    p = malloc(10);
    CHECK(realloc(p, 0) == NULL);
    p = malloc((size_t)3 << 20); /* grows by moving pages */
    memset(p, 5, (size_t)3 << 20);
    void *fence = malloc(100000);
    p = realloc(p, (size_t)200 << 20);
    for (size_t i = 0; i < (size_t)3 << 20; i++)
        CHECK(((char *)p)[i] == 5);
    CHECK(((char *)p)[100 << 20] == 0);
    free(p);
    free(fence);
    CHECK(malloc_usable_size(NULL) == 0);
    free(NULL);
    malloc_trim(0);
}

static void edges(void)
{
    volatile size_t most = SIZE_MAX, half = PTRDIFF_MAX;
    static const size_t sizes[] = {0, 1, 8, 9, 17, 8192, 8193, 65536, 70000, 3 << 20, 64 << 20};
    void *p = NULL;

    p = realloc(NULL, 0);
    CHECK(p != NULL);
    free(p);
    p = calloc(0, 5);
    CHECK(p != NULL && malloc_usable_size(p) > 0);
    free(p);
    CHECK(posix_memalign(&p, 0, 8) == EINVAL && posix_memalign(&p, 4, 8) == EINVAL);
    CHECK(posix_memalign(&p, (size_t)1 << 46, 8) == ENOMEM);
    CHECK(posix_memalign(&p, 64, 0) == 0 && p != NULL && (uintptr_t)p % 64 == 0);
    free(p);
    errno = 5;
    CHECK(posix_memalign(&p, 64, half) == ENOMEM && errno == 5); /* told by the result alone */
    CHECK(memalign(0, 8) == NULL && errno == EINVAL);
    for (unsigned i = 0; i < 5; i++) {
        void *(*const of_size[])(size_t) = {malloc, valloc, pvalloc};
        for (unsigned f = 0; f < 3; f++) {
            errno = 0;
            CHECK(of_size[f](i % 2 ? most - i : half) == NULL && errno == ENOMEM);
        }
    }
    p = malloc(100);
    errno = 0;
    CHECK(realloc(p, most) == NULL && errno == ENOMEM); /* p is as it was */
    memset(p, 1, 100);
    free(p);
    p = malloc(100000);
    errno = 0;
    CHECK(realloc(p, half) == NULL && errno == ENOMEM && malloc_usable_size(p) >= 100000);
    free(p);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        p = malloc(sizes[i]);
        CHECK(p != NULL);
        memset(p, 1, sizes[i]);
        errno = 77;
        free(p);
        CHECK(errno == 77);
    }
}

/* All that malloc_usable_size says may be written, and is nobody else's. */
static void usable(void)
{
    static unsigned char *p[600];
    static size_t had[600];
    for (size_t i = 0; i < 600; i++) {
        const size_t size = i * i / 4;
        p[i] = i % 3 == 0 ? memalign((size_t)16 << i % 10, size) : malloc(size);
        had[i] = malloc_usable_size(p[i]);
        CHECK(had[i] >= size);
        memset(p[i], (int)i, had[i]);
    }
    for (size_t i = 0; i < 600; i++) {
        for (size_t n = 0; n < had[i]; n++)
            CHECK(p[i][n] == (unsigned char)i);
        free(p[i]);
    }
}

/* calloc's memory is zero, whatever was there before. */
static void zeros(void)
{
    unsigned char *p[24] = {NULL};
    size_t size[24] = {0};
    unsigned seed = 1;
    for (unsigned i = 0; i < 600; i++) {
        const unsigned at = (seed = seed * 1103515245 + 12345) >> 16 & 15;
        const size_t bytes = (size_t)1 << (seed >> 20 & 7) << 15;
        free(p[at]);
        size[at] = bytes + bytes / 7 * (seed >> 24 & 7);
        p[at] = calloc(1, size[at]);
        CHECK(p[at] != NULL);
        for (size_t n = 0; n < size[at]; n++)
            CHECK(p[at][n] == 0);
        memset(p[at], 0xee, malloc_usable_size(p[at]));
        if (seed >> 27 & 1)
            p[at] = realloc(p[at], size[at] / 2 + 9000);
        if (i % 100 == 99)
            malloc_trim(0);
    }
    for (unsigned i = 0; i < 24; i++)
        free(p[i]);
}

/* More than the arena has at first, while most of it is never touched. */
static void *takes_much(void *arg)
{
    static const size_t bytes = (size_t)300 << 20;
    char *p[5];
    for (size_t i = 0; i < 5; i++) {
        CHECK((p[i] = malloc(bytes - i * 100000)) != NULL);
        p[i][0] = p[i][bytes - i * 100000 - 1] = (char)(i + (size_t)arg);
    }
    for (size_t i = 0; i < 5; i++) {
        CHECK(p[i][0] == (char)(i + (size_t)arg));
        CHECK(p[i][bytes - i * 100000 - 1] == (char)(i + (size_t)arg));
        free(p[i]);
    }
    return NULL;
}

static void much(void)
{
    pthread_t id[2];
    for (size_t i = 0; i < 2; i++)
        CHECK(pthread_create(&id[i], NULL, takes_much, (void *)(i * 10)) == 0);
    for (size_t i = 0; i < 2; i++)
        pthread_join(id[i], NULL);
    (void)takes_much((void *)50);
}

/* Bytes of memory and of address space that this program has. */
static size_t resident(size_t *space)
{
    unsigned long all = 0, here = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL && fscanf(f, "%lu %lu", &all, &here) == 2);
    fclose(f);
    *space = all * (size_t)sysconf(_SC_PAGESIZE);
    return here * (size_t)sysconf(_SC_PAGESIZE);
}

static void take_and_free(size_t blocks, size_t bytes)
{
    char *p[64];
    for (size_t i = 0; i < blocks; i++)
        memset(p[i] = malloc(bytes), 1, bytes);
    for (size_t i = 0; i < blocks; i++)
        free(p[i]);
}

static long faults(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_minflt;
}

/* What is freed goes back to the system if it is much, and is used again if it is not. */
static void freed_pages(void)
{
    size_t space, before = resident(&space);
    long n;
    take_and_free(50, 4 << 20);
    CHECK(resident(&space) < before + (40 << 20));
    malloc_trim(0);
    CHECK(resident(&space) < before + (8 << 20));
    take_and_free(4, 3 << 20);
    n = faults();
    for (unsigned i = 0; i < 50; i++)
        take_and_free(4, 3 << 20);
    CHECK(faults() < n + 3000); /* as many as one round has pages */
}

/* Where pages are locked the system does not take them back: they are not taken for zeros then, and
 * free leaves errno alone. */
static void locked(void)
{
    int status;
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        void *p[40];
        size_t space;
        (void)resident(&space);
        CHECK(space < (size_t)1 << 30); /* a reserve would be filled now */
        malloc_trim(0);                 /* so that it is free that meets the first refusal */
        if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
            _exit(errno != EPERM && errno != ENOMEM);
        for (unsigned i = 0; i < 40; i++)
            memset(p[i] = malloc(2 << 20), 1, 2 << 20);
        errno = 77;
        for (unsigned i = 0; i < 40; i++)
            free(p[i]);
        CHECK(errno == 77);
        zeros();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* A handler that forks while this thread is in the midst of a call: the child uses no memory. */
static volatile sig_atomic_t forked;
static void fork_in_handler(int signal)
{
    const int before = errno;
    int status = 1;
    (void)signal;
    if (forked == 100) /* else nothing but this would go on where a fork takes longer than 2 ms */
        return;
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        abort();
    forked++;
    errno = before;
}

static void handlers(void)
{
    const struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    signal(SIGALRM, fork_in_handler);
    setitimer(ITIMER_REAL, &often, NULL);
    while (forked < 100) {
        void *p[50]; /* of pages: each call locks */
        for (size_t i = 0; i < 50; i++)
            p[i] = malloc(10000 + i * 5000);
        for (size_t i = 0; i < 50; i++)
            free(p[i]);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_DFL);
}

/* An object travels from each thread to the next. */
static void *travel[128];
static void *thread(void *arg)
{
    const size_t n = (size_t)arg;
    void *mine[200];
    for (unsigned round = 0; round < 50; round++) {
        for (size_t i = 0; i < 200; i++) {
            mine[i] = malloc(16 + (i * 37 + n) % 900);
            memset(mine[i], (int)n, 16);
        }
        void *other = __atomic_exchange_n(&travel[(n + 1) % 128], mine[7], __ATOMIC_ACQ_REL);
        free(other);
        for (size_t i = 0; i < 200; i++) {
            if (i == 7)
                continue;
            if (*(unsigned char *)mine[i] != (unsigned char)n)
                abort();
            free(mine[i]);
        }
    }
    return NULL;
}

static void threads(void) /* more than there are slots, several times over */
{
    pthread_t id[100];
    for (unsigned round = 0; round < 5; round++) {
        for (size_t i = 0; i < 100; i++)
            CHECK(pthread_create(&id[i], NULL, thread, (void *)i) == 0);
        for (size_t i = 0; i < 100; i++)
            pthread_join(id[i], NULL);
    }
    for (size_t i = 0; i < 128; i++) {
        free(travel[i]);
        travel[i] = NULL;
    }
}

static void *short_lived(void *arg)
{
    for (size_t i = 0; i < 100; i++) /* one of each size stays behind in the thread's arrays */
        free(malloc(i * 80));
    return arg;
}

/* What a thread leaves behind serves others: thousands of them need no more than a few. */
static void short_threads(void)
{
    size_t before = 0, space;
    for (unsigned i = 0; i < 4000; i++) {
        pthread_t id;
        CHECK(pthread_create(&id, NULL, short_lived, NULL) == 0);
        pthread_join(id, NULL);
        if (i == 200)
            before = resident(&space);
    }
    CHECK(resident(&space) < before + (1 << 20));
}

/* Destructors of keys run when the thread has given its slot to the next one. */
static pthread_key_t last_key;
static void busy_destructor(void *value)
{
    size_t *p[30];
    for (unsigned round = 0; round < 300; round++) {
        for (size_t i = 0; i < 30; i++) {
            p[i] = malloc(64);
            p[i][0] = (size_t)&p[i];
        }
        if (round % 50 == 0)
            sched_yield();
        for (size_t i = 0; i < 30; i++) {
            CHECK(p[i][0] == (size_t)&p[i]);
            free(p[i]);
        }
    }
    free(value);
}
static void *ends_busily(void *arg)
{
    pthread_setspecific(last_key, malloc(64));
    return arg;
}

static void destructors(void)
{
    pthread_t id[40];
    CHECK(pthread_key_create(&last_key, busy_destructor) == 0);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 40; i++)
            CHECK(pthread_create(&id[i], NULL, ends_busily, NULL) == 0);
        for (unsigned i = 0; i < 40; i++)
            pthread_join(id[i], NULL);
    }
    pthread_key_delete(last_key);
}

/* So do many at once: what they leave can be given back. */
static pthread_barrier_t all_here;
static void *hoarder(void *arg)
{
    static __thread char *p[32][10];
    for (size_t size = 0; size < 32; size++)
        for (size_t i = 0; i < 10; i++)
            memset(p[size][i] = malloc(size * 256 + 100), 1, size * 256 + 100);
    pthread_barrier_wait(&all_here);
    for (size_t size = 0; size < 32; size++)
        for (size_t i = 0; i < 10; i++)
            free(p[size][i]);
    return arg;
}

static void hoards(void)
{
    size_t space, before;
    pthread_t id[50];
    malloc_trim(0);
    before = resident(&space);
    pthread_barrier_init(&all_here, NULL, 50);
    for (unsigned i = 0; i < 50; i++)
        CHECK(pthread_create(&id[i], NULL, hoarder, NULL) == 0);
    for (unsigned i = 0; i < 50; i++)
        pthread_join(id[i], NULL);
    malloc_trim(0);
    CHECK(resident(&space) < before + (16 << 20)); /* of 63 MiB */
}

static int stop;
static void *busy(void *arg)
{
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        void *p[300];
        for (size_t i = 0; i < 300; i++)
            p[i] = malloc(i * 50);
        for (size_t i = 0; i < 300; i++)
            free(p[i]);
    }
    return arg;
}

static void forks(void) /* while other threads are in the middle of it */
{
    pthread_t id[3];
    for (unsigned i = 0; i < 3; i++)
        CHECK(pthread_create(&id[i], NULL, busy, NULL) == 0);
    for (unsigned i = 0; i < 100; i++) {
        int status;
        const pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            pthread_t child;
            alarm(20);
            for (size_t n = 1; n < 100000; n = n * 5 / 4 + 1) {
                void *p = malloc(n);
                memset(p, 1, n);
                free(p);
            }
            if (pthread_create(&child, NULL, thread, (void *)1) != 0)
                _exit(2);
            pthread_join(child, NULL);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(id[i], NULL);
}

int main(void)
{
    calls();
    edges();
    usable();
    zeros();
    freed_pages();
    locked();
    much();
    threads();
    short_threads();
    destructors();
    hoards();
    forks();
    handlers();
    calls();
    freed_pages();
    zeros();
    return 0;
}
