"""Revisions of a Score: the last known good one, the one that failed, and how long a new one has been tried.

The last known good revision (``good`` in the database) is the newest entry that has converged; the failed
one (``bad``) is what was rolled back from, by the hash of its specification; ``trial`` is how much of its
time a new one has used; ``after`` is whom the Score waits for. All survive a restart, so that a device
without a network returns to what worked, does not try again what did not, and tries nothing for ever.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self

import attrs

from harmony_core.wire.manifest import SerializedScore, spec_hash

from .database import Database, Statement

__all__ = ["FailedRevision", "Revisions", "TrialTime"]

# Each writes what has changed, and only that: they wait in different places, and may overtake each other.
_CONVERGED = (
    "INSERT OR REPLACE INTO lineage (score, after, good, bad, trial) VALUES (?, ?, ?, NULL, NULL)"
)
_AFTER = (
    "INSERT INTO lineage (score, after) VALUES (?, ?) "
    "ON CONFLICT (score) DO UPDATE SET after = excluded.after"
)
_TRIAL = (
    "INSERT INTO lineage (score, after, trial) VALUES (?, '[]', ?) "
    "ON CONFLICT (score) DO UPDATE SET trial = excluded.trial"
)
_BAD = "UPDATE lineage SET bad = ?, trial = NULL WHERE score = ?"


@attrs.frozen(kw_only=True)
class FailedRevision:
    """What a Score was rolled back from."""

    spec_hash: str
    why: str


@attrs.frozen(kw_only=True)
class TrialTime:
    """What has been tried, and for how long; counted coarsely, and rather too long."""

    spec_hash: str
    spent_s: float


@attrs.frozen(kw_only=True)
class _Line:
    after: tuple[str, ...] = ()
    last_known_good: SerializedScore | None = None
    failed_revision: FailedRevision | None = None
    trial: TrialTime | None = None


_NO_LINE = _Line()


class Revisions:
    """Read once at start; what changes is written with the next Outcome, or where it says so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lines: dict[str, _Line] = {}

    @classmethod
    async def load(cls, database: Database) -> Self:
        revisions = cls(database)
        for score, after, good, bad, trial in await database.read(
            "SELECT score, after, good, bad, trial FROM lineage"
        ):
            revisions._lines[score] = _Line(
                after=tuple(json.loads(after)),
                last_known_good=SerializedScore.model_validate_json(good) if good else None,
                failed_revision=FailedRevision(**json.loads(bad)) if bad else None,
                trial=TrialTime(**json.loads(trial)) if trial else None,
            )
        return revisions

    @property
    def known(self) -> frozenset[str]:
        """The ids of all Scores of which something is remembered."""
        return frozenset(self._lines)

    def after(self, score: str) -> Sequence[str]:
        """Return the Scores for which *score* waits; it is removed before they are."""
        return self._line(score).after

    def last_known_good(self, score: str) -> SerializedScore | None:
        """Return the newest entry of *score* that has converged."""
        return self._line(score).last_known_good

    def failed_revision(self, score: str) -> FailedRevision | None:
        """Return what *score* was rolled back from."""
        return self._line(score).failed_revision

    def trial(self, entry: SerializedScore) -> float | None:
        """Return for how many seconds *entry* has been tried; None when it never was."""
        trial = self._line(entry.id).trial
        return trial.spent_s if trial and trial.spec_hash == spec_hash(entry) else None

    def mark_converged(self, entry: SerializedScore) -> list[Statement]:
        """Mark *entry* as good. Return the statements to write, if that is news."""
        line = self._line(entry.id)
        is_plain = line.failed_revision is None and line.trial is None
        if line.last_known_good is entry and is_plain:
            return []
        if (
            line.last_known_good is not None
            and line.last_known_good.__dict__ == entry.__dict__
            and is_plain
        ):
            self._lines[entry.id] = attrs.evolve(line, last_known_good=entry)
            return []
        self._lines[entry.id] = _Line(after=entry.after, last_known_good=entry)
        return [(_CONVERGED, (entry.id, json.dumps(entry.after), entry.model_dump_json()))]

    def record_after(self, entry: SerializedScore) -> list[Statement]:
        """Return the statements that record which Scores *entry* waits for, before it makes anything."""
        line = self._line(entry.id)
        if line.after == entry.after:
            return []
        self._lines[entry.id] = attrs.evolve(line, after=entry.after)
        return [(_AFTER, (entry.id, json.dumps(entry.after)))]

    def record_trial(self, entry: SerializedScore, spent_s: float) -> None:
        """Record that *entry* has been tried for *spent_s* seconds. This is written with whatever is written
        next."""
        trial = TrialTime(spec_hash=spec_hash(entry), spent_s=spent_s)
        self._lines[entry.id] = attrs.evolve(self._line(entry.id), trial=trial)
        self._database.along((_TRIAL, (entry.id, json.dumps(attrs.asdict(trial)))))

    def roll_back(self, entry: SerializedScore, why: str) -> list[Statement]:
        """Mark *entry* as failed. Return the statements to write before the last good revision is made
        effective."""
        bad = FailedRevision(spec_hash=spec_hash(entry), why=why)
        self._lines[entry.id] = attrs.evolve(self._line(entry.id), failed_revision=bad, trial=None)
        return [(_BAD, (json.dumps(attrs.asdict(bad)), entry.id))]

    def forget(self, score: str) -> list[Statement]:
        """Forget *score*, which is gone. Return the statements to write."""
        if self._lines.pop(score, None) is None:
            return []
        return [("DELETE FROM lineage WHERE score = ?", (score,))]

    def _line(self, score: str) -> _Line:
        return self._lines.get(score, _NO_LINE)
