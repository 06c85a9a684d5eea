"""What is noted is kept, also where somebody deletes the database under the running agent."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harmony_agent.store.database import Database
from harmony_core.errors import LedgerUnusable
from harmony_core.wire.actual_state import ActualState, Condition
from harmony_core.wire.requests import Events

from .asking import asker
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


def empty_but_for_the_floor(directory: Path) -> None:
    for each in directory.glob("agent.db*"):
        each.unlink()


@pytest.mark.parametrize("vanish", [empty, shutil.rmtree, empty_but_for_the_floor])
async def test_an_agent_whose_memory_was_deleted_while_it_was_stopped_tells_so(
    rig: Rig, vanish: Callable[[Path], object]
) -> None:
    async with rig.agent():
        await rig.put(1, NOTE, OTHER)
        await rig.seen(1)
        last = (await told_events(rig))[-1]["seq"]
    vanish(rig.root / "state")
    async with rig.agent():
        await rig.put(2, NOTE)
        state = await rig.until(lambda state: state.observed_generation == 2)
        assert status(state.scores) == {"note": "NOOP"}
        told = degraded(state)
        assert (told.status, told.reason) == ("True", "LedgerLost")
        assert "generation 1 was in force here" in told.message
        assert rig.files.read("/etc/other") == b"hello"
        await rig.put(3, NOTE, entry(Note(path="/etc/new"), "new"))
        assert status(await rig.seen(3))["new"] == "SUCCESS"
        assert degraded(await rig.until(lambda state: True)).reason == "LedgerLost"
        assert (await told_events(rig))[-1]["seq"] > last + 1, "no number is given twice"
    async with rig.agent():
        await rig.put(4, NOTE)
        await rig.until(lambda state: state.observed_generation == 4)
        assert degraded(await rig.until(lambda state: True)).reason == "AllWell"


async def test_nothing_is_said_to_be_lost_of_a_device_that_is_new(rig: Rig) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await rig.seen(1)
        assert degraded(await rig.until(lambda state: True)).reason == "AllWell"


def put_a_file_in_its_way(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_bytes(b"in the way")


def put_another_in_its_place(directory: Path) -> None:
    empty(directory)
    sqlite3.connect(directory / "agent.db").execute("CREATE TABLE theirs (x)").connection.close()


@pytest.mark.parametrize("spoil", [put_a_file_in_its_way, put_another_in_its_place])
async def test_an_agent_that_can_note_nothing_any_more_is_not_ready_and_does_nothing_new(
    rig: Rig, spoil: Callable[[Path], object]
) -> None:
    async with rig.agent():
        await rig.put(1, NOTE)
        await rig.seen(1)
        await rig.worked()
        spoil(rig.root / "state")
        state = await rig.until(lambda state: degraded(state).status == "True")
        (ready,) = (each for each in state.conditions if each.type == "Ready")
        assert ready.status == "False"
        await rig.put(2, NOTE, entry(Note(path="/etc/new"), "new"))
        await rig.until(lambda state: status(state.scores).get("new") == "FAILURE")
        assert rig.files.read("/etc/new") is None


async def told_events(rig: Rig) -> list[dict[str, Any]]:
    """What the agent tells of its changes, while it runs."""
    return [dict(each) for each in (await (await asker(rig)).ask(Events())).items]


def degraded(state: ActualState) -> Condition:
    (found,) = (each for each in state.conditions if each.type == "Degraded")
    return found
