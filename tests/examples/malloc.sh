#!/bin/sh
# Real programs with examples/malloc preloaded print what they print without it.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
out=$PWD/build/test/malloc
mkdir -p "$out"
lib=$out/malloc.so

builds() {
    examples/malloc/build.sh "$lib" -Wall -Wextra -Werror &&
        gcc -std=gnu11 -O1 -Wall -Wextra -Werror -fno-builtin -o "$out/calls" tests/examples/malloc_calls.c -pthread &&
        gcc -std=gnu11 -O1 -Wall -Wextra -Werror -fno-builtin -o "$out/forks" tests/examples/malloc_forks.c -pthread &&
        gcc -std=gnu11 -O1 -Wall -Wextra -Werror -fno-builtin -rdynamic -o "$out/moves" tests/examples/malloc_moves.c
}

# NAME COMMAND...: the same output and status with and without the library
same() {
    name=$1
    shift
    "$@" >"$out/$name.plain" 2>&1 || return 1
    LD_PRELOAD=$lib "$@" >"$out/$name.preloaded" 2>&1 || {
        tail -n 5 "$out/$name.preloaded"
        return 1
    }
    cmp "$out/$name.plain" "$out/$name.preloaded"
}

calls() {
    LD_PRELOAD=$lib "$out/calls"
}

forks() {
    LD_PRELOAD=$lib "$out/forks"
}

moves() {
    LD_PRELOAD=$lib "$out/moves"
}

# The library serves the program indeed, not the C library's malloc.
serves() {
    LD_PRELOAD=$lib python3 -c 'print(open("/proc/self/maps").read())' | grep -q "$lib"
}

# A program whose address space is limited still gets some memory, and errors instead of crashes.
limited() {
    same limited prlimit --as=1000000000 python3 -c '
a = [str(i) * 10 for i in range(300000)]
print(len(a))
try:
    bytearray(1100 << 20)
except MemoryError:
    print("too much")'
}

python() {
    cat >"$out/big.py" <<'END'
import threading, hashlib, collections
results = {}
def work(n):
    d = {}
    for i in range(60000):
        d[f"key {i * n}"] = [i] * (i % 20)
        if i % 3 == 0:
            d.pop(f"key {(i // 2) * n}", None)
    results[n] = hashlib.sha256(repr(sorted(d.items())).encode()).hexdigest()
threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
[t.start() for t in threads]; [t.join() for t in threads]
for n in sorted(results): print(n, results[n])
big = list(range(2000000)); big += big; print(sum(big), len(big))
b = bytearray()
for i in range(200000): b += b"%d," % i
print(hashlib.sha256(b).hexdigest())
q = collections.deque(str(i) for i in range(300000)); q.rotate(777); print(q[0], len(q))
END
    PYTHONMALLOC=malloc same python python3 "$out/big.py" && same pymalloc python3 "$out/big.py"
}

compile() { # the assembly of one of our own large sources
    same gcc gcc -O2 -S -o - -x c -DMM_BUDDY_IMPLEMENTATION mm_buddy.h
}

sqlite() {
    cat >"$out/million.sql" <<'END'
create table t(a integer primary key, b text, c real);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000)
  insert into t select i, 'row ' || (i * 7919 % 1000003), i / 3.0 from n;
commit;
create index tb on t(b);
select count(*), sum(a), min(b), max(b), round(sum(c)) from t;
select b, count(*) from t where b like 'row 99%' group by substr(b, 1, 7) order by b limit 20;
delete from t where a % 3 = 0;
select count(*), sum(a) from t;
END
    # shellcheck disable=SC2016 # a script for the inner shell
    same sqlite sh -c 'sqlite3 :memory: <"$0"' "$out/million.sql"
}

git_log_and_gc() {
    same git-log git log --stat -p -n 60 || return 1
    rm -rf "$out/clone"
    git clone -q --no-hardlinks . "$out/clone" 2>"$out/clone.err" || return 1
    git -C "$out/clone" rev-list --objects --all | sort >"$out/objects.before"
    LD_PRELOAD=$lib git -C "$out/clone" gc -q --aggressive --prune=now || return 1
    LD_PRELOAD=$lib git -C "$out/clone" fsck --full 2>&1 | grep -v '^dangling\|^notice' && return 1
    git -C "$out/clone" rev-list --objects --all | sort >"$out/objects.after"
    cmp "$out/objects.before" "$out/objects.after"
}

redis() {
    port=$((20000 + $$ % 10000))
    LD_PRELOAD=$lib redis-server --port $port --save '' --appendonly no --dir "$out" >"$out/redis.log" 2>&1 &
    pid=$!
    while ! redis-cli -p $port ping >/dev/null 2>&1; do # until it answers, or has ended
        kill -0 $pid || { tail -n 5 "$out/redis.log"; return 1; }
        sleep 0.2
    done
    LD_PRELOAD=$lib redis-benchmark -p $port -q -n 20000 -r 5000 -d 300 \
        -t set,get,incr,lpush,rpop,sadd,hset,spop,zadd,mset >"$out/redis.bench" 2>&1 &&
        redis-cli -p $port eval 'for i = 1, 20000 do redis.call("set", "k" .. i, string.rep(tostring(i), i % 90)) end
            local s = 0; for i = 1, 20000 do s = s + #redis.call("get", "k" .. i) end; return s' 0 >"$out/redis.sum"
    redis-cli -p $port bgsave >/dev/null # a fork
    sleep 0.5
    redis-cli -p $port shutdown nosave >/dev/null 2>&1
    wait $pid || { tail -n 5 "$out/redis.log"; return 1; }
    # the sum of the lengths, computed by other means
    awk 'BEGIN { for (i = 1; i <= 20000; i++) s += length(i) * (i % 90); print s }' | cmp - "$out/redis.sum"
}

check "examples/malloc builds without warnings" builds
check "it serves the program" serves
check "all of its calls, threads, forks" calls
check "forks at every instruction; a child uses nothing of other threads' arrays" forks
check "large blocks grow where pages cannot move" moves
check "a program with little address space" limited
check "python3 with threads and big containers" python
check "gcc compiles mm_buddy.h" compile
check "sqlite3 inserts a million rows" sqlite
check "git log, gc and fsck" git_log_and_gc
check "redis-server under redis-benchmark" redis
checks_done
