#!/bin/sh
# Copies a static kernloom binary to this host, with what its init system starts it by: systemd,
# OpenRC or Synology's DSM. Nothing is started. Run it again to replace what runs.
#
# usage: install.sh BINARY [--prefix DIR] [--root DIR]
#        install.sh --remove [--prefix DIR] [--root DIR]
#
# --prefix  where bin/ is (default /usr/local)
# --root    another host's file system, e.g. a mounted image
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary='' prefix=/usr/local root='' remove=''

# The operator's mistake.
wrong() {
	echo "install: $*" >&2
	exit 2
}

# The host's refusal.
refused() {
	echo "install: $*" >&2
	exit 1
}

while [ $# -gt 0 ]; do
	case $1 in
	--prefix) prefix=${2?--prefix needs a directory} && shift ;;
	--root) root=${2?--root needs a directory} && shift ;;
	--remove) remove=yes ;;
	-*) wrong "unknown option '$1'" ;;
	*) [ -z "$binary" ] || wrong "two binaries are named, $binary and $1" && binary=$1 ;;
	esac
	shift
done

bin=$root$prefix/bin
systemd=$root/etc/systemd/system
openrc=$root/etc/init.d
dsm=$root/usr/local/etc/rc.d
settings=$root/etc/default/kernloom

if [ -n "$remove" ]; then
	for instance in /sys/fs/bpf/kernloom /sys/fs/bpf/kernloom-*; do
		if [ -z "$root" ] && [ -d "$instance" ] && [ -x "$bin/kernloom" ]; then
			"$bin/kernloom" --bpffs "$instance" shield detach --all --purge ||
				refused "$instance is still attached; nothing was removed"
		fi
	done
	rm -f "$bin/kernloom" "$systemd/kernloom-shield.service" "$systemd/kernloom-iq@.service" \
		"$systemd/kernloom-list@.service" "$systemd/kernloom-.service.d/sandbox.conf" \
		"$openrc/kernloom-shield" "$openrc/kernloom-iq" "$dsm/kernloom.sh"
	rmdir "$systemd/kernloom-.service.d" 2>/dev/null || true
	echo "install: removed; settings and what was learned are kept: $settings, $root/etc/kernloom, $root/var/lib/kernloom"
	exit 0
fi

[ -n "$binary" ] || wrong "name the binary for this CPU ($(uname -m)), e.g. kernloom-x86_64"
[ -f "$binary" ] || wrong "there is no $binary"
if [ -z "$root" ]; then
	"$binary" --version >/dev/null 2>&1 || wrong "$binary does not run here: $(uname -m) needs another one"
fi

# Everything is tried before anything is changed: a new file, then its name. A running kernloom keeps
# the old one.
if ! { mkdir -p "$bin" && cp "$binary" "$bin/kernloom.new" && chmod 755 "$bin/kernloom.new"; } 2>/dev/null; then
	rm -f "$bin/kernloom.new" 2>/dev/null || true
	refused "cannot write to $bin; name a directory that can be written, e.g. --prefix /opt/kernloom"
fi
mv "$bin/kernloom.new" "$bin/kernloom"

# put MODE FILE TARGET: with the binary's own place in it.
put() {
	mkdir -p "${3%/*}"
	sed -E "s#/usr(/local)?/bin/kernloom#$prefix/bin/kernloom#g" "$here/$2" >"$3.new"
	chmod "$1" "$3.new"
	mv "$3.new" "$3"
}

started=''
if [ -e "$root/etc/synoinfo.conf" ]; then
	put 755 synology/kernloom.sh "$dsm/kernloom.sh"
	started="settings go into $root/usr/local/etc/kernloom.conf; then '$dsm/kernloom.sh start'"
elif [ -x "$root/sbin/openrc-run" ] && [ ! -d "$root/run/systemd/system" ]; then
	put 755 openrc/kernloom-shield "$openrc/kernloom-shield"
	put 755 openrc/kernloom-iq "$openrc/kernloom-iq"
	started="now 'rc-update add kernloom-shield', and 'ln -s kernloom-iq $openrc/kernloom-iq.PROFILE' to score"
elif [ -n "$root" ] || [ -d /run/systemd/system ]; then
	for unit in shield iq@ list@; do
		put 644 "systemd/kernloom-$unit.service" "$systemd/kernloom-$unit.service"
	done
	put 644 systemd/sandbox.conf "$systemd/kernloom-.service.d/sandbox.conf"
	started="now 'systemctl daemon-reload' and 'systemctl enable --now kernloom-shield.service kernloom-iq@PROFILE.service'"
fi
if [ ! -e "$root/etc/synoinfo.conf" ] && [ ! -e "$settings" ]; then
	put 644 kernloom.default "$settings"
fi
echo "install: $bin/kernloom"
[ -z "$started" ] || echo "install: $started"
if [ -z "$root" ] && [ -d /sys/fs/bpf/kernloom ]; then
	echo "install: attached is still the program before; '$prefix/bin/kernloom shield upgrade' replaces it without a gap"
fi
