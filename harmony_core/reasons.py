"""Reasons: how a program that brings something about says why it could not.

In lines of its standard error that begin with ``reason: ``, the last thing it writes. Those are then what is
told, in place of the end of all that it has written.
"""

from __future__ import annotations

import re

__all__ = ["reasons_in"]

_REASON = re.compile(r"(?:\S+\[\d+\]: )?reason: (.+)")


def reasons_in(text: str) -> str:
    """Return the reasons that *text* ends with, in one line; empty where it gives none.

    What follows them, such as systemd's own words on a unit, does not count; nor do older ones before.
    """
    reasons: list[str] = []
    for line in reversed(text.splitlines()):
        if found := _REASON.fullmatch(line.strip()):
            reasons.append(found[1])
        elif reasons:
            break
    return "; ".join(dict.fromkeys(reversed(reasons)))
