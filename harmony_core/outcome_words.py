"""Outcomes in words, for people: the same on an operator's machine and on the device."""

from __future__ import annotations

import re

from .amounts import amount
from .change import Progress
from .outcome import Failure, Noop, Outcome, Running, Success
from .visible import visible

__all__ = ["describe_outcome", "indent", "shorten", "status_word"]

_SHA256 = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")


def describe_outcome(outcome: Outcome) -> str:
    """Return an Outcome in words: what it waits for, its progress, or what is wrong, with its last lines."""
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
    """Return an Outcome's status for people: NOOP is "unchanged"."""
    return "unchanged" if isinstance(outcome, Noop) else outcome.status


def indent(text: str, by: int = 4) -> str:
    """Return `visible` *text* with every line but the first indented: text of others never begins a line of
    ours."""
    return visible(text).replace("\n", "\n" + " " * by)


def shorten(text: str) -> str:
    """Return *text* with its digests cut to the length that people compare."""
    return _SHA256.sub(r"\1…", text)
