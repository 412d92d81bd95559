#!/bin/sh
# With MM_*_STATIC the CPU's number may be a static variable or function, as most kernels have it; so
# may what leads to a table, ends its use, and counts its entries.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
mkdir -p build/test/compile

takes_static_hooks() { # HEADER COMPILER
    upper=$(basename "$1" .h | tr '[:lower:]' '[:upper:]')
    cat >"build/test/compile/static_$upper.c" <<END
#include <stdint.h>
#define MM_CPU_MAX 4
static unsigned cpu_number(void)
{
    return 0;
}
#define MM_CPU_ID() cpu_number()
static void *table_at(unsigned long long pa)
{
    return (void *)(uintptr_t)pa;
}
static void table_left(void *table)
{
    (void)table;
}
static uint16_t entries[16];
#define MM_PAGETABLE_OPEN(pt, pa) table_at(pa)
#define MM_PAGETABLE_CLOSE(pt, p) table_left(p)
#define MM_PAGETABLE_COUNT(pt, pa) entries[(pa) >> 12 & 15]
#define ${upper}_STATIC
#define ${upper}_IMPLEMENTATION
#include "$1"
extern unsigned (*const cpu_number_in_use)(void);
unsigned (*const cpu_number_in_use)(void) = cpu_number;
extern void *(*const table_at_in_use)(unsigned long long);
void *(*const table_at_in_use)(unsigned long long) = table_at;
extern void (*const table_left_in_use)(void *);
void (*const table_left_in_use)(void *) = table_left;
extern uint16_t *const entries_in_use;
uint16_t *const entries_in_use = entries;
END
    $2 -Wall -Wextra -Wpedantic -Werror -I. -c -o "build/test/compile/static_$upper.o" \
        "build/test/compile/static_$upper.c"
}

for header in mm_*.h; do
    check "$header: gcc" takes_static_hooks "$header" "gcc -std=gnu11"
    check "$header: clang" takes_static_hooks "$header" "clang -std=gnu11"
    check "$header: g++" takes_static_hooks "$header" "g++ -x c++ -std=gnu++17"
done
checks_done
