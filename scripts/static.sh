#!/usr/bin/env bash
# Builds the static release binaries, by default for every architecture, from one Debian 12 machine:
# target/static/kernloom-{x86_64,aarch64,armv7}.
#
# usage: scripts/static.sh [--fetch | --guest] [x86_64] [aarch64] [armv7]
#
# --fetch only downloads what the build takes from elsewhere. --guest also builds what `make matrix`
# runs inside its guests: the guest's init and the packet tests. CARGO_TARGET_DIR moves everything.
#
# musl, because a static glibc loads the target's NSS modules, of another glibc, and crashes. No musl
# std is packaged, so std is built from the compiler's source; libelf and zlib come with libbpf-sys.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
# shellcheck source=scripts/lib/mirror.sh
source scripts/lib/mirror.sh

target=${CARGO_TARGET_DIR:-$root/target}
out=$target/static
tools=$cache/musl

main() {
    local fetch='' guest='' arch arches=()
    for arch in "$@"; do
        case $arch in
            --fetch) fetch=yes ;;
            --guest) guest=yes ;;
            x86_64 | aarch64 | armv7) arches+=("$arch") ;;
            *)
                echo "static: unknown architecture '$arch': say x86_64, aarch64 or armv7" >&2
                exit 2
                ;;
        esac
    done
    ((${#arches[@]})) || arches=(x86_64 aarch64 armv7)
    toolchain "${arches[@]}"
    if [[ -n $fetch ]]; then
        fetch
        return
    fi
    mkdir -p "$out"
    for arch in "${arches[@]}"; do
        build "$arch" "$guest"
    done
}

# What Debian's cross compilers lack for musl: its headers and archives for each CPU, an unwinder that
# wants no glibc, and a compiler by triple that knows where both are.
toolchain() {
    local arch packages=() spec debs=()
    declare -A deb=([x86_64]=amd64 [aarch64]=arm64 [armv7]=armhf)
    for arch in "$@"; do
        debs+=("${deb[$arch]}")
        packages+=("libunwind-14-dev:${deb[$arch]}")
        [[ $arch == x86_64 ]] || packages+=("musl-dev:${deb[$arch]}")
    done
    mirror_use "static-$(IFS=- && echo "${debs[*]}")" "$(IFS=, && echo "${debs[*]}")" \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")"
    mkdir -p "$tools/bin"
    for spec in "${packages[@]}"; do
        spec="$spec=$(mirror_newest "$spec")"
        mirror_fetch "$spec"
        [[ -e $tools/$spec ]] || {
            dpkg -x "$(mirror_deb "$spec")" "$tools/${spec%%:*}-$(deb_arch "$spec")"
            touch "$tools/$spec"
        }
    done
    for arch in "$@"; do
        case $arch in
            x86_64) compiler x86_64-unknown-linux-musl amd64 musl-gcc ;;
            aarch64) compiler aarch64-unknown-linux-musl arm64 "aarch64-linux-gnu-gcc -specs=$(specs arm64 aarch64-linux-musl aarch64)" ;;
            armv7) compiler armv7-unknown-linux-musleabihf armhf "arm-linux-gnueabihf-gcc -specs=$(specs armhf arm-linux-musleabihf armhf)" ;;
        esac
    done
}

deb_arch() {
    local arch=${1#*:}
    echo "${arch%%=*}"
}

# musl-tools' specs file, moved to another CPU.
specs() {
    local dir=$tools/musl-dev-$1/usr
    sed -e "s#/usr/include/x86_64-linux-musl#$dir/include/$2#g" -e "s#/usr/lib/x86_64-linux-musl#$dir/lib/$2#g" \
        -e "s#ld-musl-x86_64#ld-musl-$3#" /usr/lib/x86_64-linux-musl/musl-gcc.specs >"$tools/$1.specs"
    echo "$tools/$1.specs"
}

compiler() {
    local triple=$1 arch=$2 unwind=$tools/unwind-$2 cc=$tools/bin/$1-cc
    # The search path is the wrapper's, not rustc's: a flag would differ from home to home.
    printf '#!/bin/sh\nexec %s "$@" -L%s\n' "$3" "$unwind" >"$cc.new"
    chmod +x "$cc.new"
    mv "$cc.new" "$cc"
    [[ ! -e $unwind/libunwind.a ]] || return 0
    mkdir -p "$unwind"
    # std asks for -lunwind. Debian's LLVM one calls a single function that only glibc has.
    cat >"$unwind/fortify.c" <<'C'
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
	va_list args;
	(void)flag;
	va_start(args, format);
	int printed = vfprintf(file, format, args);
	va_end(args);
	return printed;
}
C
    "$cc" -O2 -c "$unwind/fortify.c" -o "$unwind/fortify.o"
    cp "$tools/libunwind-14-dev-$arch/usr/lib/llvm-14/lib/libunwind.a" "$unwind/new.a"
    ar rD "$unwind/new.a" "$unwind/fortify.o"
    mv "$unwind/new.a" "$unwind/libunwind.a"
}

# The crates, and those of the standard library.
fetch() {
    RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc /usr/bin/cargo fetch -q --locked -Z build-std=std,panic_abort,test
}

build() {
    local arch=$1 guest=$2 triple asm extra='' lower upper
    case $arch in
        x86_64) triple=x86_64-unknown-linux-musl asm=/usr/include/x86_64-linux-gnu ;;
        # Outline atomics live in libgcc, which is not linked.
        aarch64) triple=aarch64-unknown-linux-musl asm=/usr/aarch64-linux-gnu/include extra=-mno-outline-atomics ;;
        armv7) triple=armv7-unknown-linux-musleabihf asm=/usr/arm-linux-gnueabihf/include ;;
    esac
    lower=${triple//-/_}
    upper=${lower^^}
    local cc=$tools/bin/$triple-cc home=${CARGO_HOME:-$HOME/.cargo} build=$out/build
    # A panic aborts and symbols are stripped: tables for unwinding would only be carried around.
    extra+=' -fno-asynchronous-unwind-tables'
    local maps="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$build=/build -ffile-prefix-map=$root=."
    # For small flash: a third off SQLite and the rest, and a tick is still far below a second.
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=s
    # The nightly switches (build-std) of the distribution's stable compiler.
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_DIR=$build
    # elfutils: musl has none of the three, and libelf calls none of them.
    export ac_cv_search_argp_parse="none required" ac_cv_search_fts_close="none required" \
        ac_cv_search__obstack_free="none required"
    export "CC_$lower=$cc" "CARGO_TARGET_${upper}_LINKER=$cc" \
        "CFLAGS_$lower=-I$root/scripts/musl $extra $maps -idirafter $asm -idirafter /usr/include" \
        "CARGO_TARGET_${upper}_RUSTFLAGS=-C link-self-contained=no -C target-feature=+crt-static \
-C relocation-model=static -C force-unwind-tables=no --remap-path-prefix=$build=/build --remap-path-prefix=$home=/cargo --remap-path-prefix=$root=."
    local cargo=(/usr/bin/cargo)
    local flags=(--release --locked --features vendored --target "$triple" -Z build-std=std,panic_abort,test)
    "${cargo[@]}" build "${flags[@]}" --bin kernloom
    install -m 755 "$build/$triple/release/kernloom" "$out/kernloom-$arch"
    echo "static: $out/kernloom-$arch, $(stat -c %s "$out/kernloom-$arch") bytes"
    [[ -n $guest ]] || return 0
    "${cargo[@]}" build "${flags[@]}" --example guest
    install -m 755 "$build/$triple/release/examples/guest" "$out/guest-$arch"
    # Each test in a process of its own: with panic=abort and `test` among the standard crates, as the
    # binary has them, nothing is built twice.
    local tests
    tests=$("${cargo[@]}" test "${flags[@]}" -Z panic-abort-tests --test tests --no-run --message-format=json |
        sed -n 's/.*"name":"tests".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    install -m 755 "$tests" "$out/tests-$arch"
}

main "$@"
