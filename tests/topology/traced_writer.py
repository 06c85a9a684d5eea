"""Writes files beneath a folder, each time in a child of its own, so that a tracer can do its worst.

Run as a program, it answers each line of JSON on its input (`Case`) with one on its output (`Ended`).

A tracer counts each system call of each child from its birth, and strikes at the one numbered STRUCK. So a
case says how many calls of each kind a child makes to no effect before it begins: by that a single
tracing strikes at another place in every child.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs
import cattrs

from harmony_core.errors import UnsafePath, WriteFailed
from harmony_pi_topology.posix.beneath import open_by_openat2, open_by_walking
from harmony_pi_topology.posix.root import Draft, Root

__all__ = [
    "BEGIN",
    "CALLS",
    "END",
    "LEAKED",
    "NEW",
    "REFUSED",
    "STRUCK",
    "WRITTEN",
    "WRONG",
    "Case",
    "Ended",
]

STRUCK = 150
"""More than the program itself makes of any one call while it is traced."""
BEGIN, END = "/the-writing-begins", "/the-writing-ends"
WRITTEN, REFUSED, LEAKED, WRONG = 0, 10, 11, 12
NEW = b"new " * 20_000

_NOBODY_S = 100_000
"""A descriptor that is not open."""

# Each to no effect.
CALLS: Mapping[str, Callable[[], object]] = {
    "openat": lambda: os.open("/nothing/here", os.O_RDONLY),
    "openat2": lambda: open_by_openat2(_NOBODY_S, "nothing", os.O_RDONLY),
    "newfstatat": lambda: os.stat("nothing", dir_fd=_NOBODY_S, follow_symlinks=False),
    "fstat": lambda: os.fstat(_NOBODY_S),
    "dup": lambda: os.dup(_NOBODY_S),
    "fallocate": lambda: os.posix_fallocate(_NOBODY_S, 0, 1),
    "write": lambda: os.write(_NOBODY_S, b""),
    "pread64": lambda: os.pread(_NOBODY_S, 1, 0),
    "fchown": lambda: os.fchown(_NOBODY_S, -1, -1),
    "fchmod": lambda: os.fchmod(_NOBODY_S, 0o600),
    "fsync": lambda: os.fsync(_NOBODY_S),
    "linkat": lambda: os.link("nothing", "nothing", dst_dir_fd=_NOBODY_S, follow_symlinks=True),
    "renameat": lambda: os.rename("nothing", "nothing", src_dir_fd=_NOBODY_S, dst_dir_fd=_NOBODY_S),
    "mkdirat": lambda: os.mkdir("nothing", dir_fd=_NOBODY_S),
    "unlinkat": lambda: os.unlink("nothing", dir_fd=_NOBODY_S),
    "close": lambda: os.close(_NOBODY_S),
}


@attrs.frozen(kw_only=True)
class Case:
    """Write `NEW` to *paths* beneath *root*, after so many calls to no effect."""

    root: str
    resolver: str
    paths: list[str]
    padding: dict[str, int] = attrs.field(factory=dict[str, int])


@attrs.frozen(kw_only=True)
class Ended:
    """How a child ended: what `os.waitpid` says."""

    pid: int
    status: int


def _mark(name: str) -> None:
    with suppress(OSError):
        os.lstat(name)


def _pad(padding: Mapping[str, int]) -> None:
    for name, times in padding.items():
        for _ in range(times):
            with suppress(OSError):
                CALLS[name]()


def _write(root: Root, case: Case) -> int:
    before = len(os.listdir("/proc/self/fd"))
    _pad(case.padding)
    _mark(BEGIN)
    try:
        for path in case.paths:
            root.make_parents(path)
        root.write_many([Draft(path=path, content=NEW, mode=0o640) for path in case.paths])
        answer = WRITTEN
    except WriteFailed as error:
        answer = REFUSED if "; " in error.message and "/" in error.message else WRONG
    except UnsafePath:
        answer = WRONG
    _mark(END)
    return answer if len(os.listdir("/proc/self/fd")) == before else LEAKED


def _child(root: Root, case: Case) -> None:
    answer = 1
    try:
        answer = _write(root, case)
    except BaseException:  # noqa: BLE001 - it ends with the child
        traceback.print_exc()
    finally:
        os._exit(answer)


def main() -> None:
    """Serve until the input ends."""
    openers = {"openat2": open_by_openat2, "walk": open_by_walking}
    # A tracer that is no ancestor needs leave on machines that are careful with it (PR_SET_PTRACER).
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))
    for line in sys.stdin:
        case = cattrs.structure(json.loads(line), Case)
        with Root(case.root, opener=openers[case.resolver]) as root:
            pid = os.fork()
            if pid == 0:
                _child(root, case)
            _, status = os.waitpid(pid, 0)
        print(json.dumps(cattrs.unstructure(Ended(pid=pid, status=status))), flush=True)


if __name__ == "__main__":
    main()
