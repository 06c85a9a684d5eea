"""One live connection to the control plane: from its opening to its end.

Nothing is reconnected behind anybody's back: what is subscribed and known by it ends with it.
"""

# nats-py's own signatures are partly untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

import attrs
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError
from nats.js.api import Header
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from harmony_agent.config import AgentConfig
from harmony_core.errors import BusUnreachable, InvalidReply, RevisionConflict
from harmony_core.visible import visible
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
from harmony_core.wire.jwt import Claims
from harmony_core.wire.lifetimes import LIFETIME_HEADER
from harmony_core.wire.names import (
    ACTUAL_STATE,
    ASSETS,
    DESIRED_CLASS,
    DESIRED_STATE,
    FLEET,
    HEARTBEAT,
    INDEX_KEY,
    INVENTORY,
    MAILBOXES,
    RENEW_SUBJECT,
    ROLLOUT,
    TRUST,
)
from harmony_core.wire.times import rfc3339
from harmony_core.wire.tls import describe_tls_error, verifying_context

from .bounded_client import BoundedClient
from .own_report import OwnReport, Writer

__all__ = [
    "BEATS_LOST_MOST",
    "LIMITS_READ_AGAIN_S",
    "REQUEST_TIMEOUT_S",
    "Account",
    "Link",
    "explain",
    "honour_cancellation",
]

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 5.0
_CONNECTS_WITHIN_S = 5
"""To one server, and once more so long to be let in: a device that knows three gets to the third though two
of them take its connection and say nothing."""
CHUNK_TIMEOUT_S = 60.0
"""For one piece of an asset: a line of 5 kB/s brings it in time."""
PROVED_WITHIN_S = 3
REPLIED_WITHIN_S = 20
REPLIES_AHEAD_BYTES = 256 * 1024
"""So much of an answer is sent before the server is waited for."""
LIMITS_READ_AGAIN_S = 60.0
BEATS_LOST_MOST = 2
SITE_BEATS_LOST_MOST = 1
"""Of a site: once its server has lost the fleet's, something may have been pushed that never came."""
PING_S = 60.0
PING_MOST_S = 110.0
"""The server by itself would ask after two minutes without a word."""
_NO_LIFETIMES = 10166
_WRONG_LAST_SEQUENCE = {10071, 10164}


@attrs.frozen(kw_only=True)
class Account:
    """Where one agent connects to, and as whom."""

    agent_id: str
    servers: Sequence[str]
    seed: str = attrs.field(repr=False)
    mailbox: str = attrs.field(repr=False)
    jwt: str | None = None
    """What lets the key in, where the server does not know it itself."""
    ca: str
    """Of who vouches for the server, in PEM."""
    server_name: str
    site: str | None = None
    """The site whose server is connected to; None for the fleet's own."""
    slowness: float = 1.0
    """How many times more seldom than others this device speaks without need."""

    @classmethod
    def of(cls, config: AgentConfig) -> Account:
        """Return the account in *config*."""
        nats = config.nats
        return cls(
            agent_id=config.agent_id,
            servers=nats.servers,
            seed=nats.seed,
            mailbox=nats.mailbox,
            jwt=nats.jwt,
            ca=nats.ca,
            server_name=nats.tls_server_name,
            site=nats.site,
            slowness=config.slowness,
        )

    @property
    def beats_lost_most(self) -> int | None:
        """How many heartbeats in a row may be lost; None where none is acknowledged, since one server alone
        has all or is gone."""
        if self.site is not None:
            return SITE_BEATS_LOST_MOST
        return BEATS_LOST_MOST if len(self.servers) > 1 else None

    def subject(self, name: str) -> str:
        """Return the subject on which the mailbox *name* reaches this device."""
        return f"{MAILBOXES}.{self.mailbox}.{name}"

    def client(self) -> BoundedClient:
        """Return a client that is not connected yet."""
        return BoundedClient(verifying_context(self.ca), self.server_name)

    async def connect(
        self,
        client: BoundedClient,
        *,
        failed: Callable[[Exception], Awaitable[None]] | None = None,
    ) -> None:
        """Connect *client* to the first server that accepts it, in random order; nothing else connects it
        again.

        Where no server accepts it, raise the last one's error, or `TimeoutError`; nats-py itself would go on
        trying.
        """
        refusals = 0
        stands = False

        async def note(error: Exception) -> None:
            nonlocal refusals
            refusals += 1
            if not stands and refusals >= len(self.servers):
                raise error
            if failed is not None:
                await failed(error)

        async with asyncio.timeout(_CONNECTS_WITHIN_S * (len(self.servers) + 1)):
            await client.connect(
                list(self.servers),
                tls=client.context,
                tls_handshake_first=True,
                name=f"harmony-agent {self.agent_id}",
                nkeys_seed_str=self.seed,
                user_jwt_cb=None if self.jwt is None else self.jwt.encode,
                inbox_prefix=f"_INBOX_{self.agent_id}",
                allow_reconnect=False,
                connect_timeout=_CONNECTS_WITHIN_S,
                # Typed there as whole seconds; it is slept for.
                ping_interval=cast("int", min(PING_S * self.slowness, PING_MOST_S)),
                max_outstanding_pings=2,
                error_cb=note,
            )
        stands = True


@attrs.frozen(kw_only=True)
class _Stored:
    """What stands at one key."""

    value: bytes | None = None
    """None where there never was one, or it was deleted."""
    revision: int = 0
    signature: str = ""


class Link:
    """One live connection."""

    def __init__(
        self,
        client: Client,
        agent_id: str,
        *,
        key: SigningKey,
        own_report: OwnReport,
        ended: asyncio.Event,
        beats_lost_most: int | None = None,
        site: str | None = None,
    ) -> None:
        """Use *client* until *beats_lost_most* heartbeats in a row are lost; None does not count them.

        *site* is the site whose server this connection leads to.
        """
        self._site = site
        self.ended = ended
        self._beats_lost_most = beats_lost_most
        self._beats_lost = 0
        self._takes_lifetimes: bool | None = None
        """Whether the server drops a heartbeat when that says; None: it was not asked yet."""
        self._client = client
        self._stream: JetStreamContext = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._slow_stream: JetStreamContext = client.jetstream(timeout=CHUNK_TIMEOUT_S)
        self._agent_id = agent_id
        self._key = key
        self._own_report = own_report
        self._ahead_bytes = 0
        self._ends_soon = False

    async def fetch_desired(self) -> bytes | None:
        return (await self._get(DESIRED_STATE, self._agent_id)).value

    async def fetch_root(self, version: int) -> bytes | None:
        return (await self._get(TRUST, str(version))).value

    async def fetch_index(self) -> bytes | None:
        return (await self._get(FLEET, INDEX_KEY)).value

    async def fetch_gate(self, name: str) -> bytes | None:
        return (await self._get(ROLLOUT, name)).value

    async def fetch_class_manifest(self, name: str, generation: int) -> bytes | None:
        return (await self._get(DESIRED_CLASS, f"{name}.{generation}")).value

    async def fetch_chunk(self, key: str) -> bytes | None:
        return (await self._get(ASSETS, key, self._slow_stream)).value

    async def prove(self) -> None:
        """End the connection, unless the server still answers on it."""
        try:
            await self._client.flush(PROVED_WITHIN_S)
        except (OSError, TimeoutError, NatsError):
            self.ended.set()

    async def _prove_after(self, error: Exception) -> None:
        """End the connection where *error* is that no answer came, and none comes now: its route is lost,
        without notice.

        nats-py finds that out by itself, but after minutes, in which nothing arrives that is pushed.
        """
        if isinstance(error, TimeoutError):
            await self.prove()

    async def recover(self) -> Writer | None:
        """Learn the revision of our own actual state, on which the next report builds.

        Return who else has written it meanwhile; None for nobody.
        """
        found = await self._get(ACTUAL_STATE, self._agent_id)
        return self._own_report.note_found(found.value, found.revision, found.signature)

    async def tell(self, data: bytes) -> None:
        """Write *data* over the last revision that we know; do nothing when that is equal."""
        if self._own_report.is_current(data):
            return
        headers = {
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(self._own_report.revision),
            SIGNATURE_HEADER: sign(self._key, ACTUAL_STATE_TYPE, data),
        }
        self._own_report.note_sent(data)
        try:
            ack = await self._stream.publish(
                f"$KV.{ACTUAL_STATE}.{self._agent_id}", data, headers=headers
            )
        except APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise RevisionConflict("actual-state was written since we last read it") from error
            raise BusUnreachable(f"the bus refused the report: {error.description}") from error
        except NoStreamResponseError as error:
            raise _no_bucket(ACTUAL_STATE, self._site) from error
        except MaxPayloadError as error:
            self._read_limits_again()
            raise BusUnreachable(
                f"the report has {len(data)} bytes, and the server takes no more than "
                f"{self._client.max_payload}; set its max_payload as `harmony server --check` says"
            ) from error
        except (NatsError, OSError, TimeoutError) as error:
            await self._prove_after(error)
            raise BusUnreachable(f"the report was not acknowledged: {error}") from error
        finally:
            honour_cancellation()
        self._own_report.note_acknowledged(data, ack.seq)

    def _read_limits_again(self) -> None:
        """Connect again now and then: a server says its limits only when a connection begins."""
        if not self._ends_soon:
            self._ends_soon = True
            asyncio.get_running_loop().call_later(LIMITS_READ_AGAIN_S, self.ended.set)

    async def beat(self, data: bytes, *, lifetime_s: int) -> bool:
        """Return whether the server keeps the heartbeat for so long, as far as that is known.

        The first one of a connection is acknowledged: an older server refuses each that says how long it
        counts, and keeps one that does not for 90 s.
        """
        headers = {SIGNATURE_HEADER: sign(self._key, HEARTBEAT_TYPE, data)}
        if self._takes_lifetimes is not False:
            headers[LIFETIME_HEADER] = str(lifetime_s)
        try:
            await self._publish_beat(data, headers)
        except (NatsError, OSError, TimeoutError) as error:
            log.info("heartbeat not sent: %s", error)
            self._note_lost_beat()
            return False
        finally:
            honour_cancellation()
        return bool(self._takes_lifetimes)

    async def _publish_beat(self, data: bytes, headers: dict[str, str]) -> None:
        subject = f"$KV.{HEARTBEAT}.{self._agent_id}"
        if self._takes_lifetimes is not None and self._beats_lost_most is None:
            await self._client.publish(subject, data, headers=headers)
            return
        try:
            await self._stream.publish(subject, data, headers=headers)
        except APIError as error:
            if error.err_code != _NO_LIFETIMES:
                raise
            log.warning("the server does not know yet how long heartbeats count; upgrade it, too")
            self._takes_lifetimes = False
            del headers[LIFETIME_HEADER]
            await self._stream.publish(subject, data, headers=headers)
        self._takes_lifetimes = LIFETIME_HEADER in headers
        self._beats_lost = 0

    def _note_lost_beat(self) -> None:
        """End the connection where a server has lost the others of its cluster: it gets nothing that is
        pushed, and answers with what it has, as if that were the newest. One beat may be lost while they
        elect a leader.

        End it also where a site's server has lost the fleet's: whatever is pushed until it is back does not
        arrive.
        """
        self._beats_lost += 1
        if self._beats_lost_most is not None and self._beats_lost >= self._beats_lost_most:
            log.warning("the server does not keep what this device says; it is connected to anew")
            self.ended.set()

    async def tell_inventory(self, data: bytes) -> None:
        """Write *data* over whatever is stored. Raise `BusUnreachable` where that is not acknowledged."""
        try:
            await self._stream.publish(
                f"$KV.{INVENTORY}.{self._agent_id}",
                data,
                headers={SIGNATURE_HEADER: sign(self._key, INVENTORY_TYPE, data)},
            )
        except NoStreamResponseError as error:
            raise _no_bucket(INVENTORY, self._site) from error
        except (NatsError, OSError, TimeoutError) as error:
            await self._prove_after(error)
            raise BusUnreachable(
                f"{INVENTORY} was not acknowledged: {str(error) or 'no answer'}"
            ) from error
        finally:
            honour_cancellation()

    async def reply(self, nonce: str, frame: bytes) -> None:
        try:
            signature = sign(self._key, REPLY_TYPE, reply_content(nonce, frame))
            await self._client.publish(
                f"harmony.reply.{self._agent_id}.{nonce}",
                frame,
                headers={SIGNATURE_HEADER: signature},
            )
            self._ahead_bytes += len(frame)
            if self._ahead_bytes > REPLIES_AHEAD_BYTES:
                self._ahead_bytes = 0
                await self._client.flush(REPLIED_WITHIN_S)
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnreachable(f"the answer was not taken: {error}") from error

    async def renew_jwt(self) -> str:
        """Return another JWT for this device. Raise `BusUnreachable` where nobody gives one."""
        # Most servers know the key itself, and at start nobody waits for it.
        from harmony_core.wire.enrolment import EnrolAnswer  # noqa: PLC0415

        try:
            found = await self._client.request(
                f"{RENEW_SUBJECT}.{self._agent_id}", b"", timeout=REQUEST_TIMEOUT_S
            )
            answer = EnrolAnswer.from_json(found.data)
        except (NatsError, OSError, TimeoutError) as error:
            raise BusUnreachable(f"nobody has answered ({type(error).__name__})") from error
        except InvalidReply as error:
            raise BusUnreachable(error.message) from error
        finally:
            honour_cancellation()
        if answer.jwt is None:
            raise BusUnreachable(f"it was refused: {visible(answer.message)}")
        return answer.jwt

    async def _get(self, bucket: str, key: str, stream: JetStreamContext | None = None) -> _Stored:
        """Return what is stored under *key*."""
        try:
            found = await (stream or self._stream).get_last_msg(
                f"KV_{bucket}", f"$KV.{bucket}.{key}", direct=True
            )
        except NotFoundError:
            return _Stored()
        except NoRespondersError as error:
            raise _no_bucket(bucket, self._site) from error
        except (NatsError, OSError, TimeoutError) as error:
            await self._prove_after(error)
            raise BusUnreachable(
                f"{bucket} could not be read: {str(error) or 'no answer'}"
            ) from error
        finally:
            honour_cancellation()
        headers = cast("Mapping[str, str]", found.headers or {})
        gone = headers.get("KV-Operation") in {"DEL", "PURGE"}
        return _Stored(
            value=None if gone else found.data or b"",
            revision=found.seq or 0,
            signature=headers.get(SIGNATURE_HEADER, ""),
        )


def _no_bucket(name: str, site: str | None) -> BusUnreachable:
    if site is not None:
        return BusUnreachable(
            f"{name}: the server of the site {site} does not reach the fleet's, or is not to carry what this "
            "device says; look at its log"
        )
    return BusUnreachable(
        f"{name}: the server has no such bucket; `harmony server`, started again, makes it"
    )


def explain(error: Exception, jwt: str | None = None) -> str:
    """Return why there is no connection, with *jwt* if the device has one, and what to do where that is
    known."""
    if isinstance(error, BusUnreachable):
        return error.message
    if isinstance(error, MemoryError):
        return "this device has no memory left for it; see with systemd-cgtop what takes it"
    said = str(error) or type(error).__name__
    if "auth" in said.lower():
        return f"{said}; {_explain_refusal(jwt)}"
    if isinstance(error, ssl.SSLError):
        return (
            "who answers there does not prove to be the server of this fleet "
            f"({describe_tls_error(error)}); if the server has a new authority, let this device in again: "
            "harmony enroll root@HOST --replace"
        )
    if isinstance(error, TimeoutError | OSError):
        return (
            f"{said}; is `harmony server` running there, and is this its address as seen from here? To have "
            "another one written into this file: harmony enroll root@HOST --replace --url tls://SERVER:4222"
        )
    return said


def _explain_refusal(jwt: str | None) -> str:
    if (since := _expired_since(jwt)) is not None:
        return (
            f"what let its key in (nats.jwt) has expired on {since}, before it could be renewed; to let it "
            "in again with that key: harmony enroll root@HOST"
        )
    return "its key is not enrolled, or was revoked; to let it in again: harmony enroll root@HOST --replace"


def _expired_since(jwt: str | None) -> str | None:
    with suppress(ValueError, OverflowError):
        expires_at_s = Claims.of(jwt or "").expires_at_s
        if expires_at_s is not None and expires_at_s <= time.time():
            return rfc3339(datetime.fromtimestamp(expires_at_s, UTC))
    return None


def honour_cancellation() -> None:
    """Raise `CancelledError` if the current task was cancelled: nats-py swallows cancellation at some of its
    awaits, and so does Python 3.11's wait_for when the answer comes at the same moment."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
