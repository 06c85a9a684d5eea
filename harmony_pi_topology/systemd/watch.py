"""Hearing of every change of units: what becomes of them by D-Bus, what they are made of by inotify.

A unit is made of its file, its drop-ins, the links that enable it, and the files that its newest Score says
it uses.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from harmony_core.reconciler import OnChange
from harmony_core.resources import SystemdUnit
from harmony_pi_topology.common.path_watch import PathWatcher

from .signals import UnitSignals
from .waker import Waker

__all__ = ["UnitWatcher"]

_LINKS = (".wants", ".requires", ".upholds")
"""How the directories end in which links say what is enabled."""


class UnitWatcher:
    """Units whose own files are in *unit_directory* beneath *root*."""

    def __init__(
        self, address: str | None, root: str, unit_directory: str, *, answer_within_s: float
    ) -> None:
        self._root = root
        self._own = unit_directory
        self._others = (
            "/run/systemd/system",
            f"{unit_directory}.control",
            "/run/systemd/system.control",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
        )
        self._signals = UnitSignals(address, waker=Waker(root), answer_within_s=answer_within_s)
        self._files = PathWatcher(root, self._paths_of, name="watching unit files")
        self._used: dict[str, tuple[str, ...]] = {}
        self._watched: frozenset[str] = frozenset()

    def note(self, units: Iterable[SystemdUnit]) -> None:
        """Watch what *units* use, with them, from now on."""
        for unit in units:
            if self._used.get(unit.name, ()) != unit.uses:
                self._used[unit.name] = unit.uses
                if unit.name in self._watched:
                    self._files.find_anew(unit.name)

    def forget(self, names: Iterable[str]) -> None:
        """Forget what *names* use."""
        for name in names:
            self._used.pop(name, None)

    async def watch(self, keys: Collection[str], on_change: OnChange) -> None:
        self._watched = frozenset(keys)
        results = await asyncio.gather(
            self._signals.watch(keys, on_change),
            self._files.watch(keys, on_change),
            return_exceptions=True,
        )
        for result in results:
            if result is not None:
                raise result

    async def mend(self) -> None:
        """Listen anew where that has broken off; within two seconds, as far as D-Bus is concerned."""
        await asyncio.gather(self._signals.mend(), self._files.mend())

    async def close(self) -> None:
        self._signals.close()
        await self._files.close()

    def _paths_of(self, keys: Collection[str]) -> Mapping[str, Collection[str]]:
        links = self._directories_of_links()
        return {
            key: [
                *self._files_of(key),
                *(f"{directory}/{key}" for directory in links),
                *self._used.get(key, ()),
            ]
            for key in keys
        }

    def _files_of(self, key: str) -> Iterator[str]:
        """Yield the unit's file and its drop-ins wherever systemd looks for them, and those of an instance's
        template."""
        name, at, rest = key.partition("@")
        names = {key, f"{name}@.{rest.rpartition('.')[2]}"} if at else {key}
        for directory in (self._own, *self._others):
            for each in names:
                yield f"{directory}/{each}"
                yield f"{directory}/{each}.d/"

    def _directories_of_links(self) -> list[str]:
        found: list[str] = []
        with suppress(OSError), os.scandir(f"{self._root}{self._own}") as entries:
            found = [each.name for each in entries if each.name.endswith(_LINKS)]
        return [f"{self._own}/{name}" for name in found]
