/* adapt.h - what the benchmark of small objects asks of an allocator
 *
 * One program is built for each allocator, from the same sources and one adapter, a header that
 * defines what stands here, so that the allocator is called as a program calls it: inlined, if its
 * header allows that, or as a function of a library. A program without any other malloc in it than
 * its own keeps the allocators from mixing. */
#ifndef BENCH_OBJECTS_ADAPT_H
#define BENCH_OBJECTS_ADAPT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The adapter defines:
 *   OBJ_NAME, OBJ_TITLE   as in the report
 *   OBJ_THREADS           1 if objects may be freed by another thread than their allocator
 *   OBJ_REAL              0 for what is no allocator: the empty driver
 *   OBJ_SLOW              divides the operations of long rows; 1 for all but the slowest
 *   obj_open()            called once
 *   obj_cpu(t)            the calling thread is CPU t from here on
 *   obj_alloc(size), obj_zalloc(size), obj_realloc(p, old, size)
 *   obj_free(p, size)     the size is for those that must be told
 *   obj_collect()         gives free memory back to the system, as far as the allocator can */

#endif
