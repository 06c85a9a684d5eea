"""One agent at a time: two with the same memory would each believe nobody but themselves."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from harmony_core.errors import ConfigError

__all__ = ["alone"]


@contextmanager
def alone(directory: Path) -> Generator[None]:
    """Nobody else runs on *directory* within the block: `ConfigError` when somebody does.

    The lock is the kernel's and ends with the process, however that ends.
    """
    path = directory / "agent.lock"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        file = path.open("r+")
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be used: {error.strerror}; run the agent as root, or set "
            "state_directory in agent.toml"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"an agent runs on {directory} already, as process {file.read().strip()}; "
                "see systemctl status harmony-agent, and stop that one first"
            ) from None
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
