"""``--since``: a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from harmony_core.errors import UsageError

__all__ = ["since_of"]

_AGO = re.compile(r"(\d{1,6})\s*(s|min|m|h|d)", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


def since_of(text: str | None, now: datetime | None = None) -> datetime | None:
    """``10m``, ``2h``, ``2026-01-31``, ``2026-01-31 12:00`` (this machine's time) or any RFC 3339.

    None for None; `UsageError` for anything else.
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text.strip()):
        count, unit = ago.groups()
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[unit]: int(count)})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text!r} is no time: write how long ago (10m, 2h, 1d), or when "
            "(2026-01-31 12:00, 2026-01-31T12:00:00Z)"
        ) from None
