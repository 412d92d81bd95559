/* Any sequence of calls of mm_buddy against a plain array of smallest blocks: who holds each of
 * them. */
#include "fuzz.h"
#define MM_CPU_MAX 2
unsigned cpu_now; /* not static: the inline functions use it */
#define MM_CPU_ID() cpu_now
#define MM_BUDDY_STATIC
#define MM_BUDDY_IMPLEMENTATION
#include "mm_buddy.h"

#define SHIFT     12
#define UNITS     700u
#define MAX_ORDER 8u
#define BASE      ((mm_pa_t)0x123000)

enum { FREE = 0, RESERVED = -1 }; /* else the number of the block's first unit + 1 */

static struct mm_buddy buddy;
static int holder[UNITS];

static mm_pa_t address(size_t unit)
{
    return BASE + ((mm_pa_t)unit << SHIFT);
}

static bool all(size_t first, size_t count, int who)
{
    for (size_t i = first; i < first + count; i++)
        if (i >= UNITS || holder[i] != who)
            return false;
    return true;
}

static void fill(size_t first, size_t count, int who)
{
    for (size_t i = first; i < first + count; i++)
        holder[i] = who;
}

static void got(mm_pa_t pa, size_t count)
{
    const size_t first = (size_t)((pa - BASE) >> SHIFT);
    if (pa == MM_PA_NONE)
        return;
    fuzz_require(pa >= BASE && all(first, count, FREE));
    fill(first, count, (int)first + 1);
}

static size_t length(size_t first)
{
    size_t n = 0;
    while (first + n < UNITS && holder[first + n] == (int)first + 1)
        n++;
    return n;
}

static void free_any(size_t unit)
{
    const enum mm_status status = mm_buddy_free(&buddy, address(unit));
    if (holder[unit] == FREE)
        fuzz_require(status == MM_ERR_INVALID);
    else if (holder[unit] == RESERVED)
        fuzz_require(status == MM_ERR_PERM || status == MM_ERR_ALIGN);
    else if (holder[unit] != (int)unit + 1)
        fuzz_require(status == MM_ERR_ALIGN);
    else
        fuzz_require(status == MM_OK);
    if (status == MM_OK)
        fill(unit, length(unit), FREE);
}

static void resize(size_t unit, size_t count)
{
    const size_t old = length(unit);
    if (mm_buddy_resize_exact(&buddy, address(unit), (uint64_t)count << SHIFT) != MM_OK)
        return;
    fuzz_require(old != 0 && count != 0 && (count <= old || all(unit + old, count - old, FREE)));
    fill(unit, old, FREE);
    fill(unit, count, (int)unit + 1);
}

static void reserve(size_t unit, size_t count)
{
    const bool fits = count != 0 && unit + count <= UNITS;
    const enum mm_status status = mm_buddy_reserve(&buddy, address(unit), (uint64_t)count << SHIFT);
    fuzz_require((status == MM_OK) == (fits && all(unit, count, FREE)));
    if (status == MM_OK)
        fill(unit, count, RESERVED);
}

static void release(size_t unit, size_t count)
{
    const bool fits = count != 0 && unit + count <= UNITS;
    if (mm_buddy_release(&buddy, address(unit), (uint64_t)count << SHIFT) != MM_OK)
        return;
    fuzz_require(fits && all(unit, count, RESERVED));
    fill(unit, count, FREE);
}

static void call(struct fuzz_input *in)
{
    const unsigned what = fuzz_byte(in), arg = fuzz_pair(in);
    const size_t unit = arg % UNITS, count = arg >> 6 & 63;
    const unsigned order = what >> 4;
    cpu_now = what >> 3 & 1;
    switch (what & 7) {
    case 0:
    case 1:
        got(mm_buddy_alloc(&buddy, order, arg & (3 | MM_BUDDY_NOCACHE)), (size_t)1 << order);
        break;
    case 2:
    case 3:
        free_any(unit);
        break;
    case 4:
        if (mm_buddy_alloc_at(&buddy, address(unit), order, 0) == MM_OK)
            got(address(unit), (size_t)1 << order);
        break;
    case 5:
        got(mm_buddy_alloc_exact(&buddy, (uint64_t)count << SHIFT, arg & 1), count);
        break;
    case 6:
        resize(unit, order * 3);
        break;
    default:
        if ((arg & 0x8000) != 0)
            reserve(unit, order);
        else
            release(unit, order);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct mm_buddy_config config;
    size_t meta_size, held = 0;
    void *meta;
    mm_buddy_config_init(&config, BASE, (uint64_t)UNITS << SHIFT, SHIFT, MAX_ORDER);
    config.cpu_lists = fuzz_byte(&in) & 1;
    meta_size = mm_buddy_meta_bytes(&config);
    meta = malloc(meta_size);
    fuzz_require(mm_buddy_init(&buddy, &config, meta, meta_size) == MM_OK);
    memset(holder, 0, sizeof holder);
    while (in.at < in.end)
        call(&in);
    fuzz_require(mm_buddy_check(&buddy) == MM_BUDDY_HEALTHY);
    mm_buddy_drain(&buddy);
    for (size_t i = 0; i < UNITS; i++)
        held += holder[i] != FREE;
    fuzz_require(mm_buddy_free_bytes(&buddy) == (uint64_t)(UNITS - held) << SHIFT);
    free(meta);
    return 0;
}
