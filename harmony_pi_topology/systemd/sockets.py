"""Start a socket also while its service runs, as systemd does not: the service has a socket of before open.

note which services run -> stop the socket, then them -> start the socket -> start them again
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import attrs

from .queued_jobs import GOOD_ENDS, Jobs
from .sdbus import SystemdBus

__all__ = ["SocketJobs", "SocketRun", "is_socket"]

Note: TypeAlias = "Callable[[Sequence[str]], Awaitable[None]]"


def is_socket(name: str) -> bool:
    """Return whether the unit *name* is a socket."""
    return name.endswith(".socket")


@attrs.frozen(kw_only=True)
class SocketRun:
    """How the start of a socket went."""

    result: str | None
    """As of any job; None while it is under way, or not begun."""
    paused: tuple[str, ...] = ()
    """The services that were stopped for it."""
    still_paused: tuple[str, ...] = ()
    """Those of them that are to run again, and do not yet."""
    waits_for: tuple[str, ...] = ()
    """Those that are still stopping: it has not been started."""


class SocketJobs:
    """Starts and restarts sockets; what becomes of a service afterwards is its own affair."""

    def __init__(self, bus: SystemdBus, jobs: Jobs) -> None:
        self._bus = bus
        self._jobs = jobs

    async def run(
        self, verb: Literal["start", "restart"], name: str, *, paused: Sequence[str], note: Note
    ) -> SocketRun:
        """Start or restart the socket *name*. *paused* are services that were stopped for it before.

        *note* is called with all of them before any is stopped, so that they run again after a kill.
        """
        found = await self._bus.look(name)
        services = tuple(dict.fromkeys([*paused, *found.running_services]))
        if not services or found.load != "loaded":
            result = await self._jobs.run(verb, name)
            return SocketRun(result=result, still_paused=tuple(paused))
        await note(services)
        # The socket first: else whoever connects to it starts the service again.
        for each in (name, *found.running_services):
            await self._jobs.run("stop", each)
        stopping = (await self._bus.look(name)).running_services
        if stopping:
            return SocketRun(
                result=None, paused=services, still_paused=services, waits_for=stopping
            )
        result = await self._jobs.run("start", name)
        if result not in GOOD_ENDS:
            return SocketRun(result=result, paused=services, still_paused=services)
        await self.resume(services)
        return SocketRun(result=result, paused=services)

    async def resume(self, services: Iterable[str]) -> None:
        """Start those of *services* that are there, and do not run. Idempotent."""
        for each in services:
            found = await self._bus.look(each)
            if found.load == "loaded" and found.is_dead:
                await self._jobs.run("start", each)
