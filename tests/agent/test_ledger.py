"""The ledger and its database: what must survive a restart, and what must not be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from harmony_agent.database import Database
from harmony_agent.ledger import Ledger, Wish
from harmony_core import File
from harmony_core.errors import LedgerUnusable

A = File(path="/etc/a", content=b"a")
B = File(path="/etc/b", content=b"b")


async def test_a_claim_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        await (await Ledger.load(database)).claim(Wish("web", [A, B]))
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
    assert ledger.made_by("web") == ["file:/etc/b", "file:/etc/a"]
    assert ledger.scores() == {"web"}


async def test_an_effect_whose_outcome_was_never_stored_is_known_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.claim(Wish("killed", [A]))
        await ledger.claim(Wish("finished", [B]))
        await database.write(*ledger.finish("finished"))
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
    assert ledger.interrupted("killed")
    assert not ledger.interrupted("finished")


async def test_claiming_again_what_is_claimed_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.claim(Wish("web", [A]))
        wal = (tmp_path / "agent.db-wal").stat()
        await ledger.claim(Wish("web", [A]))
        await ledger.put("file:/etc/a", {"made": True})
        await ledger.release("web", ["file:/etc/unknown"])
        grown = (tmp_path / "agent.db-wal").stat()
        await ledger.put("file:/etc/a", {"made": True})
        same = (tmp_path / "agent.db-wal").stat()
    assert grown.st_size > wal.st_size
    assert (same.st_size, same.st_mtime_ns) == (grown.st_size, grown.st_mtime_ns)


async def test_a_resource_is_shared_until_its_last_score_lets_go(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "agent.db") as database:
        ledger = await Ledger.load(database)
        await ledger.claim(Wish("one", [A]))
        await ledger.claim(Wish("two", [A]))
        assert ledger.shared(A.id, "one")
        await ledger.release("two", [A.id])
        assert not ledger.shared(A.id, "one")
        assert ledger.made_by("two") == []


async def test_records_are_forgotten_for_good(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.put("unit:a.service", {"invocation": "x"})
        await ledger.put("unit:b.service", {"invocation": "y"})
        await ledger.forget("unit:a.service")
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
    assert ledger.get("unit:a.service") is None
    assert ledger.get("unit:b.service") == {"invocation": "y"}


async def test_a_database_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerUnusable, match="newer agent"):
        await Database.open(path)


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"not a database, and rather long at that" * 100)
    with pytest.raises(LedgerUnusable, match="cannot be opened"):
        await Database.open(path)
    assert path.read_bytes().startswith(b"not a database")
