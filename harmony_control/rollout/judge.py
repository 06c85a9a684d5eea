"""How each member of a rollout stands. Pure: by what is known of it, and by the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, get_args

import attrs

from harmony_core.wire.class_manifest import ClassManifest
from harmony_core.wire.gate import Gate

__all__ = ["REFRESH", "Judged", "Member", "MemberState", "Progress", "Stored", "judge", "reaches"]

MemberState: TypeAlias = Literal[
    "NotReached", "Away", "Waiting", "Progressing", "Ready", "Unhealthy", "RolledBack"
]
"""NotReached: its wave is not open. Away: it was not heard when that was opened, nor since, and counts for
nothing, though a heartbeat from before may count still.
Waiting: its window is shut. Progressing: it has begun, or is to go back, or it is not known yet whether it is
silent. Ready: all Scores of the class are in order. Unhealthy: they are not by the deadline, or it has fallen
silent since its wave was opened.
RolledBack: after an abort, all Scores of the class are in order by the generation before."""
REFRESH = timedelta(seconds=90)
"""Who was heard so long before its wave was opened, or later, was there. Who was not, and is there, says so
within as long: everybody beats at once who sees that gate."""
_WAITS = frozenset({"OutsideWindow", "TooEarly", "ClockNotTrusted", "Frozen", "SlotInvalid"})


@attrs.frozen(kw_only=True)
class Member:
    """A device of the class, as far as a rollout looks at it."""

    id: str
    step: int
    """Its wave."""
    slot: int = 0
    is_heard: bool
    heard_at: datetime | None
    """When it was heard last, by the server's clock; None for never."""
    generation: int = 0
    """Of the class, that it follows."""
    begun_at: datetime | None = None
    """Since when it has followed what is rolled out, by its own clock; None: it does not."""
    waits_for: str = ""
    """Why it may not begin, in its own word."""
    ready_since: datetime | None = None
    """Since when all Scores of the class are in order there, by what is rolled out and by its own clock;
    None: they are not."""
    is_back: bool = False
    """It had begun, and all Scores of the class are in order there by the generation before again."""
    failure: str = ""
    """What has failed there for good."""
    trouble: str = ""
    """What has failed there last; it may be tried again."""
    gate: tuple[int, int] = (0, 0)
    """Term and number of the gate that it has accepted, of the generation that is rolled out."""
    may_be_there: bool = False
    """Whether it may be there although it is not heard: the server was not reached for long enough."""
    heard_seen_at: datetime | None = None
    """Since when it was always seen here to be heard, and at least every 90 s; None: it was not looked at
    before."""
    back_at: datetime | None = None
    """When it was seen here to be heard again; None: it was not."""
    begun_seen_at: datetime | None = None
    """When it was first seen here to have begun; None: not yet."""
    ready_seen_at: datetime | None = None
    """Since when it was always seen here to be ready; None: it was not looked at before."""


@attrs.frozen
class Stored:
    """A gate, and when the server has stored it."""

    gate: Gate
    at: datetime
    """By the server's clock, as `Member.heard_at`: who wrote the gate may have one that is off."""


@attrs.frozen(kw_only=True)
class Judged:
    """What one member is for a rollout, and why."""

    member: Member
    state: MemberState
    reason: str = ""
    ready_since: datetime | None = None
    """Since when it is ready, where it is, as far as that can be believed."""
    until: datetime | None = None
    """By when it must be in order, where it is on the way there; then it is unhealthy."""


@attrs.frozen(kw_only=True)
class Progress:
    """How a rollout stands."""

    gate: Gate
    manifest: ClassManifest
    judged: Sequence[Judged]

    @property
    def counts(self) -> Mapping[MemberState, int]:
        """Return how many members are in each state."""
        found = Counter(each.state for each in self.judged)
        states: tuple[MemberState, ...] = get_args(MemberState)
        return {state: found[state] for state in states}

    def find_unaware(self) -> list[str]:
        """Return the members that are there, and that must act on this gate but have not reported that they
        have it.

        A member that has begun needs no later gate, except to go back. One that waits for its window is woken
        by its own clock, once it knows what it waits for.
        """
        gate = self.gate
        return [
            each.member.id
            for each in self.judged
            if each.state in {"Progressing", "Waiting"}
            and (each.member.begun_at is None or gate.state == "aborted")
            and each.member.gate < (gate.term, gate.seq)
        ]

    def of_wave(self) -> list[Judged]:
        """Return the members of the open wave, in its open slots."""
        gate = self.gate
        return [
            each
            for each in self.judged
            if each.member.step == gate.step and each.member.slot <= gate.slot
        ]


def judge(
    gate: Gate,
    gates: Sequence[Stored],
    manifest: ClassManifest,
    members: Sequence[Member],
    now: datetime,
) -> Progress:
    """Return the state of each of *members*. *gates* are all of this generation that still exist, the oldest
    first."""
    judged = [
        _judge(gate, _find_opened(gates, manifest, each), manifest, each, now) for each in members
    ]
    return Progress(gate=gate, manifest=manifest, judged=judged)


def _judge(
    gate: Gate, opened: _Opened | None, manifest: ClassManifest, member: Member, now: datetime
) -> Judged:
    if opened is None:
        return Judged(member=member, state="NotReached")
    if (unheard := _judge_unheard(opened, member, now)) is not None:
        return unheard
    if gate.state == "aborted":
        return _judge_return(gate, manifest, member, now)
    return _judge_heard(opened, manifest, member, now)


def _judge_unheard(opened: _Opened, member: Member, now: datetime) -> Judged | None:
    """Return the state of *member* where it is not heard, or not since its wave was opened; else None."""
    if member.is_heard:
        if _was_there(opened, member):
            return None
        if now <= opened.issued_at + REFRESH:
            why = "is not heard yet since its wave was opened"
            return Judged(member=member, state="Progressing", reason=why)
        why = "was not heard since its wave was opened, nor shortly before"
        return Judged(member=member, state="Away", reason=why)
    if member.may_be_there and member.heard_at is not None:
        why = "is not heard yet: the message server was reached less than 90 s ago"
        return Judged(member=member, state="Progressing", reason=why)
    if member.heard_at is not None and member.heard_at >= opened.stored_at - REFRESH:
        why = "has fallen silent since its wave was opened"
        return Judged(member=member, state="Unhealthy", reason=why)
    why = "was not heard when its wave was opened"
    return Judged(member=member, state="Away", reason=why)


def _was_there(opened: _Opened, member: Member) -> bool:
    """Return whether *member*, which is heard, was there when its wave was opened, or has come since.

    It may have announced that its next heartbeat will come late, and have been switched off before that.
    """
    if member.begun_at is not None or member.gate >= (opened.gate.term, opened.gate.seq):
        return True
    return member.heard_at is not None and member.heard_at >= opened.stored_at - REFRESH


def _judge_return(gate: Gate, manifest: ClassManifest, member: Member, now: datetime) -> Judged:
    if member.is_back:
        return Judged(member=member, state="RolledBack")
    if member.waits_for == "Aborted":
        return Judged(member=member, state="NotReached")  # it was let in, and had not begun
    since = max(gate.issued_at, _find_return(member, gate, now) or gate.issued_at)
    deadline_s = manifest.rollout.deadline_s
    until = since + timedelta(seconds=deadline_s)
    if now > until:
        why = f"is not in order {deadline_s} s after it was to go back"
        return Judged(member=member, state="Unhealthy", reason=why)
    return Judged(member=member, state="Progressing", reason="goes back", until=until)


def _judge_heard(opened: _Opened, manifest: ClassManifest, member: Member, now: datetime) -> Judged:
    opened_at = opened.issued_at
    if member.ready_since is not None:
        seen_at = member.ready_seen_at or now
        is_possible = opened_at <= member.ready_since <= seen_at
        since = member.ready_since if is_possible else seen_at
        return Judged(member=member, state="Ready", ready_since=since)
    if member.begun_at is None and member.waits_for in _WAITS:
        return Judged(member=member, state="Waiting", reason=member.waits_for)
    if member.failure:
        return Judged(member=member, state="Unhealthy", reason=member.failure)
    # Who was away, or waited for its window, has its time from when it came back, or began.
    since = max(opened_at, _find_begin(member, opened, now) or opened_at)
    deadline_s = manifest.rollout.deadline_s
    until = since + timedelta(seconds=deadline_s)
    if now > until:
        why = f"is not in order {deadline_s} s after its wave was opened"
        why += f"; {member.trouble}" if member.trouble else ""
        return Judged(member=member, state="Unhealthy", reason=why)
    return Judged(member=member, state="Progressing", reason=member.waits_for, until=until)


def _find_begin(member: Member, opened: _Opened, now: datetime) -> datetime | None:
    if member.begun_at is None:
        return _find_return(member, opened.gate, now)
    # Its clock may be ahead, or behind: then it has begun when that was seen, and not before it was back.
    seen_at = member.begun_seen_at or now
    is_possible = opened.issued_at <= member.begun_at <= seen_at
    begun_at = member.begun_at if is_possible else seen_at
    return max(begun_at, member.back_at or begun_at)


def _find_return(member: Member, gate: Gate, now: datetime) -> datetime | None:
    """Return when *member* has come back, as far as it may not have been there since *gate* was written."""
    if member.gate < (gate.term, gate.seq):
        # It has not said that it has the gate, as everybody does within moments: it may be back just now.
        return member.heard_seen_at or now
    return member.back_at


@attrs.frozen
class _Opened:
    """When a wave was opened for a device."""

    gate: Gate
    """The first of those that are kept by which it was."""
    issued_at: datetime
    """By the clock of who wrote the gate."""
    stored_at: datetime
    """By the server's."""


def _find_opened(
    gates: Sequence[Stored], manifest: ClassManifest, member: Member
) -> _Opened | None:
    """Return when the first gate was written that is open for *member*; None where none is."""
    for at, each in enumerate(gates):
        if not reaches(each.gate, member):
            continue
        if at == 0 and not _is_first(each.gate):
            # The server keeps no older ones, and it was open by one of those. Later than it was would take
            # who has fallen silent since for one that was away before.
            return _Opened(each.gate, manifest.issued_at, manifest.issued_at)
        return _Opened(each.gate, each.gate.issued_at, each.at)
    return None


def reaches(gate: Gate, member: Member) -> bool:
    """Return whether *gate*, or one before it, is open for *member*: no gate ever closes a wave again."""
    return (
        gate.state == "done"
        or member.step < gate.step
        or (member.step == gate.step and member.slot <= gate.slot)
    )


def _is_first(gate: Gate) -> bool:
    return gate.step == 0 and gate.seq == 1
