"""What files and directories must do where a file system keeps no modes, as FAT: `FileSystemHost`, as tests.

The host's file system shows everything with mode 0755, belonging to root, whatever is set.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import pytest

from harmony_core.errors import DidNotStick
from harmony_core.resources import Directory, DirectoryAt, File, PresentAt

from .directories_contract import DirectoriesUnderTest
from .files_contract import FilesUnderTest

__all__ = ["ModelessDirectoriesContract", "ModelessFilesContract"]


class ModelessFilesContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BASE: ClassVar[str] = "/stick"

    @pytest.fixture
    @abstractmethod
    def host(self) -> FilesUnderTest:
        """Return a file system that shows everything with mode 0755, and has nothing at `BASE`."""

    def file(self, mode: int, content: bytes = b"hello\n") -> File:
        return File(path=f"{self.BASE}/motd", content=content, mode=mode)

    async def test_a_mode_that_does_not_stick_is_refused_and_nothing_is_written(
        self, host: FilesUnderTest
    ) -> None:
        error = await host.expect_refusal(self.file(0o600))
        assert isinstance(error, DidNotStick)
        assert (error.field, error.wanted, error.found) == ("mode", "0600", "0755")
        assert error.resource == self.file(0o600).id
        assert host.bystander.read(f"{self.BASE}/motd") is None

    async def test_the_mode_that_is_there_anyway_sticks(self, host: FilesUnderTest) -> None:
        change = await host.apply_one(self.file(0o755))
        assert isinstance(change.after, PresentAt)
        assert change.after == await host.files.observe(f"{self.BASE}/motd")
        assert not (await host.apply_one(self.file(0o755))).changed

    async def test_what_is_there_outlives_a_wish_that_does_not_stick(
        self, host: FilesUnderTest
    ) -> None:
        await host.apply_one(self.file(0o755))
        for desired in (self.file(0o644), self.file(0o644, b"other\n")):
            assert isinstance(await host.expect_refusal(desired), DidNotStick)
            assert host.bystander.read(desired.path) == b"hello\n"
        assert (await host.remove_one(f"{self.BASE}/motd")).actions == ("removed",)


class ModelessDirectoriesContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BELOW: ClassVar[str] = "/stick"

    @pytest.fixture
    @abstractmethod
    def host(self) -> DirectoriesUnderTest:
        """Return a file system that shows everything with mode 0755, and has nothing at `BELOW`."""

    async def test_a_mode_that_does_not_stick_is_refused(self, host: DirectoriesUnderTest) -> None:
        error = await host.expect_refusal(Directory(path=f"{self.BELOW}/data", mode=0o700))
        assert isinstance(error, DidNotStick)
        assert (error.field, error.wanted, error.found) == ("mode", "0700", "0755")
        assert error.resource == f"directory:{self.BELOW}/data"

    async def test_the_mode_that_is_there_anyway_sticks(self, host: DirectoriesUnderTest) -> None:
        desired = Directory(path=f"{self.BELOW}/data")
        change = await host.apply_one(desired)
        assert change.after == DirectoryAt(mode="0755", owner="root", group="root")
        assert change.after == await host.directories.observe(desired.path)
        assert not (await host.apply_one(desired)).changed
        assert (await host.remove_one(desired.path)).actions == ("removed",)
