#!/usr/bin/env bash
# Installs what is missing: to build kernloom (`build`), to run its lab (`lab`), to build the static
# release binaries (`static`), to boot them on other kernels (`matrix`), to check their packages (`ship`).
# Debian and Ubuntu; `static` and `matrix` Debian 12 alone.
#
# usage: scripts/deps.sh [GROUP...]        build and lab when none is named
#
# Looks for the programs and headers themselves and does nothing when all are there. Otherwise it
# runs apt-get once, through sudo when not root. No service is started, and nginx, which the lab
# runs in a namespace with a configuration of its own, and prometheus, of which the lab needs
# promtool alone, are not enabled at boot.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# What must exist, and the package that brings it. A word with a slash is a file.
build_needs=(
    clang=clang gcc=gcc make=make pkg-config=pkg-config
    /usr/include/libelf.h=libelf-dev /usr/include/zlib.h=zlib1g-dev
    /usr/include/stdio.h=libc6-dev /usr/include/linux/bpf.h=linux-libc-dev
)
lab_needs=(
    ip=iproute2 ping=iputils-ping nmap=nmap nping=nmap hping3=hping3 nginx=nginx-light curl=curl
    iperf3=iperf3 tcpdump=tcpdump nft=nftables ethtool=ethtool
    tmux=tmux promtool=prometheus chromium=chromium
)
static_needs=(
    "${build_needs[@]}"
    /usr/lib/rustlib/src/rust/library/std=rust-web-src /usr/bin/rustc=rustc-web /usr/bin/cargo=cargo-web
    musl-gcc=musl-tools aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu arm-linux-gnueabihf-gcc=gcc-arm-linux-gnueabihf
    /usr/aarch64-linux-gnu/include/asm=libc6-dev-arm64-cross /usr/arm-linux-gnueabihf/include/asm=libc6-dev-armhf-cross
    autoconf=autoconf automake=automake autopoint=autopoint flex=flex bison=bison gawk=gawk
    git=git file=file
)
matrix_needs=(
    qemu-system-x86_64=qemu-system-x86 qemu-system-aarch64=qemu-system-arm
    cpio=cpio modinfo=kmod xz=xz-utils zstd=zstd ip=iproute2
)
ship_needs=(
    dpkg-deb=dpkg file=file readelf=binutils ldd=libc-bin systemd-analyze=systemd
    ip=iproute2 ping=iputils-ping unshare=util-linux strace=strace
    /usr/share/bash-completion/bash_completion=bash-completion
)

main() {
    local groups=("$@") group need needs=() missing=()
    (($#)) || groups=(build lab)
    for group in "${groups[@]}"; do
        case $group in
            build) needs+=("${build_needs[@]}") ;;
            lab) needs+=("${lab_needs[@]}") ;;
            static) needs+=("${static_needs[@]}") ;;
            matrix) needs+=("${matrix_needs[@]}") ;;
            ship) needs+=("${ship_needs[@]}") ;;
            *) fail "unknown group '$group': say build, lab, static, matrix or ship" ;;
        esac
    done
    for need in "${needs[@]}"; do
        present "${need%%=*}" || missing+=("${need#*=}")
    done
    ((${#missing[@]} == 0)) || install "${missing[@]}"
    command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
}

present() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

install() {
    echo "deps: missing $*" >&2
    command -v apt-get >/dev/null || fail "no apt-get here: install these packages by hand"
    local root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "installing needs root, and there is no sudo"
        echo "deps: installing through sudo" >&2
        root=(sudo)
    fi
    # In one shell of root, so that the policy is removed whatever happens.
    "${root[@]}" bash -euo pipefail -c "$as_root" deps "$@"
}

# A policy that forbids starting services holds while packages are set up, unless the machine has
# one already. Some packages also enable themselves at boot: undone, for those that are new.
as_root='
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap "rm -f $policy" EXIT
        printf "#!/bin/sh\nexit 101\n" >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
    command -v systemctl >/dev/null || exit 0
    [[ " $* " != *" nginx-light "* ]] || systemctl disable nginx.service
    [[ " $* " != *" prometheus "* ]] || systemctl disable prometheus.service
'

fail() {
    echo "deps: $*" >&2
    exit 1
}

main "$@"
