/* What happens at the edges of mm_frame.h's tables: a full table of spans, metadata of the pool's
 * own, all of the address space, the last call of a hook, huge blocks of half a section. */
#define MM_FRAME_HUGE_ORDER 12
#include "frame_test.h"

static unsigned char meta[1 << 20];
static struct mm_frame_pool pool;
static struct mm_frame_range usable = {0, 64 * MIB, MM_FRAME_USABLE};

/* One zone to 256 MiB with memory at its start, and place for so much that comes on-line. */
static void begin(struct mm_frame_config *config, uint64_t hotplug)
{
    static struct mm_frame_zone_config zone;

    zone = (struct mm_frame_zone_config){"N", 0, 256 * MIB, 0, 0, 0, hotplug, false};
    memset(config, 0, sizeof *config);
    config->map = &usable;
    config->map_count = 1;
    config->zones = &zone;
    config->zone_count = 1;
    config->meta = meta;
    config->meta_size = sizeof meta;
}

static void check(void)
{
    const char *what = NULL;
    assert_int_equal(mm_frame_check(&pool, UINT64_MAX, &what), MM_OK);
}

static uintptr_t spans(void)
{
    return pool.table[pool.table_current].count;
}

/* Takes single frames off-line until the table of spans has so much room. */
static mm_pa_t fill_spans(uintptr_t room)
{
    mm_pa_t at = MIB;
    for (; spans() < pool.span_capacity - room; at += MIB)
        assert_int_equal(mm_frame_offline(&pool, at, PAGE, NULL, NULL, NULL), MM_OK);
    return at;
}

static void a_full_table_takes_what_needs_no_room(void **state)
{
    struct mm_frame_config config;
    mm_pa_t last;
    (void)state;
    begin(&config, 64 * MIB);
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    last = fill_spans(0);
    assert_int_equal(mm_frame_offline(&pool, last, PAGE, NULL, NULL, NULL), MM_ERR_LIMIT);
    assert_int_equal(mm_frame_offline(&pool, 63 * MIB, MIB, NULL, NULL, NULL), MM_OK);
    assert_int_equal(spans(), pool.span_capacity);
    assert_int_equal(mm_frame_online(&pool, 0, MIB, PAGE), MM_OK); /* two spans become one */
    assert_int_equal(spans(), pool.span_capacity - 1);
    assert_int_equal(mm_frame_online(&pool, 0, 100 * MIB, PAGE), MM_OK);
    assert_int_equal(mm_frame_online(&pool, 0, 102 * MIB, PAGE), MM_ERR_LIMIT);
    assert_int_equal(mm_frame_offline(&pool, 100 * MIB, PAGE, NULL, NULL, NULL), MM_OK);
    check();
}

/* While a range is emptied, memory comes on-line. */
static enum mm_status migrate_and_grow(void *ctx, struct mm_frame_pool *p, mm_pa_t from, mm_pa_t to)
{
    (void)from;
    (void)to;
    if ((*(unsigned *)ctx)++ == 0)
        assert_int_equal(mm_frame_online(p, 0, 100 * MIB, PAGE), MM_OK);
    return MM_OK;
}

static void a_table_that_fills_up_meanwhile_refuses_the_rest(void **state)
{
    struct mm_frame_config config;
    unsigned moved = 0;
    mm_pa_t at;
    (void)state;
    begin(&config, 64 * MIB);
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    at = fill_spans(1);
    assert_int_equal(mm_frame_alloc_at(&pool, at, 1), MM_OK);
    const uint64_t before = mm_frame_free_count(&pool, 0);
    assert_int_equal(mm_frame_offline(&pool, at, PAGE, migrate_and_grow, &moved, NULL),
                     MM_ERR_LIMIT);
    assert_int_equal(moved, 1);
    assert_int_equal(mm_frame_free_count(&pool, 0), before + 1); /* one came, one was moved */
    assert_int_equal(mm_frame_offline(&pool, 100 * MIB, PAGE, NULL, NULL, NULL), MM_OK);
    assert_int_equal(mm_frame_offline(&pool, at, PAGE, NULL, NULL, NULL), MM_OK);
    check();
}

static unsigned char *ram;
static void *view(void *ctx, mm_pa_t pa, uint64_t size)
{
    (void)ctx;
    (void)size;
    return ram + pa;
}

static void metadata_does_not_come_on_line(void **state)
{
    struct mm_frame_config config;
    (void)state;
    ram = aligned_alloc(4096, 64 * MIB);
    assert_non_null(ram);
    begin(&config, 64 * MIB);
    config.meta = NULL;
    config.meta_size = 0;
    config.hooks.view = view;
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    const uint64_t bytes = pool.carved_end - pool.carved;
    assert_int_equal(mm_frame_online(&pool, 0, pool.carved, bytes), MM_ERR_EXISTS);
    assert_int_equal(mm_frame_online(&pool, 0, pool.carved_end - PAGE, PAGE), MM_ERR_EXISTS);
    check();
    free(ram);
}

static void all_of_the_address_space_is_two_ranges(void **state)
{
    static const struct mm_frame_range all = {0, UINT64_MAX, MM_FRAME_RESERVED};
    const uint64_t half = (uint64_t)1 << 63;
    struct mm_frame_range out[3];
    size_t n = 0;
    (void)state;
    assert_int_equal(mm_frame_map_clean(&all, 1, out, 3, &n), MM_OK);
    assert_int_equal(n, 2);
    assert_true(out[0].base == 0 && out[0].size == half && out[0].type == MM_FRAME_RESERVED);
    assert_true(out[1].base == half && out[1].size == half && out[1].type == MM_FRAME_RESERVED);
    assert_int_equal(mm_frame_map_clean(&all, 1, out, 1, &n), MM_ERR_LIMIT);
    assert_int_equal(n, 2);
}

static mm_pa_t held[64 * MIB / 4096 + 1]; /* and the failure */
static size_t held_count;
static unsigned asked, frees_at;
static bool free_when_asked(void *ctx, struct mm_frame_pool *p, unsigned zone,
                            enum mm_frame_pressure level)
{
    (void)ctx;
    (void)zone;
    if (level != MM_FRAME_PRESSURE_FAIL)
        return false;
    if (++asked == frees_at)
        assert_int_equal(mm_frame_free(p, held[--held_count]), MM_OK);
    return true;
}

/* Whatever call of the hook frees a frame: it is looked for after that. */
static void what_the_last_call_for_help_freed_is_used(void **state)
{
    struct mm_frame_config config;
    (void)state;
    begin(&config, 0);
    config.hooks.pressure = free_when_asked;
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    while ((held[held_count] = mm_frame_alloc(&pool, MM_FRAME_NOWAIT)) != MM_PA_NONE)
        held_count++;
    frees_at = 0;
    asked = 0;
    assert_true(mm_frame_alloc(&pool, 0) == MM_PA_NONE);
    const unsigned most = asked;
    for (frees_at = 1; frees_at <= most; frees_at++) {
        asked = 0;
        held[held_count] = mm_frame_alloc(&pool, 0);
        assert_true(held[held_count++] != MM_PA_NONE);
        assert_int_equal(asked, frees_at);
    }
}

static void a_huge_block_of_64_words_is_whole_or_not(void **state)
{
    struct mm_frame_config config;
    (void)state;
    begin(&config, 0);
    assert_int_equal(mm_frame_init(&pool, &config), MM_OK);
    for (mm_pa_t at = 15 * MIB; at < 64 * MIB; at += 16 * MIB) /* in the upper half of each */
        assert_int_equal(mm_frame_alloc_at(&pool, at, 1), MM_OK);
    assert_true(mm_frame_alloc_order(&pool, 12, 0) == MM_PA_NONE);
    assert_int_equal(mm_frame_free(&pool, 31 * MIB), MM_OK);
    assert_true(mm_frame_alloc_order(&pool, 12, 0) == 16 * MIB);
    check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_table_takes_what_needs_no_room),
        cmocka_unit_test(a_table_that_fills_up_meanwhile_refuses_the_rest),
        cmocka_unit_test(metadata_does_not_come_on_line),
        cmocka_unit_test(all_of_the_address_space_is_two_ranges),
        cmocka_unit_test(what_the_last_call_for_help_freed_is_used),
        cmocka_unit_test(a_huge_block_of_64_words_is_whole_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
