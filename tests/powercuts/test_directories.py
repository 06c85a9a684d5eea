"""A directory that is made keeps its name over a power cut, and so do the files in it.

What is deleted does not come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harmony_control.store.home import remove_file
from tests.powercuts.ground import Ground

IMPORTS = """
import asyncio
from pathlib import Path
from harmony_agent.store.backups import DirectoryBackups
from harmony_agent.store.database import Database
from harmony_agent.store.flushing import make_directory
from harmony_control.store.home import Home, flush_all, put_back, remove_file

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
HOME = """
from harmony_control.store import operator_key
operator_key.create(Home(Path("ROOT/me/harmony")))
say()
"""
PAST = """
home = Home(Path("ROOT"))
for generation in (1, 2):
    home.store_pending("pi-1", b"envelope")
    home.confirm_pending("pi-1", generation)
home.store_pending("pi-1", b"envelope")
say()
"""
KEPT = "state/originals/71d58e36f42872e4bf6aa02e92c18d177f053312dd73ed29e80c4f13c7612401"


JETSTREAM = """
Path("ROOT/jetstream/account/stream/msgs").mkdir(parents=True)
Path("ROOT/jetstream/account/stream/meta").write_text("made by NATS")
Path("ROOT/jetstream/account/stream/msgs/1.blk").touch()
flush_all(Path("ROOT/jetstream"))
say()
"""


def left_once_said(ground: Ground, program: str) -> Iterator[Path]:
    """Yield what each cut leaves once *program* has said that it is done."""
    disk = ground.run(IMPORTS + program)
    said = [cut for cut in disk.cuts() if disk.said_before(cut)]
    assert said
    for number, cut in enumerate(said):
        disk.lay_out(cut, ground.copies / f"{number}")
        yield ground.copies / f"{number}"


@pytest.mark.parametrize(
    ("program", "path"),
    [
        pytest.param(BELOW_EACH_OTHER, "lib/harmony/state", id="below each other"),
        pytest.param(BY_SYSTEMD, "state/agent.db", id="made by systemd"),
        pytest.param(BACKUPS, KEPT, id="backups"),
        pytest.param(DELETED, "state/agent.db", id="deleted meanwhile"),
        pytest.param(HOME, "me/harmony/operator.key", id="an operator's home"),
        pytest.param(PAST, f"manifests/pi-1/{2:016}.json", id="past manifests"),
        pytest.param(JETSTREAM, "jetstream/account/stream/msgs/1.blk", id="of NATS"),
    ],
)
def test_what_is_made_is_there_after_a_cut_once_it_is_made(
    ground: Ground, program: str, path: str
) -> None:
    for left in left_once_said(ground, program):
        assert (left / path).exists()


def test_what_nats_has_written_is_there_after_a_cut_once_all_is_flushed(ground: Ground) -> None:
    for left in left_once_said(ground, JETSTREAM):
        assert (left / "jetstream/account/stream/meta").read_text() == "made by NATS"


@pytest.mark.parametrize(
    ("program", "path"),
    [
        pytest.param('remove_file(Path("ROOT/bob.pub"))', "bob.pub", id="a file"),
        pytest.param('put_back(Path("ROOT/agents.json"), None)', "agents.json", id="put back"),
        pytest.param(
            'Home(Path("ROOT")).drop_pending("pi-1")', "manifests/pi-1.pending", id="refused"
        ),
        pytest.param('Home(Path("ROOT")).forget("pi-1")', "agents/pi-1", id="an agent.toml"),
        pytest.param('Home(Path("ROOT")).forget("pi-1")', "manifests/pi-1.json", id="a manifest"),
        pytest.param('Home(Path("ROOT")).forget("pi-1")', "manifests/pi-1", id="past ones"),
    ],
)
def test_what_is_deleted_does_not_come_back_with_a_cut(
    ground: Ground, program: str, path: str
) -> None:
    for name in ("bob.pub", "agents.json", "manifests/pi-1.pending", "manifests/pi-1.json"):
        (ground.root / name).parent.mkdir(exist_ok=True)
        (ground.root / name).touch()
    for name in ("manifests/pi-1/1.json", "agents/pi-1/agent.toml"):
        (ground.root / name).parent.mkdir(parents=True)
        (ground.root / name).touch()
    for left in left_once_said(ground, f"{program}\nsay()\n"):
        assert not (left / path).exists()


def test_what_is_gone_already_may_be_deleted(tmp_path: Path) -> None:
    remove_file(tmp_path / "nothing" / "here")
