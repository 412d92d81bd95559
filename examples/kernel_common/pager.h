/* pager.h - where programs' pages come from, and go to: files that they map, and a swap disk */
#ifndef PAGER_H
#define PAGER_H

#include "../kernel_mm/kernel_mm.h"

/* A file: content in memory, pages in a cache of frames while somebody maps them. */
struct file {
    const char *name;
    unsigned char *data;
    uint64_t bytes;
    struct file_page {
        mm_pa_t pa;     /* MM_PA_NONE: not cached */
        uintptr_t maps; /* a frame stays in the cache while somebody maps it */
    } * pages;
    uintptr_t reads, writes, references;
    bool shared_memory; /* made for shared anonymous memory: goes with its last reference */
    MM_LOCK_T lock;
};
enum mm_status file_open(struct file *file, const char *name, void *data, uint64_t bytes);
void file_close(struct file *file);

/* The swap disk, in memory. Until it is there no page is written away. */
extern struct disk {
    unsigned char *data;
    uintptr_t *users; /* of each slot; 0: free */
    uintptr_t slots, used, rover;
    uintptr_t reads;
} disk;
enum mm_status disk_init(uint64_t bytes);

extern const struct mm_vma_hooks pager; /* for kmm_config; a request's file is a struct file */

#endif /* PAGER_H */
