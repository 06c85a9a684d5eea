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
    """Add to *made* the formats that can be imported; each is a function in `.import_scores` as well.

    *add_compose* adds the options of all commands that read compose files.
    """
    forms = made.add_subparsers(required=True, metavar="FORM", dest="form")

    def form(name: str, text: str) -> argparse.ArgumentParser:
        reader = forms.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )
        reader.add_argument(
            "--python", action="store_true", help="print a Python Score file instead of YAML"
        )
        return reader

    form("run", "convert a podman run or docker run command").add_argument(
        "words",
        nargs="*",
        metavar="COMMAND",
        help="the command in quotes, or its words after --; if there is none, read it from "
        "standard input",
    )
    completing_files(
        form(
            "quadlet", "convert Quadlet files of podman: .container, .volume, .network"
        ).add_argument("files", nargs="+", metavar="FILE", help="all files that belong together")
    )
    project = form(
        "compose", "convert compose files: each service, volume and network becomes a Score"
    )
    completing_files(
        project.add_argument(
            "files",
            nargs="+",
            metavar="FILE",
            help="the compose files; files in the same directory are one project",
        )
    )
    add_compose(project)
