"""What has failed is tried again when its wait is over, whatever events its own attempts have made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from harmony_core import File
from harmony_core.change import Change
from harmony_core.errors import WriteFailed
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ScoreStatus
from harmony_core.wire.manifest import ScorePolicy

from .rig import Note, code, entry
from .virtual import VirtualDevice, running_device

pytestmark = pytest.mark.looptime

BAD, GOOD = "bad", "good"


class Fragile(FakeFiles):
    """Files in which writing BAD fails, and leaves something else behind each time."""

    def __init__(self) -> None:
        super().__init__()
        self.tried_at: list[float] = []

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        (file,) = resources
        (planned,) = await super().converge(resources, apply=False)
        if file.content != BAD.encode() or not apply or not _changes(planned):
            return await super().converge(resources, apply=apply)
        self.tried_at.append(asyncio.get_running_loop().time())
        self.write(file.path, f"torn {len(self.tried_at)}".encode())
        return [WriteFailed("the disk is tired; wait", resource=file.id)]


def _changes(planned: Change | Exception) -> bool:
    return not isinstance(planned, Change) or planned.changed


@asynccontextmanager
async def running(root: Path) -> AsyncGenerator[tuple[VirtualDevice, Fragile]]:
    files = Fragile()
    async with running_device(root, {"FileSystemHost": files}, Note) as device:
        yield device, files


def page(device: VirtualDevice) -> ScoreStatus:
    assert device.bus.told is not None
    return device.bus.told.scores["note"]


async def test_its_own_events_do_not_have_it_tried_before_the_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (it, files):
        it.push([entry(Note(text=BAD), "note")])
        await asyncio.sleep(600)
        waits = [after - before for before, after in pairwise(files.tried_at)]
        assert len(waits) >= 8
        for number, wait in enumerate(waits):
            assert 0.8 * min(300, 2**number) <= wait <= 1.3 * min(300, 2**number) + 0.1
        assert code(page(it)) == "WriteFailed"


async def test_what_somebody_else_puts_right_is_told_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (it, files):
        it.push([entry(Note(text=BAD), "note")])
        await asyncio.sleep(600)
        tries = len(files.tried_at)
        files.write("/etc/note", BAD.encode())
        await asyncio.sleep(2)
        assert page(it).outcome.status == "NOOP"
        assert len(files.tried_at) == tries


async def test_what_could_not_be_reached_and_is_there_again_is_tried_at_once(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (it, files):
        it.push([entry(Note(text=BAD), "note")])
        await asyncio.sleep(600)
        tries = len(files.tried_at)
        files.lose_events()
        await asyncio.sleep(2)
        assert len(files.tried_at) == tries + 1


async def test_a_newer_manifest_does_not_wait_for_the_older_ones_back_off(tmp_path: Path) -> None:
    async with running(tmp_path) as (it, _):
        it.push([entry(Note(text=BAD), "note")])
        await asyncio.sleep(600)
        it.push([entry(Note(text=GOOD), "note")])
        await asyncio.sleep(2)
        assert page(it).outcome.status == "SUCCESS"


async def test_the_wait_is_no_longer_than_the_time_until_it_goes_back_to_what_was_good(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (it, files):
        it.push([entry(Note(text=GOOD), "note")])
        await asyncio.sleep(10)
        it.push(
            [
                entry(
                    Note(text=BAD),
                    "note",
                    policy=ScorePolicy(on_failure="rollback", deadline_s=100),
                )
            ]
        )
        await asyncio.sleep(102)
        assert code(page(it)) == "RolledBack"
        assert files.read("/etc/note") == GOOD.encode()


async def test_a_look_before_the_time_counts_as_no_attempt(tmp_path: Path) -> None:
    async with running(tmp_path) as (it, files):
        it.push([entry(Note(text=BAD), "note")])
        await asyncio.sleep(600)
        files.write("/etc/note", b"theirs")
        await asyncio.sleep(2)
        assert it.agent.queue.attempts("note") == len(files.tried_at)
