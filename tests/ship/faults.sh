# shellcheck shell=bash disable=SC2154 # scratch, static, root, upper: check.sh and lib.sh
# Sourced by check.sh: install.sh where it is interrupted, where the disk is full, and what is left then.

faults() {
    local image=$scratch/faulty number way outcome before
    mkdir "$image"
    faulty_programs
    check "an image for faults is installed" packaging/install.sh /bin/true --root "$image"
    before=$(tree "$image")
    # Six files are named, one after another.
    for way in TERM fail; do
        outcome=''
        for number in {1..6}; do
            [[ $(faulty "$way" mv "$number" /bin/false --root "$image") == 1 && $(tree "$image") == "$before" ]] || outcome+=" $number"
        done
        check "an installation stopped at any name ($way) changes nothing" same "$outcome" ''
    done
    outcome=''
    for number in {1..6}; do
        [[ $(faulty KILL mv "$number" /bin/false --root "$image") == 137 ]] || outcome+=" not killed $number"
        packaging/install.sh /bin/false --root "$image" >/dev/null || outcome+=" $number"
        cmp -s /bin/false "$image/usr/local/bin/kernloom" || outcome+=" old $number"
        [[ -z $(beside "$image") ]] || outcome+=" left $number"
    done
    check "a second one mends what a SIGKILL left" same "$outcome" ''
    faulty KILL mv 3 /bin/false --root "$image" >/dev/null
    check "a removal takes what a SIGKILL left" packaging/install.sh --remove --root "$image"
    check "nothing is left of it" same "$(find "$image" -type f)" "$image/etc/default/kernloom"
    removed_in_every_state "$image"
    full_disk
}

# An mv and an rm of which the Nth call stops who called it.
faulty_programs() {
    local name
    mkdir "$scratch/faulty-bin"
    for name in mv rm; do
        cat >"$scratch/faulty-bin/$name" <<SH
#!/bin/sh
echo x >>"$scratch/calls.$name"
if [ "\$(wc -l <"$scratch/calls.$name")" = "\${FAULT_$name:-0}" ]; then
    [ "\$FAULT_WAY" != fail ] || exit 1
    kill -s "\$FAULT_WAY" "\$PPID"
fi
exec /bin/$name "\$@"
SH
        chmod 755 "$scratch/faulty-bin/$name"
    done
}

# faulty WAY PROGRAM N ARGUMENT...: install.sh with them, stopped so at the Nth call; its exit code.
faulty() {
    local way=$1 program=$2 number=$3
    shift 3
    rm -f "$scratch"/calls.*
    env "TMPDIR=$scratch" "PATH=$scratch/faulty-bin:$PATH" "FAULT_WAY=$way" "FAULT_$program=$number" packaging/install.sh "$@" >/dev/null
    echo $?
} 2>/dev/null

tree() { find "$1" -type f -exec cksum {} + | sort -k 3; }
beside() { find "$1" -name '.*.new' -o -name '.*.old'; }

# Whatever of it is still there, and wherever a removal before was ended.
removed_in_every_state() {
    local image=$1 number outcome='' file files
    packaging/install.sh /bin/true --root "$image" >/dev/null
    mapfile -t files < <(find "$image" -type f ! -path '*/etc/default/*')
    for file in "${files[@]}"; do
        packaging/install.sh /bin/true --root "$image" >/dev/null
        rm "$file"
        packaging/install.sh --remove --root "$image" >/dev/null || outcome+=" without ${file##*/}"
    done
    for number in {1..99}; do
        packaging/install.sh /bin/true --root "$image" >/dev/null
        [[ $(faulty KILL rm "$number" --remove --root "$image") == 137 ]] || break
        packaging/install.sh --remove --root "$image" >/dev/null 2>&1
        [[ $(find "$image" -type f) == */etc/default/kernloom ]] || outcome+=" after $number"
    done
    check "it is removed whatever is missing, and a killed removal goes on" same "$outcome" ''
    check "only settings are left of each" same "$(find "$image" -type f)" "$image/etc/default/kernloom"
}

full_disk() {
    local size before
    size=$(stat -c %s "$static/kernloom-x86_64")
    root full
    copy_in
    mkdir -p "$root/var/lib/kernloom"
    mount -t tmpfs -o "size=$((size * 3 / 2))" kernloom "$root/usr/local"
    check "where it fits it is installed" inside sh /copy/install.sh /copy/kernloom-x86_64
    check "with no init system, what to do is told" has "no init system .*'/usr/local/bin/kernloom shield attach'" \
        "$(inside sh /copy/install.sh /bin/ls 2>&1; inside sh /copy/install.sh /copy/kernloom-x86_64)"
    before=$(tree "$root/usr/local")
    check "a full disk is told, with the way out" refused 1 \
        'cannot write /usr/local/bin/kernloom: No space left on device; nothing was changed.*--prefix' \
        inside sh /copy/install.sh /copy/kernloom-x86_64
    check "what was there before stays" same "$(tree "$root/usr/local")" "$before"
    # Where there is room for all but the record.
    mount -t tmpfs -o size=4k kernloom "$root/var/lib/kernloom"
    echo x >"$root/var/lib/kernloom/full"
    check "a full /var is told" refused 1 'cannot write /var/lib/kernloom/installed: No space left' \
        inside sh /copy/install.sh /bin/ls
    check "what was there before stays then, too" same "$(tree "$root/usr/local")" "$before"
    umount "$root/var/lib/kernloom" "$root/usr/local"
}
