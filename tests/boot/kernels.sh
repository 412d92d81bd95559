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
    tr -d '\r' <"$1" | grep -E '^  0x[0-9a-f]+-0x[0-9a-f]+ 0x' >build/kernels/table
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
    grep -q "^mm example kernel, $2 tables" "$log" || { echo "other tables than $2" && return 1; }
    grep -q '^2 CPUs' "$log" || { echo "not on two CPUs" && return 1; }
    [ "$(grep -c '^PASS' "$log")" -eq 25 ] || { echo "not 25 demonstrations" && return 1; }
    grep -qE '^  [0-9a-f]+ \+ [0-9a-f]+ usable' "$log" || { echo "no memory map" && return 1; }
    grep -qE '^  DMA: total [0-9.]+ MB, used [0-9.]+ MB, free [0-9.]+ MB, [0-9]+% used' "$log" ||
        { echo "no zones" && return 1; }
    ! grep -E '^(FAIL|SKIP)' "$log"
}

stops() { # MACHINE: a boot that does not end is ended, and has failed
    ! MM_BOOT_TIMEOUT=0.5 examples/kernel_common/boot.sh "$1" build/kernels/stopped.log 2>build/kernels/stopped.err &&
        cat build/kernels/stopped.err && grep -q 'status 124' build/kernels/stopped.err
}

for arch in x86_64 riscv64; do
    why=$(missing $arch)
    if [ -n "$why" ]; then
        checks=$((checks + 1))
        echo "ok $checks - the kernel for $arch # SKIP $why"
        continue
    fi
    check "the kernel for $arch is built" make --no-print-directory "build/kernels/$arch/kernel.elf"
    if [ $arch = x86_64 ]; then
        check "x86_64 boots with four levels" boots x86_64 x86_64
        check "its own space keeps writing and execution apart" separate build/kernels/x86_64.log 1
        check "x86_64 boots with five levels" boots x86_64-la57 x86_64-la57
        check "a boot that does not end has failed" stops x86_64
    else
        check "riscv64 boots with Sv39" boots riscv64-sv39 sv39
        check "riscv64 boots with Sv48" boots riscv64 sv48
        # the machine, not the table, says there which addresses are devices'
        check "its own space keeps writing and execution apart" separate build/kernels/riscv64.log 0
    fi
done
checks_done
