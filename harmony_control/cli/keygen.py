"""``harmony keygen``: the operator's keys."""

from __future__ import annotations

import argparse

from harmony_control.store import operator_key

from .common import home_of, out

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Make those of the operator's keys that are missing. Raise `UsageError` where none is."""
    home = home_of(options)
    public = operator_key.create(home, token=options.token)
    out(
        options,
        {"event": "keygen", "file": str(home.operator_key), "key_id": public.id},
        (
            f"{home.operator_key} says where your signing key is: {options.token}\n"
            if options.token
            else f"{home.operator_key} is your signing key: keep a copy, and keep it secret\n"
        )
        + f"{home.bus_seed} is your key for the bus: keep it secret, too\n"
        f"{home.operator_pub} is what devices will trust ({public.id[:16]}…)",
    )
    return 0
