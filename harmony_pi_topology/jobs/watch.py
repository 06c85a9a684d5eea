"""Questions that are asked again, apart from any turn, when a file has changed that their answer is seen in.

    /var/lib/dpkg/status changes -> a moment of quiet -> the question is asked -> no need: nobody hears of it
                                                                               -> needed: its key is told
                                                                               -> cannot be told now: later

However often a file is written, one question is asked at a time, and the next only some seconds later. So
what installs hundreds of packages makes a few cheap looks, of which none has its Score wait for a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Literal, TypeAlias

from harmony_core.reconciler import OnChange
from harmony_core.resources import Job
from harmony_pi_topology.common.path_watch import PathWatcher

__all__ = ["Answer", "QuestionWatcher"]

Answer: TypeAlias = Literal["needed", "unneeded", "unknown"]
"""Whether a job is to be run; "unknown" where that can be told only later."""

_QUIET_S = 3.0
_LATER_MOST_S = 60.0


class QuestionWatcher:
    """Watches beneath *root*, and has *ask* answer for the job of a name."""

    def __init__(self, root: str, ask: Callable[[str], Awaitable[Answer]]) -> None:
        self._files = PathWatcher(root, self._paths_of, name="watching what jobs did")
        self._ask = ask
        self._paths: dict[str, tuple[str, ...]] = {}
        self._keys: frozenset[str] = frozenset()
        self._on_change: OnChange | None = None
        self._changed: set[str] = set()
        """Jobs of which a file has changed since their question was asked."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def note(self, job: Job) -> None:
        """Watch, with *job*, the files on which its answer depends, from now on."""
        if self._paths.get(job.name, ()) != job.asked_when_changed:
            self._paths[job.name] = job.asked_when_changed
            if job.name in self._keys:
                self._files.find_anew(job.name)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        self._keys, self._on_change = frozenset(keys), on_change
        await self._files.watch([key for key in keys if self._paths.get(key)], self._hear)

    async def mend(self) -> None:
        """Try again to watch what could not be watched; see `PathWatcher.mend`."""
        await self._files.mend()

    async def close(self) -> None:
        """Stop watching, asking and reporting. Idempotent."""
        self._on_change = None
        await self._files.close()
        for task in list(self._tasks.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _paths_of(self, keys: Collection[str]) -> Mapping[str, Collection[str]]:
        return {key: self._paths.get(key, ()) for key in keys}

    def _hear(self, key: str | None) -> None:
        everything = (each for each in self._keys if self._paths.get(each))
        for name in everything if key is None else [key]:
            self._changed.add(name)
            if name not in self._tasks:
                self._tasks[name] = asyncio.ensure_future(self._ask_until_told(name))

    async def _ask_until_told(self, name: str) -> None:
        try:
            await self._ask_until_known(name)
        finally:
            self._tasks.pop(name, None)

    async def _ask_until_known(self, name: str) -> None:
        wait_s = _QUIET_S
        while name in self._changed and name in self._keys:
            await asyncio.sleep(wait_s)
            self._changed.discard(name)
            match await self._ask(name):
                case "unknown":
                    self._changed.add(name)
                    wait_s = min(2 * wait_s, _LATER_MOST_S)
                case "needed" if self._on_change is not None:
                    self._on_change(name)
                case _:
                    wait_s = _QUIET_S
