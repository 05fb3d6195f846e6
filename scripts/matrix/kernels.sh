# shellcheck shell=bash disable=SC2154 # cache, mirror_dir: lib/mirror.sh
# Sourced: Debian's kernels, unpacked to what a guest boots from. Needs lib/mirror.sh.
#
# A kernel is a directory of the cache named like its package: vmlinuz, modules/NAME.ko, and for each
# module of `tops` that exists modules/NAME.order, itself last. SHA256SUMS covers all of it.

# Top modules any cell needs. What a kernel has built in is simply not found.
tops=(veth cls_bpf sch_ingress virtio_pci virtio_net igb vmxnet3 e1000e 8139cp bcm2835_wdt)

kernels_index() {
    mkdir -p "$cache/kernels"
    # One broken list drops its whole suite, so armhf comes from suites of its own where it breaks.
    mirror_use kernels amd64,arm64 bullseye:amd64,arm64,armhf bullseye-security bookworm:amd64,arm64,armhf \
        bookworm-security bookworm-backports:amd64,armhf trixie trixie-security trixie-backports
    mirror_apt apt-cache pkgnames linux- >"$cache/kernels/index"
    mapfile -t newest_series < <(sed -nE 's/^linux-modules-([0-9]+\.[0-9]+)\..*-cloud-amd64$/\1/p' \
        "$cache/kernels/index" | sort -rVu)
}

# kernel_find SERIES ARCH FLAVOUR: sets `kernel` to the directory of the newest that can be had.
kernel_find() {
    local series=$1 arch=$2 name deb suffix found
    case $series in
        newest) series=${newest_series[0]} ;;
        second) series=${newest_series[1]} ;;
    esac
    case $2/$3 in
        */cloud) suffix=-cloud-$arch ;;
        */full) suffix=-$arch ;;
        */rt) suffix=-rt-$arch ;;
        */16k) suffix=-$arch-16k ;;
        armhf/lpae) suffix=-armmp-lpae ;;
    esac
    while read -r name; do
        # Newer packages split the image from its modules, and the index may lack the latter.
        found=linux-image-$name
        if grep -qxF "linux-binary-$name" "$cache/kernels/index"; then
            grep -qxF "linux-modules-$name" "$cache/kernels/index" || continue
            found=linux-binary-$name
        fi
        kernel=$cache/kernels/$found
        [[ ! -e $kernel/SHA256SUMS || $(<"$kernel/tops") != "${tops[*]}" ]] || return 0
        local debs=("$found:$arch")
        [[ $found != linux-binary-* ]] || debs+=("linux-modules-$name:$arch")
        local specs=() spec
        for deb in "${debs[@]}"; do
            spec=$(mirror_newest "$deb")
            [[ -n $spec ]] || continue 2
            specs+=("$deb=$spec")
        done
        # What the index names may be gone already: then the one before serves.
        [[ -z $(find "$kernel.gone" -mtime -1 2>/dev/null) ]] || continue
        mirror_fetch "${specs[@]}" || { touch "$kernel.gone" && continue; }
        kernel_unpack "$kernel" "${specs[@]}" && return 0
    done < <(sed -nE "s/^linux-(image|binary)-(${series//./\\.}\.[^-]*(-[0-9]+)?$suffix)$/\2/p" \
        "$cache/kernels/index" | sort -rVu)
    echo "matrix: no kernel $series $arch $3 is to be had" >&2
    return 3
}

kernel_unpack() {
    local kernel=$1 spec top tree
    shift
    tree=$(mktemp -d "$cache/kernels/unpack.XXXXXX")
    for spec in "$@"; do
        dpkg -x "$(mirror_deb "$spec")" "$tree"
    done
    rm -rf "$kernel" && mkdir -p "$kernel/modules"
    find "$tree" -name 'vmlinuz*' -type f -exec cp {} "$kernel/vmlinuz" \;
    find "$tree" -name bcm2837-rpi-3-b.dtb -exec cp {} "$kernel/" \;
    find "$tree" -name '*.ko*' -type f >"$tree/all"
    for top in "${tops[@]}"; do
        module_order "$tree/all" "$top" | awk '!seen[$0]++' >"$tree/order"
        [[ ! -s $tree/order ]] || modules_keep "$kernel" "$top" <"$tree/order"
    done
    echo "${tops[*]}" >"$kernel/tops"
    (cd "$kernel" && find . -type f ! -name "SHA256SUMS*" -print0 | xargs -0 sha256sum >SHA256SUMS.new &&
        mv SHA256SUMS.new SHA256SUMS)
    rm -rf "$tree"
    [[ -s $kernel/vmlinuz ]]
}

# Files of a module and what it depends on, in the order of loading.
module_order() {
    local all=$1 name=$2 file dependency
    file=$(grep -E "/${name//_/[_-]}\.ko(\.xz|\.zst)?$" "$all" | head -n 1) || return 0
    for dependency in $(modinfo -F depends "$file" | tr ',' ' '); do
        module_order "$all" "$dependency"
    done
    echo "$file"
}

modules_keep() {
    local kernel=$1 top=$2 file name
    while read -r file; do
        name=${file##*/}
        name=${name%%.ko*}.ko
        case $file in
            *.xz) xz -dc "$file" ;;
            *.zst) zstd -q -dc "$file" ;;
            *) cat "$file" ;;
        esac >"$kernel/modules/$name"
        echo "$name"
    done >"$kernel/modules/$top.order"
}
