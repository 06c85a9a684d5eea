"""SwapScore: a file that the kernel swaps to, now and at every boot."""

from __future__ import annotations

import re
from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, Field, model_validator

from harmony_core import (
    HasJobs,
    HasSystemd,
    Inventory,
    Job,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.paths import AbsolutePath
from harmony_core.room import ROOM_KEPT_BYTES
from harmony_core.unit_paths import unit_of_path
from harmony_core.unit_text import script

from ._reasons import in_its_own_words
from ._undoing import DOES_NOTHING, job_name, undone_by
from ._unit_file import oneshot
from ._whole import refused_as_fields

__all__ = ["LOOK", "MAKE", "TAKE_AWAY", "SwapScore"]

_LABEL = "harmony"
_MADE_WITHIN_S = 3600.0
"""A file of some GiB, written to a slow card; and what is swapped out, read back from it."""
_LOOKED_AT_EVERY_S = 300
"""The kernel tells nobody what becomes of a swap file."""

# $1: the file. $2: its size. $3: its priority, or nothing. $4: the service. $5: systemd's unit of that file.
# The kernel lists KiB: whole pages of memory that lie together on the disk, without the one that says what it
# is. So it may have some fewer than the file, above all where pages are larger than the disk's blocks.
# ROOT is for tests alone.
_LISTED = """
path=$1 size=$2 priority=$3 unit=$4 root=${ROOT-}
listed_as() {
    while read -r name _ its_size its_used its_priority; do
        test "$name" != "$1" || return 0
    done < "$root/proc/swaps"
    return 1
}
listed() { listed_as "$path"; }
is_on() {
    listed || return 1
    test "$its_size" -lt $((size / 1024)) && test "$its_size" -gt $((size / 1024 * 7 / 8)) || return 1
    case $its_priority in
        -*) test -z "$priority" ;;
        *) test "$its_priority" = "$priority" ;;
    esac
}
"""

# Whose the file is, says the label of its swap: it is written before the file has its name, and lost with the
# file alone. Other things have labels, too.
_FILE = f"""{_LISTED}
file=$root$path directory=$root${{path%/*}}/
new=$directory.harmony.${{path##*/}}.tmp
is_there() {{ test -e "$file" || test -L "$file"; }}
value_of() {{ blkid -p -o value -s "$1" "$file" 2> /dev/null; }}
is_ours() {{
    test ! -L "$file" && test -f "$file" &&
        test "$(value_of TYPE)" = swap && test "$(value_of LABEL)" = {_LABEL}
}}
is_right() {{ is_on && test "$(stat -c '%s %a %u %g' "$file" 2> /dev/null)" = "$size 600 0 0"; }}
because() {{
    echo "reason: path: $1" >&2
    exit 1
}}
# A kernel before 5.15 lets one be deleted that it swaps to, and goes on with it; nobody can name it then.
refuse_deleted() {{
    ! listed_as "$path\\040(deleted)" ||
        because "$path was deleted while it was in use; the kernel goes on with it, and it takes its room \\
on the disk, until the device is rebooted: reboot it"
}}
mega() {{ echo "$(($1 / 1000000)) MB"; }}
# What is swapped out goes back into memory, or to other swap.
switch_off() {{
    room=$(awk '/^MemAvailable:|^SwapFree:/ {{ sum += $2 }} END {{ print sum + 0 }}' "$root/proc/meminfo")
    room=$(((room - its_size + its_used) * 1024 - {ROOM_KEPT_BYTES})) used=$((its_used * 1024))
    test "$room" -ge 0 || room=0
    test $used -eq 0 || test $used -le $room ||
        because "$(mega $used) are swapped out to $path, and memory has room for $(mega $room) only, with \\
$(mega {ROOM_KEPT_BYTES}) left free; end what needs most; until then it stays as it is"
    said=$(swapoff "$file" 2>&1) || because "swapoff has failed, and it stays as it is: $said"
    ! listed || because "swapoff has ended well, and the kernel lists $path still"
}}
exec 9> "$root/run/harmony-swap.lock"
flock 9
"""

MAKE = f"""{_FILE}
for program in mkswap swapon swapoff blkid; do
    command -v $program > /dev/null || because "this device has no $program; install mount and util-linux"
done
# What others could exchange would be read, and written, by the kernel.
at=${{path%/*}}
while :; do
    here=$root${{at:-/}}
    test ! -L "$here" || because "$at is a link; write the path that it leads to"
    test -d "$here" || because "$at is no directory; make it first, by a DirectoryScore"
    test -z "$(find "$here" -maxdepth 0 '(' ! -user root -o -perm /022 ')')" ||
        because "others than root may write to ${{at:-/}}; choose a place where they may not, as in \\
/var/swapfile"
    test -n "$at" || break
    at=${{at%/*}}
done
kind=$(stat -f -c %T "$directory")
case $kind in
    ext2/ext3 | xfs | btrfs | f2fs) ;;
    *) because "${{path%/*}}/ is on $kind, where no swap file can be; choose a place on ext4, xfs, btrfs or \\
f2fs" ;;
esac
line=$(awk -v path="$path" '$1 == path' "$root/etc/fstab" 2> /dev/null || :)
test -z "$line" || because "/etc/fstab has a line for $path: $line; take it out of there (and run: \\
systemctl daemon-reload), or leave this Score out"
other=$(systemctl show -p FragmentPath --value -- "$5" 2> /dev/null || :)
test -z "$other" || because "$other is a unit for $path already; remove it, or leave this Score out"
# $1: whose. $2: the program by which it is there. $3: its setting. Then the files that may have it.
refuse_its_file() {{
    test -e "$root$2" || return 0
    whose=$1 setting=$3
    shift 3
    its_file=$(sed -n "s/^$setting=//p" "$@" 2> /dev/null | tail -n 1)
    test "${{its_file:-/var/swap}}" != "$path" ||
        because "$path is the file of $whose; choose another path, or remove that package"
}}
refuse_its_file dphys-swapfile /sbin/dphys-swapfile CONF_SWAPFILE "$root/etc/dphys-swapfile"
refuse_its_file rpi-swap /lib/systemd/system-generators/rpi-swap-generator Path \\
    "$root/etc/rpi/swap.conf" "$root"/etc/rpi/swap.conf.d/*.conf
! is_there || is_ours ||
    because "$path is there, and not by Harmony; take it away (swapoff $path, if it is in use), or choose \\
another path"
rm -f "$new"
! is_right || exit 0
! is_on || {{ chown 0:0 "$file" && chmod 0600 "$file"; }}
! is_right || exit 0
# Each that is deleted and made again would take more of the disk.
refuse_deleted
# It has its name once it is whole. What was swapped out was given back: what it had in it is worth nothing.
name_it() {{
    mkswap -L {_LABEL} "$new" > /dev/null && sync "$new" && mv "$new" "$file" && sync "$directory"
}}
# A file with holes is refused by the kernel, as is one on btrfs that is copied when it is written.
build() {{
    rm -f "$file" "$new" && (umask 0177 && : > "$new") &&
        {{ test "$kind" != btrfs || chattr +C "$new"; }} &&
        {{ fallocate -l "$1" "$new" 2> /dev/null || head -c "$1" /dev/zero > "$new"; }} &&
        name_it
}}
begin() {{ chown 0:0 "$file" && chmod 0600 "$file" && swapon ${{1:+-p "$1"}} "$file"; }}
# One that was made by a kernel with pages of another size is taken once it is named anew.
have() {{
    if test "$(stat -c %s "$file" 2> /dev/null)" = "$1"; then
        begin "$2" 2> /dev/null || {{ mv "$file" "$new" && name_it && begin "$2"; }}
    else
        build "$1" && begin "$2"
    fi
}}
had=$(stat -c %s "$file" 2> /dev/null || echo 0) before=$priority
if listed; then
    case $its_priority in -*) before= ;; *) before=$its_priority ;; esac
fi
# What was there before is better than nothing, also after a boot.
fail() {{
    rm -f "$new"
    test "$had" -eq 0 || listed || have "$had" "$before" ||
        because "$1; and what was there before could not be switched on again"
    because "$1"
}}
free=$(($(stat -f -c '%a * %S' "$directory")))
lacking=$((size - had + {ROOM_KEPT_BYTES} - free))
test "$size" -le "$had" || test $lacking -le 0 ||
    fail "it needs $(mega $((size - had))) more, and $(mega {ROOM_KEPT_BYTES}) are left free; the disk of \\
${{path%/*}}/ has $(mega $free): free $(mega $((lacking + 999999)))"
! listed || switch_off
said=$(have "$size" "$priority" 2>&1) || fail "$(echo "$said" | tail -n 1)"
listed || because "swapon has ended well, and the kernel does not list $path"
is_on || because "of $path the kernel uses $(mega $((its_size * 1024))), with the priority $its_priority; \\
where that is too little, the disk has no room that lies together"
is_right || because "$path was made for root alone, with $size bytes, and somebody has made it otherwise"
"""

# To mend it is the agent's, which hears that the service has ended.
LOOK = f"""{_FILE}
is_right || ! systemctl is-active --quiet "$unit" || exec systemctl --no-block stop "$unit"
"""

TAKE_AWAY = f"""{_FILE}
rm -f "$new"
if is_there && is_ours; then
    ! listed || switch_off
    rm "$file"
    sync "$directory"
fi
refuse_deleted
"""

_PLAIN = re.compile(r"[A-Za-z0-9/._-]{1,150}", re.ASCII)


def _as_listed(path: str) -> str:
    if not _PLAIN.fullmatch(path):
        raise ValueError(
            "write it with letters, digits and . _ - alone, and 150 of them at most, as in /var/swapfile"
        )
    return path


class SwapHost(HasJobs, HasSystemd, Protocol):
    """What it takes to have a swap file."""


class SwapScore(Score[SwapHost]):
    """The kernel swaps to the file ``path``, of this size, now and at every boot; it is looked for in
    /proc/swaps.

    The file is made for root alone, and whole, where the disk has room for it and 64 MiB more. To change it,
    it is switched off first; where memory cannot take what is swapped out, that is a failure with both
    figures, and it stays as it is. A file that somebody else has made is never touched, nor is swap of
    dphys-swapfile, rpi-swap or zram. When the Score goes, it is switched off and deleted. The device must
    allow what runs as root (policy.toml: jobs = "any").
    """

    path: Annotated[AbsolutePath, AfterValidator(_as_listed)] = Field(
        description="The file, as in /var/swapfile: on ext4, xfs, btrfs or f2fs, where only root may write."
    )
    size_bytes: Annotated[int, Field(ge=1024**2, le=1024**4)] = Field(
        description="Its size, as in 1073741824 for 1 GiB."
    )
    priority: Annotated[int, Field(ge=0, le=32_767)] | None = Field(
        default=None,
        description="What has a higher one is used first; the kernel's own, which is the lowest, unless set.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._jobs()
            self._units()
        return self

    async def interpret(self, inventory: Inventory, topology: SwapHost) -> Outcome:  # noqa: ARG002
        # The jobs first: what was made first goes last, and that takes the file away.
        looked = await topology.jobs.ensure(*self._jobs())
        with in_its_own_words():
            return outcome_of(looked + await topology.systemd.ensure(*self._units()))

    @property
    def _name(self) -> str:
        return f"harmony-swap-{self.path[1:].replace('/', ':')}"

    def _run(self, text: str) -> tuple[str, ...]:
        priority = "" if self.priority is None else str(self.priority)
        unit = f"{self._name}.service"
        swap_unit = unit_of_path(self.path, "swap")
        return script(text, self.path, str(self.size_bytes), priority, unit, swap_unit)

    def _jobs(self) -> tuple[Job, ...]:
        """Return two jobs: the first removes the file once nobody wants it. The second looks whenever the
        Score is pushed or asked for, so that a difference is repaired at once; it leaves nothing to undo."""
        taking_away = undone_by(self._name, self._run(TAKE_AWAY))
        looking = Job(
            name=job_name(f"{self._name}.look"),
            command=self._run(LOOK),
            unless=self._run(f"{_LISTED}\nis_on"),
            undo=DOES_NOTHING,
            privileged=True,
            retry=True,
        )
        return tuple(
            each.model_copy(update={"time_limit_s": _MADE_WITHIN_S})
            for each in (taking_away, looking)
        )

    def _units(self) -> tuple[SystemdUnit, ...]:
        """Return the units: one makes the file and switches it on, and is active as long as the file is in
        use. Another one looks now and then, and stops the first if it is not."""
        name = self._name
        make = oneshot(
            f"The swap file {self.path}",
            self._run(MAKE),
            lasting=True,
            requires_mounts_for=(self.path,),
        )
        # Not OnActiveSec, which systemd counts anew each time that it reads all units.
        timer = (
            f"[Unit]\nDescription=When to look at the swap file {self.path}\n\n"
            f"[Timer]\nOnBootSec={_LOOKED_AT_EVERY_S}\nOnUnitInactiveSec={_LOOKED_AT_EVERY_S}\n"
            f"Unit={name}.look.service\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
        return (
            SystemdUnit(
                name=f"{name}.service",
                content=make,
                settle_s=0,
                start_timeout_s=_MADE_WITHIN_S,
                claims=(f"path:{self.path}",),
            ),
            SystemdUnit(
                name=f"{name}.look.service",
                content=oneshot(f"A look at the swap file {self.path}", self._run(LOOK)),
                enabled=None,
                state=None,
            ),
            SystemdUnit(name=f"{name}.timer", content=timer),
        )
