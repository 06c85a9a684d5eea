"""Logs: what the things that a Score has made have written, line by line.

Some reconcilers can tell: they are `Logged`. Nothing is followed: who wants to see more asks again, from
the cursor of the last line on, so that no daemon is kept awake and no connection open.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import attrs

from harmony_core.visible import cut

__all__ = ["LogLine", "LogStream", "Logged", "cut_line"]

_TEXT_MOST_CHARS = 8_192

LogStream: TypeAlias = Literal["out", "err", "system"]
"""Standard output or error, or what the system has to say of it: that it was started, that it failed."""


@attrs.frozen(kw_only=True)
class LogLine:
    """One line, by whoever wrote it: not to be believed, and not to be sent to a terminal as it is."""

    at: datetime
    text: str
    stream: LogStream
    cursor: str
    """Where this line is: printable ASCII without spaces, at most 512 characters."""


@runtime_checkable
class Logged(Protocol):
    """A reconciler of what writes a log."""

    async def logs(
        self, key: str, *, lines: int, since: datetime | None = None, after: str | None = None
    ) -> Sequence[LogLine]:
        """Return what was logged under *key*, oldest first: at most *lines*, those of an earlier life
        included.

        With *after*, the cursor of a line, what follows it, the oldest of that: asked again and again,
        nothing is missed and nothing told twice, as long as the log itself is kept. Else the newest, of
        those since *since*. Nothing when there is no such log. Raises `CapabilityError`; ends within
        seconds, and holds nothing open.
        """
        ...


def cut_line(text: str) -> str:
    """Return *text* as a line's: what is very long is cut, and ends with an ellipsis."""
    return cut(text, _TEXT_MOST_CHARS)
