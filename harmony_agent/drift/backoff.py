"""Patience with whoever keeps changing what a Score says: each repair waits twice as long as the last.

The first drift is put right at once. If it comes back within ten minutes, somebody is fighting: the wait
grows from 1 s to 5 min, and is forgotten after ten minutes of peace.
"""

from __future__ import annotations

import attrs

__all__ = ["Patience"]

PEACE_S = 600.0
WAIT_FIRST_S = 1.0
WAIT_MOST_S = 300.0
FIGHT_FROM = 3
"""As many repairs in a row are a fight, and worth a condition."""


@attrs.frozen
class _Repairs:
    last: float
    count: int


class Patience:
    """All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._repairs: dict[str, _Repairs] = {}

    def repaired(self, score: str, now: float) -> None:
        """Drift of *score* was put right."""
        before = self._repairs.get(score)
        count = before.count + 1 if before and now - before.last < PEACE_S else 1
        self._repairs[score] = _Repairs(now, count)

    def wait_s(self, score: str, now: float) -> float:
        """How long a repair of *score* has to wait from *now*."""
        repairs = self._repairs.get(score)
        if repairs is None or now - repairs.last >= PEACE_S or repairs.count < 2:
            return 0.0
        due = repairs.last + min(WAIT_MOST_S, WAIT_FIRST_S * 2.0 ** min(repairs.count - 2, 12))
        return max(0.0, due - now)

    def fights(self, now: float) -> dict[str, int]:
        """The Scores that somebody is fighting, with the number of repairs."""
        return {
            score: each.count
            for score, each in self._repairs.items()
            if each.count >= FIGHT_FROM and now - each.last < PEACE_S
        }

    def forget(self, score: str) -> None:
        self._repairs.pop(score, None)
