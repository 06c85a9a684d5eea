"""F11: what a command that asks one question of the bus cannot do without: nats, a connection, one read."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from ._tls import tls


async def run(told: dict[str, Any]) -> None:
    client = Client()
    await client.connect(told["url"], nkeys_seed_str=told["seed"], **tls(told))
    key = f"$KV.actual-state.{told['agent']}"
    found = await client.jetstream().get_last_msg("KV_actual-state", key, direct=True)
    print((found.data or b"").decode())
    await client.close()


def main() -> None:
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
