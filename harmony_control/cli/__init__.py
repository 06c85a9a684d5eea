"""The ``harmony`` command. Each command is a module of its own, imported when it is the one to run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from .parser import parser

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `harmony_control.cli.exits` says what the codes mean."""
    try:
        options = parser().parse_args(arguments)
        options.json = options.json or options.output == "json"

        from importlib import import_module

        from .exits import exit_code_of, say

        try:
            # Loading makes many objects and no garbage, so there is nothing to look for until it is over.
            gc.disable()
            module = import_module(f"harmony_control.cli.{options.module}")
            gc.enable()
            status = int(module.run(options))
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            return _nobody_reads()
        except Exception as error:  # noqa: BLE001 - a person gets a sentence, not a traceback
            say(error, as_json=options.json)
            return exit_code_of(error)
    except KeyboardInterrupt:
        print("harmony: interrupted", file=sys.stderr)
        return 130


def _nobody_reads() -> int:
    """Drop the rest of the output, whose reader has closed it (``harmony status | head``), and return the
    exit code."""
    # What is still in the buffer must not fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # as if by SIGPIPE: what became of the rest nobody was told
