/* areas_sorted.c - areas in a sorted array (binary search), and in an unsorted one of 256
 * entries */
#include "../areas.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    uint64_t start, end;
    struct area *area;
};

struct sorted {
    size_t count, room;
    struct entry *e;
};

static void *create(size_t areas)
{
    struct sorted *s = calloc(1, sizeof *s);

    s->room = areas * 2 + 64;
    s->e = malloc(s->room * sizeof *s->e);
    return s;
}

static void destroy(void *map)
{
    struct sorted *s = map;

    free(s->e);
    free(s);
}

/* Number of entries that end up to the page. */
static size_t rank(const struct sorted *s, uint64_t page)
{
    const struct entry *e = s->e;
    size_t n = s->count;

    while (n > 1) {
        size_t half = n / 2;

        e += e[half - 1].end <= page ? half : 0;
        n -= half;
    }
    return (size_t)(e - s->e) + (n == 1 && e->end <= page);
}

static void insert(void *map, struct area *a)
{
    struct sorted *s = map;
    size_t i = rank(s, a->start);

    memmove(&s->e[i + 1], &s->e[i], (s->count - i) * sizeof *s->e);
    s->e[i] = (struct entry){a->start, a->end, a};
    s->count++;
}

static void erase(void *map, struct area *a)
{
    struct sorted *s = map;
    size_t i = rank(s, a->start);

    s->count--;
    memmove(&s->e[i], &s->e[i + 1], (s->count - i) * sizeof *s->e);
}

static struct area *from(void *map, uint64_t page)
{
    struct sorted *s = map;
    size_t i = rank(s, page);

    return i < s->count ? s->e[i].area : NULL;
}

static int flags(void *map, uint64_t page)
{
    struct sorted *s = map;
    size_t i = rank(s, page);

    return i < s->count && s->e[i].start <= page ? (int)s->e[i].area->flags : -1;
}

static uint64_t gap_up(void *map, uint64_t low, uint64_t pages)
{
    struct sorted *s = map;
    size_t i = rank(s, low);

    for (; i < s->count; i++) {
        if (s->e[i].start >= low && s->e[i].start - low >= pages)
            return low;
        low = s->e[i].end;
    }
    return low;
}

static uint64_t gap_down(void *map, uint64_t high, uint64_t pages)
{
    struct sorted *s = map;
    size_t i = rank(s, high - 1);

    if (i < s->count && s->e[i].start < high)
        high = s->e[i].start;
    for (; i-- != 0; high = s->e[i].start)
        if (high - s->e[i].end >= pages)
            return high - pages;
    return high >= pages ? high - pages : AREA_NONE;
}

static uint64_t walk(void *map)
{
    struct sorted *s = map;
    uint64_t sum = 0;

    for (size_t i = 0; i < s->count; i++)
        sum += s->e[i].area->flags;
    return sum;
}

static void *dup(void *map, struct area *objects)
{
    struct sorted *s = map, *d = create(s->count);

    for (size_t i = 0; i < s->count; i++) {
        objects[i] = *s->e[i].area;
        d->e[i] = (struct entry){s->e[i].start, s->e[i].end, &objects[i]};
    }
    d->count = s->count;
    return d;
}

static size_t bytes(void *map)
{
    return ((struct sorted *)map)->count * sizeof(struct entry);
}

static void resized(void *map, struct area *a, uint64_t start, uint64_t end)
{
    struct sorted *s = map;
    size_t i = rank(s, a->start);

    a->start = s->e[i].start = start;
    a->end = s->e[i].end = end;
}

const struct area_ops baseline_areas_sorted = {.name = "sorted",
                                               .title = "sorted array",
                                               .most = 65536,
                                               .create = create,
                                               .destroy = destroy,
                                               .insert = insert,
                                               .erase = erase,
                                               .flags = flags,
                                               .from = from,
                                               .gap_up = gap_up,
                                               .gap_down = gap_down,
                                               .walk = walk,
                                               .dup = dup,
                                               .dup_destroy = destroy,
                                               .bytes = bytes,
                                               .resized = resized};

/* ---- 256 entries in no order, as small kernels have them ------------------------------------- */

static void array_insert(void *map, struct area *a)
{
    struct sorted *s = map;

    s->e[s->count++] = (struct entry){a->start, a->end, a};
}

static size_t array_find(const struct sorted *s, uint64_t page)
{
    size_t i = 0;

    while (i < s->count && (s->e[i].start > page || s->e[i].end <= page))
        i++;
    return i;
}

static void array_erase(void *map, struct area *a)
{
    struct sorted *s = map;
    size_t i = array_find(s, a->start);

    s->e[i] = s->e[--s->count];
}

static int array_flags(void *map, uint64_t page)
{
    struct sorted *s = map;
    size_t i = array_find(s, page);

    return i < s->count ? (int)s->e[i].area->flags : -1;
}

const struct area_ops baseline_areas_array = {.name = "array256",
                                              .title = "array of 256",
                                              .most = 256,
                                              .create = create,
                                              .destroy = destroy,
                                              .insert = array_insert,
                                              .erase = array_erase,
                                              .flags = array_flags,
                                              .walk = walk,
                                              .dup = dup,
                                              .dup_destroy = destroy,
                                              .bytes = bytes};
