/* Every reachable state of small pools, and every call from each of them: what it returns and which
 * state follows are compared with a plain set of cells.
 *
 * A pool has two sections with a span each; a span is some cells, a cell 2^k frames that are always
 * allocated and freed together. A state is
 *     which cells are allocated                               2^cells
 *     for each span whose first four cells are a huge block,
 *     whether they are allocated as one                       (2^4 + 1) / 2^4
 *     who owns each of the sections: nobody, CPU 0, CPU 1     3^2
 * and all of these can be reached. */
#define MM_CPU_MAX          2
#define MM_FRAME_HUGE_ORDER 7
#include "frame_test.h"

struct instance {
    const char *name;
    unsigned order;   /* a cell is 2^order frames */
    unsigned n[2];    /* cells of each span */
    uint64_t base[2]; /* frame number of each span */
    unsigned expected;
};

static const struct instance *inst;
static unsigned cells;
static struct lab lab;

struct seen {
    struct mm_frame_pool pool;
    unsigned char *meta;
    unsigned set;
};

#define KEYS (1u << 20)
static int32_t number_of[KEYS];
static struct seen *states;
static unsigned state_count, state_room;

/* ---- cells ----------------------------------------------------------------------------------- */

static uint64_t frame_of(unsigned cell)
{
    const unsigned span = cell >= inst->n[0];

    return inst->base[span] + ((uint64_t)(span ? cell - inst->n[0] : cell) << inst->order);
}

/* The cells [first, first + count) as a set, 0 if they are not all there in one span. */
static unsigned cells_at(uint64_t frame, unsigned count)
{
    for (unsigned cell = 0; cell < cells; cell++) {
        const unsigned end = cell < inst->n[0] ? inst->n[0] : cells;
        if (frame_of(cell) == frame && count != 0 && count <= end - cell)
            return ((1u << count) - 1) << cell;
    }
    return 0;
}

/* The allocated cells; each cell's frames must be alike. */
static unsigned set_now(void)
{
    unsigned set = 0;

    for (unsigned cell = 0; cell < cells; cell++) {
        const uint64_t index = (frame_of(cell) & (MMI_FRAME_SECTION - 1)) +
                               (cell >= inst->n[0] ? MMI_FRAME_SECTION : 0);
        const struct mm_frame_section *section =
            &lab.pool.section[index >> MMI_FRAME_SECTION_SHIFT];
        const unsigned w = (unsigned)(index >> MM_WORD_SHIFT);
        const bool huge = (section->huge & mmi_frame_group(w & (MM_WORD_BITS - 1))) != 0;
        const uintptr_t mask = mm_mask(1u << inst->order) << (index & (MM_WORD_BITS - 1));
        const uintptr_t bits = huge ? 0 : lab.pool.word[w] & mask;
        assert_true(bits == 0 || bits == mask);
        set |= bits != 0 ? 0 : 1u << cell;
    }
    return set;
}

static bool has_run(unsigned set, unsigned count, uint64_t align)
{
    for (unsigned cell = 0; cell < cells; cell++) {
        const unsigned run = cells_at(frame_of(cell), count);
        if (run != 0 && (set & run) == 0 && frame_of(cell) % align == 0)
            return true;
    }
    return false;
}

/* ---- states ---------------------------------------------------------------------------------- */

static void note_state(void)
{
    const unsigned set = set_now();
    unsigned key = set;

    for (unsigned i = 0; i < 2; i++) {
        assert_in_range(lab.pool.owner[i], 0, 2);
        key |= (unsigned)lab.pool.owner[i] << (12 + 2 * i);
        key |= (lab.pool.section[i].huge != 0 ? 1u : 0u) << (16 + i);
    }
    if (number_of[key] != 0)
        return;
    if (state_count == state_room) {
        state_room = state_room * 2 + 1024;
        states = realloc(states, state_room * sizeof states[0]);
        assert_non_null(states);
    }
    states[state_count].pool = lab.pool;
    states[state_count].meta = lab_memory(lab.meta_size);
    memcpy(states[state_count].meta, lab.meta, lab.meta_size);
    states[state_count].set = set;
    number_of[key] = (int32_t)++state_count;
}

static unsigned go_to(unsigned state)
{
    lab.pool = states[state].pool;
    memcpy(lab.meta, states[state].meta, lab.meta_size);
    return states[state].set;
}

/* After a call: the cells that must be allocated now. */
static void follows(unsigned set)
{
    const char *what = NULL;

    assert_int_equal(set_now(), set);
    if (mm_frame_check(&lab.pool, (uint64_t)__builtin_popcount(set) << inst->order, &what) !=
        MM_FRAME_HEALTHY)
        fail_msg("set %x: %s", set, what);
    note_state();
}

/* ---- calls ----------------------------------------------------------------------------------- */

static unsigned taken(unsigned set, mm_pa_t pa, unsigned count, uint64_t align)
{
    if (pa == MM_PA_NONE) {
        if (has_run(set, count, align))
            fail_msg("set %x: false failure for %u cells", set, count);
        return set;
    }
    assert_int_equal(pa / PAGE % align, 0);
    assert_int_not_equal(cells_at(pa / PAGE, count), 0);
    assert_int_equal(set & cells_at(pa / PAGE, count), 0);
    return set | cells_at(pa / PAGE, count);
}

static void every_alloc(unsigned state)
{
    for (unsigned k = 0; k <= 4; k++) {
        const unsigned set = go_to(state), order = inst->order + k;
        follows(
            taken(set, mm_frame_alloc_order(&lab.pool, order, 0), 1u << k, (uint64_t)1 << order));
    }
    for (unsigned count = 1; count <= 7; count++) {
        for (unsigned k = 0; k <= 2; k++) {
            const unsigned set = go_to(state);
            const uint64_t align = (uint64_t)1 << (inst->order + k);
            follows(taken(set, lab_run(&lab, (uint64_t)count << inst->order, align * PAGE, 0, 0, 0),
                          count, align));
        }
    }
}

static void every_bulk(unsigned state)
{
    mm_pa_t out[8];

    for (unsigned count = 1; inst->order == 0 && count <= 5; count++) {
        unsigned set = go_to(state);
        const unsigned room = cells - (unsigned)__builtin_popcount(set);
        const size_t got = mm_frame_alloc_bulk(&lab.pool, count, 0, out);
        assert_int_equal(got, count < room ? count : room);
        for (size_t i = 0; i < got; i++)
            set = taken(set, out[i], 1, 1);
        follows(set);
    }
    for (unsigned i = 0; inst->order == 0 && i < cells * cells; i++) {
        unsigned set = go_to(state), good = 0;
        out[0] = frame_of(i / cells) * PAGE;
        out[1] = frame_of(i % cells) * PAGE;
        for (; good < 2 && (set & cells_at(out[good] / PAGE, 1)) != 0; good++)
            set &= ~cells_at(out[good] / PAGE, 1);
        assert_int_equal(mm_frame_free_bulk(&lab.pool, 2, out, NULL), good);
        follows(set);
    }
}

/* Each range of cells around both spans, valid or not. */
static void every_range(unsigned state, uint64_t frame, unsigned count)
{
    const unsigned run = cells_at(frame, count);
    const uint64_t frames = (uint64_t)count << inst->order;
    const mm_pa_t pa = frame * PAGE;
    unsigned set = go_to(state);
    enum mm_status expected;

    expected = count != 0 && run != 0 && (set & run) == run ? MM_OK : MM_ERR_INVALID;
    assert_int_equal(mm_frame_free_run(&lab.pool, pa, frames), expected);
    follows(expected == MM_OK ? set & ~run : set);
    set = go_to(state);
    expected = count == 0  ? MM_ERR_INVALID
               : run == 0  ? MM_ERR_NOENT
               : set & run ? MM_ERR_BUSY
                           : MM_OK;
    assert_int_equal(mm_frame_alloc_at(&lab.pool, pa, frames), expected);
    follows(expected == MM_OK ? set | run : set);
    for (unsigned k = 0; k < 4; k++) {
        if (count != 1u << k)
            continue;
        set = go_to(state);
        expected = frame % frames != 0              ? MM_ERR_ALIGN
                   : run != 0 && (set & run) == run ? MM_OK
                                                    : MM_ERR_INVALID;
        assert_int_equal(mm_frame_free_order(&lab.pool, pa, inst->order + k), expected);
        follows(expected == MM_OK ? set & ~run : set);
    }
}

/* Reserve and release pass over holes: any range of frames. */
static void every_reserve(unsigned state, uint64_t frame, uint64_t end)
{
    unsigned within = 0, set;
    enum mm_status expected;

    for (unsigned cell = 0; cell < cells; cell++)
        if (frame_of(cell) >= frame && frame_of(cell) < end)
            within |= 1u << cell;
    set = go_to(state);
    expected = end == frame ? MM_ERR_INVALID : set & within ? MM_ERR_BUSY : MM_OK;
    assert_int_equal(mm_frame_reserve(&lab.pool, frame * PAGE, (end - frame) * PAGE, NULL),
                     expected);
    follows(expected == MM_OK ? set | within : set);
    set = go_to(state);
    expected = end == frame ? MM_ERR_INVALID : ~set & within ? MM_ERR_BUSY : MM_OK;
    assert_int_equal(mm_frame_release(&lab.pool, frame * PAGE, (end - frame) * PAGE, NULL),
                     expected);
    follows(expected == MM_OK ? set & ~within : set);
}

static void every_single(unsigned state, uint64_t frame)
{
    const unsigned cell = cells_at(frame, 1);
    unsigned set = go_to(state);
    const enum mm_status expected = (set & cell) != 0 ? MM_OK : MM_ERR_INVALID;

    assert_int_equal(mm_frame_is_free(&lab.pool, frame * PAGE),
                     cell == 0 ? MM_ERR_INVALID : (set & cell) == 0);
    if (inst->order != 0)
        return;
    assert_int_equal(mm_frame_free(&lab.pool, frame * PAGE), expected);
    follows(expected == MM_OK ? set & ~cell : set);
    set = go_to(state);
    assert_int_equal(mm_frame_free(&lab.pool, frame * PAGE + 1), MM_ERR_ALIGN);
    follows(set);
}

static void every_call(unsigned state)
{
    every_alloc(state);
    every_bulk(state);
    for (unsigned span = 0; span < 2; span++) {
        const uint64_t cell = (uint64_t)1 << inst->order, first = inst->base[span] - cell;
        for (unsigned i = 0; i < inst->n[span] + 2; i++) {
            every_single(state, first + i * cell);
            for (unsigned count = 0; count <= inst->n[span] + 2 - i; count++)
                every_range(state, first + i * cell, count);
            every_reserve(state, first + i * cell, first + (i + 2) * cell);
            every_reserve(state, inst->base[0], first + (i + 1) * cell);
        }
    }
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        const unsigned set = go_to(state);
        assert_int_equal(mm_frame_drain(&lab.pool, cpu), MM_OK);
        follows(set);
    }
}

static void explore(const struct instance *instance)
{
    inst = instance;
    cells = inst->n[0] + inst->n[1];
    memset(number_of, 0, sizeof number_of);
    state_count = 0;
    lab_begin(&lab);
    for (unsigned span = 0; span < 2; span++)
        lab_range(&lab, inst->base[span] * PAGE, ((uint64_t)inst->n[span] << inst->order) * PAGE,
                  MM_FRAME_USABLE);
    lab_start(&lab);
    note_state();
    for (unsigned state = 0; state < state_count; state++) {
        for (unsigned cpu = 0; cpu <= 2; cpu++) {
            mm_test_cpu = cpu;
            every_call(state);
        }
    }
    printf("# %s: %u states\n", inst->name, state_count);
    assert_int_equal(state_count, inst->expected);
    for (unsigned state = 0; state < state_count; state++)
        free(states[state].meta);
    free(lab.meta);
}

static void single_frames_in_two_sections(void **state)
{
    static const struct instance full = {"4 + 4 frames", 0, {4, 4}, {3, 4100}, (1 << 8) * 9};
    static const struct instance less = {"3 + 2 frames", 0, {3, 2}, {3, 4100}, (1 << 5) * 9};

    (void)state;
    explore(MM_TEST_SANITIZED ? &less : &full);
}

static void half_words_of_huge_blocks(void **state)
{
    static const struct instance full = {
        "blocks of 4 half words", 5, {5, 4}, {128, 4096 + 256}, 17 * 2 * 17 * 9};
    static const struct instance less = {
        "a block of 4 half words", 5, {4, 1}, {128, 4096 + 256}, 17 * 2 * 9};

    (void)state;
    explore(MM_TEST_SANITIZED ? &less : &full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_frames_in_two_sections),
        cmocka_unit_test(half_words_of_huge_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
