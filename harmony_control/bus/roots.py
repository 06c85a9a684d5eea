"""The root documents in the bucket ``trust``: read by everybody, written once each, hinted to each device.

publish -> trust.<version> -> a hint to each device's mailbox -> the device fetches it, and what follows
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
from nats.aio.client import Client

from harmony_control.store.home import Home
from harmony_control.store.roots import open_next, read_chain, read_envelope, save_root
from harmony_core.errors import RevisionConflict, RootRejected, UsageError
from harmony_core.wire.names import DEVICES, TRUST

from .connection import Bucket, bus_errors
from .newest import newest
from .reports import Reports

if TYPE_CHECKING:
    from harmony_core.wire.root import Root  # a fleet without one needs no model of it

log = logging.getLogger(__name__)

__all__ = ["Taken", "hint", "look_who_has", "publish", "publish_missing", "refresh"]

_LOOK_AGAIN_S = 0.5


async def refresh(home: Home, client: Client) -> Root | None:
    """Keep the root documents that were published since, each verified by the one before.

    Return the newest; None for a fleet without. What does not follow it stands there for nothing: whoever may
    write the bucket can put it there. `StoreError`s.
    """
    chain = await asyncio.to_thread(read_chain, home)
    latest = chain[-1] if chain else None
    bucket = Bucket(client, TRUST)
    while (entry := await bucket.get(str(latest.version + 1 if latest else 1))) is not None:
        try:
            latest = await asyncio.to_thread(open_next, home, entry.value, latest)
        except RootRejected as error:
            log.warning("what stands as the next root document does not count: %s", error.message)
            break
        await asyncio.to_thread(save_root, home, latest.version, entry.value)
    return latest


async def publish(home: Home, client: Client, envelope: bytes) -> Root:
    """Have *envelope* be the newest root document, for everybody, and hint it to every device.

    `RootRejected` where it does not follow the newest one, or too few have signed it; `UsageError` where
    somebody else has published that version.
    """
    before = await refresh(home, client)
    root = await asyncio.to_thread(open_next, home, envelope, before)
    bucket = Bucket(client, TRUST)
    # What stands there already does not count: else `refresh` had taken it.
    there = await bucket.get(str(root.version))
    try:
        if there is None:
            await bucket.create(str(root.version), envelope)
        else:
            await bucket.update(str(root.version), envelope, last=there.revision)
    except RevisionConflict as error:
        raise UsageError(
            f"version {root.version} was published by somebody else meanwhile; look at it with `harmony "
            "trust show`, and change that one"
        ) from error
    await asyncio.to_thread(save_root, home, root.version, envelope)
    # Where it was not enrolled from this home, a device has its record in the bus.
    records = await newest(client, f"KV_{DEVICES}", DEVICES)
    enrolled = await asyncio.to_thread(home.agents)
    await hint(client, sorted(enrolled.keys() | {each.key for each in records}))
    return root


@attrs.frozen
class Taken:
    """Which devices say that a root document counts on them, by id."""

    by: Sequence[str]
    not_by: Sequence[str]
    """Of those that are heard of."""
    away: Sequence[str]


async def look_who_has(reports: Reports, version: int, *, within_s: float = 0.0) -> Taken:
    """Return who has taken in root document *version*, or a later one, by their own signed reports.

    Who is heard of and has not is waited for, at most *within_s*.
    """
    until = asyncio.get_running_loop().time() + within_s
    while True:
        seen = await reports.read_all_seen()
        have = [each for each in seen if each.state and each.state.root_version >= version]
        others = [each for each in seen if each not in have]
        found = Taken(
            by=[each.agent_id for each in have],
            not_by=[each.agent_id for each in others if each.presence == "Heard"],
            away=[each.agent_id for each in others if each.presence != "Heard"],
        )
        if not found.not_by or asyncio.get_running_loop().time() >= until:
            return found
        await asyncio.sleep(_LOOK_AGAIN_S)


async def publish_missing(home: Home, client: Client) -> None:
    """Write again what the bucket has lost of what is kept here, as after the server's disk was replaced."""
    bucket = Bucket(client, TRUST)
    for root in await asyncio.to_thread(read_chain, home):
        if await bucket.get(str(root.version)) is None:
            envelope = await asyncio.to_thread(read_envelope, home, root.version)
            await bucket.put(str(root.version), envelope)


async def hint(client: Client, agent_ids: Iterable[str]) -> None:
    """Tell these devices that there is a newer root document. Who is away finds it when it connects."""
    with bus_errors("telling devices of a new root document"):
        for each in agent_ids:
            await client.publish(f"harmony.push.{TRUST}.{each}", b"")
        await client.flush()
