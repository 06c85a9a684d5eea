"""Has a heartbeat ended? The server says so, by dropping it; but for those that it cannot know.

* One that does not say how long it counts is an older agent's, and counts for 90 s. The server keeps it for
  longer, so the clock here says that it has ended.
* One that says that it counts for ever, hidden behind another word of its own, is kept for ever. A clock here
  may be off, so no other is judged by it before a whole hour has passed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from harmony_core.wire.lifetimes import LIFETIME_LEAST_S

from .connection import Entry

__all__ = ["find_end", "lifetime_of"]

_CLOCKS_APART_S = 3_600.0


def lifetime_of(beat: Entry, *, unsaid_s: float = LIFETIME_LEAST_S) -> timedelta:
    """Return for how many seconds *beat* counts; *unsaid_s* for one that does not say."""
    return timedelta(seconds=unsaid_s if beat.lifetime_s is None else beat.lifetime_s)


def find_end(beat: Entry, now: datetime) -> datetime | None:
    """Return when *beat*, which the server still has, has nevertheless ended; None while it counts."""
    ended_at = beat.written_at + lifetime_of(beat)
    slack = timedelta(seconds=0 if beat.lifetime_s is None else _CLOCKS_APART_S)
    return ended_at if now > ended_at + slack else None
