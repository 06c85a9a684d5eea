"""F6: 100 files of 1 KiB, durably, in a batch: all written and flushed, all renamed, one directory flushed.

Prints the milliseconds of one round, with other content each time, for each line that it reads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

__all__ = ["main"]


def write_all(directory: Path, content: bytes) -> None:
    paths = [directory / f"file-{number:03}" for number in range(100)]
    for path in paths:
        with Path(f"{path}.new").open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
    for path in paths:
        Path(f"{path}.new").rename(path)
    descriptor = os.open(directory, os.O_RDONLY)
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
