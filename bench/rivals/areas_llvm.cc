/* areas_llvm.cc - areas in LLVM's IntervalMap, a B+-tree of intervals
 *
 * [start, end) -> a word: the area object with the flags in its low bits, so that a search reads
 * nothing but the tree. It keeps no gaps: the rows that look for them are left out. */
#include "../areas.h"

#include <llvm/ADT/IntervalMap.h>

namespace
{

using tree = llvm::IntervalMap<uint64_t, uintptr_t, 16, llvm::IntervalMapHalfOpenInfo<uint64_t>>;

struct area_map {
    tree::Allocator nodes;
    tree t{nodes};
};

tree &tree_of(void *map)
{
    return static_cast<area_map *>(map)->t;
}

void *create(size_t)
{
    return new area_map;
}

void destroy(void *map)
{
    delete static_cast<area_map *>(map);
}

void insert(void *map, struct area *a)
{
    tree_of(map).insert(a->start, a->end, area_word(a));
}

void erase(void *map, struct area *a)
{
    tree_of(map).find(a->start).erase();
}

int flags(void *map, uint64_t page)
{
    uintptr_t word = tree_of(map).lookup(page);

    return word != 0 ? static_cast<int>(word & AREA_WORD_FLAGS) : -1;
}

struct area *from(void *map, uint64_t page)
{
    auto i = tree_of(map).find(page);

    return i.valid() ? area_of_word(i.value()) : nullptr;
}

uint64_t walk(void *map)
{
    uint64_t sum = 0;

    for (auto i = tree_of(map).begin(); i.valid(); ++i)
        sum += i.value() & AREA_WORD_FLAGS;
    return sum;
}

/* It has no copy of its own: areas are put in one behind the other. */
void *dup(void *map, struct area *objects)
{
    auto *copy = new area_map;
    auto last = copy->t.end();

    for (auto i = tree_of(map).begin(); i.valid(); ++i, ++last) {
        *objects = *area_of_word(i.value());
        last.insert(i.start(), i.stop(), area_word(objects++));
    }
    return copy;
}

/* Makes room, from the first area that ends behind the start; leaves `i` at the first one behind
 * it. */
void carve(tree::iterator &i, uint64_t start, uint64_t end)
{
    while (i.valid() && i.start() < end) {
        struct area *a = area_of_word(i.value());
        uint64_t was = i.stop();

        if (i.start() < start) {
            i.setStop(start);
            a->end = start;
            ++i;
            if (was > end) {
                i.insert(end, was, area_word(area_fresh(end, was, a->flags)));
                return;
            }
        } else if (was > end) {
            i.setStart(end);
            a->start = end;
            return;
        } else {
            i.erase();
            area_give(a);
        }
    }
}

/* An area before `next`, joined with equal neighbours that touch it. */
void add(tree &t, tree::iterator &next, uint64_t start, uint64_t end, uint32_t flags)
{
    bool joins = next.valid() && next.start() == end && (next.value() & AREA_WORD_FLAGS) == flags;

    if (next != t.begin()) {
        auto prev = next;

        --prev;
        if (prev.stop() == start && (prev.value() & AREA_WORD_FLAGS) == flags) {
            struct area *a = area_of_word(prev.value());

            if (joins) {
                end = next.stop();
                area_give(area_of_word(next.value()));
                next.erase();
                --next;
                next.setStop(end);
            } else {
                prev.setStop(end);
            }
            a->end = end;
            return;
        }
    }
    if (joins) {
        area_of_word(next.value())->start = start;
        next.setStart(start);
    } else {
        next.insert(start, end, area_word(area_fresh(start, end, flags)));
    }
}

uint64_t call_map(void *map, uint64_t start, uint64_t pages, unsigned prot, uint64_t)
{
    auto i = tree_of(map).find(start);

    carve(i, start, start + pages);
    add(tree_of(map), i, start, start + pages, prot);
    return start;
}

void call_unmap(void *map, uint64_t start, uint64_t pages)
{
    auto i = tree_of(map).find(start);

    carve(i, start, start + pages);
}

void call_protect(void *map, uint64_t start, uint64_t pages, unsigned prot)
{
    auto i = tree_of(map).find(start);

    if ((i.value() & AREA_WORD_FLAGS) != prot) {
        carve(i, start, start + pages);
        add(tree_of(map), i, start, start + pages, prot);
    }
}

} // namespace

extern "C" const struct area_ops rival_areas_llvm;
const struct area_ops rival_areas_llvm = {
    .name = "IntervalMap",
    .title = "LLVM's IntervalMap, no gaps kept",
    .most = SIZE_MAX,
    .create = create,
    .destroy = destroy,
    .insert = insert,
    .erase = erase,
    .flags = flags,
    .from = from,
    .gap_up = nullptr,
    .gap_down = nullptr,
    .walk = walk,
    .dup = dup,
    .dup_destroy = destroy,
    .bytes = nullptr,
    .resized = nullptr,
    .call_map = call_map,
    .call_unmap = call_unmap,
    .call_protect = call_protect,
    .call_create = nullptr,
    .call_destroy = nullptr,
    .call_from = nullptr,
};
