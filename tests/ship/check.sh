#!/usr/bin/env bash
# Checks what `make static` and `make deb` built: the binaries by file, ldd and an empty chroot; the
# packages by installing, upgrading under traffic and purging; the plain copy; the start scripts under
# OpenRC; the units by systemd's judgement and by booting it, twice.
#
# usage: tests/ship/check.sh [ARCH...]     needs root; default: every architecture that is built
#
# Everything happens in mount and network namespaces of its own, on an overlay of this root.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

# shellcheck source=scripts/lib/mirror.sh
source scripts/lib/mirror.sh
openrc_debs=$cache/openrc
if [[ ${1:-} != --inside ]]; then
    ((EUID == 0)) || { echo "check: namespaces and chroot need root" >&2 && exit 1; }
    # Not installed here: it would be a second init system.
    mkdir -p "$openrc_debs" && cd "$openrc_debs" && { ls openrc_*.deb librc1_*.deb libeinfo1_*.deb >/dev/null 2>&1 ||
        apt-get -q=2 -o APT::Sandbox::User=root download openrc librc1 libeinfo1; } && cd - >/dev/null || exit
    exec unshare --mount --net --pid --fork --mount-proc "$0" --inside "$@"
fi
shift

static=${CARGO_TARGET_DIR:-$PWD/target}/static
# Both hide what is there from this mount namespace alone: nothing is left behind, however it ends.
scratch=/mnt
mount -t tmpfs kernloom "$scratch"
mkdir -p /run/netns && mount -t tmpfs kernloom /run/netns
for part in lib package plain faults boot; do
    # shellcheck source=/dev/null
    source "tests/ship/$part.sh"
done
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
    package_lifecycle
    plain_copy
    faults
    booted
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

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
    check "an empty chroot tells what its doctor lacks" has "mount -t sysfs sysfs /sys" \
        "$(chroot "$root" /kernloom shield doctor kl0 2>&1)"
    mkdir -p "$root"/{proc,sys}
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t bpf bpf "$root/sys/fs/bpf"
    check "a chroot with proc and sys attaches" has 'kl0: attached in driver mode' \
        "$(chroot "$root" /kernloom shield attach kl0 2>&1)"
    check "and detaches" chroot "$root" /kernloom shield detach kl0 --purge
    umount "$root/sys/fs/bpf" "$root/sys" "$root/proc"
    ip link del kl0
}

# systemd's own opinion, on a copy of this host's units with ours in.
units() {
    local root=$scratch/units unit score
    mkdir -p "$root"/{etc,usr/bin,usr/lib/systemd}
    cp -r /lib/systemd/system "$root/usr/lib/systemd/"
    ln -s usr/lib "$root/lib"
    cp packaging/systemd/*.service "$root/usr/lib/systemd/system/"
    install -D -m 644 packaging/systemd/sandbox.conf "$root/usr/lib/systemd/system/kernloom-.service.d/sandbox.conf"
    cp "$static/kernloom-x86_64" "$root/usr/bin/kernloom"
    for unit in kernloom-shield.service kernloom-iq@web-server.service kernloom-list@deny.service; do
        check "$unit passes systemd-analyze verify" same \
            "$(systemd-analyze verify --root="$root" --man=no "$unit" 2>&1 | grep -i kernloom)" ''
    done
    for unit in kernloom-shield.service kernloom-iq@.service kernloom-list@.service; do
        score=$(systemd-analyze security --offline=true --root="$root" --no-pager --threshold=30 "$unit" 2>&1)
        check "$unit is exposed less than 3.0 ($(sed -n 's/.*service: \([0-9.]*\) .*/\1/p' <<<"$score"))" \
            systemd-analyze security --offline=true --root="$root" --no-pager --threshold=29 "$unit"
    done
}

# What the program asks of the kernel when it attaches and runs, against what the sandbox lets it ask.
system_calls() {
    local binary=$static/kernloom-x86_64
    ip link add kl0 type veth peer name kl1
    mount -t bpf bpf /sys/fs/bpf
    strace -f -qq -o "$scratch/attach" "$binary" shield attach kl0 --features graph >/dev/null
    strace -f -qq -o "$scratch/iq" timeout 8 "$binary" --run-dir "$scratch/run" --state-dir "$scratch/state" \
        iq --profile=idp --iface kl0 --dry-run=false --graph --metrics-listen 127.0.0.1:9798 2>"$scratch/said"
    check "IQ says it enforces" has enforcing "$(<"$scratch/said")"
    check "IQ watches handshakes" lacks 'not watched' "$(<"$scratch/said")"
    "$binary" shield detach --all --purge >/dev/null
    umount /sys/fs/bpf
    ip link del kl0
    sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$scratch"/{attach,iq} | sort -u >"$scratch/asked"
    check "strace saw both ask for bpf" grep -qx bpf "$scratch/asked"
    sed -n 's/^SystemCallFilter=//p' packaging/systemd/sandbox.conf | while read -r line; do
        filter "$line"
    done | awk '$1 == "+" { on[$2] = 1 } $1 == "-" { delete on[$2] } END { for (call in on) print call }' |
        sort >"$scratch/let"
    check "the sandbox lets through all it asks" same "$(comm -23 "$scratch/asked" "$scratch/let")" ''
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

main "$@"
