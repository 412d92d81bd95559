"""What the report says about each row, and the limits it shows beside the figures."""

# The rows in groups: (title, unit, what is measured, rows with a sentence each). A row that is not
# named here goes to the group of its prefix or, failing that, to the last one.
GROUPS = [
    (
        "Single frames",
        "ns an operation",
        "One CPU allocates and frees single frames of 4 KiB, out of 2,097,152 (8 GiB). One "
        "allocation or one free is one operation.",
        {
            "pair0": "1,000 frames are held; then an allocation and a free, over and over",
            "pair0half": "the same with half of all frames held",
            "batch64": "64 allocations, then 64 frees in the same order",
            "batch64b": "the same with one bulk call each way",
            "bulk0.alloc": "all frames allocated one by one",
            "bulk0.free": "and freed in the order of allocation",
            "bulk0b.alloc": "all frames allocated, 64 a call",
            "bulk0b.free": "and freed, 64 a call",
            "rnd0.free": "all held: all freed in random order",
            "rnd0.refill": "and all allocated again",
            "full.fail": "no frame is free: an allocation that fails",
        },
    ),
    (
        "Churn at half occupancy",
        "ns an operation",
        "Half of all frames stay held while single frames come and go: the daily life of a kernel. "
        "Rows with 0 start from a fresh pool, rows with w from the worst: all held, then a random "
        "half freed.",
        {
            "mix0": "a coin flip decides: an allocation, or the free of a random held frame; fresh",
            "mixw": "the same from the worst start",
            "tide0.alloc": "rounds of 4,096 random frees and 4,096 allocations, fresh: allocations",
            "tide0.free": "and the frees",
            "tidew.alloc": "the same from the worst start: allocations",
            "tidew.free": "and the frees",
            "healing": "the churn of mixw over 33,554,432 operations; what it does is shown below",
        },
    ),
    (
        "2 MiB blocks, mixed sizes, runs",
        "ns an operation",
        "Blocks of 512 frames, sizes mixed, and runs of 37 frames in a row.",
        {
            "bulk9.alloc": "all 4,096 blocks of 2 MiB allocated",
            "bulk9.free": "and freed",
            "pair9": "a block of 2 MiB allocated and freed, over and over",
            "frag9.pair": "the same in a fragmented pool: only every 64th block is wholly free",
            "frag9.alloc64": "all 64 of these blocks, one after the other",
            "frag9.fail": "none of them is left: an allocation of 2 MiB that fails",
            "mixo": "churn of 1, 2, 4, 8 and 512 frames in shares of 80, 8, 6, 4 and 2 %",
            "run37.fresh": "runs of 37 frames allocated from a fresh pool",
            "run37.free": "and freed",
            "run37.frag": "runs of 37 frames allocated from the fragmented pool",
        },
    ),
    (
        "Two CPUs",
        "ns an operation of each thread",
        "t1 is one thread, t2 is two threads on two CPUs at the same time; perfect scaling is "
        "t2 = t1. Baselines have a spinlock around them here. Each thread has frames of its own, "
        "but for xfree: there one thread allocates what the other frees, through a ring of 4,096.",
        {
            "t1.pair": "an allocation and a free, over and over",
            "t2.pair": "",
            "t1.bulk.alloc": "15/32 of all frames allocated by each thread",
            "t2.bulk.alloc": "",
            "t1.bulk.free": "and freed",
            "t2.bulk.free": "",
            "t1.mix": "churn, a quarter of all frames held by each thread",
            "t2.mix": "",
            "t1.o9.alloc": "15/32 of all 2 MiB blocks allocated by each thread",
            "t2.o9.alloc": "",
            "t1.o9.free": "and freed",
            "t2.o9.free": "",
            "t1.xfree": "one thread fills the ring and drains it",
            "t2.xfree": "one thread allocates, the other frees",
        },
    ),
    (
        "Recorded traces",
        "ns an operation",
        "What a Linux kernel with four CPUs asked of its page allocator while it compiled with "
        "make, forked processes, worked with git, and served a redis database. Replayed in the "
        "recorded order; .b: successive frees on one CPU as one bulk call.",
        {},
    ),
    (
        "Byte sizes",
        "ns for an allocation and its free",
        "The heap face of the buddy allocator beside a first-fit heap.",
        {
            "heap.pair64": "64 bytes allocated and freed, over and over",
            "heap.pairmix": "the same with sizes as in kernels, 7 to 4,096 bytes",
            "heap.lifo": "1,000 objects of 64 bytes, freed backwards",
            "heap.fifo": "freed forwards",
            "heap.rand": "freed in a random order",
            "heap.mixed2k": "2,000 objects of mixed sizes; a step frees one and allocates another",
        },
    ),
    (
        "Page tables",
        "ns a page; translations: ns each",
        "1 GiB at an aligned address; tables come from a pool of recycled pages that are not zeroed. "
        "bare: stores into tables that were found in advance; walk: a walk from the root for each "
        "page. Sparse: 16,384 random pages of 128 GiB, a step each; bare keeps all tables and does "
        "not look at what it overwrites, bare+count frees empty tables, bare+check looks too.",
        {
            "map4k": "262,144 pages of 4 KiB mapped in one call",
            "map2m": "512 leaves of 2 MiB, a leaf",
            "translate": "random addresses, independent of each other",
            "translate_dep": "each address depends on the last result",
            "protect": "write taken away from the whole range",
            "unmap": "the whole range, every leaf seen, tables freed (bare and walk: kept)",
            "unmap.whole": "the same, leaves not wanted",
            "spmap": "sparse pages mapped, tables made",
            "spmap.kept": "the same, tables there already",
            "spmap.bulk": "the same as spmap, the pages as one list",
            "spmap.kept.bulk": "the same, tables there already",
            "spmap.calls": "the same as spmap, a locking call each",
            "spunmap": "sparse pages unmapped, empty tables freed (bare and walk: kept)",
            "spunmap.ahead": "the same, each page announced 8 steps before",
            "spunmap.bulk": "the same, the pages as one list",
            "spunmap.kept": "sparse pages unmapped, tables kept",
            "spunmap.kept.bulk": "the same, the pages as one list",
            "spunmap.calls": "the same as spunmap, a call each that locks, flushes, releases",
        },
    ),
    (
        "Small objects",
        "ns for an allocation and its free",
        "A program for each allocator, the allocator inlined where its header allows it. Each "
        "object's first word is written and read. Mixed sizes are 7 to 4,096 bytes, most of them "
        "small. `empty` is the driver alone; `ideal` and `ideal-owner` are free lists without any "
        "checks, as yardsticks.",
        {
            "pair64": "64 bytes, a constant, allocated and freed over and over",
            "pairmix": "the same with mixed sizes",
            "lifo": "1,000 objects of 64 bytes, freed backwards",
            "fifo": "freed forwards",
            "rand": "freed in a random order",
            "mixed2k": "2,000 objects of mixed sizes; a step frees one and allocates another",
            "mixed": "the same with 100,000",
            "xthr64": "one thread allocates batches of 256, the other frees them; 64 bytes",
            "xthrmix": "the same with mixed sizes",
            "xsym64": "both threads do both; 64 bytes",
            "mixed2t": "two threads, each with 100,000 objects of mixed sizes",
        },
    ),
    (
        "Recorded traces of objects",
        "ns an operation",
        "What a kernel asked of kmalloc and what programs asked of malloc, replayed by one thread.",
        {},
    ),
    (
        "Areas of address spaces",
        "ns an operation",
        "Maps of areas of 1 to 16 pages; half of the neighbours touch. The number of areas stands behind the name. "
        "a_find: flags at a random address; b_local: of 64 pages in a row; c_insdel: an area goes, or comes; d_near: the "
        "nearest gap of 1 to 16 pages up or down; d_rare: a gap that one area in 1,024 has; e1: mmap at the "
        "highest place, munmap, mprotect; e2: mmap anywhere over what is there, munmap, mprotect; f_iter: a step of a "
        "walk; g_dup: a copy, for each area; h_bytes: bytes an area beside its object, no nanoseconds.",
        {
            "fault.zero": "a page of new memory touched for the first time",
            "fault.cow": "a page written to after a fork; the copying itself left out",
        },
    ),
    (
        "Recorded memory calls",
        "ns a call",
        "mmap, munmap, mprotect, mremap, brk, madvise, fork, exec and exit of real programs, replayed on mm_vma.h.",
        {},
    ),
    ("Other", "ns an operation", "", {}),
]
PREFIXES = {
    "trace.kmem.": "Recorded traces of objects",
    "trace.malloc.": "Recorded traces of objects",
    "trace.": "Recorded traces",
    "heap.": "Byte sizes",
    "calls.": "Recorded memory calls",
    **{
        prefix + "_": "Areas of address spaces"
        for prefix in ("a", "b", "c", "d", "e1", "e2", "f", "g", "h")
    },
    "t1.": "Two CPUs",
    "t2.": "Two CPUs",
}
HIDDEN = {"init", "memory"}  # shown among the other figures

# Colours that stay apart for colour-blind readers; our two are strong, the driver and the yardstick
# are grey and black.
COLOURS = {
    "bitmap": "#0072b2",
    "buddy": "#d55e00",
    "slab": "#cc79a7",
    "pagetable": "#0072b2",
    "pagetable39": "#d55e00",
    "bare": "#000000",
    "bare+count": "#444444",
    "bare+check": "#666666",
    "walk": "#8a8a8a",
    "empty": "#c4c4c4",
    "stack": "#000000",
    "freelist": "#8a8a8a",
    "next-fit": "#56b4e9",
    "first-fit": "#009e73",
    "list-buddy": "#e69f00",
    "list-heap": "#8c6d31",
    "slab-sized": "#e7a9cd",
    "ideal": "#000000",
    "ideal-owner": "#777777",
    "vma": "#882255",
    "array256": "#bbbbbb",
    "sorted": "#44aa99",
    "sys-tree": "#999933",
    "absl": "#332288",
    "IntervalMap": "#ddaa33",
}
SPARE_COLOURS = ["#7570b3", "#a6761d", "#66a61e", "#e7298a", "#1b9e77"]

# Limits of times: (allocator, row, other allocator, other row, at most). The bitmap allocator is
# held to the array stack; that has no blocks of 2 MiB, so its single frames stand for them.
STACK_LIMITS = {
    1.6: ["pair0", "pair0half", "batch64"],
    2.5: ["bulk0.alloc", "bulk0.free", "rnd0.free", "rnd0.refill"],
    4.0: ["tide0.alloc", "tide0.free", "tidew.alloc", "tidew.free"],
}
LIMITS = [("bitmap", row, "stack", row, n) for n, rows in STACK_LIMITS.items() for row in rows] + [
    ("bitmap", "mix0", "empty", "mix0", 1.5),
    ("bitmap", "mixw", "empty", "mixw", 1.5),
    ("bitmap", "bulk9.alloc", "stack", "bulk0.alloc", 4.0),
    ("bitmap", "bulk9.free", "stack", "bulk0.free", 4.0),
    ("bitmap", "pair9", "stack", "pair0", 4.0),
    ("bitmap", "frag9.pair", "stack", "pair0", 15.0),
    ("bitmap", "frag9.fail", "stack", "pair0", 25.0),
]

# mm_vma.h is held to every tree: where it finds and changes, and where it looks for gaps, to the
# one that keeps them; a step of a walk may take half as long again as the B-tree's.
LIMITS += [
    ("vma", f"{row}.{areas}", other, f"{row}.{areas}", most)
    for rows, others, most in [
        (["a_find", "c_insdel", "e2_mix_fixed"], ["sys-tree", "absl", "IntervalMap"], 1.0),
        (["d_near_up", "d_near_down", "d_rare_up", "d_rare_down", "e1_mix_any"], ["sys-tree"], 1.0),
        (["f_iter"], ["absl"], 1.5),
    ]
    for row in rows
    for areas in (16, 256, 1024, 65536, 1048576)
    for other in others
]

# Two threads must do 1.8 times the work of one: each may take 2 / 1.8 of its time for an operation.
# The ring may cost three times.
PRIVATE = ("pair", "bulk.alloc", "bulk.free", "mix", "o9.alloc", "o9.free")
SCALING = {row: 2 / 1.8 for row in PRIVATE}
SCALING["xfree"] = 3.0

# The buddy allocator is held to the list buddy's time, and to a fifth of that of buddy_alloc, a
# header-only rival that was measured apart, as multiples of the list buddy. These are the rows
# where a fifth of it is the harder limit:
BUDDY_ALLOC_FIFTH = {
    "rnd0.free": 0.43,
    "mixw": 0.93,
    "frag9.alloc64": 0.49,
    "frag9.fail": 0.30,
    "t2.bulk.free": 0.90,
    "t2.o9.free": 0.93,
    "t2.xfree": 0.49,
}

META_LIMITS = {"bitmap": 0.16, "buddy": 2.0}  # bytes a frame
HEALING_LIMIT = 2030  # whole blocks of 2,048 after 16 turnovers, for the bitmap allocator
