"""``harmony accept``: let in a device that waits for a person."""

from __future__ import annotations

import argparse
import asyncio

from harmony_control.invitations import accept, find_pending, read_pending, refuse
from harmony_control.store.invitations import Pending

from .common import home_of, out
from .confirm import confirm
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Let in a device that waits; without an id, list those that do."""
    home = home_of(options)
    if options.agent is None:
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
    found = find_pending(home, options.agent)
    if options.refuse:
        refuse(home, found.agent_id)
        out(options, {"event": "refused", **_document(found)}, f"{found.agent_id} is not let in")
        return CONVERGED
    question = f"the device {found.agent_id} shows the keys {found.device.fingerprint}: let it in?"
    if not options.yes and not asyncio.run(confirm(question)):
        out(options, {"event": "not accepted"}, "nothing was changed")
        return CONVERGED
    accept(home, found.agent_id, shown=found.device.fingerprint)
    out(options, {"event": "accepted", **_document(found)}, f"{found.agent_id} is let in")
    return CONVERGED


def _document(pending: Pending) -> dict[str, object]:
    return {
        "agent": pending.agent_id,
        "fingerprint": pending.device.fingerprint,
        "since": pending.since,
    }
