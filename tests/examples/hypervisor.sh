#!/bin/sh
# examples/hypervisor_kvm: the guest passes each step on KVM, plain and under the sanitizers with full
# checks; without KVM it says so. The second-stage tables are what stands beside them.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=build/test/hypervisor
source=examples/hypervisor_kvm
mkdir -p $work

builds() { # PROGRAM SOURCE... -- COMPILER...
    output=$work/$1
    shift
    sources=
    while [ "$1" != -- ]; do
        sources="$sources $source/$1"
        shift
    done
    shift
    # shellcheck disable=SC2086 # a list of files
    "$@" -std=gnu11 -Wall -Wextra -Wshadow -Wconversion -Werror -I. -Itests -o "$output" $sources
}

skipped() { # NAME REASON
    checks=$((checks + 1))
    echo "ok $checks - $1 # SKIP $2"
}

told() { # LINE: a step that the guest's machine printed
    case $1 in PASS*) ;; *) cat "$work/$program.out" && false ;; esac
}

steps() { # PROGRAM: each step is a check
    program=$1
    status=0
    prlimit --cpu=60 "$work/$program" >"$work/$program.out" 2>&1 || status=$?
    if [ "$status" = 77 ]; then
        skipped "$program" "$(sed -n 's/^SKIP *//p' "$work/$program.out")"
        return
    fi
    grep -E '^(PASS|FAIL)  ' "$work/$program.out" >"$work/$program.steps" || true
    while read -r line; do
        check "$program: ${line#*  }" told "$line"
    done <"$work/$program.steps"
    check "$program: exit status 0 after all steps" complete "$status"
}

complete() { # STATUS
    echo "exit status $1, $(wc -l <"$work/$program.steps") steps"
    cat "$work/$program.out"
    [ "$1" = 0 ] && tail -n 1 "$work/$program.steps" | grep -q 'no frame and no area is left behind'
}

without_kvm() {
    status=0
    "$work/guest" /nonexistent >"$work/without.out" || status=$?
    cat "$work/without.out"
    [ "$status" = 77 ] && grep -q '^SKIP  /nonexistent: ' "$work/without.out"
}

prints() { # PROGRAM
    "$work/$1" >"$work/$1.out" && diff -u "$source/second_stage.txt" "$work/$1.out"
}

sanitized="clang -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -DMM_DEBUG=3
    -DMM_ASSERT(x)=(void)((x)||(__builtin_trap(),0))"

check "second_stage.c builds" builds second_stage second_stage.c -- gcc -O2
check "second_stage.c: EPT and Sv39x4 are as the walker reads them" prints second_stage
# shellcheck disable=SC2086 # a command with its flags
check "second_stage.c builds, sanitized" builds second_stage_sanitized second_stage.c -- $sanitized
check "second_stage.c, sanitized" prints second_stage_sanitized

if [ "$(uname -m)" = x86_64 ]; then
    check "main.c builds" builds guest main.c vmm.c guest.S -- gcc -O2
    # shellcheck disable=SC2086
    check "main.c builds, sanitized" builds guest_sanitized main.c vmm.c guest.S -- $sanitized
    check "without KVM it says so" without_kvm
    steps guest
    steps guest_sanitized
else
    skipped guest "the guest is one for x86_64"
fi
check "functions fit a screen" sh -c "pmccabe $source/*.c |
    awk '{ seen++ } \$5 > 60 || \$1 > 12 { print \$NF; bad = 1 } END { exit bad || !seen }'"
checks_done
