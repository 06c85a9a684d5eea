"""``harmony import``: print what somebody runs today as a Score file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from harmony_control.importing.draft import Imported
from harmony_core import plugins
from harmony_core.plugins import Registry

from .common import warn
from .exits import CONVERGED
from .score_files import compose_settings

__all__ = ["run"]


def _run(options: argparse.Namespace, registry: Registry) -> Imported:
    from harmony_control.importing.command_line import import_command

    return import_command(options.words or [sys.stdin.read()], registry)


def _quadlet(options: argparse.Namespace, registry: Registry) -> Imported:
    from harmony_control.importing.quadlet import import_quadlets

    return import_quadlets([Path(each) for each in options.files], registry)


def _compose(options: argparse.Namespace, registry: Registry) -> Imported:
    from harmony_control.importing.compose import import_compose

    return import_compose(options.files, registry, compose_settings(options))


_FORMS: Mapping[str, Callable[[argparse.Namespace, Registry], Imported]] = {
    "run": _run,
    "quadlet": _quadlet,
    "compose": _compose,
}


def run(options: argparse.Namespace) -> int:
    """Print the Score file. Report on standard error what has no meaning here."""
    from harmony_control.importing.written import plain, write_python, write_yaml

    imported = _FORMS[options.form](options, plugins.load())
    for note in imported.notes:
        warn(options, note)
    if options.json:
        print(json.dumps(plain(imported.entries)))
    else:
        write = write_python if options.python else write_yaml
        print(write(imported.entries), end="")
    return CONVERGED
