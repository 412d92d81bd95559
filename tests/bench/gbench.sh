#!/bin/sh
# The C binding of Google Benchmark: a C program uses each feature, its report tells whether each arrived.
cd "$(dirname "$0")/../.." || exit 1
out=build/test/bench
mkdir -p $out
tools/deps.sh build bench >&2 || {
    echo "1..0 # SKIP Google Benchmark is not installed"
    exit 0
}
flags="-I. -Wall -Wextra -Wpedantic -Werror"
set -e
# shellcheck disable=SC2086 # a list of flags
{
    g++ -std=c++17 -O1 $flags -c -o $out/gbench.o bench/gbench.cc
    gcc -std=c99 -D_POSIX_C_SOURCE=200809L $flags -c -o $out/gbench_test.o tests/bench/gbench_test.c
    g++ -o $out/gbench_test $out/gbench_test.o $out/gbench.o -lbenchmark -pthread
}
$out/gbench_test quiet --benchmark_out=$out/gbench.json --benchmark_out_format=json
python3 tests/bench/gbench.py $out/gbench.json
