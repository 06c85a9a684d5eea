"""Watching: what somebody else has changed is seen at once, and its Score is looked at again.

    what a Score touched -> is watched -> an event -> that Score is looked at again -> `.detector`

Events are for speed. A slow pass over everything, by a clock with jitter, catches what they miss, and
follows at once where a reconciler says that events may have been lost. What we did ourselves also makes
an event, and costs one look that finds everything in order.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from harmony_agent.apply.queue import WorkQueue
from harmony_agent.plan.device import Device
from harmony_core.inventory import Facts
from harmony_core.resources import resource_id
from harmony_core.unexpected import without_exit

from .detector import DriftDetector

__all__ = ["DriftWatcher"]

log = logging.getLogger(__name__)

SLOW_PASS_S = 300.0
_GATHERED_WITHIN_S = 0.25
_WATCH_WITHIN_S = 30.0


class DriftWatcher:
    """Keeps the reconcilers watching what the Scores have touched."""

    def __init__(
        self, device: Device, detector: DriftDetector, read_facts: Callable[[], Facts]
    ) -> None:
        self._device = device
        self._detector = detector
        self._watch_list = detector.watch_list
        self._read_facts = read_facts
        self._watched: dict[str, frozenset[str]] = {}
        """What each capability's reconciler was asked to watch."""

    async def run(self, queue: WorkQueue) -> None:
        """Keep the watches as they should be, until cancelled."""
        while True:
            await self._watch_list.changed.wait()
            await queue.wait_idle(within_s=_GATHERED_WITHIN_S)
            self._watch_list.changed.clear()
            not_watched_yet = self._watch_list.pop_not_watched_yet()
            await self._watch(queue)
            # Watched only from now on: what happened since they were looked at is seen now.
            for score in not_watched_yet:
                queue.notify(score)

    async def look_slowly(
        self, queue: WorkQueue, look_at_settled: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """Look at everything now and then, until cancelled. *look_at_settled* returns what needs a turn."""
        while True:
            await asyncio.sleep(SLOW_PASS_S * random.uniform(0.8, 1.2))  # noqa: S311 - spread, not secrecy
            self._detector.baselines.update_facts(self._read_facts())
            self._watched.clear()  # a reconciler that failed to watch is asked again
            self._watch_list.changed.set()
            self._detector.report_repeat_offenders()
            for score in await look_at_settled():
                queue.notify(score)

    async def _watch(self, queue: WorkQueue) -> None:
        for capability, reconciler in self._device.offers.items():
            resource_type = reconciler.resource_class.resource_type
            keys = frozenset(self._watch_list.keys_of(resource_type))
            if self._watched.get(capability, frozenset()) == keys:
                continue
            on_change = partial(self._on_change, queue, resource_type)
            try:
                async with asyncio.timeout(_WATCH_WITHIN_S):
                    await without_exit(reconciler.watch, keys, on_change)
            except Exception as error:  # noqa: BLE001 - the slow pass sees what is not watched, and asks again
                log.warning("%s is not watched for now: %r", capability, error)
                self._watched.pop(capability, None)
            else:
                self._watched[capability] = keys

    def _on_change(self, queue: WorkQueue, resource_type: str, key: str | None) -> None:
        if key is None:
            # What could not be reached is there again: a reason to try what has failed.
            for score in self._watch_list.scores:
                queue.enqueue(score)
            return
        for score in self._watch_list.touching(resource_id(resource_type, key)):
            queue.notify(score)
