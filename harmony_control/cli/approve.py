"""``harmony approve AGENT``: let a device remove what it holds back, because it is very much at once."""

from __future__ import annotations

import argparse
import asyncio
import sys

from harmony_control.fleet import Fleet, removals_held
from harmony_core.errors import UsageError

from .common import home_of, out
from .exits import CONVERGED
from .push import followed

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """0 when all of it is gone, or nothing was held back."""
    return asyncio.run(_approve(options))


async def _approve(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        device = fleet.device(options.agent)
        state = await device.state()
        for score_id, count in sorted(removals_held(state).items()):
            document = {"event": "held", "id": score_id, "resources": count}
            out(options, document, f"{score_id:<20} {count} to remove")
        if state is None or not state.removals_held:
            out(options, {"event": "nothing held"}, f"{device.id} holds nothing back")
            return CONVERGED
        if not options.yes and not await _agreed(state.removals_held):
            out(options, {"event": "not approved"}, "nothing was changed")
            return CONVERGED
        return await followed(options, device, await device.approve())


async def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here; say --yes to remove what is listed")
    answer = await asyncio.to_thread(input, f"remove these resources, {count} in all? [y/N] ")
    return answer.strip().lower() in {"y", "yes"}
