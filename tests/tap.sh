# shellcheck shell=sh
# TAP for script checks: source it from a script in tests/*/, call `check NAME COMMAND...` for
# each check (its output is shown when it fails), and `checks_done` at the end.
checks=0

check() {
    name=$1
    shift
    checks=$((checks + 1))
    if details=$("$@" 2>&1); then
        echo "ok $checks - $name"
    else
        echo "not ok $checks - $name"
        printf '%s\n' "$details" | head -n 40 | sed 's/^/# /'
    fi
}

checks_done() {
    if [ "$checks" -eq 0 ]; then
        echo "1..0 # SKIP nothing to check"
    else
        echo "1..$checks"
    fi
}
