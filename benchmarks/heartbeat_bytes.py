"""``python -m benchmarks.heartbeat_bytes``: what a device sends and receives in a day without any change.

A real server with TLS; the device's own connection goes through a relay that counts. A hundred heartbeats and
a hundred PINGs of NATS are counted apart, each with its share of TLS; the day is computed of them. What TCP
and IP add is not in it: 40 bytes or more for each packet.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs

from harmony_agent import config as configuration
from harmony_agent.bus.link import Account, Link
from harmony_agent.bus.own_report import OwnReport
from harmony_agent.report.vitals import read_vitals
from harmony_core.wire.actual_state import Heartbeat, to_json
from tests.nats import serving

_TIMES = 100
_DAY_S = 86_400
_BEAT_EVERY_S = 30 * 0.9
"""In the mean of what `harmony_agent/report/heartbeat.py` spreads them over."""
_PING_EVERY_S = 60


@attrs.define
class Counted:
    """Bytes that have passed, as the device sees them."""

    sent: int = 0
    received: int = 0


@asynccontextmanager
async def _relaying(address: str, counted: Counted) -> AsyncGenerator[str]:
    host, _, port = address.rpartition("://")[2].rpartition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(host, int(port))

        async def pass_on(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, name: str
        ) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    setattr(counted, name, getattr(counted, name) + len(data))
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(
            pass_on(reader, there, "sent"), pass_on(there_reader, writer, "received")
        )

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _each(counted: Counted, do: Callable[[], Awaitable[object]]) -> Counted:
    await asyncio.sleep(0.2)
    before = attrs.evolve(counted)
    for _ in range(_TIMES):
        await do()
        # What is written together is one record of TLS: a device's heartbeats never are.
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    return Counted(
        round((counted.sent - before.sent) / _TIMES),
        round((counted.received - before.received) / _TIMES),
    )


def _beat(*, with_vitals: bool) -> bytes:
    beat = Heartbeat(
        agent_id="pi-1",
        boot_id="0f9c7a52-6b1e-4f7c-9d7e-2a4c5b6d7e8f",
        agent_version="0.1.0",
        generation=7,
        observed_generation=7,
        queue_seq=1204,
        counter=1_769_860_800_002,
        vitals=read_vitals(Path("/")) if with_vitals else None,
    )
    return to_json(beat)


async def measure(root: Path) -> dict[str, Counted]:
    """Return the bytes of one of each, below *root*."""
    counted = Counted()
    async with serving(root, "pi-1") as bus, _relaying(bus.server.url, counted) as relayed:
        config = configuration.load(bus.home.agent_toml("pi-1"))
        account = attrs.evolve(Account.of(config), servers=[relayed])
        client = account.client()
        await account.connect(client)
        key = config.report_key
        ended = asyncio.Event()
        link = Link(client, "pi-1", key=key, own_report=OwnReport(key), ended=ended)
        try:
            return {
                "heartbeat without vitals": await _each(
                    counted, lambda: link.beat(_beat(with_vitals=False))
                ),
                "heartbeat": await _each(counted, lambda: link.beat(_beat(with_vitals=True))),
                "ping and pong": await _each(counted, client.flush),
            }
        finally:
            await client.close()


def main() -> None:
    """Print one of each, and the day."""
    with tempfile.TemporaryDirectory() as root:
        found = asyncio.run(measure(Path(root)))
    for name, each in found.items():
        print(f"{name:<26} {each.sent:5} bytes sent, {each.received:5} received")
    beat, ping = found["heartbeat"], found["ping and pong"]
    beats, pings = _DAY_S / _BEAT_EVERY_S, _DAY_S / _PING_EVERY_S
    sent_kb = (beats * beat.sent + pings * ping.sent) / 1_000
    received_kb = (beats * beat.received + pings * ping.received) / 1_000
    print(
        f"a day: {sent_kb:.0f} kB sent, {received_kb:.0f} kB received "
        f"({beats:.0f} heartbeats, {pings:.0f} pings)"
    )


if __name__ == "__main__":
    main()
