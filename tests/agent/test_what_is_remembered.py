"""What must be known after a power cut: how long something was tried, what was changed, what was in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from harmony_core import (
    Change,
    File,
    HasFiles,
    HasSystemd,
    Inventory,
    NotReady,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)
from harmony_core.errors import BusUnreachable
from harmony_core.outcome import Failure
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeFiles, FakeSystemd
from harmony_core.wire.actual_state import ActualState, ScoreStatus
from harmony_core.wire.manifest import ScorePolicy, SerializedScore

from .rig import Broken, Note, code, entry, status
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

BACK = ScorePolicy(on_failure="rollback", deadline_s=100)
TOLD = ScorePolicy(drift="report")
NOTE = entry(Note(), "note")
ONLY_TOLD = entry(Note(), "note", policy=TOLD)


class Base(Score[HasFiles]):
    """Ready once there is a file that says so."""

    text: str

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        changes = await topology.files.ensure(File(path="/etc/base", content=self.text.encode()))
        if await topology.files.observe(f"/srv/{self.text}") is None:
            raise NotReady("is starting", resource="file:/etc/base", look_again_s=1)
        return outcome_of(changes)


class Waiting(Score[HasFiles]):
    """Never ready."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        await topology.files.ensure(File(path="/etc/waiting", content=b""))
        raise NotReady("is starting", resource="file:/etc/waiting", look_again_s=5)


class Shaped(Score[HasFiles]):
    """Says how its file looks by itself: the next version of its package may say otherwise."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(await topology.files.ensure(File(path="/etc/shaped", content=SHAPE[-1])))


SHAPE = [b"of old"]


class Using(Score[HasSystemd]):
    """A unit that has to be started anew when its configuration is another."""

    async def interpret(self, inventory: Inventory, topology: HasSystemd) -> Outcome:
        content = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
        unit = SystemdUnit(name="using.service", content=content, enabled=None, uses=("/etc/note",))
        return outcome_of(await topology.systemd.ensure(unit))


class Watched(FakeFiles):
    """Looks into the memory of *device* before each deed."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[Any] = []
        self.device: VirtualDevice | None = None

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if apply and self.device is not None:
            self.stored += self.device.mark_stored("SELECT bad FROM lineage")
        return await super().converge(resources, apply=apply)


def running(
    root: Path, files: FakeFiles, **others: Any
) -> AbstractAsyncContextManager[VirtualDevice]:
    offers: Offers = {"FileSystemHost": files, **others}
    return running_device(root, offers, Note, Broken, Base, Waiting, Shaped, Using)


async def settled(device: VirtualDevice, *entries: SerializedScore) -> ActualState:
    if entries:
        device.push(entries)
    await asyncio.sleep(10)
    assert device.bus.told is not None
    return device.bus.told


async def restarted(device: VirtualDevice) -> ActualState:
    await device.kill()
    await device.start()
    return await settled(device)


def page(device: VirtualDevice, score: str) -> ScoreStatus:
    assert device.bus.told is not None
    return device.bus.told.scores[score]


def why_not(device: VirtualDevice, score: str) -> str:
    outcome = page(device, score).outcome
    return outcome.error.code if isinstance(outcome, Failure) else outcome.status


@pytest.mark.parametrize("on_s", [60, 5])
async def test_what_was_tried_for_its_time_is_rolled_back_however_often_the_power_fails(
    tmp_path: Path, on_s: int
) -> None:
    async with running(tmp_path, FakeFiles()) as device:
        await settled(device, entry(Note(text="good"), "it", policy=BACK))
        device.push([entry(Base(text="bad"), "it", policy=BACK)])
        for _ in range(12):
            await asyncio.sleep(on_s)
            await device.kill()
            await device.start()
        await settled(device)
        assert why_not(device, "it") == "RolledBack"


async def test_starts_alone_do_not_use_up_the_time_of_what_is_not_tried(tmp_path: Path) -> None:
    files = FakeFiles()
    files.write("/srv/1", b"")
    async with running(tmp_path, files) as device:
        await settled(
            device,
            entry(Base(text="1"), "base"),
            entry(Note(), "top", after=("base",), policy=BACK),
        )
        top = entry(Note(text="newer"), "top", after=("base",), policy=BACK)
        device.push([entry(Base(text="2"), "base"), top])
        for _ in range(12):
            await asyncio.sleep(60)
            await device.kill()
            await device.start()
        await settled(device)
        assert page(device, "top").outcome.reason == "Blocked"
        files.write("/srv/2", b"")
        await settled(device)
        assert why_not(device, "top") == "SUCCESS"


async def test_waiting_for_another_is_none_of_its_time(tmp_path: Path) -> None:
    files = FakeFiles()
    files.write("/srv/1", b"")
    async with running(tmp_path, files) as device:
        top = entry(Waiting(), "top", after=("base",), policy=BACK)
        await settled(
            device,
            entry(Base(text="1"), "base"),
            entry(Note(), "top", after=("base",), policy=BACK),
        )
        device.push([entry(Base(text="2"), "base"), top])
        await asyncio.sleep(250)
        files.write("/srv/2", b"")
        await asyncio.sleep(90)
        assert page(device, "top").outcome.reason == "NotReady"
        await asyncio.sleep(20)
        assert why_not(device, "top") == "RolledBack"


async def test_that_something_is_bad_is_stored_before_what_was_good_is_in_force(
    tmp_path: Path,
) -> None:
    files = Watched()
    async with running(tmp_path, files) as device:
        await settled(device, entry(Note(text="good"), "it"))
        files.device = device
        await settled(device, entry(Note(text="bad", path="/etc/harmony/x"), "it", policy=BACK))
        assert why_not(device, "it") == "RolledBack"
        assert files.stored
        assert all(bad is not None for (bad,) in files.stored)


async def test_nobody_is_told_of_a_change_that_could_still_be_forgotten(tmp_path: Path) -> None:
    files, seen = FakeFiles(), list[tuple[int, bool]]()
    async with running(tmp_path, files) as device:

        async def follow() -> None:
            async for event in device.agent.controller.events.follow():
                rows = device.mark_stored("SELECT seq FROM event")
                seen.append((event["seq"], (event["seq"],) in rows))

        async def half_open() -> None:
            drifts.extend(
                device.mark_stored("SELECT json_extract(state, '$.drift_count') FROM score")
            )
            await asyncio.sleep(5)
            raise BusUnreachable("no answer")

        drifts: list[Any] = []
        await settled(device, NOTE)
        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        device.bus.hear = half_open
        files.write("/etc/note", b"theirs")
        await asyncio.sleep(2)
        assert seen == [(2, True)]
        assert drifts[0] == (1,)
        following.cancel()
        await device.kill()
        device.bus.hear = None
        await device.start()
        await settled(device)
        assert page(device, "note").drift_count == 1
        files.write("/etc/note", b"theirs")
        await settled(device)
        assert device.mark_stored("SELECT seq FROM event ORDER BY seq") == [(1,), (2,), (3,)]


async def test_what_somebody_changed_while_the_agent_was_down_is_drift(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as device:
        await settled(device, NOTE)
        await device.kill()
        files.write("/etc/note", b"theirs")
        await device.start()
        await settled(device)
        assert files.read("/etc/note") == b"hello"
        assert page(device, "note").drift_count == 1
        whys = device.mark_stored("SELECT json_extract(json, '$.why') FROM event ORDER BY seq")
        assert whys == [("desired",), ("drift",)]


async def test_what_is_only_to_be_told_of_is_left_also_after_a_restart_and_told_once(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as device:
        await settled(device, ONLY_TOLD)
        files.write("/etc/note", b"theirs")
        await settled(device)
        for _ in range(2):
            await restarted(device)
        assert files.read("/etc/note") == b"theirs"
        state = await settled(device)
        assert page(device, "note").drift_count == 1
        assert any(each.reason == "Drifted" for each in state.conditions)


async def test_drift_that_is_found_by_a_manifest_that_says_nothing_new_of_it_is_drift(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as device:
        await settled(device, NOTE, entry(Note(path="/etc/told"), "told", policy=TOLD))
        await device.kill()
        files.write("/etc/note", b"theirs")
        files.write("/etc/told", b"theirs")
        device.push([NOTE, entry(Note(path="/etc/told"), "told", policy=TOLD)], labels={"new": "1"})
        await device.start()
        state = await settled(device)
        assert (files.read("/etc/note"), files.read("/etc/told")) == (b"hello", b"theirs")
        assert {name: each.drift_count for name, each in state.scores.items()} == {
            "note": 1,
            "told": 1,
        }
        assert state.observed_generation == 2
        assert status(state.scores) == {"note": "SUCCESS", "told": "FAILURE"}


async def test_what_a_reboot_ends_comes_up_again_and_is_no_drift(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as device:
        await settled(
            device,
            entry(Note(path="/run/app"), "app", policy=TOLD),
            entry(Note(path="/etc/app"), "conf", policy=TOLD),
        )
        await device.kill()
        files.delete("/run/app")
        files.write("/etc/app", b"theirs")
        await device.start()
        await device.reboot()
        await settled(device)
        assert files.read("/run/app") == b"hello"
        assert files.read("/etc/app") == b"theirs"
        assert (page(device, "app").drift_count, page(device, "conf").drift_count) == (0, 1)
        files.delete("/run/app")
        await restarted(device)
        assert files.read("/run/app") is None
        assert page(device, "app").drift_count == 1


async def test_what_a_newer_package_makes_of_the_same_words_is_no_drift(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as device:
        await settled(device, entry(Shaped(), "it", policy=TOLD))
        SHAPE.append(b"of today")
        await restarted(device)
        SHAPE.pop()
        assert files.read("/etc/shaped") == b"of today"
        assert page(device, "it").drift_count == 0


async def test_what_has_to_follow_another_score_is_no_drift(tmp_path: Path) -> None:
    files, systemd = FakeFiles(), FakeSystemd()
    systemd.files = files.contents
    using = entry(Using(), "using", after=("note",), policy=TOLD)
    async with running(tmp_path, files, SystemdHost=systemd) as device:
        await settled(device, NOTE, using)
        before = device.mark_stored("SELECT count(*) FROM event WHERE score = 'using'")
        await settled(device, entry(Note(text="newer"), "note"), using)
        after = device.mark_stored("SELECT count(*) FROM event WHERE score = 'using'")
        assert after[0][0] == before[0][0] + 1, "it was started anew"
        assert page(device, "using").drift_count == 0


async def test_what_drifted_and_is_left_is_told_as_it_is(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as device:
        await settled(device, ONLY_TOLD)
        files.delete("/etc/note")
        await settled(device)
        note = page(device, "note")
        assert (note.resources, note.resources_ready, note.resources_total) == ({}, 0, 1)
        files.write("/etc/note", b"theirs")
        await settled(device)
        note = page(device, "note")
        assert note.resources["file:/etc/note"]["size_bytes"] == len(b"theirs")
        assert (note.resources_ready, note.resources_total) == (0, 1)
        files.write("/etc/note", b"hello")
        await settled(device)
        assert page(device, "note").resources_ready == 1


async def test_a_condition_holds_since_it_began_to_and_not_since_the_agent_started(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, FakeFiles()) as device:
        before = await settled(device, entry(Broken(), "it"))
        after = await restarted(device)
    since = [
        {
            each.type: each.last_transition_time
            for each in state.conditions
            if each.type != "Reconciling"
        }
        for state in (before, after)
    ]
    assert since[0] == since[1]
    assert code(after.scores["it"]) == "InterpretationFailed"


async def test_a_trial_costs_no_flush_of_its_own_and_a_quiet_device_flushes_nothing(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, FakeFiles()) as device:
        names = [f"note-{n}" for n in range(20)]
        await settled(device, *(entry(Note(path=f"/etc/{n}"), n, policy=BACK) for n in names))
        with device.commits() as commits:
            await settled(
                device, *(entry(Note(path=f"/etc/{n}", text="2"), n, policy=BACK) for n in names)
            )
        assert 1 <= len(commits) <= 2
        with device.commits() as commits:
            await asyncio.sleep(3_600)
        assert commits == []
        await restarted(device)
        with device.commits() as commits:
            await asyncio.sleep(3_600)
        assert commits == []
