"""``harmony revoke AGENT …``: cut off devices whose keys may be in other hands."""

from __future__ import annotations

import argparse

from harmony_control.enrol import revoke

from .common import home_of, out
from .exits import CONVERGED
from .targets import list_ids

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Revoke the keys of the devices at once. Do not ask: whoever does this is in a hurry, and it can be
    undone."""
    home, ids = home_of(options), list_ids(options.agents)
    agents = home.agents()
    revoke(home, *ids)
    for each in ids:
        _tell(options, each, agents[each].site)
    return CONVERGED


def _tell(options: argparse.Namespace, agent_id: str, site: str | None) -> None:
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
