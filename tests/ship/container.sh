#!/usr/bin/env bash
# usage: container.sh ROOT
# Becomes systemd, as init of ROOT, in the mount, process and cgroup namespaces it was started in. The
# network and the BPF file system are those of whoever started it.
set -euo pipefail

root=$1
mount --make-rprivate /
mount --rbind "$root" "$root" && cd "$root"
umount dev proc run && mount -t proc proc proc && mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for node in null zero full random urandom; do
    touch "dev/$node" && mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/shm
# A unit's private /dev is made after this one.
ln -s pts/ptmx dev/ptmx
# By this is a reboot known.
cat /proc/sys/kernel/random/uuid >run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
umount -l sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup sys/fs/cgroup
mkdir -p before
pivot_root . before && umount -l before
exec env -i container=kernloom PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal systemd.unit=multi-user.target
