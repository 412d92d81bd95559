#!/bin/sh
# tools/deps.sh installs what is missing and nothing else; a fake apt-get records its calls.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cp tools/deps.sh "$work"
for tool in sh cat dirname env grep mktemp rm sleep touch; do
    ln -s "$(command -v $tool)" "$work/bin/$tool"
done
export CALLS="$work/calls" MADE="$work/made" BUSY="$work/busy" WHO=0
cat >"$work/deps.txt" <<'E2'
# group, probe, package
here    sh              shell
here    /etc/pass*d     base-passwd
absent  mm-absent-tool  absent-tool
made    MADE            made-tool
made    sh              shell
E2
sed -i "s,MADE,$MADE," "$work/deps.txt"
cat >"$work/bin/apt-get" <<'E2'
#!/bin/sh
echo "$*" >>"$CALLS"
if [ "$*" != "${*%update}" ] && [ -e "$BUSY" ]; then
    rm "$BUSY"
    echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)'
    exit 100
fi
case "$*" in *install*made-tool*) touch "$MADE" ;; esac
E2
cat >"$work/bin/id" <<'E2'
#!/bin/sh
echo "$WHO"
E2
cat >"$work/doas" <<'E2'
#!/bin/sh
echo doas >>"$CALLS"
exec "$@"
E2
chmod +x "$work/bin/apt-get" "$work/bin/id" "$work/doas"

fails() { ! "$@"; }
deps() { rm -f "$CALLS" && PATH=$work/bin "$work/deps.sh" "$@" >"$work/out" 2>&1; }
says() { grep -qF -e "$1" "$work/out" || { cat "$work/out" && return 1; }; }
called() { grep -qF -e "$1" "$CALLS"; }

check "nothing missing: succeeds" deps here
check "... and calls nothing" test ! -e "$CALLS"
export MM_DEPS=no
check "MM_DEPS=no: fails where something is missing" fails deps here made
check "... and calls nothing" test ! -e "$CALLS"
check "... and prints the command" says \
    "apt-get update && apt-get install -y --no-install-recommends made-tool"
check "MM_DEPS=no: succeeds where nothing is missing" deps here
unset MM_DEPS
check "something missing: installs" deps here made
check "... and says what" says "installing made-tool"
check "... after an update" called update
check "... waiting for the lock" called "DPkg::Lock::Timeout=600"
check "... only what is missing" called "--no-install-recommends made-tool"
check "what is installed is not installed again" deps made
check "... and nothing is called" test ! -e "$CALLS"
rm "$MADE" && touch "$BUSY"
check "while the lists are locked: waits" deps made
check "... and says so" says "waiting for the package manager's lock"
check "what stays missing after an installation is an error" fails deps absent
check "... that names it" says "absent-tool"
rm "$MADE"
WHO=1000
check "neither root nor sudo nor doas: fails" fails deps made
check "... and prints the command" says "install -y --no-install-recommends made-tool"
cp "$work/doas" "$work/bin"
check "doas is used where it is the way to root" deps made
check "... for the package manager" called doas
checks_done
