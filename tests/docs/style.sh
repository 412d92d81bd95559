#!/bin/sh
# Each public function has a comment above it; no function is longer than 60 lines or has a
# cyclomatic complexity above 12; no line is longer than 100 columns.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh

documented() { # no blank line stands between a declaration and the comment above it
    tests/compile/functions "$1" | awk '
        NR == FNR { line[NR] = $0; next }
        {
            n = $1 - 1
            while (n > 0 && line[n] != "" && line[n] !~ /\*\/$/) n--
            if (line[n] == "") { print $3 " (line " $1 ") has no comment"; missing = 1 }
        }
        END { exit missing }' "$1" -
}

small() {
    { sed '/^#ifdef __cplusplus/,/^#endif/s/.*//' "$1" >"$work" && pmccabe "$work"; } | awk '
        { seen++ }
        $5 > 60 || $1 > 12 { print $NF ": " $5 " lines, complexity " $1; bad = 1 }
        END { exit bad || !seen }'
}

short() { # an example to read: lines that are neither blank nor comments
    lines=$(cat examples/kernel_mm/*.c | perl -0pe 's|/\*.*?\*/||gs' | grep -c '[^[:space:]]')
    echo "$lines lines"
    [ "$lines" -le 620 ]
}

narrow() {
    git ls-files '*.[ch]' | LC_ALL=C.UTF-8 xargs grep -nE '^.{101,}' >"$work" || true
    cut -c1-80 "$work"
    [ ! -s "$work" ]
}

work=$(mktemp)
trap 'rm -f "$work"' EXIT
for header in mm_*.h; do
    [ -e "$header" ] || continue
    check "$header: public functions have comments" documented "$header"
    check "$header: functions fit a screen" small "$header"
done
check "no line of C is longer than 100 columns" narrow
check "examples/kernel_mm: some 600 lines of code" short
checks_done
