"""The book: what is known of every Score on this device, and of the device as a whole.

Everything that `actual-state` says is composed here. A Score's page is stored when its Outcome changes;
progress, attempts and retry times are told, more rarely, but never written to disk.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

import attrs

from harmony_core.actual_state import (
    ActualState,
    CapabilityState,
    Condition,
    ConditionType,
    Drift,
    ScoreState,
    score_from_json,
    state_to_json,
)
from harmony_core.errors import LedgerUnusable, ManifestRejected, OwnershipConflict
from harmony_core.manifest import Manifest, SerializedScore
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.plugins import Registry
from harmony_core.resources import State
from harmony_core.times import rfc3339

from .database import Database, Statement

__all__ = ["AT_ONCE_S", "Book", "Identity", "is_ready"]


@attrs.frozen(kw_only=True)
class Identity:
    """Who speaks."""

    agent_id: str
    agent_version: str
    boot_id: str


_APPROVE = "see them and allow it with `harmony approve`"
_SAVE = "INSERT OR REPLACE INTO score VALUES (?, ?, ?, ?)"
_CONFIRM = "UPDATE score SET generation = ? WHERE id IN (SELECT value FROM json_each(?))"

AT_ONCE_S = 0.0
PROGRESS_S = 1.0
COUNTERS_S = 300.0


@attrs.frozen
class _Seen:
    """What was last seen of a Score's resources."""

    states: Mapping[str, State] | None
    """None: what the last run left."""
    resources: Mapping[str, Mapping[str, Any]]
    ready: int

    @classmethod
    def of(cls, states: Mapping[str, State]) -> Self:
        resources = {resource: state_to_json(state) for resource, state in states.items()}
        return cls(states, resources, sum(map(is_ready, resources.values())))

    @classmethod
    def of_page(cls, resources: Mapping[str, Mapping[str, Any]]) -> Self:
        return cls(None, resources, sum(map(is_ready, resources.values())))


class Book:
    """What is known. `turned` is set whenever there is something new to tell, and `gap_s` says how long
    after the last report it may wait: infinitely while there is nothing."""

    def __init__(self, identity: Identity, registry: Registry, database: Database) -> None:
        self.identity = identity
        self.turned = asyncio.Event()
        self.gap_s = math.inf
        self.generation = 0
        self.capabilities: Mapping[str, CapabilityState] = {}
        self.rejected: ManifestRejected | None = None
        self.stale = False
        self.removals_held = 0
        """How many resources wait for leave to be removed."""
        self._fights: Mapping[str, int] = {}
        self._otherwise: dict[str, str] = {}
        """What has drifted and is left so, by Score."""
        self._registry = registry
        self._database = database
        self._scores: dict[str, ScoreState] = {}
        self._seen: dict[str, _Seen] = {}
        self._changed: dict[str, str] = {}
        self._wanted: frozenset[str] = frozenset()
        self._conditions: dict[ConditionType, Condition] = {}
        self._unsaved: list[Statement] = []
        self._confirmed: dict[str, int] = {}
        """The generation of pages of which nothing else is not stored."""

    @classmethod
    async def load(cls, identity: Identity, registry: Registry, database: Database) -> Self:
        """Read what the last run left."""
        book = cls(identity, registry, database)
        for score, text, changed, generation in await database.read("SELECT * FROM score"):
            book._scores[score] = score_from_json(json.loads(text)).under(generation)
            if changed:
                book._changed[score] = ""
        return book

    def accept(self, manifest: Manifest) -> None:
        """*manifest* is in force. What it says of each Score is told once that was interpreted."""
        self.generation = manifest.generation
        self._wanted = frozenset(entry.id for entry in manifest.scores)
        self.rejected = None
        # What was changed for an older generation does not make this one's NOOP a SUCCESS.
        self._changed = {
            name: told
            for name, told in self._changed.items()
            if name in self._scores and self._is_current(self._scores[name])
        }
        # Also when it says nothing of any Score: that it was taken in is news.
        self.turn(AT_ONCE_S)

    @property
    def observed_generation(self) -> int:
        """The newest generation under which every Score was interpreted; 0 while one never was."""
        if self._wanted - self._scores.keys():
            return 0
        return min(
            (page.observed_generation for page in self._scores.values()), default=self.generation
        )

    @property
    def known(self) -> frozenset[str]:
        """The ids of all Scores with a page."""
        return frozenset(self._scores)

    def converged(self, score: str) -> bool:
        """Whether *score* was found as desired since the newest manifest."""
        page = self._scores.get(score)
        return (
            page is not None and self._is_current(page) and isinstance(page.outcome, Success | Noop)
        )

    def refused(self, resource_ids: Collection[str]) -> list[str]:
        """The Scores that cannot have one of these resources because it was another's."""
        return [
            score
            for score, page in self._scores.items()
            if isinstance(page.outcome, Failure)
            and page.outcome.error.code == OwnershipConflict.code
            and page.outcome.error.resource in resource_ids
        ]

    def changed(self, score: str) -> str | None:
        """What was changed for *score* since the newest manifest, in a line; None for nothing."""
        return self._changed.get(score)

    def mark_changed(self, score: str, told: str) -> None:
        """Something was changed for *score*; *told* says what, in a line."""
        self._changed[score] = told or self._changed.get(score, "")

    def enter(
        self,
        entry: SerializedScore,
        outcome: Outcome,
        *,
        generation: int,
        attempts: int,
        states: Mapping[str, State] | None,
    ) -> None:
        """Enter what *entry* came to under *generation*. ``states`` None keeps what was last seen."""
        before = self._scores.get(entry.id)
        seen = self._seen_of(entry.id, states)
        is_same = before is not None and _is_same(before, entry, outcome, attempts, seen)
        if before is not None and is_same:
            page = before.under(generation)
        else:
            page = ScoreState(
                kind=entry.kind,
                version=entry.version,
                observed_generation=generation,
                since=_since(before, outcome),
                outcome=outcome,
                attempts=attempts,
                drift_count=before.drift_count if before else 0,
                last_drift=before.last_drift if before else None,
                resources=seen.resources,
                resources_total=len(seen.resources),
                resources_ready=seen.ready,
            )
        if page is before:
            return
        self._scores[entry.id] = page
        if is_same:
            self._confirmed[entry.id] = generation
            self.turn(AT_ONCE_S)
        elif before is None or _is_worth_a_write(before, page):
            self._store(entry.id)
            self.turn(AT_ONCE_S)
        else:
            self.turn(PROGRESS_S if isinstance(outcome, Running) else COUNTERS_S)

    def confirm(self, score: str, generation: int) -> bool:
        """*score* was found under *generation* exactly as it is told. False if it is not told as in order."""
        page = self._scores.get(score)
        if page is None or not isinstance(page.outcome, Noop) or score in self._changed:
            return False
        if page.observed_generation != generation:
            self._scores[score] = page.under(generation)
            self._confirmed[score] = generation
            self.turn(AT_ONCE_S)
        return True

    def _store(self, score: str) -> None:
        page = self._scores[score]
        self._confirmed.pop(score, None)  # of what is overwritten
        changed = int(score in self._changed)
        self._unsaved.append((_SAVE, (score, page.text, changed, page.observed_generation)))

    def _seen_of(self, score: str, states: Mapping[str, State] | None) -> _Seen:
        """*states* in their form for the wire: as before, as long as they are what they were."""
        seen = self._seen.get(score)
        if seen is None:
            page = self._scores.get(score)
            seen = _Seen.of_page(page.resources if page else {})
        if states is not None and seen.states != states:
            seen = _Seen.of(states)
        self._seen[score] = seen
        return seen

    def removing(self, score: str, message: str) -> None:
        """*score* is no longer wanted, and what it made is being taken away."""
        outcome = Running(reason="Removing", message=message)
        before = self._scores.get(score) or ScoreState(
            kind="", version=1, observed_generation=0, since=_now(), outcome=outcome
        )
        self._scores[score] = attrs.evolve(
            before,
            outcome=outcome,
            since=_since(before, outcome),
            observed_generation=self.generation,
        )
        self.turn(PROGRESS_S)

    def retain(self, score: str, outcome: Running) -> None:
        """*score* is no longer wanted, but what it made is not taken away yet."""
        self.removing(score, outcome.message)
        self._scores[score] = attrs.evolve(self._scores[score], outcome=outcome)

    def drifted(self, score: str, drift: Drift) -> None:
        """Something of *score* was not as it had been left."""
        page = self._scores[score]
        page = attrs.evolve(page, drift_count=page.drift_count + 1, last_drift=drift)
        self._scores[score] = page
        self._store(score)
        self.turn(AT_ONCE_S)

    def stands_otherwise(self, score: str, resource: str | None) -> bool:
        """*resource* of *score* has drifted and is left so (None: no more). Whether that is news."""
        if self._otherwise.get(score) == resource:
            return False
        if resource is None:
            del self._otherwise[score]
        else:
            self._otherwise[score] = resource
        self.turn(AT_ONCE_S)
        return True

    def fought(self, fights: Mapping[str, int]) -> None:
        """The Scores that somebody keeps changing, and how often each was put right in a row."""
        if fights != self._fights:
            self._fights = fights
            self.turn(AT_ONCE_S)

    def hold_removals(self, count: int) -> None:
        """As many resources are not removed without leave; 0: nothing waits."""
        if count != self.removals_held:
            self.removals_held = count
            self.turn(AT_ONCE_S)

    def remove(self, score: str) -> None:
        """*score* is gone, with everything it made."""
        self._seen.pop(score, None)
        if self._scores.pop(score, None) is not None:
            self._confirmed.pop(score, None)
            self._unsaved.append(("DELETE FROM score WHERE id = ?", (score,)))
            self.turn(AT_ONCE_S)

    def save_with(self, statements: list[Statement]) -> None:
        """Store *statements* together with the pages that are not stored yet."""
        self._unsaved += statements

    async def save(self) -> None:
        """Make what was entered durable: one transaction, none when there is nothing new."""
        unsaved, self._unsaved = self._unsaved, []
        for generation in sorted(set(self._confirmed.values())):
            ids = [score for score, under in self._confirmed.items() if under == generation]
            unsaved.append((_CONFIRM, (generation, json.dumps(ids))))
        self._confirmed.clear()
        try:
            await self._database.write(*unsaved)
        except LedgerUnusable:
            self._unsaved = unsaved + self._unsaved
            raise

    def reject(self, error: ManifestRejected | None) -> None:
        """What is in the bucket cannot be trusted or read; the last good manifest stays in force. None
        when nothing wrong stands there any more."""
        if _words_of(self.rejected) != _words_of(error):
            self.rejected = error
            self.turn(AT_ONCE_S)

    def expire(self, stale: bool) -> None:
        """Whether the manifest in force is past its own end. It stays in force."""
        if stale != self.stale:
            self.stale = stale
            self.turn(AT_ONCE_S)

    def offer(self, capabilities: Mapping[str, CapabilityState]) -> None:
        """What the device offers, and whether it answers now."""
        if capabilities != self.capabilities:
            self.capabilities = capabilities
            self.turn(AT_ONCE_S)

    def turn(self, gap_s: float) -> None:
        """There is something new, worth a report *gap_s* after the last one."""
        self.gap_s = min(self.gap_s, gap_s)
        self.turned.set()

    def page(self, score: str) -> ScoreState | None:
        """What is known of *score*; None before it was ever looked at."""
        return self._scores.get(score)

    def compose(self) -> ActualState:
        """Everything, as it is told."""
        self.gap_s = math.inf
        for condition in self._judged():
            self._note(condition)
        return ActualState(
            agent_id=self.identity.agent_id,
            agent_version=self.identity.agent_version,
            boot_id=self.identity.boot_id,
            generation=self.generation,
            observed_generation=self.observed_generation,
            capabilities=self.capabilities,
            kinds=self._registry.kinds,
            kind_errors=self._registry.errors,
            scores=dict(sorted(self._scores.items())),
            conditions=tuple(self._conditions.values()),
        )

    def _note(self, condition: Condition) -> None:
        before = self._conditions.get(condition.type)
        if before is not None and before.status == condition.status:
            condition = attrs.evolve(condition, last_transition_time=before.last_transition_time)
        self._conditions[condition.type] = condition

    def _judged(self) -> list[Condition]:
        pages = self._scores
        failed = sorted(i for i, page in pages.items() if isinstance(page.outcome, Failure))
        running = sorted(
            i
            for i in self._scores.keys() | self._wanted
            if i not in pages
            or isinstance(pages[i].outcome, Running)
            or not self._is_current(pages[i])
        )
        return [
            _ready(failed, running),
            self._degraded(failed),
            _condition("Reconciling", bool(running), "Progressing" if running else "Idle", running),
            _condition("Stale", self.stale, "Expired" if self.stale else "Current", []),
        ]

    def _is_current(self, page: ScoreState) -> bool:
        return page.observed_generation == self.generation

    def in_words(self) -> str:
        """One line for `systemctl status`."""
        failed = sum(isinstance(page.outcome, Failure) for page in self._scores.values())
        count = len(self._scores)
        scores = f"{count} Score{'s' * (count != 1)}"
        return f"generation {self.generation}, {scores}, {failed} failed"

    def _degraded(self, failed: list[str]) -> Condition:
        """The first that holds, the gravest first."""
        for reason, names, message in self._troubles(failed):
            if names or message:
                return _condition("Degraded", True, reason, names, message)
        return _condition("Degraded", False, "AllWell", [])

    def _troubles(self, failed: list[str]) -> Iterator[tuple[str, list[str], str]]:
        yield "ManifestRejected", [], _words_of(self.rejected) or ""
        held = f"{self.removals_held} resources would be removed at once; {_APPROVE}"
        yield "RemovalsHeld", [], held if self.removals_held else ""
        gone = sorted(n for n, c in self.capabilities.items() if c.offered and not c.available)
        yield "CapabilityUnavailable", gone, ""
        yield "ScoreFailed", failed, ""
        yield "DriftKeepsComing", [], self._of_fights()
        yield "Drifted", sorted(self._otherwise.values()), ""

    def _of_fights(self) -> str:
        """Who fights cannot be known; what about, and what it looked like, can."""
        told: list[str] = []
        for score, count in sorted(self._fights.items())[:3]:
            page = self._scores.get(score)
            drift = page.last_drift if page else None
            if drift is not None:
                told.append(
                    f"somebody has changed {drift.resource} of {score} {count} times in a row, "
                    f"last to: {drift.before}"
                )
        return "; ".join(told)


def _words_of(error: ManifestRejected | None) -> str | None:
    return f"{error.code}: {error.message}" if error is not None else None


def _since(before: ScoreState | None, outcome: Outcome) -> str:
    if before is not None and (before.outcome.status, before.outcome.reason) == (
        outcome.status,
        outcome.reason,
    ):
        return before.since
    return _now()


def _is_same(
    page: ScoreState, entry: SerializedScore, outcome: Outcome, attempts: int, seen: _Seen
) -> bool:
    """Whether nothing but the generation can tell *page* from what was found now."""
    return (
        page.outcome == outcome
        and page.attempts == attempts
        and page.resources == seen.resources
        and page.kind == entry.kind
        and page.version == entry.version
    )


def _is_worth_a_write(before: ScoreState, page: ScoreState) -> bool:
    if before.observed_generation != page.observed_generation:
        return True
    return _lasting(before) != _lasting(page)


def _lasting(page: ScoreState) -> ScoreState:
    """*page* without what is not worth a write to disk."""
    outcome = page.outcome
    match outcome:
        case Running():
            outcome = attrs.evolve(outcome, message="", progress=None)
        case Failure():
            outcome = attrs.evolve(outcome, error=attrs.evolve(outcome.error, retry_at=None))
        case Success() | Noop():
            pass
    return attrs.evolve(page, attempts=0, outcome=outcome)


_READY = frozenset({"PresentAt", "DirectoryAt", "Active", "Connected", "NotNeeded"})


def is_ready(state: Mapping[str, Any]) -> bool:
    """Whether a resource is as it should be for its Score to count as converged."""
    match state.get("state"):
        case "Running":
            return state.get("health") in {"healthy", "unprobed"}
        case "Finished":
            return state.get("result") == "success"
        case word:
            return word in _READY


def _ready(failed: list[str], running: list[str]) -> Condition:
    if failed:
        return _condition("Ready", False, "ScoreFailed", failed)
    if running:
        return _condition("Ready", False, "Progressing", running)
    return _condition("Ready", True, "AllConverged", [])


def _condition(
    kind: ConditionType, holds: bool, reason: str, names: list[str], message: str = ""
) -> Condition:
    return Condition(
        type=kind,
        status="True" if holds else "False",
        reason=reason,
        message=message or ", ".join(names[:10]) + (" …" if len(names) > 10 else ""),
        last_transition_time=_now(),
    )


def _now() -> str:
    return rfc3339(datetime.now(UTC))
