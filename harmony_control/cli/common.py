"""What every command shares: the home, and how things are printed."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from harmony_control.home import Home
from harmony_core.outcome import Failure, Noop, Outcome, Running, Success

__all__ = ["coloured", "home_of", "is_live", "out", "shortened", "style_of", "told"]

_SHA256 = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")


def home_of(options: argparse.Namespace) -> Home:
    """The operator's directory that was asked for."""
    return Home(Path(options.home).expanduser()) if options.home else Home.find()


def out(options: argparse.Namespace, document: Mapping[str, object], text: str) -> None:
    """Print *document* as a line of JSON, or *text* for people."""
    print(json.dumps(document) if options.json else text, flush=True)


def is_live(options: argparse.Namespace) -> bool:
    """Whether somebody watches a terminal."""
    return sys.stdout.isatty() and not options.json and os.environ.get("TERM") != "dumb"


def coloured(options: argparse.Namespace) -> bool:
    """Whether colours are wanted (no-color.org)."""
    return sys.stdout.isatty() and not options.no_color and not os.environ.get("NO_COLOR")


def style_of(outcome: Outcome) -> str:
    """The colour of an Outcome, as rich names it."""
    match outcome:
        case Success():
            return "bold green"
        case Noop():
            return "green"
        case Running():
            return "yellow"
        case Failure():
            return "bold red"


def told(outcome: Outcome) -> str:
    """An Outcome in one line: what it waits for, how far it is, or what is wrong."""
    return shortened(_told(outcome))


def shortened(text: str) -> str:
    """*text* with digests cut to what people compare."""
    return _SHA256.sub(r"\1…", text)


def _told(outcome: Outcome) -> str:
    match outcome:
        case Failure(error=error):
            retry = f" (again at {error.retry_at})" if error.retry_at else " (permanent)"
            return f"{error.code}: {error.message}{retry}"
        case Running(progress=progress) if progress is not None:
            of = f" of {_amount(progress.total, progress.unit)}" if progress.total else ""
            return f"{outcome.message} {_amount(progress.done, progress.unit)}{of}".strip()
        case Running():
            return f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason
        case Success() | Noop():
            return outcome.message


def _amount(count: int, unit: str) -> str:
    if unit != "bytes":
        return f"{count} {unit}"
    for name, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count} B"
