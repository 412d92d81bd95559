/* The core block's bit counting, by the compiler's builtins and in the portable forms, against a
 * loop over the bits. */
#include "mm_test.h"

#include "mm_buddy.h"

static void assert_bits(uintptr_t x)
{
    unsigned set = 0, low = MM_WORD_BITS, high = 0;

    for (unsigned i = 0; i < MM_WORD_BITS; i++)
        if ((x >> i & 1) != 0) {
            low = low < i ? low : i;
            high = i;
            set++;
        }
    assert_int_equal(mm_popcount(x), set);
    assert_int_equal(mm_popcount_portable(x), set);
    if (x == 0)
        return;
    assert_int_equal(mm_ctz(x), low);
    assert_int_equal(mm_ctz_portable(x), low);
    assert_int_equal(mm_fls(x), high);
    assert_int_equal(mm_fls_portable(x), high);
}

static void every_pair_of_bits(void **state)
{
    (void)state;
    assert_bits(0);
    for (unsigned i = 0; i < MM_WORD_BITS; i++)
        for (unsigned k = 0; k <= i; k++) {
            assert_bits(mm_bit(i) | mm_bit(k));
            assert_bits(~(mm_bit(i) | mm_bit(k)));
            assert_bits(mm_bit(i) - mm_bit(k)); /* a run, or 0 */
        }
}

static void random_words(void **state)
{
    struct mm_test_rng rng = mm_test_rng(mm_test_seed(), 1);

    (void)state;
    for (unsigned n = 0; n < 10000; n++)
        assert_bits((uintptr_t)mm_test_rand(&rng) >> n % MM_WORD_BITS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_bits),
        cmocka_unit_test(random_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
