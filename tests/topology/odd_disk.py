"""A file system, by FUSE, that does not do as it is told: in memory, in a process of its own.

::

    with odd_disk(folder, "fixed_mode=0755", "chmod=ignore"):
        ...                                  # folder is such a file system now

What it can be told (see `Habits`): to show every file with one mode or owner, to accept or refuse chmod
and chown, to keep other bytes than were written, to take away modes by a mask, to refuse the removal of
directories, to keep what was unlinked, and never to answer a question about what has ``hang`` in its name.
Real FAT, CIFS, sshfs and NFS do each of these. It speaks the kernel's protocol (linux/fuse.h) itself.

It is also a program by itself, which needs nothing but attrs, so that it can be run on a Pi.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

__all__ = ["end_what_serves", "odd_disk"]

_SERVERS: dict[Path, subprocess.Popen[str]] = {}

_LIBC = ctypes.CDLL(None, use_errno=True)
_ROOT = 1
_REQUEST_BYTES = 1024 * 1024 + 4096
_ANSWER = struct.Struct("<IiQ")
_REQUEST = struct.Struct("<IIQQIIII")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<4Q2I")
_KEPT_FOR_S = 0
"""For how long the kernel may believe an answer: not at all, so that every question is asked."""
_DETACH = 2


@attrs.define
class Habits:
    """In what it is odd. Each is set by ``name=value``."""

    fixed_mode: str = ""
    """Octal: every file and directory shows this mode."""
    mask: str = ""
    """Octal: these bits are never kept, or always set where it begins with ``+``."""
    fixed_owner: str = ""
    """A number: everything shows this owner and group."""
    chmod: str = "keep"
    """``keep``, ``ignore`` or ``refuse`` (EPERM)."""
    chown: str = "keep"
    content: str = "keep"
    """``crlf``: every line end is kept as two bytes. ``upper``: all letters become capitals."""
    rmdir: str = ""
    """The name of the error with which the removal of each directory is answered, such as ``EBUSY``."""
    unlink: str = "remove"
    """``ignore``: it is answered with success, and the file stays."""
    executable: str = ""
    """A suffix: what has it in its name shows mode 0777, as FAT with ``showexec``."""


@attrs.define
class Node:
    mode: int
    uid: int
    gid: int
    name: str = ""
    content: bytearray = attrs.field(factory=bytearray)
    children: dict[str, int] = attrs.field(factory=dict[str, int])
    changed_ns: int = attrs.field(factory=time.time_ns)


class Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Disk:
    """All of it. Each verb answers with the bytes that follow the header."""

    def __init__(self, habits: Habits) -> None:
        self.habits = habits
        self.nodes: dict[int, Node] = {_ROOT: Node(mode=stat.S_IFDIR | 0o755, uid=0, gid=0)}
        self._next = _ROOT + 1
        self.verbs: dict[int, Callable[[int, bytes, int, int], bytes | None]] = {
            1: self.lookup,
            3: self.getattr,
            4: self.setattr,
            9: self.mkdir,
            10: self.unlink,
            11: self.rmdir,
            12: self.rename,
            14: self.open,
            15: self.read,
            16: self.write,
            17: self.statfs,
            18: self.nothing,
            20: self.nothing,
            25: self.nothing,
            26: self.init,
            27: self.open,
            28: self.readdir,
            29: self.nothing,
            30: self.nothing,
            35: self.create,
            45: self.rename2,
        }

    def answer(self, opcode: int, node: int, body: bytes, uid: int, gid: int) -> bytes | None:
        """None: never. `Refused`: with an error."""
        verb = self.verbs.get(opcode)
        if verb is None:
            raise Refused(errno.ENOSYS)
        return verb(node, body, uid, gid)

    def init(self, _node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        major, _minor, readahead, _flags = struct.unpack_from("<4I", body)
        return struct.pack(
            "<4I2H2I2H8I", major, 31, readahead, 0, 12, 9, 1 << 20, 1, 0, 0, *([0] * 8)
        )

    def nothing(self, _node: int, _body: bytes, _uid: int, _gid: int) -> bytes:
        return b""

    def statfs(self, _node: int, _body: bytes, _uid: int, _gid: int) -> bytes:
        return struct.pack("<5Q4I24x", 9999, 9999, 9999, 9999, 9999, 4096, 255, 4096, 0)

    def lookup(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes | None:
        name = _name(body)
        if "hang" in name:
            return None
        return self._entry(self._child(node, name))

    def getattr(self, node: int, _body: bytes, _uid: int, _gid: int) -> bytes | None:
        return struct.pack("<QII", _KEPT_FOR_S, 0, 0) + self._attributes(node)

    def setattr(self, node: int, body: bytes, uid: int, gid: int) -> bytes | None:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        (mode,) = struct.unpack_from("<I", body, 68)
        owner, group = struct.unpack_from("<II", body, 76)
        here, habits = self.nodes[node], self.habits
        if valid & 1:
            if habits.chmod == "refuse":
                raise Refused(errno.EPERM)
            if habits.chmod == "keep":
                here.mode = stat.S_IFMT(here.mode) | stat.S_IMODE(mode)
        if valid & 6 and habits.chown == "refuse":
            raise Refused(errno.EPERM)
        if habits.chown == "keep":
            here.uid = owner if valid & 2 else here.uid
            here.gid = group if valid & 4 else here.gid
        if valid & 8:
            here.content = here.content[:size].ljust(size, b"\0")
        here.changed_ns = time.time_ns()
        return self.getattr(node, b"", uid, gid)

    def mkdir(self, node: int, body: bytes, uid: int, gid: int) -> bytes:
        mode, umask = struct.unpack_from("<II", body)
        return self._entry(
            self._made(node, _name(body[8:]), stat.S_IFDIR | (mode & ~umask), uid, gid)
        )

    def create(self, node: int, body: bytes, uid: int, gid: int) -> bytes:
        _flags, mode, umask, _ = struct.unpack_from("<4I", body)
        made = self._made(node, _name(body[16:]), stat.S_IFREG | (mode & 0o777 & ~umask), uid, gid)
        return self._entry(made) + struct.pack("<QII", 0, 0, 0)

    def unlink(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        self._child(node, _name(body))
        if self.habits.unlink == "remove" or _name(body).startswith(".harmony."):
            del self.nodes[node].children[_name(body)]
        return b""

    def rmdir(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        if self.habits.rmdir:
            raise Refused(int(getattr(errno, self.habits.rmdir)))
        if self.nodes[self._child(node, _name(body))].children:
            raise Refused(errno.ENOTEMPTY)
        del self.nodes[node].children[_name(body)]
        return b""

    def rename(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        return self._rename(node, struct.unpack_from("<Q", body)[0], body[8:])

    def rename2(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        return self._rename(node, struct.unpack_from("<Q", body)[0], body[16:])

    def open(self, _node: int, _body: bytes, _uid: int, _gid: int) -> bytes:
        return struct.pack("<QII", 0, 0, 0)

    def read(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return bytes(self.nodes[node].content[offset : offset + size])

    def write(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        here, data = self.nodes[node], body[40 : 40 + size]
        if self.habits.content == "crlf":
            data = data.replace(b"\n", b"\r\n")
        if self.habits.content == "upper":
            data = data.upper()
        here.content[offset : offset + len(data)] = data
        here.changed_ns = time.time_ns()
        return struct.pack("<II", size, 0)

    def readdir(self, node: int, body: bytes, _uid: int, _gid: int) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        answer = b""
        for index, (name, child) in enumerate(self.nodes[node].children.items(), 1):
            if index <= offset:
                continue
            raw, kind = name.encode(), stat.S_IFMT(self.nodes[child].mode) >> 12
            entry = struct.pack("<QQII", child, index, len(raw), kind) + raw
            entry += b"\0" * (-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer

    def _made(self, node: int, name: str, mode: int, uid: int, gid: int) -> int:
        number, self._next = self._next, self._next + 1
        self.nodes[number] = Node(mode=mode, uid=uid, gid=gid, name=name)
        self.nodes[node].children[name] = number
        return number

    def _rename(self, node: int, to: int, names: bytes) -> bytes:
        old, new = (each.decode() for each in names.split(b"\0")[:2])
        moved = self.nodes[node].children.pop(old)
        self.nodes[to].children[new] = moved
        self.nodes[moved].name = new
        return b""

    def _child(self, node: int, name: str) -> int:
        try:
            return self.nodes[node].children[name]
        except KeyError:
            raise Refused(errno.ENOENT) from None

    def _entry(self, node: int) -> bytes:
        return _ENTRY.pack(node, 0, _KEPT_FOR_S, _KEPT_FOR_S, 0, 0) + self._attributes(node)

    def _attributes(self, number: int) -> bytes:
        node, habits = self.nodes[number], self.habits
        mode = stat.S_IMODE(node.mode)
        if habits.mask:
            bits = int(habits.mask.lstrip("+"), 8)
            mode = mode | bits if habits.mask.startswith("+") else mode & ~bits
        if habits.fixed_mode:
            mode = int(habits.fixed_mode, 8)
        if habits.executable and node.name.endswith(habits.executable):
            mode = 0o777
        uid, gid = (int(habits.fixed_owner),) * 2 if habits.fixed_owner else (node.uid, node.gid)
        seconds, rest_ns = divmod(node.changed_ns, 10**9)
        times = (seconds, seconds, seconds, rest_ns, rest_ns, rest_ns)
        kind, size = stat.S_IFMT(node.mode), len(node.content)
        return _ATTR.pack(
            number, size, (size + 511) // 512, *times, kind | mode, 1, uid, gid, 0, 4096, 0
        )


def _name(body: bytes) -> str:
    return body.partition(b"\0")[0].decode()


def serve(folder: str, habits: Habits) -> None:
    """Be *folder*'s file system until this process is killed."""
    channel = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={channel},rootmode=40000,user_id=0,group_id=0,allow_other"
    if _LIBC.mount(b"odd", folder.encode(), b"fuse.odd", 6, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    disk = Disk(habits)
    print("mounted", flush=True)
    while True:
        try:
            request = os.read(channel, _REQUEST_BYTES)
        except FileNotFoundError:
            continue  # taken back before it was read
        _, opcode, unique, node, uid, gid, *_ = _REQUEST.unpack_from(request)
        if opcode in {2, 36, 42}:  # what is forgotten, or interrupted, is not answered
            continue
        number, body = 0, None
        try:
            body = disk.answer(opcode, node, request[_REQUEST.size :], uid, gid)
        except Refused as refused:
            number, body = refused.number, b""
        if body is not None:
            with suppress(FileNotFoundError):  # nobody waits for it any more
                os.write(channel, _ANSWER.pack(_ANSWER.size + len(body), -number, unique) + body)


@contextmanager
def odd_disk(folder: Path, *habits: str) -> Generator[None]:
    """Make *folder* such a file system for the length of the block; skips where that cannot be."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        import pytest  # on a Pi, where this is run as a program, there is none

        pytest.skip("a file system of one's own needs root and /dev/fuse")
    folder.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder), *habits], stdout=subprocess.PIPE, text=True
    )
    _SERVERS[folder] = server
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "mounted\n", "the file system was not mounted"
        yield
    finally:
        # Who hangs in it is let go, with an error, when its server ends.
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
        unmount(folder)
        del _SERVERS[folder]


def end_what_serves(folder: Path) -> None:
    """End the file system at *folder*: who hangs in it gets an error, and it is a folder again."""
    _SERVERS[folder].kill()
    _SERVERS[folder].wait()
    unmount(folder)


def unmount(folder: Path) -> None:
    """Take the file system from *folder*, if there is one."""
    _LIBC.umount2(str(folder).encode(), _DETACH)


if __name__ == "__main__":
    serve(sys.argv[1], Habits(**dict(each.split("=", 1) for each in sys.argv[2:])))
