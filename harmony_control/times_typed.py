"""Times as people type them: a point in time, how long ago, for how long."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from harmony_core.errors import UsageError

__all__ = ["lasting", "since_of", "until_of"]

_DURATION = re.compile(r"(\d{1,6})\s*(s|min|m|h|d)", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


def since_of(text: str | None, now: datetime | None = None) -> datetime | None:
    """Return the time that ``10m``, ``2026-01-31``, ``2026-01-31 12:00`` (this machine's) or any RFC 3339
    means.

    None for None; `UsageError` for anything else.
    """
    if text is None:
        return None
    if (ago := _duration(text)) is not None:
        return (now or datetime.now(UTC)) - ago
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text!r} is no time: write how long ago (10m, 2h, 1d), or when "
            "(2026-01-31 12:00, 2026-01-31T12:00:00Z)"
        ) from None


def until_of(text: str | None, now: datetime | None = None) -> datetime | None:
    """Return the time that ``2d``, from now on, ``2026-12-27``, ``2026-12-27 08:00`` (this machine's) or any
    RFC 3339 means, to the millisecond.

    None for None; `UsageError` for anything else.
    """
    if text is None:
        return None
    wrong = UsageError(
        f"--until {text!r} is no time: write for how long (12h, 2d), or until when "
        "(2026-12-27 08:00, 2026-12-27T08:00:00Z)"
    )
    try:
        if (ahead := _duration(text)) is not None:
            found = (now or datetime.now(UTC)) + ahead
        else:
            found = datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


def lasting(text: str | None, option: str = "--expires-in") -> timedelta | None:
    """Return how long *option* says, such as ``12h``. None for None; `UsageError` for what is no
    time, or none at all."""
    if text is None:
        return None
    if duration := _duration(text):
        return duration
    raise UsageError(f"{option} {text!r} is not how long: write 30m, 12h or 30d")


def _duration(text: str) -> timedelta | None:
    if (found := _DURATION.fullmatch(text.strip())) is None:
        return None
    count, unit = found.groups()
    return timedelta(**{_UNITS[unit]: int(count)})
