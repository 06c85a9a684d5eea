"""Rollouts that are broken off: whoever writes ends at any write, the server is killed; and done again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harmony_control.bus.connection import Bucket, admin
from harmony_control.bus.reports import Reports
from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.publish import Published, Wish, publish
from harmony_control.server.process import running
from harmony_core.errors import StoreError, UsageError
from harmony_core.wire.gate import Gate
from tests.nats import Bus, fleet_home, free_address

from .light_fleet import CLASS, LightDevice, LightFleet, light_fleet, score
from .scripted_device import ScriptedDevice


async def _publish(fleet: LightFleet, text: str, priority: int) -> Published:
    """Write all three documents: who belongs to the class, and how it counts, changes with it."""
    documents = await ClassDocuments.open(fleet.bus.home, fleet.bus.admin)
    wish = Wish(
        selector="", priority=priority, scores={"motd": score(text)}, upto=[("1", 0), ("3", 0)]
    )
    return await publish(documents, fleet.reports, CLASS, lambda _: wish)


class _BreaksOff:
    """Ends whoever writes at the write *at*: before it is done, or when it is, and nobody has been told."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, is_done: bool) -> None:
        self.writes = 0
        create, update = Bucket.create, Bucket.update

        async def broken_create(bucket: Bucket, key: str, value: bytes) -> int:
            self.refuse(at, now=not is_done)
            revision = await create(bucket, key, value)
            self.refuse(at, now=is_done, counts=True)
            return revision

        async def broken_update(bucket: Bucket, key: str, value: bytes, *, last: int) -> int:
            self.refuse(at, now=not is_done)
            revision = await update(bucket, key, value, last=last)
            self.refuse(at, now=is_done, counts=True)
            return revision

        patch.setattr(Bucket, "create", broken_create)
        patch.setattr(Bucket, "update", broken_update)

    def refuse(self, at: int, *, now: bool, counts: bool = False) -> None:
        if now and self.writes == at:
            raise StoreError("broken off on purpose")
        self.writes += counts


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [0, 1, 2], ids=["manifest", "index", "gate"])
async def test_who_publishes_may_end_at_any_write_and_do_it_again(
    tmp_path: Path, at: int, *, is_done: bool
) -> None:
    async with light_fleet(tmp_path, 6) as fleet:
        await _publish(fleet, "one", 0)
        assert (await fleet.go(fleet.rollout())).state == "done"
        with pytest.MonkeyPatch.context() as patch:
            broken = _BreaksOff(patch, at, is_done=is_done)
            with pytest.raises(StoreError, match="on purpose"):
                await _publish(fleet, "two", 5)
            assert broken.writes == at
        await fleet.look()
        if (at, is_done) == (2, True):
            # All is written, and only the answer was lost: whoever does it again is told so.
            with pytest.raises(UsageError, match="generation 2 of kiosk is being rolled out"):
                await _publish(fleet, "two", 5)
            newest = 2
        else:
            assert all(each.followed == [1] for each in fleet.devices)
            published = await _publish(fleet, "two", 5)
            assert published.supersedes == 1
            newest = published.generation
        assert (await fleet.go(fleet.rollout())).state == "done"
        assert all(each.followed == [1, newest] for each in fleet.devices)


@pytest.mark.parametrize("seed", range(2))
async def test_a_server_that_is_killed_in_the_middle_loses_no_step_and_repeats_none(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    home, names = fleet_home(tmp_path), [f"pi-{each}" for each in range(8)]
    known: dict[str, LightDevice] = {}
    address, gates = free_address(), list[Gate]()
    for life in range(40):
        async with (
            running(home, listen=address) as server,
            admin(home) as client,
            AsyncExitStack() as stack,
        ):
            bus = Bus(home, server, client, stack)
            if not life:
                await bus.enrol(*names)
            for name in names:
                scripted = ScriptedDevice(await bus.device(name))
                known.setdefault(name, LightDevice(scripted)).scripted = scripted
                await scripted.beat()
            documents = await ClassDocuments.open(home, client)
            keys = dict(documents.believed.built_upon)
            fleet = LightFleet(bus, Reports(home, client), list(known.values()), keys)
            if not life:
                await fleet.publish("one", [str(each) for each in range(1, 8)])
            await fleet.look()
            rollout = Rollout(home, client, fleet.reports, CLASS)
            gates = await rollout.history()
            if gates[-1].state == "done":
                break
            # Where in its step that comes is up to chance: none of it may matter. Later ones come later, so
            # that also a slow machine comes to the end.
            step = asyncio.create_task(rollout.step())
            await asyncio.sleep(dice.random() * 0.1 * (life + 1))
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
    opened = [(each.state, each.step) for each in gates]
    assert opened == [*(("running", at) for at in range(8)), ("done", 7)]
    assert all(each.followed == [1] and not each.refused for each in known.values())
