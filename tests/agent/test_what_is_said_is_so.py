"""Nothing is told, confirmed, held or begun on the strength of what was true of something else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from harmony_core import (
    Change,
    File,
    HasFiles,
    Inventory,
    NotReady,
    Outcome,
    Score,
    outcome_of,
)
from harmony_core.errors import InvalidResource, WriteFailed
from harmony_core.outcome import Failure
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.manifest import ScorePolicy, SerializedScore

from .rig import Note, Several, code, entry, status
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

BACK = ScorePolicy(on_failure="rollback", deadline_s=60)
NO_ANSWER_S = 5.5
"""After so long an agent that starts goes on with what is stored."""


class Slow(Score[HasFiles]):
    """Takes its time to find out how things are."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        await asyncio.sleep(1.5)
        return outcome_of(await topology.files.ensure(File(path="/etc/slow", content=b"slow")))


class Serving(Score[HasFiles]):
    """In place at once, and ready once there is a file that says so."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        changes = await topology.files.ensure(File(path="/etc/base", content=b"base"))
        if await topology.files.observe("/run/ready") is None:
            raise NotReady("is starting", resource="file:/etc/base", look_again_s=1)
        return outcome_of(changes)


class Defect(Score[HasFiles]):
    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        change = await topology.files.ensure(File(path="/etc/part", content=b"1"))
        if await topology.files.observe("/etc/mended") is None:
            raise ZeroDivisionError("a defect")
        return outcome_of(change)


class Busy(FakeFiles):
    """Counts what is asked in earnest, which may take long. Writing /etc/bad… fails, /etc/never… for good."""

    def __init__(self, *, first_s: float = 0.0) -> None:
        super().__init__()
        self.deeds: list[bytes] = []
        self._first_s = first_s

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if not apply:
            return await super().converge(resources, apply=False)
        self.deeds += [each.content for each in resources if isinstance(each.content, bytes)]
        first_s, self._first_s = self._first_s, 0.0
        await asyncio.sleep(first_s)
        results: list[Change | Exception] = []
        for each in resources:
            if each.path.startswith("/etc/never"):
                results.append(InvalidResource("in vain", resource=each.id))
            elif each.path.startswith("/etc/bad"):
                results.append(WriteFailed("broken", resource=each.id))
            else:
                results += await super().converge([each], apply=True)
        return results


def running(
    root: Path, files: FakeFiles, *kinds: type[Score[Any]]
) -> AbstractAsyncContextManager[VirtualDevice]:
    return running_device(root, {"FileSystemHost": files}, Note, Several, *kinds)


async def settled(device: VirtualDevice, *entries: SerializedScore, **fields: Any) -> ActualState:
    if entries:
        device.push(entries, **fields)
    await asyncio.sleep(30)
    assert device.bus.told is not None
    return device.bus.told


def reports(device: VirtualDevice) -> list[ActualState]:
    """Everything that is told from now on."""
    told: list[ActualState] = []
    device.bus.on_told = told.append
    return told


def is_ready(state: ActualState) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in state.conditions)


async def restarted(device: VirtualDevice, meanwhile: Callable[[], None] = lambda: None) -> None:
    """With the cable out."""
    await device.kill()
    device.bus.pull_cable()
    meanwhile()
    await device.start()


async def test_a_manifest_that_comes_while_another_is_planned_is_not_told_by_its_plan(
    tmp_path: Path,
) -> None:
    slow = entry(Slow(), "slow")
    async with running(tmp_path, FakeFiles(), Slow) as it:
        await settled(it, entry(Note(text="good"), "it", policy=BACK), slow)
        await restarted(it)
        await asyncio.sleep(NO_ANSWER_S)
        told = reports(it)
        bad = entry(Note(path="/etc/harmony/not-to-be"), "it", policy=BACK)
        it.push([bad, slow])
        it.bus.plug_in()
        state = await settled(it)
        assert code(state.scores["it"]) == "RolledBack"
        assert all(not is_ready(each) for each in told if each.generation == 2)
        good = it.agent.controller.revisions.last_known_good("it")
        assert good is not None
        assert good.spec["text"] == "good"


async def test_what_was_told_to_be_in_force_is_so_after_a_reboot_without_a_network(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running(tmp_path, files, Slow) as it:
        await settled(it, entry(Note(), "it"), entry(Slow(), "slow"))
        await restarted(it)
        await asyncio.sleep(NO_ANSWER_S)
        told = reports(it)
        it.push([entry(Note(text="newer"), "it"), entry(Slow(), "slow")])
        it.bus.plug_in()
        while not told or told[-1].generation != 2:
            await asyncio.sleep(0.01)
        await restarted(it)
        await asyncio.sleep(30)
        assert it.agent.desired.generation == 2
        assert files.read("/etc/note") == b"newer"


async def test_much_is_held_also_if_as_much_comes_in_its_place(tmp_path: Path) -> None:
    """The manifest of another device is the very accident that removals are held for."""
    files = FakeFiles()
    paths = [tuple(f"/etc/{kind}/{n}" for n in range(30)) for kind in ("kiosk", "till")]
    async with running(tmp_path, files) as it:
        await settled(it, entry(Several(paths=paths[0]), "kiosk"))
        wanted = entry(Several(paths=paths[1]), "till")
        plans = await it.agent.controller.preview.preview([wanted])
        assert {each.score: each.held for each in plans} == {"till": False, "kiosk": True}
        state = await settled(it, wanted)
        assert state.scores["kiosk"].outcome.reason == "Held"
        assert all(files.read(path) is not None for path in paths[0])
        await settled(it, wanted, removals_allowed=30)
        assert not any(files.read(path) for path in paths[0])


async def test_who_was_rolled_back_keeps_what_the_good_one_has(tmp_path: Path) -> None:
    files = Busy()
    good = entry(Several(paths=("/etc/good",)), "it")
    bad = entry(Several(paths=("/etc/bad",)), "it", policy=BACK)
    async with running(tmp_path, files) as it:
        await settled(it, good)
        await settled(it, bad)
        await asyncio.sleep(60)
        (plan,) = await it.agent.controller.preview.preview([bad])
        assert plan.planned is not None
        assert isinstance(plan.planned.verdict.outcome, Failure)
        assert plan.planned.verdict.outcome.error.code == "RolledBack"
        assert (plan.planned.changes, plan.removals) == ((), []) or not plan.planned.changes
        thief = entry(Note(path="/etc/good", text="theirs"), "thief")
        state = await settled(it, bad, thief)
        assert code(state.scores["thief"]) == "OwnershipConflict"
        assert code(state.scores["it"]) == "RolledBack"
        assert files.read("/etc/good") == b"hello"


async def test_who_goes_back_needs_no_leave_to_take_away_what_only_the_failed_attempt_made(
    tmp_path: Path,
) -> None:
    files = Busy()
    more = tuple(f"/etc/more/{n}" for n in range(20))
    async with running(tmp_path, files) as it:
        await settled(it, entry(Several(paths=("/etc/good",)), "it"))
        state = await settled(
            it, entry(Several(paths=(*more, "/etc/bad")), "it", policy=BACK), removals_allowed=0
        )
        await asyncio.sleep(90)
        assert it.bus.told is not None
        state = it.bus.told
        assert code(state.scores["it"]) == "RolledBack"
        assert "effective again" in repr(state.scores["it"].outcome)
        assert not any(files.read(path) for path in more)


async def test_what_another_has_is_no_reason_to_go_back(tmp_path: Path) -> None:
    files = FakeFiles()
    owner = entry(Note(path="/etc/shared", text="theirs"), "owner")
    async with running(tmp_path, files) as it:
        await settled(it, owner, entry(Note(text="good"), "it"))
        newer = entry(Several(paths=("/etc/note", "/etc/shared"), text="newer"), "it", policy=BACK)
        state = await settled(it, owner, newer)
        assert code(state.scores["it"]) == "OwnershipConflict"
        await asyncio.sleep(600)
        state = await settled(it, newer)
        assert status(state.scores) == {"it": "SUCCESS"}
        assert files.read("/etc/shared") == b"newer"


async def test_after_a_boot_who_waits_for_another_waits_for_it_again(tmp_path: Path) -> None:
    files = FakeFiles()
    files.write("/run/ready", b"")

    def reboot() -> None:
        files.delete("/run/ready")
        files.delete("/run/top")

    async with running(tmp_path, files, Serving) as it:
        top = entry(Note(path="/run/top"), "top", after=("base",))
        await settled(it, entry(Serving(), "base"), top)
        await restarted(it, reboot)
        told = reports(it)
        await asyncio.sleep(20)
        assert files.read("/run/top") is None
        it.bus.plug_in()
        await asyncio.sleep(5)
        assert told
        assert not any(is_ready(each) for each in told)
        files.write("/run/ready", b"")
        assert status((await settled(it)).scores) == {"base": "SUCCESS", "top": "SUCCESS"}
        assert files.read("/run/top") == b"hello"


async def test_nothing_is_called_ready_before_this_process_has_looked_at_it(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running(tmp_path, files, Slow) as it:
        await settled(it, entry(Slow(), "slow"))
        await it.kill()
        files.delete("/etc/slow")
        told = reports(it)
        await it.start()
        await settled(it)
        there = [is_ready(each) for each in told]
        assert there[0] is False
        assert there[-1] is True


async def test_an_older_verb_lands_before_the_newer_one_begins(tmp_path: Path) -> None:
    files = Busy(first_s=10)
    async with running(tmp_path, files) as it:
        it.push([entry(Note(text="old"), "it")])
        await asyncio.sleep(1)
        it.push([entry(Note(text="new"), "it")])
        await asyncio.sleep(8)
        assert files.deeds == [b"old"]
        await settled(it)
        assert files.deeds[:2] == [b"old", b"new"]
        assert files.read("/etc/note") == b"new"
        assert it.bus.told is not None
        assert it.bus.told.scores["it"].drift_count == 0


async def test_what_stood_is_kept_up_while_what_it_waits_for_fails(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running(tmp_path, files) as it:
        base = entry(Note(path="/etc/base"), "base")
        await settled(it, base, entry(Note(path="/etc/top"), "top", after=("base",)))
        files.faults["/etc/base"] = WriteFailed("input/output error")
        files.delete("/etc/base")
        await asyncio.sleep(5)
        files.delete("/etc/top")
        state = await settled(it)
        assert files.read("/etc/top") == b"hello"
        assert state.scores["top"].drift_count == 1
        assert state.scores["top"].outcome.reason == "Blocked"
        # What has changed meanwhile waits: that never stood.
        newer = entry(Note(path="/etc/top", text="newer"), "top", after=("base",))
        await settled(it, base, newer)
        assert files.read("/etc/top") == b"hello"


async def test_what_was_in_vain_is_tried_again_when_the_device_has_changed_and_not_before(
    tmp_path: Path,
) -> None:
    files = Busy()
    async with running(tmp_path, files) as it:
        state = await settled(it, entry(Note(path="/etc/never"), "it"))
        assert code(state.scores["it"]) == "InvalidResource"
        assert len(files.deeds) == 1
        await asyncio.sleep(3600)
        assert len(files.deeds) == 1
        files.write("/etc/never", b"theirs")
        await asyncio.sleep(3600)
        assert len(files.deeds) == 2
        it.agent.queue.enqueue("it")  # somebody asks for it
        await asyncio.sleep(3600)
        assert len(files.deeds) == 3


async def test_what_could_not_even_be_planned_is_done_once_it_can(tmp_path: Path) -> None:
    files = Busy()
    async with running(tmp_path, files, Defect) as it:
        state = await settled(it, entry(Defect(), "it"))
        assert code(state.scores["it"]) == "InterpretationFailed"
        await asyncio.sleep(3600)
        assert files.deeds == []
        files.write("/etc/mended", b"")
        await asyncio.sleep(400)
        assert status((await settled(it)).scores) == {"it": "SUCCESS"}
