"""Lineage: what is remembered of a Score beside its page: whom it waits for, and what was good before.

``good`` is the newest entry that has converged; ``bad`` is what was rolled back from, by the hash of what it
wanted. Both survive a restart, so that a device without a network returns to what worked, and does not
try again what did not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

import attrs

from harmony_core.manifest import SerializedScore, spec_hash

from .database import Database, Statement

__all__ = ["Bad", "Lineage"]


@attrs.frozen(kw_only=True)
class Bad:
    """What a Score was rolled back from."""

    spec_hash: str
    why: str


@attrs.frozen(kw_only=True)
class _Line:
    after: tuple[str, ...] = ()
    good: SerializedScore | None = None
    bad: Bad | None = None


class Lineage:
    """Read once at start; what changes is written with the next Outcome."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    @classmethod
    async def load(cls, database: Database) -> Self:
        lineage = cls()
        for score, after, good, bad in await database.read(
            "SELECT score, after, good, bad FROM lineage"
        ):
            lineage._lines[score] = _Line(
                after=tuple(json.loads(after)),
                good=SerializedScore.model_validate_json(good) if good else None,
                bad=Bad(**json.loads(bad)) if bad else None,
            )
        return lineage

    def after(self, score: str) -> Sequence[str]:
        """Whom *score* waits for; it is taken away before they are."""
        return self._line(score).after

    def good(self, score: str) -> SerializedScore | None:
        """The newest entry of *score* that has converged."""
        return self._line(score).good

    def bad(self, score: str) -> Bad | None:
        """What *score* was rolled back from."""
        return self._line(score).bad

    def converged(self, entry: SerializedScore) -> list[Statement]:
        """*entry* is good: what to write, if that is news."""
        line = self._line(entry.id)
        if line.good is entry and line.bad is None:
            return []
        if line.good is not None and line.good.__dict__ == entry.__dict__ and line.bad is None:
            self._lines[entry.id] = attrs.evolve(line, good=entry)
            return []
        return self._write(entry.id, _Line(after=entry.after, good=entry))

    def planned(self, entry: SerializedScore) -> list[Statement]:
        """*entry* is about to be tried: write whom it waits for before it makes anything."""
        line = self._line(entry.id)
        if line.after == entry.after:
            return []
        return self._write(entry.id, attrs.evolve(line, after=entry.after))

    def roll_back(self, entry: SerializedScore, why: str) -> list[Statement]:
        """*entry* is bad."""
        bad = Bad(spec_hash=spec_hash(entry), why=why)
        return self._write(entry.id, attrs.evolve(self._line(entry.id), bad=bad))

    def forget(self, score: str) -> list[Statement]:
        """*score* is gone."""
        if self._lines.pop(score, None) is None:
            return []
        return [("DELETE FROM lineage WHERE score = ?", (score,))]

    def _line(self, score: str) -> _Line:
        return self._lines.get(score, _Line())

    def _write(self, score: str, line: _Line) -> list[Statement]:
        self._lines[score] = line
        values: tuple[Any, ...] = (
            score,
            json.dumps(line.after),
            line.good.model_dump_json() if line.good else None,
            json.dumps(attrs.asdict(line.bad)) if line.bad else None,
        )
        return [("INSERT OR REPLACE INTO lineage VALUES (?, ?, ?, ?)", values)]
