"""Pending removals: very many at once, which a device holds back until `harmony approve`."""

from __future__ import annotations

from harmony_core.settled import count_held_removals
from harmony_core.wire.actual_state import ActualState, ScoreStatus

__all__ = ["removals_held", "removals_of"]


def removals_of(page: ScoreStatus) -> int:
    """Return how many resources of one Score are held back from removal; 0 where there are none."""
    return count_held_removals(page.outcome)


def removals_held(state: ActualState | None) -> dict[str, int]:
    """Return, by id of the Score, how many of its resources are held back from removal. Leave out Scores with
    none."""
    if state is None:
        return {}
    return {name: count for name, page in state.scores.items() if (count := removals_of(page))}
