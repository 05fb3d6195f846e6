#!/usr/bin/env bash
# Installs what is missing to build kernloom (`build`) and to run its lab (`lab`). Debian and Ubuntu.
#
# usage: scripts/deps.sh [build] [lab]        both when none is named
#
# Looks for the programs and headers themselves and does nothing when all are there. Otherwise it
# runs apt-get once, through sudo when not root. No service is started, and nginx, which the lab
# runs in a namespace with a configuration of its own, is not enabled at boot.
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
    iperf3=iperf3 tcpdump=tcpdump nft=nftables ethtool=ethtool chromium=chromium
)

main() {
    local groups=("$@") group need needs=() missing=()
    (($#)) || groups=(build lab)
    for group in "${groups[@]}"; do
        case $group in
            build) needs+=("${build_needs[@]}") ;;
            lab) needs+=("${lab_needs[@]}") ;;
            *) fail "unknown group '$group': say build or lab" ;;
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
# one already. The nginx package also enables itself at boot: undone, for an nginx that is new.
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
    if [[ " $* " == *" nginx-light "* ]] && command -v systemctl >/dev/null; then
        systemctl disable nginx.service
    fi
'

fail() {
    echo "deps: $*" >&2
    exit 1
}

main "$@"
