"""A mount point: a directory at which a file system is mounted, now and at every boot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal, Self

import attrs
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core.claims import tree_claims
from harmony_core.errors import UnsafePath
from harmony_core.paths import AbsolutePath, check_path
from harmony_core.unit_paths import UNIT_NAME_MAX, unit_of_path

from ._base import Privilege, Resource, State, in_words

__all__ = [
    "AwaitsAccess",
    "DiskGone",
    "FileSystemType",
    "MountOption",
    "MountPoint",
    "MountSource",
    "MountState",
    "Mounted",
    "path_of_tag",
]

_TAG = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL)=(.+)")
_NETWORK = re.compile(r"//[^/\s]+/\S.*|[^/\s:]+:/.*|\[[0-9a-fA-F:.%]+\]:/.*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PLAIN_IN_A_TAG = frozenset("#+-.:=@_")
"""What udev leaves as it is in the names below /dev/disk, beside letters and digits."""

OF_THE_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "davfs"}
)
_KNOWN: Final = OF_THE_NETWORK - {"glusterfs", "fuse.sshfs", "davfs"} | frozenset(
    {
        *("auto", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660"),
        *("none", "ntfs3", "squashfs", "tmpfs", "udf", "vfat", "xfs"),
    }
)
"""Types by which nothing is run, and nothing of the device is seen that its source does not say."""

_OF_FSTAB: Final = {
    "noauto": "at_boot: false",
    "auto": "at_boot: true",
    "nofail": "nofail: true",
    "fail": "nofail: false",
}
_NOT_HERE: Final = {
    "remount": "leave it out: an option that changes is brought about by itself",
    "rbind": "write bind, and a Score for each mount that lies beneath",
    "user": "leave it out: mounting is the agent's, and nobody else's",
    "users": "leave it out: mounting is the agent's, and nobody else's",
    "owner": "leave it out: mounting is the agent's, and nobody else's",
}
_OF_AN_IMAGE: Final = frozenset({"loop", "offset", "sizelimit"})
_OTHER_DISKS: Final = frozenset({"device", "journal_dev", "journal_path", "logdev", "rtdev"})
"""By which types mount more disks than their source, which nobody would have looked at."""
_SECRET: Final = re.compile(r"pass(word|wd)?\d*|secret")
_USER: Final = frozenset({"user", "username"})


def _in_a_unit(text: str) -> str:
    """Return *text*, which systemd reads unchanged in a line of a unit."""
    if not text.isprintable() or text != text.strip() or "\\" in text or '"' in text:
        raise ValueError("write it on one line, without spaces around it, quotes and backslashes")
    return text


def _readable(source: str) -> str:
    _in_a_unit(source)
    try:
        source.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a character (a lone surrogate); remove it") from None
    if found := _TAG.fullmatch(source):
        if "/" in found[2] or "\\" in found[2]:
            raise ValueError(f"a {found[1]} has no slash in it; write what `lsblk -f` shows of it")
        return source
    if _NETWORK.fullmatch(source) or _WORD.fullmatch(source):
        return source
    if not source.startswith("/"):
        raise ValueError(
            "write UUID=…, LABEL=…, PARTUUID=…, a path, host:/path, //server/share, or tmpfs"
        )
    try:
        check_path(source)
    except UnsafePath as error:
        raise ValueError(error.message) from error
    return source


def _of_a_mount(option: str) -> str:
    name = option.partition("=")[0]
    if name in _OF_FSTAB:
        raise ValueError(f"{option}: that is a field of its own; write {_OF_FSTAB[name]}")
    if name.startswith("x-systemd.") or name == "comment":
        raise ValueError(f"{option}: that is read from /etc/fstab alone; leave it out")
    if name in _OTHER_DISKS:
        raise ValueError(f"{option}: it names another disk than what; leave it out")
    if name == "loop" and option != "loop":
        raise ValueError(f"{option}: which of the loop devices is free, mount finds; write loop")
    if name in _NOT_HERE and "=" not in option:  # user=NAME is whom a server lets in
        raise ValueError(f"{option}: {_NOT_HERE[name]}")
    return option


MountSource = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_readable)
]
"""What is mounted, as fstab(5) has it: UUID=…, LABEL=…, PARTUUID=…, a path, host:/path, //server/share, or a
word where the type needs no source, as tmpfs."""
FileSystemType = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$"),
    in_words("write the type of a file system, as in ext4, vfat, nfs, cifs or tmpfs"),
]
MountOption = Annotated[
    str,
    Field(max_length=1024),
    StringConstraints(pattern=r"^[!#-&(-+\--\[\]-~]+$"),
    in_words(
        "write one option each, without commas, quotes, spaces and backslashes, as in noatime"
    ),
]


class MountPoint(Resource):
    """*what* is mounted at *where*, now and at every boot, by a unit of systemd.

    A disk that is pulled is told, and mounted again by itself when it is plugged in. What is mounted there
    otherwise is unmounted first; `InUse` says who keeps that from being done, and nothing is ever forced. A
    directory with files in it is not mounted over, and a line of /etc/fstab for the same place is refused.
    """

    resource_type: ClassVar[str] = "mount"

    where: Annotated[AbsolutePath, AfterValidator(_in_a_unit)]
    """The directory; made where there is none."""
    what: MountSource
    """What is mounted there."""
    type: FileSystemType = "auto"
    """The type of its file system; auto has it found out."""
    options: tuple[Annotated[MountOption, AfterValidator(_of_a_mount)], ...] = ()
    """Options, as in fstab: noatime, ro, uid=1000 …"""
    at_boot: bool = True
    """Whether it is mounted at every boot; else only now, and whenever the agent looks."""
    nofail: bool = True
    """Whether the device boots without it, too; else it stops in the emergency mode."""
    automount: bool = False
    """Whether it is mounted when somebody first looks into it, and not before."""
    over_files: bool = False
    """Whether a directory with files in it is mounted over, which hides them."""

    @property
    def key(self) -> str:
        return self.where

    @cached_property
    def unit(self) -> str:
        """The name of its unit."""
        return unit_of_path(self.where, "mount")

    @cached_property
    def kind_of_source(self) -> Literal["device", "path", "network", "word"]:
        """What the source names: a device below /dev, another path, something on the network, or nothing."""
        if _TAG.fullmatch(self.what) or self.what.startswith("/dev/"):
            return "device"
        if self.what.startswith("/") and not self.what.startswith("//"):
            return "path"
        return "network" if _NETWORK.fullmatch(self.what) else "word"

    @property
    def is_of_the_network(self) -> bool:
        return (
            self.kind_of_source == "network"
            or self.type in OF_THE_NETWORK
            or "_netdev" in self.options
        )

    @property
    def is_bind(self) -> bool:
        """Whether a directory of this device is shown at another place."""
        return "bind" in self.options

    @cached_property
    def source_path(self) -> str:
        """The source as systemd and the kernel have it: of a tag, the link below /dev/disk."""
        return path_of_tag(self.what) or self.what

    @cached_property
    def options_in_force(self) -> tuple[str, ...]:
        """Its options, and those that hold where they say nothing else: what is brought along gives nobody
        root, neither by a set-user-ID bit nor by a device node."""
        if self.is_bind:  # what is shown is the device's own, and judged as that
            return self.options
        given = set(self.options)
        safe = (no for no, yes in (("nosuid", "suid"), ("nodev", "dev")) if not {no, yes} & given)
        return (*self.options, *safe)

    @property
    def exclusive(self) -> frozenset[str]:
        units = self.units_of(self.where)
        files = (f"path:/etc/systemd/system/{each}" for each in units)
        trees: Iterator[str] = iter(())
        if self.kind_of_source == "path":
            # Where it shows a directory, a container could be given that by the other name, and write it.
            is_written = self.is_bind and "ro" not in self.options
            trees = tree_claims(self.what, is_written=is_written)
        return frozenset({*(f"unit:{each}" for each in units), *files, *trees})

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (key,)

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:
        return (unit_of_path(key, "mount"), unit_of_path(key, "automount"))

    @property
    def privileges(self) -> frozenset[Privilege]:
        """Of types that are served by a program (fuse.…), or show more of the device than their source."""
        return frozenset(() if self.type in _KNOWN else {"run-as-root"})

    @model_validator(mode="after")
    def _can_be_mounted(self) -> Self:
        if len(self.units_of(self.where)[1]) > UNIT_NAME_MAX:
            raise ValueError(
                "where: as the name of a unit it would be longer than systemd allows; shorten it"
            )
        for name, _, value in (option.partition("=") for option in self.options):
            # Said here, where what was given is not told with it.
            if value and (_SECRET.fullmatch(name) or (name in _USER and "%" in value)):
                secret, file = (
                    ("password", "credentials") if name != "secret" else (name, "secretfile")
                )
                raise ValueError(
                    f"options: all could read the {secret} here; write {file}=/etc/NAME.credentials, and "
                    "that file by a FileScore with the secret in its content"
                )
        kind = self.kind_of_source
        if self.is_bind != (self.type == "none"):
            raise ValueError(
                "a directory that is shown at another place has type: none and bind among its options; write "
                "both, or neither"
            )
        if self.is_bind and kind != "path":
            raise ValueError("what: with bind, write the path of a directory")
        if kind == "path" and not self.is_bind and "loop" not in self.options:
            raise ValueError(
                f"what: {self.what} is no device; add bind to options, and type: none, to show that "
                "directory, or loop, where it is an image"
            )
        names = {option.partition("=")[0] for option in self.options}
        if (named := sorted(names & _OF_AN_IMAGE)) and (kind != "path" or self.is_bind):
            raise ValueError(
                f"options: {named[0]} is for an image, a file whose path what names; by it a part of another "
                f"disk would be seen; leave it out, and name the partition (`lsblk -f`)"
            )
        if kind == "network" and self.type == "auto":
            raise ValueError("type: write which it is, as in nfs or cifs")
        if kind == "word" and self.type == "auto":
            raise ValueError(f"what: {self.what} names no device; write UUID=…, a path, or a type")
        return self


def path_of_tag(text: str) -> str | None:
    """Return the link below /dev/disk of a tag, such as UUID=…; None for what is no tag."""
    if (found := _TAG.fullmatch(text)) is None:
        return None
    return f"/dev/disk/by-{found[1].lower()}/{''.join(map(_in_a_link, found[2]))}"


def _in_a_link(character: str) -> str:
    if character.isalnum() or character in _PLAIN_IN_A_TAG or not character.isascii():
        return character
    return f"\\x{ord(character):02x}"


@attrs.frozen(kw_only=True)
class Mounted(State):
    """A file system is mounted there, as the kernel has it. ``options`` are those in force, with commas."""

    source: str
    type: str
    options: str

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class AwaitsAccess(State):
    """It is mounted as soon as somebody looks into the directory."""

    @property
    def is_ready(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class DiskGone(State):
    """It is mounted still, and the disk is not there any more."""

    source: str


MountState = Mounted | AwaitsAccess | DiskGone
