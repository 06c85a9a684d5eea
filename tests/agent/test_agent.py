"""The agent on a real bus: what it takes in, what it refuses, and what it says of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from harmony_core.change import Change, NotReady
from harmony_core.outcome import Running
from harmony_core.reconciler import Availability
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.manifest import SerializedScore

from .rig import Broken, Note, Rig, Unit, code, entry, status


async def test_a_score_converges_and_then_needs_nothing(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        assert status(await rig.seen(1)) == {"note": "SUCCESS"}
        assert await rig.files.observe("/etc/note")
        await rig.put(2, entry(Note(), "note"))
        assert status(await rig.seen(2)) == {"note": "NOOP"}


class Silent(FakeFiles):
    """A file system that does not say whether it is there."""

    async def availability(self) -> Availability:
        await asyncio.sleep(3600)
        raise AssertionError


async def test_what_it_offers_is_in_its_very_first_report(rig: Rig) -> None:
    rig.files = Silent()
    async with rig.agent():
        state = await rig.until(lambda _: True)
    offered = {name: each.offered for name, each in state.capabilities.items()}
    assert offered == {"FileSystemHost": True, "SystemdHost": False}


async def test_one_scores_failure_stops_no_other(rig: Rig) -> None:
    async with rig.agent():
        unknown = SerializedScore(id="unknown", kind="Unheard", version=1, spec={})
        newer = SerializedScore(id="newer", kind="Note", version=99, spec={})
        wrong = SerializedScore(id="wrong", kind="Note", version=1, spec={"txet": "typo"})
        await rig.put(
            1,
            entry(Broken(), "broken"),
            unknown,
            newer,
            wrong,
            entry(Unit(), "unit"),
            entry(Note(path="../etc/passwd"), "escape"),
            entry(Note(path="/etc/harmony/agent.toml"), "self"),
            entry(Note(), "note"),
        )
        scores = await rig.seen(1)
    assert status(scores)["note"] == "SUCCESS"
    assert {name: code(page) for name, page in scores.items() if name != "note"} == {
        "broken": "InterpretationFailed",
        "unknown": "UnknownKind",
        "newer": "UnsupportedVersion",
        "wrong": "InvalidScore",
        "unit": "MissingCapability",
        "escape": "InvalidResource",
        "self": "PolicyRefused",
    }


async def test_what_waits_for_another_is_blocked_until_that_has_converged(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(
            1,
            entry(Note(path="/etc/second"), "second", after=("first",)),
            entry(Broken(), "first"),
            entry(Note(path="/etc/a"), "a", after=("b",)),
            entry(Note(path="/etc/b"), "b", after=("a",)),
            entry(Note(path="/etc/c"), "c", after=("nobody",)),
        )
        scores = await rig.seen(1)
        assert scores["second"].outcome.status == "RUNNING"
        assert scores["second"].outcome.reason == "Blocked"
        assert code(scores["a"]) == code(scores["b"]) == "DependencyCycle"
        assert code(scores["c"]) == "UnknownDependency"
        await rig.put(
            2,
            entry(Note(path="/etc/second"), "second", after=("first",)),
            entry(Note(path="/etc/first"), "first"),
        )
        await rig.until(
            lambda state: status(state.scores) == {"first": "SUCCESS", "second": "SUCCESS"}
        )


async def test_a_removed_score_takes_along_what_it_made(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(path="/etc/a"), "a"), entry(Note(path="/etc/b"), "b"))
        await rig.seen(1)
        await rig.put(2, entry(Note(path="/etc/b"), "b"))
        await rig.until(lambda state: set(state.scores) == {"b"} and state.observed_generation == 2)
    assert await rig.files.observe("/etc/a") is None
    assert await rig.files.observe("/etc/b") is not None


async def test_what_nothing_here_can_remove_any_more_is_said_and_kept(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
    files, rig.files = rig.files, FakeFiles()
    async with rig.agent(offers={}):
        await rig.put(2)
        state = await rig.until(
            lambda state: "CapabilityUnavailable" in state.scores["note"].outcome.message
        )
    assert state.scores["note"].outcome.reason == "Removing"
    rig.files = files
    async with rig.agent():
        await rig.until(lambda state: not state.scores)
    assert await files.observe("/etc/note") is None


async def test_a_score_that_was_refused_for_what_stood_there_can_be_removed(rig: Rig) -> None:
    rig.files.write("/etc/target", b"theirs")
    rig.files.link("/etc/note", "/etc/target")
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        scores = await rig.seen(1)
        assert code(scores["note"]) == "UnsafePath"
        assert scores["note"].resources["file:/etc/note"]["state"] == "NotAFile"
        await rig.put(2)
        await rig.until(lambda state: not state.scores and state.observed_generation == 2)
    assert rig.files.read("/etc/target") == b"theirs"


class Lingering(FakeFiles):
    """Files that take their time to go."""

    looks = 0

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        self.looks += 1
        if self.looks == 8:
            return await super().remove(keys, apply=apply)
        rid = f"file:{keys[0]}"
        signal = NotReady("is being emptied", resource=rid, look_again_s=0.3)
        return [Change(resource=rid, pending=signal)]


async def test_what_takes_its_time_to_go_is_removing_until_it_is_gone(rig: Rig) -> None:
    rig.files = Lingering()
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.put(2)
        removing = Running(reason="Removing", message="is being emptied")
        await rig.until(
            lambda state: "note" in state.scores and state.scores["note"].outcome == removing
        )
        assert await rig.files.observe("/etc/note") is not None
        await rig.until(lambda state: not state.scores)
    assert await rig.files.observe("/etc/note") is None


class Slow(FakeFiles):
    """Files whose removal ends only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.let = asyncio.Event()

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        self.begun.set()
        await self.let.wait()
        return await super().remove(keys, apply=apply)


async def test_what_is_wanted_again_while_it_is_being_removed_is_there_in_the_end(rig: Rig) -> None:
    rig.files = slow = Slow()
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.put(2)
        await slow.begun.wait()
        await rig.put(3, entry(Note(), "note"))
        await rig.until(lambda state: state.generation == 3)
        slow.let.set()
        assert status(await rig.seen(3)) == {"note": "SUCCESS"}
    assert await rig.files.observe("/etc/note") is not None


async def test_a_manifest_that_cannot_be_trusted_changes_nothing(rig: Rig) -> None:
    async def find_refused(value: bytes, expected: str) -> None:
        await rig.put_bytes(value)
        state = await rig.until(
            lambda state: any(
                c.reason == "ManifestRejected" and c.message.startswith(f"{expected}:")
                for c in state.conditions
            )
        )
        assert state.generation == 3
        assert status(state.scores) == {"note": "SUCCESS"}

    async with rig.agent():
        await rig.put(3, entry(Note(), "note"))
        await rig.seen(3)
    stranger = attrs.evolve(rig, key=generate_key())
    evil = entry(Note(path="/etc/evil"), "evil")
    for value, expected in [
        (b"", "NotJson"),
        (b"\xff\xfe", "NotUtf8"),
        (b"{}", "BadEnvelope"),
        (stranger.sealed(4, evil), "UntrustedSignature"),
        (rig.sealed(4, evil, target="agent:pi-2"), "WrongTarget"),
        (rig.sealed(4, evil, fleet="other"), "WrongFleet"),
        (rig.sealed(2, evil), "StaleGeneration"),
        (rig.sealed(3, evil), "Equivocation"),
        (rig.sealed(4, evil, expires_at=datetime(2999, 1, 1, tzinfo=UTC))[:-9], "NotJson"),
    ]:
        async with rig.agent():  # each start fetches what is there
            await find_refused(value, expected)
    assert await rig.files.observe("/etc/evil") is None
    async with rig.agent():
        await rig.put(4, entry(Note(), "note"))
        state = await rig.until(lambda state: state.observed_generation == 4)
    assert not any(c.reason == "ManifestRejected" for c in state.conditions)


async def test_a_refusal_is_told_for_as_long_as_what_is_refused_is_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_agent.bus.deliveries.DOUBT_S", 0.5)

    def rejected(state: ActualState) -> bool:
        return any(c.reason == "ManifestRejected" for c in state.conditions)

    good = rig.sealed(1, entry(Note(), "note"))
    await rig.put_bytes(good)
    async with rig.agent():
        await rig.seen(1)
        await rig.put_bytes(b"{}")
        await rig.until(rejected)
        await rig.put_bytes(good)
        await rig.until(lambda state: not rejected(state))


async def test_what_has_expired_is_told_and_stays_in_force(rig: Rig) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"), expires_at=soon)
        await rig.seen(1)
        state = await rig.until(
            lambda state: any(c.type == "Stale" and c.status == "True" for c in state.conditions)
        )
        assert status(state.scores) == {"note": "SUCCESS"}
        await rig.put(2, entry(Note(), "note"))
        await rig.until(
            lambda state: any(c.type == "Stale" and c.status == "False" for c in state.conditions)
        )


async def test_a_deleted_key_is_no_instruction(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        deleted = {"KV-Operation": "DEL"}
        await rig.bus.admin.publish("$KV.desired-state.pi-1", b"", headers=deleted)
        await rig.bus.admin.flush()
    async with rig.agent():
        await rig.until(lambda state: status(state.scores) == {"note": "SUCCESS"})
    assert await rig.files.observe("/etc/note") is not None


async def test_without_a_bus_it_keeps_what_it_was_asked_for(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
    assert rig.bus.server.pid is not None
    os.kill(rig.bus.server.pid, signal.SIGKILL)
    rig.files.forget_everything()
    async with rig.agent():
        async with asyncio.timeout(10):
            while await rig.files.observe("/etc/note") is None:
                await asyncio.sleep(0.02)


async def test_it_beats_while_it_works(rig: Rig) -> None:
    async with rig.agent():
        first = await _next_beat(rig, None)
        second = await _next_beat(rig, first)
    assert second > first


async def _next_beat(rig: Rig, before: int | None) -> int:
    import json

    async with asyncio.timeout(10):
        while True:
            found = await rig.bus.bucket("heartbeat").get("pi-1")
            if found and found.value:
                seq: int = json.loads(found.value)["queue_seq"]
                if before is None or seq > before:
                    return seq
            await asyncio.sleep(0.05)
