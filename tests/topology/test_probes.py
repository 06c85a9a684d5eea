"""Readiness probes, against real little servers on this machine, well and badly behaved."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from harmony_core.resources import HttpProbe, TcpProbe
from harmony_pi_topology.common.probes import probe

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncGenerator[int]:
    """A server on a free port of the loopback address; what it still does ends with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(*parts: bytes) -> Serve:
    """Reads the request's first line, writes *parts* one by one, hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def closed_port() -> int:
    """A port that nothing listens on: bound a moment ago, and let go."""
    async with serving(hang) as port:
        return port


async def test_a_tcp_probe_is_ready_when_a_connection_is_accepted() -> None:
    async with serving(hang) as port:
        assert await probe(TcpProbe(port=port)) is None


async def test_a_port_that_nothing_listens_on_is_named(closed_port: int) -> None:
    expected = f"nothing listens on 127.0.0.1:{closed_port}"
    assert await probe(TcpProbe(port=closed_port)) == expected
    assert await probe(HttpProbe(port=closed_port)) == expected


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"302 Found", b"399 Odd", b"200"])
async def test_a_status_from_200_to_399_is_ready(status: bytes) -> None:
    async with serving(answering(b"HTTP/1.1 " + status + b"\r\n\r\n")) as port:
        assert await probe(HttpProbe(port=port)) is None


async def test_http_1_0_with_bare_newlines_is_understood() -> None:
    async with serving(answering(b"HTTP/1.0 200 OK\n\n", b"hello")) as port:
        assert await probe(HttpProbe(port=port)) is None


@pytest.mark.parametrize("status", ["500", "404", "199", "400"])
async def test_any_other_status_is_told(status: str) -> None:
    async with serving(answering(f"HTTP/1.1 {status} No\r\n\r\n".encode())) as port:
        answer = await probe(HttpProbe(port=port, path="/health?full=1"))
    assert answer == f"GET http://127.0.0.1:{port}/health?full=1 was answered with status {status}"


async def test_the_request_is_one_whole_get() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with serving(serve) as port:
        assert await probe(HttpProbe(port=port, path="/ready")) is None
    assert seen[0].startswith(f"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
    assert b"\r\nConnection: close\r\n" in seen[0]


async def test_a_server_that_hangs_costs_no_more_than_the_probes_own_deadline() -> None:
    async with serving(hang) as port:
        answer = await probe(HttpProbe(port=port, timeout_s=0.05))
    assert answer == f"GET http://127.0.0.1:{port}/ did not answer within 0.05 s"


@pytest.mark.parametrize("half", [b"", b"HTTP/1.", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r"])
async def test_half_a_status_line_is_not_ready(half: bytes) -> None:
    async with serving(answering(half)) as port:
        answer = await probe(HttpProbe(port=port))
    assert answer == f"GET http://127.0.0.1:{port}/ was cut off before its answer was complete"


@pytest.mark.parametrize(
    "noise",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 20\r\n", b"\0" * 70_000, b"\n"],
)
async def test_what_is_not_http_is_said_to_be_so(noise: bytes) -> None:
    async with serving(answering(noise)) as port:
        answer = await probe(HttpProbe(port=port))
    assert answer == f"GET http://127.0.0.1:{port}/ was answered with something that is not HTTP"


async def test_an_endless_body_is_not_waited_for() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await hang(reader, writer)

    async with serving(endless) as port:
        assert await probe(HttpProbe(port=port, timeout_s=5)) is None


async def test_an_endless_head_ends_with_the_deadline() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(trickle) as port:
        answer = await probe(HttpProbe(port=port, timeout_s=0.1))
    assert answer == f"GET http://127.0.0.1:{port}/ did not answer within 0.1 s"


async def test_an_address_that_cannot_be_reached_is_told_with_its_reason() -> None:
    answer = await probe(TcpProbe(port=9), address="255.255.255.255")
    assert answer is not None
    assert answer.startswith("connecting to 255.255.255.255:9 failed: ")


async def test_cancelling_the_probe_is_not_swallowed() -> None:
    async with serving(hang) as port:
        asking = asyncio.create_task(probe(HttpProbe(port=port, timeout_s=30)))
        await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
