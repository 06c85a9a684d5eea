"""The holds of containers: a directory of each, mounted into it, in which it may write "not now".

It lies on /run beneath a directory that nobody but root can enter, so that nobody else on the device can
write there; what is in it was written by a stranger, and is read as such. Reading blocks: done in a thread.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from harmony_core.change import NotReady
from harmony_core.holds import HOLD_FILE, HOLD_MAX_BYTES, HoldClock, WrittenHold, read_hold
from harmony_core.resources import Container, resource_id
from harmony_pi_topology.common.worker import Worker

from .plan import max_hold_s
from .podman_reply import FoundContainer

__all__ = ["ContainerHolds", "hold_directory", "hold_file"]

log = logging.getLogger(__name__)

_HOLDS = "/run/harmony/holds"
_READ_ONCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def hold_directory(name: str) -> str:
    """On the device: what the container *name* sees as its own."""
    return f"{_HOLDS}/{name}"


def hold_file(name: str) -> str:
    return f"{_HOLDS}/{name}/{HOLD_FILE}"


class ContainerHolds:
    """Those of one device, whose files are beneath *root*; read by *worker*."""

    def __init__(self, root: Path, worker: Worker) -> None:
        self._root = root
        self._worker = worker
        self._clock = HoldClock()
        self._told: dict[str, object] = {}
        """Which writing of a hold was last said to be wrong."""

    async def held(self, found: FoundContainer, name: str) -> NotReady | None:
        """Why *found*, known as *name*, is not to be changed now."""
        most_s = max_hold_s(found.labels)
        if most_s is None or not found.running:
            return None
        written = await self._worker.run(self._read, name)
        return self._clock.held(
            _id(name),
            written,
            life=(found.id, found.started_at),
            started_at=found.started_at,
            max_hold_s=most_s,
        )

    async def asks(self, name: str) -> bool:
        """Whether there is anything at all to be read for *name*: cheap, and most often not so."""
        return await self._worker.run(os.path.lexists, self._below(hold_file(name)))

    def release(self, name: str) -> None:
        self._clock.release(_id(name))

    async def provide(self, name: str) -> None:
        """Have its directory there, whatever is in it."""
        await self._worker.run(self._provide, name)

    async def prepare(self, name: str) -> None:
        """Have its directory there, and nothing in it, before it starts."""
        await self._worker.run(self._prepare, name)

    async def forget(self, name: str) -> None:
        """It is gone, and so is what it held."""
        self._clock.forget(_id(name))
        await self._worker.run(self._clear, name)

    def _prepare(self, name: str) -> None:
        self._clear(name)
        self._provide(name)

    def _provide(self, name: str) -> None:
        holds = self._below(_HOLDS)
        holds.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = self._below(hold_directory(name))
        own.mkdir(exist_ok=True)
        own.chmod(0o777)  # whoever runs in the container; of others, none comes as far as this

    def _clear(self, name: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._below(hold_directory(name)))

    def _read(self, name: str) -> WrittenHold | None:
        try:
            handle = os.open(self._below(hold_file(name)), _READ_ONCE)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                return None
            writing = (found.st_ino, found.st_mtime_ns, found.st_size)
            hold = read_hold(file.read(HOLD_MAX_BYTES + 1))
        if isinstance(hold, str):
            self._tell(name, writing, hold)
            return None
        written_at = datetime.fromtimestamp(found.st_mtime, UTC)
        return WrittenHold(hold=hold, writing=writing, written_at=written_at)

    def _tell(self, name: str, writing: object, problem: str) -> None:
        if self._told.get(name) != writing:
            self._told[name] = writing
            log.warning("the hold of container %s holds nothing: %s", name, problem)

    def _below(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _id(name: str) -> str:
    return resource_id(Container.resource_type, name)
