"""Files of a device, looked at and replaced so that neither a race nor a power cut can hurt.

All paths are absolute, as the device sees them, and beneath one root (`/`, or a folder). Nothing here
follows a symbolic link. A file is replaced in these steps, for a whole batch at once::

    temporary file (no name yet) -> chown, chmod, allocate, write, fsync, read again     each
    link and rename over the target, and a look                                          each
    fsync of the directory                                                               once a directory

so at every instant the target is the old file or the new one, whole, and once `write_many` returns it is the
new one also after a power cut. A directory whose flush failed shows what might not last: of what is in it
nothing is told until a later flush has succeeded.

These functions block; they are called in a thread.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, Self

from harmony_core.errors import CapabilityError, UnsafePath, WriteFailed
from harmony_core.paths import check_path
from harmony_pi_topology.common.path_calls import step

from .attributes import set_attributes
from .beneath import Opener, give_back, open_beneath
from .errors import make_write_failed, translate_errors, translate_path_errors
from .extras import Extras, extras_of
from .found import Found, look_in, refuse_other_kinds
from .hashing import sha256_of
from .safe_write import (
    DIRECTORY_BITS,
    CopiedContent,
    Draft,
    Staged,
    is_left,
    make_temporary_name,
    publish,
    refuse_unsafe,
    stage,
)

__all__ = ["CopiedContent", "Draft", "Found", "Root"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


class Root:
    """A directory beneath which everything lies. Close it, or use it in a with block."""

    def __init__(self, path: str = "/", *, opener: Opener = open_beneath) -> None:
        self.path = path
        self._open = opener
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._unflushed: set[str] = set()
        self._swept: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the root's descriptor. Idempotent."""
        if self._fd >= 0:
            give_back(self._fd)
            self._fd = -1

    def look(self, path: str) -> Found | None:
        """Return what is at *path*; None when nothing is. Raise `UnsafePath` when a link is on the way."""
        with self._parent(path) as (directory, name):
            if directory is None:
                return None
            with translate_errors(path, doing="looked at"):
                return look_in(directory, name)

    def look_many(self, paths: Sequence[str]) -> list[Found | CapabilityError | None]:
        """Return what `look` returns for each path, in order; an error is its path's answer. Each directory
        is opened once."""
        answers: list[Found | CapabilityError | None] = [None] * len(paths)
        for parent, inside in _by_parent(paths, answers).items():
            first = paths[inside[0][0]]
            try:
                if self._unflushed:
                    self._make_sure_of_way(first)
                with self._directory(parent, first) as directory:
                    for index, name in inside:
                        step(paths[index])
                        answers[index] = look_in(directory, name)
            except FileNotFoundError:
                continue  # there is no such directory
            except (OSError, CapabilityError):
                # One by one, so that each has an error of its own.
                for index, _ in inside:
                    answers[index] = self._look(paths[index])
        return answers

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return the content. Raise FileNotFoundError, or `UnsafePath` for what is not a file or too
        large."""
        with self._open_regular(path) as descriptor, translate_errors(path, doing="read"):
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(max_bytes + 1)
            if len(content) > max_bytes:
                size = os.fstat(descriptor).st_size
                raise UnsafePath(
                    f"{path} has {size} bytes, more than the {max_bytes} that are read; shorten it"
                )
            return content

    def sha256(self, path: str) -> str:
        """Return the hexadecimal SHA-256 of the whole content. Raise FileNotFoundError, or `UnsafePath` for
        what is not a file or has more than `HASHED_MAX_BYTES`."""
        with self._open_regular(path) as descriptor, translate_errors(path, doing="read"):
            return sha256_of(descriptor, path)

    def write_many(self, drafts: Sequence[Draft]) -> list[Found]:
        """Replace or create each file, atomically and durably; parents must exist.

        Raise `UnsafePath` when a target is not a regular file; `WriteFailed` when the disk refuses. If any
        draft fails before the first rename, nothing is changed at all; a later error leaves each file either
        old or new, and a retry is right.
        """
        for draft in drafts:
            refuse_unsafe(draft.path, mode=draft.mode, uid=draft.uid, gid=draft.gid)
        with ExitStack() as held:
            directories: dict[str, int] = {}
            files = [self._stage(draft, directories, held) for draft in drafts]
            try:
                return [publish(file) for file in files]
            finally:
                # Also when the batch broke off half-way: what has its new name must keep it.
                self._flush_all(directories)

    def change(self, path: str, *, mode: int, uid: int = -1, gid: int = -1) -> Found:
        """Set mode and owner of an existing file, durably; the inode stays."""
        refuse_unsafe(path, mode=mode, uid=uid, gid=gid)
        with (
            self._open_regular(path) as descriptor,
            translate_errors(path, doing="changed", at=descriptor),
        ):
            found = set_attributes(descriptor, path, mode=mode, uid=uid, gid=gid)
            os.fsync(descriptor)
            return found

    def identities(self, path: str) -> frozenset[str]:
        """Return the claims by which the kernel knows *path*, whatever other names it has.

        They are the number of what is there, which a hard link or a mount shows under another name, too; and
        the number of the deepest directory on the way, with the rest of the path, for what is not there yet
        or is replaced. Raise `UnsafePath` where a link is on the way. Change nothing.
        """
        check_path(path)
        wanted = PurePosixPath(path)
        for parent in wanted.parents:
            rest = wanted.relative_to(parent)
            with (
                suppress(FileNotFoundError),
                self._directory(str(parent).rstrip("/"), path) as directory,
                translate_errors(path, doing="looked at"),
            ):
                names = {f"{_inode_id(os.fstat(directory))}/{rest}"}
                with suppress(FileNotFoundError):
                    if len(rest.parts) == 1:
                        there = os.stat(rest.name, dir_fd=directory, follow_symlinks=False)
                        names.add(_inode_id(there))
                return frozenset(names)
        return frozenset()

    def identities_many(self, paths: Sequence[str]) -> list[frozenset[str] | CapabilityError]:
        """Return the `identities` of each path, in order; an error is its path's answer. Each directory is
        opened once."""
        answers: list[frozenset[str] | CapabilityError] = [frozenset()] * len(paths)
        for parent, inside in _by_parent(paths, answers).items():
            try:
                with self._directory(parent, paths[inside[0][0]]) as directory:
                    number = _inode_id(os.fstat(directory))
                    for index, name in inside:
                        step(paths[index])
                        names = {f"{number}/{name}"}
                        with suppress(FileNotFoundError):
                            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
                            names.add(_inode_id(there))
                        answers[index] = frozenset(names)
            except (OSError, CapabilityError):
                # One by one: the directory is not there yet, or each has an error of its own.
                for index, _ in inside:
                    answers[index] = self._identities(paths[index])
        return answers

    def _identities(self, path: str) -> frozenset[str] | CapabilityError:
        try:
            return self.identities(path)
        except CapabilityError as error:
            return error

    def count_names(self, path: str) -> int:
        """Return how many names (hard links) a regular file has, *path* being one of them."""
        with self._open_regular(path) as descriptor, translate_errors(path, doing="looked at"):
            return os.fstat(descriptor).st_nlink

    def extras(self, path: str) -> Extras:
        """Return what a regular file has beyond content, mode and owner. FileNotFoundError."""
        with self._open_regular(path) as descriptor, translate_errors(path, doing="looked at"):
            return extras_of(descriptor)

    def make_directory(self, path: str) -> None:
        """Make the directory, and those above it that are missing (0755), durably."""
        self.make_parents(path)
        self._is_made(path)

    def change_directory(self, path: str, *, mode: int, uid: int = -1, gid: int = -1) -> None:
        """Set mode and owner of a directory, durably; FileNotFoundError."""
        refuse_unsafe(path, mode=mode, uid=uid, gid=gid, allowed=DIRECTORY_BITS)
        with (
            self._directory(path, path) as descriptor,
            translate_errors(path, doing="changed", at=descriptor),
        ):
            set_attributes(descriptor, path, mode=mode, uid=uid, gid=gid)
            os.fsync(descriptor)

    def remove(self, path: str) -> bool:
        """Unlink a regular file, durably. Return False when there is none. Raise `UnsafePath` for anything
        else."""
        with self._parent(path) as (directory, name):
            if directory is None:
                return False
            with translate_errors(path, doing="removed", at=directory):
                if (found := look_in(directory, name)) is None:
                    return False
                refuse_other_kinds(path, found)
                os.unlink(name, dir_fd=directory)
                _refuse_still_there(path, look_in(directory, name))
            self._flush_all({_split(path)[0]: directory})
            return True

    def read_link(self, path: str) -> str | None:
        """Return where the symbolic link at *path* leads; None when there is none any more.

        Raise `UnsafePath` where that is not text.
        """
        with self._parent(path) as (directory, name):
            if directory is None:
                return None
            with translate_errors(path, doing="read"):
                try:
                    target = os.readlink(name, dir_fd=directory)
                except OSError as error:
                    if error.errno in {errno.ENOENT, errno.EINVAL}:
                        return None
                    raise
        try:
            target.encode()
        except UnicodeEncodeError as error:
            raise UnsafePath(
                f"{path} leads to a name that is not text; remove the link by hand"
            ) from error
        return target

    def put_link(self, path: str, target: str, *, uid: int = -1, gid: int = -1) -> None:
        """Make a symbolic link, or replace one in one step, durably; the directory above must be there.

        `UnsafePath` where something else is there. An owner of -1 is left to the process.
        """
        with self._parent(path) as (directory, name):
            if directory is None:
                raise WriteFailed(f"{path}: the directory above vanished; it is tried again later")
            temporary = make_temporary_name()
            with translate_errors(path, doing="made", at=directory):
                if (found := look_in(directory, name)) is not None and found.kind != "symlink":
                    raise UnsafePath(f"{path} is something else by now, and no link; move it away")
                os.symlink(target, temporary, dir_fd=directory)
                try:
                    self._own_link(temporary, directory, uid, gid)
                    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                except BaseException:
                    os.unlink(temporary, dir_fd=directory)
                    raise
            self._flush_all({_split(path)[0]: directory})

    def remove_link(self, path: str) -> None:
        """Remove a symbolic link, durably; `UnsafePath` for anything else."""
        with self._parent(path) as (directory, name):
            if directory is None:
                return
            with translate_errors(path, doing="removed", at=directory):
                if (found := look_in(directory, name)) is None:
                    return
                if found.kind != "symlink":
                    raise UnsafePath(f"{path} is something else by now, and no link; it is left")
                os.unlink(name, dir_fd=directory)
                _refuse_still_there(path, look_in(directory, name))
            self._flush_all({_split(path)[0]: directory})

    @staticmethod
    def _own_link(name: str, directory: int, uid: int, gid: int) -> None:
        facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if uid not in {-1, facts.st_uid} or gid not in {-1, facts.st_gid}:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

    def may_give_way(self, path: str, found: Found) -> bool:
        """Return whether *found* has no content of its own: a symbolic link, or an empty directory."""
        if found.kind != "directory":
            return found.kind == "symlink"
        try:
            with (
                self._directory(path, path) as descriptor,
                translate_errors(path, doing="looked at"),
                os.scandir(descriptor) as inside,
            ):
                return next(inside, None) is None
        except FileNotFoundError:
            return False

    def list_below(self, path: str) -> list[str]:
        """Return every path below the directory *path*; none where it is no directory."""
        try:
            with (
                self._directory(path, path) as descriptor,
                translate_errors(path, doing="looked at"),
            ):
                return [
                    str(PurePosixPath(path, here, name))
                    for here, directories, files, _ in os.fwalk(".", dir_fd=descriptor)
                    for name in (*directories, *files)
                ]
        except (FileNotFoundError, UnsafePath):
            return []

    def make_way(self, path: str) -> None:
        """Remove a symbolic link or an empty directory. Raise `UnsafePath` for anything else but a file.

        This is durable with whatever is written there next.
        """
        with self._parent(path) as (directory, name):
            if directory is None:
                return
            with translate_errors(path, doing="removed", at=directory):
                if (found := look_in(directory, name)) is None:
                    return
                if found.kind == "symlink":
                    os.unlink(name, dir_fd=directory)
                elif found.kind == "directory":
                    os.rmdir(name, dir_fd=directory)

    def make_parents(self, path: str) -> list[str]:
        """Make the directories above *path* that are missing (0755), durably. Return those made, topmost
        first."""
        with self._parent(path) as (directory, _):
            if directory is not None:
                return []
        above = [str(parent) for parent in reversed(PurePosixPath(path).parents[:-1])]
        return [parent for parent in above if self._is_made(parent)]

    def missing_above(self, path: str) -> list[str]:
        """Return the directories above *path* that are not there, the nearest first."""
        missing: list[str] = []
        with suppress(CapabilityError):  # then making them will say so
            for parent in map(str, PurePosixPath(path).parents[:-1]):
                if self.look(parent) is not None:
                    break
                missing.append(parent)
        return missing

    def remove_empty(self, directories: Iterable[str]) -> list[str]:
        """Remove those of *directories* that are empty, deepest first. Return those that are gone now.

        One with something in it stays. Raise `WriteFailed` for one that cannot be removed for another reason,
        once the others have been tried.
        """
        errors: list[CapabilityError] = []
        gone: list[str] = []
        for path in sorted(directories, key=len, reverse=True):
            try:
                with self._parent(path) as (directory, name):
                    if directory is None or self._is_gone(path, directory, name):
                        gone.append(path)
            except CapabilityError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return gone

    def sweep(self, directories: Iterable[str]) -> int:
        """Remove temporary files that a killed agent left in *directories*. Return how many.

        Look into each directory once: this process leaves none. Never raise: what cannot be removed does no
        harm.
        """
        count = 0
        for path in set(directories) - self._swept:
            with suppress(OSError, CapabilityError):
                if path != "/":
                    check_path(path)
                with self._directory(path.rstrip("/"), path) as directory:
                    count += _swept(directory)
                self._swept.add(path)
        return count

    def _look(self, path: str) -> Found | CapabilityError | None:
        try:
            return self.look(path)
        except CapabilityError as error:
            return error

    def _stage(self, draft: Draft, directories: dict[str, int], held: ExitStack) -> Staged:
        """Write *draft* to its directory, under no name yet. *held* closes both."""
        parent, name = _split(draft.path)
        with translate_errors(draft.path):
            if parent not in directories:
                directories[parent] = held.enter_context(self._directory(parent, draft.path))
            if (found := look_in(directories[parent], name)) is not None:
                refuse_other_kinds(draft.path, found)
        return held.enter_context(stage(draft, directories[parent]))

    def _is_made(self, path: str) -> bool:
        """Make one directory, unless something of that name is there. Return whether it was made."""
        with self._parent(path) as (directory, name):
            if directory is None:
                raise WriteFailed(f"{path}: the directory above vanished; it is tried again later")
            with translate_errors(path, doing="made", at=directory):
                try:
                    os.mkdir(name, 0o755, dir_fd=directory)
                except FileExistsError:
                    return False
                self._unflushed.add(_split(path)[0])
                # By descriptor: by its name a link could have taken its place.
                made = self._open(directory, name, _DIRECTORY)
                try:
                    self._open_to_all(made)
                finally:
                    give_back(made)
            self._flush_all({_split(path)[0]: directory})
            return True

    @staticmethod
    def _open_to_all(directory: int) -> None:
        """Let everybody enter *directory*, whatever the umask says. Where the file system keeps no modes,
        leave it."""
        try:
            os.fchmod(directory, 0o755)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP}:
                raise

    def _is_gone(self, path: str, directory: int, name: str) -> bool:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno in _NOT_EMPTY:
                return False
            # Not there, or something else is by now: what we made is gone.
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                raise make_write_failed(path, error, doing="removed", at=directory) from error
            return True
        with translate_errors(path, doing="looked at"):
            _refuse_still_there(path, look_in(directory, name))
        with suppress(WriteFailed):  # then it may come back with a power cut: empty
            self._flush_all({_split(path)[0]: directory})
        return True

    def _flush_all(self, directories: Mapping[str, int]) -> None:
        """Flush each, also after one has failed; then raise the first error."""
        errors: list[WriteFailed] = []
        for path, descriptor in directories.items():
            try:
                os.fsync(descriptor)
                self._unflushed.discard(path)
            except OSError as error:
                self._unflushed.add(path)
                errors.append(make_write_failed(path or "/", error, doing="flushed"))
        if errors:
            raise errors[0]

    def _make_sure_of_way(self, path: str) -> None:
        """Flush, of the directories above *path*, those that could not be flushed before."""
        for above in sorted(self._unflushed):
            if path.startswith(f"{above}/"):
                try:
                    with self._directory(above, path) as directory:
                        self._flush_all({above: directory})
                except FileNotFoundError:
                    self._unflushed.discard(above)

    @contextmanager
    def _directory(self, path: str, wanted: str) -> Generator[int]:
        """Open the directory *path* (the root is ""), on the way to *wanted*. Raise FileNotFoundError."""
        step(wanted)
        with translate_path_errors(wanted):
            descriptor = self._open(self._fd, path[1:] or ".", _DIRECTORY)
        try:
            yield descriptor
        finally:
            give_back(descriptor)

    @contextmanager
    def _parent(self, path: str) -> Generator[tuple[int | None, str]]:
        """Yield the directory above *path* (None when there is none) and the last component."""
        check_path(path)
        parent, name = _split(path)
        with ExitStack() as held:
            directory: int | None = None
            if self._unflushed:
                self._make_sure_of_way(path)
            with suppress(FileNotFoundError):
                directory = held.enter_context(self._directory(parent, path))
            yield directory, name

    @contextmanager
    def _open_regular(self, path: str) -> Generator[int]:
        """Open a regular file for reading."""
        check_path(path)
        step(path)
        with translate_path_errors(path):
            # Only a handle, since opening a device or a pipe can already do something.
            handle = self._open(self._fd, path[1:], os.O_PATH | os.O_NOFOLLOW)
        try:
            with translate_errors(path, doing="read"):
                refuse_other_kinds(path, Found.of(os.fstat(handle)))
                descriptor = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            give_back(handle)
        try:
            yield descriptor
        finally:
            give_back(descriptor)


def _inode_id(facts: os.stat_result) -> str:
    return f"inode:{facts.st_dev:x}:{facts.st_ino}"


def _refuse_still_there(path: str, found: Found | None) -> None:
    """Raise `WriteFailed` where *path* was removed, and *found* is still there."""
    if found is not None:
        raise WriteFailed(
            f"{path} was removed, and a {found.kind} is there all the same: somebody makes it anew, "
            "or the file system keeps it; it is tried again later"
        )


def _swept(directory: int) -> int:
    count = 0
    for name in os.listdir(directory):
        if is_left(name):
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
                count += 1
    return count


def _split(path: str) -> tuple[str, str]:
    """Return the directory above *path* ("" for the root) and the last component."""
    parent, _, name = path.rpartition("/")
    return parent, name


def _by_parent(paths: Sequence[str], answers: list[Any]) -> dict[str, list[tuple[int, str]]]:
    """Return the indices and names of *paths* in each directory; enter the error in *answers* for unsafe
    ones."""
    inside: dict[str, list[tuple[int, str]]] = {}
    for index, path in enumerate(paths):
        parent, name = _split(path)
        # A directory is checked with the first path in it, which is most of the work.
        if parent not in inside or not _PLAIN_NAME.fullmatch(name):
            try:
                check_path(path)
            except UnsafePath as error:
                answers[index] = error
                continue
        inside.setdefault(parent, []).append((index, name))
    return inside
