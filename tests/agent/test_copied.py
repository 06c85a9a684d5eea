"""A copy of a device, with all of its keys: both are told of it, though neither has anything to say."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from harmony_core.plugins import Registry
from harmony_core.wire.actual_state import ActualState
from tests.device import running_agent

from .rig import Note, Rig, entry


def reason(state: ActualState) -> str:
    return next(each.reason for each in state.conditions if each.type == "Degraded")


@asynccontextmanager
async def copy_of(rig: Rig, boot_id: str) -> AsyncGenerator[None]:
    """Another agent of pi-1, whose card was copied just now."""
    shutil.copytree(rig.root / "state", rig.root / "copy" / "state")
    with pytest.MonkeyPatch.context() as patch:
        # As of another machine.
        patch.setattr("harmony_agent.wiring.boot_id", lambda: boot_id)
        running = running_agent(
            rig.bus.home,
            "pi-1",
            rig.root / "copy",
            registry=Registry([Note]),
            offers={"FileSystemHost": rig.files},
            missing={},
        )
        async with running:
            yield


@pytest.mark.timeout(60)
async def test_a_copy_is_told_within_seconds_though_nothing_is_pushed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_agent.bus.connection.WRITTEN_LOOKED_AFTER_S", 1.0)
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.worked()
        own = (await rig.until(lambda _: True)).boot_id
        async with copy_of(rig, "another"):
            told = await rig.until(lambda state: reason(state) == "DeviceCopied", within_s=20)
            assert told.generation == 1
            # Whichever of them was first: the other says it, too, and then both are quiet.
            other = "another" if told.boot_id == own else own
            await rig.until(
                lambda state: state.boot_id == other and reason(state) == "DeviceCopied",
                within_s=20,
            )
            await asyncio.sleep(3)
            last = await rig.until(lambda _: True)
            await asyncio.sleep(3)
            assert (await rig.until(lambda _: True)).counter == last.counter


@pytest.mark.timeout(60)
async def test_a_device_that_starts_again_and_again_is_no_copy_of_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_agent.bus.connection.WRITTEN_LOOKED_AFTER_S", 0.0)
    for generation in range(1, 6):
        async with rig.agent():
            await rig.put(generation, entry(Note(text=str(generation)), "note"))
            await rig.seen(generation)
            if generation == 3:
                await rig.bus.server.reload()
            await rig.worked()
            assert reason(await rig.until(lambda _: True)) == "AllWell"
