#!/bin/sh
# With MM_*_STATIC the CPU's number may be a static variable or function, as most kernels have it.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
mkdir -p build/test/compile

takes_static_hooks() { # HEADER COMPILER
    upper=$(basename "$1" .h | tr '[:lower:]' '[:upper:]')
    cat >"build/test/compile/static_$upper.c" <<END
#define MM_CPU_MAX 4
static unsigned cpu_number(void)
{
    return 0;
}
#define MM_CPU_ID() cpu_number()
#define ${upper}_STATIC
#define ${upper}_IMPLEMENTATION
#include "$1"
extern unsigned (*const cpu_number_in_use)(void);
unsigned (*const cpu_number_in_use)(void) = cpu_number;
END
    $2 -std=gnu11 -Wall -Wextra -Wpedantic -Werror -I. -c -o "build/test/compile/static_$upper.o" \
        "build/test/compile/static_$upper.c"
}

for header in mm_*.h; do
    check "$header: gcc" takes_static_hooks "$header" gcc
    check "$header: clang" takes_static_hooks "$header" clang
done
checks_done
