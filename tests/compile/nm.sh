#!/bin/sh
# A freestanding object needs at most memset and memcpy from outside: no libgcc helper, no
# __atomic_* call, on 64-bit and 32-bit machines alike.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh
object=build/test/nm.o
mkdir -p build/test

undefined() { # HEADER COMPILER...
    header=$1
    shift
    x=$(basename "$header" .h | tr '[:lower:]' '[:upper:]')
    full='-DMM_DEBUG=3 -DMM_CPU_MAX=8 -DMM_CPU_ID()=0'
    for options in "-O0 $full" "-O2 $full" -Os; do
        # shellcheck disable=SC2086 # a list of flags
        printf '#define %s_IMPLEMENTATION\n#include "%s"\n' "$x" "$header" |
            "$@" -x c -std=c11 -ffreestanding $options -I. -c -o $object - || return 1
        nm -u $object | grep -vwE 'memset|memcpy' | sed "s/^/$options/" >$object.extra || true
        ! grep . $object.extra || return 1
    done
}

for header in mm_*.h; do
    [ -e "$header" ] || continue
    check "$header: gcc x86_64" undefined "$header" gcc -fno-pic
    for target in x86_64 i386 aarch64 riscv64 riscv32; do
        check "$header: clang $target" undefined "$header" clang --target=$target-unknown-elf
    done
    rv=riscv64-unknown-elf-gcc
    check "$header: gcc rv64imac" undefined "$header" $rv -march=rv64imac -mabi=lp64
    check "$header: gcc rv32imac" undefined "$header" $rv -march=rv32imac -mabi=ilp32
done
checks_done
