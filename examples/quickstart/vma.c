/* vma.c - an address space with mm_vma.h: what is mapped where (faults need more hooks than here)
 *
 *     cc -I../.. vma.c && ./a.out
 */
#define MM_VMA_IMPLEMENTATION
#include "mm_vma.h"

#include <stdio.h>
#include <stdlib.h>

static struct mm_vma_node *node_alloc(void *ctx)
{
    (void)ctx;
    return aligned_alloc(MM_VMA_CACHE_LINE, sizeof(struct mm_vma_node));
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    free(node);
}

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    return aligned_alloc(MM_VMA_CACHE_LINE, sizeof(struct mm_vma));
}

static void area_free(void *ctx, struct mm_vma *area)
{
    (void)ctx;
    free(area);
}

static void line(void *ctx, const char *text, size_t length)
{
    (void)ctx;
    printf("  %.*s\n", (int)length, text);
}

static struct mm_vma_system sys;
static struct mm_vma_space space;

int main(void)
{
    static const struct mm_vma_hooks hooks = {
        .nodes = {NULL, node_alloc, node_free}, .area_alloc = area_alloc, .area_free = area_free};
    const struct mm_vma_request request = {.bytes = 64 << 10,
                                           .prot = MM_VMA_READ | MM_VMA_WRITE,
                                           .flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS};
    struct mm_vma_config config;
    mm_va_t va, next;

    mm_vma_config_init(&config);
    if (mm_vma_system_init(&sys, &hooks) != MM_OK ||
        mm_vma_space_init(&space, &sys, &config) != MM_OK)
        return 1;

    mm_vma_install(&space, MM_VMA_CODE, 0x400000, 0x2000, 0, 0);
    mm_vma_install(&space, MM_VMA_HEAP, 0x600000, 0x3000, 0, 0);
    mm_vma_install(&space, MM_VMA_STACK, 0x7ffffffde000, 0x21000, 0, 0);
    if (mm_vma_mmap(&space, &request, &va) != 0 || mm_vma_mmap(&space, &request, &next) != 0)
        return 1;
    printf("two mappings, %s\n", next + request.bytes == va ? "merged into one area" : "apart");
    printf("protect a page: %d\n", mm_vma_mprotect(&space, va, 4096, MM_VMA_READ));
    printf("unmap a page: %d\n", mm_vma_munmap(&space, va + 0x4000, 4096));
    printf("the break: %#llx\n", (unsigned long long)mm_vma_brk(&space, 0x608000));
    printf("protect a hole: %d (ENOMEM)\n",
           mm_vma_mprotect(&space, va + 0x4000, 4096, MM_VMA_READ));
    mm_vma_list(&space, line, NULL);

    if (mm_vma_fault(&space, 0x400000, MM_VMA_WRITE) == MM_VMA_FAULT_WRITE)
        puts("a write to code: not allowed");
    if (mm_vma_fault(&space, 0, MM_VMA_READ) == MM_VMA_FAULT_NONE)
        puts("a read at address 0: nothing there");
    printf("check: %s\n", mm_status_name(mm_vma_check(&space)));
    mm_vma_leave(&space); /* the only thread exits: all is unmapped */
    mm_vma_system_fini(&sys);
    return 0;
}
