"""A message server that loses its streams, or takes less than it did: no device loses anything by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from nats.js import JetStreamContext

from harmony_control.enrol import revoke
from harmony_control.server.buckets import ensure_buckets
from harmony_core.change import Change
from harmony_core.resources import File
from harmony_core.testing import FakeFiles
from harmony_core.wire.actual_state import ActualState

from .rig import Note, Rig, Several, entry, status

STREAMS = ("KV_desired-state", "KV_actual-state", "KV_heartbeat")


def degraded(state: ActualState) -> str:
    return next(each.reason for each in state.conditions if each.type == "Degraded")


def message(state: ActualState) -> str:
    return next(each.message for each in state.conditions if each.type == "Degraded")


async def delete(rig: Rig, *streams: str) -> None:
    for stream in streams:
        await JetStreamContext(rig.bus.admin).delete_stream(stream)


async def have_it_look(rig: Rig) -> None:
    """Have the device fetch what is wanted of it, as it does every half an hour or so: by a wrong hint."""
    await rig.bus.admin.publish("harmony.mail.pi-1.desired-state", b"no envelope")


async def put_right(rig: Rig, path: str = "/etc/note") -> None:
    """Change a file, and wait until the device has put it right."""
    rig.files.write(path, b"theirs")
    async with asyncio.timeout(10):
        while rig.files.read(path) != b"hello":
            await asyncio.sleep(0.02)


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with asyncio.timeout(15):
        while words not in caplog.text:
            await asyncio.sleep(0.02)


async def test_streams_that_are_deleted_keep_no_device_from_its_work_and_come_back(
    rig: Rig,
) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await delete(rig, *STREAMS)
        await put_right(rig)
        await ensure_buckets(rig.bus.admin)
        await rig.put(2, entry(Note(), "note"), entry(Note(path="/etc/new"), "new"))
        assert status(await rig.seen(2)) == {"note": "NOOP", "new": "SUCCESS"}


async def test_a_report_that_was_lost_or_written_over_comes_back_though_nothing_is_new(
    rig: Rig,
) -> None:
    reports = rig.bus.bucket("actual-state")
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.worked()
        older = await reports.get("pi-1")
        assert older is not None
        await delete(rig, "KV_actual-state")
        await ensure_buckets(rig.bus.admin)
        assert await rig.state() is None
        await have_it_look(rig)
        state = await rig.until(lambda _: True)
        assert (status(state.scores), degraded(state)) == ({"note": "SUCCESS"}, "AllWell")
    async with rig.agent():
        state = await rig.until(lambda told: told.counter > state.counter)
        await rig.worked()
        await reports.put("pi-1", older.value)
        await have_it_look(rig)
        state = await rig.until(lambda told: degraded(told) == "ForeignReport")
        assert status(state.scores) == {"note": "SUCCESS"}


async def test_a_revision_that_is_given_out_again_hides_no_report(rig: Rig) -> None:
    """The bucket is made anew, and somebody writes until it counts as far as the device knows it."""
    reports = rig.bus.bucket("actual-state")
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        await rig.worked()
        found = await reports.get("pi-1")
        assert found is not None
        await delete(rig, "KV_actual-state")
        await ensure_buckets(rig.bus.admin)
        while await reports.put("pi-1", found.value) < found.revision:
            pass
        await rig.put(2, entry(Note(), "note"), entry(Note(path="/etc/new"), "new"))
        assert status(await rig.seen(2)) == {"note": "NOOP", "new": "SUCCESS"}


async def test_a_manifest_that_is_put_back_into_a_new_bucket_is_older_whatever_its_revision(
    rig: Rig,
) -> None:
    older = rig.sealed(1, entry(Note(text="older"), "note"))
    async with rig.agent():
        await rig.put(2, entry(Note(), "note"))
        await rig.seen(2)
        await delete(rig, "KV_desired-state")
        await ensure_buckets(rig.bus.admin)
        for _ in range(3):
            await rig.put_bytes(older)
        await have_it_look(rig)
        state = await rig.until(lambda state: degraded(state) == "ManifestRejected")
        assert message(state).startswith("StaleGeneration")
        await put_right(rig)
        await rig.put(3, entry(Note(), "note"))
        await rig.until(lambda state: state.generation == 3 and degraded(state) == "AllWell")


async def test_a_server_without_a_bucket_is_told_with_what_makes_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="harmony_agent.bus")
    await delete(rig, "KV_actual-state")
    async with rig.agent():
        await logged(caplog, "has no such bucket; `harmony server`, started again, makes it")
        assert "is this its address" not in caplog.text
        await ensure_buckets(rig.bus.admin)
        await rig.put(1, entry(Note(), "note"))
        assert status(await rig.seen(1)) == {"note": "SUCCESS"}


async def test_more_hints_than_it_takes_lose_no_manifest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """NATS calls that a slow consumer: what is too much is dropped, and the newest may be among it."""
    caplog.set_level("DEBUG", logger="harmony_agent.bus")
    monkeypatch.setattr("harmony_agent.bus.connection.HINTS_PENDING_BYTES", 1)
    async with rig.agent():
        await rig.until(lambda _: True)
        await rig.put(1, entry(Note(), "note"))
        assert status(await rig.seen(1)) == {"note": "SUCCESS"}
        assert "slow consumer" in caplog.text


async def test_a_report_larger_than_the_server_takes_is_told_and_sent_once_it_does(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="harmony_agent")
    monkeypatch.setattr("harmony_agent.bus.link.LIMITS_READ_AGAIN_S", 0.5)
    monkeypatch.setattr("harmony_agent.bus.link.REQUEST_TIMEOUT_S", 0.5)
    many = [entry(Note(path=f"/etc/{n}"), f"note-{n}") for n in range(20)]
    async with rig.agent():
        await rig.put(1, *many)
        await rig.seen(1)
        before = await rig.state()
        with monkeypatch.context() as patched:
            patched.setattr("harmony_control.server.config.MAX_PAYLOAD_BYTES", 2048)
            await rig.bus.server.reload()
            await put_right(rig, "/etc/7")
            await logged(caplog, "the server takes no more than 2048; set its max_payload")
            await rig.worked()
        assert before is not None
        await rig.bus.server.reload()
        state = await rig.until(lambda state: state.counter > before.counter)
        assert state.scores["note-7"].last_drift is not None


class WaitingFiles(FakeFiles):
    """Files that are written once a test lets them be."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        if apply:
            self.is_asked.set()
            await self.may_go_on.wait()
        return await super().converge(resources, apply=apply)


async def test_a_key_that_is_revoked_during_a_run_costs_nothing_of_the_run(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor of what was there: a device that is let in no more keeps what it was asked for last."""
    caplog.set_level("INFO", logger="harmony_agent.bus")
    rig.files = files = WaitingFiles()
    paths = tuple(f"/etc/{n}" for n in range(5))
    async with rig.agent():
        await rig.put(1, entry(Several(paths=paths), "several"))
        await files.is_asked.wait()
        await asyncio.to_thread(revoke, rig.bus.home, "pi-1")
        await logged(caplog, "not enrolled, or was revoked; to let it in again: harmony enroll")
        files.may_go_on.set()
        async with asyncio.timeout(10):
            while files.read(paths[-1]) != b"hello":
                await asyncio.sleep(0.02)
        await put_right(rig, paths[0])
    await rig.bus.enrol("pi-1", replace=True)
    async with rig.agent():
        assert status(await rig.seen(1)) == {"several": "SUCCESS"}
