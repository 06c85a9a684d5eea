"""An agent that starts on a disk that takes nothing: it keeps up what it may, says so, and gets over it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from harmony_agent.single_instance import alone
from harmony_agent.store.database import Database
from harmony_agent.store.ledger import ClaimRequest, Ledger
from harmony_core import File
from harmony_core.errors import LedgerUnusable
from harmony_core.outcome import Failure, Running
from harmony_core.wire.actual_state import ActualState, Condition, ScoreStatus
from harmony_core.wire.envelope import generate_key
from tests.authority import AUTHORITY

from .rig import Note, Rig, Several, code, entry, status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")

A, B = File(path="/etc/a", content=b"a"), File(path="/etc/b", content=b"b")
INODES = 40


@attrs.frozen
class SmallDisk:
    """A file system of a few megabytes and files."""

    path: Path

    def fill(self) -> None:
        with (self.path / "filling").open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError:
                return

    def use_up_inodes(self) -> None:
        (self.path / "many").mkdir()
        try:
            for number in range(10 * INODES):
                (self.path / "many" / str(number)).touch()
        except OSError:
            return

    def forbid(self) -> None:
        self._mount("-o", "remount,ro", str(self.path))

    def mend(self) -> None:
        self._mount("-o", "remount,rw", str(self.path))
        (self.path / "filling").unlink(missing_ok=True)
        shutil.rmtree(self.path / "many", ignore_errors=True)

    @staticmethod
    def _mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "state"
    path.mkdir()
    options = f"size=3m,nr_inodes={INODES}"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        check=False,
        capture_output=True,
    )
    if made.returncode != 0:
        pytest.skip("nothing may be mounted here")
    yield SmallDisk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


REFUSALS: dict[str, tuple[Callable[[SmallDisk], None], str]] = {
    "full": (SmallDisk.fill, "is full"),
    "no inodes": (SmallDisk.use_up_inodes, "no inodes are left"),
    "read-only": (SmallDisk.forbid, "mounted read-only"),
}


def condition(state: ActualState, kind: str) -> Condition:
    return next(each for each in state.conditions if each.type == kind)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_it_starts_keeps_up_what_it_may_says_why_and_goes_on_by_itself(
    rig: Rig, disk: SmallDisk, refusal: str
) -> None:
    refuse, words = REFUSALS[refusal]
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
    refuse(disk)
    rig.files.write("/etc/note", b"theirs")
    with alone(disk.path):
        async with rig.agent():
            state = await rig.until(
                lambda state: (
                    condition(state, "Degraded").reason == "LedgerUnusable"
                    and status(state.scores) == {"note": "SUCCESS"}
                    and rig.files.read("/etc/note") == b"hello"
                )
            )
            assert words in condition(state, "Degraded").message
            assert "move" not in condition(state, "Degraded").message
            assert condition(state, "Ready").status == "False"
            await rig.put(2, entry(Note(), "note"), entry(Note(path="/etc/new"), "new"))
            state = await rig.until(
                lambda state: status(state.scores).get("new", "RUNNING") != "RUNNING"
            )
            assert code(state.scores["new"]) == "LedgerUnusable"
            assert condition(state, "Ready").status == "False"
            assert rig.files.read("/etc/new") is None
            disk.mend()
            state = await rig.until(
                lambda state: (
                    status(state.scores).get("new") == "SUCCESS"
                    and condition(state, "Degraded").reason == "AllWell"
                )
            )
            assert condition(state, "Ready").status == "True"
    async with await Database.open(disk.path / "agent.db") as database:
        ledger = await Ledger.load(database)
        assert ledger.scores() == {"note", "new"}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_was_committed_before_a_kill_is_read_also_from_the_journal(
    tmp_path: Path, disk: SmallDisk, refusal: str
) -> None:
    async with await Database.open(tmp_path / "agent.db") as database:
        ledger = await Ledger.load(database)
        await ledger.claim(ClaimRequest("web", [A]))
        await database.read("SELECT 1")
        # As after a kill: with the journal that nobody has put in its place.
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"agent.db{suffix}", disk.path)
    REFUSALS[refusal][0](disk)
    path = disk.path / "agent.db"
    async with await Database.open(path, scratch=tmp_path / "run") as database:
        ledger = await Ledger.load(database)
        assert ledger.owned_by("web") == [A.id]
        # Where only the number of files is at its end, SQLite needs none.
        assert database.trouble
        with pytest.raises(LedgerUnusable):
            await ledger.claim(ClaimRequest("web", [B]))
        assert ledger.owned_by("web") == [A.id]
        disk.mend()
        await ledger.claim(ClaimRequest("web", [B]))
        assert not database.trouble
    assert not list((tmp_path / "run").glob("*"))
    async with await Database.open(path) as database:
        ledger = await Ledger.load(database)
        assert set(ledger.owned_by("web")) == {A.id, B.id}


async def test_what_goes_while_the_disk_is_full_says_why_and_goes_once_there_is_room(
    rig: Rig, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    several = ("/etc/one", "/etc/two")
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"), entry(Several(paths=several), "several"))
        await rig.seen(1)
        disk.fill()
        await rig.put(2, entry(Several(paths=several[:1]), "several"))
        state = await rig.until(
            lambda state: (
                "LedgerUnusable" in told(state.scores.get("note"))
                and "LedgerUnusable" in told(state.scores.get("several"))
            )
        )
        for each in ("note", "several"):
            assert "is full" in told(state.scores[each])
        assert condition(state, "Ready").status == "False"
        disk.mend()
        await rig.until(
            lambda state: (
                set(state.scores) == {"several"} and condition(state, "Ready").status == "True"
            )
        )
        assert rig.files.read("/etc/note") is None
        assert rig.files.read("/etc/two") is None
        assert rig.files.read("/etc/one") == b"hello"
    assert [each.message for each in caplog.records if each.exc_info] == []
    async with await Database.open(disk.path / "agent.db") as database:
        ledger = await Ledger.load(database)
        assert ledger.owned_by("several") == ["file:/etc/one"]
        assert ledger.scores() == {"several"}


def told(score: ScoreStatus | None) -> str:
    """What a Score says of why it is not in order."""
    match score.outcome if score is not None else None:
        case Running(message=message):
            return message
        case Failure(error=error):
            return f"{error.code}: {error.message}"
        case _:
            return ""


async def test_where_it_cannot_even_be_read_the_agent_begins_anew_once_it_can(
    tmp_path: Path, disk: SmallDisk
) -> None:
    path = disk.path / "agent.db"
    path.write_bytes(b"not a database, and rather long at that" * 100)
    disk.forbid()
    seen: list[str] = []
    async with await Database.open(path, scratch=tmp_path / "run") as database:
        database.on_sight = lambda: seen.append("in sight")
        assert "read-only" in database.trouble
        ledger = await Ledger.load(database)
        with pytest.raises(LedgerUnusable):
            await ledger.claim(ClaimRequest("web", [A]))
        assert not seen
        disk.mend()
        with pytest.raises(LedgerUnusable):
            await database.try_again()
        assert seen == ["in sight"]
    async with await Database.open(path, scratch=tmp_path / "run") as database:
        assert database.damaged is not None


async def test_a_damaged_one_on_a_full_disk_is_set_aside_and_nothing_is_lost(
    tmp_path: Path, disk: SmallDisk
) -> None:
    path = disk.path / "agent.db"
    damaged = b"not a database, and rather long at that" * 100
    path.write_bytes(damaged)
    disk.fill()
    async with await Database.open(path, scratch=tmp_path / "run") as database:
        assert "is full" in database.trouble
        assert database.damaged is not None
        assert database.damaged.path.read_bytes() == damaged
        disk.mend()
        await database.try_again()
        assert database.damaged is not None


def test_an_agent_that_could_not_read_its_memory_begins_anew_in_the_same_process(
    tmp_path: Path, disk: SmallDisk
) -> None:
    damaged = b"not a database, and rather long at that" * 100
    (disk.path / "agent.db").write_bytes(damaged)
    disk.forbid()
    toml = tmp_path / "agent.toml"
    toml.write_text(
        f'agent_id = "pi-1"\nfleet = "home"\nstate_directory = "{disk.path}"\n'
        f'runtime_directory = "{tmp_path / "run"}"\n[nats]\nservers = ["tls://127.0.0.1:1"]\n'
        f'seed = "SU{"A" * 56}"\nmailbox = "{"a" * 26}"\nca = """{AUTHORITY}"""\n'
        f'[topology]\nroot = "{tmp_path / "root"}"\n'
        f'[report]\nkey = "{generate_key().to_text()}"\n'
        f'[trust]\noperator_keys = ["{generate_key().public.to_text()}"]\n'
    )
    toml.chmod(0o600)
    (tmp_path / "root").mkdir()
    command = [sys.executable, "-m", "harmony_agent.cli", "run", "--config", str(toml)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        lines = iter(agent.stderr.readline, "")
        said: list[str] = []

        def wait_for(words: str) -> None:
            for line in lines:
                said.append(line)
                if words in line:
                    return
            raise AssertionError(f"never said: {words}; but {said}")

        wait_for("mounted read-only")
        disk.mend()
        wait_for("beginning anew")
        assert (disk.path / "agent.db.damaged").read_bytes() == damaged
        agent.kill()
    assert not any("Traceback" in line for line in said)
