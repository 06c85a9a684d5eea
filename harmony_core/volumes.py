"""Volumes of a device, whoever made them: what a reconciler of volumes can list, save and load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import attrs

__all__ = [
    "ArchivedVolume",
    "FoundUse",
    "KeepsVolumeData",
    "ListsVolumes",
    "LoadedVolume",
    "TellBytes",
]

TellBytes: TypeAlias = Callable[[int, int], None]
"""Called now and then with how many bytes are done, and of how many; from any thread."""


@attrs.frozen(kw_only=True)
class FoundUse:
    """A volume, what it takes, and who has it."""

    name: str
    created_at: datetime
    size_bytes: int | None
    """What is in it; None where that could not be counted in time."""
    used_by: tuple[str, ...]
    """The names of the containers that have it, running or not."""


@runtime_checkable
class ListsVolumes(Protocol):
    """A reconciler that knows all volumes of its device."""

    async def list_volumes(self) -> Sequence[FoundUse]:
        """Return all volumes, by name. Raise `CapabilityError`; end within seconds."""
        ...


@attrs.frozen(kw_only=True)
class ArchivedVolume:
    """What a volume's data is as an archive."""

    size_bytes: int
    sha256: str
    rested: tuple[str, ...] = ()
    """The names of the containers that were paused or stopped meanwhile, and go on again."""


@attrs.frozen(kw_only=True)
class LoadedVolume:
    """What became of a volume's data, and of those who have it."""

    rested: tuple[str, ...] = ()
    """As of `ArchivedVolume`: they were stopped."""
    previous: str = ""
    """Where on the device the data from before is; empty where it was deleted."""


@runtime_checkable
class KeepsVolumeData(Protocol):
    """A reconciler that can read and replace all that is in a volume, one volume at a time.

    *settle* returns once nobody changes containers any more that began before it was called. Whatever ends
    one of these, also the end of the process, the volume has its old data or its new one, whole; and
    whoever was paused or stopped for it goes on: at once, or by `recover`.
    """

    async def save_volume(
        self,
        name: str,
        into: Path,
        *,
        stop: bool,
        settle: Callable[[], Awaitable[None]],
        tell: TellBytes,
    ) -> ArchivedVolume:
        """Write everything in volume *name* as a tar archive to *into*, which does not exist yet.

        Pause the containers that have the volume meanwhile; with *stop*, stop them, so that they write what
        they have in memory. Raise `VolumeMissing`, `VolumeBusy`, `NoRoom`, `ArchiveRefused` where it could
        not be loaded again, or what the device itself raises.
        """
        ...

    async def load_volume(
        self,
        name: str,
        archive: Path,
        *,
        keep_previous: bool,
        settle: Callable[[], Awaitable[None]],
    ) -> LoadedVolume:
        """Put what is in *archive*, and nothing else, into volume *name*.

        Stop the containers that have the volume meanwhile. They must stay up with the new data; otherwise
        restore the old data and raise `LoadTakenBack`. Raise `ArchiveRefused` and `NoRoom` before anything is
        touched; else as `save_volume`.
        """
        ...

    async def recover_volumes(self) -> str:
        """Finish what the end of the process has interrupted. Return what that was, or "" where there is
        nothing.

        Raise `CapabilityError` where it cannot be finished yet, and `VolumeBusy` where a volume is being
        saved or loaded just now; then call it again.
        """
        ...
