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
    """Add the verbs to *made*."""
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="verb")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        verb = whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        takes_agent(verb)
        if name != "list":
            verb.add_argument("volume", metavar="VOLUME", help="its name on the device")
        return verb

    what("list", "list the volumes of a device, and who has each; as `harmony volumes`")
    saved = what(
        "save", "write all that is in a volume to a file of this machine, as a tar archive"
    )
    completes_files(
        saved.add_argument(
            "file", metavar="FILE", help="where to; not there yet; - is standard output"
        )
    )
    saved.add_argument(
        "--stop",
        action="store_true",
        help="stop the containers that have it meanwhile, so that they write what they hold back (else: "
        "pause them)",
    )
    loaded = what("load", "replace all that is in a volume by what is in such a file (asks first)")
    completes_files(
        loaded.add_argument("file", metavar="FILE", help="a tar archive, - is standard input")
    )
    loaded.add_argument(
        "--keep-previous",
        action="store_true",
        help="keep the data from before on the device, beside the new; it says where",
    )
    loaded.add_argument("--yes", action="store_true", help="do not ask")
