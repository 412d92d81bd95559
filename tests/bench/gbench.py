"""Reads what gbench_test printed and says whether each feature of the binding arrived.

Usage: gbench.py FILE"""
import json
import sys

with open(sys.argv[1]) as f:
    data = json.load(f)
runs = {}
for entry in data["benchmarks"]:
    runs.setdefault(entry["name"], []).append(entry)


def one(name):
    return runs[name][0]


def near(value, wanted):
    return abs(value - wanted) <= 0.05 * wanted


COUNTERS = "made at run time 1/iterations:1000"
THREADS = "threads/iterations:100/real_time/threads:2"
MANUAL = "manual/iterations:3/manual_time"
AGGREGATES = "aggregates/iterations:1000/repeats:3"

CHECKS = {
    "a name made at run time, with fixed iterations": lambda: one(COUNTERS)["iterations"] == 1000,
    "a plain counter": lambda: one(COUNTERS)["plain"] == 5,
    "a rate": lambda: one(COUNTERS)["rate"] > 1e6,
    "an average over iterations": lambda: one(COUNTERS)["per_iteration"] == 5,
    "a multiple of the iterations": lambda: one(COUNTERS)["times_iterations"] == 2000,
    "an inverse": lambda: one(COUNTERS)["inverse"] == 0.25,
    "iterations done": lambda: one(COUNTERS)["done"] == 1000,
    "iterations asked for": lambda: one(COUNTERS)["max"] == 1000,
    "a label": lambda: one(COUNTERS)["label"] == "a label",
    "items and bytes": lambda: near(
        one(COUNTERS)["bytes_per_second"], 8 * one(COUNTERS)["items_per_second"]
    ),
    "an argument": lambda: one("arg/9/iterations:100")["first"] == 9,
    "the pointer passed through": lambda: one("arg/9/iterations:100")["arg"] == 42,
    "the batched loop does every iteration": lambda: one("arg/9/iterations:100")["seen"] == 100,
    "a dense range": lambda: all(one(f"dense/{i}/iterations:10")["first"] == i for i in (1, 2, 3)),
    "a range with its multiplier": lambda: all(one(f"range/{i}")["first"] == i for i in (1, 2, 4)),
    "two named arguments": lambda: one("pair/x:3/y:4/iterations:1")["sum"] == 7,
    "a product of lists": lambda: all(
        one(f"product/{i}/{j}/iterations:1")["sum"] == i + j for i in (1, 2) for j in (10, 20)
    ),
    "threads see what thread 0 set up": lambda: one(THREADS)["ready"] == 7,
    "threads have their numbers": lambda: one(THREADS)["index"] == 1,
    "counters averaged over threads": lambda: one(THREADS)["threads_seen"] == 2,
    "a range of thread counts": lambda: all(
        one(f"thread range/iterations:100/threads:{n}")["threads"] == n for n in (1, 2)
    ),
    "pauses are not in the time": lambda: one("pause/iterations:1/real_time")["real_time"] < 100e6,
    "time that the program measures": lambda: near(one(MANUAL)["real_time"], 2000),
    "a unit": lambda: one(MANUAL)["time_unit"] == "ms",
    "an error ends the run": lambda: one("error/iterations:5")["error_message"] == "went wrong",
    "repetitions": lambda: len(runs["repeated/iterations:1000/repeats:3"]) == 3,
    "aggregates only": lambda: AGGREGATES not in runs and AGGREGATES + "_median" in runs,
    "a minimum time": lambda: one("timed/min_time:0.010")["iterations"] > 1000,
    "a new name": lambda: "new name/iterations:1000" in runs,
    "and not the old one": lambda: "old name/iterations:1000" not in runs,
    "a line of context": lambda: data["context"]["a key"] == "a value",
}

print(f"1..{len(CHECKS)}")
for i, (name, holds) in enumerate(CHECKS.items(), 1):
    try:
        good = holds()
    except KeyError as missing:
        good = False
        print(f"# no {missing}")
    print(f"{'ok' if good else 'not ok'} {i} - {name}")
