#!/bin/sh
# Each fuzz target for a moment, from nothing: that it builds, and that what it finds quickly holds.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh

short() {
    make --no-print-directory "build/fuzz/$1" && "build/fuzz/$1" -runs=20000 -max_len=1024 -seed="${MM_SEED:-1}"
}

for target in tests/fuzz/*.c; do
    target=$(basename "$target" .c)
    check "$target" short "$target"
done
checks_done
