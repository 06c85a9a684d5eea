"""Files on a real file system: the contract in a folder, and what only a real one can show."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from harmony_core.assets import NoAssets
from harmony_core.change import Change
from harmony_core.errors import SecretMissing, UnsafePath, WriteFailed
from harmony_core.reconciler import JsonRecord, MemoryBackups, MemoryRecords
from harmony_core.resources import File, NotAFile, PresentAt, SecretRef
from harmony_core.secret_values import SecretValues
from harmony_core.testing import FilesUnderTest, FileSystemHostContract
from harmony_pi_topology.common.secrets import read_secret
from harmony_pi_topology.files.batch import FileBatches, FileRequest
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.posix.root import Root

from .folder import FolderBystander

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which only root may")


class CountedRecords(MemoryRecords):
    """Records that also tell what was written to them, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, JsonRecord | None]] = []

    def all(self) -> Mapping[str, JsonRecord]:
        last = dict(self.written)
        return {name: record for name, record in last.items() if record is not None}

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        self.written.append((resource_id, record))
        await super().put(resource_id, record)

    async def forget(self, resource_id: str) -> None:
        if self.get(resource_id) is not None:
            self.written.append((resource_id, None))
        await super().forget(resource_id)


@attrs.frozen
class Folder:
    """A folder that stands for a device."""

    root: Path
    secrets: Path
    records: CountedRecords
    files: PosixFiles

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    async def apply(self, *files: File) -> list[Change]:
        results = await self.files.converge(files, apply=True)
        return [_change(result) for result in results]

    async def expect_refusal(self, file: File) -> Exception:
        (result,) = await self.files.converge([file], apply=True)
        assert isinstance(result, Exception)
        return result


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncGenerator[Folder]:
    root, secrets, records = tmp_path / "root", tmp_path / "secrets", CountedRecords()
    root.mkdir()
    files = PosixFiles(
        str(root), records=records, backups=MemoryBackups(), secrets_directory=str(secrets)
    )
    yield Folder(root, secrets, records, files)
    await files.close()


class TestPosixFiles(FileSystemHostContract):
    @pytest.fixture
    def host(self, folder: Folder) -> FilesUnderTest:
        bystander = FolderBystander(folder.root, secrets_directory=folder.secrets)
        return FilesUnderTest(files=folder.files, bystander=bystander)


MOTD = File(path="/etc/motd", content=b"hello\n")


async def test_that_a_file_was_made_by_us_is_recorded_before_it_is_there(folder: Folder) -> None:
    class Watching(CountedRecords):
        async def put(self, resource_id: str, record: JsonRecord) -> None:
            assert not folder.path("/etc").exists()
            await super().put(resource_id, record)

    records = Watching()
    files = PosixFiles(str(folder.root), records=records, backups=MemoryBackups())
    await files.converge([MOTD], apply=True)
    assert records.all() == {"file:/etc/motd": {"existed": False}, "made-directory:/etc": {}}
    await files.close()


async def test_killed_between_record_and_write_it_is_made_and_then_removed(folder: Folder) -> None:
    await folder.records.put("file:/etc/motd", {"existed": False})
    assert (await folder.apply(MOTD))[0].actions == ("created",)
    (removed,) = await folder.files.remove(["/etc/motd"], apply=True)
    assert _change(removed).actions == ("removed",)


async def test_killed_between_removing_and_forgetting_it_is_forgotten_next_time(
    folder: Folder,
) -> None:
    await folder.apply(MOTD)
    folder.path("/etc/motd").unlink()
    await folder.files.remove(["/etc/motd"], apply=True)
    assert folder.records.all() == {}
    assert not folder.path("/etc").exists()


async def test_killed_at_any_step_of_a_taking_over_or_of_its_end_the_same_comes_back(
    folder: Folder,
) -> None:
    class Killed(Exception):
        pass

    class Kills(CountedRecords):
        left = -1

        async def put(self, resource_id: str, record: JsonRecord) -> None:
            self.step()
            await super().put(resource_id, record)

        async def forget(self, resource_id: str) -> None:
            self.step()
            await super().forget(resource_id)

        def step(self) -> None:
            self.left -= 1
            if self.left == 0:
                raise Killed

    motd, later = folder.path("/etc/motd"), MOTD.model_copy(update={"content": b"later\n"})
    motd.parent.mkdir()
    for dies_at in range(1, 8):
        motd.write_bytes(b"theirs\n")
        records, backups = Kills(), MemoryBackups()
        records.left = dies_at
        for life in range(2):
            files = PosixFiles(str(folder.root), records=records, backups=backups)
            try:
                for wish in (MOTD, later):
                    (result,) = await files.converge([wish], apply=True)
                    _change(result)
                (gone,) = await files.remove(["/etc/motd"], apply=True)
                _change(gone)
            except Killed:
                assert life == 0
            else:
                break
            finally:
                await files.close()
        assert motd.read_bytes() == b"theirs\n", f"killed at step {dies_at}"
        assert (records.all(), await backups.get("file:/etc/motd")) == ({}, None)


async def test_what_somebody_took_away_before_we_changed_it_does_not_come_back(
    folder: Folder,
) -> None:
    """Between being found and being written over, or as long as it was as wished by itself."""

    class TakenAway(CountedRecords):
        async def put(self, resource_id: str, record: JsonRecord) -> None:
            await super().put(resource_id, record)
            folder.path("/etc/motd").unlink(missing_ok=True)

    folder.path("/etc").mkdir()
    for content in (b"theirs\n", MOTD.content):
        assert isinstance(content, bytes)
        folder.path("/etc/motd").write_bytes(content)
        records = TakenAway()
        files = PosixFiles(str(folder.root), records=records, backups=MemoryBackups())
        await files.converge([MOTD], apply=True)
        (change,) = await files.converge([MOTD], apply=True)
        assert _change(change).actions == ()
        (removed,) = await files.remove(["/etc/motd"], apply=True)
        assert _change(removed).actions == ("removed",)
        assert not folder.path("/etc/motd").exists()
        assert records.all() == {}
        await files.close()


async def test_a_directory_that_is_made_again_while_it_goes_is_known_to_be_ours(
    folder: Folder,
) -> None:
    class Slow(CountedRecords):
        def __init__(self) -> None:
            super().__init__()
            self.may_forget = asyncio.Event()
            self.forgets = asyncio.Event()

        async def forget(self, resource_id: str) -> None:
            self.forgets.set()
            await self.may_forget.wait()
            await super().forget(resource_id)

    records, other = Slow(), File(path="/etc/other", content=b"")
    files = PosixFiles(str(folder.root), records=records, backups=MemoryBackups())
    await files.converge([MOTD], apply=True)
    going = asyncio.create_task(files.remove([MOTD.path], apply=True))
    await records.forgets.wait()
    assert not folder.path("/etc").exists()
    await files.converge([other], apply=True)
    records.may_forget.set()
    await going
    await files.remove([other.path], apply=True)
    assert not folder.path("/etc").exists()
    assert records.all() == {}
    await files.close()


async def test_another_agent_process_knows_from_the_records_what_may_go(folder: Folder) -> None:
    await folder.apply(MOTD)
    restarted = PosixFiles(str(folder.root), records=folder.records, backups=MemoryBackups())
    (removed,) = await restarted.remove(["/etc/motd"], apply=True)
    assert _change(removed).actions == ("removed",)
    await restarted.close()


async def test_nothing_is_recorded_when_nothing_changes(folder: Folder) -> None:
    await folder.apply(MOTD)
    folder.records.written.clear()
    await folder.apply(MOTD)
    await folder.apply(MOTD.model_copy(update={"content": b"other"}))
    assert folder.records.written == []


async def test_a_dry_run_records_nothing(folder: Folder) -> None:
    await folder.files.converge([MOTD], apply=False)
    await folder.files.remove(["/etc/motd"], apply=False)
    assert folder.records.written == []


async def test_a_file_that_became_a_directory_is_left(folder: Folder) -> None:
    await folder.apply(MOTD)
    folder.path("/etc/motd").unlink()
    folder.path("/etc/motd").mkdir()
    (removed,) = await folder.files.remove(["/etc/motd"], apply=True)
    assert _change(removed).actions != ()
    assert folder.path("/etc/motd").is_dir()


async def test_calls_made_side_by_side_share_one_pass(folder: Folder) -> None:
    wishes = [File(path=f"/srv/{n}", content=b"x") for n in range(200)]
    results = await asyncio.gather(*(folder.apply(wish) for wish in wishes))
    assert [result[0].actions for result in results] == [("created",)] * 200
    again = await asyncio.gather(*(folder.apply(wish) for wish in wishes))
    assert not any(result[0].changed for result in again)


async def test_two_scores_that_want_one_file_differently_do_not_disturb_each_other_s_answers(
    folder: Folder,
) -> None:
    first, second = await asyncio.gather(
        folder.apply(MOTD), folder.apply(MOTD.model_copy(update={"content": b"other\n"}))
    )
    assert first[0].actions == ("created",)
    assert second[0].changed
    assert folder.path("/etc/motd").read_bytes() == b"other\n"


async def test_a_change_in_the_same_tick_with_the_same_size_is_seen(folder: Folder) -> None:
    path = folder.path("/etc/motd")
    for _ in range(50):
        await folder.apply(MOTD)
        facts = path.stat()
        path.write_bytes(b"HELLO\n")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        await folder.apply(MOTD)
        assert path.read_bytes() == b"hello\n"


async def test_what_a_killed_agent_left_behind_is_swept_up(folder: Folder) -> None:
    left = folder.path("/etc/.harmony.0123456789abcdef.tmp")
    left.parent.mkdir()
    left.write_bytes(b"half")
    await folder.apply(MOTD)
    assert [each.name for each in left.parent.iterdir()] == ["motd"]


async def test_what_a_killed_agent_left_behind_goes_also_where_nothing_is_written_any_more(
    folder: Folder,
) -> None:
    async def killed_at_writing() -> PosixFiles:
        folder.path("/etc/.harmony.0123.4567.tmp").write_bytes(b"half")
        return PosixFiles(str(folder.root), records=folder.records, backups=MemoryBackups())

    await folder.apply(MOTD)
    again = await killed_at_writing()
    (as_it_was,) = await again.converge([MOTD], apply=True)
    assert _change(as_it_was).actions == ()
    assert [each.name for each in folder.path("/etc").iterdir()] == ["motd"]
    await again.close()

    again = await killed_at_writing()
    await again.remove(["/etc/motd"], apply=True)
    assert not folder.path("/etc").exists()
    await again.close()


async def test_an_original_of_which_no_record_speaks_is_not_kept_for_ever(folder: Folder) -> None:
    """Whoever kept it was killed before it was noted, or after it was needed for the last time."""
    folder.path("/etc").mkdir()
    folder.path("/etc/motd").write_bytes(b"theirs\n")
    backups = MemoryBackups()
    files = PosixFiles(str(folder.root), records=folder.records, backups=backups)
    for record in (None, {"existed": True}):
        if record is not None:
            await folder.records.put(MOTD.id, record)
        await backups.keep(MOTD.id, b"theirs\n")
        await files.remove([MOTD.path], apply=True)
        assert await backups.get(MOTD.id) is None
    assert folder.path("/etc/motd").read_bytes() == b"theirs\n"
    await files.close()


async def test_in_a_folder_files_belong_to_whoever_runs_this(folder: Folder) -> None:
    (change,) = await folder.apply(MOTD.model_copy(update={"owner": "nobody", "group": "nogroup"}))
    assert folder.path("/etc/motd").stat().st_uid == os.geteuid()
    state = await folder.files.observe("/etc/motd")
    assert isinstance(state, PresentAt)
    assert isinstance(change.after, PresentAt)
    assert (state.owner, state.group) == (change.after.owner, change.after.group)
    again = await folder.apply(MOTD.model_copy(update={"owner": "nobody", "group": "nogroup"}))
    assert not again[0].changed


@AS_ROOT
async def test_where_owners_are_checked_files_are_given_away_and_the_inode_stays(
    folder: Folder,
) -> None:
    files = PosixFiles(
        str(folder.root), records=folder.records, backups=MemoryBackups(), owner_checked=True
    )
    _put_users(folder.root, "root:x:0:0::/:/bin/sh\npi:x:1000:1000::/:/bin/sh\n", "pi:x:1000:\n")
    await files.converge([MOTD], apply=True)
    inode = folder.path("/etc/motd").stat().st_ino
    wish = MOTD.model_copy(update={"owner": "pi", "group": "pi"})
    (change,) = await files.converge([wish], apply=True)
    assert _change(change).actions == ("owner root → pi", "group root → pi")
    facts = folder.path("/etc/motd").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_ino) == (1000, 1000, inode)
    assert not _change((await files.converge([wish], apply=True))[0]).changed
    await files.close()


@AS_ROOT
async def test_an_owner_may_be_named_by_number(folder: Folder) -> None:
    files = PosixFiles(
        str(folder.root), records=folder.records, backups=MemoryBackups(), owner_checked=True
    )
    _put_users(folder.root, "pi:x:1000:1000::/:/bin/sh\n", "pi:x:1000:\n")
    wish = MOTD.model_copy(update={"owner": "1000", "group": "1000"})
    await files.converge([wish], apply=True)
    assert folder.path("/etc/motd").stat().st_uid == 1000
    assert not _change((await files.converge([wish], apply=True))[0]).changed
    await files.close()


async def test_an_owner_who_does_not_exist_is_named(folder: Folder) -> None:
    files = PosixFiles(
        str(folder.root), records=folder.records, backups=MemoryBackups(), owner_checked=True
    )
    wish = MOTD.model_copy(update={"owner": "ghost"})
    (error,) = await files.converge([wish], apply=True)
    assert isinstance(error, WriteFailed)
    assert "'ghost'" in error.message
    assert error.resource == "file:/etc/motd"
    assert not folder.path("/etc/motd").exists()
    await files.close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
async def test_a_secret_that_others_can_read_is_not_used(folder: Folder, mode: int) -> None:
    folder.secrets.mkdir()
    (folder.secrets / "wifi").write_bytes(b"hunter2")
    (folder.secrets / "wifi").chmod(mode)
    error = await folder.expect_refusal(_secret_file())
    assert isinstance(error, SecretMissing)
    assert "chmod 0600" in error.message
    assert not folder.path("/etc/wifi").exists()


async def test_a_secret_that_is_a_link_is_not_used(folder: Folder) -> None:
    folder.secrets.mkdir()
    (folder.secrets / "wifi").symlink_to("/etc/hostname")
    assert isinstance(await folder.expect_refusal(_secret_file()), SecretMissing)


@AS_ROOT
async def test_a_secret_that_somebody_else_owns_is_not_used(folder: Folder) -> None:
    folder.secrets.mkdir()
    (folder.secrets / "wifi").write_bytes(b"hunter2")
    (folder.secrets / "wifi").chmod(0o600)
    os.chown(folder.secrets / "wifi", 1000, 1000)
    error = await folder.expect_refusal(_secret_file())
    assert isinstance(error, SecretMissing)
    assert "chown root" in error.message


async def test_a_secret_that_changes_is_written_anew(folder: Folder) -> None:
    bystander = FolderBystander(folder.root, secrets_directory=folder.secrets)
    bystander.put_secret("wifi", b"one")
    await folder.apply(_secret_file())
    bystander.put_secret("wifi", b"two")
    (change,) = await folder.apply(_secret_file())
    assert change.changed
    assert folder.path("/etc/wifi").read_bytes() == b"two"


async def test_a_secret_s_hash_is_not_told_by_a_later_process_either(folder: Folder) -> None:
    FolderBystander(folder.root, secrets_directory=folder.secrets).put_secret("wifi", b"one")
    await folder.apply(_secret_file())
    restarted = PosixFiles(str(folder.root), records=folder.records, backups=MemoryBackups())
    state = await restarted.observe("/etc/wifi")
    assert isinstance(state, PresentAt)
    assert state.sha256 == ""
    await restarted.close()


async def test_a_secret_stays_one_while_it_could_not_be_written_over(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    FolderBystander(folder.root, secrets_directory=folder.secrets).put_secret("wifi", b"one")
    await folder.apply(_secret_file())

    def fail(*_: object) -> None:
        raise WriteFailed("no space left")

    plain = File(path="/etc/wifi", content=b"two")
    with monkeypatch.context() as full:
        full.setattr(Root, "write_many", fail)
        assert isinstance(await folder.expect_refusal(plain), WriteFailed)
    state = await folder.files.observe("/etc/wifi")
    assert isinstance(state, PresentAt)
    assert state.sha256 == ""
    (change,) = await folder.apply(plain)
    assert change.before == state
    assert change.actions == ("wrote 3 → 3 bytes", "mode 0600 → 0644")
    assert "secret" not in (folder.records.get("file:/etc/wifi") or {})


async def test_a_pipe_in_the_way_is_refused_and_not_waited_for(folder: Folder) -> None:
    folder.path("/etc").mkdir()
    os.mkfifo(folder.path("/etc/motd"))
    assert isinstance(await folder.expect_refusal(MOTD), UnsafePath)
    assert await folder.files.observe("/etc/motd") == NotAFile(kind="device, pipe or socket")


async def test_a_link_made_while_we_look_the_other_way_leads_nowhere(folder: Folder) -> None:
    outside = folder.root.parent / "outside"
    outside.mkdir()
    await folder.apply(File(path="/srv/a/motd", content=b"x"))
    folder.path("/srv/a").rename(folder.path("/srv/b"))
    folder.path("/srv/a").symlink_to(outside)
    error = await folder.expect_refusal(File(path="/srv/a/motd", content=b"y"))
    assert isinstance(error, UnsafePath)
    (removed,) = await folder.files.remove(["/srv/a/motd"], apply=True)
    assert isinstance(removed, UnsafePath)
    assert list(outside.iterdir()) == []


async def test_one_file_that_cannot_be_written_does_not_cost_the_others_of_its_batch(
    folder: Folder,
) -> None:
    largest = 1024 * 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        contents = (b"a", bytes(largest + 1), b"c")
        wishes = [File(path=f"/etc/{n}", content=c) for n, c in enumerate(contents)]
        results = await folder.files.converge(wishes, apply=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [isinstance(result, Change) for result in results] == [True, False, True]
    assert isinstance(results[1], WriteFailed)
    assert results[1].resource == "file:/etc/1"


async def test_more_files_than_a_process_may_open_are_written_in_one_call(folder: Folder) -> None:
    wishes = [File(path=f"/srv/{n % 10}/{n}", content=b"x") for n in range(600)]
    assert all(change.changed for change in await folder.apply(*wishes))
    assert not any(change.changed for change in await folder.apply(*wishes))


async def test_a_file_system_that_is_gone_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    files = PosixFiles(str(root), records=MemoryRecords(), backups=MemoryBackups())
    assert (await files.availability()).available
    root.rmdir()
    assert not (await files.availability()).available
    await files.close()


def _secret_file() -> File:
    return File(path="/etc/wifi", content=SecretRef(secret="wifi"), mode=0o600)


def _put_users(root: Path, passwd: str, group: str) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text(group)


class CountingRoot(Root):
    """Counts how often a file's content is read."""

    reads = 0

    def sha256(self, path: str) -> str:
        self.reads += 1
        return super().sha256(path)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        self.reads += 1
        return super().read(path, max_bytes=max_bytes)


def settled(root: Path) -> tuple[CountingRoot, FileBatches]:
    """What has been found right after the tick of the clock in which it was written."""
    counting = CountingRoot(str(root))
    passes = FileBatches(
        counting,
        is_ours=lambda _: True,
        was_secret=lambda _: False,
        makes_way=lambda _: False,
        secrets_directory="/none",
        secret_values=SecretValues(),
        assets=NoAssets(),
        owner_checked=False,
    )
    passes.converge([FileRequest(MOTD, apply=True)])
    while time.clock_gettime_ns(5) <= (root / "etc/motd").stat().st_ctime_ns:
        pass  # the coarse clock, which stamps files
    passes.converge([FileRequest(MOTD, apply=True)])
    return counting, passes


def test_a_file_that_has_not_changed_is_not_read(tmp_path: Path) -> None:
    root, passes = settled(tmp_path)
    assert root.reads == 1
    for _ in range(3):
        (change,) = passes.converge([FileRequest(MOTD, apply=True)]).results
        assert _change(change).actions == ()
    assert root.reads == 1
    root.close()


def test_a_file_that_was_changed_with_its_size_and_time_kept_is_read_and_put_right(
    tmp_path: Path,
) -> None:
    root, passes = settled(tmp_path)
    path = tmp_path / "etc/motd"
    before = path.stat()
    path.write_bytes(b"HELLO\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    (change,) = passes.converge([FileRequest(MOTD, apply=True)]).results
    assert _change(change).changed
    assert path.read_bytes() == b"hello\n"
    root.close()


def test_a_secret_that_could_not_be_read_this_time_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "wifi").write_bytes(b"s3cret")
    (tmp_path / "wifi").chmod(0o600)
    with no_descriptors_to_spare(), pytest.raises(WriteFailed, match="too many open files"):
        read_secret(str(tmp_path), "wifi")
    assert read_secret(str(tmp_path), "wifi") == b"s3cret"
    for directory in (tmp_path / "none", tmp_path / "wifi"):
        with pytest.raises(SecretMissing, match="holds no secret"):
            read_secret(str(directory), "wifi")


@AS_ROOT
async def test_where_the_list_of_users_cannot_be_read_nobody_is_called_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "etc/passwd").mkdir(parents=True)
    files = PosixFiles(
        str(tmp_path), records=MemoryRecords(), backups=MemoryBackups(), owner_checked=True
    )
    (error,) = await files.converge([owned_by("pi")], apply=True)
    assert isinstance(error, UnsafePath)
    assert "/etc/passwd is a directory" in error.message
    await files.close()


def owned_by(owner: str) -> File:
    return MOTD.model_copy(update={"owner": owner})


@contextmanager
def no_descriptors_to_spare() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What is open already stays so; what comes next finds nothing.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class RefusesOnce(MemoryRecords):
    """Refuses who asks first after something was put: as a disk that does not answer once."""

    is_due = False

    async def put(self, resource_id: str, record: JsonRecord) -> None:
        await super().put(resource_id, record)
        self.is_due = "wrote" not in record

    def get(self, resource_id: str) -> JsonRecord | None:
        if self.is_due:
            self.is_due = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().get(resource_id)


async def test_what_could_not_be_looked_at_is_not_written_over_without_a_backup(
    folder: Folder,
) -> None:
    folder.path("/etc").mkdir()
    folder.path("/etc/motd").write_bytes(b"theirs\n")
    backups = MemoryBackups()
    files = PosixFiles(str(folder.root), records=RefusesOnce(), backups=backups)
    (refused,) = await files.converge([MOTD], apply=True)
    assert isinstance(refused, WriteFailed)
    assert folder.path("/etc/motd").read_bytes() == b"theirs\n"
    (change,) = await files.converge([MOTD], apply=True)
    assert isinstance(change, Change)
    assert await backups.get(MOTD.id) == b"theirs\n"
    (removed,) = await files.remove(["/etc/motd"], apply=True)
    assert isinstance(removed, Change)
    assert folder.path("/etc/motd").read_bytes() == b"theirs\n"
    await files.close()


async def test_what_is_removed_at_the_same_time_shares_its_flushes(folder: Folder) -> None:
    files = [File(path=f"/etc/app/{number}", content=b"text\n") for number in range(40)]
    await folder.apply(*files)
    at_once, most = 0, 0
    forget = folder.records.forget

    async def forget_slowly(resource_id: str) -> None:
        nonlocal at_once, most
        at_once, most = at_once + 1, max(most, at_once + 1)
        for _ in range(3):
            await asyncio.sleep(0)
        await forget(resource_id)
        at_once -= 1

    folder.records.forget = forget_slowly  # type: ignore[method-assign] # each waits for a flush there
    removed = await asyncio.gather(
        *(folder.files.remove([file.path], apply=True) for file in files)
    )
    assert all(isinstance(each, Change) and each.changed for (each,) in removed)
    assert not folder.path("/etc/app").exists()
    assert most >= len(files) - 1
    assert folder.records.all() == {}
