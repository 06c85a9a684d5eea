"""The plan cache: what was found in order is not interpreted again while what it asks is answered alike.

What a Score does depends on three things only: its specification, the facts and labels that it reads, and
what the device answers. So when a run has changed nothing, and has asked the device nothing but "is this
so?", then the same specification, facts and answers have the same result; it need not be run to know. The
questions of all such Scores are put to each capability in one call, which is what makes a new manifest,
or a slow pass over a thousand files, cheap. A Score of which anything is answered otherwise is
interpreted in full.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping

import attrs

from harmony_agent.store.desired import Desired
from harmony_core.change import Change
from harmony_core.inventory import Inventory
from harmony_core.reconciler import AnyReconciler
from harmony_core.resources import Resource, State
from harmony_core.unexpected import without_exit
from harmony_core.wire.manifest import SerializedScore

from .device import Device
from .run_result import RunResult

__all__ = ["PlanCache"]

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class PlanCache:
    """Keeps, of every Score, the run that can be replayed."""

    device: Device
    desired: Desired
    _results: dict[str, RunResult] = attrs.field(factory=dict[str, RunResult], init=False)

    def record(self, result: RunResult) -> None:
        """Keep *result*, the newest of its Score, if it can be replayed."""
        if (
            result.is_noop
            and result.interpreted
            and result.only_ensured
            and not result.has_missing_inputs
        ):
            self._results[result.entry.id] = result
        else:
            self._results.pop(result.entry.id, None)

    def is_known(self, result: RunResult) -> bool:
        """Return whether *result* is what was recorded, and has seen nothing else since."""
        return self._results.get(result.entry.id) is result

    def forget_all_but(self, score_ids: Iterable[str]) -> None:
        """Keep nothing of Scores that are no longer wanted."""
        for gone in self._results.keys() - set(score_ids):
            del self._results[gone]

    async def look(
        self, entries: Iterable[SerializedScore], *, within_s: float
    ) -> dict[str, RunResult]:
        """Return the results of those *entries* that are known to come out in order again. Changes nothing.

        A capability that has not answered *within_s* is not waited for.
        """
        inventory = self.device.inventory(self.desired.labels)
        known = {
            each.id: result for each in entries if (result := self._of(each, inventory)) is not None
        }
        states = await self._states(
            {rid: wanted for result in known.values() for rid, wanted in result.wanted.items()},
            within_s,
        )
        return {
            score: _with_states(result, states)
            for score, result in known.items()
            if result.wanted.keys() <= states.keys()
        }

    def _of(self, entry: SerializedScore, inventory: Inventory) -> RunResult | None:
        result = self._results.get(entry.id)
        if result is None or entry.id in self.desired.faults:
            return None
        if result.entry is not entry:
            return None
        if result.answers and inventory.answers(result.answers) != result.answers:
            return None
        return result

    async def _states(self, wanted: Mapping[str, Resource], within_s: float) -> dict[str, State]:
        """Return what is in order among *wanted*, and how it is."""
        by_type: defaultdict[str, list[Resource]] = defaultdict(list)
        for resource in wanted.values():
            by_type[resource.resource_type].append(resource)
        states: dict[str, State] = {}
        tasks = [
            asyncio.create_task(_look_at(reconciler, by_type[resource_type], states))
            for reconciler in self.device.offers.values()
            if (resource_type := reconciler.resource_class.resource_type) in by_type
        ]
        if tasks:
            ended, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            for task in ended:
                if not task.cancelled() and (error := task.exception()) is not None:
                    # Whoever it concerns is interpreted in full, and fails by itself.
                    log.info("a look at what is in order failed: %r", error)
        return states


async def _look_at(
    reconciler: AnyReconciler, wanted: list[Resource], states: dict[str, State]
) -> None:
    for answer in await without_exit(reconciler.converge, wanted, apply=False):
        if isinstance(answer, Change) and not answer.changed and answer.pending is None:
            assert answer.after is not None, f"{answer.resource} is in order, and not there"
            states[answer.resource] = answer.after


def _with_states(result: RunResult, states: Mapping[str, State]) -> RunResult:
    now = {rid: states[rid] for rid in result.wanted}
    return result if now == result.states else attrs.evolve(result, states=now, applied=False)
