"""A directory that is made keeps its own name over a power cut, and so do the files in it."""

from __future__ import annotations

import pytest

from tests.powercuts.ground import Ground

IMPORTS = """
import asyncio
from pathlib import Path
from harmony_agent.store.backups import DirectoryBackups
from harmony_agent.store.database import Database
from harmony_agent.store.flushing import make_directory

def say():
    with open("SAID", "ab", buffering=0) as said:
        said.write(b"done")

async def open_database():
    async with await Database.open(Path("ROOT/state/agent.db")) as database:
        await database.read("SELECT * FROM floor")
        say()
"""
BELOW_EACH_OTHER = """
make_directory(Path("ROOT/lib/harmony/state"))
say()
"""
BY_SYSTEMD = """
os.mkdir("ROOT/state")
asyncio.run(open_database())
"""
BACKUPS = """
async def keep():
    await DirectoryBackups(Path("ROOT/state/originals")).keep("file:/etc/old", b"as it was")
    say()
make_directory(Path("ROOT/state"))
asyncio.run(keep())
"""
DELETED = """
async def lose_all():
    async with await Database.open(Path("ROOT/state/agent.db")) as database:
        await database.read("SELECT * FROM floor")
        for each in Path("ROOT/state").iterdir():
            each.unlink()
        Path("ROOT/state").rmdir()
        await database.look()
        say()
asyncio.run(lose_all())
"""
KEPT = "state/originals/71d58e36f42872e4bf6aa02e92c18d177f053312dd73ed29e80c4f13c7612401"


@pytest.mark.parametrize(
    ("program", "path"),
    [
        pytest.param(BELOW_EACH_OTHER, "lib/harmony/state", id="below each other"),
        pytest.param(BY_SYSTEMD, "state/agent.db", id="made by systemd"),
        pytest.param(BACKUPS, KEPT, id="backups"),
        pytest.param(DELETED, "state/agent.db", id="deleted meanwhile"),
    ],
)
def test_what_the_agent_makes_is_there_after_a_cut_once_it_is_made(
    ground: Ground, program: str, path: str
) -> None:
    disk = ground.run(IMPORTS + program)
    made = [cut for cut in disk.cuts() if disk.said_before(cut)]
    assert made
    for number, cut in enumerate(made):
        copy = ground.copies / f"{number}"
        disk.lay_out(cut, copy)
        assert (copy / path).exists(), cut
