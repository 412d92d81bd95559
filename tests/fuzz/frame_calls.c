/* Any sequence of calls of mm_frame against a plain array of frames. */
#include "fuzz.h"
#define MM_CPU_MAX 2
unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID() cpu_now
#define MM_FRAME_STATIC
#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"

#define FRAMES 9000u
#define HOLE   4000u /* frames from here on to HOLE + 500 are missing */

static struct mm_frame_pool pool;
static bool held[FRAMES];

static bool exists(size_t frame)
{
    return frame < FRAMES && (frame < HOLE || frame >= HOLE + 500);
}

static bool all(size_t first, size_t count, bool want)
{
    for (size_t i = first; i < first + count; i++)
        if (!exists(i) || held[i] != want)
            return false;
    return true;
}

static mm_pa_t address(size_t frame)
{
    return (mm_pa_t)frame << MM_PAGE_SHIFT;
}

static void got(mm_pa_t pa, size_t count)
{
    if (pa == MM_PA_NONE)
        return;
    fuzz_require(all((size_t)(pa >> MM_PAGE_SHIFT), count, false));
    memset(&held[pa >> MM_PAGE_SHIFT], true, count);
}

/* Frames were freed, or not: all or nothing. */
static void given(size_t first, size_t count, enum mm_status status)
{
    const bool good = all(first, count, true) && count != 0;
    fuzz_require((status == MM_OK) == good);
    if (good)
        memset(&held[first], false, count);
}

static void give(size_t first, size_t count)
{
    given(first, count, mm_frame_free_run(&pool, address(first), count));
}

static void bulk(size_t count, bool back)
{
    mm_pa_t pa[64];
    const size_t n = mm_frame_alloc_bulk(&pool, count, 0, pa);
    enum mm_status status = MM_OK;
    fuzz_require(n <= count);
    for (size_t i = 0; i < n; i++)
        got(pa[i], 1);
    if (!back)
        return;
    fuzz_require(mm_frame_free_bulk(&pool, n, pa, &status) == n && status == MM_OK);
    for (size_t i = 0; i < n; i++)
        held[pa[i] >> MM_PAGE_SHIFT] = false;
}

static void call(struct fuzz_input *in)
{
    const unsigned what = fuzz_byte(in), arg = fuzz_pair(in);
    const size_t frame = arg % (FRAMES + 100);
    const unsigned order = what >> 4;
    cpu_now = what >> 3 & 1;
    switch (what & 7) {
    case 0:
        got(mm_frame_alloc(&pool, 0), 1);
        break;
    case 1:
        got(mm_frame_alloc_order(&pool, order, 0), (size_t)1 << order);
        break;
    case 2:
    case 3:
        given(frame, 1, mm_frame_free(&pool, address(frame)));
        break;
    case 4: {
        const size_t count = (size_t)1 << order % 10, first = frame & ~(count - 1);
        given(first, count, mm_frame_free_order(&pool, address(first), order % 10));
        break;
    }
    case 5:
        if (mm_frame_alloc_at(&pool, address(frame), order + 1) == MM_OK)
            got(address(frame), order + 1);
        break;
    case 6:
        bulk(arg & 63, (arg & 64) != 0);
        break;
    default:
        give(frame, order * 5);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mm_frame_range map[] = {
        {0, (uint64_t)HOLE << MM_PAGE_SHIFT, MM_FRAME_USABLE},
        {(mm_pa_t)(HOLE + 500) << MM_PAGE_SHIFT, (uint64_t)(FRAMES - HOLE - 500) << MM_PAGE_SHIFT,
         MM_FRAME_USABLE},
    };
    struct fuzz_input in = {data, data + size};
    struct mm_frame_config config = {0};
    const char *what = NULL;
    uint64_t used = 0;
    config.map = map;
    config.map_count = 2;
    fuzz_require(mm_frame_meta_size(&config, &config.meta_size) == MM_OK);
    config.meta = malloc(config.meta_size);
    fuzz_require(mm_frame_init(&pool, &config) == MM_OK);
    memset(held, 0, sizeof held);
    while (in.at < in.end)
        call(&in);
    for (size_t i = 0; i < FRAMES; i++)
        used += held[i];
    fuzz_require(mm_frame_check(&pool, used, &what) == MM_FRAME_HEALTHY);
    free(config.meta);
    return 0;
}
