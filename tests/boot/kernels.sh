#!/bin/sh
# The example kernels boot in QEMU, and every demonstration passes; the serial output of each boot is kept in
# build/kernels/NAME.log.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh

missing() { # prints what this machine lacks for $1
    case $1 in
    x86_64) tools='qemu-system-x86_64 gcc' ;;
    *) tools='qemu-system-riscv64 riscv64-unknown-elf-gcc' ;;
    esac
    for tool in $tools; do
        command -v "$tool" >/dev/null || { echo "no $tool" && return; }
    done
}

separate() { # LOG DEVICES: the kernel's table: code r-x, constants r--, data rw-; so many devices uncached
    tr -d '\r' <"build/kernels/$1.log" | grep -E '^  0x[0-9a-f]+-0x[0-9a-f]+ 0x' >build/kernels/table
    cat build/kernels/table
    ! grep -q ' .wx' build/kernels/table &&
        [ "$(grep -c ' r-x--g.. wb$' build/kernels/table)" -eq 1 ] &&
        grep -q ' r----g.. wb$' build/kernels/table &&
        grep -q ' rw---g.. wb$' build/kernels/table &&
        [ "$(grep -c ' rw---g.. dev$' build/kernels/table)" -eq "$2" ]
}

boots() { # MACHINE TABLES: all of it, on two CPUs, with these page tables
    log=build/kernels/$1.log
    examples/kernel_common/boot.sh "$1" "$log" || { tail -n 30 "$log" && return 1; }
    passed "$1" "$2"
}

passed() { # NAME of the log, TABLES
    log=build/kernels/$1.log
    grep -q "^mm example kernel, $2 tables" "$log" || { echo "other tables than $2" && return 1; }
    grep -qE '^  [0-9a-f]+ \+ [0-9a-f]+ usable' "$log" || { echo "no memory map" && return 1; }
    grep -qE '^  DMA: total [0-9.]+ MB, used [0-9.]+ MB, free [0-9.]+ MB, [0-9]+% used' "$log" ||
        { echo "no zones" && return 1; }
    grep -q '^2 CPUs' "$log" || { echo "not on two CPUs" && return 1; }
    [ "$(grep -c '^PASS' "$log")" -eq 25 ] || { echo "not 25 demonstrations" && tail -n 30 "$log" && return 1; }
    ! grep -E '^(FAIL|SKIP)' "$log"
}

shows() { # ./mm demo: both kernels, within a minute, or more where the machine has other work
    begun=$(date +%s)
    limit=$((60 + 60 * $(sed 's/\..*//' /proc/loadavg)))
    make --no-print-directory demo >build/kernels/demo.out 2>&1 || { tail -n 30 build/kernels/demo.out && return 1; }
    seconds=$(($(date +%s) - begun))
    echo "$seconds s of $limit"
    [ $seconds -lt "$limit" ] && [ "$(grep -c '^ALL PASSED' build/kernels/demo.out)" -eq 2 ] &&
        [ "$(grep -c '^PASS' build/kernels/demo.out)" -eq 50 ]
}

stops() { # MACHINE: a boot that does not end is ended, and has failed
    ! MM_BOOT_TIMEOUT=0.5 examples/kernel_common/boot.sh "$1" build/kernels/stopped.log 2>build/kernels/stopped.err &&
        cat build/kernels/stopped.err && grep -q 'status 124' build/kernels/stopped.err
}

if [ -z "$(missing x86_64)$(missing riscv64)" ]; then
    check "the kernels are built" make --no-print-directory kernels
    check "./mm demo shows both within a minute" shows
    x86_64=demo-x86_64 riscv64=demo-riscv64
    default=passed
else
    x86_64=x86_64 riscv64=riscv64
    default=boots
fi

why=$(missing x86_64)
if [ -z "$why" ]; then
    check "the kernel for x86_64 is built" make --no-print-directory build/kernels/x86_64/kernel.elf
    check "x86_64 boots with four levels" $default $x86_64 x86_64
    check "x86_64 boots with five levels" boots x86_64-la57 x86_64-la57
    check "x86_64: its own space keeps writing and execution apart" separate $x86_64 1
    check "a boot that does not end has failed" stops x86_64
else
    checks=$((checks + 1))
    echo "ok $checks - the kernel for x86_64 # SKIP $why"
fi

why=$(missing riscv64)
if [ -z "$why" ]; then
    check "the kernel for riscv64 is built" make --no-print-directory build/kernels/riscv64/kernel.elf
    check "riscv64 boots with Sv48" $default $riscv64 sv48
    check "riscv64 boots with Sv39" boots riscv64-sv39 sv39
    # the machine, not the table, says there which addresses are devices'
    check "riscv64: its own space keeps writing and execution apart" separate $riscv64 0
else
    checks=$((checks + 1))
    echo "ok $checks - the kernel for riscv64 # SKIP $why"
fi
checks_done
