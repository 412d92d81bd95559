#!/bin/sh
# Compares the core blocks of the named headers byte for byte.
# Usage: tools/check-core.sh HEADER...
set -eu
begin='/* mm core begin */'
end='/* mm core end */'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
first=

for header in "$@"; do
    block=$work/$(basename "$header")
    if [ "$(grep -cxF "$begin" "$header")" != 1 ] || [ "$(grep -cxF "$end" "$header")" != 1 ]; then
        echo "$header: needs one line '$begin' and one line '$end'"
        status=1
        continue
    fi
    awk -v begin="$begin" -v end="$end" '
        $0 == begin { inside = 1 } inside { print } $0 == end { inside = 0; ended = 1 }
        END { exit !ended || inside }' "$header" >"$block" || {
        echo "$header: the core block ends before it begins"
        status=1
        continue
    }
    [ -n "$first" ] || first=$block
    if ! cmp -s "$first" "$block"; then
        echo "$header: its core block differs from that of $(basename "$first")"
        diff -u "$first" "$block" | sed 1,2d
        status=1
    fi
done
exit $status
