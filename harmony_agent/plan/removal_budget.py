"""How much one manifest may take away: what is very much at once waits until somebody approves it.

    planned removals > the most that may go -> all of them are pending -> `harmony approve` -> a new manifest

Without a number that the manifest allows, up to `UNASKED_MOST` resources may go, or half of all that is
owned if that is more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

import attrs

__all__ = ["RemovalBudget", "needs_approval"]

UNASKED_MOST = 10


def needs_approval(planned: int, *, owned: int) -> bool:
    """Return whether a manifest that allows no number would have *planned* removals of *owned* wait."""
    return planned > _unasked_most(owned)


def _unasked_most(owned: int) -> int:
    return max(UNASKED_MOST, owned // 2)


@attrs.define
class RemovalBudget:
    """What may go under one manifest, and what waits for approval."""

    _most: int = 0
    pending: set[str] = attrs.field(factory=set[str])
    """The ids of what waits until it may go."""
    _spent: set[str] = attrs.field(factory=set[str], init=False)
    """What was let go: each counts once, however often it takes to look at it."""

    @classmethod
    def of(cls, planned: Collection[str], *, owned: int, approved: int) -> Self:
        """Return the budget of a manifest whose plans take away *planned* of *owned* resources."""
        most = max(_unasked_most(owned), approved)
        return cls(most, set(planned) if len(planned) > most else set())

    def spend(self, doomed: Collection[str]) -> bool:
        """Let *doomed* go, if so many may; else they are pending. Return whether they may."""
        spent = self._spent.union(doomed)
        if not self.pending and len(spent) <= self._most:
            self._spent = spent
            return True
        self.pending.update(doomed)
        return False
