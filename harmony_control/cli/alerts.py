"""``harmony alerts test FILE``: is everybody reached whom `harmony serve --alerts FILE` is to tell?"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from harmony_core.visible import word

from .common import home_of, out
from .exits import CONVERGED, FAILED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Send a test through every channel in the file. Return 1 where a channel did not accept it, 2 where the
    file is wrong."""
    return asyncio.run(_test(options))


async def _test(options: argparse.Namespace) -> int:
    from harmony_control.alerts.channels import make_channels
    from harmony_control.alerts.notifier import send_test
    from harmony_control.alerts.settings import read_settings

    settings = await asyncio.to_thread(read_settings, Path(options.file))
    config = await asyncio.to_thread(home_of(options).control)
    problems = await send_test(make_channels(settings), config.fleet)
    for name, problem in problems.items():
        said = f"it was not taken: {word(problem)}" if problem else "a test was taken"
        out(options, {"channel": name, "ok": not problem, "problem": problem}, f"{name}: {said}")
    return FAILED if any(problems.values()) else CONVERGED
