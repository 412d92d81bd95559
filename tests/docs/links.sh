#!/bin/sh
# The Markdown files link to files that exist, and the README shows the commands.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh

links() {
    grep -o '](.[^)]*)' "$1" | sed 's/^](//; s/)$//; s/#.*//' | grep -vE '^(https?:|mailto:|$)' |
        while read -r target; do
            [ -e "$(dirname "$1")/$target" ] || echo "no $target"
        done >"$missing"
    ! grep . "$missing"
}

missing=$(mktemp)
trap 'rm -f "$missing"' EXIT
for file in *.md */*.md */*/README.md; do
    [ ! -e "$file" ] || check "links of $file" links "$file"
done
for command in './mm test' './mm bench' 'make test' 'make bench'; do
    check "README shows: $command" grep -qF "$command" README.md
done
checks_done
