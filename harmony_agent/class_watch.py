"""Looks after the classes of this device: when something is said of them, when it is time, now and then.

    connected, every 30 min or so, labels changed -> everything \\
    a hint of a gate                              -> that gate   >- Classes.look -> in force? -> planned
    a wave or a window opens, another time zone   -> nothing new /

Apart from the watch on the device's own manifest: nothing that is wrong with a class holds that up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self

from harmony_core.errors import BusUnreachable, StoreError
from harmony_core.wire.names import ROLLOUT

from .bus.connection import Bus
from .clock import find_zone, monotonic_s, wait_until
from .config import AgentConfig
from .store.database import Database
from .store.desired import Desired
from .store.status import StatusStore

if TYPE_CHECKING:
    from .store.classes import Classes  # a fleet without classes needs none of it

__all__ = ["ClassSource", "ClassWatch"]

log = logging.getLogger(__name__)

RESYNC_S = 30 * 60.0
_AGAIN_S = 60.0
"""After a look that failed."""
_SPREAD_S = 2.0
"""All that are hinted at once ask within so long."""
_CLOCK_AGAIN_S = 60.0
"""So often the clock on the wall is looked at while a time is waited for."""
_HINTS_MOST = 64


class ClassSource(Protocol):
    """Where the documents of classes are, as `harmony_agent.store.classes.Source` has it."""

    async def fetch_index(self) -> bytes | None: ...
    async def fetch_gate(self, name: str) -> bytes | None: ...
    async def fetch_class_manifest(self, name: str, generation: int) -> bytes | None: ...


class ClassWatch:
    """Knows `Classes` once there is an index, and has them looked at."""

    def __init__(
        self, config: AgentConfig, database: Database, desired: Desired, statuses: StatusStore
    ) -> None:
        self._config = config
        self._database = database
        self._desired = desired
        self._statuses = statuses
        self._classes: Classes | None = None
        self._woken = asyncio.Event()
        self._everything_at = 0.0
        self._hinted: set[str] = set()
        self._zone = find_zone()
        """By which it was looked last."""
        self._looking = asyncio.Lock()

    @classmethod
    async def load(
        cls, config: AgentConfig, database: Database, desired: Desired, statuses: StatusStore
    ) -> Self:
        """Make effective what was followed when the last run ended."""
        watch = cls(config, database, desired, statuses)
        if await database.read("SELECT 1 FROM fleet_index"):
            await watch._begin()
        return watch

    async def _begin(self) -> Classes:
        if self._classes is None:
            from .store.classes import Classes  # noqa: PLC0415 - as above

            self._classes = Classes(self._config, self._database, self._desired)
            await self._classes.load()
            self._statuses.tell_layers = self._classes.notes
        return self._classes

    def look_soon(self) -> None:
        """Look at everything again: there is a new connection, or other labels."""
        self._everything_at = 0.0
        self._woken.set()

    def hint(self, key: str) -> None:
        """Look at what is stored now, after a hint that may come from anybody."""
        bucket, _, name = key.partition(".")
        if bucket != ROLLOUT or len(self._hinted) >= _HINTS_MOST:
            self._everything_at = min(self._everything_at, monotonic_s())
        else:
            self._hinted.add(name)
        self._woken.set()

    async def look_at_all(self, source: ClassSource) -> bool:
        """Look at everything that *source* has. Return whether other things are in force now. Raise
        `BusUnreachable` where *source* does not have all of it."""
        async with self._looking:
            self._everything_at = 0.0
            try:
                return await self._look_once(source, is_whole=True)
            finally:
                self.look_soon()  # what *source* has says nothing of what the bus has

    def find_refused(self) -> str:
        """Return why some of what was seen last does not count; empty where all of it does."""
        if self._classes is None:
            return ""
        return self._classes.rejected or self._classes.find_refused()

    async def look(self, bus: ClassSource) -> bool:
        """Look at whatever is due. Return whether other things are in force now. Raises nothing."""
        async with self._looking:
            return await self._look_once(bus)

    async def _look_once(self, bus: ClassSource, *, is_whole: bool = False) -> bool:
        hinted, self._hinted = self._hinted, set()
        everything = monotonic_s() >= self._everything_at
        if everything:
            spread = random.uniform(0.5, 1.5)  # noqa: S311 - not secrecy
            self._everything_at = monotonic_s() + RESYNC_S * self._config.slowness * spread
        self._zone = find_zone()
        before, in_force = self._tell(), self._desired.in_force
        try:
            await self._look(bus, hinted, everything=everything)
        except (BusUnreachable, StoreError) as error:
            if is_whole:
                raise
            log.info("classes were not looked at: %s", error.message)
            # All of it: what was hinted is forgotten.
            self._everything_at = min(self._everything_at, monotonic_s() + _AGAIN_S)
        if self._tell() != before:
            self._statuses.due.mark(0.0)
        return self._desired.in_force is not in_force

    async def _look(self, bus: ClassSource, hinted: set[str], *, everything: bool) -> None:
        if self._classes is None and (not everything or await bus.fetch_index() is None):
            return
        classes = await self._begin()
        known = classes.index.classes if classes.index else {}
        # A class that is not known came with an index of which the hint was lost.
        if everything or not hinted <= known.keys():
            await classes.look(bus)
        else:
            for name in sorted(hinted) or [""]:
                await classes.look(bus, name)
        self._statuses.device.set_class_problem(classes.rejected, classes.find_refused())

    def _tell(self) -> object:
        return self._statuses.tell_layers()

    async def run(self, bus: Bus, put_in_force: Callable[[], Awaitable[None]]) -> None:
        """Look for ever; have *put_in_force* plan what has become effective."""
        while True:
            await self._until_due()
            await asyncio.sleep(random.uniform(0, _SPREAD_S))  # noqa: S311 - spread
            if await self.look(bus):
                await put_in_force()

    async def _until_due(self) -> None:
        while not self._hinted and (due := self._due()) > monotonic_s():
            self._woken.clear()
            await wait_until(self._woken, latest_s=due)

    def _due(self) -> float:
        again_at = self._classes.again_at if self._classes else None
        if again_at is None:
            return self._everything_at
        # By the clock on the wall, and in a time zone: both may be set meanwhile.
        if find_zone() != self._zone:
            return monotonic_s()
        in_s = max(0.0, (again_at - datetime.now(UTC)).total_seconds())
        return min(self._everything_at, monotonic_s() + min(in_s, _CLOCK_AGAIN_S))
