"""F10: what a command that lists a fleet cannot do without: a connection, every report and heartbeat by
ordered consumers, the signature and the JSON of each, and a line for each device."""

# nats-py's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import cattrs
from nacl.signing import VerifyKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from ._tls import tls

_TYPES = {
    "actual-state": "application/vnd.harmony.actual-state.v1+json",
    "heartbeat": "application/vnd.harmony.heartbeat.v1+json",
}


@attrs.frozen
class State:
    agent_id: str
    generation: int
    observed_generation: int
    scores: dict[str, Any]


@attrs.frozen
class Beat:
    agent_id: str
    generation: int


def verify(key: bytes, kind: str, data: bytes, signature: str) -> None:
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(data), data)
    VerifyKey(key).verify(signed, base64.b64decode(signature))


async def read(client: Client, bucket: str, count: int, keys: dict[str, bytes]) -> list[Any]:
    found: list[Any] = []
    done = asyncio.Event()
    shape = State if bucket == "actual-state" else Beat

    async def take(message: Msg) -> None:
        agent, headers = message.subject.rpartition(".")[2], message.headers or {}
        verify(keys[agent], _TYPES[bucket], message.data, headers["Harmony-Signature"])
        found.append(cattrs.structure(json.loads(message.data), shape))
        if len(found) == count:
            done.set()

    await client.jetstream().subscribe(f"$KV.{bucket}.*", cb=take, ordered_consumer=True)
    await done.wait()
    return found


async def run(told: dict[str, Any], agents: dict[str, str]) -> None:
    keys = {name: base64.b64decode(each) for name, each in agents.items()}
    client = Client()
    await client.connect(told["url"], nkeys_seed_str=told["seed"], **tls(told))
    states = await read(client, "actual-state", len(keys), keys)
    beats = {each.agent_id for each in await read(client, "heartbeat", len(keys), keys)}
    for each in sorted(states, key=lambda state: state.agent_id):
        print(each.agent_id, each.agent_id in beats, each.generation, each.observed_generation)
    await client.close()


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    asyncio.run(run(told, json.loads(Path(told["agents"]).read_text())))
