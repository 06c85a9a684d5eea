"""Compare a device's record of changes with what was seen of it here. Pure.

    events -> each follows from the one before? -> hashes by number -> the head in the report, and every one
    that was seen here: the same, another, beyond the end, or from before what is kept

A hash is of all events up to its own. So one head that agrees vouches for everything that is kept before it,
and one that does not is proof that something was changed, whatever the device says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, TypeAlias, cast

import attrs

from harmony_control.store.seen_heads import SeenHead
from harmony_core.errors import HarmonyError
from harmony_core.wire.audit import CHAIN_START, EVENTS_KEPT, AuditHead, hash_event
from harmony_core.wire.replies import ChainedEvent

__all__ = [
    "AuditFault",
    "AuditResult",
    "EventAt",
    "FaultKind",
    "Loss",
    "ReportedHead",
    "compare_heads",
    "verify_chain",
]

FaultKind: TypeAlias = Literal["Rewritten", "Shortened", "BegunAnew", "Lost"]
"""Rewritten: an event is another one than was noted. Shortened: the newest or the oldest are missing.
BegunAnew: all are, and the device does not say so. Lost: some are, and the device says so itself."""

_HASH = re.compile(r"[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class EventAt:
    """Which event, and when it was, by the device."""

    seq: int
    at: str


@attrs.frozen(kw_only=True)
class Loss:
    """An event by which the device says that earlier ones are lost."""

    event: EventAt
    why: str
    after_seq: int
    """The last event before that is still there; 0 for none."""


@attrs.frozen(kw_only=True)
class ReportedHead:
    """What the newest signed report says, and when it was written."""

    head: AuditHead
    at: datetime


@attrs.frozen(kw_only=True)
class AuditFault:
    """One thing that is not as it must be."""

    kind: FaultKind
    seq: int
    """The event by which it is known."""
    message: str


@attrs.frozen(kw_only=True)
class AuditResult:
    """What came of it."""

    agent_id: str
    count: int = 0
    """Events that the device keeps."""
    first: EventAt | None = None
    last: EventAt | None = None
    reported: ReportedHead | None = None
    """What the report says, where it can be believed; whether that agrees, `faults` says."""
    confirmed: tuple[SeenHead, ...] = ()
    """What was seen here, and is so still, in the order in which it was seen."""
    not_kept: tuple[SeenHead, ...] = ()
    """What was seen here of events that the device no longer keeps."""
    losses: tuple[Loss, ...] = ()
    faults: tuple[AuditFault, ...] = ()
    unchecked: tuple[HarmonyError, ...] = ()
    """Why not all of it could be checked."""

    @property
    def is_intact(self) -> bool:
        """Whether all could be checked, and is as it must be."""
        return not self.faults and not self.unchecked


def verify_chain(
    agent_id: str,
    events: Sequence[ChainedEvent],
    reported: ReportedHead | None,
    seen: Sequence[SeenHead],
) -> AuditResult:
    """Return whether *events* form an unbroken chain, and are those that *reported* and *seen* have named."""
    chain = _Chain(events)
    not_kept = tuple(each for each in seen if chain.has_dropped(each.head))
    confirmed = tuple(each for each in seen if chain.has(each.head))
    told = [(each.head, f"here on {_when(each.at)}") for each in seen if each not in not_kept]
    if reported is not None:
        told.append((reported.head, f"in its signed report of {_when(reported.at)}"))
    is_new = bool(seen) and not chain.has(seen[0].head)
    compared = [chain.compare(head, where, is_new=is_new) for head, where in told]
    return AuditResult(
        agent_id=agent_id,
        count=len(events),
        first=_at(events[0]) if events else None,
        last=_at(events[-1]) if events else None,
        reported=reported,
        confirmed=confirmed,
        not_kept=not_kept,
        losses=tuple(chain.losses),
        faults=_first_of_each_kind([*chain.faults, *(each for each in compared if each)]),
    )


def compare_heads(
    agent_id: str, reported: ReportedHead | None, seen: Sequence[SeenHead]
) -> AuditResult:
    """Return what can be said without the device: whether all its reports can be true at once.

    *seen* is in the order in which it was seen, before the report.
    """
    if reported is not None:
        seen = [*seen, SeenHead(head=reported.head, at=reported.at)]
    faults: list[AuditFault] = []
    first_of: dict[int, SeenHead] = {}
    for before, each in pairwise(seen):
        first_of.setdefault(before.head.seq, before)
        if each.head.seq < before.head.seq:
            message = (
                f"{before.head.seq} events were seen here on {_when(before.at)}, and only {each.head.seq} on "
                f"{_when(each.at)}"
            )
            faults.append(AuditFault(kind="Shortened", seq=each.head.seq, message=message))
        known = first_of.get(each.head.seq)
        if known is not None and known.head != each.head:
            message = (
                f"event {each.head.seq}, as it was seen here on {_when(known.at)}, is not the one that was "
                f"seen on {_when(each.at)}"
            )
            faults.append(AuditFault(kind="Rewritten", seq=each.head.seq, message=message))
    return AuditResult(agent_id=agent_id, reported=reported, faults=_first_of_each_kind(faults))


class _Chain:
    """The events of one device, with what is wrong among themselves."""

    def __init__(self, events: Sequence[ChainedEvent]) -> None:
        self.faults: list[AuditFault] = []
        self.losses: list[Loss] = []
        self._hashes: dict[int, str] = {}
        """By number; of the one before the first, too."""
        self._first = self._last = 0
        self._begins_at_the_start = not events or events[0].prior == CHAIN_START
        if events:
            self._first = events[0].seq
            self._last = 0 if self._begins_at_the_start else self._first - 1
            self._hashes[self._last] = events[0].prior
        for event in events:
            self._add(event)
        oldest_due = max(1, self._last - EVENTS_KEPT + 1)
        if self._first > oldest_due and not self._begins_at_the_start:
            message = (
                f"the device keeps {EVENTS_KEPT} events, and has none before event {self._first} of "
                f"{self._last}: somebody with root on the device has taken the oldest out"
            )
            self.faults.append(AuditFault(kind="Shortened", seq=self._first, message=message))

    def _add(self, event: ChainedEvent) -> None:
        fields = _read(event.text)
        prior = event.prior
        if fields.get("seq") != event.seq or not _HASH.fullmatch(prior):
            self._fail(
                event.seq, f"what stands for event {event.seq} is nothing that an agent notes"
            )
            prior = CHAIN_START
        elif prior != self._hashes[self._last]:
            message = (
                f"event {event.seq} was noted after another one than stands before it now, event "
                f"{self._last}: that was rewritten, or what was between them was taken out"
            )
            self._fail(event.seq, message)
        if fields.get("why") == "lost":
            self.losses.append(Loss(event=_at(event), why=_reason(fields), after_seq=self._last))
        self._last = event.seq
        self._hashes[event.seq] = hash_event(prior, event.text.encode(errors="surrogatepass"))

    def _fail(self, seq: int, message: str) -> None:
        self.faults.append(AuditFault(kind="Rewritten", seq=seq, message=message))

    def has(self, head: AuditHead) -> bool:
        """Return whether *head* belongs to the device's record."""
        return head.seq == 0 or self._hashes.get(head.seq) == head.head

    def has_dropped(self, head: AuditHead) -> bool:
        """Return whether *head* is from before what is kept, so that it cannot be checked."""
        is_before = head.seq < self._first and head.seq not in self._hashes
        return is_before and head.seq > 0 and not self._begins_at_the_start

    def compare(self, head: AuditHead, where: str, *, is_new: bool) -> AuditFault | None:
        """Return what is wrong if *head* was seen. *is_new* says that what was seen first is not in it."""
        if self.has(head):
            return None
        seq, loss = head.seq, self._loss_of(head.seq)
        if loss is not None:
            message = (
                f"event {seq} was seen {where}, and is lost, as the device itself has noted on "
                f"{loss.event.at}: {loss.why}"
            )
            return AuditFault(kind="Lost", seq=seq, message=message)
        if self._first <= seq <= self._last or seq in self._hashes:
            message = (
                f"event {seq}, or one before it, is not the one that was seen {where}: somebody with root on "
                "the device has rewritten its record"
            )
            return AuditFault(kind="Rewritten", seq=seq, message=message)
        if self._begins_at_the_start and (is_new or seq < self._first):
            message = (
                f"event {seq} was seen {where}, and the device has begun its record anew since, and does not "
                "say why: its database was deleted, or another one put in its place"
            )
            return AuditFault(kind="BegunAnew", seq=seq, message=message)
        message = (
            f"event {seq} was seen {where}, and the device's last one is {self._last}: the newest were taken "
            "out, or an older copy of its database was put in its place"
        )
        return AuditFault(kind="Shortened", seq=seq, message=message)

    def _loss_of(self, seq: int) -> Loss | None:
        lost = (each for each in self.losses if each.after_seq < seq < each.event.seq)
        return next(lost, None)


def _first_of_each_kind(faults: Iterable[AuditFault]) -> tuple[AuditFault, ...]:
    """Return, of each kind, the one that reaches back the farthest."""
    first: dict[FaultKind, AuditFault] = {}
    for each in faults:
        if each.kind not in first or each.seq < first[each.kind].seq:
            first[each.kind] = each
    return tuple(sorted(first.values(), key=lambda each: each.seq))


def _at(event: ChainedEvent) -> EventAt:
    return EventAt(seq=event.seq, at=str(_read(event.text).get("at", "")))


def _read(text: str) -> Mapping[str, Any]:
    """Return the fields of an event; none where it is no event at all."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _reason(fields: Mapping[str, Any]) -> str:
    actions = fields.get("actions")
    return ", ".join(map(str, cast("list[object]", actions))) if isinstance(actions, list) else ""


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
