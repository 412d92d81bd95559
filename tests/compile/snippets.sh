#!/bin/sh
# The code in README.md and in the headers' manuals compiles, and what has a main runs.
# In README.md that is each ```c fence which has a main or starts with a /* file.c */ line; in a
# header, the lines between `--- TITLE (file.c) ---` and `--- end ---`.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh
work=build/test/snippets
rm -rf $work
mkdir -p $work

awk -v work=$work '
    /^```c$/ { inside = 1; text = ""; first = 1; next }
    /^```/ && inside {
        if (wanted || text ~ /[ \n]main\(/) printf "%s", text >(work "/README-" ++n ".c")
        inside = wanted = 0
    }
    inside { if (first) wanted = /^\/\* .*\.c/; first = 0; text = text $0 "\n" }' README.md

for header in mm_*.h; do
    [ -e "$header" ] || continue
    awk -v name="$work/${header%.h}-" '
        /--- end ---/ { file = "" }
        file { sub(/^ \*/, ""); sub(/^ ? ? ?/, ""); print >file }
        /--- .*\([a-z0-9_]+\.c\) ---/ {
            file = $0; sub(/.*\(/, "", file); sub(/\).*/, "", file); file = name file
        }' "$header"
    check "$header: has a quick start" test -s "$work/${header%.h}-quickstart.c"
done

runs() {
    for compiler in gcc clang; do
        $compiler -std=c11 -Wall -Wextra -Werror -O1 -I. -c -o $work/snippet.o "$1" || return 1
        ! grep -q ' main(' "$1" || {
            $compiler -o $work/snippet $work/snippet.o -pthread && $work/snippet
        } || return 1
    done
}

for file in "$work"/*.c; do
    [ -e "$file" ] || continue
    check "$(basename "$file")" runs "$file"
done
checks_done
