"""Drift: what somebody else has changed is counted once, told, and put right; or left, by its policy.

    a change is made          -> because of drift?      -> counted, told; the next repair waits longer
    a run is refused          -> by what was not there? -> counted, told
    a dry run, report policy  -> has drifted?           -> counted, told, left so

The cause of a change is found as it is made: so what was put right counts, also where its run was cut short.

What somebody has put where it may not be put right (a link in a file's place, a unit that is masked) is
counted when it is refused. What stands beside a resource and overrides it (a unit's drop-in) is told, and
left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from harmony_agent.clock import monotonic_s, timestamp
from harmony_agent.plan.device import Device
from harmony_agent.plan.run_result import RunResult
from harmony_agent.store.events import Cause, Events, RunClassifier
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.status import StatusStore
from harmony_core.change import Change
from harmony_core.errors import OwnershipConflict
from harmony_core.outcome import Failure
from harmony_core.reconciler import Remembering
from harmony_core.resources import Resource, ResourceId, State
from harmony_core.steps import Did
from harmony_core.wire.actual_state import Drift as LastDrift
from harmony_core.wire.actual_state import state_to_json
from harmony_core.wire.manifest import SerializedScore
from harmony_core.wire.replies import cut_for_wire

from .backoff import DriftBackoff
from .baseline import Baseline, Baselines
from .watch_list import WatchList

__all__ = ["DriftDetector"]

_TOLD_BYTES = 1024


def _find_remembering(detector: DriftDetector) -> list[Remembering]:
    return [each for each in detector.device.offers.values() if isinstance(each, Remembering)]


@attrs.frozen(kw_only=True)
class DriftDetector:
    """Compares what was found with how it was left, and enters what has drifted."""

    device: Device
    statuses: StatusStore
    ledger: Ledger
    events: Events
    baselines: Baselines
    backoff: DriftBackoff
    watch_list: WatchList
    _remembering: list[Remembering] = attrs.field(
        default=attrs.Factory(_find_remembering, takes_self=True), init=False
    )
    """Of what the device offers, which is fixed before anything runs."""
    _enforced: set[str] = attrs.field(factory=set[str], init=False)
    """Scores of which what has drifted is put right once, though it is only to be told of."""
    _left: set[str] = attrs.field(factory=set[str], init=False)
    """Scores of which what has drifted is left so, and counted."""

    def begin(self, entries: Iterable[SerializedScore]) -> None:
        """Take *entries* as the effective ones: what is changed for a new one is not drift."""
        wanted = {entry.id: entry for entry in entries}
        self.baselines.keep_unchanged(wanted.values())
        for gone in self.watch_list.scores - wanted.keys():
            self.forget(gone)
        # Whoever pushes has waited long enough.
        self.backoff.insist_everywhere()
        self._ask_again(None)

    def settle(self, result: RunResult) -> None:
        """Take *result*, which has found everything in order, as the baseline for later ones."""
        self._enforced.discard(result.entry.id)
        self._left.discard(result.entry.id)
        self.baselines.settle(result)

    def forget(self, score: str) -> None:
        """Forget everything about *score*, which is no longer wanted."""
        self.baselines.forget(score)
        self.backoff.forget(score)
        self._enforced.discard(score)
        self._left.discard(score)
        self.statuses.device.set_drifted(score, None)
        self.watch_list.forget(score)

    def classify_run(self, score: str) -> RunClassifier:
        """Return a classifier for the changes of a run of *score* that begins now, with its baseline."""
        return _RunClassifier(self, score, self.baselines.get(score))

    def only_reports(self, entry: SerializedScore) -> bool:
        """Return whether *entry* is in order, and its drift is to be reported from now on, not repaired."""
        return (
            entry.policy.drift == "report"
            and self.baselines.get(entry.id) is not None
            and entry.id not in self._enforced
        )

    def insist(self, score: str, *, enforce: bool) -> None:
        """Let the next repair of *score* begin without a wait; with *enforce*, also where drift is only
        reported.

        Look again at what is otherwise only remembered of it.
        """
        self.backoff.insist(score)
        self._ask_again(self.ledger.wants(score))
        if enforce:
            self._enforced.add(score)

    def _ask_again(self, resource_ids: Collection[str] | None) -> None:
        """Let the reconcilers that only remember look again at *resource_ids*; None is everything."""
        for reconciler in self._remembering:
            reconciler.ask_again(
                None if resource_ids is None else _keys_of(reconciler, resource_ids)
            )

    async def look_again(self, score: str) -> None:
        """Look, without changing it, at what is otherwise only remembered of *score*, where that is due."""
        wanted = self.ledger.wants(score)
        for reconciler in self._remembering:
            if keys := _keys_of(reconciler, wanted):
                await reconciler.look_again(keys)

    def waits_s(self, score: str) -> float:
        """Return for how many seconds a repair of *score* still has to wait."""
        return self.backoff.wait_s(score, monotonic_s())

    def find_only_drift(self, looked: RunResult) -> Collection[str]:
        """Return what has drifted in *looked*, a dry run; nothing where there is anything else to do."""
        drifted = self.baselines.find_drift(looked)
        if len(drifted) < len(looked.changes):
            return ()
        return {each.resource for each in drifted}

    def record_repair(self, score: str, change: Change) -> None:
        """Count *change*, which has repaired drift, unless it was counted when the drift was reported."""
        drift = _first([change])
        if change.before is not None and change.before.is_under_way:
            return  # counted when it was begun
        if drift is None or self.statuses.status_of(score) is None:
            return
        if score in self._left:
            self._left.discard(score)
            return
        self.statuses.record_drift(score, drift)
        self.backoff.record_repair(score, monotonic_s())
        self.report_repeat_offenders()

    def record_result(self, result: RunResult) -> None:
        """Enter what *result*, a run that applied, says of drift: was it refused, and is it in order now?"""
        score = result.entry.id
        # What was put right is counted already; of one episode one drift is told.
        repaired = result.applied and self.baselines.find_drift(result)
        if not repaired and (drift := self._find_refusal(result)):
            self.statuses.record_drift(score, drift)
        self._set_standing(result, self._find_override(result))
        if result.completed:
            self.settle(result)
        elif _find_obstacle(result) is not None:
            self.baselines.drop(score)  # what mends it is no drift of its own
        if result.interpreted:
            self.baselines.note_facts_read(score, result.answers)
            self.watch_list.update(score, result.referenced)

    def report(self, looked: RunResult) -> Collection[str]:
        """Enter as drift, which is left so, what a dry run would change, or not be allowed to, of what was in
        order.

        Return the ids of that; none where nothing has drifted, or where there is more to do.
        """
        drifted = self.baselines.find_drift(looked)
        if len(drifted) < len(looked.changes):
            self.baselines.drop(looked.entry.id)  # all is put in order, as it is wanted now
            return ()
        refused = self._find_refusal(looked)
        if (drift := _first(drifted) or refused) is not None:
            if self._set_standing(looked, drift):
                self.events.record_reported_drift(looked.entry.id, _left_so(drift, drifted))
            self._left.add(looked.entry.id)
        return {each.resource for each in drifted} | ({refused.resource} if refused else set())

    def report_repeat_offenders(self) -> None:
        """Report which Scores somebody keeps changing."""
        self.statuses.device.set_repeat_offenders(self.backoff.repeat_offenders(monotonic_s()))

    def _set_standing(self, result: RunResult, drift: LastDrift | None) -> bool:
        """Set *drift* as not repaired; None is none. Return whether it was counted now.

        It is counted once, and only if it came after all had been in order.
        """
        score = result.entry.id
        is_news = self.statuses.device.set_drifted(score, drift.resource if drift else None)
        if drift is None or not is_news or not self._is_new(score, drift):
            return False
        self.statuses.record_drift(score, drift)
        return True

    def _is_new(self, score: str, drift: LastDrift) -> bool:
        """Return whether *drift* came after all had been in order, and was not reported by the last run."""
        baseline, status = self.baselines.get(score), self.statuses.status_of(score)
        if baseline is None:
            return False
        last = status.last_drift if baseline.recalled and status else None
        return last is None or (last.resource, last.before) != (drift.resource, drift.before)

    def _find_refusal(self, result: RunResult) -> LastDrift | None:
        """Return what prevents *result*, and did not before; None where policy refuses it."""
        baseline = self.baselines.get(result.entry.id)
        if baseline is None or not baseline.includes(result.wanted):
            return None
        refused = _find_obstacle(result)
        wanted = result.wanted.get(refused.resource) if refused else None
        is_by_policy = wanted is not None and self.device.policy.refusal(wanted) is not None
        return None if is_by_policy else refused

    def _find_override(self, result: RunResult) -> LastDrift | None:
        """Return what is as desired, but overridden by something beside it that no Score has made."""
        for rid, state in (result.found or {}).items():
            wanted = result.wanted.get(rid)
            for other in wanted.overridden_by(state) if wanted is not None else ():
                if not self.ledger.holders(other):
                    why = f"overridden by {other}"
                    return _drift(rid, why, "left so: remove that, or let a Score have it")
        return None


@attrs.define
class _RunClassifier:
    """Finds the causes of what is done in one run. However much it puts right, that counts once."""

    _drift: DriftDetector
    _score: str
    _baseline: Baseline | None
    _is_counted: bool = attrs.field(default=False, init=False)

    def of(self, change: Change, wanted: Mapping[str, Resource]) -> Cause | None:
        """Return why *change* was due, and count the first repair of drift in this run."""
        if self._baseline is None:
            return None
        cause = self._drift.baselines.cause(change, wanted, self._baseline)
        if cause == "drift" and not self._is_counted:
            self._is_counted = True
            self._drift.record_repair(self._score, change)
        return cause


def _keys_of(reconciler: Remembering, resource_ids: Collection[str]) -> list[str]:
    """Return the keys of those of *resource_ids* that *reconciler* is for."""
    resource_type = reconciler.resource_class.resource_type
    ids = (ResourceId.parse(each) for each in resource_ids)
    return [each.key for each in ids if each.resource_type == resource_type]


def _first(changes: Sequence[Change]) -> LastDrift | None:
    """Return the first change that was made, or would be, in the form of a report."""
    if not changes:
        return None
    change = changes[0]
    return _drift(change.resource, change.diff or _words(change.before), _words(change.after))


def _left_so(drift: LastDrift, drifted: Sequence[Change]) -> Change:
    """Return what an event says of *drift* that is left so: of a refusal, the reason."""
    if not drifted:
        return Change(resource=drift.resource, steps=(Did(f"is left so: {drift.before}"),))
    before = drifted[0].before
    return Change(resource=drift.resource, steps=(Did("is left so"),), before=before, after=before)


def _find_obstacle(result: RunResult) -> LastDrift | None:
    """Return what prevents *result*, and is not ours to remove."""
    outcome = result.verdict.outcome
    if not isinstance(outcome, Failure) or not result.verdict.permanent:
        return None
    error = outcome.error
    if error.code == OwnershipConflict.code:
        return None
    return _drift(error.resource, error.message, "left so") if error.resource else None


def _drift(resource: str, before: str, after: str) -> LastDrift:
    return LastDrift(
        at=timestamp(),
        resource=resource,
        before=cut_for_wire(before, _TOLD_BYTES),
        after=after,
    )


def _words(state: State | None) -> str:
    """Return *state* in a line for people: ``PresentAt(sha256=…, mode=420)``."""
    if state is None:
        return "nothing"
    fields: Mapping[str, object] = state_to_json(state)
    shown = ", ".join(f"{name}={value}" for name, value in fields.items() if name != "state")
    return cut_for_wire(f"{state.state}({shown})", _TOLD_BYTES)
