"""Units that are named by a path: how systemd writes a path as the name of a mount or an automount.

``/srv/my-data`` is ``srv-my\\x2ddata.mount``: as ``systemd-escape --path`` has it, and systemd.unit(5)
("String Escaping for Inclusion in Unit Names").
"""

from __future__ import annotations

import re
import string

__all__ = ["BY_PATH", "UNIT_NAME_MAX", "path_of_unit", "unit_of_path"]

BY_PATH = ("automount", "mount")
"""The types of units that are named by a path."""
UNIT_NAME_MAX = 255
"""So many characters may a unit's name have, with its type."""

_PLAIN = frozenset(f"{string.ascii_letters}{string.digits}:_.".encode())
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def unit_of_path(path: str, unit_type: str) -> str:
    """Return the name of the unit of *unit_type*, one of `BY_PATH`, for the absolute *path*."""
    parts = path.strip("/").encode().split(b"/")
    stem = "-".join(map(_escape, parts)) if parts != [b""] else "-"
    if stem.startswith("."):
        stem = f"\\x2e{stem[1:]}"
    return f"{stem}.{unit_type}"


def path_of_unit(name: str) -> str | None:
    """Return the path after which the unit *name* is named; None where it is of another type."""
    stem, _, unit_type = name.rpartition(".")
    if unit_type not in BY_PATH:
        return None
    path = f"/{stem.replace('-', '/').strip('/')}".encode()
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), path).decode(errors="replace")


def _escape(part: bytes) -> str:
    return "".join(chr(each) if each in _PLAIN else f"\\x{each:02x}" for each in part)
