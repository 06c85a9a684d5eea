"""A Score that fails is rolled back to its last known good revision, and stays there until it changes."""

from __future__ import annotations

from harmony_core import HasFiles, Inventory, NotReady, Outcome, Score
from harmony_core.errors import WriteFailed
from harmony_core.outcome import WILL_ROLL_BACK, Failure
from harmony_core.wire.manifest import ScorePolicy

from .rig import Broken, Note, Rig, Unready, code, entry, status

BACK = ScorePolicy(on_failure="rollback")
SOON = ScorePolicy(on_failure="rollback", deadline_s=1)


async def test_what_cannot_succeed_goes_back_at_once_and_says_why(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(text="good"), "it"))
        await rig.seen(1)
        await rig.put(2, entry(Note(path="/etc/harmony/x"), "it", policy=BACK))
        state = await rig.until(
            lambda s: (
                s.scores["it"].outcome.status == "FAILURE" and code(s.scores["it"]) == "RolledBack"
            )
        )
        outcome = state.scores["it"].outcome
        assert isinstance(outcome, Failure)
        assert "PolicyRefused" in outcome.error.message
        assert "effective again" in outcome.error.message
        assert outcome.error.retry_at is None
        assert rig.files.read("/etc/note") == b"good"


async def test_what_is_not_ready_in_time_goes_back(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(text="good"), "it"))
        await rig.seen(1)
        await rig.put(2, entry(Unready(), "it", policy=SOON))
        await rig.until(lambda s: s.scores["it"].outcome.status == "RUNNING")
        assert rig.files.read("/etc/unready") == b"unready"
        state = await rig.until(lambda s: s.scores["it"].outcome.status == "FAILURE")
        assert code(state.scores["it"]) == "RolledBack"
        assert rig.files.read("/etc/note") == b"good"
        assert rig.files.read("/etc/unready") is None, "what only the bad one made is gone"
    # And it is not tried again after a restart, nor when it is pushed again as it was.
    async with rig.agent():
        await rig.put(3, entry(Unready(), "it", policy=SOON))
        assert code((await rig.seen(3))["it"]) == "RolledBack"
        assert rig.files.read("/etc/unready") is None
        await rig.put(4, entry(Note(text="better"), "it", policy=SOON))
        assert status(await rig.seen(4)) == {"it": "SUCCESS"}
        assert rig.files.read("/etc/note") == b"better"


class Flapping(Score[HasFiles]):
    """Fails, and waits to be tried again, in turns."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        _FLAPS.append(None)
        if len(_FLAPS) % 2:
            raise WriteFailed("cannot find my database", retry_after_s=0.05)
        raise NotReady("was started", resource="file:/x", look_again_s=0.05)


_FLAPS: list[None] = []


async def test_the_log_of_a_failure_is_told_also_where_it_waits_again_at_last(rig: Rig) -> None:
    async with rig.agent(kinds=[Flapping]):
        await rig.put(1, entry(Note(text="good"), "it"))
        await rig.seen(1)
        await rig.put(2, entry(Flapping(), "it", policy=SOON))
        state = await rig.until(
            lambda s: s.generation == 2 and s.scores["it"].outcome.status == "FAILURE"
        )
        assert state.scores["it"].outcome.reason == WILL_ROLL_BACK
        state = await rig.until(lambda s: s.scores["it"].outcome.reason == "Failed")
        assert code(state.scores["it"]) == "RolledBack"
        outcome = state.scores["it"].outcome
        assert isinstance(outcome, Failure)
        assert "cannot find my database" in outcome.error.message


async def test_what_has_no_good_before_it_just_fails(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Broken(), "it", policy=BACK))
        assert code((await rig.seen(1))["it"]) == "InterpretationFailed"


async def test_a_good_one_that_is_bad_by_now_is_said_plainly(rig: Rig) -> None:
    """Others are stuck on an older version that is bad, too (balena-os/meta-balena#1918,
    aws-greengrass/aws-greengrass-nucleus PR 646)."""
    async with rig.agent():
        await rig.put(1, entry(Note(text="good"), "it"))
        await rig.seen(1)
        rig.files.delete("/etc/note")
        rig.files.write("/etc/note/theirs", b"theirs")
        await rig.put(2, entry(Broken(), "it", policy=BACK))
        state = await rig.until(
            lambda s: (
                s.generation == 2
                and s.scores["it"].outcome.status == "FAILURE"
                and code(s.scores["it"]) == "RolledBack"
            )
        )
        outcome = state.scores["it"].outcome
        assert isinstance(outcome, Failure)
        assert "fails, too" in outcome.error.message


async def test_followers_stay_blocked(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(text="good"), "it"))
        await rig.seen(1)
        await rig.put(
            2, entry(Broken(), "it", policy=BACK), entry(Note(path="/etc/f"), "f", after=("it",))
        )
        state = await rig.until(lambda s: s.scores["it"].outcome.status == "FAILURE")
        state = await rig.until(lambda s: "f" in s.scores)
        assert state.scores["f"].outcome.reason == "Blocked"
