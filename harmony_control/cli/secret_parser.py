"""What can be typed after ``harmony secret``. Imports nothing but argparse, as `.parser` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_secret"]


def add_secret(
    made: argparse.ArgumentParser,
    common: argparse.ArgumentParser,
    completes_files: Callable[[argparse.Action], None],
) -> None:
    """Add the verbs to *made*."""
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="verb")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        return whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    kept = what("set", "keep a value, from standard input; a terminal is asked, without echo")
    kept.add_argument("secret", metavar="NAME", help="its name, such as db.password")
    completes_files(
        kept.add_argument("--file", metavar="FILE", help="the value is what is in that file")
    )
    what("list", "list the names of all, with when each was set; never a value")
    what("share", "seal all to the operators that are known by now (`harmony add-operator`)")
    accepted = what("accept-key", "have a device's secrets sealed to another key of it from now on")
    accepted.add_argument("agent", metavar="DEVICE", help="its id")
    accepted.add_argument("key", metavar="KEY", help="the first 16 digits of the key's id, or more")
    removed = what("remove", "forget one; devices have it until its Score is pushed without it")
    removed.add_argument("secret", metavar="NAME", help="its name")
