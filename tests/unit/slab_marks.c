/* Marks of mm_slab.h: a word that is read beside one equals no token and no place.
 *
 * All bytes of the two words are bytes h0 to h5 of the owner's address, s for its upper two, and
 * bytes of an offset, but for bits that are set, cleared or turned over: bit b of one byte depends
 * on the bits b of the others alone. So there is a case in which a word read beside a mark equals
 * what is sought only if each of the eight bits has a solution for itself, of 2048 combinations. */
#include "mm_test.h"

#define MM_SLAB_IMPLEMENTATION
#define MM_SLAB_STATIC
#include "mm_slab.h"

enum { H = 0, S = 6, SOUGHT = 7, THERE = 9, BITS = 11 }; /* of a combination */

static unsigned of(unsigned combination, unsigned i)
{
    return combination >> i & 1;
}

/* Bit b of each byte of a token, and of a place with the offset at `offset`. */
static void token_bits(unsigned *bit, unsigned combination, unsigned b)
{
    for (unsigned i = 0; i < 8; i++)
        bit[i] = of(combination, i < 6 ? H + i : S);
    bit[0] |= b == 0;
}

static void place_bits(unsigned *bit, unsigned combination, unsigned b, unsigned offset)
{
    bit[0] = of(combination, offset);
    bit[1] = of(combination, offset + 1);
    for (unsigned i = 0; i < 6; i++)
        bit[i + 2] = of(combination, H + i) ^ (MMI_SLAB_PLACE >> (8 * (i + 2) + b) & 1);
}

/* Addresses of owners are multiples of 8, offsets end in 11000. */
static bool lawful(unsigned combination, unsigned b)
{
    unsigned low = 0x18u >> b & 1;

    return (b >= 3 || of(combination, H) == 0) &&
           (b >= 5 || (of(combination, SOUGHT) == low && of(combination, THERE) == low));
}

/* Whether the word `shift` bytes behind a mark's (0: the mark itself) may be equal to the one that
 * is sought in bit b; behind the mark is another one, or nothing. */
static bool may_be(bool place, unsigned shift, bool next, unsigned b, unsigned combination)
{
    unsigned memory[32] = {0}, sought[8];

    for (unsigned mark = 0; mark < 1u + next; mark++) {
        token_bits(&memory[16 * mark], combination, b);
        place_bits(&memory[16 * mark + 8], combination, b, THERE);
    }
    if (place)
        place_bits(sought, combination, b, SOUGHT);
    else
        token_bits(sought, combination, b);
    return memcmp(&memory[(place ? 8 : 0) + shift], sought, sizeof sought) == 0;
}

static bool has_solution(bool place, unsigned shift, bool next, unsigned b, unsigned s)
{
    for (unsigned c = 0; c < 1u << BITS; c++)
        if (lawful(c, b) && of(c, S) == s && may_be(place, shift, next, b, c))
            return true;
    return false;
}

static bool ever(bool place, unsigned shift, bool next)
{
    for (unsigned s = 0; s < 2; s++) { /* of all bits alike: addresses are canonical */
        unsigned b = 0;

        while (b < 8 && has_solution(place, shift, next, b, s))
            b++;
        if (b == 8)
            return true;
    }
    return false;
}

static void nothing_beside_a_mark_is_one(void **state)
{
    (void)state;
    for (unsigned place = 0; place < 2; place++)
        for (unsigned next = 0; next < 2; next++) {
            assert_true(ever(place != 0, 0, next != 0));
            for (unsigned shift = 1; shift < 16; shift++)
                assert_false(ever(place != 0, shift, next != 0));
        }
}

/* That the words are made so, whatever the machine's order of bytes. */
static void words_are_what_the_proof_says(void **state)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 0);

    (void)state;
    for (unsigned n = 0; n < 100000; n++) {
        uint64_t owner = mm_test_rand(&rng) >> 16 & ~UINT64_C(7);
        uintptr_t offset = (uintptr_t)mm_test_below(&rng, 2048) * 32 + 24;

        owner |= n % 2 != 0 ? UINT64_C(0xffff) << 48 : 0;
        for (unsigned b = 0; b < 8; b++) {
            unsigned combination = 0, token[8], place[8];

            for (unsigned i = 0; i < 7; i++)
                combination |= (unsigned)(owner >> (8 * i + b) & 1) << i;
            for (unsigned i = 0; i < 2; i++)
                combination |= (unsigned)(offset >> (8 * i + b) & 1) << (THERE + i);
            assert_true(lawful(combination | (combination >> 2 & 3u << SOUGHT), b));
            token_bits(token, combination, b);
            place_bits(place, combination, b, THERE);
            for (unsigned i = 0; i < 8; i++) {
                const void *at = (const void *)(uintptr_t)owner;
                assert_int_equal(mmi_slab_token(at) >> (8 * i + b) & 1, token[i]);
                assert_int_equal(mmi_slab_place(at, offset) >> (8 * i + b) & 1, place[i]);
            }
        }
        assert_int_equal(mmi_slab_place_offset(mmi_slab_place((const void *)owner, offset)),
                         offset);
    }
}

static void offsets_end_in_the_same_bits(void **state)
{
    (void)state;
    for (unsigned c = 0; c < MM_SLAB_CLASSES; c++)
        assert_int_equal(mmi_slab_class_words(c) * 8 % 32, 24);
    assert_int_equal((MMI_SLAB_CLASS_WORDS + MMI_SLAB_ARRAY_AT(MMI_SLAB_COMMON)) * 8 % 32, 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_beside_a_mark_is_one),
                                       cmocka_unit_test(words_are_what_the_proof_says),
                                       cmocka_unit_test(offsets_end_in_the_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
