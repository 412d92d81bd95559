/* A release build notices every double, wild, misaligned and foreign free of slab_misuse.h, at once
 * or when the object reaches its slab; what is written outside of objects it does not see. */
#define MM_SLAB_DEBUG 0
#include "slab_misuse.h"

static void every_bad_free_is_noticed(void **state)
{
    static const struct tally frees[KINDS] = {
        [OVERFLOW_BY_1] = {0, 22},       [OVERFLOW_OF_8] = {0, 22},
        [UNDERFLOW_BY_1] = {0, 20},      [UNDERFLOW_OF_8] = {0, 20},
        [DOUBLE_AT_ONCE] = {22, 22},     [DOUBLE_AFTER_ANOTHER] = {22, 22},
        [DOUBLE_AFTER_MANY] = {22, 22},  [DOUBLE_OF_RCU] = {22, 22},
        [FREE_INSIDE_BY_1] = {20, 20},   [FREE_INSIDE_BY_16] = {18, 18},
        [FREE_AT_END] = {22, 22},        [WILD_FREE] = {22, 22},
        [FREE_OF_OTHER_HEAP] = {22, 22}, [FREE_OF_OTHER_CACHE] = {22, 22},
        [WRITE_AFTER_FREE] = {0, 20},    [WRITE_AFTER_FREE_AT_END] = {0, 20},
        [REALLOC_AFTER_FREE] = {6, 12}, /* of every other size the object has room */
    };
    (void)state;
    run(frees);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_free_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
