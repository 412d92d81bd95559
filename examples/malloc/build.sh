#!/bin/sh
# Usage: examples/malloc/build.sh OUT.so [FLAG...]
set -eu
out=$1
shift
cd "$(dirname "$0")/../.."
mkdir -p "$(dirname "$out")"
exec "${CC:-gcc}" -std=gnu11 -O2 -fPIC -shared -fvisibility=hidden -ftls-model=initial-exec -fno-semantic-interposition -fno-builtin-malloc \
    -I. "$@" -o "$out" examples/malloc/malloc.c -pthread
