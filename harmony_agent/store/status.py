"""The book: what is known of every Score on this device, and of the device as a whole.

Everything that `actual-state` says is composed here. A Score's page is stored when its Outcome changes;
progress, attempts and retry times are told, more rarely, but never written to disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Self

import attrs

from harmony_agent.clock import timestamp
from harmony_core.errors import LedgerUnusable, ManifestRejected, OwnershipConflict
from harmony_core.outcome import Failure, Noop, Outcome, Running
from harmony_core.plugins import Registry
from harmony_core.resources import State
from harmony_core.wire.actual_state import (
    ActualState,
    CapabilityState,
    Drift,
    ScoreStatus,
    score_from_json,
)
from harmony_core.wire.manifest import Manifest, SerializedScore

from .conditions import Conditions, DeviceProblems
from .database import Database, Statement
from .score_status import Seen, has_converged, is_same, is_worth_a_write, since

__all__ = ["AT_ONCE_S", "Identity", "StatusStore"]


@attrs.frozen(kw_only=True)
class Identity:
    """Who speaks."""

    agent_id: str
    agent_version: str
    boot_id: str


_SAVE = "INSERT OR REPLACE INTO score (id, state, changed, generation) VALUES (?, ?, ?, ?)"
_CONFIRM = "UPDATE score SET generation = ? WHERE id IN (SELECT value FROM json_each(?))"

log = logging.getLogger(__name__)

AT_ONCE_S = 0.0
PROGRESS_S = 1.0
COUNTERS_S = 300.0


class StatusStore:
    """What is known. `turned` is set whenever there is something new to tell, and `gap_s` says how long
    after the last report it may wait: infinitely while there is nothing."""

    def __init__(self, identity: Identity, registry: Registry, database: Database) -> None:
        self.identity = identity
        self.dirty = asyncio.Event()
        self.gap_s = math.inf
        self.generation = 0
        self._problems = DeviceProblems()
        self._registry = registry
        self._database = database
        self._scores: dict[str, ScoreStatus] = {}
        self._seen: dict[str, Seen] = {}
        self._changed: dict[str, str] = {}
        self._wanted: frozenset[str] = frozenset()
        self._accepted: Manifest | None = None
        self._looked_at: set[str] = set()
        """The Scores that were looked at since this process began."""
        self._last_looks: dict[str, str] = {}
        """When each Score was looked at last, since this process began."""
        self._stood: dict[str, SerializedScore] = {}
        """What was found as desired since this process began, by id."""
        self._conditions = Conditions()
        self._has_drifted = False
        self._saving = asyncio.Lock()
        self._unsaved: list[Statement] = []
        self._confirmed: dict[str, int] = {}
        """The generation of pages of which nothing else is not stored."""

    @classmethod
    async def load(cls, identity: Identity, registry: Registry, database: Database) -> Self:
        """Read what the last run left."""
        statuses = cls(identity, registry, database)
        statuses._conditions = await Conditions.load(database)
        for score, text, changed, generation in await database.read(
            "SELECT id, state, changed, generation FROM score"
        ):
            try:
                statuses._scores[score] = score_from_json(json.loads(text)).under(generation)
            except (ValueError, TypeError, AttributeError) as error:
                log.warning(
                    "what was told of %s cannot be read, and is told anew: %s", score, error
                )
                continue
            if changed:
                statuses._changed[score] = ""
        return statuses

    def accept(self, manifest: Manifest) -> None:
        """*manifest* is in force. What it says of each Score is told once that was interpreted."""
        if manifest is self._accepted:
            return
        self._accepted = manifest
        self.generation = manifest.generation
        self._wanted = frozenset(entry.id for entry in manifest.scores)
        self._looked_at &= self._wanted
        self._stood = {name: entry for name, entry in self._stood.items() if name in self._wanted}
        self._problems = attrs.evolve(self._problems, rejected="")
        # What was changed for an older generation does not make this one's NOOP a SUCCESS.
        self._changed = {
            name: told
            for name, told in self._changed.items()
            if name in self._scores and self._is_current(self._scores[name])
        }
        # Also when it says nothing of any Score: that it was taken in is news.
        self.mark_dirty(AT_ONCE_S)

    @property
    def observed_generation(self) -> int:
        """The newest generation under which every Score was interpreted; 0 while one never was."""
        if self._wanted - self._scores.keys():
            return 0
        return min(
            (status.observed_generation for status in self._scores.values()),
            default=self.generation,
        )

    @property
    def known(self) -> frozenset[str]:
        """The ids of all Scores with a page."""
        return frozenset(self._scores)

    def has_converged_in_generation(self, score: str) -> bool:
        """Whether *score* was found as desired since the newest manifest, whoever looked."""
        status = self._scores.get(score)
        return status is not None and self._is_current(status) and has_converged(status.outcome)

    def has_converged_in_generation_and_run(self, score: str) -> bool:
        """Whether *score* was found as desired since the newest manifest, and since this process began."""
        return score in self._stood and self.has_converged_in_generation(score)

    def has_converged_in_run(self, entry: SerializedScore) -> bool:
        """Whether this very *entry* was found as desired at some time since this process began."""
        return self._stood.get(entry.id) is entry

    def find_refused(self, resource_ids: Collection[str]) -> list[str]:
        """The Scores that cannot have one of these resources because it was another's."""
        return [
            score
            for score, status in self._scores.items()
            if isinstance(status.outcome, Failure)
            and status.outcome.error.code == OwnershipConflict.code
            and status.outcome.error.resource in resource_ids
        ]

    def get_change(self, score: str) -> str | None:
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
        otherwise: Collection[str] = (),
    ) -> None:
        """Enter what *entry* came to under *generation*. ``states`` None keeps what was last seen.

        ``otherwise`` are the resources that are not as desired, and left so.
        """
        before = self._scores.get(entry.id)
        if states is not None:
            self.note_look([entry.id])
        seen = self._to_seen(entry.id, states)
        total = len(seen.resources.keys() | otherwise)
        is_told = otherwise or has_converged(outcome)
        ready = total - len(otherwise) if is_told else seen.ready
        same = before is not None and is_same(before, entry, outcome, attempts, seen, ready)
        if before is not None and same:
            status = before.under(generation)
        else:
            status = ScoreStatus(
                kind=entry.kind,
                version=entry.version,
                observed_generation=generation,
                since=since(before, outcome),
                outcome=outcome,
                attempts=attempts,
                drift_count=before.drift_count if before else 0,
                last_drift=before.last_drift if before else None,
                resources=seen.resources,
                resources_total=total,
                resources_ready=ready,
            )
        if has_converged(outcome):
            self._stood[entry.id] = entry
        if entry.id not in self._looked_at:
            self._looked_at.add(entry.id)
            self.mark_dirty(AT_ONCE_S)
        if status is before:
            return
        self._scores[entry.id] = status
        if same:
            self._confirmed[entry.id] = generation
            self.mark_dirty(AT_ONCE_S)
        elif before is None or is_worth_a_write(before, status):
            self._log(entry.id, outcome)
            self._store(entry.id)
            self.mark_dirty(AT_ONCE_S)
        else:
            is_seen = isinstance(outcome, Running) or before.resources != status.resources
            self.mark_dirty(PROGRESS_S if is_seen else COUNTERS_S)

    def _log(self, score: str, outcome: Outcome) -> None:
        """What an operator on the device would look for; changes are logged as they are made."""
        if isinstance(outcome, Failure):
            log.warning("%s: %s: %s", score, outcome.error.code, outcome.error.message)

    def confirm(self, score: str, generation: int) -> bool:
        """*score* was found under *generation* exactly as it is told. False if it is not told as in order."""
        status = self._scores.get(score)
        if status is None or not isinstance(status.outcome, Noop) or score in self._changed:
            return False
        self.note_look([score])
        if status.observed_generation != generation:
            self._scores[score] = status.under(generation)
            self._confirmed[score] = generation
            self.mark_dirty(AT_ONCE_S)
        return True

    def note_look(self, scores: Iterable[str]) -> None:
        """The device was looked at just now for *scores*. That alone is nothing to tell."""
        self._last_looks.update(dict.fromkeys(scores, timestamp()))

    def _store(self, score: str) -> None:
        status = self._scores[score]
        self._confirmed.pop(score, None)  # of what is overwritten
        changed = int(score in self._changed)
        self._unsaved.append((_SAVE, (score, status.text, changed, status.observed_generation)))

    def _to_seen(self, score: str, states: Mapping[str, State] | None) -> Seen:
        """*states* in their form for the wire: as before, as long as they are what they were."""
        seen = self._seen.get(score)
        if seen is None:
            status = self._scores.get(score)
            seen = Seen.of_resources(status.resources if status else {})
        if states is not None and seen.states != states:
            seen = Seen.of(states)
        self._seen[score] = seen
        return seen

    def enter_removing(self, score: str, message: str) -> None:
        """*score* is no longer wanted, and what it made is being taken away."""
        outcome = Running(reason="Removing", message=message)
        before = self._scores.get(score) or ScoreStatus(
            kind="", version=1, observed_generation=0, since=timestamp(), outcome=outcome
        )
        self._scores[score] = attrs.evolve(
            before,
            outcome=outcome,
            since=since(before, outcome),
            observed_generation=self.generation,
        )
        if before.observed_generation != self.generation:
            self._confirmed[score] = self.generation  # whoever is killed now tells of no older one
        self.mark_dirty(PROGRESS_S)

    def enter_retained(self, score: str, outcome: Running) -> None:
        """*score* is no longer wanted, but what it made is not taken away yet."""
        self.enter_removing(score, outcome.message)
        self._scores[score] = attrs.evolve(self._scores[score], outcome=outcome)

    def enter_removal_failure(self, score: str, outcome: Failure) -> None:
        """*score* is no longer wanted, and taking away what it made has failed as nobody expected."""
        before = self._scores.get(score)
        self.enter_removing(score, outcome.message)
        status = self._scores[score]
        self._scores[score] = attrs.evolve(
            status, outcome=outcome, since=since(before, outcome), attempts=status.attempts + 1
        )
        self._log(score, outcome)

    def enter_awaiting_look(self, score: str, outcome: Running) -> None:
        """What is said of *score* is old: *outcome* stands there until it was looked at. Never stored."""
        before = self._scores.get(score)
        if before is None or isinstance(before.outcome, Running):
            return
        self._scores[score] = attrs.evolve(before, outcome=outcome, since=since(before, outcome))
        self.mark_dirty(PROGRESS_S)

    def record_drift(self, score: str, drift: Drift) -> None:
        """Something of *score* was not as it had been left."""
        status = self._scores[score]
        status = attrs.evolve(status, drift_count=status.drift_count + 1, last_drift=drift)
        self._scores[score] = status
        self._store(score)
        self._has_drifted = True
        self.mark_dirty(AT_ONCE_S)

    @property
    def is_saved_first(self) -> bool:
        """Whether something was changed on the device that must be durable before anybody is told."""
        return self._has_drifted or self._database.has_more

    def set_drifted(self, score: str, resource: str | None) -> bool:
        """*resource* of *score* has drifted and is left so (None: no more). Whether that is news."""
        otherwise = dict(self._problems.otherwise)
        if otherwise.pop(score, None) == resource:
            return False
        if resource is not None:
            otherwise[score] = resource
        self._notice(attrs.evolve(self._problems, otherwise=otherwise))
        return True

    def set_repeat_offenders(self, repeat_offenders: Mapping[str, int]) -> None:
        """The Scores that somebody keeps changing, and how often each was put right in a row."""
        self._notice(attrs.evolve(self._problems, repeat_offenders=repeat_offenders))

    def set_pending_removals(self, count: int) -> None:
        """As many resources are not removed without leave; 0: nothing waits."""
        self._notice(attrs.evolve(self._problems, removals_held=count))

    def remove(self, score: str) -> None:
        """*score* is gone, with everything it made."""
        self._seen.pop(score, None)
        self._last_looks.pop(score, None)
        if self._scores.pop(score, None) is not None:
            self._confirmed.pop(score, None)
            self._unsaved.append(("DELETE FROM score WHERE id = ?", (score,)))
            self.mark_dirty(AT_ONCE_S)

    def save_with(self, statements: list[Statement]) -> None:
        """Store *statements* together with the pages that are not stored yet."""
        self._unsaved += statements

    async def save(self) -> None:
        """Make what was entered durable: one transaction, none when there is nothing new."""
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
        drifted, self._has_drifted = self._has_drifted, False
        try:
            await self._database.try_again()
            await self._database.write(*unsaved)
        except LedgerUnusable:
            self._unsaved = unsaved + self._unsaved
            self._has_drifted |= drifted
            raise

    def set_rejected(self, error: ManifestRejected | None) -> None:
        """What is in the bucket cannot be trusted or read; the last good manifest stays in force. None
        when nothing wrong stands there any more."""
        self._notice(attrs.evolve(self._problems, rejected=_words_of(error)))

    @property
    def has_rejected(self) -> bool:
        """Whether what was last fetched is refused."""
        return bool(self._problems.rejected)

    def set_unwritable(self, error: LedgerUnusable | None) -> bool:
        """Nothing can be made durable now, and so nothing new be begun. None when it can again.

        Whether that is news.
        """
        before = self._problems.unwritten
        self._notice(attrs.evolve(self._problems, unwritten=error.message if error else ""))
        return before != self._problems.unwritten

    def set_internal_error(self, part: str, why: str) -> None:
        """A *part* of the agent has raised what nobody expected, and goes on; empty: no more."""
        internal = {**self._problems.internal, part: why}
        self._notice(
            attrs.evolve(
                self._problems, internal={name: words for name, words in internal.items() if words}
            )
        )

    def set_ledger_lost(self, kept: Path) -> None:
        """What was known of the device could not be read, and is kept at *kept*."""
        why = (
            f"what had been noted of this device was damaged, and is kept as {kept}: what was made before is "
            "not known to be Harmony's, and is left where no Score wants it; once seen to, delete that file"
        )
        self._notice(attrs.evolve(self._problems, lost=why))

    def set_floor_problem(self, *, lost: str, unkept: str) -> None:
        """Why it is doubtful what was accepted here last, why it cannot be written down; empty: not so."""
        self._notice(attrs.evolve(self._problems, floor_lost=lost, floor_unkept=unkept))

    def set_missed(self, why: str) -> None:
        """The files in which all is noted are gone, and cannot be written anew; "" when all is well."""
        self._notice(attrs.evolve(self._problems, missed=why))

    def set_rewritten(self, path: Path) -> None:
        """What was noted of the device was deleted at *path*, and is written anew, from memory."""
        why = (
            f"{path} was deleted while the agent ran: it is written anew, and nothing that was noted is "
            "lost; what stood on the device before Harmony, and was kept beside that file, may be. Find out "
            "by whom; `systemctl restart harmony-agent` ends this message"
        )
        self._notice(attrs.evolve(self._problems, lost=why))

    def set_stale(self, stale: bool) -> None:
        """Whether the manifest in force is past its own end. It stays in force."""
        self._notice(attrs.evolve(self._problems, stale=stale))

    def set_capabilities(self, capabilities: Mapping[str, CapabilityState]) -> None:
        """What the device offers, and whether it answers now."""
        self._notice(attrs.evolve(self._problems, capabilities=capabilities))

    def _notice(self, problems: DeviceProblems) -> None:
        if problems != self._problems:
            self._problems = problems
            self.mark_dirty(AT_ONCE_S)

    def mark_dirty(self, gap_s: float) -> None:
        """There is something new, worth a report *gap_s* after the last one."""
        self.gap_s = min(self.gap_s, gap_s)
        self.dirty.set()

    def status_of(self, score: str) -> ScoreStatus | None:
        """What is known of *score*; None before it was ever looked at."""
        status = self._scores.get(score)
        return None if status is None else status.as_of(self._last_looks.get(score))

    def compose(self) -> ActualState:
        """Everything, as it is told."""
        self.gap_s = math.inf
        return ActualState(
            agent_id=self.identity.agent_id,
            agent_version=self.identity.agent_version,
            boot_id=self.identity.boot_id,
            generation=self.generation,
            observed_generation=self.observed_generation,
            removals_held=self._problems.removals_held,
            capabilities=self._problems.capabilities,
            kinds=self._registry.kinds,
            kind_errors=self._registry.errors,
            scores={
                score: status.as_of(self._last_looks.get(score))
                for score, status in sorted(self._scores.items())
            },
            conditions=self._conditions.of(
                self._scores,
                unseen=self._wanted - self._looked_at,
                generation=self.generation,
                problems=self._problems,
            ),
        )

    def _is_current(self, status: ScoreStatus) -> bool:
        return status.observed_generation == self.generation

    def in_words(self) -> str:
        """One line for `systemctl status`."""
        failed = sum(isinstance(status.outcome, Failure) for status in self._scores.values())
        count = len(self._scores)
        scores = f"{count} Score{'s' * (count != 1)}"
        return f"generation {self.generation}, {scores}, {failed} failed"


def _words_of(error: ManifestRejected | None) -> str:
    return f"{error.code}: {error.message}" if error is not None else ""
