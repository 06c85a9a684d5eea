"""What is no longer wanted goes, what is wanted otherwise moves, and nothing goes from ignorance."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from harmony_core import File
from harmony_core.change import Change
from harmony_core.outcome import Failure, Running
from harmony_core.testing import FakeFiles

from .rig import Note, Rig, Several, Unready, code, entry, status

A, B, C = "/etc/a", "/etc/b", "/etc/c"


class Counting(FakeFiles):
    """Files that remember what was done to them, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await super().converge(resources, apply=apply)
        if apply:
            self.done += [f"+{r.resource}" for r in results if isinstance(r, Change) and r.changed]
        return results

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        if apply:
            self.done += [f"-file:{key}" for key in keys]
        return await super().remove(keys, apply=apply)


async def test_what_a_score_no_longer_names_is_removed(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Several(paths=(A, B)), "it"))
        await rig.seen(1)
        await rig.put(2, entry(Several(paths=(B,)), "it"))
        assert status(await rig.seen(2)) == {"it": "SUCCESS"}
        assert rig.files.read(A) is None
        assert rig.files.read(B) == b"hello"
        await rig.put(3, entry(Several(paths=(B,)), "it"))
        assert status(await rig.seen(3)) == {"it": "NOOP"}


async def test_a_score_that_read_a_label_that_is_missing_takes_nothing_away(rig: Rig) -> None:
    """Files were emptied while data was missing (saltstack/salt#30600)."""
    score = entry(Several(paths=(A,), asks="site"), "it")
    async with rig.agent():
        await rig.put(1, score, labels={"site": "yes"})
        await rig.seen(1)
        await rig.put(2, score)
        await rig.seen(2)
        assert rig.files.read(A) == b"hello", (
            "the label is gone: nobody has said that the file should be"
        )
        await rig.put(3, score, labels={"site": "no"})
        await rig.seen(3)
        assert rig.files.read(A) is None


async def test_a_score_that_failed_takes_nothing_away(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Several(paths=(A, B)), "it"))
        await rig.seen(1)
        await rig.put(2, entry(Several(paths=("/etc/harmony/agent.toml", B)), "it"))
        assert code((await rig.seen(2))["it"]) == "PolicyRefused"
        assert rig.files.read(A) == b"hello"


async def test_what_is_not_ready_yet_takes_nothing_away(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Several(paths=(A,)), "it"))
        await rig.seen(1)
        await rig.put(2, entry(Unready(path=B), "it"))
        assert status(await rig.seen(2)) == {"it": "RUNNING"}
        assert rig.files.read(A) == b"hello"


async def test_who_wants_another_scores_file_otherwise_is_refused_and_gets_it_when_it_is_free(
    rig: Rig,
) -> None:
    mine, theirs = entry(Note(path=A, text="mine"), "mine"), entry(Note(path=A, text="theirs"), "a")
    async with rig.agent():
        await rig.put(1, mine)
        await rig.seen(1)
        await rig.put(2, theirs, mine)
        scores = await rig.seen(2)
        assert status(scores) == {"mine": "NOOP", "a": "FAILURE"}
        assert code(scores["a"]) == "OwnershipConflict"
        assert isinstance(scores["a"].outcome, Failure)
        assert "'mine'" in scores["a"].outcome.error.message
        assert rig.files.read(A) == b"mine"
        await rig.put(3, theirs)
        await rig.until(lambda s: status(s.scores) == {"a": "SUCCESS"})
        assert rig.files.read(A) == b"theirs"


async def test_among_newcomers_the_manifest_decides(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(path=A, text="1"), "z"), entry(Note(path=A, text="2"), "b"))
        scores = await rig.seen(1)
        assert status(scores) == {"z": "SUCCESS", "b": "FAILURE"}
        assert rig.files.read(A) == b"1"


async def test_equal_wishes_are_shared_until_the_last_goes(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(path=A), "one"), entry(Note(path=A), "two"))
        assert "FAILURE" not in status(await rig.seen(1)).values()
        await rig.put(2, entry(Note(path=A), "two"))
        await rig.until(lambda s: set(s.scores) == {"two"})
        assert rig.files.read(A) == b"hello"
        await rig.put(3)
        await rig.until(lambda s: not s.scores)
        assert rig.files.read(A) is None


async def test_a_file_that_moves_from_one_score_to_another_is_never_away(rig: Rig) -> None:
    rig.files = files = Counting()
    async with rig.agent():
        await rig.put(1, entry(Several(paths=(A, B)), "one"), entry(Note(path=C), "two"))
        await rig.seen(1)
        files.done.clear()
        await rig.put(
            2, entry(Several(paths=(B,)), "one"), entry(Several(paths=(C, A), text="new"), "two")
        )
        assert "FAILURE" not in status(await rig.seen(2)).values()
        assert rig.files.read(A) == b"new"
        assert f"-file:{A}" not in files.done
        await rig.put(3, entry(Several(paths=(B,)), "one"))
        await rig.until(lambda s: set(s.scores) == {"one"})
        assert rig.files.read(A) is None


async def test_a_score_of_another_name_with_the_same_files_makes_nothing_anew(rig: Rig) -> None:
    rig.files = files = Counting()
    async with rig.agent():
        await rig.put(1, entry(Several(paths=(A, B)), "old"))
        await rig.seen(1)
        files.done.clear()
        await rig.put(2, entry(Several(paths=(A, B)), "new"))
        await rig.until(lambda s: set(s.scores) == {"new"} and s.observed_generation == 2)
        assert files.done == []
        assert rig.files.read(A) == b"hello"
        await rig.put(3, entry(Several(paths=(A, B), text="other"), "newer"))
        await rig.until(lambda s: set(s.scores) == {"newer"} and s.observed_generation == 3)
        assert files.done == [f"+file:{A}", f"+file:{B}"]


async def test_very_many_removals_wait_for_leave(rig: Rig) -> None:
    """Neither does what somebody emptied by mistake (saltstack/salt#30600)."""
    many = tuple(f"/etc/many/{number}" for number in range(12))
    async with rig.agent():
        await rig.put(1, entry(Several(paths=many), "many"), entry(Note(), "note"))
        await rig.seen(1)
        await rig.put(2, entry(Note(), "note"))
        state = await rig.until(
            lambda s: (
                any(c.reason == "RemovalsHeld" for c in s.conditions)
                and isinstance(s.scores["many"].outcome, Running)
            )
        )
        outcome = state.scores["many"].outcome
        assert isinstance(outcome, Running)
        assert (outcome.reason, outcome.progress and outcome.progress.total) == ("Held", 12)
        assert "harmony approve" in outcome.message
        assert rig.files.read(many[0]) == b"hello"
    # The answer is still awaited after a restart.
    async with rig.agent():
        await rig.worked()
        assert rig.files.read(many[0]) == b"hello"
        await rig.put(3, entry(Note(), "note"), removals_allowed=12)
        state = await rig.until(lambda s: set(s.scores) == {"note"})
        assert rig.files.read(many[0]) is None
        await rig.until(lambda s: all(c.reason != "RemovalsHeld" for c in s.conditions))


async def test_a_score_that_names_far_less_than_before_waits_for_leave_too(rig: Rig) -> None:
    many = tuple(f"/etc/many/{number}" for number in range(12))
    async with rig.agent():
        await rig.put(1, entry(Several(paths=(A, *many)), "many"))
        await rig.seen(1)
        await rig.put(2, entry(Several(paths=(A,)), "many"))
        scores = await rig.seen(2)
        assert scores["many"].outcome.reason == "Held"
        assert rig.files.read(many[0]) == b"hello"
        await rig.put(3, entry(Several(paths=(A,)), "many"), removals_allowed=12)
        assert status(await rig.seen(3)) == {"many": "SUCCESS"}
        assert rig.files.read(many[0]) is None
        assert rig.files.read(A) == b"hello"


async def test_what_waited_for_another_is_taken_away_before_it(rig: Rig) -> None:
    rig.files = files = Counting()
    async with rig.agent():
        await rig.put(
            1,
            entry(Note(path=A), "base"),
            entry(Note(path=B), "middle", after=("base",)),
            entry(Note(path=C), "top", after=("middle",)),
        )
        await rig.until(lambda s: list(status(s.scores).values()) == ["SUCCESS"] * 3)
        files.done.clear()
        await rig.put(2)
        await rig.until(lambda s: not s.scores)
        assert files.done == [f"-file:{C}", f"-file:{B}", f"-file:{A}"]


async def test_a_stored_manifest_that_no_longer_counts_takes_nothing_away(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(path=A), "note"))
        await rig.seen(1)
    with sqlite3.connect(rig.root / "state" / "agent.db") as database:
        database.execute("UPDATE desired SET envelope = x'64616d61676564'")
    database.close()
    await rig.put_bytes(b"damaged too")
    async with rig.agent():
        await rig.until(lambda s: any(c.reason == "ManifestRejected" for c in s.conditions))
        await rig.worked()
        assert rig.files.read(A) == b"hello"
