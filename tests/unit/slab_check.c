/* The check tells every damage: state is corrupted on purpose, one thing at a time. */
#define SLAB_CPU_NOW cpu_now
#include "slab_test.h"

static struct mm_slab_cache cache;
static void *p[2500];

/* A heap with every kind of thing in it: full and partial slabs, empty ones, arrays, a depot, large
 * ones. */
static void rich(void)
{
    struct mm_slab_cache_config c = {0};
    heap_begin();
    config.flags = 0;
    heap_make();
    c.name = "thing";
    c.size = 64;
    assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
    for (unsigned i = 0; i < 1500; i++)
        p[i] = mm_slab_alloc(&cache, 0);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 1500; i < 2500; i++)
            p[i] = mm_slab_alloc(&cache, 0);
        for (unsigned i = 1500; i < 2500; i++)
            assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
    }
    p[1500] = mm_slab_kmalloc(&heap, 50000, 0);
    assert_non_null(cache.depot);
    assert_non_null(cache.full.first);
    assert_non_null(cache.partial.first);
    assert_int_equal(mm_slab_check(&heap), MM_OK);
}

static void end(void)
{
    assert_int_equal(mm_slab_check(&heap), MM_OK);
    assert_int_equal(mm_slab_kfree_bulk(&heap, p, 1501), MM_OK);
    assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
    heap_end();
}

#define assert_found(lvalue, value)                             \
    do {                                                        \
        __typeof__(lvalue) saved_ = lvalue;                     \
        lvalue = (value);                                       \
        assert_true(lvalue != saved_);                          \
        assert_int_equal(mm_slab_check(&heap), MM_ERR_CORRUPT); \
        lvalue = saved_;                                        \
        assert_int_equal(mm_slab_check(&heap), MM_OK);          \
    } while (0)

static void damage_of_the_heap(void **state)
{
    (void)state;
    rich();
    assert_found(heap.entries, heap.entries + 1);
    assert_found(heap.large, 0);
    assert_found(heap.large_bytes, 1);
    assert_found(heap.bytes, heap.bytes + 1);
    assert_found(heap.slabs, heap.slabs - 1);
    assert_found(heap.empties, heap.empties + 1);
    struct mmi_slab_entry *e = mmi_slab_lookup(&heap, (uintptr_t)p[1500]);
    assert_found(e->bytes, 1);
    e = mmi_slab_lookup(&heap, (uintptr_t)cache.full.first);
    assert_found(e->base, e->base ^ MM_SLAB_BYTES);
    end();
}

static void damage_of_a_cache(void **state)
{
    (void)state;
    rich();
    assert_found(cache.free, cache.free + 1);
    assert_found(cache.slabs, cache.slabs + 1);
    assert_found(cache.slabs, cache.slabs - 1);
    assert_found(cache.batches, cache.batches + 1);
    assert_found(cache.batches, cache.batches - 1);
    assert_found(cache.spares, cache.spares + 1);
    assert_found(cache.depot->n, 0);
    assert_found(cache.depot->n, cache.slots + 1);
    assert_found(cache.depot->slot[0], cache.depot->slot[1]); /* an object twice */
    assert_found(cache.depot->slot[0], cache.depot->slot[0] + 8);
    assert_found(cache.depot->slot[0], (uintptr_t)&cache);
    uintptr_t *l = cache.cpu[0];
    assert_true(mmi_slab_ready(l) > 0);
    assert_found(l[(intptr_t)l[MMI_SLAB_POP]], cache.depot->slot[0]);
    assert_found(cache.partial.last, cache.full.first);
    end();
}

/* Two CPUs use one depot by turns: each takes its own batches out of the midst of the lists. */
static void batches_of_two_cpus_stay_in_their_lists(void **state)
{
    unsigned most = 0, mixed = 0;
    (void)state;
    rich();
    for (unsigned round = 0; round < 60; round++) {
        cpu_now = round % 3 == 0;
        for (unsigned i = 1501; i < 2500; i++)
            p[i] = mm_slab_alloc(&cache, 0);
        for (const struct mmi_slab_batch *b = cache.spare; b != NULL && b->next != NULL;
             b = b->next)
            mixed += b->grace != b->next->grace;
        most = cache.spares > most ? cache.spares : most;
        for (unsigned i = 1501; i < 2500; i++) {
            cpu_now = (round + i / 300) % 2;
            assert_int_equal(mm_slab_free(&cache, p[i]), MM_OK);
        }
        assert_int_equal(mm_slab_check(&heap), MM_OK);
    }
    assert_true(most > 1 && mixed > 0);
    cpu_now = 0;
    end();
}

static void damage_of_a_slab(void **state)
{
    (void)state;
    rich();
    for (unsigned full = 0; full < 2; full++) {
        struct mmi_slab *s = full ? cache.full.first : cache.partial.first;
        assert_found(s->free, s->free + 1);
        assert_found(s->count, s->count - 1);
        assert_found(s->stride, 0);
        assert_found(s->cache, NULL);
        assert_found(s->prev, s);
        for (unsigned i = 0; i < MMI_SLAB_MARKS; i++) {
            assert_found(s->mark[i].token, s->mark[i].token ^ 2);
            assert_found(s->mark[i].place, s->mark[i].place ^ 0x20000);
        }
        for (uint32_t w = 0; w < mmi_slab_bit_words(s->count); w++)
            for (unsigned bit = 0; bit < MM_WORD_BITS; bit++)
                assert_found(mmi_slab_bits(s)[w], mmi_slab_bits(s)[w] ^ mm_bit(bit));
    }
    assert_found(cache.partial.first->hint, 1000);
    end();
}

/* A slab whose objects are all free, and nothing else is wrong: is it found? */
static bool found_wholly_free(struct mmi_slab *s)
{
    const uintptr_t bits = mmi_slab_bits(s)[0];
    const uint32_t free = s->free;
    assert_in_range(s->count, 1, MM_WORD_BITS - 1);
    mmi_slab_bits(s)[0] = mm_mask(s->count);
    s->free = s->count;
    cache.free += s->count - free;
    const bool found = mm_slab_cache_check(&cache) == MM_ERR_CORRUPT;
    cache.free -= s->count - free;
    s->free = free;
    mmi_slab_bits(s)[0] = bits;
    assert_int_equal(mm_slab_cache_check(&cache), MM_OK);
    return found;
}

static void wholly_free_slabs_have_left_the_cache(void **state)
{
    (void)state;
    for (unsigned debug = 0; debug <= (MM_SLAB_DEBUG >= 1); debug++) {
        struct mm_slab_cache_config c = {0};
        heap_begin();
        config.flags = 0;
        heap_make();
        c.name = "large";
        c.size = MM_SLAB_BYTES / 8;
        c.flags = debug ? MM_SLAB_DEBUG_FREES : 0;
        assert_int_equal(mm_slab_cache_init(&cache, &heap, &c), MM_OK);
        void *q[8];
        const unsigned count = cache.count;
        assert_in_range(count, 2, 7);
        q[0] = mm_slab_alloc(&cache, 0);
        mm_slab_cache_shrink(&cache);
        assert_int_equal(cache.slabs, 1);
        assert_int_equal(found_wholly_free(cache.partial.first), debug == 0);
        for (unsigned i = 1; i <= count; i++)
            q[i] = mm_slab_alloc(&cache, 0);
        mm_slab_cache_shrink(&cache);
        assert_int_equal(cache.slabs, 2);
        assert_true(found_wholly_free(cache.partial.first));
        for (unsigned i = 0; i <= count; i++)
            assert_int_equal(mm_slab_free(&cache, q[i]), MM_OK);
        assert_int_equal(mm_slab_cache_destroy(&cache, NULL), MM_OK);
        heap_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_of_the_heap),
        cmocka_unit_test(damage_of_a_cache),
        cmocka_unit_test(batches_of_two_cpus_stay_in_their_lists),
        cmocka_unit_test(damage_of_a_slab),
        cmocka_unit_test(wholly_free_slabs_have_left_the_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
