"""One agent at a time: two with the same memory would each believe nobody but themselves."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from harmony_core.errors import ConfigError

from .store.flushing import make_directory

__all__ = ["alone"]


@contextmanager
def alone(directory: Path) -> Generator[None]:
    """Allow nobody else to run on *directory* within the block. Raise `ConfigError` when somebody does.

    The lock is the kernel's and ends with the process, however that ends. It is on the directory itself, so
    that it needs no room and nothing writable; the file beside it only notes who has it.
    """
    note = directory / "agent.lock"
    try:
        make_directory(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be used: {error.strerror}; run the agent as root, or set "
            "state_directory in agent.toml"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"an agent runs on {directory} already, as process {_read_note(note)}; "
                "see systemctl status harmony-agent, and stop that one first"
            ) from None
        with contextlib.suppress(OSError):  # a full disk, or a read-only one
            note.write_text(f"{os.getpid()}\n", "utf-8")
        yield
    finally:
        os.close(descriptor)


def _read_note(note: Path) -> str:
    try:
        return note.read_text("utf-8").strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"
