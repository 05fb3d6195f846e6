# shellcheck shell=bash disable=SC2154 # scratch: check.sh
# Sourced by check.sh: one line per check, and roots and traffic to try things on.

passed=0 failed=0

# check NAME COMMAND...: one line per check; its output when it fails.
check() {
    local name=$1 told
    shift
    if told=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        while IFS= read -r told; do echo "     $told"; done <<<"$told"
    fi
}

lacks() { ! grep -E -- "$1" <<<"$2"; }
has() { grep -qE -- "$1" <<<"$2" || { echo "no '$1' in: $2" && return 1; }; }
same() { [[ $1 == "$2" ]] || { echo "'$1' is not '$2'" && return 1; }; }

# refused CODE WORDS COMMAND...: it ends with this exit code and says so.
refused() {
    local code=$1 words=$2 told
    shift 2
    told=$("$@" 2>&1)
    same "$?" "$code" && has "$words" "$told"
}

# root NAME: an overlay of this host at $root, what it writes in $upper.
root() {
    root=$scratch/$1 upper=$scratch/$1.upper
    mkdir -p "$root" "$upper" "$scratch/$1.work"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$upper,workdir=$scratch/$1.work" "$root"
    mount -t proc proc "$root/proc" && mount -t sysfs sysfs "$root/sys" && mount -t bpf bpf "$root/sys/fs/bpf"
    mount -t tmpfs tmpfs "$root/run" && mount --bind /dev "$root/dev"
}

inside() { chroot "$root" "$@"; }

# What is in a root of ours and not of the host. A removed file is a device of its own kind.
left() {
    find "$upper" \( -path "$upper/debs" -o -path "$upper/copy" \) -prune -o -iname '*kernloom*' ! -type c \
        ! -path "$upper/var/lib/kernloom" -print
}

# A peer in a network namespace of its own, reached over kl0.
traffic_up() {
    ip netns add peer
    ip link add kl0 type veth peer name kl1 netns peer
    ip addr add 198.18.0.1/24 dev kl0 && ip link set kl0 up
    ip -n peer addr add 198.18.0.2/24 dev kl1 && ip -n peer link set kl1 up
}

traffic_down() { ip netns del peer; }

link() { ip -o link show kl0 | grep -o 'prog/xdp id [0-9]*'; }

# answers BINARY: until IQ does at its socket, once it is up.
answers() {
    for _ in {1..100}; do
        inside "$1" iq status >/dev/null 2>&1 && return 0
        read -rt 0.2 <> <(:)
    done
    inside "$1" iq status
}
