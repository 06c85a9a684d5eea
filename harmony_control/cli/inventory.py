"""``harmony inventory AGENT``: of what a device consists, as it told when that changed last."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator

from harmony_control.fleet import Fleet
from harmony_control.fleet_view.facts import inventory_facts
from harmony_control.store.home import check_agent_id
from harmony_core.errors import NoAnswer, Unverified
from harmony_core.wire.inventory import Inventory, inventory_to_json

from .common import home_of
from .exits import CONVERGED

__all__ = ["inventory_lines", "run"]


def run(options: argparse.Namespace) -> int:
    """Print the inventory and return 0. Raise `NoAnswer` where the device has never reported it, `Unverified`
    where it cannot be trusted."""
    found = asyncio.run(_read(options))
    if options.json:
        print(inventory_to_json(found).decode())
    else:
        print("\n".join(inventory_lines(found)))
    return CONVERGED


async def _read(options: argparse.Namespace) -> Inventory:
    agent_id = check_agent_id(options.agent)
    async with Fleet.connect(home_of(options)) as fleet:
        device = fleet.device(agent_id)
        reading = await device.read_inventory()
        if reading is None:
            await device.refuse_unknown()
            raise NoAnswer(
                f"{agent_id} has not told of what it consists; an agent of this version does so when it "
                "connects"
            )
    if reading.value is None:
        raise Unverified(f"what {agent_id} tells of itself is not believed: {reading.problem}")
    return reading.value


def inventory_lines(found: Inventory) -> Iterator[str]:
    """Yield the inventory for people, one fact on a line."""
    for name, text in inventory_facts(found):
        yield f"{name:<10} {text}"
