/* pagetable.c - translation tables with mm_pagetable.h: x86_64, on any host
 *
 *     cc -I../.. pagetable.c && ./a.out
 */
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm_pagetable.h"

#include <stdio.h>

#define MB(n) ((uint64_t)(n) << 20)

/* The tables' "physical memory", from address 0. In a kernel: frames, by the direct map. */
static _Alignas(4096) unsigned char memory[64][4096];
static bool used[64] = {true}; /* page 0 stays free of tables */

static mm_pa_t table_alloc(void *ctx, uint64_t bytes)
{
    (void)ctx, (void)bytes;
    for (unsigned i = 0; i < 64; i++) {
        if (!used[i]) {
            used[i] = true;
            return (mm_pa_t)i * 4096;
        }
    }
    return MM_PA_NONE;
}

static void table_free(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx, (void)bytes;
    used[table / 4096] = false;
}

static void flush(void *ctx, const struct mm_pagetable_flush *what)
{
    (void)ctx;
    if (what->all)
        puts("  flush everything");
    for (unsigned i = 0; i < what->count; i++)
        printf("  flush %u KiB at %#llx\n", (unsigned)(what->ranges[i].bytes >> 10),
               (unsigned long long)what->ranges[i].va);
}

static void line(void *ctx, const char *text)
{
    (void)ctx;
    printf("  %s\n", text);
}

int main(void)
{
    static const struct mm_pagetable_hooks hooks = {
        .alloc = table_alloc, .free = table_free, .flush = flush};
    const uint32_t rw = MM_PAGETABLE_READ | MM_PAGETABLE_WRITE;
    const mm_va_t va = 0xffff800000000000;
    struct mm_pagetable_config config;
    struct mm_pagetable_access access;
    struct mm_pagetable pt;

    if (mm_pagetable_config_init(&config, NULL, &hooks, (uintptr_t)memory) != MM_OK ||
        mm_pagetable_init(&pt, &config) != MM_OK)
        return 1;

    puts("map 1 GiB and 6 MiB, then protect one page of it:");
    mm_pagetable_map(&pt, va, 0, MB(1024 + 6), rw, 0, NULL);
    mm_pagetable_protect(&pt, va + MB(1024), 4096, MM_PAGETABLE_READ, MM_PAGETABLE_PERMS, NULL);
    mm_pagetable_dump(&pt, line, NULL);

    mm_pagetable_predict(&pt, va + MB(1024), MM_PAGETABLE_ACCESS_WRITE | MM_PAGETABLE_CPU_WP, 0,
                         &access);
    printf("a write there: page fault, error code %#x\n", (unsigned)access.error_code);
    printf("2 MiB further on: %#llx\n",
           (unsigned long long)mm_pagetable_translate(&pt, va + MB(1026)));
    printf("mapped twice: %s\n", mm_status_name(mm_pagetable_map(&pt, va, 0, 4096, rw, 0, NULL)));
    puts("unmap all:");
    mm_pagetable_unmap(&pt, va, MB(1024 + 6), NULL);
    printf("destroy: %s\n", mm_status_name(mm_pagetable_destroy(&pt, false)));
    return 0;
}
