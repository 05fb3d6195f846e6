#!/usr/bin/env bash
# Checks what `make static` and `make deb` built: the binaries by file, ldd and an empty chroot; the
# packages by installing, upgrading under traffic and purging; the units by systemd's own judgement.
#
# usage: tests/ship/check.sh [ARCH...]     needs root; default: every architecture that is built
#
# Everything happens in mount and network namespaces of its own, on an overlay of this root.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

if [[ ${1:-} != --inside ]]; then
    ((EUID == 0)) || { echo "check: namespaces and chroot need root" >&2 && exit 1; }
    exec unshare --mount --net --pid --fork --mount-proc "$0" --inside "$@"
fi
shift

static=${CARGO_TARGET_DIR:-$PWD/target}/static
# Both hide what is there from this mount namespace alone: nothing is left behind, however it ends.
scratch=/mnt
mount -t tmpfs kernloom "$scratch"
mkdir -p /run/netns && mount -t tmpfs kernloom /run/netns
passed=0 failed=0
declare -A debian=([x86_64]=amd64 [aarch64]=arm64 [armv7]=armhf)
declare -A machine=([x86_64]=x86-64 [aarch64]='ARM aarch64' [armv7]='ARM, EABI5')

main() {
    local arches=("$@") arch file
    if ((${#arches[@]} == 0)); then
        for file in "$static"/kernloom-*; do
            arches+=("${file##*-}")
        done
    fi
    for arch in "${arches[@]}"; do
        binary "$arch" "$static/kernloom-$arch"
        package "$arch" "$static"/kernloom_*_"${debian[$arch]}".deb
    done
    empty_chroot "$static/kernloom-x86_64"
    units
    system_calls
    lifecycle
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

# check NAME COMMAND...: one line per check; its output when it fails.
check() {
    local name=$1 told
    shift
    if told=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        sed 's/^/     /' <<<"$told"
    fi
}

lacks() { ! grep -qE "$1" <<<"$2"; }
has() { grep -qE -- "$1" <<<"$2" || { echo "no '$1' in: $2" && return 1; }; }
same() { [[ $1 == "$2" ]] || { echo "'$1' is not '$2'" && return 1; }; }

binary() {
    local arch=$1 path=$2
    check "$arch is at most 6 MiB" test "$(stat -c %s "$path")" -le $((6 * 1024 * 1024))
    check "$arch is static, for its CPU" has "ELF .*${machine[$arch]}.*statically linked" "$(file "$path")"
    check "$arch has no interpreter" lacks 'INTERP|NEEDED' "$(readelf -lWd "$path")"
    check "$arch is no dynamic executable to ldd" has 'not a dynamic executable|statically linked' "$(ldd "$path" 2>&1)"
    check "$arch looks up no host, user or group" lacks \
        '/etc/(hosts|resolv.conf|nsswitch.conf|passwd|group|services)' "$(strings -a "$path")"
}

package() {
    local arch=$1 deb=${!#}
    check "$arch package is for ${debian[$arch]}" same "$(dpkg-deb -f "$deb" Architecture)" "${debian[$arch]}"
    check "$arch package depends on nothing" same "$(dpkg-deb -f "$deb" Depends Pre-Depends)" ''
    check "$arch package holds the built binary" same \
        "$(dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/kernloom | sha256sum)" "$(sha256sum <"$static/kernloom-$arch")"
}

empty_chroot() {
    local root=$scratch/empty
    mkdir "$root" && cp "$1" "$root/kernloom"
    check "an empty chroot runs --version" has '^libbpf [0-9]' "$(chroot "$root" /kernloom --version)"
    check "--version names a commit" has '^commit [0-9a-f]{12}$' "$(chroot "$root" /kernloom --version)"
    check "--version names the BPF object" has '^bpf shield sha256:[0-9a-f]{64}$' "$(chroot "$root" /kernloom --version)"
    check "an empty chroot tells an operator's mistake" has "did you mean 'idp'" \
        "$(chroot "$root" /kernloom iq --profile=ipd 2>&1)"
    ip link add kl0 type veth peer name kl1
    mkdir -p "$root"/{proc,dev,sys} && touch "$root/dev/urandom"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t bpf bpf "$root/sys/fs/bpf"
    mount --bind /dev/urandom "$root/dev/urandom"
    check "a chroot with proc, sys and urandom attaches" has 'kl0: attached in driver mode' \
        "$(chroot "$root" /kernloom shield attach kl0 2>&1)"
    check "and detaches" chroot "$root" /kernloom shield detach kl0 --purge
    umount "$root/dev/urandom" "$root/sys/fs/bpf" "$root/sys" "$root/proc"
    ip link del kl0
}

# systemd's own opinion, on a copy of this host's units with ours in.
units() {
    local root=$scratch/units unit score
    mkdir -p "$root"/{etc,usr/bin,usr/lib/systemd}
    cp -r /lib/systemd/system "$root/usr/lib/systemd/"
    ln -s usr/lib "$root/lib"
    cp packaging/systemd/*.service "$root/usr/lib/systemd/system/"
    cp "$static/kernloom-x86_64" "$root/usr/bin/kernloom"
    for unit in kernloom-shield.service kernloom-iq@web-server.service; do
        check "$unit passes systemd-analyze verify" same \
            "$(systemd-analyze verify --root="$root" --man=no "$unit" 2>&1 | grep -i kernloom)" ''
    done
    for unit in kernloom-shield.service kernloom-iq@.service; do
        score=$(systemd-analyze security --offline=true --root="$root" --no-pager --threshold=30 "$unit" 2>&1)
        check "$unit is exposed less than 3.0 ($(sed -n 's/.*service: \([0-9.]*\) .*/\1/p' <<<"$score"))" \
            systemd-analyze security --offline=true --root="$root" --no-pager --threshold=29 "$unit"
    done
}

# What the program asks of the kernel when it attaches and runs, against what the units let it ask.
system_calls() {
    local binary=$static/kernloom-x86_64 unit
    ip link add kl0 type veth peer name kl1
    mount -t bpf bpf /sys/fs/bpf
    strace -f -qq -o "$scratch/attach" "$binary" shield attach kl0 >/dev/null
    strace -f -qq -o "$scratch/iq" timeout 3 "$binary" --run-dir "$scratch/run" iq --profile=idp --iface kl0 2>/dev/null
    "$binary" shield detach --all --purge >/dev/null
    umount /sys/fs/bpf
    ip link del kl0
    sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$scratch"/{attach,iq} | sort -u >"$scratch/asked"
    check "strace saw both ask for bpf" grep -qx bpf "$scratch/asked"
    for unit in packaging/systemd/*.service; do
        sed -n 's/^SystemCallFilter=//p' "$unit" | while read -r line; do
            filter "$line"
        done | awk '$1 == "+" { on[$2] = 1 } $1 == "-" { delete on[$2] } END { for (call in on) print call }' |
            sort >"$scratch/let"
        check "${unit##*/} lets through all it asks" same "$(comm -23 "$scratch/asked" "$scratch/let")" ''
    done
}

# One line of a filter as '+ CALL' or '- CALL', in systemd's meaning.
filter() {
    local word sign=+
    [[ $1 != '~'* ]] || sign=-
    for word in ${1#'~'}; do
        case $word in
            @*) systemd-analyze syscall-filter "$word" | sed -n 's/^    \([@a-z]\)/\1/p' | while read -r word; do
                filter "$word" | sed "s/^+/$sign/"
            done ;;
            *) echo "$sign $word" ;;
        esac
    done
}

# Install, upgrade under traffic, remove, purge: on an overlay of this host, with traffic on a veth.
lifecycle() {
    local root=$scratch/root first second deb
    packaging/deb.sh --version 0.0.1 x86_64 >/dev/null && packaging/deb.sh --version 0.0.2 x86_64 >/dev/null
    first=$static/kernloom_0.0.1_amd64.deb second=$static/kernloom_0.0.2_amd64.deb
    mkdir -p "$scratch"/{upper,work} "$root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
    mount -t proc proc "$root/proc" && mount -t sysfs sysfs "$root/sys" && mount -t bpf bpf "$root/sys/fs/bpf"
    mount -t tmpfs tmpfs "$root/run" && mount --bind /dev "$root/dev"
    mkdir -p "$root/debs" && cp "$first" "$second" "$root/debs/"
    traffic_up
    inside() { chroot "$root" "$@"; }

    check "the package installs" inside dpkg -i /debs/kernloom_0.0.1_amd64.deb
    check "its man page is there" inside test -s /usr/share/man/man1/kernloom-shield.1.gz
    check "bash completes its commands" inside bash -c \
        '. /usr/share/bash-completion/completions/kernloom && complete -p kernloom'
    check "its directories are root's alone" same "$(inside stat -c %a%U /var/lib/kernloom)" 700root
    check "it attaches" inside kernloom shield attach kl0
    check "it denies" inside kernloom shield deny add 198.18.0.9
    local before
    before=$(link)
    ip netns exec peer ping -q -i 0.01 -c 400 198.18.0.1 >"$scratch/ping" 2>&1 &
    local ping=$!
    check "it upgrades under traffic" inside dpkg -i /debs/kernloom_0.0.2_amd64.deb
    wait "$ping"
    check "no packet was lost meanwhile" has '400 packets transmitted, 400 received' "$(<"$scratch/ping")"
    check "the data plane stayed attached" same "$(link)" "$before"
    check "its policy stayed" has 198.18.0.9 "$(inside kernloom shield deny list)"
    echo KERNLOOM_IFACE=kl0 >>"$root/etc/default/kernloom"
    check "it is removed" inside dpkg -r kernloom
    check "nothing is attached then" lacks 'xdp' "$(ip link show kl0)"
    check "nothing is pinned then" test ! -e "$root/sys/fs/bpf/kernloom"
    check "settings outlive a removal" grep -q KERNLOOM_IFACE=kl0 "$root/etc/default/kernloom"
    check "it is purged" inside dpkg -P kernloom
    # What an overlay hides is a device of its own kind; only what is there counts.
    check "nothing is left then" same "$(find "$scratch/upper" -path "$scratch/upper/debs" -prune -o \
        -iname '*kernloom*' ! -type c -print)" ''
    for deb in "$first" "$second"; do rm "$deb"; done
    ip netns del peer
}

# A peer in a network namespace of its own, reached over kl0.
traffic_up() {
    ip netns add peer
    ip link add kl0 type veth peer name kl1 netns peer
    ip addr add 198.18.0.1/24 dev kl0 && ip link set kl0 up
    ip -n peer addr add 198.18.0.2/24 dev kl1 && ip -n peer link set kl1 up
}

link() { ip -o link show kl0 | grep -o 'prog/xdp id [0-9]*'; }

main "$@"
