#!/bin/sh
# The headers' core blocks are equal, and the tools that compare and copy them work.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tools"
cp tools/check-core.sh tools/sync-core.sh "$work/tools"
a=$work/mm_a.h
b=$work/mm_b.h

fails() { ! "$@"; }

# shellcheck disable=SC2046 # a list of names
check "the headers' core blocks are equal" tools/check-core.sh $(ls mm_*.h 2>/dev/null)

printf '/* a */\n/* mm core begin */\none\ntwo\n/* mm core end */\nrest a\n' >"$a"
sed 's/ a/ b/' "$a" >"$b"
check "equal blocks pass" tools/check-core.sh "$a" "$b"
sed -i 's/two/tw0/' "$b"
check "one byte's difference is found" fails tools/check-core.sh "$a" "$b"
check "a copy can be made" "$work/tools/sync-core.sh" "$a"
check "the copy is equal" tools/check-core.sh "$a" "$b"
check "the copy leaves the rest alone" grep -q 'rest b' "$b"
sed -i 's/two$/two /' "$b"
check "a space at a line's end is found" fails tools/check-core.sh "$a" "$b"
sed -i '/core end/d' "$b"
check "a missing end is found" fails tools/check-core.sh "$a" "$b"
sed -i '/core begin/d' "$b"
check "a missing block is found" fails tools/check-core.sh "$a" "$b"
checks_done
