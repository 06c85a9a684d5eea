"""Links in a folder and in memory: the contracts, and what a disk adds."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from harmony_core import File, SymbolicLink
from harmony_core.change import Change
from harmony_core.errors import UnsafePath
from harmony_core.reconciler import AnyReconciler, MemoryBackups, MemoryRecords
from harmony_core.testing import (
    CapabilityContract,
    CapabilityUnderTest,
    FakeLinks,
    LinkHostContract,
    LinksUnderTest,
)
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.links.posix import PosixLinks

from .folder import FolderBystander


class TestFakeLinks(LinkHostContract):
    @pytest.fixture
    def host(self) -> LinksUnderTest:
        fake = FakeLinks()
        return LinksUnderTest(links=fake, bystander=fake)


@pytest.fixture
async def posix(tmp_path: Path) -> AsyncGenerator[PosixLinks]:
    (tmp_path / "root").mkdir()
    links = PosixLinks(str(tmp_path / "root"), records=MemoryRecords())
    yield links
    await links.close()


class TestPosixLinks(LinkHostContract):
    @pytest.fixture
    def host(self, posix: PosixLinks, tmp_path: Path) -> LinksUnderTest:
        bystander = FolderBystander(tmp_path / "root", secrets_directory=tmp_path / "secrets")
        return LinksUnderTest(links=posix, bystander=bystander)


class _Outsider:
    """Somebody with a shell in the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def identity(self, key: str) -> object | None:
        path = self._root / key[1:]
        return (path.lstat().st_ino, path.readlink()) if path.is_symlink() else None

    def disturb(self, key: str) -> None:
        path = self._root / key[1:]
        path.unlink()
        path.symlink_to("others")

    def make_foreign(self) -> str:
        (self._root / "theirs").symlink_to("elsewhere")
        return "/theirs"


class TestLinksAsACapability(CapabilityContract[SymbolicLink]):
    @pytest.fixture
    def host(self, tmp_path: Path) -> CapabilityUnderTest[SymbolicLink]:
        records = MemoryRecords()

        def again() -> AnyReconciler:
            return PosixLinks(str(tmp_path), records=records)

        (tmp_path / "there").write_bytes(b"")
        return CapabilityUnderTest(
            reconciler=again(),
            restarted=again,
            wish=SymbolicLink(path="/it", target="one"),
            changed=SymbolicLink(path="/it", target="two"),
            beside=SymbolicLink(path="/beside", target="one"),
            refused=SymbolicLink(path="/there", target="one"),
            outsider=_Outsider(tmp_path),
        )


async def test_a_link_is_replaced_without_a_moment_in_which_there_is_none(
    posix: PosixLinks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "root/current"
    seen = list[str | None]()
    rename = os.rename

    def watched(*args: object, **keywords: object) -> None:
        seen.append(str(here.readlink()) if here.is_symlink() else None)
        rename(*args, **keywords)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    await posix.converge([SymbolicLink(path="/current", target="one")], apply=True)
    monkeypatch.setattr(os, "rename", watched)
    await posix.converge([SymbolicLink(path="/current", target="two")], apply=True)
    assert seen == ["one"]
    assert str(here.readlink()) == "two"
    assert [each.name for each in (tmp_path / "root").iterdir()] == ["current"]


async def test_its_owner_comes_back_with_what_it_led_to(posix: PosixLinks, tmp_path: Path) -> None:
    here = tmp_path / "root/current"
    here.symlink_to("theirs")
    os.chown(here, 1000, 1001, follow_symlinks=False)
    await posix.converge([SymbolicLink(path="/current", target="ours")], apply=True)
    assert here.lstat().st_uid == os.geteuid()
    await posix.remove(["/current"], apply=True)
    facts = here.lstat()
    assert (str(here.readlink()), facts.st_uid, facts.st_gid) == ("theirs", 1000, 1001)


async def test_a_target_that_is_not_text_is_refused_and_left(
    posix: PosixLinks, tmp_path: Path
) -> None:
    here = tmp_path / "root/current"
    here.symlink_to(os.fsdecode(b"\xff"))
    (error,) = await posix.converge([SymbolicLink(path="/current", target="x")], apply=True)
    assert isinstance(error, UnsafePath)
    assert "not text" in error.message
    assert os.fsencode(here.readlink()) == b"\xff"


async def test_a_path_that_it_is_on_the_way_to_is_refused_for_a_file(tmp_path: Path) -> None:
    links = PosixLinks(str(tmp_path), records=MemoryRecords())
    files = PosixFiles(str(tmp_path), records=MemoryRecords(), backups=MemoryBackups())
    (tmp_path / "data").mkdir()
    await links.converge([SymbolicLink(path="/current", target="data")], apply=True)
    (error,) = await files.converge([File(path="/current/x", content=b"x")], apply=True)
    assert isinstance(error, UnsafePath)
    (removed,) = await links.remove(["/current"], apply=True)
    assert isinstance(removed, Change)
    await links.close()
    await files.close()
