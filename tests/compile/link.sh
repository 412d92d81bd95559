#!/bin/sh
# All headers together in any order, and in programs of several translation units.
set -eu
cd "$(dirname "$0")/../.."
. tests/tap.sh
headers=$(ls mm_*.h 2>/dev/null) || { checks_done; exit 0; }
work=build/test/link
mkdir -p $work
warnings="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef -Werror -I."

upper() { basename "$1" .h | tr '[:lower:]' '[:upper:]'; }

# every order of three headers or fewer, every rotation of more
orders() {
    # shellcheck disable=SC2086 # a list of names
    printf '%s\n' $headers | awk '
        function permute(head, rest, n, parts, i, j, left) {
            n = split(rest, parts, " ")
            if (!n) print head
            for (i = 1; i <= n; i++) {
                left = ""
                for (j = 1; j <= n; j++) if (j != i) left = left " " parts[j]
                permute(head " " parts[i], left)
            }
        }
        { name[NR] = $0; all = all " " $0 }
        END {
            if (NR <= 3) { permute("", all); exit }
            for (i = 0; i < NR; i++) {
                for (j = 0; j < NR; j++) printf " %s", name[(i + j) % NR + 1]
                print ""
            }
        }'
}

implementation() { # HEADER...: a unit with their implementations
    for h; do printf '#define %s_IMPLEMENTATION\n' "$(upper "$h")"; done
    for h; do printf '#include "%s"\n' "$h"; done
}

static() { for h in $headers; do printf '#define %s_STATIC\n' "$(upper "$h")"; done; }

user() { # NAME HEADER...: a unit whose function NAME uses the address of every public function
    use=$1
    shift
    for h; do printf '#include "%s"\n' "$h"; done
    echo '#ifdef __cplusplus'
    echo 'extern "C"'
    echo '#endif'
    echo "uintptr_t $use(unsigned i);"
    echo "uintptr_t $use(unsigned i) { volatile uintptr_t f[] = {"
    for h; do
        tests/compile/functions "$h" | awk '$2 != "static" { print "(uintptr_t)&" $3 "," }'
    done
    echo '0}; return f[i % (sizeof f / sizeof f[0])]; }'
}

# two users that must see the same functions
{
    echo '#include <stdint.h>'
    echo '#ifdef __cplusplus'
    echo 'extern "C" {'
    echo '#endif'
    echo 'uintptr_t use_a(unsigned i); uintptr_t use_b(unsigned i);'
    echo '#ifdef __cplusplus'
    echo '}'
    echo '#endif'
    echo 'int main(void) { for (unsigned i = 0; i < 1000; i++) if (use_a(i) != use_b(i)) return 1;'
    echo 'return 0; }'
} >$work/main.c

program() { # IMPLEMENTATION-COMPILER USER-COMPILER [UNIT...]
    one=$1 two=$2
    shift 2
    rm -f $work/*.o
    for unit; do
        compiler=$two
        [ "$unit" != impl ] || compiler=$one
        # shellcheck disable=SC2086 # lists of flags
        $compiler $warnings -c -o $work/"$unit".o $work/"$unit".c || return 1
    done
    g++ -o $work/program $work/*.o && $work/program
}

together() { # HEADER...
    {
        implementation "$@"
        for h; do printf '#include "%s"\n' "$h"; done
    } >$work/order.c
    # shellcheck disable=SC2086 # a list of flags
    gcc $warnings -std=c99 -fsyntax-only $work/order.c &&
        clang $warnings -std=c++17 -x c++ -fsyntax-only $work/order.c
}

orders >$work/orders
while read -r order; do
    # shellcheck disable=SC2086 # a list of names
    check "together: $order" together $order
done <$work/orders

c='-std=c11'
cxx='-std=c++17 -x c++'
units='impl a b main'
for header in $headers; do
    implementation "$header" >$work/impl.c
    user use_a "$header" >$work/a.c
    user use_b "$header" >$work/b.c
    # shellcheck disable=SC2086 # a list of names
    check "three units: $header, gcc -O0" program "gcc -O0 -std=c99" "gcc -O0 -std=c99" $units
done
# shellcheck disable=SC2086 # lists of names
{
    implementation $headers >$work/impl.c
    user use_a $headers >$work/a.c
    user use_b $headers >$work/b.c
    check "three units: all, gcc -O2" program "gcc -O2 $c" "gcc -O2 $c" $units
    check "three units: all, clang -O0" program "clang -O0 $c" "clang -O0 $c" $units
    check "three units: all, g++" program "g++ -O1 $cxx" "g++ -O1 $cxx" $units
    check "implementation in C, users in C++" program "gcc -O0 $c" "clang++ -O0 $cxx" $units
    check "implementation in C++, users in C" program "g++ -O0 $cxx" "clang -O0 $c" $units
    { static && implementation $headers && user use_a; } >$work/a.c
    { static && implementation $headers && user use_b; } >$work/b.c
    check "two static implementations" program "" "gcc -O2 $c" a b main
}

# its public functions can be linked to; beside them only mmi_ ones, which inline functions call
exported() { # HEADER
    tests/compile/functions "$1" | awk '$2 != "static" { print $3 }' | sort >$work/declared
    nm $work/impl.o | awk '$2 == "T" && $3 !~ /^mmi_/ { print $3 }' | sort >$work/defined
    diff -U0 $work/declared $work/defined
}

stateless() { # no variable, neither global nor static
    ! nm $work/impl.o | grep ' [BbCDdGgSs] '
}

for header in $headers; do
    implementation "$header" >$work/impl.c
    gcc -w -O0 -I. -c -o $work/impl.o $work/impl.c
    check "$header: exports its public functions" exported "$header"
    check "$header: has no variables" stateless
done
checks_done
