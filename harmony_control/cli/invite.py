"""``harmony invite``: let devices come by themselves."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

from harmony_control.invitations import invite, withdraw_all
from harmony_control.store.home import write_whole
from harmony_control.times_typed import lasting

from .common import home_of, out, warn_of_loopback
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print an invitation, or write it to a file."""
    if options.withdraw:
        count = withdraw_all(home_of(options))
        out(options, {"event": "withdrawn", "count": count}, f"{count} invitations are withdrawn")
        return CONVERGED
    made = invite(
        home_of(options),
        agent_id=options.agent,
        url=options.url,
        count=options.count,
        expires_in=lasting(options.expires_in) or timedelta(days=1),
        asks=options.ask,
        replaces=options.replace,
    )
    text = made.to_text()
    document = {"event": "invite", "agent": options.agent, "servers": list(made.servers)}
    if options.out:
        path = Path(options.out)
        write_whole(path, text + "\n")
        out(
            options,
            {**document, "file": str(path)},
            f"{path} is the invitation: carry it to the device, and run there as root\n"
            f"/opt/harmony/bin/harmony-agent enroll @{path.name}",
        )
    else:
        out(
            options,
            {**document, "invitation": text},
            f"on the device, as root, run this and paste the line below it\n"
            f"/opt/harmony/bin/harmony-agent enroll -\n{text}",
        )
    warn_of_loopback(options, ",".join(made.servers))
    return CONVERGED
