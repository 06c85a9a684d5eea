"""A preview: what would change if these entries were all that is wanted. Nothing is done, and nothing noted.

each entry, layer by layer of ``after`` -> dry run -> rolled back, put off, or another's? -> what would go

What is not in force is run aside: nothing that it brings along is taken for what is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import attrs

from harmony_agent.plan.desired_index import DesiredIndex
from harmony_agent.plan.generation import Generation, Generations
from harmony_agent.plan.ownership import Ownership
from harmony_agent.plan.planner import Planner, in_layers, referenced_by
from harmony_agent.plan.removal_budget import needs_approval
from harmony_agent.plan.run_result import RunResult, ScorePlan
from harmony_agent.store.ledger import Ledger
from harmony_core.interpretation import verdict_of
from harmony_core.wire.manifest import SerializedScore

from .removal import Removal
from .rollback import Rollback
from .runner import ScoreRunner

__all__ = ["Preview"]


@attrs.frozen(kw_only=True)
class Preview:
    """Says beforehand what a manifest would come to."""

    planner: Planner
    runner: ScoreRunner
    rollback: Rollback
    removal: Removal
    ledger: Ledger

    async def preview(self, entries: Sequence[SerializedScore]) -> list[ScorePlan]:
        """Return what would change if *entries* were all that is wanted, and what would be removed."""
        seen: dict[str, RunResult] = {}
        with self.runner.aside() as runner:
            aside = attrs.evolve(self.planner, runner=runner)
            for layer in in_layers(entries):
                results = await asyncio.gather(
                    *(self._look_ahead(each, seen, aside) for each in layer)
                )
                seen |= {each.entry.id: each for each in results}
        named = referenced_by(seen.values())
        plans: list[ScorePlan] = []
        for planned in self._with_conflicts([seen[each.id] for each in entries]):
            removals = await self.removal.preview(self.planner.find_unnamed(planned, named))
            plans.append(ScorePlan(score=planned.entry.id, planned=planned, removals=removals))
        for score in sorted(self.ledger.scores() - seen.keys()):
            made = [rid for rid in self.ledger.owned_by(score) if rid not in named]
            removals = await self.removal.preview(made)
            plans.append(ScorePlan(score=score, planned=None, removals=removals))
        gone = [change.resource for each in plans for change in each.removals]
        if not needs_approval(gone, owned=self.ledger.owned, deletes_data=self.ledger.deletes_data):
            return plans
        return [attrs.evolve(each, held=bool(each.removals)) for each in plans]

    def _with_conflicts(self, results: Collection[RunResult]) -> list[RunResult]:
        """Return *results*, with the conflicts where another Score owns what they want."""
        index = DesiredIndex(each.entry for each in results)
        foreseen = Ownership(self.ledger, Generations(Generation(index=index)))
        for each in results:
            if each.interpreted:
                foreseen.note_plan(each)
        refused = foreseen.find_refused(
            [(each.entry.id, tuple(each.wanted.values())) for each in results]
        )
        for each in results:
            if (why := foreseen.refusal_to_remove(each.entry.id, each.unwanted)) is not None:
                refused.setdefault(each.entry.id, why)
        return [
            each
            if (why := refused.get(each.entry.id)) is None
            else attrs.evolve(each, verdict=verdict_of(why), changes=())
            for each in results
        ]

    async def _look_ahead(
        self, entry: SerializedScore, seen: Mapping[str, RunResult], aside: Planner
    ) -> RunResult:
        """Plan *entry*, *aside* where it is not effective, and mark it if it was rolled back or is held."""
        tried = self.rollback.effective(entry)
        known = self.planner.desired.entries.get(entry.id)
        in_force = None if known is None else self.rollback.effective(known)
        if in_force is not None and tried == in_force:
            planned = await self.planner.dry_run(in_force, seen)
        else:
            planned = await aside.dry_run(tried, seen)
        if tried is not entry:
            told = await self.rollback.evaluate(entry, tried, planned.verdict)
            return attrs.evolve(planned, verdict=told)
        if not planned.changes or (why := await self.removal.holds.find_hold(entry.id)) is None:
            return planned
        return attrs.evolve(planned, verdict=verdict_of(why))
