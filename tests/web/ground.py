"""What the tests of `harmony serve` stand on: the real application on a real port, over a real bus.

Where ten thousand devices are needed, `Rows` says what they are in the place of the fleet's own rows.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import httpx
from argon2 import PasswordHasher
from playwright.async_api import Page, expect

from harmony_control.fleet import DeviceRow, Fleet
from harmony_control.rollout.all_classes import Rollouts
from harmony_control.web.app import Web, make_web
from harmony_control.web.listen import Listen
from harmony_control.web.live import RowSource
from harmony_control.web.metrics_app import TokenFile
from harmony_control.web.oidc.signing_in import OidcSignIn
from harmony_control.web.serving import Serving
from harmony_control.web.users import Role, Users
from tests.control.scripted_device import ScriptedDevice
from tests.nats import Bus, serving

__all__ = ["PASSWORD", "Ground", "Rows", "Site", "enter", "read_rollouts", "running", "site"]

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""What it costs to look at a password is argon2's own matter."""
ROLES: tuple[Role, ...] = ("viewer", "operator", "approver")


class Rows:
    """Stands for the rows of a fleet; `put` changes them."""

    def __init__(self, rows: Iterable[DeviceRow]) -> None:
        self.is_connected = True
        self._rows = {each.id: each for each in rows}
        self._changed: list[DeviceRow] = []
        self._news = asyncio.Event()

    def put(self, *rows: DeviceRow) -> None:
        """Say that these devices are like that now."""
        self._rows.update({each.id: each for each in rows})
        self._changed += rows
        self._news.set()

    @asynccontextmanager
    async def watch_rows(self) -> AsyncGenerator[AsyncIterator[list[DeviceRow]]]:
        async def lists() -> AsyncGenerator[list[DeviceRow]]:
            yield list(self._rows.values())
            while True:
                await self._news.wait()
                self._news.clear()
                changed, self._changed = self._changed, []
                yield changed

        yield lists()


@attrs.frozen
class Site:
    """A server that runs, with a user of each role, whose names are those of the roles."""

    url: str
    web: Web
    users: Users

    @asynccontextmanager
    async def client(self, role: Role | None = None) -> AsyncGenerator[httpx.AsyncClient]:
        """A client that sends what our own page would; signed in, if a *role* is given."""
        async with httpx.AsyncClient(
            base_url=self.url, headers={"Origin": self.url}, timeout=20
        ) as client:
            if role is not None:
                reply = await client.post("/api/session", json={"name": role, "password": PASSWORD})
                assert reply.status_code == 201, reply.text
            yield client


@asynccontextmanager
async def running(
    fleet: Fleet,
    rows: RowSource | None = None,
    metrics_token: TokenFile | None = None,
    *,
    address: str = "127.0.0.1:0",
    oidc: OidcSignIn | None = None,
) -> AsyncGenerator[Site]:
    """Serve *fleet* on *address*, or a free port, until the end of the block."""
    users = Users(fleet.home, CHEAP)
    for role in ROLES:
        users.add(role, role, PASSWORD)
    web = make_web(fleet, users, rows=rows, name="home", metrics_token=metrics_token, oidc=oidc)
    host, _, port_text = address.partition(":")
    with socket.create_server((host, int(port_text))) as listening:
        port = listening.getsockname()[1]
        server = Serving(web, Listen(host="127.0.0.1", port=port))
        task = asyncio.create_task(server.serve_here([listening]))
        try:
            async with asyncio.timeout(20), httpx.AsyncClient() as client:
                while True:
                    try:
                        await client.get(f"http://127.0.0.1:{port}/healthz")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.02)
            yield Site(f"http://127.0.0.1:{port}", web, users)
        finally:
            server.end()
            await task


async def enter(view: Page, site: Site, name: Role = "operator") -> None:
    """Sign in on the page, as the user of that *name*."""
    await view.goto(site.url)
    await view.get_by_label("Name").fill(name)
    await view.get_by_label("Password").fill(PASSWORD)
    await view.get_by_role("button", name="Sign in").click()
    await expect(view.locator(".bar")).to_be_visible()


async def read_rollouts(fleet: Fleet) -> Rollouts:
    """Return how all rollouts stand, by one look."""
    async with aclosing(fleet.follow_rollouts()) as looks:
        return await anext(looks)


@attrs.frozen
class Ground:
    """A site over a real bus with two devices that a test speaks for, and one that was never heard."""

    bus: Bus
    fleet: Fleet
    site: Site
    one: ScriptedDevice
    two: ScriptedDevice


@asynccontextmanager
async def site(root: Path) -> AsyncGenerator[Ground]:
    """As `Ground` says, below *root*."""
    async with serving(root, "pi-1", "pi-2", "pi-3") as bus, Fleet.connect(bus.home) as fleet:
        one, two = [ScriptedDevice(await bus.device(name)) for name in ("pi-1", "pi-2")]
        async with running(fleet) as served:
            yield Ground(bus, fleet, served, one, two)
