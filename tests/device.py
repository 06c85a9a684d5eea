"""A whole agent in this process, on a real bus, with whatever it shall offer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from harmony_agent import config as configuration
from harmony_agent.bus.connection import Bus
from harmony_agent.store.assets import AssetCache
from harmony_agent.store.database import Database
from harmony_agent.store.ledger import Ledger
from harmony_agent.wiring import assemble
from harmony_control.store.home import Home
from harmony_core.plugins import Registry
from harmony_core.reconciler import Offers
from harmony_core.secret_values import SecretValues
from harmony_pi_topology.discovery import Discovery

__all__ = ["running_agent"]


@asynccontextmanager
async def running_agent(
    home: Home,
    agent_id: str,
    root: Path,
    *,
    registry: Registry,
    offers: Offers,
    missing: Mapping[str, str],
    heartbeat_s: float = 1.0,
    bus: Bus | None = None,
    secret_values: SecretValues | None = None,
    assets: AssetCache | None = None,
) -> AsyncGenerator[asyncio.Task[None]]:
    """The agent that *home* has enrolled as *agent_id*; its memory is below *root*. It must not end.

    *bus*: one that was begun already. *secret_values* and *assets*: those that what it offers
    knows.
    """
    config = configuration.load(home.agent_toml(agent_id)).model_copy(
        update={
            "floor_directory": root / "etc",
            "state_directory": root / "state",
            "runtime_directory": root / "run",
            "heartbeat_s": heartbeat_s,
        }
    )
    path, scratch = config.state_directory / "agent.db", config.runtime_directory
    async with await Database.open(path, scratch=scratch) as database:
        ledger = await Ledger.load(database)
        discovery = Discovery(offers=offers, missing=missing)
        agent = await assemble(
            config,
            database,
            ledger,
            registry,
            discovery,
            bus,
            secret_values=secret_values,
            assets=assets,
        )
        task = asyncio.create_task(agent.run())
        try:
            yield task
            # A test may have ended it.
            assert not task.done() or task.cancelled(), task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
