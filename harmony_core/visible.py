"""Text that somebody else wrote, made harmless for a terminal and for a log.

Whoever shows such text calls one of these: the command to a person, the agent to its journal.
"""

from __future__ import annotations

import re

__all__ = ["cut", "visible", "word"]

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Return *text* with everything escaped that would control a terminal or hide text: colours, cursor,
    direction.

    Line ends and tabs stay.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def word(text: str) -> str:
    """Return `visible` *text* on one line: for a name, and for other text that has one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def cut(text: str, most: int) -> str:
    """Return *text*; cut a longer one to *most* characters, with the ellipsis at its end."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
