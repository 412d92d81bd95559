#!/usr/bin/env python3
"""Usage: compare.py MALLOC.so [-n ROUNDS] [PROGRAM...]
Times real programs with this malloc and with other allocators preloaded, each round in another
order, so that a disturbance hits them alike, and prints medians: wall and CPU seconds, peak resident
MiB, and below them this malloc's wall time as a part of the other's in the same round."""
import argparse, glob, os, random, socket, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = {"jemalloc": "libjemalloc.so", "mimalloc": "libmimalloc.so", "tcmalloc": "libtcmalloc_minimal.so"}

PYTHON = """
import threading
def work(n):
    d = {}
    for i in range(60000):
        d[f"key {i * n}"] = [i] * (i % 20)
        if i % 3 == 0:
            d.pop(f"key {(i // 2) * n}", None)
    sorted(d.items())
threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
[t.start() for t in threads]; [t.join() for t in threads]
big = list(range(2000000)); big += big
b = bytearray()
for i in range(200000): b += b"%d," % i
s = {str(i): (i, [i]) for i in range(300000)}
"""
SQL = """create table t(a integer primary key, b text, c real);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000)
  insert into t select i, 'row ' || (i * 7919 % 1000003), i / 3.0 from n;
commit;
create index tb on t(b);
select count(*), min(b), max(b) from t where b like 'row 99%';
delete from t where a % 3 = 0;
"""


def run(argv, env, **more):
    """Wall and CPU seconds, peak MiB and status of a command with all that it waited for."""
    begin = time.monotonic()
    child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = status
    if status != 0:
        sys.exit(f"{argv} with {env.get('LD_PRELOAD')}: status {status}")
    return time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def redis(env, scratch):
    """Requests are served for a fixed number of them: the wall time is the benchmark's, the rest the server's."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    server = subprocess.Popen(["redis-server", "--port", port, "--save", "", "--dir", scratch], env=env,
                              stdout=subprocess.DEVNULL)
    while subprocess.run(["redis-cli", "-p", port, "ping"], capture_output=True).returncode != 0:
        time.sleep(0.02)
    begin = time.monotonic()
    subprocess.run(["redis-benchmark", "-p", port, "-q", "-n", "100000", "-r", "100000", "-d", "300", "-P", "16",
                    "-t", "set,get,lpush,rpop,sadd,hset,zadd"], stdout=subprocess.DEVNULL, check=True)
    wall = time.monotonic() - begin
    subprocess.run(["redis-cli", "-p", port, "shutdown", "nosave"], capture_output=True)
    used = os.wait4(server.pid, 0)[2]
    server.returncode = 0
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def git_gc(env, scratch):
    clone = os.path.join(scratch, "clone")
    subprocess.run(["rm", "-rf", clone], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", "--no-hardlinks", ROOT, clone], check=True)
    return run(["git", "-C", clone, "-c", "pack.threads=2", "repack", "-qadf"], env)


def programs(scratch):
    script = os.path.join(scratch, "big.py")
    with open(script, "w") as f:
        f.write(PYTHON)
    sql = os.path.join(scratch, "million.sql")
    with open(sql, "w") as f:
        f.write(SQL)
    gcc = ["gcc", "-O2", "-w", "-S", "-o", "/dev/null", "-x", "c", "-DMM_SLAB_IMPLEMENTATION", ROOT + "/mm_slab.h"]
    return {
        "python": lambda env: run([sys.executable, script], dict(env, PYTHONMALLOC="malloc")),
        "pymalloc": lambda env: run([sys.executable, script], env),
        "gcc": lambda env: run(gcc, env),
        "redis": lambda env: redis(env, scratch),
        "sqlite": lambda env: run(["sqlite3", ":memory:", ".read " + sql], env),
        "git-log": lambda env: run(["git", "-C", ROOT, "log", "--stat", "-p", "-n", "200"], env),
        "git-gc": lambda env: git_gc(env, scratch),
    }


def main():
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("library")
    parse.add_argument("program", nargs="*")
    parse.add_argument("-n", type=int, default=7, metavar="ROUNDS")
    args = parse.parse_args()
    if not os.path.exists(args.library):  # ld.so would go on without it
        parse.error(f"{args.library}: no such file")
    libraries = {"mm": os.path.abspath(args.library), "glibc": None}
    for name, file in PEERS.items():
        for path in glob.glob("/usr/lib/*/" + file):
            libraries[name] = path
    with tempfile.TemporaryDirectory() as scratch:
        known = programs(scratch)
        print(f"{'':10}" + "".join(f"{name:>23}" for name in libraries))
        for program in args.program or known:
            results = {name: [] for name in libraries}
            for _ in range(args.n):
                for name, library in random.sample(list(libraries.items()), len(libraries)):
                    env = dict(os.environ, LC_ALL="C")
                    if library:
                        env["LD_PRELOAD"] = library
                    results[name].append(known[program](env))
            cells = ["%8.3f%8.3f%7.1f" % tuple(map(statistics.median, zip(*r))) for r in results.values()]
            ratios = [statistics.median(m[0] / o[0] for m, o in zip(results["mm"], r)) for r in results.values()]
            print(f"{program:10}" + "".join(cells))
            print(f"{'':10}" + "".join(f"{r:8.3f}{'':15}" for r in ratios), flush=True)


main()
