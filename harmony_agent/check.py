"""``harmony-agent check``: what this device offers, in words a person can act on."""

from __future__ import annotations

from pathlib import Path

import attrs

from harmony_core import plugins
from harmony_core.errors import ConfigError
from harmony_core.plugins import Registry
from harmony_core.wire.envelope import generate_key

from . import config as configuration
from .apply.policy import DevicePolicy
from .bus.connection import Bus
from .bus.link import Account
from .config import AgentConfig, TopologyTable
from .facts import read_facts
from .wiring import discover_here, policy_of

__all__ = ["check"]

_ANSWERS_WITHIN_S = 5


async def check(path: Path) -> int:
    """Print the findings. Return 1 when something is an obstacle, such as a daemon that does not answer, a
    package that is broken, or a server that is not reached; 2 without a configuration. What is not offered is
    no obstacle."""
    registry = plugins.load()
    facts = read_facts(registry.kinds)
    print(f"device        {facts.model or 'unknown model'}, {facts.architecture}, {facts.os}")
    print(f"agent         {facts.agent_version}")
    config = _read_config(path)
    well = await _offers(registry, config)
    well = _kinds(registry) and well
    if config is None:
        return 2
    for server in config.nats.servers:
        well = await _is_let_in(config, server) and well
    return 0 if well else 1


def _read_config(path: Path) -> AgentConfig | None:
    try:
        config = configuration.load(path)
    except ConfigError as error:
        print(f"configuration {'NOT USABLE' if _is_there(path) else 'MISSING'}: {error.message}")
        return None
    print(f"configuration {path}: agent {config.agent_id} of fleet {config.fleet}")
    print(f"policy        {config.policy.describe()}")
    return config


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True


async def _offers(registry: Registry, config: AgentConfig | None) -> bool:
    """Print what this device offers, also when it is not enrolled yet. Return whether nothing is broken."""
    account = Account(agent_id="", servers=(), seed="", mailbox="", ca="", server_name="")
    nobody = Bus(account, generate_key())
    topology = config.topology if config else TopologyTable()
    policy = policy_of(config) if config else DevicePolicy()
    state_directory = config.state_directory if config else Path("/nowhere")
    found = discover_here(registry.providers, topology, state_directory, nobody, policy)
    for broken in found.errors:
        print(f"capabilities  BROKEN: {broken.entry_point}: {broken.reason}")
    well = not found.errors
    for name, state in sorted((await found.look()).items()):
        if not state.offered:
            print(f"{name:<19} NOT OFFERED: {state.reason}")
        elif not state.available:
            print(f"{name:<19} offered, but does not answer now: {state.reason}")
        else:
            print(f"{name:<19} offered")
        # What is not offered is none of what was asked for, unless agent.toml says whose it is.
        well = well and (state.available or not (state.offered or name in topology.use))
    await found.close()
    return well


def _kinds(registry: Registry) -> bool:
    print(f"kinds         {', '.join(registry.kinds) or 'none'}")
    for broken in registry.errors:
        print(f"kinds         BROKEN: {broken.entry_point}: {broken.reason}")
    return not registry.errors


async def _is_let_in(config: AgentConfig, server: str) -> bool:
    bus = Bus(attrs.evolve(Account.of(config), servers=[server]), config.report_key)
    if (why_not := await bus.why_not(within_s=_ANSWERS_WITHIN_S)) is not None:
        print(f"control plane {server} NOT REACHABLE: {why_not}")
        return False
    print(f"control plane {server} reachable, and this device is authenticated")
    return True
