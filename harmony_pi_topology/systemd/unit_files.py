"""Unit files on disk, and the contents that units are started from. All of it happens in a thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import attrs

from harmony_core.errors import CapabilityError, UnsafePath
from harmony_core.reconciler import JsonRecord
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.common.path_calls import PATIENCE_S, PathCalls
from harmony_pi_topology.files.records import refuse_unrestorable
from harmony_pi_topology.files.removal import kind_in_words
from harmony_pi_topology.posix.root import Draft, Found, Root
from harmony_pi_topology.posix.safe_write import draft_of_backup

from .records import ABSENT

__all__ = ["OnDisk", "UnitFiles"]

MODE = 0o644

_MAX_BYTES = 1024 * 1024
_SETTING_MAX_BYTES = 4096


@attrs.frozen(kw_only=True)
class OnDisk:
    """What a unit would be started from now."""

    file: bytes | None
    """The unit file in our place; None when there is none, or when it is left to somebody else."""
    as_ours: bool
    """Its mode and owner are as we write them."""
    attributes: JsonRecord = attrs.field(factory=dict[str, Any])
    """Its mode, owner and extras; the last only where it is not as the unit wishes."""
    unrestorable: CapabilityError | None = None
    """Why it could not be put back, were it replaced."""
    uses: Mapping[str, str]
    """The digest of each file that it uses, or `ABSENT`."""
    uses_changed_at_s: Mapping[str, float] = attrs.field(factory=dict[str, float])
    """When each of those that is there was last changed, by the wall clock of then."""
    settings: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The settings of the kernel that it names, as they are; without those that cannot be read."""
    obstacle: UnsafePath | None = None
    """Why no unit file can be written there."""
    gives_way: bool = False
    """That is a link, perhaps a mask, or an empty directory: where the place is ours, it may go."""


class UnitFiles:
    """The unit files in *directory*, beneath *root*."""

    def __init__(self, root: Root, directory: str, *, patience_s: float = PATIENCE_S) -> None:
        self._root = root
        self._directory = PurePosixPath(directory)
        self._is_swept = False
        self._calls = PathCalls("unit files", root.path, patience_s=patience_s)

    async def sweep(self) -> None:
        """Take away what an agent that was killed at writing has left. Free, but for the first time."""
        if not self._is_swept:
            await self._calls.run(self._root.sweep, [str(self._directory)])
            self._is_swept = True

    async def read(self, units: Sequence[SystemdUnit]) -> list[OnDisk | CapabilityError]:
        """Return what is there for each of *units*, or why that cannot be told."""
        return await self._calls.sparing(
            [(self.path(unit.name), *unit.uses) for unit in units],
            lambda some: self._calls.run(lambda: [self._read(units[index]) for index in some]),
        )

    async def write(
        self, units: Sequence[SystemdUnit], taken: Collection[str] = ()
    ) -> list[CapabilityError | None]:
        """Replace their files, durably and all together: an error for each that could not be.

        *taken* are the names of those in whose place something stands that gives way.
        """
        return await self._calls.run(self._write, units, taken)

    async def list_contents(self, names: Sequence[str]) -> list[bytes | CapabilityError | None]:
        """Return the unit file that stands where each unit's would; None when there is none."""
        return await self._calls.run(lambda: [self._content(name) for name in names])

    async def text(self, path: str) -> str:
        """Return the unit file at *path*; empty where there is none that can be read."""
        # A Debian that is not the newest still tells /lib, which has long been a link.
        path = f"/usr{path}" if path.startswith("/lib/") else path
        try:
            content = await self._calls.run(self._file, path) if path else None
        except UnsafePath:
            return ""
        return (content or b"").decode(errors="replace")

    async def is_there(self, path: str) -> bool:
        """Return whether anything stands at *path*."""
        return await self._calls.run(self._root.look, path) is not None

    async def put_back(self, name: str, content: bytes, attributes: JsonRecord) -> None:
        """Write what was there before, durably. *attributes* are as in `OnDisk`."""
        draft = draft_of_backup(self.path(name), content, attributes)
        await self._calls.run(self._root.write_many, [draft])

    async def remove(self, name: str) -> None:
        """Remove its file, durably. Idempotent."""
        await self._calls.run(self._root.remove, self.path(name))

    async def remove_stamp(self, timer: str) -> None:
        """Remove what systemd noted of when *timer* has last elapsed, durably. Idempotent."""
        await self._calls.run(self._root.remove, f"/var/lib/systemd/timers/stamp-{timer}")

    def close(self) -> None:
        """Take no more calls."""
        self._calls.close()

    def path(self, name: str) -> str:
        """Return where the file of the unit *name* is, if it is ours."""
        return str(self._directory / name)

    def _read(self, unit: SystemdUnit) -> OnDisk | CapabilityError:
        path = self.path(unit.name)
        try:
            # When a file was changed is asked before what is in it: a change in between is seen later.
            changed_at_s = self._read_change_times(unit.uses)
            uses = {each: self._digest(each) for each in unit.uses}
            nothing = OnDisk(
                file=None,
                as_ours=False,
                uses=uses,
                uses_changed_at_s=changed_at_s,
                settings=self._read_settings(unit),
            )
            found = None if unit.content is None else self._root.look(path)
            if unit.content is None or found is None:
                return nothing
            if found.kind != "file":
                return attrs.evolve(
                    nothing,
                    obstacle=UnsafePath(
                        f"{path} is a {kind_in_words(found)}, not a file; remove it by hand"
                    ),
                    gives_way=self._root.may_give_way(path, found),
                )
            there = attrs.evolve(nothing, file=self._file(path), as_ours=_as_ours(found))
            if there.as_ours and there.file == unit.content.encode():
                return there
            return self._with_attributes(there, path, found)
        except UnsafePath as error:
            return OnDisk(file=None, as_ours=False, uses={}, obstacle=error)
        except CapabilityError as error:
            return error

    def _with_attributes(self, there: OnDisk, path: str, found: Found) -> OnDisk:
        """Return *there* with what has to be kept of a file that may be about to be replaced."""
        attributes = {"mode": found.mode, "uid": found.uid, "gid": found.gid}
        try:
            extras = self._root.extras(path)
            refuse_unrestorable(path, found, extras)
        except FileNotFoundError:
            return there
        except CapabilityError as error:
            return attrs.evolve(there, attributes=attributes, unrestorable=error)
        return attrs.evolve(there, attributes={**attributes, **extras.written})

    def _read_change_times(self, paths: Sequence[str]) -> dict[str, float]:
        found = {path: self._root.look(path) for path in paths}
        return {path: each.ctime_ns / 1e9 for path, each in found.items() if each is not None}

    def _read_settings(self, unit: SystemdUnit) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in unit.settings:
            with suppress(FileNotFoundError, CapabilityError):
                content = self._root.read(f"/proc/sys/{path}", max_bytes=_SETTING_MAX_BYTES)
                found[path] = " ".join(content.decode(errors="replace").split())
        return found

    def _file(self, path: str) -> bytes | None:
        try:
            return self._root.read(path, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            return None

    def _digest(self, path: str) -> str:
        try:
            return self._root.sha256(path)
        except FileNotFoundError:
            return ABSENT

    def _content(self, name: str) -> bytes | CapabilityError | None:
        path = self.path(name)
        try:
            found = self._root.look(path)
            return self._file(path) if found is not None and found.kind == "file" else None
        except CapabilityError as error:
            return error

    def _write(
        self, units: Sequence[SystemdUnit], taken: Collection[str]
    ) -> list[CapabilityError | None]:
        drafts = [self._draft(unit) for unit in units]
        try:
            for unit, draft in zip(units, drafts, strict=True):
                self._root.make_parents(draft.path)
                if unit.name in taken:
                    self._root.make_way(draft.path)
            self._root.write_many(drafts)
        except CapabilityError as error:
            # One that cannot be written does not stop the others.
            return (
                [error]
                if len(units) == 1
                else [each for unit in units for each in self._write([unit], taken)]
            )
        return [None] * len(units)

    def _draft(self, unit: SystemdUnit) -> Draft:
        content = (unit.content or "").encode()
        return Draft(path=self.path(unit.name), content=content, mode=MODE, uid=0, gid=0)


def _as_ours(found: Found) -> bool:
    return (found.mode, found.uid, found.gid) == (MODE, 0, 0)
