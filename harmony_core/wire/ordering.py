"""``after``: which entries of a manifest wait for which, and which wait for something impossible."""

from __future__ import annotations

from collections.abc import Sequence

from harmony_core.close_names import did_you_mean
from harmony_core.errors import DependencyCycle, EntryRefused, UnknownDependency

from .manifest import SerializedScore

__all__ = ["graph_faults"]


def graph_faults(entries: Sequence[SerializedScore]) -> dict[str, EntryRefused]:
    """Return the entries whose ``after`` cannot be followed, by id. Entries behind them merely wait."""
    after = {entry.id: set(entry.after) for entry in entries}
    faults: dict[str, EntryRefused] = {}
    for entry in entries:
        if unknown := sorted(name for name in entry.after if name not in after):
            hint = did_you_mean(unknown[0], after.keys() - {entry.id})
            faults[entry.id] = UnknownDependency(
                f"after: there is no Score {unknown[0]!r} on this device; push it, or remove the name{hint}"
            )
    # Only what is there can be on a cycle; of what is not, there may be very much.
    for score_id in _on_cycles({each: names & after.keys() for each, names in after.items()}):
        faults[score_id] = DependencyCycle(
            f"after: {score_id} waits for itself, by way of {', '.join(sorted(after[score_id]))}; "
            "remove one of the names"
        )
    return faults


def _on_cycles(after: dict[str, set[str]]) -> set[str]:
    """Return what is left after all entries were removed that wait for nothing left, or for which nothing
    left waits."""
    left = set(after)
    while True:
        awaited = {name for score_id in left for name in after[score_id]}
        free = {each for each in left if not after[each] & left or each not in awaited}
        if not free:
            return left
        left -= free
