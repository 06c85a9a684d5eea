"""``harmony revoke``: cut off a device whose key may be in other hands."""

from __future__ import annotations

import argparse

from harmony_control.enrol import revoke

from .common import home_of, out
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Revoke its key at once. Nobody is asked: who does this is in a hurry, and it can be taken back."""
    home, agent_id = home_of(options), options.agent
    known = home.agents().get(agent_id)
    revoke(home, agent_id)
    site = known.site if known else None
    cut = "its connection is cut" if site is None else "nothing that it says or asks is passed on"
    again = (
        f"enroll root@{agent_id} --replace"
        if site is None
        else f"add-agent {agent_id} --site {site}"
    )
    out(
        options,
        {"event": "revoked", "agent": agent_id},
        f"the key of {agent_id} is revoked, and {cut}. What is known of it stays; it comes back with a new "
        f"key: harmony {again}",
    )
    return CONVERGED
