"""A disk that takes nothing for a while: nothing is begun that could not be noted, nothing is forgotten."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harmony_agent.store.database import Database
from harmony_agent.store.ledger import ClaimRequest, Ledger
from harmony_core import File
from harmony_core.errors import LedgerUnusable
from harmony_core.reconciler import MemoryBackups
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology.files.reconciler import PosixFiles

from .rig import Note, Rig, code, entry, status

A = File(path="/etc/a", content=b"a")


@contextmanager
def full(path: Path) -> Generator[None]:
    """Whoever writes into the database at *path* is told that there is no more room."""
    with sqlite3.connect(path) as database:
        for table in ("desired", "score", "claim", "record", "lineage", "event"):
            for deed in ("INSERT", "UPDATE", "DELETE"):
                database.execute(
                    f"CREATE TRIGGER no_{deed}_{table} BEFORE {deed} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'no more room'); END"
                )
    yield
    with sqlite3.connect(path) as database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {name}")


def degraded(state: ActualState) -> str:
    (found,) = (each.reason for each in state.conditions if each.type == "Degraded")
    return found


async def test_what_could_not_be_noted_of_a_file_is_noted_the_next_time(tmp_path: Path) -> None:
    path, root = tmp_path / "agent.db", tmp_path / "root"
    root.mkdir()
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        files = PosixFiles(str(root), records=ledger, backups=MemoryBackups())
        with full(path), pytest.raises(LedgerUnusable):
            await files.converge([A], apply=True)
        assert not (root / "etc").exists()
        await files.converge([A], apply=True)
        await files.close()
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        files = PosixFiles(str(root), records=ledger, backups=MemoryBackups())
        (removed,) = await files.remove(["/etc/a"], apply=True)
        await files.close()
    assert not isinstance(removed, Exception)
    assert not (root / "etc").exists()


async def test_what_could_not_be_forgotten_is_still_known(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.put("file:/etc/a", {"existed": False})
        with full(path):
            with pytest.raises(LedgerUnusable):
                await ledger.forget("file:/etc/a")
            with pytest.raises(LedgerUnusable):
                await ledger.put("file:/etc/a", {"existed": True})
        assert ledger.get("file:/etc/a") == {"existed": False}


async def test_a_claim_that_could_not_be_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        with full(path), pytest.raises(LedgerUnusable):
            await ledger.claim(ClaimRequest("web", [A]))
        assert not ledger.scores()


async def test_a_new_manifest_waits_for_room_and_is_not_forgotten(rig: Rig) -> None:
    """It is taken up as soon as there is room again, by nobody's asking."""
    memory = rig.root / "state" / "agent.db"
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        with full(memory):
            newer = rig.sealed(2, entry(Note(), "note"), entry(Note(path="/etc/new"), "new"))
            await rig.put_bytes(newer)
            state = await rig.until(lambda state: degraded(state) == "LedgerUnusable")
            assert state.generation == 2
            state = await rig.until(
                lambda state: status(state.scores).get("new", "RUNNING") != "RUNNING"
            )
            assert code(state.scores["new"]) == "LedgerUnusable"
            assert status(state.scores)["note"] in {"SUCCESS", "NOOP"}
            assert rig.files.read("/etc/new") is None
        await rig.until(
            lambda state: degraded(state) == "AllWell" and status(state.scores)["new"] == "SUCCESS"
        )
    async with await Database.open(memory) as database:
        assert await database.read("SELECT envelope FROM desired") == [(newer,)]
    async with rig.agent():
        assert status(await rig.seen(2)) == {"note": "NOOP", "new": "SUCCESS"}


async def test_an_agent_that_finds_no_room_when_it_starts_keeps_what_is_there(rig: Rig) -> None:
    memory = rig.root / "state" / "agent.db"
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
    await rig.put(2, entry(Note(text="newer"), "note"))
    with full(memory):
        async with rig.agent():
            await rig.until(lambda state: degraded(state) == "LedgerUnusable")
            assert rig.files.read("/etc/note") == b"hello"
            first = await rig.bus.bucket("heartbeat").get("pi-1")
            second = first
            while second is None or first is None or second.revision == first.revision:
                await asyncio.sleep(0.05)
                first, second = first or second, await rig.bus.bucket("heartbeat").get("pi-1")
    async with rig.agent():
        await rig.until(
            lambda state: (
                state.observed_generation == 2 and status(state.scores) == {"note": "SUCCESS"}
            )
        )
        assert rig.files.read("/etc/note") == b"newer"
