#!/usr/bin/env bash
# Packs the static binaries of `make static`: target/static/kernloom_VERSION_ARCH.deb.
#
# usage: packaging/deb.sh [--version VERSION] [x86_64] [aarch64] [armv7]
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
out=$target/static
declare -A debian=([x86_64]=amd64 [aarch64]=arm64 [armv7]=armhf)

main() {
    local version arches=()
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    while (($#)); do
        case $1 in
            --version) version=${2?--version needs one} && shift ;;
            *) [[ -n ${debian[$1]:-} ]] || { echo "deb: unknown architecture '$1'" >&2 && exit 2; }
                arches+=("$1") ;;
        esac
        shift
    done
    ((${#arches[@]})) || arches=(x86_64 aarch64 armv7)
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
    export SOURCE_DATE_EPOCH
    cargo run -q --example manual "$out/manual"
    local arch
    for arch in "${arches[@]}"; do
        pack "$arch" "$version"
    done
}

pack() {
    local arch=$1 version=$2 name tree page
    [[ -e $out/kernloom-$arch ]] || { echo "deb: there is no $out/kernloom-$arch; run 'make static'" >&2 && exit 1; }
    name=kernloom_${version}_${debian[$arch]}
    tree=$out/$name
    rm -rf "$tree"
    put() { install -D -m "$1" "$2" "$tree/$3"; }
    put 755 "$out/kernloom-$arch" usr/bin/kernloom
    local unit
    for unit in packaging/systemd/*.service; do
        put 644 "$unit" "lib/systemd/system/${unit##*/}"
    done
    put 644 packaging/systemd/sandbox.conf lib/systemd/system/kernloom-.service.d/sandbox.conf
    put 644 packaging/systemd/kernloom.tmpfiles usr/lib/tmpfiles.d/kernloom.conf
    put 644 packaging/kernloom.default etc/default/kernloom
    put 644 "$out/manual/completions/kernloom.bash" usr/share/bash-completion/completions/kernloom
    put 644 "$out/manual/completions/_kernloom" usr/share/zsh/vendor-completions/_kernloom
    put 644 "$out/manual/completions/kernloom.fish" usr/share/fish/vendor_completions.d/kernloom.fish
    for page in "$out"/manual/man/*.1; do
        put 644 "$page" "usr/share/man/man1/${page##*/}"
        sed -i "s/^\.TH \([^ ]*\) 1  /.TH \1 1 \"$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)\" /" \
            "$tree/usr/share/man/man1/${page##*/}"
        gzip -9n "$tree/usr/share/man/man1/${page##*/}"
    done
    { printf 'Copyright (C) 2026 Kernloom maintainers\nThe programs in bpf/ are also under the GPL-2.0.\n\n' && cat LICENSE; } \
        >"$tree/copyright" && put 644 "$tree/copyright" usr/share/doc/kernloom/copyright && rm "$tree/copyright"
    printf 'kernloom (%s) unstable; urgency=medium\n\n  * What changed: CHANGELOG.md of the sources.\n\n -- %s  %s\n' \
        "$version" "$(sed -n 's/^Maintainer: //p' packaging/deb/control)" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
        gzip -9n >"$tree/changelog.gz"
    put 644 "$tree/changelog.gz" usr/share/doc/kernloom/changelog.gz && rm "$tree/changelog.gz"
    put 644 README.md usr/share/doc/kernloom/README.md
    mkdir "$tree/DEBIAN"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/${debian[$arch]}/" packaging/deb/control >"$tree/DEBIAN/control"
    install -m 644 packaging/deb/conffiles "$tree/DEBIAN/"
    install -m 755 packaging/deb/{postinst,prerm,postrm} "$tree/DEBIAN/"
    (cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/$name.deb" >/dev/null
    rm -r "$tree"
    echo "deb: $out/$name.deb"
}

main "$@"
