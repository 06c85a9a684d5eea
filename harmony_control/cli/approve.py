"""``harmony approve AGENT``: confirm a large removal."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.device import removals_held
from harmony_control.fleet import Fleet

from .common import home_of, out, signers_of
from .confirm import confirm
from .exits import CONVERGED
from .push import follow

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Approve removals that are held back. Return 0 when all resources are gone, or none was held back."""
    return asyncio.run(_approve(options))


async def _approve(options: argparse.Namespace) -> int:
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        device = fleet.device(options.agent)
        await device.refuse_unknown()
        state = await device.state()
        for score_id, count in sorted(removals_held(state).items()):
            document = {"event": "held", "id": score_id, "resources": count}
            out(options, document, f"{score_id:<20} {count} to remove")
        if state is None or not state.removals_held:
            out(
                options,
                {"event": "nothing held"},
                f"{device.id} has no removal that waits for approval",
            )
            return CONVERGED
        if not options.yes and not await confirm(
            f"remove these resources, {state.removals_held} in all?"
        ):
            out(options, {"event": "not approved"}, "nothing was changed")
            return CONVERGED
        return await follow(options, device, await device.approve(state))
