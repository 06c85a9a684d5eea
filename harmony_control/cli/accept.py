"""``harmony accept [ID …]``: let in devices that wait for a person."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from harmony_control.invitations import accept, find_pending, read_pending, refuse
from harmony_control.store.invitations import Pending

from .common import home_of, out
from .confirm import confirm
from .exits import CONVERGED
from .targets import list_ids

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Accept the devices that wait, all or none; without an id, list those that wait."""
    home = home_of(options)
    if not options.agents:
        waiting = read_pending(home)
        for each in waiting:
            out(
                options,
                _document(each),
                f"{each.agent_id:<20} {each.device.fingerprint}  since {each.since}",
            )
        if not waiting and not options.json:
            print("no device waits to be accepted")
        return CONVERGED
    found = [find_pending(home, each) for each in list_ids(options.agents)]
    if options.refuse:
        refuse(home, *(each.agent_id for each in found))
        for each in found:
            out(options, {"event": "refused", **_document(each)}, f"{each.agent_id} is not let in")
        return CONVERGED
    if not options.yes and not asyncio.run(confirm(_question(found))):
        out(options, {"event": "not accepted"}, "nothing was changed")
        return CONVERGED
    accept(home, {each.agent_id: each.device.fingerprint for each in found})
    for each in found:
        out(options, {"event": "accepted", **_document(each)}, f"{each.agent_id} is let in")
    return CONVERGED


def _question(found: Sequence[Pending]) -> str:
    shown = [
        f"the device {each.agent_id} shows the keys {each.device.fingerprint}" for each in found
    ]
    return "\n".join(shown) + (": let it in?" if len(found) == 1 else "\nlet all of them in?")


def _document(pending: Pending) -> dict[str, object]:
    return {
        "agent": pending.agent_id,
        "fingerprint": pending.device.fingerprint,
        "since": pending.since,
    }
