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
    out(
        options,
        {"event": "revoked", "agent": agent_id},
        _describe(agent_id, known.site if known else None),
    )
    return CONVERGED


def _describe(agent_id: str, site: str | None) -> str:
    if site is None:
        return (
            f"the key of {agent_id} is revoked, and its connection is cut. What is known of it stays; it "
            f"comes back with a new key: harmony enroll root@{agent_id} --replace"
        )
    return (
        f"the key of {agent_id} is revoked: it is not heard, and nothing is sent to it. With the server of "
        f"the site {site} it stays connected, and reads there what every device may, such as the manifests "
        f"of classes, until you export again, carry site-{site}/nats.conf there, and have that server read "
        "it again. What is known of the device stays; it comes back with a new key: harmony add-agent "
        f"{agent_id} --site {site}"
    )
