# shellcheck shell=bash disable=SC2154 # scratch, static, root, upper: check.sh and lib.sh
# Sourced by check.sh: install.sh and the start scripts where there is neither a package nor systemd.

plain_copy() {
    root plain
    traffic_up
    copy_in
    local install='/copy/install.sh /copy/kernloom-x86_64'
    check "a binary for another CPU is refused" refused 2 'does not run here: x86_64 needs another one' \
        inside sh /copy/install.sh /copy/kernloom-aarch64
    check "an absent binary is refused" refused 2 'there is no /copy/kernloom' inside sh /copy/install.sh /copy/kernloom
    check "nothing was installed then" same "$(left)" ''
    mount --bind "$root/usr" "$root/usr" && mount -o remount,ro,bind "$root/usr"
    # shellcheck disable=SC2086 # a command is words
    check "a read-only /usr is told, with the way out" refused 1 'cannot write to /usr/local/bin.*--prefix' inside sh $install
    umount "$root/usr"
    check "nothing was installed then either" same "$(left)" ''
    # shellcheck disable=SC2086
    check "a plain copy installs" inside sh $install
    check "no unit is installed where systemd does not run" test ! -e "$root/etc/systemd/system/kernloom-shield.service"
    check "doctor tells of an old kernel" has 'boot Linux 5\.10 or newer' \
        "$(inside setarch x86_64 --uname-2.6 /usr/local/bin/kernloom shield doctor kl0 2>&1)"
    umount "$root/sys/fs/bpf"
    check "it attaches, mounting the BPF file system" inside /usr/local/bin/kernloom shield attach kl0
    check "the BPF file system is there then" same "$(stat -f -c %T "$root/sys/fs/bpf")" bpf_fs
    # shellcheck disable=SC2086
    check "it is replaced while attached" inside sh $install
    check "the data plane stayed attached" has 'prog/xdp' "$(link)"
    check "the copy is removed" inside sh /copy/install.sh --remove
    check "nothing is attached then" lacks xdp "$(ip link show kl0)"
    check "only settings are left" same "$(left)" "$upper/etc/default/kernloom"
    other_root
    openrc
    synology
    traffic_down
}

# What somebody copies over: packaging/ and the binaries.
copy_in() {
    mkdir -p "$root/copy"
    cp -r packaging/. "$static"/kernloom-{x86_64,aarch64} "$root/copy/"
}

# A mounted image of another machine.
other_root() {
    mkdir "$scratch/image"
    check "an image gets binary and units" packaging/install.sh "$static/kernloom-aarch64" --root "$scratch/image"
    check "its units run the copy" has 'ExecStart=/usr/local/bin/kernloom shield attach' \
        "$(<"$scratch/image/etc/systemd/system/kernloom-shield.service")"
    check "its units are confined" test -s "$scratch/image/etc/systemd/system/kernloom-.service.d/sandbox.conf"
    packaging/install.sh --remove --root "$scratch/image" >/dev/null
    check "removal leaves the image its settings" same "$(find "$scratch/image" -type f)" \
        "$scratch/image/etc/default/kernloom"
}

# OpenRC itself, unpacked into the root, in the state it has after booting.
openrc() {
    local deb profile=/etc/init.d/kernloom-iq.web-server
    for deb in "$openrc_debs"/*.deb; do
        # /lib and /sbin are links here, and stay so.
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root"
    done
    mkdir -p "$root"/run/openrc/{starting,started,stopping,inactive,wasinactive,failed,hotplugged,daemons,options,exclusive,scheduled,tmp}
    echo default >"$root/run/openrc/softlevel"
    touch "$root/etc/insserv.conf"
    for deb in localmount net; do
        printf '#!/sbin/openrc-run\nstart() {\n\treturn 0\n}\n' >"$root/etc/init.d/$deb"
        chmod 755 "$root/etc/init.d/$deb"
    done
    check "where OpenRC is, its scripts are installed" inside sh /copy/install.sh /copy/kernloom-x86_64
    echo KERNLOOM_IFACE=kl0 >>"$root/etc/default/kernloom"
    mkdir -p "$root/etc/kernloom" && echo 198.18.0.9 >"$root/etc/kernloom/deny.list"
    inside ln -s kernloom-iq "$profile"
    check "OpenRC starts the profile, and what it needs" inside "$profile" start
    check "OpenRC attached it" has 'prog/xdp' "$(link)"
    check "OpenRC loaded the list" has 198.18.0.9 "$(inside /usr/local/bin/kernloom shield deny list)"
    check "OpenRC's supervisor keeps IQ" answers
    check "OpenRC knows it as started" inside "$profile" status
    check "a script without a profile is refused" refused 1 'link this script as' inside /etc/init.d/kernloom-iq start
    check "OpenRC stops the profile" inside "$profile" stop
    check "OpenRC stops the data plane's service" inside /etc/init.d/kernloom-shield stop
    check "the host stays protected then" has 'prog/xdp' "$(link)"
    check "the copy is removed, scripts and all" inside sh /copy/install.sh --remove
    inside rm -r "$profile" /sbin/openrc-run /run/openrc /etc/kernloom /etc/default/kernloom /var/lib/kernloom
}

# A Synology as far as the start script sees one.
synology() {
    local script=/usr/local/etc/rc.d/kernloom.sh conf=/usr/local/etc/kernloom.conf
    touch "$root/etc/synoinfo.conf"
    check "where DSM is, its start script is installed" inside sh /copy/install.sh /copy/kernloom-x86_64
    printf 'KERNLOOM_IFACE=kl0\nKERNLOOM_PROFILE=web-server\n' >"$root$conf"
    mkdir -p "$root/usr/local/etc/kernloom" && echo 198.18.0.9 >"$root/usr/local/etc/kernloom/deny.list"
    check "the start script starts" inside "$script" start
    check "the start script attached it" has 'prog/xdp' "$(link)"
    check "the start script loaded the list" has 198.18.0.9 "$(inside /usr/local/bin/kernloom shield deny list)"
    check "the start script started IQ" answers
    check "its status says so" has '^iq runs' "$(inside "$script" status)"
    check "a second start changes nothing" inside "$script" start
    check "the start script stops" inside "$script" stop
    check "IQ is over then" has '^iq does not run' "$(inside "$script" status)"
    check "the host stays protected" has 'prog/xdp' "$(link)"
    check "the copy is removed, start script and all" inside sh /copy/install.sh --remove
    check "the start script is gone" test ! -e "$root$script"
}

# IQ answers at its socket once it is up.
answers() {
    for _ in {1..100}; do
        inside /usr/local/bin/kernloom iq status >/dev/null 2>&1 && return 0
        read -rt 0.2 <> <(:)
    done
    inside /usr/local/bin/kernloom iq status
}
