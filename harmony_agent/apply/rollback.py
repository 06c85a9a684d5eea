"""Roll one Score back to its last known good revision: by the device itself, also without a network.

A Score that says ``on_failure: rollback`` has until its deadline to converge. Past it, or at once where
trying again is in vain, its newest entry that has converged becomes the effective one instead. What
failed is not tried again until it changes, and the reason, with the log that it left, is reported as
`RolledBack`.

The time that counts is that in which it is tried: not while it is Blocked or Held, nor while the device
is off. What has been used up survives a restart: it is noted in steps, while a trial runs, and each start
costs a step more, since how much had gone by since is not known. So what brings the device down is not
tried for ever either.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable

import attrs

from harmony_agent.clock import monotonic_s
from harmony_agent.store.revisions import Revisions
from harmony_agent.store.status import StatusStore
from harmony_core.errors import LedgerUnusable, OwnershipConflict, RolledBack
from harmony_core.interpretation import Verdict, failure_of
from harmony_core.outcome import (
    WILL_ROLL_BACK,
    ErrorInfo,
    Failure,
    Noop,
    Outcome,
    Running,
    Success,
)
from harmony_core.wire.manifest import SerializedScore, spec_hash

__all__ = ["Rollback"]

log = logging.getLogger(__name__)

DEADLINE_S = 300.0
_WHY_CHARACTERS = 2_000
_STEPS = 10
_STEP_MOST_S = 600.0
_WRITE_AGAIN_S = 5.0
_SAVED_WITHIN_S = 1.0


@attrs.define(kw_only=True)
class _Trial:
    """Something new, that has so long to converge."""

    entry: SerializedScore
    spec: str
    spent_s: float = 0.0
    """Until it was last set going."""
    since: float | None = None
    """When that was, on the loop's clock; None while it does not count."""
    noted_s: float | None = None
    """What is noted of it; None while nothing is, in this run."""
    failed: Failure | None = None
    """How it has failed last: the log of that is worth more than that it waits again."""

    @property
    def has_s(self) -> float:
        return self.entry.policy.deadline_s or DEADLINE_S

    @property
    def step_s(self) -> float:
        return min(self.has_s / _STEPS, _STEP_MOST_S)

    @property
    def used_s(self) -> float:
        return self.spent_s + (0.0 if self.since is None else monotonic_s() - self.since)

    def go_on(self) -> None:
        """Start the clock of the trial, unless it runs."""
        if self.since is None:
            self.since = monotonic_s()

    def wait(self) -> None:
        """Stop the clock of the trial until `go_on`."""
        self.spent_s, self.since = self.used_s, None


@attrs.frozen(kw_only=True)
class Rollback:
    """Decides which revision of a Score is effective."""

    revisions: Revisions
    statuses: StatusStore
    _trials: dict[str, _Trial] = attrs.field(factory=dict[str, "_Trial"], init=False)

    def begin(self, entries: Iterable[SerializedScore]) -> None:
        """Begin the trials of what is new in a manifest that has become effective."""
        before = self._trials.copy()
        self._trials.clear()
        for entry in filter(self._has_way_back, entries):
            trial, spec = before.get(entry.id), spec_hash(entry)
            if trial is None or trial.spec != spec:
                trial = _Trial(entry=entry, spec=spec)
            self._trials[entry.id] = trial

    def effective(self, entry: SerializedScore) -> SerializedScore:
        """Return *entry*, or its last known good revision if *entry* has failed."""
        bad = self.revisions.failed_revision(entry.id)
        if bad is None or bad.spec_hash != spec_hash(entry):
            return entry
        return self.revisions.last_known_good(entry.id) or entry

    def left_s(self, score: str) -> float:
        """Return how many seconds *score* still has to converge; infinite for one that cannot be rolled
        back."""
        trial = self._trials.get(score)
        return math.inf if trial is None else trial.has_s - trial.used_s

    def wait(self, score: str) -> None:
        """Stop the clock of the trial of *score*, which is Blocked or Held."""
        if (trial := self._trials.get(score)) is not None:
            trial.wait()

    def go_on(self, score: str) -> None:
        """Start the clock of the trial of *score*, which is about to be tried, and note that before its first
        effect."""
        if (trial := self._trials.get(score)) is None:
            return
        trial.go_on()
        if trial.noted_s is None:
            before_s = self.revisions.trial(trial.entry)
            trial.spent_s = 0.0 if before_s is None else before_s + trial.step_s
            self._note(trial)

    def note(self) -> None:
        """Record how much time has been used, if that is worth a write."""
        for trial in self._trials.values():
            if trial.noted_s is not None and trial.used_s >= trial.noted_s + trial.step_s:
                self._note(trial)
                self.statuses.due.mark(_SAVED_WITHIN_S)

    def _note(self, trial: _Trial) -> None:
        trial.noted_s = trial.used_s
        self.revisions.record_trial(trial.entry, trial.noted_s)

    async def evaluate(
        self, entry: SerializedScore, tried: SerializedScore, verdict: Verdict
    ) -> Verdict:
        """Return what *verdict*, of interpreting *tried*, means for *entry*."""
        if tried is not entry:
            return self._report_rollback(entry, verdict)
        if (trial := self._trials.get(entry.id)) is None:
            return verdict
        match verdict.outcome:
            case Success() | Noop():
                del self._trials[entry.id]
                return verdict
            case (
                Running(reason="Held" | "Blocked")
                | Failure(error=ErrorInfo(code=OwnershipConflict.code))
            ):
                # Nothing was tried, and it is not the one that is bad: what it wants may be another's.
                trial.wait()
                return verdict
            case Failure():
                trial.failed = verdict.outcome
            case Running():
                pass
        self.go_on(entry.id)
        left_s = self.left_s(entry.id)
        if left_s > 0 and not verdict.permanent:
            return _no_later_than(verdict, left_s)
        del self._trials[entry.id]
        why = _why(trial.failed or verdict.outcome, entry)
        await self._roll_back(entry, why)
        outcome = Running(
            reason="Progressing", message=f"rolling back to the last known good revision: {why}"
        )
        return Verdict(outcome=outcome, look_again_s=0.0)

    async def _roll_back(self, entry: SerializedScore, why: str) -> None:
        """Roll *entry* back. This is durable once it returns: otherwise the failed revision would be tried
        once more, over the good one."""
        self.statuses.writer.add(self.revisions.roll_back(entry, why))
        while True:
            try:
                return await self.statuses.writer.save()
            except LedgerUnusable as error:
                log.warning("%s is not rolled back yet: %s", entry.id, error.message)
                await asyncio.sleep(_WRITE_AGAIN_S)

    def _report_rollback(self, entry: SerializedScore, verdict: Verdict) -> Verdict:
        bad = self.revisions.failed_revision(entry.id)
        why = bad.why if bad is not None else ""
        match verdict.outcome:
            case Success() | Noop():
                after = "the last known good revision is effective again"
            case Running(message=message):
                after = f"rolling back to the last known good revision: {message}"
            case Failure(error=error):
                after = f"the last known good revision fails, too: {error.code}: {error.message}"
        told = failure_of(RolledBack(f"{why}\n{after}; it is not tried again until it changes"))
        if isinstance(verdict.outcome, Running):
            told = _on_its_way_back(told)
        is_over = verdict.permanent or isinstance(verdict.outcome, Success | Noop)
        return attrs.evolve(verdict, outcome=told.outcome, permanent=is_over)

    def _has_way_back(self, entry: SerializedScore) -> bool:
        good = self.revisions.last_known_good(entry.id)
        if entry.policy.on_failure != "rollback" or good is None:
            return False
        is_same = (good.kind, good.version, good.spec) == (entry.kind, entry.version, entry.spec)
        return not is_same and self.effective(entry) is entry


def _on_its_way_back(verdict: Verdict) -> Verdict:
    """Return *verdict* with a FAILURE that says that the Score will be rolled back, so that nobody takes it
    for the end."""
    outcome = verdict.outcome
    if not isinstance(outcome, Failure):
        return verdict
    return attrs.evolve(verdict, outcome=attrs.evolve(outcome, reason=WILL_ROLL_BACK))


def _no_later_than(verdict: Verdict, left_s: float) -> Verdict:
    if isinstance(verdict.outcome, Failure):
        return _on_its_way_back(verdict)  # whoever plans the next try asks for `left_s`
    look_s = left_s if verdict.look_again_s is None else min(verdict.look_again_s, left_s)
    return attrs.evolve(verdict, look_again_s=look_s)


def _why(outcome: Outcome, entry: SerializedScore) -> str:
    deadline_s = entry.policy.deadline_s or DEADLINE_S
    match outcome:
        case Failure(error=error):
            return f"{error.code}: {error.message}"[:_WHY_CHARACTERS]
        case _:
            return f"not ready within {deadline_s:g} s: {outcome.message}"[:_WHY_CHARACTERS]
