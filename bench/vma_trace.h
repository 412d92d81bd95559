/* vma_trace.h - reads the recorded memory calls of bench/traces/vma (format:
 * bench/traces/README.md). */
#ifndef VMA_TRACE_H
#define VMA_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum vma_call {
    VMA_MMAP,
    VMA_MUNMAP,
    VMA_MPROTECT,
    VMA_MREMAP,
    VMA_BRK,
    VMA_MADVISE,
    VMA_MLOCK,
    VMA_MUNLOCK,
    VMA_SHMAT,
    VMA_SHMDT,
    VMA_FORK,
    VMA_VFORK,
    VMA_THREAD,
    VMA_EXEC,
    VMA_EXIT,
    VMA_SNAPSHOT,
    VMA_LINE
};

struct vma_op {
    enum vma_call call;
    unsigned process, child; /* VMA_SNAPSHOT: `child` is its letter */
    uint64_t arg[5];         /* as the line has them; mmap: hint, length, -, -, offset */
    unsigned prot, flags;    /* with Linux's bits */
    unsigned file;           /* 0: none; also of a snapshot's line */
    char what[24];           /* of a snapshot's line */
    int64_t result;
};

struct vma_trace {
    struct vma_op *ops;
    size_t count, room;
    unsigned processes;
};

static inline unsigned vma_trace_prot(const char *s)
{
    unsigned prot = 0;

    for (; *s != 0; s++)
        prot |= *s == 'r' ? 1u : *s == 'w' ? 2u : *s == 'x' ? 4u : *s == 'G' ? 0x1000000u : 0u;
    return prot;
}

static inline unsigned vma_trace_flags(const char *s)
{
    static const struct {
        char letter;
        unsigned flag;
    } known[] = {{'P', 2},        {'S', 1},       {'V', 3},      {'A', 0x20},   {'F', 0x10},
                 {'n', 0x100000}, {'s', 0x20000}, {'N', 0x4000}, {'p', 0x8000}, {'g', 0x100},
                 {'h', 0x40000},  {'3', 0x40},    {'L', 0x2000}};
    unsigned flags = 0;

    for (; *s != 0; s++)
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            flags |= *s == known[i].letter ? known[i].flag : 0;
    return flags;
}

static inline int64_t vma_trace_result(const char *s)
{
    return s[0] == '-' ? -strtoll(s + 1, NULL, 10) : (int64_t)strtoull(s, NULL, 16);
}

/* f12 or c7 or o3: kinds keep their numbers apart. */
static inline unsigned vma_trace_file(const char *s)
{
    return (unsigned)strtoul(s + 1, NULL, 10) * 4 + (s[0] == 'f' ? 1u : s[0] == 'c' ? 2u : 3u);
}

/* One line, split at spaces, into *op. False for lines that are no operation. */
static inline bool vma_trace_parse(char **t, unsigned n, struct vma_op *op)
{
    static const char *const names[] = {"mmap",    "munmap", "mprotect", "mremap", "brk",
                                        "madvise", "mlock",  "munlock",  "shmat",  "shmdt",
                                        "fork",    "vfork",  "thread",   "exec",   "exit"};
    unsigned i;

    memset(op, 0, sizeof *op);
    if (strcmp(t[0], "=") == 0) {
        op->call = VMA_LINE;
        op->arg[0] = strtoull(t[1], NULL, 16);
        op->arg[1] = strtoull(t[2], NULL, 16);
        op->prot = vma_trace_prot(t[3]);
        op->flags = t[3][3] == 's' ? 1 : 2;
        op->arg[4] = strtoull(t[4], NULL, 16);
        snprintf(op->what, sizeof op->what, "%s", t[5]);
        op->file = t[5][0] == 'f' ? vma_trace_file(t[5]) : 0;
        return true;
    }
    op->process = (unsigned)strtoul(t[1], NULL, 10);
    if (t[0][1] == 0) {
        op->call = VMA_SNAPSHOT;
        op->child = (unsigned)t[0][0];
        op->arg[0] = strtoull(t[2], NULL, 10);
        return true;
    }
    for (i = 0; i < sizeof names / sizeof names[0] && strcmp(t[0], names[i]) != 0; i++)
        continue;
    op->call = (enum vma_call)i;
    for (i = 2; i < n && i < 7; i++)
        op->arg[i - 2] = strtoull(t[i], NULL, 16);
    switch (op->call) {
    case VMA_MMAP:
        op->prot = vma_trace_prot(t[4]);
        op->flags = vma_trace_flags(t[5]);
        op->arg[4] = 0;
        if (t[6][0] != '-') {
            op->file = vma_trace_file(t[6]);
            op->arg[4] = strtoull(strchr(t[6], ':') + 1, NULL, 16);
        }
        op->result = vma_trace_result(t[7]);
        break;
    case VMA_MPROTECT:
    case VMA_SHMAT:
        op->prot = vma_trace_prot(t[4]);
        op->result = vma_trace_result(t[5]);
        break;
    case VMA_MADVISE:
        op->arg[2] = strtoull(t[4], NULL, 10);
        op->result = vma_trace_result(t[5]);
        break;
    case VMA_MREMAP:
        op->result = vma_trace_result(t[7]);
        break;
    case VMA_FORK:
    case VMA_VFORK:
        op->child = (unsigned)strtoul(t[2], NULL, 10);
        break;
    case VMA_THREAD:
    case VMA_EXEC:
    case VMA_EXIT:
        break;
    default:
        op->result = vma_trace_result(t[op->call == VMA_BRK || op->call == VMA_SHMDT ? 3 : 4]);
    }
    return true;
}

/* Reads a gzip-compressed trace; false if it cannot be read. The caller frees `ops`. */
static inline bool vma_trace_read(struct vma_trace *trace, const char *path)
{
    char line[512], *t[16];
    FILE *in;

    memset(trace, 0, sizeof *trace);
    snprintf(line, sizeof line, "gzip -dc '%s'", path);
    in = popen(line, "r");
    if (in == NULL)
        return false;
    while (fgets(line, sizeof line, in) != NULL) {
        unsigned n = 0;
        struct vma_op *op;

        if (line[0] == '#')
            continue;
        for (char *s = strtok(line, " \n"); s != NULL && n < 16; s = strtok(NULL, " \n"))
            t[n++] = s;
        if (trace->count == trace->room) {
            trace->room = trace->room == 0 ? 4096 : trace->room * 2;
            trace->ops = realloc(trace->ops, trace->room * sizeof *trace->ops);
            if (trace->ops == NULL)
                abort();
        }
        op = &trace->ops[trace->count];
        if (n < 2 || !vma_trace_parse(t, n, op))
            continue;
        trace->count++;
        if (op->process + 1 > trace->processes)
            trace->processes = op->process + 1;
        if ((op->call == VMA_FORK || op->call == VMA_VFORK) && op->child + 1 > trace->processes)
            trace->processes = op->child + 1;
    }
    return pclose(in) == 0 && trace->count != 0;
}

#endif /* VMA_TRACE_H */
