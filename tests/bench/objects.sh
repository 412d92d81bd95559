#!/bin/sh
# The programs of small objects run, on few operations, and their figures stand in the report.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
out=build/test/bench-objects
mkdir -p $out
tools/deps.sh build bench >&2 || {
    echo "1..0 # SKIP Google Benchmark is not installed"
    exit 0
}

runs() {
    make -s "build/bench/objects/$1" &&
        BENCH_OPS=400 BENCH_FILTER='^(pair64|pairmix|rand|mixed2k|xthr64|trace.kmem.redis)/' \
            build/bench/objects/"$1" --benchmark_out_format=json --benchmark_out="$out/$1.json" >"$out/$1.out"
}

reports() {
    python3 bench/report.py $out/slab.json $out/glibc.json >$out/report.txt || return 1
    for row in pair64 pairmix rand mixed2k xthr64 trace.kmem.redis; do
        grep -Eq "^$row +[0-9.,]+ +[0-9.,]+\$" $out/report.txt || {
            cat $out/report.txt
            return 1
        }
    done
}

silent_where_nothing_matches() { # no file: the report could not read an empty one
    rm -f $out/none.json
    BENCH_FILTER='^pair0/' build/bench/objects/slab --benchmark_out_format=json \
        --benchmark_out=$out/none.json && [ ! -e $out/none.json ]
}

check "the program of mm_slab.h" runs slab
check "the program of glibc's malloc" runs glibc
check "the report has both" reports
check "a filter that matches no row" silent_where_nothing_matches
checks_done
