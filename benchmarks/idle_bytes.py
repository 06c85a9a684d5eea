"""``python -m benchmarks.idle_bytes``: what a device sends and receives in a day without any change.

The real agent, with three files to look after, on a real server with TLS; its connection goes through a relay
that counts. A day would be long: every timer of the agent runs so many times faster (``--faster``), so that
it does in minutes all that it does in a day, in the same numbers. It is measured once the agent is quiet.

Counted are the bytes in TCP, those of TLS among them; beside them the segments, to each of which TCP and IP
add 40 bytes or more. What a new connection costs is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import ModuleType

import attrs

from harmony_agent import class_watch, wiring
from harmony_agent import config as configuration
from harmony_agent.bus import deliveries, link
from harmony_agent.bus.connection import Bus
from harmony_agent.bus.link import Account
from harmony_agent.drift import watcher
from harmony_agent.report import heartbeat, inventory
from harmony_control.fleet import Fleet
from harmony_control.store.home import Home
from harmony_scores import FileScore
from tests.nats import serving

__all__ = ["Day", "measure"]

PACES_S = (30.0, 120.0, 600.0)
_DAY_S = 86_400
_TIMERS: Mapping[ModuleType, tuple[str, ...]] = {
    heartbeat: ("BUSY_EVERY_S", "BUSY_FOR_S", "_LOOK_S", "_LEAN_FROM_S", "_VITALS_S"),
    link: ("PING_S", "PING_MOST_S"),
    deliveries: ("RESYNC_S",),
    class_watch: ("RESYNC_S",),
    watcher: ("SLOW_PASS_S",),
    inventory: ("_LOOK_S",),
    configuration: ("_USUAL_HEARTBEAT_S",),
}
_PING_BYTES = 28
"""PING or PONG, each a record of TLS."""
_AFTER_BEAT_S = 0.02
_QUIET_AFTER_S = 5.0
_TCP_INFO = struct.Struct("=8x24x72x24xQ4xI")
"""`tcpi_bytes_received` and `tcpi_segs_in` of Linux's ``struct tcp_info``."""


@attrs.define
class Counted:
    """What has passed, as the device sees it."""

    sent: int = 0
    received: int = 0
    pings: int = 0
    """Bytes sent to ask whether the server is there, or to answer that."""
    sockets: list[socket.socket] = attrs.field(factory=list[socket.socket])

    def segments(self) -> int:
        """Return how many segments of TCP the device has sent."""
        found = (each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256) for each in self.sockets)
        return sum(_TCP_INFO.unpack_from(each)[1] for each in found)


@attrs.frozen(kw_only=True)
class Day:
    """What a device sends and receives in a day, in bytes."""

    heartbeats: int
    """How many."""
    heartbeat_bytes: int
    keep_alive_bytes: int
    sent_bytes: int
    received_bytes: int
    segments: int

    def in_words(self) -> str:
        rest = self.sent_bytes - self.heartbeat_bytes - self.keep_alive_bytes
        return (
            f"{self.sent_bytes:9,} bytes sent a day: {self.heartbeat_bytes:,} in "
            f"{self.heartbeats:,} heartbeats, {self.keep_alive_bytes:,} to keep the connection, "
            f"{rest:,} for all else; {self.segments:,} segments; {self.received_bytes:,} bytes received"
        )


class _CountingBus(Bus):
    """Counts the agent's heartbeats, and what each sends."""

    def __init__(
        self, account: Account, config: configuration.AgentConfig, counted: Counted
    ) -> None:
        super().__init__(account, config.report_key)
        self._counted = counted
        self.beats = 0
        self.beats_bytes = 0

    async def beat(self, heartbeat: bytes, *, lifetime_s: int) -> bool:
        self.beats += 1
        before = self._find_sent()
        loop = asyncio.get_running_loop()
        loop.call_later(_AFTER_BEAT_S, lambda: self._note(self._find_sent() - before))
        return await super().beat(heartbeat, lifetime_s=lifetime_s)

    def _find_sent(self) -> int:
        return self._counted.sent - self._counted.pings

    def _note(self, count: int) -> None:
        self.beats_bytes += count


@contextmanager
def _hurried(faster: float) -> Generator[None]:
    with ExitStack() as stack:
        for module, names in _TIMERS.items():
            for name in names:
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, getattr(module, name) / faster)
        yield


@asynccontextmanager
async def _relaying(address: str, counted: Counted) -> AsyncGenerator[str]:
    host, _, port = address.rpartition("://")[2].rpartition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(host, int(port))
        counted.sockets.append(writer.get_extra_info("socket")._sock)

        def note_sent(count: int) -> None:
            counted.sent += count
            counted.pings += count if count == _PING_BYTES else 0

        def note_received(count: int) -> None:
            counted.received += count

        await asyncio.gather(
            _pass_on(reader, there, note_sent), _pass_on(there_reader, writer, note_received)
        )

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _pass_on(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: Callable[[int], None]
) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            note(len(data))
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def _agent(
    home: Home, name: str, directory: Path, address: str, counted: Counted, heartbeat_s: float
) -> AsyncGenerator[_CountingBus]:
    (directory / "device/etc").mkdir(parents=True)
    config = configuration.load(home.agent_toml(name)).model_copy(
        update={
            "state_directory": directory / "state",
            "runtime_directory": directory / "run",
            "heartbeat_s": heartbeat_s,
            "topology": configuration.TopologyTable(root=directory / "device"),
        }
    )
    account = attrs.evolve(Account.of(config), servers=[address])
    bus = _CountingBus(account, config, counted)
    async with wiring.open_agent(config, bus) as (agent, _):
        running = asyncio.create_task(agent.run())
        try:
            yield bus
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def measure(
    root: Path, paces_s: Sequence[float], *, faster: float, days: float
) -> Sequence[Day]:
    """Return what an agent of each pace comes to below *root*, by so many *days*; all at once."""
    with _hurried(faster):
        return await asyncio.gather(
            *(_measure(root / str(each), each, faster, days) for each in paces_s)
        )


async def _measure(root: Path, heartbeat_s: float, faster: float, days: float) -> Day:
    counted = Counted()
    async with (
        serving(root, "pi-1") as bus,
        _relaying(bus.server.url, counted) as address,
        Fleet.connect(bus.home) as fleet,
        _agent(bus.home, "pi-1", root / "pi-1", address, counted, heartbeat_s / faster) as beats,
    ):
        scores = {each: FileScore(path=f"/etc/{each}", content=each) for each in "abc"}
        await fleet.device("pi-1").put(scores)
        await asyncio.sleep(_QUIET_AFTER_S + heartbeat.BUSY_FOR_S)
        before = attrs.evolve(counted)
        segments, number, size = counted.segments(), beats.beats, beats.beats_bytes
        await asyncio.sleep(days * _DAY_S / faster)
        return Day(
            heartbeats=round((beats.beats - number) / days),
            heartbeat_bytes=round((beats.beats_bytes - size) / days),
            keep_alive_bytes=round((counted.pings - before.pings) / days),
            sent_bytes=round((counted.sent - before.sent) / days),
            received_bytes=round((counted.received - before.received) / days),
            segments=round((counted.segments() - segments) / days),
        )


def main() -> None:
    """Print the day of a device by each pace."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_bytes")
    parser.add_argument("--faster", type=float, default=100.0, help="than the clock on the wall")
    parser.add_argument("--days", type=float, default=0.5, help="that are measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        days = asyncio.run(measure(Path(root), PACES_S, faster=given.faster, days=given.days))
    for heartbeat_s, day in zip(PACES_S, days, strict=True):
        print(f"heartbeat_s = {heartbeat_s:3.0f}: {day.in_words()}")


if __name__ == "__main__":
    main()
