#!/bin/bash
# Becomes PID 1 of a Pi in a box. Runs in fresh mount, pid, uts, ipc, network and cgroup namespaces:
#   boot.sh LOWER_DIRECTORIES BOX_DIRECTORY NAME
set -eu
lower=$1 box=$2 name=$3 root=$2/root

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$box/upper,workdir=$box/work" "$root"
# podman's own overlays cannot stand on an overlay: its storage is a plain directory.
mkdir -p "$root/var/lib/containers"
mount --bind "$box/containers" "$root/var/lib/containers"
mount -t proc proc "$root/proc"
# A read-only /sys is how network services know that no udev will announce links.
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
# Each boot of a box is one of its own, though its kernel is the host's.
cat /proc/sys/kernel/random/uuid > "$root/run/boot_id"
mount -o bind,ro "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty fuse autofs; do
    [ -e "/dev/$device" ] || continue
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
# Where the kernel booted with hybrid control groups crun refuses them; a cgroup2 mount of its own is unified.
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

# A container whose PID 1 ignores SIGTERM must not hold up a reboot for a minute and a half.
mkdir -p "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultTimeoutStopSec=3s\n' > "$root/etc/systemd/system.conf.d/10-testbed.conf"
echo "$name" > "$root/etc/hostname"
hostname "$name"
ip link set lo up
cd "$root"
mkdir -p oldroot
pivot_root . oldroot
umount -l /oldroot
# As systemd does where it is not in a container: services with mounts of their own see later ones too.
mount --make-rshared /
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=linux /sbin/init --log-target=console --log-level=warning
