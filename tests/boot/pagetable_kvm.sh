#!/bin/sh
# The processor itself, through /dev/kvm, against what mm_pagetable.h predicts: pagetable_kvm.c.
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build/test
case $(uname -m) in
x86_64) ;;
*)
    echo "1..0 # SKIP not an x86_64 machine"
    exit 0
    ;;
esac
gcc -O1 -g -std=gnu11 -Wall -Wextra -Werror -I. -o build/test/pagetable_kvm tests/boot/pagetable_kvm.c || exit 1
exec prlimit --cpu=60 build/test/pagetable_kvm
