"""``harmony retire``: take a device out of the fleet for good, and forget it."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.fleet import Fleet
from harmony_control.over_ssh import uninstall
from harmony_control.store.home import check_agent_id

from .common import home_of, out
from .confirm import confirm
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Ask the person at the terminal, and retire the device."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        device = fleet.device(agent_id)
        await device.check_retirable()
        state = await device.state()
        scores = sorted(state.scores) if state is not None else []
        if not options.yes and not await confirm(_question(agent_id, scores, options.uninstall)):
            out(options, {"event": "not retired"}, "nothing was changed")
            return CONVERGED
        if options.uninstall:
            # First: while it is not reached, nothing is changed, and all of this can be done again.
            await uninstall(options.uninstall, agent_id, ssh=options.ssh, sudo=options.sudo)
        await device.retire()
    out(
        options,
        {"event": "retired", "agent": agent_id, "scores": scores},
        f"{agent_id} is retired: its key is revoked, and nothing else of it is kept here or on the server. "
        + _what_stays(scores, options.uninstall),
    )
    return CONVERGED


def _question(agent_id: str, scores: list[str], uninstalled: str | None) -> str:
    lines = [
        f"revoke the key of {agent_id}, and delete all that is kept of it here and on the server?"
    ]
    if scores:
        lines.insert(
            0,
            "what its Scores made stays on it; to have that taken away, say no, and first: harmony "
            f"remove-score {agent_id} {' '.join(scores)}",
        )
    if uninstalled:
        lines.insert(0, f"the agent is removed from {uninstalled}, with what it keeps there")
    return "\n".join(lines)


def _what_stays(scores: list[str], uninstalled: str | None) -> str:
    what = f"What its Scores made ({', '.join(scores)}) stays on the device" if scores else ""
    if uninstalled:
        return f"{what}{'. ' if what else ''}The agent is gone from {uninstalled}"
    there = (
        "On the device, the agent goes on with what it has, until you end it there: systemctl disable --now "
        "harmony-agent"
    )
    return f"{what}{'. ' if what else ''}{there}"
