"""What a file has beyond content, mode and owner: kept with what was there before us, and given back with it.

    access control list, file capabilities, user.* attributes                 `os.setxattr`
    trusted.* attributes, where the process has CAP_SYS_ADMIN; else the kernel shows none
    the flags that `chattr` sets, such as A, C, d                             FS_IOC_SETFLAGS
    the time of its last change                                               `os.utime`

What cannot be given back is refused by name before the file is touched: another name (a hard link) would go
on showing the old file; an immutable file cannot be replaced; fs-verity cannot be made again. Labels that a
security module gives by itself (SELinux, IMA) are not ours to keep.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from harmony_core.errors import DidNotStick, PriorTooLarge, UnsafePath
from harmony_core.reconciler import JsonRecord

__all__ = [
    "Extras",
    "extras_of",
    "flags_of",
    "give_extras",
    "give_flags",
    "has_capabilities",
    "is_like",
]

_ACL, _FILE_CAPABILITIES = "system.posix_acl_access", "security.capability"
_WORDS = {_ACL: "access control list", _FILE_CAPABILITIES: "file capabilities"}
_KEPT_PREFIXES = ("user.", "trusted.")
_NEVER_KEPT_PREFIX = "trusted.overlay."
_KEPT_MAX_BYTES = 16 * 1024
"""Of all attributes of one file: they are kept in the record."""

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS."""
_IMMUTABLE, _APPEND_ONLY, _VERITY = 0x10, 0x20, 0x100000
_KEPT_FLAGS = 0x0080C0CF
"""Those that a new file can be given: secure deletion, undeletable, compressed, synchronous, no dump,
no atime, journalled, no tail merging, no copy on write (s, u, c, S, d, A, j, t, C)."""
_JOURNALLED = 0x4000
_CAP_SYS_RESOURCE, _CAP_SETFCAP = 24, 31


@attrs.frozen(kw_only=True)
class Extras:
    """What one file has beyond content, mode and owner. Equal where nobody could tell the difference."""

    attributes: Mapping[str, bytes] = attrs.field(factory=dict[str, bytes], repr=False)
    """The extended attributes by name; an access control list is one."""
    flags: int = 0
    """As `lsattr` shows them."""
    names: int = attrs.field(default=1, eq=False)
    """How many names (hard links) it has."""
    mtime_ns: int | None = attrs.field(default=None, eq=False)
    """Since 1970; None where it was not kept."""

    @classmethod
    def read(cls, record: JsonRecord) -> Self | None:
        """Return what `written` wrote into *record*; None for an agent that kept no such thing."""
        if "mtime_ns" not in record:
            return None
        attributes: Mapping[str, str] = record.get("attributes", {})
        return cls(
            attributes={name: base64.b64decode(value) for name, value in attributes.items()},
            flags=record.get("flags", 0),
            mtime_ns=record["mtime_ns"],
        )

    @property
    def written(self) -> dict[str, Any]:
        """The form in a record."""
        kept: dict[str, Any] = {"mtime_ns": self.mtime_ns}
        if self.attributes:
            kept["attributes"] = {
                name: base64.b64encode(value).decode() for name, value in self.attributes.items()
            }
        if self.flags & _KEPT_FLAGS:
            kept["flags"] = self.flags & _KEPT_FLAGS
        return kept

    @property
    def words(self) -> tuple[str, ...]:
        """Return what of it a new file in its place would not have, for people. No values."""
        return tuple(_WORDS.get(name, f"attribute {name}") for name in sorted(self.attributes))

    def refuse_unrestorable(self, path: str) -> None:
        """Raise `UnsafePath` or `PriorTooLarge` where a file with this could not be restored at *path*."""
        if self.flags & (_IMMUTABLE | _APPEND_ONLY):
            raise UnsafePath(
                f"{path} is immutable or append-only, so that it must not be replaced; "
                f"run: chattr -ia {path}"
            )
        if self.flags & _VERITY:
            raise UnsafePath(
                f"{path} is sealed by fs-verity, which could not be put back; move it away by hand, "
                "or set discard_previous"
            )
        if self.names > 1:
            raise UnsafePath(
                f"{path} is one of {self.names} names (hard links) of one file, which could not be put "
                f"back; run: cp -p {path} {path}.new && mv {path}.new {path}, or set discard_previous"
            )
        for what, right, number in self._rights_needed():
            if not has_capabilities(number):
                raise UnsafePath(
                    f"{path} has {what}, which the agent has no right ({right}) to put back; "
                    "give it that right, or set discard_previous"
                )
        size_bytes = sum(map(len, self.attributes.values()))
        if size_bytes > _KEPT_MAX_BYTES:
            raise PriorTooLarge(
                f"{path} has {size_bytes} bytes of extended attributes, too many to be kept and put back "
                "in the end; move it away by hand, or set discard_previous"
            )

    def _rights_needed(self) -> Iterator[tuple[str, str, int]]:
        """Yield what of it not every root process may restore, the capability that it needs, and its
        number."""
        if _FILE_CAPABILITIES in self.attributes:
            yield "file capabilities", "CAP_SETFCAP", _CAP_SETFCAP
        if self.flags & _JOURNALLED:
            yield "the flag j of chattr", "CAP_SYS_RESOURCE", _CAP_SYS_RESOURCE


def extras_of(descriptor: int) -> Extras:
    """Return what the open file *descriptor* has beyond content, mode and owner. Raise OSError."""
    facts = os.fstat(descriptor)
    return Extras(
        attributes=_attributes(descriptor),
        flags=flags_of(descriptor),
        names=facts.st_nlink,
        mtime_ns=facts.st_mtime_ns,
    )


def flags_of(descriptor: int) -> int:
    """Return the flags that `lsattr` shows; none where the file system has no such thing."""
    try:
        answer: bytes = fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0))
    except OSError:
        return 0
    return int(struct.unpack("l", answer)[0])


def has_capabilities(*capabilities: int) -> bool:
    """Return whether this process now has all of *capabilities*, given by their numbers."""
    lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return all(int(effective, 16) >> number & 1 for number in capabilities)


def give_flags(descriptor: int, extras: Extras) -> None:
    """Give the flags of *extras* to an empty file: some can be given to no other. Raise OSError."""
    here = flags_of(descriptor)
    wanted = (here & ~_KEPT_FLAGS) | (extras.flags & _KEPT_FLAGS)
    if wanted != here:
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", wanted))


def give_extras(descriptor: int, path: str, extras: Extras) -> None:
    """Give *extras* to a file that has its content, mode and owner already: writing removes capabilities.

    Remove what it has besides, such as the list that its directory gives to new files. Then look at the file:
    raise `DidNotStick` where it has something else. Raise OSError.
    """
    here = _attributes(descriptor)
    for name in here.keys() - extras.attributes.keys():
        os.removexattr(descriptor, name)
    for name, value in extras.attributes.items():
        if here.get(name) != value:
            os.setxattr(descriptor, name, value)
    if extras.mtime_ns is not None:
        os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, extras.mtime_ns))
    found = extras_of(descriptor)
    _refuse_unlike(path, extras, found)


def is_like(extras: Extras, found: Extras) -> bool:
    """Return whether *found* has what *extras* were kept of; its time may differ."""
    flags, there = extras.flags & _KEPT_FLAGS, found.flags & _KEPT_FLAGS
    return flags == there and dict(extras.attributes) == dict(found.attributes)


def _refuse_unlike(path: str, wanted: Extras, found: Extras) -> None:
    if is_like(wanted, found):
        return
    names = wanted.attributes.keys() | found.attributes.keys()
    unlike = sorted(n for n in names if wanted.attributes.get(n) != found.attributes.get(n))
    field = _WORDS.get(unlike[0], unlike[0]) if unlike else "flags"
    raise DidNotStick(
        path,
        field=field,
        wanted="what was there before" if unlike else f"{wanted.flags & _KEPT_FLAGS:#x}",
        found="something else" if unlike else f"{found.flags & _KEPT_FLAGS:#x}",
        remedy="this file system does not keep it; see: getfacl, getcap, getfattr, lsattr",
    )


def _attributes(descriptor: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return {}
        raise
    return {name: os.getxattr(descriptor, name) for name in names if _is_kept(name)}


def _is_kept(name: str) -> bool:
    if name.startswith(_KEPT_PREFIXES):
        return not name.startswith(_NEVER_KEPT_PREFIX)
    return name in _WORDS
