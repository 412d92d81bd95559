#!/usr/bin/env python3
"""Packs the start of a recorded object trace, text as traces/README.md describes it.

Usage: pack.py TRACE.gz OPERATIONS OUT.gz
"""
import gzip
import sys


def varint(out, value):
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def operations(path):
    """(letter, slot, size, CPU or thread, zeroed) for each line."""
    with gzip.open(path, "rt") as f:
        for line in f:
            words = line.split()
            if words[0] == "f":
                yield "f", int(words[1]), 0, int(words[2]), False
            elif words[0] in "ar":
                yield words[0], int(words[1]), int(words[2]), int(words[3]), words[4:] == ["z"]


def pack(path, limit):
    kinds, ages, sizes = bytearray(), bytearray(), bytearray()
    born = {}  # slot: number of its allocation
    freed = []
    allocs = slots = cpus = n = 0
    for letter, slot, size, cpu, zeroed in operations(path):
        if n == limit:
            break
        n += 1
        cpus = max(cpus, cpu + 1)
        kinds.append({"a": 3 if zeroed else 0, "f": 1, "r": 2}[letter] | cpu << 2)
        if letter == "a":
            expected = freed.pop() if freed else slots
            if slot != expected:
                sys.exit(f"pack.py: {path}: operation {n} takes slot {slot}, not {expected}")
            slots = max(slots, slot + 1)
            allocs += 1
            born[slot] = allocs
        else:
            varint(ages, allocs - born[slot])
        if letter == "f":
            freed.append(slot)
            del born[slot]
        else:
            varint(sizes, size)
    head = f"objects 1 {n} {slots} {cpus} {allocs} {len(ages)} {len(sizes)}\n"
    return head.encode() + kinds + ages + sizes


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with open(sys.argv[3], "wb") as f:
        f.write(gzip.compress(pack(sys.argv[1], int(sys.argv[2])), 9, mtime=0))


if __name__ == "__main__":
    main()
