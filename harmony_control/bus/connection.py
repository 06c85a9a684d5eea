"""The control plane's connection to the bus: beside `.following`, the only module here that knows nats-py.

A connection either stands within `CONNECT_TIMEOUT_S` or fails with `BusUnreachable`; once it stood it
is made again for as long as its owner keeps it. Nothing is logged: what goes wrong is raised where it
matters, in our own errors.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, cast

import attrs
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.kv import KeyValue

from harmony_control.bus_url import split_url
from harmony_control.cancelling import honour_cancellation
from harmony_control.store.nkey import Nkey
from harmony_core.errors import (
    BusUnreachable,
    HarmonyError,
    NotAllowed,
    RevisionConflict,
    StoreError,
)
from harmony_core.wire.device_signature import SIGNATURE_HEADER
from harmony_core.wire.lifetimes import find_lifetime_s
from harmony_core.wire.names import SERVER_NAME
from harmony_core.wire.tls import describe_tls_error, verifying_context

from .tls_client import Refused, TlsClient

if TYPE_CHECKING:
    from harmony_control.store.home import ControlConfig, Home

__all__ = [
    "Bucket",
    "Entry",
    "admin",
    "bus_errors",
    "close",
    "cluster_of",
    "connect",
    "connect_admin",
    "inbox_prefix",
    "is_deletion",
    "no_bucket",
    "raise_if_refused",
    "server_id",
    "signature_of",
]

CONNECT_TIMEOUT_S = 2
REQUEST_TIMEOUT_S = 5.0
_RECONNECT_WAIT_S = 1
_REFUSED_AGAIN_S = 0.2
_HINT = "is `harmony server` running there, and is the address right?"


@attrs.frozen(kw_only=True)
class Entry:
    """One key's newest value. ``revision`` is for compare-and-swap, and is not a generation."""

    key: str
    value: bytes
    revision: int
    written_at: datetime
    """By the server's clock."""
    signature: str = ""
    """What the header `SIGNATURE_HEADER` says; empty where there is none."""
    lifetime_s: float | None = None
    """After how long the server drops it, as who has written it has said; None where that is not said."""
    is_deletion: bool = False
    """Whether it is a mark that stands in place of a value; only whoever asks for them is told of such."""


class Bucket:
    """One KV bucket, by plain reads and compare-and-swap. Every method: `BusUnreachable` when NATS
    does not answer, `StoreError` when it refuses."""

    def __init__(self, client: Client, name: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        # By hand: looking the bucket up would need the right to its stream's information.
        self._streams = JetStreamContext(client, timeout=timeout_s)
        self._keys = KeyValue(
            name=name, stream=f"KV_{name}", pre=f"$KV.{name}.", js=self._streams, direct=True
        )
        self.name = name

    async def get(self, key: str) -> Entry | None:
        """Return the newest value; None when there never was one or it was deleted."""
        return await self._last(key, f"KV_{self.name}")

    async def history(self, key: str) -> list[Entry]:
        """Return every value that the bucket still has of *key*, the oldest first."""
        found: list[Entry] = []
        after = 0
        with bus_errors(f"reading {self.name}.{key}"):
            while True:
                try:
                    each = await self._streams.get_msg(
                        f"KV_{self.name}",
                        seq=after + 1,
                        subject=f"$KV.{self.name}.{key}",
                        direct=True,
                        next=True,
                    )
                except nats.js.errors.NotFoundError:
                    return found
                entry = self._entry(key, each)
                after = entry.revision
                if not _is_deletion(each):
                    found.append(entry)

    async def list_keys(self, pattern: str = ">") -> list[str]:
        """Return the keys that are there and match *pattern*, in which ``*`` is one part of a key."""
        with bus_errors(f"listing {self.name}"):
            info = await self._streams.stream_info(
                f"KV_{self.name}", subjects_filter=f"$KV.{self.name}.{pattern}"
            )
        prefix = f"$KV.{self.name}."
        return [each.removeprefix(prefix) for each in info.state.subjects or {}]

    async def get_copied(self, key: str, *, stream: str) -> Entry | None:
        """Return the entry of *key* from *stream*, which copies this bucket. Its value is empty where
        *stream* has a marker in place of an expired entry."""
        return await self._last(key, stream)

    async def _last(self, key: str, stream: str) -> Entry | None:
        # Not by KeyValue.get, which forgets when the value was written.
        with bus_errors(f"reading {self.name}.{key}"):
            try:
                found = await self._streams.get_msg(
                    stream, subject=f"$KV.{self.name}.{key}", direct=True
                )
            except nats.js.errors.NotFoundError:
                return None
        return None if _is_deletion(found) else self._entry(key, found)

    def _entry(self, key: str, found: RawStreamMsg) -> Entry:
        if found.seq is None or found.time is None:
            raise StoreError(
                f"{self.name}.{key} came without a revision; is the server NATS 2.12+?"
            )
        headers = cast("Mapping[str, str] | None", found.headers)  # pyright: ignore[reportUnknownMemberType] - half typed there
        return Entry(
            key=key,
            value=found.data or b"",
            revision=found.seq,
            written_at=found.time,
            signature=signature_of(headers),
            lifetime_s=find_lifetime_s(headers),
        )

    async def put(self, key: str, value: bytes) -> int:
        """Write *value* over whatever was there before. Return the new revision."""
        with bus_errors(f"writing {self.name}.{key}"):
            return await self._keys.put(key, value)

    async def create(self, key: str, value: bytes) -> int:
        """Write where there is no value, and only there: else `RevisionConflict`. The revision."""
        with bus_errors(f"creating {self.name}.{key}"):
            return await self._keys.create(key, value)

    async def clear(self, key: str) -> None:
        """Put a mark of deletion in place of the value. Idempotent."""
        # The mark of a purge, since of that one no server announces, where values expire, that it has ended.
        with bus_errors(f"clearing {self.name}.{key}"):
            await self._streams.publish(f"$KV.{self.name}.{key}", headers={"KV-Operation": "PURGE"})

    async def erase(self, key: str) -> None:
        """Have the server forget every value of *key*; only where the bucket can be purged. Idempotent."""
        with bus_errors(f"erasing {self.name}.{key}"):
            await self._streams.purge_stream(f"KV_{self.name}", subject=f"$KV.{self.name}.{key}")

    async def update(self, key: str, value: bytes, *, last: int) -> int:
        """Write if the newest revision is *last*, else `RevisionConflict`. The new revision."""
        with bus_errors(f"updating {self.name}.{key}"):
            return await self._keys.update(key, value, last=last)


def _is_deletion(found: RawStreamMsg) -> bool:
    return is_deletion(cast("Mapping[str, str] | None", found.headers))  # pyright: ignore[reportUnknownMemberType] - half typed there


def signature_of(headers: Mapping[str, str] | None) -> str:
    """Return what these headers have of a device's signature; empty where there is none."""
    return (headers or {}).get(SIGNATURE_HEADER, "")


def is_deletion(headers: Mapping[str, str] | None) -> bool:
    """Return whether these are the headers of a mark of deletion, as NATS' own clients put it into a
    bucket."""
    return (headers or {}).get("KV-Operation") in {"DEL", "PURGE"}


async def connect(
    url: str,
    *,
    seed: str | None,
    jwt: str | None = None,
    authority: str,
    server_name: str = SERVER_NAME,
    inbox: str | None = None,
    refusals: list[str] | None = None,
) -> Client:
    """Return a connection to *url* as the holder of *seed*, or of no key. `close` it when done.

    Of several servers it is the first that takes it, and another one whenever that is lost.

    *jwt* says who that is, to a server that does not know the key itself.
    The server must have a certificate of *authority* (PEM) for *server_name*, whatever its address is. What
    it refuses later is put into *refusals*. Answers arrive under *inbox*, else under `inbox_prefix`.
    """
    account = _Account(url, seed, jwt, verifying_context(authority), server_name, inbox)
    refusals = [] if refusals is None else refusals
    try:
        try:
            return await _connect(account, refusals)
        except (nats.errors.Error, ConnectionResetError) as error:
            if not (_is_refusal(error) or isinstance(error, ConnectionResetError)):
                raise
            # Whoever is half-way in while the server is told of somebody else is refused as well, or cut off.
            await asyncio.sleep(_REFUSED_AGAIN_S)
            return await _connect(account, refusals)
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise _unreachable(url, error) from error


@attrs.frozen
class _Account:
    """Where to connect to, and as whom: as for `connect`."""

    url: str
    seed: str | None = attrs.field(repr=False)
    jwt: str | None = attrs.field(repr=False)
    context: ssl.SSLContext
    server_name: str
    inbox: str | None


async def _connect(account: _Account, refusals: list[str]) -> Client:
    client = TlsClient(account.context, account.server_name)
    servers = split_url(account.url)
    stands = False
    failed = 0

    async def note_error(error: Exception) -> None:
        # Raised here, an error ends the first attempt at once, when each server was tried; by itself
        # nats-py would try for minutes. Later ones are told by the request that suffers from them.
        nonlocal failed
        if not stands:
            failed += 1
            if failed >= len(servers):
                raise error
            return
        refusals.append(str(error))
        if "permissions violation" in str(error).lower():
            client.note_refusal(error)

    seed, jwt = account.seed, account.jwt
    try:
        await client.connect(
            list(servers),
            name="harmony",
            nkeys_seed_str=seed,
            user_jwt_cb=None if jwt is None else jwt.encode,
            tls=account.context,
            tls_handshake_first=True,
            inbox_prefix=account.inbox
            or inbox_prefix(Nkey.of_seed(seed).public if seed else "nobody"),
            error_cb=note_error,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=_RECONNECT_WAIT_S,
            max_reconnect_attempts=-1,
        )
    except BaseException:
        await close(client)
        raise
    stands = True
    return client


async def connect_admin(home: Home) -> Client:
    """Return a connection with the control plane's own rights, with the settings of *home*. Call `close` when
    done."""

    def read() -> tuple[ControlConfig, Nkey, str | None, str]:
        config = home.control()
        key = Nkey.read(config.admin_seed)
        return config, key, config.read_jwt(), home.read_authority(config)

    config, key, jwt, authority = await asyncio.to_thread(read)
    return await connect(
        config.url, seed=key.seed, jwt=jwt, authority=authority, server_name=config.server_name
    )


def inbox_prefix(nkey: str) -> str:
    """Return the subject under which the answers to the holder of that public nkey arrive.

    An operator who may only read may listen to no other.
    """
    return f"_INBOX_{nkey}"


def raise_if_refused(client: Client, doing: str) -> None:
    """Raise `NotAllowed` if the server has refused anything on this connection; *doing* is as for
    `bus_errors`."""
    if isinstance(client, TlsClient) and client.refused:
        raise _not_allowed(doing)


def cluster_of(client: Client) -> str:
    """Return the name of the cluster that *client*'s server belongs to; empty where it belongs to none."""
    return str(_server_info(client).get("cluster") or "")


def server_id(client: Client) -> str:
    """Return what distinguishes the server of *client* from all others, since its start."""
    return str(_server_info(client).get("server_id") or "")


def _server_info(client: Client) -> Mapping[str, object]:
    return cast("Mapping[str, object]", client._server_info)  # pyright: ignore[reportPrivateUsage] - told nowhere else


async def close(client: Client) -> None:
    """End a connection, whatever state it is in. Idempotent."""
    # While it is being made anew, nats-py still tries to send what is left over the old one.
    with suppress(OSError):
        await client.close()


@asynccontextmanager
async def admin(home: Home) -> AsyncGenerator[Client]:
    """Yield what `connect_admin` returns, and close it at the end of the block."""
    client = await connect_admin(home)
    try:
        yield client
    finally:
        await close(client)


@contextmanager
def bus_errors(doing: str) -> Generator[None]:
    """Turn nats-py's errors into Harmony's; *doing* says what failed: ``reading desired-state.pi-1``.

    A task that was cancelled meanwhile is cancelled, also where nats-py has forgotten it.
    """
    try:
        yield
        honour_cancellation()
    except nats.js.errors.KeyWrongLastSequenceError as error:
        raise RevisionConflict(f"{doing}: somebody else wrote first; read it again") from error
    except (
        nats.js.errors.NotFoundError,
        nats.js.errors.NoStreamResponseError,
        nats.errors.NoRespondersError,
    ) as error:
        raise no_bucket(doing) from error
    except (
        nats.errors.ConnectionClosedError,
        nats.errors.OutboundBufferLimitError,
        TimeoutError,
        OSError,
    ) as error:
        raise BusUnreachable(f"{doing}: NATS does not answer; {_HINT}") from error
    except nats.errors.MaxPayloadError as error:
        raise StoreError(f"{doing}: larger than the server takes; make it smaller") from error
    except nats.js.errors.APIError as error:
        raise _to_error(doing, error) from error
    except Refused as error:
        raise _not_allowed(doing) from error
    except nats.errors.Error as error:
        raise StoreError(f"{doing}: {error}") from error


def _to_error(doing: str, error: nats.js.errors.APIError) -> HarmonyError:
    if isinstance(error, nats.js.errors.ServiceUnavailableError) and not error.description:
        # Nobody answered; a full bucket is the same error, with its reason.
        return no_bucket(doing)
    said = error.description or type(error).__name__
    return StoreError(f"{doing}: the server refused it: {said}; see the log of `harmony server`")


def _not_allowed(doing: str) -> NotAllowed:
    return NotAllowed(
        f"{doing}: the server refused it, since this key may only look; who runs the server allows more "
        "with `harmony add-operator`, without --read-only"
    )


def no_bucket(doing: str) -> BusUnreachable:
    """Return the error that nobody answers for a bucket; *doing* is as for `bus_errors`."""
    return BusUnreachable(
        f"{doing}: the server has no such bucket; `harmony server`, started again, makes it"
    )


def _is_refusal(error: BaseException) -> bool:
    return "authorization" in str(error).lower()


def _unreachable(url: str, error: BaseException) -> BusUnreachable:
    if isinstance(error, ConnectionRefusedError):
        said = f"nothing listens at {url}"
    elif isinstance(error, TimeoutError):
        said = f"no answer from {url} within {CONNECT_TIMEOUT_S} s"
    elif isinstance(error, ssl.SSLError):
        return BusUnreachable(
            f"who answers at {url} does not prove to be the server of this fleet: "
            f"{describe_tls_error(error)}; is it the one that `harmony server` runs from this directory, or "
            "that the file for `harmony join` came from, and is there nobody in between?"
        )
    elif _is_refusal(error):
        return BusUnreachable(
            f"the server at {url} does not know our key; is it the one that `harmony server` runs "
            "from this directory? If it runs elsewhere, its operator lets us in, with `harmony add-operator` "
            "and our operator.pub"
        )
    else:
        said = f"cannot reach {url}: {error}"
    return BusUnreachable(f"{said}; {_HINT}")
