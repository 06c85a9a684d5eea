"""Tells operators elsewhere with which key each device signs what it says, for as long as the server runs.

    agents.json, operator.key, trust/, whose time is over, bucket ``trust`` -> changed?
    -> a signed record of each device
    -> bucket ``devices``, where it says otherwise, or its signer counts no more

A device that was revoked keeps its record, which says so: else an older one could be put back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import attrs
from nats.aio.client import Client
from pydantic import ValidationError

from harmony_control.bus.connection import Bucket, Entry
from harmony_control.bus.newest import newest
from harmony_control.bus.roots import publish_missing, refresh
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.roots import Believed, read_believed, read_record_keys
from harmony_core.errors import HarmonyError, ManifestRejected, OutOfScope
from harmony_core.wire.device_record import SERIAL_MAX, DeviceRecord, open_record, seal_record
from harmony_core.wire.envelope import Signer
from harmony_core.wire.names import DEVICES, TRUST

from .beside import running_beside

__all__ = ["publish_devices", "publishing_devices"]

log = logging.getLogger(__name__)

_LOOK_S = 1.0


@asynccontextmanager
async def publishing_devices(home: Home, client: Client) -> AsyncGenerator[None]:
    """Within the block, publish in the bucket what *home* says of devices."""
    async with running_beside(_publish_changes(home, client), name="roster"):
        yield


async def _publish_changes(home: Home, client: Client) -> None:
    published: object = None
    failed = ""
    sources = _Sources(home, client)
    while True:
        try:
            found = await sources.read_version()
            if found != published:
                # The first root document is made in this home, and taken in here from nobody.
                if await asyncio.to_thread(home.root_versions):
                    await refresh(home, client)
                await publish_missing(home, client)
                await publish_devices(home, client)
                published, failed = found, ""
        except HarmonyError as error:
            if error.message != failed:
                log.error("devices could not be published: %s", error.message)  # noqa: TRY400 - it says it all
            failed = error.message
        except Exception:
            log.exception("a defect: devices could not be published")
        await asyncio.sleep(_LOOK_S)


class _Sources:
    """All from which the records of devices follow."""

    def __init__(self, home: Home, client: Client) -> None:
        self._home = home
        self._client = client
        self._files: object = None
        self._believed: Believed | None = None
        """By those files: to verify a chain of root documents once a second would cost more than all else."""

    async def read_version(self) -> object:
        """Return a value that changes once anything has changed here, the time of a key is over, or a root
        document was published from elsewhere."""
        files, believed = await asyncio.to_thread(self._read)
        trusted = frozenset(believed.find_keys("device"))
        following = None
        if believed.root is not None:
            following = await Bucket(self._client, TRUST).get(str(believed.root.version + 1))
        return files, trusted, following.revision if following is not None else None

    def _read(self) -> tuple[object, Believed]:
        files = self._home.roster_version()
        # Without a root document they are believed whose keys lie here, and those are read as they are.
        if self._believed is None or self._believed.root is None or files != self._files:
            self._believed, self._files = read_believed(self._home), files
        return files, self._believed


@attrs.frozen(kw_only=True)
class _Roster:
    """What a home says of devices, and whose word on them counts."""

    fleet: str
    report_keys: Mapping[str, str]
    """By the id of each device that is enrolled."""
    key: Signer
    """Signs what is written."""
    trusted: Mapping[str, bytes]
    """Whose records readers believe."""
    earlier: Mapping[str, bytes]
    """Whose records they have believed in this epoch."""

    @classmethod
    def read(cls, home: Home) -> Self:
        """Read the roster of *home*. Raise `ConfigError`; `OutOfScope` where this home's key may sign no
        records."""
        key, believed = operator_key.load(home), read_believed(home)
        trusted = believed.find_keys("device")
        if believed.root is not None and key.public.id not in trusted:
            raise OutOfScope(
                f"{key.public.id[:16]}… may sign no records of devices by the root document, version "
                f"{believed.root.version}, so operators elsewhere would not know who they are; let it: "
                f"harmony trust add NAME {home.operator_pub}"
            )
        return cls(
            fleet=home.control().fleet,
            report_keys={name: each.report_key for name, each in home.agents().items()},
            key=key,
            trusted=trusted,
            earlier=read_record_keys(home),
        )

    def open(self, entry: Entry, keys: Mapping[str, bytes]) -> DeviceRecord | None:
        """Return what *entry* says, if one of *keys* has signed it."""
        try:
            return open_record(entry.value, trusted=keys, fleet=self.fleet, agent_id=entry.key)
        except ManifestRejected:
            return None

    def find_next(self, agent_id: str, stored: Entry | None) -> DeviceRecord | None:
        """Return the record that must replace *stored*; None where that one is right, or where nobody would
        believe any other, which is reported."""
        report_key = self.report_keys.get(agent_id)
        before = None
        if stored is not None:
            before = self.open(stored, self.trusted)
            if before is not None and before.report_key == report_key:
                return None
            # Who has signed it may have been taken out, and readers believe no serial that is smaller.
            before = before or self.open(stored, self.earlier)
        serial = max(time.time_ns() // 1_000_000, before.serial + 1 if before else 1)
        if serial > SERIAL_MAX:
            log.error(
                "the record of %s has the last serial that there is, so operators elsewhere believe none "
                "that follows: find out who has signed it, and let the device in by another id",
                agent_id,
            )
            return None
        try:
            return DeviceRecord(
                fleet=self.fleet, agent_id=agent_id, report_key=report_key, serial=serial
            )
        except ValidationError:
            log.error(  # noqa: TRY400 - nobody needs to know where in the code
                "%s was enrolled with a key that is none, so no record says who it is: enrol it again",
                agent_id,
            )
            return None


async def publish_devices(home: Home, client: Client) -> None:
    """Write each record that is missing, differs from *home*, or no longer counts.

    Raise `ConfigError`, `StoreError`; `OutOfScope` where this home may sign none.
    """
    roster = await asyncio.to_thread(_Roster.read, home)
    stored = {each.key: each for each in await newest(client, f"KV_{DEVICES}", DEVICES)}
    for name in sorted(roster.report_keys.keys() | stored.keys()):
        record = roster.find_next(name, stored.get(name))
        if record is not None:
            await Bucket(client, DEVICES).put(name, seal_record(record, roster.key))
