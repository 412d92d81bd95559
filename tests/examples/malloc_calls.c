/* Run with examples/malloc preloaded: every call that it offers, threads that come and go, forks. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(x)                                                                  \
    do {                                                                          \
        if (!(x)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #x); \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

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
    threads();
    forks();
    calls();
    return 0;
}
