"""F6 with one flush: the same 100 files, with one syncfs of their file system in place of a flush a file.

It flushes whatever else is dirty there, too, whoever wrote it. Prints as `f6` does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path

__all__ = ["main"]

_LIBC = ctypes.CDLL(None, use_errno=True)


def write_all(directory: Path, content: bytes) -> None:
    paths = [directory / f"file-{number:03}" for number in range(100)]
    for path in paths:
        with Path(f"{path}.new").open("wb", buffering=0) as file:
            file.write(content)
    descriptor = os.open(directory, os.O_RDONLY)
    if _LIBC.syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")
    for path in paths:
        Path(f"{path}.new").rename(path)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> None:
    directory = Path(json.loads(Path(sys.argv[1]).read_text())["directory"])
    print("ready", flush=True)
    for _ in sys.stdin:
        content = os.urandom(512).hex().encode()
        began = time.perf_counter()
        write_all(directory, content)
        print((time.perf_counter() - began) * 1_000, flush=True)
