"""``harmony server``: the bus, in the foreground until interrupted."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.server.process import running

from .common import home_of, out

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; at once 0 when it runs already."""
    return asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    home = home_of(options)
    async with running(home, listen=options.listen, fleet=options.fleet) as server:
        fleet = home.control().fleet
        state = "running" if server.started_here else "running already"
        out(
            options,
            {"event": "server", "url": server.url, "pid": server.pid, "fleet": fleet},
            f"fleet {fleet}: {state} at {server.url} (pid {server.pid}), home {home.root}",
        )
        if server.started_here:
            await server.wait()
    return 0
