#!/bin/sh
# The code in examples/PORTING.md compiles for kernels of two machines without a warning; what has a main
# runs here. Its requests to other CPUs are tried with threads: tests/examples/porting/ipi_test.c.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=$PWD/build/test/porting
rm -rf "$work"
mkdir -p "$work"

awk -v work="$work" '
    /^```c$/ { inside = 1; first = 1; file = ""; next }
    /^```/ { inside = 0; next }
    inside && first && /^\/\* [a-z]+\.[ch] / { file = work "/" $2 }
    inside { first = 0; if (file) print >file }' examples/PORTING.md

warnings='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror'

present() { # FILE: are all headers that it includes here?
    sed -n 's/^#include "\(mm_[a-z]*\.h\)"/\1/p' "$1" | while read -r header; do
        [ -e "$header" ] || echo "$header"
    done >"$work/missing"
    ! [ -s "$work/missing" ]
}

compiles() { # FILE COMPILER...
    file=$1
    shift
    # shellcheck disable=SC2086 # a list of flags
    "$@" -std=c11 -ffreestanding -O1 $warnings -I"$work" -I. -Iexamples/bootmaps -c -o "$work/kernel.o" "$file"
}

runs() { # FILE
    # shellcheck disable=SC2086 # a list of flags
    gcc -std=c11 -O0 -g $warnings -fsanitize=address,undefined -fno-sanitize-recover=all -I. -o "$work/program" "$1" &&
        "$work/program"
}

threads() { # the guide's ipi.c and locks, over a machine made of threads
    cp tests/examples/porting/arch.h "$work/arch.h"
    clang -std=gnu11 -O1 -g -fsanitize=thread -pthread -I"$work" -I. -o "$work/threads" \
        tests/examples/porting/ipi_test.c && "$work/threads"
}

for file in "$work"/*.c; do
    present "$file" || continue
    program=$(basename "$file")
    check "$program for x86_64" compiles "$file" gcc -mno-red-zone -mgeneral-regs-only
    check "$program for riscv64" compiles "$file" clang --target=riscv64-none-elf -march=rv64imac -mcmodel=medany
    ! grep -q ' main(' "$file" || check "$program runs" runs "$file"
done
! [ -e mm_pagetable.h ] || check "requests to other CPUs end" threads
checks_done
