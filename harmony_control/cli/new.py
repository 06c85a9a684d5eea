"""``harmony new``: a small folder of Scores that converges as it is, to begin with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from harmony_core.errors import UsageError

from .common import out
from .exits import CONVERGED

__all__ = ["run"]

_MADE_BY_PYTHON = "__pycache__"


def run(options: argparse.Namespace) -> int:
    """Write the folder. Raise `UsageError`, and write nothing, where one of its files exists already."""
    folder = Path(options.folder)
    templates = resources.files("harmony_control") / "templates"
    files = dict(_files(templates / options.template.replace("-", "_"), folder))
    for path in files:
        if path.is_symlink() or path.exists():
            raise UsageError(f"{path} is there already, and is left as it is; name another folder")
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(content)
            out(options, {"event": "wrote", "file": str(path)}, f"wrote {path}")
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be written: {error.strerror}; name a folder that can be"
        ) from error
    return CONVERGED


def _files(template: Traversable, folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each file to be written, with its content."""
    for each in sorted(template.iterdir(), key=lambda each: each.name):
        if each.is_file():
            yield folder / each.name, each.read_bytes()
        elif each.name != _MADE_BY_PYTHON:
            yield from _files(each, folder / each.name)
