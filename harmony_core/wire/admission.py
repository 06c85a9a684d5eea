"""Admission: whether a device may begin with the newest generation of its class. Pure; each device decides.

    gate: open for it? -> class manifest: its wave not too early, inside a window? -> Begin

A device's place in a rollout is a hash that nobody can choose, another one for each generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Literal, TypeAlias

import attrs

from .class_manifest import ClassManifest, Rollout, Window
from .fleet_index import FleetIndex
from .gate import Gate
from .selector import parse_selector

__all__ = [
    "HOW_TO_MEND_SLOTS",
    "SLOT_LABEL",
    "Choice",
    "explain_slot",
    "find_next_opening",
    "find_place",
    "find_slot",
    "find_step",
    "is_let_in",
    "may_begin",
]

SLOT_LABEL = "slot"
"""The label by which the halves of a pair, or the devices of a site, begin one after the other."""
HOW_TO_MEND_SLOTS = (
    "correct one device of a pair, wait until it has the new generation, and correct the other"
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTE = timedelta(minutes=1)


def find_place(fleet: str, name: str, generation: int, agent_id: str) -> int:
    """Return the device's place in the rollout of that generation of the class *name*: 0 to 2**32 - 1."""
    text = f"{fleet}\n{name}\n{generation}\n{agent_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def find_slot(labels: Mapping[str, str]) -> int | None:
    """Return the number in the label ``slot``; 0 where there is no such label, None for what is no number."""
    text = labels.get(SLOT_LABEL, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def explain_slot(labels: Mapping[str, str]) -> str:
    """Return what is wrong with the label ``slot``; empty where nothing is."""
    if find_slot(labels) is not None:
        return ""
    return f"a slot is a whole number such as 0 or 1, of at most 9 digits, and not {labels[SLOT_LABEL]!r}"


def find_step(rollout: Rollout, place: int, labels: Mapping[str, str]) -> int:
    """Return the number of the wave of *rollout* that has the device of that *place*: the first for a
    canary."""
    if rollout.canary is not None and parse_selector(rollout.canary).matches(labels):
        return 0
    return next(at for at, step in enumerate(rollout.steps) if place < step.places)


def is_let_in(gate: Gate, place: int, labels: Mapping[str, str]) -> bool:
    """Return whether *gate* is open for the device, as far as the gate itself says: this is cheap to know.

    Whether the device's slot has come is only in the class manifest: see `may_begin`.
    """
    if gate.state == "done":
        return True
    if gate.state != "running":
        return False
    is_canary = gate.canary is not None and parse_selector(gate.canary).matches(labels)
    return is_canary or place < gate.places


_Why: TypeAlias = Literal[
    "Frozen", "NotOpen", "SlotInvalid", "SlotNotOpen", "TooEarly", "OutsideWindow"
]


@attrs.frozen
class Choice:
    """Whether a device may begin."""

    may: bool
    reason: _Why | Literal["Admitted"] = "Admitted"
    message: str = ""
    again_at: datetime | None = None
    """When it is worth while to ask again, apart from another gate or index; None: no sooner."""


def may_begin(
    manifest: ClassManifest,
    gate: Gate,
    index: FleetIndex,
    *,
    place: int,
    labels: Mapping[str, str],
    now: datetime,
    zone: tzinfo | None = None,
    by_operator: bool = False,
) -> Choice:
    """Return whether the device at that *place*, with these *labels*, may begin with *manifest* at *now*.

    *zone* is the device's own; None is that of the operating system. *by_operator* says that an operator has
    signed the gate, who may let it go faster than the class manifest says.
    """
    freeze = index.freeze
    if freeze is not None and (freeze.until is None or freeze.until > now):
        why = f": {freeze.reason}" if freeze.reason else ""
        return Choice(False, "Frozen", f"the fleet is frozen{why}", freeze.until)
    step = find_step(manifest.rollout, place, labels)
    if (shut := _find_shut(gate, step, place, labels)) is not None:
        return shut
    opens_at = manifest.rollout.opens_at(step, manifest.issued_at)
    if now < opens_at and not by_operator:
        return Choice(False, "TooEarly", f"wave {step + 1} opens at {opens_at:%F %T} UTC", opens_at)
    opening = find_next_opening(manifest.rollout.windows, now, zone)
    if opening is None or opening > now:
        when = "" if opening is None else f" until {opening.astimezone(zone):%F %H:%M}"
        return Choice(False, "OutsideWindow", f"its window is closed{when}", opening)
    return Choice(True)


def _find_shut(gate: Gate, step: int, place: int, labels: Mapping[str, str]) -> Choice | None:
    """Return why *gate* is shut for a device in the wave *step*; None where it is open."""
    is_done = gate.state == "done"
    if not is_let_in(gate, place, labels):
        return Choice(False, "NotOpen", f"the gate is {gate.state}, at wave {gate.step + 1}")
    if step > gate.step and not is_done:
        return Choice(False, "NotOpen", f"it is in wave {step + 1}, and {gate.step + 1} is open")
    slot = find_slot(labels)
    if slot is None:
        # Whatever it was to be, its pair may have begun just now. After the last wave, too: all whose
        # slots say nothing would begin at once then.
        why = f"its label slot: {explain_slot(labels)}; {HOW_TO_MEND_SLOTS}"
        return Choice(False, "SlotInvalid", why)
    if step == gate.step and slot > gate.slot and not is_done:
        return Choice(False, "SlotNotOpen", f"its slot is {slot}, and {gate.slot} is open")
    return None


def find_next_opening(
    windows: Sequence[Window], now: datetime, zone: tzinfo | None = None
) -> datetime | None:
    """Return *now* if one of *windows* is open, or there is none; else when the next one opens.

    Windows are in local time of *zone*. If the clock skips the time, the next existing time counts; if a time
    comes twice, the first one counts. Return None where none opens within eight days, which cannot be.
    """
    if not windows:
        return now
    today = now.astimezone(zone).date()
    openings: list[datetime] = []
    for window in windows:
        for ahead in range(-1, 9):
            day = today + timedelta(days=ahead)
            if _DAYS[day.weekday()] not in window.days:
                continue
            begin, until = time.fromisoformat(window.begin), time.fromisoformat(window.until)
            end_day = day + timedelta(days=1) if until <= begin else day
            start = _instant(datetime.combine(day, begin), zone)
            end = _instant(datetime.combine(end_day, until), zone)
            if start <= now < end:
                return now
            if start > now and end > start:
                openings.append(start)
    return min(openings, default=None)


def _instant(wall: datetime, zone: tzinfo | None) -> datetime:
    """Return when clocks of *zone* first show *wall* or more."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if _shown(instant, zone) == wall:
        return instant
    # It is leapt over: begin before the leap, and go on until the clocks have leapt. Of such a time, that of
    # the operating system and a `ZoneInfo` disagree by which *fold* the earlier instant is meant.
    instant = min(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    while _shown(instant, zone) < wall:
        instant += _MINUTE
    return instant


def _shown(instant: datetime, zone: tzinfo | None) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)
