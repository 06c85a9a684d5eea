"""``harmony-agent check``: what this device offers, in words a person can act on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from harmony_core import plugins
from harmony_core.errors import ConfigError

from . import config as configuration
from .facts import read_facts
from .starting import found_here

__all__ = ["check"]


async def check(path: Path) -> int:
    """Print the findings; 1 when something that Scores may need is missing."""
    registry = plugins.load()
    facts = read_facts(registry.kinds)
    print(f"device        {facts.model or 'unknown model'}, {facts.architecture}, {facts.os}")
    print(f"agent         {facts.agent_version}")
    try:
        config = configuration.load(path)
    except ConfigError as error:
        print(f"configuration MISSING: {error.message}")
        return 2
    print(f"configuration {path}: agent {config.agent_id} of fleet {config.fleet}")
    well = True
    for name, state in sorted((await found_here(config).look()).items()):
        if not state.offered:
            print(f"{name:<17} NOT OFFERED: {state.reason}")
        elif not state.available:
            print(f"{name:<17} offered, but does not answer now: {state.reason}")
        else:
            print(f"{name:<17} offered")
        well = well and state.offered and state.available
    for server in config.nats.servers:
        well = await _reachable(server) and well
    print(f"kinds         {', '.join(registry.kinds) or 'none'}")
    for broken in registry.errors:
        print(f"kinds         BROKEN: {broken.entry_point}: {broken.reason}")
        well = False
    return 0 if well else 1


async def _reachable(server: str) -> bool:
    address = urlsplit(server)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
    except (OSError, TimeoutError) as error:
        print(f"control plane {server} NOT REACHABLE: {str(error) or 'no answer in 5 s'}")
        return False
    writer.close()
    print(f"control plane {server} reachable")
    return True
