"""What people were told, in the bucket ``alerts``: one record for each group and channel.

Written by compare-and-swap before anything is sent, so that of several `harmony serve` one sends; and again
once it was taken. Whoever claims a record and is not heard of again has it taken over.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

import attrs
from nats.aio.client import Client

from harmony_control.bus.connection import Bucket
from harmony_control.bus.newest import newest
from harmony_core.errors import RevisionConflict
from harmony_core.wire.fields import Form, Reader, flag, one_of, text, whole
from harmony_core.wire.names import ALERTS

from .find import Group, Kind

__all__ = ["LEASE_S", "Record", "Records"]

LEASE_S = 60.0
"""Who has claimed a record and not written it anew for so long is taken for dead. If it is not, people are
told twice, with the same id."""
Told: TypeAlias = Literal["firing", "resolved"]


@attrs.frozen(kw_only=True)
class Record:
    """What was told of one group."""

    group: Group
    state: Told
    is_sent: bool
    """Whether it was taken; else who has claimed it sends it, or tries to."""
    count: int
    """How many devices were told."""
    id: str
    """The same for the same thing, whoever tells it in the end."""
    by: str
    """Who has written it."""


_GROUP = Form(Group, kind=one_of(*get_args(Kind)), of=text)
_RECORD: Reader[Record] = Form(
    Record,
    group=_GROUP,
    state=one_of(*get_args(Told)),
    is_sent=flag,
    count=whole,
    id=text,
    by=text,
)


@attrs.define
class _Known:
    record: Record
    revision: int
    seen_at_s: float


class Records:
    """Those of one channel, as they were read last."""

    def __init__(self, client: Client, channel: str, *, clock: Callable[[], float]) -> None:
        self.me = secrets.token_hex(8)
        self._client = client
        self._bucket = Bucket(client, ALERTS)
        self._channel = channel
        self._clock = clock
        self._known: dict[Group, _Known] = {}

    @property
    def all(self) -> Mapping[Group, Record]:
        """Return what was read, or written here, last."""
        return {group: each.record for group, each in self._known.items()}

    def is_claimed(self, group: Group) -> bool:
        """Return whether somebody else sends it now."""
        known = self._known.get(group)
        if known is None or known.record.is_sent or known.record.by == self.me:
            return False
        return self._clock() - known.seen_at_s < LEASE_S

    async def read(self) -> None:
        """Read all records again. Raise `StoreError`s."""
        entries = await newest(self._client, f"KV_{ALERTS}", ALERTS)
        now_s = self._clock()
        found: dict[Group, _Known] = {}
        for entry in entries:
            record = _read(entry.value, self._channel)
            if record is None:
                continue
            before = self._known.get(record.group)
            is_same = before is not None and before.revision == entry.revision
            seen_at_s = before.seen_at_s if before is not None and is_same else now_s
            found[record.group] = _Known(record, entry.revision, seen_at_s)
        self._known = found

    async def write(self, record: Record) -> bool:
        """Write the record if nobody else was quicker. Return whether it is stored. Raise `StoreError`s."""
        known = self._known.get(record.group)
        key, value = _key(self._channel, record.group), _to_json(self._channel, record)
        try:
            revision = (
                await self._bucket.create(key, value)
                if known is None
                else await self._bucket.update(key, value, last=known.revision)
            )
        except RevisionConflict:
            await self.read()
            return False
        self._known[record.group] = _Known(record, revision, self._clock())
        return True


def _key(channel: str, group: Group) -> str:
    # Labels may have what no key may.
    return hashlib.sha256(f"{channel}\n{group.kind}\n{group.of}".encode()).hexdigest()[:40]


def _to_json(channel: str, record: Record) -> bytes:
    return json.dumps({"channel": channel, **attrs.asdict(record)}).encode()


def _read(value: bytes, channel: str) -> Record | None:
    """Read what is stored, if it is of that channel and readable: what a newer harmony has written is
    reported again."""
    try:
        fields = json.loads(value)
        return _RECORD(fields) if fields["channel"] == channel else None
    except Exception:  # noqa: BLE001 - whatever it is
        return None
