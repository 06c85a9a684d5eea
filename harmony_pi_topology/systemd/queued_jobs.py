"""Jobs that were queued here: each is waited for a little, and then looked at again rather than queued again.

    queue -> ended within a few seconds -> its result
          -> still under way            -> remembered, until a later look finds that it has ended

What is remembered ends with the process. The next one sees from systemd that a unit has a job, and waits.
"""

from __future__ import annotations

import asyncio
import time

import attrs

from .sdbus import LOST, Job, SystemdBus, Verb

__all__ = ["GOOD_ENDS", "JOB_WAIT_S", "Jobs"]

JOB_WAIT_S = 5.0
GOOD_ENDS = frozenset({"done", LOST})
"""What became of a lost one is to be seen from its unit."""


@attrs.frozen
class _Queued:
    end: Job
    at_s: float


class Jobs:
    """At most one a unit."""

    def __init__(self, bus: SystemdBus, *, wait_s: float = JOB_WAIT_S) -> None:
        self._bus = bus
        self._wait_s = wait_s
        self._queued: dict[str, _Queued] = {}

    async def run(self, verb: Verb, unit: str) -> str | None:
        """Queue a job, in place of any other for *unit*. Return its result, or None while it is under way."""
        self._queued.pop(unit, None)
        queued = _Queued(await self._bus.queue(verb, unit), time.monotonic())
        done, _ = await asyncio.wait({queued.end}, timeout=self._wait_s)
        if done:
            return queued.end.result()
        self._queued[unit] = queued
        return None

    def result(self, unit: str) -> str | None:
        """Return how a job that was under way has ended, until it is forgotten."""
        queued = self._queued.get(unit)
        return queued.end.result() if queued is not None and queued.end.done() else None

    def forget(self, unit: str) -> None:
        """Forget a job that has ended."""
        queued = self._queued.get(unit)
        if queued is not None and queued.end.done():
            del self._queued[unit]

    def under_way_s(self, unit: str) -> float:
        """Return for how many seconds a job of *unit* has been under way; 0 when none is."""
        queued = self._queued.get(unit)
        under_way = queued is not None and not queued.end.done()
        return time.monotonic() - queued.at_s if queued is not None and under_way else 0.0
