"""Readiness probes: one question to something that runs on this device, answered in bounded time.

    connect -> (HTTP: one GET, one status line) -> None, or one sentence that says why it is not ready

The same for units and containers. Nothing is remembered, nothing is retried: whoever asks decides when
to ask again. At most 16 KiB are read, whatever the other side sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from harmony_core.resources import HttpProbe, Probe, TcpProbe

_READ_BYTES = 16 * 1024
_COURTESY_S = 0.2
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")


async def probe(p: Probe, *, address: str = "127.0.0.1") -> str | None:
    """Return None when *p* succeeds at *address*, else one sentence why not. End within ``p.timeout_s``."""
    where = f"{_host(address)}:{p.port}"
    try:
        async with asyncio.timeout(p.timeout_s):
            return await _ask(p, address, where)
    except TimeoutError:
        return f"{_what(p, where)} did not answer within {p.timeout_s:g} s"
    except ConnectionRefusedError:
        return f"nothing listens on {where}"
    except OSError as error:
        return f"{_what(p, where)} failed: {error.strerror or error}"


async def _ask(p: Probe, address: str, where: str) -> str | None:
    reader, writer = await asyncio.open_connection(address, p.port, limit=_READ_BYTES)
    try:
        match p:
            case TcpProbe():
                return None
            case HttpProbe():
                writer.write(_request(p.path, where))
                return await _evaluate_answer(reader, _what(p, where))
    finally:
        # Not close(): a peer that reads nothing must not keep us waiting for our last bytes.
        writer.transport.abort()


def _request(path: str, where: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {where}\r\nUser-Agent: harmony-agent\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


async def _evaluate_answer(reader: asyncio.StreamReader, what: str) -> str | None:
    try:
        line = await reader.readline()
    except ValueError:
        return f"{what} was answered with something that is not HTTP"
    if not line.endswith(b"\n"):
        return f"{what} was cut off before its answer was complete"
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        return f"{what} was answered with something that is not HTTP"
    await _take_the_rest(reader)
    status = int(match[1])
    return None if 200 <= status <= 399 else f"{what} was answered with status {status}"


async def _take_the_rest(reader: asyncio.StreamReader) -> None:
    """Read the rest of the answer, so that a server that writes its body separately logs no broken pipe at
    every probe."""
    with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_COURTESY_S):
            await reader.readexactly(_READ_BYTES)


def _what(p: Probe, where: str) -> str:
    return f"GET http://{where}{p.path}" if isinstance(p, HttpProbe) else f"connecting to {where}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
