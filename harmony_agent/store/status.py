"""The status of every Score on this device, and of the device as a whole.

All that a report (`actual-state`) says is composed here. A Score's status is stored when its Outcome
changes; progress, attempts and retry times are reported, more rarely, and never written to disk.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Self

import attrs

from harmony_agent.clock import timestamp
from harmony_core.errors import OwnershipConflict
from harmony_core.outcome import Failure, Noop, Outcome, Running
from harmony_core.plugins import Registry
from harmony_core.resources import State
from harmony_core.wire.actual_state import (
    OWN_LAYER,
    ActualState,
    Drift,
    LayerStatus,
    ScoreStatus,
    score_from_json,
)
from harmony_core.wire.manifest import SerializedScore

from .conditions import Conditions
from .database import Database
from .device_health import DeviceHealth
from .in_force import InForce, LayerNote
from .report_counter import ReportCounter
from .report_due import AT_ONCE_S, COUNTERS_S, PROGRESS_S, ReportDue
from .score_status import Seen, has_converged, is_same, is_worth_a_write, since
from .status_writer import StatusWriter

__all__ = ["Identity", "StatusStore"]


@attrs.frozen(kw_only=True)
class Identity:
    """Who speaks."""

    agent_id: str
    agent_version: str
    boot_id: str
    policy: str
    """The preset of what is allowed here."""
    heartbeat_s: int
    """How long the next heartbeat may take, while nothing goes on."""


log = logging.getLogger(__name__)


class StatusStore:
    """Knows the status of every Score. What was entered is stored by `writer`, and told when it is `due`."""

    def __init__(
        self,
        identity: Identity,
        registry: Registry,
        writer: StatusWriter,
        conditions: Conditions,
        counter: ReportCounter,
    ) -> None:
        self.identity = identity
        self.due = ReportDue()
        self.device = DeviceHealth(self.due)
        self.generation = 0
        self._registry = registry
        self._scores: dict[str, ScoreStatus] = {}
        self._seen: dict[str, Seen] = {}
        self._changed: dict[str, str] = {}
        self._wanted: frozenset[str] = frozenset()
        self._in_force: InForce | None = None
        self.tell_layers: Callable[[], Mapping[str, LayerNote]] = dict
        """Called for what is to be told of each class that the device belongs to, by its layer's name."""
        self._applied: dict[str, tuple[int, str]] = {}
        """Of each layer that is in order: its generation, and since when that was seen."""
        self._looked_at: set[str] = set()
        """The Scores that were looked at since this process began."""
        self._last_looks: dict[str, str] = {}
        """When each Score was looked at last, since this process began."""
        self._converged: dict[str, SerializedScore] = {}
        """What was found as desired since this process began, by id."""
        self._conditions = conditions
        self.writer = writer
        self.counter = counter

    @classmethod
    async def load(cls, identity: Identity, registry: Registry, database: Database) -> Self:
        """Read what the last run left."""
        conditions = await Conditions.load(database)
        writer = StatusWriter(database, conditions)
        counter = await ReportCounter.load(database, writer.add)
        statuses = cls(identity, registry, writer, conditions, counter)
        for score, text, changed, generation in await database.read(
            "SELECT id, state, changed, generation FROM score"
        ):
            try:
                statuses._scores[score] = score_from_json(json.loads(text)).under(generation)
            except (ValueError, TypeError, AttributeError) as error:
                log.warning(
                    "what was told of %s cannot be read, and is told anew: %s", score, error
                )
                writer.forget(score)  # of one that is gone meanwhile, nobody would
                continue
            if changed:
                statuses._changed[score] = ""
        return statuses

    def accept(self, in_force: InForce) -> None:
        """Take *in_force* as effective from now on. Report what it says of each Score once that was
        interpreted."""
        if in_force is self._in_force:
            return
        self._in_force = in_force
        self.generation = in_force.generation
        self._wanted = frozenset(in_force.entries)
        self._looked_at &= self._wanted
        self._converged = {
            name: entry for name, entry in self._converged.items() if name in self._wanted
        }
        self.device.set_rejected(None)
        # What was changed for an older generation does not make this one's NOOP a SUCCESS.
        self._changed = {
            name: told
            for name, told in self._changed.items()
            if name in self._scores and self._is_current(name, self._scores[name])
        }
        # Also when it says nothing of any Score: that it was taken in is news.
        self.due.mark(AT_ONCE_S)

    @property
    def observed_generation(self) -> int:
        """The newest generation of the device's own manifest under which every Score of that was
        interpreted; 0 while one never was."""
        return self._observed_generation(OWN_LAYER)

    def _observed_generation(self, layer: str) -> int:
        """Return the same of the manifest of *layer*."""
        in_force = self._in_force
        if in_force is None:
            return min((each.observed_generation for each in self._scores.values()), default=0)
        wanted = {each for each in self._wanted if in_force.layer_of(each) == layer}
        if any(
            (status := self._scores.get(each)) is None or status.layer != layer for each in wanted
        ):
            return 0
        # What is not wanted any more is going by the device's own manifest, whosoever it was.
        going = self._scores.keys() - self._wanted if layer == OWN_LAYER else set[str]()
        return min(
            (self._scores[each].observed_generation for each in wanted | going),
            default=in_force.layer_generation(layer),
        )

    @property
    def known(self) -> frozenset[str]:
        """The ids of all Scores with a status."""
        return frozenset(self._scores)

    @property
    def is_under_way(self) -> bool:
        """Whether the device is at work on a Score."""
        return any(map(_is_under_way, self._scores.values()))

    @property
    def is_at_rest(self) -> bool:
        """Whether every Score was looked at since this process began, under what is in force now, and the
        device is at work on none."""
        return not (self.is_under_way or self._find_unseen())

    def list_under_way(self) -> list[str]:
        """Return the Scores for which `is_at_rest` is not so, by id."""
        at_work = {name for name, each in self._scores.items() if _is_under_way(each)}
        return sorted(at_work | self._find_unseen())

    def list_awaiting_reboot(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return what needs a reboot to become effective: the Score, the resource, and its state as it is
        reported.

        Only Scores count that were looked at since this process began: before, it may be effective already.
        """
        return [
            (score, resource, state)
            for score in sorted(self._looked_at & self._scores.keys())
            for resource, state in sorted(self._scores[score].resources.items())
            if state.get("awaits_reboot") is True
        ]

    def has_converged_in_generation(self, score: str) -> bool:
        """Return whether *score* was found as desired since the newest manifest, in this process or an
        earlier one."""
        status = self._scores.get(score)
        return (
            status is not None and self._is_current(score, status) and has_converged(status.outcome)
        )

    def has_converged_in_generation_and_run(self, score: str) -> bool:
        """Return whether *score* was found as desired since the newest manifest came and since this process
        began."""
        return score in self._converged and self.has_converged_in_generation(score)

    def has_converged_in_run(self, entry: SerializedScore) -> bool:
        """Return whether this very *entry* was found as desired at some time since this process began."""
        return self._converged.get(entry.id) is entry

    def find_refused(self, resource_ids: Collection[str]) -> list[str]:
        """Return the Scores that cannot have one of these resources because it was another's."""
        return [
            score
            for score, status in self._scores.items()
            if isinstance(status.outcome, Failure)
            and status.outcome.error.code == OwnershipConflict.code
            and status.outcome.error.resource in resource_ids
        ]

    def get_change(self, score: str) -> str | None:
        """Return what was changed for *score* since the newest manifest, in a line; None for nothing."""
        return self._changed.get(score)

    def mark_changed(self, score: str, told: str) -> None:
        """Note that something was changed for *score*; *told* says what, in a line."""
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
        """Enter the *outcome* of *entry* under *generation*. ``states`` None keeps what was last seen.

        ``otherwise`` are the resources that are not as desired, and left so.
        """
        before = self._scores.get(entry.id)
        if states is not None:
            self.note_look([entry.id])
        seen = self._to_seen(entry.id, states)
        total = len(seen.resources.keys() | otherwise)
        is_told = otherwise or has_converged(outcome)
        ready = total - len(otherwise) if is_told else seen.ready
        layer = self._layer_of(entry.id)
        same = (
            before is not None
            and before.layer == layer
            and is_same(before, entry, outcome, attempts, seen, ready)
        )
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
                layer=layer,
            )
        if has_converged(outcome):
            self._converged[entry.id] = entry
        if entry.id not in self._looked_at:
            self._looked_at.add(entry.id)
            self.due.mark(AT_ONCE_S)
        if status is before:
            return
        self._scores[entry.id] = status
        if same:
            self.writer.confirm(entry.id, generation)
            self.due.mark(AT_ONCE_S)
        elif before is None or is_worth_a_write(before, status):
            self._log(entry.id, outcome)
            self._store(entry.id)
            self.due.mark(AT_ONCE_S)
        else:
            is_seen = isinstance(outcome, Running) or before.resources != status.resources
            self.due.mark(PROGRESS_S if is_seen else COUNTERS_S)

    def _log(self, score: str, outcome: Outcome) -> None:
        """Log what an operator on the device would look for; changes are logged as they are made."""
        if isinstance(outcome, Failure):
            log.warning("%s: %s: %s", score, outcome.error.code, outcome.error.message)

    def confirm(self, score: str, generation: int) -> bool:
        """Note that *score* was found under *generation* exactly as it is reported. Return False if it is not
        reported as in order.

        Use `note_look` to say that it was looked at.
        """
        status = self._scores.get(score)
        if status is None or not isinstance(status.outcome, Noop) or score in self._changed:
            return False
        if status.layer != self._layer_of(score):
            return False
        if status.observed_generation != generation:
            self._scores[score] = status.under(generation)
            self.writer.confirm(score, generation)
            self.due.mark(AT_ONCE_S)
        return True

    def note_look(self, scores: Iterable[str]) -> None:
        """Note that the device was looked at just now for *scores*. That alone causes no report."""
        self._last_looks.update(dict.fromkeys(scores, timestamp()))

    def _store(self, score: str) -> None:
        self.writer.store(score, self._scores[score], has_changed=score in self._changed)

    def _to_seen(self, score: str, states: Mapping[str, State] | None) -> Seen:
        """Return *states* in their form for the wire; the same object as before, while they are equal."""
        seen = self._seen.get(score)
        if seen is None:
            status = self._scores.get(score)
            seen = Seen.of_resources(status.resources if status else {})
        if states is not None and seen.states != states:
            seen = Seen.of(states)
        self._seen[score] = seen
        return seen

    def enter_removing(self, score: str, message: str) -> None:
        """Enter that *score* is no longer wanted, and what it made is being removed."""
        self._enter_unwanted(score, Running(reason="Removing", message=message))

    def enter_retained(self, score: str, outcome: Running) -> None:
        """Enter that *score* is no longer wanted, but what it made is not removed yet."""
        self._enter_unwanted(score, outcome)

    def enter_removal_failure(self, score: str, outcome: Failure) -> None:
        """Enter that *score* is no longer wanted, and that removing what it made has failed unexpectedly."""
        self._enter_unwanted(score, outcome)
        status = self._scores[score]
        self._scores[score] = attrs.evolve(status, attempts=status.attempts + 1)
        self._log(score, outcome)

    def _enter_unwanted(self, score: str, outcome: Running | Failure) -> None:
        """Enter *outcome* of *score*, which is no longer wanted."""
        before = self._scores.get(score) or ScoreStatus(
            kind="", version=1, observed_generation=0, since=timestamp(), outcome=outcome
        )
        self._scores[score] = attrs.evolve(
            before,
            outcome=outcome,
            since=since(before, outcome),
            observed_generation=self.generation,
            layer=OWN_LAYER,
        )
        if before.observed_generation != self.generation:
            self.writer.confirm(
                score, self.generation
            )  # whoever is killed now tells of no older one
        self.due.mark(PROGRESS_S)

    def enter_awaiting_look(self, score: str, outcome: Running) -> None:
        """Enter that the status of *score* is old: *outcome* is shown until the next look. Never stored."""
        before = self._scores.get(score)
        if before is None or isinstance(before.outcome, Running):
            return
        self._scores[score] = attrs.evolve(before, outcome=outcome, since=since(before, outcome))
        self.due.mark(PROGRESS_S)

    def record_drift(self, score: str, drift: Drift) -> None:
        """Record that something of *score* was not as it had been left."""
        status = self._scores[score]
        status = attrs.evolve(status, drift_count=status.drift_count + 1, last_drift=drift)
        self._scores[score] = status
        self._store(score)
        self.writer.store_before_report()
        self.due.mark(AT_ONCE_S)

    def remove(self, score: str) -> None:
        """Remove the status of *score*, which is gone with everything it made."""
        self._seen.pop(score, None)
        self._last_looks.pop(score, None)
        if self._scores.pop(score, None) is not None:
            self.writer.forget(score)
            self.due.mark(AT_ONCE_S)

    def status_of(self, score: str) -> ScoreStatus | None:
        """Return what is known of *score*; None before it was ever looked at."""
        status = self._scores.get(score)
        return None if status is None else status.as_of(self._last_looks.get(score))

    def compose(self) -> ActualState:
        """Return everything in the form of a report."""
        self.due.reset()
        own = self._in_force.own if self._in_force else None
        return ActualState(
            agent_id=self.identity.agent_id,
            agent_version=self.identity.agent_version,
            boot_id=self.identity.boot_id,
            policy=self.identity.policy,
            heartbeat_s=self.identity.heartbeat_s,
            generation=self.generation,
            observed_generation=self.observed_generation,
            counter=self.counter.next(),
            manifest_sha256=own.payload_sha256 if own else "",
            epoch=own.manifest.epoch if own else 0,
            root_version=self.device.problems.root_version,
            root_sha256=self.device.problems.root_sha256,
            removals_held=self.device.problems.removals_held,
            capabilities=self.device.problems.capabilities,
            kinds=self._registry.kinds,
            kind_errors=self._registry.errors,
            scores={
                score: status.as_of(self._last_looks.get(score))
                for score, status in sorted(self._scores.items())
            },
            layers={
                name: self._tell_layer(name, each) for name, each in self.tell_layers().items()
            },
            conditions=self._conditions.of(
                self._scores,
                unseen=self._find_unseen(),
                problems=self.device.problems,
            ),
        )

    def _find_unseen(self) -> set[str]:
        """Return the Scores that were not looked at since this process began, or since their manifest became
        effective."""
        return {*(self._wanted - self._looked_at), *self._find_behind()}

    def _find_behind(self) -> set[str]:
        """Return the Scores that were not looked at since their manifest became effective."""
        return {name for name, status in self._scores.items() if not self._is_current(name, status)}

    def _is_current(self, score: str, status: ScoreStatus) -> bool:
        if status.layer != self._layer_of(score):
            return False
        in_force = self._in_force
        return status.observed_generation == (in_force.generation_of(score) if in_force else 0)

    def _layer_of(self, score: str) -> str:
        return self._in_force.layer_of(score) if self._in_force else OWN_LAYER

    def _tell_layer(self, name: str, note: LayerNote) -> LayerStatus:
        observed = self._observed_generation(name)
        phase, since = note.phase, note.since
        if phase == "Admitted" and self._has_converged_as(name, note.generation):
            phase = "Applied"
            generation, since = self._applied.get(name, (0, ""))
            if generation != note.generation:
                since = timestamp()
                self._applied[name] = note.generation, since
        else:
            self._applied.pop(name, None)
        return LayerStatus(
            generation=note.generation,
            observed_generation=observed,
            wanted=note.wanted,
            gate=note.gate,
            phase=phase,
            reason=note.reason,
            message=note.message,
            since=since,
        )

    def _has_converged_as(self, layer: str, generation: int) -> bool:
        """Return whether all Scores of that *layer* are in order, with that *generation* of it.

        Not before that is accepted here, which comes after it was admitted.
        """
        in_force = self._in_force
        if in_force is None or in_force.layer_generation(layer) != generation:
            return False
        return all(
            (status := self._scores.get(each)) is not None
            and status.layer == layer
            and status.observed_generation == generation
            and each in self._looked_at
            and has_converged(status.outcome)
            for each in self._wanted
            if in_force.layer_of(each) == layer
        )

    def in_words(self) -> str:
        """Return one line for `systemctl status`. It counts as converged only what this process has seen."""
        unseen = self._find_unseen()
        seen = {name: each.outcome for name, each in self._scores.items() if name not in unseen}
        converged = sum(map(has_converged, seen.values()))
        failed = sum(isinstance(each, Failure) for each in seen.values())
        total = len(self._wanted | self._scores.keys())
        words = f"generation {self.generation}, {converged} of {total} Scores converged, {failed} failed"
        return f"{words}, {len(unseen)} not looked at yet" if unseen else words


def _is_under_way(status: ScoreStatus) -> bool:
    """Return whether the device is working on a Score: it waits neither for people nor for another Score."""
    outcome = status.outcome
    return isinstance(outcome, Running) and outcome.reason not in {"Held", "Blocked"}
