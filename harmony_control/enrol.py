"""Enrols devices, and removes them.

To enrol one gives it a key to the bus, and a file that says where the bus is and whom to trust.

    new nkey -> agent.toml (seed, 0600) -> agents.json (public half) -> nats.conf -> the running server

In this order, so that nothing that fails half-way leaves a device in the bus whose seed nobody holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs
from nats.aio.client import Client

from harmony_core.errors import UnknownDevice, UsageError
from harmony_core.wire.envelope import generate_key
from harmony_core.wire.names import ACTUAL_STATE, DESIRED_STATE, HEARTBEAT, INVENTORY, new_mailbox

from .bus.connection import Bucket
from .bus.devices import describe_unknown
from .bus.trial import try_servers
from .bus_url import bus_url, split_url
from .server.accounts import issue_device
from .server.apply import changing, local_listen, server_pid
from .store.home import ControlConfig, Enrolled, Home, check_agent_id, write_toml
from .store.invitations import read_waiting, save_waiting, withdraw
from .store.nkey import Nkey
from .store.roots import read_pins
from .store.seen import SeenCounters
from .store.sites import read_site_authority, read_sites

__all__ = [
    "add_agent",
    "add_agents",
    "check_retirable",
    "device_url",
    "retire",
    "revoke",
    "try_url",
]


def add_agent(
    home: Home,
    agent_id: str,
    *,
    url: str | None = None,
    out: Path | None = None,
    replace: bool = False,
    site: str | None = None,
) -> Path:
    """Enrol *agent_id* and return where its agent.toml was written: to *out*, else into *home*.

    It will trust whom this home trusts. A running server lets it in when this returns.
    *url* is how the device reaches the bus; None is this machine's address. With *replace* a device
    that is enrolled gets a new key and the old one is cut off; without, `UsageError`: two holders of
    one id cannot be told apart. With *site* it enters by that site's server, when that one knows of it, too:
    its configuration has to be exported again.
    """
    where = home.agent_toml(agent_id) if out is None else out
    _add(home, {agent_id: where}, url=url, replace=replace, may_exist=out is None, site=site)
    return where


def add_agents(home: Home, agent_ids: Iterable[str], *, url: str | None = None) -> list[Path]:
    """Enrol all of *agent_ids* at once, as `add_agent` does one; all or none."""
    paths = {each: home.agent_toml(check_agent_id(each)) for each in agent_ids}
    _add(home, paths, url=url, replace=False, may_exist=True)
    return list(paths.values())


def _add(
    home: Home,
    paths: Mapping[str, Path],
    *,
    url: str | None,
    replace: bool,
    may_exist: bool,
    site: str | None = None,
) -> None:
    for each in paths:
        check_agent_id(each)
    pins = read_pins(home)
    # A key that is let in nowhere is of no use, and one in place of that which is would do harm.
    with changing(home, home.agents_json, home.revoked_json, *paths.values()):
        config = home.control()
        way = _way_of(home, config, url, site)
        agents, added = home.agents(), dict[str, Enrolled]()
        if not replace:
            for agent_id, path in paths.items():
                _refuse_existing(agent_id, agents, None if may_exist else path)
        for agent_id, path in paths.items():
            key, mailbox, report_key = Nkey.new(), new_mailbox(), generate_key()
            device = Enrolled(key.public, mailbox, report_key.public.to_text(), site)
            jwt = issue_device(home, agent_id, device)
            table = {
                "agent_id": agent_id,
                "fleet": config.fleet,
                "nats": {
                    "servers": way.servers,
                    "seed": key.seed,
                    **({"jwt": jwt} if jwt else {}),
                    "mailbox": mailbox,
                    "ca": way.authority,
                    "tls_server_name": way.server_name,
                    **({"site": site} if site else {}),
                },
                "report": {"key": report_key.to_text()},
                "trust": pins.to_table(),
            }
            write_toml(path, table)
            home.note_revoked(agent_id, agents.get(agent_id))
            added[agent_id] = device
        home.save_agents(agents | added)


@attrs.frozen
class _Way:
    """How a device reaches the bus."""

    servers: Sequence[str]
    authority: str
    """Of who vouches for the server, in PEM."""
    server_name: str


def _way_of(home: Home, config: ControlConfig, url: str | None, site: str | None) -> _Way:
    if site is None:
        servers = split_url(device_url(home, url))
        return _Way(servers, home.read_authority(config), config.server_name)
    found = read_sites(home).named(site)
    servers = split_url(device_url(home, url or f"tls://{found.at}"))
    return _Way(servers, read_site_authority(home), found.server_name)


def revoke(home: Home, *agent_ids: str) -> None:
    """Revoke the keys of all *agent_ids*, or of none: their connections are cut when this returns, and none
    is made again. The server reads its configuration once, however many they are.

    One of a site stays connected to that server, by which nothing passes any more, until it was restarted.
    All that is known of the devices stays. `UnknownDevice` where one is not enrolled.
    """
    agents = home.agents()
    for each in agent_ids:
        if check_agent_id(each) not in agents:
            raise UnknownDevice(describe_unknown(each, agents))
    _revoke(home, agent_ids)


async def retire(home: Home, client: Client, *agent_ids: str) -> None:
    """Revoke the keys of *agent_ids* and forget the devices: what they were to be, what they said, what is
    kept here.

    They are cut off first, as by `revoke`, so that they say nothing afterwards. What runs on them stays as it
    is, and so does what keeps them out: that their keys are revoked. It may be ended anywhere, and done
    again with the same ids; `UnknownDevice`, before anything is done, as by `check_retirable`.
    """
    await check_retirable(home, client, *agent_ids)
    await asyncio.to_thread(_revoke, home, agent_ids)
    for each in agent_ids:
        for name in (ACTUAL_STATE, HEARTBEAT, INVENTORY):
            await Bucket(client, name).clear(each)
        await Bucket(client, DESIRED_STATE).erase(each)
        await asyncio.to_thread(SeenCounters(home.seen).forget, each)
        await asyncio.to_thread(home.forget, each)


async def check_retirable(home: Home, client: Client, *agent_ids: str) -> None:
    """Raise `UnknownDevice` where there is nothing of one of *agent_ids* that could be forgotten, and
    `ConfigError` where the server is not run from *home*.

    One whose key is revoked, and of which nothing is left, is passed over beside others: with them, it was
    retired by what broke off then.
    """
    await asyncio.to_thread(lambda: local_listen(home, home.control()))
    gone = [each for each in agent_ids if not await _is_known(home, client, each)]
    if not gone:
        return
    if len(gone) < len(agent_ids):
        retired = set((await asyncio.to_thread(home.revoked)).values())
        gone = [each for each in gone if each not in retired]
    if gone:
        enrolled = await asyncio.to_thread(home.agents)
        raise UnknownDevice(describe_unknown(gone[0], enrolled))


async def _is_known(home: Home, client: Client, agent_id: str) -> bool:
    if agent_id in await asyncio.to_thread(home.agents):
        return True
    if await asyncio.to_thread(lambda: home.knows(agent_id) or agent_id in read_waiting(home)):
        return True
    found = [
        await Bucket(client, name).get(agent_id)
        for name in (DESIRED_STATE, ACTUAL_STATE, HEARTBEAT, INVENTORY)
    ]
    return any(each is not None for each in found)


def _revoke(home: Home, agent_ids: Iterable[str]) -> None:
    with changing(
        home, home.agents_json, home.revoked_json, home.invitations_json, home.pending_json
    ):
        local_listen(home, home.control())  # else the key cannot be revoked from here
        agents, waiting = home.agents(), read_waiting(home)
        had = len(waiting)
        for each in agent_ids:
            home.note_revoked(each, agents.pop(each, None))
            withdraw(home, each)
            waiting.pop(each, None)
        home.save_agents(agents)
        if len(waiting) < had:
            save_waiting(home, waiting)


async def try_url(home: Home, url: str | None = None) -> bool:
    """Try how a device, or another operator, is told to reach the bus, before that is written.

    `BusUnreachable` where nobody is there, or another server; False where the server does not run now, and
    nothing was tried.
    """
    if server_pid(home) is None and not home.issuers_json.exists():
        return False
    config = home.control()
    servers = split_url(device_url(home, url))
    await try_servers(
        servers, authority=home.read_authority(config), server_name=config.server_name
    )
    return True


def device_url(home: Home, url: str | None = None) -> str:
    """Return how a device is told to reach the bus: by *url*, else by this machine's address.

    `UsageError` for what is no address; `ConfigError` when the server is not run from *home*.
    """
    config = home.control()
    own = config.url if config.cluster else local_listen(home, config).fleet_url
    try:
        return bus_url(url or own)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _refuse_existing(agent_id: str, agents: Mapping[str, Enrolled], out: Path | None) -> None:
    if agent_id in agents:
        raise UsageError(
            f"{agent_id} is enrolled; choose another id, or give it a new key and cut off the old one "
            f"with `harmony add-agent {agent_id} --replace`"
        )
    if out is not None and out.exists():
        raise UsageError(f"{out} exists; choose another file, or overwrite it with --replace")
