#!/usr/bin/env bash
# Boots real kernels under qemu's software emulation, runs the static binary in each on each card of
# scripts/matrix/cells, and writes the outcome to KERNELS.md.
#
# usage: scripts/matrix.sh [--smoke | --only REGEX] [--fetch] [--keep] [--resume] [--at-once N]
#
# --smoke   only the cells marked so; --only: only lines of the file that match; both leave KERNELS.md
#           as it is
# --fetch   only download what they take from elsewhere
# --keep    do not build first
# --resume  a cell that was fine with the same binaries and the same kernel is not booted again
# --at-once guests that run at the same time, 4 if not given: some of them always wait for something
#
# Succeeds only if every cell keeps what it promises; exit code 3 is a package that cannot be had.
# Guests are niced and have one emulated CPU. Kernels are the newest of their series in the index of
# this machine's own mirror; they are cached outside the tree. Consoles are kept in target/matrix/.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/mirror.sh
source scripts/lib/mirror.sh
# shellcheck source=scripts/matrix/kernels.sh
source scripts/matrix/kernels.sh

target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/matrix
fine=$target/matrix-fine
limit=600 # seconds a guest gets, on a busy machine; the slowest, 32-bit ARM, needs about 60
declare -A machine=([amd64]=x86_64 [arm64]=aarch64 [armhf]=armv7)

main() {
    local only='' fetch='' keep='' full=yes resume='' most=4
    while (($#)); do
        case $1 in
            --smoke) only='smoke' full='' ;;
            --only) only=${2?--only needs a pattern} full='' && shift ;;
            --fetch) fetch=yes ;;
            --keep) keep=yes ;;
            --resume) resume=yes ;;
            --at-once) most=${2?--at-once needs a number} && shift ;;
            *) echo "matrix: unknown option '$1'" >&2 && exit 2 ;;
        esac
        shift
    done
    local cells=() cell
    mapfile -t cells < <(grep -vE '^(#|$)' scripts/matrix/cells | grep -E -- "$only")
    ((${#cells[@]})) || { echo "matrix: no cell matches" >&2 && exit 2; }
    qemu_pc=(qemu-system-x86_64)
    ! grep -q ' igb ' <<<"${cells[*]}" || qemu_with_igb
    kernels_index
    if [[ -n $fetch ]]; then
        for cell in "${cells[@]}"; do
            # shellcheck disable=SC2086 # a cell is words
            kernel_find $cell
        done
        return
    fi
    [[ -n $resume ]] || rm -rf "$fine"
    rm -rf "$work" && mkdir -p "$work" "$fine"
    [[ -n $keep ]] || scripts/static.sh --guest
    local arch
    for arch in $(printf '%s\n' "${cells[@]}" | awk '{ print $2 }' | sort -u); do
        payload "${machine[$arch]}"
    done
    local number=0
    for cell in "${cells[@]}"; do
        number=$((number + 1))
        prepare "$number" "$cell"
    done
    # The newest kernels take longest: begun last, one would run alone at the end.
    local running=0 order=()
    mapfile -t order < <(printf '%s\n' "${cells[@]}" | awk '{ print !/^(newest|second|6\.18) /, NR }' | sort -n | cut -d' ' -f2)
    for number in "${order[@]}"; do
        ((running < most)) || { wait -n || true; running=$((running - 1)); }
        guest "$number" &
        running=$((running + 1))
    done
    wait
    scripts/matrix/table.sh "$work" "$SECONDS" >"$work/table.md" && local outcome=0 || local outcome=1
    [[ -z $full ]] || cp "$work/table.md" KERNELS.md
    sed -n '/FAIL/p' "$work/table.md"
    echo "matrix: ${#cells[@]} guests; $work/table.md"
    return "$outcome"
}

# The part of the initramfs that all guests of an architecture share.
payload() {
    local root=$work/root-$1 file
    mkdir -p "$root"/{dev,proc,sys,tmp,run,modules}
    for file in kernloom tests guest; do
        cp "$target/static/$file-$1" "$root/$file"
    done
    (cd "$root" && sha256sum kernloom tests guest) >"$work/$1.sums"
    mv "$root/guest" "$root/init"
    pack "$root" "$work/$1.cpio"
}

pack() {
    (cd "$1" && find . -print0 | cpio --quiet -0 -o -H newc) >"$2"
}

# Debian 12's qemu has no igb; the one of its backports is unpacked beside it, never installed.
qemu_with_igb() {
    if ! qemu-system-x86_64 -device help | grep -q '"igb"'; then
        local tree=$cache/qemu spec specs=() name
        mirror_use qemu amd64 bookworm-backports
        for name in qemu-system-{x86,common,data}; do
            spec=$name=$(mirror_newest "$name")
            specs+=("$spec")
        done
        if [[ ! -e $tree/done || $(<"$tree/done") != "${specs[*]}" ]]; then
            mirror_fetch "${specs[@]}"
            rm -rf "$tree" && mkdir -p "$tree"
            for spec in "${specs[@]}"; do
                dpkg -x "$(mirror_deb "$spec")" "$tree"
            done
            echo "${specs[*]}" >"$tree/done"
        fi
        qemu_pc=("$tree/usr/bin/qemu-system-x86_64" -L "$tree/usr/share/qemu" -L /usr/share/seabios)
    fi
}

# Finds the kernel and writes what the guest is: $work/N.{cell,cpio,qemu}.
prepare() {
    local number=$1 series arch flavour card auto option root
    read -r series arch flavour card auto options <<<"$2"
    kernel_find "$series" "$arch" "$flavour"
    (cd "$kernel" && sha256sum --quiet -c SHA256SUMS)
    echo "$series $arch $flavour $card $auto $options" >"$work/$number.cell"
    cat "$work/${machine[$arch]}.sums" "$work/$number.cell" "$kernel/SHA256SUMS" | sha256sum >"$work/$number.key"
    [[ ! -e $fine/$(cut -d' ' -f1 "$work/$number.key").log ]] || return 0
    root=$work/root-$number
    mkdir -p "$root/modules"
    local modules=(veth cls_bpf sch_ingress) append='panic=-1 loglevel=4' set='' board=virt
    local devices=() inside=()
    if [[ $card != veth ]]; then
        modules+=(virtio_pci virtio_net)
        [[ $card == virtio-net ]] || modules+=("${card/rtl8139/8139cp}")
        append+=' kl.card=machine'
    fi
    local smp=1 more=''
    for option in $options; do
        case $option in
            smoke) ;;
            raspi3b) board=raspi3b modules+=(bcm2835_wdt) ;;
            cpus) smp=4 append+=' maxcpus=2' set+=",cpus" ;;
            mtu=*) append+=" kl.mtu=${option#mtu=}" more+=",host_mtu=${option#mtu=}" ;;
            nooffload) append+=' kl.cable=none' ;;
            *) set+=",$option" ;;
        esac
    done
    append+=" kl.auto=$auto kl.set=${set#,}"
    local top
    for top in "${modules[@]}"; do
        [[ ! -e $kernel/modules/$top.order ]] || cat "$kernel/modules/$top.order"
    done | awk '!seen[$0]++' >"$root/modules/order"
    while read -r top; do
        cp "$kernel/modules/$top" "$root/modules/"
    done <"$root/modules/order"
    pack "$root" "$work/$number.own"
    cat "$work/${machine[$arch]}.cpio" "$work/$number.own" >"$work/$number.cpio"
    rm -r "$root" "$work/$number.own"
    [[ $card == veth ]] || cards "$card" "$more"
    [[ $options != *nooffload* ]] || tap
    local qemu serial=(-serial stdio)
    case $arch/$board in
        amd64/*) qemu=("${qemu_pc[@]}" -M q35 -cpu max -accel "tcg,thread=single" -smp "$smp" -m 512) append+=' console=ttyS0' ;;
        arm64/raspi3b)
            qemu=(qemu-system-aarch64 -M raspi3b -smp 4 -m 1G -dtb "$kernel/bcm2837-rpi-3-b.dtb" -accel "tcg,thread=single")
            serial+=(-serial null)
            append+=' console=ttyAMA0 console=ttyAMA1'
            ;;
        arm64/*)
            local cpu=cortex-a53
            [[ $flavour != 16k ]] || cpu=cortex-a76
            qemu=(qemu-system-aarch64 -M virt -cpu "$cpu" -smp 1 -m 512) append+=' console=ttyAMA0'
            ;;
        armhf/*) qemu=(qemu-system-arm -M virt -cpu cortex-a15 -smp 1 -m 512) append+=' console=ttyAMA0' ;;
    esac
    qemu+=(-nodefaults -display none -no-reboot "${serial[@]}" -kernel "$kernel/vmlinuz"
        -initrd "$work/$number.cpio" -append "$append" "${devices[@]}")
    printf '%s\0' "${inside[@]}" "${qemu[@]}" >"$work/$number.qemu"
}

# Two cards on one cable; the second one is always a virtio-net.
cards() {
    local model=$1 more=$2 own=''
    [[ $model != virtio-net ]] || { model=virtio-net-pci own=$more; }
    devices=(
        -netdev hubport,id=n0,hubid=0 -device "$model,netdev=n0,mac=52:54:00:00:00:01,romfile=$own"
        -netdev hubport,id=n1,hubid=0 -device "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:02,romfile=$more"
    )
}

# One card on a tap device, in a network namespace: only a tap offers offloads to turn off. No cable.
tap() {
    devices=(-netdev "tap,id=n0,vnet_hdr=on,script=no,downscript=no"
        -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,romfile=,ctrl_guest_offloads=off)
    inside=(unshare -n)
}

# Runs one guest to its last line. One more try if it never came up: emulated CPUs sometimes do not.
guest() {
    local number=$1 try line qemu log=$work/$1.log pid started before
    before=$fine/$(cut -d' ' -f1 "$work/$number.key")
    if [[ -e $before.log ]]; then
        cp "$before.log" "$log"
        cp "$before.seconds" "$work/$number.seconds"
        return
    fi
    mapfile -d '' -t qemu <"$work/$number.qemu"
    for try in 1 2; do
        : >"$log"
        started=$SECONDS
        exec {console}< <(exec timeout "$limit" nice -n 10 "${qemu[@]}" </dev/null 2>&1)
        pid=$!
        while IFS= read -r line <&"$console"; do
            line=${line%$'\r'}
            printf '%s\n' "$line" >>"$log"
            [[ $line != KL-EXIT* ]] || break
        done
        kill "$pid" 2>/dev/null || true
        exec {console}<&-
        ! grep -q '^KL|boot|' "$log" || break
        echo "KL-RETRY $try" >>"$log"
    done
    echo $((SECONDS - started)) >"$work/$number.seconds"
    rm -f "$work/$number.cpio"
    if grep -q '^KL-EXIT ok' "$log"; then
        cp "$work/$number.seconds" "$before.seconds"
        cp "$log" "$before.log"
    fi
    echo "matrix: $(<"$work/$number.cell"): $(sed -n 's/^KL-EXIT //p' "$log") $(<"$work/$number.seconds") s"
    progress
}

# How many guests are done, where somebody watches.
progress() {
    [[ -t 2 ]] || return 0
    local all=("$work"/*.cell) over=("$work"/*.seconds) bar
    printf -v bar '%*s' "$((40 * ${#over[@]} / ${#all[@]}))" ''
    printf '\r[%-40s] %d of %d guests\r' "${bar// /#}" "${#over[@]}" "${#all[@]}" >&2
}

main "$@"
