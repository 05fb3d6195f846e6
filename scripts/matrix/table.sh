#!/usr/bin/env bash
# usage: scripts/matrix/table.sh DIRECTORY SECONDS
# SECONDS is how long the whole run took. Prints the outcome of a run of scripts/matrix.sh as Markdown; fails if any cell failed.
set -euo pipefail

work=$1 wall=$2
seconds=$(($(cat "$work"/*.seconds | paste -sd+)))
outcome=0

# field LOG NAME: word and detail of a check.
field() {
    awk -F'|' -v name="$2" '$1 == "KL" && $2 == name { print $3 "|" $4; exit }' "$1"
}

# mode LOG NAME: how attaching in a mode ended.
mode() {
    local told
    told=$(field "$1" "$2")
    case $told in
        'ok|refused'*) echo refused ;;
        'ok|'*) sed 's/^ok|\([a-z]*\):.*/\1/' <<<"$told" ;;
        'FAIL|'*) echo FAIL ;;
        *) echo - ;;
    esac
}

rows() {
    local number log series arch flavour card options kernel verdict failed
    for number in $(cd "$work" && ls -- *.cell | sort -n | sed 's/\.cell$//'); do
        log=$work/$number.log
        read -r series arch flavour card _ options <"$work/$number.cell"
        options=${options/smoke/}
        kernel=$(field "$log" boot | sed -nE 's/^ok\|([^ ]+) .*/\1/p')
        verdict=ok
        if ! grep -q '^KL-EXIT ok' "$log"; then
            failed=$(sed -nE 's/^KL\|([^|]*)\|FAIL\|.*/\1/p' "$log" | paste -sd' ')
            verdict="FAIL: ${failed:-no end}"
            outcome=1
        fi
        echo "| ${kernel:-$series $flavour} | $arch | $card | $(xargs <<<"$options") | $(mode "$log" auto) | $(mode "$log" driver) | $(mode "$log" generic) | $(mode "$log" tc) | $(mode "$log" graph) | $(tests "$log") | $(<"$work/$number.seconds") | $verdict |"
    done
}

tests() {
    local told
    told=$(field "$1" packet-tests | sed -nE 's/^ok\|.* ([0-9]+) passed.*/\1/p')
    echo "${told:--}"
}

cat <<HEAD
# Kernels and cards

Booted by \`make matrix\` on $(date -u +%Y-%m-%d), in $wall s on $(nproc) CPUs, $seconds s of guests: Debian's kernels
under qemu's software emulation, each with the static binary alone in an initramfs. Everywhere: 20 frames pass and
20 denied ones are dropped, per family and mode, as sent and counted; a block with an end ends without a process; no
denied frame passes while the program is replaced; a port scan is decided through the ring buffer; a flood climbs two
stages, which outlive the process; nothing is left behind. \`auto\` is what \`--mode auto\` came to; \`graph\` the
program with \`--features graph\`, which, enforced, lets the edge that was allowed alone pass; \`tests\` how many packet
tests of \`make test\` ran there; both once a kernel and way of running programs, because no card changes them.

| kernel | arch | card | special | auto | driver | generic | tc | graph | tests | seconds | outcome |
|---|---|---|---|---|---|---|---|---|---|---|---|
HEAD
rows
exit "$outcome"
