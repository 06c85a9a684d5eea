"""The bus, as one agent may use it: no other package of the agent knows nats-py.

::

    desired-state hint, or DIRECT.GET of our own key -> `.deliveries` -> deliveries()
    a hint that there is a new root document -> `.deliveries`, fetch_root()
    tell()  ->  our own key of actual-state, by compare-and-swap
    a hint that this key was written -> was it us? -> else who?, on_written_over()
    beat()  ->  our own key of heartbeat
    a request, signed for us -> on_request(), reply() -> a subject of that request's own

No consumer and no KV watch: both need rights that would let one device read or wipe another's keys.
A connection lives in one scope; when it ends, everything of it ends, and the next one starts anew with a
DIRECT.GET. So a subscription can never be silently dead for longer than one resync.
"""

# nats-py's own signatures are partly untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

import attrs
from nats.aio.msg import Msg

from harmony_agent.backoff import Backoff
from harmony_agent.clock import monotonic_s, wait_until
from harmony_agent.config import AgentConfig
from harmony_core.errors import BusUnreachable, RevisionConflict
from harmony_core.wire.envelope import SigningKey
from harmony_core.wire.jwt import Claims
from harmony_core.wire.names import ACTUAL_STATE, DESIRED_STATE, TRUST

from .deliveries import RESYNC_S, SITE_RESYNC_S, Deliveries, Delivery
from .link import Account, Link, explain, honour_cancellation
from .own_report import OwnReport, Writer

__all__ = ["Bus", "Delivery"]

log = logging.getLogger(__name__)

_RECONNECT = Backoff(first_s=0.5, most_s=30.0, jitter=0.5)
"""Everybody lost the same server: come back spread out."""
HINTS_PENDING_MOST = 8
HINTS_PENDING_BYTES = 4 * 1024 * 1024
REQUESTS_PENDING_MOST = 256
"""As many as may come while the loop is busy with something else."""
REQUESTS_PENDING_BYTES = 1024 * 1024
_HINTED_KEY_BYTES = 100
FETCHED_AGAIN_S = 5.0
"""After so long, of a cluster, what was fetched at the beginning of a connection is fetched again."""
WRITTEN_LOOKED_AFTER_S = 5.0
"""So long after a hint that this device's report was written, it is looked who has: by then the server has
said so where it was this device, and whoever writes it all the time costs us little."""
RENEWED_AGAIN_S = 600.0
"""After so long, at the latest, it is looked again whether a JWT is to be renewed."""


async def _forget(_: str) -> None:
    """Keep nothing."""


class Bus:
    """One agent's connection to its control plane. `run` keeps it up; everything else just uses it."""

    def __init__(self, account: Account, key: SigningKey) -> None:
        self._account = account
        self._key = key
        self._own_report = OwnReport(key)
        self._report_use = asyncio.Lock()
        """Held while this device's report is written or read: one after the other is how it is known whose is
        what stands there."""
        self._written = asyncio.Event()
        self._written_revision = 0
        """Which was hinted last of this device's report."""
        self.on_written_over: Callable[[Writer], None] = lambda _: None
        """Called with who else has written this device's report."""
        self.on_report_found: Callable[[], None] = lambda: None
        """Called when this device's report was looked at while a connection stood: it may be gone."""
        self.on_class_hint: Callable[[str], None] = lambda _: None
        """Called with the key of what was written anew of the fleet's classes, as somebody says."""
        self.on_renewed: Callable[[str], Awaitable[None]] = _forget
        """Called with the JWT that lets this device in from now on."""
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._on_request: Callable[[bytes], Awaitable[None]] | None = None
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._proving: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._deliveries = Deliveries(account.slowness)
        self.found_report: bytes | None = None
        """The report that the control plane had of us when it was reached first, empty for none that this
        device has signed; until then None. It is by an earlier run."""

    @classmethod
    def of(cls, config: AgentConfig) -> Self:
        """Return a Bus with the settings of *config*."""
        return cls(Account.of(config), config.report_key)

    def on_connect(self, *listeners: Callable[[], None]) -> None:
        """Call these whenever a new connection is made; now, if there is one already."""
        self._listeners = listeners
        if self.up:
            self._tell_listeners()

    def on_request(self, receive: Callable[[bytes], Awaitable[None]]) -> None:
        """Call *receive* with every request to us, one after the other. Until this is called, requests are
        dropped."""
        self._on_request = receive

    @property
    def up(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._link is not None

    def begin(self) -> None:
        """Connect and fetch already now, before `run`: loading the rest of the agent takes longer."""
        self._connecting = asyncio.create_task(self._stay_connected(), name="connection")

    async def first_try(self, *, within_s: float) -> None:
        """Wait until the first connection was made or has failed, at most *within_s*."""
        await wait_until(self._tried, latest_s=monotonic_s() + within_s)

    async def run(self) -> None:
        """Stay connected until cancelled: back-off with jitter from 0.5 s to 30 s."""
        if self._connecting is None:
            self.begin()
        assert self._connecting is not None
        await self._connecting

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            honour_cancellation()
            try:
                async with self._open_link() as link:
                    failures = 0
                    await link.ended.wait()
                log.warning("connection to the control plane lost")
            except Exception as error:  # noqa: BLE001 - whatever answers there, this device goes on
                log.info("control plane not reachable: %s", explain(error, self._account.jwt))
                self._tried.set()
            await asyncio.sleep(_RECONNECT.wait_s(failures))
            failures += 1

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield our desired state, newest only: as it is pushed, and as it is fetched. Never end."""
        return self._deliveries.stream()

    async def first_answer(self, *, within_s: float) -> None:
        """Wait until our desired state was fetched and dealt with once, or *within_s* seconds have passed."""
        await self._deliveries.first_answer(within_s=within_s)

    async def fetch_root(self, version: int) -> bytes | None:
        """Return that version of the fleet's root document; None where there is none. `BusUnreachable`."""
        return await self._need_link().fetch_root(version)

    async def fetch_index(self) -> bytes | None:
        """Return the fleet index; None where there is none. `BusUnreachable`."""
        return await self._need_link().fetch_index()

    async def fetch_gate(self, name: str) -> bytes | None:
        """Return the gate of the class *name*; None where there is none. `BusUnreachable`."""
        return await self._need_link().fetch_gate(name)

    async def fetch_class_manifest(self, name: str, generation: int) -> bytes | None:
        """Return that generation of the class *name*; None where there is none. `BusUnreachable`."""
        return await self._need_link().fetch_class_manifest(name, generation)

    async def fetch_chunk(self, key: str) -> bytes | None:
        """Return that piece of an asset; None where there is none. `BusUnreachable`."""
        return await self._need_link().fetch_chunk(key)

    def _need_link(self) -> Link:
        if self._link is None:
            raise BusUnreachable("there is no connection to the control plane")
        return self._link

    def doubt(self) -> None:
        """Fetch our desired state soon, because a hint may be lost; see `Deliveries.doubt`."""
        self._deliveries.doubt()

    async def tell(self, actual_state: bytes) -> None:
        """Put *actual_state* where the control plane reads it. Raise `BusUnreachable` when there is no
        connection.

        After a lost compare-and-swap, read again and repeat: only the device says what is true of it. Where
        somebody else has written, report that first (`on_written_over`).
        """
        for _ in range(3):
            link = self._link
            if link is None:
                break
            try:
                async with self._report_use:
                    await link.tell(actual_state)
            except RevisionConflict:
                await self._recover(link)
            else:
                return
        raise BusUnreachable("the control plane did not take the report; it is told again later")

    async def fetch_desired(self) -> bytes | None:
        """Return our desired state, and check whether this device's report is still stored. `BusUnreachable`.

        A bucket can be deleted and made again while the connection stays, without notice. A device with
        nothing new to report would then be silent for as long as that lasts. Where the report is still there,
        a device on a slow link leaves it; others report again, with the time of their last look.
        """
        link, own = self._need_link(), self._own_report
        fetched = await link.fetch_desired()
        told = own.revision, own.value
        try:
            await self._recover(link)
        except BusUnreachable as error:
            log.info("%s", error.message)
        else:
            if self._account.slowness == 1 or told != (own.revision, own.value):
                self.on_report_found()
        return fetched

    async def _recover(self, link: Link) -> None:
        """Learn what is stored as this device's report, and report who else has written it."""
        async with self._report_use:
            writer = await link.recover()
        if writer is not None:
            log.error("this device's report was written over by %s", writer.value)
            self.on_written_over(writer)

    async def _heed_writes(self, link: Link) -> None:
        """Check who has written this device's report, whenever somebody has, for as long as *link* lasts."""
        while True:
            await self._written.wait()
            await asyncio.sleep(WRITTEN_LOOKED_AFTER_S)
            self._written.clear()
            if self._written_revision > self._own_report.revision:
                try:
                    await self._recover(link)
                except BusUnreachable as error:
                    log.info("%s", error.message)

    async def beat(self, heartbeat: bytes, *, lifetime_s: int) -> bool:
        """Report that this agent's loop advances, and for how long this counts; drop it when there is no
        connection. Return False where the server has not kept it, or keeps it for less time."""
        return self._link is None or await self._link.beat(heartbeat, lifetime_s=lifetime_s)

    async def tell_inventory(self, inventory: bytes) -> None:
        """Write the inventory of this device. Raise `BusUnreachable`."""
        if self._link is None:
            raise BusUnreachable("there is no connection to the control plane")
        await self._link.tell_inventory(inventory)

    async def reply(self, nonce: str, frame: bytes) -> None:
        """Send one frame of the answer to the request of that *nonce*. `BusUnreachable`."""
        await self._need_link().reply(nonce, frame)

    async def reaches(self, *, within_s: float) -> bool:
        """Return whether the control plane answers a new connection, made now beside the existing one.

        The existing one may have lost its route without knowing: ask it too, and end it when it does not
        answer, so that a new one is made at once. Never raise.
        """
        if (why_not := await self.why_not(within_s=within_s)) is not None:
            log.info("control plane not reachable anew: %s", why_not)
            return False
        if self._link is not None:
            # Not awaited: the answer is urgent, and is no other for it.
            self._proving = asyncio.create_task(self._link.prove(), name="prove")
        return True

    async def why_not(self, *, within_s: float) -> str | None:
        """Return in words why a new connection is not accepted; None when it is."""
        client = self._account.client()
        try:
            async with asyncio.timeout(within_s):
                await self._account.connect(client)
                await client.flush()
        except Exception as error:  # noqa: BLE001 - whatever answers there, it is not our control plane
            return explain(error, self._account.jwt)
        finally:
            await client.close()
        honour_cancellation()
        return None

    @asynccontextmanager
    async def _open_link(self) -> AsyncGenerator[Link]:
        async def failed(error: Exception) -> None:
            log.debug("nats: %s", error)
            self.doubt()

        client = self._account.client()
        beside: list[asyncio.Task[None]] = []
        try:
            await self._account.connect(client, failed=failed)
            link = Link(
                client,
                self._account.agent_id,
                key=self._key,
                own_report=self._own_report,
                ended=client.ended,
                beats_lost_most=self._account.beats_lost_most,
                site=self._account.site,
            )
            await client.subscribe(
                self._account.subject(DESIRED_STATE),
                cb=self._on_hint,
                pending_msgs_limit=HINTS_PENDING_MOST,
                pending_bytes_limit=HINTS_PENDING_BYTES,
            )
            await client.subscribe(
                self._account.subject("request"),
                cb=self._on_request_message,
                pending_msgs_limit=REQUESTS_PENDING_MOST,
                pending_bytes_limit=REQUESTS_PENDING_BYTES,
            )
            await client.subscribe(
                self._account.subject(TRUST),
                cb=self._on_root_hint,
                pending_msgs_limit=HINTS_PENDING_MOST,
                pending_bytes_limit=HINTS_PENDING_BYTES,
            )
            await client.subscribe(
                self._account.subject("class"),
                cb=self._on_class_hint_message,
                pending_msgs_limit=HINTS_PENDING_MOST,
                pending_bytes_limit=HINTS_PENDING_BYTES,
            )
            await client.subscribe(
                self._account.subject(ACTUAL_STATE),
                cb=self._on_written_hint,
                pending_msgs_limit=HINTS_PENDING_MOST,
                pending_bytes_limit=HINTS_PENDING_BYTES,
            )
            # On one connection the server takes things in order: what is pushed from here on is hinted.
            fetched = await link.fetch_desired()
            await self._recover(link)
            honour_cancellation()
            log.info("connected to the control plane")
            if self.found_report is None:
                ours = self._own_report.value if self._own_report.is_ours else None
                self.found_report = ours or b""
            self._link = link
            # Of a cluster, the server that we are connected to answers. It may have the newest push a moment
            # later than the one that has hinted it, which may not have known of our subscription.
            again_in_s = FETCHED_AGAIN_S if len(self._account.servers) > 1 else None
            resync_s = RESYNC_S if self._account.site is None else SITE_RESYNC_S
            self._deliveries.connect(self, fetched, again_in_s=again_in_s, resync_s=resync_s)
            self._tried.set()
            self._tell_listeners()
            beside.append(asyncio.create_task(self._renew_jwt(link), name="renew-jwt"))
            beside.append(asyncio.create_task(self._heed_writes(link), name="heed-writes"))
            yield link
        finally:
            self._link = None
            for each in beside:
                each.cancel()
            self._deliveries.disconnect()
            await client.close()

    async def _renew_jwt(self, link: Link) -> None:
        """Get another JWT before the current one expires, for as long as *link* lasts.

        The server ends the connection when the old one expires; the next is opened with the new one.
        """
        while (due_s := self._renewal_due_in_s()) is not None:
            if not due_s:
                try:
                    await self._take_jwt(await link.renew_jwt())
                except (BusUnreachable, ValueError) as error:
                    log.warning("what lets this device in could not be renewed: %s", error)
                # Due still is one that could not be renewed, or of which nobody knows: the clock is not set.
                due_s = self._renewal_due_in_s() or RENEWED_AGAIN_S
            # By a clock that may be set meanwhile.
            await asyncio.sleep(min(due_s, RENEWED_AGAIN_S))

    def _renewal_due_in_s(self) -> float | None:
        """Return in how many seconds a new JWT must be requested; None where none must be."""
        if self._account.jwt is None:
            return None
        try:
            return Claims.of(self._account.jwt).renewal_due_in_s(time.time())
        except ValueError:
            return None

    async def _take_jwt(self, jwt: str) -> None:
        """Connect with *jwt* from the next time on. Raise ValueError where it is another device's."""
        if Claims.of(jwt).subject != Claims.of(self._account.jwt or "").subject:
            raise ValueError("the JWT that came is for another key")
        self._account = attrs.evolve(self._account, jwt=jwt)
        await self.on_renewed(jwt)
        log.info("what lets this device in was renewed")

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    async def _on_hint(self, message: Msg) -> None:
        self._deliveries.hint(message.data)

    async def _on_root_hint(self, _: Msg) -> None:
        self._deliveries.hint_root()

    async def _on_class_hint_message(self, message: Msg) -> None:
        self.on_class_hint(message.data[:_HINTED_KEY_BYTES].decode(errors="replace"))

    async def _on_written_hint(self, message: Msg) -> None:
        with suppress(ValueError):
            self._written_revision = int((message.headers or {}).get("Nats-Sequence", ""))
            self._written.set()

    async def _on_request_message(self, message: Msg) -> None:
        if self._on_request is not None:
            await self._on_request(message.data)
