# shellcheck shell=bash disable=SC2154,SC2034,SC2317 # scratch, root: check.sh, lib.sh; boot() calls the rest
# Sourced by check.sh: the units under systemd itself, booted twice as init of namespaces over an
# overlay of this host. The second boot has a new, empty BPF file system, as every boot has.

booted() {
    root boot
    traffic_up
    debs_in
    inside dpkg -P kernloom >/dev/null 2>&1
    machine_of_its_own
    # What is learned there is told line by line, and checked here.
    boot first_boot
    tells "systemd attaches, then scores" 'active active'
    tells "systemd hears what IQ does" 'StatusText=profile web-server, enforcing'
    tells "the shield is attached to the interface in the settings" 'kl0: attached in driver mode'
    tells "the list of a file is loaded" '^198\.18\.0\.8 '
    tells "handshakes are watched, confined as it is" 'handshakes watched: yes'
    tells "state is root's alone" 'modes 700 600'
    tells "confined, IQ writes where it must and nowhere else" \
        'may write: /run/kernloom /var/lib/kernloom /var/lib/prometheus/node-exporter$'
    tells "confined, it writes all it keeps" \
        'kept: day.klrec iq/frozen-graph.yaml iq/frozen-graph.yaml.accepted iq/graph.db iq/graph.db-shm iq/graph.db-wal iq/journal.jsonl iq/state.json( iq/state.json.previous)? kernloom.toml.copy'
    tells "confined, it writes metrics" '^kernloom_build_info'
    tells "confined, it serves metrics" 'served: yes'
    tells "a report is made of what it keeps" 'report: yes'
    tells "a file it may not write is told" 'elsewhere: failed .*cannot record to /srv/day.klrec: Read-only file system.*ReadWritePaths='
    tells "a mistake in the settings is told by systemctl status, and opens nothing" \
        'mistake: active .*kernloom.toml:1:1: unknown key .dry-rnu.*going by what was there before'
    tells "settings that others may write are refused" "writable: failed .*others.*run 'chmod go-w"
    tells "a refusal is not tried again" 'tries: 0 0 0'
    tells "once mended it starts at once" 'mended: active'
    tells "an upgrade leaves it attached" 'attached after upgrade: yes'
    tells "an upgrade starts the new IQ" 'new iq: yes'
    tells "an upgrade keeps what was entered by hand" 'denied after upgrade: yes'
    tells "a killed IQ is started again" 'killed iq is back: yes'
    tells "the shield starts again as it was started" 'shield again: active'
    tells "stopping the units leaves the host protected" 'attached when stopped: yes'
    tells "no unit failed" 'failed units: 0'
    umount "$root/sys/fs/bpf" && mount -t bpf bpf "$root/sys/fs/bpf"
    check "a reboot detaches" lacks xdp "$(ip link show kl0)"
    echo 'dry-rnu = true' >"$root/etc/kernloom/kernloom.toml"
    boot second_boot
    tells "a mistyped line in the settings opens no host" 'attached by what was there before: yes'
    tells "after a reboot it is attached again" 'kl0: attached in driver mode'
    tells "after a reboot a denial by hand holds, with its reason" '^198\.18\.0\.9 .*scanner'
    tells "after a reboot a denial with an end holds until then" '^198\.18\.0\.10 .*[0-9]+m'
    tells "after a reboot the default limit holds" 'every source without a rule of its own: '
    tells "after a reboot the list of a file holds" '^198\.18\.0\.8 '
    tells "after a reboot an allowed source is allowed" '^198\.18\.0\.2 '
    tells "what the operator detached stays so, under the units" 'detached: inactive no'
    tells "and is attached again when the units are started" 'attached again: active active'
    tells "a removal stops the units" 'inactive inactive'
    tells "a removal detaches" 'attached when removed: no'
    tells "a purge leaves nothing" 'left: 0'
    traffic_down
}

tells() { check "$1" has "$2" "$told"; }

# Nothing of this host but its programs starts in there, and nothing reaches its kernel's settings.
machine_of_its_own() {
    local unit
    rm -rf "$root"/etc/systemd/system/*.{wants,requires} "$root/etc/systemd/system/default.target"
    : >"$root/etc/fstab"
    mkdir -p "$root/var/log/journal"
    for unit in systemd-{sysctl,modules-load,udevd,udev-trigger,logind,timesyncd,random-seed,remount-fs,binfmt}.service \
        modprobe@.service sys-{kernel-debug,kernel-config,fs-fuse-connections}.mount \
        dev-{hugepages,mqueue}.mount networking.service getty.target apparmor.service proc-sys-fs-binfmt_misc.automount; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    cat >"$root/etc/systemd/system/trial.service" <<'UNIT'
[Unit]
After=network.target kernloom-shield.service kernloom-iq@web-server.service kernloom-list@deny.service
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/bin/bash /trial
StandardOutput=file:/told
StandardError=file:/told

[Install]
WantedBy=multi-user.target
UNIT
    # A unit's own /proc would show this host's.
    mkdir "$root/etc/systemd/system/kernloom-.service.d"
    printf '[Service]\nBindReadOnlyPaths=/run/boot_id:/proc/sys/kernel/random/boot_id\n' \
        >"$root/etc/systemd/system/kernloom-.service.d/boot.conf"
    inside systemctl -q enable trial.service
    inside dpkg -i /debs/old.deb >/dev/null
    printf 'KERNLOOM_IFACE=kl0\nKERNLOOM_ATTACH_OPTIONS="--features graph --sources 16384"\nKERNLOOM_IQ_OPTIONS="%s"\n' \
        "--dry-run=false --graph --metrics-listen=127.0.0.1:9798 --metrics-textfile=/var/lib/prometheus/node-exporter/kernloom.prom" >"$root/etc/default/kernloom"
    mkdir -p "$root/var/lib/prometheus/node-exporter" "$root/etc/kernloom" && echo 198.18.0.8 >"$root/etc/kernloom/deny.list"
    inside systemctl -q enable kernloom-shield.service kernloom-iq@web-server.service kernloom-list@deny.service
}

# boot FUNCTION: boots, runs that in there once all is up, powers off; what it told is in $told.
boot() {
    { declare -f "$1" yes_no wait_for confined refusals && echo "$1" && echo 'echo over'; } >"$root/trial"
    : >"$root/told"
    timeout -s KILL 600 unshare --mount --pid --uts --ipc --cgroup --fork \
        tests/ship/container.sh "$root" >"$scratch/$1.console" 2>&1 </dev/null
    told=$(<"$root/told")
    [[ -n $told ]] || told="nothing; its console: $(<"$scratch/$1.console")"
    if [[ $told != *$'\nover' ]]; then
        told+=$'\n'"it never ended; its journal: $(journalctl -q --no-pager -n 40 -D "$root/var/log/journal" 2>&1)"
    fi
}

yes_no() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }

# Until it holds; whoever waits for what never comes is ended from outside.
wait_for() { until "$@" >/dev/null 2>&1; do sleep 0.1; done; }

first_boot() {
    local attached before iq=kernloom-iq@web-server.service
    attached() { ip link show kl0 | grep -q 'prog/xdp'; }
    denied() { kernloom shield deny list | grep -q "^$1 "; }
    pid() { systemctl show --value -p MainPID "$iq"; }
    changed() { [[ $(pid) != 0 && $(pid) != "$1" ]]; }
    systemctl is-active kernloom-shield.service "$iq" | xargs
    systemctl show -p StatusText "$iq"
    kernloom shield status
    kernloom shield deny list
    echo "handshakes watched: $(yes_no sh -c '! journalctl -u kernloom-iq@web-server | grep "not watched"')"
    echo "modes $(stat -c %a /var/lib/kernloom) $(stat -c %a /run/kernloom/iq.lock)"
    kernloom shield deny add 198.18.0.9 --reason scanner
    kernloom shield limit default --rate 5000pps
    kernloom shield deny add 198.18.0.10 --ttl 1h
    kernloom shield allow add 198.18.0.2
    before=$(pid)
    dpkg -i /debs/new.deb >/dev/null
    wait_for changed "$before"
    wait_for systemctl is-active "$iq"
    echo "attached after upgrade: $(yes_no attached)"
    echo "new iq: $(yes_no changed "$before")"
    echo "denied after upgrade: $(yes_no denied 198.18.0.9)"
    before=$(pid)
    kill -9 "$before"
    wait_for changed "$before"
    wait_for systemctl is-active "$iq"
    echo "killed iq is back: $(yes_no kernloom iq status)"
    confined
    refusals
    systemctl restart kernloom-shield.service
    echo "shield again: $(systemctl is-active kernloom-shield.service)"
    echo "failed units: $(systemctl list-units --failed --plain --no-legend 'kernloom*' | wc -l)"
    systemctl stop "$iq" kernloom-shield.service
    echo "attached when stopped: $(yes_no attached)"
}

# Where the unit's sandbox lets it write, and all that IQ writes.
confined() {
    local textfile=/var/lib/prometheus/node-exporter/kernloom.prom options=/etc/default/kernloom
    cp "$options" /tmp/options
    sed -i 's#--graph#--graph --record=/var/lib/kernloom/day.klrec#' "$options"
    systemctl restart "$iq"
    kernloom graph freeze --accept-risk >/dev/null
    # Beside what systemd keeps apart for it: its own /tmp, and /dev, /proc and /sys.
    echo "may write: $(for place in / /boot /etc /etc/{default,kernloom} /home /mnt /opt /root /run /run/kernloom /srv \
        /usr/{,local/}bin /var /var/{cache,lib,log,spool} /var/lib/{kernloom,prometheus,prometheus/node-exporter}; do
        nsenter --mount --target "$(pid)" touch "$place/.trial" 2>/dev/null && rm "$place/.trial" && echo "$place"
    done | xargs)"
    echo "kept: $(cd /var/lib/kernloom && find . -type f -printf '%P\n' | sort | xargs)"
    wait_for test -s "$textfile"
    cat "$textfile"
    echo "served: $(yes_no bash -c 'exec 3<>/dev/tcp/127.0.0.1/9798')"
    echo "report: $(yes_no kernloom report -o /tmp/report.html)"
}

# What it refuses to start with, and what systemctl tells of it.
refusals() {
    local tries='' options=/etc/default/kernloom
    tell() {
        echo "$1: $(systemctl is-failed "$iq") $(systemctl status "$iq" | xargs -0 | tr '\n' ' ')"
        tries+=" $(systemctl show --value -p NRestarts "$iq")"
    }
    sed -i 's#/var/lib/kernloom/day.klrec#/srv/day.klrec#' "$options"
    systemctl restart "$iq"
    tell elsewhere
    cp /tmp/options "$options"
    echo 'dry-rnu = true' >/etc/kernloom/kernloom.toml
    systemctl restart "$iq"
    tell mistake
    rm /etc/kernloom/kernloom.toml
    chmod 664 "$options"
    systemctl restart "$iq"
    tell writable
    chmod 644 "$options"
    systemctl restart "$iq"
    echo "mended: $(systemctl is-active "$iq")"
    echo "tries:$tries"
}

second_boot() {
    local iq=kernloom-iq@web-server.service
    echo "attached by what was there before: $(yes_no sh -c 'ip link show kl0 | grep -q prog/xdp')"
    rm /etc/kernloom/kernloom.toml
    kernloom shield status
    kernloom shield limit default
    kernloom shield deny list
    kernloom shield allow list
    kernloom shield detach --all --purge
    wait_for sh -c '! systemctl is-active kernloom-iq@web-server'
    echo "detached: $(systemctl is-active "$iq") $(yes_no sh -c 'ip link show kl0 | grep -q prog/xdp')"
    systemctl restart kernloom-shield.service
    systemctl start "$iq"
    echo "attached again: $(systemctl is-active kernloom-shield.service "$iq" | xargs)"
    dpkg -r kernloom >/dev/null
    systemctl is-active kernloom-shield.service kernloom-iq@web-server.service | xargs
    echo "attached when removed: $(yes_no sh -c 'ip link show kl0 | grep -q prog/xdp')"
    dpkg -P kernloom >/dev/null
    rm -r /etc/systemd/system/kernloom-.service.d
    echo "left: $(find /etc /usr /lib /var /run /sys/fs/bpf -xdev -name '*kernloom*' ! -path '/var/lib/systemd/*' | wc -l)"
}
