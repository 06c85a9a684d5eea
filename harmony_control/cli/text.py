"""Text for people's eyes. Much of it was written by a device, its programs, or whoever broke into it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from harmony_control.amounts import amount
from harmony_core.change import Progress
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success
from harmony_core.visible import visible
from harmony_core.wire.times import parse_rfc3339

__all__ = [
    "age",
    "age_of",
    "count_of",
    "describe_outcome",
    "indent",
    "shorten",
    "state_word",
    "status_word",
    "style_of",
]

_SHA256 = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")


def indent(text: str, by: int = 4) -> str:
    """Return `visible` *text* with every line but the first moved in: what others wrote never begins a line
    of ours."""
    return visible(text).replace("\n", "\n" + " " * by)


def describe_outcome(outcome: Outcome) -> str:
    """Return an Outcome in words: what it waits for, how far it is, or what is wrong, its last lines
    included."""
    match outcome:
        case Failure(error=error):
            retry = f"again at {error.retry_at}" if error.retry_at else "permanent"
            # Before the message, since its last lines may follow it.
            text = f"{error.code} ({retry}): {error.message}"
        case Running(reason="Progressing", progress=progress) if progress is not None:
            text = f"{outcome.message} {_how_far(progress)}".strip()
        case Running():
            text = f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason
        case Success() | Noop():
            text = outcome.message
    return indent(shorten(text))


def _how_far(progress: Progress) -> str:
    if not progress.total:
        return amount(progress.done, progress.unit)
    if progress.unit != "bytes":
        return f"{progress.done} of {amount(progress.total, progress.unit)}"
    return f"{amount(progress.done, 'bytes')} of {amount(progress.total, 'bytes')}"


def status_word(outcome: Outcome) -> str:
    """Return an Outcome's status for people: what was so already is unchanged."""
    return "unchanged" if isinstance(outcome, Noop) else outcome.status


def state_word(state: str) -> str:
    """Return a resource's state for people: ``present``, ``not needed``. What is unknown here comes out as
    words."""
    return _STATES.get(state) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", state).lower()


_STATES = {"PresentAt": "present", "DirectoryAt": "directory", "InProgress": "running"}


def style_of(outcome: Outcome) -> str:
    """Return the colour of an Outcome, as rich names it (and `painted`)."""
    match outcome:
        case Success():
            return "bold green"
        case Noop():
            return "green"
        case Running():
            return "yellow"
        case Failure():
            return "bold red"


def shorten(text: str) -> str:
    """Return *text* with its digests cut to what people compare."""
    return _SHA256.sub(r"\1…", text)


def age(when: datetime) -> str:
    """Return roughly how long ago it was: ``12 s``, ``5 min``, ``3 h``, ``9 d``."""
    seconds = max((datetime.now(UTC) - when).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def age_of(since: str) -> str:
    """Return the `age` of a time as it stands on the wire; ``?`` of what is none."""
    try:
        return age(parse_rfc3339(since))
    except ValueError:
        return "?"


def count_of(number: int, noun: str) -> str:
    """Return "1 Score", "2 Scores"."""
    return f"{number} {noun}{'s' * (number != 1)}"
