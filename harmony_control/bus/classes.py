"""What is said of classes in the buckets, and the hints by which devices hear of it at once.

    fleet.index · rollout.<class> · desired-class.<class>.<generation>

Nobody republishes them: who has written one tells the devices that it concerns, each in its mailbox. Who does
not hear it finds it within 45 minutes, and when it connects.
"""

from __future__ import annotations

from collections.abc import Iterable

from nats.aio.client import Client

from harmony_core.wire.names import FLEET, INDEX_KEY, MAIL, ROLLOUT

from .connection import bus_errors

__all__ = ["class_key", "hint_devices"]


def class_key(name: str, generation: int) -> str:
    """Return the key of ``desired-class`` for that generation of the class."""
    return f"{name}.{generation}"


async def hint_devices(client: Client, agent_ids: Iterable[str], name: str | None = None) -> None:
    """Have these devices look at the gate of the class *name*, or at the fleet index, which was just written.

    This is only a hint: nothing is stored, and a device that is away misses nothing by it. Raise
    `BusUnreachable`.
    """
    told = f"{FLEET}.{INDEX_KEY}" if name is None else f"{ROLLOUT}.{name}"
    with bus_errors("telling devices of their class"):
        for each in agent_ids:
            await client.publish(f"{MAIL}.{each}.class", told.encode())
        await client.flush()
