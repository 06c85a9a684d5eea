"""Events: every change that was made to this device, with before, after, why and by whose order.

Noted in the database with whatever is written next, so that an event costs no flush of its own; the newest
`KEPT` are kept. Only what is durable is told to whoever follows, and to the bus as part of an Outcome: so
no number is ever given twice. A file's content is in its diff only where everybody on the device may
read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs

from harmony_agent.plan.desired import Desired
from harmony_core.change import Change
from harmony_core.resources import State
from harmony_core.wire.actual_state import state_to_json
from harmony_core.wire.times import rfc3339

from .database import Database

__all__ = ["Events", "ScoreEvents"]

log = logging.getLogger(__name__)

KEPT = 2_000
_DIFF_BYTES = 4 * 1024
_FOLLOWED = 1_000
"""As many wait for a slow reader; who falls further behind misses some, and is told so by the gap in seq."""


class Events:
    """What was changed here, oldest first."""

    def __init__(self, database: Database, desired: Desired) -> None:
        self._database = database
        self._desired = desired
        self._next_seq = 1
        self._followers: set[asyncio.Queue[Mapping[str, Any]]] = set()
        self._why: dict[str, str] = {}
        self._listeners: list[Callable[[Change], None]] = []

    @classmethod
    async def load(cls, database: Database, desired: Desired) -> Events:
        events = cls(database, desired)
        for (last,) in await database.read("SELECT max(seq) FROM event"):
            events._next_seq = (_first(database) if last is None else last) + 1
        return events

    def listen(self, *listeners: Callable[[Change], None]) -> None:
        """Tell *listeners* of every change as it is made."""
        self._listeners += listeners

    def why(self, score: str, why: str) -> None:
        """Why *score* is looked at from now on: "desired" by the newest manifest, or "drift"."""
        self._why[score] = why

    def of(self, score: str) -> ScoreEvents:
        """`harmony_core.stage.Audit` of one interpretation of *score*."""
        return ScoreEvents(self, score)

    def record(self, score: str, change: Change) -> None:
        accepted = self._desired.current
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        event = {
            "seq": seq,
            "at": rfc3339(datetime.now(UTC)),
            "score": score,
            "resource": change.resource,
            "actions": list(change.actions),
            "why": self._why.get(score, "desired"),
            "generation": self._desired.generation,
            "signed_by": list(accepted.keyids) if accepted else [],
            "before": _told(change.before),
            "after": _told(change.after),
            "diff": _cut(change.diff),
        }
        self._database.along(
            (
                "INSERT OR REPLACE INTO event (seq, at, score, json) VALUES (?, ?, ?, ?)",
                (seq, event["at"], score, json.dumps(event)),
            ),
            ("DELETE FROM event WHERE seq <= ?", (seq - KEPT,)),
            then=partial(self._tell, event),
        )
        for listener in self._listeners:
            listener(change)
        log.info("%s: %s %s", score, change.resource, ", ".join(change.actions))

    def _tell(self, event: Mapping[str, Any]) -> None:
        for follower in self._followers:
            if not follower.full():
                follower.put_nowait(event)

    async def recent(
        self, *, score: str | None = None, since: str | None = None
    ) -> list[Mapping[str, Any]]:
        """The events that are kept, oldest first: of *score* only, and from *since* (RFC 3339) on only."""
        await self._database.write()
        rows = await self._database.read("SELECT score, at, json FROM event ORDER BY seq")
        return [
            json.loads(text)
            for of, at, text in rows
            if (score is None or of == score) and (since is None or at >= since)
        ]

    async def follow(self) -> AsyncGenerator[Mapping[str, Any]]:
        """Every event from now on, until the generator is closed."""
        queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(_FOLLOWED)
        self._followers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)


@attrs.frozen
class ScoreEvents:
    """`harmony_core.stage.Audit` of one interpretation."""

    _events: Events
    _score: str

    def record(self, change: Change) -> None:
        self._events.record(self._score, change)


def _first(database: Database) -> int:
    """What comes before the first number. Where numbers were given that are not known any more, it is as
    high as nobody counts: the seconds since 1970."""
    return database.damaged.written_s if database.damaged else 0


def _told(state: State | None) -> Mapping[str, Any] | None:
    return None if state is None else state_to_json(state)


def _cut(diff: str | None) -> str | None:
    if diff is None or len(diff) <= _DIFF_BYTES:
        return diff
    return diff[:_DIFF_BYTES].rpartition("\n")[0] + "\n…\n"
