"""What a mount point is wished to be, held against what the kernel has mounted there.

    source    the same device, by its numbers; the same directory of it (bind); the same server and path
    automount whether it is mounted over what waits for access: systemd makes that of nothing else
    type      by its name, or by one that the kernel has for it: nfs4 for nfs
    options   each that the kernel shows in its own words: flags, and values that are numbers

What the kernel does not show, such as credentials of a server, is taken as mounted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from harmony_core.resources import Mounted, MountPoint

__all__ = ["CANNOT_WRITE", "Difference", "FoundMount", "FoundSource", "find_difference"]

_NAMES = {
    "nfs": {"nfs", "nfs4"},
    "ntfs": {"ntfs", "ntfs3", "fuseblk"},
    "ntfs-3g": {"fuseblk"},
    "exfat": {"exfat", "fuseblk"},
    "smb3": {"smb3", "cifs"},
    "ext2": {"ext2", "ext4"},
    "ext3": {"ext3", "ext4"},
}
"""By which other names the kernel has a type."""
_READ_ONLY = frozenset({"squashfs", "iso9660", "erofs", "udf"})
"""Types that are mounted so whatever is asked for."""
_SHOWN = frozenset(
    {
        *("nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"),
        *("sync", "dirsync", "lazytime"),
    }
)
_NOT_SHOWN = {
    "strictatime": frozenset({"noatime", "relatime"}),
    "suid": frozenset({"nosuid"}),
    "dev": frozenset({"nodev"}),
}
"""What is in force where none of these is."""
_NUMBER = re.compile(r"(\d+)([kmgt]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


@attrs.frozen(kw_only=True)
class FoundMount:
    """What the kernel has mounted at a place."""

    source: str
    type: str
    options: tuple[str, ...]
    device: str = ""
    """Its numbers, as in 8:1."""
    root: str = "/"
    """Which directory of the file system is mounted."""
    is_automounted: bool = False
    """It is mounted over what waits for access."""
    is_disk_gone: bool = False
    """Its device is not there any more, though it is mounted still."""
    hides_from: str = ""
    """Where it is mounted over something else, which is not seen for it any more; empty where it is not."""

    @property
    def state(self) -> Mounted:
        return Mounted(source=self.source, type=self.type, options=",".join(self.options))


@attrs.frozen(kw_only=True)
class FoundSource:
    """What the source of a mount point names now."""

    is_there: bool
    device: str = ""
    """The numbers of the device that it is, or is on; empty where it has none."""
    names: frozenset[str] = frozenset()
    """What the kernel may tell as its source."""
    root: str | None = None
    """The directory of its file system, where only that is shown."""
    holds: tuple[str, ...] = ()
    """Where it is mounted, or a device by which its data is had; / where the system was booted from it."""


@attrs.frozen
class Difference:
    """What is otherwise than wished: *field* of a mount point, in words."""

    field: str
    wanted: str
    found: str


CANNOT_WRITE = Difference("options", "rw", "ro")
"""It was to be written, and can only be read."""


def find_difference(mount: MountPoint, found: FoundMount, source: FoundSource) -> Difference | None:
    """Return the first difference of *found*; None where it is as desired."""
    return next(iter(_differences(mount, found, source)), None)


def _differences(mount: MountPoint, found: FoundMount, source: FoundSource) -> Iterator[Difference]:
    if not _is_source(found, source):
        yield Difference("source", mount.what, found.source)
    if found.is_automounted != mount.automount:
        yield Difference(
            "automount", *(str(each).lower() for each in (mount.automount, found.is_automounted))
        )
    names = _NAMES.get(mount.type, {mount.type})
    if mount.type not in {"auto", "none"} and found.type not in names:
        yield Difference("type", mount.type, found.type)
    shown = set(found.options)
    has_ro, wants_ro = "ro" in shown, "ro" in mount.options
    if has_ro != wants_ro and found.type not in _READ_ONLY:
        yield Difference("options", "ro" if wants_ro else "rw", "ro" if has_ro else "rw")
    values = dict(each.split("=", 1) for each in found.options if "=" in each)
    for option in mount.options_in_force:
        name, is_value, value = option.partition("=")
        if option in _SHOWN and option not in shown:
            yield Difference("options", option, f"not {option}")
        elif shown & _NOT_SHOWN.get(option, frozenset()):
            yield Difference("options", option, ",".join(sorted(shown & _NOT_SHOWN[option])))
        elif is_value and name in values and _differ(name, value, values[name]):
            yield Difference("options", option, f"{name}={values[name]}")


def _is_source(found: FoundMount, source: FoundSource) -> bool:
    if source.device:
        is_root = source.root is None or source.root == found.root
        return (found.device == source.device and is_root) or found.source in source.names
    return found.source.rstrip("/") in {each.rstrip("/") for each in source.names}


def _differ(name: str, wanted: str, found: str) -> bool:
    """Return whether two values are different numbers. A value that is no number is not compared."""
    numbers = [_number(name, each) for each in (wanted, found)]
    return None not in numbers and numbers[0] != numbers[1]


def _number(name: str, text: str) -> int | None:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    if name.endswith(("mode", "mask")):
        return int(match[1], 8) if set(match[1]) <= set("01234567") and not match[2] else None
    return int(match[1]) * _FACTORS[match[2].lower()]
