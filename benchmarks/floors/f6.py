"""F6: 100 files of 1 KiB, durably, in a batch: all written and flushed, all renamed, one directory flushed.

Prints the milliseconds of one round, with other content each time, for each line that it reads. Told
``"syncfs": true``, one flush of their file system takes the place of a flush a file: it flushes whatever else
is dirty there, too, whoever wrote it.
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


def write_all(directory: Path, content: bytes, *, syncfs: bool) -> None:
    paths = [directory / f"file-{number:03}" for number in range(100)]
    for path in paths:
        with Path(f"{path}.new").open("wb", buffering=0) as file:
            file.write(content)
            if not syncfs:
                os.fsync(file.fileno())
    descriptor = os.open(directory, os.O_RDONLY)
    if syncfs and _LIBC.syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")
    for path in paths:
        Path(f"{path}.new").rename(path)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    directory, syncfs = Path(told["directory"]), told.get("syncfs", False)
    print("ready", flush=True)
    for _ in sys.stdin:
        content = os.urandom(512).hex().encode()
        began = time.perf_counter()
        write_all(directory, content, syncfs=syncfs)
        print((time.perf_counter() - began) * 1_000, flush=True)
