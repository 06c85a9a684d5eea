"""Drift: what somebody else has changed is seen at once, told, and put right.

    what a Score touched -> is watched -> an event -> that Score is looked at again
                                                        |
                              changed though settled? -> counted, told; who fights gets patience

Events are for speed. A slow pass over everything, by a clock with jitter, catches what they miss, and
follows at once where a reconciler says that events may have been lost. What we did ourselves also makes
an event, and costs one look that finds everything in order.

What somebody has put where it may not be put right (a link in a file's place, a unit that is masked) is
counted when it is refused. What stands beside a resource and overrides it (a unit's drop-in) is told, and
left.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import attrs

from harmony_core.actual_state import Drift as LastDrift
from harmony_core.actual_state import state_to_json
from harmony_core.errors import CapabilityError
from harmony_core.inventory import Facts
from harmony_core.manifest import SerializedScore
from harmony_core.outcome import Failure
from harmony_core.reconciler import AnyReconciler
from harmony_core.replies import cut_for_wire
from harmony_core.resources import State
from harmony_core.times import rfc3339

from .book import Book
from .ledger import Ledger
from .patience import Patience
from .queue import WorkQueue
from .staging import Device, Pass

__all__ = ["Drift"]

log = logging.getLogger(__name__)

SLOW_PASS_S = 300.0
_GATHERED_WITHIN_S = 0.25
_WATCH_WITHIN_S = 30.0
_TOLD_BYTES = 1024


class _Add(Protocol):
    """`WorkQueue.add` or `WorkQueue.hint`."""

    def __call__(self, key: str, *, after_s: float) -> None: ...


class Drift:
    """Knows what is watched for whom, and what was settled when."""

    def __init__(
        self, device: Device, book: Book, ledger: Ledger, read_facts: Callable[[], Facts]
    ) -> None:
        self._device = device
        self._book = book
        self._ledger = ledger
        self._read_facts = read_facts
        self._patience = Patience()
        self._settled: set[str] = set()
        """Found in order since the newest manifest, by the facts of today: what changes now is drift."""
        self._facts_read: dict[str, frozenset[str]] = {}
        self._touched: dict[str, frozenset[str]] = {}
        self._watched: dict[str, frozenset[str]] = {}
        """What each capability's reconciler was asked to watch."""
        self._unseen: set[str] = set()
        """Scores that touched something before it was watched."""
        self._turned = asyncio.Event()

    def begin(self, scores: Collection[str]) -> None:
        """A manifest is in force: whatever is changed because of it is not drift."""
        self._settled.clear()
        for gone in self._touched.keys() - set(scores):
            self.forget(gone)

    def settle(self, score: str) -> None:
        """*score* was found in order, as when it was last judged."""
        self._settled.add(score)

    def is_settled(self, score: str) -> bool:
        return score in self._settled

    def only_reports(self, entry: SerializedScore) -> bool:
        """Whether *entry* is in order, and what drifts from now on is to be told, not put right."""
        return entry.policy.drift == "report" and entry.id in self._settled

    def judged(self, passed: Pass) -> None:
        """*passed* has been made in earnest: was there drift, and is it settled now?"""
        score = passed.entry.id
        refused = _refused(passed)
        repaired = _changed(passed) if passed.applied else None
        if score in self._settled and (drift := repaired or refused):
            self._book.drifted(score, drift)
            if repaired:
                self._patience.repaired(score, _now())
                self._tell_of_fights()
        self._stands(passed, self._overridden(passed))
        if passed.whole:
            self._settled.add(score)
        elif refused is not None:
            self._settled.discard(score)  # what mends it is no drift of its own
        if passed.interpreted:
            self._facts_read[score] = frozenset(passed.answers)
            self._watch_for(score, passed.touched)

    def report(self, passed: Pass) -> None:
        """What a dry run over something settled would change, or not be let, has drifted, and is left."""
        self._stands(passed, _changed(passed) or _refused(passed) or self._overridden(passed))

    def _stands(self, passed: Pass, drift: LastDrift | None) -> None:
        """*drift* is not put right. It counts once, and only if it came after all had been in order."""
        score = passed.entry.id
        is_news = self._book.stands_otherwise(score, drift.resource if drift else None)
        if drift is not None and is_news and score in self._settled:
            self._book.drifted(score, drift)

    def _overridden(self, passed: Pass) -> LastDrift | None:
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
        self._settled.discard(score)
        self._facts_read.pop(score, None)
        self._patience.forget(score)
        self._book.stands_otherwise(score, None)
        if self._touched.pop(score, None):
            self._turned.set()

    async def run(self, queue: WorkQueue) -> None:
        """Keep the watches as they should be, until cancelled."""
        while True:
            await self._turned.wait()
            await queue.calm(within_s=_GATHERED_WITHIN_S)
            self._turned.clear()
            unseen, self._unseen = self._unseen, set()
            await self._watch(queue)
            # Watched only from now on: what happened since they were looked at is seen now.
            for score in unseen:
                queue.hint(score)

    async def pass_slowly(
        self, queue: WorkQueue, pass_over: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """Look at everything now and then, until cancelled. *pass_over* says what needs a turn."""
        while True:
            await asyncio.sleep(SLOW_PASS_S * random.uniform(0.8, 1.2))  # noqa: S311 - spread, not secrecy
            self.look_at_facts(self._read_facts())
            self._watched.clear()  # a reconciler that failed to watch is asked again
            self._turned.set()
            self._tell_of_fights()
            self._look_at(await pass_over(), queue.hint)

    def look_at_facts(self, facts: Facts) -> None:
        """What is changed because a fact has changed is not drift."""
        before = attrs.asdict(self._device.facts, recurse=False)
        after = attrs.asdict(facts, recurse=False)
        changed = {name for name, value in after.items() if before[name] != value}
        self._device.facts = facts
        for score, read in self._facts_read.items():
            if read & changed:
                self._settled.discard(score)

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
            told = partial(self._told, queue, reconciler.resource_type.resource_type)
            try:
                async with asyncio.timeout(_WATCH_WITHIN_S):
                    await reconciler.watch(keys, told)
            except (CapabilityError, TimeoutError) as error:
                log.warning("%s is not watched for now: %s", capability, error)
                self._watched.pop(capability, None)
            else:
                self._watched[capability] = keys

    def _keys_of(self, reconciler: AnyReconciler) -> Iterable[str]:
        prefix = f"{reconciler.resource_type.resource_type}:"
        return (
            rid.removeprefix(prefix)
            for ids in self._touched.values()
            for rid in ids
            if rid.startswith(prefix)
        )

    def _told(self, queue: WorkQueue, resource_type: str, key: str | None) -> None:
        if key is None:
            # What could not be reached is there again: a reason to try what has failed.
            self._look_at(self._touched, queue.add)
            return
        rid = f"{resource_type}:{key}"
        self._look_at([score for score, ids in self._touched.items() if rid in ids], queue.hint)

    def _look_at(self, scores: Iterable[str], add: _Add) -> None:
        now = _now()
        for score in scores:
            add(score, after_s=self._patience.wait_s(score, now))

    def _tell_of_fights(self) -> None:
        self._book.fought(self._patience.fights(_now()))


def _changed(passed: Pass) -> LastDrift | None:
    """What *passed* changed first, or would have."""
    if not passed.changes:
        return None
    change = passed.changes[0]
    return _drift(change.resource, change.diff or _words(change.before), _words(change.after))


def _refused(passed: Pass) -> LastDrift | None:
    """What stands in the way of *passed*, and is not ours to clear."""
    outcome = passed.verdict.outcome
    if not isinstance(outcome, Failure) or not passed.verdict.permanent:
        return None
    error = outcome.error
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
