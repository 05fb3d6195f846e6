# shellcheck shell=bash disable=SC2154 # scratch, static, root, upper: check.sh and lib.sh
# Sourced by check.sh: the .deb where no init system runs, on an overlay of this host, with traffic.

package_lifecycle() {
    root package
    traffic_up
    debs_in
    check "a package for another CPU is refused" refused 1 'architecture \(.*\) does not match' \
        inside dpkg -i /debs/foreign.deb
    inside dpkg -P kernloom >/dev/null 2>&1
    check "the package installs" inside dpkg -i /debs/old.deb
    manual_is_whole
    check "its directories are root's alone" same "$(inside stat -c %a%U /var/lib/kernloom)" 700root
    check "it attaches" inside kernloom shield attach kl0
    check "it denies" inside kernloom shield deny add 198.18.0.9
    upgrade_under_traffic
    killed_upgrade
    echo KERNLOOM_IFACE=kl0 >>"$root/etc/default/kernloom"
    another_copy_and_a_mistake
    check "it is removed" inside dpkg -r kernloom
    check "no other copy was asked" test ! -e "$root/asked"
    check "what is somebody else's stays" test -e "$root/sys/fs/bpf/kernloom-junk/theirs"
    rm -r "$root/sys/fs/bpf/kernloom-junk" "$root/usr/local/sbin/kernloom" "$root/etc/kernloom"
    check "nothing is attached then" lacks 'xdp' "$(ip link show kl0)"
    check "nothing is pinned then" test ! -e "$root/sys/fs/bpf/kernloom"
    check "settings outlive a removal" grep -q KERNLOOM_IFACE=kl0 "$root/etc/default/kernloom"
    check "it is purged" inside dpkg -P kernloom
    check "nothing is left then" same "$(left)" ''
    purged_while_enforcing
    never_configured
    traffic_down
}

# An old copy that comes first in PATH, settings nobody can read, and another's directory.
another_copy_and_a_mistake() {
    mkdir -p "$root/usr/local/sbin" "$root/etc/kernloom" "$root/sys/fs/bpf/kernloom-junk/theirs"
    printf '#!/bin/sh\ntouch /asked\n' >"$root/usr/local/sbin/kernloom"
    chmod 755 "$root/usr/local/sbin/kernloom"
    echo 'mistake =' >"$root/etc/kernloom/kernloom.toml"
    check "it installs again, whatever the settings say" inside dpkg -i /debs/new.deb
}

# With an IQ that somebody started by hand.
purged_while_enforcing() {
    local iq
    inside dpkg -i /debs/new.deb >/dev/null
    inside timeout 120 kernloom iq --profile=web-server --iface kl0 --dry-run=false >"$scratch/iq.said" 2>&1 &
    iq=$!
    check "IQ answers" answers /usr/bin/kernloom
    check "it is purged while IQ enforces" inside dpkg -P kernloom
    wait "$iq"
    check "IQ ended well" same $? 0
    check "nothing is attached after that" lacks xdp "$(ip link show kl0)"
    check "nothing is pinned after that" test ! -e "$root/sys/fs/bpf/kernloom"
    check "nothing is left after that" same "$(left; ls -d "$root"/{var/lib,run}/kernloom 2>/dev/null)" ''
}

# Unpacked, attached by hand, removed: no prerm runs.
never_configured() {
    inside dpkg --unpack /debs/new.deb >/dev/null 2>&1
    check "what is unpacked attaches" inside /usr/bin/kernloom shield attach kl0
    check "what was never configured is removed" inside dpkg -P kernloom
    check "nothing is attached then, either" lacks xdp "$(ip link show kl0)"
    check "nothing is pinned then, either" test ! -e "$root/sys/fs/bpf/kernloom"
}

# Two versions and one of another CPU, in the root's /debs.
debs_in() {
    local made=$scratch/debs version
    if [[ ! -d $made ]]; then
        mkdir "$made"
        for version in 0.0.1 0.0.2; do
            packaging/deb.sh --version "$version" x86_64 >/dev/null
            mv "$static/kernloom_${version}_amd64.deb" "$made/"
        done
        mkdir -p "$scratch/foreign/DEBIAN"
        dpkg-deb -f "$made/kernloom_0.0.2_amd64.deb" | sed 's/^Architecture: .*/Architecture: s390x/' \
            >"$scratch/foreign/DEBIAN/control"
        dpkg-deb --build "$scratch/foreign" "$made/foreign.deb" >/dev/null
    fi
    mkdir -p "$root/debs"
    cp "$made/kernloom_0.0.1_amd64.deb" "$root/debs/old.deb"
    cp "$made/kernloom_0.0.2_amd64.deb" "$root/debs/new.deb"
    cp "$made/foreign.deb" "$root/debs/"
}

# A page and a completion for every command there is, asked of the binary itself.
manual_is_whole() {
    local name line bash missing=''
    bash=$(<"$root/usr/share/bash-completion/completions/kernloom")
    while read -r line; do
        name=kernloom${line:+-${line// /-}}
        [[ -s $root/usr/share/man/man1/$name.1.gz ]] || missing+=" $name(1)"
        name=kernloom${line:+__subcmd__${line// /__subcmd__}}
        [[ $bash == *"${name//-/__subcmd__})"* ]] || missing+=" $name"
    done < <(echo && commands '')
    check "every command has a man page and a completion" same "$missing" ''
    check "a man page has its date in its place" has '^\.TH kernloom 1 "[0-9]{4}-[0-9]{2}-[0-9]{2}" "kernloom ' \
        "$(zcat "$root/usr/share/man/man1/kernloom.1.gz")"
    check "the copyright names its holder" has '^Copyright \(C\) [0-9]{4} ' "$(<"$root/usr/share/doc/kernloom/copyright")"
    check "there is a changelog" test -s "$root/usr/share/doc/kernloom/changelog.gz"
    check "there are at least 40 commands" test "$(commands '' | wc -l)" -ge 40
    check "bash completes a command" same "$(completed kernloom shield enf)" enforce-allow
    check "bash completes a profile" same "$(completed kernloom iq --profile web)" 'web-server web-server-bootstrap'
    check "bash completes a profile behind an equals sign" \
        same "$(completed kernloom iq --dry-run=false --profile = web)" 'web-server web-server-bootstrap'
    check "bash completes a profile to show" same "$(completed kernloom iq profiles show web)" 'web-server web-server-bootstrap'
    check "bash offers every profile" same "$(completed kernloom iq replay --profile '')" \
        "$(inside kernloom iq profiles list | awk '/^[a-z]/ { print $1 }' | xargs)"
    check "zsh and fish know the profiles" same "$(grep -L web-server-bootstrap \
        "$root"/usr/share/{zsh/vendor-completions/_kernloom,fish/vendor_completions.d/kernloom.fish})" ''
    check "an unknown profile is told with the nearest" refused 2 "did you mean 'web-server'" \
        inside kernloom iq profiles show web-servr
}

# completed WORD...: what bash offers for the last.
completed() {
    # shellcheck disable=SC2016 # the shell's in there
    inside bash -c '. /usr/share/bash-completion/completions/kernloom
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _kernloom kernloom "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        echo "${COMPREPLY[*]}"' completed "$@"
}

# The words after `kernloom` of each command below $1, one per line.
commands() {
    local word
    # shellcheck disable=SC2086 # a command is words
    inside kernloom $1 --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' | while read -r word; do
        [[ $word != help ]] || continue
        echo "${1:+$1 }$word"
        commands "${1:+$1 }$word"
    done
}

upgrade_under_traffic() {
    local before ping
    before=$(link)
    ip netns exec peer ping -q -i 0.01 -c 400 198.18.0.1 >"$scratch/ping" 2>&1 &
    ping=$!
    check "it upgrades under traffic" inside dpkg -i /debs/new.deb
    check "the program is replaced under traffic" inside kernloom shield upgrade
    wait "$ping"
    check "no packet was lost meanwhile" has '400 packets transmitted, 400 received' "$(<"$scratch/ping")"
    check "it stayed attached" has 'prog/xdp id [0-9]+' "$before $(link)"
    check "its policy stayed" has 198.18.0.9 "$(inside kernloom shield deny list)"
}

# Whatever moment a SIGKILL hits: the host stays protected, and the same command mends it.
killed_upgrade() {
    local after outcome=''
    for after in 0.02 0.05 0.1 0.2 0.4; do
        inside timeout -s KILL "$after" dpkg -i /debs/old.deb >/dev/null 2>&1
        inside timeout -s KILL "$after" kernloom shield upgrade >/dev/null 2>&1
        [[ -n $(link) ]] || outcome+=" detached after $after s"
        inside dpkg -i /debs/new.deb >/dev/null 2>&1 || outcome+=" not installed after $after s"
        inside kernloom shield upgrade >/dev/null || outcome+=" not upgraded after $after s"
        inside kernloom shield deny list | grep -q 198.18.0.9 || outcome+=" forgot after $after s"
    done
    check "a killed upgrade protects on, and a second one mends it" same "$outcome" ''
}
