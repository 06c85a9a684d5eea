"""Where the agent listens for what is loaded, whatever the length of that path."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["REQUEST_MAX_BYTES", "find_socket"]

REQUEST_MAX_BYTES = 4096
_NAME = "load.sock"


@contextmanager
def find_socket(directory: Path) -> Generator[str]:
    """Yield the path of the socket in *directory*, for the length of the block: short enough for the kernel,
    which takes 107 bytes. OSError where there is no such directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
