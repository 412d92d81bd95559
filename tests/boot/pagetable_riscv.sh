#!/bin/sh
# Tables that mm_pagetable.h built, under the MMU of qemu-system-riscv64: pagetable_riscv.c.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=build/test/riscv
mkdir -p $work
for tool in qemu-system-riscv64 riscv64-unknown-elf-gcc; do
    command -v $tool >/dev/null || {
        echo "1..0 # SKIP no $tool"
        exit 0
    }
done

build() {
    riscv64-unknown-elf-gcc -march=rv64imac_zicsr -mabi=lp64 -mcmodel=medany -nostdlib -nostartfiles \
        -Wl,-Ttext=0x80000000 -o $work/guest tests/boot/riscv_guest.S &&
        riscv64-unknown-elf-objcopy -O binary $work/guest $work/guest.bin &&
        gcc -O1 -g -std=gnu11 -Wall -Wextra -Werror -I. -o $work/host tests/boot/pagetable_riscv.c
}

guest() { # FORMAT CPU
    $work/host image "$work/$1.img" "$1" &&
        prlimit --cpu=60 qemu-system-riscv64 -machine virt -cpu "$2" -m 64 -bios none -nographic -monitor none \
            -serial "file:$work/$1.out" -device loader,file=$work/guest.bin,addr=0x80000000 \
            -device loader,file="$work/$1.img",addr=0x80010000,force-raw=on </dev/null &&
        $work/host check "$work/$1.out" "$1"
}

check "the guest builds" build
for format in sv39 sv48 sv57; do
    check "$format: loads, stores and fetches do what was predicted" guest $format rv64
done
for format in sv39x4 sv48x4 sv57x4; do
    check "$format: the same in the G-stage" guest $format rv64,h=true
done
checks_done
