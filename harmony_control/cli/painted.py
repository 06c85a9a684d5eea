"""Words in colour: what is shown line by line, and so needs no library that lays out tables.

A view of this kind is a list of `Words`. On a terminal `painted` makes one text of them; what changes in
place or stands in columns is shown by rich, which takes the same pairs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Words", "in_colour", "paint"]

Words: TypeAlias = tuple[str, str]
"""A text and its style, in rich's words: "", "bold", "dim", a colour, or several of them."""

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def paint(words: Iterable[Words], *, colour: bool) -> str:
    """Return *words* as one text, with the terminal's codes for each style if *colour*."""
    return "".join(_colour(text, style) if colour and style else text for text, style in words)


def in_colour(options: argparse.Namespace) -> bool:
    """Return whether standard output is a terminal, and nobody has asked for plain text (no-color.org)."""
    if options.no_color or os.environ.get("NO_COLOR"):
        return False
    return sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _colour(text: str, style: str) -> str:
    codes = ";".join(_CODES[each] for each in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"
