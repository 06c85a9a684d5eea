"""Figures, and the lines that are made of them: what was measured, its floor, and the goal.

A line says the measured value, the floor's, and the ratio of the two. What the goal judges is always the
ratio, never an absolute figure: machines differ, and this one may be busy.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Literal

import attrs

__all__ = ["Figure", "Goal", "Line", "Unmeasurable", "median", "p99"]


class Unmeasurable(Exception):
    """A line that cannot be measured on this machine. The message says why."""


@attrs.frozen
class Figure:
    """One value, and half the distance between its quartiles."""

    value: float
    spread: float
    unit: str
    samples: int = 1

    def __add__(self, other: Figure) -> Figure:
        spread = (self.spread**2 + other.spread**2) ** 0.5
        return Figure(self.value + other.value, spread, self.unit, min(self.samples, other.samples))

    def __str__(self) -> str:
        digits = 2 if self.value < 100 else 0
        spread = f" ±{self.spread:.{digits}f}" if self.spread else ""
        return f"{self.value:.{digits}f}{spread} {self.unit}"


def median(samples: Iterable[float], unit: str) -> Figure:
    """Return the median of *samples*."""
    values = sorted(samples)
    return Figure(statistics.median(values), _half_quartiles(values), unit, len(values))


def p99(samples: Iterable[float], unit: str) -> Figure:
    """Return the 99th percentile of *samples*, of which there should be some hundreds.

    Its spread is half the distance from the 98th to the largest but one.
    """
    values = sorted(samples)
    last = len(values) - 1
    beyond = max(0, values[max(last - 1, 0)] - values[round(last * 0.98)])
    return Figure(values[round(last * 0.99)], beyond / 2, unit, len(values))


def _half_quartiles(values: list[float]) -> float:
    if len(values) < 4:
        return (values[-1] - values[0]) / 2
    quarters = statistics.quantiles(values, n=4)
    return (quarters[2] - quarters[0]) / 2


@attrs.frozen
class Goal:
    """How many times the floor at most; or how many times less than a peer at least."""

    limit: float
    kind: Literal["at most", "at least"] = "at most"

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'at most' else '≥'} {self.limit:g}"

    def holds(self, ratio: float) -> bool:
        return ratio <= self.limit if self.kind == "at most" else ratio >= self.limit


@attrs.frozen(kw_only=True)
class Line:
    """One measurement. Without a goal it is there to be known, and judged by nobody."""

    id: str
    measured: Figure | None = None
    floor: Figure | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the floor; of a peer, the peer's over ours."""
        if self.measured is None or self.floor is None:
            return None
        if self.goal is not None and self.goal.kind == "at least":
            return self.floor.value / self.measured.value
        return self.measured.value / self.floor.value

    @property
    def verdict(self) -> Literal["ok", "short", "info"]:
        """What could not be measured counts as short."""
        if self.goal is None:
            return "info"
        return "ok" if self.ratio is not None and self.goal.holds(self.ratio) else "short"
