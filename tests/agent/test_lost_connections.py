"""A connection that ends is seen to end, however it does, and is made anew: an agent must not go deaf."""

# What stands between an agent and its server is of the client itself.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError

from harmony_agent.backoff import Backoff
from harmony_agent.bus.connection import Bus
from harmony_agent.bus.link import Link
from harmony_agent.config import load
from tests.faults.relay import Relay
from tests.nats import serving

TURNS = range(4)
"""Of the loop, between what is said and what is lost."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    back_off = Backoff(first_s=0.01, most_s=0.05, jitter=0.5)
    monkeypatch.setattr("harmony_agent.bus.connection._RECONNECT", back_off)


@asynccontextmanager
async def connected(home_of: Path, relay: Relay | None = None) -> AsyncGenerator[Bus]:
    async with serving(home_of, "pi-1") as server:
        config = load(server.home.agent_toml("pi-1"))
        if relay is not None:
            relay.lead_to(int(config.nats.servers[0].rpartition(":")[2]))
            url = f"tls://127.0.0.1:{relay.port}"
            config = config.model_copy(
                update={"nats": config.nats.model_copy(update={"servers": (url,)})}
            )
        bus = Bus.of(config)
        running = asyncio.create_task(bus.run())
        try:
            yield bus
        finally:
            running.cancel()
            await asyncio.wait([running])


async def link_of(bus: Bus, *, after: Link | None = None) -> Link:
    """The connection that stands, another one than *after*."""
    async with asyncio.timeout(20):
        while bus._link is None or bus._link is after:
            await asyncio.sleep(0.005)
    return bus._link


async def say(client: Any, *, turns: int) -> None:
    """Two words, with so many turns of the loop between them."""
    try:
        for word in (b"one", b"two"):
            await client.publish("$KV.heartbeat.pi-1", word)
            for _ in range(turns):
                await asyncio.sleep(0)
    except (NatsError, OSError):
        pass  # it has ended by then


def count_subscriptions() -> int:
    """How many tasks there are that wait for what comes by a subscription."""
    return sum("_wait_for_msgs" in repr(each) for each in asyncio.all_tasks())


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("way", ["cut", "hung up on", "both", "both after it was said"])
async def test_whatever_is_still_to_be_sent_the_end_is_seen_and_nothing_is_left_of_it(
    tmp_path: Path, way: str, turns: int
) -> None:
    async with connected(tmp_path) as bus:
        link = await link_of(bus)
        subscriptions = count_subscriptions()
        for between in TURNS:
            client: Any = link._client
            saying = asyncio.create_task(say(client, turns=between))
            for _ in range(turns):
                await asyncio.sleep(0)
            if way == "both after it was said":
                await saying
            if way != "cut":
                client._transport._io_reader.feed_eof()
            if way != "hung up on":
                client._transport._io_writer.transport.abort()
            await saying
            link = await link_of(bus, after=link)
        assert count_subscriptions() == subscriptions


async def test_a_way_that_carries_nothing_any_more_does_not_keep_the_next_one_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is still to be sent by it nor a goodbye: both would be waited for without end."""
    monkeypatch.setattr("harmony_agent.bus.link.PROVED_WITHIN_S", 0.2)
    monkeypatch.setattr("harmony_agent.bus.bounded_client._CLOSED_WITHIN_S", 0.2)
    monkeypatch.setattr("harmony_core.wire.tls._SHUTDOWN_S", 3600)
    async with Relay(0) as relay, connected(tmp_path, relay) as bus:
        link = await link_of(bus)
        relay.become("half open")
        relay.become("open")
        client: Any = link._client
        client._transport._io_writer.write(b"+" * 64 * 1024 * 1024)
        saying = asyncio.create_task(say(client, turns=0))
        await link.prove()
        await link_of(bus, after=link)
        await saying


async def test_nothing_more_is_said_by_a_connection_that_was_closed(tmp_path: Path) -> None:
    async with connected(tmp_path) as bus:
        link = await link_of(bus)
        client: Any = link._client
        await client.close()
        assert link.ended.is_set()
        assert client._transport._io_writer.transport.is_closing()
        assert await link_of(bus, after=link) is not link


async def test_what_is_cut_while_it_is_closed_is_closed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py gives what the transport then complains of to whoever hears of errors, who may raise it."""
    async with connected(tmp_path) as bus:
        client: Any = (await link_of(bus))._client

        async def complain() -> None:
            raise BrokenPipeError

        async def raise_it(error: Exception) -> None:
            raise error

        monkeypatch.setattr(client._transport, "wait_closed", complain)
        monkeypatch.setattr(client, "_error_cb", raise_it)
        await client.close()
        assert client.ended.is_set()
        assert client._transport._io_writer.transport.is_closing()
