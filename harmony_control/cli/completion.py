"""``harmony completion bash``: to be sourced by, or installed for, the shell.

Devices, Scores, kinds and operators are completed by asking this very command (``--list``), which reads
this machine's own files and asks nobody else.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import shtab

from harmony_control.store.home import Home
from harmony_control.unverified import read_unverified
from harmony_core.errors import HarmonyError
from harmony_core.wire.names import is_id

from .common import home_of
from .parser import parser

__all__ = ["run"]

_BASH = """
_harmony_names() { compgen -W "$(harmony completion --list "$1" 2>/dev/null)" -- "$2"; }
_harmony_devices() { _harmony_names devices "$1"; }
_harmony_scores() { _harmony_names scores "$1"; }
_harmony_kinds() { _harmony_names kinds "$1"; }
_harmony_operators() { _harmony_names operators "$1"; }
"""
_ZSH = """
_harmony_devices() { compadd -- $(harmony completion --list devices 2>/dev/null) }
_harmony_scores() { compadd -- $(harmony completion --list scores 2>/dev/null) }
_harmony_kinds() { compadd -- $(harmony completion --list kinds 2>/dev/null) }
_harmony_operators() { compadd -- $(harmony completion --list operators 2>/dev/null) }
"""
_PREAMBLES: Any = {"bash": _BASH, "zsh": _ZSH}  # typed as text there, and taken as this


def run(options: argparse.Namespace) -> int:
    """Print the completion script, or the names that the script asks for."""
    if options.list:
        for name in _names(options.list, home_of(options)):
            print(name)
        return 0
    print(shtab.complete(parser(), shell=options.shell, preamble=_PREAMBLES))
    return 0


def _names(what: str, home: Home) -> Iterable[str]:
    """Return all names of that sort that are known here; none where something cannot be read, since nobody
    reads an error here."""
    try:
        if what == "kinds":
            from harmony_core import plugins

            return sorted(score.kind for score in plugins.load())
        if what == "operators":
            files = (*home.operators.glob("*.pub"), *home.readers.glob("*.pub"))
            # The shell expands what it is offered, and a file here may have been put by hand.
            return sorted({path.stem for path in files if is_id(path.stem)})
        devices = sorted({*home.agents(), *home.agents_pushed_to()})
        if what == "devices":
            return devices
        return sorted({score for each in devices for score in _scores(home, each)})
    except HarmonyError:
        return ()


def _scores(home: Home, agent_id: str) -> list[str]:
    """Return the ids in what was last pushed from here. They are not verified: they only complete what is
    typed."""
    envelope = home.read_stored_manifest(agent_id)
    if envelope is None:
        return []
    scores: Any = read_unverified(envelope).get("scores")
    try:
        # The shell expands what it is offered: nothing but what may be an id.
        return [name for name in map(_read_id, scores) if is_id(name)]
    except TypeError:
        return []


def _read_id(entry: Any) -> str:
    try:
        return str(entry["id"])
    except (TypeError, LookupError, RecursionError):
        return ""
