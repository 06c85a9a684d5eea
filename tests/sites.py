"""A site for a test: the fleet's server, and the site's as its leaf node, by what was exported, with the line
between them in our hands.

::

    async with serving_site(tmp_path, "pi-1", "pi-2") as site:
        await site.line.cut()
        await site.line.mend()

The fleet's server knows ``other``, too, which is at no site. All ends with the block.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from harmony_control.bus.connection import admin
from harmony_control.enrol import add_agent
from harmony_control.server.buckets import ensure_buckets
from harmony_control.server.config import Listen
from harmony_control.server.export import STORE, export
from harmony_control.server.leaf import GATE_ABOVE
from harmony_control.server.process import Server
from harmony_control.store.home import Home

from .cluster import ServerNode
from .nats import Bus, fleet_home, run_nats, told_of_users
from .ports import free_addresses

__all__ = ["SITE", "Line", "SiteScene", "serving_site"]

SITE = "shop"
_UP_WITHIN_S = 60


@attrs.define(eq=False)
class Line:
    """What is between a site's server and the fleet's: a port that passes on every byte, until it is cut."""

    to: Listen
    _server: asyncio.Server | None = None
    _passing: set[asyncio.Task[None]] = attrs.field(factory=set[asyncio.Task[None]])
    port: int = 0

    async def mend(self) -> None:
        """Pass on what comes."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all that goes through, and take nothing more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for each in self._passing:
            each.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None
        self._passing.add(own)
        own.add_done_callback(self._passing.discard)
        with suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection(self.to.host, self.to.port)
            try:
                await asyncio.gather(_copy(reader, back), _copy(there, writer))
            finally:
                back.close()
                writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@attrs.frozen
class SiteScene:
    """A fleet's server, a site's, and the line between them."""

    bus: Bus
    leaf: ServerNode
    line: Line
    given: Path
    """What was exported."""

    @property
    def home(self) -> Home:
        return self.bus.home

    async def is_joined(self) -> bool:
        """Whether the site's server is connected to the fleet's."""
        return bool((await self.leaf.ask("leafz")).get("leafs"))

    async def joined(self) -> None:
        """Return once it is."""
        async with asyncio.timeout(_UP_WITHIN_S):
            while not await self.is_joined():
                await asyncio.sleep(0.05)

    def settle(self) -> None:
        """Have what was exported fit this machine."""
        _settle(self.given, self.line, self.leaf)

    async def carry(self) -> None:
        """Export again, and restart the site's server by it, as an operator does."""
        await asyncio.to_thread(_export, self.home, self.given)
        self.settle()
        await self.leaf.kill()
        await self.leaf.start()
        await self.joined()


def _export(home: Home, given: Path, **options: Any) -> None:
    given_options: dict[str, Any] = {"listen": None, "fleet": None, "issued": None}
    export(home, given, **given_options | options)


def _settle(given: Path, line: Line, leaf: ServerNode) -> None:
    """Have what was exported fit this machine: the line, and a port by which it says how it stands."""
    text = leaf.conf.read_text().replace(f"tls://{line.to}", f"tls://127.0.0.1:{line.port}")
    leaf.conf.write_text(f'{text}http: "{leaf.monitor.removeprefix("http://")}"\n')
    conf = given / "nats.conf"
    conf.write_text(conf.read_text().replace(str(STORE), str(given / "store")))


@asynccontextmanager
async def serving_site(root: Path, *agents: str) -> AsyncGenerator[SiteScene]:
    """The site `SITE` below *root*, with *agents*."""
    home, given = fleet_home(root), root / "given"
    (listen,) = free_addresses(1, GATE_ABOVE)
    at, monitor = free_addresses(2)
    await asyncio.to_thread(
        _export, home, given, listen=listen, with_jwts=True, leaf=f"{SITE}={at}"
    )
    fleet = Listen.parse(listen)
    line = Line(attrs.evolve(fleet, port=fleet.port + GATE_ABOVE))
    leaf = ServerNode(
        SITE, f"tls://{at}", given / f"site-{SITE}" / "nats.conf", f"http://{monitor}"
    )
    await line.mend()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(line.cut)
        _settle(given, line, leaf)
        process = await stack.enter_async_context(run_nats(given / "nats.conf"))
        await told_of_users(home)
        server = Server(url=home.control().url, pid=process.pid, started_here=False, home=home)
        client = await stack.enter_async_context(admin(home))
        await ensure_buckets(client)
        bus = Bus(home, server, client, stack)
        for each in agents:
            await asyncio.to_thread(add_agent, home, each, site=SITE)
        await asyncio.to_thread(add_agent, home, "other")
        await asyncio.to_thread(_export, home, given)
        _settle(given, line, leaf)
        await leaf.start()
        stack.push_async_callback(_end, leaf)
        scene = SiteScene(bus, leaf, line, given)
        await scene.joined()
        yield scene


async def _end(leaf: ServerNode) -> None:
    if leaf.process is not None:
        await leaf.kill()
