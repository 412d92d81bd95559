#!/bin/sh
# Boots an example kernel in QEMU, its serial line into a file, and ends with status 0 if all passed.
# Usage: boot.sh x86_64|x86_64-la57|riscv64|riscv64-sv39 LOG     MM_ACCEL=kvm: x86_64 under KVM
set -u
machine=$1 log=$2 pass=33 # isa-debug-exit: 2 * 16 + 1; sifive_test: the same
: >"$log"
common="-m 48 -smp 2 -no-reboot -display none -monitor none -serial file:$log"
accel=${MM_ACCEL:-tcg}
case $machine in
x86_64*)
    cpu=qemu64
    [ "$machine" = x86_64 ] || cpu=max
    [ "$accel" = tcg ] || cpu=host
    [ "$accel" = tcg ] || grep -qwE 'vmx|svm' /proc/cpuinfo ||
        echo "$machine: no vmx or svm here: a KVM without them emulates kernels, slowly and not wholly" >&2
    set -- qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -device isa-debug-exit,iobase=0xf4 \
        -kernel build/kernels/x86_64/kernel.elf
    ;;
riscv64*)
    option=
    [ "$machine" = riscv64 ] || option=sv39
    set -- qemu-system-riscv64 -machine virt -kernel build/kernels/riscv64/kernel.elf -append "$option"
    ;;
*)
    echo "unknown machine: $machine" >&2
    exit 2
    ;;
esac
# shellcheck disable=SC2086 # a list of options
timeout -k 5 "${MM_BOOT_TIMEOUT:-300}" "$@" $common </dev/null
status=$?
[ "$status" -eq "$pass" ] && exit 0
echo "$machine: QEMU ended with status $status, not $pass; see $log" >&2
exit 1
