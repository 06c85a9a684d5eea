"""The contract of every capability, on files and directories of a folder; and that it finds what is wrong."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_core import Change, Directory, File
from harmony_core.errors import WriteFailed
from harmony_core.reconciler import AnyReconciler, MemoryBackups, MemoryRecords
from harmony_core.steps import Did, Removed
from harmony_core.testing import CapabilityContract, CapabilityUnderTest
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles


class FolderOutsider:
    """Somebody with a shell in the folder."""

    def __init__(self, root: Path, make: Callable[[Path], object]) -> None:
        self._root = root
        self._make = make

    def identity(self, key: str) -> object | None:
        try:
            facts = (self._root / key[1:]).lstat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_mode

    def disturb(self, key: str) -> None:
        path = self._root / key[1:]
        path.chmod(stat.S_IMODE(path.lstat().st_mode) ^ 0o022)

    def make_foreign(self) -> str:
        self._make(self._root / "theirs")
        return "/theirs"


def files_in(root: Path) -> CapabilityUnderTest[File]:
    records, originals = MemoryRecords(), MemoryBackups()

    def again() -> AnyReconciler:
        return PosixFiles(str(root), records=records, backups=originals)

    (root / "there").mkdir()
    return CapabilityUnderTest(
        reconciler=again(),
        restarted=again,
        wish=File(path="/etc/it", content=b"one\n"),
        changed=File(path="/etc/it", content=b"two\n"),
        beside=File(path="/etc/beside", content=b"three\n"),
        refused=File(path="/there", content=b""),
        outsider=FolderOutsider(root, lambda path: path.write_bytes(b"")),
    )


class TestFiles(CapabilityContract[File]):
    @pytest.fixture
    def host(self, tmp_path: Path) -> CapabilityUnderTest[File]:
        return files_in(tmp_path)


class TestDirectories(CapabilityContract[Directory]):
    @pytest.fixture
    def host(self, tmp_path: Path) -> CapabilityUnderTest[Directory]:
        records = MemoryRecords()

        def again() -> AnyReconciler:
            return PosixDirectories(str(tmp_path), records=records)

        (tmp_path / "there").write_bytes(b"")
        return CapabilityUnderTest(
            reconciler=again(),
            restarted=again,
            wish=Directory(path="/it"),
            changed=Directory(path="/it", mode=0o700),
            beside=Directory(path="/beside"),
            refused=Directory(path="/there"),
            outsider=FolderOutsider(tmp_path, lambda path: path.mkdir()),
        )


class WritesAlways(PosixFiles):
    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return await super().converge(resources, apply=True)


class TellsTheWish(PosixFiles):
    """Says that all is well, and has done nothing."""

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        planned = await super().converge(resources, apply=False)
        return [
            each if isinstance(each, Exception) else attrs.evolve(each, steps=(Did("wrote"),))
            for each in planned
        ]


class AllOrNothing(PosixFiles):
    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        results = await super().converge(resources, apply=apply)
        if any(isinstance(each, Exception) for each in results):
            return [WriteFailed("one of them")] * len(results)
        return results


class TakesAway(PosixFiles):
    """Whatever is there, whoever made it."""

    root = Path()

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        for key in keys:
            (self.root / key[1:]).unlink(missing_ok=True)
        return [Change(resource=f"file:{key}", steps=(Removed(),)) for key in keys]


class NamesAWord(PosixFiles):
    @property
    def resource_class(self) -> Any:
        return "file"


CONTRACT: type[CapabilityContract[File]] = TestFiles


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (WritesAlways, CONTRACT.test_a_dry_run_changes_nothing_and_says_what_is_done_then),
        (WritesAlways, CONTRACT.test_a_dry_run_of_a_change_changes_nothing_either),
        (TellsTheWish, CONTRACT.test_made_once_it_is_left_alone),
        (TellsTheWish, CONTRACT.test_what_is_told_afterwards_is_what_is_seen),
        (AllOrNothing, CONTRACT.test_an_error_stands_beside_the_changes_of_the_others),
        (TakesAway, CONTRACT.test_what_somebody_else_has_made_is_not_taken_away),
        (TakesAway, CONTRACT.test_removed_it_is_gone_and_removed_again_nothing_happens),
        (NamesAWord, CONTRACT.test_it_says_of_which_resource_it_is),
    ],
)
async def test_a_reconciler_with_a_fault_does_not_pass(
    tmp_path: Path, wrong: type[PosixFiles], test: Callable[..., Awaitable[None] | None]
) -> None:
    host = files_in(tmp_path)
    if wrong is TakesAway:
        TakesAway.root = tmp_path
    faulty = wrong(str(tmp_path), records=MemoryRecords(), backups=MemoryBackups())
    with pytest.raises((AssertionError, TypeError, WriteFailed)):  # noqa: PT012 - it may be a coroutine
        done = test(TestFiles(), attrs.evolve(host, reconciler=faulty))
        if done is not None:
            await done
