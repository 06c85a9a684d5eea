"""Credentials of services, as systemd.exec(5) has them: where their files are on a device.

    a Score's credential -> the file /etc/harmony-credentials/UNIT/NAME, for root alone
                         -> LoadCredential=NAME:FILE in the unit
                         -> $CREDENTIALS_DIRECTORY/NAME for the program, and for no other user

The files are on the disk, since systemd starts the service at boot before anything else of ours runs.
"""

from __future__ import annotations

import posixpath
from typing import Final

__all__ = [
    "CREDENTIALS_DIRECTORY",
    "CREDENTIALS_MAX_BYTES",
    "CREDENTIAL_BLOCK_BYTES",
    "CREDENTIAL_NAME",
    "credentials_directory",
    "unit_of_credentials",
]

CREDENTIALS_DIRECTORY: Final = "/etc/harmony-credentials"
CREDENTIALS_MAX_BYTES: Final = 1024 * 1024
"""So much may all credentials of a unit take, and so many bytes may they have with their names: systemd
starts none with more."""
CREDENTIAL_BLOCK_BYTES: Final = 16 * 1024
"""Of so much takes each a whole number, in the memory that systemd gives them: pages, as a Raspberry Pi 5 has
them; others have smaller ones."""
CREDENTIAL_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}$"
"""Of what systemd allows, what needs no quoting, neither in a unit nor in a shell, and hides from nobody."""


def credentials_directory(unit: str) -> str:
    """Return the directory of the credentials of *unit*."""
    return posixpath.join(CREDENTIALS_DIRECTORY, unit)


def unit_of_credentials(path: str) -> str | None:
    """Return the unit whose credential, or directory of credentials, is at *path*; None where it is none."""
    inner = path.removeprefix(f"{CREDENTIALS_DIRECTORY}/")
    return None if inner == path else inner.partition("/")[0]
