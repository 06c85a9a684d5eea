"""The code in a Markdown page, so that the page can be run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["files_in", "shell_in", "untested_in"]

_FENCE = re.compile(r"^```(\w*)(?: +file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROSE = {"", "console"}
"""Pictures of trees, and what is typed at a prompt."""


def files_in(page: Path) -> Mapping[str, str]:
    """The files that *page* shows, by name. Blocks of one name are parts of one file, in order."""
    files: dict[str, str] = {}
    for _, name, code in _FENCE.findall(page.read_text()):
        if name:
            files[name] = f"{files[name]}\n\n{code}" if name in files else code
    return files


def untested_in(page: Path) -> list[str]:
    """Blocks of code that no file is made of."""
    return [
        code
        for kind, name, code in _FENCE.findall(page.read_text())
        if not name and kind not in _PROSE
    ]


def shell_in(page: Path) -> list[list[str]]:
    """The words of each command that *page* shows, as a user or as root."""
    console = "".join(
        code for kind, _, code in _FENCE.findall(page.read_text()) if kind == "console"
    )
    commands: list[str] = [
        line[2:] for line in console.splitlines() if line.startswith(("$ ", "# "))
    ]
    return [command.split() for command in commands]
