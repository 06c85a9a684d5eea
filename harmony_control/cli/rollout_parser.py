"""What can be typed after ``harmony rollout``. Imports nothing but argparse, as `.parser` does.

Each verb takes what it heeds and no more: what it would pass over, argparse refuses.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_rollout"]


def add_rollout(
    made: argparse.ArgumentParser,
    common: argparse.ArgumentParser,
    cosigning: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the verbs to *made*. *cosigning* adds who else is to sign."""
    made.set_defaults(sign_with=None)
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="verb")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        return whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    def of_class(name: str, text: str) -> argparse.ArgumentParser:
        verb = what(name, text)
        verb.add_argument("cls", metavar="CLASS", help="the class")
        return verb

    what("list", "list all classes, and how each stands")
    of_class("status", "show how it stands, wave by wave and device by device").add_argument(
        "--follow",
        action="store_true",
        help="look again until it is done or was aborted; opens nothing",
    )
    of_class(
        "history", "list the newest gates of the class, 64 at most, each with when and why"
    ).add_argument(
        "--follow", action="store_true", help="go on with each that comes, until it is interrupted"
    )
    cosigning(of_class("run", "open wave after wave, until it is done or was aborted"))
    for name, text in (
        ("pause", "have nobody begin any more, and nobody go back"),
        ("resume", "go on after a pause"),
        ("abort", "have who has begun go back to what the class was before"),
        ("promote", "open the next wave now"),
    ):
        verb = of_class(name, text)
        verb.add_argument("--reason", metavar="TEXT", help="why, for whoever reads the history")
        if name == "promote":
            verb.add_argument(
                "--full",
                dest="verb",
                action="store_const",
                const="promote --full",
                default=argparse.SUPPRESS,
                help="to all devices at once",
            )
        cosigning(verb)
    cosigning(what("key", "make a gate.key, or take the one that is here, and let it open waves"))
