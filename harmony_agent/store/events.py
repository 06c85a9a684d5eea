"""Events: every change that was made to this device, with before, after, why and by whose order.

Why a change was made is decided as it is made, by what was known when its run began: so it is told also of
a run that is cut short, or overtaken by a newer manifest.

Noted in the database with whatever is written next, so that an event costs no flush of its own; the newest
are kept, chained by their hashes (`event_chain`). Only what is durable is told to whoever follows, and to
the bus as part of an Outcome: so no number is ever given twice. Where events are known to be lost, an event
says so. A file's content is in its diff only where everybody on the device may read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from harmony_agent.clock import timestamp
from harmony_core.change import Change
from harmony_core.resources import Resource
from harmony_core.wire.actual_state import optional_state_to_json
from harmony_core.wire.manifest import SerializedScore

from .database import Database
from .desired import Desired
from .event_chain import EventChain
from .signers import Signers

__all__ = ["Cause", "Classifier", "Events", "RunClassifier", "ScoreEvents"]

log = logging.getLogger(__name__)

Cause: TypeAlias = Literal[
    "desired", "drift", "dependency", "boot", "rollback", "removed", "request", "lost"
]
"""Why a change was made, as docs/wire.md lists them."""
_DIFF_BYTES = 4 * 1024
_FOLLOWED = 1_000
"""As many wait for a slow reader; who falls further behind misses some, and is told so by the gap in seq."""


class RunClassifier(Protocol):
    """Finds the causes of the changes of one run, as they are made."""

    def of(self, change: Change, wanted: Mapping[str, Resource]) -> Cause | None:
        """Return why *change* was due in a run that has asked for *wanted* so far, by resource id.

        None where it is due because the manifest asks for it.
        """
        ...


class Classifier(Protocol):
    """Knows why what is in order may have to be changed: `harmony_agent.drift.detector.DriftDetector`."""

    def classify_run(self, score: str) -> RunClassifier:
        """Return what finds the causes of a run of *score* that begins now."""
        ...


class Events:
    """What was changed here, oldest first."""

    def __init__(
        self, database: Database, chain: EventChain, desired: Desired, signers: Signers
    ) -> None:
        self.chain = chain
        self._database = database
        self._desired = desired
        self._signers = signers
        self._followers: set[asyncio.Queue[Mapping[str, Any]]] = set()
        self._going_back: set[str] = set()
        self._classifier: Classifier | None = None
        self._listeners: list[Callable[[Change], None]] = []
        self._score_listeners: list[Callable[[str, Change], None]] = []

    @classmethod
    async def load(cls, database: Database, desired: Desired, signers: Signers) -> Events:
        """Continue from what the last run left. If it left a database that cannot be read, record that."""
        events = cls(database, await EventChain.load(database), desired, signers)
        if database.damaged and not database.is_blind and not events.chain.last_seq:
            events.record_loss(
                f"the agent's database was damaged, and is kept as {database.damaged.path}",
                # Higher than anybody has counted.
                last_seq=database.damaged.written_s,
            )
        return events

    def record_loss(self, why: str, *, last_seq: int) -> None:
        """Record that events are lost, and *why*. Never use a number up to *last_seq* again."""
        self.chain.add(
            {
                "at": timestamp(),
                "score": "",
                "resource": "",
                "actions": [why],
                "why": "lost",
                "generation": self._desired.generation,
                "signed_by": [],
                "before": None,
                "after": None,
                "diff": None,
            },
            then=self._tell,
            skip_to=last_seq,
        )
        log.warning("earlier events are lost: %s", why)

    def listen(self, *listeners: Callable[[Change], None]) -> None:
        """Tell *listeners* of every change as it is made."""
        self._listeners += listeners

    def set_classifier(self, classifier: Classifier) -> None:
        """Ask *classifier* for the cause of what is changed in a run."""
        self._classifier = classifier

    def set_rollback(self, score: str, *, is_so: bool) -> None:
        """Record whether *score* is rolled back: then that is the cause of removing what only the failed
        attempt has made."""
        if is_so:
            self._going_back.add(score)
        else:
            self._going_back.discard(score)

    def listen_by_score(self, *listeners: Callable[[str, Change], None]) -> None:
        """Tell *listeners* of every change as it is made, and of the Score that it was made for."""
        self._score_listeners += listeners

    def of(self, score: str) -> ScoreEvents:
        """Return where to record what is removed for *score*, outside of any run."""
        return ScoreEvents(self, score)

    def of_run(self, entry: SerializedScore) -> ScoreEvents:
        """Return `harmony_core.stage.Audit` of one run of *entry*, that begins now.

        What is in force now is what the run was begun for, whatever comes meanwhile.
        """
        classifier = self._classifier.classify_run(entry.id) if self._classifier else None
        is_newest = self._desired.entries.get(entry.id) is entry
        return ScoreEvents(
            self,
            entry.id,
            classifier=classifier,
            ordered="desired" if is_newest else "rollback",
            order=self._order(entry.id),
        )

    def record_reported_drift(self, score: str, change: Change) -> None:
        """Record drift of *score* that is not repaired: *change* says what was found, and changes nothing."""
        self._note(score, change, "drift", self._order(score))
        log.info("%s: %s %s", score, change.resource, ", ".join(change.actions))

    def record_reboot(self, score: str, change: Change) -> None:
        """Record that the device is about to be rebooted by the rule of *score*: *change* says why.

        No resource changes with it.
        """
        self._note(score, change, "desired", self._order(score))

    def record_request(self, score: str, change: Change, signed_by: Sequence[str]) -> None:
        """Record *change*, which *signed_by* have requested, of a resource that *score* wants; *score* is
        empty for a resource that no Score wants."""
        self._note(score, change, "request", _Order(self._desired.generation, list(signed_by)))
        log.info("%s %s, by request", change.resource, ", ".join(change.actions))

    def _order(self, score: str) -> _Order:
        in_force = self._desired.in_force
        newest = in_force.keyids_of(score) if in_force else ()
        return _Order(self._desired.generation_of(score), list(self._signers.of(score) or newest))

    def _removal_cause(self, score: str) -> Cause:
        """Return why something of *score* is removed outside of a run."""
        is_rollback = score in self._going_back and score in self._desired.entries
        return "rollback" if is_rollback else "removed"

    def record(
        self, score: str, change: Change, why: Cause | None = None, order: _Order | None = None
    ) -> None:
        """Record *change*, made for *score*, and tell the listeners. *why* None says that something is
        removed."""
        order = order or self._order(score)
        self._note(score, change, why or self._removal_cause(score), order)
        for listener in self._listeners:
            listener(change)
        for each in self._score_listeners:
            each(score, change)
        log.info("%s: %s %s", score, change.resource, ", ".join(change.actions))

    def _note(self, score: str, change: Change, why: Cause, order: _Order) -> None:
        event = {
            "at": timestamp(),
            "score": score,
            "resource": change.resource,
            "actions": list(change.actions),
            "why": why,
            "generation": order.generation,
            "signed_by": order.signed_by,
            "before": optional_state_to_json(change.before),
            "after": optional_state_to_json(change.after),
            "diff": _cut(change.diff),
        }
        self.chain.add(event, then=self._tell)

    def _tell(self, event: Mapping[str, Any]) -> None:
        for follower in self._followers:
            if not follower.full():
                follower.put_nowait(event)

    async def recent(
        self, *, score: str | None = None, since: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Return the stored events, oldest first: only those of *score*, and only from *since* (RFC 3339)
        on."""
        await self._database.write()
        rows = await self._database.read("SELECT json FROM event ORDER BY seq")
        # By what is hashed, and not by what stands beside it.
        kept: list[Mapping[str, Any]] = [json.loads(text) for (text,) in rows]
        return [
            event
            for event in kept
            if score in {None, event["score"]} and (since is None or event["at"] >= since)
        ]

    async def follow(self) -> AsyncGenerator[Mapping[str, Any]]:
        """Yield every event from now on, until the generator is closed."""
        queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(_FOLLOWED)
        self._followers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)


@attrs.frozen
class _Order:
    """By whose order something is done."""

    generation: int
    signed_by: Sequence[str]


@attrs.define
class ScoreEvents:
    """`harmony_core.stage.Audit` of one run; or, without a classifier, of what is removed outside of one."""

    _events: Events
    _score: str
    classifier: RunClassifier | None = attrs.field(default=None, kw_only=True)
    ordered: Cause | None = attrs.field(default=None, kw_only=True)
    """Why what has no other cause is changed."""
    order: _Order | None = attrs.field(default=None, kw_only=True)
    wanted: Mapping[str, Resource] = attrs.field(factory=dict[str, Resource], kw_only=True)
    """What the run has asked for so far, by id: its Stage's own."""

    def record(self, change: Change) -> None:
        cause = self.classifier.of(change, self.wanted) if self.classifier is not None else None
        self._events.record(self._score, change, cause or self.ordered, self.order)


def _cut(diff: str | None) -> str | None:
    if diff is None or len(diff) <= _DIFF_BYTES:
        return diff
    return diff[:_DIFF_BYTES].rpartition("\n")[0] + "\n…\n"
