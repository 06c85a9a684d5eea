"""Secrets that are on the device already: files that nobody but root, or the agent, can read."""

from __future__ import annotations

import os

from harmony_core.errors import SecretMissing, UnsafePath
from harmony_pi_topology.posix.errors import make_write_failed
from harmony_pi_topology.posix.root import Found, Root

__all__ = ["read_secret"]

_SECRET_MAX_BYTES = 1024 * 1024
_OTHERS = 0o077


def read_secret(directory: str, name: str) -> bytes:
    """Return the content of the secret *name*; `SecretMissing` says what to do when it cannot be used.

    `WriteFailed` where the disk, or the process, could not read it this time: it is tried again.
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
