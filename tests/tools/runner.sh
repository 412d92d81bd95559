#!/bin/sh
# The test runner turns red for whatever can go wrong in a test program.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

script() { # NAME: a test program from standard input
    { echo '#!/bin/sh' && cat; } >"$work/$1"
    chmod +x "$work/$1"
}

closes() { # STATUS LAST-LINE PROGRAM...: how the runner ends
    want_status=$1 want=$2
    shift 2
    status=0
    for program; do set -- "$@" "$work/$program" && shift; done
    tools/run-tests -t 1 "$@" >"$work/out" || status=$?
    cat "$work/out"
    [ "$status" -eq "$want_status" ] && [ "$(tail -n 1 "$work/out")" = "$want" ]
}

shows() { grep -qF -e "$1" "$work/out" || { cat "$work/out" && return 1; }; }

script good <<'E2'
echo 1..2; echo ok 1 - first; echo ok 2 - second
E2
check "tests that pass" closes 0 "2 passed, 0 failed" good
check "... each have a line" shows "good: second"

script fails <<'E2'
echo 1..2; echo ok 1 - first; echo 'why it failed'; echo not ok 2 - second; exit 1
E2
check "a test that fails" closes 1 "3 passed, 1 failed" good fails
check "... has its output shown" shows "    why it failed"

script skips <<'E2'
echo 1..2; echo 'ok 1 # SKIP no reason'; echo ok 2 - second
E2
check "a test that is skipped" closes 0 "1 passed, 0 failed, 1 skipped" skips

script skips_all <<'E2'
echo '1..0 # SKIP no reason'
E2
check "a program that skips all" closes 0 "0 passed, 0 failed, 1 skipped" skips_all
check "nothing chosen" closes 1 "0 passed, 0 failed"

script crashes <<'E2'
echo 1..2; echo ok 1 - first; echo last words; kill -SEGV $$
E2
check "a crash" closes 1 "1 passed, 1 failed" crashes
check "... has its output shown" shows "    last words"

script crashes_late <<'E2'
echo 1..1; echo ok 1 - first; kill -ABRT $$
E2
check "a crash after the last test" closes 1 "1 passed, 1 failed" crashes_late

script hangs <<'E2'
echo 1..2; echo ok 1 - first; exec sleep 60
E2
check "a program that hangs" closes 1 "1 passed, 1 failed" hangs

script exits <<'E2'
echo 1..1; echo ok 1 - first; exit 3
E2
check "an exit status" closes 1 "1 passed, 1 failed" exits

script stops <<'E2'
echo 1..3; echo ok 1 - first; echo ok 2 - second
E2
check "fewer tests than planned" closes 1 "2 passed, 1 failed" stops

script silent </dev/null
check "a program without tests" closes 1 "0 passed, 1 failed" silent

script planless <<'E2'
echo ok 1 - first
E2
check "a program without a plan" closes 1 "1 passed, 1 failed" planless

script empty <<'E2'
echo 1..0
E2
check "a plan of no tests" closes 1 "0 passed, 1 failed" empty
check "a program that does not exist" closes 1 "2 passed, 1 failed" good absent
check "no program at all" closes 1 "0 passed, 0 failed"

cat >"$work/cmocka.c" <<'E2'
#include "mm_test.h"
static void passes(void **state) { (void)state; }
static void fails(void **state) { (void)state; assert_int_equal(1, 2); }
static void crashes(void **state) { (void)state; raise(SIGSEGV); }
static void aborts(void **state) { (void)state; signal(SIGABRT, SIG_DFL); abort(); }
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes), cmocka_unit_test(fails), cmocka_unit_test(crashes),
        cmocka_unit_test(aborts), cmocka_unit_test(passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
E2
check "a cmocka program compiles" gcc -D_GNU_SOURCE -include signal.h -Itests \
    -o "$work/cmocka" "$work/cmocka.c" -lcmocka -pthread
check "... and its failures and crashes are counted" closes 1 "1 passed, 3 failed" cmocka
check "... with their place" shows "cmocka.c:3: error: Failure!"
checks_done
