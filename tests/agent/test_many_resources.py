"""A Score of very many resources: all are made, their removal asks first, and the heart beats meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_pi_topology.files.reconciler import PosixFiles
from tests.soak import runs

from .rig import Note, Rig, entry, status

RESOURCES = 10_000
BEATS_APART_S = 30.0
"""Of 90 s after which a device is told as silent."""


class Many(Score[HasFiles]):
    number: int

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        paths = (f"/srv/many/{n // 100}/{n}" for n in range(self.number))
        wanted = [File(path=path, content=path.encode()) for path in paths]
        return outcome_of(await topology.files.ensure(*wanted))


@pytest.fixture
async def files(rig: Rig) -> AsyncGenerator[PosixFiles]:
    (rig.root / "device").mkdir()
    files = PosixFiles(str(rig.root / "device"), records=MemoryRecords(), backups=MemoryBackups())
    yield files
    await files.close()


async def longest_pause_s(rig: Rig) -> float:
    """Between two heartbeats, until this is cancelled."""
    loop, longest, heard_at, revision = asyncio.get_running_loop(), 0.0, 0.0, 0
    try:
        while True:
            beat = await rig.bus.bucket("heartbeat").get("pi-1")
            if beat is not None and beat.revision != revision:
                longest = max(longest, loop.time() - heard_at) if revision else 0.0
                heard_at, revision = loop.time(), beat.revision
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return longest


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_ten_thousand_resources_of_one_score_are_made_and_their_removal_asks_first(
    rig: Rig, files: PosixFiles
) -> None:
    number = runs(RESOURCES)
    async with rig.agent({"FileSystemHost": files}, kinds=[Many]):
        listening = asyncio.create_task(longest_pause_s(rig))
        await rig.put(1, entry(Note(path="/srv/note"), "note"), entry(Many(number=number), "many"))
        async with asyncio.timeout(240):
            while (state := await rig.state()) is None or state.observed_generation != 1:
                await asyncio.sleep(0.1)
        assert status(state.scores) == {"note": "SUCCESS", "many": "SUCCESS"}
        assert state.scores["many"].resources_total == number
        assert sum(1 for _ in (rig.root / "device/srv/many").glob("*/*")) == number
        await rig.put(2, entry(Note(path="/srv/note"), "note"))
        state = await rig.until(lambda state: state.removals_held >= number)
        assert "harmony approve" in next(
            each.message for each in state.conditions if each.reason == "RemovalsHeld"
        )
        listening.cancel()
        assert await listening < BEATS_APART_S
    assert sum(1 for _ in (rig.root / "device/srv/many").glob("*/*")) == number
