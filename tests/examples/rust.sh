#!/bin/sh
# examples/rust builds without a warning and offline, its tests pass, and its programs print what stands
# beside them.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
skip() {
    echo "1..0 # SKIP $1"
    exit 0
}
command -v cargo >/dev/null || skip "no cargo here (make deps-rust installs it)"

CARGO_TARGET_DIR=$PWD/build/test/rust RUSTFLAGS='-D warnings'
export CARGO_TARGET_DIR RUSTFLAGS

in_crate() {
    (cd examples/rust && "$@")
}

prints() { # PROGRAM
    "$CARGO_TARGET_DIR/debug/$1" >"$CARGO_TARGET_DIR/$1.out" &&
        diff -u "examples/rust/src/bin/$1.txt" "$CARGO_TARGET_DIR/$1.out"
}

check "cargo test" in_crate cargo test --offline --quiet
for program in examples/rust/src/bin/*.rs; do
    program=$(basename "$program" .rs)
    check "$program" prints "$program"
done
checks_done
