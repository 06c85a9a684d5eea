"""F2: from nothing to the first value read: imports, ten models, a database, a connection, one DIRECT.GET."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import attrs
from nacl.signing import VerifyKey
from nats.aio.client import Client

from ._models import MODELS
from ._tls import tls

__all__ = ["LOADED", "connected", "main", "opened_database"]

LOADED = (attrs, VerifyKey, MODELS)
"""What an agent cannot do without, so that a linter does not take it for unused."""


def opened_database(told: dict[str, Any]) -> sqlite3.Connection:
    database = sqlite3.connect(told["database"], check_same_thread=False)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE IF NOT EXISTS kept (only INTEGER PRIMARY KEY, desired BLOB)"
    )
    return database


async def connected(told: dict[str, Any]) -> tuple[Client, bytes]:
    agent = told["agent"]
    client = Client()
    await client.connect(
        told["url"],
        nkeys_seed_str=told["seed"],
        inbox_prefix=f"_INBOX_{agent}".encode(),
        **tls(told),
    )
    stream = client.jetstream()
    key = f"$KV.desired-state.{agent}"
    found = await stream.get_last_msg("KV_desired-state", key, direct=True)
    return client, found.data or b""


async def run(told: dict[str, Any]) -> None:
    opened_database(told)
    await connected(told)
    await asyncio.Event().wait()


def main() -> None:
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
