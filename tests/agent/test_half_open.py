"""A connection that carries nothing any more, and was not hung up, is ended with the first answer missed.

One on which an answer only came late is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from nats.errors import FlushTimeoutError

from harmony_agent.bus.connection import Bus
from harmony_agent.bus.link import Account
from harmony_agent.config import AgentConfig, load
from harmony_control.enrol import add_agent
from harmony_core.errors import BusUnreachable
from tests.faults.relay import Relay
from tests.nats import Bus as Server
from tests.nats import serving


@attrs.frozen
class Connected:
    """An agent's bus, whose connection stands; `stands` is set anew with the next one."""

    bus: Bus
    server: Server
    relay: Relay
    stands: asyncio.Event

    def cut_unseen(self) -> None:
        """What is connected now carries nothing any more; whoever comes is let through."""
        self.stands.clear()
        self.relay.become("half open")
        self.relay.become("open")


@asynccontextmanager
async def relayed(folder: Path) -> AsyncGenerator[tuple[Server, Relay, AgentConfig]]:
    """A server, the way to it, and what a device goes by that knows no other."""
    async with (
        serving(folder) as server,
        Relay(int(server.home.control().url.rpartition(":")[2])) as relay,
    ):
        url = f"tls://127.0.0.1:{relay.port}"
        toml = await asyncio.to_thread(add_agent, server.home, "pi-1", url=url)
        yield server, relay, load(toml)


@asynccontextmanager
async def connected(folder: Path) -> AsyncGenerator[Connected]:
    async with relayed(folder) as (server, relay, config):
        bus, stands = Bus.of(config), asyncio.Event()
        bus.on_connect(stands.set)
        running = asyncio.create_task(bus.run())
        await asyncio.wait_for(stands.wait(), 10)
        yield Connected(bus, server, relay, stands)
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmony_agent.bus.link.REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr("harmony_agent.bus.link.PROVED_WITHIN_S", 0.5)


async def test_a_report_without_an_answer_ends_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as device:
        device.cut_unseen()
        with pytest.raises(BusUnreachable):
            await device.bus.tell(b"not heard")
        await asyncio.wait_for(device.stands.wait(), 20)
        await device.bus.tell(b"heard")
        found = await device.server.bucket("actual-state").get("pi-1")
        assert found is not None
        assert found.value == b"heard"


async def test_a_question_without_an_answer_ends_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as device:
        deliveries = device.bus.deliveries()
        assert (await anext(deliveries)).fetched
        device.cut_unseen()
        device.bus.doubt()
        asking = asyncio.ensure_future(anext(deliveries))
        await asyncio.wait_for(device.stands.wait(), 20)
        assert (await asyncio.wait_for(asking, 20)).fetched


async def test_an_answer_that_comes_late_does_not_end_it(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (_, relay, config):
        account = Account.of(config)
        client = account.client()
        await account.connect(client)
        relay.become("stalled")
        with pytest.raises(FlushTimeoutError):
            await client.flush(timeout=1)
        relay.become("open")
        await client.rtt(timeout=10)  # this answer comes after the late one
        assert not client.ended.is_set()
        await client.close()
