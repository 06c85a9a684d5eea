"""Per Score, back to what was good: by the device itself, also without a network.

A Score that says ``on_failure: rollback`` has until its deadline to converge. Past it, or at once where
trying again is in vain, its newest entry that has converged is put in force instead. What failed is not
tried again until it changes, and the reason, with the log that it left, is told as `RolledBack`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

import attrs

from harmony_core.errors import RolledBack
from harmony_core.interpretation import Verdict, failure_of
from harmony_core.manifest import SerializedScore, spec_hash
from harmony_core.outcome import WILL_ROLL_BACK, Failure, Noop, Outcome, Running, Success

from .book import Book
from .lineage import Lineage

__all__ = ["Rollback"]

DEADLINE_S = 300.0
_WHY_CHARACTERS = 2_000


@attrs.define
class _Trial:
    """Something new, that has until then to converge."""

    spec: str
    until: float
    failed: Failure | None = None
    """How it has failed last: the log of that is worth more than that it waits again."""


@attrs.frozen(kw_only=True)
class Rollback:
    """Decides which entry of a Score is in force."""

    lineage: Lineage
    book: Book
    _trials: dict[str, _Trial] = attrs.field(factory=dict[str, "_Trial"], init=False)

    def begin(self, entries: Iterable[SerializedScore]) -> None:
        """A manifest is in force: the time of what is new in it begins to run."""
        before = self._trials.copy()
        self._trials.clear()
        for entry in filter(self._has_way_back, entries):
            trial, spec = before.get(entry.id), spec_hash(entry)
            if trial is None or trial.spec != spec:
                trial = _Trial(spec, _deadline(entry))
            self._trials[entry.id] = trial

    def in_force(self, entry: SerializedScore) -> SerializedScore:
        """*entry*, or what was good before it, if it turned out to be bad."""
        bad, good = self.lineage.bad(entry.id), self.lineage.good(entry.id)
        if bad is None or good is None or bad.spec_hash != spec_hash(entry):
            return entry
        return good

    def left_s(self, score: str) -> float:
        """How long *score* still has to converge; infinite for one that has no way back."""
        trial = self._trials.get(score)
        return math.inf if trial is None else trial.until - asyncio.get_running_loop().time()

    def judged(self, entry: SerializedScore, tried: SerializedScore, verdict: Verdict) -> Verdict:
        """What *verdict*, of interpreting *tried*, means for *entry*."""
        if tried is not entry:
            return self._of_good(entry, verdict)
        if (trial := self._trials.get(entry.id)) is None:
            return verdict
        match verdict.outcome:
            case Success() | Noop():
                del self._trials[entry.id]
                return verdict
            case Running(reason="Held"):
                trial.until = _deadline(entry)  # its time begins when it may be tried
                return verdict
            case Failure():
                trial.failed = verdict.outcome
            case Running():
                pass
        left_s = self.left_s(entry.id)
        if left_s > 0 and not verdict.permanent:
            return _no_later_than(verdict, left_s)
        del self._trials[entry.id]
        why = _why(trial.failed or verdict.outcome, entry)
        self.book.save_with(self.lineage.roll_back(entry, why))
        outcome = Running(reason="Progressing", message=f"goes back to what was good: {why}")
        return Verdict(outcome=outcome, look_again_s=0.0)

    def _of_good(self, entry: SerializedScore, verdict: Verdict) -> Verdict:
        bad = self.lineage.bad(entry.id)
        why = bad.why if bad is not None else ""
        match verdict.outcome:
            case Success() | Noop():
                after = "what was good before is in force again"
            case Running(message=message):
                after = f"going back to what was good before: {message}"
            case Failure(error=error):
                after = f"and what was good before is bad by now: {error.code}: {error.message}"
        told = failure_of(RolledBack(f"{why}\n{after}; it is not tried again until it changes"))
        if isinstance(verdict.outcome, Running):
            told = _on_its_way_back(told)
        return attrs.evolve(verdict, outcome=told.outcome, permanent=_is_over(verdict))

    def _has_way_back(self, entry: SerializedScore) -> bool:
        good = self.lineage.good(entry.id)
        if entry.policy.on_failure != "rollback" or good is None:
            return False
        is_same = (good.kind, good.version, good.spec) == (entry.kind, entry.version, entry.spec)
        return not is_same and self.in_force(entry) is entry


def _deadline(entry: SerializedScore) -> float:
    return asyncio.get_running_loop().time() + (entry.policy.deadline_s or DEADLINE_S)


def _is_over(verdict: Verdict) -> bool:
    """Whether there is nothing more to be tried."""
    return verdict.permanent or isinstance(verdict.outcome, Success | Noop)


def _on_its_way_back(verdict: Verdict) -> Verdict:
    """*verdict*, a FAILURE, not to be taken for the end of it."""
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
