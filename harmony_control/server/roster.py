"""Tells operators elsewhere with which key each device signs what it says, for as long as the server runs.

    agents.json -> changed? -> a signed record of each device -> bucket ``devices``, where it says otherwise

A device that was revoked keeps its record, which says so: else an older one could be put back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from nats.aio.client import Client

from harmony_control.bus.connection import Bucket, Entry
from harmony_control.bus.newest import newest
from harmony_control.bus.roots import publish_missing
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import HarmonyError, ManifestRejected
from harmony_core.wire.device_record import DeviceRecord, open_record, seal_record
from harmony_core.wire.envelope import SigningKey, pin_keys
from harmony_core.wire.names import DEVICES

from .beside import running_beside

__all__ = ["publish_devices", "publishing_devices"]

log = logging.getLogger(__name__)

_LOOK_S = 1.0


@asynccontextmanager
async def publishing_devices(home: Home, client: Client) -> AsyncGenerator[None]:
    """Have the bucket say, within the block, what *home* says of devices."""
    async with running_beside(_publish_changes(home, client), name="roster"):
        yield


async def _publish_changes(home: Home, client: Client) -> None:
    published: object = None
    while True:
        found = await asyncio.to_thread(home.agents_version)
        if found != published:
            try:
                await publish_missing(home, client)
                await publish_devices(home, client)
                published = found
            except HarmonyError as error:
                log.error("devices could not be published: %s", error.message)  # noqa: TRY400 - it says it all
            except Exception:
                log.exception("a defect: devices could not be published")
        await asyncio.sleep(_LOOK_S)


async def publish_devices(home: Home, client: Client) -> None:
    """Write each record that is missing, or says otherwise than *home*. `ConfigError`, `StoreError`."""
    enrolled, key, fleet = await asyncio.to_thread(
        lambda: (home.agents(), operator_key.load(home), home.control().fleet)
    )
    wanted: dict[str, str | None] = {name: each.report_key for name, each in enrolled.items()}
    stored = {each.key: each for each in await newest(client, f"KV_{DEVICES}", DEVICES)}
    before = {name: _read(entry, key, fleet) for name, entry in stored.items()}
    for name in sorted(wanted.keys() | before.keys()):
        record = _next(name, wanted, before.get(name), fleet)
        if record is not None:
            await Bucket(client, DEVICES).put(name, seal_record(record, key))


def _next(
    agent_id: str, wanted: Mapping[str, str | None], before: DeviceRecord | None, fleet: str
) -> DeviceRecord | None:
    """Return the record that is to stand there; None where the right one does."""
    report_key = wanted.get(agent_id)
    if before is not None and before.report_key == report_key:
        return None
    serial = max(time.time_ns() // 1_000_000, before.serial + 1 if before else 1)
    return DeviceRecord(fleet=fleet, agent_id=agent_id, report_key=report_key, serial=serial)


def _read(entry: Entry, key: SigningKey, fleet: str) -> DeviceRecord | None:
    """Return what *entry* says, if it was signed here."""
    try:
        return open_record(
            entry.value, trusted=pin_keys([key.public]), fleet=fleet, agent_id=entry.key
        )
    except ManifestRejected:
        return None
