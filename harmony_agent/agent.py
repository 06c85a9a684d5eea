"""The agent: desired state in, Outcomes out.

    watch -> verify -> plan -> decode -> check -> interpret -> report
                                            ^
                                  drift ----+

Everything that goes wrong with one Score is that Score's Outcome; only cancellation ends the loop.
Offline is normal: what was accepted last is kept and kept up, and told when the bus is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import attrs

from harmony_core.errors import BusUnreachable, ManifestRejected

from .apply.controller import Controller
from .apply.queue import WorkQueue
from .bus.connection import Bus
from .class_watch import ClassSource, ClassWatch
from .drift.watcher import DriftWatcher
from .plan.planner import PLAN_WITHIN_S
from .report.heartbeat import Heartbeat
from .report.inventory import InventoryReporter
from .report.reporter import Reporter
from .rpc.server import Requests
from .store.desired import Desired
from .supervise import guard_step, keep

__all__ = ["Agent", "Source"]

log = logging.getLogger(__name__)

_FIRST_CLASSES_S = 5.0


class Source(ClassSource, Protocol):
    """Where all is that stands on the server for this device: `harmony_agent.store.bundle.Bundle`."""

    async def fetch_desired(self) -> bytes: ...
    async def fetch_root(self, version: int) -> bytes | None: ...


@attrs.frozen(kw_only=True)
class Agent:
    """One device's agent. `run` it once."""

    bus: Bus
    desired: Desired
    queue: WorkQueue
    controller: Controller  # plan, decode, check, interpret
    watcher: DriftWatcher
    reporter: Reporter
    heartbeat: Heartbeat
    inventory: InventoryReporter
    requests: Requests
    class_watch: ClassWatch
    keep_transfers: Callable[[], Awaitable[None]]
    """See to volumes that are being saved or loaded, from the first to the last moment."""
    serve_loads: Callable[[Agent], Awaitable[None]]
    """Take in bundles that somebody on the device loads."""
    _planning: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)
    _trusting: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)

    async def run(self) -> None:
        tell = self.controller.statuses.device.set_internal_error
        async with asyncio.TaskGroup() as tasks:

            def begin(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
                return tasks.create_task(keep(name, run, tell), name=name)

            begin("bus", self.bus.run)
            begin("reporter", self.reporter.run)
            begin("heartbeat", self.heartbeat.run)
            begin("volumes", self.keep_transfers)
            watching = begin("watch", self.watch)
            begin("loads", partial(self.serve_loads, self))
            # What is newest is fetched before anything stored is interpreted: a fix must come first.
            await self.bus.first_answer(within_s=5.0)
            with guard_step("classes", tell), suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_CLASSES_S):
                    await self.class_watch.look(self.bus)
            with guard_step("first look", tell):
                await self.plan_newest()
            begin("classes", partial(self.class_watch.run, self.bus, self.follow_classes))
            begin("queue", self.queue.run)
            begin("requests", self.requests.run)
            begin("inventory", self.inventory.run)
            begin("drift", partial(self.watcher.run, self.queue))
            begin(
                "slow pass",
                partial(self.watcher.look_slowly, self.queue, self.controller.look_at_settled),
            )
            await watching

    async def watch(self) -> None:
        async for delivery in self.bus.deliveries():
            with guard_step("manifest", self._doubt_and_tell):
                if delivery.fetched or delivery.is_root_hint:
                    await self.update_trust()
                if delivery.is_root_hint:
                    continue
                if delivery.envelope is None:
                    self.controller.statuses.device.set_rejected(None)
                else:
                    await self.accept_manifest(delivery.envelope, fetched=delivery.fetched)

    async def update_trust(self, source: Source | None = None) -> None:
        """Update to the newest root document of *source*, else of the bus, before anything that may depend on
        it."""
        trust = self.desired.trust
        try:
            async with self._trusting:
                is_newer = await trust.update((source or self.bus).fetch_root)
        except BusUnreachable as error:
            log.info("root document not fetched: %s", error.message)
            return
        self.controller.statuses.device.set_trust_problem(trust)
        if is_newer:
            await self.desired.keep_floor()
            self.class_watch.look_soon()  # what was refused may count by now, or count no more
        if is_newer and self.controller.statuses.device.has_rejected:
            self.bus.doubt()  # it may be right by now

    def _doubt_and_tell(self, part: str, why: str) -> None:
        """Report the internal error *why* of *part*, and fetch again what could not be taken in because of
        it."""
        if why:
            self.bus.doubt()
        self.controller.statuses.device.set_internal_error(part, why)

    async def accept_manifest(self, envelope: bytes, *, fetched: bool) -> None:
        try:
            await self._take_in(envelope)
            if fetched:
                self.controller.statuses.device.set_rejected(None)
            elif self.controller.statuses.device.has_rejected:
                self.bus.doubt()  # only what is fetched says what stands there
        except ManifestRejected as error:
            if fetched:
                log.warning("desired state refused: %s", error.message)
                self.controller.statuses.device.set_rejected(error)
            else:
                self.bus.doubt()

    async def _take_in(self, envelope: bytes) -> None:
        async with self._planning:  # what is planned stays in force until that is done
            if self.desired.accept(envelope):
                self.controller.begin()
                self.class_watch.look_soon()  # it may have other labels
            await self._plan()

    async def take_in_all(self, source: Source) -> str:
        """Accept all that *source* has, exactly as if it had come over the bus: the root document, this
        device's own manifest, its classes.

        Return why some of it does not count; empty where all of it does. Raise `ManifestRejected` for the
        device's own manifest; `BusUnreachable`.
        """
        await self.update_trust(source)
        await self._take_in(await source.fetch_desired())
        if await self.class_watch.look_at_all(source):
            await self.follow_classes()
        return self.desired.trust.rejected or self.class_watch.find_refused()

    def _give_up_planning(self, part: str, why: str) -> None:
        """Report the internal error *why* of *part*, and have each Score planned by itself, at its own turn,
        since the manifest cannot be planned as a whole."""
        if why:
            self.controller.give_up_planning()
        self.controller.statuses.device.set_internal_error(part, why)

    async def follow_classes(self) -> None:
        """Plan what has become effective through a class."""
        async with self._planning:
            self.controller.begin()
            await self._plan()

    async def plan_newest(self) -> None:
        """Plan what is newest, then have the queue do it. What runs for an older manifest ends first."""
        async with self._planning:
            await self._plan()

    async def _plan(self) -> None:
        if self.desired.in_force is None or self.desired.in_force is self.controller.planned:
            return
        with self.queue.pause():
            for score_id in self.controller.known_scores():
                self.queue.cancel(score_id)
            await self.queue.wait_idle(within_s=PLAN_WITHIN_S)
            concerned = self.controller.known_scores()
            with guard_step("plan", self._give_up_planning):
                await self.controller.plan(nothing_in_flight=not self.queue.busy)
                concerned = self.controller.enter_plans()
            for score_id in self.controller.sort_by_turn(concerned):
                self.queue.reset(score_id, last=score_id in self.controller.crash_guard.suspects)
