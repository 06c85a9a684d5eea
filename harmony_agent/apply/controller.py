"""Reconcile one Score, when its turn comes: plan, apply, prune, enter its status.

    desired? -no->  removed, from what the ledger says it made
       |
      yes -> waits for another? -> Blocked
       |
     has failed, and its wait is not over? -> looked at; not tried, unless it is in order
       |
     its plan: refused, or in order already? -> that is its Outcome
       |
    prefetch what it needs (an image) -> not yet, or in vain? -> that is its Outcome
       |
     apply -> prune what it no longer names -> enter the Outcome -> wake those that waited for it

Whatever goes wrong is that Score's own Outcome. Read anew each time: the effective manifest, the
ledger and the status, so an item of the queue carries nothing but an id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs

from harmony_agent.clock import timestamp
from harmony_agent.drift.detector import DriftDetector
from harmony_agent.plan.generation import Generations, Look
from harmony_agent.plan.ownership import Ownership
from harmony_agent.plan.plan_cache import PlanCache
from harmony_agent.plan.planner import PLAN_WITHIN_S, Planner
from harmony_agent.plan.run_result import RunResult
from harmony_agent.store.desired import Desired
from harmony_agent.store.drift_outcome import describe_drift, is_left_drifted
from harmony_agent.store.events import Events
from harmony_agent.store.in_force import InForce
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.revisions import Revisions
from harmony_agent.store.signers import Signers
from harmony_agent.store.status import StatusStore
from harmony_core.change import NotReady
from harmony_core.claims import find_in_the_way
from harmony_core.errors import CapabilityError, HarmonyError, LedgerUnusable
from harmony_core.interpretation import Verdict, verdict_of
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.wire.manifest import SerializedScore, spec_hash

from .crash_guard import CrashGuard
from .dependents import Dependents
from .holds import AppHolds
from .prefetch import Prefetch
from .preview import Preview
from .queue import Forget, Next, RequeueAfter, Retry, Stop, WorkQueue
from .removal import Removal
from .rollback import Rollback
from .runner import ScoreRunner

__all__ = ["Controller"]

_NOTED_WITHIN_S = 1.0
"""What was changed is in the audit trail by then, also where there is nothing else to tell."""


@attrs.frozen(kw_only=True)
class Controller:
    """Does the work of the queue. `reconcile` is what the queue calls."""

    runner: ScoreRunner
    planner: Planner
    preview: Preview
    plan_cache: PlanCache
    removal: Removal
    prefetch: Prefetch
    holds: AppHolds
    rollback: Rollback
    drift: DriftDetector
    dependents: Dependents
    desired: Desired
    ledger: Ledger
    revisions: Revisions
    ownership: Ownership
    statuses: StatusStore
    crash_guard: CrashGuard
    events: Events
    signers: Signers
    generations: Generations

    def begin(self) -> None:
        """Begin the work for the manifest that is effective now."""
        if self.desired.in_force is not None:
            self.signers.begin(self.desired.in_force, self.known_scores())
            self.runner.decoder.forget_all_but(self.desired.entries)
            self.plan_cache.forget_all_but(self.desired.entries)
            entries = self.desired.entries.values()
            self.drift.begin([self.rollback.effective(entry) for entry in entries])
            self.rollback.begin(entries)

    def recall(self) -> None:
        """Recall what the last run left in order, of the effective manifest, as still in order.

        Leave out what was being changed then, and what had not been looked at since that manifest came.
        """
        for entry in self.desired.entries.values():
            good = self.revisions.last_known_good(entry.id)
            if (
                good is not None
                and spec_hash(good) == spec_hash(entry)
                and (
                    self.statuses.has_converged_in_generation(entry.id)
                    or is_left_drifted(self.statuses.status_of(entry.id))
                )
                and self.ledger.is_settled(entry.id)
            ):
                self.drift.baselines.recall(entry, self.ledger.wants(entry.id))

    async def plan(self, *, nothing_in_flight: bool) -> None:
        """Plan the manifest that has become effective. *nothing_in_flight* says that nothing runs for an
        older one."""
        self.dependents.reset()
        await self.planner.plan(
            nothing_in_flight=nothing_in_flight, suspects=self.crash_guard.suspects
        )

    def give_up_planning(self) -> None:
        """Leave each Score to its own turn, since the effective manifest cannot be planned as a whole."""
        self.planner.give_up()
        self.accept()

    def accept(self) -> None:
        """Allow the effective manifest to be reported, now that it is stored."""
        if self.desired.in_force is not None:
            self.statuses.accept(self.desired.in_force)
        if self.desired.in_force is not None and self.desired.knows_own:
            # Killed before it was ever told of: what is not in the report counts as gone.
            for score_id in (
                self.ledger.scores() - self.desired.entries.keys() - self.statuses.known
            ):
                self.statuses.enter_removing(score_id, "has resources to be removed")

    def enter_plans(self) -> set[str]:
        """Enter what the plans have found in order, without a turn for each. Return the ids of all others."""
        self.accept()
        left = self.known_scores()
        entered: list[str] = []
        for entry in self.desired.entries.values():
            plan = self.planner.ready(entry.id)
            if (
                plan is not None
                and plan.entry is entry
                and left.isdisjoint(entry.after)
                and self._enter_plan(entry, plan)
            ):
                self.planner.discard(entry.id)
                left.discard(entry.id)
                entered.append(entry.id)
        self.statuses.note_look(entered)
        return left

    def _enter_plan(self, entry: SerializedScore, plan: RunResult) -> bool:
        """Enter *plan*, if there is nothing left to do for *entry*."""
        if not self.generations.current.nothing_in_flight:
            return False
        # What was in order, and is as it was to the last bit, has nothing to be entered but the generation.
        if self.plan_cache.is_known(plan) and self.statuses.confirm(
            entry.id, self.desired.generation_of(entry.id)
        ):
            self.drift.settle(plan)
            return True
        if not self._needs_no_run(plan) or self.ownership.find_unnamed(entry.id, plan.referenced):
            return False
        self._settle(entry, plan, plan.verdict.outcome, attempts=0)
        return True

    async def look_at_settled(self) -> set[str]:
        """Look at everything that is settled, in few calls. Return the ids of what needs a turn."""
        entries = [
            each for each in self.desired.entries.values() if self.drift.baselines.get(each.id)
        ]
        in_order = await self.plan_cache.look(entries, within_s=PLAN_WITHIN_S)
        self.statuses.note_look(in_order)
        return {each for each in self.desired.entries if each not in in_order}

    @property
    def planned(self) -> InForce | None:
        """What was in force when that was planned last."""
        return self.generations.current.planned

    def known_scores(self) -> set[str]:
        """Return every id for which there is something to do: wanted, or made once and no longer wanted."""
        # One that was only ever planned has no claim and no status: whom it waits for is noted of it.
        made = {*self.ledger.scores(), *self.statuses.known, *self.revisions.known}
        return {*self.desired.entries, *made}

    def sort_by_turn(self, scores: Iterable[str]) -> list[str]:
        """Return *scores*, with those last that wait for another.

        Only a limited number have their turn at once: otherwise what could begin would wait behind what can
        only say that it waits, and a layer would be made, and flushed, in several parts.
        """
        entries = self.desired.entries
        return sorted(scores, key=lambda score: score in entries and bool(entries[score].after))

    async def reconcile(self, score_id: str, queue: WorkQueue) -> Next:
        """Look at *score_id* as the newest manifest wants it."""
        entry = self.desired.entries.get(score_id)
        if entry is None and not self.desired.knows_own:
            # Nobody has said anything that counts: least of all that something should go.
            return Forget()
        if entry is None:
            self.drift.forget(score_id)
            return await self.removal.take_away(score_id, queue)
        blocked = self._waits_for(entry)
        if blocked is not None and not self.statuses.has_converged_in_run(entry):
            self.rollback.wait(entry.id)
            self.statuses.enter(
                entry,
                blocked,
                generation=self.desired.generation_of(entry.id),
                attempts=queue.attempts(entry.id),
                states=None,
            )
            return Forget()
        if (later := await self._look_during_backoff(entry, queue)) is not None:
            return later
        in_force = self.desired.in_force
        if self.dependents.begin_look(entry.id):
            self.planner.discard(entry.id)  # it was made before what it stands on was changed
        result = await self._run(self.rollback.effective(entry))
        if in_force is not self.desired.in_force:
            return Forget()  # a newer manifest that came meanwhile has asked for another look
        return await self._finish(entry, result, queue)

    def _waits_for(self, entry: SerializedScore) -> Running | None:
        """Return which Scores *entry* waits for; None where it waits for none. A Score that had converged is
        kept up meanwhile, and not said to be converged."""
        waits_for = [
            name
            for name in entry.after
            if not self.statuses.has_converged_in_generation_and_run(name)
        ]
        if not waits_for or entry.id in self.desired.faults:
            return None
        return Running(reason="Blocked", message=f"waits for {', '.join(waits_for)}")

    async def _look_during_backoff(self, entry: SerializedScore, queue: WorkQueue) -> Next | None:
        """Return when to look again at what has failed and must not be tried again yet; None to go on.

        Go on before the time if somebody else has repaired it: that is reported at once. Try again where the
        device, or its answer, is not what it was at the failure. Who keeps changing something has to wait for
        its repair too. In each case, report what was seen.
        """
        left_s = queue.backoff_left_s(entry.id)
        repair_wait_s = self.drift.waits_s(entry.id)
        if not left_s and not repair_wait_s:
            return None
        looked = await self.runner.run(self.rollback.effective(entry), apply=False)
        self.statuses.note_look([entry.id])
        if looked.is_noop:
            return None
        if not left_s:
            left = self.drift.find_only_drift(looked)
            if not left or self.drift.only_reports(looked.entry):
                return None
            self._enter_postponed(entry, attrs.evolve(looked, reported_drift=left), repair_wait_s)
            return RequeueAfter(repair_wait_s)
        self._enter_states(entry, looked)
        if math.isinf(left_s):
            return (
                Stop()
                if self.generations.current.looks_when_stopped.get(entry.id) == _summarize(looked)
                else None
            )
        look_s = left_s if looked.changes else looked.verdict.look_again_s or left_s
        return RequeueAfter(min(look_s, left_s))

    def _enter_states(self, entry: SerializedScore, looked: RunResult) -> None:
        """Enter the states of the resources of what has failed. The Outcome stays: nothing was tried."""
        status = self.statuses.status_of(entry.id)
        if status is not None and isinstance(status.outcome, Failure) and looked.interpreted:
            self.statuses.enter(
                entry,
                status.outcome,
                generation=status.observed_generation,
                attempts=status.attempts,
                states=looked.found,
                otherwise={each.resource for each in looked.changes},
            )

    def _enter_postponed(
        self, entry: SerializedScore, looked: RunResult, repair_wait_s: float
    ) -> None:
        """Enter that *entry* was found drifted, and will be repaired in *repair_wait_s* seconds."""
        status = self.statuses.status_of(entry.id)
        retry_at = timestamp(in_s=repair_wait_s)
        if status is not None and isinstance(status.outcome, Failure) and is_left_drifted(status):
            retry_at = status.outcome.error.retry_at or retry_at  # of the same wait
        outcome = describe_drift(
            self.runner.device.agent_id, entry.id, looked.reported_drift, retry_at=retry_at
        )
        self._enter_left(entry, looked, outcome)

    def _enter_left(
        self, entry: SerializedScore, looked: RunResult, outcome: Failure
    ) -> Sequence[str]:
        """Enter *outcome* of *entry*, which was found drifted; a Score that was rolled back is still reported
        so."""
        status = self.statuses.status_of(entry.id)
        assert status is not None, f"{entry.id} was in order, and has no status"
        self.plan_cache.record(looked)  # it is none that can be replayed
        told = outcome if looked.entry is entry else status.outcome
        return self._enter(entry, looked, told, attempts=status.attempts)

    async def _look_only(self, entry: SerializedScore) -> RunResult | None:
        """Look only, where drift is to be reported and not repaired; return None where there is something to
        do."""
        if not self.drift.only_reports(entry):
            return None
        await self.planner.take(entry)  # used up: this look is newer
        await self.drift.look_again(entry.id)
        looked = await self.runner.run(entry, apply=False)
        left = self.drift.report(looked)
        return attrs.evolve(looked, reported_drift=left) if left or not looked.changes else None

    async def _run(self, entry: SerializedScore) -> RunResult:
        """Run *entry* and apply its changes, unless a look or the plan already says enough."""
        if (looked := await self._look_only(entry)) is not None:
            return looked
        plan = await self.planner.take(entry)
        self.drift.baselines.begin_look(entry.id)
        self.events.set_rollback(entry.id, is_so=self._is_rollback(entry))
        if plan is not None and (not plan.interpreted or plan.verdict.permanent):
            return plan
        if (held := await self._apply_hold(entry, plan)) is not None:
            return held
        if plan is not None and self._needs_no_run(plan):
            return plan
        prepared = await self._prefetch(entry, plan)
        if isinstance(prepared, RunResult):
            return prepared
        self.rollback.go_on(entry.id)
        return await self.runner.run(entry, apply=True, unprepared=prepared)

    async def _prefetch(
        self, entry: SerializedScore, plan: RunResult | None
    ) -> RunResult | Mapping[str, HarmonyError]:
        """Prepare what must be there, or out of the way, before anything is touched.

        Return the result to enter if something is missing; else, by its id, the error of what cannot be
        prepared and without which the Score goes on.
        """
        # Who has something new to make, or goes back, may have in the way what it has itself made before.
        may_be_blocked = self.ledger.is_partly_settled(entry.id) or self._is_rollback(entry)
        if plan is None and (may_be_blocked or self.prefetch.is_due(entry.id)):
            plan = await self.runner.run(entry, apply=False)
        if plan is None:
            return {}
        prepared = await self.prefetch.prepare(plan)
        if isinstance(prepared, NotReady):
            return attrs.evolve(plan, verdict=verdict_of(prepared))
        if prepared:
            without = (await self.runner.run(entry, apply=False, unprepared=prepared)).verdict
            return prepared if without.went_on else attrs.evolve(plan, verdict=without)
        if plan.completed and (verdict := await self._release_exclusive(plan)) is not None:
            return attrs.evolve(plan, verdict=verdict)
        return {}

    async def _apply_hold(self, entry: SerializedScore, plan: RunResult | None) -> RunResult | None:
        """Return what to enter where an application has asked for a hold, and there is something to
        change."""
        if plan is not None and plan.is_noop and not self.planner.find_unnamed(plan):
            return None
        if (why := await self.holds.find_hold(entry.id)) is None:
            return None
        plan = plan or await self.runner.run(entry, apply=False)
        if plan.is_noop and not self.planner.find_unnamed(plan):
            return None
        return attrs.evolve(plan, verdict=verdict_of(why)) if plan.interpreted else plan

    def _needs_no_run(self, plan: RunResult) -> bool:
        """Return whether applying would change nothing: all is in order, and known to be this Score's.

        What was claimed only now, or interrupted, goes through its reconciler once: it has records to make.
        """
        return (
            self.generations.current.nothing_in_flight
            and plan.is_noop
            and self.ledger.is_settled(plan.entry.id)
            and self.ownership.holds(plan.entry.id, plan.wanted.values())
            # What it stands on was as planned, too.
            and all(self.statuses.get_change(name) is None for name in plan.entry.after)
        )

    async def _release_exclusive(self, plan: RunResult) -> Verdict | None:
        """Remove what holds a port, or a place, that *plan* needs for something else. Return the verdict if
        that fails, or has to be approved."""
        if plan.has_missing_inputs:
            return None
        score = plan.entry.id
        if not (unnamed := self.ownership.find_unnamed(score, plan.referenced)):
            return None
        users = self.ownership.key_holders(score, plan.wanted.values())
        in_the_way = find_in_the_way(unnamed, plan.wanted)
        doomed = [rid for rid in unnamed if rid in in_the_way or (score, rid) in users]
        theirs = (
            rid for each in self.ledger.scores() - {score} for rid in self.ledger.owned_by(each)
        )
        # What others have in the way stays, so that nothing is to be taken away in vain: the deed says why.
        if not doomed or find_in_the_way(theirs, plan.wanted):
            return None
        is_rollback = self._is_rollback(plan.entry)
        if not is_rollback and (held := self.removal.may_remove(score, doomed)) is not None:
            return Verdict(outcome=held)
        self.rollback.go_on(score)
        return await self._remove(score, doomed)

    def _is_rollback(self, entry: SerializedScore) -> bool:
        """Return whether *entry* is an earlier one, to which the Score is rolled back."""
        return self.desired.entries.get(entry.id) is not entry

    async def _remove(self, score: str, resource_ids: list[str]) -> Verdict | None:
        try:
            if await self.removal.remove(score, resource_ids):
                self.statuses.mark_changed(score, f"{resource_ids[0]} removed")
        except (CapabilityError, LedgerUnusable, NotReady) as why:
            return verdict_of(why)
        return None

    async def _finish(self, entry: SerializedScore, result: RunResult, queue: WorkQueue) -> Next:
        """Prune, enter the Outcome, and return when to look again."""
        # The order matters. What was seen is noted for ownership first, since what is pruned depends on it;
        # then what is no longer named is taken away, and only then is the Score in order. Its own deadline
        # may turn the verdict (`rollback.evaluate`) before it is put in words for the report. Last come the
        # Outcome, with all that is stored beside it in one transaction, and those that waited for it.
        if result.reported_drift:
            drifted = describe_drift(self.runner.device.agent_id, entry.id, result.reported_drift)
            for follower in self._enter_left(entry, result, drifted):
                queue.enqueue(follower)
            return Forget()
        if result.applied:
            self.ownership.note_plan(result)
            self.ledger.mark_made(entry.id, (change.resource for change in result.changes))
            if result.changes or self.ledger.was_interrupted(entry.id):
                self.statuses.mark_changed(entry.id, result.verdict.summary)
        verdict = await self._prune(entry, result, queue) or result.verdict
        verdict = await self.rollback.evaluate(entry, result.entry, verdict)
        outcome, following = self._decide_next(entry, verdict, queue)
        attempts = queue.attempts(entry.id)
        if isinstance(outcome, Failure) and not isinstance(following, RequeueAfter):
            attempts += 1
        if isinstance(following, Stop):
            if result.applied:
                looked = await self.runner.run(result.entry, apply=False)
            else:
                looked = result
            self.generations.current.looks_when_stopped[entry.id] = _summarize(looked)
        for follower in self._settle(entry, result, outcome, attempts=attempts):
            queue.enqueue(follower)
        return following

    def _settle(
        self, entry: SerializedScore, result: RunResult, outcome: Outcome, *, attempts: int
    ) -> Sequence[str]:
        """Enter *outcome*, and what belongs to it. Return which Scores may begin now because this one has
        converged."""
        if isinstance(outcome, Success | Noop):
            changed = self.statuses.get_change(entry.id)
            if changed is not None:
                outcome = Success(message=outcome.message or changed)
            self.statuses.writer.add(self.ledger.finish(entry.id))
            self.statuses.writer.add(self.revisions.mark_converged(entry))
        followers = self._enter(entry, result, outcome, attempts=attempts)
        if result.applied and result.changes:
            self.statuses.due.mark(_NOTED_WITHIN_S)
        self.drift.record_result(result)
        self.plan_cache.record(result)
        return followers

    def _enter(
        self, entry: SerializedScore, result: RunResult, outcome: Outcome, *, attempts: int
    ) -> Sequence[str]:
        """Enter *outcome*, unless what is good must wait. Return which Scores may begin now because this one
        has converged."""
        has_converged_in_generation = self.statuses.has_converged_in_generation_and_run(entry.id)
        self.dependents.note_result(result)
        outcome = self.dependents.check(entry.id, outcome)
        if isinstance(outcome, Success | Noop):
            outcome = self._waits_for(entry) or outcome
        self.statuses.enter(
            entry,
            outcome,
            generation=self.desired.generation_of(entry.id),
            attempts=attempts,
            states=result.found,
            otherwise=result.reported_drift,
        )
        if has_converged_in_generation or not self.statuses.has_converged_in_generation_and_run(
            entry.id
        ):
            return ()
        return self.desired.followers.get(entry.id, ())

    async def _prune(
        self, entry: SerializedScore, result: RunResult, queue: WorkQueue
    ) -> Verdict | None:
        """Remove what a settled run no longer names. Return the verdict where that is not complete."""
        left = self.planner.find_unnamed(result)
        if not left:
            return None
        doomed = [rid for rid in left if not self.ledger.is_shared(rid, entry.id)]
        # Whoever goes back leaves what only the failed attempt has made, and needs no leave for it.
        is_rollback = result.entry is not entry
        if not is_rollback and (held := self.removal.may_remove(entry.id, doomed)) is not None:
            return Verdict(outcome=held)
        failed = await self._remove(entry.id, left)
        for waiting in self.statuses.find_refused(left):
            queue.enqueue(waiting)
        return failed

    def _decide_next(
        self, entry: SerializedScore, verdict: Verdict, queue: WorkQueue
    ) -> tuple[Outcome, Next]:
        outcome = verdict.outcome
        if isinstance(outcome, Failure) and not verdict.permanent:
            left_s = queue.backoff_left_s(entry.id)  # then this was a look, and no attempt
            wait_s = left_s or verdict.retry_after_s or queue.next_backoff_s(entry.id)
            wait_s = min(wait_s, self.rollback.left_s(entry.id))
            retry_at = timestamp(in_s=wait_s)
            error = attrs.evolve(outcome.error, retry_at=retry_at)
            following = RequeueAfter(wait_s) if left_s else Retry(wait_s)
            return attrs.evolve(outcome, error=error), following
        if isinstance(outcome, Failure) and verdict.permanent:
            return outcome, Stop()
        if verdict.look_again_s is not None:
            return outcome, RequeueAfter(verdict.look_again_s)
        return outcome, Forget()


def _summarize(looked: RunResult) -> Look:
    """Return the result of *looked*, a dry run."""
    actions = [(change.resource, change.actions) for change in looked.changes]
    return looked.verdict.outcome, dict(looked.found or {}), dict(looked.answers), actions
