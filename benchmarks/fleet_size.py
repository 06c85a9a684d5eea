"""``*.10000``: what a person waits for who has ten thousand devices, and what is written and kept for them.

Enrolled as `harmony add-agent` does, each says by its own key what an agent says; none runs. What many whole
agents cost the server, and what a rollout sends them, `make fleet` tells.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attrs
import httpx
from nats.aio.client import Client
from nats.js import JetStreamContext

from harmony_control.bus.reports import Reports
from harmony_control.enrol import add_agents
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.publish import Wish, publish
from harmony_control.store.home import Home
from harmony_control.web.users import Users
from harmony_core.outcome import Success
from harmony_core.wire.actual_state import ActualState, Heartbeat, ScoreStatus, to_json
from harmony_core.wire.device_signature import (
    ACTUAL_STATE_TYPE,
    HEARTBEAT_TYPE,
    SIGNATURE_HEADER,
    sign,
)
from harmony_core.wire.envelope import SigningKey
from tests.nats import free_address, worked_off
from tests.web.ground import CHEAP, PASSWORD

from .bed import Bed, file_scores, floor_command
from .figures import Figure, Line, median
from .goals import line
from .processes import memory_of, run_once
from .rounds import Rounds

__all__ = ["FLEET_SIZE", "fleet_size"]

_MANY, _FEW = 10_000, 1_000
FLEET_SIZE = ("enrol.10000", "class.10000.writes", "agents.10000", "serve.10000.memory")
_HARMONY = str(Path(sys.executable).with_name("harmony"))
_BOOT = "0f9c7a52-6b1e-4f7c-9d7e-2a4c5b6d7e8f"
_NOON = "2026-01-31T12:00:00.000Z"
_SERVE_KEEPS_KIB = 4.0
_READ_WITHIN_S = 60.0


async def fleet_size(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Enrol them, have all of them speak, publish to a class of all, list them, and serve them."""
    home = bed.bus.home
    Users(home, CHEAP).add("ada", "viewer", PASSWORD)
    empty_kib = await _serve_kib(home, 0)
    few = await _enrol_us(home, "few", _FEW)
    many = await _enrol_us(home, "pi", _MANY)
    yield line("enrol.10000", many, few)
    speakers = await asyncio.to_thread(_Speakers.read, home)
    await speakers.report(bed.bus.admin)
    # The generation, who is meant by the class, and the gate of the first wave.
    yield line("class.10000.writes", await _class_writes(bed), Figure(3, 0, "messages"))
    await speakers.beat(bed.bus.admin)
    ours, floor = await _list_ms(bed, rounds.of(10), speakers)
    yield line("agents.10000", median(ours, "ms"), median(floor, "ms"))
    full_kib = await _serve_kib(home, _MANY + _FEW)
    kib = Figure((full_kib - empty_kib) / (_MANY + _FEW), 0, "KiB a device")
    yield line("serve.10000.memory", kib, Figure(_SERVE_KEEPS_KIB, 0, "KiB a device"))


async def _enrol_us(home: Home, prefix: str, count: int) -> Figure:
    names = [f"{prefix}-{number}" for number in range(count)]
    began = time.perf_counter()
    await asyncio.to_thread(add_agents, home, names)
    return Figure((time.perf_counter() - began) * 1e6 / count, 0, "us a device")


@attrs.frozen
class _Speakers:
    """All devices, each by its key."""

    keys: Mapping[str, SigningKey]

    @classmethod
    def read(cls, home: Home) -> _Speakers:
        """Of what every device of *home* was given."""
        tables = {each: tomllib.loads(home.agent_toml(each).read_text()) for each in home.agents()}
        return cls(
            {name: SigningKey.from_text(table["report"]["key"]) for name, table in tables.items()}
        )

    def write_public_keys(self, path: Path) -> None:
        """For a floor, which verifies, too."""
        keys = {
            name: base64.b64encode(key.public.public).decode() for name, key in self.keys.items()
        }
        path.write_text(json.dumps(keys))

    async def report(self, client: Client) -> None:
        """Have each say that its one Score is as wished."""
        for name in self.keys:
            page = ScoreStatus(
                kind="FileScore", version=1, observed_generation=1, since=_NOON, outcome=Success()
            )
            state = ActualState(
                agent_id=name,
                agent_version="1.2.3",
                boot_id=_BOOT,
                generation=1,
                counter=1,
                observed_generation=1,
                capabilities={},
                kinds={"FileScore": (1,)},
                scores={"motd": page},
                conditions=(),
            )
            await self._say(client, "actual-state", name, ACTUAL_STATE_TYPE, to_json(state))
        await worked_off(client)

    async def beat(self, client: Client) -> None:
        """Have each be heard, for a minute and a half."""
        for name in self.keys:
            beat = Heartbeat(
                agent_id=name,
                boot_id=_BOOT,
                agent_version="1.2.3",
                generation=1,
                observed_generation=1,
                queue_seq=1,
                counter=time.time_ns(),
            )
            await self._say(client, "heartbeat", name, HEARTBEAT_TYPE, to_json(beat))
        await worked_off(client)

    async def _say(self, client: Client, bucket: str, name: str, kind: str, data: bytes) -> None:
        headers = {SIGNATURE_HEADER: sign(self.keys[name], kind, data)}
        await client.publish(f"$KV.{bucket}.{name}", data, headers=headers)


async def _class_writes(bed: Bed) -> Figure:
    """How many messages a first generation for all of them is, in all buckets."""
    before = await _messages(bed.bus.admin)
    reports = Reports(bed.bus.home, bed.bus.admin)
    documents = await ClassDocuments.open(bed.bus.home, bed.bus.admin)
    scores = {each.id: each for each in file_scores("/etc", 1, "hello ")}
    published = await publish(
        documents, reports, "kiosk", lambda _: Wish(selector="", scores=scores)
    )
    assert len(published.members) == _MANY + _FEW
    return Figure(await _messages(bed.bus.admin) - before, 0, "messages")


async def _messages(client: Client) -> int:
    """The last sequence of each stream, summed: what was ever written."""
    streams = await JetStreamContext(client).streams_info()
    return sum(each.state.last_seq for each in streams)


async def _list_ms(bed: Bed, count: int, speakers: _Speakers) -> tuple[list[float], list[float]]:
    keys = bed.root / "keys.json"
    await asyncio.to_thread(speakers.write_public_keys, keys)
    seed = await asyncio.to_thread(bed.bus.home.control().admin_seed.read_text)
    told = await bed.told("pi-0", seed=seed.strip(), agents=str(keys))
    environ = {**os.environ, "HARMONY_HOME": str(bed.bus.home.root)}
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(count + 1):
        await speakers.beat(bed.bus.admin)
        for into, command in zip(
            took, ([_HARMONY, "agents"], floor_command("f10", told)), strict=True
        ):
            log = str(bed.root / "list.log")
            ran = await asyncio.to_thread(run_once, command, environ=environ, output=log)
            assert ran.status == 0, f"{command} ended with {ran.status}"
            if number:
                into.append(ran.wall_ms)
    return took


async def _serve_kib(home: Home, count: int) -> float:
    """What `harmony serve` holds in memory once it shows so many devices."""
    process = await asyncio.create_subprocess_exec(
        *(_HARMONY, "serve", "--listen", free_address(), "--json"),
        env={**os.environ, "HARMONY_HOME": str(home.root)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        async with (
            httpx.AsyncClient(
                base_url=url, headers={"Origin": url}, timeout=_READ_WITHIN_S
            ) as client,
            asyncio.timeout(_READ_WITHIN_S),
        ):
            signed_in = await client.post(
                "/api/session", json={"name": "ada", "password": PASSWORD}
            )
            signed_in.raise_for_status()
            shown = -1
            while shown < count:
                await asyncio.sleep(0.1)
                reply = await client.get("/api/devices", params={"limit": 1})
                shown = reply.json()["total"]
            await client.get("/api/fleet")
        return memory_of([process.pid]).rss * 1_024
    finally:
        process.terminate()
        await process.wait()
