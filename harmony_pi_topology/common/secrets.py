"""Secrets that are on the device: files that nobody but root, or the agent, can read.

DIRECTORY/NAME       their owner has put them there, and a `SecretRef` names them
DIRECTORY/.own/NAME  the device makes these itself; no `SecretRef` can name them, so they never leave it
"""

from __future__ import annotations

import os
from pathlib import Path

from harmony_core.errors import SecretMissing, UnsafePath
from harmony_pi_topology.posix.errors import make_write_failed
from harmony_pi_topology.posix.root import Found, Root
from harmony_pi_topology.posix.safe_write import Draft

__all__ = ["find_secret", "forget_secret", "keep_secret", "own_secrets", "read_secret"]

_SECRET_MAX_BYTES = 1024 * 1024
_OTHERS = 0o077


def read_secret(directory: str, name: str) -> bytes:
    """Return the content of the secret *name*. Raise `SecretMissing`, with what to do, when it cannot be
    used.

    Raise `WriteFailed` where the disk, or the process, could not read it this time: it is tried again.
    """
    path = f"{directory.rstrip('/')}/{name}"
    try:
        with Root(directory) as secrets:
            found = secrets.look(f"/{name}")
            _refuse_unsafe(path, found)
            return secrets.read(f"/{name}", max_bytes=_SECRET_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise make_write_failed(path, error, doing="read") from error
    except UnsafePath as error:
        raise SecretMissing(f"the secret {path} cannot be used: {error.message}") from error


def own_secrets(directory: str) -> str:
    """Return the directory, in the secrets *directory*, of those that the device makes itself."""
    return f"{directory.rstrip('/')}/.own"


def find_secret(directory: str, name: str) -> bytes | None:
    """Return the content of the secret *name*; None where there is none. Raise as `read_secret` does."""
    try:
        os.lstat(f"{directory.rstrip('/')}/{name}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise make_write_failed(directory, error, doing="looked at") from error
    return read_secret(directory, name)


def keep_secret(directory: str, name: str, content: bytes) -> None:
    """Store a secret that the device has made, durably. Raise `WriteFailed` where the disk refuses."""
    try:
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        with Root(directory) as secrets:
            secrets.write_many([Draft(path=f"/{name}", content=content, mode=0o600)])
    except OSError as error:
        raise make_write_failed(f"{directory}/{name}", error, doing="written") from error


def forget_secret(directory: str, name: str) -> None:
    """Delete a secret that the device has made. Do nothing when there is none."""
    try:
        with Root(directory) as secrets:
            secrets.remove(f"/{name}")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise make_write_failed(f"{directory}/{name}", error, doing="removed") from error


def _refuse_unsafe(path: str, found: Found | None) -> None:
    if found is None:
        raise _missing(path)
    if found.mode & _OTHERS:
        raise SecretMissing(
            f"{path} has mode {found.mode:04o}: others can read it; run: chmod 0600 {path}"
        )
    if found.uid not in {0, os.geteuid()}:
        raise SecretMissing(
            f"{path} belongs to user {found.uid}, who could change it; run: chown root {path}"
        )


def _missing(path: str) -> SecretMissing:
    directory, _, name = path.rpartition("/")
    return SecretMissing(
        f"this device holds no secret {name!r}; put it into {directory}, with mode 0600"
    )
