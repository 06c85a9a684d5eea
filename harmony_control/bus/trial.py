"""Tries an address of the message server before it is written down for others to use."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from harmony_core.errors import BusUnreachable
from harmony_core.wire.tls import describe_tls_error, verifying_context

__all__ = ["try_servers"]

_PORT = 4222
_ANSWERS_WITHIN_S = 10.0


async def try_servers(servers: Sequence[str], *, authority: str, server_name: str) -> None:
    """Reach each of *servers* by TLS, and have it prove to be *server_name*, by *authority* in PEM alone.

    `BusUnreachable` for the first that is not reached, or does not.
    """
    for url in servers:
        where = urlsplit(url)
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                _, writer = await asyncio.open_connection(
                    where.hostname,
                    where.port or _PORT,
                    ssl=verifying_context(authority),
                    server_hostname=server_name,
                )
        except ssl.SSLError as error:
            raise _untold(
                url, f"does not prove to be the server of this fleet: {describe_tls_error(error)}"
            ) from error
        except TimeoutError as error:
            raise _untold(url, f"does not answer within {_ANSWERS_WITHIN_S:.0f} s") from error
        except OSError as error:
            raise _untold(url, f"cannot be reached: {error.strerror or error}") from error
        writer.transport.abort()


def _untold(url: str, why: str) -> BusUnreachable:
    return BusUnreachable(
        f"{url} {why}; nothing was written: correct it with --url tls://HOST:PORT, or add --no-try where it "
        "is reached from elsewhere, and not from this machine"
    )
