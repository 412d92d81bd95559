#!/bin/sh
# examples/bootmaps compiles without a warning, freestanding, for each target, and needs no library.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
object=$(mktemp)
trap 'rm -f "$object"' EXIT

compiles() { # COMPILER...
    "$@" -ffreestanding -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion \
        -Wcast-align -Wundef -Wvla -Werror -I. -c -o "$object" examples/bootmaps/bootmaps.c &&
        ! nm -u "$object" | grep -vE ' (memcpy|memset)$'
}

for std in c99 c11 c17 c2x; do
    check "gcc $std" compiles gcc -std=$std
done
check "g++ c++11" compiles g++ -x c++ -std=c++11
for target in x86_64 i386 aarch64 riscv64 riscv32; do
    check "clang $target" compiles clang --target=$target-none-elf -std=c11
done
check "functions fit a screen" sh -c "pmccabe examples/bootmaps/bootmaps.c |
    awk '{ seen++ } \$5 > 60 || \$1 > 12 { print \$NF; bad = 1 } END { exit bad || !seen }'"
checks_done
