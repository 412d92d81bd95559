/* adapt_libc.h - whichever malloc the program is linked with */
#include "adapt.h"

#include <stdlib.h>

#define OBJ_THREADS 1
#define OBJ_REAL    1
#define OBJ_SLOW    1

#if defined(OBJ_JEMALLOC)
#define OBJ_NAME  "jemalloc"
#define OBJ_TITLE "jemalloc, Debian's package"
int mallctl(const char *name, void *old, size_t *old_size, void *value, size_t size);
static void obj_collect(void)
{
    mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    mallctl("arena.4096.purge", NULL, NULL, NULL, 0); /* MALLCTL_ARENAS_ALL */
}
#elif defined(OBJ_MIMALLOC)
#define OBJ_NAME  "mimalloc"
#define OBJ_TITLE "mimalloc 2, Debian's package"
void mi_collect(_Bool force);
static void obj_collect(void)
{
    mi_collect(1);
}
#elif defined(OBJ_TCMALLOC)
#define OBJ_NAME  "tcmalloc"
#define OBJ_TITLE "tcmalloc of gperftools, Debian's package"
void MallocExtension_ReleaseFreeMemory(void);
static void obj_collect(void)
{
    MallocExtension_ReleaseFreeMemory();
}
#else
#include <malloc.h>
#define OBJ_NAME  "glibc"
#define OBJ_TITLE "malloc of the GNU C library"
static void obj_collect(void)
{
    malloc_trim(0);
}
#endif

static void obj_open(void)
{
}

static inline void obj_cpu(int t)
{
    (void)t;
}

static inline void *obj_alloc(size_t size)
{
    void *p = malloc(size);
    __asm__ volatile("" : "+r"(p)); /* or the compiler removes the pair */
    return p;
}

static inline void *obj_zalloc(size_t size)
{
    return calloc(1, size);
}

static inline void *obj_realloc(void *p, size_t old, size_t size)
{
    (void)old;
    return realloc(p, size);
}

static inline void obj_free(void *p, size_t size)
{
    (void)size;
    free(p);
}
