"""One file, written so that its name never shows anything but the old content or the new, whole.

    file without a name -> chown, chmod, allocate, write, fsync, read again     `stage`
    link under a temporary name -> rename over the target -> look               `publish`

What is large is not held in memory: it is copied from a file of the agent's own, and its hash is compared on
the way and when it is read again.

What is read again, and looked at, must be what was wanted, or it is `DidNotStick`: before the name is given,
so that the old file is intact, and before a byte is written where others could read what they must not.

Durable is the name only once its directory is flushed too; that is the caller's, who pays it once for many.
After an fsync that failed the file's pages cannot be trusted: the next attempt starts from scratch, with
a new inode. Extended attributes, ACLs and flags of the file that is replaced are not carried over; those
that a draft says are given (`extras`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import attrs

from harmony_core.errors import (
    AssetDamaged,
    AssetMissing,
    DidNotStick,
    InvalidResource,
    UnsafePath,
    WriteFailed,
)
from harmony_core.paths import check_path
from harmony_core.reconciler import JsonRecord
from harmony_pi_topology.common.path_calls import step

from .attributes import is_like, refuse_unlike, set_attributes
from .beneath import give_back
from .errors import translate_errors
from .extras import Extras, give_extras, give_flags
from .found import Found, look_in
from .hashing import HASHED_MAX_BYTES

__all__ = [
    "DIRECTORY_BITS",
    "CopiedContent",
    "Draft",
    "Staged",
    "draft_of_backup",
    "is_left",
    "make_temporary_name",
    "publish",
    "refuse_unsafe",
    "stage",
]

_PREALLOCATED_BYTES = 64 * 1024
_BLOCK_BYTES = 256 * 1024
_TEMPORARY = (".harmony.", ".tmp")
_PERMISSIONS = 0o777
DIRECTORY_BITS = 0o3777
"""Those of a directory: without set-user-id, which means nothing there."""
_ID_MAX = 2**32 - 2
"""The number above it means "leave as it is" to chown."""


@attrs.frozen(kw_only=True)
class CopiedContent:
    """Content that is copied from a file, and stands for nothing else than what has this hash."""

    source: Path | None
    """None where it is not here; then it can be compared, and not written."""
    size_bytes: int | None
    """None of what is not here, and whose size nobody has said."""
    sha256: str
    summary: str
    """What it is, for people."""

    def __len__(self) -> int:
        """Return how many bytes it has, or at most has."""
        return HASHED_MAX_BYTES if self.size_bytes is None else self.size_bytes


@attrs.frozen(kw_only=True)
class Draft:
    """A file as it is to be. ``uid`` and ``gid`` -1 leave the owner to the process."""

    path: str
    content: bytes | CopiedContent = attrs.field(repr=False)
    mode: int
    uid: int = -1
    gid: int = -1
    extras: Extras | None = None
    """What it is to have beyond that; None leaves it to the file system."""


def draft_of_backup(path: str, content: bytes, attributes: JsonRecord) -> Draft:
    """Return the draft of what was at *path* before us; *attributes* are its mode, owner and extras."""
    return Draft(
        path=path,
        content=content,
        mode=attributes["mode"],
        uid=attributes["uid"],
        gid=attributes["gid"],
        extras=Extras.read(attributes),
    )


@attrs.define
class Staged:
    """A draft, written to a file that has no name yet, or a temporary one."""

    draft: Draft
    directory: int
    descriptor: int
    temporary: str | None


def refuse_unsafe(path: str, *, mode: int, uid: int, gid: int, allowed: int = _PERMISSIONS) -> None:
    """Raise `UnsafePath` or `InvalidResource` for what must not be written, whatever is there.

    *allowed* are the bits that a mode may have.
    """
    check_path(path)
    if mode & ~allowed:
        raise UnsafePath(
            f"{path}: mode {mode:o} has bits that are never set here: set-user-id, and of a file "
            "set-group-id and sticky; drop them"
        )
    for number in (uid, gid):
        if not -1 <= number <= _ID_MAX:
            raise InvalidResource(
                f"{path}: {number} is no user or group; use a number from 0 to {_ID_MAX}"
            )


@contextmanager
def stage(draft: Draft, directory: int) -> Generator[Staged]:
    """Write *draft*, whole and durable, to *directory*, but not under its name.

    If it is not published, it vanishes with the block; *directory* must stay open until then.
    """
    step(draft.path)
    with translate_errors(draft.path, at=directory):
        file = _create(draft, directory)
    try:
        with translate_errors(draft.path, at=directory):
            _fill(file)
        yield file
    finally:
        _discard(file)


def publish(file: Staged) -> Found:
    """Give *file* its name, in place of whatever file has it now. Return what is found under that name
    then."""
    name = file.draft.path.rpartition("/")[2]
    step(file.draft.path)
    with translate_errors(file.draft.path, at=file.directory):
        if file.temporary is None:
            # Known before it exists, so that it is unlinked even if linking fails half-way.
            file.temporary = make_temporary_name()
            source = f"/proc/self/fd/{file.descriptor}"
            os.link(source, file.temporary, dst_dir_fd=file.directory, follow_symlinks=True)
        os.rename(file.temporary, name, src_dir_fd=file.directory, dst_dir_fd=file.directory)
        file.temporary = None
        return _confirm_shown(name, file)


def is_left(name: str) -> bool:
    """Return whether a file of this name was left by a killed writer, and is not of this process."""
    prefix, suffix = _TEMPORARY
    return name.startswith(prefix) and name.endswith(suffix) and not name.startswith(_ours())


def _confirm_shown(name: str, file: Staged) -> Found:
    """Return what *name* shows now, which must be *file* as it was wanted.

    Some file systems make a mode from a file's name (FAT with ``showexec``). Somebody else may also have been
    quick: undo once what they did to our file, and report what they put in its place.
    """
    draft, found = file.draft, look_in(file.directory, name)
    wanted = {"mode": draft.mode, "uid": draft.uid, "gid": draft.gid}
    if found is None or not _shows(name, found, file):
        raise WriteFailed(
            f"{draft.path} was changed by somebody else the moment it was written; it is tried "
            "again later"
        ) from FileNotFoundError(errno.ENOENT, "what was written is not there any more")
    if not is_like(found, **wanted):
        set_attributes(file.descriptor, draft.path, **wanted)
        found = look_in(file.directory, name) or found
        refuse_unlike(file.descriptor, draft.path, found, **wanted)
    return found


def _shows(name: str, found: Found, file: Staged) -> bool:
    """Return whether *name*, where *found* is, shows what was written: *file*, or a file with the same
    content.

    Some file systems give a file another number with another name; then its content decides.
    """
    if found.kind != "file" or found.size_bytes != len(file.draft.content):
        return False
    if found.inode == os.fstat(file.descriptor).st_ino:
        return True
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        anew = os.open(name, flags, dir_fd=file.directory)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:  # swapped once more
            return False
        raise
    try:
        return _find_other(file.draft, anew) is None
    finally:
        give_back(anew)


def _create(draft: Draft, directory: int) -> Staged:
    try:
        nameless = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}:
            raise
        # NFS, FAT and some overlays have no files without a name.
        name = make_temporary_name()
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
        return Staged(draft, directory, os.open(name, flags, 0o600, dir_fd=directory), name)
    return Staged(draft, directory, nameless, None)


def _fill(file: Staged) -> None:
    draft, descriptor = file.draft, file.descriptor
    if draft.extras is not None:
        give_flags(descriptor, draft.extras)
    set_attributes(descriptor, draft.path, mode=draft.mode, uid=draft.uid, gid=draft.gid)
    if len(draft.content) > _PREALLOCATED_BYTES:
        os.posix_fallocate(descriptor, 0, len(draft.content))
    if isinstance(draft.content, CopiedContent):
        _copy(draft, draft.content, descriptor)
    else:
        _write_all(descriptor, draft.content)
    if draft.extras is not None:
        give_extras(descriptor, draft.path, draft.extras)
    os.fsync(descriptor)
    _refuse_other_content(draft, descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _copy(draft: Draft, content: CopiedContent, descriptor: int) -> None:
    """Copy *content*. Raise `AssetMissing` where it is not here, `AssetDamaged` where it is something
    else."""
    if content.source is None:
        raise AssetMissing(
            f"{draft.path}: {content.summary} is not on this device yet; it is fetched at the next try"
        )
    digest, left = hashlib.sha256(), len(content)
    with content.source.open("rb") as file:
        while left and (block := file.read(min(_BLOCK_BYTES, left))):
            step(draft.path)
            digest.update(block)
            _write_all(descriptor, block)
            left -= len(block)
    if left or digest.hexdigest() != content.sha256:
        raise AssetDamaged(
            f"{draft.path}: what was kept of {content.summary} has changed on this device's disk; it is "
            "fetched again. Check the disk if that comes again"
        )


def _refuse_other_content(draft: Draft, descriptor: int) -> None:
    """Raise `DidNotStick` unless the file has the wanted content for whoever opens it now: what this
    descriptor remembers does not count. The error shows nothing of the content, which may be a secret."""
    try:
        anew = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # not root, and its mode lets nobody read it
        anew = -1
    try:
        there = _find_other(draft, descriptor if anew < 0 else anew)
    finally:
        if anew >= 0:
            give_back(anew)
    if there is None:
        return
    wanted = len(draft.content)
    other = "other " if there == wanted else ""
    raise DidNotStick(
        draft.path,
        field="content",
        wanted=f"of {wanted} bytes",
        found="more bytes" if there > wanted else f"{other}{there} bytes",
        remedy="this file system, or the disk beneath it, gives back other content than was "
        "written; check the disk, or choose a path on another one",
    )


def _find_other(draft: Draft, descriptor: int) -> int | None:
    """Return how many bytes, at most one more than wanted, are in *descriptor*, where they differ from those
    wanted; None where they are equal."""
    content, most_bytes = draft.content, len(draft.content) + 1
    if isinstance(content, bytes):
        found = b"".join(_read_blocks(descriptor, most_bytes))
        return None if found == content else len(found)
    digest, found_bytes = hashlib.sha256(), 0
    for block in _read_blocks(descriptor, most_bytes):
        step(draft.path)
        digest.update(block)
        found_bytes += len(block)
    is_wanted = found_bytes == content.size_bytes and digest.hexdigest() == content.sha256
    return None if is_wanted else found_bytes


def _read_blocks(descriptor: int, max_bytes: int) -> Iterator[bytes]:
    done_bytes = 0
    while done_bytes < max_bytes:
        block = os.pread(descriptor, min(_BLOCK_BYTES, max_bytes - done_bytes), done_bytes)
        if not block:
            return
        yield block
        done_bytes += len(block)


def _discard(file: Staged) -> None:
    if file.temporary is not None:
        with suppress(OSError):
            os.unlink(file.temporary, dir_fd=file.directory)
    give_back(file.descriptor)


def make_temporary_name() -> str:
    """Return a name that nobody has, and that `is_left` recognizes once this process is gone."""
    return f"{_ours()}{secrets.token_hex(8)}{_TEMPORARY[1]}"


@cache
def _ours() -> str:
    """Return the beginning of all temporary names of this process. It has no process id, which may be the
    same after a boot."""
    return f"{_TEMPORARY[0]}{secrets.token_hex(4)}."
