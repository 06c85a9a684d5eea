"""Files and directories on file systems that do not keep what they are told: what is told of them is so.

As FAT, exFAT, CIFS, sshfs and NFS do: see `odd_disk`.
"""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    DidNotStick,
    TimedOut,
    UnsafePath,
    WriteFailed,
)
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import (
    Container,
    Directory,
    File,
    Mount,
    PresentAt,
    SecretRef,
    SystemdUnit,
)
from harmony_core.testing import (
    DirectoriesUnderTest,
    FilesUnderTest,
    Hearer,
    ModelessDirectoriesContract,
    ModelessFilesContract,
)
from harmony_pi_topology.common.path_calls import Call, Turns
from harmony_pi_topology.containers.reconciler import PodmanContainers
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.posix.hashing import HASHED_MAX_BYTES, sha256_of
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.unit_files import OnDisk, UnitFiles

from .folder import FolderBystander
from .odd_disk import end_what_serves, odd_disk
from .podman_stand_in import empty_podman, standing_in

FAT = ("fixed_mode=0755", "fixed_owner=0", "chmod=ignore", "chown=ignore")
STRICT_FAT = ("fixed_mode=0755", "fixed_owner=0", "chmod=refuse", "chown=refuse")
PATIENCE_S = 1.0
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, which only root may")


@pytest.fixture
async def fat(tmp_path: Path) -> AsyncGenerator[Device]:
    async with device(tmp_path, FAT) as here:
        yield here


class TestFilesOnFat(ModelessFilesContract):
    @pytest.fixture
    def host(self, fat: Device) -> FilesUnderTest:
        bystander = FolderBystander(fat.root, secrets_directory=fat.root)
        return FilesUnderTest(files=fat.files, bystander=bystander)


class TestDirectoriesOnFat(ModelessDirectoriesContract):
    @pytest.fixture
    def host(self, fat: Device) -> DirectoriesUnderTest:
        bystander = FolderBystander(fat.root, secrets_directory=fat.root)
        return DirectoriesUnderTest(directories=fat.directories, bystander=bystander)


@attrs.frozen
class Device:
    """A folder that stands for a device, with an odd disk at /stick."""

    root: Path
    files: PosixFiles
    directories: PosixDirectories

    @property
    def stick(self) -> Path:
        return self.root / "stick"

    async def file(self, **wish: object) -> Change | Exception:
        return (await self.files.converge([_file(**wish)], apply=True))[0]

    async def directory(self, **wish: object) -> Change | Exception:
        directory = Directory.model_validate({"path": "/stick/data", **wish})
        return (await self.directories.converge([directory], apply=True))[0]

    async def removed(self, path: str) -> Change | Exception:
        return (await self.files.remove([path], apply=True))[0]


@contextmanager
def immutable(path: Path) -> Generator[None]:
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no attributes")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


HOLES_BYTES = 400 * 10**9


def make_holes(path: Path, size_bytes: int = HOLES_BYTES) -> None:
    """Put a file of that size in *path*'s place, by a rename."""
    with path.with_name("holes-in-the-making").open("wb") as file:
        file.truncate(size_bytes)
    path.with_name("holes-in-the-making").rename(path)


def _file(**wish: object) -> File:
    return File.model_validate({"path": "/stick/token", "content": b"a=1\nb=2\n", **wish})


@asynccontextmanager
async def device(folder: Path, habits: Sequence[str]) -> AsyncGenerator[Device]:
    root, secrets = folder / "root", folder / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "key").write_bytes(b"s3cret\n")
    (secrets / "key").chmod(0o600)
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:\npi:x:1000:1000::/:\n")
    (root / "etc/group").write_text("root:x:0:\npi:x:1000:\n")
    records = MemoryRecords()
    with odd_disk(root / "stick", *habits):
        files = PosixFiles(
            str(root),
            records=records,
            backups=MemoryBackups(),
            secrets_directory=str(secrets),
            owner_checked=True,
            patience_s=PATIENCE_S,
        )
        directories = PosixDirectories(
            str(root), records=records, owner_checked=True, patience_s=PATIENCE_S
        )
        try:
            yield Device(root, files, directories)
        finally:
            await files.close()
            await directories.close()


def done(result: Change | Exception) -> Change:
    assert isinstance(result, Change), result
    return result


def not_kept(result: Change | Exception) -> DidNotStick:
    assert isinstance(result, DidNotStick), result
    return result


@pytest.mark.parametrize("habits", [FAT, STRICT_FAT], ids=["ignoring", "refusing"])
async def test_a_mode_that_is_not_kept_is_told_with_the_one_to_wish_for(
    tmp_path: Path, habits: Sequence[str]
) -> None:
    async with device(tmp_path, habits) as here:
        error = not_kept(await here.file(mode=0o600))
        assert (error.field, error.wanted, error.found) == ("mode", "0600", "0755")
        assert error.resource == "file:/stick/token"
        assert "fuse.odd" in error.message
        assert "ask for mode 0755" in error.message
        assert os.listdir(here.stick) == []
        change = done(await here.file(mode=0o755))
        assert change.after == await here.files.observe("/stick/token")
        assert done(await here.file(mode=0o755)).actions == ()
        # And what is there is not lost to a later wish that cannot be.
        not_kept(await here.file(mode=0o600, content=b"other"))
        not_kept(await here.file(mode=0o600))
        assert (here.stick / "token").read_bytes() == b"a=1\nb=2\n"


@pytest.mark.parametrize("habits", [FAT, STRICT_FAT], ids=["ignoring", "refusing"])
async def test_an_owner_who_is_not_kept_is_told(tmp_path: Path, habits: Sequence[str]) -> None:
    async with device(tmp_path, habits) as here:
        error = not_kept(await here.file(mode=0o755, owner="pi"))
        assert (error.field, error.wanted, error.found) == ("owner", "pi", "root")
        assert ": owner pi did not stick, root is found" in error.message
        error = not_kept(await here.file(mode=0o755, group="pi"))
        assert (error.field, error.found) == ("group", "root")
        error = not_kept(await here.directory(owner="pi"))
        assert (error.field, error.found, error.resource) == (
            "owner",
            "root",
            "directory:/stick/data",
        )


@pytest.mark.parametrize("habits", [FAT, STRICT_FAT], ids=["ignoring", "refusing"])
async def test_a_directory_s_mode_that_is_not_kept_is_told(
    tmp_path: Path, habits: Sequence[str]
) -> None:
    async with device(tmp_path, habits) as here:
        error = not_kept(await here.directory(path="/stick/deep/data", mode=0o700))
        assert (error.field, error.wanted, error.found) == ("mode", "0700", "0755")
        change = done(await here.directory(path="/stick/deep/data"))
        assert change.after == await here.directories.observe("/stick/deep/data")
        assert not change.changed


async def test_a_mask_of_the_file_system_is_no_drift_for_ever(tmp_path: Path) -> None:
    """As CIFS with ``file_mode``, or FAT with ``umask``: some modes stick and some do not."""
    async with device(tmp_path, ("mask=+0044",)) as here:
        error = not_kept(await here.file(mode=0o600))
        assert (error.wanted, error.found) == ("0600", "0644")
        done(await here.file(mode=0o644))
        error = not_kept(await here.file(mode=0o400))
        assert (error.wanted, error.found) == ("0400", "0444")


async def test_a_squashed_owner_is_told_and_not_a_missing_right(tmp_path: Path) -> None:
    """As NFS, where root is nobody."""
    async with device(tmp_path, ("fixed_owner=65534", "chown=refuse")) as here:
        error = not_kept(await here.file())
        assert (error.field, error.wanted, error.found) == ("owner", "root", "65534")
        done(await here.file(owner="65534", group="65534"))


async def test_a_mode_that_comes_with_the_name_is_seen(tmp_path: Path) -> None:
    async with device(tmp_path, ("executable=.sh", "chmod=ignore", "fixed_owner=0")) as here:
        error = not_kept(await here.file(path="/stick/run.sh", mode=0o600))
        assert (error.wanted, error.found) == ("0600", "0777")


@pytest.mark.parametrize("habit", ["crlf", "upper"])
async def test_content_that_is_kept_otherwise_is_told_and_the_old_file_is_intact(
    tmp_path: Path, habit: str
) -> None:
    async with device(tmp_path, (f"content={habit}",)) as here:
        (here.stick / "token").write_bytes(b"12345")
        error = not_kept(await here.file(discard_previous=True))
        assert error.field == "content"
        assert (here.stick / "token").read_bytes() == b"12345"
        assert os.listdir(here.stick) == ["token"]


async def test_a_secret_is_never_written_where_its_mode_is_not_kept(tmp_path: Path) -> None:
    async with device(tmp_path, (*FAT, "unlink=ignore")) as here:
        error = not_kept(await here.file(content=SecretRef(secret="key"), mode=0o600))
        assert "s3cret" not in error.message
        assert os.listdir(here.stick) == []


async def test_a_file_that_stays_though_it_was_removed_is_told(tmp_path: Path) -> None:
    async with device(tmp_path, ("unlink=ignore",)) as here:
        done(await here.file())
        error = await here.removed("/stick/token")
        assert isinstance(error, WriteFailed)
        assert "is there all the same" in error.message
        assert isinstance(await here.files.observe("/stick/token"), PresentAt)


@pytest.mark.parametrize("number", ["EBUSY", "EPERM", "EROFS", "EIO"])
async def test_a_directory_that_cannot_be_removed_is_no_directory_with_something_in_it(
    tmp_path: Path, number: str
) -> None:
    async with device(tmp_path, (f"rmdir={number}",)) as here:
        done(await here.directory())
        done(await here.file(path="/stick/made/token"))
        for _ in range(2):  # nothing is forgotten, so it is tried again
            (error,) = await here.directories.remove(["/stick/data"], apply=True)
            assert isinstance(error, WriteFailed)
            assert error.resource == "directory:/stick/data"
            error = await here.removed("/stick/made/token")
            assert isinstance(error, WriteFailed)
            assert "/stick/made could not be removed" in error.message
        assert sorted(os.listdir(here.stick)) == ["data", "made"]
        assert os.listdir(here.stick / "made") == []


@AS_ROOT
async def test_another_name_of_the_same_file_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    async with device(tmp_path, ()) as here:
        ours, theirs = here.root / "etc/app.conf", here.root / "etc/theirs"
        ours.write_bytes(b"a=1\nb=2\n")
        os.link(ours, theirs)
        before = theirs.stat()
        wish = {"path": "/etc/app.conf", "mode": 0o600, "owner": "pi", "group": "pi"}
        assert isinstance(await here.file(**wish), UnsafePath)  # it could not be put back
        change = done(await here.file(**wish, discard_previous=True))
        assert change.actions == ("mode 0644 → 0600", "owner root → pi", "group root → pi")
        after = theirs.stat()
        assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
        assert stat.S_IMODE(ours.stat().st_mode) == 0o600
        assert ours.read_bytes() == theirs.read_bytes()
        done(await here.removed("/etc/app.conf"))
        assert not ours.exists()
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o644


@AS_ROOT
async def test_what_is_immutable_is_called_so(tmp_path: Path) -> None:
    async with device(tmp_path, ()) as here:
        path = here.root / "etc/app.conf"
        path.write_bytes(b"a=1\nb=2\n")
        with immutable(path):
            error = await here.file(path="/etc/app.conf", mode=0o600)
        assert isinstance(error, CapabilityError)
        assert "chattr -ia /etc/app.conf" in error.message


async def test_what_hangs_keeps_neither_other_paths_waiting_nor_a_second_thread(
    tmp_path: Path,
) -> None:
    async with device(tmp_path, ()) as here:
        hanging, other = _file(path="/stick/hang"), _file(path="/etc/other")
        stuck, fine = await here.files.converge([hanging, other], apply=True)
        assert isinstance(stuck, CapabilityUnavailable)
        assert str(here.stick) in stuck.message
        done(fine)
        (here.root / "etc/other").write_bytes(b"tampered")
        # More threads than there are would hang by now, if each question were asked.
        for n in range(8):
            again = await here.file(path=f"/stick/{n}")
            assert isinstance(again, CapabilityUnavailable)
            assert isinstance(await here.removed(f"/stick/hang{n}"), CapabilityUnavailable)
            with pytest.raises(CapabilityUnavailable):
                await here.files.observe(f"/stick/{n}")
        assert (await here.files.availability()).available
        assert done((await here.files.converge([other], apply=True))[0]).changed
        done(await here.removed("/etc/other"))


async def test_a_directory_that_hangs_keeps_no_other_waiting(tmp_path: Path) -> None:
    async with device(tmp_path, ()) as here:
        assert isinstance(await here.directory(path="/stick/hang"), TimedOut)
        for n in range(8):
            assert isinstance(await here.directory(path=f"/stick/{n}"), CapabilityUnavailable)
        done(await here.directory(path="/etc/data"))


async def test_what_hangs_is_not_watched_and_all_else_is(tmp_path: Path) -> None:
    async with device(tmp_path, ()) as here:
        done(await here.file(path="/etc/other"))
        told = Hearer()
        for keys in (["/stick/hang/x", "/etc/other"], ["/etc/other", "/stick/hang/x", "/stick/y"]):
            with pytest.raises(CapabilityUnavailable, match="hangs"):
                await here.files.watch(keys, told)
            (here.root / "etc/other").write_bytes(b"tampered")
            await told.hears("/etc/other")
        end_what_serves(here.stick)
        while not (await here.files.availability()).available or None not in told.heard:
            await asyncio.sleep(0.01)  # mended as soon as it answers
        told.heard.clear()
        (here.stick / "y").write_bytes(b"made")
        await told.hears("/stick/y")


async def test_what_hung_is_told_of_also_where_its_ways_are_sought_for_another_reason(
    tmp_path: Path,
) -> None:
    async with device(tmp_path, ()) as here:
        done(await here.file(path="/etc/other"))
        told = Hearer()
        with pytest.raises(CapabilityUnavailable, match="hangs"):
            await here.files.watch(["/stick/hang/x", "/etc/other"], told)
        end_what_serves(here.stick)
        while isinstance(await here.file(path="/stick/y"), CapabilityUnavailable):
            await asyncio.sleep(0.01)
        (here.root / "etc").rename(here.root / "old")
        while None not in told.heard:
            await asyncio.sleep(0.01)


async def test_what_answers_again_is_looked_at_again(tmp_path: Path) -> None:
    async with device(tmp_path, ()) as here:
        assert isinstance(await here.file(path="/stick/hang"), CapabilityUnavailable)
        end_what_serves(here.stick)
        # Its call ends with an error, and then this is a folder like any other.
        while isinstance(result := await here.file(path="/stick/hang"), CapabilityUnavailable):
            await asyncio.sleep(0.01)
        done(result)


async def test_a_file_of_any_size_in_the_place_of_ours_costs_nothing(tmp_path: Path) -> None:
    """A file of holes: 400 GB, made in no time by anybody."""
    async with device(tmp_path, ()) as here:
        path = here.root / "etc/app.conf"
        for is_ours in (True, False):
            if not is_ours:
                path.write_bytes(b"theirs")
            done(await here.file(path="/etc/app.conf"))
            make_holes(path)
            found = await here.files.observe("/etc/app.conf")
            assert isinstance(found, PresentAt)
            assert (found.size_bytes, found.sha256) == (HOLES_BYTES, "")
            change = done(await here.file(path="/etc/app.conf"))
            assert change.actions == (f"wrote {HOLES_BYTES} → 8 bytes",)
            assert path.read_bytes() == b"a=1\nb=2\n"
            make_holes(path)
            removed = done(await here.removed("/etc/app.conf"))
            assert removed.actions == (
                ("removed",) if is_ours else ("left: somebody changed it since",)
            )
        path.unlink()


def test_a_hash_of_the_largest_size_ends_as_soon_as_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1024 * 1024)
    descriptor = os.open(tmp_path / "large", os.O_RDONLY)
    turns, ended = Turns(), threading.Event()

    def hash_for_ever() -> None:
        try:
            with turns.take():
                while True:
                    sha256_of(descriptor, "/large")
        except TimedOut:
            ended.set()

    call = Call()
    thread = threading.Thread(target=lambda: call.run(hash_for_ever))
    thread.start()
    while call.steps == 0:
        pass
    call.is_given_up = True
    with turns.take():  # also who waits for the turn goes on
        assert ended.wait(60)
    thread.join()
    os.close(descriptor)


def test_nothing_is_hashed_beyond_the_stated_size(tmp_path: Path) -> None:
    make_holes(tmp_path / "holes")
    with Root(str(tmp_path)) as root, pytest.raises(UnsafePath, match="64 MiB"):
        root.sha256("/holes")
    make_holes(tmp_path / "holes", HASHED_MAX_BYTES)
    with Root(str(tmp_path)) as root:
        assert len(root.sha256("/holes")) == 64


async def test_a_unit_that_uses_what_hangs_keeps_no_other_unit_waiting(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    stuck = SystemdUnit(name="stuck.service", uses=("/stick/hang",))
    fine = SystemdUnit(name="fine.service", uses=("/etc/fine.conf",))
    with odd_disk(tmp_path / "stick"), Root(str(tmp_path)) as root:
        units = UnitFiles(root, "/etc", patience_s=PATIENCE_S)
        for _ in range(8):
            read = await units.read([stuck, fine])
            assert isinstance(read[0], CapabilityUnavailable)
            assert isinstance(read[1], OnDisk)
        units.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"mounts": (Mount(source="/stick/hang", target="/data"),)},
        {"mounts": (Mount(source="/stick/hang/below", target="/data", live=True),)},
        {"uses": ("/stick/hang",)},
    ],
    ids=str,
)
async def test_a_container_on_what_hangs_keeps_no_other_container_waiting(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    stuck = Container.model_validate({"name": "stuck", "image": "registry.test/a:1", **fields})
    fine = Container(name="fine", image="registry.test/a:1", uses=("/fine.conf",))
    (tmp_path / "fine.conf").write_bytes(b"")
    async with standing_in(tmp_path, empty_podman) as url:
        with odd_disk(tmp_path / "stick"):
            containers = PodmanContainers(url, root=tmp_path, patience_s=PATIENCE_S)
            first, change = await containers.converge([stuck, fine], apply=False)
            assert isinstance(first, TimedOut)
            assert str(tmp_path / "stick") in first.message
            assert isinstance(change, Change)
            again: Change | Exception = first
            for _ in range(8):
                again, change = await containers.converge([stuck, fine], apply=False)
                assert isinstance(again, CapabilityUnavailable)
                assert again.resource == stuck.id
                assert isinstance(change, Change)
            end_what_serves(tmp_path / "stick")
            while isinstance(again, CapabilityUnavailable):
                await asyncio.sleep(0.01)
                (again,) = await containers.converge([stuck], apply=False)
            await containers.close()


async def test_however_many_ask_at_once_for_what_hangs_the_others_are_answered(
    tmp_path: Path,
) -> None:
    async with device(tmp_path, ()) as here:
        done(await here.file(path="/etc/other"))
        asked = [f"/stick/hang{n}" for n in range(40)]
        answers = await asyncio.gather(
            *map(here.files.observe, [*asked, "/etc/other"]),
            *(here.directory(path=path) for path in asked),
            here.directory(path="/etc/data"),
            return_exceptions=True,
        )
        assert all(isinstance(each, CapabilityError) for each in answers[:40])
        assert isinstance(answers[40], PresentAt)
        assert all(isinstance(each, CapabilityError) for each in answers[41:-1])
        assert isinstance(answers[-1], Change)
