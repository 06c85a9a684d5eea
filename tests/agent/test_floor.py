"""Nothing older is accepted: whoever has signed it, whatever was lost, and whichever key was taken away."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harmony_agent import cli
from harmony_agent.config import AgentConfig, TrustTable
from harmony_agent.reset_floor import reset_floor
from harmony_agent.single_instance import alone
from harmony_agent.store.database import Database
from harmony_agent.store.desired import Desired
from harmony_agent.store.floor import NO_FLOOR, FloorFiles, Found, RootNote
from harmony_core.errors import (
    Equivocation,
    FloorLost,
    IssuedInFuture,
    ManifestExpired,
    StaleGeneration,
    WrongEpoch,
)
from harmony_core.wire.envelope import SigningKey, generate_key, seal
from harmony_core.wire.manifest import GENERATION_MAX, Floor, Manifest
from tests.authority import AUTHORITY, NATS, REPORT

from .rig import Note, Rig, entry

ALICE, BOB = generate_key(), generate_key()


def config(root: Path, *keys: SigningKey, fleet: str = "home") -> AgentConfig:
    return AgentConfig(
        agent_id="pi-1",
        fleet=fleet,
        path=root / "etc" / "agent.toml",
        state_directory=root,
        runtime_directory=root / "run",
        nats=NATS,
        report=REPORT,
        trust=TrustTable(operator_keys=tuple(key.public.to_text() for key in keys)),
    )


def sealed(
    generation: int,
    key: SigningKey = ALICE,
    *,
    epoch: int = 0,
    fleet: str = "home",
    site: str = "",
    issued_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> bytes:
    manifest = Manifest(
        fleet=fleet,
        target="agent:pi-1",
        epoch=epoch,
        generation=generation,
        issued_at=issued_at or datetime.now(UTC),
        expires_at=expires_at,
        labels={"site": site},
    )
    return seal(manifest.payload(), key)


class Device:
    """What is left of a device between two starts of its agent, and who is trusted on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys = [ALICE, BOB]
        self.fleet = "home"
        self.memory = root / "agent.db"
        self.toml = root / "etc" / "agent.toml"
        self.floors = [root / "floor.json", root / "etc" / "floor.copy.json"]

    @property
    def config(self) -> AgentConfig:
        return config(self.root, *self.keys, fleet=self.fleet)

    @property
    def files(self) -> FloorFiles:
        return FloorFiles.of(self.config)

    async def offered(self, *envelopes: bytes) -> tuple[int, str]:
        """Start, be offered these, and end: the generation in force, and what is wrong with the floor."""
        async with await Database.open(self.memory) as database:
            desired = await Desired.load(self.config, database)
            for each in envelopes:
                if desired.accept(each):
                    await database.write(*desired.unstored_statements())
                    desired.mark_stored()
            await desired.keep_floor()
            return desired.generation, desired.floor_lost

    def write_toml(self) -> Path:
        path = self.toml
        path.parent.mkdir(exist_ok=True)
        keys = ", ".join(f'"{key.public.to_text()}"' for key in self.keys)
        path.write_text(
            f'agent_id = "pi-1"\nfleet = "{self.fleet}"\nstate_directory = "{self.root}"\n'
            f'[nats]\nservers = ["tls://nowhere:4222"]\nseed = "SU{"A" * 56}"\n'
            f'mailbox = "{"a" * 26}"\nca = """{AUTHORITY}"""\n'
            f'[report]\nkey = "{generate_key().to_text()}"\n'
            f"[trust]\noperator_keys = [{keys}]\n"
        )
        path.chmod(0o600)
        return path


@pytest.fixture
async def device(tmp_path: Path) -> Device:
    """One that has accepted Bob's 13, and then Alice's 14."""
    made = Device(tmp_path)
    assert await made.offered(sealed(13, BOB), sealed(14, ALICE)) == (14, "")
    return made


def take_key(device: Device) -> None:
    device.keys.remove(ALICE)


def lose_database(device: Device) -> None:
    device.memory.unlink()


def lose_state_directory(device: Device) -> None:
    """Or not have the disk that it is on."""
    for each in device.root.iterdir():
        if each != device.toml.parent:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def lose_all_of_etc(device: Device) -> None:
    shutil.rmtree(device.toml.parent)


def garble_database(device: Device) -> None:
    device.memory.write_bytes(b"no database at all" * 1000)


def spoil_first_and_database(device: Device) -> None:
    garble_database(device)
    device.floors[0].write_bytes(b"\0" * 512)


def lose_second_and_key(device: Device) -> None:
    take_key(device)
    device.floors[1].unlink()


def lose_both_files(device: Device) -> None:
    for each in device.floors:
        each.unlink()


def forget_manifest(device: Device) -> None:
    with closing(sqlite3.connect(device.memory, isolation_level=None)) as database:
        database.execute("DELETE FROM desired")


@pytest.mark.parametrize(
    "loss",
    [
        take_key,
        lose_database,
        lose_state_directory,
        lose_all_of_etc,
        garble_database,
        spoil_first_and_database,
        lose_second_and_key,
        lose_both_files,
        forget_manifest,
    ],
)
async def test_nothing_older_is_accepted_whatever_was_lost(
    device: Device, loss: Callable[[Device], None]
) -> None:
    loss(device)
    for older in (sealed(13, BOB), sealed(1, BOB)):
        with pytest.raises(StaleGeneration, match="older than 14"):
            await device.offered(older)
    with pytest.raises(Equivocation):
        await device.offered(sealed(14, BOB, site="other"))
    assert (await device.offered(sealed(15, BOB)))[0] == 15
    with pytest.raises(StaleGeneration, match="older than 15"):
        await device.offered(sealed(14, BOB))


async def test_a_database_from_an_older_backup_lowers_nothing_and_is_not_enforced(
    device: Device, tmp_path_factory: pytest.TempPathFactory
) -> None:
    backup = tmp_path_factory.mktemp("backup")
    shutil.copy(device.memory, backup)
    assert (await device.offered(sealed(15)))[0] == 15
    shutil.copy(backup / "agent.db", device.memory)
    assert await device.offered() == (0, "")
    with pytest.raises(StaleGeneration, match="older than 15"):
        await device.offered(sealed(14))


async def test_the_very_manifest_that_was_accepted_last_comes_back_also_when_it_has_expired(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    envelope = sealed(5, expires_at=soon)
    await device.offered(envelope)
    lose_database(device)
    while datetime.now(UTC) <= soon:
        pass
    assert await device.offered(envelope) == (5, "")
    with pytest.raises(ManifestExpired):
        await device.offered(sealed(6, issued_at=soon - timedelta(seconds=1), expires_at=soon))


async def test_where_only_the_database_knows_that_is_told_until_something_newer_is_kept(
    device: Device,
) -> None:
    for each in device.floors:
        each.write_bytes(b"rubbish")
    generation, lost = await device.offered()
    assert generation == 14
    assert "only known from the database" in lost
    assert "reset-floor" in lost
    assert "only known" in (await device.offered())[1]
    assert await device.offered(sealed(15)) == (15, "")


async def test_where_nobody_knows_any_more_nothing_is_accepted_until_root_says_so(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    garble_database(device)
    for each in device.floors:
        each.write_bytes(b"rubbish")
    for _ in range(2):
        with pytest.raises(FloorLost, match="reset-floor"):
            await device.offered(sealed(99))
    toml = str(device.write_toml())
    assert await in_thread(cli.main, ["reset-floor", "--config", toml, "--yes"]) == 0
    assert "not known" in capsys.readouterr().out
    assert await device.offered(sealed(2)) == (2, "")
    with pytest.raises(StaleGeneration):
        await device.offered(sealed(1))


async def test_a_device_that_was_let_in_long_ago_and_knows_of_no_floor_has_lost_it(
    device: Device,
) -> None:
    """Nothing is left of it but agent.toml: it was put back from somewhere."""
    toml = device.write_toml()
    lose_state_directory(device)
    device.floors[1].unlink()
    enrolled = time.time() - 25 * 3600
    os.utime(toml, (enrolled, enrolled))
    with pytest.raises(FloorLost, match="reset-floor"):
        await device.offered(sealed(13, BOB))
    assert await reset_floor(toml, is_confirmed=True) == 0
    assert await device.offered(sealed(13, BOB)) == (13, "")
    lose_state_directory(device)
    device.floors[1].unlink()
    device.write_toml()  # let in anew
    assert await device.offered(sealed(1)) == (1, "")


async def test_a_copy_that_cannot_be_written_is_told_and_costs_nothing_more(
    device: Device,
) -> None:
    copy = device.floors[1]
    copy.unlink()
    copy.mkdir()
    async with await Database.open(device.memory) as database:
        desired = await Desired.load(device.config, database)
        assert desired.accept(sealed(15))
        await database.write(*desired.unstored_statements())
        desired.mark_stored()
        await desired.keep_floor()
        assert "floor_directory in agent.toml" in desired.floor_unkept
        assert str(copy) in desired.floor_unkept
        written = device.floors[0].stat().st_mtime_ns
        await desired.keep_floor()
        assert device.floors[0].stat().st_mtime_ns == written
        copy.rmdir()
        await desired.keep_floor()
        assert desired.floor_unkept == ""
    lose_state_directory(device)
    with pytest.raises(StaleGeneration, match="older than 15"):
        await device.offered(sealed(14))


async def test_only_root_on_the_device_lowers_it_and_what_is_in_force_stays_so(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = str(device.write_toml())
    command = ["reset-floor", "--config", toml]
    with alone(device.root):
        assert await in_thread(cli.main, [*command, "--yes"]) == 2
    assert "stop that one first" in capsys.readouterr().err
    assert await in_thread(cli.main, command) == 2
    assert "--yes" in capsys.readouterr().err
    with pytest.raises(StaleGeneration):
        await device.offered(sealed(13))
    assert await in_thread(cli.main, [*command, "--yes"]) == 0
    assert "generation 14 of epoch 0" in capsys.readouterr().out
    assert await device.offered() == (14, "")
    assert await device.offered(sealed(3, site="anew")) == (3, "")
    with pytest.raises(StaleGeneration):
        await device.offered(sealed(2))


async def test_a_new_device_has_accepted_none_and_one_that_has_moved_to_another_fleet_is_new_there(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    assert await device.offered() == (0, "")
    assert device.files.read() == Found(floor=NO_FLOOR, whole=True)
    assert await device.offered(sealed(500)) == (500, "")
    device.fleet = "farm"
    assert await device.offered() == (0, "")
    assert await device.offered(sealed(1, fleet="farm")) == (1, "")


@pytest.mark.parametrize("made", [0, 1, 2])
async def test_a_power_cut_between_the_first_manifest_and_its_floor_is_no_loss(
    tmp_path: Path, made: int
) -> None:
    device = Device(tmp_path)
    await device.offered()
    for each in device.floors[made:]:
        each.unlink()  # cut off as they were made, the next start makes them
    await device.offered()
    async with await Database.open(device.memory) as database:
        desired = await Desired.load(device.config, database)
        assert desired.accept(sealed(1))
        await database.write(*desired.unstored_statements())
    assert await device.offered() == (1, "")
    found = device.files.read()
    assert found.whole
    assert found.floor is not None
    assert found.floor.generation == 1


async def test_files_that_cannot_be_made_at_the_start_are_made_with_the_first_manifest(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    for each in device.floors:
        each.with_name(f"{each.name}.new").mkdir(parents=True)
    assert await device.offered() == (0, "")
    assert not any(each.exists() for each in device.floors)
    for each in device.floors:
        each.with_name(f"{each.name}.new").rmdir()
    assert await device.offered(sealed(1)) == (1, "")
    assert device.files.read().whole


async def test_what_an_agent_without_floors_has_stored_is_one(device: Device) -> None:
    lose_both_files(device)
    with closing(sqlite3.connect(device.memory, isolation_level=None)) as database:
        database.execute("DELETE FROM floor")
    assert await device.offered() == (14, "")
    assert all(each.exists() for each in device.floors)
    take_key(device)
    with pytest.raises(StaleGeneration):
        await device.offered(sealed(13, BOB))


async def test_nothing_is_written_when_nothing_is_new_and_a_full_disk_does_not_stop_it(
    device: Device,
) -> None:
    before = [each.stat().st_mtime_ns for each in device.floors]
    await device.offered()
    assert [each.stat().st_mtime_ns for each in device.floors] == before
    blocks = [each.stat().st_blocks for each in device.floors]
    await device.offered(sealed(15))
    assert [each.stat().st_blocks for each in device.floors] == blocks


async def test_of_a_new_generation_the_first_file_is_flushed_alone_and_the_copy_says_the_same(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush is what a push costs an SD card most."""
    flushed: list[str] = []
    flush = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        flush(descriptor)

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, note)
    assert await device.offered(sealed(15)) == (15, "")
    assert flushed == [str(device.floors[0])]
    found = device.files.read()
    assert found.whole
    assert found.floor is not None
    assert found.floor.generation == 15


def test_a_file_that_is_half_written_counts_for_nothing(tmp_path: Path) -> None:
    files = FloorFiles(
        first=tmp_path / "floor.json", copy=tmp_path / "copy.json", fleet="home", agent_id="pi-1"
    )
    before, after = (
        Floor(epoch=0, generation=n, payload_sha256="a" * 64, issued_at=datetime.now(UTC))
        for n in (9, 10)
    )
    first, second = files.first, files.copy
    files.write_both(before)
    old = first.read_bytes()
    files.write_both(after)
    new = first.read_bytes()
    for cut in range(len(new)):
        first.write_bytes(new[:cut] + old[cut:])
        second.write_bytes(new)
        assert files.read().floor == after
        second.write_bytes(old)
        assert files.read().floor in {before, after}


async def test_a_document_from_the_future_is_refused_where_a_time_server_has_set_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = datetime.now(UTC) + timedelta(days=2)
    synchronized = tmp_path / "synchronized"
    monkeypatch.setattr("harmony_agent.clock._SYNCHRONIZED", synchronized)
    device = Device(tmp_path / "device")
    device.root.mkdir()
    synchronized.touch()
    with pytest.raises(IssuedInFuture, match="a day ahead"):
        await device.offered(sealed(1, issued_at=ahead))
    assert (await device.offered(sealed(1, issued_at=ahead - timedelta(hours=36))))[0] == 1
    synchronized.unlink()
    assert (await device.offered(sealed(2, issued_at=ahead)))[0] == 2


async def test_without_a_root_document_no_key_begins_an_epoch(tmp_path: Path) -> None:
    """Whatever is in force or lost; else who steals one uses up those of every root document to come."""
    device = Device(tmp_path)
    last = sealed(1, BOB, epoch=GENERATION_MAX)
    for found in (0, 1):
        with pytest.raises(WrongEpoch, match="only a root document begins another"):
            await device.offered(last)
        assert (await device.offered(sealed(found + 1)))[0] == found + 1
    for each in (device.memory, *device.floors):
        each.unlink()
    with pytest.raises(WrongEpoch):
        await device.offered(last)
    assert (await device.offered(sealed(1)))[0] == 1


async def test_an_epoch_that_an_earlier_agent_has_taken_in_ends_with_its_floor(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    thief: dict[str, Any] = {"epoch": GENERATION_MAX, "generation": 1, "payload_sha256": "a" * 64}
    device.files.write_both(Floor(issued_at=datetime.now(UTC), **thief))
    with pytest.raises(StaleGeneration):
        await device.offered(sealed(2))
    assert (await device.offered(sealed(2, epoch=GENERATION_MAX)))[0] == 2
    assert await reset_floor(device.write_toml(), is_confirmed=True) == 0
    with pytest.raises(WrongEpoch):
        await device.offered(sealed(3, epoch=GENERATION_MAX))
    assert (await device.offered(sealed(1)))[0] == 1


async def test_an_agent_whose_operator_lost_his_key_says_that_it_refuses_to_go_back(
    rig: Rig,
) -> None:
    """As a whole: the key that signed last is gone, and what another has signed before stands there."""
    older = rig.sealed(1, entry(Note(text="vulnerable"), "note"))
    async with rig.agent():
        await rig.put_bytes(older)
        await rig.seen(1)
        await rig.put(2, entry(Note(text="patched"), "note"))
        await rig.seen(2)
    memory = rig.root / "state" / "agent.db"
    with closing(sqlite3.connect(memory, isolation_level=None)) as database:
        database.execute("UPDATE desired SET envelope = x'00'")
    await rig.put_bytes(older)
    async with rig.agent():
        state = await rig.until(
            lambda state: any(each.reason == "ManifestRejected" for each in state.conditions)
        )
        await rig.worked()
    assert rig.files.read("/etc/note") == b"patched"
    assert any("StaleGeneration" in each.message for each in state.conditions)


async def in_thread(func: Callable[[list[str]], int], arguments: list[str]) -> int:
    """A command has a loop of its own."""
    return await asyncio.to_thread(func, arguments)


def test_the_longest_floor_is_one_sector(tmp_path: Path) -> None:
    """A power cut spoils no more than that."""
    files = FloorFiles(
        first=tmp_path / "floor.json", copy=tmp_path / "copy", fleet="f" * 63, agent_id="a" * 63
    )
    most = Floor(
        epoch=GENERATION_MAX,
        generation=GENERATION_MAX,
        payload_sha256="a" * 64,
        issued_at=datetime.now(UTC),
    )
    root = RootNote(version=2**31 - 1, pinned="b" * 64)
    files.write_both(most, root)
    assert (tmp_path / "floor.json").stat().st_size == 512
    assert files.read() == Found(floor=most, whole=True, root=root)
