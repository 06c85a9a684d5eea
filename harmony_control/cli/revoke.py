"""``harmony revoke``: cut off a device whose key may be in other hands."""

from __future__ import annotations

import argparse

from harmony_control.enrol import revoke

from .common import home_of, out
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Revoke its key at once. Nobody is asked: who does this is in a hurry, and it can be taken back."""
    revoke(home_of(options), options.agent)
    out(
        options,
        {"event": "revoked", "agent": options.agent},
        f"the key of {options.agent} is revoked, and its connection is cut. What is known of it stays; it "
        f"comes back with a new key: harmony enroll root@{options.agent} --replace",
    )
    return CONVERGED
