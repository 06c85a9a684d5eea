"""A stolen key opens as many connections as it can: operators come in all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import nats.errors
import pytest

from harmony_control.bus.connection import admin
from tests.nats import Bus, connected, serving, serving_jwts

MANY = 200


async def open_all(bus: Bus, stack: AsyncExitStack) -> int:
    """Open connections as pi-1 until none is let in any more. Return how many were."""
    for count in range(MANY):
        try:
            await stack.enter_async_context(connected(bus.home, "pi-1"))
        except (nats.errors.Error, OSError):
            return count
    return MANY


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", [serving, serving_jwts], ids=["static keys", "JWTs"])
async def test_a_stolen_key_takes_no_connection_of_an_operator(
    tmp_path: Path, how: Callable[..., AbstractAsyncContextManager[Bus]]
) -> None:
    async with how(tmp_path, "pi-1") as bus:
        async with AsyncExitStack() as stack:
            first = await open_all(bus, stack)
            assert 0 < first < MANY
            async with admin(bus.home) as operator:
                await operator.flush()
        # Each device more of its account brings some of its own, also while the server runs.
        await bus.enrol("pi-2")
        await bus.bring_together("pi-2", "pi-1")
        # With JWTs it is told of that, and takes it in by and by.
        async with asyncio.timeout(120):
            found = 0
            while found <= first:
                async with AsyncExitStack() as stack:
                    found = await open_all(bus, stack)
