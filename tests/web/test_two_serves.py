"""Two `harmony serve` of one fleet, as processes: one is frozen in the middle of a step, and revived."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from harmony_control.fleet import Fleet
from harmony_control.store.home import Home
from harmony_core.wire.envelope import pin_keys
from harmony_core.wire.names import ROLLOUT
from tests.control.light_fleet import CLASS, LightFleet, light_fleet
from tests.ports import free_address
from tests.soak import runs

from .serve_process import serve


@asynccontextmanager
async def serve_waves(home: Home) -> AsyncGenerator[asyncio.subprocess.Process]:
    """One that opens waves."""
    async with serve(home, "--listen", free_address()) as served:
        assert served.begun["opens_waves"]
        yield served.process


async def count_gates(light: LightFleet) -> int:
    return len(await light.bus.bucket(ROLLOUT).history(CLASS))


async def until_gates(light: LightFleet, count: int) -> None:
    """Have the devices go on, until there are so many gates."""
    while await count_gates(light) < count:
        await light.look()
        await asyncio.sleep(0.05)


async def hear(
    light: LightFleet, subject: str, note: Callable[[Msg], Awaitable[None]]
) -> Subscription:
    """Have *note* told of all that is sent on *subject*, such as questions to the server."""
    client = light.bus.admin
    found = await client.subscribe(subject, cb=note)  # pyright: ignore[reportUnknownMemberType] - half typed there
    await client.flush()
    return found


async def freeze_in_a_step(light: LightFleet, process: asyncio.subprocess.Process) -> bool:
    """Stop *process* once it has read by what it decides: the devices, then the gate that it will stand on.

    False where it was quicker, and has written already.
    """
    has_devices, is_frozen = asyncio.Event(), asyncio.Event()

    async def note_devices(_: Msg) -> None:
        has_devices.set()

    async def note_gate(_: Msg) -> None:
        if has_devices.is_set() and not is_frozen.is_set():
            process.send_signal(signal.SIGSTOP)
            is_frozen.set()

    before = await count_gates(light)
    told = [
        await hear(light, "$JS.API.DIRECT.GET.KV_actual-state", note_devices),
        await hear(light, f"$JS.API.DIRECT.GET.KV_{ROLLOUT}.>", note_gate),
    ]
    await light.look()
    await is_frozen.wait()
    for each in told:
        await each.unsubscribe()
    return await count_gates(light) == before


@pytest.mark.soak
async def test_one_that_is_frozen_in_a_step_and_revived_does_not_do_it_again(
    tmp_path: Path,
) -> None:
    rounds = runs(10)
    waves = 2 * rounds + 2
    async with light_fleet(tmp_path, waves) as light, Fleet.connect(light.bus.home) as fleet:
        home = light.bus.home
        light.keys.update(pin_keys([await fleet.allow_gate_key()]))
        await light.publish("one", [str(each + 1) for each in range(waves - 1)])
        async with asyncio.timeout(60 + 20 * rounds), serve_waves(home) as one:
            await until_gates(light, 2)  # it does its steps
            for _ in range(rounds):
                while not await freeze_in_a_step(light, one):
                    one.send_signal(signal.SIGCONT)
                frozen_at = await count_gates(light)
                async with serve_waves(home):
                    await until_gates(light, frozen_at + 1)
                    one.send_signal(signal.SIGCONT)
            # It goes on by itself, from what the others have done.
            await until_gates(light, waves + 1)
        gates = await fleet.rollout(CLASS).history()
        opened = [(each.state, each.step) for each in gates]
        assert opened == [*(("running", at) for at in range(waves)), ("done", waves - 1)]
        assert all(each.followed == [1] and not each.refused for each in light.devices)
