"""``harmony add-agent``: let a device in."""

from __future__ import annotations

import argparse
from pathlib import Path

from harmony_control.enrol import add_agent

from .common import home_of, out

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Write its agent.toml; a running server lets it in at once."""
    home = home_of(options)
    path = add_agent(
        home,
        options.agent,
        url=options.url,
        out=Path(options.out) if options.out else None,
        replace=options.replace,
    )
    out(
        options,
        {"event": "add-agent", "agent": options.agent, "file": str(path)},
        f"{path} is {options.agent}'s configuration: carry it to the device as "
        "/etc/harmony/agent.toml (mode 0600), then delete it here",
    )
    return 0
