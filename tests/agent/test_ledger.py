"""The ledger and its database: what must survive a restart, and what must not be written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from harmony_agent.store.database import Database
from harmony_agent.store.ledger import ClaimRequest, Ledger
from harmony_core import File
from harmony_core.errors import LedgerUnusable
from harmony_core.wire.actual_state import ActualState

from .rig import Note, Rig, entry, status

A = File(path="/etc/a", content=b"a")
B = File(path="/etc/b", content=b"b")


async def test_a_claim_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        await (await Ledger.load(database)).claim(ClaimRequest("web", [A, B]))
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
    assert ledger.owned_by("web") == ["file:/etc/b", "file:/etc/a"]
    assert ledger.scores() == {"web"}


async def test_an_effect_whose_outcome_was_never_stored_is_known_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.claim(ClaimRequest("killed", [A]))
        await ledger.claim(ClaimRequest("finished", [B]))
        await database.write(*ledger.finish("finished"))
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
    assert ledger.was_interrupted("killed")
    assert not ledger.was_interrupted("finished")


async def test_claiming_again_what_is_claimed_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.claim(ClaimRequest("web", [A]))
        wal = (tmp_path / "agent.db-wal").stat()
        await ledger.claim(ClaimRequest("web", [A]))
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
        await ledger.claim(ClaimRequest("one", [A]))
        await ledger.claim(ClaimRequest("two", [A]))
        assert ledger.is_shared(A.id, "one")
        await ledger.release("two", [A.id])
        assert not ledger.is_shared(A.id, "one")
        assert ledger.owned_by("two") == []


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
    assert not path.with_name("agent.db.damaged").exists()


async def test_a_newer_database_that_only_has_more_is_used_and_stays_what_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        await (await Ledger.load(database)).claim(ClaimRequest("web", [A]))
    with sqlite3.connect(path) as connection:
        for table in ("score", "claim", "record", "lineage", "event", "desired", "condition"):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN newer TEXT DEFAULT 'newer'")
        connection.execute("CREATE TABLE newest (only INTEGER)")
        connection.execute("PRAGMA user_version = 99")
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        assert ledger.owned_by("web") == [A.id]
        await ledger.claim(ClaimRequest("web", [B]))
        await ledger.put(B.id, {"made": True})
        assert await database.read("PRAGMA user_version") == [(99,)]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE reader SET oldest = 99")
    with pytest.raises(LedgerUnusable, match="newer agent"):
        await Database.open(path)


def garbled(path: Path) -> None:
    path.write_bytes(b"not a database, and rather long at that" * 100)


def with_a_bad_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(10 * 4096, len(data), 4096):
        data[start : start + 4096] = bytes(4096)
    path.write_bytes(data)


def with_bad_words(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE record SET json = substr(json, 3)")


def with_bad_letters(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE claim SET score = CAST(x'66ff' AS TEXT)")


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE lineage")


@pytest.mark.parametrize(
    "damage", [garbled, with_a_bad_page, with_bad_words, with_bad_letters, without_a_table]
)
async def test_what_is_damaged_is_set_aside_and_kept(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "agent.db"
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        await ledger.claim(ClaimRequest("web", [A]))
        for number in range(300):
            await ledger.put(f"file:/etc/{number}", {"padding": "x" * 200})
    damage(path)
    damaged = path.read_bytes()
    for _ in range(2):
        async with await Database.open(path) as database:
            ledger = await Ledger.load(database)
            assert not ledger.scores()
            assert database.damaged is not None
            assert database.damaged.path.read_bytes() == damaged
            await ledger.claim(ClaimRequest("web", []))


async def test_a_disk_that_does_not_answer_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.mkdir()
    with pytest.raises(LedgerUnusable, match="cannot be opened"):
        await Database.open(path)
    assert list(tmp_path.iterdir()) == [path]


async def test_an_agent_with_a_damaged_memory_asks_anew_says_so_and_removes_nothing(
    rig: Rig,
) -> None:
    memory = rig.root / "state" / "agent.db"
    kept, other = entry(Note(), "kept"), entry(Note(path="/etc/other"), "other")
    async with rig.agent():
        await rig.put(1, kept, other)
        await rig.seen(1)
        last = (await rig.events())[-1]["seq"]
    garbled(memory)
    await rig.put(2, kept)
    async with rig.agent():
        state = await rig.until(lambda state: state.observed_generation == 2)
        assert status(state.scores)["kept"] in {"SUCCESS", "NOOP"}
        (told,) = (each for each in state.conditions if each.type == "Degraded")
        assert (told.status, told.reason) == ("True", "LedgerLost")
        assert str(memory.with_name("agent.db.damaged")) in told.message
        assert rig.files.read("/etc/other") == b"hello"
        await rig.put(3, kept, entry(Note(path="/etc/new"), "new"))
        await rig.seen(3)
        assert rig.files.read("/etc/other") == b"hello"
    assert (await rig.events())[0]["seq"] > last, "no number is given twice"
    async with rig.agent():
        await rig.until(is_lost)
        memory.with_name("agent.db.damaged").unlink()
        await rig.until(lambda state: not is_lost(state))


def is_lost(state: ActualState) -> bool:
    return any(each.reason == "LedgerLost" for each in state.conditions)
