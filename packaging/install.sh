#!/bin/sh
# Copies a static kernloom binary to this host, and its units where systemd runs. Nothing is started.
#
# usage: install.sh BINARY [--prefix DIR] [--root DIR]
#        install.sh --remove [--prefix DIR] [--root DIR]
#
# --prefix  where bin/ is (default /usr/local)
# --root    another host's file system, e.g. a mounted image
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary='' prefix=/usr/local root='' remove=''

fail() {
	echo "install: $*" >&2
	exit 2
}

while [ $# -gt 0 ]; do
	case $1 in
	--prefix) prefix=${2?--prefix needs a directory} && shift ;;
	--root) root=${2?--root needs a directory} && shift ;;
	--remove) remove=yes ;;
	-*) fail "unknown option '$1'" ;;
	*) binary=$1 ;;
	esac
	shift
done

units=$root/etc/systemd/system
if [ -n "$remove" ]; then
	if [ -z "$root" ] && [ -x "$prefix/bin/kernloom" ] && [ -d /sys/fs/bpf/kernloom ]; then
		"$prefix/bin/kernloom" shield detach --all --purge
	fi
	rm -f "$root$prefix/bin/kernloom" "$units/kernloom-shield.service" "$units/kernloom-iq@.service"
	echo "install: removed; settings in $root/etc/default/kernloom are kept"
	exit 0
fi

[ -n "$binary" ] || fail "name the binary for this CPU ($(uname -m)), e.g. kernloom-x86_64"
[ -f "$binary" ] || fail "there is no $binary"
if [ -z "$root" ]; then
	"$binary" --version >/dev/null || fail "$binary does not run here: $(uname -m) needs another one"
fi
mkdir -p "$root$prefix/bin" "$root/etc/default"
# A new file, then its name: a running kernloom keeps the old one.
cp "$binary" "$root$prefix/bin/kernloom.new"
chmod 755 "$root$prefix/bin/kernloom.new"
mv "$root$prefix/bin/kernloom.new" "$root$prefix/bin/kernloom"
if [ ! -e "$root/etc/default/kernloom" ]; then
	cp "$here/kernloom.default" "$root/etc/default/kernloom"
	chmod 644 "$root/etc/default/kernloom"
fi
if [ -n "$root" ] || [ -d /run/systemd/system ]; then
	mkdir -p "$units"
	for unit in kernloom-shield.service kernloom-iq@.service; do
		sed "s#/usr/bin/kernloom#$prefix/bin/kernloom#" "$here/systemd/$unit" >"$units/$unit"
		chmod 644 "$units/$unit"
	done
	echo "install: now 'systemctl enable --now kernloom-shield.service kernloom-iq@PROFILE.service'"
fi
echo "install: $root$prefix/bin/kernloom"
