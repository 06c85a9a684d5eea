"""A real cluster for a test: three nats-servers by what was exported, which can be killed and started.

::

    async with serving_cluster(tmp_path, "pi-1") as cluster:
        await cluster.nodes[0].kill()
        await cluster.nodes[0].start()

It is a `Bus`, too: `cluster.bus`. Servers and connections end with the block.
"""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from nats.errors import Error as NatsError

from harmony_control.bus.connection import admin
from harmony_control.enrol import add_agent
from harmony_control.server.buckets import ensure_buckets, find_differences
from harmony_control.server.cluster import parse_nodes
from harmony_control.server.export import STORE, export
from harmony_control.server.process import Server, server_binary
from harmony_core.errors import HarmonyError

from .nats import Bus, fleet_home, told_of_users
from .ports import free_addresses

__all__ = ["Cluster", "ServerNode", "serving_cluster"]

_UP_WITHIN_S = 60
_LOOK_AGAIN_S = 0.1


@attrs.define(eq=False)
class ServerNode:
    """One server of the cluster."""

    name: str
    url: str
    conf: Path
    monitor: str
    """Where it says how it stands."""
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it joins the others by itself."""
        assert self.process is None
        with self.conf.with_name("nats.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(server_binary()), "-c", str(self.conf), stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """End it as a power cut does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """End it in order."""
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        await self.process.wait()
        self.process = None

    async def ask(self, what: str) -> dict[str, Any]:
        """What it says of itself (``varz``, ``jsz``, ``connz``); empty where it says nothing."""
        return await asyncio.to_thread(_read_json, f"{self.monitor}/{what}")

    def signal(self, which: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(which)


@attrs.frozen
class Cluster:
    """Three servers, the fleet's home, and who is connected to them."""

    bus: Bus
    nodes: Sequence[ServerNode]

    def node(self, name: str) -> ServerNode:
        """The one of that name."""
        (found,) = (each for each in self.nodes if each.name == name)
        return found

    async def stream_info(self, stream: str) -> Mapping[str, Any]:
        """What the cluster says of *stream*; asked again while it elects."""
        async with asyncio.timeout(_UP_WITHIN_S):
            while True:
                try:
                    answer = await self.bus.admin.request(
                        f"$JS.API.STREAM.INFO.{stream}", timeout=1
                    )
                    found: Mapping[str, Any] = json.loads(answer.data)
                    if "config" in found and found["cluster"].get("leader"):
                        return found
                except (NatsError, TimeoutError):
                    pass
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def leader(self, stream: str) -> ServerNode:
        """The server that takes the writes of *stream*."""
        return self.node((await self.stream_info(stream))["cluster"]["leader"])

    async def meta_leader(self) -> ServerNode:
        """The server that decides which of them keep which stream."""
        async with asyncio.timeout(_UP_WITHIN_S):
            while True:
                for node in self.nodes:
                    if node.process is not None:
                        found = await node.ask("jsz")
                        if leader := found.get("meta_cluster", {}).get("leader"):
                            return self.node(leader)
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def whole(self) -> None:
        """Return once every copy of every bucket is there, and none is behind."""
        async with asyncio.timeout(_UP_WITHIN_S):
            while True:
                try:
                    found = await find_differences(self.bus.admin)
                except HarmonyError:
                    pass
                else:
                    if not any(found.values()):
                        return
                await asyncio.sleep(_LOOK_AGAIN_S)


def _read_json(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return dict(json.load(answer))
    except OSError:
        return {}


@asynccontextmanager
async def serving_cluster(
    root: Path, *agents: str, with_jwts: bool = False
) -> AsyncGenerator[Cluster]:
    """A cluster below *root* that knows *agents*."""
    home, given = fleet_home(root), root / "given"
    addresses = ",".join(free_addresses(3, 2_000))

    def write(cluster: str | None) -> None:
        export(
            home, given, listen=None, fleet=None, issued=None, with_jwts=with_jwts, cluster=cluster
        )

    await asyncio.to_thread(write, addresses)
    if not with_jwts:
        for agent in agents:
            await asyncio.to_thread(add_agent, home, agent)
        await asyncio.to_thread(write, None)
    nodes: list[ServerNode] = []
    for each in parse_nodes(addresses):
        conf = given / each.name / "nats.conf"
        monitor = free_addresses(1)[0]
        conf.write_text(
            conf.read_text().replace(str(STORE), str(root / each.name)) + f'http: "{monitor}"\n'
        )
        nodes.append(ServerNode(each.name, each.url, conf, f"http://{monitor}"))
    try:
        for node in nodes:
            await node.start()
        if with_jwts:
            await told_of_users(home)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(_answering(home, nodes))
            server = Server(url=home.control().url, pid=None, started_here=False, home=home)
            cluster = Cluster(Bus(home, server, client, stack), nodes)
            if with_jwts:
                await cluster.bus.enrol(*agents)
            yield cluster
    finally:
        for node in nodes:
            if node.process is not None:
                await node.kill()


@asynccontextmanager
async def _answering(home: Any, nodes: Sequence[ServerNode]) -> AsyncGenerator[Any]:
    """The operator's connection, once the cluster has a leader and the buckets are made."""
    async with asyncio.timeout(_UP_WITHIN_S), AsyncExitStack() as stack:
        while True:
            try:
                client = await stack.enter_async_context(admin(home))
                await ensure_buckets(client)
                break
            except HarmonyError:
                assert all(each.process and each.process.returncode is None for each in nodes)
                await asyncio.sleep(_LOOK_AGAIN_S)
        kept = stack.pop_all()
    async with kept:
        yield client
