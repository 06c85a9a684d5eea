#!/bin/bash
# Starts a box in a control group of its own: systemd kills whatever is in a unit's group, and in a common one
# that would be the processes of other boxes, whose units have the same names.
#   start.sh GROUP LOWER_DIRECTORIES BOX_DIRECTORY NAME
set -eu
group=$1
shift

mount --make-rprivate /
# Wherever this machine has its own, or has it read-only: a mount of ours shows the same groups.
mount -t cgroup2 cgroup2 /mnt
own="/mnt$(sed -n 's/^0:://p' /proc/self/cgroup)/$group"
mkdir -p "$own"
echo $$ > "$own/cgroup.procs"
umount /mnt
exec unshare -m -p -u -i -n -C -f --kill-child=KILL bash "${0%/*}/boot.sh" "$@"
