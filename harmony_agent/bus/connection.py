"""The bus, as one agent may use it: the only module that knows nats-py.

::

    desired-state hint (republished, carries the whole value)  \
                                                                 >- deliveries()
    DIRECT.GET of our own key: at every connect, in doubt, 30 min /
    tell()  ->  our own key of actual-state, by compare-and-swap
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
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

import attrs
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import Header
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from harmony_agent.backoff import Backoff
from harmony_agent.clock import monotonic_s
from harmony_agent.config import AgentConfig
from harmony_core.errors import BusUnreachable, RevisionConflict

from .bounded_client import BoundedClient

__all__ = ["Bus", "Delivery"]

log = logging.getLogger(__name__)

RESYNC_S = 30 * 60.0
DOUBT_S = 60.0
REQUEST_TIMEOUT_S = 5.0
PROVED_WITHIN_S = 3
REPLIED_WITHIN_S = 20
REPLIES_AHEAD_BYTES = 256 * 1024
"""So much of an answer is sent before the server is waited for."""
_RECONNECT = Backoff(first_s=0.5, most_s=30.0, jitter=0.5)
"""Everybody lost the same server: come back spread out."""
HINTS_PENDING_MOST = 8
HINTS_PENDING_BYTES = 4 * 1024 * 1024
REQUESTS_PENDING_BYTES = 1024 * 1024
_BREATH_S = 0.05
_HINTED_BYTES_PER_S = 1024 * 1024
"""Of hints that turn out wrong; who sends much of that costs us little."""
_WRONG_LAST_SEQUENCE = {10071, 10164}


@attrs.frozen(kw_only=True)
class Delivery:
    """A value of our desired-state key, or that there is none (``envelope`` None: no instruction).

    Only what was fetched can be an error; a hint that proves wrong is dropped.
    """

    envelope: bytes | None
    fetched: bool


class Bus:
    """One agent's connection to its control plane. `run` keeps it up; everything else just uses it."""

    def __init__(self, *, agent_id: str, servers: list[str], seed: str) -> None:
        self._agent_id = agent_id
        self._servers = servers
        self._seed = seed
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._on_request: Callable[[bytes], None] | None = None
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._proving: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._fetched: Delivery | None = None
        self._hint: bytes | None = None
        self._hinted_bytes = 0
        self._hints_from = 0.0
        """Until then no hint is looked at: the last ones were wrong."""
        self._fetch_at = 0.0
        self._doubted_at = -DOUBT_S
        self._woken = asyncio.Event()
        self._answered = asyncio.Event()

    @classmethod
    def of(cls, config: AgentConfig) -> Self:
        """As agent.toml says."""
        nats = config.nats
        return cls(agent_id=config.agent_id, servers=list(nats.servers), seed=nats.seed)

    def on_connect(self, *listeners: Callable[[], None]) -> None:
        """Call these whenever a new connection stands; now, if one stands already."""
        self._listeners = listeners
        if self.up:
            self._tell_listeners()

    def on_request(self, receive: Callable[[bytes], None]) -> None:
        """Call *receive* with whatever comes as a request to us. Until then it is dropped."""
        self._on_request = receive

    @property
    def up(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._link is not None

    def begin(self) -> None:
        """Connect and fetch already now, before `run`: to load the rest of the agent takes longer."""
        self._connecting = asyncio.create_task(self._stay_connected(), name="connection")

    async def first_try(self, *, within_s: float) -> None:
        """Wait until the first connection stands or has failed, at most *within_s*."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._tried.wait()

    async def run(self) -> None:
        """Stay connected until cancelled: back-off with jitter from 0.5 s to 30 s."""
        if self._connecting is None:
            self.begin()
        assert self._connecting is not None
        await self._connecting

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            _honour_cancellation()
            try:
                async with self._linked() as link:
                    failures = 0
                    await link.ended.wait()
                log.warning("connection to the control plane lost")
            except Exception as error:  # noqa: BLE001 - whatever answers there, this device goes on
                log.info("control plane not reachable: %s", _why(error))
                self._tried.set()
            await asyncio.sleep(_RECONNECT.wait_s(failures))
            failures += 1

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Our desired state, newest only: as it is pushed, and as it is fetched. Never ends."""
        while True:
            await self._until_due()
            if (fetched := self._fetched) is not None:
                self._fetched = None
                self._fetch_at = _next_resync()
                yield fetched
                self._answered.set()
            elif (hint := self._hint) is not None and monotonic_s() >= self._hints_from:
                self._hint, self._hinted_bytes = None, len(hint)
                yield Delivery(envelope=hint, fetched=False)
            elif self._link is not None:
                self._fetch_at = _next_resync()
                try:
                    yield Delivery(envelope=await self._link.fetch_desired(), fetched=True)
                    self._answered.set()
                except BusUnreachable as error:
                    log.info("%s", error.message)
                    self._fetch_at = monotonic_s() + REQUEST_TIMEOUT_S

    async def first_answer(self, *, within_s: float) -> None:
        """Wait until our desired state was fetched and dealt with once, or that took too long."""
        try:
            async with asyncio.timeout(within_s):
                await self._answered.wait()
        except TimeoutError:
            log.info("no answer from the control plane yet; going on with what is stored")

    def doubt(self) -> None:
        """A hint was wrong, or one may be lost: fetch, a minute after the last doubt at the earliest.

        The next hint waits for a breath, the longer, the larger the wrong one was: what is verified for
        nothing is at most so much a second.
        """
        breath_s = max(_BREATH_S, self._hinted_bytes / _HINTED_BYTES_PER_S)
        self._hints_from, self._hinted_bytes = monotonic_s() + breath_s, 0
        due = max(monotonic_s(), self._doubted_at + DOUBT_S)
        if due < self._fetch_at:
            self._fetch_at = self._doubted_at = due
            self._woken.set()

    async def tell(self, actual_state: bytes) -> None:
        """Put *actual_state* where the control plane reads it. `BusUnreachable` when there is no way.

        A lost compare-and-swap (the server lost its newest values, or our own acknowledgement was lost)
        is read again and repeated: the device alone says what is true of it.
        """
        for _ in range(3):
            link = self._link
            if link is None:
                break
            try:
                await link.tell(actual_state)
            except RevisionConflict:
                await link.recover()
            else:
                return
        raise BusUnreachable("the control plane did not take the report; it is told again later")

    async def beat(self, heartbeat: bytes) -> None:
        """Say that this agent's loop advances; dropped when there is no connection."""
        if self._link is not None:
            await self._link.beat(heartbeat)

    async def reply(self, nonce: str, frame: bytes) -> None:
        """Send one frame of the answer to the request of that *nonce*. `BusUnreachable`."""
        if self._link is None:
            raise BusUnreachable("there is no connection to the control plane")
        await self._link.reply(nonce, frame)

    async def reaches(self, *, within_s: float) -> bool:
        """Whether the control plane answers a new connection, made now beside the one that stands.

        The one that stands may have lost its way without knowing: it is asked too, and ended when it
        does not answer, so that a new one is made at once. Never raises.
        """
        if (why_not := await self.why_not(within_s=within_s)) is not None:
            log.info("control plane not reachable anew: %s", why_not)
            return False
        if self._link is not None:
            # Not awaited: the answer is urgent, and is no other for it.
            self._proving = asyncio.create_task(self._link.prove(), name="prove")
        return True

    async def why_not(self, *, within_s: float) -> str | None:
        """Why a new connection is not let in, in words; None when it is."""
        client = BoundedClient()
        try:
            async with asyncio.timeout(within_s):
                await self._connect(client)
                await client.flush()
        except Exception as error:  # noqa: BLE001 - whatever answers there, it is not our control plane
            return _why(error)
        finally:
            with suppress(OSError):
                await client.close()
        _honour_cancellation()
        return None

    async def _until_due(self) -> None:
        while self._fetched is None and ((due := self._due()) is None or monotonic_s() < due):
            self._woken.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _due(self) -> float | None:
        """When there is something to deliver, on the loop's clock; None while nothing is known to come."""
        dues = [self._fetch_at] if self._link is not None else []
        if self._hint is not None:
            dues.append(self._hints_from)
        return min(dues, default=None)

    @asynccontextmanager
    async def _linked(self) -> AsyncGenerator[_Link]:
        ended = asyncio.Event()

        async def closed() -> None:
            ended.set()

        async def failed(error: Exception) -> None:
            log.debug("nats: %s", error)
            self.doubt()

        client = BoundedClient()
        try:
            async with asyncio.timeout(10):
                await self._connect(client, closed=closed, failed=failed)
            link = _Link(client, self._agent_id, ended)
            await client.subscribe(
                f"harmony.push.desired-state.{self._agent_id}",
                cb=self._on_hint,
                pending_msgs_limit=HINTS_PENDING_MOST,
                pending_bytes_limit=HINTS_PENDING_BYTES,
            )
            await client.subscribe(
                f"harmony.request.{self._agent_id}",
                cb=self._on_request_message,
                pending_msgs_limit=16,
                pending_bytes_limit=REQUESTS_PENDING_BYTES,
            )
            # On one connection the server takes things in order: what is pushed from here on is hinted.
            fetched = Delivery(envelope=await link.fetch_desired(), fetched=True)
            await link.recover()
            _honour_cancellation()
            log.info("connected to the control plane")
            self._link, self._fetched = link, fetched
            self._tried.set()
            self._woken.set()
            self._tell_listeners()
            yield link
        except BusUnreachable as error:
            raise TimeoutError(error.message) from error
        finally:
            self._link = None
            # A connection that was cut while it stood half-way may complain of just that.
            with suppress(OSError):
                await client.close()

    async def _connect(
        self,
        client: Client,
        *,
        closed: Callable[[], Awaitable[None]] | None = None,
        failed: Callable[[Exception], Awaitable[None]] | None = None,
    ) -> None:
        await client.connect(
            self._servers,
            name=f"harmony-agent {self._agent_id}",
            nkeys_seed_str=self._seed,
            inbox_prefix=f"_INBOX_{self._agent_id}",
            allow_reconnect=False,
            connect_timeout=5,
            ping_interval=60,
            max_outstanding_pings=2,
            closed_cb=closed,
            error_cb=failed or _disregard,
        )

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    async def _on_hint(self, message: Msg) -> None:
        self._hint = message.data
        self._woken.set()

    async def _on_request_message(self, message: Msg) -> None:
        if self._on_request is not None:
            self._on_request(message.data)


class _Link:
    """One live connection."""

    def __init__(self, client: Client, agent_id: str, ended: asyncio.Event) -> None:
        self.ended = ended
        self._client = client
        self._stream: JetStreamContext = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._agent_id = agent_id
        self._revision = 0
        self._stored: bytes | None = None
        self._ahead_bytes = 0

    async def fetch_desired(self) -> bytes | None:
        found = await self._get("desired-state")
        return found[0] if found else None

    async def prove(self) -> None:
        """End it, unless the server still answers by it."""
        try:
            await self._client.flush(PROVED_WITHIN_S)
        except (OSError, TimeoutError, NatsError):
            self.ended.set()

    async def recover(self) -> None:
        """Learn the revision of our own actual-state, on which the next report builds."""
        found = await self._get("actual-state")
        self._stored, self._revision = found or (None, 0)

    async def tell(self, data: bytes) -> None:
        """Write *data* on top of what we last knew there; nothing when that is the same."""
        if data == self._stored:
            return
        expected = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(self._revision)}
        try:
            ack = await self._stream.publish(
                f"$KV.actual-state.{self._agent_id}", data, headers=expected
            )
        except APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise RevisionConflict("actual-state was written since we last read it") from error
            raise BusUnreachable(f"the bus refused the report: {error.description}") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnreachable(f"the report was not acknowledged: {error}") from error
        finally:
            _honour_cancellation()
        self._stored, self._revision = data, ack.seq

    async def beat(self, data: bytes) -> None:
        try:
            await self._client.publish(f"$KV.heartbeat.{self._agent_id}", data)
        except (NatsError, OSError) as error:
            log.info("heartbeat not sent: %s", error)

    async def reply(self, nonce: str, frame: bytes) -> None:
        try:
            await self._client.publish(f"harmony.reply.{self._agent_id}.{nonce}", frame)
            self._ahead_bytes += len(frame)
            if self._ahead_bytes > REPLIES_AHEAD_BYTES:
                self._ahead_bytes = 0
                await self._client.flush(REPLIED_WITHIN_S)
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnreachable(f"the answer was not taken: {error}") from error

    async def _get(self, bucket: str) -> tuple[bytes | None, int] | None:
        """Our own key's value (None: deleted) and revision; None when there never was one."""
        key = f"$KV.{bucket}.{self._agent_id}"
        try:
            found = await self._stream.get_last_msg(f"KV_{bucket}", key, direct=True)
        except NotFoundError:
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnreachable(
                f"{bucket} could not be read: {str(error) or 'no answer'}"
            ) from error
        finally:
            _honour_cancellation()
        gone = (found.headers or {}).get("KV-Operation") in {"DEL", "PURGE"}
        return (None if gone else found.data or b""), found.seq or 0


def _next_resync() -> float:
    return monotonic_s() + RESYNC_S * random.uniform(0.5, 1.5)  # noqa: S311


def _why(error: Exception) -> str:
    """Why there is no connection, and what to do where that is known."""
    said = str(error) or type(error).__name__
    if "authorization" in said.lower():
        return f"{said}; its key is not enrolled, or was revoked: run harmony add-agent --replace for it"
    if isinstance(error, TimeoutError | OSError):
        return (
            f"{said}; is `harmony server` running there, and is this its address as seen from here? To have "
            "another one written into this file, run on the control plane: harmony add-agent ID --replace "
            "--url nats://HOST:4222"
        )
    return said


async def _disregard(error: Exception) -> None:
    """Of a connection that is made for its own sake; whether it stands is seen otherwise."""


def _honour_cancellation() -> None:
    """nats-py swallows cancellation at some of its awaits (and Python 3.11's wait_for does, when the answer
    comes at the same moment); ours must end all the same."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
