"""Holds: no change of a Score begins while something that it made says "not now".

Asked of the reconcilers of all that the ledger says the Score has made. A Score is put off as a whole: its
configuration is not written beneath a container that still runs with the old one.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from harmony_agent.plan.device import find_reconciler
from harmony_agent.store.ledger import Ledger
from harmony_core.change import NotReady
from harmony_core.errors import CapabilityError, NotHeld
from harmony_core.holds import Holding
from harmony_core.reconciler import Offers
from harmony_core.resources import ResourceId

__all__ = ["AppHolds"]


@attrs.frozen(kw_only=True)
class AppHolds:
    """Asks, and releases."""

    offers: Offers
    ledger: Ledger

    async def find_hold(self, score: str) -> NotReady | None:
        """Return why *score* must not be changed now; None where it may. An application that does not answer
        holds nothing: its failure is reported elsewhere."""
        for holding, key in self._find_holding(score):
            try:
                why = await holding.find_hold(key)
            except CapabilityError:
                continue
            if why is not None:
                return why
        return None

    async def release(self, score: str) -> None:
        """Release the hold on changes of *score*. Raise `NotHeld` where there is none."""
        released = [await holding.release(key) for holding, key in self._find_holding(score)]
        if not any(released):
            raise NotHeld(f"Score {score!r} has no postponed changes: there is nothing to release")

    def _find_holding(self, score: str) -> Iterator[tuple[Holding, str]]:
        for resource_type, key in map(ResourceId.parse, self.ledger.owned_by(score)):
            reconciler: object = find_reconciler(self.offers, resource_type)
            # In this order: whether something satisfies a Protocol is dear to ask, and most do not.
            if hasattr(reconciler, "find_hold") and isinstance(reconciler, Holding):
                yield reconciler, key
