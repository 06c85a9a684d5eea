"""A server that sends without end fills no memory: the connection ends, and is made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from harmony_agent.bus.connection import Bus
from harmony_control.bus.tls_client import TlsClient
from harmony_core.wire.bounded import MESSAGE_MAX_BYTES
from harmony_core.wire.envelope import ENVELOPE_MAX_BYTES, generate_key
from harmony_core.wire.manifest import Accepted, accept
from harmony_core.wire.names import SERVER_NAME
from harmony_core.wire.tls import verifying_context
from tests.authority import AUTHORITY, account, serving_context

from .rig import Note, Rig, entry, status

INFO = (
    b'INFO {"server_id":"x","version":"2.15.1","proto":1,"max_payload":1048576,"headers":true}\r\n'
)
CHUNK = b"x" * 32_768
SOCKETS_BYTES = 8 * 1024 * 1024
"""What the kernel may take on both sides without anybody reading it."""


class Flood:
    """A server that lets everybody in, and then sends one beginning, and what never ends."""

    def __init__(self, beginning: bytes, *, at_once: bool = False) -> None:
        self.beginning = beginning
        self.at_once = at_once
        self.sent_bytes = 0
        self.cut = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if not self.at_once:
                writer.write(INFO)
                while (line := await reader.readline()) and not line.startswith(b"PING"):
                    pass
                writer.write(b"PONG\r\n")
            writer.write(self.beginning)
            while self.sent_bytes < 10 * SOCKETS_BYTES:
                writer.write(CHUNK)
                await writer.drain()
                self.sent_bytes += len(CHUNK)
        self.cut.set()
        writer.close()


@asynccontextmanager
async def flooded(flood: Flood) -> AsyncGenerator[Bus]:
    server = await asyncio.start_server(flood.serve, "127.0.0.1", 0, ssl=serving_context())
    port = server.sockets[0].getsockname()[1]
    bus = Bus(account(f"tls://127.0.0.1:{port}"), generate_key())
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        server.close()


FLOODS = (
    b"MSG _INBOX_pi-1.x 1 4000000000\r\n",
    b"HMSG _INBOX_pi-1.x 1 12 4000000000\r\n",
    b"MSG _INBOX_pi-1.x 1 " + b"1" * 30,
    b"INFO {",
    b"-ERR '",
    b"",
)


@pytest.mark.parametrize("flood", FLOODS)
async def test_an_operator_s_connection_ends_as_well(flood: bytes) -> None:
    hostile = Flood(flood)
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0, ssl=serving_context())
    port = server.sockets[0].getsockname()[1]
    context = verifying_context(AUTHORITY)
    client = TlsClient(context, SERVER_NAME)
    try:
        async with asyncio.timeout(20):
            await client.connect(
                f"tls://127.0.0.1:{port}",
                tls=context,
                tls_handshake_first=True,
                allow_reconnect=False,
            )
            await hostile.cut.wait()
    finally:
        await client.close()
        server.close()
    assert hostile.sent_bytes < SOCKETS_BYTES


@pytest.mark.parametrize("flood", FLOODS)
async def test_what_is_announced_too_large_ends_the_connection(flood: bytes) -> None:
    server = Flood(flood)
    async with flooded(server), asyncio.timeout(20):
        await server.cut.wait()
    assert server.sent_bytes < SOCKETS_BYTES


@pytest.mark.parametrize(
    "words",
    [
        b"INFO {\r\n",
        b"INFO []\r\n",
        b"HMSG _INBOX_pi-1.x 1 9 1\r\n" + 20 * b"x",
        b"MSG \xff 1 1\r\nx\r\n",
    ],
)
async def test_what_cannot_be_read_ends_the_connection(words: bytes) -> None:
    """nats-py itself leaves one standing by which nothing is heard any more."""
    server = Flood(words)
    async with flooded(server), asyncio.timeout(20):
        await server.cut.wait()
    assert server.sent_bytes < SOCKETS_BYTES


async def test_before_the_first_word_too() -> None:
    server = Flood(b"INFO {", at_once=True)
    async with flooded(server), asyncio.timeout(20):
        await server.cut.wait()
    assert server.sent_bytes < SOCKETS_BYTES


def test_the_largest_of_ours_is_let_through() -> None:
    assert ENVELOPE_MAX_BYTES < MESSAGE_MAX_BYTES


async def test_wrong_hints_cost_little_and_keep_no_true_one_away(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may publish to a device's hints sends large ones as fast as they go."""
    large = b'{"payload": "' + b"A" * 200_000 + b'", "payloadType": "x", "signatures": []}'
    subject = "harmony.mail.pi-1.desired-state"
    async with rig.agent():
        await rig.put(1, entry(Note(), "note"))
        await rig.seen(1)
        verified = 0

        def counting(envelope: bytes, **more: Any) -> Accepted:
            nonlocal verified
            verified += len(envelope) > len(large) / 2
            return accept(envelope, **more)

        monkeypatch.setattr("harmony_agent.store.desired.accept", counting)
        for _ in range(300):
            await rig.bus.admin.publish(subject, large)
            await rig.bus.admin.flush()
        await rig.put(2, entry(Note(text="newer"), "note"))
        assert status(await rig.seen(2)) == {"note": "SUCCESS"}
        assert 1 <= verified < 100
