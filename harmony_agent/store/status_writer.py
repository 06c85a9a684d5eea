"""Write the status of Scores to the database: in one transaction, and only where something is new.

    store, confirm, forget, add -> save() -> one transaction, with the conditions and whatever else is noted

What could not be written stays to be written with what comes next.
"""

from __future__ import annotations

import asyncio
import json

from harmony_core.errors import LedgerUnusable
from harmony_core.wire.actual_state import ScoreStatus

from .conditions import Conditions
from .database import Database, Statement

__all__ = ["StatusWriter"]

_SAVE = "INSERT OR REPLACE INTO score (id, state, changed, generation) VALUES (?, ?, ?, ?)"
_CONFIRM = "UPDATE score SET generation = ? WHERE id IN (SELECT value FROM json_each(?))"


class StatusWriter:
    """Keeps what is not stored yet."""

    def __init__(self, database: Database, conditions: Conditions) -> None:
        self._database = database
        self._conditions = conditions
        self._saving = asyncio.Lock()
        self._unsaved: list[Statement] = []
        self._confirmed: dict[str, int] = {}
        """The generation of statuses of which nothing else is not stored."""
        self._is_urgent = False

    @property
    def is_saved_first(self) -> bool:
        """Whether something was changed on the device that must be durable before anybody is told."""
        return self._is_urgent or self._database.has_more

    def store(self, score: str, status: ScoreStatus, *, has_changed: bool) -> None:
        """Store *status* with what is written next. *has_changed*: something was, for its generation."""
        self._confirmed.pop(score, None)  # of what is overwritten
        row = (score, status.text, int(has_changed), status.observed_generation)
        self._unsaved.append((_SAVE, row))

    def store_before_report(self) -> None:
        """Delay the next report until what is to be stored is durable."""
        self._is_urgent = True

    def confirm(self, score: str, generation: int) -> None:
        """Store that the status of *score* is the same under *generation*."""
        self._confirmed[score] = generation

    def forget(self, score: str) -> None:
        """Store that *score* is gone."""
        self._confirmed.pop(score, None)
        self._unsaved.append(("DELETE FROM score WHERE id = ?", (score,)))

    def add(self, statements: list[Statement]) -> None:
        """Store *statements* together with the statuses that are not stored yet."""
        self._unsaved += statements

    async def save(self) -> None:
        """Make what was entered durable: one transaction, none when there is nothing new.

        Raise `LedgerUnusable`; nothing is lost then: call it again.
        """
        async with self._saving:  # what another has begun to save may come back
            await self._save()

    async def _save(self) -> None:
        unsaved, self._unsaved = self._unsaved, []
        for generation in sorted(set(self._confirmed.values())):
            ids = [score for score, under in self._confirmed.items() if under == generation]
            unsaved.append((_CONFIRM, (generation, json.dumps(ids))))
        self._confirmed.clear()
        if unsaved or self._conditions.at_rest:
            unsaved += self._conditions.unsaved_statements()
        urgent, self._is_urgent = self._is_urgent, False
        try:
            await self._database.try_again()
            await self._database.write(*unsaved)
        except LedgerUnusable:
            self._unsaved = unsaved + self._unsaved
            self._is_urgent |= urgent
            raise
