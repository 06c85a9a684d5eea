"""The agent's side of the bus ends when it is told to, whatever it waits for."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

from harmony_agent.bus import Bus
from tests.nats import serving

ATTEMPTS = 300


async def test_a_report_can_be_cancelled_at_any_moment_also_when_its_answer_comes(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "pi-1") as server:
        nats = tomllib.loads(server.home.agent_toml("pi-1").read_text())["nats"]
        bus = Bus(agent_id="pi-1", servers=nats["servers"], seed=nats["seed"])
        bus.begin()
        await bus.first_try(within_s=10)
        turns = 1
        for attempt in range(ATTEMPTS):
            told = asyncio.create_task(bus.tell(b"%d" % attempt))
            for _ in range(turns):
                await asyncio.sleep(0)
            if told.cancel():
                await asyncio.wait([told])
                assert told.cancelled()
                turns += 1
            else:
                turns = 1
        running = asyncio.create_task(bus.run())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
