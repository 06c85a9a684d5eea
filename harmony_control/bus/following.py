"""Following what is written to a bucket: the newest of each key first.

By ordered consumers, which tell only writes that were accepted; a plain subscription to a bucket's
subjects would also tell those that the compare-and-swap refused. A consumer does not survive its server,
and after a power cut a bucket may count its revisions anew, so after every reconnect the following begins
again from the newest values: some are told twice, none is missed. In a cluster the server that has the
consumer may be another than the one that we are connected to: after a while without a word it is asked for.

Who may only look can make no consumer: for such a one the bucket is read again and again instead.
"""

# nats-py's own signatures are partly untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from harmony_control.cancelling import honour_cancellation
from harmony_core.errors import NotAllowed, StoreError
from harmony_core.wire.lifetimes import find_lifetime_s

from .connection import REQUEST_TIMEOUT_S, Entry, bus_errors, is_deletion, signature_of
from .newest import newest

__all__ = ["following"]

_ALL = "*"
_LOOK_S = 1.0
"""How soon a new connection is noticed while nothing is written."""
_SILENT_S = 10.0
"""After so long without a word it is looked whether the server still has our consumer."""
_READ_AGAIN_S = 2.0
"""How often it is read by who may make no consumer."""


@asynccontextmanager
async def following(
    client: Client,
    bucket: str,
    key: str = _ALL,
    *,
    stream: str | None = None,
    deletions: bool = False,
) -> AsyncGenerator[AsyncIterator[Entry]]:
    """Yield the newest value of *key* (of every key, by ``*``), then every write from now on.

    This includes what was written before the block began, and everything after. It waits while the bus is
    away. *stream* contains the bucket, unless it is its own. With *deletions*, yield marks of deletion, too;
    and, to who may make no consumer, that a value is gone. Raise `StoreError` only when the block is entered.
    """
    stream = stream or f"KV_{bucket}"
    subject = f"$KV.{bucket}.{key}"
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    subscription: JetStreamContext.PushSubscription | None = None
    with suppress(NotAllowed):
        subscription = await _subscribe(client, stream, subject, queue)
    connection = _connection(client)
    loop = asyncio.get_running_loop()

    async def entries() -> AsyncGenerator[Entry]:
        nonlocal subscription, connection
        look_at_s = loop.time() + _SILENT_S
        while True:
            message: Msg | None = None
            # Not by asyncio.wait_for, which until Python 3.12 forgets that it was cancelled where a message
            # comes at the same time: whoever waits for the end of this would wait for ever.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    message = await queue.get()
            if message is not None:
                look_at_s = loop.time() + _SILENT_S
                if deletions or not is_deletion(message.headers):
                    yield _entry(message)
            if not client.is_connected:
                continue
            is_lost = _connection(client) != connection
            if not is_lost and loop.time() >= look_at_s:
                look_at_s = loop.time() + _SILENT_S
                is_lost = await _is_gone(subscription)
            if is_lost:
                with suppress(StoreError):
                    again = await _subscribe(client, stream, subject, queue)
                    if subscription is not None:
                        await _end(subscription)
                    subscription, connection = again, _connection(client)

    told = (
        entries()
        if subscription is not None
        else _reading(client, stream, bucket, key, deletions=deletions)
    )
    try:
        yield told
    finally:
        # RuntimeError: another task waits for the next one still, and ends it with itself.
        with suppress(RuntimeError):
            await told.aclose()
        if subscription is not None:
            await _end(subscription)


async def _reading(
    client: Client, stream: str, bucket: str, key: str, *, deletions: bool
) -> AsyncGenerator[Entry]:
    told: dict[str, Entry] = {}
    while True:
        with suppress(StoreError):
            found = {each.key: each for each in await newest(client, stream, bucket, key)}
            for entry in found.values():
                if entry.key not in told or told[entry.key].revision != entry.revision:
                    yield entry
            for gone in told.keys() - found.keys() if deletions else ():
                yield attrs.evolve(told[gone], value=b"", signature="", is_deletion=True)
            told = found
        await asyncio.sleep(_READ_AGAIN_S)


async def _subscribe(
    client: Client, stream: str, subject: str, queue: asyncio.Queue[Msg]
) -> JetStreamContext.PushSubscription:
    with bus_errors(f"following {subject}"):
        return await JetStreamContext(client, timeout=REQUEST_TIMEOUT_S).subscribe(
            subject, stream=stream, ordered_consumer=True, config=_newest_first(), cb=queue.put
        )


async def _is_gone(subscription: JetStreamContext.PushSubscription | None) -> bool:
    """Return whether the server says that it has no such consumer (any more)."""
    if subscription is None:
        return True
    try:
        await subscription.consumer_info()
    except NotFoundError:
        return True
    except (nats.errors.Error, OSError):
        pass  # it does not answer now, and is asked again
    honour_cancellation()
    return False


async def _end(subscription: JetStreamContext.PushSubscription) -> None:
    # Gone is gone: the server drops a consumer that nobody listens to.
    with suppress(nats.errors.Error, OSError):
        await subscription.unsubscribe()


def _newest_first() -> ConsumerConfig:
    return ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)


def _connection(client: Client) -> int:
    """Return a number that differs between one connection and the next."""
    return client.stats["reconnects"]


def _entry(message: Msg) -> Entry:
    about = message.metadata
    return Entry(
        key=message.subject.rpartition(".")[2],
        value=message.data,
        revision=about.sequence.stream,
        written_at=about.timestamp,
        signature=signature_of(message.headers),
        lifetime_s=find_lifetime_s(message.headers),
        is_deletion=is_deletion(message.headers),
    )
