"""``harmony add-agent``: let a device in."""

from __future__ import annotations

import argparse
from pathlib import Path

from harmony_control.bus_url import is_loopback
from harmony_control.enrol import add_agent, device_url
from harmony_control.store.sites import read_sites

from .common import home_of, out, try_address, warn

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Write the agent.toml of a new device; a running server accepts the device at once."""
    home = home_of(options)
    url = options.url
    if options.site:
        url = url or f"tls://{read_sites(home).named(options.site).at}"
    url = device_url(home, url)
    if not options.site:  # a site is mostly reached from nowhere else
        try_address(options, home, url)
    path = add_agent(
        home,
        options.agent,
        url=url,
        out=Path(options.out) if options.out else None,
        replace=options.replace,
        site=options.site,
    )
    out(
        options,
        {"event": "add-agent", "agent": options.agent, "file": str(path), "url": url},
        f"{path} is {options.agent}'s configuration: carry it to the device as "
        "/etc/harmony/agent.toml (mode 0600), start the agent there within a day, and delete it here\n"
        f"{options.agent} will connect to {url}; if it must use another address of this machine, add "
        "--url tls://HOST:PORT"
        + (
            f"\nthe server of the site {options.site} has to know of it: export again, and restart it by "
            f"site-{options.site}/nats.conf"
            if options.site
            else ""
        ),
    )
    if is_loopback(url):
        warn(
            options,
            f"{url} leads back to the machine that uses it, so only an agent on this one reaches it. "
            f"For a device elsewhere, end `harmony server`, start it with `--listen "
            f"0.0.0.0:4222`, and run `harmony add-agent {options.agent} --replace` (with `--url "
            "tls://HOST:PORT` where this machine's address is not what the device must use)",
        )
    return 0
