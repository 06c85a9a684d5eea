"""The counter in what this device says: greater each time, so that nothing it said before passes for news.

It begins where no earlier run can have come to: at the time of day in milliseconds, or at what an earlier run
has reserved, whichever is greater. So neither a clock that went back nor a database that was lost alone makes
it go back. But each run reserves some minutes more than have passed, so an older database, or none, may count
from less than was told already: then the device's own last report on the bus says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from .database import Database, Statement

__all__ = ["ReportCounter"]

_RESERVED_AT_ONCE = 1 << 20
_RESERVE = "INSERT OR REPLACE INTO report_counter (only, reserved) VALUES (1, ?)"


class ReportCounter:
    """Counts what is said. *reserve* stores a statement with what is written next."""

    def __init__(self, first: int, reserve: Callable[[list[Statement]], None]) -> None:
        self._last: int = first
        self._reserved: int = first
        self._reserve = reserve

    @classmethod
    async def load(
        cls,
        database: Database,
        reserve: Callable[[list[Statement]], None],
        *,
        now_ms: int | None = None,
    ) -> Self:
        """Continue from what the last run reserved."""
        rows = await database.read("SELECT reserved FROM report_counter")
        clock_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        return cls(max([clock_ms, *(int(reserved) for (reserved,) in rows)]), reserve)

    def go_beyond(self, told: int) -> None:
        """Continue beyond *told*, which an earlier run has reported, and beyond whatever it may have reported
        since."""
        if told > self._last:
            self._last = self._reserved = told + _RESERVED_AT_ONCE

    def next(self) -> int:
        """Return a number greater than any before."""
        if self._last == self._reserved:
            self._reserved += _RESERVED_AT_ONCE
            self._reserve([(_RESERVE, (self._reserved,))])
        self._last += 1
        return self._last
