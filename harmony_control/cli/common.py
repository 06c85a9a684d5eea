"""What every command shares: the home, and how things are printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_control.home import Home

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "home_of", "is_live", "out"]


def home_of(options: argparse.Namespace) -> Home:
    """The operator's directory that was asked for."""
    return Home(Path(options.home).expanduser()) if options.home else Home.find()


def out(options: argparse.Namespace, document: Mapping[str, object], text: str) -> None:
    """Print *document* as a line of JSON, or *text* for people."""
    print(json.dumps(document) if options.json else text, flush=True)


def is_live(options: argparse.Namespace) -> bool:
    """Whether somebody watches a terminal."""
    return sys.stdout.isatty() and not options.json and os.environ.get("TERM") != "dumb"


def console(options: argparse.Namespace) -> Console:
    """Where tables go. Coloured on a terminal, unless it shall not be (no-color.org)."""
    from rich.console import Console

    plain = options.no_color or bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    return Console(no_color=plain, highlight=False, markup=False, emoji=False)
