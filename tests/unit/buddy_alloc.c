/* mm_buddy.h: set-up, allocation, release, resizing, ranges, growing and shrinking. */
#include "buddy_test.h"

/* ---- set-up ---- */

static void a_bad_configuration_is_invalid(void **state)
{
    static unsigned char meta[65536];
    struct mm_buddy_config good, config;
    struct mm_buddy b;

    (void)state;
    mm_buddy_config_init(&good, BASE, 1024 * PAGE, 12, 10);
    assert_in_range(mm_buddy_meta_bytes(&good), 1, sizeof meta);
#define refused(member, value)                         \
    config = good;                                     \
    config.member = (value);                           \
    assert_int_equal(mm_buddy_meta_bytes(&config), 0); \
    assert_int_equal(mm_buddy_init(&b, &config, meta, sizeof meta), MM_ERR_INVALID)
    refused(min_shift, 3);
    refused(min_shift, 31);
    refused(max_order, 32);
    refused(pb_order, 5);
    refused(pb_order, 14);
    refused(regions, 65);
    refused(bytes, 0);
    refused(bytes, PAGE - 1);
    refused(span, 1023 * PAGE);
    refused(bytes, UINT64_MAX);
#undef refused
    assert_int_equal(mm_buddy_init(NULL, &good, meta, sizeof meta), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_init(&b, NULL, meta, sizeof meta), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_init(&b, &good, NULL, sizeof meta), MM_ERR_INVALID);
}

static void metadata_that_do_not_fit_are_refused_unwritten(void **state)
{
    struct arena a;
    struct mm_buddy before;
    unsigned char *copy;

    (void)state;
    arena_begin(&a, 1024);
    a.meta_bytes = mm_buddy_meta_bytes(&a.config);
    a.meta = malloc(a.meta_bytes);
    copy = malloc(a.meta_bytes);
    memset(a.meta, 0xa5, a.meta_bytes);
    memset(copy, 0xa5, a.meta_bytes);
    memset(&a.b, 0x5a, sizeof a.b);
    memset(&before, 0x5a, sizeof before);
    for (size_t room = 0; room + 64 < a.meta_bytes; room += 37)
        assert_int_equal(mm_buddy_init(&a.b, &a.config, a.meta, room), MM_ERR_NOMEM);
    assert_memory_equal(a.meta, copy, a.meta_bytes);
    assert_memory_equal(&a.b, &before, sizeof before);
    free(copy);
    free(a.meta);
}

static void metadata_may_lie_at_any_address(void **state)
{
    struct arena a;
    unsigned char *room;

    (void)state;
    arena_begin(&a, 300);
    a.meta_bytes = mm_buddy_meta_bytes(&a.config);
    room = malloc(a.meta_bytes + 64);
    for (unsigned skip = 0; skip < 64; skip++) {
        memset(room, 0xa5, a.meta_bytes + 64);
        assert_int_equal(mm_buddy_init(&a.b, &a.config, room + skip, a.meta_bytes), MM_OK);
        assert_int_equal(exhaust(&a, 0), 300);
        assert_int_equal(mm_buddy_check(&a.b), MM_BUDDY_HEALTHY);
        for (unsigned i = 0; i < skip; i++)
            assert_int_equal(room[i], 0xa5);
        for (size_t i = a.meta_bytes + skip; i < a.meta_bytes + 64; i++)
            assert_int_equal(room[i], 0xa5);
    }
    free(room);
}

static void metadata_cost_at_most_two_bytes_a_block(void **state)
{
    struct mm_buddy_config config;

    (void)state;
    for (unsigned shift = 14; shift <= 24; shift++) {
        mm_buddy_config_init(&config, 0, (uint64_t)1 << (shift + 12), 12, 10);
        config.cpu_lists = false;
        assert_in_range(mm_buddy_meta_bytes(&config), 1, (size_t)2 << shift);
    }
}

/* The arena's memory is never written: here it does not even exist. */
static void any_base_and_size_serve_with_absolute_alignment(void **state)
{
    static const mm_pa_t bases[] = {
        0, 1, 4095, 4096, 0x12345000, 0x12345678, 0xfffffff000ull, (mm_pa_t)1 << 62};
    static const uint64_t pages[] = {1, 2, 3, 63, 64, 65, 127, 1000, 1025};

    (void)state;
    for (size_t i = 0; i < sizeof bases / sizeof bases[0]; i++) {
        for (size_t k = 0; k < sizeof pages / sizeof pages[0]; k++) {
            struct arena a;
            const mm_pa_t first = (bases[i] + PAGE - 1) & ~(PAGE - 1);
            const uint64_t whole = (bases[i] + pages[k] * PAGE - first) / PAGE;
            uint64_t got = 0;

            if (whole == 0)
                continue;
            arena_begin(&a, pages[k]);
            a.config.base = bases[i];
            arena_make(&a);
            assert_int_equal(free_pages(&a), whole);
            for (int order = 10; order >= 0; order--) {
                mm_pa_t pa;
                while ((pa = mm_buddy_alloc(&a.b, (unsigned)order, 0)) != MM_PA_NONE) {
                    assert_int_equal(pa & ((PAGE << order) - 1), 0);
                    assert_true(pa >= first && pa - first + (PAGE << order) <= whole * PAGE);
                    got += (uint64_t)1 << order;
                }
            }
            assert_int_equal(got, whole);
            arena_end(&a);
        }
    }
}

static void every_size_of_smallest_block_serves(void **state)
{
    (void)state;
    for (unsigned shift = 4; shift <= 30; shift++) {
        struct arena a;
        const mm_pa_t unit = (mm_pa_t)1 << shift;
        mm_pa_t one, four;

        arena_begin(&a, 1);
        mm_buddy_config_init(&a.config, unit * 5, unit * 100, shift, 6);
        arena_make(&a);
        one = mm_buddy_alloc(&a.b, 0, MM_BUDDY_MOVABLE);
        four = mm_buddy_alloc_bytes(&a.b, 3 * unit + 1, MM_BUDDY_MOVABLE);
        assert_int_equal(one % unit, 0);
        assert_int_equal(four % (4 * unit), 0);
        assert_int_equal(mm_buddy_free(&a.b, one + unit / 2), MM_ERR_ALIGN);
        assert_int_equal(mm_buddy_free(&a.b, one), MM_OK);
        assert_int_equal(mm_buddy_free(&a.b, four), MM_OK);
        mm_buddy_drain(&a.b);
        assert_int_equal(mm_buddy_free_bytes(&a.b), 100 * unit);
        arena_end(&a);
    }
}

/* With MM_DEBUG each call looks at all 2^31 blocks: the sanitized build stops at 2^25. */
static void orders_up_to_31_serve(void **state)
{
    const unsigned most = MM_DEBUG != 0 ? 25 : 31;
    struct arena a;

    (void)state;
    arena_begin(&a, 1);
    mm_buddy_config_init(&a.config, 0, (uint64_t)16 << most, 4, most);
    a.config.pb_order = 13;
    arena_make(&a);
    assert_int_equal(mm_buddy_alloc(&a.b, most, 0), 0);
    assert_int_equal(mm_buddy_alloc(&a.b, 0, 0), MM_PA_NONE);
    assert_int_equal(mm_buddy_free(&a.b, 0), MM_OK);
    assert_int_equal(mm_buddy_alloc(&a.b, most + 1, 0), MM_PA_NONE);
    arena_end(&a);
}

static void too_many_smallest_blocks_are_a_limit(void **state)
{
    static unsigned char meta[64];
    struct mm_buddy_config config;
    struct mm_buddy b;

    (void)state;
    mm_buddy_config_init(&config, 0, (uint64_t)1 << 62, 4, 10);
    assert_int_equal(mm_buddy_init(&b, &config, meta, sizeof meta), MM_ERR_LIMIT);
}

static void metadata_inside_count_as_absent(void **state)
{
    const size_t bytes = 256 * 4096;
    unsigned char *memory = aligned_alloc(4096, bytes);
    struct mm_buddy_config config;
    struct mm_buddy_block block;
    struct mm_buddy b;
    mm_pa_t pa;

    (void)state;
    memset(memory, 0xa5, bytes);
    mm_buddy_config_init(&config, 0x1000, bytes, 12, 8);
    config.pointer_offset = (uintptr_t)memory - 0x1000;
    config.cpu_lists = false;
    assert_int_equal(mm_buddy_init_inside(&b, &config), MM_OK);
    assert_int_equal(mm_buddy_find(&b, 0x1000, &block), MM_OK);
    assert_int_equal(block.state, MM_BUDDY_STATE_ABSENT);
    while ((pa = mm_buddy_alloc(&b, 0, 0)) != MM_PA_NONE)
        memset(memory + (pa - 0x1000), 0, 4096);
    assert_int_equal(mm_buddy_check(&b), MM_BUDDY_HEALTHY);
    config.bytes = 4096;
    assert_int_equal(mm_buddy_init_inside(&b, &config), MM_ERR_NOMEM);
    free(memory);
}

/* ---- allocation ---- */

static void a_block_is_as_large_as_asked(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 1024);
    assert_int_equal(mm_buddy_order(&a.b, 1), 0);
    assert_int_equal(mm_buddy_order(&a.b, PAGE), 0);
    assert_int_equal(mm_buddy_order(&a.b, PAGE + 1), 1);
    assert_int_equal(mm_buddy_order(&a.b, 1024 * PAGE), 10);
    assert_int_equal(mm_buddy_order(&a.b, 1024 * PAGE + 1), MM_BUDDY_ORDERS);
    assert_int_equal(mm_buddy_order(&a.b, 0), MM_BUDDY_ORDERS);
    assert_int_equal(mm_buddy_order(&a.b, UINT64_MAX), MM_BUDDY_ORDERS);
    for (unsigned order = 0; order <= 10; order++) {
        const mm_pa_t pa = mm_buddy_alloc_bytes(&a.b, (PAGE << order) - (order != 0), 0);
        assert_int_equal(block_at(&a, pa).bytes, PAGE << order);
        assert_int_equal(block_at(&a, pa).state, MM_BUDDY_STATE_ALLOCATED);
        assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    }
    arena_end(&a);
}

static void impossible_requests_get_nothing(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 1024);
    assert_refused(&a, mm_buddy_alloc(&a.b, 11, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc(&a.b, UINT32_MAX, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc(&a.b, 0, MM_BUDDY_CMA), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc(&a.b, 0, MM_BUDDY_ZERO), MM_PA_NONE); /* no hook */
    assert_refused(&a, mm_buddy_alloc_bytes(&a.b, 0, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_bytes(&a.b, UINT64_MAX, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_exact(&a.b, 0, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_exact(&a.b, 1025 * PAGE, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_aligned(&a.b, PAGE, 3, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_aligned(&a.b, PAGE, 0, 0), MM_PA_NONE);
    assert_refused(&a, mm_buddy_alloc_aligned(&a.b, PAGE, 2048 * PAGE, 0), MM_PA_NONE);
    arena_end(&a);
}

static mm_pa_t zeroed_pa;
static uint64_t zeroed_bytes;
static void zero(void *ctx, mm_pa_t pa, uint64_t bytes)
{
    assert_ptr_equal(ctx, &zeroed_pa);
    zeroed_pa = pa;
    zeroed_bytes = bytes;
}

static void zero_fill_goes_through_the_hook(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    arena_begin(&a, 64);
    a.hooks.zero = zero;
    a.hooks.ctx = &zeroed_pa;
    arena_make(&a);
    pa = mm_buddy_alloc(&a.b, 2, MM_BUDDY_ZERO);
    assert_int_equal(zeroed_pa, pa);
    assert_int_equal(zeroed_bytes, 4 * PAGE);
    pa = mm_buddy_alloc_exact(&a.b, 3 * PAGE, MM_BUDDY_ZERO);
    assert_int_equal(zeroed_pa, pa);
    assert_int_equal(zeroed_bytes, 3 * PAGE);
    arena_end(&a);
}

static void the_tail_of_an_exact_block_is_free(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    arena_simple(&a, 64);
    pa = mm_buddy_alloc_exact(&a.b, 33 * PAGE + 1, 0);
    assert_int_equal(pa, BASE);
    assert_int_equal(free_pages(&a), 30);
    assert_int_equal(block_at(&a, BASE + 20 * PAGE).bytes, 34 * PAGE);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 34 * PAGE, 1, 0), MM_OK);
    assert_refused(&a, mm_buddy_free(&a.b, BASE + 32 * PAGE), MM_ERR_ALIGN);
    assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    assert_int_equal(free_pages(&a), 62);
    arena_end(&a);
}

static void an_alignment_beyond_the_size_is_kept(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 1024);
    for (unsigned order = 0; order <= 10; order++) {
        const mm_pa_t pa = mm_buddy_alloc_aligned(&a.b, 3 * PAGE, PAGE << order, 0);
        assert_true(pa != MM_PA_NONE);
        assert_int_equal(pa & ((PAGE << order) - 1), 0);
        assert_int_equal(free_pages(&a), 1021);
        assert_int_equal(mm_buddy_free(&a.b, pa), MM_OK);
    }
    arena_end(&a);
}

static void a_block_at_an_address_is_taken_or_refused(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 128);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 8 * PAGE, 3, 0), MM_OK);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE + 8 * PAGE, 3, 0), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE, 4, 0), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE + PAGE, 1, 0), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE + 1, 0, 0), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE + 128 * PAGE, 0, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE - PAGE, 0, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE, 11, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_alloc_at(&a.b, BASE, 0, 0x1000), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free(&a.b, BASE + 8 * PAGE), MM_OK);
    arena_end(&a);
}

static void bulk_gives_what_there_is(void **state)
{
    struct arena a;
    mm_pa_t pas[100];

    (void)state;
    arena_simple(&a, 70);
    assert_int_equal(mm_buddy_alloc_bulk(&a.b, 0, 0, 0, pas), 0);
    assert_int_equal(mm_buddy_alloc_bulk(&a.b, 0, 0, 100, pas), 70);
    for (unsigned i = 0; i < 70; i++)
        for (unsigned k = 0; k < i; k++)
            assert_true(pas[i] != pas[k]);
    assert_int_equal(mm_buddy_free_bulk(&a.b, 0, pas, 70), MM_OK);
    assert_int_equal(mm_buddy_alloc_bulk(&a.b, 3, 0, 100, pas), 8);
    assert_int_equal(mm_buddy_alloc_bulk(&a.b, 11, 0, 1, pas + 8), 0);
    assert_int_equal(mm_buddy_free_bulk(&a.b, 3, pas, 8), MM_OK);
    assert_int_equal(free_pages(&a), 70);
    arena_end(&a);
}

/* ---- release ---- */

static void wrong_frees_are_told_apart(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    arena_simple(&a, 128);
    pa = mm_buddy_alloc(&a.b, 3, 0);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE + 100 * PAGE, 4 * PAGE), MM_OK);
    assert_refused(&a, mm_buddy_free(&a.b, pa + 1), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_free(&a.b, pa + PAGE), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_free(&a.b, pa + 7 * PAGE), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_free(&a.b, pa + 8 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free(&a.b, BASE + 100 * PAGE), MM_ERR_PERM);
    assert_refused(&a, mm_buddy_free(&a.b, BASE + 103 * PAGE), MM_ERR_PERM);
    assert_refused(&a, mm_buddy_free(&a.b, BASE + 128 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free(&a.b, BASE - PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free(&a.b, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free(&a.b, MM_PA_NONE & ~(PAGE - 1)), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free_order(&a.b, pa, 2), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free_order(&a.b, pa, 4), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free_order(&a.b, pa, UINT32_MAX), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free_sized(&a.b, pa, 4 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free_sized(&a.b, pa, 0), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free_sized(&a.b, pa, 7 * PAGE + 1), MM_OK);
    assert_refused(&a, mm_buddy_free(&a.b, pa), MM_ERR_INVALID);
    assert_int_equal(stats_of(&a).misuse, 16);
    arena_end(&a);
}

static void a_bulk_free_is_all_or_nothing(void **state)
{
    struct arena a;
    mm_pa_t pas[40];

    (void)state;
    arena_simple(&a, 128);
    assert_int_equal(mm_buddy_alloc_bulk(&a.b, 1, 0, 40, pas), 40);
    for (unsigned bad = 0; bad < 40; bad++) {
        const mm_pa_t good = pas[bad];
        pas[bad] = good + PAGE;
        assert_refused(&a, mm_buddy_free_bulk(&a.b, 1, pas, 40), MM_ERR_ALIGN);
        pas[bad] = pas[(bad + 1) % 40];
        assert_refused(&a, mm_buddy_free_bulk(&a.b, 1, pas, 40), MM_ERR_INVALID);
        pas[bad] = 0;
        assert_refused(&a, mm_buddy_free_bulk(&a.b, 1, pas, 40), MM_ERR_INVALID);
        pas[bad] = good;
    }
    assert_refused(&a, mm_buddy_free_bulk(&a.b, 0, pas, 40), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_free_bulk(&a.b, 1, pas, 40), MM_OK);
    assert_int_equal(free_pages(&a), 128);
    arena_end(&a);
}

static void buddies_merge_up_to_the_largest_order(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 1024);
    assert_int_equal(exhaust(&a, 0), 1024);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(mm_buddy_free(&a.b, BASE + ((i * 7) % 1024) * PAGE), MM_OK);
    assert_int_equal(stats_of(&a).free_blocks[10], 1);
    assert_int_equal(mm_buddy_alloc(&a.b, 10, 0), BASE);
    arena_end(&a);
}

/* ---- resizing ---- */

static void a_block_shrinks_and_grows_in_place(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 128);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 4, 0), MM_OK);
    assert_int_equal(mm_buddy_resize(&a.b, BASE, 4), MM_OK);
    assert_int_equal(mm_buddy_resize(&a.b, BASE, 1), MM_OK);
    assert_int_equal(free_pages(&a), 126);
    assert_int_equal(mm_buddy_resize(&a.b, BASE, 6), MM_OK);
    assert_int_equal(free_pages(&a), 64);
    assert_int_equal(block_at(&a, BASE).bytes, 64 * PAGE);
    assert_int_equal(mm_buddy_free_order(&a.b, BASE, 6), MM_OK);
    for (unsigned back = 1; back <= 4; back++) { /* up to the arena's last page */
        const mm_pa_t last = BASE + (128 - back) * PAGE;
        assert_int_equal(mm_buddy_alloc_at(&a.b, last, 0, 0), MM_OK);
        if (back == 2 || back == 4)
            assert_int_equal(mm_buddy_resize(&a.b, last, back / 2), MM_OK);
        assert_refused(&a, mm_buddy_resize_exact(&a.b, last, (back + 1) * PAGE), MM_ERR_BUSY);
        assert_int_equal(mm_buddy_resize_exact(&a.b, last, back * PAGE), MM_OK);
        assert_int_equal(mm_buddy_free(&a.b, last), MM_OK);
    }
    arena_end(&a);
}

static void a_resize_that_cannot_be_changes_nothing(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 64);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 2 * PAGE, 1, 0), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 0, 0), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 33 * PAGE, 0, 0), MM_OK);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE, 2), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE + 2 * PAGE, 2), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE + 3 * PAGE, 0), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE, 11), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE + 8 * PAGE, 1), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_resize_exact(&a.b, BASE, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_resize_exact(&a.b, BASE, 3 * PAGE), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_resize_exact(&a.b, BASE + 33 * PAGE, 32 * PAGE), MM_ERR_BUSY);
    assert_int_equal(mm_buddy_resize(&a.b, BASE, 1), MM_OK);
    arena_end(&a);
}

static void an_exact_block_resizes_exactly(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 128);
    assert_int_equal(mm_buddy_alloc_exact(&a.b, 5 * PAGE, 0), BASE);
    assert_refused(&a, mm_buddy_resize(&a.b, BASE, 3), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_resize_exact(&a.b, BASE, 100 * PAGE - 1), MM_OK);
    assert_int_equal(free_pages(&a), 28);
    assert_int_equal(block_at(&a, BASE + 99 * PAGE).bytes, 100 * PAGE);
    assert_int_equal(mm_buddy_resize_exact(&a.b, BASE, 3 * PAGE), MM_OK);
    assert_int_equal(free_pages(&a), 125);
    assert_int_equal(mm_buddy_free_sized(&a.b, BASE, 3 * PAGE), MM_OK);
    arena_end(&a);
}

/* ---- ranges ---- */

static void a_reserved_range_is_never_handed_out(void **state)
{
    struct arena a;
    mm_pa_t pa;

    (void)state;
    arena_simple(&a, 128);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE + 10 * PAGE + 5, 20 * PAGE), MM_OK);
    assert_int_equal(stats_of(&a).reserved, 21 * PAGE); /* rounded outwards */
    while ((pa = mm_buddy_alloc(&a.b, 0, 0)) != MM_PA_NONE)
        assert_true(pa < BASE + 10 * PAGE || pa >= BASE + 31 * PAGE);
    assert_int_equal(stats_of(&a).used, 107 * PAGE);
    assert_int_equal(mm_buddy_release(&a.b, BASE + 12 * PAGE, 3 * PAGE), MM_OK);
    assert_int_equal(exhaust(&a, 0), 3);
    arena_end(&a);
}

static void wrong_reservations_change_nothing(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 128);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 40 * PAGE, 0, 0), MM_OK);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE, PAGE), MM_OK);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE + 30 * PAGE, 20 * PAGE), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE, 2 * PAGE), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE + 127 * PAGE, 2 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE - PAGE, 2 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE, UINT64_MAX), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_release(&a.b, BASE, 2 * PAGE), MM_ERR_NOENT);
    assert_refused(&a, mm_buddy_release(&a.b, BASE + 40 * PAGE, PAGE), MM_ERR_NOENT);
    assert_refused(&a, mm_buddy_release(&a.b, BASE, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_release(&a.b, BASE + 128 * PAGE, PAGE), MM_ERR_INVALID);
    arena_end(&a);
}

static void an_arena_grows_within_its_span(void **state)
{
    struct arena a;

    (void)state;
    arena_begin(&a, 100);
    a.config.span = 512 * PAGE;
    arena_make(&a);
    assert_int_equal(exhaust(&a, 0), 100);
    assert_int_equal(mm_buddy_grow(&a.b, BASE + 400 * PAGE, 50 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_grow(&a.b, BASE + 100 * PAGE + 1, 20 * PAGE),
                     MM_OK); /* 19 whole pages */
    assert_int_equal(stats_of(&a).total, 169 * PAGE);
    assert_int_equal(exhaust(&a, 0), 69);
    assert_refused(&a, mm_buddy_grow(&a.b, BASE + 399 * PAGE, 2 * PAGE), MM_ERR_EXISTS);
    assert_refused(&a, mm_buddy_grow(&a.b, BASE + 511 * PAGE, 2 * PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_grow(&a.b, BASE - PAGE, PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_grow(&a.b, BASE + 300 * PAGE, PAGE - 1), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_free(&a.b, BASE + 300 * PAGE), MM_ERR_INVALID);
    arena_end(&a);
    arena_begin(&a, 100);
    a.config.base += 5 * PAGE; /* amid a page block: what lies below is not the arena's */
    arena_make(&a);
    assert_refused(&a, mm_buddy_grow(&a.b, BASE + 4 * PAGE, PAGE), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_reserve(&a.b, BASE + 4 * PAGE, 2 * PAGE), MM_ERR_INVALID);
    arena_end(&a);
}

static void an_arena_shrinks_where_it_is_free(void **state)
{
    struct arena a;

    (void)state;
    arena_simple(&a, 256);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 10 * PAGE, 0, 0), MM_OK);
    assert_refused(&a, mm_buddy_shrink(&a.b, BASE, 20 * PAGE), MM_ERR_BUSY);
    assert_refused(&a, mm_buddy_shrink(&a.b, BASE + 1, PAGE), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_shrink(&a.b, BASE, 1), MM_ERR_ALIGN);
    assert_refused(&a, mm_buddy_shrink(&a.b, BASE, 0), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_shrink(&a.b, BASE + 250 * PAGE, 7 * PAGE), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_shrink(&a.b, BASE + 100 * PAGE, 100 * PAGE), MM_OK);
    assert_refused(&a, mm_buddy_shrink(&a.b, BASE + 90 * PAGE, 20 * PAGE), MM_ERR_NOENT);
    assert_int_equal(block_at(&a, BASE + 150 * PAGE).state, MM_BUDDY_STATE_ABSENT);
    assert_int_equal(exhaust(&a, 0), 155);
    assert_int_equal(mm_buddy_grow(&a.b, BASE + 150 * PAGE, 50 * PAGE), MM_OK);
    assert_int_equal(exhaust(&a, 0), 50);
    arena_end(&a);
}

/* ---- per-CPU lists ---- */

#define MANY 32768u /* pages: lists are worth their memory from some size on */

static void arena_with_lists(struct arena *a)
{
    arena_begin(a, MANY);
    a->config.cpu_lists = true;
    arena_make(a);
}

/* Takes all that is free, the largest blocks first: the self-check of each call makes one page at a
 * time slow. Returns the pages taken. */
static uint64_t exhaust_in_blocks(struct arena *a)
{
    uint64_t pages = 0;

    for (unsigned order = 10; order-- > 0;) {
        while (mm_buddy_alloc(&a->b, order, 0) != MM_PA_NONE)
            pages += (uint64_t)1 << order;
    }
    return pages;
}

static void lists_keep_blocks_that_any_cpu_can_still_have(void **state)
{
    struct arena a;
    mm_pa_t pa[8];

    (void)state;
    arena_with_lists(&a);
    assert_int_equal(mm_buddy_set_lists(&a.b, 8, 32), MM_OK);
    for (unsigned i = 0; i < 8; i++)
        pa[i] = mm_buddy_alloc(&a.b, 0, 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(mm_buddy_free(&a.b, pa[i]), MM_OK);
    assert_in_range(stats_of(&a).cached, PAGE, MANY * PAGE);
    assert_int_equal(stats_of(&a).used, 0);
    assert_int_equal(mm_buddy_free(&a.b, pa[0]), MM_ERR_INVALID); /* also while in a list */
    cpu_now = 1;
    assert_int_equal(mm_buddy_free(&a.b, pa[1]), MM_ERR_INVALID);
    assert_int_equal(exhaust_in_blocks(&a), MANY); /* those in CPU 0's list too */
    cpu_now = 0;
    arena_end(&a);
}

static void draining_empties_the_lists(void **state)
{
    struct arena a;

    (void)state;
    arena_with_lists(&a);
    for (cpu_now = 0; cpu_now < 2; cpu_now++)
        assert_int_equal(mm_buddy_free(&a.b, mm_buddy_alloc(&a.b, 0, 0)), MM_OK);
    cpu_now = 2;
    mm_buddy_drain_cpu(&a.b, 99);
    mm_buddy_drain_cpu(&a.b, 0);
    assert_in_range(stats_of(&a).cached, PAGE, 512 * PAGE);
    mm_buddy_drain_cpu(&a.b, 1);
    assert_int_equal(stats_of(&a).cached, 0);
    assert_int_equal(free_pages(&a), MANY);
    cpu_now = 0;
    assert_int_equal(mm_buddy_free(&a.b, mm_buddy_alloc(&a.b, 0, 0)), MM_OK);
    mm_buddy_drain(&a.b);
    assert_int_equal(free_pages(&a), MANY);
    arena_end(&a);
}

static void lists_obey_their_marks(void **state)
{
    struct arena a;
    mm_pa_t pa[1024];

    (void)state;
    arena_with_lists(&a);
    assert_refused(&a, mm_buddy_set_lists(&a.b, 0, 1), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_set_lists(&a.b, 9, 8), MM_ERR_INVALID);
    assert_refused(&a, mm_buddy_set_lists(&a.b, 1, MM_BUDDY_CPU_SLOTS + 1), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_set_lists(&a.b, 4, 16), MM_OK);
    (void)mm_buddy_alloc(&a.b, 0, 0);
    assert_int_equal(stats_of(&a).cached, 3 * PAGE);
    for (unsigned i = 0; i < 1024; i++)
        pa[i] = mm_buddy_alloc(&a.b, 0, 0);
    assert_int_equal(exhaust_in_blocks(&a), MANY - 1 - 1024);
    for (unsigned i = 0; i < 1024; i++) {
        assert_int_equal(mm_buddy_free(&a.b, pa[i]), MM_OK);
        assert_in_range(stats_of(&a).cached, 0, 32 * PAGE);
    }
    assert_int_equal(mm_buddy_set_lists(&a.b, 0, 0), MM_OK);
    assert_int_equal(stats_of(&a).cached, 0);
    (void)mm_buddy_alloc(&a.b, 0, 0);
    assert_int_equal(stats_of(&a).cached, 0);
    arena_end(&a);
    arena_simple(&a, 64);
    assert_refused(&a, mm_buddy_set_lists(&a.b, 1, 1), MM_ERR_PERM);
    arena_end(&a);
}

/* ---- questions ---- */

struct seen {
    struct mm_buddy_block block[64];
    unsigned count, stop;
};

static bool note(void *ctx, const struct mm_buddy_block *block)
{
    struct seen *seen = ctx;
    seen->block[seen->count++] = *block;
    return seen->count != seen->stop;
}

static void a_walk_sees_every_block_in_order(void **state)
{
    static const struct {
        unsigned first, pages, kind;
    } expected[] = {{0, 1, MM_BUDDY_STATE_ALLOCATED}, {1, 1, MM_BUDDY_STATE_FREE},
                    {2, 2, MM_BUDDY_STATE_FREE},      {4, 4, MM_BUDDY_STATE_FREE},
                    {8, 8, MM_BUDDY_STATE_RESERVED},  {16, 11, MM_BUDDY_STATE_ALLOCATED},
                    {27, 1, MM_BUDDY_STATE_FREE},     {28, 4, MM_BUDDY_STATE_FREE},
                    {32, 32, MM_BUDDY_STATE_FREE}};
    struct arena a;
    struct seen seen = {.count = 0};

    (void)state;
    arena_simple(&a, 64);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE, 0, 0), MM_OK);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 16 * PAGE, 4, 0), MM_OK);
    assert_int_equal(mm_buddy_resize_exact(&a.b, BASE + 16 * PAGE, 11 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE + 8 * PAGE, 8 * PAGE), MM_OK);
    mm_buddy_walk(&a.b, note, &seen);
    assert_int_equal(seen.count, 9);
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(seen.block[i].pa, BASE + expected[i].first * PAGE);
        assert_int_equal(seen.block[i].bytes, expected[i].pages * PAGE);
        assert_int_equal(seen.block[i].state, expected[i].kind);
    }
    seen.count = 0;
    seen.stop = 3;
    mm_buddy_walk(&a.b, note, &seen);
    assert_int_equal(seen.count, 3);
    arena_end(&a);
}

static void find_answers_for_every_byte(void **state)
{
    struct arena a;
    struct mm_buddy_block block;

    (void)state;
    arena_simple(&a, 64);
    assert_int_equal(mm_buddy_alloc_at(&a.b, BASE + 4 * PAGE, 2, 0), MM_OK);
    assert_int_equal(block_at(&a, BASE + 6 * PAGE + 123).pa, BASE + 4 * PAGE);
    assert_int_equal(block_at(&a, BASE + 40 * PAGE).pa, BASE + 32 * PAGE);
    assert_int_equal(block_at(&a, BASE + 40 * PAGE).bytes, 32 * PAGE);
    assert_int_equal(block_at(&a, BASE + 64 * PAGE - 1).state, MM_BUDDY_STATE_FREE);
    assert_int_equal(mm_buddy_find(&a.b, BASE + 64 * PAGE, &block), MM_ERR_INVALID);
    assert_int_equal(mm_buddy_find(&a.b, BASE - 1, &block), MM_ERR_INVALID);
    arena_end(&a);
}

static void statistics_add_up(void **state)
{
    struct arena a;
    struct mm_buddy_stats s;

    (void)state;
    arena_simple(&a, 200);
    (void)mm_buddy_alloc(&a.b, 5, MM_BUDDY_MOVABLE);
    assert_int_equal(mm_buddy_reserve(&a.b, BASE + 190 * PAGE, 3 * PAGE), MM_OK);
    assert_int_equal(mm_buddy_alloc(&a.b, 8, 0), MM_PA_NONE);
    s = stats_of(&a);
    assert_int_equal(s.total, 200 * PAGE);
    assert_int_equal(s.used, 32 * PAGE);
    assert_int_equal(s.reserved, 3 * PAGE);
    assert_int_equal(s.free, 165 * PAGE);
    assert_int_equal(s.cached, 0);
    assert_int_equal(s.failures, 1);
    assert_int_equal(s.free_by_type[0] + s.free_by_type[1] + s.free_by_type[2] + s.free_by_type[3],
                     s.free);
    for (unsigned order = 0; order < MM_BUDDY_ORDERS; order++)
        s.free -= s.free_blocks[order] * (PAGE << order);
    assert_int_equal(s.free, 0);
    arena_end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_configuration_is_invalid),
        cmocka_unit_test(metadata_that_do_not_fit_are_refused_unwritten),
        cmocka_unit_test(metadata_may_lie_at_any_address),
        cmocka_unit_test(metadata_cost_at_most_two_bytes_a_block),
        cmocka_unit_test(any_base_and_size_serve_with_absolute_alignment),
        cmocka_unit_test(every_size_of_smallest_block_serves),
        cmocka_unit_test(orders_up_to_31_serve),
        cmocka_unit_test(too_many_smallest_blocks_are_a_limit),
        cmocka_unit_test(metadata_inside_count_as_absent),
        cmocka_unit_test(a_block_is_as_large_as_asked),
        cmocka_unit_test(impossible_requests_get_nothing),
        cmocka_unit_test(zero_fill_goes_through_the_hook),
        cmocka_unit_test(the_tail_of_an_exact_block_is_free),
        cmocka_unit_test(an_alignment_beyond_the_size_is_kept),
        cmocka_unit_test(a_block_at_an_address_is_taken_or_refused),
        cmocka_unit_test(bulk_gives_what_there_is),
        cmocka_unit_test(wrong_frees_are_told_apart),
        cmocka_unit_test(a_bulk_free_is_all_or_nothing),
        cmocka_unit_test(buddies_merge_up_to_the_largest_order),
        cmocka_unit_test(a_block_shrinks_and_grows_in_place),
        cmocka_unit_test(a_resize_that_cannot_be_changes_nothing),
        cmocka_unit_test(an_exact_block_resizes_exactly),
        cmocka_unit_test(a_reserved_range_is_never_handed_out),
        cmocka_unit_test(wrong_reservations_change_nothing),
        cmocka_unit_test(an_arena_grows_within_its_span),
        cmocka_unit_test(an_arena_shrinks_where_it_is_free),
        cmocka_unit_test(lists_keep_blocks_that_any_cpu_can_still_have),
        cmocka_unit_test(draining_empties_the_lists),
        cmocka_unit_test(lists_obey_their_marks),
        cmocka_unit_test(a_walk_sees_every_block_in_order),
        cmocka_unit_test(find_answers_for_every_byte),
        cmocka_unit_test(statistics_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
