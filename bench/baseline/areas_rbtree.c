/* areas_rbtree.c - areas in BSD's red-black tree (sys/tree.h), augmented with the longest gap
 * before an area of each subtree, as Linux had it before its maple tree */
#include "../areas.h"

#include <stdlib.h>
#include <string.h>

struct node { /* an area, with the tree's links in it */
    uint64_t start, end;
    uint32_t flags, gap, longest, unused;
    struct {
        struct node *rbe_left, *rbe_right, *rbe_parent;
        int rbe_color;
    } entry;
};
_Static_assert(sizeof(struct node) <= sizeof(struct area), "the links fit");

static uint32_t longest_of(const struct node *n)
{
    uint32_t longest = n->gap;

    if (n->entry.rbe_left != NULL && n->entry.rbe_left->longest > longest)
        longest = n->entry.rbe_left->longest;
    if (n->entry.rbe_right != NULL && n->entry.rbe_right->longest > longest)
        longest = n->entry.rbe_right->longest;
    return longest;
}

#define RB_AUGMENT(x) ((void)((x) != NULL && ((x)->longest = longest_of(x))))
#ifndef __unused
#define __unused __attribute__((unused))
#endif
#include <bsd/sys/tree.h>

static int compare(const struct node *a, const struct node *b)
{
    return a->start < b->start ? -1 : a->start > b->start;
}

RB_HEAD(tree, node);
RB_GENERATE_STATIC(tree, node, entry, compare)

struct rbtree {
    struct tree tree;
    size_t count;
};

static void *create(size_t areas)
{
    (void)areas;
    return calloc(1, sizeof(struct rbtree));
}

static struct node *node_of(struct area *a)
{
    return (struct node *)(void *)a;
}

/* The gap before a node has changed: up to where nothing changes any more. */
static void up(struct node *n)
{
    for (; n != NULL; n = n->entry.rbe_parent) {
        uint32_t longest = longest_of(n);

        if (n->longest == longest)
            return;
        n->longest = longest;
    }
}

static void set_gap(struct node *n, uint64_t before)
{
    if (n == NULL)
        return;
    n->gap = (uint32_t)(n->start - before);
    up(n);
}

static void insert(void *map, struct area *a)
{
    struct rbtree *t = map;
    struct node *n = node_of(a), *prev, *next;

    n->gap = n->longest = 0;
    RB_INSERT(tree, &t->tree, n);
    for (struct node *p = n; p != NULL; p = p->entry.rbe_parent)
        p->longest = longest_of(p);
    prev = RB_PREV(tree, &t->tree, n);
    next = RB_NEXT(tree, &t->tree, n);
    set_gap(n, prev != NULL ? prev->end : 0);
    set_gap(next, n->end);
    t->count++;
}

static void erase(void *map, struct area *a)
{
    struct rbtree *t = map;
    struct node *n = node_of(a), *prev = RB_PREV(tree, &t->tree, n),
                *next = RB_NEXT(tree, &t->tree, n);

    RB_REMOVE(tree, &t->tree, n);
    for (struct node *p = next != NULL ? next : prev; p != NULL; p = p->entry.rbe_parent)
        p->longest = longest_of(p);
    for (struct node *p = prev; p != NULL; p = p->entry.rbe_parent)
        p->longest = longest_of(p);
    set_gap(next, prev != NULL ? prev->end : 0);
    t->count--;
}

static struct node *first_behind(const struct rbtree *t, uint64_t page)
{
    struct node *n = RB_ROOT(&t->tree), *found = NULL;

    while (n != NULL) {
        if (n->end > page) {
            found = n;
            if (n->start <= page)
                return n;
            n = n->entry.rbe_left;
        } else {
            n = n->entry.rbe_right;
        }
    }
    return found;
}

static struct area *from(void *map, uint64_t page)
{
    return (struct area *)(void *)first_behind(map, page);
}

static int flags(void *map, uint64_t page)
{
    const struct node *n = first_behind(map, page);

    return n != NULL && n->start <= page ? (int)n->flags : -1;
}

static uint64_t gap_up(void *map, uint64_t low, uint64_t pages)
{
    struct rbtree *t = map;
    struct node *n = first_behind(t, low);

    if (n != NULL && n->start >= low && n->start - low >= pages)
        return low;
    while (n != NULL) { /* successors, passing by subtrees without such a gap */
        struct node *right = n->entry.rbe_right;
        uint64_t end = n->end;

        if (right != NULL && right->longest >= pages) {
            n = right;
            while (n->entry.rbe_left != NULL && n->entry.rbe_left->longest >= pages)
                n = n->entry.rbe_left;
            if (n->gap >= pages)
                return n->start - n->gap;
            continue;
        }
        while (n->entry.rbe_parent != NULL && n == n->entry.rbe_parent->entry.rbe_right)
            n = n->entry.rbe_parent;
        n = n->entry.rbe_parent;
        if (n == NULL) {
            struct node *last = RB_MAX(tree, &t->tree);
            return last->end > end ? last->end : end;
        }
        if (n->gap >= pages)
            return n->start - n->gap;
    }
    n = RB_MAX(tree, &t->tree);
    return n == NULL || n->end < low ? low : n->end;
}

static uint64_t gap_down(void *map, uint64_t high, uint64_t pages)
{
    struct rbtree *t = map;
    struct node *n = first_behind(t, high - 1);
    const struct node *last;

    if (n == NULL) {
        last = RB_MAX(tree, &t->tree);
        if (last == NULL || high - last->end >= pages)
            return high - pages;
        n = RB_MAX(tree, &t->tree);
    } else if (n->start >= high && n->gap >= (n->start - high) + pages) {
        return high - pages;
    }
    if (n->start < high && n->gap >= pages)
        return n->start - pages;
    for (;;) { /* predecessors, passing by subtrees without such a gap */
        struct node *left = n->entry.rbe_left;

        if (left != NULL && left->longest >= pages) {
            n = left;
            while (n->entry.rbe_right != NULL && n->entry.rbe_right->longest >= pages)
                n = n->entry.rbe_right;
            if (n->gap >= pages)
                return n->start - pages;
            continue;
        }
        while (n->entry.rbe_parent != NULL && n == n->entry.rbe_parent->entry.rbe_left)
            n = n->entry.rbe_parent;
        n = n->entry.rbe_parent;
        if (n == NULL)
            return AREA_NONE;
        if (n->gap >= pages)
            return n->start - pages;
    }
}

static uint64_t walk(void *map)
{
    struct rbtree *t = map;
    struct node *n;
    uint64_t sum = 0;

    RB_FOREACH(n, tree, &t->tree)
    sum += n->flags;
    return sum;
}

/* Shape and all, with a walk that needs no stack. */
static void *dup(void *map, struct area *objects)
{
    struct rbtree *t = map, *d = create(0);
    struct node *n = RB_ROOT(&t->tree), *c = NULL, *copy;

    d->count = t->count;
    if (n == NULL)
        return d;
    c = node_of(objects++);
    *c = *n;
    c->entry.rbe_parent = NULL;
    c->entry.rbe_left = c->entry.rbe_right = NULL;
    RB_ROOT(&d->tree) = c;
    while (n != NULL) {
        struct node *l = n->entry.rbe_left, *r = n->entry.rbe_right;

        if (l != NULL && c->entry.rbe_left == NULL) {
            copy = node_of(objects++);
            *copy = *l;
            c->entry.rbe_left = copy;
            n = l;
        } else if (r != NULL && c->entry.rbe_right == NULL) {
            copy = node_of(objects++);
            *copy = *r;
            c->entry.rbe_right = copy;
            n = r;
        } else {
            n = n->entry.rbe_parent;
            c = c->entry.rbe_parent;
            continue;
        }
        copy->entry.rbe_parent = c;
        copy->entry.rbe_left = copy->entry.rbe_right = NULL;
        c = copy;
    }
    return d;
}

static size_t bytes(void *map)
{
    return ((struct rbtree *)map)->count * (sizeof(struct node) - 20);
}

static void resized(void *map, struct area *a, uint64_t start, uint64_t end)
{
    struct rbtree *t = map;
    struct node *n = node_of(a);

    (void)t;
    if (end != n->end) {
        n->end = end;
        set_gap(RB_NEXT(tree, &t->tree, n), end);
    }
    if (start != n->start) {
        n->gap += (uint32_t)(start - n->start);
        n->start = start;
        up(n);
    }
}

const struct area_ops baseline_areas_rbtree = {.name = "sys-tree",
                                               .title = "BSD red-black tree, augmented",
                                               .most = SIZE_MAX,
                                               .create = create,
                                               .destroy = free,
                                               .insert = insert,
                                               .erase = erase,
                                               .flags = flags,
                                               .from = from,
                                               .gap_up = gap_up,
                                               .gap_down = gap_down,
                                               .walk = walk,
                                               .dup = dup,
                                               .dup_destroy = free,
                                               .bytes = bytes,
                                               .resized = resized};
