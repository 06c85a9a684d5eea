"""What a server of Harmony does that is not NATS' own, whoever runs NATS.

devices that come with an invitation -> let in; keys of devices -> told to operators elsewhere
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from harmony_control.bus.connection import admin
from harmony_control.store.home import Home

from .buckets import ensure_buckets
from .doorkeeper import keeping_the_door
from .roster import publishing_devices

__all__ = ["doing_duties"]


@asynccontextmanager
async def doing_duties(home: Home, *, makes_buckets: bool = False) -> AsyncGenerator[None]:
    """Do the server's duties for as long as the block lasts, connected with the settings of *home*.

    *makes_buckets* first makes or changes the streams as they should be. Raise `BusUnreachable`;
    `ConfigError` for a stream that cannot be changed.
    """
    async with admin(home) as client:
        if makes_buckets:
            await ensure_buckets(client)
        async with keeping_the_door(home, client), publishing_devices(home, client):
            yield
