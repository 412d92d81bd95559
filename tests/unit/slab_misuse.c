/* A build with debug code notices every misuse of slab_misuse.h. */
#define MM_SLAB_DEBUG 2
#include "slab_misuse.h"

static void everything_is_noticed(void **state)
{
    static const struct tally all[KINDS] = {
        [OVERFLOW_BY_1] = {22, 22},      [OVERFLOW_OF_8] = {22, 22},
        [UNDERFLOW_BY_1] = {20, 20},     [UNDERFLOW_OF_8] = {20, 20},
        [DOUBLE_AT_ONCE] = {22, 22},     [DOUBLE_AFTER_ANOTHER] = {22, 22},
        [DOUBLE_AFTER_MANY] = {22, 22},  [DOUBLE_OF_RCU] = {22, 22},
        [FREE_INSIDE_BY_1] = {20, 20},   [FREE_INSIDE_BY_16] = {18, 18},
        [FREE_AT_END] = {22, 22},        [WILD_FREE] = {22, 22},
        [FREE_OF_OTHER_HEAP] = {22, 22}, [FREE_OF_OTHER_CACHE] = {22, 22},
        [WRITE_AFTER_FREE] = {20, 20},   [WRITE_AFTER_FREE_AT_END] = {20, 20},
        [REALLOC_AFTER_FREE] = {12, 12},
    };
    (void)state;
    run(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
