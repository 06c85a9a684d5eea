"""``*.10000``: what a person waits for who has ten thousand devices, and what is written and kept for them.

Enrolled as `harmony add-agent` does, each says by its own key what an agent says; none runs. What many whole
agents cost the server, and what a rollout sends them, `make fleet` tells.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import tomllib
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from nats.aio.client import Client
from nats.js import JetStreamContext

from harmony_control.bus.reports import Reports
from harmony_control.enrol import add_agents
from harmony_control.rollout.documents import ClassDocuments
from harmony_control.rollout.publish import Wish, publish
from harmony_control.server.apply import reload
from harmony_control.store.home import Home
from harmony_core.outcome import Success
from harmony_core.wire.envelope import SigningKey
from tests.control.scripted_device import ScriptedDevice
from tests.nats import connected
from tests.ports import free_address
from tests.web.serve_process import add_viewer, serve, sign_in

from .bed import Bed, file_scores, floor_command
from .commands import HARMONY, in_turn
from .figures import Figure, Line, median
from .goals import line
from .many_devices import beat, make_devices, report
from .processes import memory_of
from .rounds import Rounds

__all__ = ["FLEET_SIZE", "fleet_size"]

_MANY, _FEW, _SOME = 10_000, 1_000, 300
FLEET_SIZE = (
    "revoke.300",
    "enrol.10000",
    "revoke.10000",
    "class.10000.writes",
    "agents.10000",
    "serve.10000.memory",
)
_CUT_WITHIN_MS = 1_000.0
"""What whoever cuts off a stolen device may wait, from the command on."""
_SERVE_KEEPS_KIB = 4.0
_READ_WITHIN_S = 60.0


async def fleet_size(bed: Bed, rounds: Rounds) -> AsyncIterator[Line]:
    """Enrol them, have all of them speak, publish to a class of all, list them, and serve them."""
    home = bed.bus.home
    add_viewer(home)
    empty_kib = await _serve_kib(home, 0)
    await _enrol_us(home, "some", _SOME)
    cut, _ = await _revoke_ms(bed, "some", lost := rounds.of(5))
    yield line("revoke.300", median(cut, "ms"), Figure(_CUT_WITHIN_MS, 0, "ms"))
    few = await _enrol_us(home, "few", _FEW)
    many = await _enrol_us(home, "pi", _MANY)
    yield line("enrol.10000", many, few)
    cut, reloaded = await _revoke_ms(bed, "few", lost)
    yield line("revoke.10000", median(cut, "ms"), median(reloaded, "ms"))
    enrolled = _MANY + _FEW + _SOME - 2 * lost
    devices = await asyncio.to_thread(_read_devices, home, bed.bus.admin)
    await report(devices, Success(), generation=1)
    # The generation, who is meant by the class, and the gate of the first wave.
    yield line("class.10000.writes", await _class_writes(bed, enrolled), Figure(3, 0, "messages"))
    ours, floor = await _list_ms(bed, rounds.of(10), devices)
    yield line("agents.10000", median(ours, "ms"), median(floor, "ms"))
    full_kib = await _serve_kib(home, enrolled)
    kib = Figure((full_kib - empty_kib) / enrolled, 0, "KiB a device")
    yield line("serve.10000.memory", kib, Figure(_SERVE_KEEPS_KIB, 0, "KiB a device"))


async def _enrol_us(home: Home, prefix: str, count: int) -> Figure:
    names = [f"{prefix}-{number}" for number in range(count)]
    began = time.perf_counter()
    await asyncio.to_thread(add_agents, home, names)
    return Figure((time.perf_counter() - began) * 1e6 / count, 0, "us a device")


async def _revoke_ms(bed: Bed, prefix: str, count: int) -> tuple[list[float], list[float]]:
    """Return what *count* revocations of those with *prefix* took, from the command until the device was cut
    off; and as a floor, what it took the server to read such a configuration, and no more."""
    home = bed.bus.home
    cut: list[float] = []
    reloaded: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        await asyncio.to_thread(reload, home)
        reloaded.append((time.perf_counter() - began) * 1e3)
        name = f"{prefix}-{number}"
        async with connected(home, name) as lost:
            began = time.perf_counter()
            command = await asyncio.create_subprocess_exec(
                HARMONY, "--home", str(home.root), "revoke", name, stdout=DEVNULL
            )
            while lost.client.is_connected:  # noqa: ASYNC110 - nats-py tells it nowhere else
                await asyncio.sleep(0.001)
            cut.append((time.perf_counter() - began) * 1e3)
        assert await command.wait() == 0
    return cut, reloaded


def _read_devices(home: Home, client: Client) -> list[ScriptedDevice]:
    """Every device of *home*, by what it was given."""
    tables = {each: tomllib.loads(home.agent_toml(each).read_text()) for each in home.agents()}
    return make_devices(
        client,
        (
            (name, table["nats"]["mailbox"], SigningKey.from_text(table["report"]["key"]))
            for name, table in tables.items()
        ),
    )


def _write_public_keys(devices: Sequence[ScriptedDevice], path: Path) -> None:
    """For a floor, which verifies, too."""
    keys = {
        each.id: base64.b64encode(each.device.report_key.public.public).decode() for each in devices
    }
    path.write_text(json.dumps(keys))


async def _class_writes(bed: Bed, enrolled: int) -> Figure:
    """How many messages a first generation for all of them is, in all buckets."""
    before = await _messages(bed.bus.admin)
    reports = Reports(bed.bus.home, bed.bus.admin)
    documents = await ClassDocuments.open(bed.bus.home, bed.bus.admin)
    scores = {each.id: each for each in file_scores("/etc", 1, "hello ")}
    published = await publish(
        documents, reports, "kiosk", lambda _: Wish(selector="", scores=scores)
    )
    assert len(published.members) == enrolled
    return Figure(await _messages(bed.bus.admin) - before, 0, "messages")


async def _messages(client: Client) -> int:
    """Return the sum of the last sequence numbers of all streams: how many messages were ever written."""
    streams = await JetStreamContext(client).streams_info()
    return sum(each.state.last_seq for each in streams)


async def _list_ms(
    bed: Bed, count: int, devices: Sequence[ScriptedDevice]
) -> tuple[list[float], list[float]]:
    keys = bed.root / "keys.json"
    await asyncio.to_thread(_write_public_keys, devices, keys)
    seed = await asyncio.to_thread(bed.bus.home.control().admin_seed.read_text)
    told = await bed.told("pi-0", seed=seed.strip(), agents=str(keys))
    return await in_turn(
        bed, count, [HARMONY, "agents"], floor_command("f10", told), before=partial(beat, devices)
    )


async def _serve_kib(home: Home, count: int) -> float:
    """Return how much memory `harmony serve` holds once it shows so many devices."""
    async with (
        serve(home, "--listen", free_address()) as served,
        sign_in(served.url, timeout_s=_READ_WITHIN_S) as client,
        asyncio.timeout(_READ_WITHIN_S),
    ):
        shown = -1
        while shown < count:
            await asyncio.sleep(0.1)
            reply = await client.get("/api/devices", params={"limit": 1})
            shown = reply.json()["total"]
        await client.get("/api/fleet")
        return memory_of([served.process.pid]).rss * 1_024
