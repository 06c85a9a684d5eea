"""The holds of containers: a directory of each, mounted into it, in which it may write "not now".

It is a volume of podman's: a file system in memory of its own, of a few files and KiB, so that what fills it
fills nothing else. podman mounts it when the container starts and unmounts it when that ends, beneath a
directory that nobody but root can enter. Where that is, it says of each container.

What is in it was written by a stranger, and is read as such: what cannot be read is no hold, and the journal
says so. Reading blocks: done in a thread.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from harmony_core.change import NotReady
from harmony_core.errors import CapabilityError, ContainerFailed
from harmony_core.holds import HOLD_FILE, HOLD_MAX_BYTES, read_hold
from harmony_core.resources import Container, resource_id
from harmony_pi_topology.common.path_calls import PathCalls, step

from .hold_clock import HoldClock, WrittenHold
from .paths import place_in
from .podman import Podman
from .podman_reply import FoundContainer
from .spec import max_hold_s

__all__ = ["ContainerHolds", "hold_volume"]

log = logging.getLogger(__name__)

_READ_ONCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SIZE = {
    "type": "tmpfs",
    "device": "tmpfs",
    "o": "size=64k,nr_inodes=16,mode=1777,nosuid,nodev,noexec",
}


def hold_volume(name: str) -> str:
    """Return the name of the volume in which the container *name* writes its hold."""
    return f"harmony-hold-{name}"


class ContainerHolds:
    """Those of one device, whose files are beneath *root*; read by *calls*."""

    def __init__(self, podman: Podman, root: Path, calls: PathCalls) -> None:
        self._podman = podman
        self._root = root
        self._calls = calls
        self._clock = HoldClock()
        self._places: dict[str, str | None] = {}
        """Where each container seen has its directory; None where it has none."""
        self._told: dict[str, object] = {}
        """Which writing of a hold was last said to be wrong."""

    def note_found(self, name: str, found: FoundContainer | None) -> None:
        """Note that podman has just reported *found* as the container *name*, or, with None, that there is
        none."""
        self._places[name] = found.hold_directory if found is not None else None

    async def find_hold(self, found: FoundContainer, name: str) -> NotReady | None:
        """Return why *found*, whose name is *name*, must not be changed now; None where it may be changed."""
        most_s = max_hold_s(found.labels)
        if most_s is None or not found.running or found.hold_directory is None:
            return None
        written = await self._calls.run(self._read, name, found.hold_directory)
        return self._clock.find_hold(
            _id(name),
            written,
            life=(found.id, found.started_at),
            started_at=found.started_at,
            max_hold_s=most_s,
        )

    async def asks(self, name: str) -> bool:
        """Return whether *name* has a hold to read. This is cheap, and most often False."""
        if name not in self._places:
            return True  # not seen yet: podman knows
        place = self._places[name]
        return place is not None and await self._calls.run(self._is_written, place)

    def release(self, name: str) -> None:
        self._clock.release(_id(name))

    async def provide(self, name: str) -> None:
        """Create the volume for the hold of *name* if it is missing. Raise `ContainerFailed` where another
        volume has that name."""
        volume = hold_volume(name)
        options = await self._podman.volume_options(volume)
        if options is None:
            await self._podman.create_volume(volume, _SIZE)
        elif not _SIZE.items() <= options.items():  # podman notes more than it was given
            raise ContainerFailed(
                f"a volume {volume} is there that Harmony did not make, where {name} is to write its "
                f"holds; remove it (podman volume rm {volume})",
                resource=_id(name),
            )

    async def forget(self, name: str) -> None:
        """Remove the volume for the hold of *name*, and forget its hold: the container is gone, or may not
        hold any more."""
        self._clock.forget(_id(name))
        self._told.pop(name, None)
        with suppress(CapabilityError):  # a few KiB, and only while something uses it
            await self._podman.remove_volume(hold_volume(name))

    # From here on in a thread.

    def _is_written(self, place: str) -> bool:
        step(place)
        return os.path.lexists(self._file(place))

    def _read(self, name: str, place: str) -> WrittenHold | None:
        step(place)
        try:
            handle = os.open(self._file(place), _READ_ONCE)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(name, error.errno, f"it cannot be read: {error.strerror}")
            return None
        try:
            return self._understand(name, handle)
        except OSError as error:
            self._tell(name, error.errno, f"it cannot be read: {error.strerror}")
            return None
        finally:
            os.close(handle)

    def _understand(self, name: str, handle: int) -> WrittenHold | None:
        found = os.fstat(handle)
        writing = (found.st_ino, found.st_mtime_ns, found.st_size)
        if not stat.S_ISREG(found.st_mode):
            self._tell(name, writing, "it is not a regular file")
            return None
        hold = read_hold(os.read(handle, HOLD_MAX_BYTES + 1))
        if isinstance(hold, str):
            self._tell(name, writing, hold)
            return None
        try:
            written_at = datetime.fromtimestamp(found.st_mtime, UTC)
        except (ValueError, OverflowError):
            self._tell(name, writing, "its time is none")
            return None
        return WrittenHold(hold=hold, writing=writing, written_at=written_at)

    def _tell(self, name: str, writing: object, problem: str) -> None:
        if self._told.get(name) != writing:
            self._told[name] = writing
            log.warning("the hold of container %s holds nothing: %s", name, problem)

    def _file(self, place: str) -> Path:
        return place_in(self._root, place) / HOLD_FILE


def _id(name: str) -> str:
    return resource_id(Container.resource_type, name)
