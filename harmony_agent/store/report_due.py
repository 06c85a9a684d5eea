"""When the next report is due: what matters at once, progress at most once a second, counters seldom."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

__all__ = ["AT_ONCE_S", "COUNTERS_S", "PROGRESS_S", "ReportDue"]

AT_ONCE_S = 0.0
PROGRESS_S = 1.0
COUNTERS_S = 300.0


class ReportDue:
    """`marked` is set whenever there is something new to tell, and `gap_s` says how long after the last
    report it may wait: infinitely while there is nothing."""

    def __init__(self) -> None:
        self.marked = asyncio.Event()
        self.gap_s = math.inf
        self.on_news: Callable[[], None] = lambda: None
        """Called whenever there is something new but counters."""

    def mark(self, gap_s: float) -> None:
        """Say that there is something new, worth a report *gap_s* seconds after the last one."""
        self.mark_again(gap_s)
        if gap_s < COUNTERS_S:
            self.on_news()

    def mark_again(self, gap_s: float) -> None:
        """Say that a report is due *gap_s* seconds after the last one, though there may be nothing new."""
        self.gap_s = min(self.gap_s, gap_s)
        self.marked.set()

    def reset(self) -> None:
        """Note that everything is about to be reported."""
        self.gap_s = math.inf
