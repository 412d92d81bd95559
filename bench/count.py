#!/usr/bin/env python3
"""Instructions of the hot paths, counted by callgrind.

PROGRAM counts frames and blocks, PROGRAM-objects small objects.

Usage: count.py PROGRAM                   print a table
       count.py PROGRAM --check BUDGETS   compare with the recorded budgets, as a test (TAP)
       count.py PROGRAM --record BUDGETS  write the budgets anew
"""
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile

ALLOCATORS = ["bitmap", "buddy", "stack", "list-buddy"]
ROWS = ["pair0", "pair0half", "batch64", "bulk0", "rnd0", "mix0", "tide0", "full.fail", "pair9"]
ROWS += ["frag9.fail"]
LOOP = 64  # translations in a call
CALLS = {  # operations of one call, counted in count_op()
    "pagetable": ["translate", "translate.alone", "map", "map.alone", "map.cursor", "map.at",
                  "map.bulk", "map.tables", "protect", "unmap", "unmap.alone", "unmap.cursor",
                  "unmap.at", "unmap.bulk", "unmap.tables", "unmap.at.tables",
                  "unmap.bulk.tables"],
    "vma": ["find1024", "insert1024", "erase1024", "fault.zero", "mmap1024", "munmap1024"],
}
COUNTED = ("count_alloc", "count_free", "count_op")
EMPTY = 2  # instructions of the empty allocator's functions: a result, and the return
HEAD = """# Instructions an operation, at most, as callgrind counts them with this compiler.
# `make test` compares, `make count-record` writes the file anew.
"""


def compiler():
    gcc = os.environ.get("GCC", "gcc")
    command = [gcc, "-dumpfullversion"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def read_dump(path):
    """The name of the cell, and {function: (instructions with all callees, calls)} for the
    functions that count."""
    name = None
    names = {}
    costs = collections.defaultdict(lambda: [0, 0])
    inside = None
    calls = None

    def function(spec):  # (7) count_alloc, later only (7)
        number, _, text = spec.partition(" ")
        if text:
            names[number] = text
        # without the marks of recursion and of the compiler's copies
        return re.split(r"['.]", names[number])[0]

    with open(path) as f:
        for line in f:
            line = line.rstrip("\n")
            if line.startswith("desc: Trigger: Client Request: "):
                name = line.split(": ", 3)[3]
            elif line.startswith("fn="):
                inside = function(line[3:])
            elif line.startswith("cfn="):
                called = function(line[4:])
            elif line.startswith("calls="):
                calls = int(line[6:].split()[0])
                costs[called][1] += calls
            elif re.match(r"[+\-*0-9]", line):
                costs[inside][0] += int(line.split()[-1])
    return name, {f: tuple(costs[f]) for f in COUNTED if f in costs}


def count(program):
    """{(row, allocator): (instructions an alloc, a free)}, None where the row has none; for a page
    table (instructions,)."""
    allocators = present(program)
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "dump")
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        command = valgrind + [f"--callgrind-out-file={out}", program] + allocators
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit("count.py: valgrind failed:\n" + result.stderr)
        dumps = [read_dump(os.path.join(folder, name)) for name in os.listdir(folder)]
    cells = {name: costs for name, costs in dumps if name}
    overhead = {}
    for f, (cost, calls) in cells.pop("pair0/empty").items():
        overhead[f] = cost / calls - EMPTY
    for name in CALLS:
        for cost, calls in cells.pop("empty/" + name, {}).values():
            overhead[name] = cost / calls
    loop = cells.pop("loop/pagetable", {}).get("count_op")
    result = {}
    for name, costs in cells.items():
        row, allocator = name.rsplit("/", 1)
        if allocator in CALLS:
            cost, calls = costs["count_op"]
            if row == "translate":
                result[row, allocator] = ((cost - loop[0]) / calls / LOOP,)
            else:
                result[row, allocator] = (cost / calls - overhead[allocator],)
            continue
        result[row, allocator] = tuple(
            costs[f][0] / costs[f][1] - overhead[f] if costs.get(f, (0, 0))[1] else None
            for f in ("count_alloc", "count_free"))
    return result


def count_objects(program):
    """{(row, "slab"): instructions an allocation and a free}, the driver's own included."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "dump")
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        command = valgrind + [f"--callgrind-out-file={out}", program]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit("count.py: valgrind failed:\n" + result.stderr)
        counts = {}
        for name in sorted(os.listdir(folder), key=lambda n: int(n.split(".")[1] if "." in n else 0)):
            with open(os.path.join(folder, name)) as f:
                text = f.read()
            row = re.search(r"^desc: Trigger: Client Request: (\S+)/(\d+)$", text, re.M)
            if row:
                total = int(re.search(r"^totals: (\d+)", text, re.M).group(1))
                counts[row.group(1), "slab"] = round(total / int(row.group(2)), 2)
    return counts


def print_objects(counts):
    print("Instructions an allocation and a free of mm_slab.h, the driver's own included")
    for (row, _), value in counts.items():
        print(f"{row:<16} {value:8.2f}")


def present(program):
    """What of ALLOCATORS and CALLS the program was built with."""
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return [a for a in ALLOCATORS + list(CALLS) if a in listed.stdout.split()]


def rows_of(counts):
    return [row for row in ROWS if any(r == row for r, _ in counts)]


def shown(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.1f}"


def print_table(counts):
    columns = [a for a in ALLOCATORS if any(c == a for _, c in counts)]
    print("Instructions an operation, alloc / free")
    print(f"{'':<12}" + "".join(f"{c:>18}" for c in columns))
    for row in rows_of(counts):
        cells = (counts.get((row, c), (None, None)) for c in columns)
        print(f"{row:<12}" + "".join(f"{shown(a) + ' / ' + shown(f):>18}" for a, f in cells))
    for name, rows in CALLS.items():
        if any(other == name for _, other in counts):
            print(f"Instructions a call of mm_{name}.h")
            for row in rows:
                print(f"{row:<12}{shown(counts[row, name][0]):>18}")


def flat(counts):
    """{(row.part, allocator): instructions} with two digits, as the file has them."""
    result = {}
    order = ROWS + sum(CALLS.values(), [])
    for (row, allocator), values in sorted(counts.items(), key=lambda i: order.index(i[0][0])):
        for part, value in zip((".alloc", ".free") if allocator not in CALLS else ("",), values):
            if value is not None:
                result[row + part, allocator] = round(value, 2)
    return result


def record(counts, objects, path):
    with open(path, "w") as f:
        f.write(HEAD + f"compiler gcc {compiler()}\n")
        for allocator in ALLOCATORS + list(CALLS):
            for (row, other), value in flat(counts).items():
                if other == allocator:
                    f.write(f"{row:<18} {allocator:<12} {value:.2f}\n")
        for (row, allocator), value in objects.items():
            f.write(f"{row:<18} {allocator:<12} {value:.2f}\n")


def read_budgets(path):
    budgets = {}
    version = None
    with open(path) as f:
        for line in f:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "compiler":
                version = words[2]
            else:
                budgets[words[0], words[1]] = float(words[2])
    return version, budgets


def check(program, path):
    version, budgets = read_budgets(path)
    if shutil.which("valgrind") is None:
        print("1..0 # SKIP valgrind is not installed")
        return
    if version != compiler():
        print(f"1..0 # SKIP budgets are for gcc {version}, this is {compiler()}")
        return
    counts = flat(count(program))
    counts.update(count_objects(program + "-objects"))
    print(f"1..{len(budgets)}")
    for i, ((row, allocator), budget) in enumerate(budgets.items(), 1):
        value = counts.get((row, allocator))
        good = value is not None and value <= budget
        mark = "ok" if good else "not ok"
        print(f"{mark} {i} - {allocator} {row} takes at most {budget:g} instructions")
        if not good:
            print(f"# it takes {value}")


def main():
    if len(sys.argv) == 2:
        print_table(count(sys.argv[1]))
        print_objects(count_objects(sys.argv[1] + "-objects"))
    elif len(sys.argv) == 4 and sys.argv[2] == "--check":
        check(sys.argv[1], sys.argv[3])
    elif len(sys.argv) == 4 and sys.argv[2] == "--record":
        counts = count(sys.argv[1])
        objects = count_objects(sys.argv[1] + "-objects")
        print_table(counts)
        print_objects(objects)
        record(counts, objects, sys.argv[3])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
