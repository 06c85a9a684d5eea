"""Files in memory pass the contract of files."""

from __future__ import annotations

import pytest

from harmony_core.change import Change
from harmony_core.errors import WriteFailed
from harmony_core.resources import File
from harmony_core.testing import (
    DirectoriesUnderTest,
    FakeDirectories,
    FakeFiles,
    FilesUnderTest,
    FileSystemHostContract,
    ModelessDirectoriesContract,
    ModelessFilesContract,
)


class TestFakeFiles(FileSystemHostContract):
    @pytest.fixture
    def host(self) -> FilesUnderTest:
        files = FakeFiles()
        return FilesUnderTest(files=files, bystander=files)


def modeless() -> FakeFiles:
    files = FakeFiles()
    files.only_mode = 0o755
    return files


class TestModelessFakeFiles(ModelessFilesContract):
    @pytest.fixture
    def host(self) -> FilesUnderTest:
        files = modeless()
        return FilesUnderTest(files=files, bystander=files)


class TestModelessFakeDirectories(ModelessDirectoriesContract):
    @pytest.fixture
    def host(self) -> DirectoriesUnderTest:
        fake = FakeDirectories(modeless())
        return DirectoriesUnderTest(directories=fake, bystander=fake)


async def test_a_fault_is_the_answer_to_everything_about_its_path() -> None:
    files = FakeFiles()
    files.faults["/etc/motd"] = WriteFailed("disk full")
    full, fine = await files.converge(
        [File(path="/etc/motd", content=b""), File(path="/etc/issue", content=b"")], apply=True
    )
    assert isinstance(full, WriteFailed)
    assert isinstance(fine, Change)


async def test_an_empty_disk_holds_and_remembers_nothing() -> None:
    files = FakeFiles()
    await files.converge([File(path="/etc/motd", content=b"")], apply=True)
    files.forget_everything()
    assert await files.observe("/etc/motd") is None
    assert not files.exists("/etc")
