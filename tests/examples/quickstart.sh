#!/bin/sh
# Each program of examples/quickstart, plain and under the sanitizers, prints just the text beside it,
# and is as short as it is meant to be.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=build/test/quickstart
mkdir -p $work

prints() { # PROGRAM COMPILER...
    program=$1
    shift
    "$@" -std=c11 -Wall -Wextra -Werror -I. -o "$work/$program" "examples/quickstart/$program.c" &&
        "$work/$program" >"$work/$program.out" &&
        diff -u "examples/quickstart/$program.txt" "$work/$program.out"
}

short() {
    awk 'END { print NR " lines"; exit NR < 40 || NR > 80 }' "$1"
}

for file in examples/quickstart/*.c; do
    header=$(basename "$file" .c)
    [ -e "mm_$header.h" ] || continue
    check "$header.c" prints "$header" gcc -O2
    check "$header.c, sanitized" prints "$header" clang -O1 -fsanitize=address,undefined \
        -fno-sanitize-recover=all -DMM_DEBUG=1
    check "$header.c: 40 to 80 lines" short "$file"
done
checks_done
