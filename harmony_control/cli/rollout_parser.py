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
    """Add the subcommands to *made*. *cosigning* adds the option for further signers."""
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

    what("list", "list all classes, with the state of their rollouts")
    of_class(
        "status", "show the state of a rollout, wave by wave and device by device"
    ).add_argument(
        "--follow",
        action="store_true",
        help="keep showing it until the rollout is done or aborted; opens no waves",
    )
    of_class(
        "history", "list the newest gates of the class (at most 64), each with its time and reason"
    ).add_argument(
        "--follow", action="store_true", help="also list each new gate, until interrupted"
    )
    cosigning(of_class("run", "open wave after wave, until the rollout is done or aborted"))
    for name, text in (
        ("pause", "pause the rollout: no more devices start, and none go back"),
        ("resume", "continue a paused rollout"),
        (
            "abort",
            "abort the rollout: devices that have started go back to the previous generation",
        ),
        ("promote", "open the next wave now"),
    ):
        verb = of_class(name, text)
        verb.add_argument("--reason", metavar="TEXT", help="the reason, which the history shows")
        if name == "promote":
            verb.add_argument(
                "--full",
                dest="verb",
                action="store_const",
                const="promote --full",
                default=argparse.SUPPRESS,
                help="open all waves at once",
            )
        cosigning(verb)
    cosigning(what("key", "let a gate.key open waves; the key is made if there is none"))
