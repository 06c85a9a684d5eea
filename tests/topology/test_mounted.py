"""Files and directories on a disk of their own, and what becomes of them while it is away. Real mounts."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_core.change import Change
from harmony_core.errors import MountMissing
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.resources import Directory, File, MountPoint, PresentAt
from harmony_core.testing import Hearer
from harmony_pi_topology.common.mounted import MountGuard, OnMounts
from harmony_pi_topology.directories.posix import PosixDirectories
from harmony_pi_topology.files.reconciler import PosixFiles

CONF = File(path="/srv/usb/app/conf", content=b"x\n")
OTHER = File(path="/etc/other", content=b"y\n")


def shell(*argv: str) -> None:
    subprocess.run(argv, check=True)


@attrs.frozen
class Disk:
    """A folder that stands for a device, with a disk that can be pulled."""

    root: Path
    records: MemoryRecords
    files: OnMounts[File, Any]
    directories: OnMounts[Directory, Any]

    @property
    def point(self) -> Path:
        return self.root / "srv/usb"

    def mount(self) -> None:
        self.point.mkdir(parents=True, exist_ok=True)
        shell("mount", "-t", "tmpfs", "-o", "mode=755", "usbdisk", str(self.point))

    def pull(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.point)], check=False, capture_output=True)

    async def apply(self, *files: File) -> list[Any]:
        return list(await self.files.converge(files, apply=True))


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncGenerator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    records = MemoryRecords()
    files = PosixFiles(str(tmp_path), records=records, backups=MemoryBackups())
    directories = PosixDirectories(str(tmp_path), records=records)
    disk = Disk(
        tmp_path,
        records,
        OnMounts(files, MountGuard(str(tmp_path), records)),
        OnMounts(directories, MountGuard(str(tmp_path), records)),
    )
    disk.mount()
    yield disk
    disk.pull()
    await disk.files.close()
    await disk.directories.close()


async def test_nothing_is_written_beneath_a_disk_that_was_pulled_and_the_rest_goes_on(
    disk: Disk,
) -> None:
    assert [type(each) for each in await disk.apply(CONF)] == [Change]
    disk.pull()
    missing, other = await disk.apply(CONF, OTHER)
    assert isinstance(missing, MountMissing)
    assert missing.point == str(disk.point)
    assert missing.resource == CONF.id
    assert isinstance(other, Change)
    assert list(disk.point.iterdir()) == []
    with pytest.raises(MountMissing):
        await disk.files.observe(CONF.path)


async def test_who_asks_while_the_mounts_are_read_anew_is_told_of_the_pulled_disk_too(
    disk: Disk,
) -> None:
    second = CONF.model_copy(update={"path": "/srv/usb/app/second"})
    await disk.apply(CONF, second)
    disk.pull()
    results = await asyncio.gather(disk.apply(CONF), disk.apply(second), disk.apply(CONF))
    assert [type(result) for (result,) in results] == [MountMissing] * 3
    assert not (disk.point / "app").exists()


async def test_a_disk_that_is_back_is_gone_on_with_whatever_is_on_it(disk: Disk) -> None:
    await disk.apply(CONF)
    disk.pull()
    assert isinstance((await disk.apply(CONF))[0], MountMissing)
    disk.mount()  # another one: nothing is on it
    (change,) = await disk.apply(CONF)
    assert isinstance(change.after, PresentAt)
    assert (disk.point / "app/conf").read_bytes() == b"x\n"


async def test_what_is_on_a_disk_that_is_away_is_not_forgotten_but_removed_when_it_is_back(
    disk: Disk,
) -> None:
    await disk.apply(CONF)
    kept = disk.root / "kept"
    kept.mkdir()
    shell("mount", "--bind", str(disk.point), str(kept))
    try:
        disk.pull()
        (result,) = await disk.files.remove([CONF.path], apply=True)
        assert isinstance(result, MountMissing)
        assert (kept / "app/conf").exists()
        shell("mount", "--bind", str(kept), str(disk.point))
        (result,) = await disk.files.remove([CONF.path], apply=True)
        assert isinstance(result, Change)
        assert not (kept / "app").exists()
    finally:
        shell("umount", "--lazy", str(kept))


async def test_a_directory_on_it_is_not_made_beneath_either_but_the_mount_point_itself_may_be(
    disk: Disk,
) -> None:
    on_it, point = Directory(path="/srv/usb/data"), Directory(path="/srv/usb")
    assert [type(each) for each in await disk.directories.converge([on_it, point], apply=True)] == [
        Change,
        Change,
    ]
    disk.pull()
    missing, made = await disk.directories.converge([on_it, point], apply=True)
    assert isinstance(missing, MountMissing)
    assert isinstance(made, Change)
    assert list(disk.point.iterdir()) == []


async def test_who_has_lost_the_disk_for_good_mounts_the_directory_on_itself(disk: Disk) -> None:
    await disk.apply(CONF)
    disk.pull()
    (missing,) = await disk.apply(CONF)
    command = str(missing).rpartition("run: ")[2]
    shell(*command.split())
    (result,) = await disk.files.remove([CONF.path], apply=True)
    assert isinstance(result, Change)


async def test_nothing_is_written_beneath_a_mount_point_of_a_score_that_was_never_mounted(
    disk: Disk,
) -> None:
    point = MountPoint(where="/srv/score", what="UUID=1")
    below = File(path="/srv/score/app/conf", content=b"x\n")
    await disk.records.put(point.id, {"source": point.source_path})
    missing, other = await disk.apply(below, OTHER)
    assert isinstance(missing, MountMissing)
    assert missing.point == point.where
    assert isinstance(other, Change)
    (error,) = await disk.files.remove([below.path], apply=True)
    assert isinstance(error, MountMissing)
    at = disk.root / "srv/score"
    assert not at.exists()
    at.mkdir()
    shell("mount", "-t", "tmpfs", "-o", "mode=755", "score", str(at))
    try:
        assert isinstance((await disk.apply(below))[0], Change)
    finally:
        shell("umount", "--lazy", str(at))
    await disk.records.forget(point.id)
    assert isinstance((await disk.apply(OTHER))[0], Change)


async def test_nothing_is_remembered_of_what_is_on_the_root_file_system(disk: Disk) -> None:
    await disk.apply(OTHER)
    assert disk.records.get(f"mount:{OTHER.id}") is None


async def test_pulling_the_disk_is_heard(disk: Disk) -> None:
    await disk.apply(CONF)
    told = Hearer()
    await disk.files.watch([CONF.path], told)
    disk.pull()
    await told.hears(CONF.path)


async def test_what_was_made_before_something_was_mounted_over_it_is_ours_once_that_is_gone(
    disk: Disk,
) -> None:
    disk.pull()
    await disk.apply(CONF)
    disk.mount()
    (above,) = await disk.apply(CONF)
    assert isinstance(above, Change)
    disk.pull()
    (beneath,) = await disk.apply(CONF)
    assert isinstance(beneath, Change)
    assert not beneath.changed
    (removed,) = await disk.files.remove([CONF.path], apply=True)
    assert isinstance(removed, Change)
    assert not (disk.point / "app").exists()


async def test_what_is_mounted_over_a_part_of_a_disk_takes_nothing_from_that(disk: Disk) -> None:
    await disk.apply(CONF)
    nested = disk.point / "app"
    shell("mount", "-t", "tmpfs", "-o", "mode=755", "nested", str(nested))
    await disk.apply(CONF)
    shell("umount", str(nested))
    (again,) = await disk.apply(CONF)
    assert isinstance(again, Change)
    disk.pull()
    assert isinstance((await disk.apply(CONF))[0], MountMissing)
