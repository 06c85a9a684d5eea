"""``volumes`` of a service in short form: ``SOURCE:TARGET:OPTIONS``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from harmony_core.close_names import did_you_mean

from .faults import Wrong

__all__ = ["split_volume"]

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_CONSISTENCIES = ("cached", "delegated", "consistent")
_OPTIONS = ("ro", "rw", "nocopy", "z", "Z", *_PROPAGATIONS, *_CONSISTENCIES)


def split_volume(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the long form of *text*, and the options of its type.

    A source that begins with ``.``, ``/`` or ``~`` is a path (bind); any other is a volume.
    """
    if _WINDOWS.match(text):
        raise Wrong("is a path of Windows; write one of the device, as in /srv/data:/data")
    parts = text.split(":")
    if not all(parts):
        raise Wrong(f"{text!r} has nothing at one side of a colon; write SOURCE:TARGET")
    match parts:
        case [target]:
            return {"type": "volume", "target": target}, {}
        case [source, target]:
            return _long(source, target, ())
        case [source, target, options]:
            return _long(source, target, options.split(","))
        case _:
            raise Wrong(
                "has too many colons; write SOURCE:TARGET:OPTIONS, or source and target as keys"
            )


def _long(
    source: str, target: str, options: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    is_path = source[0] in "./~"
    found: dict[str, Any] = {
        "type": "bind" if is_path else "volume",
        "source": source,
        "target": target,
    }
    below: dict[str, Any] = {}
    for option in options:
        if option not in _OPTIONS:
            hint = did_you_mean(option, _OPTIONS) or f"; write some of {', '.join(_OPTIONS)}"
            raise Wrong(f"{option!r} is no option of a volume{hint}")
        if option in {"ro", "rw"}:
            found["read_only"] = option == "ro"
        elif option in _CONSISTENCIES:
            found["consistency"] = option
        elif option == "nocopy" and not is_path:
            below["nocopy"] = True
        elif is_path and option in _PROPAGATIONS:
            below["propagation"] = option
        elif is_path and option != "nocopy":
            below["selinux"] = option
        elif option in {"z", "Z"}:
            pass  # SELinux labels nothing there that a volume would not have by itself
        else:
            raise Wrong(f"{option} is for {'volumes' if is_path else 'paths'}; remove it")
    return found, below
