"""What somebody else changes is put right, counted and told; who keeps at it meets patience."""

from __future__ import annotations

import asyncio

from harmony_agent.drift.backoff import DriftBackoff
from harmony_core.reconciler import Offers
from harmony_core.testing import FakeSystemd
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.manifest import ScorePolicy

from .rig import Note, Rig, Several, Sleeper, code, entry, status

NOTE = entry(Note(), "note")
ONLY_TOLD = entry(Note(), "note", policy=ScorePolicy(drift="report"))


async def settled(rig: Rig, generation: int = 1) -> None:
    """Until it is in order, and watched: then the device is quiet."""
    await rig.seen(generation)
    await asyncio.sleep(0.6)


async def record_drift(rig: Rig, count: int) -> ActualState:
    return await rig.until(lambda state: state.scores["note"].drift_count == count)


async def test_what_somebody_changed_is_put_right_and_told(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await settled(rig)
        rig.files.write("/etc/note", b"theirs\n")
        state = await record_drift(rig, 1)
        assert rig.files.read("/etc/note") == b"hello"
        drift = state.scores["note"].last_drift
        assert drift is not None
        assert drift.resource == "file:/etc/note"
        assert "-theirs" in drift.before
        assert drift.after.startswith("PresentAt(")
        assert status(state.scores) == {"note": "SUCCESS"}


async def test_what_we_do_ourselves_is_no_drift(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await settled(rig)
        await rig.put(2, entry(Note(text="other"), "note"))
        await settled(rig, 2)
        await rig.worked()
        state = await rig.state()
        assert state is not None
        assert state.scores["note"].drift_count == 0
        assert rig.files.read("/etc/note") == b"other"


async def test_drift_that_is_only_to_be_told_stays_and_degrades_the_device(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, ONLY_TOLD)
        await settled(rig)
        rig.files.write("/etc/note", b"theirs\n")
        state = await rig.until(lambda s: any(c.reason == "Drifted" for c in s.conditions))
        assert rig.files.read("/etc/note") == b"theirs\n"
        assert state.scores["note"].drift_count == 1
        assert code(state.scores["note"]) == "Drifted"
        rig.files.write("/etc/note", b"hello")
        state = await rig.until(lambda s: all(c.reason != "Drifted" for c in s.conditions))
        assert status(state.scores) == {"note": "SUCCESS"}
        # A newer manifest that says the same of it does not put it right; one that says so, does.
        rig.files.write("/etc/note", b"theirs\n")
        await rig.put(2, ONLY_TOLD)
        await rig.seen(2)
        assert rig.files.read("/etc/note") == b"theirs\n"
        await rig.put(3, NOTE)
        await rig.seen(3)
        assert rig.files.read("/etc/note") == b"hello"


async def test_what_may_not_be_put_right_is_refused_counted_once_and_made_good_when_it_is_gone(
    rig: Rig,
) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await settled(rig)
        rig.files.delete("/etc/note")
        rig.files.write("/etc/note/theirs", b"theirs")
        state = await rig.until(lambda s: status(s.scores) == {"note": "FAILURE"})
        assert code(state.scores["note"]) == "UnsafePath"
        drift = state.scores["note"].last_drift
        assert drift is not None
        assert drift.resource == "file:/etc/note"
        assert "is a directory" in drift.before
        assert state.scores["note"].drift_count == 1
        rig.files.delete("/etc/note/theirs")
        rig.files.remove_directory("/etc/note")
        state = await rig.until(lambda s: status(s.scores) == {"note": "SUCCESS"})
        assert rig.files.read("/etc/note") == b"hello"
        assert state.scores["note"].drift_count == 1
        rig.files.write("/etc/note", b"theirs\n")
        await record_drift(rig, 2)


async def test_a_link_in_the_place_of_a_file_is_drift_like_any_other(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await settled(rig)
        rig.files.write("/etc/theirs", b"theirs")
        rig.files.delete("/etc/note")
        rig.files.link("/etc/note", "/etc/theirs")
        await record_drift(rig, 1)
        assert rig.files.read("/etc/note") == b"hello"
        assert rig.files.read("/etc/theirs") == b"theirs"


async def test_what_may_not_be_put_right_is_told_where_nothing_is_to_be_put_right(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, ONLY_TOLD)
        await settled(rig)
        rig.files.delete("/etc/note")
        rig.files.write("/etc/note/theirs", b"theirs")
        await rig.until(lambda s: any(c.reason == "Drifted" for c in s.conditions))
        state = await rig.state()
        assert state is not None
        assert code(state.scores["note"]) == "Drifted"
        drift = state.scores["note"].last_drift
        assert drift is not None
        assert "is a directory" in drift.before


async def test_a_drop_in_of_nobody_s_wish_is_told_and_left(rig: Rig) -> None:
    systemd = FakeSystemd()
    systemd.files = rig.files.contents
    offers: Offers = {"FileSystemHost": rig.files, "SystemdHost": systemd}
    unit = entry(Sleeper(), "sleeper")
    async with rig.agent(offers):
        await rig.put(1, unit)
        await settled(rig)
        rig.files.write(DROP_IN, b"[Service]\nNice=5\n")
        await systemd.reload()
        state = await rig.until(lambda s: any(c.reason == "Drifted" for c in s.conditions))
        page = state.scores["sleeper"]
        assert (page.outcome.status, page.drift_count) == ("SUCCESS", 1)
        assert page.resources["unit:sleeper.service"]["drop_ins"] == [DROP_IN]
        assert page.last_drift is not None
        assert page.last_drift.before == f"overridden by file:{DROP_IN}"
        # Once a Score has it, it is what is wanted.
        await rig.put(2, entry(Note(path=DROP_IN, text="[Service]\nNice=6\n"), "note"), unit)
        state = await rig.until(lambda s: all(c.reason != "Drifted" for c in s.conditions))
        assert state.scores["sleeper"].drift_count == 1


DROP_IN = "/etc/systemd/system/sleeper.service.d/override.conf"


async def test_only_the_scores_concerned_are_looked_at(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE, entry(Several(paths=("/etc/a", "/etc/b")), "several"))
        await settled(rig)
        rig.files.delete("/etc/a")
        state = await rig.until(lambda s: s.scores["several"].drift_count == 1)
        assert state.scores["note"].drift_count == 0
        assert rig.files.read("/etc/a") == b"hello"


async def test_who_keeps_changing_it_is_told_of(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await settled(rig)
        for count in (1, 2, 3):
            rig.files.write("/etc/note", b"theirs again\n")
            await record_drift(rig, count)
        state = await rig.until(lambda s: any(c.reason == "DriftKeepsComing" for c in s.conditions))
        (told,) = [c for c in state.conditions if c.type == "Degraded"]
        assert "file:/etc/note" in told.message
        assert "-theirs again" in told.message


async def test_every_change_is_an_event_with_its_reason(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await settled(rig)
        rig.files.write("/etc/note", b"theirs\n")
        await record_drift(rig, 1)
    told = [(e["seq"], e["generation"], e["why"], e["actions"]) for e in await rig.events()]
    assert [each[:3] for each in told] == [(1, 1, "desired"), (2, 1, "drift")]


def test_patience_doubles_and_is_forgotten_in_peace() -> None:
    patience = DriftBackoff()
    waits: list[float] = []
    now = 0.0
    for _ in range(12):
        waits.append(patience.wait_s("it", now))
        now += waits[-1]
        patience.record_repair("it", now)
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert patience.repeat_offenders(now) == {"it": 12}
    assert patience.wait_s("it", now + 600) == 0
    assert patience.repeat_offenders(now + 600) == {}
    patience.record_repair("it", now + 600)
    assert patience.wait_s("it", now + 600) == 0
