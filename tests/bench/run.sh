#!/bin/sh
# The benchmark itself, on a small pool, with every call checked against a map of held frames.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
out=build/test/bench
mkdir -p $out build/bench
tools/deps.sh build bench >&2 || {
    echo "1..0 # SKIP Google Benchmark is not installed"
    exit 0
}

run_all() {
    BENCH_FRAMES=65536 BENCH_VERIFY=1 BENCH_REPS=1 BENCH_FILTER='' build/bench/bench \
        --benchmark_enable_random_interleaving=true \
        --benchmark_out=$out/run.json --benchmark_out_format=json
}

shadow_notices() {
    gcc -std=gnu11 -O1 -Wall -Wextra -Werror -I. -o $out/shadow_test tests/bench/shadow_test.c &&
        $out/shadow_test
}

report() {
    python3 bench/report.py $out/run.json $out/report.html >$out/report.txt || {
        cat $out/report.txt
        return 1
    }
}

every_allocator_has_a_column() { # those that the program says it has
    python3 - $out/run.json $out/report.txt <<'EOF'
import json, sys
context = json.load(open(sys.argv[1]))["context"]
kinds = ("allocator_", "heap_", "pagetable_", "areas_")
names = {key.split(" ", 1)[1] for key in context if key.startswith(kinds)}
legend = {line.split()[0] for line in open(sys.argv[2]) if line.startswith("  ")}
missing = names - legend
sys.exit(f"no figures of {sorted(missing)}" if missing or len(names) < 15 else 0)
EOF
}

maps_agree() { # the mixes leave each map with the areas of the others, but for two set aside
    python3 - $out/run.json <<'EOF'
import collections, json, sys
areas = collections.defaultdict(dict)
for run in json.load(open(sys.argv[1]))["benchmarks"]:
    if "areas" in run:
        row, name = run["name"].split("/")[:2]
        areas[row][name] = run["areas"]
differ = {row: of for row, of in areas.items() if max(of.values()) - min(of.values()) > 2}
sys.exit(f"maps differ: {differ}" if differ or len(areas) < 6 else 0)
EOF
}

self_contained() {
    grep -q '<svg' $out/report.html && ! grep -Eq '(src|href)="[^#]' $out/report.html
}

broken_trace_is_refused() { # the second free of a slot
    mkdir -p $out/traces
    printf '%s\n' '# ops 3 allocs 1 frees 2 slots 1 cpus 1' 'a 0 0 0 m' 'f 0 0' 'f 0 0' |
        gzip >$out/traces/broken.trace.gz
    if BENCH_FRAMES=65536 BENCH_TRACES=$out/traces BENCH_FILTER=trace build/bench/bench; then
        return 1
    fi
}

check "the benchmark builds" flock build/bench/lock make --no-print-directory bench-build
check "every allocator passes every workload under verification" run_all
check "the verification notices what an allocator can do wrong" shadow_notices
check "the report is written, without a failed cell" report
check "every allocator has figures" every_allocator_has_a_column
check "the maps of areas end alike" maps_agree
check "a broken trace is refused" broken_trace_is_refused
check "the page needs no other file" self_contained
checks_done
