#!/bin/sh
# Instructions of the hot paths against their budgets: the same on every machine that has the recorded compiler.
cd "$(dirname "$0")/../.." || exit 1
tools/deps.sh build count >&2 || {
    echo "1..0 # SKIP valgrind is not installed"
    exit 0
}
mkdir -p build/bench
flock build/bench/lock make --no-print-directory count-build >&2 || exit 1
python3 bench/count.py build/bench/count --check bench/budgets.txt
