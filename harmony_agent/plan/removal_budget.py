"""How much one manifest may take away: what is very much at once waits until somebody approves it.

    planned removals > the most that may go -> all of them are pending -> `harmony approve` -> a new manifest

Without a number that the manifest allows, up to `UNASKED_MOST` resources may go, or half of all that is
owned if that is more; and nothing with which data would be deleted for good.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Self

import attrs

__all__ = ["RemovalBudget", "needs_approval"]

UNASKED_MOST = 10


def needs_approval(
    planned: Collection[str], *, owned: int, deletes_data: Callable[[str], bool]
) -> bool:
    """Return whether a manifest that allows no number would have the removals *planned* wait, of *owned*."""
    return len(planned) > _unasked_most(owned) or any(map(deletes_data, planned))


def _deletes_nothing(_: str) -> bool:
    return False


def _unasked_most(owned: int) -> int:
    return max(UNASKED_MOST, owned // 2)


@attrs.define
class RemovalBudget:
    """What may go under one manifest, and what waits for approval."""

    _most: int = 0
    _approved: int = 0
    _deletes_data: Callable[[str], bool] = _deletes_nothing
    """Of a resource's id: whether data goes with it for good."""
    pending: set[str] = attrs.field(factory=set[str])
    """The ids of what waits until it may go."""
    _spent: set[str] = attrs.field(factory=set[str], init=False)
    """What was let go: each counts once, however often it takes to look at it."""

    @classmethod
    def of(
        cls,
        planned: Collection[str],
        *,
        owned: int,
        approved: int,
        deletes_data: Callable[[str], bool] = _deletes_nothing,
    ) -> Self:
        """Return the budget of a manifest whose plans take away *planned* of *owned* resources."""
        budget = cls(max(_unasked_most(owned), approved), approved, deletes_data)
        if not budget._allows(planned):
            budget.pending.update(planned)
        return budget

    def _allows(self, doomed: Collection[str]) -> bool:
        is_asked_for = len(doomed) > self._approved and any(map(self._deletes_data, doomed))
        return len(doomed) <= self._most and not is_asked_for

    def spend(self, doomed: Collection[str]) -> bool:
        """Allow the removal of *doomed*, if so many are allowed; else they are pending. Return whether it is
        allowed."""
        spent = self._spent.union(doomed)
        if not self.pending and self._allows(spent):
            self._spent = spent
            return True
        self.pending.update(doomed)
        return False
