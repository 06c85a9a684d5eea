"""A site's server as a thief would write one: it says what it likes by NATS' own words between servers.

A real nats-server keeps to what it is told that it may, so with one nobody sees who refuses what.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import nkeys as _untyped  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs] - it has no types

from harmony_control.server.config import Listen

__all__ = ["ForgedLeaf", "forged_leaf"]

_nkeys: Any = _untyped
_ANSWERS_WITHIN_S = 10


@attrs.frozen
class ForgedLeaf:
    """A connection to where a fleet's server waits for those of sites."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *lines: bytes) -> bytes:
        """Send *lines*, and return what came until the server has dealt with all of them."""
        self.writer.write(b"".join(each + b"\r\n" for each in (*lines, b"PING")))
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            try:
                return await self.reader.readuntil(b"PONG\r\n")
            except asyncio.IncompleteReadError as error:
                raise ConnectionError(f"cut off after {lines}: {error.partial!r}") from error

    async def subscribe(self, subject: str) -> bytes:
        return await self.say(f"LS+ {subject}".encode())

    async def send(self, subject: str, data: bytes, *, reply: str = "") -> bytes:
        head = f"LMSG {subject} {reply} {len(data)}" if reply else f"LMSG {subject} {len(data)}"
        return await self.say(head.encode(), data)


@asynccontextmanager
async def forged_leaf(
    gate: Listen, authority: str, seed: str, *, jwt: str | None = None
) -> AsyncGenerator[ForgedLeaf]:
    """Connected to *gate* with the key *seed*; ConnectionError where it is not let in."""
    context = ssl.create_default_context(cadata=authority)
    reader, writer = await asyncio.open_connection(gate.host, gate.port, ssl=context)
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        pair = _nkeys.from_seed(bytearray(seed.encode()))
        signature = urlsafe_b64encode(pair.sign(info["nonce"].encode())).rstrip(b"=").decode()
        who = {"jwt": jwt} if jwt else {"nkey": pair.public_key.decode()}
        hello = {**who, "sig": signature, "name": "forged", "headers": True, "server_id": "FORGED"}
        writer.write(f"CONNECT {json.dumps(hello)}\r\n".encode())
        leaf = ForgedLeaf(reader, writer)
        await leaf.say()
        yield leaf
    finally:
        writer.close()
