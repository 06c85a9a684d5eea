"""One file, written so that its name never shows anything but the old content or the new, whole.

    file without a name -> allocate, write, chown, chmod, fsync      `staged`
    link under a temporary name -> rename over the target            `publish`

Durable is the name only once its directory is flushed too; that is the caller's, who pays it once for many.
After an fsync that failed the file's pages cannot be trusted: the next attempt starts from scratch, with
a new inode. Extended attributes, ACLs and labels of the file that is replaced are not carried over.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache

import attrs

from harmony_core.errors import InvalidResource, UnsafePath
from harmony_core.paths import check_path

from .beneath import give_back
from .errors import mapped
from .found import Found

__all__ = ["Draft", "Staged", "is_left", "publish", "refuse_unsafe", "staged"]

_PREALLOCATED_BYTES = 64 * 1024
_TEMPORARY = (".harmony.", ".tmp")
_PERMISSIONS = 0o777
_ID_MAX = 2**32 - 2
"""The number above it means "leave as it is" to chown."""


@attrs.frozen(kw_only=True)
class Draft:
    """A file as it is to be. ``uid`` and ``gid`` -1 leave the owner to the process."""

    path: str
    content: bytes = attrs.field(repr=False)
    mode: int
    uid: int = -1
    gid: int = -1


@attrs.define
class Staged:
    """A draft, written to a file that has no name yet, or a temporary one."""

    draft: Draft
    directory: int
    descriptor: int
    temporary: str | None


def refuse_unsafe(path: str, *, mode: int, uid: int, gid: int) -> None:
    """Raise `UnsafePath` or `InvalidResource` for what must not be written, whatever is there."""
    check_path(path)
    if mode & ~_PERMISSIONS:
        raise UnsafePath(
            f"{path}: mode {mode:o} has set-user-id, set-group-id or sticky bits; drop them"
        )
    for number in (uid, gid):
        if not -1 <= number <= _ID_MAX:
            raise InvalidResource(
                f"{path}: {number} is no user or group; use a number from 0 to {_ID_MAX}"
            )


@contextmanager
def staged(draft: Draft, directory: int) -> Generator[Staged]:
    """*draft*, whole and on disk in *directory*, but not under its name. Unpublished, it vanishes
    with the block; *directory* must stay open so long."""
    with mapped(draft.path):
        file = _created(draft, directory)
    try:
        with mapped(draft.path):
            _fill(file)
        yield file
    finally:
        _discard(file)


def publish(file: Staged) -> Found:
    """Give *file* its name, in place of whatever file has it now."""
    name = file.draft.path.rpartition("/")[2]
    with mapped(file.draft.path):
        if file.temporary is None:
            # Known before it exists, so that it is unlinked even if linking fails half-way.
            file.temporary = _temporary_name()
            source = f"/proc/self/fd/{file.descriptor}"
            os.link(source, file.temporary, dst_dir_fd=file.directory, follow_symlinks=True)
        os.rename(file.temporary, name, src_dir_fd=file.directory, dst_dir_fd=file.directory)
        file.temporary = None
        return Found.of(os.fstat(file.descriptor))


def is_left(name: str) -> bool:
    """Whether a file of this name is one that a killed writer left, and not of this very process."""
    prefix, suffix = _TEMPORARY
    return name.startswith(prefix) and name.endswith(suffix) and not name.startswith(_ours())


def _created(draft: Draft, directory: int) -> Staged:
    try:
        nameless = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}:
            raise
        # NFS, FAT and some overlays have no files without a name.
        name = _temporary_name()
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        return Staged(draft, directory, os.open(name, flags, 0o600, dir_fd=directory), name)
    return Staged(draft, directory, nameless, None)


def _fill(file: Staged) -> None:
    draft, descriptor = file.draft, file.descriptor
    content = memoryview(draft.content)
    if len(content) > _PREALLOCATED_BYTES:
        os.posix_fallocate(descriptor, 0, len(content))
    while content:
        content = content[os.write(descriptor, content) :]
    os.fchown(descriptor, draft.uid, draft.gid)  # first: chown clears bits that chmod sets
    os.fchmod(descriptor, draft.mode)
    os.fsync(descriptor)


def _discard(file: Staged) -> None:
    if file.temporary is not None:
        with suppress(OSError):
            os.unlink(file.temporary, dir_fd=file.directory)
    give_back(file.descriptor)


def _temporary_name() -> str:
    return f"{_ours()}{secrets.token_hex(8)}{_TEMPORARY[1]}"


@cache
def _ours() -> str:
    """What all temporary names of this process begin with. No process id: after a boot it may be the same."""
    return f"{_TEMPORARY[0]}{secrets.token_hex(4)}."
