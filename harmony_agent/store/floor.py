"""The floor: what was accepted here last, kept apart from what it protects. Nothing older is accepted.

    accepted -> noted with the manifest, in the database -> floor.json, flushed -> floor.copy.json -> effects

Three places, the highest of which counts, so that a damaged database, one that was put back from a backup,
or an operator's key that was taken out of agent.toml lowers nothing. Only `harmony-agent reset-floor` does.
The copy is beside agent.toml: whoever loses the state directory, or the disk that it is on, has that one.

Both files are made before anything is accepted, and say so (`NO_FLOOR`): a device that has accepted
something and finds none has lost them. They also say which root document counted here, so that none older is
believed where that one was lost (`.trust`). Each is one sector with a checksum, made under another name, and
from then on written in place: its room is taken, so that a full disk does not stop it, and a power cut spoils
at most the one that was being written. Only the first is flushed, which is the one flush that a new manifest
costs; the kernel writes the copy within half a minute, and until then the state directory says it twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import attrs

from harmony_agent.config import AgentConfig
from harmony_core.wire.manifest import Floor
from harmony_core.wire.times import rfc3339

from .database import Statement
from .flushing import make_directory, replace_file

__all__ = [
    "FLOOR_ROWS",
    "NO_FLOOR",
    "FloorFiles",
    "Found",
    "RootNote",
    "floor_of_row",
    "row_of_floor",
]

_SECTOR_BYTES = 512
_READ_MOST_BYTES = 4096
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW

_NOTE = (
    "INSERT OR REPLACE INTO floor "
    "(only, fleet, agent_id, epoch, generation, payload_sha256, issued_at) "
    "VALUES (1, ?, ?, ?, ?, ?, ?)"
)
FLOOR_ROWS = "SELECT fleet, agent_id, epoch, generation, payload_sha256, issued_at FROM floor"

NO_FLOOR = Floor(
    epoch=0,
    generation=0,
    payload_sha256="",
    issued_at=datetime.fromisoformat("1970-01-01T00:00:00+00:00"),
)
"""Of a device that has accepted nothing yet, or nothing since `harmony-agent reset-floor`: every manifest
that an operator has signed is newer."""


@attrs.frozen(kw_only=True)
class RootNote:
    """Which root document has counted here, as `Trust.remember` says it."""

    version: int
    pinned: str
    """What agent.toml pinned then: the note says nothing of a device that was let in anew."""


@attrs.frozen(kw_only=True)
class Found:
    """What the files say."""

    floor: Floor | None = None
    """The highest that is whole, and this device's."""
    damaged: bool = False
    """Whether one of them stands there and cannot be read."""
    whole: bool = False
    """Whether both say so."""
    foreign: bool = False
    """Whether one of them is another fleet's or device's."""
    root: RootNote | None = None
    """The newest root document that they know of."""

    @property
    def is_any(self) -> bool:
        """Whether there is one, of whatever use."""
        return self.floor is not None or self.damaged or self.foreign


@attrs.frozen(kw_only=True)
class FloorFiles:
    """The two files of one device. Blocks: call it in a thread."""

    first: Path
    copy: Path
    fleet: str
    agent_id: str

    @classmethod
    def of(cls, config: AgentConfig) -> Self:
        """Return those of the device that *config* is of."""
        return cls(
            first=config.state_directory / "floor.json",
            copy=config.copy_directory / "floor.copy.json",
            fleet=config.fleet,
            agent_id=config.agent_id,
        )

    def read(self) -> Found:
        """Return what they say. Another fleet's or device's floor is none; raises nothing."""
        floors: list[Floor] = []
        notes: list[RootNote] = []
        damaged = foreign = False
        for path in (self.first, self.copy):
            try:
                if not (data := _read(path)):
                    continue
                if (fields := self._parse(data)) is None:
                    foreign = True
                    continue
                floors.append(_floor_of(fields))
                if "root" in fields:
                    notes.append(
                        RootNote(version=int(fields["root"]), pinned=str(fields["pinned"]))
                    )
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError):
                damaged = True
        return Found(
            floor=max(floors, key=lambda each: each.order, default=None),
            damaged=damaged,
            whole=len(floors) == 2 and len(set(floors)) == 1 and len(set(notes)) < 2,
            foreign=foreign,
            # The first is the one that is written first.
            root=notes[0] if notes else None,
        )

    def write(self, floor: Floor, root: RootNote | None = None) -> None:
        """Make the first say *floor* and *root*, durably. `OSError` where that is not so."""
        _write(self.first, self._format(floor, root), flush=True)

    def write_copy(
        self, floor: Floor, root: RootNote | None = None, *, flush: bool = False
    ) -> None:
        """Make the copy say so, too. Without *flush*, it is on the disk within half a minute. `OSError`."""
        _write(self.copy, self._format(floor, root), flush=flush)

    def write_both(self, floor: Floor, root: RootNote | None = None) -> None:
        """Make both say so, durably. `OSError` where one of them does not: the other does, if it can."""
        try:
            self.write(floor, root)
        finally:
            self.write_copy(floor, root, flush=True)

    def _format(self, floor: Floor, root: RootNote | None) -> bytes:
        fields: dict[str, object] = {
            "fleet": self.fleet,
            "agent_id": self.agent_id,
            "epoch": floor.epoch,
            "generation": floor.generation,
            "payload_sha256": floor.payload_sha256,
            "issued_at": rfc3339(floor.issued_at),
        }
        if root is not None:
            fields |= {"root": root.version, "pinned": root.pinned}
        whole = fields | {"checksum": _checksum(fields)}
        data = json.dumps(whole, separators=(",", ":")).encode()
        return data.ljust(_SECTOR_BYTES - 1) + b"\n"

    def _parse(self, data: bytes) -> Mapping[str, Any] | None:
        fields: dict[str, Any] = json.loads(data)
        if fields.pop("checksum") != _checksum(fields):
            raise ValueError("its checksum is another")
        if (fields["fleet"], fields["agent_id"]) != (self.fleet, self.agent_id):
            return None
        return fields


def _floor_of(fields: Mapping[str, Any]) -> Floor:
    return Floor(
        epoch=int(fields["epoch"]),
        generation=int(fields["generation"]),
        payload_sha256=str(fields["payload_sha256"]),
        issued_at=datetime.fromisoformat(fields["issued_at"]),
    )


def row_of_floor(floor: Floor, *, fleet: str, agent_id: str) -> Statement:
    """Return what notes *floor* in the database."""
    return (
        _NOTE,
        (
            fleet,
            agent_id,
            floor.epoch,
            floor.generation,
            floor.payload_sha256,
            rfc3339(floor.issued_at),
        ),
    )


def floor_of_row(row: tuple[Any, ...], *, fleet: str, agent_id: str) -> Floor | None:
    """Return the floor that a row of `FLOOR_ROWS` says; None where it is another fleet's or device's."""
    of_fleet, of_agent, epoch, generation, sha256, issued_at = row
    if (of_fleet, of_agent) != (fleet, agent_id):
        return None
    return Floor(
        epoch=epoch,
        generation=generation,
        payload_sha256=sha256,
        issued_at=datetime.fromisoformat(issued_at),
    )


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
    try:
        return os.read(descriptor, _READ_MOST_BYTES)
    finally:
        os.close(descriptor)


def _write(path: Path, sector: bytes, *, flush: bool) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | _FLAGS)
    except FileNotFoundError:
        # Not in place: a power cut must leave none, rather than one that says nothing.
        make_directory(path.parent)
        replace_file(path, path.with_name(f"{path.name}.new"), sector)
        return
    try:
        if os.fstat(descriptor).st_size != len(sector):
            os.posix_fallocate(descriptor, 0, len(sector))
            os.ftruncate(descriptor, len(sector))
        if os.pwrite(descriptor, sector, 0) != len(sector):
            raise OSError(28, "no room for all of it", str(path))
        if flush:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
