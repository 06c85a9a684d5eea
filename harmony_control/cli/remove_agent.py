"""``harmony remove-agent``: revoke a device's key, and forget the device."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.bus.connection import admin
from harmony_control.enrol import remove_agent
from harmony_control.store.home import check_agent_id

from .common import home_of, out
from .confirm import confirm
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Ask the person at the terminal, and remove the device."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    home, agent_id = home_of(options), check_agent_id(options.agent)
    async with admin(home) as client:
        question = f"revoke the key of {agent_id}, and delete its Scores and its history here?"
        if not options.yes and not await confirm(question):
            out(options, {"event": "not removed"}, "nothing was changed")
            return CONVERGED
        await remove_agent(home, client, agent_id)
    out(
        options,
        {"event": "remove-agent", "agent": agent_id},
        f"{agent_id} is removed: its key is revoked, and nothing of it is kept here. What runs "
        "on the device stays; to remove that too, remove its Scores first",
    )
    return CONVERGED
