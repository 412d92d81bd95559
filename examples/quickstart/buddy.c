/* buddy.c - blocks with mm_buddy.h: guest memory, then a heap
 *
 *     cc -I../.. buddy.c && ./a.out
 */
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOW(pa) ((unsigned long long)(pa))

/* 64 MiB of a guest's memory from 1 GiB on. Nothing is there: the arena never touches it. */
static int guest_memory(void)
{
    struct mm_buddy_config config;
    struct mm_buddy_stats stats;
    struct mm_buddy guest;
    mm_pa_t page, huge, ring;
    void *meta;

    mm_buddy_config_init(&config, 0x40000000, 64 << 20, 12, 10); /* 4 KiB blocks, orders 0 to 10 */
    meta = malloc(mm_buddy_meta_bytes(&config));
    if (meta == NULL || mm_buddy_init(&guest, &config, meta, mm_buddy_meta_bytes(&config)) != MM_OK)
        return 1;
    printf("64 MiB of guest memory cost %zu KiB\n", mm_buddy_meta_bytes(&config) >> 10);

    page = mm_buddy_alloc(&guest, 0, MM_BUDDY_MOVABLE);
    huge = mm_buddy_alloc(&guest, 9, MM_BUDDY_MOVABLE);
    ring = mm_buddy_alloc_exact(&guest, 5 * 4096, MM_BUDDY_UNMOVABLE); /* five pages, not eight */
    printf("page %#llx, 2 MiB %#llx, ring of five pages %#llx\n", SHOW(page), SHOW(huge),
           SHOW(ring));
    printf("this very page: %s\n",
           mm_status_name(mm_buddy_alloc_at(&guest, page, 0, MM_BUDDY_MOVABLE)));

    mm_buddy_get_stats(&guest, &stats);
    printf("used: %llu KiB\n", SHOW(stats.used >> 10));
    printf("free by address alone: %s, %s, %s\n", mm_status_name(mm_buddy_free(&guest, ring)),
           mm_status_name(mm_buddy_free(&guest, huge)),
           mm_status_name(mm_buddy_free(&guest, page)));
    printf("free again: %s\n", mm_status_name(mm_buddy_free(&guest, page)));
    printf("check: %s\n", mm_buddy_check(&guest) == MM_BUDDY_HEALTHY ? "healthy" : "BROKEN");
    free(meta);
    return 0;
}

/* The C library's calls over an arena of 32-byte blocks with its metadata inside. */
static int heap(void)
{
    static _Alignas(4096) unsigned char memory[1 << 20];
    struct mm_buddy_config config;
    struct mm_buddy b;
    char *text;

    mm_buddy_config_init(&config, (mm_pa_t)(uintptr_t)memory, sizeof memory, 5, 15);
    if (mm_buddy_init_inside(&b, &config) != MM_OK)
        return 1;
    text = mm_buddy_malloc(&b, 40);
    strcpy(text, "grown in place or copied");
    text = mm_buddy_realloc(&b, text, 5000);
    printf("heap: %s, %zu bytes usable\n", text, mm_buddy_usable_size(&b, text));
    printf("heap: wild free %s\n", mm_status_name(mm_buddy_mfree(&b, text + 32)));
    printf("heap: free %s\n", mm_status_name(mm_buddy_mfree(&b, text)));
    return mm_buddy_check(&b) == MM_BUDDY_HEALTHY ? 0 : 1;
}

int main(void)
{
    return guest_memory() != 0 || heap() != 0;
}
