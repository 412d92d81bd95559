/* areas_absl.cc - areas in Abseil's B-tree (absl::btree_map): what a good ordered map gives
 *
 * Start -> end and a word: the area object with the flags in its low bits, so that a search reads
 * nothing but the tree. It keeps no gaps: the rows that look for them are left out. */
#include "../areas.h"

#include <absl/container/btree_map.h>

namespace
{

struct place {
    uint64_t end;
    uintptr_t word; /* see area_word */
};

size_t held; /* bytes of all nodes */

template <class T> struct counted : std::allocator<T> {
    template <class U> struct rebind {
        using other = counted<U>;
    };
    counted() = default;
    template <class U> counted(const counted<U> &)
    {
    }
    T *allocate(size_t n)
    {
        held += n * sizeof(T);
        return std::allocator<T>::allocate(n);
    }
    void deallocate(T *p, size_t n)
    {
        held -= n * sizeof(T);
        std::allocator<T>::deallocate(p, n);
    }
};

using tree = absl::btree_map<uint64_t, place, std::less<uint64_t>,
                             counted<std::pair<const uint64_t, place>>>;

struct area *object(const place &p)
{
    return area_of_word(p.word);
}

place place_of(const struct area *a)
{
    return {a->end, area_word(a)};
}

void *create(size_t)
{
    return new tree;
}

void destroy(void *map)
{
    delete static_cast<tree *>(map);
}

void insert(void *map, struct area *a)
{
    static_cast<tree *>(map)->emplace(a->start, place_of(a));
}

void erase(void *map, struct area *a)
{
    static_cast<tree *>(map)->erase(a->start);
}

/* The first area that ends behind the page. */
tree::iterator behind(tree &t, uint64_t page)
{
    auto i = t.upper_bound(page);

    if (i != t.begin() && std::prev(i)->second.end > page)
        --i;
    return i;
}

int flags(void *map, uint64_t page)
{
    tree &t = *static_cast<tree *>(map);
    auto i = behind(t, page);

    return i != t.end() && i->first <= page ? static_cast<int>(i->second.word & AREA_WORD_FLAGS)
                                            : -1;
}

struct area *from(void *map, uint64_t page)
{
    tree &t = *static_cast<tree *>(map);
    auto i = behind(t, page);

    return i != t.end() ? object(i->second) : nullptr;
}

uint64_t walk(void *map)
{
    uint64_t sum = 0;

    for (const auto &entry : *static_cast<tree *>(map))
        sum += entry.second.word & AREA_WORD_FLAGS;
    return sum;
}

void *dup(void *map, struct area *objects)
{
    auto *copy = new tree(*static_cast<tree *>(map));

    for (auto &entry : *copy) {
        *objects = *object(entry.second);
        entry.second = place_of(objects++);
    }
    return copy;
}

size_t bytes(void *)
{
    return held;
}

void cut_end(tree::iterator i, uint64_t end)
{
    i->second.end = object(i->second)->end = end;
}

/* A start is a key: it goes and comes again. */
tree::iterator cut_start(tree &t, tree::iterator i, uint64_t start)
{
    place p = i->second;

    object(p)->start = start;
    return t.emplace_hint(t.erase(i), start, p);
}

/* Makes room, from the first area that ends behind the start; returns the first one behind it. */
tree::iterator carve(tree &t, tree::iterator i, uint64_t start, uint64_t end)
{
    if (i != t.end() && i->first < start) {
        uint64_t was = i->second.end;
        uint32_t flags = static_cast<uint32_t>(i->second.word & AREA_WORD_FLAGS);

        cut_end(i++, start);
        if (was > end)
            return t.emplace_hint(i, end, place_of(area_fresh(end, was, flags)));
    }
    while (i != t.end() && i->first < end) {
        if (i->second.end > end)
            return cut_start(t, i, end);
        area_give(object(i->second));
        i = t.erase(i);
    }
    return i;
}

/* An area before `next`, joined with equal neighbours that touch it. */
void add(tree &t, tree::iterator next, uint64_t start, uint64_t end, uint32_t flags)
{
    bool joins =
        next != t.end() && next->first == end && (next->second.word & AREA_WORD_FLAGS) == flags;

    if (next != t.begin()) {
        auto prev = std::prev(next);

        if (prev->second.end == start && (prev->second.word & AREA_WORD_FLAGS) == flags) {
            cut_end(prev, joins ? next->second.end : end);
            if (joins) {
                area_give(object(next->second));
                t.erase(next);
            }
            return;
        }
    }
    if (joins)
        cut_start(t, next, start);
    else
        t.emplace_hint(next, start, place_of(area_fresh(start, end, flags)));
}

uint64_t call_map(void *map, uint64_t start, uint64_t pages, unsigned prot, uint64_t)
{
    tree &t = *static_cast<tree *>(map);

    add(t, carve(t, behind(t, start), start, start + pages), start, start + pages, prot);
    return start;
}

void call_unmap(void *map, uint64_t start, uint64_t pages)
{
    tree &t = *static_cast<tree *>(map);

    carve(t, behind(t, start), start, start + pages);
}

void call_protect(void *map, uint64_t start, uint64_t pages, unsigned prot)
{
    tree &t = *static_cast<tree *>(map);
    auto i = behind(t, start);

    if ((i->second.word & AREA_WORD_FLAGS) != prot)
        add(t, carve(t, i, start, start + pages), start, start + pages, prot);
}

} // namespace

extern "C" const struct area_ops rival_areas_absl;
const struct area_ops rival_areas_absl = {
    .name = "absl",
    .title = "Abseil's B-tree, no gaps kept",
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
    .bytes = bytes,
    .resized = nullptr,
    .call_map = call_map,
    .call_unmap = call_unmap,
    .call_protect = call_protect,
    .call_create = nullptr,
    .call_destroy = nullptr,
    .call_from = nullptr,
};
