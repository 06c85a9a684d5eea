"""What podman calls an image while it pulls it from here: by the registry of that pull, until it is ours.

    recorded -> pulled -> the image has our own name -> this one is taken away -> forgotten

Where the pull or the agent ends in between, podman may still finish, and keep the image by a name that nobody
knows. So it is looked for until it is gone, or cannot come any more; at the agent's start, too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from harmony_core.errors import CapabilityError
from harmony_core.reconciler import Records

from .podman import Podman

__all__ = ["PullNames"]

_RECORD = "image-pull-names:now"
_LOOK_AGAIN_S = 1.0
_LOOK_AGAIN_MOST_S = 60.0
_MAY_COME_S = 3600.0
"""So long podman may take to unpack what it has fetched, on a slow card, after a pull has ended."""


class PullNames:
    """Those of one device. Used from one event loop."""

    def __init__(self, podman: Podman, records: Records) -> None:
        self._podman = podman
        self._records = records
        self._pulling: set[str] = set()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, name: str) -> None:
        """Record that an image is about to be pulled as *name*. Call `end` afterwards."""
        self._pulling.add(name)
        async with self._turn:
            await self._record([*self._load(), name])

    async def take_away(self, name: str) -> None:
        """Remove *name*, since the image has its own name by now. Raise `CapabilityError`."""
        await self._podman.untag(name, *name.rsplit(":", 1))
        await self.forget(name)

    def end(self, name: str) -> None:
        """Note that the pull as *name* is over, and start removing what is left of it."""
        self._pulling.discard(name)
        self.clear()

    def clear(self) -> None:
        """Start a task that removes what is left of pulls that are over."""
        if self._left() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._clear())

    async def close(self) -> None:
        """Stop removing; the next agent goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _clear(self) -> None:
        loop = asyncio.get_running_loop()
        since_s: dict[str, float] = {}
        pause_s = _LOOK_AGAIN_S
        while left := self._left():
            if left - since_s.keys():
                pause_s = _LOOK_AGAIN_S
            for name in left:
                waited_s = loop.time() - since_s.setdefault(name, loop.time())
                with suppress(CapabilityError):  # it is tried again
                    if await self._is_cleared(name) or waited_s > _MAY_COME_S:
                        await self.forget(name)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_AGAIN_MOST_S)

    async def _is_cleared(self, name: str) -> bool:
        """Remove *name*, and with its last name the image. Return False where there was none."""
        return await self._podman.has_image(name) and await self._podman.remove_image(name)

    async def forget(self, name: str) -> None:
        """Delete the record of *name*, which no image has or will get."""
        async with self._turn:
            await self._record([each for each in self._load() if each != name])

    def _left(self) -> set[str]:
        return {*self._load()} - self._pulling

    def _load(self) -> list[str]:
        record = self._records.get(_RECORD)
        return [*record["names"]] if record is not None else []

    async def _record(self, names: list[str]) -> None:
        if names:
            await self._records.put(_RECORD, {"names": names})
        else:
            await self._records.forget(_RECORD)
