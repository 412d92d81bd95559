#!/bin/sh
# Tables that mm_pagetable.h built, under the MMU of qemu-system-x86_64 (TCG), four levels and five:
# pagetable_x86.c. The guest's serial output is kept in build/test/x86/FORMAT.log.
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=build/test/x86
mkdir -p $work
case $(uname -m) in
x86_64) ;;
*)
    echo "1..0 # SKIP no compiler for x86_64"
    exit 0
    ;;
esac
command -v qemu-system-x86_64 >/dev/null || {
    echo "1..0 # SKIP no qemu-system-x86_64"
    exit 0
}

build() {
    gcc -m64 -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none,-z,noexecstack,-n \
        -o $work/guest tests/boot/x86_guest.S &&
        gcc -O1 -g -std=gnu11 -Wall -Wextra -Werror -I. -o $work/host tests/boot/pagetable_x86.c
}

guest() { # FORMAT
    $work/host image "$work/$1.img" "$1" || return 1
    prlimit --cpu=60 qemu-system-x86_64 -accel tcg -cpu max -m 64 -no-reboot -display none -monitor none \
        -serial "file:$work/$1.log" -device isa-debug-exit,iobase=0xf4 -kernel $work/guest \
        -device loader,file="$work/$1.img",addr=0x200000,force-raw=on </dev/null
    status=$?
    [ $status -eq 33 ] || { # 2 * 16 + 1
        echo "# QEMU ended with status $status"
        return 1
    }
    $work/host check "$work/$1.log" "$1"
}

check "the guest builds" build
check "four levels: loads, stores and fetches in rings 0 and 3 do what was predicted" guest x86_64
check "five levels: the same" guest la57
checks_done
