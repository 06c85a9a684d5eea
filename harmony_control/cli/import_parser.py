"""What can be typed after ``harmony import``. Imports nothing but argparse, as `.parser` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_import"]


def add_import(
    made: argparse.ArgumentParser,
    common: argparse.ArgumentParser,
    completing_files: Callable[[argparse.Action], None],
    add_compose: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the forms that can be imported to *made*: each is a function in `.import_scores` as well.

    *add_compose* adds what all commands have that read compose files.
    """
    forms = made.add_subparsers(required=True, metavar="FORM", dest="form")

    def form(name: str, text: str) -> argparse.ArgumentParser:
        reader = forms.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        reader.add_argument(
            "--python", action="store_true", help="print a Python Score file in place of YAML"
        )
        return reader

    form("run", "read a command: podman run, or docker run").add_argument(
        "words",
        nargs="*",
        metavar="COMMAND",
        help="the command in quotes, or its words after --, or nothing: it is read from standard input",
    )
    completing_files(
        form(
            "quadlet", "read files of podman's Quadlet: .container, .volume, .network"
        ).add_argument("files", nargs="+", metavar="FILE", help="all that belong together")
    )
    project = form("compose", "read compose files: each service, volume and network as a Score")
    completing_files(
        project.add_argument(
            "files", nargs="+", metavar="FILE", help="those of one directory are one project"
        )
    )
    add_compose(project)
