"""Watching files on a real file system: what moves, what is swapped, what floods, what is given back."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import attrs
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_core.testing import Hearer
from harmony_pi_topology.files.reconciler import PosixFiles

MOTD, OTHER = "/etc/app/motd", "/srv/other"


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Generator[BlockBuster]:
    with blockbuster_ctx("harmony_pi_topology") as blockbuster:
        yield blockbuster


@attrs.frozen
class Watched:
    """A folder whose files are watched."""

    root: Path
    files: PosixFiles
    told: Hearer

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, path: str, content: bytes = b"one\n") -> Path:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_bytes(content)
        return self.at(path)

    async def watch(self, *paths: str) -> None:
        await self.files.watch(paths, self.told)

    async def is_watching(self, *paths: str) -> None:
        """Each of *paths* is told of, again and again: so not only because its way was another."""
        for n in range(5):
            for path in paths:
                self.put(path, b"%d\n" % n)
                await self.told.hears(path)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Watched]:
    (tmp_path / "root").mkdir()
    files = PosixFiles(str(tmp_path / "root"), records=MemoryRecords(), backups=MemoryBackups())
    place = Watched(tmp_path / "root", files, Hearer())
    place.put(MOTD)
    place.put(OTHER)
    yield place
    await files.close()


def watches() -> list[str]:
    """What this process watches, as the kernel sees it: a line for each directory."""
    lines: list[str] = []
    for each in Path("/proc/self/fdinfo").iterdir():
        try:
            lines += [line for line in each.read_text().splitlines() if line.startswith("inotify")]
        except FileNotFoundError:
            continue  # it was what listed the directory
    return lines


def masks() -> dict[int, int]:
    """The events that are asked for, by inode."""
    found = [re.search(r"ino:(\w+) .* mask:(\w+)", line) for line in watches()]
    return {int(each[1], 16): int(each[2], 16) for each in found if each is not None}


async def test_attributes_are_told(place: Watched) -> None:
    await place.watch(MOTD)
    place.at(MOTD).chmod(0o600)
    await place.told.hears(MOTD)
    os.utime(place.at(MOTD))
    await place.told.hears(MOTD)
    if os.geteuid() == 0:
        os.chown(place.at(MOTD), 65534, 65534)
        await place.told.hears(MOTD)


async def test_cutting_it_short_without_opening_it_is_told(place: Watched) -> None:
    await place.watch(MOTD)
    os.truncate(place.at(MOTD), 1)
    await place.told.hears(MOTD)


async def test_writing_without_ever_closing_it_is_told(place: Watched) -> None:
    await place.watch(MOTD)
    with place.at(MOTD).open("ab", buffering=0) as file:
        file.write(b"more\n")
        await place.told.hears(MOTD)


async def test_replacing_it_whole_is_told(place: Watched) -> None:
    await place.watch(MOTD)
    for n in range(3):
        place.put("/etc/app/new", b"%d" % n).rename(place.at(MOTD))
        await place.told.hears(MOTD)


@pytest.mark.parametrize("moved", ["/etc/app", "/etc"])
async def test_a_directory_above_that_is_moved_away_is_told(place: Watched, moved: str) -> None:
    await place.watch(MOTD, OTHER)
    place.at(moved).rename(place.at("/elsewhere"))
    await place.told.hears(MOTD, never=OTHER)
    place.at("/elsewhere").rename(place.at(moved))
    await place.told.hears(MOTD, never=OTHER)
    await place.is_watching(MOTD, OTHER)


@pytest.mark.parametrize("removed", ["/etc/app", "/etc"])
async def test_a_directory_above_that_is_removed_and_made_again_is_told(
    place: Watched, removed: str
) -> None:
    await place.watch(MOTD)
    for _ in range(3):
        place.at(MOTD).unlink()
        place.at("/etc/app").rmdir()
        if removed == "/etc":
            place.at("/etc").rmdir()
        await place.told.hears(MOTD)
        place.put(MOTD)
        await place.told.hears(MOTD)
    await place.is_watching(MOTD)


async def test_a_directory_that_takes_another_s_place_is_told(place: Watched) -> None:
    place.put("/etc.new/app/motd")
    await place.watch(MOTD)
    place.at("/etc").rename(place.at("/etc.old"))
    place.at("/etc.new").rename(place.at("/etc"))
    await place.told.hears(MOTD)
    await place.is_watching(MOTD)
    place.put("/etc.old/app/motd")
    place.put(MOTD)
    await place.told.hears(MOTD)


async def test_a_link_that_takes_a_directory_s_place_is_told_and_not_followed(
    place: Watched, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    await place.watch(MOTD, OTHER)
    place.at("/etc/app").rename(place.at("/etc/app.old"))
    place.at("/etc/app").symlink_to(outside)
    await place.told.hears(MOTD)
    await place.watch(MOTD, OTHER)
    place.told.heard.clear()
    assert outside.stat().st_ino not in masks()
    (outside / "motd").write_bytes(b"theirs\n")
    place.put(OTHER, b"two\n")
    await place.told.hears(OTHER, never=MOTD)
    place.at("/etc/app").unlink()
    await place.told.hears(MOTD)
    place.at("/etc/app.old").rename(place.at("/etc/app"))
    await place.told.hears(MOTD)
    await place.is_watching(MOTD)


async def test_a_path_that_nothing_can_have_does_not_disturb_the_others(place: Watched) -> None:
    await place.watch(
        "relative", "/../../etc/passwd", "/a//b", "/nul\0", "/", f"{MOTD}/below", MOTD
    )
    await place.is_watching(MOTD)


async def test_what_lies_in_the_root_itself_is_told(place: Watched) -> None:
    await place.watch("/file")
    await place.is_watching("/file")


async def test_more_events_than_the_kernel_keeps_are_told_as_all(place: Watched) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    first, second = place.put("/etc/app/first"), place.put("/etc/app/second")
    await place.watch(MOTD, OTHER)
    for _ in range(limit // 2 + 1):
        # In turns, or the kernel takes them for one.
        os.utime(first)
        os.utime(second)
    # Of this, and of what takes the way's place, the kernel has forgotten to tell.
    place.at("/srv").rename(place.at("/srv.old"))
    place.put(OTHER)
    await place.told.hears("everything")
    await place.is_watching(MOTD, OTHER)


async def test_a_directory_is_watched_once_however_many_names_in_it_matter(place: Watched) -> None:
    await place.watch(*(f"/etc/app/file-{n}" for n in range(1000)), "/etc/app/b/c/none")
    assert sorted(masks()) == sorted(
        place.at(each).stat().st_ino for each in ("/", "/etc", "/etc/app")
    )


async def test_what_is_done_in_a_directory_on_the_way_wakes_nobody(place: Watched) -> None:
    await place.watch(MOTD)
    on_the_way = masks()[place.at("/etc").stat().st_ino]
    moved_or_removed = 0x800 | 0x400
    assert on_the_way & 0xFFF == moved_or_removed


async def test_what_is_not_watched_any_more_costs_nothing(place: Watched) -> None:
    await place.watch(MOTD)
    before = sorted(watches())
    descriptors = sorted(os.listdir("/proc/self/fd"))
    for n in range(20):
        place.put(f"/dir-{n}/file")
        await place.watch(MOTD, f"/dir-{n}/file", f"/none-{n}/file")
        await place.watch(MOTD)
    assert sorted(watches()) == before
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    await place.watch()
    assert watches() == []


async def test_nothing_is_opened_where_nothing_is_watched(place: Watched) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    await place.watch()
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_closing_gives_everything_back(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    files = PosixFiles(str(tmp_path), records=MemoryRecords(), backups=MemoryBackups())
    await files.watch(["/a", "/b/c"], Hearer())
    for _ in range(2):
        await files.close()
        assert sorted(os.listdir("/proc/self/fd")) == before


async def test_whoever_gives_up_waiting_is_watched_for_all_the_same(place: Watched) -> None:
    asking = asyncio.create_task(place.watch(MOTD))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await place.watch(OTHER, MOTD)
    await place.is_watching(MOTD, OTHER)


async def test_the_last_of_many_calls_counts(place: Watched) -> None:
    await asyncio.gather(*(place.watch(f"/etc/app/{n}", MOTD) for n in range(10)))
    await place.watch(OTHER)
    place.put(MOTD, b"two\n")
    place.put(OTHER, b"two\n")
    await place.told.hears(OTHER, never=MOTD)


_LIMITED = """
import asyncio, os, pathlib, sys
from harmony_core.errors import CapabilityUnavailable
from harmony_core.reconciler import MemoryBackups, MemoryRecords
from harmony_pi_topology.files.reconciler import PosixFiles

limit = pathlib.Path(sys.argv[1])

async def main():
    limit.write_text(sys.argv[2])
    for name in "abcdefgh":
        os.mkdir(name)
    files, heard = PosixFiles(".", records=MemoryRecords(), backups=MemoryBackups()), []
    paths = [f"/{name}/file" for name in "abcdefgh"]
    try:
        await files.watch(paths, heard.append)
    except CapabilityUnavailable as error:
        print(error.message)
    limit.write_text("1000")
    assert heard == [], heard
    await files.availability()
    assert heard[-1] is None, heard
    heard.clear()
    await files.availability()
    assert heard == [], heard
    for path in paths:
        open(f".{path}", "w").close()
    while {*heard} < {*paths}:
        await asyncio.sleep(0.01)
    await files.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("limit", "count"), [("max_inotify_watches", "4"), ("max_inotify_instances", "0")]
)
def test_a_limit_of_the_kernel_s_is_named_and_what_it_held_back_is_made_good(
    tmp_path: Path, limit: str, count: str
) -> None:
    """In a user namespace of its own, whose limits are nobody else's."""
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user"),
            *(sys.executable, "-c", _LIMITED, f"/proc/sys/user/{limit}", count),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"raise fs.inotify.{limit.replace('inotify_', 'user_')}" in done.stdout


def mount_over(place: Watched, directory: str) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    place.at(directory).mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place.at(directory))], check=True)
    return place.at(directory)


def umount(mounted: Path, *options: str) -> None:
    subprocess.run(["umount", *options, str(mounted)], check=False, capture_output=True)


async def test_a_mount_over_a_file_and_its_end_are_heard_and_so_is_what_happens_beneath(
    place: Watched,
) -> None:
    place.put(MOTD)
    await place.watch(MOTD, OTHER)
    mounted = mount_over(place, "/etc")
    try:
        await place.told.hears(MOTD)
        await place.is_watching(MOTD)
    finally:
        umount(mounted)
    await place.told.hears(MOTD)
    await place.is_watching(MOTD)


async def test_a_mount_that_goes_lazily_is_heard_too(place: Watched) -> None:
    mounted = mount_over(place, "/etc")
    try:
        place.put(MOTD)
        await place.watch(MOTD)
        with (mounted / "app" / "held").open("w"):
            umount(mounted, "--lazy")
            await place.told.hears(MOTD)
    finally:
        umount(mounted)


async def test_a_mount_elsewhere_concerns_nobody(place: Watched) -> None:
    place.put(MOTD)
    await place.watch(MOTD)
    umount(mount_over(place, "/var"))
    await place.watch(MOTD, OTHER)
    place.put(OTHER, b"two\n")
    await place.told.hears(OTHER, never=MOTD)
