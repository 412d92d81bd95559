/* trace.h - recorded page-allocator traces, read into memory */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include <stdint.h>

/* A line of the file. */
struct trace_op {
    uint32_t slot;
    uint8_t is_free;
    uint8_t order; /* of a free too, though the file does not repeat it */
    uint8_t cpu;
    uint8_t run; /* frees of single frames on this CPU from this line on, 255 at most */
};

struct trace {
    char name[32];
    uint32_t nops, nslots, ncpus;
    uint32_t peak_pages; /* held at once, at most */
    struct trace_op *ops;
};

/* Reads `path`, a gzip file in the format of bench/traces/README.md. Ends the program on an error.
 * */
void trace_read(struct trace *t, const char *path);

#endif
