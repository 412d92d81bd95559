#!/bin/sh
# A header includes nothing but the freestanding headers.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh

only_freestanding() {
    ! grep -nE '^[[:space:]]*#[[:space:]]*include' "$1" |
        grep -vE 'include <(stdint|stddef|stdbool|limits)\.h>'
}

for header in mm_*.h; do
    [ -e "$header" ] || continue
    check "$header" only_freestanding "$header"
done
checks_done
