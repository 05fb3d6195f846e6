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
    check "a read-only /usr is told, with the way out" refused 1 'cannot write /usr/local/bin/kernloom: Read-only file system; nothing was changed.*--prefix' inside sh $install
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
    check "a removal elsewhere is refused" refused 2 'installed below /usr/local, not /opt' \
        inside sh /copy/install.sh --remove --prefix /opt
    check "the data plane stayed attached then" has 'prog/xdp' "$(link)"
    check "a second place is refused" refused 2 'installed below /usr/local' \
        inside sh /copy/install.sh /copy/kernloom-x86_64 --prefix /opt
    check "the copy is removed" inside sh /copy/install.sh --remove
    check "what is not there is not removed" refused 2 'there is no /usr/local/bin/kernloom' inside sh /copy/install.sh --remove
    check "nothing is attached then" lacks xdp "$(ip link show kl0)"
    check "no record is left" test ! -e "$root/var/lib/kernloom/installed"
    check "only settings are left" same "$(left)" "$upper/etc/default/kernloom"
    refused_places
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

# Places that no unit could name, and what is no program.
refused_places() {
    local place
    for place in 'relative' '/with space' '/with&' '/with%' '/with#' '/opt/../etc'; do
        check "the prefix '$place' is refused" refused 2 'prefix' \
            inside sh /copy/install.sh /copy/kernloom-x86_64 --prefix "$place"
    done
    check "what is no program is refused" refused 2 'is no program' inside sh /copy/install.sh /copy/install.sh
    check "only settings are left still" same "$(left)" "$upper/etc/default/kernloom"
}

# A mounted image of another machine.
other_root() {
    mkdir "$scratch/image" "$scratch/foreign-image"
    mkdir -p "$scratch/foreign-image/bin" && cp /bin/bash "$scratch/foreign-image/bin/"
    check "an image of another CPU is refused" refused 2 'is for another CPU' \
        packaging/install.sh "$static/kernloom-aarch64" --root "$scratch/foreign-image"
    mkdir -p "$scratch/foreign-image/etc/systemd" && touch "$scratch/foreign-image/etc/systemd/system"
    check "where a unit cannot be written nothing is" refused 1 'nothing was changed' \
        packaging/install.sh "$static/kernloom-x86_64" --root "$scratch/foreign-image"
    check "and nothing is left of it" same "$(find "$scratch/foreign-image" -iname '*kernloom*')" ''
    check "an image gets binary and units" packaging/install.sh "$static/kernloom-aarch64" --root "$scratch/image"
    check "its units run the copy" has 'ExecStart=/usr/local/bin/kernloom .*shield attach' \
        "$(<"$scratch/image/etc/systemd/system/kernloom-shield.service")"
    check "its units are confined" test -s "$scratch/image/etc/systemd/system/kernloom-.service.d/sandbox.conf"
    echo '# ours' >>"$scratch/image/etc/systemd/system/kernloom-iq@.service"
    mkdir "$scratch/image/etc/systemd/system/multi-user.target.wants"
    ln -s ../kernloom-iq@.service "$scratch/image/etc/systemd/system/multi-user.target.wants/kernloom-iq@idp.service"
    check "a unit that was changed by hand is told of" has 'kernloom-iq@.service was changed by hand and stays' \
        "$(packaging/install.sh "$static/kernloom-aarch64" --root "$scratch/image")"
    check "and stays" grep -qx '# ours' "$scratch/image/etc/systemd/system/kernloom-iq@.service"
    packaging/install.sh --remove --root "$scratch/image" >/dev/null
    check "no link to a unit is left" same "$(find "$scratch/image" -type l)" ''
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
    chmod 666 "$root/etc/default/kernloom"
    check "OpenRC refuses settings that others may write" refused 1 'others may write /etc/default/kernloom' \
        inside /etc/init.d/kernloom-shield start
    chmod 644 "$root/etc/default/kernloom"
    check "OpenRC starts the profile, and what it needs" inside "$profile" start
    check "OpenRC attached it" has 'prog/xdp' "$(link)"
    check "OpenRC loaded the list" has 198.18.0.9 "$(inside /usr/local/bin/kernloom shield deny list)"
    check "OpenRC's supervisor keeps IQ" answers /usr/local/bin/kernloom
    check "OpenRC knows it as started" inside "$profile" status
    check "a script without a profile is refused" refused 1 'link this script as' inside /etc/init.d/kernloom-iq start
    check "OpenRC stops the profile" inside "$profile" stop
    check "OpenRC knows that it does not run" refused 3 'does not answer' inside "$profile" status
    check "OpenRC stops the data plane's service" inside /etc/init.d/kernloom-shield stop
    check "the host stays protected then" has 'prog/xdp' "$(link)"
    check "the copy is removed, scripts and all" inside sh /copy/install.sh --remove
    check "no link to a script is left" test ! -L "$root$profile"
    inside rm -r /sbin/openrc-run /run/openrc /etc/kernloom /etc/default/kernloom /var/lib/kernloom
}

# A Synology as far as the start script sees one.
synology() {
    local script=/usr/local/etc/rc.d/kernloom.sh conf=/usr/local/etc/kernloom.conf
    touch "$root/etc/synoinfo.conf"
    check "where DSM is, its start script is installed" inside sh /copy/install.sh /copy/kernloom-x86_64
    printf 'KERNLOOM_IFACE=kl0\nKERNLOOM_PROFILE=web-server\n' >"$root$conf"
    chown 65534 "$root$conf"
    check "settings of somebody else are refused" refused 2 "belongs to user 65534; run 'chown root" inside "$script" start
    chown 0 "$root$conf"
    sed -i s/web-server/wbe-server/ "$root$conf"
    check "a profile that there is none of is told" refused 1 'iq does not run' inside "$script" start
    sed -i s/wbe-server/web-server/ "$root$conf"
    echo 1 >"$root/run/kernloom-iq.pid"
    check "another process is not taken for IQ" refused 3 'iq does not run' inside "$script" status
    mkdir -p "$root/usr/local/etc/kernloom" && echo 198.18.0.9 >"$root/usr/local/etc/kernloom/deny.list"
    check "the start script starts" inside "$script" start
    check "the start script attached it" has 'prog/xdp' "$(link)"
    check "the start script loaded the list" has 198.18.0.9 "$(inside /usr/local/bin/kernloom shield deny list)"
    check "the start script started IQ" answers /usr/local/bin/kernloom
    check "its status says so" has '^iq runs' "$(inside "$script" status)"
    check "a second start changes nothing" inside "$script" start
    check "the start script stops" inside "$script" stop
    check "IQ is over then" refused 3 'iq does not run' inside "$script" status
    check "the host stays protected" has 'prog/xdp' "$(link)"
    check "the copy is removed, start script and all" inside sh /copy/install.sh --remove
    check "the start script is gone" test ! -e "$root$script"
}
