"""The Score files that a command names, with what it says of compose files among them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .common import note

if TYPE_CHECKING:
    from harmony_control.compose.read import ComposeSettings
    from harmony_control.device import Pushable
    from harmony_pi_topology import PiTopology

__all__ = ["compose_settings", "read_files"]


def read_files(
    options: argparse.Namespace, files: Sequence[str]
) -> Mapping[str, Pushable[PiTopology]]:
    """Return the entries of *files*. Call this before any event loop runs: a Python file may run its own."""
    from harmony_control.score_files.read import read_score_files
    from harmony_core import plugins

    return read_score_files(files, plugins.load(), compose_settings(options))


def compose_settings(options: argparse.Namespace) -> ComposeSettings:
    """Return the options for compose files. Notes about such files are printed apart from the output
    proper."""
    from harmony_control.compose.read import ComposeSettings

    return ComposeSettings(
        profiles=options.profile,
        env_files=options.env_file,
        tell=lambda message: note(options, message),
    )
