"""Text for people's eyes. Much of it was written by a device, its programs, or whoever broke into it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.wire.times import parse_rfc3339

__all__ = [
    "age",
    "age_of",
    "count_of",
    "state_word",
    "style_of",
]


def state_word(state: str) -> str:
    """Return a resource's state for people: ``present``, ``not needed``. Turn an unknown state into words."""
    return _STATES.get(state) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", state).lower()


_STATES = {"PresentAt": "present", "DirectoryAt": "directory", "InProgress": "running"}


def style_of(outcome: Outcome) -> str:
    """Return the colour of an Outcome, as rich and `painted` name it."""
    match outcome:
        case Success():
            return "bold green"
        case Noop():
            return "green"
        case Running():
            return "yellow"
        case Failure():
            return "bold red"


def age(when: datetime) -> str:
    """Return roughly how long ago *when* was: ``12 s``, ``5 min``, ``3 h``, ``9 d``."""
    seconds = max((datetime.now(UTC) - when).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def age_of(since: str) -> str:
    """Return the `age` of a time in its form on the wire; ``?`` where it is not a time."""
    try:
        return age(parse_rfc3339(since))
    except ValueError:
        return "?"


def count_of(number: int, noun: str) -> str:
    """Return the number with its noun: "1 Score", "2 Scores"."""
    return f"{number} {noun}{'s' * (number != 1)}"
