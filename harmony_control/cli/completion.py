"""``harmony completion bash``: to be sourced by, or installed for, the shell."""

from __future__ import annotations

import argparse

import shtab

from .parser import parser

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    print(shtab.complete(parser(), shell=options.shell))
    return 0
