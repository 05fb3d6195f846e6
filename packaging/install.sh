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
umask 022

here=$(cd "$(dirname "$0")" && pwd)
binary='' prefix='' root='' remove=''

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

# It is written into units and scripts, where other characters have a meaning.
case $prefix in
'' | /*) ;;
*) wrong "--prefix $prefix: give it from the root on, e.g. /opt/kernloom" ;;
esac
case $prefix in
*[!A-Za-z0-9/._+-]* | */../* | */..) wrong "--prefix '$prefix': use letters, digits and . _ + - only, and no .." ;;
esac
if [ -n "$root" ]; then
	root=$(cd "$root" 2>/dev/null && pwd) || wrong "--root: there is no such directory"
	root=${root%/}
fi
[ -n "$root" ] || [ "$(id -u)" = 0 ] || wrong "needs root; run it with sudo"

systemd=$root/etc/systemd/system
openrc=$root/etc/init.d
dsm=$root/usr/local/etc/rc.d
settings=$root/etc/default/kernloom
# The prefix, then a checksum of each file as it was installed.
record=$root/var/lib/kernloom/installed

# Where it was installed: by the record, else by what starts it.
installed() {
	if [ -e "$record" ]; then
		sed -n '1s/^prefix //p' "$record"
		return
	fi
	for start in "$systemd/kernloom-shield.service" "$openrc/kernloom-shield" "$dsm/kernloom.sh"; do
		[ ! -e "$start" ] || sed -nE 's#.*[= 	](/[^ ]*|)/bin/kernloom( .*)?$#\1#p' "$start"
	done | head -n 1
}
before=$(installed)

# beside TARGET new|old: what a target will be, or was, while it is replaced.
beside() { printf '%s/.%s.%s' "${1%/*}" "${1##*/}" "$2"; }

attached() {
	[ -z "$root" ] || return 1
	for instance in /sys/fs/bpf/kernloom /sys/fs/bpf/kernloom-*; do
		[ ! -e "$instance/program" ] || return 0
	done
	return 1
}

# Whatever of it an init system runs, and will run.
stop_all() {
	if [ -z "$root" ] && [ -d /run/systemd/system ]; then
		systemctl stop 'kernloom-iq@*.service' 'kernloom-list@*.service' kernloom-shield.service || true
	fi
	if [ -z "$root" ] && [ -e "$dsm/kernloom.sh" ]; then
		"$dsm/kernloom.sh" stop || true
	fi
	for service in "$openrc"/kernloom-iq.* "$openrc/kernloom-shield"; do
		[ -z "$root" ] && [ -e "$service" ] || continue
		"$service" stop || true
	done
	rm -f "$systemd"/*.wants/kernloom-*.service "$root"/etc/runlevels/*/kernloom-*
	for service in "$openrc"/kernloom-iq.*; do
		[ ! -L "$service" ] || rm -f "$service"
	done
}

if [ -n "$remove" ]; then
	if [ -n "$prefix" ] && [ -n "$before" ] && [ "$prefix" != "$before" ]; then
		wrong "kernloom is installed below $before, not $prefix; nothing was removed"
	fi
	prefix=${prefix:-${before:-/usr/local}}
	bin=$root$prefix/bin
	# Without the binary, what is left of an installation still is removed.
	[ -e "$bin/kernloom" ] || [ -n "$before" ] ||
		wrong "there is no $bin/kernloom; name where it is with --prefix. Nothing was removed"
	[ -x "$bin/kernloom" ] || ! attached ||
		refused "there is no $bin/kernloom to detach with; install it again, then remove it. Nothing was removed"
	stop_all
	for instance in /sys/fs/bpf/kernloom /sys/fs/bpf/kernloom-*; do
		if [ -z "$root" ] && [ -e "$instance/program" ]; then
			"$bin/kernloom" --config /dev/null --bpffs "$instance" shield detach --all --purge ||
				refused "$instance is still attached; the program stays, to detach it"
		fi
	done
	! attached || refused "a program is still attached; nothing was removed"
	for target in "$systemd/kernloom-shield.service" "$systemd/kernloom-iq@.service" \
		"$systemd/kernloom-list@.service" "$systemd/kernloom-.service.d/sandbox.conf" \
		"$openrc/kernloom-shield" "$openrc/kernloom-iq" "$dsm/kernloom.sh" "$settings" "$bin/kernloom" "$record"; do
		rm -f "$(beside "$target" new)" "$(beside "$target" old)"
		[ "$target" = "$settings" ] || rm -f "$target"
	done
	rmdir "$systemd/kernloom-.service.d" "${record%/*}" 2>/dev/null || true
	[ -n "$root" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
	echo "install: removed; settings and what was learned are kept: $settings, $root/etc/kernloom, $root/var/lib/kernloom"
	exit 0
fi

prefix=${prefix:-/usr/local}
bin=$root$prefix/bin
[ -n "$binary" ] || wrong "name the binary for this CPU ($(uname -m)), e.g. kernloom-x86_64"
[ -f "$binary" ] || wrong "there is no $binary"
if [ -n "$before" ] && [ "$before" != "$prefix" ]; then
	wrong "kernloom is installed below $before; give --prefix $before, or --remove that first"
fi

# machine FILE: the CPU an ELF file is for, as its header numbers it; nothing for another file.
machine() {
	od -An -tx1 -N20 "$1" 2>/dev/null | tr -d ' \n' | sed -nE 's/^7f454c46.{28}(....)$/\1/p'
}

cpu=$(machine "$binary")
[ -n "$cpu" ] || wrong "$binary is no program (ELF)"
if [ -z "$root" ]; then
	"$binary" --version >/dev/null 2>&1 || wrong "$binary does not run here: $(uname -m) needs another one"
fi
for program in usr/bin/dash usr/bin/bash bin/busybox bin/dash bin/bash; do
	program=$root/$program
	# A link in an image would lead out of it.
	if [ -n "$root" ] && [ -f "$program" ] && [ ! -L "$program" ] && [ -n "$(machine "$program")" ]; then
		[ "$(machine "$program")" = "$cpu" ] || wrong "$binary is for another CPU than $program"
		break
	fi
done

# Everything is written beside its name first, and named last; until all of it is, what was there before
# can be put back. So whatever cannot be written, and whoever interrupts, changes nothing.
list=$(mktemp) || refused "cannot make a temporary file; nothing was changed"
made=''
undo() {
	trap '' HUP INT TERM
	while IFS= read -r target; do
		if [ -e "$(beside "$target" new)" ]; then
			rm -f "$(beside "$target" new)" "$(beside "$target" old)"
		elif [ -e "$(beside "$target" old)" ]; then
			mv -f "$(beside "$target" old)" "$target"
		else
			rm -f "$target"
		fi
	done <"$list"
	rm -f "$list" "$list.why"
	# Empty ones of ours, the innermost first.
	printf '%s' "$made" | while IFS= read -r dir; do
		rmdir "$dir" 2>/dev/null || true
	done
}
trap undo EXIT
trap 'exit 1' HUP INT TERM

directory() {
	[ ! -d "$1" ] || return 0
	directory "${1%/*}" && mkdir "$1" || return 1
	made="$1
$made"
}

sum() { cksum <"$1"; }

cannot() {
	why=$(tail -n 1 "$list.why" 2>/dev/null | sed 's/.*: //')
	[ ! -d "$1" ] || why='it is a directory'
	refused "cannot write $1: ${why:-no room in ${list%/*}}; nothing was changed.${2:-}"
}

# put MODE FILE TARGET: with the binary's own place in it.
put() {
	hint=''
	[ "$2" != "$binary" ] || hint=" Another directory is named with --prefix, e.g. --prefix /opt/kernloom"
	{ directory "${3%/*}" && [ ! -d "$3" ] && stage "$1" "$3" && if [ "$2" = "$binary" ]; then
		cp "$2" "$(beside "$3" new)"
	else
		sed -E "s#/usr(/local)?/bin/kernloom#$prefix/bin/kernloom#g" "$here/$2" >"$(beside "$3" new)"
	fi; } 2>"$list.why" || cannot "$3" "$hint"
}

# stage MODE TARGET: an empty file beside it, which undo knows.
stage() {
	true >"$(beside "$2" new)" && chmod "$1" "$(beside "$2" new)" && echo "$2" >>"$list" && return
	rm -f "$(beside "$2" new)"
	return 1
}

put 755 "$binary" "$bin/kernloom"
started="no init system it knows is here; have '$prefix/bin/kernloom shield attach' run at boot"
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

# A file that somebody changed by hand is neither what was installed, by the record, nor what will be.
theirs() {
	[ "$1" != "$bin/kernloom" ] && [ "$1" != "$record" ] && [ -e "$1" ] &&
		[ "$(sum "$1")" != "$(sum "$(beside "$1" new)")" ] &&
		! grep -qxF "$(sum "$1") $1" "$record" 2>/dev/null
}

write_record() {
	directory "${record%/*}" && chmod 700 "${record%/*}" || return 1
	text="prefix $prefix"
	while IFS= read -r target; do
		text="$text
$(sum "$(beside "$target" new)") $target"
	done <"$list"
	# Not by the shell itself, which does not tell why it cannot write.
	stage 644 "$record" && printf '%s\n' "$text" | cat >"$(beside "$record" new)"
}
write_record 2>"$list.why" || cannot "$record"
said=''
while IFS= read -r target; do
	if theirs "$target"; then
		said="${said}install: $target was changed by hand and stays; the new one is $(beside "$target" new)
"
		continue
	fi
	# A second name for what is there, to go back to.
	{ [ ! -e "$target" ] || ln -f "$target" "$(beside "$target" old)"; } 2>"$list.why" || cannot "$target"
	mv -f "$(beside "$target" new)" "$target" 2>"$list.why" || cannot "$target"
done <"$list"
# From here on it is installed.
trap '' HUP INT TERM
while IFS= read -r target; do
	rm -f "$(beside "$target" old)"
done <"$list"
rm -f "$list" "$list.why"
trap - EXIT

printf '%s' "$said"
echo "install: $bin/kernloom"
echo "install: $started"
if attached; then
	echo "install: attached is still the program before; '$prefix/bin/kernloom shield upgrade' replaces it without a gap. Start IQ anew after that"
fi
