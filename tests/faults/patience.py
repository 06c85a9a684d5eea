"""How long a test waits for something that must come: time counts only while this machine has time for us."""

from __future__ import annotations

import asyncio
import time

import attrs

__all__ = ["Patience"]

_LATE_S = 0.2
"""Whoever wakes later than that had to wait for the processor; so had the devices, and their ways."""


@attrs.define
class Patience:
    """Lasts for *left_s* seconds; those in which whoever waits was kept from the processor do not count."""

    left_s: float

    async def pause(self, for_s: float) -> None:
        """Wait so long. `TimeoutError` where there is no patience left."""
        began = time.monotonic()
        await asyncio.sleep(for_s)
        took_s = time.monotonic() - began
        if took_s < for_s + _LATE_S:
            self.left_s -= took_s
        if self.left_s <= 0:
            raise TimeoutError
