"""The agent: desired state in, Outcomes out.

    watch -> verify -> decode -> check -> interpret -> report

Everything that goes wrong with one Score is that Score's Outcome; only cancellation ends the loop.
Offline is normal: what was accepted last is kept and kept up, and told when the bus is back.
"""

from __future__ import annotations

import asyncio
import logging

import attrs

from harmony_core.errors import LedgerUnusable, ManifestRejected

from .bus import Bus
from .desired import Desired
from .heartbeat import Heartbeat
from .interpreter import Interpreter
from .queue import WorkQueue
from .reporter import Reporter

__all__ = ["Agent"]

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Agent:
    """One device's agent. `run` it once."""

    bus: Bus
    desired: Desired
    queue: WorkQueue
    interpreter: Interpreter  # decode, check, interpret
    reporter: Reporter
    heartbeat: Heartbeat

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.bus.run(), name="bus")
            tasks.create_task(self.reporter.run(), name="reporter")
            tasks.create_task(self.heartbeat.run(), name="heartbeat")
            watching = tasks.create_task(self.watch(), name="watch")
            # What is newest is fetched before anything stored is interpreted: a fix must come first.
            await self.bus.first_answer(within_s=5.0)
            self.look_at_everything()
            tasks.create_task(self.queue.run(), name="queue")
            await watching

    async def watch(self) -> None:
        async for delivery in self.bus.deliveries():
            if delivery.envelope is None:
                self.interpreter.book.reject(None)
            else:
                await self.verify(delivery.envelope, fetched=delivery.fetched)

    async def verify(self, envelope: bytes, *, fetched: bool) -> None:
        try:
            if await self.desired.offer(envelope):
                self.interpreter.begin()
                self.look_at_everything()
            self.interpreter.book.reject(None)
        except ManifestRejected as error:
            if fetched:
                log.warning("desired state refused: %s", error.message)
                self.interpreter.book.reject(error)
            else:
                self.bus.doubt()
        except LedgerUnusable as error:
            log.warning("desired state not taken in: %s", error.message)
            self.bus.doubt()

    def look_at_everything(self) -> None:
        suspects = self.interpreter.poison.suspects
        for score_id in self.interpreter.concerned():
            self.queue.renew(score_id, last=score_id in suspects)
