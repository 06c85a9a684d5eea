"""What is noted is kept, also where somebody deletes the database under the running agent."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_agent.store.database import Database
from harmony_core.errors import LedgerUnusable

from .rig import Note, Rig, entry, status

NOTE = entry(Note(), "note")
OTHER = entry(Note(path="/etc/other"), "other")


def empty(directory: Path) -> None:
    for each in directory.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def move(directory: Path) -> None:
    (directory / "agent.db").rename(directory / "elsewhere")


def lose_journal(directory: Path) -> None:
    (directory / "agent.db-wal").unlink()


async def noted(path: Path) -> list[str]:
    async with await Database.open(path) as database:
        return [
            text for (text,) in await database.read("SELECT json FROM record ORDER BY resource")
        ]


async def note(database: Database, number: int) -> None:
    await database.write(("INSERT INTO record (resource, json) VALUES (?, ?)", (f"r{number}", "1")))


@pytest.mark.parametrize("vanish", [empty, shutil.rmtree, move, lose_journal])
async def test_what_is_noted_after_the_files_have_gone_is_kept_with_what_was_noted_before(
    tmp_path: Path, vanish: Callable[[Path], object]
) -> None:
    path = tmp_path / "state" / "agent.db"
    async with await Database.open(path) as database:
        await database.read("SELECT 1")
        await note(database, 1)
        vanish(path.parent)
        await note(database, 2)
        assert database.rewritten == path
        # As a power cut would leave it: what is there now, while it is still open.
        left = tmp_path / "left"
        shutil.copytree(path.parent, left)
        await note(database, 3)
    assert await noted(left / "agent.db") == ["1", "1"]
    assert await noted(path) == ["1", "1", "1"]


async def test_what_has_gone_is_written_anew_also_where_nothing_new_is_noted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "agent.db"
    async with await Database.open(path) as database:
        await note(database, 1)
        await database.look()
        before = database.rewritten
        assert before is None
        empty(path.parent)
        await database.look()
        assert database.rewritten == path
    assert await noted(path) == ["1"]


async def test_nothing_is_noted_beside_a_file_that_somebody_has_put_in_its_place(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "agent.db"
    async with await Database.open(path) as database:
        await note(database, 1)
        empty(path.parent)
        sqlite3.connect(path).execute("CREATE TABLE theirs (x)").connection.close()
        theirs = path.read_bytes()
        with pytest.raises(LedgerUnusable, match="restart harmony-agent"):
            await note(database, 2)
        with pytest.raises(LedgerUnusable):
            await database.look()
        assert path.read_bytes() == theirs


async def test_what_cannot_be_written_anew_is_told_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "state" / "agent.db"
    async with await Database.open(path) as database:
        await note(database, 1)
        shutil.rmtree(path.parent)
        path.parent.write_bytes(b"in the way")
        with pytest.raises(LedgerUnusable, match="was deleted while the agent runs"):
            await database.look()
        path.parent.unlink()
        await note(database, 2)
    assert await noted(path) == ["1", "1"]


async def test_an_agent_whose_memory_is_deleted_tells_so_and_knows_everything_after_a_restart(
    rig: Rig,
) -> None:
    rig.files.write("/etc/other", b"theirs")
    async with rig.agent():
        await rig.put(1, NOTE, OTHER)
        await rig.seen(1)
        empty(rig.root / "state")
        await rig.put(2, NOTE, OTHER, entry(Note(path="/etc/new"), "new"))
        assert status(await rig.seen(2)) == {"note": "NOOP", "other": "NOOP", "new": "SUCCESS"}
        await rig.until(lambda state: any(c.reason == "LedgerLost" for c in state.conditions))
    async with rig.agent():
        await rig.put(3)
        await rig.until(lambda state: state.observed_generation == 3 and not state.scores)
        assert rig.files.read("/etc/note") is None
        assert rig.files.read("/etc/new") is None
