"""A disk, by what was asked of it: all that a power cut may leave of that.

    calls -> steps (names, bytes, a size, a mode) and flushes -> cuts -> a folder as one of them left it

A step is durable once a flush that covers it has ended: of a file, its bytes, size, mode and owner; of a
directory, the names in it, but neither its own name nor what is in the files. Of all other steps any may be
lost. From each point the cuts are: every suffix of the steps that are not durable, torn within the last one
or zeros in its place; the names without the bytes, as a file system with a journal leaves them; the bytes
without the names; and each step alone lost, or alone kept.

One sector of 512 bytes is written whole or not at all, and a rename is: so say the disks, and POSIX.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import attrs

from .recording import Call, Place

__all__ = ["Cut", "Disk"]

SECTOR_BYTES = 512
_ROOT = 0


@attrs.frozen
class SetNames:
    """Names that lead elsewhere from now on, all of them at once: (directory, name) to a file, or to none."""

    names: tuple[tuple[int, str, int | None], ...]


@attrs.frozen
class Write:
    """Bytes of a file."""

    file: int
    offset: int
    data: bytes = attrs.field(repr=lambda data: f"{len(data)} bytes")


@attrs.frozen
class Resize:
    """A file's size; what is new is zeros."""

    file: int
    size: int
    only_grows: bool = False


@attrs.frozen
class SetMode:
    """The mode of a file or directory."""

    file: int
    mode: int


@attrs.frozen
class Flush:
    """What ended before *began*, and concerns *file*, is durable. None is all files."""

    file: int | None
    began: int
    is_data_only: bool = False

    def covers(self, index: int, step: Step) -> bool:
        """Return whether *step*, the *index*th, is durable by it."""
        if index >= self.began:
            return False
        if self.file is None:
            return True
        match step:
            case SetNames():
                return any(directory == self.file for directory, _, _ in step.names)
            case SetMode():
                return step.file == self.file and not self.is_data_only
            case _:
                return step.file == self.file


FileStep = Write | Resize | SetMode
Step = SetNames | FileStep


@attrs.frozen
class Mark:
    """Something that was said to the world."""

    text: str


@attrs.define
class Inode:
    """A file, a directory, or a link."""

    kind: str
    mode: int
    content: bytearray = attrs.field(factory=bytearray)
    mtime_ns: int | None = None
    """As long as nothing was written to it."""

    def copy(self) -> Inode:
        return attrs.evolve(self, content=bytearray(self.content))

    def take(self, step: FileStep) -> None:
        """Become what *step* makes of it."""
        if isinstance(step, SetMode):
            self.mode = step.mode
            return
        self.mtime_ns = None
        if isinstance(step, Resize):
            if not step.only_grows:
                del self.content[step.size :]
            self.content.extend(bytes(max(0, step.size - len(self.content))))
        else:
            self.content.extend(bytes(max(0, step.offset - len(self.content))))
            self.content[step.offset : step.offset + len(step.data)] = step.data


@attrs.frozen
class Cut:
    """One thing that a power cut may leave."""

    at: int
    """How many steps had been asked for; the last point at which this may be left."""
    kept: int
    """Which of them are on the disk, as bits."""
    torn: tuple[int, int] | None = None
    """Of one write among them, how many bytes are."""
    zeros: bool = False
    """Whether what is not there of that write is zeros."""
    how: str = attrs.field(default="", eq=False)
    """In words, for people."""

    def as_left(self, index: int, step: FileStep) -> FileStep:
        """Return what is there of *step*, the *index*th."""
        if self.torn is None or self.torn[0] != index or not isinstance(step, Write):
            return step
        there = self.torn[1]
        rest = bytes(len(step.data) - there if self.zeros else 0)
        return attrs.evolve(step, data=step.data[:there] + rest)


@attrs.define
class Disk:
    """What was beneath a directory, and all that was asked of it since.

    *ignored*: paths beneath it that are no matter. Call `record` once.
    """

    root: Path
    marks_file: Path
    ignored: Collection[str] = ()
    steps: list[Step | None] = attrs.field(factory=list["Step | None"])
    """None is a flush, or a mark."""
    flushes: list[tuple[int, Flush]] = attrs.field(factory=list[tuple[int, Flush]])
    marks: list[tuple[int, Mark]] = attrs.field(factory=list[tuple[int, Mark]])
    _inodes: dict[int, Inode] = attrs.field(factory=dict[int, Inode])
    _names: dict[tuple[int, str], int] = attrs.field(factory=dict[tuple[int, str], int])
    _names_before: dict[tuple[int, str], int] = attrs.field(factory=dict[tuple[int, str], int])
    _nameless: dict[str, int] = attrs.field(factory=dict[str, int])
    _by_number: dict[int, int] = attrs.field(factory=dict[int, int])
    _positions: dict[tuple[int, int], int] = attrs.field(factory=dict[tuple[int, int], int])
    _appended: set[tuple[int, int]] = attrs.field(factory=set[tuple[int, int]])
    _flushed: set[tuple[int, int]] = attrs.field(factory=set[tuple[int, int]])
    """Of a file and a descriptor, whether each write is flushed as it is made."""
    _sizes: dict[int, int] = attrs.field(factory=dict[int, int])

    def __attrs_post_init__(self) -> None:
        self._inodes[_ROOT] = Inode("directory", self.root.stat().st_mode & 0o7777)
        self._read_folder(self.root, _ROOT)
        self._names_before = dict(self._names)

    def record(self, calls: Sequence[Call]) -> None:
        """Take in what was asked."""
        ended: list[int] = []
        """The number of steps when each call had ended."""
        for call in calls:
            self._take(call, (ended[call.began - 1] if call.began else 0))
            ended.append(len(self.steps))

    # -- from calls to steps

    def _take(self, call: Call, began: int) -> None:
        if call.name in {"fsync", "fdatasync"}:
            if (file := self._file(call.place(0))) is not None:
                self._flush(Flush(file, began, is_data_only=call.name == "fdatasync"))
        elif call.name in {"sync", "syncfs"}:
            self._flush(Flush(None, began))
        elif not (self._takes_content(call) or self._takes_name(call) or self._takes_mode(call)):
            places = [call.place(at) for at, each in enumerate(call.arguments) if "<" in each]
            assert all(self._is_ignored(each.path) for each in places), f"not modelled: {call}"

    def _takes_content(self, call: Call) -> bool:
        """Return whether *call* is one that concerns what is in a file."""
        match call.name:
            case "open" | "openat" | "openat2" | "creat":
                self._take_open(call)
            case "write" | "pwrite64":
                self._take_write(call)
            case "lseek":
                self._take_lseek(call)
            case "truncate":
                self._resize(self._find(call.path(None, 0)), call.number(1))
            case "ftruncate":
                self._resize(self._file(call.place(0)), call.number(1))
            case "fallocate":
                self._take_fallocate(call)
            case "mmap":
                self._take_mmap(call)
            case _:
                return False
        return True

    def _takes_name(self, call: Call) -> bool:
        """Return whether *call* is one that concerns names."""
        match call.name:
            case "rename" | "renameat" | "renameat2":
                self._take_rename(call)
            case "link" | "linkat":
                self._take_link(call)
            case "symlink":
                self._make("symlink", call.path(None, 1), 0o777, call.text(0))
            case "symlinkat":
                self._make("symlink", call.path(1, 2), 0o777, call.text(0))
            case "mkdir":
                self._make("directory", call.path(None, 0), _umasked(call.arguments[1]))
            case "mkdirat":
                self._make("directory", call.path(0, 1), _umasked(call.arguments[2]))
            case "unlink" | "rmdir":
                self._unname(call.path(None, 0))
            case "unlinkat":
                self._unname(call.path(0, 1))
            case _:
                return False
        return True

    def _takes_mode(self, call: Call) -> bool:
        """Return whether *call* is one that concerns a mode, or an owner: all is one user's here."""
        match call.name:
            case "chmod":
                self._set_mode(self._find(call.path(None, 0)), call.arguments[1])
            case "fchmod":
                self._set_mode(self._file(call.place(0)), call.arguments[1])
            case "fchmodat" | "fchmodat2":
                self._set_mode(self._find(call.path(0, 1)), call.arguments[2])
            case "chown" | "lchown" | "fchown" | "fchownat":
                pass
            case _:
                return False
        return True

    def _take_open(self, call: Call) -> None:
        flags = call.arguments[1 if call.name in {"open", "creat"} else 2]
        opened = call.opened
        assert opened is not None
        if self._is_ignored(opened.path):
            return
        number = opened.number or 0
        if "O_TMPFILE" in flags:
            file = self._add("file", 0o600)
            self._nameless[opened.path] = self._by_number[number] = file
        elif "O_CREAT" in flags and not opened.is_nameless and self._look(opened.path) is None:
            file = self._make("file", opened.path, _umasked(call.arguments[-1]))
        else:
            found = self._file(opened)
            if found is None:
                return
            file = found
            if "O_TRUNC" in flags and self._sizes.get(file):
                self._resize(file, 0)
        self._positions[file, number] = 0
        for flag, those in {"O_APPEND": self._appended, "SYNC": self._flushed}.items():
            those.discard((file, number))
            if flag in flags:  # of the last: O_SYNC and O_DSYNC
                those.add((file, number))

    def _take_write(self, call: Call) -> None:
        place = call.place(0)
        if place.path == str(self.marks_file):
            self.marks.append((len(self.steps), Mark(call.text(1).decode())))
            self.steps.append(None)
            return
        if (file := self._file(place)) is None or not call.result:
            return
        here = (file, place.number or 0)
        if call.name == "pwrite64":
            offset = call.number(3)
        elif here in self._appended:
            offset = self._sizes.get(file, 0)
        else:
            offset = self._positions.get(here, 0)
        data = call.text(1)[: call.result]
        self.steps.append(Write(file, offset, data))
        self._sizes[file] = max(self._sizes.get(file, 0), offset + len(data))
        if call.name == "write":
            self._positions[here] = offset + len(data)
        if here in self._flushed:
            self._flush(Flush(file, len(self.steps)))

    def _take_lseek(self, call: Call) -> None:
        place = call.place(0)
        if (file := self._file(place)) is not None:
            self._positions[file, place.number or 0] = call.result

    def _take_fallocate(self, call: Call) -> None:
        assert call.arguments[1] == "0", f"not modelled: {call}"
        size = call.number(2) + call.number(3)
        self._resize(self._file(call.place(0)), size, only_grows=True)

    def _take_mmap(self, call: Call) -> None:
        is_shared = "MAP_SHARED" in call.arguments[3] and "PROT_WRITE" in call.arguments[2]
        assert not is_shared or self._is_ignored(call.place(4).path), f"not modelled: {call}"

    def _take_rename(self, call: Call) -> None:
        if call.name == "rename":
            before, after = call.path(None, 0), call.path(None, 1)
        else:
            before, after = call.path(0, 1), call.path(2, 3)
        assert call.name != "renameat2" or call.arguments[4] in {"0", "RENAME_NOREPLACE"}, call
        if self._is_ignored(before) and self._is_ignored(after):
            return
        file = self._find(before)
        self._set_names((*self._split(before), None), (*self._split(after), file))

    def _take_link(self, call: Call) -> None:
        if call.name == "link":
            source, name = call.path(None, 0), call.path(None, 1)
        else:
            source, name = call.path(0, 1), call.path(2, 3)
        if self._is_ignored(name):
            return
        of_descriptor = source.removeprefix("/proc/self/fd/")
        file = (
            self._by_number[int(of_descriptor)] if of_descriptor.isdigit() else self._find(source)
        )
        self._set_names((*self._split(name), file))

    def _flush(self, flush: Flush) -> None:
        self.flushes.append((len(self.steps), flush))
        self.steps.append(None)

    def _add(self, kind: str, mode: int) -> int:
        file = len(self._inodes)
        self._inodes[file] = Inode(kind, mode)
        return file

    def _make(self, kind: str, path: str, mode: int, content: bytes = b"") -> int:
        if self._is_ignored(path):
            return -1
        file = self._add(kind, mode)
        self._inodes[file].content += content
        self._set_names((*self._split(path), file))
        return file

    def _unname(self, path: str) -> None:
        if not self._is_ignored(path):
            self._set_names((*self._split(path), None))

    def _set_names(self, *names: tuple[int, str, int | None]) -> None:
        self.steps.append(SetNames(names))
        _apply_names(self._names, names)

    def _resize(self, file: int | None, size: int, *, only_grows: bool = False) -> None:
        if file is None:
            return
        before = self._sizes.get(file, 0)
        if size == before or (only_grows and size < before):
            return
        self.steps.append(Resize(file, size, only_grows))
        self._sizes[file] = size

    def _set_mode(self, file: int | None, mode: str) -> None:
        if file is not None:
            self.steps.append(SetMode(file, int(mode, 8)))

    def _file(self, place: Place) -> int | None:
        """Return the file that was open there; None for one that is no matter of this disk."""
        if place.path in self._nameless:
            return self._nameless[place.path]
        if place.is_nameless or self._is_ignored(place.path):
            return None
        return self._look(place.path)

    def _find(self, path: str) -> int | None:
        return None if self._is_ignored(path) else self._look(path)

    def _look(self, path: str) -> int | None:
        found = _ROOT
        for name in PurePosixPath(path).relative_to(self.root).parts:
            if (found := self._names.get((found, name), -1)) < 0:
                return None
        return found

    def _split(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        directory = self._look(parent)
        assert directory is not None, f"there is no directory {parent}"
        return directory, name

    def _is_ignored(self, path: str) -> bool:
        """Return whether no disk keeps it; SQLite's -shm is made anew after each boot."""
        if path != str(self.root) and not path.startswith(f"{self.root}/"):
            return True
        found = PurePosixPath(path).relative_to(self.root)
        return path.endswith("-shm") or any(
            str(each) in self.ignored for each in (found, *found.parents)
        )

    def _read_folder(self, folder: Path, directory: int) -> None:
        for each in sorted(folder.iterdir()):
            if self._is_ignored(str(each)):
                continue
            if each.is_symlink():
                file = self._add("symlink", 0o777)
                self._inodes[file].content += bytes(each.readlink())
            else:
                kind = "directory" if each.is_dir() else "file"
                file = self._add(kind, each.stat().st_mode & 0o7777)
            self._names[directory, each.name] = file
            if self._inodes[file].kind == "directory":
                self._read_folder(each, file)
            elif self._inodes[file].kind == "file":
                self._inodes[file].content += each.read_bytes()
                self._inodes[file].mtime_ns = each.stat().st_mtime_ns
                self._sizes[file] = len(self._inodes[file].content)

    # -- from steps to cuts

    def cuts(self) -> list[Cut]:
        """Return each thing that a cut may leave, once, with the last point at which it may."""
        durable_at = self._durable_at()
        found: dict[Cut, Cut] = {}
        for at in range(len(self.steps) + 1):
            for cut in self._cuts_at(at, durable_at):
                key = attrs.evolve(cut, at=0)
                found[key] = cut
        return list(found.values())

    def _durable_at(self) -> Mapping[int, int]:
        """Return from which point on each step is durable."""
        found: dict[int, int] = {}
        for at, flush in self.flushes:
            for index in range(flush.began):
                step = self.steps[index]
                if step is not None and index not in found and flush.covers(index, step):
                    found[index] = at + 1
        return found

    def _cuts_at(self, at: int, durable_at: Mapping[int, int]) -> Iterator[Cut]:
        safe, loose = 0, list[int]()
        for index, step in enumerate(self.steps[:at]):
            if step is None:
                continue
            if durable_at.get(index, at + 1) <= at:
                safe |= 1 << index
            else:
                loose.append(index)
        names = [index for index in loose if isinstance(self.steps[index], SetNames)]
        others = [index for index in loose if index not in names]
        every = _bits(loose)
        kept = safe
        yield Cut(at, kept, how="all lost that was not flushed")
        for index in loose:
            step = self.steps[index]
            kept |= 1 << index
            yield Cut(at, kept, how="a suffix lost")
            if isinstance(step, Write):
                half = len(step.data) // 2 // SECTOR_BYTES * SECTOR_BYTES
                if len(step.data) > SECTOR_BYTES or step.offset % SECTOR_BYTES:
                    yield Cut(at, kept, (index, half), how="torn")
                    yield Cut(at, kept, (index, half), zeros=True, how="zeros")
                elif step.offset + len(step.data) > SECTOR_BYTES:
                    yield Cut(at, kept, (index, 0), zeros=True, how="zeros")
        for count in range(1, len(names) + 1):
            yield Cut(at, safe | _bits(names[:count]), how="names without bytes")
        yield Cut(at, safe | _bits(others), how="bytes without names")
        for index in loose:
            yield Cut(at, safe | (1 << index), how="one alone kept")
            yield Cut(at, safe | every & ~(1 << index), how="one alone lost")

    # -- from a cut to a folder

    def lay_out(self, cut: Cut | None, folder: Path) -> None:
        """Make *folder* what *cut* leaves; None is no cut: all that was asked for."""
        names = dict(self._names_before)
        inodes: dict[int, Inode] = {}

        def of(file: int) -> Inode:
            if file not in inodes:
                inodes[file] = self._inodes[file].copy()
            return inodes[file]

        for index, step in enumerate(self.steps):
            if cut is None or cut.kept >> index & 1:
                if isinstance(step, SetNames):
                    _apply_names(names, step.names)
                elif step is not None:
                    of(step.file).take(step if cut is None else cut.as_left(index, step))
        folder.mkdir()
        self._write_folder(folder, _ROOT, names, of)
        folder.chmod(of(_ROOT).mode)

    def _write_folder(
        self,
        folder: Path,
        directory: int,
        names: Mapping[tuple[int, str], int],
        of: Callable[[int], Inode],
    ) -> None:
        for (parent, name), file in names.items():
            if parent != directory:
                continue
            path, inode = folder / name, of(file)
            if inode.kind == "symlink":
                path.symlink_to(bytes(inode.content).decode())
                continue
            if inode.kind == "directory":
                path.mkdir()
                self._write_folder(path, file, names, of)
            else:
                path.write_bytes(inode.content)
                if inode.mtime_ns is not None:
                    os.utime(path, ns=(inode.mtime_ns, inode.mtime_ns))
            path.chmod(inode.mode)

    def said_before(self, cut: Cut) -> list[str]:
        """Return what had been said to the world by then."""
        return [mark.text for at, mark in self.marks if at < cut.at]


def _apply_names(
    names: dict[tuple[int, str], int], changed: Sequence[tuple[int, str, int | None]]
) -> None:
    for directory, name, file in changed:
        if file is None:
            names.pop((directory, name), None)
        else:
            names[directory, name] = file


def _bits(indices: Sequence[int]) -> int:
    return sum(1 << index for index in indices)


def _umasked(mode: str) -> int:
    return int(mode, 8) & ~_UMASK


def _read_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
