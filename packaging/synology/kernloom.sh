#!/bin/sh
# Start script for Synology DSM: /usr/local/etc/rc.d/kernloom.sh, mode 0755, owner root.
# DSM runs what lies there with 'start' after boot and with 'stop' before shutdown.
#
# usage: kernloom.sh start|stop|status
set -eu

BINARY=/usr/local/bin/kernloom
SETTINGS=${KERNLOOM_SETTINGS:-/usr/local/etc/kernloom.conf}
LISTS=${KERNLOOM_LISTS:-/usr/local/etc/kernloom}
LOG=${KERNLOOM_LOG:-/var/log/kernloom.log}
PIDFILE=${KERNLOOM_PIDFILE:-/run/kernloom-iq.pid}

KERNLOOM_IFACE=
KERNLOOM_PROFILE=
KERNLOOM_ATTACH_OPTIONS=
KERNLOOM_IQ_OPTIONS=

# The settings are run as root: nobody else may own or write them.
if [ -e "$SETTINGS" ]; then
	# shellcheck disable=SC2012 # mode and owner, by number
	about=$(ls -lnL "$SETTINGS" | awk '{ print $1 ":" $3 }')
	case $about in
	?????w*:* | ????????w*:*)
		echo "$0: others may write $SETTINGS; run 'chmod go-w $SETTINGS'" >&2
		exit 2
		;;
	*:0) ;;
	*)
		echo "$0: $SETTINGS belongs to user ${about##*:}; run 'chown root $SETTINGS'" >&2
		exit 2
		;;
	esac
	# shellcheck source=/dev/null
	. "$SETTINGS"
fi

# Another process may have got the number since, one that only names kernloom among its words, too.
running() {
	[ -e "$PIDFILE" ] && [ "$(readlink "/proc/$(cat "$PIDFILE")/exe" 2>/dev/null | sed 's/ (deleted)$//')" = "$BINARY" ]
}

# Whether IQ answers; it has half a minute to load its program.
answers() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
		running || return 1
		! "$BINARY" iq status >/dev/null 2>&1 || return 0
		sleep 1
	done
	return 1
}

# shellcheck disable=SC2086 # options are words
start() {
	"$BINARY" shield attach --wait=60s $KERNLOOM_IFACE $KERNLOOM_ATTACH_OPTIONS
	for list in deny allow; do
		[ ! -e "$LISTS/$list.list" ] || "$BINARY" shield "$list" import "$LISTS/$list.list" ||
			echo "$0: $LISTS/$list.list is not loaded" >&2
	done
	if [ -n "$KERNLOOM_PROFILE" ] && ! running; then
		(umask 077 && : >>"$LOG")
		"$BINARY" iq --profile="$KERNLOOM_PROFILE" $KERNLOOM_IQ_OPTIONS >>"$LOG" 2>&1 </dev/null &
		echo $! >"$PIDFILE"
		if ! answers; then
			echo "$0: iq does not run; the end of $LOG says why" >&2
			return 1
		fi
	fi
}

# The data plane stays: 'kernloom shield detach' lets go of it.
stop() {
	if running; then
		kill "$(cat "$PIDFILE")"
		# It saves its state; whoever starts it again finds its lock free.
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			running || break
			sleep 1
		done
	fi
	rm -f "$PIDFILE"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status)
	"$BINARY" shield status
	if running && "$BINARY" iq status >/dev/null 2>&1; then
		echo "iq runs"
	else
		echo "iq does not run"
		exit 3
	fi
	;;
*)
	echo "usage: $0 start|stop|status" >&2
	exit 2
	;;
esac
