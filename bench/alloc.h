/* alloc.h - what the benchmark asks of a frame allocator
 *
 * An allocator is one table of functions, defined in a file of its own and named once in
 * allocators.c. The benchmark makes every call through the table: that cost is the driver's, the
 * same for all, and the `empty` allocator shows it alone.
 *
 * Frames are numbers from 0 to nframes - 1; a block of order k is 2^k frames and starts at a
 * multiple of 2^k. One instance exists at a time, so that an allocator may keep its state in static
 * variables. */
#ifndef BENCH_ALLOC_H
#define BENCH_ALLOC_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_NONE UINT32_MAX

struct bench_ops {
    const char *name;   /* short, for names of benchmarks: "list-buddy" */
    const char *title;  /* for the report: "buddy with intrusive lists, 9 bytes a frame" */
    unsigned max_order; /* largest order that alloc() serves */
    int ideal;          /* hands out numbers that mean nothing: the empty driver */

    /* All frames free, for CPUs 0 to ncpus - 1; memory for the metadata comes from bench_meta().
     * NULL if it fails. */
    void *(*create)(uint32_t nframes, unsigned ncpus);
    void (*destroy)(void *self); /* may be NULL */

    /* A block of 2^order frames, or BENCH_NONE. */
    uint32_t (*alloc)(void *self, unsigned order);

    /* Takes it back; not 0 if the allocator refuses. The timed loops do not look at the result. */
    int (*free)(void *self, uint32_t frame, unsigned order);

    /* The rest may be NULL: rows that need it show no figure for this allocator. */

    /* n frames in a row, at any alignment */
    uint32_t (*alloc_run)(void *self, uint32_t n);
    int (*free_run)(void *self, uint32_t frame, uint32_t n);

    /* n single frames in one call, as addresses: frame times 4,096; alloc_bulk() returns how many
     * it got */
    uint32_t (*alloc_bulk)(void *self, uint64_t *pas, uint32_t n);
    int (*free_bulk)(void *self, const uint64_t *pas, uint32_t n);

    size_t (*meta_bytes)(void *self); /* metadata of this instance, all of it */

    /* The same allocator for several CPUs: with a lock around it, or itself where it is safe as it
     * is. */
    const struct bench_ops *smp;
};

/* All of them in the order of the report's columns, up to a NULL. */
extern const struct bench_ops *const bench_allocators[];

/* A heap, for the rows of byte sizes: heap.* */
struct bench_heap_ops {
    const char *name;
    const char *title;
    void *(*create)(void *memory, size_t bytes); /* `memory` is aligned to 2 MiB */
    void *(*alloc)(void *self, size_t bytes);    /* NULL if there is none */
    void (*free)(void *self, void *p);
};

extern const struct bench_heap_ops *const bench_heaps[];

/* Memory for metadata: aligned to 2 MiB for the first piece and to 4 KiB for the next ones, its
 * pages present, its contents left over from earlier runs. All of it returns to the benchmark after
 * destroy(). */
void *bench_meta(size_t bytes);
size_t bench_meta_used(void); /* bytes given to the present instance */

/* Number of the CPU that the calling thread plays, from 0. */
extern __thread unsigned bench_cpu __attribute__((tls_model("local-exec")));

#endif
