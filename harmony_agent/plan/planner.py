"""Plan, then apply: before anything is done for a new manifest, all of it is interpreted without effect.

    all Scores, layer by layer of ``after``  ->  RunResult(applied=False) each
                     |
    claims of all in one transaction; conflicts; what moves; how much would go

What a Score's plan finds in order is not run a second time. Planning is bounded: a plan that takes longer
(a podman that hangs) is finished later, at that Score's own turn, and keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import attrs

from harmony_agent.store.database import Statement
from harmony_agent.store.desired import Desired
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.revisions import Revisions
from harmony_agent.store.status import StatusStore
from harmony_core.errors import LedgerUnusable
from harmony_core.resources import State
from harmony_core.wire.manifest import SerializedScore

from .generation import Generation, Generations
from .ownership import Ownership
from .plan_cache import PlanCache
from .removal_budget import RemovalBudget
from .run_result import RunResult

__all__ = ["PLAN_WITHIN_S", "Interpreter", "Planner", "in_layers", "referenced_by"]

log = logging.getLogger(__name__)

PLAN_WITHIN_S = 2.0
"""How long a manifest waits for its slowest plan."""


class Interpreter(Protocol):
    """Interprets a Score: `harmony_agent.apply.runner.ScoreRunner`. Here it only ever runs dry."""

    async def run(
        self,
        entry: SerializedScore,
        *,
        apply: bool,
        planned: Mapping[str, State],
        rewritten: Collection[str],
        awaits_changes: bool,
    ) -> RunResult:
        """Interpret *entry* as if what is *planned* were so already, and *rewritten* files were new; with
        *awaits_changes*, other differences may be gone by then, too."""
        ...


@attrs.frozen(kw_only=True)
class Planner:
    """The plans of the manifest in force, each until it has been used."""

    runner: Interpreter
    effective: Callable[[SerializedScore], SerializedScore]
    """What is to be planned for an entry: itself, or its last known good revision."""
    desired: Desired
    ledger: Ledger
    revisions: Revisions
    ownership: Ownership
    statuses: StatusStore
    plan_cache: PlanCache
    generations: Generations

    @property
    def _generation(self) -> Generation:
        return self.generations.current

    async def plan(self, *, nothing_in_flight: bool, suspects: Iterable[str] = ()) -> None:
        """Plan the effective manifest: begin its generation.

        *suspects* are left for their own turn. Unless there is *nothing_in_flight*, an earlier change may
        still take effect after something was looked at: then no plan replaces the run itself.
        """
        current = self.desired.in_force
        generation = self.generations.begin(
            self.desired.entries.values(), nothing_in_flight=nothing_in_flight
        )
        wanted = [each for each in self.desired.entries.values() if each.id not in suspects]
        entries = [self.effective(each) for each in wanted]
        generation.replayed = await self.plan_cache.look(entries, within_s=PLAN_WITHIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PLAN_WITHIN_S):
                fresh = [each for each in entries if each.id not in generation.replayed]
                for layer in in_layers(fresh):
                    await asyncio.wait([self._start_plan(entry) for entry in layer])
                doubtful = self._discard_doubtful()
                if again := [self._start_plan(each) for each in entries if each.id in doubtful]:
                    await asyncio.wait(again)
        await self._decide(entries)
        generation.planned = current

    def give_up(self) -> None:
        """Leave each Score of the effective manifest to its own turn, since it cannot be planned as a whole.

        Scores that are no longer wanted count as planned removals, so that a large removal is still held
        back.
        """
        self._generation.abandon_plans()
        self._generation.nothing_in_flight = False
        self.desired.store_later()
        self._set_budget(self._find_unwanted(), owned=self.ledger.owned)
        self._generation.planned = self.desired.in_force

    def _find_unwanted(self) -> set[str]:
        """Return the ids of what is owned by Scores that the manifest has no longer."""
        unwanted = self.ledger.scores() - self.desired.entries.keys()
        return {rid for score in unwanted for rid in self.ledger.owned_by(score)}

    def _set_budget(self, going: Collection[str], *, owned: int) -> None:
        in_force = self.desired.in_force
        approved = in_force.removals_allowed if in_force else 0
        budget = RemovalBudget.of(
            going, owned=owned, approved=approved, deletes_data=self.ledger.deletes_data
        )
        self._generation.removals = budget
        self.statuses.device.set_pending_removals(len(budget.pending))

    async def take(self, entry: SerializedScore) -> RunResult | None:
        """Return the plan of *entry*, once; None where it was used already, or was one of something else."""
        if (replayed := self._generation.replayed.pop(entry.id, None)) is not None:
            return replayed if replayed.entry is entry else None
        task = self._generation.plans.pop(entry.id, None)
        if task is None:
            return None
        try:
            planned = await task
        except asyncio.CancelledError:
            if not task.done():
                task.cancel()
            raise
        if planned.entry is not entry:
            return None
        self._note_names(planned)
        return planned

    def ready(self, score: str) -> RunResult | None:
        """Return the plan of *score*, if it is made. It stays to be used."""
        if (replayed := self._generation.replayed.get(score)) is not None:
            return replayed
        task = self._generation.plans.get(score)
        return task.result() if task is not None and _has_ended(task) else None

    def discard(self, score: str) -> None:
        """Discard the plan of *score*."""
        self._generation.replayed.pop(score, None)
        self._generation.plans.pop(score, None)

    async def dry_run(self, entry: SerializedScore, seen: Mapping[str, RunResult]) -> RunResult:
        """Return a plan of *entry*, after what *seen* says of those that it waits for."""
        before = [seen[name] for name in entry.after if name in seen]
        return await self.runner.run(
            entry,
            apply=False,
            planned=ChainMap(*(dict(each.states or {}) for each in before)),
            rewritten=[path for each in before for path in each.rewritten],
            awaits_changes=any(each.may_change for each in before),
        )

    def _start_plan(self, entry: SerializedScore) -> asyncio.Task[RunResult]:
        seen = {name: plan for name in entry.after if (plan := self.ready(name)) is not None}
        work = self.dry_run(entry, seen)
        task = self._generation.plans[entry.id] = asyncio.create_task(work, name=f"plan {entry.id}")
        return task

    def _discard_doubtful(self) -> set[str]:
        """Return, and discard the plans of, the replayed Scores of which something is another's by now.

        What is known of them may be old: a device gives a number again. They are to be planned after all.
        """
        others = {
            key: rid
            for score in self._generation.plans
            if (plan := self.ready(score)) is not None
            for rid, keys in plan.identities.items()
            for key in keys
        }
        if not others:
            return set()
        doubtful = {
            score
            for score, replayed in self._generation.replayed.items()
            for rid, keys in replayed.identities.items()
            if any(others.get(key, rid) != rid for key in keys)
        }
        for score in doubtful:
            del self._generation.replayed[score]
        return doubtful

    async def _decide(self, entries: Sequence[SerializedScore]) -> None:
        results = [plan for entry in entries if (plan := self.ready(entry.id)) is not None]
        for each in results:
            self._note_names(each)
        # What is replayed has its claims, and nothing beside them: else it would not have been recorded.
        fresh = [each for each in results if each.entry.id not in self._generation.replayed]
        owned = self.ledger.owned  # before what is new is added to it
        revisions = list(self._record_after())
        along = [*self.desired.unstored_statements(), *revisions]
        try:
            await self.ownership.claim_all(
                [(each.entry.id, tuple(each.wanted.values())) for each in fresh], along=along
            )
        except LedgerUnusable as error:
            # Each Score claims for itself when its turn comes; the manifest is stored with what comes next.
            log.warning("nothing can be noted before it is done: %s", error.message)
            self._generation.nothing_in_flight = False
            self.desired.store_later()
            self.statuses.writer.add(revisions)
        else:
            self.desired.mark_stored()
        # After the manifest is stored, and before anything is done for it.
        await self.desired.keep_floor()
        self.statuses.device.set_floor_problem(self.desired)
        going = self._find_unwanted()
        named = referenced_by(results)
        for each in fresh:
            going.update(self.find_unnamed(each, named))
        self._set_budget(going - named, owned=owned)

    def _record_after(self) -> Iterator[Statement]:
        """Yield the statements that record which Scores each Score waits for, if that can be followed."""
        for entry in self.desired.entries.values():
            if entry.id not in self.desired.faults:
                yield from self.revisions.record_after(entry)

    def _note_names(self, planned: RunResult) -> None:
        if planned.interpreted:
            self.ownership.note_plan(planned)

    def find_unnamed(self, planned: RunResult, named: Collection[str] = ()) -> list[str]:
        """Return what *planned* owns and no longer names, if the plan shows that; without *named*."""
        if not planned.completed or planned.has_missing_inputs:
            return []
        left = self.ownership.find_unnamed(planned.entry.id, planned.referenced)
        return [rid for rid in left if rid not in named]


def _has_ended(task: asyncio.Task[RunResult]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def referenced_by(results: Iterable[RunResult]) -> set[str]:
    """Return the ids of all that *results* have referenced."""
    named: set[str] = set()
    for each in results:
        named.update(each.referenced)
    return named


def in_layers(entries: Sequence[SerializedScore]) -> list[list[SerializedScore]]:
    """Return *entries* in layers, those first that wait for nothing.

    What waits for something impossible comes last.
    """
    left = {entry.id: entry for entry in entries}
    layers: list[list[SerializedScore]] = []
    while left:
        free = [each for each in left.values() if not any(name in left for name in each.after)]
        layers.append(free or list(left.values()))
        for each in layers[-1]:
            del left[each.id]
    return layers
