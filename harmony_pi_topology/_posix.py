"""Files of a device, looked at and replaced so that neither a race nor a power cut can hurt.

All paths are absolute, as the device sees them, and beneath one root (`/`, or a folder). Nothing here
follows a symbolic link. A file is replaced in these steps, for a whole batch at once::

    temporary file (no name yet) -> allocate, write, chown, chmod, fsync     each
    link and rename over the target                                          each
    fsync of the directory                                                   once a directory

so at every instant the target is the old file or the new one, whole, and once `write_many` returns it is the
new one also after a power cut. After an fsync that failed the file's pages cannot be trusted; the next
attempt starts from scratch with a new inode.

These functions block; they are called in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, Self

import attrs

from harmony_core.errors import CapabilityError, UnsafePath, WriteFailed
from harmony_core.paths import check_path

from ._beneath import Opener, open_beneath

__all__ = ["Draft", "Found", "Root"]

Kind = Literal["file", "directory", "symlink", "other"]

_PREALLOCATED_BYTES = 64 * 1024
_TEMPORARY = (".harmony.", ".tmp")
_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota is used up; free some space",
    errno.EROFS: "the file system is read-only; look at the kernel's log for a failing card",
    errno.EIO: "the disk reported an error; look at the kernel's log for a failing card",
    errno.EACCES: "permission denied; the agent needs the right to write there",
    errno.EPERM: "not permitted; the agent needs the right, or the file is immutable",
    errno.EMFILE: "too many open files; raise the agent's LimitNOFILE",
}


class Found(NamedTuple):
    """What stands at a path: seven facts, at least one of which changes whenever the file does."""

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    type_and_mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Self:
        # A tuple, and made in one go: looking at a thousand files is mostly this.
        return cls(
            facts.st_ino,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
            facts.st_mode,
            facts.st_uid,
            facts.st_gid,
        )

    @property
    def kind(self) -> Kind:
        return _kind(self.type_and_mode)

    @property
    def mode(self) -> int:
        """The permission bits, with set-user-id, set-group-id and sticky."""
        return stat.S_IMODE(self.type_and_mode)


@attrs.frozen(kw_only=True)
class Draft:
    """A file as it is to be. ``uid`` and ``gid`` -1 leave the owner to the process."""

    path: str
    content: bytes = attrs.field(repr=False)
    mode: int
    uid: int = -1
    gid: int = -1


@attrs.define
class _Staged:
    """A draft, written to a file that has no name yet, or a temporary one."""

    draft: Draft
    directory: int
    descriptor: int
    temporary: str | None


class Root:
    """A directory beneath which everything lies. Close it, or use it in a with block."""

    def __init__(self, path: str = "/", *, opener: Opener = open_beneath) -> None:
        self.path = path
        self._open = opener
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the root's descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def look(self, path: str) -> Found | None:
        """What stands at *path*; None when nothing does. `UnsafePath` when a link leads there."""
        with self._parent(path) as (directory, name):
            return self._look_in(directory, name) if directory is not None else None

    def look_many(self, paths: Sequence[str]) -> list[Found | CapabilityError | None]:
        """`look` at each, in order; an error is its path's answer. Each directory is opened once."""
        answers: list[Found | CapabilityError | None] = [None] * len(paths)
        for parent, inside in _by_parent(paths).items():
            try:
                with self._parent(f"{parent}/{inside[0][1]}") as (directory, _):
                    if directory is None:
                        continue
                    for index, name in inside:
                        answers[index] = self._look_in(directory, name)
            except CapabilityError as error:
                for index, _ in inside:
                    answers[index] = error
        return answers

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The content, FileNotFoundError, or `UnsafePath` for what is not a file or too large."""
        with self._opened(path) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                raise UnsafePath(
                    f"{path} has {size} bytes, more than the {max_bytes} that are read"
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(max_bytes)

    def sha256(self, path: str) -> str:
        """Hex, of the whole content. FileNotFoundError, or `UnsafePath` for what is not a file."""
        with self._opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write_many(self, drafts: Sequence[Draft]) -> list[Found]:
        """Replace or create each file, atomically and durably; parents must exist.

        `UnsafePath` when a target is not a regular file; `WriteFailed` when the disk refuses. If any
        draft fails before the first rename, nothing is changed at all; an error later leaves each
        file either old or new, and doing it again is right.
        """
        staged: list[_Staged] = []
        try:
            for draft in drafts:
                staged.append(self._stage(draft))  # noqa: PERF401 - the earlier must not be lost
            found = [self._publish(each) for each in staged]
            for directory in _distinct(each.directory for each in staged):
                with _mapped(f"the directory of {staged[0].draft.path}"):
                    os.fsync(directory)
            return found
        finally:
            for each in staged:
                _discard(each)

    def change(self, path: str, *, mode: int, uid: int = -1, gid: int = -1) -> Found:
        """Set mode and owner of an existing file, durably; the inode stays."""
        _refuse_special_bits(path, mode)
        with self._opened(path) as descriptor, _mapped(path):
            os.fchown(descriptor, uid, gid)  # first: chown clears bits that chmod sets
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            return Found.of(os.fstat(descriptor))

    def remove(self, path: str) -> bool:
        """Unlink a regular file, durably; False when there is none. `UnsafePath` for anything else."""
        with self._parent(path) as (directory, name):
            found = self._look_in(directory, name) if directory is not None else None
            if found is None or directory is None:
                return False
            _refuse_other_kinds(path, found)
            with _mapped(path):
                os.unlink(name, dir_fd=directory)
                os.fsync(directory)
            return True

    def make_parents(self, path: str) -> list[str]:
        """Make the directories above *path* that are missing (0755), durably: those made, topmost first."""
        check_path(path)
        made: list[str] = []
        for parent in reversed(PurePosixPath(path).parents[:-1]):
            with self._parent(str(parent)) as (directory, name):
                if directory is None:
                    raise UnsafePath(f"{parent} vanished while it was made; try again")
                with _mapped(str(parent)):
                    try:
                        os.mkdir(name, 0o755, dir_fd=directory)
                    except FileExistsError:
                        continue
                    os.chmod(name, 0o755, dir_fd=directory)  # noqa: S103 - whatever the umask says
                    os.fsync(directory)
                made.append(str(parent))
        return made

    def remove_empty(self, directories: Iterable[str]) -> list[str]:
        """Remove those of *directories* that are empty, deepest first: those removed."""
        gone: list[str] = []
        for path in sorted(directories, key=len, reverse=True):
            with self._parent(path) as (directory, name):
                if directory is None:
                    continue
                with suppress(OSError):
                    os.rmdir(name, dir_fd=directory)
                    os.fsync(directory)
                    gone.append(path)
        return gone

    def sweep(self, directories: Iterable[str]) -> int:
        """Remove temporary files that a killed agent left in *directories*: how many."""
        count = 0
        for path in directories:
            with (
                suppress(OSError, UnsafePath),
                self._descriptor(path, os.O_RDONLY | os.O_DIRECTORY) as fd,
            ):
                for name in os.listdir(fd):  # noqa: PTH208 - a descriptor
                    if name.startswith(_TEMPORARY[0]) and name.endswith(_TEMPORARY[1]):
                        os.unlink(name, dir_fd=fd)
                        count += 1
        return count

    def _stage(self, draft: Draft) -> _Staged:
        _refuse_special_bits(draft.path, draft.mode)
        check_path(draft.path)
        parent, _, name = draft.path.rpartition("/")
        with _mapped(draft.path), self._mapped_way(draft.path):
            directory = self._open(self._fd, parent.strip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if (found := self._look_in(directory, name)) is not None:
                _refuse_other_kinds(draft.path, found)
            with _mapped(draft.path):
                staged = _created(draft, directory)
        except BaseException:
            os.close(directory)
            raise
        try:
            with _mapped(draft.path):
                _fill(staged)
        except BaseException:
            _discard(staged)
            raise
        return staged

    def _publish(self, staged: _Staged) -> Found:
        name = staged.draft.path.rpartition("/")[2]
        with _mapped(staged.draft.path):
            if staged.temporary is None:
                staged.temporary = _temporary_name()
                source = f"/proc/self/fd/{staged.descriptor}"
                os.link(source, staged.temporary, dst_dir_fd=staged.directory, follow_symlinks=True)
            os.rename(
                staged.temporary, name, src_dir_fd=staged.directory, dst_dir_fd=staged.directory
            )
            staged.temporary = None
            return Found.of(os.fstat(staged.descriptor))

    def _look_in(self, directory: int, name: str) -> Found | None:
        try:
            return Found.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return None

    @contextmanager
    def _parent(self, path: str) -> Generator[tuple[int | None, str]]:
        """The directory above *path* (None when there is none) and the last component."""
        check_path(path)
        parent, _, name = path.rpartition("/")
        try:
            with self._mapped_way(path):
                directory = self._open(
                    self._fd, parent.strip("/") or ".", os.O_RDONLY | os.O_DIRECTORY
                )
        except FileNotFoundError:
            yield None, name
            return
        try:
            yield directory, name
        finally:
            os.close(directory)

    @contextmanager
    def _opened(self, path: str) -> Generator[int]:
        """A regular file, for reading."""
        # Not blocking: what is there may be a pipe that nobody writes to.
        with self._descriptor(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            _refuse_other_kinds(path, Found.of(os.fstat(descriptor)))
            yield descriptor

    @contextmanager
    def _descriptor(self, path: str, flags: int) -> Generator[int]:
        check_path(path)
        with self._mapped_way(path):
            descriptor = self._open(self._fd, path.strip("/"), flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _mapped_way(self, path: str) -> Generator[None]:
        """What is wrong with the way to *path*, in words."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EXDEV}:
                raise UnsafePath(
                    f"{path}: a symbolic link is on the way; write the real path "
                    "(on Debian /var/run is /run, /bin is /usr/bin)"
                ) from error
            if error.errno == errno.ENOTDIR:
                raise UnsafePath(
                    f"{path}: something that is not a directory, or a link, is on the way; "
                    "write the real path"
                ) from error
            raise _write_failed(path, error) from error


def _fill(staged: _Staged) -> None:
    draft, descriptor = staged.draft, staged.descriptor
    content = memoryview(draft.content)
    if len(content) > _PREALLOCATED_BYTES:
        os.posix_fallocate(descriptor, 0, len(content))
    while content:
        content = content[os.write(descriptor, content) :]
    os.fchown(descriptor, draft.uid, draft.gid)  # first: chown clears bits that chmod sets
    os.fchmod(descriptor, draft.mode)
    os.fsync(descriptor)


def _created(draft: Draft, directory: int) -> _Staged:
    try:
        nameless = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}:
            raise
        # NFS, FAT and some overlays have no files without a name.
        name = _temporary_name()
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        return _Staged(draft, directory, os.open(name, flags, 0o600, dir_fd=directory), name)
    return _Staged(draft, directory, nameless, None)


def _discard(staged: _Staged) -> None:
    if staged.temporary is not None:
        with suppress(OSError):
            os.unlink(staged.temporary, dir_fd=staged.directory)
    os.close(staged.descriptor)
    os.close(staged.directory)


def _temporary_name() -> str:
    return f"{_TEMPORARY[0]}{secrets.token_hex(8)}{_TEMPORARY[1]}"


def _distinct(directories: Iterable[int]) -> list[int]:
    """One descriptor for each different directory."""
    seen: dict[tuple[int, int], int] = {}
    for descriptor in directories:
        facts = os.fstat(descriptor)
        seen.setdefault((facts.st_dev, facts.st_ino), descriptor)
    return list(seen.values())


def _by_parent(paths: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """The indices and names of *paths* in each directory."""
    inside: dict[str, list[tuple[int, str]]] = {}
    for index, path in enumerate(paths):
        parent, _, name = path.rpartition("/")
        inside.setdefault(parent, []).append((index, name))
    return inside


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def _refuse_other_kinds(path: str, found: Found) -> None:
    if found.kind != "file":
        what = {"symlink": "symbolic link", "other": "device, pipe or socket"}.get(
            found.kind, found.kind
        )
        raise UnsafePath(f"{path} is a {what}, not a file; remove it, or choose another path")


def _refuse_special_bits(path: str, mode: int) -> None:
    if mode & ~0o777:
        raise UnsafePath(
            f"{path}: mode {mode:o} has set-user-id, set-group-id or sticky bits; drop them"
        )


@contextmanager
def _mapped(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _write_failed(path, error) from error


def _write_failed(path: str, error: OSError) -> WriteFailed:
    remedy = _REMEDIES.get(error.errno or 0, "it is tried again later")
    return WriteFailed(f"{path} could not be written: {error.strerror}; {remedy}")
