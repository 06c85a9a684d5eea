"""The contract of `LinkHost`: what every reconciler of links passes, fake and real.

::

    class TestMyLinks(LinkHostContract):
        @pytest.fixture
        def host(self) -> LinksUnderTest: ...
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import NotOurs, UnsafePath
from harmony_core.reconciler import Reconciler
from harmony_core.resources import LinkAt, LinkState, NotALink, SymbolicLink

from .hearing import Hearer

__all__ = ["LinkBystander", "LinkHostContract", "LinksUnderTest"]


class LinkBystander(Protocol):
    """Somebody else on the same disk."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file, and make its directories."""

    def make_directory(self, path: str) -> None: ...

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link to this very text, and its directories; in place of another link."""

    def delete(self, path: str) -> None:
        """Delete a file or a link."""

    def readlink(self, path: str) -> str | None:
        """Return what the link leads to; None where there is no link."""
        ...

    def exists(self, path: str) -> bool: ...


@attrs.frozen(kw_only=True)
class LinksUnderTest:
    """A reconciler of links, and somebody else on the same disk."""

    links: Reconciler[SymbolicLink, LinkState]
    bystander: LinkBystander

    async def apply_one(self, link: SymbolicLink) -> Change:
        return _change((await self.links.converge([link], apply=True))[0])

    async def plan_one(self, link: SymbolicLink) -> Change:
        return _change((await self.links.converge([link], apply=False))[0])

    async def expect_refusal(self, link: SymbolicLink) -> Exception:
        (error,) = await self.links.converge([link], apply=True)
        assert isinstance(error, Exception)
        return error

    async def remove_one(self, path: str) -> Change:
        return _change((await self.links.remove([path], apply=True))[0])


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class LinkHostContract:
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BELOW: ClassVar[str] = "/srv/harmony-contract"

    @pytest.fixture
    @abstractmethod
    def host(self) -> LinksUnderTest:
        """Return a disk on which there is nothing at `BELOW`."""

    def link(self, target: str = "../data", name: str = "current") -> SymbolicLink:
        return SymbolicLink(path=f"{self.BELOW}/{name}", target=target)

    async def test_a_missing_link_is_made_with_the_directories_above(
        self, host: LinksUnderTest
    ) -> None:
        desired = self.link(name="deep/current")
        assert await host.links.observe(desired.path) is None
        planned = await host.plan_one(desired)
        assert not host.bystander.exists(self.BELOW)
        change = await host.apply_one(desired)
        assert planned == change
        assert change.actions == ("created",)
        assert change.after == LinkAt(target="../data") == await host.links.observe(desired.path)
        assert host.bystander.readlink(desired.path) == "../data"
        assert (await host.apply_one(desired)).actions == ()
        assert (await host.remove_one(desired.path)).actions == ("removed",)
        assert not host.bystander.exists(self.BELOW)

    async def test_another_target_is_set_and_told(self, host: LinksUnderTest) -> None:
        await host.apply_one(self.link("releases/1"))
        change = await host.apply_one(self.link("releases/2"))
        assert change.actions == ("target releases/1 → releases/2",)
        assert host.bystander.readlink(self.link().path) == "releases/2"

    async def test_it_need_not_lead_to_anything(self, host: LinksUnderTest) -> None:
        await host.apply_one(self.link("/nowhere/at/all"))
        assert await host.links.observe(self.link().path) == LinkAt(target="/nowhere/at/all")

    async def test_what_a_link_led_to_before_comes_back(self, host: LinksUnderTest) -> None:
        host.bystander.symlink(self.link().path, "theirs")
        change = await host.apply_one(self.link("one"))
        assert change.actions == ("target theirs → one",)
        await host.apply_one(self.link("two"))
        (planned,) = await host.links.remove([self.link().path], apply=False)
        change = await host.remove_one(self.link().path)
        assert planned == change
        assert change.actions == ("put back the link to theirs",)
        assert host.bystander.readlink(self.link().path) == "theirs"
        assert (await host.remove_one(self.link().path)).actions == ()

    async def test_one_that_was_there_and_right_is_left(self, host: LinksUnderTest) -> None:
        host.bystander.symlink(self.link().path, "../data")
        assert (await host.apply_one(self.link())).actions == ()
        assert (await host.remove_one(self.link().path)).actions == ("left: it was there before",)
        assert host.bystander.readlink(self.link().path) == "../data"

    async def test_what_somebody_changed_since_is_left(self, host: LinksUnderTest) -> None:
        host.bystander.symlink(self.link().path, "theirs")
        await host.apply_one(self.link("ours"))
        host.bystander.symlink(self.link().path, "others")
        change = await host.remove_one(self.link().path)
        assert change.actions == ("left: somebody changed it since",)
        assert host.bystander.readlink(self.link().path) == "others"

    async def test_what_a_bystander_changed_is_put_right(self, host: LinksUnderTest) -> None:
        await host.apply_one(self.link())
        host.bystander.symlink(self.link().path, "others")
        assert (await host.apply_one(self.link())).actions == ("target others → ../data",)
        host.bystander.delete(self.link().path)
        assert (await host.apply_one(self.link())).actions == ("created",)

    @pytest.mark.parametrize("is_ours", [False, True])
    async def test_a_file_in_the_way_is_refused_by_name_and_stays(
        self, host: LinksUnderTest, is_ours: bool
    ) -> None:
        if is_ours:
            await host.apply_one(self.link())
            host.bystander.delete(self.link().path)
        host.bystander.write(self.link().path, b"theirs")
        error = await host.expect_refusal(self.link())
        assert isinstance(error, UnsafePath)
        assert self.link().path in error.message
        assert "is a file" in error.message
        assert await host.links.observe(self.link().path) == NotALink(kind="file")

    async def test_a_directory_in_the_way_is_refused_and_stays(self, host: LinksUnderTest) -> None:
        host.bystander.make_directory(self.link().path)
        assert isinstance(await host.expect_refusal(self.link()), UnsafePath)
        assert await host.links.observe(self.link().path) == NotALink(kind="directory")

    async def test_an_empty_directory_in_place_of_ours_makes_way_and_a_full_one_does_not(
        self, host: LinksUnderTest
    ) -> None:
        await host.apply_one(self.link())
        host.bystander.delete(self.link().path)
        host.bystander.make_directory(self.link().path)
        change = await host.apply_one(self.link())
        assert change.actions == ("removed a directory that had taken its place", "created")
        host.bystander.delete(self.link().path)
        host.bystander.write(f"{self.link().path}/theirs", b"theirs")
        assert isinstance(await host.expect_refusal(self.link()), UnsafePath)
        assert host.bystander.exists(f"{self.link().path}/theirs")

    async def test_a_link_on_the_way_is_refused(self, host: LinksUnderTest) -> None:
        host.bystander.make_directory(f"{self.BELOW}/real")
        host.bystander.symlink(f"{self.BELOW}/way", "real")
        assert isinstance(await host.expect_refusal(self.link(name="way/current")), UnsafePath)
        assert not host.bystander.exists(f"{self.BELOW}/real/current")

    async def test_a_stranger_s_is_not_removed(self, host: LinksUnderTest) -> None:
        host.bystander.symlink(self.link().path, "theirs")
        (error,) = await host.links.remove([self.link().path], apply=True)
        assert isinstance(error, NotOurs)
        assert host.bystander.readlink(self.link().path) == "theirs"

    async def test_a_change_is_told_to_whoever_watches(self, host: LinksUnderTest) -> None:
        told = Hearer()
        await host.apply_one(self.link())
        await host.links.watch([self.link().path], told)
        host.bystander.symlink(self.link().path, "others")
        await told.hears(self.link().path)
