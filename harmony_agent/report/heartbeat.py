"""The heartbeat: every 30 s or so, to the bus and to systemd's watchdog, and nothing to the disk.

Each beat first sends an empty item through the work queue, so it says that the queue advances, not that a
process lives. It is also the agent's only timer: what must be looked at now and then is looked at here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import attrs

from harmony_agent.apply.queue import WorkQueue
from harmony_agent.bus.connection import Bus
from harmony_agent.clock import monotonic_s, wait_until
from harmony_agent.store.status import StatusStore
from harmony_agent.supervise import guard_step
from harmony_core.wire.actual_state import Heartbeat as Beat
from harmony_core.wire.actual_state import to_json
from harmony_core.wire.vitals import Vitals

from .systemd_notify import is_supervised, notify

__all__ = ["Heartbeat"]

_LOOK_S = 20.0
"""Who beats more often wants to be seen, not to have every daemon asked as often."""


@attrs.frozen(kw_only=True)
class Heartbeat:
    """Beats until cancelled."""

    statuses: StatusStore
    bus: Bus
    queue: WorkQueue
    every_s: float
    look: Callable[[], Awaitable[None]]
    """Look at what nobody tells of: the memory, the floor, the daemons behind the capabilities. Called before
    a beat, at most so often."""
    read_vitals: Callable[[], Vitals]
    """Called in a thread, for each beat."""
    _soon: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def beat_soon(self) -> None:
        """Do not let a new connection wait half a minute to be seen."""
        self._soon.set()

    async def run(self) -> None:
        look_at = 0.0
        while True:
            if monotonic_s() >= look_at:
                # Whatever that raises: who looks for this device must still hear of it.
                with guard_step("look", self.statuses.device.set_internal_error):
                    await self.look()
                look_at = monotonic_s() + min(_LOOK_S, 2 * self.every_s)
            await self._beat(await self.queue.probe())
            self._soon.clear()
            # A whole fleet that was switched on together must not beat together.
            wait_s = self.every_s * random.uniform(0.8, 1.0)  # noqa: S311
            await wait_until(self._soon, latest_s=monotonic_s() + wait_s)

    async def _beat(self, queue_seq: int) -> None:
        if is_supervised():
            notify(WATCHDOG="1", STATUS=self.statuses.in_words())
        identity = self.statuses.identity
        vitals = None
        with guard_step("vitals", self.statuses.device.set_internal_error):
            vitals = await asyncio.to_thread(self.read_vitals)
        await self.bus.beat(
            to_json(
                Beat(
                    agent_id=identity.agent_id,
                    boot_id=identity.boot_id,
                    agent_version=identity.agent_version,
                    generation=self.statuses.generation,
                    observed_generation=self.statuses.observed_generation,
                    queue_seq=queue_seq,
                    counter=self.statuses.counter.next(),
                    vitals=vitals,
                )
            )
        )
