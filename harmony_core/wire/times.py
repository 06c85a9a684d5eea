"""Points in time on the wire: RFC 3339, in UTC, with milliseconds: ``2026-01-31T12:00:00.000Z``.

Exactly this form is read and written, so that equal times are equal texts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["in_utc", "parse_rfc3339", "read_microseconds", "rfc3339"]

_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


def rfc3339(when: datetime) -> str:
    """Return *when* as RFC 3339: UTC with milliseconds and a Z; finer parts are cut off. *when* must know
    its time zone."""
    return in_utc(when).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """Return the aware time that `rfc3339` wrote; ValueError on anything else, also on other RFC 3339."""
    if not _FORM.fullmatch(text):
        raise ValueError("must be a UTC time with milliseconds, as in 2026-01-31T12:00:00.000Z")
    return datetime.fromisoformat(text)


def read_microseconds(since_1970: int) -> datetime:
    """Return the aware time that is so many microseconds after 1970, as systemd counts them."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=since_1970)


def in_utc(when: datetime) -> datetime:
    """Return *when* in UTC, cut to milliseconds; ValueError if it does not know its time zone."""
    if when.utcoffset() is None:
        raise ValueError("must know its time zone; use datetime.now(UTC)")
    utc = when.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
