"""What containers have logged, in podman's own form: frames of standard output and error, each a line.

podman tells the time of a line in whole seconds only. So a cursor is a second, and how many lines of that
second were told: ``1767182400/3``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

from harmony_core.logs import LogLine, cut_line

from .podman import Podman

__all__ = ["log_lines", "read_logs"]

_HEADER = struct.Struct(">BxxxL")
_STANDARD_ERROR = 2


async def read_logs(
    podman: Podman,
    container_id: str,
    *,
    lines: int,
    since: datetime | None = None,
    after: str | None = None,
) -> list[LogLine]:
    """Return log lines of one container, as `harmony_core.logs.Logged.logs` does."""
    if after is not None and (second := _second_of(after)) is not None:
        return log_lines(await podman.logs(container_id, since=second), after=after)[:lines]
    newest = log_lines(await podman.logs(container_id, since=since, tail=lines))
    if len(newest) < lines:
        return newest
    # The first second may have been cut in two, and its lines be counted wrongly: from its beginning.
    return log_lines(await podman.logs(container_id, since=newest[0].at))[-lines:]


def log_lines(body: bytes, *, after: str | None = None) -> list[LogLine]:
    """Return the lines in *body*, which podman has written with timestamps: only those after *after*, if
    given.

    *body* may be cut off anywhere. If *after* is given, it begins with the second of *after*.
    """
    told = _second_of(after) if after else None
    skipped = int(after.partition("/")[2]) if after and told else 0
    found: list[LogLine] = []
    second, numbers = None, count(1)
    for stream, line in _frames(body):
        stamp, _, text = line.partition(b" ")
        at = _time(stamp)
        if at is None:
            continue
        # One that goes back is counted with its second all the same: cursors never go back.
        if second is None or at > second:
            second, numbers = at, count(1)
        number = next(numbers)
        if told is not None and (second < told or (second == told and number <= skipped)):
            continue
        found.append(
            LogLine(
                at=at,
                text=cut_line(text.decode(errors="replace").removesuffix("\n")),
                stream="err" if stream == _STANDARD_ERROR else "out",
                cursor=f"{int(second.timestamp())}/{number}",
            )
        )
    return found


def _second_of(cursor: str) -> datetime | None:
    """Return the second in which *cursor* lies; None where it is not a cursor."""
    second, _, number = cursor.partition("/")
    if not (second.isdecimal() and number.isdecimal() and len(second) <= 11):
        return None
    return datetime.fromtimestamp(int(second), UTC)


def _frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the stream number and the content of each complete frame."""
    at = 0
    while at + _HEADER.size <= len(body):
        stream, size = _HEADER.unpack_from(body, at)
        begin, at = at + _HEADER.size, at + _HEADER.size + size
        if at > len(body):
            return
        yield stream, body[begin:at]


def _time(stamp: bytes) -> datetime | None:
    try:
        at = datetime.fromisoformat(stamp.decode("ascii"))
    except ValueError:
        return None
    return at - timedelta(microseconds=at.microsecond) if at.utcoffset() is not None else None
