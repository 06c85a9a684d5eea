"""``harmony retire AGENT …``: take devices out of the fleet for good, and forget them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

from harmony_control.fleet import Fleet
from harmony_control.over_ssh import uninstall
from harmony_core.errors import UsageError

from .common import home_of, out
from .confirm import confirm
from .exits import CONVERGED
from .targets import list_ids

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Ask the person at the terminal, and retire the devices: all, or none where one is not known."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    ids = list_ids(options.agents)
    if options.uninstall and len(ids) > 1:
        raise UsageError("--uninstall names the host of one device; retire each by itself with it")
    async with Fleet.connect(home_of(options)) as fleet:
        await fleet.check_retirable(*ids)
        scores = {each: await _read_scores(fleet, each) for each in ids}
        if not options.yes and not await confirm(_question(scores, options.uninstall)):
            out(options, {"event": "not retired"}, "nothing was changed")
            return CONVERGED
        if options.uninstall:
            # First: while it is not reached, nothing is changed, and all of this can be done again.
            await uninstall(options.uninstall, ids[0], ssh=options.ssh, sudo=options.sudo)
        await fleet.retire(*ids)
    for each in ids:
        out(
            options,
            {"event": "retired", "agent": each, "scores": scores[each]},
            f"{each} is retired: its key is revoked, and nothing else of it is kept here or on the server. "
            + _what_stays(scores[each], options.uninstall),
        )
    return CONVERGED


async def _read_scores(fleet: Fleet, agent_id: str) -> list[str]:
    state = await fleet.device(agent_id).state()
    return sorted(state.scores) if state is not None else []


def _question(scores: Mapping[str, list[str]], uninstalled: str | None) -> str:
    lines = (
        [f"the agent is removed from {uninstalled}, with what it keeps there"]
        if uninstalled
        else []
    )
    lines += [
        f"what the Scores of {agent_id} made stays on it; to have that taken away, say no, and first: "
        f"harmony remove-score {agent_id} {' '.join(found)}"
        for agent_id, found in scores.items()
        if found
    ]
    keys, them = ("the key", "it") if len(scores) == 1 else ("the keys", "them")
    whose = ", ".join(scores)
    lines.append(
        f"revoke {keys} of {whose}, and delete all that is kept of {them} here and on the server?"
    )
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
