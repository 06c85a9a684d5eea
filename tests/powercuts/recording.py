"""What processes asked of a disk, in order: recorded by strace, with every byte.

::

    recording = Recording(root, log)
    with recording.of_process(pid):
        …                                   # a child of pid writes beneath root
    calls = recording.read()                # -> `tests.powercuts.disk.Disk`

A thread's call counts from its end, since before that nothing of it need have happened; only what a flush
covers is what had ended when the flush began.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.topology.tracing import wait_until_attached

__all__ = ["Call", "Place", "Recording"]

_CALLS = (
    *(
        "open",
        "openat",
        "openat2",
        "creat",
        "write",
        "pwrite64",
        "writev",
        "pwritev",
        "pwritev2",
        "lseek",
    ),
    *("truncate", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat"),
    *(
        "symlink",
        "symlinkat",
        "unlink",
        "unlinkat",
        "mkdir",
        "mkdirat",
        "rmdir",
        "mknod",
        "mknodat",
    ),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat"),
    *("fsync", "fdatasync", "sync_file_range", "syncfs", "sync", "msync", "mmap"),
    *("copy_file_range", "sendfile", "splice"),
)
_MOST_BYTES = 1 << 24
_LINE = re.compile(r"(\d+) +(.*)")
_BEGUN = re.compile(r"(\w+)\((.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_ENDED = re.compile(r"(.*)\) += (-?\d+)(.*)")
_PLACE = re.compile(r"(-?\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?")
_UNFINISHED = " <unfinished ...>"


@attrs.frozen
class Place:
    """A file that was open, by what the kernel called it then."""

    number: int | None
    """Of its descriptor; None for the working directory."""
    path: str
    is_nameless: bool
    """Whether no name led there."""


@attrs.frozen
class Call:
    """One that succeeded."""

    name: str
    arguments: tuple[str, ...]
    result: int
    opened: Place | None
    began: int
    """How many calls had ended when it began."""

    def place(self, index: int) -> Place:
        """Return the descriptor that was given there."""
        found = _place(self.arguments[index])
        assert found is not None, f"{self.name}: no file is named by {self.arguments[index]}"
        return found

    def text(self, index: int) -> bytes:
        """Return the bytes that were given there."""
        return _bytes(self.arguments[index])

    def number(self, index: int) -> int:
        """Return the number that was given there."""
        return int(self.arguments[index], 0)

    def path(self, directory: int | None, index: int) -> str:
        """Return the path that was given at *index*, relative to the descriptor at *directory*."""
        named = self.text(index).decode()
        if named.startswith("/"):
            return named
        assert directory is not None, f"{self.name} with a relative path: {named}"
        return f"{self.place(directory).path}/{named}".rstrip("/")


@attrs.frozen
class Recording:
    """Of what happens beneath *root*."""

    root: Path
    log: Path

    @contextmanager
    def of_process(self, pid: int) -> Generator[None]:
        """Record what *pid* and the children that it will have do meanwhile."""
        strace = subprocess.Popen(
            [*self.command, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        with strace:
            wait_until_attached(strace, pid)
            yield
            strace.send_signal(signal.SIGINT)

    @property
    def command(self) -> list[str]:
        """Return what a command is put behind to be recorded."""
        names = ",".join(f"?{name}" for name in _CALLS)
        shown = ["-f", "-y", "-qq", "-xx", "-s", str(_MOST_BYTES), "-e", f"trace={names}"]
        return ["strace", *shown, "-e", "signal=none", "-o", str(self.log)]

    def read(self) -> list[Call]:
        """Return the calls that have succeeded, in the order in which they ended."""
        return list(_calls(self.log, beneath=str(self.root)))


def _calls(log: Path, *, beneath: str) -> Iterator[Call]:
    needle = "".join(f"\\x{each:02x}" for each in beneath.encode())
    begun: dict[str, tuple[str, str, int]] = {}
    ended = 0
    with log.open() as lines:
        for line in lines:
            if (matched := _LINE.match(line)) is None:
                continue
            thread, said = matched.groups()
            is_unfinished = said.endswith(_UNFINISHED)
            said = said.removesuffix(_UNFINISHED)
            if resumed := _RESUMED.match(said):
                name, before, began = begun.pop(thread)
                assert name == resumed[1]
                said = before + resumed[2]
            elif opening := _BEGUN.match(said):
                name, said, began = opening[1], opening[2], ended
            else:
                continue  # it was ended
            if is_unfinished:
                begun[thread] = (name, said, began)
            elif (
                (needle in said or name == "sync")
                and (done := _ENDED.fullmatch(said))
                and not done[2].startswith("-")
            ):
                ended += 1
                yield Call(
                    name,
                    tuple(_split(done[1])),
                    int(done[2]),
                    _place(f"{done[2]}{done[3]}"),
                    began,
                )


def _split(arguments: str) -> Iterator[str]:
    """Yield each of them. No text in them has other characters than ``\\x41``."""
    depth, begin = 0, 0
    for at, letter in enumerate(arguments):
        if letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            yield arguments[begin:at].strip()
            begin = at + 1
    yield arguments[begin:].strip()


def _place(text: str) -> Place | None:
    if (matched := _PLACE.match(text)) is None:
        return None
    number, path, deleted = matched.groups()
    return Place(
        None if number == "AT_FDCWD" else int(number), _bytes(path).decode(), deleted is not None
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.strip('"').replace("\\x", ""))
