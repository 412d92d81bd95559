#!/bin/sh
# Every header alone: each language, compiler, target and option. One check for each
# (header, compiler and target, language); the options are tried within it.
set -eu
cd "$(dirname "$0")/../.."

# WORD...: a source file. d includes the header, i includes it with its implementation, u takes
# the implementation macro back
source_of() {
    echo 'unsigned this_cpu(void); void fence_cpus(void);'
    for word; do
        case $word in
        i) printf '#ifndef %s_IMPLEMENTATION\n#define %s_IMPLEMENTATION\n#endif\n' "$x" "$x" ;;
        u) printf '#undef %s_IMPLEMENTATION\n' "$x" ;;
        esac
        [ "$word" = u ] || printf '#include "%s"\n' "$header"
    done
}

try() { # FLAGS WORD...
    flags=$(echo "$1" | tr ',' ' ')
    shift
    # shellcheck disable=SC2086 # lists of flags
    if ! source_of "$@" | $cc $flags -o /dev/null - >"$log" 2>&1; then
        failed=$((failed + 1))
        printf '# %s %s   of: %s\n' "$cc" "$flags" "$*"
        sed 's/^/# /' "$log" | head -n 40
    fi
}

all_options() { # FLAGS: each option by itself
    for option in -DMM_NO_LOCKS -DMM_CPU_MAX=1 "$cpus" "$cpus,$fence" -DMM_DEBUG=0 \
        -DMM_DEBUG=1 -DMM_DEBUG=2 -DMM_DEBUG=3 "-D${x}_STATIC" "-D${x}_STATIC,-DMM_DEBUG=3" -DMM_PAGE_SHIFT=14; do
        try "$1,$option" i
    done
    [ "$header" != mm_pagetable.h ] || for option in X86_64 SV32 SV39 SV57X4 EPT AARCH64_S1 WINDOWS; do
        try "$1,-DMM_PAGETABLE_$option" i # one format alone; tables through windows
    done
}

one() { # HEADER TARGET STANDARD COMPILER...
    header=$1 target=$2 std=$3
    shift 3
    x=$(basename "$header" .h | tr '[:lower:]' '[:upper:]')
    cc="$* -std=$std -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion"
    cc="$cc -Wcast-align -Wundef -Wvla -Werror -I."
    case $std in c++*) cc="$cc -x c++" ;; *) cc="$cc -x c" ;; esac
    log=$(mktemp)
    failed=0
    cpus='-DMM_CPU_MAX=8,-DMM_CPU_ID()=this_cpu()'
    fence='-DMM_FENCE_CPUS()=fence_cpus()'
    {
        for words in 'd d' 'd i' 'i i' 'i u d'; do
            # shellcheck disable=SC2086 # a list of words
            try -fsyntax-only $words
        done
        for options in "$cpus,$fence,-DMM_DEBUG=3" "-D${x}_STATIC,$cpus,-DMM_NO_LOCKS"; do
            try "-fsyntax-only,$options" i
        done
        case $std-$target in
        c11-gcc-hosted)
            all_options -c,-O2
            try -c,-O0 i
            try -c,-Os i
            [ "$header" != mm_pagetable.h ] || for format in X86_64 SV39; do
                try "-c,-O3,-DMM_PAGETABLE_$format" i # where gcc sees most, it warns most
                try "-c,-Os,-DMM_PAGETABLE_$format" i
            done
            ;;
        c11-* | c++17-*) try -c,-O2 i && all_options -fsyntax-only ;;
        esac
    } >"$log.all"
    result=ok
    [ $failed -eq 0 ] || result='not ok'
    { echo "$result - $header $target $std" && cat "$log.all"; } >"$log"
    flock "$0" cat "$log"
    rm -f "$log" "$log.all"
}

combinations() {
    kernel='-ffreestanding -fno-pic'
    x86="$kernel -mgeneral-regs-only -mno-red-zone -mcmodel=kernel"
    rv=riscv64-unknown-elf-gcc
    for header in mm_*.h; do
        [ -e "$header" ] || continue
        for std in c11 c99 c17 c2x c++11 c++14 c++17 c++20; do
            echo "$header gcc-hosted $std gcc"
            echo "$header clang-hosted $std clang"
        done
        for std in c99 c11 c2x c++11 c++20; do
            echo "$header gcc-x86_64 $std gcc $x86"
            echo "$header clang-x86_64 $std clang --target=x86_64-unknown-elf $x86"
            for target in i386 aarch64 riscv64 riscv32; do
                echo "$header clang-$target $std clang --target=$target-unknown-elf $kernel"
            done
            echo "$header gcc-riscv64 $std $rv -march=rv64imac -mabi=lp64 -mcmodel=medany $kernel"
            echo "$header gcc-riscv32 $std $rv -march=rv32imac -mabi=ilp32 $kernel"
        done
    done
}

if [ "${1:-}" = one ]; then
    shift
    one "$@"
    exit 0
fi
combinations | xargs -r -L 1 -P "$(nproc)" "$0" one
echo "1..$(combinations | wc -l)"
