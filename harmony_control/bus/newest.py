"""Reading many keys of a bucket at once, by direct reads in batches: nothing is made on the server for it.

    question -> messages … -> the end of a batch, with how many are left -> the next question, from there on

So who may do nothing but read can do it, and it costs one round trip.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import cast

import attrs
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from harmony_core.errors import StoreError
from harmony_core.wire.lifetimes import find_lifetime_s

from .connection import (
    REQUEST_TIMEOUT_S,
    Entry,
    bus_errors,
    is_deletion,
    no_bucket,
    signature_of,
)

__all__ = ["newest", "newest_of"]

_ALL = "*"
_KEYS_AT_ONCE = 256
"""The server answers about 1024 at the most."""
_MESSAGES_AT_ONCE = 1_024
_LOOKS = 5


async def newest(client: Client, stream: str, bucket: str, key: str = _ALL) -> list[Entry]:
    """Return the newest value of *key* (of every key, by ``*``) of *bucket*, from *stream*.

    This is for streams that keep one value of each key; of others, all values would be read. Where the server
    has put a marker in place of an expired value, the value is empty.
    """
    return await _read(client, stream, bucket, {"next_by_subj": f"$KV.{bucket}.{key}", "seq": 1})


async def newest_of(client: Client, bucket: str, keys: Collection[str]) -> list[Entry]:
    """Return the newest value of each of *keys* that has one, whatever else *bucket* keeps."""
    wanted = sorted(keys)
    found: list[Entry] = []
    for begin in range(0, len(wanted), _KEYS_AT_ONCE):
        subjects = [f"$KV.{bucket}.{key}" for key in wanted[begin : begin + _KEYS_AT_ONCE]]
        found += await _read(client, f"KV_{bucket}", bucket, {"multi_last": subjects})
    return found


async def _read(
    client: Client, stream: str, bucket: str, question: Mapping[str, object]
) -> list[Entry]:
    # What is written meanwhile comes once more, later: the later counts.
    found: dict[str, Entry] = {}
    ends: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    heard = 0

    async def take(message: Msg) -> None:
        nonlocal heard
        heard += 1
        headers = cast("Mapping[str, str] | None", message.headers) or {}
        # Every message has it, put there by the server behind whatever headers a device has written, of
        # which the last counts. Its status is no sign of the end: that one a device can write, too.
        if "Nats-Sequence" not in headers:
            ends.put_nowait(headers)
            return
        entry = _entry(message, headers)
        found.pop(entry.key, None)
        if not is_deletion(headers):
            found[entry.key] = entry

    async def next_end() -> Mapping[str, str]:
        # A busy server takes long over a batch, and is not away for that: only silence is. It is looked for
        # several times, since whoever is too busy to listen hears nothing either.
        silent = 0
        while silent < _LOOKS:
            before = heard
            with suppress(TimeoutError):
                async with asyncio.timeout(REQUEST_TIMEOUT_S / _LOOKS):
                    return await ends.get()
            silent = silent + 1 if heard == before else 0
        raise TimeoutError

    with bus_errors(f"reading {bucket}"):
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox, cb=take)  # pyright: ignore[reportUnknownMemberType] - half typed there
        try:
            while True:
                body = json.dumps({"batch": _MESSAGES_AT_ONCE, **question}).encode()
                await client.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=inbox)
                end = _read_end(bucket, await next_end())
                if end is None or not end.left:
                    return list(found.values())
                question = {**question, "seq": end.last + 1}
                if end.up_to is not None:
                    question["up_to_seq"] = end.up_to
        finally:
            with suppress(nats.errors.Error, OSError):
                await answers.unsubscribe()


@attrs.frozen
class _End:
    """The end of a batch."""

    left: int
    last: int
    """The revision of the last message that was sent."""
    up_to: int | None
    """The revision of the stream that the whole answer is about; None where that does not matter."""


def _read_end(bucket: str, headers: Mapping[str, str]) -> _End | None:
    """Return what the message without a value says; None where there is nothing at all."""
    match headers.get("Status"):
        case "404":
            return None
        case "503":
            raise no_bucket(f"reading {bucket}")
        case "204":
            up_to = headers.get("Nats-UpTo-Sequence")
            return _End(
                left=int(headers["Nats-Num-Pending"]),
                last=int(headers["Nats-Last-Sequence"]),
                up_to=int(up_to) if up_to else None,
            )
        case status:
            said = headers.get("Description", "")
            raise StoreError(
                f"reading {bucket}: the server refused it: {status} {said}; see the log of `harmony server`"
            )


def _entry(message: Msg, headers: Mapping[str, str]) -> Entry:
    return Entry(
        key=headers["Nats-Subject"].rpartition(".")[2],
        value=message.data,
        revision=int(headers["Nats-Sequence"]),
        written_at=datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        signature=signature_of(headers),
        lifetime_s=find_lifetime_s(headers),
    )
