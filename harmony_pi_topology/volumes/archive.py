"""A volume's data as a tar archive, and back: by GNU tar, in a thread that can be cut short.

    save:  tar -> its bytes, hashed and counted -> a file, as long as the disk keeps some room
    load:  every header is looked at -> tar, into a directory of its own -> what came of it is looked at

tar keeps owners by number, modes, times, hard links, holes, access control lists, user attributes and file
capabilities. It is called, and not written anew in Python, since it also keeps its word with archives that
somebody hostile has made: a name never leads outside of where it extracts, neither by itself nor through a
link that came before. What a volume may never have, such as a device, is found before it is called.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import attrs

from harmony_core.errors import ArchiveRefused, NoRoom, RequestFailed, VolumeBusy, WriteFailed
from harmony_core.room import ROOM_KEPT_BYTES
from harmony_core.visible import word
from harmony_core.volumes import ArchivedVolume, TellBytes
from harmony_pi_topology.posix.errors import translate_errors

__all__ = [
    "Cut",
    "Extent",
    "count_bytes",
    "exchange",
    "extract",
    "look_through",
    "remove",
    "require_room",
    "write_archive",
]

_PIECE_BYTES = 256 * 1024
_LOOK_AT_ROOM_BYTES = 16 * 1024 * 1024
_HEADER_MOST_BYTES = 1024 * 1024
"""Of what one entry says of itself: a long name, its attributes, where its holes are."""
_NAME_MOST = 4096
_ENTRIES_MOST = 5_000_000
_ENTRY_BYTES = 4096
"""What an entry takes on a disk beside its content."""
_SAID_MOST = 400
_KEPT = ("--numeric-owner", "--acls", "--xattrs")
_ATTRIBUTES = ("--xattrs-include=user.*", "--xattrs-include=security.capability")
_TYPES = frozenset(
    {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE}
    | {tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE}
)
_EXCHANGE = 2
_HERE = -100
_LIBC = ctypes.CDLL(None, use_errno=True)


class Cut:
    """Ends what is under way in a thread, from another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_cut = False

    def cut(self) -> None:
        """End it. Idempotent."""
        with self._lock:
            self._is_cut = True
            if self._process is not None:
                self._process.kill()

    def check(self) -> None:
        """Raise `RequestFailed` where it is cut."""
        if self._is_cut:
            raise RequestFailed("it was given up before its end; ask again")

    @contextmanager
    def running(self, process: subprocess.Popen[bytes]) -> Generator[None]:
        """Kill *process* when this is cut, and at the end of the block."""
        with self._lock:
            self._process = process
            if self._is_cut:
                process.kill()
        try:
            yield
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            with self._lock:
                self._process = None


@attrs.frozen(kw_only=True)
class Extent:
    """What an archive has in it."""

    entries: int
    size_bytes: int
    has_top: bool
    """Whether it says the owner and mode of the volume's own directory."""


def count_bytes(place: Path, cut: Cut) -> int:
    """Return about how many bytes an archive of what is beneath *place* takes: holes are none, and a file
    with several names is there once.

    In bounded memory, however much that is; what comes and goes meanwhile is counted or not.
    """
    total = 0
    command = ["find", str(place), "-ignore_readdir_race", "-xdev", "-printf", r"%y %s %b %n\n"]
    with _lines_of(command, cut) as (lines, _):
        for line in lines:
            kind, size, blocks, names = line.split()
            if kind == b"d":
                total += _ENTRY_BYTES
            elif int(names):  # else it was deleted just now
                # Each of its names has its share, so that none has to be kept in mind.
                total += min(int(size), int(blocks) * 512) // int(names) + 1024
    return total


def require_room(place: Path, needed_bytes: int, what: str) -> None:
    """Raise `NoRoom` unless the disk of *place* has room for *needed_bytes*, and some is left."""
    disk = os.statvfs(place)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < needed_bytes + ROOM_KEPT_BYTES:
        raise NoRoom(
            f"{what} needs about {_mega(needed_bytes)}, and {_mega(ROOM_KEPT_BYTES)} are left free; the disk "
            f"of {place} has {_mega(free_bytes)}: free {_mega(needed_bytes + ROOM_KEPT_BYTES - free_bytes)}"
        )


def write_archive(
    place: Path, into: Path, of_bytes: int, tell: TellBytes, cut: Cut
) -> ArchivedVolume:
    """Write all that is beneath *place* to *into*, which only its owner may read; about *of_bytes* of it."""
    require_room(into.parent, of_bytes, "its archive")
    command = [
        *("tar", "--create", "--file=-", f"--directory={place}", "--format=posix", "--sparse"),
        *(
            "--pax-option=delete=atime,delete=ctime",
            "--one-file-system",
            "--warning=no-file-ignored",
        ),
        *_KEPT,
        *_ATTRIBUTES,
        ".",
    ]
    digest, done, looked = hashlib.sha256(), 0, 0
    with (
        translate_errors(str(into)),
        # Buffered: on a disk that is nearly full, a single write may take in less than it was given.
        open(into, "xb", opener=_for_owner_alone) as file,
    ):
        process = _begin(command, stdout=subprocess.PIPE)
        ending = _Ending(process)
        with cut.running(process):
            assert process.stdout is not None
            while piece := process.stdout.read(_PIECE_BYTES):
                cut.check()
                digest.update(piece)
                file.write(piece)
                done += len(piece)
                tell(done, max(done, of_bytes))
                if done - looked > _LOOK_AT_ROOM_BYTES:
                    looked = done
                    require_room(into.parent, 0, "more of its archive")
            said, status = ending.wait()
    cut.check()
    if status == 1:
        raise VolumeBusy(
            f"what is in the volume was changed while it was read: {said}; ask again with --stop, or end "
            "what else writes there"
        )
    if status:
        raise RequestFailed(f"tar has failed ({status}): {said}")
    return ArchivedVolume(size_bytes=done, sha256=digest.hexdigest())


def look_through(archive: Path, cut: Cut) -> Extent:
    """Return what is in *archive*, of which every header is looked at. `ArchiveRefused`.

    In bounded memory, whatever it is: of all entries but the newest, nothing is kept.
    """
    entries, has_top, size_bytes = 0, False, 0
    with translate_errors(str(archive), doing="read"), archive.open("rb") as file:
        bounded = _Bounded(file)
        to_read: Any = bounded  # what tarfile uses of a file, it has
        try:
            with tarfile.open(fileobj=to_read, mode="r:", errorlevel=2) as tar:
                while (entry := tar.next()) is not None:
                    cut.check()
                    has_top |= _look_at(entry, tar)
                    size_bytes += _count_entry_bytes(entry)
                    entries += 1
                    kept: Any = tar  # typeshed has its list not
                    kept.members.clear()
                    bounded.begin_entry()
                    if entries > _ENTRIES_MOST:
                        raise ArchiveRefused(f"it has more than {_ENTRIES_MOST:,} entries")
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise ArchiveRefused(f"it breaks off, or is damaged, after {entries:,} entries")
        except (tarfile.TarError, ValueError, OverflowError, UnicodeError, EOFError) as error:
            raise ArchiveRefused(
                f"it is no plain tar archive: {error}; a compressed one is to be unpacked first: gunzip"
            ) from error
    if not entries:
        raise ArchiveRefused("there is nothing in it, not even the volume's own directory")
    return Extent(entries=entries, size_bytes=size_bytes, has_top=has_top)


def extract(archive: Path, into: Path, extent: Extent, like: Path, cut: Cut) -> None:
    """Extract *archive* into *into*, which is made, and see to it that it is on the disk.

    Its own directory is as the archive says, or else as *like* is.
    """
    require_room(into.parent, extent.size_bytes, "what is in it")
    with translate_errors(str(into)):
        into.mkdir(mode=0o700)
        command = [
            *("tar", "--extract", f"--file={archive}", f"--directory={into}"),
            *("--same-owner", "--same-permissions", "--delay-directory-restore"),
            *_KEPT,
            *_ATTRIBUTES,
        ]
        process = _begin(command)
        ending = _Ending(process)
        with cut.running(process):
            said, status = ending.wait()
        cut.check()
        if status:
            raise ArchiveRefused(f"tar could not extract it ({status}): {said}")
        _refuse_foreign_files(into, cut)
        if not extent.has_top:
            found = like.stat()
            os.chown(into, found.st_uid, found.st_gid)
            into.chmod(stat.S_IMODE(found.st_mode))
        _sync(into)


def exchange(one: Path, other: Path) -> None:
    """Have each of two directories, of one parent, in the place of the other: at one instant, and for good
    once this returns."""
    with translate_errors(str(one), doing="exchanged"):
        paths = (os.fsencode(one), os.fsencode(other))
        if _LIBC.renameat2(_HERE, paths[0], _HERE, paths[1], _EXCHANGE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _flush(one.parent)


def _look_at(entry: tarfile.TarInfo, tar: tarfile.TarFile) -> bool:
    """Raise `ArchiveRefused` where *entry* is none that a volume may have. Return whether it is the volume's
    own directory."""
    name = entry.name
    shown = word(name[:200])
    if entry.type not in _TYPES:
        what = "a device" if entry.isdev() else f"of an unknown type ({entry.type!r})"
        raise ArchiveRefused(f"{shown} is {what}, which no volume may have; leave it out")
    _refuse_outside(name, f"{shown} leads outside of the volume")
    if entry.islnk():
        target = word(entry.linkname[:200])
        _refuse_outside(
            entry.linkname, f"{shown} is another name of {target}, outside of the volume"
        )
    if sum(len(key) + len(value) for key, value in tar.pax_headers.items()) > _HEADER_MOST_BYTES:
        raise ArchiveRefused("its headers are too long")
    return entry.isdir() and Path(name) == Path()


def _refuse_outside(name: str, why: str) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise ArchiveRefused(f"{why}; leave it out")
    if len(name) > _NAME_MOST:
        raise ArchiveRefused(f"it has a name of more than {_NAME_MOST} characters; leave it out")


def _count_entry_bytes(entry: tarfile.TarInfo) -> int:
    """Return what *entry* takes on a disk, without its holes."""
    sparse: Any = entry.sparse  # typeshed takes it for a number
    if sparse is not None:
        content: int = sum(size for _, size in sparse)
        return content + _ENTRY_BYTES
    return (entry.size if entry.isreg() else 0) + _ENTRY_BYTES


class _Bounded:
    """A file for tarfile, which reads into memory whatever an entry says of itself: so that is bounded."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _HEADER_MOST_BYTES
        self.mode = "rb"
        self.name = ""

    def begin_entry(self) -> None:
        self._left = _HEADER_MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        self._left -= size if size >= 0 else _HEADER_MOST_BYTES + 1
        if self._left < 0:
            raise ArchiveRefused(
                "an entry of it says too much of itself, such as where very many holes are; leave it out, or "
                "copy it without holes (cp --sparse=never)"
            )
        return self._file.read(size)

    def seek(self, at: int, whence: int = 0) -> int:
        return self._file.seek(at, whence)

    def tell(self) -> int:
        return self._file.tell()


def remove(path: Path) -> None:
    """Delete *path*, if it is there, with all that is beneath, however deep that is; but not what is mounted
    there. `WriteFailed`."""
    said, status = _Ending(_begin(["rm", "-rf", "--one-file-system", "--", str(path)])).wait()
    if status or os.path.lexists(path):
        raise WriteFailed(
            f"{path} could not be deleted: {said or f'rm has failed ({status})'}; delete it by hand"
        )


def _refuse_foreign_files(into: Path, cut: Cut) -> None:
    """Look at what tar has made: what it reads otherwise than we did must not come through."""
    command = ["find", str(into), "-xdev", "(", "-type", "b", "-o", "-type", "c", ")"]
    with _lines_of([*command, "-printf", r"%P\n", "-quit"], cut) as (lines, ending):
        name = b"".join(lines)
        said, status = ending.wait()
    if name:
        shown = word(name[:200].decode(errors="replace").strip())
        raise ArchiveRefused(f"{shown} is a device, which no volume may have; leave it out")
    if status:
        raise RequestFailed(f"what was extracted could not be looked through ({status}): {said}")


@contextmanager
def _lines_of(command: list[str], cut: Cut) -> Generator[tuple[IO[bytes], _Ending]]:
    """Yield what *command* writes, and how it ends; raise at the end where it was cut short."""
    process = _begin(command, stdout=subprocess.PIPE)
    ending = _Ending(process)
    with cut.running(process):
        assert process.stdout is not None
        yield process.stdout, ending
    cut.check()


def _begin(command: list[str], stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - no shell, and nothing of it is anybody's
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        package = {"find": "findutils", "rm": "coreutils"}.get(command[0], command[0])
        raise RequestFailed(
            f"{command[0]} is not installed on this device; run there: apt install {package}"
        ) from error
    except OSError as error:
        raise RequestFailed(
            f"{command[0]} could not be called: {error.strerror}; ask again in a moment"
        ) from error


class _Ending:
    """Listens to what a process complains of, in a thread of its own, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._said = b""
        self._thread = threading.Thread(target=self._listen, name="tar complains", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as said:
            while piece := os.read(said.fileno(), _PIECE_BYTES):
                self._said = (self._said + piece)[-_SAID_MOST:]

    def wait(self) -> tuple[str, int]:
        """Return the last that it has said, and its status, once it has ended."""
        self._thread.join()
        said = self._said.decode(errors="replace").strip().replace("\n", "; ")
        return word(said), self._process.wait()


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _sync(path: Path) -> None:
    """Have all of its file system on the disk: a power cut must not leave a directory of empty files."""
    at = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(at):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(at)
    _flush(path.parent)


def _flush(directory: Path) -> None:
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(at)
    finally:
        os.close(at)


def _mega(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
