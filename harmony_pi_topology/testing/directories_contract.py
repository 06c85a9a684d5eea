"""The contract of `DirectoryHost`: what every reconciler of directories passes, fake and real.

::

    class TestMyDirectories(DirectoryHostContract):
        @pytest.fixture
        def host(self) -> DirectoriesUnderTest: ...
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import NotOurs, UnsafePath
from harmony_core.reconciler import Reconciler
from harmony_core.resources import Directory, DirectoryAt, DirectoryState, NotADirectory

from .hearing import Hearer

__all__ = ["DirectoriesUnderTest", "DirectoryBystander", "DirectoryHostContract"]


class DirectoryBystander(Protocol):
    """Somebody else on the same disk."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file, and make its directories."""

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it, open to all to read."""

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""

    def delete(self, path: str) -> None:
        """Delete a file or a link."""

    def chmod(self, path: str, mode: int) -> None: ...

    def mode(self, path: str) -> int: ...

    def exists(self, path: str) -> bool: ...


@attrs.frozen(kw_only=True)
class DirectoriesUnderTest:
    """A reconciler of directories, and somebody else on the same disk."""

    directories: Reconciler[Directory, DirectoryState]
    bystander: DirectoryBystander

    async def apply_one(self, directory: Directory) -> Change:
        return _change((await self.directories.converge([directory], apply=True))[0])

    async def plan_one(self, directory: Directory) -> Change:
        return _change((await self.directories.converge([directory], apply=False))[0])

    async def expect_refusal(self, directory: Directory) -> Exception:
        (error,) = await self.directories.converge([directory], apply=True)
        assert isinstance(error, Exception)
        return error

    async def remove_one(self, path: str) -> Change:
        return _change((await self.directories.remove([path], apply=True))[0])


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class DirectoryHostContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BELOW: ClassVar[str] = "/srv/harmony-contract"

    @pytest.fixture
    @abstractmethod
    def host(self) -> DirectoriesUnderTest:
        """Return a disk on which there is nothing at `BELOW`."""

    def directory(self, name: str = "data", mode: int = 0o750) -> Directory:
        return Directory(path=f"{self.BELOW}/{name}", mode=mode)

    async def test_a_missing_directory_is_made_with_those_above(
        self, host: DirectoriesUnderTest
    ) -> None:
        desired = self.directory("deep/data")
        assert await host.directories.observe(desired.path) is None
        planned = await host.plan_one(desired)
        assert not host.bystander.exists(self.BELOW)
        change = await host.apply_one(desired)
        assert planned == change
        assert change.actions == ("created",)
        assert await host.directories.observe(desired.path) == change.after
        assert host.bystander.mode(desired.path) == 0o750
        assert host.bystander.mode(f"{self.BELOW}/deep") == 0o755
        assert (await host.apply_one(desired)).actions == ()

    async def test_another_mode_is_set_and_told(self, host: DirectoriesUnderTest) -> None:
        await host.apply_one(self.directory())
        change = await host.apply_one(self.directory(mode=0o700))
        assert change.actions == ("mode 0750 → 0700",)
        assert host.bystander.mode(change.resource.partition(":")[2]) == 0o700

    async def test_what_we_made_goes_once_with_what_was_made_on_the_way(
        self, host: DirectoriesUnderTest
    ) -> None:
        desired = self.directory("deep/data")
        await host.apply_one(desired)
        (planned,) = await host.directories.remove([desired.path], apply=False)
        assert host.bystander.exists(desired.path)
        change = await host.remove_one(desired.path)
        assert planned == change
        assert change.actions == ("removed",)
        assert not host.bystander.exists(f"{self.BELOW}/deep")
        assert (await host.remove_one(desired.path)).actions == ()

    async def test_what_others_have_put_into_it_stays_and_so_does_it(
        self, host: DirectoriesUnderTest
    ) -> None:
        desired = self.directory()
        await host.apply_one(desired)
        host.bystander.write(f"{desired.path}/theirs", b"theirs")
        assert (await host.remove_one(desired.path)).actions == ("left: it is not empty",)
        assert host.bystander.exists(f"{desired.path}/theirs")
        assert (await host.remove_one(desired.path)).actions == ()

    async def test_one_below_another_goes_before_it(self, host: DirectoriesUnderTest) -> None:
        above, below = self.directory(), self.directory("data/below")
        results = await host.directories.converge([below, above], apply=True)
        assert [_change(each).actions for each in results] == [("created",), ("created",)]
        removed = await host.directories.remove([above.path, below.path], apply=True)
        assert [_change(each).actions for each in removed] == [("removed",), ("removed",)]
        assert not host.bystander.exists(self.BELOW)

    async def test_one_that_was_there_gets_back_its_mode(self, host: DirectoriesUnderTest) -> None:
        desired = self.directory()
        host.bystander.make_directory(desired.path)
        host.bystander.chmod(desired.path, 0o711)
        assert (await host.apply_one(desired)).actions == ("mode 0711 → 0750",)
        await host.apply_one(self.directory(mode=0o700))
        assert (await host.remove_one(desired.path)).actions == ("put back its mode and owner",)
        assert host.bystander.mode(desired.path) == 0o711
        assert (await host.remove_one(desired.path)).actions == ()

    async def test_one_that_was_there_and_right_is_left(self, host: DirectoriesUnderTest) -> None:
        desired = self.directory(mode=0o755)
        host.bystander.make_directory(desired.path)
        assert (await host.apply_one(desired)).actions == ()
        assert (await host.remove_one(desired.path)).actions == ("left: it was there before",)
        assert host.bystander.exists(desired.path)

    async def test_a_mode_that_somebody_set_since_is_left(self, host: DirectoriesUnderTest) -> None:
        desired = self.directory()
        host.bystander.make_directory(desired.path)
        await host.apply_one(desired)
        host.bystander.chmod(desired.path, 0o777)
        assert (await host.remove_one(desired.path)).actions == ("left: somebody changed it since",)
        assert host.bystander.mode(desired.path) == 0o777

    async def test_what_a_bystander_changed_is_put_right(self, host: DirectoriesUnderTest) -> None:
        desired = self.directory()
        await host.apply_one(desired)
        host.bystander.chmod(desired.path, 0o777)
        assert (await host.apply_one(desired)).actions == ("mode 0777 → 0750",)

    @pytest.mark.parametrize("mode", [0o2775, 0o1777, 0o3770])
    async def test_set_group_id_and_sticky_are_made_changed_and_given_back(
        self, host: DirectoriesUnderTest, mode: int
    ) -> None:
        desired = self.directory(mode=mode)
        host.bystander.make_directory(desired.path)
        host.bystander.chmod(desired.path, 0o1771)
        assert (await host.apply_one(desired)).actions == (f"mode 1771 → {mode:04o}",)
        assert host.bystander.mode(desired.path) == mode
        host.bystander.chmod(desired.path, mode & 0o777)
        change = await host.apply_one(desired)
        assert change.actions == (f"mode {mode & 0o777:04o} → {mode:04o}",)
        assert change.after == await host.directories.observe(desired.path)
        assert (await host.remove_one(desired.path)).actions == ("put back its mode and owner",)
        assert host.bystander.mode(desired.path) == 0o1771

    async def test_one_made_below_set_group_id_has_the_mode_that_was_wished(
        self, host: DirectoriesUnderTest
    ) -> None:
        await host.apply_one(self.directory(mode=0o2775))
        await host.apply_one(self.directory("data/below", mode=0o755))
        assert host.bystander.mode(f"{self.BELOW}/data/below") == 0o755

    async def test_a_file_in_the_way_is_refused_and_stays(self, host: DirectoriesUnderTest) -> None:
        desired = self.directory()
        host.bystander.write(desired.path, b"theirs")
        assert isinstance(await host.expect_refusal(desired), UnsafePath)
        assert isinstance(await host.directories.observe(desired.path), NotADirectory)

    async def test_a_link_in_the_way_is_refused_and_stays(self, host: DirectoriesUnderTest) -> None:
        desired = self.directory()
        host.bystander.make_directory(f"{self.BELOW}/elsewhere")
        host.bystander.link(desired.path, f"{self.BELOW}/elsewhere")
        assert isinstance(await host.expect_refusal(desired), UnsafePath)
        assert host.bystander.mode(f"{self.BELOW}/elsewhere") == 0o755

    async def test_a_stranger_s_is_not_removed(self, host: DirectoriesUnderTest) -> None:
        host.bystander.make_directory(f"{self.BELOW}/theirs")
        (error,) = await host.directories.remove([f"{self.BELOW}/theirs"], apply=True)
        assert isinstance(error, NotOurs)
        assert host.bystander.exists(f"{self.BELOW}/theirs")

    async def test_a_change_is_told_to_whoever_watches(self, host: DirectoriesUnderTest) -> None:
        desired, told = self.directory(), Hearer()
        await host.apply_one(desired)
        await host.directories.watch([desired.path], told)
        host.bystander.chmod(desired.path, 0o777)
        await told.hears(desired.path)

    async def test_its_state_says_how_it_is(self, host: DirectoriesUnderTest) -> None:
        await host.apply_one(self.directory())
        state = await host.directories.observe(f"{self.BELOW}/data")
        assert isinstance(state, DirectoryAt)
        assert state.mode == "0750"
