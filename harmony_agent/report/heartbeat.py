"""The heartbeat: every 30 s or so, to systemd's watchdog and to the bus, and nothing to the disk.

Each beat first sends an empty item through the work queue, so it says that the queue advances, not that a
process lives. It is also the agent's only timer: what must be looked at now and then is looked at here.

Where the owner of a thin line wants that, the bus hears of it more seldom, while nothing goes on::

    a new connection, news to report, a request, a Score under way -> every 30 s, and at once
    some minutes of quiet                                          -> every `heartbeat_s`

Each says for how long it counts: for three times as long as the next one may take.
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
from harmony_core.wire.lifetimes import compute_lifetime_s
from harmony_core.wire.vitals import Vitals

from .systemd_notify import is_supervised, notify

__all__ = ["BUSY_EVERY_S", "BUSY_FOR_S", "Heartbeat"]

BUSY_EVERY_S = 30.0
"""While something goes on."""
BUSY_FOR_S = 300.0
"""So long after the last sign of it."""
_LOOK_S = 20.0
"""Who beats more often wants to be seen, not to have every daemon asked as often."""
_LEAN_FROM_S = 60.0
"""Who beats more seldom than that tells its vitals with few of those beats."""
_VITALS_S = 3_600.0


@attrs.define(kw_only=True)
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
    """Called in a thread, for each beat that tells them."""
    _soon: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _busy_until: float = attrs.field(default=0.0, init=False)
    _is_quiet: bool = attrs.field(default=False, init=False)
    """Whether the next beat is awaited for longer than while something goes on."""
    _is_kept: bool = attrs.field(default=True, init=False)
    """Whether the server has kept the last one for as long as that said."""
    _send_at: float = attrs.field(default=0.0, init=False)
    _vitals_at: float = attrs.field(default=0.0, init=False)

    def beat_soon(self) -> None:
        """Send a beat at once: a new connection must not wait half a minute to be seen."""
        self._busy_until = monotonic_s() + BUSY_FOR_S
        self._soon.set()

    def note_activity(self) -> None:
        """Beat more often for a while, and at once where the next beat would be long in coming."""
        if self._is_quiet:
            self.beat_soon()
        else:
            self._busy_until = monotonic_s() + BUSY_FOR_S

    async def run(self) -> None:
        look_at = 0.0
        tick_s = min(self.every_s, BUSY_EVERY_S)
        while True:
            if monotonic_s() >= look_at:
                # Whatever that raises: who looks for this device must still hear of it.
                with guard_step("look", self.statuses.device.set_internal_error):
                    await self.look()
                look_at = monotonic_s() + min(_LOOK_S, 2 * self.every_s)
            await self._beat(await self.queue.probe())
            # A whole fleet that was switched on together must not beat together.
            wake_at = monotonic_s() + tick_s * random.uniform(0.8, 1.0)  # noqa: S311
            if self._is_quiet:
                wake_at = min(wake_at, self._send_at)
            await wait_until(self._soon, latest_s=wake_at)

    async def _beat(self, queue_seq: int) -> None:
        if is_supervised():
            connection = "connected" if self.bus.up else "not connected"
            notify(WATCHDOG="1", STATUS=f"{self.statuses.in_words()}, {connection}")
        now_s = monotonic_s()
        if self.statuses.is_under_way:
            self._busy_until = now_s + BUSY_FOR_S
        self._is_quiet = self.every_s > BUSY_EVERY_S and self._is_kept and now_s >= self._busy_until
        if self._is_quiet and now_s < self._send_at and not self._soon.is_set():
            return
        self._soon.clear()
        interval_s = self.every_s if self._is_quiet else min(self.every_s, BUSY_EVERY_S)
        # Of use while it is quiet; the first of the quiet ones is sent at once, since the last one counts for
        # less long than the next one takes.
        self._send_at = 0.0
        if self._is_quiet:
            self._send_at = now_s + interval_s * random.uniform(0.9, 1.0)  # noqa: S311 - spread, as above
        beat = await self._make(queue_seq)
        self._is_kept = await self.bus.beat(
            to_json(beat), lifetime_s=compute_lifetime_s(interval_s)
        )

    async def _make(self, queue_seq: int) -> Beat:
        identity, vitals = self.statuses.identity, None
        if self._are_vitals_due():
            with guard_step("vitals", self.statuses.device.set_internal_error):
                vitals = await asyncio.to_thread(self.read_vitals)
        return Beat(
            agent_id=identity.agent_id,
            boot_id=identity.boot_id,
            agent_version=identity.agent_version,
            generation=self.statuses.generation,
            observed_generation=self.statuses.observed_generation,
            queue_seq=queue_seq,
            counter=self.statuses.counter.next(),
            vitals=vitals,
        )

    def _are_vitals_due(self) -> bool:
        """Return whether this beat includes the vitals: each does, unless beats must be small."""
        now_s = monotonic_s()
        if self._is_quiet and self.every_s > _LEAN_FROM_S and now_s < self._vitals_at:
            return False
        self._vitals_at = now_s + _VITALS_S
        return True
