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
        """Return what was logged under *key*, oldest first: at most *lines*, those of earlier runs included.

        With *after*, the cursor of a line, return the oldest lines that follow it: who calls this again and
        again misses no line and gets none twice, as long as the log itself is kept. Without it, return the
        newest lines, since *since* if given. Return nothing when there is no such log. Raise
        `CapabilityError`; end within seconds, and keep nothing open.
        """
        ...


def cut_line(text: str) -> str:
    """Return *text* as one line: a very long one is cut, and ends with an ellipsis."""
    return cut(text, _TEXT_MOST_CHARS)
