"""``harmony enroll``: install the agent on a device over ssh, and let it into the fleet.

However often it is run, and wherever it was ended before: the device looks at each step first, and asks with
the key that it has.
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from harmony_control.bus_url import is_loopback
from harmony_control.enrol import device_url
from harmony_control.fleet import Fleet
from harmony_control.invitations import invite
from harmony_control.over_ssh import install_and_enrol
from harmony_control.package import package_of, package_of_ours
from harmony_control.store.home import Home
from harmony_core.errors import BusUnreachable, UsageError
from harmony_core.wire.names import is_id

from .common import home_of, out
from .exits import CONVERGED

__all__ = ["run"]

_INSTALLED_WITHIN_S = 3_600.0
_HEARD_WITHIN_S = 60.0
_LOOK_AGAIN_S = 1.0


def run(options: argparse.Namespace) -> int:
    """Do it for one device after the other."""
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    home = home_of(options)
    if options.id and len(options.destinations) > 1:
        raise UsageError("--id names one device; give one host with it")
    url = device_url(home, options.url)
    if is_loopback(url):
        raise UsageError(
            f"{url} leads back to the machine that uses it; end `harmony server`, and start it with "
            "`--listen 0.0.0.0:4222`"
        )
    package = package_of(Path(options.wheel)) if options.wheel else package_of_ours()
    for destination in options.destinations:
        agent_id = options.id or _id_of(destination)
        invitation = await asyncio.to_thread(
            invite,
            home,
            agent_id=agent_id,
            url=options.url,
            expires_in=timedelta(seconds=_INSTALLED_WITHIN_S),
            replaces=options.replace,
            again=True,
        )
        heard_at = await _heard_at(home, agent_id)
        await install_and_enrol(
            destination,
            invitation.to_text(),
            package,
            ssh=options.ssh,
            sudo=options.sudo,
            replaces=options.replace,
        )
        await _hear(home, agent_id, heard_at)
        out(
            options,
            {"event": "enrolled", "agent": agent_id},
            f"{agent_id} is enrolled and online: harmony status {agent_id}",
        )
    return CONVERGED


def _id_of(destination: str) -> str:
    """Return the id that a device gets by the host's name in ``root@pi-1.local``."""
    host = destination.rpartition("@")[2].strip("[]")
    name = host.partition(".")[0].lower()
    try:
        ip_address(host)
    except ValueError:
        if is_id(name):
            return name
    raise UsageError(
        f"{destination} does not say which id the device is to have; add --id, such as --id pi-1"
    )


async def _heard_at(home: Home, agent_id: str) -> datetime | None:
    async with Fleet.connect(home) as fleet:
        return (await fleet.device(agent_id).read_seen()).at


async def _hear(home: Home, agent_id: str, before: datetime | None) -> None:
    """Wait until it is heard of anew."""
    async with Fleet.connect(home) as fleet:
        device = fleet.device(agent_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + _HEARD_WITHIN_S
        while True:
            seen = await device.read_seen()
            if seen.presence == "Heard" and seen.at != before:
                return
            if loop.time() > until:
                raise BusUnreachable(
                    f"{agent_id} is let in, but was not heard of within {_HEARD_WITHIN_S:.0f} s; look there "
                    "with journalctl -u harmony-agent"
                )
            await asyncio.sleep(_LOOK_AGAIN_S)
