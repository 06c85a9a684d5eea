"""``harmony enroll``: install the agent on a device over ssh, and let it into the fleet.

However often it is run, and wherever it was ended before: the device looks at each step first, and asks with
the key that it has.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address

from harmony_control.bus_url import is_loopback
from harmony_control.enrol import device_url
from harmony_control.fleet import Fleet
from harmony_control.invitations import invite
from harmony_control.over_ssh import install_and_enrol
from harmony_control.package import Package, find_package
from harmony_control.store.home import Home
from harmony_core.errors import BusUnreachable, ConfigError, HarmonyError, UsageError
from harmony_core.wire.names import is_id

from .common import home_of, out
from .exits import CONVERGED, exit_code_of, find_gravest, say

__all__ = ["hear", "run"]

_INSTALLED_WITHIN_S = 3_600.0
_HEARD_WITHIN_S = 60.0
_LOOK_AGAIN_S = 1.0


def run(options: argparse.Namespace) -> int:
    """Enrol one device after another, even where one of them fails. Return the most severe exit code."""
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
    package = find_package(options.wheel)
    named = _name(options)
    codes: dict[str, int] = {}
    for agent_id, destination in named.items():
        try:
            await _enrol(home, options, agent_id, destination, package)
        except HarmonyError as error:
            say(error, as_json=options.json)
            codes[agent_id] = exit_code_of(error)
        else:
            codes[agent_id] = CONVERGED
    if len(codes) > 1:
        _summarize(options, codes)
    return find_gravest(codes.values())


def _name(options: argparse.Namespace) -> dict[str, str]:
    """Return where each device is, by its id. Raise `UsageError` before anything is done."""
    named: dict[str, str] = {}
    for destination in options.destinations:
        agent_id = options.id or _id_of(destination)
        if agent_id in named:
            raise UsageError(
                f"{named[agent_id]} and {destination} would both be {agent_id}; name each once, and enroll "
                "one of two by itself, with --id"
            )
        named[agent_id] = destination
    return named


async def _enrol(
    home: Home, options: argparse.Namespace, agent_id: str, destination: str, package: Package
) -> None:
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
    await hear(home, agent_id, heard_at)
    out(
        options,
        {"event": "enrolled", "agent": agent_id},
        f"{agent_id} is enrolled and online: harmony status {agent_id}",
    )


def _summarize(options: argparse.Namespace, codes: Mapping[str, int]) -> None:
    """Print how many devices are enrolled, and which are not. *codes* has the exit code of each device
    alone."""
    missing = [name for name, code in codes.items() if code != CONVERGED]
    enrolled = [name for name in codes if name not in missing]
    again = f"; not {', '.join(missing)}: what is wrong is above; run it again" if missing else ""
    out(
        options,
        {"event": "summary", "enrolled": enrolled, "not_enrolled": missing},
        f"{len(enrolled)} of {len(codes)} are enrolled and online{again}",
    )


def _id_of(destination: str) -> str:
    """Return the id that a device gets from the host name in ``root@pi-1.local``."""
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


async def hear(home: Home, agent_id: str, before: datetime | None) -> None:
    """Wait until the device has been heard again and reports which kinds of Score it knows. Raise
    `ConfigError` where it reports none, `BusUnreachable` where it is not heard."""
    async with Fleet.connect(home) as fleet:
        device = fleet.device(agent_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + _HEARD_WITHIN_S
        while True:
            seen = await device.read_seen()
            is_heard = seen.presence == "Heard" and seen.at != before
            is_whole = seen.state is not None and bool(seen.state.kinds)
            if is_heard and is_whole:
                return
            if loop.time() > until and is_heard:
                raise ConfigError(
                    f"{agent_id} is online, but does not say which kinds of Score it knows; look there with "
                    "/opt/harmony/bin/harmony-agent check, and enroll it again with --wheel"
                )
            if loop.time() > until:
                raise BusUnreachable(
                    f"{agent_id} is let in, but was not heard of within {_HEARD_WITHIN_S:.0f} s; look there "
                    "with journalctl -u harmony-agent"
                )
            await asyncio.sleep(_LOOK_AGAIN_S)
