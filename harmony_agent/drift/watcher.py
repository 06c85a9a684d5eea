"""Drift: what somebody else has changed is seen at once, told, and put right.

    what a Score touched -> is watched -> an event -> that Score is looked at again
                                                        |
                              changed though settled? -> counted, told; who fights gets patience

A change is judged as it is made: so what was put right counts, whether or not its pass came to its end.

Events are for speed. A slow pass over everything, by a clock with jitter, catches what they miss, and
follows at once where a reconciler says that events may have been lost. What we did ourselves also makes
an event, and costs one look that finds everything in order.

Settled is a Score that was found in order, for as long as its entry is the same: over newer manifests, and
over restarts. What has to be changed for it then is drift if it still wants the very same things, and
neither a file that it uses was changed by another Score, nor the device has been switched off: what a
reboot ends is brought up again, and only what lasts on disk can have drifted meanwhile.

What somebody has put where it may not be put right (a link in a file's place, a unit that is masked) is
counted when it is refused. What stands beside a resource and overrides it (a unit's drop-in) is told, and
left.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import attrs

from harmony_agent.apply.queue import WorkQueue
from harmony_agent.plan.device import Device
from harmony_agent.plan.run_result import RunResult
from harmony_agent.store.events import Cause, Events, Judgement
from harmony_agent.store.ledger import Ledger
from harmony_agent.store.status import StatusStore
from harmony_core.change import Change
from harmony_core.errors import OwnershipConflict
from harmony_core.inventory import Facts
from harmony_core.outcome import Failure
from harmony_core.reconciler import AnyReconciler, Placed
from harmony_core.resources import Resource, State
from harmony_core.unexpected import without_exit
from harmony_core.wire.actual_state import Drift as LastDrift
from harmony_core.wire.actual_state import state_to_json
from harmony_core.wire.manifest import SerializedScore, spec_hash
from harmony_core.wire.replies import cut_for_wire
from harmony_core.wire.times import rfc3339

from .backoff import DriftBackoff
from .boot_marker import BootMarker

__all__ = ["Drift"]

log = logging.getLogger(__name__)

SLOW_PASS_S = 300.0
_GATHERED_WITHIN_S = 0.25
_WATCH_WITHIN_S = 30.0
_TOLD_BYTES = 1024


@attrs.frozen(kw_only=True)
class _Settled:
    """What a Score was like when it was last found in order."""

    entry: SerializedScore
    wants: Mapping[str, str]
    """The hash of each resource's specification, by id."""
    looked: int
    """How many changes had been made on this device when it was looked at."""
    places: Mapping[str, str]
    """Where each reconciler acted that says so, by type of resource."""
    since_boot: bool
    """Whether that was since the device was switched on."""
    recalled: bool = False
    """Whether it was the last run that found it so."""


class Drift:
    """Knows what is watched for whom, and what was settled when."""

    def __init__(
        self,
        *,
        device: Device,
        statuses: StatusStore,
        ledger: Ledger,
        since_boot: BootMarker,
        patience: DriftBackoff,
        events: Events,
        read_facts: Callable[[], Facts],
    ) -> None:
        self._device = device
        self._statuses = statuses
        self._ledger = ledger
        self._read_facts = read_facts
        self._placed = [each for each in device.offers.values() if isinstance(each, Placed)]
        self._backoff = patience
        self._events = events
        self._enforced: set[str] = set()
        """Scores of which what has drifted is put right once, though it is only to be told of."""
        self._left: set[str] = set()
        """Scores of which what has drifted is left so, and counted."""
        self._boot_marker = since_boot
        self._settled: dict[str, _Settled] = {}
        self._changes = self._begun = 0
        """How many changes were made since this process began; and before the manifest in force came."""
        self._changed_at: dict[str, int] = {}
        """Which of all changes was the newest of each resource."""
        self._look_only: dict[str, int] = {}
        self._facts_read: dict[str, frozenset[str]] = {}
        self._touched: dict[str, frozenset[str]] = {}
        self._watched: dict[str, frozenset[str]] = {}
        """What each capability's reconciler was asked to watch."""
        self._unseen: set[str] = set()
        """Scores that touched something before it was watched."""
        self._turned = asyncio.Event()

    def begin(self, entries: Iterable[SerializedScore]) -> None:
        """These are in force now: what is changed for one that was otherwise before is not drift."""
        wanted = {entry.id: entry for entry in entries}
        for score, settled in list(self._settled.items()):
            if score not in wanted or not _says_the_same(settled.entry, wanted[score]):
                del self._settled[score]
        for gone in self._touched.keys() - wanted.keys():
            self.forget(gone)
        # Whoever pushes has waited long enough.
        self._backoff.insist_everywhere()
        self._begun = self._changes
        seen = min((each.looked for each in self._settled.values()), default=self._begun)
        self._changed_at = {rid: at for rid, at in self._changed_at.items() if at > seen}

    def recall(self, entry: SerializedScore, wants: Mapping[str, str]) -> None:
        """The last run left *entry* in order, as far as is noted, and with these hashes by resource."""
        self._settled[entry.id] = _Settled(
            entry=entry,
            wants=wants,
            looked=self._changes,
            places=self._places(),
            since_boot=entry.id in self._boot_marker,
            recalled=True,
        )

    def settle(self, passed: RunResult) -> None:
        """*passed* has found everything in order."""
        score = passed.entry.id
        self._enforced.discard(score)
        self._left.discard(score)
        self._boot_marker.add(score)
        self._settled[score] = _Settled(
            entry=passed.entry,
            wants={rid: wanted.spec_hash for rid, wanted in passed.wanted.items()},
            looked=max(self._look_only.get(score, 0), self._begun),
            places=self._places(),
            since_boot=True,
        )

    def _places(self) -> Mapping[str, str]:
        return {each.resource_type.resource_type: each.place for each in self._placed}

    def is_settled(self, score: str) -> bool:
        return score in self._settled

    def note(self, change: Change) -> None:
        """*change* was made, for whatever Score."""
        self._changes += 1
        self._changed_at[change.resource] = self._changes

    def looks_at(self, score: str) -> None:
        """A pass over *score* begins: what is changed from now on, it may not have seen."""
        self._look_only[score] = self._changes

    def judgement(self, score: str) -> Judgement:
        """Return what judges a pass over *score* that begins now, by how it was last found in order."""
        return _Judgement(self, score, self._settled.get(score))

    def only_reports(self, entry: SerializedScore) -> bool:
        """Whether *entry* is in order, and what drifts from now on is to be told, not put right."""
        return (
            entry.policy.drift == "report"
            and entry.id in self._settled
            and entry.id not in self._enforced
        )

    def insist(self, score: str, *, enforce: bool) -> None:
        """Let the next repair of *score* wait no more; *enforce*: also where drift is only told."""
        self._backoff.insist(score)
        if enforce:
            self._enforced.add(score)

    def waits_s(self, score: str) -> float:
        """Return how long a repair of *score* still has to wait, in seconds."""
        return self._backoff.wait_s(score, _now())

    def only_drifted(self, looked: RunResult) -> Collection[str]:
        """Return what has drifted of *looked*, a dry run; nothing where there is anything else to be done."""
        drifted = self._find_drift(looked)
        if len(drifted) < len(looked.changes):
            return ()
        return {each.resource for each in drifted}

    def _find_drift(self, passed: RunResult) -> list[Change]:
        """Those of *passed*'s changes that are not ours to have caused."""
        settled = self._settled.get(passed.entry.id)
        if settled is None or not _wants_the_same(passed, settled):
            return []
        return [
            change
            for change in passed.changes
            if self.cause(change, passed.wanted, settled) == "drift"
        ]

    def cause(
        self, change: Change, wanted: Mapping[str, Resource], settled: _Settled
    ) -> Cause | None:
        """Return why *change* is due where all was as in *settled*; None where it is wanted otherwise now."""
        resource = wanted.get(change.resource)
        if resource is None:  # it is to be gone: that is no news only if it was to be so then
            is_news = change.resource in settled.wants or not _are_as_wanted(wanted, settled)
        else:
            is_news = settled.wants.get(change.resource) != resource.spec_hash
        resource_type = change.resource.partition(":")[0]
        if is_news or settled.places.get(resource_type) != self._places().get(resource_type):
            return None
        if self._follows(change, wanted, settled):
            return "dependency"
        if not settled.since_boot and not self._survives_reboot(change.resource):
            return "boot"
        return "drift"

    def record_repair(self, score: str, change: Change) -> None:
        """*change* has put right what drifted."""
        drift = _first([change])
        if drift is None or self._statuses.status_of(score) is None:
            return
        if score in self._left:  # counted when it was told of
            self._left.discard(score)
            return
        self._statuses.record_drift(score, drift)
        self._backoff.record_repair(score, _now())
        self._report_repeat_offenders()

    def _survives_reboot(self, resource_id: str) -> bool:
        resource_type, _, key = resource_id.partition(":")
        return any(
            each.resource_class.survives_reboot(key)
            for each in self._device.offers.values()
            if each.resource_class.resource_type == resource_type
        )

    def _follows(self, change: Change, wanted: Mapping[str, Resource], settled: _Settled) -> bool:
        """Whether *change* is due because of what was changed for another Score."""
        used: Sequence[str] = getattr(wanted.get(change.resource), "uses", ())
        return any(self._changed_at.get(f"file:{path}", 0) > settled.looked for path in used)

    def _was_refused(self, passed: RunResult) -> LastDrift | None:
        """What stands in the way of *passed*, where nothing did before."""
        settled = self._settled.get(passed.entry.id)
        if settled is None or not _wants_the_same(passed, settled):
            return None
        refused = _find_obstacle(passed)
        wanted = passed.wanted.get(refused.resource) if refused else None
        is_by_policy = wanted is not None and self._device.policy.refusal(wanted) is not None
        return None if is_by_policy else refused

    def record_result(self, passed: RunResult) -> None:
        """*passed* has been made in earnest: was something refused, and is it settled now?"""
        score = passed.entry.id
        # What was put right is counted already; of one episode one drift is told.
        repaired = passed.applied and self._find_drift(passed)
        if not repaired and (drift := self._was_refused(passed)):
            self._statuses.record_drift(score, drift)
        self._stands(passed, self._overridden(passed))
        if passed.completed:
            self.settle(passed)
        elif _find_obstacle(passed) is not None:
            self._settled.pop(score, None)  # what mends it is no drift of its own
        if passed.interpreted:
            self._facts_read[score] = frozenset(passed.answers)
            self._watch_for(score, passed.referenced)

    def report(self, passed: RunResult) -> Collection[str]:
        """What a dry run over something settled would change, or not be let, has drifted, and is left.

        The ids of that; none where nothing has, or where there is more to be done.
        """
        drifted = self._find_drift(passed)
        if len(drifted) < len(passed.changes):
            self._settled.pop(passed.entry.id, None)  # all is put in order, as it is wanted now
            return ()
        refused = self._was_refused(passed)
        if (drift := _first(drifted) or refused) is not None:
            if self._stands(passed, drift):
                self._events.reported_drift(passed.entry.id, _left_so(drift, drifted))
            self._left.add(passed.entry.id)
        return {each.resource for each in drifted} | ({refused.resource} if refused else set())

    def _stands(self, passed: RunResult, drift: LastDrift | None) -> bool:
        """*drift* is not put right. It counts once, and only if it came after all had been in order.

        Whether it has counted now.
        """
        score = passed.entry.id
        is_news = self._statuses.set_drifted(score, drift.resource if drift else None)
        if drift is None or not is_news or not self._is_first_seen(score, drift):
            return False
        self._statuses.record_drift(score, drift)
        return True

    def _is_first_seen(self, score: str, drift: LastDrift) -> bool:
        """Whether *drift* came after all had been in order, and was not told by the last run already."""
        settled, page = self._settled.get(score), self._statuses.status_of(score)
        if settled is None:
            return False
        last = page.last_drift if settled.recalled and page else None
        return last is None or (last.resource, last.before) != (drift.resource, drift.before)

    def _overridden(self, passed: RunResult) -> LastDrift | None:
        """What is as it was wished for, but that something beside it, of nobody's wish, overrides it."""
        for rid, state in (passed.found or {}).items():
            wanted = passed.wanted.get(rid)
            for other in wanted.overridden_by(state) if wanted is not None else ():
                if not self._ledger.holders(other):
                    why = f"overridden by {other}"
                    return _drift(rid, why, "left so: remove that, or let a Score have it")
        return None

    def forget(self, score: str) -> None:
        """*score* is not wanted any more."""
        self._settled.pop(score, None)
        self._look_only.pop(score, None)
        self._facts_read.pop(score, None)
        self._backoff.forget(score)
        self._enforced.discard(score)
        self._left.discard(score)
        self._statuses.set_drifted(score, None)
        if self._touched.pop(score, None):
            self._turned.set()

    async def run(self, queue: WorkQueue) -> None:
        """Keep the watches as they should be, until cancelled."""
        while True:
            await self._turned.wait()
            await queue.wait_idle(within_s=_GATHERED_WITHIN_S)
            self._turned.clear()
            unseen, self._unseen = self._unseen, set()
            await self._watch(queue)
            # Watched only from now on: what happened since they were looked at is seen now.
            for score in unseen:
                queue.notify(score)

    async def look_slowly(
        self, queue: WorkQueue, look_at_settled: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """Look at everything now and then, until cancelled. *pass_over* says what needs a turn."""
        while True:
            await asyncio.sleep(SLOW_PASS_S * random.uniform(0.8, 1.2))  # noqa: S311 - spread, not secrecy
            self.look_at_facts(self._read_facts())
            self._watched.clear()  # a reconciler that failed to watch is asked again
            self._turned.set()
            self._report_repeat_offenders()
            self._look_at(await look_at_settled(), queue.notify)

    def look_at_facts(self, facts: Facts) -> None:
        """What is changed because a fact has changed is not drift."""
        before = attrs.asdict(self._device.facts, recurse=False)
        after = attrs.asdict(facts, recurse=False)
        changed = {name for name, value in after.items() if before[name] != value}
        self._device.facts = facts
        for score, read in self._facts_read.items():
            if read & changed:
                self._settled.pop(score, None)

    def _watch_for(self, score: str, resource_ids: Collection[str]) -> None:
        """Watch what *score* has touched, and nothing else for it."""
        ids = frozenset(resource_ids)
        before = self._touched.get(score, frozenset())
        if ids == before:
            return
        self._touched[score] = ids
        if ids - before:
            self._unseen.add(score)
        self._turned.set()

    async def _watch(self, queue: WorkQueue) -> None:
        for capability, reconciler in self._device.offers.items():
            keys = frozenset(self._keys_of(reconciler))
            if self._watched.get(capability, frozenset()) == keys:
                continue
            told = partial(self._on_change, queue, reconciler.resource_class.resource_type)
            try:
                async with asyncio.timeout(_WATCH_WITHIN_S):
                    await without_exit(reconciler.watch, keys, told)
            except Exception as error:  # noqa: BLE001 - the slow pass sees what is not watched, and asks again
                log.warning("%s is not watched for now: %r", capability, error)
                self._watched.pop(capability, None)
            else:
                self._watched[capability] = keys

    def _keys_of(self, reconciler: AnyReconciler) -> Iterable[str]:
        prefix = f"{reconciler.resource_class.resource_type}:"
        return (
            rid.removeprefix(prefix)
            for ids in self._touched.values()
            for rid in ids
            if rid.startswith(prefix)
        )

    def _on_change(self, queue: WorkQueue, resource_type: str, key: str | None) -> None:
        if key is None:
            # What could not be reached is there again: a reason to try what has failed.
            self._look_at(self._touched, queue.enqueue)
            return
        rid = f"{resource_type}:{key}"
        self._look_at([score for score, ids in self._touched.items() if rid in ids], queue.notify)

    def _look_at(self, scores: Iterable[str], add: Callable[[str], None]) -> None:
        for score in scores:
            add(score)

    def _report_repeat_offenders(self) -> None:
        self._statuses.set_repeat_offenders(self._backoff.repeat_offenders(_now()))


def _says_the_same(one: SerializedScore, other: SerializedScore) -> bool:
    return one is other or spec_hash(one) == spec_hash(other)


@attrs.define
class _Judgement:
    """Judges what is done in one pass. However often it puts something right, that counts once."""

    _drift: Drift
    _score: str
    _settled: _Settled | None
    _is_counted: bool = attrs.field(default=False, init=False)

    def of(self, change: Change, wanted: Mapping[str, Resource]) -> Cause | None:
        """As `harmony_agent.store.events.Judgement`."""
        if self._settled is None:
            return None
        cause = self._drift.cause(change, wanted, self._settled)
        if cause == "drift" and not self._is_counted:
            self._is_counted = True
            self._drift.record_repair(self._score, change)
        return cause


def _wants_the_same(passed: RunResult, settled: _Settled) -> bool:
    """Whether *passed*, as far as it came, has asked for what was in order, and for nothing else."""
    return _are_as_wanted(passed.wanted, settled)


def _are_as_wanted(wanted: Mapping[str, Resource], settled: _Settled) -> bool:
    return all(settled.wants.get(rid) == each.spec_hash for rid, each in wanted.items())


def _first(changes: Sequence[Change]) -> LastDrift | None:
    """What was changed first, or would be."""
    if not changes:
        return None
    change = changes[0]
    return _drift(change.resource, change.diff or _words(change.before), _words(change.after))


def _left_so(drift: LastDrift, drifted: Sequence[Change]) -> Change:
    """Return what an event tells of *drift* that is left so: of a refusal, the reason."""
    if not drifted:
        return Change(resource=drift.resource, actions=(f"is left so: {drift.before}",))
    before = drifted[0].before
    return Change(resource=drift.resource, actions=("is left so",), before=before, after=before)


def _find_obstacle(passed: RunResult) -> LastDrift | None:
    """What stands in the way of *passed*, and is not ours to clear."""
    outcome = passed.verdict.outcome
    if not isinstance(outcome, Failure) or not passed.verdict.permanent:
        return None
    error = outcome.error
    if error.code == OwnershipConflict.code:
        return None
    return _drift(error.resource, error.message, "left so") if error.resource else None


def _drift(resource: str, before: str, after: str) -> LastDrift:
    return LastDrift(
        at=rfc3339(datetime.now(UTC)),
        resource=resource,
        before=cut_for_wire(before, _TOLD_BYTES),
        after=after,
    )


def _words(state: State | None) -> str:
    """A state in a line for people: ``PresentAt(sha256=…, mode=420)``."""
    if state is None:
        return "nothing"
    fields: Mapping[str, object] = state_to_json(state)
    shown = ", ".join(f"{name}={value}" for name, value in fields.items() if name != "state")
    return cut_for_wire(f"{state.state}({shown})", _TOLD_BYTES)


def _now() -> float:
    return asyncio.get_running_loop().time()
