"""A real nats-server for a test: its own home, a free port, the rights a device will have, nothing else.

::

    async with serving(tmp_path, "pi-1", "pi-2") as bus:
        device = await bus.device("pi-1")
        await device.bucket("heartbeat").put("pi-1", b"{}")

Server and connections end with the block.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from harmony_control.bus.connection import Bucket, admin, close
from harmony_control.enrol import add_agent, add_agents
from harmony_control.server.apply import bring_up_to_date
from harmony_control.server.buckets import HEARTBEAT_WATCH, ensure_buckets
from harmony_control.server.config import fleet_of, inbox_prefix
from harmony_control.server.export import STORE, export
from harmony_control.server.process import Server, running, server_binary
from harmony_control.store import operator_key
from harmony_control.store.home import ControlConfig, Home
from harmony_core.errors import BusUnreachable
from harmony_core.wire.device_signature import (
    ACTUAL_STATE_TYPE,
    HEARTBEAT_TYPE,
    INVENTORY_TYPE,
    REPLY_TYPE,
    SIGNATURE_HEADER,
    reply_content,
    sign,
)
from harmony_core.wire.envelope import SigningKey
from harmony_core.wire.lifetimes import LIFETIME_HEADER
from harmony_core.wire.tls import verifying_context
from tests.ports import free_address

__all__ = [
    "BUCKETS",
    "STREAMS",
    "Bus",
    "Device",
    "connected",
    "fleet_home",
    "home_without_server",
    "run_nats",
    "serving",
    "serving_jwts",
    "told_of_users",
    "worked_off",
]


BUCKETS = (
    "desired-state",
    "desired-class",
    "actual-state",
    "heartbeat",
    "inventory",
    "fleet",
    "rollout",
)
"""Those that a device reads or writes."""
STREAMS = (*(f"KV_{name}" for name in BUCKETS), HEARTBEAT_WATCH)
_SIGNED_AS = {
    "actual-state": ACTUAL_STATE_TYPE,
    "heartbeat": HEARTBEAT_TYPE,
    "inventory": INVENTORY_TYPE,
}


class _Subscriber(Protocol):
    """What is used of nats-py's client, whose own signature is half typed."""

    async def subscribe(self, subject: str, queue: str = "") -> Subscription: ...


@attrs.frozen
class Device:
    """A device's connection, with exactly its rights."""

    id: str
    client: Client
    refusals: list[str]
    """What the server refused, in order."""
    mailbox: str
    report_key: SigningKey

    def mail(self, name: str) -> str:
        """The subject on which it is sent what is called *name*."""
        return f"harmony.mailbox.{self.mailbox}.{name}"

    def bucket(self, name: str) -> Bucket:
        return Bucket(self.client, name)

    async def say(
        self, bucket: str, value: bytes, *, last: int | None = None, lifetime: str = ""
    ) -> int:
        """Write its own key of one of `_SIGNED_AS`, signed as a device does. The new revision."""
        headers = {SIGNATURE_HEADER: sign(self.report_key, _SIGNED_AS[bucket], value)}
        if last is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(last)
        if lifetime:
            headers[LIFETIME_HEADER] = lifetime
        subject = f"$KV.{bucket}.{self.id}"
        return (await JetStreamContext(self.client).publish(subject, value, headers=headers)).seq

    async def reply(self, nonce: str, frame: bytes) -> None:
        """Send one part of the answer to the request of that *nonce*, signed as a device does."""
        signature = sign(self.report_key, REPLY_TYPE, reply_content(nonce, frame))
        await self.client.publish(
            f"harmony.reply.{self.id}.{nonce}", frame, headers={SIGNATURE_HEADER: signature}
        )

    async def subscribe(self, subject: str, queue: str = "") -> Subscription:
        """The server knows of it, or has refused it, when this returns."""
        subscription = await _subscribed(self.client, subject, queue)
        await worked_off(self.client)
        return subscription


@attrs.frozen
class Bus:
    """A running server and who is connected to it."""

    home: Home
    server: Server
    admin: Client
    _stack: AsyncExitStack

    def bucket(self, name: str) -> Bucket:
        """As the control plane."""
        return Bucket(self.admin, name)

    async def enrol(self, *agents: str, replace: bool = False) -> None:
        if agents and not replace:
            await asyncio.to_thread(add_agents, self.home, agents)
        for agent in agents if replace else ():
            await asyncio.to_thread(add_agent, self.home, agent, replace=True)

    async def bring_together(self, first: str, second: str) -> None:
        """Give *first* new keys until both are in one account, where what each may do has nothing else
        between."""
        while len({fleet_of(self.home.agents()[each].nkey) for each in (first, second)}) > 1:
            await self.enrol(first, replace=True)

    async def device(self, agent: str) -> Device:
        """Connected as *agent*, by its agent.toml, until the bus ends."""
        return await self._stack.enter_async_context(connected(self.home, agent))


async def worked_off(client: Client) -> None:
    """The server has seen everything that *client* sent, and what it refused has been noted.

    Twice, because nats-py writes the first PING before what is still in its buffer.
    """
    await client.flush()
    await client.flush()


async def _subscribed(client: _Subscriber, subject: str, queue: str) -> Subscription:
    return await client.subscribe(subject, queue)


def fleet_home(root: Path) -> Home:
    """A home with an operator's key, ready for `running`."""
    home = Home(root / "home")
    operator_key.create(home)
    return home


def home_without_server(root: Path) -> Home:
    """A home as `harmony server` leaves it for operators, though none has run."""
    home = fleet_home(root)
    home.save_control(
        ControlConfig(
            fleet="home",
            url="tls://127.0.0.1:4222",
            admin_seed=home.admin_seed,
            authority=home.authority,
        )
    )
    return home


@asynccontextmanager
async def serving(root: Path, *agents: str) -> AsyncGenerator[Bus]:
    """A server below *root* that knows *agents*."""
    home = fleet_home(root)
    async with (
        running(home, listen=free_address()) as server,
        admin(home) as client,
        AsyncExitStack() as stack,
    ):
        bus = Bus(home, server, client, stack)
        await bus.enrol(*agents)
        yield bus


@asynccontextmanager
async def serving_jwts(root: Path, *agents: str) -> AsyncGenerator[Bus]:
    """As `serving`, by a server that somebody else runs by what was exported, and whose users have JWTs."""
    home, given = fleet_home(root), root / "given"
    await asyncio.to_thread(
        export, home, given, listen=free_address(), fleet=None, issued=None, with_jwts=True
    )
    conf = given / "nats.conf"
    conf.write_text(conf.read_text().replace(str(STORE), str(root / "store")))
    async with run_nats(conf) as process, AsyncExitStack() as stack:
        await told_of_users(home)
        client = await stack.enter_async_context(admin(home))
        await ensure_buckets(client)
        server = Server(url=home.control().url, pid=process.pid, started_here=False, home=home)
        bus = Bus(home, server, client, stack)
        await bus.enrol(*agents)
        yield bus


@asynccontextmanager
async def run_nats(conf: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A nats-server by *conf*, from the beginning to the end of the block; its log is beside that file."""
    with conf.with_name("nats.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(server_binary()), "-c", str(conf), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def told_of_users(home: Home) -> None:
    """Return once the server at *home*'s address, which may only just be starting, knows of its users."""
    async with asyncio.timeout(20):
        while True:
            try:
                await asyncio.to_thread(bring_up_to_date, home)
            except BusUnreachable:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def connected(home: Home, agent: str) -> AsyncGenerator[Device]:
    """Connected as *agent*, by its agent.toml in *home*."""
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    config = tomllib.loads(home.agent_toml(agent).read_text())
    table = config["nats"]
    client = Client()
    try:
        await client.connect(
            table["servers"],
            nkeys_seed_str=table["seed"],
            user_jwt_cb=table["jwt"].encode if "jwt" in table else None,
            tls=verifying_context(table["ca"]),
            tls_hostname=table["tls_server_name"],
            tls_handshake_first=True,
            inbox_prefix=inbox_prefix(agent),
            error_cb=note,
            allow_reconnect=False,
            max_reconnect_attempts=1,
        )
        key = SigningKey.from_text(config["report"]["key"])
        yield Device(agent, client, refusals, table["mailbox"], key)
    finally:
        await close(client)
