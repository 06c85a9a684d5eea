"""The chain of events as it is stored: over restarts, older agents, bad disks, and more than is kept."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harmony_agent.store.database import Database
from harmony_agent.store.event_chain import EventChain
from harmony_agent.store.schema import migrate
from harmony_core.errors import LedgerUnusable
from harmony_core.wire.audit import CHAIN_START, EVENTS_KEPT, AuditHead, hash_event
from harmony_core.wire.replies import FRAME_MAX_BYTES, ChainedEvent, Item, to_frame, to_item
from harmony_core.wire.requests import Audit, Events

from .asking import asker
from .rig import Note, Rig, entry

FIELDS = {"at": "2026-01-31T12:00:00.000Z", "score": "motd", "resource": "file:/etc/motd"}


def note(chain: EventChain, count: int = 1, **fields: Any) -> list[Mapping[str, Any]]:
    """Note so many events; those that are durable are in what is returned."""
    told: list[Mapping[str, Any]] = []
    for _ in range(count):
        chain.add({**FIELDS, **fields}, then=told.append)
    return told


async def stored(chain: EventChain) -> list[ChainedEvent]:
    return [each async for each in chain.read()]


def head_of(events: list[ChainedEvent]) -> AuditHead:
    """The head of *events*, each of which follows from the one before."""
    for before, after in pairwise(events):
        assert after.prior == hash_event(before.prior, before.text.encode())
    last = events[-1]
    assert [json.loads(each.text)["seq"] for each in events] == [each.seq for each in events]
    return AuditHead(seq=last.seq, head=hash_event(last.prior, last.text.encode()))


def leave_as_an_older_agent(path: Path, *, begins: bool) -> None:
    """Two events as an agent without a chain notes them; *begins*: in a database of its own schema."""
    with closing(sqlite3.connect(path)) as database, database:
        if begins:
            migrate(database, path)
            database.execute("ALTER TABLE event DROP COLUMN prior")
            database.execute("DROP TABLE fleet_index")
            database.execute("DROP TABLE class")
            database.execute("PRAGMA user_version = 7")
        (last,) = database.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
        for seq in (last + 1, last + 2):
            text = json.dumps({"seq": seq, **FIELDS})
            database.execute(
                "INSERT INTO event (seq, at, score, json) VALUES (?, 'then', 'motd', ?)",
                (seq, text),
            )


async def test_what_is_durable_only_is_told_of_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        chain = await EventChain.load(database)
        assert chain.durable == AuditHead(seq=0, head=CHAIN_START)
        told = note(chain, 2)
        assert (chain.last_seq, told) == (2, [])
        assert chain.durable == AuditHead(seq=0, head=CHAIN_START)
        await database.write()
        assert [each["seq"] for each in told] == [1, 2]
        before = chain.durable
        assert before == head_of(await stored(chain))
        note(chain)  # and lost, as by kill -9
    async with await Database.open(path) as database:
        chain = await EventChain.load(database)
        assert chain.durable == before
        note(chain)
        await database.write()
        events = await stored(chain)
        assert [each.seq for each in events] == [1, 2, 3]
        assert chain.durable == head_of(events)


async def test_what_is_dropped_leaves_a_chain_that_can_be_verified(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "agent.db") as database:
        chain = await EventChain.load(database)
        note(chain, 100)
        await database.write()
        dropped = chain.durable
        assert dropped is not None
        note(chain, EVENTS_KEPT)
        await database.write()
        events = await stored(chain)
        assert (len(events), events[0].seq) == (EVENTS_KEPT, 101)
        assert events[0].prior == dropped.head
        assert head_of(events) == chain.durable
        assert [each.seq async for each in chain.read(after=2_098)] == [2_099, 2_100]


@pytest.mark.parametrize("chained_before", [0, 3])
async def test_what_an_older_agent_has_noted_is_chained_as_it_stands(
    tmp_path: Path, chained_before: int
) -> None:
    path = tmp_path / "agent.db"
    if chained_before:
        async with await Database.open(path) as database:
            note(await EventChain.load(database), chained_before)
            await database.write()
    leave_as_an_older_agent(path, begins=not chained_before)
    async with await Database.open(path) as database:
        chain = await EventChain.load(database)
        first = chain.durable  # known already, and nothing is written for it alone
        assert database.has_more
    async with await Database.open(path) as database:
        chain = await EventChain.load(database)
        assert chain.durable == first
        note(chain)
        await database.write()
        events = await stored(chain)
        assert len(events) == chained_before + 3
        assert events[0].prior == CHAIN_START
        assert head_of(events) == chain.durable
        assert head_of(events[:-1]) == first
    async with await Database.open(path) as database:
        await EventChain.load(database)
        assert not database.has_more


async def test_the_largest_event_fits_into_an_answer(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "agent.db") as database:
        chain = await EventChain.load(database)
        for diff in ("\x01" * 4_096, '"\\' * 2_048, "\U0001f600" * 4_096, "\ud800" * 4_096):
            note(chain, resource="file:/" + "\x02" * 4_000, diff=diff)
        await database.write()
        for event in await stored(chain):
            assert len(to_frame(Item(seq=1, item=to_item(event)))) <= FRAME_MAX_BYTES


async def test_of_a_record_that_cannot_be_read_nothing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state" / "agent.db"
    async with await Database.open(path) as database:
        note(await EventChain.load(database))
        await database.write()
    kept = path.rename(tmp_path / "kept")
    shutil.rmtree(path.parent)
    path.mkdir(parents=True)  # stands there, and can be neither read nor written
    async with await Database.open(path, scratch=tmp_path) as database:
        chain = await EventChain.load(database)
        assert database.is_blind
        assert chain.durable is None
        with pytest.raises(LedgerUnusable):
            await stored(chain)
    path.rmdir()
    kept.rename(path)
    async with await Database.open(path) as database:
        chain = await EventChain.load(database)
        assert chain.durable == head_of(await stored(chain))


async def test_a_change_is_told_of_by_the_report_that_it_causes(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        state = await rig.until(lambda state: state.audit is not None and state.audit.seq == 1)
        answer = await (await asker(rig)).ask(Audit())
        assert state.audit == head_of([ChainedEvent(**each) for each in answer.items])
        assert (await (await asker(rig)).ask(Audit(after=1))).items == []


async def test_what_is_asked_for_by_score_is_found_by_what_is_hashed(rig: Rig) -> None:
    """Else a change could be hidden from who asks for one Score, with a chain that is whole."""
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        with closing(sqlite3.connect(rig.root / "state" / "agent.db")) as database, database:
            database.execute("UPDATE event SET score = 'other', at = '1970'")
        (event,) = (await (await asker(rig)).ask(Events(score="note"))).items
        assert event["resource"] == "file:/etc/note"


async def test_whenever_it_is_killed_nothing_is_lost_of_what_was_told(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    told: dict[int, str] = {}
    for lines in (1, 2, 7):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.agent.noting", str(path)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        heads = [await process.stdout.readline() for _ in range(lines)]
        process.kill()  # in the middle of a write, or just before or after it
        rest, _ = await process.communicate()
        for line in [*heads, *rest.splitlines()]:
            seq, head = line.decode().split()
            told[int(seq)] = head
        async with await Database.open(path) as database:
            chain = await EventChain.load(database)
            events = await stored(chain)
            assert chain.durable == head_of(events)
            assert chain.last_seq >= max(told)
        found = {each.seq: head_of([each]).head for each in events}
        assert {seq: found[seq] for seq in told} == told
