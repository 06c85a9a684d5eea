#!/bin/bash
# Removes a control group, and all below it, once nothing of it runs any more: forget.sh GROUP
set -eu
mount --make-rprivate /
mount -t cgroup2 cgroup2 /mnt
own="/mnt$(sed -n 's/^0:://p' /proc/self/cgroup)/$1"
[ -d "$own" ] || exit 0
# Where the kernel has no cgroup.kill, whatever is left has been killed already, and is waited for.
[ ! -e "$own/cgroup.kill" ] || echo 1 > "$own/cgroup.kill"
for _ in $(seq 500); do
    ! grep -q 'populated 1' "$own/cgroup.events" || { sleep 0.02; continue; }
    break
done
# Several may do this at a time, of what a run has left that was killed.
find "$own" -depth -type d -exec rmdir {} + 2> /dev/null || [ ! -d "$own" ]
