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
    """Add the subcommands to *made*. *completes_files* marks an argument that is completed as a file name."""
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="verb")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        return whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    kept = what("set", "store a value from standard input; at a terminal, ask for it without echo")
    kept.add_argument("secret", metavar="NAME", help="the secret's name, such as db.password")
    completes_files(kept.add_argument("--file", metavar="FILE", help="read the value from FILE"))
    what("list", "list the names of the secrets, and when each was set; never a value")
    what("share", "encrypt all secrets for the current operators (`harmony add-operator`)")
    accepted = what(
        "accept-key", "encrypt a device's secrets with another key of the device from now on"
    )
    accepted.add_argument("agent", metavar="DEVICE", help="the device's id")
    accepted.add_argument("key", metavar="KEY", help="at least the first 16 digits of the key's id")
    removed = what(
        "remove", "delete a secret; devices keep it until you push their Scores without it"
    )
    removed.add_argument("secret", metavar="NAME", help="the secret's name")
