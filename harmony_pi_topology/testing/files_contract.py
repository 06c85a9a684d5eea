"""What every file system that Scores act on must do: `FileSystemHost`, as tests.

::

    class TestMyFiles(FileSystemHostContract):
        @pytest.fixture
        def host(self) -> FilesUnderTest:
            return FilesUnderTest(files=MyFiles(…), bystander=MyBystander(…))

All happens below `FileSystemHostContract.BASE`, so it may also be a real machine's file system. The
*bystander* is somebody else on that machine: what Harmony did is checked with the bystander's eyes, and
what Harmony must cope with is done with the bystander's hands.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import CapabilityError, NotOurs, PriorTooLarge, SecretMissing, UnsafePath
from harmony_core.reconciler import ORIGINAL_MAX_BYTES, Reconciler
from harmony_core.resources import Download, File, FileState, NotAFile, PresentAt, SecretRef

from .files_watch_contract import FileWatchContract

__all__ = ["Bystander", "FileSystemHostContract", "FilesUnderTest"]


class Bystander(Protocol):
    """Somebody else who works on the same machine."""

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write into the file in place, or make it, and the directories above it."""

    def read(self, path: str) -> bytes | None:
        """Return the content of the regular file there; None when there is none."""

    def mode(self, path: str) -> int:
        """Return the permission bits of what is there."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether anything is there."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file or a link."""

    def make_directory(self, path: str) -> None:
        """Make a directory, and those above it."""

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""

    def identity(self, path: str) -> tuple[int, int]:
        """Return the inode and the time of the last change of a file's content."""
        ...

    def put_secret(self, name: str, content: bytes) -> None:
        """Put a secret where the agent looks for it, with the right mode."""


@attrs.frozen(kw_only=True)
class FilesUnderTest:
    """A reconciler of files, and somebody else on the same machine."""

    files: Reconciler[File, FileState]
    bystander: Bystander

    async def apply(self, *files: File) -> Sequence[Change | Exception]:
        return await self.files.converge(files, apply=True)

    async def plan(self, *files: File) -> Sequence[Change | Exception]:
        return await self.files.converge(files, apply=False)

    async def apply_one(self, file: File) -> Change:
        (change,) = await self.apply(file)
        return _change(change)

    async def plan_one(self, file: File) -> Change:
        (change,) = await self.plan(file)
        return _change(change)

    async def expect_refusal(self, file: File) -> Exception:
        (error,) = await self.apply(file)
        assert isinstance(error, Exception), f"{file.path} was not refused: {error}"
        return error

    async def remove_one(self, path: str) -> Change:
        (change,) = await self.files.remove([path], apply=True)
        return _change(change)


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class FileSystemHostContract(FileWatchContract):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    BASE: ClassVar[str] = "/var/lib/harmony-contract"
    """A directory that does not exist when a test begins; nothing outside it is touched."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> FilesUnderTest:
        """Return a file system without `BASE`."""

    def file(self, name: str = "motd", content: bytes | SecretRef = b"hello\n") -> File:
        return File(path=f"{self.BASE}/{name}", content=content)

    async def test_what_is_not_there_is_observed_as_none(self, host: FilesUnderTest) -> None:
        assert await host.files.observe(f"{self.BASE}/absent") is None

    async def test_a_missing_file_is_created_as_wished(self, host: FilesUnderTest) -> None:
        desired = self.file().model_copy(update={"mode": 0o640})
        change = await host.apply_one(desired)
        assert change.actions == ("created",)
        assert change.before is None
        assert host.bystander.read(desired.path) == b"hello\n"
        assert host.bystander.mode(desired.path) == 0o640

    async def test_what_is_observed_is_what_was_wished(self, host: FilesUnderTest) -> None:
        desired = self.file()
        change = await host.apply_one(desired)
        state = await host.files.observe(desired.path)
        assert isinstance(state, PresentAt)
        assert state.sha256 == hashlib.sha256(b"hello\n").hexdigest()
        assert (state.mode, state.size_bytes) == ("0644", 6)
        assert change.after == state

    async def test_a_file_that_is_right_is_left_alone_to_the_inode(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        await host.apply_one(desired)
        identity = host.bystander.identity(desired.path)
        for _ in range(3):
            assert (await host.apply_one(desired)).actions == ()
        assert host.bystander.identity(desired.path) == identity

    async def test_other_content_is_written(self, host: FilesUnderTest) -> None:
        await host.apply_one(self.file())
        change = await host.apply_one(self.file(content=b"good morning\n"))
        assert change.changed
        assert isinstance(change.before, PresentAt)
        assert change.before.sha256 == hashlib.sha256(b"hello\n").hexdigest()
        assert host.bystander.read(f"{self.BASE}/motd") == b"good morning\n"

    async def test_a_download_that_does_not_come_changes_nothing(
        self, host: FilesUnderTest
    ) -> None:
        await host.apply_one(self.file())
        download = Download(url="https://example.org/motd", sha256="ab" * 32)
        desired = File(path=f"{self.BASE}/motd", content=download)
        planned = await host.plan_one(desired)
        assert planned.actions[0] == "downloaded from https://example.org/motd"
        assert planned.actions[1].startswith("wrote 6 → ? bytes, sha256 ")
        assert isinstance(await host.expect_refusal(desired), CapabilityError)
        assert host.bystander.read(desired.path) == b"hello\n"
        assert (await host.apply_one(self.file())).actions == ()

    async def test_another_mode_is_set_without_writing_the_file_anew(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        await host.apply_one(desired)
        identity = host.bystander.identity(desired.path)
        change = await host.apply_one(desired.model_copy(update={"mode": 0o600}))
        assert change.actions == ("mode 0644 → 0600",)
        assert host.bystander.mode(desired.path) == 0o600
        assert host.bystander.identity(desired.path) == identity

    async def test_what_a_bystander_changed_is_put_right(self, host: FilesUnderTest) -> None:
        desired = self.file()
        await host.apply_one(desired)
        host.bystander.write(desired.path, b"HELLO\n")
        assert (await host.apply_one(desired)).changed
        assert host.bystander.read(desired.path) == b"hello\n"

    async def test_what_a_bystander_deleted_is_made_again(self, host: FilesUnderTest) -> None:
        desired = self.file()
        await host.apply_one(desired)
        host.bystander.delete(desired.path)
        assert (await host.apply_one(desired)).actions == ("created",)

    async def test_a_dry_run_changes_nothing_and_says_what_applying_then_does(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file("deep/motd")
        planned = await host.plan_one(desired)
        assert not host.bystander.exists(self.BASE)
        assert await host.apply_one(desired) == planned
        changed = self.file("deep/motd", b"other\n").model_copy(update={"mode": 0o600})
        planned = await host.plan_one(changed)
        assert host.bystander.read(desired.path) == b"hello\n"
        assert await host.apply_one(changed) == planned

    async def test_directories_made_on_the_way_go_when_they_are_empty(
        self, host: FilesUnderTest
    ) -> None:
        first, second = self.file("a/b/first"), self.file("a/b/second")
        await host.apply_one(first)
        await host.apply_one(second)
        await host.remove_one(first.path)
        assert host.bystander.exists(second.path)
        await host.remove_one(second.path)
        assert not host.bystander.exists(self.BASE)

    async def test_directories_that_a_bystander_uses_stay(self, host: FilesUnderTest) -> None:
        desired = self.file("a/motd")
        await host.apply_one(desired)
        host.bystander.write(f"{self.BASE}/a/theirs", b"")
        await host.remove_one(desired.path)
        assert host.bystander.exists(f"{self.BASE}/a/theirs")

    async def test_directories_that_a_bystander_made_stay(self, host: FilesUnderTest) -> None:
        host.bystander.make_directory(f"{self.BASE}/theirs")
        desired = self.file("theirs/motd")
        await host.apply_one(desired)
        await host.remove_one(desired.path)
        assert host.bystander.exists(f"{self.BASE}/theirs")

    async def test_what_was_made_is_removed_once(self, host: FilesUnderTest) -> None:
        desired = self.file()
        await host.apply_one(desired)
        change = await host.remove_one(desired.path)
        assert change.actions == ("removed",)
        assert change.after is None
        assert await host.files.observe(desired.path) is None
        assert (await host.remove_one(desired.path)).actions == ()

    async def test_removing_in_a_dry_run_only_says_so(self, host: FilesUnderTest) -> None:
        desired = self.file()
        await host.apply_one(desired)
        (change,) = await host.files.remove([desired.path], apply=False)
        assert isinstance(change, Change)
        assert change.actions == ("removed",)
        assert host.bystander.exists(desired.path)
        assert (await host.remove_one(desired.path)).actions == ("removed",)

    async def test_a_stranger_s_file_is_not_removed(self, host: FilesUnderTest) -> None:
        path = f"{self.BASE}/theirs"
        host.bystander.write(path, b"theirs")
        (error,) = await host.files.remove([path], apply=True)
        assert isinstance(error, NotOurs)
        assert host.bystander.read(path) == b"theirs"

    async def test_a_file_that_was_right_before_is_left_in_the_end(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"hello\n")
        assert not (await host.apply_one(desired)).changed
        change = await host.remove_one(desired.path)
        assert change.actions == ("left: it was there before",)
        assert host.bystander.read(desired.path) == b"hello\n"
        assert (await host.remove_one(desired.path)).actions == ()

    async def test_what_was_there_before_is_put_back(self, host: FilesUnderTest) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"theirs\n", 0o600)
        before = await host.files.observe(desired.path)
        await host.apply_one(desired)
        await host.apply_one(self.file(content=b"later\n"))
        (planned,) = await host.files.remove([desired.path], apply=False)
        assert host.bystander.read(desired.path) == b"later\n"
        change = await host.remove_one(desired.path)
        assert planned == change
        assert change.actions == ("put back what was there before",)
        assert change.after == before == await host.files.observe(desired.path)
        assert host.bystander.read(desired.path) == b"theirs\n"
        assert host.bystander.mode(desired.path) == 0o600

    async def test_a_mode_that_was_there_before_is_put_back(self, host: FilesUnderTest) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"hello\n", 0o600)
        await host.apply_one(desired)
        assert host.bystander.mode(desired.path) == 0o644
        assert (await host.remove_one(desired.path)).actions == ("put back what was there before",)
        assert host.bystander.mode(desired.path) == 0o600

    async def test_nothing_is_put_back_over_what_somebody_wrote_since(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"theirs\n")
        await host.apply_one(desired)
        host.bystander.write(desired.path, b"edited\n")
        assert (await host.remove_one(desired.path)).actions == ("left: somebody changed it since",)
        assert host.bystander.read(desired.path) == b"edited\n"
        assert (await host.remove_one(desired.path)).actions == ()

    async def test_what_somebody_put_back_by_hand_is_right(self, host: FilesUnderTest) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"theirs\n")
        await host.apply_one(desired)
        host.bystander.write(desired.path, b"theirs\n")
        await host.remove_one(desired.path)
        assert host.bystander.read(desired.path) == b"theirs\n"

    async def test_what_was_left_and_is_taken_over_anew_is_put_back_as_it_was_left(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"theirs\n")
        await host.apply_one(desired)
        host.bystander.write(desired.path, b"edited\n")
        await host.remove_one(desired.path)
        await host.apply_one(desired)
        await host.remove_one(desired.path)
        assert host.bystander.read(desired.path) == b"edited\n"

    async def test_what_is_too_large_to_be_kept_is_not_written_over(
        self, host: FilesUnderTest
    ) -> None:
        desired, large = self.file(), b"x" * (ORIGINAL_MAX_BYTES + 1)
        host.bystander.write(desired.path, large)
        assert isinstance(await host.expect_refusal(desired), PriorTooLarge)
        assert host.bystander.read(desired.path) == large
        await host.apply_one(desired.model_copy(update={"discard_previous": True}))
        assert host.bystander.read(desired.path) == b"hello\n"
        assert (await host.remove_one(desired.path)).actions == ("removed",)

    async def test_a_file_that_was_made_let_go_and_made_again_is_removed(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        for _ in range(2):
            await host.apply_one(desired)
            assert (await host.remove_one(desired.path)).actions == ("removed",)

    async def test_a_directory_in_the_way_is_refused_and_stays(self, host: FilesUnderTest) -> None:
        desired = self.file()
        host.bystander.make_directory(desired.path)
        error = await host.expect_refusal(desired)
        assert isinstance(error, UnsafePath)
        assert desired.path in error.message
        assert await host.files.observe(desired.path) == NotAFile(kind="directory")

    async def test_a_link_in_the_way_is_refused_and_its_target_stays(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        host.bystander.write(f"{self.BASE}/target", b"theirs")
        host.bystander.link(desired.path, f"{self.BASE}/target")
        assert isinstance(await host.expect_refusal(desired), UnsafePath)
        assert host.bystander.read(f"{self.BASE}/target") == b"theirs"
        assert await host.files.observe(desired.path) == NotAFile(kind="symbolic link")

    @pytest.mark.parametrize("is_link", [True, False], ids=["a link", "an empty directory"])
    async def test_what_is_nothing_in_itself_does_not_keep_the_place_of_our_file(
        self, host: FilesUnderTest, is_link: bool
    ) -> None:
        desired, target = self.file(), f"{self.BASE}/target"
        await host.apply_one(desired)
        host.bystander.write(target, b"theirs")
        host.bystander.delete(desired.path)
        if is_link:
            host.bystander.link(desired.path, target)
        else:
            host.bystander.make_directory(desired.path)
        planned = await host.plan_one(desired)
        assert not isinstance(await host.files.observe(desired.path), PresentAt)
        change = await host.apply_one(desired)
        assert change.actions == planned.actions
        assert "taken its place" in change.actions[0]
        assert isinstance(change.before, NotAFile)
        assert host.bystander.read(desired.path) == b"hello\n"
        assert host.bystander.read(target) == b"theirs"
        assert not (await host.apply_one(desired)).changed

    async def test_a_directory_with_something_in_it_keeps_the_place_of_our_file(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        await host.apply_one(desired)
        host.bystander.delete(desired.path)
        host.bystander.write(f"{desired.path}/theirs", b"theirs")
        assert isinstance(await host.expect_refusal(desired), UnsafePath)
        assert host.bystander.read(f"{desired.path}/theirs") == b"theirs"

    async def test_what_was_there_before_comes_back_though_a_link_had_our_place(
        self, host: FilesUnderTest
    ) -> None:
        desired = self.file()
        host.bystander.write(desired.path, b"before")
        await host.apply_one(desired)
        host.bystander.delete(desired.path)
        host.bystander.link(desired.path, "/etc/hostname")
        await host.apply_one(desired)
        await host.remove_one(desired.path)
        assert host.bystander.read(desired.path) == b"before"

    async def test_a_link_on_the_way_is_refused(self, host: FilesUnderTest) -> None:
        host.bystander.make_directory(f"{self.BASE}/real")
        host.bystander.link(f"{self.BASE}/link", f"{self.BASE}/real")
        assert isinstance(await host.expect_refusal(self.file("link/motd")), UnsafePath)
        assert not host.bystander.exists(f"{self.BASE}/real/motd")

    async def test_a_file_on_the_way_is_refused(self, host: FilesUnderTest) -> None:
        host.bystander.write(f"{self.BASE}/theirs", b"theirs")
        assert isinstance(await host.expect_refusal(self.file("theirs/motd")), UnsafePath)
        assert host.bystander.read(f"{self.BASE}/theirs") == b"theirs"

    async def test_a_path_that_leads_upwards_is_refused(self, host: FilesUnderTest) -> None:
        host.bystander.write(f"{self.BASE}/theirs", b"theirs")
        path = f"{self.BASE}/x/../theirs"
        with pytest.raises(UnsafePath):
            await host.files.observe(path)
        (error,) = await host.files.remove([path], apply=True)
        assert isinstance(error, UnsafePath)
        assert host.bystander.exists(f"{self.BASE}/theirs")

    async def test_one_file_s_error_does_not_stop_the_others(self, host: FilesUnderTest) -> None:
        host.bystander.make_directory(f"{self.BASE}/b")
        a, b, c = await host.apply(self.file("a"), self.file("b"), self.file("c"))
        assert isinstance(a, Change)
        assert isinstance(b, UnsafePath)
        assert isinstance(c, Change)
        assert host.bystander.read(f"{self.BASE}/a") == b"hello\n"
        assert host.bystander.read(f"{self.BASE}/c") == b"hello\n"

    async def test_many_files_are_answered_in_their_order(self, host: FilesUnderTest) -> None:
        all_desired = [self.file(f"{n % 7}/{n}", f"{n}\n".encode()) for n in range(50)]
        assert [_change(each).resource for each in await host.apply(*all_desired)] == [
            desired.id for desired in all_desired
        ]
        assert all(not _change(each).changed for each in await host.apply(*all_desired))
        assert host.bystander.read(f"{self.BASE}/6/48") == b"48\n"

    async def test_two_equal_wishes_for_one_file_are_one_change(self, host: FilesUnderTest) -> None:
        first, second = await host.apply(self.file(), self.file())
        assert _change(first).actions == ("created",)
        assert _change(second).actions == ()

    async def test_an_empty_call_is_answered_with_nothing(self, host: FilesUnderTest) -> None:
        assert list(await host.apply()) == []
        assert list(await host.files.remove([], apply=True)) == []

    async def test_an_empty_file_is_a_file(self, host: FilesUnderTest) -> None:
        await host.apply_one(self.file(content=b""))
        assert host.bystander.read(f"{self.BASE}/motd") == b""
        assert not (await host.apply_one(self.file(content=b""))).changed

    async def test_a_secret_s_content_is_written_and_nothing_of_it_is_told(
        self, host: FilesUnderTest
    ) -> None:
        host.bystander.put_secret("wifi", b"hunter2")
        desired = self.file(content=SecretRef(secret="wifi"))  # noqa: S106 - its name
        first = await host.apply_one(desired)
        assert host.bystander.read(desired.path) == b"hunter2"
        assert not (await host.apply_one(desired)).changed
        host.bystander.write(desired.path, b"hunter1")
        second = await host.apply_one(desired)
        told: list[object] = [first, second, await host.files.observe(desired.path)]
        told += await host.files.remove([desired.path], apply=True)
        for secret in (b"hunter2", b"hunter1"):
            assert secret.decode() not in repr(told)
            assert hashlib.sha256(secret).hexdigest()[:12] not in repr(told)

    async def test_of_what_was_a_secret_nothing_is_told_until_something_else_is_there(
        self, host: FilesUnderTest
    ) -> None:
        host.bystander.put_secret("wifi", b"hunter2")
        secret = self.file(content=SecretRef(secret="wifi"))  # noqa: S106 - its name
        await host.apply_one(secret)
        plain = self.file()
        (planned,) = await host.files.converge([plain], apply=False)
        told: list[object] = [planned, await host.files.observe(plain.path)]
        written = await host.apply_one(plain)
        told += [written, *written.actions]
        assert written.changed
        assert "hunter2" not in repr(told)
        assert hashlib.sha256(b"hunter2").hexdigest()[:12] not in repr(told)
        found = await host.files.observe(plain.path)
        assert isinstance(found, PresentAt)
        assert found.sha256 == hashlib.sha256(b"hello\n").hexdigest()
        assert not (await host.apply_one(plain)).changed

    async def test_a_secret_that_is_not_there_is_named(self, host: FilesUnderTest) -> None:
        absent = SecretRef(secret="absent")  # noqa: S106 - its name
        error = await host.expect_refusal(self.file(content=absent))
        assert isinstance(error, SecretMissing)
        assert "'absent'" in error.message
        assert not host.bystander.exists(f"{self.BASE}/motd")

    async def test_a_change_of_what_everybody_may_read_is_told_as_a_diff(
        self, host: FilesUnderTest
    ) -> None:
        await host.apply_one(self.file(content=b"one\ntwo\n"))
        change = await host.apply_one(self.file(content=b"one\nthree\n"))
        assert change.diff is not None
        assert "-two\n" in change.diff
        assert "+three\n" in change.diff

    @pytest.mark.parametrize(
        ("before", "after", "mode_before", "mode_after"),
        [
            (b"private\n", b"public\n", 0o600, 0o644),
            (b"public\n", b"private\n", 0o644, 0o640),
            (b"text\n", b"\0binary\xff", 0o644, 0o644),
            (b"", b"long\n" * 5_000, 0o644, 0o644),
        ],
        ids=["it was private", "it becomes private", "binary", "very long"],
    )
    async def test_no_diff_is_told_when(
        self,
        host: FilesUnderTest,
        before: bytes,
        after: bytes,
        mode_before: int,
        mode_after: int,
    ) -> None:
        await host.apply_one(self.file(content=before).model_copy(update={"mode": mode_before}))
        change = await host.apply_one(
            self.file(content=after).model_copy(update={"mode": mode_after})
        )
        assert change.changed
        assert change.diff is None
        assert "public" not in repr(change)
        assert "private" not in repr(change)

    async def test_it_says_that_it_is_available(self, host: FilesUnderTest) -> None:
        assert (await host.files.availability()).available
