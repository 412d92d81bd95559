/* frame.c - page frames with mm_frame.h: a boot map in, frames out
 *
 *     cc -I../.. frame.c && ./a.out
 */
#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"

#include <stdio.h>

static unsigned char metadata[1 << 16]; /* mm_frame_meta_size() tells how much is needed */

static void line(void *ctx, const char *text)
{
    (void)ctx;
    printf("  %s\n", text);
}

int main(void)
{
    /* What the firmware reports, in any order; overlaps and odd borders are welcome. */
    static const struct mm_frame_range map[] = {
        {0x0, 0x9fc00, MM_FRAME_USABLE},
        {0x9fc00, 0x60400, MM_FRAME_RESERVED},
        {0x100000, 0x7ee0000, MM_FRAME_USABLE},
        {0x200000, 0x180000, MM_FRAME_KERNEL},
        {0x7fe0000, 0x20000, MM_FRAME_ACPI_RECLAIM},
    };
    static const struct mm_frame_zone_config zones[] = {
        {.name = "DMA", .start = 0, .end = 16 << 20},
        {.name = "Normal", .start = 16 << 20, .end = MM_PA_NONE},
    };
    enum { DMA, NORMAL };
    struct mm_frame_request ring = {.count = 12, .align = 1 << 16, .boundary = 1 << 16};
    struct mm_frame_config config = {0};
    struct mm_frame_pool pool;
    mm_pa_t frame, huge, run, page_table[4];

    config.map = map;
    config.map_count = sizeof map / sizeof map[0];
    config.zones = zones;
    config.zone_count = 2;
    config.meta = metadata;
    config.meta_size = sizeof metadata;
    if (mm_frame_init(&pool, &config) != MM_OK)
        return 1;
    printf("two zones, %llu and %llu frames free\n",
           (unsigned long long)mm_frame_free_count(&pool, DMA),
           (unsigned long long)mm_frame_free_count(&pool, NORMAL));

    frame = mm_frame_alloc(&pool, MM_FRAME_ZONE(NORMAL));
    huge = mm_frame_alloc_order(&pool, MM_FRAME_HUGE_ORDER, MM_FRAME_ZONE(NORMAL));
    ring.flags = MM_FRAME_ZONE(DMA) | MM_FRAME_ONLY; /* a device that reaches 24 bits of address */
    run = mm_frame_alloc_run(&pool, &ring);
    printf("a frame at %#llx, 2 MiB at %#llx, 12 frames for DMA at %#llx\n",
           (unsigned long long)frame, (unsigned long long)huge, (unsigned long long)run);
    printf("four at once: %zu\n", mm_frame_alloc_bulk(&pool, 4, MM_FRAME_ZONE(NORMAL), page_table));

    printf("free the frame: %s\n", mm_status_name(mm_frame_free(&pool, frame)));
    printf("free it again: %s\n", mm_status_name(mm_frame_free(&pool, frame)));
    printf("free the kernel's image: %s\n", mm_status_name(mm_frame_free(&pool, 0x200000)));
    printf("half a page off: %s\n", mm_status_name(mm_frame_free(&pool, huge + 0x800)));

    mm_frame_dump(&pool, line, NULL);
    mm_frame_free_order(&pool, huge, MM_FRAME_HUGE_ORDER);
    mm_frame_free_run(&pool, run, ring.count);
    mm_frame_free_bulk(&pool, 4, page_table, NULL);
    printf("all given back: %s\n",
           mm_frame_check(&pool, 0, NULL) == MM_FRAME_HEALTHY ? "healthy, no leak" : "LEAK");
    return 0;
}
