"""Many devices that share the control plane's connection, each with a key of its own for what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from nats.aio.client import Client

from harmony_core.outcome import Outcome
from harmony_core.wire.actual_state import to_json
from harmony_core.wire.envelope import SigningKey
from tests.control.scripted_device import ScriptedDevice, page
from tests.nats import Device

__all__ = ["beat", "each_of", "make_devices", "report"]

_AT_ONCE = 250


def make_devices(
    client: Client, known: Iterable[tuple[str, str, SigningKey]]
) -> list[ScriptedDevice]:
    """Return one for each name, mailbox and key."""
    return [ScriptedDevice(Device(name, client, [], mailbox, key)) for name, mailbox, key in known]


async def each_of(
    devices: Sequence[ScriptedDevice], do: Callable[[ScriptedDevice], Coroutine[Any, Any, None]]
) -> None:
    """Have each of *devices* do that, some at once."""
    for begin in range(0, len(devices), _AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for each in devices[begin : begin + _AT_ONCE]:
                group.create_task(do(each))


async def beat(devices: Sequence[ScriptedDevice]) -> None:
    """Have the heart of each beat once."""
    await each_of(devices, lambda device: device.beat())


async def report(
    devices: Sequence[ScriptedDevice], outcome: Outcome, *, generation: int, ready: bool = True
) -> None:
    """Have each say what its one Score has come to."""

    async def say(device: ScriptedDevice) -> None:
        state = device.state(generation, {"web": page(outcome, generation)}, ready=ready)
        await device.device.say("actual-state", to_json(state))

    await each_of(devices, say)
