"""Prefetch: what takes long or may fail is done before anything that runs is touched.

    a plan that changes something -> claimed -> each capability that can prepare, does -> then apply

An image that is not there must not cost the configuration file of what runs well without it.
"""

from __future__ import annotations

import attrs

from harmony_agent.plan.device import Device
from harmony_agent.plan.generation import Generations
from harmony_agent.plan.ownership import Ownership
from harmony_agent.plan.run_result import RunResult
from harmony_core.change import NotReady
from harmony_core.interpretation import Verdict, verdict_of
from harmony_core.reconciler import Preparing
from harmony_core.unexpected import as_harmony_error, without_exit

__all__ = ["Prefetch"]


@attrs.frozen(kw_only=True)
class Prefetch:
    """On one device, whose capabilities prepare or do not."""

    device: Device
    ownership: Ownership
    generations: Generations

    def is_due(self, score: str) -> bool:
        """Return whether *score* was not ready when last asked: its next plan is to be asked about, too."""
        return score in self.generations.current.not_prefetched

    async def prepare(self, plan: RunResult) -> Verdict | None:
        """Have everything ready that *plan* needs; the verdict as long as it is not. Nothing else changes."""
        try:
            if not plan.is_noop:
                await self._prepare(plan)
        except NotReady as signal:
            self.generations.current.not_prefetched.add(plan.entry.id)
            return verdict_of(signal)
        except Exception as error:  # noqa: BLE001 - asked again before the deed, whatever it was
            self.generations.current.not_prefetched.add(plan.entry.id)
            return verdict_of(as_harmony_error(error))
        self.generations.current.not_prefetched.discard(plan.entry.id)
        return None

    async def _prepare(self, plan: RunResult) -> None:
        for reconciler in self.device.offers.values():
            wanted = [w for w in plan.wanted.values() if isinstance(w, reconciler.resource_class)]
            # In this order: whether something satisfies a Protocol is dear to ask, and most do not.
            if wanted and hasattr(reconciler, "prepare") and isinstance(reconciler, Preparing):
                await self.ownership.claim(plan.entry.id, wanted)
                await without_exit(reconciler.prepare, wanted)
