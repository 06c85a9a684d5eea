"""What every file system must tell of what changes on it: a part of `FileSystemHostContract`."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, ClassVar

import pytest

from harmony_core.resources import File

from .hearing import Hearer

if TYPE_CHECKING:
    from .files_contract import FilesUnderTest

__all__ = ["FileWatchContract"]


class FileWatchContract(ABC):
    """Needs the fixture `host`, and a `BASE` that does not exist when a test begins."""

    BASE: ClassVar[str]

    @pytest.fixture
    def hearer(self) -> Hearer:
        return Hearer()

    async def test_what_a_bystander_does_to_a_file_is_told(
        self, host: FilesUnderTest, hearer: Hearer
    ) -> None:
        path = f"{self.BASE}/motd"
        host.bystander.write(path, b"one\n")
        await host.files.watch([path], hearer)
        host.bystander.write(path, b"two\n")
        await hearer.hears(path)
        host.bystander.write(path, b"two\n", mode=0o600)
        await hearer.hears(path)
        host.bystander.delete(path)
        await hearer.hears(path)
        host.bystander.link(path, f"{self.BASE}/elsewhere")
        await hearer.hears(path)
        host.bystander.delete(path)
        await hearer.hears(path)
        host.bystander.make_directory(path)
        await hearer.hears(path)

    async def test_a_file_that_comes_into_being_is_told_with_its_directories(
        self, host: FilesUnderTest, hearer: Hearer
    ) -> None:
        path = f"{self.BASE}/a/b/motd"
        await host.files.watch([path], hearer)
        host.bystander.make_directory(f"{self.BASE}/a")
        await hearer.hears(path)
        # Whoever tells once too often for the first few is found out by the last.
        for n in range(10):
            host.bystander.write(path, b"%d\n" % n)
            await hearer.hears(path)

    async def test_what_we_do_ourselves_is_told(self, host: FilesUnderTest, hearer: Hearer) -> None:
        desired = File(path=f"{self.BASE}/motd", content=b"one\n")
        await host.files.watch([desired.path], hearer)
        await host.apply_one(desired)
        await hearer.hears(desired.path)
        await hearer.is_at_rest()
        await host.remove_one(desired.path)
        await hearer.hears(desired.path)

    async def test_a_look_is_not_told(self, host: FilesUnderTest, hearer: Hearer) -> None:
        first, second = self._two(host)
        await host.files.watch([first, second], hearer)
        await host.files.observe(first)
        await host.plan_one(File(path=first, content=b"one\n"))
        host.bystander.write(second, b"two\n")
        await hearer.hears(second, never=first)

    async def test_a_file_beside_it_is_not_told(self, host: FilesUnderTest, hearer: Hearer) -> None:
        first, second = self._two(host)
        await host.files.watch([second], hearer)
        host.bystander.write(first, b"two\n")
        host.bystander.write(second, b"two\n")
        await hearer.hears(second, never=first)

    async def test_a_file_that_is_not_watched_any_more_is_not_told(
        self, host: FilesUnderTest, hearer: Hearer
    ) -> None:
        first, second = self._two(host)
        await host.files.watch([first, second], hearer)
        await host.files.watch([second], hearer)
        host.bystander.write(first, b"two\n")
        host.bystander.write(second, b"two\n")
        await hearer.hears(second, never=first)

    async def test_a_change_between_two_calls_is_not_lost(
        self, host: FilesUnderTest, hearer: Hearer
    ) -> None:
        first, second = self._two(host)
        await host.files.watch([first], hearer)
        host.bystander.write(first, b"two\n")
        await host.files.watch([first, second], hearer)
        await hearer.hears(first)

    async def test_once_closed_it_tells_nothing(self, host: FilesUnderTest, hearer: Hearer) -> None:
        first, second = self._two(host)
        await host.files.watch([first, second], hearer)
        host.bystander.write(first, b"two\n")
        await host.files.close()
        hearer.heard.clear()
        host.bystander.write(second, b"two\n")
        await hearer.is_at_rest()
        assert hearer.heard == []
        await host.files.close()

    def _two(self, host: FilesUnderTest) -> tuple[str, str]:
        first, second = f"{self.BASE}/first", f"{self.BASE}/second"
        for path in (first, second):
            host.bystander.write(path, b"one\n")
        return first, second
