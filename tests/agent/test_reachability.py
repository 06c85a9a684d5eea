"""Whether the control plane is reached anew, on a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harmony_agent.bus.connection import Bus
from harmony_agent.bus.reachability import BusReachability
from harmony_agent.config import load
from harmony_core.reconciler import Reachability
from tests.nats import serving


async def test_a_control_plane_that_answers_is_reached(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as served:
        reachability: Reachability = BusReachability(Bus.of(load(served.home.agent_toml("pi-1"))))
        assert await reachability.reachable()
        assert await reachability.reachable()


async def test_one_that_is_away_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as served:
        bus = Bus.of(load(served.home.agent_toml("pi-1")))
    assert not await BusReachability(bus).reachable()


async def test_one_that_does_not_let_us_in_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as served:
        bus = Bus.of(load(served.home.agent_toml("pi-1")))
        await served.enrol("pi-1", replace=True)
        while await BusReachability(bus).reachable():
            await asyncio.sleep(0.05)


async def test_the_connection_that_stands_goes_on_standing(tmp_path: Path) -> None:
    async with serving(tmp_path, "pi-1") as served:
        bus = Bus.of(load(served.home.agent_toml("pi-1")))
        times = list[None]()
        bus.on_connect(lambda: times.append(None))
        running = asyncio.create_task(bus.run())
        while not bus.up:
            await asyncio.sleep(0.01)
        assert await BusReachability(bus).reachable()
        assert bus.up
        assert len(times) == 1
        running.cancel()
        await asyncio.wait({running})
