"""Plan, then apply: before anything is done for a new manifest, all of it is interpreted without effect.

    all Scores, layer by layer of ``after``  ->  Pass(apply=False) each
                     |
    claims of all in one transaction; conflicts; what moves; how much would go

What a Score's plan finds in order needs no second look. Planning is bounded: a plan that takes longer (a
podman that hangs) is finished later, at that Score's own turn, and keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import attrs

from harmony_agent.apply.removal import Removal
from harmony_agent.apply.rollback import Rollback
from harmony_agent.apply.runner import RunResult, ScoreRunner
from harmony_agent.store.database import Statement
from harmony_agent.store.desired import Desired
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.revisions import Revisions
from harmony_agent.store.status import StatusStore
from harmony_core.change import Change
from harmony_core.errors import LedgerUnusable
from harmony_core.interpretation import verdict_of
from harmony_core.outcome import Running
from harmony_core.wire.manifest import Accepted, SerializedScore

from .ownership import Ownership
from .plan_cache import PlanCache

__all__ = ["PLAN_WITHIN_S", "Planner", "ScorePlan"]

log = logging.getLogger(__name__)

PLAN_WITHIN_S = 2.0
"""How long a manifest waits for its slowest plan."""


@attrs.frozen(kw_only=True)
class ScorePlan:
    """What one Score would change, for somebody who asks."""

    score: str
    planned: RunResult | None
    """None for a Score that would be taken away."""
    removals: Sequence[Change] = ()
    held: bool = False
    """Whether its removals would be held back, since they are very many together."""

    @property
    def unknown(self) -> str:
        """Why the plan ends early; empty when it does not."""
        if self.planned is None or not isinstance(self.planned.verdict.outcome, Running):
            return ""
        return self.planned.verdict.outcome.message


@attrs.define(kw_only=True)
class Planner:
    """The plans of the manifest in force, each until it has been used."""

    runner: ScoreRunner
    rollback: Rollback
    desired: Desired
    ledger: Ledger
    revisions: Revisions
    ownership: Ownership
    removal: Removal
    statuses: StatusStore
    plan_cache: PlanCache
    nothing_in_flight: bool = False
    planned: Accepted | None = None
    """The manifest whose plans these are."""
    _cached: dict[str, RunResult] = attrs.field(factory=dict[str, RunResult], init=False)
    _plans: dict[str, asyncio.Task[RunResult]] = attrs.field(
        factory=dict[str, asyncio.Task[RunResult]], init=False
    )

    async def plan(self, *, nothing_in_flight: bool, suspects: Iterable[str] = ()) -> None:
        """Plan the manifest in force. *suspects* are left for their own turn.

        Unless it is *quiet*, something under way may still land after it was looked at: then no plan
        stands in for the deed.
        """
        current = self.desired.current
        self.nothing_in_flight = nothing_in_flight
        self._abandon()
        wanted = [each for each in self.desired.entries.values() if each.id not in suspects]
        entries = [self.rollback.effective(each) for each in wanted]
        self.ownership.begin(self.desired.entries.values())
        self._cached = await self.plan_cache.look(entries, within_s=PLAN_WITHIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PLAN_WITHIN_S):
                for layer in _layers([each for each in entries if each.id not in self._cached]):
                    await asyncio.wait([self._begin(entry) for entry in layer])
                doubtful = self._known_otherwise()
                if again := [self._begin(each) for each in entries if each.id in doubtful]:
                    await asyncio.wait(again)
        await self._decide(entries)
        self.planned = current

    def give_up(self) -> None:
        """The manifest in force cannot be planned as a whole: each Score is planned at its own turn.

        What nobody wants any more counts as going, so that very much of it is still held.
        """
        self._abandon()
        self.nothing_in_flight = False
        self.desired.store_later()
        unwanted = self.ledger.scores() - self.desired.entries.keys()
        going = [rid for score in unwanted for rid in self.ledger.owned_by(score)]
        self.removal.begin(going, owned=self.ledger.owned)
        self.planned = self.desired.current

    async def of(self, entry: SerializedScore) -> RunResult | None:
        """The plan of *entry*, once; None when it was used already, or was one of something else."""
        if (replayed := self._cached.pop(entry.id, None)) is not None:
            return replayed if replayed.entry is entry else None
        task = self._plans.pop(entry.id, None)
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
        self._note(planned)
        return planned

    def ready(self, score: str) -> RunResult | None:
        """The plan of *score*, if it is made. It stays to be used."""
        if (replayed := self._cached.get(score)) is not None:
            return replayed
        task = self._plans.get(score)
        return task.result() if task is not None and _has_ended(task) else None

    def discard(self, score: str) -> None:
        """The plan of *score* has served."""
        self._cached.pop(score, None)
        self._plans.pop(score, None)

    async def preview(self, entries: Sequence[SerializedScore]) -> list[ScorePlan]:
        """What would change if *entries* were all that is wanted. Nothing is done, and nothing noted."""
        seen: dict[str, RunResult] = {}
        for layer in _layers(entries):
            passes = await asyncio.gather(*(self._foreseen(each, seen) for each in layer))
            seen |= {each.entry.id: each for each in passes}
        named = _names_of(seen.values())
        plans: list[ScorePlan] = []
        for planned in self._with_conflicts([seen[each.id] for each in entries]):
            removals = await self.removal.preview(self._no_longer_named(planned, named))
            plans.append(ScorePlan(score=planned.entry.id, planned=planned, removals=removals))
        for score in sorted(self.ledger.scores() - seen.keys()):
            made = [rid for rid in self.ledger.owned_by(score) if rid not in named]
            removals = await self.removal.preview(made)
            plans.append(ScorePlan(score=score, planned=None, removals=removals))
        if not self.removal.needs_approval(sum(len(each.removals) for each in plans)):
            return plans
        return [attrs.evolve(each, held=bool(each.removals)) for each in plans]

    def _with_conflicts(self, passes: Collection[RunResult]) -> list[RunResult]:
        """*passes*, with what would come of them where another Score owns what they want."""
        foreseen = Ownership(self.ledger)
        foreseen.begin([each.entry for each in passes])
        for each in passes:
            if each.interpreted:
                foreseen.names(
                    each.entry.id,
                    each.referenced,
                    each.wanted,
                    each.identities,
                    completed=each.completed,
                )
        refused = foreseen.find_refused(
            [(each.entry.id, tuple(each.wanted.values())) for each in passes]
        )
        for each in passes:
            if (why := foreseen.refusal_to_remove(each.entry.id, each.unwanted)) is not None:
                refused.setdefault(each.entry.id, why)
        return [
            each
            if (why := refused.get(each.entry.id)) is None
            else attrs.evolve(each, verdict=verdict_of(why), changes=())
            for each in passes
        ]

    async def _dry_run(self, entry: SerializedScore, seen: Mapping[str, RunResult]) -> RunResult:
        """A plan of *entry*, after what *seen* says of those that it waits for."""
        before = [seen[name] for name in entry.after if name in seen]
        return await self.runner.run(
            entry,
            apply=False,
            planned=ChainMap(*(dict(each.states or {}) for each in before)),
            rewritten=[path for each in before for path in each.rewritten],
        )

    async def _foreseen(self, entry: SerializedScore, seen: Mapping[str, RunResult]) -> RunResult:
        """The same, for somebody who asks: what was rolled back, or is put off, is said to be."""
        tried = self.rollback.effective(entry)
        planned = await self._dry_run(tried, seen)
        if tried is not entry:
            told = await self.rollback.evaluate(entry, tried, planned.verdict)
            return attrs.evolve(planned, verdict=told)
        if not planned.changes or (why := await self.removal.holds.find_hold(entry.id)) is None:
            return planned
        return attrs.evolve(planned, verdict=verdict_of(why))

    def _begin(self, entry: SerializedScore) -> asyncio.Task[RunResult]:
        seen = {name: plan for name in entry.after if (plan := self.ready(name)) is not None}
        work = self._dry_run(entry, seen)
        task = self._plans[entry.id] = asyncio.create_task(work, name=f"plan {entry.id}")
        return task

    def _known_otherwise(self) -> set[str]:
        """The Scores that were not planned anew, and of which something is now known to be another's.

        What is known of them may be old: a device gives a number again. They are to be planned after all.
        """
        others = {
            key: rid
            for score in self._plans
            if (plan := self.ready(score)) is not None
            for rid, keys in plan.identities.items()
            for key in keys
        }
        doubtful = {
            score
            for score, replayed in self._cached.items()
            for rid, keys in replayed.identities.items()
            if any(others.get(key, rid) != rid for key in keys)
        }
        for score in doubtful:
            del self._cached[score]
        return doubtful

    def _abandon(self) -> None:
        for task in self._plans.values():
            task.cancel()
        self._plans.clear()
        self._cached.clear()

    async def _decide(self, entries: Sequence[SerializedScore]) -> None:
        passes = [plan for entry in entries if (plan := self.ready(entry.id)) is not None]
        for each in passes:
            self._note(each)
        # What is replayed has its claims, and nothing beside them: else it would not have been recorded.
        fresh = [each for each in passes if each.entry.id not in self._cached]
        owned = self.ledger.owned  # before what is new is added to it
        revisions = list(self._revisions())
        along = [*self.desired.unstored_statements(), *revisions]
        try:
            await self.ownership.claim_all(
                [(each.entry.id, tuple(each.wanted.values())) for each in fresh], along=along
            )
        except LedgerUnusable as error:
            # Each Score claims for itself when its turn comes; the manifest is stored with what comes next.
            log.warning("nothing can be noted before it is done: %s", error.message)
            self.nothing_in_flight = False
            self.desired.store_later()
            self.statuses.save_with(revisions)
        else:
            self.desired.mark_stored()
        # After the manifest is stored, and before anything is done for it.
        await self.desired.keep_floor()
        self.statuses.tell_floor(lost=self.desired.floor_lost, unkept=self.desired.floor_unkept)
        going = {
            rid
            for score in self.ledger.scores() - self.desired.entries.keys()
            for rid in self.ledger.owned_by(score)
        }
        named = _names_of(passes)
        for each in fresh:
            going.update(self._no_longer_named(each, named))
        self.removal.begin(going - named, owned=owned)

    def _revisions(self) -> Iterator[Statement]:
        """Whom each Score waits for, before it makes anything. What cannot be followed is not remembered."""
        for entry in self.desired.entries.values():
            if entry.id not in self.desired.faults:
                yield from self.revisions.record_after(entry)

    def _note(self, planned: RunResult) -> None:
        if planned.interpreted:
            self.ownership.names(
                planned.entry.id,
                planned.referenced,
                planned.wanted,
                planned.identities,
                completed=planned.completed,
            )

    def _no_longer_named(self, planned: RunResult, named: set[str]) -> list[str]:
        """What *planned* owns and no longer names, if that can be told from it."""
        if not planned.completed or planned.has_missing_inputs:
            return []
        left = self.ownership.no_longer_named(planned.entry.id, planned.referenced)
        return [rid for rid in left if rid not in named]


def _has_ended(task: asyncio.Task[RunResult]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _names_of(passes: Iterable[RunResult]) -> set[str]:
    named: set[str] = set()
    for each in passes:
        named.update(each.referenced)
    return named


def _layers(entries: Sequence[SerializedScore]) -> list[list[SerializedScore]]:
    """*entries*, those first that wait for nobody. What waits for something impossible comes last."""
    left = {entry.id: entry for entry in entries}
    layers: list[list[SerializedScore]] = []
    while left:
        free = [each for each in left.values() if not any(name in left for name in each.after)]
        layers.append(free or list(left.values()))
        for each in layers[-1]:
            del left[each.id]
    return layers
