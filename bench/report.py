#!/usr/bin/env python3
"""Turns the JSON file of a benchmark run into a table, and into one self-contained page with plots.

Usage: report.py BENCH.json... [REPORT.html]      the plots are drawn by gnuplot
"""
import collections
import html
import json
import math
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True  # nothing is built outside build/
import report_rows as text

COUNTERS = ("meta_bytes_per_frame", "handed_out", "free_2m", "failed", "whole_", "rss_")
OVERLAPPING = (4, 6, 8, 10, 12, 2, 1)  # gnuplot's hollow symbols


class Run:
    """The medians of a run: cells[row][allocator], and counters[name][row][allocator]."""

    def __init__(self, paths):
        self.context = {}
        entries = []
        for path in paths:
            with open(path) as f:
                data = json.load(f)
            self.context = {**data["context"], **self.context}
            entries += sorted(data["benchmarks"], key=lambda e: e.get("family_index", 0))
        self.errors = []
        self.cells = {}
        self.spread = {}
        self.counters = collections.defaultdict(lambda: collections.defaultdict(dict))
        runs = collections.defaultdict(list)
        for entry in entries:
            if entry["run_type"] == "iteration":
                runs[tuple(entry["name"].split("/")[:2])].append(entry)
        for (row, allocator), entries in runs.items():
            self.add(row, allocator, entries)
        self.allocators = self.columns()

    def add(self, row, allocator, entries):
        bad = [e for e in entries if e.get("error_occurred")]
        if bad:
            self.errors.append(f"{row}/{allocator}: {bad[0]['error_message']}")
            return
        # Google Benchmark divides by the operations of all threads, the table by those of one.
        times = [e["real_time"] * e.get("threads", 1) for e in entries]
        self.cells.setdefault(row, {})[allocator] = statistics.median(times)
        self.spread[row, allocator] = (min(times), max(times), len(times))
        for name, value in entries[-1].items():
            if name.startswith(COUNTERS):
                self.counters[name][row][allocator] = value

    def columns(self):
        """(name, title) of the allocators that have a figure, in the order of the program."""
        titles = {}
        for kind in ("allocator_", "heap_", "object_", "pagetable_", "areas_"):
            for key in sorted(k for k in self.context if k.startswith(kind)):
                titles.setdefault(key.split(" ", 1)[1], self.context[key])
        used = {a for row in self.cells.values() for a in row}
        return [(name, title) for name, title in titles.items() if name in used]

    def groups(self):
        """(title, unit, what is measured, [(row, sentence)]) without empty groups."""
        rows = collections.defaultdict(list)
        known = {row: group[0] for group in text.GROUPS for row in group[3]}
        for row in self.cells:
            if row not in text.HIDDEN:
                prefix = (g for p, g in text.PREFIXES.items() if row.startswith(p))
                rows[known.get(row) or next(prefix, "Other")].append(row)
        return [
            (title, unit, about, [(row, sentences.get(row, "")) for row in rows[title]])
            for title, unit, about, sentences in text.GROUPS
            if rows[title]
        ]

    def memory(self):
        """{allocator: bytes a frame}; every row tells the same."""
        memory = {}
        for row in self.counters["meta_bytes_per_frame"].values():
            for allocator, value in row.items():
                memory.setdefault(allocator, value)
        return memory

    def extras(self):
        """Rows that are not times of an operation: (name, unit, {allocator: value})."""
        found = [
            ("init", "us", {a: ns / 1000 for a, ns in self.cells.get("init", {}).items()}),
            ("meta_bytes_per_frame", "bytes", self.memory()),
        ]
        for name, label in (
            ("whole_08", "whole 2 MiB blocks after 8 turnovers"),
            ("whole_16", "whole 2 MiB blocks after 16 turnovers"),
            ("handed_out", "2 MiB blocks handed out then"),
        ):
            found.append((label, "of 2,048", self.counters[name]["healing"]))
        for name, label in (
            ("rss_steady", "memory held over live bytes, after long churn"),
            ("rss_after", "the same when 90 % were freed at random"),
            ("rss_collected", "and after the allocator was told to give back"),
        ):
            found.append((label, "", self.counters[name]["memory"]))
        for row, values in self.counters["free_2m"].items():
            if row != "healing" and any(values.values()):
                found.append((f"free_2m after {row}", "blocks", values))
        return [extra for extra in found if extra[2]]

    def limits(self):
        """(allocator, what, value, relation, limit) for every limit whose figures are at hand."""
        asked = list(text.LIMITS)
        for a in ("bitmap", "buddy"):
            asked += [(a, "t2." + row, a, "t1." + row, most) for row, most in text.SCALING.items()]
        for row in (r for r in self.cells if r not in text.HIDDEN):
            most = text.BUDDY_ALLOC_FIFTH.get(row, 1.0)
            asked.append(("buddy", row, "list-buddy", row, most))
        found = []
        for allocator, row, other, other_row, most in asked:
            mine = self.cells.get(row, {}).get(allocator)
            theirs = self.cells.get(other_row, {}).get(other)
            if mine is not None and theirs:
                beside = " ".join([other] * (other != allocator) + [other_row] * (other_row != row))
                found.append((allocator, f"{row} / {beside}", mine / theirs, "<=", most))
        healed = self.counters["whole_16"]["healing"].get("bitmap")
        if healed is not None:
            label = "whole 2 MiB blocks after 16 turnovers"
            found.append(("bitmap", label, healed, ">=", text.HEALING_LIMIT))
        memory = self.memory()
        for allocator, most in text.META_LIMITS.items():
            if allocator in memory:
                found.append((allocator, "meta_bytes_per_frame", memory[allocator], "<=", most))
        return found


def within(value, relation, limit):
    return value <= limit if relation == "<=" else value >= limit


def figure(value):
    """Three significant digits, without exponents."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


# ---- the table in the terminal ----


def print_table(run):
    names = [name for name, _ in run.allocators]
    rows = list(run.cells) + [name for name, _, _ in run.extras()]
    first = max(len(row) for row in rows + ["operation"]) + 1

    def line(name, values):
        print(f"{name:<{first}}" + "".join(f"{v:>12}" for v in values))

    def section(title, lines):
        """Lines (label, {allocator: figure}), with the columns that have a figure in one of them."""
        present = [n for n in names if any(n in values for _, values in lines)]
        print(f"\n{title}")
        line("", present)
        for label, values in lines:
            line(label, [figure(values.get(n)) for n in present])

    for title, unit, _, rows in run.groups():
        section(f"{title}, {unit}", [(row, run.cells[row]) for row, _ in rows])
    extras = [
        (f"{name}, {unit}" if len(name) + len(unit) + 3 < first else name, values)
        for name, unit, values in run.extras()
    ]
    if extras:
        section("Other figures", extras)
    print()
    widest = max((len(name) for name, _ in run.allocators), default=0)
    for name, title in run.allocators:
        print(f"  {name:<{widest}}  {title}")


def print_limits(run):
    limits = run.limits()
    if limits:
        print("\nBeside their limits, for information: as times of what is named behind the stroke")
    for allocator, what, value, relation, limit in limits:
        line = f"  {allocator:<8}{what:<42}{figure(value):>9}  {relation} {figure(limit):<8}"
        print((line + ("" if within(value, relation, limit) else "  not within")).rstrip())


# ---- plots ----


def gnuplot(script):
    result = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True)
    if result.returncode != 0 or "<svg" not in result.stdout:
        sys.exit("report.py: gnuplot failed:\n" + result.stderr)
    return result.stdout[result.stdout.index("<svg") :]


def quoted(string):
    return '"' + string.replace("\\", "\\\\").replace('"', '\\"') + '"'


def preamble(height, title):
    return f"""set terminal svg size 1000,{height} dynamic font "sans-serif,13" background "white"
set title {quoted(title)} font ",15" noenhanced
set border 3 lc rgb "#606060"
set tics nomirror scale 0.5
set grid ytics lc rgb "#dddddd" lt 1 lw 0.7
set key outside top center horizontal samplen 1.2 width 1 noenhanced
"""


def clusters(title, unit, names, rows, colours):
    """Bars on a logarithmic scale, a cluster for each of the rows (label, {allocator: ns})."""
    present = [n for n in names if any(n in values for _, values in rows)]
    data = ""
    for label, values in rows:
        fields = (f"{values[n]:.6g}" if values.get(n) else "?" for n in present)
        data += quoted(label) + " " + " ".join(fields) + "\n"
    bars = ", ".join(
        f"$data using {i + 2}{':xtic(1)' if i == 0 else ''} title {quoted(n)} "
        f"lc rgb {quoted(colours[n])}"
        for i, n in enumerate(present)
    )
    all_values = [v for _, values in rows for v in values.values() if v]
    return gnuplot(f"""{preamble(430, title)}
$data << EOD
{data}EOD
set style data histograms
set style histogram clustered gap 1.4
set style fill solid 1.0 noborder
set boxwidth 0.92 relative
set logscale y
set datafile missing "?"
set yrange [{min(all_values) * 0.5}:{max(all_values) * 1.6}]
set format y "%g"
set ylabel {quoted(unit)}
set xtics rotate by {-35 if len(rows) > 5 else 0} noenhanced
plot {bars}
""")


def healing_curve(run, colours):
    turnovers = sorted(name for name in run.counters if name.startswith("whole_"))
    present = [n for n, _ in run.allocators if n in run.counters["whole_00"]["healing"]]
    data = ""
    for name in turnovers:
        values = run.counters[name]["healing"]
        data += f"{int(name[6:])} " + " ".join(f"{values.get(a, math.nan):.0f}" for a in present) + "\n"
    # Curves at 0 lie on each other: hollow symbols of different sizes keep them apart.
    curves = ", ".join(
        f"$data using 1:{i + 2} with linespoints lw 2 pt {OVERLAPPING[i % len(OVERLAPPING)]} "
        f"ps {1.3 - 0.12 * i:.2f} lc rgb {quoted(colours[a])} title {quoted(a)}"
        for i, a in enumerate(present)
    )
    title = "Healing: wholly free 2 MiB blocks after a long churn, more is better"
    return gnuplot(f"""{preamble(400, title)}
$data << EOD
{data}EOD
set xlabel "turnovers: one operation for each of the 2,097,152 frames"
set ylabel "whole blocks, of 2,048"
set xrange [0:16.2]
set yrange [-40:2150]
set xtics 2
plot {curves}
""")


def memory_bars(values, colours):
    """Horizontal bars for (allocator, bytes a frame)."""
    data = ""
    for i, (name, value) in enumerate(values):
        colour = int(colours[name][1:], 16)
        data += f"{i} {value:.6g} {quoted(name)} {quoted(figure(value))} {colour}\n"
    title = "Metadata: bytes for each frame of 4,096 bytes, less is better"
    return gnuplot(f"""{preamble(60 + 34 * len(values), title)}
$data << EOD
{data}EOD
set style fill solid 1.0 noborder
set logscale x
set format x "%g"
set xrange [0.05:20]
set yrange [-0.7:{len(values) - 0.3}] reverse
set grid noytics xtics lc rgb "#dddddd" lt 1 lw 0.7
set key off
plot $data using (0.05):1:(0.05):2:($1-0.35):($1+0.35):5:ytic(3) \\
         with boxxyerror lc rgb variable, \\
     $data using ($2*1.05):1:4 with labels left notitle
""")


# ---- the page ----

STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.7em }
h2 { font-size: 1.25em; margin-top: 2.2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0 }
th, td { padding: 2px 8px; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
tr:nth-child(even) { background: #f5f5f5 }
thead th { border-bottom: 2px solid #888 }
td.text { text-align: left; white-space: normal; color: #555; min-width: 16em }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
.over { color: #b00000; font-weight: bold }
dl { display: grid; grid-template-columns: max-content auto; gap: .2em 1.5em }
dt { font-weight: bold }
dd { margin: 0 }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
"""

INTRODUCTION = """
<p>A kernel hands out memory in frames of 4 KiB, in larger blocks and in small objects, fills
translation tables, and keeps the areas of address spaces, up to millions of times a second. This
page shows how long that takes with the headers of this repository, with simpler code that small
kernels use, and with well-known rivals, how much memory each needs for itself, and whether it keeps
large blocks whole. Frames and blocks are never touched, only the allocators' own data; objects get
a word written.</p>
<p>Bars are nanoseconds, <b>shorter is better</b>; the scale is logarithmic: from one line to the
next it is ten times the time. Every figure is the median of several runs, which were mixed with
those of all other allocators, so that a disturbance of the machine hits all alike. <i>empty</i>
is the measuring loop without an allocator: nothing can be faster. <i>stack</i> is the least that
an allocator of single frames can do.</p>
"""

HEALING = """
<h2>Healing</h2>
<p>At the start half of all memory is free, but scattered, so that no block of 2 MiB is whole.
Then single frames come and go. An allocator that prefers low addresses gathers the free frames
into whole blocks again; one that hands out what was freed last never does.</p>
"""

MEMORY = """
<h2>Memory</h2>
<p>What the allocator keeps for itself. An intrusive list needs next to nothing, for its links lie
in the free frames; it is not shown.</p>
"""

OTHERS = """
<h2>Other figures</h2>
<p>init: making the pool of 8 GiB. Whole blocks are counted from the frames that are held; handed
out: how many of them the allocator then really gave.</p>
"""

BESIDE = """
<h2>Beside their limits</h2>
<p>Two figures of this run as a ratio: the time of the first over the time of the second. Red: not
within the limit. Limits inform; nothing fails by them.</p>
"""


def html_table(head, lines):
    """`lines` are lists of cells that begin with their tag."""
    head = "".join(f"<th>{html.escape(h)}" for h in head)
    body = "\n".join("<tr>" + "".join(cells) for cells in lines)
    return f"<div class=wide><table><thead><tr>{head}<tbody>\n{body}</table></div>\n"


def group_table(run, rows, names):
    lines = []
    for row, sentence in rows:
        cells = [f"<td>{html.escape(row)}"]
        for name in names:
            low, high, n = run.spread.get((row, name), (0, 0, 0))
            hint = f' title="{figure(low)} to {figure(high)} in {n} runs"' if n else ""
            cells.append(f"<td{hint}>{figure(run.cells[row].get(name))}")
        cells.append(f"<td class=text>{html.escape(sentence)}")
        lines.append(cells)
    return html_table([""] + names + [""], lines)


def group_html(run, group, names, colours):
    title, unit, about, rows = group
    present = [n for n in names if any(n in run.cells[row] for row, _ in rows)]
    cells = [(row, run.cells[row]) for row, _ in rows]
    return [
        f"<h2>{html.escape(title)}</h2><p>{html.escape(about)}</p>",
        clusters(title, unit, names, cells, colours),
        group_table(run, rows, present),
    ]


def machine(context):
    model = "unknown processor"
    try:
        with open("/proc/cpuinfo") as f:
            names = (line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
            model = next(names, model)
    except OSError:
        pass
    caches = ", ".join(
        f"L{c['level']} {c['type'].lower()} {c['size'] // 1024:,} KiB" for c in context["caches"]
    )
    return (
        f"{model}, {context['num_cpus']} CPUs; {caches}. "
        f"Compiler: {context.get('compiler', 'unknown')}. {context['date']}."
    )


def extras_html(run, names, colours):
    page = []
    if run.counters["whole_00"]["healing"]:
        page += [HEALING, healing_curve(run, colours)]
    memory = run.memory()
    shown = [(n, memory[n]) for n in names if memory.get(n, 0) > 0.001]
    if shown:
        page += [MEMORY, memory_bars(shown, colours)]
    lines = [
        [f"<td>{html.escape(name)}, {unit}"] + [f"<td>{figure(values.get(n))}" for n in names]
        for name, unit, values in run.extras()
    ]
    if lines:
        page += [OTHERS, html_table([""] + names, lines)]
    return page


def limits_html(run):
    lines = []
    for allocator, what, value, relation, limit in run.limits():
        mark = "" if within(value, relation, limit) else " class=over"
        bound = "at most" if relation == "<=" else "at least"
        lines.append(
            [
                f"<td>{allocator}",
                f"<td class=text>{html.escape(what)}",
                f"<td{mark}>{figure(value)}",
                f"<td>{bound} {figure(limit)}",
            ]
        )
    return [BESIDE, html_table(["", "", "value", "limit"], lines)] if lines else []


def write_page(run, path):
    names = [name for name, _ in run.allocators]
    spare = iter(text.SPARE_COLOURS * 9)
    colours = {name: text.COLOURS.get(name) or next(spare) for name in names}
    title = "Allocators compared"
    page = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{STYLE}</style><h1>{title}</h1>{INTRODUCTION}<dl>",
    ]
    for name, about in run.allocators:
        swatch = f"<span class=swatch style='background:{colours[name]}'></span>"
        page.append(f"<dt>{swatch}{html.escape(name)}<dd>{html.escape(about)}")
    page.append(f"</dl><p>Machine: {html.escape(machine(run.context))}</p>")
    if run.errors:
        page.append("<p class=over>Failed: " + html.escape("; ".join(run.errors)) + "</p>")
    for group in run.groups():
        page += group_html(run, group, names, colours)
    page += extras_html(run, names, colours) + limits_html(run)
    with open(path, "w") as f:
        f.write("\n".join(page) + "\n")


def main():
    paths = [a for a in sys.argv[1:] if a.endswith(".json")]
    pages = [a for a in sys.argv[1:] if not a.endswith(".json")]
    if not paths or len(pages) > 1:
        sys.exit(__doc__)
    run = Run(paths)
    print_table(run)
    print_limits(run)
    if pages:
        write_page(run, pages[0])
        print(f"\nPlots: {pages[0]}    all figures: {os.path.dirname(paths[0])}/*.json")
    if run.errors:
        sys.exit("\nFailed: " + "\n        ".join(run.errors))


if __name__ == "__main__":
    main()
