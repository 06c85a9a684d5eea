"""Conditions: what holds of the device as a whole, since when, and why.

    statuses of all Scores, problems of the device  ->  Ready, Degraded, Reconciling, Stale, RebootRequired

Degraded has one reason: the gravest that holds. RebootRequired is told only while it is so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Self

import attrs

from harmony_agent.clock import timestamp
from harmony_agent.store.drift_outcome import is_left_drifted
from harmony_core.outcome import Failure, Running
from harmony_core.wire.actual_state import Condition, ConditionType, ScoreStatus
from harmony_core.wire.replies import cut_for_wire

from .database import Database, Statement
from .device_health import DeviceProblems

__all__ = ["Conditions"]

_SAVE = "INSERT OR REPLACE INTO condition (type, status, since) VALUES (?, ?, ?)"
_NAMED = 10
_MESSAGE_BYTES = 4 * 1024
"""The report must fit into one message, whatever is wrong."""
_REPEAT_OFFENDERS_TOLD = 3
_RENEW = (
    "the fleet's root document has expired: what is in force stays so, and nothing new is taken in until "
    "`harmony trust renew`"
)
_APPROVE = "see them and allow it with `harmony approve`"


class Conditions:
    """Remembers when each was last otherwise, over restarts too."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, str]] = {}
        """Status, and since when, by type."""
        self._unsaved: set[str] = set()

    @classmethod
    async def load(cls, database: Database) -> Self:
        """Read what the last run left."""
        conditions = cls()
        for kind, status, since in await database.read("SELECT type, status, since FROM condition"):
            conditions._since[kind] = (status, since)
        return conditions

    def unsaved_statements(self) -> list[Statement]:
        """Return what has turned since this was last asked, to be written with something else, or at rest."""
        turned, self._unsaved = self._unsaved, set()
        return [(_SAVE, (kind, *self._since[kind])) for kind in sorted(turned)]

    @property
    def at_rest(self) -> bool:
        """Whether nothing was under way when they were last told."""
        return self._since.get("Reconciling", ("False", ""))[0] == "False"

    def of(
        self,
        statuses: Mapping[str, ScoreStatus],
        *,
        unseen: Collection[str],
        problems: DeviceProblems,
    ) -> tuple[Condition, ...]:
        """Return the conditions that hold now.

        Scores that are *unseen* may have a status: from the end of the last process, or by a manifest that is
        no longer effective.
        """
        failed = sorted(i for i, status in statuses.items() if isinstance(status.outcome, Failure))
        running = sorted(
            i
            for i in {*statuses, *unseen}
            if i in unseen or isinstance(statuses[i].outcome, Running)
        )
        drifted = [i for i in failed if is_left_drifted(statuses[i])]
        now = (
            _ready(failed, running, drifted, problems),
            _degraded_condition(statuses, failed, drifted, problems),
            _condition("Reconciling", bool(running), "Progressing" if running else "Idle", running),
            _stale(problems),
        )
        reboot = _condition(
            "RebootRequired",
            bool(problems.reboot_reason),
            problems.reboot_reason or "NotRequired",
            [],
            problems.reboot_words,
        )
        if problems.reboot_reason or reboot.type in self._since:
            reboot = self._set_transition_time(reboot)
        more = (reboot,) if problems.reboot_reason else ()
        return (*map(self._set_transition_time, now), *more)

    def _set_transition_time(self, condition: Condition) -> Condition:
        status, since = self._since.get(condition.type, ("", ""))
        if status == condition.status:
            return attrs.evolve(condition, last_transition_time=since)
        self._since[condition.type] = (condition.status, condition.last_transition_time)
        self._unsaved.add(condition.type)
        return condition


def _stale(problems: DeviceProblems) -> Condition:
    if problems.root_expired:
        return _condition("Stale", True, "RootExpired", [], _RENEW)
    return _condition("Stale", problems.stale, "Expired" if problems.stale else "Current", [])


def _ready(
    failed: list[str], running: list[str], drifted: list[str], problems: DeviceProblems
) -> Condition:
    if unnoted := problems.unwritten or problems.missed:
        return _condition("Ready", False, "LedgerUnusable", [], unnoted)
    if failed and failed == drifted:
        return _condition("Ready", False, "Drifted", failed)
    if failed:
        return _condition("Ready", False, "ScoreFailed", failed)
    if running:
        return _condition("Ready", False, "Progressing", running)
    return _condition("Ready", True, "AllConverged", [])


def _degraded_condition(
    statuses: Mapping[str, ScoreStatus],
    failed: list[str],
    drifted: list[str],
    problems: DeviceProblems,
) -> Condition:
    for reason, names, message in _reasons(statuses, failed, drifted, problems):
        if names or message:
            return _condition("Degraded", True, reason, names, message)
    return _condition("Degraded", False, "AllWell", [])


def _reasons(
    statuses: Mapping[str, ScoreStatus],
    failed: list[str],
    drifted: list[str],
    problems: DeviceProblems,
) -> Iterator[tuple[str, list[str], str]]:
    """Yield each reason to be degraded, with names and words, the gravest first."""
    yield "LedgerUnusable", [], problems.unwritten or problems.floor_unkept
    yield "LedgerLost", [], problems.missed
    yield "ManifestRejected", [], problems.rejected
    yield "RootRejected", [], problems.root_rejected
    yield "IndexRejected", [], problems.index_rejected
    yield "ClassRefused", [], problems.class_refused
    yield "DeviceCopied", [], problems.written_over if problems.is_copied else ""
    yield "ForeignReport", [], problems.written_over
    yield "FloorLost", [], problems.floor_lost
    count = problems.removals_held
    held = f"{count} resource{'s' * (count != 1)} would be removed at once; {_APPROVE}"
    yield (
        "InternalError",
        [],
        "; ".join(f"{name}: {why}" for name, why in problems.internal.items()),
    )
    yield "RemovalsHeld", [], held if count else ""
    offers = problems.capabilities.items()
    gone = sorted(name for name, each in offers if each.offered and not each.available)
    yield "CapabilityUnavailable", gone, ""
    yield "ScoreFailed", [each for each in failed if each not in drifted], ""
    yield "LedgerLost", [], problems.lost or problems.forgotten
    yield "DriftKeepsComing", [], _of_repeat_offenders(statuses, problems.repeat_offenders)
    yield "Drifted", sorted({*problems.otherwise.values(), *_resources(statuses, drifted)}), ""


def _resources(statuses: Mapping[str, ScoreStatus], drifted: list[str]) -> Iterator[str]:
    for each in drifted:
        outcome = statuses[each].outcome
        if isinstance(outcome, Failure) and outcome.error.resource:
            yield outcome.error.resource


def _of_repeat_offenders(
    statuses: Mapping[str, ScoreStatus], repeat_offenders: Mapping[str, int]
) -> str:
    """Return what is changed again and again, and how it was found; who does it cannot be known."""
    told: list[str] = []
    for score, count in sorted(repeat_offenders.items())[:_REPEAT_OFFENDERS_TOLD]:
        status = statuses.get(score)
        drift = status.last_drift if status else None
        if drift is not None:
            told.append(
                f"somebody has changed {drift.resource} of {score} {count} times in a row, "
                f"last to: {drift.before}"
            )
    return "; ".join(told)


def _condition(
    kind: ConditionType, holds: bool, reason: str, names: list[str], message: str = ""
) -> Condition:
    more = " …" if len(names) > _NAMED else ""
    return Condition(
        type=kind,
        status="True" if holds else "False",
        reason=reason,
        message=cut_for_wire(message or ", ".join(names[:_NAMED]) + more, _MESSAGE_BYTES),
        last_transition_time=timestamp(),
    )
