"""The SHA-256 of what is open: bounded, and given up between blocks when nobody waits for it any more."""

from __future__ import annotations

import hashlib
import os

from harmony_core.errors import UnsafePath
from harmony_pi_topology.common.path_calls import step

__all__ = ["HASHED_MAX_BYTES", "sha256_of"]

HASHED_MAX_BYTES = 64 * 1024 * 1024
"""Nothing larger is hashed: a file of holes may have any size, and costs nothing to make."""
_BLOCK_BYTES = 256 * 1024


def sha256_of(descriptor: int, path: str) -> str:
    """Return the hexadecimal SHA-256 of the whole content of *descriptor*.

    Raise `UnsafePath` where that is more than `HASHED_MAX_BYTES`, OSError as the disk reports it, and
    `TimedOut` in a call that was given up.
    """
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes > HASHED_MAX_BYTES:
        raise _too_large(path, size_bytes)
    digest, done_bytes = hashlib.sha256(), 0
    while block := os.pread(descriptor, _BLOCK_BYTES, done_bytes):
        step(path)
        digest.update(block)
        done_bytes += len(block)
        if done_bytes > HASHED_MAX_BYTES:  # it grows while it is read
            raise _too_large(path, done_bytes)
    return digest.hexdigest()


def _too_large(path: str, size_bytes: int) -> UnsafePath:
    return UnsafePath(
        f"{path} has {size_bytes} bytes, and at most {HASHED_MAX_BYTES // 1024**2} MiB are hashed; shorten it"
    )
