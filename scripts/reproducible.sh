#!/usr/bin/env bash
# Builds the static binary of HEAD twice, from two clones in different places, each from nothing, and
# compares: exit code 0 only if every byte is the same.
#
# usage: scripts/reproducible.sh [x86_64 | aarch64 | armv7]
set -euo pipefail
cd "$(dirname "$0")/.."

arch=${1:-x86_64}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
commit=$(git rev-parse HEAD)
for place in one some/where/else; do
    git clone -q . "$scratch/$place"
    git -C "$scratch/$place" checkout -q "$commit"
    CARGO_TARGET_DIR=$scratch/$place/target "$scratch/$place/scripts/static.sh" "$arch"
done
(cd "$scratch" && sha256sum {one,some/where/else}"/target/static/kernloom-$arch")
cmp "$scratch"/{one,some/where/else}"/target/static/kernloom-$arch"
echo "reproducible: $(git rev-parse --short=12 HEAD) $arch is the same twice"
