"""The ``harmony`` command. Each command is a module of its own, imported when it is the one to run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .parser import parser

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. See `harmony_control.cli.exits` for what they mean."""
    options = parser().parse_args(arguments)
    from importlib import import_module

    from .exits import exit_code_of, say

    module = import_module(f"harmony_control.cli.{options.module}")
    try:
        return int(module.run(options))
    except BrokenPipeError:
        # Whoever read our output has seen enough: `harmony status | head`.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - a person gets a sentence, not a traceback
        say(error, as_json=options.json)
        return exit_code_of(error)
