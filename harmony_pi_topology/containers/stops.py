"""Stopping containers without waiting for them: a stop is asked for, looked at, and made good at its time.

    its stop signal is sent -> it ends within a moment -> stopped
                            -> looked at again, later  -> stopped
                            -> stop_timeout_s are over -> killed

podman's own stop would hold one of its two threads for all that time, which may be an hour, and with two of
them every other container would wait. When one was asked is known here alone: an agent that starts again
meanwhile asks once more, and gives it its whole time again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from harmony_core.change import NotReady
from harmony_core.resources import Container, resource_id

from .podman import Podman
from .podman_reply import FoundContainer

__all__ = ["ContainerStops"]

_MOMENT_S = (0.05, 0.1, 0.2, 0.4)
"""The pauses in which most have ended."""
_LOOK_AGAIN_S = 1.0


class ContainerStops:
    """The stops under way, by the ids of containers."""

    def __init__(
        self, podman: Podman, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._podman = podman
        self._monotonic_s = monotonic_s
        self._asked_at_s: dict[str, float] = {}

    async def stop(self, found: FoundContainer) -> NotReady | None:
        """Stop *found*, which was just looked at. Return how long it is given while it still runs; None once
        it has stopped."""
        if not found.alive:
            self.forget(found)
            return None
        if found.id not in self._asked_at_s and found.stop_timeout_s > 0:
            await self._ask(found)
            if await self._ends_soon(found):
                self.forget(found)
                return None
        if (left_s := self._remaining_s(found)) > 0:
            return NotReady(
                f"{found.name} is stopping ({found.stop_timeout_s} s grace period)",
                resource=resource_id(Container.resource_type, found.name),
                reason="Progressing",
                look_again_s=min(left_s, _LOOK_AGAIN_S),
            )
        await self._podman.kill(found.id)
        self.forget(found)
        return None

    async def end(self, found: FoundContainer) -> bool:
        """Kill *found*, and make sure that it stays ended. podman may be about to start it again, shortly
        after its end, and then ignores a stop that came before.

        Return whether podman reports that it has ended.
        """
        now: FoundContainer | None = found
        for pause_s in (*_MOMENT_S, 0.0):
            if _has_ended(found, now):
                break
            await self._podman.kill(found.id)
            await asyncio.sleep(pause_s)
            now = await self._podman.inspect(found.name)
        self.forget(found)
        return _has_ended(found, now)

    def forget(self, found: FoundContainer) -> None:
        """Forget that *found* was asked to stop."""
        self._asked_at_s.pop(found.id, None)

    async def _ask(self, found: FoundContainer) -> None:
        if found.status == "paused":
            # What is frozen hears nothing.
            await self._podman.start(found.id, found.name, paused=True)
        await self._podman.ask_to_end(found.id, signal=found.stop_signal)
        self._asked_at_s[found.id] = self._monotonic_s()

    async def _ends_soon(self, found: FoundContainer) -> bool:
        for pause_s in _MOMENT_S:
            await asyncio.sleep(min(pause_s, max(0.0, self._remaining_s(found))))
            now = await self._podman.inspect(found.name)
            if now is None or now.id != found.id or not now.alive:
                return True
        return False

    def _remaining_s(self, found: FoundContainer) -> float:
        asked_at_s = self._asked_at_s.get(found.id)
        if asked_at_s is None:
            return 0.0
        return asked_at_s + found.stop_timeout_s - self._monotonic_s()


def _has_ended(found: FoundContainer, now: FoundContainer | None) -> bool:
    """Return whether *found* is gone or stays ended; *now* is the container that has its name at present."""
    return now is None or now.id != found.id or (not now.alive and now.stopped_by_user)
