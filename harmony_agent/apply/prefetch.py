"""Prefetch: what takes long or may fail is done before anything that runs is touched.

    a plan that changes something -> claimed -> each capability that can prepare, does -> then apply

An image that is not there must not cost the configuration file of what runs well without it. Each resource's
error is its own: whether the Score goes on without that one, it says itself, when it is interpreted with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs

from harmony_agent.plan.device import Device
from harmony_agent.plan.generation import Generations
from harmony_agent.plan.ownership import Ownership
from harmony_agent.plan.run_result import RunResult
from harmony_core.change import NotReady
from harmony_core.errors import HarmonyError
from harmony_core.reconciler import Preparing
from harmony_core.resources import Resource
from harmony_core.unexpected import as_harmony_error, without_exit
from harmony_pi_topology.common.gather import gather_results

__all__ = ["Prefetch"]


@attrs.frozen(kw_only=True)
class Prefetch:
    """On one device, whose capabilities prepare or do not."""

    device: Device
    ownership: Ownership
    generations: Generations

    def is_due(self, score: str) -> bool:
        """Return whether *score* was not ready at the last question: its next plan must be asked about,
        too."""
        return score in self.generations.current.not_prefetched

    async def prepare(self, plan: RunResult) -> NotReady | Mapping[str, HarmonyError]:
        """Prepare everything that *plan* needs. Change nothing else.

        Return what it waits for; or the errors of what could not be prepared, by resource id. It is asked
        again before the next change.
        """
        signals: list[NotReady] = []
        errors: dict[str, HarmonyError] = {}
        for resource_id, result in (await self._prepare(plan)).items() if not plan.is_noop else ():
            if isinstance(result, NotReady):
                signals.append(result)
            elif isinstance(result, Exception):
                errors[resource_id] = as_harmony_error(result, resource=resource_id)
        if errors or signals:
            self.generations.current.not_prefetched.add(plan.entry.id)
        else:
            self.generations.current.not_prefetched.discard(plan.entry.id)
        # What is still fetched beside an error is waited for in the interpretation that follows.
        return errors if errors or not signals else signals[0]

    async def _prepare(self, plan: RunResult) -> Mapping[str, object]:
        """Return the result for each resource that can be prepared."""
        results: dict[str, object] = {}
        for reconciler in self.device.offers.values():
            wanted = [
                each
                for each in plan.wanted.values()
                if isinstance(each, reconciler.resource_class) and each.needs_preparing
            ]
            # In this order: whether something satisfies a Protocol is dear to ask, and most do not.
            if wanted and hasattr(reconciler, "prepare") and isinstance(reconciler, Preparing):
                prepare = partial(self._prepare_one, plan.entry.id, reconciler)
                results |= zip(
                    (each.id for each in wanted),
                    await gather_results(wanted, prepare),
                    strict=True,
                )
        return results

    async def _prepare_one(self, score: str, reconciler: Preparing, wanted: Resource) -> None:
        await self.ownership.claim(score, [wanted])
        await without_exit(reconciler.prepare, [wanted])
