"""What is mounted, as the kernel has it, and what the sources of mounts name: the `MountTable` of a device.

The kernel's table is that of PID 1, since the agent has mounts of its own. /dev is where the agent is shown
it (`common.dev`). A file system that is mounted is never touched, so one that hangs keeps nobody waiting.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal

from harmony_core.errors import HardwareMissing, InvalidResource, UnsafePath
from harmony_core.resources import MountPoint
from harmony_core.resources.mount_point import path_of_tag
from harmony_pi_topology.common.dev import Dev
from harmony_pi_topology.common.path_disk import PathDisk
from harmony_pi_topology.common.way import refuse_unsafe_way
from harmony_pi_topology.files.removal import kind_in_words
from harmony_pi_topology.posix.kernel_line import read_kernel_words
from harmony_pi_topology.posix.mounts import (
    Mount,
    mount_on_the_way_to,
    mounts_of,
    mounts_seen_at,
)

from .in_force import FoundMount, FoundSource

__all__ = ["KernelMounts", "list_watched"]

_FSTAB = "/etc/fstab"
_FSTAB_MAX_BYTES = 1024 * 1024


class KernelMounts(PathDisk):
    """A `MountTable`; *root* is where the device's / is seen."""

    def __init__(self, root: str, patience_s: float) -> None:
        super().__init__("mounts", root, patience_s)
        self._at = Path(root)

    async def look(self, where: str) -> FoundMount | None:
        return await self._calls.run(self._look, where)

    async def look_for_source(self, mount: MountPoint) -> FoundSource:
        return await self._calls.run(self._look_for_source, mount)

    async def look_beneath(self, where: str) -> Literal["nothing", "empty", "full"]:
        return await self._calls.run(self._look_beneath, where)

    async def list_beneath(self, where: str) -> Sequence[str]:
        mounts = await self._calls.run(self._mounts)
        return [each.point for each in mounts if each.point.startswith(f"{where}/")]

    async def is_there(self, path: str) -> bool:
        return await self._calls.run(self._root.look, path) is not None

    async def list_asking(self) -> Sequence[str]:
        return await self._calls.run(self._list_asking)

    async def find_fstab_line(self, where: str) -> str | None:
        return await self._calls.run(self._find_fstab_line, where)

    async def make(self, where: str) -> None:
        await self._calls.run(self._root.make_directory, where)

    # From here on in the thread.

    def _mounts(self) -> list[Mount]:
        proc = self._at / "proc"
        return mounts_of("1" if (proc / "1").exists() else "self", proc)

    def _look(self, where: str) -> FoundMount | None:
        mounts = self._mounts()
        here = [each for each in mounts if each.point == where]
        if not here:
            return None
        # What hides it may be mounted above it, too: then it is that which is seen.
        found = (mounts_seen_at(where, mounts) or here)[-1]
        is_over = found not in here or len([each for each in here if each.kind != "autofs"]) > 1
        return FoundMount(
            source=found.source,
            type=found.kind,
            options=found.options,
            device=found.device,
            root=found.root,
            is_automounted=any(each.kind == "autofs" for each in here[:-1]),
            is_disk_gone=self._is_disk_gone(found),
            hides_from=found.point if is_over else "",
        )

    def _is_disk_gone(self, mount: Mount) -> bool:
        if not mount.device.startswith("0:"):
            return not (self._at / "sys/dev/block" / mount.device).exists()
        # One of those that have no number of their own, such as btrfs: its first disk.
        dev = Dev(self._at)
        is_device = mount.source.startswith("/dev/")
        return is_device and not dev.place(dev.shown(mount.source)).exists()

    def _look_for_source(self, mount: MountPoint) -> FoundSource:
        match mount.kind_of_source:
            case "device":
                return self._look_for_device(mount)
            case "path":
                return self._look_for_path(mount)
            case "network" | "word":
                return FoundSource(is_there=True, names=frozenset({mount.what}))

    def _look_for_device(self, mount: MountPoint) -> FoundSource:
        dev = Dev(self._at)
        try:
            path = dev.resolve(mount.source_path, mount.id)
            facts = dev.place(dev.shown(path)).lstat()
        except (HardwareMissing, FileNotFoundError):
            return FoundSource(is_there=False)
        if not stat.S_ISBLK(facts.st_mode):
            raise InvalidResource(
                f"what: {mount.what} is no disk; `lsblk -f` on the device lists them with their UUIDs"
            )
        number = _number(facts.st_rdev)
        return FoundSource(
            is_there=True,
            device=number,
            names=frozenset({path, mount.source_path}),
            holds=self._holds(number),
        )

    def _holds(self, number: str) -> tuple[str, ...]:
        """Return where that device is mounted, or a part of it, or the whole disk; / for the one that was
        booted from."""
        alike = self._list_alike(number)
        points = [each.point for each in self._mounts() if self._number_of(each) in alike]
        # The root may be seen through something else, such as an overlay.
        if (root := self._find_root_disk()) is not None and self._number_at(root) in alike:
            points.insert(0, "/")
        return tuple(dict.fromkeys(points))

    def _number_of(self, mount: Mount) -> str | None:
        """Return the numbers of its disk, also of a file system that has none of its own, such as btrfs."""
        if not mount.device.startswith("0:"):
            return mount.device
        return self._number_at(mount.source) if mount.source.startswith("/dev/") else None

    def _number_at(self, path: str) -> str | None:
        dev = Dev(self._at)
        try:
            facts = dev.place(dev.shown(dev.resolve(path, path))).lstat()
        except (HardwareMissing, UnsafePath, FileNotFoundError):
            return None
        return _number(facts.st_rdev) if stat.S_ISBLK(facts.st_mode) else None

    def _find_root_disk(self) -> str | None:
        """Return the path below /dev that the kernel was given as its root."""
        words = read_kernel_words(self._at / "proc")
        root = next((each.removeprefix("root=") for each in words if each.startswith("root=")), "")
        path = path_of_tag(root) or root
        return path if path.startswith("/dev/") else None

    def _list_alike(self, number: str) -> set[str]:
        """Return the numbers of the devices through which the data of this one can be read, with its own.

        They are the disks that it is a part of or is on, and what is a part of it or is on it, as with
        partitions, device mapper and md. Another partition of the same disk is not.
        """
        at = (self._at / "sys/dev/block" / number).resolve()
        return {number, *_numbers(at, _list_under), *_numbers(at, _list_over)}

    def _look_for_path(self, mount: MountPoint) -> FoundSource:
        found = self._root.look(mount.what)
        if found is None:
            return FoundSource(is_there=False)
        # systemd mounts it at each boot by that name, and mount(8) follows links.
        with suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile
            refuse_unsafe_way(self._at, mount.what, f"what: {mount.what}", mount.id)
        wanted = "directory" if mount.is_bind else "file"
        if found.kind != wanted:
            raise UnsafePath(f"what: {mount.what} is a {kind_in_words(found)}, not a {wanted}")
        if not mount.is_bind:
            return FoundSource(is_there=True, names=frozenset(self._loops_of(mount.what)))
        mounts = self._mounts()
        if (on := mount_on_the_way_to(mount.what, mounts)) is None:
            return FoundSource(is_there=False)
        beneath = PurePosixPath(mount.what).relative_to(on.point)
        return FoundSource(
            is_there=True, device=on.device, root=str(PurePosixPath(on.root) / beneath)
        )

    def _loops_of(self, image: str) -> list[str]:
        """Return the loop devices that show *image*."""
        found: list[str] = []
        for backing in self._at.glob("sys/block/loop*/loop/backing_file"):
            try:
                text = backing.read_text(errors="surrogateescape")
            except OSError:
                continue  # let go of meanwhile
            if text.rstrip("\n") == image:
                found.append(f"/dev/{backing.parts[-3]}")
        return found

    def _look_beneath(self, where: str) -> Literal["nothing", "empty", "full"]:
        found = self._root.look(where)
        if found is None:
            return "nothing"
        if found.kind != "directory":
            raise UnsafePath(
                f"{where} is a {kind_in_words(found)}, not a directory; move it away, or choose another path"
            )
        return "empty" if self._root.may_give_way(where, found) else "full"

    def _list_asking(self) -> Sequence[str]:
        return [
            each.name for each in (self._at / "etc/systemd/system").glob("harmony-mount-*.service")
        ]

    def _find_fstab_line(self, where: str) -> str | None:
        try:
            text = self._root.read(_FSTAB, max_bytes=_FSTAB_MAX_BYTES)
        except FileNotFoundError:
            return None
        for line in text.decode(errors="replace").splitlines():
            fields = line.split()
            is_mount = len(fields) >= 3 and not fields[0].startswith("#")
            if is_mount and (fields[1].rstrip("/") or "/").replace("\\040", " ") == where:
                return " ".join(fields)
        return None


def list_watched(root: str, sources: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """Return, by key, the paths that appear or disappear when a disk is plugged in or pulled.

    *sources* are paths below /dev. Call this in a worker's thread.
    """
    dev = Dev(Path(root))
    return {key: (f"{dev.shown(source)}/",) for key, source in sources.items()}


def _numbers(device: Path, step: Callable[[Path], Iterator[Path]]) -> set[str]:
    """Return the numbers of what *step* leads to from *device*, a directory of /sys, as far as it leads."""
    found: dict[Path, str] = {}
    ahead = list(step(device))
    while ahead:
        at = ahead.pop().resolve()
        if at in found:
            continue
        try:
            found[at] = (at / "dev").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue  # pulled meanwhile
        ahead += step(at)
    return set(found.values())


def _list_under(device: Path) -> Iterator[Path]:
    if (device / "partition").exists():
        yield device.parent
    yield from device.glob("slaves/*")


def _list_over(device: Path) -> Iterator[Path]:
    yield from (each.parent for each in device.glob("*/partition"))
    yield from device.glob("holders/*")


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
