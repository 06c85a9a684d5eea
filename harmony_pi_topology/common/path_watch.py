"""Hearing of every change at many paths, by watching the directories on the way to them.

    /etc/app/app.conf:   /  --passed-->  /etc  --passed-->  /etc/app  --held: app.conf, whatever is done to it
    /srv/web/index.html, without /srv/web:   /  --passed-->  /srv  --awaited: web

A file is replaced rather than written by whoever does it well, so what is watched is never the file but the
directory that has its name, once however many names in it matter. What a directory is moved, removed or
hidden by tells all ways that lead through it. Each step of a way is watched before the next is looked for,
and looked at once more after it is watched: so whatever is renamed in between is told.

    something happens on a way, or to it -> tell the keys whose it is -> find their ways anew, in a thread
    so much that the kernel has forgotten -> tell None                -> find all ways anew

While ways are sought nothing is read; the kernel keeps what happens meanwhile, and it is understood by the
new ways. A key whose way has become another is told of it, since what happened on the old one may be lost.

What is mounted over a way, or no more, is heard of from the kernel's list of mounts: the keys beneath are
told, and their ways are found anew, since they lead through other directories now.

No link is ever followed, and nothing outside the root is watched. What is not seen: writing through another
name of the same file (a hard link), or into memory that a file is mapped to.

What lies on a mount that hangs is left out until that answers; all else is watched meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from harmony_core.errors import CapabilityError, TimedOut
from harmony_core.reconciler import OnChange
from harmony_pi_topology.posix.beneath import give_back
from harmony_pi_topology.posix.mounts import MountEvents, is_at_or_beneath

from .path_calls import PATIENCE_S, PathCalls, Turns

if TYPE_CHECKING:
    from .inotify import Directories
    from .watch_tree import WatchTree

__all__ = ["PathWatcher", "PathsOf", "watch_itself"]

PathsOf: TypeAlias = Callable[[Collection[str]], Mapping[str, Collection[str]]]
"""The paths that each key is about. One that ends with a slash stands for everything directly in that
directory. Called in a thread, each time that ways are sought."""


def watch_itself(keys: Collection[str]) -> Mapping[str, Collection[str]]:
    """Return, as a `PathsOf`, that each key is a path and is watched at that path alone."""
    return {path: (path,) for path in keys}


_CLOSED_WITHIN_S = 5.0
_AT_ONCE = 500
"""Events that are heard before the loop may do something else."""


class PathWatcher:
    """Watches beneath *root*, once it was asked to."""

    def __init__(
        self, root: str, paths_of: PathsOf, *, name: str, patience_s: float = PATIENCE_S
    ) -> None:
        self._root = root
        self._paths_of = paths_of
        self._calls = PathCalls(name, root, patience_s=patience_s)
        self._turns = Turns()
        self._root_fd = -1
        self._directories: Directories | None = None
        self._keys: frozenset[str] = frozenset()
        self._on_change: OnChange | None = None
        self._ways: WatchTree | None = None
        self._is_used = False
        self._seeking = asyncio.Lock()
        self._is_listening = False
        self._is_due = False
        self._is_whole = True
        self._has_missed = False
        """Not all could be watched, so that what happened there was not heard."""
        self._others: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mounts: MountEvents | None = None
        self._hears_mounts = False
        self._paths: Mapping[str, Collection[str]] = {}
        """Of each key, as they were when ways were sought last."""

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        before = self._keys
        self._keys, self._on_change = frozenset(keys), on_change
        self._is_used |= bool(keys)
        is_so = self._keys == before and self._is_whole and not self._is_due
        if is_so or not self._is_used:
            return
        # Whoever asks may be cancelled: half of it would be of no use to anybody.
        await asyncio.shield(self._task(self._renew()))

    def find_anew(self, key: str) -> None:
        """Watch other paths for *key*, which has changed what it is about, and report *key* once they are
        watched."""
        if self._on_change is not None:
            self._keys |= {key}
            self._others.add(key)
            self._is_used = True
            self._renew_soon()

    async def mend(self) -> None:
        """Try again to watch what could not be watched; tell None once it can be."""
        if self._on_change is not None and not self._is_whole:
            with suppress(CapabilityError):
                await asyncio.shield(self._task(self._renew()))

    async def close(self) -> None:
        """Stop watching and reporting. Idempotent."""
        self._on_change = None
        self._stop_listening()
        self._stop_listening_for_mounts()
        if self._is_used:
            self._is_used = False
            with suppress(CapabilityError):
                # In the thread, after what it is about.
                await self._calls.run_within(_CLOSED_WITHIN_S, self._give_back)
        self._calls.close()

    async def _renew(self) -> None:
        """Find all ways again. Raise `CapabilityError` when some cannot be watched to their end.

        Once all can be watched again, report None, for whatever reason this was called.
        """
        async with self._seeking:
            if self._on_change is None:
                return
            self._is_due = self._is_whole = False
            has_missed, self._has_missed = self._has_missed, True
            others, self._others = self._others, set()
            self._stop_listening()
            try:
                ways, left_out = await self._build_known_tree()
            finally:
                self._listen()
                self._listen_for_mounts()
            before, self._ways = self._ways, ways
            self._tell([*ways.keys_elsewhere(before), *(others & self._keys)])
            if (failure := ways.failure or left_out) is not None:
                raise failure
            self._is_whole, self._has_missed = True, False
            if has_missed:
                self._tell([None])

    async def _build_known_tree(self) -> tuple[WatchTree, CapabilityError | None]:
        """Return all ways, and why some are left out: a path that is found to hang is known the second
        time."""
        try:
            return await self._calls.run(self._build_tree, self._keys)
        except TimedOut:
            return await self._calls.run(self._build_tree, self._keys)

    def _renew_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._task(self._renew())

    def _hear(self) -> None:
        ways = self._ways
        if self._directories is None or ways is None or not self._is_listening:
            return
        events = list(islice(self._directories.events(), _AT_ONCE))
        if len(events) == _AT_ONCE:
            asyncio.get_running_loop().call_soon(self._hear)
        heard: list[str | None] = []
        is_due = False
        for event in events:
            keys, is_way = ways.keys_for(event)
            heard += keys if event.watch is not None else [None]
            is_due |= is_way
        if is_due:
            self._renew_soon()
        self._tell(heard)

    def _listen_for_mounts(self) -> None:
        if self._mounts is not None and self._on_change is not None and not self._hears_mounts:
            self._hears_mounts = True
            asyncio.get_running_loop().add_reader(self._mounts.fileno(), self._hear_mounts)

    def _stop_listening_for_mounts(self) -> None:
        if self._mounts is not None and self._hears_mounts:
            self._hears_mounts = False
            asyncio.get_running_loop().remove_reader(self._mounts.fileno())

    def _hear_mounts(self) -> None:
        if self._mounts is not None:
            self._mounts.acknowledge()
            self._task(self._tell_of_mounts(self._mounts))

    async def _tell_of_mounts(self, mounts: MountEvents) -> None:
        points = await self._calls.run(mounts.take_changed_points)
        keys = [
            key
            for key, paths in self._paths.items()
            if any(self._is_beneath(path, point) for path in paths for point in points)
        ]
        if keys:
            self._renew_soon()
            self._tell(keys)

    def _is_beneath(self, path: str, point: str) -> bool:
        return is_at_or_beneath(self._root.rstrip("/") + path.rstrip("/"), point)

    def _tell(self, keys: Iterable[str | None]) -> None:
        for key in dict.fromkeys(keys):
            if self._on_change is not None:
                self._on_change(key)

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it hears of it; otherwise it is mended later

    def _listen(self) -> None:
        if self._directories is not None and self._on_change is not None:
            self._is_listening = True
            loop = asyncio.get_running_loop()
            loop.add_reader(self._directories.fileno(), self._hear)
            loop.call_soon(self._hear)  # what was read before it was understood

    def _stop_listening(self) -> None:
        if self._directories is not None and self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._directories.fileno())

    # From here on in the thread.

    def _build_tree(self, keys: Collection[str]) -> tuple[WatchTree, CapabilityError | None]:
        with self._turns.take():
            return self._build_tree_in_turn(keys)

    def _build_tree_in_turn(
        self, keys: Collection[str]
    ) -> tuple[WatchTree, CapabilityError | None]:
        # Its library takes a while to load: here, and only where something is watched.
        from . import inotify, watch_tree  # noqa: PLC0415

        try:
            if self._root_fd < 0:
                self._root_fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if self._mounts is None:
                # Before ways are sought: no mount is missed in between.
                self._mounts = MountEvents()
            if self._directories is None:
                self._directories = inotify.Directories()
        except OSError as error:
            raise watch_tree.unwatchable(error) from error
        left_out: CapabilityError | None = None
        answering: dict[str, list[str]] = {}
        self._paths = self._paths_of(keys)
        for key, paths in self._paths.items():
            answering[key] = []
            for path in paths:
                if (refusal := self._calls.refusal(path.rstrip("/"))) is None:
                    answering[key].append(path)
                left_out = left_out or refusal
        return watch_tree.build_watch_tree(self._root_fd, self._directories, answering), left_out

    def _give_back(self) -> None:
        with self._turns.take():
            if self._directories is not None:
                self._directories.close()
                self._directories = None
            if self._mounts is not None:
                self._mounts.close()
                self._mounts = None
            if self._root_fd >= 0:
                give_back(self._root_fd)
                self._root_fd = -1
