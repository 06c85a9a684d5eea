"""F1: answers a push. Fetched, verified, committed, decoded, committed, reported by compare-and-swap.

With ``root`` each file that the manifest asks for is looked at, and written safely where it differs: F1
and one safe write. F1L is this same program, given a manifest of 100 files.
"""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from ._tls import tls
from ._work import Manifest, opened, write

__all__ = ["main"]

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE kept (only INTEGER PRIMARY KEY, desired BLOB, outcome BLOB);
INSERT INTO kept VALUES (1, '', '');
"""


def commit(database: sqlite3.Connection, column: str, value: bytes) -> None:
    with database:
        database.execute(f"UPDATE kept SET {column} = ?", (value,))


async def run(told: dict[str, Any]) -> None:
    in_thread = partial(asyncio.get_running_loop().run_in_executor, ThreadPoolExecutor(1))
    database = sqlite3.connect(told["database"], check_same_thread=False)
    database.executescript(_SCHEMA)
    agent, key = told["agent"], VerifyKey(bytes.fromhex(told["key"]))
    hints: asyncio.Queue[Msg] = asyncio.Queue()
    client = Client()
    await client.connect(
        told["url"],
        nkeys_seed_str=told["seed"],
        inbox_prefix=f"_INBOX_{agent}".encode(),
        **tls(told),
    )
    await client.subscribe(f"harmony.mailbox.{told['mailbox']}.desired-state", cb=hints.put)
    stream = client.jetstream()
    desired, actual = f"$KV.desired-state.{agent}", f"$KV.actual-state.{agent}"
    try:
        revision = (await stream.get_last_msg("KV_actual-state", actual, direct=True)).seq or 0
    except NotFoundError:
        revision = 0
    await client.flush()
    print("ready", flush=True)
    while True:
        await hints.get()
        found = await stream.get_last_msg("KV_desired-state", desired, direct=True)
        payload = opened(found.data or b"", key)
        await in_thread(commit, database, "desired", found.data or b"")
        manifest = Manifest.model_validate_json(payload)
        if told["root"]:
            await in_thread(write, Path(told["root"]), manifest.scores)
        scores = {entry.id: {"outcome": {"status": "NOOP"}} for entry in manifest.scores}
        said = {"observed_generation": manifest.generation, "scores": scores}
        report = json.dumps(said).encode()
        await in_thread(commit, database, "outcome", report)
        expected = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        revision = (await stream.publish(actual, report, headers=expected)).seq


def main() -> None:
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
