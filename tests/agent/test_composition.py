"""A Score made of others: what its parts make is the whole's."""

from __future__ import annotations

import pytest

from harmony_core import Failure, HasFiles, Inventory, Noop, Outcome, Running, Score, Success
from harmony_core.change import Change, Changes
from harmony_core.outcome import ErrorInfo, outcome_of
from harmony_core.steps import Created

from .rig import Note, Rig, code, entry, status

A, B = "/etc/a", "/etc/b"


class Notes(Score[HasFiles]):
    """Several notes; parts that are fields, and one that is not."""

    notes: tuple[Note, ...]
    signed: bool = False

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        parts = [*self.notes, *([Note(path="/etc/signature")] if self.signed else [])]
        return outcome_of(*[await part.interpret(inventory, topology) for part in parts])


def notes(*paths: str, signed: bool = False) -> Notes:
    return Notes(notes=tuple(Note(path=path) for path in paths), signed=signed)


async def test_the_parts_are_made_and_taken_away_with_the_whole(rig: Rig) -> None:
    async with rig.agent(kinds=[Notes]):
        await rig.put(1, entry(notes(A, B, signed=True), "it"))
        seen = await rig.seen(1)
        assert status(seen) == {"it": "SUCCESS"}
        assert set(seen["it"].resources) == {f"file:{A}", f"file:{B}", "file:/etc/signature"}
        await rig.put(2, entry(notes(A, B, signed=True), "it"))
        assert status(await rig.seen(2)) == {"it": "NOOP"}
        await rig.put(3, entry(notes(B), "it"))
        assert status(await rig.seen(3)) == {"it": "SUCCESS"}
        assert (rig.files.read(A), rig.files.read("/etc/signature")) == (None, None)
        await rig.put(4)
        await rig.until(lambda state: not state.scores and state.observed_generation == 4)
        assert rig.files.read(B) is None


async def test_a_part_is_another_s_like_anything_else(rig: Rig) -> None:
    async with rig.agent(kinds=[Notes]):
        await rig.put(1, entry(Note(path=A, text="mine"), "first"))
        await rig.seen(1)
        await rig.put(2, entry(Note(path=A, text="mine"), "first"), entry(notes(A, B), "whole"))
        seen = await rig.seen(2)
        assert code(seen["whole"]) == "OwnershipConflict"
        assert rig.files.read(A) == b"mine"


FAILED = Failure(error=ErrorInfo(code="X", message="x"))
WAITS = Running(reason="NotReady")
CHANGED = Changes((Change(resource="file:/a", steps=(Created(),)),))


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((), Noop()),
        ((Noop(), Changes()), Noop()),
        ((Noop(), Success()), Success()),
        ((Noop(), CHANGED), Success()),
        ((Success(), WAITS, Noop()), WAITS),
        ((Success(), WAITS, FAILED), FAILED),
    ],
)
def test_the_worst_of_the_parts_counts(
    parts: tuple[Changes | Outcome, ...], whole: Outcome
) -> None:
    assert outcome_of(*parts) == whole
