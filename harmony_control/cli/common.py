"""What every command shares: the home, and how things are printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from harmony_control.bus_url import is_loopback
from harmony_control.store.home import Home
from harmony_core.outcome_words import indent

if TYPE_CHECKING:
    from rich.console import Console

    from harmony_core.wire.envelope import Signer

__all__ = [
    "console",
    "home_of",
    "is_live",
    "note",
    "out",
    "signers_of",
    "try_address",
    "warn",
    "warn_of_loopback",
]

_UNCUT = 10_000
"""Columns, where no terminal sets a limit: whoever reads a pipe gets every word on one line."""


def home_of(options: argparse.Namespace) -> Home:
    """Return the operator's directory that the options name."""
    return Home.of(options.home)


def signers_of(options: argparse.Namespace) -> list[Signer]:
    """Return the further signers that ``--sign-with`` names, beside the operator's own key. Raise
    `ConfigError` or `UsageError`."""
    if not options.sign_with:
        return []
    from harmony_control.signers import load_signer

    return [load_signer(each) for each in options.sign_with]


def out(options: argparse.Namespace, document: Mapping[str, object], text: str) -> None:
    """Print *document* as a line of JSON, or *text* for people."""
    print(json.dumps(document) if options.json else text, flush=True)


def note(options: argparse.Namespace, message: str) -> None:
    """Print *message*, which is no warning, apart from the output proper."""
    text = f"harmony: note: {indent(message)}"
    print(json.dumps({"note": message}) if options.json else text, file=sys.stderr, flush=True)


def warn(options: argparse.Namespace, message: str) -> None:
    """Print the warning *message*, apart from the output proper."""
    text = f"harmony: warning: {indent(message)}"
    print(json.dumps({"warning": message}) if options.json else text, file=sys.stderr, flush=True)


def try_address(options: argparse.Namespace, home: Home, url: str | None) -> None:
    """Try the address that is about to be written for others, unless ``--no-try`` is given. Raise
    `BusUnreachable`."""
    import asyncio

    from harmony_control.enrol import try_url

    if options.is_tried and not asyncio.run(try_url(home, url)):
        note(options, "the server's address was not tried, since `harmony server` does not run")


def warn_of_loopback(options: argparse.Namespace, url: str) -> None:
    """Warn where *url*, which somebody on another machine gets, leads nowhere from there."""
    if is_loopback(url):
        warn(
            options,
            f"{url} leads back to the machine that uses it, so it is of use on this one only. For others, "
            "end `harmony server`, start it with `--listen 0.0.0.0:4222`, and do this again",
        )


def is_live(options: argparse.Namespace, stream: TextIO | None = None) -> bool:
    """Return whether what *stream*, by default standard output, shows may be redrawn: it is a terminal, and
    the output is not JSON."""
    is_seen = (stream or sys.stdout).isatty()
    return is_seen and not options.json and os.environ.get("TERM") != "dumb"


def console(options: argparse.Namespace, stream: TextIO | None = None) -> Console:
    """Return the console for drawing on *stream*, by default standard output. It has colours on a terminal,
    unless somebody asked for plain text (no-color.org)."""
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # where rich would end the program, as if a Score had failed

    return Ours(
        file=stream,
        no_color=options.no_color or bool(os.environ.get("NO_COLOR")),
        width=None if (stream or sys.stdout).isatty() else _UNCUT,
        highlight=False,
        markup=False,
        emoji=False,
    )
