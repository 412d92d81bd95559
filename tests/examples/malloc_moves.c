/* Run with examples/malloc preloaded: large blocks grow while the system refuses to move pages, as
 * different versions of Linux do it. */
#define _GNU_SOURCE
#include "malloc_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define MIB ((size_t)1 << 20)

/* What mremap does. */
enum way { MOVES, REFUSES, UNMAPS, MOVES_PART };
static enum way way;
static bool short_of_memory; /* and from then on nothing can be mapped */
static unsigned refused;

static void limit_memory(bool on)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = on ? MIB : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* In the place of the C library's, for the preloaded library. */
void *mremap(void *from, size_t had, size_t want, int flags, ...)
{
    const size_t part = 3 * 65536;
    va_list rest;
    void *to;

    va_start(rest, flags);
    to = va_arg(rest, void *);
    va_end(rest);
    if (way == MOVES)
        return (void *)syscall(SYS_mremap, from, had, want, flags, to);
    refused++;
    if (way != REFUSES)
        CHECK(munmap(to, want) == 0);
    if (way == MOVES_PART)
        CHECK(syscall(SYS_mremap, from, part, part, flags, to) == (long)to);
    if (short_of_memory)
        limit_memory(true);
    errno = way == REFUSES ? EINVAL : EFAULT;
    return MAP_FAILED;
}

static void fill(char *p, size_t from, size_t to)
{
    for (size_t i = from; i < to; i += 512)
        *(size_t *)(void *)(p + i) = i + 1;
}

static void check(const char *p, size_t to)
{
    for (size_t i = 0; i < to; i += 512)
        CHECK(*(const size_t *)(const void *)(p + i) == i + 1);
}

/* Two blocks that are in each other's way, from 4 MiB to 40. */
static void grow(void)
{
    char *p[2] = {malloc(4 * MIB), malloc(4 * MIB)};

    for (size_t i = 0; i < 2; i++) {
        CHECK(p[i] != NULL);
        fill(p[i], 0, 4 * MIB);
    }
    for (size_t bytes = 4 * MIB; bytes < 40 * MIB; bytes += 3 * MIB) {
        for (size_t i = 0; i < 2; i++) {
            p[i] = realloc(p[i], bytes + 3 * MIB);
            CHECK(p[i] != NULL);
            check(p[i], bytes);
            fill(p[i], bytes, bytes + 3 * MIB);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        check(p[i], 40 * MIB);
        free(p[i]);
    }
}

/* The block is as it was where there is no memory for another. */
static void stays(void)
{
    char *p = malloc(4 * MIB), *big = malloc(64 * MIB), *fence;

    free(big); /* its addresses stay open */
    CHECK(p != NULL && (fence = malloc(MIB)) != NULL);
    fill(p, 0, 4 * MIB);
    short_of_memory = true;
    errno = 0;
    CHECK(realloc(p, 8 * MIB) == NULL && errno == ENOMEM);
    limit_memory(false);
    short_of_memory = false;
    check(p, 4 * MIB);
    way = MOVES;
    p = realloc(p, 8 * MIB);
    CHECK(p != NULL);
    check(p, 4 * MIB);
    free(p);
    free(fence);
}

int main(void)
{
    for (way = MOVES; way <= MOVES_PART; way++) {
        const unsigned before = refused;
        grow();
        CHECK(refused > before || way == MOVES);
    }
    for (enum way w = UNMAPS; w <= MOVES_PART; w++) {
        const unsigned before = refused;
        way = w;
        stays();
        CHECK(refused == before + 1);
    }
    return 0;
}
