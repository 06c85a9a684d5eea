"""What lies on a disk of its own is not written beneath its mount point while that disk is away.

    path -> the mount that it is on -> remembered, before anything is written there
    remembered, of a MountScore, or named by /etc/fstab, and not mounted now -> MountMissing: nothing is
                                         written, put back or forgotten there until it is
    mounted again, whatever disk that is -> this one is the mount from now on

Only mount points above a path count. The directory at a mount point itself is there with and without its
disk: somebody has to make it before anything can be mounted. Where what is in it matters, the path ends with
a slash. Who has lost a disk for good says so by mounting anything in its place, such as the directory on
itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from harmony_core.change import Change
from harmony_core.claims import Identifying
from harmony_core.errors import MountMissing
from harmony_core.reconciler import Availability, OnChange, Reconciler, Records
from harmony_core.resources import MountPoint, Resource, State, resource_id
from harmony_pi_topology.posix.mounts import Mount, MountEvents, is_at_or_beneath, mounts_of

from .worker import Worker

__all__ = ["MountGuard", "OnMounts", "PreparingOnMounts"]

ResourceT = TypeVar("ResourceT", bound=Resource)
StateT = TypeVar("StateT", bound=State)
StateT_co = TypeVar("StateT_co", bound=State, covariant=True)

_READ_WITHIN_S = 5.0
_FSTAB_READ_EVERY_S = 60.0
_ALWAYS_THERE = frozenset({"/", "/run", "/tmp", "/dev", "/dev/shm", "/proc", "/sys"})  # noqa: S108 - names


class _Table:
    """What is mounted, and what /etc/fstab has mounted at boot, by mount point: as it was at one time.

    Asked for every resource of every push, most of them in few directories: a directory is looked up once.
    """

    def __init__(self, mounted: Mapping[str, Mount], configured: Mapping[str, str]) -> None:
        self.mounted = mounted
        self.configured = configured
        """The source of each, such as ``UUID=…``."""
        self.absent = configured.keys() - mounted.keys()
        """The configured mount points that nothing is mounted at."""
        self._points: dict[str, str] = {}

    def point_above(self, path: str) -> str:
        """Return the nearest mount point above *path*; ``/`` where there is no other."""
        directory = path.rpartition("/")[0] or "/"
        point = self._points.get(directory)
        if point is None:
            point = next((each for each in _above(path) if each in self.mounted), "/")
            self._points[directory] = point
        return point

    def missing_above(self, path: str) -> str | None:
        """Return the configured mount point above *path* at which nothing is mounted."""
        return next((each for each in _above(path) if each in self.absent), None)


class _OfOurs:
    """The mount points of Scores, by what is recorded of them: before they are first mounted, too.

    For one question: which there are changes without the kernel saying so.
    """

    def __init__(self, records: Records, root: str, table: _Table) -> None:
        self._records = records
        self._root = root
        self._mounted = table.mounted
        self._found: dict[str, str | None] = {}

    def missing_above(self, path: str) -> str | None:
        """Return the nearest mount point above *path* at which nothing is mounted."""
        directory = path.rpartition("/")[0]
        if directory not in self._found:
            self._found[directory] = next(filter(self._is_missing, _above(path)), None)
        return self._found[directory]

    def _is_missing(self, point: str) -> bool:
        is_ours = self._records.get(resource_id(MountPoint.resource_type, point)) is not None
        return is_ours and self._root + point not in self._mounted


class MountGuard:
    """Knows which mounts each resource was on. *root* is / or a folder that stands for a device.

    *device* is where the device's / is seen, where those mounts count that its PID 1 sees rather than this
    process. With *follows*, a resource is on what it was on when it was last remembered, rather than first:
    it moves to what is mounted over it.
    """

    def __init__(
        self, root: str, records: Records, *, device: Path | None = None, follows: bool = False
    ) -> None:
        self._root = root.rstrip("/")
        self._records = records
        self._follows = follows
        self._device = device
        self._seen_by = ("self", Path("/proc"))
        self._worker = Worker("reading mounts", threads=1, timeout_s=_READ_WITHIN_S)
        self._events: MountEvents | None = None
        self._reading = asyncio.Lock()
        self._table = _Table({}, {})
        self._read_at_s = 0.0

    async def missing(self, paths_of: Mapping[str, Collection[str]]) -> dict[str, MountMissing]:
        """Return, by resource id, the resources whose mount is missing, given the paths of each."""
        table = await self._current()
        record_of = self._records.get
        # Asked of every resource of every pass: most have no record, and no mount is away.
        of_ours = _OfOurs(self._records, self._root, table)
        doubtful = (
            rid
            for rid, paths in paths_of.items()
            if table.absent
            or record_of(_record_key(rid)) is not None
            or any(of_ours.missing_above(path) is not None for path in paths)
        )
        found = {rid: self._missing(table, rid, paths_of[rid]) for rid in doubtful}
        return {rid: next(iter(errors.values())) for rid, errors in found.items() if errors}

    async def missing_of(self, rid: str, paths: Collection[str]) -> dict[str, MountMissing]:
        """Return, by path, which of the *paths* of one resource have a missing mount."""
        return self._missing(await self._current(), rid, paths)

    async def remember(self, paths_of: Mapping[str, Collection[str]]) -> None:
        """Remember the mount of each, durably, as it was when `missing` was last asked.

        What was first made on one file system belongs there, whatever is mounted over it later: that mount
        may go again, and then our file is visible. Write nothing for what is on the root file system.
        """
        table = self._table
        records = {rid: self._record_of(table, paths) for rid, paths in paths_of.items()}
        news = {
            _record_key(rid): record
            for rid, record in records.items()
            if record is not None and self._is_news(rid, record)
        }
        if news:
            # Side by side, so that they share a flush to disk.
            await asyncio.gather(*(self._records.put(key, record) for key, record in news.items()))
        if self._follows:
            for rid, record in records.items():
                if record is None:
                    await self.forget(rid)

    def _is_news(self, rid: str, record: Mapping[str, Any]) -> bool:
        before = self._records.get(_record_key(rid))
        if self._follows:
            return before != record
        if before is None:
            return (
                self._records.get(rid) is None
            )  # else it was made before anything was mounted there
        return before["point"] == record["point"] and before != record

    async def forget(self, rid: str) -> None:
        """Forget a resource that is gone."""
        if self._records.get(_record_key(rid)) is not None:
            await self._records.forget(_record_key(rid))

    async def close(self) -> None:
        """Close what listens to the kernel. Idempotent."""
        if self._events is not None:
            self._events.close()
            self._events = None
        self._worker.close()

    def _missing(self, table: _Table, rid: str, paths: Collection[str]) -> dict[str, MountMissing]:
        record = self._records.get(_record_key(rid))
        mounts = () if record is None else (record, *record.get("others", ()))
        was_on = {m["point"]: m["source"] for m in mounts if m["point"] not in table.mounted}
        missing: dict[str, MountMissing] = {}
        of_ours = _OfOurs(self._records, self._root, table)
        for path in paths:
            here = self._root + path
            if (point := of_ours.missing_above(path)) is not None:
                missing[path] = MountMissing(
                    f"nothing is mounted at {point}, and a MountScore has it mounted there; plug its "
                    "disk in, or see what that Score says, or remove it: this goes on by itself",
                    point=point,
                    resource=rid,
                )
            elif (point := next((p for p in was_on if here.startswith(f"{p}/")), None)) is not None:
                missing[path] = _missing(rid, point, f"it was on {was_on[point]} there")
            elif (point := table.missing_above(here)) is not None:
                source = table.configured[point]
                missing[path] = _missing(rid, point, f"/etc/fstab has {source} mounted there")
        return missing

    def _record_of(self, table: _Table, paths: Collection[str]) -> Mapping[str, Any] | None:
        """Return the first mount of any of *paths*, with the others; None where all are on /."""
        points = dict.fromkeys(table.point_above(self._root + path) for path in paths)
        mounts = [
            {
                "point": point,
                "source": table.mounted[point].source,
                "kind": table.mounted[point].kind,
            }
            for point in points
            if point not in _ALWAYS_THERE and not is_at_or_beneath(self._root or "/", point)
        ]
        if len(mounts) > 1:
            return {**mounts[0], "others": mounts[1:]}
        return mounts[0] if mounts else None

    async def _current(self) -> _Table:
        """Return what is mounted now; read it again only after the kernel has reported a change."""
        # The kernel says it once: whoever asks while it is read must wait for it, and not go by what was.
        async with self._reading:
            is_old = time.monotonic() - self._read_at_s > _FSTAB_READ_EVERY_S
            if self._events is None or is_old or self._events.has_changed():
                self._table = await self._worker.run(self._read)
                self._read_at_s = time.monotonic()
            return self._table

    def _read(self) -> _Table:
        if self._events is None:
            # A folder that stands for a device has no processes: what this one sees is mounted there, then.
            if self._device is not None and (self._device / "proc/1").exists():
                self._seen_by = ("1", self._device / "proc")
            self._events = MountEvents(*self._seen_by)
        self._events.acknowledge()
        # Of several at one point the last is what is seen.
        mounted = {each.point: each for each in mounts_of(*self._seen_by)}
        return _Table(
            mounted, {} if self._root else _read_config((self._device or Path("/")) / "etc/fstab")
        )


class _PreparingReconciler(Reconciler[ResourceT, StateT_co], Protocol[ResourceT, StateT_co]):
    async def prepare(self, resources: Sequence[Any]) -> None: ...


class OnMounts(Generic[ResourceT, StateT]):
    """A reconciler whose resources lie at paths, kept from writing beneath a mount point without its disk.

    Everything else is *inner*'s. Which paths they take, `Resource.paths_of` says.
    """

    def __init__(self, inner: Reconciler[ResourceT, StateT], guard: MountGuard) -> None:
        self._inner = inner
        self._identifying = inner if isinstance(inner, Identifying) else None
        self._guard = guard

    @property
    def resource_class(self) -> type[ResourceT]:
        return self._inner.resource_class

    async def converge(
        self, resources: Sequence[ResourceT], *, apply: bool
    ) -> Sequence[Change | Exception]:
        """Converge *resources*. Answer `MountMissing` for what would be written beneath a mount point."""
        paths = {each.id: self._paths_of(each.key) for each in resources}
        missing = await self._guard.missing(paths)
        if not missing:
            if apply:
                await self._guard.remember(paths)
            return await self._inner.converge(resources, apply=apply)
        here = [each for each in resources if each.id not in missing]
        if apply:
            await self._guard.remember({each.id: paths[each.id] for each in here})
        results = iter(await self._inner.converge(here, apply=apply) if here else ())
        return [missing[each.id] if each.id in missing else next(results) for each in resources]

    async def identities(self, resource: ResourceT) -> frozenset[str]:
        return (
            frozenset()
            if self._identifying is None
            else await self._identifying.identities(resource)
        )

    async def observe(self, key: str) -> StateT | None:
        """Observe *key*. Raise `MountMissing` where the disk, which is not mounted, would hide what is
        seen."""
        rid = self._rid(key)
        if (
            missing := (await self._guard.missing({rid: self._paths_of(key)})).get(rid)
        ) is not None:
            raise missing
        return await self._inner.observe(key)

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        """Remove *keys*. What is on a disk that is away is removed once the disk is back."""
        rids = {key: self._rid(key) for key in keys}
        missing = await self._guard.missing({rid: self._paths_of(key) for key, rid in rids.items()})
        here = [key for key in keys if rids[key] not in missing]
        results = dict(
            zip(here, await self._inner.remove(here, apply=apply) if here else (), strict=True)
        )
        if apply:
            for key, result in results.items():
                if isinstance(result, Change):
                    await self._guard.forget(rids[key])
        return [results[key] if key in results else missing[rids[key]] for key in keys]

    async def availability(self) -> Availability:
        return await self._inner.availability()

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        await self._inner.watch(keys, on_change)

    async def close(self) -> None:
        await self._guard.close()
        await self._inner.close()

    def _paths_of(self, key: str) -> Collection[str]:
        return self._inner.resource_class.paths_of(key) or ()

    def _rid(self, key: str) -> str:
        return resource_id(self._inner.resource_class.resource_type, key)


class PreparingOnMounts(OnMounts[ResourceT, StateT]):
    """`OnMounts` of a reconciler that is `Preparing`."""

    def __init__(self, inner: _PreparingReconciler[ResourceT, StateT], guard: MountGuard) -> None:
        super().__init__(inner, guard)
        self._preparing = inner

    async def prepare(self, resources: Sequence[ResourceT]) -> None:
        """Prepare *resources*. Raise `MountMissing`, as for `converge`."""
        missing = await self._guard.missing(
            {each.id: self._paths_of(each.key) for each in resources}
        )
        for error in missing.values():
            raise error
        await self._preparing.prepare(resources)


def _above(path: str) -> Iterator[str]:
    """Yield every directory above *path*, which is absolute and has no ``//``, the nearest first."""
    while len(path) > 1:
        path = path.rpartition("/")[0] or "/"
        yield path


def _record_key(rid: str) -> str:
    return f"mount:{rid}"


def _missing(rid: str, point: str, why: str) -> MountMissing:
    return MountMissing(
        f"nothing is mounted at {point}, and {why}; mount it again, or, where that disk is gone for good, "
        f"run: mount --bind {point} {point}",
        point=point,
        resource=rid,
    )


def _read_config(fstab: Path) -> dict[str, str]:
    """Return the source of each mount point that is mounted at boot; none where the file cannot be read."""
    try:
        lines = fstab.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return {}
    fields = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return {
        point.rstrip("/") or "/": source
        for source, point, kind, options in (each[:4] for each in fields if len(each) >= 4)
        if point.startswith("/") and kind != "swap" and "noauto" not in options.split(",")
    }
