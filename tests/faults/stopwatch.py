"""What the time of a long test is spent on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import attrs

__all__ = ["Stopwatch"]


@attrs.define
class Stopwatch:
    """Adds up, by what it is spent on, the time of all who do something at once."""

    spent: Counter[str] = attrs.field(factory=Counter[str])
    """Milliseconds."""
    longest: Counter[str] = attrs.field(factory=Counter[str])
    """Of each, the longest, in milliseconds."""

    @contextmanager
    def timed(self, what: str) -> Generator[None]:
        """Count the time of the block as spent on *what*."""
        began = time.monotonic()
        try:
            yield
        finally:
            took = round(1000 * (time.monotonic() - began))
            self.spent[what] += took
            self.longest[what] = max(took, self.longest[what])

    def __str__(self) -> str:
        return ", ".join(
            f"{what} {each / 1000:,.0f} s (the longest {self.longest[what] / 1000:.1f} s)"
            for what, each in self.spent.most_common()
        )
