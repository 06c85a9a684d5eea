"""``harmony agents``: every device, and whether it is heard."""

from __future__ import annotations

import argparse
import asyncio
import json

from rich.console import Console

from harmony_control.fleet import Fleet

from .common import coloured, home_of
from .exits import CONVERGED
from .status import agents_table

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print them."""
    return asyncio.run(_agents(options))


async def _agents(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options)) as fleet:
        seen = await fleet.agents()
    if options.json:
        for each in seen:
            state = each.state
            document = {
                "agent_id": each.agent_id,
                "silent": each.is_silent,
                "generation": state.generation if state else None,
                "agent_version": state.agent_version if state else None,
            }
            print(json.dumps(document))
    elif not seen:
        print("no device is enrolled yet; begin with: harmony add-agent ID")
    else:
        Console(no_color=not coloured(options), highlight=False).print(agents_table(seen))
    return CONVERGED
