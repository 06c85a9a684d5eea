"""Paths of a device, as text: which are accepted, before anybody looks at a file system.

Stricter than Linux on purpose. Whatever two people, or two programs, could read differently is refused:
dots, doubled slashes, control and invisible characters, text that is not in Unicode's normal form.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from .errors import UnsafePath

__all__ = ["AbsolutePath", "check_path", "is_on_disk"]

COMPONENT_MAX_BYTES = 255
PATH_MAX_BYTES = 4095
_IN_MEMORY = ("/run/", "/tmp/", "/dev/", "/sys/", "/proc/")  # noqa: S108 - nothing is put there
DEPTH_MAX = 128
_SHOWN_MAX = 80
_LOOK_ALIKES = {
    **dict.fromkeys("\u2024\u2025\u2026\ufe52\uff0e", "reads as a dot"),
    **dict.fromkeys("\u2044\u2215\u29f8\uff0f", "reads as a slash"),
}
_INVISIBLE = re.compile(
    # Fillers and variation selectors: letters and marks to Unicode, nothing to the eye.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_REFUSED_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "an invisible or direction-changing character",
    "Cs": "half a character (a lone surrogate)",
    "Co": "a private-use character",
    # How text with these is normalised depends on the edition of Unicode, which differs between devices.
    "Cn": "a character that Unicode does not know yet",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
    "Zs": "a space that is not the plain one",
}


def check_path(path: str) -> None:
    """Raise `UnsafePath`, naming the problem and the remedy, unless *path* is plain and absolute."""
    if problem := _problem(path):
        shown = path if len(path) <= _SHOWN_MAX else path[: _SHOWN_MAX - 3] + "..."
        raise UnsafePath(f"{shown!a}: {problem}")


def is_on_disk(path: str) -> bool:
    """Return, by the path alone, whether what is at *path* is still there after a reboot."""
    return not path.startswith(_IN_MEMORY)


def _problem(path: str) -> str | None:
    if not path.startswith("/"):
        return "not an absolute path; write it from the root, as in /etc/motd"
    if path == "/":
        return "the root itself is not something to be written"
    if len(path) > PATH_MAX_BYTES:
        return f"longer than {PATH_MAX_BYTES} bytes; shorten it"
    if problem := _strange_character(path):
        return problem
    if len(path.encode()) > PATH_MAX_BYTES:
        return f"longer than {PATH_MAX_BYTES} bytes; shorten it"
    return _strange_component(path[1:].split("/"))


def _strange_character(path: str) -> str | None:
    if path.isascii() and path.isprintable():
        return None
    for character in path:
        number = f"U+{ord(character):04X}"
        kind = _REFUSED_CATEGORIES.get(unicodedata.category(character))
        if kind is not None and character != " ":
            return f"contains {kind} ({number}); remove it"
        if (likeness := _LOOK_ALIKES.get(character)) is not None:
            return f"contains a character that {likeness} ({number}); replace it"
        if _INVISIBLE.match(character):
            return f"contains an invisible character ({number}); remove it"
    if unicodedata.normalize("NFC", path) != path:
        return "not in Unicode normal form C; type it anew, or normalise it"
    return None


def _strange_component(components: list[str]) -> str | None:
    if len(components) > DEPTH_MAX:
        return f"deeper than {DEPTH_MAX} directories; shorten it"
    for component in components:
        if component == "":
            return "has an empty part; write one slash between names, and none at the end"
        if component in {".", ".."}:
            return f"contains {component!r}; write the path that it leads to"
        if len(component.encode()) > COMPONENT_MAX_BYTES:
            return f"a part is longer than {COMPONENT_MAX_BYTES} bytes; shorten it"
    return None


def _check(path: str) -> str:
    try:
        check_path(path)
    except UnsafePath as error:
        raise ValueError(error.message) from error
    return path


AbsolutePath: TypeAlias = Annotated[str, AfterValidator(_check)]
"""A path that `check_path` accepts, as a field of a Score or a resource."""
