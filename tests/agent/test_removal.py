"""Removals take their time, count once, go against ``after``, and end also where that goes in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from harmony_core import File, HasFiles, Inventory, Outcome, Score
from harmony_core.change import Change, NotReady
from harmony_core.errors import WriteFailed
from harmony_core.outcome import Running, Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import SerializedScore

from .rig import Broken, Note, Several, entry, status
from .virtual import VirtualDevice

pytestmark = pytest.mark.looptime

A, B = "/etc/a", "/etc/b"
MANY = tuple(f"/etc/many/{number}" for number in range(6))
MORE = tuple(f"/etc/more/{number}" for number in range(6))


class Slow(FakeFiles):
    """Files that can take a while to plan, to go, or to answer when they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.looks_to_go = 0
        self.goes_alone = False
        """Whether it says no more than that it is not ready."""
        self.plan_takes_s = 0.0
        self.answers = True
        self.removed: list[str] = []

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await super().converge(resources, apply=apply)
        if not apply:
            await asyncio.sleep(self.plan_takes_s)
        elif not self.answers:
            await asyncio.Future()
        return results

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        if apply and self.looks_to_go:
            self.looks_to_go -= 1
            going = [_going(f"file:{key}") for key in keys]
            return [each.pending or each for each in going] if self.goes_alone else going
        self.removed += keys if apply else ()
        return await super().remove(keys, apply=apply)


def _going(rid: str) -> Change:
    return Change(resource=rid, pending=NotReady("is being stopped", resource=rid))


@pytest.fixture
def files() -> Slow:
    return Slow()


@pytest.fixture
async def device(tmp_path: Path, files: Slow) -> AsyncGenerator[VirtualDevice]:
    """To be started by the test, since only there the clock jumps."""
    kinds = Registry([Note, Several, Broken])
    it = VirtualDevice(tmp_path, generate_key(), kinds, {"FileSystemHost": files})
    yield it
    await it.kill()
    it.close()


def note(score_id: str, path: str, *after: str) -> SerializedScore:
    return entry(Note(path=path), score_id, after=after)


def several(score_id: str, *paths: str, after: tuple[str, ...] = ()) -> SerializedScore:
    return entry(Several(paths=paths), score_id, after=after)


@pytest.mark.parametrize("goes_alone", [False, True], ids=["in place", "and no more"])
async def test_what_takes_long_to_go_counts_once_and_not_with_every_look(
    device: VirtualDevice, files: Slow, *, goes_alone: bool
) -> None:
    files.goes_alone = goes_alone
    await device.start()
    await device.pages([several("it", A, *MANY)])
    files.looks_to_go = 30
    assert status(await device.pages([several("it", A)])) == {"it": "SUCCESS"}
    assert files.paths() == [A]
    # Neither do those of a Score that is gone.
    files.looks_to_go = 30
    assert not await device.pages([])
    assert files.looks_to_go == 0


async def test_every_score_whose_removal_is_held_says_so_and_leave_for_what_is_told_suffices(
    device: VirtualDevice, files: Slow
) -> None:
    await device.start()
    await device.pages([several("base", *MANY), several("top", *MORE, after=("base",))])
    pages = await device.pages([])
    assert [page.outcome.reason for page in pages.values()] == ["Held", "Held"]
    assert device.bus.told is not None
    assert device.bus.told.removals_held == 12
    assert not await device.pages([], removals_allowed=12)
    assert device.bus.told.removals_held == 0
    assert files.removed == [*reversed(MORE), *reversed(MANY)]


async def test_what_is_told_as_held_counts_what_could_not_go_yet_either(
    device: VirtualDevice, files: Slow
) -> None:
    await device.start()
    less = several("blocked", A, after=("broken",))
    more = several("blocked", A, *MORE)
    await device.pages([several("gone", *MANY), more])
    wanted = [entry(Broken(), "broken"), less]
    pages = await device.pages(wanted)
    outcome = pages["gone"].outcome
    assert isinstance(outcome, Running)
    assert outcome.progress is not None
    assert outcome.progress.total == 6
    assert device.bus.told is not None
    assert device.bus.told.removals_held == 12
    pages = await device.pages(wanted, removals_allowed=12)
    assert "gone" not in pages
    assert files.removed == [*reversed(MANY)]


@pytest.mark.parametrize(
    "circle",
    [
        [note("a", A, "b"), note("b", B, "a")],
        [note("a", A, "a"), note("b", B)],
        # Of the first what it waited for before is still known, and the second is in order.
        [note("a", A, "nobody"), note("b", B, "a")],
    ],
    ids=["of two", "of one", "across manifests"],
)
async def test_a_circle_of_after_does_not_keep_what_is_removed(
    device: VirtualDevice, files: Slow, circle: list[SerializedScore]
) -> None:
    await device.start()
    await device.pages([note("a", A, "b"), note("b", B)])
    assert "FAILURE" in status(await device.pages(circle)).values()
    assert not await device.pages([])
    assert files.paths() == []


async def test_whom_a_score_waits_for_is_known_before_it_makes_anything(
    device: VirtualDevice, files: Slow
) -> None:
    """Also where its plan was not finished when the others' were."""
    await device.start()
    await device.pages([note("base", A)])
    files.plan_takes_s, files.answers = 3.0, False
    device.push([note("base", A), note("top", B, "base")])
    await asyncio.sleep(60)
    assert files.paths() == [A, B]
    await device.kill()
    files.plan_takes_s, files.answers = 0.0, True
    device.push([])
    await device.start()
    await asyncio.sleep(60)
    assert files.removed == [B, A]


async def test_what_is_being_removed_is_told_of_no_older_generation_after_a_kill(
    device: VirtualDevice, files: Slow
) -> None:
    await device.start()
    await device.pages([note("it", A)])
    files.faults[A] = WriteFailed("the disk is tired")
    assert (await device.pages([]))["it"].observed_generation == 2
    await device.kill()
    reports: list[ActualState] = []
    device.bus.on_told = reports.append
    await device.start()
    await asyncio.sleep(60)
    assert reports[0].scores["it"].observed_generation == 2


class Nothing(Score[HasFiles]):
    """Names no resource, and comes to an end or not."""

    ends: bool = True

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return Success() if self.ends else Running(reason="NotReady")


@pytest.mark.parametrize("after", [(), ("note",)])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("is_damaged", [True, False])
async def test_of_one_that_names_nothing_nothing_is_left_whatever_became_of_its_page(
    tmp_path: Path, after: tuple[str, ...], ends: bool, is_damaged: bool
) -> None:
    """Removed while the agent is off: what was noted of it is all that there is to go by."""
    kinds = Registry([Note, Nothing])
    it = VirtualDevice(tmp_path, generate_key(), kinds, {"FileSystemHost": FakeFiles()})
    await it.start()
    note = entry(Note(path=A), "note")
    await it.pages([note, entry(Nothing(ends=ends), "nothing", after=after)])
    await it.kill()
    (it.damage_page if is_damaged else it.forget_page)("nothing")
    it.push([note])
    await it.start()
    await asyncio.sleep(600)
    assert it.bus.told is not None
    assert set(it.bus.told.scores) == {"note"}
    await it.pages([note, entry(Note(path=B), "other")])  # who had it removed is known until then
    for table, column in (("score", "id"), ("lineage", "score"), ("signer", "score")):
        left = it.mark_stored(f"SELECT {column} FROM {table} WHERE {column} = 'nothing'")
        assert left == [], table
    await it.kill()
    it.close()
