"""Hearing when a container ends: from the kernel, of its processes, whatever becomes of podman.

A descriptor is held of a container's main process and of its monitor (conmon). The first tells at once.
The second outlives it until podman has noticed, and done what the restart policy says: so whoever looked
too early is told once more, when there is something to see.

podman's own events are not listened to: that would keep its service, and 50 MiB, in memory. So what does not
run tells nothing when it is started or removed by somebody else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import suppress

import attrs

from harmony_core.reconciler import OnChange

from .podman_reply import FoundContainer

__all__ = ["ContainerEnds", "OpenProcess"]

OpenProcess = Callable[[int], int]
"""A descriptor of a process that podman knows by this number: readable once it has ended."""


@attrs.define
class _Held:
    """One start of a container. Stays known after its end, which podman may not know of yet."""

    processes: tuple[int, ...]
    descriptors: set[int] = attrs.Factory(set[int])


class ContainerEnds:
    """Learns from every look at a container what to hold."""

    def __init__(self, open_process: OpenProcess = os.pidfd_open) -> None:
        self._open_process = open_process
        self._held: dict[str, _Held] = {}
        self._keys: frozenset[str] | None = None
        self._on_change: OnChange | None = None
        self._is_closed = False

    def note_found(self, found: FoundContainer) -> None:
        """Note that podman has just reported *found*, and watch its processes if it runs."""
        if not found.running or self._is_closed or not self._is_of_interest(found.name):
            return
        held = self._held.get(found.name)
        if held is None or held.processes != found.processes:
            self._let_go(found.name)
            self._held[found.name] = _Held(found.processes)
            for process in found.processes:
                self._hold(found.name, process)

    def watch(self, names: Collection[str], on_change: OnChange) -> list[str]:
        """Watch *names* as `Reconciler.watch` does. Return those of which nothing is known, so that the
        caller looks at them."""
        before = self._keys or frozenset()
        self._keys, self._on_change = frozenset(names), on_change
        for name in self._held.keys() - self._keys:
            self._let_go(name)
        return sorted(self._keys - before - self._held.keys())

    def close(self) -> None:
        """Let go of all processes and report nothing any more. Idempotent."""
        self._is_closed = True
        self._on_change = None
        for name in list(self._held):
            self._let_go(name)

    def _is_of_interest(self, name: str) -> bool:
        """Return whether to watch *name*: every container, as long as `watch` was not called."""
        return self._keys is None or name in self._keys

    def _hold(self, name: str, process: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            descriptor = self._open_process(process)
        except ProcessLookupError:
            loop.call_soon(self._tell, name)
        except OSError:
            return  # a kernel, or a filter, that does not give it: its end is found by looking
        else:
            self._held[name].descriptors.add(descriptor)
            loop.add_reader(descriptor, self._on_end, name, descriptor)

    def _on_end(self, name: str, descriptor: int) -> None:
        self._give_back(descriptor)
        self._held[name].descriptors.discard(descriptor)
        self._tell(name)

    def _tell(self, name: str) -> None:
        if self._on_change is not None and self._is_of_interest(name):
            self._on_change(name)

    def _let_go(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            for descriptor in held.descriptors:
                self._give_back(descriptor)

    def _give_back(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        with suppress(OSError):
            os.close(descriptor)
