/* heap.c - first-fit heap over a singly linked list of free blocks in order of address
 *
 * The classic of teaching kernels: malloc takes the first block that is large enough and splits it,
 * free walks to the block's place in the list and merges it with its neighbours. Sixteen bytes a
 * held block, for its size. */
#include "../alloc.h"

struct block {
    size_t size; /* bytes, with this header */
    struct block *next;
};

struct heap {
    struct block *first;
};

static void *heap_create(void *memory, size_t bytes)
{
    struct heap *h = memory;
    struct block *all = (struct block *)(h + 2); /* payloads stay aligned to 16 bytes */
    all->size = bytes - 2 * sizeof *h;
    all->next = NULL;
    h->first = all;
    return h;
}

static void *heap_alloc(void *self, size_t bytes)
{
    struct heap *h = self;
    size_t size = (bytes + sizeof(struct block) + 15) & ~(size_t)15;
    struct block **link = &h->first;
    while (*link != NULL && (*link)->size < size)
        link = &(*link)->next;
    struct block *b = *link;
    if (b == NULL)
        return NULL;
    if (b->size - size < 2 * sizeof *b) { /* the rest would be too small for anything */
        *link = b->next;
        return b + 1;
    }
    struct block *rest = (struct block *)((char *)b + size);
    rest->size = b->size - size;
    rest->next = b->next;
    *link = rest;
    b->size = size;
    return b + 1;
}

static void merge_with_next(struct block *b)
{
    if (b->next == NULL || (char *)b + b->size != (char *)b->next)
        return;
    b->size += b->next->size;
    b->next = b->next->next;
}

static void heap_free(void *self, void *p)
{
    struct heap *h = self;
    struct block *b = (struct block *)p - 1;
    struct block *before = NULL;
    struct block *after = h->first;
    while (after != NULL && after < b) {
        before = after;
        after = after->next;
    }
    b->next = after;
    merge_with_next(b);
    if (before == NULL) {
        h->first = b;
    } else {
        before->next = b;
        merge_with_next(before);
    }
}

const struct bench_heap_ops baseline_heap = {
    .name = "list-heap",
    .title = "heap with a linked list of free blocks, first fit",
    .create = heap_create,
    .alloc = heap_alloc,
    .free = heap_free,
};
