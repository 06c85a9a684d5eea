"""A device of the fleet under faults, with whoever pushes to it, and what was done to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import attrs

from harmony_core.errors import HarmonyError
from harmony_core.wire.actual_state import ActualState
from tests.faults.control import Pusher
from tests.faults.device import Device
from tests.faults.patience import Patience
from tests.faults.things import Wish, is_right, wrong

__all__ = ["WITHIN_S", "Faulty"]

WITHIN_S: Final = 240.0
"""All being mended, a device is as it should be by then: back-offs and reconnects have ended."""


@attrs.define(eq=False)
class Faulty:
    """A device, and who pushes to it."""

    device: Device
    pusher: Pusher
    dice: random.Random
    is_touched: bool = False
    """Somebody else has changed something, and it was not yet seen to be put right."""
    history: list[str] = attrs.field(factory=list[str])
    """What was done to it, for whoever looks for what went wrong."""
    told: int = 0
    """How often anything was written as its report."""
    newest: int = 0
    """The newest generation that it ever told of."""
    size: tuple[int, int, int] | None = None
    """When it was last at rest: its pid, its agent's memory, its descriptors."""

    def note(self, what: str) -> None:
        self.history.append(f"{datetime.now(UTC):%H:%M:%S.%f} {what}")

    def tale(self, state: ActualState | None) -> str:
        """Tell what happened to it lately, what it says, and the last of its log."""
        lately = "\n".join(self.history[-40:])
        runs = "its agent runs" if self.device.agent_runs else "its agent does not run"
        said = f"it says {state and state.scores} {state and state.conditions}"
        return f"\n{lately}\n{runs}; {said}\n{self.device.log}"

    async def read_state(self) -> ActualState | None:
        """Return what it said last; None where it cannot be read."""
        with suppress(HarmonyError):
            return await self.pusher.device.state()
        return None

    async def until_right(self, wishes: Sequence[Wish]) -> Wish:
        """Wait until the device is as one of *wishes*, and return which."""
        patience = Patience(WITHIN_S)
        with suppress(TimeoutError):
            while True:
                for wish in wishes:
                    if is_right(self.device, wish):
                        return wish
                await patience.pause(0.1)
        said = [wrong(self.device, wish) for wish in wishes]
        state = await self.read_state()
        await self.device.tell_what_it_does()
        raise AssertionError(
            f"{self.device.id} did not become what was acknowledged as {self.pusher.model.acknowledged}: "
            f"{said}; {self.tale(state)}"
        )
