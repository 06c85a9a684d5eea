"""The agent's side of the bus ends when it is told to, whatever it waits for."""

from __future__ import annotations

import asyncio
import itertools
import socket
from pathlib import Path

import attrs
import pytest

from harmony_agent.bus.connection import Bus
from harmony_agent.bus.link import Account
from harmony_agent.config import load
from harmony_core.wire.envelope import generate_key
from tests.authority import account, serving_context
from tests.nats import serving

ATTEMPTS = 300


async def test_a_report_can_be_cancelled_at_any_moment_also_when_its_answer_comes(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "pi-1") as server:
        bus = Bus.of(load(server.home.agent_toml("pi-1")))
        bus.begin()
        await bus.first_try(within_s=10)
        round_trips = 1
        for attempt in range(ATTEMPTS):
            told = asyncio.create_task(bus.tell(b"%d" % attempt))
            for _ in range(round_trips):
                await asyncio.sleep(0)
            if told.cancel():
                await asyncio.wait([told])
                assert told.cancelled()
                round_trips += 1
            else:
                round_trips = 1
        running = asyncio.create_task(bus.run())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


async def test_whatever_answers_in_the_place_of_the_control_plane_the_agent_goes_on(
    tmp_path: Path,
) -> None:
    """Also what nats-py has no error for: it would end the agent, and with it the keeping of the device."""
    # Even if it holds a certificate of the right authority.
    greetings = [b"INFO []\r\n", b'INFO {"nonce": 5}\r\n', b"INFO " + b"x" * 200_000, b"\xff\r\n"]
    asked = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greetings.pop(0) if greetings else b"")
        if not greetings:
            asked.set()
        writer.close()

    stranger = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=serving_context())
    host, port = stranger.sockets[0].getsockname()
    bus = Bus(account(f"tls://{host}:{port}"), generate_key())
    for _ in range(len(greetings)):
        assert not await bus.reaches(within_s=5)
    greetings += [b"INFO []\r\n", b"INFO []\r\n"]
    running = asyncio.create_task(bus.run())
    await asyncio.wait_for(asked.wait(), 30)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])
    stranger.close()


async def test_the_first_try_gets_to_a_server_that_answers_past_all_that_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmony_agent.bus.link._CONNECTS_WITHIN_S", 1)
    monkeypatch.setattr("nats.aio.client.shuffle", list[str])
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    addresses = [f"tls://127.0.0.1:{each.getsockname()[1]}" for each in silent]
    async with serving(tmp_path, "pi-1") as server:
        config = load(server.home.agent_toml("pi-1"))
        known = Account.of(config)
        account = attrs.evolve(known, servers=(*addresses, *known.servers))
        bus = Bus(account, config.report_key)
        bus.begin()
        await bus.first_try(within_s=30)
        assert bus.up
        running = asyncio.create_task(bus.run())
        running.cancel()
        await asyncio.wait([running])
    for each in silent:
        each.close()


async def test_a_second_doubt_is_put_off_and_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be the only sign of a value that was missed; each costs at most one question a minute."""
    monkeypatch.setattr("harmony_agent.bus.deliveries.DOUBT_S", 0.5)
    async with serving(tmp_path, "pi-1") as server:
        bus = Bus.of(load(server.home.agent_toml("pi-1")))
        running = asyncio.create_task(bus.run())
        deliveries = bus.deliveries()
        loop = asyncio.get_running_loop()
        assert (await anext(deliveries)).fetched
        asked_at: list[float] = []
        for _ in range(3):
            bus.doubt()
            bus.doubt()
            assert (await asyncio.wait_for(anext(deliveries), 10)).fetched
            asked_at.append(loop.time())
        pauses = [after - before for before, after in itertools.pairwise(asked_at)]
        assert min(pauses) > 0.4, "each minute at most one question"
        running.cancel()
        await asyncio.wait([running])
