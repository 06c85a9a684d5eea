"""How long each hold (`harmony_core.holds`) has been seen, by a clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs

from harmony_core.change import NotReady
from harmony_core.holds import Hold
from harmony_core.wire.times import rfc3339

__all__ = ["HoldClock", "WrittenHold"]

_STARTED_WITHIN = timedelta(seconds=0.5)
"""A start is noted a moment after it; what is written first of all is not to be missed."""


@attrs.frozen(kw_only=True)
class WrittenHold:
    """A hold as it was found."""

    hold: Hold
    writing: object
    """Which writing of the file: equal for as long as nobody has written it again."""
    written_at: datetime


@attrs.define(kw_only=True)
class _Seen:
    life: object
    since_s: float
    writing: object = None
    over_s: float = 0.0
    until: str = ""
    released: bool = False


class HoldClock:
    """How long each hold has been seen."""

    def __init__(
        self,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic_s = monotonic_s
        self._now = now
        self._seen: dict[str, _Seen] = {}

    def find_hold(
        self,
        resource_id: str,
        written: WrittenHold | None,
        *,
        life: object,
        started_at: datetime,
        max_hold_s: float,
    ) -> NotReady | None:
        """Return why *resource_id*, whose present *life* began at *started_at*, must not be changed,
        according to its hold *written*; None where it may be changed."""
        if written is None or written.written_at < started_at - _STARTED_WITHIN:
            self.forget(resource_id)
            return None
        now_s = self._monotonic_s()
        seen = self._seen.get(resource_id)
        if seen is None or seen.life != life:
            seen = self._seen[resource_id] = _Seen(life=life, since_s=now_s)
        if seen.writing != written.writing:
            for_s = written.hold.for_s or max_hold_s
            seen.writing = written.writing
            seen.over_s = min(seen.since_s + max_hold_s, now_s + for_s)
            seen.until = rfc3339(self._now() + timedelta(seconds=seen.over_s - now_s))
        if seen.released or seen.over_s <= now_s:
            return None
        return NotReady(
            f"{written.hold.owner} has asked for time until {seen.until}: {written.hold.reason}",
            resource=resource_id,
            reason="Held",
            look_again_s=round(
                seen.over_s - now_s, 3
            ),  # no longer than was asked for, by a last bit
        )

    def release(self, resource_id: str) -> None:
        """Treat the present hold of *resource_id* as released until it takes a new one."""
        self._seen[resource_id].released = True

    def forget(self, resource_id: str) -> None:
        self._seen.pop(resource_id, None)
