"""What this device says is told apart from what others say in its place, and from what it said before."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js import JetStreamContext

from harmony_agent.bus.own_report import OwnReport, Writer
from harmony_agent.store.conditions import Conditions
from harmony_agent.store.database import Database, Statement
from harmony_agent.store.report_counter import ReportCounter
from harmony_agent.store.status_writer import StatusWriter
from harmony_core.wire.actual_state import ActualState, to_json
from harmony_core.wire.device_signature import (
    ACTUAL_STATE_TYPE,
    HEARTBEAT_TYPE,
    SIGNATURE_HEADER,
    is_signed_by,
    sign,
)
from harmony_core.wire.envelope import generate_key

from .rig import Note, Rig, entry

KEY = generate_key()
DAY_MS = 24 * 60 * 60 * 1000


def own(revision: int = 5) -> OwnReport:
    """One that has reported once, at that revision."""
    report = OwnReport(KEY)
    report.note_found(b"by an earlier run", revision - 1, "")
    report.note_sent(b"mine")
    report.note_acknowledged(b"mine", revision)
    return report


def test_what_stood_there_before_is_nobodys_fault() -> None:
    assert OwnReport(KEY).note_found(b"anything", 7, "") is None


def test_a_lost_acknowledgement_is_not_somebody_else() -> None:
    report = own()
    report.note_sent(b"also mine")
    report.note_sent(b"and newer")
    assert report.note_found(b"also mine", 6, "") is None


@pytest.mark.parametrize("revision", [0, 4, 5])
def test_a_server_that_lost_its_newest_is_not_somebody_else(revision: int) -> None:
    assert own().note_found(b"older", revision, "") is None


def test_by_its_own_key_it_is_a_copy_of_the_device() -> None:
    theirs = b"theirs"
    assert own().note_found(theirs, 6, sign(KEY, ACTUAL_STATE_TYPE, theirs)) is Writer.COPY


@pytest.mark.parametrize(
    "signature",
    ["", sign(KEY, HEARTBEAT_TYPE, b"theirs"), sign(generate_key(), ACTUAL_STATE_TYPE, b"theirs")],
    ids=["none", "of a heartbeat", "of another key"],
)
def test_by_any_other_it_is_a_stranger(signature: str) -> None:
    assert own().note_found(b"theirs", 6, signature) is Writer.STRANGER


def test_a_deletion_is_a_strangers() -> None:
    assert own().note_found(None, 6, "") is Writer.STRANGER


def said(counter: int, message: str = "") -> bytes:
    return to_json(
        ActualState(
            agent_id="pi-1",
            agent_version='"counter":7',
            boot_id="b",
            generation=1,
            observed_generation=1,
            counter=counter,
            manifest_sha256=message,
        )
    )


def test_the_same_is_not_said_twice_but_by_whom_else_it_was_said() -> None:
    report = OwnReport(KEY)
    assert not report.is_current(said(1))
    report.note_found(said(1), 4, sign(KEY, ACTUAL_STATE_TYPE, said(1)))
    assert report.is_current(said(2))
    assert not report.is_current(said(2, "other"))
    report.note_found(said(3), 5, sign(generate_key(), ACTUAL_STATE_TYPE, said(3)))
    assert not report.is_current(said(4))
    report.note_acknowledged(said(4), 6)
    assert report.is_current(said(5))


async def counted(path: Path, now_ms: int, times: int, *, is_saved: bool = True) -> list[int]:
    """What one run of the agent counts, with that clock."""
    async with await Database.open(path) as database:
        writer = StatusWriter(database, await Conditions.load(database))
        counter = await ReportCounter.load(database, writer.add, now_ms=now_ms)
        found = [counter.next() for _ in range(times)]
        if is_saved:
            await writer.save()
        return found


async def test_it_counts_on_over_restarts_whatever_the_clock_does(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    found: list[int] = []
    for now_ms in (20_000 * DAY_MS, 0, 49_710 * DAY_MS, 20_001 * DAY_MS, 0):
        found += await counted(path, now_ms, 3)
    assert found == sorted(set(found))
    assert found[-1] < 2**53


async def test_it_counts_on_where_only_one_of_memory_and_clock_was_lost(tmp_path: Path) -> None:
    first = await counted(tmp_path / "agent.db", 20_000 * DAY_MS, 3)
    again = await counted(tmp_path / "new.db", 20_000 * DAY_MS + 1000, 3)
    unsaved = await counted(tmp_path / "agent.db", 20_000 * DAY_MS + 2000, 1, is_saved=False)
    last = await counted(tmp_path / "agent.db", 20_000 * DAY_MS + 3000, 1)
    assert max(first) < min(again)
    assert max(first) < unsaved[0] <= last[0] + 1


async def test_what_is_reserved_is_never_exceeded_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    many = await counted(path, 0, (1 << 20) + 5)
    assert (await counted(path, 0, 1))[0] > many[-1]


@given(st.binary(max_size=200), st.integers(0, 63), st.integers(1, 255))
def test_no_changed_byte_of_content_or_signature_passes(content: bytes, at: int, by: int) -> None:
    raw = bytearray(base64.b64decode(sign(KEY, ACTUAL_STATE_TYPE, content)))
    raw[at] ^= by
    changed = base64.b64encode(raw).decode()
    public = KEY.public.public
    assert not is_signed_by(public, ACTUAL_STATE_TYPE, content, changed)
    assert not is_signed_by(
        public, ACTUAL_STATE_TYPE, content + b" ", sign(KEY, ACTUAL_STATE_TYPE, content)
    )


def reason(state: ActualState) -> str:
    return next(each.reason for each in state.conditions if each.type == "Degraded")


async def overwrite(rig: Rig, *, by_itself: bool) -> ActualState:
    """Have somebody write pi-1's report: a copy of it, or whoever holds the server. What it then says."""
    state = await rig.until(lambda _: True)
    forged = to_json(attrs.evolve(state, boot_id="another", counter=state.counter + 1))
    device = await rig.bus.device("pi-1")
    key = device.report_key if by_itself else generate_key()
    headers = {SIGNATURE_HEADER: sign(key, ACTUAL_STATE_TYPE, forged)}
    await JetStreamContext(rig.bus.admin).publish("$KV.actual-state.pi-1", forged, headers=headers)
    # It has something to say by and by: what it wrote last is not what stands there.
    await rig.put(1, entry(Note(), "note"))
    return await rig.until(lambda told: told.boot_id == state.boot_id and told.generation == 1)


@pytest.mark.parametrize(
    ("by_itself", "expected"), [(True, "DeviceCopied"), (False, "ForeignReport")]
)
async def test_who_writes_its_report_is_told_and_written_over(
    rig: Rig, by_itself: bool, expected: str
) -> None:
    async with rig.agent():
        assert reason(await overwrite(rig, by_itself=by_itself)) in {"AllWell", expected}
        told = await rig.until(lambda state: reason(state) == expected)
        assert told.generation == 1
    # Whoever starts it again has seen to it.
    async with rig.agent():
        assert reason(await rig.until(lambda state: state.counter > told.counter)) == "AllWell"


async def test_all_that_it_says_is_signed_and_counted(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        device = await rig.bus.device("pi-1")
        public = device.report_key.public.public
        counters: list[int] = []
        for bucket, content_type in (
            ("actual-state", ACTUAL_STATE_TYPE),
            ("heartbeat", HEARTBEAT_TYPE),
        ):
            found = await rig.bus.bucket(bucket).get("pi-1")
            assert found is not None
            assert is_signed_by(public, content_type, found.value, found.signature)
        for _ in range(3):
            state = await rig.until(lambda told: not counters or told.counter > counters[-1])
            counters.append(state.counter)
            await rig.put(len(counters) + 1, entry(Note(text=str(len(counters))), "note"))
        assert counters == sorted(counters)


async def test_the_counter_grows_also_where_the_database_was_lost_soon_after_a_restart(
    rig: Rig,
) -> None:
    """Each run counts on from what the one before has reserved, which is ahead of the clock."""
    last = 0
    for generation in (1, 2, 3):
        if generation == 3:
            shutil.rmtree(rig.root / "state")
        async with rig.agent():
            await rig.put(generation, entry(Note(), "note"))
            await rig.seen(generation)
            state = await rig.state()
            assert state is not None
            assert state.counter > last
            last = state.counter


async def test_what_a_counter_is_told_is_exceeded_and_so_is_what_may_have_been_said_since(
    tmp_path: Path,
) -> None:
    async with await Database.open(tmp_path / "agent.db") as database:
        reserved: list[Statement] = []
        counter = await ReportCounter.load(database, reserved.extend, now_ms=1_000)
        assert counter.next() == 1_001
        counter.go_beyond(900)
        assert counter.next() == 1_002
        counter.go_beyond(5_000)
        assert counter.next() > 5_000 + 1_000
        (floor,) = reserved[-1][1]
        assert floor > counter.next()
