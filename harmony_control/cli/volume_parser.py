"""What can be typed after ``harmony volume``. Imports nothing but argparse, as `.parser` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_volume"]


def add_volume(
    made: argparse.ArgumentParser,
    common: argparse.ArgumentParser,
    takes_agent: Callable[[argparse.ArgumentParser], None],
    completes_files: Callable[[argparse.Action], None],
) -> None:
    """Add the subcommands to *made*."""
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="verb")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        verb = whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        takes_agent(verb)
        if name != "list":
            verb.add_argument("volume", metavar="VOLUME", help="the volume's name on the device")
        return verb

    what("list", "list the volumes of a device, with their owners; same as `harmony volumes`")
    saved = what("save", "save the content of a volume to a tar archive on this machine")
    completes_files(
        saved.add_argument(
            "file", metavar="FILE", help="output file; must not exist; - is standard output"
        )
    )
    saved.add_argument(
        "--stop",
        action="store_true",
        help="stop the containers that use it meanwhile, so that they write all their data "
        "(default: pause them)",
    )
    loaded = what(
        "load", "replace the content of a volume with the content of a tar archive (asks first)"
    )
    completes_files(
        loaded.add_argument("file", metavar="FILE", help="a tar archive, - is standard input")
    )
    loaded.add_argument(
        "--keep-previous",
        action="store_true",
        help="keep the old data on the device, beside the new data, and print where",
    )
    loaded.add_argument("--yes", action="store_true", help="do not ask")
