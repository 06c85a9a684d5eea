"""``harmony agents``: every device, and whether it is heard."""

from __future__ import annotations

import argparse
import asyncio
import json

from harmony_control.bus.connection import admin
from harmony_control.bus.reports import Seen, all_seen
from harmony_core.wire.times import rfc3339

from .agents_view import agents_table
from .common import console, home_of
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print them."""
    seen = asyncio.run(_seen(options))
    if options.json:
        for each in seen:
            print(json.dumps(_document(each)))
    elif not seen:
        print("no device is enrolled yet; begin with: harmony add-agent ID")
    else:
        console(options).print(agents_table(seen))
    return CONVERGED


async def _seen(options: argparse.Namespace) -> list[Seen]:
    home = home_of(options)
    async with admin(home) as client:
        return await all_seen(client, await asyncio.to_thread(home.agents))


def _document(seen: Seen) -> dict[str, object]:
    state = seen.state
    return {
        "agent_id": seen.agent_id,
        "presence": seen.presence,
        "at": rfc3339(seen.at) if seen.at else None,
        "generation": state.generation if state else None,
        "observed_generation": state.observed_generation if state else None,
        "agent_version": state.agent_version if state else None,
        "problem": seen.problem,
    }
