"""What a file has beyond content, mode and owner comes back with what was there, or is refused by name."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import PriorTooLarge, UnsafePath
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Directory, File, SystemdUnit
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles
from harmony_pi_topology.posix.extras import flags_of
from harmony_pi_topology.posix.root import Root
from harmony_pi_topology.systemd.unit_files import UnitFiles

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="sets what only root may")
ACL, DEFAULT_ACL, CAPABILITY = (
    "system.posix_acl_access",
    "system.posix_acl_default",
    "security.capability",
)
DENIES_NOBODY = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in (
        (0x01, 6, 2**32 - 1),
        (0x02, 0, 65534),
        (0x04, 4, 2**32 - 1),
        (0x10, 4, 2**32 - 1),
        (0x20, 4, 2**32 - 1),
    )
)
"""As ``setfacl -m u:nobody:---`` makes it of mode 0644."""
NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""As ``setcap cap_net_raw+ep`` makes it."""
NO_DUMP, NO_ATIME, IMMUTABLE, APPEND_ONLY = 0x40, 0x80, 0x10, 0x20
SET_FLAGS = 0x40086602
LONG_AGO_NS = 1_000_000_000 * 10**9


@attrs.frozen
class Device:
    root: Path
    records: MemoryRecords
    files: PosixFiles

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    async def apply(self, file: File) -> Change:
        (result,) = await self.files.converge([file], apply=True)
        assert isinstance(result, Change), result
        return result

    async def plan(self, file: File) -> Change | Exception:
        (result,) = await self.files.converge([file], apply=False)
        return result

    async def remove(self, path: str) -> Change:
        (result,) = await self.files.remove([path], apply=True)
        assert isinstance(result, Change), result
        return result


@pytest.fixture
async def device(tmp_path: Path) -> AsyncGenerator[Device]:
    root, records = tmp_path / "root", MemoryRecords()
    (root / "srv").mkdir(parents=True)
    files = PosixFiles(str(root), records=records, backups=MemoryBackups())
    yield Device(root, records, files)
    await files.close()


def there(device: Device, name: str = "/srv/f") -> Path:
    path = device.path(name)
    path.write_bytes(b"old\n")
    path.chmod(0o644)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def set_flags(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("l", flags_of(descriptor) & ~0xF0 | flags))
    except OSError as error:
        pytest.skip(f"this file system keeps no flags: {error}")
    finally:
        os.close(descriptor)


def flags_at(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return flags_of(descriptor)
    finally:
        os.close(descriptor)


NEW = File(path="/srv/f", content=b"new\n")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param(ACL, DENIES_NOBODY, "access control list", marks=AS_ROOT),
        pytest.param(CAPABILITY, NET_RAW, "file capabilities", marks=AS_ROOT),
        ("user.note", b"x", "attribute user.note"),
        pytest.param("trusted.note", b"\x00\xff", "attribute trusted.note", marks=AS_ROOT),
    ],
)
async def test_an_attribute_is_told_and_comes_back(
    device: Device, name: str, value: bytes, words: str
) -> None:
    path = there(device)
    os.setxattr(path, name, value)
    planned = await device.plan(NEW)
    assert isinstance(planned, Change)
    assert f"removed the {words} of what was there" in planned.actions
    assert (await device.apply(NEW)).actions == planned.actions
    assert name not in os.listxattr(path)
    assert (await device.apply(NEW)).actions == ()
    assert (await device.remove("/srv/f")).actions == ("put back what was there before",)
    assert (path.read_bytes(), os.getxattr(path, name)) == (b"old\n", value)
    assert path.stat().st_mode & 0o777 == 0o644


async def test_the_time_of_the_last_change_comes_back(device: Device) -> None:
    path = there(device)
    await device.apply(NEW)
    await device.remove("/srv/f")
    assert path.stat().st_mtime_ns == LONG_AGO_NS


@AS_ROOT
async def test_flags_come_back(device: Device) -> None:
    path = there(device)
    set_flags(path, NO_DUMP | NO_ATIME)
    await device.apply(NEW)
    assert not flags_at(path) & (NO_DUMP | NO_ATIME)
    await device.remove("/srv/f")
    assert flags_at(path) & 0xF0 == NO_DUMP | NO_ATIME


@AS_ROOT
@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
async def test_what_must_not_be_replaced_is_refused_before_anything_is_touched(
    device: Device, flag: int
) -> None:
    path = there(device)
    set_flags(path, flag)
    try:
        for apply in (False, True):
            (refused,) = await device.files.converge([NEW], apply=apply)
            assert isinstance(refused, UnsafePath)
            assert "run: chattr -ia /srv/f" in refused.message
        assert path.read_bytes() == b"old\n"
    finally:
        set_flags(path, 0)


@pytest.mark.parametrize("mode_only", [False, True])
async def test_a_file_with_another_name_is_refused_unless_it_may_go(
    device: Device, mode_only: bool
) -> None:
    path, other = there(device), device.path("/srv/other")
    os.link(path, other)
    wish = NEW.model_copy(update={"content": b"old\n", "mode": 0o600}) if mode_only else NEW
    for apply in (False, True):
        (refused,) = await device.files.converge([wish], apply=apply)
        assert isinstance(refused, UnsafePath)
        assert "one of 2 names" in refused.message
    assert path.samefile(other)
    await device.apply(wish.model_copy(update={"discard_previous": True}))
    assert (other.read_bytes(), other.stat().st_nlink) == (b"old\n", 1)


async def test_another_name_that_somebody_gives_to_our_own_file_stands_in_nobody_s_way(
    device: Device,
) -> None:
    await device.apply(NEW)
    os.link(device.path("/srv/f"), device.path("/srv/other"))
    await device.apply(NEW.model_copy(update={"content": b"newer\n"}))
    assert device.path("/srv/other").read_bytes() == b"new\n"


async def test_special_bits_are_refused_in_a_plan_too(device: Device) -> None:
    there(device).chmod(0o4755)
    assert isinstance(await device.plan(NEW), UnsafePath)


async def test_more_attributes_than_are_kept_are_refused(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_pi_topology.posix.extras._KEPT_MAX_BYTES", 100)
    os.setxattr(there(device), "user.note", b"x" * 101)
    assert isinstance(await device.plan(NEW), PriorTooLarge)


@AS_ROOT
async def test_where_only_the_mode_is_changed_the_rest_stays_and_is_not_called_gone(
    device: Device,
) -> None:
    path = there(device)
    os.setxattr(path, "user.note", b"x")
    change = await device.apply(File(path="/srv/f", content=b"old\n", mode=0o600))
    assert change.actions == ("mode 0644 → 0600",)
    assert os.getxattr(path, "user.note") == b"x"
    await device.remove("/srv/f")
    assert os.getxattr(path, "user.note") == b"x"


async def test_content_that_is_back_already_by_our_own_hand_is_not_taken_for_the_whole(
    device: Device,
) -> None:
    path = there(device)
    os.setxattr(path, "user.note", b"x")
    await device.apply(NEW)
    await device.apply(NEW.model_copy(update={"content": b"old\n"}))
    await device.remove("/srv/f")
    assert os.getxattr(path, "user.note") == b"x"


@AS_ROOT
async def test_what_the_directory_gives_to_new_files_is_not_given_to_what_is_put_back(
    device: Device,
) -> None:
    path = there(device)
    os.setxattr(device.path("/srv"), DEFAULT_ACL, DENIES_NOBODY)
    await device.apply(NEW)
    await device.remove("/srv/f")
    assert ACL not in os.listxattr(path)


async def test_what_an_agent_kept_that_knew_no_extras_is_put_back(tmp_path: Path) -> None:
    root, records, backups = tmp_path / "root", MemoryRecords(), MemoryBackups()
    (root / "srv").mkdir(parents=True)
    device = Device(root, records, PosixFiles(str(root), records=records, backups=backups))
    there(device)
    await device.apply(NEW)
    record = dict(records.get("file:/srv/f") or {})
    prior = {name: record["prior"][name] for name in ("mode", "uid", "gid")}
    await records.put("file:/srv/f", {**record, "prior": prior})
    await device.remove("/srv/f")
    assert device.path("/srv/f").read_bytes() == b"old\n"
    await device.files.close()


@AS_ROOT
async def test_a_directory_keeps_the_lists_that_it_has_and_gives(tmp_path: Path) -> None:
    there, root = tmp_path / "data", str(tmp_path)
    there.mkdir(mode=0o755)
    os.setxattr(there, ACL, DENIES_NOBODY)
    os.setxattr(there, DEFAULT_ACL, DENIES_NOBODY)
    there.chmod(0o755)
    before = {name: os.getxattr(there, name) for name in os.listxattr(there)}
    directories = PosixDirectories(root, records=MemoryRecords())
    await directories.converge([Directory(path="/data", mode=0o700)], apply=True)
    await directories.remove(["/data"], apply=True)
    assert {name: os.getxattr(there, name) for name in os.listxattr(there)} == before
    await directories.close()


async def test_a_unit_file_s_extras_are_read_written_and_refused(tmp_path: Path) -> None:
    unit = SystemdUnit(name="a.service", content="[Service]\nExecStart=/bin/true\n")
    path = tmp_path / "a.service"
    path.write_text("[Service]\n")
    os.setxattr(path, "user.note", b"x")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    with Root(str(tmp_path)) as root:
        files = UnitFiles(root, "/")
        (on_disk,) = await files.read([unit])
        assert not isinstance(on_disk, Exception)
        assert on_disk.unrestorable is None
        path.unlink()
        await files.put_back("a.service", b"[Service]\n", on_disk.attributes)
        assert os.getxattr(path, "user.note") == b"x"
        assert path.stat().st_mtime_ns == LONG_AGO_NS
        os.link(path, tmp_path / "other")
        (on_disk,) = await files.read([unit])
        assert not isinstance(on_disk, Exception)
        assert isinstance(on_disk.unrestorable, UnsafePath)
        files.close()
