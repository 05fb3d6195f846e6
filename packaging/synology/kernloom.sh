#!/bin/sh
# Start script for Synology DSM: /usr/local/etc/rc.d/kernloom.sh, mode 0755, owner root.
# DSM runs what lies there with 'start' after boot and with 'stop' before shutdown.
#
# usage: kernloom.sh start|stop|status
set -eu

BINARY=${KERNLOOM_BINARY:-/usr/local/bin/kernloom}
SETTINGS=${KERNLOOM_SETTINGS:-/usr/local/etc/kernloom.conf}
LOG=${KERNLOOM_LOG:-/var/log/kernloom.log}
PIDFILE=${KERNLOOM_PIDFILE:-/run/kernloom-iq.pid}

KERNLOOM_IFACE=
KERNLOOM_PROFILE=
KERNLOOM_ATTACH_OPTIONS=
KERNLOOM_IQ_OPTIONS=
# shellcheck source=/dev/null
[ ! -e "$SETTINGS" ] || . "$SETTINGS"

running() {
	[ -e "$PIDFILE" ] && kill -0 "$(cat "$PIDFILE")" 2>/dev/null
}

# shellcheck disable=SC2086 # options are words
start() {
	"$BINARY" shield attach $KERNLOOM_IFACE $KERNLOOM_ATTACH_OPTIONS
	if [ -n "$KERNLOOM_PROFILE" ] && ! running; then
		"$BINARY" iq --profile="$KERNLOOM_PROFILE" $KERNLOOM_IQ_OPTIONS >>"$LOG" 2>&1 &
		echo $! >"$PIDFILE"
	fi
}

# The data plane stays: 'kernloom shield detach' lets go of it.
stop() {
	if running; then
		kill "$(cat "$PIDFILE")"
	fi
	rm -f "$PIDFILE"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status)
	if running; then echo "iq runs"; else echo "iq does not run"; fi
	"$BINARY" shield status
	;;
*)
	echo "usage: $0 start|stop|status" >&2
	exit 2
	;;
esac
