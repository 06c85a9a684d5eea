"""Mount points in memory, of a `FakeFiles`: what is mounted hides what lies beneath."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal

import attrs

from harmony_core.change import Change
from harmony_core.errors import UnitFailed, UnsafePath
from harmony_core.reconciler import Availability, OnChange
from harmony_core.resources import Active, Inactive, MountPoint, SystemdUnit, UnitState, resource_id
from harmony_core.steps import Created, Disabled, Enabled, Removed, Started, Step, Stopped, Wrote
from harmony_core.unit_paths import path_of_unit
from harmony_pi_topology.mounts.in_force import FoundMount, FoundSource
from harmony_pi_topology.mounts.reconciler import Mounts, name_of_asking
from harmony_pi_topology.systemd.records import ITS_FILE

from .fake_files import FakeFiles, MadeDirectoryRecords
from .fake_reconciler import FakeReconciler

__all__ = ["FakeMounts"]

_SINCE = "2026-01-01T00:00:00Z"
_UNIT_DIRECTORY = "/etc/systemd/system"


class FakeMounts(Mounts):
    """A `MountHost`'s reconciler, with the verbs of a bystander. ``disks`` are those that are plugged in."""

    has_automount = True

    def __init__(self, files: FakeFiles | None = None) -> None:
        self.files = files or FakeFiles()
        self.disks: set[str] = set()
        self.mounts: dict[str, list[FoundMount]] = {}
        """By their place, the one that is seen last."""
        self._used: set[str] = set()
        self._needed: dict[str, str] = {}
        self._below: dict[tuple[str, str], dict[str, bytes]] = {}
        """What is on a disk, or beneath a mount, while it is not seen."""
        self._fake_units = _Units(self)
        super().__init__(self._fake_units, _Table(self), MadeDirectoryRecords(self.files))

    def reopen(self) -> FakeMounts:
        """Return an agent that starts again on the same device: with its records, and nothing else."""
        again = copy.copy(self)
        again._locks = defaultdict(asyncio.Lock)
        return again

    async def availability(self) -> Availability:
        return await self._fake_units.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        """Watch *keys*; tell changes at once."""
        await self._fake_units.watch(keys, on_change)

    async def close(self) -> None:
        await self._fake_units.close()

    async def mount(self, what: str, where: str) -> None:
        """Mount a tmpfs, as a bystander would. So do the methods below."""
        self.files.make_directory(where)
        self.show(where, FoundMount(source=what, type="tmpfs", options=("rw", "relatime")))
        self._fake_units.tell(where)

    async def unmount(self, where: str) -> None:
        self.hide(where)

    async def remount(self, where: str, option: str) -> None:
        stack = self.mounts[where]
        name = option.partition("=")[0]
        kept = (each for each in stack[-1].options if each.partition("=")[0] != name)
        stack[-1] = attrs.evolve(stack[-1], options=(*kept, option))

    async def use(self, where: str) -> None:
        self._used.add(where)

    async def need(self, where: str) -> None:
        self._needed[name_of_asking("needs", where)] = "their.service"

    def list_needing(self, asked_by: str) -> Sequence[str]:
        """Return who needs the mount that the unit *asked_by* asks about."""
        return [unit for name, unit in self._needed.items() if name == asked_by]

    async def leave(self) -> None:
        self._used.clear()
        self._needed.clear()

    async def access(self, where: str) -> None:
        if self.mounts.get(where, [])[-1:] == [_AWAITING]:
            self._fake_units.start(where)

    def mounted(self, where: str) -> tuple[str, str] | None:
        found = self.mounts.get(where)
        return (found[-1].source, found[-1].type) if found else None

    def write(self, path: str, content: bytes) -> None:
        self.files.write(path, content)

    def delete(self, path: str) -> None:
        self.files.delete(path)

    def exists(self, path: str) -> bool:
        return self.files.exists(path)

    def read(self, path: str) -> bytes | None:
        return self.files.read(path)

    async def plug_in(self, disk: str) -> None:
        self.disks.add(disk)
        self._fake_units.tell_all()

    async def pull(self, disk: str) -> None:
        self.disks.discard(disk)
        for stack in self.mounts.values():
            stack[-1:] = [attrs.evolve(stack[-1], is_disk_gone=stack[-1].source == disk)]
        self._fake_units.tell_all()

    def is_used(self, where: str) -> bool:
        return where in self._used

    def show(self, where: str, found: FoundMount) -> None:
        """Mount *found* there: what is beneath is seen no more, and what is on it is."""
        stack = self.mounts.setdefault(where, [])
        self._swap(where, out=stack[-1].source if stack else "", into=found.source)
        stack.append(found)

    def hide(self, where: str) -> None:
        """Unmount what is seen there."""
        stack = self.mounts[where]
        gone = stack.pop()
        self._swap(where, out=gone.source, into=stack[-1].source if stack else "")
        if not stack:
            del self.mounts[where]
        self._fake_units.tell(where)

    def _swap(self, where: str, *, out: str, into: str) -> None:
        here = [path for path in self.files.paths() if path.startswith(f"{where}/")]
        self._below[where, out] = {path: self.files.read(path) or b"" for path in here}
        for path in here:
            self.files.delete(path)
        for path, content in self._below.pop((where, into), {}).items():
            self.files.write(path, content)


_AWAITING = FoundMount(source="systemd-1", type="autofs", options=("rw",))


@attrs.define
class _Unit:
    content: str
    enabled: bool = False
    active: bool = False


class _Units(FakeReconciler):
    """As much of systemd as mounts by units."""

    def __init__(self, device: FakeMounts) -> None:
        super().__init__()
        self._device = device
        self._units: dict[str, _Unit] = {}

    @property
    def resource_class(self) -> type[SystemdUnit]:
        return SystemdUnit

    async def converge(
        self, resources: Sequence[SystemdUnit], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return [self._converge_one(each, apply=apply) for each in resources]

    async def observe(self, key: str) -> UnitState | None:
        unit = self._units.get(key)
        if unit is None:
            return None
        if unit.active:
            return Active(since=_SINCE, sub="mounted", result="success", enabled=unit.enabled)
        return Inactive(sub="dead", result="success", enabled=unit.enabled)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return [self._remove_one(each, apply=apply) for each in keys]

    def tell(self, where: str) -> None:
        """Tell that the mount at *where* is another."""
        for name, unit in self._units.items():
            if path_of_unit(name) == where:
                unit.active = self._device.mounted(where) is not None
        self._watch.tell(where)

    def tell_all(self) -> None:
        """Tell that disks have come or gone."""
        self._watch.tell_all()

    def start(self, where: str) -> None:
        """Mount what its unit says."""
        name = next(
            each for each in self._units if each.endswith(".mount") and path_of_unit(each) == where
        )
        self._begin(name, self._units[name])

    def _converge_one(self, unit: SystemdUnit, *, apply: bool) -> Change | Exception:
        if unit.name.startswith("harmony-mount-needs-"):
            needing = self._device.list_needing(unit.name)
            if not needing:
                return Change(resource=unit.id)
            return UnitFailed("\n".join(("it failed", *(f"reason: {each}" for each in needing))))
        if unit.name.startswith("harmony-mount-users-"):
            return UnitFailed(f"{unit.name} failed\nreason: process 7 (sh)")
        if unit.name.startswith("harmony-mount-restart-"):
            return self._restart(unit)
        found = self._units.get(unit.name) or _Unit("")
        content, steps = unit.content or "", list[Step]()
        if found.content != content:
            steps.append(Wrote(ITS_FILE) if found.content else Created(ITS_FILE))
        if unit.enabled is not None and found.enabled != unit.enabled:
            steps.append(Enabled() if unit.enabled else Disabled())
        if unit.state == "running" and not found.active:
            steps.append(Started())
        if unit.state == "stopped" and found.active:
            steps.append(Stopped())
        if apply and (error := self._act(unit, found, steps)):
            return error
        return Change(resource=unit.id, steps=tuple(steps))

    def _restart(self, asking: SystemdUnit) -> Change | UnitFailed:
        """Mount anew what the unit *asking* is about; who needs it goes on."""
        name, unit = next(
            (name, unit)
            for name, unit in self._units.items()
            if name_of_asking("restart", path_of_unit(name) or "") == asking.name
        )
        if self._end(name, unit) is not None:
            return UnitFailed(f"{asking.name} failed\nreason: process 7 (sh)")
        self._begin(name, unit)
        return Change(resource=asking.id)

    def _act(self, unit: SystemdUnit, found: _Unit, steps: list[Step]) -> UnitFailed | None:
        if unit.state == "running" and found.active and Wrote(ITS_FILE) in steps:
            if error := self._end(unit.name, found):
                return error
            steps.append(Started())
        found.content = unit.content or ""
        found.enabled = found.enabled if unit.enabled is None else unit.enabled
        self._units[unit.name] = found
        self._device.files.write(f"{_UNIT_DIRECTORY}/{unit.name}", found.content.encode())
        if Started() in steps:
            if unit.name.endswith(".automount") and self._device.mounted(
                path_of_unit(unit.name) or ""
            ):
                return UnitFailed(
                    f"{unit.name} could not be started: its path is a mount point already"
                )
            self._begin(unit.name, found)
        return self._end(unit.name, found) if Stopped() in steps else None

    def _begin(self, name: str, unit: _Unit) -> None:
        where = path_of_unit(name) or ""
        self._device.files.make_directory(where)
        lines = (line.partition("=") for line in unit.content.splitlines())
        settings = {key: value for key, _, value in lines}
        unit.active = True
        if name.endswith(".automount"):
            self._device.show(where, _AWAITING)
            return
        options = settings.get("Options", "").split(",")
        shown = [each for each in options if each not in {"", "nofail", "bind"}]
        flags = () if "ro" in shown else ("rw",)
        self._device.show(
            where,
            FoundMount(
                source=settings["What"],
                type=settings.get("Type", "ext4"),
                options=(*flags, *shown),
                device=settings["What"] if settings["What"].startswith("/") else "",
            ),
        )

    def _end(self, name: str, unit: _Unit) -> UnitFailed | None:
        where = path_of_unit(name) or ""
        if self._device.is_used(where):
            return UnitFailed(f"{name} could not be stopped: umount: target is busy")
        while (seen := self._device.mounts.get(where)) and (
            name.endswith(".automount") or seen[-1] != _AWAITING
        ):
            self._device.hide(where)
        unit.active = False
        return None

    def _remove_one(self, name: str, *, apply: bool) -> Change | Exception:
        rid, unit = resource_id(SystemdUnit.resource_type, name), self._units.get(name)
        if unit is None:
            return Change(resource=rid)
        if apply:
            if unit.active and (error := self._end(name, unit)):
                return error
            del self._units[name]
            self._device.files.delete(f"{_UNIT_DIRECTORY}/{name}")
        stops = (Stopped(),) if unit.active else ()
        disables = (Disabled(),) if unit.enabled else ()
        return Change(resource=rid, steps=(*stops, *disables, Removed(ITS_FILE)))


class _Table:
    """A `MountTable`."""

    def __init__(self, device: FakeMounts) -> None:
        self._device = device
        self._files = device.files

    async def look(self, where: str) -> FoundMount | None:
        mounts = self._device.mounts
        found = mounts.get(where)
        if not found:
            return None
        later = list(mounts)[list(mounts).index(where) + 1 :]
        if (
            above := next((each for each in later if where.startswith(f"{each}/")), None)
        ) is not None:
            return attrs.evolve(mounts[above][-1], hides_from=above)
        is_over = len([each for each in found if each != _AWAITING]) > 1
        return attrs.evolve(
            found[-1],
            is_automounted=_AWAITING in found[:-1],
            hides_from=where if is_over else "",
        )

    async def look_for_source(self, mount: MountPoint) -> FoundSource:
        match mount.kind_of_source:
            case "device":
                is_there, device = mount.source_path in self._device.disks, mount.source_path
            case "path":
                is_there, device = self._files.exists(mount.what), mount.what
            case "network" | "word":
                is_there, device = True, ""
        holds = (
            where
            for where, stack in self._device.mounts.items()
            if mount.kind_of_source == "device" and device in {each.device for each in stack}
        )
        return FoundSource(
            is_there=is_there, device=device, names=frozenset({mount.what}), holds=tuple(holds)
        )

    async def look_beneath(self, where: str) -> Literal["nothing", "empty", "full"]:
        self._files.refuse(where)
        kind = self._files.kind_at(where)
        if kind is None:
            return "nothing"
        if kind != "directory":
            raise UnsafePath(f"{where} is a {kind}, not a directory; move it away")
        return "full" if self._files.is_full(where) else "empty"

    async def list_beneath(self, where: str) -> Sequence[str]:
        return [each for each in self._device.mounts if each.startswith(f"{where}/")]

    async def list_asking(self) -> Sequence[str]:
        return ()

    async def is_there(self, path: str) -> bool:
        return self._files.exists(path)

    async def find_fstab_line(self, where: str) -> str | None:
        lines = (self._files.read("/etc/fstab") or b"").decode().splitlines()
        return next((line for line in lines if line.split()[1:2] == [where]), None)

    async def make(self, where: str) -> None:
        self._files.make_directory(where)

    async def missing_above(self, path: str) -> Sequence[str]:
        return [each for each in self._files.above(path) if not self._files.exists(each)]

    async def remove_empty(self, paths: Sequence[str]) -> Sequence[str]:
        deepest_first = sorted(paths, key=len, reverse=True)
        return [path for path in deepest_first if self._files.remove_directory(path)]
