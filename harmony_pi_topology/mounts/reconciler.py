"""Mount points, reconciled: all of it but for systemd and the kernel, so that every reconciler judges alike.

    look (the kernel's table) -> as wished: its unit is, too, and nothing is mounted
                              -> nothing there, or something else:
      refused: a line of /etc/fstab, a stranger's mount, also one over ours, a directory with files in it, the
           system's own disk, and a disk that the kernel has made read-only (`DidNotStick`)
      recorded -> its unit written and enabled (systemd)
               -> the disk is away: `HardwareMissing`; systemd mounts it as soon as it comes
               -> something else, or a disk that is gone: unmounted; `InUse` where somebody uses it
               -> mounted -> looked at again: `DidNotStick` where the kernel has it otherwise; unmounted
                  where it is something else that is seen

    removal: unmounted, or `InUse` -> unit removed -> looked at again -> the directories made for it go

Whether it is mounted again is decided by the look alone: a unit file that says something else, in whatever
unmounts nothing, changes nothing that runs.

What is recorded of ``mount:WHERE``: ``source``, what to watch below /dev; ``automount``, that there is a unit
of that kind, too; ``options``, with which it was mounted last; ``made``, that the directory was made for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityError,
    DidNotStick,
    HardwareMissing,
    InUse,
    NotOurs,
    TimedOut,
    UnitFailed,
    UnsafePath,
)
from harmony_core.reasons import reasons_in
from harmony_core.reconciler import Reconciler, Records
from harmony_core.resources import (
    AwaitsAccess,
    DiskGone,
    Mounted,
    MountPoint,
    MountState,
    SystemdUnit,
    UnitState,
    resource_id,
)
from harmony_core.steps import Changed, Did, Left, Step, Wrote
from harmony_core.unit_paths import unit_of_path
from harmony_core.unit_text import command_line, script
from harmony_pi_topology.common.gather import require_changes
from harmony_pi_topology.directories.made import id_of_made_directory, made_above, note_made
from harmony_pi_topology.posix.mounts import is_at_or_beneath
from harmony_pi_topology.systemd.records import ITS_FILE

from .in_force import CANNOT_WRITE, Difference, FoundMount, FoundSource, find_difference
from .unit import make_automount_unit, make_mount_unit

__all__ = ["MOUNTED", "UNMOUNTED", "MountTable", "Mounts", "name_of_asking"]

MOUNTED = Did("mounted")
UNMOUNTED = Did("unmounted")
_DISK_GONE = Did("unmounted a disk that is gone")
_REMEDY = (
    "the kernel, or the server, takes something else; ask for what is found, or look at `journalctl -u` of "
    "its unit"
)
_SAVED = (
    "so the kernel keeps a disk on which it has met errors from being written: look at `dmesg`, save what is "
    "on it, and run, as root on the device: umount {where} && fsck {what}; then it is mounted by itself. "
    "Where somebody has made it so: mount -o remount,rw {where}"
)
_UNIT_DIRECTORY = "/etc/systemd/system"
_AUTOFS = "autofs"
_WHAT_IS_SEEN = frozenset({"source", "type"})
"""The fields by which it is something else that is mounted."""

# $1: the unit of the mount. $2: where it is, as a pattern. What is found is told as reasons
# (`harmony_core.reasons`). Units of a boot as a whole are not stopped with it.
_ABOUT = """
needing() {
    for each in $(systemctl show --value -p RequiredBy -p RequisiteOf -p BoundBy -p ConsistsOf -- "$1"); do
        case "$each" in *.target) continue ;; esac
        ! systemctl is-active --quiet -- "$each" || echo "$each"
    done
}
using() {
    find /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe /proc/[0-9]*/fd \\
        \\( -lname "$1" -o -lname "$1/*" \\) 2>/dev/null | cut -d/ -f3 | sort -nu
}
tell_process() { echo "reason: process $1 ($(cat "/proc/$1/comm" 2>/dev/null))" >&2; }
"""

# Which processes have it as their directory, or a file on it open.
_WHO_USES = f"""{_ABOUT}
found=$(using "$2" | head -n 5)
for pid in $found; do tell_process "$pid"; done
test -z "$found"
"""

# Which units that run are stopped with it, whatever they have open.
_WHO_NEEDS = f"""{_ABOUT}
found=$(needing "$1")
for unit in $found; do echo "reason: $unit" >&2; done
test -z "$found"
"""

# Those that need it are started again with it; whoever else uses it keeps that from being begun.
_RESTART = f"""{_ABOUT}
needing=$(needing "$1")
found=
for pid in $(using "$2"); do
    its_unit=$(sed -n 's,^0::.*/\\([^/]*[.]service\\).*,\\1,p' "/proc/$pid/cgroup" 2>/dev/null)
    ! echo "$needing" | grep -qxF -- "$its_unit" || test -z "$its_unit" || continue
    found=1
    tell_process "$pid"
done
test -z "$found"
systemctl restart -- "$1"
"""


Asking: TypeAlias = Literal["users", "needs", "restart"]


class MountTable(Protocol):
    """What the rules need of kernel and disk. Every verb: a `CapabilityError` for what it will not do."""

    async def look(self, where: str) -> FoundMount | None:
        """Return what is mounted and visible at *where*; None where nothing is."""
        ...

    async def look_for_source(self, mount: MountPoint) -> FoundSource:
        """Return what the source of *mount* is now."""
        ...

    async def look_beneath(self, where: str) -> Literal["nothing", "empty", "full"]:
        """Return what is at *where*, at which nothing is mounted. Raise `UnsafePath` for what is no
        directory."""
        ...

    async def list_beneath(self, where: str) -> Sequence[str]:
        """Return the places below *where* at which something is mounted."""
        ...

    async def list_asking(self) -> Sequence[str]:
        """Return the names of the existing units that `name_of_asking` has named."""
        ...

    async def is_there(self, path: str) -> bool: ...

    async def find_fstab_line(self, where: str) -> str | None:
        """Return the line of /etc/fstab for *where*; None where there is none."""
        ...

    async def make(self, where: str) -> None:
        """Make the directory, and those above it."""

    async def missing_above(self, path: str) -> Sequence[str]:
        """Return the directories above *path* that are not there."""
        ...

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        """Remove those directories that are empty, deepest first. Return those that are gone now."""
        ...


@attrs.frozen(kw_only=True)
class _Plan:
    """One mount point on its way through one converge."""

    mount: MountPoint
    found: FoundMount | None
    source: FoundSource
    unit_steps: tuple[Step, ...]
    awaits_access: bool
    difference: Difference | None

    @property
    def must_go(self) -> bool:
        """Whether what is mounted there has to be unmounted first."""
        is_gone = self.found is not None and self.found.is_disk_gone
        return is_gone or self.difference is not None

    @property
    def is_to_be_mounted(self) -> bool:
        return (
            self.source.is_there
            and not self.mount.automount
            and (self.found is None or self.must_go)
        )

    @property
    def steps(self) -> tuple[Step, ...]:
        steps = list(self.unit_steps)
        if self.found is not None and self.found.is_disk_gone:
            steps.append(_DISK_GONE)
        elif self.difference is not None:
            steps += [_make_step(self.difference), UNMOUNTED]
        return (*steps, *((MOUNTED,) if self.is_to_be_mounted else ()))

    @property
    def before(self) -> MountState | None:
        return _state(self.found, awaits_access=self.awaits_access)


class Mounts:
    """The verbs of a `Reconciler` of mount points, but for who is told of changes.

    *units* is of systemd's units: what is done is done by it, and *table* says what came of it.
    """

    def __init__(
        self, units: Reconciler[SystemdUnit, UnitState], table: MountTable, records: Records
    ) -> None:
        self.units = units
        self.table = table
        self.records = records
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._asking: set[str] = set()
        """Units by which something is asked now."""

    @property
    def resource_class(self) -> type[MountPoint]:
        return MountPoint

    async def observe(self, key: str) -> MountState | None:
        found = await self.table.look(key)
        return _state(found, awaits_access=found is not None and found.type == _AUTOFS)

    async def converge(
        self, resources: Sequence[MountPoint], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. A mount point comes before those below it."""
        results: dict[int, Change | Exception] = {}
        for index in sorted(range(len(resources)), key=lambda n: resources[n].where):
            mount = resources[index]
            async with self._locks[mount.where]:
                try:
                    results[index] = await self._converge_one(mount, apply=apply)
                except CapabilityError as error:
                    results[index] = error.with_resource(mount.id)
        return [results[index] for index in range(len(resources))]

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. A mount point comes after those below it."""
        results: dict[str, Change | Exception] = {}
        for where in sorted(keys, reverse=True):
            rid = resource_id(MountPoint.resource_type, where)
            async with self._locks[where]:
                try:
                    results[where] = await self._remove_one(where, rid, apply=apply)
                except CapabilityError as error:
                    results[where] = error.with_resource(rid)
        return [results[key] for key in keys]

    async def _converge_one(self, mount: MountPoint, *, apply: bool) -> Change:
        plan = await self._plan(mount)
        change = Change(
            resource=mount.id, steps=plan.steps, before=plan.before, after=_expect(plan)
        )
        if not apply:
            return self._require_disk(plan, change) if not change.changed else change
        # By what is seen, too: what is recorded may have been written by an agent that was killed then.
        had_automount = (
            (self.records.get(mount.id) or {}).get("automount", False)
            or plan.awaits_access
            or (plan.found is not None and plan.found.is_automounted)
        )
        await self._note(plan)
        if plan.found is None:
            await self.table.make(mount.where)
        if plan.must_go and plan.found is not None and not await self._restart(plan):
            await self._unmount(mount, plan.found)
        if mount.automount:
            await self._do([make_mount_unit(mount), make_automount_unit(mount)])
        else:
            if had_automount:
                await self._take_away([unit_of_path(mount.where, "automount")])
            await self._do([make_mount_unit(mount)])
        self._require_disk(plan, change)
        if plan.is_to_be_mounted:
            (done,) = await self._do([make_mount_unit(mount, "running")])
            if (pending := done.pending) is not None:
                pending.resource = mount.id
                return attrs.evolve(change, after=None, pending=pending)
        try:
            return attrs.evolve(change, after=await self._look_afterwards(plan))
        except DidNotStick as error:
            is_local = mount.kind_of_source in {"device", "path"}
            if plan.is_to_be_mounted and is_local and error.field in _WHAT_IS_SEEN:
                # By this path would be seen what nobody has wished for: nor is it mounted at the next boot.
                await self._take_away([mount.unit])
            raise

    async def _plan(self, mount: MountPoint) -> _Plan:
        source = await self.table.look_for_source(mount)
        found = await self.table.look(mount.where)
        await self._refuse(mount, found, source)
        awaits = found is not None and found.type == _AUTOFS
        if awaits and mount.automount:
            found = None
        difference = None
        if found is not None and not found.is_disk_gone and source.is_there:
            difference = find_difference(mount, found, source)
            self._refuse_saved(mount, difference)
            difference = difference or self._find_other_options(mount)
        wanted = [make_mount_unit(mount)]
        if mount.automount:
            wanted.append(make_automount_unit(mount))
        planned = require_changes(await self.units.converge(wanted, apply=False))
        return _Plan(
            mount=mount,
            found=found,
            source=source,
            unit_steps=tuple(dict.fromkeys(step for each in planned for step in each.steps)),
            awaits_access=awaits,
            difference=difference,
        )

    async def _refuse(
        self, mount: MountPoint, found: FoundMount | None, source: FoundSource
    ) -> None:
        """Raise what prevents the mount, whatever is done."""
        where = mount.where
        if (line := await self.table.find_fstab_line(where)) is not None:
            raise NotOurs(
                f"/etc/fstab has a line for {where}: {line}; take it out of there (and run: systemctl "
                "daemon-reload), or leave this Score out"
            )
        if (held := self._find_other_user(mount, source)) is not None:
            raise UnsafePath(
                f"what: {mount.what} is the disk that {held} of this device is on, and would be seen by "
                f"another path; name another disk, or, where {held} is not needed any more, unmount it"
            )
        _refuse_hiding(where, found)
        is_ours = self.records.get(mount.id) is not None
        if found is None and not mount.over_files:
            if await self.table.look_beneath(where) == "full":
                raise UnsafePath(
                    f"{where} has files in it, which the mount would hide; move them away, or set over_files"
                )
        elif found is None:
            await self.table.look_beneath(where)
        elif not is_ours and not await self.table.is_there(f"{_UNIT_DIRECTORY}/{mount.unit}"):
            raise NotOurs(
                f"{found.source} is mounted at {where} already, and not by Harmony; run: umount {where}, or "
                "choose another place"
            )

    def _find_other_user(self, mount: MountPoint, source: FoundSource) -> str | None:
        """Return where else the disk of *source* is mounted, by no mount point of ours.

        What is mounted below one of ours is reached through it, and so is what podman mounts there for
        itself. Whose the mount at this place is, is another question.
        """
        ours = {mount.where} | {
            point
            for point in source.holds
            if self.records.get(resource_id(MountPoint.resource_type, point)) is not None
        }
        ours &= {*source.holds}
        others = (
            each for each in source.holds if not any(is_at_or_beneath(each, our) for our in ours)
        )
        return next(others, None)

    def _refuse_saved(self, mount: MountPoint, difference: Difference | None) -> None:
        """Raise where *difference* is that the disk can only be read, though it was mounted to be written.

        The kernel protects a disk in this way after errors. If it were mounted again, it would be written in
        spite of them.
        """
        record = self.records.get(mount.id)
        is_of_a_disk = mount.kind_of_source in {"device", "path"}
        if difference != CANNOT_WRITE or not is_of_a_disk:
            return
        if record is not None and "ro" not in record["options"]:
            raise DidNotStick(
                mount.where,
                field="options",
                wanted=CANNOT_WRITE.wanted,
                found=CANNOT_WRITE.found,
                remedy=_SAVED.format(where=mount.where, what=mount.source_path),
            )

    def _find_other_options(self, mount: MountPoint) -> Difference | None:
        """Return which desired option differs from those it was mounted with, where the kernel does not show
        it."""
        record = self.records.get(mount.id) or {}
        was: Sequence[str] = record.get("options", list(mount.options))
        if set(was) == set(mount.options):
            return None
        wanted, found = (",".join(each) or "none" for each in (mount.options, was))
        return Difference("options", wanted, found)

    def _require_disk(self, plan: _Plan, change: Change) -> Change:
        """Return *change*. Raise `HardwareMissing` where its disk is not there."""
        mount = plan.mount
        if plan.source.is_there or mount.automount:
            return change
        raise HardwareMissing(
            f"{mount.what}, to be mounted at {mount.where}, is not there; plug it in, or correct it (`lsblk "
            "-f` on the device): it is mounted by itself as soon as it is there",
            path=mount.source_path,
        )

    async def _note(self, plan: _Plan) -> None:
        """Record, before it is touched, that it is ours, and which directories are made for it."""
        mount = plan.mount
        before = self.records.get(mount.id) or {}
        stays = plan.found is not None
        missing = await self.table.missing_above(f"{mount.where}/x") if plan.found is None else ()
        record: dict[str, Any] = {
            "source": mount.source_path if mount.kind_of_source == "device" else "",
            "automount": mount.automount,
            "made": before.get("made", False) or mount.where in missing,
            "options": before.get("options", list(mount.options)) if stays else list(mount.options),
        }
        above = [each for each in missing if each != mount.where]
        await asyncio.gather(self.records.put(mount.id, record), note_made(self.records, above))

    async def _restart(self, plan: _Plan) -> bool:
        """Have systemd restart the unit. Return whether what is mounted is as desired now.

        The services that need the mount are restarted with it; if it were stopped, they would stay stopped.
        Where the unit's file is unchanged, a unit of root's tells systemd to restart it: otherwise systemd
        would do nothing.
        """
        mount = plan.mount
        if plan.difference is None or mount.automount:
            return False
        if Wrote(ITS_FILE) in plan.unit_steps:
            await self._say_who(mount.where, self._do([make_mount_unit(mount, "running")]))
        elif users := await self._ask("restart", mount.where, _RESTART):
            raise _make_in_use(mount.where, users)
        found = await self.table.look(mount.where)
        source = await self.table.look_for_source(mount)
        if found is None or find_difference(mount, found, source) is not None:
            return False
        await self._note_options(mount)
        return True

    async def _unmount(self, mount: MountPoint, found: FoundMount) -> None:
        """Unmount what is there. Raise `InUse`, with those who use it, where that is not possible."""
        if found.type == _AUTOFS:
            # Of its .mount nothing is there that could be stopped: it is the other unit that waits.
            deed = self._take_away([unit_of_path(mount.where, "automount")])
        else:
            if not found.is_disk_gone:
                await self._refuse_needed(mount.where)
            deed = self._do([make_mount_unit(mount, "stopped")])
        await self._say_who(mount.where, deed)
        after = await self.table.look(mount.where)
        if after is not None and (after.type != _AUTOFS or found.type == _AUTOFS):
            raise await self._find_users(mount.where)
        await self._note_options(mount)

    async def _note_options(self, mount: MountPoint) -> None:
        """Record the options with which it is mounted from now on."""
        record = self.records.get(mount.id) or {}
        await self.records.put(mount.id, {**record, "options": list(mount.options)})

    async def _look_afterwards(self, plan: _Plan) -> MountState | None:
        """Return what is there after the change. Raise `DidNotStick` where it differs."""
        mount = plan.mount
        found = await self.table.look(mount.where)
        awaits = found is not None and found.type == _AUTOFS
        if mount.automount and awaits:
            return AwaitsAccess()
        if found is None or awaits:
            raise DidNotStick(
                mount.where, field="state", wanted="mounted", found="nothing", remedy=_REMEDY
            )
        _refuse_hiding(mount.where, found)
        # A loop device has its number only now.
        source = await self.table.look_for_source(mount)
        if (other := find_difference(mount, found, source)) is not None:
            raise DidNotStick(
                mount.where,
                field=other.field,
                wanted=other.wanted,
                found=other.found,
                remedy=_REMEDY,
            )
        return found.state

    async def _remove_one(self, where: str, rid: str, *, apply: bool) -> Change:
        found, record = await self.table.look(where), self.records.get(rid)
        awaits = found is not None and found.type == _AUTOFS
        before = _state(found, awaits_access=awaits)
        if record is None:
            if found is None:
                return Change(resource=rid)
            raise NotOurs(
                f"{found.source} was not mounted at {where} by Harmony; run: umount {where}"
            )
        _refuse_hiding(where, found)
        names = [unit_of_path(where, "mount")]
        if record["automount"]:
            names.insert(0, unit_of_path(where, "automount"))
        planned = require_changes(await self.units.remove(names, apply=False))
        steps = _steps_of_removal(planned, found)
        if not apply:
            return Change(resource=rid, steps=steps, before=before)
        if found is not None and (beneath := await self.table.list_beneath(where)):
            raise InUse(
                f"{where} cannot be unmounted, since something is mounted below it, at {beneath[0]}; remove "
                "that first; it is tried again by itself"
            )
        if found is not None and not found.is_disk_gone and not _is_left(planned):
            await self._refuse_needed(where)
        done = await self._say_who(where, self._take_away(names))
        for pending in (each.pending for each in done if each.pending is not None):
            pending.resource = rid
            return Change(resource=rid, steps=steps, before=before, after=before, pending=pending)
        after = await self.observe(where)
        if after is not None and not _is_left(planned):
            raise await self._find_users(where)
        await self._forget(where, rid)
        return Change(resource=rid, steps=steps, before=before, after=after)

    async def _forget(self, where: str, rid: str) -> None:
        # The directory itself is noted only now: as long as something is mounted there, nobody can remove it.
        if (self.records.get(rid) or {}).get("made"):
            await note_made(self.records, [where])
        gone = await self.table.remove_empty(made_above(self.records, f"{where}/x"))
        await asyncio.gather(
            self.records.forget(rid),
            *(self.records.forget(id_of_made_directory(each)) for each in gone),
        )

    async def _take_away(self, names: Sequence[str]) -> Sequence[Change]:
        return require_changes(await self.units.remove(names, apply=True))

    async def _do(self, units: Sequence[SystemdUnit]) -> Sequence[Change]:
        return require_changes(await self.units.converge(units, apply=True))

    async def _say_who(self, where: str, deed: Awaitable[Sequence[Change]]) -> Sequence[Change]:
        """Await *deed*, which unmounts. Where it fails and the mount is still there, say who uses it."""
        try:
            return await deed
        except UnitFailed as error:
            if await self.table.look(where) is None:
                raise
            raise await self._find_users(where) from error

    async def _find_users(self, where: str) -> InUse:
        """Return an error that names the processes that use what is mounted at *where*."""
        try:
            users = await self._ask("users", where, _WHO_USES)
        except TimedOut:
            users = ""
        return _make_in_use(where, users)

    async def _refuse_needed(self, where: str) -> None:
        """Raise `InUse` where units that run need what is mounted at *where*: systemd would stop them."""
        if needing := await self._ask("needs", where, _WHO_NEEDS):
            raise InUse(
                f"{where} cannot be unmounted, since it is needed by {needing}, which would be stopped with "
                "it; stop that; it is tried again by itself"
            )

    async def _ask(self, what: Asking, where: str, text: str) -> str:
        """Return the reasons that *text*, a script about what is mounted at *where*, fails with, if it does.

        A unit of root's runs it: the agent itself may not look into other processes.
        """
        name = name_of_asking(what, where)
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", where)
        command = command_line(script(text, unit_of_path(where, "mount"), pattern))
        unit = SystemdUnit(
            name=name,
            content=(
                f"[Unit]\nDescription=Who uses a mount\n[Service]\nType=oneshot\nExecStart={command}\n"
            ),
            enabled=None,
            settle_s=0,
        )
        self._asking.add(name)
        try:
            (asked,) = await self.units.converge([unit], apply=True)
            if isinstance(asked, UnitFailed):
                return reasons_in(asked.message)
            if isinstance(asked, Exception):
                raise asked
            if asked.pending is not None:
                raise TimedOut(
                    f"who uses {where} was not answered in time; it is tried again by itself"
                )
            return ""
        finally:
            await self._take_away([name])
            self._asking.discard(name)

    async def _collect(self) -> None:
        """Remove the units with which an agent that was then killed has asked something."""
        names = [each for each in await self.table.list_asking() if each not in self._asking]
        if names:
            await self._take_away(names)


def name_of_asking(what: Asking, where: str) -> str:
    """Return the name of the unit that asks who uses, or needs, what is mounted at *where*."""
    return f"harmony-mount-{what}-{hashlib.sha256(where.encode()).hexdigest()[:12]}.service"


def _make_in_use(where: str, users: str) -> InUse:
    return InUse(
        f"{where} cannot be unmounted, since it is used by {users or 'somebody'}; end that; it is tried "
        "again by itself"
    )


def _refuse_hiding(where: str, found: FoundMount | None) -> None:
    """Raise `NotOurs` where *found* hides what is mounted at *where*: systemd would unmount both."""
    if found is not None and found.hides_from:
        raise NotOurs(
            f"{found.source} is mounted at {found.hides_from}, over what is mounted at {where}, which is not "
            f"seen for it; run: umount {found.hides_from}"
        )


def _make_step(difference: Difference) -> Step:
    return Changed(difference.field, difference.found, difference.wanted)


def _state(found: FoundMount | None, *, awaits_access: bool) -> MountState | None:
    if awaits_access:
        return AwaitsAccess()
    if found is None:
        return None
    return DiskGone(source=found.source) if found.is_disk_gone else found.state


def _expect(plan: _Plan) -> MountState | None:
    """Return what will be there, as far as that is known before the kernel says it."""
    mount = plan.mount
    if plan.found is not None and not plan.must_go:
        return plan.before
    if mount.automount:
        return AwaitsAccess()
    if not plan.source.is_there:
        return None
    return Mounted(source=mount.what, type=mount.type, options=",".join(mount.options))


def _is_left(planned: Sequence[Change]) -> bool:
    return any(isinstance(step, Left) for each in planned for step in each.steps)


def _steps_of_removal(planned: Sequence[Change], found: FoundMount | None) -> tuple[Step, ...]:
    steps = [step for each in planned for step in each.steps]
    if _is_left(planned):
        return tuple(step for step in steps if isinstance(step, Left))
    unmounts = found is not None and found.type != _AUTOFS
    return ((UNMOUNTED,) if unmounts else ()) + tuple(
        dict.fromkeys(step for step in steps if str(step) != "stopped")
    )
