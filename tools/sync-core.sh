#!/bin/sh
# Copies the core block of one header into all the others.
# Usage: tools/sync-core.sh HEADER
set -eu
from=${1:?usage: tools/sync-core.sh HEADER}
"$(dirname "$0")/check-core.sh" "$from"
work=$(mktemp)
trap 'rm -f "$work"' EXIT

for header in "$(dirname "$0")"/../mm_*.h; do
    ! "$(dirname "$0")/check-core.sh" "$from" "$header" >/dev/null || continue
    awk '
        $0 == "/* mm core begin */" { inside = 1 }
        NR == FNR { if (inside) block = block $0 "\n" }
        NR != FNR && inside && !printed { printf "%s", block; printed = 1 }
        NR != FNR && !inside
        $0 == "/* mm core end */" { inside = 0 }' "$from" "$header" >"$work"
    cat "$work" >"$header"
    echo "$header: core block copied from $from"
done
