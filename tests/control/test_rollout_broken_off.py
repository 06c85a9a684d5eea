"""Rollouts that are broken off: whoever writes ends at any write, the server is killed or hangs; and done
again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest

from harmony_control.bus.connection import Bucket, admin, server_id
from harmony_control.bus.reports import Reports
from harmony_control.rollout.controller import Rollout
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.publish import Published, Wish, publish
from harmony_control.server.buckets import HEARTBEAT_AGE_S
from harmony_control.server.process import running
from harmony_core.errors import BusUnreachable, StoreError, UsageError
from harmony_core.wire.gate import Gate
from tests.nats import Bus, fleet_home, serving
from tests.ports import free_address

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
            keys = dict(documents.believed.keys)
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


NOT_YET = "is not heard yet: the message server was reached less than 90 s ago"


@attrs.define
class _Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("is_another", [False, True], ids=["the-same", "another"])
async def test_nobody_is_silent_because_a_server_that_was_started_again_has_heard_nobody_yet(
    tmp_path: Path, *, is_another: bool
) -> None:
    """Heartbeats are in the server's memory, and reports on its disk."""
    home, address, clock = fleet_home(tmp_path), free_address(), _Clock()
    async with AsyncExitStack() as stack, AsyncExitStack() as life:
        server = await life.enter_async_context(running(home, listen=address))
        client = await stack.enter_async_context(admin(home))
        bus = Bus(home, server, client, stack)
        await bus.enrol("pi-1", "pi-2")
        ready = LightDevice(ScriptedDevice(await bus.device("pi-1")))
        late = LightDevice(ScriptedDevice(await bus.device("pi-2")))
        documents = await ClassDocuments.open(home, client)
        keys = dict(documents.believed.keys)
        fleet = LightFleet(bus, Reports(home, client), [ready, late], keys)
        await ready.scripted.beat()
        await late.scripted.beat()
        await fleet.publish("one", [])
        await fleet.look()
        await late.report("Waiting")
        rollout = Rollout(home, client, fleet.reports, CLASS, clock=clock)
        before = (await rollout.step()).progress
        assert (before.counts["Ready"], before.counts["Progressing"]) == (1, 1)

        clock.now_s += 1_000
        known = server_id(client)
        await life.aclose()
        await stack.enter_async_context(running(home, listen=address))
        async with asyncio.timeout(20):
            while not client.is_connected or server_id(client) == known:
                await asyncio.sleep(0.05)
        if is_another:
            rollout = Rollout(home, client, fleet.reports, CLASS, clock=clock)
        for _ in range(2):
            found = await rollout.step()
            assert (found.next, found.progress.counts["Progressing"]) == (None, 2)
            assert {each.reason for each in found.progress.judged} == {NOT_YET}
            clock.now_s += HEARTBEAT_AGE_S - 1

        clock.now_s -= HEARTBEAT_AGE_S - 2
        await ScriptedDevice(await bus.device("pi-1")).beat()
        found = await rollout.step()
        assert found.next is not None
        assert found.next.state == "aborted"
        assert "pi-2 (has fallen silent since its wave was opened)" in found.next.reason
        assert (found.progress.counts["Ready"], found.progress.counts["Unhealthy"]) == (1, 1)


async def test_nobody_is_silent_because_the_server_did_not_answer_for_a_while(
    tmp_path: Path,
) -> None:
    clock = _Clock()
    async with serving(tmp_path, "pi-1") as bus:
        silent = LightDevice(ScriptedDevice(await bus.device("pi-1")))
        documents = await ClassDocuments.open(bus.home, bus.admin)
        keys = dict(documents.believed.keys)
        fleet = LightFleet(bus, Reports(bus.home, bus.admin), [silent], keys)
        await fleet.publish("one", [])
        await fleet.look()
        rollout = Rollout(bus.home, bus.admin, fleet.reports, CLASS, clock=clock)
        assert (await rollout.step()).next is None

        clock.now_s += 1_000
        assert bus.server.pid is not None
        os.kill(bus.server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(BusUnreachable):
                await rollout.step()
        finally:
            os.kill(bus.server.pid, signal.SIGCONT)
        found = await rollout.step()
        assert (found.next, found.progress.judged[0].reason) == (None, NOT_YET)
        # Who asks once is told what stands there, and writes nothing.
        assert (await rollout.read()).progress.counts["Unhealthy"] == 1

        clock.now_s += HEARTBEAT_AGE_S
        after = (await rollout.step()).next
        assert after is not None
        assert after.state == "aborted"
