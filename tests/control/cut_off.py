"""Whether a device is cut off when that is told: nothing that it says afterwards is taken in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from nats.errors import Error as NatsError

from tests.nats import Bus, Device

__all__ = ["assert_cut_off_when_told"]

_WORDS = 50
"""So many more it says, or tries to, once it was told that it is cut off."""


async def assert_cut_off_when_told(
    bus: Bus, device: Device, revoke: Callable[[], Awaitable[object]]
) -> None:
    """Have *device* speak all the time; assert that the bus takes in nothing of it once *revoke* returns."""
    said, is_over = 0, False

    async def speak() -> None:
        nonlocal said
        # Not cancelled: nats-py would take the answer that was waited for as the next one's.
        with suppress(NatsError):
            while not is_over:
                await device.client.publish(f"$KV.actual-state.{device.id}", b"said")
                await device.client.flush()
                said += 1

    async def read_newest() -> int:
        # Behind what was taken in before: a stream keeps things in the order in which they come.
        await bus.bucket("actual-state").put("behind", b"")
        found = await bus.bucket("actual-state").get(device.id)
        return found.revision if found is not None else 0

    speaking = asyncio.create_task(speak())
    try:
        async with asyncio.timeout(30):
            first = await read_newest()
            while await read_newest() < first + 2:
                await asyncio.sleep(0)
            await revoke()
            newest, told_at = await read_newest(), said
            while not speaking.done() and said < told_at + _WORDS:
                await asyncio.sleep(0)
            assert await read_newest() == newest
    finally:
        is_over = True
        await speaking
