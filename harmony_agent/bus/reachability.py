"""Whether the control plane is reached by a *new* connection: what a change of the network has to prove.

a new connection to the bus, answered -> reached; the one that stands is looked at, and renewed if it is dead
no answer in time                     -> not reached
"""

from __future__ import annotations

from typing import Final

import attrs

from .connection import Bus

__all__ = ["BusReachability"]

_WITHIN_S: Final = 8.0


@attrs.frozen
class BusReachability:
    """`harmony_core.reconciler.Reachability`, by this agent's own bus and with its own rights."""

    bus: Bus

    async def reachable(self) -> bool:
        return await self.bus.reaches(within_s=_WITHIN_S)
