/* vma_test.h - what the tests of mm_vma.h share: a node source that can fail, areas, counts. */
#ifndef VMA_TEST_H
#define VMA_TEST_H

#include "mm_test.h"

#define MM_VMA_IMPLEMENTATION
#include "mm_vma.h"

#define PAGE ((uint64_t)1 << MM_PAGE_SHIFT)

/* Nodes from malloc, counted. */
struct vma_source {
    struct mm_vma_node_source hooks;
    struct mm_test_fail fail;
    long live;
};

static MM_TEST_UNUSED struct mm_vma_node *vma_source_alloc(void *ctx)
{
    struct vma_source *s = ctx;
    void *node;

    if (mm_test_fails(&s->fail))
        return NULL;
    node = aligned_alloc(MM_VMA_CACHE_LINE, sizeof(struct mm_vma_node));
    memset(node, 0xa5, sizeof(struct mm_vma_node));
    s->live++;
    return node;
}

static MM_TEST_UNUSED void vma_source_free(void *ctx, struct mm_vma_node *node)
{
    struct vma_source *s = ctx;

    s->live--;
    free(node);
}

static MM_TEST_UNUSED void vma_source_init(struct vma_source *s)
{
    memset(s, 0, sizeof *s);
    s->hooks.ctx = s;
    s->hooks.alloc = vma_source_alloc;
    s->hooks.free = vma_source_free;
}

#endif /* VMA_TEST_H */
