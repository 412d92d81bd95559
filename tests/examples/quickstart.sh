#!/bin/sh
# Each program of examples/quickstart, plain and under the sanitizers, prints just the text beside it, is
# as short as it is meant to be, and is what README.md shows.
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

shown() { # PROGRAM: what README.md shows of it and of its output are lines of both, in a row
    awk -v link="(examples/quickstart/$1.c)" -v out="$work/$1-shown" '
        index($0, link) { found = 1 }
        found && /^```/ { inside = !inside; n += inside; if (n == 2 && !inside) exit; next }
        found && inside { print >(out n) }' README.md
    contains "examples/quickstart/$1.c" "$work/$1-shown1" &&
        contains "examples/quickstart/$1.txt" "$work/$1-shown2"
}

contains() { # FILE LINES
    cat "$2"
    awk 'NR == FNR { lines = lines $0 "\n"; next }
        { sub(/^    /, ""); text = text $0 "\n" }
        END { exit lines == "" || index(text, lines) == 0 }' "$2" "$1"
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
    rm -f "$work/$header"-shown?
    check "$header.c: README.md shows it" shown "$header"
done
checks_done
