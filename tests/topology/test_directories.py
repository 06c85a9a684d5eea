"""Directories in a folder and in memory: the contract, and what a disk adds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from harmony_core import Directory, File
from harmony_core.change import Change
from harmony_core.reconciler import JsonRecord, MemoryBackups, MemoryRecords
from harmony_core.testing import DirectoriesUnderTest, DirectoryHostContract, FakeDirectories
from harmony_pi_topology.directories.made import id_of_made_directory
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles
from tests.box import Box

from .folder import FolderBystander


class TestFakeDirectories(DirectoryHostContract):
    @pytest.fixture
    def host(self) -> DirectoriesUnderTest:
        fake = FakeDirectories()
        return DirectoriesUnderTest(directories=fake, bystander=fake)


@pytest.fixture
async def posix(tmp_path: Path) -> AsyncGenerator[PosixDirectories]:
    (tmp_path / "root").mkdir()
    directories = PosixDirectories(str(tmp_path / "root"), records=MemoryRecords())
    yield directories
    await directories.close()


class TestPosixDirectories(DirectoryHostContract):
    @pytest.fixture
    def host(self, posix: PosixDirectories, tmp_path: Path) -> DirectoriesUnderTest:
        bystander = FolderBystander(tmp_path / "root", secrets_directory=tmp_path / "secrets")
        return DirectoriesUnderTest(directories=posix, bystander=bystander)


@pytest.fixture
async def on_a_pi(pi: Box) -> AsyncGenerator[PosixDirectories]:
    pi.run(["rm", "-rf", DirectoryHostContract.BELOW])
    directories = PosixDirectories(str(pi.root), records=MemoryRecords(), owner_checked=True)
    yield directories
    await directories.close()


class TestPosixDirectoriesOnAPi(DirectoryHostContract):
    @pytest.fixture
    def host(self, on_a_pi: PosixDirectories, pi: Box, tmp_path: Path) -> DirectoriesUnderTest:
        bystander = FolderBystander(pi.root, secrets_directory=tmp_path)
        return DirectoriesUnderTest(directories=on_a_pi, bystander=bystander)

    async def test_it_is_given_to_whom_the_device_knows(self, host: DirectoriesUnderTest) -> None:
        wish = self.directory().model_copy(update={"owner": "nobody", "group": "nogroup"})
        change = await host.apply_one(wish)
        assert change.actions == ("created",)
        assert await host.directories.observe(wish.path) == change.after
        back = await host.apply_one(self.directory())
        assert back.actions == ("owner nobody → root", "group nogroup → root")
        await host.remove_one(wish.path)


async def test_a_directory_that_a_file_needed_first_becomes_ours_and_goes_last(
    tmp_path: Path,
) -> None:
    records = MemoryRecords()
    files = PosixFiles(str(tmp_path), records=records, backups=MemoryBackups())
    directories = PosixDirectories(str(tmp_path), records=records)
    app = Directory(path="/srv/app", mode=0o750)
    await files.converge([File(path="/srv/app/motd", content=b"hello")], apply=True)
    await directories.converge([app], apply=True)
    await files.remove(["/srv/app/motd"], apply=True)
    assert (tmp_path / "srv/app").is_dir()
    (removed,) = await directories.remove([app.path], apply=True)
    assert isinstance(removed, Change)
    assert removed.actions == ("removed",)
    assert not (tmp_path / "srv").exists()
    await files.close()
    await directories.close()


async def test_a_directory_that_is_let_go_before_its_file_goes_with_it(tmp_path: Path) -> None:
    records = MemoryRecords()
    files = PosixFiles(str(tmp_path), records=records, backups=MemoryBackups())
    directories = PosixDirectories(str(tmp_path), records=records)
    app = Directory(path="/srv/app", mode=0o750)
    await directories.converge([app], apply=True)
    await files.converge([File(path="/srv/app/motd", content=b"hello")], apply=True)
    await directories.remove([app.path], apply=True)
    await files.remove(["/srv/app/motd"], apply=True)
    assert not (tmp_path / "srv").exists()
    await files.close()
    await directories.close()


class _MeanwhileRecords(MemoryRecords):
    """Records beside which something else happens: just before, or just after, a directory is let go."""

    before: Callable[[], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        is_let_go = resource_id == id_of_made_directory("/srv/app")
        if is_let_go and self.before is not None:
            await self.before()
        await super().put(resource_id, record)
        if is_let_go and self.after is not None:
            await self.after()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("last", ["file", "directory"])
async def test_a_directory_and_the_last_thing_in_it_may_go_at_the_same_moment(
    tmp_path: Path, last: str, moment: str
) -> None:
    records = _MeanwhileRecords()
    files = PosixFiles(str(tmp_path), records=records, backups=MemoryBackups())
    directories = PosixDirectories(str(tmp_path), records=records)
    await directories.converge([Directory(path="/srv/app")], apply=True)
    if last == "file":
        await files.converge([File(path="/srv/app/last", content=b"last")], apply=True)
        remove_last = partial(files.remove, ["/srv/app/last"], apply=True)
    else:
        await directories.converge([Directory(path="/srv/app/last")], apply=True)
        remove_last = partial(directories.remove, ["/srv/app/last"], apply=True)
    setattr(records, moment, remove_last)
    (removed,) = await directories.remove(["/srv/app"], apply=True)
    assert isinstance(removed, Change)
    assert not (tmp_path / "srv").exists()
    assert records.get(id_of_made_directory("/srv/app")) is None
    assert records.get("directory:/srv/app") is None


class _InterruptedRecords(MemoryRecords):
    """Records at whose next question for a file something else happens first."""

    meanwhile: Callable[[], object] | None = None

    def get(self, resource_id: str) -> JsonRecord | None:
        if resource_id.startswith("file:") and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().get(resource_id)


async def test_a_file_that_goes_takes_along_the_directory_that_was_let_go_meanwhile(
    tmp_path: Path,
) -> None:
    records = _InterruptedRecords()
    files = PosixFiles(str(tmp_path), records=records, backups=MemoryBackups())
    app = Directory(path="/srv/app")

    async def let_go() -> None:
        directories = PosixDirectories(str(tmp_path), records=records)
        (removed,) = await directories.remove([app.path], apply=True)
        assert isinstance(removed, Change)
        assert removed.actions == ("left: it is not empty",)
        await directories.close()

    await PosixDirectories(str(tmp_path), records=records).converge([app], apply=True)
    await files.converge([File(path="/srv/app/last", content=b"last")], apply=True)
    with ThreadPoolExecutor() as others:
        records.meanwhile = lambda: others.submit(asyncio.run, let_go()).result()
        await files.remove(["/srv/app/last"], apply=True)
    assert not (tmp_path / "srv").exists()
    assert records.get(id_of_made_directory(app.path)) is None
