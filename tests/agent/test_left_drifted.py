"""What has drifted and is left so, for good or for a while, is told as it was last seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from harmony_core.errors import WriteFailed
from harmony_core.outcome import Failure
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeFiles, FakeSystemd
from harmony_core.wire.actual_state import Condition, ScoreStatus
from harmony_core.wire.manifest import ScorePolicy

from .rig import Note, Several, Sleeper, code, entry
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

NOTE = entry(Note(), "note")
TOLD = entry(Note(), "note", policy=ScorePolicy(drift="report"))
FILE = "file:/etc/note"


def page(device: VirtualDevice, score: str = "note") -> ScoreStatus:
    assert device.bus.told is not None
    return device.bus.told.scores[score]


def conditions(device: VirtualDevice) -> Mapping[str, Condition]:
    assert device.bus.told is not None
    return {each.type: each for each in device.bus.told.conditions}


def retry_at(device: VirtualDevice) -> str | None:
    outcome = page(device).outcome
    assert isinstance(outcome, Failure)
    return outcome.error.retry_at


async def set_repeat_offenders(device: VirtualDevice, files: FakeFiles, times: int) -> None:
    """Delete the note as often, each time as soon as it is put right."""
    for _ in range(times):
        while files.read("/etc/note") is None:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        files.delete("/etc/note")
    await asyncio.sleep(0.7)


async def test_while_a_repair_waits_what_is_missing_is_not_told_as_there(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE])
        await set_repeat_offenders(it, files, 7)
        assert files.read("/etc/note") is None
        assert code(page(it)) == "Drifted"
        assert retry_at(it) is not None
        assert FILE not in page(it).resources
        assert (page(it).resources_ready, page(it).resources_total) == (0, 1)
        assert conditions(it)["Ready"].status == "False"
        assert conditions(it)["Degraded"].reason == "DriftKeepsComing"
        assert page(it).drift_count == 6
        # When its time comes, it is put right, counted, and told as what it is.
        await asyncio.sleep(600)
        assert files.read("/etc/note") == b"hello"
        assert page(it).outcome.status == "SUCCESS"
        assert FILE in page(it).resources
        assert page(it).drift_count == 7
        assert conditions(it)["Ready"].status == "True"


async def test_what_somebody_puts_right_while_its_repair_waits_is_told_and_is_no_drift_of_ours(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE])
        await set_repeat_offenders(it, files, 7)
        files.write("/etc/note", b"hello")
        await asyncio.sleep(2)
        assert page(it).outcome.status == "SUCCESS"
        assert page(it).drift_count == 6


async def test_what_is_told_while_a_repair_waits_follows_each_look_and_is_not_written_each_time(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE])
        await set_repeat_offenders(it, files, 9)
        until = retry_at(it)
        with it.commits() as commits:
            for number in range(10):
                files.write("/etc/note", f"theirs {number}".encode())
                await asyncio.sleep(1.5)
                size = len(f"theirs {number}")
                assert page(it).resources[FILE]["size_bytes"] == size
                assert page(it).resources_ready == 0
        assert commits == []
        assert retry_at(it) == until


async def test_a_kill_does_not_end_patience_and_a_push_does(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE])
        await set_repeat_offenders(it, files, 9)
        await it.kill()
        await it.start()
        await asyncio.sleep(5)
        assert files.read("/etc/note") is None
        assert code(page(it)) == "Drifted"
        assert page(it).drift_count == 8
        await it.pages([NOTE], after_s=5)
        assert files.read("/etc/note") == b"hello"
        assert page(it).drift_count == 9


async def test_a_person_does_not_wait_for_patience(tmp_path: Path) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE])
        await set_repeat_offenders(it, files, 9)
        it.agent.controller.drift.insist("note", enforce=False)
        it.agent.queue.enqueue("note")
        await asyncio.sleep(2)
        assert files.read("/etc/note") == b"hello"
        # The next one waits longer still.
        await set_repeat_offenders(it, files, 1)
        assert code(page(it)) == "Drifted"


async def test_while_a_units_repair_waits_it_is_not_told_as_active(tmp_path: Path) -> None:
    systemd = FakeSystemd()
    offers: Offers = {"SystemdHost": systemd}
    async with running_device(tmp_path, offers, Sleeper) as it:
        await it.pages([entry(Sleeper(), "sleeper")])
        for _ in range(12):
            await systemd.stop("sleeper.service")
            await asyncio.sleep(1)
        assert code(page(it, "sleeper")) == "Drifted"
        assert page(it, "sleeper").resources["unit:sleeper.service"]["state"] == "Inactive"


async def test_what_has_failed_is_told_as_it_was_last_seen_until_it_is_tried_again(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE])
        files.faults["/etc/note"] = WriteFailed("the disk is tired; wait", resource=FILE)
        files.write("/etc/note", b"theirs")
        await asyncio.sleep(600)
        files.faults.clear()
        files.delete("/etc/note")
        await asyncio.sleep(2)
        assert code(page(it)) == "WriteFailed"
        assert FILE not in page(it).resources


async def test_where_drift_is_only_told_the_outcome_says_so_until_it_is_put_right_by_request(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([TOLD])
        files.delete("/etc/note")
        await asyncio.sleep(60)
        assert code(page(it)) == "Drifted"
        assert retry_at(it) is None
        assert FILE not in page(it).resources
        assert conditions(it)["Ready"].reason == "Drifted"
        # Pushed again, it is not in order either, and it has drifted once.
        pages = await it.pages([TOLD])
        assert code(pages["note"]) == "Drifted"
        await it.kill()
        await it.start()
        await asyncio.sleep(60)
        assert files.read("/etc/note") is None
        assert code(page(it)) == "Drifted"
        assert page(it).drift_count == 1
        told = [each for each in it.events() if each["why"] == "drift"]
        assert [each["actions"] for each in told] == [["is left so"]]
        it.agent.controller.drift.insist("note", enforce=True)
        it.agent.queue.enqueue("note")
        await asyncio.sleep(60)
        assert files.read("/etc/note") == b"hello"
        assert page(it).outcome.status == "SUCCESS"
        assert page(it).drift_count == 1
        # That was for once.
        files.delete("/etc/note")
        await asyncio.sleep(60)
        assert code(page(it)) == "Drifted"
        assert page(it).drift_count == 2


async def test_what_is_told_rests_on_a_look_whose_time_is_told_and_a_look_alone_is_not_told(
    tmp_path: Path,
) -> None:
    files = FakeFiles()
    async with running_device(tmp_path, {"FileSystemHost": files}, Note) as it:
        await it.pages([NOTE, entry(Note(path="/etc/other"), "other")])
        first = page(it).looked_at
        assert first is not None
        told: list[object] = []
        it.bus.on_told = told.append
        await asyncio.sleep(2000)  # several slow passes
        assert told == []
        # Whatever else is told, it says by when this one was looked at.
        files.write("/etc/other", b"theirs")
        await asyncio.sleep(60)
        assert told
        second = page(it).looked_at
        assert second is not None
        assert second > first
        # What the last run has seen has no look of this one behind it.
        await it.kill()
        assert "looked_at" not in str(it.mark_stored("SELECT state FROM score"))


async def test_of_many_resources_the_one_that_drifted_is_listed(tmp_path: Path) -> None:
    files = FakeFiles()
    paths = tuple(f"/etc/many/{number}" for number in range(40))
    many = entry(Several(paths=paths), "note", policy=ScorePolicy(drift="report"))
    async with running_device(tmp_path, {"FileSystemHost": files}, Several) as it:
        await it.pages([many])
        files.write(paths[7], b"theirs")
        await asyncio.sleep(60)
        assert list(page(it).resources) == [f"file:{paths[7]}"]
        assert (page(it).resources_ready, page(it).resources_total) == (39, 40)
