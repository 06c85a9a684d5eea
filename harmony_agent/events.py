"""Events: every change that was made to this device, with before, after, why and by whose order.

Told at once to the journal and to whoever follows; kept in the database, the newest `KEPT` of them, in the
transaction that stores the Outcome, so that an event costs no flush of its own. A file's content is in
its diff only where everybody on the device may read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from harmony_core.actual_state import state_to_json
from harmony_core.change import Change
from harmony_core.resources import State
from harmony_core.times import rfc3339

from .database import Database, Statement
from .desired import Desired

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
        self._unsaved: list[Statement] = []
        self._followers: set[asyncio.Queue[Mapping[str, Any]]] = set()
        self._why: dict[str, str] = {}

    @classmethod
    async def load(cls, database: Database, desired: Desired) -> Events:
        events = cls(database, desired)
        for (last,) in await database.read("SELECT max(seq) FROM event"):
            events._next_seq = (last or 0) + 1
        return events

    def why(self, score: str, why: str) -> None:
        """Why *score* is looked at from now on: "desired" by the newest manifest, or "drift"."""
        self._why[score] = why

    def of(self, score: str) -> ScoreEvents:
        """`harmony_core.stage.Audit` of one interpretation of *score*."""
        return ScoreEvents(self, score)

    def record(self, score: str, change: Change) -> None:
        accepted = self._desired.current
        event = {
            "seq": self._next_seq,
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
        self._next_seq += 1
        self._unsaved.append(
            (
                "INSERT INTO event VALUES (?, ?, ?, ?)",
                (event["seq"], event["at"], score, json.dumps(event)),
            )
        )
        for follower in self._followers:
            if not follower.full():
                follower.put_nowait(event)
        log.info("%s: %s %s", score, change.resource, ", ".join(change.actions))

    def unsaved(self) -> list[Statement]:
        """What to write together with the next Outcome."""
        statements, self._unsaved = self._unsaved, []
        if statements:
            statements.append(("DELETE FROM event WHERE seq <= ?", (self._next_seq - 1 - KEPT,)))
        return statements

    async def recent(
        self, *, score: str | None = None, since: str | None = None
    ) -> list[Mapping[str, Any]]:
        """The events that are kept, oldest first: of *score* only, and from *since* (RFC 3339) on only."""
        await self._database.write(*self.unsaved())
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


def _told(state: State | None) -> Mapping[str, Any] | None:
    return None if state is None else state_to_json(state)


def _cut(diff: str | None) -> str | None:
    if diff is None or len(diff) <= _DIFF_BYTES:
        return diff
    return diff[:_DIFF_BYTES].rpartition("\n")[0] + "\n…\n"
