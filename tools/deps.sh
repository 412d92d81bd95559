#!/bin/sh
# Installs what the named groups of deps.txt need and this machine lacks.
# Usage: tools/deps.sh GROUP...      MM_DEPS=no: never install, only say what is missing
set -eu
list=$(dirname "$0")/deps.txt
groups=" $* "

present() { # a command on PATH, or a path with globs
    case $1 in
    /*)
        for file in $1; do
            [ ! -e "$file" ] || return 0
        done
        return 1
        ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

missing() {
    found=
    while read -r group probe package; do
        case $groups in *" $group "*) ;; *) continue ;; esac
        case " $found " in *" $package "*) continue ;; esac
        present "$probe" || found="$found $package"
    done <"$list"
    echo "${found# }"
}

apt() { # retries while another process holds one of apt's locks, for ten minutes
    tries=300
    while ! $root env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=600 "$@" >"$log" 2>&1; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || ! grep -q 'Could not get lock\|Unable to lock' "$log"; then
            cat "$log" >&2
            return 1
        fi
        echo "deps: waiting for the package manager's lock" >&2
        sleep 2
    done
}

need=$(missing)
[ -n "$need" ] || exit 0
command="apt-get install -y --no-install-recommends $need"

refuse() {
    echo "deps: $1; as root, run: apt-get update && $command" >&2
    exit 1
}

[ "${MM_DEPS:-yes}" != no ] || refuse "missing: $need"
command -v apt-get >/dev/null || refuse "no apt-get here, missing: $need"
if [ "$(id -u)" -eq 0 ]; then
    root=
elif command -v sudo >/dev/null; then
    root=sudo
elif command -v doas >/dev/null; then
    root=doas
else
    refuse "not root and neither sudo nor doas is here, missing: $need"
fi

echo "deps: installing $need" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt update || echo "deps: apt-get update failed, trying the lists at hand" >&2
# shellcheck disable=SC2086 # a list of packages
apt install -y --no-install-recommends $need || refuse "installation failed"
need=$(missing)
[ -z "$need" ] || refuse "still missing after the installation: $need"
