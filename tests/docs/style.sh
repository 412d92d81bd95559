#!/bin/sh
# Each public function has a comment above it; no function is longer than 60 lines or has a
# cyclomatic complexity above 12.
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

work=$(mktemp)
trap 'rm -f "$work"' EXIT
for header in mm_*.h; do
    [ -e "$header" ] || continue
    check "$header: public functions have comments" documented "$header"
    check "$header: functions fit a screen" small "$header"
done
checks_done
